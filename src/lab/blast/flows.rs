//! A fixed number of UDP and TCP flows at a modest pace, each request numbered and answered: what is lost is known to
//! the packet. Over TCP nothing is lost for good; what is sent again shows in the kernel's counters.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::{any_of, echo, timed_out};

/// Bytes of a request: the number of its flow and its own.
const REQUEST: usize = 16;
/// How long after the last request answers are waited for.
const DRAIN: Duration = Duration::from_secs(3);

/// What to keep going.
#[derive(Clone, Copy, Debug, Args)]
pub struct Load {
    /// UDP flows
    #[arg(long, default_value_t = 100)]
    pub udp: u16,
    /// TCP flows
    #[arg(long, default_value_t = 100)]
    pub tcp: u16,
    /// Requests of each flow a second
    #[arg(long, default_value_t = 10)]
    pub rate: u16,
    /// Seconds, not counting the opening of the flows before and the last answers after
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Over UDP.
    pub udp: Count,
    /// Over TCP.
    pub tcp: Count,
    /// TCP flows that broke.
    pub broken: u64,
    /// Milliseconds from request to answer: the middle one.
    pub p50_ms: f64,
    /// The one that 1 % are slower than.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Count {
    /// Flows that were opened.
    pub flows: u64,
    /// Requests.
    pub sent: u64,
    /// Answers.
    pub answered: u64,
    /// Requests that the kernel here did not take.
    pub refused: u64,
    /// Answers that came twice, or were never asked for.
    pub strange: u64,
}

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

struct Flow {
    wire: Wire,
    next: u64,
    waiting: HashMap<u64, Instant>,
    /// Bytes of an answer that is not whole yet.
    begun: Vec<u8>,
    broken: bool,
}

/// Opens the flows, keeps them going and counts.
pub fn run(server: SocketAddr, load: &Load) -> io::Result<Report> {
    let mut flows = open(server, load)?;
    let mut report = Report::default();
    report.udp.flows = load.udp.into();
    report.tcp.flows = load.tcp.into();
    let mut times = Vec::new();
    let began = Instant::now();
    let time = Duration::try_from_secs_f64(load.seconds).unwrap_or(Duration::from_secs(1));
    let per_second = f64::from(load.rate) * flows.len() as f64;
    let mut asked = 0u64;
    loop {
        let now = began.elapsed();
        let over = now >= time;
        if over && (now >= time + DRAIN || flows.iter().all(|f| f.waiting.is_empty())) {
            break;
        }
        let due = (now.min(time).as_secs_f64() * per_second) as u64;
        while asked < due {
            let number = asked % flows.len() as u64;
            if let Some(flow) = flows.get_mut(number as usize) {
                flow.ask(number, &mut report);
            }
            asked += 1;
        }
        let ready = ready(&flows, Duration::from_millis(1))?;
        for (number, flow) in flows.iter_mut().enumerate().filter(|(n, _)| ready.contains(n)) {
            flow.listen(number as u64, &mut report, &mut times);
        }
    }
    report.broken = flows.iter().filter(|f| f.broken).count() as u64;
    times.sort_unstable();
    let at = |share: f64| {
        let i = (times.len().saturating_sub(1) as f64 * share) as usize;
        times.get(i).map_or(0.0, |t: &Duration| t.as_secs_f64() * 1e3)
    };
    (report.p50_ms, report.p99_ms, report.max_ms) = (at(0.5), at(0.99), at(1.0));
    Ok(report)
}

