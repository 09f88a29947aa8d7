//! ICMP errors with the packets they quote (requirement group D), and the RFC 6791 pool.

use std::collections::HashSet;

use crate::packet::{ICMP, ICMPV6, Packet, echo, error, ones_sum, raw, tcp, udp};
use crate::translator::{HOST4, HOST6, NODE4, NODE6, POOL4, Translator, assert_ends};

const ROUTER6: &str = "2001:db8::1234";
const ROUTER4: &str = "203.0.113.1";

/// What node and host sent, as the other side's routers see it.
fn from_host() -> Packet {
    udp(HOST6, NODE6, &[1; 40]).with(|p| p.ttl = 3)
}

fn from_node() -> Packet {
    udp(NODE4, HOST4, &[1; 40]).with(|p| p.ttl = 3)
}

#[test]
fn d03_to_d21_types_to_ipv6() {
    let mut t = Translator::default();
    let quoted = from_node().bytes();
    let mut checked = 0;
    for (kind, code, want) in [
        (3, 0, Some((1, 0, 0))),
        (3, 1, Some((1, 0, 0))),
        (3, 2, Some((4, 1, 6))),
        (3, 3, Some((1, 4, 0))),
        (3, 9, Some((1, 1, 0))),
        (3, 13, Some((1, 1, 0))),
        (3, 14, None),
        (3, 16, None),
        (4, 0, None),
        (5, 0, None),
        (11, 0, Some((3, 0, 0))),
        (11, 1, Some((3, 1, 0))),
        (12, 1, None),
        (12, 0, Some((4, 0, 0))),
    ] {
        let packet = error(ROUTER4, kind, code, 0, &quoted);
        match want {
            Some(want) => {
                let out = t.translate(&packet);
                assert_eq!(out.icmp(), want, "{kind}/{code}");
                assert!(out.sum_is_right());
            }
            None => assert_eq!(t.refuse(&packet, "icmp_type"), None, "{kind}/{code}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 14);
}

#[test]
fn d06_d40_fragmentation_needed_becomes_packet_too_big() {
    let mut t = Translator::default();
    for (mtu, want) in [(576, 1280), (1400, 1420), (9000, 1500)] {
        let out = t.translate(&error(ROUTER4, 3, 4, mtu, &from_node().bytes()));
        assert_eq!(out.icmp(), (2, 0, want));
    }
}

#[test]
fn d27_to_d37_types_to_ipv4() {
    let mut t = Translator::default();
    let quoted = from_host().bytes();
    for (kind, code, want) in [
        (1, 0, Some((3, 1, 0))),
        (1, 1, Some((3, 10, 0))),
        (1, 2, Some((3, 1, 0))),
        (1, 3, Some((3, 1, 0))),
        (1, 4, Some((3, 3, 0))),
        (1, 5, None),
        (3, 0, Some((11, 0, 0))),
        (4, 1, Some((3, 2, 0))),
        (4, 2, None),
        (100, 0, None),
    ] {
        let packet = error(NODE6, kind, code, 0, &quoted);
        match want {
            Some(want) => {
                let out = t.translate(&packet);
                assert_eq!(out.icmp(), want, "{kind}/{code}");
                assert!(out.sum_is_right());
                assert_ends(&out, NODE4, HOST4);
            }
            None => assert_eq!(t.refuse(&packet, "icmp_type"), None, "{kind}/{code}"),
        }
    }
}

#[test]
fn d33_d41_packet_too_big_becomes_fragmentation_needed() {
    let mut t = Translator::default();
    let out = t.translate(&error(NODE6, 2, 0, 1400, &from_host().bytes()));
    assert_eq!(out.icmp(), (3, 4, 1380));
    let piece = from_host().piece(0, 32, 0x1_2345);
    let out = t.translate(&error(NODE6, 2, 0, 1280, &piece.bytes()));
    assert_eq!(out.icmp(), (3, 4, 1252));
}

#[test]
fn d45_d46_d56_i03_the_quote_is_translated_like_a_packet() {
    let mut t = Translator::default();
    for sent in [from_node(), tcp(NODE4, HOST4, &[2; 40]), echo(NODE4, HOST4, false, &[3; 40])] {
        let out = t.translate(&error(HOST4, 3, 1, 0, &sent.clone().with(|p| p.ttl = 3).bytes()));
        assert_ends(&out, HOST6, NODE6);
        let (quote, _) = out.quote();
        assert_ends(&quote, NODE6, HOST6);
        // D-45: no hop is taken off in there. D-56: a whole quote has a right checksum.
        assert_eq!(quote.ttl, 3);
        assert!(quote.sum_is_right(), "{quote:?}");
    }
    for sent in [from_host(), tcp(HOST6, NODE6, &[2; 40]), echo(HOST6, NODE6, true, &[3; 40])] {
        let out = t.translate(&error(NODE6, 1, 0, 0, &sent.clone().with(|p| p.ttl = 3).bytes()));
        let (quote, _) = out.quote();
        assert_ends(&quote, HOST4, NODE4);
        assert_eq!(quote.ttl, 3);
        assert!(quote.sum_is_right(), "{quote:?}");
    }
}

#[test]
fn d48_a_quoted_echo_has_its_own_type_translated() {
    let mut t = Translator::default();
    for reply in [false, true] {
        let out = t.translate(&error(ROUTER4, 11, 0, 0, &echo(NODE4, HOST4, reply, b"x").bytes()));
        assert_eq!(out.quote().0.payload[0], if reply { 129 } else { 128 });
        let out = t.translate(&error(NODE6, 3, 0, 0, &echo(HOST6, NODE6, reply, b"x").bytes()));
        assert_eq!(out.quote().0.payload[0], if reply { 0 } else { 8 });
    }
}

#[test]
fn d47_an_error_about_an_error_vanishes() {
    let mut t = Translator::default();
    let inner = error(NODE4, 3, 1, 0, &udp(HOST4, NODE4, b"x").bytes());
    assert_eq!(t.refuse(&error(HOST4, 3, 1, 0, &inner.bytes()), "icmp_quote"), None);
    let inner = error(HOST6, 1, 0, 0, &udp(NODE6, HOST6, b"x").bytes());
    assert_eq!(t.refuse(&error(NODE6, 1, 0, 0, &inner.bytes()), "icmp_quote"), None);
}

#[test]
fn d50_d51_a_stateless_translator_needs_no_more_than_the_quoted_ip_header() {
    let mut t = Translator::default();
    for len in [0, 3, 8, 12, 17, 18] {
        let quoted = &tcp(NODE4, HOST4, &[2; 100]).bytes()[..20 + len];
        let out = t.translate(&error(ROUTER4, 11, 0, 0, quoted));
        assert_eq!(out.quote().1, len);
        assert!(out.sum_is_right());
        let quoted = &tcp(HOST6, NODE6, &[2; 100]).bytes()[..40 + len];
        let out = t.translate(&error(NODE6, 3, 0, 0, quoted));
        assert_eq!(out.quote().1, len);
        assert!(out.sum_is_right());
    }
    let short = &from_node().bytes()[..19];
    let mut packet = error(ROUTER4, 11, 0, 0, &from_node().bytes());
    packet.payload.truncate(8);
    packet.payload.extend(short);
    packet.sum();
    assert_eq!(t.refuse(&packet, "icmp_quote"), None);
}

#[test]
fn quotes_of_other_transports_and_of_fragments_are_translated() {
    let mut t = Translator::default();
    let out = t.translate(&error(ROUTER4, 3, 2, 0, &raw(NODE4, HOST4, 132, &[9; 60]).bytes()));
    let (quote, _) = out.quote();
    assert_eq!((quote.protocol, quote.payload), (132, vec![9; 60]));
    let whole = udp(NODE4, HOST4, &[1; 200]);
    for (from, to) in [(0, 104), (104, 208), (104, 112)] {
        let out = t.translate(&error(ROUTER4, 11, 1, 0, &whole.piece(from, to, 0x4444).bytes()));
        let (quote, there) = out.quote();
        assert_eq!((quote.fragment, quote.id), (whole.piece(from, to, 0).fragment, 0x4444));
        assert_eq!(there, to - from);
        assert_ends(&quote, NODE6, HOST6);
    }
    let whole = udp(HOST6, NODE6, &[1; 200]);
    for (from, to) in [(0, 104), (104, 208)] {
        let out = t.translate(&error(NODE6, 3, 1, 0, &whole.piece(from, to, 0x5_4444).bytes()));
        let (quote, there) = out.quote();
        assert_eq!((quote.fragment, quote.id, quote.df), (whole.piece(from, to, 0).fragment, 0x4444, false));
        assert_eq!(there, to - from);
    }
    // Pieces that we made of an echo are echo all the same.
    let piece = echo(HOST6, NODE6, false, &[1; 200]).piece(104, 208, 1);
    assert_eq!(t.translate(&error(NODE6, 3, 1, 0, &piece.bytes())).quote().0.protocol, ICMP);
    let piece = echo(NODE4, HOST4, false, &[1; 200]).piece(104, 208, 1);
    assert_eq!(t.translate(&error(HOST4, 11, 1, 0, &piece.bytes())).quote().0.protocol, ICMPV6);
}

#[test]
fn d54_d55_wrong_checksums() {
    let mut t = Translator::default();
    for packet in [error(ROUTER4, 3, 1, 0, &from_node().bytes()), error(NODE6, 1, 0, 0, &from_host().bytes())]
    {
        let bad = packet.with(|p| *p.payload.last_mut().unwrap() ^= 1);
        assert_eq!(t.refuse(&bad, "bad_icmp_checksum"), None);
    }
    let mut quoted = from_node().bytes();
    quoted[10] ^= 1;
    let mut packet = error(ROUTER4, 3, 1, 0, &from_node().bytes());
    packet.payload.truncate(8);
    packet.payload.extend(&quoted);
    packet.sum();
    assert_eq!(t.refuse(&packet, "icmp_quote"), None);
}

#[test]
fn c07_errors_from_odd_sources_pass() {
    let mut t = Translator::default();
    let out = t.translate(&error("10.0.0.1", 11, 0, 0, &from_node().bytes()));
    assert_ends(&out, "2001:db8:64::10.0.0.1", NODE6);
    let mut t = Translator::with(|s| s.mapping.prefix = "64:ff9b::/96".parse().unwrap());
    let about = udp(NODE4, "1.1.1.1", b"x").bytes();
    assert_eq!(t.refuse(&error("10.0.0.1", 11, 0, 0, &about), "non_global"), None);
    assert_ends(&t.translate(&error("8.8.8.8", 11, 0, 0, &about)), "64:ff9b::8.8.8.8", NODE6);
}

#[test]
fn errors_about_what_we_did_not_translate_vanish() {
    let mut t = Translator::default();
    // Not sent to the source of what it quotes.
    let packet =
        error(NODE6, 1, 0, 0, &from_host().bytes()).with(|p| p.dst = "2001:db8:64::1.1.1.1".parse().unwrap());
    assert_eq!(t.refuse(&packet.with(Packet::sum), "icmp_quote"), None);
    // The quoted packet was for no node of ours.
    let stranger = udp(HOST6, "2001:db8:99::1", b"x");
    assert_eq!(t.refuse(&error(ROUTER6, 1, 0, 0, &stranger.bytes()), "icmp_quote"), None);
    let stranger = udp("192.0.2.99", HOST4, b"x");
    assert_eq!(t.refuse(&error(ROUTER4, 3, 1, 0, &stranger.bytes()), "not_pool4"), None);
    // An IPv4 host does not speak from the IPv6 side.
    assert_eq!(t.refuse(&error(HOST6, 1, 0, 0, &from_host().bytes()), "source_in_pool6"), None);
}

#[test]
fn b27_a_router_without_ipv4_address_gets_one_of_the_pool() {
    let mut t = Translator::default();
    let out = t.translate(&error(ROUTER6, 3, 0, 0, &from_host().bytes()));
    assert_ends(&out, POOL4, HOST4);
    assert_ends(&out.quote().0, HOST4, NODE4);
    assert_eq!(out.icmp(), (11, 0, 0));
    let mut t = Translator::with(|s| {
        s.mapping.icmp_pool4 =
            vec!["198.51.100.8/30".parse().unwrap(), POOL4.replace(".9", ".77").parse().unwrap()]
    });
    let sources: HashSet<_> =
        (0..200).map(|_| t.translate(&error(ROUTER6, 3, 0, 0, &from_host().bytes())).src).collect();
    assert_eq!(sources.len(), 5, "{sources:?}");
    let mut t = Translator::with(|s| s.mapping.icmp_pool4.clear());
    assert_eq!(t.refuse(&error(ROUTER6, 3, 0, 0, &from_host().bytes()), "source_not_mapped"), None);
}

#[test]
fn b29_the_real_source_is_told_in_an_extension() {
    let mut t = Translator::with(|s| s.interface_info = true);
    let out = t.translate(&error(ROUTER6, 3, 0, 0, &from_host().bytes()));
    assert!(out.sum_is_right());
    let words = usize::from(out.payload[5]);
    assert_eq!(words, 32);
    let extension = &out.payload[8 + words * 4..];
    assert_eq!((extension[0], ones_sum(extension)), (0x20, 0xffff));
    assert_eq!(extension[4..12], [0, 24, 2, 4, 0, 2, 0, 0]);
    assert_eq!(extension[12..], "2001:db8::1234".parse::<std::net::Ipv6Addr>().unwrap().octets());
    // A source that could be mapped says nothing more.
    assert_eq!(t.translate(&error(NODE6, 3, 0, 0, &from_host().bytes())).payload[5], 0);
}

#[test]
fn d64_long_errors_are_cut() {
    let mut t = Translator::default();
    let out = t.translate(&error(ROUTER6, 1, 0, 0, &udp(HOST6, NODE6, &[1; 1100]).bytes()));
    assert_eq!(out.payload.len() + 20, 576);
    assert!(out.sum_is_right());
    let out = t.translate(&error(ROUTER4, 3, 1, 0, &udp(NODE4, HOST4, &[1; 1400]).bytes()));
    assert_eq!(out.payload.len() + 40, 1280);
    assert!(out.sum_is_right());
}
