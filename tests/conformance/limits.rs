//! Quotas of subscribers, networks and units, what is kept free for whom, and what gives way when tables are full.

use std::net::SocketAddr;
use std::time::Duration;

use sampan::nat64::policy::{Eviction, PortPolicy, Quota, Quotas};
use sampan::nat64::settings::{Change, Protocol, Settings, StaticEntry, Unit};

use crate::support::packet::{ACK, SYN};
use crate::support::{Gateway, Packet, at, settings, tcp, udp};
use crate::{client, open_udp, server, server6};

const SECOND: Duration = Duration::from_secs(1);

fn of_subscriber(quota: Quota) -> Settings {
    Settings { quotas: Quotas { subscriber: quota, ..Quotas::default() }, ..settings() }
}

fn unit(name: &str, prefix: &str, quota: Quota, reserve: u32) -> Unit {
    let (name, prefixes) = (name.into(), vec![prefix.parse().unwrap()]);
    Unit { name, prefixes, quota, reserve, ..Unit::default() }
}

/// Whether the packet passed; otherwise the counter that it went to.
fn fate(gateway: &mut Gateway, packet: &Packet) -> Option<&'static str> {
    let before = gateway.totals();
    gateway.send(packet);
    gateway.drops_since(&before).first().map(|(name, _)| *name)
}

/// The same for a query from there.
fn opens(gateway: &mut Gateway, from: SocketAddr) -> Option<&'static str> {
    let query = udp(from, server6(gateway, 53), b"q");
    fate(gateway, &query)
}

/// Peer number `n` as clients see it.
fn peer6(gateway: &Gateway, n: u16) -> SocketAddr {
    SocketAddr::new(gateway.y(at(format!("203.0.113.{}", n % 250 + 1), 0).ip()), 1000 + n / 250)
}

#[test]
fn h04_o07_the_hundred_and_first_mapping_is_refused_and_other_subscribers_are_fine() {
    for mut gateway in Gateway::each(&of_subscriber(Quota { ports: 100, ..Quota::default() })) {
        for port in 0..100 {
            open_udp(&mut gateway, client(2000 + port));
        }
        let more = udp(client(5000), server6(&gateway, 53), b"q");
        let told = gateway.refuse(&more, "quota_ports").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1), (1, 3));
        open_udp(&mut gateway, at("2001:db8:1::77", 1));
        // What exists goes on, with new peers too.
        let other = peer6(&gateway, 9);
        gateway.translate(&udp(client(2000), other, b"q"));
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
        gateway.translate(&more);
    }
}

#[test]
fn h05_new_sessions_per_second_are_capped() {
    for mut gateway in Gateway::each(&of_subscriber(Quota { new_per_second: 50, ..Quota::default() })) {
        let mut passed = 0;
        for second in 0..3 {
            for n in 0..1000u16 {
                gateway.now = gateway.now + Duration::from_millis(1);
                let to = peer6(&gateway, n + second * 1000);
                passed += u32::from(fate(&mut gateway, &udp(client(1), to, b"q")).is_none());
            }
        }
        assert!((180..=200).contains(&passed), "50 at once and 50 each second: {passed}");
        open_udp(&mut gateway, at("2001:db8:1::77", 1));
    }
}

#[test]
fn h05_h06_units_and_networks_have_a_rate_and_a_budget_of_unanswered_sessions() {
    let rate = Quota { new_per_second: 60, ..Quota::default() };
    let budget = Quota { unanswered: 60, ..Quota::default() };
    let of_unit = |quota| Settings { units: vec![unit("a", "2001:db8:a::/48", quota, 0)], ..settings() };
    let of_network = |network| Settings { quotas: Quotas { network, ..Quotas::default() }, ..settings() };
    for (settings, reason) in [
        (of_unit(rate), "quota_rate"),
        (of_network(rate), "quota_rate"),
        (of_unit(budget), "quota_unanswered"),
        (of_network(budget), "quota_unanswered"),
    ] {
        for mut gateway in Gateway::each(&settings) {
            let fates: Vec<_> =
                (0..300).map(|i| opens(&mut gateway, at(format!("2001:db8:a::{i:x}"), 7))).collect();
            let passed = fates.iter().filter(|fate| fate.is_none()).count();
            assert!((45..=60).contains(&passed), "{reason}: {passed}");
            assert!(fates.iter().flatten().all(|fate| *fate == reason), "{reason}");
            // Whoever was refused was given no block either, or one /64 could empty the pool.
            assert_eq!(gateway.engines().map(|e| e.blocks()).sum::<u32>() as usize, passed, "{reason}");
            gateway.advance(300 * SECOND);
            assert!(gateway.is_empty() && gateway.credits() == 0);
        }
    }
}

