//! Far transfers: JMP, CALL, RET, IRET, and the fast system calls.

use super::super::cpu::{Cpu, Result};
use super::super::exception::vector;
use super::super::state::{Cr4, Dr6, Efer, Rflags, Seg, Segment, reg};
use super::descriptor::{Descriptor, is_null, kind, rpl};
use super::segment::null_stack;
use super::stack::Stack;
use super::task::Cause;
use super::{done, truncate};

/// Access rights of the flat segments that SYSCALL and its kin make, at privilege level 0.
mod flat {
    pub const CODE64: u16 = 0xa09b;
    pub const CODE32: u16 = 0xc09b;
    pub const DATA: u16 = 0xc093;
}

const fn flat_segment(selector: u16, access: u16) -> Segment {
    let level = selector & 3;
    Segment { base: 0, limit: u32::MAX, selector, access: access | level << 5 }
}

fn operand_size(arg: u32) -> u8 {
    match arg {
        2 => 2,
        4 => 4,
        _ => 8,
    }
}

impl Cpu {
    /// The code segment of a direct far JMP or CALL, checked; its RPL becomes CPL (SDM vol. 2A, JMP, CALL).
    fn direct_code(&mut self, selector: u16, descriptor: &Descriptor, rip: u64) -> Result<Segment> {
        let cpl = self.state.cpl();
        let mut code = descriptor.segment(selector);
        let privileged =
            if descriptor.conforming() { code.dpl() <= cpl } else { code.dpl() == cpl && rpl(selector) <= cpl };
        if !code.is_code() || !privileged || self.state.long_active() && code.long() && code.default_big() {
            return Err(self.selector_fault(vector::GP, selector, 0));
        }
        if !code.present() {
            return Err(self.selector_fault(vector::NP, selector, 0));
        }
        self.check_rip(&code, rip, 0)?;
        self.mark_accessed(descriptor)?;
        code.selector = selector & !3 | u16::from(cpl);
        Ok(code)
    }

    /// The code segment that RET or IRET returns to, checked (SDM vol. 2A, IRET; 2B, RET).
    fn return_code(&mut self, selector: u16, rip: u64) -> Result<Segment> {
        if is_null(selector) {
            return Err(self.gp0());
        }
        let descriptor = self.descriptor(selector, vector::GP, 0)?;
        let code = descriptor.segment(selector);
        let level = rpl(selector);
        let privileged = if descriptor.conforming() { code.dpl() <= level } else { code.dpl() == level };
        let long = self.state.long_active() && code.long() && code.default_big();
        if !code.is_code() || level < self.state.cpl() || !privileged || long {
            return Err(self.selector_fault(vector::GP, selector, 0));
        }
        if !code.present() {
            return Err(self.selector_fault(vector::NP, selector, 0));
        }
        self.check_rip(&code, rip, 0)?;
        self.mark_accessed(&descriptor)?;
        Ok(code)
    }

    /// SS for a return to `code`: null is allowed into 64-bit code above privilege level 3.
    fn return_stack(&mut self, selector: u16, code: &Segment) -> Result<Segment> {
        let cpl = rpl(code.selector);
        if is_null(selector) && self.state.long_active() && code.long() && cpl != 3 && rpl(selector) == cpl {
            return Ok(null_stack(cpl));
        }
        self.stack_segment(selector, cpl, vector::GP, 0)
    }

