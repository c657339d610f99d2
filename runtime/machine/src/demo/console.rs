//! The guest's console: COM1, polled, in all three code sizes, and the layout of its lines.

use iced_x86::code_asm::*;

use super::kernel::Labels;
use super::layout::Var;
use super::{Asm, POWER_OFF_PORT, POWER_OFF_VALUE};

/// COM1's data register, and its line status register with the bit for "transmitter empty" (16550D data sheet, 8.4).
const COM1: u32 = 0x3f8;
const COM1_STATUS: u32 = COM1 + 5;
const TRANSMITTER_EMPTY: u32 = 1 << 5;

/// Writes that set COM1 up: divisor 1 (115,200 baud), 8 data bits without parity, FIFOs on, DTR and RTS, no interrupts.
const SETUP: [(u32, u32); 7] =
    [(COM1 + 1, 0), (COM1 + 3, 0x80), (COM1, 1), (COM1 + 1, 0), (COM1 + 3, 3), (COM1 + 2, 7), (COM1 + 4, 3)];

/// The column of "ok".
const VERDICT_COLUMN: usize = 72;

/// The column that texts end before.
#[cfg(test)]
pub(super) const TEXT_END: usize = VERDICT_COLUMN - 1;

/// Emits: set up COM1.
pub(super) fn setup(a: &mut CodeAssembler) -> Asm {
    for (port, value) in SETUP {
        a.mov(dx, port)?;
        a.mov(al, value)?;
        a.out(dx, al)?;
    }
    Ok(())
}

/// Emits: print `text`, which must not be empty. It stands behind the call; the routine returns behind it. That works
/// in every code size without knowing an address.
pub(super) fn say(a: &mut CodeAssembler, routine: CodeLabel, text: &str) -> Asm {
    a.call(routine)?;
    a.db(text.as_bytes())?;
    a.db(&[0])
}

/// The start of a line about `name`.
fn heading(name: &str) -> String {
    format!("  {name:<18}")
}

/// A whole line about `name`, for code that cannot count columns.
pub(super) fn line(name: &str, text: &str) -> String {
    format!("{:<VERDICT_COLUMN$}ok\r\n", heading(name) + text)
}

/// Emits: begin the line about `name` with `text`.
pub(super) fn begin(a: &mut CodeAssembler, l: &Labels, name: &str, text: &str) -> Asm {
    say(a, l.say, &(heading(name) + text))
}

/// Emits: print `value` in decimal, then `text`.
pub(super) fn number(a: &mut CodeAssembler, l: &Labels, value: AsmMemoryOperand, text: &str) -> Asm {
    a.mov(rax, value)?;
    a.call(l.decimal)?;
    say(a, l.say, text)
}

/// Emits: switch the power off (ACPI 6.5, 4.8.3.2.1).
pub(super) fn power_off(a: &mut CodeAssembler) -> Asm {
    let mut forever = a.create_label();
    a.mov(dx, POWER_OFF_PORT)?;
    a.mov(ax, POWER_OFF_VALUE)?;
    a.out(dx, ax)?;
    // A machine without this port halts.
    a.cli()?;
    a.set_label(&mut forever)?;
    a.hlt()?;
    a.jmp(forever)
}

/// Emits: wait until COM1 takes a character. Changes DX and AL.
fn wait(a: &mut CodeAssembler) -> Asm {
    let mut again = a.create_label();
    a.mov(dx, COM1_STATUS)?;
    a.set_label(&mut again)?;
    a.in_(al, dx)?;
    a.test(al, TRANSMITTER_EMPTY)?;
    a.je(again)
}

/// The routine behind [`say`] for 16- and 32-bit code. Changes EAX, DX and ESI.
pub(super) fn early_say(a: &mut CodeAssembler, routine: &mut CodeLabel) -> Asm {
    let (mut again, mut done) = (a.create_label(), a.create_label());
    let wide = a.bitness() == 32;
    a.set_label(routine)?;
    if wide {
        a.pop(esi)?
    } else {
        a.pop(si)?
    }
    a.set_label(&mut again)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.je(done)?;
    a.mov(ah, al)?;
    wait(a)?;
    a.mov(al, ah)?;
    a.mov(dx, COM1)?;
    a.out(dx, al)?;
    a.jmp(again)?;
    a.set_label(&mut done)?;
    if wide { a.jmp(esi) } else { a.jmp(si) }
}

/// The 64-bit routines.
pub(super) fn routines(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    say_routine(a, l)?;
    put(a, l)?;
    decimal(a, l)?;
    hex(a, l)?;
    elapsed(a, l)?;
    verdict(a, l)
}

