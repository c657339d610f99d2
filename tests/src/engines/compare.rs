//! Comparison of two engines' results, with what the manuals leave open taken out.

use std::fmt::Write as _;

use iced_x86::{Formatter, Instruction, NasmFormatter};

use super::case::{Case, NAMES};
use super::latitude::{self, ARITH};
use super::layout::DATA;
use super::{Outcome, Registers, Trap};

/// Flags that are compared beside the arithmetic ones: DF, NT, AC, ID.
const OTHER_FLAGS: u64 = 0x24_4400;

fn list<T: PartialEq + std::fmt::LowerHex>(out: &mut Vec<String>, name: &str, want: T, got: T) {
    if want != got {
        out.push(format!("{name} {got:#x}, not {want:#x}"));
    }
}

/// Whether two 32-bit floats are the same or within 2^-11 of each other. What is tiny, or nearly so, may be 0 (SDM vol. 2B, RCPPS).
fn close32(a: u32, b: u32) -> bool {
    let (x, y) = (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)));
    let tiny = |bits: u32| bits >> 23 & 0xff <= 1;
    a == b || a >> 31 == b >> 31 && tiny(a) && tiny(b) || (x - y).abs() <= y.abs() / 2048.0
}

/// Whether lanes of `bits` bits that differ are NaNs in both; with 0 bits, none may.
fn same_but_for_nans(a: u128, b: u128, bits: u32) -> bool {
    let nan = |lane: u128| match bits {
        32 => f32::from_bits(lane as u32).is_nan(),
        _ => f64::from_bits(lane as u64).is_nan(),
    };
    let lane = |v: u128, n: u32| v >> (n * bits) & ((1 << bits) - 1);
    a == b || bits != 0 && (0..128 / bits).all(|n| lane(a, n) == lane(b, n) || nan(lane(a, n)) && nan(lane(b, n)))
}

/// Whether two 80-bit floats differ by at most `units` of the last place.
fn close80(a: u128, b: u128, units: u128) -> bool {
    let magnitude = |x: u128| x & ((1 << 79) - 1);
    // Exponents go on where significands end, but for the integer bit.
    let line = |x: u128| (magnitude(x) >> 64) << 63 | magnitude(x) & ((1 << 63) - 1);
    a == b || a >> 79 == b >> 79 && line(a).abs_diff(line(b)) <= units
}

fn x87(out: &mut Vec<String>, insn: Option<&Instruction>, want: &Registers, got: &Registers) {
    list(out, "FCW", want.fx16(0), got.fx16(0));
    let status = !insn.map_or(0, latitude::undefined_status);
    let transcendental = insn.is_some_and(latitude::transcendental);
    list(out, "FSW", want.fx16(2) & status, got.fx16(2) & status);
    list(out, "FTW", want.fx[4], got.fx[4]);
    for n in 0..8 {
        let (want, got) = (want.st(n), got.st(n));
        if transcendental && close80(want, got, 4) {
            continue;
        }
        list(out, &format!("ST{n}"), want, got);
    }
}

/// The part of an exception that is compared.
fn comparable(mut trap: Trap, whole: bool) -> Trap {
    if trap.address >> 47 != 0 {
        // Linux does not tell its processes whether there is a page at an address of its own.
        trap.error |= 1;
    }
    if !whole {
        (trap.error, trap.address) = (0, 0);
    }
    trap
}

/// Differences of an outcome from the one wanted; none if they agree. `insn` decides what is defined, unless engines are
/// compared that must do the same in all respects.
pub fn differences(insn: Option<(&Instruction, &Registers)>, want: &Outcome, got: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    let whole = insn.is_none_or(|(insn, _)| !latitude::several_steps(insn));
    let either = insn.is_some_and(|(insn, _)| latitude::either_fault(insn, &want.registers));
    let both = want.trap.is_some() && got.trap.is_some();
    if !(either && both) && want.trap.map(|t| comparable(t, whole)) != got.trap.map(|t| comparable(t, whole)) {
        out.push(format!("trap {:x?}, not {:x?}", got.trap, want.trap));
    }
    list(&mut out, "RIP", want.rip, got.rip);
    let (w, g) = (&want.registers, &got.registers);
    for (n, (name, (&w, &g))) in NAMES.iter().zip(w.gpr.iter().zip(&g.gpr)).enumerate() {
        let idle = |(insn, before): (&Instruction, &Registers)| {
            latitude::counters(insn).contains(&n) && [w, g].iter().all(|now| *now as u32 == before.gpr[n] as u32)
        };
        if !insn.is_some_and(idle) {
            list(&mut out, &format!("{name:?}"), w, g);
        }
    }
    let undefined = match insn {
        Some((insn, before)) if want.trap.is_none() => latitude::undefined_flags(insn, before),
        Some((insn, _)) => latitude::undefined_fault_flags(insn),
        None => 0,
    };
    let flags = (ARITH | OTHER_FLAGS) & !undefined;
    list(&mut out, "flags", w.rflags & flags, g.rflags & flags);
    let insn = insn.map(|(insn, _)| insn);
    if !(want.trap.is_some() && insn.is_some_and(latitude::undefined_transition)) {
        x87(&mut out, insn, w, g);
    }
    list(&mut out, "MXCSR", w.mxcsr(), g.mxcsr());
    for n in 0..16 {
        let (w, g) = (w.xmm(n), g.xmm(n));
        let close = (0..4).all(|i| close32((w >> (32 * i)) as u32, (g >> (32 * i)) as u32));
        let same = same_but_for_nans(w, g, insn.map_or(0, latitude::any_nan));
        if same || close && insn.is_some_and(latitude::approximate) {
            continue;
        }
        list(&mut out, &format!("XMM{n}"), w, g);
    }
    out
}

