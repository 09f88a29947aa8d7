//! RFC 6052, RFC 8215: which IPv6 address stands for which IPv4 address.

use std::net::{IpAddr, SocketAddr};

use crate::support::{Gateway, at, echo_request, ip, settings, udp};
use crate::{CLIENT, client};

const NON_GLOBAL: [&str; 15] = [
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.1.1",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.33",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.77",
    "203.0.113.5",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
];

#[test]
fn a02_destinations_under_every_legal_length() {
    for (prefix, y) in [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ] {
        let mut settings = settings();
        settings.pool6 = vec![prefix.parse().unwrap()];
        settings.allow = vec!["192.0.2.0/24".parse().unwrap()];
        for mut gateway in Gateway::each(&settings) {
            let from = at("fd00::1", 4000);
            let out = gateway.translate(&udp(from, at(y, 53), b"q"));
            assert_eq!(out.destination(), at("192.0.2.33", 53), "{prefix}");
            let back = gateway.translate(&udp(out.destination(), out.source(), b"a"));
            assert_eq!((back.source(), back.destination()), (at(y, 53), from), "{prefix}");
        }
    }
}

#[test]
fn a05_suffix_bits_are_ignored_and_answered_with_zeroes() {
    let mut settings = settings();
    settings.pool6 = vec!["2001:db8:122::/48".parse().unwrap()];
    settings.allow = vec!["192.0.2.0/24".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        let from = at("fd00::1", 4000);
        let first = gateway.translate(&udp(from, at("2001:db8:122:c000:2:21ab:cdef:1234", 53), b"q"));
        assert_eq!(first.destination(), at("192.0.2.33", 53));
        let other_suffix = gateway.translate(&udp(from, at("2001:db8:122:c000:2:2100::1", 53), b"q"));
        assert_eq!(other_suffix.source(), first.source());
        let back = gateway.translate(&udp(first.destination(), first.source(), b"a"));
        assert_eq!(back.source(), at("2001:db8:122:c000:2:2100::", 53));
        assert_eq!(gateway.sessions(), [0, 1, 0]);
    }
}

#[test]
fn a08_f12_only_the_configured_prefix_is_translated() {
    let mut wkp = settings();
    wkp.pool6 = vec!["64:ff9b::/96".parse().unwrap()];
    for mut gateway in Gateway::each(&wkp) {
        assert_eq!(gateway.translate(&udp(client(1), at("64:ff9b::8.8.8.8", 53), b"q")).dst, ip("8.8.8.8"));
        assert_eq!(gateway.refuse(&udp(client(1), at("2001:db8:64::8.8.8.8", 53), b"q"), "not_pool6"), None);
        // the local-use prefix is nothing special.
        assert_eq!(gateway.refuse(&udp(client(1), at("64:ff9b:1::8.8.8.8", 53), b"q"), "not_pool6"), None);
    }
    for mut gateway in Gateway::each(&settings()) {
        assert_eq!(gateway.refuse(&udp(client(1), at("64:ff9b::8.8.8.8", 53), b"q"), "not_pool6"), None);
        assert_eq!(
            gateway.translate(&udp(client(1), at("2001:db8:64::8.8.8.8", 53), b"q")).dst,
            ip("8.8.8.8")
        );
    }
}

#[test]
fn a10_non_global_ipv4_under_the_well_known_prefix_is_refused_whatever_is_allowed() {
    let mut settings = settings();
    settings.pool6 = vec!["64:ff9b::/96".parse().unwrap()];
    settings.allow = vec!["0.0.0.0/0".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        for block in NON_GLOBAL {
            let to = SocketAddr::new(gateway.y(ip(block)), 53);
            let before = gateway.totals();
            let told = gateway.send(&udp(client(1), to, b"q"));
            let drops = gateway.drops_since(&before);
            assert!(matches!(drops[..], [("non_global" | "illegal_destination", 1)]), "{block}: {drops:?}");
            // B-23: administratively prohibited.
            assert_eq!((told[0].icmp().0, told[0].icmp().1), (1, 1), "{block}");
        }
        assert!(gateway.is_empty());
        // The other way: endpoint-independent filtering would let them in.
        let t = gateway.translate(&udp(client(1), at("64:ff9b::8.8.8.8", 53), b"q")).source();
        for block in NON_GLOBAL {
            let before = gateway.totals();
            assert_eq!(gateway.send(&udp(at(block, 53), t, b"a")), []);
            let drops = gateway.drops_since(&before);
            assert!(matches!(drops[..], [("non_global" | "illegal_source", 1)]), "{block}: {drops:?}");
        }
        assert_eq!(gateway.sessions(), [0, 1, 0]);
    }
}

#[test]
fn a15_local_use_prefix_carries_private_networks_that_are_allowed_by_name() {
    let mut settings = settings();
    settings.pool6 = vec!["64:ff9b:1::/96".parse().unwrap()];
    settings.allow = vec!["10.0.0.0/8".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        let out = gateway.translate(&udp(client(1), at("64:ff9b:1::10.0.0.1", 53), b"q"));
        assert_eq!(out.dst, ip("10.0.0.1"));
        let told = gateway.refuse(&udp(client(1), at("64:ff9b:1::192.168.0.1", 53), b"q"), "not_allowed");
        assert_eq!((told.as_ref().unwrap().icmp().0, told.as_ref().unwrap().icmp().1), (1, 1));
    }
}

#[test]
fn a23_each_session_answers_from_the_prefix_its_client_used() {
    let mut settings = settings();
    settings.pool6 = vec!["2001:db8:64::/96".parse().unwrap(), "2001:db8:ffff::/96".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        for prefix in ["2001:db8:64::", "2001:db8:ffff::"] {
            let y: IpAddr = ip(&format!("{prefix}8.8.8.8"));
            let port = if prefix.ends_with("ffff::") { 2 } else { 1 };
            let out = gateway.translate(&udp(client(port), SocketAddr::new(y, 53), b"q"));
            let back = gateway.translate(&udp(out.destination(), out.source(), b"a"));
            assert_eq!(back.source(), SocketAddr::new(y, 53));
            let echo = gateway.translate(&echo_request(ip(CLIENT), y, port, b"?"));
            let mut reply = echo.clone();
            (reply.src, reply.dst) = (echo.dst, echo.src);
            if let crate::support::L4::Echo { reply, .. } = &mut reply.l4 {
                *reply = true;
            }
            assert_eq!(gateway.translate(&reply).src, y);
        }
    }
}
