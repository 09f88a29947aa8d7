//! Explicit address mappings (RFC 7757 §3): a table of IPv4 and IPv6 prefixes that stand for each other.
//!
//! The table answers "which row has the longest prefix around this address" in either direction with one binary search
//! and a walk up the rows around it; it is made once and does not change.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::addr::{Prefix4, Prefix6};

/// One row: two prefixes that stand for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eam {
    /// IPv4 side.
    pub v4: Prefix4,
    /// IPv6 side. It has at least as many suffix bits.
    pub v6: Prefix6,
    /// The network that the nodes of this row are in.
    pub home: Home,
}

/// The network that a node is in; the other one knows it by its translated address only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// The IPv6 network.
    #[default]
    V6,
    /// The IPv4 network.
    V4,
}

/// Why a list of rows is no table. The numbers are those of the rows, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EamError {
    /// The IPv4 prefix has more suffix bits than the IPv6 prefix (RFC 7757 §3.2).
    Suffix {
        /// The row.
        row: usize,
    },
    /// Two rows have the same IPv4 prefix (RFC 7757 §5).
    SameV4 {
        /// The earlier row.
        first: usize,
        /// The later row.
        second: usize,
    },
    /// Two rows have the same IPv6 prefix.
    SameV6 {
        /// The earlier row.
        first: usize,
        /// The later row.
        second: usize,
    },
}

impl fmt::Display for EamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suffix { row } => {
                write!(
                    f,
                    "row {row}: the IPv4 prefix has more suffix bits than the IPv6 prefix (RFC 7757 §3.2)"
                )
            }
            Self::SameV4 { first, second } => {
                write!(f, "rows {first} and {second} have the same IPv4 prefix")
            }
            Self::SameV6 { first, second } => {
                write!(f, "rows {first} and {second} have the same IPv6 prefix")
            }
        }
    }
}

impl std::error::Error for EamError {}

impl Eam {
    /// Whether the IPv4 prefix has no more suffix bits than the IPv6 prefix (RFC 7757 §3.2).
    pub const fn fits(&self) -> bool {
        32 - self.v4.len() <= 128 - self.v6.len()
    }

    /// RFC 7757 §3.3.1: the suffix bits move behind the IPv6 prefix, and zeros fill what is left.
    #[inline]
    fn to_v6(self, addr: Ipv4Addr) -> Ipv6Addr {
        let bits = u32::from(32 - self.v4.len());
        let suffix = u128::from(addr.to_bits() ^ self.v4.addr().to_bits());
        let room = 128 - u32::from(self.v6.len());
        let placed = if bits == 0 { 0 } else { suffix << room.saturating_sub(bits) };
        Ipv6Addr::from_bits(self.v6.addr().to_bits() | placed)
    }

    /// RFC 7757 §3.3.2: the first suffix bits move behind the IPv4 prefix; the rest is cut off.
    #[inline]
    fn to_v4(self, addr: Ipv6Addr) -> Ipv4Addr {
        let bits = u32::from(32 - self.v4.len());
        let suffix = addr.to_bits() ^ self.v6.addr().to_bits();
        let room = 128 - u32::from(self.v6.len());
        let kept = if bits == 0 { 0 } else { suffix >> room.saturating_sub(bits) };
        Ipv4Addr::from_bits(self.v4.addr().to_bits() | kept as u32)
    }
}

/// The table (EAMT).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EamTable {
    rows: Vec<Eam>,
    by4: Vec<Node<u32>>,
    by6: Vec<Node<u128>>,
}

/// One prefix in the order of first addresses, shorter before longer. All prefixes around an address are then the last
/// one that begins at or before it, or among those around that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node<B> {
    first: B,
    last: B,
    row: u32,
    /// The next shorter prefix around this one, or [`NONE`].
    around: u32,
}

const NONE: u32 = u32::MAX;

impl EamTable {
    /// Makes the table. Overlapping rows are allowed, the longest prefix wins; see [`EamTable::overlaps`].
    pub fn new(rows: Vec<Eam>) -> Result<Self, EamError> {
        if let Some(row) = rows.iter().position(|eam| !eam.fits()) {
            return Err(EamError::Suffix { row });
        }
        let by4 = nodes(rows.iter().map(|eam| {
            let first = eam.v4.addr().to_bits();
            (first, first | u32::MAX.checked_shr(eam.v4.len().into()).unwrap_or(0))
        }));
        let by6 = nodes(rows.iter().map(|eam| {
            let first = eam.v6.addr().to_bits();
            (first, first | u128::MAX.checked_shr(eam.v6.len().into()).unwrap_or(0))
        }));
        if let Some((first, second)) = same(&by4) {
            return Err(EamError::SameV4 { first, second });
        }
        if let Some((first, second)) = same(&by6) {
            return Err(EamError::SameV6 { first, second });
        }
        Ok(Self { rows, by4, by6 })
    }

