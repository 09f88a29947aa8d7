//! Layer 3: the RFC 6146 engine.

pub mod settings;
