//! Work that gets hot: table look-ups, strided stores and floating point, each checked against a known result. The
//! timer goes on interrupting it.

use iced_x86::code_asm::*;

use super::kernel::Labels;
use super::layout::{BUFFER, CRC_TABLE, Var};
use super::{Asm, console};

/// The CRC-32 of IEEE 802.3, bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// Bytes of the buffer, how often it goes through the CRC, and the generator that fills it, 8 bytes at a time.
const CRC_SIZE: i32 = 1 << 20;
const CRC_PASSES: u32 = 4;
const FILL_FACTOR: u64 = 0x5851_f42d_4c95_7f2d;
const FILL_INCREMENT: u64 = 0x1405_7b7e_f767_814f;
/// The CRC of all passes together.
const CRC: u32 = 0x8d82e553;

/// The sieve's size, and the primes below it.
const SIEVE_SIZE: i32 = 2_000_000;
const PRIMES: i32 = 148_933;

/// The picture: points, iterations at most, the point at the left top and the steps.
const WIDTH: u32 = 70;
const HEIGHT: u32 = 20;
const ITERATIONS: u32 = 1000;
const LEFT: f64 = -2.1;
const TOP: f64 = -1.14;
const STEP_X: f64 = 0.043;
const STEP_Y: f64 = 0.12;
/// Characters for a point that took 2^n to 2^(n + 1) - 2 iterations.
pub(super) const PALETTE: &[u8; 10] = b"  .:-=+*#@";
/// Iterations of all points.
const PICTURE_SUM: i32 = 293_866;

/// Emits: a piece of work begins.
fn start(a: &mut CodeAssembler) -> Asm {
    a.mov(rax, qword_ptr(Var::Ticks.at()))?;
    a.mov(qword_ptr(Var::Started.at()), rax)
}

/// Byte by byte through a table.
pub(super) fn crc(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let (mut pass, mut byte) = (a.create_label(), a.create_label());
    console::begin(a, l, "crc32", "4 MiB in 4 passes: ")?;
    start(a)?;
    fill(a)?;
    crc_table(a)?;
    a.mov(ebx, CRC_PASSES)?;
    a.mov(edx, u32::MAX)?;
    a.set_label(&mut pass)?;
    a.mov(esi, BUFFER)?;
    a.set_label(&mut byte)?;
    a.movzx(eax, byte_ptr(rsi))?;
    a.xor(al, dl)?;
    a.shr(edx, 8)?;
    a.xor(edx, dword_ptr(rax * 4 + CRC_TABLE))?;
    a.inc(rsi)?;
    a.cmp(rsi, BUFFER + CRC_SIZE)?;
    a.jne(byte)?;
    a.dec(ebx)?;
    a.jne(pass)?;
    a.not(edx)?;
    a.mov(ebx, edx)?;
    a.mov(esi, 8)?;
    a.call(l.hex)?;
    a.call(l.elapsed)?;
    a.cmp(ebx, CRC)?;
    a.call(l.verdict)
}

/// Emits: fill the buffer with pseudo-random words.
fn fill(a: &mut CodeAssembler) -> Asm {
    let mut again = a.create_label();
    a.mov(rbx, FILL_FACTOR)?;
    a.mov(rcx, FILL_INCREMENT)?;
    a.mov(edi, BUFFER)?;
    a.xor(eax, eax)?;
    a.set_label(&mut again)?;
    a.imul_2(rax, rbx)?;
    a.add(rax, rcx)?;
    a.stosq()?;
    a.cmp(rdi, BUFFER + CRC_SIZE)?;
    a.jne(again)
}

