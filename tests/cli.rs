//! The commands as an operator meets them: the real binary, and a real admin socket with a made-up gateway behind it.

// A test that cannot set up its scene may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cli {
    pub mod check;
    pub mod gateway;
    pub mod usage;
}
