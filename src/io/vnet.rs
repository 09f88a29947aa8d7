//! The virtio-net header in front of each packet on the TUN (`struct virtio_net_hdr`, 10 bytes, host byte
//! order): what the kernel left to be done, and what we leave to it.

use crate::verdict::DropReason;
use crate::wire::packet::{Checksum, Gso, GsoKind, Offload, PacketBuf};

/// Its length.
pub const HEADER: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Reads the header.
#[inline]
pub fn decode(h: [u8; HEADER]) -> Result<Offload, DropReason> {
    let word = |at: usize| u16::from_ne_bytes([h[at], h[at + 1]]);
    let kind = match h[1] & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV4 | GSO_TCPV6 => Some(GsoKind::Tcp),
        GSO_UDP_L4 => Some(GsoKind::Udp),
        _ => return Err(DropReason::BadOffload),
    };
    Ok(Offload {
        checksum: if h[0] & NEEDS_CSUM != 0 {
            Checksum::Partial { start: word(6), field: word(8) }
        } else {
            Checksum::Complete
        },
        gso: kind.map(|kind| Gso { kind, size: word(4), ecn: h[1] & GSO_ECN != 0 }),
        header_len: word(2),
    })
}

/// Makes the header for `packet`.
#[inline]
pub fn encode(packet: &PacketBuf) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    let mut put = |at: usize, word: u16| h[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    let mut flags = 0;
    let mut gso_type = GSO_NONE;
    if let Checksum::Partial { start, field } = packet.offload.checksum {
        flags = NEEDS_CSUM;
        put(6, start);
        put(8, field);
    }
    if let Some(gso) = packet.offload.gso {
        let is_v6 = packet.bytes().first().is_some_and(|b| b >> 4 == 6);
        gso_type = match gso.kind {
            GsoKind::Tcp if is_v6 => GSO_TCPV6,
            GsoKind::Tcp => GSO_TCPV4,
            GsoKind::Udp => GSO_UDP_L4,
        } | if gso.ecn { GSO_ECN } else { 0 };
        put(2, packet.offload.header_len);
        put(4, gso.size);
    }
    h[0] = flags;
    h[1] = gso_type;
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_a_segment_follows_the_packet() {
        let mut packet = PacketBuf::from_bytes(&[0x60, 0, 0, 0]);
        packet.offload = Offload {
            checksum: Checksum::Partial { start: 40, field: 16 },
            gso: Some(Gso { kind: GsoKind::Tcp, size: 1400, ecn: true }),
            header_len: 60,
        };
        let header = encode(&packet);
        assert_eq!((header[0], header[1]), (NEEDS_CSUM, GSO_TCPV6 | GSO_ECN));
        assert_eq!(decode(header), Ok(packet.offload));
        packet.bytes_mut()[0] = 0x45;
        assert_eq!(encode(&packet)[1], GSO_TCPV4 | GSO_ECN);
    }

    #[test]
    fn unknown_segmentation_is_refused() {
        assert_eq!(decode([0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DropReason::BadOffload));
        assert_eq!(decode([0; 10]), Ok(Offload::default()));
    }
}
