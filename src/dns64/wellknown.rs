//! `ipv4only.arpa`, by which clients discover the prefix (RFC 7050, RFC 8880). Answered here, never asked upstream:
//! an upstream that hiccups must not make a phone believe that the network has no NAT64.

use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::local;
use super::outcome::Outcome;
use super::policy::Policy;
use super::query::Query;
use super::reply::{Ede, Head, NOERROR, NXDOMAIN, Reply};

/// The well-known IPv4-only addresses (RFC 7050 §2.2), non-global but synthesised under every prefix.
pub(super) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// The reply, if the question is about `ipv4only.arpa` or a name below it. Its DS is asked upstream, so that a
/// validator can see that the delegation is insecure (RFC 8880 §7.1 item 4). Because it is insecure, CD changes
/// nothing here (K-28).
pub(super) fn reply(policy: &Policy, query: &Query) -> Option<Reply> {
    let zone = name();
    if !zone.zone_of(&query.name) {
        return None;
    }
    let head = Head { authoritative: true, ..Head::rcode(NOERROR) };
    if query.name != zone {
        let head = Head { rcode: NXDOMAIN, ..head };
        return Some(local::negative(query, head, zone, local::TTL, Outcome::Local));
    }
    let record = |data| Record::from_rdata(query.name.clone(), local::TTL, data);
    if query.record_type == RecordType::DS {
        return None;
    }
    if query.record_type == RecordType::A {
        let records = ADDRESSES.map(|v4| record(RData::A(A(v4))));
        return Some(local::positive(query, head, records.to_vec(), Outcome::Local));
    }
    if query.record_type == RecordType::AAAA {
        // Clients use the prefixes in the order in which they come (RFC 7050 §3).
        let records = policy
            .all_prefixes()
            .into_iter()
            .flat_map(|prefix| ADDRESSES.map(|v4| record(RData::AAAA(AAAA(prefix.embed(v4))))))
            .collect();
        return Some(local::positive(query, head.ede(Ede::SYNTHESIZED, ""), records, Outcome::Local));
    }
    Some(local::negative(query, head, zone, local::TTL, Outcome::Local))
}

/// The reverse of a synthetic address of `ipv4only.arpa` (RFC 8880 §7.2.1).
pub(super) fn reverse(query: &Query) -> Reply {
    let head = Head { authoritative: true, ..Head::rcode(NOERROR) };
    let record = Record::from_rdata(query.name.clone(), local::TTL, RData::PTR(PTR(name())));
    local::positive(query, head.ede(Ede::SYNTHESIZED, ""), vec![record], Outcome::Local)
}

fn name() -> Name {
    Name::from_ascii("ipv4only.arpa.").unwrap_or_default()
}
