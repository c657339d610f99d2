//! The helper table: what translated code calls for instructions too large to be micro-ops.

use super::cpu::Cpu;
use super::{arith, fpu, sys};

crate::helpers! {
    Cpu:
    /// The arithmetic flags, as in RFLAGS.
    CcFlags arith::cc_flags [READ_ENV LEAF];
    /// Whether condition `arg` holds; `b` where `a` is 0.
    CcCond arith::cc_cond [READ_ENV LEAF CONDITIONAL];
    /// DIV (`arg` bit 8 clear) or IDIV (set) of the accumulator by `a`; width in bytes in `arg` bits 0..8.
    Divide arith::divide [READ_ENV WRITE_ENV FAULT LEAF];
    /// RCL (`arg` bit 8 clear) or RCR (set) of `a` by count `b`; width in bytes in `arg` bits 0..8.
    RotateCarry arith::rotate_carry [READ_ENV WRITE_ENV LEAF];
    /// CRC32 of accumulator `a` with `b`; width of `b` in bytes in `arg`.
    Crc32 arith::crc32 [LEAF];
    /// The immediate operand at guest-physical address `a`, of as many bytes as `arg` bits 0..8 say, sign-extended if bit 8 is
    /// set, to the number of bytes in bits 16..24.
    CodeOperand arith::code_operand [LEAF];
    /// CMPXCHG8B (`arg` 8) or CMPXCHG16B (`arg` 16) at linear address `a`.
    CompareExchangePair arith::compare_exchange_pair [READ_ENV WRITE_ENV FAULT];
    /// DAA, DAS, AAA, AAS, AAM, AAD: `arg` bits 0..8 say which (0..5), bits 8..16 the immediate.
    DecimalAdjust arith::decimal_adjust [READ_ENV WRITE_ENV FAULT];
    /// A vector operation without floating-point exceptions: operand offsets in `a`, operation and immediate in `arg`.
    Vector fpu::vector [READ_ENV WRITE_ENV LEAF];
    /// A vector operation that may raise #XM.
    VectorFloat fpu::vector [READ_ENV WRITE_ENV FAULT FLOAT LEAF];
    /// Takes the x87 unit into MMX mode.
    EnterMmx fpu::enter_mmx [READ_ENV WRITE_ENV];
    /// EMMS.
    Emms fpu::emms [READ_ENV WRITE_ENV FAULT];
    /// LDMXCSR of `a`.
    LoadMxcsr fpu::load_mxcsr [READ_ENV WRITE_ENV FAULT FLOAT];
    /// MXCSR.
    StoreMxcsr fpu::store_mxcsr [READ_ENV FLOAT];
    /// MASKMOVQ, MASKMOVDQU.
    MaskedMove fpu::masked_move [READ_ENV FAULT];
    /// An x87 operation: linear address of its memory operand in `a`, condition of FCMOVcc in `c`; `arg` by [`fpu::X87Call`].
    X87 fpu::x87 [READ_ENV WRITE_ENV FAULT];
    /// One that a host's x87 unit does in the same way: the guest's extension is that unit. It writes nothing that ops read but MMX registers, and instructions on
    /// those begin with [`Helper::Fwait`].
    X87Host fpu::x87 [READ_ENV FAULT EXTENSION];
    /// #MF if an exception is pending. The x87 unit is in env afterwards, wherever it was.
    Fwait fpu::fwait [READ_ENV WRITE_ENV FAULT];
    /// FXSAVE (`arg` bit 0 clear) or FXRSTOR (set) at `a`, with 64-bit pointers if bit 1 is set.
    Fxsave fpu::fxsave [READ_ENV WRITE_ENV FAULT FLOAT];
    /// A string instruction with or without a repeat prefix: [`super::strings`].
    StringOp super::strings::string_op [READ_ENV WRITE_ENV FAULT];
    /// Linear address of offset `a` in a segment that is not flat, after its checks: [`sys::segment::linear`].
    Linear sys::segment::linear [READ_ENV FAULT LEAF];
    /// MOV, POP or L*S to segment register `arg` of selector `a`.
    LoadSeg sys::segment::load_seg [READ_ENV WRITE_ENV FAULT MEMORY];
    /// LAR of selector `a`: access rights, bit 32 for ZF.
    Lar sys::segment::lar [READ_ENV FAULT MEMORY];
    /// LSL of selector `a`: limit, bit 32 for ZF.
    Lsl sys::segment::lsl [READ_ENV FAULT MEMORY];
    /// ARPL in memory at `a` with selector `b`: ZF.
    Arpl sys::segment::arpl [READ_ENV FAULT MEMORY];
    /// VERR of selector `a`: ZF.
    Verr sys::segment::verr [READ_ENV FAULT MEMORY];
    /// VERW of selector `a`: ZF.
    Verw sys::segment::verw [READ_ENV FAULT MEMORY];
    /// LLDT of selector `a`.
    Lldt sys::segment::lldt [READ_ENV WRITE_ENV FAULT MEMORY];
    /// LTR of selector `a`.
    Ltr sys::segment::ltr [READ_ENV WRITE_ENV FAULT MEMORY];
    /// LGDT of base `a` and limit `b`.
    Lgdt sys::segment::lgdt [READ_ENV WRITE_ENV FAULT];
    /// LIDT of base `a` and limit `b`.
    Lidt sys::segment::lidt [READ_ENV WRITE_ENV FAULT];
    /// #GP(0) where CR4.UMIP forbids SGDT and its kin.
    CheckUmip sys::segment::check_umip [READ_ENV FAULT];
    /// Far JMP to `a`:`b`; `c` next RIP, `arg` operand size in bytes.
    FarJump sys::transfer::far_jump [READ_ENV WRITE_ENV FAULT MEMORY];
    /// Far CALL, operands as of FarJump.
    FarCall sys::transfer::far_call [READ_ENV WRITE_ENV FAULT MEMORY];
    /// Far RET releasing `a` bytes; `c` next RIP, `arg` operand size in bytes.
    FarRet sys::transfer::far_ret [READ_ENV WRITE_ENV FAULT MEMORY];
    /// IRET; `c` next RIP, `arg` operand size in bytes.
    Iret sys::transfer::iret [READ_ENV WRITE_ENV FAULT MEMORY];
    /// INT n (`arg` 0), INT3 (1), INTO (2), INT1 (3) with vector `a`; `c` next RIP.
    Int sys::interrupt::int [READ_ENV WRITE_ENV FAULT MEMORY];
    /// SYSCALL; `c` next RIP.
    Syscall sys::transfer::syscall [READ_ENV WRITE_ENV FAULT];
    /// SYSRET; `arg` operand size in bytes.
    Sysret sys::transfer::sysret [READ_ENV WRITE_ENV FAULT];
    /// SYSENTER; `c` next RIP.
    Sysenter sys::transfer::sysenter [READ_ENV WRITE_ENV FAULT];
    /// SYSEXIT; `arg` operand size in bytes.
    Sysexit sys::transfer::sysexit [READ_ENV WRITE_ENV FAULT];
    /// MOV from control register `arg`.
    ReadCr sys::control::read_cr [READ_ENV FAULT MEMORY];
    /// MOV of `a` to control register `arg`.
    WriteCr sys::control::write_cr [READ_ENV WRITE_ENV FAULT MEMORY];
    /// MOV from debug register `arg`.
    ReadDr sys::control::read_dr [READ_ENV FAULT];
    /// MOV of `a` to debug register `arg`.
    WriteDr sys::control::write_dr [READ_ENV WRITE_ENV FAULT];
    /// CLTS.
    Clts sys::control::clts [READ_ENV WRITE_ENV FAULT];
    /// LMSW of `a`.
    Lmsw sys::control::lmsw [READ_ENV WRITE_ENV FAULT MEMORY];
    /// INVLPG of linear address `a`.
    Invlpg sys::control::invlpg [READ_ENV WRITE_ENV FAULT MEMORY];
    /// INVPCID of type `a`, descriptor `c`:`b`.
    Invpcid sys::control::invpcid [READ_ENV WRITE_ENV FAULT MEMORY];
    /// HLT; `c` next RIP.
    Hlt sys::control::hlt [READ_ENV WRITE_ENV FAULT];
    /// #GP(0) unless CPL is 0.
    CheckCpl0 sys::control::check_cpl0 [READ_ENV FAULT];
    /// CLI.
    Cli sys::flags::cli [READ_ENV WRITE_ENV FAULT];
    /// STI.
    Sti sys::flags::sti [READ_ENV WRITE_ENV FAULT];
    /// What PUSHF with operand size `arg` in bytes pushes.
    PushfValue sys::flags::pushf_value [READ_ENV FAULT];
    /// POPF of `a` with operand size `arg` in bytes.
    Popf sys::flags::popf [READ_ENV WRITE_ENV FAULT];
    /// CLAC.
    Clac sys::flags::clac [READ_ENV WRITE_ENV FAULT];
    /// STAC.
    Stac sys::flags::stac [READ_ENV WRITE_ENV FAULT];
    /// RDFSBASE (`arg` bit 0 clear) or RDGSBASE (set); operand size in bytes in bits 8..16.
    ReadFsGsBase sys::control::read_fs_gs_base [READ_ENV FAULT];
    /// WRFSBASE or WRGSBASE of `a`; `arg` as of ReadFsGsBase.
    WriteFsGsBase sys::control::write_fs_gs_base [READ_ENV WRITE_ENV FAULT];
    /// RDMSR.
    Rdmsr sys::msr::rdmsr [READ_ENV WRITE_ENV FAULT MEMORY];
    /// WRMSR.
    Wrmsr sys::msr::wrmsr [READ_ENV WRITE_ENV FAULT MEMORY];
    /// RDTSC (`arg` 0) or RDTSCP (1).
    Rdtsc sys::msr::rdtsc [READ_ENV WRITE_ENV FAULT MEMORY];
    /// RDPMC.
    Rdpmc sys::msr::rdpmc [READ_ENV WRITE_ENV FAULT];
    /// XGETBV.
    Xgetbv sys::msr::xgetbv [READ_ENV WRITE_ENV FAULT];
    /// XSETBV.
    Xsetbv sys::msr::xsetbv [READ_ENV WRITE_ENV FAULT];
    /// IN of `arg` bytes from port `a`.
    PortIn sys::port::port_in [READ_ENV FAULT MEMORY];
    /// OUT of the low `arg` bytes of `b` to port `a`.
    PortOut sys::port::port_out [READ_ENV WRITE_ENV FAULT MEMORY];
    /// ENTER with `a` bytes of locals at level `b`; `arg` operand size in bytes.
    Enter sys::stack::enter [READ_ENV WRITE_ENV FAULT MEMORY];
    /// CPUID.
    Cpuid super::cpuid::cpuid [READ_ENV WRITE_ENV FAULT];
}
