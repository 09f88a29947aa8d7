//! RFC 6146 §3.8: two clients behind one gateway that know each other by their pool addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sampan::nat64::settings::{Filter, Filtering, RowFilter, Settings};

use crate::support::packet::{ACK, FIN, RST, SYN};
use crate::support::{Gateway, L4, at, echo_reply, echo_request, error, settings, tcp, udp};
use crate::{forwarded, open_udp, seen6, server, server6};

/// Two clients on the same worker and on different ones, of gateways with one and with three workers.
fn each(test: impl Fn(Gateway, IpAddr, IpAddr)) {
    each_with(&settings(), test);
}

fn each_with(settings: &Settings, test: impl Fn(Gateway, IpAddr, IpAddr)) {
    for (workers, other) in [(1, 0), (3, 0), (3, 1), (3, 2)] {
        let gateway = Gateway::new(settings.clone(), workers);
        let (a, b) = (gateway.client_of(0, 0), gateway.client_of(other, 1));
        assert_eq!((gateway.owner(a), gateway.owner(b)), (0, other));
        test(gateway, a, b);
    }
}

#[test]
fn f52_f53_g15_udp_between_two_clients() {
    each(|mut gateway, a, b| {
        let (a, b) = (SocketAddr::new(a, 4000), SocketAddr::new(b, 5000));
        let t_b = open_udp(&mut gateway, b);
        let seen_b = seen6(&gateway, t_b);
        let packet = udp(a, seen_b, b"hello");
        let arrived = gateway.translate(&packet);
        // Exactly one hop for both halves; B sees A's pool address.
        let t_a = gateway.bib_rows(&RowFilter { port: Some(4000), ..RowFilter::default() });
        let seen_a = seen6(&gateway, at(t_a[0].src4, t_a[0].src4_port));
        assert_eq!(arrived, forwarded(&packet, seen_a, b));
        let answer = udp(b, seen_a, b"hello yourself");
        assert_eq!(gateway.translate(&answer), forwarded(&answer, seen_b, a));
        // A → T_B, and on B's side a session with T_A: two sessions beside B's first one.
        assert_eq!((gateway.sessions(), gateway.bindings()), ([0, 3, 0], 2));
        gateway.advance(Duration::from_secs(300));
        assert!(gateway.is_empty());
    });
}

#[test]
fn f52_f53_tcp_between_two_clients() {
    each(|mut gateway, a, b| {
        let (a, b) = (SocketAddr::new(a, 4000), SocketAddr::new(b, 5000));
        let t_b = gateway.translate(&tcp(b, server6(&gateway, 80), SYN, b"")).source();
        let seen_b = seen6(&gateway, t_b);
        let seen_a = gateway.translate(&tcp(a, seen_b, SYN, b"")).source();
        assert!(gateway.settings().pool6[0].contains(match seen_a.ip() {
            IpAddr::V6(v6) => v6,
            IpAddr::V4(v4) => panic!("{v4}"),
        }));
        assert_eq!(gateway.translate(&tcp(b, seen_a, SYN | ACK, b"")).destination(), a);
        for flags in [ACK, ACK | FIN] {
            assert_eq!(gateway.translate(&tcp(a, seen_b, flags, b"data")).source(), seen_a);
            assert_eq!(gateway.translate(&tcp(b, seen_a, flags, b"data")).source(), seen_b);
        }
        let states = gateway.session_rows(&RowFilter { port: Some(4000), ..RowFilter::default() });
        assert_eq!(states[0].state, "V4_FIN_RCV+V6_FIN_RCV");
        gateway.translate(&tcp(a, seen_b, RST, b""));
    });
}

/// One block for each pool address, so that two clients never share an address, and their ports overlap.
fn one_block_each() -> Settings {
    let mut settings = settings();
    settings.pool4.ranges[0].ports = 1024..=1087;
    settings
}

