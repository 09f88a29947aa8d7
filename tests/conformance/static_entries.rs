//! Mappings by the operator (RFC 6146 §3.1): inbound and outbound, for all protocols, whatever worker, whatever time.

use std::net::SocketAddr;
use std::time::Duration;

use sampan::nat64::settings::{
    Change, Filter, HoldSyn, Pool4Range, Protocol, RowFilter, Settings, StaticEntry,
};

use crate::support::packet::{ACK, SYN};
use crate::support::{Gateway, at, echo_reply, echo_request, error, ip, settings, tcp, udp};
use crate::{SERVER, client, open_udp, seen6, server, server6};

const SECOND: Duration = Duration::from_secs(1);
const HOST: &str = "2001:db8:1::80";

fn entry(protocol: Protocol, host: &str, port6: u16, pool: &str, port4: u16) -> StaticEntry {
    StaticEntry { protocol, src6: host.parse().unwrap(), port6, src4: pool.parse().unwrap(), port4 }
}

/// A web and DNS server, which also answers echo requests with identifier 7.
fn entries() -> Vec<StaticEntry> {
    vec![
        entry(Protocol::Tcp, HOST, 8080, "198.51.100.1", 80),
        entry(Protocol::Udp, HOST, 53, "198.51.100.1", 53),
        entry(Protocol::Icmp, HOST, 7, "198.51.100.1", 700),
    ]
}

fn with_entries() -> Settings {
    Settings { static_bib: entries(), ..settings() }
}

/// With one, three and eight workers: whoever owns the host is found.
fn each(settings: &Settings, test: impl Fn(Gateway)) {
    [1, 3, 8].into_iter().for_each(|workers| test(Gateway::new(settings.clone(), workers)));
}

fn host(port: u16) -> SocketAddr {
    at(HOST, port)
}

fn pool(port: u16) -> SocketAddr {
    at("198.51.100.1", port)
}

/// A connection from outside, opened and answered.
fn connect(gateway: &mut Gateway, peer: SocketAddr) {
    let seen = seen6(gateway, peer);
    let syn = gateway.translate(&tcp(peer, pool(80), SYN, b""));
    assert_eq!((syn.source(), syn.destination()), (seen, host(8080)));
    let answer = gateway.translate(&tcp(host(8080), seen, SYN | ACK, b""));
    assert_eq!((answer.source(), answer.destination()), (pool(80), peer));
    gateway.translate(&tcp(peer, pool(80), ACK, b""));
}

#[test]
fn f05_inbound_tcp_udp_and_echo() {
    each(&with_entries(), |mut gateway| {
        assert_eq!((gateway.bindings(), gateway.sessions()), (3, [0; 3]));
        connect(&mut gateway, server(5000));
        let wanted = RowFilter { port: Some(5000), ..RowFilter::default() };
        assert_eq!(gateway.session_rows(&wanted)[0].state, "ESTABLISHED");
        let seen = seen6(&gateway, server(5000));
        let question = gateway.translate(&udp(server(5000), pool(53), b"q"));
        assert_eq!((question.source(), question.destination()), (seen, host(53)));
        assert_eq!(gateway.translate(&udp(host(53), seen, b"a")).source(), pool(53));
        let ping = gateway.translate(&echo_request(ip(SERVER), pool(0).ip(), 700, b"?"));
        assert_eq!((ping.dst, ping.ports().0), (ip(HOST), 7));
        let pong = gateway.translate(&echo_reply(ip(HOST), ping.src, 7, b"!"));
        assert_eq!((pong.src, pong.dst, pong.ports().0), (pool(0).ip(), ip(SERVER), 700));
        // G-14: a port is mapped for its own protocol only.
        gateway.refuse(&udp(server(5000), pool(80), b"q"), "no_bib");
    });
}

#[test]
fn f05_the_host_itself_calls_out_by_the_same_port() {
    each(&with_entries(), |mut gateway| {
        assert_eq!(gateway.translate(&udp(host(53), server6(&gateway, 53), b"q")).source(), pool(53));
        assert_eq!(gateway.translate(&tcp(host(8080), server6(&gateway, 80), SYN, b"")).source(), pool(80));
        // Another port of it is a client's like any other.
        let other = gateway.translate(&udp(host(54), server6(&gateway, 53), b"q")).source();
        assert!(other.port() >= 1024);
        assert_eq!((gateway.bindings(), gateway.subscribers()), (4, 1));
    });
}

#[test]
fn f05_it_never_expires() {
    each(&with_entries(), |mut gateway| {
        connect(&mut gateway, server(5000));
        gateway.translate(&udp(server(5000), pool(53), b"q"));
        // Longer than every timer: the sessions go, one after another.
        assert_eq!(gateway.advance_telling(100_000 * SECOND).len(), 0);
        gateway.advance(SECOND);
        assert_eq!((gateway.sessions(), gateway.bindings(), gateway.blocks()), ([0; 3], 3, 0));
        connect(&mut gateway, server(5001));
        let rows = gateway.bib_rows(&RowFilter { protocol: Some(Protocol::Tcp), ..RowFilter::default() });
        assert_eq!((rows.len(), rows[0].sessions, rows[0].is_static), (1, 1, true));
    });
}

#[test]
fn f05_f44_segments_of_a_connection_from_before_a_restart_pass() {
    each(&with_entries(), |mut gateway| {
        let seen = seen6(&gateway, server(5000));
        let down = gateway.translate(&tcp(server(5000), pool(80), ACK, b"data"));
        assert_eq!((down.source(), down.destination()), (seen, host(8080)));
        let up = gateway.translate(&tcp(host(8080), seen, ACK, b"data"));
        assert_eq!((up.source(), up.destination()), (pool(80), server(5000)));
        assert_eq!(gateway.sessions(), [0; 3]);
    });
}

