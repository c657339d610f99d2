//! SSE's operations on floating-point numbers that the IR's vector table does not have (SDM vol. 2, each instruction).

use super::eflags_of_order;
use crate::common::fp::Env;
use crate::common::fp::element::{arith, compare, element};
use crate::common::fp::soft::{self, Arith, F32, Finite, Format, Range, Rounding, Val};

/// COMISx (signalling) and UCOMISx: ZF, PF and CF.
pub(super) fn comis(e: &mut Env, fmt: Format, signalling: bool, a: u128, b: u128) -> u128 {
    eflags_of_order(compare(e, fmt, signalling, element(fmt, a), element(fmt, b))).into()
}

/// DPPS and DPPD: products selected by imm bits 4-7, added pairwise, broadcast by imm bits 0-3.
pub(super) fn dot_product(e: &mut Env, fmt: Format, imm: u8, a: u128, b: u128) -> u128 {
    let lanes = (128 / fmt.bits()) as usize;
    let mut terms = [0u64; 4];
    for (i, term) in terms.iter_mut().enumerate().take(lanes) {
        if imm >> (4 + i) & 1 != 0 {
            let at = i as u32 * fmt.bits();
            *term = arith(e, fmt, Arith::Mul, element(fmt, a >> at), element(fmt, b >> at));
        }
    }
    // Each step is checked for exceptions on its own; an unmasked one ends the instruction.
    if e.settle() {
        return 0;
    }
    let mut sum = arith(e, fmt, Arith::Add, terms[0], terms[1]);
    if lanes == 4 {
        let high = arith(e, fmt, Arith::Add, terms[2], terms[3]);
        if e.settle() {
            return 0;
        }
        sum = arith(e, fmt, Arith::Add, sum, high);
    }
    (0..lanes).filter(|i| imm >> i & 1 != 0).map(|i| u128::from(sum) << (i as u32 * fmt.bits())).sum()
}

/// RCPxS and RSQRTxS of one single-precision element. The manual allows a relative error of 1.5 * 2^-12; this gives the
/// exact result truncated to 24 bits, so processors (which differ among themselves) give other low bits. Denormal operands
/// count as zeros, results below the normal range become zeros, and no exception is raised.
pub(super) fn reciprocal(root: bool, b: u64) -> u64 {
    let b = if b & F32.infinity() == 0 { b & F32.sign_bit() } else { b };
    let (class, v) = F32.decode(b);
    if class.is_nan() {
        return F32.quiet(b);
    }
    let sign = v.sign();
    // From here on results are sure to be flushed to zero (SDM vol. 2B, RCPPS).
    const FLUSHED: u64 = 0x7e7f_e800;
    let f = match v {
        Val::Finite(_) if !root && b & !F32.sign_bit() >= FLUSHED => return F32.encode(sign, 0, 0),
        Val::Zero(_) => return F32.infinity() | (b & F32.sign_bit()),
        Val::Finite(f) if root && f.sign => return F32.indefinite(),
        Val::Inf(true) if root => return F32.indefinite(),
        Val::Inf(_) => return F32.encode(sign, 0, 0),
        Val::Finite(f) => {
            if root {
                soft::sqrt(f)
            } else {
                f
            }
        }
    };
    // 2^127 over the 64 leading bits of a significand in [2^63, 2^64] lies in [2^63, 2^64].
    let quotient = (1u128 << 127) / (f.sig >> 64);
    let one = quotient >> 64 != 0;
    let result = Finite { sign, exp: -f.exp - i32::from(!one), sig: if one { 1 << 127 } else { quotient << 64 } };
    match soft::round(result, F32, Rounding::Zero) {
        (r, Range::Normal) => F32.encode(sign, r.sig, r.exp),
        _ => F32.encode(sign, 0, 0),
    }
}
