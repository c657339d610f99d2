//! Protected mode: flat 32-bit code that builds the page tables and turns long mode on.

use iced_x86::code_asm::*;

use super::layout::*;
use super::{Asm, console};

/// Bits of a page table entry (SDM vol. 3A, table 4-19). NX is bit 63: bit 31 of the upper half.
const PRESENT: i32 = 1 << 0;
const WRITABLE: i32 = 1 << 1;
const USER_ACCESS: i32 = 1 << 2;
const LARGE: i32 = 1 << 7;
const NX_HIGH: u32 = 1 << 31;

/// The code, for address [`PROTECTED`].
pub(super) fn assemble() -> Asm<Vec<u8>> {
    let mut a = CodeAssembler::new(32)?;
    let (mut say, mut failed) = (a.create_label(), a.create_label());
    a.mov(eax, u32::from(DATA))?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.mov(ss, eax)?;
    a.mov(esp, KERNEL_STACK)?;
    check(&mut a, failed)?;
    console::say(&mut a, say, &console::line("protected mode", "32-bit code in flat segments, memory above 1 MiB"))?;
    page_tables(&mut a)?;
    low_pages(&mut a)?;
    enter_long_mode(&mut a)?;
    a.set_label(&mut failed)?;
    console::say(&mut a, say, "  protected mode failed\r\n")?;
    console::power_off(&mut a)?;
    console::early_say(&mut a, &mut say)?;
    a.assemble(PROTECTED as u64)
}

/// What real mode could not do: a limit and an operand size beyond 64 KiB without prefixes.
fn check(a: &mut CodeAssembler, failed: CodeLabel) -> Asm {
    a.mov(dword_ptr(BUFFER), 0x600d_f00du32)?;
    a.push(dword_ptr(BUFFER))?;
    a.pop(ebx)?;
    a.cmp(ebx, 0x600d_f00du32)?;
    a.jne(failed)?;
    a.cmp(esp, KERNEL_STACK)?;
    a.jne(failed)
}

/// The four levels down to the last: entries that allow everything, as the last level decides.
fn page_tables(a: &mut CodeAssembler) -> Asm {
    const TABLE: i32 = PRESENT | WRITABLE | USER_ACCESS;
    a.mov(edi, PML4)?;
    a.xor(eax, eax)?;
    a.mov(ecx, (TABLES_END - PML4) / 4)?;
    a.rep().stosd()?;
    a.mov(dword_ptr(PML4), PDPT | TABLE)?;
    a.mov(dword_ptr(PDPT), PD | TABLE)?;
    a.mov(dword_ptr(PD), PT_LOW | TABLE)?;
    // The buffer is one large page of data.
    a.mov(dword_ptr(PD + 8), BUFFER | PRESENT | WRITABLE | LARGE)?;
    a.mov(dword_ptr(PD + 12), NX_HIGH)?;
    // The window has a table, without pages.
    a.mov(dword_ptr(PD + 16), PT_WINDOW | TABLE)
}

/// The first 2 MiB in 4 KiB pages: data for the kernel, but for the code, and nothing at address 0.
fn low_pages(a: &mut CodeAssembler) -> Asm {
    let entry = |address: i32| PT_LOW + address / PAGE * 8;
    let mut again = a.create_label();
    a.mov(edi, entry(PAGE))?;
    a.mov(eax, PAGE | PRESENT | WRITABLE)?;
    a.set_label(&mut again)?;
    a.mov(dword_ptr(edi), eax)?;
    a.mov(dword_ptr(edi + 4), NX_HIGH)?;
    a.add(eax, PAGE)?;
    a.add(edi, 8)?;
    a.cmp(edi, entry(BUFFER))?;
    a.jne(again)?;
    for page in (PROTECTED..USER).step_by(PAGE as usize) {
        a.mov(dword_ptr(entry(page) + 4), 0)?;
    }
    a.mov(dword_ptr(entry(USER)), USER | PRESENT | USER_ACCESS)?;
    a.mov(dword_ptr(entry(USER) + 4), 0)
}

/// SDM vol. 3A, 9.8.5: PAE, CR3, EFER.LME, CR0.PG, and a far jump to 64-bit code.
fn enter_long_mode(a: &mut CodeAssembler) -> Asm {
    const CR4_PAE: u32 = 1 << 5;
    const EFER: u32 = 0xc000_0080;
    const EFER_SCE: u32 = 1 << 0;
    const EFER_LME: u32 = 1 << 8;
    const EFER_NXE: u32 = 1 << 11;
    const CR0_WP: u32 = 1 << 16;
    const CR0_PG: u32 = 1 << 31;
    a.mov(eax, cr4)?;
    a.or(eax, CR4_PAE)?;
    a.mov(cr4, eax)?;
    a.mov(eax, PML4)?;
    a.mov(cr3, eax)?;
    a.mov(ecx, EFER)?;
    a.rdmsr()?;
    a.or(eax, EFER_LME | EFER_NXE | EFER_SCE)?;
    a.wrmsr()?;
    a.mov(eax, cr0)?;
    a.or(eax, CR0_PG | CR0_WP)?;
    a.mov(cr0, eax)?;
    a.jmp_far(CODE64, KERNEL as u32)
}
