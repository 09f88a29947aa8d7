//! The fast path in a whole box: what rides, what it does when nobody is there, and why there is none.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sampan::lab::demo::{hops, hops_in};
use sampan::lab::plan::SERVER;
use serde_json::Value;

use crate::hitless::{self, Event, Size};
use crate::support::{SAMPAN, TestLab};

/// A laboratory with these lines in the table of the fast path.
pub fn lab(lines: &str) -> TestLab {
    TestLab::with(|options| options.fast_path = Some(format!("{lines}\n")))
}

fn json(lab: &TestLab, command: &[&str]) -> Value {
    let argv = [command, &["--json"]].concat();
    serde_json::from_str(&lab.sampan(&argv).unwrap().check().unwrap()).unwrap()
}

/// A counter of the programs.
pub fn counter(lab: &TestLab, name: &str) -> u64 {
    let status = json(lab, &["status"]);
    let counters = status["fastpath"]["counters"].as_array();
    // There are none where there is no fast path.
    let Some(counters) = counters.filter(|counters| !counters.is_empty()) else { return 0 };
    counters.iter().find(|c| c["name"] == name).unwrap()["value"].as_u64().unwrap()
}

/// What the workers have translated. They receive more: the kernel itself says this and that on every device.
pub fn came_up(lab: &TestLab) -> u64 {
    let status = json(lab, &["status"]);
    status["workers"].as_array().unwrap().iter().map(|w| w["translated"].as_u64().unwrap()).sum()
}

pub fn paths(lab: &TestLab, port: u16) -> Vec<String> {
    let rows = json(lab, &["sessions", "--all", "--port", &port.to_string()]);
    rows["rows"].as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap().to_owned()).collect()
}

/// Why there is no fast path, by its name.
fn why_not(lab: &TestLab) -> String {
    let status = json(lab, &["status"]);
    assert_eq!(status["fastpath"]["on"], false);
    status["fastpath"]["code"].as_str().unwrap().to_owned()
}

/// Question and answer, so many times.
pub fn talk(lab: &TestLab, port: u16, times: usize) {
    let server = lab.udp("server", (SERVER, port));
    let client = lab.udp("client1", "[::]:0".parse::<SocketAddr>().unwrap());
    let to = SocketAddr::new(lab.embed(SERVER).into(), port);
    for _ in 0..times {
        client.send_to(b"question", to).unwrap();
        let (len, from) = server.recv_from(&mut [0; 100]).unwrap();
        assert_eq!(len, 8);
        server.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv_from(&mut [0; 100]).unwrap(), (6, to));
    }
}

#[test]
fn established_flows_ride_and_the_books_of_both_paths_close() {
    let lab = lab("mode = \"require\"");
    let carried = |lab: &TestLab| counter(lab, "segments_v6_to_v4") + counter(lab, "segments_v4_to_v6");
    let (up, fast) = (came_up(&lab), carried(&lab));
    talk(&lab, 4321, 100);
    assert_eq!(paths(&lab, 4321), ["fast"]);
    // The first question, its answer and the second question come up; nothing is lost and nothing counted twice.
    assert_eq!((came_up(&lab) - up, carried(&lab) - fast), (3, 197));
    let page = lab.sampan(&["status"]).unwrap().check().unwrap();
    assert!(page.contains("clients on lan0, IPv4 on wan0"), "{page}");
}

