//! A box with one IPv4 address, which it shares with the pool: its own services go on, clients go out, and it says why
//! where that cannot be had.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use sampan::lab::plan::{SERVER, TUN};
use sampan::lab::tool::until;
use serde_json::Value;

use crate::support::{SAMPAN, Stream, TestLab};

/// The address of the gateway towards IPv4.
const OWN: &str = "192.0.2.1";
const PORTS: &str = "40960-65535";
/// Where the server echoes datagrams.
const ECHO: u16 = 7000;
/// Of a ping that takes three fragments.
const LARGE: &str = "4000";

/// A gateway that is not running, with a configuration that shares its address.
fn one_address(fast_path: &str) -> TestLab {
    let lab = TestLab::with(|options| options.fast_path = Some(format!("{fast_path}\n")));
    stop(lab, |text| {
        let (before, rest) = text.split_once("[[nat64.pool4]]\n").unwrap();
        let (_, after) = rest.split_once("\n\n").unwrap();
        let pool = format!("prefix = \"{OWN}/32\"\nmode = \"shared\"\nports = \"{PORTS}\"");
        // Blocks stay 512 ports: with 24,576 ports there are 48 of them.
        format!("{before}[[nat64.pool4]]\n{pool}\n\n{after}")
    })
}

fn stop(mut lab: TestLab, change: impl FnOnce(String) -> String) -> TestLab {
    lab.sampan(&["stop", "--flush"]).unwrap().check().unwrap();
    assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
    let config = lab.dir().join("sampan.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, change(text)).unwrap();
    lab
}

/// Keeps the pool's ports from the machine's own connections.
fn reserve(lab: &TestLab) {
    lab.on("gw", &["sysctl", "-qw", &format!("net.ipv4.ip_local_reserved_ports={PORTS}")]);
}

fn status(lab: &TestLab) -> Value {
    serde_json::from_str(&lab.sampan(&["status", "--json"]).unwrap().check().unwrap()).unwrap()
}

/// Packets that were given to the machine.
fn handed_back(lab: &TestLab) -> u64 {
    let status = status(lab);
    status["workers"].as_array().unwrap().iter().map(|w| w["returned"].as_u64().unwrap()).sum()
}

/// Starts OpenSSH's server on the gateway; gives the client's words up to the command.
fn ssh(lab: &mut TestLab) -> Vec<String> {
    let at = |name: &str| lab.dir().join(name).display().to_string();
    let (host_key, key, config) = (at("host"), at("id"), at("sshd.conf"));
    for key in [&host_key, &key] {
        lab.on("gw", &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]);
    }
    // Its parent makes it at boot otherwise.
    std::fs::create_dir_all("/run/sshd").unwrap();
    std::fs::write(
        &config,
        format!(
            "ListenAddress {OWN}:22\nHostKey {host_key}\nAuthorizedKeysFile {key}.pub\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPidFile none\n"
        ),
    )
    .unwrap();
    lab.start("gw", "sshd", &["/usr/sbin/sshd", "-D", "-e", "-f", &config]);
    let options =
        ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
    let whom = format!("root@{OWN}");
    let words = [&["ssh", "-F", "none", "-i", &key], &options[..], &[&whom]].concat();
    words.into_iter().map(str::to_owned).collect()
}

/// Sends datagrams of `len` bytes from one socket of a client and back, one at a time; how many came back unharmed.
fn echoes(lab: &TestLab, port: u16, len: usize, count: usize) -> usize {
    let client = lab.udp("client1", "[::]:0".parse::<SocketAddr>().unwrap());
    let to = SocketAddr::new(lab.embed(SERVER).into(), port);
    let question: Vec<u8> = (0..len).map(|at| at as u8).collect();
    let mut answer = vec![0; len + 1];
    (0..count)
        .filter(|_| {
            client.send_to(&question, to).unwrap();
            let came = client.recv_from(&mut answer);
            came.is_ok_and(|(len, from)| from == to && answer[..len] == question)
        })
        .count()
}

fn ping(lab: &TestLab, from: &str, to: &str, more: &[&str]) -> String {
    lab.on(from, &[&["ping", "-n", "-i", "0.1", "-W", "2"], more, &[to]].concat())
}

