//! The difference of two plans, key by key.

use super::*;
use crate::control::config::{Apply, File, Row, Value};
use crate::control::plan::check;
use crate::nat64::settings::{Hops, Key, Mtu, Settings};
use proptest::prelude::*;

const FULL: &str = r#"
nat64.pool6 = ["2001:db8:64::/96"]
nat64.pool4 = [{ prefix = "198.51.100.0/28", ports = "1024-65535", mode = "routed" }]
nat64.allow = [{ prefix = "10.0.0.0/8", name = "data centre" }]
nat64.timers.per-port-timeout = [{ port-number = 53, timeout = 10 }]
nat64.static = [{ protocol = "tcp", internal-address = "2001:db8:6::9", internal-port = 8080, external-address = "198.51.100.1", external-port = 80 }]
unit = [{ name = "a", prefixes = ["2001:db8:6::/64"] }]
ra.interfaces = ["eth0"]
[dns64]
listen = ["[2001:db8:6::1]:53"]
upstream = ["203.0.113.53"]
"#;

/// Keys of `[dns64]` that FULL does not have.
const TLS: &str = "tls.certificate = \"/c\"\ntls.key = \"/k\"\ntls.listen = [\"[::1]:853\"]\n";

fn plan(text: &str) -> Plan {
    check(text).unwrap().plan
}

/// What a running gateway knows of its plan.
fn running(plan: &Plan) -> (Settings, Option<DnsPlan>, HealthPlan) {
    let settings = plan.nat64().unwrap().settings(Key([0; 16]), Mtu::default(), Hops::KernelForwards);
    (settings, plan.dns64.clone(), plan.health.clone())
}

/// What a running gateway does with a change.
fn apply((settings, dns, health): &mut (Settings, Option<DnsPlan>, HealthPlan), change: Change) {
    match change {
        Change::Nat64(settings::Change::Units(units)) => settings.units = units,
        Change::Nat64(settings::Change::Pool4(ranges)) => settings.pool4.ranges = ranges,
        Change::Nat64(settings::Change::Filtering(filtering)) => settings.filtering = filtering,
        Change::Nat64(settings::Change::Allow(allow)) => settings.allow = allow,
        Change::Nat64(settings::Change::Timers(timers)) => settings.timers = timers,
        Change::Nat64(settings::Change::Ports(ports)) => settings.ports = ports,
        Change::Nat64(settings::Change::Quotas(quotas)) => settings.quotas = quotas,
        Change::Nat64(settings::Change::Static(entries)) => settings.static_bib = entries,
        Change::Siit(change) => panic!("{change:?} for the stateful translator"),
        Change::Dns64(change) => {
            let dns = dns.as_mut().unwrap();
            dns.upstream = change.upstream;
            (dns.groups, dns.units) = (change.groups, change.units);
            (dns.tls, dns.upstream_ca, dns.top_names) = (change.tls, change.upstream_ca, change.top_names);
            dns.settings = change.settings;
        }
        Change::Health(plan) => *health = *plan,
    }
}

