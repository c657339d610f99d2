//! The disk, and what it does to drivers that break the rules.

use std::sync::Arc;

use super::*;
use crate::block::BlockJob;
use crate::block::testing::Jobs;
use crate::virtio::Virtio;
use crate::virtio::testing::{BASE, Driver, INDIRECT, NEXT, Offered, SIZE, WRITE, setup};
use mimus_softmmu::Ram;

const SECTORS: u64 = 64;

fn info() -> BlockInfo {
    BlockInfo { sectors: SECTORS, read_only: false, discard: true, serial: "mimus-disk".into() }
}

struct Setup {
    ram: Arc<Ram>,
    mem: Dma,
    jobs: Jobs,
    device: Virtio,
    driver: Driver,
}

impl Setup {
    fn new(info: BlockInfo) -> Setup {
        let (ram, mem) = setup();
        let jobs = Jobs::default();
        let mut device = Virtio::block(mem.clone(), info, Box::new(jobs.clone()));
        let driver = Driver::start(&mut device, &ram);
        Setup { ram, mem, jobs, device, driver }
    }

    /// Makes a request and tells the device.
    fn request(&mut self, kind: u32, sector: u64, data: &[&[u8]], room: &[u32]) -> Offered {
        let header = header(kind, sector);
        let readable: Vec<&[u8]> = std::iter::once(&header[..]).chain(data.iter().copied()).collect();
        let writable: Vec<u32> = room.iter().copied().chain([1]).collect();
        let offered = self.driver.offer(0, &readable, &writable);
        self.device.notify(0);
        offered
    }

    /// The host side is done with a job.
    fn done(&mut self, job: &BlockJob, ok: bool) {
        job.finish(ok);
        self.device.attend();
    }

    fn status(&self, offered: &Offered) -> u32 {
        u32::from(*self.driver.bytes(&offered.writable).last().unwrap())
    }

