//! What a configuration says of the guest's RAM on the host.

use std::path::PathBuf;

/// How guest RAM is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// It is in this file; in memory of its own if there is none.
    pub file: Option<RamFile>,
    /// All of it is allocated before the guest starts.
    pub allocated: bool,
}

/// A file that guest RAM is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamFile {
    /// The option that it is of, as typed.
    pub option: String,
    /// The file, or a folder that one without a name is made in.
    pub path: PathBuf,
    /// What the guest writes is seen in the file.
    pub shared: bool,
}
