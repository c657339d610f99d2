//! A drive behind its registers: commands of disks, and those that all drives have (ACS-2, 7), and the operations on the medium
//! that they become.
//!
//! The owner, which is a task file or a controller that takes commands from memory, says what the registers were when a command
//! came, moves the data as the [`Step`] tells it, and names each command that waits by a tag of its own.

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};

use super::packet::{HARDWARE_ERROR, MEDIUM_ERROR, PacketState};
use super::regs::{ABRT, IDNF, Regs, UNC, USE_LBA};
use super::{Medium, Names, identify};
use crate::block::{BlockInfo, BlockOp, SECTOR_SIZE};
use crate::fabric::{BlockClient, Data, Finished};

/// The most sectors of a block of READ MULTIPLE and WRITE MULTIPLE.
pub(super) const MAX_MULTIPLE: u8 = 16;

/// Blocks of 64 ranges that one DATA SET MANAGEMENT may bring, and ranges in a block.
pub(super) const MAX_RANGE_BLOCKS: u8 = 1;
const RANGES: usize = 64;

/// The most bytes that a drive keeps when the processor moves them.
pub(super) const CHUNK: u64 = 64 << 10;

/// Operations that the backend may have been given, those included that a reset has made useless.
const MAX_OPERATIONS: usize = 32;

/// What drives' names begin with unless somebody says otherwise.
pub(crate) const MAKER: &str = "MIMUS";

/// What a drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Disk,
    CdRom,
}

/// Sectors that a command moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) write: bool,
    /// The bus master moves them, and not the processor.
    pub(crate) dma: bool,
    /// Where on the medium they are, in bytes, and how many bytes; the medium has them.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The most bytes that the processor moves between two looks at the status.
    pub(crate) block: u64,
}

/// What a command comes to, as far as it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The command is over.
    Done,
    /// The command is over, and the count register says this.
    Count(u8),
    /// The command has failed, and the error register says this.
    Failed(u8),
    /// The device is none that has this command, and says by its signature which it is.
    Signature,
    /// These bytes go to the host.
    Answer(Vec<u8>),
    /// Sectors cross.
    Move(Move),
    /// The bus master brings so many bytes, which are for [`Disk::ranges`].
    Ranges(u64),
    /// A command packet is to come, which is for [`Disk::packet`].
    Packet,
    /// Nothing crosses: it waits for these operations, one after the other.
    Run(Vec<BlockOp>),
}

/// A command that waits for its operations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    /// What the owner calls the command.
    tag: u8,
    /// What the backend calls the operation that it has.
    token: u64,
    op: BlockOp,
    data: Data,
    /// What is to be done then, the next one last.
    then: Vec<BlockOp>,
}

/// An operation has ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Ended {
    /// The command that it was of.
    pub(crate) tag: u8,
    pub(crate) op: BlockOp,
    pub(crate) data: Data,
    /// The operation succeeded; if not, the command has failed.
    pub(crate) ok: bool,
    /// The command waits for nothing more.
    pub(crate) last: bool,
}

/// A [`Disk`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DiskState {
    /// Sectors of a block of READ MULTIPLE and WRITE MULTIPLE; 0 when they are off.
    pub(super) multiple: u8,
    /// The transfer mode as SET FEATURES puts it.
    pub(super) mode: u8,
    pub(super) write_cache: bool,
    /// Heads and sectors of a track, for addresses by cylinder.
    pub(super) heads: u8,
    pub(super) track: u8,
    pub(super) packet: PacketState,
    waiting: Vec<Waiting>,
}

impl DiskState {
    fn new(loaded: bool) -> DiskState {
        DiskState {
            multiple: MAX_MULTIPLE,
            mode: 0,
            write_cache: true,
            heads: 16,
            track: 63,
            packet: PacketState::new(loaded),
            waiting: Vec::new(),
        }
    }

    /// Whether command `tag` waits for the backend.
    pub(super) fn waits(&self, tag: u8) -> bool {
        self.waiting.iter().any(|waiting| waiting.tag == tag)
    }
}

/// A disk, or a CD-ROM drive.
pub(crate) struct Disk {
    pub(super) kind: Kind,
    /// What its name begins with.
    pub(crate) maker: &'static str,
    pub(super) serial: String,
    pub(crate) names: Names,
    medium: Option<BlockInfo>,
    client: BlockClient,
    pub(super) state: DiskState,
}

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
type Command = (u8, u8, Whose, fn(&mut Disk, &Regs) -> Step);

/// What CHECK POWER MODE answers (7.3).
const ACTIVE: u8 = 0xff;

