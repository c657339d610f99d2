//! What the command line offers, for monitors that are asked: devices, machines and CPU models with their properties, and
//! options with their parameters.

use super::Arch;
use super::families::{Choice, DISPLAY, Family, Offer};
use super::keyval::{Key, Kind};
use super::objects::{self, OBJECT};
use super::options::{OPTIONS, Shape, Status};
use mimus_machine::config::{MachineKind, UserObject};
use mimus_machine::offers::{CpuModel, Offered, Offers, Property, ValueKind};

/// What the command line offers.
#[derive(Debug)]
pub(crate) struct Catalogue;

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
    Some(Property { name: key.name, kind, help: key.help, default: None })
}

fn properties(keys: &[Key]) -> Vec<Property> {
    keys.iter().filter_map(property).collect()
}

fn offered(family: &'static Family) -> impl Iterator<Item = Offered> {
    let one = |choice: &'static Choice| {
        let keys = choice.keys().filter(|_| !choice.name.contains('*'))?;
        let properties = match choice.offer {
            Offer::Device(model) => model.properties.iter().filter_map(Property::of).collect(),
            _ => properties(&keys),
        };
        Some(Offered { name: choice.name, properties })
    };
    family.choices.iter().chain(family.common).filter_map(one)
}

impl Offers for Catalogue {
    fn devices(&self, machine: MachineKind) -> Vec<Offered> {
        offered(families(machine).1).collect()
    }

    fn objects(&self) -> Vec<Offered> {
        offered(&OBJECT).collect()
    }

    fn machines(&self, machine: MachineKind) -> Vec<Offered> {
        offered(families(machine).0).collect()
    }

    fn cpus(&self, machine: MachineKind) -> Vec<CpuModel> {
        if machine == MachineKind::Pc {
            return super::cpu::models();
        }
        let plain = |name| CpuModel { name, alias_of: None, features: Vec::new(), missing: Vec::new() };
        super::riscv::cpu::names().map(plain).collect()
    }

    fn options(&self, machine: MachineKind) -> Vec<Offered> {
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

    fn object(&self, text: &str) -> Result<UserObject, String> {
        objects::described(text).map_err(|error| error.to_string())
    }
}

fn is_there(status: Status) -> bool {
    matches!(status, Status::Offered(..) | Status::Always)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_told_with_its_properties() {
        let devices = Catalogue.devices(MachineKind::Pc);
        let disk = devices.iter().find(|device| device.name == "virtio-blk-pci").expect("there are disks");
        let drive = disk.properties.iter().find(|property| property.name == "drive");
        assert_eq!(drive.map(|property| property.kind), Some(ValueKind::Text));
        assert!(devices.iter().all(|device| !device.name.contains('*')));
        let options = Catalogue.options(MachineKind::Pc);
        let machine = options.iter().find(|option| option.name == "machine").expect("-machine is an option");
        assert!(machine.properties.iter().any(|property| property.name == "hpet"));
        assert!(options.iter().all(|option| option.name != "nographic"), "flags have no parameters");
    }
}
