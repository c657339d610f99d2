//! Guest programs, to be run: RDI rounds, then HLT.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::guest::{CODE, DATA, Guest, MORE_DATA, Tier, UNMAPPED};
use crate::{Case, Prepared};

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A guest program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What it is.
    pub name: &'static str,
    /// Runs once: sets up registers and memory.
    setup: Emit,
    /// A round. It preserves RDI, and the registers that `setup` sets.
    round: Emit,
}

const fn program(name: &'static str, setup: Emit, round: Emit) -> Program {
    Program { name, setup, round }
}

/// Programs that are run on every tier; their item is a guest instruction.
pub const PROGRAMS: [Program; 13] = [
    program("crc32", pointers, crc32),
    program("sieve", pointers, sieve),
    program("chase", ring, chase),
    program("copy", pointers, copy),
    program("dec", pointers, dec),
    program("division", numbers, division),
    program("conditions", pointers, conditions),
    program("fibonacci", pointers, fibonacci),
    program("indirect calls", calls_table, indirect_calls),
    program("strings", pointers, strings),
    program("dot", pointers, dot),
    program("scalar floats", pointers, scalar),
    program("x87", x87_setup, x87),
];

/// What is special between blocks and at the TLB: program, items in a round, item.
const EVENTS: [(&str, Program, u64, &str); 6] = [
    ("dispatch", program("chained", pointers, chained), 3, "transition"),
    ("dispatch", program("jump cache", jump_target, jump_cache), 2, "indirect jump"),
    ("dispatch", program("call and return", pointers, call_return), 1, "call with its return"),
    ("tlb", program("hit", pages, hits), 4, "load"),
    ("tlb", program("refill", pages, refills), 4, "load that is refilled"),
    ("tlb", program("miss", unmapped, faults), 1, "page fault with its handler"),
];

impl Program {
    /// Its code.
    ///
    /// # Panics
    ///
    /// If the assembler refuses it, which no input can cause.
    pub fn assemble(&self) -> Vec<u8> {
        let emit = |a: &mut CodeAssembler| {
            let mut round = a.create_label();
            (self.setup)(a)?;
            a.set_label(&mut round)?;
            (self.round)(a)?;
            a.sub(rdi, 1)?;
            a.jnz(round)?;
            a.hlt()
        };
        let mut a = CodeAssembler::new(64).expect("a bitness that exists");
        emit(&mut a).expect("instructions that exist");
        a.assemble(CODE).expect("a program that can be encoded")
    }

    /// Guest instructions in a round.
    fn instructions(&self) -> u64 {
        let mut guest = Guest::new(&self.assemble(), Tier::Interpreter);
        let mut after = |rounds| {
            guest.run(rounds);
            guest.interpreted()
        };
        let first = after(1);
        after(2) - 2 * first
    }

    fn prepare(&self, tier: Tier, items: u64) -> Prepared {
        let mut guest = Guest::new(&self.assemble(), tier);
        Prepared { items, run: Box::new(move |rounds| guest.run(rounds)) }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let tiers = [
        ("interpreter", Tier::Interpreter, 30),
        ("quick blocks", Tier::Quick, 1000),
        ("blocks", Tier::Blocks, 1000),
        ("regions", Tier::Regions, 2000),
    ];
    let tiered = tiers.iter().flat_map(|&(group, tier, rounds)| {
        PROGRAMS.map(|program| Case {
            group,
            name: program.name,
            item: "guest instruction",
            rounds,
            prepare: Box::new(move || program.prepare(tier, program.instructions())),
        })
    });
    let events = EVENTS.map(|(group, program, items, item)| Case {
        group,
        name: program.name,
        item,
        rounds: 2000,
        prepare: Box::new(move || program.prepare(Tier::Blocks, items)),
    });
    tiered.chain(events).collect()
}

fn pointers(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbx, DATA)?;
    a.mov(r12, MORE_DATA)
}

/// Table-driven CRC over 64 bytes, the table being any numbers.
fn crc32(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut byte = a.create_label();
    a.mov(rsi, r12)?;
    a.mov(ecx, 64)?;
    a.set_label(&mut byte)?;
    a.movzx(eax, byte_ptr(rsi))?;
    a.xor(al, dl)?;
    a.shr(edx, 8)?;
    a.xor(edx, dword_ptr(rbx + rax * 4))?;
    a.inc(rsi)?;
    a.sub(ecx, 1)?;
    a.jnz(byte)
}

