//! Packets that an operator should hear of one by one (RFC 7915 §4.5), a few per second at most.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use crate::nat64::engine::Bucket;
use crate::time::Instant;
use crate::wire::ipv4::View4;
use crate::wire::packet::PacketBuf;

/// Events of one worker per second at most; the drop counter has them all.
const PER_SECOND: u32 = 10;

/// UDP without a checksum was dropped on its way to IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Source address.
    pub src: Ipv4Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Destination port.
    pub dst_port: u16,
    /// Whether it was the first piece of a larger datagram.
    pub is_fragment: bool,
}

impl Event {
    /// The event about a UDP packet.
    pub(super) fn of(view: &View4, packet: &PacketBuf) -> Self {
        // The ports were there, or it would have been refused for that.
        let port = |at: usize| match packet.bytes().get(view.l4 + at..) {
            Some(&[hi, lo, ..]) => u16::from_be_bytes([hi, lo]),
            Some(_) | None => 0,
        };
        let is_fragment = view.fragment.is_some();
        Self { src: view.src, src_port: port(0), dst: view.dst, dst_port: port(2), is_fragment }
    }
}

/// Events that wait to be told.
pub(super) struct Events {
    waiting: VecDeque<Event>,
    limit: Bucket,
}

impl Events {
    pub(super) fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::with_capacity(PER_SECOND as usize), limit: Bucket::new(PER_SECOND, now) }
    }

    pub(super) fn raise(&mut self, now: Instant, event: Event) {
        if self.waiting.len() < PER_SECOND as usize && self.limit.take(now) {
            self.waiting.push_back(event);
        }
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }
}
