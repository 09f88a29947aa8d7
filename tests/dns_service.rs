//! The DNS service under bad conditions: dead, slow, truncating and lying upstreams, garbage, overload, strangers,
//! several addresses, reload and stop.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops at the first surprise

#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use sampan::dns64::{self, Clients};
use sampan::io::dns_net::{Change, Config, Limits};
use support::*;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Every name has one A record and no AAAA.
fn v4_only(query: &Message, _tcp: bool) -> Reaction {
    let mut message = reply_to(query, ResponseCode::NoError);
    // Not through text: a name may have any octets.
    let mut record = a(".", 60, "192.0.2.1");
    record.name = query.queries[0].name.clone();
    if query.queries[0].query_type == RecordType::A {
        message.answers.push(record);
    } else {
        message.authorities.push(soa("test."));
    }
    Reaction::Reply(message)
}

fn silent(_: &Message, _: bool) -> Reaction {
    Reaction::Silence
}

/// Both answers come, each after 400 ms.
fn slow(query: &Message, tcp: bool) -> Reaction {
    let Reaction::Reply(message) = v4_only(query, tcp) else { unreachable!() };
    Reaction::Late(Duration::from_millis(400), message)
}

/// AAAA comes late, A is empty at once.
fn slow_aaaa(query: &Message, _tcp: bool) -> Reaction {
    let mut message = reply_to(query, ResponseCode::NoError);
    if query.queries[0].query_type == RecordType::AAAA {
        message.answers.push(aaaa(&query.queries[0].name.to_ascii(), "2001:db8::1"));
        return Reaction::Late(Duration::from_millis(700), message);
    }
    message.authorities.push(soa("test."));
    Reaction::Reply(message)
}

/// 60 A records; over UDP only TC.
fn large(query: &Message, tcp: bool) -> Reaction {
    let mut message = reply_to(query, ResponseCode::NoError);
    let owner = query.queries[0].name.to_ascii();
    if query.queries[0].query_type == RecordType::A {
        if tcp {
            message.answers = (1..=60).map(|i| a(&owner, 60, &format!("192.0.2.{i}"))).collect();
        } else {
            message.metadata.truncation = true;
        }
    }
    Reaction::Reply(message)
}

/// FORMERR without OPT to every query with OPT.
fn before_edns(query: &Message, tcp: bool) -> Reaction {
    if query.edns.is_some() {
        let mut message = reply_to(query, ResponseCode::FormErr);
        message.edns = None;
        return Reaction::Reply(message);
    }
    v4_only(query, tcp)
}

fn refuses(query: &Message, _tcp: bool) -> Reaction {
    Reaction::Reply(reply_to(query, ResponseCode::Refused))
}

/// Right ID, then nonsense.
fn broken(query: &Message, _tcp: bool) -> Reaction {
    let mut bytes = query.metadata.id.to_be_bytes().to_vec();
    bytes.extend([0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 3, b'x']);
    Reaction::Raw(bytes)
}

/// An answer to another question.
fn lying(query: &Message, tcp: bool) -> Reaction {
    let mut other = query.clone();
    other.queries[0].name = name("other.test.");
    v4_only(&other, tcp)
}

/// An address where nobody listens.
async fn dead() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn x() -> Message {
    query("x.test.", RecordType::AAAA)
}

#[tokio::test]
async fn no_usable_upstream_is_servfail_in_bounded_time() {
    let (broken, lying) = (Upstream::start(broken).await, Upstream::start(lying).await);
    let silent = Upstream::start(silent).await;
    for upstream in [vec![], vec![dead().await], vec![broken.addr], vec![lying.addr], vec![silent.addr]] {
        let limits = Limits { deadline: Duration::from_millis(400), ..quick_limits() };
        let service = Service::start("127.0.0.1:0", usual_config(&upstream), limits).await;
        let started = Instant::now();
        let reply = ask_udp(service.addr, &with_opt(x())).await;
        assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(extended_errors(&reply), [22]);
        assert_eq!(service.counter("servfail"), 1);
        let reply = ask_tcp(service.addr, &query("ipv4only.arpa.", RecordType::AAAA)).await;
        assert_eq!(reply.answers.len(), 2);
    }
}

