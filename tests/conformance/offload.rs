//! Super-packets and unfinished checksums: what the device says about them stays true after translation, which is
//! shown by doing the device's work in the test (`support::segment`).

use std::net::SocketAddr;

use sampan::wire::packet::{Checksum, Gso, GsoKind, Offload};

use crate::support::packet::{ACK, CWR, FIN, PSH, SYN};
use crate::support::segment::{make_partial, parsed, reassemble6, segments};
use crate::support::{Extension, Gateway, L4, Packet, settings, tcp, udp};
use crate::{client, forwarded, open_udp, server, server6};

/// A packet with its checksum left to the device, and its segmentation too if `size` says so.
fn super_packet(packet: &Packet, size: Option<u16>) -> (Vec<u8>, Offload) {
    let mut bytes = packet.bytes();
    let mut offload = Offload::default();
    make_partial(&mut bytes, &mut offload);
    offload.gso = size.map(|size| {
        let kind = if matches!(packet.l4, L4::Tcp { .. }) { GsoKind::Tcp } else { GsoKind::Udp };
        Gso { kind, size, ecn: false }
    });
    (bytes, offload)
}

fn open_tcp(gateway: &mut Gateway) -> SocketAddr {
    let t = gateway.translate(&tcp(client(4000), server6(gateway, 80), SYN, b"")).source();
    gateway.translate(&tcp(server(80), t, SYN | ACK, b""));
    t
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7) as u8).collect()
}

#[test]
fn unfinished_checksums_stay_unfinished_and_right() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_tcp(&mut gateway);
        let u = open_udp(&mut gateway, client(4000));
        for len in [0, 1, 1200] {
            for (packet, src, dst) in [
                (tcp(client(4000), server6(&gateway, 80), ACK, &data(len)), t, server(80)),
                (tcp(server(80), t, ACK, &data(len)).df(true), server6(&gateway, 80), client(4000)),
                (udp(client(4000), server6(&gateway, 53), &data(len)), u, server(53)),
                (udp(server(53), u, &data(len)).df(true), server6(&gateway, 53), client(4000)),
            ] {
                let (bytes, offload) = super_packet(&packet, None);
                let out = gateway.send_raw(bytes, offload);
                assert!(matches!(out[0].offload.checksum, Checksum::Partial { .. }));
                let finished = parsed(&out[0].bytes, &out[0].offload);
                let df = finished[0].df;
                assert_eq!(finished, [forwarded(&packet, src, dst).id(finished[0].id).df(df)]);
            }
        }
    }
}

#[test]
fn tcp_super_packets_cross_whole_both_ways() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_tcp(&mut gateway);
        let (up_src, up_dst) = (client(4000), server6(&gateway, 80));
        for (from, to, src, dst, size) in [
            (up_src, up_dst, t, server(80), 1440),
            (server(80), t, up_dst, up_src, 1440),
            (up_src, up_dst, t, server(80), 536),
        ] {
            let mut packet = tcp(from, to, ACK | PSH | FIN | CWR, &data(60_000)).df(from.is_ipv4()).tos(2);
            if let L4::Tcp { options, .. } = &mut packet.l4 {
                // Timestamps, as real connections have.
                options.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
            }
            let size = size - 12;
            let (bytes, mut offload) = super_packet(&packet, Some(size));
            if let Some(gso) = &mut offload.gso {
                gso.ecn = true;
            }
            let len = bytes.len();
            let before = segments(&bytes, &offload);
            let out = gateway.send_raw(bytes, offload);
            assert_eq!(out.len(), 1, "never split");
            assert_eq!(out[0].bytes.len(), if from.is_ipv6() { len - 20 } else { len + 20 });
            assert_eq!(out[0].offload.gso, offload.gso);
            // Segments after translation = translations of the segments.
            let after = parsed(&out[0].bytes, &out[0].offload);
            assert_eq!(after.len(), before.len());
            let first_id = after[0].id;
            for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                let before = Packet::parse(before).unwrap();
                let mut expected = forwarded(&before, src, dst);
                expected.id = if src.is_ipv4() { first_id.wrapping_add(i as u16) } else { 0 };
                // DF follows the size of a segment, not that of the super-packet.
                expected.df = src.is_ipv4() && size > 1000;
                assert_eq!(*after, expected);
            }
            // The next packet of this client, hence of this worker, uses no identification of these segments.
            let next = gateway.translate(&tcp(up_src, up_dst, ACK, b""));
            if src.is_ipv4() && gateway.fast.is_none() {
                assert_eq!(next.id, first_id.wrapping_add(after.len() as u16));
            } else if src.is_ipv4() {
                assert!(after.iter().all(|segment| segment.id != next.id));
            }
        }
    }
}

