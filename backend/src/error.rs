//! What can go wrong while code is made; none of it is caused by what a guest does.

/// Why the backend could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The block is not well formed: a frontend's bug.
    #[error("malformed block: op {index}: {reason}")]
    Malformed {
        /// Position of the op in the block.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The code generator does not know this host, or rejects one of our settings.
    #[error("host not supported: {0}")]
    Host(String),
    /// The code generator gave up.
    #[error("code generation: {0}")]
    Codegen(String),
    /// Code that needs fixing up where it is placed, or tables at run time, was generated.
    #[error("generated code is not self-contained: {relocations} relocations, {traps} traps, alignment {alignment}")]
    NotSelfContained {
        /// Relocations left over.
        relocations: usize,
        /// Trap sites left over.
        traps: usize,
        /// Alignment asked for, in bytes.
        alignment: u32,
    },
    /// There is no memory for the code that lives as long as the machine.
    #[error("memory for thunks: {0}")]
    Permanent(String),
    /// The arena's size does not allow the parts it is to be cut into.
    #[error("a code arena of {0} bytes is too small")]
    ArenaTooSmall(usize),
    /// The operating system refused memory.
    #[error("memory for code")]
    Memory(#[source] std::io::Error),
    /// The perf map could not be written.
    #[error("perf map")]
    PerfMap(#[source] std::io::Error),
}
