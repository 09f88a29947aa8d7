//! Properties that hold for every packet, with etherparse as the independent judge. Sizes are for every push; the
//! campaign `packets` does the same at full size.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "../support/mod.rs"]
mod support;

mod model;
mod rewrite;
mod setup;
mod storm;
mod versus;
mod walk;
