//! Addresses that guest and host have in common.

/// The instruction.
pub const CODE: u64 = 0x2000_0000;
/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// A read-only page and two writable ones, with inaccessible ones on either side.
pub const DATA: u64 = 0x2001_0000;
/// Bytes of data.
pub const DATA_LEN: usize = 3 * PAGE as usize;
/// First writable byte.
pub const WRITABLE: u64 = DATA + PAGE;
/// First byte behind the data.
pub const DATA_END: u64 = DATA + DATA_LEN as u64;
/// Base of GS.
pub const GS_BASE: u64 = 0x1234_5000;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const _: () = {
    use mimus_backend::native;
    assert!(CODE == native::CODE && DATA == native::DATA && DATA_END == native::DATA_END);
    assert!(WRITABLE == native::WRITABLE && GS_BASE == native::GS_BASE);
};
