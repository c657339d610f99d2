//! Control and debug registers, TLB control, HLT, SWAPGS and the FS/GS base instructions.

use super::super::cpu::{Cpu, Result};
use super::super::exception::Exception;
use super::super::features::Word;
use super::super::paging::PHYSICAL_MASK;
use super::super::state::{Cr0, Cr3, Cr4, Dr6, Dr7, Efer, Seg, State, halt};
use super::descriptor::kind;
use super::{done, truncate, value};

/// Bits of CR0 that exist.
const CR0_BITS: Cr0 =
    Cr0::of(&[Cr0::PE, Cr0::MP, Cr0::EM, Cr0::TS, Cr0::ET, Cr0::NE, Cr0::WP, Cr0::AM, Cr0::NW, Cr0::CD, Cr0::PG]);

/// Bits of CR0 on which translations depend.
const CR0_PAGING: Cr0 = Cr0::of(&[Cr0::PE, Cr0::WP, Cr0::PG]);

/// Bits of CR4 that exist; LA57 only where the CPU has it.
const CR4_BITS: Cr4 = Cr4::of(&[
    Cr4::VME,
    Cr4::PVI,
    Cr4::TSD,
    Cr4::DE,
    Cr4::PSE,
    Cr4::PAE,
    Cr4::MCE,
    Cr4::PGE,
    Cr4::PCE,
    Cr4::OSFXSR,
    Cr4::OSXMMEXCPT,
    Cr4::UMIP,
    Cr4::FSGSBASE,
    Cr4::PCIDE,
    Cr4::SMEP,
    Cr4::SMAP,
]);

/// Bits of CR4 that go with a feature which a guest may have been told is not there.
const CR4_FEATURES: [(Word, u8, Cr4); 10] = [
    (Word::Leaf1Edx, 1, Cr4::VME.union(Cr4::PVI)),
    (Word::Leaf1Edx, 2, Cr4::DE),
    (Word::Leaf1Edx, 3, Cr4::PSE),
    (Word::Leaf1Edx, 4, Cr4::TSD),
    (Word::Leaf1Edx, 13, Cr4::PGE),
    (Word::Leaf1Ecx, 17, Cr4::PCIDE),
    (Word::Leaf7Ebx, 0, Cr4::FSGSBASE),
    (Word::Leaf7Ebx, 7, Cr4::SMEP),
    (Word::Leaf7Ebx, 20, Cr4::SMAP),
    (Word::Leaf7Ecx, 2, Cr4::UMIP),
];

/// INVPCID in CPUID leaf 7's EBX.
const INVPCID: u32 = 1 << 10;

/// Bits of CR4 on which translations depend.
const CR4_PAGING: Cr4 = Cr4::of(&[Cr4::PSE, Cr4::PAE, Cr4::PGE, Cr4::LA57, Cr4::PCIDE, Cr4::SMEP, Cr4::SMAP]);

impl Cpu {
    /// The PDPTEs that legacy PAE paging loads from `cr3`; #GP(0) when one is invalid (SDM vol. 3A, 4.4.1).
    fn pdptes(&mut self, cr3: Cr3) -> Result<[u64; 4]> {
        State::read_pdptes(&self.mmu.ram, cr3).ok_or_else(|| self.gp0())
    }

    fn write_cr0(&mut self, new: Cr0) -> Result<()> {
        let old = self.state.cr0;
        let bad = new.bits() >> 32 != 0
            || new.contains(Cr0::PG) && !new.contains(Cr0::PE)
            || new.contains(Cr0::NW) && !new.contains(Cr0::CD)
            || !new.contains(Cr0::PG) && (self.state.cr4.contains(Cr4::PCIDE) || self.state.code64());
        if bad {
            return Err(self.gp0());
        }
        let new = new & CR0_BITS | Cr0::ET;
        let changed = old ^ new;
        let s = &self.state;
        let mut efer = s.efer;
        if changed.contains(Cr0::PG) && efer.contains(Efer::LME) {
            if !new.contains(Cr0::PG) {
                efer &= !Efer::LMA;
            } else {
                // A 16-bit TSS has no place in IA-32e mode (SDM vol. 3A, 9.8.5.1).
                let tss16 = s.tr.present() && s.tr.kind() & kind::WIDE == 0;
                if !s.cr4.contains(Cr4::PAE) || s.seg[Seg::Cs as usize].long() || tss16 {
                    return Err(self.gp0());
                }
                efer |= Efer::LMA;
            }
        }
        let pae = new.contains(Cr0::PG) && s.cr4.contains(Cr4::PAE) && !efer.contains(Efer::LMA);
        if pae && changed.intersects(Cr0::PG | Cr0::CD | Cr0::NW) {
            self.state.pdpte = self.pdptes(s.cr3)?;
        }
        self.state.cr0 = new;
        self.state.efer = efer;
        if changed.intersects(CR0_PAGING) {
            self.flush_tlb(false);
        }
        self.update_mode();
        Ok(())
    }

