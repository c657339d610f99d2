//! Helpers for arithmetic that is too large for micro-ops.

use super::cpu::{Cpu, Result};
use super::exception::{Exception, vector};
use super::flags::{CcKind, CcOp, compute, condition, when};
use super::state::{Rflags, reg};

/// The arithmetic flags.
pub extern "C" fn cc_flags(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    cpu.state.arith_flags().bits()
}

/// Whether condition `arg` holds; `known` where that is so, for `unknown` is 0.
pub extern "C" fn cc_cond(cpu: &mut Cpu, unknown: u64, known: u64, _: u64, arg: u32) -> u64 {
    if unknown == 0 {
        return known;
    }
    u64::from(condition(arg as u8, cpu.state.arith_flags()))
}

fn mask_of(bytes: u32) -> u64 {
    u64::MAX >> (64 - (8 * bytes).clamp(8, 64))
}

/// DIV and, with bit 0 of `arg`, IDIV of RDX:RAX by 64 bits.
pub extern "C" fn divide(cpu: &mut Cpu, divisor: u64, _: u64, _: u64, arg: u32) -> u64 {
    let gpr = &mut cpu.state.gpr;
    let dividend = u128::from(gpr[reg::RDX]) << 64 | u128::from(gpr[reg::RAX]);
    let results =
        if arg & 1 == 0 { divide_wide(dividend, divisor) } else { divide_signed(dividend as i128, divisor as i64) };
    match results {
        Some(results) => (gpr[reg::RAX], gpr[reg::RDX]) = results,
        None => {
            cpu.raise(Exception::plain(vector::DE));
        }
    }
    0
}

/// Quotient and remainder, or `None` for a divisor of 0 or a quotient that does not fit.
fn divide_signed(dividend: i128, divisor: i64) -> Option<(u64, u64)> {
    if let Ok(dividend) = i64::try_from(dividend) {
        return Some((dividend.checked_div(divisor)? as u64, dividend.checked_rem(divisor)? as u64));
    }
    let (quotient, remainder) = divide_wide(dividend.unsigned_abs(), divisor.unsigned_abs())?;
    let quotient = if (dividend < 0) == (divisor < 0) {
        i64::try_from(quotient).ok()?
    } else {
        0i64.checked_sub_unsigned(quotient)?
    };
    Some((quotient as u64, if dividend < 0 { remainder.wrapping_neg() } else { remainder }))
}

/// Quotient and remainder of 64 bits, or `None` for a divisor of 0 or a quotient that does not fit. Many dividends have no upper
/// half, which is one instruction of the host.
fn divide_wide(dividend: u128, divisor: u64) -> Option<(u64, u64)> {
    if let Ok(dividend) = u64::try_from(dividend) {
        return Some((dividend.checked_div(divisor)?, dividend % divisor));
    }
    if (dividend >> 64) as u64 >= divisor {
        return None;
    }
    let quotient = (dividend / u128::from(divisor)) as u64;
    Some((quotient, (dividend as u64).wrapping_sub(quotient.wrapping_mul(divisor))))
}

/// RCL, RCR: the result, or with `arg` bit 9 the flags after it. Changes nothing itself.
pub extern "C" fn rotate_carry(cpu: &mut Cpu, value: u64, count: u64, _: u64, arg: u32) -> u64 {
    let bytes = arg & 0xff;
    let bits = 8 * bytes;
    let right = arg & 0x100 != 0;
    let mut flags = cpu.state.arith_flags();
    let wide = u128::from(value & mask_of(bytes)) | u128::from(flags.contains(Rflags::CF)) << bits;
    let ring = bits + 1;
    let masked = count as u32 & if bytes == 8 { 63 } else { 31 };
    let n = masked % ring;
    let n = if right { (ring - n) % ring } else { n };
    let rotated = (wide << n | wide >> (ring - n)) & ((1u128 << ring) - 1);
    let result = rotated as u64 & mask_of(bytes);
    if arg & 0x200 == 0 {
        return result;
    }
    if masked == 0 {
        return flags.bits();
    }
    let carry = (rotated >> bits) as u64 & 1;
    let top = result >> (bits - 1) & 1;
    let overflow = if right { top ^ (result >> (bits - 2) & 1) } else { top ^ carry };
    flags.set(Rflags::CF, carry != 0);
    flags.set(Rflags::OF, overflow != 0);
    flags.bits()
}

/// CRC32 (SDM vol. 2A): polynomial 0x11EDC6F41, bit-reflected.
pub extern "C" fn crc32(_: &mut Cpu, acc: u64, value: u64, _: u64, arg: u32) -> u64 {
    const REFLECTED: u32 = 0x82f6_3b78;
    let mut crc = acc as u32;
    for byte in value.to_le_bytes().into_iter().take(arg.clamp(1, 8) as usize) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { REFLECTED } else { 0 };
        }
    }
    crc.into()
}

/// An immediate operand, as it is in RAM now.
pub extern "C" fn code_operand(cpu: &mut Cpu, gpa: u64, _: u64, _: u64, arg: u32) -> u64 {
    let mut bytes = [0; 8];
    let len = (arg & 0xff).clamp(1, 8);
    // It was RAM when it was translated, and RAM stays where it is.
    cpu.mmu.ram.read_bytes(gpa, &mut bytes[..len as usize]);
    let (value, shift) = (u64::from_le_bytes(bytes), 64 - 8 * len);
    let value = if arg & 0x100 != 0 { ((value << shift) as i64 >> shift) as u64 } else { value };
    value & u64::MAX >> (64 - 8 * (arg >> 16 & 0xff).clamp(1, 8))
}

