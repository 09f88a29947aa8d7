//! The cost of deciding one question, without sockets: `begin` and `finish`, and each alone.
#![allow(clippy::unwrap_used, clippy::expect_used)] // fixed inputs
#![allow(missing_docs)] // criterion's macros make public items

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sampan::dns64::{Answer, Meta, Settings, Step, Transport, begin, finish};

const META: Meta =
    Meta { client: std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), transport: Transport::Udp };

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn message(kind: MessageType, owner: &str, rtype: RecordType, answers: Vec<Record>) -> Message {
    let mut message = Message::new(1, kind, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(name(owner), rtype));
    message.answers = answers;
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
    message
}

fn answer(rtype: RecordType, answers: Vec<Record>, soa: bool) -> Answer {
    let mut reply = message(MessageType::Response, "www.example.gov.", rtype, answers);
    if soa {
        let soa = SOA::new(name("ns.example.gov."), name("host.example.gov."), 1, 2, 3, 4, 300);
        reply.authorities.push(Record::from_rdata(name("example.gov."), 300, RData::SOA(soa)));
    }
    Answer::Reply(reply.to_vec().unwrap())
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 3600, data)
}

fn synthesis(c: &mut Criterion) {
    let mut settings = Settings::default();
    settings.policy.prefixes = vec!["2001:db8:64::/96".parse().unwrap()];
    let query = message(MessageType::Query, "www.example.gov.", RecordType::AAAA, vec![]).to_vec().unwrap();
    let a = |owner: &str, last: u8| record(owner, RData::A(A::new(198, 41, 0, last)));
    let nodata = answer(RecordType::AAAA, vec![], true);
    let one = answer(RecordType::A, vec![a("www.example.gov.", 4)], false);
    let chain = ["www.example.gov.", "a.cdn.example.", "b.cdn.example."];
    let cnames: Vec<_> =
        chain.windows(2).map(|pair| record(pair[0], RData::CNAME(CNAME(name(pair[1]))))).collect();
    let chain_a = [cnames.clone(), (1..=4).map(|i| a("b.cdn.example.", i)).collect()].concat();
    let (chain_none, chain_a) =
        (answer(RecordType::AAAA, cnames, true), answer(RecordType::A, chain_a, false));
    let real = record("www.example.gov.", RData::AAAA(AAAA("2001:db8::1".parse().unwrap())));
    let real = answer(RecordType::AAAA, vec![real], false);

    let decide = |first: &Answer, second: &Answer| match begin(&settings, black_box(&query), &META) {
        Step::Ask(ask) => finish(&settings, &ask, black_box(first), black_box(second)),
        Step::Reply(reply) => reply,
        Step::Ignore => unreachable!("a good query"),
    };
    let mut group = c.benchmark_group("dns64");
    group.bench_function("begin", |b| b.iter(|| begin(&settings, black_box(&query), &META)));
    group.bench_function("synthesise one A", |b| b.iter(|| decide(&nodata, &one)));
    group.bench_function("synthesise two CNAME and four A", |b| b.iter(|| decide(&chain_none, &chain_a)));
    group.bench_function("hand on a real AAAA", |b| b.iter(|| decide(&real, &Answer::Failed)));
    let local = message(MessageType::Query, "ipv4only.arpa.", RecordType::AAAA, vec![]).to_vec().unwrap();
    group.bench_function("ipv4only.arpa", |b| b.iter(|| begin(&settings, black_box(&local), &META)));
    group.finish();
}

criterion_group!(benches, synthesis);
criterion_main!(benches);
