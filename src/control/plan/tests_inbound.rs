//! What comes from IPv4: static mappings, lifetimes, waiting SYNs.

use super::check;
use super::tests::{nat64, problems};

/// Problems of static mappings, each as its five values; line 3 is the first of them.
fn static_bib(entries: &[[&str; 5]]) -> Vec<String> {
    let entry = |[protocol, host, port6, pool, port4]: &[&str; 5]| {
        format!(
            "[[nat64.static]]\nprotocol = \"{protocol}\"\ninternal-address = \"{host}\"\n\
             internal-port = {port6}\nexternal-address = \"{pool}\"\nexternal-port = {port4}\n"
        )
    };
    nat64(&entries.iter().map(entry).collect::<String>())
}

#[test]
fn f05_static_mappings_are_checked() {
    const HOST: &str = "2001:db8:6::1";
    const POOL: &str = "198.51.100.1";
    // The same ports for another protocol, and another host's, do not collide.
    assert_eq!(
        static_bib(&[
            ["tcp", HOST, "80", POOL, "80"],
            ["udp", HOST, "80", POOL, "80"],
            ["tcp", "2001:db8:6::2", "80", POOL, "81"],
            ["icmp", HOST, "0", POOL, "0"],
        ]),
        [""; 0]
    );
    let one = |protocol, host, port6, pool, port4| static_bib(&[[protocol, host, port6, pool, port4]]);
    assert_eq!(one("sctp", HOST, "80", POOL, "80"), ["4 nat64.static[0].protocol: bad-value"]);
    assert_eq!(one("tcp", "fe80::1", "80", POOL, "80"), ["5 nat64.static[0].internal-address: not-unicast"]);
    assert_eq!(
        one("tcp", "64:ff9b::1.2.3.4", "80", POOL, "80"),
        ["5 nat64.static[0].internal-address: in-pool6"]
    );
    assert_eq!(
        one("tcp", "2001:db8:7::1", "80", POOL, "80"),
        ["5 nat64.static[0].internal-address: static-not-served"]
    );
    assert_eq!(one("tcp", HOST, "0", POOL, "80"), ["6 nat64.static[0].internal-port: out-of-range"]);
    assert_eq!(one("tcp", HOST, "80", POOL, "65536"), ["8 nat64.static[0].external-port: out-of-range"]);
    assert_eq!(
        one("tcp", HOST, "80", "203.0.113.1", "80"),
        ["7 nat64.static[0].external-address: static-not-in-pool"]
    );
    assert_eq!(
        one("tcp", HOST, "80", POOL, "1024"),
        ["8 nat64.static[0].external-port: static-port-given-out"]
    );
    assert_eq!(
        static_bib(&[["tcp", HOST, "80", POOL, "80"], ["tcp", HOST, "80", POOL, "81"]]),
        ["12 nat64.static[1].internal-port: duplicate"]
    );
    assert_eq!(
        static_bib(&[["tcp", HOST, "80", POOL, "80"], ["tcp", HOST, "81", POOL, "80"]]),
        ["14 nat64.static[1].external-port: duplicate"]
    );
}

#[test]
fn g08_lifetimes_of_single_ports_are_checked() {
    let timers = |entries: &str| nat64(&format!("nat64.timers.per-port-timeout = [{entries}]"));
    assert_eq!(timers("{ port-number = 53, timeout = 10 }, { port-number = 5353, timeout = 120 }"), [""; 0]);
    let floor = ["3 nat64.timers.per-port-timeout[0].timeout: timer-too-short"];
    assert_eq!(timers("{ port-number = 5353, timeout = 119 }"), floor);
    assert_eq!(timers("{ port-number = 1024, timeout = 10 }"), floor);
    assert_eq!(timers("{ port-number = 1023, timeout = 0 }"), floor);
    assert_eq!(
        timers("{ port-number = 53, timeout = 10 }, { port-number = 53, timeout = 20 }"),
        ["3 nat64.timers.per-port-timeout[1].port-number: duplicate"]
    );
}

#[test]
fn f33_a_syn_from_outside_waits_six_seconds_at_least() {
    let problem = ["3 nat64.timers.tcp-in-syn-timeout: timer-too-short"];
    assert_eq!(nat64("nat64.timers.tcp-in-syn-timeout = 5"), problem);
    assert_eq!(nat64("nat64.timers.tcp-in-syn-timeout = 6"), [""; 0]);
}

#[test]
fn f01_there_is_nothing_to_run_without_a_prefix_or_a_pool_address() {
    assert_eq!(problems("[nat64]\n"), ["1 nat64.pool4: missing"]);
    assert_eq!(problems("nat64.pool4 = []\n"), ["1 nat64.pool4: empty"]);
    assert_eq!(nat64("nat64.pool6 = []\n"), ["3 nat64.pool6: empty"]);
}

/// What needs an address of its own, or none.
#[test]
fn an_address_that_is_shared_is_no_address_for_everything() {
    let shared = |more: &str| {
        problems(&format!(
            "[[unit]]\nname = \"a\"\nprefixes = [\"2001:db8:6::/64\"]\n[[nat64.pool4]]\nprefix = \"192.0.2.1/32\"\n\
             mode = \"shared\"\nports = \"40960-65535\"\n{more}"
        ))
    };
    assert_eq!(shared(""), [""; 0]);
    assert_eq!(shared("interface = \"eth0\""), ["8 nat64.pool4[0].interface: interface-unused"]);
    assert_eq!(shared("[fastpath]\nmode = \"off\""), ["9 fastpath.mode: shared-needs-fast-path"]);
    assert_eq!(shared("[fastpath]\nmode = \"require\""), [""; 0]);
    assert_eq!(shared("[nat64]\nreach-gateway = true"), ["9 nat64.reach-gateway: shared-reach"]);
    let entry = "[[nat64.static]]\nprotocol = \"tcp\"\ninternal-address = \"2001:db8:6::1\"\ninternal-port = 80\n\
                 external-address = \"192.0.2.1\"\nexternal-port = 80";
    assert_eq!(shared(entry), ["12 nat64.static[0].external-address: static-shared"]);
    // The machine's DNS64 may answer there, and its resolver be asked.
    assert_eq!(shared("[dns64]\nlisten = [\"192.0.2.1:53\"]\nupstream = [\"192.0.2.1:5353\"]"), [""; 0]);
}

#[test]
fn the_plan_says_what_is_shared() {
    let text = "[[nat64.pool4]]\nprefix = \"192.0.2.1/32\"\nmode = \"shared\"\nports = \"40960-65535\"\n\
                [[nat64.pool4]]\nprefix = \"198.51.100.0/28\"\n";
    let plan = check(text).unwrap().plan;
    assert_eq!(plan.shared(), [("192.0.2.1".parse().unwrap(), 40_960..=65_535)]);
    assert_eq!(plan.nat64().unwrap().ranges().iter().map(|r| r.shared).collect::<Vec<_>>(), [true, false]);
}
