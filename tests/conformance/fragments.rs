//! RFC 6146 §3.4, RFC 7915 §5.1.1, RFC 8200 §4.5, RFC 5722: fragments become whole datagrams, whatever worker they come
//! to, and datagrams that are too long become fragments again.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{Gateway, L4, Out, Packet, at, echo_reply, echo_request, ip, settings, udp};
use crate::{CLIENT, SERVER, client, open_udp, server, server6};
use sampan::wire::ipv6;

/// The packet in pieces of at most `room` payload bytes.
pub fn pieces(packet: &Packet, room: usize, id: u32) -> Vec<Vec<u8>> {
    let bytes = packet.bytes();
    let is_v6 = bytes[0] >> 4 == 6;
    let (header, payload) = bytes.split_at(if is_v6 { 40 } else { 20 });
    let count = payload.len().div_ceil(room);
    let piece = |(i, chunk): (usize, &[u8])| {
        let (at, more) = (i * room, i + 1 < count);
        let mut out = header.to_vec();
        if is_v6 {
            out[4..6].copy_from_slice(&((8 + chunk.len()) as u16).to_be_bytes());
            out[6] = 44;
            out.extend([header[6], 0]);
            out.extend((at as u16 | u16::from(more)).to_be_bytes());
            out.extend(id.to_be_bytes());
        } else {
            out[2..4].copy_from_slice(&((20 + chunk.len()) as u16).to_be_bytes());
            out[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            out[6..8].copy_from_slice(&((at / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
            out[10..12].fill(0);
            let sum =
                etherparse::Ipv4HeaderSlice::from_slice(&out).unwrap().to_header().calc_header_checksum();
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        out.extend(chunk);
        out
    };
    payload.chunks(room).enumerate().map(piece).collect()
}

/// What a receiver makes of the pieces that came out: one packet without its Fragment Headers.
fn whole(out: &[Out]) -> Packet {
    let first = &out[0].bytes;
    let is_v6 = first[0] >> 4 == 6;
    if out.len() == 1 {
        return Packet::parse(first).unwrap();
    }
    let front = if is_v6 { 48 } else { 20 };
    let mut bytes = first[..if is_v6 { 40 } else { 20 }].to_vec();
    for piece in out {
        bytes.extend(&piece.bytes[front..]);
    }
    if is_v6 {
        let len = (bytes.len() - 40) as u16;
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
        bytes[6] = first[40];
    } else {
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        bytes[6..8].fill(0);
        bytes[10..12].fill(0);
        let sum = etherparse::Ipv4HeaderSlice::from_slice(&bytes).unwrap().to_header().calc_header_checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    Packet::parse(&bytes).unwrap()
}

fn send_all<'a>(gateway: &mut Gateway, pieces: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Out> {
    pieces.into_iter().flat_map(|p| gateway.send_raw(p.clone(), Default::default())).collect()
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7) as u8).collect()
}

#[test]
fn e01_e05_e06_e21_g21_both_directions_in_and_out_of_order() {
    for mut gateway in Gateway::each(&settings()) {
        let t: SocketAddr = open_udp(&mut gateway, client(4000));
        let up = udp(client(4000), server6(&gateway, 53), &data(4000));
        let down = udp(server(53), t, &data(4000));
        for backwards in [false, true] {
            for (packet, src, dst) in [(&up, t, server(53)), (&down, server6(&gateway, 53), client(4000))] {
                let mut pieces = pieces(packet, 1232, 0xabcd);
                if backwards {
                    pieces.reverse();
                }
                let out = send_all(&mut gateway, &pieces);
                let seen = whole(&out);
                assert_eq!((seen.source(), seen.destination(), seen.data()), (src, dst, &data(4000)[..]));
                assert!(out.iter().all(|o| o.bytes.len() <= if src.is_ipv6() { 1280 } else { 1500 }));
            }
        }
        let totals = gateway.totals();
        assert_eq!((totals.absorbed, totals.held), (12, 0));
    }
}

#[test]
fn e01_echo_larger_than_the_mtu_both_ways() {
    for mut gateway in Gateway::each(&settings()) {
        let request = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 77, &data(4000));
        let out = send_all(&mut gateway, &pieces(&request, 1232, 1));
        let seen = whole(&out);
        let L4::Echo { reply: false, id, .. } = seen.l4 else { panic!("no request") };
        assert_eq!(seen.data(), data(4000));
        let reply = echo_reply(ip(SERVER), seen.src, id, &data(4000));
        let seen = whole(&send_all(&mut gateway, &pieces(&reply, 1480, 2)));
        assert!(matches!(seen.l4, L4::Echo { reply: true, id: 77, .. }));
        assert_eq!((seen.dst, seen.data()), (ip(CLIENT), &data(4000)[..]));
    }
}

#[test]
fn e18_what_was_put_together_gets_an_identification_of_its_own() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50 {
            // The senders use one identification again and again.
            let up = udp(client(4000), server6(&gateway, 53), &data(2000));
            let out = send_all(&mut gateway, &pieces(&up, 1232, 5));
            assert!(out.len() == 2 && out[0].bytes[4..6] == out[1].bytes[4..6]);
            assert!(seen.insert(out[0].bytes[4..6].to_vec()));
            let down = udp(server(53), t, &data(2000));
            let out = send_all(&mut gateway, &pieces(&down, 1480, 5));
            let ids: Vec<_> =
                out.iter().map(|o| ipv6::parse(&o.bytes).unwrap().fragment.unwrap().id).collect();
            assert!(ids.iter().all(|id| *id == ids[0]));
            assert!(seen.insert(ids[0].to_be_bytes().to_vec()));
        }
    }
}

