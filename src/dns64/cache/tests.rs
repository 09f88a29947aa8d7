//! The cache through its public functions, on virtual time. Replies come from the real `begin` and `finish`.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use super::*;
use crate::dns64::tests::*;
use crate::dns64::{Answer, Change, Meta, Settings, Step, begin, finish};

const UDP: Meta = Meta { client: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), transport: Transport::Udp };
const TCP: Meta = Meta { transport: Transport::Tcp, ..UDP };

/// A cache and the settings it serves.
struct Bench {
    cache: Cache,
    settings: Settings,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { cache: Cache::new(1 << 20, 7), settings: settings(), now: Instant::from_secs(1000) }
    }

    fn scope(&self) -> Scope {
        self.settings.scope(&UDP).unwrap()
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now + Duration::from_secs(seconds);
        self
    }

    fn look(&mut self, query: &[u8], meta: &Meta) -> Result<Message, Lookup> {
        let mut out = [0; 65_535];
        let scope = self.scope();
        match self.cache.lookup(scope, meta.transport, query, self.now, &mut out) {
            Lookup::Hit { len, .. } => Ok(Message::from_vec(&out[..len]).unwrap()),
            other @ (Lookup::Miss { .. } | Lookup::Pass) => Err(other),
        }
    }

    fn stale(&mut self, query: &[u8]) -> Option<Message> {
        let mut out = [0; 1232];
        let scope = self.scope();
        let (len, _) = self.cache.stale(scope, Transport::Udp, query, self.now, &mut out)?;
        Some(Message::from_vec(&out[..len]).unwrap())
    }

    /// Answers a query by asking, stores the reply and returns it.
    fn ask(&mut self, query: &[u8], first: &Answer, second: &Answer) -> Message {
        let reply = match begin(&self.settings, query, &UDP) {
            Step::Ask(ask) => finish(&self.settings, &ask, first, second),
            Step::Reply(reply) => reply,
            Step::Ignore => panic!("ignored"),
        };
        let scope = self.scope();
        self.cache.store(scope, query, &reply, self.now);
        Message::from_vec(&reply.bytes).unwrap()
    }
}

fn x(tweak: impl FnOnce(&mut Message)) -> Vec<u8> {
    query("x.example.", RecordType::AAAA, tweak)
}

fn ttls(message: &Message) -> Vec<u32> {
    message.answers.iter().chain(&message.authorities).map(|record| record.ttl).collect()
}

const MISS: Result<Message, Lookup> = Err(Lookup::Miss { stale: false });
const EXPIRED: Result<Message, Lookup> = Err(Lookup::Miss { stale: true });

#[test]
fn k41_a_hit_is_the_reply_with_id_case_and_ttl_of_the_moment() {
    let mut bench = Bench::new();
    let asked = x(with_opt);
    assert_eq!(bench.look(&asked, &UDP), MISS);
    let first = bench.ask(&asked, &nodata(), &good_a());
    assert_eq!(ttls(&first), [30]);
    let mut again = query("X.exAMPLE.", RecordType::AAAA, |message| {
        with_opt(message);
        message.metadata.recursion_desired = false;
    });
    again[..2].copy_from_slice(&[0xab, 0xcd]);
    let hit = bench.after(12).look(&again, &UDP).unwrap();
    assert_eq!(hit.metadata.id, 0xabcd);
    assert!(!hit.metadata.recursion_desired && hit.metadata.recursion_available);
    assert_eq!(hit.queries[0].name.to_string(), "X.exAMPLE.");
    assert_eq!((addresses(&hit)[0].0, ttls(&hit)), (addresses(&first)[0].0, vec![18]));
    assert_eq!((hit.edns.clone(), hit.authorities.clone()), (first.edns, first.authorities));
    // 30 seconds after it was made it does not hold any more.
    assert!(bench.after(17).look(&asked, &UDP).is_ok());
    assert_eq!(bench.after(1).look(&asked, &UDP), EXPIRED);
    let stats = bench.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.stored, stats.entries), (2, 2, 1, 1));
}

