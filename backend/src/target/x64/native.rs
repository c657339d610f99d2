//! The host's own processor as an oracle: one x86-64 user instruction at a time, with every register given and taken
//! back, and faults caught.
//!
//! Code and data lie at fixed addresses ([`CODE`], [`DATA`]), so that a guest with the same pages has the same
//! addresses. Everything within [`RESERVED`] that is not one of those pages is reserved and inaccessible. An
//! instruction is executed only after [`vet`] has made sure that it touches nothing else of this process.
//!
//! For tests; a process can have one [`Native`] at a time.

mod control;
mod vet;

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use thiserror::Error;

use control::Control;
pub use vet::{Refusal, in_x86_64_v2};

/// Addresses that belong to the oracle while a [`Native`] exists.
pub const RESERVED: Range<u64> = 0x1000_0000..0x3000_0000;
/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Page with the instruction, readable and executable.
pub const CODE: u64 = 0x2000_0000;
/// First of three pages of data: a read-only one and two writable ones, with inaccessible ones on either side.
pub const DATA: u64 = 0x2001_0000;
/// Bytes of [`DATA`].
pub const DATA_LEN: u64 = 3 * PAGE;
/// First writable byte.
pub const WRITABLE: u64 = DATA + PAGE;
/// End of the data: the first byte of an inaccessible page.
pub const DATA_END: u64 = DATA + DATA_LEN;
/// Base of GS while instructions run.
pub const GS_BASE: u64 = 0x1234_5000;

/// Page with what entering and leaving need.
const CONTROL: u64 = 0x1fff_0000;

/// What an instruction works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(16))]
pub struct Registers {
    /// General registers in encoding order.
    pub gpr: [u64; 16],
    /// RFLAGS. TF, AC, NT and RF are taken as 0, IF and IOPL are the host's.
    pub rflags: u64,
    pad: u64,
    /// x87, MMX, XMM registers and MXCSR as FXSAVE64 has them (SDM vol. 1, 10.5.1).
    pub fx: [u8; 512],
}

impl Registers {
    /// These registers.
    pub fn new(gpr: [u64; 16], rflags: u64, fx: [u8; 512]) -> Registers {
        Registers { gpr, rflags, pad: 0, fx }
    }
}

/// An exception that an instruction raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Vector number.
    pub vector: u8,
    /// Error code; 0 for vectors without one.
    pub error: u32,
    /// For #PF: the address accessed.
    pub address: u64,
}

/// Width of the code segment that an instruction runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 64-bit mode.
    Bits64,
    /// Compatibility mode, by the kernel's code segment for 32-bit processes.
    Bits32,
}

/// How an instruction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop {
    /// RIP afterwards: of the next instruction, or of the faulting one.
    pub rip: u64,
    /// The exception raised.
    pub trap: Option<Trap>,
}

