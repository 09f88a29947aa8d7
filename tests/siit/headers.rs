//! Headers and transports (requirement groups B and C).

use sampan::siit::settings::ZeroChecksum;
use sampan::wire::packet::{Checksum, Gso, GsoKind, Offload};

use crate::packet::{ICMPV6, Packet, TCP, UDP, echo, error, join, raw, tcp, udp};
use crate::translator::{HOST4, HOST6, NODE4, NODE6, POOL4, Translator, assert_ends};

#[test]
fn b01_b02_b07_b12_c02_the_plain_headers() {
    let mut t = Translator::default();
    let out = t.translate(&udp(NODE6, HOST6, b"hello").with(|p| (p.tos, p.flow_label) = (0xb9, 0xabcde)));
    assert_ends(&out, NODE4, HOST4);
    assert_eq!((out.tos, out.fragment, out.options.len(), out.df), (0xb9, None, 0, false));
    let back = t.translate(&udp(HOST4, NODE4, b"hello").with(|p| p.tos = 0x2e));
    assert_ends(&back, HOST6, NODE6);
    assert_eq!((back.tos, back.flow_label, back.protocol, back.fragment), (0x2e, 0, UDP, None));
}

#[test]
fn b04_b09_b10_extension_headers_are_skipped() {
    let mut t = Translator::default();
    let plain = udp(NODE6, HOST6, b"data");
    let options = vec![0, 1, 4, 0, 0, 0, 0];
    let chain = plain.clone().with(|p| {
        p.extensions = vec![
            (0, options.clone()),
            (60, options.clone()),
            // A routing header that is used up.
            (43, vec![0, 2, 0, 0, 0, 0, 0]),
        ];
    });
    let (a, b) = (t.translate(&plain), t.translate(&chain));
    assert_eq!((a.protocol, a.payload.clone()), (b.protocol, b.payload.clone()));
    assert!(b.sum_is_right());
}

#[test]
fn b06_df_is_clear_up_to_1260_bytes() {
    let mut t = Translator::default();
    for (len, df) in [(1280, false), (1281, true)] {
        let out = t.translate(&udp(NODE6, HOST6, &vec![1; len - 48]));
        assert_eq!((out.payload.len() + 20, out.df), (len - 20, df));
    }
}

#[test]
fn b05_identifications_change() {
    let mut t = Translator::default();
    let packet = udp(NODE6, HOST6, b"x");
    let ids: Vec<u32> = (0..4).map(|_| t.translate(&packet).id).collect();
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    // Errors have DF clear, so they count too: translated ones, and our own.
    let quoted = udp(HOST6, NODE6, b"x").bytes();
    let translated = [0; 2].map(|_| t.translate(&error(NODE6, 1, 4, 0, &quoted)).id);
    let late = udp(HOST4, NODE4, b"x").with(|p| p.ttl = 1);
    let own = [0; 2].map(|_| t.refuse(&late, "hop_limit").unwrap().id);
    assert!(translated[0] != translated[1] && own[0] != own[1], "{translated:?} {own:?}");
}

#[test]
fn b08_c05_hop_limits() {
    let mut t = Translator::default();
    assert_eq!(t.translate(&udp(NODE6, HOST6, b"x").with(|p| p.ttl = 64)).ttl, 63);
    assert_eq!(t.translate(&udp(HOST4, NODE4, b"x").with(|p| p.ttl = 64)).ttl, 63);
    let told = t.refuse(&udp(NODE6, HOST6, b"x").with(|p| p.ttl = 1), "hop_limit").unwrap();
    assert_eq!(told.icmp(), (3, 0, 0));
    assert_ends(&told, "2001:db8:6::1", NODE6);
    let told = t.refuse(&udp(HOST4, NODE4, b"x").with(|p| p.ttl = 1), "hop_limit").unwrap();
    assert_eq!(told.icmp(), (11, 0, 0));
    assert_ends(&told, POOL4, HOST4);
}

