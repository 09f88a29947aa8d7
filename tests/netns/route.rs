//! Traceroute shows the real path: every hop once, in order.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};

use sampan::lab::demo::{hops, hops_in};
use sampan::lab::plan::{GW_INSIDE, SERVER};
use sampan::lab::services::BIG_FILE;
use sampan::lab::{Cable, Plan, Translator};

use crate::support::{Stream, TestLab};

#[test]
fn traceroute_shows_gateway_router_server() {
    let lab = TestLab::up();
    let expected = hops(lab.plan(), lab.options().pref64);
    assert_eq!(expected.len(), 3);
    trace_both_ways_of_asking(&lab, &expected);
}

#[test]
fn traceroute_shows_two_hops_on_each_side() {
    let lab = TestLab::with(|options| (options.inside_routers, options.outside_routers) = (2, 2));
    let expected = hops(lab.plan(), lab.options().pref64);
    assert_eq!(expected.len(), 6);
    trace_both_ways_of_asking(&lab, &expected);
}

fn trace_both_ways_of_asking(lab: &TestLab, expected: &[String]) {
    for how in ["-U", "-I"] {
        let out = lab.on("client1", &["traceroute", "-6", "-n", how, "-w", "2", "portal.tinh.example"]);
        assert_eq!(hops_in(&out), expected, "{how}\n{out}");
    }
    // tracepath sends packets that fill the link; it asks the first hop twice.
    let out = lab.on("client1", &["tracepath", "-6", "-n", "portal.tinh.example"]);
    let mut seen: Vec<&str> = out.lines().filter_map(tracepath_hop).collect();
    seen.dedup();
    assert_eq!(seen, expected, "{out}");
    assert!(out.contains(&format!("pmtu 1500 hops {} ", expected.len())), "{out}");
}

/// The address in a line of tracepath.
fn tracepath_hop(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(":  ")?;
    rest.split_whitespace().next()
}

/// Path MTU discovery through the translation: a narrow cable two hops away on either side, ICMP working. What the
/// routers report reaches the sender in its own family, so a download and an upload both come through without a stall.
#[test]
fn d40_d41_narrow_cables_two_hops_away_are_found_out() {
    for (cable, mtu) in [(Cable::Outside(1), 1000), (Cable::Outside(1), 1400), (Cable::Inside(1), 1280)] {
        let lab = TestLab::with(|options| {
            (options.inside_routers, options.outside_routers) = (2, 2);
            options.mtus = vec![(cable, mtu)];
        });
        let server = lab.embed(SERVER);
        // By different clients, so that neither profits from what the other has found out.
        let up = lab.upload("client1", server, 7050, BIG_FILE);
        up.flows(BIG_FILE, format_args!("upload with {cable:?} {mtu}"));
        lab.download("client2", server).flows(BIG_FILE, format_args!("download with {cable:?} {mtu}"));
        // An IPv4 cable carries 20 bytes more as IPv6; below 1280 the routers cut instead.
        let found = if cable == Cable::Outside(1) { (mtu + 20).max(1280) } else { mtu };
        let out = lab.on("client1", &["tracepath", "-6", "-n", "portal.tinh.example"]);
        assert!(out.contains(&format!("pmtu {found} hops 6 ")), "{cable:?} {mtu}: {out}");
    }
}

/// The gateway's own link is narrow, and everybody drops ICMP errors: nobody learns of it, and only the lowered segment
/// size of TCP carries the data. Without that it stalls, so nothing else does.
#[test]
fn f61_narrow_links_of_the_gateway_where_icmp_is_filtered_are_carried_by_the_segment_size() {
    for (cable, mtu, clamp) in
        [(Cable::Outside(0), 1000, true), (Cable::Inside(1), 1280, true), (Cable::Outside(0), 1000, false)]
    {
        let lab = TestLab::with(|options| {
            // Tayga does not know this.
            options.translator = Translator::Sampan;
            (options.inside_routers, options.outside_routers) = (1, 1);
            options.mtus = vec![(cable, mtu)];
            options.nat64_extra = format!("mss-clamp = {clamp}");
        });
        for host in lab.hosts() {
            lab.on(host.name(), &["nft", NO_ICMP_ERRORS]);
        }
        let server = lab.embed(SERVER);
        let down = lab.download("client1", server);
        if clamp {
            down.flows(BIG_FILE, format_args!("download with {cable:?} {mtu}"));
            let up = lab.upload("client1", server, 7050, BIG_FILE);
            up.flows(BIG_FILE, format_args!("upload with {cable:?} {mtu}"));
        } else {
            assert!(
                down.longest_gap > Stream::STALL && down.bytes < BIG_FILE,
                "something else carries it: {down:?}"
            );
        }
    }
}

