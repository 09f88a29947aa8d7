//! Features of DNS64 two by two: every pair of values meets in one of these rows, and each row is played against
//! the one core that serves every transport, with a scripted upstream. What must come back is worked out here by a
//! second reading of RFC 6147; besides there is what holds for any reply.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::wildcard_enum_match_arm)] // a test stops at the first surprise

#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

#[path = "support/dns_features.rs"]
mod features;

#[path = "support/pairs.rs"]
mod pairs;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use features::{Case, FEATURES, MAKING, RULES, Told, is_among, value};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use pairs::{Row, Rules};
use sampan::dns64::{Change as Dns64Change, Health, Meta, Transport};
use sampan::io::dns_net::{Change, Config, Limits};
use support::*;

/// Plays a row; what is wrong stops it. Whether it went over the wire, too.
async fn play(case: Case) -> bool {
    let is_dead = Arc::new(AtomicBool::new(false));
    let script = |case: &Case| {
        let (case, is_dead) = (case.clone(), Arc::clone(&is_dead));
        move |query: &Message, _: bool| {
            if is_dead.load(Ordering::Relaxed) { Reaction::Silence } else { case.react(query) }
        }
    };
    let (first, other) = (Upstream::start(script(&case)).await, Upstream::start(script(&case)).await);
    let config = Config {
        dns64: case.settings(),
        upstream: vec![first.addr.into()],
        groups: vec![vec![other.addr.into()]],
        ..Config::default()
    };
    let limits = Limits {
        udp_threads: 1,
        cache_bytes: 4 << 20,
        deadline: Duration::from_millis(2_500),
        aaaa_budget: Duration::from_millis(800),
        stale_after: Duration::from_millis(1_000),
        ..Limits::default()
    };
    let service = Service::start("127.0.0.1:0", config, limits).await;
    let (network, transport) = (if case.is("client", "stranger") { "9" } else { "c" }, case.transport());
    let meta = |transport| Meta { client: format!("2001:db8:{network}:2::1").parse().unwrap(), transport };
    let query = case.query();
    let bytes = query.to_vec().unwrap();
    let asked = || first.asked().len() + other.asked().len();

    if !case.is("cache", "cold") {
        // Over a stream: that is not limited.
        service.shared.answer(&bytes, &meta(Transport::Tcp)).await;
    }
    if !case.is("health", "up") {
        service.shared.apply([Change::Dns64(Dns64Change::Health(Health::Down))]);
    }
    if case.is("cache", "expired") {
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        is_dead.store(true, Ordering::Relaxed);
    }
    if case.is("limit", "spent") {
        let other = support::query("spent.lan.", RecordType::TXT).to_vec().unwrap();
        service.shared.answer(&other, &meta(Transport::Udp)).await;
    }
    let before = asked();
    let reply = service.shared.answer(&bytes, &meta(transport)).await;
    let upstream = asked() - before;
    let shown = case.shown();

    if case.is("limit", "spent") && transport == Transport::Udp {
        // Nothing, or the word to come back over TCP, never longer than the question.
        if let Some(reply) = reply {
            let message = Message::from_vec(&reply).unwrap();
            assert!(message.metadata.truncation && message.answers.is_empty(), "{shown}{message}");
            assert!(reply.len() <= bytes.len(), "{shown}");
        }
        assert_eq!((upstream, service.counter("limited")), (0, 1), "{shown}");
        return false;
    }
    let reply = reply.unwrap_or_else(|| panic!("{shown}no reply"));
    let message = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{shown}{error}"));
    any_reply(&case, &query, &reply, &message);
    assert!(upstream <= 4, "{shown}{upstream} questions upstream");
    if case.is("client", "stranger") {
        assert_eq!(message.metadata.response_code, ResponseCode::Refused, "{shown}");
        assert!(message.answers.is_empty() && asked() == 0, "{shown}");
        return false;
    }
    for (upstream, group) in [(&first, 0), (&other, 1)] {
        let is_its = |(owner, ..): &(String, RecordType, bool)| owner.ends_with(".fwd.") == (group == 1);
        assert!(upstream.asked().iter().all(is_its), "{shown}{:?}", upstream.asked());
    }
    match value(&case.0, "question") {
        "aaaa" | "local" | "local-alias" | "forwarded" | "chain" | "dname" => {
            about_addresses(&case, &message, upstream)
        }
        _ => about_others(&case, &message, upstream),
    }
    // This host may always ask, has no view and no limit: what it hears over the wire is what the core said. While the
    // translator is down that is a matter of what each thread's own cache has; the streams share one.
    let one_cache = case.is("health", "up") || transport != Transport::Udp;
    let on_the_wire = case.is("client", "plain") && !case.is("cache", "expired") && one_cache;
    if on_the_wire {
        let heard = over_the_wire(&service, transport, &bytes).await;
        assert_eq!(without_ttls(heard), without_ttls(message), "{shown}");
    }
    on_the_wire
}

