//! A scripted upstream, the service under test and a small client, all on loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NULL, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sampan::dns64::{Policy, Settings};
use sampan::io::dns_net::{Config, Limits, ListenSettings, Shared, bind, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The translation prefix of most tests.
pub const OWN: &str = "2001:db8:64::/96";
/// How long a client waits before it says that nothing came.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What the upstream does with a question.
pub enum Reaction {
    /// Answers.
    Reply(Message),
    /// Answers after a while.
    Late(Duration, Message),
    /// Answers with these bytes.
    Raw(Vec<u8>),
    /// Sends several datagrams, one after the other; over TCP several messages.
    Each(Vec<Vec<u8>>),
    /// The first datagram comes from another port, the others from the right one.
    Elsewhere(Vec<u8>, Vec<u8>),
    /// One byte every 50 ms, over TCP.
    Drip(Vec<u8>),
    /// Does not answer.
    Silence,
}

/// The script: question and whether it came over TCP.
pub trait Script: Fn(&Message, bool) -> Reaction + Send + Sync + 'static {}

impl<F: Fn(&Message, bool) -> Reaction + Send + Sync + 'static> Script for F {}

/// A question as an upstream saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub from: SocketAddr,
    pub query: Message,
    pub tcp: bool,
}

type Log = Arc<Mutex<Vec<Asked>>>;

/// An upstream that follows a script and remembers what it was asked.
pub struct Upstream {
    pub addr: SocketAddr,
    log: Log,
    tasks: [JoinHandle<()>; 2],
}

impl Upstream {
    pub async fn start(script: impl Script) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let (log, script) = (Log::default(), Arc::new(script));
        let (udp_log, tcp_log) = (Arc::clone(&log), Arc::clone(&log));
        let tcp_script = Arc::clone(&script);
        let over_udp = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (len, from) = udp.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..len]).unwrap();
                udp_log.lock().unwrap().push(Asked { from, query: query.clone(), tcp: false });
                let (udp, script) = (Arc::clone(&udp), Arc::clone(&script));
                tokio::spawn(async move { react_udp(script(&query, false), &udp, from).await });
            }
        });
        let over_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, from) = tcp.accept().await.unwrap();
                let (log, script) = (Arc::clone(&tcp_log), Arc::clone(&tcp_script));
                tokio::spawn(async move {
                    while let Some(query) = read_framed(&mut stream).await {
                        let query = Message::from_vec(&query).unwrap();
                        log.lock().unwrap().push(Asked { from, query: query.clone(), tcp: true });
                        react_tcp(script(&query, true), &mut stream).await;
                    }
                });
            }
        });
        Self { addr, log, tasks: [over_udp, over_tcp] }
    }

    /// Name, type and "over TCP" of every question so far.
    pub fn asked(&self) -> Vec<(String, RecordType, bool)> {
        let short = |asked: Asked| {
            let question = &asked.query.queries[0];
            (question.name.to_ascii().to_lowercase(), question.query_type, asked.tcp)
        };
        self.seen().into_iter().map(short).collect()
    }

    /// Every question so far, as it came.
    pub fn seen(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn react_udp(reaction: Reaction, udp: &UdpSocket, to: SocketAddr) {
    let datagrams = match reaction {
        Reaction::Reply(message) => vec![message.to_vec().unwrap()],
        Reaction::Late(wait, message) => {
            tokio::time::sleep(wait).await;
            vec![message.to_vec().unwrap()]
        }
        Reaction::Raw(bytes) | Reaction::Drip(bytes) => vec![bytes],
        Reaction::Each(all) => all,
        Reaction::Elsewhere(first, second) => {
            let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            other.send_to(&first, to).await.unwrap();
            vec![second]
        }
        Reaction::Silence => vec![],
    };
    for datagram in datagrams {
        udp.send_to(&datagram, to).await.unwrap();
    }
}

/// The client may hang up at any time.
async fn react_tcp(reaction: Reaction, stream: &mut TcpStream) {
    let messages = match reaction {
        Reaction::Reply(message) => vec![message.to_vec().unwrap()],
        Reaction::Late(wait, message) => {
            tokio::time::sleep(wait).await;
            vec![message.to_vec().unwrap()]
        }
        Reaction::Raw(bytes) => vec![bytes],
        Reaction::Each(all) => all,
        Reaction::Elsewhere(_, second) => vec![second],
        Reaction::Drip(bytes) => {
            for byte in framed(&bytes) {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            vec![]
        }
        Reaction::Silence => vec![],
    };
    for message in messages {
        let _ = stream.write_all(&framed(&message)).await;
    }
}

/// The service under test.
pub struct Service {
    pub addr: SocketAddr,
    pub shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Service {
    pub async fn start(listen: &str, config: Config, limits: Limits) -> Self {
        let listen = ListenSettings { addresses: vec![listen.parse().unwrap()], ..ListenSettings::default() };
        let bound = bind(&listen, limits.udp_threads).unwrap();
        let addr = bound.addresses().unwrap()[0];
        let shared = Arc::new(Shared::new(config, limits));
        let (stop, stopped) = watch::channel(false);
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move { run(bound, served, stopped).await.unwrap() });
        Self { addr, shared, stop, task }
    }

    /// On 127.0.0.1 with the usual prefix; 192.0.2.0/24 may be synthesised.
    pub async fn usual(upstream: &[SocketAddr]) -> Self {
        Self::start("127.0.0.1:0", usual_config(upstream), quick_limits()).await
    }

    /// The value of one counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.shared.snapshot().iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// Stops and waits until the ports are free.
    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

pub fn usual_config(upstream: &[SocketAddr]) -> Config {
    let policy = Policy {
        prefixes: vec![OWN.parse().unwrap()],
        allow: vec!["192.0.2.0/24".parse().unwrap()],
        ..Policy::default()
    };
    let dns64 = Settings { policy, ..Settings::default() };
    Config { dns64, upstream: upstream.iter().copied().map(Into::into).collect(), ..Config::default() }
}

/// Shorter than the defaults, so that tests of silence are quick.
pub fn quick_limits() -> Limits {
    Limits {
        deadline: Duration::from_millis(1_500),
        aaaa_budget: Duration::from_millis(500),
        cache_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// A query with a fixed ID.
pub fn query(owner: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x5a5a, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(name(owner), rtype));
    message
}

pub fn with_opt(mut message: Message) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.edns = Some(edns);
    message
}

/// Sends bytes over UDP and waits for one reply.
pub async fn ask_udp_bytes(server: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await.unwrap();
    // A connected socket only takes replies from the address that was asked.
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = [0; 4096];
    let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.ok()?.unwrap();
    Some(buffer[..len].to_vec())
}

pub async fn ask_udp(server: SocketAddr, query: &Message) -> Message {
    let bytes = ask_udp_bytes(server, &query.to_vec().unwrap()).await.expect("a reply over UDP");
    Message::from_vec(&bytes).unwrap()
}

pub async fn ask_tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    write_framed(&mut stream, &query.to_vec().unwrap()).await;
    let reply = timeout(PATIENCE, read_framed(&mut stream)).await.unwrap().expect("a reply over TCP");
    Message::from_vec(&reply).unwrap()
}

pub async fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let len = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; usize::from(len)];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

pub async fn write_framed(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(&framed(bytes)).await.unwrap();
}

/// With its length in front (RFC 1035 §4.2.2).
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend(bytes);
    framed
}

