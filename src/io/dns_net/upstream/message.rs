//! A question as bytes, and what must be true of a datagram before it counts as its answer.

use hickory_proto::rr::RecordType;
use rand::RngExt;

use crate::dns64::{Question, UDP_PAYLOAD};

/// Length of the header (RFC 1035 §4.1.1).
const HEADER: usize = 12;
const RD: u16 = 0x0100;
const AD: u16 = 0x0020;
const CD: u16 = 0x0010;
const QR_AND_OPCODE: u8 = 0xf8;
const QR: u8 = 0x80;
const TC: u8 = 0x02;

/// RCODE FORMERR.
pub(super) const FORMERR: u8 = 1;
/// RCODE NXDOMAIN.
const NXDOMAIN: u8 = 3;
/// RCODE NOTIMP.
pub(super) const NOTIMP: u8 = 4;
/// RCODE REFUSED.
pub(super) const REFUSED: u8 = 5;

/// A query to send: ID 0, letters as the client wrote them.
#[derive(Clone, Debug)]
pub(super) struct Query {
    bytes: Vec<u8>,
    question: usize,
}

/// What a received message is to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Its answer.
    Answer,
    /// An answer to the same question in other letters: a server that does not keep them, or a forger.
    OtherCase,
    /// A server's complaint that does not repeat the question.
    Bare,
    /// Something else.
    Stranger,
}

