//! Fragments become whole datagrams before anything else happens to them (RFC 6146 §3.4; E-05: one mechanism for
//! both families).
//!
//! Fragments wait in chunks of a fixed store. A set of fragments is given up when it overlaps itself (RFC 5722 §4 for
//! IPv6, the same policy for IPv4), when it would grow beyond a legal packet, or when its time is over. A set that
//! was given up is remembered until then, so that its late pieces find their end too.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use foldhash::quality::FixedState;

use crate::nat64::index::Index;
use crate::nat64::settings::Fragments;
use crate::nat64::slab::{NIL, Slab};
use crate::time::Instant;
use crate::verdict::DropReason;
use crate::wire::fragment::{self, Fragment};
use crate::wire::packet::{PacketBuf, View};
use crate::wire::{ipv4, ipv6, l4};

/// Bytes of a chunk. A fragment from an Ethernet takes one.
const CHUNK: usize = 1536;
/// Largest payload of a whole datagram: what both families can carry.
const MAX_PAYLOAD: usize = 65_535 - ipv4::HEADER;

/// The datagrams that one worker is putting together.
pub struct Reassembly {
    sets: Slab<Set>,
    by_key: Index,
    sources: Slab<Source>,
    by_source: Index,
    pieces: Slab<Piece>,
    chunks: Slab<[u8; CHUNK]>,
    next_chunk: Box<[u32]>,
    hash: FixedState,
    /// Sets by age; all wait equally long.
    oldest: u32,
    newest: u32,
    limits: Fragments,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 only (RFC 791 §3.2); zero for IPv6.
    protocol: u8,
}

struct Set {
    key: Key,
    source: u32,
    /// First piece, by offset.
    pieces: u32,
    held: u32,
    /// Payload bytes that are there.
    bytes: usize,
    /// Payload length, once the last piece is there.
    total: Option<usize>,
    /// Header fields of the first piece.
    first: Option<Head>,
    given_up: bool,
    since: Instant,
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy)]
struct Head {
    traffic_class: u8,
    hop_limit: u8,
    protocol: u8,
}

struct Piece {
    offset: usize,
    len: usize,
    chunks: u32,
    next: u32,
}

struct Source {
    addr: IpAddr,
    sets: u32,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It waits for others.
    Waiting,
    /// It made a datagram whole, which now lies in the packet; `held` earlier pieces are absorbed.
    Whole {
        /// Number of earlier pieces.
        held: u32,
    },
    /// It is refused, and with it `held` earlier pieces.
    Refused {
        /// Why.
        reason: DropReason,
        /// Number of earlier pieces.
        held: u32,
    },
}

impl Reassembly {
    /// A store of the size that `limits` says.
    pub fn new(limits: Fragments, seed: u64) -> Self {
        let chunks = u32::try_from(limits.bytes / CHUNK).unwrap_or(u32::MAX).max(1);
        Self {
            sets: Slab::new(limits.datagrams),
            by_key: Index::new(limits.datagrams),
            sources: Slab::new(limits.datagrams),
            by_source: Index::new(limits.datagrams),
            pieces: Slab::new(chunks),
            chunks: Slab::new(chunks),
            next_chunk: vec![NIL; chunks as usize].into_boxed_slice(),
            hash: FixedState::with_seed(seed),
            oldest: NIL,
            newest: NIL,
            limits,
        }
    }

    /// Takes the fragment in `packet`; when it was the last one missing, `packet` holds the whole datagram.
    pub fn join(&mut self, now: Instant, view: &View, packet: &mut PacketBuf) -> Joined {
        let part = match Part::of(view, packet) {
            Ok(part) => part,
            Err(reason) => return Joined::Refused { reason, held: 0 },
        };
        let slot = match self.set(now, &part.key) {
            Ok(slot) => slot,
            Err(reason) => return Joined::Refused { reason, held: 0 },
        };
        if self.sets.get(slot).is_none_or(|set| set.given_up) {
            return Joined::Refused { reason: DropReason::FragmentOverlap, held: 0 };
        }
        match self.place(slot, &part, packet) {
            Ok(()) => {}
            Err(Misfit::Duplicate) => {
                return Joined::Refused { reason: DropReason::FragmentDuplicate, held: 0 };
            }
            Err(Misfit::NoRoom) => return Joined::Refused { reason: DropReason::FragmentStoreFull, held: 0 },
            Err(Misfit::Hopeless(reason)) => return Joined::Refused { reason, held: self.give_up(slot) },
        }
        if !self.is_whole(slot) {
            return Joined::Waiting;
        }
        let held = self.sets.get(slot).map_or(0, |set| set.held.saturating_sub(1));
        self.write_out(slot, &part.key, packet);
        self.remove(slot);
        Joined::Whole { held }
    }

