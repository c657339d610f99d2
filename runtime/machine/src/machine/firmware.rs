//! The PC's firmware: which file it is, where it lies in guest-physical memory, and what it is told.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mimus_hw::COM_PORTS;
use mimus_hw::acpi_tables::{self, AcpiConfig};
use mimus_hw::fw_cfg::FwCfg;
use mimus_hw::fw_cfg::files::{FirmwareConfig, fw_cfg};
use mimus_hw::registry::ISA_SERIAL;
use mimus_hw::smbios::{self, SmbiosConfig};
use mimus_softmmu::Dma;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::boot::{self, BootConfig, BootScreen};
use crate::config::{AcpiTable, Bios, Config, FwCfgSource};
use crate::memory_map::{ROM_END, ROM_MOST};
use mimus_host::error::open_input;

/// Where the ROM's file is if nobody says, and what it is called there.
const DIRECTORIES: &[&str] = &["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu"];
const DEFAULT_ROM: &str = "bios-256k.bin";
/// What has it.
const PACKAGE: &str = "seabios";

/// A ROM as it is in guest-physical memory.
#[derive(Debug)]
pub(super) struct Rom {
    bytes: Vec<u8>,
}

/// Whether a PC's first instructions are its firmware's.
pub(crate) fn is_used(config: &Config) -> bool {
    match (&config.bios, &config.kernel) {
        (Bios::File(_), _) => true,
        (Bios::None, _) => false,
        (Bios::Default, Some(_)) => config.firmware.before_kernel == Some(true),
        (Bios::Default, None) => !config.runs_demo(),
    }
}

/// `config` with what it leaves to the kernel: whether firmware runs before it.
pub(super) fn decide(config: &Config) -> Result<Config> {
    let mut config = config.clone();
    if let (Some(kernel), Bios::Default, None) = (&config.kernel, &config.bios, config.firmware.before_kernel) {
        let wanted = !boot::starts_without_firmware(kernel)?;
        let found = find(&config, DEFAULT_ROM).is_some();
        if wanted && !found {
            tracing::warn!("-kernel: no firmware, which this kernel may rely on; install the package {PACKAGE}");
        }
        config.firmware.before_kernel = Some(wanted && found);
    }
    Ok(config)
}

/// RAM, and the memory of the ROM where there is one, in ascending order.
pub(super) fn memory_ranges(config: &Config) -> Vec<(GuestAddress, usize)> {
    let rom = is_used(config).then(Rom::range);
    let mut ranges: Vec<_> = boot::ram_ranges(config.ram_size).into_iter().chain(rom).collect();
    ranges.sort_unstable();
    ranges
}

/// The first file `name` in the directories of `-L` and the usual ones.
pub(crate) fn find(config: &Config, name: &str) -> Option<PathBuf> {
    let own = config.data_dirs.iter().map(PathBuf::as_path);
    own.chain(DIRECTORIES.iter().map(Path::new)).map(|directory| directory.join(name)).find(|path| path.is_file())
}

impl Rom {
    /// Reads the ROM that `config` asks for.
    pub(super) fn load(config: &Config) -> Result<Rom> {
        let path = match &config.bios {
            // As in QEMU a plain name is looked for where firmware is.
            Bios::File(path) if !path.exists() => path.to_str().and_then(|name| find(config, name)).unwrap_or(path.clone()),
            Bios::File(path) => path.clone(),
            _ => find(config, DEFAULT_ROM).with_context(|| {
                format!(
                    "no firmware found (looked for {DEFAULT_ROM} in {}); install the package {PACKAGE}, or use -bios FILE or -L DIR",
                    DIRECTORIES.join(", ")
                )
            })?,
        };
        let bytes = std::fs::read(&path).with_context(|| format!("-bios: cannot read {}", path.display()))?;
        let size = bytes.len() as u64;
        if size == 0 || size > ROM_MOST || !size.is_multiple_of(64 << 10) {
            bail!("-bios: {} has {size} bytes; a ROM has a multiple of 64 KiB, up to 16 MiB", path.display());
        }
        Ok(Rom { bytes })
    }

    /// The memory that a ROM needs besides RAM.
    fn range() -> (GuestAddress, usize) {
        (GuestAddress(ROM_END - ROM_MOST), ROM_MOST as usize)
    }

