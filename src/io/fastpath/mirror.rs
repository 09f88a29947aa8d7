//! One worker's hand on the maps: rules in, what was seen out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{HashMap, IterableMap, Map, MapData, MapError};

use super::layout::{Key4, Key6, Notices, Record};
use super::maps::Mapped;
use crate::nat64::mirror::{Mirror, Rule, Seen};
use crate::nat64::witness::FlowWitness;
use crate::time::Instant;

/// A slot that was given back rests for so long: a program that found it before has long ended then.
const GRACE: Duration = Duration::from_millis(250);
const NOEXIST: u64 = 1;

/// The two maps from keys to slots.
pub(super) struct Keys {
    flows6: HashMap<MapData, Key6, u32>,
    flows4: HashMap<MapData, Key4, u32>,
}

impl Keys {
    /// Fails when the maps have keys of another size.
    pub(super) fn new(flows6: MapData, flows4: MapData) -> Result<Self, MapError> {
        let (flows6, flows4) = (Map::HashMap(flows6).try_into()?, Map::HashMap(flows4).try_into()?);
        Ok(Self { flows6, flows4 })
    }

    /// The same maps, for another thread.
    pub(super) fn again(&self) -> Result<Self, MapError> {
        let copy = |fd: BorrowedFd<'_>| -> Result<MapData, MapError> {
            let fd = fd.try_clone_to_owned().map_err(MapError::IoError)?;
            MapData::from_fd(fd)
        };
        Self::new(copy(self.flows6.map().fd().as_fd())?, copy(self.flows4.map().fd().as_fd())?)
    }

    /// Ends what a process left half done when it died, and says which slots are free.
    pub(super) fn tidy(&mut self, records: &[Record]) -> Vec<u32> {
        let mut free = Vec::new();
        for (slot, record) in records.iter().enumerate().rev() {
            if record.is_live() {
                continue;
            }
            if !record.is_free() && !self.forget(record) {
                continue;
            }
            record.release();
            free.push(slot as u32);
        }
        free
    }

    /// Makes a record to be found; both keys or none.
    fn add(&mut self, slot: u32, (key6, key4): &(Key6, Key4)) -> bool {
        if self.flows4.insert(key4, slot, NOEXIST).is_err() {
            return false;
        }
        if self.flows6.insert(key6, slot, NOEXIST).is_err() {
            let _ = self.flows4.remove(key4);
            return false;
        }
        true
    }

    /// Makes the record in `slot` not to be found any more; whether the kernel agreed.
    pub(super) fn forget(&mut self, record: &Record) -> bool {
        let (key6, key4) = record.keys();
        let gone6 = is_gone(self.flows6.remove(&key6));
        let gone4 = is_gone(self.flows4.remove(&key4));
        gone6 && gone4
    }
}

fn is_gone(removed: Result<(), MapError>) -> bool {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound) => true,
        Err(MapError::SyscallError(error)) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        Err(_) => false,
    }
}

/// What one worker uses. It makes records in slots of its own, and handles any record that is given to it.
pub struct Worker {
    number: u16,
    keys: Keys,
    records: Arc<Mapped<Record>>,
    notices: Arc<Mapped<Notices>>,
    free: Vec<u32>,
    /// Slots that were given back, with the time from which they may be used.
    resting: VecDeque<(Instant, u32)>,
}

impl Worker {
    /// Works with the slots `free`. Room for all slots is reserved at once; nothing grows later.
    pub(super) fn new(
        number: u16,
        keys: Keys,
        records: Arc<Mapped<Record>>,
        notices: Arc<Mapped<Notices>>,
        free: Vec<u32>,
    ) -> Self {
        let mut own = Vec::with_capacity(records.len());
        own.extend(free);
        let resting = VecDeque::with_capacity(records.len());
        Self { number, keys, records, notices, free: own, resting }
    }

    fn slot(&mut self, now: Instant) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let &(from, slot) = self.resting.front()?;
        (from <= now).then(|| {
            self.resting.pop_front();
            slot
        })
    }

    fn record(&self, handle: u32) -> Option<&Record> {
        self.records.get(handle as usize).filter(|record| record.is_live())
    }
}

impl Mirror for Worker {
    fn install(&mut self, now: Instant, rule: &Rule, witness: &FlowWitness, tag: u32) -> Option<u32> {
        let slot = self.slot(now)?;
        let record = self.records.get(slot as usize)?;
        let installed = match record.write(rule, witness) {
            Some(keys) => {
                record.set_owner(self.number, tag);
                self.keys.add(slot, &keys)
            }
            None => false,
        };
        if !installed {
            record.release();
            self.free.push(slot);
            return None;
        }
        record.begin();
        Some(slot)
    }

    fn adopt(&mut self, handle: u32, tag: u32) {
        if let Some(record) = self.record(handle) {
            record.set_owner(self.number, tag);
        }
    }

    fn ended(&mut self) -> Option<u32> {
        self.notices.get(usize::from(self.number))?.next()
    }

    fn seen(&self, handle: u32) -> Option<Seen> {
        self.record(handle).map(Record::seen)
    }

    fn correct(&mut self, handle: u32, witness: &FlowWitness) {
        if let Some(record) = self.record(handle) {
            record.set_witness(witness);
        }
    }

    fn remove(&mut self, now: Instant, handle: u32) -> Option<Seen> {
        let record = self.records.get(handle as usize).filter(|record| record.is_live())?;
        record.end();
        // A key that stays leads to a record that is no rule; but then the slot must never be another flow's.
        if self.keys.forget(record) {
            record.release();
            self.resting.push_back((now + GRACE, handle));
        }
        Some(record.seen())
    }
}
