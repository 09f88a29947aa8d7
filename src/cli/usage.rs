//! Wrong usage, explained in the language of the operator.

use std::process::ExitCode;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::output::{complain, fault_text, help_text, print};
use super::words::{CliFault, Hint};
use super::{command, exit_code};
use crate::text::{Lang, shown};

/// Prints what clap has to say and gives the exit code.
pub(super) fn explain(lang: Lang, error: &Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that has gone away does not need the help.
        let _ = print(&help_text(&error.to_string()));
        return ExitCode::SUCCESS;
    }
    if matches!(
        error.kind(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(asked)) => incomplete(lang, asked),
            _ => nothing_asked(lang),
        };
    }
    let fault = fault(lang, error);
    complain(&fault_text(lang, &fault));
    ExitCode::from(exit_code(&fault))
}

/// The help, for somebody who asked nothing.
pub(super) fn nothing_asked(lang: Lang) -> ExitCode {
    complain(&help_text(&command(lang).render_help().to_string()));
    ExitCode::from(64)
}

/// The help of a command that needs one more word; `asked` is all there is, such as `sampan lab`.
fn incomplete(lang: Lang, asked: &str) -> ExitCode {
    let mut root = command(lang);
    root.build();
    match asked.split(' ').next_back().and_then(|name| root.find_subcommand_mut(name)) {
        Some(command) => {
            complain(&help_text(&command.render_help().to_string()));
            ExitCode::from(64)
        }
        None => nothing_asked(lang),
    }
}

fn fault(lang: Lang, error: &Error) -> CliFault {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => shown(word, 60),
        Some(ContextValue::Strings(words)) => shown(&words.join(", "), 120),
        _ => String::new(),
    };
    let near = |kind| match word(kind) {
        near if near.is_empty() => Hint::SeeHelp.say(lang),
        near => Hint::DidYouMean { near }.say(lang),
    };
    let kind = error.kind();
    if kind == ErrorKind::InvalidSubcommand {
        let near = near(ContextKind::SuggestedSubcommand);
        return CliFault::UnknownCommand { word: word(ContextKind::InvalidSubcommand), near };
    }
    if kind == ErrorKind::UnknownArgument {
        return CliFault::UnknownFlag {
            word: word(ContextKind::InvalidArg),
            near: near(ContextKind::SuggestedArg),
        };
    }
    if matches!(kind, ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        let argument = word(ContextKind::InvalidArg);
        let wanted = match (word(ContextKind::ValidValue), argument.as_str()) {
            (values, _) if !values.is_empty() => Hint::OneOf { values }.say(lang),
            (_, name) if name.starts_with("--addr") => Hint::AnAddress.say(lang),
            (_, name) if name.starts_with("--port") => Hint::ANumber { low: 0, high: 65_535 }.say(lang),
            (_, name) if name.starts_with("--limit") => {
                Hint::ANumber { low: 1, high: u32::MAX.into() }.say(lang)
            }
            _ => argument.clone(),
        };
        return CliFault::BadArgument { argument, value: word(ContextKind::InvalidValue), wanted };
    }
    // The rest is rare; clap's first line says it in English.
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    CliFault::WrongUsage { message: first.trim_start_matches("error: ").to_owned() }
}
