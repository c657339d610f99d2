//! DIV and IDIV against their definition, in every form that they are lifted to.

use mimus_frontend::x86::helpers::Helper;
use mimus_frontend::x86::lift::{Request, lift};
use mimus_frontend::x86::state::reg;
use mimus_ir::block::CallInfo;
use mimus_ir::{Block, Inst, Interp, Op, Type};

use super::fixture::Machine;

/// A division by RBX and what goes before it.
struct Case {
    text: &'static str,
    code: &'static [u8],
    /// Of the divisor.
    bytes: u32,
    signed: bool,
    /// The type that is divided in; none for the helper's.
    inline: Option<Type>,
}

const fn case(text: &'static str, code: &'static [u8], (bytes, signed): (u32, bool), inline: Option<Type>) -> Case {
    Case { text, code, bytes, signed, inline }
}

const CASES: &[Case] = &[
    case("div bl", &[0xf6, 0xf3], (1, false), Some(Type::I32)),
    case("idiv bl", &[0xf6, 0xfb], (1, true), Some(Type::I32)),
    case("div bx", &[0x66, 0xf7, 0xf3], (2, false), Some(Type::I32)),
    case("idiv bx", &[0x66, 0xf7, 0xfb], (2, true), Some(Type::I32)),
    case("div ebx", &[0xf7, 0xf3], (4, false), Some(Type::I64)),
    case("idiv ebx", &[0xf7, 0xfb], (4, true), Some(Type::I64)),
    case("xor edx,edx; div ebx", &[0x31, 0xd2, 0xf7, 0xf3], (4, false), Some(Type::I32)),
    case("cdq; idiv ebx", &[0x99, 0xf7, 0xfb], (4, true), Some(Type::I32)),
    case("xor edx,edx; idiv ebx", &[0x31, 0xd2, 0xf7, 0xfb], (4, true), Some(Type::I64)),
    case("div rbx", &[0x48, 0xf7, 0xf3], (8, false), None),
    case("idiv rbx", &[0x48, 0xf7, 0xfb], (8, true), None),
    case("xor edx,edx; div rbx", &[0x31, 0xd2, 0x48, 0xf7, 0xf3], (8, false), Some(Type::I64)),
    case("mov edx,0; div rbx", &[0xba, 0, 0, 0, 0, 0x48, 0xf7, 0xf3], (8, false), Some(Type::I64)),
    case("cqo; idiv rbx", &[0x48, 0x99, 0x48, 0xf7, 0xfb], (8, true), Some(Type::I64)),
    case("xor edx,edx; idiv rbx", &[0x31, 0xd2, 0x48, 0xf7, 0xfb], (8, true), None),
    case("cqo; div rbx", &[0x48, 0x99, 0x48, 0xf7, 0xf3], (8, false), None),
    case("cdq; idiv rbx", &[0x99, 0x48, 0xf7, 0xfb], (8, true), None),
    case("cqo; inc rax; idiv rbx", &[0x48, 0x99, 0x48, 0xff, 0xc0, 0x48, 0xf7, 0xfb], (8, true), None),
    case("xor edx,edx; mov dl,cl; div rbx", &[0x31, 0xd2, 0x88, 0xca, 0x48, 0xf7, 0xf3], (8, false), None),
    case(
        "xor edx,edx; inc rax; div rbx",
        &[0x31, 0xd2, 0x48, 0xff, 0xc0, 0x48, 0xf7, 0xf3],
        (8, false),
        Some(Type::I64),
    ),
];

fn mask(bytes: u32) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
}

/// Zero, what is next to a power of two, and what has all bits.
fn corners(bytes: u32) -> Vec<u64> {
    let powers = [0, 1, 2, 4 * bytes, 8 * bytes - 2, 8 * bytes - 1].map(|bit| 1u64 << bit);
    let near = powers.iter().flat_map(|&power| [power - 1, power, power.wrapping_add(1), power.wrapping_neg()]);
    near.collect()
}

/// What is divided: the part of it in RDX, or for bytes in AH, and the part in RAX.
fn dividend(bytes: u32, rdx: u64, rax: u64) -> u128 {
    let high = if bytes == 1 { rax >> 8 } else { rdx };
    u128::from(high & mask(bytes)) << (8 * bytes) | u128::from(rax & mask(bytes))
}

