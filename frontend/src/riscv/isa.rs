//! The instruction table: one line an instruction. Decoder, disassembler, assembler and tests derive from it.
//!
//! A line has the mnemonic, the operands as they are written, and the 32 bits from the highest on. A digit is a bit of the
//! opcode; a letter is a bit of an operand ([`Field`]), the same letter that stands for it among the operands, where a capital
//! is a floating-point register. The bits of immediates are in their places of the formats of vol. I, "Base Instruction
//! Formats". Patterns ([`crate::common::pattern`]) exclude each other (a test tries), so the order does not matter.

use crate::common::pattern::{Index, Pattern};

/// What is implemented, as a device tree's `riscv,isa-extensions` names it.
pub const EXTENSIONS: &[&str] = &[
    "i",
    "m",
    "a",
    "f",
    "d",
    "c",
    "zicbom",
    "zicboz",
    "zicntr",
    "zicond",
    "zicsr",
    "zifencei",
    "zihintpause",
    "zihpm",
    "zfh",
    "zfhmin",
    "zca",
    "zcb",
    "zcd",
    "zba",
    "zbb",
    "zbc",
    "zbkb",
    "zbkx",
    "zbs",
    "sstc",
    "svadu",
    "svinval",
];

/// Bytes that CBO instructions work on at a time (Zicbom, Zicboz), aligned to their number.
pub const CACHE_BLOCK: u64 = 64;

/// Operands of an instruction word, by their letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Field {
    /// Destination register.
    Rd = b'd',
    /// First source register.
    Rs1 = b's',
    /// Second source register.
    Rs2 = b't',
    /// Third source register.
    Rs3 = b'u',
    /// Rounding mode.
    Rm = b'm',
    /// 12-bit immediate of the I format.
    ImmI = b'i',
    /// Immediate of the S format.
    ImmS = b'v',
    /// Immediate of the B format.
    ImmB = b'b',
    /// Immediate of the U format.
    ImmU = b'n',
    /// Immediate of the J format.
    ImmJ = b'j',
    /// Shift count of 5 or 6 bits.
    Shift = b'h',
    /// Number of a CSR.
    Csr = b'c',
    /// 5-bit immediate of a CSR instruction.
    Zimm = b'z',
    /// What FENCE orders; ignored.
    Order = b'p',
    /// Acquire.
    Aq = b'a',
    /// Release.
    Rl = b'l',
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The instruction.
    pub code: Code,
    /// Mnemonic.
    pub name: &'static str,
    /// Operands as written.
    pub syntax: &'static str,
    /// Its word.
    pub pattern: Pattern<32>,
    /// The kind of immediate, if it has one.
    pub imm: Option<Field>,
}

/// A decoded instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn {
    /// Which.
    pub code: Code,
    /// Destination register.
    pub rd: u8,
    /// First source register.
    pub rs1: u8,
    /// Second source register.
    pub rs2: u8,
    /// Third source register.
    pub rs3: u8,
    /// Rounding mode.
    pub rm: u8,
    /// Immediate, shift count or number of a CSR; for the U format with its low 12 bits.
    pub imm: i64,
}

const fn parse(code: Code, name: &'static str, syntax: &'static str, pattern: &str) -> Row {
    let mut row = Row { code, name, syntax, pattern: Pattern::parse(pattern), imm: None };
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        match row.pattern.bits[bit] {
            b'i' => row.imm = Some(Field::ImmI),
            b'v' => row.imm = Some(Field::ImmS),
            b'b' => row.imm = Some(Field::ImmB),
            b'n' => row.imm = Some(Field::ImmU),
            b'j' => row.imm = Some(Field::ImmJ),
            b'h' => row.imm = Some(Field::Shift),
            b'c' => row.imm = Some(Field::Csr),
            _ => {}
        }
    }
    row
}

macro_rules! isa {
    ($($code:ident $name:literal $syntax:literal $pattern:literal;)*) => {
        /// An instruction.
        #[expect(missing_docs, reason = "the table's rows say what each is")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Code { $($code),* }

        /// The table.
        pub static TABLE: &[Row] = &ROWS;

        const ROWS: [Row; [$(Code::$code),*].len()] = [$(parse(Code::$code, $name, $syntax, $pattern)),*];
    };
}

