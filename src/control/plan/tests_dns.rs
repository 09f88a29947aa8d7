//! Checks of `[dns64]`: views, ranges, zones, resolvers.

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