/// CMPXCHG8B, CMPXCHG16B.
pub extern "C" fn compare_exchange_pair(cpu: &mut Cpu, addr: u64, _: u64, _: u64, arg: u32) -> u64 {
    // On an error the exception is pending already.
    let _: Result<()> = exchange_pair(cpu, addr, arg);
    0
}

fn exchange_pair(cpu: &mut Cpu, addr: u64, bytes: u32) -> Result<()> {
    if bytes == 16 && addr & 15 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let half = bytes / 2;
    let mask = mask_of(half);
    let gpr = cpu.state.gpr;
    let pair = |low: usize, high: usize| u128::from(gpr[low] & mask) | u128::from(gpr[high] & mask) << (8 * half);
    let (expected, new) = (pair(reg::RAX, reg::RDX), pair(reg::RBX, reg::RCX));
    // A failed comparison writes the old value back. Without LOCK it is one step, too: nobody can tell.
    let old =
        cpu.core.update_in(cpu.core.bank, addr, bytes as u8, |old| Some(if old == expected { new } else { old }))?;
    let equal = old == expected;
    if !equal {
        cpu.state.gpr[reg::RAX] = old as u64 & mask;
        cpu.state.gpr[reg::RDX] = (old >> (8 * half)) as u64;
    }
    let mut flags = cpu.state.arith_flags();
    flags.set(Rflags::ZF, equal);
    cpu.state.set_arith_flags(flags);
    Ok(())
}

/// DAA, DAS, AAA, AAS, AAM, AAD (SDM vol. 2A).
pub extern "C" fn decimal_adjust(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    let imm = (arg >> 8) as u8;
    let flags = cpu.state.arith_flags();
    let (cf, af) = (flags.contains(Rflags::CF), flags.contains(Rflags::AF));
    let ax = cpu.state.gpr[reg::RAX] as u16;
    let (al, ah) = (ax as u8, (ax >> 8) as u8);
    let low_nibble = al & 15 > 9 || af;
    let (result, cf, af) = match arg & 0xff {
        0 | 1 => {
            let (six, sixty) = (if low_nibble { 6 } else { 0 }, if al > 0x99 || cf { 0x60 } else { 0 });
            let adjust = six + sixty;
            let das = arg & 0xff == 1;
            let new = if das { al.wrapping_sub(adjust) } else { al.wrapping_add(adjust) };
            let borrow = das && low_nibble && al < 6;
            (u16::from(ah) << 8 | u16::from(new), sixty != 0 || borrow, low_nibble)
        }
        2 => (if low_nibble { ax.wrapping_add(0x106) } else { ax } & 0xff0f, low_nibble, low_nibble),
        3 => {
            let new = if low_nibble { ax.wrapping_sub(6).wrapping_sub(0x100) } else { ax };
            (new & 0xff0f, low_nibble, low_nibble)
        }
        4 => {
            let (Some(high), Some(low)) = (al.checked_div(imm), al.checked_rem(imm)) else {
                cpu.raise(Exception::plain(vector::DE));
                return 0;
            };
            (u16::from(high) << 8 | u16::from(low), false, false)
        }
        _ => (u16::from(al.wrapping_add(ah.wrapping_mul(imm))), false, false),
    };
    let logic = CcOp { kind: CcKind::Logic, log2: 0 };
    let shape = compute(logic, u64::from(result & 0xff), 0, 0);
    cpu.state.gpr[reg::RAX] = cpu.state.gpr[reg::RAX] & !0xffff | u64::from(result);
    cpu.state.set_arith_flags(shape | when(cf, Rflags::CF) | when(af, Rflags::AF));
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition (SDM vol. 2A, DIV and IDIV), in numbers that hold everything.
    fn defined(dividend: u128, divisor: u64, signed: bool) -> Option<(u64, u64)> {
        if !signed {
            let (quotient, remainder) = (dividend.checked_div(divisor.into())?, dividend.checked_rem(divisor.into())?);
            return Some((quotient.try_into().ok()?, remainder as u64));
        }
        let (dividend, divisor) = (dividend as i128, i128::from(divisor as i64));
        let (quotient, remainder) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
        Some((i64::try_from(quotient).ok()? as u64, remainder as u64))
    }

    #[test]
    fn division_is_as_defined() {
        // Zero, what is next to a power of two, and what has all bits.
        let powers = [0, 1, 2, 3, 32, 62, 63].map(|bit| 1u64 << bit);
        let near = |power: u64| [power - 1, power, power.wrapping_add(1), power.wrapping_neg()];
        let corners: Vec<u64> = powers.iter().flat_map(|&power| near(power)).collect();
        let mut fitting = 0;
        for (&high, &low) in corners.iter().flat_map(|high| corners.iter().map(move |low| (high, low))) {
            for &divisor in &corners {
                let dividend = u128::from(high) << 64 | u128::from(low);
                for signed in [false, true] {
                    let wanted = defined(dividend, divisor, signed);
                    let found = if signed {
                        divide_signed(dividend as i128, divisor as i64)
                    } else {
                        divide_wide(dividend, divisor)
                    };
                    assert_eq!(found, wanted, "{dividend:#x} by {divisor:#x}, signed: {signed}");
                    fitting += u32::from(found.is_some());
                }
            }
        }
        assert!(fitting > 3_000, "only {fitting}");
    }
}