#[test]
fn ssh_to_the_box_a_large_ping_to_it_and_translation_work_together() {
    let mut lab = one_address("mode = \"require\"");
    reserve(&lab);
    lab.restart_gateway().unwrap();
    let ssh = ssh(&mut lab);
    // One for each flow: a listener that two flows reach at once mixes up their first datagrams.
    for port in [ECHO, ECHO + 1] {
        let name = format!("echo{port}");
        lab.start(
            "server",
            &name,
            &["socat", "-b", "65536", &format!("UDP4-LISTEN:{port},fork"), "EXEC:cat"],
        );
        let port = format!("sport = :{port}");
        let listens = || !lab.on("server", &["ss", "-Huln", &port]).is_empty();
        assert!(until(Duration::from_secs(10), listens).unwrap());
    }
    let before = handed_back(&lab);
    thread::scope(|scope| {
        let lab = &lab;
        let session = scope.spawn(move || {
            let command = "for i in $(seq 30); do head -c 50000 /dev/zero; sleep 0.1; done";
            let words: Vec<&str> = ssh.iter().map(String::as_str).chain([command]).collect();
            lab.on("server", &words).len()
        });
        let pings = [
            scope.spawn(move || ping(lab, "server", OWN, &["-c", "30", "-s", LARGE])),
            scope.spawn(move || ping(lab, "server", OWN, &["-c", "30"])),
            scope.spawn(move || {
                ping(lab, "client2", &lab.embed(SERVER).to_string(), &["-c", "30", "-s", LARGE])
            }),
            // The box's own, with an identifier that is one of the pool's.
            scope.spawn(move || {
                ping(lab, "gw", &SERVER.to_string(), &["-c", "30", "-e", "50000", "-s", LARGE])
            }),
        ];
        let small = scope.spawn(move || echoes(lab, ECHO, 100, 1000));
        let large = scope.spawn(move || echoes(lab, ECHO + 1, 9000, 100));
        let loads: Vec<Stream> = (0..3).map(|_| lab.download("client1", lab.embed(SERVER))).collect();
        let own = lab.on(
            "gw",
            &[
                "curl",
                "-sS",
                "-m",
                "10",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &format!("http://{SERVER}/"),
            ],
        );
        for load in loads {
            load.flows(1 << 20, "download");
        }
        assert_eq!(own, "200", "the box's own connection");
        assert_eq!(session.join().unwrap(), 30 * 50_000, "bytes of the session");
        for ping in pings {
            let said = ping.join().unwrap();
            assert!(said.contains(" 0% packet loss"), "{said}");
        }
        assert_eq!((small.join().unwrap(), large.join().unwrap()), (1000, 100));
    });
    // The large pings to the box, and the answers to its own.
    assert_eq!(handed_back(&lab) - before, 60);
    let status = status(&lab);
    let carried = |name: &str| {
        let counters = status["fastpath"]["counters"].as_array().unwrap();
        counters.iter().find(|c| c["name"] == name).unwrap()["value"].as_u64().unwrap()
    };
    assert!(carried("sent_v6_to_v4") > 900 && carried("sent_v4_to_v6") > 900, "{status}");
    assert_eq!(lab.checksum_errors(&["client1", "client2", "gw", "server"]), [""; 0]);
}

