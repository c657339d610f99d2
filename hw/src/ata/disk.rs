//! Commands of disks, and those that all drives have (ACS-2, 7).

use super::drive::{Content, Drive, Kind, Transfer};
use super::identify;
use super::regs::{ABRT, IDNF, USE_LBA};
use crate::block::SECTOR_SIZE;

/// The most sectors of a block of READ MULTIPLE and WRITE MULTIPLE.
pub(super) const MAX_MULTIPLE: u8 = 16;

/// Blocks of 64 ranges that one DATA SET MANAGEMENT may bring, and ranges in a block.
pub(super) const MAX_RANGE_BLOCKS: u8 = 1;
const RANGES: usize = 64;

/// What a command that moves sectors does.
#[derive(Clone, Copy)]
struct Sectors {
    write: bool,
    /// With a 48-bit address.
    ext: bool,
    dma: bool,
    /// Several sectors between two looks at the status.
    multiple: bool,
}

const fn pio(write: bool, ext: bool, multiple: bool) -> Sectors {
    Sectors { write, ext, dma: false, multiple }
}

const fn dma(write: bool, ext: bool) -> Sectors {
    Sectors { write, ext, dma: true, multiple: false }
}

/// The commands that move sectors; each has an old twin without retries.
const SECTORS: &[(u8, u8, Sectors)] = &[
    (0x20, 0x21, pio(false, false, false)),
    (0x24, 0x24, pio(false, true, false)),
    (0x25, 0x25, dma(false, true)),
    (0x29, 0x29, pio(false, true, true)),
    (0x30, 0x31, pio(true, false, false)),
    (0x34, 0x34, pio(true, true, false)),
    (0x35, 0x35, dma(true, true)),
    (0x39, 0x39, pio(true, true, true)),
    (0xc4, 0xc4, pio(false, false, true)),
    (0xc5, 0xc5, pio(true, false, true)),
    (0xc8, 0xc9, dma(false, false)),
    (0xca, 0xcb, dma(true, false)),
];

/// Who has a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Disk,
    CdRom,
    All,
}

/// First and last code of a command, who has it, and what it does.
type Command = (u8, u8, Whose, fn(&mut Drive));

/// The other commands. What is not here is aborted, as 7.1.2 asks.
const COMMANDS: &[Command] = &[
    (0x06, 0x06, Whose::Disk, Drive::data_set_management),
    // RECALIBRATE and SEEK, which have nothing to do.
    (0x10, 0x1f, Whose::Disk, Drive::finish),
    (0x70, 0x7f, Whose::Disk, Drive::finish),
    (0x40, 0x41, Whose::Disk, |drive| drive.verify(false)),
    (0x42, 0x42, Whose::Disk, |drive| drive.verify(true)),
    (0x91, 0x91, Whose::Disk, Drive::initialize_parameters),
    (0xa0, 0xa0, Whose::CdRom, Drive::packet),
    (0xa1, 0xa1, Whose::CdRom, Drive::identify),
    (0xc6, 0xc6, Whose::Disk, Drive::set_multiple),
    // Power management: the drive is always active, and obeys.
    (0x94, 0x97, Whose::All, Drive::finish),
    (0x98, 0x98, Whose::All, Drive::check_power),
    (0x99, 0x99, Whose::All, Drive::finish),
    (0xe0, 0xe3, Whose::All, Drive::finish),
    (0xe5, 0xe5, Whose::All, Drive::check_power),
    (0xe6, 0xe6, Whose::All, Drive::finish),
    (0xe7, 0xe7, Whose::Disk, Drive::flush),
    (0xea, 0xea, Whose::Disk, Drive::flush),
    (0xec, 0xec, Whose::All, Drive::identify_disk),
    (0xef, 0xef, Whose::All, Drive::set_features),
];

impl Drive {
    /// Executes a command.
    pub(super) fn execute(&mut self, command: u8) {
        let covers = |first: u8, last: u8| (first..=last).contains(&command);
        let mine = |whose: Whose| whose == Whose::All || (whose == Whose::Disk) == (self.kind == Kind::Disk);
        if let Some((.., sectors)) = SECTORS.iter().find(|(first, last, _)| covers(*first, *last))
            && self.kind == Kind::Disk
        {
            return self.move_sectors(*sectors);
        }
        match COMMANDS.iter().find(|(first, last, whose, _)| covers(*first, *last) && mine(*whose)) {
            Some((.., run)) => run(self),
            None => {
                tracing::debug!(command, "ide: a command that this drive does not have");
                self.fail(ABRT);
            }
        }
    }

    /// The sector that the registers name.
    fn sector(&self, ext: bool) -> Option<u64> {
        let regs = &self.state.regs;
        if ext {
            return Some(regs.lba48());
        }
        if regs.device & USE_LBA != 0 {
            return Some(regs.lba28());
        }
        let [low, mid, high] = regs.lba;
        let (cylinder, head) = (u64::from(u16::from_le_bytes([mid[0], high[0]])), u64::from(regs.device & 0x0f));
        // Sectors of a track count from 1.
        let sector = u64::from(low[0]).checked_sub(1)?;
        let (heads, track) = (u64::from(self.state.heads), u64::from(self.state.track));
        (head < heads && sector < track).then_some((cylinder * heads + head) * track + sector)
    }

