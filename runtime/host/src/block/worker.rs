//! The thread of a disk: it takes the device's jobs one after the other and does them on the image.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mimus_hw::block::{BlockJob, BlockOp};

use super::halt::{Action, Fault, is_full};
use super::throttle::Throttle;
use super::{Counters, DIRECT_PIECE, LONGEST_SLEEP, PIECE, Stopping, Store, direct, for_pieces};
use crate::config::{Cache, OnError};

/// A disk's thread.
pub(super) struct Worker<F> {
    pub store: Option<Box<dyn Store>>,
    /// Has the device attend to jobs that are over.
    pub attend: F,
    pub stop: Arc<AtomicBool>,
    pub throttle: Throttle,
    pub cache: Cache,
    /// What becomes of a read that fails, and of anything else.
    pub on_error: (OnError, OnError),
    pub stopping: Stopping,
    pub counters: Arc<Counters>,
}

/// Bytes of a request, and whether it writes; neither reads nor writes what says nothing of it.
fn extent(op: BlockOp) -> (u64, Option<bool>) {
    match op {
        BlockOp::Read { len, .. } => (len, Some(false)),
        BlockOp::Write { len, .. } => (len, Some(true)),
        _ => (0, None),
    }
}

impl<F: Fn()> Worker<F> {
    /// Does a job, or makes sure that nobody waits for it.
    pub(super) fn run(&mut self, job: &BlockJob, piece: &mut [u8]) {
        loop {
            self.wait(job.op);
            let start = Instant::now();
            let result = self.work(job, piece);
            self.counters.count(job.op, result.is_ok(), start.elapsed());
            let action = match &result {
                Ok(()) => None,
                Err(error) => {
                    tracing::debug!(?job, "disk: {error}");
                    self.failed(job.op, error)
                }
            };
            if action == Some(Action::Stop) && !self.stop.load(Ordering::Acquire) {
                continue;
            }
            job.finish(result.is_ok() || action == Some(Action::Ignore));
            return (self.attend)();
        }
    }

    /// What is done about an error. Where the machine stops for it, this comes back when it goes on.
    fn failed(&self, op: BlockOp, error: &io::Error) -> Option<Action> {
        // What was reset has nobody who waits for it, and what is not on the disk at all is the guest's own fault.
        if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::InvalidInput) {
            return None;
        }
        let writes = !matches!(op, BlockOp::Read { .. });
        let wanted = if writes { self.on_error.1 } else { self.on_error.0 };
        let action = match wanted {
            OnError::Stop => Action::Stop,
            OnError::StopWithoutSpace if is_full(error) => Action::Stop,
            OnError::Report | OnError::StopWithoutSpace => Action::Report,
            OnError::Ignore => Action::Ignore,
        };
        let Some((halt, kicker)) = &self.stopping else {
            return (action != Action::Stop).then_some(action);
        };
        let fault = Fault::new(self.counters.clone(), writes, action, error);
        if action == Action::Stop {
            tracing::error!(
                "a disk cannot do what it should, and stops the machine: {error}; `cont` in a monitor tries again"
            );
            halt.hold(kicker, fault, &self.stop);
        } else {
            halt.tell(kicker, fault);
        }
        Some(action)
    }

    /// Waits until the job may be done.
    fn wait(&self, op: BlockOp) {
        let (bytes, writes) = extent(op);
        while let Err(left) = self.throttle.admit(bytes, writes)
            && !self.stop.load(Ordering::Acquire)
        {
            std::thread::sleep(left.min(LONGEST_SLEEP));
        }
    }

    fn work(&mut self, BlockJob { op, buffer, .. }: &BlockJob, piece: &mut [u8]) -> io::Result<()> {
        let Worker { store: Some(store), stop, .. } = self else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // The device was reset: nobody waits for the rest.
        let wanted = |wanted: bool| if wanted { Ok(()) } else { Err(io::Error::from(io::ErrorKind::Interrupted)) };
        match *op {
            BlockOp::Read { offset, len } => for_pieces(len, DIRECT_PIECE, stop, |start, count| {
                if let Some(file) = store.file(offset + start, count as u64)
                    && let Some(target) = buffer.target(start, count)
                    && direct::read(file, &target, offset + start)?
                {
                    return Ok(());
                }
                for_pieces(count as u64, PIECE, stop, |at, count| {
                    let bytes = piece.get_mut(..count).unwrap_or_default();
                    store.read(bytes, offset + start + at)?;
                    wanted(buffer.fill(start + at, bytes))
                })
            }),
            BlockOp::Write { offset, len } => for_pieces(len, PIECE, stop, |at, count| {
                let bytes = piece.get_mut(..count).unwrap_or_default();
                wanted(buffer.take(at, bytes))?;
                store.write(bytes, offset + at)
            }),
            BlockOp::Flush => Ok(()),
            BlockOp::Discard { offset, len } => store.discard(offset, len),
            BlockOp::WriteZeroes { offset, len, unmap } => store.write_zeroes(offset, len, unmap, stop),
        }?;
        let flush = match op {
            BlockOp::Read { .. } => false,
            BlockOp::Flush => !self.cache.no_flush,
            _ => self.cache.writethrough,
        };
        if flush { store.flush() } else { Ok(()) }
    }
}
