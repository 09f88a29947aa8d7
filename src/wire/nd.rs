//! Router discovery (RFC 4861 §4.1, §4.2) with the options that name resolvers (RFC 8106) and translation prefixes
//! (RFC 8781): writes advertisements, reads those of others, knows a sound solicitation.

use std::net::Ipv6Addr;

use super::checksum::pseudo6;
use super::l4::ICMPV6;
use crate::addr::Prefix6;

/// ICMPv6 type of a Router Solicitation.
pub const SOLICITATION: u8 = 133;
/// ICMPv6 type of a Router Advertisement.
pub const ADVERTISEMENT: u8 = 134;
/// RFC 4861 §6.1: what has passed a router is nobody's neighbour.
pub const HOP_LIMIT: u8 = 255;
/// All nodes of a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of a link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The longest lifetime of a translation prefix, seconds (RFC 8781 §4.1).
pub const MAX_PREF64_LIFETIME: u16 = 8191 * 8;

const SOURCE_LINK_LAYER: u8 = 1;
const RDNSS: u8 = 25;
const PREF64: u8 = 38;
/// RFC 4861 §4.2: up to the options.
const HEADER: usize = 16;
/// RFC 8781 §4: prefix length by code.
const LENGTHS: [u8; 6] = [96, 64, 56, 48, 40, 32];

/// A Router Advertisement, as far as Sampan has something to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Addresses come by DHCPv6.
    pub managed: bool,
    /// Other things come by DHCPv6.
    pub other: bool,
    /// Seconds as a default router; 0 is none.
    pub router_lifetime: u16,
    /// The sender's Ethernet address.
    pub link_layer: Option<[u8; 6]>,
    /// Resolvers.
    pub resolvers: Vec<Ipv6Addr>,
    /// Seconds for which they hold; 0 takes them back.
    pub resolvers_lifetime: u32,
    /// Translation prefixes, each with the seconds for which it holds; 0 takes it back.
    pub pref64: Vec<(Prefix6, u16)>,
}

impl Advertisement {
    /// The ICMPv6 message from `src` to `dst`, with its checksum. A prefix that RFC 6052 does not know is left out.
    pub fn write(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out[0] = ADVERTISEMENT;
        out[5] = u8::from(self.managed) << 7 | u8::from(self.other) << 6;
        out[6..8].copy_from_slice(&self.router_lifetime.to_be_bytes());
        if let Some(address) = self.link_layer {
            out.extend([SOURCE_LINK_LAYER, 1]);
            out.extend(address);
        }
        // RFC 8106 §5.1: a length of 8 bits holds 127 addresses.
        for resolvers in self.resolvers.chunks(127) {
            out.extend([RDNSS, 1 + 2 * resolvers.len() as u8, 0, 0]);
            out.extend(self.resolvers_lifetime.to_be_bytes());
            resolvers.iter().for_each(|resolver| out.extend(resolver.octets()));
        }
        for (prefix, lifetime) in &self.pref64 {
            let Some(code) = LENGTHS.iter().position(|len| *len == prefix.len()) else { continue };
            out.extend([PREF64, 2]);
            out.extend((scaled(*lifetime) << 3 | code as u16).to_be_bytes());
            out.extend(prefix.addr().octets().iter().take(12));
        }
        let sum = pseudo6(src, dst, ICMPV6, out.len() as u32).bytes(&out).checksum();
        out[2..4].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// Reads the ICMPv6 message of another router, whose checksum the kernel has seen to. `None` is what RFC 4861
    /// §6.1.2 has dropped. Unknown options are skipped, wrong PREF64 options are ignored (RFC 8781 §4).
    pub fn read(bytes: &[u8], src: Ipv6Addr, hop_limit: u8) -> Option<Self> {
        let is_link_local = src.segments()[0] & 0xffc0 == 0xfe80;
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        if header[..2] != [ADVERTISEMENT, 0] || hop_limit != HOP_LIMIT || !is_link_local {
            return None;
        }
        let mut read = Self {
            managed: header[5] & 0x80 != 0,
            other: header[5] & 0x40 != 0,
            router_lifetime: u16::from_be_bytes([header[6], header[7]]),
            ..Self::default()
        };
        for option in options(rest) {
            read.take_option(option?);
        }
        Some(read)
    }

    fn take_option(&mut self, option: &[u8]) {
        match option {
            [SOURCE_LINK_LAYER, 1, address @ ..] => self.link_layer = address.try_into().ok(),
            // RFC 8106 §5.3.1: whole addresses, at least one.
            [RDNSS, _, _, _, a, b, c, d, addresses @ ..]
                if !addresses.is_empty() && addresses.len().is_multiple_of(16) =>
            {
                self.resolvers_lifetime = u32::from_be_bytes([*a, *b, *c, *d]);
                self.resolvers
                    .extend(addresses.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets)));
            }
            [PREF64, 2, high, low, prefix @ ..] => {
                let word = u16::from_be_bytes([*high, *low]);
                let Some(len) = LENGTHS.get(usize::from(word & 7)) else { return };
                let mut octets = [0; 16];
                octets.iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
                self.pref64.push((Prefix6::covering(octets.into(), *len), word >> 3 << 3));
            }
            _ => {}
        }
    }

    /// The prefixes that hold, and those that are taken back, each in order.
    pub fn pref64_sets(&self) -> [Vec<Prefix6>; 2] {
        [true, false].map(|holds| {
            let with = self.pref64.iter().filter(|(_, lifetime)| (*lifetime > 0) == holds);
            let mut set: Vec<_> = with.map(|(prefix, _)| *prefix).collect();
            set.sort_unstable();
            set.dedup();
            set
        })
    }
}

