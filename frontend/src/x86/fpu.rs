//! Helpers that connect the x87 and SIMD semantics of [`super::fp`] with env and memory.

use super::cpu::{Cpu, Raised, Result};
use super::exception::{Exception, vector};
use super::fp::SimdException;
use super::fp::mxcsr::{from_mxcsr, to_mxcsr};
use super::fp::vec::{self, Aux, Dest, VecOp};
use super::fp::x87::{EnvLayout, MemFormat, X87Op, X87Out, X87Row};
use super::state::{Cr0, Cr4, State, halt, reg};
use mimus_softmmu::{Stored, Verdict};

/// Reads 16 bytes of env at `offset`; 0 outside it.
fn env_read(cpu: &Cpu, offset: usize) -> u128 {
    let bytes = bytemuck::bytes_of(&cpu.state).get(offset..offset + 16);
    bytes.and_then(|b| b.try_into().ok()).map_or(0, u128::from_ne_bytes)
}

/// Writes the first bytes of `value` to env at `offset`.
fn env_write(cpu: &mut Cpu, offset: usize, value: &[u8]) {
    if let Some(bytes) = bytemuck::bytes_of_mut(&mut cpu.state).get_mut(offset..offset + value.len()) {
        bytes.copy_from_slice(value);
    }
}

/// An operation of the vector table. `a`: env offset of the source in bits 0..16, of the destination in bits 16..32; `arg`:
/// operation in bits 0..16, immediate in bits 16..24. The value is what a general register, memory or the flags take.
pub extern "C" fn vector(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    let Ok(op) = VecOp::try_from(arg as u16) else { return 0 };
    let imm = (arg >> 16) as u8;
    let row = op.row();
    let (src_at, dst_at) = (a as u16 as usize, (a >> 16) as u16 as usize);
    let (src, dst) = (env_read(cpu, src_at), env_read(cpu, dst_at));
    let gpr = &cpu.state.gpr;
    let aux = match row.aux() {
        Aux::None => 0,
        Aux::Xmm0 => u128::from(cpu.state.xmm[0][0]) | u128::from(cpu.state.xmm[0][1]) << 64,
        Aux::RaxRdx => u128::from(gpr[reg::RAX]) | u128::from(gpr[reg::RDX]) << 64,
    };
    let mut env = cpu.state.float_env();
    let result = vec::exec(op, imm, dst, src, aux, &mut env);
    cpu.state.set_float_env(env);
    let value = match result {
        Ok(value) => value,
        Err(SimdException { .. }) => {
            let osxmmexcpt = cpu.state.cr4.contains(Cr4::OSXMMEXCPT);
            cpu.raise(if osxmmexcpt { Exception::plain(vector::XM) } else { Exception::ud() });
            return 0;
        }
    };
    match row.dest {
        Dest::Xmm => env_write(cpu, dst_at, &value.to_ne_bytes()),
        Dest::Mm => {
            env_write(cpu, dst_at, &(value as u64).to_ne_bytes());
            env_write(cpu, dst_at + 8, &[0xff, 0xff]);
        }
        Dest::Ecx => cpu.state.gpr[reg::RCX] = value as u64,
        Dest::Xmm0 => cpu.state.xmm[0] = [value as u64, (value >> 64) as u64],
        Dest::Gpr | Dest::GprOrMem(_) | Dest::Mem(_) | Dest::Eflags => return value as u64,
    }
    if row.is_string() { vec::string_eflags(op, imm, dst, src, aux).into() } else { 0 }
}

/// Raises #MF if an x87 exception is pending. Where CR0.NE is 0 FERR# tells the board of it instead, and the vCPU waits for an
/// interrupt, unless IGNNE# says that it is ignored: the value (SDM vol. 1, D.2.1).
fn check_pending(cpu: &mut Cpu) -> Result<bool> {
    if cpu.state.fpu.check_pending().is_ok() {
        return Ok(false);
    }
    if cpu.state.cr0.contains(Cr0::NE) {
        return Err(cpu.raise(Exception::plain(vector::MF)));
    }
    cpu.state.ferr = 1;
    if cpu.bus.set_ferr(true) {
        return Ok(true);
    }
    // After the interrupt the instruction starts again.
    cpu.state.halted = halt::INTERRUPT;
    cpu.header.verdict = Verdict::Again as u32;
    Err(Raised)
}

