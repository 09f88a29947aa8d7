//! Asking the upstream resolvers: who is asked when, and who is left alone for a while. How a question travels is in
//! `ports` (UDP) and `stream` (TCP, TLS, HTTPS).
//!
//! hickory's name-server pool is not used: it lives in `hickory-resolver`, and it turns every negative or failed answer
//! into an error that has lost the message. DNS64 needs the message.

mod message;
mod ports;
mod server;
mod stream;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_net::NetError;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::counters::{Counter, Counters};
use crate::dns64::{Answer, Question};
use server::Server;
pub use server::{Over, Upstream};
pub use stream::{Trust, TrustError};

/// A server that is silent for so long is joined by the next one.
const STAGGER: Duration = Duration::from_millis(350);
/// Where there is no other, it is asked again after so long.
const RETRANSMIT: Duration = Duration::from_millis(800);
/// The most questions that go upstream for one of a client's.
const FAN_OUT: u8 = 4;

/// Why a server gave no answer.
#[derive(Debug)]
enum Failure {
    /// It was silent.
    Timeout,
    /// Its host says that nobody listens.
    Refused,
    /// It does not keep the letters of the question, or somebody forges.
    Case,
    /// It complained without repeating the question.
    Bare,
    /// It answered something else.
    Stranger,
    /// Too many questions of ours are under way.
    Busy,
    /// One client's question has cost enough.
    Spent,
    /// A socket.
    Io(io::Error),
    /// A stream.
    Net(NetError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "silent",
            Self::Refused => "nobody listens",
            Self::Case => "it does not keep the letters",
            Self::Bare => "it complains",
            Self::Stranger => "it answers something else",
            Self::Busy => "too many questions",
            Self::Spent => "asked often enough",
            Self::Io(error) => return error.fmt(f),
            Self::Net(error) => return error.fmt(f),
        })
    }
}

/// The upstream resolvers of one group.
pub(super) struct Upstreams {
    servers: Vec<Arc<Server>>,
    /// Equal questions share one exchange: more of them at once would be more chances for a forger, too.
    running: Arc<Mutex<HashMap<Vec<u8>, WeakShared<Running>>>>,
    counters: Arc<Counters>,
}

type Running = BoxFuture<'static, Answer>;

/// What one client's question may still cost upstream.
pub(super) struct Budget(AtomicU8);

impl Budget {
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(FAN_OUT))
    }

    fn spend(&self) -> Result<(), Failure> {
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.map(drop).map_err(|_| Failure::Spent)
    }
}

impl Upstreams {
    pub(super) fn new(servers: &[Upstream], trust: &Trust, counters: &Arc<Counters>) -> Self {
        let server = |upstream: &Upstream| Arc::new(Server::new(upstream.clone(), trust, counters));
        Self {
            servers: servers.iter().map(server).collect(),
            running: Arc::default(),
            counters: Arc::clone(counters),
        }
    }

    /// The answer to a question, at the latest by the deadline.
    pub(super) fn ask(
        &self,
        question: &Question,
        deadline: Instant,
        budget: &Arc<Budget>,
    ) -> Shared<Running> {
        let key = key(question);
        let same = lock(&self.running).get(&key).and_then(WeakShared::upgrade);
        if let Some(exchange) = same.filter(|exchange| exchange.peek().is_none()) {
            return exchange;
        }
        let race = race(
            self.order(question),
            question.clone(),
            deadline,
            Arc::clone(budget),
            Arc::clone(&self.counters),
        );
        let place = Place { running: Arc::clone(&self.running), key: key.clone() };
        let exchange = async move {
            let answer = race.await;
            drop(place);
            answer
        };
        let exchange = exchange.boxed().shared();
        if let Some(weak) = exchange.downgrade() {
            lock(&self.running).insert(key, weak);
        }
        exchange
    }

