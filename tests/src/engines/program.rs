//! Random programs: each instruction is made for the registers that those before it leave, so that its memory operands lie
//! in the data.

use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use mimus_frontend::x86::state::Rflags;

use super::case;
use super::compare::assembly;
use super::form;
use super::guest::{Guest, Passes};
use super::layout::{CODE, DATA, DATA_LEN, WRITABLE};
use super::{Outcome, Registers};
use crate::rng::Rng;

/// Instructions one behind the other from [`CODE`] on, and what they are run with.
#[derive(Clone, Debug)]
pub struct Program {
    /// Each instruction's bytes.
    pub insns: Vec<Vec<u8>>,
    /// Registers before the first.
    pub registers: Registers,
    /// Data before the first.
    pub data: Vec<u8>,
}

/// Fills the place that a branch jumps over: `mov eax, imm32`.
const SKIPPED: [u8; 5] = [0xb8, 0x78, 0x56, 0x34, 0x12];

impl Program {
    /// The bytes.
    pub fn code(&self) -> Vec<u8> {
        self.insns.concat()
    }

    /// The same with instruction `n` replaced by NOPs, so that all others stay where they are.
    pub fn without(&self, n: usize) -> Program {
        let mut program = self.clone();
        program.insns[n].fill(0x90);
        program
    }

    /// Whether instruction `n` does anything.
    pub fn is_nop(&self, n: usize) -> bool {
        self.insns[n].iter().all(|&b| b == 0x90)
    }

    /// As assembly, without what was replaced by NOPs.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        let mut at = CODE;
        for (n, bytes) in self.insns.iter().enumerate() {
            let insn = iced_x86::Decoder::with_ip(64, bytes, at, iced_x86::DecoderOptions::NONE).decode();
            if !self.is_nop(n) {
                text += &format!("    {at:#x} {:?}: {}\n", insn.code(), assembly(&insn));
            }
            at += bytes.len() as u64;
        }
        text
    }
}

/// Forms that programs are made of.
pub fn forms() -> Vec<Code> {
    let usual = |code: &Code| form::excluded(*code).is_none() || matches!(code.mnemonic(), Mnemonic::Movsxd);
    form::lifted(64).filter(usual).collect()
}

/// Moves the memory operand of `insn` into the data by its displacement, the registers being what they are. `None` if it
/// cannot be reached so.
fn aim(rng: &mut Rng, insn: &mut Instruction, registers: &Registers) -> Option<()> {
    let small = |r: Register| r == Register::None || registers.gpr[r.full_register().number() & 15] < 1 << 30;
    if insn.mnemonic() == Mnemonic::Xlatb {
        return small(Register::RBX).then_some(());
    }
    if (0..insn.op_count()).all(|i| insn.op_kind(i) != OpKind::Memory) || insn.memory_base() == Register::RIP {
        return Some(());
    }
    if insn.memory_displ_size() == 8 && insn.memory_base() == Register::None && insn.memory_index() == Register::None {
        return Some(());
    }
    insn.set_segment_prefix(Register::None);
    if !small(insn.memory_base()) {
        insn.set_memory_base(Register::None);
    }
    if !small(insn.memory_index()) {
        insn.set_memory_index(Register::None);
    }
    let value = |r: Register| if r == Register::None { 0 } else { registers.gpr[r.full_register().number() & 15] };
    let reached = value(insn.memory_base()) + value(insn.memory_index()) * u64::from(insn.memory_index_scale());
    let target = WRITABLE + 16 * rng.below(500) + if rng.one_in(3) { rng.below(16) } else { 0 };
    let displacement = target.wrapping_sub(reached) as i64;
    i32::try_from(displacement).ok()?;
    let short = insn.memory_base().size() == 4 || insn.memory_index().size() == 4;
    let none = insn.memory_base() == Register::None && insn.memory_index() == Register::None;
    insn.set_memory_displ_size(if short || none { 4 } else { 8 });
    let displacement = if short || none { displacement as u32 as u64 } else { displacement as u64 };
    insn.set_memory_displacement64(displacement);
    Some(())
}

