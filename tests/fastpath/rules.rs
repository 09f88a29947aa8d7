//! Rules come and go, and outlive the process that made them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use caps::{CapSet, Capability};
use sampan::io::fastpath::{self, FastPath, Fault, SCOPES};
use sampan::nat64::mirror::{Mirror, Rule, Scope, Traffic};
use sampan::nat64::settings::Protocol;
use sampan::nat64::witness::FlowWitness;
use sampan::time::Instant;
use sampan::xlat::{Delta, FlowPair};

use crate::kernel::{Bench, Extra, PASS, REDIRECT, SHOT, alone, config, now, pins, sh};
use crate::support::packet::{ACK, FIN, Packet, SYN, at, error, ip, tcp, udp};

const CLIENT: &str = "2001:db8:1::1";
const SERVER: &str = "64:ff9b::cb00:7109";

fn rule(port: u16) -> Rule {
    let flow = FlowPair {
        src6: CLIENT.parse().unwrap(),
        port6: port,
        dst6: SERVER.parse().unwrap(),
        src4: Ipv4Addr::new(198, 51, 100, 1),
        port4: port,
        dst4: Ipv4Addr::new(203, 0, 113, 9),
        peer_port: 53,
    };
    let scope = Scope { number: SCOPES - 1, generation: 0 };
    Rule { protocol: Protocol::Udp, flow, delta: Delta::v6_to_v4(&flow), scope }
}

fn up(port: u16) -> Packet {
    udp(at(CLIENT, port), at(SERVER, 53), b"question")
}

fn down(port: u16) -> Packet {
    udp(at("203.0.113.9", 53), at("198.51.100.1", port), b"a longer answer")
}

impl Bench {
    fn word(&self, packet: &Packet) -> u32 {
        self.feed(&packet.bytes(), Extra::default()).unwrap().0
    }

    fn mirror(&self) -> Box<dyn Mirror + Send> {
        self.fast_path.mirrors(1).remove(0)
    }
}

#[test]
fn a_rule_holds_from_its_installation_to_its_removal_and_counts() {
    alone(|| {
        let bench = Bench::new(|_| {});
        let mut mirror = bench.mirror();
        assert_eq!((bench.word(&up(1)), bench.word(&down(1))), (PASS, PASS));
        let handle = mirror.install(now(), &rule(1), &FlowWitness::default(), 0).unwrap();
        let fresh = mirror.seen(handle).unwrap();
        assert_eq!(
            (fresh.last6, fresh.last4, fresh.from6),
            (Instant::ZERO, Instant::ZERO, Traffic::default())
        );
        let before = now();
        assert_eq!(
            (bench.word(&up(1)), bench.word(&down(1)), bench.word(&down(1))),
            (REDIRECT, REDIRECT, REDIRECT)
        );
        let seen = mirror.remove(now(), handle).unwrap();
        assert_eq!(seen.from6, Traffic { packets: 1, bytes: 48 + 8 });
        assert_eq!(seen.from4, Traffic { packets: 2, bytes: 2 * (28 + 15) });
        for last in [seen.last6, seen.last4] {
            // Times are kept in units of some 67 ms.
            assert!(before.since(last) < Duration::from_millis(100) && last <= now(), "{seen:?}");
        }
        assert_eq!((bench.word(&up(1)), bench.word(&down(1))), (PASS, PASS));
        assert_eq!((mirror.remove(now(), handle), mirror.seen(handle)), (None, None));
        assert_eq!(
            (bench.counter("up_miss"), bench.counter("sent_v4_to_v6"), bench.counter("bytes_v4_to_v6")),
            (4, 2, 86)
        );
    });
}

