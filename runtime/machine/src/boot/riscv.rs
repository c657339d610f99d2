//! Loads firmware and kernel of the RISC-V boards.
//!
//! The reset ROM tells the firmware by a `fw_dynamic_info` structure where the kernel is (OpenSBI, docs/firmware/fw_dynamic.md
//! and include/sbi/fw_dynamic.h); without firmware it jumps to the kernel in machine mode. Either gets the hart's number in a0
//! and the device tree's address in a1 (Linux, Documentation/arch/riscv/boot.rst).

use std::path::{Path, PathBuf};

use mimus_hw::Htif;
use mimus_hw::virt::RAM_BASE;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BootError;
use super::chosen::with_chosen;
use super::elf::{self, Elf, RISCV};
use super::fdt::{TreeConfig, device_tree};
use super::image::{Image, le_u32, le_u64};
use super::layout::Space;
use super::loader;
use crate::config::LoadedPiece;

/// The reset ROM: first address and size in bytes. It is memory like RAM, which the guest cannot write.
pub const ROM: (u64, u64) = (0x1000, 0xf000);

/// Where OpenSBI is looked for when nothing else is asked for.
pub const DEFAULT_BIOS: &[&str] = &[
    "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin",
    "/usr/share/opensbi/lp64/generic/firmware/fw_dynamic.bin",
    "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin",
];

/// What kernels and firmware are aligned to: a large page.
const ALIGN: u64 = 2 << 20;
/// Room that firmware may add to the device tree, in bytes.
const TREE_SLACK: u64 = 16 << 10;
/// The largest device tree that is read from a file, in bytes, which is the largest that QEMU reads.
const TREE_LIMIT: u64 = 1 << 20;
/// The device tree and the initrd stay below this, for kernels that map no more at first.
const LIMIT: u64 = RAM_BASE + (2 << 30);

/// "OSBI", of `fw_dynamic_info`.
const INFO_MAGIC: u64 = 0x4942_534f;
const INFO_VERSION: u64 = 2;
/// Supervisor mode, for the kernel.
const INFO_MODE_S: u64 = 1;

/// Which firmware runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bios<'a> {
    /// None: the kernel starts in machine mode.
    None,
    /// This file, a flat binary or an ELF file.
    File(&'a Path),
}

/// What to boot.
#[derive(Clone, Debug)]
pub struct RiscvBoot<'a> {
    /// The firmware.
    pub bios: Bios<'a>,
    /// The kernel: an ELF file, a Linux Image or any other flat binary.
    pub kernel: Option<&'a Path>,
    /// What is loaded beside firmware and kernel.
    pub pieces: &'a [LoadedPiece],
    /// The initial RAM disk's file.
    pub initrd: Option<&'a Path>,
    /// The board, but for where the initrd is.
    pub tree: TreeConfig<'a>,
    /// A file with a device tree that takes the place of the board's own.
    pub dtb: Option<&'a Path>,
    /// Where the tree is written for the user.
    pub dump: Option<&'a Path>,
}

/// Where the hart starts, and what of the program concerns the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiscvStart {
    /// The first instruction.
    pub pc: u64,
    /// The program's host-target interface.
    pub htif: Option<Htif>,
}

/// The file that [`Bios::File`] takes when the user names none.
///
/// # Errors
///
/// When there is none.
pub fn default_bios() -> Result<PathBuf, BootError> {
    DEFAULT_BIOS.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or(BootError::NoFirmware(DEFAULT_BIOS))
}

/// The RAM regions, address and size in bytes, of a board with `ram_size` bytes of RAM.
pub fn riscv_ram_ranges(ram_size: u64) -> Vec<(GuestAddress, usize)> {
    [ROM, (RAM_BASE, ram_size)]
        .into_iter()
        .map(|(start, size)| (GuestAddress(start), usize::try_from(size).unwrap_or(usize::MAX)))
        .collect()
}

