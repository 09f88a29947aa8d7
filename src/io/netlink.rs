//! What the gateway asks of the kernel's network set-up: its TUN up, routes into it, proxy ARP, link MTUs.
//!
//! Everything goes through rtnetlink, so it acts on the network namespace of the calling thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::addr::{Prefix4, Prefix6};

/// Packets that may wait in front of each queue of the TUN.
const QUEUE_LEN: u32 = 2_000;
/// Only the engine decides about MTUs, so the TUN has the largest one.
const TUN_MTU: u32 = 65_535;

/// What shall lead to the TUN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Prefixes of pool6.
    pub pool6: Vec<Prefix6>,
    /// Prefixes of pool4.
    pub pool4: Vec<Prefix4>,
    /// Pool prefixes that are answered for by proxy ARP, with the interface.
    pub proxy: Vec<(Prefix4, String)>,
}

/// The set-up could not be read or changed.
#[derive(Debug)]
pub struct NetlinkError {
    /// What was being done, with the object.
    pub what: String,
    /// What the kernel said.
    pub cause: String,
}

impl std::fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.cause)
    }
}

impl std::error::Error for NetlinkError {}

fn failed<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> NetlinkError {
    let what = what.into();
    move |e| NetlinkError { what, cause: e.to_string() }
}

/// Whether packets that come from the TUN may have this machine's own addresses as their source. Then it has no filter
/// for reverse paths either: that would not let them in, whatever it is set to. Says whether there was anything to do:
/// the system's own settings may come over ours when the device appears.
pub fn accept_local(tun: &str, on: bool) -> Result<bool, NetlinkError> {
    let path = |of: &str, key: &str| format!("/proc/sys/net/ipv4/conf/{of}/{key}");
    let read = |of: &str, key: &str| std::fs::read_to_string(path(of, key)).unwrap_or_default();
    let set = |key: &str, value: &str| {
        if read(tun, key).trim() == value {
            return Ok(false);
        }
        let path = path(tun, key);
        std::fs::write(&path, value).map_err(failed(format!("write {path}"))).map(|()| true)
    };
    if on {
        let filter = set("rp_filter", "0")?;
        return Ok(set("accept_local", "1")? || filter);
    }
    // A TUN that was there before may have been one for that.
    let was_on = set("accept_local", "0")?;
    if was_on {
        set("rp_filter", read("default", "rp_filter").trim())?;
    }
    Ok(was_on)
}

/// The filter for reverse paths that every interface has at least.
pub fn reverse_path_of_all() -> u8 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A connection to the kernel. Needs a tokio runtime.
pub struct Netlink {
    handle: Handle,
}

/// MTUs of the links that have a global address of one family. No packet may exceed the widest; the limit of a single
/// route is found by the kernel, whose errors come back through the translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkMtus {
    /// Of the link with the smallest MTU.
    pub narrowest: u16,
    /// Of the link with the largest MTU.
    pub widest: u16,
}

/// Names of the links with Ethernet headers that have a global address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EthernetLinks {
    /// Of IPv6.
    pub v6: Vec<String>,
    /// Of IPv4.
    pub v4: Vec<String>,
}

impl Netlink {
    /// Connects.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Index of a link.
    pub async fn link_index(&self, name: &str) -> Result<u32, NetlinkError> {
        let what = format!("find interface {name}");
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await.map_err(failed(&*what))? {
            Some(link) => Ok(link.header.index),
            None => Err(NetlinkError { what, cause: "there is none of that name".into() }),
        }
    }

    /// Brings the TUN up with its MTU and queue length.
    pub async fn set_up(&self, tun: &str) -> Result<u32, NetlinkError> {
        // The TUN speaks to nobody by itself: no link-local address, no router solicitations.
        let path = format!("/proc/sys/net/ipv6/conf/{tun}/addr_gen_mode");
        std::fs::write(&path, "1").map_err(failed(format!("write {path}")))?;
        let index = self.link_index(tun).await?;
        let message = LinkUnspec::new_with_index(index).mtu(TUN_MTU).txqueuelen(QUEUE_LEN).up().build();
        self.handle.link().set(message).execute().await.map_err(failed(format!("bring {tun} up")))?;
        Ok(index)
    }

