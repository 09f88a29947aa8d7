//! What is said of health, and to whom.

use super::check;
use super::tests::nat64;

#[test]
fn health_is_checked() {
    let health = |line: &str| nat64(&format!("[health]\n{line}\n"));
    assert_eq!(health("down-after = 3\nup-after = 0\negress = []\ntargets = [\"203.0.113.1\"]"), [""; 0]);
    assert_eq!(health("down-after = 2"), ["4 health.down-after: out-of-range"]);
    assert_eq!(health("up-after = 301"), ["4 health.up-after: out-of-range"]);
    assert_eq!(health("restart-grace = 0"), ["4 health.restart-grace: out-of-range"]);
    assert_eq!(health("egress = [\"224.0.0.1\"]"), ["4 health.egress[0]: not-unicast"]);
    assert_eq!(health("targets = [\"0.0.0.0:53\"]"), ["4 health.targets[0]: not-unicast"]);
    assert_eq!(health("targets = [\"203.0.113.1:0\"]"), ["4 health.targets[0]: port-missing"]);
    assert_eq!(health("gateway = \"here.sock\""), ["4 health.gateway: not-absolute"]);
}

#[test]
fn the_two_sockets_are_two() {
    let admin = |line: &str| nat64(&format!("[admin]\n{line}\n"));
    assert_eq!(admin("dns64-socket = \"/run/d.sock\""), [""; 0]);
    assert_eq!(admin("dns64-socket = \"/run/sampan/admin.sock\""), ["4 admin.dns64-socket: duplicate"]);
}

#[test]
fn l04_l06_router_advertisements_are_checked() {
    let ra = |lines: &str| nat64(&format!("[ra]\ninterfaces = [\"eth0\"]\n{lines}\n"));
    assert_eq!(ra(""), [""; 0]);
    assert_eq!(nat64("[ra]\n"), ["3 ra.interfaces: missing"]);
    assert_eq!(nat64("[ra]\ninterfaces = []\n"), ["4 ra.interfaces: empty"]);
    assert_eq!(nat64("[ra]\ninterfaces = [\"nat64\"]\n"), ["4 ra.interfaces[0]: interface-name"]);
    assert_eq!(ra("max-interval = 3"), ["5 ra.max-interval: out-of-range"]);
    assert_eq!(ra("max-interval = 1801"), ["5 ra.max-interval: out-of-range"]);
    assert_eq!(ra("min-interval = 451"), ["5 ra.min-interval: out-of-range"]);
    assert_eq!(ra("max-interval = 4\nmin-interval = 3"), [""; 0]);
    // RFC 4861 §6.2.1: 9000 s at most, so a router never outlives its prefix (RFC 8781 §4.1).
    assert_eq!(ra("router-lifetime = 9001"), ["5 ra.router-lifetime: out-of-range"]);
    assert_eq!(ra("router-lifetime = 599"), ["5 ra.router-lifetime: out-of-range"]);
    assert_eq!(ra("pref64-lifetime = 65529"), ["5 ra.pref64-lifetime: out-of-range"]);
    assert_eq!(ra("router-lifetime = 9000\npref64-lifetime = 8999"), ["6 ra.pref64-lifetime: out-of-range"]);
    assert_eq!(ra("dns-lifetime = 599"), ["5 ra.dns-lifetime: out-of-range"]);
    assert_eq!(ra("dns = [\"fe80::1\"]"), ["5 ra.dns[0]: not-unicast"]);

    let plan = |lines: &str| {
        let text = format!(
            "nat64.pool4 = [{{ prefix = \"198.51.100.0/28\" }}]\n[ra]\ninterfaces = [\"eth0\"]\n{lines}"
        );
        check(&text).unwrap().plan.ra.unwrap()
    };
    // RFC 8781 §4.1: three times the interval, 225 units of eight seconds.
    assert_eq!((plan("").pref64_lifetime, plan("").resolvers_lifetime), (1800, 1800));
    assert_eq!(plan("max-interval = 1800").pref64_lifetime, 5400);
    assert_eq!(plan("router-lifetime = 9000").pref64_lifetime, 9000);
    assert_eq!(plan("").pref64, ["64:ff9b::/96".parse().unwrap()]);
    assert_eq!(plan("pref64 = false").pref64, []);
    assert_eq!(plan("max-interval = 8").min_interval.as_secs(), 6);
}
