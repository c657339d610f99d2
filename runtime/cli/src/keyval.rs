//! `key=value,...` values: one typed parser for every option that has them.
//!
//! Items are separated by `,`; `,,` is a literal comma. An item without `=` is the value of the implied key when it
//! comes first (`-m 512` is `-m size=512`); later it switches an on/off key on, or off with `no` before it. A key that is
//! given again counts as it was given last. A JSON object is another way to write such a list.

use mimus_hw::registry::{self, Model, Property};

use super::error::CliError;
use super::json;
use super::subjects::Subject;
use super::suggest::nearest;

/// A key that an option knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The name, as typed.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// One line for `NAME,help`.
    pub help: &'static str,
}

impl Key {
    /// A property of a device as a key of `-device`.
    pub const fn of(property: &Property) -> Key {
        let kind = match property.kind {
            registry::Kind::Number(low, high) | registry::Kind::Address(low, high) => Kind::Number(low, high),
            registry::Kind::Word(words) => Kind::Word(words),
            registry::Kind::Text(meaning) => Kind::Text(meaning),
            registry::Kind::Id(host) => Kind::Text(host.meaning()),
            registry::Kind::Fixed(word) => Kind::Fixed(word),
            registry::Kind::Accepted => Kind::Accepted,
            registry::Kind::Among(words) => Kind::Among(words),
            registry::Kind::Without(what) => Kind::Without(what),
            registry::Kind::NotYet => Kind::NotYet,
        };
        Key { name: property.name, kind, help: property.help }
    }
}

/// A key with values of this kind.
pub(super) const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

/// Not supported yet.
pub(super) const fn key_later(name: &'static str) -> Key {
    key(name, Kind::NotYet, "")
}

/// Not supported yet for want of a subject.
pub(super) const fn key_lacks(name: &'static str, subject: &'static Subject) -> Key {
    key(name, Kind::Lacks(subject), "")
}

/// Accepted with any value, because it makes no difference here.
pub(super) const fn accepted(name: &'static str) -> Key {
    key(name, Kind::Accepted, "")
}

/// Accepted with any of these values, because none makes a difference here.
pub(super) const fn among(name: &'static str, words: &'static [&'static str]) -> Key {
    key(name, Kind::Among(words), "")
}

/// Accepted with this value, because mimus always behaves so.
pub(super) const fn fixed(name: &'static str, word: &'static str) -> Key {
    key(name, Kind::Fixed(word), "")
}

/// Accepted, with a warning that says what is missing.
pub(super) const fn without(name: &'static str, what: &'static str) -> Key {
    key(name, Kind::Without(what), "")
}

/// What a key's value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A whole number in this inclusive range, decimal or hexadecimal with `0x`.
    Number(u64, u64),
    /// A size in bytes; a number without a suffix is in MiB.
    MegaBytes,
    /// A size in bytes; a number without a suffix is in bytes.
    Bytes,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text; this says what it means.
    Text(&'static str),
    /// As [`Kind::Text`], and the key may be given more than once.
    Texts(&'static str),
    /// The setting exists in QEMU and mimus always behaves as this value says.
    Fixed(&'static str),
    /// The setting exists in QEMU, and any value is accepted because it makes no difference here.
    Accepted,
    /// The same, with one of these words.
    Among(&'static [&'static str]),
    /// The same, but anything that is not off, nothing or as it is by default leads to a warning, which says what is missing.
    Without(&'static str),
    /// The key exists in QEMU and has no meaning here yet.
    NotYet,
    /// The same, since this is missing.
    Lacks(&'static Subject),
}

/// A value that was accepted, under its key's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Of [`Kind::Number`] or, in bytes, [`Kind::MegaBytes`] and [`Kind::Bytes`].
    Number(u64),
    /// Of [`Kind::Word`].
    Word(&'static str),
    /// Of [`Kind::Text`].
    Text(String),
    /// Of [`Kind::Without`].
    Without(&'static str),
}

/// The accepted values of one option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Values(Vec<(&'static str, Value)>);

/// The name under which a list is that is left out as a whole.
const LEFT_OUT: &str = "";

impl Values {
    /// No values of what is left out; `what` is missing then.
    pub fn of_left_out(what: &'static str) -> Values {
        Values(vec![(LEFT_OUT, Value::Without(what))])
    }

    /// What is missing since this is left out as a whole.
    pub fn left_out(&self) -> Option<&'static str> {
        self.0.iter().find_map(|(name, value)| match value {
            Value::Without(what) if *name == LEFT_OUT => Some(*what),
            _ => None,
        })
    }

    /// What to say of values that were accepted and not honoured.
    pub fn warnings(&self, option: &str) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(move |(name, value)| match value {
            Value::Without(what) => Some(format!("{option}: {name}: {what}")),
            _ => None,
        })
    }

    /// The number (or size in bytes) given for `key`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.0.iter().find_map(|(name, value)| match value {
            Value::Number(number) if *name == key => Some(*number),
            _ => None,
        })
    }

    /// The word given for `key`.
    pub fn word(&self, key: &str) -> Option<&'static str> {
        self.0.iter().find_map(|(name, value)| match value {
            Value::Word(word) if *name == key => Some(*word),
            _ => None,
        })
    }

    /// The text given for `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|(name, value)| match value {
            Value::Text(text) if *name == key => Some(text.as_str()),
            _ => None,
        })
    }

    /// They as the values of a device's properties.
    pub fn of(&self, model: &'static Model) -> registry::Values {
        let mut values = registry::Values::new(model);
        for (name, value) in &self.0 {
            let value = match value {
                Value::Number(number) => registry::Value::Number(*number),
                Value::Word(word) => registry::Value::Word(word),
                Value::Text(text) => registry::Value::Text(text.clone()),
                Value::Without(_) => continue,
            };
            values.set(name, value);
        }
        values
    }

    /// Every text given for `key`.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(move |(name, value)| match value {
            Value::Text(text) if *name == key => Some(text.as_str()),
            _ => None,
        })
    }
}

