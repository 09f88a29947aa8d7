//! Sealing a reply: the client's header and question, a body from elsewhere, our own OPT, within the client's
//! size limit.

use hickory_proto::op::{self, Message};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::outcome::Outcome;
use super::query::{Query, UDP_PAYLOAD};
use super::wire::{self, HEADER, Header, OPTION_EDE, TYPE_OPT, Wire};

/// RCODE NOERROR (RFC 1035 §4.1.1).
pub(super) const NOERROR: u16 = 0;
/// RCODE FORMERR.
pub(super) const FORMERR: u16 = 1;
/// RCODE SERVFAIL.
pub(super) const SERVFAIL: u16 = 2;
/// RCODE NXDOMAIN.
pub(super) const NXDOMAIN: u16 = 3;
/// RCODE NOTIMP.
pub(super) const NOTIMP: u16 = 4;
/// RCODE REFUSED.
pub(super) const REFUSED: u16 = 5;
/// RCODE BADVERS, carried in OPT (RFC 6891 §9).
pub(super) const BADVERS: u16 = 16;

/// A finished reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message to send.
    pub bytes: Vec<u8>,
    /// How the question ended.
    pub outcome: Outcome,
    /// The message before it was cut to the client's limit, when that made a difference.
    pub(super) whole: Option<Vec<u8>>,
    /// How long the front cache may keep it.
    pub(super) keep: Keep,
}

/// How long the front cache may keep a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Not at all.
    No,
    /// As its records say.
    Records,
    /// So many seconds.
    Seconds(u32),
}

/// A failure is kept for so many seconds (RFC 9520 §3.2 wants one at least, RFC 2308 §7 allows 300): a client that
/// asks again and again costs the upstream nothing, and when that is back nobody waits long.
const FAILURE_TTL: u32 = 5;

impl Reply {
    /// Whether TC is set.
    pub fn is_truncated(&self) -> bool {
        Header::read(&self.bytes).is_some_and(|header| header.flags & wire::TC != 0)
    }

    /// Whether the upstream failed, so that an expired reply would be better (RFC 8767 §4). Data that are known to
    /// be forged are no such failure.
    pub fn is_failure(&self) -> bool {
        self.outcome == Outcome::ServFail
    }

    /// The same, kept for so long.
    pub(super) fn kept(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    fn new(query: &Query, head: &Head, body: Option<&Wire<'_>>, outcome: Outcome) -> Self {
        let (bytes, is_cut) = seal(query, head, body, query.limit());
        let whole = is_cut.then(|| seal(query, head, body, usize::from(u16::MAX)).0);
        Self { bytes, outcome, whole, keep: keep_of(outcome) }
    }
}

fn keep_of(outcome: Outcome) -> Keep {
    match outcome {
        Outcome::Native
        | Outcome::Synthesised
        | Outcome::NoData
        | Outcome::SpecialPurpose
        | Outcome::NxDomain
        | Outcome::Forwarded
        | Outcome::Filtered
        | Outcome::Reverse => Keep::Records,
        Outcome::ServFail | Outcome::Bogus | Outcome::TranslatorDown => Keep::Seconds(FAILURE_TTL),
        // What we make up ourselves is cheap, and its TTL does not run down.
        Outcome::Local
        | Outcome::AnyToTcp
        | Outcome::RefusedType
        | Outcome::NotAllowed
        | Outcome::FormErr
        | Outcome::NotImp
        | Outcome::BadVers
        | Outcome::Ignored
        | Outcome::Busy
        | Outcome::Limited => Keep::No,
    }
}

/// An Extended DNS Error (RFC 8914): a code and a short text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ede {
    pub(super) code: u16,
    pub(super) text: Vec<u8>,
}

impl Ede {
    /// 0: something without a code of its own.
    pub(super) const OTHER: u16 = 0;
    /// 3: the answer has expired.
    pub(super) const STALE: u16 = 3;
    /// 17: taken out because of who asks.
    pub(super) const FILTERED: u16 = 17;
    /// 18: the client may not ask.
    pub(super) const PROHIBITED: u16 = 18;
    /// 19: the NXDOMAIN has expired.
    pub(super) const STALE_NXDOMAIN: u16 = 19;
    /// 21: the operation is not supported.
    pub(super) const NOT_SUPPORTED: u16 = 21;
    /// 22: no server could be reached.
    pub(super) const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// 29: the answer was synthesised (IANA registry, after RFC 8914).
    pub(super) const SYNTHESIZED: u16 = 29;