/// Releases FERR# once no exception is pending any more.
fn release_ferr(cpu: &mut Cpu) {
    if cpu.state.ferr != 0 && cpu.state.fpu.check_pending().is_ok() {
        cpu.state.ferr = 0;
        cpu.bus.set_ferr(false);
    }
}

/// What an MMX instruction does to the x87 unit, once nothing of it can fault any more.
pub extern "C" fn enter_mmx(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    cpu.state.fpu.enter_mmx();
    0
}

/// EMMS.
pub extern "C" fn emms(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    if check_pending(cpu).is_ok() {
        cpu.state.fpu.emms();
    }
    0
}

/// What MMX instructions begin with.
pub extern "C" fn fwait(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    // On an error the exception is pending already.
    let _: Result<bool> = check_pending(cpu);
    0
}

/// LDMXCSR.
pub extern "C" fn load_mxcsr(cpu: &mut Cpu, value: u64, _: u64, _: u64, _: u32) -> u64 {
    match from_mxcsr(value as u32) {
        Some(env) => {
            cpu.state.set_float_env(env);
            cpu.update_mode();
        }
        None => _ = cpu.raise(Exception::gp(0)),
    }
    0
}

/// MXCSR.
pub extern "C" fn store_mxcsr(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    to_mxcsr(cpu.state.float_env()).into()
}

/// MASKMOVQ, MASKMOVDQU to linear address `addr`; `offsets` as for [`vector`], source and mask; `arg` bytes.
pub extern "C" fn masked_move(cpu: &mut Cpu, addr: u64, offsets: u64, _: u64, arg: u32) -> u64 {
    let source = env_read(cpu, offsets as u16 as usize);
    let bytes = arg.min(16);
    let mask = env_read(cpu, (offsets >> 16) as u16 as usize) & (u128::MAX >> (128 - 8 * bytes));
    // The whole operand is checked, whatever the mask, so that a fault writes none of it.
    if cpu.probe_write(addr, bytes.into()).is_err() {
        return 0;
    }
    for i in 0..u64::from(bytes) {
        if mask >> (8 * i + 7) & 1 != 0 && cpu.write(addr.wrapping_add(i), 1, (source >> (8 * i)) as u64).is_err() {
            break;
        }
    }
    0
}

/// Bits of [`X87Call`] that hold the opcode.
const OPCODE_BITS: u32 = 11;

/// The constant argument of [`x87`]. Its low [`OPCODE_BITS`] bits are the opcode: by them a host that has the unit knows which of its
/// instructions to execute for a call of [`super::helpers::Helper::X87Host`]. Argument `a` is the address of the memory operand, `c`
/// the condition of FCMOVcc (0 or 1), whichever of the eight it is. The result is the status word for FNSTSW AX, ZF, PF and CF in
/// their places in EFLAGS for FCOMI and its kin, and undefined otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct X87Call {
    /// Number of the [`X87Op`].
    pub op: u16,
    /// The opcode as FOP has it (SDM vol. 1, 8.1.9): the low 3 bits of the first byte, then ModRM.
    pub opcode: u16,
    /// 32-bit operand size.
    pub wide: bool,
}

impl X87Call {
    /// As passed.
    pub const fn encode(self) -> u32 {
        self.opcode as u32 & 0x7ff | (self.op as u32) << OPCODE_BITS | (self.wide as u32) << 31
    }

    const fn decode(arg: u32) -> X87Call {
        X87Call { op: (arg >> OPCODE_BITS & 0xfff) as u16, opcode: (arg & 0x7ff) as u16, wide: arg >> 31 != 0 }
    }
}

/// What [`x87`] returns when it has changed translated code.
pub const CODE_CHANGED: u64 = u64::MAX;

/// An x87 operation. The value is the status word for FNSTSW AX, and ZF, PF and CF for FCOMI and its kin. The caller notes
/// the guest PC.
pub extern "C" fn x87(cpu: &mut Cpu, addr: u64, _: u64, condition: u64, arg: u32) -> u64 {
    // On an error the exception is pending already.
    run_x87(cpu, addr, condition != 0, X87Call::decode(arg)).unwrap_or(0)
}

