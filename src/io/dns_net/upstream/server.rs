//! One upstream resolver: how it is reached, how quick it is, whether it rests.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::message::{FORMERR, NOTIMP, Query, has_no_records, is_error, is_truncated, rcode};
use super::ports::Ports;
use super::stream::{Stream, Trust, over_tcp};
use super::{Budget, Failure};
use crate::dns64::Question;
use crate::io::dns_net::counters::{Counter, Counters};

/// The longest rest of a server that does not answer.
const MAX_REST: Duration = Duration::from_secs(32);
/// How long the answer to a trial may take; a slower server is not one to go back to.
const TRIAL: Duration = Duration::from_secs(1);
/// A server whose speed was not measured for so long is tried.
const STALE_SPEED: Duration = Duration::from_secs(30);
/// So many answers in other letters in a row, each confirmed over TCP, and a server gets its questions as they are.
const CASE_STRIKES: u32 = 4;

/// A resolver to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Address and port.
    pub addr: SocketAddr,
    /// How.
    pub over: Over,
}

/// How questions travel to a resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// UDP, and TCP for what is too long (RFC 7766 §5).
    #[default]
    Udp,
    /// TLS (RFC 7858), with the name that the certificate has to show.
    Tls {
        /// The name.
        name: String,
    },
    /// HTTPS (RFC 8484), by POST.
    Https {
        /// The name that the certificate has to show.
        name: String,
        /// The path, usually `/dns-query`.
        path: String,
    },
}

impl From<SocketAddr> for Upstream {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, over: Over::Udp }
    }
}

/// As an operator writes it.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = self.addr;
        match &self.over {
            Over::Udp => write!(f, "{addr}"),
            Over::Tls { name } => write!(f, "tls://{addr}#{name}"),
            Over::Https { name, path } => write!(f, "https://{addr}{path}#{name}"),
        }
    }
}

/// A resolver with what is known about it.
pub(super) struct Server {
    upstream: Upstream,
    ports: Ports,
    stream: Option<Stream>,
    origin: Instant,
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds after the origin until which others go first. Then a trial decides.
    rests_until: AtomicU64,
    /// Whether it failed and no answer came since.
    down: AtomicBool,
    /// Whether a trial is under way.
    trial: AtomicBool,
    /// Smoothed round-trip time in microseconds (RFC 6298 §2 weighs a new sample with 1/8); 0 is unknown.
    round_trip: AtomicU32,
    /// Milliseconds after the origin of the last sample.
    sampled: AtomicU64,
    /// Answers in other letters, in a row.
    case_strikes: AtomicU32,
}

impl Server {
    pub(super) fn new(upstream: Upstream, trust: &Trust, counters: &Arc<Counters>) -> Self {
        Self {
            ports: Ports::new(upstream.addr, Arc::clone(counters)),
            stream: Stream::new(&upstream, trust),
            upstream,
            origin: Instant::now(),
            failures: AtomicU32::new(0),
            rests_until: AtomicU64::new(0),
            down: AtomicBool::new(false),
            trial: AtomicBool::new(false),
            round_trip: AtomicU32::new(0),
            sampled: AtomicU64::new(0),
            case_strikes: AtomicU32::new(0),
        }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.upstream.addr
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Round-trip times that differ by less than a factor of two are the same speed.
    pub(super) fn speed(&self) -> u32 {
        // Below 8 ms everything is quick.
        (self.round_trip.load(Ordering::Relaxed) >> 13).checked_ilog2().map_or(0, |log| log + 1)
    }

    /// It answered a question that was asked then.
    pub(super) fn works(&self, asked: Option<Instant>) {
        self.failures.store(0, Ordering::Relaxed);
        self.down.store(false, Ordering::Relaxed);
        let Some(asked) = asked else { return };
        let sample = u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX).max(1);
        let old = self.round_trip.load(Ordering::Relaxed);
        let smoothed = if old == 0 { sample } else { old - old / 8 + sample / 8 };
        self.round_trip.store(smoothed, Ordering::Relaxed);
        self.sampled.store(self.millis(), Ordering::Relaxed);
    }

