//! The fast path: established flows are forwarded by eBPF programs in the kernel (`src/io/bpf`), by rules that the engine
//! has made. This room loads the programs, keeps what they share with us, and implements
//! [`Mirror`] for each worker.
//!
//! Maps are pinned and filters stay when the process ends: rules go on to work, until the heartbeat is too old. A
//! successor finds them with [`FastPath::records`], throws out what its plan does not allow, and goes on.

mod fault;
mod index;
mod layout;
mod load;
mod maps;
mod mirror;

use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray};

pub use fault::Fault;
use index::{Index, Keys, Line, Secret};
use layout::{Board, COUNTERS, Counters, Found, LISTENERS, Notices, Record as Slot};
pub use layout::{POOLS, SCOPES};
use load::Programs;
pub(super) use maps::{Mapped, Shared};
pub use mirror::Worker;

use crate::addr::{Prefix4, Prefix6};
use crate::nat64::mirror::{Mirror, Rule, Seen};
use crate::time::Instant;

/// What the programs do beyond what rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most flows. Maps that exist already keep their size until they are flushed.
    pub max_flows: u32,
    /// How long rules hold without a heartbeat.
    pub orphan_limit: Duration,
    /// Interfaces towards IPv6 clients.
    pub inside: Vec<String>,
    /// Interfaces towards IPv4.
    pub outside: Vec<String>,
    /// The TUN: packets are routed as if they came from it, and never into it.
    pub tun_index: u32,
    /// Prefixes whose packets concern us, on the IPv6 side. At most [`POOLS`].
    pub pool6: Vec<Prefix6>,
    /// The same on the IPv4 side, together with `shared`.
    pub pool4: Vec<Prefix4>,
    /// Addresses that the machine has, too, with the ports and identifiers that are not its own. What no rule translates
    /// is sent into the TUN from here, since no route leads there.
    pub shared: Vec<(Ipv4Addr, RangeInclusive<u16>)>,
    /// MTU of the IPv6 side; the route's holds too.
    pub mtu6: u16,
    /// MTU of the IPv4 side; the route's holds too.
    pub mtu4: u16,
    /// What comes with DF clear and is longer than this in IPv6 is left to the engine, which cuts it.
    pub lowest_ipv6_mtu: u16,
    /// Type of service to write, if it is not copied.
    pub tos: Option<u8>,
    /// Traffic class to write, if it is not copied.
    pub traffic_class: Option<u8>,
    /// Packets a second that may go up for each subscriber, or for each block of ports; zero: any number.
    pub miss_rate: u32,
    /// As many may go up at once.
    pub miss_burst: u32,
    /// Length of a subscriber's prefix.
    pub subscriber_len: u8,
    /// Ports of a block, as a power of two.
    pub port_shift: u8,
    /// First IPv4 identification that the programs may use where DF is clear.
    pub ident_base: u16,
    /// How many of them.
    pub ident_span: u16,
    /// Where maps are pinned: a directory of our own, on a bpf file system (one is mounted there if it is not).
    pub pin_dir: PathBuf,
}

impl Config {
    const fn check_pools(&self) -> Result<(), Fault> {
        let (six, four) = (self.pool6.len(), self.pool4.len() + self.shared.len());
        let found = if six > four { six } else { four };
        if found > POOLS { Err(Fault::TooManyPools { found, most: POOLS }) } else { Ok(()) }
    }
}

/// Which program an interface gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards IPv6 clients: from IPv6 to IPv4.
    Inside,
    /// Towards IPv4: from IPv4 to IPv6.
    Outside,
}

/// A rule that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// For [`Mirror`].
    pub handle: u32,
    /// What it says.
    pub rule: Rule,
    /// What was seen of its flow.
    pub seen: Seen,
}

/// Programs in the kernel, and the maps that they share with us.
pub struct FastPath {
    programs: Mutex<Programs>,
    keys: Arc<Keys<Mapped<Line>>>,
    records: Arc<Mapped<Slot>>,
    notices: Arc<Mapped<Notices>>,
    board: Mapped<Board>,
    scopes: Mapped<AtomicU64>,
    counters: PerCpuArray<MapData, Counters>,
    /// Slots that no worker has got.
    free: Mutex<Vec<u32>>,
    pins: PathBuf,
}

