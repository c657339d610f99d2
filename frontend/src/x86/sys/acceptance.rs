//! What a vCPU takes between two instructions of that which others have for it (SDM vol. 3A, 6.6 to 6.9): interrupts, NMIs, INIT and
//! start-up IPIs.
//!
//! The machine hands over what its mailbox has ([`Cpu::raise_nmi`], [`Cpu::init`], [`Cpu::start_up`]), asks what is taken
//! ([`Cpu::accepts`]), delivers that, and asks whether there is something to execute ([`Cpu::resume`]). Everything that holds an
//! interrupt off is known here, and nothing of interrupt controllers.

use std::sync::atomic::Ordering;

use super::super::cpu::Cpu;
use super::super::mode::Mode;
use super::super::state::{Rflags, Seg, halt};

/// IA32_APIC_BASE: the bootstrap processor's, and that there is a local APIC (SDM vol. 3A, figure 10-5).
const APIC_BOOTSTRAP: u64 = 1 << 8;
const APIC_ENABLED: u64 = 1 << 11;

/// What is taken before the next instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acceptance {
    /// Nothing.
    Nothing,
    /// Nothing, for the instruction before holds it off: the next one is to be executed by itself.
    AfterNext,
    /// The NMI that waits: [`Cpu::deliver_nmi`].
    Nmi,
    /// An interrupt, whose vector the interrupt controller gives: [`Cpu::deliver_interrupt`].
    Interrupt,
}

impl Cpu {
    /// An NMI has come. Another one is lost while it waits (SDM vol. 3A, 6.7.1).
    pub fn raise_nmi(&mut self) {
        self.state.nmi_pending = 1;
    }

    /// A start-up IPI has come: a vCPU that waits for one starts at `vector` << 12 in real mode; others pay no heed (SDM vol. 3A,
    /// 8.4.3). Whether it did.
    pub fn start_up(&mut self, vector: u8) -> bool {
        let waits = self.state.halted == halt::START_UP;
        if waits {
            self.state.halted = 0;
            let cs = &mut self.state.seg[Seg::Cs as usize];
            (cs.selector, cs.base) = (u16::from(vector) << 8, u64::from(vector) << 12);
            self.state.rip = 0;
            self.update_mode();
        }
        waits
    }

    /// Whether this vCPU waits for a start-up IPI after RESET and INIT: all but the bootstrap processor do (SDM vol. 3A, 8.4.2).
    pub(crate) fn is_application_processor(&mut self) -> bool {
        self.bus.apic_base() & (APIC_ENABLED | APIC_BOOTSTRAP) == APIC_ENABLED
    }

    /// What is taken before the next instruction, where `interrupt` says whether an interrupt controller has one above the task
    /// priority.
    #[inline]
    pub fn accepts(&self, interrupt: bool) -> Acceptance {
        let state = &self.state;
        let nmi = state.nmi_pending != 0 && state.nmi_blocked == 0;
        let interrupt = interrupt && state.flags.contains(Rflags::IF);
        if !nmi && !interrupt || state.halted == halt::START_UP || self.trap_is_due() {
            Acceptance::Nothing
        } else if state.shadow != 0 {
            Acceptance::AfterNext
        } else if nmi {
            Acceptance::Nmi
        } else {
            Acceptance::Interrupt
        }
    }

    /// Whether the vCPU executes, rather than waits. What the instruction before held off is over then; `interrupt` says whether an
    /// interrupt waits for RFLAGS.IF, and is to be looked for at once when that is set.
    #[inline]
    pub fn resume(&mut self, interrupt: bool) -> bool {
        if !self.mode.intersects(Mode::TF | Mode::BREAKPOINTS) {
            // Whoever executes instructions one at a time looks at it: it holds off debug exceptions, too.
            self.state.shadow = 0;
        }
        self.interrupt_waits = interrupt;
        !self.waits()
    }

    /// Whether it waits for an interrupt or a start-up IPI.
    #[inline]
    pub fn waits(&self) -> bool {
        self.state.halted != 0
    }

    /// Whether a #DB comes before the next instruction, and before any interrupt.
    pub fn trap_is_due(&self) -> bool {
        self.mode.intersects(Mode::TF | Mode::BREAKPOINTS)
            && (!self.state.debug_pending.is_empty() || self.mmu.watches.has_hits())
    }

    /// To be called by an instruction that may have set RFLAGS.IF: has the dispatcher look at once when an interrupt waits
    /// for it. The instruction before has cast no shadow on the next one.
    pub(crate) fn open_interrupts(&mut self) {
        self.state.shadow = 0;
        if self.interrupt_waits && self.state.flags.contains(Rflags::IF) {
            self.header.exit_request.store(1, Ordering::Release);
        }
    }

    /// IRET: an NMI that waits is delivered before the next instruction.
    pub(crate) fn unblock_nmi(&mut self) {
        self.state.nmi_blocked = 0;
        if self.state.nmi_pending != 0 {
            self.header.exit_request.store(1, Ordering::Release);
        }
    }
}
