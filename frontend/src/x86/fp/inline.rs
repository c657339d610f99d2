//! Which operations of the SSE table are lifted as operations of the IR's vector table, and how their operands are arranged.

use mimus_ir::VecKind;

use super::vec::VecOp;

/// Operands of the IR's operation: `A` is the instruction's destination, `B` its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Destination, source.
    AB,
    /// Source, destination.
    BA,
    /// The source twice.
    BB,
    /// The destination.
    A,
    /// The source.
    B,
    /// Destination, source, XMM0.
    ABX,
    /// Destination and a source that is a general register or the bytes of memory that the row says.
    AI,
}

/// A row: an operation that is lifted.
#[derive(Clone, Copy, Debug)]
pub struct Inline {
    /// The SSE operation.
    pub op: VecOp,
    /// The IR's.
    pub kind: VecKind,
    /// How operands are arranged.
    pub form: Form,
    /// The immediate, where it is not the instruction's own.
    pub imm: Option<u8>,
}

macro_rules! inline {
    ($($op:ident => $kind:ident $form:ident $($imm:literal)?;)*) => {
        /// The rows.
        pub static TABLE: &[Inline] = &[$(Inline {
            op: VecOp::$op,
            kind: VecKind::$kind,
            form: Form::$form,
            imm: inline!(@imm $($imm)?),
        }),*];
    };
    (@imm) => { None };
    (@imm $imm:literal) => { Some($imm) };
}