#[test]
fn what_changes_the_reply_is_part_of_the_question() {
    let mut bench = Bench::new();
    bench.ask(&x(with_opt), &nodata(), &good_a());
    let cd = |message: &mut Message| {
        with_opt(message);
        message.metadata.checking_disabled = true;
    };
    let ad = |message: &mut Message| {
        with_opt(message);
        message.metadata.authentic_data = true;
    };
    for other in [x(|_| {}), x(with_do), x(cd), x(ad), query("x.example.", RecordType::A, with_opt)] {
        assert_eq!(bench.look(&other, &UDP), MISS);
    }
    // Type 97 is 65 (HTTPS) with the bit that makes letters small.
    let https = |rtype| upstream(rtype, ResponseCode::NoError, &[record("x.example.", 9, hint())], &[]);
    bench.ask(&query("x.example.", RecordType::HTTPS, |_| {}), &https(RecordType::HTTPS), &Answer::Failed);
    assert!(bench.look(&query("x.example.", RecordType::HTTPS, |_| {}), &UDP).is_ok());
    assert_eq!(bench.look(&query("x.example.", RecordType::Unknown(97), |_| {}), &UDP), MISS);
}

#[test]
fn k47_a_new_configuration_takes_effect_at_once() {
    let mut bench = Bench::new();
    bench.ask(&x(|_| {}), &nodata(), &good_a());
    assert!(bench.look(&x(|_| {}), &UDP).is_ok());
    let other = with_policy(|policy| policy.prefixes = vec!["2001:db8:65::/96".parse().unwrap()]);
    bench.settings.apply(Change::Replace(Box::new(other)));
    assert_eq!(bench.look(&x(|_| {}), &UDP), MISS);
    assert!(bench.stale(&x(|_| {})).is_none(), "nor is it stale data");
    let renumbered = bench.ask(&x(|_| {}), &nodata(), &good_a());
    assert_eq!(addresses(&renumbered)[0].0, "2001:db8:65::c629:4".parse::<std::net::Ipv6Addr>().unwrap());
}

#[test]
fn k41_negative_answers_live_as_their_soa_says_and_not_without() {
    let mut bench = Bench::new();
    let none = |soas: &[_]| upstream(RecordType::AAAA, ResponseCode::NoError, &[], soas);
    let none_a = upstream(RecordType::A, ResponseCode::NoError, &[], &[]);
    bench.ask(&x(|_| {}), &none(&[soa("example.", 60, 20)]), &none_a);
    let hit = bench.after(19).look(&x(|_| {}), &UDP).unwrap();
    assert_eq!((hit.answers.len(), ttls(&hit)), (0, vec![41]));
    assert_eq!(bench.after(1).look(&x(|_| {}), &UDP), EXPIRED);

    let mut bench = Bench::new();
    bench.ask(&x(|_| {}), &none(&[]), &none_a);
    assert_eq!(bench.look(&x(|_| {}), &UDP), MISS);
    // At most an hour, however large the numbers are.
    let gone = upstream(RecordType::AAAA, ResponseCode::NXDomain, &[], &[soa("example.", 90_000, 90_000)]);
    bench.ask(&x(|_| {}), &gone, &none_a);
    assert!(bench.after(3599).look(&x(|_| {}), &UDP).is_ok());
    assert_eq!(bench.after(1).look(&x(|_| {}), &UDP), EXPIRED);
}

#[test]
fn k41_a_failure_is_kept_for_five_seconds() {
    let mut bench = Bench::new();
    let failed = bench.ask(&x(with_opt), &Answer::Failed, &Answer::Failed);
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    let hit = bench.after(4).look(&x(with_opt), &UDP).unwrap();
    assert_eq!((hit.metadata.response_code, ede(&hit)), (ResponseCode::ServFail, vec![22]));
    assert_eq!(bench.after(1).look(&x(with_opt), &UDP), MISS, "and it is never stale data");
    assert!(bench.stale(&x(with_opt)).is_none());
}

#[test]
fn k42_k43_expired_replies_are_better_than_failures() {
    let mut bench = Bench::new();
    let asked = x(with_opt);
    let first = bench.ask(&asked, &nodata(), &good_a());
    assert_eq!(bench.after(100).look(&asked, &UDP), EXPIRED);
    let stale = bench.stale(&asked).unwrap();
    assert_eq!((addresses(&stale)[0], ede(&stale)), ((addresses(&first)[0].0, 30), vec![29, 3]));
    // The failure is not stored in its place; for half a minute nobody asks again.
    bench.ask(&asked, &Answer::Failed, &Answer::Failed);
    let hit = bench.after(29).look(&asked, &UDP).unwrap();
    assert_eq!((addresses(&hit)[0].1, ede(&hit)), (30, vec![29, 3]));
    assert_eq!(bench.after(1).look(&asked, &UDP), EXPIRED);
    assert_eq!(bench.cache.stats().stale, 2);
    // A real answer replaces it.
    bench.ask(&asked, &nodata(), &good_a());
    assert_eq!(ede(&bench.look(&asked, &UDP).unwrap()), [29]);
    // A day later it is worth nothing.
    assert_eq!(bench.after(30 + 86_400).look(&asked, &UDP), MISS);
    assert!(bench.stale(&asked).is_none());
}

