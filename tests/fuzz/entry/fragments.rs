//! Sequences of fragments and time steps through the reassembly store, beside a slow model of what it should do.

use std::collections::BTreeMap;
use std::time::Duration;

use sampan::nat64::reassembly::{Joined, Reassembly};
use sampan::nat64::settings::Fragments;
use sampan::time::Instant;
use sampan::verdict::DropReason;
use sampan::wire::packet::{PacketBuf, View};

use super::build;
use super::bytes::Bytes;
use super::naive::{self, Ip};

const STEPS: usize = 64;

/// Limits of a store, and a sequence of time steps in front of packets.
pub struct Sequence {
    pub limits: Fragments,
    /// Whether the store is so small that it runs full.
    pub tiny: bool,
    pub steps: Vec<(Option<Duration>, Vec<u8>)>,
}

/// Data: one byte of limits, then steps.
pub fn sequence(data: &[u8]) -> Sequence {
    let mut data = Bytes::new(data);
    let look = data.byte();
    // A store so small that it runs full is held to its books only; the model knows no chunks.
    let tiny = look & 1 == 1;
    let limits = Fragments {
        bytes: if tiny { 6 * 1536 } else { 12 * 24 * 1536 },
        datagrams: [12, 4][usize::from(look >> 1 & 1)],
        datagrams_per_source: [3, 12][usize::from(look >> 2 & 1)],
        pieces: [6, 24][usize::from(look >> 3 & 1)],
        timeout: Duration::from_secs(2),
    };
    let mut steps = Vec::new();
    while steps.len() < STEPS && !data.is_empty() {
        let passes = data.once_in(12).then(|| Duration::from_millis(u64::from(data.byte()) * 20));
        steps.push((passes, piece(&mut data)));
    }
    Sequence { limits, tiny, steps }
}

/// Data: as [`sequence`] reads it.
pub fn fragments(data: &[u8]) {
    let Sequence { limits, tiny, steps } = sequence(data);
    let mut store = Reassembly::new(limits, 7);
    let mut model = Model { limits, sets: BTreeMap::new() };
    let mut now = Instant::from_secs(10);
    let mut held = 0u32;
    let mut packet = PacketBuf::new();
    for (passes, bytes) in steps {
        if let Some(time) = passes {
            now = now + time;
            while let Some(lost) = store.expire(now) {
                held -= lost;
            }
            model.expire(now);
        }
        packet.fill(&bytes);
        let Ok(view) = packet.parse() else { continue };
        let ip = match naive::read(packet.bytes(), true) {
            Ok(ip) => ip,
            Err(e) => panic!("bad {e} was read"),
        };
        if ip.fragment.is_none() {
            continue;
        }
        let before = packet.bytes().to_vec();
        let joined = store.join(now, &view, &mut packet);
        match joined {
            Joined::Waiting => held += 1,
            Joined::Whole { held: earlier } => {
                held -= earlier;
                check_whole(&before, &ip, &mut packet);
            }
            Joined::Refused { held: earlier, .. } => held -= earlier,
        }
        if !tiny {
            let expected = model.join(now, &ip, &before[ip.l4..ip.len]);
            assert_eq!(joined, expected.0, "{ip:?}");
            if let Some(payload) = expected.1 {
                assert!(packet.bytes().ends_with(&payload), "the datagram is the pieces in order");
            }
            assert_eq!(store.len() as usize, model.sets.len());
        }
    }
    now = now + limits.timeout;
    while let Some(lost) = store.expire(now) {
        held -= lost;
    }
    assert_eq!((held, store.len()), (0, 0), "E-24: nothing stays behind");
    if tiny {
        all_room_is_back(&mut store, limits, now);
    }
}

/// Of the pattern that datagrams are filled with, bytes.
const PERIOD: usize = 13 * 16;
/// Tells places in a datagram apart; the TCP data offset makes sense in whatever lies at the front.
const PATTERN: [u8; PERIOD + 1480] = {
    let mut pattern = [0; PERIOD + 1480];
    let mut i = 0;
    while i < pattern.len() {
        pattern[i] = 0x50 ^ ((i / 13) as u8 & 0x0f);
        i += 1;
    }
    pattern
};

