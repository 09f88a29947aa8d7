//! RFC 7915 §5: from IPv6 to IPv4.

use crate::support::packet::{ACK, SYN};
use crate::support::{Extension, Gateway, L4, Packet, at, echo_request, ip, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, forwarded, is_pool, server, server6};
use sampan::nat64::settings::Hops;
use sampan::wire::packet::Offload;

#[test]
fn b01_b02_b07_b16_every_field_of_udp_tcp_and_echo() {
    for mut gateway in Gateway::each(&settings()) {
        for data in [&b""[..], b"x", b"odd", b"even", &[0xff; 999]] {
            let packet = udp(client(4000), server6(&gateway, 53), data).tos(0xb9);
            let out = gateway.translate(&packet);
            assert!(is_pool(out.src) && out.source().port() >= 1024);
            assert_eq!(out, forwarded(&packet, out.source(), server(53)).id(out.id));

            let mut packet = tcp(client(4001), server6(&gateway, 80), SYN, data).tos(0x03);
            if let L4::Tcp { options, .. } = &mut packet.l4 {
                options.extend([2, 4, 5, 0xa0, 1, 3, 3, 7]);
            }
            let out = gateway.translate(&packet);
            assert_eq!(out, forwarded(&packet, out.source(), server(80)).id(out.id));

            let packet = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 99, data).tos(0xff);
            let out = gateway.translate(&packet);
            let mut expected = packet.clone().hops(63).id(out.id);
            (expected.src, expected.dst) = (out.src, ip(SERVER));
            // F-51: only the identifier changes.
            expected.l4 = L4::Echo { reply: false, id: out.ports().0, seq: 7, data: data.to_vec() };
            assert_eq!(out, expected);
        }
    }
}

#[test]
fn b04_b09_b10_extension_headers_are_left_out() {
    for mut gateway in Gateway::each(&settings()) {
        let plain = udp(client(4000), server6(&gateway, 53), b"payload");
        let whole = gateway.translate(&plain);
        let extended = plain
            .clone()
            .extension(Extension::hop_by_hop())
            .extension(Extension::destination_options())
            .extension(Extension::routing(0))
            .extension(Extension::destination_options());
        assert_eq!(extended.bytes().len(), plain.bytes().len() + 8 + 16 + 24 + 16);
        let out = gateway.translate(&extended);
        assert_eq!(out.clone().id(whole.id), whole);
        let echo =
            echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 1, b"?").extension(Extension::hop_by_hop());
        assert_eq!(gateway.translate(&echo).data(), b"?");
    }
}

#[test]
fn b05_identifications_differ() {
    for mut gateway in Gateway::each(&settings()) {
        let packet = udp(client(4000), server6(&gateway, 53), b"q");
        let mut ids: Vec<u16> = (0..100).map(|_| gateway.translate(&packet).id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }
}

#[test]
fn b06_df_is_set_above_1260_bytes_only() {
    for mut gateway in Gateway::each(&settings()) {
        for (len6, df) in [(100, false), (1280, false), (1281, true), (1500, true)] {
            let packet = udp(client(4000), server6(&gateway, 53), &vec![1; len6 - 48]);
            let out = gateway.translate(&packet);
            assert_eq!((out.bytes().len(), out.df), (len6 - 20, df));
        }
    }
}

#[test]
fn b08_hop_limit_is_decremented_once_and_its_end_is_told() {
    for mut gateway in Gateway::each(&settings()) {
        for hops in [255, 64, 2] {
            let out = gateway.translate(&udp(client(4000), server6(&gateway, 53), b"q").hops(hops));
            assert_eq!(out.hops, hops - 1);
        }
        for hops in [1, 0] {
            let packet = udp(client(5000), server6(&gateway, 53), b"q").hops(hops);
            let told = gateway.refuse(&packet, "hop_limit").expect("time exceeded");
            let (kind, code, rest, quote) = told.icmp();
            assert_eq!((kind, code, rest, quote), (3, 0, 0, &packet.bytes()[..]));
            assert_eq!((told.src, told.dst), (packet.dst, packet.src));
            // An ordinary router duty, so echo is told as well.
            let echo = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 9, b"?").hops(hops);
            assert_eq!(gateway.refuse(&echo, "hop_limit").unwrap().icmp().0, 3);
        }
        // What expires here leaves no state behind.
        assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 1, 0], 1));
    }
}

