//! Sampan.

pub mod addr;
pub mod daemon;
pub mod io;
pub mod nat64;
pub mod time;
pub mod verdict;
pub mod wire;
pub mod xlat;
