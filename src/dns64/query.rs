//! The client's question: parsed once, kept with everything that its reply needs.

use std::net::IpAddr;

use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::wire::{self, Wire};

/// The UDP payload that we accept and never exceed: it crosses any link unfragmented (RFC 6891 §6.2.5 leaves the
/// choice; 1232 is the DNS flag day 2020 value).
pub const UDP_PAYLOAD: u16 = 1232;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram; the reply is limited in size.
    Udp,
    /// A stream; the reply may have 65,535 bytes.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
}

/// What is known about a query besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Address of the client.
    pub client: IpAddr,
    /// How it came.
    pub transport: Transport,
}

/// A well-formed query.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) id: u16,
    /// RD, AD and CD as the client set them.
    pub(super) flags: u16,
    /// The question as it came, to be copied into the reply.
    pub(super) question: Vec<u8>,
    pub(super) name: Name,
    pub(super) record_type: RecordType,
    pub(super) class: DNSClass,
    pub(super) edns: Option<Edns>,
    pub(super) transport: Transport,
    /// The view of the client.
    pub(super) view: u16,
    /// Whether who is asked validates and the path there is trusted.
    pub(super) trust_ad: bool,
}

/// What the client said in its OPT record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edns {
    pub(super) payload: u16,
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
}

impl Query {
    /// Reads a query. `None` means FORMERR: it does not hold together, has answers, not exactly one question,
    /// more than one OPT (RFC 6891 §6.1.1), or bytes behind its end.
    pub(super) fn read(bytes: &[u8], transport: Transport) -> Option<Self> {
        let wire = Wire::read(bytes)?;
        if wire.header.counts[1] != 0 || wire.opts.len() > 1 || wire.ends[2] != bytes.len() {
            return None;
        }
        let name = Name::read(&mut BinDecoder::new(wire.name())).ok()?;
        let (record_type, class) = wire.type_and_class()?;
        Some(Self {
            id: wire.header.id,
            flags: wire.header.flags & (wire::RD | wire::AD | wire::CD),
            question: bytes.get(wire.question.clone())?.to_vec(),
            name,
            record_type: record_type.into(),
            class: class.into(),
            edns: wire.opts.first().map(|opt| Edns {
                payload: opt.payload,
                version: opt.version,
                dnssec_ok: opt.dnssec_ok,
            }),
            transport,
            view: 0,
            trust_ad: false,
        })
    }

    /// Whether the client understands DNSSEC records (RFC 3225).
    pub(super) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether the client validates itself.
    pub(super) const fn checking_disabled(&self) -> bool {
        self.flags & wire::CD != 0
    }

    /// The longest reply the client can take: a payload under 512 means 512 (RFC 6891 §6.2.5), no OPT at all too
    /// (RFC 1035 §2.3.4).
    pub(super) fn limit(&self) -> usize {
        limit(self.transport, self.edns.map(|edns| edns.payload))
    }
}

/// The longest reply, given the payload in the OPT record.
pub(super) fn limit(transport: Transport, payload: Option<u16>) -> usize {
    match (transport, payload) {
        (Transport::Tcp | Transport::Tls | Transport::Https, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => 512,
        (Transport::Udp, Some(payload)) => usize::from(payload.clamp(512, UDP_PAYLOAD)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(payload: u16, extra: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01A\x02bC\0\0\x1c\0\x01\0\0\x29".to_vec();
        bytes.extend(payload.to_be_bytes());
        bytes.extend(b"\0\0\x80\0\0\0");
        bytes.extend(extra);
        bytes
    }

    #[test]
    fn keeps_what_the_reply_needs() {
        let q = Query::read(&query(4096, b""), Transport::Udp).unwrap();
        assert_eq!(q.name.to_string(), "A.bC.");
        assert_eq!(q.record_type, RecordType::AAAA);
        assert!(q.dnssec_ok() && !q.checking_disabled());
        assert_eq!(q.question, b"\x01A\x02bC\0\0\x1c\0\x01");
    }

    #[test]
    fn o21_limits() {
        for (payload, limit) in [(0, 512), (511, 512), (700, 700), (1232, 1232), (4096, 1232)] {
            assert_eq!(Query::read(&query(payload, b""), Transport::Udp).unwrap().limit(), limit);
            assert_eq!(Query::read(&query(payload, b""), Transport::Tcp).unwrap().limit(), 65_535);
        }
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(Query::read(&query(1232, b"x"), Transport::Udp).is_none());
    }
}
