//! Upstreams that die, slow down, lie and attack: what clients see, and what it costs.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops at the first surprise

#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{NS, NULL};
use hickory_proto::rr::{RData, RecordType};
use sampan::io::dns_net::Limits;
use support::*;
use tokio::net::UdpSocket;
use tokio::time::sleep;

/// Every name has one A record and no AAAA, for so many seconds.
fn v4_only(query: &Message, ttl: u32) -> Message {
    let mut message = reply_to(query, ResponseCode::NoError);
    if query.queries[0].query_type == RecordType::A {
        let mut record = a(".", ttl, "192.0.2.1");
        record.name = query.queries[0].name.clone();
        message.answers.push(record);
    } else {
        let mut record = soa("test.");
        record.ttl = ttl;
        message.authorities.push(record);
    }
    message
}

fn good(query: &Message, _tcp: bool) -> Reaction {
    Reaction::Reply(v4_only(query, 3600))
}

fn silent(_: &Message, _: bool) -> Reaction {
    Reaction::Silence
}

fn refuses(query: &Message, _: bool) -> Reaction {
    Reaction::Reply(reply_to(query, ResponseCode::Refused))
}

fn slow(query: &Message, _: bool) -> Reaction {
    Reaction::Late(Duration::from_secs(2), v4_only(query, 3600))
}

/// The answer that a forger would like to be believed.
fn forged(query: &Message) -> Message {
    let mut message = reply_to(query, ResponseCode::NoError);
    let owner = query.queries[0].name.to_ascii();
    message.answers.push(if query.queries[0].query_type == RecordType::A {
        a(&owner, 3600, "192.0.2.66")
    } else {
        aaaa(&owner, "2001:db8:bad::66")
    });
    message
}

/// Another ID.
fn wrong_id(query: &Message) -> Vec<u8> {
    let mut message = forged(query);
    message.metadata.id ^= 1;
    message.to_vec().unwrap()
}

/// Another question, under the right ID.
fn wrong_question(query: &Message) -> Vec<u8> {
    let mut message = forged(query);
    message.queries[0].name = name("other.test.");
    message.to_vec().unwrap()
}

/// Another type in the question.
fn wrong_type(query: &Message) -> Vec<u8> {
    let mut message = forged(query);
    message.queries[0].query_type = RecordType::TXT;
    message.to_vec().unwrap()
}

/// A query, not a reply.
fn no_reply(query: &Message) -> Vec<u8> {
    let mut bytes = forged(query).to_vec().unwrap();
    bytes[2] &= 0x7f;
    bytes
}

/// Two questions.
fn two_questions(query: &Message) -> Vec<u8> {
    let mut message = forged(query);
    message.queries.push(message.queries[0].clone());
    message.to_vec().unwrap()
}

/// Asks for a name of its own, with patience; the reply and how long it took.
async fn ask(server: SocketAddr, owner: &str) -> (Message, Duration) {
    let started = Instant::now();
    let reply = ask_udp(server, &with_opt(query(owner, RecordType::AAAA))).await;
    (reply, started.elapsed())
}

fn is_right(reply: &Message) -> bool {
    addresses(reply).iter().map(|(address, _)| address.as_str()).eq(["2001:db8:64::c000:201"])
}

async fn dead() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The bounds of the product, not the short ones of other tests.
async fn service(upstream: &[SocketAddr]) -> Service {
    let limits = Limits { cache_bytes: 1 << 20, ..Limits::default() };
    Service::start("127.0.0.1:0", usual_config(upstream), limits).await
}

