//! DNS over TLS and HTTPS, both ways: one service is the resolver that another one asks; `kdig` asks them too.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops at the first surprise

#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use sampan::io::dns_net::{
    Certificate, Change, Config, Limits, ListenSettings, Over, Shared, Trust, Upstream as Resolver, bind, run,
};
use support::*;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// What certificates in these tests are for.
const NAME: &str = "dns.example";

/// A certificate for [`NAME`] and its key, as PEM.
struct Pem {
    certificate: String,
    key: String,
}

impl Pem {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::from_pem(self.certificate.as_bytes()).unwrap()
    }
}

/// Every name has one A record.
fn v4_only(query: &Message, _tcp: bool) -> Reaction {
    let mut message = reply_to(query, ResponseCode::NoError);
    if query.queries[0].query_type == RecordType::A {
        message.answers.push(a(&query.queries[0].name.to_ascii(), 60, "192.0.2.1"));
    } else {
        message.authorities.push(soa("test."));
    }
    Reaction::Reply(message)
}

/// A service that listens in all ways.
struct Server {
    plain: SocketAddr,
    tls: SocketAddr,
    https: SocketAddr,
    shared: Arc<Shared>,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start(upstream: &[SocketAddr], pem: &Pem, limits: Limits) -> Self {
        let any = || vec!["127.0.0.1:0".parse().unwrap()];
        let listen = ListenSettings { addresses: any(), tls: any(), https: any() };
        let bound = bind(&listen, limits.udp_threads).unwrap();
        let plain = bound.addresses().unwrap()[0];
        let (tls, https) = (bound.tls_addresses().unwrap()[0], bound.https_addresses().unwrap()[0]);
        let config = Config { certificate: Some(pem.certificate()), ..usual_config(upstream) };
        let shared = Arc::new(Shared::new(config, limits));
        let (stop, stopped) = watch::channel(false);
        let served = Arc::clone(&shared);
        tokio::spawn(async move { run(bound, served, stopped).await.unwrap() });
        Self { plain, tls, https, shared, _stop: stop }
    }

    fn counter(&self, name: &str) -> u64 {
        self.shared.snapshot().iter().find(|(n, _)| *n == name).unwrap().1
    }
}

fn over_tls(addr: SocketAddr) -> Resolver {
    Resolver { addr, over: Over::Tls { name: NAME.into() } }
}

fn over_https(addr: SocketAddr) -> Resolver {
    Resolver { addr, over: Over::Https { name: NAME.into(), path: "/dns-query".into() } }
}

/// A service that asks only there.
async fn asker(resolver: Resolver, trust: Trust) -> Service {
    let config = Config { upstream: vec![resolver], trust, ..usual_config(&[]) };
    Service::start("127.0.0.1:0", config, quick_limits()).await
}

#[tokio::test]
async fn k48_the_same_answer_over_every_transport() {
    let (authority, pem) = (Upstream::start(v4_only).await, Pem::new());
    let server = Server::start(&[authority.addr], &pem, quick_limits()).await;
    let plain = addresses(&ask_udp(server.plain, &query("x.test.", RecordType::AAAA)).await);
    assert_eq!(plain[0].0, "2001:db8:64::c000:201");
    for resolver in [over_tls(server.tls), over_https(server.https)] {
        let asker = asker(resolver.clone(), pem.trust()).await;
        for n in 0..20 {
            let reply = ask_udp(asker.addr, &query(&format!("n{n}.test."), RecordType::AAAA)).await;
            // The server synthesised; for the asker the address is native.
            assert_eq!(addresses(&reply)[0].0, plain[0].0, "{resolver:?}: {reply}");
        }
        assert_eq!(asker.counter("native"), 20);
    }
    // A and AAAA of each name, on one connection each.
    assert_eq!((server.counter("tls_queries"), server.counter("https_queries")), (40, 40));
    assert_eq!(server.counter("tcp_connections"), 2);
}

