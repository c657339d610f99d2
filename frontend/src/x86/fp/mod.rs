//! Exact, host-independent floating point and SIMD as pure functions.
//!
//! [`mod@vec`] executes MMX and SSE operations on register values, [`x87`] the x87 unit on its state. Neither touches memory
//! or uses the host's floating point: the same operands give the same bits on every host.

pub mod inline;
pub mod mxcsr;
mod sse;
mod string;
#[cfg(test)]
mod tests;
pub mod vec;
pub mod x87;

pub use crate::common::fp::Rounding;
pub(crate) use crate::common::fp::soft;
pub use mxcsr::SimdException;

use super::state::Rflags;

// Flags in the results of comparisons.
const CF: u32 = Rflags::CF.bits() as u32;
const PF: u32 = Rflags::PF.bits() as u32;
const ZF: u32 = Rflags::ZF.bits() as u32;

/// ZF, PF and CF for the order of two floating-point numbers, `None` being unordered (SDM vol. 2, "COMISS", "FCOMI").
fn eflags_of_order(order: Option<std::cmp::Ordering>) -> u32 {
    match order {
        None => ZF | PF | CF,
        Some(std::cmp::Ordering::Less) => CF,
        Some(std::cmp::Ordering::Equal) => ZF,
        Some(std::cmp::Ordering::Greater) => 0,
    }
}
