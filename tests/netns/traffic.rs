//! Real software moves data through the gateway.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sampan::lab::blast::gso::Account;
use sampan::lab::plan::{GW_INSIDE, GW_OUTSIDE, SERVER};
use sampan::lab::services::{BIG_FILE, PAGE_MARK};
use sampan::lab::{Plan, Translator};
use sampan::xlat::pref64::Pref64;
use serde_json::Value;

use crate::support::{TestLab, extract, v4};

#[test]
fn curl_fetches_a_page_and_a_large_file_by_name() {
    let lab = TestLab::up();
    let page = lab.on("client1", &["curl", "-sS", "-m", "10", "http://portal.tinh.example/"]);
    assert!(page.contains(PAGE_MARK), "{page}");

    let seen = lab.on("client1", &["curl", "-sS", "-m", "10", "http://portal.tinh.example/whoami"]);
    assert!(pool_holds(&lab, &seen), "the server saw {seen}, which is not in {}", lab.plan().pool4);

    let copy = lab.dir().join("copy.bin").display().to_string();
    lab.on("client2", &["curl", "-sS", "-m", "20", "-o", &copy, "http://portal.tinh.example/big.bin"]);
    let (original, copied) =
        (std::fs::read(lab.dir().join("web/files/big.bin")).unwrap(), std::fs::read(copy).unwrap());
    assert_eq!(original.len(), BIG_FILE);
    assert!(original == copied, "the copy differs from the original");
}

#[test]
fn ping_small_and_large() {
    let lab = TestLab::up();
    // 4000 and 20000 bytes come and go as fragments, which the gateway puts together and cuts again.
    for size in ["56", "1400", "4000", "20000"] {
        let out = lab.on(
            "client1",
            &["ping", "-n", "-c", "5", "-i", "0.1", "-W", "2", "-s", size, "portal.tinh.example"],
        );
        assert!(out.contains("5 packets transmitted, 5 received, 0% packet loss"), "{out}");
        assert!(!out.contains("DUP!") && !out.contains("wrong data byte"), "{out}");
    }
}

/// The IPv4 side pings through a mapping that the client has made (RFC 6146 §3.5.3, endpoint-independent): large echoes
/// are put together and cut on their way in, and their replies on their way out.
#[test]
fn e01_ping_large_from_ipv4() {
    let lab = TestLab::with(|options| options.translator = Translator::Sampan);
    let out = lab.on("client1", &["ping", "-n", "-c", "1", "-e", "7070", "portal.tinh.example"]);
    assert!(out.contains(" 0% packet loss"), "{out}");
    let bib = lab.sampan(&["bib", "--json", "--protocol", "icmp"]).unwrap().check().unwrap();
    let bib: Value = serde_json::from_str(&bib).unwrap();
    let row = &bib["rows"][0];
    let (pool, id) = (row["src4"].as_str().unwrap(), row["src4_port"].to_string());
    for size in ["56", "1400", "4000", "20000"] {
        let argv = ["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", "-e", &id, "-s", size, pool];
        let out = lab.on("server", &argv);
        assert!(out.contains("3 packets transmitted, 3 received, 0% packet loss"), "{out}");
        assert!(!out.contains("DUP!") && !out.contains("wrong data byte"), "{out}");
    }
    // It was the client that answered, and what it got were pieces.
    let counters = lab.counters("client1");
    assert!(counters["Icmp6InEchos"] >= 12 && counters["Ip6ReasmOKs"] >= 6, "{counters:?}");
}