#[tokio::test]
async fn the_next_upstream_takes_over() {
    let (refusing, good) = (Upstream::start(refuses).await, Upstream::start(v4_only).await);
    for bad in [dead().await, refusing.addr] {
        let service = Service::usual(&[bad, good.addr]).await;
        assert_eq!(addresses(&ask_udp(service.addr, &x()).await).len(), 1);
        // The bad one rests now, so the next question does not wait for it.
        let started = Instant::now();
        let next = query("y.test.", RecordType::AAAA);
        assert_eq!(addresses(&ask_udp(service.addr, &next).await).len(), 1);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    }
    // Four questions are the most for one of a client's, so the third server has its turn with the next one.
    let service = Service::usual(&[dead().await, refusing.addr, good.addr]).await;
    ask_udp(service.addr, &x()).await;
    assert_eq!(addresses(&ask_udp(service.addr, &query("y.test.", RecordType::AAAA)).await).len(), 1);
    // Nobody knows better: the error itself is handed on.
    let service = Service::usual(&[refusing.addr]).await;
    let reply = ask_udp(service.addr, &x()).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn k14_both_questions_are_asked_at_once() {
    let upstream = Upstream::start(slow).await;
    let service = Service::usual(&[upstream.addr]).await;
    let started = Instant::now();
    assert_eq!(addresses(&ask_udp(service.addr, &x()).await).len(), 1);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_millis(750), "{took:?}");
    assert_eq!(upstream.asked().len(), 2);
}

#[tokio::test]
async fn a_slow_aaaa_is_waited_for_when_a_has_nothing() {
    let upstream = Upstream::start(slow_aaaa).await;
    let service = Service::usual(&[upstream.addr]).await;
    let reply = ask_udp(service.addr, &x()).await;
    assert_eq!(addresses(&reply), [("2001:db8::1".to_owned(), 3600)]);
    assert_eq!(service.counter("aaaa_given_up"), 0);
}

#[tokio::test]
async fn k19_truncation_both_ways() {
    let upstream = Upstream::start(large).await;
    let service = Service::usual(&[upstream.addr]).await;
    for (asked, limit) in [(x(), 512), (with_opt(x()), 1232)] {
        let bytes = ask_udp_bytes(service.addr, &asked.to_vec().unwrap()).await.unwrap();
        assert!(bytes.len() <= limit);
        assert!(Message::from_vec(&bytes).unwrap().metadata.truncation);
        let reply = ask_tcp(service.addr, &asked).await;
        assert!(!reply.metadata.truncation);
        assert_eq!(addresses(&reply).len(), 60);
    }
    // Over TCP it came from the cache.
    assert_eq!((service.counter("truncated_replies"), service.counter("upstream_tcp")), (2, 2));
    assert!(upstream.asked().contains(&("x.test.".to_owned(), RecordType::A, true)));
}

#[tokio::test]
async fn an_upstream_from_before_edns_is_asked_without() {
    let upstream = Upstream::start(before_edns).await;
    let service = Service::usual(&[upstream.addr]).await;
    assert_eq!(addresses(&ask_udp(service.addr, &x()).await), [("2001:db8:64::c000:201".to_owned(), 30)]);
}

