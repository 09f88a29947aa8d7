//! Mappings by the operator (RFC 6146 §3.1): always there, never expired, changed by a reload.

use super::bib::Binding;
use super::engine::Engine;
use super::settings::StaticEntry;
use super::slab::NIL;

impl Engine {
    /// Makes the bindings of those static entries whose clients this worker owns.
    pub(super) fn add_static(&mut self, entries: &[StaticEntry]) {
        for entry in entries {
            if self.steering.worker(self.steering.shard(self.steering.subscriber(entry.src6))) != self.worker
            {
                continue;
            }
            // What the client or the port had before gives way.
            for slot in [
                self.bib.find6(entry.protocol, entry.src6, entry.port6),
                self.bib.find4(entry.protocol, entry.src4, entry.port4),
            ] {
                self.end_binding(slot);
            }
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
        for gone in old.iter().filter(|entry| !entries.contains(entry)) {
            self.end_binding(
                self.bib.find6(gone.protocol, gone.src6, gone.port6).filter(|slot| {
                    self.bib.get(*slot).is_some_and(|b| b.is_static() && b.port4 == gone.port4)
                }),
            );
        }
        let new: Vec<_> = entries.iter().filter(|entry| !old.contains(entry)).copied().collect();
        self.add_static(&new);
    }

    /// Ends all sessions of a binding, and the binding.
    fn end_binding(&mut self, slot: Option<u32>) {
        let Some(slot) = slot else { return };
        self.end_sessions(|_, session| session.bib == slot);
        // A dynamic one has gone with its last session.
        if self.bib.get(slot).is_some_and(Binding::is_static) {
            self.bib.remove(slot);
        }
    }
}
