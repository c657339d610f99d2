//! Tests of images and of the thread that reads and writes them.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use mimus_hw::block::{BlockOp, JobBuffer};
use mimus_softmmu::{CodeSink, Dma, Dropped, Ram};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::config::{Cache, ImageFormat, Limit, Limits, OnError, Zeroes};
use mimus_softmmu::kick::Kicker;

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

/// Nothing of the guest's is code.
struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

/// A guest that wants everything at the beginning of its memory.
struct Guest {
    ram: Arc<Ram>,
    dma: Dma,
    jobs: Mutex<Vec<BlockJob>>,
    /// The devices' lock: jobs that are done, and how they went.
    done: Mutex<Vec<(u64, bool)>>,
    changed: Condvar,
}

impl Guest {
    fn new() -> Arc<Guest> {
        Guest::with(|_| Arc::new(NoCode))
    }

    fn with(sink: impl FnOnce(&Arc<Ram>) -> Arc<dyn CodeSink>) -> Arc<Guest> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let ram = Arc::new(Ram::new(memory));
        let dma = Dma::new(ram.clone(), sink(&ram));
        Arc::new(Guest { ram, dma, jobs: Mutex::default(), done: Mutex::default(), changed: Condvar::new() })
    }

    /// What has it see which of its jobs are over.
    fn attend(self: &Arc<Self>) -> impl Fn() + Send + 'static {
        let guest = self.clone();
        move || {
            let mut done = guest.done.lock().unwrap();
            guest.jobs.lock().unwrap().retain(|job| match job.outcome() {
                Some(ok) => (done.push((job.token, ok)), false).1,
                None => true,
            });
            guest.changed.notify_all();
        }
    }

    fn job(&self, token: u64, op: BlockOp) -> BlockJob {
        // In two parts, of which the first is as long as neither a page nor a sector.
        let rest = RAM as u32 - 1000;
        let job = BlockJob { token, op, buffer: JobBuffer::of_ram(&self.dma, &[(0, 1000), (1000, rest)]) };
        self.jobs.lock().unwrap().push(job.clone());
        job
    }

    fn write(&self, bytes: &[u8]) {
        self.ram.memory().write_slice(bytes, GuestAddress(0)).unwrap();
    }

    fn read(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }

    /// Waits for the next job that is done.
    fn next(&self) -> (u64, bool) {
        let done = self.done.lock().unwrap();
        let waits = |done: &mut Vec<(u64, bool)>| done.is_empty();
        let (mut done, timeout) = self.changed.wait_timeout_while(done, Duration::from_secs(60), waits).unwrap();
        assert!(!timeout.timed_out());
        done.remove(0)
    }
}

/// Bytes of the guest's memory.
const RAM: usize = 2 * DIRECT_PIECE;

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
        Setup::of(disk, Guest::new())
    }

    fn of(disk: &Disk, guest: Arc<Guest>) -> Setup {
        let image = Image::open("-drive", disk).unwrap();
        let queue = DiskQueue::new();
        let backend = queue.backend();
        let thread = queue.start(image, disk, guest.attend()).unwrap();
        Setup { guest, backend, thread, token: 0 }
    }

    /// Does a job and waits for it; whether it went well.
    fn run(&mut self, op: BlockOp) -> bool {
        self.token += 1;
        self.backend.submit(self.guest.job(self.token, op));
        let (token, ok) = self.guest.next();
        assert_eq!(token, self.token);
        ok
    }
}

