//! What a fast path repeats: rules of established flows, told by the engine, and what it has seen of them.
//!
//! The engine decides and stays the only truth. A fast path only ever does again, for packets of one 5-tuple, what the
//! engine has done for an earlier one; everything that could change a decision comes up to the engine.

use super::settings::Protocol;
use super::witness::FlowWitness;
use crate::time::Instant;
use crate::xlat::{Delta, FlowPair};

/// How packets of one flow are rewritten, in both directions. Only TCP and UDP have rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The flow in both families.
    pub flow: FlowPair,
    /// Checksum difference from IPv6 to IPv4; the way back is its reverse.
    pub delta: Delta,
    /// Which decisions it depends on. A rule whose generation is not its scope's any more is not followed.
    pub scope: Scope,
}

/// Decisions that rules depend on together: one unit, pool and prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Which; an index into the table of generations.
    pub number: u16,
    /// Generation under which the rule was made.
    pub generation: u16,
}

/// Packets and bytes of one direction, as IP lengths before translation; a super-packet counts its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a fast path knows of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When the client last sent by the rule; [`Instant::ZERO`] when never.
    pub last6: Instant,
    /// When the peer last sent by the rule; [`Instant::ZERO`] when never.
    pub last4: Instant,
    /// What the client has sent by the rule.
    pub from6: Traffic,
    /// What the peer has sent by the rule.
    pub from4: Traffic,
    /// What the segments told. Empty for UDP.
    pub witness: FlowWitness,
}

/// A fast path, as one worker sees it. Nothing of it may block or allocate.
pub trait Mirror {
    /// Begins to follow `rule`; the witness goes on from `witness`. `None` when there is no room: the flow then stays
    /// with the engine. The rule holds for packets that come after the return. `tag` is what the flow is to the engine.
    fn install(&mut self, now: Instant, rule: &Rule, witness: &FlowWitness, tag: u32) -> Option<u32>;

    /// From now on the flow of rule `handle` is `tag` to this engine, whoever had it before.
    fn adopt(&mut self, handle: u32, tag: u32);

    /// The tag of a TCP connection that has ended by the rule, with a RST or the second FIN: its witness has the flags.
    /// Each is told once, soon; the rule goes on until it is removed. A tag may be told in vain.
    fn ended(&mut self) -> Option<u32>;

    /// What has been seen of the flow of rule `handle` so far.
    fn seen(&self, handle: u32) -> Option<Seen>;

    /// Replaces the witness of rule `handle`: the engine has judged a segment of the flow that came up.
    fn correct(&mut self, handle: u32, witness: &FlowWitness);

    /// Ends rule `handle`, and gives what was seen of it until the end. The handle may be given out again.
    fn remove(&mut self, now: Instant, handle: u32) -> Option<Seen>;
}
