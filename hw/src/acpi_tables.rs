//! The firmware tables of the PC: RSDP, RSDT, XSDT, FADT, FACS, MADT and DSDT (ACPI specification 6.5, chapter 5),
//! and an MP table.
//!
//! Without firmware all of them lie in one area below 1 MiB, where a guest scans for the RSDP and the MP floating pointer.
//! Firmware gets them in files, and a script that says how they are tied together.

mod links;
mod loader;

use crate::acpi_pm::{
    ACPI_DISABLE, ACPI_ENABLE, GPE0_BASE, PM_BASE, PM_LENGTH, PM_TIMER, PM1_CONTROL, PM1_EVENT, S3_SLEEP_TYPE,
    S4_SLEEP_TYPE, S5_SLEEP_TYPE, SCI_IRQ, SMI_COMMAND,
};
use crate::pc::COM_PORTS;
use crate::{fw_cfg, hpet, ioapic, lapic, mp_table, rtc};
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package,
    ResourceTemplate, Scope,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};

/// Guest-physical address of the RSDP; a boot loader may pass it on.
pub const RSDP_ADDRESS: u64 = 0xf_0000;
/// The area that holds the tables ends before this guest-physical address: firmware's code is behind it.
pub const TABLES_END: u64 = 0xf_ff00;

/// The PCI memory hole below 4 GiB: its first and last address.
const PCI_HOLE: (u32, u32) = (0xe000_0000, 0xfebf_ffff);

/// The shortest period of the event timer at which no interrupt should be lost, in ticks.
const HPET_LEAST_TICKS: u16 = 10_000;

const OEM_ID: [u8; 6] = *b"MIMUS ";
const OEM_TABLE_ID: [u8; 8] = *b"MIMUSPC ";
const OEM_REVISION: u32 = 1;

/// Bytes to place in guest RAM before the guest starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Guest-physical address of the first byte.
    pub address: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the tables say of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Processors; 0 counts as 1.
    pub cpus: u8,
    /// There is a VGA.
    pub vga: bool,
    /// There is a high precision event timer.
    pub hpet: bool,
    /// Which of the four usual places have a serial port.
    pub serials: [bool; 4],
    /// What rows of the registry say of devices that are plugged in: AML for the system bus.
    pub devices: Vec<u8>,
    /// The guest may sleep with its state in RAM, and on a disk.
    pub sleeps: [bool; 2],
    /// The first port of the power management registers; 0 stands for where they are without firmware.
    pub pm_base: u16,
    /// There are no ACPI tables at all.
    pub absent: bool,
    /// Who made the tables, and what the tables are called; `None` for mimus's own names.
    pub oem: (Option<[u8; 6]>, Option<[u8; 8]>),
    /// More tables, whole.
    pub more: Vec<Vec<u8>>,
}

impl AcpiConfig {
    /// With what 0 stands for.
    fn completed(&self) -> AcpiConfig {
        let pm_base = if self.pm_base == 0 { PM_BASE } else { self.pm_base };
        AcpiConfig { cpus: self.cpus.max(1), pm_base, ..self.clone() }
    }

    fn oem_id(&self) -> [u8; 6] {
        self.oem.0.unwrap_or(OEM_ID)
    }

    fn oem_table_id(&self) -> [u8; 8] {
        self.oem.1.unwrap_or(OEM_TABLE_ID)
    }

    /// A table that is a header so far.
    fn table(&self, signature: &[u8; 4], revision: u8) -> Sdt {
        Sdt::new(*signature, 36, revision, self.oem_id(), self.oem_table_id(), OEM_REVISION)
    }
}

/// Hands out addresses upwards.
struct Layout {
    next: u64,
    blobs: Vec<Blob>,
    /// Fields that hold a table's address: where they are, and how many bytes.
    pointers: Vec<(u64, u8)>,
}

impl Layout {
    fn place(&mut self, bytes: Vec<u8>) -> u64 {
        let address = self.next;
        // FACS wants 64-byte alignment (5.2.10), the others 16.
        self.next = (address + bytes.len() as u64).next_multiple_of(64);
        self.blobs.push(Blob { address, bytes });
        address
    }

