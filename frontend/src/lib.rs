//! Guest instruction sets of mimus: state, decoding, semantics as micro-ops, helpers, exceptions and page
//! walkers. A guest is one module here, one machine in the runtime and its devices, and nothing else.
#![forbid(unsafe_code)]

pub mod x86;
