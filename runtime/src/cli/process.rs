//! How the process behaves on the host: `-action`, `-daemonize`, `-runas`, `-sandbox`.

use super::keyval::{self, Key, Kind};
use super::{CliError, Given, chardev, utf8};
use crate::config::{Chardev, Config, Groups, MonitorSocket, OnSigterm, Process, RunAs, Sandbox};

/// Reads the options about the process itself.
pub(super) fn parse(given: &Given, config: &mut Config) -> Result<(), CliError> {
    for value in given.all("action") {
        action(utf8("action", value)?, config)?;
    }
    if let Some(text) = given.text("sandbox")? {
        config.process.sandbox = sandbox(text)?;
    }
    config.process.run_as = given.text("runas")?.map(run_as).transpose()?;
    config.process.daemonize = given.flag("daemonize");
    if config.process.daemonize {
        daemonize(given, config)?;
    }
    Ok(())
}

/// A process in the background has no terminal.
fn daemonize(given: &Given, config: &mut Config) -> Result<(), CliError> {
    if given.one("serial").is_none() && !config.nographic {
        config.serial = Chardev::Null;
    }
    let debugcon = config.debugcon.iter().map(|debugcon| &debugcon.chardev);
    let terminal = debugcon.chain([&config.serial]).any(chardev::is_stdio)
        || config.monitors.iter().chain(&config.qmp).any(|place| *place == MonitorSocket::Stdio);
    let user = match (config.nographic, config.curses, terminal) {
        (true, ..) => "-nographic",
        (_, true, _) => "-display curses",
        (.., true) => "stdio",
        _ => return Ok(()),
    };
    Err(CliError::new("-daemonize", format!("cannot be used with {user}")))
}

/// `-runas`: a name, or two numbers.
fn run_as(text: &str) -> Result<RunAs, CliError> {
    let ids = text.split_once(':').map(|(uid, gid)| (uid.parse(), gid.parse()));
    match ids {
        Some((Ok(uid), Ok(gid))) => Ok(RunAs::Ids(uid, gid)),
        None if !text.is_empty() => Ok(RunAs::Name(text.to_owned())),
        _ => Err(CliError::new("-runas", format!("'{text}' is neither USER nor UID:GID"))),
    }
}

/// `-sandbox`.
fn sandbox(text: &str) -> Result<Sandbox, CliError> {
    const ANSWER: Kind = Kind::Word(&["allow", "deny"]);
    const KEYS: &[Key] = &[
        Key { name: "enable", kind: Kind::Word(&["on", "off"]), help: "" },
        Key { name: "obsolete", kind: ANSWER, help: "" },
        Key { name: "elevateprivileges", kind: Kind::Word(&["allow", "deny", "children"]), help: "" },
        Key { name: "spawn", kind: ANSWER, help: "" },
        Key { name: "resourcecontrol", kind: ANSWER, help: "" },
    ];
    const GROUPS: [(&str, Groups); 4] = [
        ("obsolete", Groups::OBSOLETE),
        ("elevateprivileges", Groups::ELEVATE),
        ("spawn", Groups::SPAWN),
        ("resourcecontrol", Groups::RESOURCES),
    ];
    let values = keyval::parse("-sandbox", text, "enable", KEYS)?;
    if values.word("enable") != Some("on") {
        return Ok(Sandbox::Off);
    }
    let mut groups = Groups::default();
    for (name, group) in GROUPS {
        if let Some(word) = values.word(name) {
            groups.set(group, word != "allow");
        }
    }
    Ok(Sandbox::On(groups))
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
