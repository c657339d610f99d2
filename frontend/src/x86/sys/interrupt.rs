//! Delivery of interrupts and exceptions (SDM vol. 3A, chapter 6; real mode: 20.1.4; virtual-8086 mode: 20.2, 20.3).

use smallvec::SmallVec;

use super::super::cpu::{Cpu, Raised, Result};
use super::super::exception::{Exception, vector};
use super::super::flags::when;
use super::super::state::{Cr4, Dr6, Dr7, Rflags, Seg, Segment, reg};
use super::descriptor::{Descriptor, kind};
use super::segment::null_stack;
use super::stack::Stack;
use super::task::Switch;
use super::{done, truncate};

/// An interrupt or exception on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub vector: u8,
    /// Error code to push.
    pub error: Option<u32>,
    /// INT n, INT3 or INTO: the gate's DPL counts, and faults are the program's own.
    pub software: bool,
    /// Instruction pointer to push.
    pub rip: u64,
    /// Push RF set: the instruction is to be started again without its breakpoint.
    pub resume: bool,
}

impl Event {
    /// Bit 0 of error codes of faults during delivery.
    pub(crate) fn ext(&self) -> u32 {
        u32::from(!self.software)
    }

    /// Error code that names the IDT entry.
    fn idt_code(&self) -> u32 {
        u32::from(self.vector) << 3 | 2 | self.ext()
    }
}

/// Vectors of faults: RF is pushed set (SDM vol. 3B, 17.3.1.1).
const fn is_fault(number: u8) -> bool {
    matches!(number, vector::DE | vector::BR | vector::UD | vector::NM | vector::TS..=vector::PF)
        || matches!(number, vector::MF | vector::AC | vector::XM)
}

/// The exception to deliver when `second` arises while `first` is delivered (SDM vol. 3A, table 6-5).
fn combine(first: u8, second: Exception) -> Exception {
    const fn contributory(number: u8) -> bool {
        matches!(number, vector::DE | vector::TS | vector::NP | vector::SS | vector::GP)
    }
    let double = contributory(first) && contributory(second.vector)
        || first == vector::PF && (contributory(second.vector) || second.vector == vector::PF);
    if double { Exception::with_code(vector::DF, 0) } else { second }
}

impl Cpu {
    /// Delivers the pending exception of the instruction at `state.rip`.
    pub fn deliver_pending(&mut self) {
        if let Some(exception) = self.take_settled() {
            self.deliver_exception(exception);
        }
    }

    /// Delivers an external interrupt before the instruction at `state.rip`.
    pub fn deliver_interrupt(&mut self, vector: u8) {
        self.deliver_plain(vector);
    }

    /// Delivers the NMI that waits before the instruction at `state.rip`; others are held off until IRET.
    pub fn deliver_nmi(&mut self) {
        self.state.nmi_pending = 0;
        self.state.nmi_blocked = 1;
        self.deliver_plain(vector::NMI);
    }

    /// Delivers a debug trap after which the instruction at `state.rip` comes, for these causes.
    pub fn deliver_debug_trap(&mut self, causes: Dr6) {
        self.record_debug(causes);
        self.deliver_plain(vector::DB);
    }

    fn take_pending(&mut self) -> Option<Exception> {
        self.header.verdict = 0;
        self.pending.take()
    }

    /// Notes the causes of a #DB. B0-B3 are those of the last one; the others stay until a program clears them.
    fn record_debug(&mut self, causes: Dr6) {
        self.state.dr6 = self.state.dr6 & !Dr6::HITS | causes & !Dr6::RESUME;
        self.state.dr7.remove(Dr7::GD);
    }

    fn deliver_plain(&mut self, vector: u8) {
        let event = Event { vector, error: None, software: false, rip: self.state.rip, resume: false };
        // Interrupts and debug traps are benign, whatever their number: a fault on the way is delivered as it is.
        if self.deliver(&event).is_err() {
            self.deliver_pending();
        }
    }

    /// Delivers an exception, and whatever delivering it raises, until one arrives or the vCPU shuts down. At most four
    /// rounds: each ends in a class of exception further up table 6-5.
    fn deliver_exception(&mut self, mut exception: Exception) {
        loop {
            let causes = Dr6::from_bits_retain(exception.address);
            match exception.vector {
                vector::PF => self.state.cr2 = exception.address,
                vector::DB => self.record_debug(causes),
                _ => {}
            }
            let resumes = causes == Dr6::BD || causes.contains(Dr6::RESUME);
            let resume = is_fault(exception.vector) || exception.vector == vector::DB && resumes;
            let event = Event {
                vector: exception.vector,
                error: exception.error,
                software: false,
                rip: self.state.rip,
                resume,
            };
            if self.deliver(&event).is_ok() {
                return;
            }
            let Some(second) = self.take_pending() else { return };
            if exception.vector == vector::DF {
                tracing::debug!(target: "exception", second = second.vector, "triple fault");
                self.triple_fault = true;
                return;
            }
            exception = combine(exception.vector, second);
        }
    }

