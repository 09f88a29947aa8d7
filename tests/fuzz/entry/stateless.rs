//! The stateless translator: tables of explicit mappings, prefixes of every length, the pool of RFC 6791 and the objects
//! of RFC 5837.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sampan::nat64::engine::Sink;
use sampan::nat64::settings::{Classes, Hops, Mtu};
use sampan::siit::mapping::Mapping;
use sampan::siit::settings::{Hairpin, Settings, ZeroChecksum};
use sampan::siit::{Place, Siit};
use sampan::time::Instant;
use sampan::verdict::{Sent, Settled, Verdict};
use sampan::wire::packet::{Offload, PacketBuf};
use sampan::xlat::eam::{Eam, EamTable, Home};

use super::build::{self, Flow};
use super::bytes::Bytes;
use super::judge;

const PREFIXES: [&str; 6] = [
    "2001:db8::/32",
    "2001:db8:6400::/40",
    "2001:db8:64::/48",
    "2001:db8:64::/56",
    "2001:db8:64::/64",
    "2001:db8:64::/96",
];
const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const NOW: Instant = Instant::from_secs(1000);

/// Data: settings, rows of the table, then packets.
pub fn stateless(data: &[u8]) {
    let mut data = Bytes::new(data);
    let look = data.byte();
    let Some(mapping) = mapping(&mut data) else { return };
    let settings = Settings {
        mapping,
        udp_zero_checksum: if look & 1 == 0 { ZeroChecksum::Drop } else { ZeroChecksum::Compute },
        hairpin: if look & 2 == 0 { Hairpin::Intrinsic } else { Hairpin::Off },
        interface_info: look & 4 == 0,
        mtu: Mtu { v4: if look & 8 == 0 { 1500 } else { 1000 }, ..Mtu::default() },
        mss_clamp: (look & 16 == 0).then_some(1220),
        classes: Classes::default(),
        icmp6_source: Some(build::addr6(6, 1)),
        icmp_errors_per_second: 1000,
        hops: if look & 32 == 0 { Hops::Translator } else { Hops::KernelForwards },
    };
    let mut translator = Siit::new(settings.clone(), Place { worker: 0, workers: 1, seed: 7 }, NOW);
    for _ in 0..8 {
        if data.is_empty() {
            break;
        }
        let mut bytes = packet(&mut data, &settings.mapping);
        if data.once_in(4) {
            build::spoil(&mut data, &mut bytes);
        }
        let mut packet = PacketBuf::from_bytes(&bytes);
        let mut out = Collected::default();
        let verdict = translator.handle(NOW, &mut packet, &mut out);
        match verdict {
            Verdict::Translated => assert!(out.translated + out.pieces > 0, "{bytes:02x?}"),
            Verdict::Dropped(_) => assert_eq!((out.translated, out.pieces), (0, 0), "{bytes:02x?}"),
            Verdict::Held => panic!("stateless is without waiting"),
            Verdict::Returned => panic!("nothing is shared with the machine"),
        }
        assert!(out.originated <= 1);
    }
}

/// The mappings that the data says, if they make a table.
fn mapping(data: &mut Bytes<'_>) -> Option<Mapping> {
    let rows: Vec<_> = (0..data.below(6))
        .map(|_| {
            let (host, len4) = (data.byte(), data.one_of(&[32, 32, 32, 31, 28, 24]));
            let len6 = if data.once_in(8) { data.byte() % 129 } else { 128 - (32 - len4) };
            let v4 = format!("192.0.2.{}/{len4}", host & (255u16 << (32 - len4)) as u8);
            let v6 =
                build::addr6(6, host).to_bits() & u128::MAX.checked_shl(u32::from(128 - len6)).unwrap_or(0);
            let v6 = format!("{}/{len6}", std::net::Ipv6Addr::from_bits(v6));
            Eam {
                v4: v4.parse().unwrap(),
                v6: v6.parse().unwrap(),
                home: [Home::V6, Home::V4][usize::from(host & 1)],
            }
        })
        .collect();
    let table = match EamTable::new(rows) {
        Ok(table) => table,
        Err(e) => {
            assert!(!e.to_string().is_empty());
            return None;
        }
    };
    if table.overlaps().next().is_none() {
        for row in table.rows() {
            let (v6, _) = table.to_v6(row.v4.addr()).unwrap();
            assert_eq!(table.to_v4(v6).map(|(v4, _)| v4), Some(row.v4.addr()), "I-03: there and back");
        }
    }
    Some(Mapping {
        prefix: PREFIXES[data.below(6)].parse().unwrap(),
        eam: Arc::new(table),
        translatable4: Vec::new(),
        icmp_pool4: if data.once_in(3) { vec![] } else { vec!["198.51.100.9/32".parse().unwrap()] },
        allow: vec!["203.0.113.0/24".parse().unwrap(), "192.0.2.0/24".parse().unwrap()],
    })
}

fn packet(data: &mut Bytes<'_>, mapping: &Mapping) -> Vec<u8> {
    let (how, what) = (data.byte(), data.byte());
    let node4 = match mapping.eam.rows().get(usize::from(what & 7)) {
        Some(row) => row.v4.addr(),
        None => Ipv4Addr::new(192, 0, 2, what),
    };
    let node6 = IpAddr::V6(mapping.to_v6(node4).addr);
    let host6 = IpAddr::V6(mapping.embed(HOST4).addr);
    let flow = match what & 3 {
        0 => Flow::Tcp { src: 4000, dst: 80, flags: data.one_of(&[2, 16, 18]) },
        1 | 2 => Flow::Udp { src: 4001, dst: 53 },
        _ => Flow::Echo { reply: what & 4 != 0, id: 9 },
    };
    let from6 = how & 1 == 0;
    let (src, dst) = match from6 {
        true => (node6, host6),
        false => (IpAddr::V4(HOST4), IpAddr::V4(node4)),
    };
    match how >> 1 & 3 {
        0 | 1 => build::packet(data, src, dst, flow),
        2 => {
            // About a packet of the other side, by a router that may have no mapping.
            let quote = build::packet(data, dst, src, flow);
            let router = match (from6, what & 64 == 0) {
                (true, true) => build::addr6(9, 9).into(),
                (false, true) => [192, 0, 2, 200].into(),
                (_, false) => src,
            };
            let kinds: &[u8] = if from6 { &[1, 2, 3, 4] } else { &[3, 11, 12, 5] };
            let (kind, code, rest) = (data.one_of(kinds), data.byte() & 15, u32::from(data.word()));
            build::icmp_error(router, dst, 64, kind, code, rest, &quote[..quote.len().min(1200)])
        }
        _ => {
            let len = data.byte().into();
            data.take(len).to_vec()
        }
    }
}

/// Judges what comes out, and counts it.
#[derive(Default)]
struct Collected {
    translated: u32,
    pieces: u32,
    originated: u32,
}

impl Sink for Collected {
    fn send(&mut self, packet: &mut PacketBuf, sent: Sent) -> bool {
        judge::well_formed_ip(packet.bytes(), packet.offload);
        match sent {
            Sent::Translated => self.translated += 1,
            Sent::Piece => self.pieces += 1,
            Sent::Returned => panic!("nothing is shared with the machine"),
            Sent::Originated => {
                assert_eq!(packet.offload, Offload::default());
                self.originated += 1;
            }
        }
        true
    }

    fn settle(&mut self, _: u32, _: Settled) {
        panic!("stateless is without waiting");
    }
}