/// Whether this kernel and this process can have a fast path at all, as far as that shows without trying.
pub fn probe() -> Result<(), Fault> {
    load::probe()
}

/// Loads the programs and puts them on their interfaces. Maps that are pinned are taken over with all rules, which go on
/// to hold as long as their heartbeat does.
pub fn open(config: &Config) -> Result<FastPath, Fault> {
    load::probe()?;
    let fast_path = FastPath::load(config)?;
    fast_path.update(config)?;
    fast_path.attach(config)?;
    Ok(fast_path)
}

/// Takes programs and maps out of the kernel: what [`open`] left, whether or not its process lives. Must run in the same
/// network namespace.
pub fn flush(pin_dir: &Path) -> io::Result<()> {
    load::detach(Side::Inside, |_| false)?;
    load::detach(Side::Outside, |_| false)?;
    remove_pins(pin_dir)
}

/// Removes what is pinned in `pin_dir`, and the directory. Programs go on where they are attached.
pub fn remove_pins(pin_dir: &Path) -> io::Result<()> {
    load::unpin(pin_dir, |_| true)?;
    load::remove_dir(pin_dir)
}

/// Whether `dir` is on a bpf file system.
pub fn is_bpf_fs(dir: &Path) -> bool {
    load::is_bpf_fs(dir)
}

