//! RFC 7915 §4.2–§4.3, §5.2–§5.3 and RFC 6146 §3.4–§3.6: ICMP errors of others, translated with what they quote.

use std::net::IpAddr;
use std::time::Duration;

use crate::support::packet::{ACK, PSH, SYN};
use crate::support::{
    Extension, Gateway, L4, Packet, at, echo_reply, echo_request, error, ip, settings, tcp, udp,
};
use crate::{CLIENT, SERVER, client, open_udp, server, server6};
use sampan::wire::packet::Offload;

/// A router on the way to the server, and one on the way to the client.
const ROUTER4: &str = "203.0.113.254";
const ROUTER6: &str = "2001:db8:ffff::fe";

/// A client's packet and what the IPv4 side saw of it.
fn sent_to_server(gateway: &mut Gateway, data: &[u8]) -> (Packet, Packet) {
    let packet = udp(client(4000), server6(gateway, 53), data);
    let out = gateway.translate(&packet);
    (packet, out)
}

/// A server's packet and what the client saw of it.
fn sent_to_client(gateway: &mut Gateway, data: &[u8]) -> (Packet, Packet) {
    let t = open_udp(gateway, client(4000));
    let packet = udp(server(53), t, data);
    let out = gateway.translate(&packet);
    (packet, out)
}

fn error4(out: &Packet, kind: u8, code: u8, rest: u32) -> Packet {
    error(ip(ROUTER4), out.src, kind, code, rest, &out.bytes())
}

fn error6(out: &Packet, kind: u8, code: u8, rest: u32) -> Packet {
    error(ip(ROUTER6), out.src, kind, code, rest, &out.bytes())
}

#[test]
fn d03_to_d21_every_icmpv4_error() {
    // (type, code, bytes 4–7) and what becomes of it.
    let table = [
        ((3, 0, 0), Some((1, 0, 0))),
        ((3, 1, 0), Some((1, 0, 0))),
        ((3, 2, 0), Some((4, 1, 6))),
        ((3, 3, 0), Some((1, 4, 0))),
        ((3, 4, 1400), Some((2, 0, 1420))),
        ((3, 5, 0), Some((1, 0, 0))),
        ((3, 6, 0), Some((1, 0, 0))),
        ((3, 7, 0), Some((1, 0, 0))),
        ((3, 8, 0), Some((1, 0, 0))),
        ((3, 9, 0), Some((1, 1, 0))),
        ((3, 10, 0), Some((1, 1, 0))),
        ((3, 11, 0), Some((1, 0, 0))),
        ((3, 12, 0), Some((1, 0, 0))),
        ((3, 13, 0), Some((1, 1, 0))),
        ((3, 14, 0), None),
        ((3, 15, 0), Some((1, 1, 0))),
        ((3, 16, 0), None),
        ((4, 0, 0), None),
        ((5, 0, 0), None),
        ((11, 0, 0), Some((3, 0, 0))),
        ((11, 1, 0), Some((3, 1, 0))),
        ((12, 0, 0x0c00_0000), Some((4, 0, 8))),
        ((12, 2, 0x0200_0000), Some((4, 0, 4))),
        ((12, 1, 0), None),
        ((12, 3, 0), None),
    ];
    for mut gateway in Gateway::each(&settings()) {
        let (packet, out) = sent_to_server(&mut gateway, b"question");
        for ((kind, code, rest), want) in table {
            let error = error4(&out, kind, code, rest).tos(0x40);
            let Some(want) = want else {
                assert_eq!(gateway.refuse(&error, "icmp_type"), None, "{kind}/{code}");
                continue;
            };
            let told = gateway.translate(&error);
            let (kind, code, rest, quote) = told.icmp();
            assert_eq!((kind, code, rest), want);
            // D-57: the real sender, so that traceroute shows it.
            assert_eq!((told.src, told.dst), (gateway.y(ip(ROUTER4)), ip(CLIENT)));
            assert_eq!((told.hops, told.tos), (63, 0x40));
            // D-45, D-46, D-49, D-56: the client's own packet, the hop limit as it was quoted, sums right.
            assert_eq!(Packet::parse(quote).unwrap(), packet.clone().hops(63));
        }
        for pointer in [4_u32, 5, 6, 7, 10, 11, 20, 255] {
            assert_eq!(gateway.refuse(&error4(&out, 12, 0, pointer << 24), "icmp_pointer"), None);
        }
    }
}

