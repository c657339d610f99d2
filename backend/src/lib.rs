//! Micro-ops to host code: lowering through Cranelift, the code arena, the thunks between Rust and compiled
//! code, and the perf map.
//!
//! Compiled code is position independent and free of relocations: it reaches everything through the env
//! pointer, its first argument, and the fields of [`mimus_softmmu::EnvHeader`]. A guest's registers are known
//! here as offsets and types only.
//!
//! ```text
//! Compiler::compile  ir::Block -> bytes
//! Arena::alloc, publish        bytes -> HostAddr, in memory that is executable elsewhere
//! Thunks::new, enter           Rust -> compiled code -> Rust
//! ```

pub mod arena;
mod coalesce;
mod compile;
mod error;
pub mod exec;
mod host;
mod icache;
mod lower;
pub mod perf;
mod permanent;
mod target;
pub mod thunks;

pub use arena::{Allocation, Arena, Generation};
pub use compile::{CompiledInfo, Compiler, Dump, MAX_PARTS, Part, Request};
pub use error::BackendError;
pub use exec::{HostAddr, enter};
pub use host::HostIsa;
pub use perf::PerfMap;
#[cfg(all(feature = "native-oracle", target_arch = "x86_64", target_os = "linux"))]
pub use target::x64::native;
pub use target::x64::quick::QuickCompiler;
pub use thunks::Thunks;
