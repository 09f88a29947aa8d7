//! Filtering, refreshing and telling (RFC 6146 §3.5.1, §3.5.3, RFC 4787 §4.3, §5, RFC 7857 §5–7, RFC 5508 REQ-9): what
//! policy may choose, each choice both ways.

use std::net::SocketAddr;
use std::time::Duration;

use sampan::nat64::settings::{Change, Filter, Filtering, HoldSyn, Protocol, RowFilter, Settings};

use crate::support::packet::{ACK, RST, SYN};
use crate::support::{Gateway, at, echo_reply, echo_request, error, ip, other, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, open_udp, seen6, server, server6};

const SECOND: Duration = Duration::from_secs(1);
const STRANGER: &str = "203.0.113.77";

fn each(change: impl Fn(&mut Settings), test: impl Fn(Gateway)) {
    let mut settings = settings();
    change(&mut settings);
    Gateway::each(&settings).into_iter().for_each(test);
}

/// The packets of a stranger to the mappings of one client: TCP, UDP and an echo reply, by protocol.
fn strangers(gateway: &mut Gateway) -> [crate::support::Packet; 3] {
    let t = gateway.translate(&tcp(client(4000), server6(gateway, 80), SYN, b"")).source();
    let u = open_udp(gateway, client(4000));
    let e = gateway.translate(&echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 4000, b"?"));
    [
        tcp(at(STRANGER, 80), t, SYN, b""),
        udp(at(STRANGER, 53), u, b"hello"),
        echo_reply(ip(STRANGER), e.src, e.ports().0, b"!"),
    ]
}

#[test]
fn f18_f19_f47_f50_g13_g14_each_protocol_filters_by_its_own_word() {
    for strict in Protocol::ALL {
        let change = |s: &mut Settings| match strict {
            Protocol::Tcp => s.filtering.tcp = Filter::AddressDependent,
            Protocol::Udp => s.filtering.udp = Filter::AddressDependent,
            Protocol::Icmp => s.filtering.icmp = Filter::AddressDependent,
        };
        each(change, |mut gateway| {
            let packets = strangers(&mut gateway);
            for (protocol, packet) in Protocol::ALL.into_iter().zip(&packets) {
                let before = gateway.sessions();
                match protocol {
                    _ if protocol != strict => {
                        gateway.translate(packet);
                    }
                    Protocol::Tcp => gateway.hold(packet),
                    Protocol::Udp | Protocol::Icmp => {
                        let told = gateway.refuse(packet, "filtered").unwrap();
                        assert_eq!((told.icmp().0, told.icmp().1, told.dst), (3, 13, ip(STRANGER)));
                    }
                }
                let new = u32::from(protocol != strict);
                assert_eq!(gateway.sessions()[protocol as usize], before[protocol as usize] + new);
            }
        });
    }
}

#[test]
fn f19_f50_who_is_filtered_need_not_be_told() {
    let change = |s: &mut Settings| {
        s.filtering.udp = Filter::AddressDependent;
        s.filtering.icmp = Filter::AddressDependent;
        s.filtering.tell_filtered = false;
    };
    each(change, |mut gateway| {
        let [_, datagram, reply] = strangers(&mut gateway);
        assert_eq!(gateway.refuse(&datagram, "filtered"), None);
        assert_eq!(gateway.refuse(&reply, "filtered"), None);
    });
}

#[test]
fn f17_f49_a_port_that_nobody_has_is_silent_or_says_so() {
    let pool = "198.51.100.1";
    let packets = [
        (udp(server(53), at(pool, 2000), b"?"), Some((3, 3))),
        (echo_request(ip(SERVER), ip(pool), 2000, b"?"), Some((3, 1))),
        (tcp(server(80), at(pool, 2000), ACK, b""), None),
    ];
    for tell in [false, true] {
        each(
            |s| s.filtering.tell_unmapped = tell,
            |mut gateway| {
                for (packet, wanted) in &packets {
                    let told = gateway.refuse(packet, "no_bib");
                    let told = told.map(|told| (told.icmp().0, told.icmp().1));
                    assert_eq!(told, wanted.filter(|_| tell), "{packet:?}");
                }
                assert!(gateway.is_empty());
            },
        );
    }
}

#[test]
fn g30_errors_of_our_own_can_be_kept_from_either_side() {
    for (v6, v4) in [(true, true), (true, false), (false, true), (false, false)] {
        let change = |s: &mut Settings| (s.filtering.errors_to_ipv6, s.filtering.errors_to_ipv4) = (v6, v4);
        each(change, |mut gateway| {
            let up = other(ip(CLIENT), gateway.y(ip(SERVER)), 132, &[1; 20]);
            assert_eq!(gateway.refuse(&up, "unknown_protocol").is_some(), v6);
            let down = other(ip(SERVER), ip("198.51.100.1"), 132, &[1; 20]);
            assert_eq!(gateway.refuse(&down, "unknown_protocol").is_some(), v4);
            gateway.hold(&tcp(server(80), at("198.51.100.1", 2000), SYN, b""));
            assert_eq!(gateway.advance_telling(6 * SECOND).len(), usize::from(v4));
            // Errors of others are translated all the same.
            let t = open_udp(&mut gateway, client(4000));
            let quoted = udp(t, server(53), b"q").bytes();
            gateway.translate(&error(ip("203.0.113.1"), t.ip(), 3, 3, 0, &quoted));
        });
    }
}

