//! Random walks: the same packets, steps of time and reloads for a gateway and for the model, which must agree after
//! each of them.
//!
//! A step is a number, so that a seed or a shrinking test can make it; what it means depends on what is there. Any step
//! can be left out of a walk.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sampan::control::diff::{self, diff};
use sampan::control::plan::Plan;
use sampan::nat64::event::{Event, Kind, SessionEnds};
use sampan::nat64::settings::{Change, Hops, Key, Mtu, Protocol, RowFilter, SessionRow, Settings};
use sampan::time::Instant;

use crate::model::{Choices, Model, Outcome, Session, Side, WaitingSyn, y};
use crate::setup::Setup;
use crate::support::packet::numbered;
use crate::support::packet::{ACK, FIN, ISN, PSH, RST, SYN};
use crate::support::traffic::Rng;
use crate::support::{Gateway, L4, Packet, tcp, udp};

/// Steps between two comparisons of whole tables.
const LOOK: usize = 8;

/// Hosts of two networks.
const CLIENTS: [Ipv6Addr; 6] = {
    const fn host(net: u16, n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, n)
    }
    [host(1, 1), host(1, 2), host(1, 3), host(1, 4), host(2, 1), host(2, 2)]
};

/// Where gateway and model part.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Steps up to this one, which is the last.
    pub step: usize,
    pub what: String,
}

/// Goes the walk whose settings follow from `setup`. Gives what was met with, and how often.
pub fn walk(setup: u64, steps: &[u64]) -> Result<Vec<(&'static str, u64)>, Divergence> {
    let mut at = 0;
    let gone = catch_unwind(AssertUnwindSafe(|| {
        let mut walk = Walk::new(setup);
        for (n, step) in steps.iter().enumerate() {
            at = n;
            walk.step(*step)?;
            if n % LOOK == LOOK - 1 || n + 1 == steps.len() {
                walk.compare()?;
            }
        }
        walk.finish()?;
        Ok(walk.model.tally.into_iter().collect())
    }));
    let what = match gone {
        Ok(Ok(tally)) => return Ok(tally),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
        }
    };
    Err(Divergence { step: at + 1, what })
}

struct Walk {
    gateway: Gateway,
    model: Model,
    setup: Setup,
    plan: Plan,
}

/// What the gateway has just done.
struct Seen {
    events: Vec<Event>,
    was_refused: bool,
}

impl Choices for Seen {
    fn mapping(&self, protocol: Protocol, client: SocketAddr) -> Option<SocketAddr> {
        self.events.iter().find_map(|event| {
            let Event::BindingCreated(b) = event else { return None };
            let is_it = (b.protocol, SocketAddr::from((b.src6, b.src6_port))) == (protocol, client);
            is_it.then(|| (b.src4, b.src4_port).into())
        })
    }

    fn has_ended(&self, session: &Session) -> bool {
        self.events.iter().any(|event| {
            let Event::SessionDeleted(SessionEnds { binding: b, dst4, dst4_port }) = event else {
                return false;
            };
            let client = SocketAddr::from((b.src6, b.src6_port));
            (b.protocol, client, SocketAddr::from((*dst4, *dst4_port)))
                == (session.protocol, session.client, session.peer)
        })
    }

    fn was_refused(&self) -> bool {
        self.was_refused
    }
}

impl Walk {
    fn new(lot: u64) -> Self {
        let setup = Setup::of(lot);
        let plan = setup.plan(lot);
        let nat64 = plan.nat64().expect("it is the stateful translator");
        let mut settings: Settings = nat64.settings(Key([7; 16]), Mtu::default(), Hops::Translator);
        // No file may be so mean.
        settings.limits.sessions = setup.sessions;
        settings.limits.subscribers = setup.subscribers;
        settings.limits.icmp_errors_per_second = u32::MAX;
        let mut gateway = Gateway::new(settings.clone(), setup.workers);
        gateway.on_engines(|engine, _| engine.want_events(&[Kind::Binding, Kind::Session]));
        let owners = CLIENTS.map(|client| (IpAddr::from(client), gateway.owner(client.into())));
        let model = Model::new(settings, setup.workers, owners.into(), gateway.now);
        Self { gateway, model, setup, plan }
    }

