//! Ports and blocks: who gets which, how long they rest, and that they come back.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sampan::nat64::journal::{HEADER, Journal, replay, write_row};
use sampan::nat64::policy::{Assignment, Pairing, PortPolicy};
use sampan::nat64::settings::{Change, Pool4Range, RowFilter, Settings, Unit};

use crate::support::packet::SYN;
use crate::support::{Gateway, L4, at, echo_request, ip, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, open_udp, server, server6};

const SECOND: Duration = Duration::from_secs(1);

/// One pool address with these ports, in blocks of 64.
fn small(ports: std::ops::RangeInclusive<u16>, policy: PortPolicy) -> Settings {
    let mut settings = settings();
    settings.pool4.ranges = vec![Pool4Range::new("198.51.100.0/32".parse().unwrap(), ports)];
    settings.ports = policy;
    settings
}

fn restless() -> PortPolicy {
    settings().ports
}

#[test]
fn f22_g02_h01_h02_tcp_udp_and_icmp_of_a_client_come_from_one_address() {
    let mut settings = settings();
    settings.pool4.ranges = ["198.51.100.0/30", "203.0.113.64/28"]
        .map(|prefix| Pool4Range::new(prefix.parse().unwrap(), 1024..=65535))
        .to_vec();
    settings.limits.sessions = 40_000;
    for mut gateway in Gateway::each(&settings) {
        let mut all = HashSet::new();
        for host in 1..=30 {
            let from = format!("2001:db8:1::{host:x}");
            let mut addresses = HashSet::new();
            for port in 0..100 {
                addresses.insert(open_udp(&mut gateway, at(&from, 3000 + port)).ip());
                let syn = tcp(at(&from, 3000 + port), server6(&gateway, 80), SYN, b"");
                addresses.insert(gateway.translate(&syn).src);
                let echo = echo_request(ip(&from), gateway.y(ip(SERVER)), port, b"?");
                addresses.insert(gateway.translate(&echo).src);
            }
            assert_eq!(addresses.len(), 1, "{from}");
            all.extend(addresses);
        }
        assert!(all.len() > 5, "hosts are spread: {all:?}");
    }
}

#[test]
fn g03_without_soft_pairing_a_full_address_refuses_and_with_it_another_one_helps() {
    for (pairing, works) in [(Pairing::Hard, false), (Pairing::Soft, true)] {
        let mut settings = small(1024..=1087, PortPolicy { pairing, ..restless() });
        settings.pool4.ranges[0].prefix = "198.51.100.0/31".parse().unwrap();
        for mut gateway in Gateway::each(&settings) {
            let first: HashSet<_> = (0..64).map(|p| open_udp(&mut gateway, client(2000 + p))).collect();
            let more = udp(client(5000), server6(&gateway, 53), b"q");
            if works {
                let t2 = gateway.translate(&more).source();
                assert!(first.iter().all(|t| t.ip() != t2.ip()));
            } else {
                let told = gateway.refuse(&more, "ports_exhausted").unwrap();
                assert_eq!((told.icmp().0, told.icmp().1, told.dst), (1, 3, ip(CLIENT)));
            }
        }
    }
}

#[test]
fn f23_f24_f25_g06_g07_low_ports_parity_and_how_to_switch_them_off() {
    let mut with_low = settings();
    with_low.pool4.ranges[0].ports = 512..=65535;
    with_low.limits.sessions = 40_000;
    for mut gateway in Gateway::each(&with_low) {
        for port in [1, 53, 123, 500, 1023] {
            let t = open_udp(&mut gateway, client(port)).port();
            assert!(t < 1024 && t % 2 == port % 2, "{port} became {t}");
        }
        // Ten thousand sources of a hundred hosts.
        for host in 0..100 {
            for port in 0..100u16 {
                let from = at(format!("2001:db8:2::{host:x}"), 1024 + host * 131 + port * 7);
                let t = open_udp(&mut gateway, from).port();
                assert!(t >= 1024 && t % 2 == from.port() % 2, "{from} became {t}");
            }
        }
    }
    let off = PortPolicy { parity: false, range: false, ..restless() };
    let mut gateway = Gateway::new(Settings { ports: off, ..with_low }, 1);
    let ports = (0..200).map(|p| (p, open_udp(&mut gateway, client(2000 + p)).port()));
    let other = ports.filter(|(p, t)| p % 2 != t % 2).count();
    assert!((50..150).contains(&other), "parity is a coin: {other} of 200");
}

#[test]
fn f23_a_low_port_that_finds_none_gets_another() {
    for mut gateway in Gateway::each(&small(960..=1151, restless())) {
        let t: Vec<_> = (0..64).map(|p| open_udp(&mut gateway, client(400 + p)).port()).collect();
        assert!(t.iter().all(|t| *t < 1024));
        assert!(open_udp(&mut gateway, client(700)).port() >= 1024);
    }
}

