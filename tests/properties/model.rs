//! A slow, obvious model of RFC 6146: lists that are searched from end to end, and rules in the order of the text. It
//! shares nothing with the engine but the types of its settings.
//!
//! Where the RFCs leave a choice the model does not guess it: it looks which one was made ([`Choices`]) and judges it.
//! What it grants the engine beyond the RFCs is said where it does so, with the word "Granted".

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sampan::nat64::policy::Eviction;
use sampan::nat64::settings::{Change, Filter, HoldSyn, Protocol, Settings, StaticEntry, StrayTcp};
use sampan::time::Instant;

use crate::support::packet::{ACK, FIN, ISN, RST, SYN, numbered};
use crate::support::{L4, Packet, error, tcp};

/// Granted: lifetimes end on the next quarter second of the clock, never before they are over.
const TICK: Duration = Duration::from_millis(250);
/// Granted: a port rests a quarter second longer than it must.
const LATE: Duration = Duration::from_millis(250);
/// Of the links on both sides.
const MTU: usize = 1500;
const BLOCK: u16 = 64;
/// Pref64::/n, n = 96.
const PREFIX: u128 = 0x2001_0db8_0064 << 80;

/// What the gateway is free to choose.
pub trait Choices {
    /// The mapping that a client's port has now.
    fn mapping(&self, protocol: Protocol, client: SocketAddr) -> Option<SocketAddr>;
    /// Whether a session is still there.
    fn lives(&self, session: &Session) -> bool;
    /// Whether the packet was refused because the table is full.
    fn was_refused(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    V6,
    V4,
}

/// §3.5.2.2; UDP and ICMP know one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    V4Init,
    V6Init,
    Established,
    V4FinRcv,
    V6FinRcv,
    BothFinRcv,
    Trans,
}

/// §3.1: (X',x) <--> (T,t).
#[derive(Clone, Debug)]
pub struct Binding {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub t: SocketAddr,
    pub is_static: bool,
}

/// §3.2: (X',x),(Y',z) <--> (T,t),(Z,z). Of ICMP the port of the peer is 0.
#[derive(Clone, Debug)]
pub struct Session {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub t: SocketAddr,
    pub peer: SocketAddr,
    pub state: State,
    pub end: Instant,
    /// Who has not sent anything yet.
    pub awaited: Option<Side>,
    /// Whose SYN was seen.
    syn: [bool; 2],
    worker: u16,
}

/// A SYN from IPv4 that waits (§3.5.2.2, CLOSED).
#[derive(Clone, Debug)]
pub struct WaitingSyn {
    pub t: SocketAddr,
    pub peer: SocketAddr,
    pub until: Instant,
    pub worker: u16,
    packet: Packet,
}

/// Ports that only one client gets mappings from.
#[derive(Clone, Debug)]
struct Block {
    addr: IpAddr,
    first: u16,
    client: IpAddr,
    empty_since: Option<Instant>,
}

/// What comes of a packet, or of time.
#[derive(Debug, Default)]
pub struct Outcome {
    pub out: Vec<Packet>,
    pub drops: Vec<&'static str>,
}

