//! How the process behaves on the host: `-action`, `-daemonize`, `-runas`, `-sandbox`; and `-add-fd`.

use std::ffi::OsString;

use super::keyval::{self, Key, Kind};
use super::{CliError, Given, chardev, isa, utf8};
use mimus_host::config::{MonitorSocket, OnSigterm, Process, RunAs, Sandbox};
use mimus_host::sandbox::Groups;
use mimus_machine::config::{Config, Device, PanicAction, WatchdogAction};

/// Reads the options about the process itself.
pub(super) fn parse(given: &Given, config: &mut Config) -> Result<(), CliError> {
    watchdog(given, config)?;
    for value in given.all("action") {
        action(utf8("action", value)?, config)?;
    }
    if let Some(text) = given.text("sandbox")? {
        config.process.sandbox = sandbox(text)?;
    }
    config.process.run_as = given.text("runas")?.map(|text| run_as("-runas", text)).transpose()?;
    config.process.root = given.path("chroot")?;
    for value in given.all("run-with") {
        run_with(utf8("run-with", value)?, config)?;
    }
    config.process.daemonize = given.flag("daemonize");
    if config.process.daemonize {
        daemonize(given, config)?;
    }
    Ok(())
}

/// A process in the background has no terminal.
fn daemonize(given: &Given, config: &mut Config) -> Result<(), CliError> {
    if given.one("serial").is_none() && !config.nographic {
        isa::disconnect(config);
    }
    let mut connected = config.devices.iter().filter_map(Device::chardev);
    let terminal = connected.any(chardev::is_stdio)
        || isa::readers_of_stdio(config) != 0
        || config.monitors.iter().chain(&config.qmp).any(|place| *place == MonitorSocket::Stdio);
    let user = match (config.nographic && !given.flag("nodefaults"), config.curses, terminal) {
        (true, ..) => "-nographic",
        (_, true, _) => "-display curses",
        (.., true) => "stdio",
        _ => return Ok(()),
    };
    Err(CliError::new("-daemonize", format!("cannot be used with {user}")))
}

/// `-run-with`: newer QEMU's way to say the same. Nothing is left to be torn down behind the end.
fn run_with(text: &str, config: &mut Config) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        Key { name: "async-teardown", kind: Kind::Among(&["on", "off"]), help: "" },
        Key { name: "chroot", kind: Kind::Text("a folder"), help: "" },
        Key { name: "user", kind: Kind::Text("USER or UID:GID"), help: "" },
    ];
    let values = keyval::parse("-run-with", text, "async-teardown", KEYS)?;
    if let Some(user) = values.text("user") {
        config.process.run_as = Some(run_as("-run-with: user", user)?);
    }
    if let Some(root) = values.text("chroot") {
        config.process.root = Some(root.into());
    }
    Ok(())
}

