//! `-global`: properties of devices that nobody plugs in by `-device`, or of all of a kind.

use std::cell::Cell;

use mimus_hw::registry;

use super::error::CliError;
use super::keyval::{self, Item, Key, Kind};
use super::{Given, Refused, Stop};
use mimus_machine::config::Config;

/// A property of a device.
struct Global {
    /// The device.
    driver: String,
    property: String,
    value: String,
    /// A `-device` has taken it.
    used: Cell<bool>,
}

impl Global {
    fn new(driver: &str, property: &str, value: &str) -> Global {
        let (driver, property, value) = (driver.to_owned(), property.to_owned(), value.to_owned());
        Global { driver, property, value, used: Cell::new(false) }
    }
}

/// Properties that are accepted, since devices here are so anyway or it makes no difference. A `*` stands for anything.
const ACCEPTED: &[(&str, &str, &[&str])] = &[
    ("ICH9-LPC", "disable_s3", &["1", "on"]),
    ("ICH9-LPC", "disable_s4", &["1", "on"]),
    ("ICH9-LPC", "*", &[]),
    ("PIIX4_PM", "acpi-*", &[]),
    ("cfi.pflash01", "*", &[]),
    ("driver.cfi.pflash01", "*", &[]),
    ("isa-fdc", "fdtypeA", &["none", "auto"]),
    ("isa-fdc", "fdtypeB", &["none", "auto"]),
    ("kvm-apic", "*", &[]),
    ("kvm-pit", "lost_tick_policy", &["delay", "discard"]),
    ("mc146818rtc", "lost_tick_policy", &["delay", "discard", "slew"]),
    ("migration", "*", &[]),
    ("virtio-blk-pci", "scsi", &["off"]),
    ("virtio-mmio", "force-legacy", &[]),
];

/// Devices of QEMU's boards that are not in the registry, or have another name there.
const PRESENT: &[&str] = &["isa-fdc", "kvm-pit", "virtio-mmio"];

/// Whether a device is there without a `-device`: its properties are named in a warning.
fn is_present(driver: &str) -> bool {
    PRESENT.contains(&driver) || registry::model(driver).is_some_and(|model| !model.fixed.is_empty())
}

/// The device of power management, and its properties that take sleep states away.
const PM: &str = "PIIX4_PM";
const SLEEPS: [&str; 2] = ["disable_s3", "disable_s4"];

/// Those of `-global`.
#[derive(Default)]
pub(super) struct Globals(Vec<Global>);

/// Whether `name` is `pattern`, in which a `*` at the end stands for anything.
fn is(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

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

    /// Says which sleep states there are.
    pub(super) fn sleep(&self, config: &mut Config) -> Result<(), CliError> {
        for Global { property, value, .. } in self.0.iter().filter(|global| global.driver == PM) {
            let state = match SLEEPS.iter().position(|known| known == property) {
                Some(0) => &mut config.sleep.to_ram,
                Some(_) => &mut config.sleep.to_disk,
                None => continue,
            };
            *state = match value.as_str() {
                "0" | "off" | "false" => true,
                "1" | "on" | "true" => false,
                _ => return Err(CliError::new("-global", format!("{PM}.{property}={value}: not 0 or 1"))),
            };
        }
        Ok(())
    }

    /// What a `-device` of this name has besides its own items, as items that come before them.
    pub(super) fn items(&self, driver: &str) -> Vec<Item> {
        let own = self.0.iter().filter(|global| global.driver == driver);
        let own = own.filter(|global| !accepted(driver, &global.property, &global.value));
        own.inspect(|global| global.used.set(true))
            .map(|global| Item { key: Some(global.property.clone()), value: global.value.clone() })
            .collect()
    }

    /// Warns of what no device has taken. `offered` says which devices a `-device` may name.
    pub(super) fn warn(&self, offered: impl Fn(&str) -> bool, config: &mut Config) {
        for Global { driver, property, value, used } in &self.0 {
            // These have their own readers.
            let elsewhere = [registry::VGA.name, registry::ISA_DEBUGCON.name].contains(&driver.as_str());
            let elsewhere = elsewhere || driver == PM && SLEEPS.contains(&property.as_str());
            if used.get() || elsewhere || accepted(driver, property, value) {
                continue;
            }
            let what = match (is_present(driver), offered(driver)) {
                (true, _) => "it has no effect here",
                (false, true) => "there is no -device of this name",
                (false, false) => "there is no such device",
            };
            config.warnings.push(format!("-global {driver}.{property}={value}: {what}"));
        }
    }
}

fn accepted(driver: &str, property: &str, value: &str) -> bool {
    ACCEPTED.iter().any(|(device, name, values)| {
        is(device, driver) && is(name, property) && (values.is_empty() || values.contains(&value))
    })
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
