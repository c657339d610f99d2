//! A drive's registers, and the protocols by which data cross (ATA/ATAPI-7 volume 2, 9). One command is under way at a time; what it
//! needs of the medium is the [`Disk`]'s.

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};

use super::disk::{CHUNK, Disk, DiskState, Ended, Kind, Move, Step};
use super::packet::PACKET;
use super::regs::{
    ABRT, BSY, COUNT, DEV, DEVICE, DRQ, ERR, FEATURES, LBA, READY, REASON_COMMAND, REASON_TO_HOST, Regs, push,
};
use crate::block::{BlockOp, SECTOR_SIZE};
use crate::buffer::Buffer;
use crate::fabric::Data;

/// The command that is under way, of which there is one.
const TAG: u8 = 0;

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
    /// The medium.
    Medium,
}

/// What the bytes that cross are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
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
struct Transfer {
    content: Content,
    to_host: bool,
    dma: bool,
    /// Where on the medium it goes on, in bytes.
    next: u64,
    /// Bytes that it has not begun with; in the buffer they count as begun.
    left: u64,
    /// The most bytes that the processor moves between two looks at the status.
    block: u64,
}

/// A [`TaskFile`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskFileState {
    registers: RegistersState,
    disk: DiskState,
}

/// What of it is not the disk's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct RegistersState {
    regs: Regs,
    interrupts: bool,
    phase: Phase,
    transfer: Transfer,
    buffer: Vec<u8>,
    /// The bus master has moved all that there was.
    dma_done: bool,
}

/// A drive with its registers.
pub(crate) struct TaskFile {
    pub(crate) disk: Disk,
    state: RegistersState,
}

impl TaskFile {
    pub(crate) fn new(disk: Disk) -> TaskFile {
        let mut drive = TaskFile { disk, state: RegistersState::default() };
        drive.reset();
        drive
    }

    /// Whether this is a CD-ROM drive.
    fn is_cd_rom(&self) -> bool {
        self.disk.kind() == Kind::CdRom
    }

    /// Power-on and the reset line.
    pub(crate) fn reset(&mut self) {
        self.begin_reset();
        self.disk.reset();
        self.end_reset();
    }

    /// Stops whatever is under way.
    fn stop(&mut self) {
        self.disk.cancel(TAG);
        let regs = std::mem::take(&mut self.state.regs);
        self.state = RegistersState { regs, ..RegistersState::default() };
    }

    /// A software reset begins, which stops the command under way.
    pub(crate) fn begin_reset(&mut self) {
        self.stop();
        self.state.regs.status = BSY;
    }

    /// A software reset ends.
    pub(crate) fn end_reset(&mut self) {
        self.state.regs.set_signature(self.is_cd_rom());
    }

    /// EXECUTE DEVICE DIAGNOSTIC: no error was found.
    pub(crate) fn diagnose(&mut self) {
        self.stop();
        self.end_reset();
    }

    /// DEVICE RESET, which a packet device obeys at any time; it keeps its place on the cable.
    fn device_reset(&mut self) {
        let device = self.state.regs.device & DEV;
        self.diagnose();
        self.state.regs.device = device;
    }

    pub(crate) fn status(&self) -> u8 {
        self.state.regs.status
    }

    pub(crate) fn error_register(&self) -> u8 {
        self.state.regs.error
    }

    /// The device register, whoever was selected.
    pub(crate) fn device_register(&self, second: bool) -> u8 {
        // Bits 7 and 5 are obsolete and read as ones.
        self.state.regs.device & !DEV | 0xa0 | if second { DEV } else { 0 }
    }

    /// A register that keeps its previous contents.
    pub(crate) fn register(&self, offset: u16, previous: usize) -> u8 {
        let regs = &self.state.regs;
        let pair = match offset {
            COUNT => Some(&regs.count),
            _ => LBA.iter().position(|at| *at == offset).and_then(|index| regs.lba.get(index)),
        };
        pair.and_then(|pair| pair.get(previous)).copied().unwrap_or(0)
    }

