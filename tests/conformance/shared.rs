//! A pool address that the machine has itself: what is not the pool's is handed back, and clients do not come by it.

use sampan::nat64::settings::{Hops, Pool4Range, Settings};
use sampan::wire::packet::Offload;

use crate::fragments::pieces;
use crate::support::packet::{ACK, SYN, echo_reply, echo_request, other};
use crate::support::{Gateway, Packet, at, error, ip, settings, tcp, udp};
use crate::{client, open_udp, seen6, server, server6};

const OWN: &str = "198.51.100.1";

/// The pool is one address from port 40000 on; the kernel counts hops, as in a real gateway.
fn shared() -> Settings {
    let mut settings = settings();
    let range = Pool4Range::new("198.51.100.1/32".parse().unwrap(), 40_000..=65_535);
    settings.pool4.ranges = vec![Pool4Range { shared: true, ..range }];
    settings.hops = Hops::KernelForwards;
    settings
}

/// Feeds bytes that must come out as the machine gets them: unchanged, with the hop that was taken off on the way.
#[track_caller]
fn returned(gateway: &mut Gateway, bytes: Vec<u8>, whole: &Packet) {
    let before = gateway.totals();
    let out = gateway.send_raw(bytes, Offload::default());
    let after = gateway.totals();
    assert_eq!(gateway.drops_since(&before), [], "{whole:?}");
    assert_eq!((out.len(), after.returned - before.returned), (1, 1), "{whole:?}");
    let same = Packet::parse(&out[0].bytes).unwrap();
    assert_eq!(same, whole.clone().hops(whole.hops + 1).id(same.id).df(same.df));
}

#[test]
fn a_datagram_of_the_machine_is_handed_back_when_it_is_whole() {
    for mut gateway in Gateway::each(&shared()) {
        for whole in [
            udp(server(53), at(OWN, 514), &[7; 3000]).hops(0),
            udp(server(53), at(OWN, 39_999), &[7; 3000]),
            tcp(server(80), at(OWN, 22), ACK, &[7; 3000]),
            tcp(server(80), at(OWN, 22), SYN, &[7; 3000]),
            echo_request(server(0).ip(), ip(OWN), 1, &[7; 4000]),
            // With an identifier that could be the pool's, but is nobody's.
            echo_request(server(0).ip(), ip(OWN), 50_000, &[7; 4000]),
            echo_reply(server(0).ip(), ip(OWN), 50_000, &[7; 4000]),
        ] {
            let mut pieces = pieces(&whole, 1480, 7);
            let last = pieces.pop().unwrap();
            for piece in pieces {
                assert!(gateway.send_raw(piece, Offload::default()).is_empty());
            }
            returned(&mut gateway, last, &whole);
        }
        assert!(gateway.is_empty());
    }
}

#[test]
fn echoes_and_errors_about_them_that_are_nobodys_are_the_machines() {
    for mut gateway in Gateway::each(&shared()) {
        let ping = echo_request(ip(OWN), server(0).ip(), 50_000, b"from here");
        let pong = echo_reply(server(0).ip(), ip(OWN), 50_000, b"from here");
        let lost = error(ip("203.0.113.1"), ip(OWN), 11, 0, 0, &ping.bytes());
        for packet in [&pong, &lost] {
            returned(&mut gateway, packet.bytes(), packet);
        }
        // Ports of the pool are nobody else's: what has no mapping, or no session, is nobody's.
        gateway.refuse(&udp(server(53), at(OWN, 50_000), b"q"), "no_bib");
        let question = udp(at(OWN, 50_000), server(53), b"q");
        gateway.refuse(&error(ip("203.0.113.1"), ip(OWN), 3, 1, 0, &question.bytes()), "no_session");
        // What belongs to a client goes to it.
        let mapped = open_udp(&mut gateway, client(1));
        assert!(mapped.ip() == ip(OWN) && mapped.port() >= 40_000);
        gateway.translate(&udp(server(53), mapped, b"answer"));
    }
}

/// The TUN of such a gateway lets the machine's own addresses in as sources, so the engine must not.
#[test]
fn what_pretends_to_come_from_the_machine_is_not_handed_back() {
    for mut gateway in Gateway::each(&shared()) {
        gateway.set_own_addresses(&[OWN.parse().unwrap(), "192.0.2.1".parse().unwrap()]);
        for (from, reason) in [
            (OWN, "illegal_source"),
            ("192.0.2.1", "not_pool4"),
            ("127.0.0.1", "not_pool4"),
            ("224.0.0.1", "not_pool4"),
        ] {
            gateway.refuse(&udp(at(from, 53), at(OWN, 514), b"forged"), reason);
        }
        gateway.refuse(&other(server(0).ip(), ip("192.0.2.7"), 47, b""), "not_pool4");
    }
}

#[test]
fn o05_clients_reach_each_other_by_the_shared_address_and_not_the_machine() {
    for mut gateway in Gateway::each(&shared()) {
        for to in [22, 39_999] {
            let to = seen6(&gateway, at(OWN, to));
            assert!(gateway.refuse(&tcp(client(1), to, SYN, b""), "own_address").is_some());
            assert!(gateway.refuse(&udp(client(1), to, b"q"), "own_address").is_some());
        }
        let ping = echo_request(client(1).ip(), seen6(&gateway, at(OWN, 0)).ip(), 9, b"ping");
        // RFC 7915 §5.4: a discarded ICMPv6 packet is not answered.
        assert_eq!(gateway.refuse(&ping, "own_address"), None);
        assert!(gateway.is_empty());
        // RFC 6146 §3.8: a hairpin.
        let to = server6(&gateway, 53);
        let mapped = gateway.translate(&udp(client(2), to, b"first")).source();
        let seen = seen6(&gateway, mapped);
        let out = gateway.translate(&udp(client(1), seen, b"hello"));
        assert_eq!((out.destination(), out.data()), (client(2), &b"hello"[..]));
    }
}