#[test]
fn a_slot_rests_before_it_is_another_flows() {
    alone(|| {
        let bench = Bench::new(|config| config.max_flows = 2);
        let mut mirror = bench.mirror();
        let witness = FlowWitness::default();
        let first = mirror.install(now(), &rule(1), &witness, 0).unwrap();
        mirror.install(now(), &rule(2), &witness, 0).unwrap();
        assert_eq!(mirror.install(now(), &rule(3), &witness, 0), None, "full");
        mirror.remove(now(), first).unwrap();
        assert_eq!(mirror.install(now(), &rule(3), &witness, 0), None, "it rests");
        assert_eq!((bench.word(&up(2)), bench.word(&up(3))), (REDIRECT, PASS), "what is there stays");
        sleep(Duration::from_millis(300));
        // The same 5-tuple again, and no second rule for one.
        mirror.install(now(), &rule(1), &witness, 0).unwrap();
        assert_eq!(bench.word(&up(1)), REDIRECT);
        assert_eq!(mirror.install(now(), &rule(1), &witness, 0), None);
    });
}

#[test]
fn what_no_rule_can_say_is_refused() {
    alone(|| {
        let bench = Bench::new(|_| {});
        let mut mirror = bench.mirror();
        let icmp = Rule { protocol: Protocol::Icmp, ..rule(1) };
        assert_eq!(mirror.install(now(), &icmp, &FlowWitness::default(), 0), None);
        let far = Rule { scope: Scope { number: SCOPES, generation: 0 }, ..rule(1) };
        assert_eq!(mirror.install(now(), &far, &FlowWitness::default(), 0), None);
        assert_eq!(mirror.seen(u32::MAX), None);
    });
}

#[test]
fn a_generation_ends_its_scope_and_no_other() {
    alone(|| {
        let bench = Bench::new(|_| {});
        let mut mirror = bench.mirror();
        mirror.install(now(), &rule(1), &FlowWitness::default(), 0).unwrap();
        let other = Rule { scope: Scope { number: 0, generation: 0 }, ..rule(2) };
        mirror.install(now(), &other, &FlowWitness::default(), 0).unwrap();
        bench.fast_path.set_generation(SCOPES - 1, 1);
        assert_eq!((bench.fast_path.generation(SCOPES - 1), bench.fast_path.generation(0)), (1, 0));
        assert_eq!((bench.word(&up(1)), bench.word(&down(1)), bench.word(&up(2))), (PASS, PASS, REDIRECT));
        assert_eq!(bench.counter("up_stale"), 2);
        let new = Rule { scope: Scope { number: SCOPES - 1, generation: 1 }, ..rule(3) };
        mirror.install(now(), &new, &FlowWitness::default(), 0).unwrap();
        assert_eq!(bench.word(&up(3)), REDIRECT);
    });
}

#[test]
fn without_a_heartbeat_rules_end() {
    alone(|| {
        let bench = Bench::new(|config| config.orphan_limit = Duration::from_millis(400));
        bench.mirror().install(now(), &rule(1), &FlowWitness::default(), 0).unwrap();
        assert_eq!(bench.word(&up(1)), REDIRECT);
        sleep(Duration::from_millis(600));
        assert_eq!((bench.word(&up(1)), bench.word(&down(1)), bench.counter("up_orphan")), (PASS, PASS, 2));
        bench.fast_path.heartbeat(now());
        assert_eq!(bench.word(&up(1)), REDIRECT);
    });
}

#[test]
fn a_witness_can_be_corrected() {
    alone(|| {
        let bench = Bench::new(|_| {});
        let mut mirror = bench.mirror();
        let handle = mirror.install(now(), &rule(1), &FlowWitness::default(), 0).unwrap();
        let mut witness = FlowWitness::default();
        (witness.v6.end, witness.v4.window, witness.v4.scale, witness.v4.flags) = (5, 6, 7, 8);
        mirror.correct(handle, &witness);
        assert_eq!(mirror.seen(handle).unwrap().witness, witness);
    });
}