    /// Completes a return with a stack of its own: SS:RSP, and the data segments that privilege level `code.RPL` may not
    /// keep become null (SDM vol. 3A, 5.8.6).
    fn return_outward(&mut self, code: Segment, rip: u64, segment: Segment, sp: u64, release: u64) {
        let cpl = rpl(code.selector);
        let wide = self.state.long_active() && code.long();
        let outer = cpl > self.state.cpl();
        let mut stack = Stack::new(self, segment, sp, cpl, wide, 0);
        stack.release(release);
        if outer {
            for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
                let s = &mut self.state.seg[seg as usize];
                let conforming = s.access & 0x1c == 0x1c;
                // A null segment has privilege level 0 itself: its selector becomes 0. Bases stay, which 64-bit mode uses.
                if !conforming && s.dpl() < cpl {
                    *s = Segment { base: s.base, limit: 0, selector: 0, access: 0 };
                }
            }
        }
        self.enter_code(code, rip, &stack, Some(segment));
    }

    fn set_code(&mut self, code: Segment, rip: u64) {
        self.state.seg[Seg::Cs as usize] = code;
        self.state.rip = rip;
        self.update_mode();
    }

    /// CS of a real or virtual-8086 far transfer.
    fn real_code(&mut self, selector: u16, rip: u64) -> Result<Segment> {
        let code = self.real_segment(Seg::Cs, selector);
        self.check_rip(&code, rip, 0)?;
        Ok(code)
    }

    /// The descriptor a far JMP or CALL names.
    fn far_descriptor(&mut self, selector: u16) -> Result<Descriptor> {
        if is_null(selector) {
            return Err(self.gp0());
        }
        self.descriptor(selector, vector::GP, 0)
    }

    /// A far JMP (`return_to` `None`) or CALL to a system descriptor.
    fn far_system(&mut self, selector: u16, descriptor: Descriptor, next_rip: u64, call: bool) -> Result<()> {
        let long = self.state.long_active();
        let (is_gate, is_task) = match descriptor.kind() {
            kind::CALL32 => (true, false),
            kind::CALL16 if !long => (true, false),
            kind::TASK_GATE | kind::TSS16 | kind::TSS32 if !long => (false, true),
            _ => (false, false),
        };
        let privileged = descriptor.dpl() >= self.state.cpl().max(rpl(selector));
        if !is_gate && !is_task || !privileged {
            return Err(self.selector_fault(vector::GP, selector, 0));
        }
        if !descriptor.present() {
            return Err(self.selector_fault(vector::NP, selector, 0));
        }
        if is_gate {
            return self.call_gate(selector, descriptor, call.then_some(next_rip));
        }
        let tss = if descriptor.kind() == kind::TASK_GATE { descriptor.gate_selector() } else { selector };
        let cause = if call { Cause::Nested } else { Cause::Jump };
        self.switch_by_instruction(tss, cause, next_rip)
    }

    fn far_jump(&mut self, selector: u16, offset: u64, next_rip: u64) -> Result<()> {
        let code = if self.mode.real_or_vm86() {
            self.real_code(selector, offset)?
        } else {
            let descriptor = self.far_descriptor(selector)?;
            if descriptor.is_system() {
                return self.far_system(selector, descriptor, next_rip, false);
            }
            self.direct_code(selector, &descriptor, offset)?
        };
        self.set_code(code, offset);
        Ok(())
    }

    fn far_call(&mut self, selector: u16, offset: u64, next_rip: u64, size: u8) -> Result<()> {
        let code = if self.mode.real_or_vm86() {
            self.real_code(selector, offset)?
        } else {
            let descriptor = self.far_descriptor(selector)?;
            if descriptor.is_system() {
                return self.far_system(selector, descriptor, next_rip, true);
            }
            self.direct_code(selector, &descriptor, offset)?
        };
        let mut stack = Stack::current(self);
        let cs = u64::from(self.state.seg[Seg::Cs as usize].selector);
        stack.push(self, size, &[cs, next_rip])?;
        self.enter_code(code, offset, &stack, None);
        Ok(())
    }

    fn far_return(&mut self, release: u64, size: u8) -> Result<()> {
        let mut stack = Stack::current(self);
        let rip = stack.pop(self, size)?;
        let selector = stack.pop(self, size)? as u16;
        if self.mode.real_or_vm86() {
            let code = self.real_code(selector, rip)?;
            stack.release(release);
            self.enter_code(code, rip, &stack, None);
            return Ok(());
        }
        let code = self.return_code(selector, rip)?;
        stack.release(release);
        if rpl(selector) == self.state.cpl() {
            self.enter_code(code, rip, &stack, None);
            return Ok(());
        }
        let sp = stack.pop(self, size)?;
        let ss = stack.pop(self, size)? as u16;
        let segment = self.return_stack(ss, &code)?;
        self.return_outward(code, rip, segment, sp, release);
        Ok(())
    }

    fn iret(&mut self, next_rip: u64, size: u8) -> Result<()> {
        // Even if it faults.
        self.unblock_nmi();
        let s = &self.state;
        if s.protected() && !s.vm86() && s.flags.contains(Rflags::NT) {
            if s.long_active() {
                return Err(self.gp0());
            }
            self.return_to_task(next_rip)?;
        } else if !s.protected() {
            self.iret_real(size, Rflags::IF | Rflags::IOPL)?;
        } else if s.vm86() {
            self.iret_vm86(size)?;
        } else {
            self.iret_protected(size)?;
        }
        self.open_interrupts();
        Ok(())
    }

    fn iret_real(&mut self, size: u8, privileged: Rflags) -> Result<()> {
        let mut stack = Stack::current(self);
        let rip = stack.pop(self, size)?;
        let selector = stack.pop(self, size)? as u16;
        let flags = Rflags::from_bits_retain(stack.pop(self, size)?);
        let code = self.real_code(selector, rip)?;
        self.load_flags(flags, size, privileged | Rflags::RF);
        self.enter_code(code, rip, &stack, None);
        Ok(())
    }

    /// IRET in virtual-8086 mode (SDM vol. 3B, 20.2.7, 20.3.3).
    fn iret_vm86(&mut self, size: u8) -> Result<()> {
        if self.state.iopl() == 3 {
            return self.iret_real(size, Rflags::IF);
        }
        if !self.state.cr4.contains(Cr4::VME) || size != 2 {
            return Err(self.gp0());
        }
        let mut stack = Stack::current(self);
        let rip = stack.pop(self, size)?;
        let selector = stack.pop(self, size)? as u16;
        let flags = Rflags::from_bits_retain(stack.pop(self, size)?);
        let code = self.real_code(selector, rip)?;
        self.load_virtual_flags(flags)?;
        self.enter_code(code, rip, &stack, None);
        Ok(())
    }

    fn iret_protected(&mut self, size: u8) -> Result<()> {
        let cpl = self.state.cpl();
        let mut stack = Stack::current(self);
        let rip = stack.pop(self, size)?;
        let selector = stack.pop(self, size)? as u16;
        let flags = Rflags::from_bits_retain(stack.pop(self, size)?);
        if size == 4 && flags.contains(Rflags::VM) && cpl == 0 && !self.state.long_active() {
            return self.iret_to_vm86(stack, (rip, selector, flags));
        }
        let code = self.return_code(selector, rip)?;
        let mut privileged = Rflags::RF;
        privileged.set(Rflags::IF, cpl <= self.state.iopl());
        privileged.set(Rflags::IOPL | Rflags::VIF | Rflags::VIP, cpl == 0);
        // 64-bit mode pops SS:RSP whatever the privilege level (SDM vol. 3A, 6.14.3).
        if rpl(selector) > cpl || self.state.code64() {
            let sp = stack.pop(self, size)?;
            let ss = stack.pop(self, size)? as u16;
            let segment = self.return_stack(ss, &code)?;
            self.load_flags(flags, size, privileged);
            self.return_outward(code, rip, segment, sp, 0);
        } else {
            self.load_flags(flags, size, privileged);
            self.enter_code(code, rip, &stack, None);
        }
        Ok(())
    }

    fn iret_to_vm86(&mut self, mut stack: Stack, (rip, selector, flags): (u64, u16, Rflags)) -> Result<()> {
        let sp = stack.pop(self, 4)?;
        let mut selectors = [0; 6];
        for seg in [Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            selectors[seg as usize] = stack.pop(self, 4)? as u16;
        }
        selectors[Seg::Cs as usize] = selector;
        if rip > 0xffff {
            return Err(self.gp0());
        }
        self.load_flags(flags, 4, Rflags::EXIST);
        for seg in Seg::ALL {
            self.state.seg[seg as usize] = self.real_segment(seg, selectors[seg as usize]);
        }
        self.state.gpr[reg::RSP] = sp;
        self.state.rip = rip;
        self.update_mode();
        Ok(())
    }

    /// SYSCALL exists in IA-32e mode with EFER.SCE only. In compatibility mode it is AMD's (APM vol. 3, SYSCALL); QEMU has it
    /// whatever maker CPUID names.
    fn syscall(&mut self, next_rip: u64) -> Result<()> {
        if !self.state.long_active() || !self.state.efer.contains(Efer::SCE) {
            return Err(self.ud());
        }
        let target = if self.state.code64() { self.state.lstar } else { self.state.cstar };
        let selector = (self.state.star >> 32) as u16 & 0xfffc;
        let flags = self.state.rflags() & !Rflags::RF;
        self.state.gpr[reg::RCX] = next_rip;
        self.state.gpr[11] = flags.bits();
        let state = &mut self.core.state;
        state.set_rflags(flags & !Rflags::from_bits_retain(state.sfmask));
        self.state.seg[Seg::Ss as usize] = flat_segment(selector.wrapping_add(8) & 0xfffc, flat::DATA);
        self.set_code(flat_segment(selector, flat::CODE64), target);
        // No single step into the kernel whose mask clears TF.
        self.step_trap &= self.state.flags.contains(Rflags::TF);
        Ok(())
    }

    fn sysret(&mut self, size: u8) -> Result<()> {
        /// Flags that SYSRET loads (SDM vol. 2B, SYSRET).
        const LOADED: Rflags = Rflags::EXIST.difference(Rflags::RF.union(Rflags::VM));
        if !self.state.code64() || !self.state.efer.contains(Efer::SCE) {
            return Err(self.ud());
        }
        self.require_cpl0()?;
        let rcx = self.state.gpr[reg::RCX];
        let base = (self.state.star >> 48) as u16;
        let (offset, access, rip) = if size == 8 {
            self.require_canonical(rcx)?;
            (16, flat::CODE64, rcx)
        } else {
            (0, flat::CODE32, rcx & 0xffff_ffff)
        };
        let state = &mut self.core.state;
        state.set_rflags(Rflags::from_bits_retain(state.gpr[11]) & LOADED);
        self.state.seg[Seg::Ss as usize] = flat_segment(base.wrapping_add(8) | 3, flat::DATA);
        self.set_code(flat_segment(base.wrapping_add(offset) | 3, access), rip);
        // With TF the trap comes at once, as if the program's SYSCALL had been stepped over.
        self.step_trap = false;
        if self.state.flags.contains(Rflags::TF) {
            self.state.debug_pending |= Dr6::BS;
        }
        self.open_interrupts();
        Ok(())
    }

    fn sysenter_selector(&mut self) -> Result<u16> {
        let selector = self.state.sysenter_cs as u16 & 0xfffc;
        if self.state.protected() && selector != 0 { Ok(selector) } else { Err(self.gp0()) }
    }

    fn sysenter(&mut self) -> Result<()> {
        let selector = self.sysenter_selector()?;
        let long = self.state.long_active();
        let (access, bytes) = if long { (flat::CODE64, 8) } else { (flat::CODE32, 4) };
        self.state.flags.remove(Rflags::VM | Rflags::IF);
        self.state.gpr[reg::RSP] = truncate(self.state.sysenter_esp, bytes);
        self.state.seg[Seg::Ss as usize] = flat_segment(selector.wrapping_add(8) & 0xfffc, flat::DATA);
        self.set_code(flat_segment(selector, access), truncate(self.state.sysenter_eip, bytes));
        Ok(())
    }

    fn sysexit(&mut self, size: u8) -> Result<()> {
        let selector = self.sysenter_selector()?;
        self.require_cpl0()?;
        let (rip, rsp) = (self.state.gpr[reg::RDX], self.state.gpr[reg::RCX]);
        let wide = size == 8;
        if wide {
            self.require_canonical(rip)?;
            self.require_canonical(rsp)?;
        }
        let (offset, access, bytes) = if wide { (32, flat::CODE64, 8) } else { (16, flat::CODE32, 4) };
        let code = selector.wrapping_add(offset) | 3;
        self.state.gpr[reg::RSP] = truncate(rsp, bytes);
        self.state.seg[Seg::Ss as usize] = flat_segment(code.wrapping_add(8) | 3, flat::DATA);
        self.set_code(flat_segment(code, access), truncate(rip, bytes));
        Ok(())
    }
}

