//! IPv6 headers and the extension chain (RFC 8200).

use std::net::Ipv6Addr;

use crate::verdict::DropReason;
use crate::wire::fragment::{self, Fragment};
use crate::wire::l4::{self, Payload};

/// Length of the base header.
pub const HEADER: usize = 40;
/// More extension headers than any honest packet has.
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// Next Header value of a Fragment Header.
pub const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A parsed IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View6 {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Number of the transport behind all extension headers.
    pub protocol: u8,
    /// Length of the packet, base header included; never more than the bytes given.
    pub total_len: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// The transport.
    pub payload: Payload,
    /// The Fragment Header, if there is one.
    pub fragment: Option<Fragment>,
    /// Offset of the Segments Left byte of a routing header that still has work to do.
    pub segments_left: Option<usize>,
}

/// The fields of a base header to be written; the flow label is zero (RFC 7915 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header6 {
    /// Traffic class.
    pub traffic_class: u8,
    /// Payload length.
    pub payload_len: u16,
    /// Next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
}

impl Header6 {
    /// Writes the header into the first 40 bytes.
    #[inline]
    pub fn write(&self, out: &mut [u8; HEADER]) {
        let [len_hi, len_lo] = self.payload_len.to_be_bytes();
        out[..8].copy_from_slice(&[
            0x60 | self.traffic_class >> 4,
            self.traffic_class << 4,
            0,
            0,
            len_hi,
            len_lo,
            self.next_header,
            self.hop_limit,
        ]);
        out[8..24].copy_from_slice(&self.src.octets());
        out[24..].copy_from_slice(&self.dst.octets());
    }
}

/// Where the extension chain of a packet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// First Next Header value that is no extension header we skip.
    pub protocol: u8,
    /// Its offset.
    pub l4: usize,
    /// The Fragment Header, if there is one.
    pub fragment: Option<Fragment>,
    /// Offset of a Segments Left byte that is not zero.
    pub segments_left: Option<usize>,
}

/// Parses a whole packet.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<View6, DropReason> {
    let Some(h) = bytes.first_chunk::<HEADER>() else { return Err(DropReason::Truncated) };
    if h[0] >> 4 != 6 {
        return Err(DropReason::BadVersion);
    }
    let total_len = HEADER + usize::from(u16::from_be_bytes([h[4], h[5]]));
    if total_len > bytes.len() {
        return Err(DropReason::Truncated);
    }
    let chain = walk(h[6], &bytes[..total_len])?;
    let payload = match chain.fragment {
        Some(fragment) if !fragment.is_atomic() => Payload::Fragment,
        _ => l4::parse(chain.protocol, l4::ICMPV6, &bytes[chain.l4..total_len])?,
    };
    let (src, dst) = addresses(h);
    Ok(View6 {
        src,
        dst,
        traffic_class: traffic_class(h),
        hop_limit: h[7],
        protocol: chain.protocol,
        total_len,
        l4: chain.l4,
        payload,
        fragment: chain.fragment,
        segments_left: chain.segments_left,
    })
}

/// Source and destination of a base header.
#[inline]
pub(crate) fn addresses(h: &[u8; HEADER]) -> (Ipv6Addr, Ipv6Addr) {
    let mut src = [0; 16];
    let mut dst = [0; 16];
    src.copy_from_slice(&h[8..24]);
    dst.copy_from_slice(&h[24..]);
    (Ipv6Addr::from(src), Ipv6Addr::from(dst))
}

/// Traffic class of a base header.
#[inline]
pub(crate) const fn traffic_class(h: &[u8; HEADER]) -> u8 {
    h[0] << 4 | h[1] >> 4
}

/// Whether `protocol` is an IPv6 extension header that no fragment may carry over into IPv4 (RFC 7915 §5.1.1: all but
/// ESP; the list is that of RFC 7045 §5).
pub const fn is_extension_header(protocol: u8) -> bool {
    const AUTHENTICATION: u8 = 51;
    const MOBILITY: u8 = 135;
    const HIP: u8 = 139;
    const SHIM6: u8 = 140;
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6
    )
}