#[test]
fn connections_end_on_the_fast_path() {
    let lab = lab("mode = \"require\"");
    let (server, client) = (lab.node("server"), lab.node("client1"));
    let listener = server.netns().run(|| TcpListener::bind((SERVER, 4322))).unwrap().unwrap();
    let to = SocketAddr::new(lab.embed(SERVER).into(), 4322);
    let before = came_up(&lab);
    for number in 0..20 {
        let near = client.netns().run(|| TcpStream::connect(to)).unwrap().unwrap();
        let (mut far, _) = listener.accept().unwrap();
        if number % 2 == 0 {
            drop(near);
            assert_eq!(far.read(&mut [0; 10]).unwrap(), 0, "the FIN has arrived");
        } else {
            // Unread data makes a RST of the end.
            far.write_all(b"data").unwrap();
            while near.peek(&mut [0; 4]).unwrap() < 4 {}
            drop(near);
            assert_eq!(far.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
    let states = || {
        let rows = json(&lab, &["sessions", "--all", "--port", "4322"]);
        let rows = rows["rows"].as_array().unwrap();
        let mut all: Vec<_> = rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    let over = [vec!["TRANS".to_owned(); 10], vec!["V4_FIN_RCV+V6_FIN_RCV".to_owned(); 10]].concat();
    let until = Instant::now() + Duration::from_secs(5);
    while states() != over && Instant::now() < until {
        sleep(Duration::from_millis(50));
    }
    assert_eq!(states(), over);
    // SYN and SYN-ACK, and now and then the last ACK, when the rule is already gone.
    let up = came_up(&lab) - before;
    assert!((40..=50).contains(&up), "{up}");
}

#[test]
fn packets_come_to_the_worker_that_owns_them() {
    let lab = TestLab::with(|options| {
        (options.fast_path, options.workers) = (Some("mode = \"off\"\n".into()), Some(2));
    });
    for port in 5000..5100 {
        talk(&lab, port, 2);
    }
    let status = json(&lab, &["status"]);
    let workers = status["workers"].as_array().unwrap();
    let sum = |key: &str| workers.iter().map(|w| w[key].as_u64().unwrap()).sum::<u64>();
    assert!(sum("translated") >= 400, "{status}");
    // One for the client, one for each block of its ports, whatever the kernel itself sends.
    assert!(sum("passed") <= 10, "{status}");
}

#[test]
fn switched_off_everything_goes_through_the_tun() {
    let lab = lab("mode = \"off\"");
    talk(&lab, 4321, 10);
    assert_eq!((paths(&lab, 4321), why_not(&lab)), (vec!["off".to_owned()], "off".to_owned()));
}

/// Probes of one flow, which rides where there is a fast path: those that die at the gateway go up, the others ride.
#[test]
fn traceroute_shows_the_same_hops_with_the_fast_path_on_and_off() {
    const SERVER_PORT: u16 = 4322;
    const CLIENT_PORT: u16 = 4100;
    for mode in ["require", "off"] {
        let lab = lab(&format!("mode = \"{mode}\""));
        let server = lab.udp("server", (SERVER, SERVER_PORT));
        let ended = AtomicBool::new(false);
        let out = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut bytes = [0; 200];
                server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                while !ended.load(Ordering::Relaxed) {
                    if let Ok((len, from)) = server.recv_from(&mut bytes) {
                        server.send_to(&bytes[..len], from).unwrap();
                    }
                }
            });
            let client = lab.udp("client1", (Ipv6Addr::UNSPECIFIED, CLIENT_PORT));
            for _ in 0..4 {
                client.send_to(b"question", (lab.embed(SERVER), SERVER_PORT)).unwrap();
                client.recv_from(&mut [0; 100]).unwrap();
            }
            drop(client);
            let (to, rode) = (lab.embed(SERVER).to_string(), counter(&lab, "segments_v6_to_v4"));
            let ports = [format!("--port={SERVER_PORT}"), format!("--sport={CLIENT_PORT}")];
            let out = lab
                .try_on("client1", &["traceroute", "-6", "-n", "-U", "-w", "2", &ports[0], &ports[1], &to]);
            let rode = counter(&lab, "segments_v6_to_v4") - rode;
            ended.store(true, Ordering::Relaxed);
            // Three probes for each of the router and the server.
            assert_eq!(rode, if mode == "off" { 0 } else { 6 }, "{mode}");
            out.check().unwrap()
        });
        assert_eq!(hops_in(&out), hops(lab.plan(), lab.options().pref64), "{mode}\n{out}");
    }
}

