//! Exact, host-independent floating point as pure functions: the same operands give the same bits on every host.
//!
//! [`soft`] computes on unpacked numbers, [`element`] on the bits of one number by an [`Env`] (rounding, flushing, NaNs, flags), and
//! [`float`] does the operations of the IR's vector table that have floating point. Guests use them in their `float` of
//! [`mimus_ir::Guest`] and in helpers.

pub(crate) mod element;
mod env;
pub(crate) mod soft;
mod vector;

pub use env::{Env, Nans};
pub use soft::Rounding;
pub use vector::float;
