//! Images: opening, telling their formats apart, reading and writing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;

use imago::{FormatAccess, ShallowMapping};
use mimus_hw::virtio::{BlockInfo, SECTOR_SIZE};
use rustc_hash::FxHashSet;
use rustix::fs::{FallocateFlags, fallocate};

use super::file::{length, open_file, read_padded, unlock};
use super::guarded::Guarded;
use super::layout::Layout;
use super::overlay::{self, Overlay};
use super::vmdk::Vmdk;
use super::{PIECE, Store, chain, for_pieces, qcow2};
use crate::config::{Disk, ImageFormat, Zeroes};
use crate::error::HostError;

/// A format's magic number: where it is, and what; and the format if there is support for it.
type Magic = (usize, &'static [u8], &'static str, Option<ImageFormat>);

/// Formats that are not raw.
const FORMATS: &[Magic] = &[
    (0, qcow2::MAGIC, "qcow2", Some(ImageFormat::Qcow2)),
    (0, b"KDMV", "vmdk", Some(ImageFormat::Vmdk)),
    (0, b"COWD", "vmdk", Some(ImageFormat::Vmdk)),
    (0, b"# Disk DescriptorFile", "vmdk", Some(ImageFormat::Vmdk)),
    (0, b"vhdxfile", "vhdx", None),
    (0, b"conectix", "vpc", None),
    (0, b"QED\0", "qed", None),
    (0x40, b"\x7f\x10\xda\xbe", "vdi", None),
];

/// The format that an image's first bytes show, if it is not raw.
fn other_format(head: &[u8]) -> Option<&'static Magic> {
    FORMATS.iter().find(|(at, magic, ..)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
}

/// What to say of an image that cannot be opened.
fn refused(option: &str, disk: &Disk, error: &io::Error) -> HostError {
    let message = |what: &str| HostError::new(option, format!("'{}' {what}", disk.file.display()));
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            message("is in use by another process (readonly=on or snapshot=on would share it)")
        }
        _ if is_unwritable(error) && !disk.read_only && !disk.snapshot => {
            HostError::new(option, format!("cannot open '{}': {error} (readonly=on may help)", disk.file.display()))
        }
        _ => HostError::file(option, "cannot open", &disk.file, error),
    }
}

/// An image in a format with metadata, or one that the host's cache is to be kept out of.
#[derive(Debug)]
pub(super) struct Formatted {
    access: FormatAccess<Guarded>,
    /// Bytes of the disk that share an L2 table, and the numbers of those ranges that are known to have one.
    l2_range: Option<u64>,
    has_l2: FxHashSet<u64>,
}

impl Formatted {
    fn new(access: FormatAccess<Guarded>, layout: Option<Layout>) -> Formatted {
        Formatted { access, l2_range: layout.map(|layout| layout.l2_range()), has_l2: FxHashSet::default() }
    }

    /// Reads all of `out`; what is beyond the end of the image is 0.
    fn read(&mut self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let left = usize::try_from(self.access.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (inside, beyond) = out.split_at_mut(left.min(out.len()));
        beyond.fill(0);
        self.access.read(inside, offset)
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.for_tables(offset, bytes.len() as u64, |access, at, count| {
            let from = (at - offset) as usize;
            access.write(bytes.get(from..from + count as usize).unwrap_or_default(), at)
        })
    }

    /// Writes what of `bytes`, which were read from `offset` on, is from a backing image.
    fn copy_up(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut at, end) = (offset, (offset + bytes.len() as u64).min(self.access.size()));
        while at < end {
            let (mapping, count) = self.access.get_shallow_mapping(at, end - at)?;
            let below = matches!(mapping, ShallowMapping::Indirect { .. });
            let count = count.min(end - at);
            if count == 0 {
                break;
            }
            let from = (at - offset) as usize;
            let part = bytes.get(from..from + count as usize).filter(|_| below).unwrap_or_default();
            if part.iter().any(|byte| *byte != 0) {
                self.write(part, at)?;
            } else if below {
                self.for_tables(at, count, |access, at, count| access.write_zeroes(at, count))?;
            }
            at += count;
        }
        Ok(())
    }

