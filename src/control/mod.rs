//! Layer 5: the operator's side. [`config`] reads the file, [`plan`] checks it, [`diff`] compares two plans,
//! [`admin`] answers the commands.

pub mod admin;
pub mod certificates;
pub mod config;
pub mod diff;
pub mod plan;
pub mod problem;
