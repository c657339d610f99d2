//! QMP's commands that do something with the machine as a whole.

use serde_json::{Map, Value, json};

use super::commands::done;
use super::{Failure, generic, number, text};
use crate::config::{Actions, PanicAction, WatchdogAction};
use crate::control::Controlled;
use crate::monitor::commands::{self, State};

pub(super) fn human(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let line = text(args, "command-line");
    Ok(commands::execute(machine, &mut State::default(), line).replace('\n', "\r\n").into())
}

pub(super) fn save(machine: &mut dyn Controlled, args: &Map<String, Value>, command: &str) -> Result<Value, Failure> {
    let line = format!("{command} {} {} {}", number(args, "val", 0), number(args, "size", 0), text(args, "filename"));
    match commands::execute(machine, &mut State::default(), &line) {
        done if done.is_empty() => Ok(json!({})),
        error => Err(generic(error.trim().trim_start_matches("Error: "))),
    }
}

pub(super) fn inject_nmi(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    if machine.raise_nmi() { done() } else { Err(generic("machine does not provide NMIs")) }
}

pub(super) fn screendump(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    // QMP's default is a PPM, whatever the name.
    let format = if args.contains_key("format") { text(args, "format") } else { "ppm" };
    commands::screen_to(machine, text(args, "filename"), format).map_err(generic)?;
    done()
}

pub(super) fn change_vnc_password(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    machine.set_vnc_password(text(args, "password")).map_err(generic)?;
    done()
}

pub(super) fn set_password(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    match (text(args, "protocol"), text(args, "connected")) {
        ("vnc", "" | "keep") => change_vnc_password(machine, args),
        ("vnc", _) => Err(generic("who is connected stays so: 'keep' is all there is")),
        _ => Err(generic("the protocol is vnc")),
    }
}

pub(super) fn wake_up(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    commands::wake_up(machine).map_err(generic)?;
    done()
}

pub(super) fn set_action(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let is = |name: &str, word: &str| args.get(name).map(|given| given == word);
    machine.set_actions(&Actions {
        reboots: is("reboot", "reset"),
        ends: is("shutdown", "poweroff"),
        panic: PanicAction::named(text(args, "panic")),
        watchdog: WatchdogAction::named(text(args, "watchdog")),
    });
    done()
}

pub(super) fn set_watchdog_action(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    machine.set_actions(&Actions { watchdog: WatchdogAction::named(text(args, "action")), ..Actions::default() });
    done()
}

pub(super) fn no_preconfig(_: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Err(generic("The command is permitted only before machine initialization"))
}

/// Nothing here hangs on another host, so there is nothing to be torn away.
pub(super) fn yank(args: &Map<String, Value>) -> Result<Value, Failure> {
    match args.get("instances").and_then(Value::as_array) {
        Some(instances) if !instances.is_empty() => Err(("DeviceNotFound", "Instance not found".to_owned())),
        _ => done(),
    }
}
