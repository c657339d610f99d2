//! The slow paths that compiled code calls.

use mimus_frontend::guest::GuestCpu;
use mimus_ir::op::RmwKind;
use mimus_ir::{MemFlags, Type, VecInfo};
use mimus_softmmu::EnvHeader;

/// Tells compiled code of vCPUs of type `C` where they are.
pub(crate) fn install<C: GuestCpu>(header: &mut EnvHeader) {
    let address = |function: *const ()| function as usize as u64;
    let slow = [
        load::<C> as *const (),
        store::<C> as *const (),
        rmw::<C> as *const (),
        cas::<C> as *const (),
        trap::<C> as *const (),
    ];
    let extension =
        [extension_park::<C> as *const (), extension_resume::<C> as *const (), extension_step::<C> as *const ()];
    header.slow_rust = slow.map(address);
    header.vector = address(vector::<C> as *const ());
    header.extension_rust = extension.map(address);
}

/// The vCPU that compiled code runs on.
///
/// # Safety
///
/// `env` is the env pointer that the running compiled code was entered with: the address of a `C`, which nothing else uses
/// until the slow path returns.
unsafe fn cpu<'a, C: GuestCpu>(env: *mut u8) -> &'a mut C {
    // SAFETY: by the caller's promise.
    unsafe { &mut *env.cast::<C>() }
}

fn width(info: u64) -> Type {
    match info & 0xff {
        16 => Type::V128,
        bytes => Type::int(bytes as u32).unwrap_or(Type::I64),
    }
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn vector<C: GuestCpu>(env: *mut u8, operation: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu::<C>(env) };
    let [a, b, c] = cpu.header().vector_args.map(|[low, high]| u128::from(low) | u128::from(high) << 64);
    let Some(VecInfo { kind, imm }) = VecInfo::decode(operation) else { return };
    let value = match kind.row().eval {
        Some(eval) => eval(a, b, c, imm),
        None => cpu.float(VecInfo { kind, imm }, [a, b, c]),
    };
    cpu.header().vector_args[0] = [value as u64, (value >> 64) as u64];
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn load<C: GuestCpu>(env: *mut u8, addr: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu::<C>(env) };
    if let Ok(value) = cpu.load(addr, width(info), MemFlags::from_bits_retain((info >> 8) as u8)) {
        cpu.header().slow_value = value;
    }
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn store<C: GuestCpu>(env: *mut u8, addr: u64, value: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu::<C>(env) };
    let ty = width(info);
    let value = if ty == Type::V128 { cpu.header().slow_value } else { [value, 0] };
    // What stopped it is in the verdict.
    let _ = cpu.store(addr, ty, value, MemFlags::from_bits_retain((info >> 8) as u8));
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn rmw<C: GuestCpu>(env: *mut u8, addr: u64, operand: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu::<C>(env) };
    let kind = RmwKind::from_code((info & 0xff) as u16).unwrap_or(RmwKind::Xchg);
    if let Ok((old, _)) = cpu.rmw(kind, addr, width(info >> 8), operand) {
        cpu.header().slow_value = [old, 0];
    }
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn cas<C: GuestCpu>(env: *mut u8, addr: u64, expected: u64, new: u64, info: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu::<C>(env) };
    if let Ok((old, _)) = cpu.cas(addr, width(info), expected, new) {
        cpu.header().slow_value = [old, 0];
    }
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn trap<C: GuestCpu>(env: *mut u8, code: u64) {
    // SAFETY: called by compiled code with its own env.
    unsafe { cpu::<C>(env) }.trap(code);
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn extension_park<C: GuestCpu>(env: *mut u8) {
    // SAFETY: called by compiled code with its own env.
    unsafe { cpu::<C>(env) }.park_extension();
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn extension_resume<C: GuestCpu>(env: *mut u8) {
    // SAFETY: called by compiled code with its own env.
    unsafe { cpu::<C>(env) }.offer_extension();
}

/// # Safety
/// As for [`cpu`].
unsafe extern "C" fn extension_step<C: GuestCpu>(env: *mut u8, a: u64, c: u64, helper: u64) {
    // SAFETY: called by compiled code with its own env.
    let cpu = unsafe { cpu::<C>(env) };
    // What stopped it is in the verdict.
    if let Ok(value) = cpu.call((helper >> 32) as u16, [a, 0, c], helper as u32) {
        cpu.header().slow_value = [value, 0];
        cpu.offer_extension();
    }
}
