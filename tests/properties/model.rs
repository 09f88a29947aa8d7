//! A slow, obvious model of RFC 6146: lists that are searched from end to end, and rules in the order of the text. It
//! shares nothing with the engine but the types of its settings.
//!
//! Where the RFCs leave a choice the model does not guess it: it looks which one was made ([`Choices`]) and judges it.
//! What it grants the engine beyond the RFCs is said where it does so, with the word "Granted".

#[path = "model/tables.rs"]
mod tables;
#[path = "model/time.rs"]
mod time;

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
    /// The mapping that a client's port was given.
    fn mapping(&self, protocol: Protocol, client: SocketAddr) -> Option<SocketAddr>;
    /// Whether a session was ended.
    fn has_ended(&self, session: &Session) -> bool;
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
