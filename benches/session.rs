//! Finding a session and touching it, beside a bare probe: the least that any table of this shape must do.
//!
//! The gate (`tests/campaign criterion`, and `tests/campaign tables` at more sizes): a hit among a million sessions takes
//! at most 1.3 times as long as the bare probe in the same run. The bare probe stays as it is, so that figures of years
//! can be compared. `SAMPAN_SESSIONS` is another number of sessions to compare at.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on shall say where")]

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::quality::FixedState;
use sampan::nat64::session::{Key4, Key6, Session, Sessions};
use sampan::nat64::settings::Protocol;
use sampan::nat64::tcp::{Side, State};
use sampan::nat64::witness::{FlowWitness, Segment};
use sampan::wire::l4::TcpFlags;
use sampan::xlat::FlowPair;

/// Look-ups in one round, so that the bench's own cost vanishes.
const ROUND: usize = 256;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Keys without end, in an order without end.
struct Keys<K> {
    keys: Vec<K>,
    next: usize,
}

impl<K> Keys<K> {
    fn shuffled(mut keys: Vec<K>, rng: &mut Rng) -> Self {
        for i in (1..keys.len()).rev() {
            keys.swap(i, (rng.next() % (i as u64 + 1)) as usize);
        }
        Self { keys, next: 0 }
    }

    fn round(&mut self) -> &[K] {
        if self.next + ROUND > self.keys.len() {
            self.next = 0;
        }
        self.next += ROUND;
        &self.keys[self.next - ROUND..self.next]
    }
}

fn flow(n: u32, rng: &mut Rng) -> FlowPair {
    FlowPair {
        // Hosts of many networks, ports of all sorts: what a province's clients look like.
        src6: Ipv6Addr::from_bits(
            0x2001_0db8 << 96 | u128::from(rng.next() & 0xffff) << 64 | u128::from(rng.next()),
        ),
        port6: rng.next() as u16,
        dst6: Ipv6Addr::UNSPECIFIED,
        // Unique on the IPv4 side whatever the rest is.
        src4: Ipv4Addr::from_bits(0xc633_0000 | n >> 16),
        port4: n as u16,
        dst4: Ipv4Addr::from_bits(rng.next() as u32),
        peer_port: 443,
    }
}

fn sessions(count: u32, rng: &mut Rng) -> (Sessions, Vec<Key6>, Vec<Key4>) {
    let mut sessions = Sessions::new(count, 0x5eed);
    let (mut keys6, mut keys4) = (Vec::new(), Vec::new());
    for n in 0..count {
        let session = Session::new(Protocol::Tcp, 0, &flow(n, rng), State::Established, n);
        keys6.push(session.key6());
        keys4.push(session.key4());
        let slot = sessions.insert(session).expect("room for as many");
        let syn = |seq| Segment {
            seq,
            ack: 1,
            window: 0x4000,
            flags: TcpFlags(TcpFlags::SYN),
            len: 0,
            scale: None,
        };
        *sessions.witness_mut(slot).expect("is there") = FlowWitness::of_syn(Side::V6, &syn(0));
    }
    (sessions, keys6, keys4)
}

/// What the engine does with a session that a packet hit: reads it, and writes its state and deadline.
#[inline]
fn touch(sessions: &mut Sessions, slot: u32, deadline: u32) -> usize {
    let session = sessions.get_mut(slot).expect("is there");
    session.state = State::Established;
    session.deadline = deadline;
    usize::from(session.pool6)
}

/// The same for TCP, whose witness judges the segment first.
#[inline]
fn touch_tcp(sessions: &mut Sessions, slot: u32, deadline: u32) -> usize {
    let segment = Segment {
        seq: deadline,
        ack: 1,
        window: 0x4000,
        flags: TcpFlags(TcpFlags::ACK),
        len: 1,
        scale: None,
    };
    let believed = sessions.witness_mut(slot).expect("is there").see(Side::V6, &segment);
    assert!(believed);
    touch(sessions, slot, deadline)
}