/// A packet is dropped, and its sender may be told by an ICMP error of this type and code.
#[derive(Clone, Copy)]
struct No(&'static str, Option<(u8, u8)>);

/// What a new mapping must be like: a port of the right parity, of the right range (below 1024 or not); and what the
/// client had and what was taken when it was chosen.
struct Wish {
    parity: bool,
    range: bool,
    taken: Vec<SocketAddr>,
    in_own: bool,
    pair: Option<IpAddr>,
}

pub struct Model {
    settings: Settings,
    workers: u16,
    /// The worker of each client.
    owners: BTreeMap<IpAddr, u16>,
    pub now: Instant,
    pub bib: Vec<Binding>,
    /// The oldest first.
    pub sessions: Vec<Session>,
    pub waiting: Vec<WaitingSyn>,
    resting: Vec<(Protocol, SocketAddr, Instant)>,
    blocks: Vec<Block>,
    /// Which worker had a block last.
    last: BTreeMap<(IpAddr, u16), u16>,
    /// Addresses that left the pool while blocks of them were in use.
    draining: Vec<IpAddr>,
    /// What the engine did that it must not do.
    pub faults: Vec<String>,
    /// How often what was met with.
    pub tally: BTreeMap<&'static str, u64>,
}

/// Packets.
impl Model {
    /// A packet from IPv6.
    pub fn up(&mut self, packet: &Packet, chosen: &impl Choices) -> Outcome {
        let outcome = self.try_up(packet, chosen).unwrap_or_else(|no| no.outcome(packet));
        self.tidy();
        outcome
    }

    /// A packet from IPv4.
    pub fn down(&mut self, packet: &Packet, chosen: &impl Choices) -> Outcome {
        let outcome = self.try_down(packet, chosen).unwrap_or_else(|no| no.outcome(packet));
        self.tidy();
        outcome
    }

    fn try_up(&mut self, packet: &Packet, chosen: &impl Choices) -> Result<Outcome, No> {
        let (protocol, client) = (protocol(packet), packet.source());
        let peer = SocketAddr::new(z(packet.dst), peer_port(packet, packet.destination()));
        let turns = self.is_pool(peer.ip());
        let too_big = !turns && packet.bytes().len() - 20 > MTU;
        let mut outcome = Outcome::default();
        let known =
            self.sessions.iter().position(|s| (s.protocol, s.client, s.peer) == (protocol, client, peer));
        let t = match known {
            Some(_) if too_big => return Err(No("packet_too_big", Some((2, 0)))),
            Some(at) => {
                self.heard(at, Side::V6, packet);
                self.sessions[at].t
            }
            None if !self.serves(client.ip()) => return Err(No("source_not_served", Some((1, 1)))),
            None if !self.may_call(peer.ip()) => return Err(No("not_allowed", Some((1, 1)))),
            // §3.5.2.2, CLOSED: "any other packet", with a BIB entry, as policy allows.
            None if protocol == Protocol::Tcp && !opens(packet) => {
                let binding = self.of_client(protocol, client).filter(|b| self.lets_strays_pass(b));
                binding.ok_or(No("no_session", None))?.t
            }
            None if too_big => return Err(No("packet_too_big", Some((2, 0)))),
            None => {
                self.open_from_v6(protocol, client, peer, chosen).map_err(|why| No(why, Some((1, 3))))?;
                outcome.drops.extend(self.meet());
                self.sessions.last().expect("just made").t
            }
        };
        if too_big {
            return Err(No("packet_too_big", Some((2, 0))));
        }
        let mut out = forwarded(packet, t, peer);
        if turns {
            // §3.8: as if it came from IPv4. It has gone one hop altogether.
            out.hops += 1;
            let half = self.try_down(&out, chosen).unwrap_or_else(|no| no.outcome(&out));
            self.count("hairpin");
            outcome.drops.extend(half.drops);
            return Ok(Outcome { drops: outcome.drops, ..half });
        }
        outcome.out.push(out);
        Ok(outcome)
    }

    fn try_down(&mut self, packet: &Packet, chosen: &impl Choices) -> Result<Outcome, No> {
        let (protocol, t) = (protocol(packet), packet.destination());
        let peer = SocketAddr::new(packet.src, peer_port(packet, packet.source()));
        if !self.is_pool(t.ip()) {
            return Err(No("not_pool4", None));
        }
        let too_big = packet.bytes().len() + 20 > MTU;
        let mut drops = Vec::new();
        let known = self.sessions.iter().position(|s| (s.protocol, s.t, s.peer) == (protocol, t, peer));
        let client = match known {
            Some(_) if too_big => return Err(No("packet_too_big", Some((3, 4)))),
            Some(at) => {
                self.heard(at, Side::V4, packet);
                self.sessions[at].client
            }
            None => {
                let filtering = self.settings.filtering;
                let binding = self.bib.iter().find(|b| b.protocol == protocol && b.t == t).cloned();
                // §3.5.1, §3.5.3: a session of the same mapping with that address, whatever the port.
                let permitted = filtering.of(protocol) == Filter::EndpointIndependent
                    || self
                        .sessions
                        .iter()
                        .any(|s| (s.protocol, s.t, s.peer.ip()) == (protocol, t, peer.ip()));
                let opens = opens(packet);
                if protocol == Protocol::Tcp && opens {
                    if filtering.drop_external_tcp {
                        return Err(No("filtered", None));
                    }
                    if binding.is_none() || !permitted {
                        return self.wait(packet, t, peer, binding.is_none());
                    }
                }
                let Some(binding) = binding else {
                    let told = match protocol {
                        _ if !filtering.tell_unmapped => None,
                        Protocol::Tcp => None,
                        Protocol::Udp => Some((3, 3)),
                        Protocol::Icmp => Some((3, 1)),
                    };
                    return Err(No("no_bib", told));
                };
                if protocol == Protocol::Tcp && !opens && !(permitted && self.lets_strays_pass(&binding)) {
                    return Err(No("no_session", None));
                }
                if !permitted {
                    return Err(No("filtered", filtering.tell_filtered.then_some((3, 13))));
                }
                // The client would answer to an address that it may not call.
                if !self.may_call(peer.ip()) {
                    return Err(No("not_allowed", None));
                }
                if too_big {
                    return Err(No("packet_too_big", Some((3, 4))));
                }
                if protocol != Protocol::Tcp || opens {
                    self.make_room(&binding, chosen).map_err(|why| No(why, None))?;
                    self.add_session(&binding, peer, Side::V4);
                    // One that waits is told nothing any more: this is its connection.
                    drops.extend(self.take_waiting().map(|_| "syn_met"));
                }
                binding.client
            }
        };
        let y = SocketAddr::new(y(peer.ip()), peer.port());
        Ok(Outcome { out: vec![forwarded(packet, y, client)], drops })
    }

    /// §3.5.2.2, CLOSED, V4 SYN: it is stored for TCP_INCOMING_SYN.
    fn wait(
        &mut self,
        packet: &Packet,
        t: SocketAddr,
        peer: SocketAddr,
        unmapped: bool,
    ) -> Result<Outcome, No> {
        if self.settings.filtering.hold_syn == HoldSyn::Off {
            return Err(No(if unmapped { "no_bib" } else { "filtered" }, None));
        }
        let worker = self.worker_at(t);
        if self.waiting.iter().any(|syn| (syn.t, syn.peer, syn.worker) == (t, peer, worker)) {
            return Err(No("syn_repeated", None));
        }
        let until = self.now + self.settings.timers.tcp_in_syn;
        self.waiting.push(WaitingSyn { t, peer, until, worker, packet: packet.clone() });
        self.count("syn stored");
        Ok(Outcome::default())
    }

    /// RFC 5382 REQ-4: the client's SYN and one that waits open the connection; the latter is silently dropped.
    /// Granted: not when it waits at another worker (docs/limits.md).
    fn meet(&mut self) -> Option<&'static str> {
        let syn = self.take_waiting()?;
        self.heard(self.sessions.len() - 1, Side::V4, &syn.packet);
        self.count("syn met");
        Some("syn_met")
    }

    /// The SYN that waits for the newest session.
    fn take_waiting(&mut self) -> Option<WaitingSyn> {
        let s = self.sessions.last()?;
        let is_it = |syn: &WaitingSyn| (syn.t, syn.peer, syn.worker) == (s.t, s.peer, s.worker);
        let at = self.waiting.iter().position(|syn| s.protocol == Protocol::Tcp && is_it(syn))?;
        Some(self.waiting.remove(at))
    }

    /// What a packet does to its session.
    fn heard(&mut self, at: usize, side: Side, packet: &Packet) {
        let timers = self.settings.timers.clone();
        let s = &mut self.sessions[at];
        let (state, lifetime) = match flags(packet) {
            None if s.protocol == Protocol::Icmp => (State::Active, Some(timers.icmp)),
            None => (State::Active, Some(timers.udp_of(s.peer.port()))),
            Some(_) if !is_believed(s, side, packet) => return,
            Some(flags) => {
                if flags & (SYN | RST) == SYN {
                    s.syn[side as usize] = true;
                }
                let (open, close) = (timers.tcp_trans_open, timers.tcp_trans_close);
                match next(s.state, side, flags) {
                    (state, Timer::Same) => (state, None),
                    (state, Timer::TransOpen) => (state, Some(open)),
                    (state, Timer::TransClose) => (state, Some(close)),
                    (state, Timer::Est) => (state, Some(timers.tcp_est)),
                }
            }
        };
        s.state = state;
        if let Some(lifetime) = lifetime {
            s.end = end(self.now, lifetime);
        }
        if s.awaited == Some(side) {
            s.awaited = None;
        }
    }
}

