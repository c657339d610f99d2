//! Vectors of integers: a 128-bit vector is a `u128` whose lowest bits are lane 0. Where an instruction is named, its
//! semantics are those of SDM vol. 2; functions with a width `n` in bytes also serve the 64-bit registers of MMX.

/// An element of a register.
pub trait Lane: Copy {
    /// Width in bits.
    const BITS: u32;
    /// The low bits of `x`.
    fn from_bits(x: u128) -> Self;
    /// Zero-extended.
    fn bits(self) -> u128;
}

macro_rules! lanes {
    ($($signed:ident $unsigned:ident)*) => { $(
        impl Lane for $unsigned {
            const BITS: u32 = $unsigned::BITS;
            fn from_bits(x: u128) -> Self { x as Self }
            fn bits(self) -> u128 { self.into() }
        }
        impl Lane for $signed {
            const BITS: u32 = $signed::BITS;
            fn from_bits(x: u128) -> Self { x as Self }
            fn bits(self) -> u128 { (self as $unsigned).into() }
        }
    )* };
}
lanes! { i8 u8 i16 u16 i32 u32 i64 u64 }

/// Element `i` of `x`, which must exist.
pub fn lane<T: Lane>(x: u128, i: usize) -> T {
    T::from_bits(x >> (i as u32 * T::BITS))
}

/// `x` with element `i` (which must exist) replaced.
pub fn with_lane<T: Lane>(x: u128, i: usize, v: T) -> u128 {
    let at = i as u32 * T::BITS;
    x & !((u128::MAX >> (128 - T::BITS)) << at) | v.bits() << at
}

/// A register of `n` bytes whose element `i` is `f(i)`.
pub fn build<T: Lane>(n: usize, f: impl Fn(usize) -> T) -> u128 {
    let mut out = 0;
    for i in 0..n * 8 / T::BITS as usize {
        out |= f(i).bits() << (i as u32 * T::BITS);
    }
    out
}

/// `f` of each element.
pub fn map<T: Lane>(b: u128, f: impl Fn(T) -> T) -> u128 {
    build(16, |i| f(lane(b, i)))
}

/// `f` of each pair of elements.
pub fn map2<T: Lane>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    build(16, |i| f(lane(a, i), lane(b, i)))
}

/// All ones where `f` holds.
pub fn compare<T: Lane>(a: u128, b: u128, f: impl Fn(&T, &T) -> bool) -> u128 {
    map2(a, b, |x: T, y: T| T::from_bits(if f(&x, &y) { u128::MAX } else { 0 }))
}

/// Horizontal forms: `f` of adjacent elements of `a`, then of `b`, in registers of `n` bytes.
pub fn horizontal<T: Lane>(n: usize, a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    let half = n * 4 / T::BITS as usize;
    build(n, |i| {
        let (from, at) = if i < half { (a, i * 2) } else { (b, (i - half) * 2) };
        f(lane(from, at), lane(from, at + 1))
    })
}

/// PACKxx: the elements of `a`, then of `b`, saturated by `f`.
pub fn pack<T: Lane, U: Lane>(n: usize, a: u128, b: u128, f: impl Fn(T) -> U) -> u128 {
    let half = n * 8 / T::BITS as usize;
    build(n, |i| if i < half { f(lane(a, i)) } else { f(lane(b, i - half)) })
}

/// PUNPCKxx: interleaves elements of `a` and `b`, from the low half or the `high` half of `n` bytes.
pub fn unpack<T: Lane>(n: usize, high: bool, a: u128, b: u128) -> u128 {
    let from = if high { n * 4 / T::BITS as usize } else { 0 };
    build(n, |i| lane::<T>(if i % 2 == 0 { a } else { b }, from + i / 2))
}

/// PMOVSX and PMOVZX.
pub fn extend<T: Lane, U: Lane>(b: u128, f: impl Fn(T) -> U) -> u128 {
    build(16, |i| f(lane(b, i)))
}