/// A value for each key that differs from FULL or from the default, as a line that replaces or is added.
fn altered(path: &str) -> String {
    let line = |text: &str| format!("{text}\n{FULL}");
    let view = |keys: &str| format!("{FULL}view = [{{ name = \"v\", {keys} }}]");
    let swap = |from: &str, to: &str| {
        assert!(FULL.contains(from), "{from}");
        FULL.replace(from, to)
    };
    match path {
        "nat64.pool6" => swap("2001:db8:64::/96", "2001:db8:65::/96"),
        "nat64.pool4.prefix" => swap("198.51.100.0/28", "198.51.100.0/27"),
        "nat64.pool4.ports" => swap("1024-65535", "2048-65535"),
        "nat64.pool4.mode" => swap("\"routed\"", "\"onlink\", interface = \"eth0\""),
        "nat64.pool4.interface" => swap("\"routed\"", "\"onlink\", interface = \"eth1\""),
        "nat64.pool4.block-size" => swap("mode = \"routed\"", "mode = \"routed\", block-size = 1024"),
        "nat64.pool4.name" => swap("mode = \"routed\"", "mode = \"routed\", name = \"p\""),
        "nat64.block-assignment" => {
            let text = swap("2001:db8:6::/64", "2001:db8:6::/120");
            format!("nat64.block-assignment = \"permuted\"\n{text}")
        }
        "nat64.journal" => line("nat64.journal = \"/j\""),
        "nat64.when-full" => line("nat64.when-full = \"off\""),
        "nat64.ports.parity" => line("nat64.ports.parity = false"),
        "nat64.ports.range" => line("nat64.ports.range = false"),
        "nat64.ports.preserve" => line("nat64.ports.preserve = true"),
        "nat64.ports.pairing" => line("nat64.ports.pairing = \"soft\""),
        "nat64.ports.hold-down" => line("nat64.ports.hold-down = 240"),
        "nat64.ports.hold-down-max" => line("nat64.ports.hold-down-max = 9"),
        "nat64.ports.block-idle" => line("nat64.ports.block-idle = 9"),
        "nat64.ports.max-blocks" => line("nat64.ports.max-blocks = 9"),
        "nat64.ports.overflow-blocks" => line("nat64.ports.overflow-blocks = 9"),
        "nat64.quota.ports" => line("nat64.quota.ports = 9"),
        "nat64.quota.sessions" => line("nat64.quota.sessions = 9"),
        "nat64.quota.unanswered" => line("nat64.quota.unanswered = 9"),
        "nat64.quota.new-per-second" => line("nat64.quota.new-per-second = 9"),
        "nat64.network-quota.ports" => line("nat64.network-quota.ports = 9"),
        "nat64.network-quota.sessions" => line("nat64.network-quota.sessions = 9"),
        "nat64.network-quota.unanswered" => line("nat64.network-quota.unanswered = 9"),
        "nat64.network-quota.new-per-second" => line("nat64.network-quota.new-per-second = 9"),
        "unit.pool" => {
            let text = swap(
                "mode = \"routed\" }",
                "mode = \"routed\" }, { prefix = \"192.0.2.0/28\", name = \"p\" }",
            );
            text.replace("name = \"a\"", "name = \"a\", pool = \"p\"")
        }
        "unit.max-blocks" => swap("name = \"a\"", "name = \"a\", max-blocks = 3"),
        "unit.quota.ports" => swap("name = \"a\"", "name = \"a\", quota.ports = 3"),
        "unit.quota.sessions" => swap("name = \"a\"", "name = \"a\", quota.sessions = 3"),
        "unit.quota.unanswered" => swap("name = \"a\"", "name = \"a\", quota.unanswered = 3"),
        "unit.quota.new-per-second" => swap("name = \"a\"", "name = \"a\", quota.new-per-second = 3"),
        "unit.quota.reserve" => swap("name = \"a\"", "name = \"a\", quota.reserve = 3"),
        "fastpath.mode" => line("fastpath.mode = \"off\""),
        "fastpath.inside" => line("fastpath.inside = [\"eth1\"]"),
        "fastpath.outside" => line("fastpath.outside = [\"eth0\"]"),
        "fastpath.max-flows" => line("fastpath.max-flows = 9"),
        "fastpath.orphan-limit" => line("fastpath.orphan-limit = 9"),
        "fastpath.pins" => line("fastpath.pins = \"/b\""),
        "fastpath.miss-rate" => line("fastpath.miss-rate = 9"),
        "fastpath.miss-burst" => line("fastpath.miss-burst = 9"),
        "nat64.subscriber" => line("nat64.subscriber = 64"),
        "nat64.block-size" => line("nat64.block-size = 1024"),
        "nat64.key-file" => line("nat64.key-file = \"/k\""),
        "nat64.workers" => line("nat64.workers = 3"),
        "nat64.sessions" => line("nat64.sessions = 4096"),
        "nat64.subscribers" => line("nat64.subscribers = 128"),
        "nat64.icmp6-source" => line("nat64.icmp6-source = \"2001:db8::1\""),
        "nat64.icmp-errors-per-second" => line("nat64.icmp-errors-per-second = 5"),
        "nat64.mtu6" => line("nat64.mtu6 = 1400"),
        "nat64.mtu4" => line("nat64.mtu4 = 1400"),
        "nat64.lowest-ipv6-mtu" => line("nat64.lowest-ipv6-mtu = 1400"),
        "nat64.reach-gateway" => line("nat64.reach-gateway = true"),
        "nat64.mss-clamp" => line("nat64.mss-clamp = false"),
        "nat64.tos" => line("nat64.tos = 0"),
        "nat64.traffic-class" => line("nat64.traffic-class = 0"),
        "nat64.fragments.bytes" => line("nat64.fragments.bytes = 1048576"),
        "nat64.fragments.datagrams" => line("nat64.fragments.datagrams = 100"),
        "nat64.fragments.datagrams-per-source" => line("nat64.fragments.datagrams-per-source = 10"),
        "nat64.fragments.pieces" => line("nat64.fragments.pieces = 10"),
        "nat64.fragments.timeout" => line("nat64.fragments.timeout = 10"),
        "nat64.filtering.tcp" => line("nat64.filtering.tcp = \"address-dependent\""),
        "nat64.filtering.udp" => line("nat64.filtering.udp = \"address-dependent\""),
        "nat64.filtering.icmp" => line("nat64.filtering.icmp = \"address-dependent\""),
        "nat64.filtering.drop-external-tcp" => line("nat64.filtering.drop-external-tcp = true"),
        "nat64.timers.udp-timeout" => line("nat64.timers.udp-timeout = 400"),
        "nat64.timers.tcp-idle-timeout" => line("nat64.timers.tcp-idle-timeout = 7440"),
        "nat64.timers.tcp-trans-open-timeout" => line("nat64.timers.tcp-trans-open-timeout = 250"),
        "nat64.timers.tcp-trans-close-timeout" => line("nat64.timers.tcp-trans-close-timeout = 250"),
        "nat64.filtering.hold-syn" => line("nat64.filtering.hold-syn = \"off\""),
        "nat64.filtering.tcp-without-session" => line("nat64.filtering.tcp-without-session = \"forward\""),
        "nat64.filtering.inbound-refresh" => line("nat64.filtering.inbound-refresh = false"),
        "nat64.filtering.tell-filtered" => line("nat64.filtering.tell-filtered = false"),
        "nat64.filtering.tell-unmapped" => line("nat64.filtering.tell-unmapped = true"),
        "nat64.filtering.icmp-errors-to-ipv6" => line("nat64.filtering.icmp-errors-to-ipv6 = false"),
        "nat64.filtering.icmp-errors-to-ipv4" => line("nat64.filtering.icmp-errors-to-ipv4 = false"),
        "nat64.static.protocol" => swap("\"tcp\"", "\"udp\""),
        "nat64.static.internal-address" => swap("2001:db8:6::9", "2001:db8:6::8"),
        "nat64.static.internal-port" => swap("8080", "8081"),
        "nat64.static.external-address" => swap("\"198.51.100.1\"", "\"198.51.100.2\""),
        "nat64.static.external-port" => swap("external-port = 80", "external-port = 81"),
        "nat64.timers.tcp-in-syn-timeout" => line("nat64.timers.tcp-in-syn-timeout = 7"),
        "nat64.timers.per-port-timeout.port-number" => swap("port-number = 53", "port-number = 123"),
        "nat64.timers.per-port-timeout.timeout" => swap("timeout = 10", "timeout = 11"),
        "nat64.timers.icmp-timeout" => line("nat64.timers.icmp-timeout = 70"),
        "nat64.allow.prefix" => swap("10.0.0.0/8", "172.16.0.0/12"),
        "nat64.allow.name" => swap("data centre", "another name"),
        "dns64.listen" => swap("[2001:db8:6::1]:53", "[2001:db8:6::2]:53"),
        "dns64.upstream" => swap("203.0.113.53", "203.0.113.54"),
        "dns64.allow" => format!("{FULL}allow = [\"2001:db8:6::/96\"]"),
        "dns64.mode" => format!("{FULL}mode = \"pass\""),
        "dns64.on-error" => format!("{FULL}on-error = \"fail\""),
        "dns64.exclude-aaaa" => format!("{FULL}exclude-aaaa = []"),
        "dns64.filter-a" => format!("{FULL}filter-a = true"),
        "dns64.names.suffix" | "dns64.names.mode" => {
            format!("{FULL}names = [{{ suffix = \"example\", mode = \"pass\" }}]")
        }
        "dns64.range.ipv4" | "dns64.range.prefixes" => {
            format!("{FULL}range = [{{ ipv4 = \"10.0.0.0/8\", prefixes = [] }}]")
        }
        "dns64.private-reverse" => format!("{FULL}private-reverse = false"),
        "dns64.trust-ad" => format!("{FULL}trust-ad = true"),
        "dns64.when-down" => format!("{FULL}when-down = \"nodata\""),
        "dns64.limit.per-second" => format!("{FULL}limit.per-second = 5"),
        "dns64.limit.burst" => format!("{FULL}limit = {{ per-second = 5, burst = 5 }}"),
        "dns64.limit.client" => format!("{FULL}limit = {{ per-second = 5, client = 56 }}"),
        "dns64.cache" => format!("{FULL}cache = 1"),
        "dns64.forward.names" | "dns64.forward.upstream" => {
            format!("{FULL}forward = [{{ names = [\"example\"], upstream = [\"203.0.113.54\"] }}]")
        }
        "dns64.forward.trust-ad" => format!(
            "{FULL}forward = [{{ names = [\"example\"], upstream = [\"203.0.113.54\"], trust-ad = true }}]"
        ),
        "dns64.zone.name" | "dns64.zone.records" => {
            format!("{FULL}zone = [{{ name = \"example\", records = [\"a A 192.0.2.1\"] }}]")
        }
        "dns64.view.units" => view("units = [\"a\"]"),
        view_key if view_key.starts_with("dns64.view.") => view(match view_key {
            "dns64.view.name" | "dns64.view.clients" => "clients = [\"2001:db8:6::/96\"]",
            "dns64.view.transports" => "clients = [\"::/0\"], transports = [\"tcp\"]",
            "dns64.view.prefixes" => "clients = [\"::/0\"], prefixes = [\"2001:db8:64::/96\"]",
            "dns64.view.mode" => "clients = [\"::/0\"], mode = \"pass\"",
            "dns64.view.on-error" => "clients = [\"::/0\"], on-error = \"fail\"",
            "dns64.view.exclude-aaaa" => "clients = [\"::/0\"], exclude-aaaa = []",
            "dns64.view.filter-a" => "clients = [\"::/0\"], filter-a = true",
            "dns64.view.names.suffix" | "dns64.view.names.mode" => {
                "clients = [\"::/0\"], names = [{ suffix = \"example\", mode = \"pass\" }]"
            }
            "dns64.view.range.ipv4" | "dns64.view.range.prefixes" => {
                "clients = [\"::/0\"], range = [{ ipv4 = \"10.0.0.0/8\", prefixes = [] }]"
            }
            other => panic!("no altered value for the new key {other}; add one"),
        }),
        "dns64.upstream-ca" => format!("{FULL}upstream-ca = \"/a\""),
        "dns64.top-names" => format!("{FULL}top-names = 9"),
        "dns64.connections.most" => format!("{FULL}connections.most = 9"),
        "dns64.connections.per-client" => format!("{FULL}connections.per-client = 9"),
        "dns64.connections.idle" => format!("{FULL}connections.idle = 9"),
        "dns64.connections.handshake" => format!("{FULL}connections.handshake = 9"),
        "dns64.tls" => format!("{FULL}{TLS}"),
        "dns64.tls.certificate" => format!("{FULL}{TLS}").replace("/c", "/d"),
        "dns64.tls.key" => format!("{FULL}{TLS}").replace("/k", "/d"),
        "dns64.tls.listen" => format!("{FULL}{TLS}").replace("853", "8853"),
        "dns64.tls.https" => format!("{FULL}{TLS}tls.https = [\"[::1]\"]\n"),
        "dns64.tls.https-path" => format!("{FULL}{TLS}tls.https-path = \"/other\"\n"),
        "unit.name" => swap("\"a\"", "\"b\""),
        "unit.prefixes" => swap("2001:db8:6::/64", "2001:db8:6::/48"),
        "health.down-after" | "health.up-after" | "health.restart-grace" => line(&format!("{path} = 30")),
        "health.egress" => line("health.egress = [\"203.0.113.1\"]"),
        "health.targets" => line("health.targets = [\"203.0.113.1\"]"),
        "health.targets-count" => line("health.targets-count = true"),
        "health.gateway" => line("health.gateway = \"/s\""),
        "ra.interfaces" => swap("[\"eth0\"]", "[\"eth1\"]"),
        "ra.max-interval" => line("ra.max-interval = 1800"),
        "ra.min-interval" => line("ra.min-interval = 300"),
        "ra.router-lifetime" | "ra.pref64-lifetime" | "ra.dns-lifetime" => line(&format!("{path} = 900")),
        "ra.pref64" => line("ra.pref64 = false"),
        "ra.dns" => line("ra.dns = [\"2001:db8:6::1\"]"),
        "ra.managed" | "ra.other-config" => line(&format!("{path} = true")),
        "admin.socket" => line("admin.socket = \"/s\""),
        "admin.dns64-socket" => line("admin.dns64-socket = \"/d\""),
        "tun.name" => line("tun.name = \"other\""),
        "log.level" => line("log.level = \"debug\""),
        other => panic!("no altered value for the new key {other}; add one"),
    }
}

