//! Layer 4: thin shells around the kernel. Whatever can be decided is decided below.

pub mod dns_net;
pub mod fastpath;
pub mod heap;
pub mod host;
pub mod mem;
pub mod netfilter;
pub mod netlink;
pub mod ra;
pub mod steering;
pub mod tun;
pub mod vnet;

use std::fs::File;
use std::io::{self, Read};

use crate::verdict::DropReason;
use crate::wire::packet::PacketBuf;

/// Bytes that nobody can guess, from the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Where a worker's packets come from and go to.
pub trait Device {
    /// Reads the next packet into `packet`, without waiting for one.
    fn recv(&mut self, packet: &mut PacketBuf) -> io::Result<Received>;

    /// Writes `packet` out.
    fn send(&mut self, packet: &mut PacketBuf) -> io::Result<()>;
}

/// What [`Device::recv`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet.
    Packet,
    /// A packet whose metadata cannot be understood: to be counted as this drop.
    Bad(DropReason),
    /// Nothing, for now.
    Nothing,
}
