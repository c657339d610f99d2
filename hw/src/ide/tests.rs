//! The controller as its drivers see it, and what it does to those that break the rules.

use std::sync::Arc;

use mimus_softmmu::{CodeSink, Dma, Dropped, Ram};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::block::testing::Jobs;
use crate::block::{BlockJob, BlockOp};
use crate::pci::Function;

const RAM: u64 = 4 << 20;
const SECTORS: u64 = 1 << 20;
const BLOCKS: u64 = 1000;
const MASTER: IdePlace = IdePlace { channel: 0, unit: 0 };
const CD: IdePlace = IdePlace { channel: 1, unit: 0 };

/// Bits of the status.
const DRQ: u8 = 8;
const READY: u8 = 0x50;

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

struct Setup {
    ram: Arc<Ram>,
    ide: Ide,
    disk: Jobs,
    cd: Jobs,
}

fn info(sectors: u64) -> BlockInfo {
    BlockInfo { sectors, read_only: false, discard: true, serial: "MM00001".into() }
}

fn controller(mem: Dma, disk: &Jobs, cd: &Jobs) -> Ide {
    let mut ide = Ide::new(mem);
    assert!(ide.plug(MASTER, IdeDevice::Disk { info: info(SECTORS), backend: Box::new(disk.clone()) }));
    let medium = BlockInfo { read_only: true, ..info(BLOCKS * 4) };
    let medium: Option<(BlockInfo, Box<dyn BlockBackend>)> = Some((medium, Box::new(cd.clone())));
    assert!(ide.plug(CD, IdeDevice::CdRom { medium, serial: "MM00003".into() }));
    ide
}

impl Setup {
    fn new() -> Setup {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let ram = Arc::new(Ram::new(memory));
        let (disk, cd) = (Jobs::default(), Jobs::default());
        let ide = controller(Dma::new(ram.clone(), Arc::new(NoCode)), &disk, &cd);
        Setup { ram, ide, disk, cd }
    }

    fn status(&mut self, channel: usize) -> u8 {
        self.ide.command_read(channel, 7, 1) as u8
    }

    fn write(&mut self, channel: usize, values: &[(u16, u8)]) {
        for (offset, value) in values {
            self.ide.command_write(channel, *offset, 1, (*value).into());
        }
    }

    /// Features, count, LBA and device, then the command.
    fn command(&mut self, lba: u32, count: u8, command: u8) {
        let [low, mid, high, top] = lba.to_le_bytes();
        self.write(0, &[(1, 0), (2, count), (3, low), (4, mid), (5, high), (6, 0xe0 | top), (7, command)]);
    }

    fn words(&mut self, channel: usize, count: usize) -> Vec<u16> {
        (0..count).map(|_| self.ide.command_read(channel, 0, 2) as u16).collect()
    }

    /// The one job that the backend has got.
    fn job(&self, place: IdePlace) -> BlockJob {
        let jobs = if place == CD { &self.cd } else { &self.disk };
        let [job] = jobs.take();
        job
    }

    /// The host side is done with a job.
    fn done(&mut self, job: &BlockJob, ok: bool) {
        job.finish(ok);
        self.ide.attend();
    }

    /// Does a job: reads bring bytes that follow from their position, writes are returned.
    fn finish(&mut self, job: &BlockJob, ok: bool) -> Vec<u8> {
        let mut written = Vec::new();
        match job.op {
            BlockOp::Read { offset, len } => {
                let bytes: Vec<u8> = (offset..offset + len).map(|at| (at / 512 + at % 512) as u8).collect();
                assert!(job.buffer.fill(0, &bytes[..100]));
                assert!(job.buffer.fill(100, &bytes[100..]));
                assert!(!job.buffer.fill(100, &bytes), "beyond the end");
            }
            BlockOp::Write { len, .. } => {
                written = vec![0; len as usize];
                assert!(job.buffer.take(0, &mut written));
                assert!(!job.buffer.take(1, &mut vec![0; len as usize]), "beyond the end");
            }
            _ => {}
        }
        self.done(job, ok);
        written
    }

