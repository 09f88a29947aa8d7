//! The core that serves every transport.

use std::net::UdpSocket;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::{FutureExt, ready};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinDecodable;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::batch::{Peer, send_one};
use super::counters::{Counter, Counters};
use super::front::{Found, Front, Lane, Miss, Stale, Started};
use super::upstream::{Budget, Upstreams};
use super::{Change, Config, Limits};
use crate::dns64::stats::{self, Names};
use crate::dns64::{self, Answer, Ask, Class, Meta, Next, Pace, Question, Reply};
use crate::time::Instant;

/// Units that a reload may bring and that still have a row of their own in the statistics.
const SPARE_UNITS: usize = 64;

/// A unit by its name, or the clients of none, and how its questions ended.
pub type UnitRow = (Option<String>, stats::Row);

/// What all listeners share: settings, upstreams, counters, the way to the upstreams.
pub struct Shared {
    active: Arc<ArcSwap<Active>>,
    lanes: Box<[Arc<Lane>]>,
    /// Counts what no lane does.
    counters: Arc<Counters>,
    streams: Mutex<Streams>,
    /// The units, as the rows of the statistics have them: a row stays with its unit.
    units: Mutex<Vec<String>>,
    in_flight: Arc<Semaphore>,
    limits: Limits,
    origin: std::time::Instant,
    changing: Mutex<()>,
    jobs: mpsc::UnboundedSender<Job>,
    open_jobs: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
}

/// The settings that one question sees from begin to end.
pub(super) struct Active {
    pub(super) config: Config,
    groups: Vec<Arc<Upstreams>>,
}

/// The front of TCP, TLS and HTTPS.
struct Streams {
    front: Front,
    out: Box<[u8]>,
}

/// A query that waits for the upstream. As many as there are places in flight, so the queue needs no other bound.
pub(super) struct Job {
    pub(super) miss: Box<Miss>,
    pub(super) back: Back,
}

/// The way back to the client.
pub(super) enum Back {
    Udp(Arc<UdpSocket>, Peer),
    Stream(oneshot::Sender<Vec<u8>>),
}

impl Shared {
    /// With these settings.
    pub fn new(config: Config, limits: Limits) -> Self {
        let counters = Arc::<Counters>::default();
        let units = config.units.clone();
        let lane = || Arc::new(Lane::new(units.len() + SPARE_UNITS, config.top_names));
        let streams = lane();
        let udp = (0..limits.udp_threads).map(|_| lane());
        // The streams' lane is the last.
        let lanes: Box<[_]> = udp.chain([Arc::clone(&streams)]).collect();
        let active = Arc::new(ArcSwap::from_pointee(Active::new(config, None, &counters)));
        let streams = Front::new(&active, Arc::clone(&streams), limits.cache_share());
        let (jobs, open_jobs) = mpsc::unbounded_channel();
        Self {
            active,
            lanes,
            counters,
            streams: Mutex::new(Streams { front: streams, out: vec![0; usize::from(u16::MAX)].into() }),
            units: Mutex::new(units),
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            limits,
            origin: std::time::Instant::now(),
            changing: Mutex::new(()),
            jobs,
            open_jobs: Mutex::new(Some(open_jobs)),
        }
    }

    /// Answers one query from a stream. `None` means that nothing is to be sent. Never takes longer than the deadline.
    pub async fn answer(&self, bytes: &[u8], meta: &Meta) -> Option<Vec<u8>> {
        let miss = match self.start(bytes, meta) {
            Ok(reply) => return reply,
            Err(miss) => miss,
        };
        let (back, reply) = oneshot::channel();
        // Without a service nobody waits for the reply either.
        let _ = self.jobs.send(Job { miss, back: Back::Stream(back) });
        reply.await.ok()
    }

