//! What has been seen of a TCP flow, so that forged segments and errors can be told from real ones.
//!
//! RFC 6146 §5.2 and RFC 7857 §2.2 leave it to the translator to verify that a RST belongs to its connection. A RST from
//! nowhere that ends a mapping ends a connection whose two ends never saw it; so nothing changes state or lifetime here
//! that the ends could not have sent. What fails is still translated: the ends know better (RFC 5961), and RFC 7857 §2.2
//! wants it.
//!
//! The record has a fixed layout of 24 bytes, so that a kernel program that forwards the flow can keep it. Its part is
//! small: for each segment move [`Direction::end`], [`Direction::ack`] and [`Direction::window`] forward as
//! [`FlowWitness::see`] does, and hand SYN, FIN, RST and ICMP errors up.
//!
//! The two sides are not believed alike. Anyone on the Internet can write a packet that seems to come from the peer;
//! packets from inside have passed the check of their source. So the client's numbers are taken as they come, and the
//! peer's must fit them. Were each side judged by the other, one wrong number would never heal.

use super::tcp::Side;
use crate::wire::l4::{Payload, Tcp, TcpFlags};

/// What has been seen from one side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// The number behind the last byte sent; SYN and FIN count one each. Holds when [`Direction::SEEN`] is set.
    pub end: u32,
    /// Highest acknowledgement sent. Holds when [`Direction::ACKED`] is set.
    pub ack: u32,
    /// The window that came with it, not yet scaled.
    pub window: u16,
    /// Shift of later windows. Holds when [`Direction::SCALED`] is set on both sides (RFC 7323 §2.2).
    pub scale: u8,
    /// Bits, see the constants.
    pub flags: u8,
}

/// What has been seen of a flow from both sides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowWitness {
    /// From the IPv6 client.
    pub v6: Direction,
    /// From the IPv4 peer.
    pub v4: Direction,
}

const _: () = assert!(size_of::<FlowWitness>() == 24 && align_of::<FlowWitness>() == 4);

/// The part of a segment that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means something with the ACK flag.
    pub ack: u32,
    /// Window, as it stands there.
    pub window: u16,
    /// Control bits.
    pub flags: TcpFlags,
    /// Bytes of data, those of all segments of a super-packet.
    pub len: u32,
    /// The window scale option of a SYN.
    pub scale: Option<u8>,
}

/// Windows are taken to be at least so wide, for their last change may have been missed; and so far back may a
/// retransmission reach.
const REACH: u32 = 65_536;
/// No window is wider (RFC 7323 §2.3).
const WIDEST: u32 = 1 << 30;
/// Largest shift (RFC 7323 §2.3).
const MAX_SCALE: u8 = 14;

impl Direction {
    /// `end` holds: a SYN came from this side.
    pub const SEEN: u8 = 0x01;
    /// `ack` and `window` hold.
    pub const ACKED: u8 = 0x02;
    /// The SYN offered to scale windows.
    pub const SCALED: u8 = 0x04;
    /// The SYN carried data (RFC 7413), which its answer need not acknowledge.
    pub const SYN_DATA: u8 = 0x08;
    /// A FIN was seen.
    pub const FIN: u8 = 0x10;
    /// A RST was seen and believed.
    pub const RST: u8 = 0x20;

    const fn has(&self, bits: u8) -> bool {
        self.flags & bits != 0
    }

    /// What the first SYN of a side tells.
    fn opening(syn: &Segment) -> Self {
        let acked = if syn.flags.has(TcpFlags::ACK) { Self::ACKED } else { 0 };
        let scaled = if syn.scale.is_some() { Self::SCALED } else { 0 };
        let data = if syn.len > 0 { Self::SYN_DATA } else { 0 };
        Self {
            end: syn.end(),
            ack: if acked == 0 { 0 } else { syn.ack },
            window: syn.window,
            scale: syn.scale.unwrap_or(0).min(MAX_SCALE),
            flags: Self::SEEN | acked | scaled | data,
        }
    }

    /// How much this side lets the other one have on the way.
    const fn reach(&self, other: &Self) -> u32 {
        let shift = if self.has(Self::SCALED) && other.has(Self::SCALED) { self.scale } else { 0 };
        let window = (self.window as u32) << shift;
        if window < REACH { REACH } else { window }
    }

