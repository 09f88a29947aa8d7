//! Security considerations of the RFCs, turned into attacks (group O). More about each stands with its subject.

use std::time::Duration;

use sampan::nat64::settings::{Change, Limits};
use sampan::wire::packet::Offload;

use crate::support::packet::Extension;
use crate::support::{Gateway, Packet, at, error, ip, settings, udp};
use crate::{CLIENT, client, open_udp, seen6, server, server6};

#[test]
fn o01_nobody_speaks_for_an_ipv4_host_from_inside() {
    for mut gateway in Gateway::each(&settings()) {
        let forged = udp(server6(&gateway, 53), seen6(&gateway, at("203.0.113.99", 53)), b"I am the server");
        assert_eq!(gateway.refuse(&forged, "source_in_pool6"), None);
        assert!(gateway.is_empty());
    }
}

#[test]
fn o02_only_the_prefixes_of_units_are_served() {
    let mut settings = settings();
    let prefixes = vec!["2001:db8:1::/48".parse().unwrap()];
    settings.units =
        vec![sampan::nat64::settings::Unit { name: "one".into(), prefixes, ..Default::default() }];
    for mut gateway in Gateway::each(&settings) {
        open_udp(&mut gateway, client(1));
        let stranger = udp(at("2001:db8:2::1", 1), server6(&gateway, 53), b"q");
        assert!(gateway.refuse(&stranger, "source_not_served").is_some());
        assert_eq!(gateway.bindings(), 1);
    }
}

#[test]
fn o03_a_packet_to_ones_own_mapping_goes_round_once() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(1));
        let mut packet = udp(client(1), seen6(&gateway, t), b"loop");
        // Whatever the client sends back to itself comes out once for each time it goes in, one hop shorter.
        for hops in (60..64).rev() {
            let out = gateway.translate(&packet);
            assert_eq!((out.destination(), out.hops), (client(1), hops));
            packet = udp(client(1), seen6(&gateway, t), b"loop").hops(out.hops);
        }
    }
}

#[test]
fn o05_the_gateways_own_addresses_are_not_reached_by_way_of_the_prefix() {
    for mut gateway in Gateway::each(&settings()) {
        open_udp(&mut gateway, client(1));
        let own = seen6(&gateway, at("203.0.113.5", 22));
        let to_own = udp(client(1), own, b"q");
        gateway.translate(&to_own);
        let [tcp, udp_sessions, icmp] = gateway.sessions();
        // It becomes an address of the machine: the session goes, and none comes.
        gateway.set_own_addresses(&["192.0.2.1".parse().unwrap(), "203.0.113.5".parse().unwrap()]);
        assert_eq!(gateway.sessions(), [tcp, udp_sessions - 1, icmp]);
        let told = gateway.refuse(&to_own, "own_address").unwrap();
        assert_eq!(told.src, own.ip(), "prohibited, told in the name of who was asked");
        gateway.translate(&udp(client(1), server6(&gateway, 53), b"others are reached"));
        gateway.set_own_addresses(&[]);
        gateway.translate(&to_own);
    }
}

#[test]
fn o05_special_blocks_are_never_reached_under_any_prefix() {
    for prefix in ["2001:db8:64::/96", "64:ff9b:1:fffe::/96", "64:ff9b::/96"] {
        let mut settings = settings();
        settings.pool6 = vec![prefix.parse().unwrap()];
        settings.allow = vec!["10.0.0.0/8".parse().unwrap()];
        for mut gateway in Gateway::each(&settings) {
            for host in ["127.0.0.1", "169.254.169.254", "0.0.0.1", "224.0.0.1", "255.255.255.255"] {
                let before = gateway.totals();
                let out = gateway.send(&udp(client(1), seen6(&gateway, at(host, 80)), b"q"));
                assert_eq!(gateway.drops_since(&before).len(), 1, "{prefix} {host}");
                assert!(out.iter().all(|p| p.dst == client(1).ip()), "{prefix} {host}: {out:?}");
                assert!(gateway.is_empty());
            }
        }
    }
}

