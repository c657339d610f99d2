//! A drive: its registers, and the protocols by which data cross (ATA/ATAPI-7 volume 2, 9).

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};

use super::ata::MAX_MULTIPLE;
use super::atapi::PacketState;
use super::regs::{
    ABRT, BSY, COUNT, DEV, DEVICE, DRQ, ERR, FEATURES, LBA, READY, REASON_COMMAND, REASON_TO_HOST, Regs, UNC, push,
};
use super::{Medium, Names};
use crate::block::{BlockInfo, BlockJob, BlockOp, SECTOR_SIZE, Target};
use crate::buffer::Buffer;

/// Bytes that a drive keeps when the processor moves them: a job for the host side.
pub(super) const CHUNK: u64 = 64 << 10;

/// Jobs that a drive may have given to its backend, those included that a reset has made useless.
const MAX_JOBS: u32 = 32;

/// What a drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Disk,
    CdRom,
}

/// A job that the backend has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    token: u64,
    op: BlockOp,
    /// Where in RAM its data are; otherwise they are in the drive's buffer.
    memory: Option<Buffer>,
}

/// What a drive waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Phase {
    /// A command.
    #[default]
    Idle,
    /// The processor, to move bytes `at..end` of the buffer.
    Port { at: usize, end: usize },
    /// The bus master.
    Dma,
    /// The host side.
    Job(Job),
}

/// What the bytes that cross are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Content {
    /// The medium's.
    #[default]
    Medium,
    /// What a command has put into the buffer.
    Answer,
    /// A command packet.
    Packet,
    /// The ranges of DATA SET MANAGEMENT.
    Ranges,
}

/// A command that moves data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub(super) content: Content,
    pub(super) to_host: bool,
    pub(super) dma: bool,
    /// Where on the medium it goes on, in bytes.
    pub(super) next: u64,
    /// Bytes that it has not begun with; in the buffer they count as begun.
    pub(super) left: u64,
    /// The most bytes that the processor moves between two looks at the status.
    pub(super) block: u64,
}

/// A drive as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DriveState {
    pub(super) regs: Regs,
    interrupts: bool,
    phase: Phase,
    pub(super) transfer: Transfer,
    pub(super) buffer: Vec<u8>,
    /// The bus master has moved all that there was.
    dma_done: bool,
    /// Sectors of a block of READ MULTIPLE and WRITE MULTIPLE; 0 when they are off.
    pub(super) multiple: u8,
    /// The transfer mode as SET FEATURES puts it.
    pub(super) mode: u8,
    pub(super) write_cache: bool,
    /// Heads and sectors of a track, for addresses by cylinder.
    pub(super) heads: u8,
    pub(super) track: u8,
    /// Ranges that are to be discarded: offset and length in bytes.
    pub(super) ranges: Vec<(u64, u64)>,
    pub(super) packet: PacketState,
}

/// What drives' names begin with unless somebody says otherwise.
pub(super) const MAKER: &str = "MIMUS";

/// A drive.
pub(super) struct Drive {
    pub(super) kind: Kind,
    /// What its name begins with.
    pub(super) maker: &'static str,
    pub(super) serial: String,
    pub(super) names: Names,
    medium: Option<Medium>,
    /// Never used twice, not even after a reset: the backend may be late.
    next_token: u64,
    /// Jobs whose end the backend has not told.
    jobs: u32,
    pub(super) state: DriveState,
}

impl Drive {
    pub(super) fn new(kind: Kind, serial: String, medium: Option<Medium>) -> Drive {
        let state = DriveState {
            regs: Regs::default(),
            interrupts: false,
            phase: Phase::Idle,
            transfer: Transfer::default(),
            buffer: Vec::new(),
            dma_done: false,
            multiple: MAX_MULTIPLE,
            mode: 0,
            write_cache: true,
            heads: 16,
            track: 63,
            ranges: Vec::new(),
            packet: PacketState::new(medium.is_some()),
        };
        let mut drive =
            Drive { kind, maker: MAKER, serial, names: Names::default(), medium, next_token: 0, jobs: 0, state };
        drive.reset();
        drive
    }

    /// The medium, if there is one in the drive.
    pub(super) fn info(&self) -> Option<&BlockInfo> {
        self.medium.as_ref().map(|(info, _)| info)
    }