#[test]
fn f21_g10_packets_from_outside_refresh_or_not() {
    for refresh in [true, false] {
        each(
            |s| s.filtering.inbound_refresh = refresh,
            |mut gateway| {
                let t = open_udp(&mut gateway, client(4000));
                let e = gateway.translate(&echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 9, b"?"));
                let reply = echo_reply(ip(SERVER), e.src, e.ports().0, b"!");
                for i in 1..=4 {
                    gateway.advance(50 * SECOND);
                    gateway.translate(&udp(server(53), t, b"a"));
                    if refresh || i == 1 {
                        gateway.translate(&reply);
                    }
                }
                gateway.advance(100 * SECOND);
                let udp = u32::from(refresh);
                // The echo was answered for the last time at 200 s, or asked for at 0 s.
                assert_eq!(gateway.sessions(), [0, udp, 0], "{refresh}");
                gateway.advance(200 * SECOND);
                assert!(gateway.is_empty());
            },
        );
    }
}

#[test]
fn f21_g10_o11_new_strangers_do_not_keep_a_mapping_either() {
    each(
        |s| s.filtering.inbound_refresh = false,
        |mut gateway| {
            let t = open_udp(&mut gateway, client(4000));
            let s = gateway.translate(&tcp(client(4000), server6(&gateway, 80), SYN, b"")).source();
            for i in 0..23 {
                gateway.advance(10 * SECOND);
                gateway.translate(&udp(at(STRANGER, 1000 + i), t, b"hello"));
                gateway.translate(&tcp(at(STRANGER, 1000 + i), s, SYN, b""));
            }
            gateway.advance(10 * SECOND);
            assert_eq!(
                gateway.sessions(),
                [0, 24, 0],
                "the SYN's 240 s are over, and with them the strangers'"
            );
            gateway.advance(60 * SECOND);
            assert!(gateway.is_empty());
            // A client that goes on keeps what its strangers use.
            let t = open_udp(&mut gateway, client(4000));
            gateway.advance(200 * SECOND);
            assert_eq!(open_udp(&mut gateway, client(4000)), t);
            gateway.translate(&udp(at(STRANGER, 1), t, b"hello"));
            gateway.advance(299 * SECOND);
            assert_eq!(gateway.sessions(), [0, 2, 0]);
            gateway.advance(SECOND);
            assert!(gateway.is_empty());
        },
    );
}

#[test]
fn g10_tcp_without_inbound_refresh_lives_by_its_client() {
    each(
        |s| s.filtering.inbound_refresh = false,
        |mut gateway| {
            let to = server6(&gateway, 80);
            let t = gateway.translate(&tcp(client(4000), to, SYN, b"")).source();
            // What changes the state counts, whoever sends it.
            gateway.translate(&tcp(server(80), t, SYN | ACK, b""));
            gateway.advance(7000 * SECOND);
            gateway.translate(&tcp(client(4000), to, ACK, b""));
            gateway.advance(7000 * SECOND);
            gateway.translate(&tcp(server(80), t, ACK, b""));
            assert_eq!(gateway.advance_telling(200 * SECOND).len(), 1);
            let wanted = RowFilter { port: Some(80), ..RowFilter::default() };
            assert_eq!(gateway.session_rows(&wanted)[0].state, "TRANS");
        },
    );
}

#[test]
fn g10_the_switch_can_be_turned_while_traffic_flows() {
    each(
        |_| {},
        |mut gateway| {
            let t = open_udp(&mut gateway, client(4000));
            gateway.advance(200 * SECOND);
            let strict = Filtering { inbound_refresh: false, ..Filtering::default() };
            gateway.change(Change::Filtering(strict));
            gateway.translate(&udp(server(53), t, b"a"));
            gateway.translate(&udp(at(STRANGER, 1), t, b"a"));
            gateway.advance(100 * SECOND);
            assert_eq!(
                gateway.sessions(),
                [0, 1, 0],
                "the stranger's: what was before the change is not known"
            );
            gateway.change(Change::Filtering(Filtering::default()));
            gateway.translate(&udp(at(STRANGER, 1), t, b"a"));
            gateway.advance(299 * SECOND);
            assert_eq!(gateway.sessions(), [0, 1, 0]);
        },
    );
}

#[test]
fn g09_the_client_refreshes_whatever_the_switch_says() {
    each(
        |s| s.filtering.inbound_refresh = false,
        |mut gateway| {
            let t = open_udp(&mut gateway, client(4000));
            for _ in 0..10 {
                gateway.advance(100 * SECOND);
                assert_eq!(open_udp(&mut gateway, client(4000)), t);
            }
        },
    );
}

