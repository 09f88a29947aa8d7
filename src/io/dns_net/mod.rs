//! DNS service: listeners, upstreams and the clock around [`crate::dns64`].
//!
//! A query's way: `udp` (threads of their own) or `tcp` (streams) → `front` (limit, cache, what needs no upstream) → on a
//! miss `answer`, which asks the upstream for AAAA and A at the same time and lets `dns64` decide → the reply goes out
//! and into the caches. A reply from the cache over UDP costs no lock, no allocation and no look at the runtime.
//!
//! The daemon binds while it is still privileged, then drops its privileges and runs the waiting part on a
//! current-thread runtime of its own:
//!
//! ```no_run
//! use std::sync::Arc;
//! use sampan::io::dns_net::{Config, Limits, ListenSettings, Shared, bind, run};
//!
//! let limits = Limits::default();
//! let listen = ListenSettings { addresses: vec!["[::]:53".parse()?], ..ListenSettings::default() };
//! let bound = bind(&listen, limits.udp_threads)?;
//! let upstream: std::net::SocketAddr = "[2001:db8::53]:53".parse()?;
//! let config = Config { upstream: vec![upstream.into()], ..Config::default() };
//! let shared = Arc::new(Shared::new(config, limits));
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! runtime.block_on(run(bound, shared, stopped))?;
//! # drop(stop);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Shared::apply`] takes typed changes at run time, [`Shared::snapshot`] gives the counters.

mod answer;
mod batch;
mod counters;
mod front;
mod https;
mod listen;
mod tcp;
mod tls;
mod udp;
mod upstream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use answer::{Shared, UnitRow};
pub use counters::Counter;
pub use listen::{BindError, Bound, ListenSettings, bind};
pub use tls::{Certificate, CertificateError};
pub use upstream::{Over, Trust, TrustError, Upstream};

use crate::dns64;
use tcp::Speech;

/// The usual path (RFC 8484 §4.1.1 has it in its examples).
pub const HTTPS_PATH: &str = "/dns-query";

/// What a question in flight takes with its tasks, its two questions upstream and what the allocator adds: 14 KiB were
/// measured with 2,048 of them.
const IN_FLIGHT_BYTES: usize = 16 << 10;

/// Everything that may change while the service runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How questions are decided.
    pub dns64: dns64::Settings,
    /// Names of the units that clients belong to, as the settings number them.
    pub units: Vec<String>,
    /// How many of the names that are asked most are kept; with 0 none is.
    pub top_names: usize,
    /// The resolvers that are asked, best first: group 0.
    pub upstream: Vec<Upstream>,
    /// The resolvers of the other groups, from group 1 on.
    pub groups: Vec<Vec<Upstream>>,
    /// Who vouches for resolvers that are asked over TLS or HTTPS.
    pub trust: Trust,
    /// What the TLS and HTTPS listeners show; without it they refuse every handshake.
    pub certificate: Option<Certificate>,
    /// The path of HTTPS requests; `None` is the usual one.
    pub https_path: Option<String>,
}

/// A change that the running service accepts; it holds from the next question on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// How questions are decided.
    Dns64(dns64::Change),
    /// Replace the upstream resolvers.
    Upstream(Vec<Upstream>),
    /// Replace those of the other groups.
    Groups(Vec<Vec<Upstream>>),
    /// Replace who vouches for them.
    Trust(Trust),
    /// Replace the certificate.
    Certificate(Option<Certificate>),
    /// Replace the path of HTTPS requests.
    HttpsPath(Option<String>),
    /// Replace the names of the units; for those that have the same name counting goes on. Before the settings that
    /// number them.
    Units(Vec<String>),
    /// Keep so many names, or with 0 none, and forget those that are kept.
    TopNames(usize),
}

/// Bounds, fixed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads that serve UDP, each with sockets of its own.
    pub udp_threads: usize,
    /// Bytes of all caches together, and of the questions in flight: they get a share of it, at most half.
    pub cache_bytes: usize,
    /// Questions that wait for the upstream at the same time.
    pub in_flight: usize,
    /// The longest that a client waits for its reply.
    pub deadline: Duration,
    /// How long a silent AAAA may hold back a usable A answer, from the question on.
    pub aaaa_budget: Duration,
    /// How long a client waits for something fresh while something old is at hand (RFC 8767 §5 has 1.8 s).
    pub stale_after: Duration,
    /// Connections of all clients together.
    pub tcp_connections: usize,
    /// Connections of one client address.
    pub tcp_per_client: usize,
    /// A connection without a query for this long is closed (RFC 7766 §6.2.3).
    pub tcp_idle: Duration,
    /// The longest that a TLS handshake may take.
    pub tls_handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            udp_threads: std::thread::available_parallelism().map_or(1, usize::from).min(8),
            cache_bytes: 64 << 20,
            in_flight: 2048,
            // Stub resolvers wait five seconds.
            deadline: Duration::from_millis(4_500),
            aaaa_budget: Duration::from_millis(1_500),
            stale_after: Duration::from_millis(1_800),
            tcp_connections: 512,
            tcp_per_client: 16,
            tcp_idle: Duration::from_secs(10),
            tls_handshake: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// The bytes of one cache; the streams have one, too.
    fn cache_share(&self) -> usize {
        let in_flight = self.in_flight.saturating_mul(IN_FLIGHT_BYTES).min(self.cache_bytes / 2);
        (self.cache_bytes - in_flight) / (self.udp_threads + 1)
    }
}

impl Config {
    fn https_path(&self) -> &str {
        self.https_path.as_deref().unwrap_or(HTTPS_PATH)
    }

    fn group(&self, at: usize) -> Option<&Vec<Upstream>> {
        match at.checked_sub(1) {
            None => Some(&self.upstream),
            Some(at) => self.groups.get(at),
        }
    }
}

/// Serves until `shutdown` becomes true or its sender goes away. Needs a tokio runtime with time and I/O.
pub async fn run(bound: Bound, shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) -> io::Result<()> {
    listen::raise_file_limit(shared.limits());
    let mut servers = JoinSet::new();
    servers.spawn(Arc::clone(&shared).work());
    let threads = udp::Threads::start(bound.udp, &shared)?;
    let connections = tcp::Connections::default();
    let tls = |protocol: &[u8]| tls::acceptor(shared.active_handle(), protocol).map_err(io::Error::other);
    for (listeners, speech) in [
        (bound.tcp, Speech::Tcp),
        // RFC 7858 has no protocol name; `dot` is registered for it.
        (bound.tls, Speech::Tls(tls(b"dot")?)),
        (bound.https, Speech::Https(tls(b"h2")?)),
    ] {
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            servers.spawn(tcp::serve(listener, speech.clone(), Arc::clone(&shared), connections.clone()));
        }
    }
    // An error means that the sender is gone: nobody could stop us later.
    let _ = shutdown.wait_for(|stop| *stop).await;
    drop(threads);
    servers.shutdown().await;
    Ok(())
}
