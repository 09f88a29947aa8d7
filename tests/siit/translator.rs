//! A worker with the stateless translator on a device of queues. Both accounting sums are checked after every packet.

use std::net::IpAddr;
use std::sync::Arc;

use sampan::daemon::counters::{Counters, Totals};
use sampan::daemon::ring::Exchange;
use sampan::daemon::worker::{Requests, Worker};
use sampan::io::mem::MemDevice;
use sampan::nat64::settings::{Classes, Hops, Mtu};
use sampan::siit::mapping::Mapping;
use sampan::siit::settings::{Hairpin, Settings, ZeroChecksum};
use sampan::siit::{Place, Siit};
use sampan::time::Instant;
use sampan::verdict::DropReason;
use sampan::wire::packet::Offload;
use sampan::xlat::eam::{Eam, EamTable, Home};

use crate::packet::Packet;

/// An IPv6 node that has the IPv4 address [`NODE4`].
pub const NODE6: &str = "2001:db8:6::11";
pub const NODE4: &str = "192.0.2.1";
/// An IPv4 host, and its address in IPv6.
pub const HOST4: &str = "203.0.113.80";
pub const HOST6: &str = "2001:db8:64::203.0.113.80";
/// The only address of the RFC 6791 pool.
pub const POOL4: &str = "198.51.100.9";

pub fn eam(v4: &str, v6: &str) -> Eam {
    Eam { v4: v4.parse().unwrap(), v6: v6.parse().unwrap(), home: Home::V6 }
}

pub fn table(rows: Vec<Eam>) -> Arc<EamTable> {
    Arc::new(EamTable::new(rows).unwrap())
}

/// Settings for tests: the translator counts hops itself, and the documentation networks may be spoken to.
pub fn settings() -> Settings {
    Settings {
        mapping: Mapping {
            prefix: "2001:db8:64::/96".parse().unwrap(),
            eam: table(vec![eam(NODE4, NODE6)]),
            translatable4: Vec::new(),
            icmp_pool4: vec![POOL4.parse().unwrap()],
            allow: vec!["203.0.113.0/24".parse().unwrap()],
        },
        udp_zero_checksum: ZeroChecksum::Drop,
        hairpin: Hairpin::Intrinsic,
        interface_info: false,
        mtu: Mtu::default(),
        mss_clamp: None,
        classes: Classes::default(),
        icmp6_source: Some("2001:db8:6::1".parse().unwrap()),
        icmp_errors_per_second: 1000,
        hops: Hops::Translator,
    }
}

pub struct Translator {
    worker: Worker<MemDevice, Siit>,
    counters: Arc<Counters>,
    pub requests: Arc<Requests<Siit>>,
    pub now: Instant,
    fed: u64,
    came_out: u64,
}

impl Default for Translator {
    fn default() -> Self {
        Self::new(settings())
    }
}

impl Translator {
    pub fn new(settings: Settings) -> Self {
        let now = Instant::from_secs(1000);
        let siit = Siit::new(settings, Place { worker: 0, workers: 1, seed: 0x5eed }, now);
        let (counters, requests) = (Arc::new(Counters::default()), Arc::new(Requests::default()));
        let exchange = Arc::new(Exchange::new(vec![None]));
        let worker = Worker::new(0, siit, MemDevice::default(), exchange, counters.clone(), requests.clone());
        Self { worker, counters, requests, now, fed: 0, came_out: 0 }
    }

    /// One with changed settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::new(settings)
    }

    pub fn siit(&self) -> &Siit {
        self.worker.engine()
    }

    /// Feeds bytes as they are, with what the device says about them.
    pub fn send_raw(&mut self, bytes: Vec<u8>, offload: Offload) -> Vec<(Vec<u8>, Offload)> {
        self.worker.device().input.push_back((bytes, offload));
        self.fed += 1;
        while self.worker.turn(self.now).unwrap() {}
        let out: Vec<_> = self.worker.device().output.drain(..).collect();
        self.came_out += out.len() as u64;
        let t = self.totals();
        assert_eq!(t.received, self.fed);
        assert!(t.closes() && t.held == 0, "{t:?}");
        assert_eq!(t.out_translated + t.out_pieces + t.out_originated, self.came_out);
        out
    }

    pub fn send(&mut self, packet: &Packet) -> Vec<Packet> {
        let out = self.send_raw(packet.bytes(), Offload::default());
        out.iter().map(|(bytes, _)| Packet::parse(bytes)).collect()
    }

    /// Feeds one packet, which must come out as exactly one.
    #[track_caller]
    pub fn translate(&mut self, packet: &Packet) -> Packet {
        let before = self.totals();
        let mut out = self.send(packet);
        assert_eq!((out.len(), self.drops_since(&before)), (1, vec![]), "{packet:?} became {out:?}");
        out.remove(0)
    }

    /// Feeds one packet, which must be dropped for `reason`; gives the error that its sender was told, if any.
    #[track_caller]
    pub fn refuse(&mut self, packet: &Packet, reason: &str) -> Option<Packet> {
        self.refuse_raw(packet.bytes(), reason)
    }

    #[track_caller]
    pub fn refuse_raw(&mut self, bytes: Vec<u8>, reason: &str) -> Option<Packet> {
        let before = self.totals();
        let out = self.send_raw(bytes, Offload::default());
        assert_eq!(self.drops_since(&before), [(reason, 1)]);
        let told = self.totals().out_originated - before.out_originated;
        assert_eq!(told, out.len() as u64, "{out:?}");
        assert!(told <= 1);
        let told = out.first().map(|(bytes, _)| Packet::parse(bytes));
        assert!(told.iter().all(Packet::sum_is_right));
        told
    }

    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    fn drops_since(&self, before: &Totals) -> Vec<(&'static str, u64)> {
        let now = self.totals();
        let since =
            DropReason::ALL.iter().map(|r| (r.name(), now.drops[*r as usize] - before.drops[*r as usize]));
        since.filter(|(_, n)| *n > 0).collect()
    }
}

/// The addresses of a packet must be these.
#[track_caller]
pub fn assert_ends(packet: &Packet, src: &str, dst: &str) {
    let want: (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    assert_eq!((packet.src, packet.dst), want);
}
