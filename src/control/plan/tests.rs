use super::*;
use crate::control::config::{Apply, File, Need, Row, Value};
use crate::text::Lang;

pub(super) const MINIMAL: &str = "[[nat64.pool4]]\nprefix = \"198.51.100.0/28\"\n";

/// `line path: code` of every problem, errors and warnings.
pub(super) fn problems(text: &str) -> Vec<String> {
    let found = match check(text) {
        Ok(checked) => checked.warnings,
        Err(found) => found,
    };
    let line = |p: &Problem| p.line.map_or("-".into(), |line| line.to_string());
    found.iter().map(|p| format!("{} {}: {}", line(p), p.path, p.fault.code())).collect()
}

/// Problems of `[nat64]` with the given lines in front of a good pool4 and one unit; line 1 is the first of `lines`.
pub(super) fn nat64(lines: &str) -> Vec<String> {
    problems(&format!(
        "nat64.pool4 = [{{ prefix = \"198.51.100.0/28\" }}]\nunit = [{{ name = \"a\", prefixes = [\"2001:db8:6::/64\"] }}]\n{lines}"
    ))
}

#[test]
fn the_smallest_file_works() {
    let checked = check(MINIMAL).unwrap();
    assert_eq!(checked.plan.nat64().unwrap().pool6, [Pref64::well_known()], "A-08");
    assert_eq!(checked.plan.nat64().unwrap().pool4.len(), 1);
    assert_eq!(checked.plan.nat64().unwrap().timers, Timers::default());
    assert_eq!(checked.plan.dns64, None);
    assert_eq!(problems(MINIMAL), ["- unit: no-units"]);
}

#[test]
fn a_file_that_spells_out_every_default_gives_the_same_plan() {
    fn spell(out: &mut String, path: &str, rows: &[Row]) {
        for row in rows.iter().filter(|row| row.key != "siit") {
            let path = if path.is_empty() { row.key.to_owned() } else { format!("{path}.{}", row.key) };
            if let (Need::Default(value), true) = (row.need, row.rows.is_empty()) {
                out.push_str(&format!("{path} = {value}\n"));
            }
            if !row.list {
                spell(out, &path, row.rows);
            }
        }
    }
    // Tables that are not there by default, with what they require.
    let required = "dns64.listen = [\"::1\"]\ndns64.upstream = [\"203.0.113.53\"]\nra.interfaces = [\"eth0\"]\n\
                    dns64.tls.certificate = \"/c\"\ndns64.tls.key = \"/k\"\ndns64.tls.listen = [\"::1\"]\n";
    let mut text = required.to_owned();
    spell(&mut text, "", File::ROWS);
    assert!(text.contains("nat64.timers.udp-timeout = 300\n"), "{text}");
    text.push_str(
        "[[nat64.pool4]]\nprefix = \"198.51.100.0/28\"\nports = \"1024-65535\"\nmode = \"routed\"\n",
    );
    assert_eq!(check(&text).unwrap().plan, check(&format!("{required}{MINIMAL}")).unwrap().plan);
}

#[test]
fn tables_inherit_how_they_apply() {
    fn walk(rows: &[Row]) {
        for row in rows {
            if row.rows.is_empty() {
                assert_ne!(row.apply, Apply::Below, "{}", row.key);
                assert!(!row.text.is_empty() && !(row.kind)().is_empty(), "{}", row.key);
            }
            walk(row.rows);
        }
    }
    walk(File::ROWS);
}

