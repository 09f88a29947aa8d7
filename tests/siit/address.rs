//! Addresses: RFC 6052 prefixes, explicit mappings, hairpinning (requirement groups A and I).

use sampan::siit::settings::{Change, Hairpin};
use sampan::xlat::eam::{Eam, Home};

use crate::packet::{Packet, echo, error, tcp, udp};
use crate::translator::{HOST4, HOST6, NODE4, NODE6, Translator, assert_ends, eam, settings, table};

/// The table of RFC 7757 Figure 1 (two rows), under a prefix that may carry documentation addresses.
fn figure_1(hairpin: Hairpin) -> Translator {
    Translator::with(|s| {
        s.mapping.eam = table(vec![eam("192.0.2.1", A), eam("192.0.2.2/32", "2001:db8:bbbb::b/128")]);
        s.mapping.icmp_pool4 = vec!["198.51.100.1".parse().unwrap()];
        s.hairpin = hairpin;
    })
}

const A: &str = "2001:db8:aaaa::";
const B: &str = "2001:db8:bbbb::b";
const A6: &str = "2001:db8:64::192.0.2.1";
const B6: &str = "2001:db8:64::192.0.2.2";

#[test]
fn a02_a05_b14_c25_appendix_a_of_rfc_7915() {
    let mut t = Translator::with(|s| {
        s.mapping.prefix = "2001:db8:100::/40".parse().unwrap();
        s.mapping.translatable4 = vec!["192.0.2.0/24".parse().unwrap()];
        s.mapping.allow = vec!["198.51.100.0/24".parse().unwrap()];
        s.mapping.eam = table(Vec::new());
    });
    let (h6, h4) = ("2001:db8:1c0:2:21::", "2001:db8:1c6:3364:2::");
    let out = t.translate(&udp(h6, h4, b"x"));
    assert_ends(&out, "192.0.2.33", "198.51.100.2");
    assert!(out.sum_is_right());
    let back = t.translate(&udp("198.51.100.2", "192.0.2.33", b"x"));
    assert_ends(&back, h4, h6);
    assert!(back.sum_is_right());
    // suffix bits that the sender set are in its checksum, and not in the reply.
    let out = t.translate(&udp(h6, "2001:db8:1c6:3364:2:ab:cdef:1", b"x"));
    assert_ends(&out, "192.0.2.33", "198.51.100.2");
    assert!(out.sum_is_right());
}

#[test]
fn a10_the_well_known_prefix_carries_no_private_addresses() {
    let mut t = Translator::with(|s| {
        s.mapping.prefix = "64:ff9b::/96".parse().unwrap();
        s.mapping.allow = vec!["10.0.0.0/8".parse().unwrap(), "198.18.0.0/15".parse().unwrap()];
        s.mapping.translatable4 = vec!["192.0.2.128/25".parse().unwrap()];
    });
    for v4 in
        ["10.0.0.1", "100.64.0.1", "169.254.1.1", "172.16.0.1", "192.168.0.1", "198.18.0.1", "203.0.113.1"]
    {
        t.refuse(&udp(NODE6, &format!("64:ff9b::{v4}"), b"x"), "non_global");
        t.refuse(&udp(v4, NODE4, b"x"), "non_global");
    }
    t.refuse(&udp("64:ff9b::192.0.2.129", "64:ff9b::1.1.1.1", b"x"), "non_global");
    t.refuse(&udp("1.1.1.1", "192.0.2.129", b"x"), "non_global");
    assert_ends(&t.translate(&udp(NODE6, "64:ff9b::1.1.1.1", b"x")), NODE4, "1.1.1.1");
}

