//! QMP's queries about what mimus can do, for programs that ask before they start a machine.

use serde_json::{Map, Value, json};

use super::commands::{COMMANDS, Command, EVENTS};
use super::schema::Schema;
use super::{Failure, generic, machine, text};
use crate::control::Controlled;
use crate::offers::{CpuModel, Offered, Property, ValueKind};

/// Machines whose full name has a version: what it is called for short.
const VERSIONED: &[(&str, &str)] = &[("pc", "pc-i440fx-7.2")];

/// The CPU model that is nothing by itself.
const STATIC_CPU: &str = "base";

/// The full name of a machine.
pub(super) fn full_name(machine: &'static str) -> &'static str {
    VERSIONED.iter().find(|(short, _)| *short == machine).map_or(machine, |(_, full)| full)
}

/// The schema: what every row of the tables is.
pub(super) fn schema() -> Value {
    let mut schema = Schema::default();
    COMMANDS.iter().for_each(|row| schema.command(row.name, row.args, row.returns, row.is_oob()));
    EVENTS.iter().for_each(|(name, data)| schema.event(name, data));
    schema.finish()
}

fn parameter(property: &Property) -> Value {
    let kind = match property.kind {
        ValueKind::Switch => "boolean",
        ValueKind::Number => "number",
        ValueKind::Size => "size",
        ValueKind::Text => "string",
    };
    let mut parameter = json!({ "name": property.name, "type": kind });
    if !property.help.is_empty() {
        parameter["help"] = property.help.into();
    }
    parameter
}

pub(super) fn options(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let wanted = args.get("option").and_then(Value::as_str);
    let all = machine.config().catalogue.options(machine.config().machine);
    let found: Vec<&Offered> = all.iter().filter(|option| wanted.is_none_or(|wanted| option.name == wanted)).collect();
    match wanted {
        Some(wanted) if found.is_empty() => Err(generic(format!("Invalid parameter '{wanted}'"))),
        _ => Ok(found
            .iter()
            .map(|option| {
                let parameters: Value = option.properties.iter().map(parameter).collect();
                json!({ "option": option.name, "parameters": parameters })
            })
            .collect()),
    }
}

pub(super) fn machines(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let kind = machine.config().machine;
    let one = |offered: Offered| {
        let (name, full) = (offered.name, full_name(offered.name));
        let mut entry = json!({
            "name": full,
            "cpu-max": 1,
            "hotpluggable-cpus": false,
            "numa-mem-supported": false,
            "deprecated": false,
        });
        if name != full {
            entry["alias"] = name.into();
        }
        if kind.name() == name {
            entry["is-default"] = true.into();
            // Not the CPU that it has by default: libvirt knows no model of that name, and refuses the machine.
            entry["default-ram-id"] = machine::ram_name(machine).into();
        }
        entry
    };
    Ok(machine.config().catalogue.machines(kind).into_iter().map(one).collect())
}

pub(super) fn cpu_definitions(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let one = |model: CpuModel| {
        let mut entry = json!({
            "name": model.name,
            "typename": machine::cpu_type(machine, model.name),
            "unavailable-features": model.missing,
            "static": model.name == STATIC_CPU,
            "migration-safe": false,
            "deprecated": false,
        });
        if let Some(other) = model.alias_of {
            entry["alias-of"] = other.into();
        }
        entry
    };
    Ok(machine.config().catalogue.cpus(machine.config().machine).into_iter().map(one).collect())
}

pub(super) fn cpu_model(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let model = args.get("model").and_then(Value::as_object);
    let name = model.map_or("", |model| text(model, "name"));
    let known = machine.config().catalogue.cpus(machine.config().machine).into_iter().find(|known| known.name == name);
    let known = known.ok_or_else(|| generic(format!("CPU model '{name}' not found")))?;
    let features = known.features.iter().map(|(feature, on)| ((*feature).to_owned(), Value::Bool(*on)));
    let mut props: Map<String, Value> = features.collect();
    if let Some(Value::Object(wanted)) = model.and_then(|model| model.get("props")) {
        for (feature, on) in wanted.iter().filter(|(_, on)| **on == Value::Bool(false)) {
            props.entry(feature.clone()).and_modify(|value| *value = on.clone());
        }
    }
    // A static model says all that it is.
    let name = if text(args, "type") == "static" { STATIC_CPU } else { name };
    Ok(json!({ "model": { "name": name, "props": props } }))
}

/// What `info qmp` prints: a line a command, with its arguments and its result.
pub(in crate::monitor) fn commands_text() -> String {
    let line = |row: &Command| {
        let result = if row.returns.is_empty() { String::new() } else { format!("-> {}", row.returns) };
        let words = [row.name, row.args, &result];
        let words: Vec<&str> = words.into_iter().flat_map(str::split_whitespace).collect();
        words.join(" ") + "\n"
    };
    COMMANDS.iter().map(line).collect()
}