#[test]
fn everything_is_reported_at_once() {
    let text = "\
[nat64]
pool6 = [\"2001:db8::/95\", \"2001:db8:64::1/96\"]
subscribr = 64
block-size = \"big\"
[[nat64.pool4]]
prefix = \"198.51.100.0/28\"
ports = \"70000\"
[[nat64.pool4]]
[colour]
";
    assert_eq!(
        problems(text),
        [
            "2 nat64.pool6[0]: pref64-length",
            "2 nat64.pool6[1]: host-bits",
            "3 nat64.subscribr: misspelt-key",
            "4 nat64.block-size: wrong-type",
            "7 nat64.pool4[0].ports: bad-value",
            "8 nat64.pool4[1].prefix: missing",
            "9 colour: unknown-key",
        ]
    );
}

#[test]
fn notation() {
    // Both broken lines are named.
    let broken = problems("[nat64\npool6 = [}\n");
    assert!(
        broken.iter().any(|p| p == "1 : syntax") && broken.iter().any(|p| p == "2 : syntax"),
        "{broken:?}"
    );
    assert_eq!(problems("[nat64]\nworkers = 1\nworkers = 2\n"), ["3 : syntax"]);
    assert_eq!(problems(""), ["- nat64: missing"]);
    assert_eq!(problems("nat64 = 3"), ["1 nat64: wrong-type"]);
    assert_eq!(problems("[nat64]"), ["1 nat64.pool4: missing"], "F-01");
    assert_eq!(problems("[nat64]\npool4 = []"), ["2 nat64.pool4: empty"], "F-01");
    assert_eq!(problems("[nat64]\npool4 = [3]"), ["2 nat64.pool4[0]: wrong-type"]);
}

#[test]
fn a_misspelt_key_names_its_neighbour() {
    let found = check(&format!("{MINIMAL}[nat64.timers]\nudp_timeout = 300\n")).unwrap_err();
    let view = found.iter().find(|p| p.is_error()).unwrap().view(Lang::En);
    assert_eq!(view.remedy, "did you mean `udp-timeout`?");
    assert_eq!((view.path.as_str(), view.line), ("nat64.timers.udp_timeout", Some(4)));
    let view = found.iter().find(|p| p.is_error()).unwrap().view(Lang::Vi);
    assert_eq!(view.message, "ở đây không có khoá `udp_timeout`");
}

#[test]
fn a01_a04_translation_prefixes() {
    let pool6 = |list: &str| nat64(&format!("[nat64]\npool6 = {list}"));
    // A table header after a dotted key of the same table is not TOML; write it as a dotted key.
    assert_eq!(pool6("[]"), ["3 : syntax"]);
    let pool6 = |list: &str| nat64(&format!("nat64.pool6 = {list}"));
    for len in ["33", "72", "95", "128"] {
        assert_eq!(pool6(&format!("[\"2001:db8::/{len}\"]")), ["3 nat64.pool6[0]: pref64-length"]);
    }
    for prefix in
        ["64:ff9b::/96", "64:ff9b:1::/48", "64:ff9b:1:fffe::/96", "2001:db8::/32", "2001:db8:0:1::/64"]
    {
        let unit_inside = prefix == "2001:db8::/32";
        let expected: &[&str] = if unit_inside {
            &["2 unit[0].prefixes[0]: in-pool6", "3 nat64.pool6[0]: pref64-wide"]
        } else {
            &[]
        };
        assert_eq!(pool6(&format!("[\"{prefix}\"]")), expected);
    }
    assert_eq!(pool6("[\"2001:db8:0:0:100::/96\"]"), ["3 nat64.pool6[0]: octet-u"]);
    assert_eq!(pool6("[]"), ["3 nat64.pool6: empty"]);
    assert_eq!(pool6("[\"64:ff9b::/64\"]"), ["3 nat64.pool6[0]: near-well-known"]);
    assert_eq!(pool6("[\"fe80::/96\"]"), ["3 nat64.pool6[0]: not-unicast"]);
    assert_eq!(pool6("[\"ff0e::/96\"]"), ["3 nat64.pool6[0]: not-unicast"]);
    assert_eq!(pool6("[\"::/96\"]"), ["3 nat64.pool6[0]: not-unicast"]);
    assert_eq!(pool6("[\"2001:db8:1::/48\", \"2001:db8:1:2::/64\"]"), ["3 nat64.pool6[1]: overlap"]);
    assert_eq!(pool6("[\"10.0.0.0/8\"]"), ["3 nat64.pool6[0]: bad-value"]);
    assert_eq!(pool6("[\"2001:db8::/129\"]"), ["3 nat64.pool6[0]: prefix-length"]);
}

#[test]
fn pool4_ranges() {
    let pool4 = |entry: &str| {
        problems(&format!(
            "unit = [{{ name = \"a\", prefixes = [\"2001:db8:6::/64\"] }}]\n[[nat64.pool4]]\n{entry}"
        ))
    };
    let ports = |range: &str| pool4(&format!("prefix = \"198.51.100.0/28\"\nports = \"{range}\""));
    assert_eq!(ports("1024-65535"), [""; 0]);
    assert_eq!(ports("65535-1024"), ["4 nat64.pool4[0].ports: ports-reversed"]);
    assert_eq!(ports("0-65535"), ["4 nat64.pool4[0].ports: port-zero"]);
    assert_eq!(ports("1024-1100"), ["4 nat64.pool4[0].ports: ports-below-block"]);
    assert_eq!(ports("1024-2000"), ["4 nat64.pool4[0].ports: ports-left-over"]);
    assert_eq!(ports("1024-70000"), ["4 nat64.pool4[0].ports: bad-value"]);
    assert_eq!(ports("http"), ["4 nat64.pool4[0].ports: bad-value"]);
    for bad in ["224.0.0.0/28", "127.0.0.0/24", "240.0.0.0/28", "0.0.0.0/28", "255.255.255.255"] {
        assert_eq!(pool4(&format!("prefix = \"{bad}\"")), ["3 nat64.pool4[0].prefix: not-unicast"]);
    }
    assert_eq!(pool4("prefix = \"198.51.100.1/28\""), ["3 nat64.pool4[0].prefix: host-bits"]);
    assert_eq!(pool4("prefix = \"100.64.0.0/10\""), ["2 nat64.pool4: pool-too-large"]);
    assert_eq!(
        pool4("prefix = \"198.51.100.0/28\"\n[[nat64.pool4]]\nprefix = \"198.51.100.8/29\""),
        ["5 nat64.pool4[1].prefix: overlap"]
    );
    let mode = |lines: &str| pool4(&format!("prefix = \"198.51.100.0/28\"\n{lines}"));
    assert_eq!(mode("mode = \"onlink\"\ninterface = \"eth0\""), [""; 0]);
    assert_eq!(mode("mode = \"onlink\""), ["2 nat64.pool4[0].interface: interface-needed"]);
    assert_eq!(mode("interface = \"eth0\""), ["4 nat64.pool4[0].interface: interface-unused"]);
    assert_eq!(
        mode("mode = \"onlink\"\ninterface = \"eth0 or so, the long one\""),
        ["5 nat64.pool4[0].interface: interface-name"]
    );
    assert_eq!(
        mode("mode = \"onlink\"\ninterface = \"nat64\""),
        ["5 nat64.pool4[0].interface: interface-is-tun"]
    );
    assert_eq!(mode("mode = \"bridge\""), ["4 nat64.pool4[0].mode: bad-value"]);
    assert_eq!(mode("mode = \"shared\""), ["3 nat64.pool4[0].prefix: shared-prefix"]);
    assert_eq!(
        pool4("prefix = \"198.51.100.0\"\nports = \"1024-2047\"\n[nat64]\nworkers = 3"),
        ["2 nat64.pool4: pool-too-small"]
    );
}

#[test]
fn f16_f39_f48_timers_have_floors() {
    let timer = |line: &str| nat64(&format!("nat64.timers.{line}"));
    let short = |key: &str| vec![format!("3 nat64.timers.{key}: timer-too-short")];
    assert_eq!(timer("udp-timeout = 119"), short("udp-timeout"));
    assert_eq!(timer("udp-timeout = 120"), [""; 0]);
    assert_eq!(timer("tcp-idle-timeout = 7199"), short("tcp-idle-timeout"));
    assert_eq!(timer("tcp-idle-timeout = 7200"), [""; 0]);
    assert_eq!(timer("tcp-trans-close-timeout = 239"), short("tcp-trans-close-timeout"));
    assert_eq!(timer("tcp-trans-open-timeout = 239"), ["3 nat64.timers.tcp-trans-open-timeout: timer-short"]);
    assert_eq!(timer("tcp-trans-open-timeout = 5"), short("tcp-trans-open-timeout"));
    assert_eq!(timer("icmp-timeout = 59"), short("icmp-timeout"));
    assert_eq!(timer("icmp-timeout = 60"), [""; 0]);
    assert_eq!(timer("icmp-timeout = 9999999"), ["3 nat64.timers.icmp-timeout: out-of-range"]);
    assert_eq!(timer("udp-timeout = -1"), ["3 nat64.timers.udp-timeout: out-of-range"]);
    let found = check(&format!("{MINIMAL}[nat64]\ntimers.udp-timeout = 5")).unwrap_err();
    assert!(found.iter().any(|p| p.fault.what(Lang::En).contains("RFC 6146 §4")), "{found:?}");
}

#[test]
fn numbers() {
    let out = |line: &str, key: &str| assert_eq!(nat64(line), [format!("3 nat64.{key}: out-of-range")]);
    out("nat64.subscriber = 0", "subscriber");
    out("nat64.subscriber = 129", "subscriber");
    out("nat64.block-size = 32", "block-size");
    out("nat64.block-size = 8192", "block-size");
    out("nat64.workers = 0", "workers");
    out("nat64.workers = 65", "workers");
    out("nat64.sessions = 0", "sessions");
    out("nat64.sessions = 99999999999999999999", "sessions");
    out("nat64.mtu6 = 1279", "mtu6");
    out("nat64.mtu4 = 67", "mtu4");
    out("nat64.mtu4 = 65536", "mtu4");
    assert_eq!(nat64("nat64.block-size = 500"), ["3 nat64.block-size: not-power-of-two"]);
    assert_eq!(nat64("nat64.workers = 2.5"), ["3 nat64.workers: wrong-type"]);
    assert_eq!(
        nat64("nat64.mtu6 = 1400\nnat64.lowest-ipv6-mtu = 1500"),
        ["4 nat64.lowest-ipv6-mtu: mtu-order"]
    );
    assert_eq!(nat64("nat64.icmp6-source = \"fe80::1\""), ["3 nat64.icmp6-source: not-unicast"]);
    assert_eq!(nat64("nat64.icmp6-source = \"64:ff9b::1\""), ["3 nat64.icmp6-source: in-pool6"]);
    assert_eq!(nat64("nat64.filtering.udp = \"strict\""), ["3 nat64.filtering.udp: bad-value"]);
    assert_eq!(nat64("nat64.subscriber = 56"), ["2 unit[0].prefixes[0]: shared-subscriber"]);
}

#[test]
fn units() {
    let units = |list: &str| problems(&format!("{MINIMAL}{list}"));
    let unit = |name: &str, prefixes: &str| format!("[[unit]]\nname = \"{name}\"\nprefixes = [{prefixes}]\n");
    let a = unit("Sở Tài chính", "\"2001:db8:6::/64\"");
    assert_eq!(units(&a), [""; 0]);
    assert_eq!(
        units(&format!("{a}{a}")),
        ["7 unit[1].name: duplicate-name", "8 unit[1].prefixes[0]: duplicate"]
    );
    assert_eq!(units(&format!("{a}{}", unit("b", "\"2001:db8::/32\""))), ["8 unit[1].prefixes[0]: overlap"]);
    assert_eq!(units(&unit("b", "")), ["5 unit[0].prefixes: empty"]);
    assert_eq!(units(&unit("", "\"2001:db8:6::/64\"")), ["4 unit[0].name: bad-name"]);
    assert_eq!(units(&unit("b", "\"64:ff9b::/96\"")), ["5 unit[0].prefixes[0]: in-pool6"]);
    assert_eq!(units(&unit("b", "\"::/0\"")), ["5 unit[0].prefixes[0]: not-unicast"]);
    assert_eq!(units(&unit("b", "\"10.0.0.0/8\"")), ["5 unit[0].prefixes[0]: bad-value"]);
    assert_eq!(units("[[unit]]\n"), ["3 unit[0].name: missing", "3 unit[0].prefixes: missing"]);
}

#[test]
fn allowed_destinations() {
    let allow = |prefix: &str| {
        nat64(&format!("nat64.pool6 = [\"2001:db8:64::/96\"]\nnat64.allow = [{{ prefix = \"{prefix}\" }}]"))
    };
    assert_eq!(allow("10.0.0.0/8"), [""; 0]);
    assert_eq!(allow("8.0.0.0/6"), [""; 0], "holds 10.0.0.0/8");
    assert_eq!(allow("8.8.8.0/24"), ["4 nat64.allow[0].prefix: allow-global"]);
    assert_eq!(allow("127.0.0.0/8"), ["4 nat64.allow[0].prefix: not-unicast"]);
    assert_eq!(allow("0.0.0.0/0"), ["4 nat64.allow[0].prefix: not-unicast"]);
    assert_eq!(
        nat64("nat64.allow = [{ prefix = \"10.0.0.0/8\" }]"),
        ["3 nat64.allow: allow-without-effect"],
        "A-10"
    );
}

#[test]
fn dns64() {
    let dns = |lines: &str| nat64(&format!("[dns64]\n{lines}"));
    let pair = |listen: &str, upstream: &str| dns(&format!("listen = [{listen}]\nupstream = [{upstream}]"));
    assert_eq!(pair("\"[2001:db8:6::1]:53\"", "\"203.0.113.53\""), [""; 0]);
    assert_eq!(dns(""), ["3 dns64.listen: missing", "3 dns64.upstream: missing"]);
    assert_eq!(pair("", "\"203.0.113.53\""), ["4 dns64.listen: empty"]);
    assert_eq!(pair("\"::1\", \"[::1]:53\"", "\"203.0.113.53\""), ["4 dns64.listen[1]: duplicate"]);
    assert_eq!(pair("\"[::1]:0\"", "\"203.0.113.53\""), ["4 dns64.listen[0]: port-missing"]);
    assert_eq!(pair("\"ff02::1\"", "\"203.0.113.53\""), ["4 dns64.listen[0]: not-unicast"]);
    assert_eq!(pair("\"198.51.100.3\"", "\"203.0.113.53\""), ["4 dns64.listen[0]: in-pool4"]);
    assert_eq!(pair("\"::1\"", "\"64:ff9b::cb00:7135\""), ["5 dns64.upstream[0]: in-pool6"]);
    assert_eq!(pair("\"::1\"", "\"::1\""), ["5 dns64.upstream[0]: dns-loop"]);
    assert_eq!(pair("\"[::]:53\"", "\"::1\""), ["5 dns64.upstream[0]: dns-loop"]);
    assert_eq!(pair("\"[::]:53\"", "\"[::1]:5353\""), [""; 0]);
    assert_eq!(pair("\"::1\"", "\"::\""), ["5 dns64.upstream[0]: not-unicast"]);
    assert_eq!(pair("\"::1\"", "\"dns.example\""), ["5 dns64.upstream[0]: bad-value"]);
    let plan = |text: &str| check(text).unwrap().plan.dns64.unwrap();
    let both = "listen = [\"::1\"]\nupstream = [\"203.0.113.53\"]\n";
    let open = plan(&format!("{MINIMAL}[dns64]\n{both}"));
    let address: std::net::SocketAddr = "203.0.113.53:53".parse().unwrap();
    assert_eq!(open.upstream, [address.into()]);
    assert_eq!(open.settings.clients, dns64::Clients::default(), "loopback only");
    assert_eq!(
        problems(&format!("{MINIMAL}[dns64]\n{both}")),
        ["- unit: no-units", "3 dns64.allow: nobody-may-ask"]
    );
    let units = format!("{MINIMAL}[dns64]\n{both}[[unit]]\nname = \"a\"\nprefixes = [\"2001:db8:6::/64\"]\n");
    assert!(plan(&units).settings.clients.contains("2001:db8:6::9".parse().unwrap()));
    assert!(!plan(&units).settings.clients.contains("2001:db8:7::9".parse().unwrap()));
}

#[test]
fn files_and_names() {
    assert_eq!(nat64("nat64.key-file = \"key\""), ["3 nat64.key-file: not-absolute"]);
    assert_eq!(nat64("admin.socket = \"run/x\""), ["3 admin.socket: not-absolute"]);
    assert_eq!(
        nat64(&format!("admin.socket = \"/{}\"", "x".repeat(107))),
        ["3 admin.socket: socket-path-long"]
    );
    assert_eq!(nat64("tun.name = \"a-name-of-16-byt\""), ["3 tun.name: interface-name"]);
    assert_eq!(nat64("tun.name = \"nat%d\""), ["3 tun.name: interface-name"]);
    assert_eq!(nat64("log.level = \"loud\""), ["3 log.level: bad-value"]);
}

#[test]
fn a_missing_file_says_so() {
    let found = load(Path::new("/nonexistent/sampan.toml")).unwrap_err();
    assert_eq!(found.first().map(|p| p.fault.code()), Some("unreadable".into()));
}

#[test]
fn mtus_default_to_the_interfaces() {
    let plan = check(&format!("[nat64]\nmtu4 = 1400\n{MINIMAL}")).unwrap().plan.nat64().unwrap().clone();
    assert_eq!(plan.mtu.resolve(9000, 9000), Mtu { v6: 9000, v4: 1400, lowest_ipv6: 1280 });
    assert_eq!(check(MINIMAL).unwrap().plan.workers(128), MAX_WORKERS);
    assert_eq!(check(MINIMAL).unwrap().plan.workers(0), 1);
}

/// Problems of `[siit]` with the given lines behind a good one.
fn siit(lines: &str) -> Vec<String> {
    problems(&format!("siit.prefix = \"2001:db8:64::/96\"\nsiit.icmp6-pool4 = [\"198.51.100.9\"]\n{lines}"))
}

fn eams(rows: &[(&str, &str)]) -> String {
    let row = |(ipv4, ipv6): &(&str, &str)| format!("[[siit.eam]]\nipv4 = \"{ipv4}\"\nipv6 = \"{ipv6}\"\n");
    rows.iter().map(row).collect()
}

#[test]
fn the_smallest_stateless_file_works() {
    let text = format!(
        "[siit]\nprefix = \"2001:db8:64::/96\"\nicmp6-pool4 = [\"198.51.100.9\"]\n{}",
        eams(&[("192.0.2.1", "2001:db8:6::11")])
    );
    assert_eq!(problems(&text), [""; 0]);
    let plan = check(&text).unwrap().plan;
    let siit = plan.siit().unwrap();
    assert_eq!(plan.nat64(), None);
    assert_eq!(siit.routed6(), ["2001:db8:64::/96".parse().unwrap()]);
    assert_eq!(siit.routed4(), ["192.0.2.1/32", "198.51.100.9/32"].map(|p| p.parse().unwrap()));
    assert!(siit.interface_info);
    let spelt = "interface-info = true\nudp-zero-checksum = \"drop\"\nhairpin = \"intrinsic\"\n\
                 icmp-errors-per-second = 1000\nlowest-ipv6-mtu = 1280\n";
    assert_eq!(check(&text.replace("[siit]\n", &format!("[siit]\n{spelt}"))).unwrap().plan, plan);
}

#[test]
fn one_translator_and_only_one() {
    let both = format!("{MINIMAL}[siit]\nprefix = \"2001:db8:64::/96\"\n");
    assert!(problems(&both).contains(&"3 siit: two-translators".into()), "{:?}", problems(&both));
    assert_eq!(problems("[siit]"), ["1 siit.prefix: missing"]);
    assert_eq!(problems("[admin]"), ["- nat64: missing"]);
}

#[test]
fn a01_a12_a17_stateless_prefix() {
    for prefix in ["2001:db8:100::/40", "2001:db8:122::/48", "2001:db8:122:300::/56", "2001:db8:122:344::/64"]
    {
        let text = format!("siit.prefix = \"{prefix}\"\nsiit.icmp6-pool4 = [\"198.51.100.9\"]\n");
        assert_eq!(problems(&text), ["1 siit: nothing-mapped"], "{prefix}");
    }
    assert_eq!(problems("siit.prefix = \"2001:db8::/33\""), ["1 siit.prefix: pref64-length"]);
    let well_known = format!("siit.prefix = \"64:ff9b::/96\"\n{}", eams(&[("192.0.2.1", "2001:db8::1")]));
    assert_eq!(
        problems(&well_known),
        ["1 siit.icmp6-pool4: no-icmp-pool", "1 siit.prefix: well-known-stateless"]
    );
}

#[test]
fn a18_the_well_known_prefix_is_the_default_and_another_one_may_be_chosen() {
    let pool6 =
        |lines: &str| check(&format!("{lines}{MINIMAL}")).unwrap().plan.nat64().unwrap().pool6.clone();
    assert_eq!(pool6(""), [Pref64::well_known()]);
    let spelt = File::ROWS.iter().find(|row| row.key == "nat64").unwrap().rows.iter();
    let default = spelt.clone().find(|row| row.key == "pool6").unwrap().need;
    assert_eq!(default, Need::Default("[\"64:ff9b::/96\"]"), "and the reference says so");
    assert_eq!(pool6("nat64.pool6 = [\"2001:db8:64::/96\"]\n"), ["2001:db8:64::/96".parse().unwrap()]);
    // The shipped file to begin with names none.
    let shipped = include_str!("../../../deploy/examples/minimal.toml");
    assert_eq!(check(shipped).unwrap().plan.nat64().unwrap().pool6, [Pref64::well_known()]);
}

#[test]
fn a19_a_whole_providers_allocation_is_worth_a_word() {
    for (prefix, found) in [
        ("2001:db8::/32", vec!["3 nat64.pool6[0]: pref64-wide"]),
        ("2001:db8:100::/40", vec![]),
        ("2001:db8:122:300::/56", vec![]),
        ("2001:db8:122:344::/64", vec![]),
        ("2001:db8:122:344::/96", vec![]),
    ] {
        let text = format!(
            "nat64.pool4 = [{{ prefix = \"198.51.100.0/28\" }}]\n\
             unit = [{{ name = \"a\", prefixes = [\"2001:db9:6::/64\"] }}]\nnat64.pool6 = [\"{prefix}\"]"
        );
        assert_eq!(problems(&text), found, "{prefix}");
        assert!(check(&text).is_ok(), "no more than a word");
    }
    let text = format!(
        "siit.prefix = \"2001:db8::/32\"\nsiit.icmp6-pool4 = [\"198.51.100.9\"]\n{}",
        eams(&[("192.0.2.1", "2001:db9::1")])
    );
    assert_eq!(problems(&text), ["1 siit.prefix: pref64-wide"]);
}

#[test]
fn b03_c01_octets_that_are_written_whatever_the_packet_says() {
    let text = format!("nat64.tos = 0\nnat64.traffic-class = 255\n{MINIMAL}");
    let classes = Classes { tos: Some(0), traffic_class: Some(255) };
    assert_eq!(check(&text).unwrap().plan.nat64().unwrap().classes, classes);
    assert_eq!(check(MINIMAL).unwrap().plan.nat64().unwrap().classes, Classes::default());
    let text = format!(
        "siit.prefix = \"2001:db8:64::/96\"\nsiit.tos = 184\n{}",
        eams(&[("192.0.2.1", "2001:db8::1")])
    );
    let plan = check(&text).unwrap().plan;
    let settings = plan.siit().unwrap().settings(Mtu::default(), Hops::Translator);
    assert_eq!(settings.classes, Classes { tos: Some(184), traffic_class: None });
    assert_eq!(nat64("nat64.tos = 256"), ["3 nat64.tos: out-of-range"]);
    assert_eq!(nat64("nat64.traffic-class = \"ef\""), ["3 nat64.traffic-class: wrong-type"]);
    assert_eq!(siit("siit.tos = -1"), ["3 siit.tos: out-of-range"]);
}

#[test]
fn the_segment_size_is_clamped_in_both_modes_unless_switched_off() {
    let mtu = Mtu { v6: 1500, v4: 1400, lowest_ipv6: 1280 };
    let nat64 = |lines: &str| {
        let plan = check(&format!("{lines}{MINIMAL}")).unwrap().plan;
        plan.nat64().unwrap().settings(Key([0; 16]), mtu, Hops::Translator).mss_clamp
    };
    assert_eq!((nat64(""), nat64("nat64.mss-clamp = false\n")), (Some(1360), None));
    let siit = |line: &str| {
        let node = eams(&[("192.0.2.1", "2001:db8::1")]);
        let plan = check(&format!("siit.prefix = \"2001:db8:64::/96\"\n{line}{node}")).unwrap().plan;
        plan.siit().unwrap().settings(mtu, Hops::Translator).mss_clamp
    };
    assert_eq!((siit(""), siit("siit.mss-clamp = false\n")), (Some(1360), None));
}

#[test]
fn e02_e03_e17_e23_bounds_of_waiting_fragments() {
    let fragments = |lines: &str| {
        let plan = check(&format!("{lines}{MINIMAL}")).unwrap().plan;
        plan.nat64().unwrap().settings(Key([0; 16]), Mtu::default(), Hops::Translator).fragments
    };
    assert_eq!(fragments(""), Fragments::default());
    let chosen = "[nat64.fragments]\nbytes = 200000\ndatagrams = 20\ndatagrams-per-source = 3\npieces = 9\ntimeout = 7\n";
    let want = Fragments {
        bytes: 200_000,
        datagrams: 20,
        datagrams_per_source: 3,
        pieces: 9,
        timeout: std::time::Duration::from_secs(7),
    };
    assert_eq!(fragments(chosen), want);
    // One source may not have more than there are.
    assert_eq!(fragments("nat64.fragments.datagrams = 20\n").datagrams_per_source, 20);
    let line = |line: &str| nat64(&format!("nat64.fragments.{line}"));
    let out = |key: &str| vec![format!("3 nat64.fragments.{key}: out-of-range")];
    assert_eq!(line("bytes = 65536"), out("bytes"), "less than the longest datagram");
    assert_eq!(line("datagrams = 0"), out("datagrams"));
    assert_eq!(line("datagrams-per-source = 1025"), out("datagrams-per-source"));
    assert_eq!(line("pieces = 1"), out("pieces"));
    // E-03: FRAGMENT_MIN. E-17: RFC 8200 §4.5 lets nobody wait for longer than a minute.
    assert_eq!(line("timeout = 1"), out("timeout"));
    assert_eq!(line("timeout = 2"), [""; 0]);
    assert_eq!(line("timeout = 60"), [""; 0]);
    assert_eq!(line("timeout = 61"), out("timeout"));
}

#[test]
fn i01_i02_i07_explicit_mappings() {
    assert_eq!(
        siit(&eams(&[("192.0.2.1", "2001:db8::1"), ("192.0.2.0/28", "2001:db8:1::/64")])),
        ["4 siit.eam[0].ipv4: eam-overlap"]
    );
    assert_eq!(siit(&eams(&[("192.0.2.0/24", "2001:db8::/124")])), ["4 siit.eam[0].ipv4: eam-suffix"]);
    assert_eq!(
        siit(&eams(&[("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::1")])),
        ["8 siit.eam[1].ipv6: duplicate"]
    );
    assert_eq!(
        siit(&eams(&[("192.0.2.1", "2001:db8::1"), ("192.0.2.1", "2001:db8::2")])),
        ["7 siit.eam[1].ipv4: duplicate"]
    );
    assert_eq!(siit(&eams(&[("224.0.0.1", "2001:db8::1")])), ["4 siit.eam[0].ipv4: not-unicast"]);
    assert_eq!(siit(&eams(&[("0.0.0.0/0", "2001:db8:ff00::/40")])), ["4 siit.eam[0].ipv4: not-unicast"]);
    let ivi = format!("{}home = \"ipv4\"\n", eams(&[("0.0.0.0/0", "2001:db8:ff00::/40")]));
    assert_eq!(siit(&ivi), [""; 0]);
    assert_eq!(siit(&eams(&[("192.0.2.1", "ff02::1")])), ["5 siit.eam[0].ipv6: not-unicast"]);
    assert_eq!(siit("[[siit.eam]]\n"), ["3 siit.eam[0].ipv4: missing", "3 siit.eam[0].ipv6: missing"]);
    assert_eq!(siit(&format!("siit.hairpin = \"simple\"\n{ivi}")), ["4 siit.eam[0]: simple-hides-mappings"]);
}

#[test]
fn b27_b28_the_pool_for_icmp_errors() {
    let node = eams(&[("192.0.2.1", "2001:db8::1")]);
    let pool = |list: &str| {
        problems(&format!("siit.prefix = \"2001:db8:64::/96\"\nsiit.icmp6-pool4 = [{list}]\n{node}"))
    };
    assert_eq!(pool("\"198.51.100.9\", \"203.0.113.0/30\""), [""; 0]);
    for private in ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"] {
        assert_eq!(pool(&format!("\"{private}\"")), ["2 siit.icmp6-pool4[0]: private-icmp-pool"]);
    }
    assert_eq!(pool("\"192.0.2.0/30\""), ["2 siit.icmp6-pool4[0]: overlap"]);
    assert_eq!(pool("\"224.0.0.1\""), ["2 siit.icmp6-pool4[0]: not-unicast"]);
    assert_eq!(pool(""), ["2 siit.icmp6-pool4: no-icmp-pool"]);
}