#[test]
fn udp_super_packets_cross_whole_both_ways() {
    for mut gateway in Gateway::each(&settings()) {
        let u = open_udp(&mut gateway, client(4000));
        for (from, to, src, dst) in [
            (client(4000), server6(&gateway, 53), u, server(53)),
            (server(53), u, server6(&gateway, 53), client(4000)),
        ] {
            let packet = udp(from, to, &data(36_000)).df(from.is_ipv4());
            let (bytes, offload) = super_packet(&packet, Some(1200));
            let out = gateway.send_raw(bytes, offload);
            assert_eq!((out.len(), out[0].offload.gso), (1, offload.gso));
            let after = parsed(&out[0].bytes, &out[0].offload);
            assert_eq!(after.len(), 30);
            for (i, (chunk, datagram)) in data(36_000).chunks(1200).zip(&after).enumerate() {
                assert_eq!((datagram.source(), datagram.destination(), datagram.data()), (src, dst, chunk));
                if src.is_ipv4() {
                    assert_eq!((datagram.id, datagram.df), (after[0].id.wrapping_add(i as u16), false));
                }
            }
        }
    }
}

#[test]
fn extension_headers_and_options_in_front_of_a_super_packet_are_left_out() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_tcp(&mut gateway);
        let packet = tcp(client(4000), server6(&gateway, 80), ACK, &data(5000));
        let (plain, plain_offload) = super_packet(&packet, Some(1000));
        let mut bytes = packet.clone().extension(Extension::hop_by_hop()).bytes();
        // The transport is the same; it lies eight bytes further back.
        bytes.truncate(48);
        bytes.extend(&plain[40..]);
        let mut offload = plain_offload;
        offload.checksum = Checksum::Partial { start: 48, field: 16 };
        offload.header_len += 8;
        let out = gateway.send_raw(bytes, offload);
        let after = parsed(&out[0].bytes, &out[0].offload);
        assert_eq!((after.len(), after[0].source()), (5, t));

        let packet = tcp(server(80), t, ACK, &data(5000)).df(true);
        let (plain, mut offload) = super_packet(&packet, Some(1000));
        let mut bytes = packet.options(&[1, 1, 1, 0]).bytes();
        bytes.truncate(24);
        bytes.extend(&plain[20..]);
        offload.checksum = Checksum::Partial { start: 24, field: 16 };
        offload.header_len += 4;
        let out = gateway.send_raw(bytes, offload);
        let after = parsed(&out[0].bytes, &out[0].offload);
        assert_eq!((after.len(), after[0].destination()), (5, client(4000)));
    }
}

#[test]
fn segments_that_are_too_big_are_refused_and_the_first_one_is_quoted_whole() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_tcp(&mut gateway);
        let u = open_udp(&mut gateway, client(4000));
        // 1500-byte IPv4 segments would be 1520 bytes of IPv6.
        for packet in
            [tcp(server(80), t, ACK, &data(14_600)).df(true), udp(server(53), u, &data(14_720)).df(true)]
        {
            let size = if matches!(packet.l4, L4::Tcp { .. }) { 1460 } else { 1472 };
            let (bytes, offload) = super_packet(&packet, Some(size));
            let first = segments(&bytes, &offload).remove(0);
            let told = gateway.refuse_raw(bytes, offload, "segment_too_big").unwrap();
            let (kind, code, mtu, quote) = told.icmp();
            assert_eq!((kind, code, mtu), (3, 4, 1480));
            assert_eq!(quote, &first[..576 - 28]);
        }
        // TCP without DF: its sender can make smaller segments too (design rule 10).
        let (bytes, offload) = super_packet(&tcp(server(80), t, ACK, &data(14_600)), Some(1460));
        assert_eq!(gateway.refuse_raw(bytes, offload, "segment_too_big").unwrap().icmp().2, 1480);
    }
    let mut settings = settings();
    settings.mtu.v4 = 1400;
    for mut gateway in Gateway::each(&settings) {
        open_tcp(&mut gateway);
        let packet = tcp(client(4000), server6(&gateway, 80), ACK | PSH, &data(14_400));
        let (bytes, offload) = super_packet(&packet, Some(1440));
        let first = segments(&bytes, &offload).remove(0);
        let told = gateway.refuse_raw(bytes, offload, "segment_too_big").unwrap();
        assert_eq!((told.icmp().0, told.icmp().2), (2, 1420));
        assert_eq!(told.icmp().3, &first[..1280 - 48]);
        let (bytes, offload) = super_packet(&packet, Some(1360));
        assert_eq!(gateway.send_raw(bytes, offload).len(), 1);
    }
}

#[test]
fn the_quote_of_a_refused_super_packet_is_a_flawless_packet() {
    let mut settings = settings();
    settings.mtu.v4 = 1280;
    for mut gateway in Gateway::each(&settings) {
        // Segments short enough to be quoted whole, refused because their hops are used up.
        for packet in [
            udp(client(4000), server6(&gateway, 53), &data(5000)).hops(1),
            tcp(client(4000), server6(&gateway, 80), SYN | PSH, &data(5000)).hops(1),
        ] {
            let (bytes, offload) = super_packet(&packet, Some(500));
            let first = segments(&bytes, &offload).remove(0);
            let told = gateway.refuse_raw(bytes, offload, "hop_limit").unwrap();
            assert_eq!(Packet::parse(told.icmp().3), Packet::parse(&first));
        }
        let u = open_udp(&mut gateway, client(4000));
        let (bytes, offload) = super_packet(&udp(server(53), u, &data(5000)).hops(1), Some(300));
        let first = segments(&bytes, &offload).remove(0);
        let told = gateway.refuse_raw(bytes, offload, "hop_limit").unwrap();
        assert_eq!(Packet::parse(told.icmp().3), Packet::parse(&first));
    }
}

