//! The stateless translator with real software: each client has an IPv4 address of its own, and one IPv4 host has an
//! IPv6 address of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sampan::lab::demo::hops_in;
use sampan::lab::plan::{DNS_UPSTREAM, INSIDE6, SERVER};
use sampan::lab::services::{BIG_FILE, PAGE_MARK};
use sampan::lab::{Cable, Options, Plan, Translator};
use sampan::xlat::pref64::Pref64;
use serde_json::Value;

use crate::support::TestLab;

/// The clients' IPv4 addresses, and that of IPv6 routers.
const CLIENT1: &str = "198.51.100.1";
const CLIENT2: &str = "198.51.100.2";
const POOL: &str = "198.51.100.9";
/// The IPv6 address of the server's second IPv4 address.
const SERVER_BY_NAME: &str = "2001:db8:5::53";

fn stateless(change: impl FnOnce(&mut Options)) -> TestLab {
    let mut lab = TestLab::with(|options| {
        options.translator = Translator::Nothing;
        change(options);
    });
    configure(&lab, CLIENT2, lab.options().pref64);
    lab.restart_gateway().unwrap();
    lab
}

/// Writes the gateway's configuration. The second client gets this IPv4 address.
fn configure(lab: &TestLab, client2: &str, prefix: Pref64) {
    let (dir, gateway6) = (lab.dir().display(), lab.plan().gateway6);
    let text = format!(
        "[siit]\nprefix = \"{prefix}\"\nworkers = 2\nicmp6-pool4 = [\"{POOL}\"]\n\
         [[siit.eam]]\nipv4 = \"{CLIENT1}\"\nipv6 = \"{}\"\n\
         [[siit.eam]]\nipv4 = \"{client2}\"\nipv6 = \"{}\"\n\
         [[siit.eam]]\nipv4 = \"{DNS_UPSTREAM}\"\nipv6 = \"{SERVER_BY_NAME}\"\nhome = \"ipv4\"\n\
         [[siit.allow]]\nprefix = \"203.0.113.0/24\"\n[[siit.allow]]\nprefix = \"192.0.2.0/24\"\n\
         [dns64]\nlisten = [\"[{gateway6}]:53\"]\nupstream = [\"{DNS_UPSTREAM}:53\"]\nallow = [\"{INSIDE6}\"]\n\
         [admin]\nsocket = \"{dir}/admin.sock\"\n",
        Plan::client6(1),
        Plan::client6(2),
    );
    fs::write(lab.dir().join("sampan.toml"), text).unwrap();
}

#[test]
fn i03_b14_tcp_and_ping_between_mapped_nodes_both_ways() {
    let mut lab = stateless(|_| {});
    // The server sees each client's own address.
    for (client, address) in [("client1", CLIENT1), ("client2", CLIENT2)] {
        let seen = lab.on(client, &["curl", "-sS", "-m", "10", "http://portal.tinh.example/whoami"]);
        assert_eq!(seen.trim(), address);
    }
    // The host with an IPv6 address of its own answers from it.
    let page = lab.on("client1", &["curl", "-sS", "-m", "10", &format!("http://[{SERVER_BY_NAME}]/")]);
    assert!(page.contains(PAGE_MARK) && page.contains(CLIENT1), "{page}");
    let copy = lab.dir().join("copy.bin").display().to_string();
    lab.on("client2", &["curl", "-sS", "-m", "20", "-o", &copy, "http://portal.tinh.example/big.bin"]);
    let original = fs::read(lab.dir().join("web/files/big.bin")).unwrap();
    assert!(original.len() == BIG_FILE && original == fs::read(copy).unwrap(), "the copy differs");

    // The other way: IPv4 calls the client.
    lab.start("client1", "iperf3-client", &["iperf3", "-s", "-p", "5301"]);
    for reverse in [false, true] {
        let mut argv = vec!["iperf3", "-J", "-c", CLIENT1, "-p", "5301", "-t", "1"];
        argv.extend(reverse.then_some("-R"));
        // The service may still be starting.
        let began = Instant::now();
        let report = loop {
            let out = lab.try_on("server", &argv);
            if out.ok() || began.elapsed() > Duration::from_secs(5) {
                break out.check().unwrap();
            }
        };
        let report: Value = serde_json::from_str(&report).unwrap();
        let bytes = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
        assert!(bytes > 2_000_000, "reverse {reverse}: {bytes} bytes in 1 s");
    }

    for (host, target) in [
        ("client1", "portal.tinh.example"),
        ("client1", SERVER_BY_NAME),
        ("server", CLIENT1),
        ("server", CLIENT2),
    ] {
        for size in ["56", "1400"] {
            let out = lab.on(host, &["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", "-s", size, target]);
            assert!(out.contains("3 packets transmitted, 3 received, 0% packet loss"), "{out}");
            assert!(!out.contains("DUP!") && !out.contains("wrong data byte"), "{out}");
        }
    }
    assert_eq!(lab.checksum_errors(&["client1", "client2", "router", "server"]), Vec::<String>::new());
    let status: Value =
        serde_json::from_str(&lab.sampan(&["status", "--json"]).unwrap().check().unwrap()).unwrap();
    assert_eq!((&status["siit"]["mappings"], &status["health"]["state"]), (&3.into(), &"ok".into()));
}

