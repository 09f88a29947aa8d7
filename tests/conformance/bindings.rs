//! RFC 6146 §3.1–§3.5 for UDP and ICMP queries, port allocation and filtering.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use sampan::nat64::settings::{Filter, Filtering, Protocol, RowFilter};

use crate::support::packet::{ACK, RST, SYN};
use crate::support::{Gateway, L4, Packet, at, echo_reply, echo_request, ip, other, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, is_pool, open_udp, seen6, server, server6};

const SECOND: Duration = Duration::from_secs(1);

fn address_dependent() -> Filtering {
    Filtering {
        tcp: Filter::AddressDependent,
        udp: Filter::AddressDependent,
        icmp: Filter::AddressDependent,
        ..Filtering::default()
    }
}

/// The client sends an echo request; gives pool address and identifier.
fn open_echo(gateway: &mut Gateway, from: &str, id: u16) -> Packet {
    let to = gateway.y(ip(SERVER));
    gateway.translate(&echo_request(ip(from), to, id, b"?"))
}

#[test]
fn f02_f14_each_protocol_has_its_own_tables() {
    for mut gateway in Gateway::each(&settings()) {
        open_udp(&mut gateway, client(4000));
        gateway.translate(&tcp(client(4000), server6(&gateway, 53), SYN, b""));
        open_echo(&mut gateway, CLIENT, 4000);
        assert_eq!((gateway.sessions(), gateway.bindings()), ([1, 1, 1], 3));
        // G-14: a mapping of one protocol admits no other.
        let rows = gateway.bib_rows(&RowFilter { protocol: Some(Protocol::Udp), ..RowFilter::default() });
        let t = at(rows[0].src4, rows[0].src4_port);
        assert_eq!(gateway.refuse(&tcp(server(53), t, ACK, b""), "no_bib"), None);
        gateway.hold(&tcp(server(53), t, SYN, b""));
    }
}

#[test]
fn f04_g01_one_mapping_for_all_destinations() {
    for mut gateway in Gateway::each(&settings()) {
        let mut seen = HashSet::new();
        for i in 0..100 {
            let to = seen6(&gateway, at(format!("203.0.113.{i}"), 1000 + i));
            seen.insert(gateway.translate(&udp(client(4000), to, b"q")).source());
            let to = seen6(&gateway, at(format!("203.0.113.{i}"), 80));
            seen.insert(gateway.translate(&udp(client(4000), to, b"q")).source());
        }
        assert_eq!((seen.len(), gateway.sessions(), gateway.bindings()), (1, [0, 200, 0], 1));
    }
}

#[test]
fn f04_d66_the_same_for_tcp_and_identifiers() {
    for mut gateway in Gateway::each(&settings()) {
        let mut seen = HashSet::new();
        let mut ids = HashSet::new();
        for i in 0..20 {
            let host = at(format!("203.0.113.{i}"), 80);
            let to = seen6(&gateway, host);
            seen.insert(gateway.translate(&tcp(client(4000), to, SYN, b"")).source());
            ids.insert(gateway.translate(&echo_request(ip(CLIENT), to.ip(), 7, b"?")).source());
        }
        assert_eq!((seen.len(), ids.len(), gateway.bindings()), (1, 1, 2));
        assert_eq!(gateway.sessions(), [20, 0, 20]);
    }
}

#[test]
fn f06_f16_a_udp_session_lives_300_seconds_and_takes_its_mapping_with_it() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        assert!(is_pool(t.ip()));
        gateway.advance(299 * SECOND);
        assert_eq!((gateway.sessions(), gateway.bindings(), gateway.blocks()), ([0, 1, 0], 1, 1));
        // An answer at the last moment refreshes.
        assert_eq!(gateway.translate(&udp(server(53), t, b"a")).destination(), client(4000));
        gateway.advance(299 * SECOND);
        // G-09: so does the client.
        assert_eq!(open_udp(&mut gateway, client(4000)), t);
        gateway.advance(299 * SECOND + Duration::from_millis(700));
        assert_eq!(gateway.sessions(), [0, 1, 0]);
        gateway.advance(Duration::from_millis(300));
        assert!(gateway.is_empty());
        assert_eq!(gateway.refuse(&udp(server(53), t, b"a"), "no_bib"), None);
    }
}

#[test]
fn f16_a_refresh_at_once_counts_in_full() {
    for mut gateway in Gateway::each(&settings()) {
        open_udp(&mut gateway, client(4000));
        gateway.advance(Duration::from_millis(750));
        open_udp(&mut gateway, client(4000));
        gateway.advance(299 * SECOND + Duration::from_millis(750));
        assert_eq!(gateway.sessions(), [0, 1, 0]);
        gateway.advance(Duration::from_millis(250));
        assert!(gateway.is_empty());
    }
}