#[test]
fn a_firewall_that_would_be_bypassed_keeps_auto_off_and_not_on() {
    for (rules, code) in [
        (
            "table inet f { chain c { type filter hook forward priority 0; ct state invalid drop; }; }",
            "forward",
        ),
        (
            "table ip n { chain c { type nat hook postrouting priority 100; oifname \"x\" masquerade; }; }",
            "conntrack",
        ),
    ] {
        let mut lab = lab("mode = \"auto\"");
        lab.on("gw", &["nft", rules]);
        // Who adds it later is told that it misses something.
        let warned = || json(&lab, &["status"])["translator"]["warnings"].to_string().contains("fast path");
        let since = Instant::now();
        while !warned() {
            assert!(since.elapsed() < Duration::from_secs(20), "nobody says that {rules} is passed by");
            sleep(Duration::from_millis(200));
        }
        lab.sampan(&["stop"]).unwrap().check().unwrap();
        assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
        lab.restart_gateway().unwrap();
        assert_eq!(why_not(&lab), code);
        // Nothing of before goes on in the kernel.
        assert_eq!(lab.on("gw", &["tc", "filter", "show", "dev", "wan0", "ingress"]), "");
        talk(&lab, 4321, 10);

        let config = lab.dir().join("sampan.toml");
        let text = std::fs::read_to_string(&config).unwrap().replace("mode = \"auto\"", "mode = \"on\"");
        std::fs::write(&config, text).unwrap();
        lab.sampan(&["stop"]).unwrap().check().unwrap();
        assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
        lab.restart_gateway().unwrap();
        talk(&lab, 4321, 10);
        assert_eq!(paths(&lab, 4321), ["fast"]);
    }
}

#[test]
fn the_firewall_that_we_ship_lets_connections_open_and_end_in_every_mode() {
    let shipped = include_str!("../../deploy/firewall/forward.nft");
    for mode in ["off", "auto", "on"] {
        let mut lab = lab(&format!("mode = \"{mode}\""));
        let rules = shipped
            .replace("64:ff9b::/96", &lab.options().pref64.to_string())
            .replace("198.51.100.0/28", &lab.plan().pool4);
        let file = lab.dir().join("forward.nft");
        std::fs::write(&file, rules).unwrap();
        lab.on("gw", &["nft", "-f", &file.display().to_string()]);
        lab.sampan(&["stop"]).unwrap().check().unwrap();
        assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
        lab.restart_gateway().unwrap();
        assert_eq!(json(&lab, &["status"])["fastpath"]["on"], mode == "on");
        for _ in 0..3 {
            let stream = lab.download("client1", lab.embed(SERVER));
            stream.flows(1 << 20, mode);
        }
        let dropped = lab.on("gw", &["nft", "list", "ruleset"]);
        assert!(dropped.contains("ct state invalid drop"), "{dropped}");
        let sessions = json(&lab, &["sessions", "--all", "--port", "80"]);
        let ended =
            sessions["rows"].as_array().unwrap().iter().filter(|row| row["state"] != "ESTABLISHED").count();
        assert_eq!(ended, 3, "{mode}: every end was seen: {sessions}");
    }
}

#[test]
fn flows_go_on_without_a_gateway_and_its_successor_takes_them_over() {
    let mut lab = lab("mode = \"require\"");
    let size = Size { flows: 40, hosts: 1, rate: 20.0, time: Duration::from_secs(6) };
    let outcome = hitless::run(&mut lab, size, &Event::Kill(Duration::from_secs(2)));
    assert_eq!((outcome.tcp_reset, outcome.tcp_incomplete, outcome.changed), (0, 0, 0), "{outcome:?}");
    // The flow that is opened afterwards rides, too, where it has to ask more than once.
    assert!(outcome.mappings >= 80 && (80..=81).contains(&outcome.riding), "{outcome:?}");
    // Those that are lost are lost at random; without the fast path it would be a third of all.
    assert!(outcome.udp_lost * 50 < outcome.udp_sent, "{outcome:?}");
    let log = std::fs::read_to_string(lab.dir().join("gateway.log")).unwrap();
    assert!(log.contains("flows that were carried on"), "{log}");
}