/// Follows the extension chain (RFC 7915 §5.1 names the headers to skip). `bytes` is the whole packet.
#[inline]
pub(crate) fn walk(first: u8, bytes: &[u8]) -> Result<Chain, DropReason> {
    let mut chain = Chain { protocol: first, l4: HEADER, fragment: None, segments_left: None };
    for seen in 0..=MAX_EXTENSIONS {
        match chain.protocol {
            HOP_BY_HOP if seen > 0 => return Err(DropReason::ExtensionChain),
            FRAGMENT if seen == MAX_EXTENSIONS => return Err(DropReason::ExtensionChain),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let Some(&[next, len, _, segments, ..]) = bytes[chain.l4..].first_chunk::<8>() else {
                    return Err(DropReason::ExtensionChain);
                };
                if chain.protocol == ROUTING && segments != 0 {
                    chain.segments_left = Some(chain.l4 + 3);
                }
                // RFC 7915 §5.1.1: behind a Fragment Header no further extension header is translated.
                if chain.fragment.is_some() {
                    return Err(DropReason::ExtensionChain);
                }
                chain.protocol = next;
                chain.l4 += 8 + usize::from(len) * 8;
                if chain.l4 > bytes.len() {
                    return Err(DropReason::ExtensionChain);
                }
            }
            FRAGMENT => {
                let Some(&[next, _, hi, lo, a, b, c, d]) = bytes[chain.l4..].first_chunk::<8>() else {
                    return Err(DropReason::ExtensionChain);
                };
                if chain.fragment.is_some() {
                    return Err(DropReason::ExtensionChain);
                }
                let fragment = Fragment {
                    offset: u16::from_be_bytes([hi, lo]) & 0xfff8,
                    more: lo & 1 != 0,
                    id: u32::from_be_bytes([a, b, c, d]),
                };
                chain.fragment = Some(fragment);
                chain.protocol = next;
                chain.l4 += fragment::HEADER;
                if fragment.offset != 0 {
                    return Ok(chain);
                }
            }
            _ => return Ok(chain),
        }
    }
    Err(DropReason::ExtensionChain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        let header = Header6 {
            traffic_class: 0,
            payload_len: payload.len() as u16,
            next_header: next,
            hop_limit: 64,
            src: "2001:db8::1".parse().unwrap(),
            dst: "64:ff9b::1".parse().unwrap(),
        };
        header.write(out.first_chunk_mut().unwrap());
        out.extend_from_slice(payload);
        out
    }

    const UDP: [u8; 8] = [0, 1, 0, 2, 0, 8, 0xab, 0xcd];

    #[test]
    fn b09_chain_of_hbh_destopts_routing_ends_at_udp() {
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0];
        payload.extend([43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend([17, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend(UDP);
        let view = parse(&packet(0, &payload)).unwrap();
        assert_eq!((view.protocol, view.l4), (17, 40 + 32));
        assert!(matches!(view.payload, Payload::Udp(udp) if udp.dst == 2));
        assert_eq!(view.segments_left, None);
    }

    #[test]
    fn b11_segments_left_is_found_at_its_byte() {
        let mut payload = vec![17, 0, 0, 2, 0, 0, 0, 0];
        payload.extend(UDP);
        assert_eq!(parse(&packet(43, &payload)).unwrap().segments_left, Some(43));
    }

    #[test]
    fn chains_are_bounded() {
        let mut endless = Vec::new();
        for _ in 0..40 {
            endless.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        }
        assert_eq!(parse(&packet(60, &endless)), Err(DropReason::ExtensionChain));
        assert_eq!(parse(&packet(60, &[17, 200, 0, 0, 0, 0, 0, 0])), Err(DropReason::ExtensionChain));
        assert_eq!(parse(&packet(60, &[17, 0, 0])), Err(DropReason::ExtensionChain));
    }

    #[test]
    fn fragments_are_told_from_atomic_ones() {
        let mut atomic = vec![17, 0, 0, 0, 0, 0, 0x12, 0x34];
        atomic.extend(UDP);
        let view = parse(&packet(44, &atomic)).unwrap();
        assert!(matches!(view.payload, Payload::Udp(_)));
        assert_eq!(view.fragment.unwrap().id, 0x1234);
        let mut first = vec![17, 0, 0, 1, 0, 0, 0x12, 0x34];
        first.extend(UDP);
        assert_eq!(parse(&packet(44, &first)).unwrap().payload, Payload::Fragment);
    }
}
