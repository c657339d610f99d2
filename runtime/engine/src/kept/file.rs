//! The file with kept translations: units one after another, and a table by which they are found.
//!
//! It is written under another name and then given its own, so that whoever has it open, or opens it, has a whole one; it is mapped
//! read-only, so that all machines of a host share it in memory. What is in it is host code that will be executed: it must be this
//! user's, and nobody else may be able to write it. Beyond that it is not trusted to be undamaged: the table has a checksum that is
//! looked at when it is opened, and each unit one that is looked at when it is taken.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use memmap2::{Mmap, MmapOptions};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::unit::Unit;

/// What a file begins with; the last one is the version.
const MAGIC: [u8; 8] = *b"mimusTC\x01";

/// Magic number, checksum of all that is neither it nor a unit, offset of the table, its entries, length of the identity.
const HEAD: usize = 40;

/// An entry of the table: the hash of a unit, 0 for none, and its offset.
const ENTRY: usize = 16;

/// Rights by which others could write.
const WRITABLE: u32 = 0o022;

/// Why a file or folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Of another kind.
    #[error("it is not a {0}")]
    Kind(&'static str),
    /// Not this user's.
    #[error("it belongs to user {0}, not to the one that mimus runs as")]
    Foreign(u32),
    /// Others may write it.
    #[error("others than its owner may write it (mode {0:o})")]
    Writable(u32),
    /// Damaged, or cut off.
    #[error("it is damaged")]
    Damaged,
    /// Of other code, by accident.
    #[error("it is of another mimus")]
    Identity,
}

/// Looks whether nobody but this user can have written something.
fn check_owner(meta: &fs::Metadata) -> Result<(), Unfit> {
    let mode = meta.mode() & 0o7777;
    match () {
        () if meta.uid() != rustix::process::geteuid().as_raw() => Err(Unfit::Foreign(meta.uid())),
        () if mode & WRITABLE != 0 => Err(Unfit::Writable(mode)),
        () => Ok(()),
    }
}

/// Looks whether a folder is one to keep translations in; makes it if it is not there.
///
/// # Errors
///
/// Why it is not.
pub fn prepare_folder(folder: &Path) -> Result<(), Unfit> {
    let made = {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    };
    let meta = fs::metadata(folder).or_else(|error| made.and(Err(error)))?;
    if !meta.is_dir() {
        return Err(Unfit::Kind("folder"));
    }
    check_owner(&meta)
}

/// A file that is mapped.
#[derive(Debug)]
pub struct File {
    map: Mmap,
    table: usize,
    /// A power of two.
    entries: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl File {
    /// Maps a file of these translations; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Why it is not used.
    pub fn open(path: &Path, identity: &[u8]) -> Result<Option<File>, Unfit> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(Unfit::Kind("file"));
        }
        check_owner(&meta)?;
        // SAFETY: nobody but this user can write it, and mimus does not write to files that have their name. Who cuts it off
        // nevertheless has this process ended by SIGBUS, which he could have done anyway.
        let map = unsafe { MmapOptions::new().populate().map(&file)? };
        File::in_map(map, identity).map(Some)
    }

    fn in_map(map: Mmap, identity: &[u8]) -> Result<File, Unfit> {
        let (sum, table, entries, known) = (|| {
            let size = |at| word(&map, at).and_then(|word| usize::try_from(word).ok());
            (map.get(..8)? == MAGIC).then_some((word(&map, 8)?, size(16)?, size(24)?, size(32)?))
        })()
        .ok_or(Unfit::Damaged)?;
        let known = HEAD.checked_add(known).and_then(|end| map.get(HEAD..end)).ok_or(Unfit::Damaged)?;
        let end = entries.checked_mul(ENTRY).and_then(|len| len.checked_add(table));
        let whole = entries.is_power_of_two() && end == Some(map.len());
        if !whole || map.get(table..).is_none_or(|rows| checksum(table, entries, known, rows) != sum) {
            return Err(Unfit::Damaged);
        }
        if known != identity {
            return Err(Unfit::Identity);
        }
        Ok(File { map, table, entries })
    }

    /// Bytes of it.
    pub fn size(&self) -> usize {
        self.map.len()
    }

    fn entry(&self, index: usize) -> Option<(u64, usize)> {
        let at = self.table + index * ENTRY;
        let (hash, offset) = (word(&self.map, at)?, word(&self.map, at + 8)?);
        Some((hash, usize::try_from(offset).ok().filter(|_| hash != 0)?))
    }

    /// What is kept under a hash, if it is whole ([`Unit::whole`]).
    pub fn find(&self, hash: u64) -> impl Iterator<Item = &[u8]> {
        let first = hash as usize;
        let entries = (0..self.entries).map(move |step| self.entry(first.wrapping_add(step) & (self.entries - 1)));
        let found = entries.map_while(|entry| entry).filter(move |&(known, _)| known == hash);
        found.filter_map(|(_, offset)| self.map.get(offset..self.table))
    }

    /// All of it, by hash and as it was written.
    pub fn units(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let entries = (0..self.entries).filter_map(|index| self.entry(index));
        entries.filter_map(|(hash, offset)| Some((hash, Unit::whole(self.map.get(offset..self.table)?)?)))
    }
}

fn checksum(table: usize, entries: usize, identity: &[u8], rows: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    [table as u64, entries as u64, xxh3_64(identity)].into_iter().for_each(|word| sum.update(&word.to_le_bytes()));
    sum.update(rows);
    sum.digest()
}

/// Writes a file with these units, by hash, in place of what is there under its name.
///
/// # Errors
///
/// What the system says; what was there is there as before then.
pub fn write(path: &Path, identity: &[u8], units: &[(u64, &[u8])]) -> io::Result<()> {
    let parts = path.parent().zip(path.file_name());
    let (folder, name) = parts.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let new = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    // Left by another process with this number that was killed.
    let _ = fs::remove_file(&new);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = write_to(BufWriter::with_capacity(1 << 20, file), identity, units);
    written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

fn write_to(mut out: impl Write, identity: &[u8], units: &[(u64, &[u8])]) -> io::Result<()> {
    let entries = (units.len() + units.len() / 2 + 1).next_power_of_two();
    let mut rows = vec![0_u64; entries * 2];
    let begin = (HEAD + identity.len()).next_multiple_of(8);
    let mut at = begin;
    for (hash, unit) in units {
        let mut index = *hash as usize & (entries - 1);
        while rows[2 * index] != 0 {
            index = (index + 1) & (entries - 1);
        }
        rows[2 * index] = *hash;
        rows[2 * index + 1] = at as u64;
        at += unit.len();
    }
    let rows: Vec<u8> = rows.into_iter().flat_map(u64::to_le_bytes).collect();
    let sum = checksum(at, entries, identity, &rows);
    out.write_all(&MAGIC)?;
    for word in [sum, at as u64, entries as u64, identity.len() as u64] {
        out.write_all(&word.to_le_bytes())?;
    }
    out.write_all(identity)?;
    out.write_all(&[0; 8][..begin - HEAD - identity.len()])?;
    units.iter().try_for_each(|(_, unit)| out.write_all(unit))?;
    out.write_all(&rows)?;
    out.flush()
}