    /// Calls `f` for each part of a range with an L2 table of its own. A table that has to be made is made when nothing waits
    /// to be written: it may take the place of a cluster that the file's tables still refer to.
    fn for_tables(
        &mut self,
        offset: u64,
        len: u64,
        mut f: impl FnMut(&mut FormatAccess<Guarded>, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            let mut count = end - at;
            if let Some(range) = self.l2_range {
                let index = at / range;
                count = count.min(range - at % range);
                if !self.has_l2.contains(&index) {
                    self.access.flush()?;
                    self.has_l2.insert(index);
                }
            }
            f(&mut self.access, at, count)?;
            at += count;
        }
        Ok(())
    }
}

/// A raw image.
#[derive(Debug)]
pub(super) struct RawFile {
    file: File,
    /// Where the disk's first byte is.
    start: u64,
}

/// The contents of a disk.
#[derive(Debug)]
pub(super) enum Contents {
    /// Zeroes, whatever is written.
    Null,
    Raw(RawFile),
    Formatted(Box<Formatted>),
    Vmdk(Box<Vmdk>),
    /// Writes go to a file that is gone afterwards.
    Overlay(Box<Overlay>),
}

/// An image, open.
#[derive(Debug)]
pub struct Image {
    contents: Contents,
    format: ImageFormat,
    bytes: u64,
    read_only: bool,
    /// Nobody has said that it is raw: the guest must not make it look like something else.
    guessed: bool,
    /// What the guest discards is given back to the host.
    discard: bool,
    zeroes: Zeroes,
    /// What is read from a backing image is written above it.
    copy_on_read: bool,
}

/// Whether a file can be read and not written to.
fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The part of a raw image of `bytes` bytes that is the disk: its first byte, and its bytes.
fn part(option: &str, disk: &Disk, bytes: u64) -> Result<(u64, u64), HostError> {
    let Some((start, size)) = disk.range else { return Ok((0, bytes)) };
    let wrong = |what: &str| Err(HostError::new(option, format!("offset, size: {what} of '{}'", disk.file.display())));
    if disk.cache.direct {
        return wrong("cache=none and cache=directsync have no part");
    }
    let Some(rest) = bytes.checked_sub(start).filter(|_| start.is_multiple_of(SECTOR_SIZE)) else {
        return wrong("they are not a multiple of 512, or beyond the end");
    };
    match size.unwrap_or(rest) {
        size if size <= rest => Ok((start, size)),
        _ => wrong("they are beyond the end"),
    }
}

impl Image {
    /// Opens the image of `disk`, which `option` (as typed, such as `-drive`) names, and locks it.
    ///
    /// # Errors
    ///
    /// Whatever the host says; an image that another process uses; a format that cannot be read.
    pub fn open(option: &str, disk: &Disk) -> Result<Image, HostError> {
        let base = Image::base(option, disk)?;
        if !disk.snapshot {
            return Ok(base);
        }
        let (format, bytes) = (base.format, base.bytes);
        let overlay = Overlay::new(base).map_err(|error| {
            let place = overlay::temporary_folder();
            HostError::new(option, format!("snapshot: cannot make a temporary file in '{}': {error}", place.display()))
        })?;
        let contents = Contents::Overlay(Box::new(overlay));
        Ok(Image::new(contents, (format, bytes), disk.read_only, disk))
    }

    fn new(contents: Contents, (format, bytes): (ImageFormat, u64), read_only: bool, disk: &Disk) -> Image {
        let (discard, zeroes, copy_on_read) = (disk.discard, disk.zeroes, disk.copy_on_read && !read_only);
        Image { contents, format, bytes, read_only, guessed: false, discard, zeroes, copy_on_read }
    }

