//! Repeated string instructions, and INS and OUTS (SDM vol. 2B, REP).

use mimus_softmmu::{PAGE_SIZE, Verdict};
use std::sync::atomic::Ordering;

use super::cpu::{Cpu, Raised, Result};
use super::flags::{CcKind, CcOp};
use super::mode::Mode;
use super::state::{Dr6, Rflags, Seg, reg};
use super::sys::segment;
use crate::common::vcpu::Core;

/// Which string instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum StringKind {
    Movs,
    Cmps,
    Stos,
    Lods,
    Scas,
    Ins,
    Outs,
}

/// Repeat prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// None.
    None,
    /// REP, or REPE for the comparing ones.
    WhileEqual,
    /// REPNE.
    WhileNotEqual,
}

/// A string instruction, as it is passed to [`string_op`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringInsn {
    /// Operation.
    pub kind: StringKind,
    /// log2 of the element's bytes.
    pub log2: u8,
    /// Prefix.
    pub repeat: Repeat,
    /// log2 of the address width in bytes.
    pub address_log2: u8,
    /// Segment of the source.
    pub seg: Seg,
}

impl StringInsn {
    const KINDS: [StringKind; 7] = [
        StringKind::Movs,
        StringKind::Cmps,
        StringKind::Stos,
        StringKind::Lods,
        StringKind::Scas,
        StringKind::Ins,
        StringKind::Outs,
    ];
    const REPEATS: [Repeat; 3] = [Repeat::None, Repeat::WhileEqual, Repeat::WhileNotEqual];

    /// As a helper's constant argument.
    pub const fn encode(self) -> u32 {
        self.kind as u32
            | (self.log2 as u32) << 4
            | (self.repeat as u32) << 8
            | (self.address_log2 as u32) << 12
            | (self.seg as u32) << 16
    }

    /// From a helper's constant argument.
    pub fn decode(arg: u32) -> Option<StringInsn> {
        let at = |shift: u32| (arg >> shift & 15) as usize;
        Some(StringInsn {
            kind: *StringInsn::KINDS.get(at(0))?,
            log2: at(4) as u8 & 3,
            repeat: *StringInsn::REPEATS.get(at(8))?,
            address_log2: at(12) as u8 & 3,
            seg: *Seg::ALL.get(at(16))?,
        })
    }
}

/// Elements done between two looks at the exit request.
const POLL_INTERVAL: u32 = 512;

/// The string helper.
pub extern "C" fn string_op(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    if let Some(insn) = StringInsn::decode(arg) {
        // On an error the exception is pending already.
        let _: Result<()> = run(cpu, insn);
    }
    0
}

fn run(cpu: &mut Cpu, insn: StringInsn) -> Result<()> {
    let mask = u64::MAX >> (64 - (8 << insn.address_log2));
    if insn.repeat == Repeat::None {
        return element(cpu, insn, mask).map(drop);
    }
    let in_bulk = matches!(insn.kind, StringKind::Movs | StringKind::Stos | StringKind::Ins);
    let traps = cpu.mode.intersects(Mode::TF | Mode::BREAKPOINTS);
    if in_bulk && !traps && !cpu.state.flags.contains(Rflags::DF) {
        return run_upwards(cpu, insn, mask);
    }
    let compares = matches!(insn.kind, StringKind::Cmps | StringKind::Scas);
    // A trap may follow any element, and what is told a device may end the run.
    let interval = if traps || insn.kind == StringKind::Outs { 1 } else { POLL_INTERVAL };
    let mut until_poll = interval;
    while cpu.state.gpr[reg::RCX] & mask != 0 {
        let equal = element(cpu, insn, mask)?;
        let count = (cpu.state.gpr[reg::RCX] & mask) - 1;
        set_masked(cpu, reg::RCX, count, mask);
        if compares && equal != (insn.repeat == Repeat::WhileEqual) {
            break;
        }
        until_poll -= 1;
        if until_poll == 0 {
            until_poll = interval;
            if traps && count != 0 {
                stop_for_trap(cpu)?;
            }
            poll(cpu, count != 0)?;
        }
    }
    Ok(())
}

/// The linear address of an element that is followed by a page of others, before addresses wrap or the segment ends; `None`
/// otherwise.
fn open_address(cpu: &Cpu, seg: Seg, offset: u64, mask: u64, write: bool) -> Option<u64> {
    if offset > mask - PAGE_SIZE {
        return None;
    }
    // What is looked at most: whether addresses are canonical is seen as they are translated.
    if cpu.mode.intersects(Mode::CODE64) {
        let base = if matches!(seg, Seg::Fs | Seg::Gs) { cpu.state.seg_base[seg as usize] } else { 0 };
        Some(base.wrapping_add(offset))
    } else if cpu.mode.open(seg) {
        Some(cpu.state.seg_base[seg as usize].wrapping_add(offset) & 0xffff_ffff)
    } else {
        cpu.reachable_address(seg, offset, PAGE_SIZE, write)
    }
}