#[test]
fn h06_one_mapping_with_a_million_destinations_is_capped_and_strangers_take_half() {
    for mut gateway in Gateway::each(&of_subscriber(Quota { sessions: 300, ..Quota::default() })) {
        let t = open_udp(&mut gateway, client(1));
        // Strangers first: what they may have leaves room for what the client starts.
        for n in 0..1000u16 {
            let from = at(format!("203.0.113.{}", n % 250 + 1), 2000 + n / 250);
            let wanted = if n < 149 { None } else { Some("quota_sessions") };
            assert_eq!(fate(&mut gateway, &udp(from, t, b"hello")), wanted, "{n}");
        }
        let passed = (0..1000u16).filter(|n| {
            let to = peer6(&gateway, *n);
            fate(&mut gateway, &udp(client(1), to, b"q")).is_none()
        });
        assert_eq!(passed.count(), 150);
        assert_eq!(gateway.sessions(), [0, 300, 0]);
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
    }
}

#[test]
fn h06_sessions_that_wait_for_an_answer_have_their_own_budget() {
    for mut gateway in Gateway::each(&of_subscriber(Quota { unanswered: 10, ..Quota::default() })) {
        let mut t = Vec::new();
        for port in 0..10 {
            t.push(gateway.translate(&tcp(client(2000 + port), server6(&gateway, 80), SYN, b"")).source());
        }
        let more = tcp(client(5000), server6(&gateway, 80), SYN, b"");
        gateway.refuse(&more, "quota_unanswered").unwrap();
        gateway.translate(&tcp(server(80), t[0], SYN | ACK, b""));
        gateway.translate(&more);
        // Those that end without an answer are not counted for ever.
        gateway.advance(300 * SECOND);
        for port in 0..10 {
            gateway.translate(&tcp(client(6000 + port), server6(&gateway, 80), SYN, b""));
        }
        assert_eq!(gateway.engines().map(|e| e.unanswered()).sum::<u32>(), 10);
    }
}

#[test]
fn h07_o08_a_client_that_changes_its_address_in_its_64_does_not_escape() {
    let by_mask =
        |len| Settings { subscriber_len: len, ..of_subscriber(Quota { ports: 100, ..Quota::default() }) };
    let network = Quota { ports: 100, ..Quota::default() };
    let by_network = Settings { quotas: Quotas { network, ..Quotas::default() }, ..settings() };
    for (settings, slack) in [(by_mask(64), 0), (by_mask(56), 0), (by_network, 25)] {
        for mut gateway in Gateway::each(&settings) {
            let passed = (0..400).filter(|i| {
                let from = at(format!("2001:db8:1::{i:x}"), 7);
                opens(&mut gateway, from).is_none()
            });
            let passed = passed.count();
            assert!((100 - slack..=100).contains(&passed), "{passed}");
            open_udp(&mut gateway, at("2001:db8:2::1", 1));
            gateway.advance(300 * SECOND);
            assert!(gateway.is_empty());
            assert_eq!(gateway.credits(), 0);
        }
    }
}

#[test]
fn h04_h06_units_share_their_quota_over_all_workers_and_a_reload_changes_it() {
    let mut settings = settings();
    let quota = |sessions| Quota { sessions, ..Quota::default() };
    let units = |sessions| {
        vec![unit("a", "2001:db8:a::/48", quota(sessions), 0), unit("b", "2001:db8:b::/48", quota(0), 0)]
    };
    settings.units = units(100);
    for mut gateway in Gateway::each(&settings) {
        let open = |gateway: &mut Gateway, unit: &str, from: u32, to: u32| {
            let passed = (from..to).filter(|i| {
                let from = at(format!("2001:db8:{unit}::{i:x}"), 7);
                opens(gateway, from).is_none()
            });
            passed.count()
        };
        let passed = open(&mut gateway, "a", 0, 300);
        assert!((75..=100).contains(&passed), "{passed}");
        assert_eq!(open(&mut gateway, "b", 0, 300), 300);
        gateway.change(Change::Units(units(200)));
        let more = open(&mut gateway, "a", 300, 600);
        assert!((50..=200 - passed).contains(&more), "{more}");
        gateway.change(Change::Units(units(10)));
        assert_eq!(open(&mut gateway, "a", 600, 700), 0);
        // What is there stays.
        assert_eq!(gateway.sessions()[1] as usize, passed + more + 300);
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty() && gateway.credits() == 0);
    }
}