    /// Delivers one event; a fault on the way is left pending.
    pub(crate) fn deliver(&mut self, event: &Event) -> Result<()> {
        if !self.state.protected() {
            self.deliver_real(event)?;
        } else if self.state.long_active() {
            self.deliver_long(event)?;
        } else {
            self.deliver_protected(event)?;
        }
        self.arrived(event);
        Ok(())
    }

    fn arrived(&mut self, event: &Event) {
        self.state.halted = 0;
        self.state.shadow = 0;
        // TF is clear: the first instruction of the handler comes first (SDM vol. 3B, 17.3.1.4).
        self.step_trap = false;
        let count = &mut self.vectors[usize::from(event.vector)];
        *count = count.wrapping_add(1);
    }

    fn flags_to_push(&self, event: &Event) -> Rflags {
        self.state.rflags() | when(event.resume, Rflags::RF)
    }

    /// Error code of a fault at an IDT entry.
    fn idt_fault(&mut self, vector: u8, event: &Event) -> Raised {
        self.raise(Exception::with_code(vector, event.idt_code()))
    }

    fn deliver_real(&mut self, event: &Event) -> Result<()> {
        let entry = u64::from(event.vector) * 4;
        if entry + 3 > self.state.idtr.limit {
            return Err(self.idt_fault(vector::GP, event));
        }
        let address = self.state.linear(self.state.idtr.base.wrapping_add(entry));
        let far = self.read_system(address, 4)?;
        let cleared = Rflags::IF | Rflags::TF | Rflags::AC | Rflags::RF;
        self.push_real_frame(event, (self.flags_to_push(event), cleared), far)
    }

    /// Pushes FLAGS, CS and IP, clears flags, and goes to the real-mode far pointer `far`.
    fn push_real_frame(&mut self, event: &Event, (flags, cleared): (Rflags, Rflags), far: u64) -> Result<()> {
        let mut stack = Stack::current(self);
        let cs = u64::from(self.state.seg[Seg::Cs as usize].selector);
        stack.push(self, 2, &[flags.bits(), cs, event.rip])?;
        self.state.flags.remove(cleared);
        let code = self.real_segment(Seg::Cs, (far >> 16) as u16);
        self.enter_code(code, far & 0xffff, &stack, None);
        Ok(())
    }

    /// The IDT entry of an event after the checks that all modes make; `wide`: 16 bytes.
    fn idt_gate(&mut self, event: &Event, wide: bool, kinds: &[u16]) -> Result<Descriptor> {
        let bytes = if wide { 16 } else { 8 };
        let entry = u64::from(event.vector) * bytes;
        if entry + bytes - 1 > self.state.idtr.limit {
            return Err(self.idt_fault(vector::GP, event));
        }
        let address = self.state.linear(self.state.idtr.base.wrapping_add(entry));
        let raw = self.read_system(address, 8)?;
        let upper = if wide { self.read_system(address.wrapping_add(8), 8)? & 0xffff_ffff } else { 0 };
        let gate = Descriptor { raw, upper, address };
        if !gate.is_system() || !kinds.contains(&gate.kind()) || event.software && gate.dpl() < self.state.cpl() {
            return Err(self.idt_fault(vector::GP, event));
        }
        if !gate.present() {
            return Err(self.idt_fault(vector::NP, event));
        }
        Ok(gate)
    }

    /// Flags on entry through a gate: interrupt gates clear IF too.
    fn enter_gate_flags(&mut self, gate: &Descriptor) {
        let interrupt = gate.kind() & !kind::WIDE == kind::INTERRUPT16;
        let cleared = Rflags::TF | Rflags::NT | Rflags::RF | Rflags::VM | when(interrupt, Rflags::IF);
        self.state.flags.remove(cleared);
    }

    fn deliver_long(&mut self, event: &Event) -> Result<()> {
        let ext = event.ext();
        let gate = self.idt_gate(event, true, &[kind::INTERRUPT32, kind::TRAP32])?;
        let target = self.gate_target(gate.gate_selector(), gate.gate_offset(), false, ext)?;
        let (ist, inner) = (gate.gate_count() & 7, target.cpl < self.state.cpl());
        let mut stack = if ist != 0 {
            self.tss_stack(0x24 + 8 * (ist - 1), target.cpl, ext)?
        } else if inner {
            self.inner_stack(target.cpl, ext)?.0
        } else {
            Stack::new(self, null_stack(target.cpl), self.state.gpr[reg::RSP], target.cpl, true, ext)
        };
        stack.sp &= !0xf;
        let s = &self.state;
        let selector = |seg: Seg| u64::from(s.seg[seg as usize].selector);
        let mut frame = SmallVec::<[u64; 6]>::new();
        let flags = self.flags_to_push(event).bits();
        frame.extend([selector(Seg::Ss), s.gpr[reg::RSP], flags, selector(Seg::Cs), event.rip]);
        frame.extend(event.error.map(u64::from));
        stack.push(self, 8, &frame)?;
        self.enter_gate_flags(&gate);
        self.enter_code(target.code, target.rip, &stack, inner.then(|| null_stack(target.cpl)));
        Ok(())
    }

