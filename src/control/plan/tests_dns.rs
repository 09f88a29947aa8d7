//! Checks of `[dns64]`: views, ranges, zones, resolvers.

use std::time::Duration;

use super::ConnectionsPlan;
use super::check;
use super::tests::{MINIMAL, problems};

fn dns64_with(lines: &str) -> Vec<String> {
    let units = "[[unit]]\nname = \"a\"\nprefixes = [\"2001:db8:6::/64\"]\n";
    problems(&format!(
        "nat64.pool6 = [\"2001:db8:64::/96\"]\nnat64.pool4 = [{{ prefix = \"198.51.100.0/28\" }}]\n\
         dns64.listen = [\"::1\"]\ndns64.upstream = [\"203.0.113.53\"]\n{lines}\n{units}"
    ))
}

#[test]
fn k12_k37_views_and_ranges_are_checked() {
    assert_eq!(dns64_with("dns64.view = [{ name = \"v\", units = [\"a\"], mode = \"always\" }]"), [""; 0]);
    assert_eq!(dns64_with("dns64.view = [{ name = \"v\" }]"), ["5 dns64.view[0]: view-for-nobody"]);
    assert_eq!(
        dns64_with(
            "dns64.view = [{ name = \"v\", units = [\"a\", \"b\"] }, { name = \"v\", clients = [\"::/0\"] }]"
        ),
        ["5 dns64.view[0].units[1]: unknown-unit", "5 dns64.view[1].name: duplicate"]
    );
    assert_eq!(
        dns64_with(
            "dns64.view = [{ name = \"v\", units = [\"a\"], prefixes = [\"2001:db8:65::/96\"], mode = \"x\" }]"
        ),
        ["5 dns64.view[0].mode: bad-value", "5 dns64.view[0].prefixes[0]: not-of-translator"]
    );
    assert_eq!(
        dns64_with("dns64.range = [{ ipv4 = \"10.0.0.0/8\", prefixes = [\"64:ff9b::/96\"] }]"),
        ["5 dns64.range[0].prefixes[0]: not-of-translator"]
    );
    assert_eq!(dns64_with("dns64.limit = { burst = 0 }"), ["5 dns64.limit.burst: out-of-range"]);
}

#[test]
fn local_zones_and_other_resolvers_are_checked() {
    let zone = |records: &str| {
        dns64_with(&format!("dns64.zone = [{{ name = \"so.example\", records = [{records}] }}]"))
    };
    assert_eq!(
        zone(
            "\"portal A 192.0.2.1\", \"@ 60 AAAA 2001:db8::1\", \"www CNAME portal.so.example\", \"t TXT two words\""
        ),
        [""; 0]
    );
    for bad in [
        "",
        "portal",
        "portal A",
        "portal A 2001:db8::1",
        "a.example. A 192.0.2.1",
        "a MX 10 b",
        "a x A 192.0.2.1",
        "a CNAME",
    ] {
        assert_eq!(zone(&format!("\"{bad}\"")), ["5 dns64.zone[0].records[0]: bad-record"], "{bad}");
    }
    assert_eq!(
        zone("\"a A 192.0.2.1\", \"A CNAME b.example\""),
        ["5 dns64.zone[0].records[1]: alias-with-others"]
    );
    let forward = |names: &str, upstream: &str| {
        dns64_with(&format!("dns64.forward = [{{ names = [{names}], upstream = [{upstream}] }}]"))
    };
    assert_eq!(forward("\"example\"", "\"tls://203.0.113.54#dns.example\""), [""; 0]);
    assert_eq!(
        forward("\"example\", \"EXAMPLE.\"", "\"203.0.113.54\""),
        ["5 dns64.forward[0].names[1]: duplicate"]
    );
    assert_eq!(forward("\"example\"", "\"::1\""), ["5 dns64.forward[0].upstream[0]: dns-loop"]);
    assert_eq!(forward("\"not a name\"", "\"203.0.113.54\""), ["5 dns64.forward[0].names[0]: bad-value"]);
    for bad in [
        "tls://203.0.113.54",
        "tls://dns.example#dns.example",
        "https://203.0.113.54#dns.example",
        "quic://x#y",
    ] {
        assert_eq!(
            forward("\"example\"", &format!("\"{bad}\"")),
            ["5 dns64.forward[0].upstream[0]: bad-value"],
            "{bad}"
        );
    }
}

