//! What holds whatever the traffic was (RFC 6146 §3.1, §3.3, §3.6, §3.8), and what policy and shortage may do.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sampan::nat64::settings::{
    Change, Filter, Filtering, HoldSyn, Pool4Range, Protocol, RowFilter, Timers, Unit,
};
use sampan::verdict::DropReason;
use sampan::xlat::canned::Failure;

use crate::support::packet::{ACK, PSH, SYN};
use crate::support::traffic::{Rng, Traffic};
use crate::support::{Gateway, L4, at, echo_reply, echo_request, error, ip, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, open_udp, seen6, server, server6};

const SECOND: Duration = Duration::from_secs(1);

/// Each end of a binding stands in one binding of its protocol only, each session has its binding, and each binding
/// but a static one has a session.
fn check_tables(gateway: &Gateway) {
    let (bindings, sessions) =
        (gateway.bib_rows(&RowFilter::default()), gateway.session_rows(&RowFilter::default()));
    let sixes: HashSet<_> = bindings.iter().map(|b| (b.protocol, b.src6, b.src6_port)).collect();
    let fours: HashSet<_> = bindings.iter().map(|b| (b.protocol, b.src4, b.src4_port)).collect();
    assert_eq!((sixes.len(), fours.len()), (bindings.len(), bindings.len()));
    let ends: HashSet<_> =
        bindings.iter().map(|b| (b.protocol, b.src6, b.src6_port, b.src4, b.src4_port)).collect();
    let mut pairs = HashSet::new();
    for s in sessions.iter().filter(|s| !s.src6.is_unspecified()) {
        assert!(ends.contains(&(s.protocol, s.src6, s.src6_port, s.src4, s.src4_port)), "{s:?}");
        assert!(pairs.insert((s.protocol, s.src4, s.src4_port, s.dst4, s.dst4_port)), "twice: {s:?}");
    }
    let counted: u32 = bindings.iter().map(|b| b.sessions).sum();
    assert_eq!(counted as usize, pairs.len());
    assert!(bindings.iter().all(|b| b.sessions > 0 || b.is_static));
}

#[test]
fn f03_f06_the_tables_agree_after_any_traffic() {
    for seed in 0..12 {
        let mut traffic = Traffic::new(seed);
        let mut gateway = traffic.gateway(1 + (seed % 3) as u16);
        for round in 0..25 {
            for i in 0..20 {
                let (bytes, offload) = traffic.clean(&gateway);
                gateway.feed(i % (1 + (seed % 3) as u16), bytes, offload);
            }
            let out = gateway.run();
            traffic.learn(&out);
            if round % 5 == 4 {
                check_tables(&gateway);
                gateway.advance_telling(Duration::from_secs(traffic.rng().below(150) as u64));
            }
        }
        check_tables(&gateway);
    }
}

#[test]
fn f09_addresses_of_peers_are_computed_never_looked_up() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let mut rng = Rng(9);
        for _ in 0..200 {
            // Global addresses only: the others need to be allowed.
            let v4 = Ipv4Addr::new(8, rng.next() as u8, rng.next() as u8, rng.next() as u8);
            let (peer, port) = (IpAddr::from(v4), 1 + rng.next() as u16 % 60_000);
            let seen = SocketAddr::new(gateway.y(peer), port);
            let up = gateway.translate(&udp(client(4000), seen, b"q"));
            assert_eq!((up.destination(), up.source()), (SocketAddr::new(peer, port), t));
            let down = gateway.translate(&udp(SocketAddr::new(peer, port), t, b"a"));
            assert_eq!((down.source(), down.destination()), (seen, client(4000)));
        }
    }
}

#[test]
fn f58_g31_policy_and_shortage_refuse_at_every_step_and_leave_nothing() {
    let mut settings = settings();
    settings.units = vec![Unit {
        name: "a".into(),
        prefixes: vec!["2001:db8:1::/48".parse().unwrap()],
        ..Unit::default()
    }];
    for mut gateway in Gateway::each(&settings) {
        let told =
            gateway.refuse(&udp(at("2001:db8:2::1", 1), server6(&gateway, 53), b"q"), "source_not_served");
        assert_eq!(told.map(|t| (t.icmp().0, t.icmp().1)), Some((1, 1)));
        let private = seen6(&gateway, at("10.0.0.1", 53));
        let told = gateway.refuse(&udp(client(1), private, b"q"), "not_allowed");
        assert_eq!(told.map(|t| (t.icmp().0, t.icmp().1)), Some((1, 1)));
        let told = gateway.refuse(&tcp(client(1), private, SYN, b""), "not_allowed");
        assert_eq!(told.map(|t| (t.icmp().0, t.icmp().1)), Some((1, 1)));
        assert!(gateway.is_empty());
        // The same from outside: a binding is not enough for a peer that may not be spoken to.
        let t = open_udp(&mut gateway, client(4000));
        assert_eq!(gateway.refuse(&udp(at("10.0.0.1", 53), t, b"a"), "not_allowed"), None);
        assert_eq!(gateway.sessions(), [0, 1, 0]);
    }
}

