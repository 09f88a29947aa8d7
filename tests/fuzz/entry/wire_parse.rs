//! Any bytes, with any words of the device about them, are read as the naive reader reads them, or refused.

use sampan::wire::icmp;
use sampan::wire::l4::Payload;
use sampan::wire::packet::{Checksum, Gso, GsoKind, HEADROOM, Offload, PacketBuf, View};

use super::bytes::Bytes;
use super::naive::{self, Ip};

/// Bytes in front of the packet: the offload data.
pub const PREFIX: usize = 8;

/// Data: [`PREFIX`] bytes of offload, then the packet.
pub fn wire_parse(data: &[u8]) {
    let mut data = Bytes::new(data);
    let offload = offload(data.take(PREFIX));
    let packet = data.rest();
    let mut buf = PacketBuf::from_bytes(packet);
    buf.offload = offload;
    let view = buf.parse();
    let naive = naive::read(packet, true).and_then(|ip| naive::transport(packet, &ip).map(|()| ip));
    match (view, naive) {
        (Ok(view), Ok(ip)) => {
            assert_eq!(buf.bytes(), &packet[..ip.len], "padding is cut off, nothing else changes");
            same(&view, &ip, packet);
            offload_fits(&offload, &ip, packet);
            buf.resize_front(ip.l4, ip.l4 + HEADROOM / 2);
        }
        (Err(reason), Ok(ip)) => {
            assert_eq!(reason, sampan::verdict::DropReason::BadOffload, "{ip:?} is refused");
            assert_ne!(offload, Offload::default());
        }
        (Ok(view), Err(e)) => panic!("bad {e} was read as {view:?}"),
        (Err(_), Err(_)) => {}
    }
    quoted(packet);
}

/// The device's words about a packet, from 8 bytes: mostly none.
pub fn offload(bytes: &[u8]) -> Offload {
    let [flags, start, field, ecn, a, b, c, d] = std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0));
    let checksum = match flags & 3 {
        1 => Checksum::Partial { start: start.into(), field: field.into() },
        _ => Checksum::Complete,
    };
    let kind = if flags & 4 == 0 { GsoKind::Tcp } else { GsoKind::Udp };
    let gso = Gso { kind, size: u16::from_be_bytes([a, b]), ecn: ecn & 1 == 1 };
    Offload { checksum, gso: (flags & 8 != 0).then_some(gso), header_len: u16::from_be_bytes([c, d]) }
}

fn same(view: &View, ip: &Ip, packet: &[u8]) {
    let (payload, l4, len, hops, tos) = match view {
        View::V4(v) => {
            assert_eq!((ip.src, ip.dst), (v.src.into(), v.dst.into()));
            assert_eq!((ip.df, ip.routed, ip.id), (v.df, v.source_route, v.id.into()));
            (v.payload, v.l4, v.total_len, v.ttl, v.tos)
        }
        View::V6(v) => {
            assert_eq!((ip.src, ip.dst), (v.src.into(), v.dst.into()));
            assert_eq!(
                (ip.has_fragment_header, ip.routed),
                (v.fragment.is_some(), v.segments_left.is_some())
            );
            (v.payload, v.l4, v.total_len, v.hop_limit, v.traffic_class)
        }
    };
    assert_eq!((l4, len, hops, tos), (ip.l4, ip.len, ip.hops, ip.tos));
    let at = |i: usize| naive::word(packet, ip.l4 + i);
    match payload {
        Payload::Fragment => assert!(ip.fragment.is_some()),
        Payload::Tcp(tcp) => {
            assert_eq!((ip.protocol, tcp.src, tcp.dst), (naive::TCP, at(0), at(2)));
            assert_eq!(
                (tcp.flags.0, usize::from(tcp.header_len)),
                (at(12) as u8, usize::from(at(12) >> 12) * 4)
            );
        }
        Payload::Udp(udp) => {
            assert_eq!((ip.protocol, udp.src, udp.dst), (naive::UDP, at(0), at(2)));
            assert_eq!(udp.no_checksum, at(6) == 0);
        }
        Payload::Icmp(message) => {
            assert_eq!(ip.protocol, ip.icmp());
            let is_error = matches!(message, icmp::Icmp::Error { .. });
            assert_eq!(is_error, naive::is_icmp_error(packet, ip));
        }
        Payload::Other(protocol) => assert_eq!(protocol, ip.protocol),
    }
}

/// What the device says is believed only where it fits the packet.
fn offload_fits(offload: &Offload, ip: &Ip, packet: &[u8]) {
    let field = match ip.protocol {
        naive::TCP => 16,
        naive::UDP => 6,
        _ => usize::MAX,
    };
    if let Checksum::Partial { start, field: at } = offload.checksum {
        assert_eq!((usize::from(start), usize::from(at)), (ip.l4, field));
        assert!(ip.l4 + field + 2 <= ip.len && ip.fragment.is_none() && ip.len <= packet.len());
    }
    if let Some(gso) = offload.gso {
        let kind = if gso.kind == GsoKind::Tcp { naive::TCP } else { naive::UDP };
        assert!(gso.size > 0 && kind == ip.protocol && ip.fragment.is_none());
    }
}

/// The same bytes, quoted by an ICMP error.
fn quoted(bytes: &[u8]) {
    let naive = naive::read(bytes, false);
    let (l4, len) = match bytes.first().map(|b| b >> 4) {
        Some(4) => match icmp::quote4(bytes) {
            Ok(quote) => (quote.l4, quote.payload_len),
            Err(_) => return,
        },
        _ => match icmp::quote6(bytes) {
            Ok(quote) => (quote.l4, quote.payload_len),
            Err(_) => return,
        },
    };
    let Ok(ip) = naive else { panic!("bad {naive:?} was read as a quote") };
    assert_eq!((l4, len), (ip.l4, ip.len - ip.l4));
    assert!(l4 + 8 <= bytes.len(), "ports are there");
    assert!(ip.fragment.is_none_or(|(offset, _)| offset == 0));
    // D-47: nothing is read into an error that quotes an error.
    assert!(!naive::is_icmp_error(bytes, &ip));
}
