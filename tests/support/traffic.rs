//! Endless traffic from a seed, for property tests and campaigns: flawless packets of every kind that a gateway
//! meets, answers to what came out of it, and mutations of all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sampan::nat64::settings::{Filter, Hops};
use sampan::wire::packet::{Checksum, Gso, GsoKind, Offload};

use super::gateway::{Gateway, Out, settings};
use super::packet::{self, Extension, L4, Packet, error, other, tcp, udp};
pub use super::rng::Rng;
use super::segment::{make_partial, reassemble6, segments};

impl Rng {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend(self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// Packets that came out and can be answered or complained about.
const REMEMBERED: usize = 1024;
const CLIENTS: usize = 200;

pub struct Traffic {
    rng: Rng,
    /// Translations that came out on the IPv4 side, and on the IPv6 side.
    seen4: Vec<Packet>,
    seen6: Vec<Packet>,
}

impl Traffic {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng(seed), seen4: Vec::new(), seen6: Vec::new() }
    }

    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// A gateway with settings of all sorts.
    pub fn gateway(&mut self, workers: u16) -> Gateway {
        let mut settings = settings();
        let rng = &mut self.rng;
        if rng.chance(30) {
            settings.hops = Hops::KernelForwards;
        }
        if rng.chance(30) {
            settings.filtering.udp = Filter::AddressDependent;
            settings.filtering.tcp = Filter::AddressDependent;
        }
        if rng.chance(30) {
            settings.mtu.v4 = 1280 + rng.below(400) as u16;
        }
        if rng.chance(15) {
            // Small enough to be full now and then.
            settings.limits.sessions = 100;
            settings.limits.subscribers = 30;
        }
        self.seen4.clear();
        self.seen6.clear();
        Gateway::new(settings, workers)
    }

    /// A packet without any fault, which need not be one that is let through.
    pub fn clean(&mut self, gateway: &Gateway) -> (Vec<u8>, Offload) {
        let packet = match self.rng.below(100) {
            0..46 => self.client_packet(gateway),
            46..86 => self.answer(gateway),
            86..93 => self.complaint(gateway),
            93..97 => self.unsolicited(gateway),
            _ => self.odd(gateway),
        };
        let mut bytes = packet.bytes();
        let mut offload = Offload::default();
        if self.rng.chance(20) && packet.extensions.is_empty() && packet.options.is_empty() {
            self.leave_to_device(&packet, &mut bytes, &mut offload);
        }
        (bytes, offload)
    }

    /// A packet with faults.
    pub fn mutated(&mut self, gateway: &Gateway) -> (Vec<u8>, Offload) {
        let (mut bytes, mut offload) = if self.rng.chance(4) {
            let len = self.rng.below(120);
            (self.rng.bytes(len), Offload::default())
        } else {
            self.clean(gateway)
        };
        for _ in 0..1 + self.rng.below(3) {
            self.mutate(&mut bytes);
        }
        if self.rng.chance(50) {
            fix_ipv4_checksum(&mut bytes);
        }
        if self.rng.chance(10) {
            offload = self.any_offload();
        }
        (bytes, offload)
    }

    /// Remembers what came out, to answer it.
    pub fn learn(&mut self, out: &[Out]) {
        for out in out {
            if let Ok(packet) = Packet::parse(&segments_or_whole(out)[0])
                && !matches!(packet.l4, L4::Icmp { .. } | L4::Other { .. })
            {
                let seen = if packet.src.is_ipv4() { &mut self.seen4 } else { &mut self.seen6 };
                if seen.len() < REMEMBERED {
                    seen.push(packet);
                } else {
                    seen[self.rng.below(REMEMBERED)] = packet;
                }
            }
        }
    }

    fn client(&mut self) -> SocketAddr {
        let host = Ipv6Addr::from_bits(0x2001_0db8_0001 << 80 | self.rng.below(CLIENTS) as u128);
        SocketAddr::new(host.into(), 1000 + self.rng.below(20) as u16)
    }

    fn server(&mut self) -> SocketAddr {
        let host = Ipv4Addr::new(203, 0, 113, self.rng.below(30) as u8);
        SocketAddr::new(host.into(), [53, 80, 443, 5000][self.rng.below(4)])
    }

    fn data(&mut self) -> Vec<u8> {
        let len = match self.rng.below(10) {
            0 => 0,
            1 => self.rng.below(1453),
            2 => 1180 + self.rng.below(120),
            _ => self.rng.below(64),
        };
        self.rng.bytes(len)
    }

    fn flags(&mut self) -> u8 {
        use packet::{ACK, FIN, PSH, RST, SYN};
        [SYN, SYN, SYN | ACK, ACK, ACK, ACK | PSH, FIN | ACK, RST][self.rng.below(8)]
    }

    /// A transport between two endpoints.
    fn between(&mut self, src: SocketAddr, dst: SocketAddr, is_answer: bool) -> Packet {
        let data = self.data();
        let packet = match self.rng.below(3) {
            0 => udp(src, dst, &data),
            1 => tcp(src, dst, if is_answer { self.flags() | packet::ACK } else { self.flags() }, &data),
            _ => {
                let l4 = L4::Echo { reply: is_answer, id: src.port(), seq: self.rng.next() as u16, data };
                Packet::new(src.ip(), dst.ip(), l4)
            }
        };
        self.dress(packet)
    }

