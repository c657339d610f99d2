//! The PVH boot protocol (Xen, "x86/HVM direct boot ABI"): an ELF kernel with a
//! 32-bit entry point in a note, and `hvm_start_info` in EBX.

use super::image::le_u64;
use super::{BootError, BootState, Loader, SUPPORTED, elf};

const NOTE_OWNER: &[u8] = b"Xen\0";
/// XEN_ELFNOTE_PHYS32_ENTRY.
const NOTE_PHYS32_ENTRY: u32 = 18;
/// "xEn3" with bit 7 of the first byte set.
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// The version with a memory map.
const START_INFO_VERSION: u32 = 1;

/// Bytes of an entry of the memory map.
const ENTRY_SIZE: usize = 24;

pub(super) fn load(mut loader: Loader<'_>) -> Result<BootState, BootError> {
    let kernel = &loader.kernel;
    let elf = elf::parse(kernel, &loader.head, elf::X86)?;
    let Some(mut note) = elf.note(kernel, NOTE_OWNER, NOTE_PHYS32_ENTRY)? else {
        return Err(kernel.error(format!(
            "this ELF file has neither a PVH note nor a Multiboot header; for Linux, use the bzImage (vmlinuz) or build with CONFIG_PVH ({SUPPORTED})"
        )));
    };
    // 4 bytes in a 32-bit file, 8 in a 64-bit one.
    if !matches!(note.len(), 4 | 8) {
        return Err(kernel.error(format!("the PVH note has {} bytes instead of an address", note.len())));
    }
    note.resize(8, 0);
    let entry = le_u64(&note, 0)
        .and_then(|entry| u32::try_from(entry).ok())
        .ok_or_else(|| kernel.error("the PVH entry point is above 4 GiB"))?;
    let end = elf.load(kernel, loader.mem, &mut loader.space)?;
    let initrd = loader.put_initrd(|space, size| space.claim_highest(size, end, u64::MAX, "the initrd"))?;
    let cmdline = loader.put_cmdline(loader.config.cmdline.as_bytes(), usize::MAX)?;

    let modules = match initrd {
        Some((address, size)) => {
            let module = [address, size, 0, 0];
            let bytes: Vec<u8> = module.into_iter().flat_map(u64::to_le_bytes).collect();
            loader.put_low(&bytes, "PVH module list")?
        }
        None => 0,
    };
    let mut entries = Vec::new();
    for entry in loader.e820() {
        entries.extend_from_slice(&entry.addr.to_le_bytes());
        entries.extend_from_slice(&entry.size.to_le_bytes());
        entries.extend_from_slice(&entry.kind.number().to_le_bytes());
        entries.extend_from_slice(&0u32.to_le_bytes());
    }
    let count = (entries.len() / ENTRY_SIZE) as u32;
    let entries = loader.put_map(&entries, "PVH memory map")?;

    let mut info = Vec::new();
    for word in [START_INFO_MAGIC, START_INFO_VERSION, 0, u32::from(initrd.is_some())] {
        info.extend_from_slice(&word.to_le_bytes());
    }
    for address in [modules, cmdline, loader.config.rsdp, entries] {
        info.extend_from_slice(&address.to_le_bytes());
    }
    for word in [count, 0] {
        info.extend_from_slice(&word.to_le_bytes());
    }
    let info = loader.put_low(&info, "PVH start information")?;
    loader.finish32(entry, 0, info)
}
