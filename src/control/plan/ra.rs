//! Checks of `[ra]`.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::nat64::{nonempty, number};
use super::{TranslatorPlan, interface_name};
use crate::addr::{Prefix6, is_illegal_source6};
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::wire::nd::MAX_PREF64_LIFETIME;

/// Router advertisements, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaPlan {
    /// Names of the interfaces, at least one.
    pub interfaces: Vec<String>,
    /// Least time between two of them that nobody has asked for.
    pub min_interval: Duration,
    /// The longest.
    pub max_interval: Duration,
    /// Seconds as a default router; 0 is none.
    pub router_lifetime: u16,
    /// Translation prefixes to advertise.
    pub pref64: Vec<Prefix6>,
    /// Seconds for which they hold.
    pub pref64_lifetime: u16,
    /// Resolvers to advertise.
    pub resolvers: Vec<Ipv6Addr>,
    /// Seconds for which they hold.
    pub resolvers_lifetime: u32,
    /// Addresses come by DHCPv6.
    pub managed: bool,
    /// Other things come by DHCPv6.
    pub other: bool,
}

pub(super) fn build(
    section: &config::Ra,
    translator: &TranslatorPlan,
    tun_name: &str,
    problems: &mut Problems,
) -> RaPlan {
    let interfaces = section.interfaces.as_ref().map_or_else(Vec::new, |list| {
        nonempty(list, problems);
        for at in &list.value {
            interface_name(Some(at), problems);
            if at.value == tun_name {
                problems.error(&at.path, Fault::InterfaceName { value: at.value.clone() });
            }
        }
        list.value.iter().map(|at| at.value.clone()).collect()
    });
    // RFC 4861 §6.2.1 for the bounds of the first three.
    let max: u16 = number(section.max_interval.as_ref(), 600, 4..=1800, problems);
    let third = if max >= 9 { max / 3 } else { max * 3 / 4 };
    let min: u16 = number(section.min_interval.as_ref(), third, 3..=u64::from(max) * 3 / 4, problems);
    let router_lifetime: u16 = match &section.router_lifetime {
        Some(at) if at.value > 0 => number(Some(at), 0, max.into()..=9000, problems),
        Some(_) | None => 0,
    };
    // RFC 8781 §4.1: three intervals, and never shorter than the router's own.
    let usual = (3 * max).max(router_lifetime);
    let shortest = u64::from(max.max(router_lifetime));
    let longest = MAX_PREF64_LIFETIME.into();
    let pref64_lifetime = number(section.pref64_lifetime.as_ref(), usual, shortest..=longest, problems);
    let resolvers = section.dns.as_ref().map_or_else(Vec::new, |list| {
        for at in list.value.iter().filter(|at| is_illegal_source6(at.value)) {
            problems.error(&at.path, Fault::NotUnicast { value: at.value.to_string() });
        }
        list.value.iter().map(|at| at.value).collect()
    });
    let prefixes = match translator {
        TranslatorPlan::Nat64(nat64) => nat64.pool6.iter().map(|prefix| prefix.prefix()).collect(),
        TranslatorPlan::Siit(siit) => vec![siit.prefix.prefix()],
    };
    let is_on = |at: &Option<At<bool>>| at.as_ref().is_some_and(|at| at.value);
    RaPlan {
        interfaces,
        min_interval: Duration::from_secs(min.into()),
        max_interval: Duration::from_secs(max.into()),
        router_lifetime,
        pref64: if section.pref64.as_ref().is_none_or(|at| at.value) { prefixes } else { Vec::new() },
        pref64_lifetime,
        resolvers,
        // RFC 8106 §5.1: three intervals.
        resolvers_lifetime: number(
            section.dns_lifetime.as_ref(),
            3 * u32::from(max),
            max.into()..=u32::MAX.into(),
            problems,
        ),
        managed: is_on(&section.managed),
        other: is_on(&section.other_config),
    }
}
