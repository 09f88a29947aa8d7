//! The fast path as the engine sees it (design §4.9): who rides, how sessions age, what ends a rule, what a reload and a
//! restart do. That nobody sees a difference is checked by every other test here, through [`Gateway::each`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sampan::nat64::adopt::NotAdopted;
use sampan::nat64::mirror::Traffic;
use sampan::nat64::policy::Quota;
use sampan::nat64::ride::{Path, Rides};
use sampan::nat64::scope;
use sampan::nat64::settings::{
    Change, Filtering, Pool4Range, Protocol, RowFilter, Settings, StaticEntry, Unit,
};

use crate::support::packet::{ACK, FIN, PSH, RST, SYN, numbered};
use crate::support::{Gateway, L4, Packet, at, echo_reply, echo_request, settings, tcp, udp};
use crate::{CLIENT, client, open_udp, server};

const SECOND: Duration = Duration::from_secs(1);

fn gateway() -> Gateway {
    Gateway::with_fast_path(settings(), 3, usize::MAX)
}

/// The server as the client sees it.
fn y(port: u16) -> SocketAddr {
    at("2001:db8:64::203.0.113.10", port)
}

fn flows(gateway: &Gateway) -> usize {
    gateway.fast.as_ref().unwrap().flows()
}

fn carried(gateway: &Gateway) -> u64 {
    gateway.fast.as_ref().unwrap().total().iter().map(|t| t.packets).sum()
}

fn rides(gateway: &Gateway) -> Rides {
    gateway.engines().filter_map(|e| e.rides()).fold(Rides::default(), |sum, more| Rides {
        flows: sum.flows + more.flows,
        installed: sum.installed + more.installed,
        refused: sum.refused + more.refused,
        ..sum
    })
}

/// The paths of all sessions, in no order.
fn paths(gateway: &Gateway) -> Vec<Path> {
    gateway.session_rows(&RowFilter::default()).iter().map(|row| row.path).collect()
}

/// A packet that must be carried by the fast path.
#[track_caller]
fn ride(gateway: &mut Gateway, packet: &Packet) -> Packet {
    let (before, came_up) = (carried(gateway), gateway.totals().received);
    let out = gateway.translate(packet);
    assert_eq!((carried(gateway), gateway.totals().received), (before + 1, came_up), "{packet:?}");
    out
}

/// A packet that must come up and be translated there.
#[track_caller]
fn come_up(gateway: &mut Gateway, packet: &Packet) -> Packet {
    let (before, came_up) = (carried(gateway), gateway.totals().received);
    let out = gateway.translate(packet);
    assert_eq!((carried(gateway), gateway.totals().received), (before, came_up + 1), "{packet:?}");
    out
}

/// A UDP flow of the client that rides; the pool's side of it.
fn riding_udp(gateway: &mut Gateway, port: u16) -> SocketAddr {
    let out = udp(client(port), y(53), b"q");
    let t = come_up(gateway, &out).source();
    come_up(gateway, &udp(server(53), t, b"a"));
    come_up(gateway, &out);
    t
}

/// A connection of the client, numbered: both sides have sent 1,000 bytes less than `seq` says.
fn riding_tcp(gateway: &mut Gateway, port: u16) -> SocketAddr {
    let syn = numbered(tcp(client(port), y(80), SYN, b""), 1000, 0);
    let t = come_up(gateway, &syn).source();
    come_up(gateway, &numbered(tcp(server(80), t, SYN | ACK, b""), 5000, 1001));
    ride(gateway, &numbered(tcp(client(port), y(80), ACK, b""), 1001, 5001));
    t
}

