//! Stores to memory, in two steps: the value first, what it does to the unit once memory has taken it.

use super::arith::Kind;
use super::table::{MemFormat, X87Op};
use super::{Fpu, Outcome, Reg, X87Fault};
use crate::x86::fp::soft::{self, Class, F32, F64, Format, IE, OE, PE, Range, Rounding, UE, Val};

/// What a store does to the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCommit {
    sw: u16,
    pops: bool,
}

/// A store that has been computed but has not taken place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Store {
    /// What to write, [`MemFormat::bytes`] wide; `None` when an unmasked exception suppresses the store.
    pub value: Option<u128>,
    /// To be passed to [`Fpu::commit`] once memory has been written.
    pub commit: StoreCommit,
}

impl Fpu {
    /// Computes a store without changing the unit, for rows with `store` set (others store nothing and change nothing).
    pub fn store_value(&self, op: X87Op) -> Result<X87Store, X87Fault> {
        let row = op.row();
        if row.waits {
            self.check_pending()?;
        }
        let mut after = *self;
        let (value, pops) = match row.kind {
            Kind::StoreControl => (Some(self.cw.into()), false),
            Kind::StoreStatus => (Some(self.sw.into()), false),
            Kind::StoreFloat { pops } => (after.float_bits(row.memory).ok(), pops),
            Kind::StoreInt { truncate, pops } => (after.int_bits(row.memory, truncate).ok(), pops),
            Kind::StoreBcd => (after.bcd_bits().ok(), true),
            _ => (None, false),
        };
        Ok(X87Store { value, commit: StoreCommit { sw: after.sw, pops: pops && value.is_some() } })
    }

    /// Completes a store whose value has been written.
    pub fn commit(&mut self, commit: StoreCommit) {
        self.sw = commit.sw;
        self.pops(commit.pops.into());
    }

    fn float_bits(&mut self, format: MemFormat) -> Outcome<u128> {
        self.set_c1(false);
        let x = self.read(0);
        let fmt = match format {
            MemFormat::Float32 => F32,
            MemFormat::Float64 => F64,
            _ => {
                if x.class.is_none() {
                    self.stack_fault(false)?;
                }
                return Ok(x.reg.bits());
            }
        };
        if let Some(nan) = self.special(&[x])? {
            return Ok(narrow_nan(fmt, nan).into());
        }
        self.narrow(fmt, x.val).map(u128::from)
    }

    /// Rounds to single or double precision. Unmasked overflow and underflow suppress the store (SDM vol. 1, 8.5.4).
    fn narrow(&mut self, fmt: Format, v: Val) -> Outcome<u64> {
        let f = match v {
            Val::Zero(sign) => return Ok(fmt.encode(sign, 0, 0)),
            Val::Inf(sign) => return Ok(fmt.infinity() | if sign { fmt.sign_bit() } else { 0 }),
            Val::Finite(f) => f,
        };
        let (unbounded, range) = soft::round(f, fmt, self.rounding());
        let r = match range {
            Range::Normal => unbounded,
            Range::Huge => {
                self.except(OE)?;
                self.raise(PE);
                self.set_c1(soft::overflows_to_infinity(f.sign, self.rounding()));
                return Ok(fmt.overflow(f.sign, self.rounding()));
            }
            Range::Tiny(denormal) => {
                if denormal.inexact || self.unmasked() & UE != 0 {
                    self.except(UE)?;
                }
                denormal
            }
        };
        self.set_c1(r.up);
        self.raise(if r.inexact { PE } else { 0 });
        Ok(fmt.encode(f.sign, r.sig, r.exp))
    }

    /// The magnitude of ST(0) rounded to an integer, if it is at most `limit` (with `negative_extra` more below zero).
    fn rounded(&mut self, rc: Rounding, limit: u128, negative_extra: u128) -> Outcome<Option<(bool, u128)>> {
        self.set_c1(false);
        let x = self.read(0);
        if x.class.is_none() {
            self.stack_fault(false)?;
            return Ok(None);
        }
        let f = match x.val {
            Val::Zero(sign) => return Ok(Some((sign, 0))),
            Val::Finite(f) if x.class != Some(Class::Unsupported) => f,
            _ => {
                self.except(IE)?;
                return Ok(None);
            }
        };
        let r = soft::to_int(f, rc);
        if r.int > limit + if f.sign { negative_extra } else { 0 } {
            self.except(IE)?;
            return Ok(None);
        }
        self.set_c1(r.up);
        self.raise(if r.inexact { PE } else { 0 });
        Ok(Some((f.sign, r.int)))
    }

    fn int_bits(&mut self, format: MemFormat, truncate: bool) -> Outcome<u128> {
        let width = match format {
            MemFormat::Int16 => 16,
            MemFormat::Int32 => 32,
            _ => 64,
        };
        let limit = (1u128 << (width - 1)) - 1;
        let rc = if truncate { Rounding::Zero } else { self.rounding() };
        Ok(match self.rounded(rc, limit, 1)? {
            // The integer indefinite.
            None => limit + 1,
            Some((sign, x)) => (if sign { x.wrapping_neg() } else { x }) & (limit * 2 + 1),
        })
    }

    fn bcd_bits(&mut self) -> Outcome<u128> {
        Ok(match self.rounded(self.rounding(), 999_999_999_999_999_999, 0)? {
            // The packed decimal indefinite (SDM vol. 1, table 4-4).
            None => 0xffff_c000_0000_0000_0000,
            Some((sign, mut x)) => {
                let mut digits = u128::from(sign) << 79;
                for i in 0..18 {
                    digits |= (x % 10) << (4 * i);
                    x /= 10;
                }
                digits
            }
        })
    }
}

/// A quiet NaN in a narrower format: its payload is kept from the top.
fn narrow_nan(fmt: Format, nan: Reg) -> u64 {
    let sign = if nan.sign() { fmt.sign_bit() } else { 0 };
    sign | fmt.infinity() | (nan.sig << 1) >> (64 - fmt.prec + 1)
}
