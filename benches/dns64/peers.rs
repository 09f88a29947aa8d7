//! The servers under test: each with one thread on the same core, the same upstream, the same prefix.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

use crate::resolver::{self, Kind, Running};

/// The translation prefix.
pub const PREFIX: &str = "2001:db8:64::/96";

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    Sampan,
    Unbound,
    Bind,
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Sampan, Self::Unbound, Self::Bind];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sampan => "sampan",
            Self::Unbound => "unbound",
            Self::Bind => "bind",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Sampan => 5310,
            Self::Unbound => 5311,
            Self::Bind => 5312,
        }
    }

    /// What the server says about itself.
    pub fn version(self) -> String {
        let (program, arg) = match self {
            Self::Sampan => return env!("CARGO_PKG_VERSION").to_owned(),
            Self::Unbound => ("unbound", "-V"),
            Self::Bind => ("named", "-v"),
        };
        let said = Command::new(program).arg(arg).output();
        let text = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }
}

/// A peer's process.
pub struct Server {
    pub peer: Peer,
    pub addr: SocketAddr,
    running: Running,
}

impl Server {
    /// Starts it on a CPU and waits until it answers.
    pub fn start(peer: Peer, upstream: SocketAddr, dir: &Path, cpu: usize) -> io::Result<Self> {
        Self::start_with(peer, upstream, dir, cpu, &[])
    }

    /// The same with more arguments.
    pub fn start_with(
        peer: Peer,
        upstream: SocketAddr,
        dir: &Path,
        cpu: usize,
        more: &[String],
    ) -> io::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port()));
        let mut command = match peer {
            Peer::Sampan => {
                let own = std::env::current_exe()?.display().to_string();
                vec![own, "--serve".into(), addr.to_string(), "--upstream".into(), upstream.to_string()]
            }
            Peer::Unbound => resolver::command(Kind::Unbound, addr, upstream, Some(PREFIX), dir)?,
            Peer::Bind => resolver::command(Kind::Bind, addr, upstream, Some(PREFIX), dir)?,
        };
        command.extend_from_slice(more);
        let log = dir.join(format!("{}.log", peer.name()));
        Ok(Self { peer, addr, running: Running::start(&command, addr, Some(cpu), &log)? })
    }

    /// CPU time of the server so far, as user and system time.
    pub fn cpu(&self) -> io::Result<(f64, f64)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.running.pid()))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        Ok((ticks(11) / hertz, ticks(12) / hertz))
    }

    /// Memory in use, in kB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }
}