/// Sends everything back, over UDP and TCP, until the process ends.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    let udp = echo::socket(listen)?;
    let tcp = TcpListener::bind(listen)?;
    thread::spawn(move || {
        let mut packet = [0; 2048];
        loop {
            // A reply that cannot be sent is a lost packet, and the client counts those.
            if let Ok((len, from)) = udp.recv_from(&mut packet) {
                let _ = udp.send_to(packet.get(..len).unwrap_or_default(), from);
            }
        }
    });
    for stream in tcp.incoming() {
        let Ok(mut stream) = stream else { continue };
        thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let mut bytes = [0; 2048];
            while let Ok(len) = stream.read(&mut bytes) {
                if len == 0 || stream.write_all(bytes.get(..len).unwrap_or_default()).is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

fn open(server: SocketAddr, load: &Load) -> io::Result<Vec<Flow>> {
    let wires = (0..load.udp + load.tcp).map(|n| {
        // Both kinds in turn as long as there are some, so that neither is asked in bursts.
        let udp = if n < 2 * load.udp.min(load.tcp) { n % 2 == 0 } else { load.udp > load.tcp };
        if udp {
            let socket = echo::socket(any_of(server))?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            Ok(Wire::Udp(socket))
        } else {
            let stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Wire::Tcp(stream))
        }
    });
    let flow = |wire| Flow { wire, next: 0, waiting: HashMap::new(), begun: Vec::new(), broken: false };
    wires.map(|wire| wire.map(flow)).collect()
}

/// The flows that have something to read.
fn ready(flows: &[Flow], limit: Duration) -> io::Result<Vec<usize>> {
    let mut fds: Vec<_> = flows.iter().map(|flow| PollFd::new(flow.fd(), flow.events())).collect();
    match poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is_ready = |fd: &PollFd| fd.any().unwrap_or(false);
    Ok(fds.iter().enumerate().filter(|(_, fd)| is_ready(fd)).map(|(n, _)| n).collect())
}

impl Flow {
    fn fd(&self) -> BorrowedFd<'_> {
        match &self.wire {
            Wire::Udp(socket) => socket.as_fd(),
            Wire::Tcp(stream) => stream.as_fd(),
        }
    }

    fn events(&self) -> PollFlags {
        if self.broken { PollFlags::empty() } else { PollFlags::POLLIN }
    }

    fn ask(&mut self, number: u64, report: &mut Report) {
        let request = [number.to_be_bytes(), self.next.to_be_bytes()].concat();
        let (count, taken) = match &mut self.wire {
            Wire::Udp(socket) => (&mut report.udp, socket.send(&request)),
            Wire::Tcp(stream) => (&mut report.tcp, stream.write(&request)),
        };
        count.sent += 1;
        match taken {
            Ok(REQUEST) => {
                self.waiting.insert(self.next, Instant::now());
            }
            Ok(_) | Err(_) => count.refused += 1,
        }
        self.next += 1;
    }

    fn listen(&mut self, number: u64, report: &mut Report, times: &mut Vec<Duration>) {
        let mut bytes = [0; 2048];
        loop {
            let (count, read) = match &mut self.wire {
                Wire::Udp(socket) => (&mut report.udp, socket.recv(&mut bytes)),
                Wire::Tcp(stream) => (&mut report.tcp, stream.read(&mut bytes)),
            };
            match read {
                // An empty datagram is nothing of ours.
                Ok(0) if matches!(self.wire, Wire::Udp(_)) => count.strange += 1,
                Ok(0) => {
                    self.broken = true;
                    return;
                }
                Ok(len) => self.begun.extend(bytes.get(..len).unwrap_or_default()),
                Err(error) if timed_out(&error) => return,
                // What an ICMP error says about a datagram is counted by the answer that does not come.
                Err(_) if matches!(self.wire, Wire::Udp(_)) => continue,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
            while let Some((answer, rest)) = self.begun.split_first_chunk::<REQUEST>() {
                let answer = u128::from_be_bytes(*answer);
                self.begun = rest.to_vec();
                let asked = self.waiting.remove(&(answer as u64));
                match asked.filter(|_| (answer >> 64) as u64 == number) {
                    Some(asked) => {
                        count.answered += 1;
                        times.push(asked.elapsed());
                    }
                    None => count.strange += 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_answered_over_loopback() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        thread::spawn(move || serve(free));
        let open = || TcpStream::connect(free).is_ok();
        assert!(crate::lab::tool::until(Duration::from_secs(5), open).unwrap());
        let report = run(free, &Load { udp: 3, tcp: 2, rate: 50, seconds: 0.4 }).unwrap();
        for (count, flows) in [(report.udp, 3), (report.tcp, 2)] {
            assert_eq!((count.flows, count.refused, count.strange), (flows, 0, 0), "{report:?}");
            assert!(count.sent >= flows * 18, "{report:?}");
            assert_eq!(count.answered, count.sent, "{report:?}");
        }
        assert_eq!(report.broken, 0);
    }

    #[test]
    fn what_is_not_answered_is_missing_in_the_count() {
        let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
        let load = Load { udp: 2, tcp: 0, rate: 20, seconds: 0.2 };
        let report = run(mute.local_addr().unwrap(), &load).unwrap();
        assert!(report.udp.sent >= 4 && report.udp.answered == 0, "{report:?}");
    }
}
