//! Entry functions of the fuzzers. The fuzz targets and the replay on stable (`tests/fuzz_replay.rs`) include this
//! module; every function takes any bytes, and panics when something that must hold does not.
#![allow(dead_code, reason = "each target uses its own part")]
#![allow(clippy::unwrap_used, reason = "a harness that fails must fail")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else there is must fail")]

pub mod box_judge;
pub mod build;
pub mod bytes;
pub mod dns64;
pub mod fragments;
pub mod gateway;
pub mod icmp_quote;
pub mod journal;
pub mod judge;
pub mod judge_error;
pub mod judge_piece;
pub mod naive;
pub mod stateless;
pub mod whole_box;
pub mod wire_parse;
pub mod xlat;

type Entry = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Entry); 10] = [
    ("wire_parse", wire_parse::wire_parse),
    ("xlat_6to4", xlat::xlat_6to4),
    ("xlat_4to6", xlat::xlat_4to6),
    ("icmp_quote", icmp_quote::icmp_quote),
    ("fragments", fragments::fragments),
    ("journal", journal::journal),
    ("stateless", stateless::stateless),
    ("whole_box", whole_box::whole_box),
    ("dns64_query", dns64::dns64_query),
    ("dns64_upstream", dns64::dns64_upstream),
];