#[test]
fn b11_a_routing_header_with_segments_left_is_refused() {
    let mut t = Translator::default();
    let packet = udp(NODE6, HOST6, b"x").with(|p| p.extensions = vec![(43, vec![0, 2, 1, 0, 0, 0, 0])]);
    assert_eq!(t.refuse(&packet, "routing_header").unwrap().icmp(), (4, 0, 43));
}

#[test]
fn b13_c06_illegal_sources_vanish() {
    let mut t = Translator::default();
    for src in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
        assert_eq!(t.refuse(&udp(src, HOST6, b"x"), "illegal_source"), None, "{src}");
    }
    for src in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        assert_eq!(t.refuse(&udp(src, NODE4, b"x"), "illegal_source"), None, "{src}");
    }
}

#[test]
fn b15_c04_unknown_transports_pass_unchanged() {
    let mut t = Translator::default();
    let payload: Vec<u8> = (0..77).collect();
    // ESP, AH, SCTP, GRE, OSPF, "no next header", and one without a name.
    for protocol in [50, 51, 132, 47, 89, 59, 253] {
        let out = t.translate(&raw(NODE6, HOST6, protocol, &payload));
        assert_eq!((out.protocol, &out.payload), (protocol, &payload));
        let out = t.translate(&raw(HOST4, NODE4, protocol, &payload));
        assert_eq!((out.protocol, &out.payload), (protocol, &payload));
    }
}

#[test]
fn b15_dccp_and_udp_lite_keep_their_sums() {
    let mut t = Translator::default();
    for protocol in [33, 136] {
        // With the numbers of UDP, whose checksum is at the same place, the judge can sum it.
        let as_udp = |packet: Packet, number: u8| {
            let mut packet = packet;
            let sum = u16::from_be_bytes([packet.payload[6], packet.payload[7]]);
            let other = number as i32 - packet.protocol as i32;
            let sum = (i32::from(sum) - other).rem_euclid(0xffff) as u16;
            packet.payload[6..8].copy_from_slice(&sum.to_be_bytes());
            packet.protocol = number;
            packet
        };
        for (packet, data) in [(udp(NODE6, HOST6, b"abc"), "6"), (udp(HOST4, NODE4, b"abcd"), "4")] {
            let out = t.translate(&as_udp(packet, protocol));
            assert_eq!(out.protocol, protocol);
            assert!(as_udp(out, UDP).sum_is_right(), "protocol {protocol} from {data}");
        }
    }
}

#[test]
fn protocols_that_must_not_cross_are_dropped() {
    let mut t = Translator::default();
    for protocol in [1, 2] {
        assert_eq!(t.refuse(&raw(NODE6, HOST6, protocol, &[0; 16]), "protocol_refused"), None);
    }
    for protocol in [0, 2, 43, 44, 58, 60] {
        assert_eq!(t.refuse(&raw(HOST4, NODE4, protocol, &[0; 16]), "protocol_refused"), None);
        let piece = raw(HOST4, NODE4, protocol, &[0; 16]).piece(0, 8, 1);
        assert_eq!(t.refuse(&piece, "protocol_refused"), None);
    }
}

#[test]
fn b16_c18_checksums_are_right_for_every_prefix_length() {
    for prefix in [
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8:122::/48",
        "2001:db8:122:300::/56",
        "2001:db8:122:344::/64",
        "2001:db8:122:344::/96",
    ] {
        let mut t = Translator::with(|s| s.mapping.prefix = prefix.parse().unwrap());
        let host6 = t.siit().settings().mapping.prefix.embed(HOST4.parse().unwrap()).to_string();
        for len in [0, 1, 2, 99, 1000] {
            let data = vec![0x5a; len];
            for packet in [
                udp(NODE6, &host6, &data),
                tcp(NODE6, &host6, &data),
                echo(NODE6, &host6, false, &data),
                echo(NODE6, &host6, true, &data),
            ] {
                let out = t.translate(&packet);
                assert!(out.sum_is_right(), "{prefix} {out:?}");
                assert_ends(&out, NODE4, HOST4);
            }
            for packet in [
                udp(HOST4, NODE4, &data),
                tcp(HOST4, NODE4, &data),
                echo(HOST4, NODE4, false, &data),
                echo(HOST4, NODE4, true, &data),
            ] {
                let out = t.translate(&packet);
                assert!(out.sum_is_right(), "{prefix} {out:?}");
                assert_ends(&out, &host6, NODE6);
            }
        }
    }
}

