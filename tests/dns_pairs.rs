//! Features of DNS64 two by two: every pair of values meets in one of these rows, and each row is played against
//! the one core that serves every transport, with a scripted upstream. What must come back is worked out here by a
//! second reading of RFC 6147; besides there is what holds for any reply.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops at the first surprise

#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

#[path = "support/pairs.rs"]
mod pairs;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{HTTPS, SVCB, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use pairs::{Feature, Row, Rules};
use sampan::dns64::limit::Limit;
use sampan::dns64::{
    Change as Dns64Change, Group, Health, Meta, Mode, Policy, Range, Route, Settings, Transport, View,
    WhenDown, Zone, Zones,
};
use sampan::io::dns_net::{Change, Config, Limits};
use support::*;

const FEATURES: &[Feature] = &[
    (
        "question",
        &[
            "aaaa",
            "a",
            "https",
            "any",
            "local",
            "local-alias",
            "forwarded",
            "chain",
            "dname",
            "ipv4only",
            "below-ipv4only",
            "ptr",
            "ptr-ipv4only",
        ],
    ),
    ("aaaa", &["nodata", "native", "nxdomain", "servfail", "bogus", "silent", "mapped", "mixed"]),
    ("a", &["one", "private", "nodata", "nxdomain", "servfail", "silent", "many"]),
    ("transport", &["udp", "tcp", "tls", "https"]),
    ("edns", &["none", "512", "1232", "4096"]),
    ("do", &["no", "yes"]),
    ("cd", &["no", "yes"]),
    ("rd", &["yes", "no"]),
    ("mode", &["synthesise", "pass", "always"]),
    ("filter-a", &["no", "yes"]),
    ("exclude", &["mapped", "nothing", "own"]),
    ("prefixes", &["own", "well-known", "two", "ranges"]),
    ("client", &["plain", "view", "stranger"]),
    ("limit", &["none", "roomy", "spent"]),
    ("cache", &["cold", "warm", "expired"]),
    ("health", &["up", "stale", "servfail", "nodata"]),
];

const RULES: Rules = Rules {
    // The DO bit lives in OPT.
    impossible: |first, second| {
        let [first, second] = [first, second].map(|(at, value)| (FEATURES[at].0, FEATURES[at].1[value]));
        (first, second) == (("edns", "none"), ("do", "yes"))
    },
    hiding: |row| {
        let is = |feature: &str, values: &[&str]| values.contains(&value(row, feature));
        let mut hiding = Vec::new();
        if is("client", &["stranger"]) {
            hiding.push(place("client"));
        }
        // The limit is on UDP.
        if is("limit", &["spent"]) && is("transport", &["udp"]) {
            hiding.push(place("limit"));
        }
        // Answered without a look at upstreams.
        if is("question", &["ipv4only", "below-ipv4only", "ptr-ipv4only"]) && !is("mode", &["pass"]) {
            hiding.push(place("question"));
        }
        hiding
    },
};

fn place(feature: &str) -> usize {
    FEATURES.iter().position(|(name, _)| *name == feature).expect("a feature")
}

fn value(row: &Row, feature: &str) -> &'static str {
    let at = place(feature);
    FEATURES[at].1[row[at]]
}

/// A row by names.
#[derive(Clone)]
struct Case(Row);

/// What the answer must be: RCODE, the addresses that the question is about, and whether they are made by us.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    rcode: ResponseCode,
    addresses: Vec<String>,
    made: bool,
    /// Whether the answer says how long it holds.
    kept: bool,
}

impl Case {
    fn is(&self, feature: &str, wanted: &str) -> bool {
        value(&self.0, feature) == wanted
    }

    fn shown(&self) -> String {
        FEATURES.iter().map(|(name, _)| format!("{name}={} ", value(&self.0, name))).collect()
    }

    fn transport(&self) -> Transport {
        match value(&self.0, "transport") {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls,
            _ => Transport::Https,
        }
    }