/// The other commands. What is not here is aborted, as 7.1.2 asks.
const COMMANDS: &[Command] = &[
    (0x06, 0x06, Whose::Disk, Disk::data_set_management),
    // RECALIBRATE and SEEK, which have nothing to do.
    (0x10, 0x1f, Whose::Disk, |_, _| Step::Done),
    (0x70, 0x7f, Whose::Disk, |_, _| Step::Done),
    (0x40, 0x41, Whose::Disk, |disk, regs| disk.verify(regs, false)),
    (0x42, 0x42, Whose::Disk, |disk, regs| disk.verify(regs, true)),
    (0x91, 0x91, Whose::Disk, Disk::initialize_parameters),
    (0xa0, 0xa0, Whose::CdRom, |_, regs| packet_command(regs)),
    (0xa1, 0xa1, Whose::CdRom, |disk, _| disk.identify()),
    (0xc6, 0xc6, Whose::Disk, Disk::set_multiple),
    // Power management: the drive is always active, and obeys.
    (0x94, 0x97, Whose::All, |_, _| Step::Done),
    (0x98, 0x98, Whose::All, |_, _| Step::Count(ACTIVE)),
    (0x99, 0x99, Whose::All, |_, _| Step::Done),
    (0xe0, 0xe3, Whose::All, |_, _| Step::Done),
    (0xe5, 0xe5, Whose::All, |_, _| Step::Count(ACTIVE)),
    (0xe6, 0xe6, Whose::All, |_, _| Step::Done),
    (0xe7, 0xe7, Whose::Disk, |_, _| Step::Run(vec![BlockOp::Flush])),
    (0xea, 0xea, Whose::Disk, |_, _| Step::Run(vec![BlockOp::Flush])),
    (0xec, 0xec, Whose::All, |disk, _| disk.identify_disk()),
    (0xef, 0xef, Whose::All, Disk::set_features),
];

/// PACKET: what to do comes as data.
fn packet_command(regs: &Regs) -> Step {
    // Overlapped commands are obsolete, and never were offered.
    const OVERLAP: u8 = 1 << 1;
    if regs.features[0] & OVERLAP != 0 { Step::Failed(ABRT) } else { Step::Packet }
}

