//! Model-specific registers (SDM vol. 4), the time stamp counter, XCR0.

use super::super::cpu::{Cpu, Result};
use super::super::cpuid::ARCH_CAPABILITIES;
use super::super::paging::PHYSICAL_MASK;
use super::super::state::{Cr0, Cr4, Efer, Seg, State, reg};
use super::{done, value};

/// How many unknown MSRs are remembered as logged.
const MAX_LOGGED: usize = 256;

/// What may be written to a field.
#[derive(Clone, Copy)]
enum Check {
    Any,
    Canonical,
    /// No bit outside.
    Bits(u64),
    /// Each byte a memory type that PAT knows (SDM vol. 3A, table 11-10).
    PatTypes,
    /// Each byte a memory type that MTRRs know (SDM vol. 3A, table 11-8).
    MtrrTypes,
}

const fn pat_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4..=7)
}

const fn mtrr_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4..=6)
}

impl Check {
    fn allows(self, s: &State, value: u64) -> bool {
        match self {
            Check::Any => true,
            Check::Canonical => s.canonical_value(value),
            Check::Bits(bits) => value & !bits == 0,
            Check::PatTypes => value.to_le_bytes().into_iter().all(pat_type),
            Check::MtrrTypes => value.to_le_bytes().into_iter().all(mtrr_type),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    /// A register of the state; the function's second argument is the MSR's place in its row's range.
    Field(fn(&mut State, usize) -> Option<&mut u64>, Check),
    /// Reads as a constant; writing raises #GP.
    Constant(u64),
    /// Writes of no bit outside are dropped; reading raises #GP.
    Command(u64),
    /// Reads as the first value, writes of no bit outside the second are dropped.
    Ignored(u64, u64),
    /// Read and write by functions; `write` is false for #GP.
    Device { read: fn(&mut Cpu) -> u64, write: fn(&mut Cpu, u64) -> bool },
}

struct Row {
    first: u32,
    count: u32,
    /// Name in the SDM, for the log.
    name: &'static str,
    kind: Kind,
}

macro_rules! msrs {
    ($($first:literal $(+ $count:literal)? $name:literal $kind:expr;)*) => {
        /// Every MSR there is.
        static TABLE: &[Row] = &[$(Row { first: $first, count: 1 $(* $count)?, name: $name, kind: $kind }),*];
    };
}

/// A register of the state by its field.
macro_rules! field {
    ($field:ident, $check:expr) => {
        Kind::Field(|s, _| Some(&mut s.$field), $check)
    };
}

/// MTRRs: 8 variable ranges, fixed ranges, write combining.
const MTRRCAP: u64 = 8 | 1 << 8 | 1 << 10;

const LOW32: u64 = 0xffff_ffff;

msrs! {
    0x10 "IA32_TIME_STAMP_COUNTER" Kind::Device { read: Cpu::tsc, write: Cpu::set_tsc };
    0x17 "IA32_PLATFORM_ID" Kind::Constant(0);
    0x1b "IA32_APIC_BASE" Kind::Device { read: |cpu| cpu.bus.apic_base(), write: Cpu::set_apic_base };
    0x3b "IA32_TSC_ADJUST" field!(tsc_offset, Check::Any);
    // There is nothing to restrict: IBRS and BHI_DIS_S are remembered, and IBPB has no effect (SDM vol. 4, table 2-2).
    0x48 "IA32_SPEC_CTRL" field!(spec_ctrl, Check::Bits(1 | 1 << 10));
    0x49 "IA32_PRED_CMD" Kind::Command(1);
    0x8b "IA32_BIOS_SIGN_ID" Kind::Ignored(1 << 32, u64::MAX);
    0xfe "IA32_MTRRCAP" Kind::Constant(MTRRCAP);
    0x10a "IA32_ARCH_CAPABILITIES" Kind::Constant(ARCH_CAPABILITIES);
    0x174 "IA32_SYSENTER_CS" field!(sysenter_cs, Check::Any);
    0x175 "IA32_SYSENTER_ESP" field!(sysenter_esp, Check::Canonical);
    0x176 "IA32_SYSENTER_EIP" field!(sysenter_eip, Check::Canonical);
    // No banks: a machine check never happens.
    0x179 "IA32_MCG_CAP" Kind::Constant(0);
    0x17a "IA32_MCG_STATUS" Kind::Ignored(0, 0);
    // No branch trace, no last branch record.
    0x1d9 "IA32_DEBUGCTL" Kind::Ignored(0, 0);
    // Kernels set and clear what they know of their processor's; nothing here depends on a bit of it.
    0x1a0 "IA32_MISC_ENABLE" field!(misc_enable, Check::Any);
    0x200 + 16 "IA32_MTRR_PHYSBASE/MASK" Kind::Field(mtrr_var, Check::Bits(PHYSICAL_MASK & !0x700));
    0x250 "IA32_MTRR_FIX64K" Kind::Field(|s, _| s.mtrr_fixed.first_mut(), Check::MtrrTypes);
    0x258 + 2 "IA32_MTRR_FIX16K" Kind::Field(|s, i| s.mtrr_fixed.get_mut(1 + i), Check::MtrrTypes);
    0x268 + 8 "IA32_MTRR_FIX4K" Kind::Field(|s, i| s.mtrr_fixed.get_mut(3 + i), Check::MtrrTypes);
    0x277 "IA32_PAT" field!(pat, Check::PatTypes);
    0x2ff "IA32_MTRR_DEF_TYPE" field!(mtrr_def_type, Check::Bits(0xcff));
    0x6e0 "IA32_TSC_DEADLINE" Kind::Device { read: Cpu::deadline, write: Cpu::set_deadline };
    0xc000_0080 "IA32_EFER" Kind::Device { read: |cpu| cpu.state.efer.bits(), write: Cpu::set_efer };
    0xc000_0081 "IA32_STAR" field!(star, Check::Any);
    0xc000_0082 "IA32_LSTAR" field!(lstar, Check::Canonical);
    0xc000_0083 "IA32_CSTAR" field!(cstar, Check::Canonical);
    0xc000_0084 "IA32_FMASK" field!(sfmask, Check::Bits(LOW32));
    0xc000_0100 "IA32_FS_BASE" Kind::Device {
        read: |cpu| cpu.state.seg[Seg::Fs as usize].base,
        write: |cpu, v| cpu.set_base_msr(Seg::Fs, v),
    };
    0xc000_0101 "IA32_GS_BASE" Kind::Device {
        read: |cpu| cpu.state.seg[Seg::Gs as usize].base,
        write: |cpu, v| cpu.set_base_msr(Seg::Gs, v),
    };
    0xc000_0102 "IA32_KERNEL_GS_BASE" field!(kernel_gs_base, Check::Canonical);
    0xc000_0103 "IA32_TSC_AUX" field!(tsc_aux, Check::Bits(LOW32));
}

fn mtrr_var(s: &mut State, index: usize) -> Option<&mut u64> {
    s.mtrr_var.get_mut(index / 2)?.get_mut(index % 2)
}

/// What each processor has that calls itself AMD's (APM vol. 2, 13.2.1): kernels do not ask whether it is there. Nothing is counted.
static AMD: &[Row] =
    &[Row { first: 0xc001_0000, count: 8, name: "PerfEvtSel/PerfCtr", kind: Kind::Ignored(0, u64::MAX) }];

fn find(number: u32, is_amd: bool) -> Option<(&'static Row, usize)> {
    let others = AMD.iter().filter(|_| is_amd);
    let row = TABLE.iter().chain(others).find(|row| number.wrapping_sub(row.first) < row.count)?;
    Some((row, (number - row.first) as usize))
}

impl Cpu {
    /// The guest's time stamp counter.
    pub fn tsc(&mut self) -> u64 {
        self.bus.tsc().wrapping_add(self.state.tsc_offset)
    }

    fn set_tsc(&mut self, value: u64) -> bool {
        self.state.tsc_offset = value.wrapping_sub(self.bus.tsc());
        true
    }

    /// IA32_TSC_DEADLINE in the guest's time; 0 is "not armed".
    fn deadline(&mut self) -> u64 {
        match self.bus.tsc_deadline() {
            0 => 0,
            at => at.wrapping_add(self.state.tsc_offset),
        }
    }

    fn set_deadline(&mut self, value: u64) -> bool {
        let at = match value {
            0 => 0,
            // A guest time before the machine's start is past: the earliest time that is armed.
            _ => value.wrapping_sub(self.state.tsc_offset).max(1),
        };
        self.bus.set_tsc_deadline(at);
        true
    }

    fn set_efer(&mut self, value: u64) -> bool {
        let old = self.state.efer;
        let value = Efer::from_bits_retain(value);
        let changed = old ^ value;
        let bad = !(Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE).contains(value)
            || changed.contains(Efer::LME) && self.state.cr0.contains(Cr0::PG);
        if bad {
            return false;
        }
        self.state.efer = value & !Efer::LMA | old & Efer::LMA;
        if changed.contains(Efer::NXE) {
            self.flush_tlb(false);
        }
        self.update_mode();
        true
    }

    fn set_base_msr(&mut self, seg: Seg, base: u64) -> bool {
        let valid = self.state.canonical_value(base);
        if valid {
            self.set_segment_base(seg, base);
            self.update_mode();
        }
        valid
    }

    fn is_amd(&self) -> bool {
        self.features.identity.vendor == *b"AuthenticAMD"
    }

    /// Reads an MSR; `None` is #GP.
    fn read_msr(&mut self, number: u32) -> Option<u64> {
        let Some((row, index)) = find(number, self.is_amd()) else {
            self.log_unknown(number, "read");
            return None;
        };
        match row.kind {
            Kind::Field(field, _) => field(&mut self.state, index).map(|f| *f),
            Kind::Command(_) => None,
            Kind::Constant(value) | Kind::Ignored(value, _) => Some(value),
            Kind::Device { read, .. } => Some(read(self)),
        }
    }

    /// Writes an MSR; false is #GP.
    fn write_msr(&mut self, number: u32, value: u64) -> bool {
        let Some((row, index)) = find(number, self.is_amd()) else {
            self.log_unknown(number, "write");
            return false;
        };
        let written = match row.kind {
            Kind::Field(field, check) => {
                let allowed = check.allows(&self.state, value);
                if allowed && let Some(f) = field(&mut self.state, index) {
                    *f = value;
                }
                allowed
            }
            Kind::Constant(_) => false,
            Kind::Command(bits) | Kind::Ignored(_, bits) => value & !bits == 0,
            Kind::Device { write, .. } => write(self, value),
        };
        if !written {
            tracing::debug!(target: "msr", name = row.name, value = format_args!("{value:#x}"), "refused write");
        }
        written
    }

    /// Logs an unknown MSR the first time it is used. The guest gets the #GP that a processor without it gives, and asks on
    /// purpose more often than not: it is told to who asks for `-d unimp`.
    fn log_unknown(&mut self, number: u32, what: &'static str) {
        if self.unknown_msrs.len() < MAX_LOGGED && self.unknown_msrs.insert(number) {
            tracing::info!(target: "unimp", msr = format_args!("{number:#x}"), what, "unknown MSR");
        }
    }

    /// EDX:EAX.
    fn pair(&self) -> u64 {
        self.state.gpr[reg::RAX] & LOW32 | self.state.gpr[reg::RDX] << 32
    }

    fn set_pair(&mut self, value: u64) {
        self.state.gpr[reg::RAX] = value & LOW32;
        self.state.gpr[reg::RDX] = value >> 32;
    }

    fn rdmsr(&mut self) -> Result<()> {
        self.require_cpl0()?;
        match self.read_msr(self.state.gpr[reg::RCX] as u32) {
            Some(value) => {
                self.set_pair(value);
                Ok(())
            }
            None => Err(self.gp0()),
        }
    }

    fn wrmsr(&mut self) -> Result<()> {
        self.require_cpl0()?;
        if self.write_msr(self.state.gpr[reg::RCX] as u32, self.pair()) { Ok(()) } else { Err(self.gp0()) }
    }

    fn rdtsc(&mut self, with_aux: bool) -> Result<()> {
        if self.state.cr4.contains(Cr4::TSD) && self.state.cpl() != 0 {
            return Err(self.gp0());
        }
        let now = self.tsc();
        self.set_pair(now);
        if with_aux {
            self.state.gpr[reg::RCX] = self.state.tsc_aux & LOW32;
        }
        Ok(())
    }
}

/// RDMSR.
pub extern "C" fn rdmsr(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.rdmsr())
}

/// WRMSR.
pub extern "C" fn wrmsr(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    done(cpu.wrmsr())
}

/// RDTSC (`arg` 0) or RDTSCP (1).
pub extern "C" fn rdtsc(cpu: &mut Cpu, _: u64, _: u64, _: u64, arg: u32) -> u64 {
    done(cpu.rdtsc(arg != 0))
}

/// RDPMC: CPUID tells of no counters, so every number raises #GP(0).
pub extern "C" fn rdpmc(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    value(Err(cpu.gp0()))
}

/// XGETBV: #UD, as CR4.OSXSAVE cannot be set.
pub extern "C" fn xgetbv(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    value(Err(cpu.ud()))
}

/// XSETBV: as [`xgetbv`].
pub extern "C" fn xsetbv(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    value(Err(cpu.ud()))
}
