//! ICMPv4 (RFC 792) and ICMPv6 (RFC 4443) messages, and the packets quoted in errors, which are read leniently.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::verdict::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::fragment::Fragment;
use crate::wire::{ipv4, ipv6, l4};

/// ICMPv4 types.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (deprecated by RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
}

/// Length of the fixed part of a message.
pub const HEADER: usize = 8;

/// An ICMP message of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// Echo request or reply.
    Echo {
        /// Whether this is the reply.
        reply: bool,
        /// Identifier.
        id: u16,
    },
    /// An error, which quotes a packet behind its 8 bytes.
    Error {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Bytes 4–7: MTU, pointer or RFC 4884 length.
        rest: u32,
    },
    /// Anything else.
    Other {
        /// Type.
        kind: u8,
    },
}

/// Reads a message; `family_icmp` is the protocol number that says which family.
#[inline]
pub(crate) fn parse(bytes: &[u8], family_icmp: u8) -> Result<Icmp, DropReason> {
    let Some(&[kind, code, _, _, a, b, c, d]) = bytes.first_chunk::<HEADER>() else {
        return Err(DropReason::Truncated);
    };
    let id = u16::from_be_bytes([a, b]);
    let rest = u32::from_be_bytes([a, b, c, d]);
    Ok(if family_icmp == l4::ICMP {
        match kind {
            v4::ECHO_REQUEST => Icmp::Echo { reply: false, id },
            v4::ECHO_REPLY => Icmp::Echo { reply: true, id },
            _ if is_error4(kind) => Icmp::Error { kind, code, rest },
            _ => Icmp::Other { kind },
        }
    } else {
        match kind {
            v6::ECHO_REQUEST => Icmp::Echo { reply: false, id },
            v6::ECHO_REPLY => Icmp::Echo { reply: true, id },
            0..=127 => Icmp::Error { kind, code, rest },
            _ => Icmp::Other { kind },
        }
    })
}

/// Whether an ICMPv4 type is an error, which must not be answered by another one (RFC 1122 §3.2.2).
pub const fn is_error4(kind: u8) -> bool {
    matches!(
        kind,
        v4::UNREACHABLE | v4::SOURCE_QUENCH | v4::REDIRECT | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM
    )
}

/// What a quoted packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Type of service or traffic class.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4 identification, or the low half of the Fragment Header's.
    pub id: u16,
    /// IPv4 DF; false for IPv6.
    pub df: bool,
    /// Whether a Fragment Header stood in an IPv6 quote.
    pub had_fragment_header: bool,
    /// Length of the quoted packet as its header says, without IP header and extension headers.
    pub payload_len: usize,
    /// Offset of the transport header from the start of the quote.
    pub l4: usize,
    /// Its place in a datagram, when it is a fragment. Only [`any_quote4`] and [`any_quote6`] tell.
    pub fragment: Option<Fragment>,
    /// The flow.
    pub flow: QuotedFlow,
}

/// Transport of a quoted packet; ports are known because at least 8 bytes of it are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotedFlow {
    /// TCP ports.
    Tcp {
        /// Source.
        src: u16,
        /// Destination.
        dst: u16,
    },
    /// UDP ports.
    Udp {
        /// Source.
        src: u16,
        /// Destination.
        dst: u16,
    },
    /// Echo.
    Echo {
        /// Whether the quoted message is the reply.
        reply: bool,
        /// Identifier.
        id: u16,
    },
    /// Nothing that can be read: another transport, or a later fragment. Only [`any_quote4`] and [`any_quote6`] give it.
    Other {
        /// Protocol number, in the family of the quote.
        protocol: u8,
    },
}

/// Reads the IPv4 packet quoted by an ICMPv4 error. A quote that ends inside the transport is fine as long as
/// the ports are there (RFC 792); its own header checksum must hold (RFC 5508 REQ-3a).
pub fn quote4(bytes: &[u8]) -> Result<Quote<Ipv4Addr>, DropReason> {
    with_ports(any_quote4(bytes)?, bytes)
}