/// Emits: the CRC of each single byte, bit by bit.
fn crc_table(a: &mut CodeAssembler) -> Asm {
    let (mut entry, mut bit, mut even) = (a.create_label(), a.create_label(), a.create_label());
    a.xor(ecx, ecx)?;
    a.set_label(&mut entry)?;
    a.mov(eax, ecx)?;
    a.mov(edx, 8)?;
    a.set_label(&mut bit)?;
    a.shr(eax, 1)?;
    a.jae(even)?;
    a.xor(eax, POLYNOMIAL)?;
    a.set_label(&mut even)?;
    a.dec(edx)?;
    a.jne(bit)?;
    a.mov(dword_ptr(rcx * 4 + CRC_TABLE), eax)?;
    a.inc(ecx)?;
    a.cmp(ecx, 256)?;
    a.jne(entry)
}

/// The sieve of Eratosthenes, a byte a number.
pub(super) fn sieve(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let (mut number, mut mark, mut next, mut count) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    console::begin(a, l, "sieve", "primes below 2000000: ")?;
    start(a)?;
    a.mov(edi, BUFFER)?;
    a.mov(eax, 1)?;
    a.mov(ecx, SIEVE_SIZE)?;
    a.rep().stosb()?;
    // 0 and 1 are no primes; the first number to strike out multiples of is 2.
    a.mov(word_ptr(BUFFER), 0)?;
    a.mov(ecx, 2)?;
    a.set_label(&mut number)?;
    a.cmp(byte_ptr(rcx + BUFFER), 0)?;
    a.je(next)?;
    a.mov(eax, ecx)?;
    a.imul_2(eax, ecx)?;
    a.set_label(&mut mark)?;
    a.mov(byte_ptr(rax + BUFFER), 0)?;
    a.add(eax, ecx)?;
    a.cmp(eax, SIEVE_SIZE)?;
    a.jb(mark)?;
    a.set_label(&mut next)?;
    a.inc(ecx)?;
    a.cmp(ecx, SIEVE_SIZE.isqrt())?;
    a.jbe(number)?;
    a.xor(ebx, ebx)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut count)?;
    a.movzx(eax, byte_ptr(rcx + BUFFER))?;
    a.add(ebx, eax)?;
    a.inc(ecx)?;
    a.cmp(ecx, SIEVE_SIZE)?;
    a.jne(count)?;
    a.mov(eax, ebx)?;
    a.call(l.decimal)?;
    a.call(l.elapsed)?;
    a.cmp(ebx, PRIMES)?;
    a.call(l.verdict)
}

/// The Mandelbrot set in double precision: R12 and R13 are row and column, R14 counts iterations.
pub(super) fn picture(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let (mut row, mut column) = (a.create_label(), a.create_label());
    start(a)?;
    for (register, value) in [(xmm7, 4.0), (xmm8, TOP), (xmm9, STEP_Y), (xmm10, LEFT), (xmm11, STEP_X)] {
        a.mov(rax, value.to_bits())?;
        a.movq(register, rax)?;
    }
    a.xor(r12d, r12d)?;
    a.xor(r14d, r14d)?;
    a.set_label(&mut row)?;
    console::say(a, l.say, "    ")?;
    a.cvtsi2sd(xmm3, r12d)?;
    a.mulsd(xmm3, xmm9)?;
    a.addsd(xmm3, xmm8)?;
    a.xor(r13d, r13d)?;
    a.set_label(&mut column)?;
    a.cvtsi2sd(xmm2, r13d)?;
    a.mulsd(xmm2, xmm11)?;
    a.addsd(xmm2, xmm10)?;
    iterate(a)?;
    a.add(r14, rcx)?;
    a.inc(ecx)?;
    a.bsr(eax, ecx)?;
    a.lea(rsi, ptr(l.palette))?;
    a.mov(al, byte_ptr(rsi + rax))?;
    a.call(l.put)?;
    a.inc(r13d)?;
    a.cmp(r13d, WIDTH)?;
    a.jne(column)?;
    console::say(a, l.say, "\r\n")?;
    a.inc(r12d)?;
    a.cmp(r12d, HEIGHT)?;
    a.jne(row)?;
    console::begin(a, l, "mandelbrot", "SSE2 double precision, ")?;
    a.mov(rax, r14)?;
    a.call(l.decimal)?;
    console::say(a, l.say, " iterations")?;
    a.call(l.elapsed)?;
    a.cmp(r14, PICTURE_SUM)?;
    a.call(l.verdict)
}