/// Why there is no oracle.
#[derive(Debug, Error)]
pub enum NativeError {
    /// The fixed addresses are taken: by another [`Native`], most likely.
    #[error("the oracle's addresses are in use")]
    AddressInUse,
    /// A system call failed.
    #[error("system call failed")]
    System(#[source] std::io::Error),
}

impl From<rustix::io::Errno> for NativeError {
    fn from(error: rustix::io::Errno) -> NativeError {
        if error == rustix::io::Errno::EXIST { NativeError::AddressInUse } else { NativeError::System(error.into()) }
    }
}

/// The oracle. Bound to the thread that made it, whose alternate signal stack it replaces.
#[derive(Debug)]
pub struct Native {
    /// A writable view of the code page and, behind it, of the data.
    view: *mut u8,
    signals: control::Signals,
    not_send: PhantomData<*mut ()>,
}

/// Bytes of [`Native::view`].
const VIEW_LEN: usize = (PAGE + DATA_LEN) as usize;

impl Native {
    /// Reserves the addresses and takes over the signals of exceptions.
    ///
    /// # Errors
    ///
    /// [`NativeError`]: another oracle exists, or the system refuses.
    pub fn new() -> Result<Native, NativeError> {
        let reservation = Reservation::new()?;
        let file = memfd_create("oracle", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, VIEW_LEN as u64)?;
        let shared = |at: u64, len: u64, protection, offset| {
            // SAFETY: replaces a part of the reservation just made, which nobody uses yet.
            unsafe {
                mmap(
                    at as *mut _,
                    len as usize,
                    protection,
                    MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE,
                    &file,
                    offset,
                )
            }
        };
        shared(CODE, PAGE, ProtFlags::READ | ProtFlags::EXEC, 0)?;
        shared(DATA, PAGE, ProtFlags::READ, PAGE)?;
        shared(WRITABLE, DATA_LEN - PAGE, ProtFlags::READ | ProtFlags::WRITE, 2 * PAGE)?;
        // SAFETY: as above; the page for `Control`.
        unsafe {
            mmap_anonymous(
                CONTROL as *mut _,
                PAGE as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
            )?
        };
        // SAFETY: a new mapping at an address the system chooses.
        let view = unsafe {
            mmap(
                ptr::null_mut(),
                VIEW_LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                &file,
                0,
            )?
        };
        let signals = match control::Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                // SAFETY: the mapping just made; nothing refers to it.
                let _ = unsafe { munmap(view, VIEW_LEN) };
                return Err(NativeError::System(error));
            }
        };
        // The mappings now live until `drop`.
        std::mem::forget(reservation);
        Ok(Native { view: view.cast(), signals, not_send: PhantomData })
    }

    /// The data at [`DATA`].
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: `view` maps `VIEW_LEN` bytes for as long as `self` lives. What runs natively changes them through
        // another mapping, but only in `step`, which borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(self.view.add(PAGE as usize), DATA_LEN as usize) }
    }

    /// Executes the one instruction that `code` holds, at [`CODE`], with `registers`, which are replaced by those
    /// afterwards. With [`Width::Bits32`], R8 to R15 and the upper halves of the others mean nothing, before and after.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for an instruction that is not executed here.
    pub fn step(&mut self, width: Width, code: &[u8], registers: &mut Registers) -> Result<Stop, Refusal> {
        registers.rflags = registers.rflags & vet::LOADABLE_FLAGS | 2;
        let targets = vet::vet(width, code, registers)?;
        // SAFETY: as in `data`.
        let page = unsafe { std::slice::from_raw_parts_mut(self.view, PAGE as usize) };
        let leave = control::leave_code(width);
        let end = code.len() + leave.len();
        page[..code.len()].copy_from_slice(code);
        page[code.len()..end].copy_from_slice(&leave);
        page[control::TRAMPOLINE..][..leave.len()].copy_from_slice(&control::leave_code(Width::Bits64));
        let target = targets.and_then(|at| usize::try_from(at - CODE).ok()).filter(|&at| at >= end);
        if let Some(at) = target {
            // A breakpoint, whose address tells that the branch was taken.
            page[at] = 0xcc;
        }
        let control = Control::get();
        // SAFETY: `control` points to the page mapped for it in `new`, which only `self` and, while code runs, the
        // signal handler use. `enter` saves and restores what its ABI asks for; `vet` has checked that the
        // instruction at `CODE` touches only the oracle's memory and comes back by `leave`, a breakpoint or a fault.
        let stop = unsafe {
            (*control).input = *registers;
            (*control).start(CODE, width);
            control::enter();
            *registers = (*control).output;
            (*control).stop(CODE + code.len() as u64)
        };
        Ok(match (stop, target) {
            (Stop { rip, trap: Some(Trap { vector: 3, .. }) }, Some(at)) if rip == CODE + at as u64 + 1 => {
                Stop { rip: rip - 1, trap: None }
            }
            (stop, _) => stop,
        })
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.signals.restore();
        // SAFETY: the mapping made in `new`; slices of it borrowed `self`.
        let _ = unsafe { munmap(self.view.cast(), VIEW_LEN) };
        drop(Reservation(()));
    }
}

/// The reserved addresses; dropping it gives them back.
struct Reservation(());

impl Reservation {
    fn new() -> Result<Reservation, NativeError> {
        let len = (RESERVED.end - RESERVED.start) as usize;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: never replaces a mapping.
        let at = unsafe { mmap_anonymous(RESERVED.start as *mut _, len, ProtFlags::empty(), flags)? };
        if at as u64 != RESERVED.start {
            // Systems older than the flag take the address as a hint.
            // SAFETY: the mapping just made.
            unsafe { munmap(at, len)? };
            return Err(NativeError::AddressInUse);
        }
        Ok(Reservation(()))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range belongs to the oracle that is going.
        let _ = unsafe { munmap(RESERVED.start as *mut _, (RESERVED.end - RESERVED.start) as usize) };
    }
}

#[cfg(test)]
mod tests;
