//! The slowest input of each fuzz corpus beside a plain packet of 64 bytes on the same way: nobody shall be able to stop
//! a gateway with few packets that take long.
//!
//! Only what the gateway itself does is timed, not what the fuzzers' entry functions add to judge it. The gate is in
//! `tests/campaign before-after`; the lines here are: target, inputs, plain ns, slowest ns, name of the slowest.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on shall say where")]

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant as Clock;

use sampan::nat64::engine::{Engine, Place, Sink};
use sampan::nat64::pool4::Pool;
use sampan::nat64::reassembly::Reassembly;
use sampan::nat64::steer::Steering;
use sampan::time::Instant;
use sampan::verdict::{Sent, Settled};
use sampan::wire::icmp;
use sampan::wire::packet::{Offload, PacketBuf, View};
use sampan::xlat::{Delta, FlowPair, Rewrite, frag, icmp_error, v4_to_v6, v6_to_v4};

#[path = "../tests/fuzz/entry/mod.rs"]
mod entry;

use entry::bytes::Bytes;
use entry::icmp_quote::Bench;
use entry::xlat::Setup;
use entry::{build, fragments, gateway, wire_parse};

const X: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const Y: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xcb00, 0x7109);
const T: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const Z: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Behind the offload data and settings of the inputs: nothing special.
const PLAIN: [u8; 16] = [0; 16];

fn main() {
    let (plain6, plain4) = (plain(true), plain(false));
    compare("wire_parse", &[&PLAIN[..wire_parse::PREFIX], &plain6].concat(), parse);
    compare("xlat_6to4", &[&PLAIN, &plain6[..]].concat(), to_v4);
    compare("xlat_4to6", &[&PLAIN, &plain4[..]].concat(), to_v6);
    // Any packet: the plain one belongs to the UDP session.
    compare("icmp_quote", &[&[7], &session_packet()[..]].concat(), through_engine);
    // No limits, no time step, any bytes of this length.
    compare_with("fragments", &[&[0, 0, 255, 64], &plain6[..]].concat(), slowest_step);
}

/// Times the plain input and each one of the corpus; `way` gives what an input does, ready to be done again and again.
fn compare(target: &str, plain: &[u8], way: fn(&[u8]) -> Box<dyn FnMut()>) {
    compare_with(target, plain, |data| nanos(&mut *way(data)));
}

/// The same where `time` knows how long an input takes, in nanoseconds.
fn compare_with(target: &str, plain: &[u8], time: impl Fn(&[u8]) -> f64) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{target} has {} inputs", files.len());
    let base = time(plain);
    let times = files.iter().map(|file| (time(&std::fs::read(file).unwrap()), file));
    let (slowest, file) = times.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    // Timed once more beside each other, so that a moment of bad luck is not the slowest input.
    let again = std::fs::read(file).unwrap();
    let (base, slowest) = (base.min(time(plain)), slowest.min(time(&again)));
    let name = file.file_name().unwrap().to_string_lossy();
    println!("{target} {} {base:.1} {slowest:.1} {name}", files.len());
}

/// Best of several batches: what disturbs only makes it longer.
fn nanos(once: &mut dyn FnMut()) -> f64 {
    let time = |once: &mut dyn FnMut(), n: u32| {
        let begin = Clock::now();
        (0..n).for_each(|_| once());
        begin.elapsed().as_nanos() as f64 / f64::from(n)
    };
    time(once, 50);
    (0..15).map(|_| time(once, 200)).fold(f64::INFINITY, f64::min)
}

/// A UDP packet of 64 bytes.
fn plain(v6: bool) -> Vec<u8> {
    let packet = match v6 {
        true => build::ip(X.into(), Y.into(), 64, 17, &udp(4000, 53, 64 - 40)),
        false => build::ip(Z.into(), T.into(), 64, 17, &udp(53, 50_000, 64 - 20)),
    };
    assert_eq!(packet.len(), 64);
    packet
}

/// The same in the UDP session of the engine.
fn session_packet() -> Vec<u8> {
    let mut first = Bench::first_packets().swap_remove(1);
    let l4 = udp(40_002, 53, 64 - 40);
    let (src, dst): ([u8; 16], [u8; 16]) =
        (first[8..24].try_into().unwrap(), first[24..40].try_into().unwrap());
    first = build::ip(Ipv6Addr::from(src).into(), Ipv6Addr::from(dst).into(), 64, 17, &l4);
    assert_eq!(first.len(), 64);
    first
}

fn udp(src: u16, dst: u16, len: usize) -> Vec<u8> {
    let (_, mut l4) = build::transport(build::Flow::Udp { src, dst }, true, &vec![7; len - 8]);
    l4.truncate(len);
    l4
}

/// Reading, as a packet and as a quoted one.
fn parse(data: &[u8]) -> Box<dyn FnMut()> {
    let (offload, bytes) = data.split_at(wire_parse::PREFIX.min(data.len()));
    let (offload, bytes) = (wire_parse::offload(offload), bytes.to_vec());
    let mut packet = PacketBuf::new();
    Box::new(move || {
        packet.fill(black_box(&bytes));
        packet.offload = offload;
        let _ = black_box(packet.parse());
        let _ = black_box(icmp::any_quote4(&bytes));
        let _ = black_box(icmp::any_quote6(&bytes));
    })
}

