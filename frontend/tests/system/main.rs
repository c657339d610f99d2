//! The system side of x86: tables built in RAM, helpers called as translated code calls them.
#![forbid(unsafe_code)]

mod control;
mod cpuid;
mod debug;
mod division;
mod fixture;
mod interrupts;
mod msr;
mod paging;
mod segments;
mod strings;
mod tasks;
mod transfers;
mod vm86;
