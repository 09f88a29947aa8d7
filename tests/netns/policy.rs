//! What the gateway refuses, and other shapes of the same network.

use std::net::{IpAddr, Ipv6Addr};

use sampan::lab::plan::SERVER;
use sampan::lab::{PoolMode, Translator};
use sampan::xlat::pref64::Pref64;
use serde_json::Value;

use crate::support::TestLab;

/// RFC 6052 §3.1: under the well-known prefix, IPv4 that is not global is neither translated nor synthesised. The
/// laboratory's addresses are for documentation, so with defaults nothing goes through, and a counter says why.
#[test]
fn the_well_known_prefix_refuses_documentation_addresses_and_counts_it() {
    let lab = TestLab::with(|options| {
        // The counter is Sampan's; no other translator is asked.
        options.translator = Translator::Sampan;
        options.pref64 = Pref64::well_known();
        options.allow_lab_nets = false;
    });
    let listener = lab.udp("server", (IpAddr::from(SERVER.octets()), 7010));
    listener.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let client = lab.udp("client1", (Ipv6Addr::UNSPECIFIED, 0));

    let before = drops(&lab, "non_global");
    for _ in 0..10 {
        client.send_to(b"refuse me", (lab.embed(SERVER), 7010)).unwrap();
    }
    let mut packet = [0; 64];
    assert!(listener.recv_from(&mut packet).is_err(), "a packet came through");
    assert_eq!(drops(&lab, "non_global") - before, 10);

    let answer = lab.on("client1", &["dig", "+short", "AAAA", "portal.tinh.example"]);
    assert_eq!(answer.trim(), "", "an address was synthesised");
}

/// The same addresses under the network's own prefix, but not allowed by name: refused as well.
#[test]
fn without_the_allow_list_documentation_addresses_are_refused_under_any_prefix() {
    let lab = TestLab::with(|options| {
        options.translator = Translator::Sampan;
        options.allow_lab_nets = false;
    });
    let url = format!("http://[{}]/", lab.embed(SERVER));
    let out = lab.try_on("client1", &["curl", "-sS", "-m", "2", &url]);
    assert!(!out.ok(), "the page came through: {}", out.stdout);
    assert!(drops(&lab, "not_allowed") > 0, "nothing was counted");
}

/// The pool lies in the gateway's outside network and the gateway answers ARP for it.
#[test]
fn an_on_link_pool_is_answered_by_proxy_arp() {
    let lab = TestLab::with(|options| {
        options.translator = Translator::Sampan;
        options.pool_mode = PoolMode::OnLink;
    });
    let seen = lab.on("client1", &["curl", "-sS", "-m", "10", "http://portal.tinh.example/whoami"]);
    assert!(seen.starts_with("192.0.2."), "{seen}");
    let neighbours = lab.on("router", &["ip", "neigh", "show", seen.trim()]);
    assert!(neighbours.contains("lladdr"), "{neighbours}");
}

/// One counter of `sampan drops`.
fn drops(lab: &TestLab, reason: &str) -> u64 {
    let out = lab.sampan(&["drops", "--json", "--all"]).unwrap().check().unwrap();
    let rows: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == reason);
    row.and_then(|row| row["count"].as_u64()).unwrap_or_else(|| panic!("no counter {reason} in {out}"))
}
