//! Stacks as transfers and interrupts push to and pop from, and ENTER.

use smallvec::SmallVec;

use super::super::cpu::{Cpu, Result, bank};
use super::super::exception::{Exception, vector};
use super::super::state::{Cr4, Rflags, Seg, Segment, reg};
use super::segment::within_limit;
use super::{done, truncate};

/// A stack that is current or about to be.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    segment: Segment,
    /// 64-bit: no base, no limit.
    wide: bool,
    /// Bits of the stack pointer in use.
    mask: u64,
    /// Stack pointer, whole register.
    pub sp: u64,
    /// MMU mode of accesses.
    bank: usize,
    /// Error code of #SS.
    code: u32,
}

impl Stack {
    /// The stack that SS:RSP is.
    pub fn current(cpu: &Cpu) -> Stack {
        let segment = cpu.state.seg[Seg::Ss as usize];
        Stack {
            segment,
            wide: cpu.state.code64(),
            mask: cpu.stack_mask(),
            sp: cpu.state.gpr[reg::RSP],
            bank: cpu.bank,
            code: 0,
        }
    }

    /// A stack to switch to, at privilege level `cpl`; `code` is the error code of its #SS.
    pub fn new(cpu: &Cpu, segment: Segment, sp: u64, cpl: u8, wide: bool, code: u32) -> Stack {
        let mask = match (wide, segment.default_big()) {
            (true, _) => u64::MAX,
            (false, true) => 0xffff_ffff,
            (false, false) => 0xffff,
        };
        Stack { segment, wide, mask, sp, bank: cpu.data_bank(cpl), code }
    }

    /// The same stack with another error code for its #SS.
    pub fn with_code(self, code: u32) -> Stack {
        Stack { code, ..self }
    }

    fn address(&self, cpu: &mut Cpu, sp: u64, size: u8) -> Result<u64> {
        let last = u64::from(size) - 1;
        let (inside, address) = if self.wide {
            (cpu.state.canonical(sp) && cpu.state.canonical(sp.wrapping_add(last)), sp)
        } else {
            let usable = cpu.mode.real_or_vm86() || self.segment.present();
            let address = self.segment.base.wrapping_add(sp) & 0xffff_ffff;
            (usable && within_limit(&self.segment, sp, last), address)
        };
        if inside { Ok(address) } else { Err(cpu.raise(Exception::with_code(vector::SS, self.code))) }
    }

    /// Pushes `values`, `size` bytes each, all or none, and moves `sp`.
    pub fn push(&mut self, cpu: &mut Cpu, size: u8, values: &[u64]) -> Result<()> {
        let mut addresses = SmallVec::<[u64; 16]>::new();
        let mut sp = self.sp;
        for _ in values {
            sp = sp.wrapping_sub(size.into()) & self.mask;
            addresses.push(self.address(cpu, sp, size)?);
        }
        // Within one page the first write is the check for all others.
        let page = |a: &u64| a & !0xfff;
        let one_page =
            addresses.iter().all(|a| page(a) == page(&addresses[0]) && a & 0xfff <= 0x1000 - u64::from(size));
        if !one_page {
            for &address in &addresses {
                cpu.probe_write_as(self.bank, address, size.into())?;
            }
        }
        for (&address, &value) in addresses.iter().zip(values) {
            cpu.write_as(self.bank, address, size, value)?;
        }
        self.sp = self.sp & !self.mask | sp & self.mask;
        Ok(())
    }

    /// Pops `size` bytes and moves `sp`.
    pub fn pop(&mut self, cpu: &mut Cpu, size: u8) -> Result<u64> {
        let sp = self.sp & self.mask;
        let address = self.address(cpu, sp, size)?;
        let value = cpu.read_as(self.bank, address, size)?;
        self.release(size.into());
        Ok(value)
    }

    /// Moves `sp` over `bytes`.
    pub fn release(&mut self, bytes: u64) {
        self.sp = self.sp & !self.mask | self.sp.wrapping_add(bytes) & self.mask;
    }

    /// Puts the stack pointer into RSP; a 16-bit one leaves the bits above alone.
    pub fn commit(&self, cpu: &mut Cpu) {
        let old = cpu.state.gpr[reg::RSP];
        cpu.state.gpr[reg::RSP] =
            if self.mask == 0xffff { old & !0xffff | self.sp & 0xffff } else { self.sp & self.mask };
    }
}

impl Cpu {
    /// MMU mode of data accesses at privilege level `cpl`.
    pub(crate) fn data_bank(&self, cpl: u8) -> usize {
        if cpl == 3 {
            bank::USER
        } else if self.state.cr4.contains(Cr4::SMAP) && !self.state.flags.contains(Rflags::AC) {
            bank::KERNEL_SMAP
        } else {
            bank::KERNEL
        }
    }

    /// [`Cpu::probe_write`] in MMU mode `bank`.
    pub(crate) fn probe_write_as(&mut self, bank: usize, addr: u64, size: u64) -> Result<()> {
        self.core.probe_write_in(bank, addr, size)
    }
}

/// ENTER with `a` bytes of locals at nesting level `b`; operand size in bytes in `arg` (SDM vol. 2A, ENTER).
pub extern "C" fn enter(cpu: &mut Cpu, a: u64, b: u64, _: u64, arg: u32) -> u64 {
    fn run(cpu: &mut Cpu, locals: u64, level: u64, size: u8) -> Result<()> {
        let mut stack = Stack::current(cpu);
        let bp = cpu.state.gpr[reg::RBP];
        let frame = bp_after_push(&stack, size);
        let step = u64::from(size);
        let pushes = if level == 0 { 1 } else { level + 1 };
        let display = |n: u64| bp.wrapping_sub(n * step);
        // Everything is checked before anything is written, in the order in which it is then done; the new top of the stack
        // is checked too.
        for (n, below) in (1..=pushes).map(|n| n * step).chain([pushes * step + locals]).enumerate() {
            let n = n as u64;
            if (1..level).contains(&n) {
                let address = stack.address(cpu, display(n) & stack.mask, size)?;
                cpu.read_as(stack.bank, address, size)?;
            }
            let address = stack.address(cpu, stack.sp.wrapping_sub(below) & stack.mask, size)?;
            cpu.probe_write_as(stack.bank, address, step)?;
        }
        stack.push(cpu, size, &[bp])?;
        for n in 1..level {
            // Read only now: it may be what was just pushed.
            let address = stack.address(cpu, display(n) & stack.mask, size)?;
            let value = cpu.read_as(stack.bank, address, size)?;
            stack.push(cpu, size, &[value])?;
        }
        if level > 0 {
            stack.push(cpu, size, &[frame])?;
        }
        stack.release(locals.wrapping_neg());
        stack.commit(cpu);
        let keep = if size == 2 { bp & !0xffff } else { 0 };
        cpu.state.gpr[reg::RBP] = keep | truncate(frame, size.into());
        Ok(())
    }
    let size = if matches!(arg, 2 | 4) { arg as u8 } else { 8 };
    done(run(cpu, a & 0xffff, b & 31, size))
}

/// The frame pointer ENTER makes: the stack pointer after its first push.
fn bp_after_push(stack: &Stack, size: u8) -> u64 {
    stack.sp & !stack.mask | stack.sp.wrapping_sub(size.into()) & stack.mask
}
