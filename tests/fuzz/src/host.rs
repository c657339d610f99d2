//! The host's side of the devices here: it remembers what they ask for, and does it when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimus_hw::CharSink;
use mimus_hw::net::NetPeer;
use mimus_hw::virtio::{BlockBackend, BlockJob, Entropy, ShareBackend};
use mimus_softmmu::{CodeSink, Dropped};

/// Jobs that a disk may have at once; see [`BlockBackend::submit`].
const MOST_JOBS: usize = 256;
/// The same of a shared folder's messages; see [`ShareBackend::submit`].
const MOST_MESSAGES: usize = 128;

/// What has happened on the host's side.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Characters that were sent, and what they were.
    pub sent: (u64, u64),
    /// Random numbers that were asked for.
    entropy: u64,
    /// Times that a network was told of something to do.
    pub notified: u64,
    /// Jobs that are not done, by disk and token.
    pub jobs: BTreeMap<(u8, u64), BlockJob>,
    /// Messages that are not answered.
    pub messages: BTreeSet<u64>,
}

/// A [`Host`] that a device's handles share.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Host>>);

impl Shared {
    /// The handles of a copy of a machine, which is to get its jobs again.
    pub fn copy(&self) -> Shared {
        let host = Host { jobs: BTreeMap::new(), messages: BTreeSet::new(), ..self.lock().clone() };
        Shared(Arc::new(Mutex::new(host)))
    }

    /// Access to it.
    pub fn lock(&self) -> MutexGuard<'_, Host> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Disk `number`.
    pub fn disk(&self, number: u8) -> Box<dyn BlockBackend> {
        Box::new(Disk(self.clone(), number))
    }
}

impl CharSink for Shared {
    fn write(&mut self, bytes: &[u8]) {
        let mut host = self.lock();
        let mut hasher = DefaultHasher::new();
        // The order of the bytes counts, and not how many came at once.
        for byte in bytes {
            hasher.write_u64(host.sent.1);
            hasher.write_u8(*byte);
            host.sent = (host.sent.0 + 1, hasher.finish());
        }
    }
}

impl Entropy for Shared {
    fn fill(&mut self, out: &mut [u8]) {
        let mut host = self.lock();
        host.entropy += 1;
        out.fill(host.entropy as u8);
    }
}

impl NetPeer for Shared {
    fn notify(&mut self) {
        self.lock().notified += 1;
    }

    fn offloads(&self) -> bool {
        true
    }
}

impl ShareBackend for Shared {
    fn submit(&mut self, token: u64) {
        let mut host = self.lock();
        assert!(host.messages.insert(token), "two messages have token {token}");
        let count = host.messages.len();
        assert!(count <= MOST_MESSAGES, "there are {count} messages");
    }

    fn reset(&mut self) {}
}

struct Disk(Shared, u8);

impl BlockBackend for Disk {
    fn submit(&mut self, job: BlockJob) {
        let mut host = self.0.lock();
        let token = job.token;
        let before = host.jobs.insert((self.1, token), job);
        assert!(before.is_none(), "two jobs have token {token}");
        let count = host.jobs.keys().filter(|(disk, _)| *disk == self.1).count();
        assert!(count <= MOST_JOBS, "a disk has {count} jobs");
    }
}

/// Nothing here is code.
pub struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}