#[test]
fn b17_a_wrong_checksum_stays_wrong() {
    let mut t = Translator::default();
    for packet in [udp(NODE6, HOST6, b"abc"), tcp(NODE6, HOST6, b"abc"), tcp(HOST4, NODE4, b"abc")] {
        let out = t.translate(&packet.with(|p| *p.payload.last_mut().unwrap() ^= 1));
        assert!(!out.sum_is_right());
    }
}

#[test]
fn b19_a_computed_zero_is_sent_as_ones() {
    let mut t = Translator::default();
    let mut found = 0;
    for word in 0..=u16::MAX {
        // Of all values of two bytes one makes the checksum of the result zero.
        let packet = udp(HOST4, NODE4, &word.to_be_bytes());
        let out = t.translate(&packet);
        assert!(out.sum_is_right());
        found += u32::from(out.payload[6..8] == [0xff, 0xff]);
    }
    assert!(found >= 1);
}

#[test]
fn b20_udp_over_ipv6_without_checksum_is_dropped() {
    let mut t = Translator::default();
    let packet = udp(NODE6, HOST6, b"x").with(|p| p.payload[6..8].fill(0));
    assert_eq!(t.refuse(&packet, "udp_zero_checksum"), None);
}

#[test]
fn b21_too_big_for_ipv4_is_told() {
    let mut t = Translator::with(|s| s.mtu.v4 = 1400);
    let told = t.refuse(&udp(NODE6, HOST6, &[0; 1452]), "packet_too_big").unwrap();
    assert_eq!(told.icmp(), (2, 0, 1420));
    assert_eq!(told.payload.len(), 1280 - 40);
    assert_ends(&told, "2001:db8:6::1", NODE6);
}

#[test]
fn b22_up_to_1280_bytes_are_cut_for_a_narrow_ipv4_link() {
    let mut t = Translator::with(|s| s.mtu.v4 = 576);
    let pieces = t.send(&udp(NODE6, HOST6, &[7; 1232]));
    assert!(pieces.iter().all(|p| p.payload.len() + 20 <= 576));
    let whole = join(&pieces);
    assert!(whole.sum_is_right());
    assert_eq!(whole.payload.len(), 1240);
    assert_eq!(pieces[0].fragment, Some((0, true)));
}

#[test]
fn b23_c19_what_is_discarded_is_told() {
    let mut t = Translator::default();
    let stranger = "2001:db8:7::1";
    let told = t.refuse(&udp(stranger, HOST6, b"x"), "source_not_mapped").unwrap();
    assert_eq!(told.icmp(), (1, 1, 0));
    // ICMPv6 that is discarded is not answered.
    assert_eq!(t.refuse(&echo(stranger, HOST6, false, b"x"), "source_not_mapped"), None);
    let told = t.refuse(&udp(NODE6, "2001:db8:99::1", b"x"), "not_pool6").unwrap();
    assert_eq!(told.icmp(), (1, 1, 0));
    let told = t.refuse(&udp(HOST4, "192.0.2.77", b"x"), "not_pool4").unwrap();
    assert_eq!(told.icmp(), (3, 13, 0));
    assert_ends(&told, POOL4, HOST4);
    let told = t.refuse(&udp("10.0.0.1", NODE4, b"x"), "not_allowed").unwrap();
    assert_eq!(told.icmp(), (3, 13, 0));
}