/// Loads what `boot` names into `mem`, which has the regions of [`riscv_ram_ranges`].
///
/// # Errors
///
/// Files that cannot be read or loaded, each named.
pub fn load_riscv(mem: &GuestMemoryMmap<()>, boot: &RiscvBoot) -> Result<RiscvStart, BootError> {
    let ram_end = RAM_BASE + boot.tree.ram_size;
    let mut loader = Loader { mem, space: Space::within(RAM_BASE, ram_end), htif: None };
    let firmware = match boot.bios {
        Bios::None => None,
        Bios::File(path) => Some(loader.firmware(path)?),
    };
    let floor = firmware.map_or(RAM_BASE, |loaded| loaded.end.next_multiple_of(ALIGN));
    let kernel = boot.kernel.map(|path| loader.kernel(path, floor)).transpose()?;
    let floor = kernel.map_or(floor, |loaded| loaded.end);
    let first = loader::load(mem, &mut loader.space, boot.pieces, RISCV)?;
    let initrd = boot.initrd.map(|path| loader.initrd(path, floor)).transpose()?;
    let config = TreeConfig { initrd, own_htif: loader.htif.is_some(), ..boot.tree.clone() };
    let tree = match boot.dtb {
        Some(path) => user_tree(path, &config)?,
        None => device_tree(&config).map_err(BootError::DeviceTree)?,
    };
    if let Some(path) = boot.dump {
        std::fs::write(path, &tree).map_err(|source| BootError::Write { path: path.into(), source })?;
    }
    let tree = loader.put(&tree, floor, TREE_SLACK, "device tree")?;

    // Without any of them, what a piece has put at the beginning of RAM.
    let start = firmware.or(kernel).map_or(RAM_BASE, |loaded| loaded.entry);
    mem.write_slice(&rom(start, tree, kernel.map_or(0, |loaded| loaded.entry)), GuestAddress(ROM.0))?;
    Ok(RiscvStart { pc: first.unwrap_or(ROM.0), htif: loader.htif })
}

/// The tree in a file, with the kernel's command line and the initrd if the user has named any.
fn user_tree(path: &Path, config: &TreeConfig) -> Result<Vec<u8>, BootError> {
    let image = Image::open("device tree", path)?;
    if image.len > TREE_LIMIT {
        return Err(image.error(format!("{} bytes are more than {TREE_LIMIT}", image.len)));
    }
    let blob = image.bytes(0, image.len)?;
    with_chosen(&blob, config).map_err(|reason| image.error(reason))
}

/// The reset ROM's contents: code, and the words that it loads.
fn rom(start: u64, tree: u64, kernel: u64) -> Vec<u8> {
    // Offsets of the words from the code.
    const WORDS: u32 = 0x18;
    const INFO: u32 = WORDS + 16;
    let code = [
        0x0000_0297,                     // auipc t0, 0
        INFO << 20 | 0x0002_8613,        // addi  a2, t0, INFO
        0xf140_2573,                     // csrr  a0, mhartid
        (WORDS + 8) << 20 | 0x0002_b583, // ld    a1, WORDS + 8(t0)
        WORDS << 20 | 0x0002_b283,       // ld    t0, WORDS(t0)
        0x0002_8067,                     // jr    t0
    ];
    let info = [INFO_MAGIC, INFO_VERSION, kernel, INFO_MODE_S, 0, 0];
    let words = [start, tree].into_iter().chain(info);
    code.into_iter().flat_map(u32::to_le_bytes).chain(words.flat_map(u64::to_le_bytes)).collect()
}

/// Something in RAM.
#[derive(Clone, Copy)]
struct Loaded {
    entry: u64,
    /// The first address behind it.
    end: u64,
}

struct Loader<'a> {
    mem: &'a GuestMemoryMmap<()>,
    space: Space,
    htif: Option<Htif>,
}