#[test]
fn o06_internal_networks_are_reached_only_when_they_are_named() {
    for mut gateway in Gateway::each(&settings()) {
        let inside = ["10.1.1.1", "100.64.0.1", "172.16.0.1", "192.168.0.1"];
        for host in inside {
            let packet = udp(client(1), seen6(&gateway, at(host, 80)), b"q");
            assert!(gateway.refuse(&packet, "not_allowed").is_some(), "{host}");
        }
        gateway.change(Change::Allow(vec!["10.0.0.0/8".parse().unwrap()]));
        for (host, passes) in inside.iter().zip([true, false, false, false]) {
            let packet = udp(client(1), seen6(&gateway, at(host, 80)), b"q");
            let before = gateway.totals();
            gateway.send(&packet);
            assert_eq!(gateway.drops_since(&before).is_empty(), passes, "{host}");
        }
    }
}

/// A piece of a datagram with this many bytes behind the UDP header.
fn piece(gateway: &Gateway, id: u32, data: &[u8], more: bool) -> Vec<u8> {
    let packet = udp(client(7), server6(gateway, 53), data);
    packet.extension(Extension::fragment(0, more, id)).bytes()
}

#[test]
fn o12_o13_a_flood_of_overlapping_pieces_hurts_no_whole_packet_and_makes_none() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(1));
        for id in 0..2000 {
            for data in [&b"sixteen bytes ok"[..], b"another twenty-four byte"] {
                let bytes = piece(&gateway, id, data, true);
                gateway.feed(0, bytes, Offload::default());
            }
        }
        // Nothing was put together of pieces that contradict each other.
        assert_eq!(gateway.run(), []);
        assert!(gateway.drops("fragment_overlap") >= 64 && gateway.drops("fragment_limit") > 1000);
        assert_eq!(gateway.translate(&udp(server(53), t, b"whole")).destination(), client(1));
        gateway.now = gateway.now + Duration::from_secs(3);
        gateway.run();
        gateway.translate(&udp(client(1), server6(&gateway, 53), b"whole"));
    }
}

#[test]
fn o14_forged_errors_are_dropped_and_change_nothing() {
    for mut gateway in Gateway::each(&settings()) {
        let out = gateway.translate(&udp(client(1), server6(&gateway, 53), b"q"));
        let before = gateway.session_rows(&Default::default());
        let router = ip("198.51.99.1");
        for port in 1..200 {
            let quoted = udp(out.source(), at("203.0.113.99", port), b"never sent");
            assert_eq!(gateway.refuse(&error(router, out.src, 3, 1, 0, &quoted.bytes()), "no_session"), None);
        }
        assert_eq!(gateway.session_rows(&Default::default()), before);
    }
}

#[test]
fn o15_errors_of_our_own_are_few_and_no_longer_than_what_caused_them_allows() {
    let mut settings = settings();
    settings.limits = Limits { icmp_errors_per_second: 6, ..settings.limits };
    let mut gateway = Gateway::new(settings, 1);
    let private = seen6(&gateway, at("10.0.0.1", 80));
    let told: Vec<Packet> =
        (0..500).flat_map(|p| gateway.send(&udp(client(1000 + p), private, &[0; 1300]))).collect();
    assert!((3..=6).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|p| p.bytes().len() <= 1280 && p.dst == ip(CLIENT)));
}

#[test]
fn o18_what_is_forbidden_as_ipv4_is_forbidden_as_embedded_ipv4() {
    let mut settings = settings();
    settings.pool6.push("64:ff9b::/96".parse().unwrap());
    settings.allow.push("10.0.0.0/8".parse().unwrap());
    for mut gateway in Gateway::each(&settings) {
        for (host, reason) in [("127.0.0.1", "illegal_destination"), ("169.254.169.254", "not_allowed")] {
            let packet = udp(client(1), seen6(&gateway, at(host, 80)), b"q");
            assert!(gateway.refuse(&packet, reason).is_some(), "{host}");
        }
        // The same address under the well-known prefix, allowed or not.
        let embedded = at("64:ff9b::10.0.0.1", 80);
        assert!(gateway.refuse(&udp(client(1), embedded, b"q"), "non_global").is_some());
    }
}
