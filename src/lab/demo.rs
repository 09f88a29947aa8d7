//! `sampan lab demo`: build the network, show that it works step by step, remove it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gateway::GATEWAY;
use super::options::{Options, Translator};
use super::plan::{Plan, SERVER};
use super::services::PAGE_MARK;
use super::text::Say;
use super::tool::tail;
use super::{Lab, LabError, interrupt};
use crate::addr::Prefix4;
use crate::text::Lang;
use crate::xlat::pref64::Pref64;

/// How the demonstration speaks.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// In which language.
    pub lang: Lang,
    /// For machines: one JSON object at the end instead of text.
    pub json: bool,
}

/// What a step showed.
struct Shown {
    /// Tool output worth reading.
    output: String,
    /// The finding.
    finding: Say,
    /// Figures for machines.
    figures: Value,
}

/// One step: its short name, its title and what it does.
struct Step {
    name: &'static str,
    title: Say,
    command: &'static str,
    act: fn(&Lab, Lang) -> Result<Shown, LabError>,
}

/// Runs the demonstration. `Ok(true)` if every step worked; nothing is left behind in any case.
pub fn run(options: Options, manner: Manner) -> Result<bool, LabError> {
    let print = |line: &str| {
        if !manner.json {
            println!("{line}");
        }
    };
    let say = |what: Say| print(&what.say(manner.lang));
    let began = Instant::now();
    for heading in [Say::Title, Say::Intro, Say::Picture] {
        say(heading);
    }
    print("");
    say(Say::Building);
    let lab = Lab::up(options)?;
    say(Say::Built { seconds: seconds(began.elapsed()) });

    let steps = steps(&lab);
    let mut reports = Vec::new();
    let mut failed = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        interrupt::check()?;
        print(&format!("\n[{}/{}] {}", index + 1, steps.len(), step.title.say(manner.lang)));
        print(&format!("  $ {}", step.command));
        let started = Instant::now();
        let result = (step.act)(&lab, manner.lang);
        let took = started.elapsed();
        let finding = match &result {
            Ok(shown) => {
                shown.output.lines().for_each(|line| print(&format!("  {line}")));
                shown.finding.say(manner.lang)
            }
            Err(LabError::Interrupted) => return Err(LabError::Interrupted),
            Err(why) => {
                failed.push(step.name);
                Say::Failed { why: why.to_string() }.say(manner.lang)
            }
        };
        print(&format!("  => {finding}"));
        reports.push(report(step, result, took));
    }

    let all_ok = failed.is_empty();
    if !all_ok {
        let log = std::fs::read_to_string(lab.dir().join(format!("{GATEWAY}.log"))).unwrap_or_default();
        print("");
        say(Say::LastWords { words: tail(&log) });
        say(Say::Look);
    }
    print("");
    say(Say::Removing);
    let (id, translator) = (lab.options().id.clone(), lab.options().translator);
    lab.down()?;

    let took = began.elapsed();
    if manner.json {
        let summary = json!({
            "ok": all_ok,
            "id": id,
            "translator": translator,
            "seconds": took.as_secs_f64(),
            "steps": reports,
        });
        println!("{summary:#}");
    } else if all_ok {
        say(Say::AllOk { steps: steps.len(), seconds: seconds(took) });
        say(Say::Next);
    } else {
        say(Say::SomeFailed { failed: failed.len(), steps: steps.len(), names: failed.join(", ") });
    }
    Ok(all_ok)
}

fn steps(lab: &Lab) -> Vec<Step> {
    let step = |name, title, command, act| Step { name, title, command, act };
    let mut steps = vec![
        step("address", Say::Address, "ip -brief address; ip -4 route", address),
        step("dns64", Say::Dns64, "dig AAAA portal.tinh.example", dns64),
        step("page", Say::Page, "curl http://portal.tinh.example/", page),
        step("ping", Say::Ping, "ping -c 3 portal.tinh.example", ping),
        step("route", Say::Route, "traceroute -6 -n -U portal.tinh.example; the same with -I", route),
        step("bulk", Say::Bulk, "iperf3 -c speed.tinh.example -n 100M", bulk),
    ];
    // Other translators, for comparison, have no table that could be asked.
    if lab.options().translator == Translator::Sampan {
        steps.push(step("sessions", Say::Sessions, "sampan sessions", sessions));
        steps.push(step("counters", Say::Counters, "sampan status; sampan drops", counters));
    }
    steps
}

