//! The skeleton of a DNS message: header, where the question and the sections end, OPT. Record data is not looked
//! at, so a message can be handed on byte for byte (RFC 6147 §5.3.3, RFC 9460 §4.2.1).

use std::ops::Range;

/// Length of the header (RFC 1035 §4.1.1).
pub(super) const HEADER: usize = 12;
/// QR: this is a response.
pub(super) const QR: u16 = 0x8000;
/// AA: authoritative answer.
pub(super) const AA: u16 = 0x0400;
/// TC: truncated.
pub(super) const TC: u16 = 0x0200;
/// RD: recursion desired.
pub(super) const RD: u16 = 0x0100;
/// RA: recursion available.
pub(super) const RA: u16 = 0x0080;
/// AD: authentic data.
pub(super) const AD: u16 = 0x0020;
/// CD: checking disabled.
pub(super) const CD: u16 = 0x0010;

/// Type SOA (RFC 1035 §3.2.2).
pub(super) const TYPE_SOA: u16 = 6;
/// Type OPT (RFC 6891 §6.1.1).
pub(super) const TYPE_OPT: u16 = 41;
/// Option code of an Extended DNS Error (RFC 8914 §2).
pub(super) const OPTION_EDE: u16 = 15;

/// ID and flags of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) flags: u16,
    pub(super) counts: [u16; 4],
}

impl Header {
    /// Reads the first twelve bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: be16(bytes, 0)?,
            flags: be16(bytes, 2)?,
            counts: [be16(bytes, 4)?, be16(bytes, 6)?, be16(bytes, 8)?, be16(bytes, 10)?],
        })
    }

    /// The OPCODE field.
    pub(super) const fn opcode(self) -> u16 {
        self.flags >> 11 & 0xf
    }
}

/// A message with one question whose records all lie within its bytes.
#[derive(Clone, Debug)]
pub(super) struct Wire<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) header: Header,
    /// The question: name, type, class.
    pub(super) question: Range<usize>,
    /// Where the answer, authority and additional sections end.
    pub(super) ends: [usize; 3],
    /// Every OPT record; more than one is an error of the sender.
    pub(super) opts: Vec<Opt<'a>>,
}

/// An OPT record.
#[derive(Clone, Debug)]
pub(super) struct Opt<'a> {
    at: Range<usize>,
    pub(super) payload: u16,
    pub(super) rcode_high: u8,
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
    options: &'a [u8],
}

impl<'a> Wire<'a> {
    /// Walks over the whole message. `None` when it does not hold together or has not exactly one question.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let header = Header::read(bytes)?;
        if header.counts[0] != 1 {
            return None;
        }
        let question = HEADER..question_end(bytes)?;
        let (mut pos, mut ends, mut opts) = (question.end, [0; 3], Vec::new());
        for (section, end) in ends.iter_mut().enumerate() {
            for _ in 0..header.counts[section + 1] {
                let record = Record::read(bytes, pos)?;
                if record.rtype == TYPE_OPT {
                    // An OPT record belongs to the root and into the additional section (RFC 6891 §6.1.2).
                    if section != 2 || bytes.get(pos) != Some(&0) {
                        return None;
                    }
                    opts.push(Opt::new(bytes, pos, &record)?);
                }
                pos = record.end;
            }
            *end = pos;
        }
        Some(Self { bytes, header, question, ends, opts })
    }

    /// The question name without type and class, as it stands.
    pub(super) fn name(&self) -> &'a [u8] {
        self.bytes.get(HEADER..self.question.end - 4).unwrap_or_default()
    }

    /// QTYPE and QCLASS.
    pub(super) fn type_and_class(&self) -> Option<(u16, u16)> {
        Some((be16(self.bytes, self.question.end - 4)?, be16(self.bytes, self.question.end - 2)?))
    }

    /// The whole RCODE, with the upper bits from OPT (RFC 6891 §6.1.3).
    pub(super) fn rcode(&self) -> u16 {
        let high = self.opts.first().map_or(0, |opt| u16::from(opt.rcode_high));
        high << 4 | self.header.flags & 0xf
    }

    /// The end of the additional section without OPT, and how many records it then has; `None` when OPT is
    /// not its last record, so that it cannot simply be cut off.
    pub(super) fn without_opt(&self) -> Option<(usize, u16)> {
        match self.opts.as_slice() {
            [] => Some((self.ends[2], self.header.counts[3])),
            [opt] if opt.at.end == self.ends[2] => Some((opt.at.start, self.header.counts[3] - 1)),
            _ => None,
        }
    }

    /// Every record with its section: 0 answer, 1 authority, 2 additional.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let mut pos = self.question.end;
        let sections = self.header.counts.into_iter().skip(1).zip(0u8..);
        let sections = sections.flat_map(|(count, section)| (0..count).map(move |_| section));
        sections.map_while(move |section| {
            let record = Record::read(self.bytes, pos)?;
            pos = record.end;
            Some(Record { section, ..record })
        })
    }

    /// Code and text of each Extended DNS Error (RFC 8914 §2).
    pub(super) fn extended_errors(&self) -> impl Iterator<Item = (u16, &'a [u8])> + '_ {
        self.opts.iter().flat_map(Opt::options).filter_map(|(code, data)| {
            if code == OPTION_EDE { Some((be16(data, 0)?, data.get(2..)?)) } else { None }
        })
    }
}

