//! What a disk's thread has done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mimus_hw::virtio::BlockOp;

/// Kinds of requests that are counted, with their names in monitors.
pub const KINDS: [&str; 4] = ["rd", "wr", "flush", "unmap"];

/// Requests of one kind.
#[derive(Debug, Default)]
pub struct Requests {
    /// How many were done.
    pub count: AtomicU64,
    /// Bytes that they read or wrote.
    pub bytes: AtomicU64,
    /// How many failed.
    pub failed: AtomicU64,
    /// Nanoseconds that all of them took.
    pub time: AtomicU64,
}

/// Counters of a disk, by [`KINDS`].
#[derive(Debug, Default)]
pub struct Counters([Requests; 4]);

impl Counters {
    /// Counts a request that took `time`.
    pub(super) fn count(&self, op: BlockOp, ok: bool, time: Duration) {
        let (kind, bytes) = match op {
            BlockOp::Read { len, .. } => (0, len),
            BlockOp::Write { len, .. } | BlockOp::WriteZeroes { len, .. } => (1, len),
            BlockOp::Flush => (2, 0),
            BlockOp::Discard { len, .. } => (3, len),
        };
        let Some(requests) = self.0.get(kind) else { return };
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
        KINDS.into_iter().zip(&self.0)
    }
}
