//! How packets cross from one worker to another: bounded queues of buffers, without copies or locks.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::io::steering::Notes;
use crate::io::tun::Waker;
use crate::wire::packet::PacketBuf;

/// Packets on the way to one worker at most.
const RING: usize = 1_024;
/// Spare buffers for each worker: a burst that the kernel put on the wrong queue must fit while its owner is waking up.
/// A packet that crosses leaves its buffer; another one takes its place. Memory that no packet has touched is not used.
const SPARES: usize = 512;

/// The door of one worker.
pub struct Inbox {
    packets: ArrayQueue<PacketBuf>,
    waker: Option<Arc<Waker>>,
}

/// What all workers share.
pub struct Exchange {
    inboxes: Vec<Inbox>,
    spares: ArrayQueue<PacketBuf>,
    notes: Option<Arc<Notes>>,
}

impl Exchange {
    /// One inbox for each waker; `None` is a worker that nobody needs to wake.
    pub fn new(wakers: Vec<Option<Arc<Waker>>>) -> Self {
        let spares = ArrayQueue::new((SPARES * wakers.len()).max(1));
        for _ in 0..spares.capacity() {
            // Has room: it is made for as many.
            let _ = spares.push(PacketBuf::new());
        }
        let inboxes =
            wakers.into_iter().map(|waker| Inbox { packets: ArrayQueue::new(RING), waker }).collect();
        Self { inboxes, spares, notes: None }
    }

    /// Packets that cross are noted here, so that others of their kind need not.
    pub fn with_notes(self, notes: Option<Arc<Notes>>) -> Self {
        Self { notes, ..self }
    }

    /// Sends what `packet` holds to `worker` and leaves a spare buffer in its place. False when the ring is full or
    /// there is no spare; the packet is then where it was. The worker is not woken: see [`Exchange::wake`].
    pub fn pass(&self, worker: u16, packet: &mut PacketBuf) -> bool {
        let Some(inbox) = self.inboxes.get(usize::from(worker)) else { return false };
        let Some(mut other) = self.spares.pop() else { return false };
        if let Some(notes) = &self.notes {
            notes.learn(packet.bytes(), worker);
        }
        std::mem::swap(packet, &mut other);
        match inbox.packets.push(other) {
            Ok(()) => true,
            Err(mut refused) => {
                std::mem::swap(packet, &mut refused);
                self.give_spare(refused);
                false
            }
        }
    }

    /// The next packet for `worker`.
    pub fn take(&self, worker: u16) -> Option<PacketBuf> {
        self.inboxes.get(usize::from(worker))?.packets.pop()
    }

    /// Whether nothing waits for `worker`.
    pub fn is_empty(&self, worker: u16) -> bool {
        self.inboxes.get(usize::from(worker)).is_none_or(|i| i.packets.is_empty())
    }

    /// Gives back the buffer of a packet from [`Exchange::take`].
    pub fn give_spare(&self, buffer: PacketBuf) {
        // Has room: buffers are only swapped, never made.
        let _ = self.spares.push(buffer);
    }

    /// Wakes `worker` if it sleeps.
    pub fn wake(&self, worker: u16) {
        if let Some(waker) = self.inboxes.get(usize::from(worker)).and_then(|i| i.waker.as_ref()) {
            waker.wake();
        }
    }
}
