//! Layer 3: RFC 6147 as a pure function of the question, the AAAA answer, the A answer and the settings. Read
//! RFC 6147 §5 first; `synth` holds its decision table, `docs/dns64.md` shows it.
//!
//! A step machine without clock or socket. [`begin`] takes the bytes of a query and either has the reply at once or
//! says what to [`Ask`] upstream; [`finish`] makes the reply from what came back. `io::dns_net` drives it.
//!
//! ```
//! use sampan::dns64::{Answer, Meta, Outcome, Settings, Step, Transport, begin, finish};
//!
//! let settings = Settings { prefixes: vec!["2001:db8:64::/96".parse().unwrap()], ..Settings::default() };
//! let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x1c\0\x01";
//! let meta = Meta { client: "::1".parse().unwrap(), transport: Transport::Udp };
//! let Step::Ask(ask) = begin(&settings, query, &meta) else { panic!("a question for the upstream") };
//! // AAAA and A may be asked at the same time; here neither is answered.
//! let reply = finish(&settings, &ask, &Answer::Failed, &Answer::Failed);
//! assert_eq!(reply.outcome, Outcome::ServFail);
//! assert_eq!(reply.bytes[..2], query[..2]);
//! ```

mod forward;
mod local;
mod outcome;
mod policy;
mod ptr;
mod query;
mod reply;
mod settings;
mod synth;
#[cfg(test)]
mod tests;
mod wellknown;
mod wire;

use std::net::Ipv4Addr;

use hickory_proto::rr::{DNSClass, Name, RecordType};

pub use outcome::Outcome;
pub use query::{Meta, Transport, UDP_PAYLOAD};
pub use reply::Reply;
pub use settings::{Change, Clients, Settings, ipv4_mapped};

use crate::xlat::pref64::Pref64;
use query::Query;
use reply::{BADVERS, Ede, FORMERR, Head, NOERROR, NOTIMP, REFUSED, SERVFAIL};
use synth::{Absent, Settled};
use wire::Header;

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
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    Forward,
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
    if !settings.clients.contains(meta.client) {
        return Step::Reply(not_allowed(header, query.as_ref()));
    }
    if header.opcode() != 0 {
        return Step::Reply(reply::bare(header, NOTIMP, Outcome::NotImp));
    }
    match query {
        Some(query) => dispatch(settings, query),
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
        match self.plan {
            Plan::Forward | Plan::Synthesise => {
                self.question(self.query.name.clone(), self.query.record_type)
            }
            Plan::Reverse(_, v4) => self.question(ptr::target(v4), RecordType::PTR),
        }
    }

    /// The A question, which may be asked at the same time (RFC 6147 §5.1.8).
    pub fn second(&self) -> Option<Question> {
        match self.plan {
            Plan::Synthesise => Some(self.question(self.query.name.clone(), RecordType::A)),
            Plan::Forward | Plan::Reverse(..) => None,
        }
    }

    /// What the first answer decides.
    pub fn settle(&self, settings: &Settings, first: &Answer) -> Progress {
        match self.plan {
            Plan::Forward => Progress::Done(forward::reply(settings, &self.query, first)),
            Plan::Reverse(prefix, v4) => Progress::Done(ptr::reply(settings, &self.query, prefix, v4, first)),
            Plan::Synthesise => match synth::settle(settings, &self.query, first) {
                Settled::Done(reply) => Progress::Done(reply),
                Settled::Absent(absent) => Progress::NeedsSecond(Pending(absent)),
            },
        }
    }

    /// Whether the A answer would give records, should AAAA stay silent.
    pub fn is_usable(&self, settings: &Settings, second: &Answer) -> bool {
        synth::is_usable(settings, &self.query, second)
    }

    /// SERVFAIL, because there is too much to do.
    pub fn busy(&self) -> Reply {
        let head = Head::rcode(SERVFAIL).ede(Ede::OTHER, "too many questions at once");
        reply::empty(&self.query, &head, Outcome::Busy)
    }

    fn question(&self, name: Name, record_type: RecordType) -> Question {
        Question {
            name,
            record_type,
            class: self.query.class,
            dnssec_ok: self.query.dnssec_ok(),
            checking_disabled: self.query.checking_disabled(),
            authentic_data: self.query.flags & wire::AD != 0,
        }
    }
}

impl Pending {
    /// Makes the reply from the A answer.
    pub fn finish(self, settings: &Settings, ask: &Ask, second: &Answer) -> Reply {
        self.0.answer(settings, &ask.query, second)
    }
}

fn not_allowed(header: Header, query: Option<&Query>) -> Reply {
    match query {
        Some(query) => {
            let head = Head::rcode(REFUSED).ede(Ede::PROHIBITED, "client not in the allowed networks");
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
    let plan = plan(settings, &query);
    Step::Ask(Box::new(Ask { query, plan }))
}

/// Replies that need no upstream.
fn local_reply(settings: &Settings, query: &Query) -> Option<Reply> {
    if let Some(reply) = wellknown::reply(settings, query) {
        return Some(reply);
    }
    if query.record_type == RecordType::PTR
        && let Some((_, v4)) = reverse(settings, query)
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

fn plan(settings: &Settings, query: &Query) -> Plan {
    // A client that sets CD validates itself; anything we made would fail it (RFC 6147 §3 case 4, §5.5 item 3).
    if query.class != DNSClass::IN || query.checking_disabled() {
        return Plan::Forward;
    }
    if query.record_type == RecordType::AAAA {
        return Plan::Synthesise;
    }
    if query.record_type == RecordType::PTR
        && let Some((prefix, v4)) = reverse(settings, query)
    {
        return Plan::Reverse(prefix, v4);
    }
    Plan::Forward
}

fn reverse(settings: &Settings, query: &Query) -> Option<(Pref64, Ipv4Addr)> {
    settings.reverse(ptr::address(&query.name)?)
}
