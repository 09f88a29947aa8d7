//! Two attacks at full size: forged answers, and a flood of names that nobody has asked before.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use rand::RngExt;
use sampan::io::dns_net::{Limits, ListenSettings, Shared, bind, run};
use serde_json::{Value, json};
use std::os::fd::AsRawFd;

use crate::authority::{Authority, answer};
use crate::load::{Seen, name, paced, query};
use crate::peers::{Peer, Server};
use crate::{CLIENT_CPU, SERVER_CPU, config, prefix, report};

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Campaign {
    /// Blind forged answers at full rate: none may be believed
    Spoof,
    /// Random names: memory stays bounded, cached names stay quick
    Flood,
}

/// Runs it for so long; the report, and whether every gate holds.
pub fn attack(
    campaign: Campaign,
    length: Duration,
    cache: Option<u16>,
    dir: &Path,
) -> io::Result<(Value, bool)> {
    let (figures, passed) = match campaign {
        Campaign::Spoof => spoof(length)?,
        Campaign::Flood => flood(length, cache, dir)?,
    };
    let name = match campaign {
        Campaign::Spoof => "dns-spoof",
        Campaign::Flood => "dns-flood",
    };
    let report = json!({
        "campaign": name,
        "commit": report::commit(),
        "seconds": length.as_secs(),
        "figures": figures,
        "passed": passed,
    });
    Ok((report, passed))
}

/// Questions a second during the forgery.
const ASKED: u32 = 100;
/// How late the true answer comes: as long as this a question is open to forgers.
const OPEN: Duration = Duration::from_millis(400);
/// Datagrams that the forger sends at once.
const SALVO: usize = 64;
/// The ports that Linux chooses from by default.
const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// The forger knows the upstream's address and the names that are open; port, ID and letters it has to guess. It is
/// given more than a real one has: it sends from the upstream's own socket.
fn spoof(length: Duration) -> io::Result<(Value, bool)> {
    let upstream = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 5301))?);
    let open = Arc::new(Mutex::new(VecDeque::<(Instant, Vec<u8>, SocketAddr)>::new()));
    let (stop, forged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (shared, end) = serve_here(upstream.local_addr()?)?;
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 5310));
    let mut seen = Vec::new();
    let result: io::Result<()> = thread::scope(|scope| {
        scope.spawn(|| truth(&upstream, &open, &stop));
        scope.spawn(|| forge(&upstream, &open, &stop, &forged));
        let began = Instant::now();
        let mut series = 10_000;
        let mut asking = || -> io::Result<()> {
            while began.elapsed() < length {
                series += 1;
                let left = length.saturating_sub(began.elapsed()).as_secs().clamp(1, 10) as u32;
                let names: Vec<_> = (0..ASKED * left).map(|n| name(series, n)).collect();
                seen.push(paced(server, &names, ASKED, prefix(), CLIENT_CPU)?);
            }
            Ok(())
        };
        let result = asking();
        stop.store(true, Ordering::Relaxed);
        result
    });
    result?;
    let counter = |name: &str| shared.snapshot().iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| *n);
    let (sent, wrong, good) = seen.iter().fold((0, 0, 0), |(sent, wrong, good), seen: &Seen| {
        (sent + seen.sent, wrong + seen.wrong, good + seen.good)
    });
    let forged = forged.load(Ordering::Relaxed);
    let figures = json!({
        "questions": sent,
        "answered_right": good,
        "answered_wrong": wrong,
        "forged_datagrams": forged,
        "forged_per_second": forged as f64 / length.as_secs_f64(),
        "reached_an_open_port": counter("upstream_strangers"),
        "doubts_settled_over_tcp": counter("upstream_tcp"),
    });
    drop(end);
    // Silence and errors are no success of the forger, but with many of them the test would not have tested.
    Ok((figures, wrong == 0 && good * 10 >= sent * 9 && forged > 0))
}