/// RFC 6052 §2.2: each of the six lengths carries TCP, and pings of several fragments.
#[test]
fn a01_a02_all_six_prefix_lengths_carry_traffic() {
    let mut lab = TestLab::with(|options| options.translator = Translator::Sampan);
    let prefixes = [32, 40, 48, 56, 64, 96].map(|len| format!("3fff:{len}::/{len}"));
    let file = lab.dir().join("sampan.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let one = format!("pool6 = [\"{}\"]", lab.options().pref64);
    let more = format!("pool6 = [\"{}\", \"{}\"]", lab.options().pref64, prefixes.join("\", \""));
    assert!(text.contains(&one), "{text}");
    std::fs::write(file, text.replace(&one, &more)).unwrap();
    lab.sampan(&["stop"]).unwrap().check().unwrap();
    assert!(lab.wait_service("gateway", std::time::Duration::from_secs(5)).unwrap());
    lab.restart_gateway().unwrap();
    for prefix in prefixes {
        let server = prefix.parse::<Pref64>().unwrap().embed(SERVER);
        let url = format!("http://[{server}]/");
        let page = lab.on("client1", &["curl", "-sS", "-m", "5", &url]);
        assert!(page.contains(PAGE_MARK), "{prefix}: {page}");
        lab.download("client2", server).flows(BIG_FILE, &prefix);
        let out = lab.on(
            "client1",
            &["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", "-s", "4000", &server.to_string()],
        );
        assert!(out.contains(" 0% packet loss"), "{prefix}: {out}");
    }
}

/// D-68: what is sent to the gateway itself is answered by its own kernel.
#[test]
fn d68_the_gateways_own_addresses_answer() {
    let lab = TestLab::up();
    let inside = lab
        .on("client1", &["ping", "-n", "-c", "2", "-i", "0.1", "-W", "2", &lab.plan().gateway6.to_string()]);
    assert!(inside.contains(" 0% packet loss"), "{inside}");
    let outside = lab.on("server", &["ping", "-n", "-c", "2", "-i", "0.1", "-W", "2", "192.0.2.1"]);
    assert!(outside.contains(" 0% packet loss"), "{outside}");
}

/// Datagrams of 9,000 bytes each way: fragments on both sides.
#[test]
fn e01_udp_datagrams_larger_than_any_link_both_ways() {
    let lab = TestLab::up();
    for reverse in [false, true] {
        let report = iperf(&lab, &["-u", "-l", "9000", "-b", "10M", "-t", "1"], reverse);
        let sum = &report["end"]["sum"];
        let (lost, packets) = (sum["lost_packets"].as_u64(), sum["packets"].as_u64());
        assert!(lost == Some(0) && packets > Some(50), "reverse {reverse}: lost {lost:?} of {packets:?}");
    }
}

#[test]
fn iperf3_tcp_one_and_four_streams_both_ways() {
    let lab = TestLab::up();
    for (streams, reverse) in [("1", false), ("1", true), ("4", false), ("4", true)] {
        let report = iperf(&lab, &["-t", "1", "-P", streams], reverse);
        let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
        // Far below what any working path does here, far above what one that stalls does.
        assert!(received > 2_000_000, "{streams} streams, reverse {reverse}: {received} bytes in 1 s");
        let flows = report["end"]["streams"].as_array().map_or(0, Vec::len);
        assert_eq!(flows.to_string(), streams);
    }
}

#[test]
fn iperf3_udp_both_ways_without_loss() {
    let lab = TestLab::up();
    for reverse in [false, true] {
        let report = iperf(&lab, &["-u", "-b", "20M", "-l", "1200", "-t", "1", "-w", "1M"], reverse);
        let sum = &report["end"]["sum"];
        let (packets, lost) = (sum["packets"].as_u64().unwrap_or(0), sum["lost_packets"].as_u64());
        assert!(packets > 1500, "reverse {reverse}: only {packets} packets\n{sum}");
        let lost = lost.unwrap_or_else(|| panic!("no loss figure: {sum}"));
        assert!(lost * 200 <= packets, "reverse {reverse}: {lost} of {packets} packets lost");
    }
}

#[test]
fn udp_super_packets_arrive_whole_both_ways() {
    let mut lab = TestLab::up();
    start_gso_server(&mut lab);
    for reverse in [false, true] {
        assert_all_arrived(gso(&lab, reverse), reverse);
    }
}

/// With the offloads of the gateway's own devices off, the kernel cuts and sums super-packets in software, after the
/// translation: a wrong header or partial checksum then shows at the receiver.
#[test]
fn software_segmentation_after_translation_gives_no_checksum_error() {
    let mut lab = TestLab::up();
    for device in [GW_INSIDE, GW_OUTSIDE] {
        lab.on(
            "gw",
            &["ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off", "tx-udp-segmentation", "off"],
        );
        let features = lab.on("gw", &["ethtool", "-k", device]);
        for feature in ["tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload"] {
            assert!(features.contains(&format!("{feature}: off")), "{device}: {features}");
        }
    }
    start_gso_server(&mut lab);
    for reverse in [false, true] {
        let report = iperf(&lab, &["-n", "20M"], reverse);
        assert!(report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0) > 10_000_000, "{report}");
        // The segments really were cut: none came as a super-packet.
        let (packets, bytes) = if reverse { received(&lab, "client1") } else { received(&lab, "server") };
        assert!(bytes > 10_000_000 && bytes / packets <= 1514, "{bytes} bytes in {packets} packets");
        assert_all_arrived(gso(&lab, reverse), reverse);
    }
    lab.on("client1", &["ping", "-n", "-c", "3", "-i", "0.1", "-s", "1400", "portal.tinh.example"]);
    let hosts = ["client1", "router", "server"];
    assert_eq!(lab.checksum_errors(&hosts), Vec::<String>::new());
}

