//! The folders `lift-x86` and `lift-riscv`: an instruction becomes the ops that it is lifted to.

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use mimus_frontend::common::guest::{Code, GuestCpu};
use mimus_frontend::riscv::{self, disasm};
use mimus_frontend::x86;
use mimus_frontend::x86::lift::{self, Request};
use mimus_frontend::x86::mode::Mode;
use mimus_frontend::x86::state::{Cr0, Cr4, Efer, Seg, Segment, State};
use mimus_ir::verify;

use crate::asm;
use crate::block::{PC, ops};
use crate::file::Produced;

/// The value of the setting `key`, a number.
fn setting(settings: &[String], key: &str, default: u32) -> Result<u32, String> {
    let value = settings.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map_or(Ok(default), |value| value.parse().map_err(|_| format!("`{key}={value}` is no number")))
}

/// Bytes written as pairs of hexadecimal digits.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let byte = |digits| u8::from_str_radix(digits, 16).map_err(|_| format!("`{digits}` is no byte"));
    text.split_whitespace().map(byte).collect()
}

/// The mode of x86 code of `bits` bits at privilege level `cpl`, with flat segments and everything enabled; real mode for 16 bits.
fn x86_mode(bits: u32, cpl: u32) -> Mode {
    let mut state = State::default();
    if bits != 16 {
        state.cr0 = Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG;
        state.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::FSGSBASE;
        state.efer = Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
        let (cpl, width) = (cpl as u16, if bits == 64 { 0x2000 } else { 0x4000 });
        let flat = |access| Segment { base: 0, limit: u32::MAX, selector: cpl, access: access | cpl << 5 };
        state.seg = [flat(0xc093); 6];
        state.seg[Seg::Cs as usize] = flat(0x809b | width);
    }
    Mode::of(&state)
}

/// x86: bytes, and behind a `;` the instruction as nasm has it, which the test checks and `--bless` writes. Settings are
/// `bits=` (64, 32, or 16 for real mode) and `cpl=`.
pub fn x86(settings: &[String], input: &str) -> Result<Produced, String> {
    let (bits, cpl) = (setting(settings, "bits", 64)?, setting(settings, "cpl", 3)?);
    let mode = x86_mode(bits, cpl);
    let code = bytes(input.split(';').next().unwrap_or_default())?;
    let insn = Decoder::with_ip(bits, &code, PC, DecoderOptions::NONE).decode();
    let mut nasm = String::new();
    NasmFormatter::new().format(&insn, &mut nasm);
    let request = Request { bytes: &code, in_page: code.len(), rip: PC, base: 0, mode, max_insns: 1 };
    let block = lift::lift(&request).map_err(|_| "the bytes end within the instruction")?;
    verify(&block, size_of::<State>()).map_err(|error| format!("no valid block: {error:?}"))?;
    let hex: Vec<String> = code.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Produced {
        input: format!("{} ; {nasm}", hex.join(" ")),
        output: ops(&block, Some(<x86::Cpu as GuestCpu>::names())),
    })
}

/// RISC-V: an instruction as the disassembler writes it; a compressed one as a number of four hexadecimal digits, and behind a `;`
/// the instruction that it stands for. The setting `mode=` is the translation mode's bits.
pub fn riscv(settings: &[String], input: &str) -> Result<Produced, String> {
    let mode = riscv::mode::Mode::from_bits_retain(setting(settings, "mode", 0)?);
    let text = input.split(';').next().unwrap_or_default().trim();
    let half = text.strip_prefix("0x").and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let code = match half {
        Some(half) => half.to_le_bytes().to_vec(),
        None => asm::assemble(text, PC)?.encode().to_le_bytes().to_vec(),
    };
    let (insn, len) = disasm::decode(&code).ok_or("this is not defined")?;
    let again = disasm::text(&insn, PC);
    let code = Code { bytes: &code[..len], in_page: len, max_insns: 1 };
    let block = riscv::lift::lift(&code, PC, 0, mode).map_err(|_| "the bytes end within the instruction")?;
    verify(&block, size_of::<riscv::state::State>()).map_err(|error| format!("no valid block: {error:?}"))?;
    Ok(Produced {
        input: half.map_or(again.clone(), |half| format!("{half:#06x} ; {again}")),
        output: ops(&block, Some(<riscv::Cpu as GuestCpu>::names())),
    })
}