#[tokio::test]
async fn only_the_right_name_with_the_right_certificate_is_trusted() {
    let (authority, pem, other) = (Upstream::start(v4_only).await, Pem::new(), Pem::new());
    let server = Server::start(&[authority.addr], &pem, quick_limits()).await;
    let wrong_name = Resolver { addr: server.tls, over: Over::Tls { name: "other.example".into() } };
    for (resolver, trust) in [
        (over_tls(server.tls), other.trust()),
        (over_https(server.https), other.trust()),
        (over_tls(server.tls), Trust::default()),
        (wrong_name, pem.trust()),
    ] {
        let asker = asker(resolver, trust).await;
        let reply = ask_udp(asker.addr, &query("x.test.", RecordType::AAAA)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!(server.counter("tls_queries") + server.counter("https_queries"), 0);
}

#[tokio::test]
async fn a_new_certificate_holds_from_the_next_handshake_on() {
    let (authority, old, new) = (Upstream::start(v4_only).await, Pem::new(), Pem::new());
    let server = Server::start(&[authority.addr], &old, quick_limits()).await;
    let served = async |pem: &Pem, owner: &str| {
        let asker = asker(over_tls(server.tls), pem.trust()).await;
        let reply = ask_udp(asker.addr, &query(owner, RecordType::AAAA)).await;
        reply.metadata.response_code == ResponseCode::NoError
    };
    assert!(served(&old, "a.test.").await && !served(&new, "b.test.").await);
    server.shared.apply([Change::Certificate(Some(new.certificate()))]);
    assert!(!served(&old, "c.test.").await && served(&new, "d.test.").await);
}

#[test]
fn broken_certificates_are_refused_with_a_reason() {
    let (pem, other) = (Pem::new(), Pem::new());
    let certificate = |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes());
    assert!(certificate(&pem.certificate, &pem.key).is_ok());
    for (chain, key) in [
        ("", pem.key.as_str()),
        (&pem.certificate, ""),
        (&pem.key, &pem.certificate),
        (&pem.certificate, &other.key),
    ] {
        assert!(!certificate(chain, key).unwrap_err().to_string().is_empty());
    }
    assert!(Trust::from_pem(b"").is_err() && Trust::from_pem(pem.key.as_bytes()).is_err());
}

/// A connection on which nothing is said, or TLS is never spoken, does not stay.
#[tokio::test]
async fn silent_connections_are_closed_on_every_transport() {
    let limits = Limits {
        tcp_idle: Duration::from_millis(300),
        tls_handshake: Duration::from_millis(300),
        ..quick_limits()
    };
    let server = Server::start(&[], &Pem::new(), limits).await;
    for addr in [server.plain, server.tls, server.https] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let started = Instant::now();
        let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("it stays open");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    assert_eq!(server.counter("tls_failed"), 2);
}

/// What `kdig` prints for an AAAA question, with these words.
fn kdig(addr: SocketAddr, words: &[&str]) -> String {
    let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
    let out = Command::new("kdig")
        .args([&format!("@{ip}"), "-p", &port, "+timeout=5", "+retry=0"])
        .args(words)
        .output()
        .expect("kdig, from knot-dnsutils");
    [out.stdout, out.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
}

/// Another's client: it speaks TLS by GnuTLS and HTTP/2 by nghttp2.
#[tokio::test(flavor = "multi_thread")]
async fn kdig_understands_every_transport() {
    let (authority, pem) = (Upstream::start(v4_only).await, Pem::new());
    let server = Server::start(&[authority.addr], &pem, quick_limits()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &pem.certificate).unwrap();
    let (ca, host) = (format!("+tls-ca={}", file.display()), format!("+tls-hostname={NAME}"));
    for (addr, words) in [
        (server.plain, vec![]),
        (server.plain, vec!["+tcp"]),
        (server.plain, vec!["+tcp", "+keepopen"]),
        (server.tls, vec!["+tls", ca.as_str(), host.as_str()]),
        (server.https, vec!["+https=/dns-query", ca.as_str(), host.as_str()]),
        (server.https, vec!["+https=/dns-query", "+https-get", ca.as_str(), host.as_str()]),
    ] {
        let words: Vec<_> = words.into_iter().chain(["AAAA", "x.test"]).collect();
        let said = tokio::task::spawn_blocking({
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            move || kdig(addr, &words.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .unwrap();
        assert!(
            said.contains("status: NOERROR") && said.contains("2001:db8:64::c000:201"),
            "{words:?}: {said}"
        );
    }
    let wrong_path = tokio::task::spawn_blocking({
        let addr = server.https;
        move || kdig(addr, &["+https=/elsewhere", "AAAA", "x.test"])
    });
    assert!(!wrong_path.await.unwrap().contains("2001:db8:64::c000:201"));
}
