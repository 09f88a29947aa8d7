//! Checks of `[dns64]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::dns_policy;
use super::nat64::{nonempty, number};
use super::{ConnectionsPlan, DnsPlan, TlsPlan};
use crate::addr::{Prefix4, PrefixAny};
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::dns64::Settings;
use crate::io::dns_net::{HTTPS_PATH, Limits, Upstream};
use crate::nat64::settings::Unit;
use crate::text::shown;
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
    let tls = section.tls.as_ref().map(|at| tls(at, shared, problems));
    let ours: Vec<_> =
        tls.iter().flat_map(|tls| tls.listen.iter().chain(&tls.https)).chain(&listen).copied().collect();
    let upstream = resolvers(section.upstream.as_ref(), &ours, shared, problems);
    let forward = section.forward.iter().flat_map(|list| &list.value);
    let groups = forward.map(|at| resolvers(at.value.upstream.as_ref(), &ours, shared, problems)).collect();
    let cache: usize = number(section.cache.as_ref(), 64, 1..=4096, problems);
    let plan = DnsPlan {
        listen,
        upstream,
        groups,
        tls,
        connections: connections(section.connections.as_ref().map(|at| &at.value), problems),
        upstream_ca: section.upstream_ca.as_ref().map(|at| at.value.clone()),
        top_names: number(section.top_names.as_ref(), 0, 0..=1000, problems),
        units: shared.units.iter().map(|unit| unit.name.clone()).collect(),
        cache_bytes: cache << 20,
        settings: Settings {
            clients: clients(section, shared, problems).into_iter().collect(),
            ..dns_policy::settings(section, shared, problems)
        },
    };
    one_service_each(&plan, problems);
    plan
}

/// TLS and HTTPS for clients. Whether the files are any good is looked at in [`certificates`](crate::control::certificates).
fn tls(at: &At<config::DnsTls>, shared: &Shared, problems: &mut Problems) -> TlsPlan {
    let section = &at.value;
    let listen = section.listen.as_ref();
    let https = section.https.as_ref();
    if listen.is_none() && https.is_none() {
        problems.error(&at.path, Fault::TlsNowhere);
    }
    TlsPlan {
        listen: listen.map_or_else(Vec::new, |list| addresses(list, |at| at.0, shared, true, problems)),
        https: https.map_or_else(Vec::new, |list| addresses(list, |at| at.0, shared, true, problems)),
        https_path: https_path(section.https_path.as_ref(), problems),
        // Missing ones have been complained about.
        certificate: section.certificate.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        key: section.key.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
    }
}

/// A path as it stands in a request (RFC 3986 §3.3), without anything that would have to be escaped.
fn https_path(at: Option<&At<String>>, problems: &mut Problems) -> String {
    let Some(at) = at else { return HTTPS_PATH.to_owned() };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    if !(at.value.starts_with('/') && at.value.bytes().all(is_plain)) {
        let value = shown(&at.value, 80);
        problems.error(&at.path, Fault::BadValue { value, example: format!("{HTTPS_PATH:?}") });
    }
    at.value.clone()
}

fn connections(section: Option<&config::DnsConnections>, problems: &mut Problems) -> ConnectionsPlan {
    let usual = Limits::default();
    let section = section.cloned().unwrap_or_default();
    let mut seconds = |at: Option<&At<u64>>, usual: Duration, most| {
        Duration::from_secs(number(at, usual.as_secs(), 1..=most, problems))
    };
    let idle = seconds(section.idle.as_ref(), usual.tcp_idle, 3600);
    let handshake = seconds(section.handshake.as_ref(), usual.tls_handshake, 60);
    ConnectionsPlan {
        most: number(section.most.as_ref(), usual.tcp_connections, 1..=65_536, problems),
        per_client: number(section.per_client.as_ref(), usual.tcp_per_client, 1..=65_536, problems),
        idle,
        handshake,
    }
}

/// Two services cannot share a port. Within one list that was looked at before.
fn one_service_each(plan: &DnsPlan, problems: &mut Problems) {
    let all: Vec<_> = plan.listeners().collect();
    let list = |path: &str| path.split('[').next().map(str::to_owned);
    for (i, (path, addr)) in all.iter().enumerate() {
        let before = all.iter().take(i);
        if let Some((other, _)) = before.clone().find(|(other, o)| o == addr && list(other) != list(path)) {
            problems.error(path, Fault::Duplicate { value: addr.to_string(), at: other.clone() });
        }
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