/// The routine behind [`say`] for 64-bit code. Keeps all registers.
fn say_routine(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    let (mut again, mut done) = (a.create_label(), a.create_label());
    a.set_label(&mut l.say)?;
    // The return address is the text's.
    a.xchg(qword_ptr(rsp), rsi)?;
    a.push(rax)?;
    a.set_label(&mut again)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.je(done)?;
    a.call(l.put)?;
    a.jmp(again)?;
    a.set_label(&mut done)?;
    a.pop(rax)?;
    a.xchg(qword_ptr(rsp), rsi)?;
    a.ret()
}

/// Prints AL and counts columns. Keeps all registers.
fn put(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    let mut counted = a.create_label();
    a.set_label(&mut l.put)?;
    a.push(rdx)?;
    a.push(rax)?;
    wait(a)?;
    a.mov(rax, qword_ptr(rsp))?;
    a.mov(dx, COM1)?;
    a.out(dx, al)?;
    a.inc(qword_ptr(Var::Column.at()))?;
    a.cmp(al, u32::from(b'\n'))?;
    a.jne(counted)?;
    a.mov(qword_ptr(Var::Column.at()), 0)?;
    a.set_label(&mut counted)?;
    a.pop(rax)?;
    a.pop(rdx)?;
    a.ret()
}

/// Prints RAX in decimal. Changes RAX, RCX, RDX and RSI.
fn decimal(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    let (mut split, mut emit) = (a.create_label(), a.create_label());
    a.set_label(&mut l.decimal)?;
    a.mov(ecx, 10)?;
    a.xor(esi, esi)?;
    // Digits come out last first: they wait on the stack.
    a.set_label(&mut split)?;
    a.xor(edx, edx)?;
    a.div(rcx)?;
    a.add(edx, u32::from(b'0'))?;
    a.push(rdx)?;
    a.inc(esi)?;
    a.test(rax, rax)?;
    a.jne(split)?;
    a.set_label(&mut emit)?;
    a.pop(rax)?;
    a.call(l.put)?;
    a.dec(esi)?;
    a.jne(emit)?;
    a.ret()
}

/// Prints the low ESI hexadecimal digits of RDX. Changes RAX, RCX and RSI.
fn hex(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    let (mut digit, mut print) = (a.create_label(), a.create_label());
    a.set_label(&mut l.hex)?;
    a.lea(ecx, ptr(rsi * 4 - 4))?;
    a.set_label(&mut digit)?;
    a.mov(rax, rdx)?;
    a.shr(rax, cl)?;
    a.and(eax, 15)?;
    a.add(eax, u32::from(b'0'))?;
    a.cmp(eax, u32::from(b'9'))?;
    a.jbe(print)?;
    a.add(eax, u32::from(b'a' - b'9' - 1))?;
    a.set_label(&mut print)?;
    a.call(l.put)?;
    a.sub(ecx, 4)?;
    a.dec(esi)?;
    a.jne(digit)?;
    a.ret()
}

/// Prints how long the current piece of work took: a tick is a millisecond. Changes RAX, RCX, RDX and RSI.
fn elapsed(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    a.set_label(&mut l.elapsed)?;
    say(a, l.say, ", ")?;
    a.mov(rax, qword_ptr(Var::Ticks.at()))?;
    a.sub(rax, qword_ptr(Var::Started.at()))?;
    a.call(l.decimal)?;
    say(a, l.say, " ms")?;
    a.ret()
}

/// Ends a line with "ok" if ZF is set and with "FAILED" if it is not, and counts. Changes RAX and RCX.
fn verdict(a: &mut CodeAssembler, l: &mut Labels) -> Asm {
    let (mut pad, mut padded, mut failed) = (a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut l.verdict)?;
    a.setne(cl)?;
    a.movzx(ecx, cl)?;
    a.add(qword_ptr(Var::Failures.at()), rcx)?;
    a.inc(qword_ptr(Var::Checks.at()))?;
    a.mov(eax, u32::from(b' '))?;
    a.set_label(&mut pad)?;
    a.cmp(qword_ptr(Var::Column.at()), VERDICT_COLUMN as i32)?;
    a.jae(padded)?;
    a.call(l.put)?;
    a.jmp(pad)?;
    a.set_label(&mut padded)?;
    a.test(ecx, ecx)?;
    a.jne(failed)?;
    say(a, l.say, "ok\r\n")?;
    a.ret()?;
    a.set_label(&mut failed)?;
    say(a, l.say, "FAILED\r\n")?;
    a.ret()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_a_terminal() {
        assert_eq!(line("real mode", "text").len(), VERDICT_COLUMN + 4);
        const { assert!(VERDICT_COLUMN + "FAILED".len() <= 78) };
    }
}
