//! Real resolvers: unbound and BIND as upstreams, and as DNS64 beside ours on the same scripted names. The comparison
//! prints where they differ (`cargo test --test dns_peers -- --nocapture`).
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops at the first surprise

#[allow(dead_code)] // the bench uses more of it
#[path = "support/resolver.rs"]
mod resolver;
#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use resolver::{Kind, Running, command};
use sampan::io::dns_net::Limits;
use support::*;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The names of the comparison.
fn zone(query: &Message, _tcp: bool) -> Reaction {
    use RecordType as T;
    use ResponseCode as R;
    let owner = query.queries[0].name.to_ascii();
    let negative = |rcode| {
        let mut message = reply_to(query, rcode);
        message.authorities.push(soa("test."));
        message
    };
    let with = |answers| {
        let mut message = reply_to(query, R::NoError);
        message.answers = answers;
        Reaction::Reply(message)
    };
    let v4 = || with(vec![a(&owner, 3600, "198.41.0.4")]);
    match (owner.to_lowercase().as_str(), query.queries[0].query_type) {
        ("dual.test.", T::AAAA) => with(vec![aaaa(&owner, "2001:db8::1")]),
        ("two.test.", T::A) => with(vec![a(&owner, 3600, "198.41.0.4"), a(&owner, 3600, "198.41.0.5")]),
        ("nx.test.", _) | ("anxd.test.", T::AAAA) => Reaction::Reply(negative(R::NXDomain)),
        ("servfail.test.", T::AAAA) => Reaction::Reply(reply_to(query, R::ServFail)),
        ("refused.test.", T::AAAA) => Reaction::Reply(reply_to(query, R::Refused)),
        ("silent.test.", T::AAAA) => Reaction::Silence,
        ("mapped.test." | "maponly.test.", T::AAAA) => with(vec![aaaa(&owner, "::ffff:192.0.2.9")]),
        ("mixed.test.", T::AAAA) => with(vec![aaaa(&owner, "::ffff:192.0.2.9"), aaaa(&owner, "2001:db8::1")]),
        ("cname.test.", T::A) => {
            with(vec![cname(&owner, "aonly.test."), a("aonly.test.", 3600, "198.41.0.4")])
        }
        ("cname.test." | "cnodata.test.", T::AAAA) | ("cnodata.test.", _) => {
            let target =
                if owner.to_lowercase().starts_with("cnodata") { "none.test." } else { "aonly.test." };
            let mut message = negative(R::NoError);
            message.answers.push(cname(&owner, target));
            Reaction::Reply(message)
        }
        ("nosoa.test.", T::AAAA) => with(vec![]),
        ("afail.test.", T::A) => Reaction::Reply(reply_to(query, R::ServFail)),
        ("ttl0.test.", T::A) => with(vec![a(&owner, 0, "198.41.0.4")]),
        (
            "ready.test." | "aonly.test." | "dual.test." | "anxd.test." | "servfail.test." | "refused.test."
            | "silent.test." | "mapped.test." | "mixed.test." | "nosoa.test.",
            T::A,
        ) => v4(),
        _ => Reaction::Reply(negative(R::NoError)),
    }
}

/// What a reply says, as far as it is compared.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// RCODE, then every AAAA of the answer without its TTL.
    Reply(ResponseCode, Vec<String>),
    Nothing,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&match self {
            Self::Nothing => "nothing within 6 s".to_owned(),
            Self::Reply(ResponseCode::NoError, addresses) if addresses.is_empty() => "no data".to_owned(),
            Self::Reply(ResponseCode::NoError, addresses) => addresses.join(" "),
            Self::Reply(rcode, _) => rcode.to_string(),
        })
    }
}

const SYNTHETIC: &str = "2001:db8:64::c629:4";

/// Name, the answer by RFC 6147, whether the TTL may be 60 at most (§5.1.7), else 600.
fn rows() -> Vec<(&'static str, Said, u32)> {
    use ResponseCode::{NXDomain, NoError, ServFail};
    let made = |addresses: &[&str]| Said::Reply(NoError, addresses.iter().map(ToString::to_string).collect());
    vec![
        ("aonly.test.", made(&[SYNTHETIC]), 60),
        ("two.test.", made(&[SYNTHETIC, "2001:db8:64::c629:5"]), 60),
        ("dual.test.", made(&["2001:db8::1"]), 3600),
        ("nx.test.", Said::Reply(NXDomain, vec![]), 0),
        ("anxd.test.", Said::Reply(NXDomain, vec![]), 0),
        ("servfail.test.", made(&[SYNTHETIC]), 600),
        ("refused.test.", made(&[SYNTHETIC]), 600),
        ("silent.test.", made(&[SYNTHETIC]), 600),
        ("mapped.test.", made(&[SYNTHETIC]), 600),
        ("maponly.test.", made(&[]), 0),
        ("mixed.test.", made(&["2001:db8::1"]), 3600),
        ("cname.test.", made(&[SYNTHETIC]), 60),
        ("cnodata.test.", made(&[]), 0),
        ("nodata.test.", made(&[]), 0),
        ("nosoa.test.", made(&[SYNTHETIC]), 600),
        ("afail.test.", Said::Reply(ServFail, vec![]), 0),
        ("ttl0.test.", made(&[SYNTHETIC]), 0),
    ]
}

