//! `sampan check`: the examples load, and every kind of mistake is named with key, line and remedy.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::usage::run;

const GOOD: &str = "nat64.pool4 = [{ prefix = \"198.51.100.0/28\" }]\n\
                    unit = [{ name = \"a\", prefixes = [\"2001:db8:6::/64\"] }]\n";

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sampan.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn check(text: &str) -> (i32, Value) {
    let (_dir, path) = file(text);
    let (code, out, err) = run(&["check", "--no-host", "--json", "--config", path.to_str().unwrap()]);
    assert_eq!(err, "");
    (code, serde_json::from_str(&out).unwrap())
}

#[test]
fn the_examples_load() {
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let (code, out, err) = run(&["check", "--no-host", "--config", path.to_str().unwrap()]);
        assert_eq!((code, err.as_str()), (0, ""), "{}: {out}", path.display());
        let (_, json, _) = run(&["check", "--no-host", "--json", "--config", path.to_str().unwrap()]);
        let json: Value = serde_json::from_str(&json).unwrap();
        let warnings: Vec<&str> =
            json["problems"].as_array().unwrap().iter().map(|p| p["code"].as_str().unwrap()).collect();
        let expected: &[&str] = if path.ends_with("minimal.toml") { &["no-units"] } else { &[] };
        assert_eq!(warnings, expected, "{}", path.display());
    }
    assert!(count >= 4);
}

/// Behind a good file of two lines: what is added, and the problem it makes.
const MISTAKES: &[(&str, &str, u64, &str)] = &[
    ("nat64.pool6 = [", "syntax", 3, ""),
    ("colour = 1", "unknown-key", 3, "colour"),
    ("[tun]\nnam = \"x\"", "misspelt-key", 4, "tun.nam"),
    ("nat64.workers = \"2\"", "wrong-type", 3, "nat64.workers"),
    ("nat64.icmp6-source = \"x\"", "bad-value", 3, "nat64.icmp6-source"),
    ("[dns64]\nlisten = [\"::1\"]", "missing", 3, "dns64.upstream"),
    ("nat64.pool6 = []", "empty", 3, "nat64.pool6"),
    ("nat64.subscriber = 129", "out-of-range", 3, "nat64.subscriber"),
    ("nat64.pool6 = [\n\"2001:db8:64::1/96\"]", "host-bits", 4, "nat64.pool6[0]"),
    ("nat64.pool6 = [\"2001:db8::/129\"]", "prefix-length", 3, "nat64.pool6[0]"),
    ("nat64.pool6 = [\"2001:db8::/95\"]", "pref64-length", 3, "nat64.pool6[0]"),
    ("nat64.pool6 = [\"2001:db8:0:0:100::/96\"]", "octet-u", 3, "nat64.pool6[0]"),
    ("nat64.pool6 = [\"ff0e::/96\"]", "not-unicast", 3, "nat64.pool6[0]"),
    ("nat64.pool6 = [\"2001:db9::/32\",\n\"2001:db9::/96\"]", "overlap", 4, "nat64.pool6[1]"),
    ("nat64.pool6 = [\"64:ff9b::/64\"]", "near-well-known", 3, "nat64.pool6[0]"),
    ("nat64.icmp6-source = \"64:ff9b::1\"", "in-pool6", 3, "nat64.icmp6-source"),
    ("[dns64]\nlisten = [\"198.51.100.1\"]\nupstream = [\"203.0.113.53\"]", "in-pool4", 4, "dns64.listen[0]"),
    ("nat64.block-size = 100", "not-power-of-two", 3, "nat64.block-size"),
    ("nat64.block-assignment = \"permuted\"", "too-many-declared", 3, "nat64.block-assignment"),
    ("nat64.ports.hold-down = 5", "timer-short", 3, "nat64.ports.hold-down"),
    ("nat64.timers.udp-timeout = 60", "timer-too-short", 3, "nat64.timers.udp-timeout"),
    ("nat64.timers.tcp-trans-open-timeout = 60", "timer-short", 3, "nat64.timers.tcp-trans-open-timeout"),
    ("nat64.mtu6 = 1280\nnat64.lowest-ipv6-mtu = 1300", "mtu-order", 4, "nat64.lowest-ipv6-mtu"),
    ("nat64.subscriber = 48", "shared-subscriber", 2, "unit[0].prefixes[0]"),
    ("nat64.allow = [{ prefix = \"10.0.0.0/8\" }]", "allow-without-effect", 3, "nat64.allow"),
    (
        "nat64.pool6 = [\"2001:db8:64::/96\"]\nnat64.allow = [{ prefix = \"1.1.1.0/24\" }]",
        "allow-global",
        4,
        "nat64.allow[0].prefix",
    ),
    ("[dns64]\nlisten = [\"[::1]:0\"]\nupstream = [\"::2\"]", "port-missing", 4, "dns64.listen[0]"),
    ("[dns64]\nlisten = [\"::1\"]\nupstream = [\"::1\"]", "dns-loop", 5, "dns64.upstream[0]"),
    ("nat64.key-file = \"key\"", "not-absolute", 3, "nat64.key-file"),
    ("tun.name = \"a/b\"", "interface-name", 3, "tun.name"),
];

