//! A forwarded packet costs no allocation once the gateway is warm: an allocator that counts says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use sampan::nat64::policy::{PortPolicy, Quota, Quotas};
use sampan::nat64::settings::Unit;
use sampan::wire::packet::{Gso, GsoKind, Offload};

use support::device::Carousels;
use support::packet::{ACK, RST, SYN};
use support::segment::make_partial;
use support::{Gateway, L4, Packet, at, echo_reply, echo_request, error, ip, settings, tcp, udp};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator unchanged; counting touches a thread-local number only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const SERVER: &str = "203.0.113.10";
const ROUNDS: u64 = 10_000;

/// Packets of a TCP connection, a UDP flow and an echo of one client, both ways, which all have sessions then.
struct Warm {
    gateway: Carousels,
    up: Vec<Packet>,
    down: Vec<Packet>,
}

/// Sends `packets` to queue `queue`, and gives what came out of any.
fn exchange(gateway: &mut Carousels, queue: usize, packets: &[Packet]) -> Vec<Packet> {
    for worker in &mut gateway.workers {
        worker.device().captured = Some(Vec::new());
    }
    let bytes = packets.iter().map(|p| (p.bytes(), Offload::default())).collect();
    gateway.workers[queue].device().load(bytes, packets.len() as u64);
    gateway.run();
    let mut out = Vec::new();
    for worker in &mut gateway.workers {
        out.extend(worker.device().captured.take().unwrap());
    }
    out.iter().map(|bytes| Packet::parse(bytes).unwrap()).collect()
}

/// A gateway where every packet arrives at queue 0 and belongs to worker `owner`.
fn warm(workers: u16, owner: u16) -> Warm {
    let settings = settings();
    let names = Gateway::new(settings.clone(), workers);
    let client = names.client_of(owner, 0);
    let (from, y) = (SocketAddr::new(client, 4000), names.y(ip(SERVER)));
    let mut gateway = Carousels::new(&settings, workers);
    let up = vec![
        tcp(from, SocketAddr::new(y, 80), SYN, b""),
        udp(from, SocketAddr::new(y, 53), b"question"),
        echo_request(client, y, 9, b"ping"),
    ];
    let out = exchange(&mut gateway, 0, &up);
    let down: Vec<_> = out
        .iter()
        .map(|p| match &p.l4 {
            L4::Tcp { .. } => tcp(p.destination(), p.source(), SYN | ACK, b""),
            L4::Udp { .. } => udp(p.destination(), p.source(), b"answer"),
            L4::Echo { id, .. } => echo_reply(p.dst, p.src, *id, b"pong"),
            L4::Icmp { .. } | L4::Other { .. } => panic!("{p:?}"),
        })
        .collect();
    assert_eq!(exchange(&mut gateway, 0, &down).len(), 3);
    Warm { gateway, up, down }
}

/// Sends `packets` in turn, `ROUNDS` of them, and wants as many translations and no allocation.
fn forward(gateway: &mut Carousels, packets: Vec<(Vec<u8>, Offload)>, crossing: bool) {
    let totals = |gateway: &Carousels| {
        let mut sum = sampan::daemon::counters::Totals::default();
        gateway.counters.iter().for_each(|c| sum.add(&c.totals()));
        sum
    };
    let before = totals(gateway);
    gateway.workers[0].device().load(packets, ROUNDS);
    let allocated = allocations(|| gateway.run());
    let after = totals(gateway);
    assert_eq!(after.translated - before.translated, ROUNDS);
    assert_eq!(after.passed - before.passed, if crossing { ROUNDS } else { 0 });
    assert_eq!(allocated, 0);
}

