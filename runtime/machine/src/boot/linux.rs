//! The Linux/x86 boot protocol (Documentation/arch/x86/boot.rst): a bzImage
//! entered at its 64-bit or 32-bit entry point, with the real-mode part unused.

use linux_loader::loader::bootparam::{
    E820_MAX_ENTRIES_ZEROPAGE, boot_e820_entry, boot_params, screen_info, setup_header,
};
use vm_memory::ByteValued;

use super::header::{self, HAS_INIT_SIZE, KEEP_SEGMENTS, LOADED_HIGH, LOADER_UNDEFINED, SETUP_SECTORS, VIDEO_NORMAL};
use super::layout::EXTENDED_RAM;
use super::{BootError, BootMode, BootScreen, BootState, Loader};

/// The first end of a header that has all fields of version 2.06.
const HEADER_END_2_06: usize = 0x23c;

const VERSION_2_06: u16 = 0x206;
const VERSION_2_12: u16 = 0x20c;

const XLF_KERNEL_64: u16 = 1 << 0;
/// Kinds of screens: a VGA in a text mode; a linear mode that VBE has set.
const VIDEO_VGA: u8 = 0x01;
const VIDEO_LINEAR: u8 = 0x23;
/// The 64-bit entry point's offset from the load address.
const ENTRY_64: u64 = 0x200;

/// Page table entries: present and writable; a 2 MiB page as well (SDM vol. 3A, 4.5).
const TABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 0b1000_0011;
const PAGE: u64 = 0x1000;
/// The unit of the protected-mode part's size in bytes (Linux/x86 boot protocol, "syssize").
const PARAGRAPH: u64 = 16;
/// GiB mapped one to one for the 64-bit entry.
const MAPPED_GIB: u64 = 4;

