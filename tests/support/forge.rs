//! Packets with any source address, into a network namespace.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt, socket,
    sockopt,
};
use sampan::lab::Host;

use super::packet::Packet;

/// A raw socket on one host of a laboratory.
pub struct Forger(OwnedFd);

impl Forger {
    pub fn on(host: &Host) -> Self {
        let open = || {
            let raw =
                socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
            setsockopt(&raw, sockopt::SndBuf, &(4 << 20)).unwrap();
            raw
        };
        Self(host.netns().run(open).unwrap())
    }

    /// Sends the packet as it is; the kernel only routes it.
    pub fn send(&self, packet: &Packet) {
        let IpAddr::V4(dst) = packet.dst else { panic!("{packet:?} is not IPv4") };
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(dst, 0));
        let bytes = packet.bytes();
        let sent = sendto(self.0.as_raw_fd(), &bytes, &to, MsgFlags::empty()).unwrap();
        assert_eq!(sent, bytes.len());
    }
}

/// An address of the networks that routers of the laboratory have.
pub fn router(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n).into()
}