    fn write_cr3(&mut self, new: Cr3) -> Result<()> {
        let pcid = self.state.cr4.contains(Cr4::PCIDE);
        let keep = pcid && new.contains(Cr3::NO_FLUSH);
        let new = if pcid { new & !Cr3::NO_FLUSH } else { new };
        if self.state.long_active() && new.bits() & !PHYSICAL_MASK != 0 {
            return Err(self.gp0());
        }
        if self.state.pae_paging() {
            self.state.pdpte = self.pdptes(new)?;
        }
        self.state.cr3 = new;
        let pcid = self.pcid();
        self.enter_space(pcid, keep);
        Ok(())
    }

    /// The current PCID: 0 without CR4.PCIDE (SDM vol. 3A, 4.10.1).
    pub(crate) fn pcid(&self) -> u64 {
        if self.state.cr4.contains(Cr4::PCIDE) { self.state.cr3.pcid() } else { 0 }
    }

    fn write_cr4(&mut self, new: Cr4) -> Result<()> {
        let old = self.state.cr4;
        let changed = old ^ new;
        let long = self.state.long_active();
        let exists = CR4_BITS | if self.features.la57 { Cr4::LA57 } else { Cr4::empty() };
        let exists = exists & !self.features.hidden.register_bits(&CR4_FEATURES);
        let pcid_on = (changed & new).contains(Cr4::PCIDE);
        let bad = !exists.contains(new)
            || long && (!new.contains(Cr4::PAE) || changed.contains(Cr4::LA57))
            || pcid_on && (!long || self.state.cr3.pcid() != 0);
        if bad {
            return Err(self.gp0());
        }
        let pae = self.state.cr0.contains(Cr0::PG) && new.contains(Cr4::PAE) && !long;
        if pae && changed.intersects(Cr4::PAE | Cr4::PSE | Cr4::PGE | Cr4::SMEP) {
            self.state.pdpte = self.pdptes(self.state.cr3)?;
        }
        self.state.cr4 = new;
        if changed.intersects(CR4_PAGING) {
            self.flush_tlb(false);
        }
        self.update_mode();
        Ok(())
    }

    fn write_cr(&mut self, number: u32, new: u64) -> Result<()> {
        self.require_cpl0()?;
        let new = truncate(new, if self.state.code64() { 8 } else { 4 });
        match number {
            0 => self.write_cr0(Cr0::from_bits_retain(new)),
            2 => {
                self.state.cr2 = new;
                Ok(())
            }
            3 => self.write_cr3(Cr3::from_bits_retain(new)),
            4 => self.write_cr4(Cr4::from_bits_retain(new)),
            8 if new >> 4 != 0 => Err(self.gp0()),
            8 => {
                self.bus.set_tpr((new << 4) as u8);
                Ok(())
            }
            _ => Err(self.ud()),
        }
    }

    fn read_cr(&mut self, number: u32) -> Result<u64> {
        self.require_cpl0()?;
        match number {
            0 => Ok(self.state.cr0.bits()),
            2 => Ok(self.state.cr2),
            3 => Ok(self.state.cr3.bits()),
            4 => Ok(self.state.cr4.bits()),
            8 => Ok(u64::from(self.bus.tpr() >> 4)),
            _ => Err(self.ud()),
        }
    }

    /// The debug register that `number` means: 4 and 5 are aliases of 6 and 7 unless CR4.DE says they do not exist
    /// (SDM vol. 3B, 17.2.2).
    fn debug_register(&mut self, number: u32) -> Result<usize> {
        if number > 7 || matches!(number, 4 | 5) && self.state.cr4.contains(Cr4::DE) {
            return Err(self.ud());
        }
        self.require_cpl0()?;
        if self.state.dr7.contains(Dr7::GD) {
            return Err(self.raise(Exception::debug(Dr6::BD)));
        }
        Ok(if matches!(number, 4 | 5) { number as usize + 2 } else { number as usize })
    }

    fn read_dr(&mut self, number: u32) -> Result<u64> {
        Ok(match self.debug_register(number)? {
            6 => self.state.dr6.bits(),
            7 => self.state.dr7.bits(),
            number => self.state.dr[number & 3],
        })
    }

    fn write_dr(&mut self, number: u32, new: u64) -> Result<()> {
        let number = self.debug_register(number)?;
        let new = truncate(new, if self.state.code64() { 8 } else { 4 });
        match number {
            6 | 7 if new >> 32 != 0 => return Err(self.gp0()),
            // Reserved bits read as fixed values (SDM vol. 3B, 17.2.3, 17.2.4).
            6 => self.state.dr6 = Dr6::from_bits_retain(new) & Dr6::WRITABLE | Dr6::FIXED,
            7 => self.state.dr7 = Dr7::from_bits_retain(new) & Dr7::WRITABLE | Dr7::FIXED,
            _ => {
                self.require_canonical(new)?;
                self.state.dr[number & 3] = new;
            }
        }
        self.update_mode();
        self.update_data_breakpoints();
        Ok(())
    }

