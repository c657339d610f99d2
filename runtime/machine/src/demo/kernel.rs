//! The 64-bit kernel: its routines, its way through the stages, and its start.

use iced_x86::code_asm::*;

use super::layout::*;
use super::user::User;
use super::{Asm, console, stages, traps, work};

/// The routines of the kernel, and other places that more than one function names.
pub(super) struct Labels {
    /// Console; see `console.rs` for what each takes and changes.
    pub(super) say: CodeLabel,
    pub(super) put: CodeLabel,
    pub(super) decimal: CodeLabel,
    pub(super) hex: CodeLabel,
    pub(super) elapsed: CodeLabel,
    pub(super) verdict: CodeLabel,
    /// Traps; see `traps.rs`.
    pub(super) unexpected: CodeLabel,
    pub(super) set_gate: CodeLabel,
    pub(super) timer: CodeLabel,
    pub(super) invalid_opcode: CodeLabel,
    pub(super) general_protection: CodeLabel,
    pub(super) page_fault: CodeLabel,
    pub(super) call_gate: CodeLabel,
    pub(super) fast_call: CodeLabel,
    pub(super) dispatch: CodeLabel,
    /// Where the kernel continues when the ring-3 program has exited.
    pub(super) user_exit: CodeLabel,
    /// A function whose immediate operand is rewritten.
    pub(super) rewritten: CodeLabel,
    /// The shades of the picture.
    pub(super) palette: CodeLabel,
}

impl Labels {
    fn new(a: &mut CodeAssembler) -> Self {
        let mut label = || a.create_label();
        Labels {
            say: label(),
            put: label(),
            decimal: label(),
            hex: label(),
            elapsed: label(),
            verdict: label(),
            unexpected: label(),
            set_gate: label(),
            timer: label(),
            invalid_opcode: label(),
            general_protection: label(),
            page_fault: label(),
            call_gate: label(),
            fast_call: label(),
            dispatch: label(),
            user_exit: label(),
            rewritten: label(),
            palette: label(),
        }
    }
}

/// The code, for address [`KERNEL`].
pub(super) fn assemble(user: &User) -> Asm<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    let mut labels = Labels::new(&mut a);
    let (a, l) = (&mut a, &mut labels);
    start(a)?;
    stages::long_mode(a, l)?;
    stages::processor(a, l)?;
    traps::install(a, l)?;
    stages::clock(a, l)?;
    stages::demand_paging(a, l)?;
    stages::protection(a, l)?;
    stages::invalid_opcode(a, l)?;
    stages::ring_3(a, l, user)?;
    stages::self_modifying(a, l)?;
    work::crc(a, l)?;
    work::sieve(a, l)?;
    work::picture(a, l)?;
    finish(a, l)?;
    console::routines(a, l)?;
    traps::handlers(a, l)?;
    stages::routines(a, l)?;
    a.set_label(&mut l.palette)?;
    a.db(work::PALETTE)?;
    a.assemble(KERNEL as u64)
}

/// Data segments, the stack, cleared variables, caches and SSE on.
fn start(a: &mut CodeAssembler) -> Asm {
    const CR0_MP: i32 = 1 << 1;
    const CR0_EM: i32 = 1 << 2;
    const CR0_NE: i32 = 1 << 5;
    /// NW and CD, which a reset sets.
    const CR0_CACHE_OFF: i32 = 3 << 29;
    const CR4_OSFXSR: i32 = 1 << 9;
    const CR4_OSXMMEXCPT: i32 = 1 << 10;
    a.mov(eax, u32::from(DATA))?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.mov(ss, eax)?;
    a.mov(esp, KERNEL_STACK)?;
    a.mov(edi, VARIABLES)?;
    a.xor(eax, eax)?;
    a.mov(ecx, PAGE / 8)?;
    a.rep().stosq()?;
    a.mov(qword_ptr(Var::NextFrame.at()), FRAMES)?;
    a.mov(rax, cr0)?;
    a.and(rax, !(CR0_EM | CR0_CACHE_OFF))?;
    a.or(rax, CR0_MP | CR0_NE)?;
    a.mov(cr0, rax)?;
    a.mov(rax, cr4)?;
    a.or(rax, CR4_OSFXSR | CR4_OSXMMEXCPT)?;
    a.mov(cr4, rax)
}

/// The sum, and off.
fn finish(a: &mut CodeAssembler, l: &Labels) -> Asm {
    let mut good = a.create_label();
    a.cli()?;
    console::say(a, l.say, "mimus demo: ")?;
    console::number(a, l, qword_ptr(Var::Checks.at()), " checks, ")?;
    console::number(a, l, qword_ptr(Var::Failures.at()), " failed")?;
    a.cmp(qword_ptr(Var::Failures.at()), 0)?;
    a.je(good)?;
    console::say(a, l.say, "; this machine is not an x86")?;
    a.set_label(&mut good)?;
    console::say(a, l.say, "; power off\r\n")?;
    console::power_off(a)
}
