//! Changes of settings while traffic flows: what they forbid ends, everything else goes on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sampan::nat64::settings::{Change, Filter, Filtering, Pool4Range, Timers, Unit};

use crate::support::packet::{ACK, SYN};
use crate::support::{Gateway, at, settings, tcp, udp};
use crate::{SERVER, open_udp, seen6, server, server6};

fn unit(name: &str, prefix: &str) -> Unit {
    Unit { name: name.into(), prefixes: vec![prefix.parse().unwrap()], ..Unit::default() }
}

/// Whether the mapping still works in both directions, without a change of its port.
fn lives(gateway: &mut Gateway, from: SocketAddr, t: SocketAddr) -> bool {
    let before = gateway.totals();
    let out = gateway.send(&udp(server(53), t, b"a"));
    gateway.drops_since(&before).is_empty() && out[0].destination() == from
}

#[test]
fn units_that_leave_lose_their_sessions_and_the_others_keep_theirs() {
    let mut settings = settings();
    settings.units = vec![unit("one", "2001:db8:1::/48"), unit("two", "2001:db8:2::/48")];
    for mut gateway in Gateway::each(&settings) {
        let (one, two) = (at("2001:db8:1::1", 1), at("2001:db8:2::1", 1));
        let (t1, t2) = (open_udp(&mut gateway, one), open_udp(&mut gateway, two));
        gateway.change(Change::Units(vec![unit("two", "2001:db8:2::/48"), unit("new", "2001:db8:3::/48")]));
        assert!(!lives(&mut gateway, one, t1) && lives(&mut gateway, two, t2));
        assert_eq!((gateway.sessions(), gateway.bindings(), gateway.blocks()), ([0, 1, 0], 1, 1));
        assert!(gateway.refuse(&udp(one, server6(&gateway, 53), b"q"), "source_not_served").is_some());
        open_udp(&mut gateway, at("2001:db8:3::1", 1));
        // Without units everybody who is routed here is served.
        gateway.change(Change::Units(Vec::new()));
        open_udp(&mut gateway, one);
        assert_eq!(gateway.bindings(), 3);
    }
}

#[test]
fn a_growing_pool_keeps_every_mapping() {
    let mut settings = settings();
    settings.pool4.ranges[0].prefix = "198.51.100.0/32".parse().unwrap();
    settings.pool4.ranges[0].ports = 1024..=1151;
    for mut gateway in Gateway::each(&settings) {
        let hosts: Vec<_> = (1..=2).map(|i| at(format!("2001:db8:1::{i}"), 1)).collect();
        let mappings: Vec<_> = hosts.iter().map(|h| open_udp(&mut gateway, *h)).collect();
        let third = at("2001:db8:1::3", 1);
        assert!(gateway.refuse(&udp(third, server6(&gateway, 53), b"q"), "ports_exhausted").is_some());
        let more = Pool4Range::new("198.51.100.8/30".parse().unwrap(), 1024..=65535);
        gateway.change(Change::Pool4(vec![gateway.settings().pool4.ranges[0].clone(), more]));
        for (host, t) in hosts.iter().zip(&mappings) {
            assert!(lives(&mut gateway, *host, *t));
        }
        let new = open_udp(&mut gateway, third).ip();
        assert!(gateway.settings().pool4.ranges[1].prefix.addresses().any(|a| IpAddr::from(a) == new));
    }
}

#[test]
fn a_pool_address_that_goes_keeps_its_mappings_until_they_end() {
    for mut gateway in Gateway::each(&settings()) {
        let hosts: Vec<_> = (1..=40).map(|i| at(format!("2001:db8:1::{i}"), 1)).collect();
        let mappings: Vec<_> = hosts.iter().map(|h| open_udp(&mut gateway, *h)).collect();
        let going = |t: &SocketAddr| t.ip().to_string() != "198.51.100.2";
        assert!(mappings.iter().any(going) && !mappings.iter().all(going));
        let stays = Pool4Range::new("198.51.100.2/32".parse().unwrap(), 1024..=65535);
        gateway.change(Change::Pool4(vec![stays]));
        // Nothing is cut: both directions go on.
        assert_eq!((gateway.bindings(), gateway.blocks()), (40, 40));
        assert!(gateway.pool().draining().count() > 0);
        for (host, t) in hosts.iter().zip(&mappings) {
            assert!(lives(&mut gateway, *host, *t));
            assert_eq!(open_udp(&mut gateway, *host), *t);
        }
        // But whoever needs a new mapping gets it elsewhere.
        for host in &hosts {
            let new = open_udp(&mut gateway, SocketAddr::new(host.ip(), 2)).ip();
            assert_eq!(new.to_string(), "198.51.100.2");
        }
        gateway.advance(Duration::from_secs(300));
        assert!(gateway.is_empty());
        assert_eq!(gateway.pool().draining().count(), 0);
        for (host, t) in hosts.iter().zip(&mappings) {
            let gone = if going(t) { "no_bib" } else { continue };
            gateway.refuse(&udp(server(53), *t, b"a"), gone);
            assert_eq!(open_udp(&mut gateway, *host).ip().to_string(), "198.51.100.2");
        }
        // The next change forgets it altogether.
        let ranges = gateway.settings().pool4.ranges.clone();
        gateway.change(Change::Pool4(ranges));
        for t in mappings.iter().filter(|t| going(t)) {
            assert_eq!(gateway.refuse(&udp(server(53), *t, b"a"), "not_pool4"), None);
        }
    }
}