#[test]
fn a_successor_takes_the_rules_over() {
    alone(|| {
        let mut bench = Bench::new(|_| {});
        let mut mirror = bench.mirror();
        let handles =
            [1, 2, 3].map(|port| mirror.install(now(), &rule(port), &FlowWitness::default(), 0).unwrap());
        mirror.remove(now(), handles[2]);
        assert_eq!(bench.word(&up(1)), REDIRECT);
        drop(mirror);
        // The same maps, the programs anew.
        bench.restart();
        let mut found: Vec<_> = bench.fast_path.records().collect();
        found.sort_by_key(|record| record.rule.flow.port6);
        let rules: Vec<_> = found.iter().map(|record| (record.handle, record.rule)).collect();
        assert_eq!(rules, [(handles[0], rule(1)), (handles[1], rule(2))]);
        assert_eq!((found[0].seen.from6.packets, found[1].seen.from6.packets), (1, 0));
        bench.fast_path.discard(handles[1]);
        assert_eq!((bench.word(&up(1)), bench.word(&up(2)), bench.word(&up(3))), (REDIRECT, PASS, PASS));
        // Any worker can end an old rule, and make as many new ones as there is room.
        let mut mirrors = bench.fast_path.mirrors(3);
        assert_eq!(mirrors[2].remove(now(), handles[0]).unwrap().from6.packets, 2);
        sleep(Duration::from_millis(300));
        let mut made = 0;
        for mirror in &mut mirrors {
            while mirror.install(now(), &rule(100 + made), &FlowWitness::default(), 0).is_some() {
                made += 1;
            }
        }
        assert_eq!(u32::from(made), bench.fast_path.flows());
    });
}

/// Every rule of these ports is found from both sides, and no packet is another one's.
fn each_is_found(bench: &Bench, mirror: &dyn Mirror, handles: &[(u16, u32)]) {
    for (port, _) in handles {
        assert_eq!((bench.word(&up(*port)), bench.word(&down(*port))), (REDIRECT, REDIRECT), "{port}");
    }
    for (port, handle) in handles {
        let seen = mirror.seen(*handle).unwrap();
        assert_eq!((seen.from6.packets, seen.from4.packets), (1, 1), "{port}");
    }
}

#[test]
fn a_full_table_is_found_though_entries_look_alike() {
    alone(|| {
        let bench = Bench::new(|_| {});
        let mut mirror = bench.mirror();
        // Eight bits in lines of four: some twenty pairs in each direction have equal ones.
        let handles: Vec<_> = (1..=4096)
            .map(|port| (port, mirror.install(now(), &rule(port), &FlowWitness::default(), 0).unwrap()))
            .collect();
        each_is_found(&bench, &*mirror, &handles);
        assert_eq!((bench.word(&up(4097)), bench.word(&down(4097))), (PASS, PASS));
        for (_, handle) in handles {
            mirror.remove(now(), handle).unwrap();
        }
        for name in ["index6", "index4"] {
            assert!(lines(&bench, name).iter().all(|line| line.unwrap() == [0; 16]), "{name}");
        }
    });
}

/// The index as the kernel has it.
fn lines(bench: &Bench, name: &str) -> Array<MapData, [u32; 16]> {
    Map::Array(MapData::from_pin(bench.pins.join(name)).unwrap()).try_into().unwrap()
}

