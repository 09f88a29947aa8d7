//! DNS64 on virtual time: each scenario is a text in `tests/scenarios`, with a scripted upstream, questions and what
//! must come back when. The words are explained in [`World::step`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::wildcard_enum_match_arm)] // a test stops at the first surprise

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, NULL, PTR, SOA, SVCB, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sampan::dns64::cache::{Cache, Lookup};
use sampan::dns64::{
    Answer, Change, Exchange, Group, Health, Meta, Mode, Next, OnError, Outcome, Pace, Range, Route,
    Settings, Step, Transport, View, WhenDown, Zone, Zones, begin,
};
use sampan::time::Instant;

/// When an expired reply is served for want of a fresh one (RFC 8767 §5, client response timer).
const PATIENCE: Duration = Duration::from_millis(1_800);

fn run(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut scenarios = 0;
    let mut world = World::default();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split(';').next().unwrap().split_whitespace().collect();
        let Some((verb, rest)) = words.split_first() else { continue };
        if *verb == "scenario" {
            world.finish(&format!("{file}:{number}"));
            world = World::default();
            scenarios += 1;
        } else {
            world.step(&format!("{file}:{}", number + 1), verb, rest);
        }
    }
    world.finish(file);
    assert!(scenarios > 0, "{file} is empty");
}

/// What one scenario sees.
struct World {
    settings: Settings,
    views: Vec<View>,
    zones: Vec<Zone>,
    routes: Vec<Route>,
    cache: Cache,
    now: Instant,
    script: HashMap<(String, RecordType), Scripted>,
    last_scripted: Option<(String, RecordType)>,
    asked: Vec<String>,
    answer: Option<(Message, Outcome, Duration)>,
    /// Whether every reply so far was looked at.
    checked: bool,
}

/// What the upstream does with a question.
#[derive(Clone)]
struct Scripted {
    after: Duration,
    /// None: silence.
    message: Option<Message>,
}

impl Default for World {
    fn default() -> Self {
        let mut settings = Settings::default();
        settings.policy.prefixes = vec!["2001:db8:64::/96".parse().unwrap()];
        settings.policy.allow = vec!["192.0.2.0/24".parse().unwrap()];
        settings.clients = ["::/0", "0.0.0.0/0"].map(|net| net.parse().unwrap()).into_iter().collect();
        Self {
            settings,
            views: Vec::new(),
            zones: Vec::new(),
            routes: Vec::new(),
            cache: Cache::new(1 << 20, 1),
            now: Instant::from_secs(1_000_000),
            script: HashMap::new(),
            last_scripted: None,
            asked: Vec::new(),
            answer: None,
            checked: true,
        }
    }
}

impl World {
    /// One line:
    ///
    /// * `set KEY VALUE…`: the settings of everybody, or after `view NET…` of that view; `health up|down`.
    /// * `zone APEX`, `local RECORD`: names that are answered here; `route SUFFIX GROUP`: who is asked elsewhere.
    /// * `upstream NAME TYPE MILLISECONDS RCODE|silent`: what the upstream does; `an|au|ad RECORD` and `ede CODE` and
    ///   `tc`, `ad-bit` add to it.
    /// * `ask NAME TYPE [edns] [do] [cd] [ad] [tcp] [from ADDRESS]`: a client asks; runs until it has its reply.
    /// * `wait SECONDS`.
    /// * `expect MILLISECONDS RCODE OUTCOME`, then `answer RECORD…` in their order (none: the answer is empty),
    ///   `soa NAME`, `codes CODE…`, `questions TYPE@GROUP…`, `flags FLAG…`.
    fn step(&mut self, place: &str, verb: &str, words: &[&str]) {
        match verb {
            "set" => self.set(place, words),
            "view" => {
                let clients = words.iter().map(|net| net.parse().unwrap()).collect();
                let policy = self.settings.policy.clone();
                self.views.push(View { clients, transports: vec![], policy });
            }
            "health" => {
                let health = if words[0] == "down" { Health::Down } else { Health::Up };
                self.settings.apply(Change::Health(health));
            }
            "zone" => self.zones.push(Zone { apex: name(words[0]), records: vec![] }),
            "local" => self.zones.last_mut().expect(place).records.push(record(place, words)),
            "route" => self.routes.push(Route {
                suffix: name(words[0]),
                group: Group(words[1].parse().unwrap()),
                trust_ad: false,
            }),
            "upstream" => self.upstream(place, words),
            "an" => self.scripted(place).answers.push(record(place, words)),
            "au" => self.scripted(place).authorities.push(record(place, words)),
            "ad" => self.scripted(place).additionals.push(record(place, words)),
            "tc" => self.scripted(place).metadata.truncation = true,
            "ad-bit" => self.scripted(place).metadata.authentic_data = true,
            "ede" => {
                let code: u16 = words[0].parse().unwrap();
                let edns = self.scripted(place).edns.get_or_insert_with(Edns::new);
                edns.options_mut().insert(EdnsOption::Unknown(15, code.to_be_bytes().to_vec()));
            }
            "wait" => self.now = self.now + Duration::from_secs(words[0].parse().unwrap()),
            "ask" => {
                assert!(self.checked, "{place}: the last reply was not looked at");
                self.checked = false;
                self.ask(place, words);
            }
            _ => self.expect(place, verb, words),
        }
    }