impl FastPath {
    /// Loads the programs without putting them anywhere; tells them nothing yet.
    pub fn load(config: &Config) -> Result<Self, Fault> {
        config.check_pools()?;
        let path = config.pin_dir.display().to_string();
        let layout = |reason: String| Fault::Layout { path: path.clone(), reason };
        let programs = load::load(config)?;
        // Pinned maps may be another version's, so nothing is taken for granted.
        let take = |name: &'static str, value: u32| {
            let map = load::map(&config.pin_dir, name)?;
            let info = map.info().map_err(|e| layout(format!("{name}: {e}")))?;
            if info.value_size() != value {
                return Err(layout(format!("{name} has values of {} bytes", info.value_size())));
            }
            Ok((map, info.max_entries()))
        };
        let unmapped = |e: io::Error| layout(format!("they cannot be mapped: {e}"));
        let (board, _) = take("config", size_of::<Board>() as u32)?;
        let board = Mapped::<Board>::new(&board.fd(), 1).map_err(unmapped)?;
        if !matches!(board[0].layout(), 0 | layout::LAYOUT) {
            return Err(layout(format!("layout {} instead of {}", board[0].layout(), layout::LAYOUT)));
        }
        let (scopes, count) = take("scopes", size_of::<AtomicU64>() as u32)?;
        let scopes = Mapped::new(&scopes.fd(), count as usize).map_err(unmapped)?;
        let (notices, _) = take("notices", size_of::<Notices>() as u32)?;
        let notices = Arc::new(Mapped::new(&notices.fd(), LISTENERS).map_err(unmapped)?);
        let (records, flows) = take("records", size_of::<Slot>() as u32)?;
        let records = Arc::new(Mapped::new(&records.fd(), flows as usize).map_err(unmapped)?);
        let index = |name| {
            let (lines, count) = take(name, size_of::<Line>() as u32)?;
            let lines = Mapped::new(&lines.fd(), count as usize).map_err(unmapped)?;
            Index::new(lines).ok_or_else(|| layout(format!("{name} has {count} lines")))
        };
        let keys = Keys::new(Secret::of(seed(&board[0])), index("index6")?, index("index4")?);
        let (counters, _) = take("counters", size_of::<Counters>() as u32)?;
        let counters =
            PerCpuArray::try_from(Map::PerCpuArray(counters)).map_err(|e| layout(e.to_string()))?;
        let free = keys.tidy(&records);
        let (programs, keys, free) = (Mutex::new(programs), Arc::new(keys), Mutex::new(free));
        Ok(Self {
            programs,
            keys,
            records,
            notices,
            board,
            scopes,
            counters,
            free,
            pins: config.pin_dir.clone(),
        })
    }

    /// Tells the programs what `config` says beside the interfaces.
    pub fn update(&self, config: &Config) -> Result<(), Fault> {
        config.check_pools()?;
        let secret = self.keys.secret().words();
        let found = Found { seed: seed(&self.board[0]), secret, masks: self.keys.masks() };
        self.board[0].write(config, &found);
        Ok(())
    }

    /// Puts the programs on the interfaces of `config`, and takes them off all others.
    pub fn attach(&self, config: &Config) -> Result<(), Fault> {
        let mut programs = lock(&self.programs);
        for (side, wanted) in [(Side::Inside, &config.inside), (Side::Outside, &config.outside)] {
            for interface in wanted {
                load::attach(&mut programs, side, interface)?;
            }
            load::detach(side, |name| wanted.iter().any(|w| w == name))
                .map_err(|e| Fault::Refused { reason: e.to_string() })?;
        }
        Ok(())
    }

    /// One mirror for each worker, with a share of the free slots. To be called once, when the records have been judged.
    pub fn mirrors(&self, workers: u16) -> Vec<Box<dyn Mirror + Send>> {
        let mut free = std::mem::take(&mut *lock(&self.free));
        let mut mirrors: Vec<Box<dyn Mirror + Send>> = Vec::new();
        for number in 0..workers {
            let share = free.split_off(free.len() - free.len() / usize::from(workers - number));
            let (keys, records, notices) = (self.keys.clone(), self.records.clone(), self.notices.clone());
            mirrors.push(Box::new(Worker::new(number, keys, records, notices, share)));
        }
        mirrors
    }

    /// The rules that hold.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let live = self.records.iter().enumerate().filter(|(_, record)| record.is_live());
        live.filter_map(|(slot, record)| {
            Some(Record { handle: slot as u32, rule: record.rule()?, seen: record.seen() })
        })
    }

    /// Ends a rule that the plan does not allow. Only before [`FastPath::mirrors`].
    pub fn discard(&self, handle: u32) {
        let Some(record) = self.records.get(handle as usize).filter(|record| record.is_live()) else {
            return;
        };
        record.end();
        self.keys.forget(handle, record);
        record.release();
        lock(&self.free).push(handle);
    }

    /// The generation of a scope.
    pub fn generation(&self, scope: u16) -> u16 {
        self.scopes.get(usize::from(scope)).map_or(0, |g| g.load(Ordering::Relaxed) as u16)
    }

    /// Sets it: rules of another generation are not followed from now on.
    pub fn set_generation(&self, scope: u16, generation: u16) {
        if let Some(slot) = self.scopes.get(usize::from(scope)) {
            slot.store(generation.into(), Ordering::Release);
        }
    }

    /// Says that the daemon lives; `now` is `CLOCK_MONOTONIC`.
    pub fn heartbeat(&self, now: Instant) {
        self.board[0].set_heartbeat(now);
    }

    /// What became of all packets since the maps were made.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let Ok(cpus) = self.counters.get(&0, 0) else { return Vec::new() };
        let sum = |at: usize| cpus.iter().filter_map(|cpu| cpu.get(at)).sum();
        COUNTERS.iter().enumerate().map(|(at, name)| (*name, sum(at))).collect()
    }

    /// How many flows there is room for.
    pub fn flows(&self) -> u32 {
        self.records.len() as u32
    }

    /// Kernel memory of the tables that grow with the number of flows.
    pub fn bytes(&self) -> usize {
        let (mask6, mask4) = self.keys.masks();
        let lines = (mask6 as usize + 1) + (mask4 as usize + 1);
        size_of_val(&**self.records) + lines * size_of::<Line>()
    }

    /// Takes programs and maps out of the kernel. The maps live on until this is dropped.
    pub fn detach_and_unpin(&self) -> io::Result<()> {
        flush(&self.pins)
    }

    /// A descriptor of the program of a side, for tests that feed it packets.
    pub fn program(&self, side: Side) -> io::Result<OwnedFd> {
        load::program(&mut lock(&self.programs), side)
    }
}

/// The seed that is there, or a new one.
fn seed(board: &Board) -> u64 {
    if board.seed() == 0 {
        // What the kernel's generator cannot give yet is no reason to have no fast path.
        board.set_seed(super::random().map_or(0, u64::from_ne_bytes) | 1);
    }
    board.seed()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