    fn needs_reset(&self) -> bool {
        self.device.status() & 64 != 0
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

#[test]
fn reads_and_writes_go_through_the_backend_piece_by_piece() {
    let mut s = Setup::new(info());
    let read = s.request(VIRTIO_BLK_T_IN, 2, &[], &[100, 924]);
    let data = [7u8; 512];
    let write = s.request(VIRTIO_BLK_T_OUT, 63, &[&data[..500], &data[500..]], &[]);
    let [first, second] = s.jobs.take();
    assert_eq!(first.op, BlockOp::Read { offset: 1024, len: 1024 });
    assert_eq!(second.op, BlockOp::Write { offset: 63 * 512, len: 512 });
    assert_eq!((s.driver.used(0), s.device.isr()), (vec![], 0), "nothing is done yet");

    // In any order, in pieces.
    let mut taken = [0; 512];
    let (a, b) = taken.split_at_mut(490);
    assert!(second.buffer.take(0, a) && second.buffer.take(490, b));
    assert_eq!(taken, data);
    assert!(!second.buffer.take(500, &mut [0; 13]), "beyond the end");
    s.done(&second, true);
    assert_eq!(s.driver.used(0), [(write.head, 1)]);
    assert_eq!((s.status(&write), s.device.isr()), (VIRTIO_BLK_S_OK, 1));

    assert!(!first.buffer.fill(600, &[3; 425]));
    assert!(first.buffer.fill(0, &[1; 600]) && first.buffer.fill(600, &[2; 424]));
    s.done(&first, true);
    assert_eq!(s.driver.used(0), [(read.head, 1025)]);
    let bytes = s.driver.bytes(&read.writable);
    assert_eq!((bytes[0], bytes[599], bytes[600], bytes[1023], bytes[1024]), (1, 1, 2, 2, 0));
    s.done(&first, true);
    assert_eq!(s.driver.used(0), [], "a job ends once");
}

#[test]
fn what_ends_a_request_ends_its_copies() {
    type End = (&'static str, fn(&mut Setup));
    let ends: [End; 5] = [
        ("a reset by the driver", |s| s.device.set_status(0)),
        ("one by the machine", |s| s.device.reset()),
        ("DRIVER_OK taken back", |s| s.device.set_status(11)),
        ("a bus that is taken away", |s| s.device.lose_bus()),
        ("a broken rule", |s| {
            s.driver.publish(0, 40_000);
            s.device.notify(0);
        }),
    ];
    for (what, end) in ends {
        let mut s = Setup::new(info());
        let read = s.request(VIRTIO_BLK_T_IN, 2, &[], &[512]);
        s.request(VIRTIO_BLK_T_OUT, 63, &[&[7; 512]], &[]);
        let [first, second] = s.jobs.take();
        assert!(first.buffer.fill(0, &[1; 256]) && second.buffer.take(0, &mut [0; 256]), "{what}");
        end(&mut s);
        assert!(!first.buffer.fill(256, &[2; 256]) && !second.buffer.take(256, &mut [0; 256]), "{what}");
        assert!(first.buffer.target(0, 512).is_none(), "{what}");
        [first, second].iter().for_each(|job| s.done(job, true));
        let bytes = s.driver.bytes(&read.writable);
        assert_eq!((bytes[255], bytes[256], s.driver.used(0)), (1, 0, vec![]), "{what}");
    }
}

#[test]
fn a_state_that_is_saved_during_a_copy_begins_it_again() {
    let mut s = Setup::new(info());
    let read = s.request(VIRTIO_BLK_T_IN, 2, &[], &[512]);
    let [job] = s.jobs.take();
    // Saving waits for no copy.
    let target = job.buffer.target(0, 256).unwrap();
    let state = s.device.save();
    target.slices().unwrap()[0].copy_from(&[1u8; 256]);
    drop(target);
    let jobs = Jobs::default();
    let mut back = Virtio::block(s.mem.clone(), info(), Box::new(jobs.clone()));
    back.restore(state);
    let [again] = jobs.take();
    assert_eq!(again.op, job.op);
    assert!(again.buffer.fill(0, &[2; 512]));
    again.finish(true);
    back.attend();
    assert_eq!(s.driver.used(0), [(read.head, 513)]);
    assert_eq!(s.driver.bytes(&read.writable)[..512], [2; 512]);
}

#[test]
fn every_kind_of_request() {
    let range = |sector: u64, count: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    let mut s = Setup::new(info());
    s.request(VIRTIO_BLK_T_FLUSH, 0, &[], &[]);
    s.request(VIRTIO_BLK_T_DISCARD, 0, &[&range(4, 8, 0)], &[]);
    s.request(VIRTIO_BLK_T_WRITE_ZEROES, 0, &[&range(0, 64, 1)], &[]);
    let expected = [
        BlockOp::Flush,
        BlockOp::Discard { offset: 2048, len: 4096 },
        BlockOp::WriteZeroes { offset: 0, len: 32768, unmap: true },
    ];
    assert_eq!(s.jobs.ops(), expected);
    let serial = s.request(VIRTIO_BLK_T_GET_ID, 0, &[], &[20]);
    assert_eq!(s.driver.used(0), [(serial.head, 21)]);
    assert_eq!(&s.driver.bytes(&serial.writable), b"mimus-disk\0\0\0\0\0\0\0\0\0\0\0");

    type Case<'a> = (u32, u64, &'a [u8], &'a [u32], u32);
    let sector = [0; 512];
    let (far, many, flags, discard) = (range(60, 5, 0), range(0, u32::MAX, 0), range(0, 1, 2), range(0, 1, 1));
    let cases: [Case; 11] = [
        (VIRTIO_BLK_T_IN, SECTORS, &[], &[512], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_IN, u64::MAX, &[], &[512], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_IN, 1 << 55, &[], &[512], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_IN, 0, &[], &[511], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_OUT, SECTORS - 1, &[0; 1024], &[], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_OUT, 0, &sector[1..], &[], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_DISCARD, 0, &far, &[], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_DISCARD, 0, &many, &[], VIRTIO_BLK_S_IOERR),
        (VIRTIO_BLK_T_WRITE_ZEROES, 0, &flags, &[], VIRTIO_BLK_S_UNSUPP),
        (VIRTIO_BLK_T_DISCARD, 0, &discard, &[], VIRTIO_BLK_S_UNSUPP),
        (99, 0, &[], &[], VIRTIO_BLK_S_UNSUPP),
    ];
    for (kind, sector, data, room, status) in cases {
        let offered = s.request(kind, sector, &[data], room);
        assert_eq!(s.driver.used(0), [(offered.head, 1)], "{kind} {sector}");
        assert_eq!(s.status(&offered), status, "{kind} {sector}");
    }
    assert_eq!((s.jobs.ops(), s.needs_reset()), (vec![], false));
}

#[test]
fn a_read_only_disk_says_so_and_refuses() {
    let mut s = Setup::new(BlockInfo { read_only: true, ..info() });
    assert_eq!(s.device.features() & (1 << 5 | 1 << 13 | 1 << 14), 1 << 5);
    let write = s.request(VIRTIO_BLK_T_OUT, 0, &[&[0; 512]], &[]);
    let discard = s.request(VIRTIO_BLK_T_DISCARD, 0, &[&[0; 16]], &[]);
    assert_eq!([s.status(&write), s.status(&discard)], [VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP]);
    assert_eq!(s.jobs.ops(), []);
}

#[test]
fn the_configuration_has_size_and_limits() {
    let s = Setup::new(info());
    let mut config = [0xff; 64];
    s.device.read_config(0, &mut config);
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(4), word(12), word(20)), (64, 0, 254, 512));
    assert_eq!((word(36), word(40), word(52), config[56], word(60)), (1 << 21, 1, 1, 1, 0));
}

#[test]
fn small_disks_have_a_geometry() {
    for (sectors, geometry) in [
        (0, [0; 4]),
        (1, [1, 0, 1, 1]),
        (62, [1, 0, 1, 62]),
        (200, [1, 0, 3, 63]),
        (1007, [1, 0, 15, 63]),
        (1008, [0; 4]),
    ] {
        let s = Setup::new(BlockInfo { sectors, ..info() });
        let mut config = [0; 20];
        s.device.read_config(0, &mut config);
        assert_eq!(config[16..], geometry, "{sectors} sectors");
        assert_eq!(s.device.features() >> 4 & 1 != 0, geometry != [0; 4], "{sectors} sectors");
    }
}

#[test]
fn a_failed_job_is_an_error_of_the_disk() {
    let mut s = Setup::new(info());
    let read = s.request(VIRTIO_BLK_T_IN, 0, &[], &[512]);
    let [job] = s.jobs.take();
    s.done(&job, false);
    assert_eq!((s.driver.used(0), s.status(&read)), (vec![(read.head, 1)], VIRTIO_BLK_S_IOERR));
}

#[test]
fn a_reset_device_is_left_alone_by_late_jobs() {
    let mut s = Setup::new(info());
    let read = s.request(VIRTIO_BLK_T_IN, 0, &[], &[512]);
    let [job] = s.jobs.take();
    s.device.reset();
    assert!(!job.buffer.fill(0, &[1; 512]));
    s.driver = Driver::start(&mut s.device, &s.ram);
    s.request(VIRTIO_BLK_T_IN, 0, &[], &[512]);
    let [other] = s.jobs.take();
    assert_ne!(other.token, job.token);
    assert!(!job.buffer.fill(0, &[1; 512]));
    s.done(&job, true);
    assert_eq!(s.driver.bytes(&read.writable[..1])[0], 0);
}

#[test]
fn what_is_under_way_is_begun_again_after_a_restore() {
    let mut s = Setup::new(info());
    s.request(VIRTIO_BLK_T_OUT, 3, &[&[9; 512]], &[]);
    s.request(VIRTIO_BLK_T_FLUSH, 0, &[], &[]);
    let bytes = postcard::to_stdvec(&s.device.save()).unwrap();
    let data: crate::virtio::VirtioData = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(data, s.device.save());
    let jobs = Jobs::default();
    let mut back = Virtio::block(s.mem.clone(), info(), Box::new(jobs.clone()));
    assert!(back.fits(&data));
    let smaller = Virtio::block(s.mem.clone(), BlockInfo { sectors: 3, ..info() }, Box::new(jobs.clone()));
    let read_only = Virtio::block(s.mem.clone(), BlockInfo { read_only: true, ..info() }, Box::new(jobs.clone()));
    assert!(!smaller.fits(&data) && !read_only.fits(&data));
    back.restore(data);
    let [write, flush] = jobs.take();
    assert_eq!([write.op, flush.op], [BlockOp::Write { offset: 1536, len: 512 }, BlockOp::Flush]);
    let mut taken = [0; 512];
    assert!(write.buffer.take(0, &mut taken) && taken == [9; 512]);
    write.finish(true);
    flush.finish(true);
    back.attend();
    assert_eq!(s.driver.used(0).len(), 2);
}

#[test]
fn no_more_is_under_way_than_the_queue_holds() {
    let mut s = Setup::new(info());
    let head = s.request(VIRTIO_BLK_T_FLUSH, 0, &[], &[]).head;
    // The same chain for ever: a driver that does not wait for anything.
    for _ in 0..5 * usize::from(QUEUE_SIZE) {
        s.driver.publish(0, head);
        s.device.notify(0);
    }
    let jobs = s.jobs.all();
    assert_eq!(jobs.len(), usize::from(QUEUE_SIZE));
    s.done(&jobs[0], true);
    assert!(s.needs_reset(), "the ring is ahead of its size");
}

#[test]
fn resets_do_not_pile_jobs_up() {
    let mut s = Setup::new(info());
    for _ in 0..4 {
        for _ in 0..100 {
            s.request(VIRTIO_BLK_T_OUT, 0, &[&[0; 512]], &[]);
        }
        s.device.set_status(0);
        s.driver = Driver::start(&mut s.device, &s.ram);
    }
    let jobs = s.jobs.all();
    assert_eq!(jobs.len(), usize::from(QUEUE_SIZE));
    let late = s.request(VIRTIO_BLK_T_FLUSH, 0, &[], &[]);
    assert_eq!(s.jobs.ops(), []);
    s.done(&jobs[0], true);
    let [flush] = s.jobs.take();
    s.done(&flush, true);
    assert_eq!(s.driver.used(0), [(late.head, 1)]);
}

#[test]
fn a_job_that_ends_in_a_stopped_device_is_not_begun_again() {
    let mut s = Setup::new(info());
    s.request(VIRTIO_BLK_T_OUT, 0, &[&[0; 512]], &[]);
    let [job] = s.jobs.take();
    s.device.set_status(11);
    s.done(&job, true);
    let jobs = Jobs::default();
    let mut back = Virtio::block(s.mem.clone(), info(), Box::new(jobs.clone()));
    back.restore(s.device.save());
    assert_eq!(jobs.ops(), []);
}

#[test]
fn hostile_chains_need_a_reset_and_nothing_more() {
    // Each breaks the rules in its own way; a well-formed header stands at `at`.
    type Case = (&'static str, fn(&mut Driver, u64, u64));
    let cases: [Case; 11] = [
        ("a loop", |d, table, at| {
            d.describe(table, 0, (at, 16), NEXT, 1);
            d.describe(table, 1, (at, 16), NEXT, 0);
        }),
        ("a descriptor beyond the table", |d, table, at| d.describe(table, 0, (at, 16), NEXT, 60_000)),
        ("a buffer outside RAM", |d, table, at| {
            d.describe(table, 0, (at, 16), NEXT, 1);
            d.describe(table, 1, (0x1000, 512), WRITE, 0);
        }),
        ("a buffer that wraps", |d, table, at| {
            d.describe(table, 0, (at, 16), NEXT, 1);
            d.describe(table, 1, (u64::MAX - 10, 512), WRITE, 0);
        }),
        ("a buffer that leaves RAM", |d, table, _| d.describe(table, 0, (BASE + SIZE - 8, 16), 0, 0)),
        ("readable after writable", |d, table, at| {
            d.describe(table, 0, (at, 16), WRITE | NEXT, 1);
            d.describe(table, 1, (at, 16), 0, 0);
        }),
        ("no status", |d, table, at| d.describe(table, 0, (at, 16), 0, 0)),
        ("no header", |d, table, at| d.describe(table, 0, (at, 15), 0, 0)),
        ("an indirect table of no whole descriptors", |d, table, at| d.describe(table, 0, (at, 17), INDIRECT, 0)),
        ("an indirect table in an indirect table", |d, table, at| {
            d.describe(table, 0, (at, 32), INDIRECT, 0);
            d.describe(at, 0, (at, 32), INDIRECT, 0);
        }),
        ("an indirect chain longer than the queue", |d, table, at| {
            d.describe(table, 0, (at, 16 * 1000), INDIRECT, 0);
            for i in 0..1000 {
                d.describe(at, i, (at, 16), if i == 999 { 0 } else { NEXT }, i + 1);
            }
        }),
    ];
    for (what, build) in cases {
        let mut s = Setup::new(info());
        let at = s.driver.allocate(1 << 16);
        let [table, ..] = s.driver.rings(0);
        build(&mut s.driver, table, at);
        s.driver.publish(0, 0);
        s.device.notify(0);
        assert!(s.needs_reset(), "{what}");
        assert_eq!(s.device.isr() & 2, 2, "{what}: the driver is told");
        assert_eq!(s.jobs.ops(), [], "{what}");
        s.device.notify(0);
        s.device.reset();
        s.driver = Driver::start(&mut s.device, &s.ram);
        s.request(VIRTIO_BLK_T_FLUSH, 0, &[], &[]);
        assert_eq!(s.jobs.ops(), [BlockOp::Flush], "{what}: a reset mends it");
    }
}

#[test]
fn a_head_beyond_the_table_and_a_ring_too_far_ahead() {
    let mut s = Setup::new(info());
    s.driver.publish(0, 40_000);
    s.device.notify(0);
    assert!(s.needs_reset());
    let mut s = Setup::new(info());
    s.driver.set_available(0, 30_000);
    s.device.notify(0);
    assert!(s.needs_reset());
}

#[test]
fn a_huge_request_is_one_job() {
    let mut s = Setup::new(BlockInfo { sectors: 1 << 40, ..info() });
    let [table, ..] = s.driver.rings(0);
    let at = s.driver.allocate(64);
    // The same 3 MiB of RAM again and again.
    s.driver.describe(table, 0, (at, 16), NEXT, 1);
    for i in 1..255 {
        s.driver.describe(table, i, (BASE, 3 << 20), WRITE | NEXT, i + 1);
    }
    s.driver.describe(table, 255, (at, 1), WRITE, 0);
    s.driver.publish(0, 0);
    s.device.notify(0);
    assert_eq!(s.jobs.ops(), [BlockOp::Read { offset: 0, len: 254 * (3 << 20) }]);
}
