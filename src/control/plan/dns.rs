//! Checks of `[dns64]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::DnsPlan;
use super::dns_policy;
use super::nat64::{nonempty, number};
use crate::addr::{Prefix4, PrefixAny};
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::dns64::Settings;
use crate::io::dns_net::Upstream;
use crate::nat64::settings::Unit;
use crate::xlat::pref64::Pref64;

/// What it shares with the translator, so that the two cannot disagree.
pub(super) struct Shared {
    /// Translation prefixes.
    pub(super) pool6: Vec<Pref64>,
    /// IPv4 addresses that belong to the translator.
    pub(super) pool4: Vec<Prefix4>,
    /// The organisations served.
    pub(super) units: Vec<Unit>,
    /// Non-global IPv4 that may be reached.
    pub(super) allow: Vec<Prefix4>,
}

/// Checks the section and makes the plan.
pub(super) fn build(section: &config::Dns64, shared: &Shared, problems: &mut Problems) -> DnsPlan {
    let listen = section.listen.as_ref();
    let listen = listen.map_or_else(Vec::new, |list| addresses(list, |at| *at, shared, true, problems));
    let upstream = resolvers(section.upstream.as_ref(), &listen, shared, problems);
    let forward = section.forward.iter().flat_map(|list| &list.value);
    let groups = forward.map(|at| resolvers(at.value.upstream.as_ref(), &listen, shared, problems)).collect();
    let cache: usize = number(section.cache.as_ref(), 64, 1..=4096, problems);
    DnsPlan {
        listen,
        upstream,
        groups,
        units: shared.units.iter().map(|unit| unit.name.clone()).collect(),
        cache_bytes: cache << 20,
        settings: Settings {
            clients: clients(section, shared, problems).into_iter().collect(),
            ..dns_policy::settings(section, shared, problems)
        },
    }
}

/// Resolvers that are not ourselves.
fn resolvers(
    list: Option<&At<Vec<At<Upstream>>>>,
    listen: &[SocketAddr],
    shared: &Shared,
    problems: &mut Problems,
) -> Vec<Upstream> {
    let Some(list) = list else { return Vec::new() };
    addresses(list, |upstream| upstream.addr, shared, false, problems);
    for at in &list.value {
        if let Some(ours) = listen.iter().find(|ours| is_same_service(at.value.addr, **ours)) {
            let value = at.value.addr.to_string();
            problems.error(&at.path, Fault::DnsLoop { value, listen: ours.to_string() });
        }
    }
    list.value.iter().map(|at| at.value.clone()).collect()
}

/// Whether a question to `upstream` would reach a socket that listens on `listen`, as far as the addresses tell.
fn is_same_service(upstream: SocketAddr, listen: SocketAddr) -> bool {
    upstream.port() == listen.port()
        && (upstream.ip() == listen.ip()
            || (listen.ip().is_unspecified()
                && upstream.ip().is_loopback()
                && upstream.is_ipv6() == listen.is_ipv6()))
}

fn addresses<T: PartialEq>(
    list: &At<Vec<At<T>>>,
    address: impl Fn(&T) -> SocketAddr,
    shared: &Shared,
    listening: bool,
    problems: &mut Problems,
) -> Vec<SocketAddr> {
    nonempty(list, problems);
    for (i, at) in list.value.iter().enumerate() {
        let addr = address(&at.value);
        let (ip, value) = (addr.ip(), addr.to_string());
        if addr.port() == 0 {
            problems.error(&at.path, Fault::PortMissing);
        }
        if ip.is_multicast() || ip == Ipv4Addr::BROADCAST || (ip.is_unspecified() && !listening) {
            problems.error(&at.path, Fault::NotUnicast { value: ip.to_string() });
        }
        if let Some(other) = list.value.iter().take(i).find(|other| other.value == at.value) {
            problems.error(&at.path, Fault::Duplicate { value: value.clone(), at: other.path.clone() });
        }
        match ip {
            IpAddr::V6(ip) => {
                // An upstream under pool6 would be reached through ourselves; nobody can bind such an address.
                if let Some(pref64) = shared.pool6.iter().find(|pref64| pref64.contains(ip)) {
                    problems.error(&at.path, Fault::InPool6 { value, pool6: pref64.to_string() });
                }
            }
            IpAddr::V4(ip) => {
                if let Some(pool4) = shared.pool4.iter().find(|pool4| pool4.contains(ip)) {
                    let pool4 = pool4.to_string();
                    problems.error(&at.path, Fault::InPool4 { value, pool4 });
                }
            }
        }
    }
    list.value.iter().map(|at| address(&at.value)).collect()
}

fn clients(section: &config::Dns64, shared: &Shared, problems: &mut Problems) -> Vec<PrefixAny> {
    if let Some(list) = &section.allow {
        nonempty(list, problems);
        return list.value.iter().map(|at| at.value).collect();
    }
    if shared.units.is_empty() {
        problems.warning("dns64.allow", Fault::NobodyMayAsk);
    }
    // This machine may always ask.
    shared.units.iter().flat_map(|unit| unit.prefixes.iter().copied().map(PrefixAny::V6)).collect()
}