/// Which timer a session gets.
enum Timer {
    Same,
    TransOpen,
    TransClose,
    Est,
}

/// §3.5.2.2, state by state. Of a segment that is RST and something else, it is RST that counts.
fn next(state: State, side: Side, flags: u8) -> (State, Timer) {
    let (syn, fin, rst) = (flags & SYN != 0, flags & FIN != 0, flags & RST != 0);
    match state {
        State::Active => (State::Active, Timer::Same),
        State::V4Init if syn && side == Side::V6 => (State::Established, Timer::Est),
        State::V4Init => (state, Timer::Same),
        State::V6Init if syn && side == Side::V4 => (State::Established, Timer::Est),
        State::V6Init if syn => (state, Timer::TransOpen),
        State::V6Init => (state, Timer::Same),
        State::Established if rst => (State::Trans, Timer::TransClose),
        State::Established if fin && side == Side::V4 => (State::V4FinRcv, Timer::Same),
        State::Established if fin => (State::V6FinRcv, Timer::Same),
        State::Established => (state, Timer::Est),
        State::V4FinRcv if fin && side == Side::V6 => (State::BothFinRcv, Timer::TransClose),
        State::V6FinRcv if fin && side == Side::V4 => (State::BothFinRcv, Timer::TransClose),
        State::V4FinRcv | State::V6FinRcv => (state, Timer::Est),
        State::BothFinRcv => (state, Timer::Same),
        State::Trans if rst => (state, Timer::Same),
        State::Trans => (State::Established, Timer::Est),
    }
}