#[test]
fn tcp_rides_from_its_syn_ack_on_and_udp_from_the_packet_after_its_first_answer() {
    let mut g = gateway();
    let syn = tcp(client(4000), y(80), SYN, b"");
    let t = come_up(&mut g, &syn).source();
    assert_eq!((flows(&g), paths(&g)), (0, vec![Path::Opening]));
    come_up(&mut g, &tcp(server(80), t, SYN | ACK, b""));
    assert_eq!((flows(&g), paths(&g)), (1, vec![Path::Fast]));
    ride(&mut g, &tcp(client(4000), y(80), ACK | PSH, b"GET"));
    ride(&mut g, &tcp(server(80), t, ACK, b"200"));

    let query = udp(client(4000), y(53), b"q");
    let u = come_up(&mut g, &query).source();
    come_up(&mut g, &query);
    assert_eq!(flows(&g), 1, "nobody has answered");
    come_up(&mut g, &udp(server(53), u, b"a"));
    assert_eq!(flows(&g), 1, "a question and its answer write no rule");
    come_up(&mut g, &query);
    assert_eq!(flows(&g), 2);
    ride(&mut g, &query);
    ride(&mut g, &udp(server(53), u, b"a"));
    // RFC 6146 §3.5.1: another peer is decided by the engine.
    come_up(&mut g, &udp(at("203.0.113.77", 9), u, b"hello"));
    for port in 0..100 {
        come_up(&mut g, &udp(client(4000), y(1000 + port), b"spray"));
    }
    assert_eq!(flows(&g), 2);
}

#[test]
fn pings_hairpins_and_static_mappings_do_not_ride() {
    let mut settings = settings();
    let t = at("198.51.100.1", 80);
    settings.static_bib = vec![StaticEntry {
        protocol: Protocol::Udp,
        src6: CLIENT.parse().unwrap(),
        port6: 7,
        src4: "198.51.100.1".parse().unwrap(),
        port4: 80,
    }];
    let mut g = Gateway::with_fast_path(settings, 3, usize::MAX);
    for _ in 0..3 {
        let out = come_up(&mut g, &echo_request(client(0).ip(), y(0).ip(), 1, b"ping"));
        let L4::Echo { id, .. } = out.l4 else { panic!("{out:?}") };
        come_up(&mut g, &echo_reply(server(0).ip(), out.src, id, b"ping"));
        come_up(&mut g, &udp(server(9), t, b"to the static one"));
        come_up(&mut g, &udp(client(7), y(9), b"from it"));
    }
    let (other, seen) = (at("2001:db8:2::9", 4000), open_udp(&mut g, client(4001)));
    let other_seen = come_up(&mut g, &udp(other, y(53), b"q")).source();
    for _ in 0..3 {
        let y = |g: &Gateway, of: SocketAddr| SocketAddr::new(g.y(of.ip()), of.port());
        g.translate(&udp(client(4001), y(&g, other_seen), b"there"));
        g.translate(&udp(other, y(&g, seen), b"and back"));
    }
    assert_eq!(flows(&g), 0);
    let paths = paths(&g);
    for path in [Path::Icmp, Path::Static, Path::Hairpin, Path::Waiting] {
        assert!(paths.contains(&path), "{path:?} in {paths:?}");
    }
}

#[test]
fn what_is_carried_keeps_udp_alive_in_both_directions() {
    for from_client in [true, false] {
        let mut g = gateway();
        let t = riding_udp(&mut g, 4000);
        let packet = if from_client { udp(client(4000), y(53), b"q") } else { udp(server(53), t, b"a") };
        for _ in 0..5 {
            g.advance(299 * SECOND);
            ride(&mut g, &packet);
        }
        g.advance(299 * SECOND);
        assert_eq!((g.sessions(), flows(&g), paths(&g)), ([0, 1, 0], 1, vec![Path::Fast]));
        let row = g.session_rows(&RowFilter::default()).remove(0);
        assert_eq!(row.expires_s, 1, "what people see is what will be");
        g.advance(SECOND);
        assert_eq!(flows(&g), 0);
        assert!(g.is_empty());
    }
}

