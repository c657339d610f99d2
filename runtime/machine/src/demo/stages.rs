//! What the kernel tries before it gets to work, one function a line on the console.

use iced_x86::code_asm::*;

use super::kernel::Labels;
use super::layout::*;
use super::user::{RESULT, STEPS, User};
use super::{Asm, console, traps};

/// The 8254's input clock divided by this is 1 kHz (1,193,182 Hz / 1193).
const DIVISOR: u16 = 1193;
/// Ticks that each way of waiting takes.
const TICKS: i32 = 20;
/// Turns after which a loop that waits for ticks gives up.
const PATIENCE: i32 = i32::MAX;

/// The ACPI PM timer: its port, frequency in Hz and the bits that every one has (ACPI 6.5, 4.8.3.3).
const PM_TIMER: u32 = 0x608;
const PM_TIMER_HZ: u32 = 3_579_545;
const PM_TIMER_MASK: u32 = 0xff_ffff;

/// Pages of the window that the kernel touches.
const PAGES: i32 = 64;

/// Times that each piece of code is rewritten.
const REWRITES: i32 = 1000;
/// The sum of the immediates, of which each was in the code once.
const REWRITE_SUM: i32 = REWRITES * (REWRITES + 1) / 2;
/// Opcode of `add eax, imm32`; the immediate is the 4 bytes behind it.
const ADD_EAX: u8 = 0x05;

/// Routines that are more than a line's code.
pub(super) fn routines(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    a.set_label(&mut l.rewritten)?;
    a.db(&[ADD_EAX, 0, 0, 0, 0])?;
    a.ret()
}

/// Arithmetic that needs 64 bits and the registers that only 64-bit code has.
pub(super) fn long_mode(a: &mut CodeAssembler, l: &Labels) -> Asm {
    /// The 64-bit golden ratio constant, and its square modulo 2^64.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    const SQUARE: u64 = FACTOR.wrapping_mul(FACTOR);
    console::begin(a, l, "long mode", "64-bit code, 4-level paging, 4 KiB and 2 MiB pages")?;
    a.mov(r15, FACTOR)?;
    a.imul_2(r15, r15)?;
    a.mov(rax, SQUARE)?;
    a.cmp(r15, rax)?;
    a.call(l.verdict)
}

/// The processor's name, and that it admits to having long mode.
pub(super) fn processor(a: &mut CodeAssembler, l: &Labels) -> Asm {
    const NAME_LEAF: u32 = 0x8000_0002;
    const EXTENDED_FEATURES: u32 = 0x8000_0001;
    const LONG_MODE: u32 = 29;
    let (mut leaf, mut print, mut character, mut done) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    console::begin(a, l, "processor", "CPUID: ")?;
    a.mov(r12d, NAME_LEAF)?;
    a.mov(edi, BRAND)?;
    a.set_label(&mut leaf)?;
    a.mov(eax, r12d)?;
    a.cpuid()?;
    for (register, offset) in [(eax, 0), (ebx, 4), (ecx, 8), (edx, 12)] {
        a.mov(dword_ptr(rdi + offset), register)?;
    }
    a.add(edi, 16)?;
    a.inc(r12d)?;
    a.cmp(r12d, NAME_LEAF + 3)?;
    a.jne(leaf)?;
    a.mov(esi, BRAND)?;
    // Some names are padded in front.
    a.set_label(&mut print)?;
    a.lodsb()?;
    a.cmp(al, u32::from(b' '))?;
    a.je(print)?;
    a.set_label(&mut character)?;
    a.test(al, al)?;
    a.je(done)?;
    a.call(l.put)?;
    a.lodsb()?;
    a.jmp(character)?;
    a.set_label(&mut done)?;
    a.mov(eax, EXTENDED_FEATURES)?;
    a.cpuid()?;
    a.not(edx)?;
    a.test(edx, 1 << LONG_MODE)?;
    a.call(l.verdict)
}

/// Timer interrupts taken in a loop that looks at their count, while halted, and in a loop that looks at nothing.
pub(super) fn clock(a: &mut CodeAssembler, l: &Labels) -> Asm {
    traps::start_timer(a, DIVISOR)?;
    a.sti()?;
    busy(a, l)?;
    halted(a, l)?;
    spinning(a, l)
}