    fn prefixes(&self) -> &'static [&'static str] {
        match value(&self.0, "prefixes") {
            "well-known" => &[],
            "two" => &[OWN, "2001:db8:65::/96"],
            _ => &[OWN],
        }
    }

    fn policy(&self) -> Policy {
        let own: sampan::xlat::pref64::Pref64 = OWN.parse().unwrap();
        let mut policy = Policy {
            mode: match value(&self.0, "mode") {
                "pass" => Mode::Pass,
                "always" => Mode::Always,
                _ => Mode::Synthesise,
            },
            filter_a: self.is("filter-a", "yes"),
            prefixes: self.prefixes().iter().map(|prefix| prefix.parse().unwrap()).collect(),
            ..Policy::default()
        };
        match value(&self.0, "exclude") {
            "nothing" => policy.exclude_aaaa.clear(),
            "own" => policy.exclude_aaaa.push(own.prefix()),
            _ => {}
        }
        if self.is("prefixes", "ranges") {
            let prefixes = vec!["2001:db8:66::/96".parse().unwrap()];
            policy.ranges = vec![Range { v4: "198.41.0.0/24".parse().unwrap(), prefixes }];
        }
        policy
    }

    fn settings(&self) -> Settings {
        let policy = self.policy();
        let everybody = "2001:db8:c::/48".parse().unwrap();
        let (policy, views) = if self.is("client", "view") {
            // Whoever is in no view gets something else altogether.
            let other = Policy {
                mode: Mode::Pass,
                prefixes: vec!["2001:db8:99::/96".parse().unwrap()],
                ..Policy::default()
            };
            let view =
                View { clients: vec!["2001:db8:c:2::/64".parse().unwrap()], transports: vec![], policy };
            (other, vec![view])
        } else {
            (policy, vec![])
        };
        let apex = Name::from_ascii("lan.").unwrap();
        let records = vec![a("host.lan.", 60, "198.41.0.4"), {
            let mut alias = cname("alias.lan.", "x.test.");
            alias.ttl = self.ttl();
            alias
        }];
        Settings {
            policy,
            views: views.into_iter().collect(),
            clients: [everybody].into_iter().collect(),
            limit: match value(&self.0, "limit") {
                "roomy" => Some(Limit { per_second: 100, burst: 100, client_len: 64 }),
                "spent" => Some(Limit { per_second: 1, burst: 1, client_len: 64 }),
                _ => None,
            },
            zones: Zones::new([Zone { apex, records }]),
            routes: [Route { suffix: Name::from_ascii("fwd.").unwrap(), group: Group(1), trust_ad: false }]
                .into_iter()
                .collect(),
            when_down: match value(&self.0, "health") {
                "servfail" => WhenDown::ServFail,
                "nodata" => WhenDown::NoData,
                _ => WhenDown::Stale,
            },
            ..Settings::default()
        }
    }

    /// Of what the upstream says.
    fn ttl(&self) -> u32 {
        if self.is("cache", "expired") { 1 } else { 60 }
    }

    fn owner(&self) -> String {
        match value(&self.0, "question") {
            "local" => "host.lan.".into(),
            "local-alias" => "alias.lan.".into(),
            "forwarded" => "x.fwd.".into(),
            "chain" => "c.test.".into(),
            "dname" => "x.dn.test.".into(),
            "ipv4only" => "ipv4only.arpa.".into(),
            "below-ipv4only" => "x.ipv4only.arpa.".into(),
            "ptr" => Name::from("64:ff9b::198.41.0.4".parse::<Ipv6Addr>().unwrap()).to_ascii(),
            "ptr-ipv4only" => Name::from("64:ff9b::192.0.0.170".parse::<Ipv6Addr>().unwrap()).to_ascii(),
            _ => "x.test.".into(),
        }
    }

    fn rtype(&self) -> RecordType {
        match value(&self.0, "question") {
            "a" => RecordType::A,
            "https" => RecordType::HTTPS,
            "any" => RecordType::ANY,
            "ptr" | "ptr-ipv4only" => RecordType::PTR,
            _ => RecordType::AAAA,
        }
    }

    fn query(&self) -> Message {
        let mut message = query(&self.owner(), self.rtype());
        message.metadata.recursion_desired = self.is("rd", "yes");
        message.metadata.checking_disabled = self.is("cd", "yes");
        if !self.is("edns", "none") {
            message = with_opt(message);
            let edns = message.edns.as_mut().unwrap();
            edns.set_max_payload(value(&self.0, "edns").parse().unwrap());
            edns.set_dnssec_ok(self.is("do", "yes"));
        }
        message
    }

    /// What the upstream does with a question.
    fn react(&self, query: &Message) -> Reaction {
        let question = &query.queries[0];
        let owner = question.name.to_ascii().to_lowercase();
        let (chain, end) = match owner.as_str() {
            "c.test." => (vec![cname(&owner, "end.test.")], "end.test.".to_owned()),
            "x.dn.test." => (
                vec![dname("dn.test.", "real.test."), cname(&owner, "x.real.test.")],
                "x.real.test.".to_owned(),
            ),
            _ => (vec![], owner.clone()),
        };
        let negative = soa(if owner.ends_with("fwd.") { "fwd." } else { "test." });
        let mut message = reply_to(query, ResponseCode::NoError);
        message.answers = chain;
        let outcome = match question.query_type {
            RecordType::AAAA => value(&self.0, "aaaa"),
            RecordType::A => value(&self.0, "a"),
            RecordType::HTTPS => {
                message.answers.push(record(
                    &owner,
                    60,
                    RData::HTTPS(HTTPS(SVCB::new(1, name("."), vec![]))),
                ));
                ""
            }
            RecordType::ANY => {
                message.answers.push(record(&owner, 60, RData::TXT(TXT::new(vec!["any".into()]))));
                ""
            }
            RecordType::PTR if owner.ends_with("in-addr.arpa.") => {
                message.answers.push(ptr(&owner, "host.test."));
                ""
            }
            _ => {
                message.authorities.push(soa("arpa."));
                ""
            }
        };
        match outcome {
            "silent" => return Reaction::Silence,
            "servfail" => message = reply_to(query, ResponseCode::ServFail),
            "bogus" => {
                message = reply_to(query, ResponseCode::ServFail);
                let bogus = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(15, vec![0, 6]);
                if let Some(edns) = &mut message.edns {
                    edns.options_mut().insert(bogus);
                }
            }
            "nodata" => message.authorities.push(negative),
            "nxdomain" => {
                message.metadata.response_code = ResponseCode::NXDomain;
                message.authorities.push(negative);
            }
            "native" => message.answers.push(aaaa(&end, "2001:db8::1")),
            "mapped" => message.answers.push(aaaa(&end, "::ffff:192.0.2.9")),
            "mixed" => {
                let all = ["::ffff:192.0.2.9", "2001:db8:64::c629:9", "2001:db8::1"];
                message.answers.extend(all.map(|addr| aaaa(&end, addr)));
            }
            "one" => message.answers.push(a(&end, 60, "198.41.0.4")),
            "private" => message.answers.push(a(&end, 60, "10.1.2.3")),
            "many" => message.answers.extend((0..70).map(|n| a(&end, 60, &format!("198.41.0.{n}")))),
            _ => {}
        }
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.ttl = self.ttl();
        }
        Reaction::Reply(message)
    }

    /// The answer to a question about addresses, by RFC 6147 §5; `down` while the translator is.
    fn told(&self, down: bool) -> Told {
        let local = self.is("question", "local");
        let aaaa_said = if local { "nodata" } else { value(&self.0, "aaaa") };
        let a_said = if local { "one" } else { value(&self.0, "a") };
        let told = |rcode, addresses: &[&str], kept| Told {
            rcode,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            made: false,
            kept,
        };
        let (ok, gone, fail) = (ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::ServFail);
        let untouched = self.is("mode", "pass") || self.is("cd", "yes");
        let is_left = |addr: &&&str| match **addr {
            "::ffff:192.0.2.9" => self.is("exclude", "nothing"),
            "2001:db8:64::c629:9" => !self.is("exclude", "own"),
            _ => true,
        };
        let there: &[&str] = match aaaa_said {
            "native" => &["2001:db8::1"],
            "mapped" => &["::ffff:192.0.2.9"],
            "mixed" => &["::ffff:192.0.2.9", "2001:db8:64::c629:9", "2001:db8::1"],
            _ => &[],
        };
        match aaaa_said {
            "nxdomain" => return told(gone, &[], true),
            "bogus" => return told(fail, &[], true),
            "servfail" | "silent" if untouched => return told(fail, &[], true),
            _ if untouched => return told(ok, there, true),
            _ => {}
        }
        let good: Vec<&str> = there.iter().filter(is_left).copied().collect();
        if !good.is_empty() && !(self.is("mode", "always") && !down) {
            return told(ok, &good, true);
        }
        let v4: Vec<u8> = match a_said {
            "one" => vec![4],
            "many" => (0..70).collect(),
            _ => vec![],
        };
        if !v4.is_empty() {
            if down {
                let rcode = if self.is("health", "nodata") { ok } else { fail };
                return told(rcode, &[], true);
            }
            let prefixes: &[&str] = match value(&self.0, "prefixes") {
                "own" => &["2001:db8:64::"],
                "well-known" => &["64:ff9b::"],
                "two" => &["2001:db8:64::", "2001:db8:65::"],
                _ => &["2001:db8:66::"],
            };
            let made = v4
                .iter()
                .flat_map(|last| prefixes.iter().map(move |prefix| format!("{prefix}198.41.0.{last}")));
            let plain = |text: String| text.parse::<Ipv6Addr>().unwrap().to_string();
            return Told { rcode: ok, addresses: made.map(plain).collect(), made: true, kept: true };
        }
        if !good.is_empty() {
            return told(ok, &good, true);
        }
        match a_said {
            "nxdomain" => told(gone, &[], true),
            "servfail" | "silent" => told(fail, &[], true),
            // Without SOA nobody knows how long it holds (RFC 2308 §5).
            "private" => told(ok, &[], aaaa_said == "nodata"),
            _ => told(ok, &[], true),
        }
    }
}

