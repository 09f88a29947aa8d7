//! Sampan.

pub mod addr;
pub mod dns64;
pub mod io;
pub mod nat64;
pub mod time;
pub mod xlat;
