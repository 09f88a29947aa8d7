//! TCP maximum segment size (RFC 9293 §3.7.1): what a SYN announces is lowered to what fits the gateway's own links, so
//! that TCP works where ICMP is filtered. Not in RFC 7915; a recorded deviation that can be switched off.

use crate::wire::checksum::{self, Sum};

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: usize = 4;
/// Offset of the checksum in a TCP header, and of the options behind it.
const CHECKSUM: usize = 16;
const OPTIONS: usize = 20;

/// The largest segment that fits both links: 60 bytes of headers on the IPv6 side, 40 on the IPv4 side.
pub const fn fitting(mtu6: u16, mtu4: u16) -> u16 {
    let (of6, of4) = (mtu6.saturating_sub(60), mtu4.saturating_sub(40));
    if of6 < of4 { of6 } else { of4 }
}

/// Lowers the MSS option in the TCP header `header` to `most`; never raises it, never adds one. The checksum is updated
/// unless offloading will make it anyway.
pub fn clamp(header: &mut [u8], most: u16, partial: bool) {
    let mut at = OPTIONS;
    while let Some(&kind) = header.get(at) {
        match kind {
            END => return,
            NO_OPERATION => at += 1,
            _ => {
                let Some(len) = header.get(at + 1).map(|len| usize::from(*len)).filter(|len| *len >= 2)
                else {
                    return;
                };
                if kind == MSS && len == MSS_LEN {
                    lower(header, at + 2, most, partial);
                    return;
                }
                at += len;
            }
        }
    }
}

fn lower(header: &mut [u8], at: usize, most: u16, partial: bool) {
    let Some(value) = header.get_mut(at..at + 2) else { return };
    let old = u16::from_be_bytes([value[0], value[1]]);
    if old <= most {
        return;
    }
    value.copy_from_slice(&most.to_be_bytes());
    if partial {
        return;
    }
    // At an odd offset its bytes lie in two words, in the other order.
    let word = |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
    let delta = Sum::ZERO.minus_word(word(old)).word(word(most));
    if let Some(sum) = header.get_mut(CHECKSUM..CHECKSUM + 2) {
        let new = checksum::update(u16::from_be_bytes([sum[0], sum[1]]), delta);
        sum.copy_from_slice(&new.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN with these options and a right checksum (over the header alone).
    fn syn(options: &[u8]) -> Vec<u8> {
        let mut header = vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0x40, 0, 0, 0, 0, 0];
        header.extend(options);
        header[12] = (header.len() / 4 * 16) as u8;
        let sum = Sum::ZERO.bytes(&header).checksum();
        header[16..18].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn f61_lowered_at_any_place_never_raised_never_added() {
        for options in [
            &[2, 4, 5, 180, 1, 1, 0, 0][..],
            &[1, 2, 4, 5, 180, 1, 1, 0],
            &[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 180, 0, 0],
        ] {
            let mut header = syn(options);
            clamp(&mut header, 1220, false);
            assert!(header.windows(4).any(|w| w == [2, 4, 4, 196]), "{options:?}");
            assert_eq!(Sum::ZERO.bytes(&header).fold(), 0xffff, "{options:?}");
            let lowered = header.clone();
            clamp(&mut header, 1460, false);
            assert_eq!(header, lowered);
        }
        for options in [
            &[][..],
            &[1, 1, 1, 0],
            &[0, 2, 4, 9],
            &[2, 0, 5, 180],
            &[3, 60, 2, 4],
            &[2, 3, 9, 9],
            &[1, 1, 1, 2],
        ] {
            let mut header = syn(options);
            let before = header.clone();
            clamp(&mut header, 1, false);
            assert_eq!(header, before, "{options:?}");
        }
    }

    #[test]
    fn a_partial_checksum_is_left_to_whoever_makes_it() {
        let mut header = syn(&[2, 4, 5, 180]);
        let sum = [header[16], header[17]];
        clamp(&mut header, 1220, true);
        assert_eq!((&header[16..18], &header[20..]), (&sum[..], &[2, 4, 4, 196][..]));
    }

    #[test]
    fn both_links_count() {
        assert_eq!((fitting(1500, 1500), fitting(1280, 1500), fitting(1500, 1000)), (1440, 1220, 960));
    }
}