    /// A descriptor table at 0x1000, and the bus master started.
    fn start_bus_master(&mut self, channel: u16, pieces: &[(u32, u16)], to_ram: bool) {
        for (index, (gpa, len)) in pieces.iter().enumerate() {
            let end = if index + 1 == pieces.len() { 0x8000_0000 } else { 0 };
            let entry = [gpa.to_le_bytes(), (u32::from(*len) | end).to_le_bytes()].concat();
            self.ram.memory().write_slice(&entry, GuestAddress(0x1000 + 8 * index as u64)).unwrap();
        }
        self.ide.bus_master_write(8 * channel, 1, 0);
        self.ide.bus_master_write(8 * channel + 4, 4, 0x1000);
        self.ide.bus_master_write(8 * channel + 2, 1, 6);
        self.ide.bus_master_write(8 * channel, 1, if to_ram { 9 } else { 1 });
    }

    fn bus_master_status(&self, channel: u16) -> u8 {
        self.ide.bus_master_read(8 * channel + 2, 1) as u8
    }

    fn byte(&self, gpa: u64) -> u8 {
        self.ram.memory().read_obj(GuestAddress(gpa)).unwrap()
    }

    /// Sends a packet on the CD-ROM's channel.
    fn packet(&mut self, bytes: &[u8], dma: bool) {
        let limit = 2048u16.to_le_bytes();
        self.write(1, &[(6, 0xa0), (1, dma.into()), (4, limit[0]), (5, limit[1]), (7, 0xa0)]);
        assert_eq!((self.status(1), self.ide.command_read(1, 2, 1)), (READY | DRQ, 1));
        let mut packet = [0; 12];
        packet[..bytes.len()].copy_from_slice(bytes);
        for word in packet.as_chunks().0 {
            self.ide.command_write(1, 0, 2, u16::from_le_bytes(*word).into());
        }
    }

    /// Sends a packet and reads what comes back.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.packet(bytes, false);
        let mut answer = Vec::new();
        while self.status(1) & DRQ != 0 {
            assert_eq!(self.ide.command_read(1, 2, 1), 2, "data to the host");
            let count = self.ide.command_read(1, 4, 1) | self.ide.command_read(1, 5, 1) << 8;
            for word in self.words(1, count.div_ceil(2) as usize) {
                answer.extend(word.to_le_bytes());
            }
        }
        assert_eq!(self.ide.command_read(1, 2, 1), 3, "over");
        answer
    }

    fn sense(&mut self) -> (u8, u8) {
        let sense = self.ask(&[3, 0, 0, 0, 18]);
        (sense[2], sense[12])
    }
}