#[test]
fn f16_a_packet_that_comes_before_the_sweep_finds_the_session_ended() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        // No turn between the end of the lifetime and the packet.
        gateway.now = gateway.now + 300 * SECOND;
        assert_eq!(gateway.refuse(&udp(server(53), t, b"a"), "no_bib"), None);
        assert!(gateway.is_empty());
    }
}

#[test]
fn f11_o_sources_inside_pool6_are_dropped_silently() {
    for mut gateway in Gateway::each(&settings()) {
        let from = at("2001:db8:64::192.0.2.1", 4000);
        assert_eq!(gateway.refuse(&udp(from, server6(&gateway, 53), b"q"), "source_in_pool6"), None);
        assert!(gateway.is_empty());
    }
}

#[test]
fn f12_other_destinations_are_not_ours() {
    for mut gateway in Gateway::each(&settings()) {
        assert_eq!(gateway.refuse(&udp(client(1), at("2001:db8:2::1", 53), b"q"), "not_pool6"), None);
        assert_eq!(gateway.refuse(&udp(server(53), at("192.0.2.1", 53), b"a"), "not_pool4"), None);
    }
}

#[test]
fn f13_f14_other_transports_are_refused_and_told() {
    for mut gateway in Gateway::each(&settings()) {
        for protocol in [132, 47, 50] {
            let packet = other(ip(CLIENT), gateway.y(ip(SERVER)), protocol, &[1; 20]);
            let told = gateway.refuse(&packet, "unknown_protocol").unwrap();
            assert_eq!(told.icmp(), (1, 4, 0, &packet.bytes()[..]));
            let packet = other(ip(SERVER), ip("198.51.100.1"), protocol, &[1; 20]);
            let told = gateway.refuse(&packet, "unknown_protocol").unwrap();
            assert_eq!(told.icmp(), (3, 2, 0, &packet.bytes()[..]));
        }
        assert!(gateway.is_empty());
    }
}

#[test]
fn f15_the_first_packet_makes_one_of_each_the_second_none() {
    for mut gateway in Gateway::each(&settings()) {
        for _ in 0..2 {
            open_udp(&mut gateway, client(4000));
            assert_eq!((gateway.sessions(), gateway.bindings(), gateway.subscribers()), ([0, 1, 0], 1, 1));
        }
    }
}

#[test]
fn f17_unsolicited_udp_is_dropped() {
    for mut gateway in Gateway::each(&settings()) {
        for port in [0, 53, 1023, 1024, 65535] {
            assert_eq!(gateway.refuse(&udp(server(53), at("198.51.100.1", port), b"a"), "no_bib"), None);
        }
    }
}

#[test]
fn f18_f20_endpoint_independent_filtering_lets_anyone_answer() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let stranger = at("203.0.113.77", 9);
        let seen = seen6(&gateway, stranger);
        let out = gateway.translate(&udp(stranger, t, b"hello"));
        assert_eq!((out.source(), out.destination(), gateway.sessions()), (seen, client(4000), [0, 2, 0]));
        // The client's answer uses the session that this made.
        let back = gateway.translate(&udp(client(4000), seen, b"hi"));
        assert_eq!((back.source(), back.destination(), gateway.sessions()), (t, stranger, [0, 2, 0]));
    }
}

#[test]
fn f19_g13_address_dependent_filtering_lets_only_the_same_host_answer() {
    let mut settings = settings();
    settings.filtering = address_dependent();
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        assert_eq!(gateway.translate(&udp(server(9999), t, b"other port")).destination(), client(4000));
        let told = gateway.refuse(&udp(at("203.0.113.77", 53), t, b"no"), "filtered").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.dst), (3, 13, ip("203.0.113.77")));
        // The permission goes with the last session to that host.
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
        assert_eq!(gateway.refuse(&udp(server(53), t, b"a"), "no_bib"), None);
    }
}

#[test]
fn f19_a_permission_ends_while_the_mapping_lives_on() {
    let mut settings = settings();
    settings.filtering = address_dependent();
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        let elsewhere = at("203.0.113.99", 53);
        gateway.advance(200 * SECOND);
        let seen = seen6(&gateway, elsewhere);
        assert_eq!(gateway.translate(&udp(client(4000), seen, b"q")).source(), t);
        gateway.advance(100 * SECOND);
        assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 1, 0], 1));
        assert!(gateway.refuse(&udp(server(53), t, b"a"), "filtered").is_some());
        assert_eq!(gateway.translate(&udp(elsewhere, t, b"a")).destination(), client(4000));
    }
}

