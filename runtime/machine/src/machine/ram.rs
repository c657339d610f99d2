//! The guest's RAM: memory of the host's, or a file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use mimus_softmmu::Ram;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use super::Board;
use crate::config::{Config, RamFile};

/// Allocates what the board has of memory.
pub(super) fn allocate<B: Board>(config: &Config) -> Result<Arc<Ram>> {
    let ranges = B::ram_ranges(config);
    let memory = match &config.memory.file {
        Some(file) => in_file::<B>(config, file, &ranges)?,
        None => GuestMemoryMmap::from_ranges(&ranges)
            .with_context(|| format!("-m: cannot allocate {} MiB of guest RAM", config.ram_size >> 20))?,
    };
    advise(&memory, Advice::LinuxHugepage, "no huge pages behind guest RAM");
    if !config.process.dump_guest_ram {
        advise(&memory, Advice::LinuxDontDump, "guest RAM is in core dumps");
    }
    if config.memory.allocated {
        advise(&memory, Advice::LinuxPopulateWrite, "guest RAM is allocated as it is used");
    }
    Ok(Arc::new(Ram::with_display(memory, B::display_memory(config)?)))
}

/// Tells the host something about guest RAM: huge pages, with which a guest that touches much memory misses the host's TLB less,
/// that it stays out of core dumps, or that it is wanted now. A host that does not take it is told of on the log.
fn advise(memory: &GuestMemoryMmap<()>, advice: Advice, without: &str) {
    for region in memory.iter() {
        // SAFETY: the range is a mapping that `memory` owns, and no advice changes what it holds.
        let advised = unsafe { madvise(region.as_ptr().cast(), region.size(), advice) };
        if let Err(error) = advised {
            tracing::debug!("{without}: {error}");
        }
    }
}

/// Memory whose RAM is in a file, one range behind the other; ROMs are not.
fn in_file<B: Board>(config: &Config, ram: &RamFile, ranges: &[(GuestAddress, usize)]) -> Result<GuestMemoryMmap<()>> {
    let file = Arc::new(open(ram, config.ram_size)?);
    let sharing = if ram.shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
    let mut offset = 0;
    let mut regions = Vec::new();
    for &(address, size) in ranges {
        let map =
            MmapRegionBuilder::new(size).with_mmap_prot((ProtFlags::READ | ProtFlags::WRITE).bits().cast_signed());
        let map = if B::is_ram(config, address) {
            let part = FileOffset::from_arc(file.clone(), offset);
            offset += size as u64;
            map.with_mmap_flags((sharing | MapFlags::NORESERVE).bits().cast_signed()).with_file_offset(part)
        } else {
            map
        };
        let map = map.build().with_context(|| format!("{}: cannot map {}", ram.option, ram.path.display()))?;
        regions.push(GuestRegionMmap::new(map, address).context("guest RAM is too large")?);
    }
    Ok(GuestMemoryMmap::from_regions(regions)?)
}

/// Opens or makes the file, of `size` bytes.
fn open(ram: &RamFile, size: u64) -> Result<File> {
    const PRIVATE: u32 = 0o600;
    let RamFile { option, path, .. } = ram;
    let failed = || format!("{option}: cannot open {}", path.display());
    if path.is_dir() {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(PRIVATE)).with_context(failed)?);
        file.set_len(size).with_context(failed)?;
        return Ok(file);
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(path);
    let file = file.with_context(failed)?;
    let metadata = file.metadata().with_context(failed)?;
    match metadata.len() {
        // A device has no length that is told so.
        _ if !metadata.is_file() => {}
        0 => file.set_len(size).with_context(failed)?,
        length if length < size => {
            bail!("{option}: {} has {length} bytes, fewer than the guest's RAM of {size}", path.display())
        }
        _ => {}
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_or_must_be_large_enough() {
        let folder = std::env::temp_dir().join(format!("mimus-ram-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let ram = |name: &str| RamFile { option: "-mem-path".to_owned(), path: folder.join(name), shared: true };
        assert_eq!(open(&ram("new"), 8192).unwrap().metadata().unwrap().len(), 8192);
        assert_eq!(open(&ram("new"), 4096).unwrap().metadata().unwrap().len(), 8192, "what is there stays");
        let error = open(&ram("new"), 16384).unwrap_err().to_string();
        assert!(
            error.starts_with("-mem-path: ") && error.ends_with("has 8192 bytes, fewer than the guest's RAM of 16384")
        );
        assert_eq!(open(&ram(""), 4096).unwrap().metadata().unwrap().len(), 4096, "a file without a name in a folder");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
