use super::*;
use crate::nat64::policy::Assignment;
use crate::nat64::settings::{Pool4, Pool4Range, Settings, Unit};
use std::collections::HashSet;

const KEY: Key = Key([5; 16]);
const SECOND: Duration = Duration::from_secs(1);

/// Two addresses of four blocks of 256 ports each.
fn settings(policy: PortPolicy) -> Settings {
    Settings {
        pool4: Pool4 {
            ranges: vec![Pool4Range::new("198.51.100.0/31".parse().unwrap(), 1024..=2047)],
            block_size: 256,
            assignment: Assignment::Dynamic,
        },
        ports: policy,
        ..Settings::of_key(KEY)
    }
}

/// Nothing rests.
fn restless() -> PortPolicy {
    PortPolicy { hold_down: Duration::ZERO, block_idle: Duration::ZERO, ..PortPolicy::default() }
}

struct Bench {
    leases: Leases,
    pool: Pool,
    policy: PortPolicy,
    now: Instant,
}

impl Bench {
    fn new(settings: &Settings) -> Self {
        let mut leases = Leases::new(64, 256, 16, settings.ports.hold_down_max.min(64));
        let now = Instant::from_secs(1000);
        leases.set_now(now);
        Self { leases, pool: Pool::new(settings, None), policy: settings.ports, now }
    }

    fn take(&mut self, request: &Request) -> Result<PortLease, NoPort> {
        self.leases.take(request, &self.pool, &self.policy, &KEY).map(|taken| taken.port)
    }

    fn transport(&self, port: &PortLease) -> (Ipv4Addr, u16) {
        self.leases.transport(port).unwrap()
    }

    fn give_back(&mut self, port: PortLease) {
        self.leases.give_back(port, false, &self.policy);
        self.pass(Duration::ZERO);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.leases.set_now(self.now);
        assert!(self.leases.wake(u32::MAX, &self.policy));
        while self.leases.release_idle().is_some() {}
    }

    fn is_empty(&self) -> bool {
        let free = self.leases.lists.iter().all(|list| list.head == NIL && list.blocks == 0);
        let none = self.leases.taken.iter().all(|w| *w == 0) && self.leases.shared.iter().all(|s| *s == NIL);
        free && none && (self.pool.usage().1, self.leases.len(), self.leases.resting()) == (0, 0, 0)
    }
}

/// Subscriber number `who` asks for a port for its port `port`.
fn request(who: u32, port: u16, protocol: Protocol) -> Request {
    let prefix = u128::from(who) << 64;
    let (shard, scope, max_blocks) = (3, 0, 0);
    Request { subscriber: who, prefix, shard, scope, max_blocks, client: prefix, port, protocol }
}

#[test]
fn g02_g03_all_ports_of_one_address_then_refused_then_all_free_again() {
    let mut bench = Bench::new(&settings(restless()));
    let mut ports = Vec::new();
    let mut seen = HashSet::new();
    for i in 0..1024 {
        let port = bench.take(&request(1, i, Protocol::Tcp)).unwrap();
        assert!(seen.insert(bench.transport(&port)), "F-26");
        ports.push(port);
    }
    assert_eq!(seen.iter().map(|(a, _)| a).collect::<HashSet<_>>().len(), 1);
    assert_eq!(bench.take(&request(1, 5000, Protocol::Tcp)), Err(NoPort::Exhausted));
    // Another protocol has its own ports in the same blocks.
    let udp = bench.take(&request(1, 5000, Protocol::Udp)).unwrap();
    bench.give_back(udp);
    ports.into_iter().for_each(|port| bench.give_back(port));
    assert!(bench.is_empty());
}

#[test]
fn g03_soft_pairing_goes_on_with_another_address() {
    let mut bench = Bench::new(&settings(PortPolicy { pairing: Pairing::Soft, ..restless() }));
    let ports: Vec<_> = (0..2048).map(|i| bench.take(&request(1, i, Protocol::Tcp)).unwrap()).collect();
    let seen: HashSet<_> = ports.iter().map(|p| bench.transport(p)).collect();
    assert_eq!((seen.len(), bench.take(&request(1, 5000, Protocol::Tcp))), (2048, Err(NoPort::Exhausted)));
    let first: HashSet<_> = ports[..1024].iter().map(|p| bench.transport(p).0).collect();
    assert_eq!(first.len(), 1, "only when its own address has nothing left");
    ports.into_iter().for_each(|port| bench.give_back(port));
    assert!(bench.is_empty());
}