#[test]
fn o07_places_kept_free_for_a_unit_are_there_however_full_the_table_is() {
    let mut settings = settings();
    settings.limits.sessions = 300;
    settings.units = vec![
        unit("noisy", "2001:db8:a::/48", Quota::default(), 0),
        unit("quiet", "2001:db8:b::/48", Quota::default(), 90),
    ];
    for workers in [1, 3] {
        let mut gateway = Gateway::new(settings.clone(), workers);
        for host in 0..600 {
            let from = at(format!("2001:db8:a::{host:x}"), 7);
            opens(&mut gateway, from);
        }
        assert_eq!(gateway.sessions()[1], 210);
        let mut t = Vec::new();
        for (i, worker) in (0..90).map(|i| (i, i % usize::from(workers))) {
            let of_quiet = |n: usize| at(format!("2001:db8:b::{n:x}"), 7);
            let from = (0..).map(of_quiet).filter(|a| usize::from(gateway.owner(a.ip())) == worker);
            let from = from.clone().nth(i / usize::from(workers)).unwrap();
            t.push((from, open_udp(&mut gateway, from)));
        }
        assert_eq!(gateway.sessions()[1], 300);
        let more = udp(at("2001:db8:a::7777", 7), server6(&gateway, 53), b"q");
        assert_eq!(fate(&mut gateway, &more), Some("table_full"));
        for (from, t) in t {
            assert_eq!(gateway.translate(&udp(server(53), t, b"a")).destination(), from);
        }
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
    }
}

/// A table of 12 with sessions of one mapping: those to peers below `answered` were answered.
fn full(eviction: Eviction, answered: u16) -> Gateway {
    let mut settings = settings();
    settings.limits.sessions = 12;
    settings.quotas.eviction = eviction;
    let mut gateway = Gateway::new(settings, 1);
    for n in 0..12 {
        let to = peer6(&gateway, n);
        let t = gateway.translate(&udp(client(1), to, b"q")).source();
        if n < answered {
            gateway.translate(&udp(at(format!("203.0.113.{}", n + 1), 1000), t, b"a"));
        }
    }
    gateway
}

#[test]
fn h15_f29_only_unanswered_sessions_give_way_and_their_mapping_stays() {
    let mut gateway = full(Eviction::Sessions, 4);
    let t = gateway.bib_rows(&Default::default())[0].src4_port;
    for n in 0..8 {
        open_udp(&mut gateway, at("2001:db8:1::77", 100 + n));
    }
    assert_eq!((gateway.sessions()[1], gateway.bindings()), (12, 9));
    assert_eq!(gateway.engines().map(|e| e.evicted()).sum::<u64>(), 8);
    assert_eq!(gateway.bib_rows(&Default::default()).iter().filter(|r| r.src4_port == t).count(), 1);
    // The four that were answered are left, and the eight new ones are the last of their mappings.
    let more = udp(at("2001:db8:1::78", 1), server6(&gateway, 53), b"q");
    assert!(gateway.refuse(&more, "table_full").is_some());
    for n in 0..4 {
        let from = at(format!("203.0.113.{}", n + 1), 1000);
        let rows = gateway.session_rows(&Default::default());
        assert!(rows.iter().any(|r| SocketAddr::new(r.dst4.into(), r.dst4_port) == from), "{from}");
    }
    gateway.advance(300 * SECOND);
    assert!(gateway.is_empty());
}

