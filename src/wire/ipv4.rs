//! IPv4 headers (RFC 791).

use std::net::Ipv4Addr;

use crate::verdict::DropReason;
use crate::wire::checksum::{self, Sum};
use crate::wire::fragment::Fragment;
use crate::wire::l4::{self, Payload};

/// Length of a header without options.
pub const HEADER: usize = 20;
/// The flag "more fragments" within the word of flags and offset.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// A parsed IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View4 {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Don't fragment.
    pub df: bool,
    /// Protocol number.
    pub protocol: u8,
    /// Total length, header included; never more than the bytes given.
    pub total_len: usize,
    /// Offset of the transport header: the header length.
    pub l4: usize,
    /// The transport.
    pub payload: Payload,
    /// Place in the datagram, when this is a fragment.
    pub fragment: Option<Fragment>,
    /// A loose or strict source route that is not used up stands among the options.
    pub source_route: bool,
}

/// The fields of a header to be written. Always without options; the checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header4 {
    /// Type of service.
    pub tos: u8,
    /// Total length.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Don't fragment.
    pub df: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
}

impl Header4 {
    /// Writes the header of a fragment into the first 20 bytes. Offset and flag come from `fragment`.
    pub fn write_fragment(&self, fragment: Fragment, out: &mut [u8; HEADER]) {
        self.write(out);
        let flags = u16::from_be_bytes([out[6], out[7]]);
        let more = if fragment.more { MORE_FRAGMENTS } else { 0 };
        let placed = flags | more | fragment.offset >> 3;
        let sum = checksum::update(
            u16::from_be_bytes([out[10], out[11]]),
            Sum::ZERO.minus_word(flags).word(placed),
        );
        out[6..8].copy_from_slice(&placed.to_be_bytes());
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Writes the header into the first 20 bytes.
    #[inline]
    pub fn write(&self, out: &mut [u8; HEADER]) {
        let [len_hi, len_lo] = self.total_len.to_be_bytes();
        let [id_hi, id_lo] = self.id.to_be_bytes();
        let flags = if self.df { 0x40 } else { 0 };
        let sum = Sum::ZERO
            .word(0x4500 | u16::from(self.tos))
            .word(self.total_len)
            .word(self.id)
            .word(u16::from(flags) << 8)
            .word(u16::from(self.ttl) << 8 | u16::from(self.protocol))
            .ipv4(self.src)
            .ipv4(self.dst);
        let [sum_hi, sum_lo] = sum.checksum().to_be_bytes();
        let [s0, s1, s2, s3] = self.src.octets();
        let [d0, d1, d2, d3] = self.dst.octets();
        *out = [
            0x45,
            self.tos,
            len_hi,
            len_lo,
            id_hi,
            id_lo,
            flags,
            0,
            self.ttl,
            self.protocol,
            sum_hi,
            sum_lo,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
    }
}

/// Parses a whole packet (C-22: version, header length, total length and header checksum are checked).
#[inline]
pub fn parse(bytes: &[u8]) -> Result<View4, DropReason> {
    let Some(h) = bytes.first_chunk::<HEADER>() else { return Err(DropReason::Truncated) };
    if h[0] >> 4 != 4 {
        return Err(DropReason::BadVersion);
    }
    let header_len = usize::from(h[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if header_len < HEADER || total_len < header_len {
        return Err(DropReason::BadLength);
    }
    if total_len > bytes.len() {
        return Err(DropReason::Truncated);
    }
    if Sum::ZERO.bytes(&bytes[..header_len]).fold() != 0xffff {
        return Err(DropReason::BadIpv4Checksum);
    }
    let flags_offset = u16::from_be_bytes([h[6], h[7]]);
    let protocol = h[9];
    let id = u16::from_be_bytes([h[4], h[5]]);
    let (payload, fragment) = if flags_offset & 0x3fff == 0 {
        (l4::parse(protocol, l4::ICMP, &bytes[header_len..total_len])?, None)
    } else {
        let more = flags_offset & 0x2000 != 0;
        let offset = (flags_offset & 0x1fff) << 3;
        (Payload::Fragment, Some(Fragment { offset, more, id: id.into() }))
    };
    let (src, dst) = addresses(h);
    Ok(View4 {
        src,
        dst,
        tos: h[1],
        ttl: h[8],
        id,
        df: flags_offset & 0x4000 != 0,
        protocol,
        total_len,
        l4: header_len,
        payload,
        fragment,
        source_route: header_len > HEADER && pending_source_route(&bytes[HEADER..header_len])?,
    })
}

/// Source and destination of a header.
#[inline]
pub(crate) const fn addresses(h: &[u8; HEADER]) -> (Ipv4Addr, Ipv4Addr) {
    (Ipv4Addr::new(h[12], h[13], h[14], h[15]), Ipv4Addr::new(h[16], h[17], h[18], h[19]))
}

/// Whether a source route option (RFC 791 §3.1) still has addresses to visit: pointer not beyond its length.
fn pending_source_route(mut options: &[u8]) -> Result<bool, DropReason> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LSRR: u8 = 131;
    const SSRR: u8 = 137;
    while let [kind, rest @ ..] = options {
        match *kind {
            END => break,
            NOP => options = rest,
            _ => {
                let len = usize::from(*rest.first().ok_or(DropReason::BadLength)?);
                if len < 2 || len > options.len() {
                    return Err(DropReason::BadLength);
                }
                if matches!(*kind, LSRR | SSRR) {
                    let pointer = usize::from(*rest.get(1).ok_or(DropReason::BadLength)?);
                    if len >= 3 && pointer <= len {
                        return Ok(true);
                    }
                }
                options = &options[len..];
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(options: &[u8], payload: &[u8], protocol: u8) -> Vec<u8> {
        let header_len = 20 + options.len();
        let mut out = vec![0; header_len];
        out[0] = 0x40 | (header_len / 4) as u8;
        out[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
        out[8] = 64;
        out[9] = protocol;
        out[12..16].copy_from_slice(&[192, 0, 2, 1]);
        out[16..20].copy_from_slice(&[198, 51, 100, 1]);
        out[20..].copy_from_slice(options);
        let sum = Sum::ZERO.bytes(&out).checksum();
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn c22_header_fields_are_checked() {
        let good = header(&[], &[0, 1, 0, 2, 0, 8, 0, 0], 17);
        assert!(parse(&good).is_ok());
        assert_eq!(parse(&good[..19]), Err(DropReason::Truncated));
        assert_eq!(parse(&good[..27]), Err(DropReason::Truncated));
        let mut bad = good.clone();
        bad[10] ^= 1;
        assert_eq!(parse(&bad), Err(DropReason::BadIpv4Checksum));
        let mut bad = good.clone();
        bad[0] = 0x44;
        assert_eq!(parse(&bad), Err(DropReason::BadLength));
        let mut bad = good;
        bad[0] = 0x55;
        assert_eq!(parse(&bad), Err(DropReason::BadVersion));
    }

    #[test]
    fn c09_source_route_pending_or_used_up() {
        let udp = [0, 1, 0, 2, 0, 8, 0, 0];
        for (pointer, pending) in [(4, true), (8, false)] {
            let packet = header(&[131, 7, pointer, 10, 0, 0, 1, 0], &udp, 17);
            assert_eq!(parse(&packet).unwrap().source_route, pending);
        }
        assert_eq!(parse(&header(&[131, 60, 4, 0], &udp, 17)), Err(DropReason::BadLength));
        assert_eq!(parse(&header(&[7, 1, 0, 0], &udp, 17)), Err(DropReason::BadLength));
        assert!(!parse(&header(&[1, 1, 1, 0], &udp, 17)).unwrap().source_route);
    }

    #[test]
    fn a_written_fragment_header_parses_to_the_same_place() {
        let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 9));
        let header = Header4 { tos: 0, total_len: 28, id: 9, df: false, ttl: 3, protocol: 17, src, dst };
        for fragment in [
            Fragment { offset: 0, more: true, id: 9 },
            Fragment { offset: 1480, more: true, id: 9 },
            Fragment { offset: 65_528, more: false, id: 9 },
        ] {
            let mut bytes = [0; 28];
            header.write_fragment(fragment, bytes.first_chunk_mut().unwrap());
            assert_eq!(parse(&bytes).unwrap().fragment, Some(fragment));
        }
    }

    #[test]
    fn a_written_header_parses_to_the_same_fields() {
        let header = Header4 {
            tos: 0xb9,
            total_len: 28,
            id: 7,
            df: true,
            ttl: 63,
            protocol: 17,
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(198, 51, 100, 9),
        };
        let mut bytes = [0, 1, 0, 2, 0, 8, 0xab, 0xcd].to_vec();
        let mut front = [0; 20];
        header.write(&mut front);
        bytes.splice(0..0, front);
        let view = parse(&bytes).unwrap();
        assert_eq!(
            (view.tos, view.id, view.df, view.ttl, view.src, view.dst),
            (0xb9, 7, true, 63, header.src, header.dst)
        );
    }
}
