//! Layer 5: the operator's side. [`config`] reads the file, [`plan`] checks it, [`diff`] compares two plans,
//! [`admin`] answers the commands, [`health`] decides whether the translator works,
//! [`advertise`] when routers are advertised.

pub mod admin;
pub mod advertise;
pub mod certificates;
pub mod config;
pub mod diff;
pub mod health;
pub mod plan;
pub mod problem;