    fn finish(&self, place: &str) {
        assert!(self.checked, "{place}: the last reply was not looked at");
    }

    fn set(&mut self, place: &str, words: &[&str]) {
        let policy = self.views.last_mut().map_or(&mut self.settings.policy, |view| &mut view.policy);
        let mode = |word: &str| match word {
            "pass" => Mode::Pass,
            "always" => Mode::Always,
            _ => Mode::Synthesise,
        };
        match words {
            ["mode", word] => policy.mode = mode(word),
            ["name", suffix, word] => policy.names.push((name(suffix), mode(word))),
            ["prefix", list @ ..] => policy.prefixes = list.iter().map(|p| p.parse().unwrap()).collect(),
            ["allow", list @ ..] => policy.allow = list.iter().map(|p| p.parse().unwrap()).collect(),
            ["range", v4, list @ ..] => policy.ranges.push(Range {
                v4: v4.parse().unwrap(),
                prefixes: list.iter().map(|p| p.parse().unwrap()).collect(),
            }),
            ["exclude", list @ ..] => {
                policy.exclude_aaaa.extend(list.iter().map(|p| p.parse::<sampan::addr::Prefix6>().unwrap()))
            }
            ["on-error", "fail"] => policy.on_error = OnError::Fail,
            ["filter-a"] => policy.filter_a = true,
            ["trust-ad"] => self.settings.trust_ad = true,
            ["when-down", "servfail"] => self.settings.when_down = WhenDown::ServFail,
            ["when-down", "nodata"] => self.settings.when_down = WhenDown::NoData,
            _ => panic!("{place}: set {words:?}"),
        }
    }

    fn upstream(&mut self, place: &str, words: &[&str]) {
        let [owner, rtype, after, rcode] = words else { panic!("{place}: {words:?}") };
        let rtype: RecordType = rtype.parse().unwrap();
        let message = (*rcode != "silent").then(|| {
            let mut message = Message::new(1, MessageType::Response, OpCode::Query);
            message.metadata.response_code = rcode_of(place, rcode);
            message.queries.push(Query::query(name(owner), rtype));
            message
        });
        let key = (owner.to_lowercase(), rtype);
        let after = Duration::from_millis(after.parse().unwrap());
        self.script.insert(key.clone(), Scripted { after, message });
        self.last_scripted = Some(key);
    }

    fn scripted(&mut self, place: &str) -> &mut Message {
        let key = self.last_scripted.as_ref().expect(place);
        self.script.get_mut(key).unwrap().message.as_mut().expect(place)
    }

