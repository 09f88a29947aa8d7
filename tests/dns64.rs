//! DNS64 through its real sockets: a scripted upstream, the service, a client, all on loopback. The table of
//! situations follows a comparison of four resolvers; each row is one upstream script, one query, one verdict.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops at the first surprise

#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

use std::net::Ipv4Addr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{HTTPS, SVCB};
use hickory_proto::rr::{RData, Record, RecordType};
use sampan::dns64::{Policy, Settings};
use sampan::io::dns_net::Config;
use sampan::xlat::pref64::Pref64;
use support::*;

/// The zone `test.`, one name per situation.
fn zone(query: &Message, _tcp: bool) -> Reaction {
    use RecordType as T;
    use ResponseCode as R;
    let question = &query.queries[0];
    let owner = question.name.to_ascii().to_lowercase();
    let rtype = question.query_type;
    let negative = |rcode| {
        let mut message = reply_to(query, rcode);
        message.authorities.push(soa("test."));
        message
    };
    let nodata = || Reaction::Reply(negative(R::NoError));
    let with = |answers: Vec<Record>| {
        let mut message = reply_to(query, R::NoError);
        message.answers = answers;
        Reaction::Reply(message)
    };
    let v4 = || with(vec![a(&owner, 3600, "192.0.2.1")]);
    match (owner.as_str(), rtype) {
        ("dual.test.", T::AAAA) => with(vec![aaaa(&owner, "2001:db8::1")]),
        ("two.test.", T::A) => with(vec![a(&owner, 3600, "192.0.2.1"), a(&owner, 3600, "192.0.2.2")]),
        ("aonly.test." | "dual.test." | "upper.test.", T::A) => v4(),
        ("nx.test.", _) | ("anxd.test.", T::AAAA) => Reaction::Reply(negative(R::NXDomain)),
        ("servfail.test.", T::AAAA) => Reaction::Reply(reply_to(query, R::ServFail)),
        ("refused.test.", T::AAAA) => Reaction::Reply(reply_to(query, R::Refused)),
        ("formerr.test.", T::AAAA) => Reaction::Reply(reply_to(query, R::FormErr)),
        ("notimp.test.", T::AAAA) => Reaction::Reply(reply_to(query, R::NotImp)),
        ("silent.test.", T::AAAA) => Reaction::Silence,
        ("anxd.test." | "servfail.test." | "refused.test." | "formerr.test.", T::A) => v4(),
        ("notimp.test." | "silent.test." | "mapped.test." | "mixed.test." | "nosoa.test.", T::A) => v4(),
        ("mapped.test." | "maponly.test.", T::AAAA) => with(vec![aaaa(&owner, "::ffff:192.0.2.9")]),
        ("mixed.test.", T::AAAA) => with(vec![aaaa(&owner, "::ffff:192.0.2.9"), aaaa(&owner, "2001:db8::1")]),
        ("cname.test.", T::A) => {
            with(vec![cname(&owner, "aonly.test."), a("aonly.test.", 3600, "192.0.2.1")])
        }
        ("cname.test.", T::AAAA) | ("cnodata.test.", _) => {
            let mut message = negative(R::NoError);
            message.answers.push(cname(&owner, "aonly.test."));
            Reaction::Reply(message)
        }
        ("cnx.test.", _) => {
            let mut message = negative(R::NXDomain);
            message.answers.push(cname(&owner, "nx.test."));
            Reaction::Reply(message)
        }
        ("x.dname.test.", _) => {
            let mut message = if rtype == T::A { reply_to(query, R::NoError) } else { negative(R::NoError) };
            message.answers = vec![dname("dname.test.", "real.test."), cname(&owner, "x.real.test.")];
            if rtype == T::A {
                message.answers.push(a("x.real.test.", 3600, "192.0.2.1"));
            }
            Reaction::Reply(message)
        }
        ("nosoa.test.", T::AAAA) => with(vec![]),
        ("private.test.", T::A) => with(vec![a(&owner, 3600, "10.1.2.3")]),
        ("loopback.test.", T::A) => with(vec![a(&owner, 3600, "127.0.0.1")]),
        ("multicast.test.", T::A) => with(vec![a(&owner, 3600, "224.0.0.1")]),
        ("global.test.", T::A) => with(vec![a(&owner, 3600, "198.41.0.4")]),
        ("afail.test.", T::A) => Reaction::Reply(reply_to(query, R::ServFail)),
        ("ttl0.test.", T::A) => with(vec![a(&owner, 0, "192.0.2.1")]),
        ("https.test.", T::HTTPS) => {
            let hint = SVCB::new(1, name("."), vec![]);
            with(vec![record(&owner, 300, RData::HTTPS(HTTPS(hint)))])
        }
        ("1.2.0.192.in-addr.arpa.", T::PTR) => with(vec![ptr(&owner, "www.test.")]),
        _ => nodata(),
    }
}

