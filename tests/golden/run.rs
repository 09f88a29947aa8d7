//! Sends the packets of a golden file through the workers that ship, and compares what comes out byte by byte.

use std::fmt::Write;

use sampan::daemon::counters::Totals;
use sampan::daemon::worker::Translator;
use sampan::siit;
use sampan::verdict::DropReason;
use sampan::wire::packet::Offload;

use crate::format::{Act, Golden, What};
use crate::gateway::{Crew, Gateway};
use crate::layers::{self, Names};
use crate::show;

/// What happened at one act.
pub struct Happened {
    pub input: Vec<u8>,
    pub out: Vec<Vec<u8>>,
    drops: Vec<String>,
    held: bool,
}

/// Runs a file with `workers` workers. An error says what is different, and shows what came out.
pub fn run(golden: &Golden, workers: u16) -> Result<Vec<Happened>, String> {
    match &golden.stateless {
        None => play(&mut Gateway::new(golden.settings.clone(), workers), golden),
        Some(settings) => {
            let make = |worker, now| {
                let place = siit::Place { worker, workers, seed: 0x5eed + u64::from(worker) };
                siit::Siit::new(settings.clone(), place, now)
            };
            play(&mut Crew::new(workers, make), golden)
        }
    }
}

fn play<T: Translator>(gateway: &mut Crew<T>, golden: &Golden) -> Result<Vec<Happened>, String> {
    let mut names = Names::new();
    let mut all = Vec::new();
    for (number, act) in golden.acts.iter().enumerate() {
        let at = |e| format!("line {}: {e}", act.line);
        let happened = perform(gateway, act, &mut names, number).map_err(at)?;
        compare(act, &happened, &mut names).map_err(at)?;
        all.push(happened);
    }
    Ok(all)
}

fn perform<T: Translator>(
    gateway: &mut Crew<T>,
    act: &Act,
    names: &mut Names,
    queue: usize,
) -> Result<Happened, String> {
    let before = gateway.totals();
    let (input, out) = match &act.what {
        What::In(layers) => {
            let input = layers::encode(layers, names, None)?;
            // To one queue after the other, so that with several workers most packets come to the wrong one.
            gateway.feed(queue, input.clone(), Offload::default());
            (input, gateway.run())
        }
        What::Wait(time) => {
            gateway.advance(*time);
            (Vec::new(), Vec::new())
        }
    };
    let after = gateway.totals();
    if let Some((_, offload)) =
        out.iter().find(|(_, o)| o.checksum != Offload::default().checksum || o.gso.is_some())
    {
        return Err(format!("something is left to be done: {offload:?}"));
    }
    let out = out.into_iter().map(|(bytes, _)| bytes).collect();
    Ok(Happened { input, out, drops: drops(&before, &after), held: after.held > before.held })
}

/// The drop counters that went up, by name, once for each time.
fn drops(before: &Totals, after: &Totals) -> Vec<String> {
    let count = |r: &DropReason| after.drops[*r as usize] - before.drops[*r as usize];
    DropReason::ALL.iter().flat_map(|r| std::iter::repeat_n(r.name().to_owned(), count(r) as usize)).collect()
}

fn compare(act: &Act, happened: &Happened, names: &mut Names) -> Result<(), String> {
    let mut wrong = String::new();
    if happened.out.len() != act.out.len() {
        let _ = writeln!(wrong, "{} packets came out, {} should have", happened.out.len(), act.out.len());
    }
    for (actual, layers) in happened.out.iter().zip(&act.out) {
        let expected = layers::encode(layers, names, Some(actual))?;
        if *actual != expected {
            let at = actual.iter().zip(&expected).position(|(a, b)| a != b);
            let at = at.unwrap_or(actual.len().min(expected.len()));
            let _ = writeln!(wrong, "differs from byte {at} on; should be:\n{}", show::packet(&expected));
        }
    }
    let mut expected = act.drops.clone();
    let mut dropped = happened.drops.clone();
    expected.sort();
    dropped.sort();
    if expected != dropped {
        let _ = writeln!(wrong, "dropped: {dropped:?}, should be {expected:?}");
    }
    if happened.held != act.held {
        let _ = writeln!(wrong, "held: {}, should be {}", happened.held, act.held);
    }
    for (a, b) in &act.differ {
        match (names.get(a), names.get(b)) {
            (Some(x), Some(y)) if x != y => {}
            (x, y) => {
                let _ = writeln!(wrong, "{a} is {x:?} and {b} is {y:?}");
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong}{}", describe(happened))) }
}

/// All of it, for people.
pub fn describe(happened: &Happened) -> String {
    let mut text = String::new();
    if !happened.input.is_empty() {
        let _ = writeln!(text, "in\n{}", show::packet(&happened.input));
    }
    for out in &happened.out {
        let _ = writeln!(text, "out\n{}", show::packet(out));
    }
    for reason in &happened.drops {
        let _ = writeln!(text, "drop {reason}");
    }
    if happened.held {
        let _ = writeln!(text, "held");
    }
    text
}
