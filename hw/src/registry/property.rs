//! Properties of devices: the types of which rows of the registry are made, and the values that a user gives them.

use super::Model;
use crate::net::mac_address;

/// A property of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// QEMU's name of it.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// The value if none is given; `None` if it depends on the machine.
    pub default: Option<Default>,
    /// A line about it; empty if nothing can be achieved with it.
    pub help: &'static str,
}

/// What the values of a property are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers in this range.
    Number(u64, u64),
    /// The same, told in hexadecimal.
    Address(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text; this says what it means.
    Text(&'static str),
    /// The id of something of the host's.
    Id(Host),
    /// QEMU has the property, and devices here always are as this value says.
    Fixed(&'static str),
    /// QEMU has it, and its value makes no difference here.
    Accepted,
    /// The same for these values, and others are not supported yet.
    Among(&'static [&'static str]),
    /// A guest does without: what is said is missing if the value is not as good as none.
    Without(&'static str),
    /// QEMU has it, and here it is not supported yet.
    NotYet,
}

/// What of the host's a device refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A character device in both directions.
    Chardev,
    /// A character device that is only sent to.
    Output,
    /// A network.
    Netdev,
    /// An image.
    Drive,
    /// A folder.
    Folder,
    /// A source of random numbers.
    Random,
    /// A thread.
    Thread,
}

impl Host {
    /// What an id of such a thing is.
    pub const fn meaning(self) -> &'static str {
        match self {
            Host::Chardev | Host::Output => "the id of a -chardev",
            Host::Netdev => "the id of a -netdev",
            Host::Drive => "the id of a -drive with if=none, or the node-name of a -blockdev",
            Host::Folder => "the id of a -fsdev",
            Host::Random => "the id of a -object",
            Host::Thread => "the id of a -object iothread",
        }
    }
}