    /// Gives up the oldest set if its time is over: the number of pieces that are dropped with it.
    pub fn expire(&mut self, now: Instant) -> Option<u32> {
        let slot = self.oldest;
        let set = self.sets.get(slot)?;
        if now.since(set.since) < self.limits.timeout {
            return None;
        }
        let held = set.held;
        self.remove(slot);
        Some(held)
    }

    /// Number of sets that are waiting.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.sets.len()
    }

    /// Bytes of memory.
    pub const fn bytes(&self) -> usize {
        self.sets.bytes()
            + self.by_key.bytes()
            + self.sources.bytes()
            + self.by_source.bytes()
            + self.pieces.bytes()
            + self.chunks.bytes()
    }

    /// The set of a key, made if need be and if its source may have another one.
    fn set(&mut self, now: Instant, key: &Key) -> Result<u32, DropReason> {
        let hash = self.key_hash(key);
        if let Some(slot) = self.by_key.find(hash, |slot| self.sets.get(slot).is_some_and(|s| s.key == *key))
        {
            return Ok(slot);
        }
        let source = self.source(key.src)?;
        let set = Set {
            key: *key,
            source,
            pieces: NIL,
            held: 0,
            bytes: 0,
            total: None,
            first: None,
            given_up: false,
            since: now,
            older: self.newest,
            newer: NIL,
        };
        let Ok(slot) = self.sets.insert(set) else {
            self.leave_source(source);
            return Err(DropReason::FragmentStoreFull);
        };
        if !self.by_key.insert(hash, slot) {
            self.sets.remove(slot);
            self.leave_source(source);
            return Err(DropReason::FragmentStoreFull);
        }
        match self.sets.get_mut(self.newest) {
            Some(newest) => newest.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        Ok(slot)
    }

    /// Counts one more set of a source, within its cap (E-23).
    fn source(&mut self, addr: IpAddr) -> Result<u32, DropReason> {
        let hash = self.address_hash(addr);
        let found = self.by_source.find(hash, |slot| self.sources.get(slot).is_some_and(|s| s.addr == addr));
        let slot = match found {
            Some(slot) => slot,
            None => {
                let source = Source { addr, sets: 0 };
                let slot = self.sources.insert(source).map_err(|_| DropReason::FragmentStoreFull)?;
                if !self.by_source.insert(hash, slot) {
                    self.sources.remove(slot);
                    return Err(DropReason::FragmentStoreFull);
                }
                slot
            }
        };
        match self.sources.get_mut(slot) {
            Some(source) if source.sets < self.limits.datagrams_per_source => {
                source.sets += 1;
                Ok(slot)
            }
            Some(_) | None => Err(DropReason::FragmentLimit),
        }
    }

    fn leave_source(&mut self, slot: u32) {
        let Some(source) = self.sources.get_mut(slot) else { return };
        source.sets -= 1;
        if source.sets == 0 {
            let hash = self.address_hash(source_addr(self.sources.get(slot)));
            self.by_source.remove(hash, slot);
            self.sources.remove(slot);
        }
    }

    /// Puts a part among the pieces of its set.
    fn place(&mut self, slot: u32, part: &Part, packet: &PacketBuf) -> Result<(), Misfit> {
        let Some(set) = self.sets.get(slot) else { return Err(Misfit::NoRoom) };
        let end = part.offset + part.len;
        if !part.more && set.total.is_some_and(|total| total != end)
            || set.total.is_some_and(|total| end > total)
        {
            return Err(Misfit::Hopeless(DropReason::FragmentOverlap));
        }
        let (mut before, mut at) = (NIL, set.pieces);
        while let Some(piece) = self.pieces.get(at) {
            if piece.offset + piece.len > part.offset {
                break;
            }
            (before, at) = (at, piece.next);
        }
        if let Some(piece) = self.pieces.get(at) {
            if piece.offset == part.offset && piece.len == part.len && self.same_bytes(piece, part, packet) {
                return Err(Misfit::Duplicate);
            }
            // The last piece also ends the datagram: nothing may lie behind it.
            if piece.offset < end || !part.more {
                return Err(Misfit::Hopeless(DropReason::FragmentOverlap));
            }
        }
        if set.held >= self.limits.pieces {
            return Err(Misfit::Hopeless(DropReason::FragmentLimit));
        }
        let payload = packet.bytes().get(part.payload..part.payload + part.len).unwrap_or(&[]);
        let chunks = self.store(payload).ok_or(Misfit::NoRoom)?;
        let piece = Piece { offset: part.offset, len: part.len, chunks, next: at };
        let Ok(new) = self.pieces.insert(piece) else {
            self.free_chunks(chunks);
            return Err(Misfit::NoRoom);
        };
        if let Some(piece) = self.pieces.get_mut(before) {
            piece.next = new;
        }
        let Some(set) = self.sets.get_mut(slot) else { return Err(Misfit::NoRoom) };
        if before == NIL {
            set.pieces = new;
        }
        set.held += 1;
        set.bytes += part.len;
        if !part.more {
            set.total = Some(end);
        }
        if part.offset == 0 {
            set.first = Some(part.head);
        }
        Ok(())
    }

    fn is_whole(&self, slot: u32) -> bool {
        self.sets.get(slot).is_some_and(|set| set.first.is_some() && set.total == Some(set.bytes))
    }

    /// Writes the whole datagram into `packet`: IPv6 with an atomic Fragment Header, IPv4 without DF, so that what is
    /// made of it may be cut again.
    fn write_out(&self, slot: u32, key: &Key, packet: &mut PacketBuf) {
        let Some(set) = self.sets.get(slot) else { return };
        let (Some(head), len) = (set.first, set.bytes) else { return };
        match (key.src, key.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut front = [0; ipv6::HEADER + fragment::HEADER];
                let (base, behind) = front.split_at_mut(ipv6::HEADER);
                let header = ipv6::Header6 {
                    traffic_class: head.traffic_class,
                    payload_len: (fragment::HEADER + len) as u16,
                    next_header: ipv6::FRAGMENT,
                    hop_limit: head.hop_limit,
                    src,
                    dst,
                };
                if let (Some(base), Some(behind)) = (base.first_chunk_mut(), behind.first_chunk_mut()) {
                    header.write(base);
                    Fragment { offset: 0, more: false, id: key.id }.write(head.protocol, behind);
                }
                packet.fill(&front);
            }
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut front = [0; ipv4::HEADER];
                let header = ipv4::Header4 {
                    tos: head.traffic_class,
                    total_len: (ipv4::HEADER + len) as u16,
                    id: key.id as u16,
                    df: false,
                    ttl: head.hop_limit,
                    protocol: head.protocol,
                    src,
                    dst,
                };
                header.write(&mut front);
                packet.fill(&front);
            }
            (IpAddr::V6(_), IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(_)) => return,
        }
        let mut at = set.pieces;
        while let Some(piece) = self.pieces.get(at) {
            self.for_each_chunk(piece, |bytes| packet.append(bytes));
            at = piece.next;
        }
        packet.reassembled = true;
    }

    /// Drops what a set holds and remembers it as lost. Says how many pieces that were.
    fn give_up(&mut self, slot: u32) -> u32 {
        self.free_pieces(slot);
        let Some(set) = self.sets.get_mut(slot) else { return 0 };
        set.given_up = true;
        std::mem::take(&mut set.held)
    }

    fn remove(&mut self, slot: u32) {
        self.free_pieces(slot);
        let Some(Set { key, source, older, newer, .. }) = self.sets.remove(slot) else { return };
        match self.sets.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.sets.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.by_key.remove(self.key_hash(&key), slot);
        self.leave_source(source);
    }

    fn free_pieces(&mut self, slot: u32) {
        let Some(set) = self.sets.get_mut(slot) else { return };
        let mut at = std::mem::replace(&mut set.pieces, NIL);
        while let Some(piece) = self.pieces.remove(at) {
            self.free_chunks(piece.chunks);
            at = piece.next;
        }
    }

    /// Stores bytes in chunks: the number of the first one.
    fn store(&mut self, bytes: &[u8]) -> Option<u32> {
        let mut first = NIL;
        // From the end, so that each chunk knows the next one.
        for part in bytes.chunks(CHUNK).rev() {
            let mut chunk = [0; CHUNK];
            chunk[..part.len()].copy_from_slice(part);
            match self.chunks.insert(chunk) {
                Ok(slot) => {
                    if let Some(next) = self.next_chunk.get_mut(slot as usize) {
                        *next = first;
                    }
                    first = slot;
                }
                Err(_) => {
                    self.free_chunks(first);
                    return None;
                }
            }
        }
        (first != NIL).then_some(first)
    }

    fn free_chunks(&mut self, mut at: u32) {
        while self.chunks.remove(at).is_some() {
            at = self.next_chunk.get(at as usize).copied().unwrap_or(NIL);
        }
    }

    fn for_each_chunk(&self, piece: &Piece, mut with: impl FnMut(&[u8])) {
        let (mut at, mut left) = (piece.chunks, piece.len);
        while let Some(chunk) = self.chunks.get(at) {
            with(&chunk[..left.min(CHUNK)]);
            left = left.saturating_sub(CHUNK);
            at = self.next_chunk.get(at as usize).copied().unwrap_or(NIL);
        }
    }

    fn same_bytes(&self, piece: &Piece, part: &Part, packet: &PacketBuf) -> bool {
        let mut rest = packet.bytes().get(part.payload..part.payload + part.len).unwrap_or(&[]);
        let mut same = true;
        self.for_each_chunk(piece, |chunk| match rest.split_at_checked(chunk.len()) {
            Some((head, tail)) => {
                same &= head == chunk;
                rest = tail;
            }
            None => same = false,
        });
        same && rest.is_empty()
    }

    fn key_hash(&self, key: &Key) -> u64 {
        let mut hasher = self.hash.build_hasher();
        feed(&mut hasher, key.src);
        feed(&mut hasher, key.dst);
        hasher.write_u64(u64::from(key.id) << 8 | u64::from(key.protocol));
        hasher.finish()
    }

    fn address_hash(&self, addr: IpAddr) -> u64 {
        let mut hasher = self.hash.build_hasher();
        feed(&mut hasher, addr);
        hasher.finish()
    }
}

