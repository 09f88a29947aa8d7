//! `status`: everything on one screen.

use std::process::ExitCode;

use clap::ArgMatches;

use super::Context;
use super::output::{Outcome, Table, clean, duration, print, print_json};
use super::words::Word;
use crate::control::admin::{
    ByProtocol, DnsName, DnsStatus, DnsUnit, FastStatus, HealthState, SiitStatus, Status, WorkerStatus,
};
use crate::control::health::TranslatorHealth;
use crate::text::{Lang, shown};

/// Shows the state.
pub(super) fn status(context: &Context, _: &ArgMatches) -> Outcome {
    let status: Status = match context.client()?.get("/v1/status") {
        Ok(status) => status,
        Err(error) => return context.refused(error),
    };
    if context.json {
        print_json(&status)?;
    } else {
        let lang = context.lang;
        print(&headline(&status, lang))?;
        Table::new(&[false, false]).print(&facts(&status, lang))?;
        print("\n")?;
        Table::new(&[true; 11]).print(&workers(&status.workers, lang))?;
        if let Some(dns) = &status.dns64 {
            print("\n")?;
            Table::new(&[false, true, true, true, true, true]).print(&units(&dns.units, lang))?;
            if !dns.names.is_empty() {
                print("\n")?;
                Table::new(&[false, false, true]).print(&names(&dns.names, lang))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn headline(status: &Status, lang: Lang) -> String {
    let up = Word::Up { version: clean(&status.version), time: duration(status.uptime_s) };
    let health = match status.health.state {
        HealthState::Ok => Word::HealthOk,
        HealthState::Degraded => Word::HealthDegraded,
        HealthState::Failed => Word::HealthFailed,
    };
    let mut text = format!("{}: {}\n", up.say(lang), health.say(lang));
    let health = &status.health;
    let reasons = if lang == Lang::Vi { &health.reasons_vi } else { &health.reasons };
    for reason in reasons {
        text.push_str(&format!("  - {}\n", shown(reason, 200)));
    }
    text
}

fn facts(status: &Status, lang: Lang) -> Vec<Vec<String>> {
    let mut rows = vec![
        vec![Word::LabelConfig.say(lang), status.config.clone()],
        vec![Word::LabelDevice.say(lang), clean(&status.tun)],
        vec!["pool6".into(), status.pool6.join(", ")],
        vec![Word::LabelTranslator.say(lang), translator(&status.translator).say(lang)],
    ];
    for pool in &status.pool4 {
        let percent = pool.blocks_leased.saturating_mul(100).checked_div(pool.blocks).unwrap_or(0);
        let used = Word::Blocks { leased: pool.blocks_leased, blocks: pool.blocks, percent };
        rows.push(vec![
            "pool4".into(),
            format!("{}  {}  {}  {}", pool.prefix, pool.ports, clean(&pool.mode), used.say(lang)),
        ]);
    }
    match &status.siit {
        Some(siit) => rows.extend(mappings(siit, lang)),
        None => {
            rows.extend(tables(status, lang));
            rows.extend(fast_path(&status.fastpath, lang));
        }
    }
    if let Some(dns) = &status.dns64 {
        let named = |scheme: &str, list: &[String]| list.iter().map(|at| format!("{scheme}{at}")).collect();
        let listen: [Vec<_>; 3] =
            [named("", &dns.listen), named("tls://", &dns.tls), named("https://", &dns.https)];
        let listens = Word::Listens { listen: listen.concat().join(", "), upstream: dns.upstream.join(", ") };
        rows.push(vec!["DNS64".into(), listens.say(lang)]);
        rows.extend(counters(dns).into_iter().map(|line| vec![String::new(), line]));
    }
    rows
}

/// Whether the translator counts as working.
fn translator(health: &TranslatorHealth) -> Word {
    let (time, changes) = (duration(health.since_s), health.changes);
    if health.up { Word::TranslatorUp { time, changes } } else { Word::TranslatorDown { time, changes } }
}

/// What the stateful translator holds.
fn tables(status: &Status, lang: Lang) -> Vec<Vec<String>> {
    let of = |now, limit| Word::Of { now, limit }.say(lang);
    let each = |n: ByProtocol| format!("TCP {}, UDP {}, ICMP {}", n.tcp, n.udp, n.icmp);
    let sessions =
        format!("{}: {}", of(status.sessions.total(), status.sessions_limit), each(status.sessions));
    vec![
        vec![Word::LabelSessions.say(lang), sessions],
        vec!["BIB".into(), format!("{}: {}", status.bib.total(), each(status.bib))],
        vec![Word::LabelSubscribers.say(lang), of(status.subscribers, status.subscribers_limit)],
    ]
}

/// What the fast path carries, or why there is none.
fn fast_path(fast: &FastStatus, lang: Lang) -> Vec<Vec<String>> {
    let line = |label: String, word: Word| vec![label, word.say(lang)];
    if !fast.on {
        let why = if lang == Lang::Vi { &fast.why_vi } else { &fast.why };
        return vec![line(Word::LabelFast.say(lang), Word::FastOff { why: shown(why, 300) })];
    }
    let sum = |named: &dyn Fn(&str) -> bool| {
        fast.counters.iter().filter(|c| named(&c.name)).map(|c| c.value).sum::<u64>()
    };
    let count = |name: &str| sum(&|other| other == name);
    let (inside, outside) = (clean(&fast.inside), clean(&fast.outside));
    vec![
        line(
            Word::LabelFast.say(lang),
            Word::FastOn { flows: fast.flows, limit: fast.flows_limit, inside, outside },
        ),
        line(
            String::new(),
            Word::FastCarried {
                packets6: count("segments_v6_to_v4"),
                bytes6: count("bytes_v6_to_v4"),
                packets4: count("segments_v4_to_v6"),
                bytes4: count("bytes_v4_to_v6"),
            },
        ),
        line(
            String::new(),
            Word::FastUp {
                up: sum(&|name| name.starts_with("up_")),
                dropped: sum(&|name| name.starts_with("drop_")),
                refused: fast.refused,
            },
        ),
    ]
}

/// What the stateless translator goes by.
fn mappings(siit: &SiitStatus, lang: Lang) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["SIIT".into(), Word::Stateless { mappings: siit.mappings }.say(lang)]];
    for (key, prefixes) in [("translatable4", &siit.translatable4), ("icmp6-pool4", &siit.icmp6_pool4)] {
        if !prefixes.is_empty() {
            rows.push(vec![key.into(), prefixes.join(", ")]);
        }
    }
    rows
}

type Column = (Word, fn(&WorkerStatus) -> u64);

fn workers(workers: &[WorkerStatus], lang: Lang) -> Vec<Vec<String>> {
    let columns: [Column; 14] = [
        (Word::Worker, |w| w.worker.into()),
        (Word::In, |w| w.packets_in),
        (Word::Taken, |w| w.taken),
        (Word::Translated, |w| w.translated),
        (Word::Absorbed, |w| w.absorbed),
        (Word::Held, |w| w.held),
        (Word::Returned, |w| w.returned),
        (Word::Dropped, |w| w.dropped),
        (Word::Passed, |w| w.passed),
        (Word::OutTranslated, |w| w.out_translated),
        (Word::OutPieces, |w| w.out_pieces),
        (Word::OutOriginated, |w| w.out_originated),
        (Word::Sessions, |w| w.sessions),
        (Word::Bib, |w| w.bib),
    ];
    // Only where an address is shared there is something to hand back.
    let shares = workers.iter().any(|w| w.returned > 0);
    let columns: Vec<_> =
        columns.into_iter().filter(|(word, _)| shares || !matches!(word, Word::Returned)).collect();
    let header = columns.iter().map(|(word, _)| word.say(lang)).collect();
    let row = |w: &WorkerStatus| columns.iter().map(|(_, number)| number(w).to_string()).collect();
    std::iter::once(header).chain(workers.iter().map(row)).collect()
}

/// How questions ended, by unit.
fn units(units: &[DnsUnit], lang: Lang) -> Vec<Vec<String>> {
    let header = [Word::Unit, Word::Native, Word::Synthesised, Word::Ipv4Only, Word::Failed, Word::Other];
    let row = |unit: &DnsUnit| {
        let name = unit.unit.as_ref().map_or_else(|| Word::NoUnit.say(lang), |name| shown(name, 40));
        let numbers = [unit.native, unit.synthesised, unit.ipv4_only, unit.failed, unit.other];
        std::iter::once(name).chain(numbers.map(|n| n.to_string())).collect()
    };
    let header = header.map(|word| word.say(lang)).to_vec();
    std::iter::once(header).chain(units.iter().map(row)).collect()
}

/// The names that are asked most.
fn names(names: &[DnsName], lang: Lang) -> Vec<Vec<String>> {
    let header = [Word::Name, Word::Class, Word::Count].map(|word| word.say(lang)).to_vec();
    let row = |name: &DnsName| vec![shown(&name.name, 80), clean(&name.class), name.count.to_string()];
    std::iter::once(header).chain(names.iter().map(row)).collect()
}

/// The counters that say something, a few to a line; `--json` has all of them.
fn counters(dns: &DnsStatus) -> Vec<String> {
    let told = dns.counters.iter().filter(|counter| counter.value > 0);
    let told: Vec<String> =
        told.map(|counter| format!("{} {}", clean(&counter.name), counter.value)).collect();
    told.chunks(5).map(|line| line.join(", ")).collect()
}