/// One row: what is asked, and what must come back.
struct Row {
    owner: &'static str,
    rcode: ResponseCode,
    /// Addresses and TTL of the AAAA records.
    addresses: &'static [(&'static str, u32)],
    /// Types of all answer records, in order.
    types: &'static [RecordType],
    /// Whether an SOA is in the authority section.
    soa: bool,
}

const SYNTH: &str = "2001:db8:64::c000:201";
const OK: ResponseCode = ResponseCode::NoError;

const fn synth(owner: &'static str, ttl: &'static [(&'static str, u32)]) -> Row {
    Row { owner, rcode: OK, addresses: ttl, types: &[RecordType::AAAA], soa: false }
}

const fn none(owner: &'static str, rcode: ResponseCode, types: &'static [RecordType], soa: bool) -> Row {
    Row { owner, rcode, addresses: &[], types, soa }
}

const ROWS: &[Row] = &[
    synth("aonly.test.", &[(SYNTH, 30)]),
    Row {
        owner: "two.test.",
        rcode: OK,
        addresses: &[(SYNTH, 30), ("2001:db8:64::c000:202", 30)],
        types: &[RecordType::AAAA, RecordType::AAAA],
        soa: false,
    },
    synth("dual.test.", &[("2001:db8::1", 3600)]),
    none("nx.test.", ResponseCode::NXDomain, &[], true),
    none("anxd.test.", ResponseCode::NXDomain, &[], true),
    synth("servfail.test.", &[(SYNTH, 600)]),
    synth("refused.test.", &[(SYNTH, 600)]),
    synth("formerr.test.", &[(SYNTH, 600)]),
    synth("notimp.test.", &[(SYNTH, 600)]),
    synth("silent.test.", &[(SYNTH, 600)]),
    synth("mapped.test.", &[(SYNTH, 600)]),
    none("maponly.test.", OK, &[], true),
    synth("mixed.test.", &[("2001:db8::1", 3600)]),
    Row {
        owner: "cname.test.",
        rcode: OK,
        addresses: &[(SYNTH, 30)],
        types: &[RecordType::CNAME, RecordType::AAAA],
        soa: false,
    },
    none("cnodata.test.", OK, &[RecordType::CNAME], true),
    none("cnx.test.", ResponseCode::NXDomain, &[RecordType::CNAME], true),
    Row {
        owner: "x.dname.test.",
        rcode: OK,
        addresses: &[(SYNTH, 30)],
        types: &[RecordType::DNAME, RecordType::CNAME, RecordType::AAAA],
        soa: false,
    },
    none("nodata.test.", OK, &[], true),
    synth("nosoa.test.", &[(SYNTH, 600)]),
    none("afail.test.", ResponseCode::ServFail, &[], false),
    synth("ttl0.test.", &[(SYNTH, 0)]),
    synth("UPPER.test.", &[(SYNTH, 30)]),
    none("private.test.", OK, &[], true),
    synth("global.test.", &[("2001:db8:64::c629:4", 30)]),
];

#[tokio::test]
async fn the_table_over_udp_and_tcp() {
    let upstream = Upstream::start(zone).await;
    let service = Service::usual(&[upstream.addr]).await;
    for row in ROWS {
        let asked = query(row.owner, RecordType::AAAA);
        for reply in [ask_udp(service.addr, &asked).await, ask_tcp(service.addr, &asked).await] {
            let owner = row.owner;
            assert_eq!(reply.metadata.response_code, row.rcode, "{owner}");
            let got = addresses(&reply);
            let expected: Vec<_> = row.addresses.iter().map(|(addr, ttl)| (addr.to_string(), *ttl)).collect();
            assert_eq!(got, expected, "{owner}");
            let types: Vec<_> = reply.answers.iter().map(Record::record_type).collect();
            assert_eq!(types, row.types, "{owner}");
            let soa = reply.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
            assert_eq!(soa, row.soa, "{owner}");
            assert!(reply.edns.is_none(), "{owner}: OPT without being asked");
            assert_eq!(reply.queries, asked.queries, "{owner}");
        }
    }
    assert_eq!(service.counter("native"), 4);
    // Over TCP it came from the cache.
    assert_eq!(service.counter("aaaa_given_up"), 1);
    assert_eq!(service.counter("special_purpose"), 2);
    let outcomes = service.shared.snapshot().into_iter().take(sampan::dns64::Outcome::ALL.len());
    assert_eq!(outcomes.map(|(_, value)| value).sum::<u64>(), 2 * ROWS.len() as u64);
    assert_eq!(service.shared.in_flight(), 0);
}

#[tokio::test]
async fn a11_r27_the_well_known_prefix_never_carries_private_addresses() {
    let upstream = Upstream::start(zone).await;
    let policy = Policy { allow: vec!["0.0.0.0/0".parse().unwrap()], ..Policy::default() };
    let dns64 = Settings { policy, ..Settings::default() };
    let config = Config { dns64, upstream: vec![upstream.addr.into()], ..Config::default() };
    let service = Service::start("127.0.0.1:0", config, quick_limits()).await;
    for owner in ["private.test.", "loopback.test.", "multicast.test.", "aonly.test."] {
        let reply = ask_udp(service.addr, &query(owner, RecordType::AAAA)).await;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (OK, 0), "{owner}");
        assert_eq!(reply.authorities.len(), 1, "{owner}");
    }
    let reply = ask_udp(service.addr, &query("global.test.", RecordType::AAAA)).await;
    assert_eq!(addresses(&reply), [("64:ff9b::c629:4".to_owned(), 30)]);
    assert_eq!(service.counter("special_purpose"), 4);
}

/// Answers with the IPv4 address in the first label; below `outside.test.` with an AAAA inside our prefix, made by
/// whoever has the zone, and below `mapped.test.` with an IPv4-mapped one.
fn rebinding(query: &Message, _tcp: bool) -> Reaction {
    let owner = query.queries[0].name.to_ascii().to_lowercase();
    let v4: Option<Ipv4Addr> = owner.split('.').next().and_then(|label| label.replace('-', ".").parse().ok());
    let Some(v4) = v4 else { return Reaction::Silence };
    let v6 = match (owner.contains("outside"), owner.contains("mapped")) {
        (true, _) => Some(OWN.parse::<Pref64>().unwrap().embed(v4)),
        (_, true) => Some(v4.to_ipv6_mapped()),
        _ => None,
    };
    let mut message = reply_to(query, ResponseCode::NoError);
    if query.queries[0].query_type == RecordType::A {
        message.answers.push(a(&owner, 60, &v4.to_string()));
    } else {
        message.answers.extend(v6.map(|v6| aaaa(&owner, &v6.to_string())));
    }
    Reaction::Reply(message)
}

/// Whatever a foreign zone says, no client learns a way to an inner IPv4 address: of each network that is not global an
/// address in the middle and its first and last, as A, as AAAA made outside, and as IPv4-mapped AAAA.
#[tokio::test]
async fn a11_r27_no_zone_leads_to_inner_addresses() {
    let inner = [
        "0.0.0.1",
        "10.0.0.0",
        "10.1.2.3",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ];
    let global =
        ["9.255.255.255", "11.0.0.0", "100.63.255.255", "172.32.0.0", "192.167.255.255", "198.20.0.0"];
    let upstream = Upstream::start(rebinding).await;
    let own: Pref64 = OWN.parse().unwrap();
    for prefixes in [vec![own], vec![]] {
        let mut policy = Policy { prefixes, ..Policy::default() };
        policy.exclude_aaaa.push(own.prefix());
        let dns64 = Settings { policy, ..Settings::default() };
        let config = Config { dns64, upstream: vec![upstream.addr.into()], ..Config::default() };
        let service = Service::start("127.0.0.1:0", config, quick_limits()).await;
        for zone in ["test", "outside.test", "mapped.test"] {
            for (v4, given) in inner.iter().map(|v4| (v4, 0)).chain(global.iter().map(|v4| (v4, 1))) {
                let asked = query(&format!("{}.{zone}.", v4.replace('.', "-")), RecordType::AAAA);
                // The second from the cache.
                for reply in [ask_udp(service.addr, &asked).await, ask_tcp(service.addr, &asked).await] {
                    assert_eq!(reply.metadata.response_code, OK, "{v4} {zone}");
                    assert_eq!(addresses(&reply).len(), given, "{v4} {zone}: {reply}");
                }
            }
        }
    }
}

#[tokio::test]
async fn k24_dnssec_flags() {
    let upstream = Upstream::start(zone).await;
    let service = Service::usual(&[upstream.addr]).await;
    let flags = |dnssec_ok: bool, cd: bool| {
        let mut message = query("aonly.test.", RecordType::AAAA);
        if dnssec_ok {
            message = with_opt(message);
            message.edns.as_mut().unwrap().set_dnssec_ok(true);
        }
        message.metadata.checking_disabled = cd;
        message
    };
    for (dnssec_ok, cd, synthetic) in [(false, false, 1), (true, false, 1), (true, true, 0), (false, true, 0)]
    {
        let reply = ask_udp(service.addr, &flags(dnssec_ok, cd)).await;
        assert_eq!(addresses(&reply).len(), synthetic, "DO {dnssec_ok} CD {cd}");
        assert_eq!(reply.metadata.checking_disabled, cd);
        assert!(!reply.metadata.authentic_data);
        assert_eq!(reply.edns.as_ref().map(|edns| edns.flags().dnssec_ok), dnssec_ok.then_some(true));
        let ede = if dnssec_ok && synthetic == 1 { vec![29] } else { vec![] };
        assert_eq!(extended_errors(&reply), ede);
    }
}

#[tokio::test]
async fn k17_k34_other_types_pass() {
    let upstream = Upstream::start(zone).await;
    let service = Service::usual(&[upstream.addr]).await;
    let reply = ask_udp(service.addr, &query("https.test.", RecordType::HTTPS)).await;
    assert_eq!(reply.answers[0].record_type(), RecordType::HTTPS);
    let reply = ask_udp(service.addr, &query("private.test.", RecordType::A)).await;
    assert_eq!(reply.answers, [a("private.test.", 3600, "10.1.2.3")]);
    assert_eq!(service.counter("forwarded"), 2);
}

#[tokio::test]
async fn k25_k29_discovery_needs_no_upstream() {
    let upstream = Upstream::start(zone).await;
    let service = Service::usual(&[upstream.addr]).await;
    let reply = ask_udp(service.addr, &query("ipv4only.arpa.", RecordType::AAAA)).await;
    let expected = ["2001:db8:64::c000:aa", "2001:db8:64::c000:ab"].map(|addr| (addr.to_owned(), 600));
    assert_eq!(addresses(&reply), expected);
    let addr: std::net::Ipv6Addr = "2001:db8:64::c000:aa".parse().unwrap();
    let owner = hickory_proto::rr::Name::from(addr).to_ascii();
    let reply = ask_tcp(service.addr, &query(&owner, RecordType::PTR)).await;
    assert_eq!(reply.answers, [record(&owner, 600, ptr(&owner, "ipv4only.arpa.").data)]);
    assert_eq!(upstream.asked(), []);
}

#[tokio::test]
async fn k20_reverse_names() {
    let upstream = Upstream::start(zone).await;
    let service = Service::usual(&[upstream.addr]).await;
    let owner = hickory_proto::rr::Name::from(SYNTH.parse::<std::net::Ipv6Addr>().unwrap()).to_ascii();
    let reply = ask_udp(service.addr, &query(&owner, RecordType::PTR)).await;
    let target = "1.2.0.192.in-addr.arpa.";
    assert_eq!(reply.answers, [cname(&owner, target), ptr(target, "www.test.")]);
    assert_eq!(upstream.asked(), [(target.to_owned(), RecordType::PTR, false)]);
}
