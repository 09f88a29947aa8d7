//! ICMP errors with the packets they quote, for [`super::generate`].

use std::net::IpAddr;

use super::generate::{PREFIX, ROUTER6, echo_of, tcp_of, udp_of, varied};
use super::packet::{ICMP, ICMPV6, Packet, error, ones_sum};
use crate::rng::Rng;

/// The packet that an error towards the sender of `quoted` quotes, and its sender's peer.
fn quoted(rng: &mut Rng, to6: bool) -> Packet {
    let data = match rng.below(3) {
        0 => Vec::new(),
        _ => {
            let len = rng.below(900);
            rng.bytes(len)
        }
    };
    // On the way that is opposite to the error's.
    let packet = match rng.below(7) {
        0..3 => udp_of(rng, !to6, &data),
        3..5 => tcp_of(rng, !to6, &data),
        5 => echo_of(rng, !to6, &data),
        _ => {
            let id = rng.next() as u32 & 0xffff;
            let data = rng.bytes(800);
            let from = 8 * rng.below(20);
            udp_of(rng, !to6, &data).piece(from, from + 400, id)
        }
    };
    translated_by_hand(packet)
}

/// What the translator makes of the addresses: errors quote packets as they are on the other side.
pub fn translated_by_hand(packet: Packet) -> Packet {
    let across = |addr: IpAddr| match addr {
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            let text = v6.to_string();
            if text.starts_with("2001:db8:64:") {
                format!("{a}.{b}.{c}.{d}")
            } else if text.starts_with("2001:db8:6:40") {
                format!("198.51.100.{}", 64 + d)
            } else {
                format!("198.51.100.{}", d - 0x10)
            }
        }
        IpAddr::V4(v4) => {
            let [.., c, d] = v4.octets();
            match (v4.to_string().starts_with("198.51.100."), d) {
                (true, 1 | 2) => format!("2001:db8:6::{:x}", 0x10 + d),
                (true, _) => format!("2001:db8:6:40::{:x}", d - 64),
                (false, _) => format!("{PREFIX}203.0.{c}.{d}"),
            }
        }
    };
    let (src, dst) = (across(packet.src), across(packet.dst));
    packet.with(|p| {
        p.src = src.parse().unwrap();
        p.dst = dst.parse().unwrap();
        let to4 = p.src.is_ipv4();
        (p.df, p.flow_label) = (to4 && p.fragment.is_none() && p.id & 1 == 0, 0);
        p.protocol = match p.protocol {
            ICMP if !to4 => ICMPV6,
            ICMPV6 if to4 => ICMP,
            other => other,
        };
        if p.protocol == ICMP || p.protocol == ICMPV6 {
            p.payload[0] = match (p.payload[0], to4) {
                (128, true) => 8,
                (129, true) => 0,
                (8, false) => 128,
                (0, false) => 129,
                (other, _) => other,
            };
        }
        if p.fragment.is_none_or(|(offset, _)| offset == 0) {
            p.sum();
        }
    })
}

/// Type, code and bytes 4 to 7 of an error.
fn head(rng: &mut Rng, to6: bool) -> (u8, u8, u32) {
    let mtu = [0, 68, 576, 1000, 1252, 1260, 1280, 1400, 1460, 1472, 1480, 1492, 1500, 9000];
    if to6 {
        match rng.below(10) {
            0..3 => (3, rng.below(17) as u8, 0),
            3..5 => (3, 4, rng.of(&mtu)),
            5 => (11, rng.below(2) as u8, 0),
            6..8 => (12, 0, (rng.below(24) as u32) << 24),
            8 => (12, rng.below(4) as u8, (rng.below(20) as u32) << 24),
            _ => (rng.of(&[4, 5]), 0, 0),
        }
    } else {
        match rng.below(10) {
            0..3 => (1, rng.below(8) as u8, 0),
            3..5 => (2, 0, rng.of(&[&mtu[4..], &[65_555, 100_000]].concat())),
            5 => (3, rng.below(2) as u8, 0),
            6..8 => (4, 0, rng.below(44) as u32),
            8 => (4, rng.below(4) as u8, rng.below(44) as u32),
            _ => (rng.of(&[100, 127]), 0, 0),
        }
    }
}

/// An error about `quote`, from the host or from a router that has an address in both families.
fn error_about(rng: &mut Rng, about: &Packet, quote: &[u8]) -> Packet {
    let to6 = about.src.is_ipv4();
    let (kind, code, rest) = head(rng, to6);
    let from = match (to6, rng.flip()) {
        (true, true) => format!("192.0.2.{}", 65 + rng.below(60)),
        (false, true) => format!("2001:db8:6:40::{:x}", rng.below(16)),
        (_, false) => about.dst.to_string(),
    };
    let packet = error(&from, kind, code, rest, quote);
    let packet = varied(rng, packet);
    // RFC 1812 §4.3.2.3 and RFC 4443 §2.4: errors are not longer than this.
    packet.with(|p| {
        let most = if to6 { 576 - 20 } else { 1280 - 40 };
        p.payload.truncate(most);
        p.sum();
    })
}

pub fn plain_error(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let about = quoted(rng, to6);
    let quote = about.bytes();
    error_about(rng, &about, &quote)
}

/// The quoted IP header and eight bytes (RFC 792), or somewhat more.
pub fn error_with_short_quote(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let about = quoted(rng, to6);
    let mut quote = about.bytes();
    let header = quote.len() - about.payload.len();
    quote.truncate(header + 8 + rng.below(24));
    error_about(rng, &about, &quote)
}

/// RFC 4884: the quote padded to at least 128 bytes, a length, and an MPLS label behind it (RFC 4950).
pub fn error_with_extension(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let about = quoted(rng, to6);
    let mut quote = about.bytes();
    let unit = if to6 { 4 } else { 8 };
    let len = quote.len().min(400).next_multiple_of(unit).clamp(128, 400);
    quote.resize(len, 0);
    let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0x3e, 0x91, 1];
    let sum = !ones_sum(&extension);
    extension[2..4].copy_from_slice(&sum.to_be_bytes());
    let kinds: &[(u8, u8)] =
        if to6 { &[(3, 0), (3, 3), (11, 0), (12, 0)] } else { &[(1, 0), (1, 4), (3, 0)] };
    let (kind, code) = rng.of(kinds);
    let rest = (len / unit) as u32 * if to6 { 1 << 16 } else { 1 << 24 };
    let packet = error(&about.dst.to_string(), kind, code, rest, &about.bytes()).with(|p| {
        p.payload.truncate(8);
        p.payload.extend(quote.iter().chain(&extension));
        p.sum();
    });
    varied(rng, packet)
}

/// What must not be: an error that quotes an error (RFC 1122 §3.2.2, RFC 4443 §2.4).
pub fn error_about_error(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let innermost = udp_of(rng, to6, &[7; 40]);
    let (kind, code) = if to6 { (3, 3) } else { (1, 4) };
    let inner = error(&innermost.dst.to_string(), kind, code, 0, &innermost.bytes());
    let quote = inner.bytes();
    error_about(rng, &inner, &quote)
}

/// From an IPv6 router that has no IPv4 address.
pub fn error_from_router(rng: &mut Rng) -> Packet {
    let about = quoted(rng, false);
    let quote = about.bytes();
    error_about(rng, &about, &quote).with(|p| {
        p.src = ROUTER6.parse().unwrap();
        p.sum();
    })
}
