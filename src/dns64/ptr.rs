//! PTR questions for synthetic addresses (RFC 6147 §5.3.1): a CNAME into `in-addr.arpa`, and what is there.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Answer;
use super::forward::{head_of, readable, unreachable};
use super::local;
use super::outcome::Outcome;
use super::query::Query;
use super::reply::{self, Ede, Head, NOERROR, NXDOMAIN, Reply};
use super::synth::{chain_end, negative_ttl};
use crate::xlat::pref64::Pref64;

/// The address that a complete `ip6.arpa` name stands for (RFC 3596 §2.5).
pub(super) fn address(name: &Name) -> Option<Ipv6Addr> {
    let mut labels = name.iter().rev();
    let suffix = [labels.next()?, labels.next()?];
    if labels.len() != 32
        || !suffix[0].eq_ignore_ascii_case(b"arpa")
        || !suffix[1].eq_ignore_ascii_case(b"ip6")
    {
        return None;
    }
    let mut bits = 0;
    for label in labels {
        let [digit] = label else { return None };
        bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from_bits(bits))
}

/// The name to ask instead.
pub(super) fn target(v4: Ipv4Addr) -> Name {
    Name::from(v4)
}

/// Answers from the PTR answer of `in-addr.arpa`.
pub(super) fn reply(query: &Query, prefix: Pref64, v4: Ipv4Addr, answer: &Answer) -> Reply {
    let target = target(v4);
    let parsed = readable(answer, query, &target, RecordType::PTR)
        .and_then(|wire| Message::from_vec(wire.bytes).ok().map(|message| (wire, message)));
    let Some((wire, mut message)) = parsed else { return unreachable(query) };
    let head = Head { authentic: false, ..head_of(query, &wire) };
    let rcode = wire.rcode();
    if rcode != NOERROR && rcode != NXDOMAIN {
        return reply::empty(query, &head, Outcome::ServFail);
    }
    let end = chain_end(&message.answers, &target).clone();
    let ttl = message.answers.iter().filter(|r| is_ptr(r) && r.name == end).map(|r| r.ttl).min();
    let Some(ttl) = ttl.filter(|_| rcode == NOERROR) else {
        // No CNAME that points at nothing (K-21). The SOA of in-addr.arpa does not cover the name asked for,
        // so the reply gets one of the prefix's own reverse zone.
        let ttl = negative_ttl(&message.authorities).unwrap_or(local::TTL);
        return local::negative(query, head, zone(prefix), ttl, Outcome::Reverse);
    };
    let head = head.ede(Ede::SYNTHESIZED, "");
    if end == target {
        message.answers.retain(|r| r.name == target && (is_ptr(r) || r.record_type() == RecordType::RRSIG));
        let cname = Record::from_rdata(query.name.clone(), ttl, RData::CNAME(CNAME(target)));
        message.answers.insert(0, cname);
        return reply::from_message(query, head, message, Outcome::Reverse);
    }
    // The IPv4 side delegates with a CNAME of its own (RFC 2317): no second one on top, the PTR records
    // themselves then (RFC 8880 §7.2.1).
    message.answers.retain(|r| is_ptr(r) && r.name == end);
    for record in &mut message.answers {
        record.name = query.name.clone();
    }
    reply::from_message(query, head, message, Outcome::Reverse)
}

/// The reverse zone of a prefix; all six lengths fall on a nibble.
fn zone(prefix: Pref64) -> Name {
    let labels = usize::from(prefix.prefix().len() / 4) + 2;
    Name::from(prefix.prefix().addr()).trim_to(labels)
}

fn is_ptr(record: &Record) -> bool {
    record.record_type() == RecordType::PTR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k22_names_decode_for_all_lengths() {
        for prefix in [
            "2001:db8::/32",
            "2001:db8:100::/40",
            "2001:db8:122::/48",
            "2001:db8:122:300::/56",
            "2001:db8:122:344::/64",
            "2001:db8:122:344::/96",
            "64:ff9b::/96",
        ] {
            let prefix: Pref64 = prefix.parse().unwrap();
            let v4 = Ipv4Addr::new(192, 0, 2, 33);
            let name = Name::from(prefix.embed(v4));
            assert_eq!(address(&name).and_then(|v6| prefix.extract(v6)), Some(v4), "{prefix}");
            assert!(zone(prefix).zone_of(&name), "{prefix}");
            assert_eq!(usize::from(zone(prefix).num_labels()), usize::from(prefix.prefix().len()) / 4 + 2);
        }
    }

    #[test]
    fn other_names_are_no_addresses() {
        let full = Name::from("2001:db8::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(address(&full), "2001:db8::1".parse().ok());
        assert_eq!(
            address(&Name::from_ascii(full.to_ascii().to_uppercase()).unwrap()),
            "2001:db8::1".parse().ok()
        );
        assert_eq!(address(&full.base_name()), None);
        for name in [".", "arpa.", "ip6.arpa.", "b.a.9.8.ip6.arpa.", "1.2.0.192.in-addr.arpa."] {
            assert_eq!(address(&Name::from_ascii(name).unwrap()), None, "{name}");
        }
        let wide = full.to_ascii().replacen('1', "10", 1);
        assert_eq!(address(&Name::from_ascii(wide).unwrap()), None);
        let letter = full.to_ascii().replacen('1', "g", 1);
        assert_eq!(address(&Name::from_ascii(letter).unwrap()), None);
    }
}