#[test]
fn e07_e08_c14_udp_fragments_pass_and_icmp_fragments_do_not() {
    let lab = stateless(|_| {});
    let server = lab.udp("server", (IpAddr::from(SERVER.octets()), 7020));
    let client = lab.udp("client1", (IpAddr::V6(Plan::client6(1)), 7021));
    for len in [4000, 9000] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        client.send_to(&data, (lab.embed(SERVER), 7020)).unwrap();
        let from = receive(&server, &data);
        assert_eq!(from.to_string(), format!("{CLIENT1}:7021"));
        // Without DF the pieces of IPv4 are cut again for the smallest IPv6 MTU.
        no_path_mtu_discovery(&lab, "server");
        server.send_to(&data, from).unwrap();
        assert_eq!(receive(&client, &data), (lab.embed(SERVER), 7020).into());
    }
    for (host, target) in [("client1", "portal.tinh.example"), ("server", CLIENT1)] {
        let before = drops(&lab, "fragment");
        let out = lab.try_on(host, &["ping", "-n", "-c", "1", "-W", "1", "-s", "4000", target]);
        assert!(out.stdout.contains("0 received"), "{}", out.stdout);
        assert!(drops(&lab, "fragment") >= before + 3, "the pieces were not counted");
    }
}

/// RFC 6052 §2.2: each of the six lengths carries TCP, echoes and fragments of UDP.
#[test]
fn a01_a02_all_six_prefix_lengths_carry_stateless_traffic() {
    let mut lab = stateless(|_| {});
    no_path_mtu_discovery(&lab, "server");
    let server = lab.udp("server", (IpAddr::from(SERVER.octets()), 7022));
    let client = lab.udp("client1", (IpAddr::V6(Plan::client6(1)), 7023));
    let data: Vec<u8> = (0..4000).map(|i| i as u8).collect();
    for len in [32, 40, 48, 56, 64, 96] {
        let prefix: Pref64 = format!("3fff:{len}::/{len}").parse().unwrap();
        configure(&lab, CLIENT2, prefix);
        lab.sampan(&["stop"]).unwrap().check().unwrap();
        assert!(lab.wait_service("gateway", Duration::from_secs(5)).unwrap());
        lab.restart_gateway().unwrap();
        let target = prefix.embed(SERVER);
        let url = format!("http://[{target}]/whoami");
        assert_eq!(lab.on("client1", &["curl", "-sS", "-m", "5", &url]).trim(), CLIENT1, "{prefix}");
        lab.download("client2", target).flows(BIG_FILE, prefix);
        let target_text = target.to_string();
        let out = lab.on("client1", &["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", &target_text]);
        assert!(out.contains(" 0% packet loss"), "{prefix}: {out}");
        client.send_to(&data, (target, 7022)).unwrap();
        let from = receive(&server, &data);
        server.send_to(&data, from).unwrap();
        assert_eq!(receive(&client, &data), (target, 7022).into(), "{prefix}");
    }
}

#[test]
fn b27_b29_traceroute_shows_real_hops_one_way_and_the_pool_the_other() {
    let lab = stateless(|options| (options.inside_routers, options.outside_routers) = (2, 2));
    for how in ["-U", "-I"] {
        let out = lab.on("client1", &["traceroute", "-6", "-n", how, "-w", "2", "portal.tinh.example"]);
        let expected = sampan::lab::demo::hops(lab.plan(), lab.options().pref64);
        assert_eq!(hops_in(&out), expected, "{how}\n{out}");
    }
    // Routers of the IPv6 network have no IPv4 address. With -e their IPv6 address is shown too (class 2 object).
    let out = lab.on("server", &["traceroute", "-4", "-n", "-e", "-w", "2", CLIENT1]);
    let hops = hops_in(&out);
    assert_eq!(hops.len(), 6, "{out}");
    assert_eq!(hops[3..], [POOL, POOL, CLIENT1], "{out}");
    let objects: Vec<&str> =
        out.lines().filter(|line| line.contains("<2/4:") || line.contains("INC:")).collect();
    assert_eq!(objects.len(), 2, "{out}");
}

/// A link of the IPv6 network is narrower than the others: its router's "packet too big" reaches the IPv4 server from
/// the pool, and the download goes on.
#[test]
fn b27_d33_g20_path_mtu_discovery_from_ipv4_over_a_narrow_ipv6_link() {
    let lab = stateless(|options| {
        options.inside_routers = 2;
        options.mtus = vec![(Cable::Inside(1), 1300)];
    });
    lab.download("client1", lab.embed(SERVER)).flows(BIG_FILE, "download");
    let route = lab.on("server", &["ip", "route", "get", CLIENT1]);
    assert!(route.contains("mtu 1280"), "the server has not learnt the path MTU: {route}");
}

