//! Pool addresses that the machine has itself. All ports but the pool's are the machine's, so that what comes here and is
//! not the pool's is handed back: fragments, of which only the whole shows whose they are, and echoes with an identifier
//! that nobody here has.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::engine::{Engine, Sink, Step};
use super::settings::{Hops, Pool4Range, Protocol};
use crate::addr::is_illegal_source4;
use crate::verdict::{DropReason, Sent, Verdict};
use crate::wire::checksum::{self, Sum};
use crate::wire::icmp::{self, Icmp, QuotedFlow};
use crate::wire::ipv4::View4;
use crate::wire::l4::Payload;
use crate::wire::packet::PacketBuf;
use crate::xlat::icmp::{Head, body4};

/// The addresses that are shared, with the ports that are the pool's.
pub struct Shared(Box<[(Ipv4Addr, RangeInclusive<u16>)]>);

impl Shared {
    /// Those among the ranges of a pool.
    pub fn of(ranges: &[Pool4Range]) -> Self {
        let shared = ranges.iter().filter(|range| range.shared);
        Self(shared.map(|range| (range.prefix.addr(), range.ports.clone())).collect())
    }

    /// Whether a packet to this address and port, or identifier, is certainly the machine's.
    #[inline]
    pub fn is_machines(&self, addr: Ipv4Addr, port: u16) -> bool {
        // Usually there are none.
        self.0.iter().any(|(shared, ports)| *shared == addr && !ports.contains(&port))
    }

    /// Whether a client would speak with the machine itself there (O-05). An echo is answered by the machine.
    pub fn keeps_from_clients(&self, addr: Ipv4Addr, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp | Protocol::Udp => self.is_machines(addr, port),
            Protocol::Icmp => self.ports(addr).is_some(),
        }
    }

    fn ports(&self, addr: Ipv4Addr) -> Option<&RangeInclusive<u16>> {
        self.0.iter().find(|(shared, _)| *shared == addr).map(|(_, ports)| ports)
    }
}

impl Engine {
    /// Gives the machine a packet that was refused for `reason` because it is not ours. `None` when it is not the machine's
    /// either.
    #[cold]
    pub(super) fn hand_back(
        &self,
        reason: DropReason,
        view: &View4,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Option<Step> {
        let ports = self.shared.ports(view.dst)?;
        // The TUN lets packets from the machine's own addresses in, and these are none of them. Those from the pool are
        // hairpins.
        let is_forged = is_illegal_source4(view.src) || self.is_own_address(view.src);
        if is_forged || self.pool.contains(view.src) || !is_machines(reason, view, packet, ports) {
            return None;
        }
        let header = packet.bytes_mut().first_chunk_mut::<20>()?;
        let was = u16::from_be_bytes([header[8], header[9]]);
        if self.settings.hops == Hops::KernelForwards {
            // The kernel routes no packet that it keeps: what was taken off on the way here is given back.
            header[8] = header[8].saturating_add(1);
        }
        let is = u16::from_be_bytes([header[8], header[9]]);
        let sum = u16::from_be_bytes([header[10], header[11]]);
        let sum = checksum::update(sum, Sum::ZERO.minus_word(was).word(is));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let accepted = sink.send(packet, Sent::Returned);
        Some(Step::Done(if accepted { Verdict::Returned } else { Verdict::Dropped(DropReason::DeviceWrite) }))
    }
}

/// Whether a packet that was refused is the machine's.
fn is_machines(reason: DropReason, view: &View4, packet: &PacketBuf, ports: &RangeInclusive<u16>) -> bool {
    match view.payload {
        Payload::Tcp(tcp) => !ports.contains(&tcp.dst),
        Payload::Udp(udp) => !ports.contains(&udp.dst),
        // Identifiers are not kept apart: a ping from here or to here may have any.
        Payload::Icmp(Icmp::Echo { id, .. }) => !ports.contains(&id) || reason == DropReason::NoBib,
        Payload::Icmp(Icmp::Error { kind, code, rest }) => {
            let message = packet.bytes().get(view.l4..).unwrap_or(&[]);
            let quote = icmp::quote4(body4(Head { kind, code, rest }, message).quote);
            reason == DropReason::NoSession
                && quote.is_ok_and(|quote| match quote.flow {
                    QuotedFlow::Tcp { src, .. } | QuotedFlow::Udp { src, .. } => !ports.contains(&src),
                    QuotedFlow::Echo { .. } => true,
                    QuotedFlow::Other { .. } => false,
                })
        }
        Payload::Icmp(Icmp::Other { .. }) | Payload::Other(_) => true,
        Payload::Fragment => false,
    }
}
