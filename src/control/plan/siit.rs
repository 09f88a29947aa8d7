//! Checks of `[siit]`.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::nat64::{allow, classes, icmp6_source, is_unicast4, is_unicast6, mtu, number, pref64};
use super::{Allowed, MAX_WORKERS, MtuPlan};
use crate::addr::{Prefix4, Prefix6};
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::nat64::settings::{Classes, Hops, Mtu};
use crate::siit::mapping::Mapping;
use crate::siit::settings::{Hairpin, Settings, ZeroChecksum};
use crate::xlat::eam::{Eam, EamTable, Home};
use crate::xlat::mss;
use crate::xlat::pref64::Pref64;

/// The stateless translator. [`SiitPlan::settings`] makes the translator's settings of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiitPlan {
    /// Translation prefix.
    pub prefix: Pref64,
    /// Explicit address mappings.
    pub eam: Arc<EamTable>,
    /// IPv4 addresses of IPv6 nodes with addresses under the prefix.
    pub translatable4: Vec<Prefix4>,
    /// IPv4 sources for ICMP errors of IPv6 routers without an IPv4 address.
    pub icmp6_pool4: Vec<Prefix4>,
    /// Whether such an error tells its real source.
    pub interface_info: bool,
    /// What becomes of UDP without a checksum.
    pub udp_zero_checksum: ZeroChecksum,
    /// How packets between mapped IPv6 nodes are treated.
    pub hairpin: Hairpin,
    /// Non-global IPv4 hosts that may be spoken to.
    pub allow: Vec<Allowed>,
    /// Whether IPv6 nodes reach the addresses of the machine itself.
    pub reach_gateway: bool,
    /// Number of workers, if the operator chose it.
    pub workers: Option<u16>,
    /// MTUs, as far as the operator chose them.
    pub mtu: MtuPlan,
    /// Whether the TCP segment size is limited to what fits the links.
    pub mss_clamp: bool,
    /// Octets that are written whatever the packet says.
    pub classes: Classes,
    /// Source of the ICMPv6 errors that the gateway originates.
    pub icmp6_source: Option<Ipv6Addr>,
    /// ICMP errors that one worker originates, per second.
    pub icmp_errors_per_second: u32,
}

impl SiitPlan {
    /// The translator's settings, with what only the daemon knows.
    pub fn settings(&self, mtu: Mtu, hops: Hops) -> Settings {
        Settings {
            mapping: self.mapping(),
            udp_zero_checksum: self.udp_zero_checksum,
            hairpin: self.hairpin,
            interface_info: self.interface_info,
            mtu,
            mss_clamp: self.mss_clamp.then(|| mss::fitting(mtu.v6, mtu.v4)),
            classes: self.classes,
            icmp6_source: self.icmp6_source,
            icmp_errors_per_second: self.icmp_errors_per_second,
            hops,
        }
    }

    /// Which address stands for which.
    pub fn mapping(&self) -> Mapping {
        Mapping {
            prefix: self.prefix,
            eam: self.eam.clone(),
            translatable4: self.translatable4.clone(),
            icmp_pool4: self.icmp6_pool4.clone(),
            allow: self.allowed(),
        }
    }

    /// The non-global hosts that may be spoken to.
    pub fn allowed(&self) -> Vec<Prefix4> {
        self.allow.iter().map(|allowed| allowed.prefix).collect()
    }

    /// IPv4 prefixes that lead to the translator.
    pub fn routed4(&self) -> Vec<Prefix4> {
        let eam = self.eam.rows().iter().filter(|eam| eam.home == Home::V6).map(|eam| eam.v4);
        eam.chain(self.translatable4.iter().copied()).chain(self.icmp6_pool4.iter().copied()).collect()
    }

    /// IPv6 prefixes that lead to the translator.
    pub fn routed6(&self) -> Vec<Prefix6> {
        let eam = self.eam.rows().iter().filter(|eam| eam.home == Home::V4).map(|eam| eam.v6);
        std::iter::once(self.prefix.prefix()).chain(eam).collect()
    }
}

/// Checks the section and makes the plan. What could not be read is replaced by its default; the problems then say that
/// there is no plan.
pub(super) fn build(section: &config::Siit, problems: &mut Problems) -> SiitPlan {
    let prefix = prefix(section, problems);
    let hairpin = section.hairpin.as_ref().map(|at| at.value).unwrap_or_default();
    let eam = eam(section, hairpin, problems);
    let translatable4 = translatable4(section, problems);
    let icmp6_pool4 = icmp6_pool4(section, problems);
    // Not worth a word while something else is wrong.
    if !problems.any_error() {
        if eam.rows().is_empty() && translatable4.is_empty() {
            problems.warning("siit", Fault::NothingMapped);
        }
        if icmp6_pool4.is_empty() {
            problems.warning("siit.icmp6-pool4", Fault::NoIcmpPool);
        }
    }
    SiitPlan {
        allow: allow(section.allow.as_ref(), &[prefix], problems),
        workers: section.workers.as_ref().map(|at| number(Some(at), 1u16, 1..=MAX_WORKERS.into(), problems)),
        mtu: mtu(&section.mtu6, &section.mtu4, &section.lowest_ipv6_mtu, problems),
        reach_gateway: section.reach_gateway.as_ref().is_some_and(|at| at.value),
        mss_clamp: section.mss_clamp.as_ref().is_none_or(|at| at.value),
        classes: classes(&section.tos, &section.traffic_class, problems),
        icmp6_source: icmp6_source(section.icmp6_source.as_ref(), &[prefix], problems),
        icmp_errors_per_second: number(
            section.icmp_errors_per_second.as_ref(),
            1_000,
            0..=1_000_000,
            problems,
        ),
        interface_info: section.interface_info.as_ref().is_none_or(|at| at.value),
        udp_zero_checksum: section.udp_zero_checksum.as_ref().map(|at| at.value).unwrap_or_default(),
        eam: Arc::new(eam),
        prefix,
        translatable4,
        icmp6_pool4,
        hairpin,
    }
}

