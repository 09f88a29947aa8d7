//! ICMP errors that the translator sends by itself (RFC 7915 §4.4, §5.4; RFC 4443 §2.4; RFC 1812 §4.3.2).

use crate::packet::{ICMP, ICMPV6, Packet, echo, error, raw, udp};
use crate::translator::{HOST4, HOST6, NODE4, NODE6, POOL4, Translator, assert_ends};

/// Our own address on the IPv6 side, as the settings of these tests choose it.
const OURS6: &str = "2001:db8:6::1";
/// A legal IPv6 source that nobody has mapped, and a destination that is no IPv4 node.
const STRANGER6: &str = "2001:db8:7::1";
const NOWHERE4: &str = "192.0.2.77";

#[test]
fn d67_what_is_said_in_the_senders_family_from_our_address_with_as_much_as_fits() {
    let routed = |p: &mut Packet| p.extensions = vec![(43, vec![0, 2, 1, 0, 0, 0, 0])];
    let source_route = |p: &mut Packet| p.options = vec![131, 7, 4, 192, 0, 2, 9, 0];
    for len in [0, 30, 520, 548, 1000, 1232, 1400] {
        let data = vec![0xa5; len];
        let up = |src, dst| udp(src, dst, &data);
        let mut t = Translator::default();
        let mut said = Vec::new();
        for (packet, reason, want) in [
            (up(NODE6, HOST6).with(|p| p.ttl = 1), "hop_limit", (3, 0, 0)),
            (up(STRANGER6, HOST6), "source_not_mapped", (1, 1, 0)),
            // The Segments Left byte stands 3 bytes behind the IPv6 header.
            (up(NODE6, HOST6).with(routed), "routing_header", (4, 0, 43)),
            (up(HOST4, NODE4).with(|p| p.ttl = 1), "hop_limit", (11, 0, 0)),
            (up(HOST4, NOWHERE4), "not_pool4", (3, 13, 0)),
            (up(HOST4, NODE4).with(source_route), "source_route", (3, 5, 0)),
        ] {
            let told = t.refuse(&packet, reason).unwrap();
            assert_eq!(told.icmp(), want, "{reason}");
            said.push((packet, told));
        }
        let mut t = Translator::with(|s| (s.mtu.v6, s.mtu.v4) = (1400, 1400));
        if len == 1400 {
            let down = up(HOST4, NODE4).with(|p| p.df = true);
            for (packet, want) in [(up(NODE6, HOST6), (2, 0, 1420)), (down, (3, 4, 1380))] {
                let told = t.refuse(&packet, "packet_too_big").unwrap();
                assert_eq!(told.icmp(), want);
                said.push((packet, told));
            }
        }
        for (packet, told) in said {
            let (protocol, ours, header, most) =
                if packet.src.is_ipv6() { (ICMPV6, OURS6, 40, 1280) } else { (ICMP, POOL4, 20, 576) };
            assert_ends(&told, ours, &packet.src.to_string());
            assert_eq!((told.protocol, told.ttl, told.fragment), (protocol, 64, None));
            let sent = packet.bytes();
            let room = most - header - 8;
            assert_eq!(told.payload[8..], sent[..sent.len().min(room)], "{len} bytes: {told:?}");
        }
    }
}

#[test]
fn d67_router_duties_towards_echo_and_nothing_else_about_icmpv6() {
    let mut t = Translator::default();
    let ping = |src, dst| echo(src, dst, false, b"x");
    assert_eq!(t.refuse(&ping(NODE6, HOST6).with(|p| p.ttl = 1), "hop_limit").unwrap().icmp(), (3, 0, 0));
    assert_eq!(t.refuse(&ping(HOST4, NODE4).with(|p| p.ttl = 1), "hop_limit").unwrap().icmp(), (11, 0, 0));
    // RFC 7915 §5.4 is silent about discarded ICMPv6, §4.4 about errors only.
    assert_eq!(t.refuse(&ping(STRANGER6, HOST6), "source_not_mapped"), None);
    assert_eq!(t.refuse(&ping(HOST4, NOWHERE4), "not_pool4").unwrap().icmp(), (3, 13, 0));
}

#[test]
fn d67_never_about_errors_redirects_groups_nobody_and_later_fragments() {
    let mut t = Translator::default();
    let expired = |p: &mut Packet| p.ttl = 1;
    let about4 = udp(NODE4, HOST4, b"x").bytes();
    let about6 = udp(HOST6, NODE6, b"x").bytes();
    assert_eq!(t.refuse(&error("203.0.113.1", 3, 1, 0, &about4).with(expired), "hop_limit"), None);
    assert_eq!(t.refuse(&error(NODE6, 1, 0, 0, &about6).with(expired), "hop_limit"), None);
    let redirect = raw(NODE6, HOST6, ICMPV6, &[137, 0, 0, 0, 0, 0, 0, 0]).with(Packet::sum).with(expired);
    assert_eq!(t.refuse(&redirect, "icmp_type"), None);
    for (src, dst, reason) in [
        ("::", HOST6, "illegal_source"),
        ("ff02::1", HOST6, "illegal_source"),
        (NODE6, "ff02::1", "not_pool6"),
        ("0.0.0.0", NODE4, "illegal_source"),
        ("127.0.0.1", NODE4, "illegal_source"),
        ("224.0.0.1", NODE4, "illegal_source"),
        ("255.255.255.255", NODE4, "illegal_source"),
        (HOST4, "224.0.0.1", "illegal_destination"),
        (HOST4, "255.255.255.255", "illegal_destination"),
    ] {
        assert_eq!(t.refuse(&udp(src, dst, b"x").with(expired), reason), None, "{src} > {dst}");
    }
    for whole in [udp(NODE6, HOST6, &[1; 200]), udp(HOST4, NODE4, &[1; 200])] {
        let whole = whole.with(expired);
        assert!(t.refuse(&whole.piece(0, 104, 1), "hop_limit").is_some());
        assert_eq!(t.refuse(&whole.piece(104, 208, 1), "hop_limit"), None);
    }
}