/// Two upstreams; after a while the first goes bad. 99 of 100 clients have a right answer within a second, and most at
/// once.
#[tokio::test]
async fn r15_one_of_two_upstreams_killed_slowed_or_lying() {
    type Bad = fn(&Message, bool) -> Reaction;
    let lying: Bad = |query, _| {
        Reaction::Each(vec![wrong_id(query), wrong_question(query), wrong_type(query), no_reply(query)])
    };
    // It finds nothing that others find.
    let denying: Bad = |query, _| Reaction::Reply(reply_to(query, ResponseCode::ServFail));
    for (what, bad) in [
        ("killed", None),
        ("silent", Some(silent as Bad)),
        ("slow", Some(slow)),
        ("lying", Some(lying)),
        ("refusing", Some(refuses)),
        ("denying", Some(denying)),
    ] {
        let is_bad = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&is_bad);
        let first = Upstream::start(move |query: &Message, tcp: bool| match bad {
            Some(bad) if its.load(Ordering::Relaxed) => bad(query, tcp),
            _ => good(query, tcp),
        })
        .await;
        let mut first = Some(first);
        let second = Upstream::start(good).await;
        let addrs = [first.as_ref().unwrap().addr, second.addr];
        let service = service(&addrs).await;
        let mut clients = Vec::new();
        for n in 0..200 {
            if n == 50 {
                is_bad.store(true, Ordering::Relaxed);
                // A killed one has no socket any more.
                first = first.filter(|_| bad.is_some());
            }
            let addr = service.addr;
            clients.push(tokio::spawn(async move { ask(addr, &format!("n{n}.test.")).await }));
            sleep(Duration::from_millis(10)).await;
        }
        let mut took = Vec::new();
        for client in clients {
            let (reply, time) = client.await.unwrap();
            assert!(is_right(&reply), "{what}: {reply}");
            took.push(time);
        }
        took.sort_unstable();
        let p99 = took[took.len() * 99 / 100];
        assert!(p99 < Duration::from_secs(1), "{what}: 99 of 100 within {p99:?}");
        // The rest did not have to wait: the bad one is left alone.
        assert!(took[took.len() / 2] < Duration::from_millis(200), "{what}: {:?}", took[took.len() / 2]);
    }
}

/// Nobody listens at the first address: its host says so, and nobody waits.
#[tokio::test]
async fn r15_a_refused_port_costs_no_time() {
    let second = Upstream::start(good).await;
    let service = service(&[dead().await, second.addr]).await;
    let (reply, took) = ask(service.addr, "x.test.").await;
    assert!(is_right(&reply) && took < Duration::from_millis(300), "{took:?}");
}

/// A server that came back is found again without a client that waits for it.
#[tokio::test]
async fn a_server_that_rests_is_tried_and_taken_back() {
    let is_bad = Arc::new(AtomicBool::new(true));
    let its = Arc::clone(&is_bad);
    let first =
        Upstream::start(
            move |query: &Message, tcp: bool| {
                if its.load(Ordering::Relaxed) { Reaction::Silence } else { good(query, tcp) }
            },
        )
        .await;
    let second = Upstream::start(good).await;
    let service = service(&[first.addr, second.addr]).await;
    assert!(is_right(&ask(service.addr, "a.test.").await.0));
    is_bad.store(false, Ordering::Relaxed);
    let before = second.asked().len();
    let mut n = 0;
    let back = loop {
        n += 1;
        let (reply, took) = ask(service.addr, &format!("n{n}.test.")).await;
        assert!(is_right(&reply) && took < Duration::from_millis(300), "{took:?}");
        let at_first = first.asked().iter().any(|(name, ..)| *name == format!("n{n}.test."));
        let at_second = second.asked().iter().any(|(name, ..)| *name == format!("n{n}.test."));
        if at_first && !at_second {
            break n;
        }
        assert!(n < 100, "the first server is not used again");
        sleep(Duration::from_millis(50)).await;
    };
    assert!(back > 1 && second.asked().len() > before);
}

/// RFC 8767: with all upstreams dead, what expired is served, at once after the first time.
#[tokio::test]
async fn k42_stale_answers_when_all_upstreams_are_dead() {
    let is_dead = Arc::new(AtomicBool::new(false));
    let upstream = |is_dead: &Arc<AtomicBool>| {
        let its = Arc::clone(is_dead);
        Upstream::start(move |query: &Message, _: bool| {
            if its.load(Ordering::Relaxed) { Reaction::Silence } else { Reaction::Reply(v4_only(query, 1)) }
        })
    };
    let (first, second) = (upstream(&is_dead).await, upstream(&is_dead).await);
    let limits = Limits { stale_after: Duration::from_millis(400), ..quick_limits() };
    let config = usual_config(&[first.addr, second.addr]);
    let service = Service::start("127.0.0.1:0", config, limits).await;
    assert!(is_right(&ask(service.addr, "x.test.").await.0));
    // The thread that answered has it for certain only after it has looked into its letter box.
    assert!(is_right(&ask(service.addr, "x.test.").await.0));
    is_dead.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(2_100)).await;
    let (reply, took) = ask(service.addr, "x.test.").await;
    assert!(is_right(&reply), "{reply}");
    assert_eq!(addresses(&reply)[0].1, 30);
    assert!(extended_errors(&reply).contains(&3), "{reply}");
    assert!(took > Duration::from_millis(300) && took < Duration::from_millis(1_000), "{took:?}");
    assert_eq!(service.counter("cache_stale"), 1);
    // The question that went on has failed by now: the next client does not wait.
    sleep(Duration::from_millis(1_300)).await;
    let before = first.asked().len();
    let (reply, took) = ask(service.addr, "x.test.").await;
    assert!(is_right(&reply) && took < Duration::from_millis(200), "{took:?}");
    assert!(extended_errors(&reply).contains(&3) && first.asked().len() == before, "{reply}");
    // What was never known fails.
    assert_eq!(ask(service.addr, "y.test.").await.0.metadata.response_code, ResponseCode::ServFail);
}