/// A shift by a count that all elements share; a count of the element width or more gives zero.
pub fn shift<T: Lane>(a: u128, count: u64, f: impl Fn(T, u32) -> T) -> u128 {
    if count >= u64::from(T::BITS) { 0 } else { map(a, |x| f(x, count as u32)) }
}

/// An arithmetic right shift; a count of the element width or more gives copies of the sign.
pub fn shift_sign<T: Lane>(a: u128, count: u64, f: impl Fn(T, u32) -> T) -> u128 {
    let count = count.min(u64::from(T::BITS) - 1) as u32;
    map(a, |x| f(x, count))
}

/// PSLLDQ and PSRLDQ counts in bits; 16 bytes and more shift everything out.
pub fn byte_shift(a: u128, bytes: u8, f: impl Fn(u128, u32) -> Option<u128>) -> u128 {
    f(a, u32::from(bytes) * 8).unwrap_or(0)
}

/// PALIGNR: `n` bytes of the concatenation `a:b` from byte `bytes` on.
pub fn align(n: usize, a: u128, b: u128, bytes: u8) -> u128 {
    build(n, |i| match i + usize::from(bytes) {
        at if at < n => lane::<u8>(b, at),
        at if at < 2 * n => lane(a, at - n),
        _ => 0,
    })
}

/// PSHUFB.
pub fn shuffle_bytes(n: usize, a: u128, b: u128) -> u128 {
    build(n, |i| {
        let select = lane::<u8>(b, i);
        if select & 0x80 != 0 { 0 } else { lane::<u8>(a, usize::from(select) % n) }
    })
}

/// PSHUFD, PSHUFW: elements `0..4` of `b` by the four 2-bit fields of `order`.
pub fn shuffle4<T: Lane>(b: u128, order: u8) -> u128 {
    build(T::BITS as usize / 2, |i| lane::<T>(b, usize::from(order >> (2 * i) & 3)))
}

/// SHUFPS: two elements of `a`, then two of `b`.
pub fn shuffle_ps(a: u128, b: u128, order: u8) -> u128 {
    build(16, |i| lane::<u32>(if i < 2 { a } else { b }, usize::from(order >> (2 * i) & 3)))
}

/// SHUFPD.
pub fn shuffle_pd(a: u128, b: u128, order: u8) -> u128 {
    build(16, |i| lane::<u64>(if i == 0 { a } else { b }, usize::from(order >> i & 1)))
}

/// BLENDPx, PBLENDW: elements of `b` where a bit of `select` is set.
pub fn blend<T: Lane>(a: u128, b: u128, select: u8) -> u128 {
    build(16, |i| lane::<T>(if select >> i & 1 != 0 { b } else { a }, i))
}

/// BLENDVPx, PBLENDVB: elements of `b` where the element of `select` has its top bit set.
pub fn blend_variable<T: Lane>(a: u128, b: u128, select: u128) -> u128 {
    build(16, |i| {
        let top = select >> ((i as u32 + 1) * T::BITS - 1) & 1;
        lane::<T>(if top != 0 { b } else { a }, i)
    })
}

/// MOVMSKPx, PMOVMSKB: the top bits of the elements of `n` bytes.
pub fn top_bits<T: Lane>(n: usize, b: u128) -> u128 {
    (0..n * 8 / T::BITS as usize).map(|i| (b >> ((i as u32 + 1) * T::BITS - 1) & 1) << i).fold(0, |acc, bit| acc | bit)
}

/// INSERTPS: imm bits 6-7 select the source element, 4-5 the destination element, 0-3 the elements to
/// clear.
pub fn insert_ps(a: u128, b: u128, imm: u8) -> u128 {
    let merged = with_lane(a, usize::from(imm >> 4 & 3), lane::<u32>(b, usize::from(imm >> 6)));
    build(16, |i| if imm >> i & 1 != 0 { 0 } else { lane::<u32>(merged, i) })
}