    fn ask(&mut self, place: &str, words: &[&str]) {
        let mut settings = self.settings.clone();
        settings.views = self.views.iter().cloned().collect();
        settings.zones = Zones::new(self.zones.clone());
        settings.routes = self.routes.iter().cloned().collect();
        let mut query = Message::new(0x5a5a, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.queries.push(Query::query(name(words[0]), words[1].parse().unwrap()));
        let mut meta = Meta { client: "2001:db8:9::1".parse::<IpAddr>().unwrap(), transport: Transport::Udp };
        let mut options = words[2..].iter();
        while let Some(option) = options.next() {
            match *option {
                "cd" => query.metadata.checking_disabled = true,
                "ad" => query.metadata.authentic_data = true,
                "tcp" => meta.transport = Transport::Tcp,
                "from" => meta.client = options.next().unwrap().parse().unwrap(),
                "edns" | "do" => {
                    let mut edns = Edns::new();
                    edns.set_max_payload(1232).set_dnssec_ok(*option == "do");
                    query.edns = Some(edns);
                }
                _ => panic!("{place}: {option}"),
            }
        }
        self.asked.clear();
        let start = self.now;
        let (bytes, outcome) = self.reply(place, &settings, &query.to_vec().unwrap(), &meta);
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!((message.metadata.id, &message.queries), (0x5a5a, &query.queries), "{place}");
        assert!(
            message.answers.iter().all(|r| r.record_type() != RecordType::A || words[1] != "AAAA"),
            "{place}"
        );
        self.answer = Some((message, outcome, self.now.since(start)));
    }

    fn reply(&mut self, place: &str, settings: &Settings, query: &[u8], meta: &Meta) -> (Vec<u8>, Outcome) {
        let mut out = [0; 65_535];
        if let Some(scope) = settings.scope(meta)
            && let Lookup::Hit { len, outcome } =
                self.cache.lookup(scope, meta.transport, query, self.now, &mut out)
        {
            return (out[..len].to_vec(), outcome);
        }
        let ask = match begin(settings, query, meta) {
            Step::Reply(reply) => return (reply.bytes, reply.outcome),
            Step::Ask(ask) => ask,
            Step::Ignore => panic!("{place}: ignored"),
        };
        let scope = settings.scope(meta).unwrap();
        let start = self.now;
        let exchange = ask.start(Pace::default(), start);
        let (reply, at) = self.race(settings, exchange);
        // What a caller does: after the client's patience an expired reply is better than none.
        let waited = at.since(start) > PATIENCE;
        let stale_at = if waited { start + PATIENCE } else { at };
        let stale = (waited || reply.is_failure())
            .then(|| self.cache.stale(scope, meta.transport, query, stale_at, &mut out))
            .flatten();
        self.cache.store(scope, query, &reply, at);
        match stale {
            Some((len, outcome)) => {
                self.now = stale_at;
                (out[..len].to_vec(), outcome)
            }
            None => {
                self.now = at;
                (reply.bytes, reply.outcome)
            }
        }
    }

    /// Plays the upstream against the clock.
    fn race(&mut self, settings: &Settings, mut exchange: Exchange) -> (sampan::dns64::Reply, Instant) {
        let mut events = Vec::new();
        for (slot, question) in exchange.questions().iter().enumerate() {
            self.asked.push(format!("{}@{}", question.record_type, question.group.0));
            let key = (question.name.to_ascii().to_lowercase(), question.record_type);
            if let Some(Scripted { after, message: Some(message) }) = self.script.get(&key) {
                events.push((self.now + *after, slot, Answer::Reply(message.to_vec().unwrap())));
            }
        }
        events.sort_by_key(|(at, slot, _)| (*at, *slot));
        let mut events = events.into_iter().peekable();
        let mut now = self.now;
        loop {
            let wake = exchange.wake();
            let next = match events.next_if(|(at, ..)| *at <= wake) {
                Some((at, slot, answer)) => {
                    now = now.max(at);
                    exchange.answered(settings, slot, answer, now)
                }
                None => {
                    now = now.max(wake);
                    exchange.tick(settings, now)
                }
            };
            if let Next::Done(reply) = next {
                return (reply, now);
            }
        }
    }

    fn expect(&mut self, place: &str, verb: &str, words: &[&str]) {
        let (message, outcome, after) = self.answer.as_ref().expect(place);
        let join = |list: &[String]| list.join(" | ");
        match verb {
            "expect" => {
                self.checked = true;
                let got =
                    format!("{} {:?} {}", after.as_millis(), message.metadata.response_code, outcome.name());
                let rcode = rcode_of(place, words[1]);
                assert_eq!(got, format!("{} {rcode:?} {}", words[0], words[2]), "{place}: {message}");
            }
            "answer" => {
                let got: Vec<_> = message.answers.iter().map(shown).collect();
                let wanted = words.join(" ");
                let wanted: Vec<_> =
                    wanted.split('|').map(|r| r.trim().to_owned()).filter(|r| !r.is_empty()).collect();
                assert_eq!(join(&got), join(&wanted), "{place}");
            }
            "soa" => {
                let soas = message.authorities.iter().filter(|r| r.record_type() == RecordType::SOA);
                let got: Vec<_> = soas.map(|r| format!("{} {}", r.name, r.ttl)).collect();
                assert_eq!(got.join(" "), words.join(" "), "{place}");
            }
            "codes" => {
                let options = message.edns.iter().flat_map(|edns| edns.options().as_ref().iter());
                let codes = options.filter_map(|(_, option)| match option {
                    EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes([data[0], data[1]]).to_string()),
                    _ => None,
                });
                assert_eq!(codes.collect::<Vec<_>>().join(" "), words.join(" "), "{place}");
            }
            "questions" => assert_eq!(self.asked.join(" "), words.join(" "), "{place}"),
            "flags" => {
                let flags = [
                    ("tc", message.metadata.truncation),
                    ("ad", message.metadata.authentic_data),
                    ("cd", message.metadata.checking_disabled),
                    ("aa", message.metadata.authoritative),
                    ("opt", message.edns.is_some()),
                    ("do", message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok)),
                ];
                let set: Vec<_> = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
                assert_eq!(set.join(" "), words.join(" "), "{place}");
            }
            _ => panic!("{place}: what is `{verb}`?"),
        }
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn rcode_of(place: &str, word: &str) -> ResponseCode {
    match word {
        "ok" => ResponseCode::NoError,
        "formerr" => ResponseCode::FormErr,
        "servfail" => ResponseCode::ServFail,
        "nxdomain" => ResponseCode::NXDomain,
        "notimp" => ResponseCode::NotImp,
        "refused" => ResponseCode::Refused,
        _ => panic!("{place}: {word}"),
    }
}

/// `OWNER TTL TYPE DATA`; the data of an SOA is its MINIMUM.
fn record(place: &str, words: &[&str]) -> Record {
    let [owner, ttl, rtype, data @ ..] = words else { panic!("{place}: {words:?}") };
    let first = data.first().copied().unwrap_or_default();
    let data = match *rtype {
        "A" => RData::A(A(first.parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(first.parse().unwrap())),
        "CNAME" => RData::CNAME(CNAME(name(first))),
        "PTR" => RData::PTR(PTR(name(first))),
        "TXT" => RData::TXT(TXT::new(vec![first.to_owned()])),
        "HTTPS" => RData::HTTPS(HTTPS(SVCB::new(1, name(first), vec![]))),
        "SOA" => {
            RData::SOA(SOA::new(name("ns.test."), name("host.test."), 1, 2, 3, 4, first.parse().unwrap()))
        }
        "RRSIG" => RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(vec![0; 24]) },
        "DNAME" => {
            // Its data is a name without compression.
            let target = name(first);
            let bytes: Vec<u8> =
                target.iter().flat_map(|l| [&[l.len() as u8], l].concat()).chain([0]).collect();
            RData::Unknown { code: RecordType::Unknown(39), rdata: NULL::with(bytes) }
        }
        _ => panic!("{place}: {rtype}"),
    };
    Record::from_rdata(name(owner), ttl.parse().unwrap(), data)
}

fn shown(record: &Record) -> String {
    let data = match &record.data {
        RData::TXT(txt) => txt.to_string().trim_matches('"').to_owned(),
        RData::A(_) | RData::AAAA(_) | RData::CNAME(_) | RData::PTR(_) => record.data.to_string(),
        _ => String::new(),
    };
    format!("{} {} {} {data}", record.name, record.ttl, record.record_type()).trim_end().to_owned()
}

#[test]
fn k01_to_k11_every_row_of_the_comparison_of_resolvers() {
    run("comparison.rpl");
}

#[test]
fn k04_k14_who_answers_when() {
    run("timing.rpl");
}

#[test]
fn k31_k37_k38_views_names_and_ranges() {
    run("views.rpl");
}

#[test]
fn k24_k28_dnssec_matrix() {
    run("dnssec.rpl");
}

#[test]
fn k32_k45_local_names_and_other_upstreams() {
    run("local.rpl");
}

#[test]
fn k41_k42_k43_caching_and_expired_answers() {
    run("cache.rpl");
}

#[test]
fn the_translator_is_down() {
    run("health.rpl");
}
