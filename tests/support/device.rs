//! A device that neither allocates nor looks at what it is given: a fixed set of packets, again and again.

use std::io;
use std::sync::Arc;

use sampan::daemon::counters::Counters;
use sampan::daemon::ring::Exchange;
use sampan::daemon::worker::{Requests, Worker};
use sampan::io::{Device, Received};
use sampan::nat64::engine::{Engine, Place};
use sampan::nat64::pool4::Pool;
use sampan::nat64::settings::Settings;
use sampan::nat64::steer::Steering;
use sampan::time::Instant;
use sampan::wire::packet::{Offload, PacketBuf};

/// Hands out its packets in turn until the ration is used up, and counts what it is sent.
#[derive(Default)]
pub struct Carousel {
    packets: Vec<(Vec<u8>, Offload)>,
    next: usize,
    ration: u64,
    /// Packets sent.
    pub sent: u64,
    /// Copies of what is sent, while somebody wants them.
    pub captured: Option<Vec<Vec<u8>>>,
}

impl Carousel {
    /// Puts these packets on, and lets `ration` of them be received.
    pub fn load(&mut self, packets: Vec<(Vec<u8>, Offload)>, ration: u64) {
        self.packets = packets;
        self.next = 0;
        self.ration = ration;
    }

    /// Lets `packets` more be received.
    pub fn allow(&mut self, packets: u64) {
        self.ration += packets;
    }

    pub fn is_done(&self) -> bool {
        self.ration == 0
    }
}

impl Device for Carousel {
    fn recv(&mut self, packet: &mut PacketBuf) -> io::Result<Received> {
        if self.ration == 0 || self.packets.is_empty() {
            return Ok(Received::Nothing);
        }
        self.ration -= 1;
        let (bytes, offload) = &self.packets[self.next];
        self.next = (self.next + 1) % self.packets.len();
        packet.fill(bytes);
        packet.offload = *offload;
        Ok(Received::Packet)
    }

    fn send(&mut self, packet: &mut PacketBuf) -> io::Result<()> {
        self.sent += 1;
        if let Some(captured) = &mut self.captured {
            captured.push(packet.bytes().to_vec());
        }
        Ok(())
    }
}

/// Workers on such devices.
pub struct Carousels {
    pub workers: Vec<Worker<Carousel>>,
    pub counters: Vec<Arc<Counters>>,
    pub now: Instant,
}

impl Carousels {
    pub fn new(settings: &Settings, workers: u16) -> Self {
        let now = Instant::from_secs(1000);
        let steering = Steering::new(settings.key, settings.subscriber_len, workers);
        let pool = Arc::new(Pool::new(settings, None));
        let exchange = Arc::new(Exchange::new(vec![None; usize::from(workers)]));
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(Counters::default())).collect();
        let workers = (0..workers)
            .map(|worker| {
                let place = Place { worker, steering: steering.clone(), pool: pool.clone(), seed: 0x5eed };
                Worker::new(
                    worker,
                    Engine::new(settings.clone(), place, now),
                    Carousel::default(),
                    exchange.clone(),
                    counters[usize::from(worker)].clone(),
                    Arc::new(Requests::default()),
                )
            })
            .collect();
        Self { workers, counters, now }
    }

    /// Lets all workers run until every ration is used up and nothing moves any more.
    pub fn run(&mut self) {
        loop {
            let mut more = false;
            for worker in &mut self.workers {
                more |= worker.turn(self.now).unwrap();
                more |= !worker.device().is_done();
            }
            if !more && self.workers.iter().all(Worker::is_idle) {
                return;
            }
        }
    }
}