fn run_x87(cpu: &mut Cpu, addr: u64, condition: bool, call: X87Call) -> Result<u64> {
    let Some(row) = X87Op::ALL.get(usize::from(call.op)).map(|op| op.row()) else { return Ok(0) };
    let ignored = row.waits && check_pending(cpu)?;
    if ignored {
        cpu.state.fpu.ignore_pending();
    }
    let result = run_row(cpu, row, addr, condition, call);
    if ignored {
        cpu.state.fpu.summarize();
    }
    release_ferr(cpu);
    result
}

fn run_row(cpu: &mut Cpu, row: &X87Row, addr: u64, condition: bool, call: X87Call) -> Result<u64> {
    let mut value = 0;
    match row.memory.bytes() {
        None => run_image(cpu, row.op, row.memory, addr, call.wide)?,
        Some(bytes) if row.store => {
            let Ok(store) = cpu.state.fpu.store_value(row.op) else { return Ok(0) };
            match store.value {
                Some(bits) if cpu.store_operand(addr, &bits.to_le_bytes()[..usize::from(bytes)])? == Stored::Code => {
                    value = CODE_CHANGED;
                }
                Some(_) => {}
                // Memory faults come before the operation's own exceptions.
                None => cpu.probe_write(addr, bytes.into())?,
            }
            cpu.state.fpu.commit(store.commit);
        }
        Some(bytes) => {
            let mut operand = read_bits(cpu, addr, bytes)?;
            if row.condition().is_some() {
                operand = row.eflags_where(condition).into();
            }
            let register = (call.opcode & 7) as u8;
            let Ok(X87Out { eflags, ax, .. }) = cpu.state.fpu.exec(row.op, register, operand) else { return Ok(0) };
            value = eflags.or(ax.map(u32::from)).unwrap_or(0).into();
        }
    }
    if !row.control && row.memory != MemFormat::None && cpu.state.fpu.check_pending().is_err() {
        cpu.state.fpu.fdp = addr;
    }
    Ok(value)
}

impl Cpu {
    /// Takes back the x87 unit that compiled code has used, from the header's image.
    pub fn park_x87(&mut self) {
        self.header.extension_live = 0;
        let core = &mut self.core;
        if let Some(image) = core.header.extension_image.0.first_chunk() {
            core.state.fpu.load_host_image(image);
        }
    }

    /// Lets compiled code go on with the x87 unit in the header's image, unless it could raise exceptions.
    pub fn offer_x87(&mut self) {
        if self.state.fpu.is_quiet() {
            let image = self.state.fpu.host_image();
            self.header.extension_image.0[..image.len()].copy_from_slice(&image);
            self.header.extension_live = self.header.extension_ops;
        }
    }
}

fn read_bits(cpu: &mut Cpu, addr: u64, bytes: u8) -> Result<u128> {
    Ok(match bytes {
        0 => 0,
        10 => {
            let low = cpu.read(addr, 8)?;
            u128::from(low) | u128::from(cpu.read(addr.wrapping_add(8), 2)?) << 64
        }
        size => cpu.read(addr, size)?.into(),
    })
}

/// Writes all of `bytes` or, where a page is missing, nothing.
fn write_bytes(cpu: &mut Cpu, addr: u64, bytes: &[u8]) -> Result<()> {
    cpu.probe_write(addr, bytes.len() as u64)?;
    for (i, chunk) in bytes.chunks(8).enumerate() {
        let at = addr.wrapping_add(8 * i as u64);
        match *chunk {
            [a, b, c, d, e, f, g, h] => cpu.write(at, 8, u64::from_le_bytes([a, b, c, d, e, f, g, h]))?,
            _ => {
                for (j, &byte) in chunk.iter().enumerate() {
                    cpu.write(at.wrapping_add(j as u64), 1, byte.into())?;
                }
            }
        }
    }
    Ok(())
}

fn read_bytes(cpu: &mut Cpu, addr: u64, out: &mut [u8]) -> Result<()> {
    for (i, chunk) in out.chunks_mut(2).enumerate() {
        let value = cpu.read(addr.wrapping_add(2 * i as u64), 2)?;
        chunk.copy_from_slice(&(value as u16).to_le_bytes()[..chunk.len()]);
    }
    Ok(())
}