/// Multiples of 3, 5 and 7 below 512 are struck out.
fn sieve(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut next, mut strike) = (a.create_label(), a.create_label());
    a.mov(edx, 3)?;
    a.set_label(&mut next)?;
    a.mov(eax, edx)?;
    a.set_label(&mut strike)?;
    a.mov(byte_ptr(r12 + rax), 0)?;
    a.add(rax, rdx)?;
    a.cmp(rax, 512)?;
    a.jb(strike)?;
    a.add(edx, 2)?;
    a.cmp(edx, 7)?;
    a.jbe(next)
}

/// Pointers in a ring of 64.
fn ring(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut link = a.create_label();
    a.mov(rax, DATA)?;
    a.mov(ecx, 63)?;
    a.set_label(&mut link)?;
    a.lea(rdx, ptr(rax + 40))?;
    a.mov(qword_ptr(rax), rdx)?;
    a.mov(rax, rdx)?;
    a.sub(ecx, 1)?;
    a.jnz(link)?;
    a.mov(rdx, DATA)?;
    a.mov(qword_ptr(rax), rdx)
}

fn chase(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut link = a.create_label();
    a.mov(ecx, 64)?;
    a.set_label(&mut link)?;
    a.mov(rax, qword_ptr(rax))?;
    a.sub(ecx, 1)?;
    a.jnz(link)
}

/// 512 bytes, eight at a time.
fn copy(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut word = a.create_label();
    a.mov(ecx, 64)?;
    a.set_label(&mut word)?;
    a.mov(rax, qword_ptr(rbx + rcx * 8 - 8))?;
    a.mov(qword_ptr(r12 + rcx * 8 - 8), rax)?;
    a.sub(rcx, 1)?;
    a.jnz(word)
}

/// A loop whose DEC must keep CF as the round before left it.
fn dec(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(ecx, 64)?;
    a.set_label(&mut again)?;
    a.mov(eax, dword_ptr(rbx + rcx * 4))?;
    a.dec(ecx)?;
    a.jnz(again)
}

fn numbers(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(r8, 1_u64)?;
    a.mov(r13, 0x5851_f42d_4c95_7f2d_u64)
}

/// Divisions of 16 random numbers by others of all lengths: of 64 and 32 bits, signed and not, and of 16 and 8.
fn division(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut next = a.create_label();
    a.mov(ecx, 61)?;
    a.set_label(&mut next)?;
    a.imul_2(r8, r13)?;
    a.add(r8, 1)?;
    a.mov(r9, r8)?;
    a.shr(r9, cl)?;
    a.or(r9, 1)?;
    a.mov(rax, r8)?;
    a.xor(edx, edx)?;
    a.div(r9)?;
    a.xor(r10, rdx)?;
    a.cqo()?;
    a.idiv(r9)?;
    a.add(r10, rdx)?;
    a.mov(eax, r8d)?;
    a.xor(edx, edx)?;
    a.mov(r11d, r9d)?;
    a.shr(r11d, 1)?;
    a.or(r11d, 1)?;
    a.div(r11d)?;
    a.xor(r10, rdx)?;
    a.mov(eax, r8d)?;
    a.cdq()?;
    a.idiv(r11d)?;
    a.add(r10, rdx)?;
    a.mov(eax, r8d)?;
    a.xor(edx, edx)?;
    a.div(r9w)?;
    a.add(r10, rax)?;
    a.movzx(eax, al)?;
    a.div(r9b)?;
    a.xor(r10, rax)?;
    a.sub(ecx, 4)?;
    a.jnc(next)
}

/// A loop whose second condition each time is on the flags of the block before.
fn conditions(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut again, mut above, mut equal, mut next) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(ecx, 64)?;
    a.set_label(&mut again)?;
    a.mov(eax, ecx)?;
    a.and(eax, 7)?;
    a.cmp(eax, 5)?;
    a.jg(above)?;
    a.je(equal)?;
    a.add(edx, 1)?;
    a.jmp(next)?;
    a.set_label(&mut above)?;
    a.add(edx, 2)?;
    a.jmp(next)?;
    a.set_label(&mut equal)?;
    a.add(edx, 3)?;
    a.set_label(&mut next)?;
    a.sub(ecx, 1)?;
    a.jnz(again)
}

