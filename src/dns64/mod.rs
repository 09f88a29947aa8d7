//! Layer 3: RFC 6147 as a pure function of the question, the AAAA answer, the A answer and the settings. Read
//! RFC 6147 §5 first; `synth` holds its decision table, `docs/dns64.md` shows it.
//!
//! A step machine without clock or socket. [`begin`] takes the bytes of a query and either has the reply at once or
//! says what to [`Ask`] upstream; [`finish`] makes the reply from what came back. `io::dns_net` drives it.
//!
//! ```
//! use sampan::dns64::{Answer, Meta, Outcome, Settings, Step, Transport, begin, finish};
//!
//! let mut settings = Settings::default();
//! settings.policy.prefixes = vec!["2001:db8:64::/96".parse().unwrap()];
//! let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x1c\0\x01";
//! let meta = Meta { client: "::1".parse().unwrap(), transport: Transport::Udp };
//! let Step::Ask(ask) = begin(&settings, query, &meta) else { panic!("a question for the upstream") };
//! // AAAA and A may be asked at the same time; here neither is answered.
//! let reply = finish(&settings, &ask, &Answer::Failed, &Answer::Failed);
//! assert_eq!(reply.outcome, Outcome::ServFail);
//! assert_eq!(reply.bytes[..2], query[..2]);
//! ```

pub mod cache;
mod exchange;
mod forward;
pub mod limit;
mod local;
mod nets;
mod outcome;
mod policy;
mod ptr;
mod query;
mod reply;
mod routes;
mod settings;
pub mod stats;
mod synth;
#[cfg(test)]
mod tests;
mod wellknown;
mod wire;
mod zones;

use std::borrow::Cow;
use std::net::Ipv4Addr;

use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

pub use exchange::{Exchange, Next, Pace};
pub use nets::Nets;
pub use outcome::{Class, Outcome};
pub use policy::{Mode, OnError, Policy, Range, ipv4_mapped};
pub use query::{Meta, Transport, UDP_PAYLOAD};
pub use reply::Reply;
pub use routes::{Group, Route, Routes};
pub use settings::{Change, Clients, Health, Scope, Settings, View, Views, WhenDown};
pub use wire::question_name;
pub use zones::{Zone, Zones};

use crate::xlat::pref64::Pref64;
use forward::readable;
use query::Query;
use reply::{BADVERS, Ede, FORMERR, Head, NOERROR, NOTIMP, REFUSED, SERVFAIL};
use synth::{Absent, Rule, Settled};
use wire::Header;
use zones::Local;

/// What to do with a query.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this.
    Reply(Reply),
    /// Ask upstream, then [`finish`].
    Ask(Box<Ask>),
    /// Not a query; send nothing.
    Ignore,
}

/// A query that waits for the upstream.
#[derive(Clone, Debug)]
pub struct Ask {
    query: Query,
    plan: Plan,
    /// The name to ask about.
    name: Name,
    /// What leads there from the name in the plan, out of our own zones.
    chain: Vec<Record>,
    group: Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Forward,
    WithoutA,
    Synthesise,
    Reverse(Pref64, Ipv4Addr),
}

/// A question to send upstream, with RD set and EDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// QNAME.
    pub name: Name,
    /// QTYPE.
    pub record_type: RecordType,
    /// QCLASS.
    pub class: DNSClass,
    /// The DO bit.
    pub dnssec_ok: bool,
    /// The CD bit.
    pub checking_disabled: bool,
    /// The AD bit: the client wants to know about authenticity (RFC 6840 §5.7).
    pub authentic_data: bool,
    /// Who is asked.
    pub group: Group,
}

/// What the upstream said to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A message; it may be anything.
    Reply(Vec<u8>),
    /// Nothing in time, or no way to ask.
    Failed,
}

/// What the first answer decided.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The reply; the second answer does not matter.
    Done(Reply),
    /// The second answer is needed.
    NeedsSecond(Pending),
}

/// An AAAA question without usable AAAA records, waiting for the A answer.
#[derive(Clone, Debug)]
pub struct Pending(Absent);

/// Reads a query and decides what it needs.
pub fn begin(settings: &Settings, bytes: &[u8], meta: &Meta) -> Step {
    // Only queries are answered: a reply to a reply is a loop.
    let Some(header) = Header::read(bytes).filter(|header| header.flags & wire::QR == 0) else {
        return Step::Ignore;
    };
    let query = Query::read(bytes, meta.transport);
    let Some(scope) = settings.scope(meta) else {
        return Step::Reply(not_allowed(header, query.as_ref()));
    };
    if header.opcode() != 0 {
        return Step::Reply(reply::bare(header, NOTIMP, Outcome::NotImp));
    }
    match query {
        Some(query) => dispatch(settings, Query { view: scope.view, ..query }),
        None => Step::Reply(reply::bare(header, FORMERR, Outcome::FormErr)),
    }
}

