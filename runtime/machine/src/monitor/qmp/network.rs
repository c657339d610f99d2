//! QMP's commands about networks.

use serde_json::{Map, Value};

use super::commands::{done, listed};
use super::{Failure, generic, text};
use crate::control::Controlled;

/// A device that is not there has an error class of its own.
fn failed(error: String) -> Failure {
    if error.ends_with("not found") { ("DeviceNotFound", error) } else { generic(error) }
}

pub(super) fn set_link(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let up = args.get("up").and_then(Value::as_bool).unwrap_or_default();
    machine.set_link(text(args, "name"), up).map_err(failed)?;
    done()
}

pub(super) fn filters(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let Value::Array(mut all) = listed(machine, "qmp-rx-filters") else { return Ok(Value::Array(Vec::new())) };
    if let Some(name) = args.get("name").and_then(Value::as_str) {
        all.retain(|one| one["name"] == name);
        if all.is_empty() {
            return Err(generic(format!("invalid net client name: {name}")));
        }
    }
    Ok(all.into())
}

pub(super) fn add(_: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Err(generic("networks cannot be added while a machine runs: name it on the command line by -netdev"))
}

pub(super) fn remove(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let id = text(args, "id");
    let known = machine.info("networks").unwrap_or_default();
    if id.is_empty() || known.lines().all(|name| name != id) {
        return Err(failed(format!("Device '{id}' not found")));
    }
    Err(generic(format!("Device '{id}' is in use: networks stay as long as the machine runs")))
}
