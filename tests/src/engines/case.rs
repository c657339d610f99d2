//! Random instructions of a form, with registers by which their memory operands lie in the data.

use iced_x86::{
    Code, Encoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind, OpKind, Register,
    UsedMemory,
};

use super::layout::{CODE, DATA, DATA_END, DATA_LEN, GS_BASE, PAGE, WRITABLE};
use super::{Registers, values};
use crate::rng::Rng;

/// One instruction to be run.
#[derive(Clone, Debug)]
pub struct Case {
    /// As decoded again from its bytes.
    pub insn: Instruction,
    /// Its bytes.
    pub code: Vec<u8>,
    /// Registers before it.
    pub registers: Registers,
    /// Data to be there before it: offset from [`DATA`] and bytes.
    pub patches: Vec<(usize, Vec<u8>)>,
}

/// What the registers must fulfil so that memory operands are where they are wanted.
struct Maker<'a> {
    rng: &'a mut Rng,
    /// Width of the code segment: 32 or 64.
    bits: u32,
    /// Address size of 32 bits.
    short: bool,
}

const GPR64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// The general register of a number, as wide as asked.
fn gpr(number: usize, bytes: u32) -> Register {
    let base = match bytes {
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    base + number as u32
}

/// An address for a memory operand of `size` bytes.
fn target(rng: &mut Rng, size: u64) -> u64 {
    let size = size.max(1);
    let writable = DATA_END - WRITABLE;
    match rng.below(100) {
        0..=54 => WRITABLE + 64 * rng.below((writable - size) / 64),
        55..=74 => WRITABLE + rng.below(writable - size),
        // Across the two writable pages; the end; the start; into the read-only page, wholly or in part.
        75..=82 => WRITABLE + PAGE - 1 - rng.below(size),
        83..=87 => DATA_END - 1 - rng.below(size),
        88..=89 => DATA - 1 - rng.below(size),
        90..=93 => DATA + rng.below(PAGE - size),
        94..=95 => WRITABLE - 1 - rng.below(size),
        96 => DATA_END + rng.below(PAGE),
        // Not canonical: just beyond, or anywhere.
        97 => (1 << 47) + (2 << 20) + rng.below(1 << 40),
        98 => 0x5555_0000_0000_0000 ^ rng.below(1 << 60),
        _ => WRITABLE + 16 * rng.below((writable - size) / 16),
    }
}

impl Maker<'_> {
    /// How many general registers there are.
    fn registers(&self) -> u64 {
        if self.bits == 64 { 16 } else { 8 }
    }

    /// One of 8 or, in 64-bit mode, `count` registers from `first` on.
    fn register(&mut self, count: u64, first: Register) -> Register {
        let count = if self.bits == 64 { count } else { count.min(8) };
        first + self.rng.below(count) as u32
    }

    /// Sets operand `index` to a memory operand whose base is solved for later.
    fn set_memory(&mut self, insn: &mut Instruction, index: u32) {
        insn.set_op_kind(index, OpKind::Memory);
        let bytes = if self.short { 4 } else { 8 };
        let registers = self.registers();
        match self.rng.below(24) {
            0 if !self.short => {
                // The displacement is set once the length is known: see `rip_relative`.
                insn.set_memory_base(Register::RIP);
                insn.set_memory_displacement64(target(self.rng, 16));
                insn.set_memory_displ_size(8);
                return;
            }
            1 => {
                insn.set_memory_displacement64(DATA + PAGE + self.rng.below(2 * PAGE - 64));
                insn.set_memory_displ_size(if self.short { 4 } else { 8 });
                return;
            }
            _ => {}
        }
        let base = self.rng.below(registers) as usize;
        insn.set_memory_base(gpr(base, bytes));
        if self.rng.one_in(2) {
            let other = self.rng.below(registers) as usize;
            if other != 4 && other != base {
                insn.set_memory_index(gpr(other, bytes));
                insn.set_memory_index_scale(1 << self.rng.below(4));
            }
        }
        let (displ, size) = match self.rng.below(4) {
            0 => (0, 0),
            1 => (values::int(self.rng, 8) as i8 as i64, 1),
            _ => (values::int(self.rng, 32) as i32 as i64, if self.short { 4 } else { 8 }),
        };
        insn.set_memory_displacement64(if self.short { displ as u32 as u64 } else { displ as u64 });
        insn.set_memory_displ_size(size);
        if self.rng.one_in(10) {
            insn.set_segment_prefix(Register::GS);
        }
    }

    /// Sets operand `index` to something of its kind; `None` for kinds that are not made here.
    fn operand(&mut self, insn: &mut Instruction, index: u32, kind: OpCodeOperandKind) -> Option<()> {
        use OpCodeOperandKind as K;
        let register = match kind {
            K::mem => {
                self.set_memory(insn, index);
                return Some(());
            }
            K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem | K::mm_or_mem | K::xmm_or_mem
                if self.rng.one_in(2) =>
            {
                self.set_memory(insn, index);
                return Some(());
            }
            K::r8_or_mem | K::r8_reg | K::r8_opcode => self.register(20, Register::AL),
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => self.register(16, Register::AX),
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode => self.register(16, Register::EAX),
            K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode => self.register(16, Register::RAX),
            K::mm_or_mem | K::mm_reg | K::mm_rm => self.register(8, Register::MM0),
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm => self.register(16, Register::XMM0),
            K::seg_reg => Register::ES + self.rng.below(6) as u32,
            K::cr_reg => Register::CR0 + self.rng.pick(&[0, 2, 3, 4, if self.bits == 64 { 8 } else { 0 }]),
            K::dr_reg => Register::DR0 + self.rng.below(8) as u32,
            K::sti_opcode => self.register(8, Register::ST0),
            K::st0 => Register::ST0,
            K::al => Register::AL,
            K::cl => Register::CL,
            K::ax => Register::AX,
            K::dx => Register::DX,
            K::eax => Register::EAX,
            K::rax => Register::RAX,
            K::es => Register::ES,
            K::cs => Register::CS,
            K::ss => Register::SS,
            K::ds => Register::DS,
            K::fs => Register::FS,
            K::gs => Register::GS,
            _ => return self.other_operand(insn, index, kind),
        };
        insn.set_op_register(index, register);
        Some(())
    }

    fn other_operand(&mut self, insn: &mut Instruction, index: u32, kind: OpCodeOperandKind) -> Option<()> {
        use OpCodeOperandKind as K;
        let (op_kind, bits) = match kind {
            K::imm8 if (0..index).any(|i| insn.op_kind(i) == OpKind::Immediate16) => (OpKind::Immediate8_2nd, 8),
            K::imm8 => (OpKind::Immediate8, 8),
            K::imm8_const_1 => {
                insn.set_op_kind(index, OpKind::Immediate8);
                insn.set_immediate_u64(index, 1);
                return Some(());
            }
            K::imm8sex16 => (OpKind::Immediate8to16, 8),
            K::imm8sex32 => (OpKind::Immediate8to32, 8),
            K::imm8sex64 => (OpKind::Immediate8to64, 8),
            K::imm16 => (OpKind::Immediate16, 16),
            K::imm32 => (OpKind::Immediate32, 32),
            K::imm32sex64 => (OpKind::Immediate32to64, 32),
            K::imm64 => (OpKind::Immediate64, 64),
            K::seg_rSI => {
                insn.set_op_kind(index, if self.short { OpKind::MemorySegESI } else { OpKind::MemorySegRSI });
                return Some(());
            }
            K::es_rDI => {
                insn.set_op_kind(index, if self.short { OpKind::MemoryESEDI } else { OpKind::MemoryESRDI });
                return Some(());
            }
            K::seg_rDI => {
                insn.set_op_kind(index, if self.short { OpKind::MemorySegEDI } else { OpKind::MemorySegRDI });
                return Some(());
            }
            K::seg_rBX_al => {
                insn.set_op_kind(index, OpKind::Memory);
                insn.set_memory_base(if self.short { Register::EBX } else { Register::RBX });
                insn.set_memory_index(Register::AL);
                return Some(());
            }
            K::mem_offs => {
                insn.set_op_kind(index, OpKind::Memory);
                insn.set_memory_displacement64(target(self.rng, 8) & if self.short { 0xffff_ffff } else { u64::MAX });
                insn.set_memory_displ_size(if self.short { 4 } else { 8 });
                return Some(());
            }
            K::br16_1 | K::br16_2 => {
                insn.set_op_kind(index, OpKind::NearBranch16);
                insn.set_near_branch16((CODE + 32 + self.rng.below(64)) as u16);
                return Some(());
            }
            K::farbr2_2 | K::farbr4_2 => {
                let wide = kind == K::farbr4_2;
                insn.set_op_kind(index, if wide { OpKind::FarBranch32 } else { OpKind::FarBranch16 });
                insn.set_far_branch_selector(values::int(self.rng, 16) as u16);
                if wide {
                    insn.set_far_branch32(values::int(self.rng, 32) as u32);
                } else {
                    insn.set_far_branch16(values::int(self.rng, 16) as u16);
                }
                return Some(());
            }
            K::br32_1 | K::br32_4 => {
                insn.set_op_kind(index, OpKind::NearBranch32);
                insn.set_near_branch32((CODE + 32 + self.rng.below(64)) as u32);
                return Some(());
            }
            K::br64_1 | K::br64_4 => {
                insn.set_op_kind(index, OpKind::NearBranch64);
                insn.set_near_branch64(CODE + 32 + self.rng.below(64));
                return Some(());
            }
            _ => return None,
        };
        let value = values::int(self.rng, bits);
        // The kinds that are sign-extended take the value extended.
        let shift = 64 - bits;
        insn.set_op_kind(index, op_kind);
        insn.set_immediate_u64(index, ((value << shift) as i64 >> shift) as u64);
        Some(())
    }
}

