//! From QEMU's spelling of options to the one that clap reads.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::error::CliError;
use super::options::{self, Opt, Shape, Status};
use super::readconfig;
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
    let mut sets = Vec::new();
    let mut args: VecDeque<OsString> = args.into_iter().collect();
    while let Some(arg) = args.pop_front() {
        let (option, word) = match one(&arg, &mut args) {
            Ok(found) => found,
            Err(error) => {
                normalised.refused.push(error);
                // What follows an option that nobody knows is more likely its value than a disk.
                if option_of(&arg).is_none() && args.front().is_some_and(|next| !next.as_bytes().starts_with(b"-")) {
                    args.pop_front();
                }
                continue;
            }
        };
        match option.name {
            "help" | "version" | "V" => return Normalised { words: vec![word], refused: Vec::new() },
            "readconfig" => match readconfig::read(&value_of(&word)) {
                Ok(read) => read
                    .into_iter()
                    .rev()
                    .for_each(|option| option.into_iter().rev().for_each(|word| args.push_front(word))),
                Err(error) => normalised.refused.push(error),
            },
            "set" => sets.push(value_of(&word)),
            _ if option.status == Status::Always => {}
            _ => normalised.words.push(word),
        }
    }
    for text in sets {
        let set = readconfig::set(&text.to_string_lossy(), &mut normalised.words);
        normalised.refused.extend(set.err());
    }
    normalised
}

/// The option that a word names.
fn option_of(word: &OsStr) -> Option<&'static Opt> {
    let name = word.to_str()?.strip_prefix('-')?;
    options::find(name.strip_prefix('-').unwrap_or(name))
}

/// An option with a value in clap's spelling.
fn joined(name: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(value);
    word
}

/// The value in such a word.
fn value_of(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let start = bytes.iter().position(|&byte| byte == b'=').map_or(bytes.len(), |equals| equals + 1);
    OsString::from_vec(bytes.get(start..).unwrap_or_default().to_vec())
}

/// One option, its value taken from `rest` if it has one.
fn one(arg: &OsStr, rest: &mut VecDeque<OsString>) -> Result<(&'static Opt, OsString), CliError> {
    let typed = arg.to_string_lossy();
    let Some(dashed) = typed.strip_prefix('-').filter(|name| !name.is_empty()) else {
        // As with QEMU, what is no option is the first disk.
        let Some(option) = options::find("hda").filter(|_| typed != "-") else {
            return Err(CliError::new(typed, "an option without a name"));
        };
        return Ok((option, joined("hda", arg)));
    };
    let name = dashed.strip_prefix('-').unwrap_or(dashed);
    let option = options::find(name).ok_or_else(|| CliError::new(&typed, unknown(name)))?;
    let word = match option.shape {
        Shape::Flag => OsString::from(format!("--{}", option.name)),
        _ => joined(option.name, &value(option, &typed, rest)?),
    };
    match option.status {
        Status::NotYet => Err(CliError::new(typed, "not supported yet")),
        Status::Lacks(subject) => Err(CliError::new(&typed, subject.lacking(&typed))),
        Status::Gone(instead) => Err(CliError::new(&typed, format!("QEMU has it no longer: use {instead}"))),
        _ => Ok((option, word)),
    }
}

/// The value that follows an option. The name of an option is not taken for one, except for free text.
fn value(option: &Opt, typed: &str, rest: &mut VecDeque<OsString>) -> Result<OsString, CliError> {
    if let (Shape::Value(what), Some(next)) = (option.shape, rest.front())
        && let Some(follows) = option_of(next)
    {
        let message = format!("needs a value ({what}), but the option -{} follows", follows.name);
        return Err(CliError::new(typed, message));
    }
    let Some(value) = rest.pop_front() else {
        let message = match option.shape {
            Shape::Value(what) | Shape::FreeText(what) if !what.is_empty() => format!("needs a value: {what}"),
            _ => "needs a value (and is not supported yet)".to_owned(),
        };
        return Err(CliError::new(typed, message));
    };
    Ok(value)
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
