//! `sampan lab …`: the laboratory from the command line.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::blast::{self, BlastCommand};
use super::demo::{self, Manner};
use super::options::{Options, Translator};
use super::state::{self, State};
use super::tool::Tool;
use super::{Host, Lab, LabError, remove_by_id};
use crate::text::Lang;

/// The id of a laboratory that nobody named.
const DEFAULT_ID: &str = "lab";

/// Subcommands of `sampan lab`.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Build the laboratory and leave it running
    #[command(
        after_help = "Example:\n  sampan lab up && sampan lab exec client1 curl http://portal.tinh.example/"
    )]
    Up {
        /// Which laboratory
        #[command(flatten)]
        which: Which,
        /// What to build
        #[command(flatten)]
        shape: Shape,
    },
    /// Build the laboratory, show what the gateway does, remove it
    #[command(after_help = "Example:\n  sampan lab demo --lang vi")]
    Demo {
        /// Language; the environment's if not given
        #[arg(long, value_parser = ["en", "vi"])]
        lang: Option<String>,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
        /// What to build
        #[command(flatten)]
        shape: Shape,
    },
    /// Run a command on a host of a running laboratory
    #[command(after_help = "Example:\n  sampan lab exec client1 dig AAAA portal.tinh.example")]
    Exec {
        /// Which laboratory
        #[command(flatten)]
        which: Which,
        /// client1, client2, gw, router, server, …
        host: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Traffic for tests and measurements
    #[command(subcommand, hide = true)]
    Blast(BlastCommand),
    /// List laboratories and their hosts
    #[command(after_help = "Example:\n  sampan lab status --json")]
    Status {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Remove a laboratory and everything in it
    #[command(after_help = "Example:\n  sampan lab down --all")]
    Down {
        /// Which laboratory
        #[command(flatten)]
        which: Which,
        /// All that were left running, and what killed runs left behind
        #[arg(long)]
        all: bool,
    },
}

/// Which laboratory.
#[derive(Debug, Args)]
pub struct Which {
    /// Name of the laboratory, letters and digits
    #[arg(long, default_value = DEFAULT_ID)]
    id: String,
}

/// What to build.
#[derive(Debug, Args)]
pub struct Shape {
    /// What stands in the gateway
    #[arg(long, value_enum, default_value = "sampan")]
    translator: Translator,
    /// IPv6 routers between the clients and the gateway
    #[arg(long, default_value_t = 0)]
    inside_routers: u8,
    /// IPv4 routers between the gateway and the server
    #[arg(long, default_value_t = 1)]
    outside_routers: u8,
}

/// Does what was asked for; prints its own errors, one line each.
pub fn run(command: LabCommand) -> ExitCode {
    let done = match command {
        LabCommand::Up { which, shape } => up(which, shape),
        LabCommand::Demo { lang, json, shape } => demo(lang, json, shape),
        LabCommand::Exec { which, host, command } => Err(exec(&which, &host, command)),
        LabCommand::Blast(command) => blast::run(command),
        LabCommand::Status { json } => {
            status(json);
            Ok(())
        }
        LabCommand::Down { which, all } => down(&which, all),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sampan lab: {error}");
            // What a shell expects after Ctrl-C.
            ExitCode::from(if matches!(error, LabError::Interrupted) { 130 } else { 1 })
        }
    }
}

fn up(which: Which, shape: Shape) -> Result<(), LabError> {
    let lab = Lab::up(shape.options(which.id)?)?;
    let id = &lab.options().id;
    let named = if id == DEFAULT_ID { String::new() } else { format!(" --id {id}") };
    println!("lab `{id}` is up: {}", names(lab.hosts()));
    println!("try:    sampan lab exec{named} client1 curl http://portal.tinh.example/");
    println!("remove: sampan lab down{named}");
    println!("files and logs: {}", lab.dir().display());
    lab.stay()
}

