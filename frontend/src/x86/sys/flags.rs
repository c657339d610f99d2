//! Instructions on the system flags: PUSHF, POPF, CLI, STI, CLAC, STAC.

use super::super::cpu::{Cpu, Result};
use super::super::state::{Cr4, Dr7, Rflags, shadow};
use super::{done, truncate, value};

/// Flags that any program may change.
const OPEN: Rflags = Rflags::of(&[Rflags::ARITH, Rflags::TF, Rflags::DF, Rflags::NT, Rflags::AC, Rflags::ID]);

/// Flags that [`super::super::Mode`] depends on.
const MODE: Rflags = Rflags::of(&[Rflags::TF, Rflags::AC, Rflags::VM]);

impl Cpu {
    /// Loads RFLAGS from an image of `size` bytes: the flags open to all, and those of `also`.
    pub(crate) fn load_flags(&mut self, image: Rflags, size: u8, also: Rflags) {
        let mask = OPEN | also;
        let mask = if size == 2 { mask & Rflags::FLAGS } else { mask };
        let old = self.state.rflags();
        let stale = self.stale_resume();
        self.state.set_rflags((old & !mask | image & mask) & !stale);
        if (old ^ self.state.flags).intersects(MODE) {
            self.update_mode();
        }
    }

    /// RF where no breakpoint is armed. There it has no effect for the one instruction that it lasts, and nobody would clear
    /// it afterwards: it is not loaded.
    pub(crate) fn stale_resume(&self) -> Rflags {
        if self.state.dr7.intersects(Dr7::ENABLES) { Rflags::empty() } else { Rflags::RF }
    }

    /// Loads FLAGS from a 16-bit image with VIF in the place of IF (SDM vol. 3B, 20.3.3.4).
    pub(crate) fn load_virtual_flags(&mut self, image: Rflags) -> Result<()> {
        let open = image.contains(Rflags::IF);
        if self.state.flags.contains(Rflags::VIP) && open || image.contains(Rflags::TF) {
            return Err(self.gp0());
        }
        self.load_flags(image, 2, Rflags::empty());
        self.state.flags.set(Rflags::VIF, open);
        Ok(())
    }

    /// Whether virtual-8086 mode keeps the program from IF: IOPL below 3.
    fn virtual_if(&self) -> bool {
        self.state.vm86() && self.state.iopl() < 3
    }

    fn pushf(&mut self, size: u32) -> Result<u64> {
        let mut flags = self.state.rflags() & !(Rflags::VM | Rflags::RF);
        if self.virtual_if() {
            if !self.state.cr4.contains(Cr4::VME) || size != 2 {
                return Err(self.gp0());
            }
            flags = flags.seen_virtualized();
        }
        Ok(truncate(flags.bits(), size))
    }

    fn popf(&mut self, image: Rflags, size: u32) -> Result<()> {
        if self.virtual_if() {
            if !self.state.cr4.contains(Cr4::VME) || size != 2 {
                return Err(self.gp0());
            }
            return self.load_virtual_flags(image);
        }
        let cpl = self.state.cpl();
        let mut also = Rflags::empty();
        also.set(Rflags::IOPL, cpl == 0);
        also.set(Rflags::IF, cpl <= self.state.iopl());
        self.load_flags(image, if size == 2 { 2 } else { 8 }, also);
        self.state.flags.remove(Rflags::RF);
        Ok(())
    }

    /// Which flag CLI and STI change: IF, or VIF under VME and PVI (SDM vol. 2A, CLI, table 3-7).
    fn interrupt_flag(&mut self) -> Result<Rflags> {
        let s = &self.state;
        if !s.protected() || s.iopl() >= s.cpl() {
            return Ok(Rflags::IF);
        }
        let virtualized = if s.vm86() { s.cr4.contains(Cr4::VME) } else { s.cpl() == 3 && s.cr4.contains(Cr4::PVI) };
        if virtualized { Ok(Rflags::VIF) } else { Err(self.gp0()) }
    }

    fn sti(&mut self) -> Result<()> {
        let flag = self.interrupt_flag()?;
        if flag == Rflags::VIF && self.state.flags.contains(Rflags::VIP) {
            return Err(self.gp0());
        }
        let opens = flag == Rflags::IF && !self.state.flags.contains(Rflags::IF);
        self.state.flags |= flag;
        self.open_interrupts();
        self.state.shadow = if opens { shadow::INTERRUPTS } else { 0 };
        Ok(())
    }

    fn set_access_check(&mut self, ac: bool) -> Result<()> {
        if self.state.cpl() != 0 {
            return Err(self.ud());
        }
        if self.state.flags.contains(Rflags::AC) != ac {
            self.state.flags.toggle(Rflags::AC);
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
    done(cpu.popf(Rflags::from_bits_retain(a), arg).map(|()| cpu.open_interrupts()))
}

/// CLI.
pub extern "C" fn cli(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.interrupt_flag().map(|flag| cpu.state.flags.remove(flag)))
}

/// STI.
pub extern "C" fn sti(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.sti())
}

/// CLAC.
pub extern "C" fn clac(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.set_access_check(false))
}

/// STAC.
pub extern "C" fn stac(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.set_access_check(true))
}