    /// Takes over changes, all at once.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        // What others change meanwhile must not be lost. There is nothing in there that a panic could spoil.
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.active.load();
        let mut config = old.config.clone();
        for change in changes {
            match change {
                Change::Dns64(dns64::Change::Replace(mut settings)) => {
                    let rows = self.rows_of(&config.units);
                    let row = |unit| rows.get(usize::from(unit)).copied().unwrap_or(u16::MAX);
                    settings.units = settings.units.map(row);
                    config.dns64.apply(dns64::Change::Replace(settings));
                }
                Change::Dns64(change @ dns64::Change::Health(_)) => config.dns64.apply(change),
                Change::Upstream(servers) => config.upstream = servers,
                Change::Groups(groups) => config.groups = groups,
                Change::Trust(trust) => config.trust = trust,
                Change::Certificate(certificate) => config.certificate = certificate,
                Change::HttpsPath(path) => config.https_path = path,
                Change::Units(units) => config.units = units,
                Change::TopNames(most) => config.top_names = most,
            }
        }
        if config.top_names != old.config.top_names {
            self.lanes.iter().for_each(|lane| lane.keep_names(config.top_names));
        }
        self.active.store(Arc::new(Active::new(config, Some(&old), &self.counters)));
    }

    /// The settings in force.
    pub fn config(&self) -> Config {
        self.active.load().config.clone()
    }

    /// Name and value of every counter: first the outcomes, of which each message has exactly one, then the rest.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        Counters::snapshot(self.lanes.iter().map(|lane| &lane.counters).chain([&*self.counters]))
    }

    /// How questions ended, by unit and class; the last row is the clients of no unit.
    pub fn statistics(&self) -> Vec<UnitRow> {
        let mut rows = stats::sum(self.lanes.iter().map(|lane| lane.tally.read()));
        let outside = rows.pop().map(|row| (None, row));
        let units = self.unit_rows().clone();
        units.into_iter().map(Some).zip(rows).chain(outside).collect()
    }

    /// The names that were asked most, if they are kept: class, name, number of questions.
    pub fn top_names(&self) -> Vec<(Class, String, u64)> {
        let most = self.active.load().config.top_names;
        let mut names = Names::new(self.lanes.len() * most);
        for lane in &self.lanes {
            if let Some(kept) = &*lane.names() {
                kept.top().into_iter().for_each(|(class, name, count)| names.add(class, name, count));
            }
        }
        let text = |name: &[u8]| Name::from_bytes(name).map(|name| name.to_ascii()).ok();
        names
            .top()
            .into_iter()
            .filter_map(|(class, name, n)| Some((class, text(name)?, n)))
            .take(most)
            .collect()
    }

    /// Questions that wait for the upstream now.
    pub fn in_flight(&self) -> usize {
        self.limits.in_flight.saturating_sub(self.in_flight.available_permits())
    }

    /// Memory of all caches that run.
    pub fn cache_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.cache_bytes()).sum()
    }

    /// Bounds, as they were at start.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    fn unit_rows(&self) -> MutexGuard<'_, Vec<String>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of these units. A new one has its own as long as there are any to spare.
    fn rows_of(&self, units: &[String]) -> Vec<u16> {
        let mut rows = self.unit_rows();
        let most = self.lanes.first().map_or(0, |lane| lane.tally.units());
        let mut row_of = |unit: &String| {
            let known = rows.iter().position(|row| row == unit).or_else(|| {
                (rows.len() < most).then(|| {
                    rows.push(unit.clone());
                    rows.len() - 1
                })
            });
            known.and_then(|row| u16::try_from(row).ok()).unwrap_or(u16::MAX)
        };
        units.iter().map(&mut row_of).collect()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    pub(super) fn active_handle(&self) -> &Arc<ArcSwap<Active>> {
        &self.active
    }

    /// The lane of a UDP thread.
    pub(super) fn lane(&self, thread: usize) -> Option<&Arc<Lane>> {
        self.lanes.get(thread)
    }

    /// A place among the questions in flight.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        Arc::clone(&self.in_flight).try_acquire_owned()
    }

    pub(super) fn jobs(&self) -> mpsc::UnboundedSender<Job> {
        self.jobs.clone()
    }

    /// The time of the DNS service.
    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.origin.elapsed().as_nanos() as u64)
    }

    /// Does the jobs until it is dropped; what is under way ends with it.
    pub(super) async fn work(self: Arc<Self>) {
        let jobs = self.open_jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut jobs) = jobs else { return };
        let mut tasks = JoinSet::new();
        while let Some(Job { miss, back }) = jobs.recv().await {
            while tasks.try_join_next().is_some() {}
            let shared = Arc::clone(&self);
            tasks.spawn(async move { shared.resolve(*miss, back).await });
        }
    }

    /// The part of a stream's query that never waits.
    fn start(&self, bytes: &[u8], meta: &Meta) -> Result<Option<Vec<u8>>, Box<Miss>> {
        let now = self.now();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let Streams { front, out } = &mut *streams;
        front.refresh();
        match front.start(self, bytes, meta, now, out) {
            Started::Reply(len) => Ok(out.get(..len).map(<[u8]>::to_vec)),
            Started::Nothing => Ok(None),
            Started::Waiting(miss) => Err(miss),
        }
    }

    /// The part that waits.
    async fn resolve(&self, miss: Miss, back: Back) {
        let Miss { active, ask, store, scope, stale, lane, named, place } = miss;
        // What is counted here is counted on one thread: the runtime's.
        let own = self.lanes.last().unwrap_or(&lane);
        let mut open = Some((back, stale));
        let send_stale = |open: &mut Option<(Back, Stale)>| {
            if let Some((back, Some((bytes, outcome)))) = open.take_if(|(_, stale)| stale.is_some()) {
                own.counters.add(Counter::CacheStale);
                own.count(scope, outcome, false);
                own.count_name(named.as_deref(), outcome);
                self.send(back, bytes);
            }
        };
        let mut work = pin!(self.drive(&active, *ask));
        // RFC 8767 §5: with something old at hand, the client does not wait for long.
        let patience = tokio::time::Instant::now() + self.limits.stale_after;
        let reply = match timeout_at(patience, &mut work).await {
            Ok(reply) => reply,
            Err(_) => {
                send_stale(&mut open);
                work.await
            }
        };
        if reply.is_failure() {
            send_stale(&mut open);
        }
        // Stored before it is sent: who asks again at once finds it.
        let reply = Arc::new(reply);
        if let Some((scope, query)) = store {
            let found = Arc::new(Found { scope, query, reply: Arc::clone(&reply), at: self.now() });
            for other in &self.lanes {
                other.leave(&found, Arc::ptr_eq(other, &lane));
            }
        }
        if let Some((back, _)) = open {
            own.count(scope, reply.outcome, reply.is_truncated());
            own.count_name(named.as_deref(), reply.outcome);
            self.send(back, reply.bytes.clone());
        }
        drop(place);
    }

    fn send(&self, back: Back, reply: Vec<u8>) {
        match back {
            Back::Udp(socket, peer) => {
                if let Err(error) = send_one(&socket, peer, &reply) {
                    tracing::debug!(client = %peer.client, %error, "send failed");
                    self.counters.add(Counter::SendFailed);
                }
            }
            // The connection may be gone.
            Back::Stream(back) => drop(back.send(reply)),
        }
    }

    /// Asks what is to be asked, and tells the DNS64 what came and how late it is.
    async fn drive(&self, active: &Active, ask: Ask) -> Reply {
        let settings = &active.config.dns64;
        let pace = Pace { deadline: self.limits.deadline, aaaa_budget: self.limits.aaaa_budget };
        let mut exchange = ask.start(pace, self.now());
        let deadline = tokio::time::Instant::now() + self.limits.deadline;
        let budget = Arc::new(Budget::new());
        let mut running: FuturesUnordered<_> = exchange
            .questions()
            .iter()
            .enumerate()
            .map(|(slot, question)| active.ask(question, deadline, &budget).map(move |answer| (slot, answer)))
            .collect();
        let mut next = exchange.tick(settings, self.now());
        let reply = loop {
            let until = match next {
                Next::Done(reply) => break reply,
                Next::Wait(until) => self.origin + Duration::from_nanos(until.as_nanos()),
            };
            tokio::select! {
                biased;
                Some((slot, answer)) = running.next() => {
                    next = exchange.answered(settings, slot, answer, self.now());
                }
                () = sleep_until(until.into()) => next = exchange.tick(settings, self.now()),
            }
        };
        if exchange.gave_up_on_aaaa() {
            self.counters.add(Counter::AaaaGivenUp);
        }
        reply
    }
}

impl Active {
    /// Upstreams that are the same as before keep what is known about them.
    fn new(config: Config, before: Option<&Self>, counters: &Arc<Counters>) -> Self {
        let lists = std::iter::once(&config.upstream).chain(&config.groups);
        let groups = lists.enumerate().map(|(at, servers)| {
            let same = before
                .filter(|old| old.config.trust == config.trust && old.config.group(at) == Some(servers));
            match same.and_then(|old| old.groups.get(at)) {
                Some(upstreams) => Arc::clone(upstreams),
                None => Arc::new(Upstreams::new(servers, &config.trust, counters)),
            }
        });
        let groups = groups.collect();
        Self { config, groups }
    }

    fn ask(
        &self,
        question: &Question,
        deadline: tokio::time::Instant,
        budget: &Arc<Budget>,
    ) -> impl Future<Output = Answer> + use<> {
        match self.groups.get(usize::from(question.group.0)) {
            Some(upstreams) => upstreams.ask(question, deadline, budget).left_future(),
            None => ready(Answer::Failed).right_future(),
        }
    }
}