fn string(words: &[u16]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

#[test]
fn a_disk_says_what_it_is() {
    let mut s = Setup::new();
    assert_eq!(s.status(0), READY);
    s.command(0, 0, 0xec);
    assert!(s.ide.irq(0));
    assert_eq!(s.status(0), READY | DRQ);
    assert!(!s.ide.irq(0), "reading the status lowers it");
    let words = s.words(0, 256);
    assert_eq!((string(&words[10..20]), string(&words[27..47])), ("MM00001".into(), "MIMUS HARDDISK".into()));
    assert!((1..=4).contains(&string(&words[23..27]).len()), "systems show four characters of the revision");
    assert_eq!((words[60], words[61], words[100], words[101]), (0, 16, 0, 16));
    assert_eq!((s.status(0), s.ide.irq(0)), (READY, false));
    // It is no packet device.
    s.command(0, 0, 0xa1);
    assert_eq!((s.status(0), s.ide.command_read(0, 1, 1)), (READY | 1, 4));
}

#[test]
fn a_disk_may_have_other_names() {
    let mut setup = Setup::new();
    let names = Names { model: "Some disk".to_owned(), revision: "2.5+".to_owned(), world_wide: 0x5000_c500_1234_abcd };
    setup.ide.name(MASTER, names);
    setup.command(0, 0, 0xec);
    let words = setup.words(0, 256);
    assert_eq!((string(&words[27..47]).trim_end(), string(&words[23..27]).trim_end()), ("Some disk", "2.5+"));
    assert_eq!((&words[108..112], words[84] & 1 << 8), (&[0x5000, 0xc500, 0x1234, 0xabcd][..], 1 << 8));
}

#[test]
fn sectors_cross_by_the_port_in_jobs_of_64_kib() {
    let mut s = Setup::new();
    s.command(5, 130, 0x20);
    assert_eq!(s.status(0), 0x80);
    let job = s.job(MASTER);
    assert_eq!(job.op, BlockOp::Read { offset: 5 * 512, len: 64 << 10 });
    s.finish(&job, true);
    for sector in 0..128u8 {
        assert!(s.ide.irq(0));
        assert_eq!(s.status(0), READY | DRQ);
        assert_eq!(s.words(0, 256)[1].to_le_bytes(), [sector + 5 + 2, sector + 5 + 3]);
    }
    let job = s.job(MASTER);
    assert_eq!(job.op, BlockOp::Read { offset: (5 + 128) * 512, len: 1024 });
    s.finish(&job, true);
    // 32 bits at a time, too.
    assert_eq!(s.ide.command_read(0, 0, 4), 0x88_87_86_85);
    s.words(0, 254 + 256);
    assert_eq!((s.status(0), s.disk.all().len()), (READY, 0));
}

#[test]
fn writes_wait_for_the_backend_and_flush_without_a_cache() {
    let mut s = Setup::new();
    s.write(0, &[(1, 0x82)]);
    s.write(0, &[(7, 0xef)]);
    let job = s.job(MASTER);
    assert_eq!(job.op, BlockOp::Flush);
    s.finish(&job, true);
    s.write(0, &[(2, 4), (7, 0xc6)]);
    s.status(0);
    s.command(9, 6, 0xc5);
    assert!(!s.ide.irq(0), "the first block makes no interrupt");
    assert_eq!(s.status(0), READY | DRQ);
    for word in 0..4 * 256 {
        s.ide.command_write(0, 0, 2, word);
    }
    assert!(s.ide.irq(0), "the next block is a short one");
    for word in 0..2 * 128 {
        s.ide.command_write(0, 0, 4, 0x0101_0101 * word % 256);
    }
    let job = s.job(MASTER);
    assert_eq!((job.op, s.status(0)), (BlockOp::Write { offset: 9 * 512, len: 6 * 512 }, 0x80));
    let written = s.finish(&job, true);
    assert_eq!((written[2], written[3], written[2046], written[2047]), (1, 0, 0xff, 3));
    let job = s.job(MASTER);
    assert_eq!((job.op, s.status(0)), (BlockOp::Flush, 0x80));
    s.finish(&job, true);
    assert!(s.ide.irq(0));
    assert_eq!(s.status(0), READY);
}

#[test]
fn the_bus_master_moves_a_command_at_once() {
    let mut s = Setup::new();
    // 48 bits: the previous contents are the upper halves.
    s.write(0, &[(6, 0x40), (2, 1), (2, 0), (3, 0), (3, 7), (4, 0), (4, 0), (5, 0), (5, 0), (7, 0x25)]);
    assert_eq!((s.status(0), s.disk.all().len()), (READY | DRQ, 0));
    s.start_bus_master(0, &[(0x2000, 512), (0x4000, 0), (0x1_5000, 0xfe00)], true);
    let job = s.job(MASTER);
    assert_eq!(job.op, BlockOp::Read { offset: 7 * 512, len: 256 * 512 });
    assert_eq!(s.bus_master_status(0), 1);
    s.finish(&job, true);
    assert!(s.ide.irq(0));
    assert_eq!((s.bus_master_status(0), s.status(0)), (4, READY));
    assert_eq!((s.byte(0x2000), s.byte(0x2001), s.byte(0x4000), s.byte(0x1_5000)), (7, 8, 8, 136));
    s.ide.bus_master_write(2, 1, 4);
    assert_eq!(s.bus_master_status(0), 0);

    // Writing, with a table that has more room: the bus master stays active.
    s.command(1, 2, 0xca);
    s.start_bus_master(0, &[(0x2000, 2048)], false);
    let job = s.job(MASTER);
    assert_eq!(job.op, BlockOp::Write { offset: 512, len: 1024 });
    let written = s.finish(&job, true);
    assert_eq!((written[0], written[1], s.bus_master_status(0)), (7, 8, 5));
}

#[test]
fn whatever_ends_a_job_ends_its_copies() {
    let ends: [fn(&mut Setup); 6] = [
        |s| s.ide.control_write(0, 4),
        |s| s.ide.bus_master_write(0, 1, 8),
        |s| s.write(0, &[(7, 0x90)]),
        |s| s.ide.reset(),
        |s| s.ide.restore(Setup::new().ide.save()),
        |s| s.ide.enable_bus_master(false),
    ];
    for (index, end) in ends.iter().enumerate() {
        let mut s = Setup::new();
        s.command(100, 8, 0xc8);
        s.start_bus_master(0, &[(0x3000, 0x800), (0x8000, 0x800)], true);
        let BlockJob { buffer, .. } = s.job(MASTER);
        let target = buffer.target(0x7ff, 2).unwrap();
        target.slices().unwrap().iter().for_each(|slice| slice.copy_from(&[9u8]));
        assert_eq!([0x37fe, 0x37ff, 0x8000, 0x8001].map(|gpa| s.byte(gpa)), [0, 9, 9, 0]);
        drop(target);
        assert!(buffer.target(1, 0x1000).is_none(), "beyond the end");
        end(&mut s);
        assert!(buffer.target(0, 1).is_none() && !buffer.fill(0, &[1]), "{index}");
    }
    // What the processor moves is the drive's.
    let mut s = Setup::new();
    s.command(100, 8, 0x20);
    assert!(s.job(MASTER).buffer.target(0, 512).is_none());
    // What is under way is done with the medium that it was begun with.
    s.packet(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1], true);
    s.start_bus_master(1, &[(0x3000, 0x800)], true);
    let job = s.job(CD);
    s.ide.set_medium(CD, None);
    assert!(job.buffer.fill(0, &[6; 0x800]));
    s.done(&job, true);
    assert_eq!((s.byte(0x3000), s.bus_master_status(1)), (6, 4));
}

