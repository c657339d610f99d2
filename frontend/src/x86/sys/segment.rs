//! Segment registers, descriptor-table registers and the instructions that look at descriptors.

use super::super::cpu::{Cpu, Result};
use super::super::exception::{Exception, vector};
use super::super::state::{Cr4, Seg, Segment, TableReg};
use super::descriptor::{Descriptor, is_null, kind, rpl};
use super::{done, value};

/// Access rights of a writable data segment as real and virtual-8086 mode have it.
const REAL_ACCESS: u16 = 0x93;

impl Cpu {
    /// What loading `selector` into `seg` gives in real and virtual-8086 mode. In real mode limit and attributes stay as
    /// they are (SDM vol. 3A, 20.1.1 and 9.9.2: segments that protected mode left large stay large).
    pub(crate) fn real_segment(&self, seg: Seg, selector: u16) -> Segment {
        let base = u64::from(selector) << 4;
        let old = self.state.seg[seg as usize];
        if self.state.vm86() {
            Segment { base, limit: 0xffff, selector, access: REAL_ACCESS | 0x60 }
        } else if old.present() {
            Segment { base, selector, ..old }
        } else {
            Segment { base, limit: 0xffff, selector, access: REAL_ACCESS }
        }
    }

    /// Loads DS, ES, FS, GS or SS as MOV and POP do (SDM vol. 2B, MOV).
    pub fn load_segment(&mut self, seg: Seg, selector: u16) -> Result<()> {
        let cpl = self.state.cpl();
        let segment = if self.mode.real_or_vm86() {
            self.real_segment(seg, selector)
        } else if seg != Seg::Ss {
            self.data_segment(selector, cpl, vector::GP, 0)?
        } else if is_null(selector) && self.state.code64() && cpl < 3 && rpl(selector) == cpl {
            null_stack(cpl)
        } else {
            self.stack_segment(selector, cpl, vector::GP, 0)?
        };
        self.state.seg[seg as usize] = segment;
        self.update_mode();
        Ok(())
    }

    /// Linear address of `size` bytes at `offset` of `seg`, checked. `stack` makes the fault #SS for other segments too.
    pub fn segment_address(&mut self, seg: Seg, offset: u64, size: u64, write: bool, stack: bool) -> Result<u64> {
        self.reachable_address(seg, offset, size, write).ok_or_else(|| {
            let vector = if stack || seg == Seg::Ss { vector::SS } else { vector::GP };
            self.raise(Exception::with_code(vector, 0))
        })
    }

    /// Linear address of `size` bytes at `offset` of `seg`; `None` if the segment does not have them or not so.
    pub(crate) fn reachable_address(&self, seg: Seg, offset: u64, size: u64, write: bool) -> Option<u64> {
        let segment = self.state.seg[seg as usize];
        let last = size.max(1) - 1;
        if self.state.code64() {
            let base = if matches!(seg, Seg::Fs | Seg::Gs) { segment.base } else { 0 };
            let address = base.wrapping_add(offset);
            (self.state.canonical(address) && self.state.canonical(address.wrapping_add(last))).then_some(address)
        } else {
            let offset = offset & 0xffff_ffff;
            let usable = self.mode.real_or_vm86()
                || segment.present() && if write { segment.writable() } else { segment.readable() };
            let inside = usable && within_limit(&segment, offset, last);
            inside.then(|| segment.base.wrapping_add(offset) & 0xffff_ffff)
        }
    }
}

/// Linear address of `size` bytes at `offset` of `seg`, as of [`Cpu::segment_address`], for instructions other than pushes
/// and pops.
pub fn address(cpu: &mut Cpu, seg: Seg, offset: u64, size: u64, write: bool) -> Result<u64> {
    cpu.segment_address(seg, offset, size, write, false)
}

/// SS as 64-bit mode has it without a descriptor: null, with the privilege level that it stands for.
pub(crate) const fn null_stack(cpl: u8) -> Segment {
    Segment { base: 0, limit: 0, selector: cpl as u16, access: (cpl as u16) << 5 }
}

