//! Sampan.

pub mod addr;
pub mod lab;
pub mod nat64;
pub mod time;
pub mod xlat;