/// RFC 9520 wants failures cached, R-15 for one to five seconds.
#[tokio::test]
async fn r15_a_failure_is_cached_but_not_for_long() {
    let is_bad = Arc::new(AtomicBool::new(true));
    let its = Arc::clone(&is_bad);
    let upstream = Upstream::start(move |query: &Message, tcp: bool| {
        if its.load(Ordering::Relaxed) {
            Reaction::Reply(reply_to(query, ResponseCode::ServFail))
        } else {
            good(query, tcp)
        }
    })
    .await;
    let service = service(&[upstream.addr]).await;
    assert_eq!(ask(service.addr, "x.test.").await.0.metadata.response_code, ResponseCode::ServFail);
    let (asked, failed) = (upstream.asked().len(), Instant::now());
    assert_eq!(ask(service.addr, "x.test.").await.0.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(upstream.asked().len(), asked, "the failure is not cached");
    is_bad.store(false, Ordering::Relaxed);
    while !is_right(&ask(service.addr, "x.test.").await.0) {
        assert!(failed.elapsed() < Duration::from_secs(6), "a failure is cached for too long");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Both upstreams are dead for so long that they rest; when they are back, a new question is answered at once, and the
/// one that failed no more than five seconds after its failure. One second is for a slow machine.
#[tokio::test]
async fn r15_a_failure_ends_with_its_cause() {
    let is_dead = Arc::new(AtomicBool::new(true));
    let upstream = |is_dead: &Arc<AtomicBool>| {
        let its = Arc::clone(is_dead);
        Upstream::start(
            move |query: &Message, tcp: bool| {
                if its.load(Ordering::Relaxed) { Reaction::Silence } else { good(query, tcp) }
            },
        )
    };
    let (first, second) = (upstream(&is_dead).await, upstream(&is_dead).await);
    let config = usual_config(&[first.addr, second.addr]);
    let service = Service::start("127.0.0.1:0", config, quick_limits()).await;
    for n in 0..4 {
        let failed = ask(service.addr, &format!("n{n}.test.")).await.0;
        assert_eq!(failed.metadata.response_code, ResponseCode::ServFail, "{failed}");
    }
    let failed = Instant::now();
    is_dead.store(false, Ordering::Relaxed);
    let (reply, took) = ask(service.addr, "new.test.").await;
    assert!(is_right(&reply) && took < Duration::from_secs(1), "{took:?} {reply}");
    while !is_right(&ask(service.addr, "n3.test.").await.0) {
        assert!(failed.elapsed() < Duration::from_secs(6), "a failure is cached for too long");
        sleep(Duration::from_millis(100)).await;
    }
}

/// However bad the upstreams are, one client's question goes out four times at most.
#[tokio::test]
async fn r35_four_questions_upstream_at_most() {
    type Bad = fn(&Message, bool) -> Reaction;
    let truncated: Bad = |query, _| {
        let mut message = reply_to(query, ResponseCode::NoError);
        message.metadata.truncation = true;
        Reaction::Reply(message)
    };
    let complaining: Bad = |query, _| {
        let mut message = reply_to(query, ResponseCode::FormErr);
        message.edns = None;
        Reaction::Reply(message)
    };
    let failing: Bad = |query, _| Reaction::Reply(reply_to(query, ResponseCode::ServFail));
    // NXNSAttack: a referral to many servers, which a forwarder does not follow.
    let referring: Bad = |query, _| {
        let mut message = reply_to(query, ResponseCode::NoError);
        for i in 0..60 {
            let target = name(&format!("ns{i}.victim.test."));
            message.authorities.push(record("test.", 3600, RData::NS(NS(target))));
        }
        Reaction::Reply(message)
    };
    let shouting: Bad = |query, _| {
        let mut message = v4_only(query, 60);
        let upper = query.queries[0].name.to_ascii().to_uppercase();
        message.queries[0].name = name(&upper);
        Reaction::Reply(message)
    };
    for (what, bad) in [
        ("silent", silent as Bad),
        ("refusing", refuses),
        ("truncated", truncated),
        ("complaining", complaining),
        ("failing", failing),
        ("referring", referring),
        ("shouting", shouting),
    ] {
        for count in 1..=3 {
            let mut upstreams = Vec::new();
            for _ in 0..count {
                upstreams.push(Upstream::start(bad).await);
            }
            let addrs: Vec<_> = upstreams.iter().map(|upstream| upstream.addr).collect();
            let service = Service::usual(&addrs).await;
            ask(service.addr, "x.test.").await;
            let asked: Vec<_> = upstreams.iter().flat_map(Upstream::asked).collect();
            assert!(asked.len() <= 4, "{what}, {count} upstreams: {asked:?}");
            assert!(asked.iter().all(|(name, ..)| name == "x.test."), "{what}: {asked:?}");
        }
    }
}

/// The first wrong datagram does not end the question, and none of them is believed.
#[tokio::test]
async fn k44_r37_wrong_answers_before_the_right_one_change_nothing() {
    for (what, wrong) in [
        ("ID", wrong_id as fn(&Message) -> Vec<u8>),
        ("question", wrong_question),
        ("type", wrong_type),
        ("query", no_reply),
        ("two questions", two_questions),
        ("short", |_| vec![0]),
        ("header", |query| query.metadata.id.to_be_bytes().into_iter().chain([0x81, 0x80]).collect()),
    ] {
        let upstream = Upstream::start(move |query: &Message, _: bool| {
            Reaction::Each(vec![wrong(query), v4_only(query, 60).to_vec().unwrap()])
        })
        .await;
        let service = service(&[upstream.addr]).await;
        let (reply, took) = ask(service.addr, "www.example.test.").await;
        assert!(is_right(&reply) && took < Duration::from_millis(500), "{what}: {took:?} {reply}");
        if what != "short" {
            assert_eq!(service.counter("upstream_strangers"), 2, "{what}");
        }
    }
}

/// An answer from another port never reaches the question: the socket is connected.
#[tokio::test]
async fn k44_r37_answers_from_elsewhere_are_not_seen() {
    let upstream = Upstream::start(|query: &Message, _: bool| {
        Reaction::Elsewhere(forged(query).to_vec().unwrap(), v4_only(query, 60).to_vec().unwrap())
    })
    .await;
    let service = service(&[upstream.addr]).await;
    assert!(is_right(&ask(service.addr, "x.test.").await.0));
    assert_eq!(service.counter("upstream_strangers"), 0);
}

/// An answer in other letters is confirmed over TCP; a server that always answers so is soon asked in its own letters.
#[tokio::test]
async fn k44_letters_are_checked_and_doubts_settled_over_tcp() {
    let upstream = Upstream::start(|query: &Message, tcp: bool| {
        let mut message = if tcp { v4_only(query, 60) } else { forged(query) };
        let lower = query.queries[0].name.to_ascii().to_lowercase();
        message.queries[0].name = name(&lower);
        if !tcp && query.queries[0].name.to_ascii() == lower {
            message = v4_only(query, 60);
        }
        Reaction::Reply(message)
    })
    .await;
    let service = service(&[upstream.addr]).await;
    for n in 0..12 {
        let (reply, _) = ask(service.addr, &format!("a-rather-long-name-{n}.example.test.")).await;
        assert!(is_right(&reply), "{reply}");
        assert_eq!(reply.queries[0].name.to_ascii(), format!("a-rather-long-name-{n}.example.test."));
    }
    let over_tcp = upstream.seen().iter().filter(|asked| asked.tcp).count();
    assert!((4..12).contains(&over_tcp), "{over_tcp}");
}

/// Each question has a random ID, mixed letters and one of many ports, none of which lives for long.
#[tokio::test]
async fn k44_ids_ports_and_letters_cannot_be_told() {
    let upstream = Upstream::start(good).await;
    let service = service(&[upstream.addr]).await;
    for n in 0..500 {
        assert!(is_right(&ask(service.addr, &format!("abcdefghijkl{n}.test.")).await.0));
    }
    let seen = upstream.seen();
    let distinct = |values: Vec<u64>| values.into_iter().collect::<HashSet<_>>().len();
    let ids = seen.iter().map(|asked| u64::from(asked.query.metadata.id)).collect();
    // 1,000 of 65,536: some 8 are expected to meet.
    assert!(distinct(ids) > 950);
    let ports: Vec<_> = seen.iter().map(|asked| u64::from(asked.from.port())).collect();
    assert!(distinct(ports.clone()) >= 16, "{}", distinct(ports));
    let most = (0..seen.len()).map(|i| ports.iter().filter(|port| **port == ports[i]).count()).max();
    assert!(most <= Some(64), "{most:?} questions from one port");
    let letters = |asked: &Asked| asked.query.queries[0].name.to_ascii()[..12].to_owned();
    let spelled: HashSet<_> = seen.iter().map(letters).collect();
    assert!(spelled.len() > 700, "{} ways to write 4,096", spelled.len());
    // Both halves of each bit: the share of small letters is one half, give or take five standard deviations.
    let small: usize =
        seen.iter().map(|asked| letters(asked).bytes().filter(u8::is_ascii_lowercase).count()).sum();
    let share = small as f64 / (seen.len() * 12) as f64;
    assert!((share - 0.5).abs() < 0.025, "{share}");
}

/// Clients that ask the same at the same time share one exchange: each more would be one more chance for a forger.
#[tokio::test]
async fn k44_equal_questions_are_asked_once() {
    let upstream = Upstream::start(|query: &Message, _: bool| {
        Reaction::Late(Duration::from_millis(300), v4_only(query, 60))
    })
    .await;
    let service = service(&[upstream.addr]).await;
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let addr = service.addr;
            tokio::spawn(async move { ask(addr, "x.test.").await })
        })
        .collect();
    for client in clients {
        assert!(is_right(&client.await.unwrap().0));
    }
    assert_eq!(upstream.asked().len(), 2);
}

/// What only a broken or hostile server sends ends in an answer or an error, in time, and leaves the service whole.
#[tokio::test]
async fn r36_hostile_answers_do_no_harm() {
    let with_record = |query: &Message, owner: &[u8], data: &[u8]| {
        let mut bytes = reply_to(query, ResponseCode::NoError).to_vec().unwrap();
        bytes[7] = 1;
        bytes[11] = 0;
        bytes.truncate(bytes.len() - if query.edns.is_some() { 11 } else { 0 });
        bytes.extend(owner);
        let rtype = u16::from(query.queries[0].query_type);
        bytes.extend(rtype.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    };
    type Hostile = Box<dyn Fn(&Message, bool) -> Reaction + Send + Sync>;
    let truncating = |over_tcp: fn(&Message) -> Reaction| -> Hostile {
        Box::new(move |query, tcp| {
            if tcp {
                return over_tcp(query);
            }
            let mut message = reply_to(query, ResponseCode::NoError);
            message.metadata.truncation = true;
            Reaction::Reply(message)
        })
    };
    let scripts: Vec<(&str, Hostile)> = vec![
        ("pointer to itself", {
            Box::new(move |query, _| {
                let at = 12 + query.queries[0].name.to_ascii().len() as u16 + 1 + 4;
                let pointer = (0xc000 | at).to_be_bytes();
                Reaction::Raw(with_record(query, &pointer, &[0; 16]))
            })
        }),
        ("pointers in a circle", {
            Box::new(move |query, _| {
                let at = 12 + query.queries[0].name.to_ascii().len() as u16 + 1 + 4;
                let mut owner = vec![1, b'x'];
                owner.extend((0xc000 | at).to_be_bytes());
                Reaction::Raw(with_record(query, &owner, &[0; 16]))
            })
        }),
        (
            "forward pointer",
            Box::new(move |query, _| Reaction::Raw(with_record(query, &[0xc0, 0xff], &[0; 16]))),
        ),
        ("length beyond the end", {
            Box::new(|query, _| {
                let mut bytes = v4_only(query, 60).to_vec().unwrap();
                let end = bytes.len().saturating_sub(20);
                bytes.truncate(end);
                Reaction::Raw(bytes)
            })
        }),
        ("counts too high", {
            Box::new(|query, _| {
                let mut bytes = v4_only(query, 60).to_vec().unwrap();
                bytes[6..12].fill(0xff);
                Reaction::Raw(bytes)
            })
        }),
        ("TC without TCP", truncating(|_| Reaction::Silence)),
        ("slow drip", truncating(|query| Reaction::Drip(v4_only(query, 60).to_vec().unwrap()))),
        ("64 KiB", {
            truncating(|query| {
                let mut message = reply_to(query, ResponseCode::NoError);
                let owner = query.queries[0].name.to_ascii();
                message.edns = None;
                message.answers = (0..4000).map(|i| a(&owner, 60, &format!("192.0.2.{}", i % 250))).collect();
                let mut bytes = message.to_vec().unwrap();
                bytes.resize(65_535, 0);
                Reaction::Raw(bytes)
            })
        }),
        // KeyTrap: as many signatures and keys as a message holds. Nobody here tries one against the other.
        ("signatures and keys", {
            truncating(|query| {
                let mut message = reply_to(query, ResponseCode::NoError);
                let owner = query.queries[0].name.to_ascii();
                let of = |code| RData::Unknown { code, rdata: NULL::with(vec![1; 64]) };
                let kinds = [RecordType::RRSIG, RecordType::DNSKEY];
                message.answers = (0..800).map(|n| record(&owner, 60, of(kinds[n % 2]))).collect();
                message.answers.push(a(&owner, 60, "192.0.2.1"));
                message.edns = None;
                let bytes = message.to_vec().unwrap();
                assert!(bytes.len() > 50_000);
                Reaction::Raw(bytes)
            })
        }),
        ("another ID over TCP", truncating(|query| Reaction::Raw(wrong_id(query)))),
        ("another question over TCP", truncating(|query| Reaction::Raw(wrong_question(query)))),
    ];
    for (what, hostile) in scripts {
        let upstream = Upstream::start(move |query: &Message, tcp: bool| {
            // One name is well served, so that there is something to compare.
            if query.queries[0].name.to_ascii().to_lowercase() == "well.test." {
                return good(query, tcp);
            }
            hostile(query, tcp)
        })
        .await;
        let service = Service::usual(&[upstream.addr]).await;
        let (reply, took) = ask(service.addr, "x.test.").await;
        assert!(took < Duration::from_secs(2), "{what}: {took:?}");
        let believed = addresses(&reply);
        assert!(
            believed.iter().all(|(address, _)| !address.contains("bad") && !address.ends_with(":242")),
            "{what}: {believed:?}"
        );
        // What the hostile name may cost is bounded, and it costs the other name nothing: not a question more, no memory.
        let cost = upstream.asked().len();
        assert!(cost <= 4, "{what}: {cost} questions");
        assert!(is_right(&ask(service.addr, "well.test.").await.0), "{what}");
        assert_eq!(upstream.asked().len(), cost + 2, "{what}");
        assert!(service.shared.cache_bytes() <= quick_limits().cache_bytes, "{what}");
        let replied = service.shared.snapshot().iter().map(|(_, n)| n).sum::<u64>();
        assert!(replied > 0 && service.shared.in_flight() == 0, "{what}");
    }
}

/// A server that answers 64 KiB of junk to everything over UDP costs its own questions only.
#[tokio::test]
async fn a_flood_of_strangers_does_not_stop_the_answers() {
    let sent = Arc::new(AtomicUsize::new(0));
    let its = Arc::clone(&sent);
    let upstream = Upstream::start(move |query: &Message, _: bool| {
        let junk = (0..2_000).map(|i: u16| {
            let mut message = forged(query);
            message.metadata.id = query.metadata.id.wrapping_add(i + 1);
            message.to_vec().unwrap()
        });
        let all: Vec<_> = junk.chain([v4_only(query, 60).to_vec().unwrap()]).collect();
        its.fetch_add(all.len(), Ordering::Relaxed);
        Reaction::Each(all)
    })
    .await;
    let service = service(&[upstream.addr]).await;
    for n in 0..5 {
        let (reply, _) = ask(service.addr, &format!("n{n}.test.")).await;
        assert!(
            is_right(&reply) || reply.metadata.response_code == ResponseCode::ServFail,
            "a forged answer was believed: {reply}"
        );
    }
    assert!(sent.load(Ordering::Relaxed) > 10_000);
    assert!(service.counter("upstream_strangers") > 1_000);
}