    fn deliver_protected(&mut self, event: &Event) -> Result<()> {
        const KINDS: [u16; 5] = [kind::TASK_GATE, kind::INTERRUPT16, kind::TRAP16, kind::INTERRUPT32, kind::TRAP32];
        let ext = event.ext();
        let gate = self.idt_gate(event, false, &KINDS)?;
        if gate.kind() == kind::TASK_GATE {
            let faulted = self.switch_task(gate.gate_selector(), Switch::gate(event))?;
            return if faulted { Err(Raised) } else { Ok(()) };
        }
        let target = self.gate_target(gate.gate_selector(), gate.gate_offset(), false, ext)?;
        let size = if gate.kind() & kind::WIDE != 0 { 4 } else { 2 };
        let inner = target.cpl < self.state.cpl();
        let (mut stack, segment) = if inner {
            let (stack, segment) = self.inner_stack(target.cpl, ext)?;
            (stack, Some(segment))
        } else {
            (Stack::current(self).with_code(ext), None)
        };
        let s = &self.state;
        let selector = |seg: Seg| u64::from(s.seg[seg as usize].selector);
        let vm86 = s.vm86();
        let mut frame = SmallVec::<[u64; 10]>::new();
        if vm86 {
            frame.extend([Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es].map(selector));
        }
        if inner {
            frame.extend([selector(Seg::Ss), s.gpr[reg::RSP]]);
        }
        frame.extend([self.flags_to_push(event).bits(), selector(Seg::Cs), event.rip]);
        frame.extend(event.error.map(u64::from));
        stack.push(self, size, &frame)?;
        self.enter_gate_flags(&gate);
        if vm86 {
            for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
                self.state.seg[seg as usize] = Segment { base: 0, limit: 0, selector: 0, access: 0 };
            }
        }
        self.enter_code(target.code, target.rip, &stack, segment);
        Ok(())
    }

    /// INT n in virtual-8086 mode (SDM vol. 3B, 20.3.3, table 20-2): whether it was redirected to the 8086 program.
    fn redirect_vm86(&mut self, event: &Event) -> Result<bool> {
        let iopl3 = self.state.iopl() == 3;
        if !self.state.cr4.contains(Cr4::VME) || self.intercepted(event.vector)? {
            return if iopl3 { Ok(false) } else { Err(self.gp0()) };
        }
        let far = self.read(u64::from(event.vector) * 4, 4)?;
        let mut flags = self.flags_to_push(event);
        if !iopl3 {
            flags = flags.seen_virtualized();
        }
        let interrupt = if iopl3 { Rflags::IF } else { Rflags::VIF };
        let cleared = interrupt | Rflags::TF | Rflags::NT | Rflags::AC | Rflags::RF;
        self.push_real_frame(event, (flags, cleared), far)?;
        Ok(true)
    }

    /// The vector's bit in the TSS's software interrupt redirection map, which lies below the I/O permission map.
    fn intercepted(&mut self, vector: u8) -> Result<bool> {
        let tr = self.state.tr;
        if !tr.present() || tr.kind() & kind::WIDE == 0 || tr.limit < 0x67 {
            return Ok(true);
        }
        let io_map = self.read_system(self.state.linear(tr.base.wrapping_add(0x66)), 2)?;
        let Some(map) = io_map.checked_sub(32) else { return Ok(true) };
        let offset = map + u64::from(vector / 8);
        if offset > tr.limit.into() {
            return Ok(true);
        }
        let byte = self.read_system(self.state.linear(tr.base.wrapping_add(offset)), 1)?;
        Ok(byte >> (vector % 8) & 1 != 0)
    }
}

/// INT n (`arg` 0), INT3 (1), INTO (2) or INT1 (3) with vector `a`; `c` is the next instruction's RIP, where INTO goes on
/// when OF is clear.
pub extern "C" fn int(cpu: &mut Cpu, a: u64, _: u64, c: u64, arg: u32) -> u64 {
    const INT_N: u32 = 0;
    const INTO: u32 = 2;
    const INT1: u32 = 3;
    fn run(cpu: &mut Cpu, event: Event, arg: u32) -> Result<()> {
        if arg == INT_N && cpu.state.vm86() && cpu.redirect_vm86(&event)? {
            cpu.arrived(&event);
            return Ok(());
        }
        let before = cpu.state.tr.selector;
        let result = cpu.deliver(&event);
        if result.is_ok() && arg == INT1 {
            // A #DB of the processor's: what waits is told with it, not by another one.
            let causes = std::mem::take(&mut cpu.state.debug_pending);
            if !causes.is_empty() {
                cpu.record_debug(causes);
            }
        }
        if result.is_err() && cpu.state.tr.selector != before {
            // The task was switched before the fault: it belongs to the new task, whose RIP is in place.
            cpu.deliver_pending();
            return Ok(());
        }
        result
    }
    let rip = truncate(c, if cpu.state.code64() { 8 } else { 4 });
    if arg == INTO && !cpu.state.arith_flags().contains(Rflags::OF) {
        cpu.state.rip = rip;
        return 0;
    }
    let event = Event { vector: a as u8, error: None, software: arg != INT1, rip, resume: false };
    done(run(cpu, event, arg))
}