#[test]
fn b08_behind_a_kernel_that_decrements_twice_one_hop_is_given_back() {
    let mut settings = settings();
    settings.hops = Hops::KernelForwards;
    for mut gateway in Gateway::each(&settings) {
        let out = gateway.translate(&udp(client(4000), server6(&gateway, 53), b"q").hops(63));
        assert_eq!(out.hops, 64);
        let back = gateway.translate(&udp(server(53), out.source(), b"a").hops(1));
        assert_eq!(back.hops, 2);
    }
}

#[test]
fn b11_a_routing_header_with_segments_left_is_refused_at_its_byte() {
    for mut gateway in Gateway::each(&settings()) {
        let packet = udp(client(4000), server6(&gateway, 53), b"q");
        let direct = packet.clone().extension(Extension::routing(1));
        let told = gateway.refuse(&direct, "routing_header").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.icmp().2), (4, 0, 43));
        let behind = packet
            .clone()
            .extension(Extension::hop_by_hop())
            .extension(Extension::destination_options())
            .extension(Extension::routing(3));
        assert_eq!(gateway.refuse(&behind, "routing_header").unwrap().icmp().2, 40 + 8 + 16 + 3);
        // The pointer of ICMPv6 has 32 bits (RFC 4443 §3.4).
        let mut long = Extension { number: 60, bytes: vec![0; 8 + 31 * 8] };
        long.bytes[1] = 31;
        let far = packet.extension(long).extension(Extension::routing(1));
        assert_eq!(gateway.refuse(&far, "routing_header").unwrap().icmp().2, 40 + 256 + 3);
        assert!(gateway.is_empty(), "a refused packet leaves no state behind");
    }
}

#[test]
fn b13_illegal_sources_are_dropped_silently() {
    for mut gateway in Gateway::each(&settings()) {
        for source in ["::", "::1", "ff02::1", "::ffff:192.0.2.1", "fe80::1"] {
            let packet = udp(at(source, 1), server6(&gateway, 53), b"q");
            assert_eq!(gateway.refuse(&packet, "illegal_source"), None, "{source}");
        }
        assert!(gateway.is_empty());
    }
}

#[test]
fn b17_a_wrong_checksum_stays_wrong() {
    for mut gateway in Gateway::each(&settings()) {
        for packet in [
            udp(client(4000), server6(&gateway, 53), b"data"),
            tcp(client(4000), server6(&gateway, 53), SYN, b"data"),
            echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 9, b"data"),
        ] {
            let mut bytes = packet.bytes();
            *bytes.last_mut().unwrap() ^= 0x40;
            let out = gateway.send_raw(bytes, Offload::default());
            let verdict = Packet::parse(&out[0].bytes);
            assert!(verdict.as_ref().is_err_and(|e| e.contains("checksum")), "{verdict:?}");
        }
    }
}

#[test]
fn b19_a_udp_checksum_of_zero_is_sent_as_all_ones() {
    for mut gateway in Gateway::each(&settings()) {
        let from = client(4000);
        let t = crate::open_udp(&mut gateway, from);
        // Two bytes of payload that make the sum of the IPv4 form come out as zero.
        let mut packet = udp(from, server6(&gateway, 53), &[0, 0]);
        let plain = forwarded(&packet, t, server(53)).bytes();
        let sum = u16::from_be_bytes([plain[26], plain[27]]);
        if let L4::Udp { data, .. } = &mut packet.l4 {
            *data = sum.to_be_bytes().to_vec();
        }
        let out = gateway.send_raw(packet.bytes(), Offload::default());
        assert_eq!(out[0].bytes[26..28], [0xff, 0xff]);
        assert_eq!(Packet::parse(&out[0].bytes).unwrap().data(), sum.to_be_bytes());
    }
}

#[test]
fn b20_udp_without_checksum_is_not_ipv6() {
    for mut gateway in Gateway::each(&settings()) {
        let mut bytes = udp(client(4000), server6(&gateway, 53), b"q").bytes();
        bytes[46..48].fill(0);
        assert_eq!(gateway.refuse_raw(bytes.clone(), Offload::default(), "udp_zero_checksum"), None);
        assert!(gateway.is_empty());
        crate::open_udp(&mut gateway, client(4000));
        assert_eq!(gateway.refuse_raw(bytes, Offload::default(), "udp_zero_checksum"), None);
    }
}

