//! Repeated string instructions, and INS and OUTS (SDM vol. 2B, REP).

use mimus_softmmu::bulk::{Compared, Comparison, Elements};
use mimus_softmmu::{PAGE_SIZE, Verdict};
use std::sync::atomic::Ordering;

use super::cpu::{Cpu, Raised, Result};
use super::flags::{CcKind, CcOp};
use super::mode::Mode;
use super::state::{Dr6, Rflags, Seg, State, reg};
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

impl StringKind {
    /// Whether it reads what the source index points at.
    const fn has_source(self) -> bool {
        matches!(self, StringKind::Movs | StringKind::Cmps | StringKind::Lods | StringKind::Outs)
    }

    /// Whether it accesses what the destination index points at.
    const fn has_target(self) -> bool {
        !matches!(self, StringKind::Lods | StringKind::Outs)
    }

    /// Whether it sets the flags, and a repetition looks at them.
    const fn compares(self) -> bool {
        matches!(self, StringKind::Cmps | StringKind::Scas)
    }
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

/// How much of a page goes to a device at once: devices are locked meanwhile.
const OUT_BYTES: usize = 512;

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
    // A trap may follow any element.
    let traps = cpu.mode.intersects(Mode::TF | Mode::BREAKPOINTS);
    loop {
        let count = cpu.state.gpr[reg::RCX] & mask;
        if count == 0 {
            return Ok(());
        }
        let paged = if traps { None } else { page(cpu, insn, mask, count)? };
        let (done, equal) = match paged {
            Some(paged) => paged,
            None => (1, element(cpu, insn, mask)?),
        };
        set_masked(cpu, reg::RCX, count - done, mask);
        if insn.kind.compares() && equal != (insn.repeat == Repeat::WhileEqual) {
            return Ok(());
        }
        let unfinished = count != done;
        if traps && unfinished {
            stop_for_trap(cpu)?;
        }
        poll(cpu, unfinished)?;
    }
}

/// The linear address of an element of `size` bytes that is followed by a page of others, or with `down` preceded by so many,
/// before addresses wrap or the segment ends; `None` otherwise.
fn open_address(cpu: &Cpu, (seg, offset): (Seg, u64), mask: u64, (size, down): (u8, bool), write: bool) -> Option<u64> {
    let back = if down { PAGE_SIZE - u64::from(size) } else { 0 };
    let low = offset.checked_sub(back).filter(|&low| low <= mask - PAGE_SIZE)?;
    // What is looked at most: whether addresses are canonical is seen as they are translated.
    if cpu.mode.intersects(Mode::CODE64) {
        let base = if matches!(seg, Seg::Fs | Seg::Gs) { cpu.state.seg_base[seg as usize] } else { 0 };
        Some(base.wrapping_add(offset))
    } else if cpu.mode.open(seg) {
        Some(cpu.state.seg_base[seg as usize].wrapping_add(offset) & 0xffff_ffff)
    } else {
        cpu.reachable_address(seg, low, PAGE_SIZE, write).map(|address| address.wrapping_add(back) & 0xffff_ffff)
    }
}

/// Does up to `count` elements of those that are in the pages of the next one: how many, and whether the operands of the last one
/// were equal. `None` if the next one is to be done singly, which is where it faults, too.
fn page(cpu: &mut Cpu, insn: StringInsn, mask: u64, count: u64) -> Result<Option<(u64, bool)>> {
    let (kind, size) = (insn.kind, 1u8 << insn.log2);
    let down = cpu.state.flags.contains(Rflags::DF);
    let (si, di) = (cpu.state.gpr[reg::RSI] & mask, cpu.state.gpr[reg::RDI] & mask);
    let port = cpu.state.gpr[reg::RDX] as u16;
    if matches!(kind, StringKind::Ins | StringKind::Outs) {
        if down {
            return Ok(None);
        }
        cpu.check_io(port, size)?;
    }
    let open = |at, used, write| if used { open_address(cpu, at, mask, (size, down), write) } else { Some(0) };
    let from = open((insn.seg, si), kind.has_source(), false);
    let to = open((Seg::Es, di), kind.has_target(), !kind.compares());
    let (Some(from), Some(to)) = (from, to) else { return Ok(None) };
    let elements = Elements { size, count, down };
    let (done, equal) = match kind {
        StringKind::Cmps => compare_page(cpu, (Compared::With(from), to), elements, insn),
        StringKind::Scas => compare_page(cpu, (Compared::Value(cpu.state.gpr[reg::RAX]), to), elements, insn),
        StringKind::Ins | StringKind::Outs => (exchange_page(cpu, (port, kind), (from, to), elements), true),
        _ => (move_page(cpu, kind, (from, to), elements), true),
    };
    if done == 0 {
        return Ok(None);
    }
    advance(cpu, insn, mask, done);
    Ok(Some((done, equal)))
}

