//! The ring-3 program.

use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::*;

use super::Asm;
use super::layout::{KERNEL, USER, USER_STACK};
use super::traps::{CALL_EXIT, CALL_STEP, CALL_WRITE};

/// System calls of each kind that the program chains.
pub(super) const STEPS: i32 = 2000;
/// Where the chain starts, and where it ends.
const SEED: u32 = 0x6d69_6d75;
pub(super) const RESULT: u64 = 11_391_384_463_681_916_949;

/// The assembled program.
pub(super) struct User {
    pub(super) bytes: Vec<u8>,
    /// Where it goes on after it has tried to read the kernel's memory.
    pub(super) recover: u64,
}

/// Assembles the program for address [`USER`]. It is entered with its stack's pages missing.
pub(super) fn assemble() -> Asm<User> {
    let mut a = CodeAssembler::new(64)?;
    let (mut fast, mut gate) = (a.create_label(), a.create_label());
    let (fast_text, gate_text) = ("    ring 3 says hello by SYSCALL,\r\n", "    and by INT 0x80\r\n");
    write(&mut a, fast, fast_text.len(), |a| a.syscall())?;
    write(&mut a, gate, gate_text.len(), |a| a.int(0x80))?;
    a.mov(ebx, SEED)?;
    steps(&mut a, |a| a.syscall())?;
    steps(&mut a, |a| a.int(0x80))?;
    refused_write(&mut a)?;
    // Privileged: the kernel skips it.
    a.hlt()?;
    let recover = forbidden_read(&mut a)?;
    a.mov(rdi, rbx)?;
    a.mov(eax, CALL_EXIT)?;
    a.syscall()?;
    a.set_label(&mut fast)?;
    a.db(fast_text.as_bytes())?;
    a.set_label(&mut gate)?;
    a.db(gate_text.as_bytes())?;
    let result = a.assemble_options(USER as u64, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    Ok(User { recover: result.label_ip(&recover)?, bytes: result.inner.code_buffer })
}

/// Prints a text by the system call instruction that `call` emits.
fn write(a: &mut CodeAssembler, text: CodeLabel, length: usize, call: impl FnOnce(&mut CodeAssembler) -> Asm) -> Asm {
    a.lea(rdi, ptr(text))?;
    a.mov(esi, length as u32)?;
    a.mov(eax, CALL_WRITE)?;
    call(a)
}

/// Lets the kernel step RBX [`STEPS`] times. The counter is on the stack.
fn steps(a: &mut CodeAssembler, call: impl FnOnce(&mut CodeAssembler) -> Asm) -> Asm {
    let mut again = a.create_label();
    a.push(STEPS)?;
    a.set_label(&mut again)?;
    a.mov(rdi, rbx)?;
    a.mov(eax, CALL_STEP)?;
    call(a)?;
    a.mov(rbx, rax)?;
    a.dec(qword_ptr(rsp))?;
    a.jne(again)?;
    a.pop(rax)
}

/// Asks the kernel to print the kernel; being refused with -1 leaves RBX as it is.
fn refused_write(a: &mut CodeAssembler) -> Asm {
    a.mov(edi, KERNEL)?;
    a.mov(esi, 16)?;
    a.mov(eax, CALL_WRITE)?;
    a.syscall()?;
    a.inc(rax)?;
    a.xor(rbx, rax)
}

/// Reads the kernel's memory. If that works, RBX changes; if it faults, the kernel continues behind.
fn forbidden_read(a: &mut CodeAssembler) -> Asm<CodeLabel> {
    let mut recover = a.create_label();
    a.mov(rax, qword_ptr(KERNEL))?;
    a.not(rbx)?;
    a.set_label(&mut recover)?;
    a.cmp(rsp, USER_STACK)?;
    a.setne(al)?;
    a.movzx(eax, al)?;
    a.xor(rbx, rax)?;
    Ok(recover)
}

#[cfg(test)]
mod tests {
    use super::super::traps::{STEP_FACTOR, STEP_INCREMENT};
    use super::*;

    #[test]
    fn result_is_right() {
        let step = |x: u64, _| x.wrapping_mul(STEP_FACTOR as u64).wrapping_add(STEP_INCREMENT as u64);
        assert_eq!((0..2 * STEPS).fold(u64::from(SEED), step), RESULT);
    }

    #[test]
    fn recovers_within_its_page() {
        let user = assemble().unwrap();
        let end = USER as u64 + user.bytes.len() as u64;
        assert!((USER as u64..end).contains(&user.recover));
    }
}
