//! Interrupts, exceptions and system calls: the tables that lead to the handlers, and the handlers.

use iced_x86::code_asm::*;

use super::kernel::Labels;
use super::layout::*;
use super::{Asm, console};

/// Vectors (SDM vol. 3A, table 6-1). The timer is the first line of the remapped interrupt controllers.
const DOUBLE_FAULT: u32 = 8;
const INVALID_OPCODE: u32 = 6;
const GENERAL_PROTECTION: u32 = 13;
const PAGE_FAULT: u32 = 14;
const EXCEPTIONS: u32 = 32;
const TIMER: u32 = 0x20;
const SLAVE: u32 = 0x28;
const CALL_GATE: u32 = 0x80;

/// Exceptions that push an error code.
const WITH_ERROR_CODE: [u32; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];

/// A gate's IST and type, bytes 4 and 5 (SDM vol. 3A, figure 6-8): a present interrupt gate, for ring 3, on IST1.
const GATE: u32 = 0x8e00;
const GATE_FOR_USER: u32 = GATE | 3 << 13;
const GATE_IST1: u32 = GATE | 1;

/// The system calls: the number in RAX, arguments in RDI and RSI, the result in RAX; all but RBX, RSP, RBP and R12 to
/// R15 may change.
pub(super) const CALL_WRITE: i32 = 1;
pub(super) const CALL_STEP: i32 = 2;
pub(super) const CALL_EXIT: i32 = 3;
/// What `CALL_STEP` does: x becomes this times x plus the increment (the generator of Numerical Recipes' `ranqd1`).
pub(super) const STEP_FACTOR: i32 = 1_664_525;
pub(super) const STEP_INCREMENT: i32 = 1_013_904_223;

/// Emits: fill the IDT and the TSS, load both, set up SYSCALL, and say so.
pub(super) fn install(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    idt(a, l)?;
    tss(a)?;
    fast_call_registers(a, l)?;
    console::begin(a, l, "descriptors", "IDT and TSS loaded, TR reads back, SYSCALL enabled")?;
    // LTR marks the descriptor busy in memory.
    const BUSY: i32 = 0x8b;
    let mut done = a.create_label();
    a.str(eax)?;
    a.cmp(eax, u32::from(TSS_SELECTOR))?;
    a.jne(done)?;
    a.cmp(byte_ptr(GDT + i32::from(TSS_SELECTOR) + 5), BUSY)?;
    a.set_label(&mut done)?;
    a.call(l.verdict)
}

/// Gates for all exceptions, the timer and the system call. Exceptions nobody expects get a stub that names them.
fn idt(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    let mut stubs = [(); EXCEPTIONS as usize].map(|()| a.create_label());
    let mut over = a.create_label();
    a.mov(edi, IDT)?;
    a.xor(eax, eax)?;
    a.mov(ecx, PAGE / 8)?;
    a.rep().stosq()?;
    a.jmp(over)?;
    for (vector, stub) in (0..).zip(&mut stubs) {
        a.set_label(stub)?;
        if !WITH_ERROR_CODE.contains(&vector) {
            a.push(0)?;
        }
        a.push(vector as i32)?;
        a.jmp(l.unexpected)?;
    }
    a.set_label(&mut over)?;
    let exceptions = (0..).zip(&stubs).map(|(vector, &stub)| match vector {
        DOUBLE_FAULT => (vector, GATE_IST1, stub),
        INVALID_OPCODE => (vector, GATE_IST1, l.invalid_opcode),
        GENERAL_PROTECTION => (vector, GATE, l.general_protection),
        PAGE_FAULT => (vector, GATE, l.page_fault),
        _ => (vector, GATE, stub),
    });
    for (vector, kind, handler) in exceptions.chain([(TIMER, GATE, l.timer), (CALL_GATE, GATE_FOR_USER, l.call_gate)]) {
        a.lea(rax, ptr(handler))?;
        a.mov(edx, kind)?;
        a.mov(edi, IDT + 16 * vector as i32)?;
        a.call(l.set_gate)?;
    }
    // LIDT's operand, on the stack: the limit, then the base.
    a.push(IDT)?;
    a.sub(rsp, 8)?;
    a.mov(word_ptr(rsp + 6), PAGE - 1)?;
    a.lidt(ptr(rsp + 6))?;
    a.add(rsp, 16)
}

