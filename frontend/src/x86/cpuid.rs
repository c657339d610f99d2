//! CPUID (SDM vol. 2A, CPUID).
//!
//! The CPU presents itself as the Intel core that first had the x86-64-v2 instruction set (family 6, model 0x1a): C libraries then
//! move memory by string instructions, which are fast here. By IA32_ARCH_CAPABILITIES guests know that it does not execute
//! speculatively and leave their costly mitigations off, and from leaf 0x15 the frequencies of TSC and APIC timer instead of
//! measuring them.

use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use super::features::Word;
use super::paging::PHYSICAL_BITS;
use super::state::reg;

/// Family 6, model 0x1a, stepping 5: leaf 1 EAX, and EDX after reset.
pub const SIGNATURE: u32 = 0x0001_06a5;

/// IA32_ARCH_CAPABILITIES (SDM vol. 4, table 2-2): no attack by speculation that it has a bit for is possible. RDCL_NO, IBRS_ALL,
/// SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO,
/// RFDS_NO, ITS_NO.
pub(super) const ARCH_CAPABILITIES: u64 = {
    const NUMBERS: [u32; 15] = [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62];
    let mut value = 0;
    let mut i = 0;
    while i < NUMBERS.len() {
        value |= 1 << NUMBERS[i];
        i += 1;
    }
    value
};

/// Frequency of the local APIC timer before its divider, in Hz.
pub const APIC_TIMER_HZ: u64 = 1_000_000_000;

/// What the CPU is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Who made it.
    pub vendor: [u8; 12],
    /// Family, model and stepping, as leaf 1 has them in EAX.
    pub signature: u32,
    /// Its name, in three parts.
    pub brand: [[u8; 16]; 3],
}

impl Default for Identity {
    fn default() -> Self {
        Identity { vendor: *b"GenuineIntel", signature: SIGNATURE, brand: Identity::brand("mimus virtual CPU") }
    }
}

impl Identity {
    /// A name, of which 48 bytes count.
    pub fn brand(name: &str) -> [[u8; 16]; 3] {
        let mut parts = [[0; 16]; 3];
        parts.as_flattened_mut().iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
        parts
    }

    /// The same of this family, the extended one included; 270 is the largest there is.
    pub fn with_family(self, family: u32) -> Identity {
        let (base, extended) = (family.min(15), family.saturating_sub(15).min(0xff));
        Identity { signature: self.signature & !(0xff << 20 | 0xf << 8) | extended << 20 | base << 8, ..self }
    }

    /// The same of this model, the extended one included.
    pub fn with_model(self, model: u8) -> Identity {
        let (base, extended) = (u32::from(model & 0xf), u32::from(model >> 4));
        Identity { signature: self.signature & !(0xf << 16 | 0xf << 4) | extended << 16 | base << 4, ..self }
    }

    /// The same of this stepping, up to 15.
    pub fn with_stepping(self, stepping: u8) -> Identity {
        Identity { signature: self.signature & !0xf | u32::from(stepping & 0xf), ..self }
    }
}

/// `[EAX, EBX, ECX, EDX]`.
type Regs = [u32; 4];

struct Leaf {
    leaf: u32,
    /// `None`: whatever ECX is.
    subleaf: Option<u32>,
    build: fn(&mut Cpu, u32) -> Regs,
}

const LAST_BASIC: u32 = 0x16;
const LAST_HYPERVISOR: u32 = 0x4000_0000;
const LAST_EXTENDED: u32 = 0x8000_0008;

const fn row(leaf: u32, subleaf: Option<u32>, build: fn(&mut Cpu, u32) -> Regs) -> Leaf {
    Leaf { leaf, subleaf, build }
}

