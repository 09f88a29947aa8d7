//! Features of DNS64 with their values: what each does to settings, query and upstream, and the answer that must come of
//! them.

use std::net::Ipv6Addr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{HTTPS, SVCB, TXT};
use hickory_proto::rr::{Name, RData, RecordType};
use sampan::dns64::limit::Limit;
use sampan::dns64::{Group, Mode, Policy, Range, Route, Settings, Transport, View, WhenDown, Zone, Zones};

use crate::pairs::{Feature, Row, Rules, Value};
use crate::support::*;

pub const FEATURES: &[Feature] = &[
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

pub const RULES: Rules<'static> = Rules {
    // The DO bit lives in OPT.
    impossible: &|first, second| {
        let [first, second] = [first, second].map(|(at, value)| (FEATURES[at].0, FEATURES[at].1[value]));
        (first, second) == (("edns", "none"), ("do", "yes"))
    },
    hiding: &|row| {
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

/// With these values only the questions are left in which records are made, or would be but for the translator.
pub const MAKING: &[(&str, &[&str])] = &[
    ("question", &["aaaa", "local", "local-alias", "forwarded", "chain", "dname"]),
    ("aaaa", &["nodata", "native", "mapped", "mixed", "servfail"]),
    ("a", &["one", "private", "many"]),
    ("cd", &["no"]),
    ("mode", &["synthesise", "always"]),
    ("client", &["plain", "view"]),
    ("limit", &["none", "roomy"]),
];

/// Whether a value is one of those named for its feature; features that are not named have all of theirs.
pub fn is_among((at, value): Value, chosen: &[(&str, &[&str])]) -> bool {
    let (feature, values) = FEATURES[at];
    chosen.iter().all(|(name, some)| *name != feature || some.contains(&values[value]))
}

fn place(feature: &str) -> usize {
    FEATURES.iter().position(|(name, _)| *name == feature).expect("a feature")
}

pub fn value(row: &Row, feature: &str) -> &'static str {
    let at = place(feature);
    FEATURES[at].1[row[at]]
}

/// A row by names.
#[derive(Clone)]
pub struct Case(pub Row);

/// What the answer must be: RCODE, the addresses that the question is about, and whether they are made by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub rcode: ResponseCode,
    pub addresses: Vec<String>,
    pub made: bool,
    /// Whether the answer says how long it holds.
    pub kept: bool,
}

impl Case {
    pub fn is(&self, feature: &str, wanted: &str) -> bool {
        value(&self.0, feature) == wanted
    }

    pub fn shown(&self) -> String {
        FEATURES.iter().map(|(name, _)| format!("{name}={} ", value(&self.0, name))).collect()
    }

    pub fn transport(&self) -> Transport {
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

    pub fn settings(&self) -> Settings {
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

    pub fn rtype(&self) -> RecordType {
        match value(&self.0, "question") {
            "a" => RecordType::A,
            "https" => RecordType::HTTPS,
            "any" => RecordType::ANY,
            "ptr" | "ptr-ipv4only" => RecordType::PTR,
            _ => RecordType::AAAA,
        }
    }

    pub fn query(&self) -> Message {
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
    pub fn react(&self, query: &Message) -> Reaction {
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
    pub fn told(&self, down: bool) -> Told {
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
        if !good.is_empty() && (down || !self.is("mode", "always")) {
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
