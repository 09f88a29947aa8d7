//! A whole gateway without a kernel: the workers that ship, on devices of queues and on virtual time.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use sampan::daemon::counters::{Counters, Totals};
use sampan::daemon::ring::Exchange;
use sampan::daemon::worker::{Requests, Translator, Worker};
use sampan::io::mem::MemDevice;
use sampan::nat64::engine::{Engine, Place};
use sampan::nat64::policy::{Assignment, PortPolicy, Quotas};
use sampan::nat64::pool4::Pool;
use sampan::nat64::settings::{
    BibRow, Change, Classes, Filtering, Fragments, Hops, Key, Limits, Mtu, Pool4, Pool4Range, RowFilter,
    SessionRow, Settings, Timers,
};
use sampan::nat64::steer::Steering;
use sampan::time::Instant;
use sampan::wire::packet::Offload;

use super::judge::Sent;

/// Settings whose prefix is not the well-known one, so that the documentation networks can be allowed by name. One
/// pool address, so that outputs are easy to predict.
pub fn settings() -> Settings {
    Settings {
        pool6: vec!["2001:db8:64::/96".parse().unwrap()],
        pool4: Pool4 {
            ranges: vec![Pool4Range::new("198.51.100.1/32".parse().unwrap(), 1024..=9215)],
            block_size: 64,
            assignment: Assignment::Dynamic,
        },
        ports: PortPolicy { hold_down: Duration::ZERO, block_idle: Duration::ZERO, ..PortPolicy::default() },
        quotas: Quotas::default(),
        subscriber_len: 128,
        key: Key(*b"not so secret..."),
        filtering: Filtering::default(),
        timers: Timers::default(),
        units: Vec::new(),
        allow: vec!["203.0.113.0/24".parse().unwrap()],
        static_bib: Vec::new(),
        limits: Limits { sessions: 192, subscribers: 24, icmp_errors_per_second: 1000 },
        fragments: Fragments {
            bytes: 96 * 1536,
            datagrams: 24,
            datagrams_per_source: 12,
            pieces: 48,
            timeout: Duration::from_secs(2),
        },
        mtu: Mtu::default(),
        mss_clamp: None,
        classes: Classes::default(),
        icmp6_source: None,
        hops: Hops::Translator,
    }
}

/// Workers with their queues and counters, on virtual time.
pub struct Crew<T> {
    workers: Vec<Worker<MemDevice, T>>,
    counters: Vec<Arc<Counters>>,
    requests: Vec<Arc<Requests<T>>>,
    pub now: Instant,
    fed: u64,
    came_out: u64,
}

/// A stateful gateway.
pub struct Gateway {
    crew: Crew<Engine>,
    settings: Settings,
    pool: Arc<Pool>,
}

thread_local! {
    /// Rings have no state when they are empty, and their buffers are costly to make: they are used again.
    static RINGS: RefCell<[Option<Arc<Exchange>>; 4]> = const { RefCell::new([const { None }; 4]) };
}

impl<T: Translator> Crew<T> {
    /// Workers whose translators `make` makes.
    pub fn new(workers: u16, make: impl Fn(u16, Instant) -> T) -> Self {
        let now = Instant::from_secs(1000);
        let exchange = RINGS.with_borrow_mut(|rings| {
            let made = || Arc::new(Exchange::new(vec![None; usize::from(workers)]));
            rings[usize::from(workers)].get_or_insert_with(made).clone()
        });
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(Counters::default())).collect();
        let requests: Vec<_> = (0..workers).map(|_| Arc::new(Requests::default())).collect();
        let worker = |number: u16| {
            let at = usize::from(number);
            let (counters, requests) = (counters[at].clone(), requests[at].clone());
            let translator = make(number, now);
            Worker::new(number, translator, MemDevice::default(), exchange.clone(), counters, requests)
        };
        Self { workers: (0..workers).map(worker).collect(), counters, requests, now, fed: 0, came_out: 0 }
    }

    /// Puts a packet into the queue of a worker.
    pub fn feed(&mut self, queue: usize, bytes: Vec<u8>, offload: Offload) {
        let queue = queue % self.workers.len();
        self.workers[queue].device().input.push_back((bytes, offload));
        self.fed += 1;
    }

    /// Lets all workers run until nothing moves any more, and gives what came out, worker by worker.
    pub fn run(&mut self) -> Vec<Sent> {
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
        for worker in &mut self.workers {
            out.extend(worker.device().output.drain(..));
        }
        self.came_out += out.len() as u64;
        self.check_accounting();
        out
    }

    /// Time passes, and everything whose time is over goes; gives what the gateway says of its own accord: probes, and errors about SYNs that waited in vain.
    pub fn advance(&mut self, time: Duration) -> Vec<Sent> {
        self.now = self.now + time;
        self.run()
    }

    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for counters in &self.counters {
            sum.add(&counters.totals());
        }
        sum
    }

    /// Lets the devices refuse what they are sent, or take it again.
    pub fn refuse_output(&mut self, refuse: bool) {
        for worker in &mut self.workers {
            worker.device().refuse = refuse;
        }
    }

    /// Design rule 2: every packet in has met one fate, and every packet out is of one kind.
    fn check_accounting(&self) {
        let t = self.totals();
        assert_eq!(t.received, self.fed, "every packet fed was received");
        assert_eq!(t.in_rings(), 0, "nothing lies in a ring at rest");
        assert!(t.closes(), "{} in: {t:?}", t.received);
        let out = t.out_translated + t.out_pieces + t.out_originated;
        assert_eq!(out, self.came_out, "every packet out is counted");
    }
}

impl std::ops::Deref for Gateway {
    type Target = Crew<Engine>;

    fn deref(&self) -> &Self::Target {
        &self.crew
    }
}

impl std::ops::DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.crew
    }
}

impl Gateway {
    pub fn new(settings: Settings, workers: u16) -> Self {
        let steering = Steering::new(settings.key, settings.subscriber_len, workers);
        let pool = Arc::new(Pool::new(&settings, None));
        let crew = Crew::new(workers, |worker, now| {
            let seed = 0x5eed + u64::from(worker);
            let place = Place { worker, steering: steering.clone(), pool: pool.clone(), seed };
            Engine::new(settings.clone(), place, now)
        });
        Self { crew, settings, pool }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// All sessions; SYNs that wait have a row too, behind them, but are no sessions of anybody yet.
    pub fn session_rows(&self) -> Vec<SessionRow> {
        let own = |w: &Worker<MemDevice>| {
            let count = w.engine().session_counts().iter().sum::<u32>() as usize;
            w.engine().session_rows(self.now, &RowFilter::default(), 0, count).0
        };
        self.workers.iter().flat_map(own).collect()
    }

    pub fn bib_rows(&self) -> Vec<BibRow> {
        let own = |w: &Worker<MemDevice>| {
            let count = w.engine().binding_counts().iter().sum::<u32>() as usize;
            w.engine().bib_rows(&RowFilter::default(), 0, count).0
        };
        self.workers.iter().flat_map(own).collect()
    }

    /// Subscribers of all workers.
    pub fn subscribers(&self) -> u32 {
        self.workers.iter().map(|w| w.engine().subscribers()).sum()
    }

    /// Unanswered sessions that gave way to others, of all workers.
    pub fn evicted(&self) -> u64 {
        self.workers.iter().map(|w| w.engine().evicted()).sum()
    }

    /// Gives every worker a change, through its mailbox as the daemon does.
    pub fn change(&mut self, change: &Change) {
        if let Change::Pool4(ranges) = change {
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
        assert_eq!(self.run(), [], "a change of settings made packets");
    }
}