    /// Where on the medium the command's sectors are, in bytes, and how many bytes, if the medium has them.
    fn range(&self, ext: bool) -> Option<(u64, u64)> {
        let offset = self.sector(ext)?.checked_mul(SECTOR_SIZE)?;
        let len = self.state.regs.sectors(ext) * SECTOR_SIZE;
        (offset.checked_add(len)? <= self.bytes()).then_some((offset, len))
    }

    fn move_sectors(&mut self, sectors: Sectors) {
        let Sectors { write, ext, dma, multiple } = sectors;
        let read_only = self.info().is_none_or(|info| info.read_only);
        if write && read_only || multiple && self.state.multiple == 0 {
            return self.fail(ABRT);
        }
        let Some((next, left)) = self.range(ext) else { return self.fail(IDNF) };
        let block = if multiple { u64::from(self.state.multiple) } else { 1 } * SECTOR_SIZE;
        self.begin(Transfer { content: Content::Medium, to_host: !write, dma, next, left, block });
    }

    fn verify(&mut self, ext: bool) {
        match self.range(ext) {
            Some(_) => self.finish(),
            None => self.fail(IDNF),
        }
    }

    fn initialize_parameters(&mut self) {
        let (track, heads) = (self.state.regs.count[0], (self.state.regs.device & 0x0f) + 1);
        if track == 0 {
            return self.fail(ABRT);
        }
        (self.state.heads, self.state.track) = (heads, track);
        self.finish();
    }

    fn set_multiple(&mut self) {
        let count = self.state.regs.count[0];
        if count > MAX_MULTIPLE || !(count == 0 || count.is_power_of_two()) {
            return self.fail(ABRT);
        }
        self.state.multiple = count;
        self.finish();
    }

    fn check_power(&mut self) {
        const ACTIVE: u8 = 0xff;
        self.finish();
        self.state.regs.count[0] = ACTIVE;
    }

    fn identify_disk(&mut self) {
        if self.kind == Kind::CdRom {
            // It says by its signature that it is no disk (7.12.3).
            self.device_reset();
            return self.fail(ABRT);
        }
        self.identify();
    }

    fn identify(&mut self) {
        let words = identify::identify(self);
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.answer(bytes, SECTOR_SIZE, false);
    }

    fn set_features(&mut self) {
        /// Subcommands (7.45.2).
        const WRITE_CACHE: [u8; 2] = [0x82, 0x02];
        const TRANSFER_MODE: u8 = 0x03;
        /// Look-ahead, and whether a software reset restores settings: neither can be observed here.
        const ACCEPTED: [u8; 4] = [0x55, 0xaa, 0x66, 0xcc];
        let count = self.state.regs.count[0];
        match self.state.regs.features[0] {
            feature if WRITE_CACHE.contains(&feature) && self.kind == Kind::Disk => {
                self.state.write_cache = feature == WRITE_CACHE[1];
                if self.state.write_cache { self.finish() } else { self.flush() }
            }
            TRANSFER_MODE if identify::has_mode(count) => {
                self.state.mode = count;
                self.finish();
            }
            feature if ACCEPTED.contains(&feature) => self.finish(),
            _ => self.fail(ABRT),
        }
    }

    /// DATA SET MANAGEMENT with TRIM (7.5).
    fn data_set_management(&mut self) {
        const TRIM: u8 = 1;
        let blocks = self.state.regs.sectors(true);
        let can = self.info().is_some_and(|info| info.discard && !info.read_only);
        if !can || self.state.regs.features[0] != TRIM || blocks > MAX_RANGE_BLOCKS.into() {
            return self.fail(ABRT);
        }
        let left = blocks * SECTOR_SIZE;
        self.begin(Transfer { content: Content::Ranges, dma: true, left, ..Transfer::default() });
    }

    /// The ranges have come: 48 bits of address, 16 bits of length; those of length 0 are none.
    pub(super) fn discard(&mut self, ranges: &[u8]) {
        let entries = ranges.as_chunks::<8>().0.iter().take(RANGES * usize::from(MAX_RANGE_BLOCKS));
        let mut found = Vec::new();
        for entry in entries {
            let entry = u64::from_le_bytes(*entry);
            let (sector, count) = (entry & 0xffff_ffff_ffff, entry >> 48);
            let range = (sector.saturating_mul(SECTOR_SIZE), count * SECTOR_SIZE);
            if range.0.saturating_add(range.1) > self.bytes() {
                return self.fail(IDNF | ABRT);
            }
            if count != 0 {
                found.push(range);
            }
        }
        self.state.ranges = found;
        self.discard_next();
    }
}
