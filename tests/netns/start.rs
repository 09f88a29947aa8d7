//! Starting where something is in the way, and the box with a single interface.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sampan::lab::Translator;
use sampan::lab::tool::Output;

use crate::support::{SAMPAN, TestLab};

/// A laboratory whose gateway host runs nothing, and a configuration for it.
struct Bare {
    lab: TestLab,
    config: PathBuf,
}

impl Bare {
    fn new(pool4: &str, more: &str) -> Self {
        let lab = TestLab::with(|options| options.translator = Translator::Nothing);
        let dir = lab.dir().to_path_buf();
        let config = dir.join("own.toml");
        let text = format!(
            "[nat64]\npool6 = [\"2001:db8:64::/96\"]\nkey-file = \"{dir}/own.key\"\n\
             [[nat64.pool4]]\n{pool4}\n[[nat64.allow]]\nprefix = \"192.0.2.0/24\"\n\
             [[unit]]\nname = \"office\"\nprefixes = [\"2001:db8:6::/64\"]\n\
             [admin]\nsocket = \"{dir}/own.sock\"\n[fastpath]\npins = \"{dir}/bpf\"\n{more}",
            dir = dir.display()
        );
        std::fs::write(&config, text).unwrap();
        Self { lab, config }
    }

    /// Runs the gateway, perhaps through `front`; it must end by itself.
    fn run(&self, front: &[&str]) -> Output {
        let config = self.config.display().to_string();
        let argv: Vec<&str> = front.iter().copied().chain([SAMPAN, "run", "--config", &config]).collect();
        self.lab.try_on("gw", &[&["timeout", "10"], &argv[..]].concat())
    }

    #[track_caller]
    fn refuses(&self, front: &[&str], code: &str, words: &str) {
        let out = self.run(front);
        assert!(!out.ok(), "it started");
        assert!(out.stderr.contains(code) && out.stderr.contains(words), "{}", out.stderr);
        assert!(out.stderr.contains("remedy: ") && !out.stderr.contains("panicked"), "{}", out.stderr);
        let links = self.lab.on("gw", &["ip", "-brief", "link"]);
        assert!(!links.contains("nat64") || code == "[dns]" || code == "[forwarding]", "{links}");
    }
}

const POOL: &str = "prefix = \"198.51.100.0/28\"";

#[test]
fn without_privileges_or_device_there_is_one_clear_error() {
    let bare = Bare::new(POOL, "");
    bare.refuses(
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"],
        "error[",
        "Permission denied",
    );
    // The machine keeps its device; only this process does not see it.
    bare.refuses(
        &["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$@\"", "sh"],
        "[tun]",
        "/dev/net/tun does not exist",
    );
}

#[test]
fn without_forwarding_the_sysctl_is_named() {
    let bare = Bare::new(POOL, "");
    bare.lab.on("gw", &["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    bare.refuses(&[], "[forwarding]", "sysctl -w net.ipv4.ip_forward=1");
}

#[test]
fn a_pool_that_holds_the_hosts_own_address_is_refused() {
    let bare = Bare::new("prefix = \"192.0.2.1/32\"", "");
    bare.refuses(&[], "nat64.pool4", "192.0.2.1");
}

#[test]
fn an_occupied_port_53_is_named() {
    let dns64 = "[dns64]\nlisten = [\"[2001:db8:6::1]:53\"]\nupstream = [\"192.0.2.53\"]\n";
    let bare = Bare::new(POOL, dns64);
    let _squatter = bare.lab.udp("gw", (bare.lab.plan().gateway6, 53));
    bare.refuses(&[], "[dns]", "[2001:db8:6::1]:53");
}

/// One interface carries the IPv6 clients and the IPv4 servers; the pool lies in its IPv4 subnet.
#[test]
fn a_box_with_one_interface_works() {
    let mut bare = Bare::new("prefix = \"192.0.2.144/28\"\nmode = \"onlink\"\ninterface = \"lan0\"", "");
    bare.lab.on("gw", &["ip", "link", "set", "wan0", "down"]);
    bare.lab.on("gw", &["ip", "address", "add", "192.0.2.129/25", "dev", "lan0"]);
    bare.lab.on("client2", &["ip", "-6", "address", "flush", "dev", "eth0"]);
    bare.lab.on("client2", &["ip", "address", "add", "192.0.2.130/25", "dev", "eth0"]);
    bare.lab.start("client2", "iperf", &["iperf3", "-4", "-s", "-p", "5300"]);
    let config = bare.config.display().to_string();
    bare.lab.start("gw", "own", &[SAMPAN, "run", "--config", &config]);
    let server = "2001:db8:64::192.0.2.130";
    let since = Instant::now();
    while !bare.lab.try_on("client1", &["ping", "-n", "-c", "1", "-W", "1", server]).ok() {
        assert!(since.elapsed() < Duration::from_secs(10), "no reply");
    }
    let out = bare.lab.on("client1", &["ping", "-n", "-c", "3", "-i", "0.1", "-s", "3000", server]);
    assert!(out.contains(" 0% packet loss"), "{out}");
    let out = bare.lab.try_on("client1", &["iperf3", "-6", "-c", server, "-p", "5300", "-n", "4M"]);
    assert!(out.ok(), "{}{}", out.stdout, out.stderr);
}