    /// Bytes of the medium.
    pub(super) fn bytes(&self) -> u64 {
        self.info().map_or(0, |info| info.sectors.saturating_mul(SECTOR_SIZE))
    }

    /// Puts another medium in, or takes it out. What is under way is done with the one before.
    pub(super) fn set_medium(&mut self, medium: Option<Medium>) {
        self.settle();
        self.medium = medium;
        self.medium_changed();
    }

    /// Power-on and the reset line.
    pub(super) fn reset(&mut self) {
        self.begin_reset();
        self.state.multiple = MAX_MULTIPLE;
        self.state.mode = 0;
        self.state.write_cache = true;
        (self.state.heads, self.state.track) = (16, 63);
        self.state.packet = PacketState::new(self.medium.is_some());
        self.end_reset();
    }

    /// Waits until what is under way has left RAM alone.
    fn settle(&mut self) {
        if let (Phase::Job(_), Some((_, backend))) = (&self.state.phase, &mut self.medium) {
            backend.settle();
        }
    }

    /// Stops whatever is under way.
    fn stop(&mut self) {
        self.settle();
        let state = &mut self.state;
        state.phase = Phase::Idle;
        state.transfer = Transfer::default();
        state.buffer = Vec::new();
        state.ranges = Vec::new();
        state.dma_done = false;
        state.interrupts = false;
    }

    /// A software reset begins: it stops everything.
    pub(super) fn begin_reset(&mut self) {
        self.stop();
        self.state.regs.status = BSY;
    }

    /// A software reset ends.
    pub(super) fn end_reset(&mut self) {
        self.state.regs.set_signature(self.kind == Kind::CdRom);
    }

    /// EXECUTE DEVICE DIAGNOSTIC: no error was found.
    pub(super) fn diagnose(&mut self) {
        self.stop();
        self.end_reset();
    }

    /// DEVICE RESET, which a packet device obeys at any time; it keeps its place on the cable.
    pub(super) fn device_reset(&mut self) {
        let device = self.state.regs.device & DEV;
        self.diagnose();
        self.state.regs.device = device;
    }

    pub(super) fn status(&self) -> u8 {
        self.state.regs.status
    }

    pub(super) fn error_register(&self) -> u8 {
        self.state.regs.error
    }

    /// The device register, whoever was selected.
    pub(super) fn device_register(&self, second: bool) -> u8 {
        // Bits 7 and 5 are obsolete and read as ones.
        self.state.regs.device & !DEV | 0xa0 | if second { DEV } else { 0 }
    }

    /// A register that keeps its previous contents.
    pub(super) fn register(&self, offset: u16, previous: usize) -> u8 {
        let regs = &self.state.regs;
        let pair = match offset {
            COUNT => Some(&regs.count),
            _ => LBA.iter().position(|at| *at == offset).and_then(|index| regs.lba.get(index)),
        };
        pair.and_then(|pair| pair.get(previous)).copied().unwrap_or(0)
    }

    pub(super) fn write_register(&mut self, offset: u16, value: u8) {
        let regs = &mut self.state.regs;
        // While a command is under way its registers are its own.
        if regs.status & (BSY | DRQ) != 0 && offset != DEVICE {
            return;
        }
        match offset {
            FEATURES => push(&mut regs.features, value),
            COUNT => push(&mut regs.count, value),
            DEVICE => regs.device = value,
            _ => {
                if let Some(pair) = LBA.iter().position(|at| *at == offset).and_then(|index| regs.lba.get_mut(index)) {
                    push(pair, value);
                }
            }
        }
    }

    pub(super) fn interrupts(&self) -> bool {
        self.state.interrupts
    }

    pub(super) fn interrupt(&mut self) {
        self.state.interrupts = true;
    }

    pub(super) fn acknowledge(&mut self) {
        self.state.interrupts = false;
    }

    /// A command was written.
    pub(super) fn command(&mut self, command: u8) {
        const DEVICE_RESET: u8 = 0x08;
        if self.kind == Kind::CdRom && command == DEVICE_RESET {
            return self.device_reset();
        }
        if self.state.regs.status & (BSY | DRQ) != 0 {
            return;
        }
        self.stop();
        self.state.regs.error = 0;
        self.execute(command);
    }