#[test]
fn bad_tables_stop_the_bus_master() {
    let mut s = Setup::new();
    s.command(0, 2, 0xc8);
    s.start_bus_master(0, &[(0x2000, 512)], true);
    assert_eq!((s.bus_master_status(0), s.status(0)), (0, READY | DRQ), "too short");
    s.start_bus_master(0, &[(RAM as u32 - 512, 1024)], true);
    assert_eq!((s.bus_master_status(0), s.status(0)), (6, READY | 1), "not RAM");
    s.command(0, 2, 0xc8);
    s.ide.bus_master_write(0, 1, 0);
    s.ide.bus_master_write(4, 4, u32::MAX);
    s.ide.bus_master_write(0, 1, 9);
    assert_eq!((s.bus_master_status(0) & 3, s.disk.all().len()), (2, 0), "no table");
    // Stopped in the middle: nothing of it reaches RAM any more.
    s.command(0, 2, 0xc8);
    s.start_bus_master(0, &[(0x2000, 1024)], true);
    let job = s.job(MASTER);
    s.ide.bus_master_write(0, 1, 0);
    assert!(!job.buffer.fill(0, &[1; 512]));
    s.done(&job, true);
    assert_eq!((s.byte(0x2000), s.status(0) & 0x81), (0, 1));
}

