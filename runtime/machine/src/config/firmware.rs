//! What a configuration says of a PC's firmware, and through it to the guest: ACPI and SMBIOS tables, files of fw_cfg.

use std::path::PathBuf;

/// Settings of a PC's firmware and of the tables that it passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Firmware runs before a kernel; `None`: before one that needs it.
    pub before_kernel: Option<bool>,
    /// Files of the firmware configuration device.
    pub files: Vec<FwCfgFile>,
    /// Option ROMs that firmware runs.
    pub option_roms: Vec<PathBuf>,
    /// There are ACPI tables.
    pub acpi: bool,
    /// Names in the ACPI tables' headers: the maker's and the table's; empty for mimus's own.
    pub oem: (String, String),
    /// More ACPI tables.
    pub acpi_tables: Vec<AcpiTable>,
    /// Fields of SMBIOS structures: type, name and value.
    pub smbios_fields: Vec<(u8, &'static str, String)>,
    /// OEM strings of SMBIOS.
    pub smbios_strings: Vec<String>,
    /// Files with SMBIOS structures in their binary form.
    pub smbios_files: Vec<PathBuf>,
    /// SMBIOS has a 64-bit entry point.
    pub smbios_wide: bool,
    /// Names are QEMU's: of the machine, its disks and its hypervisor.
    pub qemu_identity: bool,
}

impl Default for Firmware {
    fn default() -> Firmware {
        Firmware {
            before_kernel: None,
            files: Vec::new(),
            option_roms: Vec::new(),
            acpi: true,
            oem: Default::default(),
            acpi_tables: Vec::new(),
            smbios_fields: Vec::new(),
            smbios_strings: Vec::new(),
            smbios_files: Vec::new(),
            smbios_wide: false,
            qemu_identity: false,
        }
    }
}

/// A file of the firmware configuration device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FwCfgFile {
    /// Its name there.
    pub name: String,
    /// What is in it.
    pub source: FwCfgSource,
}

/// What is in a file of the firmware configuration device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FwCfgSource {
    /// This file of the host's.
    File(PathBuf),
    /// This text.
    Text(String),
}

/// An ACPI table of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiTable {
    /// Files whose contents follow each other in it.
    pub files: Vec<PathBuf>,
    /// The files begin with the table's header.
    pub has_header: bool,
    /// What is put into the header: where, and what.
    pub fields: Vec<(usize, Vec<u8>)>,
}
