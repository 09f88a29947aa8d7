//! Sampan.

pub mod addr;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod io;
pub mod nat64;
pub mod text;
pub mod time;
pub mod xlat;