#[test]
fn f22_f26_g02_a_client_has_one_address_and_every_port_once() {
    let mut settings = settings();
    settings.limits.sessions = 30_000;
    for mut gateway in Gateway::each(&settings) {
        let mut taken = HashSet::new();
        for host in 1..=20 {
            let from = format!("2001:db8:1::{host:x}");
            let mut addresses = HashSet::new();
            // More ports than one block has, so that it needs several.
            for port in 0..200 {
                let out = gateway.translate(&udp(at(&from, 2000 + port), server6(&gateway, 53), b"q"));
                // F-25: parity.
                assert_eq!(out.ports().0 & 1, port & 1);
                assert!(out.ports().0 >= 1024, "F-24");
                addresses.insert(out.src);
                assert!(taken.insert((17, out.source())));
            }
            let out = gateway.translate(&tcp(at(&from, 2000), server6(&gateway, 80), SYN, b""));
            addresses.insert(out.src);
            assert!(taken.insert((6, out.source())));
            let out = open_echo(&mut gateway, &from, 2000);
            addresses.insert(out.src);
            assert!(taken.insert((1, out.source())));
            assert_eq!(addresses.len(), 1, "{from}");
        }
        // F-03: the tables agree.
        let rows = gateway.bib_rows(&RowFilter::default());
        assert_eq!(rows.len(), 20 * 202);
        let ends4: HashSet<_> = rows.iter().map(|r| (r.protocol, r.src4, r.src4_port)).collect();
        let ends6: HashSet<_> = rows.iter().map(|r| (r.protocol, r.src6, r.src6_port)).collect();
        assert_eq!((ends4.len(), ends6.len()), (rows.len(), rows.len()));
    }
}

#[test]
fn f28_g03_a_client_without_ports_is_told_unreachable_and_takes_nothing_from_others() {
    let mut settings = settings();
    settings.pool4.ranges[0].prefix = "198.51.100.0/32".parse().unwrap();
    settings.pool4.ranges[0].ports = 1024..=1151;
    for mut gateway in Gateway::each(&settings) {
        // Two blocks of 64: the first client takes both, by ports.
        for port in 0..128 {
            gateway.translate(&udp(client(2000 + port), server6(&gateway, 53), b"q"));
        }
        let one_more = udp(client(5000), server6(&gateway, 53), b"q");
        let told = gateway.refuse(&one_more, "ports_exhausted").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.dst), (1, 3, ip(CLIENT)));
        let second = at("2001:db8:1::1", 2000);
        let told = gateway.refuse(&tcp(second, server6(&gateway, 80), SYN, b""), "ports_exhausted").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.dst), (1, 3, second.ip()));
        // B-23: echo is not answered by an error of ours.
        let echo = echo_request(second.ip(), gateway.y(ip(SERVER)), 1, b"?");
        assert_eq!(gateway.refuse(&echo, "ports_exhausted"), None);
        // F-29: nothing was stolen.
        assert_eq!((gateway.bindings(), gateway.blocks(), gateway.subscribers()), (128, 2, 1));
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
        gateway.translate(&tcp(second, server6(&gateway, 80), SYN, b""));
    }
}

/// The whole story of a pool that runs out: the last port is given out, whoever comes next is told, nobody who is there
/// loses anything, and ports come back one by one.
#[test]
fn f28_f29_h15_when_the_last_port_is_out_all_that_is_there_lives_on() {
    let mut settings = settings();
    settings.pool4.ranges[0].prefix = "198.51.100.0/32".parse().unwrap();
    settings.pool4.ranges[0].ports = 1024..=1151;
    settings.limits.icmp_errors_per_second = 1_000_000;
    for mut gateway in Gateway::each(&settings) {
        let peer = server6(&gateway, 80);
        let connections: Vec<_> = (0..128)
            .map(|port| {
                let from = client(2000 + port);
                let t = gateway.translate(&tcp(from, peer, SYN, b"")).source();
                gateway.translate(&tcp(server(80), t, SYN | ACK, b""));
                gateway.translate(&tcp(from, peer, ACK, b""));
                (from, t)
            })
            .collect();
        let others: Vec<_> =
            (0..128).map(|p| (client(4000 + p), open_udp(&mut gateway, client(4000 + p)))).collect();
        let full = |gateway: &mut Gateway, from| {
            let told = gateway.refuse(&tcp(from, peer, SYN, b""), "ports_exhausted").unwrap();
            assert_eq!((told.icmp().0, told.icmp().1, told.dst), (1, 3, from.ip()));
            let query = udp(from, server6(gateway, 53), b"q");
            assert!(gateway.refuse(&query, "ports_exhausted").is_some());
        };
        for port in 0..500 {
            full(&mut gateway, client(6000 + port));
        }
        for (from, t) in &connections {
            assert_eq!(gateway.translate(&tcp(*from, peer, ACK, b"up")).source(), *t);
            assert_eq!(gateway.translate(&tcp(server(80), *t, ACK, b"down")).destination(), *from);
        }
        for (from, t) in &others {
            assert_eq!(gateway.translate(&udp(server(53), *t, b"a")).destination(), *from);
        }
        assert_eq!((gateway.sessions(), gateway.bindings()), ([128, 128, 0], 256));
        // One connection ends; its port comes back when its time is over, and only that one.
        let (from, t) = connections[7];
        gateway.translate(&tcp(server(80), t, RST | ACK, b""));
        gateway.advance(239 * SECOND);
        full(&mut gateway, client(7000));
        gateway.advance(SECOND);
        let next = gateway.translate(&tcp(client(7000), peer, SYN, b"")).source();
        assert_eq!(next, t, "the port of {from}");
        full(&mut gateway, client(7001));
    }
}

