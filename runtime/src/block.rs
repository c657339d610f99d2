//! The host side of disks: a file, and the thread that reads and writes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mimus_hw::virtio::{BlockBackend, BlockInfo, BlockJob, BlockOp, SECTOR_SIZE};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use crate::cli::CliError;

/// Bytes that are copied at once: as long as a device may be kept from its vCPU by a copy.
const PIECE: usize = 128 << 10;

/// A format's magic number: where it is, and what.
type Magic = (usize, &'static [u8], &'static str);

/// Formats that are not raw.
const FORMATS: &[Magic] = &[
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
];

/// The contents of a disk: a raw image.
#[derive(Debug)]
pub struct RawImage {
    file: File,
    bytes: u64,
    read_only: bool,
}

impl RawImage {
    /// Opens the image that `option` (as typed, such as `-drive`) names, and locks it against other writers.
    ///
    /// # Errors
    ///
    /// Whatever the host says; an image in use by another process.
    pub fn open(option: &str, path: &Path, read_only: bool) -> Result<RawImage, CliError> {
        let failed = |error: &io::Error| CliError::file(option, "cannot open", path, error);
        let mut file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(|error| failed(&error))?;
        if file.metadata().map_err(|error| failed(&error))?.is_dir() {
            return Err(failed(&Errno::ISDIR.into()));
        }
        let lock = match read_only {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        // Other errors are those of file systems that have no locks.
        if flock(&file, lock) == Err(Errno::WOULDBLOCK) {
            let message = format!("'{}' is in use by another process", path.display());
            return Err(CliError::new(option, message));
        }
        // Host devices have no length otherwise.
        let bytes = file.seek(SeekFrom::End(0)).map_err(|error| failed(&error))?;
        Ok(RawImage { file, bytes: bytes / SECTOR_SIZE * SECTOR_SIZE, read_only })
    }

    /// The format that the image seems to have, if it is another than raw.
    pub fn other_format(&self) -> Option<&'static str> {
        let mut head = [0; 512];
        // What is shorter than that is none of them.
        self.file.read_exact_at(&mut head, 0).ok()?;
        let found = FORMATS.iter().find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
        found.map(|(.., name)| *name)
    }

    /// What the guest sees.
    pub fn info(&self, serial: &str) -> BlockInfo {
        BlockInfo {
            sectors: self.bytes / SECTOR_SIZE,
            read_only: self.read_only,
            discard: true,
            serial: serial.to_owned(),
        }
    }

    /// Frees space; that the host's file system cannot is no failure, since what is read afterwards is anybody's guess.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool, stop: &AtomicBool) -> io::Result<()> {
        let how = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        if fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, offset, len).is_ok() {
            return Ok(());
        }
        let zeroes = vec![0; PIECE];
        for_pieces(len, stop, |at, count| self.file.write_all_at(zeroes.get(..count).unwrap_or_default(), offset + at))
    }
}

/// What the thread needs of the machine. None of it is called with a lock held that a machine needs to stop.
pub trait Exchange: Send {
    /// See [`Virtio::block_fill`](mimus_hw::virtio::Virtio::block_fill).
    fn fill(&self, token: u64, at: u64, bytes: &[u8]) -> bool;
    /// See [`Virtio::block_take`](mimus_hw::virtio::Virtio::block_take).
    fn take(&self, token: u64, at: u64, bytes: &mut [u8]) -> bool;
    /// See [`Virtio::block_done`](mimus_hw::virtio::Virtio::block_done).
    fn done(&self, token: u64, ok: bool);
}

/// Calls `f` with offset and size of each piece of `len` bytes.
fn for_pieces(len: u64, stop: &AtomicBool, mut f: impl FnMut(u64, usize) -> io::Result<()>) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        if stop.load(Ordering::Acquire) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let count = (len - at).min(PIECE as u64) as usize;
        f(at, count)?;
        at += count as u64;
    }
    Ok(())
}

/// What the thread is told.
enum Message {
    Job(BlockJob),
    Stop,
}

/// A device's way to the thread.
struct Jobs(Sender<Message>);

impl BlockBackend for Jobs {
    fn submit(&mut self, job: BlockJob) {
        // Fails when the thread is gone: then the machine is about to go, too.
        let _ = self.0.send(Message::Job(job));
    }
}

/// Where a disk's jobs go before its thread runs.
#[derive(Debug)]
pub struct DiskQueue {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

impl DiskQueue {
    /// An empty one.
    pub fn new() -> DiskQueue {
        let (sender, receiver) = channel();
        DiskQueue { sender, receiver }
    }

    /// What to make the device with.
    pub fn backend(&self) -> Box<dyn BlockBackend> {
        Box::new(Jobs(self.sender.clone()))
    }