#[test]
fn an_idle_connection_gets_off_before_it_is_asked_and_back_on_when_it_answers() {
    let mut g = gateway();
    let t = riding_tcp(&mut g, 4000);
    for _ in 0..3 {
        g.advance(7199 * SECOND);
        ride(&mut g, &numbered(tcp(server(80), t, ACK, b""), 5001, 1001));
    }
    g.advance(7199 * SECOND);
    assert_eq!(flows(&g), 1);
    // RFC 6146 §3.5.2.2: a probe, and 240 s more.
    assert_eq!(g.advance_telling(SECOND).len(), 1);
    assert_eq!((flows(&g), paths(&g)), (0, vec![Path::Opening]));
    g.advance(100 * SECOND);
    let ack = numbered(tcp(client(4000), y(80), ACK, b""), 1001, 5001);
    come_up(&mut g, &ack);
    assert_eq!(flows(&g), 1);
    ride(&mut g, &ack);
    assert_eq!(g.advance_telling(7200 * SECOND).len(), 1);
    g.advance(240 * SECOND);
    assert!(g.is_empty());
}

#[test]
fn half_closed_connections_ride_until_the_other_end() {
    let mut g = gateway();
    let t = riding_tcp(&mut g, 4000);
    ride(&mut g, &numbered(tcp(client(4000), y(80), FIN | ACK, b""), 1001, 5001));
    for i in 0..10 {
        ride(&mut g, &numbered(tcp(server(80), t, ACK, &[7; 1000]), 5001 + i * 1000, 1002));
        ride(&mut g, &numbered(tcp(client(4000), y(80), ACK, b""), 1002, 6001 + i * 1000));
        g.advance(3000 * SECOND);
    }
    assert_eq!(flows(&g), 1);
    ride(&mut g, &numbered(tcp(server(80), t, FIN | ACK, b""), 15_001, 1002));
    assert_eq!(flows(&g), 0);
    come_up(&mut g, &numbered(tcp(client(4000), y(80), ACK, b""), 1002, 15_002));
    g.advance(239 * SECOND);
    assert_eq!(g.sessions(), [1, 0, 0]);
    g.advance(SECOND);
    assert!(g.is_empty(), "the traffic of before does not count behind the last FIN");
}

#[test]
fn o24_resets_are_judged_by_what_the_fast_path_has_seen() {
    let mut g = gateway();
    let t = riding_tcp(&mut g, 4000);
    for i in 0..20 {
        ride(&mut g, &numbered(tcp(server(80), t, ACK, &[7; 1000]), 5001 + i * 1000, 1001));
        ride(&mut g, &numbered(tcp(client(4000), y(80), ACK, b""), 1001, 6001 + i * 1000));
    }
    // Right when the rule was made, and for an attacker who saw it then.
    come_up(&mut g, &numbered(tcp(server(80), t, RST, b""), 5001, 0));
    let state = |g: &Gateway| g.session_rows(&RowFilter::default())[0].state.clone();
    assert_eq!((state(&g), flows(&g)), ("ESTABLISHED".to_owned(), 1));
    ride(&mut g, &numbered(tcp(server(80), t, RST, b""), 25_001, 0));
    assert_eq!((state(&g), flows(&g)), ("TRANS".to_owned(), 0));
    g.advance(240 * SECOND);
    assert!(g.is_empty());
}

#[test]
fn forged_segments_that_are_carried_keep_nothing_alive() {
    let mut g = gateway();
    let t = riding_tcp(&mut g, 4000);
    for _ in 0..7 {
        g.advance(1000 * SECOND);
        ride(&mut g, &numbered(tcp(server(80), t, ACK, b"forged"), 3_000_000_000, 2_000_000_000));
    }
    assert_eq!(g.advance_telling(200 * SECOND).len(), 1, "the probe of an idle connection");
}

#[test]
fn o25_icmp_errors_are_judged_by_what_the_fast_path_has_seen() {
    use crate::support::error;
    let mut g = gateway();
    let t = riding_tcp(&mut g, 4000);
    let segment = |seq| numbered(tcp(client(4000), y(80), ACK, &[1; 100]), seq, 5001);
    let [first, second] = [segment(1001), segment(1101)];
    let first = ride(&mut g, &first);
    ride(&mut g, &numbered(tcp(server(80), t, ACK, b""), 5001, 1101));
    let second = ride(&mut g, &second);
    let about = |packet: &Packet| error(server(0).ip(), t.ip(), 3, 4, 1400, &packet.bytes()[..28]);
    g.refuse(&about(&first), "not_in_flight");
    come_up(&mut g, &about(&second));
}

