//! Real mode: the first line on the console, the A20 gate, an interrupt through the vector table, and out.

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, Code, Instruction};

use super::layout::{CODE32, GDT, GDT_POINTER, PROTECTED, REAL, REAL_STACK, TSS, TSS_SELECTOR};
use super::{Asm, console};

/// The software interrupt that the code calls, and the value that its handler returns.
const INTERRUPT: i32 = 0x60;
const ANSWER: u32 = 0x5a5a;

/// The code, for offset 0 of its segment, and the offset to enter it at.
pub(super) fn assemble() -> Asm<(Vec<u8>, u16)> {
    let mut a = CodeAssembler::new(16)?;
    let (mut start, mut say, mut failed) = (a.create_label(), a.create_label(), a.create_label());
    // The handler comes first, so that the vector's offset is 0.
    a.mov(bx, ANSWER)?;
    a.iret()?;
    a.set_label(&mut start)?;
    segments(&mut a)?;
    console::setup(&mut a)?;
    console::say(&mut a, say, "\r\nmimus demo: a kernel assembled a moment ago, started as after a reset\r\n")?;
    open_a20(&mut a, failed)?;
    interrupt(&mut a, failed)?;
    console::say(&mut a, say, &console::line("real mode", "16-bit code, A20 gate open, INT 0x60 answered"))?;
    enter_protected_mode(&mut a)?;
    a.set_label(&mut failed)?;
    console::say(&mut a, say, "  real mode failed\r\n")?;
    console::power_off(&mut a)?;
    console::early_say(&mut a, &mut say)?;
    let result = a.assemble_options(0, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let start = result.label_ip(&start)? as u16;
    Ok((result.inner.code_buffer, start))
}

/// Data and code share a segment, since the texts stand in the code; the stack is in segment 0.
fn segments(a: &mut CodeAssembler) -> Asm {
    a.cli()?;
    a.cld()?;
    a.mov(ax, cs)?;
    a.mov(ds, ax)?;
    a.xor(ax, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, REAL_STACK)
}

/// Opens the A20 gate by system control port A, and sees whether 1 MiB and address 0 are different memory.
fn open_a20(a: &mut CodeAssembler, failed: CodeLabel) -> Asm {
    /// Bit 1 opens the gate, bit 0 would reset the processor.
    const PORT_A: u32 = 0x92;
    /// Offsets of the same byte, or not: in segments 0 and 0xffff.
    const LOW: u32 = 0x500;
    const HIGH: u32 = LOW + 0x10;
    a.in_(al, PORT_A)?;
    a.or(al, 2)?;
    a.and(al, 0xfe)?;
    a.out(PORT_A, al)?;
    a.mov(ax, 0xffff)?;
    a.mov(es, ax)?;
    a.mov(word_ptr(LOW).ss(), 0x1111)?;
    a.mov(word_ptr(HIGH).es(), 0x2222)?;
    a.cmp(word_ptr(LOW).ss(), 0x1111)?;
    a.jne(failed)
}

/// Sets a vector of the interrupt vector table at address 0, and uses it.
fn interrupt(a: &mut CodeAssembler, failed: CodeLabel) -> Asm {
    a.xor(ax, ax)?;
    a.mov(es, ax)?;
    a.mov(word_ptr(4 * INTERRUPT).es(), 0)?;
    a.mov(word_ptr(4 * INTERRUPT + 2).es(), REAL >> 4)?;
    a.int(INTERRUPT)?;
    a.cmp(bx, ANSWER)?;
    a.jne(failed)
}

/// SDM vol. 3A, 9.9.1: GDT, CR0.PE, and a far jump at once.
fn enter_protected_mode(a: &mut CodeAssembler) -> Asm {
    const CR0_PE: u32 = 1 << 0;
    a.lgdt(ptr(GDT_POINTER - REAL))?;
    a.mov(eax, cr0)?;
    a.or(eax, CR0_PE)?;
    a.mov(cr0, eax)?;
    a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, CODE32, PROTECTED as u32)?)
}

/// LGDT's operand and the GDT, for address [`GDT_POINTER`].
pub(super) fn gdt() -> Vec<u8> {
    /// Descriptors that ignore base and limit or span 4 GiB: accessed, granularity, D or L.
    const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
    const CODE_64: u64 = 0x00af_9b00_0000_ffff;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const DPL_3: u64 = 3 << 45;
    /// Present, available 64-bit TSS of 0x68 bytes; its second half is the base's upper half.
    const TSS_64: u64 = 0x0000_8900_0000_0067;
    let tss = TSS_64 | (TSS as u64) << 16;
    let descriptors = [0, CODE_32, CODE_64, DATA, 0, DATA | DPL_3, CODE_64 | DPL_3, tss, 0];
    debug_assert_eq!(descriptors.len() * 8, usize::from(TSS_SELECTOR) + 16);
    let mut bytes = Vec::new();
    bytes.extend((descriptors.len() as u16 * 8 - 1).to_le_bytes());
    bytes.extend(GDT.to_le_bytes());
    bytes.resize((GDT - GDT_POINTER) as usize, 0);
    bytes.extend(descriptors.iter().flat_map(|descriptor| descriptor.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::layout::{CODE64, DATA, SYSRET_BASE, USER_CODE, USER_DATA};

    #[test]
    fn selectors_are_what_syscall_and_sysret_make_of_their_bases() {
        assert_eq!(DATA, CODE64 + 8);
        assert_eq!((USER_DATA, USER_CODE), (SYSRET_BASE + 8, SYSRET_BASE + 16));
    }

    #[test]
    fn descriptors_match_their_selectors() {
        let gdt = gdt();
        let access = |selector: u16| gdt[(GDT - GDT_POINTER) as usize + usize::from(selector & !7) + 5];
        let flags = |selector: u16| gdt[(GDT - GDT_POINTER) as usize + usize::from(selector & !7) + 6] >> 4;
        assert_eq!((access(CODE32), flags(CODE32)), (0x9b, 0xc));
        assert_eq!((access(CODE64), flags(CODE64)), (0x9b, 0xa));
        assert_eq!((access(DATA), access(USER_DATA)), (0x93, 0xf3));
        assert_eq!((access(USER_CODE), flags(USER_CODE)), (0xfb, 0xa));
        let tss = (GDT - GDT_POINTER) as usize + usize::from(TSS_SELECTOR);
        assert_eq!((access(TSS_SELECTOR), flags(TSS_SELECTOR)), (0x89, 0));
        assert_eq!(i32::from_le_bytes([gdt[tss + 2], gdt[tss + 3], gdt[tss + 4], gdt[tss + 7]]), TSS);
        assert_eq!(gdt[..6], [0x47, 0, 0x10, 0x0f, 1, 0]);
    }
}
