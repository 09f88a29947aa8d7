//! Datagrams by the batch: one `recvmmsg` for what is there, one `sendmmsg` for the replies. All buffers are made once.
//! The only room of the DNS service with `unsafe`.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::ptr::{addr_of, null_mut};

/// Datagrams that are taken at once.
pub(super) const BATCH: usize = 32;
/// Longer queries do not exist; what is cut off fails to parse.
pub(super) const MAX_QUERY: usize = 4096;
/// The longest reply over UDP.
pub(super) const MAX_REPLY: usize = crate::dns64::UDP_PAYLOAD as usize;

/// Where a datagram came from, and which of our addresses it was sent to, where that is not clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) client: SocketAddr,
    pub(super) asked: Option<Asked>,
}

/// One of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    V4(Ipv4Addr),
    /// With the interface, which only a link-local address needs; any other reply goes where the routes say.
    V6(Ipv6Addr, u32),
}

/// Room for [`BATCH`] queries and their replies.
pub(super) struct Batch {
    places: Box<[Place]>,
    /// How many of them the last receive filled.
    filled: usize,
}

/// One datagram and its reply.
struct Place {
    query: [u8; MAX_QUERY],
    query_len: usize,
    reply: [u8; MAX_REPLY],
    /// 0: no reply, for now.
    reply_len: usize,
    name: libc::sockaddr_storage,
    control: Control,
    control_len: usize,
    peer: Option<Peer>,
}

/// Ancillary data, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// A query and the room for its reply.
pub(super) struct Slot<'a> {
    pub(super) query: &'a [u8],
    pub(super) peer: Peer,
    pub(super) out: &'a mut [u8; MAX_REPLY],
    reply_len: &'a mut usize,
}

impl Slot<'_> {
    /// The first bytes of `out` are the reply.
    pub(super) fn reply(self, len: usize) {
        *self.reply_len = len.min(MAX_REPLY);
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        let place = || Place {
            query: [0; MAX_QUERY],
            query_len: 0,
            reply: [0; MAX_REPLY],
            reply_len: 0,
            // SAFETY: a sockaddr_storage is plain data for which zeros are a valid value.
            name: unsafe { zeroed() },
            control: Control([0; 64]),
            control_len: 0,
            peer: None,
        };
        Self { places: (0..BATCH).map(|_| place()).collect(), filled: 0 }
    }

    /// Takes what is there, without waiting. The count may be less than what came: what has no address to answer is
    /// left out by [`Self::slots`].
    pub(super) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.filled = 0;
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut messages = [EMPTY_MESSAGE; BATCH];
        for ((place, vector), message) in self.places.iter_mut().zip(&mut vectors).zip(&mut messages) {
            *vector = libc::iovec { iov_base: place.query.as_mut_ptr().cast(), iov_len: MAX_QUERY };
            let header = &mut message.msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut place.name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_control = place.control.0.as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>();
        }
        // SAFETY: each header points to one vector and to a name and a control buffer of the stated sizes, all of them
        // alive and not otherwise used until the call returns.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        let taken = usize::try_from(taken).map_err(|_| io::Error::last_os_error())?;
        for (place, message) in self.places.iter_mut().zip(&messages).take(taken) {
            place.query_len = (message.msg_len as usize).min(MAX_QUERY);
            place.reply_len = 0;
            place.peer = client(&place.name).map(|client| Peer { client, asked: asked(&message.msg_hdr) });
        }
        self.filled = taken;
        Ok(taken)
    }

    /// The queries of the last receive.
    pub(super) fn slots(&mut self) -> impl Iterator<Item = Slot<'_>> {
        self.places.iter_mut().take(self.filled).filter_map(|place| {
            Some(Slot {
                query: place.query.get(..place.query_len)?,
                peer: place.peer?,
                out: &mut place.reply,
                reply_len: &mut place.reply_len,
            })
        })
    }

    /// Sends the replies that there are. Returns how many the system refused; a full send buffer loses replies, as the
    /// network might.
    pub(super) fn send(&mut self, socket: &impl AsRawFd) -> usize {
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut messages = [EMPTY_MESSAGE; BATCH];
        let mut count = 0;
        let filled = self.places.iter_mut().take(self.filled).filter(|place| place.reply_len > 0);
        for ((place, vector), message) in filled.zip(&mut vectors).zip(&mut messages) {
            let Some(peer) = place.peer else { continue };
            *vector = libc::iovec { iov_base: place.reply.as_mut_ptr().cast(), iov_len: place.reply_len };
            let header = &mut message.msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            // The name is still the client's, as the kernel wrote it.
            header.msg_name = (&raw mut place.name).cast();
            header.msg_namelen = name_len(peer.client);
            place.control_len = peer.asked.map_or(0, |asked| write_asked(&mut place.control, asked));
            if place.control_len > 0 {
                header.msg_control = place.control.0.as_mut_ptr().cast();
                header.msg_controllen = place.control_len;
            }
            count += 1;
        }
        let mut refused = 0;
        let mut rest = messages.get_mut(..count).unwrap_or_default();
        while !rest.is_empty() {
            // SAFETY: each header points to one vector, a name and control data of the stated sizes, all of them alive
            // until the call returns.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            // An error is that of the first message; the others have not been tried.
            let done = usize::try_from(sent).unwrap_or_else(|_| {
                refused += 1;
                1
            });
            rest = rest.get_mut(done.max(1)..).unwrap_or_default();
        }
        refused
    }
}