#[test]
fn f59_reloads_under_load_lose_no_session_that_they_do_not_concern() {
    for mut gateway in Gateway::each(&settings()) {
        let mut flows = Vec::new();
        for port in 0..60 {
            let t = gateway.translate(&tcp(client(2000 + port), server6(&gateway, 80), SYN, b"")).source();
            gateway.translate(&tcp(server(80), t, SYN | ACK, b""));
            gateway.translate(&tcp(client(2000 + port), server6(&gateway, 80), ACK, b""));
            flows.push((client(2000 + port), t));
        }
        let range = gateway.settings().pool4.ranges[0].clone();
        let more = Pool4Range::new("198.51.100.8/30".parse().unwrap(), 1024..=65535);
        let changes = [
            Change::Filtering(Filtering { tcp: Filter::AddressDependent, ..Filtering::default() }),
            Change::Filtering(Filtering {
                inbound_refresh: false,
                hold_syn: HoldSyn::Off,
                ..Filtering::default()
            }),
            Change::Timers(Timers { udp: 120 * SECOND, tcp_est: 8000 * SECOND, ..Timers::default() }),
            Change::Pool4(vec![range.clone(), more]),
            Change::Pool4(vec![range]),
            Change::Allow(vec!["203.0.113.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]),
            Change::Units(vec![Unit {
                name: "a".into(),
                prefixes: vec!["2001:db8:1::/48".parse().unwrap()],
                ..Unit::default()
            }]),
            Change::Units(Vec::new()),
            Change::Filtering(Filtering::default()),
        ];
        for change in changes {
            gateway.change(change);
            for (from, t) in &flows {
                assert_eq!(
                    gateway.translate(&tcp(*from, server6(&gateway, 80), ACK | PSH, b"up")).source(),
                    *t
                );
                let down = gateway.translate(&tcp(server(80), *t, ACK | PSH, b"down"));
                assert_eq!(down.destination(), *from);
            }
        }
        assert_eq!(gateway.sessions(), [60, 0, 0]);
        check_tables(&gateway);
    }
}

#[test]
fn f60_a_hundred_thousand_packets_between_two_clients() {
    // Between workers and within one.
    for workers in [1, 3] {
        let mut gateway = Gateway::new(settings(), workers);
        let (a, b) = (
            SocketAddr::new(gateway.client_of(0, 0), 4000),
            SocketAddr::new(gateway.client_of(workers - 1, 1), 5000),
        );
        let t_b = open_udp(&mut gateway, b);
        let seen_b = seen6(&gateway, t_b);
        let seen_a = gateway.translate(&udp(a, seen_b, b"first")).source();
        let mut rng = Rng(60);
        for _ in 0..2000 {
            let len = rng.below(1400);
            let (up, down) = (udp(a, seen_b, &rng.bytes(len)), udp(b, seen_a, &rng.bytes(len)));
            for i in 0..50 {
                gateway.feed(
                    i % workers,
                    if i % 2 == 0 { up.bytes() } else { down.bytes() },
                    Default::default(),
                );
            }
            let out = gateway.run();
            assert_eq!(out.len(), 50);
            // The two packets, one hop later and with the addresses of the other side; `parse` judges the checksum.
            for bytes in out.iter().map(|o| &o.bytes).collect::<HashSet<_>>() {
                let packet = crate::support::Packet::parse(bytes).unwrap();
                let (sent, src, dst) =
                    if packet.destination() == b { (&up, seen_a, b) } else { (&down, seen_b, a) };
                assert_eq!(packet, crate::forwarded(sent, src, dst));
            }
        }
        assert_eq!((gateway.totals().dropped(), gateway.sessions()), (0, [0, 3, 0]));
    }
}

#[test]
fn f54_f55_hairpinned_tcp_and_echo_obey_filtering_too() {
    let mut settings = settings();
    settings.pool4.ranges[0].ports = 1024..=1087;
    settings.filtering = Filtering {
        tcp: Filter::AddressDependent,
        udp: Filter::AddressDependent,
        icmp: Filter::AddressDependent,
        ..Filtering::default()
    };
    for other in [0, 1] {
        let mut gateway = Gateway::new(settings.clone(), 2);
        let (a, b) = (gateway.client_of(0, 0), gateway.client_of(other, 1));
        let t_b = gateway.translate(&tcp(SocketAddr::new(b, 5000), server6(&gateway, 80), SYN, b"")).source();
        let t_a = gateway.translate(&tcp(SocketAddr::new(a, 4000), server6(&gateway, 80), SYN, b"")).source();
        assert_ne!(t_a.ip(), t_b.ip());
        let (seen_a, seen_b) = (seen6(&gateway, t_a), seen6(&gateway, t_b));
        // A's SYN waits at B's mapping, and B's own meets it there.
        gateway.hold(&tcp(SocketAddr::new(a, 4000), seen_b, SYN, b""));
        let out = gateway.send(&tcp(SocketAddr::new(b, 5000), seen_a, SYN, b""));
        assert_eq!(gateway.drops("syn_met"), 1);
        // A's mapping lets B's in, for A has called T_B.
        assert_eq!((out.len(), out[0].source(), out[0].destination()), (1, seen_b, SocketAddr::new(a, 4000)));
        let wanted = RowFilter { protocol: Some(Protocol::Tcp), ..RowFilter::default() };
        let open = gateway.session_rows(&wanted).iter().filter(|r| r.state == "ESTABLISHED").count();
        assert_eq!(open, 2, "simultaneous open, seen from both sides");
        let echo_b = gateway.translate(&echo_request(b, gateway.y(ip(SERVER)), 9, b"?"));
        gateway.translate(&echo_request(a, gateway.y(ip(SERVER)), 9, b"?"));
        let before = gateway.totals();
        gateway.send(&echo_request(a, gateway.y(echo_b.src), echo_b.ports().0, b"?"));
        let drops = gateway.drops_since(&before);
        assert!(drops == [("filtered", 1)] || drops == [("no_bib", 1)], "{drops:?}");
    }
}

#[test]
fn g19_g29_destination_unreachable_and_time_exceeded_reach_both_protocols() {
    for mut gateway in Gateway::each(&settings()) {
        let u = open_udp(&mut gateway, client(4000));
        let t = gateway.translate(&tcp(client(4000), server6(&gateway, 80), SYN, b"")).source();
        let quotes = [(u, udp(u, server(53), b"first").bytes()), (t, tcp(t, server(80), SYN, b"").bytes())];
        for (t, quote) in &quotes {
            for (kind, code, kind6, code6) in
                [(3, 0, 1, 0), (3, 1, 1, 0), (3, 3, 1, 4), (3, 10, 1, 1), (3, 13, 1, 1), (11, 0, 3, 0)]
            {
                let told = gateway.translate(&error(ip("203.0.113.1"), t.ip(), kind, code, 0, quote));
                assert_eq!((told.icmp().0, told.icmp().1, told.dst), (kind6, code6, ip(CLIENT)));
            }
            // Source Quench: RFC 5508 REQ-10.
            let quench = error(ip("203.0.113.1"), t.ip(), 4, 0, 0, quote);
            assert_eq!(gateway.refuse(&quench, "icmp_type"), None);
        }
        assert_eq!(gateway.sessions(), [1, 1, 0]);
    }
}

#[test]
fn g29_g32_of_queries_only_echo_is_carried() {
    for mut gateway in Gateway::each(&settings()) {
        let out = gateway.translate(&echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 9, b"?"));
        gateway.translate(&echo_reply(ip(SERVER), out.src, out.ports().0, b"!"));
        for kind in [9, 10, 13, 14, 15, 16, 17, 18, 42] {
            let id = u32::from(out.ports().0) << 16;
            let query = error(ip(SERVER), out.src, kind, 0, id, b"");
            assert_eq!(gateway.refuse(&query, "icmp_type"), None, "{kind}");
        }
        let L4::Echo { .. } = out.l4 else { panic!("{out:?}") };
    }
}

#[test]
fn f10_filter_then_translate_then_turn() {
    let mut settings = settings();
    settings.pool4.ranges[0].ports = 1024..=1087;
    settings.filtering.udp = Filter::AddressDependent;
    for mut gateway in Gateway::each(&settings) {
        let (a, b) = (at("2001:db8:1::1", 4000), client(5000));
        let t_b = open_udp(&mut gateway, b);
        let seen_b = seen6(&gateway, t_b);
        // The client's own side comes first: what the other side's filter refuses has made its binding and session.
        gateway.send(&udp(a, seen_b, b"unasked"));
        assert_eq!((gateway.drops("filtered"), gateway.sessions(), gateway.bindings()), (1, [0, 2, 0], 2));
        // Filtering looks at the packet before translation does: its word is the one that counts.
        gateway.refuse(&udp(at("203.0.113.77", 1), t_b, b"no").hops(1), "filtered");
        // What translation refuses has changed nothing.
        gateway.refuse(&udp(at("2001:db8:1::7", 1), server6(&gateway, 53), b"q").hops(1), "hop_limit");
        assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 2, 0], 2));
    }
}

