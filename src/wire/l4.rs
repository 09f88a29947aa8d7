//! Transport headers: TCP (RFC 9293), UDP (RFC 768), and the rest by number.

use crate::verdict::DropReason;
use crate::wire::icmp::{self, Icmp};

/// IP protocol number of ICMPv4.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// ICMP of the packet's own family.
    Icmp(Icmp),
    /// A fragment: the transport header cannot be relied upon.
    Fragment,
    /// Anything else, by protocol number.
    Other(u8),
}

/// The fields of a TCP header that translation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Control bits.
    pub flags: TcpFlags,
    /// Header length in bytes, 20–60.
    pub header_len: u8,
}

/// Control bits of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// Whether any of `bits` is set.
    #[inline]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Whether this asks for a new connection: SYN alone. A SYN-ACK answers, and a RST ends whatever else it says.
    #[inline]
    pub const fn opens(self) -> bool {
        self.has(Self::SYN) && !self.has(Self::RST | Self::ACK)
    }
}

/// The fields of a UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Whether the checksum field is zero.
    pub no_checksum: bool,
}

impl Payload {
    /// Bytes of the transport header (for ICMP: of its fixed part).
    #[inline]
    pub const fn header_len(&self) -> usize {
        match self {
            Self::Tcp(tcp) => tcp.header_len as usize,
            Self::Udp(_) | Self::Icmp(_) => 8,
            Self::Fragment | Self::Other(_) => 0,
        }
    }
}

/// The least that a first fragment must hold of its transport, so that nobody can hide ports or flags in a later one
/// (RFC 1858, RFC 7112).
pub fn smallest_header(protocol: u8, bytes: &[u8]) -> usize {
    match protocol {
        TCP => bytes.get(12).map_or(20, |offset| usize::from(offset >> 4) * 4).max(20),
        UDP | ICMP | ICMPV6 => 8,
        _ => 0,
    }
}

/// Reads the transport header of a whole (unfragmented) packet. `bytes` is the IP payload.
#[inline]
pub(crate) fn parse(protocol: u8, family_icmp: u8, bytes: &[u8]) -> Result<Payload, DropReason> {
    match protocol {
        TCP => {
            let Some(h) = bytes.first_chunk::<20>() else { return Err(DropReason::Truncated) };
            let header_len = usize::from(h[12] >> 4) * 4;
            if header_len < 20 || header_len > bytes.len() {
                return Err(DropReason::BadLength);
            }
            Ok(Payload::Tcp(Tcp {
                src: u16::from_be_bytes([h[0], h[1]]),
                dst: u16::from_be_bytes([h[2], h[3]]),
                flags: TcpFlags(h[13]),
                header_len: header_len as u8,
            }))
        }
        UDP => {
            let Some(h) = bytes.first_chunk::<8>() else { return Err(DropReason::Truncated) };
            let len = usize::from(u16::from_be_bytes([h[4], h[5]]));
            if len < 8 || len > bytes.len() {
                return Err(DropReason::BadLength);
            }
            Ok(Payload::Udp(Udp {
                src: u16::from_be_bytes([h[0], h[1]]),
                dst: u16::from_be_bytes([h[2], h[3]]),
                no_checksum: h[6] == 0 && h[7] == 0,
            }))
        }
        _ if protocol == family_icmp => Ok(Payload::Icmp(icmp::parse(bytes, family_icmp)?)),
        _ => Ok(Payload::Other(protocol)),
    }
}
