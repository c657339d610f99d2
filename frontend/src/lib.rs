//! Guest instruction sets of mimus: state, decoding, semantics as micro-ops, helpers, exceptions and page
//! walkers. A guest is one module here, one machine in the runtime and its devices, and nothing else. [`common`] has what all of
//! them need; no guest names another.
// Runs with the guest's rounding and flags in the host's register when compiled code calls it.
#![cfg_attr(not(test), deny(clippy::float_arithmetic))]
#![forbid(unsafe_code)]

pub mod common;
pub mod riscv;
pub mod x86;

pub use common::{debug, guest};
