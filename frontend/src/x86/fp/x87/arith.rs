//! Arithmetic, comparisons, loads and register operations.

use super::table::{MemFormat, X87Row};
use super::{C0, C1, C2, C3, Fpu, Operand, Outcome, Reg, X87Out};
use crate::x86::fp::eflags_of_order;
use crate::x86::fp::soft::{self, Arith, Class, DE, F32, F64, Finite, IE, PE, Rounding, Val, X80, ZE};

/// The six arithmetic operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Mul,
    Sub,
    SubReversed,
    Div,
    DivReversed,
}

/// Where the second operand is, and the result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperandForm {
    /// Second operand in memory, result in ST(0).
    Memory,
    /// Second operand in ST(i), result in ST(0).
    Top,
    /// First operand and result in ST(i), the second in ST(0); for comparisons the second in ST(i).
    Sti,
    /// Like `Sti`, then pops.
    StiPop,
    /// Second operand in ST(1).
    Under,
    /// Second operand +0.
    Zero,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub place: OperandForm,
    /// Quiet NaNs raise no exception.
    pub quiet: bool,
    pub pops: u8,
    /// The result goes to EFLAGS and not to the condition codes.
    pub eflags: bool,
}

/// What an operation does.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Arith(Arithmetic, OperandForm),
    Compare(Comparison),
    /// Pushes a memory operand.
    Load,
    LoadSti,
    /// Pushes a constant: significand and exponent.
    Constant(u128, i32),
    StoreFloat {
        pops: bool,
    },
    StoreInt {
        truncate: bool,
        pops: bool,
    },
    StoreBcd,
    StoreSti {
        pops: bool,
    },
    Exchange,
    /// FCMOVcc: moves if whether any of these flags is set is as wanted.
    Move {
        mask: u32,
        wanted: bool,
    },
    /// Works on the top of the stack.
    Stack(fn(&mut Fpu) -> Outcome<()>),
    /// Works on tags and TOP and never faults.
    Register(fn(&mut Fpu, u8)),
    LoadControl,
    StoreControl,
    StoreStatus,
    StatusAx,
    /// A control instruction that waits.
    Control(fn(&mut Fpu)),
    /// A control instruction that does not wait.
    NoWait(fn(&mut Fpu)),
}

impl Fpu {
    /// Executes what is not a store to memory.
    pub(super) fn execute_row(&mut self, row: &X87Row, sti: u8, operand: u128) -> Outcome<X87Out> {
        let mut out = X87Out::default();
        match row.kind {
            Kind::LoadControl => self.set_control_word(operand as u16),
            Kind::StatusAx => out.ax = Some(self.sw),
            Kind::Control(f) | Kind::NoWait(f) => f(self),
            Kind::Register(f) => f(self, sti),
            Kind::Compare(c) => out.eflags = self.compare(c, sti, memory_operand(row.memory, operand)),
            Kind::Move { mask, wanted } => self.move_if((operand as u32 & mask != 0) == wanted, sti)?,
            _ => {
                self.set_c1(false);
                self.run_data(row, sti, operand)?;
            }
        }
        Ok(out)
    }

    fn run_data(&mut self, row: &X87Row, sti: u8, operand: u128) -> Outcome<()> {
        match row.kind {
            Kind::Arith(op, place) => self.arithmetic(op, place, sti, memory_operand(row.memory, operand))?,
            Kind::Load => self.push(|fpu| fpu.load(row.memory, memory_operand(row.memory, operand)))?,
            Kind::LoadSti => {
                let x = self.read(sti);
                if x.class.is_none() {
                    self.stack_fault(false)?;
                    self.push_free(Reg::INDEFINITE);
                } else {
                    self.push(|_| Ok(x.reg))?;
                }
            }
            Kind::Constant(sig, exp) => {
                let rc = self.rounding();
                self.push(|_| {
                    Ok(match soft::normalize(false, exp, sig) {
                        Val::Finite(f) => Reg::encode(false, soft::round(f, X80, rc).0, 64),
                        _ => Reg::zero(false),
                    })
                })?;
            }
            Kind::StoreSti { pops } => {
                let x = self.read(0);
                if x.class.is_none() {
                    self.stack_fault(false)?;
                }
                self.write(sti, x.reg);
                self.pops(pops.into());
            }
            Kind::Exchange => {
                let (x, y) = (self.read(0), self.read(sti));
                if x.class.is_none() || y.class.is_none() {
                    self.stack_fault(false)?;
                }
                self.write(0, y.reg);
                self.write(sti, x.reg);
            }
            Kind::Stack(f) => f(self)?,
            Kind::Compare(_)
            | Kind::Move { .. }
            | Kind::LoadControl
            | Kind::StoreControl
            | Kind::StoreStatus
            | Kind::StatusAx
            | Kind::Control(_)
            | Kind::NoWait(_)
            | Kind::Register(_)
            | Kind::StoreFloat { .. }
            | Kind::StoreInt { .. }
            | Kind::StoreBcd => {}
        }
        Ok(())
    }

