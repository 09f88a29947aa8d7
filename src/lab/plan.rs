//! The network as data: which hosts, which cables, which addresses and routes. Nothing is built here.
//!
//! ```text
//! client1 ─┐                                                                  ┌ 203.0.113.80 nginx, iperf3
//!          lan ── (inside1 … n) ── gw ── router (router2 … n) ── server ──────┤
//! client2 ─┘                                                                  └ 203.0.113.53 NSD
//!   2001:db8:6::/64   2001:db8:6:n::/64   192.0.2.0/26 …      203.0.113.0/24
//! ```
//!
//! Where plain IPv4 and IPv6 forwarding are measured ([`Translator::Forward`], [`Translator::Nat44`]) the same
//! cables carry `10.6.n.0/24` on the inside and `2001:db8:4:n::/64` on the outside as well.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::options::{Cable, Options, PoolMode, Translator};

/// The server's address for web and bulk traffic.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The upstream DNS server, on the same host.
pub const DNS_UPSTREAM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// The server's IPv6 address where there is one.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x4, 0xff, 0, 0, 0, 0x80);
/// Everything on the clients' side.
pub const INSIDE6: &str = "2001:db8:6::/48";
/// The device name of the TUN in the gateway.
pub const TUN: &str = "nat64";
/// The gateway's device towards the clients.
pub const GW_INSIDE: &str = "lan0";
/// The gateway's device towards the server.
pub const GW_OUTSIDE: &str = "wan0";

/// A host of the network.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// `client1`, `client2`, `lan`, `inside1`…, `gw`, `router`, `router2`…, `server`.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// `ip route add` arguments.
    pub routes: Vec<String>,
}

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Uses the network; resolves names through the gateway.
    Client,
    /// Joins its devices to one LAN.
    Switch,
    /// Forwards.
    Router,
    /// Forwards and translates.
    Gateway,
    /// Serves.
    Server,
}

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct End {
    /// The host's name.
    pub host: String,
    /// The device's name there.
    pub device: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
}

/// A cable.
#[derive(Clone, Debug)]
pub struct CablePlan {
    /// The end nearer to the clients.
    pub near: End,
    /// The end nearer to the server.
    pub far: End,
    /// MTU at both ends.
    pub mtu: u32,
}

/// The whole network.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hosts, from the clients to the server.
    pub hosts: Vec<HostPlan>,
    /// Cables, from the clients to the server.
    pub cables: Vec<CablePlan>,
    /// The gateway's own address on the inside: resolver of the clients and first hop if no inside router is there.
    pub gateway6: Ipv6Addr,
    /// Inside routers' addresses as the clients' traceroute shows them, in order.
    pub inside_hops: Vec<Ipv6Addr>,
    /// Outside routers' addresses as traceroute shows them, in order.
    pub outside_hops: Vec<Ipv4Addr>,
    /// The shared IPv4 addresses.
    pub pool4: String,
}

impl Plan {
    /// Draws the network.
    pub fn new(options: &Options) -> Self {
        Drawing { options, plain: plain_forwarding(options) }.draw()
    }

    /// Address of client `n` (1 or 2).
    pub fn client6(n: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 0x10 + u16::from(n))
    }
}

fn plain_forwarding(options: &Options) -> bool {
    match options.translator {
        Translator::Forward | Translator::Nat44 => true,
        Translator::Sampan | Translator::Tayga | Translator::Nothing => false,
    }
}

struct Drawing<'a> {
    options: &'a Options,
    /// Both families everywhere.
    plain: bool,
}