/// An IPv4 packet in two fragments.
fn in_two(whole: &[u8]) -> [Vec<u8>; 2] {
    let cut = 20 + (whole.len() - 20) / 16 * 8;
    [(20..cut, 0x2000), (cut..whole.len(), ((cut - 20) / 8) as u16)].map(|(part, word)| {
        let mut piece = [&whole[..20], &whole[part]].concat();
        let len = piece.len() as u16;
        piece[2..4].copy_from_slice(&len.to_be_bytes());
        piece[6..8].copy_from_slice(&word.to_be_bytes());
        piece[10..12].fill(0);
        let sum = sampan::wire::checksum::Sum::ZERO.bytes(&piece[..20]).checksum();
        piece[10..12].copy_from_slice(&sum.to_be_bytes());
        piece
    })
}

#[test]
fn g20_g21_large_packets_and_fragments_in_any_order() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let large = udp(server(53), t, &[7; 1472]);
        // With DF its sender is told what fits; without, it arrives in pieces, first piece first.
        let told = gateway.refuse(&large.clone().df(true), "packet_too_big").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.icmp().2), (3, 4, 1480));
        let pieces = gateway.send_raw(large.bytes(), Default::default());
        assert!(pieces.len() > 1);
        let offset = |bytes: &[u8]| u16::from_be_bytes([bytes[42], bytes[43]]) >> 3;
        let offsets: Vec<_> = pieces.iter().map(|p| offset(&p.bytes)).collect();
        assert!(offsets[0] == 0 && offsets.is_sorted(), "{offsets:?}");
        // Fragments from outside, either one first.
        let whole = udp(server(53), t, b"a datagram that comes in two pieces, whatever their order").id(77);
        for order in [[0, 1], [1, 0]] {
            let pieces = in_two(&whole.bytes());
            let first = gateway.send_raw(pieces[order[0]].clone(), Default::default());
            assert!(first.is_empty(), "half a datagram waits");
            let out = gateway.send_raw(pieces[order[1]].clone(), Default::default());
            let packet = crate::support::Packet::parse(&out[0].bytes).unwrap();
            assert_eq!((packet.destination(), packet.data()), (client(4000), whole.data()));
        }
    }
}

#[test]
fn g26_identifications_are_not_used_again_soon() {
    for mut gateway in Gateway::each(&settings()) {
        let to = server6(&gateway, 53);
        let ids: HashSet<_> =
            (0..2000).map(|_| gateway.translate(&udp(client(4000), to, b"small")).id).collect();
        assert_eq!(ids.len(), 2000);
    }
}

/// What asks whether a worker works is in nobody's way and in nobody's books.
#[test]
fn a_canned_packet_goes_through_the_live_settings_and_leaves_nothing() {
    let mut settings = settings();
    settings.pool6.push("64:ff9b::/96".parse().unwrap());
    for mut gateway in Gateway::each(&settings) {
        let before = gateway.totals();
        gateway.on_engines(|engine, _| assert_eq!(engine.canned(), Ok(())));
        assert!(gateway.is_empty() && gateway.totals() == before);
        assert_eq!((gateway.run().len(), gateway.blocks(), gateway.subscribers()), (0, 0, 0));
        // Without an address of the pool there is nothing to translate to.
        gateway.change(Change::Pool4(Vec::new()));
        gateway
            .on_engines(|engine, _| assert_eq!(engine.canned(), Err(Failure::Refused(DropReason::NotPool4))));
    }
}
