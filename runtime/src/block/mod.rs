//! The host side of disks: an image, and the thread that reads and writes it.

mod chain;
mod counters;
mod direct;
mod file;
mod guarded;
mod halt;
mod image;
mod layout;
mod overlay;
mod qcow2;
mod throttle;
mod vmdk;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mimus_hw::virtio::{BlockBackend, BlockJob, BlockOp, Target};

use crate::config::{Cache, Disk, OnError};
use crate::kick::Kicker;
use crate::patience::Patience;
pub use counters::Counters;
pub use halt::Halt;
pub use image::Image;
use throttle::Throttle;

/// Bytes that are copied at once: as long as a device may be kept from its vCPU by a copy.
const PIECE: usize = 128 << 10;

/// Bytes that are read straight into guest memory at once: as long as a reset may have to wait.
const DIRECT_PIECE: usize = 512 << 10;

/// The longest sleep of a thread that may be told to end.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// What the thread needs of the machine. None of it is called with a lock held that a machine needs to stop.
pub trait Exchange: Send {
    /// See [`Virtio::block_fill`](mimus_hw::virtio::Virtio::block_fill).
    fn fill(&self, token: u64, at: u64, bytes: &[u8]) -> bool;
    /// See [`Virtio::block_target`](mimus_hw::virtio::Virtio::block_target). `reading` is locked before the device is not any
    /// more, so that a reset, which has the device locked, finds it free or waits.
    fn target<'a>(&self, token: u64, at: u64, count: usize, reading: &'a Reading) -> Option<Held<'a>>;
    /// See [`Virtio::block_take`](mimus_hw::virtio::Virtio::block_take).
    fn take(&self, token: u64, at: u64, bytes: &mut [u8]) -> bool;
    /// See [`Virtio::block_done`](mimus_hw::virtio::Virtio::block_done).
    fn done(&self, token: u64, ok: bool);
}

/// A target, and word of it for who must wait until it is dropped.
pub type Held<'a> = (Target, MutexGuard<'a, ()>);

/// Held while a disk's thread writes to a [`Target`].
#[derive(Clone, Debug, Default)]
pub struct Reading(Arc<Mutex<()>>);

impl Reading {
    /// Waits until nobody holds it. Nothing is behind the lock that a panic could have spoilt.
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `f` with offset and size of each piece, of `size` bytes at most, of `len` bytes.
fn for_pieces(
    len: u64,
    size: usize,
    stop: &AtomicBool,
    mut f: impl FnMut(u64, usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        if stop.load(Ordering::Acquire) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let count = (len - at).min(size as u64) as usize;
        f(at, count)?;
        at += count as u64;
    }
    Ok(())
}

/// What the thread is told.
enum Message {
    Job(BlockJob),
    /// Another medium, or none.
    Change(Option<Image>),
    Stop,
}

/// A device's way to the thread.
struct Jobs {
    sender: Sender<Message>,
    reading: Reading,
}

impl BlockBackend for Jobs {
    fn submit(&mut self, job: BlockJob) {
        // Fails when the thread is gone: then the machine is about to go, too.
        let _ = self.sender.send(Message::Job(job));
    }

    fn settle(&mut self) {
        drop(self.reading.lock());
    }
}

/// Where a disk's jobs go before its thread runs.
#[derive(Debug)]
pub struct DiskQueue {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    counters: Arc<Counters>,
    reading: Reading,
    stopping: Stopping,
}

/// How a disk stops its machine, if it can.
type Stopping = Option<(Arc<Halt>, Arc<Kicker>)>;

impl DiskQueue {
    /// An empty one.
    pub fn new() -> DiskQueue {
        let (sender, receiver) = channel();
        DiskQueue { sender, receiver, counters: Arc::default(), reading: Reading::default(), stopping: None }
    }

    /// One that can stop the machine, whose vCPU `kicker` wakes.
    pub fn stopping(self, halt: Arc<Halt>, kicker: Arc<Kicker>) -> DiskQueue {
        DiskQueue { stopping: Some((halt, kicker)), ..self }
    }

