//! The difference of two plans as typed changes that a running gateway accepts, or the keys that need a restart.

use std::path::{Path, PathBuf};

use super::certificates::{self, Certificates};
use super::plan::host::{HostFacts, check_host};
use super::plan::{
    Checked, DnsPlan, HealthPlan, MtuPlan, Nat64Plan, Plan, Pool4Plan, SiitPlan, TlsPlan, TranslatorPlan,
    load,
};
use super::problem::{Fault, Places, Problem, Problems, Severity};
use crate::dns64;
use crate::io::dns_net::Upstream;
use crate::nat64::policy::Assignment;
use crate::nat64::settings;
use crate::siit;

/// A change that a running gateway accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// For the stateful translator; each worker gets it.
    Nat64(settings::Change),
    /// For the stateless translator; each worker gets it.
    Siit(siit::settings::Change),
    /// For the DNS64.
    Dns64(Box<DnsChange>),
    /// For whoever decides whether the translator works.
    Health(Box<HealthPlan>),
}

/// Replaces what a running DNS64 may be told anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsChange {
    /// Resolvers to ask, best first.
    pub upstream: Vec<Upstream>,
    /// Those of the other groups, from group 1 on.
    pub groups: Vec<Vec<Upstream>>,
    /// Names of the units, as the statistics number them.
    pub units: Vec<String>,
    /// How questions are decided.
    pub settings: dns64::Settings,
    /// TLS and HTTPS for clients.
    pub tls: Option<TlsPlan>,
    /// File with the authorities that vouch for resolvers.
    pub upstream_ca: Option<PathBuf>,
    /// How many names the statistics keep.
    pub top_names: usize,
}

impl Change {
    /// Path of the key that changed.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Nat64(settings::Change::Units(_)) => "unit",
            Self::Nat64(settings::Change::Pool4(_)) => "nat64.pool4",
            Self::Nat64(settings::Change::Filtering(_)) => "nat64.filtering",
            Self::Nat64(settings::Change::Allow(_)) => "nat64.allow",
            Self::Nat64(settings::Change::Timers(_)) => "nat64.timers",
            Self::Nat64(settings::Change::Ports(_)) => "nat64.ports",
            Self::Nat64(settings::Change::Quotas(_)) => "nat64.quota",
            Self::Nat64(settings::Change::Static(_)) => "nat64.static",
            Self::Siit(siit::settings::Change::Mapping(_)) => "siit.eam",
            Self::Dns64(_) => "dns64",
            Self::Health(_) => "health",
        }
    }
}

/// A key whose change a running gateway cannot take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsRestart {
    /// Path of the key, as in the new file.
    pub path: String,
}

impl NeedsRestart {
    /// The same as a problem of the new file.
    pub fn problem(&self, places: &Places) -> Problem {
        Problem {
            severity: Severity::Error,
            path: self.path.clone(),
            line: places.line(&self.path),
            fault: Fault::NeedsRestart { key: self.path.clone() },
        }
    }
}

/// A checked file that a running gateway can take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The new plan and its warnings.
    pub checked: Checked,
    /// The way from the old plan to the new one; empty when nothing changed.
    pub changes: Vec<Change>,
    /// What the files of TLS hold now.
    pub certificates: Certificates,
}

/// Reads the file again, checks it by itself and against this machine, and compares it with the plan that runs.
/// Whatever is wrong, nothing has been changed.
pub fn reload(running: &Plan, path: &Path, facts: &HostFacts) -> Result<Reload, Vec<Problem>> {
    let mut checked = load(path)?;
    checked.warnings.extend(check_host(&checked, facts));
    let mut problems = Problems::with_places(checked.places.clone());
    let plan = checked.plan.dns64.as_ref();
    let certificates = plan.map(|plan| certificates::read(plan, &mut problems)).unwrap_or_default();
    checked.warnings.extend(problems.into_sorted().0);
    if checked.warnings.iter().any(Problem::is_error) {
        return Err(checked.warnings);
    }
    match diff(running, &checked.plan) {
        Ok(changes) => Ok(Reload { checked, changes, certificates }),
        Err(keys) => Err(keys.iter().map(|key| key.problem(&checked.places)).collect()),
    }
}