fn demo(lang: Option<String>, json: bool, shape: Shape) -> Result<(), LabError> {
    // Its own name, so that it can run beside a laboratory that is up.
    let id = format!("demo{}", std::process::id());
    let named = lang.as_deref().and_then(Lang::from_name);
    let lang = named.unwrap_or_else(|| Lang::from_env(|name| std::env::var(name).ok()));
    let manner = Manner { lang, json };
    if demo::run(shape.options(id)?, manner)? {
        Ok(())
    } else {
        Err(LabError::Step("the demonstration did not show everything; see above".into()))
    }
}

fn exec(which: &Which, host: &str, command: Vec<String>) -> LabError {
    let mut words = command.into_iter();
    let tool = match (Lab::open(&which.id), words.next()) {
        (Err(error), _) => return error,
        (Ok(_), None) => return LabError::Options("nothing to run".into()),
        (Ok(lab), Some(program)) => lab.host(host).map(|host| host.tool(&program)),
    };
    match tool.map(|tool| tool.args(words)) {
        Ok(tool) => Tool::become_it(tool),
        Err(error) => error,
    }
}

fn status(as_json: bool) {
    let labs: Vec<_> = state::ids().into_iter().map(|id| (State::load(&id), id)).collect();
    if as_json {
        let rows: Vec<_> = labs
            .iter()
            .map(|(state, id)| {
                let hosts = Lab::open(id).map(|lab| names(lab.hosts())).unwrap_or_default();
                json!({
                    "id": id,
                    "state": word(state),
                    "dir": state::dir(id),
                    "hosts": hosts.split(", ").collect::<Vec<_>>(),
                })
            })
            .collect();
        println!("{}", json!({ "labs": rows }));
        return;
    }
    if labs.is_empty() {
        println!("no lab is up; start one with `sampan lab up`");
    }
    for (state, id) in &labs {
        let hosts = Lab::open(id).map(|lab| names(lab.hosts())).unwrap_or_default();
        println!("{id}  {}  {hosts}", word(state));
    }
}

fn word(state: &Result<State, LabError>) -> &'static str {
    match state {
        Err(_) => "damaged",
        Ok(State { owner: None, .. }) => "running",
        Ok(State { owner: Some(owner), .. }) if owner.alive() => "in use",
        Ok(_) => "left over",
    }
}

fn down(which: &Which, all: bool) -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    if !all {
        if !state::dir(&which.id).exists() {
            return Err(LabError::NotUp(which.id.clone()));
        }
        remove_by_id(&which.id)?;
        println!("lab `{}` is removed", which.id);
        return Ok(());
    }
    let mut removed = 0;
    for id in ids_everywhere() {
        let in_use = State::load(&id).is_ok_and(|s| s.owner.is_some_and(|owner| owner.alive()));
        if in_use {
            println!("lab `{id}` is in use by a running program and stays");
        } else {
            remove_by_id(&id)?;
            println!("lab `{id}` is removed");
            removed += 1;
        }
    }
    if removed == 0 {
        println!("nothing to remove");
    }
    Ok(())
}

/// Ids with a record, and ids of namespaces whose record is gone.
fn ids_everywhere() -> Vec<String> {
    let mut ids = state::ids();
    for netns in super::netns::Netns::list("sampan-") {
        // Only names that a laboratory gives: `sampan-ID-HOST`.
        if let [_, id, "gw" | "server" | "client1" | "client2" | "lan"] =
            *netns.name().split('-').collect::<Vec<_>>()
        {
            ids.push(id.to_owned());
        }
    }
    ids.sort();
    ids.dedup();
    ids
}

impl Shape {
    fn options(self, id: String) -> Result<Options, LabError> {
        let sampan = std::env::current_exe().map_err(LabError::io("find the sampan program"))?;
        let mut options = Options::new(id, sampan);
        options.translator = self.translator;
        options.inside_routers = self.inside_routers;
        options.outside_routers = self.outside_routers;
        options.check()?;
        Ok(options)
    }
}

fn names(hosts: &[Host]) -> String {
    hosts.iter().map(Host::name).collect::<Vec<_>>().join(", ")
}