    fn place_aml(&mut self, table: &dyn Aml) -> u64 {
        self.place(bytes_of(table))
    }
}

impl Layout {
    /// The tables from `base` on, and the addresses of XSDT and RSDT.
    fn tables(base: u64, config: &AcpiConfig) -> (Layout, u64, u64) {
        let mut layout = Layout { next: base, blobs: Vec::new(), pointers: Vec::new() };
        let facs = layout.place_aml(&FACS::new());
        let dsdt = layout.place_aml(&dsdt(config));
        let fadt = layout.place_aml(&fadt(facs, dsdt, config));
        layout.pointers.extend([(fadt + 36, 4), (fadt + 40, 4), (fadt + 140, 8)]);
        let madt = layout.place_aml(&madt(config));
        let timer = config.hpet.then(|| layout.place_aml(&hpet_table(config)));

        let mut listed = vec![fadt, madt];
        listed.extend(timer);
        listed.extend(config.more.iter().map(|table| layout.place(table.clone())));
        let mut xsdt = XSDT::new(config.oem_id(), config.oem_table_id(), OEM_REVISION);
        let mut rsdt = config.table(b"RSDT", 1);
        let count = listed.len() as u64;
        for table in listed {
            xsdt.add_entry(table);
            rsdt.append_slice(&(table as u32).to_le_bytes());
        }
        let xsdt = layout.place_aml(&xsdt);
        let rsdt = layout.place_aml(&rsdt);
        for index in 0..count {
            layout.pointers.extend([(xsdt + 36 + 8 * index, 8), (rsdt + 36 + 4 * index, 4)]);
        }
        (layout, xsdt, rsdt)
    }
}

/// The tables for a machine without firmware, with their RSDP and an MP table.
pub fn build(config: &AcpiConfig) -> Vec<Blob> {
    let config = config.completed();
    let mut layout = if config.absent {
        Layout { next: RSDP_ADDRESS, blobs: Vec::new(), pointers: Vec::new() }
    } else {
        let rsdp_space = (Rsdp::len() as u64).next_multiple_of(64);
        let (mut layout, xsdt, rsdt) = Layout::tables(RSDP_ADDRESS + rsdp_space, &config);
        layout.blobs.push(Blob { address: RSDP_ADDRESS, bytes: rsdp(&config, xsdt, rsdt as u32) });
        layout
    };
    let mp_address = layout.next;
    layout.place(mp_table::build(mp_address as u32, config.cpus, SCI_IRQ));
    layout.blobs
}

/// The tables for firmware: files by name, the last of which is the script that ties them together.
pub(crate) fn loadable(config: &AcpiConfig) -> Vec<(&'static str, Vec<u8>)> {
    if config.absent {
        return Vec::new();
    }
    let config = config.completed();
    let (layout, xsdt, rsdt) = Layout::tables(0, &config);
    loader::files(layout, rsdp(&config, xsdt, rsdt as u32))
}

