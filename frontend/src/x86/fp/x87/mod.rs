//! The x87 floating-point unit (SDM vol. 1, chapter 8).
//!
//! [`Fpu`] is its state; [`Fpu::exec`] executes the operations of [`TABLE`]. The last instruction's addresses and opcode
//! (FIP, FDP, FOP) are fields that the caller sets, since an operation does not know them; control instructions leave them.
//!
//! Where the manual leaves a result open, or processors differ: FPREM of exponents 64 or more apart reduces by
//! `32 + difference % 32`; transcendental functions are exact to within one unit of the 64-bit significand, without any
//! processor's own errors; the trigonometric ones reduce by a pi of 66 bits (SDM vol. 1, 8.3.8), so far from zero they
//! are those of that pi.

mod arith;
mod image;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod transcendental;

pub use image::EnvLayout;
pub use store::{StoreCommit, X87Store};
pub use table::{MemFormat, TABLE, X87Op, X87Row, lookup};

use super::soft::{self, Class, DE, Format, IE, OE, PE, Range, Rounded, Rounding, UE, Val, X80};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// Status word: stack fault.
const SF: u16 = 1 << 6;
/// Status word: error summary, set while an unmasked exception is pending.
const ES: u16 = 1 << 7;
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;
/// Status word: busy, a copy of ES.
const BUSY: u16 = 1 << 15;
const TOP_SHIFT: u32 = 11;

/// The bias of the double extended format.
const BIAS: i32 = 16383;
/// The exponent field of infinities and NaNs.
const EXP_MAX: u16 = 0x7fff;
/// What an unmasked overflow or underflow adjusts the exponent by (SDM vol. 1, 8.5.4).
const WRAP: i32 = 24576;

/// A register in double extended format.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable, Serialize, Deserialize)]
pub struct Reg {
    /// The significand with its explicit integer bit; the MMX register that lies on this one.
    pub sig: u64,
    /// The sign in bit 15 and the biased exponent.
    pub se: u16,
    reserved: [u16; 3],
}

impl Reg {
    const INDEFINITE: Self = Self::new(0xffff, 0xc000_0000_0000_0000);

    /// The register with this sign and exponent and this significand.
    pub const fn new(se: u16, sig: u64) -> Self {
        Self { sig, se, reserved: [0; 3] }
    }

    /// From the 80 bits of the memory format.
    pub const fn from_bits(bits: u128) -> Self {
        Self::new((bits >> 64) as u16, bits as u64)
    }

    /// The 80 bits of the memory format.
    pub const fn bits(self) -> u128 {
        (self.se as u128) << 64 | self.sig as u128
    }

    fn sign(self) -> bool {
        self.se >> 15 != 0
    }

    fn class(self) -> Class {
        let integer = self.sig >> 63 != 0;
        match (self.se & EXP_MAX, integer) {
            (0, false) if self.sig == 0 => Class::Zero,
            // With the integer bit set it is a pseudo-denormal, which is as good as a denormal.
            (0, _) => Class::Denormal,
            (_, false) => Class::Unsupported,
            (EXP_MAX, _) if self.sig << 1 == 0 => Class::Inf,
            (EXP_MAX, _) if self.sig >> 62 & 1 != 0 => Class::QNan,
            (EXP_MAX, _) => Class::SNan,
            _ => Class::Normal,
        }
    }

    fn quiet(self) -> Self {
        Self::new(self.se, self.sig | 1 << 62)
    }

    fn infinity(sign: bool) -> Self {
        Self::new(u16::from(sign) << 15 | EXP_MAX, 1 << 63)
    }

    fn zero(sign: bool) -> Self {
        Self::new(u16::from(sign) << 15, 0)
    }

    fn encode(sign: bool, r: Rounded, prec: u32) -> Self {
        let sig = r.sig << (64 - prec);
        let biased = if sig >> 63 == 0 { 0 } else { (r.exp + BIAS) as u16 };
        Self::new(u16::from(sign) << 15 | biased, sig)
    }

    /// An exactly representable number.
    fn exact(v: Val) -> Self {
        match v {
            Val::Zero(sign) => Self::zero(sign),
            Val::Inf(sign) => Self::infinity(sign),
            Val::Finite(f) => match soft::round(f, X80, Rounding::Nearest) {
                (_, Range::Tiny(r)) | (r, _) => Self::encode(f.sign, r, 64),
            },
        }
    }
}

