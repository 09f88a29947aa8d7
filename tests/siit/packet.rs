//! Packets for the tests, built and judged without the code under test: headers are read by etherparse, checksums are
//! summed word by word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const FRAGMENT: u8 = 44;
pub const ICMPV6: u8 = 58;

/// An IP packet of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub tos: u8,
    pub ttl: u8,
    /// Protocol, or the Next Header of the last header in front of the payload.
    pub protocol: u8,
    /// IPv4: identification. IPv6: that of the Fragment Header.
    pub id: u32,
    pub df: bool,
    /// Offset in bytes and More Fragments; IPv6: `Some` when there is a Fragment Header.
    pub fragment: Option<(u16, bool)>,
    /// IPv4 options, or IPv6 extension headers in front of a Fragment Header as (number, bytes from the Length byte on).
    pub options: Vec<u8>,
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub flow_label: u32,
    pub payload: Vec<u8>,
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A packet with this transport as it stands.
pub fn raw(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Packet {
    Packet {
        src: ip(src),
        dst: ip(dst),
        tos: 0,
        ttl: 64,
        protocol,
        id: 0,
        df: false,
        fragment: None,
        options: Vec::new(),
        extensions: Vec::new(),
        flow_label: 0,
        payload: payload.to_vec(),
    }
}

pub fn udp(src: &str, dst: &str, data: &[u8]) -> Packet {
    let mut payload = vec![0x12, 0x34, 0, 53];
    payload.extend(((8 + data.len()) as u16).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(data);
    let mut packet = raw(src, dst, UDP, &payload);
    packet.sum();
    packet
}

pub fn tcp(src: &str, dst: &str, data: &[u8]) -> Packet {
    let mut payload = vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
    payload.extend(data);
    let mut packet = raw(src, dst, TCP, &payload);
    packet.sum();
    packet
}

pub fn echo(src: &str, dst: &str, reply: bool, data: &[u8]) -> Packet {
    let v6 = ip(src).is_ipv6();
    let kind = match (v6, reply) {
        (true, false) => 128,
        (true, true) => 129,
        (false, false) => 8,
        (false, true) => 0,
    };
    let mut payload = vec![kind, 0, 0, 0, 0xbe, 0xef, 0, 7];
    payload.extend(data);
    let mut packet = raw(src, dst, if v6 { ICMPV6 } else { ICMP }, &payload);
    packet.sum();
    packet
}

/// An ICMP error of `src` with these bytes 4–7 about `quoted`.
pub fn error(src: &str, kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Packet {
    let about = Packet::parse(&padded(quoted));
    let mut payload = vec![kind, code, 0, 0];
    payload.extend(rest.to_be_bytes());
    payload.extend(quoted);
    let protocol = if about.src.is_ipv6() { ICMPV6 } else { ICMP };
    let mut packet = raw(src, &about.src.to_string(), protocol, &payload);
    packet.sum();
    packet
}

/// A quote, with zeros for what its headers promise and it does not hold.
pub fn padded(quote: &[u8]) -> Vec<u8> {
    let mut whole = quote.to_vec();
    let len = match quote[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([quote[2], quote[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([quote[4], quote[5]])),
    };
    whole.resize(len.max(whole.len()), 0);
    whole
}

impl Packet {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The part of this datagram from `from` to `to` as a fragment.
    pub fn piece(&self, from: usize, to: usize, id: u32) -> Self {
        let mut piece = self.clone();
        piece.payload = self.payload[from..to.min(self.payload.len())].to_vec();
        piece.fragment = Some((from as u16, to < self.payload.len()));
        piece.id = id;
        piece
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (offset, more) = self.fragment.unwrap_or((0, false));
                let header_len = 20 + self.options.len();
                out.extend([0x40 | (header_len / 4) as u8, self.tos]);
                out.extend(((header_len + self.payload.len()) as u16).to_be_bytes());
                out.extend((self.id as u16).to_be_bytes());
                let flags = u16::from(self.df) << 14 | u16::from(more) << 13;
                out.extend((flags | offset >> 3).to_be_bytes());
                out.extend([self.ttl, self.protocol, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(&self.options);
                let sum = !ones_sum(&out);
                out[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut headers: Vec<(u8, Vec<u8>)> = self.extensions.clone();
                if let Some((offset, more)) = self.fragment {
                    let mut body = vec![0];
                    body.extend((offset | u16::from(more)).to_be_bytes());
                    body.extend(self.id.to_be_bytes());
                    headers.push((FRAGMENT, body));
                }
                let len: usize = headers.iter().map(|(_, body)| 1 + body.len()).sum();
                let first = u32::from(self.tos) << 20 | self.flow_label | 0x6000_0000;
                out.extend(first.to_be_bytes());
                out.extend(((len + self.payload.len()) as u16).to_be_bytes());
                out.extend([headers.first().map_or(self.protocol, |(number, _)| *number), self.ttl]);
                out.extend(src.octets());
                out.extend(dst.octets());
                for (i, (_, body)) in headers.iter().enumerate() {
                    out.push(headers.get(i + 1).map_or(self.protocol, |(number, _)| *number));
                    out.extend(body);
                }
            }
            _ => panic!("one family"),
        }
        out.extend(&self.payload);
        out
    }

    /// Reads a packet that came out: it has no options and no extension header but a Fragment Header.
    pub fn parse(bytes: &[u8]) -> Self {
        match bytes[0] >> 4 {
            4 => {
                let (header, payload) = Ipv4Header::from_slice(bytes).unwrap();
                assert_eq!(usize::from(header.total_len), bytes.len(), "total length");
                assert_eq!(header.header_checksum, header.calc_header_checksum(), "header checksum");
                let offset = header.fragment_offset.value() << 3;
                Self {
                    src: Ipv4Addr::from(header.source).into(),
                    dst: Ipv4Addr::from(header.destination).into(),
                    tos: bytes[1],
                    ttl: header.time_to_live,
                    protocol: header.protocol.0,
                    id: header.identification.into(),
                    df: header.dont_fragment,
                    fragment: (offset != 0 || header.more_fragments)
                        .then_some((offset, header.more_fragments)),
                    options: header.options.as_slice().to_vec(),
                    extensions: Vec::new(),
                    flow_label: 0,
                    payload: payload.to_vec(),
                }
            }
            6 => {
                let (header, mut payload) = Ipv6Header::from_slice(bytes).unwrap();
                assert_eq!(usize::from(header.payload_length), payload.len(), "payload length");
                let (mut fragment, mut id, mut protocol) = (None, 0, header.next_header);
                if protocol == IpNumber(FRAGMENT) {
                    let at = u16::from_be_bytes([payload[2], payload[3]]);
                    fragment = Some((at & 0xfff8, at & 1 == 1));
                    id = u32::from_be_bytes(*payload[4..].first_chunk().unwrap());
                    protocol = IpNumber(payload[0]);
                    payload = &payload[8..];
                }
                Self {
                    src: Ipv6Addr::from(header.source).into(),
                    dst: Ipv6Addr::from(header.destination).into(),
                    tos: header.traffic_class,
                    ttl: header.hop_limit,
                    protocol: protocol.0,
                    id,
                    df: false,
                    fragment,
                    options: Vec::new(),
                    extensions: Vec::new(),
                    flow_label: header.flow_label.value(),
                    payload: payload.to_vec(),
                }
            }
            _ => panic!("no IP: {bytes:02x?}"),
        }
    }

    /// The packet quoted by an ICMP error, padded to its length, and how many bytes are really there.
    pub fn quote(&self) -> (Self, usize) {
        let quote = &self.payload[8..];
        let whole = padded(quote);
        let header = match whole[0] >> 4 {
            4 => 20,
            _ if whole[6] == FRAGMENT => 48,
            _ => 40,
        };
        (Self::parse(&whole), quote.len() - header)
    }

    /// Type, code and bytes 4–7.
    pub fn icmp(&self) -> (u8, u8, u32) {
        assert!(self.protocol == ICMP || self.protocol == ICMPV6);
        (self.payload[0], self.payload[1], u32::from_be_bytes(*self.payload[4..].first_chunk().unwrap()))
    }

    /// Whether the transport checksum is right. A UDP checksum must be there.
    pub fn sum_is_right(&self) -> bool {
        let at = self.sum_at();
        let there = self.protocol != UDP || self.payload[at..at + 2] != [0, 0];
        there && self.transport_sum() == 0xffff
    }

    /// Writes the transport checksum.
    pub fn sum(&mut self) {
        let at = self.sum_at();
        self.payload[at..at + 2].fill(0);
        let sum = match !self.transport_sum() {
            0 if self.protocol == UDP => 0xffff,
            sum => sum,
        };
        self.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn sum_at(&self) -> usize {
        match self.protocol {
            TCP => 16,
            UDP => 6,
            ICMP | ICMPV6 => 2,
            other => panic!("protocol {other} has no checksum here"),
        }
    }

    fn transport_sum(&self) -> u16 {
        let mut all = Vec::new();
        if self.protocol != ICMP {
            match (self.src, self.dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => all.extend([src.octets(), dst.octets()].concat()),
                (IpAddr::V6(src), IpAddr::V6(dst)) => all.extend([src.octets(), dst.octets()].concat()),
                _ => panic!("one family"),
            }
            all.extend((self.payload.len() as u32).to_be_bytes());
            all.extend([0, self.protocol]);
        }
        all.extend(&self.payload);
        ones_sum(&all)
    }
}

/// RFC 1071, word by word.
pub fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Joins fragments, in any order, into the datagram they came from.
pub fn join(pieces: &[Packet]) -> Packet {
    let mut pieces = pieces.to_vec();
    pieces.sort_by_key(|p| p.fragment.unwrap().0);
    let mut whole = pieces[0].clone();
    whole.payload.clear();
    for piece in &pieces {
        let (offset, more) = piece.fragment.unwrap();
        assert_eq!(usize::from(offset), whole.payload.len(), "no gap, no overlap");
        assert_eq!((piece.id, piece.protocol, piece.df), (whole.id, whole.protocol, false));
        assert_eq!(more, Some(piece) != pieces.last(), "only the last one is the last");
        whole.payload.extend(&piece.payload);
    }
    whole.fragment = None;
    whole
}