fn leaves(path: &str, rows: &'static [Row], out: &mut Vec<(String, &'static Row)>) {
    for row in rows {
        let path = if path.is_empty() { row.key.to_owned() } else { format!("{path}.{}", row.key) };
        if row.rows.is_empty() { out.push((path, row)) } else { leaves(&path, row.rows, out) }
    }
}

#[test]
fn every_key_changes_the_plan_and_applies_as_its_row_says() {
    let mut keys = Vec::new();
    leaves("", File::ROWS, &mut keys);
    assert!(keys.len() > 30);
    for (path, row) in keys.into_iter().filter(|(path, _)| !path.starts_with("siit.")) {
        let (old, new) = if path == "nat64.pool4.interface" {
            (plan(&altered("nat64.pool4.mode")), plan(&altered(&path)))
        } else if path.starts_with("dns64.tls.") {
            (plan(&altered("dns64.tls")), plan(&altered(&path)))
        } else {
            (plan(FULL), plan(&altered(&path)))
        };
        assert_ne!(old, new, "{path} is read and forgotten");
        match (row.apply, diff(&old, &new)) {
            (Apply::Reload, Ok(changes)) => {
                let mut state = running(&old);
                changes.into_iter().for_each(|change| apply(&mut state, change));
                assert_eq!(state, running(&new), "{path}");
            }
            (Apply::Restart, Err(blocked)) => {
                let paths: Vec<_> = blocked.iter().map(|key| key.path.replace("[0]", "")).collect();
                assert_eq!(paths, [path.replace("pool4.interface", "pool4.mode")]);
            }
            (apply, result) => panic!("{path} is said to need {apply:?}, but {result:?}"),
        }
    }
}

