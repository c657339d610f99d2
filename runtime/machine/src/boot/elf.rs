//! ELF kernels of both classes (System V ABI, chapters 4 and 5): the program
//! headers and what they load. `linux-loader` reads 64-bit files only, and
//! Multiboot kernels are 32-bit ones.

use super::BootError;
use super::image::{Image, le_u16, le_u32, le_u64};
use super::layout::Space;
use super::memory::Memory;

/// The processors that a file may be for: its machine numbers, and what they are called.
#[derive(Clone, Copy)]
pub(super) struct Machines {
    numbers: &'static [u16],
    name: &'static str,
}

/// EM_386 and EM_X86_64.
pub(super) const X86: Machines = Machines { numbers: &[3, 62], name: "x86" };
/// EM_RISCV.
pub(super) const RISCV: Machines = Machines { numbers: &[243], name: "RISC-V" };

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

/// What of a segment is loaded: where it goes, and where in the file it is.
struct Part {
    start: u64,
    offset: u64,
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
pub(super) fn parse(image: &Image, head: &[u8], machines: Machines) -> Result<Elf, BootError> {
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
    if !machines.numbers.contains(&machine) {
        return Err(image.error(format!("ELF machine {machine} is not {}", machines.name)));
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

    fn whole(&self) -> Part {
        Part { start: self.paddr, offset: self.offset, file_size: self.file_size, mem_size: self.mem_size }
    }

    /// What of it lies from `start` to `end`. Its file size is at most its size in memory, and within the file.
    fn within(&self, start: u64, end: u64) -> Option<Part> {
        let from = self.paddr.max(start);
        let to = self.paddr.saturating_add(self.mem_size).min(end);
        let mem_size = to.checked_sub(from).filter(|&size| size != 0)?;
        let skipped = (from - self.paddr).min(self.file_size);
        let file_size = (self.file_size - skipped).min(mem_size);
        Some(Part { start: from, offset: self.offset.saturating_add(skipped), file_size, mem_size })
    }
}

impl Elf {
    /// Copies the loadable segments to their physical addresses, zeroes what
    /// the file does not fill, and returns the highest address that they use.
    pub(super) fn load(&self, image: &Image, mem: &dyn Memory, space: &mut Space) -> Result<u64, BootError> {
        self.load_parts(image, mem, space, |segment| Some(segment.whole()))
    }

    /// As [`Elf::load`], for files of which parts may lie outside RAM: an ordinary link for a machine whose RAM begins at the
    /// text has its ELF header in a page below. What is in RAM is loaded.
    pub(super) fn load_inside(&self, image: &Image, mem: &dyn Memory, space: &mut Space) -> Result<u64, BootError> {
        let (start, end) = space.ram();
        let inside = self.loads().any(|segment| segment.within(start, end).is_some());
        self.load_parts(
            image,
            mem,
            space,
            |segment| {
                if inside { segment.within(start, end) } else { Some(segment.whole()) }
            },
        )
    }

    fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD && segment.mem_size > 0)
    }

    fn load_parts(
        &self,
        image: &Image,
        mem: &dyn Memory,
        space: &mut Space,
        part: impl Fn(&Segment) -> Option<Part>,
    ) -> Result<u64, BootError> {
        let mut parts = Vec::new();
        for segment in self.loads() {
            if segment.file_size > segment.mem_size {
                return Err(image.error("an ELF segment is larger in the file than in memory"));
            }
            if segment.offset.checked_add(segment.file_size).is_none_or(|end| end > image.len) {
                return Err(image.error("an ELF segment is beyond the file's end: the file is truncated"));
            }
            let Some(part) = part(segment) else { continue };
            let Part { start, mem_size: size, .. } = part;
            space
                .claim(start, size, "another segment of the kernel")
                .map_err(|refusal| image.error(format!("the segment at {start:#x} ({size:#x} bytes) {refusal}")))?;
            parts.push(part);
        }
        for part in &parts {
            mem.copy(image, part.offset, part.file_size, part.start)?;
            mem.zero(part.start + part.file_size, part.mem_size - part.file_size)?;
        }
        let end = parts.iter().map(|part| part.start + part.mem_size).max();
        end.ok_or_else(|| image.error("the ELF file has nothing to load"))
    }