#[test]
fn a_bus_master_waits_until_it_may_use_the_bus() {
    let mut s = Setup::new();
    s.ide.enable_bus_master(false);
    s.command(0, 1, 0xc8);
    s.start_bus_master(0, &[(0x2000, 512)], true);
    assert_eq!((s.bus_master_status(0), s.disk.all().len()), (1, 0));
    s.ide.enable_bus_master(true);
    // It loses the bus in the middle, and begins again when it has it back.
    let job = s.job(MASTER);
    assert!(job.buffer.fill(0, &[1; 256]));
    s.ide.enable_bus_master(false);
    assert!(!job.buffer.fill(256, &[1; 256]));
    s.done(&job, false);
    assert_eq!((s.bus_master_status(0), s.status(0), s.byte(0x2100)), (1, READY | DRQ, 0));
    s.ide.enable_bus_master(true);
    let again = s.job(MASTER);
    assert_eq!(again.op, job.op);
    assert!(again.buffer.fill(0, &[2; 512]));
    s.done(&again, true);
    assert_eq!((s.bus_master_status(0), s.status(0), s.byte(0x2000), s.byte(0x21ff)), (4, READY, 2, 2));
}

#[test]
fn the_function_always_answers_at_its_ports() {
    let s = Setup::new();
    let mut function = IdeFunction::new(s.ide);
    let sizes = |function: &IdeFunction| function.fixed().iter().map(|fixed| fixed.size).collect::<Vec<_>>();
    assert_eq!(sizes(&function), [8, 1, 8, 1]);
    assert_eq!(function.fixed()[2].base, 0x170);
    function.fixed_write(0, 2, 6, 1, 0xa0);
    function.fixed_write(0, 2, 7, 1, 0xa1);
    assert_eq!((function.isa_irqs(), function.fixed_read(0, 3, 0, 1)), (1 << 15, 0x58));
    assert_eq!((function.fixed_read(0, 2, 7, 1), function.isa_irqs()), (0x58, 0));
    assert_eq!(function.fixed_read(0, 2, 0, 4) as u16, 0x85c0);
    let state = function.save();
    assert!(function.fits(&state) && !function.fits(&state[1..]));
    function.reset();
    assert_eq!(function.fixed_read(0, 2, 7, 1), 0);
    function.restore(&state);
    assert_eq!(function.fixed_read(0, 2, 7, 1), 0x58);
}

#[test]
fn trim_discards_range_after_range() {
    let mut s = Setup::new();
    let ranges: [u64; 3] = [10 | 8 << 48, 0, 100 | 1 << 48];
    let bytes: Vec<u8> = ranges.iter().flat_map(|range| range.to_le_bytes()).collect();
    s.ram.memory().write_slice(&bytes, GuestAddress(0x2000)).unwrap();
    s.write(0, &[(6, 0x40), (1, 1), (2, 0), (2, 1), (7, 0x06)]);
    s.start_bus_master(0, &[(0x2000, 512)], false);
    for (offset, len) in [(100 * 512, 512), (10 * 512, 8 * 512)] {
        let job = s.job(MASTER);
        assert_eq!(job.op, BlockOp::Discard { offset, len });
        s.finish(&job, true);
    }
    assert_eq!((s.status(0), s.bus_master_status(0)), (READY, 4));
}

#[test]
fn failures_and_what_is_out_of_reach() {
    let mut s = Setup::new();
    // The last sector of 28 bits and beyond the end.
    for (lba, count, command) in [(SECTORS as u32 - 1, 2, 0x20), (0x0fff_ffff, 1, 0xc8), (SECTORS as u32, 1, 0x30)] {
        s.command(lba, count, command);
        assert_eq!((s.status(0), s.ide.command_read(0, 1, 1)), (READY | 1, 0x10), "{lba:#x}");
    }
    s.write(0, &[(6, 0xa0), (3, 0), (7, 0x20)]);
    assert_eq!(s.ide.command_read(0, 1, 1), 0x10, "there is no sector 0 of a track");
    s.write(0, &[(6, 0xa1), (2, 1), (3, 2), (4, 1), (5, 0), (7, 0x20)]);
    let job = s.job(MASTER);
    assert_eq!(job.op, BlockOp::Read { offset: ((16 + 1) * 63 + 1) * 512, len: 512 });
    s.done(&job, false);
    assert_eq!((s.status(0), s.ide.command_read(0, 1, 1)), (READY | 1, 0x40));
    s.write(0, &[(2, 0), (7, 0xc6)]);
    for command in [0x00, 0xb0, 0xff, 0x3d, 0xc4] {
        s.command(0, 1, command);
        assert_eq!((s.status(0), s.ide.command_read(0, 1, 1)), (READY | 1, 4), "{command:#x}");
    }
    // Nothing there.
    s.write(0, &[(3, 7), (6, 0xb0)]);
    assert_eq!((s.status(0), s.ide.command_read(0, 6, 1)), (0, 0xb0));
    assert_eq!(s.ide.command_read(0, 3, 1), 7, "the first drive answers for the second");
}