    /// One failure, however many questions noticed it. The question is what it is tried with later.
    pub(super) fn failed(&self, question: &Question) {
        tracing::trace!(upstream = %self.upstream.addr, kind = %question.record_type, "failed");
        let now = self.millis();
        self.down.store(true, Ordering::Relaxed);
        if now < self.rests_until.load(Ordering::Relaxed) {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(5);
        let rest = Duration::from_secs(1 << failures).min(MAX_REST);
        self.rests_until.store(now + rest.as_millis() as u64, Ordering::Relaxed);
    }

    /// A trial in the background, with a client's question, when it has rested or its speed is long unknown. No client
    /// waits for it.
    pub(super) fn look_after(self: &Arc<Self>, question: &Question) {
        let now = self.millis();
        let due = if self.is_down() {
            now >= self.rests_until.load(Ordering::Relaxed)
        } else {
            now >= self.sampled.load(Ordering::Relaxed) + STALE_SPEED.as_millis() as u64
        };
        if due && !self.trial.swap(true, Ordering::Relaxed) {
            let (server, question) = (Arc::clone(self), question.clone());
            tokio::spawn(async move { server.try_out(&question).await });
        }
    }

    /// The same for a server that is asked anyway.
    pub(super) fn look_after_if_down(self: &Arc<Self>, question: &Question) {
        if self.is_down() {
            self.look_after(question);
        }
    }

    async fn try_out(&self, question: &Question) {
        let asked = Instant::now();
        let (budget, counters) = (Budget::new(), Counters::default());
        let answer = timeout(TRIAL, self.converse(question, asked + TRIAL, &budget, &counters)).await;
        match answer {
            Ok(Ok(reply)) if !is_error(&reply) => self.works(Some(asked)),
            // It is there; whether it knows this name is another question.
            Ok(Ok(reply)) if rcode(&reply) != super::message::REFUSED => self.works(None),
            Ok(Ok(_) | Err(_)) | Err(_) => self.failed(question),
        }
        self.trial.store(false, Ordering::Relaxed);
    }

    /// One question and its answer, as the server's transport has it. The first datagram is paid for.
    pub(super) async fn converse(
        &self,
        question: &Question,
        deadline: Instant,
        budget: &Budget,
        counters: &Counters,
    ) -> Result<Vec<u8>, Failure> {
        if let Some(stream) = &self.stream {
            // Large, as everything that speaks TLS: kept out of the thousands that only ever wait for a datagram.
            return Box::pin(stream.exchange(question, deadline)).await;
        }
        let first = self.over_udp(question, true).await;
        let complaint = match &first {
            // A server from before EDNS (RFC 6891 §6.2.2).
            Ok(reply) => matches!(rcode(reply), FORMERR | NOTIMP) && has_no_records(reply),
            Err(failure) => matches!(failure, Failure::Bare),
        };
        let reply = if complaint {
            budget.spend()?;
            self.over_udp(question, false).await
        } else {
            first
        };
        let confirm = match reply {
            Ok(reply) if is_truncated(&reply) => false,
            Err(Failure::Case) => true,
            Ok(_) | Err(_) => return reply,
        };
        // Truncated (RFC 7766 §5), or in doubt.
        budget.spend()?;
        counters.add(Counter::UpstreamTcp);
        let reply = Box::pin(over_tcp(self.upstream.addr, question, deadline)).await;
        if confirm && reply.is_ok() {
            self.case_strikes.fetch_add(1, Ordering::Relaxed);
        }
        reply
    }

    async fn over_udp(&self, question: &Question, edns: bool) -> Result<Vec<u8>, Failure> {
        let plain = Query::new(question, edns);
        let mut sent = plain.clone();
        let mixed = self.case_strikes.load(Ordering::Relaxed) < CASE_STRIKES;
        if mixed {
            sent.mix_case();
        }
        let mut reply = self.ports.exchange(sent).await?;
        if mixed {
            self.case_strikes.store(0, Ordering::Relaxed);
        }
        plain.restore_case(&mut reply);
        Ok(reply)
    }

    fn millis(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }
}