    /// Puts the ROM where it is.
    pub(super) fn install(&self, mem: &GuestMemoryMmap<()>) -> Result<()> {
        let at = GuestAddress(ROM_END - self.size());
        mem.write_slice(&self.bytes, at).context("-bios: the ROM's memory")
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What `info roms` tells of it.
    pub(super) fn text(&self) -> String {
        let size = self.size();
        format!("addr={:016x} size={size:#08x} mem=rom name=\"pc.bios\"\n", (1u64 << 32) - size)
    }
}

/// Where things are in QEMU's list of what to boot.
const BOOT_ORDER: &str = "bootorder";
const OPTION_ROMS: &str = "genroms/";

/// What the firmware, and the guest, are told.
pub(super) fn configure(config: &Config, mem: Dma, boot_paths: &[String]) -> Result<FwCfg> {
    let told = FirmwareConfig {
        ram_size: config.ram_size,
        acpi: acpi(config)?,
        smbios: smbios(config)?,
        boot_menu: config.boot.menu.then_some(config.boot.splash_time),
        serial_console: config.nographic,
    };
    let mut device = fw_cfg(mem, &told);
    let mut first = Vec::new();
    if let (true, Some(kernel)) = (is_used(config), &config.kernel) {
        let staged = boot::stage(&kernel_config(config, kernel))?;
        staged.items.into_iter().for_each(|(key, bytes)| device.add(key, bytes));
        device.add_file(boot::ROM_FILE, staged.rom);
        first.push(format!("/rom@{}", boot::ROM_FILE));
    }
    first.extend_from_slice(boot_paths);
    if config.boot.strict {
        first.push("HALT".to_owned());
    }
    if let Some(timeout) = config.boot.reboot_timeout {
        device.add_file("etc/boot-fail-wait", timeout.to_le_bytes().to_vec());
    }
    if let Some(path) = &config.boot.splash {
        let (name, picture) = picture(read("-boot: splash", path)?)
            .with_context(|| format!("-boot: splash: {} is neither a JPEG nor a BMP picture", path.display()))?;
        device.add_file(name, picture);
    }
    if !first.is_empty() {
        device.add_file(BOOT_ORDER, [first.join("\n").as_bytes(), &[0]].concat());
    }
    for path in &config.firmware.option_roms {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        device.add_file(&format!("{OPTION_ROMS}{name}"), read("-option-rom", path)?);
    }
    for file in &config.firmware.files {
        let bytes = match &file.source {
            FwCfgSource::File(path) => read("-fw_cfg", path)?,
            FwCfgSource::Text(text) => text.clone().into_bytes(),
        };
        device.add_file(&file.name, bytes);
    }
    Ok(device)
}

/// A picture with the name that firmware looks for it by, which follows from its first bytes.
fn picture(bytes: Vec<u8>) -> Option<(&'static str, Vec<u8>)> {
    const KINDS: [(&[u8], &str); 2] = [(&[0xff, 0xd8], "bootsplash.jpg"), (b"BM", "bootsplash.bmp")];
    let (_, name) = KINDS.into_iter().find(|(magic, _)| bytes.starts_with(magic))?;
    Some((name, bytes))
}

/// The most bytes that a file named by an option may have.
const FILE_MOST: u64 = 256 << 20;

/// What is in a file that `option` names.
fn read(option: &str, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_input(option, path)?;
    file.take(FILE_MOST + 1).read_to_end(&mut bytes).with_context(|| format!("{option}: {}", path.display()))?;
    if bytes.len() as u64 > FILE_MOST {
        bail!("{option}: {} has more than {} MiB", path.display(), FILE_MOST >> 20);
    }
    Ok(bytes)
}

/// What is to be booted by `kernel`, with nothing of what a kernel is told that starts without firmware.
pub(super) fn kernel_config<'a>(config: &'a Config, kernel: &'a Path) -> BootConfig<'a> {
    BootConfig {
        kernel,
        initrd: config.initrd.as_deref(),
        cmdline: &config.append,
        ram_size: config.ram_size,
        acpi: &[],
        rsdp: 0,
        screen: BootScreen::None,
    }
}

/// Whether there is a high precision event timer.
pub(super) fn has_hpet(config: &Config) -> bool {
    config.hpet.unwrap_or_else(|| is_used(config))
}

/// What the ACPI tables say.
fn acpi(config: &Config) -> Result<AcpiConfig> {
    let ports: Vec<u16> = config.devices_of(ISA_SERIAL).map(|serial| serial.values.port("iobase")).collect();
    let firmware = &config.firmware;
    let oem = if firmware.qemu_identity { QEMU_OEM } else { ("", "") };
    let name = |own: &str, other: &'static str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
    Ok(AcpiConfig {
        cpus: config.smp,
        vga: config.display().is_some(),
        hpet: has_hpet(config),
        serials: COM_PORTS.map(|port| ports.contains(&port.iobase)),
        devices: config.devices.iter().flat_map(|device| (device.model.acpi)(&device.values)).collect(),
        sleeps: config.sleeps(),
        absent: !firmware.acpi,
        oem: (padded(&name(&firmware.oem.0, oem.0)), padded(&name(&firmware.oem.1, oem.1))),
        more: firmware.acpi_tables.iter().map(acpi_table).collect::<Result<_>>()?,
        ..AcpiConfig::default()
    })
}

/// Bytes of an ACPI table's header, and where it holds the table's length and its checksum (ACPI specification 6.5, 5.2.6).
const ACPI_HEADER: usize = 36;
const ACPI_LENGTH: usize = 4;
const ACPI_CHECKSUM: usize = 9;

/// A table of the user's, its length and checksum put right.
fn acpi_table(table: &AcpiTable) -> Result<Vec<u8>> {
    let mut bytes = if table.has_header { Vec::new() } else { vec![0; ACPI_HEADER] };
    for path in &table.files {
        bytes.extend(read("-acpitable", path)?);
    }
    if bytes.len() < ACPI_HEADER || bytes.len() > ACPI_TABLE_MOST {
        bail!("-acpitable: a table of {} bytes: it has {ACPI_HEADER} to {ACPI_TABLE_MOST}", bytes.len());
    }
    let length = (bytes.len() as u32).to_le_bytes().to_vec();
    let fixed = [(ACPI_LENGTH, length), (ACPI_CHECKSUM, vec![0])];
    for (at, field) in table.fields.iter().chain(&fixed) {
        bytes.iter_mut().skip(*at).zip(field).for_each(|(place, byte)| *place = *byte);
    }
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    if let Some(place) = bytes.get_mut(ACPI_CHECKSUM) {
        *place = sum;
    }
    Ok(bytes)
}

/// The largest table of a user's, in bytes.
const ACPI_TABLE_MOST: usize = 1 << 20;
/// Who QEMU's tables say has made them, and what they are called.
const QEMU_OEM: (&str, &str) = ("BOCHS", "BXPC");

/// A name in a table's header, blanks behind it; `None` for an empty one.
fn padded<const N: usize>(name: &str) -> Option<[u8; N]> {
    let mut bytes = [b' '; N];
    bytes.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    (!name.is_empty()).then_some(bytes)
}

/// What the SMBIOS structures say.
fn smbios(config: &Config) -> Result<SmbiosConfig> {
    let firmware = &config.firmware;
    let mut more = Vec::new();
    for path in &firmware.smbios_files {
        more.extend(read("-smbios", path)?);
    }
    let maker = if firmware.qemu_identity { QEMU_MAKER } else { MAKER };
    Ok(SmbiosConfig {
        ram_size: config.ram_size,
        cpus: config.smp,
        maker: (maker.0.to_owned(), maker.1.to_owned()),
        uuid: config.uuid.as_deref().and_then(uuid_bytes).unwrap_or_default(),
        fields: firmware.smbios_fields.clone(),
        strings: firmware.smbios_strings.clone(),
        more,
        wide: firmware.smbios_wide,
    })
}

/// Who made the machine, and its version, as SMBIOS tells it: by default, and where it is to be taken for QEMU's.
const MAKER: (&str, &str) = ("mimus", "pc");
const QEMU_MAKER: (&str, &str) = ("QEMU", "pc-i440fx-7.2");

/// The bytes of a UUID in its usual form.
fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

/// What firmware would leave in memory for a kernel that starts without: tables by guest-physical address, the RSDP's address,
/// and the BIOS' data.
pub(super) struct Left {
    /// Tables that memory maps tell of.
    pub(super) tables: Vec<(u64, Vec<u8>)>,
    /// Where the RSDP is, 0 for none.
    pub(super) rsdp: u64,
    /// The rest, which is there before anything is loaded.
    pub(super) data: Vec<(u64, Vec<u8>)>,
}

/// See [`Left`].
pub(super) fn left(config: &Config) -> Result<Left> {
    let acpi = acpi(config)?;
    let mut tables: Vec<(u64, Vec<u8>)> =
        acpi_tables::build(&acpi).into_iter().map(|blob| (blob.address, blob.bytes)).collect();
    let end = |tables: &[(u64, Vec<u8>)]| tables.iter().map(|(at, bytes)| at + bytes.len() as u64).max();
    let at = end(&tables).unwrap_or(acpi_tables::RSDP_ADDRESS).next_multiple_of(16);
    tables.push((at, smbios::placed(&smbios(config)?, at as u32)));
    if end(&tables).is_some_and(|end| end > boot::HANDLERS) {
        bail!("-acpitable, -smbios: the tables do not fit below 1 MiB; use -machine firmware=on");
    }
    let rsdp = if acpi.absent { 0 } else { acpi_tables::RSDP_ADDRESS };
    let serials = COM_PORTS.iter().zip(acpi.serials).filter(|(_, present)| *present);
    let serials: Vec<u16> = serials.map(|(port, _)| port.iobase).collect();
    Ok(Left { tables, rsdp, data: boot::bios_data(config.display().is_some(), &serials) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_and_rom_are_told_in_order_of_their_addresses() {
        for ram_size in [1 << 20, 3 << 30, 0xe000_0000, 4 << 30, 8 << 30] {
            let ranges = memory_ranges(&Config { ram_size, bios: Bios::File("rom".into()), ..Config::default() });
            assert!(ranges.is_sorted_by(|a, b| a.0.0 + a.1 as u64 <= b.0.0), "{ram_size:#x}: {ranges:?}");
            assert!(ranges.contains(&Rom::range()));
            assert_eq!(ranges.iter().map(|range| range.1 as u64).sum::<u64>(), ram_size + ROM_MOST);
        }
    }
}
