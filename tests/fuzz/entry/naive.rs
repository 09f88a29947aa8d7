//! A second, slow and obvious reader of packets, written from the RFCs without a line of the code under test.

use std::net::IpAddr;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// An IP packet, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Type of service or traffic class.
    pub tos: u8,
    pub hops: u8,
    pub id: u32,
    /// IPv4 only.
    pub df: bool,
    /// Offset and "more" flag of a fragment that is not atomic.
    pub fragment: Option<(usize, bool)>,
    pub has_fragment_header: bool,
    /// Header length differs from 20 or 40 bytes for another reason than a Fragment Header.
    pub has_options: bool,
    pub flow_label: u32,
    /// Offset of a Segments Left byte that is not zero, or whether a source route of IPv4 is pending.
    pub routed: bool,
    pub protocol: u8,
    pub l4: usize,
    pub len: usize,
}

impl Ip {
    pub fn is_v6(&self) -> bool {
        self.src.is_ipv6()
    }

    pub fn icmp(&self) -> u8 {
        if self.is_v6() { ICMPV6 } else { ICMP }
    }
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

pub fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// RFC 1071, word by word.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// The pseudo-header of either family.
pub fn pseudo(ip: &Ip, protocol: u8, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for addr in [ip.src, ip.dst] {
        match addr {
            IpAddr::V4(a) => out.extend(a.octets()),
            IpAddr::V6(a) => out.extend(a.octets()),
        }
    }
    out.extend((len as u32).to_be_bytes());
    out.extend([0, protocol]);
    out
}

/// Reads the IP header and the extension chain. `whole` packets must have all the bytes that their header names;
/// quoted ones may be cut.
pub fn read(bytes: &[u8], whole: bool) -> Result<Ip, &'static str> {
    match bytes.first().map(|b| b >> 4) {
        Some(4) => read4(bytes, whole),
        Some(6) => read6(bytes, whole),
        Some(_) => Err("version"),
        None => Err("empty"),
    }
}

fn read4(bytes: &[u8], whole: bool) -> Result<Ip, &'static str> {
    if bytes.len() < 20 {
        return Err("short header");
    }
    let header = usize::from(bytes[0] & 15) * 4;
    let len = usize::from(word(bytes, 2));
    if header < 20 || len < header || header > bytes.len() || whole && len > bytes.len() {
        return Err("length");
    }
    if sum(&[&bytes[..header]]) != 0xffff {
        return Err("header checksum");
    }
    let flags = word(bytes, 6);
    let offset = usize::from(flags & 0x1fff) * 8;
    let more = flags & 0x2000 != 0;
    Ok(Ip {
        src: IpAddr::from([bytes[12], bytes[13], bytes[14], bytes[15]]),
        dst: IpAddr::from([bytes[16], bytes[17], bytes[18], bytes[19]]),
        tos: bytes[1],
        hops: bytes[8],
        id: word(bytes, 4).into(),
        df: flags & 0x4000 != 0,
        fragment: (offset > 0 || more).then_some((offset, more)),
        has_fragment_header: false,
        has_options: header != 20,
        flow_label: 0,
        // Options of a quoted packet are skipped, whatever they are (RFC 5508 REQ-3b).
        routed: if whole { source_route(&bytes[20..header])? } else { false },
        protocol: bytes[9],
        l4: header,
        len,
    })
}

/// Whether a loose or strict source route still has somewhere to go.
fn source_route(options: &[u8]) -> Result<bool, &'static str> {
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        if options[at] == 1 {
            at += 1;
            continue;
        }
        let len = usize::from(*options.get(at + 1).ok_or("option")?);
        if len < 2 || at + len > options.len() {
            return Err("option");
        }
        if options[at] == 131 || options[at] == 137 {
            let pointer = usize::from(*options.get(at + 2).ok_or("option")?);
            if len >= 3 && pointer <= len {
                return Ok(true);
            }
        }
        at += len;
    }
    Ok(false)
}

/// At most eight extension headers, hop-by-hop only in front, none behind a Fragment Header.
fn read6(bytes: &[u8], whole: bool) -> Result<Ip, &'static str> {
    if bytes.len() < 40 {
        return Err("short header");
    }
    let len = 40 + usize::from(word(bytes, 4));
    if whole && len > bytes.len() {
        return Err("length");
    }
    let end = if whole { len } else { bytes.len() };
    let address = |at: usize| {
        let octets: [u8; 16] = std::array::from_fn(|i| bytes[at + i]);
        IpAddr::from(octets)
    };
    let mut ip = Ip {
        src: address(8),
        dst: address(24),
        tos: (word(bytes, 0) >> 4) as u8,
        hops: bytes[7],
        id: 0,
        df: false,
        fragment: None,
        has_fragment_header: false,
        has_options: false,
        flow_label: long(bytes, 0) & 0xf_ffff,
        routed: false,
        protocol: bytes[6],
        l4: 40,
        len,
    };
    let mut headers = 0;
    while [0, 43, 44, 60].contains(&ip.protocol) {
        headers += 1;
        let at = ip.l4;
        if headers > 8 || at + 8 > end || ip.has_fragment_header || ip.protocol == 0 && headers > 1 {
            return Err("extension chain");
        }
        if ip.protocol == 44 {
            ip.has_fragment_header = true;
            ip.id = long(bytes, at + 4);
            let (offset, more) = (usize::from(word(bytes, at + 2) & 0xfff8), bytes[at + 3] & 1 == 1);
            ip.fragment = (offset > 0 || more).then_some((offset, more));
            ip.l4 += 8;
        } else {
            ip.has_options = true;
            ip.routed |= ip.protocol == 43 && bytes[at + 3] != 0;
            ip.l4 += 8 + usize::from(bytes[at + 1]) * 8;
        }
        ip.protocol = bytes[at];
        if ip.l4 > end {
            return Err("extension chain");
        }
        if ip.fragment.is_some_and(|(offset, _)| offset > 0) {
            break;
        }
    }
    if whole && ip.l4 > len {
        return Err("extension chain");
    }
    Ok(ip)
}