/// Quotient and remainder (SDM vol. 2A, DIV and IDIV), in numbers that hold everything.
fn defined(dividend: u128, divisor: u64, bytes: u32, signed: bool) -> Option<(u64, u64)> {
    let mask = mask(bytes);
    if !signed {
        let divisor = u128::from(divisor & mask);
        let (quotient, remainder) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
        return (quotient <= mask.into()).then_some((quotient as u64, remainder as u64));
    }
    let (wide, narrow) = (128 - 16 * bytes, 64 - 8 * bytes);
    let dividend = (dividend << wide) as i128 >> wide;
    let divisor = i128::from((divisor << narrow) as i64 >> narrow);
    let (quotient, remainder) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
    let fits = (-(1i128 << (8 * bytes - 1))..1i128 << (8 * bytes - 1)).contains(&quotient);
    fits.then_some((quotient as u64 & mask, remainder as u64 & mask))
}

/// RAX and RDX with these results in them.
fn results(bytes: u32, (rax, rdx): (u64, u64), (quotient, remainder): (u64, u64)) -> (u64, u64) {
    match bytes {
        1 => (rax & !0xffff | quotient | remainder << 8, rdx),
        2 => (rax & !0xffff | quotient, rdx & !0xffff | remainder),
        _ => (quotient, remainder),
    }
}

fn block(m: &Machine, code: &[u8]) -> Block {
    let request = Request { bytes: code, in_page: code.len(), rip: 0x1000, base: 0, mode: m.cpu.mode, max_insns: 9 };
    lift(&request).expect("whole instructions")
}

impl Case {
    /// The code before the division.
    fn prefix(&self) -> &'static [u8] {
        &self.code[..self.code.len() - if matches!(self.bytes, 1 | 4) { 2 } else { 3 }]
    }

    /// What `block` divides in, if that is no helper.
    fn divides_in(&self, block: &Block) -> Option<Type> {
        let op = if self.signed { Op::SDiv } else { Op::UDiv };
        let helps = |imm| CallInfo::decode(imm).helper == Helper::Divide as u16;
        let divides = |inst: &&Inst| inst.op == op || inst.op == Op::Call && helps(inst.imm);
        let [division] = block.insts.iter().filter(divides).collect::<Vec<_>>()[..] else {
            panic!("{}: not one division", self.text)
        };
        (division.op == op).then_some(division.ty)
    }

    /// Divides, whatever is in the registers; whether there was a quotient.
    fn check(&self, m: &mut Machine, interp: &mut Interp, blocks: &[Block; 2], [rdx, rax, divisor]: [u64; 3]) -> bool {
        let Case { text, bytes, signed, .. } = *self;
        (m.cpu.pending, m.cpu.header.verdict) = (None, 0);
        let gpr = &mut m.cpu.state.gpr;
        (gpr[reg::RDX], gpr[reg::RAX], gpr[reg::RBX], gpr[reg::RDI]) = (rdx, rax, divisor, 0x7000);
        let whole = m.cpu.state;
        let [prefix, block] = blocks;
        if !self.prefix().is_empty() {
            interp.run(prefix, &mut *m.cpu);
        }
        let before = (m.cpu.state.gpr[reg::RAX], m.cpu.state.gpr[reg::RDX]);
        m.cpu.state = whole;
        let wanted = defined(dividend(bytes, before.1, before.0), divisor, bytes, signed);
        interp.run(block, &mut *m.cpu);
        let after = (m.cpu.state.gpr[reg::RAX], m.cpu.state.gpr[reg::RDX]);
        let case = format!("{text}: {rdx:#x}, {rax:#x} by {divisor:#x}");
        assert_eq!(m.cpu.pending.map(|e| e.vector), if wanted.is_some() { None } else { Some(0) }, "{case}");
        assert_eq!(after, wanted.map_or(before, |wanted| results(bytes, before, wanted)), "{case}");
        wanted.is_some()
    }
}

#[test]
fn divisions_are_as_defined_and_in_line_where_they_can_be() {
    let mut interp = Interp::default();
    for case in CASES {
        let mut m = Machine::long(3);
        let blocks = [case.prefix(), case.code].map(|code| if code.is_empty() { &[0x90] } else { code });
        let blocks = blocks.map(|code| block(&m, code));
        assert_eq!(case.divides_in(&blocks[1]), case.inline, "{}", case.text);
        let corners = corners(case.bytes);
        let mut quotients = 0;
        for &rdx in &corners {
            for &rax in &corners {
                for &divisor in &corners {
                    quotients += u32::from(case.check(&mut m, &mut interp, &blocks, [rdx, rax, divisor]));
                }
            }
        }
        assert!(quotients > 500 && quotients < corners.len().pow(3) as u32, "{}: {quotients}", case.text);
    }
}