    fn step(&mut self, lot: u64) -> Result<(), String> {
        let rng = &mut Rng(lot);
        self.gateway.events();
        match rng.below(100) {
            0..12 => self.wait(rng),
            12 => self.reload(rng.next()),
            13..45 => self.call(rng),
            45..80 => self.go_on(rng),
            80..96 => self.knock(rng),
            _ => self.turn(rng),
        }
        .map_err(|what| format!("{what}\nat {:?}, settings {:?}", self.model.now, self.gateway.settings()))?;
        let counts = [self.model.sessions.len(), self.model.bib.len(), self.model.waiting.len()];
        let sessions: u32 = self.gateway.sessions().iter().sum();
        let found = [sessions, self.gateway.bindings(), self.gateway.held_syns()].map(|n| n as usize);
        if counts == found && self.model.faults.is_empty() {
            return Ok(());
        }
        self.compare()?;
        Err(format!("{:?}: sessions, mappings, waiting SYNs {found:?}, not {counts:?}", self.model.faults))
    }

    /// A client calls a peer.
    fn call(&mut self, rng: &mut Rng) -> Result<(), String> {
        let (client, peer) = (self.client(rng), peer(rng));
        let packet = message(rng, client, SocketAddr::new(y(peer.ip()), peer.port()), None);
        self.up(&packet)
    }

    /// A client calls a mapping, of another client or its own, or a port of the pool that may be free.
    fn turn(&mut self, rng: &mut Rng) -> Result<(), String> {
        let (client, t) = (self.client(rng), self.pool_port(rng));
        let packet = message(rng, client, SocketAddr::new(y(t.ip()), t.port()), None);
        self.up(&packet)
    }

    /// Either side of a session sends something.
    fn go_on(&mut self, rng: &mut Rng) -> Result<(), String> {
        if self.model.sessions.is_empty() {
            return Ok(());
        }
        // A client that is called by a peer may call it at the same time.
        let called = |syn: &WaitingSyn| {
            let binding = self.model.bib.iter().find(|b| b.protocol == Protocol::Tcp && b.t == syn.t)?;
            Some((binding.client, SocketAddr::new(y(syn.peer.ip()), syn.peer.port())))
        };
        if let Some((client, peer)) = self.model.waiting.iter().find_map(called)
            && rng.chance(30)
        {
            return self.up(&tcp(client, peer, SYN, b""));
        }
        let session = self.model.sessions[rng.below(self.model.sessions.len())].clone();
        let from_v6 = rng.chance(50);
        if from_v6 || is_pool(session.peer.ip()) {
            // What comes from a pool address can only come from a client that is turned round.
            let peer = SocketAddr::new(y(session.peer.ip()), session.peer.port());
            return self.up(&message(rng, session.client, peer, Some(session.protocol)));
        }
        self.down(&message(rng, session.peer, session.t, Some(session.protocol)))
    }

    /// Somebody outside sends something to a port of the pool.
    fn knock(&mut self, rng: &mut Rng) -> Result<(), String> {
        let (t, peer) = (self.pool_port(rng), peer(rng));
        self.down(&message(rng, peer, t, None))
    }

    fn client(&self, rng: &mut Rng) -> SocketAddr {
        SocketAddr::new(CLIENTS[rng.below(CLIENTS.len())].into(), 1 + rng.below(self.setup.ports) as u16)
    }

    /// A mapping, a static one's port, or any port.
    fn pool_port(&self, rng: &mut Rng) -> SocketAddr {
        let ip = Ipv4Addr::from_bits(0xc633_6401 + rng.below(3) as u32).into();
        match rng.below(10) {
            0..7 if !self.model.bib.is_empty() => self.model.bib[rng.below(self.model.bib.len())].t,
            7 => SocketAddr::new(ip, [80, 53, 7][rng.below(3)]),
            8 if !self.model.waiting.is_empty() => self.model.waiting[0].t,
            _ => SocketAddr::new(ip, 1024 + rng.below(128) as u16),
        }
    }