#[test]
fn e18_clients_behind_one_address_share_no_identification() {
    let mut settings = settings();
    settings.pool4.ranges[0].prefix = "198.51.100.1/32".parse().unwrap();
    for mut gateway in Gateway::each(&settings) {
        let mut seen = std::collections::HashSet::new();
        // Up to 1260 bytes the next hop may cut them, so that their numbers matter (B-06).
        for round in 0..300 {
            for host in 1..=4_u16 {
                let from = at(format!("2001:db8:1::{host:x}"), 4000);
                let out = gateway.translate(&udp(from, server6(&gateway, 53), b"q"));
                assert_eq!((out.src, out.df), (ip("198.51.100.1"), false));
                assert!(seen.insert(out.id), "round {round}, host {host}: {} again", out.id);
            }
        }
    }
}

#[test]
fn c17_fragmented_udp_without_checksum_gets_one() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let mut all = pieces(&udp(server(53), t, &data(2000)), 1480, 9);
        all[0][26..28].fill(0);
        // `Packet::parse` recomputes the checksum.
        let seen = whole(&send_all(&mut gateway, &all));
        assert_eq!((seen.destination(), seen.data()), (client(4000), &data(2000)[..]));
    }
}

#[test]
fn e11_e13_overlaps_and_e03_the_time_limit() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let up = udp(client(4000), server6(&gateway, 53), &data(2000));
        let down = udp(server(53), t, &data(2000));
        let before = gateway.drops("fragment_overlap");
        for packet in [&up, &down] {
            let (a, b) = (pieces(packet, 1232, 3), pieces(packet, 1224, 3));
            assert_eq!(send_all(&mut gateway, [&a[0], &b[1], &a[1]]), []);
        }
        // Two pieces that met, and a late one, of each set.
        assert_eq!(gateway.drops("fragment_overlap") - before, 6);
        let first = &pieces(&up, 1232, 4)[0];
        assert_eq!(send_all(&mut gateway, [first]), []);
        gateway.advance(Duration::from_millis(1_900));
        assert_eq!((gateway.drops("fragment_timeout"), gateway.totals().held), (0, 1));
        gateway.advance(Duration::from_millis(100));
        assert_eq!((gateway.drops("fragment_timeout"), gateway.totals().held), (1, 0));
    }
}

#[test]
fn e03_they_wait_as_long_as_configured() {
    let mut settings = settings();
    settings.fragments.timeout = Duration::from_secs(7);
    for mut gateway in Gateway::each(&settings) {
        for last_at in [6_900, 7_000] {
            let up = udp(client(4000), server6(&gateway, 53), &data(2000));
            let pieces = pieces(&up, 1232, last_at);
            let before = gateway.drops("fragment_timeout");
            assert_eq!(send_all(&mut gateway, &pieces[..1]), []);
            gateway.advance(Duration::from_millis(last_at.into()));
            let in_time = last_at < 7_000;
            assert_eq!(!send_all(&mut gateway, &pieces[1..]).is_empty(), in_time, "after {last_at} ms");
            gateway.advance(Duration::from_secs(7));
            assert_eq!(gateway.drops("fragment_timeout") - before, if in_time { 0 } else { 2 });
        }
    }
}

#[test]
fn e24_fragments_that_never_complete_leave_no_state_and_are_not_stored_for_strangers() {
    for mut gateway in Gateway::each(&settings()) {
        let up = udp(client(4000), server6(&gateway, 53), &data(2000));
        assert_eq!(send_all(&mut gateway, &pieces(&up, 1232, 3)[1..]), []);
        gateway.advance(Duration::from_secs(2));
        assert!(gateway.is_empty());
        let elsewhere = udp(client(4000), at("2001:db8:99::1", 53), &data(2000));
        assert_eq!(
            gateway.refuse_raw(pieces(&elsewhere, 1232, 3)[0].clone(), Default::default(), "not_pool6"),
            None
        );
    }
}

#[test]
fn e04_e15_e16_impossible_fragments() {
    for mut gateway in Gateway::each(&settings()) {
        let up = udp(client(4000), server6(&gateway, 53), &data(2000));
        let mut odd = pieces(&up, 1232, 3)[0].clone();
        odd.truncate(odd.len() - 1);
        let len = (odd.len() - 40) as u16;
        odd[4..6].copy_from_slice(&len.to_be_bytes());
        assert_eq!(gateway.refuse_raw(odd, Default::default(), "bad_length"), None);
        let mut far = pieces(&up, 1232, 4)[1].clone();
        far[42..44].copy_from_slice(&0xfff8_u16.to_be_bytes());
        assert_eq!(gateway.refuse_raw(far, Default::default(), "bad_length"), None);
        let mut tiny = pieces(&up, 8, 5)[0].clone();
        tiny[40] = 6;
        assert_eq!(gateway.refuse_raw(tiny, Default::default(), "fragment_tiny"), None);
    }
}
