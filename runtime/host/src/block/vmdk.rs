//! vmdk images, which are read only: descriptors with flat, zero and sparse extents, and sparse extents that are a whole disk,
//! as qemu-img makes them (monolithicSparse, streamOptimized).
//!
//! Words and numbers are those of VMware's "Virtual Disk Format 1.1". All numbers are little-endian; places are in sectors.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::file::{length, named_inside, open_file, read_padded, wrong};

const SECTOR: u64 = 512;
/// A sparse extent begins with it.
const MAGIC: &[u8] = b"KDMV";
/// The extents of another product's sparse format begin with it.
const COWD: &[u8] = b"COWD";

/// Most bytes of a descriptor, and extents that it may have.
const MAX_DESCRIPTOR: u64 = 1 << 20;
const MAX_EXTENTS: usize = 1024;
/// The largest disk, in sectors.
const MAX_SECTORS: u64 = 1 << 50;
/// The largest grain in sectors, and entries of a grain table.
const MAX_GRAIN: u64 = 1 << 16;
const MAX_ENTRIES: u64 = 512;

/// Where the grain directory is if the last header says it.
const AT_END: u64 = u64::MAX;
/// Flags of a header: entries of 1 are grains of zeroes; grains are compressed.
const ZERO_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
/// All flags that are understood; the others are bits of how the file was made (newlines to detect, a second copy of the
/// grain tables, markers between the grains).
const KNOWN_FLAGS: u32 = 1 | 2 | ZERO_GRAINS | COMPRESSED | 1 << 17;
/// Bytes before a compressed grain: its first sector, and how many bytes follow.
const MARKER: u64 = 12;

/// A sparse extent.
#[derive(Debug)]
struct Sparse {
    file: File,
    len: u64,
    flags: u32,
    /// Sectors of the disk, and of a grain.
    capacity: u64,
    grain: u64,
    /// Entries of a grain table.
    entries: u64,
    /// Where the grain directory and the descriptor are; the descriptor's sectors.
    directory: u64,
    descriptor: (u64, u64),
    /// The grain table that was used last, by number.
    table: Option<(u64, Vec<u8>)>,
    /// The compressed grain that was used last, by number.
    last: Option<(u64, Vec<u8>)>,
}

#[derive(Debug)]
enum Source {
    /// The file from a byte on.
    Flat(File, u64),
    Zero,
    Sparse(Box<Sparse>),
    /// The descriptor keeps everybody out.
    Nothing,
}

/// A part of the disk.
#[derive(Debug)]
struct Extent {
    /// First byte, and the one behind the last.
    start: u64,
    end: u64,
    source: Source,
}

/// An image.
#[derive(Debug)]
pub(super) struct Vmdk {
    extents: Vec<Extent>,
    /// The extent that was read last: no other keeps what it has unpacked.
    last: usize,
}

/// A line of a descriptor about an extent: `RW 4192256 SPARSE "disk-s001.vmdk"`.
struct Line<'a> {
    access: &'a str,
    sectors: u64,
    kind: &'a str,
    file: &'a str,
    offset: u64,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> io::Result<Line<'a>> {
        let bad = || wrong(format!("its descriptor has a line that is none: '{}'", line.escape_debug()));
        let mut words = line.splitn(4, char::is_whitespace);
        let mut word = || words.next().unwrap_or_default();
        let (access, sectors, kind, rest) = (word(), word(), word(), word().trim());
        let sectors = sectors.parse().ok().filter(|sectors| *sectors <= MAX_SECTORS).ok_or_else(bad)?;
        let (file, offset) = match rest.strip_prefix('"') {
            Some(rest) => rest.split_once('"').ok_or_else(bad)?,
            None => ("", ""),
        };
        let offset = if offset.trim().is_empty() { 0 } else { offset.trim().parse().map_err(|_| bad())? };
        Ok(Line { access, sectors, kind, file, offset })
    }
}

impl Sparse {
    fn open(file: File) -> io::Result<Sparse> {
        let len = length(&file)?;
        let mut extent = Sparse::header(file, len, 0)?;
        if extent.directory == AT_END {
            // The footer is before the marker of the stream's end.
            let at = len.checked_sub(2 * SECTOR).ok_or_else(|| wrong("it is cut short"))?;
            extent = Sparse::header(extent.file, len, at)?;
        }
        let tables = extent.capacity.div_ceil(extent.grain * extent.entries);
        let end = extent.directory.checked_mul(SECTOR).and_then(|at| at.checked_add(tables * 4));
        if end.is_none_or(|end| end > len) {
            return Err(wrong("its grain directory is beyond the end of the file"));
        }
        Ok(extent)
    }

