//! What the gateway refuses, and other shapes of the same network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sampan::lab::gateway::GATEWAY;
use sampan::lab::plan::{GW_OUTSIDE, SERVER, TUN};
use sampan::lab::services::PAGE_MARK;
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
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
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

/// What the gateway's own firewall lets in for IPv4 is not open to clients by way of the prefix; an address that it gets
/// later is kept from them as well.
#[test]
fn o05_the_box_itself_is_not_reached_and_new_addresses_of_it_neither() {
    let lab = TestLab::with(|options| options.translator = Translator::Sampan);
    let own: Ipv4Addr = "192.0.2.200".parse().unwrap();
    let ping =
        |addr: Ipv4Addr| lab.try_on("client1", &["ping", "-c1", "-W2", &lab.embed(addr).to_string()]).ok();
    let outside = lab.on("gw", &["ip", "-4", "-o", "addr", "show", "dev", GW_OUTSIDE]);
    let address = outside.split_whitespace().nth(3).and_then(|a| a.split('/').next()).unwrap();
    assert!(!ping(address.parse().unwrap()), "{address} answers");
    assert!(drops(&lab, "own_address") > 0);
    assert!(ping(SERVER), "the server does not answer");
    // One of its other interfaces gets another address; the daemon looks every five seconds.
    lab.on("gw", &["ip", "addr", "add", &format!("{own}/32"), "dev", "lo"]);
    let before = drops(&lab, "own_address");
    let is_kept = |_| {
        std::thread::sleep(Duration::from_millis(500));
        !ping(own) && drops(&lab, "own_address") > before
    };
    assert!((0..40).any(is_kept), "still reached");
}