/// Plays a row; what is wrong stops it.
async fn play(case: Case) {
    let is_dead = Arc::new(AtomicBool::new(false));
    let script = |case: &Case| {
        let (case, is_dead) = (case.clone(), Arc::clone(&is_dead));
        move |query: &Message, _: bool| {
            if is_dead.load(Ordering::Relaxed) { Reaction::Silence } else { case.react(query) }
        }
    };
    let (first, other) = (Upstream::start(script(&case)).await, Upstream::start(script(&case)).await);
    let config = Config {
        dns64: case.settings(),
        upstream: vec![first.addr.into()],
        groups: vec![vec![other.addr.into()]],
        ..Config::default()
    };
    let limits = Limits {
        udp_threads: 1,
        cache_bytes: 4 << 20,
        deadline: Duration::from_millis(2_500),
        aaaa_budget: Duration::from_millis(800),
        stale_after: Duration::from_millis(1_000),
        ..Limits::default()
    };
    let service = Service::start("127.0.0.1:0", config, limits).await;
    let (network, transport) = (if case.is("client", "stranger") { "9" } else { "c" }, case.transport());
    let meta = |transport| Meta { client: format!("2001:db8:{network}:2::1").parse().unwrap(), transport };
    let query = case.query();
    let bytes = query.to_vec().unwrap();
    let asked = || first.asked().len() + other.asked().len();

    if !case.is("cache", "cold") {
        // Over a stream: that is not limited.
        service.shared.answer(&bytes, &meta(Transport::Tcp)).await;
    }
    if !case.is("health", "up") {
        service.shared.apply([Change::Dns64(Dns64Change::Health(Health::Down))]);
    }
    if case.is("cache", "expired") {
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        is_dead.store(true, Ordering::Relaxed);
    }
    if case.is("limit", "spent") {
        let other = support::query("spent.lan.", RecordType::TXT).to_vec().unwrap();
        service.shared.answer(&other, &meta(Transport::Udp)).await;
    }
    let before = asked();
    let reply = service.shared.answer(&bytes, &meta(transport)).await;
    let upstream = asked() - before;
    let shown = case.shown();

    if case.is("limit", "spent") && transport == Transport::Udp {
        // Nothing, or the word to come back over TCP, never longer than the question.
        if let Some(reply) = reply {
            let message = Message::from_vec(&reply).unwrap();
            assert!(message.metadata.truncation && message.answers.is_empty(), "{shown}{message}");
            assert!(reply.len() <= bytes.len(), "{shown}");
        }
        assert_eq!((upstream, service.counter("limited")), (0, 1), "{shown}");
        return;
    }
    let reply = reply.unwrap_or_else(|| panic!("{shown}no reply"));
    let message = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{shown}{error}"));
    any_reply(&case, &query, &reply, &message);
    assert!(upstream <= 4, "{shown}{upstream} questions upstream");
    if case.is("client", "stranger") {
        assert_eq!(message.metadata.response_code, ResponseCode::Refused, "{shown}");
        assert!(message.answers.is_empty() && asked() == 0, "{shown}");
        return;
    }
    for (upstream, group) in [(&first, 0), (&other, 1)] {
        let is_its = |(owner, ..): &(String, RecordType, bool)| owner.ends_with(".fwd.") == (group == 1);
        assert!(upstream.asked().iter().all(is_its), "{shown}{:?}", upstream.asked());
    }
    match value(&case.0, "question") {
        "aaaa" | "local" | "local-alias" | "forwarded" | "chain" | "dname" => {
            about_addresses(&case, &message, upstream)
        }
        _ => about_others(&case, &message, upstream),
    }
}

