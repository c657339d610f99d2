//! Counters of a disk, which its thread keeps and monitors read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mimus_hw::virtio::BlockOp;

/// Kinds of requests that are counted, with their names in monitors.
pub const KINDS: [&str; 4] = ["rd", "wr", "flush", "unmap"];

/// Requests of one kind.
#[derive(Debug, Default)]
pub struct Requests {
    /// How many were done.
    pub count: AtomicU64,
    /// Bytes read or written by these operations.
    pub bytes: AtomicU64,
    /// How many failed.
    pub failed: AtomicU64,
    /// Nanoseconds that all of them took.
    pub time: AtomicU64,
}

/// Whether a disk has stopped its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoStatus {
    /// The disk has not stopped its machine.
    #[default]
    Ok,
    /// For an error of the host's.
    Failed,
    /// Because the host has no room.
    NoSpace,
}

impl IoStatus {
    /// QMP's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            IoStatus::Ok => "ok",
            IoStatus::Failed => "failed",
            IoStatus::NoSpace => "nospace",
        }
    }
}

/// Counters of a disk, by [`KINDS`], and how it is.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [Requests; 4],
    status: Mutex<IoStatus>,
    /// What monitors call the drive, and its image.
    names: OnceLock<(String, String)>,
}

impl Counters {
    /// Whether the disk has stopped its machine.
    pub fn status(&self) -> IoStatus {
        // Nothing is behind the lock that a panic could have spoilt.
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_status(&self, status: IoStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Says what monitors call the drive and its image; the first time counts.
    pub fn name(&self, drive: &str, image: &str) {
        let _ = self.names.set((drive.to_owned(), image.to_owned()));
    }

    /// What monitors call the drive, and its image; empty before they know of them.
    pub fn names(&self) -> (&str, &str) {
        self.names.get().map_or(("", ""), |(drive, image)| (drive, image))
    }

    /// Counts a request that took `time`.
    pub(super) fn count(&self, op: BlockOp, ok: bool, time: Duration) {
        let (kind, bytes) = match op {
            BlockOp::Read { len, .. } => (0, len),
            BlockOp::Write { len, .. } | BlockOp::WriteZeroes { len, .. } => (1, len),
            BlockOp::Flush => (2, 0),
            BlockOp::Discard { len, .. } => (3, len),
        };
        let Some(requests) = self.requests.get(kind) else { return };
        // Read by nobody who depends on their order.
        let add = |counter: &AtomicU64, by| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        add(&requests.time, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        if ok {
            add(&requests.count, 1);
            add(&requests.bytes, bytes);
        } else {
            add(&requests.failed, 1);
        }
    }

    /// The counters with their kinds' names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Requests)> {
        KINDS.into_iter().zip(&self.requests)
    }
}
