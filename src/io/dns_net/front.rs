//! The part of a query's way that never waits: rate limit, cache, and what the DNS64 can say by itself. Each UDP thread
//! has a front of its own, the streams share one; nothing in it is locked or allocated for a reply from the cache.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::answer::{Active, Shared};
use super::counters::{Counter, Counters};
use crate::dns64::cache::{Cache, Lookup};
use crate::dns64::limit::{self, Limit, Limiter, Verdict};
use crate::dns64::stats::{Names, Tally};
use crate::dns64::{self, Ask, Class, Meta, Outcome, Reply, Scope, Step, Transport, question_name};
use crate::time::Instant;

/// Replies of the others that wait to be stored. The oldest give way: that costs a question, nothing else.
const FOUND: usize = 256;
/// A longer reply is left to the front that asked for it.
const SHARED_REPLY: usize = 4096;

/// What others see of a front: its counters, and the letter box for replies that came later.
pub(super) struct Lane {
    pub(super) counters: Counters,
    pub(super) tally: Tally,
    /// Only where the operator wants to know.
    names: Mutex<Option<Names>>,
    found: ArrayQueue<Arc<Found>>,
    /// What the front's cache takes.
    cache_bytes: AtomicUsize,
}

/// A reply to be stored.
pub(super) struct Found {
    pub(super) scope: Scope,
    pub(super) query: Vec<u8>,
    pub(super) reply: Arc<Reply>,
    /// When it was made.
    pub(super) at: Instant,
}

/// How far a query got without the upstream.
pub(super) enum Started {
    /// So many bytes of `out` are the reply.
    Reply(usize),
    /// It waits for the upstream.
    Waiting(Box<Miss>),
    /// Nothing is to be sent.
    Nothing,
}

/// A reply past its time, and how its question ended.
pub(super) type Stale = Option<(Vec<u8>, Outcome)>;

/// A query that has its place among those in flight.
pub(super) struct Miss {
    pub(super) active: Arc<Active>,
    pub(super) ask: Box<Ask>,
    /// Where the reply may be stored.
    pub(super) store: Option<(Scope, Vec<u8>)>,
    pub(super) scope: Option<Scope>,
    /// For when no other comes.
    pub(super) stale: Stale,
    pub(super) lane: Arc<Lane>,
    /// The name in the question, where names are kept.
    pub(super) named: Option<Vec<u8>>,
    pub(super) place: OwnedSemaphorePermit,
}

/// A cache and what belongs to it.
pub(super) struct Front {
    lane: Arc<Lane>,
    active: arc_swap::Cache<Arc<ArcSwap<Active>>, Arc<Active>>,
    cache: Cache,
    limiter: Option<(Limit, Limiter)>,
}

impl Lane {
    pub(super) fn new(units: usize, names: usize) -> Self {
        let lane = Self {
            counters: Counters::default(),
            tally: Tally::new(units),
            names: Mutex::default(),
            found: ArrayQueue::new(FOUND),
            cache_bytes: AtomicUsize::new(0),
        };
        lane.keep_names(names);
        lane
    }

    /// Forgets all names, and keeps so many from now on.
    pub(super) fn keep_names(&self, most: usize) {
        *self.names() = (most > 0).then(|| Names::new(most));
    }

    /// The names, if they are kept.
    pub(super) fn names(&self) -> MutexGuard<'_, Option<Names>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the name of a question about addresses; there is none where names are not kept.
    pub(super) fn count_name(&self, name: Option<&[u8]>, outcome: Outcome) {
        let class = outcome.class();
        if let Some(name) = name.filter(|_| class != Class::Other)
            && let Some(names) = &mut *self.names()
        {
            names.count(class, name);
        }
    }

    /// Leaves a reply for the front.
    pub(super) fn leave(&self, found: &Arc<Found>, mine: bool) {
        if mine || found.reply.bytes.len() <= SHARED_REPLY {
            self.found.force_push(Arc::clone(found));
        }
    }

    /// Bytes of the front's cache.
    pub(super) fn cache_bytes(&self) -> usize {
        self.cache_bytes.load(Ordering::Relaxed)
    }

    /// Counts how a query ended.
    pub(super) fn count(&self, scope: Option<Scope>, outcome: Outcome, truncated: bool) {
        self.counters.outcome(outcome);
        self.tally.count(scope, outcome);
        if truncated {
            self.counters.add(Counter::Truncated);
        }
    }
}

