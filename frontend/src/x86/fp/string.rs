//! SSE4.2 string comparison, PCMPxSTRx (SDM vol. 1, 12.10; vol. 2, "PCMPESTRI" and section 4.1).

use mimus_ir::packed::{build, lane};

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    /// One bit an element (IntRes2).
    result: u32,
    imm: u8,
    /// The second operand, and then the first, is shorter than a register.
    ends: [bool; 2],
}

/// The number of elements of 8 or 16 bits.
fn count(imm: u8) -> usize {
    if imm & 1 == 0 { 16 } else { 8 }
}

fn element(imm: u8, x: u128, i: usize) -> i32 {
    match imm & 3 {
        0 => lane::<u8>(x, i).into(),
        1 => lane::<u16>(x, i).into(),
        2 => lane::<i8>(x, i).into(),
        _ => lane::<i16>(x, i).into(),
    }
}

/// An implicit length: up to the first element that is zero.
fn implicit_length(imm: u8, x: u128) -> usize {
    (0..count(imm)).find(|&i| element(imm, x, i) == 0).unwrap_or(count(imm))
}

/// An explicit length: the absolute value, saturated.
fn explicit_length(imm: u8, length: i64) -> usize {
    length.unsigned_abs().min(count(imm) as u64) as usize
}

/// PCMPISTRx.
pub(super) fn implicit(imm: u8, a: u128, b: u128) -> Comparison {
    compare(imm, a, b, implicit_length(imm, a), implicit_length(imm, b))
}

/// PCMPESTRx: `lengths` are those of `a` and `b` (EAX and EDX, sign-extended, or RAX and RDX).
pub(super) fn explicit(imm: u8, a: u128, b: u128, lengths: [i64; 2]) -> Comparison {
    compare(imm, a, b, explicit_length(imm, lengths[0]), explicit_length(imm, lengths[1]))
}

fn compare(imm: u8, a: u128, b: u128, len_a: usize, len_b: usize) -> Comparison {
    let n = count(imm);
    let (at_a, at_b) = (|i| element(imm, a, i), |i| element(imm, b, i));
    // Elements past an end compare as SDM vol. 2, table 4-7 says: no match, except that an ended `a` matches in "equal
    // ordered" and that two ended strings match in "equal each".
    let holds = |j: usize| match imm >> 2 & 3 {
        0 => j < len_b && (0..len_a).any(|i| at_a(i) == at_b(j)),
        1 => j < len_b && (0..len_a / 2).any(|i| (at_a(2 * i)..=at_a(2 * i + 1)).contains(&at_b(j))),
        2 => {
            if j < len_a && j < len_b {
                at_a(j) == at_b(j)
            } else {
                j >= len_a && j >= len_b
            }
        }
        _ => (0..n - j).all(|i| i >= len_a || (i + j < len_b && at_a(i) == at_b(i + j))),
    };
    let raw = (0..n).fold(0u32, |acc, j| acc | u32::from(holds(j)) << j);
    let invert = match imm >> 4 & 3 {
        1 => (1u32 << n) - 1,
        3 => (1u32 << len_b) - 1,
        _ => 0,
    };
    Comparison { result: raw ^ invert, imm, ends: [len_b < n, len_a < n] }
}

impl Comparison {
    /// ECX of PCMPxSTRI: the lowest or (imm bit 6) highest set bit, or the number of elements.
    pub fn index(self) -> u128 {
        let n = count(self.imm) as u32;
        match (self.result, self.imm & 0x40 != 0) {
            (0, _) => n.into(),
            (bits, false) => bits.trailing_zeros().into(),
            (bits, true) => bits.ilog2().into(),
        }
    }

    /// XMM0 of PCMPxSTRM: the bits, or (imm bit 6) a mask of elements.
    pub fn mask(self) -> u128 {
        let set = |i: usize| self.result >> i & 1 != 0;
        match self.imm & 0x41 {
            0x40 => build(16, |i| if set(i) { u8::MAX } else { 0 }),
            0x41 => build(16, |i| if set(i) { u16::MAX } else { 0 }),
            _ => self.result.into(),
        }
    }

    /// CF, ZF, SF and OF; AF and PF are cleared.
    pub fn eflags(self) -> u32 {
        u32::from(self.result != 0)
            | u32::from(self.ends[0]) << 6
            | u32::from(self.ends[1]) << 7
            | (self.result & 1) << 11
    }
}