/// The same for a translator that needs addresses only: any transport, cut anywhere behind the IP header, and any
/// fragment will do.
pub fn any_quote4(bytes: &[u8]) -> Result<Quote<Ipv4Addr>, DropReason> {
    let h = bytes.first_chunk::<{ ipv4::HEADER }>().ok_or(DropReason::IcmpQuote)?;
    let l4 = usize::from(h[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if h[0] >> 4 != 4 || l4 < ipv4::HEADER || l4 > bytes.len() || total_len < l4 {
        return Err(DropReason::IcmpQuote);
    }
    let flags_offset = u16::from_be_bytes([h[6], h[7]]);
    if Sum::ZERO.bytes(&bytes[..l4]).fold() != 0xffff {
        return Err(DropReason::IcmpQuote);
    }
    let id = u16::from_be_bytes([h[4], h[5]]);
    let fragment = (flags_offset & 0x3fff != 0).then_some(Fragment {
        offset: (flags_offset & 0x1fff) << 3,
        more: flags_offset & ipv4::MORE_FRAGMENTS != 0,
        id: id.into(),
    });
    Ok(Quote {
        src: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
        dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
        traffic_class: h[1],
        hop_limit: h[8],
        id,
        df: flags_offset & 0x4000 != 0,
        had_fragment_header: false,
        payload_len: total_len - l4,
        l4,
        fragment,
        flow: any_flow(h[9], l4::ICMP, fragment, &bytes[l4..bytes.len().min(total_len)])?,
    })
}

/// Reads the IPv6 packet quoted by an ICMPv6 error.
pub fn quote6(bytes: &[u8]) -> Result<Quote<Ipv6Addr>, DropReason> {
    with_ports(any_quote6(bytes)?, bytes)
}

/// The same for a translator that needs addresses only; see [`any_quote4`].
pub fn any_quote6(bytes: &[u8]) -> Result<Quote<Ipv6Addr>, DropReason> {
    let h = bytes.first_chunk::<{ ipv6::HEADER }>().ok_or(DropReason::IcmpQuote)?;
    if h[0] >> 4 != 6 {
        return Err(DropReason::IcmpQuote);
    }
    let chain = ipv6::walk(h[6], bytes).map_err(|_| DropReason::IcmpQuote)?;
    let total_len = ipv6::HEADER + usize::from(u16::from_be_bytes([h[4], h[5]]));
    if total_len < chain.l4 {
        return Err(DropReason::IcmpQuote);
    }
    let fragment = chain.fragment.filter(|f| !f.is_atomic());
    let (src, dst) = ipv6::addresses(h);
    Ok(Quote {
        src,
        dst,
        traffic_class: ipv6::traffic_class(h),
        hop_limit: h[7],
        id: chain.fragment.map_or(0, |f| f.id as u16),
        df: false,
        had_fragment_header: chain.fragment.is_some(),
        payload_len: total_len - chain.l4,
        l4: chain.l4,
        fragment,
        flow: any_flow(chain.protocol, l4::ICMPV6, fragment, &bytes[chain.l4..bytes.len().min(total_len)])?,
    })
}

/// A quote must say which flow it belongs to: it is no later fragment, and ports or identifier are there.
fn with_ports<A>(quote: Quote<A>, bytes: &[u8]) -> Result<Quote<A>, DropReason> {
    match quote.flow {
        QuotedFlow::Other { .. } if quote.fragment.is_some_and(|f| f.offset != 0) => {
            Err(DropReason::IcmpQuote)
        }
        // What lies behind the quoted packet is padding, not its ports.
        QuotedFlow::Other { .. } if quote.payload_len.min(bytes.len() - quote.l4) < 8 => {
            Err(DropReason::IcmpQuote)
        }
        QuotedFlow::Other { .. } => Err(DropReason::UnknownProtocol),
        QuotedFlow::Tcp { .. } | QuotedFlow::Udp { .. } | QuotedFlow::Echo { .. } => {
            Ok(Quote { fragment: None, ..quote })
        }
    }
}

/// The flow of a quote, as far as it can be read. An ICMP error within an ICMP error is refused (RFC 7915 §4.3, §5.3).
fn any_flow(
    protocol: u8,
    family_icmp: u8,
    fragment: Option<Fragment>,
    bytes: &[u8],
) -> Result<QuotedFlow, DropReason> {
    if fragment.is_some_and(|f| f.offset != 0) {
        return Ok(QuotedFlow::Other { protocol });
    }
    match quoted_flow(protocol, family_icmp, bytes) {
        Err(_) if protocol != family_icmp => Ok(QuotedFlow::Other { protocol }),
        flow => flow,
    }
}

fn quoted_flow(protocol: u8, family_icmp: u8, bytes: &[u8]) -> Result<QuotedFlow, DropReason> {
    let &[a, b, c, d, e, f, _, _] = bytes.first_chunk::<8>().ok_or(DropReason::IcmpQuote)?;
    let (src, dst) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match protocol {
        l4::TCP => Ok(QuotedFlow::Tcp { src, dst }),
        l4::UDP => Ok(QuotedFlow::Udp { src, dst }),
        _ if protocol == family_icmp => {
            let (request, reply) = if family_icmp == l4::ICMP {
                (v4::ECHO_REQUEST, v4::ECHO_REPLY)
            } else {
                (v6::ECHO_REQUEST, v6::ECHO_REPLY)
            };
            if a != request && a != reply {
                return Err(DropReason::IcmpQuote);
            }
            Ok(QuotedFlow::Echo { reply: a == reply, id: u16::from_be_bytes([e, f]) })
        }
        _ => Err(DropReason::UnknownProtocol),
    }
}
