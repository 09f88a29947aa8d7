//! Cutting a translated packet into fragments (RFC 7915 §4.1 and §5.1.1, RFC 8200 §4.5, RFC 791 §3.2).

use super::v4_to_v6::Cut;
use crate::wire::checksum::{Sum, pseudo4, pseudo6};
use crate::wire::fragment::{self, Fragment};
use crate::wire::ipv4;
use crate::wire::ipv6;
use crate::wire::l4;
use crate::wire::packet::{Checksum, PacketBuf};

/// Length of a UDP header.
const UDP_HEADER: usize = 8;

/// Cuts `packet`, an IPv6 packet without extension headers that this translator has just made, and hands each
/// piece to `emit`, first piece first. A UDP super-packet is first taken apart into its datagrams.
pub fn cut(
    packet: &mut PacketBuf,
    cut: Cut,
    scratch: &mut [PacketBuf; 2],
    mut emit: impl FnMut(&mut PacketBuf),
) {
    let [datagram, piece] = scratch;
    let Some(gso) = packet.offload.gso else {
        finish_checksum(packet);
        fragment(packet.bytes(), cut.mtu, cut.place, piece, &mut emit);
        return;
    };
    let Some((headers, payload)) = packet.bytes().split_at_checked(ipv6::HEADER + UDP_HEADER) else { return };
    for (i, chunk) in payload.chunks(usize::from(gso.size).max(1)).enumerate() {
        datagram.fill(headers);
        datagram.append(chunk);
        let udp_len = ((UDP_HEADER + chunk.len()) as u16).to_be_bytes();
        let bytes = datagram.bytes_mut();
        bytes[4..6].copy_from_slice(&udp_len);
        bytes[44..46].copy_from_slice(&udp_len);
        datagram.offload.checksum = Checksum::Partial { start: ipv6::HEADER as u16, field: 6 };
        finish_checksum(datagram);
        if datagram.len() <= usize::from(cut.mtu) {
            emit(datagram);
        } else {
            let place = Fragment { id: cut.place.id.wrapping_add(i as u32), ..cut.place };
            fragment(datagram.bytes(), cut.mtu, place, piece, &mut emit);
        }
    }
}

/// Cuts `packet`, an IPv4 packet without options that this translator has just made and that is no super-packet, and
/// hands each piece to `emit`, first piece first. When it is a fragment already its pieces keep their place in the
/// datagram (RFC 791 §3.2).
pub fn cut4(packet: &mut PacketBuf, mtu: u16, piece: &mut PacketBuf, mut emit: impl FnMut(&mut PacketBuf)) {
    finish_checksum(packet);
    let bytes = packet.bytes();
    let Some((front, payload)) = bytes.split_first_chunk::<{ ipv4::HEADER }>() else { return };
    let room = (usize::from(mtu).saturating_sub(ipv4::HEADER) & !7).max(8);
    let place = u16::from_be_bytes([front[6], front[7]]);
    let last = place & ipv4::MORE_FRAGMENTS == 0;
    for (i, chunk) in payload.chunks(room).enumerate() {
        let at = i * room;
        let more = !last || at + chunk.len() < payload.len();
        let mut header = *front;
        header[2..4].copy_from_slice(&((ipv4::HEADER + chunk.len()) as u16).to_be_bytes());
        let offset = (place & 0x1fff) + (at / 8) as u16;
        header[6..8].copy_from_slice(&(offset | if more { ipv4::MORE_FRAGMENTS } else { 0 }).to_be_bytes());
        header[10..12].fill(0);
        let sum = Sum::ZERO.bytes(&header).checksum();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        piece.fill(&header);
        piece.append(chunk);
        emit(piece);
    }
}