fn bytes_of(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// The crate's RSDP knows no RSDT address, which guests of ACPI 1.0 read (5.2.5.3): patch it and both checksums.
fn rsdp(config: &AcpiConfig, xsdt: u64, rsdt: u32) -> Vec<u8> {
    let mut bytes = bytes_of(&Rsdp::new(config.oem_id(), xsdt));
    bytes[16..20].copy_from_slice(&rsdt.to_le_bytes());
    bytes[8] = 0;
    bytes[8] = negated_sum(&bytes[..20]);
    bytes[32] = 0;
    bytes[32] = negated_sum(&bytes);
    bytes
}

fn negated_sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

fn io_register(port: u16, bits: u8) -> GAS {
    let access = match bits {
        8 => AccessSize::ByteAccess,
        16 => AccessSize::WordAccess,
        _ => AccessSize::DwordAccess,
    };
    GAS::new(GasSpace::SystemIo, bits, 0, access, u64::from(port))
}

fn fadt(facs: u64, dsdt: u64, config: &AcpiConfig) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(config.oem_id(), config.oem_table_id(), OEM_REVISION)
        .preferred_pm_profile(PmProfile::Desktop)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.firmware_ctrl = (facs as u32).into();
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = u16::from(SCI_IRQ).into();
    fadt.smi_cmd = u32::from(SMI_COMMAND).into();
    fadt.acpi_enable = ACPI_ENABLE;
    fadt.acpi_disable = ACPI_DISABLE;
    let register = |offset| config.pm_base.saturating_add(offset);
    let (event, control, timer) = (register(PM1_EVENT), register(PM1_CONTROL), register(PM_TIMER));
    fadt.pm1a_evt_blk = u32::from(event).into();
    fadt.x_pm1a_evt_blk = io_register(event, 32);
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(control).into();
    fadt.x_pm1a_cnt_blk = io_register(control, 16);
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(timer).into();
    fadt.x_pm_tmr_blk = io_register(timer, 32);
    fadt.pm_tmr_len = 4;
    fadt.gpe0_blk = u32::from(GPE0_BASE).into();
    fadt.x_gpe0_blk = io_register(GPE0_BASE, 32);
    fadt.gpe0_blk_len = 4;
    // More than 100 and 1000 µs: no C2, no C3.
    fadt.p_lvl2_lat = 0xfff.into();
    fadt.p_lvl3_lat = 0xfff.into();
    fadt.century = rtc::CENTURY;
    // Legacy devices, an 8042, and whether a VGA is missing (5.2.9.3).
    fadt.iapc_boot_arch = if config.vga { 3 } else { 7 }.into();
    fadt.reset_reg = io_register(0xcf9, 8);
    fadt.reset_value = 0x06;
    fadt.finalize()
}