#[test]
fn d16_d24_d25_messages_that_are_neither_errors_nor_echo() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000)).ip();
        for kind in [6, 9, 10, 13, 14, 15, 16, 17, 18, 40] {
            let packet = error(ip(SERVER), t, kind, 0, 0, &[0; 12]);
            assert_eq!(gateway.refuse(&packet, "icmp_type"), None, "{kind}");
        }
        for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143, 200] {
            let packet = error(ip(CLIENT), gateway.y(ip(SERVER)), kind, 0, 0, &[0; 20]);
            assert_eq!(gateway.refuse(&packet, "icmp_type"), None, "{kind}");
        }
    }
}

#[test]
fn d27_to_d37_every_icmpv6_error() {
    let table = [
        ((1, 0, 0), Some((3, 1, 0))),
        ((1, 1, 0), Some((3, 10, 0))),
        ((1, 2, 0), Some((3, 1, 0))),
        ((1, 3, 0), Some((3, 1, 0))),
        ((1, 4, 0), Some((3, 3, 0))),
        ((1, 5, 0), None),
        ((1, 6, 0), None),
        ((2, 0, 1400), Some((3, 4, 1380))),
        ((2, 0, 100_000), Some((3, 4, 1480))),
        ((3, 0, 0), Some((11, 0, 0))),
        ((3, 1, 0), Some((11, 1, 0))),
        ((4, 0, 6), Some((12, 0, 0x0900_0000))),
        ((4, 1, 40), Some((3, 2, 0))),
        ((4, 2, 0), None),
        ((4, 3, 0), None),
        ((100, 0, 0), None),
    ];
    for mut gateway in Gateway::each(&settings()) {
        let (packet, out) = sent_to_client(&mut gateway, b"answer");
        for ((kind, code, rest), want) in table {
            let message = error(ip(ROUTER6), out.src, kind, code, rest, &out.bytes()).tos(0x40);
            let Some(want) = want else {
                assert_eq!(gateway.refuse(&message, "icmp_type"), None, "{kind}/{code}");
                continue;
            };
            let told = gateway.translate(&message);
            let (kind, code, rest, quote) = told.icmp();
            assert_eq!((kind, code, rest), want);
            // D-58: from the pool address of the session, whoever sent it.
            assert_eq!((told.src, told.dst), (packet.dst, ip(SERVER)));
            assert_eq!((told.hops, told.tos), (63, 0x40));
            let quoted = Packet::parse(quote).unwrap();
            assert_eq!(quoted, packet.clone().hops(63).id(quoted.id));
        }
        for pointer in [2, 3, 40, 255, 256, u32::MAX] {
            assert_eq!(gateway.refuse(&error6(&out, 4, 0, pointer), "icmp_pointer"), None);
        }
    }
}

#[test]
fn d40_d41_d43_sizes_follow_both_links() {
    let mut settings = settings();
    (settings.mtu.v6, settings.mtu.v4) = (1450, 1500);
    for mut gateway in Gateway::each(&settings) {
        let (_, out) = sent_to_server(&mut gateway, b"q");
        for (told, want) in [(0, 1280), (68, 1280), (576, 1280), (1300, 1320), (1440, 1450), (9000, 1450)] {
            assert_eq!(gateway.translate(&error4(&out, 3, 4, told)).icmp().2, want, "{told}");
        }
        let (_, out) = sent_to_client(&mut gateway, b"a");
        for (told, want) in [(1280, 1260), (1450, 1430), (1500, 1430), (0, 68), (u32::MAX, 1430)] {
            assert_eq!(gateway.translate(&error6(&out, 2, 0, told)).icmp().2, want, "{told}");
        }
        // a quoted Fragment Header is eight bytes that IPv4 does not have.
        let quote = out.extension(Extension::fragment(0, false, 7)).bytes();
        let src = gateway.y(ip(SERVER));
        let told = gateway.translate(&error(ip(ROUTER6), src, 2, 0, 1400, &quote));
        assert_eq!(told.icmp().2, 1372);
        assert!(!Packet::parse(told.icmp().3).unwrap().df);
    }
}