const STATELESS: &str = r#"
siit.prefix = "2001:db8:64::/96"
siit.eam = [{ ipv4 = "192.0.2.1", ipv6 = "2001:db8:6::1", home = "ipv6" }]
siit.allow = [{ prefix = "10.0.0.0/8", name = "data centre" }]
"#;

/// The same as `altered` for the stateless translator.
fn altered_stateless(path: &str) -> String {
    let swap = |from: &str, to: &str| {
        assert!(STATELESS.contains(from), "{from}");
        STATELESS.replace(from, to)
    };
    let value = match path {
        "siit.prefix" => return swap("2001:db8:64::/96", "2001:db8:65::/64"),
        "siit.eam.ipv4" => return swap("192.0.2.1", "192.0.2.2"),
        "siit.eam.ipv6" => return swap("2001:db8:6::1", "2001:db8:6::2"),
        "siit.eam.home" => return swap("\"ipv6\"", "\"ipv4\""),
        "siit.allow.prefix" => return swap("10.0.0.0/8", "172.16.0.0/12"),
        "siit.allow.name" => return swap("data centre", "another name"),
        "siit.translatable4" | "siit.icmp6-pool4" => "[\"198.51.100.0/28\"]",
        "siit.reach-gateway" => "true",
        "siit.interface-info" | "siit.mss-clamp" => "false",
        "siit.tos" | "siit.traffic-class" => "0",
        "siit.udp-zero-checksum" => "\"compute\"",
        "siit.hairpin" => "\"simple\"",
        "siit.workers" => "3",
        "siit.icmp6-source" => "\"2001:db8::1\"",
        "siit.icmp-errors-per-second" => "5",
        "siit.mtu6" | "siit.mtu4" | "siit.lowest-ipv6-mtu" => "1400",
        other => panic!("no altered value for the new key {other}; add one"),
    };
    format!("{path} = {value}\n{STATELESS}")
}

