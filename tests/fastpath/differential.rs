//! The same packets to the programs and to the Rust translator: equal bytes, or passed up unchanged.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use sampan::nat64::mirror::{Mirror, Rule, Scope};
use sampan::nat64::settings::Protocol;
use sampan::nat64::tcp::Side;
use sampan::nat64::witness::{Direction, FlowWitness, Segment};
use sampan::wire::packet::{Checksum, Gso, GsoKind, Offload, PacketBuf, View};
use sampan::xlat::{Delta, FlowPair, Hop, Rewrite, v4_to_v6, v6_to_v4};

use crate::kernel::{Bench, Extra, PASS, REDIRECT, alone, now};
use crate::support::fast::judge;
use crate::support::packet::{ACK, FIN, L4, Packet, RST, SYN, at, tcp, udp};
use crate::support::traffic::{Rng, Traffic};

const SCOPE: Scope = Scope { number: 3, generation: 0 };

/// Both translators, and what the second one knows of each flow.
struct Pair {
    bench: Bench,
    mirror: Box<dyn Mirror + Send>,
    /// Handle, flow, witness and tag.
    flows: HashMap<Vec<u8>, (u32, FlowPair, FlowWitness, u32)>,
    ids: BTreeSet<(Ipv4Addr, Ipv4Addr, u8, u16)>,
    translated: usize,
    passed: usize,
}

impl Pair {
    fn new(change: impl FnOnce(&mut sampan::io::fastpath::Config)) -> Self {
        let bench = Bench::new(|config| {
            config.max_flows = 65_536;
            change(config);
        });
        let mirror = bench.fast_path.mirrors(1).remove(0);
        Self { bench, mirror, flows: HashMap::new(), ids: BTreeSet::new(), translated: 0, passed: 0 }
    }

    /// Feeds a packet to both, with a rule for it if it may have one. True when the programs have translated it.
    fn feed(&mut self, bytes: &[u8], mut extra: Extra) -> bool {
        let key = self.know(bytes);
        // The kernel forgets a sum of more than the packet when that is cut off; the harness does not see that.
        extra.summed &= extra.padding == 0 && ip_len(bytes) == bytes.len();
        let (word, out) = match self.bench.feed(bytes, extra) {
            Ok(done) => done,
            // Too short or too long for the kernel's own test harness.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return false,
            Err(e) => panic!("{e}: {bytes:02x?} {extra:?}"),
        };
        if word == PASS {
            let frame = [bytes, &vec![0xaa; extra.padding]].concat();
            assert_eq!(out, frame, "passed up, but not unchanged");
            self.passed += 1;
            return false;
        }
        assert_eq!(word, REDIRECT, "{bytes:02x?} {extra:?}");
        let Some(entry) = key.and_then(|key| self.flows.get_mut(&key)) else {
            panic!("translated without a rule: {bytes:02x?}")
        };
        self.translated += 1;
        let (handle, flow, witness, _) = entry;
        let expected = translate(bytes, flow, witness, extra.gso, &out);
        if out[0] >> 4 == 4 && out[6] & 0x40 == 0 {
            let address = |at: usize| Ipv4Addr::new(out[at], out[at + 1], out[at + 2], out[at + 3]);
            let id = u16::from_be_bytes([out[4], out[5]]);
            assert!(id >= 0xc000, "an identification of the engine's: {id}");
            self.ids.insert((address(12), address(16), out[9], id));
        }
        assert_eq!(out, expected, "{bytes:02x?} {extra:?} {flow:?}");
        let seen = self.mirror.seen(*handle).unwrap();
        assert_eq!(seen.witness, *witness, "the witness of {bytes:02x?}");
        true
    }