/// Leaves that are not all zero.
static LEAVES: &[Leaf] = &[
    row(0, None, |cpu, _| text_leaf(LAST_BASIC, &cpu.features.identity.vendor, [0, 2, 1])),
    row(1, None, features),
    // One byte per cache or TLB: 0xff refers to leaf 4.
    row(2, None, |_, _| [0x00ff_0001, 0, 0, 0]),
    row(4, Some(0), |_, _| cache(1, 1, 32, 8)),
    row(4, Some(1), |_, _| cache(2, 1, 32, 8)),
    row(4, Some(2), |_, _| cache(3, 2, 1024, 16)),
    row(6, None, |_, _| [LEAF6_EAX, 0, 0, 0]),
    row(7, Some(0), structured_features),
    // BHI_DIS_S in IA32_SPEC_CTRL.
    row(7, Some(2), |_, _| [0, 0, 0, 1 << 4]),
    row(0xb, None, topology),
    row(0x15, None, |cpu, _| frequencies(cpu.features.tsc_hz)),
    row(0x16, None, |cpu, _| {
        let tsc_hz = cpu.features.tsc_hz;
        let mhz = (tsc_hz / 1_000_000).min(0xffff) as u32;
        if frequencies(tsc_hz) == [0; 4] { [0; 4] } else { [mhz, mhz, 100, 0] }
    }),
    row(0x4000_0000, None, |cpu, _| text_leaf(LAST_HYPERVISOR, &cpu.features.hypervisor, [0, 1, 2])),
    row(0x8000_0000, None, |_, _| [LAST_EXTENDED, 0, 0, 0]),
    row(0x8000_0001, None, extended_features),
    row(0x8000_0002, None, |cpu, _| brand(cpu.features.identity.brand[0])),
    row(0x8000_0003, None, |cpu, _| brand(cpu.features.identity.brand[1])),
    row(0x8000_0004, None, |cpu, _| brand(cpu.features.identity.brand[2])),
    // L2: 1024 KiB, 16-way (code 8), 64-byte lines.
    row(0x8000_0006, None, |_, _| [0, 0, 1024 << 16 | 8 << 12 | 64, 0]),
    row(0x8000_0007, None, |_, _| [0, 0, 0, EXTENDED7_EDX]),
    row(0x8000_0008, None, |cpu, _| {
        let linear = if cpu.features.la57 { 57 } else { 48 };
        [PHYSICAL_BITS | linear << 8, 0, 0, 0]
    }),
];

/// EAX and 12 characters in EBX, ECX, EDX as `order` says.
fn text_leaf(eax: u32, text: &[u8; 12], order: [usize; 3]) -> Regs {
    let word = |i: usize| text.iter().skip(4 * i).take(4).rev().fold(0, |w, &b| w << 8 | u32::from(b));
    [eax, word(order[0]), word(order[1]), word(order[2])]
}

/// 16 characters of the name.
fn brand(part: [u8; 16]) -> Regs {
    bytemuck::cast::<_, Regs>(part).map(u32::from_le)
}

/// Feature bits, by number.
const fn bits(numbers: &[u32]) -> u32 {
    let mut value = 0;
    let mut i = 0;
    while i < numbers.len() {
        value |= 1 << numbers[i];
        i += 1;
    }
    value
}

/// SSE3, SSSE3, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, TSC-deadline, hypervisor.
const LEAF1_ECX: u32 = bits(&[0, 9, 13, 17, 19, 20, 22, 23, 24, 31]);

/// FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFSH, MMX, FXSR, SSE, SSE2.
const LEAF1_EDX: u32 = bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26]);

/// The APIC, which mirrors its global enable (SDM vol. 3A, 10.4.3).
const LEAF1_EDX_APIC: u32 = 1 << 9;

/// ARAT: the APIC timer runs in every idle state.
const LEAF6_EAX: u32 = 1 << 2;

/// FSGSBASE, TSC_ADJUST, FDP_EXCPTN_ONLY, SMEP, ERMS, INVPCID, no FCS and FDS, SMAP.
const LEAF7_EBX: u32 = bits(&[0, 1, 6, 7, 9, 10, 13, 20]);

/// UMIP.
const LEAF7_ECX: u32 = 1 << 2;