isa! {
    // RV64I (vol. I, "RV32I" and "RV64I").
    Lui "lui" "d,n" "nnnnnnnnnnnnnnnnnnnn ddddd 0110111";
    Auipc "auipc" "d,n" "nnnnnnnnnnnnnnnnnnnn ddddd 0010111";
    Jal "jal" "d,j" "jjjjjjjjjjjjjjjjjjjj ddddd 1101111";
    Jalr "jalr" "d,i(s)" "iiiiiiiiiiii sssss 000 ddddd 1100111";
    Beq "beq" "s,t,b" "bbbbbbb ttttt sssss 000 bbbbb 1100011";
    Bne "bne" "s,t,b" "bbbbbbb ttttt sssss 001 bbbbb 1100011";
    Blt "blt" "s,t,b" "bbbbbbb ttttt sssss 100 bbbbb 1100011";
    Bge "bge" "s,t,b" "bbbbbbb ttttt sssss 101 bbbbb 1100011";
    Bltu "bltu" "s,t,b" "bbbbbbb ttttt sssss 110 bbbbb 1100011";
    Bgeu "bgeu" "s,t,b" "bbbbbbb ttttt sssss 111 bbbbb 1100011";
    Lb "lb" "d,i(s)" "iiiiiiiiiiii sssss 000 ddddd 0000011";
    Lh "lh" "d,i(s)" "iiiiiiiiiiii sssss 001 ddddd 0000011";
    Lw "lw" "d,i(s)" "iiiiiiiiiiii sssss 010 ddddd 0000011";
    Ld "ld" "d,i(s)" "iiiiiiiiiiii sssss 011 ddddd 0000011";
    Lbu "lbu" "d,i(s)" "iiiiiiiiiiii sssss 100 ddddd 0000011";
    Lhu "lhu" "d,i(s)" "iiiiiiiiiiii sssss 101 ddddd 0000011";
    Lwu "lwu" "d,i(s)" "iiiiiiiiiiii sssss 110 ddddd 0000011";
    Sb "sb" "t,v(s)" "vvvvvvv ttttt sssss 000 vvvvv 0100011";
    Sh "sh" "t,v(s)" "vvvvvvv ttttt sssss 001 vvvvv 0100011";
    Sw "sw" "t,v(s)" "vvvvvvv ttttt sssss 010 vvvvv 0100011";
    Sd "sd" "t,v(s)" "vvvvvvv ttttt sssss 011 vvvvv 0100011";
    Addi "addi" "d,s,i" "iiiiiiiiiiii sssss 000 ddddd 0010011";
    Slti "slti" "d,s,i" "iiiiiiiiiiii sssss 010 ddddd 0010011";
    Sltiu "sltiu" "d,s,i" "iiiiiiiiiiii sssss 011 ddddd 0010011";
    Xori "xori" "d,s,i" "iiiiiiiiiiii sssss 100 ddddd 0010011";
    Ori "ori" "d,s,i" "iiiiiiiiiiii sssss 110 ddddd 0010011";
    Andi "andi" "d,s,i" "iiiiiiiiiiii sssss 111 ddddd 0010011";
    Slli "slli" "d,s,h" "000000 hhhhhh sssss 001 ddddd 0010011";
    Srli "srli" "d,s,h" "000000 hhhhhh sssss 101 ddddd 0010011";
    Srai "srai" "d,s,h" "010000 hhhhhh sssss 101 ddddd 0010011";
    Add "add" "d,s,t" "0000000 ttttt sssss 000 ddddd 0110011";
    Sub "sub" "d,s,t" "0100000 ttttt sssss 000 ddddd 0110011";
    Sll "sll" "d,s,t" "0000000 ttttt sssss 001 ddddd 0110011";
    Slt "slt" "d,s,t" "0000000 ttttt sssss 010 ddddd 0110011";
    Sltu "sltu" "d,s,t" "0000000 ttttt sssss 011 ddddd 0110011";
    Xor "xor" "d,s,t" "0000000 ttttt sssss 100 ddddd 0110011";
    Srl "srl" "d,s,t" "0000000 ttttt sssss 101 ddddd 0110011";
    Sra "sra" "d,s,t" "0100000 ttttt sssss 101 ddddd 0110011";
    Or "or" "d,s,t" "0000000 ttttt sssss 110 ddddd 0110011";
    And "and" "d,s,t" "0000000 ttttt sssss 111 ddddd 0110011";
    Addiw "addiw" "d,s,i" "iiiiiiiiiiii sssss 000 ddddd 0011011";
    Slliw "slliw" "d,s,h" "0000000 hhhhh sssss 001 ddddd 0011011";
    Srliw "srliw" "d,s,h" "0000000 hhhhh sssss 101 ddddd 0011011";
    Sraiw "sraiw" "d,s,h" "0100000 hhhhh sssss 101 ddddd 0011011";
    Addw "addw" "d,s,t" "0000000 ttttt sssss 000 ddddd 0111011";
    Subw "subw" "d,s,t" "0100000 ttttt sssss 000 ddddd 0111011";
    Sllw "sllw" "d,s,t" "0000000 ttttt sssss 001 ddddd 0111011";
    Srlw "srlw" "d,s,t" "0000000 ttttt sssss 101 ddddd 0111011";
    Sraw "sraw" "d,s,t" "0100000 ttttt sssss 101 ddddd 0111011";
    // Fields that FENCE and FENCE.I do not define are to be ignored.
    Fence "fence" "" "pppppppppppp ppppp 000 ppppp 0001111";
    FenceI "fence.i" "" "pppppppppppp ppppp 001 ppppp 0001111";
    Ecall "ecall" "" "000000000000 00000 000 00000 1110011";
    Ebreak "ebreak" "" "000000000001 00000 000 00000 1110011";
    // Zicsr.
    Csrrw "csrrw" "d,c,s" "cccccccccccc sssss 001 ddddd 1110011";
    Csrrs "csrrs" "d,c,s" "cccccccccccc sssss 010 ddddd 1110011";
    Csrrc "csrrc" "d,c,s" "cccccccccccc sssss 011 ddddd 1110011";
    Csrrwi "csrrwi" "d,c,z" "cccccccccccc zzzzz 101 ddddd 1110011";
    Csrrsi "csrrsi" "d,c,z" "cccccccccccc zzzzz 110 ddddd 1110011";
    Csrrci "csrrci" "d,c,z" "cccccccccccc zzzzz 111 ddddd 1110011";
    // Privileged (vol. II, "Machine-Mode Privileged Instructions", "Supervisor Instructions", Svinval).
    Sret "sret" "" "000100000010 00000 000 00000 1110011";
    Mret "mret" "" "001100000010 00000 000 00000 1110011";
    Wfi "wfi" "" "000100000101 00000 000 00000 1110011";
    SfenceVma "sfence.vma" "s,t" "0001001 ttttt sssss 000 00000 1110011";
    SinvalVma "sinval.vma" "s,t" "0001011 ttttt sssss 000 00000 1110011";
    SfenceWInval "sfence.w.inval" "" "0001100 00000 00000 000 00000 1110011";
    SfenceInvalIr "sfence.inval.ir" "" "0001100 00001 00000 000 00000 1110011";
    // Zicbom, Zicboz.
    CboInval "cbo.inval" "(s)" "000000000000 sssss 010 00000 0001111";
    CboClean "cbo.clean" "(s)" "000000000001 sssss 010 00000 0001111";
    CboFlush "cbo.flush" "(s)" "000000000010 sssss 010 00000 0001111";
    CboZero "cbo.zero" "(s)" "000000000100 sssss 010 00000 0001111";
    // M.
    Mul "mul" "d,s,t" "0000001 ttttt sssss 000 ddddd 0110011";
    Mulh "mulh" "d,s,t" "0000001 ttttt sssss 001 ddddd 0110011";
    Mulhsu "mulhsu" "d,s,t" "0000001 ttttt sssss 010 ddddd 0110011";
    Mulhu "mulhu" "d,s,t" "0000001 ttttt sssss 011 ddddd 0110011";
    Div "div" "d,s,t" "0000001 ttttt sssss 100 ddddd 0110011";
    Divu "divu" "d,s,t" "0000001 ttttt sssss 101 ddddd 0110011";
    Rem "rem" "d,s,t" "0000001 ttttt sssss 110 ddddd 0110011";
    Remu "remu" "d,s,t" "0000001 ttttt sssss 111 ddddd 0110011";
    Mulw "mulw" "d,s,t" "0000001 ttttt sssss 000 ddddd 0111011";
    Divw "divw" "d,s,t" "0000001 ttttt sssss 100 ddddd 0111011";
    Divuw "divuw" "d,s,t" "0000001 ttttt sssss 101 ddddd 0111011";
    Remw "remw" "d,s,t" "0000001 ttttt sssss 110 ddddd 0111011";
    Remuw "remuw" "d,s,t" "0000001 ttttt sssss 111 ddddd 0111011";
    // A.
    LrW "lr.w" "d,(s)" "00010 a l 00000 sssss 010 ddddd 0101111";
    ScW "sc.w" "d,t,(s)" "00011 a l ttttt sssss 010 ddddd 0101111";
    AmoswapW "amoswap.w" "d,t,(s)" "00001 a l ttttt sssss 010 ddddd 0101111";
    AmoaddW "amoadd.w" "d,t,(s)" "00000 a l ttttt sssss 010 ddddd 0101111";
    AmoxorW "amoxor.w" "d,t,(s)" "00100 a l ttttt sssss 010 ddddd 0101111";
    AmoandW "amoand.w" "d,t,(s)" "01100 a l ttttt sssss 010 ddddd 0101111";
    AmoorW "amoor.w" "d,t,(s)" "01000 a l ttttt sssss 010 ddddd 0101111";
    AmominW "amomin.w" "d,t,(s)" "10000 a l ttttt sssss 010 ddddd 0101111";
    AmomaxW "amomax.w" "d,t,(s)" "10100 a l ttttt sssss 010 ddddd 0101111";
    AmominuW "amominu.w" "d,t,(s)" "11000 a l ttttt sssss 010 ddddd 0101111";
    AmomaxuW "amomaxu.w" "d,t,(s)" "11100 a l ttttt sssss 010 ddddd 0101111";
    LrD "lr.d" "d,(s)" "00010 a l 00000 sssss 011 ddddd 0101111";
    ScD "sc.d" "d,t,(s)" "00011 a l ttttt sssss 011 ddddd 0101111";
    AmoswapD "amoswap.d" "d,t,(s)" "00001 a l ttttt sssss 011 ddddd 0101111";
    AmoaddD "amoadd.d" "d,t,(s)" "00000 a l ttttt sssss 011 ddddd 0101111";
    AmoxorD "amoxor.d" "d,t,(s)" "00100 a l ttttt sssss 011 ddddd 0101111";
    AmoandD "amoand.d" "d,t,(s)" "01100 a l ttttt sssss 011 ddddd 0101111";
    AmoorD "amoor.d" "d,t,(s)" "01000 a l ttttt sssss 011 ddddd 0101111";
    AmominD "amomin.d" "d,t,(s)" "10000 a l ttttt sssss 011 ddddd 0101111";
    AmomaxD "amomax.d" "d,t,(s)" "10100 a l ttttt sssss 011 ddddd 0101111";
    AmominuD "amominu.d" "d,t,(s)" "11000 a l ttttt sssss 011 ddddd 0101111";
    AmomaxuD "amomaxu.d" "d,t,(s)" "11100 a l ttttt sssss 011 ddddd 0101111";
    // F.
    Flw "flw" "D,i(s)" "iiiiiiiiiiii sssss 010 ddddd 0000111";
    Fsw "fsw" "T,v(s)" "vvvvvvv ttttt sssss 010 vvvvv 0100111";
    FmaddS "fmadd.s" "D,S,T,U,m" "uuuuu 00 ttttt sssss mmm ddddd 1000011";
    FmsubS "fmsub.s" "D,S,T,U,m" "uuuuu 00 ttttt sssss mmm ddddd 1000111";
    FnmsubS "fnmsub.s" "D,S,T,U,m" "uuuuu 00 ttttt sssss mmm ddddd 1001011";
    FnmaddS "fnmadd.s" "D,S,T,U,m" "uuuuu 00 ttttt sssss mmm ddddd 1001111";
    FaddS "fadd.s" "D,S,T,m" "0000000 ttttt sssss mmm ddddd 1010011";
    FsubS "fsub.s" "D,S,T,m" "0000100 ttttt sssss mmm ddddd 1010011";
    FmulS "fmul.s" "D,S,T,m" "0001000 ttttt sssss mmm ddddd 1010011";
    FdivS "fdiv.s" "D,S,T,m" "0001100 ttttt sssss mmm ddddd 1010011";
    FsqrtS "fsqrt.s" "D,S,m" "0101100 00000 sssss mmm ddddd 1010011";
    FsgnjS "fsgnj.s" "D,S,T" "0010000 ttttt sssss 000 ddddd 1010011";
    FsgnjnS "fsgnjn.s" "D,S,T" "0010000 ttttt sssss 001 ddddd 1010011";
    FsgnjxS "fsgnjx.s" "D,S,T" "0010000 ttttt sssss 010 ddddd 1010011";
    FminS "fmin.s" "D,S,T" "0010100 ttttt sssss 000 ddddd 1010011";
    FmaxS "fmax.s" "D,S,T" "0010100 ttttt sssss 001 ddddd 1010011";
    FcvtWS "fcvt.w.s" "d,S,m" "1100000 00000 sssss mmm ddddd 1010011";
    FcvtWuS "fcvt.wu.s" "d,S,m" "1100000 00001 sssss mmm ddddd 1010011";
    FcvtLS "fcvt.l.s" "d,S,m" "1100000 00010 sssss mmm ddddd 1010011";
    FcvtLuS "fcvt.lu.s" "d,S,m" "1100000 00011 sssss mmm ddddd 1010011";
    FmvXW "fmv.x.w" "d,S" "1110000 00000 sssss 000 ddddd 1010011";
    FclassS "fclass.s" "d,S" "1110000 00000 sssss 001 ddddd 1010011";
    FeqS "feq.s" "d,S,T" "1010000 ttttt sssss 010 ddddd 1010011";
    FltS "flt.s" "d,S,T" "1010000 ttttt sssss 001 ddddd 1010011";
    FleS "fle.s" "d,S,T" "1010000 ttttt sssss 000 ddddd 1010011";
    FcvtSW "fcvt.s.w" "D,s,m" "1101000 00000 sssss mmm ddddd 1010011";
    FcvtSWu "fcvt.s.wu" "D,s,m" "1101000 00001 sssss mmm ddddd 1010011";
    FcvtSL "fcvt.s.l" "D,s,m" "1101000 00010 sssss mmm ddddd 1010011";
    FcvtSLu "fcvt.s.lu" "D,s,m" "1101000 00011 sssss mmm ddddd 1010011";
    FmvWX "fmv.w.x" "D,s" "1111000 00000 sssss 000 ddddd 1010011";
    // D.
    Fld "fld" "D,i(s)" "iiiiiiiiiiii sssss 011 ddddd 0000111";
    Fsd "fsd" "T,v(s)" "vvvvvvv ttttt sssss 011 vvvvv 0100111";
    FmaddD "fmadd.d" "D,S,T,U,m" "uuuuu 01 ttttt sssss mmm ddddd 1000011";
    FmsubD "fmsub.d" "D,S,T,U,m" "uuuuu 01 ttttt sssss mmm ddddd 1000111";
    FnmsubD "fnmsub.d" "D,S,T,U,m" "uuuuu 01 ttttt sssss mmm ddddd 1001011";
    FnmaddD "fnmadd.d" "D,S,T,U,m" "uuuuu 01 ttttt sssss mmm ddddd 1001111";
    FaddD "fadd.d" "D,S,T,m" "0000001 ttttt sssss mmm ddddd 1010011";
    FsubD "fsub.d" "D,S,T,m" "0000101 ttttt sssss mmm ddddd 1010011";
    FmulD "fmul.d" "D,S,T,m" "0001001 ttttt sssss mmm ddddd 1010011";
    FdivD "fdiv.d" "D,S,T,m" "0001101 ttttt sssss mmm ddddd 1010011";
    FsqrtD "fsqrt.d" "D,S,m" "0101101 00000 sssss mmm ddddd 1010011";
    FsgnjD "fsgnj.d" "D,S,T" "0010001 ttttt sssss 000 ddddd 1010011";
    FsgnjnD "fsgnjn.d" "D,S,T" "0010001 ttttt sssss 001 ddddd 1010011";
    FsgnjxD "fsgnjx.d" "D,S,T" "0010001 ttttt sssss 010 ddddd 1010011";
    FminD "fmin.d" "D,S,T" "0010101 ttttt sssss 000 ddddd 1010011";
    FmaxD "fmax.d" "D,S,T" "0010101 ttttt sssss 001 ddddd 1010011";
    FcvtSD "fcvt.s.d" "D,S,m" "0100000 00001 sssss mmm ddddd 1010011";
    FcvtDS "fcvt.d.s" "D,S,m" "0100001 00000 sssss mmm ddddd 1010011";
    FcvtWD "fcvt.w.d" "d,S,m" "1100001 00000 sssss mmm ddddd 1010011";
    FcvtWuD "fcvt.wu.d" "d,S,m" "1100001 00001 sssss mmm ddddd 1010011";
    FcvtLD "fcvt.l.d" "d,S,m" "1100001 00010 sssss mmm ddddd 1010011";
    FcvtLuD "fcvt.lu.d" "d,S,m" "1100001 00011 sssss mmm ddddd 1010011";
    FmvXD "fmv.x.d" "d,S" "1110001 00000 sssss 000 ddddd 1010011";
    FclassD "fclass.d" "d,S" "1110001 00000 sssss 001 ddddd 1010011";
    FeqD "feq.d" "d,S,T" "1010001 ttttt sssss 010 ddddd 1010011";
    FltD "flt.d" "d,S,T" "1010001 ttttt sssss 001 ddddd 1010011";
    FleD "fle.d" "d,S,T" "1010001 ttttt sssss 000 ddddd 1010011";
    FcvtDW "fcvt.d.w" "D,s,m" "1101001 00000 sssss mmm ddddd 1010011";
    FcvtDWu "fcvt.d.wu" "D,s,m" "1101001 00001 sssss mmm ddddd 1010011";
    FcvtDL "fcvt.d.l" "D,s,m" "1101001 00010 sssss mmm ddddd 1010011";
    FcvtDLu "fcvt.d.lu" "D,s,m" "1101001 00011 sssss mmm ddddd 1010011";
    FmvDX "fmv.d.x" "D,s" "1111001 00000 sssss 000 ddddd 1010011";
    // Zfh, of which Zfhmin is a part.
    Flh "flh" "D,i(s)" "iiiiiiiiiiii sssss 001 ddddd 0000111";
    Fsh "fsh" "T,v(s)" "vvvvvvv ttttt sssss 001 vvvvv 0100111";
    FmaddH "fmadd.h" "D,S,T,U,m" "uuuuu 10 ttttt sssss mmm ddddd 1000011";
    FmsubH "fmsub.h" "D,S,T,U,m" "uuuuu 10 ttttt sssss mmm ddddd 1000111";
    FnmsubH "fnmsub.h" "D,S,T,U,m" "uuuuu 10 ttttt sssss mmm ddddd 1001011";
    FnmaddH "fnmadd.h" "D,S,T,U,m" "uuuuu 10 ttttt sssss mmm ddddd 1001111";
    FaddH "fadd.h" "D,S,T,m" "0000010 ttttt sssss mmm ddddd 1010011";
    FsubH "fsub.h" "D,S,T,m" "0000110 ttttt sssss mmm ddddd 1010011";
    FmulH "fmul.h" "D,S,T,m" "0001010 ttttt sssss mmm ddddd 1010011";
    FdivH "fdiv.h" "D,S,T,m" "0001110 ttttt sssss mmm ddddd 1010011";
    FsqrtH "fsqrt.h" "D,S,m" "0101110 00000 sssss mmm ddddd 1010011";
    FsgnjH "fsgnj.h" "D,S,T" "0010010 ttttt sssss 000 ddddd 1010011";
    FsgnjnH "fsgnjn.h" "D,S,T" "0010010 ttttt sssss 001 ddddd 1010011";
    FsgnjxH "fsgnjx.h" "D,S,T" "0010010 ttttt sssss 010 ddddd 1010011";
    FminH "fmin.h" "D,S,T" "0010110 ttttt sssss 000 ddddd 1010011";
    FmaxH "fmax.h" "D,S,T" "0010110 ttttt sssss 001 ddddd 1010011";
    FcvtWH "fcvt.w.h" "d,S,m" "1100010 00000 sssss mmm ddddd 1010011";
    FcvtWuH "fcvt.wu.h" "d,S,m" "1100010 00001 sssss mmm ddddd 1010011";
    FcvtLH "fcvt.l.h" "d,S,m" "1100010 00010 sssss mmm ddddd 1010011";
    FcvtLuH "fcvt.lu.h" "d,S,m" "1100010 00011 sssss mmm ddddd 1010011";
    FmvXH "fmv.x.h" "d,S" "1110010 00000 sssss 000 ddddd 1010011";
    FclassH "fclass.h" "d,S" "1110010 00000 sssss 001 ddddd 1010011";
    FeqH "feq.h" "d,S,T" "1010010 ttttt sssss 010 ddddd 1010011";
    FltH "flt.h" "d,S,T" "1010010 ttttt sssss 001 ddddd 1010011";
    FleH "fle.h" "d,S,T" "1010010 ttttt sssss 000 ddddd 1010011";
    FcvtHW "fcvt.h.w" "D,s,m" "1101010 00000 sssss mmm ddddd 1010011";
    FcvtHWu "fcvt.h.wu" "D,s,m" "1101010 00001 sssss mmm ddddd 1010011";
    FcvtHL "fcvt.h.l" "D,s,m" "1101010 00010 sssss mmm ddddd 1010011";
    FcvtHLu "fcvt.h.lu" "D,s,m" "1101010 00011 sssss mmm ddddd 1010011";
    FmvHX "fmv.h.x" "D,s" "1111010 00000 sssss 000 ddddd 1010011";
    FcvtSH "fcvt.s.h" "D,S,m" "0100000 00010 sssss mmm ddddd 1010011";
    FcvtHS "fcvt.h.s" "D,S,m" "0100010 00000 sssss mmm ddddd 1010011";
    FcvtDH "fcvt.d.h" "D,S,m" "0100001 00010 sssss mmm ddddd 1010011";
    FcvtHD "fcvt.h.d" "D,S,m" "0100010 00001 sssss mmm ddddd 1010011";
    // Zba.
    AddUw "add.uw" "d,s,t" "0000100 ttttt sssss 000 ddddd 0111011";
    Sh1add "sh1add" "d,s,t" "0010000 ttttt sssss 010 ddddd 0110011";
    Sh2add "sh2add" "d,s,t" "0010000 ttttt sssss 100 ddddd 0110011";
    Sh3add "sh3add" "d,s,t" "0010000 ttttt sssss 110 ddddd 0110011";
    Sh1addUw "sh1add.uw" "d,s,t" "0010000 ttttt sssss 010 ddddd 0111011";
    Sh2addUw "sh2add.uw" "d,s,t" "0010000 ttttt sssss 100 ddddd 0111011";
    Sh3addUw "sh3add.uw" "d,s,t" "0010000 ttttt sssss 110 ddddd 0111011";
    SlliUw "slli.uw" "d,s,h" "000010 hhhhhh sssss 001 ddddd 0011011";
    // Zbb.
    Andn "andn" "d,s,t" "0100000 ttttt sssss 111 ddddd 0110011";
    Orn "orn" "d,s,t" "0100000 ttttt sssss 110 ddddd 0110011";
    Xnor "xnor" "d,s,t" "0100000 ttttt sssss 100 ddddd 0110011";
    Clz "clz" "d,s" "011000000000 sssss 001 ddddd 0010011";
    Ctz "ctz" "d,s" "011000000001 sssss 001 ddddd 0010011";
    Cpop "cpop" "d,s" "011000000010 sssss 001 ddddd 0010011";
    Clzw "clzw" "d,s" "011000000000 sssss 001 ddddd 0011011";
    Ctzw "ctzw" "d,s" "011000000001 sssss 001 ddddd 0011011";
    Cpopw "cpopw" "d,s" "011000000010 sssss 001 ddddd 0011011";
    Max "max" "d,s,t" "0000101 ttttt sssss 110 ddddd 0110011";
    Maxu "maxu" "d,s,t" "0000101 ttttt sssss 111 ddddd 0110011";
    Min "min" "d,s,t" "0000101 ttttt sssss 100 ddddd 0110011";
    Minu "minu" "d,s,t" "0000101 ttttt sssss 101 ddddd 0110011";
    SextB "sext.b" "d,s" "011000000100 sssss 001 ddddd 0010011";
    SextH "sext.h" "d,s" "011000000101 sssss 001 ddddd 0010011";
    Rol "rol" "d,s,t" "0110000 ttttt sssss 001 ddddd 0110011";
    Ror "ror" "d,s,t" "0110000 ttttt sssss 101 ddddd 0110011";
    Rori "rori" "d,s,h" "011000 hhhhhh sssss 101 ddddd 0010011";
    Rolw "rolw" "d,s,t" "0110000 ttttt sssss 001 ddddd 0111011";
    Rorw "rorw" "d,s,t" "0110000 ttttt sssss 101 ddddd 0111011";
    Roriw "roriw" "d,s,h" "0110000 hhhhh sssss 101 ddddd 0011011";
    OrcB "orc.b" "d,s" "001010000111 sssss 101 ddddd 0010011";
    Rev8 "rev8" "d,s" "011010111000 sssss 101 ddddd 0010011";
    // Zbc.
    Clmul "clmul" "d,s,t" "0000101 ttttt sssss 001 ddddd 0110011";
    Clmulr "clmulr" "d,s,t" "0000101 ttttt sssss 010 ddddd 0110011";
    Clmulh "clmulh" "d,s,t" "0000101 ttttt sssss 011 ddddd 0110011";
    // Zbkb, beside what is Zbb's. packw of x0 is zext.h, which Zbb has, too.
    Pack "pack" "d,s,t" "0000100 ttttt sssss 100 ddddd 0110011";
    Packh "packh" "d,s,t" "0000100 ttttt sssss 111 ddddd 0110011";
    Packw "packw" "d,s,t" "0000100 ttttt sssss 100 ddddd 0111011";
    Brev8 "brev8" "d,s" "011010000111 sssss 101 ddddd 0010011";
    // Zbkx.
    Xperm4 "xperm4" "d,s,t" "0010100 ttttt sssss 010 ddddd 0110011";
    Xperm8 "xperm8" "d,s,t" "0010100 ttttt sssss 100 ddddd 0110011";
    // Zbs.
    Bclr "bclr" "d,s,t" "0100100 ttttt sssss 001 ddddd 0110011";
    Bclri "bclri" "d,s,h" "010010 hhhhhh sssss 001 ddddd 0010011";
    Bext "bext" "d,s,t" "0100100 ttttt sssss 101 ddddd 0110011";
    Bexti "bexti" "d,s,h" "010010 hhhhhh sssss 101 ddddd 0010011";
    Binv "binv" "d,s,t" "0110100 ttttt sssss 001 ddddd 0110011";
    Binvi "binvi" "d,s,h" "011010 hhhhhh sssss 001 ddddd 0010011";
    Bset "bset" "d,s,t" "0010100 ttttt sssss 001 ddddd 0110011";
    Bseti "bseti" "d,s,h" "001010 hhhhhh sssss 001 ddddd 0010011";
    // Zicond.
    CzeroEqz "czero.eqz" "d,s,t" "0000111 ttttt sssss 101 ddddd 0110011";
    CzeroNez "czero.nez" "d,s,t" "0000111 ttttt sssss 111 ddddd 0110011";
}