const NO_ICMP_ERRORS: &str = "table inet deaf { \
     chain in { type filter hook prerouting priority -300; jump errors; }; \
     chain out { type filter hook output priority -300; jump errors; }; \
     chain errors { icmp type { destination-unreachable, time-exceeded, parameter-problem } drop; \
     icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } drop; }; }";

/// RFC 7915 §5.1: the gateway is a router too, and its more specific route wins: an address inside of pool6 that a host
/// of the IPv6 network has is reached there, and nobody translates.
#[test]
fn b25_a_more_specific_ipv6_route_wins() {
    let lab = TestLab::up();
    let native = lab.embed(SERVER);
    lab.on("client2", &["ip", "address", "add", &format!("{native}/128"), "dev", "eth0", "nodad"]);
    lab.on("client1", &["sysctl", "-qw", "net.ipv6.conf.eth0.accept_redirects=0"]);
    let seen = |lab: &TestLab| {
        let out = lab.on("client1", &["curl", "-sS", "-m", "5", &format!("http://[{native}]/whoami")]);
        out.trim().to_owned()
    };
    // Without the route it is the IPv4 server.
    assert!(seen(&lab).starts_with("198.51.100."), "{}", seen(&lab));
    lab.on("gw", &["ip", "route", "add", &format!("{native}/128"), "dev", GW_INSIDE]);
    let listener = lab.node("client2").netns().run(|| TcpListener::bind((native, 80))).unwrap().unwrap();
    let answer = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        let body = from.ip().to_string();
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut request = [0; 1000];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all((head + &body).as_bytes()).unwrap();
    });
    // The neighbour sees the client's own IPv6 address.
    assert_eq!(seen(&lab), Plan::client6(1).to_string());
    answer.join().unwrap();
    let hops = hops_in(&lab.on("client1", &["traceroute", "-6", "-n", "-w", "2", &native.to_string()]));
    assert_eq!(hops, [lab.plan().gateway6.to_string(), native.to_string()]);
}

/// RFC 7915 §4.1, likewise: a pool address that a host of the gateway's own IPv4 network has is reached there.
#[test]
fn c20_a_more_specific_ipv4_route_wins() {
    let lab = TestLab::up();
    // The second client speaks IPv4 too, with an address of the pool; the gateway is its neighbour.
    let native = "198.51.100.9";
    lab.on("client2", &["ip", "address", "add", &format!("{native}/32"), "dev", "eth0"]);
    lab.on("client2", &["ip", "route", "add", "default", "via", "192.0.2.1", "dev", "eth0", "onlink"]);
    let ping = ["ping", "-n", "-c", "1", "-W", "1", native];
    assert!(!lab.try_on("server", &ping).ok(), "it answers before there is a route");
    lab.on("gw", &["ip", "route", "add", &format!("{native}/32"), "dev", GW_INSIDE]);
    assert!(lab.on("server", &ping).contains(" 0% packet loss"));
    let listener = lab.udp("client2", ([198, 51, 100, 9], 7060));
    let server = lab.udp("server", (IpAddr::from(SERVER), 7061));
    server.send_to(b"hello", (native, 7060)).unwrap();
    let mut packet = [0; 16];
    let (len, from) = listener.recv_from(&mut packet).unwrap();
    // As IPv4, from the server's own address.
    assert_eq!((&packet[..len], from), (&b"hello"[..], (IpAddr::from(SERVER), 7061).into()));
    listener.send_to(b"hello to you", from).unwrap();
    assert_eq!(server.recv_from(&mut packet).unwrap(), (12, ([198, 51, 100, 9], 7060).into()));
}
