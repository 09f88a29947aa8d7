//! DNS service: listeners, upstreams and the clock around [`crate::dns64`].
//!
//! One core, [`Shared::answer`], serves every transport: bytes of a query in, bytes of the reply out. It asks the
//! upstream for AAAA and A at the same time and lets `dns64` decide. Around it: UDP sockets of our own that reply
//! from the address that was asked, TCP with hickory's framing, upstream transports of `hickory-net`.
//!
//! The daemon binds while it is still privileged, then drops its privileges and runs the service on a
//! current-thread runtime of its own:
//!
//! ```no_run
//! use std::sync::Arc;
//! use sampan::io::dns_net::{Config, Limits, ListenSettings, Shared, bind, run};
//!
//! let bound = bind(&ListenSettings { addresses: vec!["[::]:53".parse()?] })?;
//! let config = Config { upstream: vec!["[2001:db8::53]:53".parse()?], ..Config::default() };
//! let shared = Arc::new(Shared::new(config, Limits::default()));
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! runtime.block_on(run(bound, shared, stopped))?;
//! # drop(stop);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Shared::apply`] takes typed changes at run time, [`Shared::snapshot`] gives the counters.

mod answer;
mod counters;
mod listen;
mod tcp;
mod udp;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use answer::Shared;
pub use counters::Counter;
pub use listen::{BindError, Bound, ListenSettings, bind};

use crate::dns64;

/// Everything that may change while the service runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How questions are decided.
    pub dns64: dns64::Settings,
    /// The resolvers that are asked, best first.
    pub upstream: Vec<SocketAddr>,
}

/// A change that the running service accepts; it holds from the next question on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// How questions are decided.
    Dns64(dns64::Change),
    /// Replace the upstream resolvers.
    Upstream(Vec<SocketAddr>),
}

/// Bounds, fixed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Questions that wait for the upstream at the same time.
    pub in_flight: usize,
    /// The longest that a client waits for its reply.
    pub deadline: Duration,
    /// How long a silent AAAA may hold back a usable A answer, from the question on.
    pub aaaa_budget: Duration,
    /// TCP connections of all clients together.
    pub tcp_connections: usize,
    /// TCP connections of one client address.
    pub tcp_per_client: usize,
    /// A TCP connection without a query for this long is closed (RFC 7766 §6.2.3).
    pub tcp_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 512,
            // Stub resolvers wait five seconds.
            deadline: Duration::from_millis(4_500),
            aaaa_budget: Duration::from_millis(1_500),
            tcp_connections: 512,
            tcp_per_client: 16,
            tcp_idle: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown` becomes true or its sender goes away. Needs a tokio runtime with time and I/O.
pub async fn run(bound: Bound, shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) -> io::Result<()> {
    listen::raise_file_limit(shared.limits());
    let mut servers = JoinSet::new();
    let connections = tcp::Connections::default();
    for socket in bound.udp {
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        servers.spawn(udp::serve(socket, Arc::clone(&shared)));
    }
    for listener in bound.tcp {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        servers.spawn(tcp::serve(listener, Arc::clone(&shared), connections.clone()));
    }
    // An error means that the sender is gone: nobody could stop us later.
    let _ = shutdown.wait_for(|stop| *stop).await;
    servers.shutdown().await;
    Ok(())
}
