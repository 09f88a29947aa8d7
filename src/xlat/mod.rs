//! Layer 2: stateless translation of one packet (RFC 7915), given the addresses and ports to write.
//!
//! Every translation is a *plan* that may be refused, then an *apply* that edits in place and cannot fail. Until
//! `apply` runs the packet is untouched, so that an ICMP error can quote it.

pub mod canned;
pub mod eam;
pub mod frag;
pub mod icmp;
pub mod icmp_error;
pub mod interface_info;
pub mod mss;
pub mod pref64;
pub mod probe;
pub mod v4_to_v6;
pub mod v6_to_v4;

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::verdict::DropReason;
use crate::wire::checksum::{self, Sum};
use crate::wire::fragment::Fragment;
use crate::wire::packet::{Checksum, PacketBuf};
use crate::wire::{ipv4, l4};

/// What a flow's packets change into. Computed once per session and direction; the fast path stores the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<A> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// New source port, or new ICMP identifier.
    pub src_port: u16,
    /// New destination port; unused for ICMP.
    pub dst_port: u16,
    /// What this does to the transport checksum.
    pub delta: Delta,
}

/// Change of the pseudo-header and port words, as folded sums of new words minus old words. The same number
/// serves TCP and UDP: protocol and length words are equal in both families. ICMP does not use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Of the addresses alone: what a partial (offloaded) checksum needs.
    pub addresses: u16,
    /// Of addresses and ports: what a finished checksum needs.
    pub all: u16,
}

/// One transport flow in both families, seen from the IPv6 client: (src6, dst6, ports) ↔ (src4, dst4, ports).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPair {
    /// Client X'.
    pub src6: Ipv6Addr,
    /// Client port x.
    pub port6: u16,
    /// Y' = Pref64 + Z.
    pub dst6: Ipv6Addr,
    /// Pool address T.
    pub src4: Ipv4Addr,
    /// Pool port t.
    pub port4: u16,
    /// Peer Z.
    pub dst4: Ipv4Addr,
    /// Peer port z, equal in both families.
    pub peer_port: u16,
}

impl Delta {
    /// What changes from IPv6 to IPv4.
    pub fn v6_to_v4(flow: &FlowPair) -> Self {
        let old = Sum::ZERO.ipv6(flow.src6).ipv6(flow.dst6);
        let addresses = Sum::ZERO.ipv4(flow.src4).ipv4(flow.dst4).minus(old);
        Self { addresses: addresses.fold(), all: addresses.minus_word(flow.port6).word(flow.port4).fold() }
    }

    /// The way back.
    pub const fn reversed(self) -> Self {
        Self { addresses: !self.addresses, all: !self.all }
    }
}

/// What to do with a hop limit or TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Take one off; a packet whose last hop this is gets refused (RFC 7915 §4.1, §5.1).
    Less,
    /// Leave it: the other half of a hairpin counts.
    Same,
    /// Give one back: the kernel takes one off before and one behind the translator.
    More,
}

impl Hop {
    /// The new value, or `None` when the packet has expired.
    #[inline]
    pub const fn apply(self, hop_limit: u8) -> Option<u8> {
        match (self, hop_limit) {
            (Self::Less, 0 | 1) | (_, 0) => None,
            (Self::Less, n) => Some(n - 1),
            (Self::Same, n) => Some(n),
            (Self::More, n) => Some(n.saturating_add(1)),
        }
    }
}

/// A refused translation: the reason to count, and what to tell the sender, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The counter.
    pub reason: DropReason,
    /// The ICMP error to send.
    pub notice: Option<Notice>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, notice: None }
    }
}

impl DropReason {
    /// This reason, told to the sender.
    pub const fn with(self, notice: Notice) -> Refusal {
        Refusal { reason: self, notice: Some(notice) }
    }
}

/// What an ICMP error of our own says; each family has its own numbers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Hop limit exceeded: ICMPv6 3/0, ICMPv4 11/0.
    HopLimit,
    /// Too big; the largest packet of the sender's family that fits: ICMPv6 2/0, ICMPv4 3/4.
    TooBig {
        /// In bytes.
        mtu: u16,
    },
    /// Administratively prohibited: ICMPv6 1/1, ICMPv4 3/13.
    Prohibited,
    /// Address (host) unreachable: ICMPv6 1/3, ICMPv4 3/1.
    Unreachable,
    /// Nobody listens on the port: ICMPv6 1/4, ICMPv4 3/3.
    Port,
    /// The transport is not carried: ICMPv6 1/4 (RFC 6146 §3.4), ICMPv4 3/2.
    Protocol,
    /// Source route failed: ICMPv4 3/5.
    SourceRoute,
    /// Erroneous header field at this offset: ICMPv6 4/0. Nothing like it is said in IPv4.
    Pointer(u16),
}

/// Port and checksum edit of one transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp {
        /// Lower the announced segment size to this.
        mss: Option<u16>,
    },
    Udp,
    /// UDP that came without a checksum, which IPv6 does not allow.
    UdpWithoutChecksum,
    Echo {
        kind: u8,
        /// New pseudo-header and type words minus old ones.
        delta: u16,
    },
    /// A transport whose checksum follows the addresses while its ports stay: the first fragment of TCP or UDP.
    Addresses {
        /// Offset of the checksum.
        field: usize,
        /// Whether a checksum of zero means that there is none.
        udp: bool,
    },
    /// Nothing to edit: a later fragment, or a transport whose checksum does not cover the addresses.
    Opaque,
}

