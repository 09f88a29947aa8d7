//! The decision table of RFC 6147 §5.1: what an AAAA question gets, given what the upstream said to AAAA and to A.

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::AAAA;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Answer;
use super::forward::{head_of, is_bogus, readable, unreachable};
use super::outcome::Outcome;
use super::policy::{Mode, OnError, Policy};
use super::query::Query;
use super::reply::{self, Ede, Head, NOERROR, NXDOMAIN, Reply, SERVFAIL};
use super::settings::{Health, Settings, WhenDown};
use super::wire::Wire;
use crate::xlat::pref64::Pref64;

/// TTL limit of synthetic records when the AAAA answer brought no SOA (RFC 6147 §5.1.7).
const TTL_WITHOUT_SOA: u32 = 600;
/// A CNAME chain longer than this is not followed; resolvers give up earlier.
const MAX_CHAIN: usize = 32;

/// TTL limit of everything that is said because the translator is down.
const TTL_DOWN: u32 = 5;

/// What is to be done about one question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule<'a> {
    policy: &'a Policy,
    mode: Mode,
    /// What a synthetic answer becomes, while the translator is down.
    down: Option<WhenDown>,
}

/// What the AAAA answer alone decides.
#[derive(Clone, Debug)]
pub(super) enum Settled {
    /// The reply; A does not matter.
    Done(Reply),
    /// There is no usable AAAA: A decides.
    Absent(Absent),
}

/// A name without AAAA records that the client is to have.
#[derive(Clone, Debug)]
pub(super) struct Absent {
    /// How long the absence of AAAA may be believed; no synthetic record lives longer.
    ttl: u32,
    /// The AAAA answer, when it was an honest "no such data".
    nodata: Option<Vec<u8>>,
    /// The AAAA answer, when it has usable records that are second choice.
    native: Option<Vec<u8>>,
}

impl<'a> Rule<'a> {
    /// The rule for this query.
    pub(super) fn of(settings: &'a Settings, query: &Query) -> Self {
        let policy = settings.policy(query.view);
        let down = (settings.health == Health::Down).then_some(settings.when_down);
        Self { policy, mode: policy.mode_of(&query.name), down }
    }

    fn excluded(&self, record: &Record) -> bool {
        if let RData::AAAA(addr) = &record.data { self.policy.is_excluded(addr.0) } else { false }
    }
}

/// Judges the AAAA answer.
pub(super) fn settle(rule: &Rule<'_>, query: &Query, aaaa: &Answer) -> Settled {
    let parsed = readable(aaaa, query, &query.name, RecordType::AAAA)
        .and_then(|wire| Message::from_vec(wire.bytes).ok().map(|message| (wire, message)));
    // No answer in time counts as SERVFAIL, which counts as empty (RFC 6147 §5.1.3, §5.1.2).
    let absent = Settled::Absent(Absent { ttl: TTL_WITHOUT_SOA, nodata: None, native: None });
    let Some((wire, mut message)) = parsed else {
        return match rule.policy.on_error {
            OnError::UseA => absent,
            OnError::Fail => Settled::Done(unreachable(query)),
        };
    };
    let head = head_of(query, &wire);
    match wire.rcode() {
        NOERROR => {}
        NXDOMAIN => {
            let keep = |record: &Record| !is_a(record) && !rule.excluded(record);
            return Settled::Done(hand_on(query, head, &wire, message, keep, Outcome::NxDomain));
        }
        // A validating upstream says that somebody tampers: making addresses from A records now would let him
        // lead clients away from IPv6 (RFC 6147 §5.5 item 2).
        SERVFAIL if is_bogus(&wire) => {
            return Settled::Done(reply::from_wire(query, head, &wire, Outcome::Bogus));
        }
        _ => {
            return match rule.policy.on_error {
                OnError::UseA => absent,
                OnError::Fail => Settled::Done(reply::from_wire(query, head, &wire, Outcome::ServFail)),
            };
        }
    }
    let end = chain_end(&message.answers, &query.name).clone();
    let at_end = |record: &Record| is_aaaa(record) && record.name == end;
    if message.answers.iter().any(|record| at_end(record) && !rule.excluded(record)) {
        // Without a translator the real records are the better ones in any mode.
        if rule.mode == Mode::Always && rule.down.is_none() {
            let native = Some(wire.bytes.to_vec());
            return Settled::Absent(Absent { ttl: TTL_WITHOUT_SOA, nodata: None, native });
        }
        return Settled::Done(native(rule, query, &wire, message));
    }
    let honest = !message.answers.iter().any(at_end);
    message.authorities.retain(|record| record.name.zone_of(&end));
    Settled::Absent(Absent {
        ttl: negative_ttl(&message.authorities).unwrap_or(TTL_WITHOUT_SOA),
        nodata: honest.then(|| wire.bytes.to_vec()),
        native: None,
    })
}