    /// Makes a rule for the 5-tuple that a packet seems to have.
    fn know(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let number = self.flows.len() as u32;
        let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let address4 = |at: usize| bytes.get(at..at + 4).map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3]));
        let address6 =
            |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).unwrap()));
        let (key, protocol, flow) = match bytes.first()? >> 4 {
            6 => {
                let (src6, dst6) = (address6(8)?, address6(24)?);
                let (port6, peer_port) = (word(40)?, word(42)?);
                let src4 = Ipv4Addr::from_bits(0xc633_6400 + (number >> 16));
                let flow = FlowPair {
                    src6,
                    port6,
                    dst6,
                    src4,
                    port4: number as u16,
                    dst4: address4(36)?,
                    peer_port,
                };
                ([&[bytes[6]], &bytes[8..44]].concat(), bytes[6], flow)
            }
            4 => {
                let (dst4, src4) = (address4(12)?, address4(16)?);
                let (peer_port, port4) = (word(20)?, word(22)?);
                let src6 = Ipv6Addr::from_bits(0x2001_0db8_0009 << 80 | u128::from(number >> 16));
                let dst6 = Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(dst4.to_bits()));
                let flow = FlowPair { src6, port6: number as u16, dst6, src4, port4, dst4, peer_port };
                ([&[bytes[9]], &bytes[12..24]].concat(), bytes[9], flow)
            }
            _ => return None,
        };
        let protocol = match protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return None,
        };
        if self.flows.contains_key(&key) {
            return Some(key);
        }
        let rule = Rule { protocol, flow, delta: Delta::v6_to_v4(&flow), scope: SCOPE };
        let witness = if protocol == Protocol::Tcp { open() } else { FlowWitness::default() };
        let handle = self.mirror.install(now(), &rule, &witness, number)?;
        self.flows.insert(key.clone(), (handle, flow, witness, number));
        Some(key)
    }
}

/// Length of a packet as its IP header has it.
fn ip_len(bytes: &[u8]) -> usize {
    let word = |at: usize| bytes.get(at..at + 2).map_or(0, |w| usize::from(u16::from_be_bytes([w[0], w[1]])));
    if bytes.first().is_some_and(|b| b >> 4 == 6) { 40 + word(4) } else { word(2) }
}

/// A connection whose numbers are near those of forged segments, so that some are believed and some are not.
fn open() -> FlowWitness {
    let isn = crate::support::packet::ISN + 1;
    let side = |scale| Direction {
        end: isn,
        ack: isn,
        window: 0x4000,
        scale,
        flags: Direction::SEEN | Direction::ACKED | Direction::SCALED,
    };
    FlowWitness { v6: side(2), v4: side(7) }
}

/// What the Rust translator makes of a packet that the programs have translated to `out`.
fn translate(bytes: &[u8], flow: &FlowPair, witness: &mut FlowWitness, gso: u32, out: &[u8]) -> Vec<u8> {
    let delta = Delta::v6_to_v4(flow);
    let mut packet = PacketBuf::from_bytes(bytes);
    if gso > 0 {
        let kind =
            if bytes[if bytes[0] >> 4 == 6 { 6 } else { 9 }] == 6 { GsoKind::Tcp } else { GsoKind::Udp };
        packet.offload.gso = Some(Gso { kind, size: gso as u16, ecn: false });
    }
    let view = packet.parse().unwrap_or_else(|e| panic!("{e:?} for what was translated: {bytes:02x?}"));
    let mut see = |side, payload, l4| {
        if let Some(segment) = Segment::read(&payload, packet.bytes(), l4) {
            assert!(!segment.flags.has(SYN), "translated: {segment:?}");
            let judged = judge(*witness, side, &segment).unwrap_or_else(|| panic!("translated: {segment:?}"));
            *witness = judged.witness;
        }
    };
    match view {
        View::V6(view) => {
            see(Side::V6, view.payload, view.l4);
            let rewrite = Rewrite {
                src: flow.src4,
                dst: flow.dst4,
                src_port: flow.port4,
                dst_port: flow.peer_port,
                delta,
            };
            // The programs have numbers of their own, and need none with DF.
            let id = if out[6] & 0x40 == 0 { u16::from_be_bytes([out[4], out[5]]) } else { 0 };
            let context = v6_to_v4::Context { hop: Hop::Less, mtu4: 1500, id, mss: Some(1400), tos: None };
            let plan = v6_to_v4::plan(&view, &packet, &rewrite, &context)
                .unwrap_or_else(|e| panic!("{e:?} for what was translated: {bytes:02x?}"));
            assert_eq!(plan.cut, None, "{bytes:02x?}");
            plan.apply(&mut packet);
        }
        View::V4(view) => {
            see(Side::V4, view.payload, view.l4);
            let rewrite = Rewrite {
                src: flow.dst6,
                dst: flow.src6,
                src_port: flow.peer_port,
                dst_port: flow.port6,
                delta: delta.reversed(),
            };
            let context = v4_to_v6::Context {
                hop: Hop::Less,
                mtu6: 1500,
                mtu4: 1500,
                lowest_ipv6_mtu: 1280,
                id: 0,
                mss: Some(1400),
                traffic_class: None,
            };
            let plan = v4_to_v6::plan(&view, &packet, &rewrite, &context)
                .unwrap_or_else(|e| panic!("{e:?} for what was translated: {bytes:02x?}"));
            assert_eq!(plan.cut, None, "{bytes:02x?}");
            plan.apply(&mut packet);
        }
    }
    packet.bytes().to_vec()
}

