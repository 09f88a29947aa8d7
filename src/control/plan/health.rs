//! Checks of `[health]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::absolute;
use super::nat64::number;
use crate::addr::is_illegal_source4;
use crate::control::config::{self, At};
use crate::control::health::Patience;
use crate::control::problem::{Fault, Problems};

/// Longest time that anything may have to last, in seconds.
const MAX_PATIENCE: u64 = 300;
/// A day.
const MAX_GRACE: u64 = 86_400;

/// By what the translator counts as working.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthPlan {
    /// How long something must last.
    pub patience: Patience,
    /// Where IPv4 must lead, if the operator chose it.
    pub egress: Option<Vec<Ipv4Addr>>,
    /// What outside is tried.
    pub targets: Vec<SocketAddr>,
    /// Whether it counts when none of them answers.
    pub targets_count: bool,
    /// How long a gateway may be away without being down.
    pub restart_grace: Duration,
    /// The socket of the gateway that a DNS64 of its own asks, if the operator chose it.
    pub gateway: Option<PathBuf>,
}

pub(super) fn build(section: Option<&At<config::Health>>, problems: &mut Problems) -> HealthPlan {
    let section = section.map(|at| at.value.clone()).unwrap_or_default();
    let usual = Patience::default();
    let mut seconds = |at: Option<&At<u64>>, usual: Duration, range| {
        Duration::from_secs(number(at, usual.as_secs(), range, problems))
    };
    let patience = Patience {
        down_after: seconds(section.down_after.as_ref(), usual.down_after, 3..=MAX_PATIENCE),
        up_after: seconds(section.up_after.as_ref(), usual.up_after, 0..=MAX_PATIENCE),
    };
    let grace = Duration::from_secs(120);
    let restart_grace = seconds(section.restart_grace.as_ref(), grace, 1..=MAX_GRACE);
    let egress = section.egress.as_ref().map(|list| {
        for at in list.value.iter().filter(|at| is_illegal_source4(at.value)) {
            problems.error(&at.path, Fault::NotUnicast { value: at.value.to_string() });
        }
        list.value.iter().map(|at| at.value).collect()
    });
    let targets = section.targets.map(|at| at.value).unwrap_or_default();
    for at in &targets {
        let ip = at.value.ip();
        if ip.is_multicast() || ip.is_unspecified() || ip == Ipv4Addr::BROADCAST {
            problems.error(&at.path, Fault::NotUnicast { value: ip.to_string() });
        }
        if at.value.port() == 0 {
            problems.error(&at.path, Fault::PortMissing);
        }
    }
    HealthPlan {
        patience,
        egress,
        targets: targets.into_iter().map(|at| at.value).collect(),
        targets_count: section.targets_count.is_some_and(|at| at.value),
        restart_grace,
        gateway: section.gateway.as_ref().map(|at| absolute(Some(at), "", problems)),
    }
}
