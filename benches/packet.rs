//! Parsing and rewriting one packet, beside etherparse's slicing of the same packet and its full checksum.
//!
//! The gate (`tests/campaign criterion`): at 64 bytes, parse + plan + apply takes at most twice as long as
//! etherparse's slicing and checksum, in each direction. Ours also copies the packet into its buffer in every
//! round, because applying changes it; etherparse only reads.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on shall say where")]

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use sampan::wire::packet::{Checksum, Gso, GsoKind, Offload, PacketBuf, View};
use sampan::xlat::{Delta, FlowPair, Hop, Rewrite, v4_to_v6, v6_to_v4};

fn flow() -> FlowPair {
    FlowPair {
        src6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
        port6: 4000,
        dst6: Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xcb00, 0x710a),
        src4: Ipv4Addr::new(198, 51, 100, 1),
        port4: 50_000,
        dst4: Ipv4Addr::new(203, 0, 113, 10),
        peer_port: 443,
    }
}

fn up() -> Rewrite<Ipv4Addr> {
    let f = flow();
    Rewrite { src: f.src4, dst: f.dst4, src_port: f.port4, dst_port: f.peer_port, delta: Delta::v6_to_v4(&f) }
}

fn down() -> Rewrite<Ipv6Addr> {
    let f = flow();
    let delta = Delta::v6_to_v4(&f).reversed();
    Rewrite { src: f.dst6, dst: f.src6, src_port: f.peer_port, dst_port: f.port6, delta }
}

fn to_v4(packet: &mut PacketBuf, rewrite: &Rewrite<Ipv4Addr>) {
    let Ok(View::V6(view)) = packet.parse() else { panic!("IPv6") };
    let context = v6_to_v4::Context { hop: Hop::Same, mtu4: 1500, id: 7, mss: None, tos: None };
    v6_to_v4::plan(&view, packet, rewrite, &context).unwrap().apply(packet);
}

fn to_v6(packet: &mut PacketBuf, rewrite: &Rewrite<Ipv6Addr>) {
    let Ok(View::V4(view)) = packet.parse() else { panic!("IPv4") };
    let context = v4_to_v6::Context {
        hop: Hop::Same,
        mtu6: 1500,
        mtu4: 1500,
        lowest_ipv6_mtu: 1280,
        id: 7,
        mss: None,
        traffic_class: None,
    };
    v4_to_v6::plan(&view, packet, rewrite, &context).unwrap().apply(packet);
}

/// A UDP packet of 64 bytes.
fn small(v6: bool) -> Vec<u8> {
    let f = flow();
    let mut out = Vec::new();
    if v6 {
        let builder = PacketBuilder::ipv6(f.src6.octets(), f.dst6.octets(), 64).udp(f.port6, f.peer_port);
        builder.write(&mut out, &[7; 64 - 48]).unwrap();
    } else {
        let builder = PacketBuilder::ipv4(f.dst4.octets(), f.src4.octets(), 64).udp(f.peer_port, f.port4);
        builder.write(&mut out, &[7; 64 - 28]).unwrap();
    }
    assert_eq!(out.len(), 64);
    out
}

/// A TCP super-packet of about 60,000 bytes whose checksum and segmentation are left to the device.
fn super_packet() -> (Vec<u8>, Offload) {
    let f = flow();
    let mut out = Vec::new();
    let builder =
        PacketBuilder::ipv6(f.src6.octets(), f.dst6.octets(), 64).tcp(f.port6, f.peer_port, 1, 1000).ack(2);
    builder.write(&mut out, &[7; 41 * 1440]).unwrap();
    let offload = Offload {
        checksum: Checksum::Partial { start: 40, field: 16 },
        gso: Some(Gso { kind: GsoKind::Tcp, size: 1400, ecn: false }),
        header_len: 60,
    };
    (out, offload)
}

/// Slices a packet and computes all its checksums from scratch.
fn etherparse_checks(bytes: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ip(bytes).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv6(v6), TransportSlice::Udp(udp)) => {
            let h = v6.header();
            udp.to_header().calc_checksum_ipv6_raw(h.source(), h.destination(), udp.payload()).unwrap()
                == udp.checksum()
        }
        (NetSlice::Ipv4(v4), TransportSlice::Udp(udp)) => {
            let h = v4.header();
            let sum =
                udp.to_header().calc_checksum_ipv4_raw(h.source(), h.destination(), udp.payload()).unwrap();
            h.to_header().calc_header_checksum() == h.header_checksum() && sum == udp.checksum()
        }
        (NetSlice::Ipv6(v6), TransportSlice::Tcp(tcp)) => {
            let h = v6.header();
            tcp.calc_checksum_ipv6(h.source(), h.destination()).unwrap() == tcp.checksum()
        }
        (net, transport) => panic!("{net:?} {transport:?}"),
    }
}

fn small_packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet64");
    group.throughput(Throughput::Elements(1));
    let mut packet = PacketBuf::new();
    for (name, v6) in [("v6_to_v4", true), ("v4_to_v6", false)] {
        let bytes = small(v6);
        assert!(etherparse_checks(&bytes));
        group.bench_function(format!("{name}/etherparse"), |b| {
            b.iter(|| etherparse_checks(black_box(&bytes)))
        });
        group.bench_function(format!("{name}/parse"), |b| {
            b.iter(|| {
                packet.fill(black_box(&bytes));
                black_box(packet.parse().unwrap());
            });
        });
        let (up, down) = (up(), down());
        group.bench_function(format!("{name}/parse_plan_apply"), |b| {
            b.iter(|| {
                packet.fill(black_box(&bytes));
                if v6 {
                    to_v4(&mut packet, black_box(&up))
                } else {
                    to_v6(&mut packet, black_box(&down))
                }
                black_box(packet.bytes());
            });
        });
        assert!(etherparse_checks(packet.bytes()), "and what came of it is right");
    }
    group.finish();
}

fn super_packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("super_packet");
    let (bytes, offload) = super_packet();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("v6_to_v4/etherparse", |b| b.iter(|| etherparse_checks(black_box(&bytes))));
    let (up, down) = (up(), down());
    group.bench_function("v6_to_v4/parse_plan_apply", |b| {
        b.iter_batched_ref(
            || {
                let mut packet = PacketBuf::from_bytes(&bytes);
                packet.offload = offload;
                packet
            },
            |packet| to_v4(packet, black_box(&up)),
            BatchSize::SmallInput,
        );
    });
    // The way back restores the packet, so that nothing is copied between the rounds.
    let back =
        Rewrite { src: down.dst, dst: down.src, src_port: down.dst_port, dst_port: down.src_port, ..down };
    let mut packet = PacketBuf::from_bytes(&bytes);
    packet.offload = offload;
    group.bench_function("there_and_back/parse_plan_apply", |b| {
        b.iter(|| {
            to_v4(&mut packet, black_box(&up));
            to_v6(&mut packet, black_box(&back));
        });
    });
    assert_eq!(packet.bytes(), bytes);
    group.finish();
}

criterion_group!(benches, small_packets, super_packets);
criterion_main!(benches);