#[test]
fn reloads_are_not_felt() {
    let mut lab = lab("mode = \"require\"");
    let size = Size { flows: 20, hosts: 1, rate: 20.0, time: Duration::from_secs(4) };
    let outcome = hitless::run(&mut lab, size, &Event::Reloads(20));
    assert_eq!((outcome.tcp_reset, outcome.tcp_incomplete, outcome.changed), (0, 0, 0), "{outcome:?}");
    assert!(outcome.udp_lost * 50 < outcome.udp_sent && outcome.riding == 40, "{outcome:?}");
}

#[test]
fn stop_leaves_rules_and_flush_leaves_nothing() {
    let mut lab = lab("mode = \"require\"");
    talk(&lab, 4321, 10);
    let pins = lab.dir().join("bpf");
    let filters = |lab: &TestLab| {
        let of = |link: &str| lab.on("gw", &["tc", "filter", "show", "dev", link, "ingress"]);
        of("wan0") + &of("lan0")
    };
    lab.sampan(&["stop"]).unwrap().check().unwrap();
    assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
    assert!(filters(&lab).contains("sampan_v4") && pins.join("records").exists());
    lab.restart_gateway().unwrap();
    assert_eq!(paths(&lab, 4321), ["fast"]);
    let config = lab.dir().join("sampan.toml").display().to_string();
    lab.on("gw", &[SAMPAN, "stop", "--flush", "--config", &config]);
    assert_eq!((filters(&lab), pins.exists()), (String::new(), false));
}

/// Where it cannot be had: `auto` says so in one line and goes through the TUN, `require` refuses for the same reason.
fn cannot_be_had(front: &[&str], code: &str, words: &str) {
    let mut lab = lab("mode = \"auto\"");
    lab.sampan(&["stop", "--flush"]).unwrap().check().unwrap();
    assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
    let config = lab.dir().join("sampan.toml");
    let path = config.display().to_string();
    let argv = [front, &[SAMPAN, "run", "--config", &path]].concat();
    lab.start("gw", "other", &argv);
    let since = Instant::now();
    while !lab.sampan(&["status"]).is_ok_and(|out| out.ok()) {
        assert!(since.elapsed() < Duration::from_secs(10), "it does not start");
        sleep(Duration::from_millis(50));
    }
    assert_eq!(why_not(&lab), code);
    talk(&lab, 4321, 10);
    let log = std::fs::read_to_string(lab.dir().join("other.log")).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("no fast path")).collect();
    assert!(lines.len() == 1 && lines[0].contains(words), "{log}");
    lab.sampan(&["stop"]).unwrap().check().unwrap();
    assert!(lab.wait_service("other", Duration::from_secs(10)).unwrap());

    let text = std::fs::read_to_string(&config).unwrap().replace("mode = \"auto\"", "mode = \"require\"");
    std::fs::write(&config, text).unwrap();
    let out = lab.try_on("gw", &[&["timeout", "10"], &argv[..]].concat());
    assert!(!out.ok() && out.stderr.contains("error[fastpath]"), "{}", out.stderr);
    assert!(out.stderr.contains(words), "{}", out.stderr);
}

#[test]
fn without_privileges_there_is_the_tun_and_one_line_and_require_refuses() {
    let missing = "-bpf,-sys_admin,-perfmon";
    let (bounding, inheritable) = (format!("--bounding-set={missing}"), format!("--inh-caps={missing}"));
    cannot_be_had(&["setpriv", &bounding, &inheritable], "no-privileges", "CAP_BPF");
}

#[test]
fn overridden_there_is_the_tun_and_one_line_and_require_refuses() {
    cannot_be_had(&["env", "SAMPAN_NO_FASTPATH=1"], "override", "SAMPAN_NO_FASTPATH");
}
