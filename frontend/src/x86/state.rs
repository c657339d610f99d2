//! The x86 env: registers as compiled code and helpers see them.

use bytemuck::{Pod, Zeroable};
use mimus_ir::{EnvSlot, FpEnv, Type};
use serde::{Deserialize, Serialize};

pub use super::registers::{Breakpoint, Condition, Cr0, Cr3, Cr4, Dr6, Dr7, Efer, Rflags};

/// Segment register numbers, in instruction encoding order (SDM vol. 2, table B-8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Seg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

impl Seg {
    /// In encoding order.
    pub const ALL: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];
}

/// General register numbers, in instruction encoding order.
#[allow(missing_docs)]
pub mod reg {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

/// A segment register with its hidden part (SDM vol. 3A, 3.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct Segment {
    /// Linear base.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Visible selector.
    pub selector: u16,
    /// Descriptor bits 40..56 without the limit: type, S, DPL, P in 0..8; AVL, L, D/B, G in 12..16.
    pub access: u16,
}

impl Segment {
    /// Descriptor type (4 bits).
    pub const fn kind(&self) -> u16 {
        self.access & 0xf
    }
    /// S: code or data segment.
    pub const fn is_code_or_data(&self) -> bool {
        self.access & 0x10 != 0
    }
    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.access >> 5 & 3) as u8
    }
    /// P: present.
    pub const fn present(&self) -> bool {
        self.access & 0x80 != 0
    }
    /// L: 64-bit code.
    pub const fn long(&self) -> bool {
        self.access & 0x2000 != 0
    }
    /// D/B: 32-bit default.
    pub const fn default_big(&self) -> bool {
        self.access & 0x4000 != 0
    }
    /// Code segment.
    pub const fn is_code(&self) -> bool {
        self.access & 0x18 == 0x18
    }
    /// Data segment that grows downwards.
    pub const fn expand_down(&self) -> bool {
        self.access & 0x1c == 0x14
    }
    /// Readable data or readable code.
    pub const fn readable(&self) -> bool {
        self.access & 0x8 == 0 || self.access & 0x2 != 0
    }
    /// Writable data.
    pub const fn writable(&self) -> bool {
        self.access & 0xa == 0x2
    }
    /// Base 0 and [`Segment::open`].
    pub const fn flat(&self) -> bool {
        self.base == 0 && self.open()
    }
    /// Limit 4 GiB, present, readable and (for data) writable: accesses need no check.
    pub const fn open(&self) -> bool {
        self.limit == u32::MAX
            && self.present()
            && !self.expand_down()
            && self.readable()
            && (self.is_code() || self.writable())
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct TableReg {
    /// Linear base.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u64,
}

/// x86 registers. The first 320 bytes are what translated integer code touches.
///
/// RFLAGS is split: the arithmetic flags are lazy, in the `cc_*` fields (see [`super::flags`]); `flags` has all others.
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C, align(16))]
pub struct State {
    /// General registers in encoding order.
    pub gpr: [u64; 16],
    /// Instruction pointer; exact whenever the dispatcher or a helper that reads it runs.
    pub rip: u64,
    /// Which instruction last set the arithmetic flags ([`super::flags::CcOp`]).
    pub cc_op: u8,
    /// Which one set CF last, as in `cc_op`.
    pub cc_carry_op: u8,
    /// 64 less the bits of the operands of the record that CF is of, unless CF is apart.
    pub cc_shift: u8,
    /// 0.
    pub cc_op_rest: [u8; 5],
    /// Its result, zero-extended.
    pub cc_dst: u64,
    /// Its second operand, or as the [`super::flags::CcOp`] says.
    pub cc_src: u64,
    /// Carry in, for those that have one.
    pub cc_aux: u64,
    /// RFLAGS without CF, PF, AF, ZF, SF, OF; bit 1 is set.
    pub flags: Rflags,
    /// Bases of the segments, copied from `seg` so that they are close.
    pub seg_base: [u64; 6],
    /// Operand buffer of vector helpers.
    pub vtmp: [[u64; 2]; 2],
    /// XMM registers, `[low, high]`.
    pub xmm: [[u64; 2]; 16],
    /// The x87 unit, whose registers are the MMX registers too.
    pub fpu: super::fp::x87::Fpu,
    /// Segment registers in encoding order.
    pub seg: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: TableReg,
    /// IDTR.
    pub idtr: TableReg,
    /// CR0.
    pub cr0: Cr0,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: Cr3,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// XCR0.
    pub xcr0: u64,
    /// DR0-DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: Dr6,
    /// DR7.
    pub dr7: Dr7,
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub sfmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// Added to the machine's TSC (IA32_TSC_ADJUST and writes of IA32_TIME_STAMP_COUNTER).
    pub tsc_offset: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_def_type: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// What MXCSR says ([`super::fp::mxcsr`]), as the IR has it ([`FpEnv`]), in bits 0..32.
    pub fp_env: u64,
    /// PDPTEs as loaded by PAE paging (SDM vol. 3A, 4.4.1).
    pub pdpte: [u64; 4],
    /// MTRR fixed-range registers.
    pub mtrr_fixed: [u64; 11],
    /// MTRR variable-range base/mask pairs.
    pub mtrr_var: [[u64; 2]; 8],
    /// What it waits for instead of executing ([`halt`]); 0: nothing.
    pub halted: u64,
    /// What the instruction before holds off for one instruction ([`shadow`]); 0: nothing.
    pub shadow: u64,
    /// 1 while NMIs are blocked until IRET.
    pub nmi_blocked: u64,
    /// 1 while an NMI waits; another one is lost meanwhile (SDM vol. 3A, 6.7.1).
    pub nmi_pending: u64,
    /// Causes of a #DB that comes before the next instruction.
    pub debug_pending: Dr6,
    /// CF, in bit 0, where `cc_carry_op` says so.
    pub cc_carry: u64,
    /// OF, in bit 0, where `cc_op` says so.
    pub cc_overflow: u64,
    /// 1 while FERR# is driven: CR0.NE is 0 and an x87 exception is pending (SDM vol. 1, D.2.1).
    pub ferr: u64,
    /// The result of an INC or DEC that left CF where it was.
    pub cc_step: u64,
    /// 0.
    pub reserved: u64,
}

