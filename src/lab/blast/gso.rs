//! UDP super-packets: one `send` of many segments with `UDP_SEGMENT`, and an exact account of what arrives.
//!
//! Every segment is one datagram: 4 bytes mark, 1 byte kind, 2 bytes length, 4 bytes run, 4 bytes sequence number,
//! then a pattern that depends on the sequence number. So the receiver tells lost, doubled, cut, joined and damaged
//! ones apart.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::{any_of, timed_out};

const MARK: [u8; 4] = *b"SmpG";
const HEADER: usize = 15;
/// Receive buffer, large enough for a burst that is read slowly.
const BUFFER: usize = 32 << 20;
/// How long without a datagram until a pulling client stops waiting.
const SILENCE: Duration = Duration::from_millis(700);

/// How much to send.
#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub struct Load {
    /// Super-packets
    #[arg(long, default_value_t = 200)]
    pub count: u32,
    /// Segments of each
    #[arg(long, default_value_t = 30)]
    pub batch: u16,
    /// Bytes of payload in a segment
    #[arg(long, default_value_t = 1200)]
    pub segment: u16,
    /// Microseconds between super-packets
    #[arg(long, default_value_t = 200)]
    pub pause_us: u32,
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Datagrams that were sent.
    pub sent: u32,
    /// Different ones that arrived whole.
    pub received: u32,
    /// Arrived more than once.
    pub doubled: u32,
    /// Arrived with another length.
    pub wrong_length: u32,
    /// Arrived with changed bytes.
    pub damaged: u32,
}

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data = 1,
    /// A client wants the account of its run.
    Ask = 2,
    /// The account, as JSON behind the header.
    Tell = 3,
    /// A client wants data; the load follows as JSON.
    Pull = 4,
}

/// The fields of the header behind mark and kind.
#[derive(Clone, Copy, Debug)]
struct Head {
    segment: u16,
    run: u32,
    sequence: u32,
}

/// Sends to the server and returns the server's account.
pub fn push(server: SocketAddr, load: &Load) -> io::Result<Account> {
    let socket = socket(any_of(server))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let run = new_run();
    // An empty account first: the server is there and the path is open.
    ask(&socket, run)?;
    send_all(load, run, &socket, |bytes| socket.send(bytes))?;
    Ok(Account { sent: total(load), ..ask(&socket, run)? })
}

