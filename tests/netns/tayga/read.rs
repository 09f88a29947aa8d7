//! Packets as lists of named fields, read byte by byte and without a line of the code under test, so that two
//! translations can be compared field by field.

use super::packet::ones_sum;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Name and value of every field, in the order of the packet. Checksums that can be verified say `right`.
pub fn fields(bytes: &[u8]) -> Vec<(String, String)> {
    let mut reader = Reader { quote: "", out: Vec::new() };
    reader.packet(bytes);
    reader.out
}

/// What a packet is, in a word: the family, and for ICMP errors type and code.
pub fn kind(bytes: &[u8]) -> String {
    let fields = fields(bytes);
    let value = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let family = if bytes.first().is_some_and(|b| b >> 4 == 4) { "IPv4" } else { "IPv6" };
    let is_error = fields.iter().any(|(name, _)| name.starts_with("quote "));
    match (value("icmp type"), value("icmp code")) {
        (Some(kind), Some(code)) if is_error => format!("{family} error {kind}/{code}"),
        _ => family.into(),
    }
}

struct Reader {
    /// In front of the names of a quoted packet's fields.
    quote: &'static str,
    out: Vec<(String, String)>,
}

/// What a transport is inside of.
struct Around<'a> {
    protocol: u8,
    /// Source and destination, for the pseudo-header.
    addresses: &'a [u8],
    offset: usize,
    /// Whether all bytes of the datagram are there.
    whole: bool,
}

impl Reader {
    fn put(&mut self, name: &str, value: impl ToString) {
        self.out.push((format!("{}{name}", self.quote), value.to_string()));
    }

    fn packet(&mut self, b: &[u8]) {
        match b.first().map(|b| b >> 4) {
            Some(4) if b.len() >= 20 => self.v4(b),
            Some(6) if b.len() >= 40 => self.v6(b),
            _ => self.put("bytes", hex(b)),
        }
    }

    fn v4(&mut self, b: &[u8]) {
        let header = usize::from(b[0] & 15) * 4;
        let total = word(b, 2);
        let place = word(b, 6);
        let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        self.put("traffic class", b[1]);
        self.put("length", total);
        self.put("identification", word(b, 4));
        self.put("df", place >> 14 & 1);
        self.put("place", format!("{offset} more {more}"));
        self.put("hop limit", b[8]);
        self.put("protocol", b[9]);
        let right = b.get(..header).is_some_and(|h| ones_sum(h) == 0xffff);
        self.put("header checksum", if right { "right".into() } else { format!("{:#06x}", word(b, 10)) });
        self.put("source", hex(&b[12..16]));
        self.put("destination", hex(&b[16..20]));
        self.put("options", hex(b.get(20..header).unwrap_or(&[])));
        let end = usize::from(total).min(b.len());
        let body = b.get(header..end).unwrap_or(&[]);
        let whole = end == usize::from(total) && offset == 0 && !more;
        self.transport(body, &Around { protocol: b[9], addresses: &b[12..20], offset, whole });
        self.behind(b, end);
    }

    fn v6(&mut self, b: &[u8]) {
        let total = 40 + usize::from(word(b, 4));
        self.put("traffic class", (word(b, 0) >> 4) as u8);
        self.put("flow label", u32::from(b[1] & 15) << 16 | u32::from(word(b, 2)));
        self.put("length", total);
        self.put("hop limit", b[7]);
        self.put("source", hex(&b[8..24]));
        self.put("destination", hex(&b[24..40]));
        let (mut protocol, mut at, mut offset, mut more) = (b[6], 40, 0, false);
        let end = total.min(b.len());
        while let (0 | 43 | 44 | 60, Some(header)) = (protocol, b.get(at..at + 8)) {
            let len = if protocol == 44 { 8 } else { 8 + usize::from(header[1]) * 8 };
            if protocol == 44 {
                (offset, more) = (usize::from(word(b, at + 2) & 0xfff8), word(b, at + 2) & 1 == 1);
                self.put("place", format!("{offset} more {more}"));
                self.put("identification", u32::from(word(b, at + 4)) << 16 | u32::from(word(b, at + 6)));
            } else {
                self.put(&format!("extension {protocol}"), hex(b.get(at + 1..at + len).unwrap_or(&[])));
            }
            protocol = header[0];
            at += len;
        }
        self.put("protocol", protocol);
        let body = b.get(at..end).unwrap_or(&[]);
        let whole = end == total && offset == 0 && !more;
        self.transport(body, &Around { protocol, addresses: &b[8..40], offset, whole });
        self.behind(b, end);
    }