/// RFC 6146 §3.5: hops count as on any other path, from both sides; and what nobody has asked for is not answered.
#[test]
fn hops_errors_and_strangers() {
    let mut lab = one_address("mode = \"require\"");
    reserve(&lab);
    lab.restart_gateway().unwrap();
    // Every router on the way shows itself: errors about the pool's packets find their client.
    let trace =
        lab.on("client1", &["traceroute", "-n", "-q", "1", "-w", "2", &lab.embed(SERVER).to_string()]);
    let hops: Vec<_> = trace.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    let router = lab.embed(lab.plan().outside_hops[0]).to_string();
    let (first, server) = (lab.plan().gateway6.to_string(), lab.embed(SERVER).to_string());
    assert_eq!(hops, [&*first, &*router, &*server], "{trace}");
    // From outside the box is a hop, too, and says so with its own address.
    let server = lab.udp("server", (SERVER, ECHO));
    let client = lab.udp("client1", "[::]:0".parse::<SocketAddr>().unwrap());
    client.send_to(b"open", SocketAddr::new(lab.embed(SERVER).into(), ECHO)).unwrap();
    let (_, mapped) = server.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(mapped.ip(), OWN.parse::<Ipv4Addr>().unwrap());
    assert!((40_960..=65_535).contains(&mapped.port()), "{mapped}");
    for (ttl, arrives) in [(64, true), (3, true), (2, false)] {
        server.set_ttl(ttl).unwrap();
        server.send_to(b"answer", mapped).unwrap();
        assert_eq!(client.recv_from(&mut [0; 9]).is_ok(), arrives, "TTL {ttl}");
    }
    let out = lab.counters("server");
    assert!(out["IcmpInTimeExcds"] >= 1, "{out:?}");
    // Nobody has these, and the box does not speak for the pool.
    let silent =
        lab.try_on("server", &["timeout", "2", "bash", "-c", &format!("echo > /dev/tcp/{OWN}/41000")]);
    assert!(!silent.ok() && !silent.stderr.contains("refused"), "{}", silent.stderr);
    // Any other closed port is the box's, and its kernel answers.
    let refused =
        lab.try_on("server", &["timeout", "2", "bash", "-c", &format!("echo > /dev/tcp/{OWN}/30000")]);
    assert!(refused.stderr.contains("refused"), "{}", refused.stderr);
    // O-05: clients do not reach what the box serves by its shared address.
    let box_itself = lab.embed(OWN.parse().unwrap()).to_string();
    assert!(!lab.try_on("client1", &["ping", "-c1", "-W1", &box_itself]).ok());
    let open =
        lab.try_on("client1", &["timeout", "2", "bash", "-c", &format!("echo > /dev/tcp/{box_itself}/22")]);
    assert!(!open.ok() && !open.stderr.contains("refused"), "{}", open.stderr);
    let drops = lab.sampan(&["drops"]).unwrap().check().unwrap();
    assert!(drops.contains("own_address"), "{drops}");
}

#[test]
fn the_box_keeps_what_is_its_own_without_a_gateway_and_nothing_is_left_in_the_end() {
    let mut lab = one_address("mode = \"require\"");
    reserve(&lab);
    lab.restart_gateway().unwrap();
    let ssh = ssh(&mut lab);
    let words: Vec<&str> = ssh.iter().map(String::as_str).chain(["hostname"]).collect();
    let setting = |lab: &TestLab, key: &str| {
        lab.on("gw", &["sysctl", "-n", &format!("net.ipv4.conf.{TUN}.{key}")]).trim().to_owned()
    };
    assert_eq!((&*setting(&lab, "accept_local"), &*setting(&lab, "rp_filter")), ("1", "0"));
    // As systemd does with every new device, when it gets to it.
    lab.on("gw", &["sysctl", "-qw", &format!("net.ipv4.conf.{TUN}.rp_filter=2")]);
    let is_set_back = |_| {
        thread::sleep(Duration::from_millis(500));
        setting(&lab, "rp_filter") == "0"
    };
    assert!((0..40).any(is_set_back), "the filter for reverse paths stays");
    // An established flow goes on, and so does the box itself.
    let server = lab.udp("server", (SERVER, ECHO));
    let client = lab.udp("client1", "[::]:0".parse::<SocketAddr>().unwrap());
    let to = SocketAddr::new(lab.embed(SERVER).into(), ECHO);
    let talk = |what: &str| {
        client.send_to(b"question", to).unwrap();
        let (_, from) = server.recv_from(&mut [0; 9]).unwrap_or_else(|e| panic!("{what}: {e}"));
        server.send_to(b"answer", from).unwrap();
        client.recv_from(&mut [0; 9]).unwrap_or_else(|e| panic!("{what}: {e}"));
        from
    };
    let mapped = talk("first");
    (0..5).for_each(|_| assert_eq!(talk("before"), mapped));
    lab.sampan(&["stop"]).unwrap().check().unwrap();
    assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
    (0..5).for_each(|_| assert_eq!(talk("without a gateway"), mapped));
    lab.on("server", &words);
    lab.restart_gateway().unwrap();
    (0..5).for_each(|_| assert_eq!(talk("after"), mapped));
    lab.on("server", &words);
    let config = lab.dir().join("sampan.toml").display().to_string();
    lab.sampan(&["stop"]).unwrap().check().unwrap();
    assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
    lab.on("gw", &[SAMPAN, "stop", "--flush", "--config", &config]);
    let links = lab.on("gw", &["ip", "-o", "link"]);
    let filters = lab.on("gw", &["tc", "filter", "show", "dev", "wan0", "ingress"]);
    assert!(!links.contains(TUN) && filters.is_empty(), "{links}{filters}");
    assert!(!lab.dir().join("bpf").exists());
    ping(&lab, "server", OWN, &["-c", "2", "-s", LARGE]);
    lab.on("server", &words);
}