#[test]
fn d42_old_routers_that_tell_no_size() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, &[1; 1452]);
        assert_eq!(out.bytes().len(), 1480);
        assert_eq!(gateway.translate(&error4(&out, 3, 4, 0)).icmp().2, 1280);
    }
}

#[test]
fn d47_an_error_about_an_error_is_dropped() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, b"q");
        let nested = error4(&out, 3, 1, 0);
        let packet = error(ip(ROUTER4), out.src, 11, 0, 0, &nested.bytes());
        assert_eq!(gateway.refuse(&packet, "icmp_quote"), None);
        let (_, out) = sent_to_client(&mut gateway, b"a");
        let nested = error6(&out, 1, 0, 0);
        let packet = error(ip(ROUTER6), out.src, 3, 0, 0, &nested.bytes());
        assert_eq!(gateway.refuse(&packet, "icmp_quote"), None);
    }
}

#[test]
fn d48_quoted_echo_has_its_own_type_translated() {
    for mut gateway in Gateway::each(&settings()) {
        let request = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 77, b"ping");
        let out = gateway.translate(&request);
        let told = gateway.translate(&error4(&out, 3, 1, 0));
        assert_eq!((told.icmp().0, told.icmp().1), (1, 0));
        assert_eq!(Packet::parse(told.icmp().3).unwrap(), request.hops(63));

        let reply = echo_reply(ip(SERVER), out.src, out.ports().0, b"pong");
        let arrived = gateway.translate(&reply);
        let told = gateway.translate(&error6(&arrived, 1, 3, 0));
        assert_eq!((told.icmp().0, told.icmp().1), (3, 1));
        let quoted = Packet::parse(told.icmp().3).unwrap();
        assert_eq!(quoted, reply.hops(63).id(quoted.id));
    }
}

#[test]
fn d49_quoted_tcp_both_ways() {
    for mut gateway in Gateway::each(&settings()) {
        let syn = tcp(client(4000), server6(&gateway, 80), SYN, b"");
        let out = gateway.translate(&syn);
        let told = gateway.translate(&error4(&out, 3, 3, 0));
        assert_eq!(Packet::parse(told.icmp().3).unwrap(), syn.hops(63));
        let data = tcp(server(80), out.source(), SYN | ACK | PSH, b"data");
        let arrived = gateway.translate(&data);
        let told = gateway.translate(&error6(&arrived, 1, 1, 0));
        let quoted = Packet::parse(told.icmp().3).unwrap();
        assert_eq!(quoted, data.hops(63).id(quoted.id));
        // D-52, G-18: nothing was torn down.
        assert_eq!(gateway.sessions(), [1, 0, 0]);
        gateway.translate(&tcp(client(4000), server6(&gateway, 80), ACK, b"go on"));
    }
}

#[test]
fn d50_d51_short_quotes() {
    for mut gateway in Gateway::each(&settings()) {
        let (packet, out) = sent_to_server(&mut gateway, b"question");
        // The classic quote: header and eight bytes.
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 3, 3, 0, &out.bytes()[..28]));
        let (_, _, _, quote) = told.icmp();
        let whole = packet.hops(63).bytes();
        assert_eq!(quote, &whole[..48], "ports, length and even the checksum as in the whole packet");
        for len in [0, 8, 20, 24, 27] {
            let short = error(ip(ROUTER4), out.src, 3, 3, 0, &out.bytes()[..len]);
            assert_eq!(gateway.refuse(&short, "icmp_quote"), None, "{len}");
        }
        let (packet, out) = sent_to_client(&mut gateway, b"answer");
        let told = gateway.translate(&error(ip(ROUTER6), out.src, 1, 4, 0, &out.bytes()[..48]));
        assert_eq!(told.icmp().3[20..], packet.bytes()[20..28]);
        for len in [0, 8, 40, 44, 47] {
            let short = error(ip(ROUTER6), out.src, 1, 4, 0, &out.bytes()[..len]);
            assert_eq!(gateway.refuse(&short, "icmp_quote"), None, "{len}");
        }
        // TCP whose checksum field is not there.
        let syn = tcp(client(4000), server6(&gateway, 80), SYN, b"");
        let out = gateway.translate(&syn);
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 3, 3, 0, &out.bytes()[..28]));
        assert_eq!(told.icmp().3, &syn.hops(63).bytes()[..48]);
    }
}

