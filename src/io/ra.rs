//! The socket of router advertisements on one interface: a raw ICMPv6 socket that hears router discovery and nothing else.
//!
//! What the interface is called, and its addresses, come from `pnet_datalink`. Its packet channels are not used: they
//! would copy every frame of a gateway's interface to find the few solicitations among them.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrIn6, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use tokio::io::unix::AsyncFd;

use crate::wire::nd::{ADVERTISEMENT, ALL_NODES, ALL_ROUTERS, HOP_LIMIT, SOLICITATION};

/// Linux: which ICMPv6 types a raw socket does not get.
const ICMP6_FILTER: libc::c_int = 1;

/// The socket, not yet on a runtime: opened while the process may.
pub struct Opened {
    socket: OwnedFd,
    interface: String,
    index: u32,
}

/// The socket at work.
pub struct RaSocket {
    socket: AsyncFd<OwnedFd>,
    interface: String,
    index: u32,
}

/// An ICMPv6 message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The message.
    pub bytes: Vec<u8>,
    /// Who sent it.
    pub src: Ipv6Addr,
    /// Its hop limit.
    pub hop_limit: u8,
}

/// What an interface is on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its link-local address, the only legal source (RFC 4861 §6.1.2).
    pub link_local: Ipv6Addr,
    /// Its Ethernet address, if it has one.
    pub link_layer: Option<[u8; 6]>,
}

impl Opened {
    /// Opens the socket on `interface`. Needs CAP_NET_RAW.
    pub fn new(interface: &str) -> io::Result<Self> {
        let index = pnet_datalink::interfaces().into_iter().find(|found| found.name == interface);
        let index = index.ok_or_else(|| io::Error::other("there is no interface of that name"))?.index;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        only_router_discovery(&socket)?;
        setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &HOP_LIMIT.into())?;
        setsockopt(&socket, sockopt::Ipv6Ttl, &HOP_LIMIT.into())?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        join_all_routers(&socket, index)?;
        Ok(Self { socket, interface: interface.into(), index })
    }

    /// Puts it on the runtime of the caller.
    pub fn start(self) -> io::Result<RaSocket> {
        let Self { socket, interface, index } = self;
        // SAFETY: an OwnedFd is the same open descriptor until it is dropped.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(RaSocket { socket, interface, index })
    }
}

impl RaSocket {
    /// The interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What the interface is now.
    pub fn identity(&self) -> io::Result<Identity> {
        let found = pnet_datalink::interfaces().into_iter().find(|found| found.name == self.interface);
        let found = found.ok_or_else(|| io::Error::other("the interface is gone"))?;
        let link_local = found.ips.iter().find_map(|net| match net.ip() {
            IpAddr::V6(addr) if addr.segments()[0] & 0xffc0 == 0xfe80 => Some(addr),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        });
        Ok(Identity {
            link_local: link_local.ok_or_else(|| io::Error::other("it has no link-local address"))?,
            link_layer: found.mac.map(|mac| mac.octets()).filter(|mac| *mac != [0; 6]),
        })
    }

    /// Sends an advertisement to all nodes. The kernel writes its checksum once more.
    pub fn send(&self, src: Ipv6Addr, message: &[u8]) -> io::Result<()> {
        let from = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: src.octets() },
            ipi6_ifindex: self.index,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, self.index));
        let control = [ControlMessage::Ipv6PacketInfo(&from)];
        let fd = self.socket.get_ref().as_raw_fd();
        sendmsg(fd, &[IoSlice::new(message)], &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }

    /// The next message.
    pub async fn hear(&self) -> io::Result<Heard> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(heard) = ready.try_io(|socket| receive(socket.get_ref())) {
                return heard;
            }
        }
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Heard> {
    // An advertisement or solicitation fits the smallest MTU many times over; a longer one is cut and then refused.
    let mut bytes = vec![0; 2_048];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = cmsg_space!(libc::c_int);
    let heard =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let hops = heard.cmsgs()?.find_map(|message| {
        if let ControlMessageOwned::Ipv6HopLimit(hops) = message { u8::try_from(hops).ok() } else { None }
    });
    let (len, src) = (heard.bytes, heard.address.map_or(Ipv6Addr::UNSPECIFIED, |from| from.ip()));
    bytes.truncate(len);
    Ok(Heard { bytes, src, hop_limit: hops.unwrap_or(0) })
}

/// Lets nothing through but solicitations and advertisements.
fn only_router_discovery(socket: &OwnedFd) -> io::Result<()> {
    // A set bit keeps a type out (RFC 3542 §3.2, as Linux has it).
    let mut filter = [u32::MAX; 8];
    for kind in [SOLICITATION, ADVERTISEMENT] {
        if let Some(word) = filter.get_mut(usize::from(kind >> 5)) {
            *word &= !(1 << (kind & 31));
        }
    }
    set(socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)
}

fn join_all_routers(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let request = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr { s6_addr: ALL_ROUTERS.octets() },
        ipv6mr_interface: index,
    };
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
}

/// Sets an option whose value is a plain C structure `T`.
fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length are those of `value`, which lives until the call returns; the kernel only reads it.
    let set = unsafe {
        let (value, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), level, name, value, len)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