    /// A code with a text, which may be empty.
    pub(super) fn new(code: u16, text: &str) -> Self {
        Self { code, text: text.as_bytes().to_vec() }
    }

    /// Those that the upstream sent, so that the client learns the cause. Number and length are bounded, so that
    /// they always fit.
    pub(super) fn of_upstream(wire: &Wire<'_>) -> Vec<Self> {
        let short = |text: &[u8]| if text.len() <= 64 { text.to_vec() } else { Vec::new() };
        wire.extended_errors().take(3).map(|(code, text)| Self { code, text: short(text) }).collect()
    }
}

/// What the reply says besides its records.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) rcode: u16,
    pub(super) authoritative: bool,
    pub(super) authentic: bool,
    pub(super) truncated: bool,
    pub(super) errors: Vec<Ede>,
}

impl Head {
    /// A reply with this RCODE.
    pub(super) fn rcode(rcode: u16) -> Self {
        Self { rcode, ..Self::default() }
    }

    /// The same with an Extended DNS Error.
    pub(super) fn ede(mut self, code: u16, text: &str) -> Self {
        self.errors.push(Ede::new(code, text));
        self
    }
}

/// A reply without records.
pub(super) fn empty(query: &Query, head: &Head, outcome: Outcome) -> Reply {
    Reply::new(query, head, None, outcome)
}

/// A reply with the records of `message`; its header, question and OPT are not used.
pub(super) fn from_message(query: &Query, mut head: Head, mut message: Message, outcome: Outcome) -> Reply {
    let mut question = op::Query::query(query.name.clone(), query.record_type);
    question.query_class = query.class;
    message.queries = vec![question];
    message.edns = None;
    message.signature = None;
    let encoded = encode(&message, usize::from(u16::MAX) - opt(query, &head).len());
    let Some(body) = Wire::read(&encoded).filter(|body| same_name(query, body)) else {
        return empty(query, &Head::rcode(SERVFAIL), Outcome::ServFail);
    };
    head.truncated |= body.header.flags & wire::TC != 0;
    Reply::new(query, &head, Some(&body), outcome)
}

/// At most `room` bytes; an encoder that runs out of them sets TC and ends behind a whole record.
fn encode(message: &Message, room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(u16::try_from(room).unwrap_or(u16::MAX));
    if message.emit(&mut encoder).is_err() {
        bytes.clear();
    }
    bytes
}

/// A reply with the records of an upstream message, byte for byte, without its OPT.
pub(super) fn from_wire(query: &Query, head: Head, body: &Wire<'_>, outcome: Outcome) -> Reply {
    if !same_name(query, body) {
        return empty(query, &Head::rcode(SERVFAIL), Outcome::ServFail);
    }
    if body.without_opt().is_none() {
        return match Message::from_vec(body.bytes) {
            Ok(message) => from_message(query, head, message, outcome),
            Err(_) => empty(query, &Head::rcode(SERVFAIL), Outcome::ServFail),
        };
    }
    Reply::new(query, &head, Some(body), outcome)
}