/// A fragment of one of a few datagrams, mostly cut where others are; or any bytes.
fn piece(data: &mut Bytes<'_>) -> Vec<u8> {
    let kind = data.byte();
    if kind == 255 {
        let len = data.byte().into();
        return data.take(len).to_vec();
    }
    let place = data.byte();
    let (host, id) = (place & 3, u32::from(place >> 2 & 3));
    let protocol = [naive::UDP, naive::UDP, naive::TCP, naive::ICMPV6][usize::from(place >> 6)];
    let is_v6 = kind & 1 == 0;
    let (src, dst) = if is_v6 {
        (build::addr6(1, host).into(), build::addr6(0x64, 9).into())
    } else {
        (std::net::IpAddr::from([203, 0, 113, host]), [198, 51, 100, 1].into())
    };
    let unit = [8, 16, 64, 1480][usize::from(kind >> 1 & 3)];
    let offset = usize::from(data.byte()) * if kind & 8 == 0 { unit / 8 } else { unit } / 8 * 8;
    let len = if kind & 16 == 0 { unit } else { usize::from(data.byte()) };
    let more = kind & 32 == 0;
    let salt = if kind & 64 == 0 { 0 } else { data.byte() };
    let mut payload = PATTERN[offset % PERIOD..][..len].to_vec();
    if salt != 0 {
        payload.iter_mut().for_each(|b| *b ^= salt);
    }
    let hops = 60 + (kind >> 5 & 1);
    let whole = build::ip(src, dst, hops, protocol, &[]);
    let Ok(ip) = naive::read(&whole, true) else { return whole };
    let mut piece = build::fragment(&whole, &ip, offset.min(65_528), more, id, &payload);
    if kind & 128 != 0 && data.once_in(8) {
        build::spoil(data, &mut piece);
    }
    piece
}

/// A whole datagram has the first piece's header fields and says that it was put together.
fn check_whole(last: &[u8], piece: &Ip, packet: &mut PacketBuf) {
    assert!(packet.reassembled);
    let bytes = packet.bytes().to_vec();
    let Ok(ip) = naive::read(&bytes, true) else { panic!("no packet: {bytes:02x?} after {last:02x?}") };
    assert_eq!((ip.src, ip.dst, ip.id, ip.len), (piece.src, piece.dst, piece.id, bytes.len()));
    assert!(ip.fragment.is_none() && !ip.df && !ip.has_options);
    assert_eq!(ip.has_fragment_header, ip.is_v6());
    // Reading it may fail (a datagram can be nonsense inside); that must not cost the flag.
    match packet.parse() {
        Ok(View::V4(_) | View::V6(_)) => assert_eq!(naive::transport(&bytes, &ip), Ok(())),
        Err(_) => assert!(naive::transport(&bytes, &ip).is_err() || ip.has_fragment_header),
    }
    assert!(packet.reassembled);
}

/// Takes as many pieces again as there are chunks: none was lost.
fn all_room_is_back(store: &mut Reassembly, limits: Fragments, now: Instant) {
    let mut packet = PacketBuf::new();
    let mut taken = 0;
    for i in 0..limits.datagrams.min(limits.datagrams_per_source) {
        for at in 1..=limits.pieces {
            let whole = build::ip([203, 0, 113, 1].into(), [198, 51, 100, 1].into(), 9, naive::UDP, &[]);
            let Ok(ip) = naive::read(&whole, true) else { return };
            packet.fill(&build::fragment(&whole, &ip, at as usize * 8, true, i, &[0; 8]));
            let Ok(view) = packet.parse() else { panic!("a fragment that cannot be read") };
            match store.join(now, &view, &mut packet) {
                Joined::Waiting => taken += 1,
                other @ (Joined::Whole { .. } | Joined::Refused { .. }) => {
                    assert!(taken >= 6, "only {taken} pieces go in: {other:?}");
                    return;
                }
            }
        }
    }
    assert!(taken >= 6, "only {taken} pieces went in");
}