/// What a vCPU that does not execute waits for.
pub mod halt {
    /// HLT: an interrupt or an NMI.
    pub const INTERRUPT: u64 = 1;
    /// RESET and INIT, but of the bootstrap processor: a start-up IPI, and nothing else (SDM vol. 3A, 8.4.2).
    pub const START_UP: u64 = 2;
}

/// What an instruction holds off until the next one is done (SDM vol. 3A, 6.8.3).
pub mod shadow {
    /// STI: maskable interrupts.
    pub const INTERRUPTS: u64 = 1;
    /// MOV SS and POP SS: interrupts, NMIs and debug exceptions.
    pub const ALL: u64 = 2;
}

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident $field:ident $ty:ident;)*) => {
        /// Env slots by name.
        pub mod slot {
            use super::*;
            $($(#[$doc])* pub const $name: EnvSlot =
                EnvSlot { offset: std::mem::offset_of!(State, $field) as u16, ty: Type::$ty };)*
            /// All of them with their names.
            pub const ALL: &[(EnvSlot, &str)] = &[$(($name, stringify!($field))),*];
        }
    };
}

slots! {
    /// RIP.
    RIP rip I64;
    /// Lazy flags: operation.
    CC_OP cc_op I8;
    /// Lazy flags: operation that CF is of.
    CC_CARRY_OP cc_carry_op I8;
    /// Both.
    CC_OP_PAIR cc_op I16;
    /// Both and the shift ([`super::flags::CcOp::all`]).
    CC_OPS cc_op I64;
    /// Lazy flags: how far the record's operands are shifted to have their sign in bit 63.
    CC_SHIFT cc_shift I8;
    /// Lazy flags: result.
    CC_DST cc_dst I64;
    /// Lazy flags: result of an INC or DEC that left CF where it was.
    CC_STEP cc_step I64;
    /// Lazy flags: operand.
    CC_SRC cc_src I64;
    /// Lazy flags: carry in.
    CC_AUX cc_aux I64;
    /// Lazy flags: CF apart from the rest.
    CC_CARRY cc_carry I64;
    /// Lazy flags: OF apart from the rest.
    CC_OVERFLOW cc_overflow I64;
    /// RFLAGS but for the arithmetic flags.
    FLAGS flags I64;
    /// Interrupt shadow.
    SHADOW shadow I64;
}

/// Slot of a general register.
pub const fn gpr_slot(number: usize) -> EnvSlot {
    EnvSlot { offset: (std::mem::offset_of!(State, gpr) + 8 * (number & 15)) as u16, ty: Type::I64 }
}

