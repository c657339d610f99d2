//! Compiled code against the interpreter, on a toy guest.
#![allow(missing_docs)]

mod all_arch;
mod code;
mod control;
mod floats;
mod generated;
mod memory;
mod ops;
mod random;
mod region;
mod threads;
mod toy;
