//! Sequences of packets and time steps through a whole gateway of one to three workers. Every packet's outputs are
//! judged, and at the end, when all time has passed, nothing may be left.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use sampan::nat64::settings::{Change, Filter, Filtering, Hops, Mtu, Pool4Range, Settings, Timers, Unit};
use sampan::wire::packet::{Checksum, Gso, GsoKind, Offload};

use super::box_judge::Judge;
use super::build::{self, Flow};
use super::bytes::Bytes;
use super::gateway::{Gateway, settings};
use super::naive::{self, Ip};

/// Steps of one sequence at most.
const STEPS: usize = 96;
/// Outputs that later packets may answer, quote or repeat.
const MEMORY: usize = 24;

/// Data: three bytes of settings, then steps.
pub fn whole_box(data: &[u8]) {
    let mut data = Bytes::new(data);
    let workers = 1 + data.below(3) as u16;
    let gateway = Gateway::new(settings_from(&mut data), workers);
    let mut run = Run { data, gateway, judge: Judge::default(), seen: Vec::new(), refusing: false };
    for _ in 0..STEPS {
        if run.data.is_empty() {
            break;
        }
        run.step();
    }
    run.end();
}

fn settings_from(data: &mut Bytes<'_>) -> Settings {
    let (look, mtus) = (data.byte(), data.byte());
    let mut s = settings();
    s.pool6.push("2001:db8:9900::/40".parse().unwrap());
    s.filtering = filtering(look);
    s.hops = if look & 8 == 0 { Hops::Translator } else { Hops::KernelForwards };
    s.subscriber_len = if look & 16 == 0 { 128 } else { 56 };
    if look & 32 != 0 {
        (s.limits.sessions, s.limits.subscribers) = (12, 6);
        (s.fragments.datagrams, s.fragments.bytes, s.fragments.pieces) = (4, 8 * 1536, 6);
    }
    if look & 64 != 0 {
        // Few ports: blocks run out before tables do.
        s.pool4.ranges[0].ports = 2000..=2319;
    }
    if look & 128 != 0 {
        s.limits.icmp_errors_per_second = 2;
    }
    s.mss_clamp = (mtus & 64 != 0).then_some(1220);
    s.mtu = Mtu {
        v6: [1500, 1280, 9000, 1492][usize::from(mtus & 3)],
        v4: [1500, 1400, 576, 9000, 68, 1280, 1260, 1500][usize::from(mtus >> 2 & 7)],
        lowest_ipv6: if mtus & 128 == 0 { 1280 } else { 1500 },
    };
    s
}

fn filtering(look: u8) -> Filtering {
    let filter =
        |bit: u8| if look & bit == 0 { Filter::EndpointIndependent } else { Filter::AddressDependent };
    Filtering {
        tcp: filter(1),
        udp: filter(1),
        icmp: filter(2),
        drop_external_tcp: look & 4 != 0,
        ..Filtering::default()
    }
}

struct Run<'a> {
    data: Bytes<'a>,
    gateway: Gateway,
    judge: Judge,
    /// Outputs, newest last.
    seen: Vec<(Vec<u8>, Ip)>,
    refusing: bool,
}

