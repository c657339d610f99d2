use std::sync::mpsc::{TryRecvError, channel};
use std::thread;

use mimus_softmmu::{CodeSink, Dropped, Ram};
use vm_memory::{Bytes, GuestMemoryMmap};

use super::*;
use crate::block::testing::Jobs;

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

const READ: BlockOp = BlockOp::Read { offset: 0, len: 600 };

struct Setup {
    ram: Arc<Ram>,
    jobs: Jobs,
    client: BlockClient,
}

impl Setup {
    fn new() -> Setup {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let (ram, jobs) = (Arc::new(Ram::new(memory)), Jobs::default());
        let mem = Dma::new(ram.clone(), Arc::new(NoCode));
        Setup { ram, client: BlockClient::new(mem, Some(Box::new(jobs.clone())), 2), jobs }
    }

    /// A job that moves 600 bytes, the first 100 at 0x1000 and the others at 0x3000.
    fn submit(&mut self) -> BlockJob {
        let pieces = vec![Segment { gpa: 0x1000, len: 100 }, Segment { gpa: 0x3000, len: 500 }];
        self.client.submit(READ, Data::Memory(Buffer::new(pieces)));
        let [job] = self.jobs.take();
        job
    }

    fn byte(&self, gpa: u64) -> u8 {
        self.ram.memory().read_obj(GuestAddress(gpa)).unwrap()
    }
}

#[test]
fn bytes_cross_without_the_device() {
    let mut s = Setup::new();
    let job = s.submit();
    assert!(job.buffer.fill(0, &[1; 90]) && job.buffer.fill(90, &[2; 510]));
    assert_eq!([0x1059, 0x105a, 0x3000, 0x31f3, 0x31f4].map(|gpa| s.byte(gpa)), [1, 2, 2, 2, 0]);
    let mut taken = [0; 20];
    assert!(job.buffer.take(80, &mut taken));
    assert_eq!(taken, [[1; 10], [2; 10]].concat()[..]);
    assert!(!job.buffer.fill(100, &[0; 501]) && !job.buffer.take(u64::MAX, &mut [0]), "beyond the end");
    let target = job.buffer.target(99, 2).unwrap();
    let slices = target.slices().unwrap();
    slices.iter().for_each(|slice| slice.copy_from(&[3u8]));
    assert_eq!([0x1063, 0x3000, 0x3001].map(|gpa| s.byte(gpa)), [3, 3, 2]);
    drop(target);
    assert!(job.buffer.target(99, 502).is_none(), "beyond the end");
    assert!(s.client.next_finished().is_none() && job.outcome().is_none());
    job.finish(true);
    job.finish(false);
    let finished = s.client.next_finished().unwrap();
    assert!(matches!(finished.data, Data::Memory(_)) && (finished.token, finished.ok) == (job.token, true));
    assert!(s.client.next_finished().is_none() && job.outcome() == Some(true), "a job ends once");
    assert!(!job.buffer.fill(0, &[9]), "it has ended");
}

#[test]
fn what_the_processor_moves_is_the_devices() {
    let mut s = Setup::new();
    s.client.submit(READ, Data::Bytes(vec![0; 600]));
    let [job] = s.jobs.take();
    assert!(job.buffer.target(0, 512).is_none());
    assert!(job.buffer.fill(1, &[7; 599]) && !job.buffer.fill(1, &[7; 600]));
    let mut taken = [0; 2];
    assert!(job.buffer.take(0, &mut taken) && taken == [0, 7] && !job.buffer.take(599, &mut taken));
    job.finish(false);
    let Some(Finished { data: Data::Bytes(bytes), ok: false, .. }) = s.client.next_finished() else {
        panic!("it was waited for")
    };
    assert_eq!(bytes, [vec![0], vec![7; 599]].concat());
}

#[test]
fn whoever_calls_a_job_off_waits_for_its_copy_and_for_nothing_after_it() {
    for all in [false, true] {
        let mut s = Setup::new();
        let job = s.submit();
        let target = job.buffer.target(0, 100).unwrap();
        let (sender, over) = channel();
        let (Setup { ram, mut client, .. }, token) = (s, job.token);
        let reset = thread::spawn(move || {
            if all {
                client.cancel_all()
            } else {
                client.cancel(token)
            }
            sender.send(()).unwrap();
        });
        while !job.buffer.is_off() {
            thread::yield_now();
        }
        // It is at it, and the copy is not over.
        assert_eq!(over.try_recv(), Err(TryRecvError::Empty));
        target.slices().unwrap()[0].copy_from(&[5u8; 100]);
        assert_eq!(over.try_recv(), Err(TryRecvError::Empty));
        drop(target);
        over.recv().unwrap();
        reset.join().unwrap();
        assert!(!job.buffer.fill(0, &[6; 600]) && !job.buffer.take(0, &mut [0]) && job.buffer.target(0, 1).is_none());
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 5);
    }
}

#[test]
fn jobs_that_are_off_count_until_the_host_side_is_done_with_them() {
    let mut s = Setup::new();
    let first = s.submit();
    let second = s.submit();
    assert!(!s.client.has_room());
    s.client.cancel(first.token);
    assert!(first.buffer.is_off() && !second.buffer.is_off() && !s.client.has_room());
    first.finish(true);
    assert!(s.client.next_finished().is_none() && s.client.has_room());
    // Another host side: what the former one has goes on.
    let other = Jobs::default();
    s.client.connect(Some(Box::new(other.clone())));
    let token = s.client.submit(BlockOp::Flush, Data::None);
    assert!(token > second.token && s.jobs.all().is_empty() && other.ops() == [BlockOp::Flush]);
    assert!(second.buffer.fill(0, &[1; 600]));
    second.finish(true);
    assert_eq!(s.client.next_finished().map(|job| job.token), Some(second.token));
    s.client.connect(None);
    assert!(!s.client.has_room());
}