/// The crate's MADT has no interrupt source override, so the entries are written here (5.2.12, tables 5.20-5.26).
fn madt(config: &AcpiConfig) -> Sdt {
    let mut madt = config.table(b"APIC", 1);
    madt.append_slice(&(lapic::DEFAULT_BASE as u32).to_le_bytes());
    // PCAT_COMPAT: there are 8259As as well.
    madt.append_slice(&1u32.to_le_bytes());
    for cpu in 0..config.cpus {
        madt.append_slice(&[0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    let [a, b, c, d] = (ioapic::BASE as u32).to_le_bytes();
    madt.append_slice(&[1, 12, ioapic::RESET_ID, 0, a, b, c, d, 0, 0, 0, 0]);
    for (irq, gsi, flags) in [(0, 2, 0x00), (SCI_IRQ, SCI_IRQ, 0x0d)] {
        madt.append_slice(&[2, 10, 0, irq, gsi, 0, 0, 0, flags, 0]);
    }
    // NMI on LINT1 of all processors.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

/// Where the event timer is (IA-PC HPET specification 1.0a, 3.2.4).
fn hpet_table(config: &AcpiConfig) -> Sdt {
    let mut table = config.table(b"HPET", 1);
    table.append_slice(&hpet::ID.to_le_bytes());
    table.append_slice(&bytes_of(&GAS::new(GasSpace::SystemMemory, 64, 0, AccessSize::Undefined, hpet::BASE)));
    // Number 0, periods of 0.1 ms at least, and no promise of what else is in its page.
    let [low, high] = HPET_LEAST_TICKS.to_le_bytes();
    table.append_slice(&[0, low, high, 0]);
    table
}

fn hid(id: &str) -> Name {
    Name::new("_HID".into(), &EISAName::new(id))
}

fn ports(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}

fn irq(number: u8) -> Interrupt {
    Interrupt::new(true, true, false, false, u32::from(number))
}

/// An ISA device: name, hardware ID, port ranges, interrupt. The crate's interrupt descriptor holds a global system
/// interrupt, not an ISA line, so only devices whose line has no source override (5.2.12.5) may name theirs.
type IsaDevice<'a> = (&'a str, &'a str, &'a [(u16, u8)], Option<u8>);

const ISA_DEVICES: [IsaDevice<'_>; 7] = [
    ("RTC_", "PNP0B00", &[(0x70, 2)], Some(8)),
    ("KBD_", "PNP0303", &[(0x60, 1), (0x64, 1)], Some(1)),
    ("MOU_", "PNP0F13", &[], Some(12)),
    ("TIMR", "PNP0100", &[(0x40, 4)], None),
    ("SPKR", "PNP0800", &[(0x61, 1)], None),
    ("DMAC", "PNP0200", &[(0x00, 16), (0x81, 15), (0xc0, 32)], None),
    ("PIC_", "PNP0000", &[(0x20, 2), (0xa0, 2)], None),
];

/// The ports of the board that belong to no device.
fn board(pm_base: u16) -> Vec<u8> {
    let ranges = [(0x80, 1), (0x92, 1), (SMI_COMMAND, 2), (0x4d0, 2), (pm_base, PM_LENGTH as u8), (GPE0_BASE, 4)];
    isa_device(("MBRD", "PNP0C02", &ranges, None))
}

fn isa_device((name, id, ranges, interrupt): IsaDevice<'_>) -> Vec<u8> {
    let ranges: Vec<IO> = ranges.iter().map(|(first, count)| ports(*first, *count)).collect();
    let interrupt = interrupt.map(irq);
    let mut resources: Vec<&dyn Aml> = ranges.iter().map(|range| range as &dyn Aml).collect();
    if let Some(interrupt) = &interrupt {
        resources.push(interrupt);
    }
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    bytes_of(&Device::new(name.into(), vec![&hid(id), &crs]))
}

/// The serial ports that there are.
fn serial_devices(present: [bool; 4]) -> Vec<u8> {
    let ports = ["COM1", "COM2", "COM3", "COM4"].into_iter().zip(COM_PORTS).zip(present);
    let ports = ports.filter(|(_, present)| *present);
    ports.flat_map(|((name, port), _)| isa_device((name, "PNP0501", &[(port.iobase, 8)], Some(port.irq)))).collect()
}

fn pci_root() -> Vec<u8> {
    let (first, last) = PCI_HOLE;
    let crs = Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![
            &AddressSpace::new_bus_number(0u16, 0xff),
            &ports(0xcf8, 8),
            &AddressSpace::new_io(0u16, 0xcf7, None),
            &AddressSpace::new_io(0xd00u16, 0xffff, None),
            &AddressSpace::new_memory(AddressSpaceCacheable::Cacheable, true, 0xa_0000u32, 0xb_ffff, None),
            &AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None),
        ]),
    );
    let zero = |name: &str| Name::new(name.into(), &aml::ZERO);
    let prt = Name::new("_PRT".into(), &links::routes());
    let isa = links::Encoded(links::isa_bridge());
    bytes_of(&Device::new("PCI0".into(), vec![&hid("PNP0A03"), &zero("_UID"), &zero("_BBN"), &crs, &prt, &isa]))
}

fn processor(cpu: u8) -> Vec<u8> {
    let name = format!("C{cpu:03X}");
    let hid = Name::new("_HID".into(), &"ACPI0007");
    let uid = Name::new("_UID".into(), &cpu);
    bytes_of(&Device::new(name.as_str().into(), vec![&hid, &uid]))
}

fn hpet_device() -> Vec<u8> {
    let memory = Memory32Fixed::new(false, hpet::BASE as u32, hpet::LENGTH as u32);
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory]));
    bytes_of(&Device::new("HPET".into(), vec![&hid("PNP0103"), &Name::new("_UID".into(), &aml::ZERO), &crs]))
}

/// The firmware configuration device, by the name that guests' drivers know (QEMU documentation, "QEMU Firmware Configuration
/// (fw_cfg) Device").
fn fw_cfg_device() -> Vec<u8> {
    named_device("FWCF", "QEMU0002", fw_cfg::BASE, fw_cfg::LENGTH as u8)
}

/// Present, enabled, working, and nothing to show to users (6.3.7).
const UNSEEN: u8 = 0x0b;

