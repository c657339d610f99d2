//! Into the instruction and out of it: the page both sides share, the switch of registers, the signal handler.

use std::arch::{asm, naked_asm};
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use super::{CODE, CONTROL, GS_BASE, Registers, Stop, Trap, Width};

/// What is needed while the instruction's registers are loaded; at the fixed address [`CONTROL`], since no register is
/// free to point to it.
#[repr(C, align(64))]
pub(super) struct Control {
    pub input: Registers,
    pub output: Registers,
    /// Far pointer, as `jmp m16:32` takes it: offset and selector.
    entry: u32,
    entry_selector: u32,
    exit: u64,
    host_rsp: u64,
    /// MXCSR of the host.
    mxcsr: u32,
    /// 1 while the instruction may run.
    running: u32,
    caught: u32,
    trap: Trap,
    rip: u64,
    /// The alternate signal stack, by which the handler knows its thread.
    stack: (u64, u64),
    old: [MaybeUninit<libc::sigaction>; SIGNALS.len()],
}

const _: () = assert!(size_of::<Control>() <= super::PAGE as usize);

const SIGNALS: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// Bytes of the alternate signal stack: a frame with every vector register of today's processors is below 12 KiB.
const STACK: usize = 64 << 10;

impl Control {
    pub fn get() -> *mut Control {
        ptr::with_exposed_provenance_mut(CONTROL as usize)
    }

    /// To be called before [`enter`].
    pub fn start(&mut self, entry: u64, width: Width) {
        self.entry = entry as u32;
        self.entry_selector = match width {
            Width::Bits64 => CODE64_SELECTOR,
            Width::Bits32 => CODE32_SELECTOR,
        };
        self.caught = 0;
        self.running = 1;
    }

    /// What happened since [`Control::start`]; `next` is where an instruction without exception ended.
    pub fn stop(&mut self, next: u64) -> Stop {
        self.running = 0;
        if self.caught == 0 { Stop { rip: next, trap: None } } else { Stop { rip: self.rip, trap: Some(self.trap) } }
    }
}

/// Linux's code segments of processes, and their data segment.
const CODE64_SELECTOR: u32 = 0x33;
const CODE32_SELECTOR: u32 = 0x23;
const DATA_SELECTOR: u16 = 0x2b;

/// Offset in the code page of 64-bit code to which 32-bit code leaves.
pub(super) const TRAMPOLINE: usize = 0xff0;

/// What is put behind an instruction: `jmp [exit]`, or a far jump to where that is.
pub(super) fn leave_code(width: Width) -> [u8; 7] {
    if width == Width::Bits32 {
        let [a, b, c, d] = (CODE as u32 + TRAMPOLINE as u32).to_le_bytes();
        return [0xea, a, b, c, d, CODE64_SELECTOR as u8, 0];
    }
    let at = CONTROL as u32 + offset_of!(Control, exit) as u32;
    let [a, b, c, d] = at.to_le_bytes();
    [0xff, 0x24, 0x25, a, b, c, d]
}

/// Loads `input`, goes to `entry`, and stores `output` when control comes to `exit`.
///
/// # Safety
///
/// The control page is mapped and filled in; the code at `entry` comes to `exit` whatever it does.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "stmxcsr dword ptr [{c} + {mxcsr}]",
        "lea rax, [rip + 2f]",
        "mov qword ptr [{c} + {exit}], rax",
        "mov qword ptr [{c} + {host_rsp}], rsp",
        "fxrstor64 [{c} + {in_fx}]",
        "push qword ptr [{c} + {in_flags}]",
        "popfq",
        "mov rax, qword ptr [{c} + {i} + 0]",
        "mov rcx, qword ptr [{c} + {i} + 8]",
        "mov rdx, qword ptr [{c} + {i} + 16]",
        "mov rbx, qword ptr [{c} + {i} + 24]",
        "mov rsp, qword ptr [{c} + {i} + 32]",
        "mov rbp, qword ptr [{c} + {i} + 40]",
        "mov rsi, qword ptr [{c} + {i} + 48]",
        "mov rdi, qword ptr [{c} + {i} + 56]",
        "mov r8, qword ptr [{c} + {i} + 64]",
        "mov r9, qword ptr [{c} + {i} + 72]",
        "mov r10, qword ptr [{c} + {i} + 80]",
        "mov r11, qword ptr [{c} + {i} + 88]",
        "mov r12, qword ptr [{c} + {i} + 96]",
        "mov r13, qword ptr [{c} + {i} + 104]",
        "mov r14, qword ptr [{c} + {i} + 112]",
        "mov r15, qword ptr [{c} + {i} + 120]",
        // jmp far [entry]
        ".byte 0xff, 0x2c, 0x25",
        ".long {entry}",
        "2:",
        "mov qword ptr [{c} + {o} + 0], rax",
        "mov qword ptr [{c} + {o} + 8], rcx",
        "mov qword ptr [{c} + {o} + 16], rdx",
        "mov qword ptr [{c} + {o} + 24], rbx",
        "mov qword ptr [{c} + {o} + 32], rsp",
        "mov qword ptr [{c} + {o} + 40], rbp",
        "mov qword ptr [{c} + {o} + 48], rsi",
        "mov qword ptr [{c} + {o} + 56], rdi",
        "mov qword ptr [{c} + {o} + 64], r8",
        "mov qword ptr [{c} + {o} + 72], r9",
        "mov qword ptr [{c} + {o} + 80], r10",
        "mov qword ptr [{c} + {o} + 88], r11",
        "mov qword ptr [{c} + {o} + 96], r12",
        "mov qword ptr [{c} + {o} + 104], r13",
        "mov qword ptr [{c} + {o} + 112], r14",
        "mov qword ptr [{c} + {o} + 120], r15",
        "mov rsp, qword ptr [{c} + {host_rsp}]",
        "pushfq",
        "pop qword ptr [{c} + {out_flags}]",
        // The host's own flags: none set that the ABI or the kernel minds.
        "push 2",
        "popfq",
        "fxsave64 [{c} + {out_fx}]",
        "fninit",
        "ldmxcsr dword ptr [{c} + {mxcsr}]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        c = const CONTROL,
        i = const offset_of!(Control, input),
        o = const offset_of!(Control, output),
        in_flags = const offset_of!(Control, input) + offset_of!(Registers, rflags),
        in_fx = const offset_of!(Control, input) + offset_of!(Registers, fx),
        out_flags = const offset_of!(Control, output) + offset_of!(Registers, rflags),
        out_fx = const offset_of!(Control, output) + offset_of!(Registers, fx),
        entry = const CONTROL as usize + offset_of!(Control, entry),
        exit = const offset_of!(Control, exit),
        host_rsp = const offset_of!(Control, host_rsp),
        mxcsr = const offset_of!(Control, mxcsr),
    )
}