/// Writes the gate at RDI: offset RAX, kind EDX. Changes RAX.
fn set_gate(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    a.set_label(&mut l.set_gate)?;
    a.mov(word_ptr(rdi), ax)?;
    a.mov(word_ptr(rdi + 2), u32::from(CODE64))?;
    a.mov(word_ptr(rdi + 4), dx)?;
    a.shr(rax, 16)?;
    a.mov(word_ptr(rdi + 6), ax)?;
    a.shr(rax, 16)?;
    a.mov(dword_ptr(rdi + 8), eax)?;
    a.mov(dword_ptr(rdi + 12), 0)?;
    a.ret()
}

/// The TSS (SDM vol. 3A, figure 7-11): the stacks to switch to.
fn tss(a: &mut CodeAssembler) -> Asm {
    const RSP0: i32 = 0x04;
    const IST1: i32 = 0x24;
    const IO_MAP: i32 = 0x66;
    a.mov(edi, TSS)?;
    a.xor(eax, eax)?;
    a.mov(ecx, 0x68 / 8)?;
    a.rep().stosq()?;
    a.mov(qword_ptr(TSS + RSP0), TRAP_STACK)?;
    a.mov(qword_ptr(TSS + IST1), IST1_STACK)?;
    // Beyond the limit: there is no I/O permission map.
    a.mov(word_ptr(TSS + IO_MAP), 0x68)?;
    a.mov(eax, u32::from(TSS_SELECTOR))?;
    a.ltr(ax)
}

/// STAR, LSTAR and FMASK (SDM vol. 3A, 5.8.8).
fn fast_call_registers(a: &mut CodeAssembler, l: &Labels) -> Asm {
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    const FMASK: u32 = 0xc000_0084;
    /// TF, IF and DF: the kernel starts without.
    const MASKED_FLAGS: u32 = 0x700;
    a.mov(ecx, STAR)?;
    a.xor(eax, eax)?;
    a.mov(edx, u32::from(SYSRET_BASE) << 16 | u32::from(CODE64))?;
    a.wrmsr()?;
    a.mov(ecx, LSTAR)?;
    a.lea(rax, ptr(l.fast_call))?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(ecx, FMASK)?;
    a.mov(eax, MASKED_FLAGS)?;
    a.wrmsr()
}

/// The handlers.
pub(super) fn handlers(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    set_gate(a, l)?;
    timer(a, l)?;
    invalid_opcode(a, l)?;
    general_protection(a, l)?;
    page_fault(a, l)?;
    call_gate(a, l)?;
    fast_call(a, l)?;
    dispatch(a, l)?;
    unexpected(a, l)
}

/// Counts, and redirects the interrupted code when someone asked for it.
fn timer(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    const PIC_COMMAND: u32 = 0x20;
    const END_OF_INTERRUPT: u32 = 0x20;
    let mut done = a.create_label();
    a.set_label(&mut l.timer)?;
    a.push(rax)?;
    a.inc(qword_ptr(Var::Ticks.at()))?;
    a.cmp(qword_ptr(Var::Escape.at()), 0)?;
    a.je(done)?;
    a.mov(rax, qword_ptr(Var::Ticks.at()))?;
    a.cmp(rax, qword_ptr(Var::EscapeAt.at()))?;
    a.jb(done)?;
    a.xor(eax, eax)?;
    a.xchg(qword_ptr(Var::Escape.at()), rax)?;
    a.mov(qword_ptr(rsp + 8), rax)?;
    a.set_label(&mut done)?;
    a.mov(eax, END_OF_INTERRUPT)?;
    a.out(PIC_COMMAND, al)?;
    a.pop(rax)?;
    a.iretq()
}

/// Skips UD2, on the stack of IST1.
fn invalid_opcode(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    const UD2: i32 = 0x0b0f;
    let mut other = a.create_label();
    a.set_label(&mut l.invalid_opcode)?;
    a.push(rax)?;
    a.mov(rax, qword_ptr(rsp + 8))?;
    a.cmp(word_ptr(rax), UD2)?;
    a.jne(other)?;
    a.add(qword_ptr(rsp + 8), 2)?;
    a.inc(qword_ptr(Var::InvalidOpcodes.at()))?;
    a.mov(qword_ptr(Var::InvalidOpcodeRsp.at()), rsp)?;
    a.pop(rax)?;
    a.iretq()?;
    a.set_label(&mut other)?;
    a.pop(rax)?;
    a.push(0)?;
    a.push(INVALID_OPCODE as i32)?;
    a.jmp(l.unexpected)
}

