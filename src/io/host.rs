//! Reads what the machine is: interfaces, addresses, routes, ports. At start and reload only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::addr::{Prefix4, Prefix6};

/// The ephemeral ports of a kernel that does not say (Documentation/networking/ip-sysctl).
const USUAL_EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// What the machine is, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Interfaces with their addresses and prefix lengths.
    pub interfaces: Vec<(String, Vec<(IpAddr, u8)>)>,
    /// IPv4 routes: where to, and the interface.
    pub routes4: Vec<(Prefix4, String)>,
    /// IPv6 routes.
    pub routes6: Vec<(Prefix6, String)>,
    /// Source ports of the machine's own connections.
    pub ephemeral: RangeInclusive<u16>,
    /// Ports that the kernel leaves out when it takes one of those.
    pub reserved: Vec<RangeInclusive<u16>>,
}

/// A socket of the machine that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its own address.
    pub addr: IpAddr,
    /// Its own port.
    pub port: u16,
    /// Whether anybody can reach it, not only the one that it is connected to.
    pub listens: bool,
}

/// Asks the kernel. What this kernel does not have (no IPv6, say) is empty.
pub fn read() -> Host {
    let interfaces = pnet_datalink::interfaces().into_iter().map(|interface| {
        let addresses = interface.ips.iter().map(|net| (net.ip(), net.prefix())).collect();
        (interface.name, addresses)
    });
    Host {
        interfaces: interfaces.collect(),
        routes4: routes4(&proc_net("route").unwrap_or_default()),
        routes6: routes6(&proc_net("ipv6_route").unwrap_or_default()),
        ephemeral: std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
            .ok()
            .and_then(|text| ephemeral(&text))
            .unwrap_or(USUAL_EPHEMERAL),
        reserved: std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports")
            .map(|text| reserved(&text))
            .unwrap_or_default(),
    }
}

/// The sockets that IPv4 packets can reach. Takes its time where there are many.
pub fn sockets() -> Vec<Socket> {
    let read = |(file, protocol)| {
        let text = proc_net(file).unwrap_or_default();
        text.lines().filter_map(|line| socket(line, protocol)).collect::<Vec<_>>()
    };
    [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")].into_iter().flat_map(read).collect()
}

/// The file as the network namespace of this thread sees it.
fn proc_net(name: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/thread-self/net/{name}"))
}

fn ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Some(low..=high),
        _ => None,
    }
}

/// A list like `5000,6000-6010`.
fn reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |word: &str| {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        Some(low.trim().parse().ok()?..=high.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

/// A line of `/proc/net/tcp` and its like: number, own address and port, the other's, state. Addresses are words in
/// network order, printed as numbers of this machine. What has a port only for a while after its end is left out, and so
/// is what IPv4 does not reach: of `::` it cannot be seen here, so that counts as reached.
fn socket(line: &str, protocol: &'static str) -> Option<Socket> {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    const CLOSE: &str = "07";
    let mut columns = line.split_whitespace().skip(1);
    let (addr, port) = columns.next()?.split_once(':')?;
    let state = columns.nth(1)?;
    let word = |at: usize| u32::from_str_radix(addr.get(at * 8..at * 8 + 8)?, 16).ok();
    let addr = if addr.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))
    } else {
        let mut octets = [0; 16];
        for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&word(at)?.to_ne_bytes());
        }
        let addr = Ipv6Addr::from(octets);
        match addr.to_ipv4_mapped() {
            Some(addr) => IpAddr::V4(addr),
            None if addr.is_unspecified() => IpAddr::V6(addr),
            None => return None,
        }
    };
    let port = u16::from_str_radix(port, 16).ok().filter(|port| *port != 0)?;
    let listens = if protocol == "tcp" { state == LISTEN } else { state == CLOSE };
    (state != TIME_WAIT).then_some(Socket { protocol, addr, port, listens })
}

/// `/proc/net/route`: interface, destination and, in the eighth column, mask; both in network order, printed as a
/// number of this machine.
fn routes4(text: &str) -> Vec<(Prefix4, String)> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let address = |at: usize| {
            let number = u32::from_str_radix(columns.get(at)?, 16).ok()?;
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        };
        let len = u8::try_from(address(7)?.to_bits().leading_ones()).ok()?;
        Some((Prefix4::covering(address(1)?, len), (*columns.first()?).to_owned()))
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// `/proc/net/ipv6_route`: destination, its length, …, interface. Unreachable and reject routes stand on `lo`.
fn routes6(text: &str) -> Vec<(Prefix6, String)> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let destination = u128::from_str_radix(columns.first()?, 16).ok()?;
        let len = u8::from_str_radix(columns.get(1)?, 16).ok()?;
        Some((Prefix6::covering(Ipv6Addr::from_bits(destination), len), (*columns.last()?).to_owned()))
    };
    text.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_tables_of_the_kernel() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t0064A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\nbroken\n";
        assert_eq!(
            routes4(v4),
            [
                ("0.0.0.0/0".parse().unwrap(), "eth0".to_owned()),
                ("192.168.100.0/24".parse().unwrap(), "eth1".to_owned()),
            ]
        );
        let v6 = "20010db8000600000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1\nbroken\n";
        assert_eq!(routes6(v6), [("2001:db8:6::/64".parse().unwrap(), "eth1".to_owned())]);
        assert_eq!(ephemeral("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(ephemeral("x"), None);
        assert_eq!(reserved("40000-65535,8080\n"), [40_000..=65_535, 8080..=8080]);
        assert_eq!(reserved("\n"), []);
    }

    #[test]
    fn reads_sockets() {
        let of =
            |words: [u32; 4]| words.map(|word| format!("{:08X}", u32::from_ne_bytes(word.to_be_bytes())));
        let line = |addr: &str, state: &str| {
            let rest = format!("{addr}:9C40 00000000:0000 {state} 00000000:00000000 00:00000000");
            socket(&format!("   0: {rest}"), "tcp").map(|s| (s.addr.to_string(), s.port, s.listens))
        };
        let [v4, ..] = of([0xc000_0201, 0, 0, 0]);
        assert_eq!(line(&v4, "0A"), Some(("192.0.2.1".into(), 40_000, true)));
        assert_eq!(line(&v4, "01"), Some(("192.0.2.1".into(), 40_000, false)));
        assert_eq!(line(&v4, "06"), None);
        assert_eq!(line(&of([0; 4]).concat(), "0A"), Some(("::".into(), 40_000, true)));
        let mapped = of([0, 0, 0xffff, 0xc000_0201]).concat();
        assert_eq!(line(&mapped, "0A"), Some(("192.0.2.1".into(), 40_000, true)));
        assert_eq!(line(&of([0x2001_0db8, 0, 0, 1]).concat(), "0A"), None);
        assert_eq!(socket("  sl  local_address rem_address   st", "tcp"), None);
    }

    #[test]
    fn this_machine_shows_a_socket_that_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = sockets().into_iter().find(|s| s.port == port && s.listens).unwrap();
        assert_eq!((found.protocol, found.addr), ("tcp", "127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let host = read();
        let lo = host.interfaces.iter().find(|(name, _)| name == "lo").unwrap();
        assert!(lo.1.iter().all(|(ip, _)| ip.is_loopback() || ip.is_ipv4()));
    }
}
