//! Layer 3: the stateful NAT64 engine of RFC 6146.
//!
//! [`engine::Engine`] is what one worker runs. A packet's way follows the RFC: its tuple and owner ([`steer`]),
//! filtering and updating of bindings and sessions (`outbound`, `inbound`, [`tcp`], [`bib`], [`session`]),
//! translation (`xlat`), hairpinning (back into `inbound`). Time and randomness are arguments; there is no
//! clock, socket or thread in here.

pub mod bib;
pub mod engine;
mod errors;
pub mod held;
pub mod ident;
mod inbound;
pub mod index;
pub mod lease;
mod life;
pub(crate) mod limit;
mod outbound;
mod permission;
pub mod pool4;
pub mod reassembly;
mod rows;
pub mod session;
pub mod settings;
pub mod slab;
mod static_bib;
pub mod steer;
pub mod subscriber;
pub mod tcp;
pub mod wheel;
pub mod witness;
