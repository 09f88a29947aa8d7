//! Tells the real source of an ICMP error that had to be given another one (RFC 6791 §4): an Interface Information
//! Object (RFC 5837 §4) with its IPv6 address, in an extension of RFC 4884.

use std::net::Ipv6Addr;

use super::icmp_error::MAX_ERROR4;
use crate::wire::checksum::Sum;
use crate::wire::icmp::HEADER;
use crate::wire::ipv4;
use crate::wire::packet::PacketBuf;

/// Least quote in front of an extension (RFC 4884 §5).
const MIN_QUOTE: usize = 128;
const EXTENSION_HEADER: usize = 4;
/// Object header, address family and reserved, address.
const OBJECT: usize = 4 + 4 + 16;
/// Class of the Interface Information Object.
const CLASS: u8 = 2;
/// Role 0, the interface that the packet came in by, and "an address is included" (RFC 5837 §4.1).
const INCOMING_ADDRESS: u8 = 0b0000_0100;
/// Address family number of IPv6.
const AFI_IPV6: u8 = 2;
/// Offset of the length of the quote, in 32-bit words, within the ICMPv4 message (RFC 4884 §4.1–4.3).
const LENGTH: usize = 5;

/// Adds the object to `packet`, an ICMPv4 error of type 3, 11 or 12 behind an IPv4 header without options. A packet that
/// already says such a thing, or has no room for it, stays as it is.
pub fn append(packet: &mut PacketBuf, source: Ipv6Addr) {
    let start = ipv4::HEADER + HEADER;
    let Some(words) = packet.bytes().get(ipv4::HEADER + LENGTH).copied() else { return };
    let extension_at = start + usize::from(words) * 4;
    let extension = packet.bytes().get(extension_at..).filter(|_| words != 0).unwrap_or(&[]);
    let extension_at = if extension.len() < EXTENSION_HEADER {
        begin_extension(packet)
    } else if has_object(extension) || packet.len() + OBJECT > MAX_ERROR4 {
        return;
    } else {
        extension_at
    };
    packet.append(&[0, OBJECT as u8, CLASS, INCOMING_ADDRESS, 0, AFI_IPV6, 0, 0]);
    packet.append(&source.octets());
    let total_len = packet.len() as u16;
    let bytes = packet.bytes_mut();
    bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
    write_sum(bytes, extension_at + 2, extension_at, usize::MAX);
    write_sum(bytes, ipv4::HEADER + 2, ipv4::HEADER, usize::MAX);
    write_sum(bytes, 10, 0, ipv4::HEADER);
}

/// Pads the quote, cut if it leaves no room, and puts an empty extension behind it. Gives where that begins.
fn begin_extension(packet: &mut PacketBuf) -> usize {
    let start = ipv4::HEADER + HEADER;
    let room = (MAX_ERROR4 - start - EXTENSION_HEADER - OBJECT) & !3;
    packet.truncate(start + room);
    let quote = packet.len() - start;
    let padded = quote.next_multiple_of(4).max(MIN_QUOTE);
    packet.append(&[0; MIN_QUOTE][..padded - quote]);
    // At most 130 words.
    packet.bytes_mut()[ipv4::HEADER + LENGTH] = (padded / 4) as u8;
    packet.append(&[0x20, 0, 0, 0]);
    start + padded
}

/// Whether an extension has an object of the same class and role, which may not be there twice (RFC 5837 §4.5).
fn has_object(extension: &[u8]) -> bool {
    let mut objects = extension.get(EXTENSION_HEADER..).unwrap_or(&[]);
    while let &[hi, lo, class, kind, ..] = objects {
        if class == CLASS && kind >> 6 == 0 {
            return true;
        }
        let len = usize::from(u16::from_be_bytes([hi, lo])).max(4);
        objects = objects.get(len..).unwrap_or(&[]);
    }
    false
}

/// Writes the checksum of `bytes[from..to]` at `at`.
fn write_sum(bytes: &mut [u8], at: usize, from: usize, to: usize) {
    bytes[at..at + 2].fill(0);
    let to = to.min(bytes.len());
    let sum = Sum::ZERO.bytes(&bytes[from..to]).checksum();
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::Header4;
    use crate::wire::{icmp, l4};

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x1234);

    /// A time exceeded message with a quote of `len` bytes.
    fn error(len: usize) -> PacketBuf {
        let mut packet = PacketBuf::from_bytes(&[0; 20]);
        packet.append(&[icmp::v4::TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0]);
        packet.append(&vec![0xab; len]);
        let header = Header4 {
            tos: 0,
            total_len: packet.len() as u16,
            id: 0,
            df: false,
            ttl: 9,
            protocol: l4::ICMP,
            src: [198, 51, 100, 9].into(),
            dst: [203, 0, 113, 1].into(),
        };
        header.write(packet.bytes_mut().first_chunk_mut().unwrap());
        packet
    }

    /// The quote with its padding, and the extension.
    fn parts(packet: &PacketBuf) -> (Vec<u8>, Vec<u8>) {
        let view = ipv4::parse(packet.bytes()).unwrap();
        assert_eq!(view.total_len, packet.len());
        let message = &packet.bytes()[20..];
        assert_eq!(Sum::ZERO.bytes(message).fold(), 0xffff);
        let len = usize::from(message[5]) * 4;
        let extension = message[8 + len..].to_vec();
        assert_eq!(Sum::ZERO.bytes(&extension).fold(), 0xffff);
        assert_eq!(extension[0], 0x20);
        (message[8..8 + len].to_vec(), extension)
    }

    #[test]
    fn b29_the_object_names_the_source_behind_a_padded_quote() {
        for (quote, padded) in [(28, 128), (128, 128), (130, 132), (517, 520), (548, 520)] {
            let mut packet = error(quote);
            append(&mut packet, ROUTER);
            assert!(packet.len() <= 576);
            let (kept, extension) = parts(&packet);
            assert_eq!(kept.len(), padded, "quote of {quote}");
            assert!(kept[..quote.min(padded)].iter().all(|b| *b == 0xab));
            assert!(kept[quote.min(padded)..].iter().all(|b| *b == 0));
            assert_eq!(extension[4..12], [0, 24, 2, 4, 0, 2, 0, 0]);
            assert_eq!(extension[12..], ROUTER.octets());
        }
    }

    #[test]
    fn b29_an_extension_that_is_there_is_kept_and_none_is_doubled() {
        let mut packet = error(128);
        packet.bytes_mut()[25] = 32;
        // RFC 4950: an MPLS label stack.
        packet.append(&[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 0xf1, 1]);
        append(&mut packet, ROUTER);
        let (_, extension) = parts(&packet);
        assert_eq!(extension[4..12], [0, 8, 1, 1, 0, 1, 0xf1, 1]);
        assert_eq!(extension[12..20], [0, 24, 2, 4, 0, 2, 0, 0]);
        let before = packet.bytes().to_vec();
        append(&mut packet, ROUTER);
        assert_eq!(packet.bytes(), before);
    }
}