impl Code {
    /// Its row.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// Rows by major opcode, bits 2 to 6 of the word.
static INDEX: Index<32, 96> = {
    let mut index = Index::new(2);
    let mut i = 0;
    while i < ROWS.len() {
        assert!(ROWS[i].pattern.mask & 3 == 3);
        index = index.with(i, &ROWS[i].pattern);
        i += 1;
    }
    index
};

/// The immediate of `kind` in a word (vol. I, "Immediate Encoding Variants").
const fn immediate(kind: Field, word: u32) -> i64 {
    let signed = word as i32;
    (match kind {
        Field::ImmI => signed >> 20,
        Field::ImmS => signed >> 25 << 5 | (word >> 7 & 0x1f) as i32,
        Field::ImmB => {
            signed >> 31 << 12 | ((word >> 7 & 1) << 11 | (word >> 25 & 0x3f) << 5 | (word >> 8 & 0xf) << 1) as i32
        }
        Field::ImmU => signed & !0xfff,
        Field::ImmJ => {
            signed >> 31 << 20
                | (word & 0xf_f000 | (word >> 20 & 1) << 11 | (word >> 25 & 0x3f) << 5 | (word >> 21 & 0xf) << 1) as i32
        }
        Field::Shift => (word >> 20 & 0x3f) as i32,
        _ => (word >> 20) as i32,
    }) as i64
}

/// The immediate `value` of `kind` in its place in a word; what does not fit is cut off.
const fn place_immediate(kind: Field, value: i64) -> u32 {
    let v = value as u32;
    match kind {
        Field::ImmI | Field::Shift | Field::Csr => v << 20,
        Field::ImmS => v >> 5 << 25 | (v & 0x1f) << 7,
        Field::ImmB => (v >> 12 & 1) << 31 | (v >> 5 & 0x3f) << 25 | (v >> 1 & 0xf) << 8 | (v >> 11 & 1) << 7,
        Field::ImmU => v & !0xfff,
        Field::ImmJ => (v >> 20 & 1) << 31 | (v >> 1 & 0x3ff) << 21 | (v >> 11 & 1) << 20 | (v & 0xf_f000),
        _ => 0,
    }
}

impl Row {
    /// Whether the instruction has an operand.
    pub fn has(&self, field: Field) -> bool {
        self.pattern.has(field as u8)
    }