#[test]
fn who_finds_no_room_stays_with_the_engine_is_counted_and_asks_again() {
    let mut g = Gateway::with_fast_path(settings(), 1, 1);
    riding_udp(&mut g, 4000);
    riding_udp(&mut g, 4001);
    let query = udp(client(4001), y(53), b"q");
    for _ in 0..5 {
        come_up(&mut g, &query);
    }
    assert_eq!(rides(&g), Rides { flows: 1, installed: 1, refused: 1, ..Rides::default() });
    assert!(paths(&g).contains(&Path::Full));
    // The first one ends; the other one has its place with the next packet.
    for _ in 0..2 {
        g.advance(200 * SECOND);
        come_up(&mut g, &query);
    }
    assert_eq!(rides(&g), Rides { flows: 1, installed: 2, refused: 1, ..Rides::default() });
    ride(&mut g, &query);
}

fn unit(name: &str, prefix: &str) -> Unit {
    Unit { name: name.into(), prefixes: vec![prefix.parse().unwrap()], ..Unit::default() }
}

/// What the daemon does with new units: first new generations, then the change.
fn change_units(g: &mut Gateway, was: &[Unit], is: &[Unit]) {
    let settings = g.settings().clone();
    let scopes = g.fast.as_ref().unwrap().scopes();
    for number in scope::revoked(was, is, &settings.pool4.ranges, &settings.pool6) {
        scopes.renew(number);
    }
    g.change(Change::Units(is.to_vec()));
}

#[test]
fn revoking_a_unit_ends_its_rules_and_nobody_elses_and_loosening_ends_none() {
    let units = [unit("a", "2001:db8:1::/48"), unit("b", "2001:db8:2::/48")];
    let mut g = Gateway::with_fast_path(Settings { units: units.to_vec(), ..settings() }, 3, usize::MAX);
    let a = udp(client(4000), y(53), b"q");
    let b = udp(at("2001:db8:2::9", 4000), y(53), b"q");
    for packet in [&a, &b] {
        let t = come_up(&mut g, packet).source();
        come_up(&mut g, &udp(server(53), t, b"a"));
        come_up(&mut g, packet);
        ride(&mut g, packet);
    }
    let more = [units[0].clone(), units[1].clone(), unit("c", "2001:db8:3::/48")];
    change_units(&mut g, &units, &more);
    ride(&mut g, &a);
    ride(&mut g, &b);
    change_units(&mut g, &more, &more[..1]);
    assert_eq!(flows(&g), 1);
    ride(&mut g, &a);
    g.refuse(&b, "source_not_served");
}

#[test]
fn who_survives_a_change_gets_a_new_rule_with_its_next_packet() {
    let (was, is) = ([unit("a", "2001:db8:1::/48")], [unit("a", "2001:db8:1::/64")]);
    let mut g = Gateway::with_fast_path(Settings { units: was.to_vec(), ..settings() }, 3, usize::MAX);
    riding_udp(&mut g, 4000);
    let t = riding_tcp(&mut g, 4000);
    let query = udp(client(4000), y(53), b"q");
    ride(&mut g, &query);
    change_units(&mut g, &was, &is);
    for packet in [query, numbered(tcp(server(80), t, ACK, b""), 5001, 1001)] {
        come_up(&mut g, &packet);
        ride(&mut g, &packet);
    }
    assert_eq!(rides(&g), Rides { flows: 2, installed: 4, ..Rides::default() });
}

#[test]
fn revoking_a_destination_or_an_address_ends_rules_and_draining_does_not() {
    let mut g = gateway();
    let t = riding_udp(&mut g, 4000);
    let query = udp(client(4000), y(53), b"q");
    // Another range instead: the old one drains.
    let range = |prefix: &str| vec![Pool4Range::new(prefix.parse().unwrap(), 1024..=65535)];
    g.change(Change::Pool4(range("192.0.2.0/30")));
    ride(&mut g, &query);
    ride(&mut g, &udp(server(53), t, b"a"));
    // The server's address becomes one of ours: what would be turned round may not be carried out.
    g.change(Change::Pool4(range("203.0.113.8/30")));
    assert_eq!(flows(&g), 0);

    let mut g = gateway();
    riding_udp(&mut g, 4000);
    g.change(Change::Allow(Vec::new()));
    assert_eq!(flows(&g), 0);
    assert!(g.is_empty());
}

