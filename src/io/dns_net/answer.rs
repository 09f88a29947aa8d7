//! The core that serves every transport.

use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::{Instant, sleep_until};

use super::counters::{Counter, Counters};
use super::upstream::Upstreams;
use super::{Change, Config, Limits};
use crate::dns64::{self, Answer, Ask, Meta, Outcome, Progress, Reply, Step, Transport};

/// What all listeners share: settings, upstreams, counters.
pub struct Shared {
    active: ArcSwap<Active>,
    counters: Counters,
    in_flight: Arc<Semaphore>,
    limits: Limits,
}

/// The settings that one question sees from begin to end.
pub(super) struct Active {
    pub(super) config: Config,
    upstreams: Arc<Upstreams>,
}

/// How far a query got without the upstream.
pub(super) enum Started {
    Reply(Vec<u8>),
    Waiting(Waiting),
    Nothing,
}

/// A query that has its place among those in flight.
pub(super) struct Waiting {
    active: Arc<Active>,
    ask: Box<Ask>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Shared {
    /// With these settings.
    pub fn new(config: Config, limits: Limits) -> Self {
        let upstreams = Arc::new(Upstreams::new(&config.upstream));
        Self {
            active: ArcSwap::from_pointee(Active { config, upstreams }),
            counters: Counters::default(),
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            limits,
        }
    }

    /// Answers one query. `None` means that nothing is to be sent. Never takes longer than the deadline.
    pub async fn answer(&self, bytes: &[u8], meta: &Meta) -> Option<Vec<u8>> {
        match self.start(bytes, meta) {
            Started::Reply(reply) => Some(reply),
            Started::Waiting(waiting) => Some(self.resume(waiting).await),
            Started::Nothing => None,
        }
    }

    /// Takes over changes, all at once. Only one caller at a time.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let old = self.active.load();
        let (mut config, mut upstreams) = (old.config.clone(), Arc::clone(&old.upstreams));
        for change in changes {
            match change {
                Change::Dns64(change) => config.dns64.apply(change),
                Change::Upstream(servers) => {
                    upstreams = Arc::new(Upstreams::new(&servers));
                    config.upstream = servers;
                }
            }
        }
        self.active.store(Arc::new(Active { config, upstreams }));
    }

    /// The settings in force.
    pub fn config(&self) -> Config {
        self.active.load().config.clone()
    }

    /// Name and value of every counter: first the outcomes, of which each message has exactly one, then the rest.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        self.counters.snapshot()
    }

    /// Questions that wait for the upstream now.
    pub fn in_flight(&self) -> usize {
        self.limits.in_flight.saturating_sub(self.in_flight.available_permits())
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) const fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// The part of a query's way that never waits.
    pub(super) fn start(&self, bytes: &[u8], meta: &Meta) -> Started {
        self.counters.add(match meta.transport {
            Transport::Udp => Counter::UdpQueries,
            Transport::Tcp | Transport::Tls | Transport::Https => Counter::TcpQueries,
        });
        let active = self.active.load();
        let ask = match dns64::begin(&active.config.dns64, bytes, meta) {
            Step::Reply(reply) => return Started::Reply(self.count(reply)),
            Step::Ask(ask) => ask,
            Step::Ignore => {
                self.counters.outcome(Outcome::Ignored);
                return Started::Nothing;
            }
        };
        match Arc::clone(&self.in_flight).try_acquire_owned() {
            Ok(place) => Started::Waiting(Waiting { active: Arc::clone(&active), ask, _place: place }),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                let reply = self.count(ask.busy());
                match meta.transport {
                    // Silence costs least, and the client tries again.
                    Transport::Udp => Started::Nothing,
                    Transport::Tcp | Transport::Tls | Transport::Https => Started::Reply(reply),
                }
            }
        }
    }

    /// The part that waits.
    pub(super) async fn resume(&self, waiting: Waiting) -> Vec<u8> {
        let reply = self.drive(&waiting.active, &waiting.ask).await;
        self.count(reply)
    }

    async fn drive(&self, active: &Active, ask: &Ask) -> Reply {
        let started = Instant::now();
        let deadline = started + self.limits.deadline;
        let settings = &active.config.dns64;
        let first = active.upstreams.ask(ask.first(), deadline, &self.counters);
        let Some(second) = ask.second() else {
            return dns64::finish(settings, ask, &first.await, &Answer::Failed);
        };
        let second = active.upstreams.ask(second, deadline, &self.counters);
        let (mut first, mut second) = (pin!(first), pin!(second));
        let mut a = None;
        let mut patient = false;
        let aaaa = loop {
            tokio::select! {
                biased;
                answer = &mut first => break answer,
                answer = &mut second, if a.is_none() => a = Some(answer),
                // RFC 6147 §5.1.3 leaves the timeout to us. Only a usable A answer ends the wait early: an
                // empty one would turn a slow AAAA into "no such data".
                () = sleep_until(started + self.limits.aaaa_budget), if a.is_some() && !patient => {
                    if a.as_ref().is_some_and(|a| ask.is_usable(settings, a)) {
                        self.counters.add(Counter::AaaaGivenUp);
                        break Answer::Failed;
                    }
                    patient = true;
                }
            }
        };
        match ask.settle(settings, &aaaa) {
            Progress::Done(reply) => reply,
            Progress::NeedsSecond(pending) => {
                let a = match a {
                    Some(a) => a,
                    None => second.await,
                };
                pending.finish(settings, ask, &a)
            }
        }
    }

    fn count(&self, reply: Reply) -> Vec<u8> {
        self.counters.outcome(reply.outcome);
        if reply.is_truncated() {
            self.counters.add(Counter::Truncated);
        }
        reply.bytes
    }
}
