//! Which exception an address that is not canonical raises in 64-bit mode: #SS if it was reached through SS, otherwise #GP
//! (SDM vol. 3A, 6.15, "Interrupt 12"). The MMU does not know the segment, so the instruction is decoded again.

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess, Register, UsedMemory};
use mimus_softmmu::AccessFlags;

use super::super::cpu::Cpu;
use super::super::exception::{Exception, vector};
use super::super::lift::MAX_INSN_LEN;
use super::super::state::Seg;

impl Cpu {
    /// The exception that `exception`, raised in the instruction at `state.rip`, turns out to be.
    pub(super) fn with_segment(&mut self, exception: Exception) -> Exception {
        let marked = exception.vector == vector::GP && exception.address != 0;
        if marked && self.state.code64() && self.stack_access_is_first() {
            Exception::with_code(vector::SS, 0)
        } else {
            Exception { address: if marked { 0 } else { exception.address }, ..exception }
        }
    }

    /// Whether the first access of the instruction at `state.rip` that is not canonical goes through SS.
    fn stack_access_is_first(&mut self) -> bool {
        let rip = self.state.rip;
        let mut bytes = [0; MAX_INSN_LEN];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = rip.wrapping_add(i as u64);
            let core = &mut self.core;
            let Ok(value) = core.mmu.read(&core.state, &mut *core.bus, core.bank, at, 1, AccessFlags::empty()) else {
                break;
            };
            *byte = value as u8;
        }
        let insn = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE).decode();
        let mut factory = InstructionInfoFactory::new();
        let used = factory.info(&insn).used_memory();
        if let [only] = used {
            // A bit test reaches further than its operand.
            return only.segment() == Register::SS;
        }
        // What is read is read before anything is written.
        let reads = |m: &&UsedMemory| !matches!(m.access(), OpAccess::Write | OpAccess::CondWrite);
        let first = used.iter().filter(reads).chain(used.iter().filter(|m| !reads(m))).find(|m| self.is_outside(m));
        first.is_some_and(|m| m.segment() == Register::SS)
    }

    fn is_outside(&self, memory: &UsedMemory) -> bool {
        let Some(address) = memory.virtual_address(0, |register, _, _| self.register_value(register)) else {
            return false;
        };
        let last = address.wrapping_add((memory.memory_size().size() as u64).saturating_sub(1));
        memory.access() != OpAccess::NoMemAccess && !(self.state.canonical(address) && self.state.canonical(last))
    }

    /// A general register as an address has it, or the base of a segment.
    fn register_value(&self, register: Register) -> Option<u64> {
        match register {
            Register::FS => return Some(self.state.seg[Seg::Fs as usize].base),
            Register::GS => return Some(self.state.seg[Seg::Gs as usize].base),
            _ if register.is_segment_register() => return Some(0),
            _ if !register.is_gpr() => return None,
            _ => {}
        }
        let whole = self.state.gpr.get(register.full_register().number())?;
        Some(if register.size() == 4 {
            whole & 0xffff_ffff
        } else if register.size() == 1 {
            whole & 0xff
        } else {
            *whole
        })
    }

    /// Takes the pending exception, settled as far as the instruction at `state.rip` decides which one it is.
    pub fn take_settled(&mut self) -> Option<Exception> {
        self.header.verdict = 0;
        let exception = self.pending.take()?;
        Some(self.with_segment(exception))
    }
}
