//! An address that the machine shares with the pool: what goes into the TUN, in which shape, and what stays.

use std::time::Duration;

use sampan::nat64::mirror::{Rule, Scope};
use sampan::nat64::settings::Protocol;
use sampan::nat64::witness::FlowWitness;
use sampan::time::Instant;
use sampan::xlat::{Delta, FlowPair};

use crate::kernel::{Bench, ETHERNET, Extra, PASS, REDIRECT, SHOT, alone, now};
use crate::support::packet::{
    ACK, FIN, Packet, RST, SYN, at, echo_reply, echo_request, error, ip, other, tcp, udp,
};

const OWN: &str = "198.51.100.1";
const PEER: &str = "203.0.113.9";
const LOW: u16 = 40_000;
const HIGH: u16 = 40_999;

fn bench() -> Bench {
    Bench::new(|config| {
        config.pool4 = vec!["192.0.2.0/24".parse().unwrap()];
        config.shared = vec![(OWN.parse().unwrap(), LOW..=HIGH)];
        config.tun_index = 1;
    })
}

/// Where a packet goes.
fn word(bench: &Bench, bytes: &[u8]) -> u32 {
    bench.offer(bytes, Extra::default()).unwrap().0
}

/// A packet as a fragment.
fn fragment(packet: &Packet, offset: u16, more: bool) -> Vec<u8> {
    let mut bytes = packet.bytes();
    let flags = offset | u16::from(more) << 13;
    bytes[6..8].copy_from_slice(&flags.to_be_bytes());
    with_checksum(bytes)
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let header = usize::from(bytes[0] & 15) * 4;
    bytes[10..12].fill(0);
    let sum = bytes[..header].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn what_may_be_the_pools_goes_into_the_tun_and_the_rest_stays() {
    alone(|| {
        let bench = bench();
        let to = |port: u16| at(OWN, port);
        let from = at(PEER, 53);
        // Both ends of the range, and what lies beside it.
        for (port, expected) in
            [(LOW, REDIRECT), (HIGH, REDIRECT), (LOW - 1, PASS), (HIGH + 1, PASS), (22, PASS)]
        {
            let mut packets = vec![udp(from, to(port), b"answer")];
            packets
                .extend([SYN, SYN | ACK, ACK, FIN | ACK, RST].map(|flags| tcp(from, to(port), flags, b"")));
            packets.push(udp(from, to(port), b"with options").options(&[1; 8]));
            packets.push(echo_request(ip(PEER), ip(OWN), port, b"ping"));
            packets.push(echo_reply(ip(PEER), ip(OWN), port, b"pong"));
            // Errors about what the pool, or the machine, has sent.
            let ours = [
                udp(to(port), from, b"question"),
                tcp(to(port), from, SYN, b""),
                echo_request(ip(OWN), ip(PEER), port, b"ping"),
                udp(to(port), from, b"question").options(&[1; 12]),
            ];
            for (kind, code) in [(3, 3), (3, 4), (11, 0), (12, 0)] {
                packets
                    .extend(ours.iter().map(|p| error(ip("192.0.2.77"), ip(OWN), kind, code, 0, &p.bytes())));
            }
            for packet in packets {
                assert_eq!(word(&bench, &packet.bytes()), expected, "port {port}: {packet:?}");
            }
            // Nobody asks for a redirect, and a router may quote no more than eight bytes.
            let quote = &ours[0].bytes()[..28];
            assert_eq!(word(&bench, &error(ip(PEER), ip(OWN), 11, 0, 0, quote).bytes()), expected);
            assert_eq!(word(&bench, &error(ip(PEER), ip(OWN), 5, 1, 0, quote).bytes()), PASS);
        }
        let in_range = udp(from, to(LOW), b"a datagram of some length");
        // Whose a fragment is nobody can say; of a protocol that is not translated it is the machine's.
        for (offset, more) in [(0, true), (1, true), (100, false)] {
            for packet in
                [&in_range, &udp(from, to(22), b"other"), &echo_request(ip(PEER), ip(OWN), 1, b"ping")]
            {
                assert_eq!(word(&bench, &fragment(packet, offset, more)), REDIRECT);
            }
            let gre = other(ip(PEER), ip(OWN), 47, &[0; 40]);
            assert_eq!(word(&bench, &fragment(&gre, offset, more)), PASS);
            assert_eq!(word(&bench, &gre.bytes()), PASS);
        }
        // A quote that is a later fragment, or somebody else's, or cut short, says nothing.
        for quote in [
            fragment(&udp(to(LOW), from, b"question"), 3, true),
            udp(at("198.51.100.2", LOW), from, b"question").bytes(),
            udp(to(LOW), from, b"question").bytes()[..20].to_vec(),
            udp(to(LOW), from, b"question").bytes()[..12].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(
                word(&bench, &error(ip(PEER), ip(OWN), 3, 1, 0, &quote).bytes()),
                PASS,
                "{quote:02x?}"
            );
        }
        // Other messages, a source that cannot be, too short for ports, other addresses.
        let stamp = error(ip(PEER), ip(OWN), 13, 0, u32::from(LOW) << 16, &[0; 12]);
        let forged = udp(at(OWN, 53), to(LOW), b"forged");
        let short = {
            let mut bytes = udp(from, to(LOW), b"").bytes();
            bytes.truncate(22);
            bytes[3] = 22;
            with_checksum(bytes)
        };
        for bytes in [stamp.bytes(), forged.bytes(), short, udp(from, at("198.51.100.2", LOW), b"").bytes()] {
            assert_eq!(word(&bench, &bytes), PASS, "{bytes:02x?}");
        }
        // A pool of the usual kind has its route.
        assert_eq!(word(&bench, &udp(from, at("192.0.2.1", LOW), b"routed").bytes()), PASS);
    });
}

/// The kernel takes one hop off what it routes into the TUN, and cuts off what is behind the packet.
#[test]
fn it_goes_into_the_tun_as_if_it_were_routed() {
    alone(|| {
        let bench = bench();
        for (hops, left) in [(64, 63), (2, 1), (1, 0), (0, 0)] {
            for packet in [
                udp(at(PEER, 53), at(OWN, LOW), b"answer"),
                tcp(at(PEER, 80), at(OWN, HIGH), SYN | ACK, b""),
                echo_reply(ip(PEER), ip(OWN), LOW, b"pong").options(&[1; 4]),
            ] {
                let packet = packet.hops(hops);
                for padding in [0, 14] {
                    for summed in [false, padding == 0] {
                        let extra = Extra { padding, summed, ..Extra::default() };
                        let (word, frame) = bench.offer(&packet.bytes(), extra).unwrap();
                        assert_eq!(word, REDIRECT);
                        let expected = packet.clone().hops(left).bytes();
                        assert_eq!(frame[ETHERNET..], expected, "{packet:?} {extra:?}");
                    }
                }
            }
        }
        // What stays is untouched.
        let own = udp(at(PEER, 53), at(OWN, 22), b"own").hops(9).bytes();
        let (word, frame) = bench.offer(&own, Extra { padding: 14, ..Extra::default() }).unwrap();
        assert_eq!(
            (word, &frame[ETHERNET..][..own.len()], frame.len()),
            (PASS, &own[..], ETHERNET + own.len() + 14)
        );
    });
}

#[test]
fn what_is_the_machines_is_neither_policed_nor_counted_nor_kept_by_an_orphan() {
    alone(|| {
        let mut bench = Bench::new(|config| {
            config.pool4 = Vec::new();
            config.shared = vec![(OWN.parse().unwrap(), LOW..=HIGH)];
            config.tun_index = 1;
            // Whatever this machine's clock says, the first nanosecond is longer ago.
            config.orphan_limit = Duration::from_nanos(now().as_nanos() / 2);
            (config.miss_rate, config.miss_burst) = (10, 10);
        });
        let own = udp(at(PEER, 53), at(OWN, 22), b"own").bytes();
        let pools = udp(at(PEER, 53), at(OWN, LOW), b"pool").bytes();
        for _ in 0..200 {
            assert_eq!(word(&bench, &own), PASS);
        }
        assert_eq!((bench.counter("up_miss"), bench.counter("drop_policed")), (0, 0));
        let words: Vec<_> = (0..100).map(|_| word(&bench, &pools)).collect();
        let into_tun = words.iter().filter(|word| **word == REDIRECT).count();
        assert!(
            (5..30).contains(&into_tun) && words.iter().filter(|w| **w == SHOT).count() == 100 - into_tun
        );
        assert_eq!(bench.counter("up_miss"), into_tun as u64);
        // A rule comes first.
        let flow = FlowPair {
            src6: "2001:db8:1::1".parse().unwrap(),
            port6: 7,
            dst6: "64:ff9b::cb00:7109".parse().unwrap(),
            src4: OWN.parse().unwrap(),
            port4: LOW,
            dst4: PEER.parse().unwrap(),
            peer_port: 53,
        };
        let scope = Scope { number: 0, generation: 0 };
        let rule = Rule { protocol: Protocol::Udp, flow, delta: Delta::v6_to_v4(&flow), scope };
        let mut mirror = bench.fast_path.mirrors(1).remove(0);
        mirror.install(now(), &rule, &FlowWitness::default(), 0).unwrap();
        assert_eq!(bench.feed(&pools, Extra::default()).unwrap().0, REDIRECT);
        assert_eq!(bench.counter("sent_v4_to_v6"), 1);
        // Nobody lives: the kernel has its address for itself.
        bench.restart();
        bench.fast_path.heartbeat(Instant::from_nanos(1));
        assert_eq!((word(&bench, &pools), word(&bench, &own)), (PASS, PASS));
    });
}
