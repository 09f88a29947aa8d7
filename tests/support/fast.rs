//! A fast path without a kernel: repeats rules on packets, keeps what it has seen, and passes everything up that the
//! real one does.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use sampan::nat64::mirror::{Mirror, Rule, Seen, Traffic};
use sampan::nat64::scope::Scopes;
use sampan::nat64::settings::{Mtu, Protocol, Settings};
use sampan::nat64::tcp::Side;
use sampan::nat64::witness::{Direction, FlowWitness, Segment};
use sampan::time::Instant;
use sampan::wire::l4::{Payload, TcpFlags};
use sampan::wire::packet::{Offload, PacketBuf, View};
use sampan::xlat::{Hop, Rewrite, v4_to_v6, v6_to_v4};

type Key = (Protocol, [u8; 16], u16, [u8; 16], u16);

/// The one of a gateway; clones are the same one, and each worker has a [`FastPath::mirror`].
#[derive(Clone)]
pub struct FastPath {
    kernel: Arc<Mutex<Kernel>>,
    worker: usize,
}

struct Kernel {
    rules: Vec<Option<(Rule, Seen)>>,
    /// Worker and tag, by handle.
    owners: HashMap<u32, (usize, u32)>,
    /// Tags of what has ended, by worker.
    ended: Vec<VecDeque<u32>>,
    capacity: usize,
    /// By what the client sends, and by what the peer sends.
    keys: [HashMap<Key, u32>; 2],
    mtu: Mtu,
    tos: Option<u8>,
    traffic_class: Option<u8>,
    /// Its part of the IPv4 identifications is the last one.
    id_base: u16,
    id_span: u16,
    id: u16,
    total: [Traffic; 2],
    scopes: Arc<Scopes>,
}

impl FastPath {
    pub fn new(settings: &Settings, workers: u16, capacity: usize) -> Self {
        let kernel = Arc::new(Mutex::new(Kernel {
            rules: Vec::new(),
            owners: HashMap::new(),
            ended: Vec::new(),
            capacity,
            keys: Default::default(),
            mtu: settings.mtu,
            tos: settings.classes.tos,
            traffic_class: settings.classes.traffic_class,
            id_base: (u32::from(workers) * id_span(workers)) as u16,
            id_span: id_span(workers) as u16,
            id: 0,
            total: Default::default(),
            scopes: Arc::default(),
        }));
        Self { kernel, worker: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap()
    }

    /// For the next worker.
    pub fn mirror(&self) -> Box<Self> {
        let mut kernel = self.lock();
        kernel.ended.push(VecDeque::new());
        Box::new(Self { kernel: self.kernel.clone(), worker: kernel.ended.len() - 1 })
    }

    /// Whether the end of a connection waits to be told.
    pub fn has_news(&self) -> bool {
        self.lock().ended.iter().any(|tags| !tags.is_empty())
    }

    pub fn scopes(&self) -> Arc<Scopes> {
        self.lock().scopes.clone()
    }

    /// Everything it has ever carried, from clients and from peers.
    pub fn total(&self) -> [Traffic; 2] {
        self.lock().total
    }

    /// The rules in force, with their handles.
    pub fn records(&self) -> Vec<(u32, Rule, Seen)> {
        let kernel = self.lock();
        let rules = kernel.rules.iter().enumerate();
        rules.filter_map(|(i, r)| r.map(|(rule, seen)| (i as u32, rule, seen))).collect()
    }

    pub fn flows(&self) -> usize {
        self.records().len()
    }

    /// Translates a packet by its rule; `None` sends it up.
    pub fn carry(&self, now: Instant, bytes: &[u8], offload: Offload) -> Option<(Vec<u8>, Offload)> {
        self.lock().carry(now, bytes, offload)
    }
}

impl Mirror for FastPath {
    fn install(&mut self, _: Instant, rule: &Rule, witness: &FlowWitness, tag: u32) -> Option<u32> {
        let mut kernel = self.lock();
        if kernel.rules.iter().flatten().count() == kernel.capacity {
            return None;
        }
        let handle = kernel.rules.iter().position(Option::is_none).unwrap_or(kernel.rules.len());
        if handle == kernel.rules.len() {
            kernel.rules.push(None);
        }
        kernel.rules[handle] = Some((*rule, Seen { witness: *witness, ..Seen::default() }));
        let [key6, key4] = keys(rule);
        assert_eq!(kernel.keys[0].insert(key6, handle as u32), None, "two rules for {rule:?}");
        assert_eq!(kernel.keys[1].insert(key4, handle as u32), None, "two rules for {rule:?}");
        kernel.owners.insert(handle as u32, (self.worker, tag));
        Some(handle as u32)
    }