#[test]
fn a15_other_prefixes_carry_what_is_allowed() {
    let mut t = Translator::with(|s| {
        s.mapping.prefix = "64:ff9b:1::/96".parse().unwrap();
        s.mapping.allow = vec!["10.0.0.0/8".parse().unwrap()];
    });
    assert_ends(&t.translate(&udp(NODE6, "64:ff9b:1::10.0.0.1", b"x")), NODE4, "10.0.0.1");
    assert_ends(&t.translate(&udp("10.0.0.1", NODE4, b"x")), "64:ff9b:1::10.0.0.1", NODE6);
    let told = t.refuse(&udp(NODE6, "64:ff9b:1::192.168.0.1", b"x"), "not_allowed").unwrap();
    assert_eq!(told.icmp(), (1, 1, 0));
    for v4 in ["0.0.0.1", "127.0.0.1", "224.0.0.1"] {
        t.refuse(&udp(NODE6, &format!("64:ff9b:1::{v4}"), b"x"), "illegal_destination");
    }
}

#[test]
fn a16_what_is_not_configured_is_not_translated() {
    let mut t = Translator::with(|s| s.mapping.prefix = "64:ff9b::/96".parse().unwrap());
    t.refuse(&udp(NODE6, "64:ff9b:1::1.1.1.1", b"x"), "not_pool6");
    t.refuse(&udp(NODE6, HOST6, b"x"), "not_pool6");
}

#[test]
fn i03_each_address_is_translated_by_itself() {
    // Node by explicit mapping, host by prefix; then both by explicit mapping.
    let mut t = Translator::default();
    assert_ends(&t.translate(&udp(NODE6, HOST6, b"x")), NODE4, HOST4);
    let host = Eam { home: Home::V4, ..eam(HOST4, "2001:db8:5::80") };
    let mut t = Translator::with(|s| s.mapping.eam = table(vec![eam(NODE4, NODE6), host]));
    assert_ends(&t.translate(&udp(NODE6, "2001:db8:5::80", b"x")), NODE4, HOST4);
    let back = t.translate(&udp(HOST4, NODE4, b"x"));
    assert_ends(&back, "2001:db8:5::80", NODE6);
    assert!(back.sum_is_right());
    // The quote of an error too.
    let out = t.translate(&error(HOST4, 3, 3, 0, &udp(NODE4, HOST4, b"x").bytes()));
    assert_ends(&out, "2001:db8:5::80", NODE6);
    assert_ends(&out.quote().0, NODE6, "2001:db8:5::80");
}

#[test]
fn i08_i10_two_mapped_nodes_speak_through_the_translator() {
    let mut t = figure_1(Hairpin::Intrinsic);
    // RFC 7757 Figures 8 and 11.
    for (src, dst, new_src, new_dst) in [(A, B6, A6, B), (B, A6, B6, A)] {
        for packet in [udp(src, dst, b"hello"), echo(src, dst, false, b"hello")] {
            let out = t.translate(&packet.with(|p| p.ttl = 64));
            assert_ends(&out, new_src, new_dst);
            assert!(out.sum_is_right());
            assert_eq!(out.ttl, 63, "one hop, not two");
        }
    }
    let told = t.refuse(&udp(A, B6, b"x").with(|p| p.ttl = 1), "hop_limit").unwrap();
    assert_eq!(told.icmp(), (3, 0, 0));
}

#[test]
fn i10_large_and_fragmented_packets_turn_too() {
    let mut t = figure_1(Hairpin::Intrinsic);
    let big = t.translate(&udp(A, B6, &[1; 1452]));
    assert_eq!((big.payload.len() + 40, big.fragment), (1500, None));
    let whole = udp(A, B6, &[1; 2000]);
    let out: Vec<Packet> =
        [(0, 1200), (1200, 2008)].iter().map(|&(a, b)| t.translate(&whole.piece(a, b, 0x7777))).collect();
    assert!(crate::packet::join(&out).sum_is_right());
    let mut t = figure_1(Hairpin::Intrinsic);
    t.send(&udp(A, B6, b"x"));
    let mut narrow = settings();
    narrow.mtu.v6 = 1400;
    narrow.mapping = t.siit().settings().mapping.clone();
    let mut t = Translator::new(narrow);
    let told = t.refuse(&udp(A, B6, &[1; 1452]), "packet_too_big").unwrap();
    assert_eq!(told.icmp(), (2, 0, 1400));
}