#[test]
fn jobs_reach_the_file() {
    let size = 3 * PIECE + 512;
    let file = TempFile::new("jobs", &vec![1; size + 100]);
    let mut s = Setup::new(&file);
    s.guest.write(&(0..RAM).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    assert!(s.run(BlockOp::Write { offset: 512, len: 2 * PIECE as u64 + 512 }));
    assert!(s.run(BlockOp::Flush));
    let contents = std::fs::read(&file.0).unwrap();
    assert_eq!((contents[511], contents[512 + PIECE], contents[512 + 2 * PIECE + 512]), (1, (PIECE % 251) as u8, 1));
    assert!(s.run(BlockOp::WriteZeroes { offset: 1024, len: 512, unmap: false }));
    assert!(s.run(BlockOp::WriteZeroes { offset: 2048, len: 512, unmap: true }));
    assert!(s.run(BlockOp::Discard { offset: 4096, len: 4096 }));
    assert!(s.run(BlockOp::Read { offset: 0, len: size as u64 }));
    let memory = s.guest.read(size);
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
    let guest = Guest::new();
    let queue = DiskQueue::new().stopping(halt.clone(), Kicker::new());
    let mut backend = queue.backend();
    // Without a medium each request fails; with one the write is done.
    let thread = queue.start(None, &disk, guest.attend()).unwrap();
    backend.submit(guest.job(1, READ));
    backend.submit(guest.job(2, WRITE));
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

/// A disk that fails with an error until somebody mends it.
#[derive(Clone)]
struct Failing(Arc<Mutex<Option<i32>>>);

impl Failing {
    fn answer(&self) -> io::Result<()> {
        self.0.lock().unwrap().map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }
}

impl Store for Failing {
    fn file(&self, _: u64, _: u64) -> Option<&File> {
        None
    }

    fn read(&mut self, _: &mut [u8], _: u64) -> io::Result<()> {
        self.answer()
    }

    fn write(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        self.answer()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.answer()
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        self.answer()
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool, _: &AtomicBool) -> io::Result<()> {
        self.answer()
    }
}

const READ: BlockOp = BlockOp::Read { offset: 0, len: 512 };
const WRITE: BlockOp = BlockOp::Write { offset: 0, len: 512 };

/// A disk with this error, its request, and what its machine hears of it.
struct Broken {
    error: Arc<Mutex<Option<i32>>>,
    halt: Arc<Halt>,
    counters: Arc<Counters>,
    guest: Arc<Guest>,
    thread: DiskThread,
}

impl Broken {
    fn new(error: i32, on_error: (OnError, OnError), op: BlockOp) -> Broken {
        let (error, halt) = (Arc::new(Mutex::new(Some(error))), Arc::new(Halt::default()));
        let guest = Guest::new();
        let queue = DiskQueue::new().stopping(halt.clone(), Kicker::new());
        let (counters, mut backend) = (queue.counters(), queue.backend());
        counters.name("drive", "#image");
        let disk = Disk { on_error, ..Disk::new("") };
        let store: Box<dyn Store> = Box::new(Failing(error.clone()));
        let thread = queue.start_with(Some(store), &disk, guest.attend()).unwrap();
        backend.submit(guest.job(1, op));
        Broken { error, halt, counters, guest, thread }
    }

    /// What the machine hears of next.
    fn fault(&self) -> Fault {
        loop {
            match self.halt.take_fault() {
                Some(fault) => return fault,
                None => std::thread::yield_now(),
            }
        }
    }

    /// What came of the request.
    fn end(self) -> Vec<(u64, bool)> {
        while self.guest.done.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        drop(self.thread);
        std::mem::take(&mut *self.guest.done.lock().unwrap())
    }
}

#[test]
fn each_action_is_what_it_says() {
    use OnError::{Ignore, Report, Stop, StopWithoutSpace};
    let default = Disk::new("").on_error;
    assert_eq!(default, (Report, StopWithoutSpace), "as QEMU has it");
    let (flush, discard) = (BlockOp::Flush, BlockOp::Discard { offset: 0, len: 512 });
    let rows = [
        (READ, libc::EIO, default, Action::Report),
        (READ, libc::EIO, (Ignore, Report), Action::Ignore),
        (READ, libc::EIO, (Stop, Report), Action::Stop),
        (READ, libc::ENOSPC, default, Action::Report),
        (WRITE, libc::EIO, default, Action::Report),
        (WRITE, libc::ENOSPC, default, Action::Stop),
        (WRITE, libc::ENOSPC, (Stop, Report), Action::Report),
        (WRITE, libc::EIO, (Stop, Ignore), Action::Ignore),
        (WRITE, libc::EIO, (Report, Stop), Action::Stop),
        (flush, libc::EIO, (Report, Stop), Action::Stop),
        (flush, libc::EIO, default, Action::Report),
        (discard, libc::ENOSPC, default, Action::Stop),
    ];
    for (op, error, on_error, action) in rows {
        let broken = Broken::new(error, on_error, op);
        let fault = broken.fault();
        let seen = (fault.action, fault.writes, fault.no_space, fault.counters.names());
        assert_eq!(seen, (action, op != READ, error == libc::ENOSPC, ("drive", "#image")), "{op:?} {error}");
        let reason = if error == libc::EIO { "Input/output error" } else { "No space left on device" };
        assert_eq!(fault.reason, reason);
        if action != Action::Stop {
            assert_eq!(broken.counters.status(), IoStatus::Ok);
            assert!(!broken.halt.take());
            assert_eq!(broken.end(), [(1, action == Action::Ignore)], "{op:?} {error}");
            continue;
        }
        while !broken.halt.take() {
            std::thread::yield_now();
        }
        let status = if error == libc::EIO { IoStatus::Failed } else { IoStatus::NoSpace };
        assert_eq!((broken.counters.status(), broken.guest.done.lock().unwrap().len()), (status, 0), "it waits");
        // It goes on too early once.
        broken.halt.resume();
        assert_eq!(broken.fault().action, Action::Stop);
        *broken.error.lock().unwrap() = None;
        broken.halt.resume();
        assert_eq!(broken.counters.status(), IoStatus::Ok);
        assert_eq!(broken.end(), [(1, true)], "{op:?} {error}");
    }
}

#[test]
fn what_is_not_on_the_disk_stops_nothing() {
    let file = TempFile::new("beyond", &[0; 4096]);
    let mut s = Setup::with(&Disk { on_error: (OnError::Stop, OnError::Ignore), ..disk(&file) });
    assert!(!s.run(BlockOp::Write { offset: 4096, len: 512 }));
    assert!(!s.run(BlockOp::Read { offset: 4096, len: 512 }));
}

#[test]
fn the_guest_does_not_choose_the_format_of_a_raw_image() {
    for direct in [false, true] {
        let file = TempFile::new("guessed", &[0; 1 << 16]);
        let cache = Cache { direct, ..Cache::default() };
        let probed = Disk { format: None, cache, ..disk(&file) };
        let Ok(mut image) = Image::open("-drive", &probed) else {
            assert!(direct, "only what a file system has no room for may be missing");
            continue;
        };
        let mut sector = [0; 512];
        for magic in [&b"QFI\xfb"[..], b"KDMV", b"vhdxfile", b"# Disk DescriptorFile"] {
            sector[..magic.len()].copy_from_slice(magic);
            let error = image.write(&sector, 0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{magic:?}");
            image.write(&sector, 512).unwrap();
            // Nor part by part.
            assert!(direct || image.write(&magic[..2], 0).is_ok());
            assert!(direct || image.write(&magic[2..], 2).is_err());
            image.write(&[0; 512], 0).unwrap();
            sector.fill(0);
        }
        image.flush().unwrap();
        drop(image);
        assert_eq!(Image::open("-drive", &probed).unwrap().format(), ImageFormat::Raw, "the same line, once more");
        sector[..4].copy_from_slice(b"QFI\xfb");
        Image::open("-drive", &Disk { format: Some(ImageFormat::Raw), ..probed }).unwrap().write(&sector, 0).unwrap();
    }
}

#[test]
fn qemus_tools_and_mimus_keep_off_each_others_images() {
    use std::process::Command;
    let file = TempFile::new("locks", &[0; 1 << 16]);
    let writes = || {
        let io = Command::new("qemu-io").args(["-f", "raw", "-c", "write 0 512"]).arg(&file.0).output();
        io.is_ok_and(|output| output.status.success())
    };
    if !writes() {
        // No such program here.
        return;
    }
    // A program that another test starts at this moment has the locks of before, until it is another program.
    let open = |disk: Disk| {
        let mut tries = (0..1000).map(|_| Image::open("-drive", &disk));
        tries.find_map(|image| image.map_err(|_| std::thread::sleep(Duration::from_millis(10))).ok()).unwrap()
    };
    for read_only in [false, true] {
        let image = open(Disk { read_only, ..disk(&file) });
        assert!(!writes(), "{read_only}");
        drop(image);
    }
    let image = open(Disk { locking: false, ..disk(&file) });
    assert!((0..100).any(|_| writes()));
    drop(image);
    // And the other way round: it waits for more commands while it has the image.
    let mut io = Command::new("qemu-io")
        .args(["-f", "raw"])
        .arg(&file.0)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It prompts when it has opened the image.
    io::Read::read_exact(io.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let refused = [false, true].map(|read_only| Image::open("-drive", &Disk { read_only, ..disk(&file) }).is_err());
    io.kill().unwrap();
    io.wait().unwrap();
    assert_eq!(refused, [true, true]);
}

#[test]
fn a_snapshot_costs_what_is_written_whatever_the_image_says_it_has() {
    let disk = Disk { null: Some(1 << 60), snapshot: true, ..Disk::new("null-co") };
    let mut image = Image::open("-drive", &disk).unwrap();
    for offset in [0, 1 << 30, (1 << 40) - 1024] {
        image.write(&[7; 1024], offset).unwrap();
        let mut bytes = [1; 2048];
        image.read(&mut bytes, offset).unwrap();
        assert!(bytes[..1024] == [7; 1024] && bytes[1024..] == [0; 1024], "{offset}");
    }
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
    drop(s.thread);
    s.backend.submit(s.guest.job(0, BlockOp::Flush));
}

/// Where code was written to. A reset, which is not here, would wait meanwhile.
#[derive(Default)]
struct Sink(Mutex<Vec<u64>>);

impl CodeSink for Sink {
    fn code_written(&self, gpa: u64, _: u64) -> Dropped {
        self.0.lock().unwrap().push(gpa);
        Dropped::UNKNOWN
    }
}

#[test]
fn reads_go_straight_to_memory() {
    let contents: Vec<u8> = (0..DIRECT_PIECE + 3072 + 100).map(|i| (i % 253) as u8).collect();
    let file = TempFile::new("direct", &contents);
    let sink = Arc::new(Sink::default());
    let guest = Guest::with(|ram| {
        ram.mark_code(0x2000, Ram::granules(0, 1));
        sink.clone()
    });
    let mut s = Setup::of(&Disk { read_only: true, ..disk(&file) }, guest);
    // Two pieces, the first of two parts.
    assert!(s.run(BlockOp::Read { offset: 512, len: DIRECT_PIECE as u64 + 2048 }));
    assert!(s.guest.read(DIRECT_PIECE + 2048) == contents[512..DIRECT_PIECE + 2560]);
    assert_eq!(*sink.0.lock().unwrap(), [0x2000]);

    // A last sector that the file has in part comes by way of a buffer.
    let last = (contents.len() / 512 * 512) as u64;
    assert!(s.run(BlockOp::Read { offset: last, len: 512 }));
    assert_eq!(s.guest.read(101), [&contents[last as usize..], &[0]].concat());
}

/// A disk that says when it begins with a piece, and goes on when somebody has heard it twice.
struct Told(SyncSender<u64>);

impl Told {
    fn tell(&self, offset: u64) -> io::Result<()> {
        // Fails when the test is over.
        self.0.send(offset).and_then(|()| self.0.send(offset)).map_err(io::Error::other)
    }
}

impl Store for Told {
    fn file(&self, _: u64, _: u64) -> Option<&File> {
        None
    }

    fn read(&mut self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.tell(offset)?;
        out.fill(7);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.tell(offset)?;
        if bytes.iter().all(|byte| *byte == 7) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool, _: &AtomicBool) -> io::Result<()> {
        Ok(())
    }
}

/// A disk of which somebody hears when it begins with a piece.
fn told() -> (Arc<Guest>, Box<dyn BlockBackend>, DiskThread, Receiver<u64>) {
    let (sender, pieces) = std::sync::mpsc::sync_channel(0);
    let (guest, queue) = (Guest::new(), DiskQueue::new());
    let backend = queue.backend();
    let thread = queue.start_with(Some(Box::new(Told(sender))), &Disk::new(""), guest.attend()).unwrap();
    (guest, backend, thread, pieces)
}

#[test]
fn copies_do_not_wait_for_the_devices() {
    const LEN: u64 = 3 * PIECE as u64;
    let (guest, mut backend, thread, pieces) = told();
    for (token, op) in [(1, BlockOp::Read { offset: 0, len: LEN }), (2, BlockOp::Write { offset: 0, len: LEN })] {
        // As long as somebody has the devices no job is done, but its data cross all the same.
        let devices = guest.done.lock().unwrap();
        backend.submit(guest.job(token, op));
        for piece in 0..3 {
            assert_eq!(pieces.recv().unwrap(), piece * PIECE as u64, "{op:?}");
            // Whoever has begun with a piece has moved the one before.
            assert!(guest.read(piece as usize * PIECE).iter().all(|byte| *byte == 7), "{op:?}");
            pieces.recv().unwrap();
        }
        assert!(devices.is_empty());
        drop(devices);
        assert_eq!(guest.next(), (token, true));
    }
    drop((pieces, thread));
}

#[test]
fn a_job_that_is_called_off_moves_nothing_more() {
    let (guest, mut backend, thread, pieces) = told();
    let len = RAM as u64;
    for (token, op) in [(1, BlockOp::Read { offset: 0, len }), (2, BlockOp::Write { offset: 0, len })] {
        let job = guest.job(token, op);
        let buffer = job.buffer.clone();
        backend.submit(job);
        assert_eq!(pieces.iter().take(3).collect::<Vec<_>>(), [0, 0, PIECE as u64]);
        // The second piece is on its way between the medium and memory.
        buffer.call_off();
        pieces.recv().unwrap();
        assert_eq!(guest.next(), (token, false), "{op:?}");
        assert!(pieces.try_recv().is_err(), "{op:?}: a third piece");
        let seen = guest.read(RAM);
        assert!(seen[..PIECE].iter().all(|byte| *byte == 7), "{op:?}");
        assert!(token == 2 || seen[PIECE..].iter().all(|byte| *byte == 0), "{op:?}");
        guest.write(&[7; RAM]);
    }
    drop((pieces, thread));
}

fn limit(average: u64) -> Limit {
    Limit { average, ..Limit::default() }
}

#[test]
fn limits_slow_a_disk_down_and_hold_up_no_end() {
    let file = TempFile::new("limits", &[0; 65536]);
    let mut s = Setup::with(&Disk {
        limits: Box::new(Limits { bytes: [limit(1 << 20), limit(0), limit(0)], ..Limits::default() }),
        ..disk(&file)
    });
    let start = Instant::now();
    for _ in 0..5 {
        assert!(s.run(BlockOp::Read { offset: 0, len: 65536 }));
    }
    assert!(start.elapsed() > Duration::from_millis(100), "{:?}", start.elapsed());
    drop(s.thread);
    let mut s = Setup::with(&Disk {
        limits: Box::new(Limits { requests: [limit(1), limit(0), limit(0)], ..Limits::default() }),
        ..disk(&file)
    });
    (0..100).for_each(|token| s.backend.submit(s.guest.job(token, BlockOp::Flush)));
    let start = Instant::now();
    drop(s.thread);
    assert!(start.elapsed() < Duration::from_secs(10));
}
