//! How the questions of each organisation ended, in few classes and without names: who asked for what is nobody's
//! business unless the operator says so ([`Names`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::outcome::{Class, Outcome};
use super::settings::Scope;

/// Counters of one thread: it alone counts, everybody may read.
#[derive(Debug)]
pub struct Tally {
    /// By unit, in the order of the settings; the last row is clients outside all units.
    units: Vec<[AtomicU64; Class::ALL.len()]>,
}

/// What was counted for one unit.
pub type Row = [u64; Class::ALL.len()];

impl Tally {
    /// All zero, for so many units.
    pub fn new(units: usize) -> Self {
        Self { units: (0..=units).map(|_| Default::default()).collect() }
    }

    /// Counts one question. Without a scope, or with a unit that came later, it counts as outside all units.
    pub fn count(&self, scope: Option<Scope>, outcome: Outcome) {
        let outside = self.units.len().saturating_sub(1);
        let unit = scope.and_then(|scope| scope.unit).map_or(outside, |unit| usize::from(unit).min(outside));
        let row = self.units.get(unit);
        if let Some(cell) = row.and_then(|row| row.get(outcome.class() as usize)) {
            // One writer: no need to lock the bus.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// For how many units there is room.
    pub fn units(&self) -> usize {
        self.units.len().saturating_sub(1)
    }

    /// What was counted so far: the units, then the clients outside all of them.
    pub fn read(&self) -> Vec<Row> {
        self.units.iter().map(|row| row.each_ref().map(|cell| cell.load(Ordering::Relaxed))).collect()
    }
}

/// Adds up the rows of several threads.
pub fn sum(tallies: impl IntoIterator<Item = Vec<Row>>) -> Vec<Row> {
    let mut total: Vec<Row> = Vec::new();
    for rows in tallies {
        total.resize(total.len().max(rows.len()), Row::default());
        for (sum, row) in total.iter_mut().zip(rows) {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum = sum.wrapping_add(value);
            }
        }
    }
    total
}

/// The names that are asked most in one class, in bounded memory: exists only where the operator switched it on.
///
/// A name that is not there takes the place of the one with the fewest questions and inherits its count, so a name
/// with more than one in `capacity` of all questions is always there (Metwally's space saving).
#[derive(Clone, Debug)]
pub struct Names {
    counts: HashMap<(Class, Box<[u8]>), u64>,
    capacity: usize,
}

impl Names {
    /// Room for so many names.
    pub fn new(capacity: usize) -> Self {
        Self { counts: HashMap::with_capacity(capacity), capacity: capacity.max(1) }
    }

    /// Counts a name, given in wire form.
    pub fn count(&mut self, class: Class, name: &[u8]) {
        self.add(class, name, 1);
    }

    /// Counts a name so many times.
    pub fn add(&mut self, class: Class, name: &[u8], times: u64) {
        let key = (class, name.to_ascii_lowercase().into_boxed_slice());
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_add(times);
            return;
        }
        let mut inherited = 0;
        if self.counts.len() >= self.capacity
            && let Some(least) =
                self.counts.iter().min_by_key(|(_, count)| **count).map(|(key, _)| key.clone())
        {
            inherited = self.counts.remove(&least).unwrap_or(0);
        }
        self.counts.insert(key, inherited.saturating_add(times));
    }

    /// Class, name in wire form and number of questions, the most frequent first.
    pub fn top(&self) -> Vec<(Class, &[u8], u64)> {
        let mut top: Vec<_> = self.counts.iter().map(|((class, name), n)| (*class, &**name, *n)).collect();
        top.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.1.cmp(b.1)));
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns64::{Meta, Settings, Transport};

    #[test]
    fn every_question_counts_once_for_its_unit() {
        let settings = Settings {
            clients: ["::/0".parse().unwrap()].into_iter().collect(),
            units: [("2001:db8:1::/48".parse().unwrap(), 0), ("2001:db8:2::/48".parse().unwrap(), 1)]
                .into_iter()
                .collect(),
            ..Settings::default()
        };
        let scope = |client: &str| {
            settings.scope(&Meta { client: client.parse().unwrap(), transport: Transport::Udp })
        };
        let tally = Tally::new(2);
        for outcome in Outcome::ALL {
            tally.count(scope("2001:db8:1::1"), *outcome);
        }
        tally.count(scope("2001:db8:2::1"), Outcome::Synthesised);
        tally.count(scope("2001:db8:3::1"), Outcome::ServFail);
        tally.count(None, Outcome::NotAllowed);
        let rows = tally.read();
        assert_eq!(
            rows.iter().map(|row| row.iter().sum::<u64>()).collect::<Vec<_>>(),
            [Outcome::ALL.len() as u64, 1, 2]
        );
        assert_eq!(rows[1][Class::Synthesised as usize], 1);
        assert_eq!(rows[2][Class::Failed as usize], 1);
        let doubled = sum([tally.read(), tally.read()]);
        assert_eq!(doubled[1][Class::Synthesised as usize], 2);
    }

    #[test]
    fn frequent_names_survive_a_stream_of_new_ones() {
        let mut names = Names::new(8);
        for i in 0..1000u32 {
            names.count(Class::Synthesised, b"\x03WWW\x00");
            names.count(Class::Failed, &i.to_be_bytes());
        }
        let top = names.top();
        assert_eq!((top.len(), top[0].0, top[0].1), (8, Class::Synthesised, &b"\x03www\x00"[..]));
        assert!(top[0].2 >= 1000);
    }
}
