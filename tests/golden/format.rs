//! The text of a golden file: what `README.md` says, read.

use std::sync::Arc;
use std::time::Duration;

use sampan::nat64::settings::{Classes, Filter, Filtering, Hops, Mtu, Pool4Range, Settings, Unit};
use sampan::siit::mapping::Mapping;
use sampan::siit::settings as siit;
use sampan::xlat::eam::{Eam, EamTable, Home};

use crate::gateway;
use crate::layers::Layer;

/// A whole file.
pub struct Golden {
    /// Requirement and RFC section.
    pub title: String,
    /// Why this is so.
    pub why: String,
    pub settings: Settings,
    /// Settings of the stateless translator, when the file is about that one.
    pub stateless: Option<siit::Settings>,
    /// Numbers of workers to run it with.
    pub workers: Vec<u16>,
    pub acts: Vec<Act>,
}

/// Something that happens, and what must come of it.
pub struct Act {
    /// Line in the file.
    pub line: usize,
    pub what: What,
    pub out: Vec<Vec<Layer>>,
    /// Drop reasons, one for each packet dropped.
    pub drops: Vec<String>,
    /// The packet waits for others.
    pub held: bool,
    /// Pairs of names whose numbers must not be the same.
    pub differ: Vec<(String, String)>,
}

pub enum What {
    In(Vec<Layer>),
    Wait(Duration),
}

type Result<T> = std::result::Result<T, String>;

/// Reads a file. An error says at which line.
pub fn parse(text: &str) -> Result<Golden> {
    let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l)).peekable();
    let (_, title) = lines.next().ok_or("an empty file")?;
    let mut why = String::new();
    while let Some((_, line)) = lines.next_if(|(_, l)| !l.trim().is_empty()) {
        why.push_str(line);
        why.push('\n');
    }
    let mut golden = Golden {
        title: title.to_owned(),
        why,
        settings: settings(),
        stateless: None,
        workers: vec![1, 3],
        acts: Vec::new(),
    };
    if golden.title.is_empty() || golden.why.is_empty() {
        return Err("the first line names the requirement, the next ones say why".to_owned());
    }
    while let Some((number, line)) = lines.next() {
        let line = line.split(" #").next().unwrap_or("").trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut layers = Vec::new();
        while let Some((_, layer)) = lines.next_if(|(_, l)| l.starts_with("  ")) {
            let layer = layer.split(" #").next().unwrap_or("").trim();
            layers.push(Layer::parse(layer).map_err(|e| format!("line {number}: {e}"))?);
        }
        block(&mut golden, number, line, layers).map_err(|e| format!("line {number}: {e}"))?;
    }
    if golden.acts.iter().all(|act| matches!(act.what, What::Wait(_))) {
        return Err("nothing is sent".to_owned());
    }
    Ok(golden)
}

fn block(golden: &mut Golden, line: usize, text: &str, layers: Vec<Layer>) -> Result<()> {
    let act = |what| Act { line, what, out: Vec::new(), drops: Vec::new(), held: false, differ: Vec::new() };
    let mut words = text.split_whitespace();
    let word = words.next().unwrap_or("");
    if word == "config" {
        return words.try_for_each(|setting| match setting {
            // For bounds that each worker has for itself.
            "workers=1" => {
                golden.workers = vec![1];
                Ok(())
            }
            "stateless" => {
                golden.stateless = Some(stateless());
                Ok(())
            }
            _ => match &mut golden.stateless {
                Some(settings) => configure_stateless(settings, setting),
                None => configure(&mut golden.settings, setting),
            },
        });
    }
    let argument = words.next().unwrap_or("");
    match word {
        "in" => golden.acts.push(act(What::In(layers))),
        "wait" => golden.acts.push(act(What::Wait(duration(argument)?))),
        _ => {
            let last = golden.acts.last_mut().ok_or("nothing was sent yet")?;
            match word {
                "out" => last.out.push(layers),
                "drop" => {
                    let count = words.next().map_or(Ok(1), str::parse).map_err(|_| "drop REASON COUNT")?;
                    last.drops.extend(std::iter::repeat_n(argument.to_owned(), count));
                }
                "held" => last.held = true,
                "differ" => last.differ.push((argument.to_owned(), words.next().unwrap_or("").to_owned())),
                _ => return Err(format!("`{word}` is none of config, in, out, drop, held, differ, wait")),
            }
        }
    }
    Ok(())
}

fn duration(text: &str) -> Result<Duration> {
    let wrong = |_| format!("`{text}` is no time: 2s or 1900ms");
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => ms.parse().map(Duration::from_millis).map_err(wrong),
        (None, Some(s)) => s.parse().map(Duration::from_secs).map_err(wrong),
        (None, None) => Err(format!("`{text}` has no unit")),
    }
}

fn octet(value: &str) -> Result<u8> {
    let digits = value.strip_prefix("0x").ok_or_else(|| format!("`{value}` does not begin with 0x"))?;
    u8::from_str_radix(digits, 16).map_err(|_| format!("`{value}` is no octet"))
}

/// What holds unless the file says otherwise.
fn settings() -> Settings {
    let mut settings = gateway::settings();
    settings.fragments.bytes = 1 << 20;
    settings
}