#[test]
fn f29_f57_full_tables_refuse_the_new_and_keep_the_old() {
    let mut settings = settings();
    settings.limits.sessions = 12;
    for (workers, room) in [(1, 12), (3, 4)] {
        let mut gateway = Gateway::new(settings.clone(), workers);
        let from = gateway.client_of(0, 0).to_string();
        let t: Vec<SocketAddr> = (0..room).map(|p| open_udp(&mut gateway, at(&from, 2000 + p))).collect();
        let told = gateway.refuse(&udp(at(&from, 5000), server6(&gateway, 53), b"q"), "table_full").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1), (1, 3));
        // A session from outside needs room as well.
        assert_eq!(gateway.refuse(&udp(at("203.0.113.77", 1), t[0], b"a"), "table_full"), None);
        for (p, t) in t.iter().enumerate() {
            let back = gateway.translate(&udp(server(53), *t, b"a"));
            assert_eq!(back.destination(), at(&from, 2000 + p as u16));
        }
        assert_eq!(gateway.bindings(), u32::from(room));
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
        open_udp(&mut gateway, at(&from, 5000));
    }
}

#[test]
fn f57_subscribers_are_bounded() {
    let mut settings = settings();
    settings.limits.subscribers = 3;
    let mut gateway = Gateway::new(settings, 1);
    for host in 1..=3 {
        open_udp(&mut gateway, at(format!("2001:db8:1::{host}"), 1));
    }
    let told = gateway.refuse(&udp(at("2001:db8:1::4", 1), server6(&gateway, 53), b"q"), "table_full");
    assert_eq!(told.unwrap().icmp().0, 1);
    assert_eq!((gateway.bindings(), gateway.blocks()), (3, 3));
}

#[test]
fn f48_an_echo_session_lives_60_seconds() {
    for mut gateway in Gateway::each(&settings()) {
        let out = open_echo(&mut gateway, CLIENT, 77);
        let reply = echo_reply(ip(SERVER), out.src, out.ports().0, b"!");
        gateway.advance(59 * SECOND);
        assert_eq!(gateway.translate(&reply).ports().0, 77);
        gateway.advance(59 * SECOND);
        assert_eq!(gateway.sessions(), [0, 0, 1]);
        gateway.advance(SECOND);
        assert!(gateway.is_empty());
        // F-49.
        assert_eq!(gateway.refuse(&reply, "no_bib"), None);
    }
}

#[test]
fn f50_echo_under_address_dependent_filtering() {
    let mut settings = settings();
    settings.filtering = address_dependent();
    for mut gateway in Gateway::each(&settings) {
        let out = open_echo(&mut gateway, CLIENT, 77);
        gateway.translate(&echo_reply(ip(SERVER), out.src, out.ports().0, b"!"));
        let other = echo_reply(ip("203.0.113.77"), out.src, out.ports().0, b"!");
        let told = gateway.refuse(&other, "filtered").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1), (3, 13));
    }
}

#[test]
fn f51_g28_two_clients_with_one_identifier_each_get_their_reply() {
    for mut gateway in Gateway::each(&settings()) {
        let hosts = [CLIENT, "2001:db8:1::1", "2001:db8:1::3"];
        let outs: Vec<_> = hosts.iter().map(|h| open_echo(&mut gateway, h, 5)).collect();
        for (host, out) in hosts.iter().zip(&outs) {
            let back = gateway.translate(&echo_reply(ip(SERVER), out.src, out.ports().0, b"data"));
            assert_eq!(back.dst, ip(host));
            assert_eq!(back.l4, L4::Echo { reply: true, id: 5, seq: 7, data: b"data".to_vec() });
        }
    }
}