    /// What to make the device with.
    pub fn backend(&self) -> Box<dyn BlockBackend> {
        Box::new(Jobs { sender: self.sender.clone(), reading: self.reading.clone() })
    }

    /// What the thread has done, and will have.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Starts the thread that does the jobs on `image`, as `disk` says. Without an image there is none yet.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(
        self,
        image: impl Into<Option<Image>>,
        disk: &Disk,
        exchange: impl Exchange + 'static,
    ) -> io::Result<DiskThread> {
        let (image, counters, reading) = (image.into(), self.counters, self.reading.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let (receiver, own) = (self.receiver, stop.clone());
        let throttle = Throttle::new(disk.bytes_per_second, disk.requests_per_second);
        let (cache, on_error, stopping) = (disk.cache, disk.on_error, self.stopping);
        let thread = std::thread::Builder::new().name("disk".into()).spawn(move || {
            let mut worker =
                Worker { image, exchange, stop: own, throttle, cache, on_error, stopping, counters, reading };
            let mut piece = vec![0; PIECE];
            let mut patience = Patience::new();
            loop {
                match patience.wait(|| receiver.try_recv().ok(), || receiver.recv().unwrap_or(Message::Stop)) {
                    Message::Job(job) => worker.run(job, &mut piece),
                    Message::Change(image) => worker.image = image,
                    Message::Stop => break,
                }
            }
        })?;
        Ok(DiskThread { sender: self.sender, reading: self.reading, stop, thread: Some(thread) })
    }
}

impl Default for DiskQueue {
    fn default() -> Self {
        DiskQueue::new()
    }
}

/// The thread of a disk. Dropping it ends the thread and waits for it: a job that is being done fails after its present piece,
/// and those not begun are not.
#[derive(Debug)]
pub struct DiskThread {
    sender: Sender<Message>,
    reading: Reading,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Another image, or none, once all jobs before this are done: the backend for what comes after.
    pub fn change(&self, image: Option<Image>) -> Box<dyn BlockBackend> {
        // Fails when the thread is gone: then nothing is done for anybody.
        let _ = self.sender.send(Message::Change(image));
        Box::new(Jobs { sender: self.sender.clone(), reading: self.reading.clone() })
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Fails when the thread has ended already.
        let _ = self.sender.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Message::Job(_) => "Job",
            Message::Change(_) => "Change",
            Message::Stop => "Stop",
        })
    }
}

struct Worker<E> {
    image: Option<Image>,
    exchange: E,
    stop: Arc<AtomicBool>,
    throttle: Throttle,
    cache: Cache,
    /// What becomes of a read that fails, and of a write.
    on_error: (OnError, OnError),
    stopping: Stopping,
    counters: Arc<Counters>,
    reading: Reading,
}

impl<E: Exchange> Worker<E> {
    fn run(&mut self, job: BlockJob, piece: &mut [u8]) {
        let on_error = if matches!(job.op, BlockOp::Read { .. }) { self.on_error.0 } else { self.on_error.1 };
        loop {
            self.wait(job.op);
            let start = Instant::now();
            let result = self.work(job, piece);
            self.counters.count(job.op, result.is_ok(), start.elapsed());
            if let Err(error) = &result {
                tracing::debug!(?job, "disk: {error}");
                if self.stop_for(on_error, error) {
                    continue;
                }
            }
            return self.exchange.done(job.token, result.is_ok() || on_error == OnError::Ignore);
        }
    }

    /// Stops the machine if that is what an error is for; whether the request is to be done again.
    fn stop_for(&self, on_error: OnError, error: &io::Error) -> bool {
        let stops = match on_error {
            OnError::Stop => true,
            OnError::StopWithoutSpace => error.kind() == io::ErrorKind::StorageFull,
            OnError::Report | OnError::Ignore => false,
        };
        // What was reset, or is about to end, has nobody who waits for it.
        let Some((halt, kicker)) =
            self.stopping.as_ref().filter(|_| stops && error.kind() != io::ErrorKind::Interrupted)
        else {
            return false;
        };
        tracing::error!(
            "a disk cannot do what it should, and stops the machine: {error}; `cont` in a monitor tries again"
        );
        halt.hold(kicker, &self.stop);
        !self.stop.load(Ordering::Acquire)
    }

