//! Operand values, mostly at the edges where results change their kind.

use crate::rng::Rng;

/// An integer of `bits` bits (8, 16, 32, 64), in the low bits.
pub fn int(rng: &mut Rng, bits: u32) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    let sign = 1u64 << (bits - 1);
    let value = match rng.below(12) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => sign,
        4 => sign - 1,
        5 => (1 << rng.below(bits.into())) - rng.below(2),
        6 => rng.pick(&[0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]),
        7 => rng.below(16),
        8 => rng.below(256),
        // Sign-extended from a narrower width.
        9 => rng.next_u64() as i32 as i64 as u64,
        _ => rng.next_u64(),
    };
    value & mask
}

/// Sign, biased exponent and fraction of a number with so many bits of each.
fn float(rng: &mut Rng, exponent_bits: u32, fraction_bits: u32) -> (bool, u64, u64) {
    let exponent_max = (1u64 << exponent_bits) - 1;
    let bias = exponent_max / 2;
    let fraction_mask = (1u64 << fraction_bits) - 1;
    let exponent = match rng.below(16) {
        0..=2 => 0,
        3..=4 => exponent_max,
        5 => 1,
        6 => exponent_max - 1,
        // About the widths of integers, for conversions.
        7 => bias + rng.pick(&[7, 8, 15, 16, 30, 31, 32, 52, 53, 62, 63, 64]).min(exponent_max - 1 - bias),
        8..=12 => bias - 4 + rng.below(9),
        _ => rng.below(exponent_max + 1),
    };
    let fraction = match rng.below(8) {
        0..=1 => 0,
        2 => fraction_mask,
        3 => 1,
        4 => 1 << (fraction_bits - 1),
        // Few bits set, so that results are exact or halfway.
        5 => (rng.next_u64() & 0xff) << rng.below(u64::from(fraction_bits) - 7),
        _ => rng.next_u64(),
    };
    (rng.one_in(2), exponent, fraction & fraction_mask)
}

/// A single-precision number.
pub fn f32_bits(rng: &mut Rng) -> u32 {
    let (sign, exponent, fraction) = float(rng, 8, 23);
    u32::from(sign) << 31 | (exponent as u32) << 23 | fraction as u32
}

/// A double-precision number.
pub fn f64_bits(rng: &mut Rng) -> u64 {
    let (sign, exponent, fraction) = float(rng, 11, 52);
    u64::from(sign) << 63 | exponent << 52 | fraction
}

/// A double extended number; sometimes one that no processor produces.
pub fn f80_bits(rng: &mut Rng) -> u128 {
    let (sign, exponent, fraction) = float(rng, 15, 63);
    // The integer bit belongs to the exponent; with the other one it is an unnormal or a pseudo-denormal.
    let integer = (exponent != 0) != rng.one_in(24);
    u128::from(u16::from(sign) << 15 | exponent as u16) << 64 | u128::from(integer) << 63 | u128::from(fraction)
}

/// 128 bits of elements of one kind.
pub fn vector(rng: &mut Rng) -> u128 {
    let mut value = 0;
    let kind = rng.below(7);
    let width = match kind {
        0 | 5 => 32,
        1 | 6 => 64,
        2 => 8,
        3 => 16,
        _ => 64,
    };
    for i in 0..128 / width {
        let element = match kind {
            0 => f32_bits(rng).into(),
            1 => f64_bits(rng),
            2 | 3 | 5 => int(rng, width),
            6 => int(rng, 64),
            _ => rng.next_u64(),
        };
        value |= u128::from(element) << (i * width);
    }
    value
}

/// MXCSR: as a rule with everything masked.
pub fn mxcsr(rng: &mut Rng) -> u32 {
    let masks = if rng.one_in(8) { rng.next_u64() as u32 & 0x1f80 } else { 0x1f80 };
    let flags = if rng.one_in(4) { rng.next_u64() as u32 & 0x3f } else { 0 };
    let rounding = if rng.one_in(2) { rng.below(4) as u32 } else { 0 };
    let mut value = masks | flags | rounding << 13;
    if rng.one_in(4) {
        value |= 1 << 6;
    }
    if rng.one_in(4) {
        value |= 1 << 15;
    }
    value
}

/// An FXSAVE64 image: x87 and XMM registers, MXCSR.
pub fn fx(rng: &mut Rng) -> [u8; 512] {
    let mut fx = [0; 512];
    let masks = if rng.one_in(8) { rng.below(64) as u16 } else { 0x3f };
    let precision = if rng.one_in(2) { 3 } else { rng.pick(&[0u16, 2, 3]) };
    let rounding = if rng.one_in(2) { rng.below(4) as u16 } else { 0 };
    let control = masks | 0x40 | precision << 8 | rounding << 10;
    let conditions = (rng.next_u64() as u16) & 0x4700;
    let top = if rng.one_in(2) { 0 } else { rng.below(8) as u16 } << 11;
    let mut flags = if rng.one_in(4) { rng.below(128) as u16 } else { 0 };
    if !rng.one_in(4) {
        // Nothing pending.
        flags &= masks | 0x40;
    }
    let pending = if flags & !masks & 0x3f != 0 { 0x8080 } else { 0 };
    let tags = match rng.below(4) {
        0 => rng.next_u64() as u8,
        1 => 0,
        _ => 0xff,
    };
    fx[0..2].copy_from_slice(&control.to_le_bytes());
    fx[2..4].copy_from_slice(&(conditions | top | flags | pending).to_le_bytes());
    fx[4] = tags;
    fx[24..28].copy_from_slice(&mxcsr(rng).to_le_bytes());
    fx[28..32].copy_from_slice(&0xffffu32.to_le_bytes());
    for n in 0..8 {
        let mut value = f80_bits(rng);
        if rng.one_in(8) {
            // An MMX register.
            value = 0xffff << 64 | u128::from(int(rng, 64));
        }
        fx[32 + 16 * n..][..10].copy_from_slice(&value.to_le_bytes()[..10]);
    }
    let mut last = 0;
    for n in 0..16 {
        let value = if rng.one_in(6) { last } else { vector(rng) };
        last = value;
        fx[160 + 16 * n..][..16].copy_from_slice(&value.to_le_bytes());
    }
    fx
}
