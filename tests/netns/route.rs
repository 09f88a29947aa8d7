//! Traceroute shows the real path: every hop once, in order.

use std::time::Duration;

use sampan::lab::Cable;
use sampan::lab::demo::{hops, hops_in};
use sampan::lab::services::BIG_FILE;

use crate::support::TestLab;

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
}

/// Path MTU discovery through the translation: a narrow cable two hops away on either side, ICMP working. What the
/// routers report reaches the sender in its own family, so an upload and a download both come through.
#[test]
fn narrow_cables_two_hops_away_are_found_out() {
    for (cable, mtu) in [(Cable::Outside(1), 1000), (Cable::Outside(1), 1400), (Cable::Inside(1), 1280)] {
        let lab = TestLab::with(|options| {
            (options.inside_routers, options.outside_routers) = (2, 2);
            options.mtus = vec![(cable, mtu)];
        });
        let url = "http://portal.tinh.example/big.bin";
        let down = lab.try_on(
            "client1",
            &["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", url],
        );
        assert!(down.ok(), "download with {cable:?} {mtu}: {}", down.stderr);
        assert!(down.stdout.starts_with(&format!("{BIG_FILE} ")), "{}", down.stdout);
        let up = lab.try_on(
            "client1",
            &["iperf3", "-6", "-c", "speed.tinh.example", "-n", "4M", "--connect-timeout", "3000"],
        );
        assert!(
            up.ok() && up.took < Duration::from_secs(10),
            "upload with {cable:?} {mtu}: {}{}",
            up.stdout,
            up.stderr
        );
    }
}
