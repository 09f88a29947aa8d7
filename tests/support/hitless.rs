//! Established flows under load while something happens to the gateway: what is lost, what is reset, what changes.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::unistd::Pid;
use sampan::lab::plan::{Plan, SERVER};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::time::{MissedTickBehavior, interval_at, timeout};

use crate::support::TestLab;

const PORT: u16 = 7300;
const SERVICE: &str = "gateway";
/// How long answers may still come when the load has ended.
const REST: Duration = Duration::from_secs(3);

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Connections, and as many UDP flows.
    pub flows: usize,
    /// Addresses of the client that have them.
    pub hosts: usize,
    /// Questions of each flow per second.
    pub rate: f64,
    /// From the moment when all flows are open.
    pub time: Duration,
}

impl Size {
    /// From one question to the next.
    fn period(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate)
    }
}

/// What happens when a quarter of the time is over.
#[derive(Clone, Debug)]
pub enum Event {
    Nothing,
    /// `kill -9`, and a start so much later.
    Kill(Duration),
    /// SIGTERM, and a start of this build.
    Upgrade(PathBuf),
    /// So many reloads.
    Reloads(usize),
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tcp_reset: usize,
    /// Connections from which not every byte came back.
    pub tcp_incomplete: usize,
    pub udp_sent: usize,
    pub udp_lost: usize,
    /// Questions that a UDP flow asked per second. Fewer than wanted when this machine cannot do more.
    pub pace: f64,
    /// Mappings before the event, and those of them that are not there any more at the end.
    pub mappings: usize,
    pub changed: usize,
    /// Of these, those of UDP.
    pub udp_changed: usize,
    /// From the start of the new process until a flow that was not there before gets its first answer.
    pub new_flow: Option<Duration>,
    /// Flows that the fast path carries at the end.
    pub riding: usize,
}

/// Everything that the flows tell each other about.
struct Shared {
    begin: tokio::time::Instant,
    open: AtomicUsize,
    end: AtomicBool,
    sent: AtomicUsize,
    back: AtomicUsize,
    reset: AtomicUsize,
    incomplete: AtomicUsize,
}

