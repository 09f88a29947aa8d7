//! Checks of `[dns64]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::DnsPlan;
use super::nat64::nonempty;
use crate::addr::{Prefix4, PrefixAny};
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::dns64::{Policy, Settings};
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
    let listen = addresses(section.listen.as_ref(), shared, true, problems);
    let upstream = addresses(section.upstream.as_ref(), shared, false, problems);
    for at in section.upstream.iter().flat_map(|list| &list.value) {
        if let Some(ours) = listen.iter().find(|ours| is_same_service(at.value, **ours)) {
            problems
                .error(&at.path, Fault::DnsLoop { value: at.value.to_string(), listen: ours.to_string() });
        }
    }
    DnsPlan {
        listen,
        upstream,
        settings: Settings {
            policy: Policy {
                prefixes: shared.pool6.clone(),
                allow: shared.allow.clone(),
                ..Policy::default()
            },
            clients: clients(section, shared, problems).into_iter().collect(),
            ..Settings::default()
        },
    }
}

/// Whether a question to `upstream` would reach a socket that listens on `listen`, as far as the addresses tell.
fn is_same_service(upstream: SocketAddr, listen: SocketAddr) -> bool {
    upstream.port() == listen.port()
        && (upstream.ip() == listen.ip()
            || (listen.ip().is_unspecified()
                && upstream.ip().is_loopback()
                && upstream.is_ipv6() == listen.is_ipv6()))
}

fn addresses(
    list: Option<&At<Vec<At<SocketAddr>>>>,
    shared: &Shared,
    listening: bool,
    problems: &mut Problems,
) -> Vec<SocketAddr> {
    let Some(list) = list else { return Vec::new() };
    nonempty(list, problems);
    for (i, at) in list.value.iter().enumerate() {
        let (ip, value) = (at.value.ip(), at.value.to_string());
        if at.value.port() == 0 {
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
    list.value.iter().map(|at| at.value).collect()
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
