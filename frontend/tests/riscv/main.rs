//! The RISC-V guest on the interpreter, against the manual.
#![forbid(unsafe_code)]

mod atomics;
mod csr;
mod float;
mod hart;
mod integer;
mod paging;
mod saved;
mod semihost;
mod traps;