impl Loader<'_> {
    fn firmware(&mut self, path: &Path) -> Result<Loaded, BootError> {
        let image = Image::open("firmware", path)?;
        match self.elf(&image)? {
            Some(loaded) => Ok(loaded),
            None => self.flat(&image, RAM_BASE, image.len),
        }
    }

    /// Loads a kernel, at `floor` or above if it does not say where it belongs.
    fn kernel(&mut self, path: &Path, floor: u64) -> Result<Loaded, BootError> {
        let image = Image::open("kernel", path)?;
        if let Some(loaded) = self.elf(&image)? {
            return Ok(loaded);
        }
        let head = image.bytes(0, 64)?;
        if let Some((offset, size)) = linux_image(&head) {
            // Where it wants to be, from the start of RAM, unless the firmware is there (boot-image-header.rst).
            let wanted = RAM_BASE.saturating_add(offset);
            let at = if wanted >= floor { wanted } else { floor.saturating_add(offset % ALIGN) };
            return self.flat(&image, at, size.max(image.len));
        }
        if head.starts_with(&[0x1f, 0x8b]) {
            return Err(image.error("it is compressed with gzip; unpack it first"));
        }
        self.flat(&image, floor, image.len)
    }

    /// Copies a file to `at`, of which it uses `size` bytes.
    fn flat(&mut self, image: &Image, at: u64, size: u64) -> Result<Loaded, BootError> {
        if image.len == 0 {
            return Err(image.error("the file is empty"));
        }
        self.space
            .claim(at, size, "what was loaded before")
            .map_err(|refusal| image.error(format!("at {at:#x} ({size:#x} bytes) it {refusal}")))?;
        image.copy(self.mem, 0, image.len, at)?;
        Ok(Loaded { entry: at, end: at + size })
    }

    /// Loads an ELF file; `None` if it is none.
    fn elf(&mut self, image: &Image) -> Result<Option<Loaded>, BootError> {
        let head = image.bytes(0, 64)?;
        if !elf::is_elf(&head) {
            return Ok(None);
        }
        let elf = elf::parse(image, &head, RISCV)?;
        let end = elf.load_inside(image, self.mem, &mut self.space)?;
        self.find_htif(&elf, image, &head)?;
        Ok(Some(Loaded { entry: elf.physical_entry(), end }))
    }

    fn find_htif(&mut self, elf: &Elf, image: &Image, head: &[u8]) -> Result<(), BootError> {
        let [tohost, fromhost] = elf.symbols(image, head, ["tohost", "fromhost"])?;
        if let Some(tohost) = tohost {
            self.htif = Some(Htif { tohost, fromhost });
        }
        Ok(())
    }

    fn initrd(&mut self, path: &Path, floor: u64) -> Result<(u64, u64), BootError> {
        let image = Image::open("initrd", path)?;
        if image.len == 0 {
            return Err(image.error("the file is empty"));
        }
        let place = self.space.claim_highest(image.len, floor, LIMIT, "the initrd");
        let at = place.ok_or_else(|| {
            image.error(format!(
                "its {} KiB do not fit behind the kernel; give the guest more",
                image.len.div_ceil(1024)
            ))
        })?;
        image.copy(self.mem, 0, image.len, at)?;
        Ok((at, at + image.len))
    }

    /// Copies `bytes` to the end of RAM, with `slack` bytes of room behind them.
    fn put(&mut self, bytes: &[u8], floor: u64, slack: u64, what: &'static str) -> Result<u64, BootError> {
        let size = bytes.len() as u64 + slack;
        let at = self.space.claim_highest(size, floor, LIMIT, what).ok_or(BootError::NoRoom(what))?;
        self.mem.write_slice(bytes, GuestAddress(at))?;
        Ok(at)
    }
}

/// Offset from the start of RAM and size in memory of a Linux Image (Documentation/arch/riscv/boot-image-header.rst).
fn linux_image(head: &[u8]) -> Option<(u64, u64)> {
    const MAGIC2: u32 = u32::from_le_bytes(*b"RSC\x05");
    (le_u32(head, 56)? == MAGIC2).then_some((le_u64(head, 8)?, le_u64(head, 16)?))
}

#[cfg(test)]
mod tests;