    pub(crate) fn write_register(&mut self, offset: u16, value: u8) {
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

    pub(crate) fn interrupts(&self) -> bool {
        self.state.interrupts
    }

    pub(crate) fn interrupt(&mut self) {
        self.state.interrupts = true;
    }

    pub(crate) fn acknowledge(&mut self) {
        self.state.interrupts = false;
    }

    /// A command was written.
    pub(crate) fn command(&mut self, command: u8) {
        const DEVICE_RESET: u8 = 0x08;
        if self.is_cd_rom() && command == DEVICE_RESET {
            return self.device_reset();
        }
        if self.state.regs.status & (BSY | DRQ) != 0 {
            return;
        }
        self.stop();
        self.state.regs.error = 0;
        let step = self.disk.execute(command, &self.state.regs);
        self.follow(step);
    }

    /// Goes on with a command as far as it was decoded.
    fn follow(&mut self, step: Step) {
        match step {
            Step::Done => self.finish(),
            Step::Count(count) => {
                self.finish();
                self.state.regs.count[0] = count;
            }
            Step::Failed(error) => self.fail(error),
            Step::Signature => {
                self.device_reset();
                self.fail(ABRT);
            }
            Step::Answer(bytes) => self.answer(bytes, SECTOR_SIZE, false),
            Step::Move(Move { write, dma, offset, len, block }) => {
                let content = Content::Medium;
                self.begin(Transfer { content, to_host: !write, dma, next: offset, left: len, block });
            }
            Step::Ranges(left) => {
                self.begin(Transfer { content: Content::Ranges, dma: true, left, ..Transfer::default() })
            }
            Step::Packet => self.await_packet(),
            Step::Run(ops) if ops.is_empty() => self.finish(),
            Step::Run(ops) => self.submit(ops, Data::None),
        }
    }

    /// The command is over.
    fn finish(&mut self) {
        self.state.phase = Phase::Idle;
        self.state.buffer = Vec::new();
        self.state.regs.status = READY;
        if self.is_cd_rom() {
            self.state.regs.count[0] = REASON_COMMAND | REASON_TO_HOST;
        }
        self.interrupt();
    }

    /// The command has failed.
    fn fail(&mut self, error: u8) {
        self.finish();
        self.state.regs.status |= ERR;
        self.state.regs.error = error;
    }

    /// Waits for what the medium has to do.
    fn submit(&mut self, ops: Vec<BlockOp>, data: Data) {
        self.state.phase = Phase::Medium;
        self.state.regs.status = BSY;
        if !self.disk.start(TAG, ops, data) {
            self.fail(ABRT);
        }
    }

    /// Begins a transfer that was checked.
    fn begin(&mut self, transfer: Transfer) {
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
        let read = BlockOp::Read { offset: self.state.transfer.next, len };
        self.submit(vec![read], Data::Bytes(vec![0; len as usize]));
    }

    /// Makes room for what the processor is to write.
    fn make_room(&mut self) {
        self.state.buffer = vec![0; self.next_chunk() as usize];
        self.open_port(0);
    }

    /// Hands `bytes` to the host as an answer.
    fn answer(&mut self, bytes: Vec<u8>, block: u64, dma: bool) {
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

    /// Waits for a command packet.
    fn await_packet(&mut self) {
        const DMA: u8 = 1;
        let dma = self.state.regs.features[0] & DMA != 0;
        self.state.transfer = Transfer { content: Content::Packet, block: PACKET as u64, dma, ..Transfer::default() };
        self.state.buffer = vec![0; PACKET];
        self.open_port(0);
    }

    /// The packet has come. How its data cross is told by the registers.
    fn run_packet(&mut self) {
        let mut packet = [0; PACKET];
        packet.iter_mut().zip(&self.state.buffer).for_each(|(to, from)| *to = *from);
        let (block, dma) = (self.packet_limit(), self.state.transfer.dma);
        match self.disk.packet(&packet) {
            Step::Answer(bytes) => self.answer(bytes, block, dma),
            Step::Move(sectors) => self.follow(Step::Move(Move { block, dma, ..sectors })),
            step => self.follow(step),
        }
    }

    /// The most bytes that the processor moves at once.
    fn packet_limit(&self) -> u64 {
        match u64::from(self.state.regs.byte_count()) & !1 {
            0 => 0xfffe,
            limit => limit,
        }
    }

    /// Lets the processor move the block that begins at byte `at` of the buffer.
    fn open_port(&mut self, at: usize) {
        let end = at.saturating_add(self.state.transfer.block as usize).min(self.state.buffer.len());
        self.state.phase = Phase::Port { at, end };
        self.state.regs.status = READY | DRQ;
        if self.is_cd_rom() {
            let to_host = self.state.transfer.to_host;
            self.state.regs.count[0] = if to_host { REASON_TO_HOST } else { REASON_COMMAND };
            if to_host {
                self.state.regs.set_byte_count((end - at).min(0xffff) as u16);
            }
        }
    }

    pub(crate) fn data_read(&mut self, size: u8) -> u32 {
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

    pub(crate) fn data_write(&mut self, size: u8, value: u32) {
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
            (true, 0) if !self.is_cd_rom() => {
                // A disk's last block is the end of its command, and that makes no interrupt (PIO data-in).
                self.state.phase = Phase::Idle;
                self.state.buffer = Vec::new();
                self.state.regs.status = READY;
            }
            (true, 0) => self.finish(),
            (true, _) => self.read_chunk(),
            (false, left) => {
                let bytes = std::mem::take(&mut self.state.buffer);
                let len = bytes.len() as u64;
                self.submit(self.disk.write(next, len, len >= left), Data::Bytes(bytes));
            }
        }
    }

    /// Bytes that the bus master is to move, if the drive waits for it.
    pub(crate) fn awaits_dma(&self) -> Option<u64> {
        matches!(self.state.phase, Phase::Dma).then(|| match self.state.transfer.content {
            Content::Answer => self.state.buffer.len() as u64,
            _ => self.state.transfer.left,
        })
    }

    /// The bus master moves all of it, to or from `memory`.
    pub(crate) fn start_dma(&mut self, mem: &Dma, memory: Buffer) {
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
                let step = self.disk.ranges(&ranges);
                self.follow(step);
            }
            _ if to_host => self.submit(vec![BlockOp::Read { offset: next, len: left }], Data::Memory(memory)),
            _ => self.submit(self.disk.write(next, left, true), Data::Memory(memory)),
        }
    }