    /// [`Elf::physical_entry`], which must be below 4 GiB.
    pub(super) fn entry(&self, image: &Image) -> Result<u32, BootError> {
        let physical = self.physical_entry();
        u32::try_from(physical).map_err(|_| image.error(format!("the entry point {physical:#x} is above 4 GiB")))
    }

    /// The physical address of the entry point.
    pub(super) fn physical_entry(&self) -> u64 {
        self.physical(self.entry)
    }

    /// A physical address: the given one, translated when it is a virtual address of a segment.
    fn physical(&self, address: u64) -> u64 {
        self.segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD)
            .find_map(|segment| {
                let offset = address.checked_sub(segment.vaddr).filter(|&offset| offset < segment.mem_size)?;
                segment.paddr.checked_add(offset)
            })
            .unwrap_or(address)
    }

    /// The physical addresses of symbols of these names in a 64-bit file (System V ABI, "Sections" and "Symbol Table").
    /// A file without a symbol table has none.
    pub(super) fn symbols<const N: usize>(
        &self,
        image: &Image,
        head: &[u8],
        names: [&str; N],
    ) -> Result<[Option<u64>; N], BootError> {
        let mut found = [None; N];
        let Some((symbols, strings)) = symbol_table(image, head)? else { return Ok(found) };
        for symbol in symbols.chunks_exact(SYMBOL_SIZE) {
            let (Some(name), Some(value)) = (le_u32(symbol, 0), le_u64(symbol, 8)) else { continue };
            let name = strings.get(name as usize..).and_then(|rest| rest.split(|byte| *byte == 0).next());
            for (wanted, found) in names.iter().zip(&mut found) {
                if name == Some(wanted.as_bytes()) {
                    *found = Some(self.physical(value));
                }
            }
        }
        Ok(found)
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

/// Bytes of an entry of a 64-bit file's symbol table.
const SYMBOL_SIZE: usize = 24;
/// Bytes of a section header of a 64-bit file.
const SECTION_SIZE: u64 = 64;
const SHT_SYMTAB: u32 = 2;
/// The largest symbol or string table that is read, in bytes: a kernel's has tens of thousands of entries.
const SYMBOLS_LIMIT: u64 = 64 << 20;

/// The contents of a symbol table and of its strings.
type Symbols = (Vec<u8>, Vec<u8>);

/// A 64-bit file's symbols.
fn symbol_table(image: &Image, head: &[u8]) -> Result<Option<Symbols>, BootError> {
    let (Some(at), Some(size), Some(count)) = (le_u64(head, 40), le_u16(head, 58), le_u16(head, 60)) else {
        return Ok(None);
    };
    if u64::from(size) != SECTION_SIZE {
        return Ok(None);
    }
    let headers = image.bytes(at, SECTION_SIZE * u64::from(count))?;
    let section = |header: &[u8]| -> Option<(u64, u64)> { Some((le_u64(header, 24)?, le_u64(header, 32)?)) };
    let mut sections = headers.chunks_exact(SECTION_SIZE as usize);
    let Some(table) = sections.clone().find(|header| le_u32(header, 4) == Some(SHT_SYMTAB)) else { return Ok(None) };
    let strings = le_u32(table, 40).and_then(|index| sections.nth(index as usize));
    let (Some(table), Some(strings)) = (section(table), strings.and_then(section)) else { return Ok(None) };
    let read = |(at, len): (u64, u64)| image.bytes(at, len.min(SYMBOLS_LIMIT));
    Ok(Some((read(table)?, read(strings)?)))
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
