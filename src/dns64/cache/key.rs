//! A query read just far enough to find its reply: no allocation, and stricter than the slow path.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::dns64::query::{self, Transport};
use crate::dns64::settings::Scope;
use crate::dns64::wire::{self, HEADER, Header};

/// Longest question: a name of 255 bytes, type, class.
const LONGEST: usize = 255 + 4;
/// ANY has other answers over UDP than over a stream.
const TYPE_ANY: [u8; 2] = [0, 255];

/// Bits of a query that make it another question: its reply has other records or another OPT.
const WITH_EDNS: u8 = 1;
/// DO is set.
pub(super) const WITH_DO: u8 = 2;
const WITH_CD: u8 = 4;
const WITH_AD: u8 = 8;

/// A well-formed query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) header: Header,
    /// Name, type and class as they came.
    pub(super) question: &'a [u8],
    pub(super) bits: u8,
    /// The longest reply that the client takes.
    pub(super) limit: usize,
}

impl<'a> Key<'a> {
    /// Reads a query. `None`: the cache has nothing to do with it, the slow path shall judge.
    pub(super) fn read(query: &'a [u8], transport: Transport) -> Option<Self> {
        let header = Header::read(query)?;
        let [questions, answers, authorities, additionals] = header.counts;
        if header.flags & wire::QR != 0
            || header.opcode() != 0
            || (questions, answers, authorities) != (1, 0, 0)
        {
            return None;
        }
        let end = wire::question_end(query)?;
        let question = query.get(HEADER..end)?;
        let rest = query.get(end..)?;
        let payload = match additionals {
            0 if rest.is_empty() => None,
            1 => Some(opt(rest)?),
            _ => return None,
        };
        if question.get(question.len() - 4..question.len() - 2) == Some(&TYPE_ANY) {
            return None;
        }
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let bits = bit(payload.is_some(), WITH_EDNS)
            | bit(payload.is_some_and(|(_, dnssec_ok)| dnssec_ok), WITH_DO)
            | bit(header.flags & wire::CD != 0, WITH_CD)
            | bit(header.flags & wire::AD != 0, WITH_AD);
        let limit = query::limit(transport, payload.map(|(payload, _)| payload));
        Some(Self { header, question, bits, limit })
    }

    /// The same number for queries that may have the same reply. Never 0.
    pub(super) fn hash(&self, state: &FixedState, scope: Scope) -> u64 {
        let mut lower = [0; LONGEST + 7];
        let (question, rest) = lower.split_at_mut(self.question.len().min(LONGEST));
        question.copy_from_slice(self.question.get(..question.len()).unwrap_or_default());
        // Type and class are no letters, but folding them alike harms nothing here: equality is checked exactly.
        question.make_ascii_lowercase();
        let [v0, v1] = scope.view.to_le_bytes();
        let [g0, g1, g2, g3] = scope.generation.to_le_bytes();
        for (to, from) in rest.iter_mut().zip([self.bits, v0, v1, g0, g1, g2, g3]) {
            *to = from;
        }
        let len = self.question.len().min(LONGEST) + 7;
        state.hash_one(lower.get(..len).unwrap_or_default()).max(1)
    }

    /// Whether another question is the same one but for the case of its letters.
    pub(super) fn is_same_question(&self, other: &[u8]) -> bool {
        let split = self.question.len().saturating_sub(4);
        other.len() == self.question.len()
            && self.question.get(split..) == other.get(split..)
            && match (self.question.get(..split), other.get(..split)) {
                (Some(name), Some(other)) => name.eq_ignore_ascii_case(other),
                _ => false,
            }
    }
}

/// Payload size and DO of the OPT record that is the whole rest of a query. Other versions, and options that do not
/// hold together, are for the slow path.
fn opt(rest: &[u8]) -> Option<(u16, bool)> {
    let ([0, 0, 41, p0, p1, _, 0, f0, _, l0, l1], mut options) = rest.split_first_chunk::<11>()? else {
        return None;
    };
    if options.len() != usize::from(u16::from_be_bytes([*l0, *l1])) {
        return None;
    }
    while !options.is_empty() {
        let ([_, _, l0, l1], behind) = options.split_first_chunk::<4>()?;
        options = behind.get(usize::from(u16::from_be_bytes([*l0, *l1]))..)?;
    }
    Some((u16::from_be_bytes([*p0, *p1]), f0 & 0x80 != 0))
}
