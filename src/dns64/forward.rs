//! Handing an upstream answer on unchanged.

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::Answer;
use super::outcome::Outcome;
use super::query::Query;
use super::reply::{self, Ede, Head, Keep, NOERROR, NXDOMAIN, Reply, SERVFAIL};
use super::synth::chain_end;
use super::wire::{self, Wire};

/// The reply to a question that DNS64 does not touch (RFC 6147 §5.3.3).
pub(super) fn reply(query: &Query, answer: &Answer) -> Reply {
    match readable(answer, query, &query.name, query.record_type) {
        Some(wire) => reply::from_wire(query, head_of(query, &wire), &wire, outcome(&wire)),
        None => unreachable(query),
    }
}

/// How a question ended whose answer is handed on.
fn outcome(wire: &Wire<'_>) -> Outcome {
    match wire.rcode() {
        NOERROR | NXDOMAIN => Outcome::Forwarded,
        _ if is_bogus(wire) => Outcome::Bogus,
        _ => Outcome::ServFail,
    }
}

/// Whether a validating upstream found the data forged: SERVFAIL with one of the DNSSEC failures among the Extended
/// DNS Errors, 6 (bogus) to 12 (NSEC missing), RFC 8914 §4.7–4.13.
pub(super) fn is_bogus(wire: &Wire<'_>) -> bool {
    wire.rcode() == SERVFAIL && wire.extended_errors().any(|(code, _)| matches!(code, 6..=12))
}

/// The reply to an A question of a client that has no use for A records. What else the answer says stays: whether the
/// name exists, and its aliases.
pub(super) fn without_a(query: &Query, answer: &Answer) -> Reply {
    let parsed = readable(answer, query, &query.name, RecordType::A)
        .filter(|wire| wire.rcode() == NOERROR)
        .and_then(|wire| Message::from_vec(wire.bytes).ok().map(|message| (wire, message)));
    let Some((wire, mut message)) = parsed else { return reply(query, answer) };
    let is_a = |record: &Record| record.record_type() == RecordType::A;
    let Some(ttl) = message.answers.iter().filter(|record| is_a(record)).map(|record| record.ttl).min()
    else {
        return reply(query, answer);
    };
    let end = chain_end(&message.answers, &query.name).clone();
    let signs = |record: &Record| record.record_type() == RecordType::RRSIG && record.name == end;
    message.answers.retain(|record| !is_a(record) && !signs(record));
    // NS records beside an empty answer would look like a referral.
    message.authorities.retain(|record| record.record_type() == RecordType::SOA);
    message.additionals.clear();
    let head = Head { authentic: false, ..head_of(query, &wire) }.ede(Ede::FILTERED, "IPv6 only");
    // There is no SOA that says how long; the records that are gone do.
    reply::from_message(query, head, message, Outcome::Filtered).kept(Keep::Seconds(ttl))
}

/// The upstream's message, if there is one that holds together and is about what was asked (RFC 5452 §9.1). An
/// extended RCODE is about our own hop to the upstream (BADVERS, BADCOOKIE), so it is no answer.
pub(super) fn readable<'a>(
    answer: &'a Answer,
    query: &Query,
    name: &Name,
    rtype: RecordType,
) -> Option<Wire<'a>> {
    let Answer::Reply(bytes) = answer else { return None };
    let wire = Wire::read(bytes)?;
    let about = Name::read(&mut BinDecoder::new(wire.name())).ok()?;
    let asked = about == *name && wire.type_and_class()? == (rtype.into(), query.class.into());
    let is_reply = wire.header.flags & wire::QR != 0 && wire.header.opcode() == 0;
    (asked && is_reply && wire.rcode() < 16).then_some(wire)
}

/// SERVFAIL because no upstream gave an answer.
pub(super) fn unreachable(query: &Query) -> Reply {
    let head = Head::rcode(SERVFAIL).ede(Ede::NO_REACHABLE_AUTHORITY, "no upstream answered");
    reply::empty(query, &head, Outcome::ServFail)
}

/// RCODE, AD, TC and Extended DNS Errors of an upstream message. AD only from an upstream that is trusted, to a
/// client that asked for it (RFC 6840 §5.8).
pub(super) fn head_of(query: &Query, wire: &Wire<'_>) -> Head {
    let asked = query.flags & wire::AD != 0 || query.dnssec_ok();
    Head {
        rcode: wire.rcode(),
        authoritative: false,
        authentic: query.trust_ad && asked && wire.header.flags & wire::AD != 0,
        truncated: wire.header.flags & wire::TC != 0,
        errors: Ede::of_upstream(wire),
    }
}
