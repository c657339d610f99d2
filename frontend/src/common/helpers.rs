//! The helper table of a guest: what translated code calls for instructions too large to be micro-ops. [`helpers!`](crate::helpers)
//! makes it of one line a helper.

use std::borrow::Cow;
use std::marker::PhantomData;

use mimus_ir::text::Names;
use mimus_ir::{Effects, EnvSlot, Stop};

use super::guest::GuestCpu;

/// A helper: three operands and a constant. It must not panic whatever they are.
pub type HelperFn<C> = extern "C" fn(&mut C, u64, u64, u64, u32) -> u64;

/// A row of the helper table of guest `C`.
#[derive(Debug)]
pub struct HelperRow<C> {
    /// Name in dumps.
    pub name: &'static str,
    /// The function.
    pub function: HelperFn<C>,
    /// What it may do beside returning a value.
    pub effects: Effects,
}

/// Makes the helper table of a guest: after the type of its vCPU, for each helper its name, the function, and what it may do beside
/// returning a value, as [`Effects`]' constants are called.
#[macro_export]
macro_rules! helpers {
    ($cpu:ty: $($(#[$doc:meta])* $id:ident $function:path [$($effect:ident)*];)*) => {
        /// Numbers of the helpers; the rows of the helper table.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum Helper { $($(#[$doc])* $id),* }

        /// The helper table, by number.
        pub static TABLE: &[$crate::common::helpers::HelperRow<$cpu>] =
            &[$($crate::common::helpers::HelperRow {
                name: stringify!($id),
                function: $function,
                effects: mimus_ir::Effects::MARK$(.union(mimus_ir::Effects::$effect))*,
            }),*];

        impl Helper {
            /// How a call with constant `arg` is held in an op.
            pub fn info(self, arg: u32) -> mimus_ir::block::CallInfo {
                mimus_ir::block::CallInfo { helper: self as u16, effects: TABLE[self as usize].effects, arg }
            }
        }
    };
}

/// What [`mimus_ir::Guest::call`] asks for.
#[inline(always)]
pub fn call<C: GuestCpu>(cpu: &mut C, helper: u16, args: [u64; 3], arg: u32) -> Result<u64, Stop> {
    let Some(row) = C::helper_table().get(usize::from(helper)) else { return Err(Stop::Fault) };
    let value = (row.function)(cpu, args[0], args[1], args[2], arg);
    if cpu.header.verdict != 0 { Err(Stop::Fault) } else { Ok(value) }
}

/// Names of a guest's registers and helpers for dumps.
pub(super) struct GuestNames<C>(pub PhantomData<fn(C)>);

impl<C: GuestCpu> Names for GuestNames<C> {
    fn slot(&self, slot: EnvSlot) -> Option<Cow<'_, str>> {
        C::slot_name(slot)
    }

    fn helper(&self, number: u16) -> Option<Cow<'_, str>> {
        C::helper_table().get(usize::from(number)).map(|row| row.name.into())
    }
}