/// The changes that lead from `old` to `new`, or every key that stands in the way.
pub fn diff(old: &Plan, new: &Plan) -> Result<Vec<Change>, Vec<NeedsRestart>> {
    let blocked = restarts(old, new);
    if !blocked.is_empty() {
        return Err(blocked.into_iter().map(|path| NeedsRestart { path }).collect());
    }
    let translator = match (&old.translator, &new.translator) {
        (TranslatorPlan::Nat64(was), TranslatorPlan::Nat64(is)) => nat64(was, is),
        (TranslatorPlan::Siit(was), TranslatorPlan::Siit(is)) if was.mapping() != is.mapping() => {
            vec![Change::Siit(siit::settings::Change::Mapping(is.mapping()))]
        }
        // One cannot become the other: that is blocked above.
        (TranslatorPlan::Siit(_), _) | (_, TranslatorPlan::Siit(_)) => Vec::new(),
    };
    let dns64 = match (&old.dns64, &new.dns64) {
        (Some(was), Some(is)) if was != is => Some(Change::Dns64(Box::new(DnsChange::to(is)))),
        _ => None,
    };
    let health = (old.health != new.health).then(|| Change::Health(Box::new(new.health.clone())));
    Ok(translator.into_iter().chain(dns64).chain(health).collect())
}

fn nat64(was: &Nat64Plan, is: &Nat64Plan) -> Vec<Change> {
    let changes = [
        // A unit or a destination that goes is taken away before anything is added.
        (was.units != is.units).then(|| settings::Change::Units(is.units.clone())),
        (was.allowed() != is.allowed()).then(|| settings::Change::Allow(is.allowed())),
        (was.ranges() != is.ranges()).then(|| settings::Change::Pool4(is.ranges())),
        (was.filtering != is.filtering).then_some(settings::Change::Filtering(is.filtering)),
        (was.timers != is.timers).then(|| settings::Change::Timers(is.timers.clone())),
        (was.static_bib != is.static_bib).then(|| settings::Change::Static(is.static_bib.clone())),
        (was.ports != is.ports).then_some(settings::Change::Ports(is.ports)),
        (was.quotas != is.quotas).then_some(settings::Change::Quotas(is.quotas)),
    ];
    changes.into_iter().flatten().map(Change::Nat64).collect()
}

impl DnsChange {
    fn to(plan: &DnsPlan) -> Self {
        let DnsPlan { upstream, groups, units, settings, tls, upstream_ca, top_names, .. } = plan.clone();
        Self { upstream, groups, units, settings, tls, upstream_ca, top_names }
    }
}

/// Paths of the keys that differ and cannot be changed in a running gateway.
fn restarts(old: &Plan, new: &Plan) -> Vec<String> {
    let translator = match (&old.translator, &new.translator) {
        (TranslatorPlan::Nat64(was), TranslatorPlan::Nat64(is)) => nat64_restarts(was, is),
        (TranslatorPlan::Siit(was), TranslatorPlan::Siit(is)) => siit_restarts(was, is),
        (TranslatorPlan::Nat64(_), TranslatorPlan::Siit(_)) => vec!["siit".into()],
        (TranslatorPlan::Siit(_), TranslatorPlan::Nat64(_)) => vec!["nat64".into()],
    };
    let others = differing(&[
        ("dns64", old.dns64.is_some() != new.dns64.is_some()),
        ("fastpath.mode", old.fastpath.mode != new.fastpath.mode),
        ("fastpath.inside", old.fastpath.inside != new.fastpath.inside),
        ("fastpath.outside", old.fastpath.outside != new.fastpath.outside),
        // It follows the number of sessions where nothing is said.
        (
            "fastpath.max-flows",
            old.fastpath.max_flows != new.fastpath.max_flows && sessions(old) == sessions(new),
        ),
        ("fastpath.orphan-limit", old.fastpath.orphan_limit != new.fastpath.orphan_limit),
        ("fastpath.pins", old.fastpath.pins != new.fastpath.pins),
        ("fastpath.miss-rate", old.fastpath.miss_rate != new.fastpath.miss_rate),
        ("fastpath.miss-burst", old.fastpath.miss_burst != new.fastpath.miss_burst),
        ("health.gateway", old.health.gateway != new.health.gateway),
        ("admin.socket", old.admin_socket != new.admin_socket),
        ("admin.dns64-socket", old.dns64_socket != new.dns64_socket),
        ("tun.name", old.tun_name != new.tun_name),
        ("log.level", old.log_level != new.log_level),
    ]);
    let dns64 = old.dns64.as_ref().zip(new.dns64.as_ref()).map(|(was, is)| dns64_restarts(was, is));
    translator
        .into_iter()
        .chain(dns64.into_iter().flatten())
        .chain(others)
        .chain(ra_restarts(old, new))
        .collect()
}