/// A box whose own connections are tracked and filtered, and that has the firewall that we ship for forwarded packets.
#[test]
fn the_firewall_that_we_ship_for_it_lets_both_work() {
    let mut lab = one_address("mode = \"on\"");
    reserve(&lab);
    let shipped = include_str!("../../deploy/firewall/shared.nft");
    assert!(shipped.contains(&format!("define own = {OWN}\n")));
    let input = "table inet own { chain input { type filter hook input priority filter; policy drop; \
                 ct state established,related accept; iifname \"lo\" accept; tcp dport { 22, 53 } accept; \
                 udp dport 53 accept; meta l4proto { icmp, ipv6-icmp } accept; }; }\n";
    let file = lab.dir().join("shared.nft");
    let rules = shipped.replace("64:ff9b::/96", &lab.options().pref64.to_string());
    std::fs::write(&file, rules + input).unwrap();
    lab.on("gw", &["nft", "-f", &file.display().to_string()]);
    lab.restart_gateway().unwrap();
    let ssh = ssh(&mut lab);
    let words: Vec<&str> = ssh.iter().map(String::as_str).chain(["hostname"]).collect();
    for _ in 0..3 {
        lab.download("client1", lab.embed(SERVER)).flows(1 << 20, "download");
    }
    lab.on("server", &words);
    ping(&lab, "server", OWN, &["-c", "3", "-s", LARGE]);
    ping(&lab, "gw", &SERVER.to_string(), &["-c", "3", "-s", LARGE, "-e", "50000"]);
    ping(&lab, "client2", &lab.embed(SERVER).to_string(), &["-c", "3", "-s", LARGE]);
    let out = lab.sampan(&["sessions", "--all", "--port", "80", "--json"]).unwrap().check().unwrap();
    let sessions: Value = serde_json::from_str(&out).unwrap();
    let rows = sessions["rows"].as_array().unwrap();
    assert!(
        rows.iter().all(|row| row["state"] != "ESTABLISHED") && rows.len() == 3,
        "every end was seen: {out}"
    );
}

/// Every reason has a remedy, and nothing is started.
#[test]
fn it_says_why_an_address_cannot_be_shared() {
    let lab = one_address("mode = \"auto\"");
    let path = lab.dir().join("sampan.toml");
    let config = path.display().to_string();
    let refused = |front: &[&str], code: &str, words: &[&str]| {
        let out = lab.try_on("gw", &[front, &["timeout", "10", SAMPAN, "run", "--config", &config]].concat());
        assert!(!out.ok() && out.stderr.contains(&format!("error[{code}]")), "{code}: {}", out.stderr);
        for word in words {
            assert!(out.stderr.contains(word), "{code}, {word}: {}", out.stderr);
        }
    };
    refused(&[], "shared-ephemeral", &[&format!("net.ipv4.ip_local_reserved_ports={PORTS}")]);
    reserve(&lab);
    let listener = lab.udp("gw", (Ipv4Addr::UNSPECIFIED, 41_000));
    refused(&[], "shared-port-in-use", &["41000/udp", "ports"]);
    drop(listener);
    refused(&["env", "SAMPAN_NO_FASTPATH=1"], "shared-address", &["SAMPAN_NO_FASTPATH", OWN]);
    lab.on("gw", &["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"]);
    refused(&[], "shared-address", &["net.ipv4.conf.all.rp_filter=0"]);
    lab.on("gw", &["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0"]);
    let rules = "table inet f { chain c { type filter hook forward priority 0; ct state invalid drop; }; }";
    lab.on("gw", &["nft", rules]);
    refused(&[], "shared-address", &["inet f c", "fastpath.mode = \"on\""]);
    lab.on("gw", &["nft", "flush", "ruleset"]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("mode = \"auto\"", "mode = \"off\"")).unwrap();
    refused(&[], "shared-needs-fast-path", &["fastpath.mode = \"auto\""]);
    std::fs::write(&path, text.replace(&format!("prefix = \"{OWN}/32\""), "prefix = \"192.0.2.9/32\""))
        .unwrap();
    refused(&[], "shared-not-here", &["192.0.2.9"]);
    let other = text.replace("mode = \"auto\"", "mode = \"auto\"\noutside = [\"lan0\"]");
    std::fs::write(&path, other).unwrap();
    refused(&[], "shared-address", &["wan0", "fastpath.outside"]);
}
