//! The intermediate representation of mimus: one op table, typed SSA blocks, a builder, a text form, a
//! verifier, passes, and the interpreter that is both tier 0 and the reference for compiled code.
//!
//! A guest frontend builds a [`Block`] from guest bytes; [`passes`] specialize it; [`interp`] runs it, and
//! a backend lowers it to host code. Nothing here knows a guest register by name: guest state is an array
//! of bytes, addressed by [`EnvSlot`].
#![forbid(unsafe_code)]

pub mod block;
pub mod fp;
pub mod interp;
#[cfg(test)]
mod interp_tests;
pub mod op;
pub mod packed;
pub mod passes;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod vec;
pub mod verify;

pub use block::{Block, Builder, EnvSlot, Inst, MAX_INSTS, MemFlags, NONE, Value};
pub use fp::{FpEnv, FpFlags};
pub use interp::{Exit, Guest, Interp, Stop};
pub use op::{Effects, JumpKind, Op, OpInfo, Shape, Type};
pub use vec::{VecInfo, VecKind};
pub use verify::{VerifyError, verify};