/// Whether every access of `insn` with these registers is in the data.
fn within_data(insn: &Instruction, registers: &Registers) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let value = |r: Register| {
        if !r.is_gpr() {
            return Some(if r == Register::GS { super::layout::GS_BASE } else { 0 });
        }
        let whole = registers.gpr[r.full_register().number() & 15];
        Some(match r.size() {
            1 => whole & 0xff,
            4 => whole & 0xffff_ffff,
            _ => whole,
        })
    };
    factory.info(insn).used_memory().iter().all(|m| {
        m.access() == iced_x86::OpAccess::NoMemAccess
            || m.virtual_address(0, |r, _, _| value(r)).is_some_and(|a| (DATA..DATA + DATA_LEN as u64).contains(&a))
    })
}

fn next_instruction(rng: &mut Rng, codes: &[Code], now: &Registers, rip: u64) -> Option<Vec<u8>> {
    let code = rng.pick(codes);
    let mut insn = case::instruction(rng, code, 64)?;
    aim(rng, &mut insn, now)?;
    let branches = !matches!(code.flow_control(), FlowControl::Next | FlowControl::Exception);
    if branches {
        // The length is known only once it is encoded.
        insn.set_near_branch64(rip + 16);
        let len = case::encode(&insn, rip, 64)?.len() as u64;
        insn.set_near_branch64(rip + len + SKIPPED.len() as u64);
    }
    let mut bytes = case::encode(&insn, rip, 64)?;
    let insn = iced_x86::Decoder::with_ip(64, &bytes, rip, iced_x86::DecoderOptions::NONE).decode();
    let reaches = within_data(&insn, now) || rng.one_in(40);
    // Single-stepped, it is left behind each element for a trap that nobody takes here.
    let repeats = insn.has_rep_prefix() || insn.has_repne_prefix();
    let long = repeats && (now.gpr[1] > 1000 || now.rflags & Rflags::TF.bits() != 0);
    if !reaches || long {
        return None;
    }
    if branches {
        bytes.extend(SKIPPED);
    }
    Some(bytes)
}

/// A program of at most `max` instructions, made by running it on `guest` one instruction at a time; and its outcome there.
pub fn program(rng: &mut Rng, guest: &mut Guest, codes: &[Code], max: u64) -> (Program, Outcome) {
    let mut registers = case::registers(rng);
    // Some that point to the data, as the stack pointer always does.
    for n in 0..16 {
        if n == 4 || rng.one_in(3) {
            registers.gpr[n] = WRITABLE + 0x400 + 8 * rng.below(0x200);
        }
    }
    let data: Vec<u8> = (0..DATA_LEN / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    guest.write_data(&data);
    let mut program = Program { insns: Vec::new(), registers: registers.clone(), data };
    let mut outcome = Outcome { registers, rip: CODE, trap: None };
    let length = 1 + rng.below(max);
    let mut end = CODE;
    for _ in 0..20 * length {
        if program.insns.len() as u64 >= length || outcome.trap.is_some() {
            break;
        }
        let Some(bytes) = next_instruction(rng, codes, &outcome.registers, end) else { continue };
        program.insns.push(bytes);
        end = CODE + program.code().len() as u64;
        outcome = single_steps(guest, &program.code(), outcome, end);
    }
    (program, outcome)
}

/// Goes on from `outcome` one instruction at a time until `end` or an exception.
fn single_steps(guest: &mut Guest, code: &[u8], mut outcome: Outcome, end: u64) -> Outcome {
    guest.write_code(code);
    for _ in 0..64 {
        if outcome.rip == end || outcome.trap.is_some() {
            break;
        }
        guest.load(&outcome.registers, outcome.rip);
        let block = guest.lift(code, outcome.rip, 1, Passes::None);
        match block.and_then(|block| guest.interpret(&block)) {
            Ok(next) => outcome = next,
            Err(problem) => panic!("{code:02x?}: {problem}"),
        }
    }
    outcome
}
