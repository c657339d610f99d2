//! Guest instruction sets: decode and semantics as micro-ops.
#![forbid(unsafe_code)]

pub mod x86;