    /// The image without what is written above it.
    fn base(option: &str, disk: &Disk) -> Result<Image, HostError> {
        let mut read_only = disk.read_only || disk.snapshot;
        if let Some(bytes) = disk.null {
            let bytes = bytes / SECTOR_SIZE * SECTOR_SIZE;
            return Ok(Image::new(Contents::Null, (ImageFormat::Raw, bytes), read_only, disk));
        }
        let failed = |error: io::Error| refused(option, disk, &error);
        let file = match open_file(&disk.file, read_only, disk.locking) {
            Err(error) if disk.auto_read_only && !read_only && is_unwritable(&error) => {
                read_only = true;
                open_file(&disk.file, true, disk.locking)
            }
            result => result,
        };
        let file = file.map_err(failed)?;
        let bytes = length(&file).map_err(failed)?;
        let format = probe(option, disk, &file).map_err(failed)??;
        let (contents, bytes, writable) = match format {
            ImageFormat::Raw if !disk.cache.direct || disk.range.is_some() => {
                let (start, bytes) = part(option, disk, bytes)?;
                (Contents::Raw(RawFile { file, start }), bytes, !read_only)
            }
            ImageFormat::Vmdk => {
                let image = Vmdk::open(file, &disk.file, disk.locking).map_err(failed)?;
                let bytes = image.bytes();
                (Contents::Vmdk(Box::new(image)), bytes, false)
            }
            format => {
                let (access, layout) = chain::open(file, format, disk, read_only).map_err(failed)?;
                let (bytes, writable) = (access.size(), access.inner().writable());
                (Contents::Formatted(Box::new(Formatted::new(access, layout))), bytes, writable)
            }
        };
        if !writable && !read_only && !disk.auto_read_only {
            let message = format!("'{}' can only be read: use readonly=on or snapshot=on", disk.file.display());
            return Err(HostError::new(option, message));
        }
        read_only |= !writable;
        // As QEMU has it: a raw image's last sector is padded with zeros when it is read, and whole once it is written. What a
        // format has of a sector that is not whole can only be read.
        let whole = format == ImageFormat::Raw && disk.range.is_none() || !writable;
        let bytes = if whole { bytes.next_multiple_of(SECTOR_SIZE) } else { bytes / SECTOR_SIZE * SECTOR_SIZE };
        let guessed = format == ImageFormat::Raw && disk.format.is_none();
        Ok(Image { guessed, ..Image::new(contents, (format, bytes), read_only, disk) })
    }

    /// What the guest sees.
    pub fn info(&self, serial: &str) -> BlockInfo {
        BlockInfo {
            sectors: self.bytes / SECTOR_SIZE,
            read_only: self.read_only,
            discard: true,
            serial: serial.to_owned(),
        }
    }