inline! {
    Paddb_xmm_xmmm128 => Add8 AB;
    Paddw_xmm_xmmm128 => Add16 AB;
    Paddd_xmm_xmmm128 => Add32 AB;
    Paddq_xmm_xmmm128 => Add64 AB;
    Psubb_xmm_xmmm128 => Sub8 AB;
    Psubw_xmm_xmmm128 => Sub16 AB;
    Psubd_xmm_xmmm128 => Sub32 AB;
    Psubq_xmm_xmmm128 => Sub64 AB;
    Paddsb_xmm_xmmm128 => AddSatS8 AB;
    Paddsw_xmm_xmmm128 => AddSatS16 AB;
    Paddusb_xmm_xmmm128 => AddSatU8 AB;
    Paddusw_xmm_xmmm128 => AddSatU16 AB;
    Psubsb_xmm_xmmm128 => SubSatS8 AB;
    Psubsw_xmm_xmmm128 => SubSatS16 AB;
    Psubusb_xmm_xmmm128 => SubSatU8 AB;
    Psubusw_xmm_xmmm128 => SubSatU16 AB;
    Pcmpeqb_xmm_xmmm128 => Eq8 AB;
    Pcmpeqw_xmm_xmmm128 => Eq16 AB;
    Pcmpeqd_xmm_xmmm128 => Eq32 AB;
    Pcmpeqq_xmm_xmmm128 => Eq64 AB;
    Pcmpgtb_xmm_xmmm128 => Sgt8 AB;
    Pcmpgtw_xmm_xmmm128 => Sgt16 AB;
    Pcmpgtd_xmm_xmmm128 => Sgt32 AB;
    Pcmpgtq_xmm_xmmm128 => Sgt64 AB;
    Pabsb_xmm_xmmm128 => Abs8 B;
    Pabsw_xmm_xmmm128 => Abs16 B;
    Pabsd_xmm_xmmm128 => Abs32 B;
    Pmullw_xmm_xmmm128 => Mul16 AB;
    Pmulld_xmm_xmmm128 => Mul32 AB;
    Pmulhw_xmm_xmmm128 => MulHighS16 AB;
    Pmulhuw_xmm_xmmm128 => MulHighU16 AB;
    Pmulhrsw_xmm_xmmm128 => MulRound16 AB;
    Pmuludq_xmm_xmmm128 => MulEvenU32 AB;
    Pmuldq_xmm_xmmm128 => MulEvenS32 AB;
    Pmaddwd_xmm_xmmm128 => MulAdd16 AB;
    Pmaddubsw_xmm_xmmm128 => MulAdd8 AB;
    Psadbw_xmm_xmmm128 => Differences8 AB;
    Pavgb_xmm_xmmm128 => Average8 AB;
    Pavgw_xmm_xmmm128 => Average16 AB;
    Pminsb_xmm_xmmm128 => MinS8 AB;
    Pminsw_xmm_xmmm128 => MinS16 AB;
    Pminsd_xmm_xmmm128 => MinS32 AB;
    Pminub_xmm_xmmm128 => MinU8 AB;
    Pminuw_xmm_xmmm128 => MinU16 AB;
    Pminud_xmm_xmmm128 => MinU32 AB;
    Pmaxsb_xmm_xmmm128 => MaxS8 AB;
    Pmaxsw_xmm_xmmm128 => MaxS16 AB;
    Pmaxsd_xmm_xmmm128 => MaxS32 AB;
    Pmaxub_xmm_xmmm128 => MaxU8 AB;
    Pmaxuw_xmm_xmmm128 => MaxU16 AB;
    Pmaxud_xmm_xmmm128 => MaxU32 AB;
    Pand_xmm_xmmm128 => And AB;
    Andps_xmm_xmmm128 => And AB;
    Andpd_xmm_xmmm128 => And AB;
    Pandn_xmm_xmmm128 => AndNot AB;
    Andnps_xmm_xmmm128 => AndNot AB;
    Andnpd_xmm_xmmm128 => AndNot AB;
    Por_xmm_xmmm128 => Or AB;
    Orps_xmm_xmmm128 => Or AB;
    Orpd_xmm_xmmm128 => Or AB;
    Pxor_xmm_xmmm128 => Xor AB;
    Xorps_xmm_xmmm128 => Xor AB;
    Xorpd_xmm_xmmm128 => Xor AB;
    Phaddw_xmm_xmmm128 => AddPairs16 AB;
    Phaddd_xmm_xmmm128 => AddPairs32 AB;
    Packsswb_xmm_xmmm128 => NarrowS16 AB;
    Packuswb_xmm_xmmm128 => NarrowU16 AB;
    Packssdw_xmm_xmmm128 => NarrowS32 AB;
    Packusdw_xmm_xmmm128 => NarrowU32 AB;
    Punpcklbw_xmm_xmmm128 => ZipLow8 AB;
    Punpcklwd_xmm_xmmm128 => ZipLow16 AB;
    Punpckldq_xmm_xmmm128 => ZipLow32 AB;
    Unpcklps_xmm_xmmm128 => ZipLow32 AB;
    Punpcklqdq_xmm_xmmm128 => ZipLow64 AB;
    Unpcklpd_xmm_xmmm128 => ZipLow64 AB;
    Movlhps_xmm_xmm => ZipLow64 AB;
    Movddup_xmm_xmmm64 => ZipLow64 BB;
    Punpckhbw_xmm_xmmm128 => ZipHigh8 AB;
    Punpckhwd_xmm_xmmm128 => ZipHigh16 AB;
    Punpckhdq_xmm_xmmm128 => ZipHigh32 AB;
    Unpckhps_xmm_xmmm128 => ZipHigh32 AB;
    Punpckhqdq_xmm_xmmm128 => ZipHigh64 AB;
    Unpckhpd_xmm_xmmm128 => ZipHigh64 AB;
    Movhlps_xmm_xmm => ZipHigh64 BA;
    Pshufb_xmm_xmmm128 => ShuffleBytes AB;
    Pshufd_xmm_xmmm128_imm8 => Shuffle32 B;
    Movsldup_xmm_xmmm128 => Shuffle32 B 0xa0;
    Movshdup_xmm_xmmm128 => Shuffle32 B 0xf5;
    Pshuflw_xmm_xmmm128_imm8 => ShuffleLow16 B;
    Pshufhw_xmm_xmmm128_imm8 => ShuffleHigh16 B;
    Shufps_xmm_xmmm128_imm8 => ShufflePair32 AB;
    Shufpd_xmm_xmmm128_imm8 => ShufflePair64 AB;
    Palignr_xmm_xmmm128_imm8 => Align AB;
    Pblendw_xmm_xmmm128_imm8 => Blend16 AB;
    Blendps_xmm_xmmm128_imm8 => Blend32 AB;
    Movss_xmm_xmmm32 => Blend32 AB 1;
    Blendpd_xmm_xmmm128_imm8 => Blend64 AB;
    Movsd_xmm_xmmm64 => Blend64 AB 1;
    Pblendvb_xmm_xmmm128 => BlendSigns8 ABX;
    Blendvps_xmm_xmmm128 => BlendSigns32 ABX;
    Blendvpd_xmm_xmmm128 => BlendSigns64 ABX;
    Insertps_xmm_xmmm32_imm8 => InsertLane32 AB;
    Pslldq_xmm_imm8 => ShlBytes A;
    Psrldq_xmm_imm8 => ShrBytes A;
    Psllw_xmm_imm8 => ShlI16 A;
    Pslld_xmm_imm8 => ShlI32 A;
    Psllq_xmm_imm8 => ShlI64 A;
    Psrlw_xmm_imm8 => ShrI16 A;
    Psrld_xmm_imm8 => ShrI32 A;
    Psrlq_xmm_imm8 => ShrI64 A;
    Psraw_xmm_imm8 => SarI16 A;
    Psrad_xmm_imm8 => SarI32 A;
    Psllw_xmm_xmmm128 => Shl16 AB;
    Pslld_xmm_xmmm128 => Shl32 AB;
    Psllq_xmm_xmmm128 => Shl64 AB;
    Psrlw_xmm_xmmm128 => Shr16 AB;
    Psrld_xmm_xmmm128 => Shr32 AB;
    Psrlq_xmm_xmmm128 => Shr64 AB;
    Psraw_xmm_xmmm128 => Sar16 AB;
    Psrad_xmm_xmmm128 => Sar32 AB;
    Pmovsxbw_xmm_xmmm64 => Sext8To16 B;
    Pmovsxbd_xmm_xmmm32 => Sext8To32 B;
    Pmovsxbq_xmm_xmmm16 => Sext8To64 B;
    Pmovsxwd_xmm_xmmm64 => Sext16To32 B;
    Pmovsxwq_xmm_xmmm32 => Sext16To64 B;
    Pmovsxdq_xmm_xmmm64 => Sext32To64 B;
    Pmovzxbw_xmm_xmmm64 => Zext8To16 B;
    Pmovzxbd_xmm_xmmm32 => Zext8To32 B;
    Pmovzxbq_xmm_xmmm16 => Zext8To64 B;
    Pmovzxwd_xmm_xmmm64 => Zext16To32 B;
    Pmovzxwq_xmm_xmmm32 => Zext16To64 B;
    Pmovzxdq_xmm_xmmm64 => Zext32To64 B;
    Movmskps_r32_xmm => Signs32 B;
    Movmskpd_r32_xmm => Signs64 B;
    Pmovmskb_r32_xmm => Signs8 B;
    Pinsrb_xmm_r32m8_imm8 => Insert8 AI;
    Pinsrw_xmm_r32m16_imm8 => Insert16 AI;
    Pinsrd_xmm_rm32_imm8 => Insert32 AI;
    Pinsrq_xmm_rm64_imm8 => Insert64 AI;
    Pextrb_r32m8_xmm_imm8 => Extract8 B;
    Pextrw_r32m16_xmm_imm8 => Extract16 B;
    Pextrw_r32_xmm_imm8 => Extract16 B;
    Pextrd_rm32_xmm_imm8 => Extract32 B;
    Extractps_rm32_xmm_imm8 => Extract32 B;
    Pextrq_rm64_xmm_imm8 => Extract64 B;
    Addss_xmm_xmmm32 => AddF32 AB;
    Addsd_xmm_xmmm64 => AddF64 AB;
    Addps_xmm_xmmm128 => AddF32P AB;
    Addpd_xmm_xmmm128 => AddF64P AB;
    Subss_xmm_xmmm32 => SubF32 AB;
    Subsd_xmm_xmmm64 => SubF64 AB;
    Subps_xmm_xmmm128 => SubF32P AB;
    Subpd_xmm_xmmm128 => SubF64P AB;
    Mulss_xmm_xmmm32 => MulF32 AB;
    Mulsd_xmm_xmmm64 => MulF64 AB;
    Mulps_xmm_xmmm128 => MulF32P AB;
    Mulpd_xmm_xmmm128 => MulF64P AB;
    Divss_xmm_xmmm32 => DivF32 AB;
    Divsd_xmm_xmmm64 => DivF64 AB;
    Divps_xmm_xmmm128 => DivF32P AB;
    Divpd_xmm_xmmm128 => DivF64P AB;
    Minss_xmm_xmmm32 => MinF32 AB;
    Minsd_xmm_xmmm64 => MinF64 AB;
    Minps_xmm_xmmm128 => MinF32P AB;
    Minpd_xmm_xmmm128 => MinF64P AB;
    Maxss_xmm_xmmm32 => MaxF32 AB;
    Maxsd_xmm_xmmm64 => MaxF64 AB;
    Maxps_xmm_xmmm128 => MaxF32P AB;
    Maxpd_xmm_xmmm128 => MaxF64P AB;
    Sqrtss_xmm_xmmm32 => SqrtF32 AB;
    Sqrtsd_xmm_xmmm64 => SqrtF64 AB;
    Sqrtps_xmm_xmmm128 => SqrtF32P B;
    Sqrtpd_xmm_xmmm128 => SqrtF64P B;
    Cmpss_xmm_xmmm32_imm8 => CompareF32 AB;
    Cmpsd_xmm_xmmm64_imm8 => CompareF64 AB;
    Cmpps_xmm_xmmm128_imm8 => CompareF32P AB;
    Cmppd_xmm_xmmm128_imm8 => CompareF64P AB;
    Roundss_xmm_xmmm32_imm8 => RoundF32 AB;
    Roundsd_xmm_xmmm64_imm8 => RoundF64 AB;
    Roundps_xmm_xmmm128_imm8 => RoundF32P B;
    Roundpd_xmm_xmmm128_imm8 => RoundF64P B;
    Haddps_xmm_xmmm128 => AddPairsF32P AB;
    Haddpd_xmm_xmmm128 => AddPairsF64P AB;
    Hsubps_xmm_xmmm128 => SubPairsF32P AB;
    Hsubpd_xmm_xmmm128 => SubPairsF64P AB;
    Addsubps_xmm_xmmm128 => SubAddF32P AB;
    Addsubpd_xmm_xmmm128 => SubAddF64P AB;
    Cvtss2sd_xmm_xmmm32 => F32ToF64 AB;
    Cvtsd2ss_xmm_xmmm64 => F64ToF32 AB;
    Cvtps2pd_xmm_xmmm64 => F32PToF64P B;
    Cvtpd2ps_xmm_xmmm128 => F64PToF32P B;
    Cvtdq2ps_xmm_xmmm128 => I32PToF32P B;
    Cvtdq2pd_xmm_xmmm64 => I32PToF64P B;
    Cvtps2dq_xmm_xmmm128 => F32PToI32P B;
    Cvtpd2dq_xmm_xmmm128 => F64PToI32P B;
    Cvttps2dq_xmm_xmmm128 => TruncF32PToI32P B;
    Cvttpd2dq_xmm_xmmm128 => TruncF64PToI32P B;
    Cvtsi2ss_xmm_rm32 => I32ToF32 AI;
    Cvtsi2ss_xmm_rm64 => I64ToF32 AI;
    Cvtss2si_r32_xmmm32 => F32ToI32 B;
    Cvttss2si_r32_xmmm32 => TruncF32ToI32 B;
    Cvtss2si_r64_xmmm32 => F32ToI64 B;
    Cvttss2si_r64_xmmm32 => TruncF32ToI64 B;
    Comiss_xmm_xmmm32 => OrderF32 AB;
    Ucomiss_xmm_xmmm32 => OrderQuietF32 AB;
    Cvtsi2sd_xmm_rm32 => I32ToF64 AI;
    Cvtsi2sd_xmm_rm64 => I64ToF64 AI;
    Cvtsd2si_r32_xmmm64 => F64ToI32 B;
    Cvttsd2si_r32_xmmm64 => TruncF64ToI32 B;
    Cvtsd2si_r64_xmmm64 => F64ToI64 B;
    Cvttsd2si_r64_xmmm64 => TruncF64ToI64 B;
    Comisd_xmm_xmmm64 => OrderF64 AB;
    Ucomisd_xmm_xmmm64 => OrderQuietF64 AB;
}

