//! From QEMU's spelling of options to the one that clap reads.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::error::CliError;
use super::options::{self, Opt, Shape, Status};
use super::suggest::nearest;

/// A command line in clap's spelling.
#[derive(Default)]
pub(super) struct Normalised {
    /// What clap reads.
    pub words: Vec<OsString>,
    /// What is refused already.
    pub refused: Vec<CliError>,
}

/// Rewrites `-foo value` as `--foo=value`, so that clap sees long options only and never mistakes a value for an
/// option. QEMU accepts `--foo` too. A request for help or the version wins over everything else.
pub(super) fn normalise(args: impl IntoIterator<Item = OsString>) -> Normalised {
    let mut normalised = Normalised::default();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        match one(&arg, &mut args) {
            Ok((option, word)) => {
                if matches!(option.name, "help" | "version" | "V") {
                    return Normalised { words: vec![word], refused: Vec::new() };
                }
                if !matches!(option.status, Status::Only(_) | Status::Always) {
                    normalised.words.push(word);
                }
            }
            Err(error) => normalised.refused.push(error),
        }
    }
    normalised
}

/// One option, its value taken from `rest` if it has one.
fn one(
    arg: &OsStr,
    rest: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
) -> Result<(&'static Opt, OsString), CliError> {
    let typed = arg.to_string_lossy();
    let Some(dashed) = typed.strip_prefix('-').filter(|name| !name.is_empty()) else {
        // As with QEMU, what is no option is the first disk.
        let Some(option) = options::find("hda").filter(|_| typed != "-") else {
            return Err(CliError::new(typed, "an option without a name"));
        };
        let mut word = OsString::from("--hda=");
        word.push(arg);
        return Ok((option, word));
    };
    let name = dashed.strip_prefix('-').unwrap_or(dashed);
    let Some(option) = options::find(name) else {
        return Err(CliError::new(&typed, unknown(name)));
    };
    let mut word = OsString::from(format!("--{}", option.name));
    if option.shape != Shape::Flag {
        let Some(value) = value(option, &typed, rest)? else {
            let message = match option.shape {
                Shape::Value(what) | Shape::FreeText(what) if !what.is_empty() => format!("needs a value: {what}"),
                _ => "needs a value (and is not supported yet)".to_owned(),
            };
            return Err(CliError::new(typed.clone(), message));
        };
        word.push("=");
        word.push(&value);
        if let Status::Only(accepted) = option.status
            && value != accepted
        {
            let value = value.to_string_lossy();
            let message = format!("'{value}' is not supported yet (only '{accepted}' is)");
            return Err(CliError::new(typed.clone(), message));
        }
    }
    match option.status {
        Status::NotYet => Err(CliError::new(typed, "not supported yet")),
        Status::Lacks(subject) => Err(CliError::new(&typed, subject.lacking(&typed))),
        _ => Ok((option, word)),
    }
}

/// The value that follows an option. The name of an option is not taken for one, except for free text.
fn value(
    option: &Opt,
    typed: &str,
    rest: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
) -> Result<Option<OsString>, CliError> {
    let Some(next) = rest.peek() else { return Ok(None) };
    if let Shape::Value(what) = option.shape
        && let Some(name) = next.to_str().and_then(|next| next.strip_prefix('-'))
        && options::find(name.strip_prefix('-').unwrap_or(name)).is_some()
    {
        let message = format!("needs a value ({what}), but the option -{name} follows");
        return Err(CliError::new(typed, message));
    }
    Ok(rest.next())
}

/// What to say about an option nobody knows.
fn unknown(name: &str) -> String {
    if let Some((before, after)) = name.split_once('=')
        && let Some(option) = options::find(before)
    {
        return match option.shape {
            Shape::Flag => format!("-{before} takes no value"),
            _ => format!("the value is an argument of its own: -{before} '{after}'"),
        };
    }
    match nearest(name, options::names()) {
        Some(near) => format!("unknown option; did you mean -{near}? (-help lists all)"),
        None => "unknown option (-help lists all)".to_owned(),
    }
}

/// What follows `prefix` in a value that need not be UTF-8.
pub(super) fn strip_prefix(value: &OsStr, prefix: &str) -> Option<OsString> {
    value.as_bytes().strip_prefix(prefix.as_bytes()).map(|rest| OsString::from_vec(rest.to_vec()))
}