    fn invpcid(&mut self, kind: u64, low: u64, address: u64) -> Result<()> {
        const ADDRESS: u64 = 0;
        const CONTEXT: u64 = 1;
        const ALL: u64 = 2;
        const ALL_NON_GLOBAL: u64 = 3;
        if self.features.hidden.word(Word::Leaf7Ebx) & INVPCID != 0 {
            return Err(self.ud());
        }
        self.require_cpl0()?;
        let pcid = low & 0xfff;
        let pcid_off = !self.state.cr4.contains(Cr4::PCIDE) && pcid != 0;
        if kind > ALL_NON_GLOBAL || low >> 12 != 0 || matches!(kind, ADDRESS | CONTEXT) && pcid_off {
            return Err(self.gp0());
        }
        match kind {
            ADDRESS => {
                self.require_canonical(address)?;
                self.flush_page(address);
            }
            CONTEXT => self.flush_space(pcid),
            ALL => self.flush_tlb(false),
            _ => self.flush_tlb(true),
        }
        Ok(())
    }

    fn halt(&mut self, next_rip: u64) -> Result<()> {
        self.require_cpl0()?;
        self.state.rip = next_rip;
        self.state.halted = halt::INTERRUPT;
        self.state.shadow = 0;
        Ok(())
    }

    /// Segment and operand size of RDFSBASE and its kin. #UD outside 64-bit mode and without CR4.FSGSBASE.
    fn base_operand(&mut self, arg: u32) -> Result<(Seg, u32)> {
        if !self.state.code64() || !self.state.cr4.contains(Cr4::FSGSBASE) {
            return Err(self.ud());
        }
        Ok((if arg & 1 == 0 { Seg::Fs } else { Seg::Gs }, arg >> 8 & 0xff))
    }

    fn write_base(&mut self, base: u64, arg: u32) -> Result<()> {
        let (seg, size) = self.base_operand(arg)?;
        let base = truncate(base, size);
        self.require_canonical(base)?;
        self.set_segment_base(seg, base);
        Ok(())
    }

    /// Sets the base of a segment and nothing else.
    pub(crate) fn set_segment_base(&mut self, seg: Seg, base: u64) {
        self.state.seg[seg as usize].base = base;
        self.state.sync_seg_bases();
    }
}

/// MOV from control register `arg`.
pub extern "C" fn read_cr(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    value(cpu.read_cr(arg))
}

/// MOV of `a` to control register `arg`.
pub extern "C" fn write_cr(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.write_cr(arg, a))
}

/// MOV from debug register `arg`.
pub extern "C" fn read_dr(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    value(cpu.read_dr(arg))
}

/// MOV of `a` to debug register `arg`.
pub extern "C" fn write_dr(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.write_dr(arg, a))
}

/// CLTS.
pub extern "C" fn clts(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.require_cpl0().map(|()| {
        cpu.state.cr0 &= !Cr0::TS;
        cpu.update_mode();
    }))
}

/// LMSW of `a`: sets PE, MP, EM and TS; PE can only be set (SDM vol. 2A, LMSW).
pub extern "C" fn lmsw(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    let old = cpu.state.cr0;
    let set = Cr0::from_bits_retain(a) & (Cr0::PE | Cr0::MP | Cr0::EM | Cr0::TS);
    let new = old & !(Cr0::MP | Cr0::EM | Cr0::TS) | set;
    done(cpu.require_cpl0().and_then(|()| cpu.write_cr0(new)))
}

/// INVLPG of linear address `a`.
pub extern "C" fn invlpg(cpu: &mut Cpu, a: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.require_cpl0().map(|()| cpu.flush_page(a)))
}

/// INVPCID of type `a` with the descriptor's low half `b` and high half `c`.
pub extern "C" fn invpcid(cpu: &mut Cpu, a: u64, b: u64, c: u64, _: u32) -> u64 {
    done(cpu.invpcid(a, b, c))
}

/// HLT; `c` is the next instruction's RIP.
pub extern "C" fn hlt(cpu: &mut Cpu, _: u64, _: u64, c: u64, _: u32) -> u64 {
    done(cpu.halt(c))
}

/// #GP(0) unless CPL is 0.
pub extern "C" fn check_cpl0(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.require_cpl0())
}

/// RDFSBASE (`arg` bit 0 clear) or RDGSBASE (set); operand size in bytes in `arg` bits 8..16.
pub extern "C" fn read_fs_gs_base(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    value(cpu.base_operand(arg).map(|(seg, size)| truncate(cpu.state.seg[seg as usize].base, size)))
}

/// WRFSBASE or WRGSBASE of `a`; `arg` as of [`read_fs_gs_base`].
pub extern "C" fn write_fs_gs_base(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.write_base(a, arg))
}
