//! Prefixes and the special-purpose address tests that every layer shares.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a prefix could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// Not `ADDRESS/LENGTH`, or the address is not of the wanted family.
    Syntax,
    /// The length is larger than the family allows.
    Length,
    /// Bits are set behind the prefix length; the text holds the prefix that was probably meant.
    HostBits(String),
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => write!(f, "not a prefix of the form ADDRESS/LENGTH"),
            Self::Length => write!(f, "prefix length out of range"),
            Self::HostBits(meant) => {
                write!(f, "bits are set behind the prefix length; did you mean {meant}?")
            }
        }
    }
}

impl std::error::Error for PrefixError {}

/// An IPv6 prefix without host bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix6 {
    addr: Ipv6Addr,
    len: u8,
}

/// An IPv4 prefix without host bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix4 {
    addr: Ipv4Addr,
    len: u8,
}

const fn mask6(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
}

const fn mask4(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len as u32) }
}

impl Prefix6 {
    /// The prefix of `len` bits (0–128) that starts at `addr`.
    pub fn new(addr: Ipv6Addr, len: u8) -> Result<Self, PrefixError> {
        if len > 128 {
            return Err(PrefixError::Length);
        }
        let meant = Self::covering(addr, len);
        if meant.addr == addr { Ok(meant) } else { Err(PrefixError::HostBits(meant.to_string())) }
    }

    /// The prefix of `len` bits (at most 128) that contains `addr`.
    pub fn covering(addr: Ipv6Addr, len: u8) -> Self {
        let len = len.min(128);
        Self { addr: Ipv6Addr::from_bits(addr.to_bits() & mask6(len)), len }
    }

    /// First address.
    pub const fn addr(self) -> Ipv6Addr {
        self.addr
    }

    /// Length in bits.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// Whether `addr` lies in the prefix.
    pub fn contains(self, addr: Ipv6Addr) -> bool {
        addr.to_bits() & mask6(self.len) == self.addr.to_bits()
    }

    /// Whether the two prefixes share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let len = self.len.min(other.len);
        (self.addr.to_bits() ^ other.addr.to_bits()) & mask6(len) == 0
    }
}

impl Prefix4 {
    /// The prefix of `len` bits (0–32) that starts at `addr`.
    pub fn new(addr: Ipv4Addr, len: u8) -> Result<Self, PrefixError> {
        if len > 32 {
            return Err(PrefixError::Length);
        }
        let meant = Self::covering(addr, len);
        if meant.addr == addr { Ok(meant) } else { Err(PrefixError::HostBits(meant.to_string())) }
    }

    /// The prefix of `len` bits (at most 32) that contains `addr`.
    pub fn covering(addr: Ipv4Addr, len: u8) -> Self {
        let len = len.min(32);
        Self { addr: Ipv4Addr::from_bits(addr.to_bits() & mask4(len)), len }
    }

    /// First address.
    pub const fn addr(self) -> Ipv4Addr {
        self.addr
    }

    /// Length in bits.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// Number of addresses.
    pub const fn size(self) -> u64 {
        1 << (32 - self.len as u32)
    }

    /// Whether `addr` lies in the prefix.
    pub fn contains(self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & mask4(self.len) == self.addr.to_bits()
    }

    /// Whether the two prefixes share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let len = self.len.min(other.len);
        (self.addr.to_bits() ^ other.addr.to_bits()) & mask4(len) == 0
    }

    /// Every address, lowest first.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.addr.to_bits();
        (0..self.size()).map(move |i| Ipv4Addr::from_bits(first.wrapping_add(i as u32)))
    }
}

