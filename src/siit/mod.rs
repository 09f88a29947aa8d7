//! Layer 3: the stateless translator (SIIT, RFC 7915 with RFC 7757 and RFC 6791).
//!
//! [`Siit`] is what one worker runs. Each address of a packet is translated by itself, by the table of explicit mappings
//! or else by the RFC 6052 prefix ([`mapping`]); the packet is planned and rewritten by `xlat`, fragments one by one.
//! Nothing is remembered about a flow, so any worker, and any other gateway with the same settings, will do.
//!
//! It is a room beside `nat64` and not a part of `xlat`, because it decides: which packets pass, what their senders are
//! told and how often, which identification and which source a packet gets.

mod canned;
mod errors;
pub mod event;
mod ident;
pub mod mapping;
pub mod settings;
mod v4_to_v6;
mod v6_to_v4;

use std::net::Ipv4Addr;
use std::sync::Arc;

use self::event::{Event, Events};
use self::ident::Idents;
use self::settings::{Change, Hairpin, Settings};
use crate::nat64::engine::Sink;
use crate::nat64::limit::{Bucket, Random};
use crate::nat64::settings::Hops;
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Verdict};
use crate::wire::ipv4::View4;
use crate::wire::ipv6::View6;
use crate::wire::l4::ICMP;
use crate::wire::packet::{PacketBuf, View};
use crate::xlat::icmp::Mtus;
use crate::xlat::icmp_error::{build4, build6};
use crate::xlat::{Hop, Refusal};

/// The stateless translator of one worker.
pub struct Siit {
    settings: Settings,
    /// IPv4 addresses of the machine itself, which IPv6 nodes do not reach.
    own_addresses: Arc<[Ipv4Addr]>,
    idents: Idents,
    notices: Bucket,
    events: Events,
    random: Random,
    scratch: [PacketBuf; 2],
}

/// Which worker this is, and its own random number.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Number of this worker.
    pub worker: u16,
    /// Number of workers, at least 1.
    pub workers: u16,
    /// Random number for identifications and choices.
    pub seed: u64,
}

impl Siit {
    /// A translator with these settings.
    pub fn new(settings: Settings, place: Place, now: Instant) -> Self {
        Self {
            idents: Idents::new(place),
            notices: Bucket::new(settings.icmp_errors_per_second, place.seed ^ 1, now),
            events: Events::new(place.seed ^ 2, now),
            random: Random(place.seed),
            own_addresses: Arc::default(),
            scratch: [PacketBuf::new(), PacketBuf::new()],
            settings,
        }
    }

    /// Takes a packet from the device.
    #[inline]
    pub fn handle(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Verdict {
        match packet.parse() {
            Ok(View::V6(view)) => match self.v6_to_v4(&view, packet, sink) {
                Ok(verdict) => verdict,
                Err(refusal) => self.refuse6(now, refusal, &view, packet, sink),
            },
            Ok(View::V4(view)) => match self.v4_to_v6(&view, packet, Turn::First, sink) {
                Ok(verdict) => verdict,
                Err(refusal) => self.refuse4(now, refusal, &view, packet, sink),
            },
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Takes a change of settings. It holds from the next packet on.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Mapping(mapping) => self.settings.mapping = mapping,
        }
    }

    /// Takes the IPv4 addresses of the machine itself. IPv6 nodes do not reach them by way of the prefix (O-05).
    pub fn set_own_addresses(&mut self, own: Arc<[Ipv4Addr]>) {
        self.own_addresses = own;
    }

    /// The settings in force.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The next event for the operator, oldest first.
    #[inline]
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.take()
    }

    /// Errors of our own that the rate limit kept back.
    pub const fn suppressed_notices(&self) -> u64 {
        self.notices.refused()
    }

    /// Refuses a packet from IPv6, and tells its sender if that is due (RFC 7915 §5.4).
    fn refuse6(
        &mut self,
        now: Instant,
        refusal: Refusal,
        view: &View6,
        packet: &PacketBuf,
        sink: &mut impl Sink,
    ) -> Verdict {
        if let Some(notice) = refusal.notice {
            let src = self.settings.icmp6_source.unwrap_or(view.dst);
            let out = &mut self.scratch[0];
            if build6(notice, view, packet, src, out) && self.notices.take(now) {
                sink.send(out, Sent::Originated);
            }
        }
        Verdict::Dropped(refusal.reason)
    }

    /// Refuses a packet from IPv4, and tells its sender if that is due (RFC 7915 §4.4). The error comes from an address
    /// of the RFC 6791 pool: the host's own addresses would be martians on the TUN.
    fn refuse4(
        &mut self,
        now: Instant,
        refusal: Refusal,
        view: &View4,
        packet: &PacketBuf,
        sink: &mut impl Sink,
    ) -> Verdict {
        if refusal.reason == DropReason::UdpNoChecksum {
            self.events.raise(now, Event::of(view, packet));
        }
        if let Some(notice) = refusal.notice {
            let src = self.icmp_source4().unwrap_or(view.dst);
            let id = self.idents.next(src, view.src, ICMP, 1);
            let out = &mut self.scratch[0];
            if build4(notice, view, packet, src, id, out) && self.notices.take(now) {
                sink.send(out, Sent::Originated);
            }
        }
        Verdict::Dropped(refusal.reason)
    }

    /// An address of the RFC 6791 pool, at random (RFC 6791 §5).
    fn icmp_source4(&mut self) -> Option<Ipv4Addr> {
        self.settings.mapping.icmp_source4(self.random.next())
    }

    /// The hop limit rule of this device. What is turned back goes through twice and counts once (RFC 7757 §4.2.2).
    const fn hop(&self, turn: Turn) -> Hop {
        match (turn, self.settings.hops) {
            (Turn::Second, _) => Hop::Same,
            (Turn::First, Hops::KernelForwards) => Hop::More,
            (Turn::First, Hops::Translator) => Hop::Less,
        }
    }

    /// Whether the rules of RFC 7757 §4.2.1 hold on the way to IPv6.
    fn hides_mappings(&self, turn: Turn) -> bool {
        turn == Turn::Second || self.settings.hairpin == Hairpin::Simple
    }

    const fn mtus(&self) -> Mtus {
        Mtus { v6: self.settings.mtu.v6, v4: self.settings.mtu.v4 }
    }
}

/// Whether a packet comes from the device, or is an IPv6 packet that has just become IPv4 and turns back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Second,
}

/// The verdict on a packet that was given to the device.
const fn sent(accepted: bool) -> Verdict {
    if accepted { Verdict::Translated } else { Verdict::Dropped(DropReason::DeviceWrite) }
}