#[test]
fn a_new_mapping_costs_no_allocation_with_quotas_and_events() {
    const CLIENTS: u64 = 900;
    let mut settings = settings();
    let quota = Quota { ports: 1000, sessions: 2000, unanswered: 1500, new_per_second: 5000 };
    settings.quotas = Quotas { subscriber: quota, network: quota, ..Quotas::default() };
    let prefixes = vec!["2001:db8:1::/48".parse().unwrap()];
    settings.units = vec![Unit { name: "one".into(), prefixes, quota, reserve: 10, ..Unit::default() }];
    settings.ports = PortPolicy::default();
    let y = settings.pool6[0].embed("203.0.113.10".parse().unwrap());
    let mut gateway = Carousels::new(&settings, 1);
    let client = |i: u64| at(format!("2001:db8:1:{:x}::{i:x}", i % 9), 4000);
    let first = |i| (udp(client(i), SocketAddr::new(y.into(), 53), b"q").bytes(), Offload::default());
    gateway.workers[0].device().load((0..CLIENTS).map(first).collect(), CLIENTS);
    let allocated = allocations(|| gateway.run());
    assert_eq!(gateway.counters[0].totals().translated, CLIENTS);
    // They end, rest, and give everything back.
    for _ in 0..3 {
        gateway.now = gateway.now + std::time::Duration::from_secs(400);
        assert_eq!(allocations(|| gateway.run()), 0);
    }
    assert_eq!(gateway.workers[0].engine().subscribers(), 0);
    assert_eq!(allocated, 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(
        allocations(|| drop(std::hint::black_box(vec![1; 3].into_iter().chain([4]).collect::<Vec<_>>()))),
        2
    );
}

#[test]
fn packets_of_existing_sessions_allocate_nothing() {
    for (workers, owner) in [(1, 0), (2, 0), (2, 1)] {
        let Warm { mut gateway, up, down } = warm(workers, owner);
        // A SYN would open again what is open.
        let up = up.into_iter().map(|mut p| {
            if let L4::Tcp { flags, .. } = &mut p.l4 {
                *flags = ACK;
            }
            p
        });
        let packets = up.chain(down).map(|p| (p.bytes(), Offload::default())).collect();
        forward(&mut gateway, packets, owner != 0);
    }
}

#[test]
fn super_packets_and_pieces_allocate_nothing() {
    let Warm { mut gateway, up, down } = warm(2, 1);
    let mut packets = Vec::new();
    for packet in [&up[0], &up[1], &down[0], &down[1]] {
        let (from, to) = (packet.source(), packet.destination());
        let big = match packet.l4 {
            L4::Tcp { .. } => tcp(from, to, ACK, &[7; 20_000]),
            L4::Udp { .. } | L4::Echo { .. } | L4::Icmp { .. } | L4::Other { .. } => {
                udp(from, to, &[7; 20_000])
            }
        };
        let (mut bytes, mut offload) = (big.bytes(), Offload::default());
        make_partial(&mut bytes, &mut offload);
        let kind = if matches!(big.l4, L4::Tcp { .. }) { GsoKind::Tcp } else { GsoKind::Udp };
        offload.gso = Some(Gso { kind, size: 1400, ecn: false });
        packets.push((bytes, offload));
    }
    // The last one, UDP from IPv4 without DF, is taken apart; so is this one.
    packets.push((udp(down[1].source(), down[1].destination(), &[7; 1400]).bytes(), Offload::default()));
    forward(&mut gateway, packets, true);
}

#[test]
fn icmp_errors_allocate_nothing() {
    let Warm { mut gateway, down, .. } = warm(2, 1);
    let quoted = udp(down[1].destination(), down[1].source(), b"question").hops(3).bytes();
    let unreachable = error(ip("203.0.113.1"), down[1].dst, 3, 3, 0, &quoted).bytes();
    forward(&mut gateway, vec![(unreachable, Offload::default())], true);
}

#[test]
fn hairpinned_packets_allocate_nothing() {
    let settings = settings();
    let names = Gateway::new(settings.clone(), 2);
    let mut gateway = Carousels::new(&settings, 2);
    let a = SocketAddr::new(names.client_of(0, 0), 4000);
    let b = SocketAddr::new(names.client_of(1, 0), 5000);
    let y = SocketAddr::new(names.y(ip(SERVER)), 53);
    let t_b = exchange(&mut gateway, 0, &[udp(b, y, b"open")])[0].source();
    let packet = udp(a, SocketAddr::new(names.y(t_b.ip()), t_b.port()), b"hello");
    exchange(&mut gateway, 0, std::slice::from_ref(&packet));
    forward(&mut gateway, vec![(packet.bytes(), Offload::default())], true);
}

#[test]
fn refused_packets_and_their_errors_allocate_nothing() {
    let Warm { mut gateway, up, .. } = warm(2, 1);
    let refused = vec![
        (up[1].clone().hops(1).bytes(), Offload::default()),
        (udp(at("203.0.113.1", 1), at("198.51.100.3", 1), b"unasked").bytes(), Offload::default()),
        (vec![0x45; 10], Offload::default()),
        (vec![0xff; 10], Offload::default()),
    ];
    gateway.workers[0].device().load(refused, ROUNDS);
    assert_eq!(allocations(|| gateway.run()), 0);
    let dropped: u64 = gateway.counters.iter().map(|c| c.totals().dropped()).sum();
    let told: u64 = gateway.counters.iter().map(|c| c.totals().out_originated).sum();
    assert_eq!(dropped, ROUNDS);
    // As many as the rate limit of one second lets through, of which chance takes up to a half.
    let limit = u64::from(settings().limits.icmp_errors_per_second);
    assert!((limit / 2..=limit).contains(&told), "{told} of {limit}");
}

#[test]
fn new_sessions_allocate_nothing_either() {
    let settings = settings();
    let names = Gateway::new(settings.clone(), 1);
    let mut gateway = Carousels::new(&settings, 1);
    let y = SocketAddr::new(names.y(ip(SERVER)), 53);
    let packets: Vec<_> = (0..1000_u16)
        .map(|i| {
            let from = at(format!("2001:db8:1::{:x}", i % 10 + 1), 1000 + i);
            let packet = if i % 2 == 0 { udp(from, y, b"q") } else { tcp(from, y, SYN, b"") };
            (packet.bytes(), Offload::default())
        })
        .collect();
    gateway.workers[0].device().load(packets, 1000);
    assert_eq!(allocations(|| gateway.run()), 0);
    assert_eq!(gateway.workers[0].engine().binding_counts().iter().sum::<u32>(), 1000);
}

#[test]
fn waiting_syns_and_forged_segments_allocate_nothing() {
    let Warm { mut gateway, down, .. } = warm(2, 1);
    let t = down[0].destination();
    let mut forged = down[0].clone();
    if let L4::Tcp { seq, flags, .. } = &mut forged.l4 {
        (*seq, *flags) = (7, RST);
    }
    let mut packets = vec![(forged.bytes(), Offload::default())];
    for i in 0..3000_u16 {
        packets
            .push((tcp(at(SERVER, 1024 + i), at("198.51.100.3", 9), SYN, b"").bytes(), Offload::default()));
    }
    // An error about nothing that is on its way.
    let quoted = tcp(t, at(SERVER, 80), ACK, b"").bytes();
    let mut quoted = Packet::parse(&quoted).unwrap();
    if let L4::Tcp { seq, .. } = &mut quoted.l4 {
        *seq = 1;
    }
    let error = error(ip("203.0.113.1"), t.ip(), 3, 1, 0, &quoted.bytes());
    packets.push((error.bytes(), Offload::default()));
    gateway.workers[0].device().load(packets, ROUNDS);
    assert_eq!(allocations(|| gateway.run()), 0);
    let held: u64 = gateway.counters.iter().map(|c| c.totals().held).sum();
    assert_eq!(held, 1024);
}