    /// The instruction in a word that is this row's.
    fn operands(&self, word: u32) -> Insn {
        let field = |shift: u32| (word >> shift & 31) as u8;
        let imm = self.imm.map_or(0, |kind| immediate(kind, word));
        Insn { code: self.code, rd: field(7), rs1: field(15), rs2: field(20), rs3: field(27), rm: field(12) & 7, imm }
    }
}

impl Insn {
    /// An instruction with all operands 0.
    pub const fn new(code: Code) -> Insn {
        Insn { code, rd: 0, rs1: 0, rs2: 0, rs3: 0, rm: 0, imm: 0 }
    }

    /// Its row.
    pub fn row(&self) -> &'static Row {
        self.code.row()
    }

    /// Its word: what a decoder makes this instruction of. Operands that it does not have are ignored.
    pub fn encode(&self) -> u32 {
        let row = self.row();
        let word = u32::from(self.rd & 31) << 7
            | u32::from(self.rs1 & 31) << 15
            | u32::from(self.rs2 & 31) << 20
            | u32::from(self.rs3 & 31) << 27
            | u32::from(self.rm & 7) << 12;
        let registers = [Field::Rd, Field::Rs1, Field::Rs2, Field::Rs3, Field::Rm, Field::Zimm];
        let imm = row.imm.map_or(0, |kind| place_immediate(kind, self.imm));
        let mut result = row.pattern.value;
        for (i, &c) in row.pattern.bits.iter().enumerate() {
            let from = if registers.iter().any(|&f| f as u8 == c) { word } else { imm };
            if !matches!(c, b'0' | b'1') {
                result |= from & 1 << i;
            }
        }
        result
    }
}

