//! Layer 6: the commands of the one binary. `COMMANDS` is the table; a new command is a row in it.
//!
//! Exit codes: 0 done, 1 refused, 2 no gateway answers, 64 wrong usage (`EX_USAGE`).

mod actions;
mod client;
mod meanings;
mod output;
mod status;
mod tables;
mod usage;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand};

use self::client::{Client, ClientError};
use self::output::{CliError, Outcome, complain, fault_text, problem_text};
use self::words::{CliFault, Word};
use crate::control::plan::{self, DEFAULT_CONFIG};
use crate::lab::{self, cli::LabCommand};
use crate::text::Lang;

/// One command.
struct Row {
    name: &'static str,
    about: Word,
    example: &'static str,
    args: fn(Command, Lang) -> Command,
    run: fn(&Context, &ArgMatches) -> Outcome,
}

/// Every command, in the order of the help.
const COMMANDS: &[Row] = &[
    Row {
        name: "run",
        about: Word::AboutRun,
        example: "sampan run --config /etc/sampan/sampan.toml",
        args: |command, lang| command.args([config_arg(lang), actions::only_arg(lang)]),
        run: actions::run,
    },
    Row {
        name: "check",
        about: Word::AboutCheck,
        example: "sampan check --config new.toml && sampan check --json --no-host",
        args: |command, lang| command.args([config_arg(lang), json_arg(lang), actions::no_host_arg(lang)]),
        run: actions::check,
    },
    Row {
        name: "reload",
        about: Word::AboutReload,
        example: "sampan check && sampan reload",
        args: |command, lang| command.args(asking_args(lang)),
        run: actions::reload,
    },
    Row {
        name: "status",
        about: Word::AboutStatus,
        example: "sampan status --json | jq .health.state",
        args: |command, lang| command.args(asking_args(lang)),
        run: status::status,
    },
    Row {
        name: "sessions",
        about: Word::AboutSessions,
        example: "sampan sessions --addr 2001:db8:6::17 --protocol tcp",
        args: |command, lang| command.args(asking_args(lang)).args(tables::row_args(lang)),
        run: tables::sessions,
    },
    Row {
        name: "bib",
        about: Word::AboutBib,
        example: "sampan bib --addr 198.51.100.7 --port 40123 --all --json",
        args: |command, lang| command.args(asking_args(lang)).args(tables::row_args(lang)),
        run: tables::bib,
    },
    Row {
        name: "drops",
        about: Word::AboutDrops,
        example: "sampan drops --all",
        args: |command, lang| command.args(asking_args(lang)).arg(tables::all_drops_arg(lang)),
        run: tables::drops,
    },
    Row {
        name: "stop",
        about: Word::AboutStop,
        example: "sampan stop --flush",
        args: |command, lang| command.args(asking_args(lang)).arg(actions::flush_arg(lang)),
        run: actions::stop,
    },
    Row {
        name: "lab",
        about: Word::AboutLab,
        example: "sampan lab demo",
        args: |command, lang| {
            let about = Word::AboutLab.say(lang);
            LabCommand::augment_subcommands(command.subcommand_required(true)).about(about)
        },
        run: |_, matches| match LabCommand::from_arg_matches(matches) {
            Ok(command) => Ok(lab::cli::run(command)),
            Err(error) => Err(CliFault::WrongUsage { message: error.to_string() }.into()),
        },
    },
];

/// What every command knows.
struct Context {
    lang: Lang,
    config: PathBuf,
    socket: Option<PathBuf>,
    json: bool,
}

impl Context {
    fn new(lang: Lang, matches: &ArgMatches) -> Self {
        let path = |name| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
        Self {
            lang,
            config: path("config").unwrap_or_else(|| DEFAULT_CONFIG.into()),
            socket: path("socket"),
            json: matches.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or(false),
        }
    }

    /// The way to the gateway: the socket that was named, or the one of the configuration.
    fn client(&self) -> Result<Client, CliFault> {
        match &self.socket {
            Some(socket) => Client::new(socket),
            None => Client::new(&plan::admin_socket(&self.config)),
        }
    }

    /// What a refused request ends with.
    fn refused(&self, error: ClientError) -> Outcome {
        match error {
            ClientError::Fault(fault) => Err(fault.into()),
            ClientError::Refused(refusal) => {
                let file = self.config.display().to_string();
                if self.json {
                    output::print_json(&refusal)?;
                } else {
                    for problem in &refusal.problems {
                        complain(&problem_text(self.lang, &file, problem));
                    }
                }
                Ok(ExitCode::from(1))
            }
        }
    }
}

