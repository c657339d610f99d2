//! Encoding of the x86-64 instructions that the quick tier uses (SDM vol. 2, chapter 2), and labels.

/// A general register by its number.
pub(super) type Gpr = u8;

pub(super) const RAX: Gpr = 0;
pub(super) const RCX: Gpr = 1;
pub(super) const RDX: Gpr = 2;
pub(super) const RBX: Gpr = 3;
pub(super) const RSP: Gpr = 4;
pub(super) const RBP: Gpr = 5;
pub(super) const RSI: Gpr = 6;
pub(super) const RDI: Gpr = 7;
pub(super) const R8: Gpr = 8;
pub(super) const R9: Gpr = 9;

/// A mandatory or operand-size prefix, an opcode map and an opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opcode {
    prefix: u8,
    map: &'static [u8],
    code: u8,
}

/// An opcode of one byte.
pub(super) const fn op(code: u8) -> Opcode {
    Opcode { prefix: 0, map: &[], code }
}

pub(super) const LEA: Opcode = op(0x8d);

/// An opcode of the 0F map; `prefix` 0 for none.
pub(super) const fn op0f(prefix: u8, code: u8) -> Opcode {
    Opcode { prefix, map: &[0x0f], code }
}

/// An opcode of the 0F38 map with prefix 66.
pub(super) const fn op38(code: u8) -> Opcode {
    Opcode { prefix: 0x66, map: &[0x0f, 0x38], code }
}

/// An opcode of the 0F3A map with prefix 66.
pub(super) const fn op3a(code: u8) -> Opcode {
    Opcode { prefix: 0x66, map: &[0x0f, 0x3a], code }
}

impl Opcode {
    /// With an operand-size prefix.
    pub(super) const fn size16(self) -> Opcode {
        Opcode { prefix: 0x66, ..self }
    }
}

/// Register or memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rm {
    /// A register: general or XMM, by the instruction.
    Reg(u8),
    /// `[base + disp]`.
    Mem(Gpr, i32),
    /// `[base + (index << scale) + disp]`; the index is not RSP.
    Index(Gpr, Gpr, u8, i32),
}

/// Operand width, as far as it has an encoding of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// Byte registers: the numbers 4 to 7 are SPL to DIL, which takes a REX prefix.
    Byte,
    /// 32 bits, or the instruction's own.
    Plain,
    /// REX.W.
    Wide,
}

/// Operations that share encodings, by their number in the ModRM extension of 81 and 83.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Alu {
    Add = 0,
    Or = 1,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts and rotations, by their number in the ModRM extension of C1 and D3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// A condition by its number in Jcc, SETcc and CMOVcc (SDM vol. 1, appendix B).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cond(u8);

impl Cond {
    pub(super) const B: Cond = Cond(2);
    pub(super) const AE: Cond = Cond(3);
    pub(super) const E: Cond = Cond(4);
    pub(super) const NE: Cond = Cond(5);
    pub(super) const BE: Cond = Cond(6);
    pub(super) const A: Cond = Cond(7);
    pub(super) const S: Cond = Cond(8);
    pub(super) const P: Cond = Cond(10);
    pub(super) const NP: Cond = Cond(11);
    pub(super) const L: Cond = Cond(12);
    pub(super) const LE: Cond = Cond(14);

    /// The opposite.
    pub(super) const fn not(self) -> Cond {
        Cond(self.0 ^ 1)
    }
}

/// A place in the code, known or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

/// Code under construction.
#[derive(Debug, Default)]
pub(super) struct Emitter {
    pub(super) code: Vec<u8>,
    labels: Vec<Option<u32>>,
    /// Places of 32-bit displacements, and where they lead.
    jumps: Vec<(u32, Label)>,
}

/// An instruction under construction, without its immediate: 11 bytes at most.
#[derive(Default)]
struct Bytes {
    all: [u8; 16],
    len: usize,
}

impl Bytes {
    #[inline(always)]
    fn push(&mut self, byte: u8) {
        // The mask only removes the check.
        self.all[self.len & 15] = byte;
        self.len += 1;
    }