#[test]
fn every_kind_of_mistake_names_key_and_line() {
    for (added, code, line, path) in MISTAKES {
        let (exit, report) = check(&format!("{GOOD}{added}\n"));
        let problems = report["problems"].as_array().unwrap();
        let problem = problems.iter().find(|p| p["code"] == *code);
        let problem = problem.unwrap_or_else(|| panic!("{added}: no {code} in {problems:?}"));
        assert_eq!((&problem["path"], &problem["line"]), (&(*path).into(), &(*line).into()), "{added}");
        assert!(!problem["message"].as_str().unwrap().is_empty());
        assert!(!problem["remedy"].as_str().unwrap().is_empty());
        let is_error = problem["severity"] == "error";
        assert_eq!((exit, report["ok"].as_bool()), (i32::from(is_error), Some(!is_error)), "{added}");
    }
}

const MISTAKES_OF_POOL4_AND_UNITS: &[(&str, &str, u64, &str)] = &[
    ("ports = \"9-1\"", "ports-reversed", 3, "nat64.pool4[0].ports"),
    ("ports = \"0-65535\"", "port-zero", 3, "nat64.pool4[0].ports"),
    ("ports = \"1-99\"", "ports-below-block", 3, "nat64.pool4[0].ports"),
    ("ports = \"1-1100\"", "ports-left-over", 3, "nat64.pool4[0].ports"),
    ("block-size = 100", "not-power-of-two", 3, "nat64.pool4[0].block-size"),
    ("name = \"p\"", "unused-pool", 3, "nat64.pool4[0].name"),
    ("[nat64]\nblock-assignment = \"permuted\"", "nobody-declared", 4, "nat64.block-assignment"),
    (
        "[[unit]]\nname = \"a\"\npool = \"p\"\nprefixes = [\"2001:db8::/64\"]",
        "unknown-pool",
        5,
        "unit[0].pool",
    ),
    (
        "[[unit]]\nname = \"a\"\nquota.reserve = 262144\nprefixes = [\"2001:db8::/64\"]",
        "reserve-too-large",
        3,
        "unit",
    ),
    ("mode = \"onlink\"", "interface-needed", 1, "nat64.pool4[0].interface"),
    ("interface = \"eth0\"", "interface-unused", 3, "nat64.pool4[0].interface"),
    ("mode = \"onlink\"\ninterface = \"nat64\"", "interface-is-tun", 4, "nat64.pool4[0].interface"),
    ("[[nat64.pool4]]\nprefix = \"10.0.0.0/8\"", "pool-too-large", 1, "nat64.pool4"),
    ("[[nat64.pool4]]\nprefix = \"198.51.100.0/30\"", "overlap", 4, "nat64.pool4[1].prefix"),
    ("ports = \"1024-2047\"\n[nat64]\nworkers = 64", "pool-too-small", 1, "nat64.pool4"),
    ("", "no-units", 0, "unit"),
    ("[[unit]]\nname = \"\"\nprefixes = [\"2001:db8::/64\"]", "bad-name", 4, "unit[0].name"),
    (
        "[[unit]]\nname = \"a\"\nprefixes = [\"2001:db8::/64\"]\n[[unit]]\nname = \"a\"\nprefixes = [\"2001:db8:1::/64\"]",
        "duplicate-name",
        7,
        "unit[1].name",
    ),
    (
        "[[unit]]\nname = \"a\"\nprefixes = [\"2001:db8::/64\",\n\"2001:db8::/64\"]",
        "duplicate",
        6,
        "unit[0].prefixes[1]",
    ),
    ("[dns64]\nlisten = [\"::1\"]\nupstream = [\"::2\"]", "nobody-may-ask", 3, "dns64.allow"),
    ("[admin]\nsocket = \"/LONG\"", "socket-path-long", 4, "admin.socket"),
];

/// Behind a good file of three lines.
const MISTAKES_OF_SIIT: &[(&str, &str, u64, &str)] = &[
    ("[[nat64.pool4]]\nprefix = \"192.0.2.0/28\"", "two-translators", 1, "siit"),
    (
        "siit.eam = [\n{ ipv4 = \"192.0.2.0/24\", ipv6 = \"2001:db8::/124\" }]",
        "eam-suffix",
        5,
        "siit.eam[0].ipv4",
    ),
    (
        "[[siit.eam]]\nipv4 = \"192.0.2.0/24\"\nipv6 = \"2001:db8:1::/64\"\n\
         [[siit.eam]]\nipv4 = \"192.0.2.7\"\nipv6 = \"2001:db8:2::7\"",
        "eam-overlap",
        8,
        "siit.eam[1].ipv4",
    ),
    (
        "siit.hairpin = \"simple\"\n\
         siit.eam = [{ ipv4 = \"192.0.2.1\", ipv6 = \"2001:db8::1\", home = \"ipv4\" }]",
        "simple-hides-mappings",
        5,
        "siit.eam[0]",
    ),
    ("", "nothing-mapped", 1, "siit"),
];

