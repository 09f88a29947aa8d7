//! Compares a plan with the machine it shall run on. The facts come from `io::host`, or from a test.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::{Checked, Nat64Plan, Pool4Mode, Pool4Plan, SiitPlan, TranslatorPlan};
use crate::addr::{Prefix4, Prefix6};
use crate::control::problem::{Fault, Problem, Problems};
use crate::xlat::eam::Home;

pub use crate::io::host::Socket;

/// Ports that one complaint names.
const MOST_NAMED: usize = 5;

/// What the checks need to know about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Names of all interfaces.
    pub interfaces: Vec<String>,
    /// Their addresses.
    pub addresses: Vec<HostAddress>,
    /// Routes of the main table.
    pub routes: Vec<HostRoute>,
    /// Source ports of the machine's own connections.
    pub ephemeral: RangeInclusive<u16>,
    /// Those that it never takes for that.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// Sockets that IPv4 packets can reach.
    pub sockets: Vec<Socket>,
}

/// An address of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The interface that has it.
    pub interface: String,
    /// The address.
    pub addr: IpAddr,
    /// Length of its subnet's prefix.
    pub len: u8,
}

/// A route of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRoute {
    /// For IPv4.
    V4 {
        /// Where to.
        prefix: Prefix4,
        /// The interface it leaves by.
        interface: String,
    },
    /// For IPv6.
    V6 {
        /// Where to.
        prefix: Prefix6,
        /// The interface it leaves by.
        interface: String,
    },
}

impl HostFacts {
    /// The facts of this machine now.
    pub fn read() -> Self {
        Self { sockets: crate::io::host::sockets(), ..Self::without_sockets() }
    }

    /// The same without its sockets, of which there may be many.
    pub fn without_sockets() -> Self {
        let host = crate::io::host::read();
        let addresses = host.interfaces.iter().flat_map(|(interface, addresses)| {
            addresses.iter().map(|&(addr, len)| HostAddress { interface: interface.clone(), addr, len })
        });
        let v4 = host.routes4.into_iter().map(|(prefix, interface)| HostRoute::V4 { prefix, interface });
        let v6 = host.routes6.into_iter().map(|(prefix, interface)| HostRoute::V6 { prefix, interface });
        Self {
            addresses: addresses.collect(),
            routes: v4.chain(v6).collect(),
            ephemeral: host.ephemeral,
            reserved: host.reserved,
            sockets: Vec::new(),
            interfaces: host.interfaces.into_iter().map(|(name, _)| name).collect(),
        }
    }
}

/// What stands between the plan and this machine, in the order of the file.
pub fn check_host(checked: &Checked, facts: &HostFacts) -> Vec<Problem> {
    let mut problems = Problems::with_places(checked.places.clone());
    let host = Host { checked, facts };
    match &checked.plan.translator {
        TranslatorPlan::Nat64(nat64) => {
            host.pool4(nat64, &mut problems);
            for (i, pref64) in nat64.pool6.iter().enumerate() {
                host.prefix6(pref64.prefix(), &format!("nat64.pool6[{i}]"), &mut problems);
            }
        }
        TranslatorPlan::Siit(siit) => host.siit(siit, &mut problems),
    }
    host.dns(&mut problems);
    problems.into_sorted().0
}

struct Host<'a> {
    checked: &'a Checked,
    facts: &'a HostFacts,
}