    /// The row with the longest IPv4 prefix around `addr`, and the IPv6 address it gives.
    #[inline]
    pub fn to_v6(&self, addr: Ipv4Addr) -> Option<(Ipv6Addr, &Eam)> {
        let eam = self.rows.get(find(&self.by4, addr.to_bits())?)?;
        Some((eam.to_v6(addr), eam))
    }

    /// The row with the longest IPv6 prefix around `addr`, and the IPv4 address it gives.
    #[inline]
    pub fn to_v4(&self, addr: Ipv6Addr) -> Option<(Ipv4Addr, &Eam)> {
        let eam = self.rows.get(find(&self.by6, addr.to_bits())?)?;
        Some((eam.to_v4(addr), eam))
    }

    /// The rows, in the order in which they were given.
    pub fn rows(&self) -> &[Eam] {
        &self.rows
    }

    /// Pairs of rows (inner, outer) one of whose prefixes lies within the other's: the two directions may then disagree
    /// (RFC 7757 §5).
    pub fn overlaps(&self) -> impl Iterator<Item = (usize, usize)> {
        let v4 = self.by4.iter().filter_map(|node| Some((node.row, self.by4.get(node.around as usize)?.row)));
        let v6 = self.by6.iter().filter_map(|node| Some((node.row, self.by6.get(node.around as usize)?.row)));
        v4.chain(v6).map(|(inner, outer)| (inner as usize, outer as usize))
    }
}

fn nodes<B: Copy + Ord>(ranges: impl Iterator<Item = (B, B)>) -> Vec<Node<B>> {
    let mut nodes: Vec<_> =
        ranges.zip(0..).map(|((first, last), row)| Node { first, last, row, around: NONE }).collect();
    nodes.sort_by(|a, b| (a.first, b.last, a.row).cmp(&(b.first, a.last, b.row)));
    let mut open: Vec<(u32, B)> = Vec::new();
    for (node, number) in nodes.iter_mut().zip(0..) {
        while open.last().is_some_and(|(_, last)| *last < node.first) {
            open.pop();
        }
        node.around = open.last().map_or(NONE, |(around, _)| *around);
        open.push((number, node.last));
    }
    nodes
}

/// The first two rows with the same prefix.
fn same<B: Copy + Eq>(nodes: &[Node<B>]) -> Option<(usize, usize)> {
    let pairs = nodes.iter().zip(nodes.iter().skip(1));
    let mut equal = pairs.filter(|(a, b)| (a.first, a.last) == (b.first, b.last));
    equal.next().map(|(a, b)| (a.row as usize, b.row as usize))
}

