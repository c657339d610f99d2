//! Harness of the tests that need several crates.
#![forbid(unsafe_code)]

pub mod engines;
pub mod rng;