/// PMULLW and the like: the product of two elements, shifted right by `shift` and truncated.
pub fn multiply<T: Lane + Into<i64>>(a: u128, b: u128, shift: u32) -> u128 {
    map2(a, b, |x: T, y: T| T::from_bits(((x.into() * y.into()) >> shift) as u128))
}

/// PMULHRSW: the product's bits 14-30, rounded.
pub fn multiply_round(a: u128, b: u128) -> u128 {
    map2(a, b, |x: i16, y: i16| ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16)
}

/// PMULUDQ and PMULDQ: full products of the even 32-bit elements.
pub fn multiply_even<T: Lane + Into<i64>>(a: u128, b: u128) -> u128 {
    build(16, |i| {
        let (x, y): (T, T) = (lane(a, i * 2), lane(b, i * 2));
        x.into().wrapping_mul(y.into())
    })
}

/// PMADDWD: sums of adjacent products.
pub fn multiply_add(a: u128, b: u128) -> u128 {
    let product = |i| i32::from(lane::<i16>(a, i)) * i32::from(lane::<i16>(b, i));
    build(16, |i| product(i * 2).wrapping_add(product(i * 2 + 1)))
}

/// PMADDUBSW: saturated sums of adjacent products of unsigned bytes of `a` and signed bytes of `b`.
pub fn multiply_add_bytes(a: u128, b: u128) -> u128 {
    let product = |i| i32::from(lane::<u8>(a, i)) * i32::from(lane::<i8>(b, i));
    build(16, |i| saturate_i16(product(i * 2) + product(i * 2 + 1)))
}

/// PSADBW: sums of absolute differences, one for 8 bytes.
pub fn sum_differences(a: u128, b: u128) -> u128 {
    build(16, |i| (0..8).map(|k| u64::from(lane::<u8>(a, i * 8 + k).abs_diff(lane(b, i * 8 + k)))).sum::<u64>())
}

/// MPSADBW: 8 sums of absolute differences of 4 bytes, sliding in `a` (from byte 0 or 4 by imm bit 2) against 4 bytes of
/// `b` (that imm bits 0-1 select).
pub fn sliding_differences(a: u128, b: u128, imm: u8) -> u128 {
    let (from_a, from_b) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
    build(16, |i| (0..4).map(|k| u16::from(lane::<u8>(a, from_a + i + k).abs_diff(lane(b, from_b + k)))).sum::<u16>())
}

/// PHMINPOSUW: the smallest element and, in element 1, its first position.
pub fn minimum_position(b: u128) -> u128 {
    (0..8).map(|i| (lane::<u16>(b, i), i)).min().map_or(0, |(min, at)| u128::from(min) | (at as u128) << 16)
}

/// PSIGNx: `a` negated, cleared or kept by the sign of `b`.
pub fn sign<T: Lane + Into<i64>>(a: u128, b: u128) -> u128 {
    map2(a, b, |x: T, y: T| T::from_bits((x.into() * y.into().signum()) as u128))
}

/// PAVGx.
pub fn average<T: Lane + Into<u32>>(a: u128, b: u128) -> u128 {
    map2(a, b, |x: T, y: T| T::from_bits(((x.into() + y.into() + 1) >> 1).into()))
}

/// The nearest `i8`.
pub fn saturate_i8(x: i16) -> i8 {
    x.clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

/// The nearest `u8`.
pub fn saturate_u8(x: i16) -> u8 {
    x.clamp(0, u8::MAX.into()) as u8
}

/// The nearest `i16`.
pub fn saturate_i16(x: i32) -> i16 {
    x.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// The nearest `u16`.
pub fn saturate_u16(x: i32) -> u16 {
    x.clamp(0, u16::MAX.into()) as u16
}

/// PTEST: ZF when `a & b` is zero, CF when `!a & b` is.
pub fn test(a: u128, b: u128) -> u128 {
    u128::from(a & b == 0) << 6 | u128::from(!a & b == 0)
}