#[test]
fn x04_a_port_keeps_its_place_when_that_is_chosen() {
    let policy = PortPolicy { preserve: true, ..restless() };
    for mut gateway in Gateway::each(&small(1024..=65535, policy)) {
        for port in [5000, 5001, 40_000, 40_001] {
            assert_eq!(open_udp(&mut gateway, client(port)).port() % 64, port % 64);
        }
    }
}

#[test]
fn f26_g04_g05_no_two_clients_share_a_transport_address_not_even_for_different_peers() {
    // Two blocks of 64 for two clients, each full.
    for mut gateway in Gateway::each(&small(1024..=1151, restless())) {
        let mut seen = HashSet::new();
        for host in ["2001:db8:1::a", "2001:db8:1::b"] {
            for port in 0..64 {
                assert!(seen.insert(open_udp(&mut gateway, at(host, 2000 + port))));
            }
        }
        let third = at("2001:db8:1::c", 1);
        let peer = SocketAddr::new(gateway.y(ip("203.0.113.200")), 9999);
        gateway.refuse(&udp(third, peer, b"a peer that nobody has"), "ports_exhausted").unwrap();
        // The same number in another protocol is another transport address.
        let syn = tcp(at("2001:db8:1::a", 2000), server6(&gateway, 80), SYN, b"");
        let t = gateway.translate(&syn).source();
        assert!((1024..=1151).contains(&t.port()));
    }
}

#[test]
fn f27_identifiers_of_one_address_run_out_cleanly() {
    let mut settings = small(64..=65535, restless());
    settings.limits.sessions = 70_000;
    let mut gateway = Gateway::new(settings, 1);
    let mut ids = HashSet::new();
    // 65536 less the first block, which holds port 0.
    for i in 0..65_472u32 {
        let echo = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), i as u16, b"?");
        let out = gateway.translate(&echo);
        let L4::Echo { id, .. } = out.l4 else { panic!("{out:?}") };
        ids.insert(id);
    }
    assert_eq!(ids.len(), 65_472);
    let one_more = echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 65_500, b"?");
    assert_eq!(gateway.refuse(&one_more, "ports_exhausted"), None);
    gateway.advance(60 * SECOND);
    assert!(gateway.is_empty());
}

#[test]
fn f28_f29_h15_a_pool_of_one_block_refuses_the_next_client_and_keeps_the_first() {
    for mut gateway in Gateway::each(&small(1024..=1087, restless())) {
        let t = open_udp(&mut gateway, client(1));
        let second = at("2001:db8:1::77", 1);
        for _ in 0..50 {
            let told = gateway.refuse(&udp(second, server6(&gateway, 53), b"q"), "ports_exhausted").unwrap();
            assert_eq!((told.icmp().0, told.icmp().1, told.dst), (1, 3, second.ip()));
        }
        assert_eq!(gateway.translate(&udp(server(53), t, b"still there")).destination(), client(1));
        gateway.advance(300 * SECOND);
        open_udp(&mut gateway, second);
    }
}

#[test]
fn g34_source_port_zero_is_a_port_like_others_and_none_becomes_zero() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(0));
        assert_ne!(t.port(), 0);
        assert_eq!(gateway.translate(&udp(server(53), t, b"a")).destination(), client(0));
        // From IPv4 to port 0: nobody's.
        gateway.refuse(&udp(server(53), SocketAddr::new(t.ip(), 0), b"a"), "no_bib");
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
    }
}

#[test]
fn h10_a_freed_udp_port_is_nobodys_for_120_seconds() {
    let policy = PortPolicy { block_idle: Duration::ZERO, ..PortPolicy::default() };
    for mut gateway in Gateway::each(&small(1024..=1087, policy)) {
        let first = open_udp(&mut gateway, client(1));
        gateway.advance(300 * SECOND);
        assert_eq!((gateway.bindings(), gateway.blocks()), (0, 1), "the block rests with its port");
        let second = at("2001:db8:1::77", 1);
        let query = udp(second, server6(&gateway, 53), b"q");
        gateway.refuse(&query, "ports_exhausted");
        // Its own client may go on in the block, but not with that port.
        let others: HashSet<_> = (100..163).map(|p| open_udp(&mut gateway, client(p))).collect();
        assert!(others.len() == 63 && !others.contains(&first));
        gateway.refuse(&udp(client(200), server6(&gateway, 53), b"q"), "ports_exhausted");
        gateway.advance(120 * SECOND);
        gateway.advance(SECOND);
        assert_eq!(open_udp(&mut gateway, client(200)), first);
        gateway.advance(300 * SECOND);
        gateway.advance(121 * SECOND);
        assert!(gateway.is_empty());
        gateway.translate(&query);
    }
}