#[test]
fn flows_of_a_full_line_are_found_in_the_next_one() {
    alone(|| {
        let bench = Bench::new(|config| config.max_flows = 64);
        let mut mirror = bench.mirror();
        // Every second line is full of what leads nowhere.
        let mut junk = [0x00ff_ffff; 16];
        junk[15] = 0;
        for name in ["index6", "index4"] {
            let mut lines = lines(&bench, name);
            for at in (0..lines.len()).step_by(2) {
                lines.set(at, junk, 0).unwrap();
            }
        }
        let handles: Vec<_> = (1..=40)
            .map(|port| (port, mirror.install(now(), &rule(port), &FlowWitness::default(), 0).unwrap()))
            .collect();
        let spilled = |name| lines(&bench, name).iter().map(|line| line.unwrap()[15]).sum::<u32>();
        assert!(spilled("index6") > 0 && spilled("index4") > 0);
        each_is_found(&bench, &*mirror, &handles);
        assert_eq!(mirror.install(now(), &rule(40), &FlowWitness::default(), 0), None, "twice");
        for (port, handle) in handles {
            mirror.remove(now(), handle).unwrap();
            assert_eq!((bench.word(&up(port)), bench.word(&down(port))), (PASS, PASS), "{port}");
        }
        assert_eq!((spilled("index6"), spilled("index4")), (0, 0));
    });
}

#[test]
fn what_a_killed_process_left_half_done_is_taken_back() {
    alone(|| {
        let mut bench = Bench::new(|config| config.max_flows = 2);
        let mut mirror = bench.mirror();
        let [half, whole] =
            [1, 2].map(|port| mirror.install(now(), &rule(port), &FlowWitness::default(), 0).unwrap());
        drop(mirror);
        let map = Map::Array(MapData::from_pin(bench.pins.join("records")).unwrap());
        let mut records: Array<_, [u8; 128]> = map.try_into().unwrap();
        let mut record = records.get(&half, 0).unwrap();
        // Changing: entries are there, the rule does not hold.
        record[47] = 1;
        records.set(half, record, 0).unwrap();
        assert_eq!((bench.word(&up(1)), bench.word(&up(2))), (PASS, REDIRECT));
        bench.restart();
        assert_eq!(bench.fast_path.records().map(|record| record.handle).collect::<Vec<_>>(), [whole]);
        let entries = |name| {
            let found: Vec<_> = lines(&bench, name).iter().flat_map(Result::unwrap).collect();
            found.iter().filter(|entry| **entry != 0).count()
        };
        assert_eq!((entries("index6"), entries("index4")), (1, 1));
        assert_eq!(bench.mirror().install(now(), &rule(1), &FlowWitness::default(), 0), Some(half));
        assert_eq!((bench.word(&up(1)), bench.word(&up(2))), (REDIRECT, REDIRECT));
    });
}

#[test]
fn maps_of_another_layout_are_left_alone() {
    alone(|| {
        let bench = Bench::new(|_| {});
        let map = Map::Array(MapData::from_pin(bench.pins.join("config")).unwrap());
        let mut board: Array<_, [u64; 195]> = map.try_into().unwrap();
        let mut words = board.get(&0, 0).unwrap();
        words[0] = words[0] >> 32 << 32 | 999;
        board.set(0, words, 0).unwrap();
        let config = config(bench.pins.clone());
        let fault = FastPath::load(&config).err().unwrap();
        assert!(matches!(fault, Fault::Layout { .. }), "{fault:?}");
        fastpath::flush(&bench.pins).unwrap();
        assert!(FastPath::load(&config).is_ok());
    });
}