#[test]
fn d52_errors_neither_make_nor_refresh_nor_end_anything() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, b"q");
        let back = gateway.translate(&udp(server(53), out.source(), b"a"));
        gateway.advance(Duration::from_secs(299));
        for _ in 0..100 {
            gateway.translate(&error4(&out, 3, 3, 0));
            gateway.translate(&error6(&back, 1, 4, 0));
        }
        assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 1, 0], 1));
        gateway.advance(Duration::from_secs(1));
        assert!(gateway.is_empty());
        // D-53.
        assert_eq!(gateway.refuse(&error4(&out, 3, 3, 0), "no_session"), None);
        assert_eq!(gateway.refuse(&error6(&back, 1, 4, 0), "no_session"), None);
        assert!(gateway.is_empty());
    }
}

#[test]
fn d52_an_error_that_comes_before_the_sweep_finds_the_session_ended() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, b"q");
        gateway.now = gateway.now + Duration::from_secs(300);
        assert_eq!(gateway.refuse(&error4(&out, 3, 3, 0), "no_session"), None);
    }
}

#[test]
fn d53_errors_about_flows_that_nobody_has() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, b"q");
        let strange = udp(out.source(), at("203.0.113.99", 99), b"q");
        assert_eq!(gateway.refuse(&error4(&strange, 3, 3, 0), "no_session"), None);
        let strange = udp(server6(&gateway, 53), client(4999), b"a");
        assert_eq!(gateway.refuse(&error6(&strange, 1, 4, 0), "no_session"), None);
        // An error goes to the source of what it quotes; anything else is forged.
        let to_another = error(ip(ROUTER4), ip("198.51.100.3"), 3, 3, 0, &out.bytes());
        assert_ne!(out.src, to_another.dst);
        assert_eq!(gateway.refuse(&to_another, "icmp_quote"), None);
        let (_, out) = sent_to_client(&mut gateway, b"a");
        let to_another = error(ip(ROUTER6), gateway.y(ip("203.0.113.99")), 1, 4, 0, &out.bytes());
        assert_eq!(gateway.refuse(&to_another, "icmp_quote"), None);
    }
}

#[test]
fn d54_d55_checksums_of_errors_and_quotes() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, b"question");
        let mut bytes = error4(&out, 3, 3, 0).bytes();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(gateway.refuse_raw(bytes, Offload::default(), "bad_icmp_checksum"), None);
        // The header checksum of the quote.
        let mut quote = out.bytes();
        quote[8] = 1;
        let packet = error(ip(ROUTER4), out.src, 3, 3, 0, &quote);
        assert_eq!(gateway.refuse(&packet, "icmp_quote"), None);
        // A wrong transport checksum in the quote is nobody's business, and stays wrong.
        let mut quote = out.bytes();
        *quote.last_mut().unwrap() ^= 1;
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 3, 3, 0, &quote));
        assert!(Packet::parse(told.icmp().3).is_err_and(|e| e.contains("checksum")));
        // Options in the quote are skipped.
        let quote = out.clone().options(&[1, 1, 1, 0]).bytes();
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 3, 3, 0, &quote));
        assert_eq!(Packet::parse(told.icmp().3).unwrap().source(), client(4000));

        let (_, out) = sent_to_client(&mut gateway, b"answer");
        let mut bytes = error6(&out, 1, 4, 0).bytes();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(gateway.refuse_raw(bytes, Offload::default(), "bad_icmp_checksum"), None);
    }
}