/// The real records (RFC 6147 §5.1.1). Those outside the exclusion set stay, the others must not be seen (§5.1.4);
/// a signature over the whole set would not match the rest.
fn native(rule: &Rule<'_>, query: &Query, wire: &Wire<'_>, message: Message) -> Reply {
    let head = head_of(query, wire);
    let end = chain_end(&message.answers, &query.name).clone();
    let cut = message.answers.iter().any(|record| record.name == end && rule.excluded(record));
    let goes =
        |record: &Record| is_a(record) || rule.excluded(record) || (cut && is_signature_at(record, &end));
    hand_on(query, head, wire, message, |record| !goes(record), Outcome::Native)
}

/// Whether synthesis from this A answer would give at least one record, should AAAA stay silent.
pub(super) fn is_usable(rule: &Rule<'_>, query: &Query, a: &Answer) -> bool {
    if rule.policy.on_error == OnError::Fail {
        return false;
    }
    let Some(wire) = readable(a, query, &query.name, RecordType::A).filter(|wire| wire.rcode() == NOERROR)
    else {
        return false;
    };
    let Ok(message) = Message::from_vec(wire.bytes) else { return false };
    let end = chain_end(&message.answers, &query.name);
    let mut addresses = message.answers.iter().filter(|record| record.name == *end).filter_map(a_addr);
    addresses.any(|v4| rule.policy.prefixes_for(v4).next().is_some())
}

impl Absent {
    /// Answers from the A answer.
    pub(super) fn answer(self, rule: &Rule<'_>, query: &Query, a: &Answer) -> Reply {
        let parsed = readable(a, query, &query.name, RecordType::A)
            .and_then(|wire| Message::from_vec(wire.bytes).ok().map(|message| (wire, message)));
        let Some((wire, message)) = parsed else {
            return self.second_choice(rule, query).unwrap_or_else(|| unreachable(query));
        };
        // What an A answer says is no authentic answer to the AAAA question (RFC 4035 §3.2.3), whatever becomes of it.
        let head = Head { authentic: false, ..head_of(query, &wire) };
        let end = chain_end(&message.answers, &query.name).clone();
        // CNAME and DNAME stay, what belongs to the A records goes (RFC 6147 §5.1.5, §5.1.6).
        let keep = |record: &Record| !is_a(record) && !is_aaaa(record) && !is_signature_at(record, &end);
        if wire.rcode() != NOERROR {
            // RFC 6147 §5.1.6: the error of the A question is the basis of the reply.
            let outcome = match wire.rcode() {
                NXDOMAIN => Outcome::NxDomain,
                _ if is_bogus(&wire) => Outcome::Bogus,
                _ => Outcome::ServFail,
            };
            let second_choice = self.second_choice(rule, query);
            return second_choice.unwrap_or_else(|| hand_on(query, head, &wire, message, keep, outcome));
        }
        let (synthetic, seen) = self.synthesise(rule.policy, &message.answers, &end);
        if !synthetic.is_empty() {
            return match rule.down {
                None => assemble(query, head, message, keep, synthetic),
                Some(when_down) => self.translator_down(when_down, query, head, message, keep),
            };
        }
        if let Some(reply) = self.second_choice(rule, query) {
            return reply;
        }
        if seen {
            return self.refused(query, head, message, keep);
        }
        // Nothing either way: the client gets the answer to its own question (RFC 6147 §5.4), unless that was an
        // error or excluded records; then the empty A answer is the basis (§5.1.6).
        self.own_nodata(query, &[], Outcome::NoData)
            .unwrap_or_else(|| hand_on(query, head, &wire, message, keep, Outcome::NoData))
    }

    /// The real records, when made ones would have been preferred but there are none.
    fn second_choice(&self, rule: &Rule<'_>, query: &Query) -> Option<Reply> {
        let wire = Wire::read(self.native.as_ref()?)?;
        let message = Message::from_vec(wire.bytes).ok()?;
        Some(native(rule, query, &wire, message))
    }

    /// One AAAA per A record and prefix, and whether there was an A record at all.
    fn synthesise(&self, policy: &Policy, answers: &[Record], end: &Name) -> (Vec<Record>, bool) {
        let (mut synthetic, mut seen) = (Vec::new(), false);
        for record in answers.iter().filter(|record| record.name == *end) {
            let Some(v4) = a_addr(record) else { continue };
            seen = true;
            // RFC 6147 §5.1.7: no longer than the A record, and no longer than the absence of AAAA holds.
            let ttl = sane_ttl(record.ttl).min(self.ttl);
            let made =
                |p: Pref64| Record::from_rdata(record.name.clone(), ttl, RData::AAAA(AAAA(p.embed(v4))));
            synthetic.extend(policy.prefixes_for(v4).map(made));
        }
        (synthetic, seen)
    }

    /// No A record may be translated: an empty answer (RFC 6052 §3.1), with the reason for people.
    fn refused(
        self,
        query: &Query,
        head: Head,
        mut message: Message,
        keep: impl Fn(&Record) -> bool,
    ) -> Reply {
        let why = [Ede::new(Ede::OTHER, "only IPv4 addresses that are not translated")];
        self.own_nodata(query, &why, Outcome::SpecialPurpose).unwrap_or_else(|| {
            message.answers.retain(keep);
            // NS records beside an empty answer would look like a referral.
            message.authorities.retain(|record| record.record_type() == RecordType::SOA);
            message.additionals.clear();
            let head = Head { errors: why.to_vec(), ..head };
            reply::from_message(query, head, message, Outcome::SpecialPurpose)
        })
    }