/// What to edit in a fragment, whose place the parser found. Only the stateless translator sees any: the stateful one
/// puts datagrams together first.
fn part(
    protocol: u8,
    fragment: Option<Fragment>,
    packet: &PacketBuf,
    l4: usize,
) -> Result<Transport, DropReason> {
    /// Longest payload that both families can carry.
    const MAX_PAYLOAD: usize = 65_535 - ipv4::HEADER;
    let bytes = packet.bytes().get(l4..).unwrap_or(&[]);
    let Some(Fragment { offset, more, .. }) = fragment else { return Err(DropReason::Fragment) };
    let offset = usize::from(offset);
    // RFC 8200 §4.5, RFC 791 §3.2: pieces but the last are made of units of 8 bytes, and the whole has a legal length.
    if (more && !bytes.len().is_multiple_of(8)) || bytes.is_empty() || offset + bytes.len() > MAX_PAYLOAD {
        return Err(DropReason::BadLength);
    }
    match protocol {
        // RFC 7915 §1.2: their checksum covers a length that no single piece knows.
        l4::ICMP | l4::ICMPV6 => Err(DropReason::Fragment),
        _ if offset == 0 && bytes.len() < l4::smallest_header(protocol, bytes) => {
            Err(DropReason::FragmentTiny)
        }
        // RFC 3128 §2.1: a second piece that begins within the TCP header can change its flags.
        l4::TCP if (1..20).contains(&offset) => Err(DropReason::FragmentTiny),
        _ if offset > 0 => Ok(Transport::Opaque),
        l4::TCP => Ok(Transport::Addresses { field: 16, udp: false }),
        l4::UDP => Ok(Transport::Addresses { field: 6, udp: true }),
        _ => Ok(opaque(protocol, bytes.len())),
    }
}

/// What to edit in a transport that we do not know more about (RFC 7915 §4.5, §5.5: it is forwarded all the same).
const fn opaque(protocol: u8, len: usize) -> Transport {
    // Their checksum stands where UDP has it and covers the same pseudo-header (RFC 4340 §9.1, RFC 3828 §3.1).
    const DCCP: u8 = 33;
    const UDP_LITE: u8 = 136;
    match protocol {
        DCCP | UDP_LITE if len >= 8 => Transport::Addresses { field: 6, udp: false },
        _ => Transport::Opaque,
    }
}

/// Whether the two bytes at `at` are zero.
fn is_zero(packet: &PacketBuf, at: usize) -> bool {
    packet.bytes().get(at..at + 2) == Some(&[0, 0])
}

/// Writes ports and checksum of a TCP or UDP header at the start of `bytes`.
#[inline]
fn edit_ports<A>(bytes: &mut [u8], rewrite: &Rewrite<A>, field: usize, partial: bool, udp: bool) {
    let Some(header) = bytes.get_mut(..field + 2) else { return };
    header[0..2].copy_from_slice(&rewrite.src_port.to_be_bytes());
    header[2..4].copy_from_slice(&rewrite.dst_port.to_be_bytes());
    let old = u16::from_be_bytes([header[field], header[field + 1]]);
    let new = if partial {
        checksum::update_partial(old, Sum::ZERO.word(rewrite.delta.addresses))
    } else {
        match checksum::update(old, Sum::ZERO.word(rewrite.delta.all)) {
            // RFC 768: a computed zero is sent as all ones.
            0 if udp => 0xffff,
            sum => sum,
        }
    };
    header[field..field + 2].copy_from_slice(&new.to_be_bytes());
}

/// Writes a checksum that follows the addresses.
fn edit_checksum<A>(bytes: &mut [u8], rewrite: &Rewrite<A>, field: usize, udp: bool) {
    let Some(slot) = bytes.get_mut(field..field + 2) else { return };
    let old = u16::from_be_bytes([slot[0], slot[1]]);
    let new = match checksum::update(old, Sum::ZERO.word(rewrite.delta.addresses)) {
        // RFC 768: a computed zero is sent as all ones.
        0 if udp => 0xffff,
        sum => sum,
    };
    slot.copy_from_slice(&new.to_be_bytes());
}

/// Writes type, identifier and checksum of an echo message at the start of `bytes`.
#[inline]
fn edit_echo(bytes: &mut [u8], kind: u8, id: u16, delta: u16) {
    let Some(header) = bytes.first_chunk_mut::<8>() else { return };
    let old_kind = u16::from(header[0]) << 8;
    let old_id = u16::from_be_bytes([header[4], header[5]]);
    let sum = u16::from_be_bytes([header[2], header[3]]);
    let delta =
        Sum::ZERO.word(delta).minus_word(old_kind).word(u16::from(kind) << 8).minus_word(old_id).word(id);
    header[0] = kind;
    header[2..4].copy_from_slice(&checksum::update(sum, delta).to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
}

/// The counter for what the next hop cannot take.
const fn too_big(packet: &PacketBuf) -> DropReason {
    if packet.offload.gso.is_some() { DropReason::SegmentTooBig } else { DropReason::PacketTooBig }
}

#[inline]
fn is_partial(packet: &PacketBuf) -> bool {
    matches!(packet.offload.checksum, Checksum::Partial { .. })
}

/// Moves the offload data to the new position of the transport header.
#[inline]
fn move_offload(packet: &mut PacketBuf, l4: usize, l4_header: usize) {
    if let Checksum::Partial { start, .. } = &mut packet.offload.checksum {
        *start = l4 as u16;
    }
    packet.offload.header_len = (l4 + l4_header) as u16;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_limits() {
        assert_eq!(Hop::Less.apply(64), Some(63));
        assert_eq!(Hop::Less.apply(1), None);
        assert_eq!(Hop::Less.apply(0), None);
        assert_eq!(Hop::Same.apply(1), Some(1));
        assert_eq!(Hop::Same.apply(0), None);
        assert_eq!(Hop::More.apply(255), Some(255));
        assert_eq!(Hop::More.apply(1), Some(2));
    }
}