#[test]
fn resets_show_signatures_and_forget_jobs() {
    let mut s = Setup::new();
    s.command(0, 1, 0x20);
    let job = s.job(MASTER);
    for channel in 0..2 {
        s.ide.control_write(channel, 4);
        assert_eq!(s.status(channel) & 0x80, 0x80);
        s.ide.control_write(channel, 0);
    }
    assert!(!job.buffer.fill(0, &[0; 512]));
    s.done(&job, true);
    let signature = |s: &mut Setup, channel| [2, 3, 4, 5].map(|at| s.ide.command_read(channel, at, 1));
    assert_eq!((s.status(0), signature(&mut s, 0)), (READY, [1, 1, 0, 0]));
    assert_eq!((s.status(1), signature(&mut s, 1)), (0, [1, 1, 0x14, 0xeb]));
    s.write(1, &[(7, 0xec)]);
    assert_eq!((s.status(1) & 1, signature(&mut s, 1)[2..].to_vec()), (1, vec![0x14, 0xeb]));
    // No interrupts, and the previous contents.
    s.ide.control_write(0, 2);
    s.write(0, &[(3, 0x12), (3, 0x34), (7, 0xec)]);
    assert!(!s.ide.irq(0));
    s.ide.control_write(0, 0x82);
    assert_eq!(s.ide.command_read(0, 3, 1), 0x12);
    s.ide.control_write(0, 0);
    assert!(s.ide.irq(0) && s.ide.command_read(0, 3, 1) == 0x34);
    // A guest that resets again and again does not fill the backend's queue.
    for _ in 0..100 {
        s.ide.control_write(0, 4);
        s.ide.control_write(0, 0);
        s.command(0, 1, 0x20);
    }
    assert_eq!(s.disk.all().len(), 32);
}

#[test]
fn packets() {
    let mut s = Setup::new();
    s.write(1, &[(6, 0xa0), (7, 0xa1)]);
    assert_eq!(s.status(1), READY | DRQ);
    let words = s.words(1, 256);
    assert_eq!((words[0], string(&words[27..47])), (0x85c0, "MIMUS DVD-ROM".into()));
    assert_eq!(s.ask(&[0x25])[..], [[0, 0, 3, 0xe7], [0, 0, 8, 0]].concat());
    let inquiry = s.ask(&[0x12, 0, 0, 0, 36]);
    assert_eq!(&inquiry[8..15], b"MIMUS  ");
    assert_eq!(String::from_utf8_lossy(&inquiry[32..36]).trim_end(), string(&words[23..27]));
    assert_eq!(s.ask(&[0x43, 0, 0, 0, 0, 0, 0, 0, 12]), [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(s.ask(&[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 12]), [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 15, 25]);
    assert_eq!(s.ask(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8]), [0, 0, 0, 36, 0, 0, 0, 8]);
    assert_eq!(s.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]), [0, 6, 4, 16, 0, 2, 0, 0]);
    assert_eq!(s.ask(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 28])[8..10], [0x2a, 18]);
    assert_eq!(s.ask(&[0x1a, 0, 0x3f, 0, 255])[4..6], [1, 6]);
    assert!(s.ask(&[0xee]).is_empty());
    assert_eq!((s.status(1), s.sense()), (READY | 1, (5, 0x20)));
    assert_eq!(s.sense(), (0, 0), "told once");
    s.ask(&[0x28, 0, 0, 0, 3, 0xe7, 0, 0, 2]);
    assert_eq!(s.sense(), (5, 0x21));
}

