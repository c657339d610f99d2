//! Options whose value is a name from a list with keys of its own: what such a list is, and how a value is looked up in it.

use std::borrow::Cow;

use mimus_hw::registry::{Model, Property};

use super::error::CliError;
use super::keyval::{self, Item, Key, Values};
use super::subjects::Subject;
use super::suggest::nearest;

/// An option that chooses by name.
pub(super) struct Family {
    /// The option, as typed.
    pub option: &'static str,
    /// What is chosen, for messages.
    pub noun: &'static str,
    /// The key under which the name itself may be given (`-accel accel=jit`).
    pub implied: &'static str,
    /// First line of `help`.
    pub heading: &'static str,
    /// What can be chosen. A `*` in a name stands for anything.
    pub choices: &'static [Choice],
    /// More of it, the same for all architectures.
    pub common: &'static [Choice],
}

/// A name that can be chosen.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    /// The name, as typed.
    pub name: &'static str,
    /// One line of help; empty for what is not offered.
    pub help: &'static str,
    /// Whether it is offered.
    pub offer: Offer,
}

impl Choice {
    /// Its keys, if it is offered.
    pub fn keys(&self) -> Option<Cow<'static, [Key]>> {
        match self.offer {
            Offer::Yes(keys) => Some(keys.into()),
            Offer::Device(model) => Some(model.properties.iter().map(Key::of).collect()),
            _ => None,
        }
    }

    /// What `NAME,help` prints; nothing is offered of what is not offered itself.
    fn list(&self) -> String {
        let more = |key: &Key| match self.offer {
            Offer::Device(model) => model.property(key.name).and_then(Property::default_text),
            _ => None,
        };
        list(self.name, &self.keys().unwrap_or_default(), more)
    }

    /// Whether it is offered.
    pub fn is_offered(&self) -> bool {
        matches!(self.offer, Offer::Yes(_) | Offer::Device(_))
    }

    /// Whether `name` is its name.
    pub fn is(&self, name: &str) -> bool {
        match self.name.split_once('*') {
            None => self.name == name,
            Some((start, end)) => name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
        }
    }
}

