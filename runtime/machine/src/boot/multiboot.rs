//! Multiboot Specification 0.6.96: a 32-bit kernel that says in a header of
//! its own how to load it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::image::{Image, le_u32};
use super::layout::{CONVENTIONAL_END, E820Kind, EXTENDED_RAM};
use super::{BootError, BootState, Loader, elf};

/// The header's and the loader's magic numbers (3.1.1, 3.2).
const HEADER_MAGIC: u32 = 0x1bad_b002;
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header is within so many bytes, aligned to 4.
const SEARCH: usize = 8192;

/// Header flags: requirements are bits 0 to 15.
const PAGE_ALIGN: u32 = 1 << 0;
const MEMORY_INFO: u32 = 1 << 1;
const VIDEO_MODE: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;
const REQUIREMENTS: u32 = 0xffff;

/// Flags of the information structure (3.3).
const INFO_MEMORY: u32 = 1 << 0;
const INFO_CMDLINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;
/// Its size in words, the framebuffer's fields included.
const INFO_WORDS: usize = 30;
/// Size of a memory map entry after its size field.
const MAP_ENTRY: u32 = 20;
const LOADER_NAME: &[u8] = b"mimus\0";

/// A header with a right checksum.
#[derive(Clone, Copy)]
pub(super) struct Header {
    offset: usize,
    flags: u32,
}

/// Looks for the header in a file's beginning.
pub(super) fn find(head: &[u8]) -> Option<Header> {
    (0..head.len().min(SEARCH)).step_by(4).find_map(|offset| {
        let (magic, flags, checksum) = (le_u32(head, offset)?, le_u32(head, offset + 4)?, le_u32(head, offset + 8)?);
        let right = magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
        right.then_some(Header { offset, flags })
    })
}

pub(super) fn load(mut loader: Loader<'_>, header: Header) -> Result<BootState, BootError> {
    let unknown = header.flags & REQUIREMENTS & !(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE);
    if unknown != 0 {
        return Err(loader
            .kernel
            .error(format!("the Multiboot header requires unknown features (flags {unknown:#x})")));
    }
    if header.flags & VIDEO_MODE != 0 {
        tracing::info!(kernel = %loader.kernel.path().display(), "the kernel's wish for a video mode is ignored");
    }
    let (entry, end) = if header.flags & ADDRESSES != 0 {
        load_by_addresses(&mut loader, header)?
    } else {
        if !elf::is_elf(&loader.head) {
            return Err(loader.kernel.error("the Multiboot kernel is no ELF file and its header has no addresses"));
        }
        let elf = elf::parse(&loader.kernel, &loader.head, elf::X86)?;
        let entry = elf.entry(&loader.kernel)?;
        (entry, elf.load(&loader.kernel, loader.mem, &mut loader.space)?)
    };

    // Modules follow the kernel: small kernels map no more than what is near.
    let modules = put_modules(&mut loader, end.max(EXTENDED_RAM))?;
    let info = put_info(&mut loader, &modules)?;
    loader.finish32(entry, LOADER_MAGIC, info)
}

/// Loads a kernel by the address fields of its header (3.1.3); returns the
/// entry point and the highest address used.
fn load_by_addresses(loader: &mut Loader<'_>, header: Header) -> Result<(u32, u64), BootError> {
    let kernel = &loader.kernel;
    let field = |index: usize| {
        le_u32(&loader.head, header.offset + index)
            .map(u64::from)
            .ok_or_else(|| kernel.error("the Multiboot header is truncated"))
    };
    let (header_addr, load, load_end, bss_end, entry) = (field(12)?, field(16)?, field(20)?, field(24)?, field(28)?);
    let offset = header_addr
        .checked_sub(load)
        .and_then(|before| (header.offset as u64).checked_sub(before))
        .ok_or_else(|| kernel.error("the Multiboot header's load address is outside the file"))?;
    let rest = kernel.len - offset;
    let size = match load_end {
        0 => rest,
        end => end.checked_sub(load).ok_or_else(|| kernel.error("the Multiboot header's load range is negative"))?,
    };
    if size > rest {
        return Err(kernel.error(format!("the file is truncated: {rest} of {size} bytes to load are there")));
    }
    let bss = match bss_end {
        0 => 0,
        end => end
            .checked_sub(load + size)
            .ok_or_else(|| kernel.error("the Multiboot header's BSS ends before it starts"))?,
    };
    let total = size + bss;
    if !(load..load + total).contains(&entry) {
        return Err(kernel.error(format!("the entry point {entry:#x} is outside the loaded range")));
    }
    loader
        .space
        .claim(load, total, "the kernel")
        .map_err(|refusal| kernel.error(format!("the kernel at {load:#x} ({total:#x} bytes) {refusal}")))?;
    loader.mem.copy(kernel, offset, size, load)?;
    loader.mem.zero(load + size, bss)?;
    // It was read as a word.
    Ok((entry as u32, load + total))
}

