//! The semantics of each op at edge values, against arithmetic done another way: in 128 bits, bit by bit.

use crate::block::{Block, NONE};
use crate::interp::{Exit, Guest, Interp, Outcome, eval, eval_deposit, eval_extend, eval_extract};
use crate::op::{Op, Type};
use crate::testing::{Event, ToyGuest};
use crate::text::parse;

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];

/// Edge values of every width, with and without bits beyond each type.
fn edges() -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0xaaaa_aaaa_aaaa_aaaa];
    for ty in INTS {
        let top = 1 << (ty.bits() - 1);
        for near in [top, ty.mask()] {
            values.extend([near - 1, near, near.wrapping_add(1), !near]);
        }
        values.extend([u64::from(ty.bits()) - 1, u64::from(ty.bits()), u64::from(ty.bits()) + 1]);
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// `value` as a number of `ty`: unsigned and signed.
fn numbers(value: u64, ty: Type) -> (i128, i128) {
    let modulus = 1i128 << ty.bits();
    let unsigned = i128::from(value) % modulus;
    (unsigned, if unsigned >= modulus / 2 { unsigned - modulus } else { unsigned })
}

fn bit_list(value: i128, ty: Type) -> Vec<bool> {
    (0..ty.bits()).map(|bit| value >> bit & 1 != 0).collect()
}

fn from_bits(bits: &[bool]) -> i128 {
    bits.iter().enumerate().map(|(bit, &set)| i128::from(set) << bit).sum()
}

/// What a pure op on `a` and `b` must give, reduced modulo the type's range by the caller.
fn expected(op: Op, ty: Type, a: u64, b: u64) -> Option<i128> {
    let ((ua, sa), (ub, sb)) = (numbers(a, ty), numbers(b, ty));
    let width = i128::from(ty.bits());
    let count = ub % width;
    let power = 1i128 << count;
    let mut bits = bit_list(ua, ty);
    Some(match op {
        Op::Neg => -ua,
        Op::Not => -ua - 1,
        Op::Clz => bits.iter().rev().take_while(|&&bit| !bit).count() as i128,
        Op::Ctz => bits.iter().take_while(|&&bit| !bit).count() as i128,
        Op::Popcnt => bits.iter().filter(|&&bit| bit).count() as i128,
        Op::Bswap => from_bits(&bits.chunks(8).rev().flatten().copied().collect::<Vec<_>>()),
        Op::Add | Op::AddI => ua + ub,
        Op::Sub | Op::SubI => ua - ub,
        Op::Mul | Op::MulI => (ua as u128).wrapping_mul(ub as u128) as i128,
        Op::UMulHi => ((ua as u128).wrapping_mul(ub as u128) >> ty.bits()) as i128,
        Op::SMulHi => (sa * sb).div_euclid(1 << ty.bits()),
        Op::UDiv | Op::SDiv if ub == 0 => -1,
        Op::UDiv => ua / ub,
        Op::SDiv => sa / sb,
        Op::And | Op::AndI => ua & ub,
        Op::Or | Op::OrI => ua | ub,
        Op::Xor | Op::XorI => ua ^ ub,
        Op::Shl | Op::ShlI => (ua as u128).wrapping_mul(power as u128) as i128,
        Op::Shr | Op::ShrI => ua / power,
        Op::Sar | Op::SarI => sa.div_euclid(power),
        Op::Rotl | Op::RotlI => {
            bits.rotate_right(count as usize);
            from_bits(&bits)
        }
        Op::Rotr | Op::RotrI => {
            bits.rotate_left(count as usize);
            from_bits(&bits)
        }
        Op::Eq | Op::EqI => (ua == ub).into(),
        Op::Ne | Op::NeI => (ua != ub).into(),
        Op::Ult | Op::UltI => (ua < ub).into(),
        Op::Ule | Op::UleI => (ua <= ub).into(),
        Op::Slt | Op::SltI => (sa < sb).into(),
        Op::Sle | Op::SleI => (sa <= sb).into(),
        _ => return None,
    })
}

#[test]
fn binary_and_unary_ops() {
    use crate::op::Shape::*;
    let edges = edges();
    for &op in Op::ALL {
        let pure = matches!(op.info().shape, Unary | Binary | BinaryImm | Compare | CompareImm);
        for ty in INTS {
            for &a in &edges {
                for &b in &edges {
                    let expected = expected(op, ty, a, b);
                    assert_eq!(expected.is_some(), pure, "{op:?}");
                    let expected = expected.map(|value| value as u64 & ty.mask());
                    assert_eq!(eval(op, ty, a, b), expected, "{op:?}.{ty} {a:#x}, {b:#x}");
                }
            }
        }
    }
}

#[test]
fn extensions() {
    for ty in INTS {
        for from in INTS {
            for a in edges() {
                let (unsigned, signed) = numbers(a, from);
                let mask = ty.mask();
                assert_eq!(eval_extend(Op::Zext, ty, from as u16, a), unsigned as u64 & mask, "{ty} {from} {a:#x}");
                assert_eq!(eval_extend(Op::Sext, ty, from as u16, a), signed as u64 & mask, "{ty} {from} {a:#x}");
            }
        }
    }
}

#[test]
fn bit_fields() {
    for ty in INTS {
        for pos in 0..ty.bits() {
            for len in 1..=ty.bits() - pos {
                let field = (pos as usize)..(pos + len) as usize;
                for (a, b) in edges().into_iter().zip(edges().into_iter().rev()) {
                    let mut bits = bit_list(a.into(), ty);
                    let extracted = from_bits(&bits[field.clone()]) as u64;
                    assert_eq!(eval_extract(ty, a, (pos, len)), extracted, "{ty} {a:#x} {pos} {len}");
                    bits[field.clone()].copy_from_slice(&bit_list(b.into(), Type::I64)[..len as usize]);
                    let deposited = from_bits(&bits) as u64;
                    assert_eq!(eval_deposit(ty, a, b, (pos, len)), deposited, "{ty} {a:#x} {b:#x} {pos} {len}");
                }
            }
        }
    }
}

/// Runs `body` after a marker on a guest with zeroed env and memory.
fn run(body: &str) -> (Outcome, ToyGuest) {
    let head = "block pc=0x1000 fallthrough=0x1008 insns=2 bytes=8\ninsn 0x1000, len=4\n";
    let block = parse(&format!("{head}{body}")).unwrap();
    let mut guest = ToyGuest { pc_base: 0, ..ToyGuest::new(0) };
    guest.env.fill(0);
    guest.mem.fill(0);
    (Interp::default().run(&block, &mut guest), guest)
}

#[test]
fn operands_of_mixed_width() {
    let (outcome, mut guest) = run("
        v1 = const.i64 0x1122334455667788
        v2 = const.i64 0x100
        v3 = select.i32 v2, v2, v1
        stenv.i64 [0x0], v3
        v5 = lea.i16 v1, v2, shift=4, disp=0xffff
        stenv.i64 [0x8], v5
        stenv.i16 [0x12], v1
        v8 = zext.i64 v1, from=i8
        stenv.i32 [0x14], v8
        exit 0x7");
    assert_eq!(outcome, Outcome { exit: Exit::Main(7), insns: 1 });
    let word = |guest: &mut ToyGuest, at: usize| u64::from_ne_bytes(guest.env()[at..at + 8].try_into().unwrap());
    // A condition is 8 bits wide: 0x100 is false.
    assert_eq!(word(&mut guest, 0), 0x5566_7788);
    assert_eq!(word(&mut guest, 8), 0x8787);
    assert_eq!(guest.env[0x10..0x14], [[0; 2], 0x7788u16.to_ne_bytes()].concat());
    assert_eq!(guest.env[0x14..0x18], 0x88u32.to_ne_bytes());
}

#[test]
fn atomic_operands_are_truncated() {
    let (_, guest) = run("
        v1 = const.i64 0x40
        v2 = const.i64 0x1122334400000000
        v3 = const.i64 0x1122334455667788
        v4 = cas.i32 v1, v2, v3
        v5 = rmw.i8 v1, v3, kind=xchg
        exit 0x0");
    use crate::op::RmwKind::Xchg;
    let expected = [Event::Cas(0x40, Type::I32, 0, 0x5566_7788), Event::Rmw(Xchg, 0x40, Type::I8, 0x88)];
    assert_eq!(guest.log, expected);
    assert_eq!(guest.mem[0x40..0x44], [0x88, 0x77, 0x66, 0x55]);
}

#[test]
fn displacements_wrap_in_64_bits() {
    let (_, guest) = run("
        v1 = const.i32 0x4
        v2 = load.i8 v1, disp=-0x5
        exit 0x0");
    assert!(matches!(guest.log[..], [Event::Load(u64::MAX, Type::I8, _)]));
}

#[test]
fn exits() {
    let exit = |body: &str| run(body).0;
    let jump = |slot, pc| Outcome { exit: Exit::Jump { slot, pc }, insns: 1 };
    assert_eq!(exit("jump 0x2000, slot=1"), jump(1, 0x2000));
    assert_eq!(exit("v1 = const.i8 0x2\nbranch v1, 0x2000"), jump(0, 0x2000));
    assert_eq!(exit("v1 = const.i64 0x100\nbranch v1, 0x2000"), jump(1, 0x1008));
    assert_eq!(
        exit("v1 = const.i64 0xfff0\ninsn 0x1004, len=4\njump_ind v1"),
        Outcome { exit: Exit::Indirect { pc: 0xfff0 }, insns: 2 }
    );
    let fault = |pc, insns| Outcome { exit: Exit::Fault { pc }, insns };
    assert_eq!(exit("v1 = const.i64 0x200\ninsn 0x1004, len=4\nv3 = load.i8 v1\nexit 0x0"), fault(0x1004, 1));
    assert_eq!(exit("v1 = const.i8 0x1\ntrap_if v1, code=0x9\nexit 0x0"), fault(0x1000, 0));
    assert_eq!(exit("v1 = const.i64 0x0"), Outcome { exit: Exit::Malformed, insns: 0 });
    assert_eq!(exit("v1 = ldenv.i64 [0x40]\nexit 0x0"), Outcome { exit: Exit::Malformed, insns: 0 });
}

#[test]
fn guest_pcs_are_relative_to_a_base() {
    let body = "v1 = pc 0xffffffffffffff00\n stenv.i64 [0x0], v1\n";
    let head = "block pc=0x10 fallthrough=0x14 insns=1 bytes=4\ninsn 0x10, len=4\n";
    let run = |end: &str| {
        let block = parse(&format!("{head}{body}{end}")).unwrap();
        let mut guest = ToyGuest { pc_base: 0x7fff_0000, ..ToyGuest::new(0) };
        let exit = Interp::default().run(&block, &mut guest).exit;
        assert_eq!(guest.env[..8], 0x7ffe_ff00u64.to_le_bytes());
        exit
    };
    assert_eq!(run("jump 0xffffffffffffff10, slot=0"), Exit::Jump { slot: 0, pc: 0x7ffe_ff10 });
    assert_eq!(run("v3 = const.i8 0x0\n branch v3, 0x20"), Exit::Jump { slot: 1, pc: 0x7fff_0014 });
    assert_eq!(run("v3 = const.i8 0x1\n trap_if v3, code=0x7\n exit 0x0"), Exit::Fault { pc: 0x7fff_0010 });
    assert_eq!(run("jump_ind v1"), Exit::Indirect { pc: 0x7ffe_ff00 });
}

#[test]
fn changed_code_ends_the_instruction() {
    let (outcome, guest) = run("
        v1 = const.i64 0x0
        store.i64 v1, v1
        stenv.i.i8 [0x0], 0x1
        insn 0x1004, len=4
        stenv.i.i8 [0x0], 0x2
        exit 0x0");
    assert_eq!(outcome, Outcome { exit: Exit::CodeChanged { pc: 0x1004 }, insns: 1 });
    assert_eq!(guest.env[0], 1);
}

/// A guest whose every helper reports changed code.
struct Changer(ToyGuest);

impl Guest for Changer {
    fn env(&mut self) -> &mut [u8] {
        self.0.env()
    }
    fn pc_base(&self) -> u64 {
        0
    }

    fn load(&mut self, addr: u64, ty: Type, flags: crate::MemFlags) -> Result<[u64; 2], crate::Stop> {
        self.0.load(addr, ty, flags)
    }
    fn store(&mut self, addr: u64, ty: Type, v: [u64; 2], flags: crate::MemFlags) -> Result<(), crate::Stop> {
        self.0.store(addr, ty, v, flags)
    }
    fn rmw(&mut self, kind: crate::op::RmwKind, addr: u64, ty: Type, v: u64) -> Result<(u64, bool), crate::Stop> {
        self.0.rmw(kind, addr, ty, v)
    }
    fn cas(&mut self, addr: u64, ty: Type, expected: u64, new: u64) -> Result<(u64, bool), crate::Stop> {
        self.0.cas(addr, ty, expected, new)
    }
    fn call(&mut self, _: u16, _: [u64; 3], _: u32) -> Result<u64, crate::Stop> {
        Err(crate::Stop::CodeChanged)
    }
    fn float(&mut self, info: crate::VecInfo, operands: [u128; 3]) -> u128 {
        self.0.float(info, operands)
    }
    fn trap(&mut self, code: u64) {
        self.0.trap(code);
    }
}

#[test]
fn the_result_of_a_call_that_changed_code_is_0() {
    let parse = |text: &str| parse(text).unwrap();
    let head = "block pc=0x0 fallthrough=0x4 insns=1 bytes=4\ninsn 0x0, len=4\n";
    let fill = parse(&format!("{head}v1 = const.i64 0x55\nexit 0x0"));
    let call = parse(&format!("{head}v1 = call.i64 -, -, -, helper=8, effects=memory\nstenv.i64 [0x0], v1\nexit 0x0"));
    let mut guest = Changer(ToyGuest::new(1));
    let mut interp = Interp::default();
    interp.run(&fill, &mut guest);
    interp.run(&call, &mut guest);
    assert_eq!(guest.0.env[..8], [0; 8]);
}

#[test]
fn a_block_without_terminator_or_too_long_is_malformed() {
    let inst = crate::Inst { op: Op::Insn, ty: Type::I64, a: NONE, b: NONE, c: 1, imm: 0 };
    for len in [0, crate::MAX_INSTS, crate::MAX_INSTS + 1] {
        let block = Block { insts: vec![inst; len], ..Block::default() };
        let outcome = Interp::default().run(&block, &mut ToyGuest::new(0));
        assert_eq!(outcome.exit, Exit::Malformed);
    }
}
