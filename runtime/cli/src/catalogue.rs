//! What the command line offers, for monitors that are asked: devices, machines and CPU models with their properties, and
//! options with their parameters.

use super::Arch;
use super::families::{Choice, DISPLAY, Family, Offer};
use super::keyval::{Key, Kind};
use super::objects::OBJECT;
use super::options::{OPTIONS, Shape, Status};
use crate::config::MachineKind;

/// What kind of value a property has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    /// `on` or `off`.
    Switch,
    /// A whole number.
    Number,
    /// A number of bytes.
    Size,
    /// Text.
    Text,
}

/// A property of a device, or a parameter of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: ValueKind,
    /// A line of help; may be empty.
    pub help: &'static str,
}

/// Something that the command line offers by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    /// The name.
    pub name: &'static str,
    /// What can be said of it.
    pub properties: Vec<Property>,
}

/// A CPU model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CpuModel {
    /// Its name.
    pub name: &'static str,
    /// The model that it is another name of.
    pub alias_of: Option<&'static str>,
    /// Features by their names, and whether a guest has them.
    pub features: Vec<(&'static str, bool)>,
    /// Features that it has elsewhere, and not here.
    pub missing: Vec<&'static str>,
}

/// The families of `-machine` and `-device`.
fn families(machine: MachineKind) -> (&'static Family, &'static Family) {
    let arch = if machine == MachineKind::Pc { Arch::X86 } else { Arch::Riscv };
    let (machines, devices, _) = arch.families();
    (machines, devices)
}

fn property(key: &Key) -> Option<Property> {
    let kind = match key.kind {
        Kind::Number(..) => ValueKind::Number,
        Kind::MegaBytes | Kind::Bytes => ValueKind::Size,
        Kind::Word(words) | Kind::Among(words) if words.contains(&"on") => ValueKind::Switch,
        Kind::Fixed("on" | "off") => ValueKind::Switch,
        Kind::Word(_)
        | Kind::Among(_)
        | Kind::Text(_)
        | Kind::Texts(_)
        | Kind::Fixed(_)
        | Kind::Accepted
        | Kind::Without(_) => ValueKind::Text,
        Kind::NotYet | Kind::Lacks(_) => return None,
    };
    Some(Property { name: key.name, kind, help: key.help })
}

fn properties(keys: &[Key]) -> Vec<Property> {
    keys.iter().filter_map(property).collect()
}

fn offered(family: &'static Family) -> impl Iterator<Item = Offered> {
    let one = |choice: &'static Choice| match choice.offer {
        Offer::Yes(keys) if !choice.name.contains('*') => {
            Some(Offered { name: choice.name, properties: properties(keys) })
        }
        _ => None,
    };
    family.choices.iter().chain(family.common).filter_map(one)
}

/// The devices that `-device` of this machine knows.
pub(crate) fn devices(machine: MachineKind) -> Vec<Offered> {
    offered(families(machine).1).collect()
}

/// The objects that `-object` makes.
pub(crate) fn objects() -> Vec<Offered> {
    offered(&OBJECT).collect()
}

/// The machines of its architecture.
pub(crate) fn machines(machine: MachineKind) -> Vec<Offered> {
    offered(families(machine).0).collect()
}

/// The CPU models of its architecture.
pub(crate) fn cpus(machine: MachineKind) -> Vec<CpuModel> {
    if machine == MachineKind::Pc {
        return super::cpu::models();
    }
    let plain = |name| CpuModel { name, alias_of: None, features: Vec::new(), missing: Vec::new() };
    super::riscv::cpu::names().map(plain).collect()
}

/// The options that take a value, with what can be in it where it is a list by name.
pub(crate) fn options(machine: MachineKind) -> Vec<Offered> {
    let parameters = |name: &str| {
        let family = match name {
            "machine" => families(machine).0,
            "display" => &DISPLAY,
            _ => return Vec::new(),
        };
        let mut all: Vec<Property> = Vec::new();
        for property in offered(family).flat_map(|offered| offered.properties) {
            if all.iter().all(|known| known.name != property.name) {
                all.push(property);
            }
        }
        all
    };
    let takes_value = |shape| shape != Shape::Flag;
    let known = OPTIONS.iter().filter(|option| takes_value(option.shape) && is_there(option.status));
    known.map(|option| Offered { name: option.name, properties: parameters(option.name) }).collect()
}

fn is_there(status: Status) -> bool {
    matches!(status, Status::Offered(..) | Status::Always)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_told_with_its_properties() {
        let devices = devices(MachineKind::Pc);
        let disk = devices.iter().find(|device| device.name == "virtio-blk-pci").expect("there are disks");
        let drive = disk.properties.iter().find(|property| property.name == "drive");
        assert_eq!(drive.map(|property| property.kind), Some(ValueKind::Text));
        assert!(devices.iter().all(|device| !device.name.contains('*')));
        let options = options(MachineKind::Pc);
        let machine = options.iter().find(|option| option.name == "machine").expect("-machine is an option");
        assert!(machine.properties.iter().any(|property| property.name == "hpet"));
        assert!(options.iter().all(|option| option.name != "nographic"), "flags have no parameters");
    }
}