/// Whether bytes `offset..=offset + last` are inside a segment (SDM vol. 3A, 5.3).
pub(crate) const fn within_limit(segment: &Segment, offset: u64, last: u64) -> bool {
    let end = offset + last;
    if segment.is_code_or_data() && segment.expand_down() {
        let top = if segment.default_big() { 0xffff_ffff } else { 0xffff };
        offset > segment.limit as u64 && end <= top
    } else {
        end <= segment.limit as u64
    }
}

fn seg_of(number: u32) -> Option<Seg> {
    Seg::ALL.get(number as usize).copied()
}

/// MOV, POP or L*S to segment register `arg` of selector `a`. #UD for CS and numbers that do not exist.
pub extern "C" fn load_seg(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(match seg_of(arg).filter(|&seg| seg != Seg::Cs) {
        Some(seg) => cpu.load_segment(seg, a as u16),
        None => Err(cpu.ud()),
    })
}

/// Linear address of offset `a`; `arg`: segment register in bits 0..8, size in bytes in bits 8..16, bit 16 for a write,
/// bit 17 for a stack access.
pub extern "C" fn linear(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    value(match seg_of(arg & 0xff) {
        Some(seg) => cpu.segment_address(seg, a, u64::from(arg >> 8 & 0xff), arg & 1 << 16 != 0, arg & 1 << 17 != 0),
        None => Err(cpu.ud()),
    })
}

/// What an instruction that only asks about a selector may look at: `None` makes it clear ZF. `systems` is the set of
/// system types it accepts, as a bit mask.
fn visible(cpu: &mut Cpu, selector: u16, systems: u16) -> Result<Option<Descriptor>> {
    cpu.require_protected()?;
    if is_null(selector) {
        return Ok(None);
    }
    let Some(descriptor) = cpu.find_descriptor(selector)? else { return Ok(None) };
    let known = !descriptor.is_system() || systems & 1 << descriptor.kind() != 0;
    let privileged = descriptor.conforming() || descriptor.dpl() >= cpu.state.cpl().max(rpl(selector));
    Ok(Some(descriptor).filter(|_| known && privileged))
}

const fn set(kinds: &[u16]) -> u16 {
    let mut bits = 0;
    let mut i = 0;
    while i < kinds.len() {
        bits |= 1 << kinds[i];
        i += 1;
    }
    bits
}

/// System types with a limit: in IA-32e mode, and legacy.
const LSL_KINDS: [u16; 2] = [
    set(&[kind::LDT, kind::TSS32, kind::TSS32_BUSY]),
    set(&[kind::LDT, kind::TSS16, kind::TSS16_BUSY, kind::TSS32, kind::TSS32_BUSY]),
];

/// System types that LAR knows: in IA-32e mode, and legacy.
const LAR_KINDS: [u16; 2] =
    [LSL_KINDS[0] | set(&[kind::CALL32]), LSL_KINDS[1] | set(&[kind::CALL16, kind::TASK_GATE, kind::CALL32])];

/// ZF in the value of [`lar`] and [`lsl`].
const FOUND: u64 = 1 << 32;

/// LAR of selector `a`: access rights, with bit 32 set when ZF is to be.
pub extern "C" fn lar(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    let kinds = LAR_KINDS[usize::from(!cpu.state.long_active())];
    let found = visible(cpu, a as u16, kinds);
    value(found.map(|d| d.map_or(0, |d| FOUND | d.raw >> 32 & 0x00f0_ff00)))
}

/// LSL of selector `a`: limit in bytes, with bit 32 set when ZF is to be.
pub extern "C" fn lsl(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    let kinds = LSL_KINDS[usize::from(!cpu.state.long_active())];
    let found = visible(cpu, a as u16, kinds);
    value(found.map(|d| d.map_or(0, |d| FOUND | u64::from(d.segment(0).limit))))
}

fn verify(cpu: &mut Cpu, selector: u64, allowed: fn(&Segment) -> bool) -> u64 {
    let found = visible(cpu, selector as u16, 0);
    value(found.map(|d| d.is_some_and(|d| allowed(&d.segment(0))).into()))
}