/// Makes the reply. `second` is only looked at when [`Ask::second`] is a question and `first` does not decide alone.
pub fn finish(settings: &Settings, ask: &Ask, first: &Answer, second: &Answer) -> Reply {
    match ask.settle(settings, first) {
        Progress::Done(reply) => reply,
        Progress::NeedsSecond(pending) => pending.finish(settings, ask, second),
    }
}

impl Ask {
    /// The first question: AAAA, or the only one.
    pub fn first(&self) -> Question {
        let rtype = if let Plan::Reverse(..) = self.plan { RecordType::PTR } else { self.query.record_type };
        self.question(rtype)
    }

    /// The A question, which may be asked at the same time (RFC 6147 §5.1.8).
    pub fn second(&self) -> Option<Question> {
        (self.plan == Plan::Synthesise).then(|| self.question(RecordType::A))
    }

    /// What the first answer decides.
    pub fn settle(&self, settings: &Settings, first: &Answer) -> Progress {
        let first = self.rebased(first, self.first().record_type);
        match self.plan {
            Plan::Forward => Progress::Done(forward::reply(&self.query, &first)),
            Plan::WithoutA => Progress::Done(forward::without_a(&self.query, &first)),
            Plan::Reverse(prefix, v4) => Progress::Done(ptr::reply(&self.query, prefix, v4, &first)),
            Plan::Synthesise => match synth::settle(&Rule::of(settings, &self.query), &self.query, &first) {
                Settled::Done(reply) => Progress::Done(reply),
                Settled::Absent(absent) => Progress::NeedsSecond(Pending(absent)),
            },
        }
    }

    /// Whether the A answer would give records, should AAAA stay silent.
    pub fn is_usable(&self, settings: &Settings, second: &Answer) -> bool {
        let second = self.rebased(second, RecordType::A);
        synth::is_usable(&Rule::of(settings, &self.query), &self.query, &second)
    }

    /// SERVFAIL, because there is too much to do.
    pub fn busy(&self) -> Reply {
        let head = Head::rcode(SERVFAIL).ede(Ede::OTHER, "too many questions at once");
        reply::empty(&self.query, &head, Outcome::Busy)
    }

    fn question(&self, record_type: RecordType) -> Question {
        Question {
            name: self.name.clone(),
            record_type,
            class: self.query.class,
            dnssec_ok: self.query.dnssec_ok(),
            checking_disabled: self.query.checking_disabled(),
            authentic_data: self.query.flags & wire::AD != 0,
            group: self.group,
        }
    }

    /// An answer about where our own zones led, as one about the name that they led from.
    fn rebased<'a>(&self, answer: &'a Answer, rtype: RecordType) -> Cow<'a, Answer> {
        if self.chain.is_empty() {
            return Cow::Borrowed(answer);
        }
        let message = readable(answer, &self.query, &self.name, rtype)
            .and_then(|wire| Message::from_vec(wire.bytes).ok())
            .and_then(|mut message| {
                message.queries.first_mut()?.name = self.plan.name(&self.query);
                message.answers.splice(0..0, self.chain.iter().cloned());
                message.metadata.authentic_data = false;
                message.to_vec().ok()
            });
        Cow::Owned(message.map_or(Answer::Failed, Answer::Reply))
    }
}

impl Plan {
    /// The name that is looked up.
    fn name(self, query: &Query) -> Name {
        match self {
            Self::Reverse(_, v4) => ptr::target(v4),
            Self::Forward | Self::WithoutA | Self::Synthesise => query.name.clone(),
        }
    }
}

impl Pending {
    /// Makes the reply from the A answer.
    pub fn finish(self, settings: &Settings, ask: &Ask, second: &Answer) -> Reply {
        let second = ask.rebased(second, RecordType::A);
        self.0.answer(&Rule::of(settings, &ask.query), &ask.query, &second)
    }
}

fn not_allowed(header: Header, query: Option<&Query>) -> Reply {
    match query {
        Some(query) => {
            let head = Head::rcode(REFUSED);
            let head = match query.transport {
                // The address may be forged: its owner gets no more bytes than were sent in its name.
                Transport::Udp => head,
                Transport::Tcp | Transport::Tls | Transport::Https => {
                    head.ede(Ede::PROHIBITED, "client not in the allowed networks")
                }
            };
            reply::empty(query, &head, Outcome::NotAllowed)
        }
        None => reply::bare(header, REFUSED, Outcome::NotAllowed),
    }
}

