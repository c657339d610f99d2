//! The CPU's first state, as the boot protocols promise it.

/// How the CPU enters the loaded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMode {
    /// 64-bit mode with the first 4 GiB identity-mapped (Linux boot protocol,
    /// "64-bit Boot Protocol").
    Long {
        /// First instruction.
        entry: u64,
        /// The zero page, in RSI.
        boot_params: u64,
        /// The top page table.
        cr3: u64,
    },
    /// 32-bit protected mode without paging (Linux "32-bit Boot Protocol", PVH,
    /// Multiboot).
    Protected32 {
        /// First instruction.
        entry: u32,
        /// EAX: Multiboot's magic number.
        eax: u32,
        /// EBX: the Multiboot or PVH start information.
        ebx: u32,
        /// ESI: Linux's zero page.
        esi: u32,
    },
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInit {
    /// The visible part.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Last valid offset, in bytes whatever the granularity bit says.
    pub limit: u32,
    /// Access rights as in bits 40 to 55 of the descriptor, bits 8 to 11 being
    /// 0 (SDM vol. 3A, 3.4.5; the layout of vol. 3C, 24.4.1).
    pub access: u16,
}

impl SegmentInit {
    /// The descriptor that loads this (SDM vol. 3A, figure 3-8). The base has
    /// to fit 32 bits.
    pub fn descriptor(&self) -> u64 {
        const GRANULARITY: u16 = 1 << 15;
        let limit = u64::from(if self.access & GRANULARITY != 0 { self.limit >> 12 } else { self.limit });
        let base = self.base;
        (limit & 0xffff)
            | (base & 0xff_ffff) << 16
            | u64::from(self.access & 0xf0ff) << 40
            | (limit >> 16 & 0xf) << 48
            | (base >> 24 & 0xff) << 56
    }
}

/// A descriptor table register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInit {
    /// Linear address.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}

/// The segment registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' names")]
pub struct Segments {
    pub cs: SegmentInit,
    pub ds: SegmentInit,
    pub es: SegmentInit,
    pub fs: SegmentInit,
    pub gs: SegmentInit,
    pub ss: SegmentInit,
    pub tr: SegmentInit,
}

/// What the CPU's registers hold when it executes the image's first
/// instruction. What is not named here is as after a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootState {
    /// How the image is entered.
    pub mode: BootMode,
    /// The general registers in the order of their encoding: RAX, RCX, RDX,
    /// RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// First instruction.
    pub rip: u64,
    /// Flags; interrupts are off.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// The extended feature enable register.
    pub efer: u64,
    /// The segment registers.
    pub segments: Segments,
    /// The GDT, in memory, that the selectors in [`Self::segments`] refer to.
    pub gdt: TableInit,
    /// The IDT: empty, so that any exception is a triple fault.
    pub idt: TableInit,
}

/// Linux's `__BOOT_CS` and `__BOOT_DS`; the other protocols leave it open.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x20;

/// Present, DPL 0, accessed code or data; granularity, D/B and L.
const CODE_32: u16 = 0xc09b;
const CODE_64: u16 = 0xa09b;
const DATA: u16 = 0xc093;
/// Present busy 32-bit (in 64-bit mode: 64-bit) TSS. PVH asks for one.
const TSS: u16 = 0x008b;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 is always set (SDM vol. 1, 3.4.3).
const RFLAGS: u64 = 1 << 1;

/// Bytes of the GDT; its last descriptor may take 16.
pub(super) const GDT_SIZE: u64 = 0x30;

impl BootState {
    /// The state that `mode` stands for, with the GDT at `gdt`.
    pub(super) fn new(mode: BootMode, gdt: u64) -> Self {
        const RAX: usize = 0;
        const RBX: usize = 3;
        const RSI: usize = 6;
        let mut gpr = [0; 16];
        let (rip, code, cr3) = match mode {
            BootMode::Long { entry, boot_params, cr3 } => {
                gpr[RSI] = boot_params;
                (entry, CODE_64, cr3)
            }
            BootMode::Protected32 { entry, eax, ebx, esi } => {
                gpr[RAX] = eax.into();
                gpr[RBX] = ebx.into();
                gpr[RSI] = esi.into();
                (entry.into(), CODE_32, 0)
            }
        };
        let long = code == CODE_64;
        let flat = |selector, access| SegmentInit { selector, base: 0, limit: u32::MAX, access };
        let data = flat(DATA_SELECTOR, DATA);
        BootState {
            mode,
            gpr,
            rip,
            rflags: RFLAGS,
            cr0: CR0_PE | CR0_ET | if long { CR0_PG } else { 0 },
            cr3,
            cr4: if long { CR4_PAE } else { 0 },
            efer: if long { EFER_LME | EFER_LMA } else { 0 },
            segments: Segments {
                cs: flat(CODE_SELECTOR, code),
                ds: data,
                es: data,
                fs: data,
                gs: data,
                ss: data,
                tr: SegmentInit { selector: TSS_SELECTOR, base: 0, limit: 0x67, access: TSS },
            },
            gdt: TableInit { base: gdt, limit: (GDT_SIZE - 1) as u16 },
            idt: TableInit { base: 0, limit: 0 },
        }
    }

    /// The GDT's contents.
    pub(super) fn gdt_bytes(&self) -> [u8; GDT_SIZE as usize] {
        let mut table = [0; GDT_SIZE as usize];
        for segment in [&self.segments.cs, &self.segments.ds, &self.segments.tr] {
            let start = usize::from(segment.selector);
            table[start..start + 8].copy_from_slice(&segment.descriptor().to_le_bytes());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_well_known_ones() {
        let mode = BootMode::Protected32 { entry: 0x10_0000, eax: 1, ebx: 2, esi: 3 };
        let state = BootState::new(mode, 0x1000);
        assert_eq!(state.segments.cs.descriptor(), 0x00cf_9b00_0000_ffff);
        assert_eq!(state.segments.ds.descriptor(), 0x00cf_9300_0000_ffff);
        assert_eq!(state.segments.tr.descriptor(), 0x0000_8b00_0000_0067);
        assert_eq!((state.gpr[0], state.gpr[3], state.gpr[6]), (1, 2, 3));
        assert_eq!((state.cr0, state.cr3, state.cr4, state.efer), (0x11, 0, 0, 0));
        let based = SegmentInit { selector: 8, base: 0x1234_5678, limit: 0x9_abcd, access: 0x4092 };
        assert_eq!(based.descriptor(), 0x1249_9234_5678_abcd);
    }

    #[test]
    fn long_mode_state() {
        let state = BootState::new(BootMode::Long { entry: 0x10_0200, boot_params: 0x7000, cr3: 0x9000 }, 0x1000);
        assert_eq!(state.segments.cs.descriptor(), 0x00af_9b00_0000_ffff);
        assert_eq!((state.rip, state.gpr[6], state.rflags), (0x10_0200, 0x7000, 2));
        assert_eq!((state.cr0, state.cr3, state.cr4, state.efer), (0x8000_0011, 0x9000, 0x20, 0x500));
        assert_eq!(state.gdt_bytes()[0x10..0x18], 0x00af_9b00_0000_ffff_u64.to_le_bytes());
        assert_eq!(state.gdt_bytes()[..0x10], [0; 16]);
    }
}