    /// Servers that answer before servers that rest, quick ones before slow ones, else as the operator wrote them.
    fn order(&self, question: &Question) -> Vec<Arc<Server>> {
        let mut servers = self.servers.clone();
        servers.sort_by_cached_key(|server| (server.is_down(), server.speed()));
        if servers.len() > 1 {
            for server in &servers[1..] {
                server.look_after(question);
            }
            if let Some(first) = servers.first() {
                first.look_after_if_down(question);
            }
        }
        servers
    }
}

/// A place among the running exchanges; it ends with its exchange, whether there was an answer or nobody waits any more.
struct Place {
    running: Arc<Mutex<HashMap<Vec<u8>, WeakShared<Running>>>>,
    key: Vec<u8>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

/// The same for questions that have the same answer.
fn key(question: &Question) -> Vec<u8> {
    let flags = [question.dnssec_ok, question.checking_disabled, question.authentic_data].map(u8::from);
    let mut key = Vec::with_capacity(64);
    for label in question.name.iter() {
        key.push(label.len() as u8);
        key.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    key.extend(u16::from(question.record_type).to_be_bytes());
    key.extend(u16::from(question.class).to_be_bytes());
    key.extend(flags);
    key
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks until one server gives a usable answer. An error RCODE is kept while the next server is asked: it may know
/// better.
async fn race(
    servers: Vec<Arc<Server>>,
    question: Question,
    deadline: Instant,
    budget: Arc<Budget>,
    counters: Arc<Counters>,
) -> Answer {
    // Alone, a server gets a second chance.
    let (turns, patience) = if servers.len() == 1 { (2, RETRANSMIT) } else { (servers.len(), STAGGER) };
    let mut waiting = servers.iter().cycle().take(turns.min(servers.len() * 2));
    let mut running = FuturesUnordered::new();
    let mut pending: Vec<(&Arc<Server>, Instant)> = Vec::new();
    let mut error = None;
    let mut next_start = Some(Instant::now());
    loop {
        if running.is_empty() || next_start.is_some_and(|start| Instant::now() >= start) {
            match waiting.next() {
                Some(server) if budget.spend().is_ok() => {
                    counters.add(Counter::UpstreamAsked);
                    pending.push((server, Instant::now()));
                    running.push(one(server, &question, deadline, &budget, &counters));
                    next_start = Some(Instant::now() + patience);
                }
                _ if running.is_empty() => break,
                _ => next_start = None,
            }
        }
        let wake = next_start.unwrap_or(deadline);
        tokio::select! {
            Some((server, result)) = running.next() => {
                let asked = pending.iter().position(|(other, _)| Arc::ptr_eq(other, server));
                let asked = asked.map(|at| pending.swap_remove(at).1);
                match result {
                    Ok(reply) if !message::is_error(&reply) => {
                        server.works(asked);
                        let late = |other: Instant| asked.is_some_and(|asked| asked >= other + STAGGER);
                        for (slow, _) in pending.iter().filter(|(_, other)| late(*other)) {
                            // This server answered first although that one had a head start.
                            slow.failed(&question);
                        }
                        return Answer::Reply(reply);
                    }
                    Ok(reply) => {
                        if message::rcode(&reply) == message::REFUSED {
                            server.failed(&question);
                        }
                        error.get_or_insert(reply);
                    }
                    Err(failure) => {
                        tracing::debug!(upstream = %server.address(), %failure, "no answer");
                        counters.add(Counter::UpstreamFailed);
                        if !matches!(failure, Failure::Spent | Failure::Busy) {
                            server.failed(&question);
                        }
                    }
                }
                next_start = Some(Instant::now());
            }
            () = sleep_until(wake) => {}
        }
    }
    error.map_or(Answer::Failed, Answer::Reply)
}

async fn one<'a>(
    server: &'a Arc<Server>,
    question: &Question,
    deadline: Instant,
    budget: &Budget,
    counters: &Counters,
) -> (&'a Arc<Server>, Result<Vec<u8>, Failure>) {
    let result = timeout_at(deadline, server.converse(question, deadline, budget, counters)).await;
    (server, result.unwrap_or(Err(Failure::Timeout)))
}