/// The checksum counters above do count: a packet damaged on purpose is seen.
#[test]
fn a_damaged_packet_is_seen_by_the_checksum_counters() {
    let lab = TestLab::with(|options| options.translator = Translator::Nothing);
    // The last router changes a byte of the payload of every UDP packet and leaves the checksum as it was.
    lab.on("router", &["nft", "table ip damage { chain out { type filter hook postrouting priority 200; udp dport 7009 @th,64,8 set 0x21; }; }"]);
    lab.on("router", &["nft", "list", "ruleset"]);
    lab.on("router", &["ethtool", "-K", "out0", "tx", "off"]);
    let router = lab.udp("router", (IpAddr::from([0, 0, 0, 0]), 0));
    let _server = lab.udp("server", (IpAddr::from(SERVER.octets()), 7009));
    for _ in 0..5 {
        router.send_to(b"x-untouched", (SERVER, 7009)).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    let errors = lab.checksum_errors(&["server"]);
    assert!(errors.iter().any(|line| line.contains("UdpInCsumErrors")), "{errors:?}");
}

/// RFC 6146 §3.8: two hosts behind the gateway talk through their outside addresses. Several addresses on one side,
/// so that some pair is owned by different workers.
#[test]
fn hairpin_between_two_clients_on_different_workers() {
    let lab = TestLab::with(|options| options.workers = Some(2));
    let server = lab.udp("server", (IpAddr::from(SERVER.octets()), 7007));
    let outside = |socket: &std::net::UdpSocket| -> SocketAddr {
        socket.send_to(b"where am I?", (lab.embed(SERVER), 7007)).unwrap();
        let mut packet = [0; 64];
        let (_, from) = server.recv_from(&mut packet).expect("the server hears the client");
        from
    };
    let first = lab.udp("client1", (Ipv6Addr::UNSPECIFIED, 0));
    let first_outside = outside(&first);
    let mut second_sides = Vec::new();
    for n in 0..8u16 {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 0x100 + n);
        lab.on("client2", &["ip", "addr", "add", &format!("{address}/64"), "dev", "eth0", "nodad"]);
        let second = lab.udp("client2", (address, 0));
        let second_outside = outside(&second);
        let IpAddr::V4(target) = second_outside.ip() else { panic!("{second_outside}") };

        first.send_to(b"hello", (lab.embed(target), second_outside.port())).unwrap();
        let mut packet = [0; 64];
        let (len, from) = second.recv_from(&mut packet).expect("the second client hears the first");
        assert_eq!(&packet[..len], b"hello");
        // It sees the first one's outside address, inside the prefix.
        assert_eq!(
            (extract(&lab, from.ip()), from.port()),
            (v4(&first_outside.ip().to_string()), first_outside.port())
        );

        second.send_to(b"hello to you", from).unwrap();
        let (len, back) = first.recv_from(&mut packet).expect("the first client hears the second");
        assert_eq!(&packet[..len], b"hello to you");
        assert_eq!((extract(&lab, back.ip()), back.port()), (target, second_outside.port()));
        second_sides.push(address);
    }

    if lab.options().translator == Translator::Sampan {
        let own = worker_of(&lab, Plan::client6(1));
        let others: Vec<_> = second_sides.iter().map(|address| worker_of(&lab, *address)).collect();
        assert!(others.iter().any(|worker| *worker != own), "all on worker {own}: {others:?}");
        assert!(others.contains(&own), "none on worker {own}: {others:?}");
    }
}

