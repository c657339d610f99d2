//! The helper table: what translated code calls for instructions too large to be micro-ops.

use mimus_ir::Effects;
use mimus_ir::block::CallInfo;

use super::cpu::Cpu;
use super::{arith, fpu, sys};

/// A helper: three operands and a constant. It must not panic whatever they are.
pub type HelperFn = extern "C" fn(&mut Cpu, u64, u64, u64, u32) -> u64;

/// A row of the helper table.
#[derive(Clone, Copy)]
pub struct HelperRow {
    /// Name in dumps.
    pub name: &'static str,
    /// The function.
    pub function: HelperFn,
    /// What it may do beside returning a value.
    pub effects: Effects,
}

macro_rules! helpers {
    ($($(#[$doc:meta])* $id:ident $function:path [$($effect:ident)*];)*) => {
        /// Numbers of the helpers; the rows of the helper table.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum Helper { $($(#[$doc])* $id),* }

        /// The helper table, by number.
        pub static TABLE: &[HelperRow] = &[$(HelperRow {
            name: stringify!($id),
            function: $function,
            effects: Effects::MARK$(.or(Effects::$effect))*,
        }),*];
    };
}

impl Helper {
    /// How a call with constant `arg` is held in an op.
    pub fn info(self, arg: u32) -> CallInfo {
        CallInfo { helper: self as u16, effects: TABLE[self as usize].effects, arg }
    }
}

helpers! {
    /// The arithmetic flags, as in RFLAGS.
    CcFlags arith::cc_flags [READ_ENV];
    /// Whether condition `arg` holds.
    CcCond arith::cc_cond [READ_ENV];
    /// DIV (`arg` bit 8 clear) or IDIV (set) of the accumulator by `a`; width in bytes in `arg` bits 0..8.
    Divide arith::divide [READ_ENV WRITE_ENV FAULT];
    /// RCL (`arg` bit 8 clear) or RCR (set) of `a` by count `b`; width in bytes in `arg` bits 0..8.
    RotateCarry arith::rotate_carry [READ_ENV WRITE_ENV];
    /// CRC32 of accumulator `a` with `b`; width of `b` in bytes in `arg`.
    Crc32 arith::crc32 [];
    /// CMPXCHG8B (`arg` 8) or CMPXCHG16B (`arg` 16) at linear address `a`.
    CompareExchangePair arith::compare_exchange_pair [READ_ENV WRITE_ENV FAULT];
    /// DAA, DAS, AAA, AAS, AAM, AAD: `arg` bits 0..8 say which (0..5), bits 8..16 the immediate.
    DecimalAdjust arith::decimal_adjust [READ_ENV WRITE_ENV FAULT];
    /// A vector operation without floating-point exceptions: operand offsets in `a`, operation and immediate in `arg`.
    Vector fpu::vector [READ_ENV WRITE_ENV];
    /// A vector operation that may raise #XM.
    VectorFloat fpu::vector [READ_ENV WRITE_ENV FAULT];
    /// Checks for a pending #MF and takes the x87 unit into MMX mode.
    EnterMmx fpu::enter_mmx [READ_ENV WRITE_ENV FAULT];
    /// EMMS.
    Emms fpu::emms [READ_ENV WRITE_ENV FAULT];
    /// LDMXCSR of `a`.
    LoadMxcsr fpu::load_mxcsr [READ_ENV WRITE_ENV FAULT];
    /// MASKMOVQ, MASKMOVDQU.
    MaskedMove fpu::masked_move [READ_ENV FAULT];
    /// An x87 operation: linear address of its memory operand in `a`, guest PC in `b`; `arg` by [`fpu::X87Call`].
    X87 fpu::x87 [READ_ENV WRITE_ENV FAULT];
    /// FWAIT.
    Fwait fpu::fwait [READ_ENV FAULT];
    /// FXSAVE (`arg` bit 0 clear) or FXRSTOR (set) at `a`, with 64-bit pointers if bit 1 is set.
    Fxsave fpu::fxsave [READ_ENV WRITE_ENV FAULT];
    /// A string instruction with or without a repeat prefix: [`super::strings`].
    StringOp super::strings::string_op [READ_ENV WRITE_ENV FAULT];
    /// Linear address of offset `a` in a segment that is not flat, after its checks: [`sys::segment::linear`].
    Linear sys::segment::linear [READ_ENV FAULT];
}
