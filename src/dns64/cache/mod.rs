//! The front cache: finished replies, found by the bytes of the question.
//!
//! One cache belongs to one thread; there is no lock and nothing is shared, so a name that every thread is asked for
//! is stored once in each. All memory is taken when it is made: neither a hit nor a store allocates.
//!
//! A reply is found by view, question (case does not matter), EDNS, DO, CD, AD and the generation of the settings. It
//! is stored whole and cut to the client's limit when it is sent; id, RD, the letters' case and the TTLs are those of
//! the moment.

mod key;
mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

use foldhash::fast::FixedState;

use super::outcome::Outcome;
use super::query::Transport;
use super::reply::{Cuts, Ede, Keep, NOERROR, NXDOMAIN, Reply};
use super::settings::{Health, Scope, WhenDown};
use super::wire::{self, HEADER, Header, OPTION_EDE, Wire};
use crate::time::Instant;
use key::{Key, WITH_DO};
use store::{Entry, Store};

/// No reply is believed for longer.
const MAX_TTL: u32 = 86_400;
/// "No such data" and "no such name" are not believed for longer (RFC 2308 §5 suggests one to three hours).
const MAX_NEGATIVE_TTL: u32 = 3_600;
/// An expired reply may be served for so long (RFC 8767 §5 suggests one to three days).
const MAX_STALE: Duration = Duration::from_secs(86_400);
/// TTL of what has expired (RFC 8767 §4).
const STALE_TTL: u32 = 30;
/// TTL of synthetic answers while the translator is down.
const DOWN_TTL: u32 = 5;
/// After a failure an expired reply is served for so long before anybody is asked again (RFC 8767 §5).
const RECHECK: Duration = Duration::from_secs(30);
/// Records with a TTL in one reply; the few replies with more are not stored.
const MAX_RECORDS: usize = 512;
/// The EDE option with an empty text, as it stands in OPT.
const EDE_LEN: usize = 6;

/// The cache of one thread.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    state: FixedState,
    stats: Stats,
}

/// What the cache has for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The reply is in the caller's buffer.
    Hit {
        /// Its length.
        len: usize,
        /// How the question ended when it was answered first.
        outcome: Outcome,
    },
    /// Nothing that holds.
    Miss {
        /// Whether there is an expired reply, for [`Cache::stale`].
        stale: bool,
    },
    /// Not a query that is cached: odd or broken.
    Pass,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Queries answered, the expired ones included.
    pub hits: u64,
    /// Queries answered with an expired reply.
    pub stale: u64,
    /// Queries for which there was nothing.
    pub misses: u64,
    /// Replies stored.
    pub stored: u64,
    /// Replies that went for others.
    pub evicted: u64,
    /// Replies that are there.
    pub entries: usize,
    /// Memory taken.
    pub bytes: usize,
}

/// How a stored reply is to be sent.
#[derive(Clone, Copy, Debug)]
struct Dress {
    /// Seconds to take off every TTL.
    age: u32,
    /// No TTL is longer.
    at_most: u32,
    /// A TTL that has run down becomes this.
    at_least: u32,
    error: Option<u16>,
}

impl Cache {
    /// Takes so many bytes; `seed` makes it unknown which questions share a place.
    pub fn new(bytes: usize, seed: u64) -> Self {
        Self { store: Store::new(bytes), state: FixedState::with_seed(seed), stats: Stats::default() }
    }