fn configure(s: &mut Settings, setting: &str) -> Result<()> {
    let (name, value) = setting.split_once('=').ok_or_else(|| format!("`{setting}` is not NAME=VALUE"))?;
    let number = || value.parse().map_err(|_| format!("`{value}` is no number"));
    let list = || value.split(',').filter(|v| !v.is_empty());
    let bad = |what: &str| format!("`{value}` is no {what}");
    match name {
        "pool6" => s.pool6 = list().map(|p| p.parse().map_err(|_| bad("pool6"))).collect::<Result<_>>()?,
        "pool4" => {
            let prefix = value.parse().map_err(|_| bad("pool4"))?;
            s.pool4.ranges = vec![Pool4Range { prefix, ports: 1024..=9215 }];
        }
        "allow" => s.allow = list().map(|p| p.parse().map_err(|_| bad("prefix"))).collect::<Result<_>>()?,
        "units" => {
            let prefixes = list().map(|p| p.parse().map_err(|_| bad("prefix"))).collect::<Result<_>>()?;
            s.units = vec![Unit { name: "unit".to_owned(), prefixes }];
        }
        "mtu6" => s.mtu.v6 = number()?,
        "mtu4" => s.mtu.v4 = number()?,
        "lowest-ipv6-mtu" => s.mtu.lowest_ipv6 = number()?,
        "mss-clamp" => s.mss_clamp = Some(number()?),
        "tos" => s.classes.tos = Some(octet(value)?),
        "traffic-class" => s.classes.traffic_class = Some(octet(value)?),
        "pieces" => s.fragments.pieces = number()?.into(),
        "datagrams-per-source" => s.fragments.datagrams_per_source = number()?.into(),
        "icmp-errors-per-second" => s.limits.icmp_errors_per_second = number()?.into(),
        "icmp6-source" => s.icmp6_source = Some(value.parse().map_err(|_| bad("address"))?),
        "hops" => {
            s.hops = match value {
                "translator" => Hops::Translator,
                "kernel" => Hops::KernelForwards,
                _ => return Err(bad("way to count hops: translator or kernel")),
            }
        }
        "filtering" => {
            let filter = match value {
                "endpoint-independent" => Filter::EndpointIndependent,
                "address-dependent" => Filter::AddressDependent,
                _ => return Err(bad("filtering")),
            };
            s.filtering = Filtering { tcp: filter, udp: filter, icmp: filter, ..Filtering::default() };
        }
        _ => return Err(format!("no setting `{name}`")),
    }
    Ok(())
}

/// What holds for the stateless translator unless the file says otherwise. The address of the IPv6 node is an explicit
/// mapping, that of the IPv4 node has the prefix.
fn stateless() -> siit::Settings {
    siit::Settings {
        mapping: Mapping {
            prefix: "2001:db8:64::/96".parse().unwrap(),
            eam: table("198.51.100.1=2001:db8:1::1").unwrap(),
            translatable4: Vec::new(),
            icmp_pool4: vec!["192.88.99.0/32".parse().unwrap()],
            allow: vec!["203.0.113.0/24".parse().unwrap()],
        },
        udp_zero_checksum: siit::ZeroChecksum::Drop,
        hairpin: siit::Hairpin::Intrinsic,
        interface_info: false,
        mtu: Mtu::default(),
        mss_clamp: None,
        classes: Classes::default(),
        icmp6_source: None,
        icmp_errors_per_second: 1000,
        hops: Hops::Translator,
    }
}

/// Explicit mappings `V4=V6`, with commas between them.
fn table(text: &str) -> Result<Arc<EamTable>> {
    let rows = text.split(',').map(|row| {
        let (v4, v6) = row.split_once('=').ok_or("eam=V4=V6,...")?;
        let (v4, v6) = (v4.parse().map_err(|_| v4.to_owned())?, v6.parse().map_err(|_| v6.to_owned())?);
        Ok(Eam { v4, v6, home: Home::V6 })
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    EamTable::new(rows).map(Arc::new).map_err(|e| e.to_string())
}

fn configure_stateless(s: &mut siit::Settings, setting: &str) -> Result<()> {
    let (name, value) = setting.split_once('=').ok_or_else(|| format!("`{setting}` is not NAME=VALUE"))?;
    let number = || value.parse().map_err(|_| format!("`{value}` is no number"));
    let bad = |what: &str| format!("`{value}` is no {what}");
    match name {
        "prefix" => s.mapping.prefix = value.parse().map_err(|_| bad("prefix"))?,
        "eam" => s.mapping.eam = table(value)?,
        "icmp-pool4" => s.mapping.icmp_pool4 = vec![value.parse().map_err(|_| bad("pool"))?],
        "mtu6" => s.mtu.v6 = number()?,
        "mtu4" => s.mtu.v4 = number()?,
        "lowest-ipv6-mtu" => s.mtu.lowest_ipv6 = number()?,
        "udp-zero-checksum" => {
            s.udp_zero_checksum = match value {
                "drop" => siit::ZeroChecksum::Drop,
                "compute" => siit::ZeroChecksum::Compute,
                _ => return Err(bad("choice: drop or compute")),
            }
        }
        "interface-info" => s.interface_info = value == "on",
        "mss-clamp" => s.mss_clamp = Some(number()?),
        "tos" => s.classes.tos = Some(octet(value)?),
        "traffic-class" => s.classes.traffic_class = Some(octet(value)?),
        _ => return Err(format!("the stateless translator has no setting `{name}`")),
    }
    Ok(())
}
