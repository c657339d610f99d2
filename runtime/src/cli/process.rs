//! How the process behaves on the host: `-action`.

use super::keyval::{self, Key, Kind};
use super::{CliError, Given, utf8};
use crate::config::{Config, OnSigterm, Process};

/// Reads the options about the process itself.
pub(super) fn parse(given: &Given, config: &mut Config) -> Result<(), CliError> {
    for value in given.all("action") {
        action(utf8("action", value)?, config)?;
    }
    Ok(())
}

/// What an event leads to. No guest panics where anybody would hear of it, and no machine has a watchdog.
fn action(text: &str, config: &mut Config) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        Key { name: "reboot", kind: Kind::Word(&["reset", "shutdown"]), help: "" },
        Key { name: "shutdown", kind: Kind::Word(&["poweroff", "pause"]), help: "" },
        Key { name: "panic", kind: Kind::Word(&["none", "pause", "shutdown", "exit-failure"]), help: "" },
        Key {
            name: "watchdog",
            kind: Kind::Word(&["reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"]),
            help: "",
        },
        Key { name: "sigterm", kind: Kind::Word(&["exit", "powerdown"]), help: "" },
    ];
    let values = keyval::parse("-action", text, "reboot", KEYS)?;
    if let Some(word) = values.word("reboot") {
        config.no_reboot = word == "shutdown";
    }
    if let Some(word) = values.word("shutdown") {
        config.settings.no_shutdown = word == "pause";
    }
    if let Some(word) = values.word("sigterm") {
        let Process { sigterm, .. } = &mut config.process;
        *sigterm = if word == "powerdown" { OnSigterm::PowerDown } else { OnSigterm::End };
    }
    Ok(())
}