macro_rules! prefix_text {
    ($prefix:ty, $addr:ty, $full:expr) => {
        impl FromStr for $prefix {
            type Err = PrefixError;

            /// Reads `ADDRESS/LENGTH`; a bare address is the prefix of that one address.
            fn from_str(text: &str) -> Result<Self, PrefixError> {
                let (addr, len) = match text.split_once('/') {
                    Some((addr, len)) => {
                        if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) {
                            return Err(PrefixError::Syntax);
                        }
                        (addr, len.parse().map_err(|_| PrefixError::Length)?)
                    }
                    None => (text, $full),
                };
                Self::new(addr.parse::<$addr>().map_err(|_| PrefixError::Syntax)?, len)
            }
        }

        impl fmt::Display for $prefix {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.addr, self.len)
            }
        }

        impl fmt::Debug for $prefix {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

prefix_text!(Prefix6, Ipv6Addr, 128);
prefix_text!(Prefix4, Ipv4Addr, 32);

/// Whether `addr` is outside the global unicast space: the blocks of RFC 6890 §2.2.2 with "Global: false",
/// multicast, and the reserved class E. RFC 6052 §3.1 forbids these under the well-known prefix.
pub fn is_non_global(addr: Ipv4Addr) -> bool {
    let [a, b, c, _] = addr.octets();
    match a {
        0 | 10 | 127 => true,
        100 => b & 0xc0 == 64,
        169 => b == 254,
        172 => b & 0xf0 == 16,
        192 => (b == 168) || (b == 0 && (c == 0 || c == 2)),
        198 => b & 0xfe == 18 || (b == 51 && c == 100),
        203 => b == 0 && c == 113,
        _ => a >= 224,
    }
}

/// Whether no unicast packet may come from `addr`: unspecified, loopback, multicast or broadcast
/// (RFC 7915 §4.1, RFC 1812 §5.3.7).
pub fn is_illegal_source4(addr: Ipv4Addr) -> bool {
    matches!(addr.octets()[0], 0 | 127 | 224..=255)
}

/// Whether no packet that we translate may come from `addr`: unspecified, loopback, multicast, link-local or
/// IPv4-mapped (RFC 7915 §5.1).
pub fn is_illegal_source6(addr: Ipv6Addr) -> bool {
    let bits = addr.to_bits();
    bits <= 1 || addr.is_multicast() || addr.segments()[0] & 0xffc0 == 0xfe80 || bits >> 32 == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_read_and_print() {
        let p: Prefix6 = "2001:db8::/32".parse().unwrap();
        assert_eq!(p.to_string(), "2001:db8::/32");
        assert!(p.contains("2001:db8:ffff::1".parse().unwrap()));
        assert!(!p.contains("2001:db9::1".parse().unwrap()));
        assert_eq!("192.0.2.1".parse::<Prefix4>().unwrap().len(), 32);
        assert_eq!("192.0.2.1/24".parse::<Prefix4>(), Err(PrefixError::HostBits("192.0.2.0/24".into())));
        assert_eq!("192.0.2.0/33".parse::<Prefix4>(), Err(PrefixError::Length));
        assert_eq!("192.0.2.0/999".parse::<Prefix4>(), Err(PrefixError::Length));
        assert_eq!("192.0.2.0/+4".parse::<Prefix4>(), Err(PrefixError::Syntax));
        assert_eq!("::/0".parse::<Prefix4>(), Err(PrefixError::Syntax));
        assert!("::/0".parse::<Prefix6>().unwrap().contains(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn overlap_is_symmetric() {
        let a: Prefix4 = "10.0.0.0/8".parse().unwrap();
        let b: Prefix4 = "10.9.0.0/16".parse().unwrap();
        let c: Prefix4 = "11.0.0.0/8".parse().unwrap();
        assert!(a.overlaps(b) && b.overlaps(a) && !a.overlaps(c) && !c.overlaps(b));
    }

    #[test]
    fn a10_non_global_blocks() {
        for block in [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "255.255.255.255/32",
        ] {
            let p: Prefix4 = block.parse().unwrap();
            let last = Ipv4Addr::from_bits(p.addr().to_bits().wrapping_add((p.size() - 1) as u32));
            assert!(is_non_global(p.addr()) && is_non_global(last), "{block}");
        }
        for addr in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.99.1",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.101.0",
            "203.0.112.255",
            "223.255.255.255",
        ] {
            assert!(!is_non_global(addr.parse().unwrap()), "{addr}");
        }
    }

    #[test]
    fn b13_illegal_ipv6_sources() {
        for addr in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
            assert!(is_illegal_source6(addr.parse().unwrap()), "{addr}");
        }
        assert!(!is_illegal_source6("2001:db8::1".parse().unwrap()));
        assert!(!is_illegal_source6("64:ff9b::1".parse().unwrap()));
    }
}
