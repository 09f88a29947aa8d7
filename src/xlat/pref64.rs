//! RFC 6052: IPv4 addresses inside IPv6 prefixes. Read §2.2–2.3 first. Shared by NAT64, DNS64 and reports, so
//! that they cannot disagree.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::addr::{Prefix6, PrefixError};

/// Why a prefix is no translation prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pref64Error {
    /// Not readable as an IPv6 prefix.
    Prefix(PrefixError),
    /// The length is none of 32, 40, 48, 56, 64 and 96 (RFC 6052 §2.2).
    Length(u8),
    /// Bits 64–71, the octet "u", are not zero (RFC 6052 §2.2).
    OctetU,
}

impl fmt::Display for Pref64Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(e) => e.fmt(f),
            Self::Length(len) => {
                write!(
                    f,
                    "/{len} is not a translation prefix length; use 32, 40, 48, 56, 64 or 96 (RFC 6052 §2.2)"
                )
            }
            Self::OctetU => write!(f, "bits 64 to 71 of a translation prefix must be zero (RFC 6052 §2.2)"),
        }
    }
}

impl std::error::Error for Pref64Error {}

/// A translation prefix (PREF64, pool6) of one of the six legal lengths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref64 {
    prefix: Prefix6,
}

impl Pref64 {
    /// The well-known prefix `64:ff9b::/96` (RFC 6052 §2.1).
    pub const WELL_KNOWN: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

    /// Checks length and octet u.
    pub fn new(prefix: Prefix6) -> Result<Self, Pref64Error> {
        if !matches!(prefix.len(), 32 | 40 | 48 | 56 | 64 | 96) {
            return Err(Pref64Error::Length(prefix.len()));
        }
        if prefix.addr().octets()[8] != 0 {
            return Err(Pref64Error::OctetU);
        }
        Ok(Self { prefix })
    }

    /// The well-known prefix.
    pub fn well_known() -> Self {
        Self { prefix: Prefix6::covering(Self::WELL_KNOWN, 96) }
    }

    /// The prefix itself.
    pub const fn prefix(self) -> Prefix6 {
        self.prefix
    }

    /// Whether this is the well-known prefix, under which non-global IPv4 is never carried.
    pub fn is_well_known(self) -> bool {
        self == Self::well_known()
    }

    /// Whether `addr` lies under the prefix.
    #[inline]
    pub fn contains(self, addr: Ipv6Addr) -> bool {
        self.prefix.contains(addr)
    }

    /// Embeds `v4`; suffix and octet u are zero.
    #[inline]
    pub fn embed(self, v4: Ipv4Addr) -> Ipv6Addr {
        let v4 = u128::from(v4.to_bits());
        let base = self.prefix.addr().to_bits();
        Ipv6Addr::from_bits(match self.prefix.len() {
            96 => base | v4,
            // The address continues behind octet u, which stays zero.
            len => {
                let before = 64 - u32::from(len);
                let head = v4 >> (32 - before.min(32));
                let tail_bits = 32 - before.min(32);
                let tail = v4 & ((1 << tail_bits) - 1);
                let head = if before == 0 { 0 } else { head << (64 + before.saturating_sub(32)) };
                base | head | (tail << (56 - tail_bits))
            }
        })
    }

    /// The embedded IPv4 address, or `None` when `addr` is not under the prefix. Suffix bits and octet u are
    /// ignored.
    #[inline]
    pub fn extract(self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.contains(addr) {
            return None;
        }
        let bits = addr.to_bits();
        Some(Ipv4Addr::from_bits(match self.prefix.len() {
            96 => bits as u32,
            len => {
                let before = 64 - u32::from(len);
                let tail_bits = 32 - before.min(32);
                let head = if before == 0 { 0 } else { (bits >> (64 + before.saturating_sub(32))) as u32 };
                let head = head.checked_shl(tail_bits).unwrap_or(0);
                let tail = (bits >> (56 - tail_bits)) & ((1 << tail_bits) - 1);
                head | tail as u32
            }
        }))
    }
}

impl FromStr for Pref64 {
    type Err = Pref64Error;

    fn from_str(text: &str) -> Result<Self, Pref64Error> {
        Self::new(text.parse().map_err(Pref64Error::Prefix)?)
    }
}

impl fmt::Display for Pref64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)
    }
}

impl fmt::Debug for Pref64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);

    #[test]
    fn a01_only_six_lengths() {
        for len in 0..=128 {
            let legal = matches!(len, 32 | 40 | 48 | 56 | 64 | 96);
            let prefix = Prefix6::covering("2001:db8::".parse().unwrap(), len);
            assert_eq!(Pref64::new(prefix).is_ok(), legal, "/{len}");
        }
    }

    #[test]
    fn a02_vectors_of_rfc_6052_2_4() {
        for (prefix, addr) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let prefix: Pref64 = prefix.parse().unwrap();
            let addr: Ipv6Addr = addr.parse().unwrap();
            assert_eq!(prefix.embed(V4), addr, "{prefix}");
            assert_eq!(prefix.extract(addr), Some(V4), "{prefix}");
        }
    }

    #[test]
    fn a04_octet_u_of_a_96_must_be_zero() {
        assert_eq!("2001:db8:0:0:100::/96".parse::<Pref64>(), Err(Pref64Error::OctetU));
        assert!("2001:db8:122:344::/96".parse::<Pref64>().is_ok());
    }

    #[test]
    fn a05_suffix_is_ignored() {
        let prefix: Pref64 = "2001:db8::/32".parse().unwrap();
        assert_eq!(prefix.extract("2001:db8:c000:221:ab:cdef::1".parse().unwrap()), Some(V4));
        assert_eq!(prefix.extract("2001:db9:c000:221::".parse().unwrap()), None);
    }

    #[test]
    fn a03_a06_a_million_addresses_under_every_length() {
        for len in [32, 40, 48, 56, 64, 96] {
            let prefix = Pref64::new(Prefix6::covering("2001:db8:122:344::".parse().unwrap(), len)).unwrap();
            // An odd stride meets every address in the end, the first million of them all over the space.
            for i in 0..1_u32 << 20 {
                let v4 = Ipv4Addr::from_bits(i.wrapping_mul(0x9e37_79b1));
                let v6 = prefix.embed(v4);
                assert!(prefix.extract(v6) == Some(v4) && v6.octets()[8] == 0, "{v4} is {v6} under /{len}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a03_a06_reversible_with_octet_u_zero(bits: u32, which in 0usize..6) {
            let len = [32, 40, 48, 56, 64, 96][which];
            let prefix = Pref64::new(Prefix6::covering("2001:db8:122:344::".parse().unwrap(), len)).unwrap();
            let v4 = Ipv4Addr::from_bits(bits);
            let v6 = prefix.embed(v4);
            proptest::prop_assert_eq!(prefix.extract(v6), Some(v4));
            proptest::prop_assert_eq!(v6.octets()[8], 0);
        }
    }
}