#[test]
fn i10_errors_turn_as_in_figures_9_and_10() {
    let mut t = figure_1(Hairpin::Intrinsic);
    // What B and the routers in front of it saw of A's packet.
    let seen = udp(A6, B, b"hello").bytes();
    for (sender, as_seen) in [("2001:db8::1234", "2001:db8:64::198.51.100.1"), (B, B6)] {
        let out = t.translate(&error(sender, 1, 4, 0, &seen).with(|p| p.ttl = 64));
        assert_ends(&out, as_seen, A);
        assert_eq!((out.icmp(), out.ttl), ((1, 4, 0), 63));
        let (quote, _) = out.quote();
        assert_ends(&quote, A, B6);
        assert!(quote.sum_is_right() && out.sum_is_right());
    }
}

#[test]
fn i09_simple_hairpinning_leaves_as_ipv4_and_hides_mappings_on_the_way_back() {
    let mut t = figure_1(Hairpin::Simple);
    let mut through = |packet: &Packet| {
        let half = t.translate(packet);
        assert!(half.src.is_ipv4());
        let whole = t.translate(&half);
        (half, whole)
    };
    // Figure 8.
    let (half, whole) = through(&udp(A, B6, b"hello"));
    assert_ends(&half, "192.0.2.1", "192.0.2.2");
    assert_ends(&whole, A6, B);
    assert!(whole.sum_is_right());
    // Figures 9 and 10.
    let seen = udp(A6, B, b"hello").bytes();
    for (sender, half_src, as_seen) in
        [("2001:db8::1234", "198.51.100.1", "2001:db8:64::198.51.100.1"), (B, "192.0.2.2", B6)]
    {
        let (half, whole) = through(&error(sender, 1, 4, 0, &seen));
        assert_ends(&half, half_src, "192.0.2.1");
        assert_ends(&half.quote().0, "192.0.2.1", "192.0.2.2");
        assert_ends(&whole, as_seen, A);
        assert_ends(&whole.quote().0, A, B6);
    }
}

#[test]
fn i08_without_hairpinning_the_mapping_shows() {
    let mut t = figure_1(Hairpin::Off);
    let half = t.translate(&udp(A, B6, b"hello"));
    assert_ends(&t.translate(&half), A, B);
}

#[test]
fn i12_two_translators_with_the_same_settings_are_one() {
    let (mut one, mut two) = (Translator::default(), Translator::default());
    for packet in [udp(NODE6, HOST6, b"x"), echo(NODE6, HOST6, false, b"x")] {
        let (a, b) = (one.translate(&packet), two.translate(&packet));
        assert_eq!(a.with(|p| p.id = 0), b.with(|p| p.id = 0));
    }
    let out = one.translate(&udp(NODE6, HOST6, b"ask"));
    let answer = udp(&out.dst.to_string(), &out.src.to_string(), b"answer");
    assert_ends(&two.translate(&answer), HOST6, NODE6);
}

#[test]
fn packets_that_would_come_back_are_dropped() {
    let mut t = Translator::with(|s| s.mapping.translatable4 = vec!["192.0.2.128/25".parse().unwrap()]);
    // A node that is not routed.
    t.refuse(&udp(NODE6, "2001:db8:64::192.0.2.200", b"x"), "not_pool6");
    // The explicit address of a node of this side.
    t.refuse(&udp(NODE6, NODE6, b"x"), "not_pool6");
    // An IPv4 host's address as a source on this side.
    t.refuse(&udp(HOST6, HOST6, b"x"), "source_in_pool6");
    // An IPv4 address that belongs to no node.
    t.refuse(&udp(HOST4, "192.0.2.99", b"x"), "not_pool4");
}