/// Sends one reply on its own.
pub(super) fn send_one(socket: &impl AsRawFd, peer: Peer, reply: &[u8]) -> io::Result<()> {
    // SAFETY: a sockaddr_storage is plain data for which zeros are a valid value.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    write_name(&mut name, peer.client);
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec { iov_base: reply.as_ptr().cast_mut().cast(), iov_len: reply.len() };
    let mut header = EMPTY_MESSAGE.msg_hdr;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = name_len(peer.client);
    if let Some(asked) = peer.asked {
        header.msg_controllen = write_asked(&mut control, asked);
        header.msg_control = control.0.as_mut_ptr().cast();
    }
    // SAFETY: the header points to one vector, a name and control data of the stated sizes, all of them alive until
    // the call returns; sending only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: null_mut(), iov_len: 0 };

const EMPTY_MESSAGE: libc::mmsghdr = libc::mmsghdr {
    // SAFETY: a msghdr is plain data; null pointers with lengths of zero are a valid value.
    msg_hdr: unsafe { zeroed() },
    msg_len: 0,
};

fn client(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: a sockaddr_storage is large enough for, and aligned like, every address; the family says which.
            let v4 = unsafe { &*addr_of!(*name).cast::<libc::sockaddr_in>() };
            let addr = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(addr, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*addr_of!(*name).cast::<libc::sockaddr_in6>() };
            let addr = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(addr, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_name(name: &mut libc::sockaddr_storage, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large enough for, and aligned like, every address.
            unsafe { (&raw mut *name).cast::<libc::sockaddr_in>().write(v4) };
        }
        SocketAddr::V6(address) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut *name).cast::<libc::sockaddr_in6>().write(v6) };
        }
    }
}

const fn name_len(address: SocketAddr) -> libc::socklen_t {
    match address {
        SocketAddr::V4(_) => size_of::<libc::sockaddr_in>() as libc::socklen_t,
        SocketAddr::V6(_) => size_of::<libc::sockaddr_in6>() as libc::socklen_t,
    }
}

/// The packet information among the ancillary data of a datagram that was received with this header.
fn asked(header: &libc::msghdr) -> Option<Asked> {
    // SAFETY: the kernel has written the control data and its length; the macros walk within it.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: a header that the macros return lies within the control data.
        let (level, kind) = unsafe { ((*at).cmsg_level, (*at).cmsg_type) };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(at) };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: a control message of this type holds an in_pktinfo, perhaps unaligned.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                // The local address even when the datagram was sent to a broadcast address.
                return Some(Asked::V4(u32::from_be(info.ipi_spec_dst.s_addr).into()));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: a control message of this type holds an in6_pktinfo, perhaps unaligned.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                return Some(Asked::V6(info.ipi6_addr.s6_addr.into(), info.ipi6_ifindex));
            }
            _ => {}
        }
        // SAFETY: `at` lies within the control data of `header`.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    None
}