/// An instruction of form `code`, or `None` when the random choices do not go together.
pub fn instruction(rng: &mut Rng, code: Code, bits: u32) -> Option<Instruction> {
    let short = bits == 32 || rng.one_in(6);
    let mut maker = Maker { rng, bits, short };
    let mut insn = Instruction::default();
    insn.set_code(code);
    for (index, &kind) in code.op_code().op_kinds().iter().enumerate() {
        maker.operand(&mut insn, index as u32, kind)?;
    }
    let op_code = code.op_code();
    if insn.is_string_instruction() {
        if op_code.can_use_rep_prefix() && rng.one_in(3) {
            insn.set_has_rep_prefix(true);
        } else if op_code.can_use_repne_prefix() && rng.one_in(3) {
            insn.set_has_repne_prefix(true);
        }
    }
    if op_code.can_use_lock_prefix() && insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory && rng.one_in(3) {
        insn.set_has_lock_prefix(true);
    }
    Some(insn)
}

/// The bytes of an instruction at `rip` in code of `bits` bits.
pub fn encode(insn: &Instruction, rip: u64, bits: u32) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(bits);
    encoder.encode(insn, rip).ok()?;
    Some(encoder.take_buffer())
}

/// Random registers, without regard to memory operands.
pub fn registers(rng: &mut Rng) -> Registers {
    let mut gpr = [0; 16];
    for n in 0..16 {
        gpr[n] = if n > 0 && rng.one_in(8) { gpr[rng.below(n as u64) as usize] } else { values::int(rng, 64) };
    }
    let mut rflags = rng.next_u64() & 0x8d5 | 2;
    if rng.one_in(3) {
        rflags |= 0x400;
    }
    Registers { gpr, rflags, fx: values::fx(rng) }
}