impl Front {
    /// With a cache of so many bytes.
    pub(super) fn new(active: &Arc<ArcSwap<Active>>, lane: Arc<Lane>, bytes: usize) -> Self {
        let cache = Cache::new(bytes, rand::random());
        // All of it is taken now: it never grows.
        lane.cache_bytes.store(cache.stats().bytes, Ordering::Relaxed);
        Self { lane, active: arc_swap::Cache::new(Arc::clone(active)), cache, limiter: None }
    }

    /// Takes over what came since the last time: settings and replies. For each batch.
    pub(super) fn refresh(&mut self) {
        let limit = self.active.load().config.dns64.limit;
        if self.limiter.as_ref().map(|(limit, _)| *limit) != limit {
            self.limiter = limit.map(|limit| (limit, Limiter::new(limit, rand::random())));
        }
        while let Some(found) = self.lane.found.pop() {
            self.cache.store(found.scope, &found.query, &found.reply, found.at);
        }
    }

    /// Answers a query, or says that it has to wait.
    pub(super) fn start(
        &mut self,
        shared: &Shared,
        query: &[u8],
        meta: &Meta,
        now: Instant,
        out: &mut [u8],
    ) -> Started {
        self.lane.counters.add(match meta.transport {
            Transport::Udp => Counter::UdpQueries,
            Transport::Tcp => Counter::TcpQueries,
            Transport::Tls => Counter::TlsQueries,
            Transport::Https => Counter::HttpsQueries,
        });
        if let Some(ended) = self.limited(query, meta, now, out) {
            return ended;
        }
        let active = self.active.load();
        let settings = &active.config.dns64;
        let scope = settings.scope(meta);
        let named = (active.config.top_names > 0).then(|| question_name(query)).flatten();
        let mut store = None;
        let mut stale = None;
        if let Some(scope) = scope {
            match self.cache.lookup(scope, meta.transport, query, now, out) {
                Lookup::Hit { len, outcome } => {
                    self.lane.counters.add(Counter::CacheHits);
                    self.lane.count(Some(scope), outcome, is_truncated(out));
                    self.lane.count_name(named, outcome);
                    return Started::Reply(len);
                }
                Lookup::Miss { stale: old } => {
                    store = Some(scope);
                    if old
                        && let Some((len, outcome)) = self.cache.stale(scope, meta.transport, query, now, out)
                    {
                        stale = out.get(..len).map(|bytes| (bytes.to_vec(), outcome));
                    }
                }
                Lookup::Pass => {}
            }
        }
        let ask = match dns64::begin(settings, query, meta) {
            Step::Ask(ask) => ask,
            Step::Reply(reply) => {
                if let Some(scope) = store {
                    self.cache.store(scope, query, &reply, now);
                }
                self.lane.count_name(named, reply.outcome);
                return self.reply(scope, &reply, out);
            }
            Step::Ignore => {
                self.lane.count(scope, Outcome::Ignored, false);
                return Started::Nothing;
            }
        };
        match shared.place() {
            Ok(place) => Started::Waiting(Box::new(Miss {
                active: Arc::clone(active),
                ask,
                store: store.map(|scope| (scope, query.to_vec())),
                scope,
                stale,
                lane: Arc::clone(&self.lane),
                named: named.map(<[u8]>::to_vec),
                place,
            })),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                let started = self.reply(scope, &ask.busy(), out);
                match meta.transport {
                    // Silence costs least, and the client tries again.
                    Transport::Udp => Started::Nothing,
                    Transport::Tcp | Transport::Tls | Transport::Https => started,
                }
            }
        }
    }

    /// What becomes of a query beyond its client's rate.
    fn limited(&mut self, query: &[u8], meta: &Meta, now: Instant, out: &mut [u8]) -> Option<Started> {
        let (_, limiter) = self.limiter.as_mut().filter(|_| meta.transport == Transport::Udp)?;
        let len = match limiter.check(meta.client, now) {
            Verdict::Pass => return None,
            Verdict::Truncate => limit::truncated(query, out),
            Verdict::Drop => None,
        };
        self.lane.count(None, Outcome::Limited, len.is_some());
        Some(len.map_or(Started::Nothing, Started::Reply))
    }

    fn reply(&self, scope: Option<Scope>, reply: &Reply, out: &mut [u8]) -> Started {
        let Some(place) = out.get_mut(..reply.bytes.len()) else { return Started::Nothing };
        place.copy_from_slice(&reply.bytes);
        self.lane.count(scope, reply.outcome, reply.is_truncated());
        Started::Reply(reply.bytes.len())
    }
}

/// Whether TC is set.
fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|byte| byte & 2 != 0)
}