/// Asks the server, until it answers, what has arrived of a run.
fn ask(socket: &UdpSocket, run: u32) -> io::Result<Account> {
    let mut reply = [0; 2048];
    for _ in 0..10 {
        // An ICMP error for the last try shows up here; the next try may find the server ready.
        let got = socket.send(&header(Kind::Ask, run, 0, 0)).and_then(|_| socket.recv(&mut reply));
        match got {
            Ok(len) => {
                if let Some((Kind::Tell, head, body)) = parse(reply.get(..len).unwrap_or_default())
                    && head.run == run
                {
                    return Ok(serde_json::from_slice(body)?);
                }
            }
            Err(error) if timed_out(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => thread::sleep(SILENCE / 4),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not tell what arrived"))
}

/// Lets the server send and returns our own account.
pub fn pull(server: SocketAddr, load: &Load) -> io::Result<Account> {
    let socket = socket(any_of(server))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let run = new_run();
    ask(&socket, run)?;
    let mut pull = header(Kind::Pull, run, 0, 0).to_vec();
    pull.extend(serde_json::to_vec(load)?);
    socket.send(&pull)?;
    let mut counting = Counting::new(run);
    let mut datagram = [0; 65_536];
    while counting.account.received < total(load) {
        match socket.recv(&mut datagram) {
            Ok(len) => counting.take(datagram.get(..len).unwrap_or_default()),
            Err(error) if timed_out(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Account { sent: total(load), ..counting.account })
}

/// Answers clients, one after the other, until the process ends.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    serve_on(&socket(listen)?)
}

fn serve_on(socket: &UdpSocket) -> io::Result<()> {
    let mut counting = Counting::new(0);
    let mut datagram = [0; 65_536];
    loop {
        let (len, from) = match socket.recv_from(&mut datagram) {
            Ok(got) => got,
            // An ICMP error for an earlier reply; the next datagram is what counts.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let Some((kind, Head { run, .. }, body)) = parse(datagram.get(..len).unwrap_or_default()) else {
            continue;
        };
        if run != counting.run {
            counting = Counting::new(run);
        }
        match kind {
            Kind::Data => counting.take(datagram.get(..len).unwrap_or_default()),
            Kind::Ask => {
                let mut tell = header(Kind::Tell, run, 0, 0).to_vec();
                tell.extend(serde_json::to_vec(&counting.account)?);
                socket.send_to(&tell, from)?;
            }
            Kind::Pull => {
                let Ok(load) = serde_json::from_slice::<Load>(body) else { continue };
                let sent = send_all(&load, run, socket, |bytes| socket.send_to(bytes, from));
                if let Err(error) = sent {
                    // The client sees what did not arrive; the next one is served all the same.
                    eprintln!("blast: sending to {from}: {error}");
                }
            }
            Kind::Tell => {}
        }
    }
}

struct Counting {
    run: u32,
    seen: HashSet<u32>,
    account: Account,
}

impl Counting {
    fn new(run: u32) -> Self {
        Self { run, seen: HashSet::new(), account: Account::default() }
    }

    fn take(&mut self, datagram: &[u8]) {
        let Some((Kind::Data, head, body)) = parse(datagram) else { return };
        if head.run != self.run {
            return;
        }
        if datagram.len() != usize::from(head.segment) {
            self.account.wrong_length += 1;
        } else if !body.iter().zip(pattern(head.sequence)).all(|(got, meant)| *got == meant) {
            self.account.damaged += 1;
        } else if self.seen.insert(head.sequence) {
            self.account.received += 1;
        } else {
            self.account.doubled += 1;
        }
    }
}

fn send_all(
    load: &Load,
    run: u32,
    socket: &UdpSocket,
    send: impl Fn(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    setsockopt(socket, sockopt::UdpGsoSegment, &i32::from(load.segment))?;
    let mut sequence = 0;
    for _ in 0..load.count {
        let mut super_packet = Vec::with_capacity(usize::from(load.segment) * usize::from(load.batch));
        for _ in 0..load.batch {
            super_packet.extend(header(Kind::Data, run, sequence, load.segment));
            super_packet.extend(pattern(sequence).take(usize::from(load.segment).saturating_sub(HEADER)));
            sequence += 1;
        }
        send(&super_packet)?;
        if load.pause_us > 0 {
            thread::sleep(Duration::from_micros(load.pause_us.into()));
        }
    }
    setsockopt(socket, sockopt::UdpGsoSegment, &0)?;
    Ok(())
}

fn socket(bind: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(bind)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    Ok(socket)
}

fn header(kind: Kind, run: u32, sequence: u32, segment: u16) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.push(kind as u8);
    bytes.extend(segment.to_be_bytes());
    bytes.extend(run.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes
}

fn parse(datagram: &[u8]) -> Option<(Kind, Head, &[u8])> {
    let (head, body) = datagram.split_first_chunk::<HEADER>()?;
    let [m0, m1, m2, m3, kind, l0, l1, r0, r1, r2, r3, s0, s1, s2, s3] = *head;
    if [m0, m1, m2, m3] != MARK {
        return None;
    }
    let kind = match kind {
        1 => Kind::Data,
        2 => Kind::Ask,
        3 => Kind::Tell,
        4 => Kind::Pull,
        _ => return None,
    };
    let head = Head {
        segment: u16::from_be_bytes([l0, l1]),
        run: u32::from_be_bytes([r0, r1, r2, r3]),
        sequence: u32::from_be_bytes([s0, s1, s2, s3]),
    };
    Some((kind, head, body))
}

/// Bytes that differ from segment to segment, so that a swap of two is seen.
fn pattern(sequence: u32) -> impl Iterator<Item = u8> {
    let seed = sequence.wrapping_mul(0x9e37_79b1);
    (0u32..).map(move |at| (seed.wrapping_add(at.wrapping_mul(0x85eb_ca6b)) >> 24) as u8)
}

fn total(load: &Load) -> u32 {
    load.count.saturating_mul(load.batch.into())
}

fn new_run() -> u32 {
    let now = Instant::now();
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(format!("{now:?}"), std::process::id()), &mut hasher);
    // Never 0, which is the server's "no run yet".
    std::hash::Hasher::finish(&hasher) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(sequence: u32, len: u16) -> Vec<u8> {
        let mut bytes = header(Kind::Data, 7, sequence, len);
        bytes.extend(pattern(sequence).take(usize::from(len) - HEADER));
        bytes
    }

    #[test]
    fn the_account_tells_every_fault_apart() {
        let mut counting = Counting::new(7);
        counting.take(&datagram(0, 100));
        counting.take(&datagram(1, 100));
        counting.take(&datagram(1, 100));
        counting.take(&datagram(2, 100)[..90]);
        let mut joined = datagram(3, 100);
        joined.extend(datagram(4, 100));
        counting.take(&joined);
        let mut damaged = datagram(5, 100);
        damaged[60] ^= 1;
        counting.take(&damaged);
        counting.take(b"something else");
        let expected = Account { sent: 0, received: 2, doubled: 1, wrong_length: 2, damaged: 1 };
        assert_eq!(counting.account, expected);
    }

    #[test]
    fn super_packets_arrive_as_segments_over_loopback_both_ways() {
        let socket = socket(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let server = socket.local_addr().unwrap();
        thread::spawn(move || serve_on(&socket));
        let load = Load { count: 5, batch: 10, segment: 500, pause_us: 100 };
        let all = Account { sent: 50, received: 50, ..Account::default() };
        assert_eq!(push(server, &load).unwrap(), all);
        assert_eq!(pull(server, &load).unwrap(), all);
    }
}