#[test]
fn b24_errors_are_limited_or_off() {
    let expired = udp(NODE6, HOST6, b"x").with(|p| p.ttl = 1);
    // How many of the eight is left to chance.
    for (limit, want) in [(0, 0..=0), (1, 1..=1), (8, 4..=8)] {
        let mut t = Translator::with(|s| s.icmp_errors_per_second = limit);
        let told = (0..50).filter(|_| t.refuse(&expired, "hop_limit").is_some()).count();
        assert!(want.contains(&told), "{told} of {want:?}");
        assert_eq!(t.siit().suppressed_notices(), 50 - told as u64);
    }
}

#[test]
fn b30_impossible_lengths_are_refused() {
    let mut t = Translator::default();
    let good = udp(NODE6, HOST6, b"data").bytes();
    for cut in 0..good.len() {
        assert_eq!(t.refuse_raw(good[..cut].to_vec(), "truncated"), None, "{cut}");
    }
    let mut jumbo =
        udp(NODE6, HOST6, b"data").with(|p| p.extensions = vec![(0, vec![0, 0xc2, 4, 0, 1, 0, 0])]).bytes();
    jumbo[4..6].fill(0);
    assert_eq!(t.refuse_raw(jumbo, "extension_chain"), None);
    let longest = raw(NODE6, HOST6, 253, &[0; 65_535]);
    assert_eq!(t.refuse(&longest, "oversize"), None);
}

#[test]
fn c03_c08_options_are_dropped() {
    let mut t = Translator::default();
    // Router alert, no-operation, record route, timestamp.
    for options in
        [vec![148, 4, 0, 0], vec![1, 1, 1, 0], vec![7, 7, 4, 0, 0, 0, 0, 0], vec![68, 8, 5, 0, 0, 0, 0, 0]]
    {
        let out = t.translate(&udp(HOST4, NODE4, b"data").with(|p| p.options = options));
        assert_eq!(out.payload.len(), 12);
        assert!(out.sum_is_right());
    }
}

#[test]
fn c09_a_pending_source_route_is_refused_and_told() {
    let mut t = Translator::default();
    let route =
        |pointer| udp(HOST4, NODE4, b"x").with(|p| p.options = vec![131, 7, pointer, 192, 0, 2, 9, 0]);
    assert_eq!(t.refuse(&route(4), "source_route").unwrap().icmp(), (3, 5, 0));
    assert!(t.translate(&route(8)).sum_is_right());
}

#[test]
fn c10_too_big_with_df_is_told() {
    let mut t = Translator::with(|s| s.mtu.v6 = 1480);
    let told = t.refuse(&udp(HOST4, NODE4, &[0; 1472]).with(|p| p.df = true), "packet_too_big").unwrap();
    assert_eq!(told.icmp(), (3, 4, 1460));
    assert!(told.payload.len() <= 576 - 20);
}

#[test]
fn c11_c12_without_df_packets_are_cut_to_lowest_ipv6_mtu() {
    let mut t = Translator::default();
    let big = udp(HOST4, NODE4, &[9; 1472]).with(|p| p.id = 0x4321);
    let pieces = t.send(&big);
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|p| p.payload.len() <= 1232 && p.id == 0x4321));
    assert!(join(&pieces).sum_is_right());
    let mut t = Translator::with(|s| s.mtu.lowest_ipv6 = 1500);
    assert_eq!(t.translate(&udp(HOST4, NODE4, &[9; 1452])).fragment, None);
}

#[test]
fn c13_no_atomic_fragments() {
    let mut t = Translator::default();
    for id in [0, 1, 0xffff] {
        assert_eq!(t.translate(&udp(HOST4, NODE4, &[1; 72]).with(|p| p.id = id)).fragment, None);
    }
}