#[test]
fn k43_an_expired_nxdomain_says_so() {
    let mut bench = Bench::new();
    let gone = upstream(RecordType::AAAA, ResponseCode::NXDomain, &[], &[soa("example.", 60, 60)]);
    bench.ask(&x(with_opt), &gone, &Answer::Failed);
    let stale = bench.after(61).stale(&x(with_opt)).unwrap();
    assert_eq!(
        (stale.metadata.response_code, ede(&stale), ttls(&stale)),
        (ResponseCode::NXDomain, vec![19], vec![30])
    );
    // A client without EDNS gets the same without the reason.
    bench.ask(&x(|_| {}), &gone, &Answer::Failed);
    let stale = bench.after(61).stale(&x(|_| {})).unwrap();
    assert!(stale.edns.is_none() && stale.metadata.response_code == ResponseCode::NXDomain);
}

#[test]
fn forged_data_are_no_reason_to_serve_expired_ones() {
    let mut bench = Bench::new();
    let asked = x(with_opt);
    bench.ask(&asked, &nodata(), &good_a());
    let bogus = upstream_for("x.example.", RecordType::AAAA, |message| {
        message.metadata.response_code = ResponseCode::ServFail;
        add_ede(message, 6);
    });
    bench.after(100).ask(&asked, &bogus, &good_a());
    assert_eq!(bench.look(&asked, &UDP).unwrap().metadata.response_code, ResponseCode::ServFail);
    assert_eq!(bench.after(5).look(&asked, &UDP), MISS);
}

#[test]
fn a_dead_translator_makes_synthetic_answers_short_lived_or_none() {
    for when_down in [WhenDown::Stale, WhenDown::ServFail, WhenDown::NoData] {
        let mut bench = Bench::new();
        bench.settings.when_down = when_down;
        let (asked, real) = (x(with_opt), query("real.example.", RecordType::TXT, |_| {}));
        bench.ask(&asked, &nodata(), &good_a());
        let txt = upstream_for("real.example.", RecordType::TXT, |m| {
            m.answers = vec![a("real.example.", 60, "198.41.0.4")]
        });
        bench.ask(&real, &txt, &Answer::Failed);
        bench.settings.apply(Change::Health(Health::Down));
        if when_down == WhenDown::Stale {
            let hit = bench.look(&asked, &UDP).unwrap();
            assert_eq!((addresses(&hit)[0].1, ede(&hit)), (5, vec![29, 3]));
        } else {
            assert_eq!(bench.look(&asked, &UDP), MISS);
            let said = bench.ask(&asked, &nodata(), &good_a());
            assert!(said.answers.is_empty() && ttls(&said).iter().all(|ttl| *ttl <= 5));
            assert_eq!(ede(&said), [0]);
            assert_eq!(said.metadata.response_code == ResponseCode::NoError, when_down == WhenDown::NoData);
            assert!(bench.look(&asked, &UDP).unwrap().answers.is_empty());
        }
        // Up again: nothing of that is said any more.
        bench.settings.apply(Change::Health(Health::Up));
        match bench.look(&asked, &UDP) {
            Ok(hit) => assert_eq!((when_down, ede(&hit)), (WhenDown::Stale, vec![29])),
            Err(_) => assert_ne!(when_down, WhenDown::Stale),
        }
    }
}

#[test]
fn a_dead_translator_does_not_matter_to_native_answers() {
    let mut bench = Bench::new();
    let real = upstream(RecordType::AAAA, ResponseCode::NoError, &[aaaa("x.example.", "2001:db8::1")], &[]);
    bench.settings.apply(Change::Health(Health::Down));
    bench.ask(&x(with_opt), &real, &good_a());
    let hit = bench.look(&x(with_opt), &UDP).unwrap();
    assert_eq!((addresses(&hit).len(), ttls(&hit), ede(&hit)), (1, vec![300], vec![]));
}