/// IA32_SPEC_CTRL with IBRS and IA32_PRED_CMD; IA32_ARCH_CAPABILITIES.
const LEAF7_EDX: u32 = bits(&[26, 29]);

/// LAHF in 64-bit mode.
const EXTENDED1_ECX: u32 = 1;

/// NX, 1 GiB pages, RDTSCP, long mode.
const EXTENDED1_EDX: u32 = bits(&[20, 26, 27, 29]);

/// SYSCALL, which is told in 64-bit mode only, where alone it exists.
const EXTENDED1_EDX_SYSCALL: u32 = 1 << 11;

/// Invariant TSC.
const EXTENDED7_EDX: u32 = 1 << 8;

/// What the CPU has, by word.
pub(super) const OFFERED: &[(Word, u32)] = &[
    (Word::Leaf1Edx, LEAF1_EDX | LEAF1_EDX_APIC),
    (Word::Leaf1Ecx, LEAF1_ECX),
    (Word::Leaf6Eax, LEAF6_EAX),
    (Word::Leaf7Ebx, LEAF7_EBX),
    (Word::Leaf7Ecx, LEAF7_ECX),
    (Word::Leaf7Edx, LEAF7_EDX),
    (Word::Extended1Edx, EXTENDED1_EDX | EXTENDED1_EDX_SYSCALL),
    (Word::Extended1Ecx, EXTENDED1_ECX),
    (Word::Extended7Edx, EXTENDED7_EDX),
    (Word::ArchCapabilities, ARCH_CAPABILITIES as u32),
];

/// Where CPUID tells of a word: leaf, subleaf, and number of the register.
const PLACES: &[(Word, u32, u32, usize)] = &[
    (Word::Leaf1Edx, 1, 0, 3),
    (Word::Leaf1Ecx, 1, 0, 2),
    (Word::Leaf6Eax, 6, 0, 0),
    (Word::Leaf7Ebx, 7, 0, 1),
    (Word::Leaf7Ecx, 7, 0, 2),
    (Word::Leaf7Edx, 7, 0, 3),
    (Word::Extended1Edx, 0x8000_0001, 0, 3),
    (Word::Extended1Ecx, 0x8000_0001, 0, 2),
    (Word::Extended7Edx, 0x8000_0007, 0, 3),
];

fn features(cpu: &mut Cpu, _: u32) -> Regs {
    const CLFLUSH_QWORDS: u32 = 8;
    let apic = if cpu.bus.apic_base() & 1 << 11 != 0 { LEAF1_EDX_APIC } else { 0 };
    [cpu.features.identity.signature, CLFLUSH_QWORDS << 8 | 1 << 16, LEAF1_ECX, LEAF1_EDX | apic]
}

fn structured_features(cpu: &mut Cpu, _: u32) -> Regs {
    const LA57: u32 = 1 << 16;
    const LAST_SUBLEAF: u32 = 2;
    let la57 = if cpu.features.la57 { LA57 } else { 0 };
    [LAST_SUBLEAF, LEAF7_EBX, LEAF7_ECX | la57, LEAF7_EDX]
}

fn extended_features(cpu: &mut Cpu, _: u32) -> Regs {
    let syscall = if cpu.state.code64() { EXTENDED1_EDX_SYSCALL } else { 0 };
    [cpu.features.identity.signature, 0, EXTENDED1_ECX, EXTENDED1_EDX | syscall]
}

/// Leaf 4: a cache of `kib` KiB with 64-byte lines; `kind` 1 data, 2 code, 3 unified.
fn cache(kind: u32, level: u32, kib: u32, ways: u32) -> Regs {
    const SELF_INITIALIZING: u32 = 1 << 8;
    let sets = kib * 1024 / (64 * ways);
    [kind | level << 5 | SELF_INITIALIZING, (ways - 1) << 22 | 63, sets - 1, 0]
}

/// Leaf 0xb: one thread in one core in one package.
fn topology(_: &mut Cpu, subleaf: u32) -> Regs {
    match subleaf {
        0 => [0, 1, 1 << 8, 0],
        1 => [0, 1, 1 | 2 << 8, 0],
        _ => [0, 0, subleaf & 0xff, 0],
    }
}

