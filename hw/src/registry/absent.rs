//! Devices that QEMU's boards have and those here have not, whose properties command lines set all the same (`-global`).

use super::property::{accepted, among};
use super::{Bus, Model, Property};

/// A property that stands for all.
const ANY: &[Property] = &[accepted("*")];

const fn row(bus: Bus, name: &'static str, properties: &'static [Property]) -> Model {
    Model { properties, ..Model::on(bus, name) }
}

/// A row for each of these devices, with the properties whose values make no difference.
pub const ABSENT: &[&Model] = &[
    &row(Bus::Isa, "isa-fdc", &[among("fdtypeA", &["none", "auto"]), among("fdtypeB", &["none", "auto"])]),
    &row(Bus::Pci, "ICH9-LPC", ANY),
    &row(Bus::System, "cfi.pflash01", ANY),
    &row(Bus::System, "kvm-apic", ANY),
    &row(Bus::System, "migration", ANY),
];