    /// What the file is.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// Bytes that the guest sees.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fails for a range that is not within the image.
    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let within = offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        if within { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Writes bytes as they are.
    fn put(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check(offset, bytes.len() as u64)?;
        if self.guessed && offset < SECTOR_SIZE {
            self.check_head(bytes, offset)?;
        }
        match &mut self.contents {
            Contents::Null => Ok(()),
            Contents::Raw(raw) => raw.file.write_all_at(bytes, raw.start + offset),
            Contents::Formatted(formatted) => formatted.write(bytes, offset),
            Contents::Vmdk(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Contents::Overlay(overlay) => overlay.write(bytes, offset),
        }
    }

    /// Fails if the first sector would look like another format with these bytes in it: the next start would believe it.
    fn check_head(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut head = [0; SECTOR_SIZE as usize];
        self.read(&mut head, 0)?;
        head.iter_mut().skip(offset as usize).zip(bytes).for_each(|(to, from)| *to = *from);
        let Some((_, _, name, _)) = other_format(&head) else { return Ok(()) };
        tracing::warn!("the guest may not make a raw image look like {name}: format=raw would allow it");
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

impl Store for Image {
    fn file(&self, offset: u64, len: u64) -> Option<&File> {
        match &self.contents {
            Contents::Raw(raw) if raw.start == 0 => self.check(offset, len).is_ok().then_some(&raw.file),
            Contents::Null | Contents::Raw(_) | Contents::Formatted(_) | Contents::Vmdk(_) | Contents::Overlay(_) => {
                None
            }
        }
    }

    fn read(&mut self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.check(offset, out.len() as u64)?;
        match &mut self.contents {
            Contents::Null => {
                out.fill(0);
                Ok(())
            }
            Contents::Raw(raw) => read_padded(&raw.file, out, raw.start + offset),
            Contents::Formatted(formatted) => {
                formatted.read(out, offset)?;
                if self.copy_on_read { formatted.copy_up(out, offset) } else { Ok(()) }
            }
            Contents::Vmdk(image) => image.read(out, offset),
            Contents::Overlay(overlay) => overlay.read(out, offset),
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.zeroes != Zeroes::AsTheyAre && bytes.iter().all(|byte| *byte == 0) {
            let unmap = self.zeroes == Zeroes::Unmapped;
            return self.write_zeroes(offset, bytes.len() as u64, unmap, &AtomicBool::new(false));
        }
        self.put(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.contents {
            Contents::Raw(raw) => raw.file.sync_data(),
            Contents::Formatted(formatted) => {
                formatted.access.flush()?;
                formatted.access.sync()
            }
            // An overlay does not outlive the process.
            Contents::Null | Contents::Vmdk(_) | Contents::Overlay(_) => Ok(()),
        }
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        if !self.discard {
            return Ok(());
        }
        let result = match &mut self.contents {
            Contents::Raw(raw) => raw.punch(offset, len),
            Contents::Formatted(formatted) => formatted.for_tables(offset, len, FormatAccess::discard_to_any),
            Contents::Vmdk(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Contents::Null | Contents::Overlay(_) => Ok(()),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool, stop: &AtomicBool) -> io::Result<()> {
        self.check(offset, len)?;
        let done = match &mut self.contents {
            Contents::Raw(raw) => raw.zero(offset, len, unmap),
            Contents::Formatted(formatted) => {
                let result = formatted.for_tables(offset, len, |access, at, count| access.write_zeroes(at, count));
                result.is_ok()
            }
            Contents::Null => true,
            Contents::Vmdk(_) | Contents::Overlay(_) => false,
        };
        if done {
            return Ok(());
        }
        let zeroes = vec![0; PIECE];
        for_pieces(len, PIECE, stop, |at, count| self.put(zeroes.get(..count).unwrap_or_default(), offset + at))
    }
}

impl Drop for RawFile {
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

impl RawFile {
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, how, self.start + offset, len)?)
    }

    /// Whether the host could write zeroes by itself.
    fn zero(&self, offset: u64, len: u64, unmap: bool) -> bool {
        let how = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, self.start + offset, len).is_ok()
    }
}

/// The format that a file looks like: its name, and what it is if there is support for it.
pub(super) fn look(file: &File) -> io::Result<(&'static str, Option<ImageFormat>)> {
    let mut head = [0; SECTOR_SIZE as usize];
    read_padded(file, &mut head, 0)?;
    Ok(other_format(&head).map_or(("raw", Some(ImageFormat::Raw)), |(.., name, format)| (name, *format)))
}

/// The format of an image: what was said, or what it looks like.
fn probe(option: &str, disk: &Disk, file: &File) -> io::Result<Result<ImageFormat, HostError>> {
    if let Some(format) = disk.format {
        return Ok(Ok(format));
    }
    Ok(match look(file)? {
        (name, None) => {
            let message = format!(
                "'{}' looks like {name}, which is not supported yet; format=raw uses it as it is",
                disk.file.display()
            );
            Err(HostError::new(option, message))
        }
        (_, Some(ImageFormat::Raw)) => {
            if !disk.read_only {
                tracing::warn!(
                    "{option}: '{}' is taken for a raw image: format=raw says so for certain; until then the guest cannot \
                     write to its first sector what looks like another format",
                    disk.file.display()
                );
            }
            Ok(ImageFormat::Raw)
        }
        (_, Some(format)) => Ok(format),
    })
}
