//! `run`, `check`, `reload` and `stop`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::Context;
use super::client::ClientError;
use super::output::{Outcome, complain, error_text, print, print_json, problem_text};
use super::words::{CliFault, Word};
use crate::control::admin::ReloadView;
use crate::control::certificates;
use crate::control::config::Level;
use crate::control::plan::host::{HostFacts, check_host};
use crate::control::plan::{Checked, load};
use crate::control::problem::{Problem, ProblemView};
use crate::daemon::{Part, StartError};
use crate::text::Lang;

/// How long `stop` waits for the gateway to end.
const STOP_WAIT: Duration = Duration::from_secs(30);

pub(super) fn no_host_arg(lang: Lang) -> Arg {
    Arg::new("no-host").long("no-host").action(ArgAction::SetTrue).help(Word::HelpNoHost.say(lang))
}

pub(super) fn flush_arg(lang: Lang) -> Arg {
    Arg::new("flush").long("flush").action(ArgAction::SetTrue).help(Word::HelpFlush.say(lang))
}

pub(super) fn only_arg(lang: Lang) -> Arg {
    Arg::new("only")
        .long("only")
        .value_name("PART")
        .value_parser(["dns64", "translator"])
        .help(Word::HelpOnly.say(lang))
}

/// Runs the gateway. Problems of the configuration are printed before anything is touched.
pub(super) fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let (checked, problems) = examine(context, true);
    complain(&listing(context, &problems));
    let Some(checked) = checked else { return Ok(ExitCode::from(1)) };
    begin_log(checked.plan.log_level);
    let part = match matches.get_one::<String>("only").map(String::as_str) {
        Some("dns64") => Part::Dns64,
        Some("translator") => Part::Translator,
        // The parser lets no other word through.
        Some(_) | None => Part::All,
    };
    match crate::daemon::run(checked.plan, &context.config, part) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => failed(context, &error),
    }
}

/// Messages go to standard error, where the service manager reads them. Libraries only warn: hickory would write a
/// line for each question.
fn begin_log(level: Level) {
    let filter = EnvFilter::new(format!("warn,hickory_net=error,sampan={}", level.name()));
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // There is one already only when a test runs two gateways in one process.
    let _ = log.with_env_filter(filter).try_init();
}

fn failed(context: &Context, error: &StartError) -> Outcome {
    complain(&error_text(
        context.lang,
        &error.code(),
        &error.what(context.lang),
        &error.remedy(context.lang),
    ));
    Ok(ExitCode::from(1))
}

#[derive(Serialize)]
struct CheckReport {
    config: String,
    ok: bool,
    problems: Vec<ProblemView>,
}

/// Names everything that is wrong.
pub(super) fn check(context: &Context, matches: &ArgMatches) -> Outcome {
    let (checked, problems) = examine(context, !matches.get_flag("no-host"));
    let ok = checked.is_some();
    if context.json {
        let problems = problems.iter().map(|problem| problem.view(context.lang)).collect();
        print_json(&CheckReport { config: context.config.display().to_string(), ok, problems })?;
    } else {
        let errors = problems.iter().filter(|problem| problem.is_error()).count();
        let warnings = problems.len() - errors;
        let verdict = if ok { Word::Sound { warnings } } else { Word::Unsound { errors, warnings } };
        let file = context.config.display();
        print(&format!("{}{file}: {}\n", listing(context, &problems), verdict.say(context.lang)))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Has the gateway read its configuration again.
pub(super) fn reload(context: &Context, _: &ArgMatches) -> Outcome {
    let client = context.client()?;
    let body = match client.post(&format!("/v1/reload?lang={}", context.lang.name())) {
        Ok(body) => body,
        Err(error) => return context.refused(error),
    };
    let view: ReloadView = serde_json::from_slice(&body).map_err(|error| client.odd(&error))?;
    if context.json {
        print_json(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = context.config.display().to_string();
    for warning in &view.warnings {
        complain(&problem_text(context.lang, &file, warning));
    }
    let done = match view.changed.as_slice() {
        [] => Word::Unchanged,
        keys => Word::Changed { keys: keys.join(", ") },
    };
    print(&(done.say(context.lang) + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Stops the gateway and waits until it has ended. With `--flush` a gateway that is dead already is cleaned up after.
pub(super) fn stop(context: &Context, matches: &ArgMatches) -> Outcome {
    let client = context.client()?;
    let flush = matches.get_flag("flush");
    match client.post(&format!("/v1/stop?flush={flush}")) {
        Ok(_) => {}
        Err(ClientError::Fault(CliFault::NoGateway { .. })) if flush => return flush_left_over(context),
        Err(error) => return context.refused(error),
    }
    let begin = Instant::now();
    while client.is_answered() {
        if begin.elapsed() > STOP_WAIT {
            return Err(CliFault::StillStopping { seconds: STOP_WAIT.as_secs() }.into());
        }
        sleep(Duration::from_millis(50));
    }
    // The gateway may have had no power over the files; without its configuration there is nothing to look for.
    if flush
        && let Ok(checked) = load(&context.config)
        // They belong to the translator, which a DNS64 of its own has nothing to do with.
        && context.socket.as_ref() != Some(&checked.plan.dns64_socket)
        && let Err(error) = crate::daemon::remove_pins(&checked.plan)
    {
        return failed(context, &error);
    }
    stopped(context, Word::Stopped)
}

fn flush_left_over(context: &Context) -> Outcome {
    let checked = match load(&context.config) {
        Ok(checked) => checked,
        Err(problems) => {
            complain(&listing(context, &problems));
            return Ok(ExitCode::from(1));
        }
    };
    match crate::daemon::flush(&checked.plan) {
        Ok(()) => stopped(context, Word::Flushed),
        Err(error) => failed(context, &error),
    }
}

fn stopped(context: &Context, how: Word) -> Outcome {
    if context.json {
        print_json(&serde_json::json!({ "stopped": true }))?;
    } else {
        print(&(how.say(context.lang) + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan, if it can be used, and every problem.
fn examine(context: &Context, with_host: bool) -> (Option<Checked>, Vec<Problem>) {
    let checked = match load(&context.config) {
        Ok(checked) => checked,
        Err(problems) => return (None, problems),
    };
    let mut problems = checked.warnings.clone();
    if with_host {
        problems.extend(check_host(&checked, &HostFacts::read()));
        problems.extend(certificates::check(&checked));
        problems.sort_by_key(|problem| (problem.line, problem.severity));
    }
    let usable = !problems.iter().any(Problem::is_error);
    (usable.then_some(checked), problems)
}

fn listing(context: &Context, problems: &[Problem]) -> String {
    let file = context.config.display().to_string();
    problems.iter().map(|problem| problem_text(context.lang, &file, &problem.view(context.lang))).collect()
}