fn feed(hasher: &mut impl Hasher, addr: IpAddr) {
    match addr {
        IpAddr::V4(addr) => hasher.write_u32(addr.to_bits()),
        IpAddr::V6(addr) => hasher.write_u128(addr.to_bits()),
    }
}

fn source_addr(source: Option<&Source>) -> IpAddr {
    source.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |s| s.addr)
}

/// Why a part does not go among its pieces.
enum Misfit {
    /// It is there already (RFC 8200 §4.5 lets exact duplicates be ignored).
    Duplicate,
    /// The store is full; the others may still make it when this one is sent again.
    NoRoom,
    /// The set can never become a datagram.
    Hopeless(DropReason),
}

/// A fragment, read.
struct Part {
    key: Key,
    offset: usize,
    len: usize,
    more: bool,
    /// Where its payload begins in the packet.
    payload: usize,
    head: Head,
}

impl Part {
    fn of(view: &View, packet: &PacketBuf) -> Result<Self, DropReason> {
        let (key, fragment, payload, total_len, head) = match view {
            View::V6(v) => {
                let fragment = v.fragment.ok_or(DropReason::BadLength)?;
                let key = Key { src: v.src.into(), dst: v.dst.into(), id: fragment.id, protocol: 0 };
                let head =
                    Head { traffic_class: v.traffic_class, hop_limit: v.hop_limit, protocol: v.protocol };
                // RFC 7915 §5.1: not translated, so not worth putting together.
                if v.segments_left.is_some() {
                    return Err(DropReason::RoutingHeader);
                }
                (key, fragment, v.l4, v.total_len, head)
            }
            View::V4(v) => {
                let fragment = v.fragment.ok_or(DropReason::BadLength)?;
                let key = Key { src: v.src.into(), dst: v.dst.into(), id: fragment.id, protocol: v.protocol };
                let head = Head { traffic_class: v.tos, hop_limit: v.ttl, protocol: v.protocol };
                if v.source_route {
                    return Err(DropReason::SourceRoute);
                }
                (key, fragment, v.l4, v.total_len, head)
            }
        };
        let len = total_len - payload;
        let offset = usize::from(fragment.offset);
        // RFC 8200 §4.5: every piece but the last is a multiple of 8 bytes, and the whole fits a packet.
        if len == 0 || fragment.more && len % 8 != 0 || offset + len > MAX_PAYLOAD {
            return Err(DropReason::BadLength);
        }
        if offset == 0
            && len < l4::smallest_header(head.protocol, packet.bytes().get(payload..).unwrap_or(&[]))
        {
            return Err(DropReason::FragmentTiny);
        }
        Ok(Self { key, offset, len, more: fragment.more, payload, head })
    }
}

#[cfg(test)]
mod tests;
