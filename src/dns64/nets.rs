//! Client networks, compiled for looking up one address: the longest prefix that covers it wins.

use std::net::IpAddr;

use crate::addr::PrefixAny;

/// Values by network. A look-up costs one binary search for each prefix length in use, of which there are few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nets<T> {
    /// Longest first; within a level sorted by address. IPv4 stands in `::ffff:0:0/96`.
    levels: Vec<Level<T>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Level<T> {
    len: u8,
    entries: Vec<(u128, T)>,
}

impl<T> Default for Nets<T> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<T> Nets<T> {
    /// The value of the longest network that covers `client` and whose value is accepted. Equal networks are tried
    /// in the order in which they were given.
    pub fn find(&self, client: IpAddr, mut accept: impl FnMut(&T) -> bool) -> Option<&T> {
        let (bits, shortest) = match client.to_canonical() {
            // `::/0` is not about IPv4.
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), 96),
            IpAddr::V6(v6) => (v6.to_bits(), 0),
        };
        let covering = self.levels.iter().take_while(|level| level.len >= shortest);
        covering.flat_map(|level| level.at(bits)).find(|value| accept(value))
    }
}

impl<T: Copy> Nets<T> {
    /// The same networks with other values.
    pub fn map<U>(&self, mut value: impl FnMut(T) -> U) -> Nets<U> {
        let levels = self.levels.iter().map(|level| Level {
            len: level.len,
            entries: level.entries.iter().map(|(net, old)| (*net, value(*old))).collect(),
        });
        Nets { levels: levels.collect() }
    }
}

impl<T> Level<T> {
    fn at(&self, bits: u128) -> impl Iterator<Item = &T> {
        let masked = bits & mask(self.len);
        let start = self.entries.partition_point(|(net, _)| *net < masked);
        let behind = self.entries.get(start..).unwrap_or_default();
        behind.iter().take_while(move |(net, _)| *net == masked).map(|(_, value)| value)
    }
}

impl<T> FromIterator<(PrefixAny, T)> for Nets<T> {
    fn from_iter<I: IntoIterator<Item = (PrefixAny, T)>>(nets: I) -> Self {
        let mut levels: Vec<Level<T>> = Vec::new();
        for (net, value) in nets {
            let (len, bits) = match net {
                PrefixAny::V4(net) => (96 + net.len(), net.addr().to_ipv6_mapped().to_bits()),
                PrefixAny::V6(net) => (net.len(), net.addr().to_bits()),
            };
            let at = match levels.binary_search_by(|level| len.cmp(&level.len)) {
                Ok(at) => at,
                Err(at) => {
                    levels.insert(at, Level { len, entries: Vec::new() });
                    at
                }
            };
            if let Some(level) = levels.get_mut(at) {
                level.entries.push((bits & mask(len), value));
            }
        }
        for level in &mut levels {
            // Stable: equal networks keep their order.
            level.entries.sort_by_key(|(net, _)| *net);
        }
        Self { levels }
    }
}

const fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Nets<usize> {
        list.iter().enumerate().map(|(i, net)| (net.parse().unwrap(), i)).collect()
    }

    #[test]
    fn the_longest_network_wins_and_families_stay_apart() {
        let nets =
            nets(&["::/0", "2001:db8::/32", "2001:db8:1::/48", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0"]);
        for (client, expected) in [
            ("2001:db9::1", 0),
            ("2001:db8::1", 1),
            ("2001:db8:1::1", 2),
            ("10.2.0.1", 3),
            ("10.1.0.1", 4),
            ("::ffff:10.1.0.1", 4),
            ("192.0.2.1", 5),
        ] {
            assert_eq!(nets.find(client.parse().unwrap(), |_| true), Some(&expected), "{client}");
        }
        assert_eq!(nets.find("2001:db8:1::1".parse().unwrap(), |i| *i != 2), Some(&1));
        let only6 = self::nets(&["::/0"]);
        assert_eq!(only6.find("192.0.2.1".parse().unwrap(), |_| true), None);
    }

    #[test]
    fn equal_networks_keep_their_order() {
        let nets = nets(&["2001:db8::/32", "2001:db8::/32"]);
        assert_eq!(nets.find("2001:db8::1".parse().unwrap(), |_| true), Some(&0));
        assert_eq!(nets.find("2001:db8::1".parse().unwrap(), |i| *i > 0), Some(&1));
    }
}