/// Skips HLT in ring 3.
fn general_protection(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    const HLT: i32 = 0xf4;
    let mut other = a.create_label();
    a.set_label(&mut l.general_protection)?;
    a.push(rax)?;
    a.cmp(word_ptr(rsp + 24), u32::from(USER_CODE))?;
    a.jne(other)?;
    a.mov(rax, qword_ptr(rsp + 16))?;
    a.cmp(byte_ptr(rax), HLT)?;
    a.jne(other)?;
    a.inc(qword_ptr(rsp + 16))?;
    a.inc(qword_ptr(Var::GeneralProtections.at()))?;
    a.pop(rax)?;
    a.add(rsp, 8)?;
    a.iretq()?;
    a.set_label(&mut other)?;
    a.pop(rax)?;
    a.push(GENERAL_PROTECTION as i32)?;
    a.jmp(l.unexpected)
}

/// Maps a zeroed page frame where one is missing in the window; a protection violation continues at [`Var::Fixup`].
fn page_fault(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    /// Bits of the error code (SDM vol. 3A, figure 4-12), and what is on the stack above it and the saved registers.
    const PROTECTION: i32 = 1 << 0;
    const FROM_USER: i32 = 1 << 2;
    const SAVED: [AsmRegister64; 4] = [rax, rcx, rdx, rdi];
    const ERROR_CODE: i32 = 8 * SAVED.len() as i32;
    const RIP: i32 = ERROR_CODE + 8;
    let (mut protection, mut kernel, mut done, mut other) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut l.page_fault)?;
    for register in SAVED {
        a.push(register)?;
    }
    a.test(byte_ptr(rsp + ERROR_CODE), PROTECTION)?;
    a.jne(protection)?;
    a.mov(rdx, cr2)?;
    a.sub(rdx, WINDOW)?;
    a.cmp(rdx, WINDOW_SIZE)?;
    a.jae(other)?;
    a.cmp(qword_ptr(Var::NextFrame.at()), FRAMES_END)?;
    a.jae(other)?;
    map_frame(a)?;
    a.inc(qword_ptr(Var::PageFaults.at()))?;
    a.test(byte_ptr(rsp + ERROR_CODE), FROM_USER)?;
    a.je(kernel)?;
    a.inc(qword_ptr(Var::UserPageFaults.at()))?;
    a.set_label(&mut kernel)?;
    a.jmp(done)?;
    a.set_label(&mut protection)?;
    a.xor(eax, eax)?;
    a.xchg(qword_ptr(Var::Fixup.at()), rax)?;
    a.test(rax, rax)?;
    a.je(other)?;
    a.xchg(qword_ptr(rsp + RIP), rax)?;
    a.mov(rax, qword_ptr(rsp + ERROR_CODE))?;
    a.mov(qword_ptr(Var::ProtectionError.at()), rax)?;
    a.set_label(&mut done)?;
    for register in SAVED.into_iter().rev() {
        a.pop(register)?;
    }
    a.add(rsp, 8)?;
    a.iretq()?;
    a.set_label(&mut other)?;
    for register in SAVED.into_iter().rev() {
        a.pop(register)?;
    }
    a.push(PAGE_FAULT as i32)?;
    a.jmp(l.unexpected)
}

/// Emits: clear the next page frame and enter it in the window's table for the offset RDX. Changes RAX, RCX, RDX, RDI.
fn map_frame(a: &mut CodeAssembler) -> Asm {
    /// Present, writable, for ring 3; NX is bit 63.
    const ENTRY: i32 = 7;
    const NX: u32 = 63;
    a.mov(rdi, qword_ptr(Var::NextFrame.at()))?;
    a.add(qword_ptr(Var::NextFrame.at()), PAGE)?;
    a.shr(edx, 12)?;
    a.lea(rcx, ptr(rdi + ENTRY))?;
    a.bts(rcx, NX)?;
    a.mov(qword_ptr(rdx * 8 + PT_WINDOW), rcx)?;
    a.xor(eax, eax)?;
    a.mov(ecx, PAGE / 8)?;
    a.cld()?;
    a.rep().stosq()
}