/// How many elements of MOVS, STOS or LODS are done at once: none where one is to be done singly, which raises a fault for what
/// comes first.
fn move_page(cpu: &mut Cpu, kind: StringKind, (from, to): (u64, u64), elements: Elements) -> u64 {
    let Core { state, bank, mmu, .. } = &mut cpu.core;
    let done = match kind {
        StringKind::Movs => mmu.copy(state, *bank, (to, from), elements),
        StringKind::Stos => mmu.fill(state, *bank, to, elements, state.gpr[reg::RAX]),
        _ => mmu.last(state, *bank, from, elements).map(|last| {
            last.map_or(0, |(done, value)| {
                load_accumulator(state, elements.size, value);
                done
            })
        }),
    };
    done.unwrap_or(0)
}

/// The same for INS and OUTS.
fn exchange_page(cpu: &mut Cpu, (port, kind): (u16, StringKind), (from, to): (u64, u64), elements: Elements) -> u64 {
    let Core { state, bus, bank, mmu, .. } = &mut cpu.core;
    let size = elements.size;
    if kind == StringKind::Ins {
        let bring = |bytes: &mut [u8]| bus.port_in_string(port, size, bytes);
        return mmu.take_in(state, *bank, to, elements, bring).unwrap_or(0);
    }
    let mut bytes = [0; OUT_BYTES];
    let taken = mmu.take_out(state, *bank, from, elements, &mut bytes).unwrap_or(0);
    if taken == 0 { 0 } else { cpu.port_out_string(port, size, &bytes[..taken as usize * usize::from(size)]) }
}

/// The same for CMPS and SCAS, and whether the last operands were equal.
fn compare_page(cpu: &mut Cpu, at: (Compared, u64), elements: Elements, insn: StringInsn) -> (u64, bool) {
    let Core { state, bank, mmu, .. } = &mut cpu.core;
    let found = mmu.compare(state, *bank, at, elements, insn.repeat == Repeat::WhileEqual);
    match found.unwrap_or_default() {
        Some(Comparison { done, last }) => (done, set_flags(state, insn.log2, last)),
        None => (0, true),
    }
}

/// Leaves in the flags what a comparison of elements does; whether they are equal.
fn set_flags(state: &mut State, log2: u8, (left, right): (u64, u64)) -> bool {
    state.set_cc_op(CcOp { kind: CcKind::Sub, log2 });
    state.cc_dst = left.wrapping_sub(right) & element_mask(log2);
    state.cc_src = right;
    left == right
}

/// Puts an element of `size` bytes into the accumulator.
fn load_accumulator(state: &mut State, size: u8, value: u64) {
    let kept = if size == 4 { 0 } else { !element_mask(size.ilog2() as u8) };
    state.gpr[reg::RAX] = state.gpr[reg::RAX] & kept | value;
}

/// The bits of an element of 1 << `log2` bytes.
const fn element_mask(log2: u8) -> u64 {
    u64::MAX >> (64 - (8 << log2))
}

/// Moves the index registers over `count` elements.
fn advance(cpu: &mut Cpu, insn: StringInsn, mask: u64, count: u64) {
    let bytes = count << insn.log2;
    let step = if cpu.state.flags.contains(Rflags::DF) { bytes.wrapping_neg() } else { bytes };
    for (index, moves) in [(reg::RSI, insn.kind.has_source()), (reg::RDI, insn.kind.has_target())] {
        if moves {
            set_masked(cpu, index, (cpu.state.gpr[index] & mask).wrapping_add(step), mask);
        }
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
    let si = cpu.state.gpr[reg::RSI] & mask;
    let di = cpu.state.gpr[reg::RDI] & mask;
    let source = |cpu: &mut Cpu| {
        let addr = segment::address(cpu, insn.seg, si, size.into(), false)?;
        cpu.read(addr, size)
    };
    let target = |cpu: &mut Cpu, write: bool| segment::address(cpu, Seg::Es, di, size.into(), write);
    let mut equal = true;
    match insn.kind {
        StringKind::Movs => {
            let value = source(cpu)?;
            let addr = target(cpu, true)?;
            cpu.write(addr, size, value)?;
        }
        StringKind::Stos => {
            let addr = target(cpu, true)?;
            cpu.write(addr, size, cpu.state.gpr[reg::RAX])?;
        }
        StringKind::Lods => {
            let value = source(cpu)?;
            load_accumulator(&mut cpu.state, size, value);
        }
        StringKind::Cmps | StringKind::Scas => {
            let accumulator = cpu.state.gpr[reg::RAX] & element_mask(insn.log2);
            let left = if insn.kind == StringKind::Cmps { source(cpu)? } else { accumulator };
            let addr = target(cpu, false)?;
            let right = cpu.read(addr, size)?;
            equal = set_flags(&mut cpu.state, insn.log2, (left, right));
        }
        StringKind::Ins => {
            let port = cpu.state.gpr[reg::RDX] as u16;
            cpu.check_io(port, size)?;
            let addr = target(cpu, true)?;
            cpu.probe_write(addr, size.into())?;
            let value = cpu.bus.port_in(port, size);
            cpu.write(addr, size, value.into())?;
        }
        StringKind::Outs => {
            let port = cpu.state.gpr[reg::RDX] as u16;
            cpu.check_io(port, size)?;
            let value = source(cpu)?;
            cpu.port_out(port, size, value as u32);
        }
    }
    advance(cpu, insn, mask, 1);
    Ok(equal)
}