    /// The command is over.
    pub(super) fn finish(&mut self) {
        self.state.phase = Phase::Idle;
        self.state.buffer = Vec::new();
        self.state.regs.status = READY;
        if self.kind == Kind::CdRom {
            self.state.regs.count[0] = REASON_COMMAND | REASON_TO_HOST;
        }
        self.interrupt();
    }

    /// The command has failed.
    pub(super) fn fail(&mut self, error: u8) {
        self.finish();
        self.state.regs.status |= ERR;
        self.state.regs.error = error;
    }

    /// Gives the backend a job.
    fn submit(&mut self, op: BlockOp, memory: Option<Buffer>) {
        if self.jobs >= MAX_JOBS {
            // Only a guest that resets again and again gets here.
            return self.fail(ABRT);
        }
        let Some((_, backend)) = &mut self.medium else { return self.fail(ABRT) };
        self.next_token += 1;
        self.jobs += 1;
        let token = self.next_token;
        self.state.phase = Phase::Job(Job { token, op, memory });
        self.state.regs.status = BSY;
        backend.submit(BlockJob { token, op });
    }

    /// Begins a transfer that was checked.
    pub(super) fn begin(&mut self, transfer: Transfer) {
        self.state.transfer = transfer;
        let Transfer { dma, to_host, .. } = self.state.transfer;
        match (dma, to_host) {
            (true, _) => {
                self.state.phase = Phase::Dma;
                self.state.regs.status = READY | DRQ;
            }
            (false, true) => self.read_chunk(),
            (false, false) => self.make_room(),
        }
    }

    fn next_chunk(&self) -> u64 {
        self.state.transfer.left.min(CHUNK)
    }

    fn read_chunk(&mut self) {
        let len = self.next_chunk();
        self.state.buffer = vec![0; len as usize];
        self.submit(BlockOp::Read { offset: self.state.transfer.next, len }, None);
    }

    /// Makes room for what the processor is to write.
    fn make_room(&mut self) {
        self.state.buffer = vec![0; self.next_chunk() as usize];
        self.open_port(0);
    }

    /// Hands `bytes` to the host as an answer.
    pub(super) fn answer(&mut self, bytes: Vec<u8>, block: u64, dma: bool) {
        self.state.transfer = Transfer { content: Content::Answer, to_host: true, dma, block, ..Transfer::default() };
        self.state.buffer = bytes;
        if dma {
            self.state.phase = Phase::Dma;
            self.state.regs.status = READY | DRQ;
        } else {
            self.open_port(0);
            self.interrupt();
        }
    }

    /// Waits for a command packet of `bytes` bytes.
    pub(super) fn await_packet(&mut self, bytes: usize) {
        self.state.transfer = Transfer {
            content: Content::Packet,
            block: bytes as u64,
            dma: self.state.transfer.dma,
            ..Transfer::default()
        };
        self.state.buffer = vec![0; bytes];
        self.open_port(0);
    }

    /// Lets the processor move the block that begins at byte `at` of the buffer.
    fn open_port(&mut self, at: usize) {
        let end = at.saturating_add(self.state.transfer.block as usize).min(self.state.buffer.len());
        self.state.phase = Phase::Port { at, end };
        self.state.regs.status = READY | DRQ;
        if self.kind == Kind::CdRom {
            let to_host = self.state.transfer.to_host;
            self.state.regs.count[0] = if to_host { REASON_TO_HOST } else { REASON_COMMAND };
            if to_host {
                self.state.regs.set_byte_count((end - at).min(0xffff) as u16);
            }
        }
    }

    pub(super) fn data_read(&mut self, size: u8) -> u32 {
        let Phase::Port { at, end } = self.state.phase else { return 0 };
        if !self.state.transfer.to_host {
            return 0;
        }
        let to = at.saturating_add(size.into()).min(end);
        let bytes = self.state.buffer.get(at..to).unwrap_or_default();
        let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        self.advance_port(to, end);
        value
    }

    pub(super) fn data_write(&mut self, size: u8, value: u32) {
        let Phase::Port { at, end } = self.state.phase else { return };
        if self.state.transfer.to_host {
            return;
        }
        let to = at.saturating_add(size.into()).min(end);
        let room = self.state.buffer.get_mut(at..to).unwrap_or_default();
        room.iter_mut().zip(value.to_le_bytes()).for_each(|(room, byte)| *room = byte);
        self.advance_port(to, end);
    }