#[test]
fn blocks_of_a_cd_cross_by_port_and_bus_master() {
    let mut s = Setup::new();
    s.packet(&[0x28, 0, 0, 0, 0, 7, 0, 0, 3], false);
    let job = s.job(CD);
    assert_eq!(job.op, BlockOp::Read { offset: 7 * 2048, len: 3 * 2048 });
    s.finish(&job, true);
    for block in 0..3u32 {
        assert!(s.ide.irq(1));
        assert_eq!((s.status(1), s.ide.command_read(1, 5, 1)), (READY | DRQ, 8));
        assert_eq!(s.words(1, 1024)[0] & 0xff, (28 + 4 * block) as u16);
    }
    assert!(s.ide.irq(1));
    assert_eq!((s.status(1), s.ide.command_read(1, 2, 1)), (READY, 3));
    s.packet(&[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 2], true);
    s.start_bus_master(1, &[(0x8000, 4096)], true);
    let job = s.job(CD);
    assert_eq!(job.op, BlockOp::Read { offset: 0, len: 4096 });
    s.finish(&job, true);
    assert_eq!((s.status(1), s.bus_master_status(1), s.byte(0x8000 + 512)), (READY, 4, 1));
    s.packet(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1], false);
    let job = s.job(CD);
    s.done(&job, false);
    assert_eq!((s.status(1) & 1, s.sense()), (1, (3, 0x11)));
    // An answer by the bus master.
    s.packet(&[0x25], true);
    s.start_bus_master(1, &[(0x9000, 8)], true);
    assert_eq!((s.byte(0x9002), s.byte(0x9006), s.status(1)), (3, 8, READY));
}

#[test]
fn the_medium_goes_and_comes() {
    let mut s = Setup::new();
    s.ask(&[0x1e, 0, 0, 0, 1]);
    s.ask(&[0x1b, 0, 0, 0, 2]);
    assert_eq!(s.sense(), (5, 0x53), "locked");
    s.ask(&[0x1e, 0, 0, 0, 0]);
    s.ask(&[0x1b, 0, 0, 0, 2]);
    assert_eq!(s.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8])[4..6], [3, 0]);
    s.ask(&[0x00]);
    assert_eq!(s.sense(), (2, 0x3a));
    s.ask(&[0x1b, 0, 0, 0, 3]);
    assert_eq!(s.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8])[4..6], [2, 2]);
    s.ask(&[0x00]);
    assert_eq!(s.status(1), READY);
}

#[test]
fn the_host_changes_the_medium() {
    let mut s = Setup::new();
    assert_eq!(s.ide.tray(CD), Some(Tray { open: false, locked: false }));
    assert_eq!(s.ide.tray(MASTER), None);
    s.packet(&[0x1e, 0, 0, 0, 1], false);
    assert_eq!(s.ide.tray(CD), Some(Tray { open: false, locked: true }));
    s.ide.want_medium(CD);
    assert_eq!(s.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8])[4..6], [1, 2], "an eject request, the medium is there");
    assert!(!s.ide.set_medium(MASTER, None));
    assert!(s.ide.set_medium(CD, None));
    assert_eq!(s.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8])[4..6], [3, 0], "it is gone");
    s.packet(&[0x25], false);
    assert_eq!(s.sense(), (2, 0x3a));
    let other = Jobs::default();
    let medium = BlockInfo { read_only: true, ..info(8) };
    assert!(s.ide.set_medium(CD, Some((medium, Box::new(other.clone())))));
    assert_eq!(s.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8])[4..6], [2, 2], "another has come");
    s.packet(&[0], false);
    assert_eq!(s.sense(), (6, 0x28), "the next command hears of it");
    assert_eq!(s.ask(&[0x25]), [0, 0, 0, 1, 0, 0, 8, 0], "two blocks");
    s.packet(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1], false);
    assert_eq!((other.all().len(), s.cd.all().len()), (1, 0));
}