#[test]
fn a_changed_table_holds_from_the_next_packet_on() {
    let mut t = Translator::default();
    let mut mapping = settings().mapping;
    mapping.eam = table(vec![eam("192.0.2.7", NODE6)]);
    assert!(t.requests.push(Box::new(move |siit, _| siit.change(Change::Mapping(mapping)))).is_ok());
    t.send(&udp(HOST4, "192.0.2.99", b"x"));
    assert_ends(&t.translate(&udp(NODE6, HOST6, b"x")), "192.0.2.7", HOST4);
    t.refuse(&udp(HOST4, NODE4, b"x"), "not_pool4");
}

/// The transport checksum of a packet as it stands.
fn sum_of(packet: &Packet) -> [u8; 2] {
    let at = match packet.protocol {
        crate::packet::TCP => 16,
        crate::packet::UDP => 6,
        _ => 2,
    };
    [packet.payload[at], packet.payload[at + 1]]
}

#[test]
fn i11_explicit_mappings_are_never_taken_for_neutral() {
    // All four prefixes are checksum-neutral (RFC 6052 §4.1, RFC 8215 §6); the mapped node's address is not.
    for (prefix, host6) in [
        ("64:ff9b::/96", "64:ff9b::1.1.1.1"),
        ("64:ff9b:1:fffe::/96", "64:ff9b:1:fffe::1.1.1.1"),
        ("64:ff9b:1:fffd:1::/96", "64:ff9b:1:fffd:1::1.1.1.1"),
        ("64:ff9b:1:abcd:0:5431::/96", "64:ff9b:1:abcd:0:5431:1.1.1.1"),
    ] {
        let mut t = Translator::with(|s| {
            s.mapping.prefix = prefix.parse().unwrap();
            s.mapping.eam = table(vec![
                eam(NODE4, NODE6),
                // An address whose own words are neutral with its IPv4 form still gets its checksum by computing.
                eam("192.0.2.2", "64:ff9b:1:fffc:2::192.0.2.2"),
            ]);
        });
        for node in [(NODE4, NODE6), ("192.0.2.2", "64:ff9b:1:fffc:2::192.0.2.2")] {
            for (up, down) in [
                (udp(node.1, host6, &[9; 33]), udp("1.1.1.1", node.0, &[9; 33])),
                (tcp(node.1, host6, &[9; 33]), tcp("1.1.1.1", node.0, &[9; 33])),
                (echo(node.1, host6, false, b"odd"), echo("1.1.1.1", node.0, true, b"odd")),
            ] {
                let out = t.translate(&up);
                assert_ends(&out, node.0, "1.1.1.1");
                assert!(out.sum_is_right(), "{prefix}: {out:?}");
                let back = t.translate(&down);
                assert_ends(&back, host6, node.1);
                assert!(back.sum_is_right(), "{prefix}: {back:?}");
                if node.0 == NODE4 {
                    assert_ne!(sum_of(&out), sum_of(&up), "leaving it would be wrong");
                    assert_ne!(sum_of(&back), sum_of(&down), "leaving it would be wrong");
                }
            }
        }
    }
}

#[test]
fn a20_under_a_neutral_prefix_the_computed_checksum_is_the_one_that_was_there() {
    let ends = |prefix: &str| (format!("{prefix}192.0.2.129"), format!("{prefix}198.51.100.2"));
    for (prefix, neutral) in [("64:ff9b:1:fffe::", true), ("2001:db8::", false)] {
        let mut t = Translator::with(|s| {
            s.mapping.prefix = format!("{prefix}/96").parse().unwrap();
            s.mapping.eam = table(Vec::new());
            s.mapping.translatable4 = vec!["192.0.2.128/25".parse().unwrap()];
            s.mapping.allow = vec!["198.51.100.0/24".parse().unwrap()];
        });
        let (node6, host6) = ends(prefix);
        for packet in [udp(&node6, &host6, &[3; 50]), tcp(&node6, &host6, &[3; 51])] {
            let out = t.translate(&packet);
            assert_ends(&out, "192.0.2.129", "198.51.100.2");
            assert!(out.sum_is_right());
            assert_eq!(sum_of(&out) == sum_of(&packet), neutral, "{prefix}");
        }
    }
}
