//! Traffic for tests and measurements: what iperf3 and curl cannot make. Each client prints one JSON object.
//!
//! [`gso`] sends UDP super-packets (`UDP_SEGMENT`) and counts what arrives; [`echo`] keeps a fixed number of small
//! UDP packets on the way; [`connect`] opens TCP connections, moves a byte each way and resets them; [`flood`] makes as many
//! new sessions as it is told, and [`flows`] knows to the packet what it does to others. [`spread`] is [`echo`] over as many
//! flows as a large network has, with the time of each round trip; [`offer`] sends at a rate and has the rest counted.

pub mod connect;
pub mod echo;
pub mod flood;
pub mod flows;
pub mod gso;
pub mod offer;
pub mod spread;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Subcommand;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::LabError;

/// Subcommands of `sampan lab blast`.
#[derive(Debug, Subcommand)]
pub enum BlastCommand {
    /// Answer `gso` clients until ended
    GsoServer {
        /// ADDRESS:PORT
        listen: SocketAddr,
    },
    /// Send UDP super-packets to the server, or with --reverse let it send them here
    Gso {
        /// ADDRESS:PORT of the server
        server: SocketAddr,
        /// How many super-packets, of how many segments, of how many bytes
        #[command(flatten)]
        load: gso::Load,
        /// From the server to this side
        #[arg(long)]
        reverse: bool,
    },
    /// Send every UDP packet back until ended
    EchoServer {
        /// ADDRESS:PORT
        listen: SocketAddr,
    },
    /// Closed loop: a fixed number of UDP packets on the way, each reply makes the next
    Echo {
        /// ADDRESS:PORT of the server
        server: SocketAddr,
        /// How many at once, on how many flows, how long
        #[command(flatten)]
        load: echo::Load,
    },
    /// Closed loop over the flows of many source addresses, and how long round trips take
    Spread {
        /// ADDRESS:PORT of an `echo-server`
        server: SocketAddr,
        /// How many flows, how many packets at once, how long
        #[command(flatten)]
        load: spread::Load,
    },
    /// Count for `offer` clients until ended
    OfferServer {
        /// ADDRESS:PORT
        listen: SocketAddr,
    },
    /// Send UDP packets at a rate; the server says how many arrived
    Offer {
        /// ADDRESS:PORT of the server
        server: SocketAddr,
        /// How fast, on how many flows, how long
        #[command(flatten)]
        load: offer::Load,
    },
    /// Send UDP, TCP SYNs and pings of many sources, ports and identifiers at a fixed rate
    Flood {
        /// Address to ping
        target: Ipv6Addr,
        /// From where, to where, how fast, how long
        #[command(flatten)]
        load: flood::Load,
    },
    /// Answer `flows` clients until ended
    FlowsServer {
        /// ADDRESS:PORT, for UDP and TCP
        listen: SocketAddr,
    },
    /// Numbered requests on many UDP and TCP flows, and how many of them were answered
    Flows {
        /// ADDRESS:PORT of the server
        server: SocketAddr,
        /// How many flows, how fast, how long
        #[command(flatten)]
        load: flows::Load,
    },
    /// Answer `connect` clients until ended
    ConnectServer {
        /// ADDRESS:PORT
        listen: SocketAddr,
    },
    /// Open TCP connections, move one byte each way, reset
    Connect {
        /// ADDRESS:PORT of the server
        server: SocketAddr,
        /// How many at once, how long
        #[command(flatten)]
        load: connect::Load,
    },
}

/// Runs one of them.
pub fn run(command: BlastCommand) -> Result<(), LabError> {
    let done = match command {
        BlastCommand::GsoServer { listen } => gso::serve(listen),
        BlastCommand::Gso { server, load, reverse: false } => gso::push(server, &load).and_then(print),
        BlastCommand::Gso { server, load, reverse: true } => gso::pull(server, &load).and_then(print),
        BlastCommand::EchoServer { listen } => echo::serve(listen),
        BlastCommand::Echo { server, load } => echo::run(server, &load).and_then(print),
        BlastCommand::Spread { server, load } => spread::run(server, &load).and_then(print),
        BlastCommand::OfferServer { listen } => offer::serve(listen),
        BlastCommand::Offer { server, load } => offer::run(server, &load).and_then(print),
        BlastCommand::Flood { target, load } => flood::run(target, &load).and_then(print),
        BlastCommand::FlowsServer { listen } => flows::serve(listen),
        BlastCommand::Flows { server, load } => flows::run(server, &load).and_then(print),
        BlastCommand::ConnectServer { listen } => connect::serve(listen),
        BlastCommand::Connect { server, load } => connect::run(server, &load).and_then(print),
    };
    done.map_err(LabError::io("blast"))
}

fn print(report: impl Serialize) -> io::Result<()> {
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// CPU time that this process has used so far.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// The unspecified address of the same family, any port.
fn any_of(family_of: SocketAddr) -> SocketAddr {
    match family_of {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    }
}

/// Whether an error only says that nothing came in time.
fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
