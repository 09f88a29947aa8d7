//! One worker's hand on the maps: rules in, what was seen out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::index::{Keys, Line};
use super::layout::{Notices, Record};
use super::maps::Mapped;
use crate::nat64::mirror::{Mirror, Rule, Seen};
use crate::nat64::witness::FlowWitness;
use crate::time::Instant;

/// A slot that was given back rests for so long: a program that found it before has long ended then.
const GRACE: Duration = Duration::from_millis(250);

/// What one worker uses. It makes records in slots of its own, and handles any record that is given to it.
pub struct Worker {
    number: u16,
    keys: Arc<Keys<Mapped<Line>>>,
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
        keys: Arc<Keys<Mapped<Line>>>,
        records: Arc<Mapped<Record>>,
        notices: Arc<Mapped<Notices>>,
        free: Vec<u32>,
    ) -> Self {
        let mut own = Vec::with_capacity(records.len());
        own.extend(free);
        let resting = VecDeque::with_capacity(records.len());
        Self { number, keys, records, notices, free: own, resting }
    }

    /// What has been used before, if it has rested: few flows shall touch little memory.
    fn slot(&mut self, now: Instant) -> Option<u32> {
        if self.resting.front().is_some_and(|(from, _)| *from <= now) {
            return self.resting.pop_front().map(|(_, slot)| slot);
        }
        self.free.pop()
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
                self.keys.add(slot, &keys, &self.records)
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
        self.keys.forget(handle, record);
        record.release();
        let seen = record.seen();
        self.resting.push_back((now + GRACE, handle));
        Some(seen)
    }
}
