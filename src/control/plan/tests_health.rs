//! What is said of health, and to whom.

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
