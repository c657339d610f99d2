//! x86's x87 as an extension: the guest's unit is the host's while compiled code runs.
//!
//! Cranelift knows no x87. So each instruction that translated code may want is a routine of a few bytes, made at start:
//! the instruction itself and a return. Arguments of the `PreserveAll` convention lie as in the System V ABI: env in RDI, and in
//! RSI the operand's host address or a condition.
//!
//! What a guest says of an operation, in the constant argument of its call: bits 0..11 are the opcode as the unit's own opcode
//! register has it (SDM vol. 1, 8.1.9), the low 3 bits of the first byte in bits 8..11 and ModRM in bits 0..8. The image is what
//! FNSAVE stores with 32-bit operand size in protected mode (SDM vol. 1, figure 8-9). All exceptions are masked in it: a guest that
//! unmasks one is never let in.

use mimus_softmmu::EnvHeader;
use mimus_softmmu::header::EXTENSION_IMAGE;
use std::mem::offset_of;

use crate::host::{Arch, HostIsa};
use crate::target::{Extension, Form, Operand};

/// The row.
pub(crate) static EXTENSION: Extension = Extension {
    name: "x87",
    available,
    form: |arg| form(0xd8 | (arg >> 8 & 7) as u8, arg as u8),
    routines,
    save: SAVE,
    restore: RESTORE,
};

// FNSAVE stores 108 bytes.
const _: () = assert!(EXTENSION_IMAGE >= 108);

/// Bytes from one routine to the next.
const STRIDE: usize = 16;
/// Number of opcodes without memory operand: 8 first bytes, ModRM from 0xc0 on.
const REGISTER_FORMS: usize = 8 * 64;
/// Number of opcodes with one: 8 first bytes, 8 extensions in ModRM.
const MEMORY_FORMS: usize = 8 * 8;

/// `int3`, between routines and in place of those that do not exist.
const INT3: u8 = 0xcc;
const RET: u8 = 0xc3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Registers only.
    Plain,
    /// Compares into EFLAGS: those of [`EFLAGS`] go to the slow value.
    Flags,
    /// FNSTSW AX: the status word goes to the slow value.
    Status,
    /// FCMOVcc: moves if RSI is not 0.
    Move,
    /// Reads or writes `bytes` at RSI.
    Memory { bytes: u32, write: bool },
    /// FLDCW.
    LoadControl,
}

/// ZF, PF and CF.
const EFLAGS: u64 = 0x45;

/// The masks of all exceptions in the control word (SDM vol. 1, 8.1.5).
const MASKS: u16 = 0x3f;

/// Offset of the routine that saves the unit to the image and empties it.
const SAVE: i32 = ((REGISTER_FORMS + MEMORY_FORMS) * STRIDE) as i32;
/// Offset of the routine that loads the unit from the image.
const RESTORE: i32 = SAVE + STRIDE as i32;

/// SSSE3 is asked for since every processor with it has FISTTP and LAHF too.
fn available(host: &HostIsa) -> bool {
    host.arch == Arch::X64
        && host.isa.isa_flags().iter().any(|flag| flag.name == "has_ssse3" && flag.as_bool() == Some(true))
}

/// How the instruction is executed; `None` for those that are left to the helper.
fn form(first: u8, modrm: u8) -> Option<Form> {
    let (kind, index) = kind(first, modrm)?;
    let operand = match kind {
        Kind::Plain | Kind::Flags | Kind::Status => Operand::None,
        Kind::Move => Operand::Value,
        Kind::Memory { bytes, write } => Operand::Memory { bytes, write },
        Kind::LoadControl => Operand::Checked { set: MASKS },
    };
    let result = match kind {
        Kind::Flags => Some(EFLAGS),
        Kind::Status => Some(u64::MAX),
        _ => None,
    };
    Some(Form { routine: (index * STRIDE) as i32, operand, result })
}

/// What the instruction is, and the number of its routine.
fn kind(first: u8, modrm: u8) -> Option<(Kind, usize)> {
    Some(match modrm.checked_sub(0xc0) {
        Some(low) => (register_kind(first, modrm)?, usize::from(first & 7) * 64 + usize::from(low)),
        None => {
            let extension = modrm >> 3 & 7;
            (memory_kind(first, extension)?, REGISTER_FORMS + usize::from(first & 7) * 8 + usize::from(extension))
        }
    })
}

/// SDM vol. 2D, tables and so on: the documented encodings, without environments, BCD and transcendentals.
fn register_kind(first: u8, modrm: u8) -> Option<Kind> {
    match (first, modrm) {
        (0xda, 0xc0..=0xdf) | (0xdb, 0xc0..=0xdf) => Some(Kind::Move),
        (0xdb | 0xdf, 0xe8..=0xf7) => Some(Kind::Flags),
        (0xdf, 0xe0) => Some(Kind::Status),
        (0xd8, _)
        | (0xd9, 0xc0..=0xd0 | 0xe0 | 0xe1 | 0xe4 | 0xe5 | 0xe8..=0xee | 0xf6 | 0xf7 | 0xfa | 0xfc)
        | (0xda, 0xe9)
        | (0xdb, 0xe2)
        | (0xdc, 0xc0..=0xcf | 0xe0..=0xff)
        | (0xdd, 0xc0..=0xc7 | 0xd0..=0xef)
        | (0xde, 0xc0..=0xcf | 0xd9 | 0xe0..=0xff) => Some(Kind::Plain),
        _ => None,
    }
}