/// A reply for a query of which only the header could be read.
pub(super) fn bare(header: Header, rcode: u16, outcome: Outcome) -> Reply {
    let flags = wire::QR | wire::RA | header.flags & (0xf << 11 | wire::RD | wire::CD) | rcode & 0xf;
    let mut bytes = Vec::with_capacity(HEADER);
    for field in [header.id, flags, 0, 0, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    Reply { bytes, outcome, whole: None, keep: Keep::No }
}

/// Whether the body's question name is the query's: then offsets agree and compression pointers hold.
fn same_name(query: &Query, body: &Wire<'_>) -> bool {
    let name = query.question.get(..query.question.len() - 4).unwrap_or_default();
    name.eq_ignore_ascii_case(body.name())
}

/// The message within `limit`, and whether something had to be left out for that.
fn seal(query: &Query, head: &Head, body: Option<&Wire<'_>>, limit: usize) -> (Vec<u8>, bool) {
    let opt = opt(query, head);
    let start = HEADER + query.question.len();
    let room = limit.saturating_sub(start + opt.len());
    let cuts = body.and_then(|body| Some((body, Cuts::of(body, query.dnssec_ok())?)));
    let is_cut = cuts.is_some_and(|(body, cuts)| cuts.whole() - body.question.end > room);
    let fitting = cuts.and_then(|(body, cuts)| {
        let (end, counts) = cuts.longest(body.question.end + room)?;
        Some((body.bytes.get(body.question.end..end)?, counts))
    });
    // Nothing fits: an empty reply with TC, the client comes back over TCP (RFC 2181 §9).
    let truncated = head.truncated || (body.is_some() && fitting.is_none());
    let (records, counts) = fitting.unwrap_or((&[], [0; 3]));
    let flag = |on: bool, bit: u16| if on { bit } else { 0 };
    let flags = wire::QR
        | wire::RA
        | query.flags & (wire::RD | wire::CD)
        | flag(head.authoritative, wire::AA)
        | flag(head.authentic, wire::AD)
        | flag(truncated, wire::TC)
        | head.rcode & 0xf;
    let additional = counts[2] + u16::from(!opt.is_empty());
    let mut bytes = Vec::with_capacity(start + records.len() + opt.len());
    for field in [query.id, flags, 1, counts[0], counts[1], additional] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(&query.question);
    bytes.extend(records);
    bytes.extend(opt);
    (bytes, is_cut)
}

/// Where a message may end. Additional records, and authority records beside an answer, are extras whose loss is no
/// truncation (RFC 2181 §9), except that a validator needs its proofs (RFC 4035 §3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cuts {
    /// The ends of the answer, authority and additional sections, the latter without OPT.
    ends: [u16; 3],
    counts: [u16; 3],
    /// Whether the answer can do without the authority section.
    answers_only: bool,
}

impl Cuts {
    /// Those of a message whose OPT record, if any, is its last one.
    pub(super) fn of(wire: &Wire<'_>, dnssec_ok: bool) -> Option<Self> {
        let (end, additional) = wire.without_opt()?;
        let [_, answers, authority, _] = wire.header.counts;
        let [answers_end, authority_end, _] = wire.ends;
        let place = |end: usize| u16::try_from(end).ok();
        Some(Self {
            ends: [place(answers_end)?, place(authority_end)?, place(end)?],
            counts: [answers, authority, additional],
            answers_only: answers > 0 && wire.rcode() == NOERROR && !dnssec_ok,
        })
    }

    /// Where it ends when nothing is left out.
    pub(super) fn whole(&self) -> usize {
        self.ends[2].into()
    }

    /// The end that is at most `limit`, as far back as possible, and the numbers of records up to there.
    pub(super) fn longest(&self, limit: usize) -> Option<(usize, [u16; 3])> {
        let [answers, authority, additional] = self.counts;
        let ends = [
            Some((self.ends[2], [answers, authority, additional])),
            Some((self.ends[1], [answers, authority, 0])),
            self.answers_only.then_some((self.ends[0], [answers, 0, 0])),
        ];
        let ends = ends.into_iter().flatten().map(|(end, counts)| (usize::from(end), counts));
        ends.into_iter().find(|(end, _)| *end <= limit)
    }
}

/// Our OPT record; only a client that sent one gets one (RFC 6891 §6.1.1).
fn opt(query: &Query, head: &Head) -> Vec<u8> {
    let Some(edns) = query.edns else { return Vec::new() };
    let mut options = Vec::new();
    for error in &head.errors {
        options.extend(OPTION_EDE.to_be_bytes());
        options.extend((error.text.len() as u16 + 2).to_be_bytes());
        options.extend(error.code.to_be_bytes());
        options.extend(&error.text);
    }
    let mut opt = vec![0];
    opt.extend(TYPE_OPT.to_be_bytes());
    opt.extend(UDP_PAYLOAD.to_be_bytes());
    // Upper RCODE bits, version 0, DO as the client set it (RFC 3225 §3).
    opt.extend([(head.rcode >> 4) as u8, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
    opt.extend((options.len() as u16).to_be_bytes());
    opt.extend(options);
    opt
}