#[test]
fn f55_an_echo_request_to_the_mapping_of_another_client_and_its_reply() {
    each_with(&one_block_each(), |mut gateway, a, b| {
        let y = gateway.y(server(0).ip());
        let of_b = gateway.translate(&echo_request(b, y, 500, b"?"));
        // F-51: the identifier that arrives at T_B is the one that A's is mapped to, so A needs one that is mapped
        // to B's number.
        let (of_a, id_a) = (1..=64)
            .map(|id| (gateway.translate(&echo_request(a, y, id, b"?")), id))
            .find(|(out, _)| out.ports() == of_b.ports())
            .expect("A has its whole block by then");
        let arrived = gateway.translate(&echo_request(a, gateway.y(of_b.src), id_a, b"hello"));
        assert_eq!((arrived.src, arrived.dst, arrived.hops), (gateway.y(of_a.src), b, 63));
        assert_eq!(arrived.l4, L4::Echo { reply: false, id: 500, seq: 7, data: b"hello".to_vec() });
        let back = gateway.translate(&echo_reply(b, arrived.src, 500, b"hello"));
        assert_eq!((back.src, back.dst), (gateway.y(of_b.src), a));
        assert_eq!(back.l4, L4::Echo { reply: true, id: id_a, seq: 7, data: b"hello".to_vec() });
    });
}

#[test]
fn f55_a_port_unreachable_goes_back_through_both_mappings() {
    each(|mut gateway, a, b| {
        let (a, b) = (SocketAddr::new(a, 4000), SocketAddr::new(b, 5000));
        let t_b = open_udp(&mut gateway, b);
        let seen_b = seen6(&gateway, t_b);
        let packet = udp(a, seen_b, b"anybody there?");
        let arrived = gateway.translate(&packet);
        let unreachable = error(b.ip(), arrived.src, 1, 4, 0, &arrived.bytes());
        let back = gateway.translate(&unreachable);
        let (kind, code, _, quote) = back.icmp();
        assert_eq!((kind, code, back.src, back.dst, back.hops), (1, 4, seen_b.ip(), a.ip(), 63));
        // A finds its own packet in it, one hop older.
        assert_eq!(crate::support::Packet::parse(quote).unwrap(), packet.hops(63));
    });
}

#[test]
fn f54_hairpinning_obeys_filtering() {
    let mut settings = one_block_each();
    settings.filtering = Filtering {
        tcp: Filter::AddressDependent,
        udp: Filter::AddressDependent,
        icmp: Filter::AddressDependent,
        ..Filtering::default()
    };
    each_with(&settings, |mut gateway, a, b| {
        let (a, b) = (SocketAddr::new(a, 4000), SocketAddr::new(b, 5000));
        let t_b = open_udp(&mut gateway, b);
        let seen_b = seen6(&gateway, t_b);
        let t_a = open_udp(&mut gateway, a);
        assert_ne!(t_a.ip(), t_b.ip());
        let before = gateway.totals();
        gateway.send(&udp(a, seen_b, b"unasked"));
        assert_eq!(gateway.drops_since(&before), [("filtered", 1)]);
        let seen_a = seen6(&gateway, t_a);
        // B calls A: filtered at A's side too unless A has called T_B, which it has.
        assert_eq!(gateway.translate(&udp(b, seen_a, b"asked")).destination(), a);
        assert_eq!(gateway.translate(&udp(a, seen_b, b"now it may")).destination(), b);
    });
}

#[test]
fn f56_a_packet_to_ones_own_mapping_comes_back_once() {
    each(|mut gateway, a, _| {
        let a = SocketAddr::new(a, 4000);
        let t = open_udp(&mut gateway, a);
        let seen = seen6(&gateway, t);
        let packet = udp(a, seen, b"echo");
        assert_eq!(gateway.translate(&packet), forwarded(&packet, seen, a));
        assert_eq!(gateway.translate(&packet.clone().hops(2)).hops, 1);
        let before = gateway.totals();
        gateway.send(&packet.hops(1));
        assert_eq!(gateway.drops_since(&before), [("hop_limit", 1)]);
    });
}

#[test]
fn f52_to_a_free_pool_port_nobody_answers() {
    each(|mut gateway, a, _| {
        let before = gateway.totals();
        let to = seen6(&gateway, at("198.51.100.3", 9));
        assert_eq!(gateway.send(&udp(SocketAddr::new(a, 4000), to, b"?")), []);
        assert_eq!(gateway.drops_since(&before), [("no_bib", 1)]);
    });
}
