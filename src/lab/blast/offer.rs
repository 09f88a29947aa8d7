//! Open loop of small UDP packets at a given rate, and how many of them arrived: RFC 2544 §26.1 asks for the fastest
//! rate at which none is missing.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{any_of, echo, timed_out};

/// Bytes of a packet: which run it belongs to, and what it is.
const PAYLOAD: usize = 18;
/// Where the kind stands.
const KIND: usize = 8;
/// One to count.
const COUNT: u8 = 0;
/// Asks how many of this run there were.
const HOW_MANY: u8 = 1;
/// How long the sender sleeps at most, so that bursts stay short.
const TICK: Duration = Duration::from_micros(100);
/// Who falls behind by more than this does not make up for it: a burst is not the rate that was asked for.
const LATEST: Duration = Duration::from_millis(2);
/// How long after the last packet the count is asked for.
const DRAIN: Duration = Duration::from_millis(100);

/// What to send.
#[derive(Clone, Copy, Debug, Args)]
pub struct Load {
    /// Packets a second
    #[arg(long, default_value_t = 1000)]
    pub rate: u32,
    /// Sockets, each with a port of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub flows: u16,
    /// Seconds
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// How long it took to send them.
    pub seconds: f64,
    /// Packets a second that were really sent.
    pub per_second: f64,
}

/// Sends and asks for the count.
pub fn run(server: SocketAddr, load: &Load) -> io::Result<Report> {
    let mut sockets = Vec::new();
    for _ in 0..load.flows {
        let socket = echo::socket(any_of(server))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(DRAIN))?;
        sockets.push(socket);
    }
    let run = since_1970();
    // The answers make the flows established before anything is measured, and forget runs of before.
    for socket in &sockets {
        ask(socket, run)?;
        ask(socket, run)?;
    }
    let packet = packet(run, COUNT);
    let time = Duration::try_from_secs_f64(load.seconds).unwrap_or(Duration::from_secs(1));
    let began = Instant::now();
    // Where the plan begins; it moves on when this machine cannot follow.
    let (mut start, mut done, mut sent) = (began, 0u64, 0u64);
    let mut turn = sockets.iter().cycle();
    while began.elapsed() < time {
        let due = (start.elapsed().as_secs_f64() * f64::from(load.rate)) as u64;
        if due > done + (LATEST.as_secs_f64() * f64::from(load.rate)) as u64 + 1 {
            (start, done) = (Instant::now(), 0);
            continue;
        }
        if due == done {
            thread::sleep(TICK);
        }
        for (_, socket) in (done..due).zip(turn.by_ref()) {
            // What this machine does not take was not offered.
            sent += u64::from(socket.send(&packet).is_ok());
        }
        done = due;
    }
    let seconds = began.elapsed().as_secs_f64();
    thread::sleep(DRAIN);
    let last = sockets.first().ok_or_else(|| io::Error::other("no flow"))?;
    let received = ask(last, run)?;
    Ok(Report { sent, received, seconds, per_second: sent as f64 / seconds })
}

/// Counts until the process ends.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    serve_on(&echo::socket(listen)?)
}

fn serve_on(socket: &UdpSocket) -> io::Result<()> {
    let (mut current, mut count) = ([0; KIND], 0u64);
    let mut packet = [0; 2048];
    loop {
        let (len, from) = match socket.recv_from(&mut packet) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let (Some((run, rest)), PAYLOAD) = (packet.split_first_chunk::<KIND>(), len) else { continue };
        if *run != current {
            (current, count) = (*run, 0);
        }
        if rest.first() == Some(&COUNT) {
            count += 1;
        } else {
            let reply = [*run, count.to_be_bytes()].concat();
            // Who misses the reply asks again.
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// How many of this run have arrived.
fn ask(socket: &UdpSocket, run: u64) -> io::Result<u64> {
    let question = packet(run, HOW_MANY);
    let mut reply = [0; 2 * KIND];
    for _ in 0..50 {
        socket.send(&question)?;
        match socket.recv(&mut reply) {
            Ok(_) => {
                let mut halves =
                    reply.chunks_exact(KIND).flat_map(<[u8; KIND]>::try_from).map(u64::from_be_bytes);
                if let (Some(same), Some(count)) = (halves.next(), halves.next())
                    && same == run
                {
                    return Ok(count);
                }
            }
            Err(error) if timed_out(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the server does not say how many packets arrived"))
}

fn packet(run: u64, kind: u8) -> [u8; PAYLOAD] {
    let mut packet = [0; PAYLOAD];
    for (to, byte) in packet.iter_mut().zip(run.to_be_bytes().into_iter().chain([kind])) {
        *to = byte;
    }
    packet
}

fn since_1970() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_sent_over_loopback_is_counted_and_the_rate_is_kept() {
        let socket = echo::socket("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = socket.local_addr().unwrap();
        thread::spawn(move || serve_on(&socket));
        for _ in 0..2 {
            let report = run(server, &Load { rate: 2_000, flows: 3, seconds: 0.3 }).unwrap();
            assert_eq!(report.received, report.sent, "{report:?}");
            assert!(report.sent > 0 && report.per_second <= 2_100.0, "{report:?}");
        }
    }

    #[test]
    fn a_server_that_misses_some_does_not_count_them() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        thread::spawn(move || {
            // Half of what it should count it only forgets.
            let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
            let counter = UdpSocket::bind("127.0.0.1:0").unwrap();
            relay.connect(counter.local_addr().unwrap()).unwrap();
            thread::spawn(move || serve_on(&counter));
            let (mut packet, mut turn) = ([0; 64], 0);
            loop {
                let (len, from) = socket.recv_from(&mut packet).unwrap();
                turn += 1;
                if packet[KIND] == COUNT && turn % 2 == 0 {
                    continue;
                }
                relay.send(&packet[..len]).unwrap();
                if packet[KIND] == HOW_MANY {
                    let len = relay.recv(&mut packet).unwrap();
                    socket.send_to(&packet[..len], from).unwrap();
                }
            }
        });
        let report = run(server, &Load { rate: 1_000, flows: 1, seconds: 0.3 }).unwrap();
        assert!(report.received < report.sent && report.received > 0, "{report:?}");
    }
}