pub fn run(lab: &mut TestLab, size: Size, event: &Event) -> Outcome {
    let zero = || AtomicUsize::new(0);
    let shared = Arc::new(Shared {
        begin: tokio::time::Instant::now(),
        open: zero(),
        end: AtomicBool::new(false),
        sent: zero(),
        back: zero(),
        reset: zero(),
        incomplete: zero(),
    });
    for host in 0..size.hosts {
        lab.on(
            "client1",
            &["ip", "address", "add", &format!("{}/64", address(host)), "dev", "eth0", "nodad"],
        );
    }
    let server = serve(lab, &shared);
    let client = ask(lab, size, &shared);
    let since = Instant::now();
    while shared.open.load(Ordering::SeqCst) < 2 * size.flows {
        assert!(since.elapsed() < Duration::from_secs(60), "the flows do not open");
        sleep(Duration::from_millis(20));
    }
    let count = |n: &AtomicUsize| n.load(Ordering::SeqCst);
    let (since, sent) = (Instant::now(), count(&shared.sent));
    let before = mappings(lab);
    sleep((size.time / 4).saturating_sub(since.elapsed()));
    let new_flow = happen(lab, event);
    let rest = size.time.saturating_sub(since.elapsed());
    sleep(rest);
    let pace = (count(&shared.sent) - sent) as f64 / since.elapsed().as_secs_f64() / size.flows as f64;
    let after = mappings(lab);
    let changed: Vec<_> = before.difference(&after).collect();
    let rows = rows(lab, "sessions");
    let riding = rows.iter().filter(|row| row["dst4_port"] == PORT && row["path"] == "fast").count();
    shared.end.store(true, Ordering::SeqCst);
    client.join().unwrap();
    server.join().unwrap();
    Outcome {
        tcp_reset: count(&shared.reset),
        tcp_incomplete: count(&shared.incomplete),
        udp_sent: count(&shared.sent),
        udp_lost: count(&shared.sent) - count(&shared.back),
        pace,
        mappings: before.len(),
        changed: changed.len(),
        udp_changed: changed.iter().filter(|row| row.starts_with(r#""udp""#)).count(),
        new_flow,
        riding,
    }
}

fn happen(lab: &mut TestLab, event: &Event) -> Option<Duration> {
    let pause = match event {
        Event::Nothing => return None,
        Event::Reloads(count) => {
            for _ in 0..*count {
                lab.sampan(&["reload"]).unwrap().check().unwrap();
            }
            return None;
        }
        Event::Kill(pause) => {
            signal(lab, Signal::SIGKILL);
            *pause
        }
        Event::Upgrade(other) => {
            signal(lab, Signal::SIGTERM);
            let program = lab.options().sampan.clone();
            std::fs::remove_file(&program).unwrap();
            std::fs::copy(other, &program).unwrap();
            Duration::ZERO
        }
    };
    sleep(pause);
    let start = Instant::now();
    let prober = probe(lab, start);
    lab.restart_gateway().unwrap();
    Some(prober.join().unwrap())
}

fn signal(lab: &mut TestLab, signal: Signal) {
    let pid = lab.service_pid(SERVICE).unwrap();
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    assert!(lab.wait_service(SERVICE, Duration::from_secs(10)).unwrap());
}

/// New flows, one after another, until one gets an answer.
fn probe(lab: &TestLab, start: Instant) -> JoinHandle<Duration> {
    let (client, to) = (lab.node("client1"), server6(lab));
    thread::spawn(move || {
        let ask = move || {
            while start.elapsed() < Duration::from_secs(30) {
                let socket = StdUdpSocket::bind((address(0), 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                // Without a gateway the way may be refused.
                if socket.send_to(b"new", to).is_ok() && socket.recv(&mut [0; 16]).is_ok() {
                    return start.elapsed();
                }
                sleep(Duration::from_millis(2));
            }
            panic!("no new flow works");
        };
        client.netns().run(ask).unwrap()
    })
}

/// Address of one of the client's hosts.
fn address(host: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits(Plan::client6(1).to_bits() + 0x1_0000 + host as u128)
}

fn server6(lab: &TestLab) -> SocketAddr {
    (lab.embed(SERVER), PORT).into()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Says everything back until the end.
fn serve(lab: &TestLab, shared: &Arc<Shared>) -> JoinHandle<()> {
    let (server, shared) = (lab.node("server"), shared.clone());
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = ready.clone();
    let thread = thread::spawn(move || {
        let work = async {
            let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.unwrap();
            // One socket for all flows: what comes at once must not be lost here.
            setsockopt(&udp, RcvBufForce, &(16 << 20)).unwrap();
            let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.unwrap();
            ready.store(true, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut bytes = [0; 2048];
                loop {
                    // An ICMP error of an answer that could not be sent is no end.
                    if let Ok((len, from)) = udp.recv_from(&mut bytes).await {
                        let _ = udp.send_to(&bytes[..len], from).await;
                    }
                }
            });
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = tcp.accept().await {
                    tokio::spawn(async move {
                        let (mut from, mut to) = stream.split();
                        // A reset is counted at the client.
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                    });
                }
            });
            while !shared.end.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(REST + Duration::from_secs(1)).await;
        };
        server.netns().run(|| runtime().block_on(work)).unwrap();
    });
    while !is_ready.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(5));
    }
    thread
}

/// The clients of all flows.
fn ask(lab: &TestLab, size: Size, shared: &Arc<Shared>) -> JoinHandle<()> {
    let (client, to, shared) = (lab.node("client1"), server6(lab), shared.clone());
    thread::spawn(move || {
        let work = async move {
            let mut tasks = Vec::new();
            for i in 0..size.flows {
                // Spread over the time between two questions.
                let late = size.period().mul_f64(i as f64 / size.flows as f64);
                let from = (address(i % size.hosts), 0).into();
                tasks.push(tokio::spawn(udp_flow(from, to, size, late, shared.clone())));
                tasks.push(tokio::spawn(tcp_flow(from, to, size, late, shared.clone())));
            }
            for task in tasks {
                task.await.unwrap();
            }
        };
        client.netns().run(|| runtime().block_on(work)).unwrap();
    })
}