/// One item of a list before its key is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// The part before `=`, or `None` for an item without one.
    pub key: Option<String>,
    /// The part after `=`, or all of an item without one.
    pub value: String,
}

/// Splits `text` at single commas. `option` is named in errors.
pub(super) fn split(option: &str, text: &str) -> Result<Vec<Item>, CliError> {
    if text.starts_with('{') {
        return json::items(option, text);
    }
    let mut items = Vec::new();
    let mut current = String::new();
    let mut chars = text.chars().peekable();
    loop {
        let next = chars.next();
        match next {
            Some(',') if chars.peek() == Some(&',') => {
                chars.next();
                current.push(',');
            }
            Some(',') | None => {
                if current.is_empty() {
                    let message = if text.is_empty() {
                        "the value is empty".to_owned()
                    } else {
                        format!("'{text}' has an empty item (a literal comma is written ',,')")
                    };
                    return Err(CliError::new(option, message));
                }
                let item = std::mem::take(&mut current);
                items.push(match item.split_once('=') {
                    Some(("", _)) => return Err(CliError::new(option, format!("'{item}' has no key before '='"))),
                    Some((key, value)) => Item { key: Some(key.to_owned()), value: value.to_owned() },
                    None => Item { key: None, value: item },
                });
                if next.is_none() {
                    return Ok(items);
                }
            }
            Some(other) => current.push(other),
        }
    }
}

/// Parses a whole value whose first item may leave out the key `implied`.
pub(super) fn parse(option: &str, text: &str, implied: &'static str, keys: &[Key]) -> Result<Values, CliError> {
    parse_all(option, [text], implied, keys)
}

/// Parses the values of an option that was given several times, as one.
pub(super) fn parse_all<'a>(
    option: &str,
    texts: impl IntoIterator<Item = &'a str>,
    implied: &'static str,
    keys: &[Key],
) -> Result<Values, CliError> {
    let mut all = Vec::new();
    for text in texts {
        let mut items = split(option, text)?;
        if let Some(first) = items.first_mut()
            && first.key.is_none()
            && !keys.iter().any(|key| key.name == first.value)
        {
            first.key = Some(implied.to_owned());
        }
        all.append(&mut items);
    }
    typed(option, &all, keys)
}

/// Looks every item's key up in `keys` and checks its value. The error tells of every item that is wrong.
pub(super) fn typed(option: &str, items: &[Item], keys: &[Key]) -> Result<Values, CliError> {
    let mut values = Values::default();
    let mut wrong = Vec::new();
    for item in items {
        match one(option, item, keys) {
            Ok((key, value)) => {
                if !matches!(key.kind, Kind::Texts(_)) {
                    values.0.retain(|(name, _)| *name != key.name);
                }
                values.0.extend(value.map(|value| (key.name, value)));
            }
            Err(error) => wrong.push(error),
        }
    }
    CliError::all(wrong).map_or(Ok(values), Err)
}