#[test]
fn state_is_saved_in_the_middle_of_a_transfer() {
    let mut s = Setup::new();
    s.command(3, 2, 0x20);
    let job = s.job(MASTER);
    s.finish(&job, true);
    s.words(0, 100);
    s.packet(&[0x28, 0, 0, 0, 0, 7, 0, 0, 1], true);
    s.start_bus_master(1, &[(0x8000, 2048)], true);
    let before = s.job(CD);
    let state: IdeState = postcard::from_bytes(&postcard::to_stdvec(&s.ide.save()).unwrap()).unwrap();
    assert_eq!(state, s.ide.save());
    let mut other = Setup::new();
    assert!(other.ide.fits(&state));
    other.ide.restore(state.clone());
    assert_eq!(other.words(0, 156 + 256)[0].to_le_bytes(), [3 + 200, 3 + 201]);
    assert_eq!(other.status(0), READY);
    let job = other.job(CD);
    assert_eq!(job.op, before.op);
    other.finish(&job, true);
    assert_eq!((other.byte(0x8000), other.status(1)), (28, READY));
    // One of a smaller disk does not fit.
    let mut small = Ide::new(Dma::new(s.ram.clone(), Arc::new(NoCode)));
    assert!(small.plug(MASTER, IdeDevice::Disk { info: info(2), backend: Box::new(Jobs::default()) }));
    assert!(!small.fits(&state));
}

#[test]
fn hostile_accesses() {
    let mut s = Setup::new();
    s.ram.memory().write_slice(&[0xff; 64], GuestAddress(0x3000)).unwrap();
    let mut seed = 1u64;
    let mut random = move || {
        // Marsaglia's xorshift.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..200_000 {
        let value = random() as u32;
        let (channel, offset, size) = ((random() & 1) as usize, (random() & 7) as u16, 1 << (random() % 3));
        match random() % 9 {
            0..3 => s.ide.command_write(channel, offset, size, value),
            3 => {
                s.ide.command_write(channel, 7, 1, [0xc8, 0x25, 0xca, 0x20, 0xc5, 0xa0, 0xec, 6][random() as usize % 8])
            }
            4 => drop(s.ide.command_read(channel, offset, size)),
            5 => s.ide.bus_master_write((random() & 15) as u16, size, value & 0x3fff),
            6 => s.ide.control_write(channel, value as u8 & if round % 100 == 0 { 0xff } else { 0x82 }),
            7 => drop(s.ide.bus_master_read((random() & 15) as u16, size)),
            _ => {
                for job in [s.disk.all(), s.cd.all()].concat() {
                    job.buffer.fill(random() % 1024, &[0; 512]);
                    job.buffer.take(random() % 1024, &mut [0; 512]);
                    s.done(&job, random() & 7 != 0);
                }
            }
        }
        if round % 1000 == 0 {
            let state = s.ide.save();
            assert!(s.ide.fits(&state), "what it becomes is what it can have been: {state:?}");
        }
    }
}

#[test]
fn a_disk_has_two_cylinders_at_least() {
    for (sectors, cylinders) in [(1, 2), (1008, 2), (4032, 4), (1 << 30, 16383)] {
        let mut s = Setup::new();
        s.ide = Ide::new(Dma::new(s.ram.clone(), Arc::new(NoCode)));
        assert!(s.ide.plug(MASTER, IdeDevice::Disk { info: info(sectors), backend: Box::new(s.disk.clone()) }));
        s.command(0, 0, 0xec);
        let words = s.words(0, 256);
        assert_eq!((words[1], words[3], words[6]), (cylinders, 16, 63), "{sectors} sectors");
        assert!(words[54] >= cylinders, "{sectors} sectors");
    }
}
