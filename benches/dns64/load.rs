//! Clients: dnsperf for the highest rate, and one of our own that keeps a rate, looks into every answer and knows how
//! late it is (RFC 8219 §9 asks for that).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::authority::address;

/// A later answer does not count (RFC 8219 §9).
pub const LIMIT: Duration = Duration::from_secs(1);
/// Sockets of the paced client.
const SOCKETS: usize = 8;

/// An AAAA query.
pub fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(wire_name(name));
    bytes.extend([0, 28, 0, 1]);
    bytes
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The n-th name of a series: distinct series share no name.
pub fn name(series: u32, n: u32) -> String {
    let [b, c, d] = [n >> 16, n >> 8, n].map(|part| part as u8);
    format!("{:03}-{b:03}-{c:03}-{d:03}.s{series}.bench.test", 11 + series % 80)
}

/// What dnsperf measured.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub completed: f64,
    pub lost: f64,
    pub per_second: f64,
}

/// Runs dnsperf on a CPU with a file of names.
pub fn dnsperf(server: SocketAddr, names: &Path, seconds: u32, cpu: usize) -> io::Result<Rate> {
    let out = Command::new("taskset")
        .args([
            "-c",
            &cpu.to_string(),
            "dnsperf",
            "-s",
            &server.ip().to_string(),
            "-p",
            &server.port().to_string(),
        ])
        .args(["-d", &names.display().to_string(), "-l", &seconds.to_string()])
        .args(["-c", "4", "-T", "1", "-q", "64", "-t", "2"])
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let number = |label: &str| {
        let rest = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
        rest.split_ascii_whitespace().next()?.parse::<f64>().ok()
    };
    match (number("Queries completed:"), number("Queries lost:"), number("Queries per second:")) {
        (Some(completed), Some(lost), Some(per_second)) if completed > 0.0 => {
            Ok(Rate { completed, lost, per_second })
        }
        _ => Err(io::Error::other(format!("dnsperf: {text}{}", String::from_utf8_lossy(&out.stderr)))),
    }
}

/// What the paced client saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub sent: u64,
    /// Right and in time.
    pub good: u64,
    pub wrong: u64,
    /// Of the good ones, in microseconds, sorted.
    pub latencies: Vec<u32>,
    /// How long sending took; longer than planned means that the client was too slow.
    pub took: Duration,
}

impl Seen {
    /// The latency that a share of the good answers kept, in microseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = ((self.latencies.len().saturating_sub(1)) as f64 * share) as usize;
        self.latencies.get(at).map_or(f64::NAN, |micros| f64::from(*micros))
    }
}

/// Asks `names` evenly at a rate and checks that each answer is the synthesised address of its name.
pub fn paced(
    server: SocketAddr,
    names: &[String],
    rate: u32,
    prefix: Ipv6Addr,
    cpu: usize,
) -> io::Result<Seen> {
    let sockets = (0..SOCKETS).map(|_| client(server)).collect::<io::Result<Vec<_>>>()?;
    let queries: Vec<Vec<u8>> =
        names.iter().enumerate().map(|(i, name)| query((i / SOCKETS) as u16, name)).collect();
    let origin = Instant::now();
    let sending = AtomicBool::new(true);
    let (mut sent_at, mut took) = (Vec::with_capacity(queries.len()), Duration::ZERO);
    let mut arrived: Vec<Vec<(u16, Duration, bool)>> = Vec::new();
    thread::scope(|scope| {
        let readers: Vec<_> = sockets
            .iter()
            .enumerate()
            .map(|(at, socket)| {
                let (queries, sending) = (&queries, &sending);
                scope.spawn(move || {
                    crate::pin(cpu);
                    read(socket, at, queries, prefix, origin, sending)
                })
            })
            .collect();
        crate::pin(cpu);
        let gap = Duration::from_secs(1) / rate.max(1);
        let began = Instant::now();
        for (i, query) in queries.iter().enumerate() {
            let due = began + gap * i as u32;
            let early = due.saturating_duration_since(Instant::now());
            if early > Duration::from_micros(200) {
                thread::sleep(early);
            }
            sent_at.push(origin.elapsed());
            let _ = sockets[i % SOCKETS].send(query);
        }
        took = began.elapsed();
        thread::sleep(LIMIT);
        sending.store(false, Ordering::Relaxed);
        arrived = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    });
    let mut seen = Seen { sent: queries.len() as u64, took, ..Seen::default() };
    for (socket, answers) in arrived.into_iter().enumerate() {
        for (id, at, right) in answers {
            let Some(sent) = sent_at.get(usize::from(id) * SOCKETS + socket) else { continue };
            let late = at.saturating_sub(*sent);
            match right {
                true if late <= LIMIT => seen.latencies.push(late.as_micros() as u32),
                true => {}
                false => seen.wrong += 1,
            }
        }
    }
    seen.latencies.sort_unstable();
    seen.good = seen.latencies.len() as u64;
    Ok(seen)
}

fn client(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))?;
    Ok(socket)
}

fn read(
    socket: &UdpSocket,
    at: usize,
    queries: &[Vec<u8>],
    prefix: Ipv6Addr,
    origin: Instant,
    sending: &AtomicBool,
) -> Vec<(u16, Duration, bool)> {
    let mut answers = Vec::new();
    let mut buffer = [0; 1500];
    while sending.load(Ordering::Relaxed) {
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let now = origin.elapsed();
        let reply = &buffer[..len];
        let id = u16::from_be_bytes([reply[0], reply[1]]);
        let Some(query) = queries.get(usize::from(id) * SOCKETS + at) else { continue };
        answers.push((id, now, is_right(reply, query, prefix)));
    }
    answers
}

/// NOERROR, one answer, which ends the message or stands before OPT: the address of the name under the prefix.
fn is_right(reply: &[u8], query: &[u8], prefix: Ipv6Addr) -> bool {
    let question = &query[12..];
    let mut expected = prefix.octets();
    expected[12..].copy_from_slice(&address(question).octets());
    reply.len() >= query.len() + 16
        && reply[3] & 0xf == 0
        && reply[6..8] == [0, 1]
        && reply[12..query.len()].eq_ignore_ascii_case(question)
        && reply[query.len()..].windows(16).any(|window| window == expected)
}