/// docs/decisions/0007: what the ends cannot have sent changes nothing. The numbers of all segments here either fit any
/// moment of the connection or none.
fn is_believed(s: &Session, side: Side, packet: &Packet) -> bool {
    let L4::Tcp { flags, seq, .. } = packet.l4 else { return true };
    let (seen, acks) = (s.syn[side as usize], flags & ACK != 0);
    if seq.abs_diff(ISN) > 1 << 16 {
        return false;
    }
    match side {
        _ if flags & RST != 0 => seen,
        Side::V6 => seen || flags & SYN != 0,
        // Whoever acknowledges must have got something.
        Side::V4 if acks => (seen || flags & SYN != 0) && s.syn[Side::V6 as usize],
        // After the SYN every segment acknowledges (RFC 9293 §3.10.7.4).
        Side::V4 => flags & SYN != 0,
    }
}

/// Mappings and sessions.
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
    fn open_from_v6(
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

    fn add_session(&mut self, binding: &Binding, peer: SocketAddr, from: Side) {
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
    fn wish(&self, protocol: Protocol, client: SocketAddr) -> Result<Wish, &'static str> {
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
    fn judge(&mut self, binding: &Binding, wish: &Wish) {
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
    fn make_room(&mut self, binding: &Binding, chosen: &impl Choices) -> Result<(), &'static str> {
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
        let gone = self.sessions.iter().filter(may_go).find(|s| !chosen.lives(s)).cloned();
        let Some(gone) = gone else {
            if !chosen.was_refused() {
                self.faults.push(format!("nobody gave way, but {oldest:?} may"));
            }
            return Err("table_full");
        };
        let is_oldest =
            (gone.protocol, gone.client, gone.peer) == (oldest.protocol, oldest.client, oldest.peer);
        self.count(if is_oldest { "evicted the oldest" } else { "evicted another" });
        self.end_sessions(|s| (s.protocol, s.client, s.peer) == (gone.protocol, gone.client, gone.peer));
        Ok(())
    }

    fn end_sessions(&mut self, ends: impl Fn(&Session) -> bool) {
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
    fn release(&mut self, binding: &Binding) {
        let filter = self.settings.filtering.of(binding.protocol);
        let hold_down = self.settings.ports.hold_down;
        let rests = binding.protocol != Protocol::Tcp && filter == Filter::EndpointIndependent;
        if rests && !hold_down.is_zero() {
            self.resting.push((binding.protocol, binding.t, self.now + hold_down + LATE));
        }
    }

    /// Ports that have rested, and blocks without mappings.
    fn tidy(&mut self) {
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

/// Time and settings.
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
    fn end_forbidden(&mut self) {
        let peers: Vec<IpAddr> =
            self.sessions.iter().map(|s| s.peer.ip()).filter(|p| !self.may_call(*p)).collect();
        self.end_sessions(|s| peers.contains(&s.peer.ip()));
    }
}

/// Small questions.
impl Model {
    fn of_client(&self, protocol: Protocol, client: SocketAddr) -> Option<&Binding> {
        self.bib.iter().find(|b| b.protocol == protocol && b.client == client)
    }

    fn lets_strays_pass(&self, binding: &Binding) -> bool {
        match self.settings.filtering.stray_tcp {
            StrayTcp::Static => binding.is_static,
            StrayTcp::Forward => true,
            StrayTcp::Drop => false,
        }
    }

    fn serves(&self, client: IpAddr) -> bool {
        serves(&self.settings.units, client)
    }

    /// Whether the documentation networks, which stand for private ones here, are allowed; others always are.
    fn may_call(&self, peer: IpAddr) -> bool {
        let IpAddr::V4(v4) = peer else { return false };
        !v4.is_documentation() || self.settings.allow.iter().any(|p| p.contains(v4)) || self.is_pool(peer)
    }

    /// All blocks of the pool, by address and first port.
    fn offered(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.settings.pool4.ranges.iter().flat_map(|range| {
            let blocks = range.ports.start() / BLOCK..=range.ports.end() / BLOCK;
            range.prefix.addresses().flat_map(move |a| blocks.clone().map(move |n| (a.into(), n * BLOCK)))
        })
    }

    fn is_offered(&self, addr: IpAddr, first: u16) -> bool {
        let IpAddr::V4(v4) = addr else { return false };
        self.settings.pool4.ranges.iter().any(|r| r.prefix.contains(v4) && r.ports.contains(&first))
    }

    fn is_listed(&self, addr: IpAddr) -> bool {
        let IpAddr::V4(v4) = addr else { return false };
        self.settings.pool4.ranges.iter().any(|range| range.prefix.contains(v4))
    }

    fn is_pool(&self, addr: IpAddr) -> bool {
        self.is_listed(addr) || self.draining.contains(&addr)
    }

    /// Each worker has its share of a table.
    fn share(&self, size: u32) -> u32 {
        size.div_ceil(self.workers.into())
    }

    fn owner(&self, client: IpAddr) -> u16 {
        self.owners.get(&client).copied().unwrap_or(0)
    }

    /// Granted: which worker a free port belongs to is of no concern to the RFC. It is the last that had it.
    fn worker_at(&self, t: SocketAddr) -> u16 {
        if let Some(fixed) = self.bib.iter().find(|b| b.is_static && b.protocol == Protocol::Tcp && b.t == t)
        {
            return self.owner(fixed.client.ip());
        }
        let block = (t.ip(), t.port() / BLOCK * BLOCK);
        let leased = self.blocks.iter().any(|b| (b.addr, b.first) == block);
        let known = leased || self.is_offered(block.0, block.1);
        self.last.get(&block).copied().filter(|_| known).unwrap_or(0)
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }
}

impl No {
    fn outcome(self, packet: &Packet) -> Outcome {
        // RFC 7915 §5.4: who sent ICMPv6 is not told.
        let told = self.1.filter(|_| packet.dst.is_ipv4() || protocol(packet) != Protocol::Icmp);
        let told = told.map(|(kind, code)| error(packet.dst, packet.src, kind, code, 0, b""));
        Outcome { out: told.into_iter().collect(), drops: vec![self.0] }
    }
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::V4Init => "V4_INIT",
            Self::V6Init => "V6_INIT",
            Self::Established => "ESTABLISHED",
            Self::V4FinRcv => "V4_FIN_RCV",
            Self::V6FinRcv => "V6_FIN_RCV",
            Self::BothFinRcv => "V4_FIN_RCV+V6_FIN_RCV",
            Self::Trans => "TRANS",
        }
    }
}

/// Y' of Z (RFC 6052 §2.2).
pub fn y(z: IpAddr) -> IpAddr {
    let IpAddr::V4(z) = z else { panic!("{z} is not IPv4") };
    Ipv6Addr::from_bits(PREFIX | u128::from(z.to_bits())).into()
}

fn z(y: IpAddr) -> IpAddr {
    let IpAddr::V6(y) = y else { panic!("{y} is not IPv6") };
    Ipv4Addr::from_bits(y.to_bits() as u32).into()
}

fn end(now: Instant, lifetime: Duration) -> Instant {
    Instant::from_nanos((now + lifetime).as_nanos().next_multiple_of(TICK.as_nanos() as u64))
}

/// A V4 SYN or V6 SYN that begins a connection.
fn opens(packet: &Packet) -> bool {
    flags(packet).is_some_and(|flags| flags & (SYN | ACK | RST) == SYN)
}

fn flags(packet: &Packet) -> Option<u8> {
    if let L4::Tcp { flags, .. } = packet.l4 { Some(flags) } else { None }
}

fn protocol(packet: &Packet) -> Protocol {
    match packet.l4 {
        L4::Tcp { .. } => Protocol::Tcp,
        L4::Udp { .. } => Protocol::Udp,
        L4::Echo { .. } | L4::Icmp { .. } | L4::Other { .. } => Protocol::Icmp,
    }
}

fn peer_port(packet: &Packet, peer: SocketAddr) -> u16 {
    if protocol(packet) == Protocol::Icmp { 0 } else { peer.port() }
}

fn is_alike(client: u16, port: u16, parity: bool, range: bool) -> bool {
    (!parity || client % 2 == port % 2) && (!range || (client < 1024) == (port < 1024))
}

fn serves(units: &[sampan::nat64::settings::Unit], client: IpAddr) -> bool {
    let IpAddr::V6(v6) = client else { return false };
    units.is_empty() || units.iter().any(|unit| unit.prefixes.iter().any(|p| p.contains(v6)))
}

fn static_binding(entry: &StaticEntry) -> Binding {
    let (client, t) = ((entry.src6, entry.port6).into(), (entry.src4, entry.port4).into());
    Binding { protocol: entry.protocol, client, t, is_static: true }
}

/// The packet on the other side, one hop later. Of an ICMP query the identifier is that of the client or of T.
fn forwarded(packet: &Packet, from: SocketAddr, to: SocketAddr) -> Packet {
    let mut out = packet.clone();
    (out.src, out.dst, out.hops) = (from.ip(), to.ip(), packet.hops - 1);
    match &mut out.l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst, .. } => (*src, *dst) = (from.port(), to.port()),
        L4::Echo { id, .. } => *id = if to.is_ipv6() { to.port() } else { from.port() },
        L4::Icmp { .. } | L4::Other { .. } => {}
    }
    out
}
