//! Checks of what `[dns64]` says about answers: policies, views, local zones, names that are asked elsewhere.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::dns::Shared;
use super::nat64::{nonempty, number};
use crate::addr::{Prefix4, PrefixAny};
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::dns64::limit::Limit;
use crate::dns64::{Group, Policy, Range, Route, Settings, View, Zone, Zones, ipv4_mapped};
use crate::text::shown;
use crate::xlat::pref64::Pref64;

/// TTL of a local record that says none.
const TTL: u32 = 300;

/// The settings but for who may ask.
pub(super) fn settings(section: &config::Dns64, shared: &Shared, problems: &mut Problems) -> Settings {
    let policy = policy(section, shared, problems);
    let views: Vec<View> = section
        .view
        .iter()
        .flat_map(|list| &list.value)
        .map(|at| view(at, &policy, shared, problems))
        .collect();
    unique(section.view.as_ref(), |view| view.name.as_ref(), problems);
    let units = shared.units.iter().zip(0u16..);
    Settings {
        views: views.into_iter().collect(),
        units: units
            .flat_map(|(unit, number)| unit.prefixes.iter().map(move |net| (PrefixAny::V6(*net), number)))
            .collect(),
        limit: section.limit.as_ref().and_then(|at| limit(&at.value, problems)),
        zones: zones(section, &shared.allow, problems),
        routes: routes(section, problems).into_iter().collect(),
        trust_ad: is_set(section.trust_ad.as_ref(), false),
        when_down: section.when_down.as_ref().map_or_else(Default::default, |at| at.value),
        policy,
        ..Settings::default()
    }
}

fn policy(section: &config::Dns64, shared: &Shared, problems: &mut Problems) -> Policy {
    Policy {
        mode: section.mode.as_ref().map_or_else(Default::default, |at| at.value),
        on_error: section.on_error.as_ref().map_or_else(Default::default, |at| at.value),
        exclude_aaaa: section.exclude_aaaa.as_ref().map_or_else(|| vec![ipv4_mapped()], values),
        filter_a: is_set(section.filter_a.as_ref(), false),
        names: names(section.names.as_ref()),
        ranges: ranges(section.range.as_ref(), shared, problems),
        prefixes: shared.pool6.clone(),
        allow: shared.allow.clone(),
    }
}

/// A view: what it does not say is as for everybody.
fn view(at: &At<config::DnsView>, common: &Policy, shared: &Shared, problems: &mut Problems) -> View {
    let view = &at.value;
    let mut clients: Vec<PrefixAny> = view.clients.as_ref().map(values).unwrap_or_default();
    for name in view.units.iter().flat_map(|list| &list.value) {
        match shared.units.iter().find(|unit| unit.name == name.value) {
            Some(unit) => clients.extend(unit.prefixes.iter().copied().map(PrefixAny::V6)),
            None => problems.error(&name.path, Fault::UnknownUnit { name: shown(&name.value, 60) }),
        }
    }
    if clients.is_empty() && !problems.complained_below(&at.path) {
        problems.error(&at.path, Fault::ViewForNobody);
    }
    let policy = Policy {
        mode: view.mode.as_ref().map_or(common.mode, |at| at.value),
        on_error: view.on_error.as_ref().map_or(common.on_error, |at| at.value),
        exclude_aaaa: view.exclude_aaaa.as_ref().map_or_else(|| common.exclude_aaaa.clone(), values),
        filter_a: is_set(view.filter_a.as_ref(), common.filter_a),
        names: view.names.as_ref().map_or_else(|| common.names.clone(), |list| names(Some(list))),
        ranges: match &view.range {
            Some(list) => ranges(Some(list), shared, problems),
            None => common.ranges.clone(),
        },
        prefixes: match &view.prefixes {
            Some(list) => {
                nonempty(list, problems);
                prefixes(list, shared, problems)
            }
            None => common.prefixes.clone(),
        },
        allow: common.allow.clone(),
    };
    View { clients, transports: view.transports.as_ref().map(values).unwrap_or_default(), policy }
}

fn names(list: Option<&At<Vec<At<config::DnsName>>>>) -> Vec<(Name, crate::dns64::Mode)> {
    let rows = list.into_iter().flat_map(|list| &list.value);
    rows.filter_map(|at| Some((at.value.suffix.as_ref()?.value.clone(), at.value.mode.as_ref()?.value)))
        .collect()
}

fn ranges(
    list: Option<&At<Vec<At<config::DnsRange>>>>,
    shared: &Shared,
    problems: &mut Problems,
) -> Vec<Range> {
    let rows = list.into_iter().flat_map(|list| &list.value);
    rows.filter_map(|at| {
        let prefixes = prefixes(at.value.prefixes.as_ref()?, shared, problems);
        Some(Range { v4: at.value.ipv4.as_ref()?.value, prefixes })
    })
    .collect()
}

/// Prefixes that the translator knows, too.
fn prefixes(list: &At<Vec<At<Pref64>>>, shared: &Shared, problems: &mut Problems) -> Vec<Pref64> {
    for at in list.value.iter().filter(|at| !shared.pool6.contains(&at.value)) {
        problems.error(&at.path, Fault::NotOfTranslator { value: at.value.to_string() });
    }
    values(list)
}

