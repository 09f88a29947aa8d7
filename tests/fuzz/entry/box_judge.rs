//! Judges the outputs of a whole gateway, packet by packet, against its own tables and what went in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sampan::daemon::counters::Totals;
use sampan::nat64::settings::{Hops, Protocol, SessionRow};
use sampan::verdict::DropReason;
use sampan::wire::packet::Offload;
use sampan::xlat::FlowPair;

use super::gateway::Gateway;
use super::judge::{self, Rules, Sent};
use super::judge_error::{self, Links};
use super::naive::{self, Ip, word};

type Key = (IpAddr, IpAddr, u32, u8);

/// What is known about fragments on their way.
#[derive(Default)]
pub struct Judge {
    /// The datagram that fragments of this key are of; `None` when they are of several or spoilt.
    sets: BTreeMap<Key, Option<Vec<u8>>>,
}

impl Judge {
    /// Notes that `piece` is a fragment of `whole`, or that it is spoilt.
    pub fn piece_of(&mut self, piece: &[u8], whole: &[u8], spoilt: bool) {
        let Some(key) = key(piece) else { return };
        let known = self.sets.entry(key).or_insert_with(|| Some(whole.to_vec()));
        if spoilt || known.as_deref() != Some(whole) {
            *known = None;
        }
    }

    /// Notes that `packet` may be a fragment of anything.
    pub fn unknown_piece(&mut self, packet: &[u8]) {
        if let Some(key) = key(packet) {
            self.sets.insert(key, None);
        }
    }

    /// Sends one packet and judges what comes out.
    pub fn send(
        &mut self,
        gateway: &mut Gateway,
        queue: usize,
        packet: Vec<u8>,
        offload: Offload,
        refusing: bool,
    ) -> Vec<Sent> {
        let before = gateway.totals();
        let (rows, evicted) = (gateway.session_rows(), gateway.evicted());
        gateway.feed(queue, packet.clone(), offload);
        let out = gateway.run();
        let after = gateway.totals();
        let mut fate = Fate::between(&before, &after);
        fate.gave_way = gateway.evicted() > evicted;
        let read = naive::read(&packet, true).and_then(|ip| naive::transport(&packet, &ip).map(|()| ip));
        let Ok(ip) = read else {
            assert_eq!(
                (out.len(), fate.translated, fate.held),
                (0, 0, 0),
                "a broken packet went on: {packet:02x?}"
            );
            return out;
        };
        let packet = &packet[..ip.len];
        if ip.fragment.is_some() {
            self.fragment(gateway, &ip, packet, &out, &fate);
            return out;
        }
        if naive::is_icmp_error(packet, &ip) {
            assert_eq!(gateway.session_rows(), rows, "D-52: errors change no session");
            assert_eq!(fate.originated, 0, "D-67: an error about an error");
        }
        let turns = turns(gateway, &ip);
        match (fate.translated, fate.originated) {
            (0, 0) => assert_eq!(out.len(), 0),
            (0, 1) if turns => {
                assert!(naive::is_icmp_error(&out[0].0, &judge::well_formed(&out[0].0, out[0].1)))
            }
            (0, 1) => judge::originated(packet, offload, &out[0]),
            (1, 0) => translation(gateway, packet, offload, &out, false, fate.gave_way),
            other => panic!("one packet made {other:?} translated and originated"),
        }
        if fate.translated == 0 && !turns && !refusing {
            // An unanswered session may have given way before the packet proved to be one that cannot pass.
            let (now, evicted) = (gateway.session_rows(), gateway.evicted() - evicted);
            assert_eq!(now.len() as u64 + evicted, rows.len() as u64, "dropped: {:?}", fate.drops);
            let changed = now.iter().find(|row| !rows.contains(row));
            assert_eq!(changed, None, "what is dropped changes no state: {:?}", fate.drops);
        }
        out
    }