#[test]
fn mistakes_of_siit_name_key_and_line() {
    let report = |text: &str, code: &str| {
        let (_, report) = check(text);
        let problems = report["problems"].as_array().unwrap();
        let problem = problems.iter().find(|p| p["code"] == code);
        problem.unwrap_or_else(|| panic!("{text}: no {code} in {problems:?}")).clone()
    };
    for (added, code, line, path) in MISTAKES_OF_SIIT {
        let good = "siit.prefix = \"2001:db8:64::/96\"\nsiit.icmp6-pool4 = [\"198.51.100.9\"]\ntun.name = \"siit\"\n";
        let problem = report(&format!("{good}{added}\n"), code);
        assert_eq!((&problem["path"], &problem["line"]), (&(*path).into(), &(*line).into()), "{added}");
    }
    let eam = "siit.eam = [{ ipv4 = \"192.0.2.1\", ipv6 = \"2001:db8::1\" }]\n";
    for (head, code, path) in [
        ("siit.prefix = \"64:ff9b::/96\"\n", "well-known-stateless", "siit.prefix"),
        ("siit.prefix = \"2001:db8:64::/96\"\n", "no-icmp-pool", "siit.icmp6-pool4"),
        (
            "siit.prefix = \"2001:db8:64::/96\"\nsiit.icmp6-pool4 = [\"10.0.0.1\"]\n",
            "private-icmp-pool",
            "siit.icmp6-pool4[0]",
        ),
    ] {
        assert_eq!(report(&format!("{head}{eam}"), code)["path"], *path);
    }
}

#[test]
fn mistakes_of_pool4_and_units_name_key_and_line() {
    for (added, code, line, path) in MISTAKES_OF_POOL4_AND_UNITS {
        let added = added.replace("LONG", &"x".repeat(120));
        let (_, report) = check(&format!("[[nat64.pool4]]\nprefix = \"198.51.100.0/32\"\n{added}\n"));
        let problems = report["problems"].as_array().unwrap();
        let problem = problems.iter().find(|p| p["code"] == *code);
        let problem = problem.unwrap_or_else(|| panic!("{added}: no {code} in {problems:?}"));
        let line = if *line == 0 { Value::Null } else { (*line).into() };
        assert_eq!((&problem["path"], &problem["line"]), (&(*path).into(), &line), "{added}");
    }
}

const BAD: &str = "\
[nat64]
pool6 = [\"2001:db8:64::/97\"]
block-siz = 512
[[nat64.pool4]]
prefix = \"198.51.100.0/28\"
ports = \"65535-1024\"
[nat64.timers]
udp-timeout = 30
";

#[test]
fn all_problems_are_printed_at_once() {
    let (_dir, path) = file(BAD);
    let path = path.to_str().unwrap();
    let (code, out, err) = run(&["check", "--no-host", "--config", path]);
    assert_eq!((code, err.as_str()), (1, ""));
    insta::assert_snapshot!("check", out.replace(path, "sampan.toml"));
    let (_, out, _) = run(&["check", "--no-host", "--lang", "vi", "--config", path]);
    insta::assert_snapshot!("check_vi", out.replace(path, "sampan.toml"));
}

#[test]
fn a_missing_file_and_a_file_that_is_no_text() {
    let (code, out, _) = run(&["check", "--config", "/nonexistent/sampan.toml"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("/nonexistent/sampan.toml: error[unreadable]: cannot read"), "{out}");
    let (_dir, path) = file("");
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    let (code, out, _) = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(out.contains("error[unreadable]"), "{out}");
}

#[test]
fn the_machine_itself_is_looked_at() {
    // 127.0.0.0/8 cannot be a pool, so the only address every machine has cannot collide; the interface can.
    let text =
        "[[nat64.pool4]]\nprefix = \"198.51.100.0/28\"\nmode = \"onlink\"\ninterface = \"no-such-if0\"\n";
    let (_dir, path) = file(text);
    let path = path.to_str().unwrap();
    let (code, out, _) = run(&["check", "--config", path]);
    assert_eq!(code, 1);
    assert!(out.contains(":4: error[no-interface]: nat64.pool4[0].interface: "), "{out}");
    assert_eq!(run(&["check", "--no-host", "--config", path]).0, 0);
}

#[test]
fn run_refuses_a_bad_file_before_it_touches_anything() {
    let (_dir, path) = file(BAD);
    let (code, out, err) = run(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("error[ports-reversed]") && err.contains("error[misspelt-key]"), "{err}");
}