impl Host<'_> {
    /// Addresses of everything but our own device, which may have been left by an earlier run.
    fn addresses(&self) -> impl Iterator<Item = &HostAddress> {
        self.facts.addresses.iter().filter(|addr| addr.interface != self.checked.plan.tun_name)
    }

    fn addresses4(&self) -> impl Iterator<Item = (&HostAddress, Ipv4Addr)> {
        self.addresses().filter_map(|host| match host.addr {
            IpAddr::V4(addr) => Some((host, addr)),
            IpAddr::V6(_) => None,
        })
    }

    fn pool4(&self, nat64: &Nat64Plan, problems: &mut Problems) {
        for (i, pool) in nat64.pool4.iter().enumerate() {
            let path = format!("nat64.pool4[{i}]");
            if pool.mode != Pool4Mode::Shared {
                self.pool4_addresses(pool, &format!("{path}.prefix"), problems);
            }
            match &pool.mode {
                Pool4Mode::Shared => self.shared(pool, &path, problems),
                Pool4Mode::OnLink { interface } => self.on_link(pool, interface, &path, problems),
                Pool4Mode::Routed => self.routed(pool, &format!("{path}.prefix"), problems),
            }
        }
    }

    fn pool4_addresses(&self, pool: &Pool4Plan, path: &str, problems: &mut Problems) {
        for (host, addr) in self.addresses4().filter(|(_, addr)| pool.range.prefix.contains(*addr)) {
            let (address, interface) = (addr.to_string(), host.interface.clone());
            problems.error(path, Fault::PoolIsHost { address, interface });
        }
    }

    /// An address of this machine, whose ports in the range nobody here may use.
    fn shared(&self, pool: &Pool4Plan, path: &str, problems: &mut Problems) {
        let (addr, ports) = (pool.range.prefix.addr(), &pool.range.ports);
        if !self.addresses4().any(|(_, own)| own == addr) {
            problems.error(&format!("{path}.prefix"), Fault::SharedNotHere { address: addr.to_string() });
        }
        let path = format!("{path}.ports");
        let HostFacts { ephemeral, reserved, sockets, .. } = self.facts;
        let is_reserved = |port: u16| reserved.iter().any(|range| range.contains(&port));
        if ports.clone().any(|port| ephemeral.contains(&port) && !is_reserved(port)) {
            let (low, high) = (*ports.start(), *ports.end());
            let list = reserved.iter().chain([ports]).map(|r| format!("{}-{}", r.start(), r.end()));
            let free = list.collect::<Vec<_>>().join(",");
            let ephemeral = format!("{}-{}", ephemeral.start(), ephemeral.end());
            problems.error(&path, Fault::SharedEphemeral { low, high, ephemeral, free });
        }
        let used = |listens: bool| {
            let ours = |s: &&Socket| s.addr.is_unspecified() || s.addr == addr;
            let used =
                sockets.iter().filter(|s| s.listens == listens && ports.contains(&s.port)).filter(ours);
            let mut used: Vec<_> = used.map(|s| (s.port, s.protocol)).collect();
            used.sort_unstable();
            used.dedup();
            let rest = used.len().saturating_sub(MOST_NAMED);
            let mut text: Vec<_> =
                used.iter().take(MOST_NAMED).map(|(port, protocol)| format!("{port}/{protocol}")).collect();
            if rest > 0 {
                text.push(format!("+{rest}"));
            }
            (!text.is_empty()).then(|| text.join(", "))
        };
        if let Some(ports) = used(true) {
            problems.error(&path, Fault::SharedPortInUse { ports });
        }
        if let Some(ports) = used(false) {
            problems.warning(&path, Fault::SharedPortConnected { ports });
        }
    }

    fn on_link(&self, pool: &Pool4Plan, interface: &str, path: &str, problems: &mut Problems) {
        if !self.facts.interfaces.iter().any(|name| name == interface) {
            let tun = self.checked.plan.tun_name.as_str();
            let others = self.facts.interfaces.iter().map(String::as_str);
            let present = others.filter(|name| *name != "lo" && *name != tun).collect::<Vec<_>>().join(", ");
            let value = interface.to_owned();
            problems.error(&format!("{path}.interface"), Fault::NoInterface { value, present });
            return;
        }
        let value = pool.range.prefix;
        let inside = self.addresses4().any(|(host, addr)| {
            let subnet = Prefix4::covering(addr, host.len);
            host.interface == interface && subnet.contains(value.addr()) && subnet.len() <= value.len()
        });
        if !inside {
            let (value, interface) = (value.to_string(), interface.to_owned());
            problems.warning(&format!("{path}.prefix"), Fault::NotOnLink { value, interface });
        }
    }

    fn routed(&self, pool: &Pool4Plan, path: &str, problems: &mut Problems) {
        let value = pool.range.prefix;
        let on_link = self.addresses4().find(|(host, addr)| {
            host.interface != "lo" && host.len < 32 && Prefix4::covering(*addr, host.len).overlaps(value)
        });
        if let Some((host, _)) = on_link {
            let interface = host.interface.clone();
            problems.warning(path, Fault::OnLinkButRouted { value: value.to_string(), interface });
            return;
        }
        self.routed_elsewhere(value, path, problems);
    }

    fn routed_elsewhere(&self, value: Prefix4, path: &str, problems: &mut Problems) {
        for route in &self.facts.routes {
            // A shorter route loses against ours.
            if let HostRoute::V4 { prefix, interface } = route
                && *interface != self.checked.plan.tun_name
                && prefix.overlaps(value)
                && prefix.len() >= value.len()
            {
                let (route, interface) = (prefix.to_string(), interface.clone());
                problems.warning(path, Fault::RoutedElsewhere { value: value.to_string(), route, interface });
            }
        }
    }

    /// An IPv6 prefix that shall lead to the translator.
    fn prefix6(&self, value: Prefix6, path: &str, problems: &mut Problems) {
        for host in self.addresses() {
            if matches!(host.addr, IpAddr::V6(addr) if value.contains(addr)) {
                let (address, interface) = (host.addr.to_string(), host.interface.clone());
                problems.error(path, Fault::Pool6IsHost { address, interface });
            }
        }
        for route in &self.facts.routes {
            if let HostRoute::V6 { prefix, interface } = route
                && *interface != self.checked.plan.tun_name
                && prefix.overlaps(value)
                && prefix.len() >= value.len()
            {
                let (route, interface) = (prefix.to_string(), interface.clone());
                let value = value.to_string();
                problems.warning(path, Fault::RoutedElsewhere { value, route, interface });
            }
        }
    }

    fn siit(&self, siit: &SiitPlan, problems: &mut Problems) {
        // IPv6 nodes with addresses under the prefix have more special routes of their own (RFC 7915 §5.6).
        if siit.translatable4.is_empty() {
            self.prefix6(siit.prefix.prefix(), "siit.prefix", problems);
        }
        for (i, eam) in siit.eam.rows().iter().enumerate() {
            match eam.home {
                Home::V6 => self.mapped4(eam.v4, &format!("siit.eam[{i}].ipv4"), problems),
                Home::V4 => self.prefix6(eam.v6, &format!("siit.eam[{i}].ipv6"), problems),
            }
        }
        for (key, list) in [("translatable4", &siit.translatable4), ("icmp6-pool4", &siit.icmp6_pool4)] {
            for (i, prefix) in list.iter().enumerate() {
                self.mapped4(*prefix, &format!("siit.{key}[{i}]"), problems);
            }
        }
    }

    /// An IPv4 prefix that shall lead to the stateless translator.
    fn mapped4(&self, value: Prefix4, path: &str, problems: &mut Problems) {
        for (host, _) in self.addresses4().filter(|(_, addr)| value.contains(*addr)) {
            let (address, interface) = (host.addr.to_string(), host.interface.clone());
            problems.error(path, Fault::MappedIsHost { address, interface });
        }
        let on_link = self.addresses4().find(|(host, addr)| {
            host.interface != "lo" && host.len < 32 && Prefix4::covering(*addr, host.len).overlaps(value)
        });
        match on_link {
            Some((host, _)) => {
                let interface = host.interface.clone();
                problems.warning(path, Fault::OnLinkMapped { value: value.to_string(), interface });
            }
            None => self.routed_elsewhere(value, path, problems),
        }
    }

    fn dns(&self, problems: &mut Problems) {
        let Some(dns) = &self.checked.plan.dns64 else { return };
        let is_here =
            |ip: IpAddr| ip.is_loopback() || self.facts.addresses.iter().any(|host| host.addr == ip);
        for (key, listen) in dns.listeners() {
            if !listen.ip().is_unspecified() && !is_here(listen.ip()) {
                let value = listen.ip().to_string();
                problems.warning(&key, Fault::ListenNotHere { value });
            }
        }
        let path = |group: usize, i: usize| match group.checked_sub(1) {
            None => format!("dns64.upstream[{i}]"),
            Some(forward) => format!("dns64.forward[{forward}].upstream[{i}]"),
        };
        let groups = std::iter::once(&dns.upstream).chain(&dns.groups).enumerate();
        let upstreams =
            groups.flat_map(|(group, list)| list.iter().enumerate().map(move |(i, u)| (group, i, u)));
        for (group, i, upstream) in upstreams {
            let addr = upstream.addr;
            let ours = dns.listeners().map(|(_, listen)| listen).find(|listen| {
                listen.ip().is_unspecified()
                    && listen.port() == addr.port()
                    && listen.is_ipv6() == addr.is_ipv6()
            });
            if let Some(listen) = ours.filter(|_| is_here(addr.ip())) {
                let (value, listen) = (addr.to_string(), listen.to_string());
                problems.error(&path(group, i), Fault::DnsLoop { value, listen });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::plan::check;
    use crate::text::Lang;

    fn facts() -> HostFacts {
        let address = |interface: &str, addr: &str, len| HostAddress {
            interface: interface.into(),
            addr: addr.parse().unwrap(),
            len,
        };
        HostFacts {
            interfaces: ["lo", "eth0", "eth1", "nat64"].map(String::from).to_vec(),
            addresses: vec![
                address("lo", "127.0.0.1", 8),
                address("eth0", "203.0.113.2", 24),
                address("eth1", "2001:db8:6::1", 64),
                address("nat64", "198.51.100.1", 32),
            ],
            routes: vec![
                HostRoute::V4 { prefix: "0.0.0.0/0".parse().unwrap(), interface: "eth0".into() },
                HostRoute::V4 { prefix: "192.0.2.0/25".parse().unwrap(), interface: "eth1".into() },
                HostRoute::V4 { prefix: "198.51.100.0/24".parse().unwrap(), interface: "nat64".into() },
                HostRoute::V6 { prefix: "2001:db8:99::/96".parse().unwrap(), interface: "eth0".into() },
            ],
            ephemeral: 32_768..=60_999,
            reserved: vec![8080..=8080, 40_000..=50_000],
            sockets: vec![
                socket("tcp", "0.0.0.0", 22, true),
                socket("tcp", "::", 45_000, true),
                socket("udp", "203.0.113.2", 45_001, true),
                socket("udp", "127.0.0.1", 46_000, true),
                socket("tcp", "203.0.113.2", 47_000, false),
            ],
        }
    }

    fn socket(protocol: &'static str, addr: &str, port: u16, listens: bool) -> Socket {
        Socket { protocol, addr: addr.parse().unwrap(), port, listens }
    }

    /// `path: code` of every complaint.
    fn complaints(text: &str) -> Vec<String> {
        let problems = check_host(&check(text).unwrap(), &facts());
        problems
            .iter()
            .map(|p| format!("{} {}: {}", p.line.unwrap(), p.path, p.view(Lang::En).code))
            .collect()
    }

    fn pool(prefix: &str, more: &str) -> Vec<String> {
        complaints(&format!("[nat64]\n[[nat64.pool4]]\nprefix = \"{prefix}\"\n{more}"))
    }

    #[test]
    fn a_routed_pool_of_our_own_is_fine() {
        assert_eq!(pool("198.51.100.0/28", ""), [""; 0]);
    }

    #[test]
    fn g33_an_address_of_the_machine_is_refused() {
        assert_eq!(
            pool("203.0.113.0/28", "mode = \"onlink\"\ninterface = \"eth0\""),
            ["3 nat64.pool4[0].prefix: pool-is-host"]
        );
    }

    #[test]
    fn an_address_that_is_shared_needs_ports_that_are_free() {
        let shared = |prefix: &str, ports: &str| {
            pool(prefix, &format!("mode = \"shared\"\nports = \"{ports}\"\nblock-size = 64"))
        };
        let at = |code: &str| [format!("5 nat64.pool4[0].ports: {code}")];
        // Outside of the ephemeral ports, or among those that are kept from them.
        for ports in ["1024-32767", "61000-65535", "48000-50000"] {
            assert_eq!(shared("203.0.113.2/32", ports), [""; 0], "{ports}");
        }
        assert_eq!(shared("203.0.113.2/32", "50000-50512"), at("shared-ephemeral"));
        assert_eq!(shared("203.0.113.2/32", "40000-45000"), at("shared-port-in-use"));
        assert_eq!(shared("203.0.113.2/32", "45001-45600"), at("shared-port-in-use"));
        // Nobody reaches a socket of the loopback from outside.
        assert_eq!(shared("203.0.113.2/32", "45600-46500"), [""; 0]);
        assert_eq!(shared("203.0.113.2/32", "46600-47600"), at("shared-port-connected"));
        assert_eq!(shared("203.0.113.3/32", "48000-50000"), ["3 nat64.pool4[0].prefix: shared-not-here"]);
        let facts = HostFacts { sockets: Vec::new(), ..facts() };
        let text = "[nat64]\n[[nat64.pool4]]\nprefix = \"203.0.113.2/32\"\nmode = \"shared\"";
        let problems = check_host(&check(text).unwrap(), &facts);
        let remedy = problems[0].view(Lang::En).remedy;
        assert!(remedy.contains("ip_local_reserved_ports=8080-8080,40000-50000,1024-65535 "), "{remedy}");
    }

    #[test]
    fn on_link_pools() {
        assert_eq!(pool("203.0.113.16/28", "mode = \"onlink\"\ninterface = \"eth0\""), [""; 0]);
        assert_eq!(
            pool("203.0.113.16/28", "mode = \"onlink\"\ninterface = \"wan\""),
            ["5 nat64.pool4[0].interface: no-interface"]
        );
        assert_eq!(
            pool("198.51.100.0/28", "mode = \"onlink\"\ninterface = \"eth0\""),
            ["3 nat64.pool4[0].prefix: not-on-link"]
        );
        assert_eq!(pool("203.0.113.16/28", ""), ["3 nat64.pool4[0].prefix: on-link-but-routed"]);
    }

    #[test]
    fn routes_of_others() {
        assert_eq!(pool("192.0.2.0/24", ""), ["3 nat64.pool4[0].prefix: routed-elsewhere"]);
        assert_eq!(
            complaints(
                "[nat64]\npool6 = [\n\"2001:db8:99::/96\",\n\"2001:db8:6::/96\"]\n\
                 [[nat64.pool4]]\nprefix = \"198.51.100.0/28\"\n"
            ),
            ["3 nat64.pool6[0]: routed-elsewhere", "4 nat64.pool6[1]: pool6-is-host"]
        );
    }

    #[test]
    fn addresses_of_a_stateless_translator() {
        let siit = |ipv4: &str, ipv6: &str, more: &str| {
            complaints(&format!(
                "[siit]\nprefix = \"2001:db8:64::/96\"\nicmp6-pool4 = [\"198.51.100.9\"]\n\
                 [[siit.eam]]\nipv4 = \"{ipv4}\"\nipv6 = \"{ipv6}\"\n{more}"
            ))
        };
        assert_eq!(siit("198.51.100.1", "2001:db8:6::11", ""), [""; 0]);
        assert_eq!(
            siit("203.0.113.2", "2001:db8:6::11", ""),
            ["5 siit.eam[0].ipv4: mapped-is-host", "5 siit.eam[0].ipv4: on-link-mapped"]
        );
        assert_eq!(siit("203.0.113.9", "2001:db8:6::11", ""), ["5 siit.eam[0].ipv4: on-link-mapped"]);
        assert_eq!(siit("192.0.2.0/24", "2001:db8:7::/64", ""), ["5 siit.eam[0].ipv4: routed-elsewhere"]);
        // Of an IPv4 node it is the IPv6 address that must come here.
        assert_eq!(siit("203.0.113.80", "2001:db8:5::80", "home = \"ipv4\""), [""; 0]);
        assert_eq!(
            siit("203.0.113.80", "2001:db8:6::1", "home = \"ipv4\""),
            ["6 siit.eam[0].ipv6: pool6-is-host"]
        );
    }

    #[test]
    fn dns_addresses() {
        let dns = |listen: &str, upstream: &str| {
            complaints(&format!(
                "nat64.pool4 = [{{ prefix = \"198.51.100.0/28\" }}]\n[dns64]\nlisten = [\"{listen}\"]\n\
                 upstream = [\"{upstream}\"]\n"
            ))
        };
        assert_eq!(dns("[2001:db8:6::1]:53", "203.0.113.53"), [""; 0]);
        assert_eq!(dns("[::]:53", "2001:db8:6::1"), ["4 dns64.upstream[0]: dns-loop"]);
        assert_eq!(dns("[::]:53", "[2001:db8:6::1]:5353"), [""; 0]);
        assert_eq!(dns("[2001:db8:6::2]:53", "203.0.113.53"), ["3 dns64.listen[0]: listen-not-here"]);
    }
}
