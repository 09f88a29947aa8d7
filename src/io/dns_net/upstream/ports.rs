//! Questions over UDP to one server. A few connected sockets, each with a random port of the kernel's choice (so that
//! it stays out of ranges reserved for pool4), serve many questions and are soon replaced: each question has a port
//! and an ID that cannot be told from outside, at a fraction of the cost of a socket of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use rand::RngExt;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::message::{Match, Query};
use super::{Failure, lock};
use crate::io::dns_net::counters::{Counter, Counters};

/// Sockets that take new questions.
const OPEN: usize = 16;
/// Questions that one port serves.
const USES: u32 = 64;
/// How long a port takes new questions: too short for a search by ICMP side channels, which takes seconds.
const LIFE: Duration = Duration::from_secs(2);
/// The longest datagram; more than we ever ask for.
const LONGEST: usize = 65_535;

/// A datagram, or the news that nobody listens, which the system tells as an error.
const READ: Interest = Interest::READABLE.add(Interest::ERROR);

/// The sockets towards one server.
pub(super) struct Ports {
    server: SocketAddr,
    counters: Arc<Counters>,
    open: Mutex<Vec<Arc<Port>>>,
}

struct Port {
    socket: UdpSocket,
    table: Mutex<Table>,
    /// Something for the reader to notice: the port is retired, or nobody waits any more.
    notice: Notify,
}

struct Table {
    waiting: HashMap<u16, Waiting>,
    opened: Instant,
    uses: u32,
    retired: bool,
}

struct Waiting {
    query: Query,
    reply: oneshot::Sender<Received>,
}

/// What came for a question.
type Received = Result<Vec<u8>, Failure>;

impl Ports {
    pub(super) fn new(server: SocketAddr, counters: Arc<Counters>) -> Self {
        Self { server, counters, open: Mutex::default() }
    }

    /// Sends a query and waits for its answer, without end. Datagrams that are not its answer are counted and change
    /// nothing.
    pub(super) async fn exchange(&self, query: Query) -> Result<Vec<u8>, Failure> {
        let port = self.port().map_err(Failure::Io)?;
        let (entry, reply) = port.enter(query).ok_or(Failure::Busy)?;
        port.send(&entry.bytes).map_err(Failure::Io)?;
        // The sender is only dropped when the runtime ends.
        reply.await.unwrap_or(Err(Failure::Busy))
    }

    /// One of the open ports, by lot.
    fn port(&self) -> io::Result<Arc<Port>> {
        let mut open = lock(&self.open);
        let at = rand::rng().random_range(0..OPEN);
        if let Some(port) = open.get(at) {
            if port.take_use() {
                return Ok(Arc::clone(port));
            }
            open.swap_remove(at).retire();
        }
        let port = Arc::new(Port::open(self.server)?);
        port.take_use();
        tokio::spawn(read(Arc::clone(&port), Arc::clone(&self.counters)));
        open.push(Arc::clone(&port));
        Ok(port)
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        lock(&self.open).drain(..).for_each(|port| port.retire());
    }
}

impl Port {
    fn open(server: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        // The kernel only hands over what the server sends.
        socket.connect(server)?;
        let table = Table { waiting: HashMap::new(), opened: Instant::now(), uses: 0, retired: false };
        Ok(Self { socket: UdpSocket::from_std(socket)?, table: Mutex::new(table), notice: Notify::new() })
    }

    fn take_use(&self) -> bool {
        let mut table = lock(&self.table);
        let usable = table.uses < USES && table.opened.elapsed() < LIFE;
        table.uses += u32::from(usable);
        usable
    }

    fn retire(&self) {
        lock(&self.table).retired = true;
        self.notice.notify_one();
    }

    /// A place in the table under a random ID; `None` when none is found, which a port's few uses exclude.
    fn enter(self: &Arc<Self>, query: Query) -> Option<(Place, oneshot::Receiver<Received>)> {
        let mut table = lock(&self.table);
        for _ in 0..16 {
            let id = rand::rng().random();
            if let Entry::Vacant(vacant) = table.waiting.entry(id) {
                let (sender, receiver) = oneshot::channel();
                let bytes = query.with_id(id);
                vacant.insert(Waiting { query, reply: sender });
                return Some((Place { port: Arc::clone(self), id, bytes }, receiver));
            }
        }
        None
    }

    /// Sends at once: the runtime's own way would first wait to be told that a new socket can be written to.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let send = || send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT);
        // The refusal of an earlier question may be told now.
        let sent = send().or_else(|error| if error == Errno::ECONNREFUSED { send() } else { Err(error) });
        match sent {
            // A full send buffer loses the question, as the network might.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = self.socket.as_raw_fd();
        let mut receive =
            |interest| self.socket.try_io(interest, || Ok(recv(fd, buffer, MsgFlags::MSG_DONTWAIT)?));
        // One after the other: tokio forgets an event only when it is asked for alone.
        match receive(Interest::READABLE) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => receive(Interest::ERROR),
            result => result,
        }
    }

    /// Hands a datagram to whom it belongs, if anyone.
    fn deliver(&self, datagram: &[u8], counters: &Counters) {
        let Some(id) = datagram.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
        let mut table = lock(&self.table);
        let Entry::Occupied(waiting) = table.waiting.entry(id) else {
            counters.add(Counter::UpstreamStrangers);
            return;
        };
        let reply = match waiting.get().query.judge(datagram) {
            Match::Answer => Ok(datagram.to_vec()),
            Match::OtherCase => Err(Failure::Case),
            Match::Bare => Err(Failure::Bare),
            Match::Stranger => {
                counters.add(Counter::UpstreamStrangers);
                return;
            }
        };
        // Nobody may wait any more.
        let _ = waiting.remove().reply.send(reply);
    }

    /// The server's host says that nobody listens.
    fn refuse(&self) {
        for (_, waiting) in lock(&self.table).waiting.drain() {
            let _ = waiting.reply.send(Err(Failure::Refused));
        }
    }

    fn is_done(&self) -> bool {
        let table = lock(&self.table);
        table.retired && table.waiting.is_empty()
    }
}

/// A place in a port's table; leaving is dropping.
struct Place {
    port: Arc<Port>,
    id: u16,
    bytes: Vec<u8>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.port.table);
        table.waiting.remove(&self.id);
        if table.retired && table.waiting.is_empty() {
            self.port.notice.notify_one();
        }
    }
}

/// Reads a port until it is retired and nobody waits.
async fn read(port: Arc<Port>, counters: Arc<Counters>) {
    let mut buffer = vec![0; LONGEST];
    while !port.is_done() {
        tokio::select! {
            biased;
            () = port.notice.notified() => {}
            ready = port.socket.ready(READ) => {
                if ready.is_err() {
                    return;
                }
                loop {
                    match port.receive(&mut buffer) {
                        Ok(len) => port.deliver(buffer.get(..len).unwrap_or_default(), &counters),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => {
                            tracing::debug!(%error, "an upstream's port");
                            port.refuse();
                        }
                    }
                }
            }
        }
    }
}