const NO_ROW: u8 = u8::MAX;

static BY_OP: [u8; VecOp::ALL.len()] = {
    let mut index = [NO_ROW; VecOp::ALL.len()];
    let mut i = 0;
    while i < TABLE.len() {
        let op = TABLE[i].op as usize;
        assert!(index[op] == NO_ROW && i < NO_ROW as usize, "an operation has two rows, or there are too many");
        index[op] = i as u8;
        i += 1;
    }
    index
};

/// The row of an operation, if it is lifted.
pub fn lookup(op: VecOp) -> Option<&'static Inline> {
    TABLE.get(usize::from(*BY_OP.get(op as usize)?))
}

impl Inline {
    /// The immediate of the IR's operation for an instruction that has `imm`.
    pub fn immediate(&self, imm: u8) -> u8 {
        let limit = self.kind.row().immediates;
        (u16::from(self.imm.unwrap_or(imm)) % limit) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::super::vec::exec;
    use super::*;
    use mimus_ir::FpEnv;

    /// xorshift64*, two at a time; some operands small, so that shift counts are within the lanes now and then.
    fn operand(state: &mut u64) -> u128 {
        let mut next = || {
            *state ^= *state >> 12;
            *state ^= *state << 25;
            *state ^= *state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let (low, high, choice) = (next(), next(), next() >> 40);
        match choice % 4 {
            0 => u128::from(low % 80) | u128::from(high) << 64,
            1 => u128::from(low) << 64 | u128::from(low),
            _ => u128::from(low) | u128::from(high) << 64,
        }
    }

    #[test]
    fn the_forms_agree_with_the_table_of_semantics() {
        let mut state = 0x1234_5678_9abc_def1;
        for row in TABLE {
            let Some(eval) = row.kind.row().eval else { continue };
            let mask = if row.form == Form::AI { row.kind.row().int.mask().into() } else { u128::MAX };
            for n in 0..2000u32 {
                let imm = n as u8;
                let (a, b, x) = (operand(&mut state), operand(&mut state) & mask, operand(&mut state));
                let want = exec(row.op, imm, a, b, x, &mut { FpEnv::RESET });
                let i = row.immediate(imm);
                let got = match row.form {
                    Form::AB | Form::AI => eval(a, b, 0, i),
                    Form::BA => eval(b, a, 0, i),
                    Form::BB => eval(b, b, 0, i),
                    Form::A => eval(a, 0, 0, i),
                    Form::B => eval(b, 0, 0, i),
                    Form::ABX => eval(a, b, x, i),
                };
                assert_eq!(Ok(got), want, "{:?} imm {imm:#x} of {a:#x}, {b:#x}, {x:#x}", row.op);
            }
        }
    }
}