    fn arithmetic(&mut self, op: Arithmetic, place: OperandForm, sti: u8, memory: Operand) -> Outcome<()> {
        let (dest, other) = match place {
            OperandForm::Memory => (0, memory),
            OperandForm::Top => (0, self.read(sti)),
            _ => (sti, self.read(0)),
        };
        let first = self.read(dest);
        let (op, a, b) = match op {
            Arithmetic::Add => (Arith::Add, first, other),
            Arithmetic::Mul => (Arith::Mul, first, other),
            Arithmetic::Sub => (Arith::Sub, first, other),
            Arithmetic::SubReversed => (Arith::Sub, other, first),
            Arithmetic::Div => (Arith::Div, first, other),
            Arithmetic::DivReversed => (Arith::Div, other, first),
        };
        let result = self.compute(op, a, b)?;
        self.write(dest, result);
        self.pops((place == OperandForm::StiPop).into());
        Ok(())
    }

    fn compute(&mut self, op: Arith, a: Operand, b: Operand) -> Outcome<Reg> {
        if let Some(reg) = self.special(&[a, b])? {
            return Ok(reg);
        }
        let Ok((v, by_zero)) = soft::arith(op, a.val, b.val, self.rounding()) else { return self.invalid() };
        if by_zero {
            self.except(ZE)?;
        } else {
            self.check_denormal(&[a, b])?;
        }
        Ok(self.finish(v, self.precision()))
    }

    /// Compares. An unmasked exception keeps the stack from being popped, but the result is given all the same: so do
    /// processors, against the manual's footnote for FCOM and with its text for FCOMI (SDM vol. 2).
    fn compare(&mut self, c: Comparison, sti: u8, memory: Operand) -> Option<u32> {
        let x = self.read(0);
        let y = match c.place {
            OperandForm::Memory => memory,
            OperandForm::Under => self.read(1),
            OperandForm::Zero => Operand::new(Reg::zero(false)),
            _ => self.read(sti),
        };
        let comparable = |x: &Operand| x.class.is_some_and(|class| !class.is_nan() && class != Class::Unsupported);
        let ordered = comparable(&x) && comparable(&y);
        let eflags = eflags_of_order(ordered.then(|| x.val.compare(y.val)));
        if !c.eflags {
            self.set_c1(false);
            // C0, C2 and C3 correspond to CF, PF and ZF (SDM vol. 1, 8.1.4).
            self.set_conditions((eflags << 8) as u16);
        }
        if self.check_compared(c.quiet, [x, y]).is_ok() {
            self.pops(c.pops);
        }
        c.eflags.then_some(eflags)
    }

    fn check_compared(&mut self, quiet: bool, operands: [Operand; 2]) -> Outcome<()> {
        if self.special(&operands)?.is_none() {
            return self.check_denormal(&operands);
        }
        if !quiet && operands.iter().any(|x| x.class == Some(Class::QNan)) { self.except(IE) } else { Ok(()) }
    }

    fn move_if(&mut self, holds: bool, sti: u8) -> Outcome<()> {
        let (x, y) = (self.read(0), self.read(sti));
        if x.class.is_none() || y.class.is_none() {
            self.stack_fault(false)?;
            self.write(0, Reg::INDEFINITE);
        } else if holds {
            self.write(0, y.reg);
        }
        Ok(())
    }

    fn load(&mut self, format: MemFormat, x: Operand) -> Outcome<Reg> {
        // A load in register format takes any bits as they are.
        if matches!(format, MemFormat::Float32 | MemFormat::Float64) {
            if let Some(nan) = self.special(&[x])? {
                return Ok(nan);
            }
            // Unmasked, this does not keep the number from being loaded.
            if x.class == Some(Class::Denormal) {
                self.raise(DE);
            }
        }
        Ok(x.reg)
    }

    pub(super) fn rotate(&mut self, by: u8) {
        self.set_c1(false);
        self.set_top(self.top() + by);
    }

    pub(super) fn free_sti(&mut self, i: u8) {
        self.set_c1(false);
        self.free(i);
    }

    pub(super) fn free_pop(&mut self, i: u8) {
        self.free_sti(i);
        self.pop();
    }

    /// FSTPNCE, an undocumented FSTP ST(i) without a stack fault: an empty ST(0) is not stored.
    pub(super) fn store_pop_quietly(&mut self, i: u8) {
        self.set_c1(false);
        let x = self.read(0);
        if x.class.is_some() {
            self.write(i, x.reg);
        }
        self.pop();
    }

    pub(super) fn mask_all(&mut self) {
        self.set_control_word(self.cw | 0x3f);
    }