/// Notes the exception and goes on at `exit`, with all other registers as they were.
extern "C" fn handler(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let local = 0u8;
    let here = ptr::from_ref(&local) as u64;
    let control = Control::get();
    // SAFETY: the control page is mapped while this handler is installed; `context` is the interrupted one, which the
    // system gives to handlers with SA_SIGINFO and reloads afterwards.
    unsafe {
        let (low, high) = (*control).stack;
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        if !(low..high).contains(&here) || (*control).running == 0 {
            // Another thread's, or a fault of the host program: with the old action back, it happens again.
            if let Some(index) = SIGNALS.iter().position(|&s| s == signal) {
                libc::sigaction(signal, (*control).old[index].as_ptr(), ptr::null_mut());
            }
            return;
        }
        const TF: i64 = 1 << 8;
        let get = |index: libc::c_int| registers[index as usize] as u64;
        (*control).trap =
            Trap { vector: get(libc::REG_TRAPNO) as u8, error: get(libc::REG_ERR) as u32, address: get(libc::REG_CR2) };
        (*control).rip = get(libc::REG_RIP);
        (*control).caught = 1;
        registers[libc::REG_RIP as usize] = (*control).exit as i64;
        let segments = &mut registers[libc::REG_CSGSFS as usize];
        *segments = *segments & !0xffff | i64::from(CODE64_SELECTOR);
        registers[libc::REG_EFL as usize] &= !TF;
    }
}

/// The signals taken over, the thread's alternate stack, and the base of GS.
#[derive(Debug)]
pub(super) struct Signals {
    old_stack: libc::stack_t,
    /// Memory of the alternate stack.
    _stack: Box<[u8]>,
    old_gs: u64,
}

const ARCH_SET_GS: libc::c_int = 0x1001;
const ARCH_GET_GS: libc::c_int = 0x1004;

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Signals {
    /// The control page must be mapped.
    pub fn install() -> io::Result<Signals> {
        let mut stack = vec![0u8; STACK].into_boxed_slice();
        let low = stack.as_mut_ptr() as u64;
        let control = Control::get();
        // SAFETY: the control page is mapped and not in use yet; `stack` lives until `restore`; the other pointers are
        // to locals of the types that the calls ask for. Neither Rust nor the C library uses GS on x86-64 Linux.
        unsafe {
            let mut old_gs = 0u64;
            check(libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut old_gs))?;
            let new = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
            let mut old_stack = std::mem::zeroed();
            check(libc::sigaltstack(&raw const new, &raw mut old_stack).into())?;
            (*control).stack = (low, low + STACK as u64);
            (*control).running = 0;
            // 64-bit code does not use them; in compatibility mode data is addressed through them.
            asm!("mov ds, {0:x}", "mov es, {0:x}", in(reg) DATA_SELECTOR, options(nomem, nostack, preserves_flags));
            check(libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE))?;
            for (index, signal) in SIGNALS.into_iter().enumerate() {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                check(libc::sigaction(signal, &raw const action, (*control).old[index].as_mut_ptr()).into())?;
            }
            Ok(Signals { old_stack, _stack: stack, old_gs })
        }
    }

    pub fn restore(&mut self) {
        let control = Control::get();
        // SAFETY: `install` has filled in the old actions and stack.
        unsafe {
            for (index, signal) in SIGNALS.into_iter().enumerate() {
                libc::sigaction(signal, (*control).old[index].as_ptr(), ptr::null_mut());
            }
            libc::sigaltstack(&raw const self.old_stack, ptr::null_mut());
            libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, self.old_gs);
        }
    }
}