    /// The bus master found no RAM where it was sent.
    pub(crate) fn fail_dma(&mut self) {
        let error = self.disk.memory_failed();
        self.fail(error);
    }

    /// The bus master was stopped: a job that moves data by it is off.
    pub(crate) fn cut_dma(&mut self) {
        if self.disk.moves_memory(TAG) {
            self.stop();
            self.state.regs.status = READY | ERR;
            self.state.regs.error = ABRT;
        }
    }

    /// The bus master may not use the bus any more: what it moves begins anew when it may.
    pub(crate) fn recall_dma(&mut self) {
        if self.disk.moves_memory(TAG) {
            self.disk.cancel(TAG);
            self.state.phase = Phase::Dma;
            self.state.regs.status = READY | DRQ;
        }
    }

    /// Whether the bus master has moved everything since the last call.
    pub(crate) fn take_dma_done(&mut self) -> bool {
        std::mem::take(&mut self.state.dma_done)
    }

    /// Goes on with what the backend has done, or has failed at.
    pub(crate) fn attend(&mut self) {
        while let Some(ended) = self.disk.next_ended() {
            self.ended(ended);
        }
    }

    fn ended(&mut self, Ended { op, data, ok, last, .. }: Ended) {
        if !ok {
            let error = self.disk.medium_failed(op);
            return self.fail(error);
        }
        self.state.dma_done |= matches!(data, Data::Memory(_));
        if let BlockOp::Read { len, .. } | BlockOp::Write { len, .. } = op {
            self.moved(len);
        }
        match (op, data) {
            _ if !last => {}
            (BlockOp::Read { .. }, Data::Bytes(bytes)) => {
                self.state.buffer = bytes;
                self.open_port(0);
                self.interrupt();
            }
            (BlockOp::Write { .. }, _) if self.state.transfer.left != 0 => {
                self.make_room();
                self.interrupt();
            }
            _ => self.finish(),
        }
    }

    fn moved(&mut self, len: u64) {
        let transfer = &mut self.state.transfer;
        transfer.next = transfer.next.saturating_add(len);
        transfer.left = transfer.left.saturating_sub(len);
    }

    pub(crate) fn save(&self) -> TaskFileState {
        TaskFileState { registers: self.state.clone(), disk: self.disk.save() }
    }

    /// Whether `state` is one that this drive can have.
    pub(crate) fn fits(&self, state: &TaskFileState, mem: &Dma) -> bool {
        let TaskFileState { registers, disk } = state;
        let Transfer { content, next, left, block, .. } = registers.transfer;
        let phase = match registers.phase {
            Phase::Idle | Phase::Dma => !disk.waits(TAG),
            Phase::Port { at, end } => at <= end && end <= registers.buffer.len() && block != 0 && !disk.waits(TAG),
            Phase::Medium => disk.waits(TAG),
        };
        phase
            && registers.buffer.len() as u64 <= CHUNK
            && (content != Content::Medium || self.disk.has(next, left))
            && (content != Content::Ranges || left <= CHUNK)
            && self.disk.fits(disk, mem)
    }

    /// Replaces the state by one that fits.
    pub(crate) fn restore(&mut self, state: TaskFileState) {
        self.state = state.registers;
        if self.disk.restore(state.disk).contains(&TAG) {
            self.fail(ABRT);
        }
    }
}