#[test]
fn k19_a_reply_is_stored_whole_and_cut_to_each_client() {
    let mut bench = Bench::new();
    let many: Vec<_> = (0..60).map(|i| a("x.example.", 9, &format!("198.41.0.{i}"))).collect();
    let many = upstream(RecordType::A, ResponseCode::NoError, &many, &[]);
    for tweak in [(|_: &mut Message| {}) as fn(&mut Message), with_opt] {
        let asked = x(tweak);
        let cut = bench.ask(&asked, &nodata(), &many);
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let over_udp = bench.look(&asked, &UDP).unwrap();
        assert_eq!((over_udp.metadata.truncation, over_udp.answers.len()), (true, 0));
        assert_eq!(over_udp.edns, cut.edns);
        assert_eq!(addresses(&bench.look(&asked, &TCP).unwrap()).len(), 60);
        let mut out = [0; 600];
        let scope = bench.scope();
        let hit = bench.cache.lookup(scope, Transport::Tcp, &asked, bench.now, &mut out);
        assert!(matches!(hit, Lookup::Hit { len, .. } if len <= 600), "the buffer is a limit too");
    }
}

#[test]
fn extras_go_before_the_answer_is_cut() {
    let mut bench = Bench::new();
    let second = upstream_for("x.example.", RecordType::A, |message| {
        message.answers = vec![a("x.example.", 90, "198.41.0.4")];
        message.additionals = (0..40).map(|i| a(&format!("ns{i}.example."), 90, "198.41.0.4")).collect();
    });
    bench.ask(&x(|_| {}), &nodata(), &second);
    let hit = bench.after(1).look(&x(|_| {}), &UDP).unwrap();
    assert_eq!((hit.metadata.truncation, ttls(&hit), hit.additionals.len()), (false, vec![29], 0));
    let whole = bench.look(&x(|_| {}), &TCP).unwrap();
    assert_eq!(whole.additionals.iter().map(|r| r.ttl).collect::<Vec<_>>(), vec![89; 40]);
}

#[test]
fn what_is_not_to_be_kept_is_not_kept() {
    let mut bench = Bench::new();
    // A TTL of zero, or with the top bit set, which means zero.
    for ttl in [0, 0x8000_0001] {
        let fleeting =
            upstream(RecordType::A, ResponseCode::NoError, &[a("x.example.", ttl, "198.41.0.4")], &[]);
        bench.ask(&x(|_| {}), &nodata(), &fleeting);
        assert_eq!(bench.look(&x(|_| {}), &UDP), MISS);
    }
    // Truncated by the upstream.
    let cut = upstream_for("x.example.", RecordType::TXT, |message| message.metadata.truncation = true);
    let txt = query("x.example.", RecordType::TXT, |_| {});
    bench.ask(&txt, &cut, &Answer::Failed);
    assert_eq!(bench.look(&txt, &UDP), MISS);
    // Made here.
    let local = query("ipv4only.arpa.", RecordType::AAAA, |_| {});
    bench.ask(&local, &Answer::Failed, &Answer::Failed);
    assert_eq!(bench.look(&local, &UDP), MISS);
    assert_eq!(bench.cache.stats().stored, 0);
}