    pub(super) fn clear_exceptions(&mut self) {
        self.sw &= 0x7f00;
    }

    /// Replaces ST(0) unless it is empty (then by the indefinite).
    fn replace(&mut self, f: impl FnOnce(Reg) -> Reg) -> Outcome<()> {
        let x = self.read(0);
        if x.class.is_none() {
            self.stack_fault(false)?;
            self.write(0, Reg::INDEFINITE);
        } else {
            self.write(0, f(x.reg));
        }
        Ok(())
    }

    pub(super) fn change_sign(&mut self) -> Outcome<()> {
        self.replace(|x| Reg::new(x.se ^ 0x8000, x.sig))
    }

    pub(super) fn absolute(&mut self) -> Outcome<()> {
        self.replace(|x| Reg::new(x.se & 0x7fff, x.sig))
    }

    /// FXAM (SDM vol. 2, table "FXAM Results"): the sign is reported even of an empty register.
    pub(super) fn examine(&mut self) -> Outcome<()> {
        self.set_c1(self.regs[self.physical(0)].sign());
        self.set_conditions(match self.read(0).class {
            None => C3 | C0,
            Some(Class::Unsupported) => 0,
            Some(Class::QNan | Class::SNan) => C0,
            Some(Class::Normal) => C2,
            Some(Class::Inf) => C2 | C0,
            Some(Class::Zero) => C3,
            Some(Class::Denormal) => C3 | C2,
        });
        Ok(())
    }

    /// Replaces ST(0) by a function of it, after what empty registers and NaNs decide.
    pub(super) fn unary(&mut self, f: impl FnOnce(&mut Self, Operand) -> Outcome<Reg>) -> Outcome<()> {
        let x = self.read(0);
        let result = match self.special(&[x])? {
            Some(reg) => reg,
            None => f(self, x)?,
        };
        self.write(0, result);
        Ok(())
    }

    /// A function of ST(0) and ST(1), after what empty registers and NaNs decide.
    pub(super) fn binary(&mut self, f: impl FnOnce(&mut Self, Operand, Operand) -> Outcome<Reg>) -> Outcome<Reg> {
        let (x, y) = (self.read(0), self.read(1));
        match self.special(&[x, y])? {
            Some(reg) => Ok(reg),
            None => f(self, x, y),
        }
    }

    pub(super) fn square_root(&mut self) -> Outcome<()> {
        self.unary(|fpu, x| match x.val {
            Val::Zero(_) | Val::Inf(false) => Ok(x.reg),
            Val::Finite(f) if !f.sign => {
                fpu.check_denormal(&[x])?;
                Ok(fpu.finish(Val::Finite(soft::sqrt(f)), fpu.precision()))
            }
            _ => fpu.invalid(),
        })
    }

    pub(super) fn round_to_integer(&mut self) -> Outcome<()> {
        self.unary(|fpu, x| {
            let Val::Finite(f) = x.val else { return Ok(x.reg) };
            fpu.check_denormal(&[x])?;
            if f.exp >= 63 {
                return Ok(x.reg);
            }
            let r = soft::to_int(f, fpu.rounding());
            fpu.set_c1(r.up);
            fpu.raise(if r.inexact { PE } else { 0 });
            Ok(Reg::exact(soft::from_int(f.sign, r.int)))
        })
    }

    pub(super) fn scale(&mut self) -> Outcome<()> {
        let result = self.binary(|fpu, x, y| {
            match (x.val, y.val) {
                (Val::Zero(_), Val::Inf(false)) | (Val::Inf(_), Val::Inf(true)) => return fpu.invalid(),
                _ => fpu.check_denormal(&[x, y])?,
            }
            let sign = x.val.sign();
            Ok(match (x.val, y.val) {
                (_, Val::Inf(down)) => {
                    if down {
                        Reg::zero(sign)
                    } else {
                        Reg::infinity(sign)
                    }
                }
                (Val::Finite(f), Val::Finite(by)) => {
                    // Beyond this every result overflows or underflows, also with an adjusted exponent.
                    let n = soft::to_int(by, Rounding::Zero).int.min(1 << 17) as i32;
                    fpu.finish(Val::Finite(Finite { exp: f.exp + if by.sign { -n } else { n }, ..f }), X80)
                }
                // A denormal number is a result like any other: it can underflow.
                _ => fpu.finish(x.val, X80),
            })
        })?;
        self.write(0, result);
        Ok(())
    }

    /// Replaces ST(0) and pushes a second result, both the indefinite after a stack fault.
    pub(super) fn replace_and_push(
        &mut self,
        f: impl FnOnce(&mut Self, Operand) -> Outcome<(Reg, Reg)>,
    ) -> Outcome<()> {
        let x = self.read(0);
        let (first, second) = if x.class.is_none() || !self.is_empty(7) {
            self.stack_fault(x.class.is_some())?;
            (Reg::INDEFINITE, Reg::INDEFINITE)
        } else {
            f(self, x)?
        };
        self.write(0, first);
        self.push_free(second);
        Ok(())
    }

