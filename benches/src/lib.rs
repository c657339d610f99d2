//! What is measured: each step that a block takes, and guest programs on each tier. Criterion times the cases
//! (`benches/cases.rs`), and `tools/count-instructions` counts the host's instructions in them.
#![forbid(unsafe_code)]

mod guest;
mod programs;
mod samples;
mod steps;

pub use guest::{Guest, Tier};
pub use programs::{PROGRAMS, Program};
pub use samples::{Sample, samples};

/// Something to measure.
pub struct Case {
    /// What it belongs to.
    pub group: &'static str,
    /// Its name in the group.
    pub name: &'static str,
    /// What is repeated in a round.
    pub item: &'static str,
    /// Rounds after which nothing new is compiled, and which are enough to count.
    pub rounds: u64,
    prepare: Box<dyn Fn() -> Prepared>,
}

/// A case that is ready to run.
pub struct Prepared {
    /// Items in a round.
    pub items: u64,
    /// Runs so many rounds.
    pub run: Box<dyn FnMut(u64)>,
}

impl Case {
    /// Group and name, as in `lift/integer`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Makes it ready to run.
    pub fn prepare(&self) -> Prepared {
        (self.prepare)()
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Case").field(&self.full_name()).finish()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("items", &self.items).finish_non_exhaustive()
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut cases = steps::cases();
    cases.extend(programs::cases());
    cases
}