#[test]
fn c15_udp_without_checksum_is_dropped_with_an_event_or_computed() {
    let packet = udp(HOST4, NODE4, b"abc").with(|p| p.payload[6..8].fill(0));
    let mut t = Translator::default();
    assert_eq!(t.refuse(&packet, "udp_no_checksum").unwrap().icmp(), (3, 13, 0));
    let mut t = Translator::with(|s| s.udp_zero_checksum = ZeroChecksum::Compute);
    assert!(t.translate(&packet).sum_is_right());
}

#[test]
fn c21_groups_and_igmp_vanish() {
    let mut t = Translator::default();
    assert_eq!(
        t.refuse(&raw(HOST4, "224.0.0.1", 2, &[0x11, 0, 0, 0, 0, 0, 0, 0]), "illegal_destination"),
        None
    );
    assert_eq!(t.refuse(&udp(HOST4, "239.0.0.1", b"x"), "illegal_destination"), None);
    assert_eq!(t.refuse(&udp(HOST4, "255.255.255.255", b"x"), "illegal_destination"), None);
}

#[test]
fn c22_broken_headers_are_refused() {
    let mut t = Translator::default();
    let good = udp(HOST4, NODE4, b"data").bytes();
    let mut bad = good.clone();
    bad[10] ^= 1;
    assert_eq!(t.refuse_raw(bad, "bad_ipv4_checksum"), None);
    let mut bad = good.clone();
    bad[0] = 0x44;
    assert_eq!(t.refuse_raw(bad, "bad_length"), None);
    let mut bad = good;
    bad[0] = 0x75;
    assert_eq!(t.refuse_raw(bad, "bad_version"), None);
}

/// The device leaves segmentation and checksums to a later stage: both survive the translation.
#[test]
fn super_packets_stay_whole() {
    let mut t = Translator::default();
    for (packet, header, back) in [
        (tcp(NODE6, HOST6, &[3; 20_000]), 40, false),
        (tcp(HOST4, NODE4, &[3; 20_000]).with(|p| p.df = true), 20, true),
    ] {
        let mut bytes = packet.bytes();
        // The field holds the sum of the pseudo-header alone.
        let whole = packet.clone().with(|p| p.payload[16..18].fill(0));
        let pseudo = pseudo_of(&whole);
        bytes[header + 16..header + 18].copy_from_slice(&pseudo.to_be_bytes());
        let offload = Offload {
            checksum: Checksum::Partial { start: header as u16, field: 16 },
            gso: Some(Gso { kind: GsoKind::Tcp, size: 1400, ecn: false }),
            header_len: header as u16 + 20,
        };
        let mut out = t.send_raw(bytes, offload);
        assert_eq!(out.len(), 1);
        let (bytes, after) = out.remove(0);
        let out = Packet::parse(&bytes);
        let new_header: u16 = if back { 40 } else { 20 };
        assert_eq!(after.checksum, Checksum::Partial { start: new_header, field: 16 });
        assert_eq!((after.gso, after.header_len), (offload.gso, new_header + 20));
        let sum = u16::from_be_bytes([out.payload[16], out.payload[17]]);
        let want = pseudo_of(&out.clone().with(|p| p.payload[16..18].fill(0)));
        assert_eq!(sum, want);
        assert_eq!((out.protocol, out.payload.len()), (TCP, 20_020));
    }
}

/// Sum of the pseudo-header: that of everything less that of the segment.
fn pseudo_of(packet: &Packet) -> u16 {
    let mut with = packet.clone();
    with.sum();
    let all = !u16::from_be_bytes([with.payload[16], with.payload[17]]);
    let segment = crate::packet::ones_sum(&packet.payload);
    let sum = u32::from(all) + u32::from(!segment);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn d24_d25_d26_other_icmpv6_vanishes() {
    let mut t = Translator::default();
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143, 200] {
        let packet = raw(NODE6, HOST6, ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]).with(Packet::sum);
        assert_eq!(t.refuse(&packet, "icmp_type"), None, "{kind}");
    }
}