async fn said(server: SocketAddr, owner: &str) -> (Said, u32) {
    let asked = with_opt(query(owner, RecordType::AAAA));
    let Ok(bytes) = timeout(Duration::from_secs(6), ask_udp_bytes(server, &asked.to_vec().unwrap())).await
    else {
        return (Said::Nothing, 0);
    };
    let reply = Message::from_vec(&bytes.unwrap()).unwrap();
    let mut found = addresses(&reply);
    found.sort_unstable();
    let ttl = found.iter().map(|(_, ttl)| *ttl).max().unwrap_or(0);
    let addresses = found.into_iter().map(|(address, _)| address).collect();
    (Said::Reply(reply.metadata.response_code, addresses), ttl)
}

/// A free port.
fn port() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn start(
    kind: Kind,
    upstream: SocketAddr,
    prefix: Option<&'static str>,
) -> (Running, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let running = spawn_blocking(move || {
        let addr = port();
        let argv = command(kind, addr, upstream, prefix, &path).unwrap();
        Running::start(&argv, addr, None, &path.join("log")).unwrap()
    });
    (running.await.unwrap(), dir)
}

#[tokio::test]
async fn where_unbound_and_bind_differ() {
    let upstream = Upstream::start(zone).await;
    let ours = Service::start("127.0.0.1:0", usual_config(&[upstream.addr]), Limits::default()).await;
    let unbound = start(Kind::Unbound, upstream.addr, Some(OWN)).await;
    let bind = start(Kind::Bind, upstream.addr, Some(OWN)).await;
    let mut right = [0; 3];
    println!("{:<15} {:<46} {:<12} {:<46} BIND", "name", "by RFC 6147", "sampan", "unbound");
    let rows = rows();
    for (owner, expected, most) in &rows {
        let mut cells = Vec::new();
        for (at, server) in [ours.addr, unbound.0.addr, bind.0.addr].into_iter().enumerate() {
            let (got, ttl) = said(server, owner).await;
            let agrees = got == *expected && ttl <= *most;
            right[at] += usize::from(agrees);
            cells.push(if agrees { "as expected".to_owned() } else { format!("{got}, TTL {ttl}") });
        }
        let [sampan, unbound, bind] = &cells[..] else { unreachable!() };
        println!(
            "{owner:<16} {:<44} {sampan:<30} {unbound:<30} {bind:<30}",
            format!("{expected:?} TTL ≤ {most}")
        );
        assert_eq!(sampan, "as expected", "{owner}");
    }
    println!("as expected, of {}: sampan {}, unbound {}, BIND {}", rows.len(), right[0], right[1], right[2]);
    // They are real and reached: the plain rows are right everywhere.
    assert!(right[1] >= 5 && right[2] >= 5, "{right:?}");
}

/// A resolver of another make between us and the names: what it makes of them is synthesised as if it were not there.
#[tokio::test]
async fn unbound_and_bind_as_upstreams() {
    let upstream = Upstream::start(zone).await;
    for kind in [Kind::Unbound, Kind::Bind] {
        let (between, _dir) = start(kind, upstream.addr, None).await;
        let service = Service::start("127.0.0.1:0", usual_config(&[between.addr]), Limits::default()).await;
        for (owner, expected, most) in rows() {
            // How a resolver answers for a server that fails is its own matter, and takes its own time.
            if ["servfail.test.", "refused.test.", "silent.test."].contains(&owner) {
                continue;
            }
            let (got, ttl) = said(service.addr, owner).await;
            assert_eq!(got, expected, "{owner} behind {}", kind.name());
            assert!(ttl <= most, "{owner} behind {}: TTL {ttl}", kind.name());
        }
        let addr = service.addr;
        spawn_blocking(move || matrix(addr)).await.unwrap();
    }
}

/// The same question in many shapes, by `dig` and `kdig`.
fn matrix(server: SocketAddr) {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let shapes: [&[&str]; 9] = [
        &[],
        &["+tcp"],
        &["+noedns"],
        &["+bufsize=512"],
        &["+bufsize=4096"],
        &["+dnssec"],
        &["+noadflag"],
        &["+tcp", "+dnssec"],
        &["+cdflag"],
    ];
    for tool in ["dig", "kdig"] {
        for shape in shapes {
            let out = Command::new(tool)
                .args([&at, "-p", &port])
                .args(shape)
                .args(["AAAA", "cname.test"])
                .output()
                .unwrap_or_else(|error| panic!("{tool}: {error}"));
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(text.contains("status: NOERROR") && text.contains("CNAME"), "{tool} {shape:?}: {text}");
            // A client that validates gets nothing made up (RFC 6147 §5.5).
            let synthesised = !shape.contains(&"+cdflag");
            assert_eq!(text.contains(SYNTHETIC), synthesised, "{tool} {shape:?}: {text}");
        }
    }
}
