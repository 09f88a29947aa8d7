//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A one's-complement sum that has not been folded yet. Holds at least 2^32 16-bit words without overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds one 16-bit word in host order.
    #[inline]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds the complement of one word: takes the word out of a sum (RFC 1624 eqn 3).
    #[inline]
    pub const fn minus_word(self, word: u16) -> Self {
        self.word(!word)
    }

    /// Adds another sum.
    #[inline]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes another sum out.
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        self.minus_word(other.fold())
    }

    /// Adds a 32-bit number as two words.
    #[inline]
    pub const fn long(self, long: u32) -> Self {
        Self(self.0 + (long >> 16) as u64 + (long & 0xffff) as u64)
    }

    /// Adds an IPv4 address.
    #[inline]
    pub const fn ipv4(self, addr: Ipv4Addr) -> Self {
        self.long(addr.to_bits())
    }

    /// Adds an IPv6 address.
    #[inline]
    pub const fn ipv6(self, addr: Ipv6Addr) -> Self {
        let bits = addr.to_bits();
        self.long((bits >> 96) as u32).long((bits >> 64) as u32).long((bits >> 32) as u32).long(bits as u32)
    }

    /// Adds a run of bytes; an odd one is padded with a zero byte (RFC 1071 §4.1).
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Sums 32-bit big-endian halves of 8-byte chunks: carries gather in the upper half of the u64.
        let mut sum = self.0;
        let mut chunks = bytes.chunks_exact(4);
        for chunk in &mut chunks {
            sum += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        }
        let mut sum = Self((sum >> 32) + (sum & 0xffff_ffff));
        let mut rest = chunks.remainder().chunks_exact(2);
        for pair in &mut rest {
            sum = sum.word(u16::from_be_bytes([pair[0], pair[1]]));
        }
        if let [odd] = rest.remainder() {
            sum = sum.word(u16::from_be_bytes([*odd, 0]));
        }
        sum
    }

    /// The sum in 16 bits, not complemented.
    #[inline]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// Applies `delta` (new words minus old words) to a checksum field (RFC 1624 eqn 3: HC' = ~(~HC + ~m + m')).
#[inline]
pub const fn update(checksum: u16, delta: Sum) -> u16 {
    delta.word(!checksum).checksum()
}

/// Applies `delta` to a field that holds a folded, *uncomplemented* partial sum, as offloading leaves it.
#[inline]
pub const fn update_partial(sum: u16, delta: Sum) -> u16 {
    delta.word(sum).fold()
}

/// The pseudo-header of TCP, UDP (and ICMPv6) over IPv6 (RFC 8200 §8.1).
#[inline]
pub const fn pseudo6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> Sum {
    Sum::ZERO.ipv6(src).ipv6(dst).long(len).word(protocol as u16)
}

/// The pseudo-header of TCP and UDP over IPv4 (RFC 9293 §3.1, RFC 768).
#[inline]
pub const fn pseudo4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u32) -> Sum {
    Sum::ZERO.ipv4(src).ipv4(dst).long(len).word(protocol as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b18_example_of_rfc_1624_section_4() {
        let delta = Sum::ZERO.minus_word(0x5555).word(0x3285);
        assert_eq!(update(0xdd2f, delta), 0x0000);
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    proptest::proptest! {
        #[test]
        fn any_length_equals_the_obvious_sum(data: Vec<u8>) {
            let mut sum: u32 = 0;
            for pair in data.chunks(2) {
                sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
                sum = (sum & 0xffff) + (sum >> 16);
            }
            proptest::prop_assert_eq!(Sum::ZERO.bytes(&data).fold(), sum as u16);
        }

        #[test]
        fn update_equals_recomputation(mut data in proptest::collection::vec(0u8.., 8..64), at in 0usize..4, new: u16) {
            // A sum of all zeroes has two forms in one's complement; real packets never have it.
            data[0] = 1;
            let old = Sum::ZERO.bytes(&data).checksum();
            let at = 2 + 2 * (at % 3);
            let word = u16::from_be_bytes([data[at], data[at + 1]]);
            data[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let updated = update(old, Sum::ZERO.minus_word(word).word(new));
            proptest::prop_assert_eq!(updated, Sum::ZERO.bytes(&data).checksum());
        }
    }
}