fn busy(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let (mut again, mut done) = (a.create_label(), a.create_label());
    console::begin(a, l, "timer, busy", "20 interrupts at 1 kHz in a loop of ")?;
    a.mov(rdx, qword_ptr(Var::Ticks.at()))?;
    a.add(rdx, TICKS)?;
    a.xor(ebx, ebx)?;
    a.set_label(&mut again)?;
    a.inc(rbx)?;
    a.cmp(qword_ptr(Var::Ticks.at()), rdx)?;
    a.jae(done)?;
    a.cmp(rbx, PATIENCE)?;
    a.jb(again)?;
    a.set_label(&mut done)?;
    a.mov(rax, rbx)?;
    a.call(l.decimal)?;
    console::say(a, l.say, " turns")?;
    // CF, which says that patience was left, as ZF.
    a.cmp(rbx, PATIENCE)?;
    a.sbb(eax, eax)?;
    a.cmp(eax, -1)?;
    a.call(l.verdict)
}

/// Measures the interrupts' pace by a clock that counts by itself.
fn halted(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let mut again = a.create_label();
    console::begin(a, l, "timer, halted", "20 interrupts in ")?;
    a.mov(edx, PM_TIMER)?;
    a.in_(eax, dx)?;
    a.mov(r12d, eax)?;
    a.mov(rbx, qword_ptr(Var::Ticks.at()))?;
    a.add(rbx, TICKS)?;
    a.xor(r13d, r13d)?;
    a.set_label(&mut again)?;
    a.hlt()?;
    a.inc(r13d)?;
    a.cmp(qword_ptr(Var::Ticks.at()), rbx)?;
    a.jb(again)?;
    a.in_(eax, dx)?;
    a.sub(eax, r12d)?;
    a.and(eax, PM_TIMER_MASK)?;
    a.imul_3(rax, rax, 1_000_000)?;
    a.xor(edx, edx)?;
    a.mov(ecx, PM_TIMER_HZ)?;
    a.div(rcx)?;
    a.mov(r12, rax)?;
    a.call(l.decimal)?;
    console::say(a, l.say, " us by the PM timer, ")?;
    a.mov(rax, r13)?;
    a.call(l.decimal)?;
    console::say(a, l.say, " halts")?;
    // At least half of 19 whole periods, since a late first tick shortens the rest. SBB turns CF clear into ZF.
    a.cmp(r12, 19 * 500)?;
    a.sbb(eax, eax)?;
    a.call(l.verdict)
}

/// A jump to itself, which only the interrupt's handler can leave.
fn spinning(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let (mut spin, mut landing) = (a.create_label(), a.create_label());
    console::begin(a, l, "timer, spinning", "the 20th interrupt returns out of \"jmp $\"")?;
    a.mov(rbx, qword_ptr(Var::Ticks.at()))?;
    a.add(rbx, TICKS)?;
    a.mov(qword_ptr(Var::EscapeAt.at()), rbx)?;
    a.lea(rax, ptr(landing))?;
    a.mov(qword_ptr(Var::Escape.at()), rax)?;
    a.set_label(&mut spin)?;
    a.jmp(spin)?;
    a.set_label(&mut landing)?;
    a.mov(rax, qword_ptr(Var::Ticks.at()))?;
    a.cmp(rax, rbx)?;
    a.sbb(eax, eax)?;
    a.call(l.verdict)
}