#[test]
fn h10_tcp_ports_and_those_behind_a_filter_may_be_used_at_once() {
    use sampan::nat64::settings::{Filter, Filtering};
    let policy = PortPolicy { block_idle: Duration::ZERO, ..PortPolicy::default() };
    for mut gateway in Gateway::each(&small(1024..=1087, policy)) {
        gateway.translate(&tcp(client(1), server6(&gateway, 80), SYN, b""));
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty(), "RFC 6888 REQ-8a");
        gateway
            .change(Change::Filtering(Filtering { udp: Filter::AddressDependent, ..Filtering::default() }));
        open_udp(&mut gateway, client(1));
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty(), "RFC 6888 REQ-8c");
    }
}

#[test]
fn h11_time_and_number_of_resting_ports_are_settings() {
    let policy = PortPolicy { hold_down: 10 * SECOND, hold_down_max: 9, ..restless() };
    for mut gateway in Gateway::each(&small(1024..=65535, policy)) {
        for port in 0..40 {
            open_udp(&mut gateway, client(2000 + port));
        }
        gateway.advance(300 * SECOND);
        let resting: usize = gateway.engines().map(|e| e.resting_ports()).sum();
        let most = if gateway.engines().count() == 1 { 9 } else { 3 };
        assert_eq!(resting, most);
        // A reload can change the time for ports that are freed from then on.
        gateway.change(Change::Ports(PortPolicy { hold_down: Duration::ZERO, ..policy }));
        gateway.advance(11 * SECOND);
        assert!(gateway.is_empty());
    }
}

#[test]
fn h12_h20_after_a_crash_everybody_has_the_same_blocks_and_free_ones_rest() {
    let journalled = |workers: u16, rows: Option<&Arc<Journal>>| {
        let mut gateway = Gateway::new(small(1024..=65535, PortPolicy::default()), workers);
        if let Some(rows) = rows.cloned() {
            gateway.on_engines(move |engine, _| engine.set_journal(rows.clone()));
        }
        gateway
    };
    let rows = Arc::new(Journal::new(1000));
    let mut before = journalled(2, Some(&rows));
    let hosts: Vec<_> = (1..=20).map(|i| at(format!("2001:db8:1::{i:x}"), 40_000)).collect();
    let firsts: Vec<_> = hosts.iter().map(|h| open_udp(&mut before, *h)).collect();
    for port in 0..60 {
        open_udp(&mut before, SocketAddr::new(hosts[0].ip(), port * 2));
    }
    let mut text = format!("{HEADER}\n");
    while let Some(row) = rows.pop() {
        write_row(&mut text, 1, &row);
    }
    let held = replay(text.as_bytes()).unwrap().held;
    assert!(held.len() > 20 && before.blocks() == held.len() as u64, "one row for each block, not each port");
    for workers in [1, 2, 3] {
        let mut after = journalled(workers, None);
        let blocks = held.clone();
        after.on_engines(move |engine, now| assert_eq!(engine.restore(now, &blocks), []));
        assert_eq!(after.blocks(), held.len() as u64);
        for (host, first) in hosts.iter().zip(&firsts) {
            assert_eq!(open_udp(&mut after, *host), *first);
        }
        // What nobody claims comes free, and not before it has rested.
        after.advance(119 * SECOND);
        assert_eq!(after.blocks(), held.len() as u64);
        after.advance(2 * SECOND);
        assert_eq!(after.blocks(), 20);
    }
}

#[test]
fn h20_a_thousand_flows_are_two_rows_a_block_and_not_a_thousand() {
    let mut settings = small(1024..=65535, restless());
    settings.pool4.block_size = 512;
    let rows = Arc::new(Journal::new(1000));
    let mut gateway = Gateway::new(settings, 1);
    let journal = rows.clone();
    gateway.on_engines(move |engine, _| engine.set_journal(journal.clone()));
    for port in 0..1000 {
        open_udp(&mut gateway, client(2000 + port));
    }
    gateway.advance(300 * SECOND);
    assert!(gateway.is_empty());
    let told: Vec<_> = std::iter::from_fn(|| rows.pop()).map(|row| row.is_leased).collect();
    assert_eq!(told, [true, true, false, false]);
}