    /// Takes note of a segment that is believed.
    fn note(&mut self, segment: &Segment) {
        if is_before(self.end, segment.end()) {
            self.end = segment.end();
        }
        if segment.flags.has(TcpFlags::FIN) {
            self.flags |= Self::FIN;
        }
        if segment.flags.has(TcpFlags::ACK) && (!self.has(Self::ACKED) || !is_before(segment.ack, self.ack)) {
            self.ack = segment.ack;
            self.window = segment.window;
            self.flags |= Self::ACKED;
        }
    }
}

impl Segment {
    /// Reads the segment of a packet whose transport header begins at `l4`; `None` when it is not TCP.
    #[inline]
    pub fn read(payload: &Payload, packet: &[u8], l4: usize) -> Option<Self> {
        let Payload::Tcp(Tcp { flags, header_len, .. }) = *payload else { return None };
        let tcp = packet.get(l4..)?;
        let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, _, w0, w1, ..] = tcp.first_chunk::<20>()?;
        let options = tcp.get(20..usize::from(header_len)).filter(|_| flags.has(TcpFlags::SYN));
        Some(Self {
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            window: u16::from_be_bytes([w0, w1]),
            flags,
            len: tcp.len().saturating_sub(usize::from(header_len)) as u32,
            scale: options.and_then(window_scale),
        })
    }

    /// The number behind its last byte.
    pub const fn end(&self) -> u32 {
        let syn = if self.flags.has(TcpFlags::SYN) { 1 } else { 0 };
        let fin = if self.flags.has(TcpFlags::FIN) { 1 } else { 0 };
        self.seq.wrapping_add(self.len).wrapping_add(syn + fin)
    }
}

impl FlowWitness {
    /// What the SYN of one side tells, when nothing is known of the other.
    pub fn of_syn(side: Side, syn: &Segment) -> Self {
        let mut this = Self::default();
        *this.sides(side).0 = Direction::opening(syn);
        this
    }

    /// Takes note of a segment. False when it cannot have come from the end that it seems to come from, or does not
    /// concern the connection that is there: then it must not change the session.
    #[inline]
    pub fn see(&mut self, side: Side, segment: &Segment) -> bool {
        let (own, other) = self.sides(side);
        if segment.flags.has(TcpFlags::RST) {
            let believed = is_reset(own, other, segment.seq);
            if believed {
                own.flags |= Direction::RST;
            }
            return believed;
        }
        if segment.flags.has(TcpFlags::SYN) {
            return see_syn(side, own, other, segment);
        }
        match side {
            _ if !own.has(Direction::SEEN) => false,
            Side::V6 => {
                let step = segment.end().wrapping_sub(own.end);
                if step >= WIDEST && step.wrapping_neg() >= WIDEST {
                    return false;
                }
                let fits = fits_window(own, other, segment);
                let fin = own.flags & Direction::FIN;
                own.note(segment);
                if !fits {
                    // What changes no state leaves no trace of an end either.
                    own.flags = own.flags & !Direction::FIN | fin;
                }
                follow(own, other);
                // A FIN changes the state; everything else at most keeps the session alive, as any packet of the
                // client may.
                fits || !segment.flags.has(TcpFlags::FIN)
            }
            Side::V4 => {
                let believed = segment.flags.has(TcpFlags::ACK)
                    && fits_window(own, other, segment)
                    && acknowledges(own, other, segment.ack);
                if believed {
                    own.note(segment);
                }
                believed
            }
        }
    }

    /// Whether a segment that `side` is said to have sent, and that an ICMP error quotes, can be on its way
    /// (RFC 5927 §4.1): sent, and not acknowledged yet. A keep-alive probe has the last number before.
    pub fn may_be_under_way(&self, side: Side, seq: u32) -> bool {
        let (own, other) = match side {
            Side::V6 => (&self.v6, &self.v4),
            Side::V4 => (&self.v4, &self.v6),
        };
        if !own.has(Direction::SEEN) {
            return false;
        }
        let low =
            if other.has(Direction::ACKED) { other.ack.wrapping_sub(1) } else { own.end.wrapping_sub(REACH) };
        is_between(low, seq, own.end)
    }

