//! The guest's floating-point environment ([`FpEnv`]) in the host's MXCSR, where it is while compiled code runs, with all exceptions
//! masked (SDM vol. 1, 10.2.3).
//!
//! Nothing is converted: the low 16 bits of an environment are laid out as the register is. Reading the register is slow and
//! writing it is not, so it is read only where code has done floating point ([`EnvHeader::floats`]).

use std::mem::offset_of;

use mimus_ir::{FpEnv, FpFlags};
use mimus_softmmu::EnvHeader;

/// MXCSR of Rust code (and after reset): all exceptions masked, no flags, rounding to nearest (System V psABI, 3.2.1).
const RUST_MXCSR: u32 = 0x1f80;

/// The status flags of MXCSR.
const FLAGS: u32 = 0x3f;

const _: () = assert!(FpEnv::RESET.bits() == RUST_MXCSR && FpFlags::all().bits() == FLAGS);

/// x86-64 code of [`EnvHeader::float_call`]: puts the flags that compiled code has raised into the guest's environment, calls the
/// function in R9 with Rust's, and then has the guest's in the register again, exceptions masked.
pub(crate) fn float_call(header_offset: i32) -> Vec<u8> {
    let field = |field: usize| (header_offset + field as i32).to_le_bytes();
    let (floats, live) = (field(offset_of!(EnvHeader, floats)), field(offset_of!(EnvHeader, live_fp_env)));
    let offset = field(offset_of!(EnvHeader, fp_env_offset));
    let mut code = Vec::new();
    let mut emit = |bytes: &[&[u8]]| bytes.iter().for_each(|b| code.extend_from_slice(b));
    // push rdi, which also aligns the stack
    emit(&[&[0x57]]);
    // cmp dword [rdi + floats], 0; je over the 27 bytes up to ldmxcsr
    emit(&[&[0x83, 0xbf], &floats, &[0], &[0x74, 27]]);
    // stmxcsr [rdi + live]; mov eax, [rdi + live]; and eax, 0x3f
    emit(&[&[0x0f, 0xae, 0x9f], &live, &[0x8b, 0x87], &live, &[0x83, 0xe0, 0x3f]]);
    // mov r10d, [rdi + offset]; or [rdi + r10], eax
    emit(&[&[0x44, 0x8b, 0x97], &offset, &[0x42, 0x09, 0x04, 0x17]]);
    // ldmxcsr [rip + to the constant behind the last instruction]; call r9; pop rdi
    emit(&[&[0x0f, 0xae, 0x15, 38, 0, 0, 0], &[0x41, 0xff, 0xd1], &[0x5f]]);
    // mov r10d, [rdi + offset]; movzx r10d, word [rdi + r10]; or r10d, all masks
    emit(&[&[0x44, 0x8b, 0x97], &offset, &[0x46, 0x0f, 0xb7, 0x14, 0x17]]);
    emit(&[&[0x41, 0x81, 0xca], &RUST_MXCSR.to_le_bytes()]);
    // mov [rdi + live], r10d; ldmxcsr [rdi + live]; ret
    emit(&[&[0x44, 0x89, 0x97], &live, &[0x0f, 0xae, 0x97], &live, &[0xc3]]);
    emit(&[&RUST_MXCSR.to_le_bytes()]);
    code
}

/// Calls compiled code by the trampoline at `trampoline` with the guest's environment in the register, and takes the flags raised
/// back.
///
/// # Safety
///
/// As of [`crate::enter`]; `trampoline` is the entry trampoline, and `header` the header of `env`, whose `fp_env_offset` is that of
/// four bytes in env.
#[cfg(all(target_arch = "x86_64", unix))]
pub(crate) unsafe fn call(trampoline: u64, env: *mut u8, header: *mut EnvHeader, entry: u64) -> u64 {
    let code: u64;
    // SAFETY: the trampoline is a function of the C convention, and the stack is aligned for it here; what it may clobber is
    // declared, and R12 to R15 it preserves. MXCSR is as Rust wants it at the end. The fields and the guest's environment are in
    // env, which the caller gives up meanwhile.
    unsafe {
        let guest = env.add((*header).fp_env_offset as usize).cast::<u32>();
        (*header).floats = 0;
        // What no x86-64 has is in the high half.
        (*header).live_fp_env = u32::from(guest.cast::<u16>().read()) | RUST_MXCSR;
        std::arch::asm!(
            "ldmxcsr [r12]",
            "call r13",
            "cmp dword ptr [r14], 0",
            "je 2f",
            "stmxcsr [r12]",
            "2:",
            "ldmxcsr [r15]",
            inlateout("rdi") env => _,
            inlateout("rsi") entry => _,
            lateout("rax") code,
            in("r12") &raw mut (*header).live_fp_env,
            in("r13") trampoline,
            in("r14") &raw mut (*header).floats,
            in("r15") &RUST_MXCSR,
            clobber_abi("sysv64"),
        );
        if (*header).floats != 0 {
            guest.write(guest.read() | (*header).live_fp_env & FLAGS);
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    #[test]
    fn float_call_is_what_its_comments_say() {
        use Mnemonic::*;
        let code = float_call(0x1000);
        let constant = code.len() - 4;
        let insns: Vec<_> = Decoder::with_ip(64, &code[..constant], 0, DecoderOptions::NONE).into_iter().collect();
        let names: Vec<_> = insns.iter().map(|i| i.mnemonic()).collect();
        let want = [Push, Cmp, Je, Stmxcsr, Mov, And, Mov, Or, Ldmxcsr, Call, Pop, Mov, Movzx, Or, Mov, Ldmxcsr, Ret];
        assert_eq!(names, want);
        assert_eq!(insns[2].near_branch_target(), insns[8].ip());
        assert_eq!(insns[8].memory_displacement64(), constant as u64);
        assert_eq!(insns[13].immediate32(), RUST_MXCSR);
    }
}