/// Far JMP to `a`:`b`; `c` is the next instruction's RIP, `arg` the operand size in bytes.
pub extern "C" fn far_jump(cpu: &mut Cpu, a: u64, b: u64, c: u64, arg: u32) -> u64 {
    done(cpu.far_jump(a as u16, truncate(b, arg), c))
}

/// Far CALL; operands as of [`far_jump`].
pub extern "C" fn far_call(cpu: &mut Cpu, a: u64, b: u64, c: u64, arg: u32) -> u64 {
    done(cpu.far_call(a as u16, truncate(b, arg), c, operand_size(arg)))
}

/// Far RET that releases `a` bytes of parameters; operand size in bytes in `arg`.
pub extern "C" fn far_ret(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.far_return(a & 0xffff, operand_size(arg)))
}

/// IRET; `c` is the next instruction's RIP, `arg` the operand size in bytes.
pub extern "C" fn iret(cpu: &mut Cpu, _: u64, _: u64, c: u64, arg: u32) -> u64 {
    done(cpu.iret(c, operand_size(arg)))
}

/// SYSCALL; `c` is the next instruction's RIP.
pub extern "C" fn syscall(cpu: &mut Cpu, _: u64, _: u64, c: u64, _: u32) -> u64 {
    done(cpu.syscall(c))
}

/// SYSRET; operand size in bytes in `arg`.
pub extern "C" fn sysret(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.sysret(operand_size(arg)))
}

/// SYSENTER.
pub extern "C" fn sysenter(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.sysenter())
}

/// SYSEXIT; operand size in bytes in `arg`.
pub extern "C" fn sysexit(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.sysexit(operand_size(arg)))
}