    /// Header fields of all sorts.
    fn dress(&mut self, packet: Packet) -> Packet {
        let hops = if self.rng.chance(2) { self.rng.below(2) as u8 } else { 2 + self.rng.below(254) as u8 };
        let mut packet = packet.hops(hops).tos(self.rng.next() as u8);
        if packet.src.is_ipv4() {
            packet = packet.df(self.rng.chance(70)).id(self.rng.next() as u16);
            if self.rng.chance(3) {
                packet = packet.options(&[7, 7, 4, 0, 0, 0, 0, 0]);
            }
        } else {
            packet.flow_label = self.rng.next() as u32 & 0xf_ffff;
            if self.rng.chance(3) {
                packet = packet.extension(Extension::hop_by_hop());
            }
            if self.rng.chance(3) {
                packet = packet.extension(Extension::routing(0));
            }
            if self.rng.chance(3) {
                packet = packet.extension(Extension::fragment(0, false, self.rng.next() as u32));
            }
        }
        packet
    }

    fn client_packet(&mut self, gateway: &Gateway) -> Packet {
        let (src, server) = (self.client(), self.server());
        let dst = if self.rng.chance(5)
            && let Some(seen) = pick(&mut self.rng, &self.seen4)
        {
            // Another client's pool address: a hairpin.
            SocketAddr::new(gateway.y(seen.src), seen.ports().0)
        } else {
            SocketAddr::new(gateway.y(server.ip()), server.port())
        };
        self.between(src, dst, false)
    }

    /// An answer to something that came out on either side, sometimes by a stranger.
    fn answer(&mut self, gateway: &Gateway) -> Packet {
        let seen = if self.rng.chance(75) { &self.seen4 } else { &self.seen6 };
        let Some(seen) = pick(&mut self.rng, seen).cloned() else { return self.client_packet(gateway) };
        let mut src = seen.destination();
        if src.is_ipv4() && self.rng.chance(5) {
            src = self.server();
        }
        let dst = seen.source();
        let data = self.data();
        let packet = match &seen.l4 {
            L4::Udp { .. } => udp(src, dst, &data),
            L4::Tcp { .. } => tcp(src, dst, self.flags() | packet::ACK, &data),
            L4::Echo { id, seq, .. } => {
                Packet::new(src.ip(), dst.ip(), L4::Echo { reply: true, id: *id, seq: *seq, data })
            }
            L4::Icmp { .. } | L4::Other { .. } => unreachable!("not remembered"),
        };
        self.dress(packet)
    }

