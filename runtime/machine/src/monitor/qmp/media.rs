//! QMP's commands about media of drives.

use serde_json::{Map, Value};

use super::commands::done;
use super::{Failure, generic, text};
use crate::control::Controlled;
use crate::monitor::commands;
use mimus_host::config::ImageFormat;

/// The drive that `id` or `device` names, and whether `force` is set.
fn drive(args: &Map<String, Value>) -> Result<(&str, bool), Failure> {
    let name = if args.contains_key("id") { text(args, "id") } else { text(args, "device") };
    if name.is_empty() {
        return Err(generic("Parameter 'id' or 'device' is missing"));
    }
    Ok((name, args.get("force").and_then(Value::as_bool).unwrap_or_default()))
}

/// A drive that is not there has an error class of its own.
fn failed(error: String) -> Failure {
    if error.ends_with("not found") { ("DeviceNotFound", error) } else { generic(error) }
}

pub(super) fn change_medium(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let ((name, force), file, format) = (drive(args)?, text(args, "filename"), text(args, "format"));
    if text(args, "read-only-mode") == "read-write" {
        return Err(generic("read-only-mode: a CD-ROM drive does not write"));
    }
    let known = ImageFormat::named(format);
    if known.is_none() && !format.is_empty() {
        return Err(generic(format!("Unknown driver '{format}'")));
    }
    let disk = commands::medium(machine, file, known).map_err(generic)?;
    machine.change_medium(name, Some(disk), force).map_err(failed)?;
    done()
}

pub(super) fn eject(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let (name, force) = drive(args)?;
    machine.change_medium(name, None, force).map_err(failed)?;
    done()
}
