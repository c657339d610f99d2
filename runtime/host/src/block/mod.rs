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
mod worker;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mimus_hw::block::{BlockBackend, BlockJob};

use crate::config::Disk;
pub use counters::{Counters, IoStatus};
pub use halt::{Action, Fault, Halt};
pub use image::Image;
use mimus_softmmu::halt_polling::HaltPolling;
use mimus_softmmu::kick::Kicker;
pub use overlay::temporary_folder;
use throttle::{Groups, Throttle};
use worker::Worker;

/// Bytes that are copied at once: as long as a reset may have to wait for a copy.
const PIECE: usize = 128 << 10;

/// Bytes that are read straight into guest memory at once: as long as a reset may have to wait.
const DIRECT_PIECE: usize = 512 << 10;

/// The longest sleep of a thread that may be told to end.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// What has a disk's bytes. A range that is not on the disk is an [`io::ErrorKind::InvalidInput`].
pub trait Store: Send {
    /// The file that has bytes `offset..offset + len` of the disk at the same place, if there is one.
    fn file(&self, offset: u64, len: u64) -> Option<&File>;
    /// Reads all of `out` from byte `offset` on.
    ///
    /// # Errors
    ///
    /// Whatever the host says, and what of an image is wrong; so of the others.
    fn read(&mut self, out: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes `bytes` from byte `offset` on.
    ///
    /// # Errors
    ///
    /// As of [`Store::read`].
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written last.
    ///
    /// # Errors
    ///
    /// As of [`Store::read`].
    fn flush(&mut self) -> io::Result<()>;
    /// Frees space, where that is wanted; that the host cannot is no failure, since what is read afterwards is anybody's guess.
    ///
    /// # Errors
    ///
    /// As of [`Store::read`].
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;
    /// Writes zeroes; with `unmap` the host may free the space. `stop` makes it fail.
    ///
    /// # Errors
    ///
    /// As of [`Store::read`].
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool, stop: &AtomicBool) -> io::Result<()>;
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

fn boxed(image: Image) -> Box<dyn Store> {
    Box::new(image)
}

/// What the thread is told.
enum Message {
    Job(BlockJob),
    /// Another medium, or none.
    Change(Option<Box<dyn Store>>),
    Stop,
}

/// A device's way to the thread.
struct Jobs {
    sender: Sender<Message>,
}

impl BlockBackend for Jobs {
    fn submit(&mut self, job: BlockJob) {
        // Fails when the thread is gone: then the machine is about to go, too.
        let _ = self.sender.send(Message::Job(job));
    }
}

/// Where a disk's jobs go before its thread runs.
#[derive(Debug)]
pub struct DiskQueue {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    counters: Arc<Counters>,
    stopping: Stopping,
}

/// How a disk stops its machine, if it can.
type Stopping = Option<(Arc<Halt>, Arc<Kicker>)>;

impl DiskQueue {
    /// An empty one.
    pub fn new() -> DiskQueue {
        let (sender, receiver) = channel();
        DiskQueue { sender, receiver, counters: Arc::default(), stopping: None }
    }

    /// One that can stop the machine, whose vCPU `kicker` wakes.
    pub fn stopping(self, halt: Arc<Halt>, kicker: Arc<Kicker>) -> DiskQueue {
        DiskQueue { stopping: Some((halt, kicker)), ..self }
    }

    /// What to make the device with.
    pub fn backend(&self) -> Box<dyn BlockBackend> {
        Box::new(Jobs { sender: self.sender.clone() })
    }

    /// What the thread has done, and will have.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Starts the thread that does the jobs on `image`, as `disk` says. Without an image there is none yet. `attend` has
    /// the device see which jobs are over; it is called with no lock held.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(
        self,
        image: impl Into<Option<Image>>,
        disk: &Disk,
        attend: impl Fn() + Send + 'static,
    ) -> io::Result<DiskThread> {
        self.start_with(image.into().map(boxed), disk, attend)
    }

    /// The same on what is no image.
    fn start_with(
        self,
        store: Option<Box<dyn Store>>,
        disk: &Disk,
        attend: impl Fn() + Send + 'static,
    ) -> io::Result<DiskThread> {
        let counters = self.counters;
        let stop = Arc::new(AtomicBool::new(false));
        let (receiver, own) = (self.receiver, stop.clone());
        let groups = self.stopping.as_ref().map_or_else(Groups::default, |(halt, _)| halt.groups.clone());
        let throttle = Throttle::new(&disk.limits, &groups);
        let (cache, on_error, stopping) = (disk.cache, disk.on_error, self.stopping);
        let thread = std::thread::Builder::new().name("disk".into()).spawn(move || {
            let mut worker = Worker { store, attend, stop: own, throttle, cache, on_error, stopping, counters };
            let mut piece = vec![0; PIECE];
            let mut polling = HaltPolling::default();
            loop {
                match polling.wait(|| receiver.try_recv().ok(), || receiver.recv().unwrap_or(Message::Stop)) {
                    Message::Job(job) => worker.run(&job, &mut piece),
                    Message::Change(store) => worker.store = store,
                    Message::Stop => break,
                }
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

impl DiskThread {
    /// Another image, or none, once all jobs before this are done: the backend for what comes after.
    pub fn change(&self, image: Option<Image>) -> Box<dyn BlockBackend> {
        // Fails when the thread is gone: then nothing is done for anybody.
        let _ = self.sender.send(Message::Change(image.map(boxed)));
        Box::new(Jobs { sender: self.sender.clone() })
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

#[cfg(test)]
mod tests;