#[test]
fn f25_g07_udp_keeps_parity_until_no_block_of_it_is_left_and_not_at_all_when_switched_off() {
    let mut bench = Bench::new(&settings(restless()));
    // 512 odd ports: the odd halves of all four blocks of the address.
    for i in 0..512 {
        let port = bench.take(&request(1, i * 2 + 1, Protocol::Udp)).unwrap();
        assert_eq!(bench.transport(&port).1 & 1, 1);
    }
    let even = bench.take(&request(1, 2001, Protocol::Udp)).unwrap();
    assert_eq!(bench.transport(&even).1 & 1, 0, "rather another parity than none");
    let mut off = Bench::new(&settings(PortPolicy { parity: false, ..restless() }));
    let odd = (0..256).filter(|i| {
        let port = off.take(&request(1, i * 2 + 1, Protocol::Udp)).unwrap();
        off.transport(&port).1 & 1 == 1
    });
    assert_eq!(odd.count(), 128, "a whole block");
}

#[test]
fn f23_f24_g06_low_ports_become_low_ports_while_there_are_some() {
    let mut with_low = settings(restless());
    with_low.pool4.ranges[0] = Pool4Range::new("198.51.100.0/32".parse().unwrap(), 768..=1535);
    let mut bench = Bench::new(&with_low);
    let of = |bench: &mut Bench, port| {
        let port = bench.take(&request(1, port, Protocol::Tcp)).unwrap();
        bench.transport(&port).1
    };
    assert!((0..256).all(|i| of(&mut bench, i) < 1024));
    assert!(of(&mut bench, 500) >= 1024, "F-23: otherwise another range");
    assert!((1..512).all(|i| of(&mut bench, 2000 + i) >= 1024));
    let mut fresh = Bench::new(&with_low);
    assert!((0..512).all(|i| of(&mut fresh, 2000 + i) >= 1024));
    assert!(of(&mut fresh, 9000) < 1024);
}

#[test]
fn x04_preserve_keeps_the_place_in_the_block() {
    let mut bench = Bench::new(&settings(PortPolicy { preserve: true, ..restless() }));
    for port in [5000, 5001, 777, 40_000] {
        let taken = bench.take(&request(1, port, Protocol::Udp)).unwrap();
        assert_eq!(bench.transport(&taken).1 % 256, port % 256);
    }
    let other = bench.take(&request(1, 5000 + 256, Protocol::Udp)).unwrap();
    assert_eq!(bench.transport(&other).1 % 2, 0, "taken: another one, of the same parity");
}

#[test]
fn h10_a_freed_udp_port_rests_120_seconds_and_a_tcp_port_does_not() {
    let policy = PortPolicy { block_idle: Duration::ZERO, ..PortPolicy::default() };
    let mut one = settings(policy);
    one.pool4.ranges[0] = Pool4Range::new("198.51.100.0/32".parse().unwrap(), 1024..=1279);
    let mut bench = Bench::new(&one);
    let fill = |bench: &mut Bench, protocol| -> Vec<_> {
        (0..256).map(|i| bench.take(&request(1, i, protocol)).unwrap()).collect()
    };
    let mut udp = fill(&mut bench, Protocol::Udp);
    bench.give_back(udp.pop().unwrap());
    assert_eq!(bench.take(&request(1, 900, Protocol::Udp)), Err(NoPort::Exhausted));
    bench.pass(120 * SECOND);
    assert_eq!(bench.take(&request(1, 900, Protocol::Udp)), Err(NoPort::Exhausted));
    bench.pass(SECOND);
    udp.push(bench.take(&request(1, 900, Protocol::Udp)).unwrap());
    // RFC 6888 REQ-8a: TCP sessions are tracked.
    let mut tcp = fill(&mut bench, Protocol::Tcp);
    bench.give_back(tcp.pop().unwrap());
    tcp.push(bench.take(&request(1, 900, Protocol::Tcp)).unwrap());
    // REQ-8c: behind a filter by address.
    bench.leases.give_back(udp.pop().unwrap(), true, &policy);
    udp.push(bench.take(&request(1, 901, Protocol::Udp)).unwrap());
    // The block itself goes to nobody else while a port of it rests.
    udp.into_iter().chain(tcp).for_each(|port| bench.give_back(port));
    assert_eq!(bench.take(&request(2, 1, Protocol::Udp)), Err(NoPort::Exhausted));
    bench.pass(121 * SECOND);
    let port = bench.take(&request(2, 1, Protocol::Udp)).unwrap();
    bench.give_back(port);
    bench.pass(121 * SECOND);
    assert!(bench.is_empty());
}

