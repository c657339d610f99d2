//! Guest memory of mimus: RAM, the TLB that compiled code probes inline, the slow path behind it, page
//! walkers' and buses' traits, and the watches that make stores to translated code visible.
// Runs with the guest's rounding and flags in the host's register when compiled code calls it.
#![cfg_attr(not(test), deny(clippy::float_arithmetic))]

mod access;
mod backing;
pub mod bulk;
pub mod dma;
mod exclusive;
pub mod filter;
pub mod halt_polling;
pub mod header;
pub mod kick;
pub mod mmu;
mod operand;
mod page_tables;
pub mod ram;
mod space;
pub mod tlb;
mod update;
mod vram;
pub mod watch;

pub use access::AccessFlags;
pub use backing::{Backing, Route};
pub use dma::{Dma, DmaWatch};
pub use exclusive::Member;
pub use filter::PageFilter;
pub use header::{EnvHeader, ExitCode, ExtensionImage, JumpCacheEntry, NO_CONTEXT, Verdict};
pub use mmu::{Access, CodePolicy, Mapping, MmioBus, Mmu, MmuStats, SPACES, Stored, Walker};
pub use page_tables::PageTables;
pub use ram::{CodeSink, Dropped, Marked, Ram};
pub use tlb::{PAGE_SIZE, Tlb, TlbEntry};
pub use vram::{DirtyPages, Vram};
pub use watch::{Watch, WatchHit, WatchOwner, Watches};