fn prefix(section: &config::Siit, problems: &mut Problems) -> Pref64 {
    // Without one there is an error already.
    let Some(at) = &section.prefix else { return Pref64::well_known() };
    pref64(at, problems);
    if at.value.is_well_known() {
        problems.warning(&at.path, Fault::WellKnownStateless);
    }
    at.value
}

fn eam(section: &config::Siit, hairpin: Hairpin, problems: &mut Problems) -> EamTable {
    let Some(list) = &section.eam else { return EamTable::default() };
    let mut rows: Vec<(&At<Prefix4>, &At<Prefix6>, Eam)> = Vec::new();
    let (mut seen4, mut seen6) = (HashMap::new(), HashMap::new());
    for row in &list.value {
        let (Some(v4), Some(v6)) = (&row.value.ipv4, &row.value.ipv6) else { continue };
        let home = row.value.home.as_ref().map(|at| at.value).unwrap_or_default();
        let eam = Eam { v4: v4.value, v6: v6.value, home };
        if !eam.fits() {
            let (ipv4, ipv6) = (v4.value.to_string(), v6.value.to_string());
            problems.error(&v4.path, Fault::EamSuffix { ipv4, ipv6 });
        }
        // The whole IPv4 network may be mapped (RFC 7757 A.2), but not routed here.
        let all_of_ipv4 = home == Home::V4 && v4.value.len() == 0;
        if !is_unicast4(v4.value) && !all_of_ipv4 {
            problems.error(&v4.path, Fault::NotUnicast { value: v4.value.to_string() });
        }
        if !is_unicast6(v6.value) {
            problems.error(&v6.path, Fault::NotUnicast { value: v6.value.to_string() });
        }
        if let Some(other) = seen4.insert(eam.v4, &v4.path) {
            let (value, at) = (v4.value.to_string(), other.clone());
            problems.error(&v4.path, Fault::Duplicate { value, at });
        }
        if let Some(other) = seen6.insert(eam.v6, &v6.path) {
            let (value, at) = (v6.value.to_string(), other.clone());
            problems.error(&v6.path, Fault::Duplicate { value, at });
        }
        if hairpin == Hairpin::Simple && home == Home::V4 {
            problems.warning(&row.path, Fault::SimpleHidesMappings);
        }
        rows.push((v4, v6, eam));
    }
    // What is wrong has been said above.
    let table = EamTable::new(rows.iter().map(|(_, _, eam)| *eam).collect()).unwrap_or_default();
    for (inner, outer) in table.overlaps() {
        let (Some((v4, v6, eam)), Some((other4, other6, other))) = (rows.get(inner), rows.get(outer)) else {
            continue;
        };
        let (at, value, other, path) = if eam.v4.overlaps(other.v4) {
            (&v4.path, eam.v4.to_string(), other.v4.to_string(), &other4.path)
        } else {
            (&v6.path, eam.v6.to_string(), other.v6.to_string(), &other6.path)
        };
        problems.warning(at, Fault::EamOverlap { value, other, at: path.clone() });
    }
    table
}

fn translatable4(section: &config::Siit, problems: &mut Problems) -> Vec<Prefix4> {
    let Some(list) = &section.translatable4 else { return Vec::new() };
    for (i, at) in list.value.iter().enumerate() {
        if !is_unicast4(at.value) {
            problems.error(&at.path, Fault::NotUnicast { value: at.value.to_string() });
        }
        if let Some(other) = list.value.iter().take(i).find(|other| other.value.overlaps(at.value)) {
            let (value, other, path) = (at.value.to_string(), other.value.to_string(), other.path.clone());
            problems.error(&at.path, Fault::Overlap { value, other, at: path });
        }
    }
    list.value.iter().map(|at| at.value).collect()
}

fn icmp6_pool4(section: &config::Siit, problems: &mut Problems) -> Vec<Prefix4> {
    let Some(list) = &section.icmp6_pool4 else { return Vec::new() };
    for at in &list.value {
        let value = at.value.to_string();
        if !is_unicast4(at.value) {
            problems.error(&at.path, Fault::NotUnicast { value });
        } else if is_private(at.value) {
            problems.warning(&at.path, Fault::PrivateIcmpPool { value });
        }
        // A node would be taken for the sender of a router's errors. A row for all of IPv4 is none of a node.
        let mapped =
            section.eam.iter().flat_map(|list| &list.value).filter_map(|row| row.value.ipv4.as_ref());
        let mut nodes = mapped.chain(section.translatable4.iter().flat_map(|list| &list.value));
        if let Some(other) = nodes.find(|other| other.value.len() > 0 && other.value.overlaps(at.value)) {
            let (value, other, path) = (at.value.to_string(), other.value.to_string(), other.path.clone());
            problems.error(&at.path, Fault::Overlap { value, other, at: path });
        }
    }
    list.value.iter().map(|at| at.value).collect()
}

/// RFC 6791 §3.1: the blocks of RFC 1918 and RFC 6598.
fn is_private(prefix: Prefix4) -> bool {
    [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)]
        .into_iter()
        .any(|(first, len)| prefix.overlaps(Prefix4::covering(first.into(), len)))
}
