//! One packet in one buffer: room in front for growth (an IPv6 header is 20 bytes longer than an IPv4 one, a
//! Fragment Header adds 8, the device wants its own header), and what the device said about offloads.

use crate::verdict::DropReason;
use crate::wire::{ipv4, ipv6};

/// Bytes kept free in front of a received packet.
pub const HEADROOM: usize = 64;
/// Longest packet that fits: a full IPv4 or IPv6 packet (65,575 bytes), rounded up.
pub const MAX_LEN: usize = 65_600;
const BUFFER: usize = HEADROOM + MAX_LEN;

/// A packet and its metadata. Owns its buffer; moving it moves a pointer.
pub struct PacketBuf {
    bytes: Box<[u8; BUFFER]>,
    start: usize,
    end: usize,
    /// What is still to be done to this packet before it is on a wire.
    pub offload: Offload,
    /// Whether it was put together from fragments: then its identification is not to be used again.
    pub reassembled: bool,
}

/// Work that the kernel left to a later stage, or will do behind us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Set when this is a super-packet of many segments.
    pub gso: Option<Gso>,
    /// Length of IP and transport headers together, which every segment repeats. Bytes; set for super-packets.
    pub header_len: u16,
}

/// State of the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The field holds a finished checksum.
    #[default]
    Complete,
    /// The field holds the folded, uncomplemented sum of the pseudo-header only.
    Partial {
        /// Offset of the transport header from the start of the packet.
        start: u16,
        /// Offset of the checksum field from `start`.
        field: u16,
    },
}

/// Segmentation that is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Transport of the segments; the IP version is the packet's.
    pub kind: GsoKind,
    /// Transport payload of each segment but the last, in bytes, at least 1.
    pub size: u16,
    /// TCP only: CWR stands in the first segment only (RFC 3168).
    pub ecn: bool,
}

/// What the segments of a super-packet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP segments of one stream.
    Tcp,
    /// UDP datagrams of equal size.
    Udp,
}

/// A parsed packet. Offsets count from the start of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// IPv6.
    V6(ipv6::View6),
    /// IPv4.
    V4(ipv4::View4),
}

impl PacketBuf {
    /// An empty buffer.
    pub fn new() -> Self {
        // Built on the heap: the array is too large to pass over the stack.
        let bytes = vec![0; BUFFER].into_boxed_slice();
        let bytes = match bytes.try_into() {
            Ok(bytes) => bytes,
            Err(_) => unreachable!("the vector was made with this length"),
        };
        Self { bytes, start: HEADROOM, end: HEADROOM, offload: Offload::default(), reassembled: false }
    }

    /// A buffer that holds a copy of `packet` (cut at [`MAX_LEN`]).
    pub fn from_bytes(packet: &[u8]) -> Self {
        let mut buf = Self::new();
        buf.fill(packet);
        buf
    }

    /// Replaces the content with a copy of `packet` (cut at [`MAX_LEN`]) without offloads.
    pub fn fill(&mut self, packet: &[u8]) {
        let len = packet.len().min(MAX_LEN);
        self.bytes[HEADROOM..HEADROOM + len].copy_from_slice(&packet[..len]);
        self.start = HEADROOM;
        self.end = HEADROOM + len;
        self.offload = Offload::default();
        self.reassembled = false;
    }

    /// Puts `more` behind the packet (cut at [`MAX_LEN`]).
    pub fn append(&mut self, more: &[u8]) {
        let len = more.len().min(BUFFER - self.end);
        self.bytes[self.end..self.end + len].copy_from_slice(&more[..len]);
        self.end += len;
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The packet, to be edited.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Length of the packet in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Where a device may put a packet whose own header of `prefix` bytes (at most [`HEADROOM`]) comes first.
    pub fn receive_area(&mut self, prefix: usize) -> &mut [u8] {
        &mut self.bytes[HEADROOM - prefix.min(HEADROOM)..]
    }

    /// Declares the `len` bytes behind the device's header to be the packet.
    pub fn received(&mut self, len: usize, offload: Offload) {
        self.start = HEADROOM;
        self.end = HEADROOM + len.min(MAX_LEN);
        self.offload = offload;
        self.reassembled = false;
    }

    /// The packet with `prefix` put in front of it, for the device. The packet itself is not changed.
    pub fn with_prefix<const N: usize>(&mut self, prefix: [u8; N]) -> &[u8] {
        const { assert!(N <= HEADROOM / 2) };
        let at = self.start.saturating_sub(N);
        self.bytes[at..at + N].copy_from_slice(&prefix);
        &self.bytes[at..self.end]
    }

    /// Moves the start of the packet so that its first `old` bytes become `new` bytes, all to be written by the
    /// caller; what follows stays where it is. Grows by at most half of the headroom.
    #[inline]
    pub fn resize_front(&mut self, old: usize, new: usize) {
        debug_assert!(self.start + old >= new && self.start + old <= self.end);
        self.start = (self.start + old).saturating_sub(new);
    }

    /// Cuts the packet to `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// Parses the packet and cuts off what lies behind its IP length (link padding).
    #[inline]
    pub fn parse(&mut self) -> Result<View, DropReason> {
        // Each family goes its own way to the end: where both meet earlier, the compiler shuffles their fields about.
        match self.bytes().first().map(|first| first >> 4) {
            Some(4) => {
                let view = ipv4::parse(self.bytes())?;
                self.truncate(view.total_len);
                self.check_offload(view.l4, view.payload)?;
                Ok(View::V4(view))
            }
            Some(6) => {
                let view = ipv6::parse(self.bytes())?;
                self.truncate(view.total_len);
                self.check_offload(view.l4, view.payload)?;
                Ok(View::V6(view))
            }
            Some(_) => Err(DropReason::BadVersion),
            None => Err(DropReason::Truncated),
        }
    }

    /// Number of segments that this packet will be on a wire.
    pub fn segments(&self, view_header_len: usize) -> usize {
        match self.offload.gso {
            Some(gso) => self.len().saturating_sub(view_header_len).div_ceil(usize::from(gso.size)).max(1),
            None => 1,
        }
    }

    /// The device's words must fit the packet: a checksum to be finished lies where the transport has it, and
    /// segmentation is of the packet's own transport.
    #[inline]
    fn check_offload(&self, l4: usize, payload: crate::wire::l4::Payload) -> Result<(), DropReason> {
        use crate::wire::l4::Payload;
        let field = match payload {
            Payload::Tcp(_) => Some((GsoKind::Tcp, 16)),
            Payload::Udp(_) => Some((GsoKind::Udp, 6)),
            Payload::Icmp(_) | Payload::Other(_) | Payload::Fragment => None,
        };
        if let Checksum::Partial { start, field: at } = self.offload.checksum
            && (usize::from(start) != l4 || field.map(|(_, f)| f) != Some(at))
        {
            return Err(DropReason::BadOffload);
        }
        if let Some(gso) = self.offload.gso
            && (gso.size == 0 || field.map(|(kind, _)| kind) != Some(gso.kind))
        {
            return Err(DropReason::BadOffload);
        }
        // The datagrams that it is cut into get lengths of their own; bytes behind the last would become part of it.
        if matches!(self.offload.gso, Some(Gso { kind: GsoKind::Udp, .. }))
            && let Some(&[hi, lo]) = self.bytes().get(l4 + 4..l4 + 6)
            && usize::from(u16::from_be_bytes([hi, lo])) != self.len().saturating_sub(l4)
        {
            return Err(DropReason::BadOffload);
        }
        Ok(())
    }
}

impl Default for PacketBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketBuf").field("len", &self.len()).field("offload", &self.offload).finish()
    }
}