    /// Addresses that lead nowhere now are not handed out. The TTL is short, so that the client is back soon.
    fn translator_down(
        self,
        when_down: WhenDown,
        query: &Query,
        head: Head,
        mut message: Message,
        keep: impl Fn(&Record) -> bool,
    ) -> Reply {
        let errors = vec![Ede::new(Ede::OTHER, "the NAT64 translator is down")];
        match when_down {
            // The front cache had nothing, or we would not be here.
            WhenDown::Stale | WhenDown::ServFail => {
                reply::empty(query, &Head { errors, ..Head::rcode(SERVFAIL) }, Outcome::TranslatorDown)
            }
            WhenDown::NoData => {
                message.answers.retain(keep);
                let nodata = self.nodata.and_then(|bytes| Message::from_vec(&bytes).ok());
                message.authorities = nodata.map(|nodata| nodata.authorities).unwrap_or_default();
                message.authorities.retain(|record| record.record_type() == RecordType::SOA);
                message.additionals.clear();
                for record in message.answers.iter_mut().chain(&mut message.authorities) {
                    record.ttl = record.ttl.min(TTL_DOWN);
                    if let RData::SOA(soa) = &mut record.data {
                        soa.minimum = soa.minimum.min(TTL_DOWN);
                    }
                }
                let head = Head { errors, ..head };
                reply::from_message(query, head, message, Outcome::TranslatorDown)
            }
        }
    }

    /// The AAAA answer itself, if it was an honest NODATA.
    fn own_nodata(&self, query: &Query, why: &[Ede], outcome: Outcome) -> Option<Reply> {
        let wire = Wire::read(self.nodata.as_ref()?)?;
        let message = Message::from_vec(wire.bytes).ok()?;
        let mut head = head_of(query, &wire);
        head.errors.extend_from_slice(why);
        let keep = |record: &Record| !is_a(record) && !is_aaaa(record);
        Some(hand_on(query, head, &wire, message, keep, outcome))
    }
}

/// RFC 6147 §5.4: chain and synthetic records in the answer, authority and additional from the A answer.
fn assemble(
    query: &Query,
    head: Head,
    mut message: Message,
    keep: impl Fn(&Record) -> bool,
    synthetic: Vec<Record>,
) -> Reply {
    message.answers.retain(|record| keep(record) && is_chain(record));
    message.answers.extend(synthetic);
    reply::from_message(query, head.ede(Ede::SYNTHESIZED, ""), message, Outcome::Synthesised)
}

/// The upstream's message, byte for byte when every answer record may stay.
fn hand_on(
    query: &Query,
    head: Head,
    wire: &Wire<'_>,
    mut message: Message,
    keep: impl Fn(&Record) -> bool,
    outcome: Outcome,
) -> Reply {
    if message.answers.iter().all(&keep) {
        return reply::from_wire(query, head, wire, outcome);
    }
    message.answers.retain(keep);
    reply::from_message(query, Head { authentic: false, ..head }, message, outcome)
}

/// Where the chain of CNAME records from `name` ends (RFC 6147 §5.1.5). A DNAME always comes with its CNAME
/// (RFC 6672 §3.1).
pub(super) fn chain_end<'a>(answers: &'a [Record], name: &'a Name) -> &'a Name {
    let mut end = name;
    for _ in 0..MAX_CHAIN {
        match answers.iter().filter(|record| record.name == *end).find_map(cname_target) {
            Some(target) => end = target,
            None => break,
        }
    }
    end
}

/// How long a negative answer holds (RFC 2308 §5): the lesser of the SOA's TTL and its MINIMUM.
pub(super) fn negative_ttl(authorities: &[Record]) -> Option<u32> {
    authorities.iter().find_map(|record| {
        if let RData::SOA(soa) = &record.data { Some(sane_ttl(record.ttl).min(soa.minimum)) } else { None }
    })
}

/// A TTL with the top bit set means zero (RFC 2181 §8).
const fn sane_ttl(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

fn is_chain(record: &Record) -> bool {
    let rtype = record.record_type();
    rtype == RecordType::CNAME || rtype == RecordType::DNAME || rtype == RecordType::RRSIG
}

fn is_a(record: &Record) -> bool {
    record.record_type() == RecordType::A
}

fn is_aaaa(record: &Record) -> bool {
    record.record_type() == RecordType::AAAA
}

/// At the end of the chain a signature covers address records, never a CNAME.
fn is_signature_at(record: &Record, end: &Name) -> bool {
    record.record_type() == RecordType::RRSIG && record.name == *end
}

fn cname_target(record: &Record) -> Option<&Name> {
    if let RData::CNAME(target) = &record.data { Some(&target.0) } else { None }
}

fn a_addr(record: &Record) -> Option<std::net::Ipv4Addr> {
    if let RData::A(addr) = &record.data { Some(addr.0) } else { None }
}
