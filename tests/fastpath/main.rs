//! The fast path's eBPF programs beside the Rust translator, packet by packet and in network namespaces with real
//! sockets. Needs root and a kernel from 6.1 on, and fails without them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "../golden/format.rs"]
mod format;
#[path = "../fuzz/entry/gateway.rs"]
#[allow(dead_code, reason = "shared with the fuzzers")]
mod gateway;
#[path = "../fuzz/entry/judge.rs"]
#[allow(dead_code, reason = "shared with the fuzzers")]
mod judge;
#[path = "../golden/layers.rs"]
mod layers;
#[path = "../fuzz/entry/naive.rs"]
#[allow(dead_code, reason = "shared with the fuzzers")]
mod naive;
#[path = "../golden/run.rs"]
#[allow(dead_code, reason = "shared with the golden packets")]
mod run;
#[path = "../golden/show.rs"]
mod show;
#[path = "../support/mod.rs"]
mod support;

mod differential;
mod kernel;
mod object;
mod rules;
mod shared;
mod sockets;