/// `-runas`: a name, or two numbers.
fn run_as(option: &str, text: &str) -> Result<RunAs, CliError> {
    let ids = text.split_once(':').map(|(uid, gid)| (uid.parse(), gid.parse()));
    match ids {
        Some((Ok(uid), Ok(gid))) => Ok(RunAs::Ids(uid, gid)),
        None if !text.is_empty() => Ok(RunAs::Name(text.to_owned())),
        _ => Err(CliError::new(option, format!("'{text}' is neither USER nor UID:GID"))),
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

/// `-watchdog-action`, the same as `-action watchdog=`.
fn watchdog(given: &Given, config: &mut Config) -> Result<(), CliError> {
    if let Some(word) = given.text("watchdog-action")? {
        config.settings.watchdog = WatchdogAction::named(word).ok_or_else(|| {
            let message = format!("'{word}' is not known here: {}", WatchdogAction::WORDS.join(" or "));
            CliError::new("-watchdog-action", message)
        })?;
    }
    Ok(())
}

/// `-action`: what an event leads to.
fn action(text: &str, config: &mut Config) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        Key { name: "reboot", kind: Kind::Word(&["reset", "shutdown"]), help: "" },
        Key { name: "shutdown", kind: Kind::Word(&["poweroff", "pause"]), help: "" },
        Key { name: "panic", kind: Kind::Word(PanicAction::WORDS), help: "" },
        Key { name: "watchdog", kind: Kind::Word(WatchdogAction::WORDS), help: "" },
        Key { name: "sigterm", kind: Kind::Word(&["exit", "powerdown"]), help: "" },
    ];
    let values = keyval::parse("-action", text, "reboot", KEYS)?;
    if let Some(word) = values.word("reboot") {
        config.no_reboot = word == "shutdown";
    }
    if let Some(word) = values.word("shutdown") {
        config.settings.no_shutdown = word == "pause";
    }
    let settings = &mut config.settings;
    settings.panic = values.word("panic").and_then(PanicAction::named).unwrap_or(settings.panic);
    settings.watchdog = values.word("watchdog").and_then(WatchdogAction::named).unwrap_or(settings.watchdog);
    if let Some(word) = values.word("sigterm") {
        let Process { sigterm, .. } = &mut config.process;
        *sigterm = if word == "powerdown" { OnSigterm::PowerDown } else { OnSigterm::End };
    }
    Ok(())
}

/// What begins the name of a file of `-add-fd`; the number of its set follows.
const FD_SET: &str = "/dev/fdset/";

/// Has the names of `-add-fd`'s files in other options, `/dev/fdset/SET`, be those that the host has for open files.
pub(super) fn fd_sets(words: &mut [OsString]) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        // Those before are standard input and output.
        Key { name: "fd", kind: Kind::Number(3, 0x7fff_ffff), help: "" },
        Key { name: "set", kind: Kind::Number(0, 0x7fff_ffff), help: "" },
        Key { name: "opaque", kind: Kind::Text("any text"), help: "" },
    ];
    let mut sets = Vec::new();
    for text in words.iter().filter_map(|word| word.to_str()?.strip_prefix("--add-fd=")) {
        let values = keyval::parse("-add-fd", text, "fd", KEYS)?;
        match (values.number("fd"), values.number("set")) {
            (Some(fd), Some(set)) => sets.push((set, fd)),
            _ => return Err(CliError::new("-add-fd", "needs fd=FD and set=SET")),
        }
    }
    for word in words.iter_mut().filter(|_| !sets.is_empty()) {
        if let Some(text) = word.to_str().filter(|text| text.contains(FD_SET)) {
            *word = with_sets(text, &sets).into();
        }
    }
    Ok(())
}

/// A text with the names of files in sets replaced; a set that there is not stays.
fn with_sets(text: &str, sets: &[(u64, u64)]) -> String {
    let mut parts = text.split(FD_SET);
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = part.split_at(digits);
        let set = number.parse().ok();
        match sets.iter().rev().find(|(known, _)| Some(*known) == set) {
            Some((_, fd)) => all.push_str(&format!("/proc/self/fd/{fd}{rest}")),
            None => all.push_str(&format!("{FD_SET}{part}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_open_files() {
        let mut words =
            ["--add-fd=fd=7,set=1", "--add-fd=fd=9,set=12,opaque=x", "--drive=file=/dev/fdset/12,id=a", "/dev/fdset/2"]
                .map(OsString::from);
        fd_sets(&mut words).unwrap();
        assert_eq!(words[2..], ["--drive=file=/proc/self/fd/9,id=a", "/dev/fdset/2"]);
        assert_eq!(with_sets("/dev/fdset/1", &[(1, 7)]), "/proc/self/fd/7");
        let error = |text: &str| fd_sets(&mut [OsString::from(text)]).unwrap_err().to_string();
        assert_eq!(error("--add-fd=set=1"), "-add-fd: needs fd=FD and set=SET");
        assert!(error("--add-fd=fd=1,set=1").contains("out of range"));
    }
}
