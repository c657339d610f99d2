//! Guest memory of mimus: RAM, the TLB that compiled code probes inline, the slow path behind it, page
//! walkers' and buses' traits, and the watches that make stores to translated code visible.

pub mod header;
pub mod tlb;

pub use header::{EnvHeader, ExitCode, JumpCacheEntry, Verdict};
pub use tlb::{Tlb, TlbEntry};
