//! UDP: threads of their own, each with a socket for every address. What the front can answer is answered right there;
//! the rest goes to the runtime, which replies by itself.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::answer::{Back, Job, Shared};
use super::batch::{BATCH, Batch};
use super::counters::Counter;
use super::front::{Front, Lane, Started};
use crate::dns64::{Meta, Transport};

/// Batches that one socket may fill before the others get their turn.
const TURNS: usize = 8;

/// The running threads. They end when this is dropped.
pub(super) struct Threads {
    stop: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// One for each list of sockets.
    pub(super) fn start(sockets: Vec<Vec<UdpSocket>>, shared: &Arc<Shared>) -> io::Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let mut threads = Self { stop: Arc::new(stop), threads: Vec::new() };
        for (at, sockets) in sockets.into_iter().enumerate() {
            let lane = shared.lane(at).ok_or(io::ErrorKind::InvalidInput)?;
            let (lane, shared, stop) = (Arc::clone(lane), Arc::clone(shared), Arc::clone(&threads.stop));
            let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
            let thread = thread::Builder::new().name(format!("dns-udp-{at}"));
            threads.threads.push(thread.spawn(move || serve(&sockets, &stop, &shared, &lane))?);
        }
        Ok(threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Err(error) = self.stop.write(1) {
            tracing::error!(%error, "the DNS threads cannot be told to stop");
            return;
        }
        for thread in self.threads.drain(..) {
            // It tells its own panic.
            let _ = thread.join();
        }
    }
}

fn serve(sockets: &[Arc<UdpSocket>], stop: &EventFd, shared: &Shared, lane: &Arc<Lane>) {
    let mut front = Front::new(shared.active_handle(), Arc::clone(lane), shared.limits().cache_share());
    let mut batch = Batch::new();
    let jobs = shared.jobs();
    let mut fds: Vec<_> = sockets.iter().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
    fds.push(PollFd::new(stop.as_fd(), PollFlags::POLLIN));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "DNS over UDP ends");
                return;
            }
        }
        if fds.last().and_then(PollFd::any).unwrap_or(true) {
            return;
        }
        for (socket, fd) in sockets.iter().zip(&fds) {
            if fd.any().unwrap_or(true) {
                let hand_on = |miss, peer| {
                    // The runtime is gone: the service ends.
                    let _ = jobs.send(Job { miss, back: Back::Udp(Arc::clone(socket), peer) });
                };
                drain(socket, &mut batch, &mut front, shared, lane, hand_on);
            }
        }
    }
}

/// Reads and answers what is there, within bounds.
fn drain(
    socket: &UdpSocket,
    batch: &mut Batch,
    front: &mut Front,
    shared: &Shared,
    lane: &Lane,
    hand_on: impl Fn(Box<super::front::Miss>, super::batch::Peer),
) {
    for _ in 0..TURNS {
        let taken = match batch.receive(socket) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::debug!(%error, "receive failed");
                lane.counters.add(Counter::ReceiveFailed);
                // What is wrong may stay wrong for a while.
                thread::sleep(Duration::from_millis(10));
                return;
            }
        };
        let now = shared.now();
        front.refresh();
        for slot in batch.slots() {
            // Port 0 cannot be answered.
            if slot.peer.client.port() == 0 {
                lane.counters.add(Counter::ReceiveFailed);
                continue;
            }
            let meta = Meta { client: slot.peer.client.ip(), transport: Transport::Udp };
            match front.start(shared, slot.query, &meta, now, slot.out) {
                Started::Reply(len) => slot.reply(len),
                Started::Waiting(miss) => hand_on(miss, slot.peer),
                Started::Nothing => {}
            }
        }
        for _ in 0..batch.send(socket) {
            lane.counters.add(Counter::SendFailed);
        }
        if taken < BATCH {
            return;
        }
    }
}
