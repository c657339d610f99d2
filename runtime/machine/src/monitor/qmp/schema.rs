//! Types of commands' arguments and results, as the tables [`super::types`] and [`super::commands`] write them: what checks
//! arguments, and what `query-qmp-schema` tells.
//!
//! A type is `str`, `int`, `number`, `bool`, `any`, a name of the table of types, or one of these in brackets, which is a list.
//! The members of an object are `NAME:TYPE` or, if they may be missing, `NAME?:TYPE`, with blanks between them; three dots
//! behind them stand for members that nobody lists.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::types::TYPES;
use super::{Failure, generic};

/// What kind of type a row of the table of types is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An object: its text is its members.
    Struct,
    /// One of some words: its text is these.
    Enum,
    /// An object whose first member says what else is in it: its text is its members and, behind a slash, `VALUE:TYPE` for
    /// each value of the first that has more members, which are those of the type.
    Union,
}

/// A row of the table of types: name, kind and text.
pub(super) type Row = (&'static str, Kind, &'static str);

/// What is built in: name, the kind of JSON value that it is, what errors call that, and whether a value is one.
type Builtin = (&'static str, &'static str, &'static str, fn(&Value) -> bool);

const BUILTINS: &[Builtin] = &[
    ("any", "value", "any", |_| true),
    ("bool", "boolean", "boolean", Value::is_boolean),
    ("int", "int", "integer", |value| value.is_i64() || value.is_u64()),
    ("number", "number", "number", Value::is_number),
    ("str", "string", "string", Value::is_string),
];

/// A type by its name.
#[derive(Clone, Copy)]
enum Type {
    Builtin(&'static Builtin),
    List(&'static str),
    Row(&'static Row),
}

impl Type {
    /// A name that no table has is any value; a test finds it.
    fn named(name: &'static str) -> Type {
        if let Some(element) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            return Type::List(element);
        }
        let row = TYPES.iter().find(|(known, ..)| *known == name).map(Type::Row);
        let builtin = || BUILTINS.iter().find(|(known, ..)| *known == name).map(Type::Builtin);
        row.or_else(builtin).unwrap_or(Type::Builtin(&BUILTINS[0]))
    }
}

/// A member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name.
    pub name: &'static str,
    /// The name of its type.
    pub of: &'static str,
    /// It may be missing.
    pub optional: bool,
}

/// The members that a text has.
pub(super) fn members(text: &'static str) -> impl Iterator<Item = Member> {
    text.split_whitespace().filter_map(|word| {
        let (name, of) = word.split_once(':')?;
        Some(Member { name: name.trim_end_matches('?'), of, optional: name.ends_with('?') })
    })
}

/// A union's members, and the rest of its text.
fn halves(text: &'static str) -> (&'static str, &'static str) {
    text.split_once('/').unwrap_or((text, ""))
}

/// Where in a command's arguments a value is.
#[derive(Clone, Copy)]
struct ArgumentPath<'a> {
    /// The way to it.
    path: &'a str,
    /// Its own name.
    name: &'a str,
}

fn mistyped(argument: ArgumentPath<'_>, expected: &str) -> Failure {
    generic(format!("Invalid parameter type for '{}', expected: {expected}", argument.path))
}

/// Checks a command's arguments: `text` is their members.
///
/// # Errors
///
/// What is wrong with the first that is.
pub(super) fn check_arguments(text: &'static str, args: &Map<String, Value>) -> Result<(), Failure> {
    check_members(&[text], args, "")
}

fn check_members(texts: &[&'static str], object: &Map<String, Value>, path: &str) -> Result<(), Failure> {
    let full = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for member in texts.iter().flat_map(|text| members(text)) {
        match object.get(member.name) {
            Some(value) => {
                check(Type::named(member.of), value, ArgumentPath { path: &full(member.name), name: member.name })?
            }
            None if member.optional => {}
            None => return Err(generic(format!("Parameter '{}' is missing", full(member.name)))),
        }
    }
    if texts.iter().any(|text| text.ends_with("...")) {
        return Ok(());
    }
    let listed = |name: &String| texts.iter().flat_map(|text| members(text)).any(|member| member.name == *name);
    match object.keys().find(|name| !listed(name)) {
        Some(name) => Err(generic(format!("Parameter '{}' is unexpected", full(name)))),
        None => Ok(()),
    }
}

/// Types contain each other to no depth but the value's own, which the JSON parser bounds.
fn check(of: Type, value: &Value, argument: ArgumentPath<'_>) -> Result<(), Failure> {
    match of {
        Type::Builtin((_, _, _, is)) if is(value) => Ok(()),
        Type::Builtin((_, _, expected, _)) => Err(mistyped(argument, expected)),
        Type::List(element) => {
            let list = value.as_array().ok_or_else(|| mistyped(argument, "array"))?;
            list.iter().enumerate().try_for_each(|(index, value)| {
                let path = format!("{}[{index}]", argument.path);
                check(Type::named(element), value, ArgumentPath { path: &path, name: &path })
            })
        }
        Type::Row((_, Kind::Enum, text)) => {
            let word = value.as_str().ok_or_else(|| mistyped(argument, "string"))?;
            let known = text.split_whitespace().any(|known| known == word);
            let wrong = || generic(format!("Parameter '{}' does not accept value '{word}'", argument.name));
            known.then_some(()).ok_or_else(wrong)
        }
        Type::Row((_, kind, text)) => {
            let object = value.as_object().ok_or_else(|| mistyped(argument, "object"))?;
            match kind {
                Kind::Union => check_members(&union_texts(text, object), object, argument.path),
                _ => check_members(&[text], object, argument.path),
            }
        }
    }
}

/// A union's own members, and those that its first one's value adds.
fn union_texts(text: &'static str, object: &Map<String, Value>) -> Vec<&'static str> {
    let (own, branches) = halves(text);
    let tag = members(own).next().and_then(|tag| object.get(tag.name)).and_then(Value::as_str);
    let branch = members(branches).find(|branch| Some(branch.name) == tag);
    let more = branch.and_then(|branch| match Type::named(branch.of) {
        Type::Row((_, _, text)) => Some(*text),
        _ => None,
    });
    std::iter::once(own).chain(more).collect()
}

/// The schema as `query-qmp-schema` tells it, built entity by entity from what commands and events refer to.
#[derive(Default)]
pub(super) struct Schema {
    entities: Vec<Value>,
    told: BTreeSet<String>,
}

impl Schema {
    /// A command whose arguments are the members in `args`, and whose result is of the type `returns`, or an empty object.
    pub fn command(&mut self, name: &str, args: &'static str, returns: &'static str, oob: bool) {
        let args = self.arguments(name, args);
        let mut entity = json!({ "name": name, "meta-type": "command", "arg-type": args });
        entity["ret-type"] = if returns.is_empty() { self.object("q_empty", "") } else { self.refer(returns) }.into();
        if oob {
            entity["allow-oob"] = true.into();
        }
        self.entities.push(entity);
    }

    /// An event with these members.
    pub fn event(&mut self, name: &str, data: &'static str) {
        let data = self.arguments(name, data);
        self.entities.push(json!({ "name": name, "meta-type": "event", "arg-type": data }));
    }

    /// All that was told.
    pub fn finish(self) -> Value {
        self.entities.into()
    }

    fn arguments(&mut self, name: &str, text: &'static str) -> String {
        if text.is_empty() { self.object("q_empty", "") } else { self.object(&format!("q_obj_{name}-arg"), text) }
    }

    /// Tells of an object that is no row of the table; its name.
    fn object(&mut self, name: &str, text: &'static str) -> String {
        if self.told.insert(name.to_owned()) {
            let members = self.members(text);
            self.entities.push(json!({ "name": name, "meta-type": "object", "members": members }));
        }
        name.to_owned()
    }

    /// Tells of a type unless that was done; its name.
    fn refer(&mut self, name: &'static str) -> String {
        if !self.told.insert(name.to_owned()) {
            return name.to_owned();
        }
        let entity = match Type::named(name) {
            Type::Builtin((_, json_type, ..)) => {
                json!({ "name": name, "meta-type": "builtin", "json-type": json_type })
            }
            Type::List(element) => {
                let element = self.refer(element);
                json!({ "name": name, "meta-type": "array", "element-type": element })
            }
            Type::Row((_, Kind::Enum, text)) => {
                let values: Vec<&str> = text.split_whitespace().collect();
                let members: Vec<Value> = values.iter().map(|value| json!({ "name": value })).collect();
                json!({ "name": name, "meta-type": "enum", "members": members, "values": values })
            }
            Type::Row((_, Kind::Struct, text)) => {
                json!({ "name": name, "meta-type": "object", "members": self.members(text) })
            }
            Type::Row((_, Kind::Union, text)) => self.union(name, text),
        };
        self.entities.push(entity);
        name.to_owned()
    }

    fn members(&mut self, text: &'static str) -> Value {
        let one = |member: Member| {
            let mut entry = json!({ "name": member.name, "type": self.refer(member.of) });
            if member.optional {
                entry["default"] = Value::Null;
            }
            entry
        };
        members(text).map(one).collect()
    }

    fn union(&mut self, name: &str, text: &'static str) -> Value {
        let (own, branches) = halves(text);
        let tag = members(own).next().map_or("", |tag| tag.name);
        let own = self.members(own);
        let branch = |branch: Member| json!({ "case": branch.name, "type": self.refer(branch.of) });
        let variants: Value = members(branches).map(branch).collect();
        json!({ "name": name, "meta-type": "object", "members": own, "tag": tag, "variants": variants })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::qmp::commands::{COMMANDS, EVENTS};

    /// All names of types that the tables refer to.
    fn references() -> impl Iterator<Item = (&'static str, &'static str)> {
        let of_types = TYPES.iter().filter(|(_, kind, _)| *kind != Kind::Enum).flat_map(|&(name, _, text)| {
            let (own, branches) = halves(text);
            members(own).chain(members(branches)).map(move |member| (name, member.of))
        });
        let of_commands = COMMANDS.iter().flat_map(|command| {
            let returns = (!command.returns.is_empty()).then_some((command.name, command.returns));
            members(command.args).map(|member| (command.name, member.of)).chain(returns)
        });
        let of_events = EVENTS.iter().flat_map(|&(name, text)| members(text).map(move |member| (name, member.of)));
        of_types.chain(of_commands).chain(of_events)
    }

    #[test]
    fn every_type_that_is_named_is_there_and_used() {
        let element = |name: &'static str| name.trim_start_matches('[').trim_end_matches(']');
        let known = |name: &str| TYPES.iter().any(|row| row.0 == name) || BUILTINS.iter().any(|row| row.0 == name);
        let mut used = BTreeSet::new();
        for (by, name) in references() {
            assert!(known(element(name)), "{by}: {name}");
            used.insert(element(name));
        }
        for (name, ..) in TYPES {
            assert!(used.contains(name), "{name} is not used");
        }
        assert!(TYPES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_word_of_an_object_is_a_member() {
        let texts = TYPES.iter().filter(|(_, kind, _)| *kind != Kind::Enum).map(|row| row.2);
        for text in texts.chain(COMMANDS.iter().map(|command| command.args)).chain(EVENTS.iter().map(|event| event.1)) {
            let words = text.split_whitespace().filter(|word| !["/", "..."].contains(word)).count();
            let (own, branches) = halves(text);
            assert_eq!(words, members(own).count() + members(branches).count(), "{text}");
        }
    }

    fn wrong(args: &'static str, value: Value) -> String {
        let object = value.as_object().expect("arguments are an object");
        check_arguments(args, object).map_or_else(|(_, text)| text, |()| String::new())
    }

    #[test]
    fn arguments_are_checked_as_qemu_does() {
        const KEYS: &str = "keys:[KeyValue] hold-time?:int";
        for (args, value, text) in [
            (KEYS, json!({ "keys": [] }), ""),
            (KEYS, json!({ "hold-time": 3 }), "Parameter 'keys' is missing"),
            (KEYS, json!({ "keys": 3 }), "Invalid parameter type for 'keys', expected: array"),
            (
                KEYS,
                json!({ "keys": [], "hold-time": "3" }),
                "Invalid parameter type for 'hold-time', expected: integer",
            ),
            (
                KEYS,
                json!({ "keys": [], "hold-time": 1.5 }),
                "Invalid parameter type for 'hold-time', expected: integer",
            ),
            (KEYS, json!({ "keys": [4] }), "Invalid parameter type for 'keys[0]', expected: object"),
            (KEYS, json!({ "keys": [{ "data": 4 }] }), "Parameter 'keys[0].type' is missing"),
            (
                KEYS,
                json!({ "keys": [{ "type": "qcode", "data": 4 }] }),
                "Invalid parameter type for 'keys[0].data', expected: string",
            ),
            (
                KEYS,
                json!({ "keys": [{ "type": "other", "data": 4 }] }),
                "Parameter 'type' does not accept value 'other'",
            ),
            (KEYS, json!({ "keys": [{ "type": "number", "data": 4, "x": 1 }] }), "Parameter 'keys[0].x' is unexpected"),
            (KEYS, json!({ "keys": [], "x": 1 }), "Parameter 'x' is unexpected"),
            ("driver:str ...", json!({ "driver": "e1000", "mac": "x" }), ""),
            ("up:bool", json!({ "up": 1 }), "Invalid parameter type for 'up', expected: boolean"),
            (
                "model:CpuModelInfo",
                json!({ "model": { "name": 3 } }),
                "Invalid parameter type for 'model.name', expected: string",
            ),
        ] {
            assert_eq!(wrong(args, value.clone()), text, "{value}");
        }
    }
}