    /// Time passes: a little, or up to about the end of something.
    fn wait(&mut self, rng: &mut Rng) -> Result<(), String> {
        let now = self.model.now;
        let ends = self.model.sessions.iter().map(|s| s.end);
        let mut ends: Vec<Instant> = ends.chain(self.model.waiting.iter().map(|syn| syn.until)).collect();
        ends.sort_unstable();
        let near = ends.get(rng.below(ends.len().min(4))).map_or(Duration::ZERO, |end| end.since(now));
        let around = [0, 1, 249_999_999, 250_000_000, 250_000_001][rng.below(5)];
        let time = match rng.below(10) {
            0..3 => Duration::from_millis(rng.below(2000) as u64),
            3 => Duration::from_secs(rng.below(120) as u64),
            4 => Duration::from_secs(rng.below(8) as u64 * 1000),
            5..8 => near.saturating_sub(Duration::from_nanos(around)),
            _ => near + Duration::from_nanos(around),
        };
        self.advance(time)
    }

    fn advance(&mut self, time: Duration) -> Result<(), String> {
        let before = self.gateway.totals();
        let out = self.gateway.advance_telling(time);
        let drops = self.gateway.drops_since(&before);
        let expected = self.model.advance(self.gateway.now);
        self.agree(&format!("{time:?} later"), out, &drops, expected)
    }

    /// Another configuration, as the daemon takes it over.
    fn reload(&mut self, lot: u64) -> Result<(), String> {
        let plan = self.setup.plan(lot);
        let changes = diff(&self.plan, &plan).map_err(|keys| format!("{keys:?}"))?;
        self.plan = plan;
        for change in changes {
            let diff::Change::Nat64(change) = change else { return Err(format!("{change:?}")) };
            if matches!(change, Change::Pool4(_)) {
                *self.model.tally.entry("another pool").or_default() += 1;
            }
            self.gateway.change(change.clone());
            self.model.change(&change);
        }
        *self.model.tally.entry("reload").or_default() += 1;
        Ok(())
    }

    fn up(&mut self, packet: &Packet) -> Result<(), String> {
        self.send(packet, Side::V6)
    }

    fn down(&mut self, packet: &Packet) -> Result<(), String> {
        self.send(packet, Side::V4)
    }

    fn send(&mut self, packet: &Packet, side: Side) -> Result<(), String> {
        let before = self.gateway.totals();
        let out = self.gateway.send(packet);
        let drops = self.gateway.drops_since(&before);
        let was_refused = drops.iter().any(|(name, _)| *name == "table_full");
        let seen = Seen { events: self.gateway.events(), was_refused };
        let expected = match side {
            Side::V6 => self.model.up(packet, &seen),
            Side::V4 => self.model.down(packet, &seen),
        };
        self.agree(&bare_text(packet), out, &drops, expected)
    }

