//! Checks of `[[nat64.static]]`.

use super::nat64::{is_unicast6, number};
use super::{Pool4Mode, Pool4Plan};
use crate::addr::Prefix6;
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::nat64::settings::{MAX_STATIC, Protocol, StaticEntry, Unit};
use crate::xlat::pref64::Pref64;

/// The static mappings. What could not be read is left out; the problems then say that there is no plan.
pub(super) fn build(
    list: Option<&At<Vec<At<config::Static>>>>,
    pool6: &[Pref64],
    pool4: &[Pool4Plan],
    units: &[Unit],
    problems: &mut Problems,
) -> Vec<StaticEntry> {
    let Some(list) = list else { return Vec::new() };
    if list.value.len() > MAX_STATIC as usize {
        let value = list.value.len().to_string();
        problems.error(&list.path, Fault::OutOfRange { value, low: 0, high: MAX_STATIC.into() });
    }
    let mut seen: Vec<(&str, StaticEntry)> = Vec::new();
    for at in &list.value {
        let Some(entry) = entry(at, problems) else { continue };
        internal(at, &entry, pool6, units, problems);
        external(at, &entry, pool4, problems);
        for (path, other) in seen.iter().filter(|(_, other)| other.protocol == entry.protocol) {
            let taken = |key: &str, value: String| {
                (format!("{}.{key}", at.path), Fault::Duplicate { value, at: (*path).to_owned() })
            };
            let (path, fault) = if (other.src6, other.port6) == (entry.src6, entry.port6) {
                taken("internal-port", format!("[{}]:{}", entry.src6, entry.port6))
            } else if (other.src4, other.port4) == (entry.src4, entry.port4) {
                taken("external-port", format!("{}:{}", entry.src4, entry.port4))
            } else {
                continue;
            };
            problems.error(&path, fault);
        }
        seen.push((&at.path, entry));
    }
    let mut entries: Vec<_> = seen.into_iter().map(|(_, entry)| entry).collect();
    // Their order means nothing, so a changed order is no change.
    entries.sort_unstable();
    entries
}

fn entry(at: &At<config::Static>, problems: &mut Problems) -> Option<StaticEntry> {
    let section = &at.value;
    let protocol = section.protocol.as_ref()?.value;
    // An identifier may be anything; port 0 is none.
    let lowest = if protocol == Protocol::Icmp { 0 } else { 1 };
    let mut port = |at: &Option<At<u64>>| Some(number(Some(at.as_ref()?), 1u16, lowest..=65_535, problems));
    let (port6, port4) = (port(&section.internal_port), port(&section.external_port));
    Some(StaticEntry {
        protocol,
        src6: section.internal_address.as_ref()?.value,
        port6: port6?,
        src4: section.external_address.as_ref()?.value,
        port4: port4?,
    })
}

fn internal(
    at: &At<config::Static>,
    entry: &StaticEntry,
    pool6: &[Pref64],
    units: &[Unit],
    problems: &mut Problems,
) {
    let path = format!("{}.internal-address", at.path);
    let value = entry.src6.to_string();
    if !is_unicast6(Prefix6::covering(entry.src6, 128)) {
        problems.error(&path, Fault::NotUnicast { value });
    } else if let Some(pref64) = pool6.iter().find(|pref64| pref64.contains(entry.src6)) {
        problems.error(&path, Fault::InPool6 { value, pool6: pref64.to_string() });
    } else if !units.is_empty() && !units.iter().flat_map(|u| &u.prefixes).any(|p| p.contains(entry.src6)) {
        problems.error(&path, Fault::StaticNotServed { value });
    }
}

fn external(at: &At<config::Static>, entry: &StaticEntry, pool4: &[Pool4Plan], problems: &mut Problems) {
    let Some(pool) = pool4.iter().find(|pool| pool.range.prefix.contains(entry.src4)) else {
        let value = entry.src4.to_string();
        return problems.error(&format!("{}.external-address", at.path), Fault::StaticNotInPool { value });
    };
    if pool.mode == Pool4Mode::Shared {
        let value = entry.src4.to_string();
        problems.error(&format!("{}.external-address", at.path), Fault::StaticShared { value });
    } else if pool.range.ports.contains(&entry.port4) {
        let (low, high) = (*pool.range.ports.start(), *pool.range.ports.end());
        let fault = Fault::StaticPortGivenOut { port: entry.port4, low, high };
        problems.error(&format!("{}.external-port", at.path), fault);
    }
}
