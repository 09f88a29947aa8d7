//! One worker: one queue, one translator, one thread. Generic over the device, so that tests and fuzzers run the code
//! that ships, and over the translator, so that neither mode pays for the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::counters::Counters;
use super::ring::Exchange;
use crate::io::tun::TunQueue;
use crate::io::{Device, Received};
use crate::nat64::engine::{Engine, Sink, Step};
use crate::siit::Siit;
use crate::siit::event::Event;
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Settled, Verdict};
use crate::wire::packet::PacketBuf;

/// Packets worked off before anything else gets a turn.
const BATCH: usize = 64;
/// Packets read before the first of them is written: the receiver of a burst then stays awake through it.
const READ: usize = 32;
/// Bytes of one turn from which on a flow is bulk.
const BULK: usize = 30_000;
/// Sessions looked at in one turn because their time may be over.
const EXPIRE: u32 = 256;
/// Requests of the control side that may wait.
const REQUESTS: usize = 64;

/// What a worker does to packets.
pub trait Translator {
    /// Takes a packet from the device.
    fn handle(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step;

    /// Takes a packet that another worker passed on.
    fn handle_passed(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step;

    /// Ends what is over, looking at no more than `budget` entries. False when it ran out.
    fn expire(&mut self, now: Instant, budget: u32, sink: &mut impl Sink) -> bool;

    /// Something to tell the operator.
    fn take_event(&mut self) -> Option<Event>;
}

impl Translator for Engine {
    #[inline]
    fn handle(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step {
        Self::handle(self, now, packet, sink)
    }

    fn handle_passed(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step {
        Self::handle_passed(self, now, packet, sink)
    }

    fn expire(&mut self, now: Instant, budget: u32, sink: &mut impl Sink) -> bool {
        Self::expire(self, now, budget, sink)
    }

    fn take_event(&mut self) -> Option<Event> {
        None
    }
}

/// Stateless packets are handled by whoever reads them; none is ever passed on.
impl Translator for Siit {
    #[inline]
    fn handle(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step {
        Step::Done(Self::handle(self, now, packet, sink))
    }

    fn handle_passed(&mut self, now: Instant, packet: &mut PacketBuf, sink: &mut impl Sink) -> Step {
        Step::Done(Self::handle(self, now, packet, sink))
    }

    fn expire(&mut self, _: Instant, _: u32, _: &mut impl Sink) -> bool {
        true
    }

    fn take_event(&mut self) -> Option<Event> {
        Self::take_event(self)
    }
}

/// Something the control side wants done by the worker, between two batches.
pub type Request<T = Engine> = Box<dyn FnOnce(&mut T, Instant) + Send>;

/// The mailbox of one worker for the control side.
pub struct Requests<T = Engine>(ArrayQueue<Request<T>>);

impl<T> Default for Requests<T> {
    fn default() -> Self {
        Self(ArrayQueue::new(REQUESTS))
    }
}

impl<T> Requests<T> {
    /// Puts a request in; gives it back when too many are waiting.
    pub fn push(&self, request: Request<T>) -> Result<(), Request<T>> {
        self.0.push(request)
    }

    /// Whether none is waiting.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A worker and everything it owns.
pub struct Worker<D, T = Engine> {
    number: u16,
    engine: T,
    device: D,
    exchange: Arc<Exchange>,
    counters: Arc<Counters>,
    requests: Arc<Requests<T>>,
    packets: Vec<PacketBuf>,
    /// Bytes read in the last turn.
    bytes: usize,
}

/// The device, with its books.
struct Port<'a, D> {
    device: &'a mut D,
    counters: &'a Counters,
}

impl<D: Device> Sink for Port<'_, D> {
    #[inline]
    fn send(&mut self, packet: &mut PacketBuf, sent: Sent) -> bool {
        let accepted = self.device.send(packet).is_ok();
        if accepted {
            self.counters.sent(sent);
        }
        accepted
    }

    fn settle(&mut self, count: u32, end: Settled) {
        self.counters.settled(count, end);
    }
}

impl<D: Device, T: Translator> Worker<D, T> {
    /// Worker `number`.
    pub fn new(
        number: u16,
        engine: T,
        device: D,
        exchange: Arc<Exchange>,
        counters: Arc<Counters>,
        requests: Arc<Requests<T>>,
    ) -> Self {
        let packets = (0..READ).map(|_| PacketBuf::new()).collect();
        Self { number, engine, device, exchange, counters, requests, packets, bytes: 0 }
    }

    /// Works off what is there, up to a batch of each kind. True when there may be more.
    pub fn turn(&mut self, now: Instant) -> std::io::Result<bool> {
        let mut port = Port { device: &mut self.device, counters: &self.counters };
        let mut more = true;
        let mut failed = None;
        self.bytes = 0;
        for _ in 0..BATCH / READ {
            let mut read = 0;
            for packet in &mut self.packets {
                match port.device.recv(packet) {
                    Ok(Received::Packet) => {
                        self.counters.received();
                        self.bytes += packet.bytes().len();
                        read += 1;
                    }
                    Ok(Received::Bad(reason)) => {
                        self.counters.received();
                        self.counters.verdict(Verdict::Dropped(reason));
                        break;
                    }
                    Ok(Received::Nothing) => {
                        more = false;
                        break;
                    }
                    Err(e) => {
                        failed = Some(e);
                        break;
                    }
                }
            }
            for packet in self.packets.iter_mut().take(read) {
                let step = self.engine.handle(now, packet, &mut port);
                conclude(step, packet, &self.exchange, &self.counters);
            }
            if !more || failed.is_some() {
                break;
            }
        }
        for _ in 0..BATCH {
            let Some(mut packet) = self.exchange.take(self.number) else { break };
            self.counters.taken();
            let step = self.engine.handle_passed(now, &mut packet, &mut port);
            conclude(step, &mut packet, &self.exchange, &self.counters);
            self.exchange.give_spare(packet);
        }
        while let Some(request) = self.requests.0.pop() {
            request(&mut self.engine, now);
        }
        more |= !self.engine.expire(now, EXPIRE, &mut port);
        while let Some(event) = self.engine.take_event() {
            tell(&event);
        }
        match failed {
            Some(e) => Err(e),
            None => Ok(more || !self.is_idle()),
        }
    }

    /// Whether the last turn moved so much that more will come in a moment.
    pub const fn is_bulk(&self) -> bool {
        self.bytes >= BULK
    }

    /// Whether neither the ring nor the mailbox holds anything.
    pub fn is_idle(&self) -> bool {
        self.exchange.is_empty(self.number) && self.requests.is_empty()
    }

    /// Counts what is left in the ring as dropped, when the gateway stops.
    pub fn close(&mut self) {
        while let Some(packet) = self.exchange.take(self.number) {
            self.counters.taken();
            self.counters.verdict(Verdict::Dropped(DropReason::Shutdown));
            self.exchange.give_spare(packet);
        }
    }

    /// The device, when the worker has ended.
    pub fn into_device(self) -> D {
        self.device
    }

    /// The device.
    pub const fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// The engine.
    pub const fn engine(&self) -> &T {
        &self.engine
    }
}

impl<T: Translator> Worker<TunQueue, T> {
    /// Sleeps until there is something to do, at most `nap`.
    pub fn wait(&self, nap: Duration, running: &AtomicBool) -> std::io::Result<()> {
        self.device.wait(nap, || self.is_idle() && running.load(Ordering::SeqCst))
    }
}

/// Counts what became of `packet`, or passes it on.
#[inline]
fn conclude(step: Step, packet: &mut PacketBuf, exchange: &Exchange, counters: &Counters) {
    match step {
        Step::Done(verdict) => counters.verdict(verdict),
        Step::Pass { worker } => {
            if exchange.pass(worker, packet) {
                counters.passed();
                exchange.wake(worker);
            } else {
                counters.verdict(Verdict::Dropped(DropReason::RingFull));
            }
        }
    }
}

/// RFC 7915 §4.5: says between whom a datagram without a checksum was refused.
fn tell(event: &Event) {
    tracing::warn!(
        src = %event.src,
        src_port = event.src_port,
        dst = %event.dst,
        dst_port = event.dst_port,
        fragment = event.is_fragment,
        "UDP without a checksum is not translated"
    );
}
