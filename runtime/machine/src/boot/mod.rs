//! Loads a guest's kernel, initrd and command line into RAM and says with which registers the CPU starts.
//!
//! On a PC three protocols, tried in this order: a Linux bzImage (`linux`), a
//! Multiboot 1 kernel (`multiboot`) and an ELF file with a PVH entry point
//! (`pvh`); on a RISC-V board firmware and a kernel (`riscv`). The files come from anywhere: whatever is in them, loading ends in
//! a state or in an error that names the file and the reason.

mod bios_data;
mod chosen;
mod elf;
mod fdt;
mod header;
mod image;
mod layout;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod linux;
mod loader;
mod memory;
mod multiboot;
mod pvh;
mod riscv;
mod rom;
mod setup;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use iced_x86::IcedError;
use vm_memory::{GuestMemoryError, GuestMemoryMmap};

pub use bios_data::{HANDLERS, bios_data};
pub use fdt::{TreeConfig, device_tree};
use image::Image;
use layout::Space;
pub use layout::{CONVENTIONAL_END, E820Entry, E820Kind, EXTENDED_RAM, HIGH_RAM, e820, ram_ranges};
pub use loader::load_pieces;
use memory::{Memory, Pieces};
pub use riscv::{Bios, DEFAULT_BIOS, ROM, RiscvBoot, RiscvStart, default_bios, load_riscv, riscv_ram_ranges};
pub use rom::ROM_FILE;
use rom::{Job, MapKind, Start};
pub use state::{BootMode, BootState, SegmentInit, Segments, TableInit};

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct BootConfig<'a> {
    /// The kernel's file.
    pub kernel: &'a Path,
    /// The initial RAM disk's file; for a Multiboot kernel modules with their arguments, separated by commas.
    pub initrd: Option<&'a Path>,
    /// The kernel's command line, without a NUL.
    pub cmdline: &'a str,
    /// RAM in bytes, laid out as [`ram_ranges`] says.
    pub ram_size: u64,
    /// ACPI tables to copy: guest-physical address and contents.
    pub acpi: &'a [(u64, Vec<u8>)],
    /// Guest-physical address of the RSDP, 0 without ACPI.
    pub rsdp: u64,
    /// What the screen shows when the kernel starts.
    pub screen: BootScreen,
}

/// A screen as it is left to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootScreen {
    /// There is none.
    None,
    /// VGA text, 80 by 25, the cursor in the upper left corner.
    Text,
    /// 32 bits a pixel, line after line.
    Linear {
        /// Guest-physical address of the first pixel.
        address: u64,
        /// Size of the display memory in bytes.
        size: u64,
        /// Pixels in a line.
        width: u16,
        /// Lines.
        height: u16,
    },
}

