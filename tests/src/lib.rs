//! What the guest tests share: running the `mimus` command with a time limit, over pipes or on a pseudo-terminal, the guests
//! that it boots, and small kernels made on the spot.
//!
//! Everything here is for tests: what goes wrong panics with a message that says what to do.
#![forbid(unsafe_code)]

pub mod files;
pub mod image;
pub mod session;

pub use files::{Folder, Guest, guest, program};
pub use session::{Ended, Session};

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

/// Numbers that are the same in each run, for inputs that no one chose (Marsaglia's xorshift64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence that `seed` begins.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() >> 16) as usize % bound
    }

    /// `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.number() >> 24) as u8).collect()
    }
}