/// ARPL of the word at linear address `a` with selector `b`: ZF. Memory is written only when its RPL is raised.
pub extern "C" fn arpl(cpu: &mut Cpu, a: u64, b: u64, _: u64, _: u32) -> u64 {
    fn run(cpu: &mut Cpu, addr: u64, src: u64) -> Result<u64> {
        let dst = cpu.read(addr, 2)?;
        let raised = dst & 3 < src & 3;
        if raised {
            cpu.write(addr, 2, dst & !3 | src & 3)?;
        }
        Ok(raised.into())
    }
    value(run(cpu, a, b))
}

/// VERR of selector `a`: whether ZF is to be set.
pub extern "C" fn verr(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    verify(cpu, a, Segment::readable)
}

/// VERW of selector `a`: whether ZF is to be set.
pub extern "C" fn verw(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    verify(cpu, a, Segment::writable)
}

/// A present system descriptor in the GDT with one of the types `kinds`, for LLDT and LTR.
fn gdt_system(cpu: &mut Cpu, selector: u16, kinds: u16) -> Result<Descriptor> {
    if selector & 4 != 0 {
        return Err(cpu.selector_fault(vector::GP, selector, 0));
    }
    let descriptor = cpu.descriptor(selector, vector::GP, 0)?;
    if !descriptor.is_system() || kinds & 1 << descriptor.kind() == 0 {
        return Err(cpu.selector_fault(vector::GP, selector, 0));
    }
    if !descriptor.present() {
        return Err(cpu.selector_fault(vector::NP, selector, 0));
    }
    let descriptor = cpu.complete_system_descriptor(selector, descriptor)?;
    if !cpu.state.canonical(descriptor.segment(selector).base) {
        return Err(cpu.selector_fault(vector::GP, selector, 0));
    }
    Ok(descriptor)
}

/// LLDT of selector `a`.
pub extern "C" fn lldt(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    fn load(cpu: &mut Cpu, selector: u16) -> Result<()> {
        cpu.require_protected()?;
        cpu.require_cpl0()?;
        cpu.state.ldtr = if is_null(selector) {
            Segment { base: 0, limit: 0, selector, access: 0 }
        } else {
            gdt_system(cpu, selector, set(&[kind::LDT]))?.segment(selector)
        };
        Ok(())
    }
    done(load(cpu, a as u16))
}

/// LTR of selector `a`.
pub extern "C" fn ltr(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    fn load(cpu: &mut Cpu, selector: u16) -> Result<()> {
        cpu.require_protected()?;
        cpu.require_cpl0()?;
        if is_null(selector) {
            return Err(cpu.gp0());
        }
        let kinds = if cpu.state.long_active() { set(&[kind::TSS32]) } else { set(&[kind::TSS16, kind::TSS32]) };
        let descriptor = gdt_system(cpu, selector, kinds)?;
        cpu.mark_busy(&descriptor, true)?;
        cpu.state.tr = descriptor.segment(selector);
        cpu.state.tr.access |= kind::BUSY;
        Ok(())
    }
    done(load(cpu, a as u16))
}

fn table(cpu: &mut Cpu, base: u64, limit: u64) -> Result<TableReg> {
    cpu.require_cpl0()?;
    if cpu.state.code64() {
        cpu.require_canonical(base)?;
        Ok(TableReg { base, limit: limit & 0xffff })
    } else {
        Ok(TableReg { base: base & 0xffff_ffff, limit: limit & 0xffff })
    }
}

/// LGDT of base `a` and limit `b`.
pub extern "C" fn lgdt(cpu: &mut Cpu, a: u64, b: u64, _: u64, _: u32) -> u64 {
    done(table(cpu, a, b).map(|register| cpu.state.gdtr = register))
}

/// LIDT of base `a` and limit `b`.
pub extern "C" fn lidt(cpu: &mut Cpu, a: u64, b: u64, _: u64, _: u32) -> u64 {
    done(table(cpu, a, b).map(|register| cpu.state.idtr = register))
}

/// #GP(0) where SGDT, SIDT, SLDT, SMSW and STR are forbidden: CR4.UMIP and CPL above 0.
pub extern "C" fn check_umip(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(if cpu.state.cr4.contains(Cr4::UMIP) { cpu.require_cpl0() } else { Ok(()) })
}