impl Disk {
    /// A drive with this medium, or without one, that reaches guest RAM by `mem`.
    pub(crate) fn new(mem: Dma, kind: Kind, serial: String, medium: Option<Medium>) -> Disk {
        let state = DiskState::new(medium.is_some());
        let (medium, backend) = medium.unzip();
        let client = BlockClient::new(mem, backend, MAX_OPERATIONS);
        Disk { kind, maker: MAKER, serial, names: Names::default(), medium, client, state }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The medium, if there is one in the drive.
    pub(super) fn info(&self) -> Option<&BlockInfo> {
        self.medium.as_ref()
    }

    /// Bytes of the medium.
    pub(super) fn bytes(&self) -> u64 {
        self.info().map_or(0, |info| info.sectors.saturating_mul(SECTOR_SIZE))
    }

    /// Puts another medium in, or takes it out. What is under way is done with the one before.
    pub(crate) fn set_medium(&mut self, medium: Option<Medium>) {
        let (medium, backend) = medium.unzip();
        self.medium = medium;
        self.client.connect(backend);
        self.medium_changed();
    }

    /// Power-on and the reset line.
    pub(crate) fn reset(&mut self) {
        self.client.cancel_all();
        self.state = DiskState::new(self.medium.is_some());
    }

    /// Executes a command as far as no data cross; `regs` are its parameters.
    pub(crate) fn execute(&mut self, command: u8, regs: &Regs) -> Step {
        let covers = |first: u8, last: u8| (first..=last).contains(&command);
        let mine = |whose: Whose| whose == Whose::All || (whose == Whose::Disk) == (self.kind == Kind::Disk);
        if let Some((.., sectors)) = SECTORS.iter().find(|(first, last, _)| covers(*first, *last))
            && self.kind == Kind::Disk
        {
            return self.move_sectors(regs, *sectors);
        }
        match COMMANDS.iter().find(|(first, last, whose, _)| covers(*first, *last) && mine(*whose)) {
            Some((.., run)) => run(self, regs),
            None => {
                tracing::debug!(command, "ata: a command that this drive does not have");
                Step::Failed(ABRT)
            }
        }
    }

    /// The sector that the registers name.
    fn sector(&self, regs: &Regs, ext: bool) -> Option<u64> {
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

    /// Whether the medium has these bytes.
    pub(super) fn has(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.bytes())
    }

    /// Where on the medium the command's sectors are, in bytes, and how many bytes, if the medium has them.
    fn range(&self, regs: &Regs, ext: bool) -> Option<(u64, u64)> {
        let offset = self.sector(regs, ext)?.checked_mul(SECTOR_SIZE)?;
        let len = regs.sectors(ext) * SECTOR_SIZE;
        self.has(offset, len).then_some((offset, len))
    }

    fn move_sectors(&self, regs: &Regs, sectors: Sectors) -> Step {
        let Sectors { write, ext, dma, multiple } = sectors;
        let read_only = self.info().is_none_or(|info| info.read_only);
        if write && read_only || multiple && self.state.multiple == 0 {
            return Step::Failed(ABRT);
        }
        let Some((offset, len)) = self.range(regs, ext) else { return Step::Failed(IDNF) };
        let block = if multiple { u64::from(self.state.multiple) } else { 1 } * SECTOR_SIZE;
        Step::Move(Move { write, dma, offset, len, block })
    }

    fn verify(&self, regs: &Regs, ext: bool) -> Step {
        match self.range(regs, ext) {
            Some(_) => Step::Done,
            None => Step::Failed(IDNF),
        }
    }

    fn initialize_parameters(&mut self, regs: &Regs) -> Step {
        let (track, heads) = (regs.count[0], (regs.device & 0x0f) + 1);
        if track == 0 {
            return Step::Failed(ABRT);
        }
        (self.state.heads, self.state.track) = (heads, track);
        Step::Done
    }

    fn set_multiple(&mut self, regs: &Regs) -> Step {
        let count = regs.count[0];
        if count > MAX_MULTIPLE || !(count == 0 || count.is_power_of_two()) {
            return Step::Failed(ABRT);
        }
        self.state.multiple = count;
        Step::Done
    }

    fn identify_disk(&self) -> Step {
        match self.kind {
            Kind::Disk => self.identify(),
            // It says by its signature that it is no disk (7.12.3).
            Kind::CdRom => Step::Signature,
        }
    }

    fn identify(&self) -> Step {
        Step::Answer(identify::identify(self).iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    fn set_features(&mut self, regs: &Regs) -> Step {
        /// Subcommands (7.45.2).
        const WRITE_CACHE: [u8; 2] = [0x82, 0x02];
        const TRANSFER_MODE: u8 = 0x03;
        /// Look-ahead, and whether a software reset restores settings: neither can be observed here.
        const ACCEPTED: [u8; 4] = [0x55, 0xaa, 0x66, 0xcc];
        let count = regs.count[0];
        match regs.features[0] {
            feature if WRITE_CACHE.contains(&feature) && self.kind == Kind::Disk => {
                self.state.write_cache = feature == WRITE_CACHE[1];
                if self.state.write_cache { Step::Done } else { Step::Run(vec![BlockOp::Flush]) }
            }
            TRANSFER_MODE if identify::has_mode(count) => {
                self.state.mode = count;
                Step::Done
            }
            feature if ACCEPTED.contains(&feature) => Step::Done,
            _ => Step::Failed(ABRT),
        }
    }

    /// DATA SET MANAGEMENT with TRIM (7.5).
    fn data_set_management(&mut self, regs: &Regs) -> Step {
        const TRIM: u8 = 1;
        let blocks = regs.sectors(true);
        let can = self.info().is_some_and(|info| info.discard && !info.read_only);
        if !can || regs.features[0] != TRIM || blocks > MAX_RANGE_BLOCKS.into() {
            return Step::Failed(ABRT);
        }
        Step::Ranges(blocks * SECTOR_SIZE)
    }

    /// The ranges have come: 48 bits of address, 16 bits of length; those of length 0 are none.
    pub(crate) fn ranges(&self, ranges: &[u8]) -> Step {
        let entries = ranges.as_chunks::<8>().0.iter().take(RANGES * usize::from(MAX_RANGE_BLOCKS));
        let mut found = Vec::new();
        for entry in entries {
            let entry = u64::from_le_bytes(*entry);
            let (sector, count) = (entry & 0xffff_ffff_ffff, entry >> 48);
            let (offset, len) = (sector.saturating_mul(SECTOR_SIZE), count * SECTOR_SIZE);
            if offset.saturating_add(len) > self.bytes() {
                return Step::Failed(IDNF | ABRT);
            }
            if count != 0 {
                found.push(BlockOp::Discard { offset, len });
            }
        }
        // The last one first.
        found.reverse();
        Step::Run(found)
    }

    /// What becomes of bytes that a command writes; `last` when the command has no more.
    pub(crate) fn write(&self, offset: u64, len: u64, last: bool) -> Vec<BlockOp> {
        let flush = (last && !self.state.write_cache).then_some(BlockOp::Flush);
        [BlockOp::Write { offset, len }].into_iter().chain(flush).collect()
    }

    /// Has command `tag` wait for `ops`, the first of which moves `data`. False when there is no medium, or the backend has too
    /// much to do.
    pub(crate) fn start(&mut self, tag: u8, mut ops: Vec<BlockOp>, data: Data) -> bool {
        ops.reverse();
        match ops.pop() {
            Some(op) => self.submit(tag, op, data, ops),
            None => true,
        }
    }

    /// Gives the backend an operation.
    fn submit(&mut self, tag: u8, op: BlockOp, data: Data, then: Vec<BlockOp>) -> bool {
        // Only a guest that resets again and again gets there.
        if !self.client.has_room() {
            return false;
        }
        let token = self.client.submit(op, data.clone());
        self.state.waiting.push(Waiting { tag, token, op, data, then });
        true
    }

    /// Whether command `tag` waits, and moves guest RAM.
    pub(crate) fn moves_memory(&self, tag: u8) -> bool {
        self.state.waiting.iter().any(|waiting| waiting.tag == tag && matches!(waiting.data, Data::Memory(_)))
    }

    /// Nobody waits for command `tag` any more. What it has given the backend leaves RAM alone from now on.
    pub(crate) fn cancel(&mut self, tag: u8) {
        let called_off = self.state.waiting.extract_if(.., |waiting| waiting.tag == tag);
        called_off.for_each(|waiting| self.client.cancel(waiting.token));
    }

    /// The next operation that the backend has done, or has failed at, of those that somebody waits for.
    pub(crate) fn next_ended(&mut self) -> Option<Ended> {
        let Finished { token, data, ok } = self.client.next_finished()?;
        let index = self.state.waiting.iter().position(|waiting| waiting.token == token)?;
        let Waiting { tag, op, mut then, .. } = self.state.waiting.remove(index);
        let next = if ok { then.pop() } else { None };
        let goes_on = next.map(|next| self.submit(tag, next, Data::None, then));
        Some(Ended { tag, op, data, ok: ok && goes_on != Some(false), last: goes_on != Some(true) })
    }

    /// What the error register says of a command whose operation has failed.
    pub(crate) fn medium_failed(&mut self, op: BlockOp) -> u8 {
        match (self.kind, op) {
            (Kind::CdRom, _) => self.sense(MEDIUM_ERROR),
            (Kind::Disk, BlockOp::Read { .. }) => UNC,
            (Kind::Disk, _) => ABRT,
        }
    }

    /// What it says of one whose data have no place in RAM.
    pub(crate) fn memory_failed(&mut self) -> u8 {
        match self.kind {
            Kind::Disk => ABRT,
            Kind::CdRom => self.sense(HARDWARE_ERROR),
        }
    }

    pub(crate) fn save(&self) -> DiskState {
        self.state.clone()
    }

    /// Whether `state` is one that this drive can have.
    pub(crate) fn fits(&self, state: &DiskState, mem: &Dma) -> bool {
        let later = |op: &BlockOp| match op {
            BlockOp::Discard { offset, len } | BlockOp::WriteZeroes { offset, len, .. } => self.has(*offset, *len),
            BlockOp::Flush => true,
            BlockOp::Read { .. } | BlockOp::Write { .. } => false,
        };
        let waits = |waiting: &Waiting| {
            let room = match &waiting.data {
                Data::Memory(buffer) => buffer.is_in(mem),
                Data::Bytes(bytes) => bytes.len() as u64 <= CHUNK,
                Data::None => true,
            };
            let now = match waiting.op {
                BlockOp::Read { offset, len } | BlockOp::Write { offset, len } => {
                    self.has(offset, len) && len <= waiting.data.len()
                }
                op => waiting.data == Data::None && later(&op),
            };
            now && room && waiting.then.iter().all(later)
        };
        state.waiting.len() <= MAX_OPERATIONS && state.waiting.iter().all(waits) && state.heads != 0 && state.track != 0
    }

    /// Replaces the state by one that fits. What was under way is given to the backend again; the commands for which that cannot
    /// be, since it has too much to do.
    pub(crate) fn restore(&mut self, mut state: DiskState) -> Vec<u8> {
        self.client.cancel_all();
        let waiting = std::mem::take(&mut state.waiting);
        self.state = state;
        let again = |Waiting { tag, op, data, then, .. }| (!self.submit(tag, op, data, then)).then_some(tag);
        waiting.into_iter().filter_map(again).collect()
    }
}

#[cfg(test)]
mod tests;
