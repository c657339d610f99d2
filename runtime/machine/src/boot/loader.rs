//! QEMU's generic loader (`-device loader`): files and words that are put into RAM beside what is booted, and where the
//! processor starts.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BootError;
use super::elf::{self, Machines, X86};
use super::image::Image;
use super::layout::Space;
use crate::config::{LoadedPiece, PieceContent};

/// "'\x05\x19V", the magic number of U-Boot's old image format.
const UIMAGE: &[u8] = &[0x27, 0x05, 0x19, 0x56];

/// Loads `pieces`, in their order, into a PC with `ram_size` bytes of RAM, laid out as [`super::ram_ranges`] says; where the
/// processor starts, if one of them says it. RAM above 4 GiB cannot be reached.
///
/// # Errors
///
/// Files that cannot be read or loaded and words that are not for RAM, each named.
pub fn load_pieces(mem: &GuestMemoryMmap<()>, ram_size: u64, pieces: &[LoadedPiece]) -> Result<Option<u64>, BootError> {
    load(mem, &mut Space::new(ram_size), pieces, X86)
}

/// Loads `pieces` for a processor of `machines`, files where nothing else is.
pub(super) fn load(
    mem: &GuestMemoryMmap<()>,
    space: &mut Space,
    pieces: &[LoadedPiece],
    machines: Machines,
) -> Result<Option<u64>, BootError> {
    let mut start = None;
    for piece in pieces {
        let entry = match &piece.content {
            PieceContent::Nothing => piece.addr,
            PieceContent::Words(bytes) => {
                let (size, (low, high)) = (bytes.len() as u64, space.ram());
                let inside = piece.addr >= low && piece.addr.checked_add(size).is_some_and(|end| end <= high);
                if !inside {
                    return Err(BootError::NotRam { address: piece.addr, size });
                }
                mem.write_slice(bytes, GuestAddress(piece.addr))?;
                piece.addr
            }
            PieceContent::File { path, raw } => {
                let image = Image::open("loader's file", path)?;
                file(mem, space, &image, piece.addr, *raw, machines)?
            }
        };
        if piece.starts {
            start = Some(entry);
        }
    }
    Ok(start)
}

/// Loads a file, at `addr` if it does not say where it belongs; where it is entered.
fn file(
    mem: &GuestMemoryMmap<()>,
    space: &mut Space,
    image: &Image,
    addr: u64,
    raw: bool,
    machines: Machines,
) -> Result<u64, BootError> {
    let head = image.bytes(0, 64)?;
    if !raw && elf::is_elf(&head) {
        let elf = elf::parse(image, &head, machines)?;
        elf.load_inside(image, mem, space)?;
        return Ok(elf.physical_entry());
    }
    if !raw && head.starts_with(UIMAGE) {
        return Err(image.error("U-Boot's image format is not supported; force-raw=on loads it as it is"));
    }
    if image.len == 0 {
        return Err(image.error("the file is empty"));
    }
    space
        .claim(addr, image.len, "what was loaded before")
        .map_err(|refusal| image.error(format!("at {addr:#x} ({:#x} bytes) it {refusal}", image.len)))?;
    image.copy(mem, 0, image.len, addr)?;
    Ok(addr)
}