#[test]
fn h15_eviction_can_be_off_or_take_mappings_that_nobody_answered() {
    let mut off = full(Eviction::Off, 0);
    let newcomer = at("2001:db8:1::77", 1);
    let query = udp(newcomer, server6(&off, 53), b"q");
    assert!(off.refuse(&query, "table_full").is_some());
    let mut answered = full(Eviction::Mappings, 12);
    assert!(answered.refuse(&query, "table_full").is_some(), "never what was answered");
    // Mappings with one unanswered session each.
    let mut settings = settings();
    settings.limits.sessions = 12;
    settings.quotas.eviction = Eviction::Mappings;
    let mut gateway = Gateway::new(settings, 1);
    for port in 0..40 {
        open_udp(&mut gateway, client(2000 + port));
        assert!(gateway.bindings() <= 12);
    }
    let oldest = gateway.bib_rows(&Default::default()).iter().map(|r| r.src6_port).min();
    assert_eq!(oldest, Some(2028), "the oldest go first");
    gateway.advance(300 * SECOND);
    assert!(gateway.is_empty());
}

#[test]
fn o07_o08_a_unit_that_floods_keeps_working_for_those_who_are_answered_and_gives_no_more_blocks_away() {
    let quota = Quota { sessions: 120, unanswered: 60, ports: 120, new_per_second: 0 };
    let mut flooded = settings();
    flooded.units = vec![unit("a", "2001:db8:a::/48", quota, 0), unit("b", "2001:db8:b::/48", quota, 0)];
    flooded.quotas.eviction = Eviction::Mappings;
    // What rests must not add up either.
    flooded.ports = PortPolicy::default();
    for mut gateway in Gateway::each(&flooded) {
        let host = |unit: &str, i: u32| at(format!("2001:db8:{unit}::{i:x}"), 7);
        let waits_in_b = open_udp(&mut gateway, host("b", 1));
        let answered: Vec<_> = (1..10)
            .map(|i| {
                let t = open_udp(&mut gateway, host("a", i));
                gateway.translate(&udp(server(53), t, b"a"));
                (host("a", i), t)
            })
            .collect();
        for i in 0..3_000 {
            assert_eq!(opens(&mut gateway, host("a", 0x1000 + i)), None, "a new host of the unit finds room");
            assert!(gateway.bindings() <= 70 && gateway.blocks() <= 70);
        }
        for (from, t) in answered {
            assert_eq!(gateway.translate(&udp(server(53), t, b"a")).destination(), from);
        }
        assert_eq!(
            gateway.translate(&udp(server(53), waits_in_b, b"a")).destination(),
            host("b", 1),
            "of another unit"
        );
    }
    // Without leave to delete mappings they stay, and the unit waits for its sessions to end.
    flooded.quotas.eviction = Eviction::Sessions;
    for mut gateway in Gateway::each(&flooded) {
        let fates: Vec<_> =
            (0..100).map(|i| opens(&mut gateway, at(format!("2001:db8:a::{i:x}"), 7))).collect();
        assert_eq!(fates.last(), Some(&Some("quota_unanswered")));
        let one = fates.iter().rposition(Option::is_none).unwrap();
        assert!((45..60).contains(&one));
    }
    // Whoever comes faster than allowed pushes nobody out.
    flooded.quotas.eviction = Eviction::Mappings;
    flooded.units[0].quota = Quota { unanswered: 20, new_per_second: 40, ..Quota::default() };
    for mut gateway in Gateway::each(&flooded) {
        let fates: Vec<_> =
            (0..300).map(|i| opens(&mut gateway, at(format!("2001:db8:a::{i:x}"), 7))).collect();
        assert!((30..=40).contains(&fates.iter().filter(|fate| fate.is_none()).count()), "{fates:?}");
        let evicted: u64 = gateway.engines().map(|e| e.evicted()).sum();
        assert!((10..=25).contains(&evicted), "{evicted}");
    }
}