/// Decodes a 32-bit instruction; `None` if it is not defined.
pub fn decode(word: u32) -> Option<Insn> {
    if word & 3 != 3 {
        return None;
    }
    INDEX.find(TABLE, word, |row| &row.pattern).map(|row| row.operands(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_of_two_rows() {
        for (i, a) in TABLE.iter().enumerate() {
            for b in &TABLE[..i] {
                assert!(!a.pattern.overlaps(&b.pattern), "{} and {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn syntax_and_pattern_have_the_same_operands() {
        for row in TABLE {
            for field in *b"dstumivbnjhcz" {
                let written = row.syntax.bytes().any(|c| c.to_ascii_lowercase() == field);
                assert_eq!(written, row.pattern.has(field), "{}: {}", row.name, char::from(field));
            }
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut state = 0x1234_5678_9abc_def1u64;
        for row in TABLE {
            for _ in 0..500 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let word = row.pattern.value | (state >> 32) as u32 & !row.pattern.mask;
                let insn = decode(word).expect(row.name);
                assert_eq!(insn.code, row.code, "{word:#x}");
                let ignored = row.pattern.bits.iter().zip(0..).filter(|(c, _)| matches!(**c, b'p' | b'a' | b'l'));
                let ignored = ignored.fold(0, |mask, (_, i)| mask | 1 << i);
                assert_eq!(insn.encode() & !ignored, word & !ignored, "{}", row.name);
            }
        }
    }

    #[test]
    fn immediates_are_where_the_manual_has_them() {
        // By GNU as: lui a0,0xfffff; jal ra,.-2; beq a0,a1,.-4096; bne a0,a1,.+4094; sd a1,-1(a0); addi a0,a0,-2048;
        // jal x0,.+1048574.
        for (word, imm) in [
            (0xfffff537, -4096),
            (0xfffff0ef, -2),
            (0x80b50063, -4096),
            (0x7eb51fe3, 4094),
            (0xfeb53fa3, -1),
            (0x80050513, -2048),
            (0x7ffff06f, 1_048_574),
        ] {
            assert_eq!(decode(word).map(|i| i.imm), Some(imm), "{word:#x}");
        }
    }
}