/// An ordinary packet of an established flow, of either family.
fn ordinary(rng: &mut Rng) -> Packet {
    let (client, server) = if rng.chance(50) {
        (
            at(format!("2001:db8:1::{:x}", rng.below(50) + 1), 1024 + rng.below(300) as u16),
            at("64:ff9b::cb00:7109", 443),
        )
    } else {
        (
            at(format!("203.0.113.{}", rng.below(200) + 1), 443),
            at("198.51.100.9", 1024 + rng.below(300) as u16),
        )
    };
    // No longer than what needs no cut, with DF or without.
    let room = rng.below(1200);
    let data = rng.bytes(room);
    let mut packet = if rng.chance(50) {
        let mut packet = tcp(client, server, if rng.chance(50) { ACK } else { ACK | 8 }, &data);
        if let L4::Tcp { seq, ack, window, .. } = &mut packet.l4 {
            *seq = seq.wrapping_add(rng.below(200_000) as u32).wrapping_sub(100_000);
            *ack = ack.wrapping_add(rng.below(200_000) as u32).wrapping_sub(100_000);
            *window = rng.next() as u16;
        }
        packet
    } else {
        udp(client, server, &data)
    };
    packet.tos = rng.next() as u8;
    packet.hops = 2 + rng.below(254) as u8;
    packet.df = rng.chance(50);
    packet.id = rng.next() as u16;
    if packet.src.is_ipv6() {
        packet.flow_label = rng.next() as u32 & 0xf_ffff;
    }
    packet
}

#[test]
fn ordinary_packets_are_translated_to_the_same_bytes() {
    alone(|| {
        let mut pair = Pair::new(|_| {});
        let mut rng = Rng(1);
        for _ in 0..6_000 {
            let packet = ordinary(&mut rng);
            // As Ethernet fills up short frames.
            let padding = if rng.chance(20) { 1 + rng.below(20) } else { 0 };
            let extra = Extra { padding, summed: rng.chance(50), gso: 0 };
            let bytes = packet.bytes();
            assert!(
                pair.feed(&bytes, extra),
                "passed up: {packet:?} {extra:?} {:?}",
                pair.bench.fast_path.counters()
            );
        }
        assert!(pair.ids.len() > 1000, "identifications with DF clear: {}", pair.ids.len());
    });
}