/// Offload, settings and packet of an input, and the packet's ports.
fn input(data: &[u8]) -> (Setup, Vec<u8>) {
    let mut data = Bytes::new(data);
    let setup = Setup::new(&mut data);
    let bytes = setup.packet(data.rest()).bytes().to_vec();
    (setup, bytes)
}

fn flow(setup: &Setup) -> FlowPair {
    FlowPair { src6: X, port6: 4000, dst6: Y, src4: T, port4: setup.port, dst4: Z, peer_port: 53 }
}

fn to_v4(data: &[u8]) -> Box<dyn FnMut()> {
    let (setup, bytes) = input(data);
    let delta = Delta::v6_to_v4(&flow(&setup));
    let rewrite = Rewrite { src: T, dst: Z, src_port: setup.port, dst_port: 53, delta };
    let (hop, mtu4, id, mss) = (setup.hop, setup.mtu4, setup.id, setup.mss);
    let context = v6_to_v4::Context { hop, mtu4, id, mss, tos: None };
    let (mut packet, mut out) = (PacketBuf::new(), PacketBuf::new());
    Box::new(move || {
        packet.fill(black_box(&bytes));
        packet.offload = setup.offload;
        let Ok(View::V6(view)) = packet.parse() else { return };
        packet.reassembled = setup.reassembled && view.fragment.is_some();
        match v6_to_v4::plan(&view, &packet, &rewrite, &context) {
            Ok(plan) => {
                plan.apply(&mut packet);
                if let Some(mtu) = plan.cut {
                    frag::cut4(&mut packet, mtu, &mut out, |piece| {
                        black_box(piece.bytes());
                    });
                }
            }
            Err(refusal) => {
                refusal.notice.map(|n| icmp_error::build6(n, &view, &packet, X, &mut out));
            }
        }
        black_box((packet.bytes(), out.bytes()));
    })
}

fn to_v6(data: &[u8]) -> Box<dyn FnMut()> {
    let (setup, bytes) = input(data);
    let delta = Delta::v6_to_v4(&flow(&setup)).reversed();
    let rewrite = Rewrite { src: Y, dst: X, src_port: 53, dst_port: 4000, delta };
    let context = v4_to_v6::Context {
        hop: setup.hop,
        mtu6: setup.mtu6,
        mtu4: setup.mtu4,
        lowest_ipv6_mtu: setup.lowest,
        id: setup.id.into(),
        mss: setup.mss,
        traffic_class: None,
    };
    let (mut packet, mut out) = (PacketBuf::new(), [PacketBuf::new(), PacketBuf::new()]);
    Box::new(move || {
        packet.fill(black_box(&bytes));
        packet.offload = setup.offload;
        let Ok(View::V4(view)) = packet.parse() else { return };
        packet.reassembled = setup.reassembled && !view.df;
        match v4_to_v6::plan(&view, &packet, &rewrite, &context) {
            Ok(plan) => {
                plan.apply(&mut packet);
                if let Some(cut) = plan.cut {
                    frag::cut(&mut packet, cut, &mut out, |piece| {
                        black_box(piece.bytes());
                    });
                }
            }
            Err(refusal) => {
                refusal.notice.map(|n| icmp_error::build4(n, &view, &packet, T, 7, &mut out[0]));
            }
        }
        black_box((packet.bytes(), out[0].bytes()));
    })
}

/// An engine with a session of each protocol.
fn through_engine(data: &[u8]) -> Box<dyn FnMut()> {
    let bytes = Bench::new().input(&mut Bytes::new(data));
    let settings = gateway::settings();
    let steering = Steering::new(settings.key, settings.subscriber_len, 1);
    let pool = Arc::new(Pool::new(&settings, None));
    let now = Instant::from_secs(1000);
    let mut engine = Engine::new(settings, Place { worker: 0, steering, pool, seed: 0x5eed }, now);
    let mut packet = PacketBuf::new();
    for first in Bench::first_packets() {
        packet.fill(&first);
        packet.offload = Offload::default();
        let _ = engine.handle(now, &mut packet, &mut Nowhere);
    }
    Box::new(move || {
        packet.fill(black_box(&bytes));
        packet.offload = Offload::default();
        let _ = black_box(engine.handle(now, &mut packet, &mut Nowhere));
    })
}

/// The slowest packet of a sequence of fragments, each one at its best of many runs through a store.
fn slowest_step(data: &[u8]) -> f64 {
    let sequence = fragments::sequence(data);
    let mut best = vec![f64::INFINITY; sequence.steps.len()];
    let mut packet = PacketBuf::new();
    for _ in 0..30 {
        let mut store = Reassembly::new(sequence.limits, 7);
        let mut now = Instant::from_secs(10);
        for ((passes, bytes), best) in sequence.steps.iter().zip(&mut best) {
            now = now + passes.unwrap_or_default();
            while store.expire(now).is_some() {}
            let begin = Clock::now();
            packet.fill(black_box(bytes));
            if let Ok(view) = packet.parse() {
                let is_piece = match &view {
                    View::V4(v) => v.fragment.is_some(),
                    View::V6(v) => v.fragment.is_some(),
                };
                if is_piece {
                    let _ = black_box(store.join(now, &view, &mut packet));
                }
            }
            *best = best.min(begin.elapsed().as_nanos() as f64);
        }
    }
    best.into_iter().fold(0.0, f64::max)
}

struct Nowhere;

impl Sink for Nowhere {
    fn send(&mut self, packet: &mut PacketBuf, _: Sent) -> bool {
        black_box(packet.bytes());
        true
    }

    fn settle(&mut self, _: u32, _: Settled) {}
}