    /// Makes the routes into the TUN exactly those of `wanted`, and goes from the proxy ARP entries of `before` to
    /// those of `wanted`.
    pub async fn apply(&self, index: u32, wanted: &Wanted, before: &Wanted) -> Result<(), NetlinkError> {
        for prefix in &wanted.pool6 {
            let message = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(prefix.addr(), prefix.len())
                .output_interface(index)
                .build();
            self.replace_route(message, &prefix.to_string()).await?;
        }
        for prefix in &wanted.pool4 {
            let message = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(prefix.addr(), prefix.len())
                .output_interface(index)
                .scope(RouteScope::Link)
                .build();
            self.replace_route(message, &prefix.to_string()).await?;
        }
        self.remove_other_routes(index, wanted).await?;
        self.apply_proxy(wanted, before).await
    }

    /// Ends and starts proxy ARP so that what was `before` becomes what is `wanted`.
    pub async fn apply_proxy(&self, wanted: &Wanted, before: &Wanted) -> Result<(), NetlinkError> {
        for entry in before.proxy.iter().filter(|e| !wanted.proxy.contains(e)) {
            self.set_proxy(entry, false).await?;
        }
        for entry in wanted.proxy.iter().filter(|e| !before.proxy.contains(e)) {
            self.set_proxy(entry, true).await?;
        }
        Ok(())
    }