#[test]
fn d56_a_quoted_udp_checksum_that_comes_out_as_zero_is_all_ones() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        // The quote's IPv6 form gets the checksum zero in the sums.
        let as_sent = udp(client(4000), server6(&gateway, 53), &[0, 0]).bytes();
        let filler = [as_sent[46], as_sent[47]];
        let out = udp(t, server(53), &filler);
        let told = gateway.translate(&error4(&out, 3, 3, 0));
        assert_eq!(told.icmp().3[46..48], [0xff, 0xff]);
        assert_eq!(Packet::parse(told.icmp().3).unwrap().data(), filler);
    }
}

#[test]
fn d57_c07_errors_from_odd_routers_pass_under_a_prefix_of_ones_own_but_not_under_the_well_known_one() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, b"q");
        for router in ["10.0.0.1", "192.168.1.1", "100.64.0.1"] {
            let told = gateway.translate(&error(ip(router), out.src, 11, 0, 0, &out.bytes()));
            assert_eq!(told.src, gateway.y(ip(router)));
        }
    }
    let mut settings = settings();
    settings.pool6 = vec!["64:ff9b::/96".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        let out = gateway.translate(&udp(client(1), at("64:ff9b::8.8.8.8", 53), b"q"));
        let packet = error(ip("10.0.0.1"), out.src, 11, 0, 0, &out.bytes());
        assert_eq!(gateway.refuse(&packet, "non_global"), None);
        let told = gateway.translate(&error(ip("9.9.9.9"), out.src, 11, 0, 0, &out.bytes()));
        assert_eq!(told.src, ip("64:ff9b::9.9.9.9"));
    }
}

/// An extension structure with one MPLS label stack object and a right checksum.
fn mpls() -> Vec<u8> {
    let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0x10, 0x01];
    let sum = sampan::wire::checksum::Sum::ZERO.bytes(&extension).checksum();
    extension[2..4].copy_from_slice(&sum.to_be_bytes());
    extension
}

#[test]
fn d59_d61_d62_d63_extensions_travel_on_with_the_length_in_the_other_units() {
    let mpls = mpls();
    for mut gateway in Gateway::each(&settings()) {
        let (packet, out) = sent_to_server(&mut gateway, &[5; 40]);
        let mut padded = out.bytes();
        padded.resize(128, 0);
        let with = [&padded[..], &mpls].concat();
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 11, 0, 32 << 16, &with));
        let (kind, _, rest, body) = told.icmp();
        // 88 bytes of quote padded to 128, in 64-bit words.
        assert_eq!((kind, rest, body.len()), (3, 16 << 24, 128 + mpls.len()));
        let sent = packet.clone().hops(63).bytes();
        assert_eq!(body[..sent.len()], sent[..]);
        assert!(body[sent.len()..128].iter().all(|b| *b == 0));
        assert_eq!(body[128..], mpls[..]);
        // D-62: a quote shorter than 128 bytes with a length field is accepted as well, and padded.
        let with = [&out.bytes()[..], &mpls].concat();
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 11, 0, 17 << 16, &with));
        assert_eq!((told.icmp().2, told.icmp().3), (16 << 24, body));

        let (packet, out) = sent_to_client(&mut gateway, &[5; 40]);
        let mut padded = out.bytes();
        padded.resize(128, 0);
        let with = [&padded[..], &mpls].concat();
        let told = gateway.translate(&error(ip(ROUTER6), out.src, 3, 0, 16 << 24, &with));
        let (kind, _, rest, body) = told.icmp();
        assert_eq!((kind, rest, body.len()), (11, 32 << 16, 128 + mpls.len()));
        let sent = packet.bytes();
        assert_eq!(body[20..sent.len()], sent[20..]);
        assert_eq!(body[128..], mpls[..]);
    }
}

#[test]
fn d59_a_tcp_quote_of_eight_bytes_leaves_padding_and_extension_alone() {
    let mpls = mpls();
    for mut gateway in Gateway::each(&settings()) {
        let out = gateway.translate(&tcp(client(4000), server6(&gateway, 80), SYN, b""));
        let with = [&out.bytes()[..28], &mpls].concat();
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 11, 0, 7 << 16, &with));
        let (_, _, rest, body) = told.icmp();
        assert_eq!((rest, &body[128..]), (16 << 24, &mpls[..]));
        assert!(body[48..128].iter().all(|b| *b == 0));
    }
}

