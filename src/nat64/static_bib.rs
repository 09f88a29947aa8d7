//! Mappings by the operator (RFC 6146 §3.1): always there, never expired, changed by a reload.

use std::collections::HashSet;

use super::bib::{Bib, Binding};
use super::engine::Engine;
use super::settings::StaticEntry;
use super::slab::NIL;

impl Engine {
    /// Makes the bindings of those static entries whose clients this worker owns.
    pub(super) fn add_static(&mut self, entries: &[StaticEntry]) {
        let own: Vec<_> = entries.iter().filter(|e| self.owns(e)).copied().collect();
        // What the client or the port had before gives way.
        self.end_bindings(|bib| {
            let both = |e: &StaticEntry| {
                [bib.find6(e.protocol, e.src6, e.port6), bib.find4(e.protocol, e.src4, e.port4)]
            };
            own.iter().flat_map(both).flatten().collect()
        });
        for entry in own {
            let binding = Binding {
                src6: entry.src6,
                port6: entry.port6,
                port4: entry.port4,
                src4: entry.src4,
                protocol: entry.protocol,
                pool6: 0,
                sessions: 0,
                subscriber: NIL,
                lease: None,
            };
            // Has room: beside the sessions' bindings there are places for all static ones.
            let _ = self.bib.insert(binding);
        }
    }

    /// Replaces the static entries; those that stay keep their sessions.
    pub(super) fn change_static(&mut self, entries: &[StaticEntry]) {
        let old = std::mem::replace(&mut self.settings.static_bib, entries.to_vec());
        self.steering.set_static(entries);
        let (kept, new): (HashSet<_>, HashSet<_>) =
            (old.iter().copied().collect(), entries.iter().copied().collect());
        let gone: Vec<_> = old.iter().filter(|e| !new.contains(e) && self.owns(e)).copied().collect();
        self.end_bindings(|bib| gone.iter().filter_map(|e| bib.find4(e.protocol, e.src4, e.port4)).collect());
        let new: Vec<_> = entries.iter().filter(|e| !kept.contains(e)).copied().collect();
        self.add_static(&new);
    }

    fn owns(&self, entry: &StaticEntry) -> bool {
        let subscriber = self.steering.subscriber(entry.src6);
        self.steering.worker(self.steering.shard(subscriber)) == self.worker
    }

    /// Ends all sessions of the bindings in some slots, and these bindings.
    fn end_bindings(&mut self, which: impl FnOnce(&Bib) -> HashSet<u32>) {
        let slots = which(&self.bib);
        if slots.is_empty() {
            return;
        }
        self.end_sessions(|_, session| slots.contains(&session.bib));
        for slot in slots {
            // A dynamic one has gone with its last session.
            if self.bib.get(slot).is_some_and(Binding::is_static) {
                self.bib.remove(slot);
            }
        }
    }
}
