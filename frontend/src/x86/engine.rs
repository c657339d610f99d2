//! `impl GuestCpu` for x86: what the dispatcher and the lockstep of `mimus-engine` drive a vCPU by.

use std::borrow::Cow;

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use mimus_ir::{Block, Effects, EnvSlot, Stop, VecInfo};
use mimus_softmmu::Verdict;

use super::cpu::Cpu;
use super::exception::{Exception, RETRY};
use super::fpu::CODE_CHANGED;
use super::mode::Mode;
use super::state::{Breakpoint, Condition, Dr6, Rflags, Seg, gpr_slot, seg_base_slot, shadow, slot, xmm_slot};
use super::{helpers, lift};
use crate::common::fp;
use crate::common::guest::{Code, GuestCpu, Patched, Raised, TbWords, Truncated};
use crate::common::helpers::HelperRow;

impl Cpu {
    /// Instruction breakpoints at the guest PC, as DR6 has them (SDM vol. 3B, 17.2).
    fn breakpoints_here(&self) -> Dr6 {
        let linear = self.linear_pc();
        let here = Breakpoint { condition: Condition::Execution, len: 1 };
        self.state.breakpoints(|addr, breakpoint| addr == linear && breakpoint == here)
    }
}

impl GuestCpu for Cpu {
    const MAX_INSN_LEN: usize = lift::MAX_INSN_LEN;
    const MAX_BLOCK_INSNS: u32 = lift::MAX_GUEST_INSNS;

