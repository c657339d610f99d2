//! Stubs for x86-64 operations that the code generator has no form for: one instruction and a return. Operands are in XMM0
//! and XMM1, the result is in XMM0 or RAX, and no stack is used.

use mimus_ir::vec::{VecInfo, VecKind};

/// Distance between stubs in bytes.
pub(crate) const SIZE: usize = 16;

/// A row: an operation, its instruction (SDM vol. 2), and how many immediates follow it.
struct Row {
    kind: VecKind,
    code: &'static [u8],
    immediates: usize,
}

const fn row(kind: VecKind, code: &'static [u8], immediates: usize) -> Row {
    Row { kind, code, immediates }
}

const ROWS: &[Row] = &[
    row(VecKind::SubAddF32P, &[0xf2, 0x0f, 0xd0, 0xc1], 1),
    row(VecKind::SubAddF64P, &[0x66, 0x0f, 0xd0, 0xc1], 1),
    row(VecKind::F32PToI32P, &[0x66, 0x0f, 0x5b, 0xc0], 1),
    row(VecKind::F64PToI32P, &[0xf2, 0x0f, 0xe6, 0xc0], 1),
    row(VecKind::F32ToI32, &[0xf3, 0x0f, 0x2d, 0xc0], 1),
    row(VecKind::F32ToI64, &[0xf3, 0x48, 0x0f, 0x2d, 0xc0], 1),
    row(VecKind::F64ToI32, &[0xf2, 0x0f, 0x2d, 0xc0], 1),
    row(VecKind::F64ToI64, &[0xf2, 0x48, 0x0f, 0x2d, 0xc0], 1),
    row(VecKind::RoundF32P, &[0x66, 0x0f, 0x3a, 0x08, 0xc0], 16),
    row(VecKind::RoundF64P, &[0x66, 0x0f, 0x3a, 0x09, 0xc0], 16),
    row(VecKind::RoundF32, &[0x66, 0x0f, 0x3a, 0x0a, 0xc1], 16),
    row(VecKind::RoundF64, &[0x66, 0x0f, 0x3a, 0x0b, 0xc1], 16),
];

/// Number of the stub for an operation, if there is one.
pub(crate) fn number(info: VecInfo) -> Option<usize> {
    let at = ROWS.iter().position(|r| r.kind == info.kind)?;
    let before: usize = ROWS[..at].iter().map(|r| r.immediates).sum();
    let imm = usize::from(info.imm);
    (imm < ROWS[at].immediates).then_some(before + imm)
}

/// All stubs, [`SIZE`] bytes each.
pub(crate) fn code() -> Vec<u8> {
    const RET: u8 = 0xc3;
    const INT3: u8 = 0xcc;
    let mut all = Vec::new();
    for row in ROWS {
        for imm in 0..row.immediates {
            let end = all.len() + SIZE;
            all.extend_from_slice(row.code);
            if row.immediates > 1 {
                all.push(imm as u8);
            }
            all.push(RET);
            all.resize(end, INT3);
        }
    }
    all
}
