//! Where the demo's guest keeps its things: one map for the Rust side that assembles and the guest code that runs.
//!
//! Addresses are `i32` because that is what instructions take as displacement and sign-extended immediate; all are
//! below 8 MiB.

/// Bytes of a page.
pub(super) const PAGE: i32 = 0x1000;

/// Real-mode code, and where the image is loaded: real mode reaches the 64 KiB from here.
pub(super) const REAL: i32 = 0x1_0000;
/// The operand of LGDT, and the GDT.
pub(super) const GDT_POINTER: i32 = REAL + 0xf00;
pub(super) const GDT: i32 = GDT_POINTER + 0x10;
/// 32-bit code.
pub(super) const PROTECTED: i32 = REAL + PAGE;
/// 64-bit code of the kernel. It rewrites some of it.
pub(super) const KERNEL: i32 = PROTECTED + PAGE;
/// The ring-3 program: one page that it may read and execute.
pub(super) const USER: i32 = KERNEL + 6 * PAGE;

/// The kernel's variables, see [`Var`].
pub(super) const VARIABLES: i32 = 0x2_0000;
/// Room for the processor's name: 48 characters and a NUL.
pub(super) const BRAND: i32 = VARIABLES + 0x800;
/// The 64-bit TSS: 0x68 bytes, no I/O map.
pub(super) const TSS: i32 = 0x2_1000;
/// The IDT: 256 gates of 16 bytes.
pub(super) const IDT: i32 = 0x2_2000;
/// First address above each stack. A page below each of them is theirs.
pub(super) const REAL_STACK: i32 = 0x7c00;
pub(super) const KERNEL_STACK: i32 = 0x2_5000;
/// RSP0: interrupts and system calls from ring 3.
pub(super) const TRAP_STACK: i32 = 0x2_7000;
/// IST1: #UD and the double fault.
pub(super) const IST1_STACK: i32 = 0x2_9000;
/// The table of the CRC: 256 entries of 4 bytes.
pub(super) const CRC_TABLE: i32 = 0x2_a000;

/// Page tables, in the order of the walk. `PT_LOW` maps the first 2 MiB, `PT_WINDOW` the window.
pub(super) const PML4: i32 = 0x3_0000;
pub(super) const PDPT: i32 = 0x3_1000;
pub(super) const PD: i32 = 0x3_2000;
pub(super) const PT_LOW: i32 = 0x3_3000;
pub(super) const PT_WINDOW: i32 = 0x3_4000;
pub(super) const TABLES_END: i32 = 0x3_5000;

/// Page frames that the page fault handler hands out.
pub(super) const FRAMES: i32 = 0x10_0000;
pub(super) const FRAMES_END: i32 = 0x20_0000;
/// 2 MiB of data for the benchmarks, mapped by one large page.
pub(super) const BUFFER: i32 = 0x20_0000;
/// 2 MiB of linear addresses that have no frames until they are touched.
pub(super) const WINDOW: i32 = 0x40_0000;
pub(super) const WINDOW_SIZE: i32 = 0x20_0000;
/// Top of the ring-3 program's stack, in the middle of the window.
pub(super) const USER_STACK: i32 = WINDOW + WINDOW_SIZE / 2;

/// Selectors. SYSCALL takes CS and CS + 8, SYSRET adds 16 and 8 to its base (SDM vol. 2B, SYSCALL and SYSRET), hence
/// the order.
pub(super) const CODE32: u16 = 0x08;
pub(super) const CODE64: u16 = 0x10;
pub(super) const DATA: u16 = 0x18;
pub(super) const SYSRET_BASE: u16 = 0x20 | 3;
pub(super) const USER_DATA: u16 = 0x28 | 3;
pub(super) const USER_CODE: u16 = 0x30 | 3;
pub(super) const TSS_SELECTOR: u16 = 0x38;

/// A variable of the kernel: 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Var {
    /// Characters in the current line of the console.
    Column,
    /// Results reported, and those that were bad.
    Checks,
    Failures,
    /// Timer interrupts.
    Ticks,
    /// Where the timer's handler returns to, once, when [`Var::Ticks`] has reached [`Var::EscapeAt`]; 0: nowhere.
    Escape,
    EscapeAt,
    /// [`Var::Ticks`] when the current piece of work began.
    Started,
    /// Page faults resolved, and how many of them came from ring 3.
    PageFaults,
    UserPageFaults,
    /// The next free page frame.
    NextFrame,
    /// Where a protection violation continues, once; 0: it is a bug.
    Fixup,
    /// Error code of the last protection violation.
    ProtectionError,
    /// #UD survived, and RSP in its handler.
    InvalidOpcodes,
    InvalidOpcodeRsp,
    /// #GP of ring 3 survived.
    GeneralProtections,
    /// System calls by SYSCALL and by INT 0x80.
    FastCalls,
    GateCalls,
    /// RSP of ring 3 during SYSCALL, and of the kernel while ring 3 runs.
    UserRsp,
    KernelRsp,
    /// What the ring-3 program handed to its exit call.
    UserResult,
}

impl Var {
    /// The variable's address.
    pub(super) const fn at(self) -> i32 {
        VARIABLES + 8 * self as i32
    }
}
