//! A whole gateway without a kernel: the workers that ship, on devices of queues and on virtual time.
//!
//! Both accounting sums are checked after every batch, so every test that uses it checks them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use sampan::daemon::counters::{Counters, Totals};
use sampan::daemon::ring::Exchange;
use sampan::daemon::worker::{Requests, Worker};
use sampan::io::mem::MemDevice;
use sampan::nat64::engine::{Engine, Place};
use sampan::nat64::event::Event;
use sampan::nat64::policy::{Assignment, PortPolicy, Quotas};
use sampan::nat64::pool4::Pool;
use sampan::nat64::quota::Ledger;
use sampan::nat64::ride::Rides;
use sampan::nat64::settings::{
    BibRow, Change, Classes, Filtering, Hops, Key, Limits, Mtu, Pool4, Pool4Range, RowFilter, SessionRow,
    Settings, Timers,
};
use sampan::nat64::steer::Steering;
use sampan::time::Instant;
use sampan::verdict::DropReason;
use sampan::wire::packet::Offload;

use super::fast::FastPath;
use super::packet::Packet;

/// Settings for tests: the prefix is not the well-known one, so that the documentation networks can be allowed by
/// name, and the translator counts hops itself.
pub fn settings() -> Settings {
    Settings {
        pool6: vec!["2001:db8:64::/96".parse().unwrap()],
        pool4: Pool4 {
            ranges: vec![Pool4Range::new("198.51.100.0/30".parse().unwrap(), 1024..=65535)],
            block_size: 64,
            assignment: Assignment::Dynamic,
        },
        // Most tests want to see at once what comes free; those about resting say so.
        ports: PortPolicy { hold_down: Duration::ZERO, block_idle: Duration::ZERO, ..PortPolicy::default() },
        quotas: Quotas::default(),
        subscriber_len: 128,
        key: Key(*b"not so secret..."),
        filtering: Filtering::default(),
        timers: Timers::default(),
        units: Vec::new(),
        allow: vec!["203.0.113.0/24".parse().unwrap()],
        static_bib: Vec::new(),
        limits: Limits { sessions: 4096, subscribers: 1024, icmp_errors_per_second: 1000 },
        fragments: sampan::nat64::settings::Fragments::default(),
        mtu: Mtu::default(),
        mss_clamp: None,
        classes: Classes::default(),
        icmp6_source: None,
        hops: Hops::Translator,
    }
}

/// A packet that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// Worker whose device sent it.
    pub worker: u16,
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

pub struct Gateway {
    workers: Vec<Worker<MemDevice>>,
    counters: Vec<Arc<Counters>>,
    requests: Vec<Arc<Requests>>,
    settings: Settings,
    steering: Steering,
    pool: Arc<Pool>,
    ledger: Arc<Ledger>,
    pub now: Instant,
    fed: u64,
    came_out: u64,
    refused: u64,
    next_queue: usize,
    checks: u64,
    /// What packets come to first, if there is one.
    pub fast: Option<FastPath>,
}