    /// Waits until the job may be done.
    fn wait(&mut self, op: BlockOp) {
        let (bytes, writes) = match op {
            BlockOp::Read { len, .. } => (len, Some(false)),
            BlockOp::Write { len, .. } => (len, Some(true)),
            _ => (0, None),
        };
        let start = self.throttle.charge(Instant::now(), bytes, writes);
        while let Some(left) = start.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            && !self.stop.load(Ordering::Acquire)
        {
            std::thread::sleep(left.min(LONGEST_SLEEP));
        }
    }

    fn work(&mut self, BlockJob { token, op }: BlockJob, piece: &mut [u8]) -> io::Result<()> {
        let Worker { image: Some(image), exchange, stop, reading, .. } = self else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // The device was reset: nobody waits for the rest.
        let wanted = |wanted: bool| if wanted { Ok(()) } else { Err(io::Error::from(io::ErrorKind::Interrupted)) };
        match op {
            BlockOp::Read { offset, len } => for_pieces(len, DIRECT_PIECE, stop, |start, count| {
                if let Some(file) = image.file(offset + start, count as u64)
                    && let Some((target, _reading)) = exchange.target(token, start, count, reading)
                    && direct::read(file, &target, offset + start)?
                {
                    return Ok(());
                }
                for_pieces(count as u64, PIECE, stop, |at, count| {
                    let bytes = piece.get_mut(..count).unwrap_or_default();
                    image.read(bytes, offset + start + at)?;
                    wanted(exchange.fill(token, start + at, bytes))
                })
            }),
            BlockOp::Write { offset, len } => for_pieces(len, PIECE, stop, |at, count| {
                let bytes = piece.get_mut(..count).unwrap_or_default();
                wanted(exchange.take(token, at, bytes))?;
                image.write(bytes, offset + at)
            }),
            BlockOp::Flush => Ok(()),
            BlockOp::Discard { offset, len } => image.discard(offset, len),
            BlockOp::WriteZeroes { offset, len, unmap } => image.write_zeroes(offset, len, unmap, stop),
        }?;
        let flush = match op {
            BlockOp::Read { .. } => false,
            BlockOp::Flush => !self.cache.no_flush,
            _ => self.cache.writethrough,
        };
        if flush { image.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Condvar;

    use mimus_softmmu::{CodeSink, Dma, Dropped, Ram};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::config::{ImageFormat, Rates, Zeroes};
    use crate::kick::Kicker;

    /// A file that goes with the value.
    struct TempFile(PathBuf);

    impl TempFile {
        fn new(name: &str, contents: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("mimus-disk-{}-{name}", std::process::id()));
            std::fs::write(&path, contents).unwrap();
            TempFile(path)
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            // What is left behind in the temporary directory harms nobody.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn disk(file: &TempFile) -> Disk {
        Disk { discard: true, ..Disk::new(&file.0) }
    }

    /// The memory of a guest that wants everything at the beginning of it.
    #[derive(Default)]
    struct Guest {
        memory: Mutex<Vec<u8>>,
        done: Mutex<Vec<(u64, bool)>>,
        changed: Condvar,
        refuses: AtomicBool,
        /// Where reads go straight to.
        direct: Option<Dma>,
    }

    #[derive(Clone)]
    struct Handle(Arc<Guest>);

    impl Exchange for Handle {
        fn fill(&self, _: u64, at: u64, bytes: &[u8]) -> bool {
            let at = at as usize;
            self.0.memory.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
            !self.0.refuses.load(Ordering::Acquire)
        }

        fn target<'a>(&self, _: u64, at: u64, count: usize, reading: &'a Reading) -> Option<Held<'a>> {
            let dma = self.0.direct.as_ref()?;
            let half = count / 2;
            let parts = vec![(at, half), (at + half as u64, count - half)];
            Some((Target::new(dma, parts), reading.lock()))
        }

        fn take(&self, _: u64, at: u64, bytes: &mut [u8]) -> bool {
            let at = at as usize;
            bytes.copy_from_slice(&self.0.memory.lock().unwrap()[at..at + bytes.len()]);
            !self.0.refuses.load(Ordering::Acquire)
        }

        fn done(&self, token: u64, ok: bool) {
            self.0.done.lock().unwrap().push((token, ok));
            self.0.changed.notify_all();
        }
    }