/// Makes the control message that sends from this address; its length.
fn write_asked(control: &mut Control, asked: Asked) -> usize {
    match asked {
        Asked::V4(from) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        Asked::V6(from, interface) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: if from.is_unicast_link_local() { interface } else { 0 },
            };
            write_control(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn write_control<T: Copy>(control: &mut Control, level: libc::c_int, kind: libc::c_int, data: T) -> usize {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: these macros only compute lengths.
    let (len, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size)) };
    if space as usize > control.0.len() {
        return 0;
    }
    let header = libc::cmsghdr { cmsg_len: len as usize, cmsg_level: level, cmsg_type: kind };
    let at = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: the buffer has room for a header and the data, as just checked, and is aligned for the header.
    unsafe {
        at.write(header);
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(data);
    }
    space as usize
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    /// Waits until something is there.
    fn receive(batch: &mut Batch, socket: &UdpSocket) -> usize {
        for _ in 0..200 {
            match batch.receive(socket) {
                Ok(taken) => return taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("nothing came");
    }

    #[test]
    fn queries_come_and_replies_go_to_whoever_asked() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(host).unwrap();
            let to = server.local_addr().unwrap();
            match to {
                SocketAddr::V4(_) => setsockopt(&server, sockopt::Ipv4PacketInfo, &true).unwrap(),
                SocketAddr::V6(_) => setsockopt(&server, sockopt::Ipv6RecvPacketInfo, &true).unwrap(),
            }
            let clients: Vec<_> = (0..3).map(|_| UdpSocket::bind(host).unwrap()).collect();
            for (i, client) in clients.iter().enumerate() {
                client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                client.connect(to).unwrap();
                client.send(&[i as u8; 40][..10 + i]).unwrap();
            }
            let mut batch = Batch::new();
            assert_eq!(receive(&mut batch, &server), 3);
            let mut peers = Vec::new();
            for slot in batch.slots() {
                let Slot { query, peer, .. } = &slot;
                assert_eq!(query.len(), 10 + usize::from(query[0]));
                let asked = match peer.asked.unwrap() {
                    Asked::V4(addr) => addr.to_string(),
                    Asked::V6(addr, _) => addr.to_string(),
                };
                assert_eq!(asked, to.ip().to_string());
                peers.push(*peer);
                let (first, len) = (query[0], query.len());
                // The second gets nothing in this batch.
                if first != 1 {
                    slot.out[..len].fill(first + 100);
                    slot.reply(len);
                }
            }
            assert_eq!(batch.send(&server), 0);
            send_one(&server, peers[1], b"later").unwrap();
            for (i, client) in clients.iter().enumerate() {
                assert_eq!(peers[i].client, client.local_addr().unwrap());
                let mut got = [0; 64];
                let len = client.recv(&mut got).unwrap();
                let expected = if i == 1 { b"later".to_vec() } else { vec![i as u8 + 100; 10 + i] };
                assert_eq!(got[..len], expected);
            }
        }
    }

    #[test]
    fn a_refused_reply_does_not_hold_back_the_others() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for _ in 0..3 {
            client.send_to(b"?", server.local_addr().unwrap()).unwrap();
        }
        let mut batch = Batch::new();
        assert_eq!(receive(&mut batch, &server), 3);
        batch.slots().for_each(|slot| slot.reply(1));
        // An address that this socket cannot send from.
        batch.places[0].peer.as_mut().unwrap().asked = Some(Asked::V4([192, 0, 2, 77].into()));
        assert_eq!(batch.send(&server), 1);
        let mut got = [0; 8];
        assert_eq!((client.recv(&mut got).unwrap(), client.recv(&mut got).unwrap()), (1, 1));
    }
}