#[test]
fn changed_ports_of_an_address_concern_new_mappings_only() {
    for mut gateway in Gateway::each(&settings()) {
        let host = at("2001:db8:1::1", 1);
        let t = open_udp(&mut gateway, host);
        let mut ranges = gateway.settings().pool4.ranges.clone();
        let ports = if t.port() < 30_000 { 40_000..=40_999 } else { 20_000..=20_999 };
        ranges[0].ports = ports.clone();
        gateway.change(Change::Pool4(ranges));
        assert!(lives(&mut gateway, host, t));
        let new = open_udp(&mut gateway, SocketAddr::new(host.ip(), 2));
        assert!(ports.contains(&new.port()));
        gateway.advance(Duration::from_secs(300));
        assert!(gateway.is_empty());
        assert!(ports.contains(&open_udp(&mut gateway, host).port()));
    }
}

#[test]
fn hairpin_sessions_with_a_pool_address_that_goes_live_on() {
    for mut gateway in Gateway::each(&settings()) {
        let hosts: Vec<_> = (1..=40).map(|i| at(format!("2001:db8:1::{i}"), 1)).collect();
        let mappings: Vec<_> = hosts.iter().map(|h| open_udp(&mut gateway, *h)).collect();
        let stays = |t: &SocketAddr| t.ip().to_string() == "198.51.100.2";
        let a = mappings.iter().position(stays).unwrap();
        let b = mappings.iter().position(|t| !stays(t)).unwrap();
        let seen_b = seen6(&gateway, mappings[b]);
        assert_eq!(gateway.translate(&udp(hosts[a], seen_b, b"hi")).destination(), hosts[b]);
        let range = Pool4Range::new("198.51.100.2/32".parse().unwrap(), 1024..=65535);
        gateway.change(Change::Pool4(vec![range.clone()]));
        assert_eq!(gateway.translate(&udp(hosts[a], seen_b, b"hi")).destination(), hosts[b]);
        gateway.advance(Duration::from_secs(300));
        gateway.change(Change::Pool4(vec![range]));
        // T_B is an ordinary address now, and a documentation address that nobody allowed.
        assert!(gateway.refuse(&udp(hosts[a], seen_b, b"hi"), "not_allowed").is_some());
    }
}

#[test]
fn filtering_can_be_tightened_and_loosened() {
    for mut gateway in Gateway::each(&settings()) {
        let (host, stranger) = (at("2001:db8:1::1", 1), at("203.0.113.77", 7));
        let known = at("203.0.113.78", 7);
        let t = open_udp(&mut gateway, host);
        gateway.translate(&udp(known, t, b"before"));
        let strict = Filtering { udp: Filter::AddressDependent, ..Filtering::default() };
        gateway.change(Change::Filtering(strict));
        // Sessions that exist go on, and count as permissions.
        gateway.translate(&udp(known, t, b"after"));
        gateway.translate(&udp(at(SERVER, 99), t, b"other port of the server"));
        assert!(gateway.refuse(&udp(stranger, t, b"no"), "filtered").is_some());
        gateway.change(Change::Filtering(Filtering::default()));
        gateway.translate(&udp(stranger, t, b"now it may"));
        gateway.advance(Duration::from_secs(300));
        assert!(gateway.is_empty());
    }
}

#[test]
fn destinations_that_are_no_longer_allowed_lose_their_sessions() {
    let mut settings = settings();
    settings.allow = vec!["203.0.113.0/24".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        let host = at("2001:db8:1::1", 1);
        let t = open_udp(&mut gateway, host);
        let elsewhere = seen6(&gateway, at("192.0.2.1", 53));
        let public = seen6(&gateway, at("8.8.8.8", 53));
        gateway.translate(&udp(host, elsewhere, b"q"));
        gateway.translate(&udp(host, public, b"q"));
        gateway.change(Change::Allow(vec!["203.0.113.0/24".parse().unwrap()]));
        assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 2, 0], 1));
        assert!(gateway.refuse(&udp(host, elsewhere, b"q"), "not_allowed").is_some());
        assert!(lives(&mut gateway, host, t));
        gateway.translate(&udp(host, public, b"q"));
    }
}

#[test]
fn new_lifetimes_count_from_the_next_packet() {
    for mut gateway in Gateway::each(&settings()) {
        let host = at("2001:db8:1::1", 1);
        let t = open_udp(&mut gateway, host);
        let c = gateway.translate(&tcp(host, server6(&gateway, 80), SYN, b"")).source();
        gateway.translate(&tcp(server(80), c, SYN | ACK, b""));
        let timers = Timers { udp: Duration::from_secs(120), ..Timers::default() };
        gateway.change(Change::Timers(timers));
        gateway.advance(Duration::from_secs(200));
        assert!(lives(&mut gateway, host, t));
        gateway.advance(Duration::from_secs(119));
        assert_eq!(gateway.sessions(), [1, 1, 0]);
        gateway.advance(Duration::from_secs(1));
        assert_eq!(gateway.sessions(), [1, 0, 0]);
    }
}