impl Drawing<'_> {
    fn draw(&self) -> Plan {
        let inside = self.options.inside_routers;
        let outside = self.options.outside_routers;
        let pool4 = match self.options.pool_mode {
            PoolMode::Routed => "198.51.100.0/28",
            PoolMode::OnLink => "192.0.2.32/28",
        };

        let mut hosts = Vec::new();
        for n in 1..=self.options.clients {
            hosts.push(self.client(n));
        }
        if self.options.clients > 1 {
            hosts.push(HostPlan { name: "lan".into(), role: Role::Switch, routes: Vec::new() });
        }
        for n in 1..=inside {
            hosts.push(self.inside_router(n));
        }
        hosts.push(self.gateway());
        for n in 1..=outside {
            hosts.push(self.outside_router(n, pool4));
        }
        hosts.push(self.server(pool4));

        let mut cables = self.lan_cables();
        for n in 1..=inside {
            cables.push(self.inside_cable(n));
        }
        for n in 0..=outside {
            cables.push(self.outside_cable(n));
        }

        Plan {
            hosts,
            cables,
            gateway6: inside_net(inside, 1),
            inside_hops: (0..inside).map(|n| inside_net(n, 1)).collect(),
            outside_hops: (0..outside).map(|n| outside_net(n, 2)).collect(),
            pool4: pool4.into(),
        }
    }

    fn client(&self, n: u8) -> HostPlan {
        let mut routes = vec![format!("default via {}", inside_net(0, 1))];
        if self.plain {
            routes.push("default via 10.6.0.1".into());
        }
        HostPlan { name: format!("client{n}"), role: Role::Client, routes }
    }

    /// Inside router `n` stands between inside net `n - 1` (where it is `::1`) and net `n` (where it is `::2`).
    fn inside_router(&self, n: u8) -> HostPlan {
        let mut routes = vec![format!("default via {}", inside_net(n, 1))];
        // Nets nearer to the clients than its own two.
        for net in 0..n.saturating_sub(1) {
            routes.push(format!("{}/64 via {}", inside_net(net, 0), inside_net(n - 1, 2)));
            if self.plain {
                routes.push(format!("10.6.{net}.0/24 via 10.6.{}.2", n - 1));
            }
        }
        if self.plain {
            routes.push(format!("default via 10.6.{n}.1"));
        }
        HostPlan { name: format!("inside{n}"), role: Role::Router, routes }
    }

    fn gateway(&self) -> HostPlan {
        let (inside, outside) = (self.options.inside_routers, self.options.outside_routers);
        let mut routes = Vec::new();
        for net in 0..inside {
            routes.push(format!("{}/64 via {}", inside_net(net, 0), inside_net(inside, 2)));
            if self.plain {
                routes.push(format!("10.6.{net}.0/24 via 10.6.{inside}.2"));
            }
        }
        if outside > 0 {
            routes.push(format!("default via {}", outside_net(0, 2)));
            if self.plain {
                routes.push(format!("default via {}", outside6(outside, 0, 2)));
            }
        }
        HostPlan { name: "gw".into(), role: Role::Gateway, routes }
    }

    /// Outside router `n` stands between outside net `n - 1` (where it is `.2`) and net `n` (where it is `.1`).
    fn outside_router(&self, n: u8, pool4: &str) -> HostPlan {
        let outside = self.options.outside_routers;
        let mut routes = vec![format!("default via {}", outside_net(n - 1, 1))];
        if n == 1 && self.options.pool_mode == PoolMode::Routed {
            routes.push(format!("{pool4} via {}", outside_net(0, 1)));
        }
        for net in n + 1..outside {
            routes.push(format!("{}/26 via {}", outside_net(net, 0), outside_net(n, 2)));
        }
        if n < outside {
            routes.push(format!("203.0.113.0/24 via {}", outside_net(n, 2)));
        }
        if self.plain {
            routes.push(format!("default via {}", outside6(outside, n - 1, 1)));
            for net in n + 1..=outside {
                routes.push(format!("{}/64 via {}", outside6(outside, net, 0), outside6(outside, n, 2)));
            }
        }
        let name = if n == 1 { "router".into() } else { format!("router{n}") };
        HostPlan { name, role: Role::Router, routes }
    }

    fn server(&self, pool4: &str) -> HostPlan {
        let outside = self.options.outside_routers;
        let mut routes = Vec::new();
        if outside > 0 {
            routes.push("default via 203.0.113.1".into());
        } else {
            routes.push(format!("{pool4} via 203.0.113.1"));
            routes.push("default via 203.0.113.1".into());
        }
        if self.plain {
            routes.push(format!("default via {}", outside6(outside, outside, 1)));
        }
        HostPlan { name: "server".into(), role: Role::Server, routes }
    }

    fn lan_cables(&self) -> Vec<CablePlan> {
        let mtu = self.options.mtu(Cable::Inside(0));
        let (far_host, far_device) = self.near_end_of_inside(0);
        let far =
            End { host: far_host, device: far_device, addresses: self.inside_addresses(0, 1, "10.6.0.1") };
        let client = |n: u8| End {
            host: format!("client{n}"),
            device: "eth0".into(),
            addresses: {
                let mut all = vec![format!("{}/64", Plan::client6(n))];
                if self.plain {
                    all.push(format!("10.6.0.{}/24", 10 + n));
                }
                all
            },
        };
        if self.options.clients == 1 {
            return vec![CablePlan { near: client(1), far, mtu }];
        }
        let port = |device: String| End { host: "lan".into(), device, addresses: Vec::new() };
        let mut cables: Vec<_> = (1..=self.options.clients)
            .map(|n| CablePlan { near: client(n), far: port(format!("port{n}")), mtu })
            .collect();
        cables.push(CablePlan { near: port("uplink".into()), far, mtu });
        cables
    }

    /// Cable `n` joins inside router `n` to inside router `n + 1` or to the gateway.
    fn inside_cable(&self, n: u8) -> CablePlan {
        let (far_host, far_device) = self.near_end_of_inside(n);
        CablePlan {
            near: End {
                host: format!("inside{n}"),
                device: "out0".into(),
                addresses: self.inside_addresses(n, 2, &format!("10.6.{n}.2")),
            },
            far: End {
                host: far_host,
                device: far_device,
                addresses: self.inside_addresses(n, 1, &format!("10.6.{n}.1")),
            },
            mtu: self.options.mtu(Cable::Inside(n)),
        }
    }

    /// Who stands at the server's end of inside net `n`.
    fn near_end_of_inside(&self, n: u8) -> (String, String) {
        if n == self.options.inside_routers {
            ("gw".into(), GW_INSIDE.into())
        } else {
            (format!("inside{}", n + 1), "in0".into())
        }
    }

    fn inside_addresses(&self, net: u8, host: u16, v4: &str) -> Vec<String> {
        let mut all = vec![format!("{}/64", inside_net(net, host))];
        if self.plain {
            all.push(format!("{v4}/24"));
        }
        all
    }

    fn outside_cable(&self, n: u8) -> CablePlan {
        let outside = self.options.outside_routers;
        let last = n == outside;
        let near = match n {
            0 => ("gw".to_owned(), GW_OUTSIDE),
            1 => ("router".to_owned(), "out0"),
            _ => (format!("router{n}"), "out0"),
        };
        let far = match n {
            _ if last => ("server".to_owned(), "eth0"),
            0 => ("router".to_owned(), "in0"),
            _ => (format!("router{}", n + 1), "in0"),
        };
        let (mut near_addresses, mut far_addresses) = if last {
            (vec!["203.0.113.1/24".to_owned()], vec![format!("{SERVER}/24"), format!("{DNS_UPSTREAM}/24")])
        } else {
            (vec![format!("{}/26", outside_net(n, 1))], vec![format!("{}/26", outside_net(n, 2))])
        };
        if self.plain {
            near_addresses.push(format!("{}/64", outside6(outside, n, 1)));
            far_addresses.push(if last {
                format!("{SERVER6}/64")
            } else {
                format!("{}/64", outside6(outside, n, 2))
            });
        }
        CablePlan {
            near: End { host: near.0, device: near.1.into(), addresses: near_addresses },
            far: End { host: far.0, device: far.1.into(), addresses: far_addresses },
            mtu: self.options.mtu(Cable::Outside(n)),
        }
    }
}