fn part(value: u64, register: Register) -> u64 {
    match (register.size(), register) {
        (1, Register::AH | Register::CH | Register::DH | Register::BH) => value >> 8 & 0xff,
        (1, _) => value & 0xff,
        (2, _) => value & 0xffff,
        (4, _) => value & 0xffff_ffff,
        _ => value,
    }
}

fn read(registers: &Registers, register: Register) -> u64 {
    if register.is_gpr() { part(registers.gpr[register.full_register().number() & 15], register) } else { 0 }
}

/// How far a bit test by register reaches from its operand, in bytes.
fn bit_distance(insn: &Instruction, registers: &Registers) -> u64 {
    let bit_test = matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
    if !bit_test || insn.op1_kind() != OpKind::Register {
        return 0;
    }
    let bits = 8 * insn.op1_register().size() as u32;
    let offset = read(registers, insn.op1_register());
    let offset = ((offset << (64 - bits)) as i64) >> (64 - bits);
    (offset >> bits.trailing_zeros() << bits.trailing_zeros() >> 3) as u64
}

/// Sets the base register of `memory` so that it lies at `at`, unless that register is taken. Where the operand is.
fn solve(
    insn: &Instruction,
    memory: &UsedMemory,
    at: u64,
    registers: &mut Registers,
    taken: &mut [bool; 16],
) -> Option<u64> {
    let short = memory.base().size() == 4 || memory.index().size() == 4;
    let wrap = |x: u64| if short { x & 0xffff_ffff } else { x };
    let segment = if memory.segment() == Register::GS { GS_BASE } else { 0 };
    let distance = bit_distance(insn, registers);
    let index = read(registers, memory.index()).wrapping_mul(memory.scale() as u64);
    let rest = index.wrapping_add(memory.displacement());
    if memory.base().is_gpr() {
        let number = memory.base().full_register().number();
        if !taken[number] {
            let base = at.wrapping_sub(segment).wrapping_sub(distance).wrapping_sub(rest);
            let old = registers.gpr[number];
            registers.gpr[number] = if short { old & !0xffff_ffff | base & 0xffff_ffff } else { base };
            taken[number] = true;
        }
        if memory.index().is_gpr() {
            taken[memory.index().full_register().number()] = true;
        }
    }
    let base = read(registers, memory.base());
    Some(wrap(base.wrapping_add(rest)).wrapping_add(distance).wrapping_add(segment))
}

fn patch(patches: &mut Vec<(usize, Vec<u8>)>, at: u64, bytes: &[u8]) {
    let start = at.wrapping_sub(DATA) as usize;
    if start < DATA_LEN {
        let len = bytes.len().min(DATA_LEN - start);
        patches.push((start, bytes[..len].to_vec()));
    }
}

