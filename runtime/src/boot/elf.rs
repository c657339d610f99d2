//! ELF kernels of both classes (System V ABI, chapters 4 and 5): the program
//! headers and what they load. `linux-loader` reads 64-bit files only, and
//! Multiboot kernels are 32-bit ones.

use vm_memory::GuestMemoryMmap;

use super::BootError;
use super::image::{Image, le_u16, le_u32, le_u64, zero};
use super::layout::Space;

const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// The most program headers and notes that are looked at, in bytes.
const TABLE_LIMIT: u64 = 1 << 16;

/// One program header.
pub(super) struct Segment {
    kind: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_size: u64,
    mem_size: u64,
}

/// The parts of an ELF file that matter for loading it.
pub(super) struct Elf {
    entry: u64,
    segments: Vec<Segment>,
}

/// Whether the file's first bytes are those of an ELF file.
pub(super) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Reads the headers. `head` is the file's beginning.
pub(super) fn parse(image: &Image, head: &[u8]) -> Result<Elf, BootError> {
    let truncated = || image.error("the ELF header is truncated");
    let (class, data) = (*head.get(4).ok_or_else(truncated)?, *head.get(5).ok_or_else(truncated)?);
    let wide = match class {
        1 => false,
        2 => true,
        other => return Err(image.error(format!("ELF class {other} is neither 32-bit nor 64-bit"))),
    };
    if data != 1 {
        return Err(image.error("the ELF file is not little-endian"));
    }
    let address =
        |at32, at64| if wide { le_u64(head, at64) } else { le_u32(head, at32).map(u64::from) }.ok_or_else(truncated);
    let half = |at32, at64| le_u16(head, if wide { at64 } else { at32 }).ok_or_else(truncated);

    let (kind, machine) = (half(16, 16)?, half(18, 18)?);
    if !matches!(kind, 2 | 3) {
        return Err(image.error(format!("ELF type {kind} is not an executable")));
    }
    if !matches!(machine, EM_386 | EM_X86_64) {
        return Err(image.error(format!("ELF machine {machine} is not x86")));
    }
    let (entry, table) = (address(24, 24)?, address(28, 32)?);
    let (entry_size, count) = (u64::from(half(42, 54)?), u64::from(half(44, 56)?));
    if entry_size != if wide { 56 } else { 32 } {
        return Err(image.error(format!("ELF program headers of {entry_size} bytes")));
    }
    if count == 0 {
        return Err(image.error("the ELF file has no program headers: it is not an executable"));
    }
    let size = entry_size * count;
    if size > TABLE_LIMIT {
        return Err(image.error(format!("{count} ELF program headers are too many")));
    }
    if table.checked_add(size).is_none_or(|end| end > image.len) {
        return Err(image.error("the ELF program headers are beyond the file's end"));
    }
    let headers = image.bytes(table, size)?;
    let segments: Option<Vec<Segment>> =
        headers.chunks_exact(entry_size as usize).map(|header| Segment::parse(header, wide)).collect();
    let segments = segments.ok_or_else(|| image.error("the ELF program headers are truncated"))?;
    Ok(Elf { entry, segments })
}

impl Segment {
    fn parse(header: &[u8], wide: bool) -> Option<Self> {
        let word = |at32, at64| if wide { le_u64(header, at64) } else { le_u32(header, at32).map(u64::from) };
        Some(Segment {
            kind: le_u32(header, 0)?,
            offset: word(4, 8)?,
            vaddr: word(8, 16)?,
            paddr: word(12, 24)?,
            file_size: word(16, 32)?,
            mem_size: word(20, 40)?,
        })
    }
}

impl Elf {
    /// Copies the loadable segments to their physical addresses, zeroes what
    /// the file does not fill, and returns the highest address that they use.
    pub(super) fn load(&self, image: &Image, mem: &GuestMemoryMmap<()>, space: &mut Space) -> Result<u64, BootError> {
        let loads = || self.segments.iter().filter(|segment| segment.kind == PT_LOAD && segment.mem_size > 0);
        let mut end = None;
        for segment in loads() {
            if segment.file_size > segment.mem_size {
                return Err(image.error("an ELF segment is larger in the file than in memory"));
            }
            if segment.offset.checked_add(segment.file_size).is_none_or(|end| end > image.len) {
                return Err(image.error("an ELF segment is beyond the file's end: the file is truncated"));
            }
            let (start, size) = (segment.paddr, segment.mem_size);
            space
                .claim(start, size, "another segment of the kernel")
                .map_err(|refusal| image.error(format!("the segment at {start:#x} ({size:#x} bytes) {refusal}")))?;
            end = end.max(Some(start + size));
        }
        let end = end.ok_or_else(|| image.error("the ELF file has nothing to load"))?;
        for segment in loads() {
            image.copy(mem, segment.offset, segment.file_size, segment.paddr)?;
            zero(mem, segment.paddr + segment.file_size, segment.mem_size - segment.file_size)?;
        }
        Ok(end)
    }

    /// The physical address of the entry point: the header's, translated when
    /// it is a virtual address of a segment.
    pub(super) fn entry(&self, image: &Image) -> Result<u32, BootError> {
        let physical = self
            .segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD)
            .find_map(|segment| {
                let offset = self.entry.checked_sub(segment.vaddr).filter(|&offset| offset < segment.mem_size)?;
                segment.paddr.checked_add(offset)
            })
            .unwrap_or(self.entry);
        u32::try_from(physical).map_err(|_| image.error(format!("the entry point {physical:#x} is above 4 GiB")))
    }

    /// The descriptor of the first note of that owner (with its final NUL) and
    /// type (System V ABI, "Note Section").
    pub(super) fn note(&self, image: &Image, owner: &[u8], kind: u32) -> Result<Option<Vec<u8>>, BootError> {
        let mut left = TABLE_LIMIT;
        for segment in self.segments.iter().filter(|segment| segment.kind == PT_NOTE) {
            let notes = image.bytes(segment.offset, segment.file_size.min(left))?;
            left -= notes.len() as u64;
            if let Some(descriptor) = find_note(&notes, owner, kind) {
                return Ok(Some(descriptor.to_vec()));
            }
        }
        Ok(None)
    }
}

fn find_note<'a>(mut notes: &'a [u8], owner: &[u8], kind: u32) -> Option<&'a [u8]> {
    loop {
        let (name_size, size) = (le_u32(notes, 0)? as usize, le_u32(notes, 4)? as usize);
        let found = le_u32(notes, 8)?;
        // Both are padded to words in 64-bit files, too.
        let name_end = 12usize.checked_add(name_size)?;
        let start = name_end.checked_next_multiple_of(4)?;
        let end = start.checked_add(size)?;
        let descriptor = notes.get(start..end)?;
        if found == kind && notes.get(12..name_end)? == owner {
            return Some(descriptor);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}
