//! The slow paths that compiled code calls, for the x86 guest.

use mimus_frontend::x86::Cpu;
use mimus_ir::op::RmwKind;
use mimus_ir::{Guest, MemFlags, Type, VecInfo};

/// A slow path's address, of whichever signature.
#[derive(Clone, Copy)]
pub(crate) struct SlowFn(*const ());

// SAFETY: the address of a function may be shared.
unsafe impl Sync for SlowFn {}

impl SlowFn {
    /// As held in [`mimus_softmmu::EnvHeader::slow_rust`].
    pub(crate) fn address(self) -> u64 {
        self.0 as usize as u64
    }
}

/// In the order of [`mimus_softmmu::EnvHeader::slow_rust`].
pub(crate) static TABLE: [SlowFn; 5] = [
    SlowFn(load as *const ()),
    SlowFn(store as *const ()),
    SlowFn(rmw as *const ()),
    SlowFn(cas as *const ()),
    SlowFn(trap as *const ()),
];

/// In the order of [`mimus_softmmu::EnvHeader::x87_rust`].
pub(crate) static X87: [SlowFn; 3] =
    [SlowFn(x87_park as *const ()), SlowFn(x87_resume as *const ()), SlowFn(x87_step as *const ())];

/// The vCPU that compiled code runs on.
///
/// # Safety
///
/// `env` is the env pointer that the running compiled code was entered with: the address of a [`Cpu`], which nothing else
/// uses until the slow path returns.
unsafe fn cpu<'a>(env: *mut u8) -> &'a mut Cpu {
    // SAFETY: by the caller's promise.
    unsafe { &mut *env.cast::<Cpu>() }
}

fn width(info: u64) -> Type {
    match info & 0xff {
        16 => Type::V128,
        bytes => Type::int(bytes as u32).unwrap_or(Type::I64),
    }
}

/// For [`mimus_softmmu::EnvHeader::vector`].
pub(crate) static VECTOR: SlowFn = SlowFn(vector as *const ());

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn vector(env: *mut u8, operation: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu(env) };
    let [a, b, c] = cpu.header.vector_args.map(|[low, high]| u128::from(low) | u128::from(high) << 64);
    let Some(VecInfo { kind, imm }) = VecInfo::decode(operation) else { return };
    let value = match kind.row().eval {
        Some(eval) => eval(a, b, c, imm),
        None => cpu.float(VecInfo { kind, imm }, a, b),
    };
    cpu.header.vector_args[0] = [value as u64, (value >> 64) as u64];
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn load(env: *mut u8, addr: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu(env) };
    if let Ok(value) = cpu.load(addr, width(info), MemFlags((info >> 8) as u8)) {
        cpu.header.slow_value = value;
    }
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn store(env: *mut u8, addr: u64, value: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu(env) };
    let ty = width(info);
    let value = if ty == Type::V128 { cpu.header.slow_value } else { [value, 0] };
    // What stopped it is in the verdict.
    let _ = cpu.store(addr, ty, value, MemFlags((info >> 8) as u8));
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn rmw(env: *mut u8, addr: u64, operand: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu(env) };
    let kind = RmwKind::from_code((info & 0xff) as u16).unwrap_or(RmwKind::Xchg);
    if let Ok((old, _)) = cpu.rmw(kind, addr, width(info >> 8), operand) {
        cpu.header.slow_value = [old, 0];
    }
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn cas(env: *mut u8, addr: u64, expected: u64, new: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu(env) };
    if let Ok((old, _)) = cpu.cas(addr, width(info), expected, new) {
        cpu.header.slow_value = [old, 0];
    }
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn trap(env: *mut u8, code: u64) {
    // SAFETY: called by compiled code with its own env.
    unsafe { cpu(env) }.trap(code);
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn x87_park(env: *mut u8) {
    // SAFETY: called by compiled code with its own env.
    unsafe { cpu(env) }.park_x87();
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn x87_resume(env: *mut u8) {
    // SAFETY: called by compiled code with its own env.
    unsafe { cpu(env) }.offer_x87();
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn x87_step(env: *mut u8, a: u64, c: u64, helper: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu(env) };
    // What stopped it is in the verdict.
    if let Ok(value) = cpu.call((helper >> 32) as u16, [a, 0, c], helper as u32) {
        cpu.header.slow_value = [value, 0];
        cpu.offer_x87();
    }
}