/// RFC 6888 REQ-6: translation can be switched off for a destination, or for one port of it. The kernel routes, so a
/// more specific route, or a rule, keeps such packets from the TUN.
#[test]
fn h08_destinations_and_ports_can_be_exempted_by_routing() {
    let lab = TestLab::with(|options| options.translator = Translator::Sampan);
    let (exempt, port) = (lab.embed(SERVER), "7080");
    let (to, host) = (exempt.to_string(), format!("{exempt}/128"));
    // Another host of the inside has the address in IPv6 itself.
    lab.on("client2", &["ip", "-6", "addr", "add", &host, "dev", "lo", "nodad"]);
    let addresses = lab.on("client2", &["ip", "-6", "-o", "addr", "show", "scope", "global", "dev", "eth0"]);
    let via = addresses.split_whitespace().nth(3).and_then(|a| a.split('/').next()).unwrap();
    let native = lab.udp("client2", (exempt, 7080));
    native.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let client = lab.udp("client1", (Ipv6Addr::UNSPECIFIED, 0));
    let arrives = || {
        let mut packet = [0; 64];
        client.send_to(b"as IPv6", (exempt, 7080)).unwrap();
        native.recv_from(&mut packet).is_ok_and(|(_, from)| from.is_ipv6())
    };
    let url = format!("http://[{exempt}]/");
    let page = || lab.try_on("client1", &["curl", "-sS", "-m", "3", &url]).ok();
    assert!(!arrives() && page(), "translated as usual");

    let rule = ["to", &to, "ipproto", "udp", "dport", port, "lookup", "100"];
    lab.on("gw", &["ip", "-6", "route", "add", &host, "via", via, "table", "100"]);
    lab.on("gw", &[&["ip", "-6", "rule", "add"], &rule[..]].concat());
    assert!(arrives(), "the port is exempted");
    assert!(page(), "the other ports are not");

    lab.on("gw", &[&["ip", "-6", "rule", "del"], &rule[..]].concat());
    lab.on("gw", &["ip", "-6", "route", "add", &host, "via", via]);
    assert!(arrives() && !page(), "the whole destination is exempted");
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

/// SIGTERM leaves the device and its routes, so that a restart finds them; `stop --flush` takes them away.
#[test]
fn the_device_survives_a_restart_and_goes_with_flush() {
    let mut lab = TestLab::with(|options| options.translator = Translator::Sampan);
    let pid = i32::try_from(lab.service_pid(GATEWAY).unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert!(lab.wait_service(GATEWAY, Duration::from_secs(10)).unwrap(), "SIGTERM does not end it");
    assert!(lab.try_on("gw", &["ip", "link", "show", TUN]).ok(), "the device is gone");
    assert!(routes_to_tun(&lab) >= 2);

    lab.restart_gateway().unwrap();
    let page = lab.on("client1", &["curl", "-sS", "-m", "10", "http://portal.tinh.example/"]);
    assert!(page.contains(PAGE_MARK));
    assert!(routes_to_tun(&lab) >= 2);

    lab.sampan(&["stop", "--flush"]).unwrap().check().unwrap();
    assert!(lab.wait_service(GATEWAY, Duration::from_secs(10)).unwrap(), "stop does not end it");
    assert!(!lab.try_on("gw", &["ip", "link", "show", TUN]).ok(), "the device is still there");
    assert_eq!(routes_to_tun(&lab), 0);
}

/// A crash takes sessions, but not blocks: the journal has them, so every host has the same addresses and ports again.
#[test]
fn h12_after_a_crash_a_host_has_the_same_address_and_port() {
    let mut lab = TestLab::with(|options| options.translator = Translator::Sampan);
    let listener = lab.udp("server", (IpAddr::from(SERVER.octets()), 7012));
    listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let clients: Vec<_> = (0..3).map(|_| lab.udp("client1", (Ipv6Addr::UNSPECIFIED, 0))).collect();
    let server = lab.embed(SERVER);
    let seen = || -> Vec<_> {
        let ask = |client: &std::net::UdpSocket| {
            client.send_to(b"who am I", (server, 7012)).unwrap();
            listener.recv_from(&mut [0; 64]).unwrap().1
        };
        clients.iter().map(ask).collect()
    };
    let before = seen();
    // The row is on the disk within 50 ms; here with time for a busy machine.
    std::thread::sleep(Duration::from_secs(1));
    let pid = i32::try_from(lab.service_pid(GATEWAY).unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(lab.wait_service(GATEWAY, Duration::from_secs(10)).is_ok());
    lab.restart_gateway().unwrap();
    assert_eq!(seen(), before);
}

/// A pool that shrinks cuts no flow: its routes and mappings stay while somebody uses them, and new ones come from the
/// addresses that are left.
#[test]
fn a_reload_that_takes_addresses_away_cuts_no_flow() {
    let lab = TestLab::with(|options| options.translator = Translator::Sampan);
    let listener = lab.udp("server", (IpAddr::from(SERVER.octets()), 7013));
    listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let server = lab.embed(SERVER);
    let client = || {
        let client = lab.udp("client1", (Ipv6Addr::UNSPECIFIED, 0));
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    };
    let there_and_back = |client: &std::net::UdpSocket| {
        client.send_to(b"there", (server, 7013)).unwrap();
        let (_, from) = listener.recv_from(&mut [0; 64]).unwrap();
        listener.send_to(b"and back", from).unwrap();
        client.recv_from(&mut [0; 64]).unwrap();
        from
    };
    let old = client();
    let t = there_and_back(&old);
    let pool: sampan::addr::Prefix4 = lab.plan().pool4.parse().unwrap();
    let halves = [0, pool.size() / 2].map(|offset| {
        let first = std::net::Ipv4Addr::from_bits(pool.addr().to_bits() + offset as u32);
        sampan::addr::Prefix4::new(first, pool.len() + 1).unwrap()
    });
    let left =
        halves.iter().find(|half| !IpAddr::V4(half.addr()).eq(&t.ip()) && !holds(half, t.ip())).unwrap();
    let file = lab.dir().join("sampan.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&lab.plan().pool4, &left.to_string())).unwrap();
    lab.sampan(&["reload"]).unwrap().check().unwrap();
    assert_eq!(there_and_back(&old), t, "the flow goes on");
    let new = there_and_back(&client());
    assert!(holds(left, new.ip()), "{new} is not in {left}");
    let status = lab.sampan(&["status"]).unwrap().check().unwrap();
    assert!(status.contains("routed draining"), "{status}");
}

fn holds(prefix: &sampan::addr::Prefix4, addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(addr) if prefix.contains(addr))
}

fn routes_to_tun(lab: &TestLab) -> usize {
    let v4 = lab.on("gw", &["ip", "-4", "route"]);
    let v6 = lab.on("gw", &["ip", "-6", "route"]);
    v4.lines()
        .chain(v6.lines())
        .filter(|line| line.contains(&format!("dev {TUN}")) && !line.starts_with("fe80"))
        .count()
}
