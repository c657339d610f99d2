//! Linux by its real-mode entry (Documentation/arch/x86/boot.rst, "Loading The Rest of The Kernel" to "Running the Kernel"): the
//! set-up code runs and asks the BIOS. So old kernels start, and other programs that look like one.

use super::header::*;
use super::image::le_u32;
use super::layout::{EXTENDED_RAM, low_ram_size};
use super::rom::{self, Job, Start};
use super::{BootConfig, BootError, Image, Staged};

/// The highest address of an initrd before protocol 2.03, and the longest command line before 2.06.
const OLD_RAMDISK_MOST: u32 = 0x37ff_ffff;
const OLD_COMMAND_LINE_MOST: u32 = 255;
/// The longest command line that there is room for, with its NUL.
const COMMAND_LINE_ROOM: u64 = 0x1_0000;
/// The largest set-up code, in bytes.
const SETUP_MOST: u64 = 0x8000;
/// Firmware's own memory at the end of RAM, in which nothing may be loaded.
const FIRMWARE_MEMORY: u64 = 1 << 20;

/// Numbers of the firmware configuration device's items (QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device", and
/// EDK II's `QemuFwCfgItem`): firmware that loads the kernel by itself asks for these.
const KERNEL: Items = Items { address: 0x07, size: 0x08, data: 0x11 };
const INITRD: Items = Items { address: 0x0a, size: 0x0b, data: 0x12 };
const COMMAND_LINE_TEXT: Items = Items { address: 0x13, size: 0x14, data: 0x15 };
const SETUP: Items = Items { address: 0x16, size: 0x17, data: 0x18 };

/// The numbers of one part's items. Some firmware (qboot) loads it to the address that it finds.
struct Items {
    address: u16,
    size: u16,
    data: u16,
}

/// Where the parts go.
struct Places {
    setup: u64,
    command_line: u64,
    kernel: u64,
}

impl Places {
    /// As the protocol's chapter "Memory Layout" has them; `version` is 0 for a kernel before 2.00.
    fn of(version: u16, loaded_high: bool, command_line: u64) -> Places {
        // The old ones end where the BIOS' own data begin.
        let old = 0x9_a000 - command_line.next_multiple_of(16);
        match (loaded_high, version) {
            (false, _) => Places { setup: 0x9_0000, command_line: old, kernel: 0x1_0000 },
            (true, ..0x202) => Places { setup: 0x9_0000, command_line: old, kernel: EXTENDED_RAM },
            (true, _) => Places { setup: 0x1_0000, command_line: 0x2_0000, kernel: EXTENDED_RAM },
        }
    }
}

/// The set-up code with what a boot loader writes into it.
struct Setup<'a> {
    image: &'a Image,
    bytes: Vec<u8>,
}

impl Setup<'_> {
    fn version(&self) -> u16 {
        version(&self.bytes)
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes.iter_mut().skip(at).zip(value).for_each(|(place, byte)| *place = *byte);
    }

    fn flags(&self) -> u8 {
        self.bytes.get(LOAD_FLAGS).copied().unwrap_or(0)
    }

    fn put_command_line(&mut self, places: &Places) {
        let offset = (places.command_line - places.setup) as u32;
        if self.version() >= 0x202 {
            self.put(COMMAND_LINE, &(places.command_line as u32).to_le_bytes());
        } else {
            self.put(OLD_COMMAND_LINE, &OLD_COMMAND_LINE_MAGIC.to_le_bytes());
            self.put(OLD_COMMAND_LINE + 2, &(offset as u16).to_le_bytes());
        }
        self.put(LOADER_TYPE, &[LOADER_UNDEFINED]);
        if self.version() >= 0x201 {
            let flags = self.flags() | CAN_USE_HEAP;
            self.put(LOAD_FLAGS, &[flags]);
            self.put(HEAP_END, &((offset - 0x200) as u16).to_le_bytes());
        }
    }

    /// Where an initrd of `size` bytes goes: as high as may be.
    fn place_initrd(&mut self, size: u64, ram_size: u64, floor: u64) -> Result<u64, BootError> {
        let most = if self.version() >= 0x203 { le_u32(&self.bytes, RAMDISK_MOST) } else { None };
        let end = low_ram_size(ram_size).saturating_sub(FIRMWARE_MEMORY);
        let end = end.min(u64::from(most.unwrap_or(OLD_RAMDISK_MOST)) + 1);
        let address = end.checked_sub(size).map(|address| address & !0xfff).filter(|address| *address >= floor);
        let address = address.ok_or_else(|| {
            let (kib, ram) = (size.div_ceil(1024), ram_size / 1024);
            self.image.error(format!("an initrd of {kib} KiB does not fit beside the kernel into {ram} KiB of RAM"))
        })?;
        // Below 4 GiB, both.
        self.put(RAMDISK, &(address as u32).to_le_bytes());
        self.put(RAMDISK + 4, &(size as u32).to_le_bytes());
        Ok(address)
    }
}