#[test]
fn every_stateless_key_changes_the_plan_and_applies_as_its_row_says() {
    let mut keys = Vec::new();
    leaves("", File::ROWS, &mut keys);
    keys.retain(|(path, _)| path.starts_with("siit."));
    assert!(keys.len() > 15);
    for (path, row) in keys {
        let (old, new) = (plan(STATELESS), plan(&altered_stateless(&path)));
        assert_ne!(old, new, "{path} is read and forgotten");
        match (row.apply, diff(&old, &new)) {
            // A name is for people only.
            (Apply::Reload, Ok(changes)) if path == "siit.allow.name" => assert_eq!(changes, []),
            (Apply::Reload, Ok(changes)) => {
                let mapping = new.siit().unwrap().mapping();
                assert_eq!(changes, [Change::Siit(siit::settings::Change::Mapping(mapping))], "{path}");
            }
            (Apply::Restart, Err(blocked)) => assert_eq!(blocked, [NeedsRestart { path }]),
            (apply, result) => panic!("{path} is said to need {apply:?}, but {result:?}"),
        }
    }
}

#[test]
fn one_translator_becomes_the_other_with_a_restart() {
    let alone = FULL.split("[dns64]").next().unwrap().replace("ra.interfaces = [\"eth0\"]", "");
    let (stateful, stateless) = (plan(&alone), plan(STATELESS));
    let blocked = diff(&stateful, &stateless).unwrap_err();
    assert_eq!(blocked, [NeedsRestart { path: "siit".into() }]);
    let blocked = diff(&stateless, &stateful).unwrap_err();
    assert_eq!(blocked, [NeedsRestart { path: "nat64".into() }]);
}

