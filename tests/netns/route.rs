//! Traceroute shows the real path: every hop once, in order.

use sampan::lab::demo::{hops, hops_in};

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