/// Emits: ECX becomes the number of times that z = z² + c, from 0, stays within 2, up to [`ITERATIONS`]. c is in XMM2
/// and XMM3, z in XMM0 and XMM1, 4.0 in XMM7.
fn iterate(a: &mut CodeAssembler) -> Asm {
    let (mut again, mut done) = (a.create_label(), a.create_label());
    a.xorpd(xmm0, xmm0)?;
    a.xorpd(xmm1, xmm1)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut again)?;
    a.movapd(xmm4, xmm0)?;
    a.mulsd(xmm4, xmm0)?;
    a.movapd(xmm5, xmm1)?;
    a.mulsd(xmm5, xmm1)?;
    a.movapd(xmm6, xmm4)?;
    a.addsd(xmm6, xmm5)?;
    a.ucomisd(xmm6, xmm7)?;
    a.ja(done)?;
    a.addsd(xmm0, xmm0)?;
    a.mulsd(xmm1, xmm0)?;
    a.addsd(xmm1, xmm3)?;
    a.subsd(xmm4, xmm5)?;
    a.addsd(xmm4, xmm2)?;
    a.movapd(xmm0, xmm4)?;
    a.inc(ecx)?;
    a.cmp(ecx, ITERATIONS)?;
    a.jb(again)?;
    a.set_label(&mut done)?;
    a.nop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_right() {
        let table: [u32; 256] = std::array::from_fn(|byte| {
            (0..8).fold(byte as u32, |crc, _| crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 })
        });
        let crc = |bytes: &[u8], passes| {
            let all = (0..passes).flat_map(|_| bytes);
            !all.fold(u32::MAX, |crc, byte| crc >> 8 ^ table[usize::from(crc as u8 ^ byte)])
        };
        assert_eq!(crc(b"123456789", 1), 0xcbf4_3926, "the check value of CRC-32");
        let mut word = 0u64;
        let words = (0..CRC_SIZE / 8).flat_map(|_| {
            word = word.wrapping_mul(FILL_FACTOR).wrapping_add(FILL_INCREMENT);
            word.to_le_bytes()
        });
        let buffer: Vec<u8> = words.collect();
        assert_eq!(crc(&buffer, CRC_PASSES), CRC);
    }

    #[test]
    fn number_of_primes_is_right() {
        let size = SIEVE_SIZE as usize;
        let mut prime = vec![true; size];
        prime[..2].fill(false);
        for number in 2..=size.isqrt() {
            if prime[number] {
                (number * number..size).step_by(number).for_each(|multiple| prime[multiple] = false);
            }
        }
        assert_eq!(prime.iter().filter(|&&prime| prime).count(), PRIMES as usize);
    }

    #[test]
    fn picture_is_right() {
        let point = |column: u32, row: u32| {
            let c = (f64::from(column) * STEP_X + LEFT, f64::from(row) * STEP_Y + TOP);
            let mut z = (0.0, 0.0);
            let mut count = 0;
            while count < ITERATIONS && z.0 * z.0 + z.1 * z.1 <= 4.0 {
                z = (z.0 * z.0 - z.1 * z.1 + c.0, (z.0 + z.0) * z.1 + c.1);
                count += 1;
            }
            count
        };
        let points = (0..HEIGHT).flat_map(|row| (0..WIDTH).map(move |column| (column, row)));
        assert_eq!(points.map(|(column, row)| point(column, row)).sum::<u32>(), PICTURE_SUM as u32);
    }

    #[test]
    fn every_point_has_a_shade() {
        assert_eq!((ITERATIONS + 1).ilog2() as usize, PALETTE.len() - 1);
    }
}