#[test]
fn h23_permuted_blocks_and_first_ports_do_not_depend_on_workers_or_order() {
    let mut settings = small(1024..=65535, restless());
    settings.subscriber_len = 64;
    settings.pool4.assignment = Assignment::Permuted;
    settings.units = vec![Unit {
        name: "one".into(),
        prefixes: vec!["2001:db8:1::/56".parse().unwrap()],
        ..Unit::default()
    }];
    let hosts: Vec<_> = (0..256).map(|i| at(format!("2001:db8:1:{i:x}::7"), 5000)).collect();
    let mut seen: Vec<Vec<SocketAddr>> = Vec::new();
    for (workers, backwards) in [(1, false), (3, true), (2, false)] {
        let mut gateway = Gateway::new(settings.clone(), workers);
        let mut order: Vec<usize> = (0..hosts.len()).collect();
        if backwards {
            order.reverse();
        }
        let mut t = vec![at("0.0.0.0", 0); hosts.len()];
        for i in order {
            t[i] = open_udp(&mut gateway, hosts[i]);
        }
        seen.push(t);
    }
    assert!(seen.iter().all(|t| *t == seen[0]));
    let blocks: HashSet<_> = seen[0].iter().map(|t| (t.ip(), t.port() / 64)).collect();
    assert_eq!(blocks.len(), hosts.len());
}

#[test]
fn h03_units_have_pools_of_their_own_and_a_reload_moves_new_mappings() {
    let mut settings = settings();
    let mut own = Pool4Range::new("203.0.113.64/32".parse().unwrap(), 1024..=65535);
    (own.pool, own.block_size) = (Some("finance".into()), Some(64));
    settings.pool4.ranges.push(own);
    let unit = |pool: Option<&str>| Unit {
        name: "finance".into(),
        prefixes: vec!["2001:db8:1::/48".parse().unwrap()],
        pool: pool.map(Into::into),
        ..Unit::default()
    };
    let other =
        Unit { name: "other".into(), prefixes: vec!["2001:db8:2::/48".parse().unwrap()], ..Unit::default() };
    settings.units = vec![unit(Some("finance")), other.clone()];
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(1));
        assert_eq!(t.ip(), ip("203.0.113.64"));
        assert_ne!(open_udp(&mut gateway, at("2001:db8:2::1", 1)).ip(), t.ip());
        gateway.change(Change::Units(vec![unit(None), other.clone()]));
        assert_eq!(gateway.translate(&udp(server(53), t, b"a")).destination(), client(1));
        assert_ne!(open_udp(&mut gateway, at("2001:db8:1::99", 1)).ip(), t.ip());
    }
}

#[test]
fn h21_blocks_by_unit_and_an_idle_block_stays_for_its_time() {
    let policy = PortPolicy { block_idle: 50 * SECOND, max_blocks: 1, ..restless() };
    let mut settings = small(1024..=65535, policy);
    let prefixes = |text: &str| vec![text.parse().unwrap()];
    settings.units = vec![
        Unit { name: "one".into(), prefixes: prefixes("2001:db8:1::/48"), ..Unit::default() },
        Unit {
            name: "three".into(),
            prefixes: prefixes("2001:db8:2::/48"),
            max_blocks: Some(3),
            ..Unit::default()
        },
    ];
    for mut gateway in Gateway::each(&settings) {
        for (host, ports) in [("2001:db8:1::1", 64), ("2001:db8:2::1", 192)] {
            for port in 0..ports {
                open_udp(&mut gateway, at(host, 2000 + port));
            }
            let more = udp(at(host, 9000), server6(&gateway, 53), b"q");
            gateway.refuse(&more, "quota_ports").unwrap();
        }
        assert_eq!(gateway.blocks(), 4);
        gateway.advance(300 * SECOND);
        assert_eq!((gateway.bindings(), gateway.blocks(), gateway.subscribers()), (0, 4, 2));
        gateway.advance(49 * SECOND);
        assert_eq!(gateway.blocks(), 4);
        gateway.advance(SECOND);
        assert!(gateway.is_empty());
    }
}

#[test]
fn g25_o17_successive_ports_of_a_host_do_not_follow_each_other() {
    let mut settings = settings();
    settings.pool4.block_size = 4096;
    let mut gateway = Gateway::new(settings, 1);
    let ports: Vec<u16> = (0..1000).map(|p| open_udp(&mut gateway, client(2000 + p * 2)).port()).collect();
    let near = ports.windows(2).filter(|w| w[0].abs_diff(w[1]) <= 8).count();
    assert!(near < 20, "{near} of 999 are near the one before");
    // EIM: another peer sees the same port, and learns nothing about the next.
    let again = gateway.translate(&udp(client(2000), server6(&gateway, 54), b"q")).source().port();
    assert_eq!(again, ports[0]);
    let rows = gateway.bib_rows(&RowFilter::default());
    assert_eq!(rows.len(), 1000);
}