#[test]
fn what_is_shared_with_the_machine_changes_with_a_restart() {
    let with = |pool: &str| plan(&format!("nat64.pool4 = [{{ prefix = \"198.51.100.0/28\" }}{pool}]"));
    let shared = |ports: &str| {
        with(&format!(", {{ prefix = \"192.0.2.1/32\", mode = \"shared\", ports = \"{ports}\" }}"))
    };
    let needed = [NeedsRestart { path: "nat64.pool4".into() }];
    assert_eq!(diff(&with(""), &shared("40960-65535")).unwrap_err(), needed);
    assert_eq!(diff(&shared("40960-65535"), &with("")).unwrap_err(), needed);
    assert_eq!(diff(&shared("40960-65535"), &shared("49152-65535")).unwrap_err(), needed);
    // Other ranges come and go beside it.
    let beside = with(
        ", { prefix = \"192.0.2.1/32\", mode = \"shared\", ports = \"40960-65535\" }, { prefix = \"203.0.113.0/28\" }",
    );
    assert_eq!(diff(&shared("40960-65535"), &beside).unwrap().len(), 1);
}

#[test]
fn a_dns64_comes_and_goes_with_a_restart() {
    let without = FULL.split("[dns64]").next().unwrap();
    let blocked = diff(&plan(without), &plan(FULL)).unwrap_err();
    assert_eq!(blocked, [NeedsRestart { path: "dns64".into() }]);
    let blocked = diff(&plan(FULL), &plan(&altered("dns64.tls"))).unwrap_err();
    assert_eq!(blocked, [NeedsRestart { path: "dns64.tls".into() }]);
}

