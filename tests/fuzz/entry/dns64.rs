//! DNS64: what clients send, and what upstreams answer. Both go through the front cache, too: what it sends must be
//! the reply, byte for byte, as long as no second has passed.

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sampan::dns64::cache::{Cache, Lookup};
use sampan::dns64::{
    Answer, Change, Health, Meta, Mode, OnError, Outcome, Range, Reply, Settings, Step, Transport, WhenDown,
    Zone, Zones, begin, finish,
};
use sampan::time::Instant;
use sampan::xlat::pref64::Pref64;

use super::bytes::Bytes;

const NOW: Instant = Instant::from_secs(1000);
const CLIENT: std::net::IpAddr = std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
/// The name that the upstream is asked about.
const NAME: &[u8] = b"\x01x\x07example\0";

/// Data: settings, then the bytes of a query.
pub fn dns64_query(data: &[u8]) {
    let mut data = Bytes::new(data);
    let (settings, meta) = look(data.byte());
    let query = data.rest();
    let reply = match begin(&settings, query, &meta) {
        Step::Ignore => {
            assert!(query.len() < 12 || query[2] & 0x80 != 0, "a query is ignored");
            return;
        }
        Step::Reply(reply) => reply,
        Step::Ask(ask) => finish(&settings, &ask, &Answer::Failed, &Answer::Failed),
    };
    judge(&settings, &meta, query, &reply);
}

/// Data: settings, flags of the query, then two answers: what stands behind their question, each with its length.
pub fn dns64_upstream(data: &[u8]) {
    let mut data = Bytes::new(data);
    let (settings, meta) = look(data.byte());
    let bits = data.byte();
    let rtype: u16 = match bits >> 4 {
        0..=7 => 28,
        8 => 1,
        9 => 65,
        10 => 12,
        other => u16::from(other),
    };
    let mut query = vec![0x12, 0x34, 1, bits & 0x30, 0, 1, 0, 0, 0, 0, 0, bits & 1];
    query.extend(NAME);
    query.extend(rtype.to_be_bytes());
    query.extend([0, 1]);
    if bits & 1 != 0 {
        query.extend([0, 0, 41, 4, 0xd0, 0, 0, if bits & 2 != 0 { 0x80 } else { 0 }, 0, 0, 0]);
    }
    let len = usize::from(data.byte()) * 2;
    let rest = data.rest();
    let (first, second) = rest.split_at(len.min(rest.len()));
    let Step::Ask(ask) = begin(&settings, &query, &meta) else { return };
    let (first, second) = (answer(rtype, first), answer(1, second));
    let reply = finish(&settings, &ask, &first, &second);
    if reply.outcome == Outcome::Synthesised {
        let message = Message::from_vec(&reply.bytes).expect("what we made can be read");
        assert!(!message.metadata.authentic_data, "AD on what was made");
        assert!(message.answers.iter().all(|r| r.record_type() != RecordType::A), "A in an AAAA answer");
        assert!(settings.health == Health::Up, "made though the translator is down");
    }
    judge(&settings, &meta, &query, &reply);
}

fn look(bits: u8) -> (Settings, Meta) {
    let mut settings = Settings::default();
    settings.policy.mode = match bits & 3 {
        0 | 1 => Mode::Synthesise,
        2 => Mode::Always,
        _ => Mode::Pass,
    };
    settings.policy.filter_a = bits & 4 != 0;
    settings.trust_ad = bits & 8 != 0;
    settings.when_down = if bits & 16 != 0 { WhenDown::NoData } else { WhenDown::ServFail };
    if bits & 32 != 0 {
        settings.apply(Change::Health(Health::Down));
    }
    if bits & 128 != 0 {
        more(&mut settings);
    }
    let transport = if bits & 64 != 0 { Transport::Tcp } else { Transport::Udp };
    (settings, Meta { client: CLIENT, transport })
}

/// Several prefixes, ranges, exclusions, names with modes of their own, and names that are answered here.
fn more(settings: &mut Settings) {
    let name = |text: &str| Name::from_ascii(text).expect("a name");
    let own: Pref64 = "2001:db8:64::/96".parse().expect("a prefix");
    let policy = &mut settings.policy;
    policy.prefixes = vec![own, "2001:db8:122::/48".parse().expect("a prefix")];
    policy.ranges = vec![Range { v4: "10.0.0.0/8".parse().expect("a network"), prefixes: vec![] }];
    policy.allow = vec!["0.0.0.0/0".parse().expect("a network")];
    policy.exclude_aaaa.push(own.prefix());
    policy.on_error = OnError::Fail;
    policy.names = vec![(name("pass.example."), Mode::Pass), (name("always.example."), Mode::Always)];
    let alias = |from, to| Record::from_rdata(name(from), 60, RData::CNAME(CNAME(name(to))));
    let records = vec![
        Record::from_rdata(name("a.lan."), 60, RData::A(A::new(198, 41, 0, 4))),
        alias("b.lan.", "a.lan."),
        alias("c.lan.", "x.example."),
        alias("d.lan.", "d.lan."),
    ];
    settings.zones = Zones::new([Zone { apex: name("lan."), records }]);
}

/// An answer about the name with this type: flags and counts, then the records.
fn answer(rtype: u16, rest: &[u8]) -> Answer {
    let Some((head, records)) = rest.split_at_checked(5) else { return Answer::Failed };
    let mut bytes =
        vec![0, 7, 0x80 | head[0], head[1], 0, 1, 0, head[2] & 15, 0, head[3] & 15, 0, head[4] & 15];
    bytes.extend(NAME);
    bytes.extend(rtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(records);
    Answer::Reply(bytes)
}

fn judge(settings: &Settings, meta: &Meta, query: &[u8], reply: &Reply) {
    let bytes = &reply.bytes;
    assert!(bytes.len() >= 12 && bytes[..2] == query[..2] && bytes[2] & 0x80 != 0, "no reply to this query");
    assert!(meta.transport == Transport::Tcp || bytes.len() <= 1232, "{} bytes over UDP", bytes.len());
    let mut cache = Cache::new(1 << 19, 1);
    let scope = settings.scope(meta).expect("loopback may ask");
    cache.store(scope, query, reply, NOW);
    let mut out = vec![0; 65_535];
    if let Lookup::Hit { len, outcome } = cache.lookup(scope, meta.transport, query, NOW, &mut out) {
        assert_eq!((&out[..len], outcome), (&bytes[..], reply.outcome), "the cache says something else");
    }
}