    fn helper_table() -> &'static [HelperRow<Cpu>] {
        helpers::TABLE
    }

    fn slot_name(place: EnvSlot) -> Option<Cow<'static, str>> {
        const GPR: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        let at = |slot: EnvSlot| slot.offset == place.offset;
        if let Some((name, _)) = GPR.iter().zip(0..).find(|&(_, i)| at(gpr_slot(i))) {
            return Some((*name).into());
        }
        if let Some(i) = (0..16).find(|&i| at(xmm_slot(i))) {
            return Some(format!("xmm{i}").into());
        }
        if let Some(seg) = Seg::ALL.into_iter().find(|&seg| at(seg_base_slot(seg))) {
            return Some(format!("{seg:?}.base").to_lowercase().into());
        }
        slot::ALL.iter().find(|(known, _)| at(*known)).map(|&(_, name)| name.into())
    }

    #[inline(always)]
    fn call_helper(&mut self, helper: u16, args: [u64; 3], arg: u32) -> Result<u64, Stop> {
        let value = crate::common::helpers::call(self, helper, args, arg)?;
        let changed = value == CODE_CHANGED
            && helpers::TABLE.get(usize::from(helper)).is_some_and(|row| row.effects.contains(Effects::EXTENSION));
        if changed { Err(Stop::CodeChanged) } else { Ok(value) }
    }

    fn compute_float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128 {
        let mut env = fp::Env::of(self.state.float_env());
        let value = fp::float(&mut env, info, operands);
        self.state.fp_env |= u64::from(env.finish());
        value
    }

    fn raise_trap(&mut self, code: u64) {
        if code == RETRY {
            self.header.verdict = Verdict::Again as u32;
        } else {
            self.raise(Exception::from_trap_code(code));
        }
    }

    #[inline(always)]
    fn pc(&self) -> u64 {
        self.state.rip
    }

    #[inline(always)]
    fn set_pc(&mut self, pc: u64) {
        self.state.rip = pc;
    }

    #[inline(always)]
    fn tb_words(&self) -> TbWords {
        // The base of CS is 32 bits wherever it is not 0.
        let code_base = if self.mode.intersects(Mode::CODE64) { 0 } else { self.state.seg_base[1] as u32 };
        [self.mode.bits(), code_base]
    }

    #[inline]
    fn page_relative(&self) -> bool {
        // Elsewhere the program counter is narrower than an address, and CS may have a base.
        self.mode.intersects(Mode::CODE64)
    }

    fn linear_pc(&self) -> u64 {
        let state = &self.state;
        if self.mode.intersects(Mode::CODE64) {
            state.rip
        } else {
            state.seg_base[1].wrapping_add(state.rip) & 0xffff_ffff
        }
    }

    fn update_mode(&mut self) {
        Cpu::update_mode(self);
    }

    fn check_pc(&mut self) -> Result<(), Raised> {
        if !self.mode.intersects(Mode::CS_FLAT) && self.state.rip > u64::from(self.state.seg[1].limit) {
            return Err(self.raise(Exception::gp(0)));
        }
        Ok(())
    }

    fn translate_fetch(&mut self, addr: u64) -> Result<u64, Raised> {
        Cpu::translate_fetch(self, addr)
    }

    fn lift(&self, code: &Code<'_>) -> Result<Block, Truncated> {
        let Code { bytes, in_page, max_insns } = *code;
        let base = self.header.pc_base;
        lift::lift(&lift::Request { bytes, in_page, rip: self.state.rip, base, mode: self.mode, max_insns })
    }

    fn lift_patched(
        &self,
        code: &Code<'_>,
        patched: &Patched<'_>,
        read: &mut Vec<(u32, u32)>,
    ) -> Result<Block, Truncated> {
        let Code { bytes, in_page, max_insns } = *code;
        let base = self.header.pc_base;
        let request = lift::Request { bytes, in_page, rip: self.state.rip, base, mode: self.mode, max_insns };
        lift::lift_patched(&request, patched, read)
    }

    fn raise_too_long(&mut self) -> Raised {
        self.raise(Exception::gp(0))
    }

    #[inline(always)]
    fn single_steps(&self) -> bool {
        self.mode.intersects(Mode::TF | Mode::BREAKPOINTS)
    }

    fn before_step(&mut self) -> Result<(), Raised> {
        let held = std::mem::take(&mut self.state.shadow) == shadow::ALL;
        if self.mode.intersects(Mode::BREAKPOINTS) {
            // What the delivery of an event has met on its stack is told before the handler's first instruction.
            let hits = self.take_data_breakpoints();
            self.state.debug_pending |= hits;
        }
        if !held {
            let mut causes = std::mem::take(&mut self.state.debug_pending);
            let resumed = self.state.flags.contains(Rflags::RF);
            if causes.is_empty() && self.mode.intersects(Mode::BREAKPOINTS) && !resumed {
                causes = self.breakpoints_here();
            }
            if !causes.is_empty() {
                return Err(self.raise(Exception::debug(causes)));
            }
        }
        self.state.flags.remove(Rflags::RF);
        self.step_trap = self.state.flags.contains(Rflags::TF);
        Ok(())
    }

    fn after_step(&mut self) {
        let mut causes = std::mem::take(&mut self.state.debug_pending);
        if self.mode.intersects(Mode::BREAKPOINTS) {
            causes |= self.take_data_breakpoints();
        }
        if self.state.shadow == shadow::ALL {
            // Data breakpoints wait for the next instruction's end, which has a single step of its own.
            self.state.debug_pending = causes;
            return;
        }
        if self.step_trap {
            causes |= Dr6::BS;
        }
        if !causes.is_empty() {
            self.deliver_debug_trap(causes);
        }
    }

    fn deliver(&mut self) {
        self.state.shadow = 0;
        // What the instruction met before it faulted it will meet again.
        self.take_data_breakpoints();
        self.state.debug_pending = Dr6::empty();
        self.deliver_pending();
    }

    const EXTENSIONS: &'static [&'static str] = &["x87"];

    fn park_extension(&mut self) {
        self.park_x87();
    }

    fn offer_extension(&mut self) {
        self.offer_x87();
    }

    fn disassemble(&self, bytes: &[u8], pc: u64) -> String {
        let decoder = Decoder::with_ip(self.mode.bitness(), bytes, pc, DecoderOptions::NONE);
        let mut formatter = NasmFormatter::new();
        let mut out = String::new();
        for insn in decoder {
            out.push_str(&format!("\n{:#018x}  ", insn.ip()));
            formatter.format(&insn, &mut out);
        }
        out
    }

    fn pending_text(&self) -> Option<Cow<'static, str>> {
        let e = self.pending?;
        let text = format!(
            "{:#x} error {:x?} address {:#x} at {:#x} cpl {}",
            e.vector,
            e.error,
            e.address,
            self.state.rip,
            self.state.cpl()
        );
        Some(text.into())
    }
}