    fn fragment(&mut self, gateway: &Gateway, ip: &Ip, packet: &[u8], out: &[Sent], fate: &Fate) {
        let whole = key(packet).and_then(|key| self.sets.get(&key).cloned()).flatten();
        match (fate.translated, fate.originated, whole) {
            (0, 0, _) => assert_eq!(out.len(), 0),
            // About the datagram that was put together; RFC 1812 §4.3.2.7 does not forbid it.
            (0, 1, _) => assert!(naive::is_icmp_error(&out[0].0, &judge::well_formed(&out[0].0, out[0].1))),
            (1, 0, Some(whole)) => {
                let mut whole = whole;
                // The pieces carried the base header only.
                if ip.is_v6() {
                    let Ok(read) = naive::read(&whole, true) else { return };
                    whole.drain(40..read.l4);
                    whole[6] = read.protocol;
                    let len = whole.len() as u16 - 40;
                    naive::put(&mut whole, 4, len);
                }
                translation(gateway, &whole, Offload::default(), out, true, fate.gave_way);
            }
            (1, 0, None) => {}
            other => panic!("a fragment made {other:?}"),
        }
    }

    /// The tables agree with each other.
    pub fn tables(&self, gateway: &Gateway) {
        let (sessions, bindings) = (gateway.session_rows(), gateway.bib_rows());
        let number = |p: Protocol| p as u8;
        let sixes: BTreeSet<_> = bindings.iter().map(|b| (number(b.protocol), b.src6, b.src6_port)).collect();
        let fours: BTreeSet<_> = bindings.iter().map(|b| (number(b.protocol), b.src4, b.src4_port)).collect();
        assert_eq!(
            (sixes.len(), fours.len()),
            (bindings.len(), bindings.len()),
            "F-12: one binding for each key"
        );
        for b in &bindings {
            let own = sessions.iter().filter(|s| {
                (s.protocol, s.src6, s.src6_port) == (b.protocol, b.src6, b.src6_port)
                    && (s.src4, s.src4_port) == (b.src4, b.src4_port)
            });
            assert_eq!(own.count(), b.sessions as usize, "sessions of {b:?}");
            assert!(gateway.pool().contains(b.src4), "{b:?} is not in the pool");
        }
        let counted: u32 = bindings.iter().map(|b| b.sessions).sum();
        assert_eq!(counted as usize, sessions.len(), "every session has its binding");
        assert_eq!(
            gateway.pool().usage().1 == 0,
            bindings.is_empty(),
            "blocks are leased while somebody needs them"
        );
    }
}

/// What the counters say became of one packet.
struct Fate {
    translated: u64,
    originated: u64,
    held: u64,
    drops: Vec<&'static str>,
    /// An unanswered session gave way to another one.
    gave_way: bool,
}

impl Fate {
    fn between(before: &Totals, after: &Totals) -> Self {
        let dropped = |r: &&DropReason| after.drops[**r as usize] > before.drops[**r as usize];
        Self {
            translated: after.translated - before.translated,
            originated: after.out_originated - before.out_originated,
            held: after.held.saturating_sub(before.held),
            drops: DropReason::ALL.iter().filter(dropped).map(|r| r.name()).collect(),
            gave_way: false,
        }
    }
}

fn key(packet: &[u8]) -> Option<Key> {
    let ip = naive::read(packet, true).ok()?;
    ip.fragment?;
    Some((ip.src, ip.dst, ip.id, if ip.is_v6() { 0 } else { ip.protocol }))
}

/// Whether a packet from IPv6 is for another client (RFC 6146 §3.8).
fn turns(gateway: &Gateway, ip: &Ip) -> bool {
    let IpAddr::V6(dst) = ip.dst else { return false };
    let v4 = gateway.settings().pool6.iter().find_map(|p| p.extract(dst));
    v4.is_some_and(|v4| gateway.pool().contains(v4))
}

