//! Names that are answered here: an agency's intranet names, and the reverse zones of private addresses
//! (RFC 6303). What they say goes through the synthesis like an upstream's answer.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

use super::{Answer, Question};
use crate::addr::Prefix4;

/// CNAME records followed inside the zones.
const MAX_CHAIN: usize = 8;
/// TTL of negative answers out of a zone.
const NEGATIVE_TTL: u32 = 60;

/// Reverse zones that are served empty: what is asked there says who talks with whom inside, and nobody outside can
/// answer (RFC 6303 §4). With them go 172.16.0.0/12 and, by RFC 7793, 100.64.0.0/10.
const PRIVATE_REVERSE: [&str; 15] = [
    "10.in-addr.arpa.",
    "168.192.in-addr.arpa.",
    "0.in-addr.arpa.",
    "127.in-addr.arpa.",
    "254.169.in-addr.arpa.",
    "2.0.192.in-addr.arpa.",
    "100.51.198.in-addr.arpa.",
    "113.0.203.in-addr.arpa.",
    "255.255.255.255.in-addr.arpa.",
    "d.f.ip6.arpa.",
    "8.e.f.ip6.arpa.",
    "9.e.f.ip6.arpa.",
    "a.e.f.ip6.arpa.",
    "b.e.f.ip6.arpa.",
    "8.b.d.0.1.0.0.2.ip6.arpa.",
];

/// A zone that is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub apex: Name,
    /// Its records; those outside the zone are left out.
    pub records: Vec<Record>,
}

/// All zones, compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Longest names first.
    zones: Vec<Compiled>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Compiled {
    apex: Name,
    records: BTreeMap<LowerName, Vec<Record>>,
}

/// What the zones say to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// Everything.
    Answer(Answer),
    /// CNAME records whose end is elsewhere.
    Leads(Vec<Record>, Name),
}

impl Zones {
    /// These zones.
    pub fn new(zones: impl IntoIterator<Item = Zone>) -> Self {
        let mut zones: Vec<_> = zones.into_iter().map(Compiled::new).collect();
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.apex.num_labels()));
        Self { zones }
    }

    /// The empty reverse zones of addresses that mean nothing outside (RFC 6303 §4, RFC 7793), without those of `reached`:
    /// addresses that clients are let through to have names at the upstream.
    pub fn private_reverse(reached: &[Prefix4]) -> impl Iterator<Item = Zone> {
        let host = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST].map(|addr| Name::from(addr).to_ascii());
        let ranges = [(16, 31, 172), (64, 127, 100)];
        let ranges = ranges.into_iter().flat_map(|(from, to, first)| {
            (from..=to).map(move |second| format!("{second}.{first}.in-addr.arpa."))
        });
        let names = PRIVATE_REVERSE.iter().map(|name| (*name).to_owned()).chain(ranges).chain(host);
        let is_reached =
            |name: &str| network_of(name).is_some_and(|zone| reached.iter().any(|net| net.overlaps(zone)));
        let names = names.filter(move |name| !is_reached(name));
        names.filter_map(|name| Some(Zone { apex: Name::from_ascii(name).ok()?, records: Vec::new() }))
    }

    /// How many labels the zone has that a name is in: the more, the better it knows.
    pub(super) fn depth(&self, name: &Name) -> Option<u8> {
        self.find(name).map(|zone| zone.apex.num_labels())
    }

    /// What the zones say; `None` if the name is in none of them.
    pub(super) fn ask(&self, question: &Question) -> Option<Local> {
        // DS belongs to the zone above (RFC 4035 §3.1.4.1).
        let above =
            question.record_type == RecordType::DS && self.zones.iter().any(|z| z.apex == question.name);
        if question.class != DNSClass::IN || above {
            return None;
        }
        let mut zone = self.find(&question.name)?;
        let (mut chain, mut name) = (Vec::new(), question.name.clone());
        let (rcode, found) = loop {
            let Some(records) = zone.records.get(&LowerName::from(&name)) else {
                // What has a name below it exists, if only as a stop on the way (RFC 8020 §2).
                let stop = zone.records.keys().any(|other| name.zone_of(other));
                let exists = stop || name == zone.apex;
                break (if exists { ResponseCode::NoError } else { ResponseCode::NXDomain }, Vec::new());
            };
            let is_asked = |record: &&Record| is_asked(record, question.record_type);
            // An alias has no other records (RFC 2181 §10.1); it counts whatever else was written down.
            let alias = records.iter().find_map(|record| cname_target(record).map(|target| (record, target)));
            match alias.filter(|(record, _)| !is_asked(record)) {
                None => break (ResponseCode::NoError, records.iter().filter(is_asked).cloned().collect()),
                Some((record, target)) => {
                    if chain.len() == MAX_CHAIN {
                        break (ResponseCode::ServFail, Vec::new());
                    }
                    chain.push(record.clone());
                    name = target.clone();
                }
            }
            match self.find(&name) {
                Some(next) => zone = next,
                None => return Some(Local::Leads(chain, name)),
            }
        };
        let soa = found.is_empty().then(|| zone.soa());
        chain.extend(found);
        Some(Local::Answer(message(question, rcode, chain, soa)))
    }

    fn find(&self, name: &Name) -> Option<&Compiled> {
        self.zones.iter().find(|zone| zone.apex.zone_of(name))
    }
}