/// The value of a property that nobody gives another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// Of a number or an address.
    Number(u64),
    /// Of a property whose values are words.
    Word(&'static str),
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a number or an address.
    Number(u64),
    /// One of the words.
    Word(&'static str),
    /// Text, or an id.
    Text(String),
}

impl From<Default> for Value {
    fn from(default: Default) -> Value {
        match default {
            Default::Number(number) => Value::Number(number),
            Default::Word(word) => Value::Word(word),
        }
    }
}

impl Property {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Property {
        Property { name, kind, default: None, help }
    }

    /// The same property, whose value is this unless another is given.
    pub(super) const fn or(self, default: Default) -> Property {
        Property { default: Some(default), ..self }
    }

    /// How a value of it is written.
    pub fn text(&self, value: &Value) -> String {
        match (value, self.kind) {
            (Value::Number(number), Kind::Address(..)) => format!("{number:#x}"),
            (Value::Number(number), _) => number.to_string(),
            (Value::Word(word), _) => (*word).to_owned(),
            (Value::Text(text), _) => text.clone(),
        }
    }

    /// The default as it is written.
    pub fn default_text(&self) -> Option<String> {
        self.default.map(|default| self.text(&default.into()))
    }
}

pub(super) const fn number(name: &'static str, low: u64, high: u64, help: &'static str) -> Property {
    Property::new(name, Kind::Number(low, high), help)
}

pub(super) const fn address(name: &'static str, low: u64, high: u64, help: &'static str) -> Property {
    Property::new(name, Kind::Address(low, high), help)
}

pub(super) const fn word(name: &'static str, words: &'static [&'static str], help: &'static str) -> Property {
    Property::new(name, Kind::Word(words), help)
}

pub(super) const fn text(name: &'static str, meaning: &'static str, help: &'static str) -> Property {
    Property::new(name, Kind::Text(meaning), help)
}

/// The id of something of the host's.
pub(super) const fn host(name: &'static str, host: Host, help: &'static str) -> Property {
    Property::new(name, Kind::Id(host), help)
}

pub(super) const fn accepted(name: &'static str) -> Property {
    Property::new(name, Kind::Accepted, "")
}

pub(super) const fn among(name: &'static str, words: &'static [&'static str]) -> Property {
    Property::new(name, Kind::Among(words), "")
}

pub(super) const fn fixed(name: &'static str, word: &'static str) -> Property {
    Property::new(name, Kind::Fixed(word), "")
}

pub(super) const fn without(name: &'static str, what: &'static str) -> Property {
    Property::new(name, Kind::Without(what), "")
}

pub(super) const fn not_yet(name: &'static str) -> Property {
    Property::new(name, Kind::NotYet, "")
}

/// What every device has that a user plugs in.
pub const ID: Property = text("id", "a name", "what monitors call it");

/// A device's place among what firmware boots.
pub(super) const BOOT_INDEX: Property =
    number("bootindex", 0, 0x7fff_ffff, "its place among what firmware boots, the lowest first");

/// How many properties `lists` have.
pub(super) const fn total(lists: &[&[Property]]) -> usize {
    let (mut sum, mut index) = (0, 0);
    while index < lists.len() {
        sum += lists[index].len();
        index += 1;
    }
    sum
}

/// All of `lists`, which have `N` properties, in one.
pub(super) const fn joined<const N: usize>(lists: &[&[Property]]) -> [Property; N] {
    let mut all = [ID; N];
    let (mut place, mut list) = (0, 0);
    while list < lists.len() {
        let mut index = 0;
        while index < lists[list].len() {
            all[place] = lists[list][index];
            place += 1;
            index += 1;
        }
        list += 1;
    }
    all
}

/// The properties of a device: these lists, one behind the other.
macro_rules! properties {
    ($($list:expr),+ $(,)?) => {{
        const LISTS: &[&[$crate::registry::Property]] = &[$($list),+];
        &$crate::registry::property::joined::<{ $crate::registry::property::total(LISTS) }>(LISTS)
    }};
}
pub(super) use properties;

/// The values of a device's properties: those that were given, and else the defaults of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    model: &'static Model,
    given: Vec<(&'static str, Value)>,
}

impl Values {
    /// The defaults of `model`.
    pub fn new(model: &'static Model) -> Values {
        Values { model, given: Vec::new() }
    }

    /// Gives property `name` a value. One that the device does not have stays without.
    pub fn set(&mut self, name: &str, value: Value) {
        if let Some(property) = self.model.property(name) {
            self.given.retain(|(known, _)| *known != property.name);
            self.given.push((property.name, value));
        }
    }

    /// The same values with another of this number.
    pub fn with(mut self, name: &str, number: u64) -> Values {
        self.set(name, Value::Number(number));
        self
    }

    /// The value of property `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<Value> {
        let given = self.given.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        given.or_else(|| self.model.property(name)?.default.map(Value::from))
    }

    /// The number that property `name` is.
    pub fn number(&self, name: &str) -> Option<u64> {
        if let Some(Value::Number(number)) = self.get(name) { Some(number) } else { None }
    }

    /// The same as a number of 16 bits, such as a port. Rows allow no larger ones where this is asked; 0 if there is none.
    pub fn port(&self, name: &str) -> u16 {
        self.number(name).and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
    }

    /// The word that property `name` is.
    pub fn word(&self, name: &str) -> Option<&'static str> {
        if let Some(Value::Word(word)) = self.get(name) { Some(word) } else { None }
    }

    /// Whether property `name` is on, however that is written.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Word("on" | "true" | "1")))
    }

    /// The hardware address that property `mac` is.
    pub fn mac(&self) -> Option<[u8; 6]> {
        mac_address(&self.text("mac")?)
    }

    /// The same values with another text.
    pub fn with_text(mut self, name: &str, text: impl Into<String>) -> Values {
        self.set(name, Value::Text(text.into()));
        self
    }

    /// The device.
    pub const fn model(&self) -> &'static Model {
        self.model
    }

    /// The text that property `name` is.
    pub fn text(&self, name: &str) -> Option<String> {
        if let Some(Value::Text(text)) = self.get(name) { Some(text) } else { None }
    }

    /// What there is to tell of the device: its properties in the row's order, as they are written. What says where it is and what
    /// it is called is told elsewhere.
    pub fn told(&self) -> impl Iterator<Item = (&'static str, String)> {
        const ELSEWHERE: &[&str] = &["id", "addr", "bus", "bootindex"];
        let properties = self.model.properties.iter().filter(|property| !ELSEWHERE.contains(&property.name));
        properties.filter_map(|property| Some((property.name, property.text(&self.get(property.name)?))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::model;
    use super::*;

    #[test]
    fn values_are_those_given_or_the_defaults() {
        let exit = model("isa-debug-exit").unwrap();
        let mut values = Values::new(exit);
        assert_eq!((values.number("iobase"), values.port("iosize"), values.text("id")), (Some(0x501), 2, None));
        values.set("iobase", Value::Number(0xf4));
        values.set("no such property", Value::Number(1));
        values.set("id", Value::Text("exit".into()));
        assert_eq!((values.port("iobase"), values.text("id").as_deref()), (0xf4, Some("exit")));
        let told: Vec<_> = values.told().collect();
        assert_eq!(told, [("iobase", "0xf4".to_owned()), ("iosize", "2".to_owned())]);
        assert_eq!(values, Values::new(exit).with("iobase", 0xf4).with("no such property", 1).with_text("id", "exit"));
    }
}