#[test]
fn router_advertisements_come_and_go_with_a_restart() {
    let without = plan(&FULL.replace("ra.interfaces = [\"eth0\"]", ""));
    let blocked = diff(&without, &plan(FULL)).unwrap_err();
    assert_eq!(blocked, [NeedsRestart { path: "ra".into() }]);
}

#[test]
fn a_reload_that_needs_a_restart_names_key_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sampan.toml");
    std::fs::write(&path, altered("tun.name")).unwrap();
    let facts = HostFacts {
        interfaces: Vec::new(),
        addresses: Vec::new(),
        routes: Vec::new(),
        ephemeral: 32_768..=60_999,
        reserved: Vec::new(),
        sockets: Vec::new(),
    };
    let problems = reload(&plan(FULL), &path, &facts).unwrap_err();
    let view = problems.first().unwrap().view(crate::text::Lang::En);
    assert_eq!((view.code.as_str(), view.path.as_str(), view.line), ("needs-restart", "tun.name", Some(1)));
    std::fs::write(&path, FULL).unwrap();
    assert_eq!(reload(&plan(FULL), &path, &facts).unwrap().changes, []);
}

prop_compose! {
    /// Plans that differ in reloadable keys only.
    fn any_plan()(
        units in 0usize..3, pools in 1usize..4, allows in 0usize..3, low in 1u16..4, udp in 120u64..500,
        tcp: bool, drop: bool, upstream in 1u8..4, clients: bool,
    ) -> Plan {
        let filter = if tcp { "address-dependent" } else { "endpoint-independent" };
        let mut text = format!(
            "nat64.pool6 = [\"2001:db8:64::/96\"]\nnat64.timers.udp-timeout = {udp}\n\
             nat64.filtering = {{ tcp = \"{filter}\", drop-external-tcp = {drop} }}\n\
             dns64.listen = [\"::1\"]\ndns64.upstream = [\"203.0.113.{upstream}\"]\n",
        );
        if clients {
            text.push_str("dns64.allow = [\"2001:db8::/32\"]\n");
        }
        for i in 0..pools {
            text.push_str(&format!(
                "[[nat64.pool4]]\nprefix = \"198.51.100.{}/30\"\nports = \"{}-65535\"\n", i * 4, low * 1024
            ));
        }
        for i in 0..units {
            text.push_str(&format!("[[unit]]\nname = \"u{i}\"\nprefixes = [\"2001:db8:{i}::/64\"]\n"));
        }
        for i in 0..allows {
            text.push_str(&format!("[[nat64.allow]]\nprefix = \"10.{i}.0.0/16\"\n"));
        }
        plan(&text)
    }
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_new_plan(old in any_plan(), new in any_plan()) {
        let mut state = running(&old);
        for change in diff(&old, &new).unwrap() {
            apply(&mut state, change);
        }
        prop_assert_eq!(state, running(&new));
        prop_assert_eq!(diff(&new, &new).unwrap(), []);
    }
}