#[test]
fn stateless_numbers_and_words() {
    let node = eams(&[("192.0.2.1", "2001:db8::1")]);
    let line = |line: &str| siit(&format!("siit.{line}\n{node}"));
    assert_eq!(line("translatable4 = [\"192.0.2.128/25\"]"), [""; 0]);
    assert_eq!(
        line("translatable4 = [\"192.0.2.128/25\", \"192.0.2.192/26\"]"),
        ["3 siit.translatable4[1]: overlap"]
    );
    assert_eq!(line("udp-zero-checksum = \"keep\""), ["3 siit.udp-zero-checksum: bad-value"]);
    assert_eq!(line("hairpin = \"yes\""), ["3 siit.hairpin: bad-value"]);
    assert_eq!(line("lowest-ipv6-mtu = 1279"), ["3 siit.lowest-ipv6-mtu: out-of-range"], "C-12");
    assert_eq!(line("workers = 65"), ["3 siit.workers: out-of-range"]);
    assert_eq!(line("icmp6-source = \"2001:db8:64::1\""), ["3 siit.icmp6-source: in-pool6"]);
    assert_eq!(line("allow = [{ prefix = \"10.0.0.0/8\" }]"), [""; 0]);
    assert_eq!(line("pool4 = []"), ["3 siit.pool4: unknown-key"]);
}