#[test]
fn g12_errors_and_resets_of_a_scanned_host_keep_nothing() {
    each(
        |_| {},
        |mut gateway| {
            let t = open_udp(&mut gateway, client(4000));
            gateway.advance(200 * SECOND);
            let out = gateway.translate(&udp(server(53), t, b"scan"));
            let answered = gateway.session_rows(&RowFilter::default())[0].expires_s;
            gateway.advance(100 * SECOND);
            let unreachable = error(ip(CLIENT), out.src, 1, 4, 0, &out.bytes());
            gateway.translate(&unreachable);
            assert_eq!(gateway.session_rows(&RowFilter::default())[0].expires_s, answered - 100);
        },
    );
    each(
        |_| {},
        |mut gateway| {
            let s = gateway.translate(&tcp(client(4000), server6(&gateway, 80), SYN, b"")).source();
            let peer = at(STRANGER, 9);
            let seen = gateway.translate(&tcp(peer, s, SYN, b"")).source();
            gateway.advance(100 * SECOND);
            gateway.translate(&tcp(client(4000), seen, RST | ACK, b""));
            let rows = gateway.session_rows(&RowFilter { port: Some(9), ..RowFilter::default() });
            assert_eq!((rows[0].state.as_str(), rows[0].expires_s), ("V4_INIT", 140));
        },
    );
}

#[test]
fn g08_shorter_lifetimes_for_some_ports() {
    let change = |s: &mut Settings| s.timers.udp_ports = vec![(53, 10 * SECOND), (5060, 600 * SECOND)];
    each(change, |mut gateway| {
        let lives = |gateway: &mut Gateway, port: u16| -> u64 {
            gateway.translate(&udp(client(4000), server6(gateway, port), b"q"));
            let rows = gateway.session_rows(&RowFilter { port: Some(port), ..RowFilter::default() });
            rows[0].expires_s
        };
        assert_eq!([53, 54, 5060].map(|port| lives(&mut gateway, port)), [10, 300, 600]);
        // TCP to the same port is not concerned, and a session's own refreshing obeys as well.
        gateway.translate(&tcp(client(4000), server6(&gateway, 53), SYN, b""));
        gateway.advance(9 * SECOND);
        assert_eq!(lives(&mut gateway, 53), 10);
        gateway.advance(10 * SECOND);
        assert_eq!(gateway.sessions(), [1, 2, 0]);
    });
}

#[test]
fn g17_behaviour_does_not_change_with_the_load() {
    let mut settings = settings();
    settings.limits.sessions = 100;
    let mut gateway = Gateway::new(settings, 1);
    // Mapping and filtering of one client, at an empty table and at one that is nearly full.
    let probe = |gateway: &mut Gateway| {
        let a = open_udp(gateway, client(9000));
        let elsewhere = seen6(gateway, at("203.0.113.200", 99));
        let b = gateway.translate(&udp(client(9000), elsewhere, b"q")).source();
        let stranger = gateway.translate(&udp(at(STRANGER, 1), a, b"x"));
        (a == b, stranger.destination() == client(9000))
    };
    assert_eq!(probe(&mut gateway), (true, true));
    gateway.advance(300 * SECOND);
    for port in 0..95 {
        open_udp(&mut gateway, client(1000 + port));
    }
    assert_eq!(probe(&mut gateway), (true, true));
}

#[test]
fn g27_f06_an_identifier_goes_with_its_last_session() {
    each(
        |_| {},
        |mut gateway| {
            for host in [SERVER, "203.0.113.11"] {
                gateway.translate(&echo_request(ip(CLIENT), gateway.y(ip(host)), 7, b"?"));
                gateway.advance(30 * SECOND);
            }
            assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 0, 1], 1));
            gateway.advance(30 * SECOND);
            assert!(gateway.is_empty());
        },
    );
}

#[test]
fn f46_o10_what_waits_can_be_turned_off_under_attack() {
    each(
        |_| {},
        |mut gateway| {
            let syn = |port| tcp(server(port), at("198.51.100.1", 2000), SYN, b"");
            gateway.hold(&syn(1));
            gateway.change(Change::Filtering(Filtering { hold_syn: HoldSyn::Off, ..Filtering::default() }));
            assert_eq!(gateway.refuse(&syn(2), "no_bib"), None);
            // What waited before ends as the new policy says.
            assert_eq!(gateway.advance_telling(6 * SECOND), []);
            assert_eq!(gateway.drops("syn_unanswered"), 1);
        },
    );
}

/// Client and stranger under a setting, for a look at one direction at a time.
#[test]
fn f20_a_session_for_each_peer_and_the_answer_uses_it() {
    each(
        |_| {},
        |mut gateway| {
            let t = open_udp(&mut gateway, client(4000));
            for port in 1..=20 {
                let peer: SocketAddr = at(STRANGER, port);
                gateway.translate(&udp(peer, t, b"hello"));
                gateway.translate(&udp(peer, t, b"again"));
                let seen = seen6(&gateway, peer);
                gateway.translate(&udp(client(4000), seen, b"hi"));
                assert_eq!(gateway.sessions(), [0, 1 + u32::from(port), 0]);
            }
        },
    );
}