/// Whether something is offered.
#[derive(Clone, Copy)]
pub(super) enum Offer {
    /// Yes, with these keys.
    Yes(&'static [Key]),
    /// Yes, with the properties of this device.
    Device(&'static Model),
    /// QEMU has it and mimus does not, yet.
    NotYet,
    /// The same, since this is missing.
    Lacks(&'static Subject),
    /// It is left out, with a warning: a guest does without, and this is missing then.
    LeftOut(&'static str),
    /// It is another name of this one.
    Same(&'static str),
    /// No, and this says what to use.
    Instead(&'static str),
}

/// What was chosen.
pub(super) enum Chosen {
    /// A list was asked for: print it and exit.
    Help(String),
    /// This one, with these values of its keys.
    One(&'static str, Values),
}

pub(super) const fn yes(name: &'static str, help: &'static str, keys: &'static [Key]) -> Choice {
    Choice { name, help, offer: Offer::Yes(keys) }
}

pub(super) const fn later(name: &'static str) -> Choice {
    Choice { name, help: "", offer: Offer::NotYet }
}

/// Not supported yet for want of a subject.
pub(super) const fn lacks(name: &'static str, subject: &'static Subject) -> Choice {
    Choice { name, help: "", offer: Offer::Lacks(subject) }
}

/// Left out with a warning that says what is missing.
pub(super) const fn left_out(name: &'static str, what: &'static str) -> Choice {
    Choice { name, help: "", offer: Offer::LeftOut(what) }
}

/// Another name of `other`.
pub(super) const fn alias(name: &'static str, other: &'static str) -> Choice {
    Choice { name, help: "", offer: Offer::Same(other) }
}

impl Family {
    /// Parses `text`; `default` is the name when the value does not begin with one.
    pub fn parse(&self, text: &str, default: Option<&'static str>) -> Result<Chosen, CliError> {
        self.parse_items(keyval::split(self.option, text)?, default)
    }

    /// Parses `items`, which are what [`keyval::split`] makes of a value.
    pub fn parse_items(&self, items: Vec<Item>, default: Option<&'static str>) -> Result<Chosen, CliError> {
        self.parse_with(items, default, |_| Ok(Vec::new()))
    }

    /// Where the name is among `items`, if they have one.
    pub fn named(&self, items: &[Item]) -> Option<usize> {
        let key = items.iter().position(|item| item.key.as_deref() == Some(self.implied));
        key.or_else(|| items.first().filter(|first| first.key.is_none()).map(|_| 0))
    }

    /// The items of all `texts` as QEMU takes them for one: only the last name counts, the others are left out unless they
    /// ask for help.
    pub fn merged(&self, texts: Vec<&str>) -> Result<Vec<Vec<Item>>, CliError> {
        let mut values: Vec<Vec<Item>> =
            texts.into_iter().map(|text| keyval::split(self.option, text)).collect::<Result<_, _>>()?;
        let last = values.iter().rposition(|items| self.named(items).is_some()).unwrap_or(0);
        for items in values.iter_mut().take(last) {
            if let Some(position) = self.named(items).filter(|position| !is_help(&items[*position].value)) {
                items.remove(position);
            }
        }
        values.retain(|items| !items.is_empty());
        Ok(values)
    }

    /// Parses `items` behind those that `more` has for the device that is chosen.
    pub fn parse_with(
        &self,
        mut items: Vec<Item>,
        default: Option<&'static str>,
        more: impl Fn(&'static Model) -> Result<Vec<Item>, CliError>,
    ) -> Result<Chosen, CliError> {
        let name = match self.named(&items) {
            Some(position) => items.remove(position).value,
            None => default.map(str::to_owned).ok_or_else(|| {
                let message = match items.first() {
                    Some(Item { key: Some(key), value }) => format!("'{key}={value}' does not name"),
                    _ => "does not name".to_owned(),
                };
                CliError::new(self.option, format!("{message} {} ({})", self.noun, self.supported()))
            })?,
        };
        if is_help(&name) {
            return Ok(Chosen::Help(self.list()));
        }
        let choice = match self.find(&name)? {
            Choice { offer: Offer::Same(other), .. } => self.find(other)?,
            choice => choice,
        };
        if let Offer::LeftOut(what) = choice.offer {
            return Ok(Chosen::One(choice.name, Values::of_left_out(what)));
        }
        let Some(keys) = choice.keys() else { return Err(self.refused(&name, choice)) };
        if items.iter().any(|item| item.key.is_none() && is_help(&item.value)) {
            return Ok(Chosen::Help(choice.list()));
        }
        if let Offer::Device(model) = choice.offer {
            items.splice(0..0, more(model)?);
        }
        let option = format!("{} {}", self.option, choice.name);
        let values = keyval::typed(&option, &items, &keys)?;
        Ok(Chosen::One(choice.name, values))
    }

    /// Why a choice that is not offered is refused.
    fn refused(&self, name: &str, choice: &Choice) -> CliError {
        match choice.offer {
            Offer::Instead(advice) => CliError::new(self.option, format!("'{name}': {advice}")),
            Offer::Lacks(subject) => CliError::new(self.option, subject.lacking(&format!("'{name}'"))),
            Offer::Yes(_) | Offer::Device(_) | Offer::Same(_) | Offer::NotYet | Offer::LeftOut(_) => {
                let mut message = format!("'{name}' is not supported yet");
                if let Some(near) = nearest(name, self.offered()) {
                    message.push_str(&format!("; did you mean '{near}'?"));
                }
                CliError::new(self.option, format!("{message} ({})", self.supported()))
            }
        }
    }

    fn find(&self, name: &str) -> Result<&'static Choice, CliError> {
        let found = self.all().find(|choice| choice.is(name));
        found.ok_or_else(|| {
            let mut message = format!("'{name}' is not {}", self.noun);
            let plain = self.all().map(|choice| choice.name).filter(|name| !name.contains('*'));
            if let Some(near) = nearest(name, plain) {
                message.push_str(&format!("; did you mean '{near}'?"));
            }
            CliError::new(self.option, format!("{message} ({})", self.supported()))
        })
    }

    fn all(&self) -> impl Iterator<Item = &'static Choice> {
        self.choices.iter().chain(self.common)
    }

    fn offered(&self) -> impl Iterator<Item = &'static str> {
        self.choices.iter().filter(|choice| choice.is_offered()).map(|choice| choice.name)
    }

    fn supported(&self) -> String {
        format!("supported: {}", self.offered().collect::<Vec<_>>().join(", "))
    }

    fn list(&self) -> String {
        let mut text = format!("{}\n", self.heading);
        for choice in self.choices.iter().filter(|choice| choice.is_offered()) {
            text.push_str(&match self.option {
                "-device" => self.quoted(choice),
                _ => format!("{:<20} {}\n", choice.name, choice.help),
            });
        }
        text
    }

    /// A device as QEMU lists it. Scripts look for names in quotation marks.
    fn quoted(&self, choice: &Choice) -> String {
        let mut text = format!("name \"{}\"", choice.name);
        for alias in self.all().filter(|other| matches!(other.offer, Offer::Same(name) if name == choice.name)) {
            text.push_str(&format!(", alias \"{}\"", alias.name));
        }
        format!("{text}, desc \"{}\"\n", choice.help)
    }
}

/// Both of QEMU's spellings of "list what there is".
pub(super) fn is_help(text: &str) -> bool {
    text == "help" || text == "?"
}

/// What `NAME,help` prints.
pub(super) fn list_keys(name: &str, keys: &[Key]) -> String {
    list(name, keys, |_| None)
}

/// The same, with the value that `default` says that a key has if none is given.
fn list(name: &str, keys: &[Key], default: impl Fn(&Key) -> Option<String>) -> String {
    let offered: Vec<&Key> = keys.iter().filter(|key| !key.help.is_empty()).collect();
    if offered.is_empty() {
        return format!("There are no options for {name}.\n");
    }
    let mut text = format!("{name} options:\n");
    for key in offered {
        let default = default(key).map(|text| format!(", default {text}")).unwrap_or_default();
        text.push_str(&format!("  {:<12} {}{default} ({})\n", key.name, key.help, keyval::allowed(key.kind)));
    }
    text
}