    struct Setup {
        guest: Arc<Guest>,
        backend: Box<dyn BlockBackend>,
        thread: DiskThread,
        token: u64,
    }

    impl Setup {
        fn new(file: &TempFile) -> Setup {
            Setup::with(&disk(file))
        }

        fn with(disk: &Disk) -> Setup {
            Setup::of(disk, |_| None)
        }

        /// `direct` makes the memory that reads go straight to.
        fn of(disk: &Disk, direct: impl FnOnce(Reading) -> Option<Dma>) -> Setup {
            let image = Image::open("-drive", disk).unwrap();
            let queue = DiskQueue::new();
            let direct = direct(queue.reading.clone());
            let guest = Arc::new(Guest { memory: Mutex::new(vec![0; 1 << 20]), direct, ..Guest::default() });
            let backend = queue.backend();
            let thread = queue.start(image, disk, Handle(guest.clone())).unwrap();
            Setup { guest, backend, thread, token: 0 }
        }

        /// Does a job and waits for it; whether it went well.
        fn run(&mut self, op: BlockOp) -> bool {
            self.token += 1;
            self.backend.submit(BlockJob { token: self.token, op });
            let done = self.guest.done.lock().unwrap();
            let waits = |done: &mut Vec<(u64, bool)>| done.is_empty();
            let (mut done, timeout) =
                self.guest.changed.wait_timeout_while(done, Duration::from_secs(60), waits).unwrap();
            assert!(!timeout.timed_out());
            let (token, ok) = done.remove(0);
            assert_eq!(token, self.token);
            ok
        }
    }

    #[test]
    fn jobs_reach_the_file() {
        let size = 3 * PIECE + 512;
        let file = TempFile::new("jobs", &vec![1; size + 100]);
        let mut s = Setup::new(&file);
        s.guest.memory.lock().unwrap().iter_mut().enumerate().for_each(|(i, byte)| *byte = (i % 251) as u8);
        assert!(s.run(BlockOp::Write { offset: 512, len: 2 * PIECE as u64 + 512 }));
        assert!(s.run(BlockOp::Flush));
        let contents = std::fs::read(&file.0).unwrap();
        assert_eq!(
            (contents[511], contents[512 + PIECE], contents[512 + 2 * PIECE + 512]),
            (1, (PIECE % 251) as u8, 1)
        );
        assert!(s.run(BlockOp::WriteZeroes { offset: 1024, len: 512, unmap: false }));
        assert!(s.run(BlockOp::WriteZeroes { offset: 2048, len: 512, unmap: true }));
        assert!(s.run(BlockOp::Discard { offset: 4096, len: 4096 }));
        assert!(s.run(BlockOp::Read { offset: 0, len: size as u64 }));
        let memory = s.guest.memory.lock().unwrap().clone();
        assert_eq!((memory[0], memory[1024], memory[1535], memory[1536]), (1, 0, 0, (1024 % 251) as u8));
        assert_eq!((memory[2048], memory[2560]), (0, (2048 % 251) as u8));
        assert_eq!(memory[size - 1], 1);
        assert_eq!(std::fs::metadata(&file.0).unwrap().len(), size as u64 + 100, "the file keeps its size");
    }

    #[test]
    fn a_last_sector_that_the_file_has_in_part_is_whole_for_the_guest() {
        for direct in [false, true] {
            let file = TempFile::new("part", &[1; 1024 + 100]);
            let cache = Cache { direct, ..Cache::default() };
            let Ok(mut image) = Image::open("-drive", &Disk { format: Some(ImageFormat::Raw), cache, ..disk(&file) })
            else {
                assert!(direct, "only what a file system has no room for may be missing");
                continue;
            };
            assert_eq!(image.info("").sectors, 3);
            let mut sector = [7; 512];
            image.read(&mut sector, 1024).unwrap();
            assert_eq!((sector[99], &sector[100..]), (1, &[0; 412][..]));
            image.write(&[9; 512], 1024).unwrap();
            image.flush().unwrap();
            // Past the host's cache the file ends where a block of its device does.
            let contents = std::fs::read(&file.0).unwrap();
            assert!(contents[..1024] == [1; 1024] && contents[1024..1536] == [9; 512]);
            assert!(contents[1536..].iter().all(|byte| *byte == 0) && (direct || contents.len() == 1536));
        }
    }