/// Asks over UDP, or over TCP in place of every stream.
async fn over_the_wire(service: &Service, transport: Transport, query: &[u8]) -> Message {
    let bytes = if transport == Transport::Udp {
        ask_udp_bytes(service.addr, query).await.expect("a reply over UDP")
    } else {
        let mut stream = tokio::net::TcpStream::connect(service.addr).await.unwrap();
        write_framed(&mut stream, query).await;
        read_framed(&mut stream).await.expect("a reply over TCP")
    };
    Message::from_vec(&bytes).unwrap()
}

fn without_ttls(mut message: Message) -> Message {
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        record.ttl = 0;
    }
    message
}

/// What holds for any reply.
fn any_reply(case: &Case, query: &Message, bytes: &[u8], message: &Message) {
    let shown = case.shown();
    let flags = &message.metadata;
    assert_eq!((flags.id, flags.message_type), (query.metadata.id, MessageType::Response), "{shown}");
    assert_eq!(message.queries, query.queries, "{shown}");
    assert!(flags.recursion_available && !flags.authentic_data, "{shown}{message}");
    assert_eq!(flags.recursion_desired, case.is("rd", "yes"), "{shown}");
    assert_eq!(flags.checking_disabled, case.is("cd", "yes"), "{shown}");
    let dnssec_ok = message.edns.as_ref().map(|edns| edns.flags().dnssec_ok);
    assert_eq!(dnssec_ok, (!case.is("edns", "none")).then(|| case.is("do", "yes")), "{shown}{message}");
    let limit = match (case.transport(), value(&case.0, "edns")) {
        (Transport::Udp, "none" | "512") => 512,
        (Transport::Udp, _) => 1232,
        _ => 65_535,
    };
    assert!(bytes.len() <= limit, "{shown}{} bytes", bytes.len());
    assert!(!flags.truncation || case.transport() == Transport::Udp, "{shown}");
    let types: BTreeSet<_> = message.answers.iter().map(Record::record_type).collect();
    if case.rtype() == RecordType::AAAA {
        assert!(!types.contains(&RecordType::A), "{shown}{message}");
    }
}

fn about_addresses(case: &Case, message: &Message, upstream: usize) {
    let shown = case.shown();
    let down = !case.is("health", "up");
    // Local names need no upstream and do not expire here.
    let cache = match value(&case.0, "cache") {
        "expired" if case.is("question", "local") => "warm",
        cache => cache,
    };
    let calm = case.told(false);
    let fail = Told { rcode: ResponseCode::ServFail, addresses: vec![], made: false, kept: true };
    let (told, most) = match cache {
        "cold" => (case.told(down), u32::MAX),
        // RFC 8767 and the translator's health: what was made is served for five seconds at a time, or not at all.
        _ if down && calm.made && case.is("health", "stale") => (calm, 5),
        "warm" => (case.told(down), u32::MAX),
        _ if down && calm.made => (fail, u32::MAX),
        _ if calm.rcode == ResponseCode::ServFail || !calm.kept => (fail, u32::MAX),
        _ => (calm, 30),
    };
    let flags = &message.metadata;
    assert_eq!(flags.response_code, told.rcode, "{shown}{message}");
    let got: Vec<_> = addresses(message);
    if flags.truncation {
        assert!(got.is_empty() && told.addresses.len() >= 10, "{shown}{message}");
    } else {
        let (addresses, ttls): (Vec<_>, Vec<_>) = got.into_iter().unzip();
        assert_eq!(addresses, told.addresses, "{shown}{message}");
        assert!(ttls.iter().all(|ttl| *ttl <= most.min(60)), "{shown}{ttls:?}");
    }
    let codes = extended_errors(message);
    if !case.is("edns", "none") {
        assert_eq!(codes.contains(&29), told.made, "{shown}{message}");
        let is_stale = codes.contains(&3) || codes.contains(&19);
        assert_eq!(is_stale, most <= 30, "{shown}{message}");
    }
    if case.is("question", "local") || (cache == "warm" && most == 5) {
        assert_eq!(upstream, 0, "{shown}");
    }
    if cache == "warm" && !down && told.kept {
        assert_eq!(upstream, 0, "{shown}not from the cache");
    }
    let aliases = message.answers.iter().filter(|record| record.record_type() == RecordType::CNAME).count();
    if !told.addresses.is_empty() && !flags.truncation {
        let alias = matches!(value(&case.0, "question"), "chain" | "dname" | "local-alias");
        assert_eq!(aliases, usize::from(alias), "{shown}{message}");
    }
}

