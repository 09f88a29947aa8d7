//! Reads what the machine is: interfaces, addresses, routes, ephemeral ports. At start and reload only.

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
    }
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
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let host = read();
        let lo = host.interfaces.iter().find(|(name, _)| name == "lo").unwrap();
        assert!(lo.1.iter().all(|(ip, _)| ip.is_loopback() || ip.is_ipv4()));
    }
}