#[test]
fn f05_filtering_holds_for_static_mappings_too() {
    let mut settings = with_entries();
    settings.filtering.udp = Filter::AddressDependent;
    settings.filtering.tcp = Filter::AddressDependent;
    settings.filtering.hold_syn = HoldSyn::Off;
    each(&settings, |mut gateway| {
        gateway.refuse(&udp(server(5000), pool(53), b"q"), "filtered");
        gateway.refuse(&tcp(server(5000), pool(80), SYN, b""), "filtered");
        gateway.refuse(&tcp(server(5000), pool(80), ACK, b""), "no_session");
        gateway.translate(&udp(host(53), server6(&gateway, 9), b"q"));
        gateway.translate(&udp(server(5000), pool(53), b"q"));
    });
}

#[test]
fn f05_g18_errors_find_their_way() {
    each(&with_entries(), |mut gateway| {
        let question = gateway.translate(&udp(server(5000), pool(53), b"q"));
        let unreachable = error(ip(HOST), question.src, 1, 4, 0, &question.bytes());
        let told = gateway.translate(&unreachable);
        assert_eq!((told.src, told.dst, told.icmp().0, told.icmp().1), (pool(0).ip(), ip(SERVER), 3, 3));
        let answer = gateway.translate(&udp(host(53), question.source(), b"a"));
        let told = gateway.translate(&error(ip("203.0.113.1"), pool(0).ip(), 11, 0, 0, &answer.bytes()));
        assert_eq!((told.dst, told.icmp().0), (ip(HOST), 3));
    });
}

#[test]
fn f05_f52_f53_a_client_reaches_the_server_by_its_pool_address() {
    each(&with_entries(), |mut gateway| {
        let seen = seen6(&gateway, pool(80));
        let syn = gateway.translate(&tcp(client(4000), seen, SYN, b""));
        assert_eq!(syn.destination(), host(8080));
        let answer = gateway.translate(&tcp(host(8080), syn.source(), SYN | ACK, b""));
        assert_eq!((answer.source(), answer.destination()), (seen, client(4000)));
    });
}

#[test]
fn f05_a_reload_adds_and_removes() {
    each(&settings(), |mut gateway| {
        // The host has a mapping of its own for the port that becomes static.
        let before = gateway.translate(&udp(host(53), server6(&gateway, 53), b"q")).source();
        let client_t = open_udp(&mut gateway, client(4000));
        gateway.change(Change::Static(entries()));
        gateway.refuse(&udp(server(53), before, b"a"), "no_bib");
        gateway.translate(&udp(server(5000), pool(53), b"q"));
        connect(&mut gateway, server(5000));
        assert_eq!((gateway.bindings(), gateway.sessions()), (4, [1, 2, 0]));
        // One goes, one changes its port, one stays with its connection.
        let next = vec![entries()[0], entry(Protocol::Icmp, HOST, 7, "198.51.100.1", 701)];
        gateway.change(Change::Static(next));
        gateway.refuse(&udp(server(5000), pool(53), b"q"), "no_bib");
        gateway.refuse(&echo_request(ip(SERVER), pool(0).ip(), 700, b"?"), "no_bib");
        gateway.translate(&echo_request(ip(SERVER), pool(0).ip(), 701, b"?"));
        gateway.translate(&tcp(server(5000), pool(80), ACK, b"data"));
        assert_eq!((gateway.bindings(), gateway.sessions()), (3, [1, 1, 1]));
        // Nobody else has noticed.
        assert_eq!(open_udp(&mut gateway, client(4000)), client_t);
        gateway.change(Change::Static(Vec::new()));
        assert_eq!((gateway.bindings(), gateway.sessions()), (1, [0, 1, 0]));
        gateway.advance(300 * SECOND);
        assert!(gateway.is_empty());
    });
}

#[test]
fn f05_a_pool_that_grows_or_moves_its_ports_keeps_them() {
    each(&with_entries(), |mut gateway| {
        connect(&mut gateway, server(5000));
        let mut ranges = gateway.settings().pool4.ranges.clone();
        ranges[0].ports = 2048..=65535;
        ranges.push(Pool4Range { prefix: "198.51.100.8/30".parse().unwrap(), ports: 1024..=65535 });
        gateway.change(Change::Pool4(ranges));
        gateway.translate(&tcp(server(5000), pool(80), ACK, b"data"));
        assert_eq!(gateway.sessions(), [1, 0, 0]);
        // A pool without its address ends its sessions; plan::check refuses such a file.
        let elsewhere = Pool4Range { prefix: "198.51.100.8/30".parse().unwrap(), ports: 1024..=65535 };
        gateway.change(Change::Pool4(vec![elsewhere]));
        assert_eq!(gateway.sessions(), [0; 3]);
    });
}

#[test]
fn f05_f57_it_takes_no_room_from_sessions_and_has_room_when_they_fill_the_table() {
    let mut settings = settings();
    settings.limits.sessions = 64;
    let mut gateway = Gateway::new(settings, 1);
    for port in 0..64 {
        open_udp(&mut gateway, client(1000 + port));
    }
    let many: Vec<_> = (1..=1000).map(|n| entry(Protocol::Tcp, HOST, n, "198.51.100.1", n)).collect();
    gateway.change(Change::Static(many));
    assert_eq!(gateway.bindings(), 1064);
    gateway.advance(300 * SECOND);
    for n in [1, 500, 1000] {
        assert_eq!(gateway.translate(&tcp(server(9), pool(n), SYN, b"")).destination(), host(n));
    }
}
