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

/// Bytes of datagrams that wait to be read, as the kernel counts them.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Where to listen. `[::]` stands for every IPv6 address, `0.0.0.0` for every IPv4 address. Port 0 takes any free port,
/// for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenSettings {
    /// Addresses and ports for UDP and TCP.
    pub addresses: Vec<SocketAddr>,
    /// Addresses and ports for TLS.
    pub tls: Vec<SocketAddr>,
    /// Addresses and ports for HTTPS.
    pub https: Vec<SocketAddr>,
}

/// Open sockets that nobody serves yet. They survive the loss of privileges.
#[derive(Debug)]
pub struct Bound {
    /// One for each address and thread: the kernel deals the clients among the threads.
    pub(super) udp: Vec<Vec<UdpSocket>>,
    pub(super) tcp: Vec<TcpListener>,
    pub(super) tls: Vec<TcpListener>,
    pub(super) https: Vec<TcpListener>,
}

/// A socket that could not be opened.
#[derive(Debug)]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// `UDP`, `TCP`, `TLS` or `HTTPS`.
    pub transport: &'static str,
    /// What the operating system says.
    pub cause: io::Error,
}

/// Opens all sockets or none, UDP for so many threads.
pub fn bind(settings: &ListenSettings, threads: usize) -> Result<Bound, BindError> {
    let stream = |transport| {
        move |&address: &SocketAddr| tcp(address).map_err(|cause| BindError { address, transport, cause })
    };
    let mut bound = Bound {
        udp: (0..threads.max(1)).map(|_| Vec::new()).collect(),
        tcp: Vec::new(),
        tls: settings.tls.iter().map(stream("TLS")).collect::<Result<_, _>>()?,
        https: settings.https.iter().map(stream("HTTPS")).collect::<Result<_, _>>()?,
    };
    for &address in &settings.addresses {
        let (tcp, udp) = both(address, bound.udp.len())?;
        bound.tcp.push(tcp);
        for (sockets, socket) in bound.udp.iter_mut().zip(udp) {
            sockets.push(socket);
        }
    }
    Ok(bound)
}

impl Bound {
    /// The addresses for UDP and TCP in the order of the settings, with the real ports.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.tcp.iter().map(TcpListener::local_addr).collect()
    }

    /// The addresses for TLS.
    pub fn tls_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.tls.iter().map(TcpListener::local_addr).collect()
    }

    /// The addresses for HTTPS.
    pub fn https_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.https.iter().map(TcpListener::local_addr).collect()
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

/// Every question in flight may hold two sockets, when both answers are too long for UDP. A low soft limit would turn load into failures, so it is
/// raised as far as needed and allowed.
pub(super) fn raise_file_limit(limits: &Limits) {
    let wanted = limits.in_flight * 2 + limits.tcp_connections + 256;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let target = (wanted as u64).min(hard);
    if soft < target && setrlimit(Resource::RLIMIT_NOFILE, target, hard).is_err() {
        tracing::warn!(soft, target, "cannot raise the limit of open files; DNS may fail under load");
    }
}

/// UDP and TCP on the same port. TCP first: a second service of the same user could share the port over UDP and take
/// half of the datagrams, but over TCP it is told that the port is taken.
fn both(address: SocketAddr, threads: usize) -> Result<(TcpListener, Vec<UdpSocket>), BindError> {
    let attempts = if address.port() == 0 { 16 } else { 1 };
    let mut last = None;
    for _ in 0..attempts {
        let tcp = tcp(address).map_err(|cause| BindError { address, transport: "TCP", cause })?;
        let with_port = tcp.local_addr().unwrap_or(address);
        match (0..threads).map(|_| udp(with_port)).collect() {
            Ok(udp) => return Ok((tcp, udp)),
            Err(cause) => last = Some(cause),
        }
    }
    let cause = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(BindError { address, transport: "UDP", cause })
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let fd = open(address, SockType::Datagram)?;
    // Tells with each datagram which address it was sent to, where that is not clear.
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => {}
    }
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    // A burst of clients waits here while the thread works on the one before. What the system allows is enough.
    let _ = setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER);
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
        ListenSettings { addresses: vec![address.parse().unwrap()], ..ListenSettings::default() }
    }

    #[test]
    fn udp_and_tcp_share_the_port() {
        let bound = bind(&on("127.0.0.1:0"), 3).unwrap();
        assert!(bound.udp.iter().all(|sockets| {
            sockets.len() == 1 && sockets[0].local_addr().unwrap() == bound.addresses().unwrap()[0]
        }));
        assert_eq!((bound.udp.len(), bound.tcp.len()), (3, 1));
        assert_eq!(bound.tcp[0].local_addr().unwrap(), bound.addresses().unwrap()[0]);
        assert_ne!(bound.addresses().unwrap()[0].port(), 0);
    }

    #[test]
    fn an_occupied_port_names_address_and_remedy() {
        let first = bind(&on("127.0.0.1:0"), 2).unwrap();
        let taken = first.addresses().unwrap()[0];
        let error = bind(&on(&taken.to_string()), 1).unwrap_err();
        assert_eq!((error.address, error.cause.kind()), (taken, io::ErrorKind::AddrInUse));
        let text = error.to_string();
        assert!(text.contains(&taken.to_string()) && text.contains("ss -lnptu"), "{text}");
    }

    #[test]
    fn a_foreign_address_names_the_remedy() {
        let error = bind(&on("192.0.2.1:0"), 1).unwrap_err();
        assert!(error.to_string().contains("no interface has this address"), "{error}");
    }

    #[test]
    fn both_families_share_a_port() {
        let v6 = bind(&on("[::]:0"), 2).unwrap();
        let port = v6.addresses().unwrap()[0].port();
        bind(&on(&format!("0.0.0.0:{port}")), 2).unwrap();
    }
}