impl Run<'_> {
    fn step(&mut self) {
        match self.data.byte() & 15 {
            0..=3 => {
                let packet = self.outgoing();
                self.send(packet, Offload::default());
            }
            4 | 5 => {
                let packet = self.answer();
                self.send(packet, Offload::default());
            }
            6 => {
                let packet = self.error();
                self.send(packet, Offload::default());
            }
            7 => self.in_fragments(),
            8 => {
                let len = self.data.byte().into();
                let packet = self.data.take(len).to_vec();
                self.send(packet, Offload::default());
            }
            9 => {
                let steps = [1, 100, 1_900, 2_100, 7_000, 61_000, 121_000, 241_000, 301_000, 7_201_000];
                let time = Duration::from_millis(self.data.one_of(&steps));
                let told = self.gateway.advance(time);
                self.remember(&told);
            }
            10 => {
                let packet = self.hairpin();
                self.send(packet, Offload::default());
            }
            11 => {
                let mut packet = self.any();
                build::spoil(&mut self.data, &mut packet);
                self.send(packet, Offload::default());
            }
            12 => self.unfinished(),
            13 => self.change(),
            14 => {
                self.refusing = self.data.once_in(3);
                self.gateway.refuse_output(self.refusing);
            }
            _ => self.burst(),
        }
    }

    /// A packet of a client, mostly of one of a few flows.
    fn outgoing(&mut self) -> Vec<u8> {
        let who = self.data.byte();
        let what = self.data.byte();
        let src = match who & 31 {
            31 => IpAddr::from([0u16; 8]),
            30 => self.gateway.settings().pool6[0].embed(Ipv4Addr::new(203, 0, 113, 1)).into(),
            29 => build::addr6(0x5555, who).into(),
            _ => build::addr6(1 + u16::from(who >> 2 & 1), who & 3).into(),
        };
        let peer = match what >> 5 {
            7 => Ipv4Addr::new(10, 0, 0, 1),
            6 => Ipv4Addr::new(224, 0, 0, 1),
            n => Ipv4Addr::new(203, 0, 113, n),
        };
        let prefix = usize::from(who >> 5 == 7);
        let dst = self.gateway.settings().pool6[prefix].embed(peer);
        let flow = self.flow(what, 4000 + u16::from(who >> 3 & 3), 80 + u16::from(what >> 3 & 1));
        build::packet(&mut self.data, src, dst.into(), flow)
    }

    fn flow(&mut self, what: u8, src: u16, dst: u16) -> Flow {
        match what & 3 {
            0 => Flow::Tcp { src, dst, flags: self.data.one_of(&[2, 2, 16, 24, 17, 4, 18, 20, 0, 3]) },
            1 | 2 => Flow::Udp { src, dst },
            _ => Flow::Echo { reply: what & 4 != 0, id: src },
        }
    }

    /// An output of the family wanted, or any.
    fn remembered(&mut self, v6: bool) -> Option<(Vec<u8>, Ip)> {
        let at = self.data.below(MEMORY);
        let fits = |(_, ip): &&(Vec<u8>, Ip)| ip.is_v6() == v6;
        let count = self.seen.iter().filter(fits).count();
        self.seen.iter().rev().filter(fits).nth(at % count.max(1)).cloned()
    }

    /// A packet from IPv4 to a mapping that was seen, from the peer it was made for or from another one.
    fn answer(&mut self) -> Vec<u8> {
        let look = self.data.byte();
        let Some((bytes, ip)) = self.remembered(false) else { return self.outgoing() };
        let head = |i: usize| bytes.get(ip.l4 + i..ip.l4 + i + 2).map_or(0, |w| naive::word(w, 0));
        let peer: IpAddr = match look >> 4 {
            0 => [203, 0, 113, 77].into(),
            1 => [127, 0, 0, 1].into(),
            _ => ip.dst,
        };
        let flow = match ip.protocol {
            naive::TCP => Flow::Tcp {
                src: head(2),
                dst: head(0),
                flags: self.data.one_of(&[18, 16, 24, 17, 4, 2, 20, 0]),
            },
            naive::UDP => Flow::Udp { src: if look & 8 == 0 { head(2) } else { 9 }, dst: head(0) },
            _ => Flow::Echo { reply: look & 8 == 0, id: head(4) },
        };
        build::packet(&mut self.data, peer, ip.src, flow)
    }

    /// An ICMP error about an output, from its receiver or a router on the way.
    fn error(&mut self) -> Vec<u8> {
        let look = self.data.byte();
        let Some((bytes, ip)) = self.remembered(look & 1 == 1) else { return self.outgoing() };
        let kinds: &[u8] = if ip.is_v6() { &[1, 2, 3, 4, 2, 1] } else { &[3, 11, 12, 3, 3, 5] };
        let (kind, code) = (self.data.one_of(kinds), self.data.byte() & 15);
        let rest = u32::from(self.data.word());
        let router: IpAddr = match (look & 2 == 0, ip.is_v6()) {
            (true, _) => ip.dst,
            (false, true) => build::addr6(9, 9).into(),
            (false, false) => [192, 0, 2, 200].into(),
        };
        let keep = if look & 4 == 0 { bytes.len() } else { self.data.byte().into() };
        let quote = &bytes[..keep.min(bytes.len()).min(1200)];
        build::icmp_error(router, ip.src, 1 + (look >> 3), kind, code, rest, quote)
    }

    fn hairpin(&mut self) -> Vec<u8> {
        let who = self.data.byte();
        let what = self.data.byte();
        let Some((bytes, ip)) = self.remembered(false) else { return self.outgoing() };
        let (IpAddr::V4(pool), Some(head)) = (ip.src, bytes.get(ip.l4..ip.l4 + 8)) else {
            return self.outgoing();
        };
        let dst = self.gateway.settings().pool6[0].embed(pool);
        let (port, id) = (naive::word(head, 0), naive::word(head, 4));
        let flow = match ip.protocol {
            naive::TCP => Flow::Tcp { src: 4100, dst: port, flags: self.data.one_of(&[2, 16, 17, 4]) },
            naive::UDP => Flow::Udp { src: 4100 + u16::from(what & 1), dst: port },
            _ => Flow::Echo { reply: what & 1 == 0, id },
        };
        build::packet(&mut self.data, build::addr6(1, who & 3).into(), dst.into(), flow)
    }

    fn any(&mut self) -> Vec<u8> {
        match self.data.below(4) {
            0 => self.outgoing(),
            1 => self.answer(),
            2 => self.error(),
            _ => self.hairpin(),
        }
    }

    /// A packet in fragments: in some order, with some missing, sent twice or spoilt.
    fn in_fragments(&mut self) {
        let whole = self.any();
        let look = self.data.byte();
        let room = [8, 24, 512, 1232, 1400, 1480, 560, 16][usize::from(look & 7)];
        let id = self.data.byte().into();
        let Ok(ip) = naive::read(&whole, true) else { return };
        if (ip.len - ip.l4).div_ceil(room) > 16 || ip.fragment.is_some() || ip.routed {
            return;
        }
        let mut pieces = build::fragments(&whole, room, id);
        if look & 8 != 0 {
            pieces.reverse();
        }
        if look & 16 != 0 && pieces.len() > 1 {
            let at = self.data.below(pieces.len());
            let piece = pieces.remove(at);
            if look & 32 != 0 {
                pieces.push(piece.clone());
                pieces.push(piece);
            }
        }
        let spoilt = look & 64 != 0;
        if spoilt {
            let at = self.data.below(pieces.len());
            if let Some(piece) = pieces.get_mut(at) {
                build::spoil(&mut self.data, piece);
            }
        }
        for piece in pieces {
            self.judge.piece_of(&piece, &whole, spoilt);
            self.send(piece, Offload::default());
        }
    }

    /// A packet whose checksum or segmentation is left to be done, sometimes with wrong words about it.
    fn unfinished(&mut self) {
        let look = self.data.byte();
        let size = [1, 100, 1212, 1220, 1400, 1440, 1460, 536][usize::from(look & 7)];
        let packet = if look & 8 == 0 { self.outgoing() } else { self.answer() };
        let Ok(ip) = naive::read(&packet, true) else { return };
        let (kind, field) = match ip.protocol {
            naive::TCP => (GsoKind::Tcp, 16),
            _ => (GsoKind::Udp, 6),
        };
        let mut offload = Offload {
            checksum: Checksum::Partial { start: ip.l4 as u16, field },
            gso: (look & 16 != 0).then_some(Gso { kind, size, ecn: look & 32 != 0 }),
            header_len: 0,
        };
        let mut packet = packet;
        if ip.protocol != naive::TCP && ip.protocol != naive::UDP || look & 64 != 0 {
            offload.checksum = Checksum::Complete;
        } else if naive::transport(&packet, &ip).is_ok() && ip.fragment.is_none() {
            let len = ip.len - ip.l4;
            let sum = naive::sum(&[&naive::pseudo(&ip, ip.protocol, len)]);
            naive::put(&mut packet, ip.l4 + usize::from(field), sum);
        }
        if look & 128 != 0 && self.data.once_in(4) {
            offload = super::wire_parse::offload(self.data.take(8));
        }
        self.send(packet, offload);
    }

    fn change(&mut self) {
        let look = self.data.byte();
        let change = match look & 7 {
            0 => Change::Units(Vec::new()),
            1 => {
                let prefixes = vec!["2001:db8:1::/48".parse().unwrap()];
                Change::Units(vec![Unit { name: "one".to_owned(), prefixes }])
            }
            2 => Change::Filtering(filtering(look >> 3)),
            3 => Change::Allow(Vec::new()),
            4 => Change::Allow(vec!["203.0.113.0/24".parse().unwrap()]),
            5 => Change::Timers(Timers { udp: Duration::from_secs(120), ..Timers::default() }),
            _ => {
                let ports = if look & 8 == 0 { 1024..=65535 } else { 2000..=2319 };
                let prefix = if look & 16 == 0 { "198.51.100.1/32" } else { "198.51.100.0/31" };
                Change::Pool4(vec![Pool4Range { prefix: prefix.parse().unwrap(), ports }])
            }
        };
        self.gateway.change(&change);
    }

    /// Several packets at once, on several queues.
    fn burst(&mut self) {
        for _ in 0..2 + self.data.below(6) {
            let packet = self.any();
            let queue = self.data.byte().into();
            self.judge.unknown_piece(&packet);
            self.gateway.feed(queue, packet, Offload::default());
        }
        let out = self.gateway.run();
        self.remember(&out);
    }

    fn send(&mut self, packet: Vec<u8>, offload: Offload) {
        let queue = self.data.byte().into();
        let out = self.judge.send(&mut self.gateway, queue, packet, offload, self.refusing);
        self.remember(&out);
    }

    fn remember(&mut self, out: &[super::judge::Sent]) {
        for (bytes, offload) in out {
            let ip = super::judge::well_formed(bytes, *offload);
            self.seen.push((bytes.clone(), ip));
        }
        let excess = self.seen.len().saturating_sub(MEMORY);
        self.seen.drain(..excess);
    }

    /// All time passes; then there must be nothing left.
    fn end(mut self) {
        self.judge.tables(&self.gateway);
        // Fragments wait two seconds, SYNs six; an established session that is over has a last chance of four minutes.
        let told = self.gateway.advance(Duration::from_secs(7));
        self.remember(&told);
        for _ in 0..3 {
            let longest = self.gateway.session_rows().iter().map(|row| row.expires_s).max();
            let told = self.gateway.advance(Duration::from_secs(longest.map_or(0, |s| s + 1)));
            self.remember(&told);
        }
        assert_eq!(self.gateway.session_rows(), [], "sessions left");
        assert_eq!(self.gateway.bib_rows(), [], "bindings left");
        assert_eq!(self.gateway.subscribers(), 0, "subscribers left");
        assert_eq!(self.gateway.pool().usage().1, 0, "port blocks left");
        assert_eq!(self.gateway.totals().held, 0, "fragments or SYNs left");
    }
}