/// Why a guest cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be opened.
    #[error("could not open {what} file '{}'", path.display())]
    Open {
        /// "kernel" or "initrd".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read to its end.
    #[error("cannot read the {what} {}", path.display())]
    Read {
        /// "kernel" or "initrd".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file's contents are malformed, not supported, or too large.
    #[error("{what} {}: {reason}", path.display())]
    Image {
        /// "kernel" or "initrd".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The command line cannot be given to this kernel.
    #[error("command line for the kernel {}: {reason}", path.display())]
    Cmdline {
        /// The kernel's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The ACPI tables are not in RAM, or overlap.
    #[error("ACPI table at {address:#x} ({size:#x} bytes) {reason}")]
    Acpi {
        /// Guest-physical address.
        address: u64,
        /// Size in bytes.
        size: u64,
        /// Why.
        reason: String,
    },
    /// No firmware was named, and none is where it usually is.
    #[error("no firmware found (looked for {}); install the package opensbi, or use -bios FILE or -bios none", .0.join(", "))]
    NoFirmware(&'static [&'static str]),
    /// The device tree cannot be made.
    #[error("cannot make the device tree: {0}")]
    DeviceTree(vm_fdt::Error),
    /// The option ROM that loads the kernel cannot be made.
    #[error("cannot make the option ROM that loads the kernel")]
    Rom(#[from] IcedError),
    /// The device tree cannot be written for the user.
    #[error("-machine dumpdtb: cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// RAM is too small.
    #[error("no room for the {0} in RAM; give the guest more")]
    NoRoom(&'static str),
    /// Words for memory that is no RAM.
    #[error("-device loader: {size} bytes at {address:#x} are not in RAM")]
    NotRam {
        /// First guest-physical address.
        address: u64,
        /// Size in bytes.
        size: u64,
    },
    /// RAM cannot be accessed: it is not laid out as [`ram_ranges`] says.
    #[error("cannot access guest RAM")]
    Memory(#[from] GuestMemoryError),
}

/// Bytes of a kernel file that are read to recognise it: Multiboot's header is
/// in the first 8 KiB (Multiboot Specification 0.6.96, 3.1), a bzImage's
/// within the first two sectors.
const HEAD: u64 = 8192;
/// Where the small structures go that the protocols hand over: above the first
/// page, below the last pages of conventional memory, bottom up, since Linux's
/// decompressor uses the top.
const TABLES_FLOOR: u64 = 0x1000;
const TABLES_LIMIT: u64 = 0x9_f000;
/// The longest command line of any protocol, with its NUL.
const CMDLINE_LIMIT: usize = 1 << 16;

/// Loads what `config` names into `mem`, which has the regions of
/// [`ram_ranges`], and returns the CPU's first state.
pub fn load(mem: &GuestMemoryMmap<()>, config: &BootConfig) -> Result<BootState, BootError> {
    let mut loader = Loader::new(mem, config)?;
    for (address, blob) in config.acpi {
        let (what, size) = ("the ACPI tables", blob.len() as u64);
        loader.space.claim(*address, size, what).map_err(|refusal| BootError::Acpi {
            address: *address,
            size,
            reason: refusal.to_string(),
        })?;
        mem.write(blob, *address)?;
    }
    loader.space.reserve(CONVENTIONAL_END, EXTENDED_RAM, "the memory reserved for devices and firmware");
    match loader.format()? {
        Format::Linux => loader.load_bzimage(),
        Format::Multiboot(header) => multiboot::load(loader, header),
        Format::Elf => pvh::load(loader),
    }
}

/// What firmware needs to start a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Items of the firmware configuration device by number.
    pub items: Vec<(u16, Vec<u8>)>,
    /// The option ROM that loads the kernel from them, to be the file [`ROM_FILE`].
    pub rom: Vec<u8>,
}

/// The number of the first item that an option ROM copies, where the kernel has none of QEMU's: they have no names.
const FIRST_ITEM: u16 = 0x8100;

/// Reads what `config` names, for a PC whose firmware runs first and then an option ROM that loads it.
pub fn stage(config: &BootConfig) -> Result<Staged, BootError> {
    let pieces = Pieces::default();
    let mut loader = Loader::new(&pieces, config)?;
    let kind = match loader.format()? {
        Format::Linux => return setup::stage(&loader.kernel, &loader.head, config),
        Format::Multiboot(_) => MapKind::Multiboot,
        Format::Elf => MapKind::Pvh,
    };
    loader.space.reserve(rom::WORK.0, rom::WORK.1, "the memory of the code that loads the kernel");
    loader.space.reserve(TABLES_LIMIT, EXTENDED_RAM, "the memory reserved for devices and firmware");
    let map = loader.take_low(rom::MAP_ROOM, "memory map")?;
    loader.map = Some(map);
    let state = match loader.format()? {
        Format::Multiboot(header) => multiboot::load(loader, header)?,
        _ => pvh::load(loader)?,
    };
    let (mut items, mut jobs) = (Vec::new(), Vec::new());
    let pieces = pieces.into_inner();
    if pieces.len() > rom::JOBS_MOST {
        let reason = format!("{} pieces of memory to load are more than {}", pieces.len(), rom::JOBS_MOST);
        return Err(BootError::Image { what: "kernel", path: config.kernel.into(), reason });
    }
    for (key, piece) in (FIRST_ITEM..).zip(pieces) {
        // In RAM below 4 GiB, so that nothing is lost.
        jobs.push(Job { key, len: piece.len as u32, address: piece.address });
        items.push((key, piece.bytes));
    }
    Ok(Staged { items, rom: rom::build(&jobs, &Start::Protected { state: &state, map, kind })? })
}

/// Whether a kernel's file needs no firmware: a bzImage that says how much memory it needs before it has read the memory map
/// (Linux/x86 boot protocol 2.10), and so can be entered behind its set-up code. Everything else was made for a PC whose
/// BIOS has run.
pub fn starts_without_firmware(kernel: &Path) -> Result<bool, BootError> {
    let pieces = Pieces::default();
    let config =
        BootConfig { kernel, initrd: None, cmdline: "", ram_size: 0, acpi: &[], rsdp: 0, screen: BootScreen::None };
    let loader = Loader::new(&pieces, &config)?;
    let high = loader.head.get(header::LOAD_FLAGS).is_some_and(|flags| flags & header::LOADED_HIGH != 0);
    Ok(header::is_there(&loader.head) && header::version(&loader.head) >= header::HAS_INIT_SIZE && high)
}

/// What a kernel's file is.
enum Format {
    /// A Linux bzImage, or what looks like one.
    Linux,
    /// A Multiboot kernel with this header.
    Multiboot(multiboot::Header),
    /// An ELF file, perhaps with a PVH entry point.
    Elf,
}

/// The end of every message about an unknown format.
const SUPPORTED: &str = "supported are Linux bzImage, Multiboot 1, and ELF with a PVH entry point";

/// What the three protocols share while they load.
struct Loader<'a> {
    mem: &'a dyn Memory,
    config: &'a BootConfig<'a>,
    kernel: Image,
    /// The kernel file's first bytes.
    head: Vec<u8>,
    space: Space,
    /// Where there is room for the memory map if firmware tells it.
    map: Option<u64>,
}

impl<'a> Loader<'a> {
    fn new(mem: &'a dyn Memory, config: &'a BootConfig<'a>) -> Result<Self, BootError> {
        let kernel = Image::open("kernel", config.kernel)?;
        let head = kernel.bytes(0, HEAD)?;
        Ok(Loader { mem, config, kernel, head, space: Space::new(config.ram_size), map: None })
    }

    fn format(&self) -> Result<Format, BootError> {
        if header::is_there(&self.head) {
            return Ok(Format::Linux);
        }
        if let Some(header) = multiboot::find(&self.head) {
            return Ok(Format::Multiboot(header));
        }
        if elf::is_elf(&self.head) {
            return Ok(Format::Elf);
        }
        let found = if self.kernel.len == 0 { "the file is empty" } else { "not a kernel that mimus can boot" };
        Err(self.kernel.error(format!("{found} ({SUPPORTED})")))
    }

    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    fn load_bzimage(self) -> Result<BootState, BootError> {
        linux::load(self)
    }

    /// `linux-loader` has its bzImage half for x86 hosts only.
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    fn load_bzimage(self) -> Result<BootState, BootError> {
        Err(self.kernel.error("a bzImage cannot be loaded on a host that is not x86; use an ELF kernel with PVH"))
    }

    /// The memory map, the ACPI tables in usable RAM marked.
    fn e820(&self) -> Vec<E820Entry> {
        let acpi: Vec<_> = self.config.acpi.iter().map(|(address, blob)| (*address, blob.len() as u64)).collect();
        layout::e820_with_acpi(self.config.ram_size, &acpi)
    }

    /// Takes pages in conventional memory.
    fn take_low(&mut self, size: u64, what: &'static str) -> Result<u64, BootError> {
        self.space.claim_lowest(size, TABLES_FLOOR, TABLES_LIMIT, "the boot data").ok_or_else(|| {
            let reason = format!("no room for the {what}: no {size:#x} free bytes of RAM below {TABLES_LIMIT:#x}");
            self.kernel.error(reason)
        })
    }

    /// Copies `bytes` to conventional memory.
    fn put_low(&mut self, bytes: &[u8], what: &'static str) -> Result<u64, BootError> {
        let address = self.take_low(bytes.len() as u64, what)?;
        self.mem.write(bytes, address)?;
        Ok(address)
    }

    /// Where the protocol's memory map is: `bytes` of its entries are copied, or firmware's will be there.
    fn put_map(&mut self, bytes: &[u8], what: &'static str) -> Result<u64, BootError> {
        match self.map {
            Some(map) => Ok(map),
            None => self.put_low(bytes, what),
        }
    }

    /// Copies a command line and its NUL to conventional memory. `limit` is the
    /// longest that the kernel takes, in bytes without the NUL.
    fn put_cmdline(&mut self, cmdline: &[u8], limit: usize) -> Result<u64, BootError> {
        let (len, limit) = (cmdline.len(), limit.min(CMDLINE_LIMIT - 1));
        if len > limit {
            let reason = format!("{len} bytes are too long: this kernel takes at most {limit}");
            return Err(BootError::Cmdline { path: self.kernel.path().into(), reason });
        }
        if cmdline.contains(&0) {
            return Err(BootError::Cmdline { path: self.kernel.path().into(), reason: "it contains a NUL".into() });
        }
        let mut bytes = cmdline.to_vec();
        bytes.push(0);
        self.put_low(&bytes, "kernel command line")
    }

    /// Copies the initrd to where `place` finds room for that many bytes, and
    /// returns its address and size.
    fn put_initrd(
        &mut self,
        place: impl FnOnce(&mut Space, u64) -> Option<u64>,
    ) -> Result<Option<(u64, u64)>, BootError> {
        let Some(path) = self.config.initrd else { return Ok(None) };
        let initrd = Image::open("initrd", path)?;
        self.put_file(&initrd, place).map(Some)
    }

    /// The same with any file.
    fn put_file(
        &mut self,
        file: &Image,
        place: impl FnOnce(&mut Space, u64) -> Option<u64>,
    ) -> Result<(u64, u64), BootError> {
        let size = file.len;
        if size == 0 {
            return Err(file.error("the file is empty"));
        }
        let address = place(&mut self.space, size).ok_or_else(|| {
            file.error(format!(
                "its {} KiB do not fit beside the kernel into {} KiB of RAM; give the guest more",
                size.div_ceil(1024),
                self.config.ram_size / 1024
            ))
        })?;
        self.mem.copy(file, 0, size, address)?;
        Ok((address, size))
    }

    /// Writes the GDT and returns the state of `mode`.
    fn finish(mut self, mode: BootMode) -> Result<BootState, BootError> {
        let gdt = self.take_low(state::GDT_SIZE, "GDT")?;
        let state = BootState::new(mode, gdt);
        self.mem.write(&state.gdt_bytes(), gdt)?;
        Ok(state)
    }

    /// Like [`Self::finish`] for a 32-bit entry with `ebx` at a structure in
    /// conventional memory.
    fn finish32(self, entry: u32, eax: u32, ebx: u64) -> Result<BootState, BootError> {
        // Below TABLES_LIMIT, so that nothing is lost.
        self.finish(BootMode::Protected32 { entry, eax, ebx: ebx as u32, esi: 0 })
    }
}