#[test]
fn h11_hold_down_time_and_number_are_configurable() {
    let policy = PortPolicy {
        hold_down: 7 * SECOND,
        hold_down_max: 3,
        block_idle: Duration::ZERO,
        ..PortPolicy::default()
    };
    let mut bench = Bench::new(&settings(policy));
    let ports: Vec<_> = (0..5).map(|i| bench.take(&request(1, i, Protocol::Udp)).unwrap()).collect();
    for (i, port) in ports.into_iter().enumerate() {
        bench.give_back(port);
        assert_eq!(bench.leases.resting(), (i + 1).min(3));
    }
    bench.pass(6 * SECOND);
    assert_eq!(bench.leases.resting(), 3);
    bench.pass(2 * SECOND);
    assert!(bench.is_empty());
}

#[test]
fn h21_an_idle_block_stays_for_its_time_and_several_are_had_up_to_the_quota() {
    let policy = PortPolicy { block_idle: 30 * SECOND, ..restless() };
    let mut bench = Bench::new(&settings(policy));
    let two = |port| Request { max_blocks: 2, ..request(1, port, Protocol::Tcp) };
    let mut ports: Vec<_> = (0..512).map(|i| bench.take(&two(i)).unwrap()).collect();
    assert_eq!((bench.take(&two(900)), bench.leases.blocks_of(1)), (Err(NoPort::Quota), 2));
    let first = bench.transport(&ports[0]).1 / 256;
    let (a, b): (Vec<_>, Vec<_>) = ports.drain(..).partition(|p| bench.transport(p).1 / 256 == first);
    a.into_iter().for_each(|port| bench.give_back(port));
    bench.pass(29 * SECOND);
    assert_eq!(bench.pool.usage().1, 2);
    // Used again in between: the time starts anew.
    let again = bench.take(&two(900)).unwrap();
    bench.give_back(again);
    bench.pass(29 * SECOND);
    assert_eq!(bench.pool.usage().1, 2);
    bench.pass(2 * SECOND);
    assert_eq!(bench.pool.usage().1, 1);
    b.into_iter().for_each(|port| bench.give_back(port));
    bench.pass(30 * SECOND);
    assert!(bench.is_empty());
}

#[test]
fn h21_heavy_subscribers_share_overflow_blocks_of_their_address() {
    let mut bench = Bench::new(&settings(PortPolicy { overflow_blocks: 1, ..restless() }));
    let one = |who, port| Request { max_blocks: 1, ..request(who, port, Protocol::Tcp) };
    // Wherever they are, their address has a fourth block.
    let mut ports = Vec::new();
    for who in 1..=3 {
        ports.extend((0..256).map(|i| bench.take(&one(who, i)).unwrap()));
    }
    let mut shared = HashSet::new();
    for who in 1..=3 {
        let port = bench.take(&one(who, 1000)).unwrap();
        assert_eq!(bench.leases.blocks_of(who), 1);
        let (address, number) = bench.transport(&port);
        let paired = ports.iter().find(|p| p.lease == bench.leases.lists[who as usize].head).unwrap();
        assert_eq!(address, bench.transport(paired).0, "G-02");
        shared.insert((address, number / 256));
        ports.push(port);
    }
    let addresses: HashSet<_> = shared.iter().map(|(address, _)| address).collect();
    assert_eq!(shared.len(), addresses.len(), "one shared block at each address");
    assert_eq!(bench.pool.usage().1, 3 + shared.len() as u64);
    // It is full for all of them at the same time.
    ports.extend((0..256).map_while(|i| bench.take(&one(1, 2000 + i)).ok()));
    assert_eq!(bench.take(&one(1, 3000)), Err(NoPort::Quota));
    ports.into_iter().for_each(|port| bench.give_back(port));
    assert!(bench.is_empty());
}

#[test]
fn h20_a_journal_without_room_leases_nothing_and_takes_nothing_back() {
    let mut bench = Bench::new(&settings(restless()));
    let journal = Arc::new(Journal::new(1));
    bench.leases.set_journal(journal.clone());
    let port = bench.take(&request(1, 1, Protocol::Tcp)).unwrap();
    assert_eq!(bench.take(&request(2, 1, Protocol::Tcp)), Err(NoPort::Exhausted));
    assert_eq!(bench.pool.usage().1, 1, "what cannot be written down is not leased");
    bench.give_back(port);
    assert_eq!(bench.pool.usage().1, 1, "nor given back");
    let row = journal.pop().unwrap();
    assert!(row.is_leased && row.block.owner == Owner::Subscriber(1 << 64));
    bench.pass(SECOND);
    let row = journal.pop().unwrap();
    assert!(!row.is_leased && bench.is_empty());
}