#[test]
fn g11_what_is_filtered_does_not_refresh() {
    let mut settings = settings();
    settings.filtering = address_dependent();
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        let s = gateway.translate(&tcp(client(4000), server6(&gateway, 80), SYN, b"")).source();
        for _ in 0..4 {
            gateway.advance(60 * SECOND);
            gateway.refuse(&udp(at("203.0.113.77", 53), t, b"no"), "filtered");
            gateway.hold(&tcp(at("203.0.113.77", 80), s, SYN, b""));
            assert_eq!(gateway.advance_telling(6 * SECOND).len(), 1);
        }
        gateway.advance(36 * SECOND);
        assert!(gateway.is_empty());
    }
}

#[test]
fn g11_what_cannot_be_translated_neither_refreshes_nor_changes_state() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let s = gateway.translate(&tcp(client(4001), server6(&gateway, 80), SYN, b"")).source();
        gateway.translate(&tcp(server(80), s, SYN | ACK, b""));
        gateway.advance(200 * SECOND);
        gateway.refuse(&udp(server(53), t, b"a").hops(1), "hop_limit");
        gateway.refuse(&udp(client(4000), server6(&gateway, 53), b"q").hops(1), "hop_limit");
        // A stranger's packet that does not pass makes no session.
        gateway.refuse(&udp(at("203.0.113.77", 7), t, b"hello").hops(1), "hop_limit");
        assert_eq!(gateway.sessions(), [1, 1, 0]);
        // A RST that never arrives must not end anything.
        gateway.refuse(&tcp(server(80), s, crate::support::packet::RST, b"").hops(1), "hop_limit");
        let rows = gateway.session_rows(&RowFilter { protocol: Some(Protocol::Tcp), ..RowFilter::default() });
        assert_eq!(rows[0].state, "ESTABLISHED");
        gateway.advance(100 * SECOND);
        assert_eq!(gateway.sessions(), [1, 0, 0]);
    }
}

#[test]
fn g34_port_zero_is_a_port_like_any_other() {
    for mut gateway in Gateway::each(&settings()) {
        let out = gateway.translate(&udp(client(0), server6(&gateway, 0), b"q"));
        assert_ne!(out.ports().0, 0);
        assert_eq!(gateway.translate(&udp(server(0), out.source(), b"a")).destination(), client(0));
    }
}

#[test]
fn h07_a_subscriber_may_be_a_network() {
    let mut settings = settings();
    settings.subscriber_len = 64;
    for mut gateway in Gateway::each(&settings) {
        let mut addresses = HashSet::new();
        for host in 1..=30 {
            addresses.insert(open_udp(&mut gateway, at(format!("2001:db8:1::{host:x}"), 5)).ip());
        }
        assert_eq!((addresses.len(), gateway.subscribers(), gateway.blocks()), (1, 1, 1));
    }
}

#[test]
fn f07_f08_rows_show_both_tuples() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let e = open_echo(&mut gateway, CLIENT, 9);
        let rows = gateway.session_rows(&RowFilter::default());
        assert_eq!(rows.len(), 2);
        let row = rows.iter().find(|r| r.protocol == Protocol::Udp).unwrap();
        assert_eq!(at(row.src6, row.src6_port), client(4000));
        assert_eq!(at(row.dst6, row.dst4_port), server6(&gateway, 53));
        assert_eq!(at(row.src4, row.src4_port), t);
        assert_eq!(at(row.dst4, row.dst4_port), server(53));
        assert_eq!((row.state.as_str(), row.expires_s), ("active", 300));
        let row = rows.iter().find(|r| r.protocol == Protocol::Icmp).unwrap();
        assert_eq!((row.src6_port, row.src4_port, row.dst4_port, row.expires_s), (9, e.ports().0, 0, 60));
        let wanted = RowFilter { port: Some(t.port()), ..RowFilter::default() };
        assert_eq!(gateway.session_rows(&wanted).len(), 1);
        assert_eq!(gateway.bib_rows(&wanted)[0].sessions, 1);
        let nobody = RowFilter { addr6: Some("2001:db8:1::1".parse().unwrap()), ..RowFilter::default() };
        assert_eq!((gateway.session_rows(&nobody).len(), gateway.bib_rows(&nobody).len()), (0, 0));
    }
}
