//! A slow, obvious model of RFC 6146 §3.1–§3.5.1 for UDP beside the real tables: whatever clients, strangers and
//! time do, both agree on what passes and on what exists.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use sampan::nat64::settings::Filter;
use sampan::time::Instant;

use crate::support::{Gateway, at, settings, udp};

#[derive(Clone, Debug)]
enum Event {
    /// A client's packet: client, port, server, server port.
    Up(u8, u8, u8, u8),
    /// A packet of a server to the mapping of a client.
    Down(u8, u8, u8, u8),
    /// Seconds.
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let flow = || (0u8..3, 0u8..3, 0u8..3, 0u8..2);
    prop_oneof![
        3 => flow().prop_map(|(a, b, c, d)| Event::Up(a, b, c, d)),
        3 => flow().prop_map(|(a, b, c, d)| Event::Down(a, b, c, d)),
        1 => (0u16..200).prop_map(Event::Wait),
    ]
}

#[derive(Default)]
struct Binding {
    t: Option<SocketAddr>,
    /// End of life of each session, by peer.
    sessions: HashMap<SocketAddr, Instant>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn f04_f06_f10_f15_f18_f19_f20_udp_bindings_and_sessions(
        events in vec(event(), 1..80), by_address: bool, workers in 1u16..4,
    ) {
        let mut settings = settings();
        if by_address {
            settings.filtering.udp = Filter::AddressDependent;
        }
        let mut gateway = Gateway::new(settings, workers);
        let mut model: HashMap<SocketAddr, Binding> = HashMap::new();
        let lifetime = Duration::from_secs(300);
        for event in events {
            let now = gateway.now;
            for binding in model.values_mut() {
                binding.sessions.retain(|_, end| *end > now);
            }
            model.retain(|_, b| !b.sessions.is_empty());
            match event {
                Event::Wait(seconds) => gateway.advance(Duration::from_secs(seconds.into())),
                Event::Up(c, p, s, q) => {
                    let from = at(format!("2001:db8:1::{:x}", c + 1), 2000 + u16::from(p));
                    let server = at(format!("203.0.113.{}", s + 1), 53 + u16::from(q));
                    let seen = SocketAddr::new(gateway.y(server.ip()), server.port());
                    let out = gateway.translate(&udp(from, seen, b"up"));
                    let binding = model.entry(from).or_default();
                    prop_assert_eq!(out.destination(), server);
                    prop_assert_eq!(*binding.t.get_or_insert(out.source()), out.source(), "one mapping");
                    binding.sessions.insert(server, now + lifetime);
                }
                Event::Down(c, p, s, q) => {
                    let client = at(format!("2001:db8:1::{:x}", c + 1), 2000 + u16::from(p));
                    let server = at(format!("203.0.113.{}", s + 1), 53 + u16::from(q));
                    let Some(binding) = model.get_mut(&client) else { continue };
                    let Some(t) = binding.t else { continue };
                    let packet = udp(server, t, b"down");
                    if by_address && !binding.sessions.keys().any(|peer| peer.ip() == server.ip()) {
                        gateway.refuse(&packet, "filtered");
                        continue;
                    }
                    let out = gateway.translate(&packet);
                    prop_assert_eq!(out.destination(), client);
                    binding.sessions.insert(server, now + lifetime);
                }
            }
            let now = gateway.now;
            let alive = |b: &Binding| b.sessions.values().filter(|end| **end > now).count();
            let sessions: usize = model.values().map(alive).sum();
            let bindings = model.values().filter(|b| alive(b) > 0).count();
            prop_assert_eq!(gateway.sessions()[1] as usize, sessions);
            prop_assert_eq!(gateway.bindings() as usize, bindings);
        }
    }
}
