//! Records in slots that never move: room for a fixed number, set aside at start. Memory is touched when a slot is used
//! for the first time, so that large tables do not delay a start.

/// No slot.
pub const NIL: u32 = u32::MAX;

enum Slot<T> {
    Free { next: u32 },
    Used(T),
}

/// A fixed number of slots. Full is an answer, not an error.
pub struct Slab<T> {
    /// Grows up to `capacity` and never beyond: it is not moved.
    slots: Vec<Slot<T>>,
    capacity: u32,
    /// The first of those that were used before.
    free: u32,
    used: u32,
}

impl<T> Slab<T> {
    /// `capacity` empty slots, at most [`NIL`].
    pub fn new(capacity: u32) -> Self {
        Self { slots: Vec::with_capacity(capacity as usize), capacity, free: NIL, used: 0 }
    }

    /// Stores `value`, or gives it back when every slot is taken.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        let (mut at, fresh) = (self.free, self.touched());
        match self.slots.get_mut(at as usize) {
            Some(slot) => {
                if let Slot::Free { next } = *slot {
                    self.free = next;
                }
                *slot = Slot::Used(value);
            }
            None if fresh < self.capacity => {
                at = fresh;
                self.slots.push(Slot::Used(value));
            }
            None => return Err(value),
        }
        self.used += 1;
        Ok(at)
    }

    /// Takes the value out of slot `at`.
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let slot = self.slots.get_mut(at as usize)?;
        if matches!(slot, Slot::Free { .. }) {
            return None;
        }
        match std::mem::replace(slot, Slot::Free { next: self.free }) {
            Slot::Used(value) => {
                self.free = at;
                self.used -= 1;
                Some(value)
            }
            Slot::Free { .. } => None,
        }
    }

    /// The value in slot `at`.
    #[inline]
    pub fn get(&self, at: u32) -> Option<&T> {
        match self.slots.get(at as usize) {
            Some(Slot::Used(value)) => Some(value),
            Some(Slot::Free { .. }) | None => None,
        }
    }

    /// The value in slot `at`, to be changed.
    #[inline]
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        match self.slots.get_mut(at as usize) {
            Some(Slot::Used(value)) => Some(value),
            Some(Slot::Free { .. }) | None => None,
        }
    }

    /// Number of values.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.used
    }

    /// Number of slots.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All slots that were ever used are below this one.
    pub const fn touched(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Bytes of memory, once all slots have been used.
    pub const fn bytes(&self) -> usize {
        self.capacity as usize * size_of::<Slot<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_bounded() {
        let mut slab = Slab::new(2);
        let a = slab.insert('a').unwrap();
        let b = slab.insert('b').unwrap();
        assert_eq!(slab.insert('c'), Err('c'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.insert('d'), Ok(a));
        assert_eq!((slab.get(a), slab.get(b), slab.get(NIL), slab.len()), (Some(&'d'), Some(&'b'), None, 2));
        assert_eq!((slab.capacity(), slab.touched(), slab.bytes()), (2, 2, 16));
        assert_eq!(Slab::<u8>::new(0).insert(1), Err(1));
    }
}