#[test]
fn h15_what_cannot_be_translated_takes_nobodys_place() {
    let mut gateway = full(Eviction::Sessions, 0);
    let (newcomer, t) = (at("2001:db8:1::77", 1), gateway.bib_rows(&Default::default())[0].src4_port);
    let too_big = udp(newcomer, server6(&gateway, 53), &[7; 1500]);
    assert!(gateway.refuse(&too_big, "packet_too_big").is_some());
    let from_outside = udp(at("203.0.113.99", 1), at("198.51.100.1", t), &[7; 1500]);
    for addr in 0..4 {
        let mut packet = from_outside.clone().df(true);
        packet.dst = at(format!("198.51.100.{addr}"), 0).ip();
        assert!(matches!(fate(&mut gateway, &packet), Some("packet_too_big" | "no_bib")));
    }
    assert_eq!((gateway.drops("packet_too_big"), gateway.sessions(), gateway.bindings()), (2, [0, 12, 0], 1));
    assert_eq!(gateway.engines().map(|e| e.evicted()).sum::<u64>(), 0);
}

#[test]
fn h15_a_mapping_that_could_not_be_made_leaves_no_port_at_rest() {
    let mut settings = settings();
    settings.limits.sessions = 12;
    settings.quotas.eviction = Eviction::Off;
    settings.ports.hold_down = 120 * SECOND;
    let mut gateway = Gateway::new(settings, 1);
    for n in 0..12 {
        open_udp(&mut gateway, client(n));
    }
    let query = udp(at("2001:db8:1::77", 1), server6(&gateway, 53), b"q");
    for _ in 0..100 {
        assert!(gateway.refuse(&query, "table_full").is_some());
    }
    assert_eq!((gateway.engines().map(|e| e.resting_ports()).sum::<usize>(), gateway.blocks()), (0, 1));
}

#[test]
fn h15_f05_an_unanswered_session_of_a_static_mapping_gives_way_and_the_mapping_stays() {
    let mut settings = settings();
    settings.limits.sessions = 1;
    settings.static_bib = vec![StaticEntry {
        protocol: Protocol::Udp,
        src6: "2001:db8:1::80".parse().unwrap(),
        port6: 53,
        src4: "198.51.100.1".parse().unwrap(),
        port4: 53,
    }];
    let mut gateway = Gateway::new(settings, 1);
    gateway.translate(&udp(server(7), at("198.51.100.1", 53), b"scan"));
    open_udp(&mut gateway, client(1));
    assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 1, 0], 2));
}

#[test]
fn o09_a_scan_from_outside_makes_no_state() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(1));
        for port in (1..=65_535u16).filter(|p| *p != t.port()).step_by(7) {
            let scan = tcp(at("203.0.113.99", 55_555), SocketAddr::new(t.ip(), port), SYN, b"");
            gateway.send(&scan);
            gateway.send(&udp(at("203.0.113.99", 55_555), SocketAddr::new(t.ip(), port), b"?"));
        }
        assert_eq!((gateway.sessions(), gateway.bindings(), gateway.blocks()), ([0, 1, 0], 1, 1));
    }
}

#[test]
fn h04_quotas_come_and_go_with_a_reload() {
    for mut gateway in Gateway::each(&settings()) {
        for port in 0..20 {
            open_udp(&mut gateway, client(2000 + port));
        }
        let quotas = |ports| Quotas { subscriber: Quota { ports, ..Quota::default() }, ..Quotas::default() };
        gateway.change(Change::Quotas(quotas(10)));
        let more = udp(client(5000), server6(&gateway, 53), b"q");
        gateway.refuse(&more, "quota_ports").unwrap();
        assert_eq!(gateway.bindings(), 20);
        gateway.change(Change::Quotas(quotas(0)));
        gateway.translate(&more);
    }
}

#[test]
fn o04_packets_from_outside_that_claim_a_pool_address_are_dropped_and_hairpins_are_not() {
    for mut gateway in Gateway::each(&settings()) {
        let (a, b) = (client(1), at("2001:db8:1::77", 1));
        let (t_a, t_b) = (open_udp(&mut gateway, a), open_udp(&mut gateway, b));
        for forged in [t_b, SocketAddr::new(t_b.ip(), 9)] {
            assert_eq!(gateway.refuse(&udp(forged, t_a, b"?"), "illegal_source"), None);
        }
        assert_eq!(gateway.sessions(), [0, 2, 0]);
        let seen_b = SocketAddr::new(gateway.y(t_b.ip()), t_b.port());
        let turned = gateway.translate(&udp(a, seen_b, b"hello"));
        assert_eq!((turned.source().port(), turned.destination()), (t_a.port(), b));
    }
}
