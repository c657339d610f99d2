//! What the tests in this folder's data files are made of: the form of the files, and what becomes of an input. Here and not in
//! `mimus-tests`, so that trying an instruction builds no machine. `tests/filetests.rs` runs them.
//!
//! ```sh
//! cargo test -p mimus-filetests               # compares
//! cargo test -p mimus-filetests -- --bless    # writes what came out behind the inputs
//! ```

#![forbid(unsafe_code)]

mod asm;
mod block;
pub mod file;
mod lift;
mod lower;

use file::Produced;

/// Makes of an input what a folder's tests expect. The first argument has the settings in force, a word each.
pub type Producer = fn(&[String], &str) -> Result<Produced, String>;

/// A folder of data files.
#[derive(Clone, Copy, Debug)]
pub struct Folder {
    /// Its name.
    pub name: &'static str,
    /// What is done with the inputs in its files.
    pub producer: Producer,
    /// Whether that can be done here.
    pub possible: bool,
}

/// The code generator is built for the machine at hand alone.
const HAS_X64_CODE: bool = cfg!(target_arch = "x86_64");

/// The folders, a row each.
pub const FOLDERS: &[Folder] = &[
    Folder { name: "lift-x86", producer: lift::x86, possible: true },
    Folder { name: "lift-riscv", producer: lift::riscv, possible: true },
    Folder { name: "passes", producer: block::passes, possible: true },
    Folder { name: "lower", producer: lower::clif, possible: HAS_X64_CODE },
    Folder { name: "quick", producer: lower::quick, possible: HAS_X64_CODE },
];
