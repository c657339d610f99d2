//! Load-linked and store-conditional: the reservation that a load leaves for a later store, and the ops of both. RISC-V's LR and
//! SC lift to them; AArch64's exclusives are the same.
//!
//! The store compares values: it is made if memory holds what the load found, whoever wrote in between
//! (`docs/architecture.md`, "The memory contract").

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use mimus_ir::block::{Builder, Value};
use mimus_ir::op::{Op, Type};
use mimus_ir::{EnvSlot, MemFlags};
use serde::{Deserialize, Serialize};

/// A vCPU's reservation, a part of its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct Reservation {
    /// Its address; [`Reservation::NOWHERE`] if there is none.
    pub address: u64,
    /// What the load found there, zero-extended.
    pub value: u64,
}

impl Default for Reservation {
    fn default() -> Reservation {
        Reservation { address: Reservation::NOWHERE, value: 0 }
    }
}

impl Reservation {
    /// An address that no aligned operand has.
    pub const NOWHERE: u64 = u64::MAX;

    /// Ends it.
    pub fn end(&mut self) {
        self.address = Reservation::NOWHERE;
    }

    /// Where ops find one that is at `offset` bytes in env.
    pub const fn slots(offset: usize) -> Slots {
        Slots {
            address: slot(offset + offset_of!(Reservation, address)),
            value: slot(offset + offset_of!(Reservation, value)),
        }
    }
}

const fn slot(offset: usize) -> EnvSlot {
    EnvSlot { offset: offset as u16, ty: Type::I64 }
}

/// The env slots of a [`Reservation`].
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// Of [`Reservation::address`].
    pub address: EnvSlot,
    /// Of [`Reservation::value`].
    pub value: EnvSlot,
}

impl Slots {
    /// A load that leaves a reservation; `addr` is aligned. The value of type `ty`.
    pub fn load(self, b: &mut Builder, ty: Type, addr: Value) -> Value {
        let value = b.load(ty, addr, 0, MemFlags::empty());
        let whole = if ty == Type::I64 { value } else { b.extend(Op::Zext, Type::I64, ty, value) };
        b.store_env(self.address, addr);
        b.store_env(self.value, whole);
        value
    }

    /// What memory must hold for a store to `addr`; trap `otherwise` if the reservation is for another address, or there is none.
    pub fn expected(self, b: &mut Builder, addr: Value, otherwise: u64) -> Value {
        let reserved = b.load_env(self.address);
        let other = b.binary(Op::Ne, Type::I64, reserved, addr);
        b.trap_if(other, otherwise);
        b.load_env(self.value)
    }

    /// The store, of `new`, if memory holds what is `expected`; the reservation ends. 1 of type `ty` if it failed, else 0.
    pub fn store(self, b: &mut Builder, ty: Type, addr: Value, [expected, new]: [Value; 2]) -> Value {
        let seen = b.cas(ty, addr, expected, new);
        let failed = b.binary(Op::Ne, ty, seen, expected);
        b.store_env_imm(self.address, Reservation::NOWHERE);
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_where_the_fields_are() {
        let slots = Reservation::slots(64);
        let mut env = [0u8; 80];
        env[64..].copy_from_slice(bytemuck::bytes_of(&Reservation { address: 5, value: 7 }));
        let at = |slot: EnvSlot| u64::from_ne_bytes(env[slot.offset.into()..][..8].try_into().unwrap());
        assert_eq!((at(slots.address), at(slots.value)), (5, 7));
        let mut reservation = Reservation { address: 8, value: 0 };
        reservation.end();
        assert_eq!(reservation, Reservation::default());
    }
}
