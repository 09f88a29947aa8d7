//! Layer 3: the stateful NAT64 engine of RFC 6146.
//!
//! [`engine::Engine`] is what one worker runs. A packet's way follows the RFC: its tuple and owner ([`steer`]),
//! filtering and updating of bindings and sessions (`outbound`, `inbound`, [`tcp`], [`bib`], [`session`]),
//! translation (`xlat`), hairpinning (back into `inbound`). Time and randomness are arguments; there is no
//! clock, socket or thread in here.

mod admit;
pub mod adopt;
pub mod bib;
mod binding;
mod canned;
pub mod engine;
mod errors;
pub mod event;
mod evict;
pub mod held;
pub mod ident;
mod inbound;
pub mod index;
pub mod journal;
pub mod lease;
mod life;
pub(crate) mod limit;
pub mod mirror;
mod outbound;
mod permission;
pub mod permute;
pub mod policy;
pub mod pool4;
pub mod quota;
pub mod reassembly;
pub mod ride;
mod rows;
pub mod scope;
pub mod session;
pub mod settings;
mod shared;
pub mod slab;
mod static_bib;
pub mod steer;
pub mod subscriber;
pub mod tcp;
mod unanswered;
mod units;
pub mod wheel;
pub mod witness;