/// Pages that appear when touched, the bits that show it, and one that is taken away again.
pub(super) fn demand_paging(a: &mut CodeAssembler, l: &Labels) -> Asm {
    /// A and D in a page table entry.
    const ACCESSED_DIRTY: i32 = 0x60;
    let (mut touch, mut read, mut clean, mut done) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    console::begin(a, l, "demand paging", "")?;
    a.mov(edi, WINDOW)?;
    a.mov(ecx, 1)?;
    a.set_label(&mut touch)?;
    a.mov(qword_ptr(rdi), rcx)?;
    a.add(rdi, PAGE)?;
    a.inc(ecx)?;
    a.cmp(ecx, PAGES)?;
    a.jbe(touch)?;
    // EBX: the sum of what is in the pages; R12D: pages whose entry says so.
    a.xor(ebx, ebx)?;
    a.xor(r12d, r12d)?;
    a.xor(ecx, ecx)?;
    a.mov(edi, WINDOW)?;
    a.set_label(&mut read)?;
    a.add(rbx, qword_ptr(rdi))?;
    a.mov(eax, dword_ptr(rcx * 8 + PT_WINDOW))?;
    a.and(eax, ACCESSED_DIRTY)?;
    a.cmp(eax, ACCESSED_DIRTY)?;
    a.jne(clean)?;
    a.inc(r12d)?;
    a.set_label(&mut clean)?;
    a.add(rdi, PAGE)?;
    a.inc(ecx)?;
    a.cmp(ecx, PAGES)?;
    a.jb(read)?;
    // The first page's frame is taken away; what is read there next comes from a new one.
    a.mov(qword_ptr(PT_WINDOW), 0)?;
    a.invlpg(ptr(WINDOW))?;
    a.add(rbx, qword_ptr(WINDOW))?;
    console::number(a, l, qword_ptr(Var::PageFaults.at()), " page faults resolved, A and D set, INVLPG obeyed")?;
    a.cmp(rbx, PAGES * (PAGES + 1) / 2)?;
    a.jne(done)?;
    a.cmp(r12d, PAGES)?;
    a.jne(done)?;
    a.cmp(qword_ptr(Var::PageFaults.at()), PAGES + 1)?;
    a.set_label(&mut done)?;
    a.call(l.verdict)
}

/// Emits: let the next protection violation continue at `landing`.
fn expect_violation(a: &mut CodeAssembler, landing: CodeLabel) -> Asm {
    a.mov(qword_ptr(Var::ProtectionError.at()), -1)?;
    a.lea(rax, ptr(landing))?;
    a.mov(qword_ptr(Var::Fixup.at()), rax)
}

/// A write to a page that is read-only for the kernel too, and a jump to a page without permission to execute.
pub(super) fn protection(a: &mut CodeAssembler, l: &Labels) -> Asm {
    /// Error codes (SDM vol. 3A, figure 4-12): a write, a fetch, both to a present page.
    const WRITE: i32 = 3;
    const FETCH: i32 = 0x11;
    let (mut after_write, mut after_fetch, mut done) = (a.create_label(), a.create_label(), a.create_label());
    console::begin(a, l, "protection", "read-only and no-execute hold for the kernel too")?;
    expect_violation(a, after_write)?;
    a.mov(byte_ptr(USER), 0xcc)?;
    a.set_label(&mut after_write)?;
    a.mov(rbx, qword_ptr(Var::ProtectionError.at()))?;
    expect_violation(a, after_fetch)?;
    a.mov(eax, WINDOW + PAGE)?;
    a.jmp(rax)?;
    a.set_label(&mut after_fetch)?;
    a.cmp(rbx, WRITE)?;
    a.jne(done)?;
    a.cmp(qword_ptr(Var::ProtectionError.at()), FETCH)?;
    a.set_label(&mut done)?;
    a.call(l.verdict)
}

/// UD2, after which all goes on; its handler ran on a stack of its own.
pub(super) fn invalid_opcode(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let mut done = a.create_label();
    console::begin(a, l, "invalid opcode", "UD2 survived, handled on the stack of IST1")?;
    a.mov(r14, rsp)?;
    a.ud2()?;
    a.cmp(qword_ptr(Var::InvalidOpcodes.at()), 1)?;
    a.jne(done)?;
    a.cmp(rsp, r14)?;
    a.jne(done)?;
    // The frame's 5 words and RAX.
    a.cmp(qword_ptr(Var::InvalidOpcodeRsp.at()), IST1_STACK - 6 * 8)?;
    a.set_label(&mut done)?;
    a.call(l.verdict)
}