#[test]
fn a_flood_of_one_subscriber_stays_its_own() {
    alone(|| {
        let bench = Bench::new(|config| (config.miss_rate, config.miss_burst) = (10, 40));
        let syn = |client: String, port| tcp(at(client, port), at(SERVER, 80), SYN, b"");
        let passed = |packets: &mut dyn Iterator<Item = Packet>| {
            packets
                .filter(|packet| match bench.word(packet) {
                    PASS => true,
                    SHOT => false,
                    other => panic!("{other}"),
                })
                .count()
        };
        // Three quarters of the bucket, for all hosts of the /64 together.
        let flood = passed(&mut (0..500).map(|n| syn(format!("2001:db8:1::{:x}", n % 7 + 1), n)));
        assert!((30..=34).contains(&flood), "{flood}");
        // The rest is for what ends or corrects flows.
        let fins = passed(&mut (0..100).map(|n| tcp(at(CLIENT, n), at(SERVER, 80), FIN | ACK, b"")));
        assert!((8..=14).contains(&fins), "{fins}");
        let errors = passed(&mut (0..5).map(|_| error(ip("2001:db8:2::1"), ip(SERVER), 1, 4, 0, &[0; 48])));
        assert_eq!(errors, 5, "another subscriber's bucket");
        // Established flows do not notice.
        bench.mirror().install(now(), &rule(1), &FlowWitness::default(), 0).unwrap();
        assert_eq!(bench.word(&up(1)), REDIRECT);
        // Towards IPv4 it goes by blocks of ports.
        let probe = |port| tcp(at("203.0.113.77", 80), at("198.51.100.1", port), SYN, b"");
        let flood = passed(&mut (0..500).map(|n| probe(1024 + n % 64)));
        assert!((30..=34).contains(&flood), "{flood}");
        assert_eq!(bench.word(&probe(1024 + 64)), PASS);
        assert!(bench.counter("drop_policed") > 900);
        // What has been waited for comes back.
        sleep(Duration::from_millis(1100));
        assert_eq!(bench.word(&syn(CLIENT.into(), 9)), PASS);
    });
}

#[test]
fn filters_stand_where_they_are_named_and_nowhere_else() {
    alone(|| {
        let bench = Bench::new(|_| {});
        let filters =
            |link: &str| sh(&format!("tc filter show dev {link} ingress")).matches("direct-action").count();
        let mut config = config(bench.pins.clone());
        for _ in 0..2 {
            // A successor replaces them.
            fastpath::open(&config).unwrap();
            assert_eq!((filters("in0"), filters("out0"), filters("in1")), (1, 1, 0));
        }
        let text = sh("tc filter show dev in0 ingress");
        assert!(
            text.contains("pref 1446") && text.contains("handle 0x6") && text.contains("sampan_v6"),
            "{text}"
        );
        // One link for both families.
        config.outside = vec!["in0".into()];
        let fast_path = fastpath::open(&config).unwrap();
        assert_eq!((filters("in0"), filters("out0")), (2, 0));
        drop(fast_path);
        assert_eq!(filters("in0"), 2, "they outlive the process");
        for (link, reason) in [("lo", "no Ethernet header"), ("none", "no such interface")] {
            config.inside = vec![link.into()];
            let fault = fastpath::open(&config).err().unwrap();
            assert!(matches!(&fault, Fault::Interface { name, .. } if name == link), "{fault:?}");
            assert!(fault.to_string().contains(reason), "{fault}");
        }
        fastpath::flush(&bench.pins).unwrap();
        assert_eq!((filters("in0"), filters("out0")), (0, 0));
        assert!(!bench.pins.join("records").exists() && !bench.pins.join("index6").exists());
    });
}

#[test]
fn without_privileges_there_is_one_clear_reason() {
    alone(|| {
        let (_dir, pins) = pins();
        for capability in [Capability::CAP_SYS_ADMIN, Capability::CAP_BPF] {
            caps::drop(None, CapSet::Effective, capability).unwrap();
        }
        let fault = fastpath::open(&config(pins.clone())).err().unwrap();
        assert_eq!(fault, Fault::NoPrivileges { reason: "no CAP_BPF and CAP_PERFMON".into() });
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
        let fault = fastpath::open(&config(pins)).err().unwrap();
        assert_eq!(fault, Fault::NoPrivileges { reason: "no CAP_NET_ADMIN".into() });
    });
}

#[test]
fn more_prefixes_than_the_programs_look_at_are_refused() {
    alone(|| {
        let (_dir, pins) = pins();
        let mut config = config(pins);
        let prefix =
            |n: u16| format!("{}/128", Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)).parse().unwrap();
        config.pool6 = (0..33).map(prefix).collect();
        assert_eq!(FastPath::load(&config).err().unwrap(), Fault::TooManyPools { found: 33, most: 32 });
    });
}