    /// MTUs of the IPv6 and of the IPv4 links beside `tun` and loopback.
    pub async fn link_mtus(&self, tun: u32) -> Result<(LinkMtus, LinkMtus), NetlinkError> {
        let addresses: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))?;
        let links: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list interfaces"))?;
        let mtus = |family: AddressFamily| {
            let usable = links.iter().filter(|link| {
                let index = link.header.index;
                let has_address = |a: &AddressMessage| {
                    let global = a.header.scope == AddressScope::Universe;
                    a.header.index == index && a.header.family == family && global
                };
                index != tun
                    && !link.header.flags.contains(LinkFlags::Loopback)
                    && link.header.flags.contains(LinkFlags::Up)
                    && addresses.iter().any(has_address)
            });
            let all: Vec<u16> = usable
                .flat_map(|link| &link.attributes)
                .filter_map(|a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None })
                .map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
                .collect();
            let usual = |found: Option<&u16>| found.copied().unwrap_or(1500);
            LinkMtus { narrowest: usual(all.iter().min()), widest: usual(all.iter().max()) }
        };
        Ok((mtus(AddressFamily::Inet6), mtus(AddressFamily::Inet)))
    }

    /// The links beside `tun` by which packets come with an Ethernet header.
    pub async fn ethernet_links(&self, tun: u32) -> Result<EthernetLinks, NetlinkError> {
        let addresses: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))?;
        let links: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list interfaces"))?;
        let with = |family: AddressFamily| {
            let usable = links.iter().filter(|link| {
                let has_address = |a: &AddressMessage| {
                    let global = a.header.scope == AddressScope::Universe;
                    a.header.index == link.header.index && a.header.family == family && global
                };
                link.header.index != tun
                    && link.header.link_layer_type == LinkLayerType::Ether
                    && addresses.iter().any(has_address)
            });
            let names = usable
                .flat_map(|link| &link.attributes)
                .filter_map(|a| if let LinkAttribute::IfName(name) = a { Some(name.clone()) } else { None });
            names.collect()
        };
        Ok(EthernetLinks { v6: with(AddressFamily::Inet6), v4: with(AddressFamily::Inet) })
    }

    /// A global IPv6 address of this machine, for errors of our own: the first one that is no link-local one.
    pub async fn global_address6(&self) -> Result<Option<Ipv6Addr>, NetlinkError> {
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(failed("list addresses"))? {
            for attribute in message.attributes {
                if let AddressAttribute::Address(IpAddr::V6(addr)) = attribute
                    && !crate::addr::is_illegal_source6(addr)
                {
                    return Ok(Some(addr));
                }
            }
        }
        Ok(None)
    }

    /// Whether a link is there and up.
    pub async fn is_up(&self, index: u32) -> Result<bool, NetlinkError> {
        match self.handle.link().get().match_index(index).execute().try_next().await {
            Ok(link) => Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up))),
            Err(error) => by_errno(error, &[libc::ENODEV], false, "look at the TUN"),
        }
    }

    /// The link by which packets to `addr` leave this machine, as its routing tables and rules have it.
    pub async fn link_towards(&self, addr: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let message = match addr {
            IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(addr, 128).build(),
            IpAddr::V4(addr) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(addr, 32).build(),
        };
        match self.handle.route().get(message).execute().try_next().await {
            Ok(route) => Ok(route.as_ref().filter(|route| is_usable(route)).and_then(leaves_by)),
            // What the kernel says where there is no route, and where a route forbids it.
            Err(error) => {
                let none = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL];
                by_errno(error, &none, None, format!("look up {addr}"))
            }
        }
    }

    /// Whether any IPv4 route leads out by another link than `tun` and loopback.
    pub async fn leads_out4(&self, tun: u32) -> Result<bool, NetlinkError> {
        /// The first link of every network namespace.
        const LOOPBACK: u32 = 1;
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(all).execute();
        while let Some(route) = routes.try_next().await.map_err(failed("list routes"))? {
            let beside = leaves_by(&route).is_none_or(|index| index != tun && index != LOOPBACK);
            if is_usable(&route) && beside {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn replace_route(&self, message: RouteMessage, what: &str) -> Result<(), NetlinkError> {
        self.handle
            .route()
            .add(message)
            .replace()
            .execute()
            .await
            .map_err(failed(format!("route {what} to the TUN")))
    }

    async fn remove_other_routes(&self, index: u32, wanted: &Wanted) -> Result<(), NetlinkError> {
        let all =
            [RouteMessageBuilder::<Ipv6Addr>::new().build(), RouteMessageBuilder::<Ipv4Addr>::new().build()];
        for family in all {
            let routes: Vec<_> = self
                .handle
                .route()
                .get(family)
                .execute()
                .try_collect()
                .await
                .map_err(failed("list routes"))?;
            for route in routes {
                if !leads_to(&route, index) || is_wanted(&route, wanted) {
                    continue;
                }
                self.handle.route().del(route).execute().await.map_err(failed("remove an old route"))?;
            }
        }
        Ok(())
    }

    async fn set_proxy(&self, (prefix, interface): &(Prefix4, String), on: bool) -> Result<(), NetlinkError> {
        let index = self.link_index(interface).await?;
        for addr in prefix.addresses() {
            let what = format!("{} proxy ARP for {addr} on {interface}", if on { "start" } else { "end" });
            let mut request =
                self.handle.neighbours().add(index, IpAddr::V4(addr)).flags(NeighbourFlags::Proxy);
            if on {
                request.replace().execute().await.map_err(failed(what))?;
            } else {
                let mut message = request.message_mut().clone();
                message
                    .attributes
                    .retain(|a| matches!(a, NeighbourAttribute::Destination(NeighbourAddress::Inet(_))));
                self.handle.neighbours().del(message).execute().await.map_err(failed(what))?;
            }
        }
        Ok(())
    }
}

/// What an error of the kernel means, when it is one of `known`.
fn by_errno<T>(
    error: rtnetlink::Error,
    known: &[i32],
    meaning: T,
    what: impl Into<String>,
) -> Result<T, NetlinkError> {
    if let rtnetlink::Error::NetlinkError(message) = &error
        && message.code.is_some_and(|code| known.contains(&code.get().saturating_neg()))
    {
        return Ok(meaning);
    }
    Err(failed(what)(error))
}

/// The link that a route leads out by. A route with several next hops names none of them here.
fn leaves_by(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None })
}

/// Whether packets can take the route.
fn is_usable(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unicast
        && !route.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown)
}

fn leads_to(route: &RouteMessage, index: u32) -> bool {
    // 255 is the kernel's own table of local and broadcast addresses.
    route.header.table != 255
        && route.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(i) if *i == index))
}

fn is_wanted(route: &RouteMessage, wanted: &Wanted) -> bool {
    let len = route.header.destination_prefix_length;
    // The kernel's list of attributes is open.
    #[allow(clippy::wildcard_enum_match_arm)]
    route.attributes.iter().any(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => {
            // The kernel's own ff00::/8 is none of ours to remove.
            addr.is_multicast() || wanted.pool6.iter().any(|p| p.addr() == *addr && p.len() == len)
        }
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => {
            wanted.pool4.iter().any(|p| p.addr() == *addr && p.len() == len)
        }
        _ => false,
    })
}
