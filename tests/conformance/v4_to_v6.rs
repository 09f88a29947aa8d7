//! RFC 7915 §4: from IPv4 to IPv6.

use crate::support::packet::{ACK, SYN};
use crate::support::segment::reassemble6;
use crate::support::{Gateway, L4, Packet, at, echo_reply, echo_request, ip, other, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, forwarded, open_udp, server, server6};
use sampan::wire::packet::Offload;

#[test]
fn c01_c02_c03_c04_c18_every_field_of_udp_tcp_and_echo() {
    for mut gateway in Gateway::each(&settings()) {
        let t_udp = open_udp(&mut gateway, client(4000));
        let t_tcp = gateway.translate(&tcp(client(4001), server6(&gateway, 80), SYN, b"")).source();
        let id4 = gateway.translate(&echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 99, b"?")).ports().0;
        for data in [&b""[..], b"x", b"odd", b"even", &[0xff; 999]] {
            let packet = udp(server(53), t_udp, data).tos(0x2e).id(77);
            let back = forwarded(&packet, server6(&gateway, 53), client(4000)).id(0);
            assert_eq!(gateway.translate(&packet), back);

            let mut packet = tcp(server(80), t_tcp, SYN | ACK, data).tos(0xb8).df(true);
            if let L4::Tcp { options, .. } = &mut packet.l4 {
                options.extend([2, 4, 5, 0xb4]);
            }
            let back = forwarded(&packet, server6(&gateway, 80), client(4001)).df(false);
            assert_eq!(gateway.translate(&packet), back);

            let packet = echo_reply(ip(SERVER), t_udp.ip(), id4, data).tos(0xff);
            let mut back = packet.clone().hops(63);
            (back.src, back.dst) = (gateway.y(ip(SERVER)), ip(CLIENT));
            back.l4 = L4::Echo { reply: true, id: 99, seq: 7, data: data.to_vec() };
            assert_eq!(gateway.translate(&packet), back);
        }
    }
}

#[test]
fn c05_ttl_is_decremented_once_and_its_end_is_told() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        assert_eq!(gateway.translate(&udp(server(53), t, b"a").hops(2)).hops, 1);
        for hops in [1, 0] {
            let packet = udp(server(53), t, b"a").hops(hops);
            let told = gateway.refuse(&packet, "hop_limit").unwrap();
            assert_eq!(told.icmp(), (11, 0, 0, &packet.bytes()[..]));
            assert_eq!((told.src, told.dst), (t.ip(), ip(SERVER)));
        }
    }
}

#[test]
fn c06_illegal_sources_are_dropped_silently() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
            assert_eq!(gateway.refuse(&udp(at(source, 53), t, b"a"), "illegal_source"), None, "{source}");
        }
        assert_eq!(gateway.sessions(), [0, 1, 0]);
    }
}

#[test]
fn c08_options_are_left_out() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
        let timestamp = [68, 8, 5, 0, 0, 0, 0, 0];
        let router_alert = [148, 4, 0, 0];
        for options in [&record_route[..], &timestamp, &router_alert, &[1, 1, 1, 0], &[0; 40]] {
            let packet = udp(server(53), t, b"answer").options(options);
            let back = forwarded(&packet, server6(&gateway, 53), client(4000));
            assert_eq!(gateway.translate(&packet), back);
        }
    }
}

#[test]
fn c09_a_source_route_that_is_not_used_up_is_refused() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        for kind in [131, 137] {
            let pending = udp(server(53), t, b"a").options(&[kind, 7, 4, 192, 0, 2, 1, 0]);
            let told = gateway.refuse(&pending, "source_route").unwrap();
            assert_eq!(told.icmp(), (3, 5, 0, &pending.bytes()[..]));
            let used_up = udp(server(53), t, b"a").options(&[kind, 7, 8, 192, 0, 2, 1, 0]);
            assert_eq!(gateway.translate(&used_up).data(), b"a");
        }
    }
}

#[test]
fn c10_too_big_with_df_is_told_with_the_ipv4_size() {
    let mut settings = settings();
    settings.mtu.v6 = 1480;
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        let packet = udp(server(53), t, &[1; 1472]).df(true);
        let told = gateway.refuse(&packet, "packet_too_big").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.icmp().2), (3, 4, 1460));
        // RFC 1812 §4.3.2.3: at most 576 bytes.
        assert_eq!((told.bytes().len(), told.icmp().3), (576, &packet.bytes()[..576 - 28]));
        let fits = gateway.translate(&udp(server(53), t, &[1; 1432]).df(true));
        assert_eq!(fits.bytes().len(), 1480);
    }
}

