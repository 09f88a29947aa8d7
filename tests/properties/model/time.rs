//! What time and a reload do to the tables of the model.

use super::*;

impl Model {
    /// It is later.
    pub fn advance(&mut self, to: Instant) -> Outcome {
        self.now = to;
        let mut outcome = Outcome::default();
        // Granted: a SYN does not go before those of its worker that came earlier, even if a reload gives it less time.
        let (mut over, mut stay): (Vec<WaitingSyn>, Vec<WaitingSyn>) = (Vec::new(), Vec::new());
        for syn in self.waiting.drain(..) {
            let waits = syn.until > to || stay.iter().any(|other| other.worker == syn.worker);
            if waits { &mut stay } else { &mut over }.push(syn);
        }
        self.waiting = stay;
        for syn in over {
            outcome.drops.push("syn_unanswered");
            // Granted: a worker that does not own the port any more tells nobody.
            let tells = self.settings.filtering.hold_syn == HoldSyn::Tell && self.is_pool(syn.t.ip());
            if tells && self.worker_at(syn.t) == syn.worker {
                outcome.out.extend(No("", Some((3, 3))).outcome(&syn.packet).out);
            }
        }
        for s in self.sessions.iter_mut().filter(|s| s.end <= to && s.state == State::Established) {
            // Both times are over when nobody has looked for that long.
            let trans = s.end + self.settings.timers.tcp_trans_close;
            if trans > to {
                let from = SocketAddr::new(y(s.peer.ip()), s.peer.port());
                outcome.out.push(numbered(tcp(from, s.client, ACK, b""), 0, 0));
                (s.state, s.end) = (State::Trans, trans);
            }
        }
        self.end_sessions(|s| s.end <= to);
        self.tidy();
        outcome
    }

    /// The settings change while the gateway runs.
    pub fn change(&mut self, change: &Change) {
        match change.clone() {
            Change::Units(units) => {
                self.settings.units = units;
                let units = self.settings.units.clone();
                self.end_sessions(|s| !serves(&units, s.client.ip()));
            }
            Change::Allow(allow) => {
                self.settings.allow = allow;
                self.end_forbidden();
            }
            Change::Pool4(ranges) => {
                let old: Vec<IpAddr> =
                    self.offered().map(|(addr, _)| addr).chain(self.draining.clone()).collect();
                self.settings.pool4.ranges = ranges;
                let used = |addr: &IpAddr| self.blocks.iter().any(|b| b.addr == *addr);
                self.draining = old.into_iter().filter(|a| !self.is_listed(*a) && used(a)).collect();
                let listed: Vec<_> = self.last.keys().copied().filter(|(a, _)| self.is_pool(*a)).collect();
                self.last.retain(|key, _| listed.contains(key));
                self.end_forbidden();
            }
            Change::Filtering(filtering) => self.settings.filtering = filtering,
            Change::Timers(timers) => self.settings.timers = timers,
            Change::Ports(ports) => self.settings.ports = ports,
            Change::Quotas(quotas) => self.settings.quotas = quotas,
            Change::Static(entries) => {
                let old = std::mem::replace(&mut self.settings.static_bib, entries.clone());
                for gone in old.iter().filter(|e| !entries.contains(e)).map(static_binding) {
                    self.bib.retain(|b| (b.protocol, b.t) != (gone.protocol, gone.t));
                    self.end_sessions(|s| (s.protocol, s.t) == (gone.protocol, gone.t));
                }
                for new in entries.iter().filter(|e| !old.contains(e)).map(static_binding) {
                    // What the client's port had gives way.
                    self.end_sessions(|s| (s.protocol, s.client) == (new.protocol, new.client));
                    self.bib.push(new);
                }
            }
        }
        self.tidy();
    }

    /// Sessions with peers that may not be called any more end.
    pub(super) fn end_forbidden(&mut self) {
        let peers: Vec<IpAddr> =
            self.sessions.iter().map(|s| s.peer.ip()).filter(|p| !self.may_call(*p)).collect();
        self.end_sessions(|s| peers.contains(&s.peer.ip()));
    }
}