#[test]
fn b21_too_big_for_ipv4_is_told_with_the_ipv6_size() {
    let mut settings = settings();
    settings.mtu.v4 = 1400;
    for mut gateway in Gateway::each(&settings) {
        let packet = udp(client(4000), server6(&gateway, 53), &[1; 1452]);
        let told = gateway.refuse(&packet, "packet_too_big").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.icmp().2), (2, 0, 1420));
        // RFC 4443 §2.4 c: as much of the packet as fits 1280 bytes.
        assert_eq!(told.bytes().len(), 1280);
        assert_eq!(told.icmp().3, &packet.bytes()[..1280 - 48]);
        let atomic = packet.clone().extension(Extension::fragment(0, false, 0x1_0007));
        assert_eq!(gateway.refuse(&atomic, "packet_too_big").unwrap().icmp().2, 1428);
        assert!(gateway.is_empty(), "a refused packet leaves no state behind");
        let fits = gateway.translate(&udp(client(4000), server6(&gateway, 53), &[1; 1372]));
        assert_eq!((fits.bytes().len(), fits.df), (1400, true));
    }
}

#[test]
fn b22_the_minimum_mtu_always_passes_in_pieces_if_need_be() {
    let mut settings = settings();
    settings.mtu.v4 = 576;
    for mut gateway in Gateway::each(&settings) {
        let whole = udp(client(4000), server6(&gateway, 53), &[1; 1232]);
        let out = gateway.send_raw(whole.bytes(), Offload::default());
        assert_eq!(out.iter().map(|o| o.bytes.len()).collect::<Vec<_>>(), [572, 572, 156]);
        assert!(out.iter().all(|o| o.bytes[4..6] == out[0].bytes[4..6] && o.bytes[6] & 0x40 == 0));
        // D-43: what is told is never below 1280.
        let too_big = udp(client(4000), server6(&gateway, 53), &[1; 1233]);
        assert_eq!(gateway.refuse(&too_big, "packet_too_big").unwrap().icmp().2, 1280);
    }
}

#[test]
fn b23_what_policy_refuses_is_told_except_for_icmp() {
    let mut settings = settings();
    settings.allow = Vec::new();
    for mut gateway in Gateway::each(&settings) {
        let told = gateway.refuse(&udp(client(1), server6(&gateway, 53), b"q"), "not_allowed").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1), (1, 1));
        let told = gateway.refuse(&tcp(client(1), server6(&gateway, 53), SYN, b""), "not_allowed").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1), (1, 1));
        let echo = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 9, b"?");
        assert_eq!(gateway.refuse(&echo, "not_allowed"), None);
    }
}

#[test]
fn b30_impossible_lengths() {
    for mut gateway in Gateway::each(&settings()) {
        // The longest IPv6 payload does not fit an IPv4 packet.
        let packet = udp(client(1), server6(&gateway, 53), &vec![0; 65535 - 8]);
        assert_eq!(gateway.refuse(&packet, "oversize"), None);
        let packet = tcp(client(1), server6(&gateway, 53), SYN | ACK, b"");
        let mut jumbo = packet.bytes();
        jumbo[4..6].fill(0);
        assert_eq!(gateway.refuse_raw(jumbo, Offload::default(), "truncated"), None);
        assert!(gateway.is_empty());
    }
}

#[test]
fn e14_atomic_fragments_are_whole_packets_with_df_clear_and_their_own_identification() {
    for mut gateway in Gateway::each(&settings()) {
        for len in [10, 1400] {
            let packet = udp(client(4000), server6(&gateway, 53), &vec![1; len])
                .extension(Extension::fragment(0, false, 0xabcd_1234));
            let out = gateway.translate(&packet);
            assert_eq!((out.id, out.df, out.data().len()), (0x1234, false, len));
        }
        // E-10: an extension header behind the Fragment Header.
        let packet = udp(client(4000), server6(&gateway, 53), b"q")
            .extension(Extension::fragment(0, false, 1))
            .extension(Extension::destination_options());
        assert_eq!(gateway.refuse(&packet, "extension_chain"), None);
    }
}