    fn agree(
        &mut self,
        cause: &str,
        out: Vec<Packet>,
        drops: &[(&'static str, u64)],
        mut expected: Outcome,
    ) -> Result<(), String> {
        let mut named: Vec<_> = drops.iter().flat_map(|(name, n)| vec![*name; *n as usize]).collect();
        named.sort_unstable();
        expected.drops.sort_unstable();
        let sorted = |packets: &[Packet]| {
            let mut bare: Vec<_> = packets.iter().map(bare).collect();
            bare.sort_by_cached_key(|packet| format!("{packet:?}"));
            bare
        };
        let agrees = named == expected.drops
            && if let ([out], [wanted]) = (&out[..], &expected.out[..]) {
                bare(out) == bare(wanted)
            } else {
                sorted(&out) == sorted(&expected.out)
            };
        if !agrees {
            let text = |packets: &[Packet]| packets.iter().map(bare_text).collect::<Vec<_>>().join("\n  ");
            return Err(format!(
                "{cause}:\nthere came\n  {}\ndropped {named:?}, not\n  {}\ndropped {:?}",
                text(&out),
                text(&expected.out),
                expected.drops
            ));
        }
        for what in named.into_iter().chain(out.first().map(kind)) {
            *self.model.tally.entry(what).or_default() += 1;
        }
        Ok(())
    }

    /// All rows of both tables.
    fn compare(&self) -> Result<(), String> {
        let mut bib: Vec<String> = self
            .gateway
            .bib_rows(&RowFilter::default())
            .iter()
            .map(|row| {
                let (client, t) = ((row.src6, row.src6_port), (row.src4, row.src4_port));
                let (client, t) = (SocketAddr::from(client), SocketAddr::from(t));
                format!("{:?} {client} {t} {} sessions, static {}", row.protocol, row.sessions, row.is_static)
            })
            .collect();
        let mut wanted: Vec<String> = self
            .model
            .bib
            .iter()
            .map(|b| {
                let of_it = |s: &&Session| (s.protocol, s.client) == (b.protocol, b.client);
                let n = self.model.sessions.iter().filter(of_it).count();
                format!("{:?} {} {} {n} sessions, static {}", b.protocol, b.client, b.t, b.is_static)
            })
            .collect();
        bib.sort_unstable();
        wanted.sort_unstable();
        differ("mapping", &bib, &wanted)?;
        let now = self.model.now;
        let rows = self.gateway.session_rows(&RowFilter::default());
        let mut sessions: Vec<String> = rows.iter().map(session_row).collect();
        let mut wanted: Vec<String> = self
            .model
            .sessions
            .iter()
            .map(|s| {
                let expires = left(now, s.end, &rows, |row| {
                    (SocketAddr::from((row.src6, row.src6_port)), SocketAddr::from((row.dst4, row.dst4_port)))
                        == (s.client, s.peer)
                        && row.protocol == s.protocol
                });
                format!(
                    "{:?} {} {} {} {} {} {expires} s",
                    s.protocol,
                    s.client,
                    y(s.peer.ip()),
                    s.t,
                    s.peer,
                    s.state.name()
                )
            })
            .chain(self.model.waiting.iter().map(|syn: &WaitingSyn| {
                let nobody = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
                let expires = syn.until.since(now).as_secs_f64().ceil();
                format!("Tcp {nobody} {} {} {} V4_INIT {expires} s", y(syn.peer.ip()), syn.t, syn.peer)
            }))
            .collect();
        sessions.sort_unstable();
        wanted.sort_unstable();
        differ("session", &sessions, &wanted)
    }

    /// When everything is over nothing is left but what the operator has made.
    fn finish(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            self.advance(Duration::from_secs(7800))?;
        }
        self.compare()?;
        let statics = self.model.bib.len() as u32;
        let left = (
            self.gateway.sessions(),
            self.gateway.bindings(),
            self.gateway.subscribers(),
            self.gateway.blocks(),
        );
        if left == ([0; 3], statics, 0, 0) { Ok(()) } else { Err(format!("left: {left:?}")) }
    }
}

fn session_row(row: &SessionRow) -> String {
    let (client, t) = ((row.src6, row.src6_port), (row.src4, row.src4_port));
    let (client, t, peer) = (SocketAddr::from(client), SocketAddr::from(t), (row.dst4, row.dst4_port));
    format!(
        "{:?} {client} {} {t} {} {} {} s",
        row.protocol,
        row.dst6,
        SocketAddr::from(peer),
        row.state,
        row.expires_s
    )
}

/// Whole seconds until `end`. Granted: rows count quarter seconds, the one that runs included.
fn left(now: Instant, end: Instant, rows: &[SessionRow], is_it: impl Fn(&SessionRow) -> bool) -> u64 {
    let nanos = end.since(now).as_nanos() as u64;
    let (least, most) = (nanos.div_ceil(1_000_000_000), (nanos + 250_000_000).div_ceil(1_000_000_000));
    let found = rows.iter().find(|row| is_it(row)).map_or(least, |row| row.expires_s);
    found.clamp(least, most)
}

fn differ(what: &str, found: &[String], wanted: &[String]) -> Result<(), String> {
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|row| !those.contains(row)).cloned().collect::<Vec<_>>().join("\n  ")
    };
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}s\n  {}\nnot\n  {}", only(found, wanted), only(wanted, found)))
}

fn is_pool(addr: IpAddr) -> bool {
    crate::support::gateway::is_pool(addr)
}

fn peer(rng: &mut Rng) -> SocketAddr {
    let ip = [[203, 0, 113, 1], [203, 0, 113, 2], [192, 0, 2, 1], [8, 8, 8, 8]][rng.below(4)];
    SocketAddr::new(Ipv4Addr::from(ip).into(), [53, 80][rng.below(2)])
}