/// What holds for any reply.
fn any_reply(case: &Case, query: &Message, bytes: &[u8], message: &Message) {
    let shown = case.shown();
    let flags = &message.metadata;
    assert_eq!((flags.id, flags.message_type), (query.metadata.id, MessageType::Response), "{shown}");
    assert_eq!(message.queries, query.queries, "{shown}");
    assert!(flags.recursion_available && !flags.authentic_data, "{shown}{message}");
    assert_eq!(flags.recursion_desired, case.is("rd", "yes"), "{shown}");
    assert_eq!(flags.checking_disabled, case.is("cd", "yes"), "{shown}");
    let dnssec_ok = message.edns.as_ref().map(|edns| edns.flags().dnssec_ok);
    assert_eq!(dnssec_ok, (!case.is("edns", "none")).then(|| case.is("do", "yes")), "{shown}{message}");
    let limit = match (case.transport(), value(&case.0, "edns")) {
        (Transport::Udp, "none" | "512") => 512,
        (Transport::Udp, _) => 1232,
        _ => 65_535,
    };
    assert!(bytes.len() <= limit, "{shown}{} bytes", bytes.len());
    assert!(!flags.truncation || case.transport() == Transport::Udp, "{shown}");
    let types: BTreeSet<_> = message.answers.iter().map(Record::record_type).collect();
    if case.rtype() == RecordType::AAAA {
        assert!(!types.contains(&RecordType::A), "{shown}{message}");
    }
}