fn ra_restarts(old: &Plan, new: &Plan) -> Vec<String> {
    let (Some(was), Some(is)) = (&old.ra, &new.ra) else {
        return differing(&[("ra", old.ra != new.ra)]);
    };
    // Those that follow the longest interval where nothing is said do not count when that has changed.
    let same_pace = was.max_interval == is.max_interval && was.router_lifetime == is.router_lifetime;
    differing(&[
        ("ra.interfaces", was.interfaces != is.interfaces),
        ("ra.max-interval", was.max_interval != is.max_interval),
        ("ra.min-interval", same_pace && was.min_interval != is.min_interval),
        ("ra.router-lifetime", was.router_lifetime != is.router_lifetime),
        ("ra.pref64", was.pref64.is_empty() != is.pref64.is_empty()),
        ("ra.pref64-lifetime", same_pace && was.pref64_lifetime != is.pref64_lifetime),
        ("ra.dns", was.resolvers != is.resolvers),
        ("ra.dns-lifetime", same_pace && was.resolvers_lifetime != is.resolvers_lifetime),
        ("ra.managed", was.managed != is.managed),
        ("ra.other-config", was.other != is.other),
    ])
}

fn differing(keys: &[(&str, bool)]) -> Vec<String> {
    keys.iter().filter(|(_, differs)| *differs).map(|(path, _)| (*path).to_owned()).collect()
}

fn siit_restarts(was: &SiitPlan, is: &SiitPlan) -> Vec<String> {
    let MtuPlan { v6, v4, lowest_ipv6 } = was.mtu;
    differing(&[
        ("siit.prefix", was.prefix != is.prefix),
        ("siit.interface-info", was.interface_info != is.interface_info),
        ("siit.udp-zero-checksum", was.udp_zero_checksum != is.udp_zero_checksum),
        ("siit.hairpin", was.hairpin != is.hairpin),
        ("siit.workers", was.workers != is.workers),
        ("siit.icmp6-source", was.icmp6_source != is.icmp6_source),
        ("siit.icmp-errors-per-second", was.icmp_errors_per_second != is.icmp_errors_per_second),
        ("siit.mtu6", v6 != is.mtu.v6),
        ("siit.mtu4", v4 != is.mtu.v4),
        ("siit.lowest-ipv6-mtu", lowest_ipv6 != is.mtu.lowest_ipv6),
        ("siit.reach-gateway", was.reach_gateway != is.reach_gateway),
        ("siit.mss-clamp", was.mss_clamp != is.mss_clamp),
        ("siit.tos", was.classes.tos != is.classes.tos),
        ("siit.traffic-class", was.classes.traffic_class != is.classes.traffic_class),
    ])
}