    fn advance_port(&mut self, at: usize, end: usize) {
        self.state.phase = Phase::Port { at, end };
        if at < end {
            return;
        }
        // A block has crossed.
        let Transfer { content, to_host, left, next, .. } = self.state.transfer;
        if content == Content::Packet {
            return self.run_packet();
        }
        if end < self.state.buffer.len() {
            self.open_port(end);
            return self.interrupt();
        }
        match (to_host, left) {
            (true, 0) if self.kind == Kind::Disk => {
                // A disk's last block is the end of its command, and that makes no interrupt (PIO data-in).
                self.state.phase = Phase::Idle;
                self.state.buffer = Vec::new();
                self.state.regs.status = READY;
            }
            (true, 0) => self.finish(),
            (true, _) => self.read_chunk(),
            (false, _) => self.submit(BlockOp::Write { offset: next, len: self.state.buffer.len() as u64 }, None),
        }
    }

    /// Bytes that the bus master is to move, if the drive waits for it.
    pub(super) fn awaits_dma(&self) -> Option<u64> {
        matches!(self.state.phase, Phase::Dma).then(|| match self.state.transfer.content {
            Content::Answer => self.state.buffer.len() as u64,
            _ => self.state.transfer.left,
        })
    }

    /// The bus master moves all of it, to or from `memory`.
    pub(super) fn start_dma(&mut self, mem: &Dma, memory: Buffer) {
        let Transfer { content, to_host, next, left, .. } = self.state.transfer;
        match content {
            Content::Answer => {
                memory.write(mem, 0, &self.state.buffer);
                self.state.dma_done = true;
                self.finish();
            }
            Content::Ranges => {
                let mut ranges = vec![0; left as usize];
                memory.read(mem, 0, &mut ranges);
                self.state.dma_done = true;
                self.discard(&ranges);
            }
            _ if to_host => self.submit(BlockOp::Read { offset: next, len: left }, Some(memory)),
            _ => self.submit(BlockOp::Write { offset: next, len: left }, Some(memory)),
        }
    }

    /// The bus master found no RAM where it was sent.
    pub(super) fn fail_dma(&mut self) {
        match self.kind {
            Kind::Disk => self.fail(ABRT),
            Kind::CdRom => self.fail_packet(super::atapi::HARDWARE_ERROR),
        }
    }

    /// The bus master was stopped: a job that moves data by it is off.
    pub(super) fn cut_dma(&mut self) {
        if matches!(&self.state.phase, Phase::Job(Job { memory: Some(_), .. })) {
            self.stop();
            self.state.regs.status = READY | ERR;
            self.state.regs.error = ABRT;
        }
    }

    /// Whether the bus master has moved everything since the last call.
    pub(super) fn take_dma_done(&mut self) -> bool {
        std::mem::take(&mut self.state.dma_done)
    }

    fn job(&self, token: u64) -> Option<&Job> {
        match &self.state.phase {
            Phase::Job(job) if job.token == token => Some(job),
            _ => None,
        }
    }

    /// A job that reads, if its bytes `at..at + count` are as many.
    fn read_job(&self, token: u64, at: u64, count: usize) -> Option<&Job> {
        // No job is longer than what its buffer has.
        self.job(token).filter(|job| match job.op {
            BlockOp::Read { len, .. } => at.checked_add(count as u64).is_some_and(|end| end <= len),
            _ => false,
        })
    }

    /// Where in RAM a part of a job goes that the bus master has.
    pub(super) fn target(&self, mem: &Dma, token: u64, at: u64, count: usize) -> Option<Target> {
        // Without a medium there is nobody to settle with.
        self.medium.as_ref()?;
        self.read_job(token, at, count)?.memory.as_ref()?.target(mem, at, count)
    }

    pub(super) fn fill(&mut self, mem: &Dma, token: u64, at: u64, bytes: &[u8]) -> bool {
        let Some(Job { memory, .. }) = self.read_job(token, at, bytes.len()) else { return false };
        if let Some(memory) = memory {
            return memory.write(mem, at, bytes) == bytes.len();
        }
        let from = at as usize;
        let room = self.state.buffer.get_mut(from..from + bytes.len());
        room.map(|room| room.copy_from_slice(bytes)).is_some()
    }