#[test]
fn ends_beyond_doubt_are_carried_and_told() {
    alone(|| {
        let mut pair = Pair::new(|_| {});
        let (mut rng, mut told, mut carried) = (Rng(3), BTreeSet::new(), 0);
        for _ in 0..20_000 {
            let mut packet = ordinary(&mut rng);
            let L4::Tcp { seq, ack, flags, .. } = &mut packet.l4 else { continue };
            *flags = [ACK, FIN | ACK, FIN, RST, RST | ACK, FIN | RST][rng.below(6)];
            if rng.chance(60) {
                let isn = crate::support::packet::ISN + 1;
                (*seq, *ack) = (isn.wrapping_sub(rng.below(3) as u32), isn);
            }
            let is_end = *flags != ACK;
            let bytes = packet.bytes();
            let key = pair.know(&bytes).unwrap();
            let number = pair.flows[&key].3;
            let mut parsed = PacketBuf::from_bytes(&bytes);
            let (side, payload, l4) = match parsed.parse().unwrap() {
                View::V6(view) => (Side::V6, view.payload, view.l4),
                View::V4(view) => (Side::V4, view.payload, view.l4),
            };
            let segment = Segment::read(&payload, &bytes, l4).unwrap();
            let judged = judge(pair.flows[&key].2, side, &segment);
            assert_eq!(pair.feed(&bytes, Extra::default()), judged.is_some(), "{packet:?}");
            carried += usize::from(is_end && judged.is_some());
            if judged.is_some_and(|judged| judged.is_end) {
                assert_eq!(pair.mirror.ended(), Some(number));
                assert!(told.insert(number), "told twice");
            }
            assert_eq!(pair.mirror.ended(), None);
        }
        println!("{} flows, {} ended, {carried} FINs and RSTs carried", pair.flows.len(), told.len());
        assert!(told.len() > 100 && carried > told.len(), "{} {carried}", told.len());
    });
}

#[test]
fn lengths_around_every_limit() {
    alone(|| {
        let mut pair = Pair::new(|_| {});
        let mut far = [0, 0];
        for data in 1180..1500_usize {
            for df in [false, true] {
                let v6 = udp(at("2001:db8:1::1", 4000), at("64:ff9b::cb00:7109", 53), &vec![7; data]);
                // RFC 7915 §5.1: up to the MTU of the route.
                assert_eq!(pair.feed(&v6.bytes(), Extra::default()), data + 28 <= 1500, "{data}");
                let v4 = udp(at("203.0.113.9", 53), at("198.51.100.1", 4000), &vec![7; data]).df(df);
                let limit = if df { 1500 } else { 1280 };
                assert_eq!(pair.feed(&v4.bytes(), Extra::default()), data + 48 <= limit, "{data} {df}");
                far[usize::from(df)] += 1;
            }
        }
        assert!(pair.bench.counter("up_too_big") > 100);
    });
}

#[test]
fn super_packets_go_by_their_segments() {
    alone(|| {
        let mut pair = Pair::new(|_| {});
        let feed = |pair: &mut Pair, packet: &Packet, gso| {
            pair.feed(&packet.bytes(), Extra { gso, ..Extra::default() })
        };
        for size in [1180, 1220, 1221, 1400, 1428, 1440, 1441, 1452, 1453, 1460, 1461] {
            let data = vec![9; 3000];
            let v6 = (at("2001:db8:1::1", 4000), at("64:ff9b::cb00:7109", 443));
            let v4 = (at("203.0.113.9", 443), at("198.51.100.1", 4000));
            assert_eq!(
                feed(&mut pair, &tcp(v6.0, v6.1, ACK, &data), size),
                size + 40 <= 1500,
                "TCP 6 {size}"
            );
            assert_eq!(feed(&mut pair, &udp(v6.0, v6.1, &data), size), size + 28 <= 1500, "UDP 6 {size}");
            // A super-packet of TCP is never cut, whatever its DF says.
            assert_eq!(
                feed(&mut pair, &tcp(v4.0, v4.1, ACK, &data), size),
                size + 60 <= 1500,
                "TCP 4 {size}"
            );
            let df = udp(v4.0, v4.1, &data).df(true);
            assert_eq!(feed(&mut pair, &df, size), size + 48 <= 1500, "UDP 4 DF {size}");
            assert_eq!(feed(&mut pair, &udp(v4.0, v4.1, &data), size), size + 48 <= 1280, "UDP 4 {size}");
        }
        let before = pair.bench.counter("segments_v6_to_v4");
        assert!(feed(&mut pair, &tcp(at("2001:db8:1::1", 4001), at("64:ff9b::1", 1), ACK, &[0; 2900]), 1000));
        assert_eq!(pair.bench.counter("segments_v6_to_v4") - before, 3);
    });
}

