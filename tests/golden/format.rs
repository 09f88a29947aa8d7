//! The text of a golden file: what `README.md` says, read.

use std::time::Duration;

use sampan::nat64::settings::{Filter, Filtering, Hops, Pool4Range, Settings, Unit};

use crate::gateway;
use crate::layers::Layer;

/// A whole file.
pub struct Golden {
    /// Requirement and RFC section.
    pub title: String,
    /// Why this is so.
    pub why: String,
    pub settings: Settings,
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
    let mut golden =
        Golden { title: title.to_owned(), why, settings: settings(), workers: vec![1, 3], acts: Vec::new() };
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
            _ => configure(&mut golden.settings, setting),
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
            s.filtering = Filtering { tcp: filter, udp: filter, icmp: filter, drop_external_tcp: false };
        }
        _ => return Err(format!("no setting `{name}`")),
    }
    Ok(())
}