    /// Writes the reply into `out` if there is one that holds. 1232 bytes do for UDP; a smaller buffer is a smaller
    /// limit.
    pub fn lookup(
        &mut self,
        scope: Scope,
        transport: Transport,
        query: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Lookup {
        let Some(key) = Key::read(query, transport) else { return Lookup::Pass };
        let found = self.find(&key, scope);
        let usable = found.and_then(|id| Some((id, dress(self.store.get(id)?.0, scope, now)?)));
        if let Some((id, dress)) = usable
            && let Some((len, outcome)) = self.send(id, &key, dress, out)
        {
            self.stats.hits += 1;
            self.stats.stale += u64::from(dress.error.is_some());
            return Lookup::Hit { len, outcome };
        }
        self.stats.misses += 1;
        let stale = found
            .and_then(|id| self.store.get(id))
            .is_some_and(|(entry, ..)| is_good_stale(entry, scope, now));
        Lookup::Miss { stale }
    }

    /// Writes an expired reply into `out`, for when nobody answers (RFC 8767).
    pub fn stale(
        &mut self,
        scope: Scope,
        transport: Transport,
        query: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Option<(usize, Outcome)> {
        let key = Key::read(query, transport)?;
        let id = self.find(&key, scope)?;
        let (entry, ..) = self.store.get(id)?;
        if !is_good_stale(entry, scope, now) {
            return None;
        }
        let dress = Dress::stale(entry.outcome, STALE_TTL);
        let sent = self.send(id, &key, dress, out)?;
        self.stats.hits += 1;
        self.stats.stale += 1;
        Some(sent)
    }

    /// Stores the reply to `query`, if and as long as it may be kept. A failure does not replace what could be served
    /// in its stead: that is served without asking anybody for a while.
    pub fn store(&mut self, scope: Scope, query: &[u8], reply: &Reply, now: Instant) {
        let Some(key) = Key::read(query, Transport::Tcp) else { return };
        let message = reply.whole.as_deref().unwrap_or(&reply.bytes);
        let mut places = [0; 2 * MAX_RECORDS];
        let Some(kept) = examine(message, key.bits, reply.keep, &mut places) else { return };
        let old = self.find(&key, scope);
        if let Some((id, (entry, ..))) = old.and_then(|id| Some((id, self.store.get(id)?))) {
            // Only the generation of the question is in the scope, so a stale reply is one of the same settings.
            if reply.is_failure() && is_good_stale(entry, scope, now) {
                self.store.recheck(id, now + RECHECK);
                return;
            }
            self.store.remove(id);
        }
        let entry = Entry {
            stored: now,
            expires: now + Duration::from_secs(kept.seconds.into()),
            generation: scope.generation,
            view: scope.view,
            bits: key.bits,
            len: kept.len,
            ttls: kept.ttls,
            question: kept.question,
            ..Entry::new(key.hash(&self.state, scope), reply.outcome, kept.cuts)
        };
        let places = places.get(..2 * usize::from(kept.ttls)).unwrap_or_default();
        self.stats.stored += u64::from(self.store.insert(entry, message, places));
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        let (entries, bytes) = self.store.size();
        Stats { entries, bytes, evicted: self.store.evicted(), ..self.stats }
    }

    fn find(&self, key: &Key<'_>, scope: Scope) -> Option<u32> {
        self.store.find(key.hash(&self.state, scope), |entry, message| {
            (entry.view, entry.generation, entry.bits) == (scope.view, scope.generation, key.bits)
                && message.get(HEADER..entry.question.into()).is_some_and(|other| key.is_same_question(other))
        })
    }

    /// Dresses a stored reply for this query.
    fn send(&mut self, id: u32, key: &Key<'_>, dress: Dress, out: &mut [u8]) -> Option<(usize, Outcome)> {
        let (entry, message, ttls) = self.store.get(id)?;
        let sent = write(entry, message, ttls, key, dress, out).map(|len| (len, entry.outcome));
        self.store.visit(id);
        sent
    }
}

impl Dress {
    fn stale(outcome: Outcome, ttl: u32) -> Self {
        let error = if outcome == Outcome::NxDomain { Ede::STALE_NXDOMAIN } else { Ede::STALE };
        Self { age: u32::MAX, at_most: ttl, at_least: ttl, error: Some(error) }
    }
}

/// Whether a reply may be sent now, and how.
fn dress(entry: &Entry, scope: Scope, now: Instant) -> Option<Dress> {
    match (scope.health, entry.outcome) {
        // Said because the translator was down.
        (Health::Up, Outcome::TranslatorDown) => None,
        // A client that comes back soon finds its connections working again.
        (Health::Down, Outcome::Synthesised) if scope.when_down == WhenDown::Stale => {
            (now < entry.expires + MAX_STALE).then(|| Dress::stale(entry.outcome, DOWN_TTL))
        }
        (Health::Down, Outcome::Synthesised) => None,
        _ if now < entry.expires => {
            let age = u32::try_from(now.since(entry.stored).as_secs()).unwrap_or(u32::MAX);
            Some(Dress { age, at_most: u32::MAX, at_least: 0, error: None })
        }
        _ if now < entry.recheck && is_good_stale(entry, scope, now) => {
            Some(Dress::stale(entry.outcome, STALE_TTL))
        }
        _ => None,
    }
}

/// Whether an expired reply is better than none.
fn is_good_stale(entry: &Entry, scope: Scope, now: Instant) -> bool {
    let is_failure = matches!(entry.outcome, Outcome::ServFail | Outcome::Bogus | Outcome::TranslatorDown);
    let leads_nowhere = scope.health == Health::Down && entry.outcome == Outcome::Synthesised;
    !is_failure && !leads_nowhere && now < entry.expires + MAX_STALE
}

/// Writes the reply as far as it fits.
fn write(
    entry: &Entry,
    message: &[u8],
    ttls: &[u8],
    key: &Key<'_>,
    dress: Dress,
    out: &mut [u8],
) -> Option<usize> {
    let header = Header::read(message)?;
    let question = usize::from(entry.question);
    let opt = message.get(entry.cuts.whole()..)?;
    let error = dress.error.filter(|_| !opt.is_empty());
    let tail = opt.len() + error.map_or(0, |_| EDE_LEN);
    let limit = key.limit.min(out.len());
    let fitting = entry.cuts.longest(limit.checked_sub(tail)?);
    let (end, counts) = fitting.unwrap_or((question, [0; 3]));
    let out = out.get_mut(..(end + tail).min(limit))?;
    let (records, rest) = out.split_at_mut_checked(end)?;
    records.copy_from_slice(message.get(..end)?);
    rest.get_mut(..opt.len())?.copy_from_slice(opt);
    if let Some(code) = error {
        add_error(rest, opt.len(), code)?;
    }
    for place in ttls.as_chunks().0 {
        // In their order; those behind the end were cut off.
        let at = usize::from(u16::from_be_bytes(*place));
        let Some(field) = records.get_mut(at..).and_then(|field| field.first_chunk_mut()) else { break };
        let ttl = u32::from_be_bytes(*field).saturating_sub(dress.age);
        *field = ttl.min(dress.at_most).max(dress.at_least).to_be_bytes();
    }
    let truncated = if fitting.is_none() { wire::TC } else { 0 };
    let flags = header.flags & !wire::RD | key.header.flags & wire::RD | truncated;
    let additional = counts[2] + u16::from(!opt.is_empty());
    let fields = [key.header.id, flags, 1, counts[0], counts[1], additional];
    for (to, field) in records.get_mut(..HEADER)?.as_chunks_mut().0.iter_mut().zip(fields) {
        *to = field.to_be_bytes();
    }
    records.get_mut(HEADER..question)?.copy_from_slice(key.question);
    Some(end + tail)
}

/// Adds an Extended DNS Error without text behind our OPT record, which is the last thing in the message.
fn add_error(rest: &mut [u8], opt_len: usize, code: u16) -> Option<()> {
    let option = rest.get_mut(opt_len..)?;
    for (to, field) in option.as_chunks_mut().0.iter_mut().zip([OPTION_EDE, 2, code]) {
        *to = field.to_be_bytes();
    }
    // The length of the options stands behind the root name, type, payload and flags.
    let len: &mut [u8; 2] = rest.get_mut(9..)?.first_chunk_mut()?;
    *len = (u16::from_be_bytes(*len) + EDE_LEN as u16).to_be_bytes();
    Some(())
}

/// What is to be known about a reply that may be kept.
struct Kept {
    seconds: u32,
    len: u16,
    question: u16,
    ttls: u16,
    cuts: Cuts,
}

/// Finds out how long a message may be kept, and where its TTL fields are.
fn examine(message: &[u8], bits: u8, keep: Keep, places: &mut [u8; 2 * MAX_RECORDS]) -> Option<Kept> {
    let wire = Wire::read(message)?;
    // What was cut is not the answer (RFC 2181 §9).
    if keep == Keep::No || wire.header.flags & wire::TC != 0 {
        return None;
    }
    let (asked, _) = wire.type_and_class()?;
    let (mut shortest, mut is_answered, mut negative) = (None, false, None);
    let (mut room, mut ttls) = (places.as_chunks_mut().0.iter_mut(), 0);
    for record in wire.records().filter(|record| record.rtype != wire::TYPE_OPT) {
        *room.next()? = u16::try_from(record.ttl_at).ok()?.to_be_bytes();
        ttls += 1;
        shortest = Some(shortest.map_or(record.ttl, |ttl: u32| ttl.min(record.ttl)));
        is_answered |= record.section == 0 && record.rtype == asked;
        if record.section == 1 && record.rtype == wire::TYPE_SOA {
            negative = record.soa_minimum(message);
        }
    }
    // A TTL with the top bit set means zero (RFC 2181 §8).
    let shortest = shortest.map(|ttl| if ttl > i32::MAX as u32 { 0 } else { ttl });
    let seconds = match keep {
        Keep::No => return None,
        Keep::Seconds(seconds) => shortest.unwrap_or(seconds).min(seconds),
        Keep::Records if wire.rcode() == NOERROR && is_answered => shortest?,
        // Without SOA nobody knows for how long (RFC 2308 §5).
        Keep::Records if matches!(wire.rcode(), NOERROR | NXDOMAIN) => {
            shortest?.min(negative?).min(MAX_NEGATIVE_TTL)
        }
        Keep::Records => return None,
    };
    (seconds > 0).then_some(Kept {
        seconds: seconds.min(MAX_TTL),
        len: u16::try_from(message.len()).ok()?,
        question: u16::try_from(wire.question.end).ok()?,
        ttls,
        cuts: Cuts::of(&wire, bits & WITH_DO != 0)?,
    })
}
