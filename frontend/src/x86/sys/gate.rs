//! What call, interrupt and trap gates have in common: the code segment they lead to and the stack they switch to.

use super::super::cpu::{Cpu, Result};
use super::super::exception::{Exception, vector};
use super::super::state::{Seg, Segment, reg};
use super::descriptor::{Descriptor, is_null, kind};
use super::segment::null_stack;
use super::stack::Stack;

/// Where a gate leads.
#[derive(Clone, Copy, Debug)]
pub struct GateTarget {
    /// Code segment; the selector's RPL is the new CPL.
    pub code: Segment,
    /// Instruction pointer.
    pub rip: u64,
    /// New CPL.
    pub cpl: u8,
}

impl Cpu {
    /// The code segment a call, interrupt or trap gate names, checked (SDM vol. 3A, 5.8.4, 6.12.1.1). `jump`: a more
    /// privileged nonconforming segment is not allowed. In IA-32e mode it must be 64-bit code.
    pub fn gate_target(&mut self, selector: u16, offset: u64, jump: bool, ext: u32) -> Result<GateTarget> {
        let cpl = self.state.cpl();
        if is_null(selector) {
            return Err(self.selector_fault(vector::GP, 0, ext));
        }
        let descriptor = self.descriptor(selector, vector::GP, ext)?;
        let mut code = descriptor.segment(selector);
        let long = self.state.long_active();
        let allowed = code.is_code()
            && code.dpl() <= cpl
            && (!jump || descriptor.conforming() || code.dpl() == cpl)
            && (!long || code.long() && !code.default_big());
        if !allowed {
            return Err(self.selector_fault(vector::GP, selector, ext));
        }
        if !code.present() {
            return Err(self.selector_fault(vector::NP, selector, ext));
        }
        let cpl = if descriptor.conforming() { cpl } else { code.dpl() };
        // Interrupts leave virtual-8086 mode for privilege level 0 only.
        if self.state.vm86() && (cpl != 0 || descriptor.conforming()) {
            return Err(self.selector_fault(vector::GP, selector, ext));
        }
        self.check_rip(&code, offset, ext)?;
        self.mark_accessed(&descriptor)?;
        code.selector = selector & !3 | u16::from(cpl);
        Ok(GateTarget { code, rip: offset, cpl })
    }

    /// #GP(`ext`) unless `rip` is inside `code`: canonical in 64-bit code, within the limit elsewhere.
    pub fn check_rip(&mut self, code: &Segment, rip: u64, ext: u32) -> Result<()> {
        let wide = self.state.long_active() && code.long();
        let inside = if wide { self.state.canonical(rip) } else { rip <= code.limit.into() };
        if inside { Ok(()) } else { Err(self.raise(Exception::gp(ext))) }
    }

    /// The stack for privilege level `cpl` in the TSS, and its segment (SDM vol. 3A, 5.8.5, 7.7).
    pub fn inner_stack(&mut self, cpl: u8, ext: u32) -> Result<(Stack, Segment)> {
        let level = u64::from(cpl);
        if self.state.long_active() {
            let stack = self.tss_stack(4 + 8 * level, cpl, ext)?;
            return Ok((stack, null_stack(cpl)));
        }
        let wide = self.state.tr.kind() & kind::WIDE != 0;
        let (offset, size) = if wide { (4 + 8 * level, 4u8) } else { (2 + 4 * level, 2) };
        if offset + u64::from(size) + 1 > self.state.tr.limit.into() {
            return Err(self.selector_fault(vector::TS, self.state.tr.selector, ext));
        }
        let address = self.state.linear(self.state.tr.base.wrapping_add(offset));
        let sp = self.read_system(address, size)?;
        let selector = self.read_system(self.state.linear(address + u64::from(size)), 2)? as u16;
        let segment = self.stack_segment(selector, cpl, vector::TS, ext)?;
        let code = u32::from(selector & 0xfffc) | ext;
        Ok((Stack::new(self, segment, sp, cpl, false, code), segment))
    }

    /// The 64-bit stack pointer at `offset` of the TSS, as a stack for privilege level `cpl`.
    pub fn tss_stack(&mut self, offset: u64, cpl: u8, ext: u32) -> Result<Stack> {
        if offset + 7 > self.state.tr.limit.into() {
            return Err(self.selector_fault(vector::TS, self.state.tr.selector, ext));
        }
        let sp = self.read_system(self.state.tr.base.wrapping_add(offset), 8)?;
        Ok(Stack::new(self, null_stack(cpl), sp, cpl, true, ext))
    }

    /// Goes to `rip` in `code`; every check has been made. `stack` and `segment` replace RSP and SS.
    pub fn enter_code(&mut self, code: Segment, rip: u64, stack: &Stack, segment: Option<Segment>) {
        self.state.seg[Seg::Cs as usize] = code;
        if let Some(segment) = segment {
            self.state.seg[Seg::Ss as usize] = segment;
        }
        stack.commit(self);
        self.state.rip = rip;
        self.update_mode();
    }

    /// A CALL (`return_to` given) or JMP through call gate `gate` (SDM vol. 2A, CALL, JMP).
    pub fn call_gate(&mut self, selector: u16, gate: Descriptor, return_to: Option<u64>) -> Result<()> {
        let gate = self.complete_system_descriptor(selector, gate)?;
        let target = self.gate_target(gate.gate_selector(), gate.gate_offset(), return_to.is_none(), 0)?;
        let Some(return_to) = return_to else {
            self.state.seg[Seg::Cs as usize] = target.code;
            self.state.rip = target.rip;
            self.update_mode();
            return Ok(());
        };
        let size = match (self.state.long_active(), gate.kind() == kind::CALL32) {
            (true, _) => 8,
            (false, true) => 4,
            (false, false) => 2,
        };
        let cs = u64::from(self.state.seg[Seg::Cs as usize].selector);
        if target.cpl == self.state.cpl() {
            let mut stack = Stack::current(self);
            if self.state.long_active() {
                stack = Stack::new(self, null_stack(target.cpl), stack.sp, target.cpl, true, 0);
            }
            stack.push(self, size, &[cs, return_to])?;
            self.enter_code(target.code, target.rip, &stack, None);
            return Ok(());
        }
        let (mut stack, segment) = self.inner_stack(target.cpl, 0)?;
        let ss = u64::from(self.state.seg[Seg::Ss as usize].selector);
        let mut values = smallvec::SmallVec::<[u64; 36]>::new();
        values.extend([ss, self.state.gpr[reg::RSP]]);
        if !self.state.long_active() {
            let mut old = Stack::current(self);
            for _ in 0..gate.gate_count() {
                let parameter = old.pop(self, size)?;
                values.push(parameter);
            }
            // The parameters were read upwards and are pushed downwards.
            if let Some(parameters) = values.get_mut(2..) {
                parameters.reverse();
            }
        }
        values.extend([cs, return_to]);
        stack.push(self, size, &values)?;
        self.enter_code(target.code, target.rip, &stack, Some(segment));
        Ok(())
    }
}