/// What lies in memory for an operand of `insn`.
fn contents(rng: &mut Rng, insn: &Instruction, registers: &Registers) -> Vec<u8> {
    let [rax, _, rdx, ..] = registers.gpr;
    match insn.mnemonic() {
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => values::fx(rng).to_vec(),
        Mnemonic::Fldenv | Mnemonic::Frstor => (0..14).flat_map(|_| rng.next_u64().to_le_bytes()).collect(),
        // Digits beyond 9 have no defined value (SDM vol. 2A, FBLD).
        Mnemonic::Fbld => (0..10)
            .map(|at| if at < 9 { (rng.below(10) << 4 | rng.below(10)) as u8 } else { (rng.below(2) << 7) as u8 })
            .collect(),
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => (rng.next_u64() & !0x100).to_le_bytes().to_vec(),
        Mnemonic::Cmpxchg if rng.one_in(2) => rax.to_le_bytes().to_vec(),
        Mnemonic::Cmpxchg8b if rng.one_in(2) => (rax & 0xffff_ffff | rdx << 32).to_le_bytes().to_vec(),
        Mnemonic::Cmpxchg16b if rng.one_in(2) => [rax.to_le_bytes(), rdx.to_le_bytes()].concat(),
        Mnemonic::Ldmxcsr if !rng.one_in(4) => values::mxcsr(rng).to_le_bytes().to_vec(),
        // Bit 17 is one that some processors have.
        Mnemonic::Ldmxcsr => (rng.next_u64() as u32 & !0x2_0000).to_le_bytes().to_vec(),
        _ => match rng.below(4) {
            0 => values::f80_bits(rng).to_le_bytes().to_vec(),
            1 => registers.xmm(rng.below(16) as usize).to_le_bytes().to_vec(),
            _ => values::vector(rng).to_le_bytes().to_vec(),
        },
    }
}

/// Registers for `insn` and memory operands placed in the data.
pub fn place(rng: &mut Rng, insn: &Instruction) -> (Registers, Vec<(usize, Vec<u8>)>) {
    let mut registers = registers(rng);
    match insn.mnemonic() {
        Mnemonic::Div | Mnemonic::Idiv if rng.one_in(2) => {
            let negative = insn.mnemonic() == Mnemonic::Idiv && registers.gpr[0] >> 63 != 0;
            registers.gpr[2] = if negative { u64::MAX } else { 0 };
        }
        Mnemonic::Cmpxchg if rng.one_in(2) && insn.op0_kind() == OpKind::Register => {
            let value = read(&registers, insn.op0_register());
            registers.gpr[0] = registers.gpr[0] & !0xffff_ffff | value & 0xffff_ffff;
            if insn.op0_register().size() == 8 {
                registers.gpr[0] = value;
            }
        }
        _ => {}
    }
    let mut taken = [false; 16];
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        let high = if rng.one_in(2) { 0 } else { registers.gpr[1] & !0xffff_ffff };
        // With 32-bit addresses the upper half does not count.
        registers.gpr[1] = if rng.one_in(4) { rng.below(3000) } else { rng.below(20) } | high;
        taken[1] = true;
    }
    let mut factory = InstructionInfoFactory::new();
    let used: Vec<UsedMemory> = factory.info(insn).used_memory().to_vec();
    let mut patches = Vec::new();
    for memory in &used {
        if memory.access() == OpAccess::NoMemAccess {
            continue;
        }
        let at = target(rng, memory.memory_size().size() as u64);
        if let Some(at) = solve(insn, memory, at, &mut registers, &mut taken) {
            let bytes = contents(rng, insn, &registers);
            patch(&mut patches, at, &bytes);
        }
    }
    let both = taken[6] && taken[7] && insn.is_string_instruction();
    if both && rng.one_in(4) {
        // Operands that overlap.
        registers.gpr[7] = registers.gpr[6].wrapping_add(rng.below(65)).wrapping_sub(32);
    }
    if insn.mnemonic() == Mnemonic::Enter && !taken[5] {
        registers.gpr[5] = target(rng, 8);
    }
    (registers, patches)
}

/// A case of form `code` in code of `bits` bits.
pub fn case(rng: &mut Rng, code: Code, bits: u32) -> Option<Case> {
    let insn = instruction(rng, code, bits)?;
    let bytes = encode(&insn, CODE, bits)?;
    let insn = iced_x86::Decoder::with_ip(bits, &bytes, CODE, iced_x86::DecoderOptions::NONE).decode();
    if insn.code() != code {
        return None;
    }
    let (registers, patches) = place(rng, &insn);
    Some(Case { insn, code: bytes, registers, patches })
}

/// The 64-bit general registers by number.
pub const NAMES: [Register; 16] = GPR64;