/// Questions that synthesis is not about, or that are answered here.
fn about_others(case: &Case, message: &Message, upstream: usize) {
    let shown = case.shown();
    let pass = case.is("mode", "pass");
    let expired = case.is("cache", "expired");
    let types: Vec<_> = message.answers.iter().map(Record::record_type).collect();
    let rcode = message.metadata.response_code;
    let (ok, fail) = (ResponseCode::NoError, ResponseCode::ServFail);
    match value(&case.0, "question") {
        "any" if case.transport() == Transport::Udp => {
            assert!(message.metadata.truncation && types.is_empty() && upstream == 0, "{shown}{message}");
        }
        // It is never kept.
        "any" => {
            assert_eq!(rcode, if expired { fail } else { ok }, "{shown}{message}");
            assert_eq!(types.len(), usize::from(!expired), "{shown}{message}");
        }
        "https" => assert_eq!((rcode, &types[..]), (ok, &[RecordType::HTTPS][..]), "{shown}{message}"),
        "a" => {
            let (wanted, count) = match value(&case.0, "a") {
                "one" | "private" => (ok, 1),
                "many" => (ok, 70),
                "nodata" => (ok, 0),
                "nxdomain" => (ResponseCode::NXDomain, 0),
                _ => (fail, 0),
            };
            let filtered = case.is("filter-a", "yes") && case.is("cd", "no");
            let count = if filtered || message.metadata.truncation { 0 } else { count };
            assert_eq!((rcode, types.len()), (wanted, count), "{shown}{message}");
        }
        "ipv4only" if !pass => {
            let wanted: Vec<_> = match value(&case.0, "prefixes") {
                "well-known" => vec!["64:ff9b::"],
                "two" => vec!["2001:db8:64::", "2001:db8:65::"],
                "ranges" => vec!["2001:db8:64::", "2001:db8:66::"],
                _ => vec!["2001:db8:64::"],
            };
            let both = |prefix: &&str| ["170", "171"].map(|last| format!("{prefix}192.0.0.{last}"));
            let plain = |text: String| text.parse::<Ipv6Addr>().unwrap().to_string();
            let wanted: Vec<_> = wanted.iter().flat_map(both).map(plain).collect();
            let got: Vec<_> = addresses(message).into_iter().map(|(addr, _)| addr).collect();
            assert_eq!((rcode, got, upstream), (ok, wanted, 0), "{shown}{message}");
        }
        "below-ipv4only" if !pass => {
            assert_eq!((rcode, upstream), (ResponseCode::NXDomain, 0), "{shown}{message}");
        }
        "ptr-ipv4only" if !pass => {
            assert_eq!((rcode, &types[..], upstream), (ok, &[RecordType::PTR][..], 0), "{shown}{message}");
        }
        "ptr" if !pass && case.is("cd", "no") => {
            assert_eq!(
                (rcode, &types[..]),
                (ok, &[RecordType::CNAME, RecordType::PTR][..]),
                "{shown}{message}"
            );
        }
        // A plain forwarder knows nothing of these names.
        "ipv4only" | "below-ipv4only" => {
            let wanted = case.told(false);
            let wanted = if wanted.addresses.is_empty() { wanted.rcode } else { ok };
            assert_eq!(rcode, wanted, "{shown}{message}");
        }
        _ => assert_eq!((rcode, types.len()), (ok, 0), "{shown}{message}"),
    }
}

#[tokio::test]
async fn r34_every_pair_of_features() {
    let rows = covering("all", &RULES);
    println!("not met, because it cannot be: DO without EDNS");
    play_all(rows).await;
}

/// Once more for every state of cache and translator, where records are made: a pair above may have met only where none
/// are.
#[tokio::test]
async fn r34_every_pair_where_records_are_made_in_every_state() {
    let of = |name: &str| FEATURES.iter().find(|(feature, _)| *feature == name).unwrap().1;
    let mut rows = Vec::new();
    for cache in of("cache") {
        for health in of("health") {
            let state: &[(&str, &[&str])] = &[("cache", &[cache]), ("health", &[health])];
            let is_in = |value| is_among(value, MAKING) && is_among(value, state);
            let impossible =
                |first, second| !is_in(first) || !is_in(second) || (RULES.impossible)(first, second);
            rows.extend(covering(
                &format!("{cache}, {health}"),
                &Rules { impossible: &impossible, hiding: RULES.hiding },
            ));
        }
    }
    play_all(rows).await;
}

/// Rows in which every pair meets.
fn covering(what: &str, rules: &Rules<'_>) -> Vec<Row> {
    let all = pairs::pairs(FEATURES, rules);
    let rows = pairs::rows(FEATURES, rules);
    let met: BTreeSet<_> = rows.iter().flat_map(|row| pairs::met(row, rules)).collect();
    println!("{what}: {} of {} pairs met in {} rows", met.intersection(&all).count(), all.len(), rows.len());
    assert!(all.is_subset(&met));
    rows
}

async fn play_all(rows: Vec<Row>) {
    let mut wired = 0;
    for chunk in rows.chunks(48) {
        let mut playing = tokio::task::JoinSet::new();
        for row in chunk {
            playing.spawn(play(Case(row.clone())));
        }
        while let Some(played) = playing.join_next().await {
            wired += usize::from(played.unwrap());
        }
    }
    println!("{} rows, {wired} of them over the wire, too", rows.len());
    assert!(wired >= 15, "{wired}");
}
