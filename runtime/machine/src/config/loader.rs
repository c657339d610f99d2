//! What a configuration says of pieces that are loaded beside firmware and kernel.

use std::path::PathBuf;

/// What `-device loader` puts into RAM before the machine starts, and again at each reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPiece {
    /// What is put there.
    pub content: PieceContent,
    /// Where, as a guest-physical address; files may say it themselves.
    pub addr: u64,
    /// The vCPU starts there, or at the file's entry.
    pub starts: bool,
}

/// What a [`LoadedPiece`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceContent {
    /// Nothing: only where the vCPU starts is said.
    Nothing,
    /// Bytes of the command line.
    Words(Vec<u8>),
    /// A file.
    File {
        /// Its name.
        path: PathBuf,
        /// It is loaded as it is, whatever is in it.
        raw: bool,
    },
}