/// The IPv4 network of a reverse zone.
fn network_of(zone: &str) -> Option<Prefix4> {
    let octets = zone.strip_suffix(".in-addr.arpa.")?.split('.').rev();
    let (mut addr, mut len) = ([0; 4], 0);
    for (octet, place) in octets.zip(&mut addr) {
        *place = octet.parse().ok()?;
        len += 8;
    }
    Prefix4::new(addr.into(), len).ok()
}

impl Compiled {
    fn new(zone: Zone) -> Self {
        let mut records: BTreeMap<LowerName, Vec<Record>> = BTreeMap::new();
        for record in zone.records.into_iter().filter(|record| zone.apex.zone_of(&record.name)) {
            records.entry(LowerName::from(&record.name)).or_default().push(record);
        }
        Self { apex: zone.apex, records }
    }

    /// The SOA of a negative answer (RFC 2308 §3); the form is that of RFC 6303 §3.
    fn soa(&self) -> Record {
        let contact = Name::from_ascii("nobody.invalid.").unwrap_or_default();
        let soa = SOA::new(self.apex.clone(), contact, 1, 3600, 1200, 604_800, NEGATIVE_TTL);
        Record::from_rdata(self.apex.clone(), NEGATIVE_TTL, RData::SOA(soa))
    }
}

/// An answer in the form in which one comes from an upstream.
fn message(question: &Question, rcode: ResponseCode, answers: Vec<Record>, soa: Option<Record>) -> Answer {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    let mut asked = Query::query(question.name.clone(), question.record_type);
    asked.query_class = question.class;
    message.queries.push(asked);
    message.metadata.response_code = rcode;
    message.answers = answers;
    message.authorities.extend(soa);
    message.to_vec().map_or(Answer::Failed, Answer::Reply)
}

fn is_asked(record: &Record, rtype: RecordType) -> bool {
    rtype == RecordType::ANY || record.record_type() == rtype
}

fn cname_target(record: &Record) -> Option<&Name> {
    if let RData::CNAME(target) = &record.data { Some(&target.0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_zones_of_networks_that_are_reached_are_not_ours() {
        let apexes = |reached: &[&str]| {
            let reached: Vec<Prefix4> = reached.iter().map(|net| net.parse().unwrap()).collect();
            Zones::private_reverse(&reached).map(|zone| zone.apex.to_ascii()).collect::<Vec<_>>()
        };
        let all = apexes(&[]);
        let gone = |reached: &[&str]| {
            let left = apexes(reached);
            all.iter().filter(|apex| !left.contains(apex)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(all.len(), 15 + 16 + 64 + 2);
        assert_eq!(gone(&["203.0.113.0/24"]), ["113.0.203.in-addr.arpa."]);
        assert_eq!(gone(&["10.1.0.0/16"]), ["10.in-addr.arpa."]);
        assert_eq!(gone(&["172.20.3.0/24"]), ["20.172.in-addr.arpa."]);
        assert_eq!(gone(&["8.8.8.0/24"]), [""; 0]);
    }
}