/// INT 0x80.
fn call_gate(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    a.set_label(&mut l.call_gate)?;
    a.inc(qword_ptr(Var::GateCalls.at()))?;
    a.call(l.dispatch)?;
    a.iretq()
}

/// SYSCALL, which leaves RSP alone and keeps RIP and RFLAGS in RCX and R11.
fn fast_call(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    a.set_label(&mut l.fast_call)?;
    a.mov(qword_ptr(Var::UserRsp.at()), rsp)?;
    a.mov(esp, TRAP_STACK)?;
    a.push(rcx)?;
    a.push(r11)?;
    a.inc(qword_ptr(Var::FastCalls.at()))?;
    a.call(l.dispatch)?;
    a.pop(r11)?;
    a.pop(rcx)?;
    a.mov(rsp, qword_ptr(Var::UserRsp.at()))?;
    a.sysretq()
}

/// Does the system call RAX. Interrupts are off.
fn dispatch(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    let (mut write, mut bad, mut exit) = (a.create_label(), a.create_label(), a.create_label());
    let (mut character, mut written) = (a.create_label(), a.create_label());
    a.set_label(&mut l.dispatch)?;
    a.cmp(eax, CALL_WRITE)?;
    a.je(write)?;
    a.cmp(eax, CALL_EXIT)?;
    a.je(exit)?;
    a.cmp(eax, CALL_STEP)?;
    a.jne(bad)?;
    a.imul_3(rax, rdi, STEP_FACTOR)?;
    a.add(rax, STEP_INCREMENT)?;
    a.ret()?;
    a.set_label(&mut bad)?;
    a.mov(rax, -1i64)?;
    a.ret()?;
    // Only what lies within the program's page: RDI to RDI + RSI.
    a.set_label(&mut write)?;
    a.mov(rcx, rdi)?;
    a.sub(rcx, USER)?;
    a.cmp(rcx, PAGE)?;
    a.ja(bad)?;
    a.neg(rcx)?;
    a.add(rcx, PAGE)?;
    a.cmp(rsi, rcx)?;
    a.ja(bad)?;
    a.mov(rcx, rsi)?;
    a.mov(rsi, rdi)?;
    a.set_label(&mut character)?;
    a.jrcxz(written)?;
    a.lodsb()?;
    a.call(l.put)?;
    a.dec(rcx)?;
    a.jmp(character)?;
    a.set_label(&mut written)?;
    a.xor(eax, eax)?;
    a.ret()?;
    a.set_label(&mut exit)?;
    a.mov(qword_ptr(Var::UserResult.at()), rdi)?;
    a.mov(rsp, qword_ptr(Var::KernelRsp.at()))?;
    a.jmp(l.user_exit)
}

/// Names the exception and powers off. The stack holds vector, error code and RIP.
fn unexpected(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    a.set_label(&mut l.unexpected)?;
    console::say(a, l.say, "\r\nmimus demo: unexpected exception ")?;
    console::number(a, l, qword_ptr(rsp), ", error code ")?;
    console::number(a, l, qword_ptr(rsp + 8), "\r\n  RIP 0x")?;
    a.mov(rdx, qword_ptr(rsp + 16))?;
    a.mov(esi, 16)?;
    a.call(l.hex)?;
    console::say(a, l.say, ", CR2 0x")?;
    a.mov(rdx, cr2)?;
    a.mov(esi, 16)?;
    a.call(l.hex)?;
    console::say(a, l.say, "\r\n")?;
    console::power_off(a)
}

/// Emits: move the interrupt controllers' vectors out of the exceptions' way, let only the timer through, and start
/// it with `divisor` (8259A data sheet, initialization; 8254 data sheet, control word).
pub(super) fn start_timer(a: &mut CodeAssembler, divisor: u16) -> Asm {
    let [low, high] = divisor.to_le_bytes();
    // ICW1 (edge, cascade, ICW4), ICW2 (vectors), ICW3 (the slave is on line 2), ICW4 (8086 mode), OCW1 (masks); then
    // counter 0 in mode 2, low byte first.
    let writes = [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, TIMER),
        (0xa1, SLAVE),
        (0x21, 1 << 2),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xfe),
        (0xa1, 0xff),
        (0x43, 0x34),
        (0x40, u32::from(low)),
        (0x40, u32::from(high)),
    ];
    for (port, value) in writes {
        a.mov(al, value)?;
        a.out(port, al)?;
    }
    Ok(())
}
