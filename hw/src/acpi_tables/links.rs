//! How PCI's interrupt pins are routed, as ACPI tells it: link devices over the ISA bridge's route registers (ACPI specification
//! 6.5, 6.2.13; 82371SB data sheet, 2.2.7), and which pin of which device leads to which of them.

use acpi_tables::aml::{
    Arg, CreateDWordField, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Interrupt,
    LessThan, Method, Name, OpRegion, OpRegionSpace, Or, PackageBuilder, Path, ResourceTemplate, Return, Store,
};
use acpi_tables::{Aml, AmlSink, aml};

use super::{bytes_of, hid};
use crate::acpi_pm::SCI_IRQ;
use crate::pci::pirq;

/// What a line may be routed to.
const POSSIBLE_IRQS: [u8; 3] = [5, 10, 11];
/// A route register from this value on leads nowhere.
const OFF: u8 = 0x80;
/// The first route register, and how many there are.
const ROUTES: u8 = 0x60;
const LINES: u8 = 4;
/// The ISA bridge: device 1, function 0 (6.1.1).
const ISA_BRIDGE: u32 = 1 << 16;
/// The link of power management's pin, which is not routed.
const SCI_LINK: &str = "LNKS";
/// Where an interrupt descriptor has its number (6.4.3.6).
const DESCRIPTOR_NUMBER: u8 = 5;
/// What _STA says: present, working, and perhaps enabled (6.3.7).
const DISABLED: u8 = 0x09;
const ENABLED: u8 = 0x0b;

/// Bytes that are AML already.
pub(super) struct Encoded(pub(super) Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn letter(line: u8) -> char {
    char::from(b'A' + line)
}

fn interrupt(number: u8) -> Interrupt {
    Interrupt::new(true, false, false, true, number.into())
}

/// The crate's descriptor has one number: this has a choice of them.
fn choice(numbers: &[u8]) -> Encoded {
    let mut bytes = bytes_of(&interrupt(0));
    bytes.truncate(DESCRIPTOR_NUMBER.into());
    let length = 2 + 4 * numbers.len() as u8;
    for (at, value) in [(1, length), (4, numbers.len() as u8)] {
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    }
    numbers.iter().for_each(|number| bytes.extend(u32::from(*number).to_le_bytes()));
    Encoded(bytes)
}

/// The ISA bridge with its route registers, inside the PCI bus.
pub(super) fn isa_bridge() -> Vec<u8> {
    let address = Name::new("_ADR".into(), &ISA_BRIDGE);
    let region = OpRegion::new("PIRQ".into(), OpRegionSpace::PCIConfig, &ROUTES, &LINES);
    let entry = |line| FieldEntry::Named([b'P', b'R', b'Q', letter(line) as u8], 8);
    let fields = Field::new(
        "PIRQ".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        (0..LINES).map(entry).collect(),
    );
    bytes_of(&Device::new("ISA_".into(), vec![&address, &region, &fields]))
}

/// The link devices, beside the PCI bus.
pub(super) fn links() -> Vec<u8> {
    let mut links: Vec<u8> = (0..LINES).flat_map(link).collect();
    let number = interrupt(SCI_IRQ);
    let resources = |name: &str| Name::new(name.into(), &ResourceTemplate::new(vec![&number]));
    let (possible, current) = (resources("_PRS"), resources("_CRS"));
    links.extend(bytes_of(&Device::new(
        SCI_LINK.into(),
        vec![
            &hid("PNP0C0F"),
            &Name::new("_UID".into(), &LINES),
            &Name::new("_STA".into(), &ENABLED),
            &possible,
            &current,
            &Method::new("_DIS".into(), 0, false, vec![]),
            &Method::new("_SRS".into(), 1, false, vec![]),
        ],
    )));
    links
}

/// The link of line `line`.
fn link(line: u8) -> Vec<u8> {
    let route = Path::new(&format!("\\_SB_.PCI0.ISA_.PRQ{}", letter(line)));
    let (number, template): (Path, Path) = ("NUM_".into(), "TMPL".into());
    let routed = LessThan::new(&route, &OFF);
    let possible = choice(&POSSIBLE_IRQS);
    let unrouted = interrupt(0);
    let enabled = Return::new(&ENABLED);
    let returned = Return::new(&template);
    let current = Store::new(&number, &route);
    let status = If::new(&routed, vec![&enabled]);
    let current = If::new(&routed, vec![&current]);
    let in_template = CreateDWordField::new(&number, &template, &DESCRIPTOR_NUMBER);
    let in_argument = CreateDWordField::new(&number, &Arg(0), &DESCRIPTOR_NUMBER);
    bytes_of(&Device::new(
        Path::new(&format!("LNK{}", letter(line))),
        vec![
            &hid("PNP0C0F"),
            &Name::new("_UID".into(), &line),
            &Name::new("_PRS".into(), &ResourceTemplate::new(vec![&possible])),
            &Method::new("_STA".into(), 0, false, vec![&status, &Return::new(&DISABLED)]),
            &Method::new("_DIS".into(), 0, false, vec![&Or::new(&route, &route, &OFF)]),
            &Method::new(
                "_CRS".into(),
                0,
                true,
                vec![
                    &Name::new("TMPL".into(), &ResourceTemplate::new(vec![&unrouted])),
                    &in_template,
                    &current,
                    &returned,
                ],
            ),
            &Method::new("_SRS".into(), 1, true, vec![&in_argument, &Store::new(&route, &number)]),
        ],
    ))
}

/// Where each pin of each device of bus 0 goes (6.2.13): device and any function, pin, link, 0. The lines' ISA interrupts are
/// the I/O APIC's inputs of the same numbers, so this holds without and with it.
pub(super) fn routes() -> PackageBuilder {
    let mut routes = PackageBuilder::new();
    for (device, pin) in (0..32u8).flat_map(|device| (0..4u8).map(move |pin| (device, pin))) {
        let line = pirq(device << 3, pin) as u8;
        // Power management's is the system control interrupt.
        let name = if (device, pin) == (1, 0) { SCI_LINK.into() } else { format!("LNK{}", letter(line)) };
        let mut route = PackageBuilder::new();
        route.add_element(&(u32::from(device) << 16 | 0xffff));
        route.add_element(&pin);
        route.add_element(&Path::new(&name));
        route.add_element(&aml::ZERO);
        routes.add_element(&route);
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_interrupts_is_one_descriptor() {
        let bytes = bytes_of(&choice(&[5, 10, 11]));
        assert_eq!(bytes, [0x89, 14, 0, 0x09, 3, 5, 0, 0, 0, 10, 0, 0, 0, 11, 0, 0, 0]);
        assert_eq!(bytes_of(&choice(&[9])), bytes_of(&interrupt(9)));
    }

    #[test]
    fn pins_lead_to_links_that_are_there() {
        let (links, routes) = (links(), bytes_of(&routes()));
        let named = |bytes: &[u8], name: &[u8]| bytes.windows(4).filter(|window| *window == name).count();
        for (name, uses) in [(b"LNKA", 31), (b"LNKB", 32), (b"LNKC", 32), (b"LNKD", 32), (b"LNKS", 1)] {
            assert_eq!((named(&links, name), named(&routes, name)), (1, uses), "{name:?}");
        }
        // Device 1's first pin would be the first line's.
        assert_eq!(pirq(1 << 3, 0), 0);
    }
}
