//! A flood of new sessions at a given rate: a UDP spray, TCP SYNs and pings with many identifiers, a third of each, from
//! many source addresses of one /64. Nobody here waits for answers.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket,
    sockopt,
};
use serde::Serialize;

use super::cpu_time;
use crate::addr::Prefix6;
use crate::wire::checksum::pseudo6;

/// Packets go out together once in this time.
const TICK: Duration = Duration::from_micros(500);
/// Packets between two looks at the clock where there is no rate.
const BURST: u64 = 64;
/// Who falls behind by more than this does not make up for it: a burst is not the rate that was asked for.
const LATEST: Duration = Duration::from_millis(5);
/// Bytes behind the transport header of UDP and pings.
const PAYLOAD: usize = 18;
/// Hosts and source ports of the UDP spray: each of these mappings is then used for many destinations.
const SPRAYERS: u64 = 64;
const SPRAY_PORTS: u64 = 4;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// What to send.
#[derive(Clone, Copy, Debug, Args)]
pub struct Load {
    /// The /64 that the sources are in
    #[arg(long)]
    pub from: Prefix6,
    /// Where UDP and SYNs go: any address and any port of it
    #[arg(long)]
    pub spray: Prefix6,
    /// Packets a second; 0: as many as this machine sends
    #[arg(long, default_value_t = 1000)]
    pub rate: u32,
    /// Seconds
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Another number makes other addresses, ports and identifiers
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Report {
    /// Packets of all kinds.
    pub sent: u64,
    /// Of these UDP datagrams.
    pub udp: u64,
    /// Of these TCP SYNs.
    pub syn: u64,
    /// Of these pings.
    pub ping: u64,
    /// Packets that this machine did not take.
    pub refused: u64,
    /// How long it took.
    pub seconds: f64,
    /// Packets a second.
    pub per_second: f64,
    /// CPU time of this process.
    pub cpu_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Syn,
    Ping,
}

/// Sends; `target` is who is pinged.
pub fn run(target: Ipv6Addr, load: &Load) -> io::Result<Report> {
    let socket = raw()?;
    let mut maker = Maker { target, load: *load, chance: load.seed };
    let mut report = Report::default();
    let (began, cpu) = (Instant::now(), cpu_time());
    let time = Duration::try_from_secs_f64(load.seconds).unwrap_or(Duration::from_secs(1));
    // Where the plan begins; it moves on when this machine cannot follow.
    let (mut start, mut done) = (began, 0u64);
    let mut packet = Vec::with_capacity(128);
    while began.elapsed() < time {
        let due = match load.rate {
            0 => done + BURST,
            rate => (start.elapsed().as_secs_f64() * f64::from(rate)) as u64,
        };
        let most = (LATEST.as_secs_f64() * f64::from(load.rate)) as u64 + 1;
        if load.rate != 0 && due > done + most {
            (start, done) = (Instant::now(), 0);
            continue;
        }
        for _ in done..due {
            let kind = [Kind::Udp, Kind::Syn, Kind::Ping][(report.sent % 3) as usize];
            let to = maker.make(kind, &mut packet);
            match sendto(
                socket.as_raw_fd(),
                &packet,
                &SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0)),
                MsgFlags::empty(),
            ) {
                Ok(_) => report.sent += 1,
                Err(Errno::ENOBUFS | Errno::EAGAIN) => report.refused += 1,
                Err(error) => return Err(error.into()),
            }
            match kind {
                Kind::Udp => report.udp += 1,
                Kind::Syn => report.syn += 1,
                Kind::Ping => report.ping += 1,
            }
        }
        done = due;
        if load.rate != 0 {
            thread::sleep(TICK);
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.per_second = report.sent as f64 / report.seconds;
    report.cpu_seconds = (cpu_time() - cpu).as_secs_f64();
    Ok(report)
}

/// IPPROTO_RAW: the packet brings its IPv6 header itself, with any source.
fn raw() -> io::Result<OwnedFd> {
    let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    setsockopt(&raw, sockopt::SndBufForce, &(4 << 20))?;
    Ok(raw)
}

/// Makes packets by chance.
struct Maker {
    target: Ipv6Addr,
    load: Load,
    chance: u64,
}

impl Maker {
    /// Writes the next packet of a kind; gives its destination.
    fn make(&mut self, kind: Kind, packet: &mut Vec<u8>) -> Ipv6Addr {
        let (number, look) = (self.next(), self.next());
        let (port, peer_port) = ((number >> 48) as u16, (number >> 32) as u16 | 1);
        let (protocol, checksum_at, src, dst, l4) = match kind {
            Kind::Udp => {
                let host = number % SPRAYERS + 1;
                let port = 4096 + (number / SPRAYERS % SPRAY_PORTS) as u16;
                let len = (8 + PAYLOAD) as u16;
                let l4 = [port, peer_port, len, 0].map(u16::to_be_bytes).concat();
                (UDP, 6, host, self.sprayed(look), [l4, vec![0; PAYLOAD]].concat())
            }
            Kind::Syn => {
                let ports = [port | 1, peer_port].map(u16::to_be_bytes).concat();
                let rest = [&look.to_be_bytes()[4..], &[0; 4], &[0x50, 2, 0xff, 0, 0, 0, 0, 0]].concat();
                (TCP, 16, look, self.sprayed(number), [ports, rest].concat())
            }
            Kind::Ping => {
                let l4 = [0x8000, 0, port, 1].map(u16::to_be_bytes).concat();
                (ICMP6, 2, look, self.target, [l4, vec![0; PAYLOAD]].concat())
            }
        };
        let src = within(self.load.from, src);
        let checksum = pseudo6(src, dst, protocol, l4.len() as u32).bytes(&l4).checksum();
        // RFC 768: a UDP checksum that comes out as zero is sent as all ones; the others may have either.
        let checksum = if checksum == 0 { u16::MAX } else { checksum };
        packet.clear();
        packet.extend([0x60, 0, 0, 0]);
        packet.extend((l4.len() as u16).to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend(src.octets());
        packet.extend(dst.octets());
        let l4_at = packet.len();
        packet.extend(l4);
        for (to, byte) in packet.iter_mut().skip(l4_at + checksum_at).zip(checksum.to_be_bytes()) {
            *to = byte;
        }
        dst
    }

    fn sprayed(&self, number: u64) -> Ipv6Addr {
        within(self.load.spray, number)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Some address of a prefix.
fn within(prefix: Prefix6, number: u64) -> Ipv6Addr {
    let free = u128::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
    Ipv6Addr::from_bits(prefix.addr().to_bits() | u128::from(number) & free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> Maker {
        let load = Load {
            from: "2001:db8:a::/64".parse().unwrap(),
            spray: "2001:db8:64::203.0.113.128/121".parse().unwrap(),
            rate: 1,
            seconds: 1.0,
            seed: 7,
        };
        Maker { target: "2001:db8:64::203.0.113.80".parse().unwrap(), load, chance: 7 }
    }

    #[test]
    fn each_packet_is_whole_and_its_checksum_right() {
        let mut maker = maker();
        let mut packet = Vec::new();
        for kind in [Kind::Udp, Kind::Syn, Kind::Ping].into_iter().cycle().take(300) {
            let to = maker.make(kind, &mut packet);
            let sliced = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net else { panic!("{packet:02x?}") };
            assert_eq!(ip.header().destination_addr(), to);
            assert!(maker.load.from.contains(ip.header().source_addr()));
            let (protocol, spray) = match sliced.transport {
                Some(etherparse::TransportSlice::Udp(_)) => (UDP, true),
                Some(etherparse::TransportSlice::Tcp(tcp)) => (TCP, tcp.syn() && !tcp.ack()),
                Some(etherparse::TransportSlice::Icmpv6(_)) => (ICMP6, false),
                other => panic!("{other:?}"),
            };
            assert_eq!(maker.load.spray.contains(to), spray);
            let l4 = packet.get(40..).unwrap();
            let (src, dst) = (ip.header().source_addr(), ip.header().destination_addr());
            assert_eq!(pseudo6(src, dst, protocol, l4.len() as u32).bytes(l4).fold(), 0xffff);
        }
    }

    #[test]
    fn many_sources_and_many_destinations() {
        let mut maker = maker();
        let mut packet = Vec::new();
        let mut pairs = std::collections::HashSet::new();
        for _ in 0..1000 {
            maker.make(Kind::Syn, &mut packet);
            pairs.insert(packet.get(8..44).unwrap().to_vec());
        }
        assert_eq!(pairs.len(), 1000);
    }
}