impl Gateway {
    pub fn new(settings: Settings, workers: u16) -> Self {
        let now = Instant::from_secs(1000);
        let steering = Steering::new(settings.key, settings.subscriber_len, workers);
        let pool = Arc::new(Pool::new(&settings, None));
        let ledger = Arc::new(Ledger::new(settings.limits.subscribers, workers));
        let exchange = Arc::new(Exchange::new(vec![None; usize::from(workers)]));
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(Counters::default())).collect();
        let requests: Vec<_> = (0..workers).map(|_| Arc::new(Requests::default())).collect();
        let workers = (0..workers)
            .map(|worker| {
                let place = Place {
                    worker,
                    steering: steering.clone(),
                    pool: pool.clone(),
                    seed: 0x5eed + u64::from(worker),
                };
                let i = usize::from(worker);
                let mut engine = Engine::new(settings.clone(), place, now);
                engine.set_ledger(ledger.clone());
                Worker::new(
                    worker,
                    engine,
                    MemDevice::default(),
                    exchange.clone(),
                    counters[i].clone(),
                    requests[i].clone(),
                )
            })
            .collect();
        let (fed, came_out, refused, next_queue, checks, fast) = (0, 0, 0, 0, 0, None);
        Self {
            workers,
            counters,
            requests,
            settings,
            steering,
            pool,
            ledger,
            now,
            fed,
            came_out,
            refused,
            next_queue,
            checks,
            fast,
        }
    }

    /// With a fast path that has room for `capacity` flows.
    pub fn with_fast_path(settings: Settings, workers: u16, capacity: usize) -> Self {
        let fast = FastPath::new(&settings, workers, capacity);
        let mut gateway = Self::new(settings, workers);
        let mirror = fast.clone();
        gateway.on_engines(move |engine, _| engine.set_mirror(mirror.mirror(), mirror.scopes()));
        gateway.fast = Some(fast);
        gateway
    }

    /// The same gateway with one worker and with three, without and with a fast path: nobody shall see a difference.
    pub fn each(settings: &Settings) -> [Self; 4] {
        [
            Self::new(settings.clone(), 1),
            Self::new(settings.clone(), 3),
            Self::with_fast_path(settings.clone(), 1, usize::MAX),
            Self::with_fast_path(settings.clone(), 3, usize::MAX),
        ]
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Puts a packet into the queue of `worker`, as it is.
    pub fn feed(&mut self, worker: u16, bytes: Vec<u8>, offload: Offload) {
        self.workers[usize::from(worker)].device().input.push_back((bytes, offload));
        self.fed += 1;
    }

    /// Lets all workers run until nothing moves any more, and gives what came out, worker by worker.
    pub fn run(&mut self) -> Vec<Out> {
        loop {
            let mut more = false;
            for worker in &mut self.workers {
                more |= worker.turn(self.now).unwrap();
            }
            more |= self.workers.iter_mut().any(|w| !w.device().input.is_empty());
            if !more && self.workers.iter().all(Worker::is_idle) {
                break;
            }
        }
        let mut out = Vec::new();
        for (number, worker) in self.workers.iter_mut().enumerate() {
            out.extend(worker.device().output.drain(..).map(|(bytes, offload)| Out {
                worker: number as u16,
                bytes,
                offload,
            }));
        }
        self.came_out += out.len() as u64;
        self.check_accounting();
        out
    }

    /// Feeds one packet, to one queue after another, so that with several workers most come to the wrong one.
    pub fn send_raw(&mut self, bytes: Vec<u8>, offload: Offload) -> Vec<Out> {
        let carried = self.fast.as_ref().and_then(|fast| fast.carry(self.now, &bytes, offload));
        if let Some((bytes, offload)) = carried {
            self.check_accounting();
            let mut out = vec![Out { worker: 0, bytes, offload }];
            if self.fast.as_ref().is_some_and(FastPath::has_news) {
                out.extend(self.run());
            }
            return out;
        }
        self.next_queue = (self.next_queue + 1) % self.workers.len();
        self.feed(self.next_queue as u16, bytes, offload);
        self.run()
    }

    /// Feeds one packet, and reads what came out.
    pub fn send(&mut self, packet: &Packet) -> Vec<Packet> {
        let out = self.send_raw(packet.bytes(), Offload::default());
        out.iter().map(|o| Packet::parse(&o.bytes).unwrap()).collect()
    }

    /// Feeds one packet, which must come out as exactly one.
    #[track_caller]
    pub fn translate(&mut self, packet: &Packet) -> Packet {
        let before = self.totals();
        let mut out = self.send(packet);
        let drops = self.drops_since(&before);
        assert!(out.len() == 1 && drops.is_empty(), "{packet:?} became {out:?}, drops {drops:?}");
        out.remove(0)
    }

    /// Feeds one packet, which must be dropped for `reason`; gives the error that its sender was told, if any.
    #[track_caller]
    pub fn refuse(&mut self, packet: &Packet, reason: &str) -> Option<Packet> {
        self.refuse_raw(packet.bytes(), Offload::default(), reason)
    }

    #[track_caller]
    pub fn refuse_raw(&mut self, bytes: Vec<u8>, offload: Offload, reason: &str) -> Option<Packet> {
        let before = self.totals();
        let mut out = self.send_raw(bytes, offload);
        assert_eq!(self.drops_since(&before), [(reason, 1)]);
        let after = self.totals();
        assert_eq!(after.out_originated - before.out_originated, out.len() as u64, "{out:?}");
        assert!(out.len() <= 1, "{out:?}");
        out.pop().map(|o| Packet::parse(&o.bytes).unwrap())
    }

    /// Time passes, and everything whose time is over goes. Nothing is sent.
    #[track_caller]
    pub fn advance(&mut self, time: Duration) {
        assert_eq!(self.advance_telling(time), []);
    }

    /// Time passes; gives what the gateway says of its own accord.
    pub fn advance_telling(&mut self, time: Duration) -> Vec<Packet> {
        self.now = self.now + time;
        self.run().iter().map(|o| Packet::parse(&o.bytes).unwrap()).collect()
    }

    /// Feeds one packet, which must wait.
    #[track_caller]
    pub fn hold(&mut self, packet: &Packet) {
        let before = self.totals();
        assert_eq!(self.send(packet), []);
        assert_eq!((self.totals().held, self.drops_since(&before)), (before.held + 1, vec![]));
    }

    /// SYNs from IPv4 that wait.
    pub fn held_syns(&self) -> u32 {
        self.workers.iter().map(|w| w.engine().held_syns()).sum()
    }

    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for counters in &self.counters {
            sum.add(&counters.totals());
        }
        sum
    }

    /// The drop counters that went up since `before`, by name.
    pub fn drops_since(&self, before: &Totals) -> Vec<(&'static str, u64)> {
        let now = self.totals();
        DropReason::ALL
            .iter()
            .map(|r| (r.name(), now.drops[*r as usize] - before.drops[*r as usize]))
            .filter(|(_, n)| *n > 0)
            .collect()
    }

    pub fn drops(&self, name: &str) -> u64 {
        let reason = DropReason::ALL.iter().find(|r| r.name() == name).expect("a reason of that name");
        self.totals().drops[*reason as usize]
    }

    /// Sessions of TCP, UDP and ICMP, of all workers.
    pub fn sessions(&self) -> [u32; 3] {
        let mut sum = [0; 3];
        for worker in &self.workers {
            for (sum, n) in sum.iter_mut().zip(worker.engine().session_counts()) {
                *sum += n;
            }
        }
        sum
    }

    pub fn bindings(&self) -> u32 {
        self.workers.iter().map(|w| w.engine().binding_counts().iter().sum::<u32>()).sum()
    }

    pub fn subscribers(&self) -> u32 {
        self.workers.iter().map(|w| w.engine().subscribers()).sum()
    }

    pub fn suppressed_notices(&self) -> u64 {
        self.workers.iter().map(|w| w.engine().suppressed_notices()).sum()
    }

    /// Leased port blocks.
    pub fn blocks(&self) -> u64 {
        self.pool.usage().1
    }

    /// Whether there is no state left at all.
    pub fn is_empty(&self) -> bool {
        (self.sessions(), self.bindings(), self.subscribers(), self.blocks()) == ([0; 3], 0, 0, 0)
    }

    pub fn session_rows(&self, filter: &RowFilter) -> Vec<SessionRow> {
        let now = self.now;
        self.all_rows(|engine, cursor| engine.session_rows(now, filter, cursor, 7))
    }

    pub fn bib_rows(&self, filter: &RowFilter) -> Vec<BibRow> {
        self.all_rows(|engine, cursor| engine.bib_rows(filter, cursor, 7))
    }

    fn all_rows<R>(&self, page: impl Fn(&Engine, u32) -> (Vec<R>, Option<u32>)) -> Vec<R> {
        let mut all = Vec::new();
        for worker in &self.workers {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                let (rows, next) = page(worker.engine(), at);
                all.extend(rows);
                cursor = next;
            }
        }
        all
    }

    /// Has every engine do something, through its mailbox as the daemon does.
    pub fn on_engines(&mut self, what: impl Fn(&mut Engine, Instant) + Clone + Send + 'static) {
        for requests in &self.requests {
            let what = what.clone();
            let request = Box::new(move |engine: &mut Engine, now: Instant| what(engine, now));
            assert!(requests.push(request).is_ok());
        }
        assert_eq!(self.run(), []);
    }

    /// The engines.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.workers.iter().map(Worker::engine)
    }

    /// Events that nobody has taken, worker by worker.
    pub fn events(&self) -> Vec<Event> {
        let streams = self.engines().map(Engine::events);
        streams.flat_map(|s| std::iter::from_fn(move || s.take()).map(|(_, e)| e)).collect()
    }

    /// Tells all workers which IPv4 addresses the machine itself has.
    pub fn set_own_addresses(&mut self, own: &[Ipv4Addr]) {
        for requests in &self.requests {
            let own = own.into();
            let request = Box::new(move |engine: &mut Engine, _: Instant| engine.set_own_addresses(own));
            assert!(requests.push(request).is_ok());
        }
        self.run();
    }

    /// Credits that workers have leased from quotas that they share.
    pub fn credits(&self) -> u64 {
        self.ledger.leased()
    }

    /// Gives every worker a change, through its mailbox as the daemon does.
    pub fn change(&mut self, change: Change) {
        if let Change::Pool4(ranges) = &change {
            self.settings.pool4.ranges.clone_from(ranges);
            self.pool = Arc::new(Pool::new(&self.settings, Some(&self.pool)));
        }
        for requests in &self.requests {
            let (change, pool) = (change.clone(), self.pool.clone());
            let request = Box::new(move |engine: &mut Engine, _: Instant| {
                engine.change(&change);
                if matches!(change, Change::Pool4(_)) {
                    engine.set_pool(pool);
                }
            });
            assert!(requests.push(request).is_ok());
        }
        assert_eq!(self.run(), []);
    }

    /// Worker that owns a client.
    pub fn owner(&self, client: IpAddr) -> u16 {
        let IpAddr::V6(client) = client else { panic!("{client} is no client") };
        self.steering.worker(self.steering.shard(self.steering.subscriber(client)))
    }

    /// The `n`th client that `worker` owns.
    pub fn client_of(&self, worker: u16, n: usize) -> IpAddr {
        (1..)
            .map(|i| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8_0001 << 80 | i)))
            .filter(|c| self.owner(*c) == worker)
            .nth(n)
            .expect("endless")
    }

    /// Y' of an IPv4 address under the first prefix.
    pub fn y(&self, v4: IpAddr) -> IpAddr {
        let IpAddr::V4(v4) = v4 else { panic!("{v4} is not IPv4") };
        self.settings.pool6[0].embed(v4).into()
    }

    /// Lets the devices refuse what they are sent.
    pub fn refuse_output(&mut self, refuse: bool) {
        for worker in &mut self.workers {
            worker.device().refuse = refuse;
        }
    }

    /// Design rule 2: every packet in has met one fate, and every packet out is of one kind.
    fn check_accounting(&mut self) {
        let t = self.totals();
        assert_eq!(t.received, self.fed, "every packet fed was received");
        assert_eq!(t.passed, t.taken, "nothing lies in a ring at rest");
        assert!(t.closes(), "{} in, {} translated, {} dropped", t.received, t.translated, t.dropped());
        assert_eq!(
            t.out_translated + t.out_pieces + t.out_originated,
            self.came_out,
            "every packet out is counted"
        );
        if t.out_pieces == 0 {
            assert_eq!(t.translated, t.out_translated);
        } else {
            assert!(t.translated >= t.out_translated && t.translated <= t.out_translated + t.out_pieces);
        }
        let Some(fast) = &self.fast else { return };
        // It looks at all sessions: now and then is enough.
        self.checks += 1;
        if !self.checks.is_multiple_of(16) {
            return;
        }
        let mut rides = Rides::default();
        for more in self.engines().filter_map(Engine::rides) {
            rides.flows += more.flows;
            for (sum, more) in [(&mut rides.from6, more.from6), (&mut rides.from4, more.from4)] {
                sum.packets += more.packets;
                sum.bytes += more.bytes;
            }
        }
        assert_eq!(rides.flows as usize, fast.flows(), "every rule belongs to a session");
        assert_eq!([rides.from6, rides.from4], fast.total(), "everything that was carried is in the books");
    }
}

/// The pool addresses of [`settings`].
pub fn is_pool(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(v4) if v4.to_bits() & !3 == Ipv4Addr::new(198, 51, 100, 0).to_bits())
}