#[test]
fn g10_where_packets_from_ipv4_keep_nothing_alive_nobody_rides() {
    let mut g = gateway();
    let t = riding_udp(&mut g, 4000);
    ride(&mut g, &udp(server(53), t, b"a"));
    g.change(Change::Filtering(Filtering { inbound_refresh: false, ..Filtering::default() }));
    assert_eq!((flows(&g), paths(&g)), (0, vec![Path::Refresh]));
    come_up(&mut g, &udp(server(53), t, b"a"));
    g.change(Change::Filtering(Filtering::default()));
    come_up(&mut g, &udp(server(53), t, b"a"));
    ride(&mut g, &udp(server(53), t, b"a"));
}

#[test]
fn super_packets_ride_whole_and_count_their_segments() {
    use sampan::wire::packet::{Gso, GsoKind, Offload};
    let mut g = gateway();
    riding_udp(&mut g, 4000);
    let packet = udp(client(4000), y(53), &[1; 3000]);
    let offload = Offload {
        gso: Some(Gso { kind: GsoKind::Udp, size: 1000, ecn: false }),
        header_len: 48,
        ..Offload::default()
    };
    let out = g.send_raw(packet.bytes(), offload);
    assert_eq!((out.len(), out[0].offload.gso), (1, offload.gso));
    let seen = g.fast.as_ref().unwrap().records()[0].2;
    assert_eq!(seen.from6, Traffic { packets: 3, bytes: 3 * 1048 });
}

/// A gateway that finds the rules of another one that is no more, as the daemon makes it.
fn successor(mut was: Gateway, settings: Settings, workers: u16) -> (Gateway, Vec<NotAdopted>) {
    let fast = was.fast.take().unwrap();
    let now = was.now;
    drop(was);
    let mut g = Gateway::new(settings, workers);
    g.now = now + 5 * SECOND;
    let (mirror, refused) = (fast.clone(), Arc::new(Mutex::new(Vec::new())));
    let told = refused.clone();
    g.on_engines(move |engine, now| {
        engine.set_mirror(mirror.mirror(), mirror.scopes());
        for (handle, rule, seen) in mirror.records() {
            match engine.adopt(now, handle, &rule, &seen) {
                Ok(()) | Err(NotAdopted::Elsewhere) => {}
                Err(why) => told.lock().unwrap().push(why),
            }
        }
    });
    let refused = refused.lock().unwrap().clone();
    g.fast = Some(fast);
    (g, refused)
}

#[test]
fn a_successor_takes_over_what_was_carried_on() {
    for (before, after) in [(1, 3), (3, 1), (3, 3)] {
        let mut g = Gateway::with_fast_path(settings(), before, usize::MAX);
        let mut mapped = Vec::new();
        for port in 4000..4040 {
            mapped.push((port, riding_udp(&mut g, port), riding_tcp(&mut g, port)));
        }
        ride(&mut g, &numbered(tcp(client(4000), y(80), FIN | ACK, b""), 1001, 5001));
        let (mut g, refused) = successor(g, settings(), after);
        assert_eq!((refused, g.sessions(), flows(&g), g.bindings()), (vec![], [40, 40, 0], 80, 80));
        for (port, u, t) in &mapped {
            assert_eq!(ride(&mut g, &udp(client(*port), y(53), b"q")).source(), *u);
            assert_eq!(ride(&mut g, &udp(server(53), *u, b"a")).destination(), client(*port));
            ride(&mut g, &numbered(tcp(server(80), *t, ACK, b"more"), 5001, 1001));
            // EIM: another peer of the same client port has the same address and port, and new ports are others.
            let again = come_up(&mut g, &udp(client(*port), y(5353), b"q"));
            assert_eq!(again.source(), *u);
        }
        let new = come_up(&mut g, &udp(client(9), y(53), b"q")).source();
        assert!(mapped.iter().all(|(_, u, _)| *u != new));
        let rows = g.session_rows(&RowFilter { port: Some(80), ..RowFilter::default() });
        assert_eq!(rows.iter().filter(|row| row.state == "V6_FIN_RCV").count(), 1);
        // They age from what they last carried, not from the restart.
        g.advance(7180 * SECOND);
        assert_eq!(g.sessions()[0], 40);
        assert_eq!(g.advance_telling(20 * SECOND).len(), 39, "probes; what is half closed is gone");
        g.advance(240 * SECOND);
        assert!(g.is_empty());
        assert_eq!(flows(&g), 0);
    }
}