/// `out` is the translation of `packet`, whole or put together, and a session says so.
fn translation(
    gateway: &Gateway,
    packet: &[u8],
    offload: Offload,
    out: &[Sent],
    reassembled: bool,
    gave_way: bool,
) {
    let settings = gateway.settings();
    let Ok(ip) = naive::read(packet, true) else { panic!("judged before") };
    let hops = match settings.hops {
        Hops::Translator => ip.hops.wrapping_sub(1),
        Hops::KernelForwards => ip.hops.saturating_add(1),
    };
    assert!(ip.hops > u8::from(settings.hops == Hops::Translator), "B-08, C-05: {} hops left", ip.hops);
    let hairpinned = turns(gateway, &ip);
    let rows = gateway.session_rows();
    if naive::is_icmp_error(packet, &ip) {
        let links = Links { mtu6: settings.mtu.v6.into(), mtu4: settings.mtu.v4.into() };
        let Some(error) = judge_error::read(packet) else { panic!("a bad error went on: {packet:02x?}") };
        assert_eq!(out.len(), 1);
        if hairpinned {
            return;
        }
        let about = |row: &&SessionRow| error.is_about(&flow(row), number(row.protocol), !ip.is_v6());
        let Some(row) = rows.iter().find(about) else { panic!("an error about no session went on") };
        judge_error::translated(&error, &out[0], &flow(row), links, hops);
        return;
    }
    let rules = Rules {
        mtu6: settings.mtu.v6.into(),
        mtu4: settings.mtu.v4.into(),
        lowest_ipv6_mtu: settings.mtu.lowest_ipv6.into(),
        hops,
        reassembled,
        mss: settings.mss_clamp,
        hairpinned,
    };
    judge::translated(packet, offload, out, &rules);
    let first = judge::well_formed(&out[0].0, out[0].1);
    let (ports, new) = (ports(packet, &ip), ports(&out[0].0, &first));
    // a client may write any suffix; the session has none.
    let plain = Ip { dst: without_suffix(gateway, ip.dst), ..ip };
    let found = rows.iter().any(|row| is_of(row, &plain, ports) && (hairpinned || is_of(row, &first, new)));
    // The second half of a hairpin may take the place of the first's session when the table is full.
    let replaced = hairpinned && gave_way;
    assert!(found || replaced, "no session for {:?} {ports:?} that became {:?} {new:?}", ip, first);
}

fn without_suffix(gateway: &Gateway, addr: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = addr else { return addr };
    gateway.settings().pool6.iter().find_map(|p| Some(p.embed(p.extract(v6)?).into())).unwrap_or(addr)
}

/// Source and destination port, or the identifier twice.
fn ports(packet: &[u8], ip: &Ip) -> (u16, u16) {
    let at = |i: usize| word(packet, ip.l4 + i);
    if ip.protocol == ip.icmp() { (at(4), at(4)) } else { (at(0), at(2)) }
}

/// Whether a packet of this header, on either side and in either direction, belongs to the session.
fn is_of(row: &SessionRow, ip: &Ip, ports: (u16, u16)) -> bool {
    let is_echo = row.protocol == Protocol::Icmp;
    let (client, peer): ((IpAddr, u16), (IpAddr, u16)) = match ip.is_v6() {
        true => ((row.src6.into(), row.src6_port), (row.dst6.into(), row.dst4_port)),
        false => ((row.src4.into(), row.src4_port), (row.dst4.into(), row.dst4_port)),
    };
    let peer_port = if is_echo { client.1 } else { peer.1 };
    let protocol = if is_echo { ip.icmp() } else { number(row.protocol) };
    let there = (client.0, peer.0, (client.1, peer_port));
    let back = (peer.0, client.0, (peer_port, client.1));
    let this = (ip.src, ip.dst, ports);
    protocol == ip.protocol && (this == there || this == back)
}

/// The protocol number on the IPv4 side.
pub fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => naive::TCP,
        Protocol::Udp => naive::UDP,
        Protocol::Icmp => naive::ICMP,
    }
}

/// The flow of a session.
pub fn flow(row: &SessionRow) -> FlowPair {
    FlowPair {
        src6: row.src6,
        port6: row.src6_port,
        dst6: row.dst6,
        src4: row.src4,
        port4: row.src4_port,
        dst4: row.dst4,
        peer_port: row.dst4_port,
    }
}
