//! Migration, as a machine answers that has none: what is asked for is refused, and what there is to be switched on is off.

use serde_json::{Map, Value, json};

use super::commands::done;
use super::types::MIGRATION_CAPABILITY;
use super::{Failure, generic, text};
use crate::control::Controlled;

/// Why there is no migration.
const NONE: &str = "this machine cannot be migrated";

/// The capability that promises an event for each change of a migration's state, which holds where there is no migration.
const EVENTS: &str = "events";

pub(super) fn refused(_: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Err(generic(NONE))
}

pub(super) fn capabilities(m: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let events = m.kept().migration_events;
    let one = |name| json!({ "capability": name, "state": name == EVENTS && events });
    Ok(MIGRATION_CAPABILITY.split_whitespace().map(one).collect())
}

pub(super) fn set_capabilities(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let wanted = args.get("capabilities").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let wanted: Vec<(&str, bool)> = wanted.map(|one| (text(one, "capability"), one["state"] == true)).collect();
    if let Some((name, _)) = wanted.iter().find(|(name, on)| *on && *name != EVENTS) {
        return Err(generic(format!("'{name}' cannot be switched on: {NONE}")));
    }
    if let Some((_, on)) = wanted.iter().rev().find(|(name, _)| *name == EVENTS) {
        m.kept().migration_events = *on;
    }
    done()
}

pub(super) fn set_parameters(_: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    match args.keys().next() {
        Some(name) => Err(generic(format!("'{name}' cannot be set: {NONE}"))),
        None => done(),
    }
}