/// Differences of data.
pub fn data_differences(want: &[u8], got: &[u8]) -> Vec<String> {
    let Some(first) = want.iter().zip(got).position(|(a, b)| a != b) else { return Vec::new() };
    let last = want.iter().zip(got).rposition(|(a, b)| a != b).unwrap_or(first);
    let shown = first..(last + 1).min(first + 16);
    vec![format!("memory at {:#x}: {:02x?}, not {:02x?}", DATA + first as u64, &got[shown.clone()], &want[shown])]
}

/// An instruction as assembly.
pub fn assembly(insn: &Instruction) -> String {
    let mut text = String::new();
    NasmFormatter::new().format(insn, &mut text);
    text
}

/// A case that failed, for a person to read.
pub fn report(case: &Case, differences: &[String]) -> String {
    let mut text = format!("{:?}: {} [{:02x?}]\n", case.insn.code(), assembly(&case.insn), case.code);
    for line in differences {
        let _ = writeln!(text, "    {line}");
    }
    let r = &case.registers;
    let _ = write!(
        text,
        "    before: flags {:#x} mxcsr {:#x} fcw {:#x} fsw {:#x} ftw {:#x}",
        r.rflags,
        r.mxcsr(),
        r.fx16(0),
        r.fx16(2),
        r.fx[4]
    );
    for (name, value) in NAMES.iter().zip(&r.gpr) {
        let _ = write!(text, " {name:?}={value:#x}");
    }
    let _ = writeln!(text);
    for i in 0..case.insn.op_count() {
        if case.insn.op_kind(i) == iced_x86::OpKind::Register {
            let register = case.insn.op_register(i);
            let n = register.number();
            let value = if register.is_xmm() {
                r.xmm(n)
            } else if register.is_st() {
                r.st(n)
            } else {
                continue;
            };
            let _ = writeln!(text, "    before: {register:?} = {value:#034x}");
        }
    }
    if case.insn.op_count() == 0 {
        let _ = writeln!(text, "    before: ST0 = {:#022x} ST1 = {:#022x}", r.st(0), r.st(1));
    }
    for (at, bytes) in &case.patches {
        let _ = writeln!(text, "    before: {:#x}: {:02x?}", DATA + *at as u64, &bytes[..bytes.len().min(32)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_part_is_compared() {
        let registers = super::super::case::registers(&mut Rng::new(1));
        let want = Outcome { registers, rip: 1, trap: None };
        assert!(differences(None, &want, &want).is_empty());
        let changes: [fn(&mut Outcome); 9] = [
            |o| o.rip = 2,
            |o| o.trap = Some(Trap { vector: 14, error: 0, address: 0 }),
            |o| o.registers.gpr[15] ^= 1 << 63,
            |o| o.registers.rflags ^= 0x800,
            |o| o.registers.fx[0] ^= 1,
            |o| o.registers.fx[3] ^= 1,
            |o| o.registers.fx[41] ^= 0x80,
            |o| o.registers.fx[25] ^= 1,
            |o| o.registers.fx[415] ^= 0x80,
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut got = want.clone();
            change(&mut got);
            assert_eq!(differences(None, &want, &got).len(), 1, "change {n}");
        }
        assert_eq!(data_differences(&[1, 2, 3], &[1, 5, 3]).len(), 1);
    }

    #[test]
    fn tolerances() {
        let (nan, other) = (0x7fc0_0001u128, 0xffff_ffffu128);
        assert!(same_but_for_nans(nan << 32 | 5, other << 32 | 5, 32) && !same_but_for_nans(nan | 5 << 32, other, 32));
        assert!(
            !same_but_for_nans(nan, other, 0) && !same_but_for_nans(nan, 1, 32) && !same_but_for_nans(nan, other, 64)
        );
        assert!(close32(1f32.to_bits(), 1.0002f32.to_bits()) && !close32(1f32.to_bits(), 1.001f32.to_bits()));
        assert!(close32(0x0080_0001, 0) && !close32(0x0080_0001, 1 << 31) && !close32(0x0100_0000, 0));
        let one = 0x3fff_8000_0000_0000_0000u128;
        assert!(close80(one, one + 4, 4) && !close80(one, one + 5, 4) && !close80(one, one | 1 << 79, 4));
        assert!(close80(one, 0x3ffe_ffff_ffff_ffff_ffff, 4), "across a power of two");
    }
}