/// Leaf 0x15: TSC / crystal = EBX / EAX, the crystal being what the APIC timer counts. All zero, so that guests measure,
/// when that ratio times the crystal's kHz does not fit in the 32 bits that guests compute it in.
fn frequencies(tsc_hz: u64) -> Regs {
    let divisor = gcd(tsc_hz, APIC_TIMER_HZ);
    let (numerator, denominator) = (tsc_hz / divisor, APIC_TIMER_HZ / divisor);
    if tsc_hz == 0 || numerator.saturating_mul(APIC_TIMER_HZ / 1000) > u64::from(u32::MAX) {
        return [0; 4];
    }
    [denominator as u32, numerator as u32, APIC_TIMER_HZ as u32, 0]
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What CPUID tells for `leaf` and `subleaf`.
fn query(cpu: &mut Cpu, leaf: u32, subleaf: u32) -> Regs {
    // Beyond the last leaf a CPU tells the last basic one (SDM vol. 2A, CPUID, "INPUT EAX").
    let leaf = match leaf {
        0..=LAST_BASIC | 0x4000_0000..=LAST_HYPERVISOR | 0x8000_0000..=LAST_EXTENDED => leaf,
        _ => LAST_BASIC,
    };
    let found = LEAVES.iter().find(|row| row.leaf == leaf && row.subleaf.is_none_or(|s| s == subleaf));
    let mut regs = found.map_or([0; 4], |row| (row.build)(cpu, subleaf));
    for (word, _, _, register) in PLACES.iter().filter(|(_, of, sub, _)| {
        // Only leaf 7 of these looks at ECX.
        *of == leaf && (leaf != 7 || *sub == subleaf)
    }) {
        regs[*register] &= !cpu.features.hidden.word(*word);
    }
    regs
}

/// CPUID.
pub extern "C" fn cpuid(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    let [leaf, subleaf] = [cpu.state.gpr[reg::RAX] as u32, cpu.state.gpr[reg::RCX] as u32];
    let [eax, ebx, ecx, edx] = query(cpu, leaf, subleaf);
    for (register, value) in [(reg::RAX, eax), (reg::RBX, ebx), (reg::RCX, ecx), (reg::RDX, edx)] {
        cpu.state.gpr[register] = value.into();
    }
    0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::x86::features::{Feature, FeatureSet};
    use crate::x86::{Features, NoDevices};

    #[test]
    fn what_is_hidden_is_not_told() {
        let memory = vm_memory::GuestMemoryMmap::from_ranges(&[(vm_memory::GuestAddress(0), 0x1000)]).unwrap();
        let ram = Arc::new(mimus_softmmu::Ram::new(memory));
        let mut cpu = Cpu::new(ram, Arc::new(NoDevices), Box::new(NoDevices), Features::default());
        let leaves = [(1, 0), (6, 0), (7, 0), (7, 2), (0x8000_0001, 0), (0x8000_0007, 0)];
        let before = leaves.map(|(leaf, subleaf)| query(&mut cpu, leaf, subleaf));
        let hidden = ["sse4.2", "smap", "nx", "umip"].map(|name| Feature::named(name).unwrap());
        cpu.features.hidden = hidden.into_iter().fold(FeatureSet::default(), FeatureSet::with);
        let mut expected = before;
        expected[0][2] &= !(1 << 20);
        expected[2][1] &= !(1 << 20);
        expected[2][2] &= !(1 << 2);
        expected[4][3] &= !(1 << 20);
        assert_eq!(leaves.map(|(leaf, subleaf)| query(&mut cpu, leaf, subleaf)), expected);
        cpu.features.hidden = FeatureSet::offered();
        assert_eq!((query(&mut cpu, 1, 0)[2], query(&mut cpu, 7, 0)[1]), (0, 1 << 6 | 1 << 13));
    }
}