#[test]
fn odd_queries_are_left_to_the_slow_path() {
    let mut bench = Bench::new();
    let good = x(with_opt);
    let version = x(|message| {
        with_opt(message);
        message.edns.as_mut().unwrap().set_version(1);
    });
    let mut two_questions = good.clone();
    two_questions[5] = 2;
    let mut response = good.clone();
    response[2] |= 0x80;
    let mut notify = good.clone();
    notify[2] |= 4 << 3;
    let longer = [good.clone(), vec![0]].concat();
    let mut option = good.clone();
    *option.last_mut().unwrap() = 4;
    option.extend([0, 10, 0, 9]);
    let any = query("x.example.", RecordType::ANY, |_| {});
    for odd in [version, two_questions, response, notify, longer, option, any] {
        assert_eq!(bench.look(&odd, &UDP), Err(Lookup::Pass), "{odd:?}");
    }
    for len in 0..good.len() {
        assert_eq!(bench.look(&good[..len], &UDP), Err(Lookup::Pass), "{len}");
    }
    // Options that we do not know change nothing.
    let mut cookie = good.clone();
    *cookie.last_mut().unwrap() = 12;
    cookie.extend([0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    bench.ask(&good, &nodata(), &good_a());
    assert!(bench.look(&cookie, &UDP).is_ok());
}

/// Stores a reply with one AAAA record for the name with this number; whether it is still there afterwards is asked
/// with `has`.
fn put(bench: &mut Bench, number: u32) {
    let owner = format!("n{number}.example.");
    let asked = query(&owner, RecordType::AAAA, |_| {});
    let answer = upstream_for(&owner, RecordType::AAAA, |m| m.answers = vec![aaaa(&owner, "2001:db8::1")]);
    bench.ask(&asked, &answer, &Answer::Failed);
}

fn has(bench: &mut Bench, number: u32) -> bool {
    bench.look(&query(&format!("n{number}.example."), RecordType::AAAA, |_| {}), &UDP).is_ok()
}

#[test]
fn memory_is_bounded_and_what_is_asked_for_stays_through_a_flood() {
    let mut bench = Bench::new();
    let size = bench.cache.stats().bytes;
    assert!(size <= 1 << 20, "{size}");
    for wanted in 0..200 {
        put(&mut bench, wanted);
    }
    let mut kept = 0;
    for flood in 0..20_000 {
        put(&mut bench, 1_000_000 + flood);
        // The wanted names are asked for all the time.
        kept += u32::from(has(&mut bench, flood % 200));
    }
    assert!(kept >= 19_500, "{kept} of 20000");
    let stats = bench.cache.stats();
    assert_eq!(stats.bytes, size);
    assert_eq!(stats.stored - stats.evicted, stats.entries as u64);
    assert!(stats.entries > 1000, "{stats:?}");
    // Oldest first: of the flood the end is there and the beginning is not.
    assert!(has(&mut bench, 1_019_999) && !has(&mut bench, 1_000_000));
}

#[test]
fn replies_of_all_sizes_go_round_and_come_out_as_they_went_in() {
    let mut bench = Bench::new();
    let mut there = 0;
    for round in 0..3000u32 {
        let owner = format!("r{}.example.", round % 700);
        let asked = query(&owner, RecordType::TXT, |_| {});
        let count = round as usize * 37 % 200 + 1;
        let first = upstream_for(&owner, RecordType::TXT, |message| {
            message.answers = (0..count).map(|i| txt(&owner, &format!("{round} {i}"))).collect();
        });
        bench.ask(&asked, &first, &Answer::Failed);
        let hit = bench.look(&asked, &TCP).unwrap();
        assert_eq!(hit.answers.len(), count);
        assert_eq!(hit.answers[0], txt(&owner, &format!("{round} 0")));
        there += bench
            .look(&query(&format!("r{}.example.", (round + 600) % 700), RecordType::TXT, |_| {}), &TCP)
            .is_ok() as u32;
    }
    assert!(there > 100, "{there}");
    assert!(bench.cache.stats().evicted > 0);
}

#[test]
fn a_cache_without_room_stores_nothing() {
    let mut bench = Bench::new();
    bench.cache = Cache::new(0, 7);
    put(&mut bench, 1);
    assert!(!has(&mut bench, 1));
}

proptest::proptest! {
    #[test]
    fn o30_total_on_garbage(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let mut bench = Bench::new();
        bench.ask(&x(with_opt), &nodata(), &good_a());
        let _ = bench.look(&bytes, &UDP);
    }

    /// Whatever the fast reader accepts, the slow one accepts too, and sees the same in it.
    #[test]
    fn the_fast_reader_is_never_more_lenient(at in 0usize..40, value: u8, dnssec: bool) {
        let mut bytes = x(if dnssec { with_do } else { with_opt });
        let at = at % bytes.len();
        bytes[at] = value;
        if let Some(key) = Key::read(&bytes, Transport::Udp) {
            let slow = crate::dns64::query::Query::read(&bytes, Transport::Udp).unwrap();
            proptest::prop_assert_eq!(key.question, &slow.question[..]);
            proptest::prop_assert_eq!(key.limit, slow.limit());
            proptest::prop_assert_eq!(key.bits & WITH_DO != 0, slow.dnssec_ok());
            proptest::prop_assert_eq!(key.header.id, slow.id);
        }
    }
}