/// The reply to `query` with this RCODE and OPT, without records.
pub fn reply_to(query: &Message, rcode: ResponseCode) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.metadata.checking_disabled = query.metadata.checking_disabled;
    message.metadata.response_code = rcode;
    message.queries = query.queries.clone();
    if query.edns.is_some() {
        message.edns = Some(Edns::new());
    }
    message
}

pub fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

pub fn a(owner: &str, ttl: u32, addr: &str) -> Record {
    record(owner, ttl, RData::A(A(addr.parse().unwrap())))
}

pub fn aaaa(owner: &str, addr: &str) -> Record {
    record(owner, 3600, RData::AAAA(AAAA(addr.parse().unwrap())))
}

pub fn cname(owner: &str, target: &str) -> Record {
    record(owner, 3600, RData::CNAME(CNAME(name(target))))
}

pub fn dname(owner: &str, target: &str) -> Record {
    let mut data = Vec::new();
    for label in name(target).iter() {
        data.push(label.len() as u8);
        data.extend(label);
    }
    data.push(0);
    record(owner, 3600, RData::Unknown { code: RecordType::DNAME, rdata: NULL::with(data) })
}

pub fn ptr(owner: &str, target: &str) -> Record {
    record(owner, 3600, RData::PTR(PTR(name(target))))
}

/// RR TTL 60, MINIMUM 30.
pub fn soa(zone: &str) -> Record {
    record(zone, 60, RData::SOA(SOA::new(name("ns.test."), name("host.test."), 1, 2, 3, 4, 30)))
}

/// Address and TTL of every AAAA in the answer.
pub fn addresses(message: &Message) -> Vec<(String, u32)> {
    let addr =
        |r: &Record| if let RData::AAAA(addr) = &r.data { Some((addr.0.to_string(), r.ttl)) } else { None };
    message.answers.iter().filter_map(addr).collect()
}

/// Codes of the Extended DNS Errors.
pub fn extended_errors(message: &Message) -> Vec<u16> {
    let options = message.edns.iter().flat_map(|edns| edns.options().as_ref().iter());
    let codes = options.filter_map(|(code, option)| {
        let EdnsOption::Unknown(_, data) = option else { return None };
        (u16::from(*code) == 15).then(|| u16::from_be_bytes([data[0], data[1]]))
    });
    codes.collect()
}