#[test]
fn d60_d64_an_extension_without_a_place_or_too_long_is_left_out_and_the_quote_kept() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, &[5; 100]);
        let with = [&out.bytes()[..], &mpls()].concat();
        // Packet Too Big has no length field.
        let told = gateway.translate(&error(ip(ROUTER4), out.src, 3, 4, 32 << 16 | 1400, &with));
        assert_eq!((told.icmp().0, told.icmp().2, told.icmp().3.len()), (2, 1420, 148));
        // Nor has a message room for a quote beside 500 bytes of extension.
        let (_, out) = sent_to_client(&mut gateway, &[5; 100]);
        let mut long = mpls();
        long.resize(500, 0);
        let with = [&out.bytes()[..144], &long].concat();
        let told = gateway.translate(&error(ip(ROUTER6), out.src, 3, 0, 18 << 24, &with));
        assert_eq!((told.icmp().0, told.icmp().2, told.icmp().3.len()), (11, 0, 124));
        // What is no extension structure is not carried.
        let with = [&out.bytes()[..144], &[0x10; 12]].concat();
        let told = gateway.translate(&error(ip(ROUTER6), out.src, 3, 0, 18 << 24, &with));
        assert_eq!(told.icmp().2, 0);
    }
}

#[test]
fn d64_translated_errors_keep_to_their_longest_size() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, &[7; 1400]);
        let told = gateway.translate(&error4(&out, 3, 1, 0).df(false));
        assert_eq!(told.bytes().len(), 1280);
        let t = open_udp(&mut gateway, client(4000));
        let arrived = gateway.translate(&udp(server(53), t, &[7; 1400]).df(true));
        let told = gateway.translate(&error(ip(ROUTER6), arrived.src, 1, 0, 0, &arrived.bytes()[..1232]));
        assert_eq!(told.bytes().len(), 576);
    }
}

#[test]
fn d69_traceroute_shows_every_hop_and_the_end() {
    for mut gateway in Gateway::each(&settings()) {
        let trace = |gateway: &mut Gateway, probe: Packet| {
            // The gateway is the first hop.
            let first = gateway.refuse(&probe.clone().hops(1), "hop_limit").unwrap();
            assert_eq!((first.icmp().0, first.dst), (3, ip(CLIENT)));
            let mut shown: Vec<IpAddr> = Vec::new();
            for router in ["203.0.113.251", "203.0.113.252"] {
                let out = gateway.translate(&probe.clone().hops(2)).hops(1);
                let told = gateway.translate(&error(ip(router), out.src, 11, 0, 0, &out.bytes()));
                assert_eq!(Packet::parse(told.icmp().3).unwrap().l4, probe.l4);
                shown.push(told.src);
            }
            assert_eq!(shown, [gateway.y(ip("203.0.113.251")), gateway.y(ip("203.0.113.252"))]);
            gateway.translate(&probe)
        };
        let probe = udp(client(33000), server6(&gateway, 33434), &[0; 32]);
        let out = trace(&mut gateway, probe);
        let end = gateway.translate(&error(ip(SERVER), out.src, 3, 3, 0, &out.bytes()));
        assert_eq!((end.src, end.icmp().0, end.icmp().1), (gateway.y(ip(SERVER)), 1, 4));
        let probe = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 5, &[0; 32]);
        let out = trace(&mut gateway, probe);
        let L4::Echo { id, .. } = out.l4 else { panic!("{out:?}") };
        let end = gateway.translate(&echo_reply(ip(SERVER), out.src, id, &[0; 32]));
        assert_eq!((end.src, end.ports().0), (gateway.y(ip(SERVER)), 5));
    }
}

#[test]
fn b08_an_error_whose_hops_are_used_up_is_dropped_silently() {
    for mut gateway in Gateway::each(&settings()) {
        let (_, out) = sent_to_server(&mut gateway, b"q");
        assert_eq!(gateway.refuse(&error4(&out, 3, 3, 0).hops(1), "hop_limit"), None);
        let (_, out) = sent_to_client(&mut gateway, b"a");
        assert_eq!(gateway.refuse(&error6(&out, 1, 4, 0).hops(1), "hop_limit"), None);
    }
}