    fn transport(&mut self, b: &[u8], around: &Around) {
        match around.protocol {
            _ if around.offset > 0 => self.data("data", b),
            UDP if b.len() >= 8 => {
                self.put("udp ports", hex(&b[..4]));
                self.put("udp length", word(b, 4));
                if word(b, 6) == 0 {
                    self.put("checksum", "none")
                } else {
                    self.checksum(b, 6, around)
                }
                self.data("data", &b[8..]);
            }
            TCP if b.len() >= 20 => {
                self.put("tcp header", hex(&[&b[..16], &b[18..20]].concat()));
                self.checksum(b, 16, around);
                self.data("data", &b[20..]);
            }
            ICMP | ICMPV6 if b.len() >= 8 => self.icmp(b, around),
            // A quote may end inside.
            _ => self.data("data", b),
        }
    }

    fn icmp(&mut self, b: &[u8], around: &Around) {
        let v6 = around.protocol == ICMPV6;
        let rest = u32::from(word(b, 4)) << 16 | u32::from(word(b, 6));
        // Bytes that the quote has by RFC 4884, and where that stands.
        let (len, mask) = match (v6, b[0]) {
            (false, 3 | 11 | 12) => (usize::from(b[5]) * 4, 0xff_0000),
            (true, 1 | 3) => (usize::from(b[4]) * 8, 0xff00_0000),
            _ => (0, 0),
        };
        let is_error = if v6 { b[0] < 128 } else { matches!(b[0], 3 | 4 | 5 | 11 | 12) };
        self.put("icmp type", b[0]);
        self.put("icmp code", b[1]);
        self.checksum(b, 2, around);
        if !is_error || !self.quote.is_empty() {
            self.put("icmp rest", format!("{rest:#010x}"));
            return self.data("data", &b[8..]);
        }
        self.put("icmp rest", format!("{:#010x}", rest & !mask));
        self.put("quote length", len);
        let (quote, extension) = match b[8..].split_at_checked(len) {
            Some((quote, extension)) if len > 0 => (quote, extension),
            _ => (&b[8..], &[][..]),
        };
        self.put("icmp extension", hex(extension));
        self.quote = "quote ";
        self.packet(quote);
        self.quote = "";
    }

    fn checksum(&mut self, b: &[u8], at: usize, around: &Around) {
        let mut all = Vec::new();
        if around.protocol != ICMP {
            all.extend(around.addresses);
            all.extend((b.len() as u32).to_be_bytes());
            all.extend([0, around.protocol]);
        }
        all.extend(b);
        let value = match (around.whole, ones_sum(&all)) {
            (true, 0xffff) => "right".into(),
            // Wrong by the same distance is the same here.
            (true, sum) => format!("all sums to {sum:#06x}"),
            (false, _) => format!("{:#06x}", word(b, at)),
        };
        self.put("checksum", value);
    }

    fn data(&mut self, name: &str, b: &[u8]) {
        // FNV-1a: enough to tell two payloads apart.
        let hash = b
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        self.put(&format!("{name} length"), b.len());
        self.put(name, format!("{hash:016x}"));
    }

    /// Bytes behind what the header says: padding of a quote.
    fn behind(&mut self, b: &[u8], end: usize) {
        let rest = &b[end..];
        let zero = rest.iter().all(|byte| *byte == 0);
        self.put("padding", format!("{}{}", rest.len(), if zero { "" } else { " not zero" }));
    }
}

fn word(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

pub fn hex(b: &[u8]) -> String {
    b.iter().map(|byte| format!("{byte:02x}")).collect()
}