/// The bare probe: one keyed hash, one bucket read, one full key compare, one record read and written.
struct Bare {
    buckets: Vec<BareBucket>,
    records: Vec<BareRecord>,
    hash: FixedState,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct BareBucket {
    slots: [u32; 16],
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct BareRecord {
    key: BareKey,
    value: [u32; 8],
}

/// As much as a session's key on the IPv6 side, rounded up.
#[derive(Clone, Copy)]
struct BareKey {
    words: [u64; 4],
}

impl BareKey {
    #[inline]
    fn is(&self, other: &Self) -> bool {
        let (a, b) = (&self.words, &other.words);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }
}

const _: () = assert!(size_of::<BareBucket>() == 64 && size_of::<BareRecord>() == 64);

impl Bare {
    /// `count` keys, each in the one place that its hash names: a key whose place is taken is left out. As many
    /// buckets of one cache line as the real index has.
    fn new(count: usize, rng: &mut Rng) -> (Self, Vec<BareKey>) {
        let mut this = Self {
            buckets: vec![BareBucket { slots: [u32::MAX; 16] }; count.div_ceil(7)],
            records: Vec::new(),
            hash: FixedState::with_seed(0x5eed),
        };
        let mut keys = Vec::new();
        while keys.len() < count {
            let key = BareKey { words: std::array::from_fn(|_| rng.next()) };
            let (bucket, at) = this.place(&key);
            if this.buckets[bucket].slots[at] == u32::MAX {
                this.buckets[bucket].slots[at] = keys.len() as u32;
                this.records.push(BareRecord { key, value: [0; 8] });
                keys.push(key);
            }
        }
        (this, keys)
    }

    #[inline]
    fn place(&self, key: &BareKey) -> (usize, usize) {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u128(u128::from(key.words[0]) << 64 | u128::from(key.words[1]));
        hasher.write_u128(u128::from(key.words[2]) << 64 | u128::from(key.words[3]));
        let hash = hasher.finish();
        ((((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize, (hash >> 60) as usize)
    }

    #[inline]
    fn probe(&mut self, key: &BareKey, deadline: u32) -> Option<usize> {
        let (bucket, at) = self.place(key);
        let slot = self.buckets[bucket].slots[at];
        let record = self.records.get_mut(slot as usize)?;
        if !record.key.is(key) {
            return None;
        }
        record.value[0] = deadline;
        Some(record.value[1] as usize)
    }
}

/// One round of look-ups.
type Work = fn(&mut Bench);

/// Looks up one key after another, each only when the one before has been found: between two packets lies so much
/// other work that their look-ups do not overlap. `look_up` gives a number out of the record; it is always zero, but
/// neither the compiler nor the processor knows.
#[inline(always)]
fn one_by_one<K>(keys: &[K], mut look_up: impl FnMut(&K) -> usize) {
    let mut at = 0;
    while let Some(key) = keys.get(at) {
        at += 1 + look_up(key);
    }
}

/// Looks up many keys at a time, as fast as the processor can overlap them. For information: here every instruction
/// counts, for the more there are, the fewer look-ups fit into the processor's window.
#[inline(always)]
fn overlapping<K>(keys: &[K], mut look_up: impl FnMut(&K) -> usize) {
    for key in keys {
        black_box(look_up(key));
    }
}

struct Bench {
    bare: Bare,
    bare_keys: Keys<BareKey>,
    real: Sessions,
    keys6: Keys<Key6>,
    keys4: Keys<Key4>,
    strangers: Keys<Key6>,
    deadline: u32,
}

impl Bench {
    fn new(count: u32) -> Self {
        let mut rng = Rng(u64::from(count));
        let (bare, bare_keys) = Bare::new(count as usize, &mut rng);
        let (real, keys6, keys4) = sessions(count, &mut rng);
        let strangers: Vec<_> = (0..count.max(ROUND as u32))
            .map(|n| Session::new(Protocol::Udp, 0, &flow(n, &mut rng), State::Active, 0).key6())
            .collect();
        Self {
            bare,
            bare_keys: Keys::shuffled(bare_keys, &mut rng),
            real,
            keys6: Keys::shuffled(keys6, &mut rng),
            keys4: Keys::shuffled(keys4, &mut rng),
            strangers: Keys::shuffled(strangers, &mut rng),
            deadline: 0,
        }
    }

    #[inline(never)]
    fn bare(&mut self) {
        self.deadline += 1;
        one_by_one(self.bare_keys.round(), |key| self.bare.probe(key, self.deadline).expect("is there"));
    }

    #[inline(never)]
    fn hit6(&mut self) {
        self.deadline += 1;
        one_by_one(self.keys6.round(), |key| {
            let slot = self.real.find6(key).expect("is there");
            touch(&mut self.real, slot, self.deadline)
        });
    }

    #[inline(never)]
    fn hit4(&mut self) {
        self.deadline += 1;
        one_by_one(self.keys4.round(), |key| {
            let slot = self.real.find4(key).expect("is there");
            touch(&mut self.real, slot, self.deadline)
        });
    }

    #[inline(never)]
    fn hit6_tcp(&mut self) {
        self.deadline += 1;
        one_by_one(self.keys6.round(), |key| {
            let slot = self.real.find6(key).expect("is there");
            touch_tcp(&mut self.real, slot, self.deadline)
        });
    }

    #[inline(never)]
    fn bare_overlapping(&mut self) {
        self.deadline += 1;
        overlapping(self.bare_keys.round(), |key| self.bare.probe(key, self.deadline).expect("is there"));
    }

    #[inline(never)]
    fn hit6_overlapping(&mut self) {
        self.deadline += 1;
        overlapping(self.keys6.round(), |key| {
            let slot = self.real.find6(key).expect("is there");
            touch(&mut self.real, slot, self.deadline)
        });
    }

    #[inline(never)]
    fn hit4_overlapping(&mut self) {
        self.deadline += 1;
        overlapping(self.keys4.round(), |key| {
            let slot = self.real.find4(key).expect("is there");
            touch(&mut self.real, slot, self.deadline)
        });
    }

    #[inline(never)]
    fn miss6(&mut self) {
        let found = self.strangers.round().iter().filter(|key| self.real.find6(key).is_some()).count();
        assert_eq!(found, 0);
    }

    /// The gate: `work` and the bare probe turn and turn about, a round each, so that whatever else the machine does
    /// falls on both. Gives the quartiles of the ratios of neighbouring rounds.
    fn beside(&mut self, bare: Work, work: Work) -> [f64; 3] {
        let timed = |this: &mut Self, work: Work| {
            let start = Instant::now();
            work(this);
            start.elapsed().as_secs_f64()
        };
        let mut ratios: Vec<_> = (0..PAIRS)
            .map(|_| {
                let bare = timed(self, bare);
                timed(self, work) / bare
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| ratios[PAIRS * quarter / 4])
    }
}

/// Pairs of rounds for the gate: each look-up of a table of a million about twice.
const PAIRS: usize = 8_192;

fn bench(c: &mut Criterion, name: &str, count: u32) -> Bench {
    let mut bench = Bench::new(count);
    let mut group = c.benchmark_group(format!("session_{name}"));
    group.throughput(Throughput::Elements(ROUND as u64));
    group.bench_function("bare_probe", |b| b.iter(|| bench.bare()));
    group.bench_function("hit6", |b| b.iter(|| bench.hit6()));
    group.bench_function("hit4", |b| b.iter(|| bench.hit4()));
    group.bench_function("hit6_tcp", |b| b.iter(|| bench.hit6_tcp()));
    group.bench_function("miss6", |b| b.iter(|| bench.miss6()));
    group.finish();
    bench
}

fn thousand(c: &mut Criterion) {
    drop(bench(c, "1k", 1024));
}

/// A million, or as many as wanted.
fn beside(c: &mut Criterion) {
    let count = std::env::var("SAMPAN_SESSIONS").map_or(1 << 20, |n| n.parse().expect("a number"));
    let name = format!("{}m", count >> 20);
    let mut bench = bench(c, &name, count);
    let pairs: [(&str, Work, Work); 5] = [
        ("hit6", Bench::bare, Bench::hit6),
        ("hit4", Bench::bare, Bench::hit4),
        ("hit6_tcp", Bench::bare, Bench::hit6_tcp),
        ("hit6_overlapping", Bench::bare_overlapping, Bench::hit6_overlapping),
        ("hit4_overlapping", Bench::bare_overlapping, Bench::hit4_overlapping),
    ];
    for (what, bare, work) in pairs {
        let [low, median, high] = bench.beside(bare, work);
        println!("session_{name}/{what} beside the bare probe: {median:.3} [{low:.3} {high:.3}]");
    }
}

criterion_group!(benches, thousand, beside);
criterion_main!(benches);