    /// Reads the header at byte `at`.
    fn header(file: File, len: u64, at: u64) -> io::Result<Sparse> {
        let mut bytes = [0; SECTOR as usize];
        read_padded(&file, &mut bytes, at)?;
        let u32_at =
            |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |x| u32::from_le_bytes(*x));
        let u64_at =
            |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |x| u64::from_le_bytes(*x));
        let (version, flags, compression) = (u32_at(4), u32_at(8), u32_at(77) & 0xffff);
        if !bytes.starts_with(MAGIC) || !(1..=3).contains(&version) {
            return Err(wrong("it is cut short, or of a version that is not known here"));
        }
        if flags & !KNOWN_FLAGS != 0 || (flags & COMPRESSED != 0 && compression != 1) {
            return Err(wrong(format!("its flags {flags:#x} or its compression are not known here")));
        }
        let (capacity, grain, entries) = (u64_at(12), u64_at(20), u64::from(u32_at(44)));
        let possible =
            (1..=MAX_GRAIN).contains(&grain) && (1..=MAX_ENTRIES).contains(&entries) && capacity <= MAX_SECTORS;
        if !possible {
            return Err(wrong(format!(
                "it cannot have {capacity} sectors in grains of {grain} and tables of {entries}"
            )));
        }
        let (descriptor, directory) = ((u64_at(28), u64_at(36)), u64_at(56));
        let (table, last) = (None, None);
        Ok(Sparse { file, len, flags, capacity, grain, entries, directory, descriptor, table, last })
    }

    /// The descriptor that is in the file; empty if none is.
    fn descriptor(&self) -> io::Result<Vec<u8>> {
        let (at, sectors) = self.descriptor;
        if at == 0 || sectors == 0 {
            return Ok(Vec::new());
        }
        let bytes = sectors.saturating_mul(SECTOR);
        if bytes > MAX_DESCRIPTOR || at > self.len / SECTOR {
            return Err(wrong("its descriptor is not in the file, or too long"));
        }
        let mut text = vec![0; bytes as usize];
        read_padded(&self.file, &mut text, at * SECTOR)?;
        Ok(text)
    }

    /// The entry of a grain: where it is, or 0 or 1.
    fn entry(&mut self, grain: u64) -> io::Result<u64> {
        let number = grain / self.entries;
        if self.table.as_ref().is_none_or(|(known, _)| *known != number) {
            let mut place = [0; 4];
            read_padded(&self.file, &mut place, self.directory * SECTOR + 4 * number)?;
            let mut table = vec![0; 4 * self.entries as usize];
            let place = u64::from(u32::from_le_bytes(place));
            if place != 0 {
                read_padded(&self.file, &mut table, place * SECTOR)?;
            }
            self.table = Some((number, table));
        }
        let at = 4 * (grain % self.entries) as usize;
        let entry = self.table.as_ref().and_then(|(_, table)| table.get(at..)?.first_chunk());
        Ok(entry.map_or(0, |entry| u64::from(u32::from_le_bytes(*entry))))
    }

    /// Reads all of `out` from byte `offset` on, which is in the disk.
    fn read(&mut self, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
        let grain_bytes = self.grain * SECTOR;
        while !out.is_empty() {
            let (grain, inside) = (offset / grain_bytes, offset % grain_bytes);
            let count = ((grain_bytes - inside) as usize).min(out.len());
            let (part, rest) = out.split_at_mut(count);
            match self.entry(grain)? {
                0 => part.fill(0),
                1 if self.flags & ZERO_GRAINS != 0 => part.fill(0),
                place if self.flags & COMPRESSED != 0 => self.unpack(grain, place, part, inside)?,
                place if place * SECTOR >= self.len => return Err(wrong("a grain is beyond the end of the file")),
                place => read_padded(&self.file, part, place * SECTOR + inside)?,
            }
            offset += count as u64;
            out = rest;
        }
        Ok(())
    }

    /// Copies `out` from byte `inside` of the compressed grain at `place`.
    fn unpack(&mut self, grain: u64, place: u64, out: &mut [u8], inside: u64) -> io::Result<()> {
        if self.last.as_ref().is_none_or(|(known, _)| *known != grain) {
            let mut marker = [0; MARKER as usize];
            self.file.read_exact_at(&mut marker, place * SECTOR)?;
            let size = marker.last_chunk().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
            // What does not get smaller grows by little.
            if size > 2 * self.grain * SECTOR + 64 {
                return Err(wrong("a compressed grain is too long"));
            }
            let mut packed = vec![0; size as usize];
            self.file.read_exact_at(&mut packed, place * SECTOR + MARKER)?;
            let mut unpacked = Vec::new();
            ZlibDecoder::new(&*packed).take(self.grain * SECTOR).read_to_end(&mut unpacked)?;
            self.last = Some((grain, unpacked));
        }
        let from = inside as usize;
        let bytes = self.last.as_ref().and_then(|(_, bytes)| bytes.get(from..from + out.len()));
        out.copy_from_slice(bytes.ok_or_else(|| wrong("a compressed grain is too short"))?);
        Ok(())
    }
}