/// The state of the unit. The order of the fields leaves no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable, Serialize, Deserialize)]
pub struct Fpu {
    /// The physical registers R0 to R7; MM0 to MM7 are their significands.
    pub regs: [Reg; 8],
    /// Offset of the last non-control instruction.
    pub fip: u64,
    /// Offset of its memory operand.
    pub fdp: u64,
    /// Selector of the code segment that `fip` lies in.
    pub fcs: u16,
    /// Selector of the segment that `fdp` lies in.
    pub fds: u16,
    /// The last non-control instruction's opcode: the low 3 bits of its first byte, then its second.
    pub fop: u16,
    /// The control word; written through [`Fpu::set_control_word`].
    cw: u16,
    /// The status word, TOP included.
    sw: u16,
    /// One bit a physical register, set where it is not empty: FXSAVE's abridged tag word.
    tags: u8,
    reserved: [u8; 5],
}

impl Default for Fpu {
    /// The state after FNINIT, registers cleared.
    fn default() -> Self {
        let mut fpu = Self::zeroed();
        fpu.init();
        fpu
    }
}

/// #MF: an unmasked exception of an earlier instruction is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Fault;

/// What an operation gives besides its effect on the unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct X87Out {
    /// The memory operand's new bits, for a store that takes place.
    pub memory: Option<u128>,
    /// ZF, PF and CF of FCOMI and its kin; OF, SF and AF become 0 then.
    pub eflags: Option<u32>,
    /// AX, for FNSTSW AX.
    pub ax: Option<u16>,
}

/// An unmasked exception that keeps the operation from having its result.
struct Abort;

type Outcome<T> = Result<T, Abort>;

/// An operand as the exception rules see it.
#[derive(Clone, Copy)]
struct Operand {
    /// `None` for an empty register.
    class: Option<Class>,
    val: Val,
    /// The operand in register format; a signalling NaN still is one.
    reg: Reg,
}

impl Operand {
    fn new(reg: Reg) -> Self {
        let class = reg.class();
        let (sign, biased) = (reg.sign(), i32::from(reg.se & EXP_MAX));
        let val = match class {
            Class::Zero => Val::Zero(sign),
            Class::Denormal | Class::Normal => soft::normalize(sign, biased.max(1) - BIAS, u128::from(reg.sig) << 64),
            _ => Val::Inf(sign),
        };
        Self { class: Some(class), val, reg }
    }

    const fn empty() -> Self {
        Self { class: None, val: Val::Zero(false), reg: Reg::INDEFINITE }
    }

    /// A single or double precision number of memory; its class is that of its memory format.
    fn from_float(fmt: Format, bits: u64) -> Self {
        let (class, val) = fmt.decode(bits);
        let reg = if class.is_nan() {
            let sign = u16::from(val.sign()) << 15;
            Reg::new(sign | EXP_MAX, 1 << 63 | bits << (64 - fmt.prec + 1) >> 1)
        } else {
            Reg::exact(val)
        };
        Self { class: Some(class), val, reg }
    }

    fn from_int(x: i64) -> Self {
        Self::new(Reg::exact(soft::from_int(x < 0, x.unsigned_abs().into())))
    }
}

impl Fpu {
    /// FNINIT.
    pub fn init(&mut self) {
        *self = Self { regs: self.regs, cw: 0x037f, ..Self::zeroed() };
    }

    /// The control word.
    pub fn control_word(&self) -> u16 {
        self.cw
    }

    /// FLDCW: bit 6 always reads as one, the other reserved bits as zero.
    pub fn set_control_word(&mut self, cw: u16) {
        self.cw = cw & 0x1f3f | 0x40;
        self.summarize();
    }

    /// The status word.
    pub fn status_word(&self) -> u16 {
        self.sw
    }

    /// The physical number of the register on top of the stack.
    pub fn top(&self) -> u8 {
        (self.sw >> TOP_SHIFT & 7) as u8
    }

    /// The abridged tag word: bit `i` is set where physical register `i` is not empty.
    pub fn tags(&self) -> u8 {
        self.tags
    }

