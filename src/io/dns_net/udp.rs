//! The UDP listener. Our own, because it has to know which of the host's addresses was asked: a client drops a
//! reply that comes from another one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::answer::{Shared, Started};
use super::counters::Counter;
use crate::dns64::{Meta, Transport};

/// Longer queries do not exist; what is cut off fails to parse.
const MAX_QUERY: usize = 4096;

/// Serves one socket until it is dropped.
pub(super) async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_QUERY];
    // The tasks end with this one.
    let mut tasks = JoinSet::new();
    loop {
        let datagram = match socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)).await {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::debug!(%error, "receive failed");
                shared.counters().add(Counter::ReceiveFailed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        // Port 0 cannot be answered.
        if datagram.client.port() == 0 {
            shared.counters().add(Counter::ReceiveFailed);
            continue;
        }
        let meta = Meta { client: datagram.client.ip(), transport: Transport::Udp };
        let query = buffer.get(..datagram.len).unwrap_or_default();
        match shared.start(query, &meta) {
            Started::Reply(reply) => send(&socket, &shared, &datagram, &reply),
            Started::Waiting(waiting) => {
                let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
                tasks.spawn(async move {
                    let reply = shared.resume(waiting).await;
                    send(&socket, &shared, &datagram, &reply);
                });
            }
            Started::Nothing => {}
        }
    }
}

/// Where a datagram came from and which of our addresses it was sent to.
struct Datagram {
    len: usize,
    client: SocketAddr,
    asked: Option<Asked>,
}

enum Asked {
    V4(in_addr),
    V6(in6_pktinfo),
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut control = cmsg_space!(in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let mut asked = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = control {
            // The local address even when the datagram was sent to a broadcast address.
            asked = Some(Asked::V4(info.ipi_spec_dst));
        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = control {
            asked = Some(Asked::V6(info));
        }
    }
    let client = message.address.as_ref().and_then(client).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Datagram { len: message.bytes, client, asked })
}

fn client(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::new(v4.ip(), v4.port()).into());
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
}

/// Sends from the address that was asked. A full send buffer loses the reply, as the network might.
fn send(socket: &UdpSocket, shared: &Shared, datagram: &Datagram, reply: &[u8]) {
    let to = SockaddrStorage::from(datagram.client);
    let slices = [IoSlice::new(reply)];
    let (v4, v6);
    let control = match datagram.asked {
        Some(Asked::V4(from)) => {
            v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: in_addr { s_addr: 0 } };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some(Asked::V6(info)) => {
            v6 = in6_pktinfo { ipi6_addr: info.ipi6_addr, ipi6_ifindex: interface(&info) };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
        None => None,
    };
    let sent = sendmsg(socket.as_raw_fd(), &slices, control.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&to));
    if let Err(error) = sent {
        tracing::debug!(client = %datagram.client, %error, "send failed");
        shared.counters().add(Counter::SendFailed);
    }
}

/// Only a link-local address needs its interface; any other reply goes where the routes say.
fn interface(info: &in6_pktinfo) -> u32 {
    let in6_addr { s6_addr } = info.ipi6_addr;
    if Ipv6Addr::from(s6_addr).is_unicast_link_local() { info.ipi6_ifindex } else { 0 }
}