/// SDM vol. 2D, tables and so on.
fn memory_kind(first: u8, extension: u8) -> Option<Kind> {
    let (bytes, write) = match (first, extension) {
        (0xd8 | 0xda, _) | (0xd9 | 0xdb, 0) => (4, false),
        (0xdc, _) | (0xdd, 0) | (0xdf, 5) => (8, false),
        (0xde, _) | (0xdf, 0) => (2, false),
        (0xdb, 5) => (10, false),
        (0xd9, 2 | 3) | (0xdb, 1..=3) => (4, true),
        (0xdd, 1..=3) | (0xdf, 7) => (8, true),
        (0xd9 | 0xdd, 7) | (0xdf, 1..=3) => (2, true),
        (0xdb, 7) => (10, true),
        (0xd9, 5) => return Some(Kind::LoadControl),
        _ => return None,
    };
    Some(Kind::Memory { bytes, write })
}

/// All routines, for envs with their header at `header_offset`.
fn routines(header_offset: i32) -> Vec<u8> {
    let field = |offset: usize| (header_offset + offset as i32).to_le_bytes();
    let mut code = vec![INT3; RESTORE as usize + STRIDE];
    for first in 0xd8..=0xdf {
        for modrm in (0xc0..=0xff).chain((0..8).map(|extension| extension << 3)) {
            if let Some((kind, index)) = kind(first, modrm) {
                let bytes = routine(kind, first, modrm, field(offset_of!(EnvHeader, slow_value)));
                code[index * STRIDE..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
    }
    let [a, b, c, d] = field(offset_of!(EnvHeader, extension_image));
    // fnsave [rdi + image]; frstor [rdi + image]
    for (at, modrm) in [(SAVE, 0xb7), (RESTORE, 0xa7)] {
        code[at as usize..][..7].copy_from_slice(&[0xdd, modrm, a, b, c, d, RET]);
    }
    code
}

fn routine(kind: Kind, first: u8, modrm: u8, [a, b, c, d]: [u8; 4]) -> Vec<u8> {
    match kind {
        Kind::Plain => vec![first, modrm, RET],
        // push rax; the instruction; lahf; movzx eax, ah; mov [rdi + slow_value], rax; pop rax
        Kind::Flags => {
            vec![0x50, first, modrm, 0x9f, 0x0f, 0xb6, 0xc4, 0x48, 0x89, 0x87, a, b, c, d, 0x58, RET]
        }
        // push rax; fnstsw ax; movzx eax, ax; mov [rdi + slow_value], rax; pop rax
        Kind::Status => {
            vec![0x50, first, modrm, 0x0f, 0xb7, 0xc0, 0x48, 0x89, 0x87, a, b, c, d, 0x58, RET]
        }
        // test esi, esi; fcmovne st, st(i)
        Kind::Move => vec![0x85, 0xf6, 0xdb, 0xc8 | modrm & 7, RET],
        // The operand at [rsi].
        Kind::Memory { .. } | Kind::LoadControl => vec![first, modrm & 0x38 | 6, RET],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind, Register};

    #[test]
    fn routines_are_their_instructions_and_return() {
        let code = routines(0x700);
        let mut count = 0;
        for first in 0xd8..=0xdf {
            for modrm in (0xc0..=0xff).chain((0..8).map(|e: u8| e << 3)) {
                let wanted = Decoder::with_ip(64, &[first, modrm], 0, DecoderOptions::NONE).decode();
                let Some(form) = form(first, modrm) else { continue };
                count += 1;
                let routine = &code[form.routine as usize..][..STRIDE];
                let all: Vec<_> = Decoder::with_ip(64, routine, 0, DecoderOptions::NONE).into_iter().collect();
                let end = all.iter().position(|i| i.flow_control() == FlowControl::Return).expect("a return");
                let x87: Vec<_> =
                    all[..end].iter().filter(|i| format!("{:?}", i.mnemonic()).starts_with('F')).collect();
                assert_eq!(x87.len(), 1, "{wanted:?}");
                match form.operand {
                    Operand::Value => assert_eq!(x87[0].mnemonic(), Mnemonic::Fcmovne),
                    _ => assert_eq!(x87[0].code(), wanted.code()),
                }
                if let Operand::Memory { bytes, write } = form.operand {
                    assert_eq!(wanted.memory_size().size(), bytes as usize, "{wanted:?}");
                    assert_eq!(
                        write,
                        matches!(
                            wanted.mnemonic(),
                            Mnemonic::Fst
                                | Mnemonic::Fstp
                                | Mnemonic::Fist
                                | Mnemonic::Fistp
                                | Mnemonic::Fisttp
                                | Mnemonic::Fnstcw
                                | Mnemonic::Fnstsw
                        ),
                        "{wanted:?}"
                    );
                    assert_eq!((x87[0].op_kind(0), x87[0].memory_base()), (OpKind::Memory, Register::RSI));
                }
            }
        }
        assert!(count > 350, "{count}");
    }
}
