//! `-global`: properties of devices, whoever plugs them in, or of all that are of a type. What they are is in the registry's rows.

use std::cell::Cell;

use mimus_hw::registry::{self, ABSENT, Model, models};

use super::error::CliError;
use super::keyval::{self, Item, Key, Kind, Values};
use super::{Given, Refused, Stop};
use mimus_machine::config::{Config, Device};

/// A property of a device.
struct Global {
    /// The device's name, or the type that it is of.
    driver: String,
    property: String,
    value: String,
    /// A device has taken it.
    used: Cell<bool>,
}

impl Global {
    fn new(driver: &str, property: &str, value: &str) -> Global {
        let (driver, property, value) = (driver.to_owned(), property.to_owned(), value.to_owned());
        Global { driver, property, value, used: Cell::new(false) }
    }

    fn item(&self) -> Item {
        Item { key: Some(self.property.clone()), value: self.value.clone() }
    }

    /// Its value as one of these properties.
    fn check(&self, keys: &[Key]) -> Result<Values, CliError> {
        keyval::typed(&format!("-global {}", self.driver), &[self.item()], keys)
    }

    /// The devices that it is of, be they here or not.
    fn models(&self) -> impl Iterator<Item = &'static Model> {
        models().chain(ABSENT.iter().copied()).filter(|model| model.is_a(&self.driver))
    }

    /// Whether it makes no difference, whether there is such a device or not.
    fn is_without_effect(&self) -> bool {
        let accepted = |keys: Vec<Key>| {
            keys.iter().any(|key| key.name == "*") || self.check(&keys).is_ok_and(|values| values == Values::default())
        };
        self.models().map(keys).any(accepted)
    }
}

/// The properties of a device.
fn keys(model: &Model) -> Vec<Key> {
    model.properties.iter().map(Key::of).collect()
}

/// Those of `-global`.
#[derive(Default)]
pub(super) struct Globals(Vec<Global>);

impl Globals {
    /// Reads every `-global`.
    pub(super) fn parse(given: &Given, refused: &mut Refused) -> Result<Globals, Stop> {
        let mut all = Globals::default();
        refused.each(given, "global", |text| {
            all.0.push(global(text)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// What a device of this row has besides its own items, as items that come before them.
    ///
    /// # Errors
    ///
    /// The row has no such property, or not this value of it.
    pub(super) fn items(&self, model: &Model) -> Result<Vec<Item>, CliError> {
        let (own, keys) = (self.0.iter().filter(|global| model.is_a(&global.driver)), keys(model));
        let item = |global: &Global| {
            global.used.set(true);
            global.check(&keys).map(|_| global.item())
        };
        own.map(item).collect()
    }

    /// The values that a device of this row has if nothing else is said of it.
    pub(super) fn values(&self, model: &'static Model) -> Result<Values, CliError> {
        keyval::typed("-global", &self.items(model)?, &keys(model))
    }

    /// A device by the option `option`, of which that says nothing but its row.
    pub(super) fn device(&self, model: &'static Model, option: &str) -> Result<Device, CliError> {
        let values = self.values(model)?.of(model);
        (model.check)(&values).map_err(|wrong| CliError::new(format!("-global {}", model.name), wrong))?;
        Ok(Device { values, ..Device::new(model, option) })
    }

    /// Takes over what is said of devices that the board has.
    pub(super) fn board(&self, config: &mut Config) -> Result<(), CliError> {
        let mut wrong = Vec::new();
        for (model, _) in registry::fixed(config.machine.board()) {
            if config.board.iter().any(|values| values.model() == model) {
                continue;
            }
            match self.values(model) {
                Ok(values) if values == Values::default() => {}
                Ok(values) => {
                    config.warnings.extend(values.warnings(&format!("-global {}", model.name)));
                    config.board.push(values.of(model));
                }
                Err(error) => wrong.push(error),
            }
        }
        CliError::all(wrong).map_or(Ok(()), Err)
    }

    /// Warns of what no device has taken.
    pub(super) fn warn(&self, config: &mut Config) {
        for global in self.0.iter().filter(|global| !global.used.get() && !global.is_without_effect()) {
            let Global { driver, property, value, .. } = global;
            let known = global.models().next().is_some();
            let what = if known { "the machine has no such device" } else { "there is no such device" };
            config.warnings.push(format!("-global {driver}.{property}={value}: {what}"));
        }
    }
}

fn global(text: &str) -> Result<Global, CliError> {
    if text.starts_with("driver=") {
        const TEXT: Kind = Kind::Text("a name");
        const KEYS: &[Key] = &[
            Key { name: "driver", kind: TEXT, help: "" },
            Key { name: "property", kind: TEXT, help: "" },
            Key { name: "value", kind: TEXT, help: "" },
        ];
        let values = keyval::parse("-global", text, "driver", KEYS)?;
        let get = |key: &str| {
            let missing = || CliError::new("-global", format!("'{text}' needs {key}="));
            values.text(key).map(str::to_owned).ok_or_else(missing)
        };
        return Ok(Global::new(&get("driver")?, &get("property")?, &get("value")?));
    }
    let parts = text.split_once('=').and_then(|(name, value)| {
        let (driver, property) = name.split_once('.')?;
        let whole = !driver.is_empty() && !property.is_empty();
        whole.then(|| Global::new(driver, property, value))
    });
    parts.ok_or_else(|| CliError::new("-global", format!("'{text}' is not of the form DRIVER.PROPERTY=VALUE")))
}