    /// Starts the thread that does the jobs on `image`.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(self, image: RawImage, exchange: impl Exchange + 'static) -> io::Result<DiskThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let (receiver, own) = (self.receiver, stop.clone());
        let thread = std::thread::Builder::new().name("disk".into()).spawn(move || {
            let worker = Worker { image, exchange, stop: own };
            let mut piece = vec![0; PIECE];
            while let Ok(Message::Job(job)) = receiver.recv() {
                worker.run(job, &mut piece);
            }
        })?;
        Ok(DiskThread { sender: self.sender, stop, thread: Some(thread) })
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
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
            Message::Stop => "Stop",
        })
    }
}

struct Worker<E> {
    image: RawImage,
    exchange: E,
    stop: Arc<AtomicBool>,
}

impl<E: Exchange> Worker<E> {
    fn run(&self, job: BlockJob, piece: &mut [u8]) {
        let result = self.work(job, piece);
        if let Err(error) = &result {
            tracing::debug!(?job, "disk: {error}");
        }
        self.exchange.done(job.token, result.is_ok());
    }

    fn work(&self, BlockJob { token, op }: BlockJob, piece: &mut [u8]) -> io::Result<()> {
        let (image, stop) = (&self.image, &self.stop);
        // The device was reset: nobody waits for the rest.
        let wanted = |wanted: bool| if wanted { Ok(()) } else { Err(io::Error::from(io::ErrorKind::Interrupted)) };
        match op {
            BlockOp::Read { offset, len } => for_pieces(len, stop, |at, count| {
                let bytes = piece.get_mut(..count).unwrap_or_default();
                image.file.read_exact_at(bytes, offset + at)?;
                wanted(self.exchange.fill(token, at, bytes))
            }),
            BlockOp::Write { offset, len } => for_pieces(len, stop, |at, count| {
                let bytes = piece.get_mut(..count).unwrap_or_default();
                wanted(self.exchange.take(token, at, bytes))?;
                image.file.write_all_at(bytes, offset + at)
            }),
            BlockOp::Flush => image.file.sync_data(),
            BlockOp::Discard { offset, len } => image.discard(offset, len),
            BlockOp::WriteZeroes { offset, len, unmap } => image.write_zeroes(offset, len, unmap, stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use super::*;

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

    /// The memory of a guest that wants everything at the beginning of it.
    #[derive(Default)]
    struct Guest {
        memory: Mutex<Vec<u8>>,
        done: Mutex<Vec<(u64, bool)>>,
        changed: Condvar,
        refuses: AtomicBool,
    }

    #[derive(Clone)]
    struct Handle(Arc<Guest>);

    impl Exchange for Handle {
        fn fill(&self, _: u64, at: u64, bytes: &[u8]) -> bool {
            let at = at as usize;
            self.0.memory.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
            !self.0.refuses.load(Ordering::Acquire)
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
            let image = RawImage::open("-drive", &file.0, false).unwrap();
            let guest = Arc::new(Guest { memory: Mutex::new(vec![0; 1 << 20]), ..Guest::default() });
            let queue = DiskQueue::new();
            let backend = queue.backend();
            let thread = queue.start(image, Handle(guest.clone())).unwrap();
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
    fn failures_are_reported() {
        let file = TempFile::new("failures", &[0; 4096]);
        let mut s = Setup::new(&file);
        assert!(!s.run(BlockOp::Read { offset: 4096, len: 512 }), "beyond the end");
        s.guest.refuses.store(true, Ordering::Release);
        assert!(!s.run(BlockOp::Write { offset: 0, len: 512 }));
        drop(s.thread);
        s.backend.submit(BlockJob { token: 0, op: BlockOp::Flush });
    }

    #[test]
    fn an_image_is_sized_in_sectors_and_has_one_writer() {
        let file = TempFile::new("open", &[0; 1500]);
        let image = RawImage::open("-drive", &file.0, false).unwrap();
        assert_eq!((image.info("x").sectors, image.other_format()), (2, None));
        let error = RawImage::open("-drive", &file.0, true).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        drop(image);
        let readers = [RawImage::open("-drive", &file.0, true), RawImage::open("-drive", &file.0, true)];
        assert!(readers.iter().all(Result::is_ok));
        assert!(readers[0].as_ref().is_ok_and(|image| image.info("").read_only));
        let error = RawImage::open("-drive", Path::new("/"), true).unwrap_err().to_string();
        assert_eq!(error, "-drive: cannot open '/': Is a directory");
        let mut image = vec![0; 512];
        image[..4].copy_from_slice(b"QFI\xfb");
        let file = TempFile::new("qcow2", &image);
        assert_eq!(RawImage::open("-drive", &file.0, true).unwrap().other_format(), Some("qcow2"));
    }
}
