//! Opening the sockets, while the process may still open port 53.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind as bind_fd, listen, setsockopt, socket,
    sockopt,
};

use super::Limits;

/// Where to listen, with UDP and TCP on each address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenSettings {
    /// Addresses and ports; `[::]` stands for every IPv6 address, `0.0.0.0` for every IPv4 address. Port 0 takes
    /// any free port, for tests.
    pub addresses: Vec<SocketAddr>,
}

/// Open sockets that nobody serves yet. They survive the loss of privileges.
#[derive(Debug)]
pub struct Bound {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

/// A socket that could not be opened.
#[derive(Debug)]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// What the operating system says.
    pub cause: io::Error,
}

/// Opens all sockets or none.
pub fn bind(settings: &ListenSettings) -> Result<Bound, BindError> {
    let mut bound = Bound { udp: Vec::new(), tcp: Vec::new() };
    for &address in &settings.addresses {
        let (udp, tcp) = pair(address)?;
        bound.udp.push(udp);
        bound.tcp.push(tcp);
    }
    Ok(bound)
}

impl Bound {
    /// The addresses in the order of the settings, with the real ports.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.udp.iter().map(UdpSocket::local_addr).collect()
    }
}

impl fmt::Display for BindError {
    #[allow(clippy::wildcard_enum_match_arm)] // the list of error kinds is open
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, transport, cause } = self;
        write!(f, "DNS cannot listen on {transport} {address}: {cause}; ")?;
        let port = address.port();
        f.write_str(&match cause.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program holds the port: find it with `ss -lnptu sport = :{port}` and stop it \
                 (systemd-resolved: DNSStubListener=no), or listen on single addresses instead of all"
            ),
            io::ErrorKind::PermissionDenied => {
                "start as root or with CAP_NET_BIND_SERVICE, or use a port above 1023".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface has this address (a new IPv6 address needs a second or two): add it, or listen \
                 on another one"
                    .to_owned()
            }
            _ => "check the address in the listen setting".to_owned(),
        })
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Every question in flight may hold a few sockets. A low soft limit would turn load into failures, so it is
/// raised as far as needed and allowed.
pub(super) fn raise_file_limit(limits: &Limits) {
    let wanted = limits.in_flight * 6 + limits.tcp_connections + 256;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let target = (wanted as u64).min(hard);
    if soft < target && setrlimit(Resource::RLIMIT_NOFILE, target, hard).is_err() {
        tracing::warn!(soft, target, "cannot raise the limit of open files; DNS may fail under load");
    }
}

/// UDP and TCP on the same port.
fn pair(address: SocketAddr) -> Result<(UdpSocket, TcpListener), BindError> {
    let attempts = if address.port() == 0 { 16 } else { 1 };
    let mut last = None;
    for _ in 0..attempts {
        let udp = udp(address).map_err(|cause| BindError { address, transport: "UDP", cause })?;
        let with_port = udp.local_addr().unwrap_or(address);
        match tcp(with_port) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(cause) => last = Some(cause),
        }
    }
    let cause = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(BindError { address, transport: "TCP", cause })
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let fd = open(address, SockType::Datagram)?;
    // Tells with each datagram which address it was sent to.
    match address {
        SocketAddr::V4(_) => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    bind_fd(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd.into())
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = open(address, SockType::Stream)?;
    // A restart must not wait for old connections to vanish.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind_fd(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd.into())
}

fn open(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(address: &str) -> ListenSettings {
        ListenSettings { addresses: vec![address.parse().unwrap()] }
    }

    #[test]
    fn udp_and_tcp_share_the_port() {
        let bound = bind(&on("127.0.0.1:0")).unwrap();
        assert_eq!(bound.tcp[0].local_addr().unwrap(), bound.addresses().unwrap()[0]);
        assert_ne!(bound.addresses().unwrap()[0].port(), 0);
    }

    #[test]
    fn an_occupied_port_names_address_and_remedy() {
        let first = bind(&on("127.0.0.1:0")).unwrap();
        let taken = first.addresses().unwrap()[0];
        let error = bind(&ListenSettings { addresses: vec![taken] }).unwrap_err();
        assert_eq!((error.address, error.cause.kind()), (taken, io::ErrorKind::AddrInUse));
        let text = error.to_string();
        assert!(text.contains(&taken.to_string()) && text.contains("ss -lnptu"), "{text}");
    }

    #[test]
    fn a_foreign_address_names_the_remedy() {
        let error = bind(&on("192.0.2.1:0")).unwrap_err();
        assert!(error.to_string().contains("no interface has this address"), "{error}");
    }

    #[test]
    fn both_families_share_a_port() {
        let v6 = bind(&on("[::]:0")).unwrap();
        let port = v6.addresses().unwrap()[0].port();
        bind(&ListenSettings { addresses: vec![SocketAddr::from(([0, 0, 0, 0], port))] }).unwrap();
    }
}