#[test]
fn h12_restored_blocks_give_the_same_ports_and_free_ones_rest() {
    let settings = settings(PortPolicy::default());
    let mut before = Bench::new(&settings);
    let journal = Arc::new(Journal::new(64));
    before.leases.set_journal(journal.clone());
    let mut want = Vec::new();
    for who in 1..4 {
        for port in 0..300 {
            let taken = before.take(&request(who, port, Protocol::Tcp)).unwrap();
            want.push((who, port, before.transport(&taken)));
        }
    }
    let mut after = Bench::new(&settings);
    while let Some(row) = journal.pop() {
        let Owner::Subscriber(bits) = row.block.owner else { panic!() };
        assert!(after.leases.restore(&row.block, (bits >> 64) as u32, 3, &after.pool, 120 * SECOND));
        assert!(!after.leases.restore(&row.block, 9, 3, &after.pool, SECOND), "once");
    }
    after.pool.open_at(after.now + 120 * SECOND);
    for (who, port, transport) in want.iter().filter(|(_, port, _)| *port == 0) {
        let taken = after.take(&request(*who, *port, Protocol::Tcp)).unwrap();
        assert_eq!(after.transport(&taken), *transport);
    }
    assert_eq!(after.take(&request(9, 1, Protocol::Tcp)), Err(NoPort::Exhausted), "free blocks rest");
    after.pass(120 * SECOND);
    assert!(after.take(&request(9, 1, Protocol::Tcp)).is_ok());
}

#[test]
fn h26_permuted_blocks_belong_to_their_subscriber_and_the_rest_is_for_all() {
    let mut settings = settings(restless());
    settings.pool4.assignment = Assignment::Permuted;
    settings.subscriber_len = 64;
    // Five subscribers, eight blocks.
    let prefixes = vec!["0:0:0:4::/62".parse().unwrap(), "0:0:0:1::/64".parse().unwrap()];
    settings.units = vec![Unit { prefixes, ..Unit::default() }];
    let mut firsts = HashSet::new();
    for order in [[1, 4, 5, 6, 7], [7, 6, 5, 4, 1]] {
        let mut bench = Bench::new(&settings);
        let mut ports = Vec::new();
        for who in order {
            let port = bench.take(&request(who, 5000, Protocol::Udp)).unwrap();
            firsts.insert((who, bench.transport(&port)));
            ports.push(port);
        }
        // Strangers share the three that are left, and get no other.
        let strangers = (10..16).filter_map(|who| bench.take(&request(who, 1, Protocol::Udp)).ok());
        let strangers: Vec<_> = strangers.collect();
        assert_eq!(strangers.len(), 3);
        ports.into_iter().for_each(|port| bench.give_back(port));
        assert_eq!(bench.take(&request(10, 1, Protocol::Tcp)).err(), None);
        assert_eq!(bench.take(&request(15, 1, Protocol::Tcp)), Err(NoPort::Exhausted));
    }
    assert_eq!(firsts.len(), 5, "the same for everybody, whoever comes first");
    let addresses: HashSet<_> = firsts.iter().map(|(_, (addr, port))| (*addr, port / 256)).collect();
    assert_eq!(addresses.len(), 5);
}

#[test]
fn h26_a_low_port_first_leads_to_the_address_of_the_fixed_block() {
    let mut settings = settings(restless());
    settings.pool4.assignment = Assignment::Permuted;
    settings.pool4.ranges = vec![Pool4Range::new("198.51.100.0/28".parse().unwrap(), 256..=4095)];
    settings.subscriber_len = 64;
    settings.units = vec![Unit { prefixes: vec!["0:0:0:0::/59".parse().unwrap()], ..Unit::default() }];
    for who in 1..16 {
        let high = request(who, 5000, Protocol::Tcp);
        let mut usual = Bench::new(&settings);
        let port = usual.take(&high).unwrap();
        let mut bench = Bench::new(&settings);
        let low = bench.take(&request(who, 500, Protocol::Tcp)).unwrap();
        let again = bench.take(&high).unwrap();
        assert_eq!(bench.transport(&again), usual.transport(&port), "whatever came before");
        let (addr, t) = bench.transport(&low);
        assert!(addr == bench.transport(&again).0 && t < 1024, "{addr} {t}");
    }
}

#[test]
fn h17_h22_every_free_place_is_equally_likely() {
    let mut counts = [0u32; 64];
    // Three quarters are taken, in one lump.
    let taken = [0xffff_ffff_ffff_0000u64];
    for lot in 0..64_000u64 {
        let first = (lot.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % 64;
        let place = choose(&taken, first, u64::MAX, lot.wrapping_mul(0xd134_2543_de82_ef95) >> 32).unwrap();
        counts[place] += 1;
    }
    assert!(counts[16..].iter().all(|n| *n == 0));
    assert!(counts[..16].iter().all(|n| (3600..4400).contains(n)), "{counts:?}");
    assert_eq!(choose(&[u64::MAX], 5, u64::MAX, 9), None);
    assert_eq!(choose(&[!4], 5, u64::MAX, 9), Some(2));
    assert_eq!(choose(&[!4], 5, !EVEN, 9), None);
}