/// The key of an item, and its value if that changes anything.
fn one<'a>(option: &str, item: &Item, keys: &'a [Key]) -> Result<(&'a Key, Option<Value>), CliError> {
    let (name, value) = match &item.key {
        Some(name) => (name.as_str(), Some(item.value.as_str())),
        None => match switched_off(&item.value, keys) {
            Some(name) => (name, Some("off")),
            None => (item.value.as_str(), None),
        },
    };
    let key = find(option, name, keys)?;
    let option = format!("{option}: {name}");
    let value = match (value, key.kind) {
        (_, Kind::NotYet) => return Err(CliError::new(option, "not supported yet")),
        (_, Kind::Lacks(subject)) => return Err(CliError::new(option, subject.lacking("it"))),
        (Some(value), _) => value,
        (None, Kind::Word(words)) if words.contains(&"on") => "on",
        (None, Kind::Fixed("on" | "off") | Kind::Accepted | Kind::Among(_) | Kind::Without(_)) => "on",
        (None, kind) => {
            return Err(CliError::new(option, format!("needs a value ('{name}=...'): {}", allowed(kind))));
        }
    };
    let checked = check(&option, value, key.kind);
    // A bus that does not exist may be one of a device that was refused.
    let checked = if name == "bus" { checked.map_err(|error| error.following("-device")) } else { checked };
    Ok((key, checked?))
}

/// The on/off key that `text` switches off, as `nowait` does `wait`.
fn switched_off<'a>(text: &'a str, keys: &[Key]) -> Option<&'a str> {
    let name = text.strip_prefix("no")?;
    let known = |name: &str| keys.iter().find(|key| key.name == name);
    let switch = |key: &Key| match key.kind {
        Kind::Word(words) => words.contains(&"off"),
        kind => matches!(kind, Kind::Fixed("on" | "off")),
    };
    (known(text).is_none() && known(name).is_some_and(switch)).then_some(name)
}

/// The words that QEMU takes for on and off.
fn on_or_off(text: &str) -> &str {
    match text {
        "yes" | "true" | "y" => "on",
        "no" | "false" | "n" => "off",
        other => other,
    }
}

fn find<'a>(option: &str, name: &str, keys: &'a [Key]) -> Result<&'a Key, CliError> {
    keys.iter().find(|key| key.name == name).ok_or_else(|| {
        let usable: Vec<&str> = keys.iter().filter(|key| usable(key.kind)).map(|key| key.name).collect();
        let mut message = format!("unknown key '{name}'");
        if let Some(near) = nearest(name, keys.iter().map(|key| key.name)) {
            message.push_str(&format!("; did you mean '{near}'?"));
        }
        if usable.is_empty() {
            message.push_str(" (no keys are supported)");
        } else {
            message.push_str(&format!(" (keys: {})", usable.join(", ")));
        }
        CliError::new(option, message)
    })
}

/// Whether a user can achieve anything with a key of this kind.
fn usable(kind: Kind) -> bool {
    match kind {
        Kind::NotYet | Kind::Lacks(_) | Kind::Accepted | Kind::Among(_) | Kind::Fixed(_) | Kind::Without(_) => false,
        Kind::Number(..) | Kind::MegaBytes | Kind::Bytes | Kind::Word(_) | Kind::Text(_) | Kind::Texts(_) => true,
    }
}

/// The check of one value; `None` when it is accepted and changes nothing.
fn check(option: &str, text: &str, kind: Kind) -> Result<Option<Value>, CliError> {
    let wrong = |what: &str| CliError::new(option, format!("'{text}' is {what}: {}", allowed(kind)));
    match kind {
        Kind::Number(low, high) => match number(text) {
            Some(value) if (low..=high).contains(&value) => Ok(Some(Value::Number(value))),
            Some(_) => Err(wrong("out of range")),
            None => Err(wrong("not a number")),
        },
        Kind::MegaBytes | Kind::Bytes => {
            let unit = if matches!(kind, Kind::Bytes) { 1 } else { 1 << 20 };
            let number = size(text, unit).ok_or_else(|| wrong("not a size"))?;
            Ok(Some(Value::Number(number)))
        }
        Kind::Word(words) => match words.iter().find(|word| **word == text || **word == on_or_off(text)) {
            Some(word) => Ok(Some(Value::Word(word))),
            None => Err(wrong("not known here")),
        },
        Kind::Text(_) | Kind::Texts(_) => Ok(Some(Value::Text(text.to_owned()))),
        Kind::Accepted => Ok(None),
        Kind::Without(_) if matches!(on_or_off(text), "off" | "auto" | "" | "0" | "1") => Ok(None),
        Kind::Without(what) => Ok(Some(Value::Without(what))),
        Kind::Among(words) if words.contains(&text) || words.contains(&on_or_off(text)) => Ok(None),
        Kind::Among(_) => Err(wrong("not supported yet")),
        Kind::Fixed(word) if word == text || word == on_or_off(text) => Ok(None),
        Kind::Fixed(word) if matches!(on_or_off(text), "on" | "off") => {
            Err(CliError::new(option, format!("'{text}' is not supported yet (it is always '{word}')")))
        }
        Kind::Fixed(_) => Err(wrong("not known here")),
        Kind::Lacks(subject) => Err(CliError::new(option, subject.lacking("it"))),
        Kind::NotYet => Err(CliError::new(option, "not supported yet")),
    }
}