#[test]
fn i08_i10_two_clients_speak_by_their_ipv4_addresses() {
    let lab = stateless(|_| {});
    let first = lab.udp("client1", (IpAddr::V6(Plan::client6(1)), 7030));
    let second = lab.udp("client2", (IpAddr::V6(Plan::client6(2)), 7031));
    let (one, two): (Ipv4Addr, Ipv4Addr) = (CLIENT1.parse().unwrap(), CLIENT2.parse().unwrap());
    for len in [5, 3000] {
        let data = vec![7; len];
        first.send_to(&data, (lab.embed(two), 7031)).unwrap();
        let from = receive(&second, &data);
        assert_eq!(from, (lab.embed(one), 7030).into());
        second.send_to(&data, from).unwrap();
        assert_eq!(receive(&first, &data), (lab.embed(two), 7031).into());
    }
    let out = lab.on("client1", &["ping", "-n", "-c", "2", "-i", "0.1", &lab.embed(two).to_string()]);
    assert!(out.contains("2 received"), "{out}");
}

#[test]
fn c15_udp_without_checksum_is_dropped_and_logged_with_addresses_and_ports() {
    let lab = stateless(|_| {});
    let client = lab.udp("client1", (IpAddr::V6(Plan::client6(1)), 7040));
    // Level 1 is SOL_SOCKET, option 11 SO_NO_CHECK.
    let target = format!("UDP4:{CLIENT1}:7040,setsockopt=1:11:i1,sourceport=7041");
    lab.on("server", &["ethtool", "-K", "eth0", "tx", "off"]);
    let out = lab.try_on("server", &["sh", "-c", &format!("echo unsummed | socat - {target}")]);
    // ICMP 3/13, as the sender's kernel tells it.
    assert!(out.stderr.contains("No route to host"), "{}", out.stderr);
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(client.recv_from(&mut [0; 64]).is_err(), "it came through");
    assert_eq!(drops(&lab, "udp_no_checksum"), 1);
    let log = fs::read_to_string(lab.dir().join("gateway.log")).unwrap();
    let line =
        log.lines().find(|line| line.contains("without a checksum")).unwrap_or_else(|| panic!("{log}"));
    for word in [&SERVER.to_string(), "7041", CLIENT1, "7040"] {
        assert!(line.contains(word), "{line}");
    }
}

#[test]
fn a_reload_takes_over_the_table_and_its_routes_without_a_break() {
    let lab = stateless(|_| {});
    configure(&lab, "198.51.100.7", lab.options().pref64);
    let out = lab.sampan(&["reload"]).unwrap().check().unwrap();
    assert!(out.contains("siit.eam"), "{out}");
    let seen = lab.on("client2", &["curl", "-sS", "-m", "10", "http://portal.tinh.example/whoami"]);
    assert_eq!(seen.trim(), "198.51.100.7");
    let routes = lab.on("gw", &["ip", "route", "show", "dev", "nat64"]);
    let mut routes: Vec<&str> = routes.lines().filter_map(|line| line.split_whitespace().next()).collect();
    routes.sort_unstable();
    assert_eq!(routes, [CLIENT1, "198.51.100.7", POOL]);
    let out = lab.try_on("server", &["ping", "-n", "-c", "1", "-W", "1", CLIENT2]);
    assert!(!out.ok(), "the old address still answers: {}", out.stdout);
    let routes6 = lab.on("gw", &["ip", "-6", "route", "show", "dev", "nat64"]);
    assert!(routes6.contains(SERVER_BY_NAME) && routes6.contains("2001:db8:64::/96"), "{routes6}");
    // An address that no node has is refused, and its sender is told.
    let out = lab.try_on("server", &["ping", "-n", "-c", "1", "-W", "1", POOL]);
    assert!(out.stdout.contains("Packet filtered"), "{}", out.stdout);
}

#[track_caller]
fn receive(socket: &UdpSocket, want: &[u8]) -> SocketAddr {
    let mut packet = vec![0; 10_000];
    let (len, from) =
        socket.recv_from(&mut packet).unwrap_or_else(|error| panic!("{} bytes: {error}", want.len()));
    assert!(packet[..len] == *want, "{} bytes arrived changed", want.len());
    from
}

/// Large datagrams leave without DF.
fn no_path_mtu_discovery(lab: &TestLab, host: &str) {
    lab.on(host, &["sysctl", "-q", "-w", "net.ipv4.ip_no_pmtu_disc=1"]);
}

fn drops(lab: &TestLab, name: &str) -> u64 {
    let out = lab.sampan(&["drops", "--json"]).unwrap().check().unwrap();
    let rows: Value = serde_json::from_str(&out).unwrap();
    let rows = rows.as_array().or_else(|| rows["drops"].as_array()).unwrap_or_else(|| panic!("{out}"));
    // Counters at zero are left out.
    rows.iter().find(|row| row["name"] == name).map_or(0, |row| row["count"].as_u64().unwrap())
}
