//! Conformance, by RFC section, through the workers that ship. Names begin with the number of the requirement;
//! `docs/rfc/` has the rows. Every packet that comes out is read by etherparse, which recomputes all checksums,
//! and both accounting sums are checked after every step (`support::gateway`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "../support/mod.rs"]
mod support;

mod address;
mod bad_input;
mod bindings;
mod events;
mod filtering;
mod fragments;
mod hairpin;
mod icmp_errors;
mod icmp_originated;
mod invariants;
mod limits;
mod offload;
mod ports;
mod reload;
mod ride;
mod rows;
mod security;
mod shared;
mod static_entries;
mod tcp;
mod tcp_states;
mod v4_to_v6;
mod v6_to_v4;
mod witness;

use std::net::{IpAddr, SocketAddr};

use support::{Gateway, Packet, at, ip, settings, udp};

/// A client. With three workers it belongs to the last one, so that whatever goes to the first by default is found.
const CLIENT: &str = "2001:db8:1::2";
/// An IPv4-only server.
const SERVER: &str = "203.0.113.10";

fn client(port: u16) -> SocketAddr {
    at(CLIENT, port)
}

fn server(port: u16) -> SocketAddr {
    at(SERVER, port)
}

/// The server as the client sees it.
fn server6(gateway: &Gateway, port: u16) -> SocketAddr {
    SocketAddr::new(gateway.y(ip(SERVER)), port)
}

/// Any IPv4 host as clients see it.
fn seen6(gateway: &Gateway, host: SocketAddr) -> SocketAddr {
    SocketAddr::new(gateway.y(host.ip()), host.port())
}

/// Opens a UDP mapping by a packet to the server's port 53, and gives the pool's side of it.
fn open_udp(gateway: &mut Gateway, from: SocketAddr) -> SocketAddr {
    let to = server6(gateway, 53);
    gateway.translate(&udp(from, to, b"first")).source()
}

/// The IPv4 form of `packet`, were it sent unchanged but for these addresses and ports, one hop later.
fn forwarded(packet: &Packet, src: SocketAddr, dst: SocketAddr) -> Packet {
    use support::L4;
    let mut out = packet.clone().hops(packet.hops - 1);
    out.src = src.ip();
    out.dst = dst.ip();
    out.extensions = Vec::new();
    out.options = Vec::new();
    out.flow_label = 0;
    match &mut out.l4 {
        L4::Tcp { src: s, dst: d, .. } | L4::Udp { src: s, dst: d, .. } => {
            *s = src.port();
            *d = dst.port();
        }
        L4::Echo { .. } | L4::Icmp { .. } | L4::Other { .. } => panic!("has no ports"),
    }
    out
}

/// Whether an address belongs to the pool of the test settings.
fn is_pool(addr: IpAddr) -> bool {
    support::gateway::is_pool(addr)
}

#[test]
fn the_client_belongs_to_the_last_of_three_workers() {
    let gateway = Gateway::new(settings(), 3);
    assert_eq!(gateway.owner(ip(CLIENT)), 2);
}