/// A module in RAM: its first address, the first behind it, and its name with its arguments.
type Module = (u64, u64, Vec<u8>);

/// The modules that the value of `-initrd` lists: files with their arguments behind a blank, separated by single commas. Two
/// commas are one of the name or of the arguments.
fn listed(value: &OsStr) -> Vec<Vec<u8>> {
    let (mut modules, mut bytes) = (vec![Vec::new()], value.as_bytes().iter().copied().peekable());
    while let Some(byte) = bytes.next() {
        match (byte, modules.last_mut()) {
            (b',', _) if bytes.peek() != Some(&b',') => modules.push(Vec::new()),
            (byte, Some(module)) => {
                module.push(byte);
                if byte == b',' {
                    bytes.next();
                }
            }
            (_, None) => {}
        }
    }
    modules
}

/// Copies the modules to pages from `floor` on.
fn put_modules(loader: &mut Loader<'_>, floor: u64) -> Result<Vec<Module>, BootError> {
    let Some(value) = loader.config.initrd else { return Ok(Vec::new()) };
    let put = |module: Vec<u8>| {
        let text = module.trim_ascii_start();
        let file = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let image = Image::open("initrd", Path::new(OsStr::from_bytes(file)))?;
        let place = |space: &mut super::Space, size| space.claim_lowest(size, floor, u64::MAX, "a module");
        let (address, size) = loader.put_file(&image, place)?;
        Ok((address, address + size, text.to_vec()))
    };
    listed(value.as_os_str()).into_iter().map(put).collect()
}

/// Writes the information structure and what it points to; returns its address.
fn put_info(loader: &mut Loader<'_>, modules: &[Module]) -> Result<u64, BootError> {
    // Everything here is below 3 GiB, so that the conversions lose nothing.
    let mut info = [0u32; INFO_WORDS];
    let map = loader.e820();
    info[0] = INFO_MEMORY | INFO_CMDLINE | INFO_MAP | INFO_LOADER_NAME;
    info[1] = (CONVENTIONAL_END.min(loader.space.ram_end()) / 1024) as u32;
    let upper = map.iter().find(|entry| entry.kind == E820Kind::Ram && entry.addr == EXTENDED_RAM);
    info[2] = upper.map_or(0, |entry| (entry.size / 1024) as u32);

    // The first word is the kernel's name, as other loaders have it.
    let mut cmdline = loader.kernel.path().as_os_str().as_encoded_bytes().to_vec();
    if !loader.config.cmdline.is_empty() {
        cmdline.push(b' ');
        cmdline.extend_from_slice(loader.config.cmdline.as_bytes());
    }
    info[4] = loader.put_cmdline(&cmdline, usize::MAX)? as u32;

    let mut list = Vec::new();
    for (start, end, text) in modules {
        let text = loader.put_cmdline(text, usize::MAX)?;
        list.extend([*start as u32, *end as u32, text as u32, 0].into_iter().flat_map(u32::to_le_bytes));
    }
    if !list.is_empty() {
        info[0] |= INFO_MODULES;
        info[5] = modules.len() as u32;
        info[6] = loader.put_low(&list, "Multiboot modules")? as u32;
    }

    let mut entries = Vec::new();
    for entry in &map {
        entries.extend_from_slice(&MAP_ENTRY.to_le_bytes());
        entries.extend_from_slice(&entry.addr.to_le_bytes());
        entries.extend_from_slice(&entry.size.to_le_bytes());
        entries.extend_from_slice(&entry.kind.number().to_le_bytes());
    }
    info[11] = entries.len() as u32;
    info[12] = loader.put_map(&entries, "Multiboot memory map")? as u32;
    info[16] = loader.put_low(LOADER_NAME, "Multiboot loader name")? as u32;

    let bytes: Vec<u8> = info.into_iter().flat_map(u32::to_le_bytes).collect();
    loader.put_low(&bytes, "Multiboot information")
}