#[test]
fn udp_super_packets_without_df_are_taken_apart_when_they_must_be() {
    for mut gateway in Gateway::each(&settings()) {
        let u = open_udp(&mut gateway, client(4000));
        let expect = |packet: &Packet| forwarded(packet, server6(&gateway, 53), client(4000)).id(0);
        let whole = udp(server(53), u, &data(7_000)).id(0x1111);
        let expected = expect(&whole);
        // 1450-byte datagrams: each becomes two fragments of at most 1280 bytes.
        let (bytes, offload) = super_packet(&whole, Some(1450));
        let pieces: Vec<_> = gateway.send_raw(bytes, offload).into_iter().map(|o| o.bytes).collect();
        assert_eq!(pieces.len(), 4 * 2 + 1);
        let mut seen = Vec::new();
        for (i, chunk) in pieces.chunks(2).enumerate() {
            let datagram = match chunk {
                [one] => one.clone(),
                two => {
                    assert_eq!(
                        two[0][44..48],
                        (0x1111 + i as u32).to_be_bytes(),
                        "each its own identification"
                    );
                    reassemble6(two)
                }
            };
            let datagram = Packet::parse(&datagram).unwrap();
            assert_eq!(
                (datagram.source(), datagram.destination()),
                (expected.source(), expected.destination())
            );
            seen.extend(datagram.data().to_vec());
        }
        assert_eq!(seen, data(7_000));
        // Datagrams that fit are left together.
        let (bytes, offload) = super_packet(&whole, Some(1232));
        assert_eq!(gateway.send_raw(bytes, offload).len(), 1);
    }
}

#[test]
fn unfinished_checksums_are_finished_before_a_packet_is_cut() {
    for mut gateway in Gateway::each(&settings()) {
        let u = open_udp(&mut gateway, client(4000));
        let t = open_tcp(&mut gateway);
        for packet in [udp(server(53), u, &data(1400)), tcp(server(80), t, ACK, &data(1400))] {
            let (bytes, offload) = super_packet(&packet, None);
            let out = gateway.send_raw(bytes, offload);
            assert!(out.iter().all(|o| o.offload == Offload::default()));
            let pieces: Vec<_> = out.into_iter().map(|o| o.bytes).collect();
            assert_eq!(Packet::parse(&reassemble6(&pieces)).unwrap().data(), data(1400));
        }
    }
}

#[test]
fn hairpinned_super_packets_cross_whole() {
    for other in [0, 1] {
        let mut gateway = Gateway::new(settings(), 3);
        let a = SocketAddr::new(gateway.client_of(0, 0), 4000);
        let b = SocketAddr::new(gateway.client_of(other, 1), 5000);
        let t_b = gateway.translate(&tcp(b, server6(&gateway, 80), SYN, b"")).source();
        let seen_b = crate::seen6(&gateway, t_b);
        let seen_a = gateway.translate(&tcp(a, seen_b, SYN, b"")).source();
        let (bytes, offload) = super_packet(&tcp(a, seen_b, ACK, &data(20_000)), Some(1440));
        let out = gateway.send_raw(bytes, offload);
        let after = parsed(&out[0].bytes, &out[0].offload);
        assert_eq!((out.len(), after.len(), out[0].worker), (1, 14, other));
        assert!(after.iter().all(|s| s.source() == seen_a && s.destination() == b && s.hops == 63));
    }
}

#[test]
fn devices_that_contradict_their_packet_are_counted() {
    for mut gateway in Gateway::each(&settings()) {
        let udp6 = udp(client(4000), server6(&gateway, 53), &data(3000));
        let (bytes, good) = super_packet(&udp6, Some(1000));
        let gso = |kind, size| Some(Gso { kind, size, ecn: false });
        for bad in [
            Offload { checksum: Checksum::Partial { start: 41, field: 6 }, ..good },
            Offload { checksum: Checksum::Partial { start: 20, field: 6 }, ..good },
            Offload { checksum: Checksum::Partial { start: 40, field: 16 }, ..good },
            Offload { checksum: Checksum::Partial { start: 0xffff, field: 0xffff }, ..good },
            Offload { gso: gso(GsoKind::Tcp, 1000), ..good },
            Offload { gso: gso(GsoKind::Udp, 0), ..good },
        ] {
            assert_eq!(gateway.refuse_raw(bytes.clone(), bad, "bad_offload"), None, "{bad:?}");
        }
        let echo =
            crate::support::echo_request(client(0).ip(), server6(&gateway, 0).ip(), 1, &[0; 99]).bytes();
        assert_eq!(gateway.refuse_raw(echo, good, "bad_offload"), None);
        // A header length that makes no sense is not used: ours is computed.
        let out = gateway.send_raw(bytes, Offload { header_len: 0xffff, ..good });
        assert_eq!(parsed(&out[0].bytes, &out[0].offload).len(), 3);
    }
}