    fn adopt(&mut self, handle: u32, tag: u32) {
        self.lock().owners.insert(handle, (self.worker, tag));
    }

    fn ended(&mut self) -> Option<u32> {
        self.lock().ended[self.worker].pop_front()
    }

    fn seen(&self, handle: u32) -> Option<Seen> {
        self.lock().rules.get(handle as usize).copied().flatten().map(|(_, seen)| seen)
    }

    fn correct(&mut self, handle: u32, witness: &FlowWitness) {
        self.lock().rules[handle as usize].as_mut().expect("a rule in force").1.witness = *witness;
    }

    fn remove(&mut self, _: Instant, handle: u32) -> Option<Seen> {
        let mut kernel = self.lock();
        let (rule, seen) = kernel.rules[handle as usize].take().expect("a rule in force");
        for (map, key) in kernel.keys.iter_mut().zip(keys(&rule)) {
            assert_eq!(map.remove(&key), Some(handle));
        }
        Some(seen)
    }
}

impl Kernel {
    fn carry(&mut self, now: Instant, bytes: &[u8], offload: Offload) -> Option<(Vec<u8>, Offload)> {
        let mut packet = PacketBuf::from_bytes(bytes);
        packet.offload = offload;
        let view = packet.parse().ok()?;
        let (side, payload, l4, plain_header) = match &view {
            View::V6(view) => (Side::V6, view.payload, view.l4, view.l4 == 40),
            View::V4(view) => (Side::V4, view.payload, view.l4, view.l4 == 20),
        };
        let (protocol, src_port, dst_port) = match payload {
            Payload::Tcp(tcp) => {
                if tcp.flags.has(TcpFlags::SYN) {
                    return None;
                }
                (Protocol::Tcp, tcp.src, tcp.dst)
            }
            Payload::Udp(udp) if !udp.no_checksum || offload != Offload::default() => {
                (Protocol::Udp, udp.src, udp.dst)
            }
            Payload::Udp(_) | Payload::Icmp(_) | Payload::Fragment | Payload::Other(_) => return None,
        };
        let key = match &view {
            View::V6(v) => (protocol, v.src.octets(), src_port, v.dst.octets(), dst_port),
            View::V4(v) => (protocol, mapped(v.src), src_port, mapped(v.dst), dst_port),
        };
        let handle = *self.keys[side as usize].get(&key).filter(|_| plain_header)?;
        let (rule, seen) = self.rules.get_mut(handle as usize)?.as_mut()?;
        if !self.scopes.is_current(rule.scope) {
            return None;
        }
        let segments = packet.segments(l4 + payload.header_len()) as u64;
        let headers = (l4 + payload.header_len()) as u64;
        let traffic = Traffic { packets: segments, bytes: packet.len() as u64 + (segments - 1) * headers };
        let segment = Segment::read(&payload, packet.bytes(), l4);
        // What the ends cannot have sent is carried, and keeps nothing alive.
        let judged = match &segment {
            None => Judged { witness: seen.witness, counts: true, is_end: false },
            Some(segment) => judge(seen.witness, side, segment)?,
        };
        match &view {
            View::V6(view) => {
                let rewrite = to_v4(rule);
                let context = v6_to_v4::Context {
                    hop: Hop::Less,
                    mtu4: self.mtu.v4,
                    id: self.id_base + self.id,
                    mss: None,
                    tos: self.tos,
                };
                let plan =
                    v6_to_v4::plan(view, &packet, &rewrite, &context).ok().filter(|p| p.cut.is_none())?;
                self.id = (self.id + segments as u16) % self.id_span;
                plan.apply(&mut packet);
            }
            View::V4(view) => {
                let rewrite = to_v6(rule);
                let context = v4_to_v6::Context {
                    hop: Hop::Less,
                    mtu6: self.mtu.v6,
                    mtu4: self.mtu.v4,
                    lowest_ipv6_mtu: self.mtu.lowest_ipv6,
                    id: 0,
                    mss: None,
                    traffic_class: self.traffic_class,
                };
                let plan =
                    v4_to_v6::plan(view, &packet, &rewrite, &context).ok().filter(|p| p.cut.is_none())?;
                plan.apply(&mut packet);
            }
        }
        seen.witness = judged.witness;
        if judged.is_end
            && let Some((worker, tag)) = self.owners.get(&handle)
        {
            self.ended[*worker].push_back(*tag);
        }
        if judged.counts {
            let last = if side == Side::V6 { &mut seen.last6 } else { &mut seen.last4 };
            *last = now;
        }
        let own = if side == Side::V6 { &mut seen.from6 } else { &mut seen.from4 };
        for sum in [own, &mut self.total[side as usize]] {
            sum.packets += traffic.packets;
            sum.bytes += traffic.bytes;
        }
        Some((packet.bytes().to_vec(), packet.offload))
    }
}

/// What a segment without SYN is to the programs.
#[derive(Clone, Copy)]
pub struct Judged {
    /// What is known behind it.
    pub witness: FlowWitness,
    /// Whether it keeps the connection alive.
    pub counts: bool,
    /// Whether it ends the connection.
    pub is_end: bool,
}

/// Judges a segment that comes to a rule; `None` sends it up.
pub fn judge(mut witness: FlowWitness, side: Side, segment: &Segment) -> Option<Judged> {
    let both = |w: &FlowWitness| w.v6.flags & w.v4.flags & Direction::FIN != 0;
    let (before, was_over) = (witness.v6.flags | witness.v4.flags, both(&witness));
    let (fin, rst) = (segment.flags.has(TcpFlags::FIN), segment.flags.has(TcpFlags::RST));
    if before & Direction::RST != 0 || rst && before & Direction::FIN != 0 {
        return None;
    }
    let before_own = if side == Side::V6 { witness.v6.flags } else { witness.v4.flags };
    let believed = witness.see(side, segment);
    if (fin || rst) && !believed {
        return None;
    }
    let own = |w: &FlowWitness| if side == Side::V6 { w.v6.flags } else { w.v4.flags };
    // RFC 6146 §3.5.2.2: the first FIN of a side gives no lifetime.
    let counts = believed && !(fin && own(&witness) & !before_own & Direction::FIN != 0);
    Some(Judged { witness, counts, is_end: rst || both(&witness) && !was_over })
}

const fn id_span(workers: u16) -> u32 {
    65_536 / (workers as u32 + 1)
}

fn keys(rule: &Rule) -> [Key; 2] {
    let f = &rule.flow;
    [
        (rule.protocol, f.src6.octets(), f.port6, f.dst6.octets(), f.peer_port),
        (rule.protocol, mapped(f.dst4), f.peer_port, mapped(f.src4), f.port4),
    ]
}

fn mapped(addr: Ipv4Addr) -> [u8; 16] {
    addr.to_ipv6_mapped().octets()
}

fn to_v4(rule: &Rule) -> Rewrite<Ipv4Addr> {
    let f = &rule.flow;
    Rewrite { src: f.src4, dst: f.dst4, src_port: f.port4, dst_port: f.peer_port, delta: rule.delta }
}

fn to_v6(rule: &Rule) -> Rewrite<Ipv6Addr> {
    let f = &rule.flow;
    Rewrite {
        src: f.dst6,
        dst: f.src6,
        src_port: f.peer_port,
        dst_port: f.port6,
        delta: rule.delta.reversed(),
    }
}
