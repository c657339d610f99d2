//! x86: real, protected, virtual-8086, compatibility and 64-bit mode.

pub mod arith;
pub mod cpu;
pub mod cpuid;
mod debug;
mod engine;
pub mod exception;
pub mod features;
pub mod flags;
pub mod fp;
pub mod fpu;
pub mod helpers;
pub mod lift;
pub mod mode;
pub mod paging;
#[expect(missing_docs, reason = "the names are the manual's")]
mod registers;
pub mod saved;
pub mod state;
pub mod strings;
pub mod sys;

pub use crate::common::NoDevices;
pub use cpu::{Bus, Cpu, Features, HEADER_OFFSET};
pub use mode::Mode;
pub use saved::{CpuState, RestoreError};
