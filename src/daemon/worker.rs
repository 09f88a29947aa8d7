//! One worker: one queue, one engine, one thread. Generic over the device, so that tests and fuzzers run the code
//! that ships.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::counters::Counters;
use super::ring::Exchange;
use crate::io::tun::TunQueue;
use crate::io::{Device, Received};
use crate::nat64::engine::{Engine, Sink, Step};
use crate::time::Instant;
use crate::verdict::{DropReason, Sent, Settled, Verdict};
use crate::wire::packet::PacketBuf;

/// Packets worked off before anything else gets a turn.
const BATCH: usize = 64;
/// Sessions looked at in one turn because their time may be over.
const EXPIRE: u32 = 256;
/// Requests of the control side that may wait.
const REQUESTS: usize = 64;

/// Something the control side wants done by the worker, between two batches.
pub type Request = Box<dyn FnOnce(&mut Engine, Instant) + Send>;

/// The mailbox of one worker for the control side.
pub struct Requests(ArrayQueue<Request>);

impl Default for Requests {
    fn default() -> Self {
        Self(ArrayQueue::new(REQUESTS))
    }
}

impl Requests {
    /// Puts a request in; gives it back when too many are waiting.
    pub fn push(&self, request: Request) -> Result<(), Request> {
        self.0.push(request)
    }

    /// Whether none is waiting.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A worker and everything it owns.
pub struct Worker<D> {
    number: u16,
    engine: Engine,
    device: D,
    exchange: Arc<Exchange>,
    counters: Arc<Counters>,
    requests: Arc<Requests>,
    packet: PacketBuf,
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

impl<D: Device> Worker<D> {
    /// Worker `number`.
    pub fn new(
        number: u16,
        engine: Engine,
        device: D,
        exchange: Arc<Exchange>,
        counters: Arc<Counters>,
        requests: Arc<Requests>,
    ) -> Self {
        Self { number, engine, device, exchange, counters, requests, packet: PacketBuf::new() }
    }

    /// Works off what is there, up to a batch of each kind. True when there may be more.
    pub fn turn(&mut self, now: Instant) -> std::io::Result<bool> {
        let mut more = false;
        let mut failed = None;
        for i in 0..BATCH {
            match self.device.recv(&mut self.packet) {
                Ok(Received::Packet) => {
                    self.counters.received();
                    let mut port = Port { device: &mut self.device, counters: &self.counters };
                    let step = self.engine.handle(now, &mut self.packet, &mut port);
                    self.conclude(step);
                }
                Ok(Received::Bad(reason)) => {
                    self.counters.received();
                    self.counters.verdict(Verdict::Dropped(reason));
                }
                Ok(Received::Nothing) => break,
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
            more = i + 1 == BATCH;
        }
        for _ in 0..BATCH {
            let Some(packet) = self.exchange.take(self.number) else { break };
            self.counters.taken();
            let own = std::mem::replace(&mut self.packet, packet);
            self.exchange.give_spare(own);
            let mut port = Port { device: &mut self.device, counters: &self.counters };
            let step = self.engine.handle_passed(now, &mut self.packet, &mut port);
            self.conclude(step);
        }
        while let Some(request) = self.requests.0.pop() {
            request(&mut self.engine, now);
        }
        let mut port = Port { device: &mut self.device, counters: &self.counters };
        more |= !self.engine.expire(now, EXPIRE, &mut port);
        match failed {
            Some(e) => Err(e),
            None => Ok(more || !self.is_idle()),
        }
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
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    #[inline]
    fn conclude(&mut self, step: Step) {
        match step {
            Step::Done(verdict) => self.counters.verdict(verdict),
            Step::Pass { worker } => {
                if self.exchange.pass(worker, &mut self.packet) {
                    self.counters.passed();
                    self.exchange.wake(worker);
                } else {
                    self.counters.verdict(Verdict::Dropped(DropReason::RingFull));
                }
            }
        }
    }
}

impl Worker<TunQueue> {
    /// Sleeps until there is something to do, at most `nap`.
    pub fn wait(&self, nap: Duration, running: &AtomicBool) -> std::io::Result<()> {
        self.device.wait(nap, || self.is_idle() && running.load(Ordering::SeqCst))
    }
}