/// Whether `bytes` are a Router Solicitation that deserves an answer (RFC 4861 §6.1.1). The kernel has seen to its
/// checksum.
pub fn is_solicitation(bytes: &[u8], src: Ipv6Addr, hop_limit: u8) -> bool {
    let Some((header, rest)) = bytes.split_at_checked(8) else { return false };
    header[..2] == [SOLICITATION, 0]
        && hop_limit == HOP_LIMIT
        && options(rest).all(|option| {
            // Who has no address yet has none to be answered at.
            option.is_some_and(|option| !(src.is_unspecified() && option[0] == SOURCE_LINK_LAYER))
        })
}

/// RFC 8781 §4.1: units of eight seconds, rounded up, and no more than fit.
fn scaled(seconds: u16) -> u16 {
    seconds.div_ceil(8).min(8191)
}

/// The options of a message, whole; `None` is one of length zero or one that is cut off, and the last.
fn options(bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(bytes).filter(|bytes| !bytes.is_empty());
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let len = bytes.get(1).map(|len| usize::from(*len) * 8).filter(|len| *len > 0);
        let Some((option, more)) = len.and_then(|len| bytes.split_at_checked(len)) else { return Some(None) };
        rest = Some(more).filter(|more| !more.is_empty());
        Some(Some(option))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn router() -> Ipv6Addr {
        "fe80::1".parse().unwrap()
    }

    fn with(pref64: &[(&str, u16)]) -> Advertisement {
        let pref64 = pref64.iter().map(|(prefix, lifetime)| (prefix.parse().unwrap(), *lifetime)).collect();
        Advertisement { pref64, ..Advertisement::default() }
    }

    /// The options of an advertisement with these prefixes.
    fn option(prefix: &str, lifetime: u16) -> Vec<u8> {
        with(&[(prefix, lifetime)]).write(router(), ALL_NODES).split_off(HEADER)
    }

    #[test]
    fn l01_the_option_is_what_the_rfc_draws() {
        // 1800 s are 225 units of 8 s; 225 << 3 is 0x0708; the code of /96 is 0.
        let expected = [0x26, 2, 7, 8, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(option("64:ff9b::/96", 1800), expected);
        for (len, code) in [(96, 0), (64, 1), (56, 2), (48, 3), (40, 4), (32, 5)] {
            let option = option(&format!("2001:db8::/{len}"), 8);
            assert_eq!(option[..8], [0x26, 2, 0, 1 << 3 | code, 0x20, 1, 0x0d, 0xb8], "/{len}");
        }
        assert_eq!(option("2001:db8::/95", 8), [0; 0], "no such length");
    }

    #[test]
    fn l03_l05_lifetimes_are_rounded_up_to_eight_seconds_and_zero_stays() {
        let word = |seconds| u16::from_be_bytes(option("64:ff9b::/96", seconds)[2..4].try_into().unwrap());
        for (seconds, units) in
            [(0, 0), (1, 1), (7, 1), (8, 1), (9, 2), (1800, 225), (65_528, 8191), (u16::MAX, 8191)]
        {
            assert_eq!(word(seconds), units << 3, "{seconds} s");
        }
    }

    #[test]
    fn l07_several_prefixes_one_of_them_taken_back() {
        let sent = with(&[("64:ff9b::/96", 1800), ("2001:db8:64::/64", 0)]);
        let read = Advertisement::read(&sent.write(router(), ALL_NODES), router(), 255).unwrap();
        assert_eq!(read, sent);
        let sets = [["64:ff9b::/96"], ["2001:db8:64::/64"]];
        assert_eq!(read.pref64_sets(), sets.map(|set| set.map(|p| p.parse().unwrap()).to_vec()));
    }

    #[test]
    fn l11_the_whole_message() {
        let sent = Advertisement {
            managed: true,
            other: false,
            router_lifetime: 1800,
            link_layer: Some([2, 0, 0, 0, 0, 9]),
            resolvers: vec!["2001:db8:6::1".parse().unwrap(), "2001:db8:6::2".parse().unwrap()],
            resolvers_lifetime: 1800,
            pref64: vec![("64:ff9b::/96".parse().unwrap(), 1800)],
        };
        let bytes = sent.write(router(), ALL_NODES);
        // RFC 4861 §4.2, §4.6.1; RFC 8106 §5.1.
        assert_eq!(bytes[..2], [134, 0]);
        assert_eq!(bytes[4..16], [0, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], [1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(bytes[24..32], [25, 5, 0, 0, 0, 0, 7, 8]);
        assert_eq!(bytes.len(), 16 + 8 + 40 + 16);
        let sum = pseudo6(router(), ALL_NODES, ICMPV6, bytes.len() as u32).bytes(&bytes);
        assert_eq!(sum.checksum(), 0, "RFC 4443 §2.3");
        assert_eq!(Advertisement::read(&bytes, router(), 255), Some(sent));
    }

    #[test]
    fn l02_wrong_options_are_ignored_and_wrong_messages_dropped() {
        let good = with(&[("64:ff9b::/96", 1800)]).write(router(), ALL_NODES);
        let read = |bytes: &[u8]| Advertisement::read(bytes, router(), 255).map(|read| read.pref64.len());
        assert_eq!(read(&good), Some(1));
        for code in 6..8 {
            let mut bytes = good.clone();
            bytes[19] |= code;
            assert_eq!(read(&bytes), Some(0), "prefix length code {code}");
        }
        let mut long = good.clone();
        long[17] = 3;
        long.extend([0; 8]);
        assert_eq!(read(&long), Some(0), "length 3");
        let mut endless = good.clone();
        endless[17] = 0;
        assert_eq!(read(&endless), None);
        assert_eq!(read(&good[..good.len() - 1]), None);
        assert_eq!(Advertisement::read(&good, router(), 254), None);
        assert_eq!(Advertisement::read(&good, "2001:db8::1".parse().unwrap(), 255), None);
    }

    #[test]
    fn l11_solicitations_are_looked_at() {
        let plain = [133, 0, 0, 0, 0, 0, 0, 0];
        let with_address = [&plain[..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
        let nobody = Ipv6Addr::UNSPECIFIED;
        assert!(is_solicitation(&plain, router(), 255) && is_solicitation(&plain, nobody, 255));
        assert!(is_solicitation(&with_address, router(), 255));
        assert!(!is_solicitation(&with_address, nobody, 255), "an address of nobody");
        assert!(!is_solicitation(&plain, router(), 64), "from afar");
        assert!(!is_solicitation(&plain[..7], router(), 255));
        assert!(!is_solicitation(&[133, 1, 0, 0, 0, 0, 0, 0], router(), 255));
        assert!(!is_solicitation(&[&plain[..], &[9, 0]].concat(), router(), 255), "an option of no length");
    }

    proptest! {
        /// Whatever comes is read within its bounds, and what is read and written again is the same.
        #[test]
        fn any_bytes_are_read_or_dropped(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 133u8..135, patch: bool,
        ) {
            if patch && bytes.len() >= 2 {
                (bytes[0], bytes[1]) = (kind, 0);
                // Options of plausible lengths go further.
                bytes.iter_mut().skip(16).step_by(8).for_each(|kind| *kind = [1, 25, 38, 3][usize::from(*kind % 4)]);
                bytes.iter_mut().skip(17).step_by(8).for_each(|len| *len %= 4);
            }
            is_solicitation(&bytes, router(), 255);
            if let Some(read) = Advertisement::read(&bytes, router(), 255) {
                let again = Advertisement::read(&read.write(router(), ALL_NODES), router(), 255);
                prop_assert_eq!(again, Some(read));
            }
        }
    }
}