/// Something of `protocol`, or of any.
fn message(rng: &mut Rng, from: SocketAddr, to: SocketAddr, protocol: Option<Protocol>) -> Packet {
    let is_new = protocol.is_none();
    let protocol = protocol.unwrap_or(Protocol::ALL[[0, 0, 1, 1, 2][rng.below(5)]]);
    match protocol {
        Protocol::Tcp => segment(rng, from, to, is_new),
        // Some are too big for either side, and may not be cut.
        Protocol::Udp => udp(from, to, &[7; 1500][..if rng.chance(4) { 1500 } else { 4 }]).df(from.is_ipv4()),
        Protocol::Icmp => {
            let id = if from.is_ipv6() { from.port() } else { to.port() };
            let reply = from.is_ipv4() != rng.chance(10);
            Packet::new(from.ip(), to.ip(), L4::Echo { reply, id, seq: 7, data: b"ping".to_vec() })
        }
    }
}

/// A segment that fits every moment of a connection, since all of them end at the same number; or one that fits none.
fn segment(rng: &mut Rng, from: SocketAddr, to: SocketAddr, is_new: bool) -> Packet {
    let flags = match rng.below(20) {
        _ if is_new && rng.chance(50) => SYN,
        0..4 => SYN,
        4..8 => SYN | ACK,
        8..11 => ACK,
        11..14 => FIN | ACK,
        14..16 => RST,
        16 => RST | ACK,
        17 => ACK | PSH,
        // Whatever there is.
        _ => rng.below(32) as u8,
    };
    let seq = match (flags & RST != 0, flags & SYN != 0, flags & FIN != 0) {
        (false, true, true) => ISN - 1,
        (false, true, false) | (false, false, true) => ISN,
        (true, _, _) | (false, false, false) => ISN + 1,
    };
    // A SYN that begins a connection, or may begin one anew, has any number by right.
    let may_be_wild = flags & SYN == 0 || (from.is_ipv4() && flags & ACK != 0);
    let off = if may_be_wild && rng.chance(15) { 1 << 31 } else { 0 };
    let ack = if flags & ACK != 0 { (ISN + 1).wrapping_add(off) } else { 0 };
    numbered(tcp(from, to, flags, b""), seq.wrapping_add(off), ack)
}

/// What of a packet is compared: identifications are free, and so is what an error quotes and where a probe's hops end.
fn bare(packet: &Packet) -> Packet {
    let mut bare = packet.clone();
    (bare.id, bare.df, bare.flow_label) = (0, false, 0);
    match &mut bare.l4 {
        L4::Icmp { rest, data, .. } => {
            (bare.hops, bare.tos, *rest) = (0, 0, [0; 4]);
            data.clear();
        }
        L4::Tcp { flags: ACK, seq: 0, ack: 0, window, .. } => (bare.hops, *window) = (0, 0),
        L4::Tcp { .. } | L4::Udp { .. } | L4::Echo { .. } | L4::Other { .. } => {}
    }
    bare
}

fn bare_text(packet: &Packet) -> String {
    let from_to = format!("{} bytes {} > {}", packet.bytes().len(), packet.src, packet.dst);
    match &packet.l4 {
        L4::Tcp { src, dst, flags, seq, ack, .. } => {
            format!("{from_to} TCP {src} > {dst} flags {flags:#x} seq {seq:#x} ack {ack:#x}")
        }
        L4::Udp { src, dst, .. } => format!("{from_to} UDP {src} > {dst}"),
        L4::Echo { reply, id, .. } => format!("{from_to} echo {id} reply {reply}"),
        L4::Icmp { kind, code, .. } => format!("{from_to} ICMP {kind} {code}"),
        L4::Other { protocol, .. } => format!("{from_to} {protocol}"),
    }
}

fn kind(packet: &Packet) -> &'static str {
    match (&packet.l4, packet.src) {
        (L4::Icmp { .. }, IpAddr::V6(_)) => "told a client",
        (L4::Icmp { .. }, IpAddr::V4(_)) => "told a peer",
        (L4::Tcp { seq: 0, ack: 0, .. }, _) => "probe",
        (_, IpAddr::V6(_)) => "translated to IPv6",
        (_, IpAddr::V4(_)) => "translated to IPv4",
    }
}