#[test]
fn a09_a_stateless_gateway_shares_prefix_and_exceptions_with_its_dns64() {
    let text = format!(
        "siit.prefix = \"2001:db8:64::/96\"\nsiit.allow = [{{ prefix = \"10.0.0.0/8\" }}]\n{}\
         [dns64]\nlisten = [\"::1\"]\nupstream = [\"203.0.113.53\"]\n\
         [[unit]]\nname = \"a\"\nprefixes = [\"2001:db8:6::/64\"]\n",
        eams(&[("192.0.2.1", "2001:db8:6::1")])
    );
    let dns = check(&text).unwrap().plan.dns64.unwrap();
    assert_eq!(dns.settings.policy.prefixes, ["2001:db8:64::/96".parse().unwrap()]);
    assert_eq!(dns.settings.policy.allow, ["10.0.0.0/8".parse().unwrap()]);
    assert!(dns.settings.clients.contains("2001:db8:6::9".parse().unwrap()));
}

proptest::proptest! {
    /// Whatever the file holds, the answer is a plan or at least one error.
    #[test]
    fn any_text_is_answered(text in "([a-z0-9.\\[\\]{}=\"/:, -]|nat64|pool4|pool6|prefix|unit|\n){0,60}") {
        if let Err(found) = check(&text) {
            proptest::prop_assert!(found.iter().any(Problem::is_error));
        }
    }
}