impl Query {
    /// With RD, and with OPT unless the server is from before EDNS.
    pub(super) fn new(question: &Question, edns: bool) -> Self {
        let flag = |on: bool, bit: u16| if on { bit } else { 0 };
        let flags = RD | flag(question.authentic_data, AD) | flag(question.checking_disabled, CD);
        let mut bytes = Vec::with_capacity(64);
        for field in [0, flags, 1, 0, 0, u16::from(edns)] {
            bytes.extend(field.to_be_bytes());
        }
        for label in question.name.iter() {
            bytes.push(label.len() as u8);
            bytes.extend(label);
        }
        bytes.push(0);
        bytes.extend(u16::from(question.record_type).to_be_bytes());
        bytes.extend(u16::from(question.class).to_be_bytes());
        let end = bytes.len();
        if edns {
            bytes.push(0);
            bytes.extend(u16::from(RecordType::OPT).to_be_bytes());
            bytes.extend(UDP_PAYLOAD.to_be_bytes());
            bytes.extend([0, 0, if question.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
        Self { bytes, question: end - HEADER }
    }

    /// The same with this ID.
    pub(super) fn with_id(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some(place) = bytes.get_mut(..2) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        bytes
    }

    /// Letters in random case: a forger has to guess them too. Length octets are no letters, so the name needs no
    /// parsing.
    pub(super) fn mix_case(&mut self) {
        let mut rng = rand::rng();
        let (mut bits, mut left) = (0u64, 0);
        for byte in self.bytes.iter_mut().skip(HEADER).take(self.question.saturating_sub(4)) {
            if !byte.is_ascii_alphabetic() {
                continue;
            }
            if left == 0 {
                (bits, left) = (rng.random(), 64);
            }
            if bits & 1 != 0 {
                *byte ^= 0x20;
            }
            (bits, left) = (bits >> 1, left - 1);
        }
    }

    /// Puts the letters of `self` into the question of a reply, so that names which point there come out as the
    /// client wrote them.
    pub(super) fn restore_case(&self, reply: &mut [u8]) {
        if let (Some(to), Some(from)) = (reply.get_mut(HEADER..HEADER + self.question), self.question_bytes())
        {
            to.copy_from_slice(from);
        }
    }

    /// RFC 5452 §9.1: besides addresses, ports and ID, which the socket and its table check, the question has to be
    /// ours, letter for letter.
    pub(super) fn judge(&self, reply: &[u8]) -> Match {
        let Some(header) = reply.first_chunk::<HEADER>() else { return Match::Stranger };
        if header[2] & QR_AND_OPCODE != QR {
            return Match::Stranger;
        }
        let questions = u16::from_be_bytes([header[4], header[5]]);
        if questions == 0 && rcode(reply) != 0 && reply.len() == HEADER {
            return Match::Bare;
        }
        let (Some(got), Some(ours)) = (reply.get(HEADER..HEADER + self.question), self.question_bytes())
        else {
            return Match::Stranger;
        };
        if questions != 1 {
            Match::Stranger
        } else if got == ours {
            Match::Answer
        } else if got.eq_ignore_ascii_case(ours) && got.ends_with(&ours[ours.len().saturating_sub(4)..]) {
            Match::OtherCase
        } else {
            Match::Stranger
        }
    }

    fn question_bytes(&self) -> Option<&[u8]> {
        self.bytes.get(HEADER..HEADER + self.question)
    }
}

/// The RCODE in the header.
pub(super) fn rcode(reply: &[u8]) -> u8 {
    reply.get(3).map_or(0, |byte| byte & 0xf)
}

/// Whether TC is set.
pub(super) fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|byte| byte & TC != 0)
}

/// Whether the server did not do its work, so that another one may know better.
pub(super) fn is_error(reply: &[u8]) -> bool {
    !matches!(rcode(reply), 0 | NXDOMAIN)
}

/// Whether a message has no OPT record, told without walking over it: a complaint about OPT has no records at all.
pub(super) fn has_no_records(reply: &[u8]) -> bool {
    reply.get(6..HEADER).is_some_and(|counts| counts.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::{DNSClass, Name};

    use super::*;

    fn question() -> Question {
        Question {
            name: Name::from_ascii("wWw.Example.gov.").unwrap(),
            record_type: RecordType::AAAA,
            class: DNSClass::IN,
            dnssec_ok: true,
            checking_disabled: true,
            authentic_data: false,
            group: crate::dns64::Group::default(),
        }
    }

    #[test]
    fn hickory_reads_what_we_send() {
        for edns in [true, false] {
            let message = Message::from_vec(&Query::new(&question(), edns).with_id(0x1234)).unwrap();
            assert_eq!(message.metadata.id, 0x1234);
            assert!(message.metadata.recursion_desired && message.metadata.checking_disabled);
            assert_eq!(message.queries[0].name.to_ascii(), "wWw.Example.gov.");
            assert_eq!(message.queries[0].query_type, RecordType::AAAA);
            let opt = message.edns.map(|edns| (edns.max_payload(), edns.flags().dnssec_ok));
            assert_eq!(opt, edns.then_some((UDP_PAYLOAD, true)));
        }
    }

    /// The header of a reply to `query`, and its question.
    fn reply(query: &Query) -> Vec<u8> {
        let mut bytes = query.with_id(7);
        bytes.truncate(HEADER + query.question);
        bytes[2] |= QR;
        bytes[11] = 0;
        bytes
    }

    #[test]
    fn k44_only_the_same_letters_are_an_answer() {
        let plain = Query::new(&question(), true);
        let mut mixed = plain.clone();
        while mixed.bytes == plain.bytes {
            mixed.mix_case();
        }
        assert!(mixed.bytes.eq_ignore_ascii_case(&plain.bytes));
        assert_eq!(mixed.judge(&reply(&mixed)), Match::Answer);
        assert_eq!(mixed.judge(&reply(&plain)), Match::OtherCase);
        let mut restored = reply(&mixed);
        plain.restore_case(&mut restored);
        assert_eq!(restored, reply(&plain));
    }

    #[test]
    fn k44_another_question_is_a_stranger() {
        let query = Query::new(&question(), true);
        let good = reply(&query);
        for (at, value) in [(2, 0), (2, 0x88), (5, 2), (13, b'v'), (good.len() - 3, 1), (good.len() - 1, 3)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(query.judge(&bad), Match::Stranger, "{at}");
        }
        for len in 0..good.len() {
            assert_eq!(query.judge(&good[..len]), Match::Stranger, "{len}");
        }
        let complaint = [0, 7, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(query.judge(&complaint), Match::Bare);
    }

    #[test]
    fn type_and_class_are_no_letters() {
        // AAAA is 0x1c; type 0x3c would differ from it only in the bit that tells large from small letters.
        let query = Query::new(&question(), false);
        let mut other = reply(&query);
        let at = other.len() - 3;
        other[at] ^= 0x20;
        assert_eq!(query.judge(&other), Match::Stranger);
    }
}
