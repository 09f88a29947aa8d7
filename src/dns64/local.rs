//! Records that we make up ourselves.

use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use super::outcome::Outcome;
use super::query::Query;
use super::reply::{self, Head, Reply};

/// TTL of local records: a client notices a renumbered prefix within ten minutes.
pub(super) const TTL: u32 = 600;

/// A reply with these answers.
pub(super) fn positive(query: &Query, head: Head, answers: Vec<Record>, outcome: Outcome) -> Reply {
    let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
    message.answers = answers;
    reply::from_message(query, head, message, outcome)
}

/// A negative reply that may be cached for `ttl` seconds: it carries the SOA of its zone (RFC 2308 §3).
pub(super) fn negative(query: &Query, head: Head, zone: Name, ttl: u32, outcome: Outcome) -> Reply {
    let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
    // The shape of RFC 6303 §3, which is made for such zones.
    let contact = Name::from_ascii("nobody.invalid.").unwrap_or_default();
    let soa = SOA::new(zone.clone(), contact, 1, 3600, 1200, 604_800, ttl);
    message.authorities.push(Record::from_rdata(zone, ttl, RData::SOA(soa)));
    reply::from_message(query, head, message, outcome)
}
