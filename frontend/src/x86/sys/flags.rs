//! Instructions on the system flags: PUSHF, POPF, CLI, STI, CLAC, STAC.

use super::super::cpu::{Cpu, Result};
use super::super::state::{Cr4, Dr7, rflags, shadow};
use super::{done, truncate, value};

/// Flags that any program may change.
const OPEN: u64 = rflags::ARITH | rflags::TF | rflags::DF | rflags::NT;

/// Flags above bit 15 that any program may change.
const OPEN_HIGH: u64 = rflags::AC | rflags::ID;

/// Flags that [`super::super::Mode`] depends on.
const MODE: u64 = rflags::TF | rflags::AC | rflags::VM;

impl Cpu {
    /// Loads RFLAGS from an image of `size` bytes: the flags open to all, and those of `also`.
    pub(crate) fn load_flags(&mut self, image: u64, size: u8, also: u64) {
        let mask = OPEN | OPEN_HIGH | also;
        let mask = if size == 2 { mask & 0xffff } else { mask };
        let old = self.state.rflags();
        let stale = self.stale_resume();
        self.state.set_rflags((old & !mask | image & mask) & !stale);
        if (old ^ self.state.flags) & MODE != 0 {
            self.update_mode();
        }
    }

    /// RF where no breakpoint is armed. There it has no effect for the one instruction that it lasts, and nobody would clear
    /// it afterwards: it is not loaded.
    pub(crate) fn stale_resume(&self) -> u64 {
        if self.state.dr7.intersects(Dr7::ENABLES) { 0 } else { rflags::RF }
    }

    /// Loads FLAGS from a 16-bit image with VIF in the place of IF (SDM vol. 3B, 20.3.3.4).
    pub(crate) fn load_virtual_flags(&mut self, image: u64) -> Result<()> {
        let pending = self.state.flags & rflags::VIP != 0 && image & rflags::IF != 0;
        if pending || image & rflags::TF != 0 {
            return Err(self.gp0());
        }
        self.load_flags(image, 2, 0);
        let vif = if image & rflags::IF != 0 { rflags::VIF } else { 0 };
        self.state.flags = self.state.flags & !rflags::VIF | vif;
        Ok(())
    }

    /// Whether virtual-8086 mode keeps the program from IF: IOPL below 3.
    fn virtual_if(&self) -> bool {
        self.state.vm86() && self.state.iopl() < 3
    }

    fn pushf(&mut self, size: u32) -> Result<u64> {
        let mut flags = self.state.rflags() & !(rflags::VM | rflags::RF);
        if self.virtual_if() {
            if !self.state.cr4.contains(Cr4::VME) || size != 2 {
                return Err(self.gp0());
            }
            let visible = if flags & rflags::VIF != 0 { rflags::IF } else { 0 };
            flags = flags & !rflags::IF | rflags::IOPL | visible;
        }
        Ok(truncate(flags, size))
    }

    fn popf(&mut self, image: u64, size: u32) -> Result<()> {
        if self.virtual_if() {
            if !self.state.cr4.contains(Cr4::VME) || size != 2 {
                return Err(self.gp0());
            }
            return self.load_virtual_flags(image);
        }
        let cpl = self.state.cpl();
        let mut also = 0;
        if cpl == 0 {
            also |= rflags::IOPL;
        }
        if cpl <= self.state.iopl() {
            also |= rflags::IF;
        }
        self.load_flags(image, if size == 2 { 2 } else { 8 }, also);
        self.state.flags &= !rflags::RF;
        Ok(())
    }

    /// Which flag CLI and STI change: IF, or VIF under VME and PVI (SDM vol. 2A, CLI, table 3-7).
    fn interrupt_flag(&mut self) -> Result<u64> {
        let s = &self.state;
        if !s.protected() || s.iopl() >= s.cpl() {
            return Ok(rflags::IF);
        }
        let virtualized = if s.vm86() { s.cr4.contains(Cr4::VME) } else { s.cpl() == 3 && s.cr4.contains(Cr4::PVI) };
        if virtualized { Ok(rflags::VIF) } else { Err(self.gp0()) }
    }

    fn sti(&mut self) -> Result<()> {
        let flag = self.interrupt_flag()?;
        if flag == rflags::VIF && self.state.flags & rflags::VIP != 0 {
            return Err(self.gp0());
        }
        let opens = flag == rflags::IF && self.state.flags & rflags::IF == 0;
        self.state.flags |= flag;
        self.open_interrupts();
        self.state.shadow = if opens { shadow::INTERRUPTS } else { 0 };
        Ok(())
    }

    fn set_access_check(&mut self, ac: u64) -> Result<()> {
        if self.state.cpl() != 0 {
            return Err(self.ud());
        }
        if self.state.flags & rflags::AC != ac {
            self.state.flags ^= rflags::AC;
            self.update_mode();
        }
        Ok(())
    }
}

/// What PUSHF with operand size `arg` pushes.
pub extern "C" fn pushf_value(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    value(cpu.pushf(arg))
}

/// POPF of the image `a` with operand size `arg`.
pub extern "C" fn popf(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.popf(a, arg).map(|()| cpu.open_interrupts()))
}

/// CLI.
pub extern "C" fn cli(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.interrupt_flag().map(|flag| cpu.state.flags &= !flag))
}

/// STI.
pub extern "C" fn sti(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.sti())
}

/// CLAC.
pub extern "C" fn clac(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.set_access_check(0))
}

/// STAC.
pub extern "C" fn stac(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.set_access_check(rflags::AC))
}