/// Whether the transport header of a whole packet is all there and agrees with the packet's length.
pub fn transport(bytes: &[u8], ip: &Ip) -> Result<(), &'static str> {
    let l4 = &bytes[ip.l4..ip.len];
    match ip.protocol {
        _ if ip.fragment.is_some() => Ok(()),
        TCP if l4.len() < 20 => Err("short TCP"),
        TCP => {
            let header = usize::from(l4[12] >> 4) * 4;
            if header < 20 || header > l4.len() { Err("TCP header length") } else { Ok(()) }
        }
        UDP if l4.len() < 8 => Err("short UDP"),
        UDP if usize::from(word(l4, 4)) < 8 || usize::from(word(l4, 4)) > l4.len() => Err("UDP length"),
        p if p == ip.icmp() && l4.len() < 8 => Err("short ICMP"),
        _ => Ok(()),
    }
}

/// Whether the transport checksum of a whole packet is right. `None`: it has none, or none that can be read.
pub fn is_checksum_right(bytes: &[u8], ip: &Ip) -> Option<bool> {
    if ip.fragment.is_some() || transport(bytes, ip).is_err() || bytes.len() < ip.len {
        return None;
    }
    let l4 = &bytes[ip.l4..ip.len];
    match ip.protocol {
        TCP => Some(sum(&[&pseudo(ip, TCP, l4.len()), l4]) == 0xffff),
        UDP if word(l4, 6) == 0 => None,
        UDP => {
            let l4 = &l4[..usize::from(word(l4, 4))];
            Some(sum(&[&pseudo(ip, UDP, l4.len()), l4]) == 0xffff)
        }
        ICMPV6 if ip.is_v6() => Some(sum(&[&pseudo(ip, ICMPV6, l4.len()), l4]) == 0xffff),
        // All zeroes, checksum too: 0 and 0xffff are the same number in one's complement, and nothing tells them apart.
        ICMP if !ip.is_v6() => Some(matches!(sum(&[l4]), 0 | 0xffff)),
        _ => None,
    }
}

/// Whether a whole packet is an ICMP error.
pub fn is_icmp_error(bytes: &[u8], ip: &Ip) -> bool {
    let Some(kind) = bytes.get(ip.l4) else { return false };
    ip.fragment.is_none()
        && ip.protocol == ip.icmp()
        && if ip.is_v6() { *kind < 128 } else { [3, 4, 5, 11, 12].contains(kind) }
}

/// Makes lengths and checksums right where the packet is whole enough to have them; leaves the rest alone.
pub fn fix(bytes: &mut [u8]) {
    match bytes.first().map(|b| b >> 4) {
        Some(4) if bytes.len() >= 20 => {
            let len = bytes.len() as u16;
            put(bytes, 2, len);
            fix_header4(bytes);
        }
        Some(6) if bytes.len() >= 40 => {
            let len = (bytes.len() - 40) as u16;
            put(bytes, 4, len);
        }
        _ => return,
    }
    fix_transport(bytes);
}

/// Makes the checksum of an IPv4 header right.
pub fn fix_header4(bytes: &mut [u8]) {
    let header = usize::from(bytes[0] & 15) * 4;
    if header >= 20 && header <= bytes.len() {
        put(bytes, 10, 0);
        let sum = !sum(&[&bytes[..header]]);
        put(bytes, 10, sum);
    }
}

/// Makes the checksum of the transport right.
pub fn fix_transport(bytes: &mut [u8]) {
    let Ok(ip) = read(bytes, true) else { return };
    if ip.fragment.is_some() {
        return;
    }
    let l4 = &mut bytes[ip.l4..ip.len];
    let field = match ip.protocol {
        TCP => 16,
        UDP => 6,
        p if p == ip.icmp() => 2,
        _ => return,
    };
    if l4.len() < field + 2 {
        return;
    }
    if ip.protocol == UDP {
        let len = l4.len() as u16;
        put(l4, 4, len);
    }
    put(l4, field, 0);
    let pseudo = match ip.protocol {
        ICMP => Vec::new(),
        p => pseudo(&ip, p, l4.len()),
    };
    match !sum(&[&pseudo, l4]) {
        0 if ip.protocol == UDP => put(l4, field, 0xffff),
        sum => put(l4, field, sum),
    }
}