    #[test]
    fn a_failure_stops_the_machine_and_is_tried_again() {
        let file = TempFile::new("stop", &[0; 4096]);
        let disk = Disk { on_error: (OnError::Report, OnError::Stop), ..disk(&file) };
        let halt = Arc::new(Halt::default());
        let guest = Arc::new(Guest { memory: Mutex::new(vec![7; 1 << 20]), ..Guest::default() });
        let queue = DiskQueue::new().stopping(halt.clone(), Kicker::new());
        let mut backend = queue.backend();
        // Without a medium each request fails; with one the write is done.
        let thread = queue.start(None, &disk, Handle(guest.clone())).unwrap();
        backend.submit(BlockJob { token: 1, op: BlockOp::Read { offset: 0, len: 512 } });
        backend.submit(BlockJob { token: 2, op: BlockOp::Write { offset: 0, len: 512 } });
        for _ in 0..3 {
            while !halt.take() {
                std::thread::yield_now();
            }
            assert_eq!(*guest.done.lock().unwrap(), [(1, false)], "the write waits");
            halt.resume();
        }
        drop(thread);
        assert_eq!(*guest.done.lock().unwrap(), [(1, false), (2, false)], "the end of the thread is its end");
    }

    #[test]
    fn an_ignored_failure_is_none_for_the_guest() {
        let file = TempFile::new("ignored", &[0; 4096]);
        let mut s = Setup::with(&Disk { on_error: (OnError::Report, OnError::Ignore), ..disk(&file) });
        assert!(s.run(BlockOp::Write { offset: 4096, len: 512 }));
        assert!(!s.run(BlockOp::Read { offset: 4096, len: 512 }));
    }

    #[test]
    fn a_part_of_a_file_is_a_disk() {
        let file = TempFile::new("range", &[1; 8192]);
        let disk = Disk { range: Some((1024, Some(2048))), format: Some(ImageFormat::Raw), ..disk(&file) };
        let mut image = Image::open("-drive", &disk).unwrap();
        assert_eq!(image.info("").sectors, 4);
        image.write(&[2; 512], 1536).unwrap();
        assert!(image.write(&[2; 512], 2048).is_err());
        image.write_zeroes(0, 512, false, &AtomicBool::new(false)).unwrap();
        let contents = std::fs::read(&file.0).unwrap();
        assert!(contents[1024..1536] == [0; 512] && contents[2560..3072] == [2; 512] && contents[3072] == 1);
        for range in [(8704, None), (100, None), (1024, Some(8192))] {
            assert!(Image::open("-drive", &Disk { range: Some(range), ..disk.clone() }).is_err(), "{range:?}");
        }
    }

    #[test]
    fn zeroes_are_found_and_nothing_is_a_disk() {
        use std::os::unix::fs::MetadataExt;
        let file = TempFile::new("zeroes", &vec![1; 1 << 20]);
        let mut image = Image::open("-drive", &Disk { zeroes: Zeroes::Unmapped, ..disk(&file) }).unwrap();
        image.write(&vec![0; 1 << 19], 0).unwrap();
        image.write(&[0, 1].repeat(256), 1 << 19).unwrap();
        let contents = std::fs::read(&file.0).unwrap();
        assert!(contents[..1 << 19].iter().all(|byte| *byte == 0) && contents[(1 << 19) + 1] == 1);
        assert!(std::fs::metadata(&file.0).unwrap().blocks() <= 1 << 10, "half of it is a hole, where files have them");
        let mut image = Image::open("-drive", &Disk { null: Some(1 << 40), ..Disk::new("null-co") }).unwrap();
        let mut sector = [7; 512];
        image.write(&sector, 0).unwrap();
        image.read(&mut sector, 0).unwrap();
        assert_eq!((sector, image.info("").sectors), ([0; 512], 1 << 31));
    }