fn limit(section: &config::DnsLimit, problems: &mut Problems) -> Option<Limit> {
    let usual = Limit::default();
    let limit = Limit {
        per_second: number(section.per_second.as_ref(), 0, 0..=1_000_000, problems),
        burst: number(section.burst.as_ref(), usual.burst, 1..=1_000_000, problems),
        client_len: number(section.client.as_ref(), usual.client_len, 32..=128, problems),
    };
    (limit.per_second > 0).then_some(limit)
}

fn routes(section: &config::Dns64, problems: &mut Problems) -> Vec<Route> {
    let mut routes: Vec<(Route, &str)> = Vec::new();
    for (at, number) in section.forward.iter().flat_map(|list| &list.value).zip(1u16..) {
        let trust_ad = is_set(at.value.trust_ad.as_ref(), false);
        let Some(names) = &at.value.names else { continue };
        nonempty(names, problems);
        for name in &names.value {
            if let Some((_, other)) = routes.iter().find(|(route, _)| route.suffix == name.value) {
                let (value, at) = (name.value.to_string(), (*other).to_owned());
                problems.error(&name.path, Fault::Duplicate { value, at });
            }
            routes.push((Route { suffix: name.value.clone(), group: Group(number), trust_ad }, &name.path));
        }
    }
    routes.into_iter().map(|(route, _)| route).collect()
}

fn zones(section: &config::Dns64, reached: &[Prefix4], problems: &mut Problems) -> Zones {
    let rows = section.zone.iter().flat_map(|list| &list.value);
    let mut zones: Vec<Zone> = rows.filter_map(|at| zone(&at.value, problems)).collect();
    unique(section.zone.as_ref(), |zone| zone.name.as_ref(), problems);
    if is_set(section.private_reverse.as_ref(), true) {
        let written: Vec<Name> = zones.iter().map(|zone| zone.apex.clone()).collect();
        zones.extend(Zones::private_reverse(reached).filter(|zone| !written.contains(&zone.apex)));
    }
    Zones::new(zones)
}

fn zone(section: &config::LocalZone, problems: &mut Problems) -> Option<Zone> {
    let (apex, lines) = (&section.name.as_ref()?.value, section.records.as_ref()?);
    let mut records: Vec<Record> = Vec::new();
    for at in &lines.value {
        let Some(record) = record(apex, &at.value) else {
            problems.error(&at.path, Fault::BadRecord { value: shown(&at.value, 80) });
            continue;
        };
        let others = records.iter().filter(|other| other.name == record.name);
        let is_alias = |record: &Record| record.record_type() == RecordType::CNAME;
        if others.into_iter().any(|other| is_alias(other) || is_alias(&record)) {
            problems.error(&at.path, Fault::AliasWithOthers { name: shown(&record.name.to_string(), 80) });
        }
        records.push(record);
    }
    Some(Zone { apex: apex.clone(), records })
}

/// `owner [TTL] TYPE data`.
fn record(apex: &Name, line: &str) -> Option<Record> {
    let (owner, rest) = word(line)?;
    let owner = match owner {
        "@" => apex.clone(),
        _ if owner.ends_with('.') => Name::from_utf8(owner).ok()?,
        _ => Name::from_utf8(owner).ok()?.append_domain(apex).ok()?,
    };
    let (ttl, rest) = match word(rest)? {
        (first, rest) if first.bytes().all(|b| b.is_ascii_digit()) => (first.parse().ok()?, rest),
        _ => (TTL, rest),
    };
    let (rtype, data) = word(rest)?;
    let data = data.trim();
    let name = || {
        let mut name = Name::from_utf8(data).ok().filter(|_| !data.is_empty())?;
        name.set_fqdn(true);
        Some(name)
    };
    let data = match rtype {
        "A" => RData::A(A(data.parse::<Ipv4Addr>().ok()?)),
        "AAAA" => RData::AAAA(AAAA(data.parse::<Ipv6Addr>().ok()?)),
        "CNAME" => RData::CNAME(CNAME(name()?)),
        "PTR" => RData::PTR(PTR(name()?)),
        "TXT" if (1..=255).contains(&data.len()) => RData::TXT(TXT::new(vec![data.to_owned()])),
        _ => return None,
    };
    (apex.zone_of(&owner) && ttl <= i32::MAX as u32).then(|| Record::from_rdata(owner, ttl, data))
}

/// The first word and what follows it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(word, _)| !word.is_empty())
}

/// Complains about entries with the same key.
fn unique<T, K: PartialEq + std::fmt::Display>(
    list: Option<&At<Vec<At<T>>>>,
    key: impl Fn(&T) -> Option<&At<K>>,
    problems: &mut Problems,
) {
    let keys: Vec<&At<K>> =
        list.into_iter().flat_map(|list| &list.value).filter_map(|at| key(&at.value)).collect();
    for (i, at) in keys.iter().enumerate() {
        if let Some(other) = keys.iter().take(i).find(|other| other.value == at.value) {
            let value = shown(&at.value.to_string(), 60);
            problems.error(&at.path, Fault::Duplicate { value, at: other.path.clone() });
        }
    }
}

fn values<T: Clone>(list: &At<Vec<At<T>>>) -> Vec<T> {
    list.value.iter().map(|at| at.value.clone()).collect()
}

fn is_set(at: Option<&At<bool>>, default: bool) -> bool {
    at.map_or(default, |at| at.value)
}