#[test]
fn resolvers_are_shown_as_they_are_written() {
    let text = "dns64.upstream = [\"203.0.113.53\", \"tls://[2001:db8::53]:8853#dns.example\", \"https://203.0.113.54/dns-query#dns.example\"]\ndns64.listen = [\"::1\"]\n";
    let plan = check(&format!("{text}{MINIMAL}")).unwrap().plan.dns64.unwrap();
    let shown: Vec<_> = plan.upstream.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "203.0.113.53:53",
            "tls://[2001:db8::53]:8853#dns.example",
            "https://203.0.113.54:443/dns-query#dns.example"
        ]
    );
}

#[test]
fn k48_listeners_for_tls_and_https_are_checked() {
    let tls = |keys: &str| dns64_with(&format!("dns64.tls = {{ {keys} }}"));
    let files = "certificate = \"/c\", key = \"/k\"";
    assert_eq!(tls(&format!("{files}, listen = [\"::1\"], https = [\"::1\", \"[::1]:8443\"]")), [""; 0]);
    assert_eq!(tls(files), ["5 dns64.tls: tls-nowhere"]);
    assert_eq!(tls("listen = [\"::1\"]"), ["5 dns64.tls.certificate: missing", "5 dns64.tls.key: missing"]);
    // The port of UDP and TCP, and one for two services.
    assert_eq!(tls(&format!("{files}, listen = [\"[::1]:53\"]")), ["5 dns64.tls.listen[0]: duplicate"]);
    assert_eq!(
        tls(&format!("{files}, listen = [\"[::1]:443\"], https = [\"::1\"]")),
        ["5 dns64.tls.https[0]: duplicate"]
    );
    for path in ["", "dns-query", "/a b", "/a?b", "/ă"] {
        let keys = format!("{files}, https = [\"::1\"], https-path = \"{path}\"");
        assert_eq!(tls(&keys), ["5 dns64.tls.https-path: bad-value"], "{path}");
    }
    assert_eq!(
        dns64_with("dns64.connections = { most = 0, per-client = 70000, idle = 0, handshake = 61 }"),
        ["handshake", "idle", "most", "per-client"]
            .map(|key| format!("5 dns64.connections.{key}: out-of-range"))
    );
    assert_eq!(dns64_with("dns64.top-names = 1001"), ["5 dns64.top-names: out-of-range"]);
    // Asking oneself over TLS is as endless as asking oneself over UDP.
    let ourselves = "dns64.forward = [{ names = [\"a\"], upstream = [\"tls://[::1]#a\"] }]";
    assert_eq!(
        dns64_with(&format!("dns64.tls = {{ {files}, listen = [\"::1\"] }}\n{ourselves}")),
        ["6 dns64.forward[0].upstream[0]: dns-loop"]
    );
}

#[test]
fn what_is_left_out_of_the_connections_is_as_ever() {
    let dns = |keys: &str| {
        check(&format!("dns64 = {{ listen = [\"::1\"], upstream = [\"203.0.113.53\"]{keys} }}\n{MINIMAL}"))
    };
    let plan = dns(", connections.idle = 3").unwrap().plan.dns64.unwrap();
    assert_eq!((plan.tls, plan.upstream_ca, plan.top_names), (None, None, 0));
    let expected = ConnectionsPlan {
        most: 512,
        per_client: 16,
        idle: Duration::from_secs(3),
        handshake: Duration::from_secs(5),
    };
    assert_eq!(plan.connections, expected);
}