    #[inline(always)]
    fn memory(&mut self, reg: u8, rm: u8, sib: Option<u8>, base: Gpr, disp: i32) {
        // RBP and R13 as bases have no form without a displacement.
        let (mode, short) = match i8::try_from(disp) {
            Ok(0) if base & 7 != RBP => (0x00, None),
            Ok(short) => (0x40, Some(short)),
            Err(_) => (0x80, None),
        };
        self.push(mode | reg | rm);
        if let Some(sib) = sib {
            self.push(sib);
        }
        match (mode, short) {
            (0x80, _) => disp.to_le_bytes().into_iter().for_each(|byte| self.push(byte)),
            (_, Some(short)) => self.push(short as u8),
            _ => {}
        }
    }
}

impl Emitter {
    /// Starts anew.
    pub(super) fn clear(&mut self) {
        self.code.clear();
        self.labels.clear();
        self.jumps.clear();
    }

    fn byte(&mut self, byte: u8) {
        self.code.push(byte);
    }

    fn imm32(&mut self, imm: i32) {
        self.code.extend_from_slice(&imm.to_le_bytes());
    }

    /// An instruction with a ModRM byte: `reg` is the register field or the opcode's extension.
    pub(super) fn inst(&mut self, width: Width, opcode: Opcode, reg: u8, rm: Rm) {
        let mut bytes = Bytes::default();
        if opcode.prefix != 0 {
            bytes.push(opcode.prefix);
        }
        let (x, b) = match rm {
            Rm::Reg(r) | Rm::Mem(r, _) => (0, r >> 3),
            Rm::Index(base, index, ..) => (index >> 3, base >> 3),
        };
        let rex = u8::from(width == Width::Wide) << 3 | (reg >> 3) << 2 | x << 1 | b;
        let low_byte = |r: u8| (RSP..=RDI).contains(&r);
        let byte = width == Width::Byte && (low_byte(reg) || matches!(rm, Rm::Reg(r) if low_byte(r)));
        if rex != 0 || byte {
            bytes.push(0x40 | rex);
        }
        opcode.map.iter().for_each(|&byte| bytes.push(byte));
        bytes.push(opcode.code);
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(r) => bytes.push(0xc0 | reg | r & 7),
            Rm::Mem(base, disp) if base & 7 == RSP => bytes.memory(reg, RSP, Some(0x20 | RSP), base, disp),
            Rm::Mem(base, disp) => bytes.memory(reg, base & 7, None, base, disp),
            Rm::Index(base, index, scale, disp) => {
                bytes.memory(reg, RSP, Some(scale << 6 | (index & 7) << 3 | base & 7), base, disp);
            }
        }
        // All of it, whose length is known to the compiler, rather than a copy of as much as there is.
        let end = self.code.len() + bytes.len;
        self.code.extend_from_slice(&bytes.all);
        self.code.truncate(end);
    }

    /// An instruction of the 0F38 map with VEX prefix, prefix 66 and 128 bits: `op reg, second, third` (SDM vol. 2A, 2.3).
    pub(super) fn vex38(&mut self, width: Width, code: u8, reg: u8, second: u8, third: u8) {
        let rex = !(reg >> 3 << 2 | third >> 3) & 5;
        let wide = u8::from(width == Width::Wide);
        self.code.extend_from_slice(&[0xc4, rex << 5 | 0x42, wide << 7 | (!second & 15) << 3 | 1, code]);
        self.byte(0xc0 | (reg & 7) << 3 | third & 7);
    }

    /// An instruction with an 8-bit immediate.
    pub(super) fn inst_imm8(&mut self, width: Width, opcode: Opcode, reg: u8, rm: Rm, imm: u8) {
        self.inst(width, opcode, reg, rm);
        self.byte(imm);
    }

    /// `mov reg, rm`, zero-extended to 64 bits unless it is [`Width::Wide`]; a [`Width::Byte`] is not extended.
    pub(super) fn mov(&mut self, width: Width, reg: Gpr, rm: Rm) {
        self.inst(width, if width == Width::Byte { op(0x8a) } else { op(0x8b) }, reg, rm);
    }

    /// `mov reg, imm`, the shortest that leaves all 64 bits so.
    pub(super) fn mov_imm(&mut self, reg: Gpr, imm: u64) {
        if imm == 0 {
            self.alu(Width::Plain, Alu::Xor, reg, Rm::Reg(reg));
        } else {
            self.mov_imm_flags(reg, imm);
        }
    }

    /// [`Emitter::mov_imm`] that leaves the flags alone.
    pub(super) fn mov_imm_flags(&mut self, reg: Gpr, imm: u64) {
        if let Ok(imm) = u32::try_from(imm) {
            self.with_register(0xb8, reg);
            self.imm32(imm as i32);
        } else if let Ok(imm) = i32::try_from(imm as i64) {
            self.inst(Width::Wide, op(0xc7), 0, Rm::Reg(reg));
            self.imm32(imm);
        } else {
            self.byte(0x48 | reg >> 3);
            self.byte(0xb8 | reg & 7);
            self.code.extend_from_slice(&imm.to_le_bytes());
        }
    }

    /// `op reg, rm`.
    pub(super) fn alu(&mut self, width: Width, alu: Alu, reg: Gpr, rm: Rm) {
        let code = (alu as u8) << 3 | if width == Width::Byte { 2 } else { 3 };
        self.inst(width, op(code), reg, rm);
    }

    /// `op rm, imm`, sign-extended.
    pub(super) fn alu_imm(&mut self, width: Width, alu: Alu, rm: Rm, imm: i32) {
        match i8::try_from(imm) {
            _ if width == Width::Byte => self.inst_imm8(width, op(0x80), alu as u8, rm, imm as u8),
            Ok(short) => self.inst_imm8(width, op(0x83), alu as u8, rm, short as u8),
            Err(_) => {
                self.inst(width, op(0x81), alu as u8, rm);
                self.imm32(imm);
            }
        }
    }

    /// `mov [mem], imm` of 1, 2, 4 or 8 bytes; that of 8 bytes is sign-extended from 32 bits.
    pub(super) fn mov_mem_imm(&mut self, bytes: u32, mem: Rm, imm: i32) {
        match bytes {
            1 => self.inst_imm8(Width::Byte, op(0xc6), 0, mem, imm as u8),
            2 => {
                self.inst(Width::Plain, op(0xc7).size16(), 0, mem);
                self.code.extend_from_slice(&(imm as i16).to_le_bytes());
            }
            _ => {
                self.inst(if bytes == 8 { Width::Wide } else { Width::Plain }, op(0xc7), 0, mem);
                self.imm32(imm);
            }
        }
    }

    /// `mov [mem], reg` of 1, 2, 4 or 8 bytes.
    pub(super) fn mov_mem(&mut self, bytes: u32, mem: Rm, reg: Gpr) {
        match bytes {
            1 => self.inst(Width::Byte, op(0x88), reg, mem),
            2 => self.inst(Width::Plain, op(0x89).size16(), reg, mem),
            4 => self.inst(Width::Plain, op(0x89), reg, mem),
            _ => self.inst(Width::Wide, op(0x89), reg, mem),
        }
    }

    /// `reg` = `rm` of 1, 2, 4 or 8 bytes, zero-extended.
    pub(super) fn zero_extend(&mut self, bytes: u32, reg: Gpr, rm: Rm) {
        match bytes {
            1 => self.inst(Width::Byte, op0f(0, 0xb6), reg, rm),
            2 => self.inst(Width::Plain, op0f(0, 0xb7), reg, rm),
            4 => self.mov(Width::Plain, reg, rm),
            _ => self.mov(Width::Wide, reg, rm),
        }
    }

    /// `reg` = `rm` of 1, 2, 4 or 8 bytes, sign-extended to 64 bits.
    pub(super) fn sign_extend(&mut self, bytes: u32, reg: Gpr, rm: Rm) {
        match bytes {
            1 => self.inst(Width::Wide, op0f(0, 0xbe), reg, rm),
            2 => self.inst(Width::Wide, op0f(0, 0xbf), reg, rm),
            4 => self.inst(Width::Wide, op(0x63), reg, rm),
            _ => self.mov(Width::Wide, reg, rm),
        }
    }

    /// `shift reg, imm`.
    pub(super) fn shift_imm(&mut self, width: Width, shift: Shift, reg: Gpr, count: u8) {
        let opcode = if width == Width::Byte { op(0xc0) } else { op(0xc1) };
        self.inst_imm8(width, opcode, shift as u8, Rm::Reg(reg), count);
    }

    /// `setcc reg`, then zero-extended.
    pub(super) fn set(&mut self, cond: Cond, reg: Gpr) {
        self.inst(Width::Byte, op0f(0, 0x90 | cond.0), 0, Rm::Reg(reg));
        self.zero_extend(1, reg, Rm::Reg(reg));
    }

    /// `cmovcc reg, rm`.
    pub(super) fn cmov(&mut self, width: Width, cond: Cond, reg: Gpr, rm: Rm) {
        self.inst(width, op0f(0, 0x40 | cond.0), reg, rm);
    }

    /// `bswap reg`.
    pub(super) fn byte_swap(&mut self, width: Width, reg: Gpr) {
        let rex = u8::from(width == Width::Wide) << 3 | reg >> 3;
        if rex != 0 {
            self.byte(0x40 | rex);
        }
        self.byte(0x0f);
        self.byte(0xc8 | reg & 7);
    }

    /// `call [mem]`.
    pub(super) fn call(&mut self, mem: Rm) {
        self.inst(Width::Plain, op(0xff), 2, mem);
    }

    /// `jmp [mem]`.
    pub(super) fn jump_mem(&mut self, mem: Rm) {
        self.inst(Width::Plain, op(0xff), 4, mem);
    }

    /// `push reg`.
    pub(super) fn push(&mut self, reg: Gpr) {
        self.with_register(0x50, reg);
    }

    /// `pop reg`.
    pub(super) fn pop(&mut self, reg: Gpr) {
        self.with_register(0x58, reg);
    }

    /// An opcode with the register in its low bits.
    fn with_register(&mut self, code: u8, reg: Gpr) {
        if reg >= 8 {
            self.byte(0x41);
        }
        self.byte(code | reg & 7);
    }

    /// `cdq` or `cqo`: the sign of RAX in RDX.
    pub(super) fn sign_into_rdx(&mut self, width: Width) {
        if width == Width::Wide {
            self.byte(0x48);
        }
        self.byte(0x99);
    }

    /// `ret`.
    pub(super) fn ret(&mut self) {
        self.byte(0xc3);
    }

    /// A label that is not placed yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places a label here.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len() as u32);
    }

    /// `jcc label`.
    pub(super) fn jump_if(&mut self, cond: Cond, label: Label) {
        self.byte(0x0f);
        self.byte(0x80 | cond.0);
        self.displacement(label);
    }

    /// `jmp label`.
    pub(super) fn jump(&mut self, label: Label) {
        self.byte(0xe9);
        self.displacement(label);
    }

    fn displacement(&mut self, label: Label) {
        self.jumps.push((self.code.len() as u32, label));
        self.imm32(0);
    }

    /// Fills in every jump; `None` if a label was never placed.
    pub(super) fn finish(&mut self) -> Option<()> {
        for &(at, label) in &self.jumps {
            let target = (*self.labels.get(label.0)?)?;
            let distance = target.wrapping_sub(at + 4);
            self.code.get_mut(at as usize..at as usize + 4)?.copy_from_slice(&distance.to_le_bytes());
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

    /// What a disassembler that is not ours makes of it.
    fn text(emit: impl FnOnce(&mut Emitter)) -> String {
        let mut emitter = Emitter::default();
        emit(&mut emitter);
        emitter.finish().expect("every label is placed");
        let mut lines = Vec::new();
        for inst in Decoder::with_ip(64, &emitter.code, 0, DecoderOptions::NONE) {
            let mut line = String::new();
            NasmFormatter::new().format(&inst, &mut line);
            lines.push(line);
        }
        lines.join("; ")
    }

    #[test]
    fn registers_and_prefixes() {
        assert_eq!(text(|e| e.mov(Width::Wide, 9, Rm::Reg(3))), "mov r9,rbx");
        assert_eq!(text(|e| e.alu(Width::Byte, Alu::Cmp, 3, Rm::Reg(RSI))), "cmp bl,sil");
        assert_eq!(text(|e| e.alu(Width::Byte, Alu::Cmp, 12, Rm::Reg(1))), "cmp r12b,cl");
        assert_eq!(text(|e| e.set(Cond::A, RSI)), "seta sil; movzx esi,sil");
        assert_eq!(text(|e| e.inst(Width::Plain, op38(0x10), 9, Rm::Reg(11))), "pblendvb xmm9,xmm11,xmm0");
        assert_eq!(text(|e| e.inst(Width::Wide, op0f(0x66, 0x6e), 2, Rm::Reg(14))), "movq xmm2,r14");
        assert_eq!(text(|e| e.inst_imm8(Width::Plain, op3a(0x0f), 4, Rm::Reg(5), 7)), "palignr xmm4,xmm5,7");
    }

    #[test]
    fn every_base_and_displacement() {
        for base in 0..16 {
            for disp in [0, 1, -128, 127, 128, -129, 0x1234_5678] {
                let got = text(|e| e.mov(Width::Wide, 10, Rm::Mem(base, disp)));
                let mut decoder_says = Emitter::default();
                decoder_says.mov(Width::Wide, 10, Rm::Mem(base, disp));
                let mut decoder = Decoder::with_ip(64, &decoder_says.code, 0, DecoderOptions::NONE);
                let inst = decoder.decode();
                assert_eq!(inst.memory_base() as u32 - iced_x86::Register::RAX as u32, u32::from(base), "{got}");
                assert_eq!(inst.memory_displacement64() as i64 as i32, disp, "{got}");
                assert_eq!(inst.memory_index(), iced_x86::Register::None, "{got}");
            }
        }
        assert_eq!(text(|e| e.inst(Width::Wide, op(0x8d), 1, Rm::Index(13, 12, 3, 0))), "lea rcx,[r13+r12*8]");
        assert_eq!(text(|e| e.inst(Width::Plain, op(0x8d), 9, Rm::Index(4, 5, 0, -3))), "lea r9d,[rsp+rbp-3]");
    }

    #[test]
    fn constants() {
        assert_eq!(text(|e| e.mov_imm(8, 0)), "xor r8d,r8d");
        assert_eq!(text(|e| e.mov_imm(8, 0xffff_ffff)), "mov r8d,0FFFFFFFFh");
        assert_eq!(text(|e| e.mov_imm(1, u64::MAX)), "mov rcx,0FFFFFFFFFFFFFFFFh");
        assert_eq!(text(|e| e.mov_imm(14, 1 << 40)), "mov r14,10000000000h");
        assert_eq!(text(|e| e.mov_mem_imm(2, Rm::Mem(7, 4), -2)), "mov word [rdi+4],0FFFEh");
        assert_eq!(text(|e| e.alu_imm(Width::Wide, Alu::And, Rm::Reg(9), 0x1000)), "and r9,1000h");
        assert_eq!(text(|e| e.shift_imm(Width::Byte, Shift::Rol, RBP, 3)), "rol bpl,3");
    }

    #[test]
    fn extensions() {
        assert_eq!(text(|e| e.zero_extend(1, 8, Rm::Reg(RSI))), "movzx r8d,sil");
        assert_eq!(text(|e| e.sign_extend(2, 1, Rm::Mem(0, 0))), "movsx rcx,word [rax]");
        assert_eq!(text(|e| e.sign_extend(4, 1, Rm::Reg(2))), "movsxd rcx,edx");
        // A byte in memory needs no REX for its register.
        assert_eq!(text(|e| e.zero_extend(1, 3, Rm::Mem(RDI, 2))), "movzx ebx,byte [rdi+2]");
    }

    #[test]
    fn jumps() {
        let code = text(|e| {
            let (back, on) = (e.label(), e.label());
            e.place(back);
            e.jump_if(Cond::NE, on);
            e.jump(back);
            e.place(on);
            e.ret();
        });
        assert_eq!(code, "jne near 000000000000000Bh; jmp 0; ret");
        let mut e = Emitter::default();
        let never = e.label();
        e.jump(never);
        assert_eq!(e.finish(), None);
    }
}