    pub(super) fn take(&self, mem: &Dma, token: u64, at: u64, out: &mut [u8]) -> bool {
        let Some(Job { op: BlockOp::Write { len, .. }, memory, .. }) = self.job(token) else { return false };
        if at.checked_add(out.len() as u64).is_none_or(|end| end > *len) {
            return false;
        }
        if let Some(memory) = memory {
            return memory.read(mem, at, out) == out.len();
        }
        let from = at as usize;
        let bytes = self.state.buffer.get(from..from + out.len());
        bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
    }

    pub(super) fn done(&mut self, token: u64, ok: bool) {
        self.jobs = self.jobs.saturating_sub(1);
        let Some(Job { op, memory, .. }) = self.job(token) else { return };
        let (op, dma) = (*op, memory.is_some());
        if !ok {
            return match (self.kind, op) {
                (Kind::CdRom, _) => self.fail_packet(super::atapi::MEDIUM_ERROR),
                (Kind::Disk, BlockOp::Read { .. }) => self.fail(UNC),
                (Kind::Disk, _) => self.fail(ABRT),
            };
        }
        self.state.dma_done |= dma;
        match op {
            BlockOp::Read { len, .. } if !dma => {
                self.moved(len);
                self.open_port(0);
                self.interrupt();
            }
            BlockOp::Read { .. } => self.finish(),
            BlockOp::Write { len, .. } => {
                self.moved(len);
                if self.state.transfer.left != 0 {
                    self.make_room();
                    self.interrupt();
                } else if self.state.write_cache {
                    self.finish();
                } else {
                    self.flush();
                }
            }
            BlockOp::Discard { .. } => self.discard_next(),
            BlockOp::Flush | BlockOp::WriteZeroes { .. } => self.finish(),
        }
    }

    fn moved(&mut self, len: u64) {
        let transfer = &mut self.state.transfer;
        transfer.next = transfer.next.saturating_add(len);
        transfer.left = transfer.left.saturating_sub(len);
    }

    /// Makes what was written last.
    pub(super) fn flush(&mut self) {
        self.submit(BlockOp::Flush, None);
    }

    /// Goes on with the ranges to be discarded.
    pub(super) fn discard_next(&mut self) {
        match self.state.ranges.pop() {
            Some((offset, len)) => self.submit(BlockOp::Discard { offset, len }, None),
            None => self.finish(),
        }
    }

    pub(super) fn save(&self) -> DriveState {
        self.state.clone()
    }

    /// Whether `state` is one that this drive can have.
    pub(super) fn fits(&self, state: &DriveState, mem: &Dma) -> bool {
        let Transfer { next, left, block, .. } = state.transfer;
        let has = |offset: u64, len: u64| offset.checked_add(len).is_some_and(|end| end <= self.bytes());
        let phase = match &state.phase {
            Phase::Idle => true,
            Phase::Port { at, end } => at <= end && *end <= state.buffer.len() && block != 0,
            Phase::Dma => true,
            Phase::Job(job) => match (job.op, &job.memory) {
                (BlockOp::Read { offset, len } | BlockOp::Write { offset, len }, memory) => {
                    let room = memory.as_ref().map_or(state.buffer.len() as u64, Buffer::len);
                    has(offset, len) && len <= room && memory.as_ref().is_none_or(|memory| memory.is_in(mem))
                }
                (BlockOp::Discard { offset, len } | BlockOp::WriteZeroes { offset, len, .. }, None) => has(offset, len),
                (BlockOp::Flush, None) => true,
                _ => false,
            },
        };
        phase
            && state.buffer.len() as u64 <= CHUNK
            && (state.transfer.content != Content::Medium || has(next, left))
            && (state.transfer.content != Content::Ranges || left <= CHUNK)
            && state.ranges.iter().all(|(offset, len)| has(*offset, *len))
            && state.heads != 0
            && state.track != 0
    }

    pub(super) fn restore(&mut self, state: DriveState) {
        self.settle();
        self.state = state;
        if let Phase::Job(Job { op, memory, .. }) = &self.state.phase {
            let (op, memory) = (*op, memory.clone());
            self.submit(op, memory);
        }
    }
}
