//! Sessions that nobody has answered yet, the oldest first, so that one can be found in a step when the table is full.
//!
//! A queue of slots with room for a quarter of the table: a byte for each session, where a list beside the table would
//! take eight. What has been answered or has ended stays in until it comes to the front; a session that finds no room is
//! counted all the same, and only cannot give way.

use std::collections::VecDeque;

/// Sessions for each place in the queue.
const SHARE: u32 = 4;
/// Fewest places.
const LEAST: u32 = 64;

/// The queue, and how many there are in all.
pub struct Unanswered {
    queue: VecDeque<u32>,
    room: usize,
    count: u32,
}

impl Unanswered {
    /// For a session table of `capacity` slots.
    pub fn new(capacity: u32) -> Self {
        let room = (capacity / SHARE).max(LEAST) as usize;
        Self { queue: VecDeque::with_capacity(room), room, count: 0 }
    }

    /// One more waits. `waits` says whether a slot still does: answered ones leave the front as new ones come.
    pub fn push(&mut self, slot: u32, waits: impl Fn(u32) -> bool) {
        self.count += 1;
        // Two for one, so that those that were answered never pile up.
        for _ in 0..2 {
            if self.queue.front().is_some_and(|slot| !waits(*slot)) {
                self.queue.pop_front();
            }
        }
        self.put_back(slot);
    }

    /// Takes the one that has waited longest, or what was there before.
    pub fn pop(&mut self) -> Option<u32> {
        self.queue.pop_front()
    }

    /// Puts one behind all others; it waits on.
    pub fn put_back(&mut self, slot: u32) {
        if self.queue.len() < self.room {
            self.queue.push_back(slot);
        }
    }

    /// One was answered or has ended.
    pub fn done(&mut self) {
        self.count -= 1;
    }

    /// How many wait.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.room * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_first_and_answered_ones_make_room() {
        let mut waiting = Unanswered::new(0);
        (0..40).for_each(|slot| waiting.push(slot, |_| true));
        assert_eq!((waiting.pop(), waiting.count()), (Some(0), 40));
        // All of these were answered: each new one takes two of them away.
        (100..120).for_each(|slot| waiting.push(slot, |slot| slot >= 100));
        assert_eq!(waiting.pop(), Some(100));
        (200..300).for_each(|slot| waiting.push(slot, |_| true));
        let all: Vec<u32> = std::iter::from_fn(|| waiting.pop()).collect();
        assert_eq!((all.len(), all[0], waiting.count()), (LEAST as usize, 101, 160));
    }
}
