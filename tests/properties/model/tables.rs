//! The tables of the model: who gets which port, who gets a session and who gives way, and what comes free when.

use super::*;

impl Model {
    pub fn new(settings: Settings, workers: u16, owners: BTreeMap<IpAddr, u16>, now: Instant) -> Self {
        let mut model = Self {
            workers,
            owners,
            now,
            bib: Vec::new(),
            sessions: Vec::new(),
            waiting: Vec::new(),
            resting: Vec::new(),
            blocks: Vec::new(),
            last: BTreeMap::new(),
            draining: Vec::new(),
            faults: Vec::new(),
            tally: BTreeMap::new(),
            settings,
        };
        for entry in model.settings.static_bib.clone() {
            model.bib.push(static_binding(&entry));
        }
        model
    }

    /// §3.5.1, §3.5.2.2 (V6 SYN), §3.5.3: a mapping if there is none, and a session.
    pub(super) fn open_from_v6(
        &mut self,
        protocol: Protocol,
        client: SocketAddr,
        peer: SocketAddr,
        chosen: &impl Choices,
    ) -> Result<(), &'static str> {
        let known = self.of_client(protocol, client).cloned();
        let wish = match known {
            Some(_) => None,
            None => Some(self.wish(protocol, client)?),
        };
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let mut binding = known.unwrap_or(Binding { protocol, client, t: nowhere, is_static: false });
        self.make_room(&binding, chosen)?;
        if let Some(wish) = wish {
            let Some(t) = chosen.mapping(protocol, client) else {
                self.faults.push(format!("no mapping for {client}, though there are ports"));
                return Err("no mapping");
            };
            binding.t = t;
            self.judge(&binding, &wish);
            self.bib.push(binding.clone());
            self.count("mapping");
        }
        self.add_session(&binding, peer, Side::V6);
        Ok(())
    }

    pub(super) fn add_session(&mut self, binding: &Binding, peer: SocketAddr, from: Side) {
        let timers = &self.settings.timers;
        let (state, lifetime) = match (binding.protocol, from) {
            (Protocol::Udp, _) => (State::Active, timers.udp_of(peer.port())),
            (Protocol::Icmp, _) => (State::Active, timers.icmp),
            (Protocol::Tcp, Side::V6) => (State::V6Init, timers.tcp_trans_open),
            (Protocol::Tcp, Side::V4) => (State::V4Init, timers.tcp_trans_open),
        };
        let awaited = Some(if from == Side::V6 { Side::V4 } else { Side::V6 });
        let mut syn = [false; 2];
        syn[from as usize] = true;
        let Binding { protocol, client, t, .. } = *binding;
        let (end, worker) = (end(self.now, lifetime), self.owner(client.ip()));
        self.sessions.push(Session { protocol, client, t, peer, state, end, awaited, syn, worker });
        self.count("session");
    }

    /// §3.5.1.1, §3.5.2.3, and RFC 4787 REQ-3a, REQ-4: the best that can be had, or why there is nothing.
    pub(super) fn wish(&self, protocol: Protocol, client: SocketAddr) -> Result<Wish, &'static str> {
        let own: Vec<&Block> = self.blocks.iter().filter(|b| b.client == client.ip()).collect();
        let worker = self.owner(client.ip());
        let mut subscribers: Vec<IpAddr> = self.blocks.iter().map(|b| b.client).collect();
        subscribers.retain(|c| self.owner(*c) == worker);
        subscribers.sort_unstable();
        subscribers.dedup();
        if own.is_empty() && subscribers.len() as u32 >= self.share(self.settings.limits.subscribers) {
            return Err("table_full");
        }
        let mappings = self.bib.iter().filter(|b| b.protocol == protocol).map(|b| b.t);
        let rests = self.resting.iter().filter(|(p, ..)| *p == protocol).map(|(_, t, _)| *t);
        let taken: Vec<SocketAddr> = mappings.chain(rests).collect();
        // RFC 4787 REQ-2: all mappings of a host have one address, as long as that is in the pool.
        let usable = || own.iter().filter(|b| self.is_offered(b.addr, b.first));
        let pair = usable().next().map(|b| b.addr);
        let most = self.settings.ports.max_blocks;
        let may_grow = most == 0 || own.len() < usize::from(most);
        let levels = match protocol {
            Protocol::Udp => [(true, true), (false, true), (false, false)].as_slice(),
            Protocol::Tcp => &[(false, true), (false, false)],
            Protocol::Icmp => &[(false, false)],
        };
        for (parity, range) in levels.iter().copied() {
            let fits = |port: u16| is_alike(client.port(), port, parity, range);
            let free = |addr: IpAddr, port: u16| !taken.contains(&SocketAddr::new(addr, port)) && fits(port);
            let in_own = usable().any(|b| (0..BLOCK).any(|i| free(b.addr, b.first + i)));
            let in_new = || {
                self.offered().any(|(addr, first)| {
                    pair.is_none_or(|pair| pair == addr)
                        && (0..BLOCK).any(|i| fits(first + i))
                        && !self.blocks.iter().any(|b| (b.addr, b.first) == (addr, first))
                })
            };
            if in_own || (may_grow && in_new()) {
                return Ok(Wish { parity, range, taken, in_own, pair });
            }
        }
        Err(if may_grow { "ports_exhausted" } else { "quota_ports" })
    }

    /// Whether a new mapping is one that the client may have.
    pub(super) fn judge(&mut self, binding: &Binding, wish: &Wish) {
        let Binding { client, t, .. } = *binding;
        let first = t.port() / BLOCK * BLOCK;
        let block = self.blocks.iter().find(|b| (b.addr, b.first) == (t.ip(), first));
        let faults = [
            (!self.is_offered(t.ip(), first), "is not in the pool"),
            (wish.taken.contains(&t), "is taken or rests"),
            (!is_alike(client.port(), t.port(), wish.parity, wish.range), "is unlike the client's port"),
            (block.is_some_and(|b| b.client != client.ip()), "is in another client's block"),
            (block.is_none() && wish.in_own, "is in a new block, with room in an old one"),
            (block.is_none() && wish.pair.is_some_and(|pair| pair != t.ip()), "is of another address"),
        ];
        for (_, what) in faults.iter().filter(|(is_so, _)| *is_so) {
            self.faults.push(format!("mapping {t} of {client} {what}"));
        }
        if block.is_none() {
            self.blocks.push(Block { addr: t.ip(), first, client: client.ip(), empty_since: None });
            let worker = self.owner(client.ip());
            self.last.insert((t.ip(), first), worker);
        }
    }

    /// A place for a session of `binding`: a free one, or that of an unanswered session (RFC 6888 REQ-11).
    pub(super) fn make_room(&mut self, binding: &Binding, chosen: &impl Choices) -> Result<(), &'static str> {
        let worker = self.owner(binding.client.ip());
        let used = self.sessions.iter().filter(|s| s.worker == worker).count() as u32;
        if used < self.share(self.settings.limits.sessions) {
            return Ok(());
        }
        let may_go = |s: &&Session| {
            let others =
                self.sessions.iter().filter(|o| (o.protocol, o.client) == (s.protocol, s.client)).count() > 1;
            let stays = others || self.of_client(s.protocol, s.client).is_some_and(|b| b.is_static);
            let spared = (s.protocol, s.client) == (binding.protocol, binding.client);
            let mode = self.settings.quotas.eviction;
            let may = mode == Eviction::Sessions && stays || mode == Eviction::Mappings && (stays || !spared);
            s.worker == worker && s.awaited.is_some() && may
        };
        let Some(oldest) = self.sessions.iter().find(may_go).cloned() else { return Err("table_full") };
        let gone = self.sessions.iter().filter(may_go).find(|s| chosen.has_ended(s)).cloned();
        // Granted (docs/limits.md): the order holds only roughly once some were answered or have ended, and whoever may go
        // is not always found. How often is counted, and the campaign has limits for it.
        let Some(gone) = gone else {
            if !chosen.was_refused() {
                self.faults.push(format!("nobody gave way, but {oldest:?} may"));
            }
            self.count("evicted none");
            return Err("table_full");
        };
        let is_oldest =
            (gone.protocol, gone.client, gone.peer) == (oldest.protocol, oldest.client, oldest.peer);
        self.count(if is_oldest { "evicted the oldest" } else { "evicted another" });
        self.end_sessions(|s| (s.protocol, s.client, s.peer) == (gone.protocol, gone.client, gone.peer));
        Ok(())
    }

    pub(super) fn end_sessions(&mut self, ends: impl Fn(&Session) -> bool) {
        self.sessions.retain(|s| !ends(s));
        let sessions = &self.sessions;
        let used = |b: &Binding| sessions.iter().any(|s| (s.protocol, s.client) == (b.protocol, b.client));
        let (kept, gone) = self.bib.drain(..).partition(|b| b.is_static || used(b));
        self.bib = kept;
        for binding in gone {
            self.release(&binding);
        }
    }

    /// RFC 6888 REQ-8: a port rests, except for TCP (a) and behind address-dependent filtering (c).
    pub(super) fn release(&mut self, binding: &Binding) {
        let filter = self.settings.filtering.of(binding.protocol);
        let hold_down = self.settings.ports.hold_down;
        let rests = binding.protocol != Protocol::Tcp && filter == Filter::EndpointIndependent;
        if rests && !hold_down.is_zero() {
            self.resting.push((binding.protocol, binding.t, self.now + hold_down + LATE));
        }
    }

    /// Ports that have rested, and blocks without mappings.
    pub(super) fn tidy(&mut self) {
        let now = self.now;
        self.resting.retain(|(.., until)| *until > now);
        let (bib, resting, idle) = (&self.bib, &self.resting, self.settings.ports.block_idle);
        self.blocks.retain_mut(|block| {
            let is_in = |t: &SocketAddr| (t.ip(), t.port() / BLOCK * BLOCK) == (block.addr, block.first);
            let used =
                bib.iter().any(|b| !b.is_static && is_in(&b.t)) || resting.iter().any(|(_, t, _)| is_in(t));
            block.empty_since = if used { None } else { Some(block.empty_since.unwrap_or(now)) };
            block.empty_since.is_none_or(|since| since + idle > now)
        });
    }
}
