//! Harness of the tests that need several crates, or all of them as the `mimus` command: running it with a time limit, over
//! pipes or on a pseudo-terminal, the guests that it boots, and small kernels made on the spot.
//!
//! Everything here is for tests: what goes wrong panics with a message that says what to do.
#![forbid(unsafe_code)]

pub mod client;
pub mod engines;
pub mod files;
pub mod image;
pub mod rng;
pub mod session;
pub mod toy;

pub use files::{Folder, Guest, guest, program};
pub use session::{Ended, Hangup, Session};

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};

/// Says what a test is doing, at once and whether or not it passes (the test harness holds `println!` back).
pub fn progress(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "  {text}");
}

/// A number that is another in each run.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