/// The eighth Fibonacci number by recursion, into EAX.
fn fibonacci(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut function, mut small, mut after) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(ecx, 8)?;
    a.call(function)?;
    a.jmp(after)?;
    a.set_label(&mut function)?;
    a.mov(eax, ecx)?;
    a.cmp(ecx, 2)?;
    a.jb(small)?;
    a.push(rcx)?;
    a.sub(ecx, 1)?;
    a.call(function)?;
    a.pop(rcx)?;
    a.push(rax)?;
    a.sub(ecx, 2)?;
    a.call(function)?;
    a.pop(rcx)?;
    a.add(eax, ecx)?;
    a.set_label(&mut small)?;
    a.ret()?;
    a.set_label(&mut after)?;
    a.nop()
}

/// Addresses of four functions at `DATA`.
fn calls_table(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut start = a.create_label();
    a.mov(rbx, DATA)?;
    a.xor(edx, edx)?;
    let mut functions = [a.create_label(), a.create_label(), a.create_label(), a.create_label()];
    for (i, function) in (0..).zip(&functions) {
        a.lea(rax, ptr(*function))?;
        a.mov(qword_ptr(rbx + 8 * i), rax)?;
    }
    a.jmp(start)?;
    for (i, function) in (1..).zip(&mut functions) {
        a.set_label(function)?;
        a.add(edx, i)?;
        a.ret()?;
    }
    a.set_label(&mut start)?;
    a.nop()
}

/// 16 virtual calls, to each of the functions in turn.
fn indirect_calls(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut next = a.create_label();
    a.mov(ecx, 16)?;
    a.set_label(&mut next)?;
    a.mov(eax, ecx)?;
    a.and(eax, 3)?;
    a.call(qword_ptr(rbx + rax * 8))?;
    a.sub(ecx, 1)?;
    a.jnz(next)
}

/// REP MOVSB of 256 bytes, REP STOSQ of as many, and 16 times LODSB and STOSB.
fn strings(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut byte = a.create_label();
    a.mov(r13, rdi)?;
    a.mov(rsi, rbx)?;
    a.mov(rdi, r12)?;
    a.mov(ecx, 256)?;
    a.rep().movsb()?;
    a.mov(ecx, 32)?;
    a.rep().stosq()?;
    a.mov(edx, 16)?;
    a.set_label(&mut byte)?;
    a.lodsb()?;
    a.stosb()?;
    a.sub(edx, 1)?;
    a.jnz(byte)?;
    a.mov(rdi, r13)
}

/// Of 64 doubles, two at a time.
fn dot(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut pair = a.create_label();
    a.mov(ecx, 512 - 16)?;
    a.xorps(xmm1, xmm1)?;
    a.set_label(&mut pair)?;
    a.movupd(xmm0, xmmword_ptr(rbx + rcx))?;
    a.mulpd(xmm0, xmmword_ptr(r12 + rcx))?;
    a.addpd(xmm1, xmm0)?;
    a.sub(rcx, 16)?;
    a.jns(pair)
}

/// Of 32 doubles: conversions, a division, a square root and a comparison.
fn scalar(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut item, mut less) = (a.create_label(), a.create_label());
    a.mov(ecx, 32)?;
    a.set_label(&mut item)?;
    a.movsd_2(xmm0, qword_ptr(rbx + rcx * 8))?;
    a.cvtsi2sd(xmm1, ecx)?;
    a.divsd(xmm1, xmm0)?;
    a.sqrtsd(xmm1, xmm1)?;
    a.ucomisd(xmm1, xmm0)?;
    a.jb(less)?;
    a.cvttsd2si(eax, xmm1)?;
    a.add(edx, eax)?;
    a.set_label(&mut less)?;
    a.sub(ecx, 1)?;
    a.jnz(item)
}

fn x87_setup(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.fninit()?;
    pointers(a)
}