fn address(lab: &Lab, _: Lang) -> Result<Shown, LabError> {
    let client = lab.host("client1")?;
    let output = client.run(&["ip", "-brief", "address"])?.check()?;
    let v4 = client.run(&["ip", "-4", "-oneline", "address"])?.check()?;
    let routes = client.run(&["ip", "-4", "route", "show", "table", "all"])?.check()?;
    if !v4.trim().is_empty() || !routes.trim().is_empty() {
        return Err(LabError::Step(format!("the client has IPv4: {}", tail(&format!("{v4}\n{routes}")))));
    }
    Ok(Shown { output, finding: Say::AddressOk, figures: Value::Null })
}

fn dns64(lab: &Lab, _: Lang) -> Result<Shown, LabError> {
    let output = lab
        .host("client1")?
        .run(&["dig", "+noall", "+answer", "+comments", "AAAA", "portal.tinh.example"])?
        .check()?;
    let expected = lab.options().pref64.embed(SERVER);
    let answer = output
        .lines()
        .filter(|line| !line.starts_with(';'))
        .find_map(|line| line.split_whitespace().last()?.parse().ok());
    if answer != Some(expected) {
        return Err(LabError::Step(format!("the answer is not {expected}: {}", tail(&output))));
    }
    Ok(Shown {
        output: output
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with(';'))
            .collect::<Vec<_>>()
            .join("\n"),
        finding: Say::Dns64Ok { v6: expected, v4: SERVER },
        figures: json!({ "answer": expected }),
    })
}

fn page(lab: &Lab, _: Lang) -> Result<Shown, LabError> {
    let client = lab.host("client1")?;
    let output = client.run(&["curl", "-sS", "-m", "10", "http://portal.tinh.example/"])?.check()?;
    if !output.contains(PAGE_MARK) {
        return Err(LabError::Step(format!("this is not the portal's page: {}", tail(&output))));
    }
    let seen = client.run(&["curl", "-sS", "-m", "10", "http://portal.tinh.example/whoami"])?.check()?;
    let pool: Option<Prefix4> = lab.plan().pool4.parse().ok();
    let address = seen.trim().parse().ok().filter(|address| pool.is_some_and(|pool| pool.contains(*address)));
    let Some(address) = address else {
        return Err(LabError::Step(format!("the server saw {}, not an address of the pool", tail(&seen))));
    };
    Ok(Shown { output, finding: Say::PageOk { address }, figures: json!({ "seen_by_server": address }) })
}

fn ping(lab: &Lab, _: Lang) -> Result<Shown, LabError> {
    const COUNT: usize = 3;
    let output = lab
        .host("client1")?
        .run(&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "portal.tinh.example"])?
        .check()?;
    let replies = output.lines().filter(|line| line.contains("bytes from")).count();
    if replies != COUNT {
        return Err(LabError::Step(format!("{replies} of {COUNT} replies: {}", tail(&output))));
    }
    let finding = Say::PingOk { replies, count: COUNT };
    Ok(Shown { output: output.trim_end().into(), finding, figures: json!({ "replies": replies }) })
}

fn route(lab: &Lab, _: Lang) -> Result<Shown, LabError> {
    let client = lab.host("client1")?;
    let ask = |how| client.run(&["traceroute", "-6", "-n", how, "-w", "2", "portal.tinh.example"])?.check();
    let (udp, icmp) = (ask("-U")?, ask("-I")?);
    let expected = hops(lab.plan(), lab.options().pref64);
    // A different translator shows itself as a hop of its own.
    if lab.options().translator == Translator::Sampan {
        for output in [&udp, &icmp] {
            let seen = hops_in(output);
            if seen != expected {
                return Err(LabError::Step(format!(
                    "expected the hops {}, saw: {}",
                    expected.join(" "),
                    seen.join(" ")
                )));
            }
        }
    }
    let seen = hops_in(&udp);
    Ok(Shown {
        output: format!("{}\n{}", udp.trim_end(), icmp.trim_end()),
        finding: Say::RouteOk { hops: seen.len() },
        figures: json!({ "hops": seen }),
    })
}