/// A device that is not of ISA Plug and Play, with `count` I/O ports from `first` on: a name, and the hardware ID by which its
/// driver finds it.
pub(crate) fn named_device(name: &str, id: &'static str, first: u16, count: u8) -> Vec<u8> {
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports(first, count)]));
    let hid = Name::new("_HID".into(), &id);
    bytes_of(&Device::new(name.into(), vec![&hid, &Name::new("_STA".into(), &UNSEEN), &crs]))
}

fn dsdt(config: &AcpiConfig) -> Sdt {
    let mut system_bus = pci_root();
    system_bus.extend(fw_cfg_device());
    system_bus.extend(links::links());
    if config.hpet {
        system_bus.extend(hpet_device());
    }
    system_bus.extend(serial_devices(config.serials));
    system_bus.extend(&config.devices);
    for device in ISA_DEVICES {
        system_bus.extend(isa_device(device));
    }
    system_bus.extend(board(config.pm_base));
    for cpu in 0..config.cpus {
        system_bus.extend(processor(cpu));
    }
    // Revision 2: integers are 64 bits wide.
    let mut dsdt = config.table(b"DSDT", 2);
    dsdt.append_slice(&Scope::raw("_SB_".into(), system_bus));
    for (state, sleep_type, there) in [
        ("_S3_", S3_SLEEP_TYPE, config.sleeps[0]),
        ("_S4_", S4_SLEEP_TYPE, config.sleeps[1]),
        ("_S5_", S5_SLEEP_TYPE, true),
    ] {
        let package = Package::new(vec![&sleep_type, &sleep_type, &aml::ZERO, &aml::ZERO]);
        if there {
            dsdt.append_slice(&bytes_of(&Name::new(state.into(), &package)));
        }
    }
    dsdt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cpus: u8) -> AcpiConfig {
        AcpiConfig { cpus, hpet: true, ..AcpiConfig::default() }
    }

    fn table_at(blobs: &[Blob], address: u64) -> &[u8] {
        &blobs.iter().find(|blob| blob.address == address).expect("a pointer leads to a table").bytes
    }

    fn u32_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from(u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap()))
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    /// Checks length and checksum of a table with the standard header.
    fn checked<'a>(blobs: &'a [Blob], address: u64, signature: &[u8; 4]) -> &'a [u8] {
        let table = table_at(blobs, address);
        assert_eq!(&table[..4], signature);
        assert_eq!(u32_at(table, 4), table.len() as u64);
        assert_eq!(negated_sum(table), 0);
        table
    }

    #[test]
    fn every_table_is_reached_and_sums_to_zero() {
        let blobs = build(&config(4));
        let rsdp = table_at(&blobs, RSDP_ADDRESS);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((negated_sum(&rsdp[..20]), negated_sum(rsdp)), (0, 0));
        let rsdt = checked(&blobs, u32_at(rsdp, 16), b"RSDT");
        let xsdt = checked(&blobs, u64_at(rsdp, 24), b"XSDT");
        for (index, signature) in [b"FACP", b"APIC", b"HPET"].into_iter().enumerate() {
            let address = u64_at(xsdt, 36 + 8 * index);
            assert_eq!(u32_at(rsdt, 36 + 4 * index), address);
            checked(&blobs, address, signature);
        }
        let fadt = table_at(&blobs, u64_at(xsdt, 36));
        assert_eq!(u32_at(fadt, 40), u64_at(fadt, 140));
        let dsdt = checked(&blobs, u32_at(fadt, 40), b"DSDT");
        assert!(dsdt.windows(4).any(|name| name == b"_S5_"));
        assert!(dsdt.windows(8).any(|name| name == b"QEMU0002"), "fw_cfg's files are in Linux's sysfs by that");
        let facs = u32_at(fadt, 36);
        assert_eq!((&table_at(&blobs, facs)[..4], facs % 64), (&b"FACS"[..], 0));
        assert_eq!((u32_at(fadt, 48), u32_at(fadt, 76)), (0xb2, 0x608));
    }

    #[test]
    fn tables_of_a_users_are_listed_and_names_are_everywhere() {
        let more = vec![[b"SLIC\x2c\0\0\0".as_slice(), &[0xee; 36]].concat()];
        let oem = (Some(*b"BOCHS "), Some(*b"BXPC    "));
        let blobs = build(&AcpiConfig { more: more.clone(), oem, ..config(1) });
        let rsdp = table_at(&blobs, RSDP_ADDRESS);
        let rsdt = checked(&blobs, u32_at(rsdp, 16), b"RSDT");
        assert_eq!(table_at(&blobs, u32_at(rsdt, 36 + 12)), more[0]);
        for bytes in [rsdt, checked(&blobs, u32_at(rsdt, 36), b"FACP"), checked(&blobs, u32_at(rsdt, 40), b"APIC")] {
            assert_eq!(&bytes[10..24], b"BOCHS BXPC    ");
        }
        assert_eq!(&rsdp[9..15], b"BOCHS ");
    }

    #[test]
    fn without_acpi_there_is_the_mp_table() {
        let config = AcpiConfig { absent: true, ..config(1) };
        let blobs = build(&config);
        assert_eq!((blobs.len(), &blobs[0].bytes[..4]), (1, b"_MP_".as_slice()));
        assert_eq!(loadable(&config), []);
    }

    #[test]
    fn interrupt_structure_of_the_madt() {
        let blobs = build(&config(2));
        let madt = &blobs.iter().find(|blob| blob.bytes.starts_with(b"APIC")).unwrap().bytes;
        let expected: &[&[u8]] = &[
            &[0, 8, 0, 0, 1, 0, 0, 0],
            &[0, 8, 1, 1, 1, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
            &[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
            &[4, 6, 0xff, 0, 0, 1],
        ];
        assert_eq!(madt[44..], expected.concat());
    }

    #[test]
    fn no_device_names_an_overridden_interrupt() {
        assert!(ISA_DEVICES.iter().all(|device| !matches!(device.3, Some(0 | 2 | SCI_IRQ))));
    }

    #[test]
    fn sleep_states_are_those_that_there_are() {
        let named = |sleeps, name: &[u8]| {
            let blobs = build(&AcpiConfig { sleeps, ..config(1) });
            blobs.iter().any(|blob| blob.bytes.windows(4).any(|window| window == name))
        };
        assert!(!named([false; 2], b"_S3_") && named([true, false], b"_S3_") && !named([true, false], b"_S4_"));
        assert!(named([false, true], b"_S4_") && named([false; 2], b"_S5_"));
    }

    #[test]
    fn serial_ports_are_those_that_there_are() {
        let named = |serials, name: &[u8]| {
            let blobs = build(&AcpiConfig { serials, ..config(1) });
            blobs.iter().any(|blob| blob.bytes.windows(4).any(|window| window == name))
        };
        let serials = [false, true, false, true];
        assert_eq!([b"COM1", b"COM2", b"COM3", b"COM4"].map(|name| named(serials, name)), serials);
    }

    #[test]
    fn devices_that_are_plugged_in_are_told_of() {
        let devices = named_device("XYZ_", "ABCD1234", 0x123, 1);
        let blobs = build(&AcpiConfig { devices: devices.clone(), ..config(1) });
        assert!(blobs.iter().any(|blob| blob.bytes.windows(devices.len()).any(|window| window == devices)));
    }

    #[test]
    fn blobs_fit_without_overlap() {
        for cpus in [0, 1, 255] {
            let mut blobs = build(&config(cpus));
            blobs.sort_by_key(|blob| blob.address);
            for pair in blobs.windows(2) {
                assert!(pair[0].address + pair[0].bytes.len() as u64 <= pair[1].address);
            }
            let last = blobs.last().unwrap();
            assert!(last.address + last.bytes.len() as u64 <= TABLES_END);
            assert!(blobs.iter().all(|blob| blob.address % 16 == 0 && blob.address >= RSDP_ADDRESS));
        }
    }
}