    /// The direction of a side, and the other one.
    const fn sides(&mut self, side: Side) -> (&mut Direction, &mut Direction) {
        match side {
            Side::V6 => (&mut self.v6, &mut self.v4),
            Side::V4 => (&mut self.v4, &mut self.v6),
        }
    }
}

/// A RST is believed when its number is the one that the receiver waits for (RFC 5961 §3.2). Where exactly that is
/// depends on what is on its way: somewhere from the last acknowledgement to the end of what was sent.
fn is_reset(own: &Direction, other: &Direction, seq: u32) -> bool {
    if !own.has(Direction::SEEN) {
        return false;
    }
    let acked = if other.has(Direction::ACKED) { other.ack } else { own.end };
    let (low, high) = if is_before(own.end, acked) { (own.end, acked) } else { (acked, own.end) };
    seq == low || seq == high || (high.wrapping_sub(low) < WIDEST && is_between(low, seq, high))
}

fn see_syn(side: Side, own: &mut Direction, other: &mut Direction, syn: &Segment) -> bool {
    let again = own.has(Direction::SEEN) && own.end.wrapping_sub(syn.end()) < REACH;
    match side {
        Side::V6 if again => own.note(syn),
        Side::V6 => {
            // A second connection between the same ports: what was known of the first one's other end is void.
            if own.has(Direction::SEEN) {
                *other = Direction::default();
            }
            *own = Direction::opening(syn);
        }
        Side::V4 if syn.flags.has(TcpFlags::ACK) => {
            // RFC 9293 §3.10.7.3: it must answer the client's SYN.
            let behind = other.end.wrapping_sub(syn.ack);
            let answers = other.has(Direction::SEEN)
                && (behind == 0 || (other.has(Direction::SYN_DATA) && behind < REACH));
            // Until the client has taken one SYN-ACK, an earlier SYN may have been forged.
            if answers && !(own.has(Direction::SEEN) && other.has(Direction::ACKED)) {
                *own = Direction::opening(syn);
            } else if again && acknowledges(own, other, syn.ack) {
                own.note(syn);
            } else {
                return false;
            }
        }
        Side::V4 if own.has(Direction::SEEN) => return again,
        Side::V4 => *own = Direction::opening(syn),
    }
    true
}

/// Whether the segment begins where the other side takes data, or took it shortly before.
fn fits_window(own: &Direction, other: &Direction, segment: &Segment) -> bool {
    let expected = if other.has(Direction::ACKED) { other.ack } else { own.end };
    let reach = other.reach(own);
    is_between(expected.wrapping_sub(reach), segment.seq, expected.wrapping_add(reach))
}

/// Whether `own` may acknowledge up to `ack`: no more than was sent, and not much less than before (RFC 5961 §5.2).
fn acknowledges(own: &Direction, other: &Direction, ack: u32) -> bool {
    let low = if own.has(Direction::ACKED) { own.ack } else { other.end };
    is_between(low.wrapping_sub(REACH), ack, other.end)
}

/// The client acknowledges what it has got, so the peer has sent it, and hardly more than there is room for.
fn follow(client: &Direction, peer: &mut Direction) {
    if client.has(Direction::ACKED)
        && peer.has(Direction::SEEN)
        && peer.end.wrapping_sub(client.ack) > client.reach(peer)
    {
        peer.end = client.ack;
    }
}

/// Whether `a` lies before `b` in the circle of numbers.
const fn is_before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

/// Whether `seq` lies from `low` to `high`, both included.
const fn is_between(low: u32, seq: u32, high: u32) -> bool {
    seq.wrapping_sub(low) <= high.wrapping_sub(low)
}

/// The shift of a window scale option (RFC 7323 §2.2).
fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        match *options {
            [1, ref rest @ ..] => options = rest,
            [3, 3, shift, ..] => return Some(shift.min(MAX_SCALE)),
            [0, ..] | [] | [_] => return None,
            [_, len, ..] => options = options.get(usize::from(len.max(2))..)?,
        }
    }
}

#[cfg(test)]
mod tests;
