//! Reading a file straight into guest memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use mimus_hw::block::DmaTarget;
use vm_memory::bitmap::Bitmap;

/// Parts that the host reads into at once (Linux: IOV_MAX).
const MAX_PARTS: usize = 1024;

/// Fills `target` from byte `offset` of `file` on. False if the host did not give all of it, as beyond the file's end: then some
/// of it may have been written to.
///
/// # Errors
///
/// Whatever the host says.
pub(super) fn read(file: &File, target: &DmaTarget, offset: u64) -> io::Result<bool> {
    let Some(slices) = target.slices() else { return Ok(false) };
    let guards: Vec<_> = slices.iter().map(|slice| slice.ptr_guard_mut()).collect();
    let parts: Vec<_> = guards
        .iter()
        .zip(&slices)
        .map(|(guard, slice)| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: slice.len() })
        .collect();
    let mut at = offset;
    let mut result = Ok(true);
    for parts in parts.chunks(MAX_PARTS) {
        result = read_parts(file, parts, at);
        if !matches!(result, Ok(true)) {
            break;
        }
        at += parts.iter().map(|part| part.iov_len as u64).sum::<u64>();
    }
    // What was not reached may have been written to all the same.
    slices.iter().for_each(|slice| slice.bitmap().mark_dirty(0, slice.len()));
    result
}

/// Whether all of `parts` was read.
fn read_parts(file: &File, parts: &[libc::iovec], offset: u64) -> io::Result<bool> {
    let wanted: usize = parts.iter().map(|part| part.iov_len).sum();
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    loop {
        // SAFETY: each part is a slice of guest RAM, which `DmaTarget::slices` has checked and which its `Dma` keeps mapped while the
        // caller's `target` lives; whoever else accesses guest RAM does so by raw or atomic accesses. There are at most `MAX_PARTS`.
        let count = unsafe { libc::preadv(file.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int, offset) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count == wanted),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