/// The program.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let lang = language(&args);
    let matches = match command(lang).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return usage::explain(lang, &error),
    };
    let Some((name, matches)) = matches.subcommand() else { return usage::nothing_asked(lang) };
    let Some(row) = COMMANDS.iter().find(|row| row.name == name) else { return usage::nothing_asked(lang) };
    match (row.run)(&Context::new(lang, matches), matches) {
        Ok(code) => code,
        Err(CliError::Closed) => ExitCode::SUCCESS,
        Err(CliError::Fault(fault)) => {
            complain(&fault_text(lang, &fault));
            ExitCode::from(exit_code(&fault))
        }
    }
}

/// `docs/reference/cli.md`: the help of every command.
pub fn reference() -> String {
    let mut out = format!(
        "# Commands\n\nThe help of each command. To write it anew: `UPDATE_DOCS=1 cargo test --test cli reference`.\n\n\
         {}.\n\n",
        Word::ExitCodes.say(Lang::En)
    );
    for row in COMMANDS {
        let help = command(Lang::En).term_width(100).try_get_matches_from(["sampan", row.name, "--help"]);
        let help = help.err().map(|error| error.to_string()).unwrap_or_default();
        out.push_str(&format!("## `sampan {}`\n\n```text\n{}\n```\n\n", row.name, help.trim_end()));
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn exit_code(fault: &CliFault) -> u8 {
    match fault {
        CliFault::UnknownCommand { .. }
        | CliFault::UnknownFlag { .. }
        | CliFault::BadArgument { .. }
        | CliFault::WrongUsage { .. } => 64,
        CliFault::NoGateway { .. } | CliFault::NoPermission { .. } | CliFault::Silent { .. } => 2,
        CliFault::OddAnswer { .. } | CliFault::StillStopping { .. } | CliFault::CannotPrint { .. } => 1,
    }
}

/// The help is written before the arguments are read, so the language is looked for first.
fn language(args: &[OsString]) -> Lang {
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let named = args.iter().enumerate().find_map(|(i, arg)| match arg.strip_prefix("--lang") {
        Some("") => args.get(i + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    named.and_then(Lang::from_name).unwrap_or_else(|| Lang::from_env(|name| std::env::var(name).ok()))
}

fn command(lang: Lang) -> Command {
    let template = format!("{{about}}\n\n{} {{usage}}\n\n{{all-args}}{{after-help}}", Word::Usage.say(lang));
    let frame = |command: Command| {
        command
            .help_template(template.clone())
            .next_help_heading(words::options_heading(lang))
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .arg(lang_arg(lang))
            .arg(help_arg(lang))
    };
    let version =
        Arg::new("version").short('V').long("version").action(ArgAction::Version).display_order(102);
    let root = frame(Command::new("sampan"))
        .about(Word::About.say(lang))
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .arg(version.help(Word::HelpVersion.say(lang)))
        .subcommand_required(true)
        .subcommand_help_heading(words::commands_heading(lang))
        .after_help(Word::ExitCodes.say(lang));
    COMMANDS.iter().fold(root, |root, row| {
        let example = format!("{}\n  {}", Word::Examples.say(lang), row.example);
        let command = frame(Command::new(row.name)).about(row.about.say(lang)).after_help(example);
        // The help flag is ours, so commands below a command need it too.
        let command = (row.args)(command, lang).mut_subcommands(|below| below.arg(help_arg(lang)));
        root.subcommand(command)
    })
}

fn help_arg(lang: Lang) -> Arg {
    let help = Word::HelpHelp.say(lang);
    Arg::new("help").short('h').long("help").action(ArgAction::Help).display_order(101).help(help)
}

fn lang_arg(lang: Lang) -> Arg {
    Arg::new("lang")
        .long("lang")
        .value_name("LANG")
        .value_parser(["en", "vi"])
        .hide_possible_values(true)
        .display_order(100)
        .help(Word::HelpLang.say(lang))
}

fn config_arg(lang: Lang) -> Arg {
    let help = Word::HelpConfig { default: DEFAULT_CONFIG }.say(lang);
    Arg::new("config").long("config").value_name("FILE").value_parser(clap::value_parser!(PathBuf)).help(help)
}

fn json_arg(lang: Lang) -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help(Word::HelpJson.say(lang))
}

/// The arguments of every command that asks a running gateway.
fn asking_args(lang: Lang) -> [Arg; 3] {
    let socket = Arg::new("socket").long("socket").value_name("PATH");
    let socket = socket.value_parser(clap::value_parser!(PathBuf)).help(Word::HelpSocket.say(lang));
    [config_arg(lang), socket, json_arg(lang)]
}