/// The service on a thread of this process, so that its counters can be read; it ends when the sender is dropped.
fn serve_here(upstream: SocketAddr) -> io::Result<(Arc<Shared>, tokio::sync::watch::Sender<bool>)> {
    let limits = Limits::default();
    let listen =
        ListenSettings { addresses: vec![(Ipv4Addr::LOCALHOST, 5310).into()], ..ListenSettings::default() };
    let bound = bind(&listen, limits.udp_threads).map_err(io::Error::other)?;
    let shared = Arc::new(Shared::new(config(upstream)?, limits));
    let (end, ended) = tokio::sync::watch::channel(false);
    let served = Arc::clone(&shared);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || runtime.block_on(run(bound, served, ended)));
    Ok((shared, end))
}

type Open = Mutex<VecDeque<(Instant, Vec<u8>, SocketAddr)>>;

/// Answers every question, late.
fn truth(socket: &UdpSocket, open: &Open, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            open.lock().unwrap().push_back((Instant::now() + OPEN, buffer[..len].to_vec(), from));
        }
        loop {
            let mut open = open.lock().unwrap();
            if open.front().is_none_or(|(due, ..)| *due > Instant::now()) {
                break;
            }
            let Some((_, query, from)) = open.pop_front() else { break };
            drop(open);
            if let Some(reply) = answer(&query) {
                let _ = socket.send_to(&reply, from);
            }
        }
    }
}

/// Sends forged answers to open questions, to random ports under random IDs, as fast as it can.
fn forge(socket: &UdpSocket, open: &Open, stop: &AtomicBool, count: &AtomicU64) {
    let mut rng = rand::rng();
    while !stop.load(Ordering::Relaxed) {
        let question = {
            let open = open.lock().unwrap();
            match open.len() {
                0 => None,
                len => open.get(rng.random_range(0..len)).map(|(_, query, _)| query.clone()),
            }
        };
        let Some(question) = question else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let lie = lie(&question);
        let salvo: Vec<Vec<u8>> = (0..SALVO)
            .map(|_| {
                let mut bytes = lie.clone();
                bytes[..2].copy_from_slice(&rng.random::<u16>().to_be_bytes());
                bytes
            })
            .collect();
        let slices: Vec<_> = salvo.iter().map(|bytes| [io::IoSlice::new(bytes)]).collect();
        let to: Vec<_> =
            (0..SALVO).map(|_| Some(SockaddrIn::new(127, 0, 0, 1, rng.random_range(PORTS)))).collect();
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(SALVO, None);
        let none: [ControlMessage<'_>; 0] = [];
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, none, MsgFlags::empty());
        count.fetch_add(sent.map_or(0, |sent| sent.count() as u64), Ordering::Relaxed);
    }
}

/// What the forger would like to be believed: the name in small letters, another address.
fn lie(query: &[u8]) -> Vec<u8> {
    let mut lower = query.to_vec();
    lower[12..].make_ascii_lowercase();
    let mut reply = answer(&lower).unwrap_or_default();
    // The address, where there is one, stands before OPT.
    let at = reply.len().saturating_sub(11 + 4);
    if reply.get(7) == Some(&1) {
        reply[at..at + 4].copy_from_slice(&[192, 0, 2, 66]);
    }
    reply
}