/// `2001:db8:6:NET::HOST`; net 0 is the LAN.
fn inside_net(net: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 6, u16::from(net), 0, 0, 0, host)
}

/// The transit nets are the four /26 of 192.0.2.0/24.
fn outside_net(net: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, (net & 3) * 64 + host)
}

/// `2001:db8:4:NET::HOST`; the server's own net is number 0xff.
fn outside6(outside_routers: u8, net: u8, host: u16) -> Ipv6Addr {
    let net = if net == outside_routers { 0xff } else { u16::from(net) };
    Ipv6Addr::new(0x2001, 0xdb8, 4, net, 0, 0, 0, host)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn each_shape(check: impl Fn(&Options, &Plan)) {
        for translator in [Translator::Sampan, Translator::Forward] {
            for (clients, inside, outside) in [(2, 0, 1), (1, 0, 0), (2, 2, 2), (1, 3, 3), (2, 0, 3)] {
                let mut options = Options::new("t", "sampan");
                (options.clients, options.inside_routers, options.outside_routers) =
                    (clients, inside, outside);
                options.translator = translator;
                options.check().unwrap();
                check(&options, &Plan::new(&options));
            }
        }
    }

    #[test]
    fn every_cable_ends_at_a_host_and_no_address_is_given_twice() {
        each_shape(|_, plan| {
            let hosts: BTreeSet<_> = plan.hosts.iter().map(|h| h.name.as_str()).collect();
            assert_eq!(hosts.len(), plan.hosts.len());
            let mut seen = BTreeSet::new();
            let mut devices = BTreeSet::new();
            for end in plan.cables.iter().flat_map(|c| [&c.near, &c.far]) {
                assert!(hosts.contains(end.host.as_str()), "{end:?}");
                assert!(devices.insert((&end.host, &end.device)), "{end:?}");
                assert!(end.device.len() <= 15);
                for address in &end.addresses {
                    assert!(seen.insert(address.clone()), "{address}");
                }
            }
        });
    }

    #[test]
    fn every_next_hop_is_at_the_other_end_of_a_cable_of_that_host() {
        each_shape(|_, plan| {
            for host in &plan.hosts {
                for route in &host.routes {
                    let via = route.rsplit(' ').next().unwrap();
                    let bare = |a: &String| a.split('/').next().unwrap() == via;
                    let reachable = plan.cables.iter().any(|c| {
                        (c.near.host == host.name && c.far.addresses.iter().any(bare))
                            || (c.far.host == host.name && c.near.addresses.iter().any(bare))
                            || (host.role == Role::Client
                                && c.far.host != "lan"
                                && c.far.addresses.iter().any(bare))
                    });
                    assert!(reachable, "{}: {route}", host.name);
                }
            }
        });
    }

    #[test]
    fn translated_clients_have_no_ipv4() {
        let plan = Plan::new(&Options::new("t", "sampan"));
        for cable in plan.cables.iter().filter(|c| c.near.host.starts_with("client")) {
            assert!(cable.near.addresses.iter().all(|a| a.contains(':')), "{cable:?}");
        }
        assert_eq!(plan.gateway6.to_string(), "2001:db8:6::1");
        assert_eq!(plan.outside_hops, [Ipv4Addr::new(192, 0, 2, 2)]);
    }
}