    pub(super) fn extract(&mut self) -> Outcome<()> {
        self.replace_and_push(|fpu, x| {
            Ok(match (fpu.special(&[x])?, x.val) {
                (Some(reg), _) => (reg, reg),
                (None, Val::Zero(_)) => {
                    fpu.except(ZE)?;
                    (Reg::infinity(true), x.reg)
                }
                (None, Val::Inf(_)) => (Reg::infinity(false), x.reg),
                (None, Val::Finite(f)) => {
                    fpu.check_denormal(&[x])?;
                    let exponent = soft::from_int(f.exp < 0, f.exp.unsigned_abs().into());
                    (Reg::exact(exponent), Reg::exact(Val::Finite(Finite { exp: 0, ..f })))
                }
            })
        })
    }

    pub(super) fn remainder_truncated(&mut self) -> Outcome<()> {
        self.remainder(false)
    }

    pub(super) fn remainder_nearest(&mut self) -> Outcome<()> {
        self.remainder(true)
    }

    fn remainder(&mut self, nearest: bool) -> Outcome<()> {
        let mut conditions = None;
        self.sw &= !C2;
        let result = self.binary(|fpu, x, y| {
            let (a, b) = match (x.val, y.val) {
                (Val::Inf(_), _) | (_, Val::Zero(_)) => return fpu.invalid(),
                (Val::Finite(a), Val::Finite(b)) => (a, b),
                _ => {
                    fpu.check_denormal(&[x, y])?;
                    conditions = Some(0);
                    return Ok(fpu.finish(x.val, X80));
                }
            };
            fpu.check_denormal(&[x, y])?;
            let (v, quotient, partial) = reduce(a, b, nearest);
            conditions = Some(if partial {
                C2
            } else {
                let bit = |n: u32, flag: u16| if quotient >> n & 1 != 0 { flag } else { 0 };
                bit(2, C0) | bit(1, C3) | bit(0, C1)
            });
            let result = fpu.finish(v, X80);
            Ok(result)
        })?;
        if let Some(bits) = conditions {
            self.set_c1(bits & C1 != 0);
            self.set_conditions(bits & !C1);
        }
        self.write(0, result);
        Ok(())
    }
}

/// One step of FPREM and FPREM1: the remainder, the low bits of the quotient, and whether the reduction is incomplete.
fn reduce(a: Finite, b: Finite, nearest: bool) -> (Val, u64, bool) {
    let distance = a.exp - b.exp;
    let partial = distance >= 64;
    let steps = if partial { distance & 31 | 32 } else { distance };
    let divisor = b.sig >> 64;
    let mut rem = a.sig >> 64;
    let mut quotient = 0u64;
    // The exponent of the remainder's bit 63.
    let mut exp = a.exp;
    for step in 0..=steps {
        if step > 0 {
            rem <<= 1;
            exp -= 1;
        }
        quotient <<= 1;
        if rem >= divisor {
            rem -= divisor;
            quotient |= 1;
        }
    }
    let mut sign = a.sign;
    // Below half the divisor's exponent the remainder cannot reach half the divisor.
    if nearest && !partial && distance >= -1 {
        let whole = if distance < 0 { divisor << 1 } else { divisor };
        if rem * 2 > whole || rem * 2 == whole && quotient & 1 == 1 {
            rem = whole - rem;
            sign = !sign;
            quotient += 1;
        }
    }
    let v = if rem == 0 { Val::Zero(a.sign) } else { soft::normalize(sign, exp + 64, rem) };
    (v, quotient, partial)
}

fn memory_operand(format: MemFormat, bits: u128) -> Operand {
    match format {
        MemFormat::Int16 => Operand::from_int((bits as i16).into()),
        MemFormat::Int32 => Operand::from_int((bits as i32).into()),
        MemFormat::Int64 => Operand::from_int(bits as i64),
        MemFormat::Float32 => Operand::from_float(F32, u64::from(bits as u32)),
        MemFormat::Float64 => Operand::from_float(F64, bits as u64),
        MemFormat::Float80 => Operand::new(Reg::from_bits(bits)),
        MemFormat::Bcd => {
            let magnitude = (0..18).rev().fold(0u64, |acc, i| acc * 10 + (bits >> (4 * i)) as u64 % 16);
            let sign = bits >> 79 & 1 != 0;
            Operand::new(Reg::exact(soft::from_int(sign, magnitude.into())))
        }
        MemFormat::None | MemFormat::Word | MemFormat::Environment | MemFormat::State => Operand::empty(),
    }
}