/// What firmware needs to start the kernel of `config`, whose file is `image` and begins with `head`.
pub(super) fn stage(image: &Image, head: &[u8], config: &BootConfig) -> Result<Staged, BootError> {
    let size = setup_size(head.get(SETUP_SECTORS).copied().unwrap_or(0));
    if size > SETUP_MOST {
        return Err(image.error(format!("its set-up code has {size} bytes, and there is room for {SETUP_MOST}")));
    }
    if image.len <= size {
        return Err(image.error(format!("the bzImage is truncated: {} bytes, and its set-up has {size}", image.len)));
    }
    let mut setup = Setup { image, bytes: image.exactly(0, size)? };
    let command_line = command_line(&setup, config)?;
    let loaded_high = setup.flags() & LOADED_HIGH != 0;
    let places = Places::of(setup.version(), loaded_high, command_line.len() as u64);
    let kernel = image.exactly(size, image.len - size)?;
    let end = places.kernel + kernel.len() as u64;
    let limit = if loaded_high { low_ram_size(config.ram_size).saturating_sub(FIRMWARE_MEMORY) } else { places.setup };
    if end > limit {
        let (kib, ram) = (kernel.len() / 1024, config.ram_size / 1024);
        return Err(image.error(format!("its {kib} KiB from {:#x} on do not fit into {ram} KiB of RAM", places.kernel)));
    }
    setup.put_command_line(&places);
    if let Some(mode) = video_mode(config.cmdline) {
        setup.put(VIDEO_MODE, &mode.to_le_bytes());
    }
    let initrd = config.initrd.map(|path| Image::open("initrd", path)).transpose()?;
    let initrd = initrd.map(|image| image.exactly(0, image.len)).transpose()?.unwrap_or_default();
    let initrd_at = match initrd.len() as u64 {
        0 => 0,
        size => setup.place_initrd(size, config.ram_size, end)?,
    };
    let parts = [
        (SETUP, setup.bytes, places.setup),
        (KERNEL, kernel, places.kernel),
        (INITRD, initrd, initrd_at),
        (COMMAND_LINE_TEXT, command_line, places.command_line),
    ];
    let loaded = || parts.iter().filter(|(_, bytes, _)| !bytes.is_empty());
    let jobs: Vec<Job> = loaded()
        .map(|(items, bytes, address)| Job { key: items.data, len: bytes.len() as u32, address: *address })
        .collect();
    let stack = (places.command_line - places.setup - 16) as u16;
    let rom = rom::build(&jobs, &Start::Real { segment: (places.setup >> 4) as u16, stack })?;
    let word = |value: u64| (value as u32).to_le_bytes().to_vec();
    let items = parts.into_iter().flat_map(|(items, bytes, address)| {
        [(items.address, word(address)), (items.size, word(bytes.len() as u64)), (items.data, bytes)]
    });
    Ok(Staged { items: items.collect(), rom })
}

/// The command line with its NUL.
fn command_line(setup: &Setup, config: &BootConfig) -> Result<Vec<u8>, BootError> {
    let has_size = setup.version() >= 0x206 && setup.flags() & LOADED_HIGH != 0;
    let most = if has_size { le_u32(&setup.bytes, COMMAND_LINE_SIZE) } else { None };
    let most = u64::from(most.unwrap_or(OLD_COMMAND_LINE_MOST)).min(COMMAND_LINE_ROOM - 1);
    let (len, path) = (config.cmdline.len() as u64, setup.image.path());
    if len > most {
        let reason = format!("{len} bytes are too long: this kernel takes at most {most}");
        return Err(BootError::Cmdline { path: path.into(), reason });
    }
    if config.cmdline.contains('\0') {
        return Err(BootError::Cmdline { path: path.into(), reason: "it contains a NUL".into() });
    }
    Ok([config.cmdline.as_bytes(), &[0]].concat())
}

/// The video mode that `vga=` of the command line asks the set-up code for ("Special Command Line Options").
fn video_mode(cmdline: &str) -> Option<u16> {
    let value = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("vga=")).next_back()?;
    match value {
        "normal" => Some(VIDEO_NORMAL),
        "ext" => Some(0xfffe),
        "ask" => Some(0xfffd),
        number => match number.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => number.parse().ok(),
        },
    }
}