impl Vmdk {
    /// Opens the image at `path`, which is `file`.
    ///
    /// # Errors
    ///
    /// Whatever the host says; kinds of images that cannot be read; extents that are in other folders than the image.
    pub(super) fn open(file: File, path: &Path, locking: bool) -> io::Result<Vmdk> {
        let mut head = [0; 4];
        read_padded(&file, &mut head, 0)?;
        if head == MAGIC {
            let extent = Sparse::open(file)?;
            // What the descriptor in it says of extents is about itself.
            lines(&extent.descriptor()?)?;
            let end = extent.capacity * SECTOR;
            return Ok(Vmdk {
                extents: vec![Extent { start: 0, end, source: Source::Sparse(Box::new(extent)) }],
                last: 0,
            });
        }
        if head == COWD {
            return Err(wrong(
                "it is of the kind of VMware ESX (COWD), which is not supported (`qemu-img convert` makes another)",
            ));
        }
        let len = length(&file)?;
        if len > MAX_DESCRIPTOR {
            return Err(wrong("it is too long for a descriptor, and no sparse extent"));
        }
        let mut text = vec![0; len as usize];
        read_padded(&file, &mut text, 0)?;
        let mut image = Vmdk { extents: Vec::new(), last: 0 };
        for line in lines(&text)? {
            image.add(&Line::parse(&line)?, path, locking)?;
        }
        if image.extents.is_empty() {
            return Err(wrong("its descriptor has no extents"));
        }
        Ok(image)
    }

    fn add(&mut self, line: &Line<'_>, path: &Path, locking: bool) -> io::Result<()> {
        let start = self.bytes();
        let end = start + line.sectors * SECTOR;
        if self.extents.len() == MAX_EXTENTS || end > MAX_SECTORS * SECTOR {
            return Err(wrong("it has too many extents"));
        }
        let open = || open_file(&named_inside(path, line.file, false, "extent", None)?, true, locking);
        let source = match (line.access, line.kind) {
            ("NOACCESS", _) => Source::Nothing,
            (_, "ZERO") => Source::Zero,
            (_, "FLAT" | "VMFS") => {
                let offset = line.offset.checked_mul(SECTOR).filter(|offset| *offset <= MAX_SECTORS * SECTOR);
                Source::Flat(open()?, offset.ok_or_else(|| wrong("an extent begins too far into its file"))?)
            }
            (_, "SPARSE") => Source::Sparse(Box::new(Sparse::open(open()?)?)),
            (_, kind) => {
                return Err(wrong(format!(
                    "it has an extent of the kind {}, which is not supported",
                    kind.escape_debug()
                )));
            }
        };
        if matches!(&source, Source::Sparse(extent) if extent.capacity < line.sectors) {
            return Err(wrong("a sparse extent is smaller than its descriptor says"));
        }
        self.extents.push(Extent { start, end, source });
        Ok(())
    }

    /// Bytes of the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.extents.last().map_or(0, |extent| extent.end)
    }

    /// Reads all of `out` from byte `offset` on, which is in the disk.
    ///
    /// # Errors
    ///
    /// Whatever the host says, and what is wrong with the image.
    pub(super) fn read(&mut self, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !out.is_empty() {
            let index = self.extents.partition_point(|extent| extent.end <= offset);
            let before = std::mem::replace(&mut self.last, index);
            if before != index
                && let Some(Extent { source: Source::Sparse(sparse), .. }) = self.extents.get_mut(before)
            {
                (sparse.table, sparse.last) = (None, None);
            }
            let extent = self.extents.get_mut(index).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let count = usize::try_from(extent.end - offset).map_or(out.len(), |left| left.min(out.len()));
            let (part, rest) = out.split_at_mut(count);
            let inside = offset - extent.start;
            match &mut extent.source {
                Source::Flat(file, start) => read_padded(file, part, *start + inside)?,
                Source::Zero => part.fill(0),
                Source::Sparse(sparse) => sparse.read(part, inside)?,
                Source::Nothing => return Err(io::ErrorKind::PermissionDenied.into()),
            }
            offset += count as u64;
            out = rest;
        }
        Ok(())
    }
}

/// The lines about extents of a descriptor.
///
/// # Errors
///
/// What of a descriptor stands for an image that cannot be read alone.
fn lines(descriptor: &[u8]) -> io::Result<Vec<String>> {
    let text: Vec<u8> = descriptor.iter().copied().take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8(text).map_err(|_| wrong("its descriptor is not text"))?;
    let mut extents = Vec::new();
    for line in text.lines().map(str::trim) {
        let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
        let parent = key.eq_ignore_ascii_case("parentCID") && !value.eq_ignore_ascii_case("ffffffff");
        if parent || key == "parentFileNameHint" {
            return Err(wrong(
                "it is what was written above another image, which is not supported (`qemu-img convert`)",
            ));
        }
        if line.starts_with("RW ") || line.starts_with("RDONLY ") || line.starts_with("NOACCESS ") {
            extents.push(line.to_owned());
        }
    }
    Ok(extents)
}

#[cfg(test)]
mod tests;
