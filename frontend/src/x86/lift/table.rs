//! The instruction table: one row an instruction, or a family that shares one handler.

use iced_x86::{Code, EncodingKind, Instruction, Mnemonic};

use super::{Lift, Lifted};
use crate::x86::fp::{vec, x87};

/// Lifts one instruction.
pub(super) type Handler = fn(&mut Lift, &Instruction) -> Lifted;

macro_rules! table {
    ($($($mnemonic:ident)|+ => $handler:ident;)*) => {
        /// The handler of an instruction; `None` for one without a row, which may still be an x87 or vector instruction.
        fn row(mnemonic: Mnemonic) -> Option<Handler> {
            Some(match mnemonic {
                $($(Mnemonic::$mnemonic)|+ => Lift::$handler,)*
                _ => return None,
            })
        }
    };
}

table! {
    Add | Adc | Sub | Sbb | Cmp | And | Or | Xor | Test => alu;
    Inc | Dec => inc_dec;
    Neg | Not => neg_not;
    Mul => mul;
    Imul => imul;
    Div | Idiv => div;
    Xadd => xadd;
    Cmpxchg => cmpxchg;
    Cmpxchg8b | Cmpxchg16b => cmpxchg_pair;
    Daa | Das | Aaa | Aas | Aam | Aad => decimal;
    Shl | Sal | Shr | Sar => shift;
    Shld | Shrd => double_shift;
    Rol | Ror => rotate;
    Rcl | Rcr => rotate_carry;
    Bt | Bts | Btr | Btc => bit_test;
    Bsf | Bsr => bit_scan;
    Popcnt => popcnt;
    Crc32 => crc32;
    Mov | Movnti => mov;
    Movbe => movbe;
    Movzx | Movsx | Movsxd => mov_extend;
    Lea => lea;
    Xchg => xchg;
    Bswap => bswap;
    Cbw | Cwde | Cdqe | Cwd | Cdq | Cqo => convert;
    Cmova | Cmovae | Cmovb | Cmovbe | Cmove | Cmovg | Cmovge | Cmovl | Cmovle | Cmovne | Cmovno | Cmovnp | Cmovns
        | Cmovo | Cmovp | Cmovs => cmov;
    Seta | Setae | Setb | Setbe | Sete | Setg | Setge | Setl | Setle | Setne | Setno | Setnp | Setns | Seto | Setp
        | Sets => setcc;
    Lahf => lahf;
    Sahf => sahf;
    Clc | Stc | Cmc => carry_flag;
    Cld | Std => direction_flag;
    Xlatb => xlat;
    Lds | Les | Lfs | Lgs | Lss => load_far_pointer;
    Salc => salc;
    Nop | Pause | Lfence | Sfence | Reservednop => nothing;
    Mfence => fence;
    Clflush => flush_line;
    Push => push;
    Pop => pop;
    Pusha | Pushad => pusha;
    Popa | Popad => popa;
    Pushf | Pushfd | Pushfq => pushf;
    Popf | Popfd | Popfq => popf;
    Enter => enter;
    Leave => leave;
    Jmp => jmp;
    Ja | Jae | Jb | Jbe | Je | Jg | Jge | Jl | Jle | Jne | Jno | Jnp | Jns | Jo | Jp | Js => jcc;
    Jcxz | Jecxz | Jrcxz | Loop | Loope | Loopne => count_jump;
    Call => call_near_or_far;
    Ret => ret;
    Retf => ret_far;
    Iret | Iretd | Iretq => iret;
    Syscall | Sysret | Sysretq | Sysenter | Sysexit | Sysexitq | Hlt => system_transfer;
    Int | Int3 | Into | Int1 => interrupt;
    Bound => bound;
    Ud0 | Ud1 | Ud2 => undefined;
    Arpl => arpl;
    Movsb | Movsw | Movsd | Movsq | Cmpsb | Cmpsw | Cmpsd | Cmpsq | Stosb | Stosw | Stosd | Stosq | Lodsb | Lodsw
        | Lodsd | Lodsq | Scasb | Scasw | Scasd | Scasq | Insb | Insw | Insd | Outsb | Outsw | Outsd => string;
    Lgdt | Lidt => load_table;
    Sgdt | Sidt => store_table;
    Sldt | Str | Smsw => store_system_register;
    Lldt | Ltr | Lmsw => load_system_register;
    Lar | Lsl => load_rights;
    Verr | Verw => verify;
    Clts | Sti | Clac | Stac | Wrmsr | Xsetbv | Wbinvd | Invd => simple_system;
    Swapgs => swapgs;
    Cli => cli;
    Cpuid | Rdtsc | Rdtscp | Rdmsr | Rdpmc | Xgetbv => simple_query;
    Invlpg => invlpg;
    Invpcid => invpcid;
    In => port_in;
    Out => port_out;
    Rdfsbase | Rdgsbase | Wrfsbase | Wrgsbase => fs_gs_base;
    Emms => emms;
    Ldmxcsr | Stmxcsr => mxcsr;
    Wait => fwait;
    Fxsave | Fxsave64 | Fxrstor | Fxrstor64 => fxsave;
}

/// The handler of an instruction, if it has semantics here.
pub(super) fn handler(code: Code) -> Option<Handler> {
    let mnemonic = code.mnemonic();
    let vector_move = {
        use Mnemonic::*;
        matches!(
            mnemonic,
            Movaps
                | Movapd
                | Movdqa
                | Movups
                | Movupd
                | Movdqu
                | Lddqu
                | Movntps
                | Movntpd
                | Movntdq
                | Movntdqa
                | Movss
                | Movd
                | Movq
                | Movntq
                | Movdq2q
                | Movq2dq
                | Movlps
                | Movlpd
                | Movhps
                | Movhpd
                | Maskmovdqu
                | Maskmovq
        )
    };
    row(mnemonic).or_else(|| {
        if x87::lookup(code).is_some() {
            Some(Lift::x87 as Handler)
        } else if vec::lookup(code).is_some() || vector_move && code.encoding() == EncodingKind::Legacy {
            Some(Lift::vector as Handler)
        } else {
            None
        }
    })
}

/// Whether an instruction has semantics here; some of its forms may still be undefined in some modes.
pub fn supported(code: Code) -> bool {
    handler(code).is_some()
}