/// Names of the flood that are asked a second.
const FLOOD: u64 = 4_000;
/// Cached names that are asked a second.
const CACHED: u32 = 500;
fn flood(length: Duration, cache: Option<u16>, dir: &Path) -> io::Result<(Value, bool)> {
    let upstream = Authority::start((Ipv4Addr::LOCALHOST, 5301).into(), CLIENT_CPU)?;
    let more: Vec<_> = cache.iter().flat_map(|mib| ["--cache".into(), mib.to_string()]).collect();
    let server = Server::start_with(Peer::Sampan, upstream.addr, dir, SERVER_CPU, &more)?;
    let cap = crate::limits(cache).cache_bytes as u64 >> 10;
    let names: Vec<_> = (0..CACHED * 10).map(|n| name(0, n % 1_000)).collect();
    let ask = || paced(server.addr, &names, CACHED, prefix(), CLIENT_CPU);
    ask()?;
    let calm = ask()?;
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    // The caches take their memory at start and use it page by page: what they and the questions in flight have at most
    // is the cap, so that what comes during the flood has to be less, everything included.
    let before = server.memory();
    let (mut rounds, mut most, mut accounted) = (Vec::new(), Vec::new(), 0);
    let result: io::Result<()> = thread::scope(|scope| {
        scope.spawn(|| random_names(server.addr, &stop, &asked));
        let began = Instant::now();
        let mut asking = || -> io::Result<()> {
            while began.elapsed() < length {
                rounds.push(ask()?);
                most.push(server.memory());
                accounted = accounted.max(last_accounted(dir)?);
            }
            Ok(())
        };
        let result = asking();
        stop.store(true, Ordering::Relaxed);
        result
    });
    result?;
    let median = |share: f64| {
        let mut all: Vec<_> = rounds.iter().map(|seen: &Seen| seen.quantile(share)).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let (sent, good) = rounds.iter().fold((0, 0), |(s, g), seen| (s + seen.sent, g + seen.good));
    let growth = most.iter().max().map_or(0, |most| most.saturating_sub(before));
    let ratio = median(0.5) / calm.quantile(0.5);
    let figures = json!({
        "random_names": asked.load(Ordering::Relaxed),
        "upstream_asked": upstream.asked(),
        "cached_questions": sent,
        "cached_answered": good,
        "cached_median_us_calm": calm.quantile(0.5),
        "cached_median_us": median(0.5),
        "cached_p99_us_calm": calm.quantile(0.99),
        "cached_p99_us": median(0.99),
        "median_ratio": ratio,
        "memory_kb_before": before,
        "memory_kb_most": most.iter().max(),
        "memory_kb_growth": growth,
        "memory_kb_each_10_s": most,
        "cache_accounted_kb": accounted,
        "cache_cap_kb": cap,
    });
    let bounded = accounted > 0 && accounted <= cap && growth <= cap;
    Ok((figures, bounded && ratio <= 2.0 && good * 1_000 >= sent * 999))
}

/// Kilobytes of all caches as the server counts them: the last line that it has said.
fn last_accounted(dir: &Path) -> io::Result<u64> {
    let said = std::fs::read_to_string(dir.join("sampan.log"))?;
    let bytes = said.lines().next_back().and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    bytes
        .map(|bytes| bytes.div_ceil(1 << 10))
        .ok_or_else(|| io::Error::other("the server does not say its size"))
}

/// Asks for names that do not repeat, and does not wait for answers; a few over TCP, so that the cache of the streams is
/// flooded, too.
fn random_names(server: SocketAddr, stop: &AtomicBool, asked: &AtomicU64) {
    crate::pin(CLIENT_CPU);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut stream = None;
    let mut rng = rand::rng();
    let mut random = || {
        let name = format!("{:016x}{:016x}.flood.test", rng.random::<u64>(), rng.random::<u64>());
        query(rng.random(), &name)
    };
    while !stop.load(Ordering::Relaxed) {
        for _ in 1..FLOOD / 200 {
            let _ = socket.send_to(&random(), server);
            asked.fetch_add(1, Ordering::Relaxed);
        }
        // A connection that the server has closed is opened again.
        stream = stream.or_else(|| TcpStream::connect(server).ok()).and_then(|mut stream| {
            over_tcp(&mut stream, &random()).ok()?;
            asked.fetch_add(1, Ordering::Relaxed);
            Some(stream)
        });
        thread::sleep(Duration::from_millis(5));
    }
}

/// A question and its reply, which is thrown away.
fn over_tcp(stream: &mut TcpStream, query: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), query].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(len))])
}
