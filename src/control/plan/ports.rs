//! Checks of `[nat64.ports]`, of the quotas, and of who gets blocks of which pool.

use std::time::Duration;

use super::Pool4Plan;
use super::nat64::{MAX_TIMER, number};
use crate::control::config::{self, At};
use crate::control::problem::{Fault, Problems};
use crate::nat64::permute::Declared;
use crate::nat64::policy::{HOLD_DOWN, PortPolicy, Quota};
use crate::nat64::pool4::span;
use crate::nat64::settings::Unit;
use crate::text::shown;

/// `[nat64.ports]`
pub(super) fn ports(section: &config::Nat64, problems: &mut Problems) -> PortPolicy {
    let usual = PortPolicy { max_blocks: 16, ..PortPolicy::default() };
    let Some(at) = &section.ports else { return usual };
    let section = &at.value;
    let chosen = |at: &Option<At<bool>>, usual: bool| at.as_ref().map_or(usual, |at| at.value);
    let hold_down = number(section.hold_down.as_ref(), HOLD_DOWN.as_secs(), 0..=MAX_TIMER, problems);
    if let Some(at) = section.hold_down.as_ref().filter(|at| at.value < HOLD_DOWN.as_secs()) {
        let (usual, source) = (HOLD_DOWN.as_secs(), "RFC 6888 REQ-8".to_owned());
        problems.warning(&at.path, Fault::TimerShort { value: at.value, usual, source });
    }
    PortPolicy {
        parity: chosen(&section.parity, usual.parity),
        range: chosen(&section.range, usual.range),
        preserve: chosen(&section.preserve, usual.preserve),
        pairing: section.pairing.as_ref().map(|at| at.value).unwrap_or_default(),
        hold_down: Duration::from_secs(hold_down),
        hold_down_max: number(section.hold_down_max.as_ref(), usual.hold_down_max, 0..=16_777_216, problems),
        block_idle: Duration::from_secs(number(
            section.block_idle.as_ref(),
            usual.block_idle.as_secs(),
            0..=MAX_TIMER,
            problems,
        )),
        max_blocks: number(section.max_blocks.as_ref(), usual.max_blocks, 0..=1_024, problems),
        overflow_blocks: number(section.overflow_blocks.as_ref(), usual.overflow_blocks, 0..=1_024, problems),
    }
}

/// `[nat64.quota]` and its like.
pub(super) fn quota(at: Option<&At<config::Quota>>, problems: &mut Problems) -> Quota {
    let Some(at) = at else { return Quota::default() };
    let config::Quota { ports, sessions, unanswered, new_per_second } = &at.value;
    quota_of([ports, sessions, unanswered, new_per_second], problems)
}

/// The four numbers of a quota.
pub(super) fn quota_of(keys: [&Option<At<u64>>; 4], problems: &mut Problems) -> Quota {
    let [ports, sessions, unanswered, new_per_second] =
        keys.map(|at| number(at.as_ref(), 0u32, 0..=16_777_216, problems));
    Quota { ports, sessions, unanswered, new_per_second }
}

/// Every unit's pool must be there, and a pool that no unit names serves nobody.
pub(super) fn pools_of_units(pool4: &[Pool4Plan], units: &[Unit], problems: &mut Problems) {
    for (i, unit) in units.iter().enumerate() {
        let Some(name) = &unit.pool else { continue };
        if !pool4.iter().any(|pool| pool.range.pool.as_ref() == Some(name)) {
            problems.error(&format!("unit[{i}].pool"), Fault::UnknownPool { value: shown(name, 60) });
        }
    }
    for (i, pool) in pool4.iter().enumerate() {
        let Some(name) = &pool.range.pool else { continue };
        if !units.iter().any(|unit| unit.pool.as_ref() == Some(name)) {
            problems.warning(&format!("nat64.pool4[{i}].name"), Fault::UnusedPool { value: shown(name, 60) });
        }
    }
}

/// `permuted` needs a block for every subscriber that can be.
pub(super) fn enough_for_all(
    section: &config::Nat64,
    pool4: &[Pool4Plan],
    block_size: u16,
    units: &[Unit],
    subscriber: u8,
    problems: &mut Problems,
) {
    let path = section.block_assignment.as_ref().map_or("nat64.block-assignment", |at| at.path.as_str());
    if units.is_empty() {
        problems.error(path, Fault::NobodyDeclared);
    }
    let mut names: Vec<_> = units.iter().map(|unit| &unit.pool).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let declared = Declared::new(units.iter().filter(|unit| unit.pool == *name), subscriber).count();
        let pools = pool4.iter().filter(|pool| pool.range.pool == *name);
        let blocks: u64 = pools.map(|pool| blocks(pool, block_size)).sum();
        if declared > u128::from(blocks) {
            let declared = u64::try_from(declared).unwrap_or(u64::MAX);
            problems.error(path, Fault::TooManyDeclared { declared, blocks });
        }
    }
}

/// How many whole blocks a range has.
pub(super) fn blocks(pool: &Pool4Plan, block_size: u16) -> u64 {
    let size = pool.range.block_size.unwrap_or(block_size);
    pool.range.prefix.size() * u64::from(span(&pool.range.ports, size).1)
}

#[cfg(test)]
mod tests {
    use crate::control::plan::check;
    use crate::nat64::policy::HOLD_DOWN;
    use crate::nat64::settings::Filtering;

    const LEAST: &str = "nat64.pool4 = [{ prefix = \"198.51.100.0/28\" }]";

    #[test]
    fn h09_h10_h25_by_default_anyone_may_answer_ports_rest_and_no_system_port_is_given_out() {
        let plan = check(LEAST).unwrap().plan;
        let nat64 = plan.nat64().unwrap();
        assert_eq!(nat64.filtering, Filtering::default());
        assert_eq!(nat64.ports.hold_down, HOLD_DOWN);
        assert!(nat64.pool4.iter().all(|pool| *pool.range.ports.start() >= 1024));
    }

    #[test]
    fn the_journal_is_beside_the_key_unless_it_is_named() {
        let journal = |more: &str| {
            let plan = check(&format!("{LEAST}\n{more}")).unwrap().plan;
            plan.nat64().unwrap().journal.display().to_string()
        };
        assert_eq!(journal(""), "/var/lib/sampan/key.blocks");
        assert_eq!(journal("nat64.key-file = \"/etc/s/k\""), "/etc/s/k.blocks");
        assert_eq!(journal("nat64.journal = \"/x\""), "/x");
    }
}