fn about_addresses(case: &Case, message: &Message, upstream: usize) {
    let shown = case.shown();
    let down = !case.is("health", "up");
    // Local names need no upstream and do not expire here.
    let cache = match value(&case.0, "cache") {
        "expired" if case.is("question", "local") => "warm",
        cache => cache,
    };
    let calm = case.told(false);
    let fail = Told { rcode: ResponseCode::ServFail, addresses: vec![], made: false, kept: true };
    let (told, most) = match cache {
        "cold" => (case.told(down), u32::MAX),
        // RFC 8767 and the translator's health: what was made is served for five seconds at a time, or not at all.
        _ if down && calm.made && case.is("health", "stale") => (calm, 5),
        "warm" => (case.told(down), u32::MAX),
        _ if down && calm.made => (fail, u32::MAX),
        _ if calm.rcode == ResponseCode::ServFail || !calm.kept => (fail, u32::MAX),
        _ => (calm, 30),
    };
    let flags = &message.metadata;
    assert_eq!(flags.response_code, told.rcode, "{shown}{message}");
    let got: Vec<_> = addresses(message);
    if flags.truncation {
        assert!(got.is_empty() && told.addresses.len() >= 10, "{shown}{message}");
    } else {
        let (addresses, ttls): (Vec<_>, Vec<_>) = got.into_iter().unzip();
        assert_eq!(addresses, told.addresses, "{shown}{message}");
        assert!(ttls.iter().all(|ttl| *ttl <= most.min(60)), "{shown}{ttls:?}");
    }
    let codes = extended_errors(message);
    if !case.is("edns", "none") {
        assert_eq!(codes.contains(&29), told.made, "{shown}{message}");
        let is_stale = codes.contains(&3) || codes.contains(&19);
        assert_eq!(is_stale, most <= 30, "{shown}{message}");
    }
    if case.is("question", "local") || (cache == "warm" && most == 5) {
        assert_eq!(upstream, 0, "{shown}");
    }
    if cache == "warm" && !down && told.kept {
        assert_eq!(upstream, 0, "{shown}not from the cache");
    }
    let aliases = message.answers.iter().filter(|record| record.record_type() == RecordType::CNAME).count();
    if !told.addresses.is_empty() && !flags.truncation {
        let alias = matches!(value(&case.0, "question"), "chain" | "dname" | "local-alias");
        assert_eq!(aliases, usize::from(alias), "{shown}{message}");
    }
}

