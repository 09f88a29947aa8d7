//! Closed loop like [`echo`], and what that one does not know: as many flows as a large network has, from as many
//! addresses, and how long each round trip took.
//!
//! The addresses need no device: a route of the kind `local` to the prefix brings the answers here.

use std::io::{self, IoSlice};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, sendmsg, setsockopt, sockopt};
use serde::Serialize;

use super::{any_of, cpu_time, echo, timed_out};
use crate::addr::Prefix6;

/// Without any reply for so long, what is on the way counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(200);
/// Bytes of a packet; the first eight are when it was sent.
const PAYLOAD: usize = 18;
/// The port of the first socket, where the source addresses are given: the same flows each time.
const FIRST_PORT: u16 = 20_000;
/// Prime, so that steps of it come by every address before one comes again.
const STRIDE: u64 = 2_654_435_761;

/// What to keep on the way.
#[derive(Clone, Copy, Debug, Args)]
pub struct Load {
    /// Source addresses: the first of this prefix; without it this host's own
    #[arg(long)]
    pub from: Option<Prefix6>,
    /// How many of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub hosts: u32,
    /// Source ports of each address; each is a socket and a thread
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub ports: u16,
    /// Packets on the way at once, over all flows
    #[arg(long, default_value_t = 256)]
    pub outstanding: u32,
    /// Seconds at most
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// End when each flow had so many packets, instead of only after the time
    #[arg(long)]
    pub passes: Option<u32>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Flows that could have been used.
    pub flows: u64,
    /// Packets that came back; each crossed the path twice.
    pub round_trips: u64,
    /// Packets that did not come back.
    pub lost: u64,
    /// How long it took.
    pub seconds: f64,
    /// Microseconds of the shortest round trip.
    pub min_us: f64,
    /// Of the middle one.
    pub p50_us: f64,
    /// Of the one that 1 % are slower than.
    pub p99_us: f64,
    /// Of the one that 0.1 % are slower than.
    pub p999_us: f64,
    /// CPU time of this process.
    pub cpu_seconds: f64,
}

/// Runs the client.
pub fn run(server: SocketAddr, load: &Load) -> io::Result<Report> {
    let (began, cpu) = (Instant::now(), cpu_time());
    let end = began + Duration::try_from_secs_f64(load.seconds).unwrap_or(Duration::from_secs(1));
    let clients: Vec<_> = (0..load.ports)
        .map(|number| {
            let load = *load;
            thread::spawn(move || Client::new(server, &load, number, began)?.run(end))
        })
        .collect();
    let mut all = Tally::default();
    for client in clients {
        all.add(&client.join().map_err(|_| io::Error::other("a flow's thread ended early"))??);
    }
    Ok(Report {
        flows: u64::from(load.hosts) * u64::from(load.ports),
        round_trips: all.round_trips,
        lost: all.lost,
        seconds: began.elapsed().as_secs_f64(),
        min_us: all.times.at(0.0),
        p50_us: all.times.at(0.5),
        p99_us: all.times.at(0.99),
        p999_us: all.times.at(0.999),
        cpu_seconds: (cpu_time() - cpu).as_secs_f64(),
    })
}

/// One socket with all the addresses that it speaks for.
struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    from: Option<(Prefix6, SockaddrIn6)>,
    hosts: u64,
    window: u64,
    began: Instant,
    /// How many packets are sent at most; then, they are sent in the order of addresses.
    most: Option<u64>,
    sent: u64,
}

#[derive(Default)]
struct Tally {
    round_trips: u64,
    lost: u64,
    times: Times,
}

impl Client {
    fn new(server: SocketAddr, load: &Load, number: u16, began: Instant) -> io::Result<Self> {
        let mut bind = any_of(server);
        let from = match (load.from, server) {
            (Some(prefix), SocketAddr::V6(to)) => {
                bind.set_port(FIRST_PORT.saturating_add(number));
                Some((prefix, SockaddrIn6::from(SocketAddrV6::new(*to.ip(), to.port(), 0, 0))))
            }
            (Some(_), SocketAddr::V4(_)) => {
                return Err(io::Error::other("source addresses are for a server with an IPv6 address"));
            }
            (None, _) => None,
        };
        let socket = echo::socket(bind)?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        if from.is_some() {
            setsockopt(&socket, sockopt::IpFreebind, &true)?;
        } else {
            socket.connect(server)?;
        }
        let hosts = u64::from(load.hosts);
        Ok(Self {
            socket,
            server,
            from,
            hosts,
            window: u64::from(load.outstanding.div_ceil(load.ports.into()).max(1)),
            began,
            most: load.passes.map(|n| u64::from(n) * hosts),
            sent: 0,
        })
    }

