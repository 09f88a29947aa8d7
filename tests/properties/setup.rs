//! The settings of random walks: what stays the same for a whole walk, and configurations that reloads go through.

use sampan::control::plan::{Plan, check};

use crate::support::traffic::Rng;

/// What stays the same for a whole walk.
pub struct Setup {
    pub workers: u16,
    pub sessions: u32,
    pub subscribers: u32,
    /// Ports of one client.
    pub ports: usize,
    pool: [&'static str; 2],
    port_range: &'static str,
    hold_down: u32,
    block_idle: u32,
    max_blocks: u16,
}

impl Setup {
    pub fn of(lot: u64) -> Self {
        let mut rng = Rng(lot);
        let usual = Self {
            workers: 1 + rng.below(3) as u16,
            sessions: 4096,
            subscribers: 1024,
            ports: 3,
            pool: ["198.51.100.1/32", "198.51.100.2/31"],
            port_range: "1024-65535",
            hold_down: 0,
            block_idle: 0,
            max_blocks: 0,
        };
        match rng.below(6) {
            0 => usual,
            // What was used rests.
            1 => Self { hold_down: 120, block_idle: 120, ..usual },
            // Few blocks: the fourth subscriber gets none, and whoever wants many ports has to do without.
            2 => Self { port_range: "1024-1151", ports: 90, hold_down: 20 * rng.below(2) as u32, ..usual },
            3 => Self { port_range: "896-1151", ports: 2000, max_blocks: 2 * rng.below(2) as u16, ..usual },
            // Few sessions.
            4 => Self { sessions: (2 + rng.below(10) as u32) * u32::from(usual.workers), ..usual },
            // Few subscribers.
            _ => Self { subscribers: (1 + rng.below(3) as u32) * u32::from(usual.workers), ..usual },
        }
    }

    /// A configuration; the lot decides what a reload can change.
    fn config(&self, lot: u64) -> String {
        let mut rng = Rng(lot);
        let mut one_of = |values: &[&str]| values[rng.below(values.len())].to_owned();
        let filter = ["endpoint-independent", "address-dependent"];
        let often = ["true", "true", "true", "false"];
        let mut text = format!(
            "nat64.pool6 = [\"2001:db8:64::/96\"]\nnat64.block-size = 64\nnat64.mss-clamp = false\n\
             nat64.ports = {{ hold-down = {}, block-idle = {}, max-blocks = {} }}\n",
            self.hold_down, self.block_idle, self.max_blocks
        );
        for protocol in ["tcp", "udp", "icmp"] {
            text.push_str(&format!("nat64.filtering.{protocol} = \"{}\"\n", one_of(&filter)));
        }
        let values: [(&str, &[&str]); 12] = [
            ("filtering.drop-external-tcp", &["false", "false", "false", "true"]),
            ("filtering.hold-syn", &["\"tell\"", "\"tell\"", "\"silent\"", "\"off\""]),
            ("filtering.tcp-without-session", &["\"static\"", "\"forward\"", "\"drop\""]),
            ("filtering.tell-filtered", &often),
            ("filtering.tell-unmapped", &often),
            ("timers.udp-timeout", &["300", "300", "120"]),
            ("timers.icmp-timeout", &["60", "75"]),
            ("timers.tcp-idle-timeout", &["7440", "7200"]),
            ("timers.tcp-trans-open-timeout", &["240", "250"]),
            ("timers.tcp-trans-close-timeout", &["240", "260"]),
            ("timers.tcp-in-syn-timeout", &["6", "8"]),
            ("when-full", &["\"sessions\"", "\"mappings\"", "\"off\""]),
        ];
        for (key, values) in values {
            text.push_str(&format!("nat64.{key} = {}\n", one_of(values)));
        }
        text.push_str(&format!(
            "nat64.timers.per-port-timeout = [{{ port-number = 53, timeout = {} }}]\n",
            one_of(&["10", "30"])
        ));
        let mut tables = |name: &str, fields: &[(&str, &str)]| {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            text.push_str(&format!("[[{name}]]\n{}", fields.concat()));
        };
        let quoted = |text: &str| format!("\"{text}\"");
        for pool in &self.pool[..one_of(&["2", "2", "1"]).parse().unwrap()] {
            tables("nat64.pool4", &[("prefix", &quoted(pool)), ("ports", &quoted(self.port_range))]);
        }
        for allow in ["203.0.113.0/24", "192.0.2.0/24"] {
            if one_of(&often) == "true" {
                tables("nat64.allow", &[("prefix", &quoted(allow))]);
            }
        }
        if one_of(&often) == "false" {
            tables("unit", &[("name", "\"one\""), ("prefixes", "[\"2001:db8:1::/64\"]")]);
        }
        for (protocol, client, port) in [("tcp", 1, 80), ("udp", 2, 53), ("icmp", 3, 7)] {
            if one_of(&["true", "false"]) == "true" {
                let (client, port) = (client.to_string(), port.to_string());
                tables(
                    "nat64.static",
                    &[
                        ("protocol", &quoted(protocol)),
                        ("internal-address", &quoted(&format!("2001:db8:1::{client}"))),
                        ("internal-port", "2"),
                        ("external-address", "\"198.51.100.1\""),
                        ("external-port", &port),
                    ],
                );
            }
        }
        text
    }

    pub fn plan(&self, lot: u64) -> Plan {
        check(&self.config(lot)).unwrap_or_else(|problems| panic!("{problems:?}")).plan
    }
}