#[test]
fn golden_packets() {
    alone(|| {
        let mut pair = Pair::new(|_| {});
        let mut files = Vec::new();
        find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), &mut files);
        assert!(files.len() > 100, "{} golden files", files.len());
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let golden = crate::format::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            for happened in crate::run::run(&golden, 1).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
            {
                for packet in std::iter::once(&happened.input).chain(&happened.out).filter(|p| !p.is_empty())
                {
                    pair.feed(packet, Extra::default());
                }
            }
        }
        println!("{} translated, {} passed up", pair.translated, pair.passed);
        assert!(pair.translated > 200 && pair.passed > 200, "{} {}", pair.translated, pair.passed);
    });
}

/// Whether nothing is left for a device to do; the kernel's harness makes no such packets.
fn is_finished(offload: &Offload) -> bool {
    offload.gso.is_none() && matches!(offload.checksum, Checksum::Complete)
}

fn find(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|e| e == "txt") {
            files.push(path);
        }
    }
}

#[test]
fn endless_traffic_and_its_mutations() {
    alone(|| {
        let mut pair = Pair::new(|_| {});
        let mut rng = Rng(7);
        let mut traffic = Traffic::new(5);
        let mut gateway = traffic.gateway(1);
        for number in 0..8_000 {
            let faulty = number > 5_000;
            let (bytes, offload) = if faulty { traffic.mutated(&gateway) } else { traffic.clean(&gateway) };
            let extra = Extra { summed: rng.chance(30), ..Extra::default() };
            if is_finished(&offload) {
                pair.feed(&bytes, extra);
            }
            gateway.feed(0, bytes, offload);
            let out = gateway.run();
            for out in out.iter().filter(|out| is_finished(&out.offload)) {
                pair.feed(&out.bytes, extra);
            }
            if !faulty {
                traffic.learn(&out);
            }
        }
        // Ordinary packets with one byte or two changed anywhere in their headers.
        for _ in 0..8_000 {
            let mut bytes = ordinary(&mut rng).bytes();
            for _ in 0..1 + rng.below(2) {
                let at = rng.below(60.min(bytes.len()));
                bytes[at] = if rng.chance(50) { rng.next() as u8 } else { bytes[at] ^ 1 << rng.below(8) };
            }
            match rng.below(100) {
                0..10 => bytes.truncate(rng.below(bytes.len())),
                10..15 => {
                    let udp = if bytes[0] >> 4 == 6 { 40 } else { 20 };
                    bytes[udp + 6..udp + 8].fill(0);
                }
                _ => {}
            }
            pair.feed(&bytes, Extra { summed: rng.chance(30), ..Extra::default() });
        }
        println!(
            "{} translated, {} passed up, {:?}",
            pair.translated,
            pair.passed,
            pair.bench.fast_path.counters()
        );
        assert!(pair.translated > 3_000 && pair.passed > 3_000, "{} {}", pair.translated, pair.passed);
        for (name, count) in pair.bench.fast_path.counters() {
            let unused = ["up_miss", "up_stale", "up_orphan", "drop_policed", "drop_failed"].contains(&name);
            assert_eq!(count == 0, unused, "{name}: {count}");
        }
    });
}

#[test]
fn identifications_without_df_do_not_come_again() {
    alone(|| {
        let mut pair = Pair::new(|_| {});
        let packet = udp(at("2001:db8:1::1", 4000), at("64:ff9b::cb00:7109", 53), b"x").bytes();
        // RFC 6864 §5.3.1: as many numbers as the programs have.
        for _ in 0..0x4000 {
            assert!(pair.feed(&packet, Extra::default()));
        }
        assert_eq!(pair.ids.len(), 0x4000);
    });
}
