//! Closed loop of small UDP packets: a fixed number is on the way, each reply makes the next packet.
//!
//! The load adapts to what the path carries, so CPU time per packet can be compared without drops (an open flood
//! makes the translator burn CPU on packets that it loses).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;

use super::{any_of, cpu_time, timed_out};

/// Without any reply for so long, what is on the way counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// What to keep on the way.
#[derive(Clone, Copy, Debug, Args)]
pub struct Load {
    /// Packets on the way at once, over all flows
    #[arg(long, default_value_t = 256)]
    pub outstanding: u32,
    /// Sockets, each with a port of its own
    #[arg(long, default_value_t = 8)]
    pub flows: u32,
    /// Bytes of payload, at least 12
    #[arg(long, default_value_t = 18)]
    pub payload: u16,
    /// Seconds
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Packets that came back; each crossed the path twice.
    pub round_trips: u64,
    /// Packets that did not come back.
    pub lost: u64,
    /// How long it took.
    pub seconds: f64,
    /// Packets a second, both directions counted.
    pub packets_per_second: f64,
    /// CPU time of this process.
    pub cpu_seconds: f64,
}

/// Runs the client.
pub fn run(server: SocketAddr, load: &Load) -> io::Result<Report> {
    let began = Instant::now();
    let cpu = cpu_time();
    let end = began + Duration::try_from_secs_f64(load.seconds).unwrap_or(Duration::from_secs(1));
    let flows = load.flows.max(1);
    let window = load.outstanding.div_ceil(flows).max(1);
    let payload = usize::from(load.payload).max(12);
    let clients: Vec<_> =
        (0..flows).map(|_| thread::spawn(move || one_flow(server, window, payload, end))).collect();
    let (mut round_trips, mut lost) = (0, 0);
    for client in clients {
        let flow = client.join().map_err(|_| io::Error::other("a flow's thread ended early"))??;
        round_trips += flow.0;
        lost += flow.1;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Report {
        round_trips,
        lost,
        seconds,
        packets_per_second: round_trips as f64 * 2.0 / seconds,
        cpu_seconds: (cpu_time() - cpu).as_secs_f64(),
    })
}

/// Sends everything back until the process ends.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    serve_on(&socket(listen)?)
}

pub(super) fn serve_on(socket: &UdpSocket) -> io::Result<()> {
    let mut packet = [0; 65_536];
    loop {
        let (len, from) = match socket.recv_from(&mut packet) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        // A reply that cannot be sent is a lost packet, and the client counts those.
        let _ = socket.send_to(packet.get(..len).unwrap_or_default(), from);
    }
}

/// A socket that can hold everything that is on the way: what is lost is then lost on the path.
pub(super) fn socket(bind: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(bind)?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    Ok(socket)
}

/// Round trips and losses of one socket. The epoch in a packet tells replies that were given up from awaited ones.
fn one_flow(server: SocketAddr, window: u32, payload: usize, end: Instant) -> io::Result<(u64, u64)> {
    let socket = socket(any_of(server))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    let (mut round_trips, mut lost) = (0, 0);
    let mut epoch = 0u32;
    let mut reply = [0; 65_536];
    let mut packet = vec![0; payload];
    while Instant::now() < end {
        epoch = epoch.wrapping_add(1);
        for (byte, value) in packet.iter_mut().zip(epoch.to_be_bytes()) {
            *byte = value;
        }
        let mut outstanding = 0u64;
        for _ in 0..window {
            // A full queue is a loss like any other.
            if socket.send(&packet).is_ok() {
                outstanding += 1;
            } else {
                lost += 1;
            }
        }
        while outstanding > 0 {
            match socket.recv(&mut reply) {
                Ok(len) if reply.get(..len).is_some_and(|r| r == packet) => {
                    round_trips += 1;
                    if Instant::now() >= end || socket.send(&packet).is_err() {
                        outstanding -= 1;
                    }
                }
                Ok(_) => {}
                Err(error) if timed_out(&error) => {
                    lost += outstanding;
                    outstanding = 0;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok((round_trips, lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_turns_over_loopback() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        thread::spawn(move || serve_on(&socket));
        let report = run(server, &Load { outstanding: 8, flows: 2, payload: 18, seconds: 0.2 }).unwrap();
        assert!(report.round_trips > 100, "{report:?}");
        assert_eq!(report.lost, 0, "{report:?}");
    }

    #[test]
    fn packets_without_a_reply_are_lost_and_it_ends() {
        // Bound and silent.
        let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nobody = mute.local_addr().unwrap();
        let began = Instant::now();
        let report = run(nobody, &Load { outstanding: 2, flows: 1, payload: 18, seconds: 0.1 }).unwrap();
        assert_eq!((report.round_trips, report.lost), (0, 2), "{report:?}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