#[inline]
fn find<B: Copy + Ord>(nodes: &[Node<B>], addr: B) -> Option<usize> {
    let mut node = nodes.get(nodes.partition_point(|node| node.first <= addr).checked_sub(1)?)?;
    while node.last < addr {
        node = nodes.get(node.around as usize)?;
    }
    Some(node.row as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eam(v4: &str, v6: &str) -> Eam {
        Eam { v4: v4.parse().unwrap(), v6: v6.parse().unwrap(), home: Home::V6 }
    }

    fn table(rows: &[(&str, &str)]) -> Result<EamTable, EamError> {
        EamTable::new(rows.iter().map(|(v4, v6)| eam(v4, v6)).collect())
    }

    /// RFC 7757 Figure 1.
    const FIGURE_1: [(&str, &str); 6] = [
        ("192.0.2.1", "2001:db8:aaaa::"),
        ("192.0.2.2/32", "2001:db8:bbbb::b/128"),
        ("192.0.2.16/28", "2001:db8:cccc::/124"),
        ("192.0.2.128/26", "2001:db8:dddd::/64"),
        ("192.0.2.192/29", "2001:db8:eeee:8::/62"),
        ("192.0.2.224/31", "64:ff9b::/127"),
    ];

    #[test]
    fn i01_omitted_lengths_are_whole_addresses() {
        let row = eam("192.0.2.1", "2001:db8:aaaa::");
        assert_eq!((row.v4.len(), row.v6.len()), (32, 128));
    }

    #[test]
    fn i02_ipv4_may_not_have_more_suffix_bits() {
        assert_eq!(table(&[("192.0.2.0/24", "2001:db8::/124")]), Err(EamError::Suffix { row: 0 }));
        assert!(table(&[("192.0.2.0/24", "2001:db8::/120")]).is_ok());
        assert!(table(&[("192.0.2.0/24", "2001:db8::/121")]).is_err());
        assert!(table(&[("0.0.0.0/0", "::/0")]).is_ok());
    }

    #[test]
    fn i05_i06_vectors_of_rfc_7757_figure_7() {
        let table = table(&FIGURE_1).unwrap();
        for (v4, v6) in [
            ("192.0.2.1", "2001:db8:aaaa::"),
            ("192.0.2.2", "2001:db8:bbbb::b"),
            ("192.0.2.16", "2001:db8:cccc::"),
            ("192.0.2.24", "2001:db8:cccc::8"),
            ("192.0.2.31", "2001:db8:cccc::f"),
            ("192.0.2.128", "2001:db8:dddd::"),
            ("192.0.2.152", "2001:db8:dddd:0:6000::"),
            ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
            ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
            ("192.0.2.195", "2001:db8:eeee:9:8000::"),
            ("192.0.2.225", "64:ff9b::1"),
        ] {
            let (v4, v6): (Ipv4Addr, Ipv6Addr) = (v4.parse().unwrap(), v6.parse().unwrap());
            assert_eq!(table.to_v6(v4).unwrap().0, v6, "{v4}");
            assert_eq!(table.to_v4(v6).unwrap().0, v4, "{v6}");
        }
        assert_eq!(table.to_v6("192.0.2.248".parse().unwrap()), None);
        assert_eq!(table.to_v4("64:ff9b::c000:2f8".parse().unwrap()), None);
    }

    #[test]
    fn i06_bits_behind_the_suffix_are_cut_off() {
        let table = table(&FIGURE_1).unwrap();
        let (v4, _) = table.to_v4("2001:db8:dddd:0:6000::beef".parse().unwrap()).unwrap();
        assert_eq!(v4, Ipv4Addr::new(192, 0, 2, 152));
    }

    #[test]
    fn i04_the_longest_prefix_wins_in_both_directions() {
        // RFC 7757 Figure 2.
        let table = table(&[("0.0.0.0/0", "2001:db8:ff00::/40"), ("198.51.100.64/32", "2001:db8::abcd/128")])
            .unwrap();
        let special: Ipv4Addr = "198.51.100.64".parse().unwrap();
        assert_eq!(table.to_v4("2001:db8:ffc6:3364:4000::".parse().unwrap()).unwrap().0, special);
        assert_eq!(table.to_v6(special).unwrap().0, "2001:db8::abcd".parse::<Ipv6Addr>().unwrap());
        let next: Ipv4Addr = "198.51.100.65".parse().unwrap();
        assert_eq!(table.to_v6(next).unwrap().0, "2001:db8:ffc6:3364:4100::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(table.overlaps().collect::<Vec<_>>(), [(1, 0)]);
    }

    #[test]
    fn i07_identical_prefixes_are_refused() {
        // RFC 7757 Figure 3.
        assert_eq!(
            table(&[("198.51.100.8", "2001:db8::1"), ("198.51.100.9", "2001:db8::1")]),
            Err(EamError::SameV6 { first: 0, second: 1 })
        );
        assert_eq!(
            table(&[("198.51.100.8", "2001:db8::1"), ("198.51.100.8", "2001:db8::2")]),
            Err(EamError::SameV4 { first: 0, second: 1 })
        );
    }

    proptest::proptest! {
        #[test]
        fn i04_agrees_with_a_search_of_all_rows(
            rows in proptest::collection::vec((0u32..=32, 0u32..64, 0u8..=96, 0u32..64), 1..40),
            addrs in proptest::collection::vec((0u32..128, 0u32..128), 20),
        ) {
            let mut kept: Vec<Eam> = Vec::new();
            for (len4, v4, more6, v6) in rows {
                // Few distinct addresses, spread over high and low bits, so that prefixes often overlap.
                let v4 = Prefix4::covering(Ipv4Addr::from_bits(v4 << 26 | v4), len4 as u8);
                let v6 = Prefix6::covering(Ipv6Addr::from_bits(u128::from(v6) << 122 | u128::from(v6)), more6);
                let eam = Eam { v4, v6, home: Home::V6 };
                if eam.fits() && !kept.iter().any(|other| other.v4 == v4 || other.v6 == v6) {
                    kept.push(eam);
                }
            }
            let table = EamTable::new(kept.clone()).unwrap();
            for (a, b) in addrs {
                let v4 = Ipv4Addr::from_bits(a << 26 | b);
                let want = kept.iter().filter(|eam| eam.v4.contains(v4)).max_by_key(|eam| eam.v4.len());
                proptest::prop_assert_eq!(table.to_v6(v4).map(|(_, eam)| eam), want);
                let v6 = Ipv6Addr::from_bits(u128::from(a) << 122 | u128::from(b));
                let want = kept.iter().filter(|eam| eam.v6.contains(v6)).max_by_key(|eam| eam.v6.len());
                proptest::prop_assert_eq!(table.to_v4(v6).map(|(_, eam)| eam), want);
            }
        }

        #[test]
        fn i05_i06_there_and_back(bits: u32, len4 in 0u8..=32, len6 in 0u8..=128, base: u128) {
            let v4 = Ipv4Addr::from_bits(bits);
            let v6 = Prefix6::covering(Ipv6Addr::from_bits(base), len6.min(96 + len4));
            let row = Eam { v4: Prefix4::covering(v4, len4), v6, home: Home::V6 };
            let table = EamTable::new(vec![row]).unwrap();
            let (there, _) = table.to_v6(v4).unwrap();
            proptest::prop_assert!(v6.contains(there));
            proptest::prop_assert_eq!(table.to_v4(there).unwrap().0, v4);
        }
    }
}
