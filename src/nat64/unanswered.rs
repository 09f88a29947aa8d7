//! Sessions that nobody has answered yet, the oldest first: a list beside the session table, so that the oldest can be
//! found in one step when the table is full.

use super::slab::NIL;

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    behind: u32,
}

const UNLINKED: Link = Link { before: NIL, behind: NIL };

/// The list, by slots of the session table.
pub struct Unanswered {
    links: Box<[Link]>,
    first: u32,
    last: u32,
    len: u32,
}

impl Unanswered {
    /// For a session table of `capacity` slots.
    pub fn new(capacity: u32) -> Self {
        Self { links: vec![UNLINKED; capacity as usize].into_boxed_slice(), first: NIL, last: NIL, len: 0 }
    }

    /// Puts a session that is not in the list at its end.
    pub fn push(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        *link = Link { before: self.last, behind: NIL };
        match self.links.get_mut(self.last as usize) {
            Some(last) => last.behind = slot,
            None => self.first = slot,
        }
        self.last = slot;
        self.len += 1;
    }

    /// Takes a session that is in the list out of it.
    pub fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let Link { before, behind } = std::mem::replace(link, UNLINKED);
        match self.links.get_mut(before as usize) {
            Some(link) => link.behind = behind,
            None => self.first = behind,
        }
        match self.links.get_mut(behind as usize) {
            Some(link) => link.before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }

    /// The one that waits longest.
    pub fn first(&self) -> Option<u32> {
        (self.first != NIL).then_some(self.first)
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.links.len() * size_of::<Link>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &mut Unanswered) -> Vec<u32> {
        let mut out = Vec::new();
        while let Some(slot) = list.first() {
            out.push(slot);
            list.remove(slot);
        }
        out
    }

    #[test]
    fn oldest_first_whoever_leaves() {
        for leaves in 0..4 {
            let mut list = Unanswered::new(4);
            (0..4).for_each(|slot| list.push(slot));
            list.remove(leaves);
            list.push(leaves);
            let mut wanted: Vec<u32> = (0..4).filter(|s| *s != leaves).collect();
            wanted.push(leaves);
            assert_eq!(list.len(), 4);
            assert_eq!(all(&mut list), wanted);
            assert_eq!((list.first(), list.len()), (None, 0));
        }
    }
}