#[test]
fn a_successor_counts_what_it_takes_over_but_not_as_new() {
    let mut g = gateway();
    for port in 4000..4040 {
        riding_udp(&mut g, port);
    }
    // Forty in one instant, where ten a second may begin and five may wait for an answer.
    let mut strict = settings();
    strict.quotas.subscriber = Quota { ports: 50, sessions: 50, unanswered: 5, new_per_second: 10 };
    strict.quotas.network = strict.quotas.subscriber;
    for workers in [1, 3] {
        let (successor, refused) = successor(g, strict.clone(), workers);
        g = successor;
        assert_eq!((refused, g.sessions()[1], flows(&g)), (vec![], 40, 40));
    }
    assert_eq!(g.engines().map(|e| e.unanswered()).sum::<u32>(), 0);
    let fates: Vec<bool> =
        (1..=20).map(|port| g.send(&udp(client(port), y(53), b"q"))[0].dst == client(1).ip()).collect();
    assert_eq!(fates.iter().filter(|refused| !**refused).count(), 5, "those that wait");
    g.advance(300 * SECOND);
    assert!(g.is_empty() && g.credits() == 0);
    // One that may have fewer: the rest is cut, and the books are right.
    let mut g = gateway();
    for port in 4000..4040 {
        riding_udp(&mut g, port);
    }
    strict.quotas.subscriber.sessions = 30;
    let (mut g, refused) = successor(g, strict, 1);
    assert_eq!((refused.len(), g.sessions()[1], flows(&g), g.bindings()), (10, 30, 30, 30));
    g.advance(300 * SECOND);
    assert!(g.is_empty() && g.credits() == 0);
}

#[test]
fn a_successor_ends_what_its_settings_forbid_and_what_is_over() {
    let mut g = gateway();
    riding_udp(&mut g, 4000);
    riding_tcp(&mut g, 4000);
    let mut served = settings();
    served.units = vec![unit("b", "2001:db8:2::/48")];
    let (g, refused) = successor(g, served, 3);
    assert_eq!((refused, flows(&g)), (vec![NotAdopted::Forbidden; 2], 0));
    assert!(g.is_empty());

    let mut g = gateway();
    riding_udp(&mut g, 4000);
    riding_tcp(&mut g, 4000);
    let mut elsewhere = settings();
    elsewhere.pool4.ranges[0].prefix = "192.0.2.0/30".parse().unwrap();
    let (g, refused) = successor(g, elsewhere, 3);
    assert_eq!((refused, flows(&g)), (vec![NotAdopted::Forbidden; 2], 0));

    let mut g = gateway();
    let t = riding_udp(&mut g, 4000);
    ride(&mut g, &udp(server(53), t, b"a"));
    // Nobody was there when it ended.
    g.now = g.now + 300 * SECOND;
    let (g, refused) = successor(g, settings(), 3);
    assert_eq!((refused, flows(&g)), (vec![NotAdopted::Over], 0));
    assert!(g.is_empty());
}

#[test]
fn the_side_table_is_there_only_with_a_fast_path_and_is_told() {
    let bytes = |g: &Gateway| g.engines().map(|e| e.table_bytes()).sum::<usize>();
    let (without, with) = (Gateway::new(settings(), 1), Gateway::with_fast_path(settings(), 1, 1));
    assert_eq!(bytes(&with) - bytes(&without), 4096 * 8);
}