pub(super) fn load(mut loader: Loader<'_>) -> Result<BootState, BootError> {
    let mut header = setup_header(&loader)?;
    let kernel = &loader.kernel;
    let (version, flags) = (header.version, header.loadflags);
    if version < VERSION_2_06 {
        let (major, minor) = (version >> 8, version & 0xff);
        return Err(kernel.error(format!("boot protocol {major}.{minor:02} is too old: 2.06 is the oldest supported")));
    }
    if flags & LOADED_HIGH == 0 {
        return Err(kernel.error("a zImage (a kernel loaded below 1 MiB) is not supported, only a bzImage"));
    }
    let setup = header::setup_size(header.setup_sects);
    let payload = u64::from(header.syssize) * PARAGRAPH;
    if payload <= ENTRY_64 {
        return Err(kernel.error(format!("its protected-mode part has only {payload} bytes")));
    }
    // The header counts paragraphs, of which the file may end within the last.
    if kernel.len + (PARAGRAPH - 1) < setup + payload {
        let (have, want) = (kernel.len, setup + payload);
        return Err(kernel.error(format!("the bzImage is truncated: {have} bytes of {want}")));
    }

    let start = u64::from(header.code32_start);
    if start < EXTENDED_RAM {
        return Err(kernel.error(format!("the load address {start:#x} is below 1 MiB")));
    }
    let end = (start + (kernel.len - setup)).max(start + working_memory(&loader, &header, start)?);
    loader.space.claim(start, end - start, "the kernel").map_err(|refusal| {
        let (need, have) = (end.div_ceil(1 << 20), loader.config.ram_size >> 10);
        loader.kernel.error(format!(
            "the kernel's memory from {start:#x} to {end:#x} {refusal}: it needs {need} MiB of RAM at least, and the guest has {have} KiB"
        ))
    })?;
    loader.mem.copy(&loader.kernel, setup, loader.kernel.len - setup, start)?;

    let cmdline_limit = usize::try_from(header.cmdline_size).unwrap_or(usize::MAX);
    let cmdline = loader.put_cmdline(loader.config.cmdline.as_bytes(), cmdline_limit)?;
    let initrd_limit = u64::from(header.initrd_addr_max) + 1;
    let initrd = loader.put_initrd(|space, size| space.claim_highest(size, end, initrd_limit, "the initrd"))?;

    header.vid_mode = VIDEO_NORMAL;
    header.type_of_loader = LOADER_UNDEFINED;
    header.loadflags = flags & !KEEP_SEGMENTS;
    header.ext_loader_ver = 0;
    header.ext_loader_type = 0;
    header.setup_data = 0;
    // All three are below 3 GiB, so that nothing is lost.
    header.cmd_line_ptr = cmdline as u32;
    let (initrd, initrd_size) = initrd.unwrap_or_default();
    header.ramdisk_image = initrd as u32;
    header.ramdisk_size = initrd_size as u32;

    let mut params = boot_params {
        screen_info: screen(loader.config.screen),
        hdr: header,
        acpi_rsdp_addr: loader.config.rsdp,
        ..Default::default()
    };
    let map = loader.e820();
    let count = map.len().min(E820_MAX_ENTRIES_ZEROPAGE);
    if count < map.len() {
        let reason = format!("{} ranges of the memory map are more than the {count} of the zero page", map.len());
        return Err(loader.kernel.error(reason));
    }
    params.e820_entries = count as u8;
    for (slot, entry) in map.iter().enumerate() {
        params.e820_table[slot] = boot_e820_entry { addr: entry.addr, size: entry.size, r#type: entry.kind.number() };
    }
    let zero_page = loader.put_low(params.as_slice(), "zero page")?;

    let mode = if version >= VERSION_2_12 && { header.xloadflags } & XLF_KERNEL_64 != 0 {
        BootMode::Long { entry: start + ENTRY_64, boot_params: zero_page, cr3: put_page_tables(&mut loader)? }
    } else {
        BootMode::Protected32 { entry: start as u32, eax: 0, ebx: 0, esi: zero_page as u32 }
    };
    loader.finish(mode)
}

/// What the zero page says of the screen (include/uapi/linux/screen_info.h).
fn screen(screen: BootScreen) -> screen_info {
    match screen {
        BootScreen::None => screen_info::default(),
        BootScreen::Text => screen_info {
            orig_video_mode: 3,
            orig_video_cols: 80,
            orig_video_lines: 25,
            orig_video_isVGA: VIDEO_VGA,
            orig_video_points: 16,
            ..Default::default()
        },
        BootScreen::Linear { address, size, width, height } => screen_info {
            orig_video_isVGA: VIDEO_LINEAR,
            lfb_width: width,
            lfb_height: height,
            lfb_depth: 32,
            // Below 4 GiB, as everything on the PCI bus.
            lfb_base: address as u32,
            lfb_size: (size >> 16) as u32,
            lfb_linelength: width.saturating_mul(4),
            red_size: 8,
            red_pos: 16,
            green_size: 8,
            green_pos: 8,
            blue_size: 8,
            blue_pos: 0,
            rsvd_size: 8,
            rsvd_pos: 24,
            pages: 1,
            ..Default::default()
        },
    }
}

/// The header's fields up to the end that it states itself, the others 0.
fn setup_header(loader: &Loader<'_>) -> Result<setup_header, BootError> {
    let truncated = || loader.kernel.error("the setup header of the bzImage is truncated");
    let length = usize::from(*loader.head.get(header::LENGTH).ok_or_else(truncated)?);
    let end = header::MAGIC + length;
    let mut header = setup_header::default();
    let fields = header.as_mut_slice();
    let present = (end - SETUP_SECTORS).min(fields.len());
    let source = loader.head.get(SETUP_SECTORS..SETUP_SECTORS + present).ok_or_else(truncated)?;
    fields[..present].copy_from_slice(source);
    if header.version >= VERSION_2_06 && end < HEADER_END_2_06 {
        return Err(loader.kernel.error(format!("the setup header says that it ends at {end:#x}, before its fields")));
    }
    Ok(header)
}

/// Bytes from the load address `start` that the kernel writes before it has
/// read the memory map: `init_size` from where it moves itself to.
fn working_memory(loader: &Loader<'_>, header: &setup_header, start: u64) -> Result<u64, BootError> {
    if header.version < HAS_INIT_SIZE {
        return Ok(0);
    }
    let preferred = header.pref_address;
    let runtime = if header.relocatable_kernel == 0 {
        preferred
    } else {
        let alignment = u64::from(header.kernel_alignment);
        if !alignment.is_power_of_two() {
            return Err(loader.kernel.error(format!("the kernel alignment {alignment:#x} is not a power of two")));
        }
        start.next_multiple_of(alignment).max(preferred)
    };
    Ok(runtime.saturating_add(u64::from(header.init_size)).saturating_sub(start).min(1 << 62))
}

/// Writes page tables that map the first 4 GiB one to one with 2 MiB pages, and
/// returns the top one's address: PML4, page directory pointers, directories.
fn put_page_tables(loader: &mut Loader<'_>) -> Result<u64, BootError> {
    const ENTRIES: u64 = 512;
    let top = loader.take_low((2 + MAPPED_GIB) * PAGE, "page tables")?;
    let (pointers, directories) = (top + PAGE, top + 2 * PAGE);
    let mut tables = vec![0u64; ((2 + MAPPED_GIB) * ENTRIES) as usize];
    let (upper, pages) = tables.split_at_mut(2 * ENTRIES as usize);
    upper[0] = pointers | TABLE;
    for (entry, directory) in upper[ENTRIES as usize..].iter_mut().zip(0..MAPPED_GIB) {
        *entry = (directories + directory * PAGE) | TABLE;
    }
    for (entry, page) in pages.iter_mut().zip(0u64..) {
        *entry = page << 21 | LARGE_PAGE;
    }
    let bytes: Vec<u8> = tables.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    loader.mem.write(&bytes, top)?;
    Ok(top)
}