/// REP MOVS, REP STOS and REP INS with the direction flag clear: a page at a time where that is possible.
fn run_upwards(cpu: &mut Cpu, insn: StringInsn, mask: u64) -> Result<()> {
    let size = 1u8 << insn.log2;
    loop {
        let count = cpu.state.gpr[reg::RCX] & mask;
        if count == 0 {
            return Ok(());
        }
        let si = cpu.state.gpr[reg::RSI] & mask;
        let di = cpu.state.gpr[reg::RDI] & mask;
        let moves = insn.kind == StringKind::Movs;
        let port = cpu.state.gpr[reg::RDX] as u16;
        if insn.kind == StringKind::Ins {
            cpu.check_io(port, size)?;
        }
        let to = open_address(cpu, Seg::Es, di, mask, true);
        let from = if moves { open_address(cpu, insn.seg, si, mask, false) } else { Some(0) };
        let done = match (from, to) {
            (Some(from), Some(to)) => {
                let Core { state, bus, bank, mmu, .. } = &mut cpu.core;
                let result = match insn.kind {
                    StringKind::Movs => mmu.copy(state, *bank, (to, from), size, count),
                    StringKind::Ins => {
                        mmu.take_in(state, *bank, to, size, count, |bytes| bus.port_in_string(port, size, bytes))
                    }
                    _ => mmu.fill(state, *bank, to, (size, state.gpr[reg::RAX]), count),
                };
                // A fault is raised for one element, which finds it in the right order.
                result.unwrap_or(0)
            }
            _ => 0,
        };
        if done == 0 {
            element(cpu, insn, mask)?;
            set_masked(cpu, reg::RCX, count - 1, mask);
        } else {
            let bytes = done << insn.log2;
            if moves {
                set_masked(cpu, reg::RSI, si.wrapping_add(bytes), mask);
            }
            set_masked(cpu, reg::RDI, di.wrapping_add(bytes), mask);
            set_masked(cpu, reg::RCX, count - done, mask);
        }
        poll(cpu, count != done.max(1))?;
    }
}

/// Leaves a repeated instruction behind an element that is not its last, where a trap comes: of single steps one follows every
/// element (SDM vol. 3B, 17.3.1.4).
fn stop_for_trap(cpu: &mut Cpu) -> Result<()> {
    let mut causes = cpu.take_data_breakpoints();
    causes.set(Dr6::BS, cpu.mode.intersects(Mode::TF));
    if !causes.is_empty() {
        cpu.state.debug_pending |= causes | Dr6::RESUME;
        cpu.header.verdict = Verdict::Again as u32;
        return Err(Raised);
    }
    Ok(())
}

/// Leaves a repeated instruction that is not done when something waits for the dispatcher: the registers tell how far it got,
/// and it is started again.
fn poll(cpu: &mut Cpu, unfinished: bool) -> Result<()> {
    if unfinished && cpu.header.exit_request.load(Ordering::Acquire) != 0 {
        cpu.header.verdict = Verdict::Again as u32;
        return Err(Raised);
    }
    Ok(())
}

/// Writes an index or count register: 32-bit ones clear the upper half.
fn set_masked(cpu: &mut Cpu, number: usize, value: u64, mask: u64) {
    let old = cpu.state.gpr[number];
    cpu.state.gpr[number] = if mask >> 32 == 0 && mask > 0xffff { value & mask } else { old & !mask | value & mask };
}

/// Does one element; for the comparing ones, whether the operands were equal.
fn element(cpu: &mut Cpu, insn: StringInsn, mask: u64) -> Result<bool> {
    let size = 1u8 << insn.log2;
    let down = cpu.state.flags.contains(Rflags::DF);
    let step = if down { u64::from(size).wrapping_neg() } else { u64::from(size) };
    let si = cpu.state.gpr[reg::RSI] & mask;
    let di = cpu.state.gpr[reg::RDI] & mask;
    let source = |cpu: &mut Cpu| {
        let addr = segment::address(cpu, insn.seg, si, size.into(), false)?;
        cpu.read(addr, size)
    };
    let target = |cpu: &mut Cpu, write: bool| segment::address(cpu, Seg::Es, di, size.into(), write);
    let mut equal = true;
    let (mut moves_si, mut moves_di) = (true, true);
    let value_mask = u64::MAX >> (64 - (8 << insn.log2));
    match insn.kind {
        StringKind::Movs => {
            let value = source(cpu)?;
            let addr = target(cpu, true)?;
            cpu.write(addr, size, value)?;
        }
        StringKind::Stos => {
            let addr = target(cpu, true)?;
            cpu.write(addr, size, cpu.state.gpr[reg::RAX])?;
            moves_si = false;
        }
        StringKind::Lods => {
            let value = source(cpu)?;
            let acc = cpu.state.gpr[reg::RAX];
            cpu.state.gpr[reg::RAX] = if size == 4 { value } else { acc & !value_mask | value };
            moves_di = false;
        }
        StringKind::Cmps | StringKind::Scas => {
            let left = if insn.kind == StringKind::Cmps { source(cpu)? } else { cpu.state.gpr[reg::RAX] & value_mask };
            let addr = target(cpu, false)?;
            let right = cpu.read(addr, size)?;
            equal = left == right;
            cpu.state.cc_op = CcOp { kind: CcKind::Sub, log2: insn.log2 }.encode();
            cpu.state.cc_dst = left.wrapping_sub(right) & value_mask;
            cpu.state.cc_src = right;
            moves_si = insn.kind == StringKind::Cmps;
        }
        StringKind::Ins => {
            let port = cpu.state.gpr[reg::RDX] as u16;
            cpu.check_io(port, size)?;
            let addr = target(cpu, true)?;
            cpu.probe_write(addr, size.into())?;
            let value = cpu.bus.port_in(port, size);
            cpu.write(addr, size, value.into())?;
            moves_si = false;
        }
        StringKind::Outs => {
            let port = cpu.state.gpr[reg::RDX] as u16;
            cpu.check_io(port, size)?;
            let value = source(cpu)?;
            cpu.port_out(port, size, value as u32);
            moves_di = false;
        }
    }
    if moves_si {
        set_masked(cpu, reg::RSI, si.wrapping_add(step), mask);
    }
    if moves_di {
        set_masked(cpu, reg::RDI, di.wrapping_add(step), mask);
    }
    Ok(equal)
}