fn bulk(lab: &Lab, _: Lang) -> Result<Shown, LabError> {
    let output = lab
        .host("client1")?
        .run(&["iperf3", "-6", "-f", "m", "-n", "100M", "-c", "speed.tinh.example"])?
        .check()?;
    let rate = output
        .lines()
        .find(|line| line.trim_end().ends_with("receiver"))
        .and_then(|line| line.split_once("Mbits/sec")?.0.split_whitespace().last()?.parse::<f64>().ok());
    let Some(rate) = rate.filter(|rate| *rate > 0.0) else {
        return Err(LabError::Step(format!("iperf3 reports no rate: {}", tail(&output))));
    };
    let lines: Vec<_> = output.lines().filter(|l| l.ends_with("sender") || l.ends_with("receiver")).collect();
    Ok(Shown {
        output: lines.join("\n"),
        finding: Say::BulkOk { rate: format!("{rate:.0}") },
        figures: json!({ "megabits_per_second": rate }),
    })
}

fn sessions(lab: &Lab, lang: Lang) -> Result<Shown, LabError> {
    let output = lab.sampan(&["sessions", "--lang", lang.name()])?.check()?;
    let client = Plan::client6(1).to_string();
    if !output.contains(&client) {
        return Err(LabError::Step(format!("no session of {client} in the table: {}", tail(&output))));
    }
    Ok(Shown { output: output.trim_end().into(), finding: Say::SessionsOk, figures: Value::Null })
}

fn counters(lab: &Lab, lang: Lang) -> Result<Shown, LabError> {
    let status = lab.sampan(&["status", "--lang", lang.name()])?.check()?;
    let drops = lab.sampan(&["drops", "--lang", lang.name()])?.check()?;
    Ok(Shown {
        output: format!("{}\n{}", status.trim_end(), drops.trim_end()),
        finding: Say::CountersOk,
        figures: Value::Null,
    })
}

/// The addresses that a traceroute from a client to the server must show, in order.
pub fn hops(plan: &Plan, pref64: Pref64) -> Vec<String> {
    let inside = plan.inside_hops.iter().map(ToString::to_string);
    let outside = plan.outside_hops.iter().map(|hop| pref64.embed(*hop).to_string());
    inside
        .chain([plan.gateway6.to_string()])
        .chain(outside)
        .chain([pref64.embed(SERVER).to_string()])
        .collect()
}

/// The address of each hop in a traceroute's output; several in one line if probes of one hop met several routers.
pub fn hops_in(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next()?.parse::<u8>().ok()?;
            let mut addresses: Vec<&str> = Vec::new();
            for word in words {
                let is_address = word.parse::<std::net::IpAddr>().is_ok();
                if (is_address || word == "*" || word.starts_with('!')) && !addresses.contains(&word) {
                    addresses.push(word);
                }
            }
            Some(addresses.join(" "))
        })
        .collect()
}

fn report(step: &Step, result: Result<Shown, LabError>, took: Duration) -> Value {
    let mut report = json!({
        "name": step.name,
        "command": step.command,
        "ok": result.is_ok(),
        "seconds": took.as_secs_f64(),
    });
    let more = match result {
        Ok(shown) => [
            ("output", json!(shown.output)),
            ("finding", json!(shown.finding.say(Lang::En))),
            ("figures", shown.figures),
        ],
        Err(why) => [("output", Value::Null), ("finding", json!(why.to_string())), ("figures", Value::Null)],
    };
    for (key, value) in more {
        report[key] = value;
    }
    report
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_read_from_real_output() {
        let output = "traceroute to portal.tinh.example (2001:db8:64::cb00:7150), 30 hops max, 80 byte packets\n \
                      1  2001:db8:6::1  0.693 ms  0.546 ms  0.537 ms\n \
                      2  2001:db8:64::c000:201  0.164 ms * 2001:db8:64::c000:202  0.121 ms\n \
                      3  * * *\n \
                      4  2001:db8:64::cb00:7150  0.1 ms !N  0.2 ms !N  0.2 ms\n";
        assert_eq!(
            hops_in(output),
            [
                "2001:db8:6::1",
                "2001:db8:64::c000:201 * 2001:db8:64::c000:202",
                "*",
                "2001:db8:64::cb00:7150 !N"
            ]
        );
    }

    #[test]
    fn expected_hops_are_gateway_router_server() {
        let mut options = Options::new("t", "sampan");
        options.inside_routers = 1;
        let plan = Plan::new(&options);
        assert_eq!(
            hops(&plan, options.pref64),
            ["2001:db8:6::1", "2001:db8:6:1::1", "2001:db8:64::c000:202", "2001:db8:64::cb00:7150"]
        );
    }
}
