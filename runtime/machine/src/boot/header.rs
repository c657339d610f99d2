//! The real-mode kernel header (Documentation/arch/x86/boot.rst): offsets in a kernel's file, flags and versions, for both
//! ways to start Linux and for what is to know before.

use super::image::{le_u16, le_u32};

/// Sectors of 512 bytes that the set-up code has behind the first one; the header begins here.
pub(super) const SETUP_SECTORS: usize = 0x1f1;
pub(super) const VIDEO_MODE: usize = 0x1fa;
/// The byte that says how far from [`MAGIC`] the header ends.
pub(super) const LENGTH: usize = 0x201;
/// The word "HdrS".
pub(super) const MAGIC: usize = 0x202;
pub(super) const VERSION: usize = 0x206;
pub(super) const LOADER_TYPE: usize = 0x210;
pub(super) const LOAD_FLAGS: usize = 0x211;
pub(super) const RAMDISK: usize = 0x218;
pub(super) const HEAP_END: usize = 0x224;
pub(super) const COMMAND_LINE: usize = 0x228;
pub(super) const RAMDISK_MOST: usize = 0x22c;
pub(super) const COMMAND_LINE_SIZE: usize = 0x238;
/// Where kernels before protocol 2.02 look for their command line: a magic number and its offset from the set-up code.
pub(super) const OLD_COMMAND_LINE: usize = 0x20;
pub(super) const OLD_COMMAND_LINE_MAGIC: u16 = 0xa33f;

/// In the load flags: the protected-mode part belongs at 1 MiB; the segment registers are to be kept; there is a heap.
pub(super) const LOADED_HIGH: u8 = 1 << 0;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(super) const KEEP_SEGMENTS: u8 = 1 << 6;
pub(super) const CAN_USE_HEAP: u8 = 1 << 7;

/// A boot loader without a number of its own.
pub(super) const LOADER_UNDEFINED: u8 = 0xff;
/// "normal" video mode.
pub(super) const VIDEO_NORMAL: u16 = 0xffff;
/// The first version that says how much memory the kernel needs before it has read the memory map.
pub(super) const HAS_INIT_SIZE: u16 = 0x20a;

/// Whether the header's magic number is in a file that begins with `head`.
pub(super) fn is_there(head: &[u8]) -> bool {
    le_u32(head, MAGIC) == Some(u32::from_le_bytes(*b"HdrS"))
}

/// The version of the protocol, 0 where there is none.
pub(super) fn version(head: &[u8]) -> u16 {
    le_u16(head, VERSION).unwrap_or(0)
}

/// Bytes of the set-up code, the first sector included.
pub(super) fn setup_size(sectors: u8) -> u64 {
    let sectors = if sectors == 0 { 4 } else { u64::from(sectors) };
    (sectors + 1) * 512
}