fn worker_of(lab: &TestLab, client: Ipv6Addr) -> u64 {
    let out = lab.sampan(&["sessions", "--json", "--addr", &client.to_string()]).unwrap().check().unwrap();
    let listing: Value = serde_json::from_str(&out).unwrap();
    listing["rows"][0]["worker"].as_u64().unwrap_or_else(|| panic!("no session of {client}: {out}"))
}

/// A TCP download over two routers on each side.
#[test]
fn a_longer_path_carries_a_download() {
    let lab = TestLab::with(|options| (options.inside_routers, options.outside_routers) = (2, 2));
    let out = lab.on(
        "client1",
        &[
            "curl",
            "-sS",
            "-m",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            "http://portal.tinh.example/big.bin",
        ],
    );
    assert_eq!(out, BIG_FILE.to_string());
}

fn iperf(lab: &TestLab, args: &[&str], reverse: bool) -> Value {
    let mut argv = vec!["iperf3", "-6", "-J", "-c", "speed.tinh.example"];
    argv.extend(args);
    if reverse {
        argv.push("-R");
    }
    let out = lab.on("client1", &argv);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert!(report.get("error").is_none(), "{}", report["error"]);
    report
}

/// Packets and bytes that have come in at a host's device.
fn received(lab: &TestLab, host: &str) -> (u64, u64) {
    let out = lab.on(host, &["ip", "-json", "-statistics", "link", "show", "eth0"]);
    let links: Value = serde_json::from_str(&out).unwrap();
    let counter = |name: &str| links[0]["stats64"]["rx"][name].as_u64().unwrap();
    (counter("packets"), counter("bytes"))
}

fn start_gso_server(lab: &mut TestLab) {
    let sampan = lab.options().sampan.display().to_string();
    let listen = format!("{SERVER}:7008");
    lab.start("server", "gso-server", &[&sampan, "lab", "blast", "gso-server", &listen]);
}

fn gso(lab: &TestLab, reverse: bool) -> Account {
    let sampan = lab.options().sampan.display().to_string();
    let server = format!("[{}]:7008", lab.embed(SERVER));
    let mut argv =
        vec![sampan.as_str(), "lab", "blast", "gso", &server, "--count", "200", "--pause-us", "1000"];
    if reverse {
        argv.push("--reverse");
    }
    let out = lab.on("client1", &argv);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn assert_all_arrived(account: Account, reverse: bool) {
    let all = Account { sent: 6000, received: 6000, ..Account::default() };
    assert_eq!(account, all, "reverse {reverse}");
}

fn pool_holds(lab: &TestLab, address: &str) -> bool {
    let pool: sampan::addr::Prefix4 = lab.plan().pool4.parse().unwrap();
    pool.contains(v4(address))
}
