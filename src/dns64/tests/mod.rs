//! Tests of the room as a whole, through `begin` and `finish`. The helpers are here.

mod edges;
mod properties;
mod table;
mod total;

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Dns, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, MX, NULL, PTR, SOA, SVCB, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::*;

const CLIENT: Meta = Meta { client: std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), transport: Transport::Udp };
const OWN: &str = "2001:db8:64::/96";

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn settings() -> Settings {
    with_policy(|policy| policy.prefixes = vec![OWN.parse().unwrap()])
}

pub(super) fn with_policy(tweak: impl FnOnce(&mut Policy)) -> Settings {
    let mut settings = Settings::default();
    tweak(&mut settings.policy);
    settings
}

pub(super) fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

pub(super) fn a(owner: &str, ttl: u32, addr: &str) -> Record {
    record(owner, ttl, RData::A(A(addr.parse().unwrap())))
}

pub(super) fn aaaa(owner: &str, addr: &str) -> Record {
    record(owner, 300, RData::AAAA(AAAA(addr.parse().unwrap())))
}

pub(super) fn cname(owner: &str, target: &str) -> Record {
    record(owner, 300, RData::CNAME(CNAME(name(target))))
}

pub(super) fn soa(zone: &str, ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns.example."), name("host.example."), 1, 2, 3, 4, minimum);
    record(zone, ttl, RData::SOA(soa))
}

pub(super) fn rrsig(owner: &str) -> Record {
    let data = RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(vec![0; 24]) };
    record(owner, 300, data)
}

pub(super) fn txt(owner: &str, text: &str) -> Record {
    record(owner, 300, RData::TXT(TXT::new(vec![text.into()])))
}

/// An HTTPS record without parameters.
pub(super) fn hint() -> RData {
    RData::HTTPS(HTTPS(SVCB::new(1, name("."), vec![])))
}

/// Adds an Extended DNS Error to a message with OPT.
pub(super) fn add_ede(message: &mut Message, code: u16) {
    let option = EdnsOption::Unknown(15, code.to_be_bytes().to_vec());
    message.edns.as_mut().unwrap().options_mut().insert(option);
}

/// A query of the client, changed by `tweak`.
pub(super) fn query(owner: &str, rtype: RecordType, tweak: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Dns::query(name(owner), rtype));
    tweak(&mut message);
    message.to_vec().unwrap()
}

pub(super) fn with_opt(message: &mut Message) {
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
}

pub(super) fn with_do(message: &mut Message) {
    with_opt(message);
    message.edns.as_mut().unwrap().set_dnssec_ok(true);
}

/// An upstream answer about `x.example` and `rtype`.
pub(super) fn upstream(
    rtype: RecordType,
    rcode: ResponseCode,
    answers: &[Record],
    authorities: &[Record],
) -> Answer {
    upstream_for("x.example.", rtype, |message| {
        message.metadata.response_code = rcode;
        message.answers = answers.to_vec();
        message.authorities = authorities.to_vec();
    })
}

pub(super) fn upstream_for(owner: &str, rtype: RecordType, tweak: impl FnOnce(&mut Message)) -> Answer {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.queries.push(Dns::query(name(owner), rtype));
    with_opt(&mut message);
    tweak(&mut message);
    Answer::Reply(message.to_vec().unwrap())
}

pub(super) fn nodata() -> Answer {
    upstream(RecordType::AAAA, ResponseCode::NoError, &[], &[soa("example.", 60, 30)])
}

pub(super) fn good_a() -> Answer {
    upstream(RecordType::A, ResponseCode::NoError, &[a("x.example.", 3600, "198.41.0.4")], &[])
}

pub(super) fn decide(
    settings: &Settings,
    query: &[u8],
    first: &Answer,
    second: &Answer,
) -> (Outcome, Message) {
    let reply = match begin(settings, query, &CLIENT) {
        Step::Reply(reply) => reply,
        Step::Ask(ask) => finish(settings, &ask, first, second),
        Step::Ignore => panic!("ignored"),
    };
    let message = Message::from_vec(&reply.bytes).unwrap();
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(message.metadata.id, 0x1234);
    (reply.outcome, message)
}

/// The decision for `AAAA x.example`.
pub(super) fn aaaa_of(settings: &Settings, first: &Answer, second: &Answer) -> (Outcome, Message) {
    decide(settings, &query("x.example.", RecordType::AAAA, |_| {}), first, second)
}

/// Addresses and TTLs of the AAAA records; nothing else may be an address.
pub(super) fn addresses(message: &Message) -> Vec<(Ipv6Addr, u32)> {
    assert!(message.answers.iter().all(|r| r.record_type() != RecordType::A), "A record in an AAAA answer");
    let addr = |r: &Record| if let RData::AAAA(addr) = &r.data { Some((addr.0, r.ttl)) } else { None };
    message.answers.iter().filter_map(addr).collect()
}

pub(super) fn synthetic(addr: &str) -> Ipv6Addr {
    OWN.parse::<Pref64>().unwrap().embed(addr.parse().unwrap())
}

pub(super) fn ede(message: &Message) -> Vec<u16> {
    let options = message.edns.iter().flat_map(|edns| edns.options().as_ref().iter());
    let codes = options.filter_map(|(code, option)| {
        let EdnsOption::Unknown(_, data) = option else { return None };
        (u16::from(*code) == 15).then(|| u16::from_be_bytes([data[0], data[1]]))
    });
    codes.collect()
}