    /// Raises #MF when an exception is pending, as waiting instructions and MMX instructions do first.
    pub fn check_pending(&self) -> Result<(), X87Fault> {
        if self.sw & ES != 0 { Err(X87Fault) } else { Ok(()) }
    }

    /// Has the next operation executed although an exception is pending; [`Fpu::summarize`] shows it again.
    pub fn ignore_pending(&mut self) {
        self.sw &= !(ES | BUSY);
    }

    /// What every MMX instruction but EMMS does: TOP becomes 0, all registers valid (SDM vol. 1, 9.6.2).
    pub fn enter_mmx(&mut self) {
        self.set_top(0);
        self.tags = 0xff;
    }

    /// MMX register `i & 7`.
    pub fn mmx(&self, i: u8) -> u64 {
        self.regs[usize::from(i & 7)].sig
    }

    /// Writes MMX register `i & 7`; sign and exponent become all ones.
    pub fn set_mmx(&mut self, i: u8, value: u64) {
        self.regs[usize::from(i & 7)] = Reg::new(0xffff, value);
    }

    /// EMMS: TOP becomes 0, all registers empty (SDM vol. 3A, table 12-2).
    pub fn emms(&mut self) {
        self.set_top(0);
        self.tags = 0;
    }

    fn set_top(&mut self, top: u8) {
        self.sw = self.sw & !(7 << TOP_SHIFT) | u16::from(top & 7) << TOP_SHIFT;
    }

    fn rounding(&self) -> Rounding {
        Rounding::from_code(u32::from(self.cw >> 10))
    }

    /// The format that precision control selects; the reserved encoding counts as double extended.
    fn precision(&self) -> Format {
        match self.cw >> 8 & 3 {
            0 => Format { prec: 24, ..X80 },
            2 => Format { prec: 53, ..X80 },
            _ => X80,
        }
    }

    fn unmasked(&self) -> u32 {
        u32::from(!self.cw & 0x3f)
    }

    /// Brings ES and B in step with flags and masks.
    pub fn summarize(&mut self) {
        let pending = u32::from(self.sw) & self.unmasked() != 0;
        self.sw = self.sw & !(ES | BUSY) | if pending { ES | BUSY } else { 0 };
    }

    /// Sets flags of exceptions that do not suppress the result.
    fn raise(&mut self, flags: u32) {
        self.sw |= flags as u16;
        self.summarize();
    }

    /// Sets flags of an exception of the operands; unmasked, it ends the operation.
    fn except(&mut self, flags: u32) -> Outcome<()> {
        self.raise(flags);
        if flags & self.unmasked() != 0 { Err(Abort) } else { Ok(()) }
    }

    fn stack_fault(&mut self, overflow: bool) -> Outcome<()> {
        self.set_c1(overflow);
        self.except(IE | u32::from(SF))
    }

    fn set_c1(&mut self, set: bool) {
        self.sw = self.sw & !C1 | if set { C1 } else { 0 };
    }

    fn set_conditions(&mut self, bits: u16) {
        self.sw = self.sw & !(C0 | C2 | C3) | bits;
    }

    fn physical(&self, i: u8) -> usize {
        usize::from((self.top() + i) & 7)
    }

    fn is_empty(&self, i: u8) -> bool {
        self.tags >> self.physical(i) & 1 == 0
    }

    fn read(&self, i: u8) -> Operand {
        if self.is_empty(i) { Operand::empty() } else { Operand::new(self.regs[self.physical(i)]) }
    }

    fn write(&mut self, i: u8, reg: Reg) {
        let at = self.physical(i);
        self.regs[at] = reg;
        self.tags |= 1 << at;
    }

    fn free(&mut self, i: u8) {
        self.tags &= !(1 << self.physical(i));
    }

    fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top() + 1);
    }

    fn pops(&mut self, n: u8) {
        for _ in 0..n {
            self.pop();
        }
    }

    /// Pushes what `f` gives, or the indefinite if the register is in use.
    fn push(&mut self, f: impl FnOnce(&mut Self) -> Outcome<Reg>) -> Outcome<()> {
        let reg = if self.is_empty(7) {
            f(self)?
        } else {
            self.stack_fault(true)?;
            Reg::INDEFINITE
        };
        self.push_free(reg);
        Ok(())
    }

    fn push_free(&mut self, reg: Reg) {
        self.set_top(self.top() + 7);
        self.write(0, reg);
    }

    /// The invalid operation's masked response.
    fn invalid(&mut self) -> Outcome<Reg> {
        self.except(IE)?;
        Ok(Reg::INDEFINITE)
    }

    /// Empty registers, unsupported formats and NaNs among operands decide the result before anything else does.
    fn special(&mut self, operands: &[Operand]) -> Outcome<Option<Reg>> {
        if operands.iter().any(|x| x.class.is_none()) {
            self.stack_fault(false)?;
            return Ok(Some(Reg::INDEFINITE));
        }
        let has = |class| operands.iter().any(|x| x.class == Some(class));
        if has(Class::Unsupported) {
            return self.invalid().map(Some);
        }
        if has(Class::SNan) {
            self.except(IE)?;
        }
        // A quiet NaN goes before a signalling one, then the larger significand, then the positive one (SDM vol. 1,
        // table 4-7).
        let nan = |class| operands.iter().filter(move |x| x.class == Some(class));
        let quiet_first = if has(Class::QNan) { Class::QNan } else { Class::SNan };
        let best = nan(quiet_first).max_by_key(|x| (x.reg.sig, !x.reg.sign()));
        Ok(best.map(|x| x.reg.quiet()))
    }

    /// DE for denormal operands.
    fn check_denormal(&mut self, operands: &[Operand]) -> Outcome<()> {
        if operands.iter().any(|x| x.class == Some(Class::Denormal)) { self.except(DE) } else { Ok(()) }
    }

    /// Rounds a result, with the responses to overflow, underflow and inexactness (SDM vol. 1, 8.5.4 to 8.5.6).
    fn finish(&mut self, v: Val, fmt: Format) -> Reg {
        let f = match v {
            Val::Zero(sign) => return Reg::zero(sign),
            Val::Inf(sign) => return Reg::infinity(sign),
            Val::Finite(f) => f,
        };
        let (unbounded, range) = soft::round(f, fmt, self.rounding());
        let (r, flag) = match range {
            Range::Normal => (unbounded, 0),
            Range::Huge if self.unmasked() & OE == 0 => {
                let infinite = soft::overflows_to_infinity(f.sign, self.rounding());
                self.raise(OE | PE);
                self.set_c1(infinite);
                let largest = Rounded { sig: u64::MAX >> (64 - fmt.prec), exp: fmt.emax, inexact: true, up: false };
                return if infinite { Reg::infinity(f.sign) } else { Reg::encode(f.sign, largest, fmt.prec) };
            }
            Range::Huge => (Rounded { exp: unbounded.exp - WRAP, ..unbounded }, OE),
            Range::Tiny(denormal) if self.unmasked() & UE == 0 => (denormal, if denormal.inexact { UE } else { 0 }),
            Range::Tiny(_) => (Rounded { exp: unbounded.exp + WRAP, ..unbounded }, UE),
        };
        self.raise(flag | if r.inexact { PE } else { 0 });
        self.set_c1(r.up);
        // FSCALE can leave the range even of the adjusted exponent.
        if r.exp > fmt.emax || r.exp < fmt.emin {
            self.raise(PE);
            self.set_c1(r.exp > fmt.emax);
            return if r.exp > fmt.emax { Reg::infinity(f.sign) } else { Reg::zero(f.sign) };
        }
        Reg::encode(f.sign, r, fmt.prec)
    }

    /// Executes an operation on register `sti`, where its row names one.
    ///
    /// `operand` is the memory source's bits, zero-extended, or EFLAGS for FCMOVcc. An error means that nothing happened. For
    /// operations whose memory operand is an environment or a state image see [`MemFormat`].
    pub fn exec(&mut self, op: X87Op, sti: u8, operand: u128) -> Result<X87Out, X87Fault> {
        let row = op.row();
        if row.waits {
            self.check_pending()?;
        }
        if row.store {
            let store = self.store_value(op)?;
            self.commit(store.commit);
            return Ok(X87Out { memory: store.value, ..X87Out::default() });
        }
        // An exception that suppresses the result leaves what has been set in the status word, and nothing to add.
        Ok(self.execute_row(row, sti & 7, operand).unwrap_or_default())
    }
}