#[test]
fn c11_without_df_each_piece_fits_lowest_ipv6_mtu() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        for (len, pieces) in [(1232, 1), (1233, 2), (1472, 2), (4000, 4), (60000, 49)] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let packet = udp(server(53), t, &data).id(0x4321);
            let before = gateway.totals();
            let out = gateway.send_raw(packet.bytes(), Offload::default());
            assert_eq!(out.len(), pieces, "{len}");
            let after = gateway.totals();
            assert_eq!(after.translated - before.translated, 1);
            if pieces == 1 {
                // C-13: never a Fragment Header on what fits.
                assert_eq!(Packet::parse(&out[0].bytes).unwrap().data(), data);
                continue;
            }
            assert_eq!(after.out_pieces - before.out_pieces, pieces as u64);
            let pieces: Vec<_> = out.into_iter().map(|o| o.bytes).collect();
            assert!(pieces.iter().all(|p| p.len() <= 1280 && p[44..48] == [0, 0, 0x43, 0x21]));
            let whole = Packet::parse(&reassemble6(&pieces)).unwrap();
            assert_eq!(whole, forwarded(&packet, server6(&gateway, 53), client(4000)).id(0));
        }
        let id4 = gateway.translate(&echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 99, b"?")).ports().0;
        let reply = echo_reply(ip(SERVER), t.ip(), id4, &[7; 1472]);
        let pieces: Vec<_> =
            gateway.send_raw(reply.bytes(), Offload::default()).into_iter().map(|o| o.bytes).collect();
        assert_eq!(pieces.len(), 2);
        assert_eq!(Packet::parse(&reassemble6(&pieces)).unwrap().data(), [7; 1472]);
    }
}

#[test]
fn c12_lowest_ipv6_mtu_can_be_raised() {
    let mut settings = settings();
    settings.mtu.lowest_ipv6 = 1500;
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        let out = gateway.translate(&udp(server(53), t, &[1; 1452]));
        assert_eq!(out.bytes().len(), 1500);
    }
}

#[test]
fn c17_udp_without_checksum_gets_one() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        for len in [0, 1, 4, 999, 1472] {
            let packet = udp(server(53), t, &vec![9; len]);
            let mut bytes = packet.bytes();
            bytes[26..28].fill(0);
            let out = gateway.send_raw(bytes, Offload::default());
            let pieces: Vec<_> = out.into_iter().map(|o| o.bytes).collect();
            let whole = if pieces.len() == 1 { pieces[0].clone() } else { reassemble6(&pieces) };
            let back = forwarded(&packet, server6(&gateway, 53), client(4000));
            assert_eq!(Packet::parse(&whole).unwrap(), back);
        }
    }
}

#[test]
fn c17_a_computed_checksum_of_zero_is_all_ones() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        // Two bytes that make the sum of the IPv6 form come out as zero.
        let mut packet = udp(server(53), t, &[0, 0]);
        let plain = forwarded(&packet, server6(&gateway, 53), client(4000)).bytes();
        let filler = [plain[46], plain[47]];
        if let L4::Udp { data, .. } = &mut packet.l4 {
            *data = filler.to_vec();
        }
        let mut bytes = packet.bytes();
        bytes[26..28].fill(0);
        let out = gateway.send_raw(bytes, Offload::default());
        assert_eq!(out[0].bytes[46..48], [0xff, 0xff]);
        assert_eq!(Packet::parse(&out[0].bytes).unwrap().data(), filler);
    }
}

#[test]
fn c17_a_udp_length_shorter_than_the_packet_keeps_its_meaning() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        // Ten bytes of datagram and six bytes of something behind it.
        let datagram = udp(server(53), t, b"ab").bytes();
        let mut bytes =
            other(ip(SERVER), t.ip(), 17, &[&datagram[20..], &[1, 2, 3, 4, 5, 6]].concat()).bytes();
        for zero in [false, true] {
            if zero {
                bytes[26..28].fill(0);
            }
            let out = gateway.send_raw(bytes.clone(), Offload::default());
            // etherparse takes the datagram for what its length field says.
            let mut inner = out[0].bytes[..50].to_vec();
            inner[4..6].copy_from_slice(&10_u16.to_be_bytes());
            assert_eq!(Packet::parse(&inner).unwrap().data(), b"ab");
            assert_eq!(out[0].bytes[50..], [1, 2, 3, 4, 5, 6]);
        }
    }
}

#[test]
fn c21_multicast_is_dropped_silently() {
    for mut gateway in Gateway::each(&settings()) {
        assert_eq!(gateway.refuse(&udp(server(53), at("239.0.0.1", 53), b"a"), "not_pool4"), None);
        assert_eq!(gateway.refuse(&other(ip(SERVER), ip("224.0.0.1"), 2, &[0; 8]), "not_pool4"), None);
    }
}

#[test]
fn c22_headers_are_checked_before_use() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let good = udp(server(53), t, b"answer").bytes();
        let mut raw = |edit: &dyn Fn(&mut Vec<u8>), reason| {
            let mut bytes = good.clone();
            edit(&mut bytes);
            assert_eq!(gateway.refuse_raw(bytes, Offload::default(), reason), None);
        };
        raw(&|b| b[10] ^= 1, "bad_ipv4_checksum");
        raw(&|b| b[8] = 3, "bad_ipv4_checksum");
        raw(&|b| b[0] = 0x44, "bad_length");
        raw(&|b| b[0] = 0x55, "bad_version");
        raw(&|b| b[2..4].copy_from_slice(&[0, 19]), "bad_length");
        raw(&|b| b[2..4].copy_from_slice(&[1, 0]), "truncated");
        raw(&|b| b.truncate(19), "truncated");
    }
}
