//! Several commands at one disk.

use std::sync::Arc;

use mimus_softmmu::{CodeSink, Dropped, Ram};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::block::testing::Jobs;
use crate::buffer::{Buffer, Segment};

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

fn mem() -> Dma {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    Dma::new(Arc::new(Ram::new(memory)), Arc::new(NoCode))
}

fn disk(backend: &Jobs) -> Disk {
    disk_on(&mem(), backend)
}

fn disk_on(mem: &Dma, backend: &Jobs) -> Disk {
    let info = BlockInfo { sectors: 1000, read_only: false, discard: true, serial: "1".into() };
    Disk::new(mem.clone(), Kind::Disk, "1".into(), Some((info, Box::new(backend.clone()))))
}

/// A 48-bit command's parameters.
fn at(lba: u8, count: u8) -> Regs {
    Regs { lba: [[lba, 0], [0, 0], [0, 0]], count: [count, 0], device: USE_LBA, ..Regs::default() }
}

fn ram(gpa: u64, len: u32) -> Data {
    Data::Memory(Buffer::new(vec![Segment { gpa, len }]))
}

/// READ DMA EXT under this tag, to guest RAM.
fn read(disk: &mut Disk, tag: u8, lba: u8, gpa: u64) {
    let Step::Move(Move { write: false, dma: true, offset, len, .. }) = disk.execute(0x25, &at(lba, 1)) else {
        panic!()
    };
    assert!(disk.start(tag, vec![BlockOp::Read { offset, len }], ram(gpa, len as u32)));
}

#[test]
fn several_commands_wait_and_end_in_any_order() {
    let (backend, mem) = (Jobs::default(), mem());
    let mut disk = disk_on(&mem, &backend);
    read(&mut disk, 3, 10, 0x1000);
    read(&mut disk, 7, 20, 0x2000);
    let [first, second] = backend.take();
    assert!(second.buffer.fill(0, &[2; 512]) && first.buffer.fill(0, &[1; 512]));
    assert!(!first.buffer.fill(1, &[1; 512]), "beyond the end");
    for (job, tag) in [(second, 7), (first, 3)] {
        job.finish(true);
        let ended = disk.next_ended().unwrap();
        assert_eq!((ended.tag, ended.op, ended.ok, ended.last), (tag, job.op, true, true));
        job.finish(true);
        assert_eq!(disk.next_ended(), None, "once");
    }
    assert_eq!(
        (mem.read_obj::<u8>(GuestAddress(0x1000)).unwrap(), mem.read_obj::<u8>(GuestAddress(0x21ff)).unwrap()),
        (1, 2)
    );
}

#[test]
fn a_command_that_is_called_off_leaves_the_others_alone() {
    let backend = Jobs::default();
    let mut disk = disk(&backend);
    read(&mut disk, 0, 10, 0x1000);
    read(&mut disk, 1, 20, 0x2000);
    let [first, second] = backend.take();
    disk.cancel(0);
    assert!(!first.buffer.fill(0, &[1; 512]));
    assert!(second.buffer.fill(0, &[1; 512]));
    first.finish(true);
    assert_eq!(disk.next_ended(), None);
    second.finish(false);
    assert_eq!(disk.next_ended().map(|ended| (ended.tag, ended.ok, ended.last)), Some((1, false, true)));
}

#[test]
fn one_command_becomes_several_operations() {
    let backend = Jobs::default();
    let mut disk = disk(&backend);
    // Without a write cache a write is followed by a flush, and what is done before it does not end the command.
    let no_cache = Regs { features: [0x82, 0], ..Regs::default() };
    assert_eq!(disk.execute(0xef, &no_cache), Step::Run(vec![BlockOp::Flush]));
    let write = disk.write(0, 512, true);
    assert_eq!(write, [BlockOp::Write { offset: 0, len: 512 }, BlockOp::Flush]);
    assert!(disk.start(5, write.clone(), ram(0x1000, 512)));
    let [job] = backend.take();
    job.finish(true);
    let ended = disk.next_ended().unwrap();
    assert_eq!((ended.data, ended.last), (ram(0x1000, 512), false));
    let [job] = backend.take();
    job.finish(true);
    assert_eq!(disk.next_ended().map(|ended| (ended.op, ended.last)), Some((BlockOp::Flush, true)));
    // What fails is not followed by anything.
    assert!(disk.start(5, write, ram(0x1000, 512)));
    let [job] = backend.take();
    job.finish(false);
    assert_eq!(disk.next_ended().map(|ended| (ended.ok, ended.last)), Some((false, true)));
    assert!(backend.all().is_empty());
}

#[test]
fn what_waits_is_state() {
    let (backend, other, mem) = (Jobs::default(), Jobs::default(), mem());
    let mut first = disk(&backend);
    read(&mut first, 3, 10, 0x1000);
    read(&mut first, 7, 20, 0x2000);
    let state = first.save();
    let mut second = disk(&other);
    assert!(second.fits(&state, &mem));
    assert!(second.restore(state.clone()).is_empty());
    assert_eq!(backend.ops(), other.ops());
    // Nor does what reaches outside RAM fit.
    let mut outside = state;
    outside.waiting[0].data = ram(1 << 30, 512);
    assert!(!second.fits(&outside, &mem));
}