fn dispatch(settings: &Settings, query: Query) -> Step {
    if query.edns.is_some_and(|edns| edns.version > 0) {
        // RFC 6891 §6.1.3.
        return Step::Reply(reply::empty(&query, &Head::rcode(BADVERS), Outcome::BadVers));
    }
    match u16::from(query.record_type) {
        wire::TYPE_OPT => return Step::Reply(reply::empty(&query, &Head::rcode(FORMERR), Outcome::FormErr)),
        // TKEY, TSIG, IXFR, AXFR: matters between a server and its peers, not for a resolver.
        249..=252 => {
            let head = Head::rcode(REFUSED).ede(Ede::NOT_SUPPORTED, "not served here");
            return Step::Reply(reply::empty(&query, &head, Outcome::RefusedType));
        }
        _ => {}
    }
    // RFC 6147 §5.1: outside class IN there is no DNS64.
    if query.class == DNSClass::IN
        && let Some(reply) = local_reply(settings, &query)
    {
        return Step::Reply(reply);
    }
    look_up(settings, query)
}

/// Replies that need no look-up.
fn local_reply(settings: &Settings, query: &Query) -> Option<Reply> {
    let policy = settings.policy(query.view);
    // A forwarder that synthesises nothing knows nothing of this name either (RFC 8880 §7.1).
    if policy.mode_of(&query.name) != Mode::Pass
        && let Some(reply) = wellknown::reply(policy, query)
    {
        return Some(reply);
    }
    if query.record_type == RecordType::PTR
        && let Some((_, v4)) = reverse(policy, query)
        && wellknown::ADDRESSES.contains(&v4)
    {
        return Some(wellknown::reverse(query));
    }
    // ANY is neither synthesised nor shortened (RFC 6147 §5.3.3), but large: a spoofed source gets none of it.
    if query.record_type == RecordType::ANY && query.transport == Transport::Udp {
        let head = Head { truncated: true, ..Head::rcode(NOERROR) };
        return Some(reply::empty(query, &head, Outcome::AnyToTcp));
    }
    None
}

/// Looks into our own zones, and finds out who is to be asked for the rest.
fn look_up(settings: &Settings, query: Query) -> Step {
    let plan = plan(settings.policy(query.view), &query);
    let name = plan.name(&query);
    let mut ask = Ask { query, plan, name, chain: Vec::new(), group: Group::default() };
    let route = settings.routes.find(&ask.name);
    // Of a zone and a route, the one that knows more of the name; a route is always the operator's word.
    let in_zone = settings.zones.depth(&ask.name) > route.map(|route| route.suffix.num_labels());
    match settings.zones.ask(&ask.first()).filter(|_| in_zone) {
        None => {}
        Some(Local::Leads(chain, name)) => (ask.chain, ask.name) = (chain, name),
        Some(Local::Answer(first)) => {
            let known = |question: Question| match settings.zones.ask(&question) {
                Some(Local::Answer(answer)) => answer,
                Some(Local::Leads(..)) | None => Answer::Failed,
            };
            let second = ask.second().map_or(Answer::Failed, known);
            return Step::Reply(finish(settings, &ask, &first, &second));
        }
    }
    let route = settings.routes.find(&ask.name);
    ask.group = route.map_or(Group::default(), |route| route.group);
    ask.query.trust_ad = route.map_or(settings.trust_ad, |route| route.trust_ad);
    Step::Ask(Box::new(ask))
}

fn plan(policy: &Policy, query: &Query) -> Plan {
    // A client that sets CD validates itself; anything we made would fail it (RFC 6147 §3 case 4, §5.5 item 3).
    if query.class != DNSClass::IN || query.checking_disabled() {
        return Plan::Forward;
    }
    if query.record_type == RecordType::AAAA && policy.mode_of(&query.name) != Mode::Pass {
        return Plan::Synthesise;
    }
    if query.record_type == RecordType::A && policy.filter_a {
        return Plan::WithoutA;
    }
    if query.record_type == RecordType::PTR
        && let Some((prefix, v4)) = reverse(policy, query)
    {
        return Plan::Reverse(prefix, v4);
    }
    Plan::Forward
}

fn reverse(policy: &Policy, query: &Query) -> Option<(Pref64, Ipv4Addr)> {
    if policy.mode == Mode::Pass {
        return None;
    }
    policy.reverse(ptr::address(&query.name)?)
}