/// Questions that synthesis is not about, or that are answered here.
fn about_others(case: &Case, message: &Message, upstream: usize) {
    let shown = case.shown();
    let pass = case.is("mode", "pass");
    let expired = case.is("cache", "expired");
    let types: Vec<_> = message.answers.iter().map(Record::record_type).collect();
    let rcode = message.metadata.response_code;
    let (ok, fail) = (ResponseCode::NoError, ResponseCode::ServFail);
    match value(&case.0, "question") {
        "any" if case.transport() == Transport::Udp => {
            assert!(message.metadata.truncation && types.is_empty() && upstream == 0, "{shown}{message}");
        }
        // It is never kept.
        "any" => {
            assert_eq!(rcode, if expired { fail } else { ok }, "{shown}{message}");
            assert_eq!(types.len(), usize::from(!expired), "{shown}{message}");
        }
        "https" => assert_eq!((rcode, &types[..]), (ok, &[RecordType::HTTPS][..]), "{shown}{message}"),
        "a" => {
            let (wanted, count) = match value(&case.0, "a") {
                "one" | "private" => (ok, 1),
                "many" => (ok, 70),
                "nodata" => (ok, 0),
                "nxdomain" => (ResponseCode::NXDomain, 0),
                _ => (fail, 0),
            };
            let filtered = case.is("filter-a", "yes") && case.is("cd", "no");
            let count = if filtered || message.metadata.truncation { 0 } else { count };
            assert_eq!((rcode, types.len()), (wanted, count), "{shown}{message}");
        }
        "ipv4only" if !pass => {
            let wanted: Vec<_> = match value(&case.0, "prefixes") {
                "well-known" => vec!["64:ff9b::"],
                "two" => vec!["2001:db8:64::", "2001:db8:65::"],
                "ranges" => vec!["2001:db8:64::", "2001:db8:66::"],
                _ => vec!["2001:db8:64::"],
            };
            let both = |prefix: &&str| ["170", "171"].map(|last| format!("{prefix}192.0.0.{last}"));
            let plain = |text: String| text.parse::<Ipv6Addr>().unwrap().to_string();
            let wanted: Vec<_> = wanted.iter().flat_map(both).map(plain).collect();
            let got: Vec<_> = addresses(message).into_iter().map(|(addr, _)| addr).collect();
            assert_eq!((rcode, got, upstream), (ok, wanted, 0), "{shown}{message}");
        }
        "below-ipv4only" if !pass => {
            assert_eq!((rcode, upstream), (ResponseCode::NXDomain, 0), "{shown}{message}");
        }
        "ptr-ipv4only" if !pass => {
            assert_eq!((rcode, &types[..], upstream), (ok, &[RecordType::PTR][..], 0), "{shown}{message}");
        }
        "ptr" if !pass && case.is("cd", "no") => {
            assert_eq!(
                (rcode, &types[..]),
                (ok, &[RecordType::CNAME, RecordType::PTR][..]),
                "{shown}{message}"
            );
        }
        // A plain forwarder knows nothing of these names.
        "ipv4only" | "below-ipv4only" => {
            let wanted = case.told(false);
            let wanted = if wanted.addresses.is_empty() { wanted.rcode } else { ok };
            assert_eq!(rcode, wanted, "{shown}{message}");
        }
        _ => assert_eq!((rcode, types.len()), (ok, 0), "{shown}{message}"),
    }
}

#[tokio::test]
async fn r34_every_pair_of_features() {
    let all = pairs::pairs(FEATURES, &RULES);
    let rows = pairs::rows(FEATURES, &RULES);
    let met: BTreeSet<_> = rows.iter().flat_map(|row| pairs::met(row, &RULES)).collect();
    println!("{} pairs of {} features met in {} rows", met.len(), FEATURES.len(), rows.len());
    println!("not met, because it cannot be: DO without EDNS");
    assert_eq!(met.intersection(&all).count(), all.len());
    for chunk in rows.chunks(24) {
        let mut playing = tokio::task::JoinSet::new();
        for row in chunk {
            playing.spawn(play(Case(row.clone())));
        }
        while let Some(played) = playing.join_next().await {
            played.unwrap();
        }
    }
}
