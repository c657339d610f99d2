//! The interrupt lines of a RISC-V board into its harts, which vCPUs read without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fabric::IrqSink;

/// Inputs of a hart, by their numbers in mip.
pub(super) const LINES: u32 = 16;

/// What is called with the number of a line and its level when that has changed.
type Change = Box<dyn Fn(u32, bool) + Send + Sync>;

#[derive(Default)]
struct Hart {
    levels: AtomicU64,
    change: OnceLock<Change>,
}

/// The lines of all harts: bits of mip, by hart.
pub struct HartLines(Vec<Hart>);

impl HartLines {
    pub(super) fn new(harts: usize) -> HartLines {
        HartLines((0..harts).map(|_| Hart::default()).collect())
    }

    /// Has `change` called with the number of each line of `hart` that changes, and its level. Later calls change nothing.
    pub fn on_change(&self, hart: usize, change: impl Fn(u32, bool) + Send + Sync + 'static) {
        if let Some(hart) = self.0.get(hart) {
            // Only the first one counts.
            let _ = hart.change.set(Box::new(change));
        }
    }

    /// The lines of `hart` that are high, bit by number.
    pub(super) fn levels(&self, hart: usize) -> u64 {
        self.0.get(hart).map_or(0, |hart| hart.levels.load(Ordering::Acquire))
    }
}

impl IrqSink for HartLines {
    fn set_input(&self, input: u32, level: bool) {
        let Some(hart) = self.0.get((input / LINES) as usize) else { return };
        let line = input % LINES;
        let bit = 1 << line;
        let before = match level {
            true => hart.levels.fetch_or(bit, Ordering::AcqRel),
            false => hart.levels.fetch_and(!bit, Ordering::AcqRel),
        };
        if let Some(change) = hart.change.get().filter(|_| (before & bit != 0) != level) {
            change(line, level);
        }
    }
}

impl std::fmt::Debug for HartLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries((0..self.0.len()).map(|hart| self.levels(hart))).finish()
    }
}
