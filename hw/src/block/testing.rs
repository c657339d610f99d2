//! The host side of a disk for tests: it keeps what it is given.

use std::sync::{Arc, Mutex};

use super::{BlockBackend, BlockJob, BlockOp};

/// Jobs in their order. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs(Arc<Mutex<Vec<BlockJob>>>);

impl BlockBackend for Jobs {
    fn submit(&mut self, job: BlockJob) {
        self.0.lock().unwrap().push(job);
    }
}

impl Jobs {
    /// The jobs since the last call.
    pub(crate) fn all(&self) -> Vec<BlockJob> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The jobs since the last call, which are so many.
    pub(crate) fn take<const N: usize>(&self) -> [BlockJob; N] {
        self.all().try_into().unwrap()
    }

    /// What the jobs since the last call are to do.
    pub(crate) fn ops(&self) -> Vec<BlockOp> {
        self.all().into_iter().map(|job| job.op).collect()
    }
}
