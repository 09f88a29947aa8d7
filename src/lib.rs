//! Sampan.

pub mod addr;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod dns64;
pub mod io;
pub mod lab;
pub mod nat64;
pub mod siit;
pub mod text;
pub mod time;
pub mod verdict;
pub mod wire;
pub mod xlat;
