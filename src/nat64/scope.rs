//! Decisions that rules of the fast path depend on together: one unit, pool and prefix. A change that forbids something
//! makes a new generation of the scopes it concerns, and rules of an older one are followed by nobody from then on.
//!
//! A scope is known by a hash of its names, so that it has the same number after a reload and after a restart. Two that
//! share a number share their generations, which costs a few packets a detour and nothing else.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use super::mirror::Scope;
use super::settings::{Pool4Range, Unit};
use crate::addr::Prefix6;
use crate::xlat::pref64::Pref64;

/// How many there are.
pub const SCOPES: usize = 1024;

/// The generation that each scope is in, for all workers.
pub struct Scopes([AtomicU16; SCOPES]);

impl Default for Scopes {
    fn default() -> Self {
        Self::new(|_| 0)
    }
}

impl Scopes {
    /// With the generations of before.
    pub fn new(generation: impl Fn(u16) -> u16) -> Self {
        Self(std::array::from_fn(|number| AtomicU16::new(generation(number as u16))))
    }

    /// The generation of scope `number`.
    pub fn generation(&self, number: u16) -> u16 {
        self.0.get(usize::from(number)).map_or(0, |generation| generation.load(Ordering::Acquire))
    }

    /// Begins a new generation of scope `number`, and says which.
    pub fn renew(&self, number: u16) -> u16 {
        self.0.get(usize::from(number)).map_or(0, |g| g.fetch_add(1, Ordering::AcqRel).wrapping_add(1))
    }

    /// Scope `number` as it is now.
    pub fn now(&self, number: u16) -> Scope {
        Scope { number, generation: self.generation(number) }
    }

    /// Whether rules of `scope` are followed.
    pub fn is_current(&self, scope: Scope) -> bool {
        self.generation(scope.number) == scope.generation
    }
}

/// The scope of a flow of `unit`, at pool address `src4`, under prefix `pool6`.
pub fn number_of(unit: Option<&str>, ranges: &[Pool4Range], src4: Ipv4Addr, pool6: Pref64) -> u16 {
    let range = ranges.iter().find(|range| range.prefix.contains(src4));
    number(unit, range.and_then(|range| range.pool.as_deref()), pool6)
}

/// The scopes in which the change from the units `was` to `is` takes something away. What is only added takes nothing.
pub fn revoked(was: &[Unit], is: &[Unit], ranges: &[Pool4Range], pool6: &[Pref64]) -> Vec<u16> {
    if is.is_empty() {
        // Everybody is served.
        return Vec::new();
    }
    let stays = |old: &Unit| {
        let covered = |p: &Prefix6| {
            is.iter().flat_map(|u| &u.prefixes).any(|n| n.len() <= p.len() && n.contains(p.addr()))
        };
        old.prefixes.iter().all(covered)
    };
    let units: Vec<Option<&str>> = match was {
        // Until now everybody was.
        [] => vec![None],
        was => was.iter().filter(|old| !stays(old)).map(|old| Some(old.name.as_str())).collect(),
    };
    let mut pools: Vec<Option<&str>> = ranges.iter().map(|range| range.pool.as_deref()).collect();
    pools.sort_unstable();
    pools.dedup();
    let mut scopes = Vec::new();
    for unit in units {
        for pool in &pools {
            scopes.extend(pool6.iter().map(|prefix| number(unit, *pool, *prefix)));
        }
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// FNV-1a; the number is part of what a successor reads, so it must never change.
fn number(unit: Option<&str>, pool: Option<&str>, pool6: Pref64) -> u16 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for name in [unit, pool] {
        feed(name.unwrap_or_default().as_bytes());
        // No name is another one than the empty name, and names do not run together.
        feed(&[0, u8::from(name.is_some())]);
    }
    feed(&pool6.prefix().addr().octets());
    feed(&[pool6.prefix().len()]);
    ((hash ^ hash >> 32) % SCOPES as u64) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, prefixes: &[&str]) -> Unit {
        let prefixes = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        Unit { name: name.into(), prefixes, ..Unit::default() }
    }

    fn ranges() -> [Pool4Range; 2] {
        let common = Pool4Range::new("198.51.100.0/28".parse().unwrap(), 1024..=65535);
        let own = Pool4Range { pool: Some("own".into()), ..common.clone() };
        [common, Pool4Range { prefix: "192.0.2.0/28".parse().unwrap(), ..own }]
    }

    #[test]
    fn only_what_a_change_takes_away_is_revoked() {
        let pool6 = [Pref64::well_known()];
        let (a, b) = (unit("a", &["2001:db8:a::/48"]), unit("b", &["2001:db8:b::/48"]));
        let both = [a.clone(), b.clone()];
        let of = |was: &[Unit], is: &[Unit]| revoked(was, is, &ranges(), &pool6);
        assert_eq!(of(&both, &both), [0; 0]);
        assert_eq!(of(&both[..1], &both), [0; 0], "more units");
        assert_eq!(of(&both, &[]), [0; 0], "everybody");
        assert_eq!(of(&both, &[unit("c", &["2001:db8::/32"])]), [0; 0], "served by another name");
        let scopes_of = |name| {
            let mut scopes = [number(Some(name), None, pool6[0]), number(Some(name), Some("own"), pool6[0])];
            scopes.sort_unstable();
            scopes
        };
        assert_eq!(of(&both, &both[..1]), scopes_of("b"));
        assert_eq!(of(&both, &[a, unit("b", &["2001:db8:b:1::/64"])]), scopes_of("b"), "a smaller network");
        let mut all = [number(None, None, pool6[0]), number(None, Some("own"), pool6[0])];
        all.sort_unstable();
        assert_eq!(of(&[], &both), all, "no longer everybody");
    }

    #[test]
    fn a_flow_has_the_scope_of_its_unit_pool_and_prefix() {
        let of = |unit, addr: &str, pool6| number_of(unit, &ranges(), addr.parse().unwrap(), pool6);
        let known = Pref64::well_known();
        let other: Pref64 = "2001:db8:64::/96".parse().unwrap();
        let all = [
            of(Some("a"), "198.51.100.1", known),
            of(Some("b"), "198.51.100.1", known),
            of(Some(""), "198.51.100.1", known),
            of(None, "198.51.100.1", known),
            of(Some("a"), "192.0.2.1", known),
            of(Some("a"), "198.51.100.1", other),
        ];
        assert!((1..all.len()).all(|i| !all[..i].contains(&all[i])), "{all:?}");
        // What a successor must find again.
        assert_eq!(of(Some("a"), "198.51.100.2", known), all[0]);
        let scopes = Scopes::new(|n| n);
        assert!(scopes.is_current(scopes.now(7)));
        assert_eq!((scopes.generation(7), scopes.renew(7), scopes.generation(7)), (7, 8, 8));
    }
}