type Key = (std::net::IpAddr, std::net::IpAddr, u32, u8);

#[derive(Default)]
struct Set {
    since: Instant,
    pieces: BTreeMap<usize, Vec<u8>>,
    total: Option<usize>,
    given_up: bool,
}

/// RFC 791, RFC 815, RFC 8200 §4.5, RFC 5722 and our limits, as simple as can be.
struct Model {
    limits: Fragments,
    sets: BTreeMap<Key, Set>,
}

impl Model {
    fn expire(&mut self, now: Instant) {
        self.sets.retain(|_, set| now.since(set.since) < self.limits.timeout);
    }

    /// What the store should answer, and the payload of a datagram that became whole.
    fn join(&mut self, now: Instant, ip: &Ip, payload: &[u8]) -> (Joined, Option<Vec<u8>>) {
        let refuse = |reason, held| (Joined::Refused { reason, held }, None);
        let Some((offset, more)) = ip.fragment else { return refuse(DropReason::BadLength, 0) };
        if ip.routed {
            let reason = if ip.is_v6() { DropReason::RoutingHeader } else { DropReason::SourceRoute };
            return refuse(reason, 0);
        }
        let end = offset + payload.len();
        if payload.is_empty() || more && !payload.len().is_multiple_of(8) || end > 65_515 {
            return refuse(DropReason::BadLength, 0);
        }
        let least = match ip.protocol {
            naive::TCP => payload.get(12).map_or(20, |b| usize::from(b >> 4) * 4).max(20),
            naive::UDP | naive::ICMP | naive::ICMPV6 => 8,
            _ => 0,
        };
        if offset == 0 && payload.len() < least {
            return refuse(DropReason::FragmentTiny, 0);
        }
        let key = (ip.src, ip.dst, ip.id, if ip.is_v6() { 0 } else { ip.protocol });
        if !self.sets.contains_key(&key) {
            let of_source = self.sets.keys().filter(|k| k.0 == ip.src).count();
            if of_source >= self.limits.datagrams_per_source as usize {
                return refuse(DropReason::FragmentLimit, 0);
            }
            if self.sets.len() >= self.limits.datagrams as usize {
                return refuse(DropReason::FragmentStoreFull, 0);
            }
            self.sets.insert(key, Set { since: now, ..Set::default() });
        }
        let Some(set) = self.sets.get_mut(&key) else { return refuse(DropReason::FragmentStoreFull, 0) };
        if set.given_up {
            return refuse(DropReason::FragmentOverlap, 0);
        }
        let held = set.pieces.len() as u32;
        let past_end = set.total.is_some_and(|total| end > total || !more && end != total);
        let same = set.pieces.get(&offset).is_some_and(|p| p == payload);
        let overlaps = set.pieces.iter().any(|(at, p)| *at < end && offset < at + p.len());
        let behind_last = !more && set.pieces.iter().any(|(at, p)| at + p.len() > end);
        let reason = if past_end {
            DropReason::FragmentOverlap
        } else if same {
            return refuse(DropReason::FragmentDuplicate, 0);
        } else if overlaps || behind_last {
            DropReason::FragmentOverlap
        } else if held >= self.limits.pieces {
            DropReason::FragmentLimit
        } else {
            set.pieces.insert(offset, payload.to_vec());
            set.total = if more { set.total } else { Some(end) };
            let bytes = set.pieces.values().map(Vec::len).sum::<usize>();
            if set.total != Some(bytes) {
                return (Joined::Waiting, None);
            }
            let pieces: Vec<&[u8]> = set.pieces.values().map(Vec::as_slice).collect();
            let whole = pieces.concat();
            self.sets.remove(&key);
            return (Joined::Whole { held }, Some(whole));
        };
        set.given_up = true;
        set.pieces.clear();
        refuse(reason, held)
    }
}
