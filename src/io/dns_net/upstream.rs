//! Asking the upstream resolvers: `hickory-net` carries the messages, who is asked when is decided here.
//!
//! The name-server pool of hickory is not used: it lives in `hickory-resolver`, and it turns every negative or
//! failed answer into an error that has lost the message. DNS64 needs the message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_net::NetError;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::{DnsHandle, DnsRequestSender, FirstAnswer};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, Query, ResponseCode};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::counters::{Counter, Counters};
use crate::dns64::{Answer, Question, UDP_PAYLOAD};

/// A server that is silent for so long is joined by the next one.
const STAGGER: Duration = Duration::from_millis(700);
/// A datagram without answer is repeated after so long.
const RETRANSMIT: Duration = Duration::from_millis(800);
/// How often a datagram is sent at most.
const SENDS: u8 = 3;
/// The longest rest of a server that does not answer.
const MAX_REST: Duration = Duration::from_secs(32);

/// The upstream resolvers, best first.
pub(super) struct Upstreams {
    servers: Vec<Arc<Server>>,
    origin: Instant,
}

struct Server {
    addr: SocketAddr,
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds after the origin until which others go first.
    rests_until: AtomicU64,
}

impl Upstreams {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let server =
            |&addr| Arc::new(Server { addr, failures: AtomicU32::new(0), rests_until: AtomicU64::new(0) });
        Self { servers: servers.iter().map(server).collect(), origin: Instant::now() }
    }

    /// Asks until one server gives a usable answer; every exchange ends by the deadline, so this does too. An error
    /// RCODE is kept while the next server is asked: it may know better.
    pub(super) async fn ask(&self, question: Question, deadline: Instant, counters: &Counters) -> Answer {
        let mut waiting = self.order().into_iter();
        let mut running = FuturesUnordered::new();
        let mut pending: Vec<(Arc<Server>, Instant)> = Vec::new();
        let mut error = None;
        let mut next_start = Instant::now();
        loop {
            if running.is_empty() || Instant::now() >= next_start {
                if let Some(server) = waiting.next() {
                    counters.add(Counter::UpstreamAsked);
                    pending.push((Arc::clone(&server), Instant::now()));
                    running.push(exchange(server, &question, deadline, counters));
                    next_start = Instant::now() + STAGGER;
                } else if running.is_empty() {
                    break;
                }
            }
            tokio::select! {
                Some((server, result)) = running.next() => {
                    pending.retain(|(other, _)| !Arc::ptr_eq(other, &server));
                    match result {
                        Ok(reply) => {
                            server.works();
                            if !is_error(&reply) {
                                self.overtaken(&pending);
                                return Answer::Reply(reply.into_buffer());
                            }
                            error.get_or_insert(reply);
                        }
                        Err(failure) => {
                            tracing::debug!(upstream = %server.addr, %failure, "no answer");
                            counters.add(Counter::UpstreamFailed);
                            server.failed(millis(self.origin));
                        }
                    }
                    next_start = Instant::now();
                }
                () = sleep_until(next_start), if waiting.len() > 0 => {}
            }
        }
        error.map_or(Answer::Failed, |reply| Answer::Reply(reply.into_buffer()))
    }

    /// Another server answered first although these had a head start: let them rest.
    fn overtaken(&self, pending: &[(Arc<Server>, Instant)]) {
        for (server, _) in pending.iter().filter(|(_, started)| started.elapsed() >= STAGGER) {
            server.failed(millis(self.origin));
        }
    }

    /// Servers that answer before servers that rest, each in the operator's order.
    fn order(&self) -> Vec<Arc<Server>> {
        let now = millis(self.origin);
        let mut servers = self.servers.clone();
        servers.sort_by_key(|server| server.rests_until.load(Ordering::Relaxed) > now);
        servers
    }
}

impl Server {
    fn works(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.rests_until.store(0, Ordering::Relaxed);
    }

    /// One failure, however many questions noticed it.
    fn failed(&self, now: u64) {
        if now < self.rests_until.load(Ordering::Relaxed) {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(5);
        let rest = Duration::from_secs(1 << failures).min(MAX_REST);
        self.rests_until.store(now + rest.as_millis() as u64, Ordering::Relaxed);
    }
}

async fn exchange(
    server: Arc<Server>,
    question: &Question,
    deadline: Instant,
    counters: &Counters,
) -> (Arc<Server>, Result<DnsResponse, NetError>) {
    let result = match timeout_at(deadline, converse(server.addr, question, deadline, counters)).await {
        Ok(result) => result,
        Err(_) => Err(NetError::Timeout),
    };
    (server, result)
}

async fn converse(
    addr: SocketAddr,
    question: &Question,
    deadline: Instant,
    counters: &Counters,
) -> Result<DnsResponse, NetError> {
    let reply = over_udp(addr, request(question, true), deadline).await?;
    let no_edns = matches!(reply.response_code, ResponseCode::FormErr | ResponseCode::NotImp);
    let reply = if no_edns && reply.edns.is_none() {
        // A server from before EDNS (RFC 6891 §6.2.2).
        over_udp(addr, request(question, false), deadline).await?
    } else {
        reply
    };
    if !reply.truncation {
        return Ok(reply);
    }
    counters.add(Counter::UpstreamTcp);
    over_tcp(addr, request(question, true), deadline).await
}

/// hickory takes a fresh socket per send and checks source, ID and question of what comes back (RFC 5452 §9). The
/// port is the kernel's choice, so that it stays out of ranges reserved for pool4.
async fn over_udp(addr: SocketAddr, request: DnsRequest, deadline: Instant) -> Result<DnsResponse, NetError> {
    let mut stream = UdpClientStream::builder(addr, TokioRuntimeProvider::new())
        .with_timeout(Some(deadline.saturating_duration_since(Instant::now())))
        .with_max_retries(SENDS)
        .with_retry_interval_floor(RETRANSMIT.as_millis() as u64)
        .with_os_port_selection(true)
        .build();
    stream.send_message(request).first_answer().await
}

async fn over_tcp(addr: SocketAddr, request: DnsRequest, deadline: Instant) -> Result<DnsResponse, NetError> {
    // The provider owns the task that drives the connection: it has to live until the answer is there.
    let provider = TokioRuntimeProvider::new();
    let left = deadline.saturating_duration_since(Instant::now());
    let connection = TcpClientStream::exchange(addr, None, left, None, provider.clone()).await?;
    connection.send(request).first_answer().await
}

fn request(question: &Question, edns: bool) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.authentic_data = question.authentic_data;
    let mut query = Query::query(question.name.clone(), question.record_type);
    query.query_class = question.class;
    message.queries.push(query);
    if edns {
        let mut opt = Edns::new();
        opt.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(question.dnssec_ok);
        message.edns = Some(opt);
    }
    DnsRequest::new(message, DnsRequestOptions::default())
}

fn is_error(reply: &DnsResponse) -> bool {
    !matches!(reply.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn millis(origin: Instant) -> u64 {
    origin.elapsed().as_millis() as u64
}