fn nat64_restarts(was: &Nat64Plan, is: &Nat64Plan) -> Vec<String> {
    let plain = differing(&[
        ("nat64.pool6", was.pool6 != is.pool6),
        ("nat64.subscriber", was.subscriber_len != is.subscriber_len),
        ("nat64.block-size", was.block_size != is.block_size),
        ("nat64.block-assignment", was.assignment != is.assignment),
        ("nat64.journal", was.journal != is.journal && was.key_file == is.key_file),
        ("nat64.ports.hold-down-max", was.ports.hold_down_max != is.ports.hold_down_max),
        ("nat64.key-file", was.key_file != is.key_file),
        ("nat64.workers", was.workers != is.workers),
        ("nat64.sessions", was.limits.sessions != is.limits.sessions),
        ("nat64.subscribers", was.limits.subscribers != is.limits.subscribers),
        (
            "nat64.icmp-errors-per-second",
            was.limits.icmp_errors_per_second != is.limits.icmp_errors_per_second,
        ),
        ("nat64.icmp6-source", was.icmp6_source != is.icmp6_source),
        ("nat64.mtu6", was.mtu.v6 != is.mtu.v6),
        ("nat64.mtu4", was.mtu.v4 != is.mtu.v4),
        ("nat64.lowest-ipv6-mtu", was.mtu.lowest_ipv6 != is.mtu.lowest_ipv6),
        ("nat64.reach-gateway", was.reach_gateway != is.reach_gateway),
        ("nat64.mss-clamp", was.mss_clamp != is.mss_clamp),
        ("nat64.tos", was.classes.tos != is.classes.tos),
        ("nat64.traffic-class", was.classes.traffic_class != is.classes.traffic_class),
        ("nat64.fragments.bytes", was.fragments.bytes != is.fragments.bytes),
        ("nat64.fragments.datagrams", was.fragments.datagrams != is.fragments.datagrams),
        (
            "nat64.fragments.datagrams-per-source",
            was.fragments.datagrams_per_source != is.fragments.datagrams_per_source,
        ),
        ("nat64.fragments.pieces", was.fragments.pieces != is.fragments.pieces),
        ("nat64.fragments.timeout", was.fragments.timeout != is.fragments.timeout),
    ]);
    // A range that stays must come here the same way; a new one may choose.
    let same_range =
        |pool: &Pool4Plan| was.pool4.iter().find(|other| other.range.prefix == pool.range.prefix);
    let moved = is.pool4.iter().enumerate().filter_map(|(i, pool)| {
        same_range(pool).filter(|other| other.mode != pool.mode).map(|_| format!("nat64.pool4[{i}].mode"))
    });
    // Tables are made for the block sizes there are at start; and what a range has leased has its size.
    let sizes: Vec<u16> = was.pool4.iter().map(|pool| was.block_size_of(pool)).collect();
    let resized = is.pool4.iter().enumerate().filter_map(|(i, pool)| {
        let size = is.block_size_of(pool);
        let same_size = same_range(pool).is_none_or(|other| was.block_size_of(other) == size);
        let path = || format!("nat64.pool4[{i}].block-size");
        (was.block_size == is.block_size && !(same_size && sizes.contains(&size))).then(path)
    });
    // The permutation is a function of both: it cannot change under the feet of those who have its blocks. And an address
    // is shared from the beginning, or a route leads it here.
    let permuted = is.assignment == Assignment::Permuted && was.assignment == is.assignment;
    let fixed = differing(&[
        ("unit", permuted && was.units != is.units),
        ("nat64.pool4", (permuted && was.ranges() != is.ranges()) || was.shared() != is.shared()),
    ]);
    plain.into_iter().chain(moved).chain(resized).chain(fixed).collect()
}

fn sessions(plan: &Plan) -> Option<u32> {
    plan.nat64().map(|nat64| nat64.limits.sessions)
}

fn dns64_restarts(was: &DnsPlan, is: &DnsPlan) -> Vec<String> {
    let both = was.tls.as_ref().zip(is.tls.as_ref());
    let tls = |differ: fn(&TlsPlan, &TlsPlan) -> bool| both.is_some_and(|(was, is)| differ(was, is));
    differing(&[
        ("dns64.cache", was.cache_bytes != is.cache_bytes),
        ("dns64.listen", was.listen != is.listen),
        ("dns64.tls", was.tls.is_some() != is.tls.is_some()),
        ("dns64.tls.listen", tls(|was, is| was.listen != is.listen)),
        ("dns64.tls.https", tls(|was, is| was.https != is.https)),
        ("dns64.connections.most", was.connections.most != is.connections.most),
        ("dns64.connections.per-client", was.connections.per_client != is.connections.per_client),
        ("dns64.connections.idle", was.connections.idle != is.connections.idle),
        ("dns64.connections.handshake", was.connections.handshake != is.connections.handshake),
    ])
}

#[cfg(test)]
mod tests;