    fn run(mut self, end: Instant) -> io::Result<Tally> {
        let mut tally = Tally::default();
        let mut reply = [0; 2048];
        while !self.is_over(end) {
            // Answers to what was sent before are not waited for any more.
            let epoch = self.now();
            let mut outstanding = 0u64;
            while outstanding < self.window && !self.is_over(end) {
                if self.send() {
                    outstanding += 1;
                } else {
                    // A full queue is a loss like any other.
                    tally.lost += 1;
                }
            }
            while outstanding > 0 {
                let stamp = match self.socket.recv_from(&mut reply) {
                    Ok((PAYLOAD, from)) if from == self.server => {
                        reply.first_chunk().map_or(0, |stamp| u64::from_be_bytes(*stamp))
                    }
                    Ok(_) => continue,
                    Err(error) if timed_out(&error) => {
                        tally.lost += outstanding;
                        break;
                    }
                    Err(error) => return Err(error),
                };
                let now = self.now();
                if stamp < epoch || stamp > now {
                    continue;
                }
                tally.round_trips += 1;
                tally.times.note(now - stamp);
                if self.is_over(end) || !self.send() {
                    outstanding -= 1;
                }
            }
        }
        Ok(tally)
    }

    fn is_over(&self, end: Instant) -> bool {
        self.most.is_some_and(|most| self.sent >= most) || Instant::now() >= end
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sends the next packet, by the flow whose turn it is.
    fn send(&mut self) -> bool {
        let mut packet = [0; PAYLOAD];
        if let Some(stamp) = packet.first_chunk_mut() {
            *stamp = self.now().to_be_bytes();
        }
        let step = if self.most.is_some() { 1 } else { STRIDE };
        let host = self.sent.wrapping_mul(step) % self.hosts;
        self.sent += 1;
        let Some((prefix, server)) = &self.from else {
            return self.socket.send(&packet).is_ok();
        };
        let source = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: nth(*prefix, host).octets() },
            ipi6_ifindex: 0,
        };
        let how = [ControlMessage::Ipv6PacketInfo(&source)];
        let what = [IoSlice::new(&packet)];
        sendmsg(self.socket.as_raw_fd(), &what, &how, MsgFlags::empty(), Some(server)).is_ok()
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.round_trips += other.round_trips;
        self.lost += other.lost;
        self.times.add(&other.times);
    }
}

/// How often each duration occurred, to within 1 %: a class for each 128th between one power of two and the next.
struct Times(Vec<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(vec![0; 64 * Self::CLASSES])
    }
}

impl Times {
    const CLASSES: usize = 128;

    fn note(&mut self, nanoseconds: u64) {
        let value = nanoseconds.max(Self::CLASSES as u64);
        let power = value.ilog2();
        let class = (value >> (power - Self::CLASSES.ilog2())) as usize % Self::CLASSES;
        if let Some(count) = self.0.get_mut(power as usize * Self::CLASSES + class) {
            *count += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own += other);
    }

    /// The duration, in microseconds, that so large a share is not slower than.
    fn at(&self, share: f64) -> f64 {
        let all: u64 = self.0.iter().sum();
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let low = 1.0 + (at % Self::CLASSES) as f64 / Self::CLASSES as f64;
                return low * 2f64.powi((at / Self::CLASSES) as i32) / 1e3;
            }
        }
        0.0
    }
}

fn nth(prefix: Prefix6, number: u64) -> Ipv6Addr {
    // Not the prefix itself: that is the routers' anycast address.
    Ipv6Addr::from_bits(prefix.addr().to_bits() | u128::from(number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load { from: None, hosts: 1, ports: 2, outstanding: 8, seconds: 0.2, passes: None }
    }

    fn server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || echo::serve_on(&socket));
        address
    }

    #[test]
    fn the_loop_turns_over_loopback_and_times_are_in_order() {
        let report = run(server(), &load()).unwrap();
        assert!(report.round_trips > 0, "{report:?}");
        let times = [0.0, report.min_us, report.p50_us, report.p99_us, report.p999_us];
        assert!(times.is_sorted() && report.min_us > 0.0, "{report:?}");
    }

    #[test]
    fn passes_end_it_and_each_flow_had_its_packets() {
        let load = Load { passes: Some(30), hosts: 5, seconds: 60.0, ..load() };
        let report = run(server(), &load).unwrap();
        assert_eq!((report.flows, report.round_trips + report.lost), (10, 300), "{report:?}");
    }

    #[test]
    fn percentiles_of_known_times_are_right_within_one_percent() {
        let mut times = Times::default();
        (1..=100_000).for_each(|n| times.note(n * 1_000));
        for (share, wanted) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (1.0, 100_000.0)] {
            let got = times.at(share);
            assert!((0.99..=1.001).contains(&(got / wanted)), "{share}: {got}");
        }
        assert_eq!(Times::default().at(0.5), 0.0);
    }

    #[test]
    fn each_address_has_its_turn_before_one_comes_again() {
        for hosts in [1, 7, 12_500, 15_625] {
            let seen: std::collections::HashSet<_> =
                (0..hosts).map(|n: u64| n.wrapping_mul(STRIDE) % hosts).collect();
            assert_eq!(seen.len() as u64, hosts);
        }
    }
}