/// Runs the ring-3 program and checks what it did.
pub(super) fn ring_3(a: &mut CodeAssembler, l: &mut Labels, user: &User) -> Asm {
    const RFLAGS_IF: i32 = 0x202;
    a.mov(qword_ptr(Var::ProtectionError.at()), -1)?;
    a.mov(eax, user.recover as u32)?;
    a.mov(qword_ptr(Var::Fixup.at()), rax)?;
    a.mov(qword_ptr(Var::KernelRsp.at()), rsp)?;
    // What IRETQ takes: SS, RSP, RFLAGS, CS, RIP.
    a.push(i32::from(USER_DATA))?;
    a.push(USER_STACK)?;
    a.push(RFLAGS_IF)?;
    a.push(i32::from(USER_CODE))?;
    a.push(USER)?;
    a.iretq()?;
    a.set_label(&mut l.user_exit)?;
    a.sti()?;
    calls(a, l)?;
    isolation(a, l)
}

fn calls(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let mut done = a.create_label();
    console::begin(a, l, "system calls", "")?;
    console::number(a, l, qword_ptr(Var::FastCalls.at()), " by SYSCALL, ")?;
    console::number(a, l, qword_ptr(Var::GateCalls.at()), " by INT 0x80, results right")?;
    a.mov(rax, RESULT)?;
    a.cmp(qword_ptr(Var::UserResult.at()), rax)?;
    a.jne(done)?;
    // Each way: the steps and a text. By SYSCALL also the refused text and the exit.
    a.cmp(qword_ptr(Var::FastCalls.at()), STEPS + 3)?;
    a.jne(done)?;
    a.cmp(qword_ptr(Var::GateCalls.at()), STEPS + 1)?;
    a.set_label(&mut done)?;
    a.call(l.verdict)
}

fn isolation(a: &mut CodeAssembler, l: &Labels) -> Asm {
    /// A read from ring 3 of a present page.
    const USER_READ: i32 = 5;
    let mut done = a.create_label();
    console::begin(a, l, "ring 3", "HLT and kernel memory refused, its stack paged in")?;
    a.cmp(qword_ptr(Var::GeneralProtections.at()), 1)?;
    a.jne(done)?;
    a.cmp(qword_ptr(Var::ProtectionError.at()), USER_READ)?;
    a.jne(done)?;
    a.cmp(qword_ptr(Var::UserPageFaults.at()), 1)?;
    a.set_label(&mut done)?;
    a.call(l.verdict)
}

/// Code that changes before each run: an operand of a function, written from elsewhere, and the instruction that comes next.
pub(super) fn self_modifying(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let (mut outer, mut inner, mut site, mut done) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    console::begin(a, l, "self-modifying", "1000 rewrites of a function, 1000 of the next line")?;
    a.lea(rdi, ptr(l.rewritten))?;
    a.xor(eax, eax)?;
    a.mov(ecx, 1)?;
    a.set_label(&mut outer)?;
    a.mov(dword_ptr(rdi + 1), ecx)?;
    a.call(l.rewritten)?;
    a.inc(ecx)?;
    a.cmp(ecx, REWRITES)?;
    a.jbe(outer)?;
    a.mov(ebx, eax)?;
    a.lea(rdi, ptr(site))?;
    a.xor(eax, eax)?;
    a.mov(ecx, 1)?;
    a.set_label(&mut inner)?;
    a.mov(dword_ptr(rdi + 1), ecx)?;
    // SDM vol. 3A, 8.1.3: a jump between writing and running the code.
    a.jmp(site)?;
    a.set_label(&mut site)?;
    a.db(&[ADD_EAX, 0, 0, 0, 0])?;
    a.inc(ecx)?;
    a.cmp(ecx, REWRITES)?;
    a.jbe(inner)?;
    a.cmp(ebx, REWRITE_SUM)?;
    a.jne(done)?;
    a.cmp(eax, REWRITE_SUM)?;
    a.set_label(&mut done)?;
    a.call(l.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_the_texts_are_right() {
        assert_eq!((TICKS, REWRITES), (20, 1000));
        assert_eq!(1_193_182 / u32::from(DIVISOR), 1000);
        assert_eq!((1..=REWRITES).sum::<i32>(), REWRITE_SUM);
    }
}