/// FNSTENV, FLDENV, FNSAVE, FRSTOR.
fn run_image(cpu: &mut Cpu, op: X87Op, format: MemFormat, addr: u64, wide: bool) -> Result<()> {
    let layout = match (wide, cpu.mode.real_or_vm86()) {
        (false, true) => EnvLayout::Real16,
        (false, false) => EnvLayout::Protected16,
        (true, true) => EnvLayout::Real32,
        (true, false) => EnvLayout::Protected32,
    };
    let state = format == MemFormat::State;
    let bytes = if state { layout.state_bytes() } else { layout.bytes() };
    let mut image = [0; 108];
    if op.row().waits {
        read_bytes(cpu, addr, &mut image[..bytes])?;
        let fpu = &mut cpu.state.fpu;
        if state {
            fpu.restore(layout, &image[..bytes])
        } else {
            fpu.load_environment(layout, &image[..bytes])
        }
        fpu.forget_selectors();
        return Ok(());
    }
    if state {
        image = cpu.state.fpu.save(layout);
    } else {
        image[..28].copy_from_slice(&cpu.state.fpu.environment(layout));
    }
    write_bytes(cpu, addr, &image[..bytes])?;
    // These operations have no operand: an error is impossible, and there is no result.
    let _ = cpu.state.fpu.exec(op, 0, 0);
    Ok(())
}

/// FXSAVE, FXRSTOR (SDM vol. 1, 10.5).
pub extern "C" fn fxsave(cpu: &mut Cpu, addr: u64, _: u64, _: u64, arg: u32) -> u64 {
    let wide = arg & 2 != 0;
    // On an error the exception is pending already.
    let canonical = cpu.state.canonical(addr) && cpu.state.canonical(addr.wrapping_add(511));
    let _: Result<()> = if cpu.state.code64() && !canonical {
        Err(cpu.raise(Exception::non_canonical()))
    } else if addr & 15 != 0 {
        Err(cpu.raise(Exception::gp(0)))
    } else if arg & 1 == 0 {
        save_extended(cpu, addr, wide)
    } else {
        restore_extended(cpu, addr, wide)
    };
    0
}

/// How many XMM registers the image holds in this mode.
fn xmm_count(cpu: &Cpu) -> usize {
    if !cpu.state.cr4.contains(Cr4::OSFXSR) {
        0
    } else if cpu.state.code64() {
        16
    } else {
        8
    }
}

fn save_extended(cpu: &mut Cpu, addr: u64, wide: bool) -> Result<()> {
    cpu.probe_write(addr, 512)?;
    let image = cpu.state.fpu.fxsave(wide, cpu.state.float_env());
    write_bytes(cpu, addr, &image)?;
    for i in 0..xmm_count(cpu) {
        let at = addr.wrapping_add(160 + 16 * i as u64);
        let [low, high] = cpu.state.xmm[i];
        cpu.write(at, 8, low)?;
        cpu.write(at.wrapping_add(8), 8, high)?;
    }
    Ok(())
}

fn restore_extended(cpu: &mut Cpu, addr: u64, wide: bool) -> Result<()> {
    let mut image = [0; 160];
    read_bytes(cpu, addr, &mut image)?;
    // The operand is 512 bytes whatever is taken from it.
    cpu.read(addr.wrapping_add(511), 1)?;
    let mxcsr = u32::from_le_bytes([image[24], image[25], image[26], image[27]]);
    let Some(env) = from_mxcsr(mxcsr) else { return Err(cpu.raise(Exception::gp(0))) };
    let count = xmm_count(cpu);
    let mut xmm = cpu.state.xmm;
    for (i, register) in xmm.iter_mut().enumerate().take(count) {
        let at = addr.wrapping_add(160 + 16 * i as u64);
        *register = [cpu.read(at, 8)?, cpu.read(at.wrapping_add(8), 8)?];
    }
    cpu.state.fpu.fxrstor(wide, &image);
    cpu.state.fpu.forget_selectors();
    release_ferr(cpu);
    if count != 0 {
        cpu.state.xmm = xmm;
        cpu.state.set_float_env(env);
        cpu.update_mode();
    }
    Ok(())
}

// Offsets into the env are held in 16 bits.
const _: () = assert!(size_of::<State>() < 1 << 16);