/// Slot of a segment base.
pub const fn seg_base_slot(seg: Seg) -> EnvSlot {
    EnvSlot { offset: (std::mem::offset_of!(State, seg_base) + 8 * seg as usize) as u16, ty: Type::I64 }
}

/// Slot of a whole XMM register.
pub const fn xmm_slot(number: usize) -> EnvSlot {
    EnvSlot { offset: xmm_offset(number), ty: Type::V128 }
}

/// Env offset of an XMM register in bytes.
pub const fn xmm_offset(number: usize) -> u16 {
    (std::mem::offset_of!(State, xmm) + 16 * (number & 15)) as u16
}

/// Env offset of vector operand buffer `n` (0 or 1) in bytes.
pub const fn vtmp_offset(n: usize) -> u16 {
    (std::mem::offset_of!(State, vtmp) + 16 * (n & 1)) as u16
}

impl Default for State {
    /// The state after power-on or RESET (SDM vol. 3A, table 9-1).
    fn default() -> State {
        let mut s = State::zeroed();
        let data = Segment { base: 0, limit: 0xffff, selector: 0, access: 0x93 };
        s.seg = [data; 6];
        s.seg[Seg::Cs as usize] = Segment { base: 0xffff_0000, limit: 0xffff, selector: 0xf000, access: 0x9b };
        s.ldtr = Segment { base: 0, limit: 0xffff, selector: 0, access: 0x82 };
        s.tr = Segment { base: 0, limit: 0xffff, selector: 0, access: 0x8b };
        s.gdtr.limit = 0xffff;
        s.idtr.limit = 0xffff;
        s.rip = 0xfff0;
        s.set_rflags(Rflags::FIXED);
        s.cr0 = Cr0::CD | Cr0::NW | Cr0::ET;
        s.dr6 = Dr6::FIXED;
        s.dr7 = Dr7::FIXED;
        s.gpr[reg::RDX] = super::cpuid::SIGNATURE.into();
        s.xcr0 = 1;
        s.pat = 0x0007_0406_0007_0406;
        s.misc_enable = 1;
        s.set_float_env(FpEnv::RESET);
        s.fpu.init();
        s.sync_seg_bases();
        s
    }
}

impl State {
    /// Copies the segment bases to where translated code reads them; to be called after any change of `seg`.
    pub fn sync_seg_bases(&mut self) {
        for (base, seg) in self.seg_base.iter_mut().zip(&self.seg) {
            *base = seg.base;
        }
    }

    /// Current privilege level. In real mode SS.DPL is 0, in virtual-8086 mode 3.
    pub const fn cpl(&self) -> u8 {
        self.seg[Seg::Ss as usize].dpl()
    }

    /// The floating-point environment of SSE.
    pub const fn float_env(&self) -> FpEnv {
        FpEnv::from_bits_retain(self.fp_env as u32)
    }

    /// Replaces it. Translations depend on it: the mode is to be updated.
    pub fn set_float_env(&mut self, env: FpEnv) {
        self.fp_env = env.bits().into();
    }

    /// CR0.PE.
    pub const fn protected(&self) -> bool {
        self.cr0.contains(Cr0::PE)
    }

    /// Virtual-8086 mode.
    pub const fn vm86(&self) -> bool {
        self.flags.contains(Rflags::VM)
    }

    /// IA-32e mode (64-bit or compatibility).
    pub const fn long_active(&self) -> bool {
        self.efer.contains(Efer::LMA)
    }

    /// 64-bit mode.
    pub const fn code64(&self) -> bool {
        self.long_active() && self.seg[Seg::Cs as usize].long()
    }

    /// Those of the enabled breakpoints that `met` holds for, by their addresses and what DR7 says of them.
    pub(crate) fn breakpoints(&self, met: impl Fn(u64, Breakpoint) -> bool) -> Dr6 {
        let hits = (0..).zip(self.dr).filter(|&(i, addr)| self.dr7.breakpoint(i).is_some_and(|it| met(addr, it)));
        hits.map(|(i, _)| Dr6::hit(i)).collect()
    }

    /// I/O privilege level.
    pub const fn iopl(&self) -> u8 {
        (self.flags.intersection(Rflags::IOPL).bits() >> Rflags::IOPL_SHIFT) as u8
    }
}