    #[test]
    fn failures_are_reported() {
        let file = TempFile::new("failures", &[0; 4096]);
        let mut s = Setup::new(&file);
        for offset in [4096, !511] {
            assert!(!s.run(BlockOp::Read { offset, len: 512 }));
            assert!(!s.run(BlockOp::Write { offset, len: 512 }));
            assert!(!s.run(BlockOp::Discard { offset, len: 512 }));
            assert!(!s.run(BlockOp::WriteZeroes { offset, len: 512, unmap: true }));
        }
        assert_eq!(std::fs::metadata(&file.0).unwrap().len(), 4096);
        s.guest.refuses.store(true, Ordering::Release);
        assert!(!s.run(BlockOp::Write { offset: 0, len: 512 }));
        drop(s.thread);
        s.backend.submit(BlockJob { token: 0, op: BlockOp::Flush });
    }

    /// Whether the disk's thread was reading at each write to code, which is told while it goes on.
    struct Sink(Reading, Mutex<Vec<(u64, bool)>>);

    impl CodeSink for Sink {
        fn code_written(&self, gpa: u64, _: u64) -> Dropped {
            self.1.lock().unwrap().push((gpa, self.0.0.try_lock().is_err()));
            Dropped::UNKNOWN
        }
    }

    #[test]
    fn reads_go_straight_to_memory() {
        const RAM: usize = 2 * DIRECT_PIECE;
        let contents: Vec<u8> = (0..DIRECT_PIECE + 3072 + 100).map(|i| (i % 253) as u8).collect();
        let file = TempFile::new("direct", &contents);
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let ram = Arc::new(Ram::new(memory));
        ram.mark_code(0x2000, Ram::granules(0, 1));
        let (mut sink, of_sink) = (None, ram.clone());
        let disk = Disk { read_only: true, ..disk(&file) };
        let mut s = Setup::of(&disk, |reading| {
            let sink = sink.insert(Arc::new(Sink(reading, Mutex::default())));
            Some(Dma::new(of_sink, sink.clone()))
        });
        let read = |at: usize, len: usize| {
            let mut bytes = vec![0; len];
            ram.memory().read_slice(&mut bytes, GuestAddress(at as u64)).unwrap();
            bytes
        };
        // Two pieces, of two parts each.
        assert!(s.run(BlockOp::Read { offset: 512, len: DIRECT_PIECE as u64 + 2048 }));
        assert!(read(0, DIRECT_PIECE + 2048) == contents[512..DIRECT_PIECE + 2560]);
        assert!(s.guest.memory.lock().unwrap().iter().all(|byte| *byte == 0), "nothing went the other way");
        assert_eq!(*sink.unwrap().1.lock().unwrap(), [(0x2000, true)]);
        s.backend.settle();

        // A last sector that the file has in part comes the other way.
        let last = (contents.len() / 512 * 512) as u64;
        assert!(s.run(BlockOp::Read { offset: last, len: 512 }));
        assert_eq!(s.guest.memory.lock().unwrap()[..101], [&contents[last as usize..], &[0]].concat());
    }

    #[test]
    fn limits_slow_a_disk_down_and_hold_up_no_end() {
        let file = TempFile::new("limits", &[0; 65536]);
        let mut s =
            Setup::with(&Disk { bytes_per_second: Rates { total: 1 << 20, ..Rates::default() }, ..disk(&file) });
        let start = Instant::now();
        for _ in 0..5 {
            assert!(s.run(BlockOp::Read { offset: 0, len: 65536 }));
        }
        assert!(start.elapsed() > Duration::from_millis(100), "{:?}", start.elapsed());
        drop(s.thread);
        let mut s = Setup::with(&Disk { requests_per_second: Rates { total: 1, ..Rates::default() }, ..disk(&file) });
        (0..100).for_each(|token| s.backend.submit(BlockJob { token, op: BlockOp::Flush }));
        let start = Instant::now();
        drop(s.thread);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