/// Computes a checksum that was left to offloading. The packet is IPv6 without extension headers or IPv4 without
/// options, with TCP or UDP.
pub fn finish_checksum(packet: &mut PacketBuf) {
    let Checksum::Partial { field, .. } = packet.offload.checksum else { return };
    packet.offload.checksum = Checksum::Complete;
    let bytes = packet.bytes_mut();
    let is_v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
    let header_len = if is_v6 { ipv6::HEADER } else { ipv4::HEADER };
    let Some((header, transport)) = bytes.split_at_mut_checked(header_len) else { return };
    let protocol = header[if is_v6 { 6 } else { 9 }];
    let len = match transport.first_chunk::<UDP_HEADER>() {
        // What lies behind a datagram is not part of it (RFC 768).
        Some(h) if protocol == l4::UDP => usize::from(u16::from_be_bytes([h[4], h[5]])),
        Some(_) | None => transport.len(),
    };
    let field = usize::from(field);
    let Some(transport) = transport.get_mut(..len).filter(|t| t.len() >= field + 2) else { return };
    let pseudo = if is_v6 {
        let Some((src, dst)) = header.first_chunk().map(ipv6::addresses) else { return };
        pseudo6(src, dst, protocol, len as u32)
    } else {
        let Some((src, dst)) = header.first_chunk().map(ipv4::addresses) else { return };
        pseudo4(src, dst, protocol, len as u32)
    };
    transport[field..field + 2].fill(0);
    let sum = match pseudo.bytes(transport).checksum() {
        0 if protocol == l4::UDP => 0xffff_u16,
        sum => sum,
    };
    transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn fragment(
    packet: &[u8],
    mtu: u16,
    place: Fragment,
    piece: &mut PacketBuf,
    emit: &mut impl FnMut(&mut PacketBuf),
) {
    let Some((header, payload)) = packet.split_at_checked(ipv6::HEADER) else { return };
    let room = (usize::from(mtu).saturating_sub(ipv6::HEADER + fragment::HEADER) & !7).max(8);
    for (i, chunk) in payload.chunks(room).enumerate() {
        let at = i * room;
        let mut front = [0; fragment::HEADER];
        let more = place.more || at + chunk.len() < payload.len();
        let offset = place.offset.wrapping_add(at as u16);
        Fragment { offset, more, id: place.id }.write(header[6], &mut front);
        piece.fill(header);
        piece.append(&front);
        piece.append(chunk);
        let len = ((fragment::HEADER + chunk.len()) as u16).to_be_bytes();
        let bytes = piece.bytes_mut();
        bytes[4..6].copy_from_slice(&len);
        bytes[6] = ipv6::FRAGMENT;
        emit(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv6::Header6;
    use crate::wire::packet::{Gso, GsoKind};

    fn udp6(payload: &[u8]) -> PacketBuf {
        let mut bytes = vec![0; 40];
        let header = Header6 {
            traffic_class: 0,
            payload_len: (8 + payload.len()) as u16,
            next_header: l4::UDP,
            hop_limit: 9,
            src: "2001:db8::1".parse().unwrap(),
            dst: "2001:db8::2".parse().unwrap(),
        };
        header.write(bytes.first_chunk_mut().unwrap());
        bytes.extend([0, 1, 0, 2]);
        bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        let mut packet = PacketBuf::from_bytes(&bytes);
        packet.offload.checksum = Checksum::Partial { start: 40, field: 6 };
        packet
    }

    fn pieces(mut packet: PacketBuf, mtu: u16) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut scratch = [PacketBuf::new(), PacketBuf::new()];
        cut(
            &mut packet,
            Cut { mtu, place: Fragment { offset: 0, more: false, id: 0x1234 } },
            &mut scratch,
            |p| out.push(p.bytes().to_vec()),
        );
        out
    }

    #[test]
    fn c11_pieces_fit_and_reassemble() {
        let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
        let out = pieces(udp6(&payload), 1280);
        assert_eq!(out.len(), 3);
        let mut whole = Vec::new();
        for (i, piece) in out.iter().enumerate() {
            assert!(piece.len() <= 1280);
            let view = ipv6::parse(piece).unwrap();
            let fragment = view.fragment.unwrap();
            assert_eq!((fragment.id, fragment.more), (0x1234, i < 2));
            assert_eq!(usize::from(fragment.offset), whole.len());
            whole.extend(&piece[48..]);
        }
        assert_eq!(&whole[8..], &payload[..]);
        let header: &[u8; 40] = out[0].first_chunk().unwrap();
        let (src, dst) = ipv6::addresses(header);
        assert_eq!(pseudo6(src, dst, l4::UDP, whole.len() as u32).bytes(&whole).fold(), 0xffff);
    }

    #[test]
    fn a_udp_super_packet_becomes_whole_datagrams_or_fragments_of_them() {
        let mut packet = udp6(&[7; 2500]);
        packet.offload.gso = Some(Gso { kind: GsoKind::Udp, size: 1000, ecn: false });
        let out = pieces(packet, 1280);
        assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [1048, 1048, 548]);
        for piece in &out {
            let view = ipv6::parse(piece).unwrap();
            let sum = pseudo6(view.src, view.dst, l4::UDP, (piece.len() - 40) as u32).bytes(&piece[40..]);
            assert_eq!(sum.fold(), 0xffff);
        }
        let mut packet = udp6(&[7; 2900]);
        packet.offload.gso = Some(Gso { kind: GsoKind::Udp, size: 1450, ecn: false });
        let out = pieces(packet, 1280);
        assert_eq!(out.len(), 4);
        let ids: Vec<u32> = out.iter().map(|p| ipv6::parse(p).unwrap().fragment.unwrap().id).collect();
        assert_eq!(ids, [0x1234, 0x1234, 0x1235, 0x1235]);
    }
}
