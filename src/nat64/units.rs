//! Whose address is whose.

use super::settings::Settings;
use crate::addr::Prefix6;

/// Which unit an address belongs to: prefixes of units do not overlap, so they can be sorted.
pub(super) struct Units {
    prefixes: Vec<(Prefix6, usize)>,
}

impl Units {
    /// The prefixes of all units.
    pub(super) fn new(settings: &Settings) -> Self {
        let units = settings.units.iter().enumerate();
        let mut prefixes: Vec<_> = units.flat_map(|(i, u)| u.prefixes.iter().map(move |p| (*p, i))).collect();
        prefixes.sort_unstable();
        Self { prefixes }
    }

    /// Number of the unit of `addr`.
    pub(super) fn of(&self, addr: std::net::Ipv6Addr) -> Option<usize> {
        let at = self.prefixes.partition_point(|(p, _)| p.addr() <= addr);
        let (prefix, unit) = self.prefixes.get(at.checked_sub(1)?)?;
        prefix.contains(addr).then_some(*unit)
    }

    /// Whether `addr` may use the gateway: without any unit, everybody who is routed here.
    pub(super) fn serve(&self, addr: std::net::Ipv6Addr) -> bool {
        self.prefixes.is_empty() || self.of(addr).is_some()
    }
}
