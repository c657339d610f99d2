//! What `-help` and `-d help` print, made from the tables.

use std::fmt::Write;

use super::options::{OPTIONS, Opt, SECTIONS, Shape, Status};
use mimus_machine::config::LOG_ITEMS;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Where the explanation of an option begins.
const COLUMN: usize = 24;

/// The text of `-help`.
pub(super) fn help() -> String {
    // Programs that run QEMU look for its version in the first line.
    let mut text = version();
    text.push_str(
        "usage: mimus [options]\n\n\
         Runs a whole x86 or RISC-V machine. The options are QEMU's. Without any, a\n\
         small built-in demo guest runs. To boot Linux in this terminal:\n\n  \
         mimus -m 512 -nographic -kernel vmlinuz -initrd initrd.gz \\\n        \
         -append \"console=ttyS0\"\n",
    );
    for (section, title) in SECTIONS {
        text.push_str(&format!("\n{title}:\n"));
        for option in OPTIONS {
            if let Status::Offered(of, lines, _) = option.status
                && of == *section
            {
                entry(&mut text, &spelling(option), lines);
            }
        }
    }
    text.push_str("\nAccepted, since mimus is always so:\n");
    let so = OPTIONS.iter().filter_map(|option| match (option.status, option.shape) {
        (Status::Always, Shape::Value(value)) => Some(format!("-{} {value}", option.name)),
        (Status::Always, _) => Some(format!("-{}", option.name)),
        _ => None,
    });
    wrap(&mut text, 0, &so.collect::<Vec<_>>().join(", "));
    text
}

/// The text of `-version`. Programs that run QEMU look for the version of it whose options and protocols these are.
pub(super) fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "QEMU emulator version {QEMU_VERSION} (mimus {version})\n\
         This is mimus {version}, which is not QEMU but takes its command line.\n"
    )
}

/// The version of QEMU that the command line and the monitors are those of.
pub(crate) const QEMU_VERSION: &str = "7.2.0";

/// The text of `-d help`.
pub(super) fn log_items() -> String {
    let mut text = String::from("Log items (comma separated):\n");
    for (_, name, help) in LOG_ITEMS {
        text.push_str(&format!("{name:<15} {help}\n"));
    }
    text.push_str(&format!("{:<15} {}\n", "all", "all of these"));
    text
}

fn spelling(option: &Opt) -> String {
    let mut text = format!("-{}", option.name);
    if let Some(alias) = option.alias {
        // Infallible: writing to a String.
        let _ = write!(text, ", -{alias}");
    }
    if let Shape::Value(value) | Shape::FreeText(value) = option.shape {
        let _ = write!(text, " {value}");
    }
    text
}

/// One option with its explanation, which starts on the next line if the spelling is too long.
fn entry(text: &mut String, spelling: &str, lines: &str) {
    let mut body = String::new();
    for line in lines.lines() {
        wrap(&mut body, COLUMN, line);
    }
    if spelling.len() < COLUMN {
        body.replace_range(..spelling.len(), spelling);
    } else {
        text.push_str(spelling);
        text.push('\n');
    }
    text.push_str(&body);
}

/// Appends `words` as lines that begin at column `indent`.
pub(super) fn wrap(text: &mut String, indent: usize, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column == 0 {
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else if column + 1 + word.len() >= WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal_and_names_every_option_that_works() {
        let text = help();
        for line in text.lines() {
            assert!(line.chars().count() < WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
        // Programs that look for an option take the first word of a line.
        let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        for option in OPTIONS {
            let name = format!("-{}", option.name);
            match option.status {
                Status::Offered(..) => assert!(text.lines().any(|line| starts_with_word(line, &name)), "{name}"),
                Status::Always => assert!(words.contains(&name.as_str()), "{name}"),
                Status::NotYet | Status::Lacks(_) | Status::Gone(_) => {
                    assert!(!text.lines().any(|line| starts_with_word(line, &name)), "{name}");
                }
            }
        }
    }

    fn starts_with_word(line: &str, word: &str) -> bool {
        line.split([' ', ',']).next() == Some(word)
    }

    #[test]
    fn entries_align() {
        let mut text = String::new();
        entry(&mut text, "-m SIZE", "RAM");
        entry(&mut text, "-machine NAME[,KEY=VALUE...]", "board");
        assert_eq!(text, "-m SIZE                 RAM\n-machine NAME[,KEY=VALUE...]\n                        board\n");
    }
}