/// Dot product of 32 doubles.
fn x87(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut item = a.create_label();
    a.mov(ecx, 32)?;
    a.fldz()?;
    a.set_label(&mut item)?;
    a.fld(qword_ptr(rbx + rcx * 8))?;
    a.fmul(qword_ptr(r12 + rcx * 8))?;
    a.faddp(st1, st0)?;
    a.sub(ecx, 1)?;
    a.jnz(item)?;
    a.fstp(qword_ptr(rbx))
}

fn chained(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut first, mut second) = (a.create_label(), a.create_label());
    a.jmp(first)?;
    a.nop()?;
    a.set_label(&mut first)?;
    a.jmp(second)?;
    a.nop()?;
    a.set_label(&mut second)?;
    a.add(eax, 1)
}

/// A piece of code at RDX that jumps to where RSI says.
fn jump_target(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut target, mut start) = (a.create_label(), a.create_label());
    a.lea(rdx, ptr(target))?;
    a.jmp(start)?;
    a.set_label(&mut target)?;
    a.jmp(rsi)?;
    a.set_label(&mut start)?;
    a.nop()
}

fn jump_cache(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut back = a.create_label();
    a.lea(rsi, ptr(back))?;
    a.jmp(rdx)?;
    a.set_label(&mut back)?;
    a.add(eax, 1)
}

fn call_return(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut function, mut after) = (a.create_label(), a.create_label());
    a.call(function)?;
    a.jmp(after)?;
    a.set_label(&mut function)?;
    a.ret()?;
    a.set_label(&mut after)?;
    a.add(eax, 1)
}

/// Four pages with a base register each; R8 and R9 lead to the sets of the first two once more.
fn pages(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbx, DATA)?;
    a.mov(rsi, DATA + 0x1000)?;
    a.mov(rbp, DATA + 0x2000)?;
    a.mov(r12, DATA + 0x3000)?;
    a.mov(r8, DATA + (4 << 20))?;
    a.mov(r9, DATA + (4 << 20) + 0x1000)
}

fn hits(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(rbx))?;
    a.mov(rcx, qword_ptr(rsi))?;
    a.mov(rdx, qword_ptr(rbp))?;
    a.mov(r10, qword_ptr(r12))
}

fn refills(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(rbx))?;
    a.mov(rcx, qword_ptr(r8))?;
    a.mov(rdx, qword_ptr(rsi))?;
    a.mov(r10, qword_ptr(r9))
}

fn unmapped(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rsi, UNMAPPED)
}

/// A load of three bytes' length, as the handler expects.
fn faults(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(rsi))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_do_the_same_on_every_tier() {
        let all = PROGRAMS.into_iter().chain(EVENTS.map(|(_, program, ..)| program));
        for program in all {
            const TIERS: [Tier; 4] = [Tier::Interpreter, Tier::Quick, Tier::Blocks, Tier::Regions];
            let [interpreter, quick, blocks, regions] = TIERS.map(|tier| {
                let mut guest = Guest::new(&program.assemble(), tier);
                guest.run(300);
                guest
            });
            assert_eq!(interpreter.registers(), quick.registers(), "{}", program.name);
            assert_eq!(interpreter.registers(), blocks.registers(), "{}", program.name);
            assert_eq!(quick.cache_stats().compiled, 0, "{}", program.name);
            assert_eq!(quick.cache_stats().quick > 0, cfg!(target_arch = "x86_64"), "{}", program.name);
            assert_eq!(interpreter.registers(), regions.registers(), "{}", program.name);
            assert!(blocks.cache_stats().compiled > 0 && blocks.cache_stats().regions == 0, "{}", program.name);
            assert!(regions.cache_stats().regions > 0, "{}", program.name);
        }
    }

    #[test]
    fn results_are_what_they_should_be() {
        let result = |name: &str, register: usize, rounds| {
            let program = PROGRAMS.into_iter().find(|program| program.name == name).unwrap();
            let mut guest = Guest::new(&program.assemble(), Tier::Regions);
            guest.run(rounds);
            guest.registers().0[register]
        };
        assert_eq!(result("fibonacci", 0, 7), 21);
        assert_eq!(result("indirect calls", 2, 7), 7 * 4 * (1 + 2 + 3 + 4));
        assert_eq!(result("chase", 0, 7), DATA + 63 * 40);
    }
}
