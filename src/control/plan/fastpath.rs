//! Checks of `[fastpath]`.

use std::path::PathBuf;
use std::time::Duration;

use super::nat64::number;
use super::{TranslatorPlan, absolute, interface_name};
use crate::control::config::{self, At, FastMode};
use crate::control::problem::{Fault, Problems};

/// Most flows: more than any machine's memory is worth.
const MAX_FLOWS: u64 = 16_777_216;
/// Several of the heartbeats that a gateway gives each second.
const MIN_ORPHAN: u64 = 5;
/// A day.
const MAX_ORPHAN: u64 = 86_400;
/// Packets per second of one subscriber.
const MAX_RATE: u64 = 10_000_000;

/// When there is a fast path, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPlan {
    /// When.
    pub mode: FastMode,
    /// Interfaces towards the clients, if the operator chose them.
    pub inside: Option<Vec<String>>,
    /// Interfaces towards IPv4, likewise.
    pub outside: Option<Vec<String>>,
    /// Most flows.
    pub max_flows: u32,
    /// How long it goes on without a gateway.
    pub orphan_limit: Duration,
    /// Where the maps are kept, if the operator chose it.
    pub pins: Option<PathBuf>,
    /// Packets per second of one subscriber that go up; 0 is no limit.
    pub miss_rate: u32,
    /// How many of them at once.
    pub miss_burst: u32,
}

pub(super) fn build(
    section: Option<&At<config::Fastpath>>,
    translator: &TranslatorPlan,
    tun_name: &str,
    problems: &mut Problems,
) -> FastPlan {
    let section = section.map(|at| at.value.clone()).unwrap_or_default();
    let sessions = match translator {
        TranslatorPlan::Nat64(nat64) => nat64.limits.sessions,
        TranslatorPlan::Siit(_) => 1,
    };
    let shares = matches!(translator, TranslatorPlan::Nat64(nat64) if !nat64.shared().is_empty());
    if let Some(at) = section.mode.as_ref().filter(|at| shares && at.value == FastMode::Off) {
        problems.error(&at.path, Fault::SharedNeedsFastPath);
    }
    FastPlan {
        mode: section.mode.map(|at| at.value).unwrap_or_default(),
        inside: interfaces(section.inside.as_ref(), tun_name, problems),
        outside: interfaces(section.outside.as_ref(), tun_name, problems),
        max_flows: number(section.max_flows.as_ref(), sessions, 1..=MAX_FLOWS, problems),
        orphan_limit: Duration::from_secs(number(
            section.orphan_limit.as_ref(),
            300,
            MIN_ORPHAN..=MAX_ORPHAN,
            problems,
        )),
        pins: section.pins.as_ref().map(|at| absolute(Some(at), "", problems)),
        miss_rate: number(section.miss_rate.as_ref(), 20_000, 0..=MAX_RATE, problems),
        miss_burst: number(section.miss_burst.as_ref(), 20_000, 1..=MAX_RATE, problems),
    }
}

fn interfaces(
    list: Option<&At<Vec<At<String>>>>,
    tun_name: &str,
    problems: &mut Problems,
) -> Option<Vec<String>> {
    let list = list?;
    for at in &list.value {
        interface_name(Some(at), problems);
        // What it carries must not come back to it.
        if at.value == tun_name {
            problems.error(&at.path, Fault::InterfaceName { value: at.value.clone() });
        }
    }
    Some(list.value.iter().map(|at| at.value.clone()).collect())
}