impl<'a> Opt<'a> {
    fn new(bytes: &'a [u8], start: usize, record: &Record) -> Option<Self> {
        let options = bytes.get(record.data.clone())?;
        let opt = Self {
            at: start..record.end,
            payload: record.class,
            rcode_high: (record.ttl >> 24) as u8,
            version: (record.ttl >> 16) as u8,
            dnssec_ok: record.ttl & 0x8000 != 0,
            options,
        };
        let used: usize = opt.options().map(|(_, data)| data.len() + 4).sum();
        (used == options.len()).then_some(opt)
    }

    /// Code and data of each option.
    fn options(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut rest = self.options;
        std::iter::from_fn(move || {
            let (code, len) = (be16(rest, 0)?, usize::from(be16(rest, 2)?));
            let data = rest.get(4..4 + len)?;
            rest = rest.get(4 + len..)?;
            Some((code, data))
        })
    }
}

/// A record without its owner.
pub(super) struct Record {
    pub(super) section: u8,
    pub(super) rtype: u16,
    class: u16,
    pub(super) ttl: u32,
    /// Where the TTL field is.
    pub(super) ttl_at: usize,
    data: Range<usize>,
    end: usize,
}

impl Record {
    fn read(bytes: &[u8], pos: usize) -> Option<Self> {
        let pos = skip_name(bytes, pos)?;
        let start = pos + 10;
        let end = start + usize::from(be16(bytes, pos + 8)?);
        bytes.get(start..end)?;
        Some(Self {
            section: 0,
            ttl_at: pos + 4,
            rtype: be16(bytes, pos)?,
            class: be16(bytes, pos + 2)?,
            ttl: u32::from(be16(bytes, pos + 4)?) << 16 | u32::from(be16(bytes, pos + 6)?),
            data: start..end,
            end,
        })
    }
}

impl Record {
    /// MINIMUM of an SOA record, its last field (RFC 1035 §3.3.13).
    pub(super) fn soa_minimum(&self, bytes: &[u8]) -> Option<u32> {
        Some(u32::from_be_bytes(*bytes.get(self.data.clone())?.last_chunk()?))
    }
}

/// The end of the first question. Its name is never compressed: there is nothing before it to point to.
pub(super) fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut pos = HEADER;
    loop {
        match *bytes.get(pos)? {
            0 => break,
            len @ 1..=63 => pos += 1 + usize::from(len),
            64.. => return None,
        }
    }
    // A name has at most 255 octets (RFC 1035 §3.1).
    (pos + 1 - HEADER <= 255 && bytes.len() >= pos + 5).then_some(pos + 5)
}

/// The name in the first question, in wire form.
pub fn question_name(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(HEADER..question_end(bytes)? - 4)
}

/// The position behind a name; pointers are not followed.
fn skip_name(bytes: &[u8], mut pos: usize) -> Option<usize> {
    loop {
        match *bytes.get(pos)? {
            0 => return Some(pos + 1),
            len @ 1..=63 => pos += 1 + usize::from(len),
            // Into the header, which we rewrite, nothing may point.
            0xc0.. => return (usize::from(be16(bytes, pos)? & 0x3fff) >= HEADER).then_some(pos + 2),
            64..=0xbf => return None,
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] =
        b"\x12\x34\x01\x10\0\x01\0\0\0\0\0\x01\x01a\0\0\x1c\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";

    #[test]
    fn reads_a_query_with_opt() {
        let wire = Wire::read(QUERY).unwrap();
        assert_eq!((wire.header.id, wire.header.flags), (0x1234, RD | CD));
        assert_eq!(wire.name(), b"\x01a\0");
        assert_eq!(wire.type_and_class(), Some((28, 1)));
        let opt = &wire.opts[0];
        assert_eq!((opt.payload, opt.version, opt.dnssec_ok), (1232, 0, true));
        assert_eq!(wire.without_opt(), Some((19, 0)));
        assert_eq!(wire.ends[2], QUERY.len());
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..QUERY.len() {
            assert!(Wire::read(&QUERY[..len]).is_none(), "{len}");
        }
    }

    #[test]
    fn refuses_compressed_question_and_broken_options() {
        assert!(Wire::read(b"\0\0\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01").is_none());
        let mut broken = QUERY.to_vec();
        *broken.last_mut().unwrap() = 4;
        broken.extend([0, 15, 0, 9]);
        assert!(Wire::read(&broken).is_none());
    }

    proptest::proptest! {
        #[test]
        fn o30_total_on_garbage(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            if let Some(wire) = Wire::read(&bytes) {
                proptest::prop_assert!(wire.ends[2] <= bytes.len());
                let _ = (wire.rcode(), wire.without_opt(), wire.extended_errors().count());
            }
        }

        #[test]
        fn o30_total_on_mutations(at in 0..QUERY.len(), value: u8) {
            let mut bytes = QUERY.to_vec();
            bytes[at] = value;
            if let Some(wire) = Wire::read(&bytes) {
                proptest::prop_assert!(wire.ends[2] <= bytes.len());
            }
        }
    }
}