/// The moments of the questions; all flows count from the same second, each with a delay of its own.
fn ticks(size: Size, late: Duration, begin: tokio::time::Instant) -> tokio::time::Interval {
    let period = size.period();
    let passed = begin.elapsed().as_nanos() / period.as_nanos() + 1;
    let mut ticks = interval_at(begin + period * passed as u32 + late, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn udp_flow(from: SocketAddr, to: SocketAddr, size: Size, late: Duration, shared: Arc<Shared>) {
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.connect(to).await.unwrap();
    let mut bytes = [0; 64];
    // Until it rides, which is not what is measured.
    for _ in 0..4 {
        for _ in 0..50 {
            let _ = socket.send(b"open").await;
            if timeout(Duration::from_millis(500), socket.recv(&mut bytes)).await.is_ok_and(|r| r.is_ok()) {
                break;
            }
        }
    }
    // Late answers to the questions of before.
    while timeout(Duration::from_millis(300), socket.recv(&mut bytes)).await.is_ok() {}
    shared.open.fetch_add(1, Ordering::SeqCst);
    let mut ticks = ticks(size, late, shared.begin);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if shared.end.load(Ordering::SeqCst) {
                    break;
                }
                shared.sent.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send(b"question").await;
            }
            answer = socket.recv(&mut bytes) => {
                shared.back.fetch_add(usize::from(answer.is_ok()), Ordering::SeqCst);
            }
        }
    }
    while let Ok(answer) = timeout(REST, socket.recv(&mut bytes)).await {
        shared.back.fetch_add(usize::from(answer.is_ok()), Ordering::SeqCst);
    }
}

async fn tcp_flow(from: SocketAddr, to: SocketAddr, size: Size, late: Duration, shared: Arc<Shared>) {
    let socket = TcpSocket::new_v6().unwrap();
    socket.bind(from).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut from, mut into) = stream.into_split();
    shared.open.fetch_add(1, Ordering::SeqCst);
    let told = shared.clone();
    let reader = tokio::spawn(async move {
        let (mut bytes, mut back) = ([0; 4096], 0);
        loop {
            match from.read(&mut bytes).await {
                Ok(0) => return back,
                Ok(len) => back += len,
                Err(_) => {
                    told.reset.fetch_add(1, Ordering::SeqCst);
                    return back;
                }
            }
        }
    });
    let (mut ticks, mut sent) = (ticks(size, late, shared.begin), 0);
    while !shared.end.load(Ordering::SeqCst) {
        ticks.tick().await;
        if into.write_all(&[7; 64]).await.is_err() {
            break;
        }
        sent += 64;
    }
    // The server ends when it has said everything back.
    let _ = into.shutdown().await;
    let back = timeout(REST, reader).await.ok().and_then(Result::ok).unwrap_or(0);
    shared.incomplete.fetch_add(usize::from(back != sent), Ordering::SeqCst);
}

fn rows(lab: &TestLab, table: &str) -> Vec<Value> {
    let out = lab.sampan(&[table, "--json", "--all"]).unwrap().check().unwrap();
    let listing: Value = serde_json::from_str(&out).unwrap();
    listing["rows"].as_array().unwrap().clone()
}

/// Which client port has which pool port.
fn mappings(lab: &TestLab) -> BTreeSet<String> {
    let rows = rows(lab, "bib");
    let row = |row: &Value| {
        let of = |key: &str| row[key].to_string();
        ["protocol", "src6", "src6_port", "src4", "src4_port"].map(of).join(" ")
    };
    rows.iter().filter(|r| r["protocol"] != "icmp").map(row).collect()
}
