//! Which address stands for which: explicit mappings first, the RFC 6052 prefix for everything else (RFC 7757 §3.3,
//! RFC 7915 §6).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::addr::{Prefix4, is_illegal_source4, is_non_global};
use crate::verdict::DropReason;
use crate::xlat::eam::{EamTable, Home};
use crate::xlat::pref64::Pref64;

/// The mapping of a gateway. A function of the settings alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The translation prefix.
    pub prefix: Pref64,
    /// The explicit mappings, shared by all workers.
    pub eam: Arc<EamTable>,
    /// IPv4 addresses of IPv6 nodes that have IPv4-translatable addresses under the prefix (RFC 6052 §1.3).
    pub translatable4: Vec<Prefix4>,
    /// IPv4 sources for ICMP errors of IPv6 routers that have no IPv4 address (RFC 6791).
    pub icmp_pool4: Vec<Prefix4>,
    /// Non-global IPv4 nodes that may be spoken to under a network-specific prefix.
    pub allow: Vec<Prefix4>,
}

/// An address in the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped<A> {
    /// The address.
    pub addr: A,
    /// The network that the node is really in.
    pub home: Home,
    /// Whether it was embedded in the prefix, not explicitly mapped.
    pub by_prefix: bool,
}

impl Mapping {
    /// The IPv4 form of an IPv6 address; `None` when there is none.
    #[inline]
    pub fn to_v4(&self, addr: Ipv6Addr) -> Option<Mapped<Ipv4Addr>> {
        if let Some((addr, eam)) = self.eam.to_v4(addr) {
            return Some(Mapped { addr, home: eam.home, by_prefix: false });
        }
        let addr = self.prefix.extract(addr)?;
        Some(Mapped { addr, home: self.home_by_prefix(addr), by_prefix: true })
    }

    /// The IPv6 form of an IPv4 address.
    #[inline]
    pub fn to_v6(&self, addr: Ipv4Addr) -> Mapped<Ipv6Addr> {
        match self.eam.to_v6(addr) {
            Some((addr, eam)) => Mapped { addr, home: eam.home, by_prefix: false },
            None => self.embed(addr),
        }
    }

    /// The IPv6 form of an IPv4 address under the prefix, whatever is mapped explicitly.
    #[inline]
    pub fn embed(&self, addr: Ipv4Addr) -> Mapped<Ipv6Addr> {
        Mapped { addr: self.prefix.embed(addr), home: self.home_by_prefix(addr), by_prefix: true }
    }

    /// Whether packets to `addr` are for an IPv6 node that is mapped explicitly.
    #[inline]
    pub fn is_explicit_v6_node(&self, addr: Ipv4Addr) -> bool {
        matches!(self.eam.to_v6(addr), Some((_, eam)) if eam.home == Home::V6)
    }

    /// Whether the prefix may carry `addr`: not under the well-known prefix unless it is global (RFC 6052 §3.1).
    #[inline]
    pub fn check_carried(&self, addr: Ipv4Addr) -> Result<(), DropReason> {
        if self.prefix.is_well_known() && is_non_global(addr) { Err(DropReason::NonGlobal) } else { Ok(()) }
    }

    /// Whether an IPv6 node may speak with `addr` by way of the prefix.
    #[inline]
    pub fn check_peer(&self, addr: Ipv4Addr) -> Result<(), DropReason> {
        if is_illegal_source4(addr) {
            return Err(DropReason::IllegalDestination);
        }
        if !is_non_global(addr) {
            return Ok(());
        }
        self.check_carried(addr)?;
        let ours = self.home_by_prefix(addr) == Home::V6 || self.is_explicit_v6_node(addr);
        if ours || self.allow.iter().any(|p| p.contains(addr)) { Ok(()) } else { Err(DropReason::NotAllowed) }
    }

    /// An address of the RFC 6791 pool, chosen by `random`.
    pub fn icmp_source4(&self, random: u64) -> Option<Ipv4Addr> {
        let all: u64 = self.icmp_pool4.iter().map(|p| p.size()).sum();
        let mut left = random.checked_rem(all)?;
        for prefix in &self.icmp_pool4 {
            if left < prefix.size() {
                return Some(Ipv4Addr::from_bits(prefix.addr().to_bits().wrapping_add(left as u32)));
            }
            left -= prefix.size();
        }
        None
    }

    fn home_by_prefix(&self, addr: Ipv4Addr) -> Home {
        if self.translatable4.iter().any(|p| p.contains(addr)) { Home::V6 } else { Home::V4 }
    }
}