/// What may be written for a value of this kind.
pub(super) fn allowed(kind: Kind) -> String {
    match kind {
        Kind::Number(low, high) => format!("a number from {low} to {high}"),
        Kind::MegaBytes => "a number of MiB, or one with a suffix K, M, G or T".to_owned(),
        Kind::Bytes => "a number of bytes, or one with a suffix K, M, G or T".to_owned(),
        Kind::Word(words) | Kind::Among(words) => words.join(" or "),
        Kind::Text(what) | Kind::Texts(what) => what.to_owned(),
        Kind::Fixed(word) => format!("only '{word}' is supported yet"),
        Kind::Accepted | Kind::Without(_) => "anything, which makes no difference here".to_owned(),
        Kind::NotYet | Kind::Lacks(_) => "not supported yet".to_owned(),
    }
}

/// An unsigned number, decimal or hexadecimal with `0x`. Signs, blanks and digit separators are not numbers.
pub(super) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// A size in bytes: a number with an optional fraction and one suffix B, K, M, G, T, P or E (powers of 1024, any
/// case); `unit` bytes when there is no suffix. What is left of a byte is cut off, as QEMU does. `None` for anything else,
/// a size over 2^64 - 1, and a fraction of bytes.
pub(super) fn size(text: &str, unit: u64) -> Option<u64> {
    let (number, unit) = match text.chars().next_back()?.to_ascii_uppercase() {
        suffix @ ('B' | 'K' | 'M' | 'G' | 'T' | 'P' | 'E') => {
            let power = "BKMGTPE".find(suffix)?;
            (text.get(..text.len() - 1)?, 1u64 << (10 * power))
        }
        _ => (text, unit),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.len() <= 18 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    let bytes = scaled.checked_mul(u128::from(unit))?;
    (unit != 1 || bytes % scale == 0).then(|| u64::try_from(bytes / scale).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &[
        Key { name: "size", kind: Kind::MegaBytes, help: "" },
        Key { name: "count", kind: Kind::Number(1, 300), help: "" },
        Key { name: "mode", kind: Kind::Word(&["fast", "slow"]), help: "" },
        Key { name: "flag", kind: Kind::Word(&["on", "off"]), help: "" },
        Key { name: "usb", kind: Kind::Fixed("off"), help: "" },
        Key { name: "slots", kind: Kind::NotYet, help: "" },
        Key { name: "cache", kind: Kind::Accepted, help: "" },
        Key { name: "disk", kind: Kind::Lacks(&crate::subjects::Q35), help: "" },
    ];

    fn parsed(text: &str) -> String {
        match parse("-x", text, "size", KEYS) {
            Ok(values) => format!("{:?}", values.0),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn lists() {
        let rows = [
            ("1", r#"[("size", Number(1048576))]"#),
            ("size=1K", r#"[("size", Number(1024))]"#),
            ("1,count=0x10", r#"[("size", Number(1048576)), ("count", Number(16))]"#),
            ("count=300,mode=slow", r#"[("count", Number(300)), ("mode", Word("slow"))]"#),
            ("flag", r#"[("flag", Word("on"))]"#),
            ("1,noflag", r#"[("size", Number(1048576)), ("flag", Word("off"))]"#),
            ("1,flag", r#"[("size", Number(1048576)), ("flag", Word("on"))]"#),
            ("1,flag=off", r#"[("size", Number(1048576)), ("flag", Word("off"))]"#),
            ("usb=off", "[]"),
            ("", "-x: the value is empty"),
            (",", "-x: ',' has an empty item (a literal comma is written ',,')"),
            ("1,", "-x: '1,' has an empty item (a literal comma is written ',,')"),
            ("1,,count=2", "-x: unknown key '1,count'; did you mean 'count'? (keys: size, count, mode, flag)"),
            ("1,,2", "-x: size: '1,2' is not a size: a number of MiB, or one with a suffix K, M, G or T"),
            ("=1", "-x: '=1' has no key before '='"),
            ("size=", "-x: size: '' is not a size: a number of MiB, or one with a suffix K, M, G or T"),
            ("count=0", "-x: count: '0' is out of range: a number from 1 to 300"),
            ("count=301", "-x: count: '301' is out of range: a number from 1 to 300"),
            ("count=many", "-x: count: 'many' is not a number: a number from 1 to 300"),
            ("count=-1", "-x: count: '-1' is not a number: a number from 1 to 300"),
            ("count=1=2", "-x: count: '1=2' is not a number: a number from 1 to 300"),
            ("count", "-x: count: needs a value ('count=...'): a number from 1 to 300"),
            ("count=1,count=2", r#"[("count", Number(2))]"#),
            ("1,size=2", r#"[("size", Number(2097152))]"#),
            ("1,flag=yes,noflag", r#"[("size", Number(1048576)), ("flag", Word("off"))]"#),
            ("usb=no,nousb,cache=x,cache", "[]"),
            ("nomode", "-x: size: 'nomode' is not a size: a number of MiB, or one with a suffix K, M, G or T"),
            ("disk=x", "-x: disk: it needs q35, which is not supported yet: use -machine pc"),
            (
                "count=0,usb=on,disk",
                "-x: count: '0' is out of range: a number from 1 to 300\n\
                 -x: usb: 'on' is not supported yet (it is always 'off')\n\
                 -x: disk: it needs q35, which is not supported yet: use -machine pc",
            ),
            (
                r#"{"size": "1K", "count": 3, "flag": true}"#,
                r#"[("count", Number(3)), ("flag", Word("on")), ("size", Number(1024))]"#,
            ),
            ("mode=medium", "-x: mode: 'medium' is not known here: fast or slow"),
            ("usb=on", "-x: usb: 'on' is not supported yet (it is always 'off')"),
            ("usb", "-x: usb: 'on' is not supported yet (it is always 'off')"),
            ("usb=x", "-x: usb: 'x' is not known here: only 'off' is supported yet"),
            ("slots=1", "-x: slots: not supported yet"),
            ("1,slots", "-x: slots: not supported yet"),
            ("cuont=1", "-x: unknown key 'cuont'; did you mean 'count'? (keys: size, count, mode, flag)"),
            ("1,zzzzzz", "-x: unknown key 'zzzzzz' (keys: size, count, mode, flag)"),
        ];
        for (text, expected) in rows {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn escaped_commas_stay_in_the_value() {
        let items = split("-x", "a=1,,2,b,,c=3,,").unwrap();
        let expected = [("a", "1,2"), ("b,c", "3,")];
        assert_eq!(items.len(), expected.len());
        for (item, (key, value)) in items.iter().zip(expected) {
            assert_eq!((item.key.as_deref(), item.value.as_str()), (Some(key), value));
        }
    }

    #[test]
    fn sizes() {
        let mib = 1u64 << 20;
        let rows = [
            ("512", Some(512 * mib)),
            ("512M", Some(512 * mib)),
            ("512m", Some(512 * mib)),
            ("1G", Some(1 << 30)),
            ("1.5G", Some(1536 * mib)),
            ("0.5", Some(mib / 2)),
            ("1.9G", Some(2_040_109_465)),
            ("4096B", Some(4096)),
            ("640k", Some(640 << 10)),
            ("2T", Some(2 << 40)),
            ("0", Some(0)),
            ("15E", Some(15 << 60)),
            ("16E", None),
            ("999999999999999999E", None),
            ("99999999999999999999", None),
            ("0.3B", None),
            ("", None),
            ("M", None),
            ("1MB", None),
            ("1MiB", None),
            ("-1", None),
            ("+1", None),
            ("1 G", None),
            ("1.", None),
            (".5G", None),
            ("1.2.3", None),
            ("0x10", None),
            ("1é", None),
        ];
        for (text, expected) in rows {
            assert_eq!(size(text, mib), expected, "{text}");
        }
    }

    #[test]
    fn numbers() {
        let rows = [
            ("0", Some(0)),
            ("0xf4", Some(0xf4)),
            ("0XF4", Some(0xf4)),
            ("0x04", Some(4)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("0x", None),
            ("+1", None),
            ("-0", None),
            ("0x+1", None),
            ("1_000", None),
            (" 1", None),
            ("f4", None),
        ];
        for (text, expected) in rows {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