#[tokio::test]
async fn garbage_gets_an_error_or_silence_and_harms_nobody() {
    let upstream = Upstream::start(v4_only).await;
    let service = Service::usual(&[upstream.addr]).await;
    let good = with_opt(x()).to_vec().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(service.addr).await.unwrap();
    // A fixed linear congruence is random enough and repeats.
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    let (mut sent, mut expected) = (0, 0);
    for round in 0..300 {
        let bytes: Vec<u8> = match round % 3 {
            0 => (0..usize::from(random())).map(|_| random()).collect(),
            1 => good[..usize::from(random()) % good.len()].to_vec(),
            _ => {
                let mut bytes = good.clone();
                let at = usize::from(random()) % 12 + 2;
                bytes[at] = random();
                bytes
            }
        };
        sent += 1;
        expected += u32::from(bytes.len() >= 12 && bytes[2] & 0x80 == 0);
        client.send(&bytes).await.unwrap();
        if round % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let mut got = 0;
    let mut buffer = [0; 2048];
    while let Ok(len) = timeout(Duration::from_millis(300), client.recv(&mut buffer)).await {
        assert!(len.unwrap() >= 12 && buffer[2] & 0x80 != 0);
        got += 1;
    }
    assert_eq!(got, expected);
    assert_eq!(service.counter("udp_queries"), sent);
    for bytes in [&b""[..], b"\0\0", b"\0\x05abc", b"\xff\xff\0\0\0"] {
        let mut stream = TcpStream::connect(service.addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
    }
    assert_eq!(addresses(&ask_udp(service.addr, &x()).await).len(), 1);
    assert_eq!(addresses(&ask_tcp(service.addr, &x()).await).len(), 1);
}

/// Two services that complain to each other would never end (CVE-2024-2169): a reply of any kind gets nothing, and so
/// does what claims to come from port 0.
#[tokio::test]
async fn r29_replies_are_never_answered() {
    let upstream = Upstream::start(v4_only).await;
    let service = Service::usual(&[upstream.addr]).await;
    let good = with_opt(x()).to_vec().unwrap();
    // From good answers to complaints: what this service says itself, and any RCODE under any opcode.
    let mut replies = Vec::new();
    let other_opcode: Vec<u8> = good[..2].iter().copied().chain([0x28]).chain(good[3..].to_vec()).collect();
    for asked in [&good[..], &good[..20], &other_opcode] {
        replies.push(ask_udp_bytes(service.addr, asked).await.expect("a reply"));
    }
    for flags in 0..=0x7f {
        let mut bytes = good.clone();
        (bytes[2], bytes[3]) = (0x80 | flags, flags & 0xf);
        replies.push(bytes);
    }
    let before = service.counter("ignored");
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(service.addr).await.unwrap();
    for (n, reply) in replies.iter().enumerate() {
        client.send(reply).await.unwrap();
        if n % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(timeout(Duration::from_millis(300), client.recv(&mut [0; 2048])).await.is_err());
    assert_eq!(service.counter("ignored") - before, replies.len() as u64);
    // Nothing of it went further, either.
    assert_eq!(upstream.asked().len(), 2);
}

#[tokio::test]
async fn too_many_questions_are_dropped_and_counted() {
    let upstream = Upstream::start(silent).await;
    let limits = Limits { in_flight: 2, deadline: Duration::from_millis(800), ..quick_limits() };
    let service = Service::start("127.0.0.1:0", usual_config(&[upstream.addr]), limits).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(service.addr).await.unwrap();
    for _ in 0..5 {
        client.send(&x().to_vec().unwrap()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((service.shared.in_flight(), service.counter("busy")), (2, 3));
    let reply = ask_tcp(service.addr, &x()).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    // What needs no upstream is answered all the same.
    let reply = ask_udp(service.addr, &query("ipv4only.arpa.", RecordType::AAAA)).await;
    assert_eq!(reply.answers.len(), 2);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!((service.shared.in_flight(), service.counter("servfail")), (0, 2));
}

#[tokio::test]
async fn k39_many_queries_on_one_connection_overtake_each_other() {
    fn mixed(query: &Message, tcp: bool) -> Reaction {
        let first = query.queries[0].name.to_ascii().to_lowercase().starts_with("slow");
        let Reaction::Reply(message) = v4_only(query, tcp) else { unreachable!() };
        if first { Reaction::Late(Duration::from_millis(700), message) } else { Reaction::Reply(message) }
    }
    let upstream = Upstream::start(mixed).await;
    let service = Service::usual(&[upstream.addr]).await;
    let mut stream = TcpStream::connect(service.addr).await.unwrap();
    for i in 0..100u16 {
        let mut asked = query(&format!("{}{i}.test.", if i == 0 { "slow" } else { "n" }), RecordType::AAAA);
        asked.metadata.id = i;
        write_framed(&mut stream, &asked.to_vec().unwrap()).await;
    }
    // The client has nothing more to say; its answers still come.
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    let mut order = Vec::new();
    while let Some(bytes) = timeout(PATIENCE, read_framed(&mut stream)).await.unwrap() {
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(addresses(&reply).len(), 1);
        order.push(reply.metadata.id);
    }
    assert_ne!(order.first(), Some(&0));
    order.sort_unstable();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn idle_and_superfluous_connections_are_closed() {
    let limits = Limits { tcp_idle: Duration::from_millis(200), tcp_per_client: 2, ..quick_limits() };
    let service = Service::start("127.0.0.1:0", usual_config(&[]), limits).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(TcpStream::connect(service.addr).await.unwrap());
    }
    let started = Instant::now();
    for stream in &mut streams {
        assert!(timeout(PATIENCE, read_framed(stream)).await.unwrap().is_none());
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!((service.counter("tcp_connections"), service.counter("tcp_refused")), (2, 1));
}

#[tokio::test]
async fn changes_hold_from_the_next_question_on() {
    let (first, second) = (Upstream::start(v4_only).await, Upstream::start(v4_only).await);
    let service = Service::usual(&[first.addr]).await;
    assert_eq!(addresses(&ask_udp(service.addr, &x()).await)[0].0, "2001:db8:64::c000:201");
    let mut renumbered = usual_config(&[]).dns64;
    renumbered.policy.prefixes = vec!["2001:db8:65::/96".parse().unwrap()];
    service.shared.apply([
        Change::Dns64(dns64::Change::Replace(Box::new(renumbered.clone()))),
        Change::Upstream(vec![second.addr.into()]),
    ]);
    assert_eq!(addresses(&ask_udp(service.addr, &x()).await)[0].0, "2001:db8:65::c000:201");
    assert_eq!((first.asked().len(), second.asked().len()), (2, 2));
    renumbered.policy.allow = vec![];
    service.shared.apply([Change::Dns64(dns64::Change::Replace(Box::new(renumbered)))]);
    assert!(ask_udp(service.addr, &x()).await.answers.is_empty());
    assert_eq!(service.shared.config().upstream, [second.addr.into()]);
}

#[tokio::test]
async fn replies_leave_from_the_address_that_was_asked() {
    let config = usual_config(&[]);
    let service = Service::start("0.0.0.0:0", config, quick_limits()).await;
    // The client's socket is connected: a reply from 127.0.0.1 would not reach it.
    for host in ["127.0.0.1", "127.0.0.2", "127.8.9.10"] {
        let server = SocketAddr::new(host.parse().unwrap(), service.addr.port());
        let reply = ask_udp(server, &query("ipv4only.arpa.", RecordType::AAAA)).await;
        assert_eq!(reply.answers.len(), 2, "{host}");
    }
}

#[tokio::test]
async fn stop_frees_the_ports() {
    let upstream = Upstream::start(silent).await;
    let service = Service::usual(&[upstream.addr]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&x().to_vec().unwrap(), service.addr).await.unwrap();
    let _open = TcpStream::connect(service.addr).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(service.shared.in_flight(), 1);
    let (addr, shared) = (service.addr, service.shared.clone());
    timeout(Duration::from_millis(500), service.stop()).await.unwrap();
    assert_eq!(shared.in_flight(), 0);
    Service::start(&addr.to_string(), usual_config(&[]), quick_limits()).await;
}

/// Runs `ip` with these arguments.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("the ip command");
    assert!(status.success(), "ip {arguments}");
}

/// Waits until a new address can be reached: for a moment the kernel may have no route for it and lose what is sent.
fn wait_for(host: &str) {
    let socket = std::net::UdpSocket::bind(format!("[{host}]:0")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let own = socket.local_addr().unwrap();
    let arrives = |_| socket.send_to(b"?", own).is_ok() && socket.recv(&mut [0]).is_ok();
    // Several times in a row, on sockets that the system looks up anew.
    assert!((0..100).map(arrives).filter(|arrived| *arrived).count() >= 50, "{host} cannot be reached");
}

/// In a network namespace of its own (needs root): several IPv6 addresses on one wildcard socket, and strangers.
#[test]
fn r29_r31_ipv6_addresses_and_strangers_in_a_namespace() {
    let inside = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
        ip("link set lo up");
        for host in ["53", "54", "99"] {
            ip(&format!("addr add fd00:5a::{host}/128 dev lo nodad"));
        }
        for host in ["fd00:5a::53", "fd00:5a::54", "fd00:5a::99", "::1"] {
            wait_for(host);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(in_the_namespace());
    };
    std::thread::spawn(inside).join().unwrap();
}

async fn in_the_namespace() {
    let clients: Clients = ["fd00:5a::50/124".parse().unwrap()].into_iter().collect();
    let usual = usual_config(&[]);
    let config = Config { dns64: dns64::Settings { clients, ..usual.dns64 }, ..usual };
    let service = Service::start("[::]:53", config, quick_limits()).await;
    let asked = with_opt(query("ipv4only.arpa.", RecordType::AAAA));
    for host in ["fd00:5a::53", "fd00:5a::54", "::1"] {
        let server = SocketAddr::new(host.parse().unwrap(), 53);
        assert_eq!(ask_udp(server, &asked).await.answers.len(), 2, "{host}");
        assert_eq!(ask_tcp(server, &asked).await.answers.len(), 2, "{host}");
    }
    let stranger = UdpSocket::bind("[fd00:5a::99]:0").await.unwrap();
    stranger.connect("[fd00:5a::53]:53").await.unwrap();
    // With OPT and without; nothing is served, and no byte more comes back than went in.
    let kinds = [RecordType::AAAA, RecordType::A, RecordType::ANY, RecordType::DNSKEY];
    let of_kind = |kind| [query("ipv4only.arpa.", kind), with_opt(query("large.test.", kind))];
    let asked: Vec<_> = kinds.into_iter().flat_map(of_kind).collect();
    for asked in &asked {
        let sent = asked.to_vec().unwrap();
        stranger.send(&sent).await.unwrap();
        let mut buffer = [0; 512];
        let len = timeout(PATIENCE, stranger.recv(&mut buffer)).await.unwrap().unwrap();
        assert!(len <= sent.len(), "{len} bytes for {}", sent.len());
        let reply = Message::from_vec(&buffer[..len]).unwrap();
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::Refused, 0));
    }
    from_port_0(&asked[0].to_vec().unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((service.counter("receive_failed"), service.counter("not_allowed")), (1, asked.len() as u64));
    let stranger = tokio::net::TcpSocket::new_v6().unwrap();
    stranger.bind("[fd00:5a::99]:0".parse().unwrap()).unwrap();
    let mut stream = stranger.connect("[fd00:5a::53]:53".parse().unwrap()).await.unwrap();
    assert!(timeout(PATIENCE, read_framed(&mut stream)).await.unwrap().is_none());
    assert_eq!(service.counter("tcp_refused"), 1);
}

/// Sends a query of a client that is served from port 0, which no socket has.
fn from_port_0(query: &[u8]) {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, socket,
    };
    let [from, to] =
        ["[fd00:5a::54]:0", "[fd00:5a::53]:0"].map(|at| at.parse::<std::net::SocketAddrV6>().unwrap());
    let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::Udp).unwrap();
    nix::sys::socket::bind(raw.as_raw_fd(), &SockaddrIn6::from(from)).unwrap();
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv6(from.ip().octets(), to.ip().octets(), 64).udp(0, 53);
    builder.write(&mut packet, query).unwrap();
    // The system adds the IPv6 header.
    let datagram = &packet[40..];
    let sent = sendto(raw.as_raw_fd(), datagram, &SockaddrIn6::from(to), MsgFlags::empty());
    assert_eq!(sent, Ok(datagram.len()));
}