    /// An ICMP error about something that came out.
    fn complaint(&mut self, gateway: &Gateway) -> Packet {
        let v4 = self.rng.chance(50);
        let seen = if v4 { &self.seen4 } else { &self.seen6 };
        let Some(seen) = pick(&mut self.rng, seen).cloned() else { return self.client_packet(gateway) };
        let mut quote = seen.bytes();
        let (kind, code, rest) = if v4 {
            [(3, 1, 0), (3, 3, 0), (3, 4, 1300), (11, 0, 0), (12, 0, 0x0c00_0000), (3, 13, 0), (5, 0, 0)]
                [self.rng.below(7)]
        } else {
            [(1, 0, 0), (1, 4, 0), (2, 0, 1280), (3, 0, 0), (4, 0, 6), (4, 1, 6), (1, 7, 0)]
                [self.rng.below(7)]
        };
        let head = if v4 { 28 } else { 48 };
        if self.rng.chance(30) {
            quote.truncate(head + self.rng.below(20));
        }
        quote.truncate(1200);
        let router = if v4 { self.server().ip() } else { IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]) };
        let packet = error(router, seen.src, kind, code, rest, &quote);
        packet.hops(1 + self.rng.below(200) as u8)
    }

    fn unsolicited(&mut self, gateway: &Gateway) -> Packet {
        let src = self.server();
        let pool = gateway.settings().pool4.ranges[0].prefix;
        let nth = self.rng.below(pool.size() as usize);
        let host = pool.addresses().nth(nth).unwrap_or(pool.addr());
        let dst = SocketAddr::new(host.into(), self.rng.next() as u16);
        self.between(src, dst, false)
    }

    /// What is refused by name.
    fn odd(&mut self, gateway: &Gateway) -> Packet {
        let (client, server) = (self.client(), self.server());
        let y = SocketAddr::new(gateway.y(server.ip()), server.port());
        let data = self.data();
        match self.rng.below(8) {
            0 => other(client.ip(), y.ip(), [132, 47, 50, 59][self.rng.below(4)], &data),
            1 => other(server.ip(), gateway.settings().pool4.ranges[0].prefix.addr().into(), 47, &data),
            2 => udp(SocketAddr::new(y.ip(), 1), y, &data),
            3 => udp(client, SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, 9]), 1), &data),
            4 => udp(client, y, &data).extension(Extension::routing(1)),
            5 => udp(client, SocketAddr::new(gateway.y(IpAddr::from([192, 168, 1, 1])), 1), &data),
            6 => error(client.ip(), y.ip(), 135, 0, 0, &[0; 16]),
            _ => other(client.ip(), y.ip(), 17, &[1; 64]).extension(Extension::fragment(64, true, 9)),
        }
    }

    fn leave_to_device(&mut self, packet: &Packet, bytes: &mut [u8], offload: &mut Offload) {
        let kind = match &packet.l4 {
            L4::Tcp { .. } => GsoKind::Tcp,
            L4::Udp { .. } => GsoKind::Udp,
            L4::Echo { .. } | L4::Icmp { .. } | L4::Other { .. } => return,
        };
        make_partial(bytes, offload);
        let len = packet.data().len();
        if len > 1 && self.rng.chance(50) {
            offload.gso = Some(Gso { kind, size: 1 + self.rng.below(len) as u16, ecn: false });
        }
    }

    fn any_offload(&mut self) -> Offload {
        let word = |rng: &mut Rng| if rng.chance(50) { rng.below(100) as u16 } else { rng.next() as u16 };
        let rng = &mut self.rng;
        Offload {
            checksum: if rng.chance(50) {
                Checksum::Partial {
                    start: [20, 40, word(rng)][rng.below(3)],
                    field: [6, 16, word(rng)][rng.below(3)],
                }
            } else {
                Checksum::Complete
            },
            gso: rng.chance(50).then(|| Gso {
                kind: if rng.chance(50) { GsoKind::Tcp } else { GsoKind::Udp },
                size: word(rng),
                ecn: rng.chance(50),
            }),
            header_len: word(rng),
        }
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            bytes.push(self.rng.next() as u8);
            return;
        }
        // Headers are where it hurts.
        let span = if self.rng.chance(80) { bytes.len().min(100) } else { bytes.len() };
        let at = self.rng.below(span);
        match self.rng.below(12) {
            0..5 => bytes[at] ^= 1 << self.rng.below(8),
            5..8 => bytes[at] = self.rng.next() as u8,
            8 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.rng.below(5)],
            9 => bytes.truncate(at),
            10 => {
                let len = self.rng.below(40);
                let more = self.rng.bytes(len);
                bytes.splice(at..at, more);
            }
            _ => {
                let end = (at + 1 + self.rng.below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

/// Judges what came out for flawless packets: every packet is flawless again, once the device has done its part
/// and pieces are put together. Gives the number of whole packets.
pub fn judge(out: &[Out]) -> Result<usize, String> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut whole = 0;
    for out in out {
        if out.bytes[0] >> 4 == 6 && out.bytes[6] == 44 {
            pieces.push(out.bytes.clone());
            if out.bytes[43] & 1 == 0 {
                Packet::parse(&reassemble6(&pieces))?;
                pieces.clear();
                whole += 1;
            }
            continue;
        }
        if !pieces.is_empty() {
            return Err("a datagram was not finished".into());
        }
        for packet in segments_or_whole(out) {
            Packet::parse(&packet)?;
            whole += 1;
        }
    }
    if pieces.is_empty() { Ok(whole) } else { Err("a datagram was not finished".into()) }
}

/// Judges what came out for packets with faults: whatever their payload, the IP header is one that routers take.
pub fn judge_headers(out: &[Out]) -> Result<(), String> {
    for out in out {
        let sliced = etherparse::LaxSlicedPacket::from_ip(&out.bytes)
            .map_err(|e| format!("{e}: {:02x?}", out.bytes))?;
        let len = match &sliced.net {
            Some(etherparse::LaxNetSlice::Ipv4(v4)) => {
                let header = v4.header();
                if header.to_header().calc_header_checksum() != header.header_checksum() {
                    return Err("IPv4 header checksum".into());
                }
                usize::from(header.total_len())
            }
            Some(etherparse::LaxNetSlice::Ipv6(v6)) => 40 + usize::from(v6.header().payload_length()),
            Some(etherparse::LaxNetSlice::Arp(_)) | None => return Err("not IP".into()),
        };
        if len != out.bytes.len() {
            return Err(format!("length field says {len} of {}", out.bytes.len()));
        }
    }
    Ok(())
}

fn segments_or_whole(out: &Out) -> Vec<Vec<u8>> {
    if out.offload == Offload::default() {
        vec![out.bytes.clone()]
    } else {
        segments(&out.bytes, &out.offload)
    }
}

fn pick<'a>(rng: &mut Rng, from: &'a [Packet]) -> Option<&'a Packet> {
    if from.is_empty() { None } else { from.get(rng.below(from.len())) }
}

fn fix_ipv4_checksum(bytes: &mut [u8]) {
    let Some(len) = bytes.first().map(|b| usize::from(b & 15) * 4) else { return };
    if bytes[0] >> 4 != 4 || len < 20 || len > bytes.len() {
        return;
    }
    bytes[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes[..len]).ones_complement().to_be();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}
