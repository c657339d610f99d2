//! Code that lives as long as the machine: into compiled code, out of it, and from its slow paths into Rust.
//!
//! The functions behind [`EnvHeader::slow_rust`] are, in this order ([`SlowLoad`] and so on): load, store,
//! read-modify-write, compare-and-swap, trap. They must not unwind, nor may helpers. While one of them runs, or a
//! helper that may fault, [`EnvHeader::exit_value`] holds the guest PC of the current instruction. One that cannot
//! finish sets [`EnvHeader::verdict`] and has had no effect.
//!
//! A unit of the host may have the state of the guest's extension while compiled code runs ([`EnvHeader::extension_live`]). Every
//! way into Rust from here puts it back first; the functions for that are in [`EnvHeader::extension_rust`].

use std::mem::offset_of;
use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, Block, Endianness, InstBuilder, MemFlagsData, Signature, Type, Value, types};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use mimus_ir::MemFlags;
use mimus_softmmu::ram::{GRANULE_SHIFT, WATCH_CODE, WATCH_MIXED, WATCH_SIZE};
use mimus_softmmu::tlb::{META_WRITABLE, PAGE_SIZE, probe};
use mimus_softmmu::{EnvHeader, ExitCode};

use crate::compile::{block_signature, finish};
use crate::error::BackendError;
use crate::exec::HostAddr;
use crate::host::{Arch, HostIsa};
use crate::lower::{SLOW_PATHS, SLOW_VECTOR, Slow, SlowPath, slow_signature};
use crate::permanent::{Permanent, PermanentBuilder};
use crate::target::x64::{frame, mxcsr, quick, stubs};
use crate::target::{self, Extension};

/// `(env, addr, size | flags << 8)`, sizes in bytes: reads guest memory into `slow_value`.
pub type SlowLoad = unsafe extern "C" fn(*mut u8, u64, u64);
/// `(env, addr, value, size | flags << 8)`: writes guest memory; for 16 bytes the value is in `slow_value`.
pub type SlowStore = unsafe extern "C" fn(*mut u8, u64, u64, u64);
/// `(env, addr, operand, kind | size << 8)`: the old value goes to `slow_value[0]`.
pub type SlowRmw = unsafe extern "C" fn(*mut u8, u64, u64, u64);
/// `(env, addr, expected, new, size)`: the old value goes to `slow_value[0]`.
pub type SlowCas = unsafe extern "C" fn(*mut u8, u64, u64, u64, u64);
/// `(env, code)`: makes a guest trap pending. The code leaves as if a verdict were out.
pub type SlowTrap = unsafe extern "C" fn(*mut u8, u64);
/// `(env)`: takes [`EnvHeader::extension_image`] into the guest's state and clears [`EnvHeader::extension_live`].
pub type ExtensionPark = unsafe extern "C" fn(*mut u8);
/// `(env)`: may fill [`EnvHeader::extension_image`], with a state in which the host's unit reports no exception, and set
/// [`EnvHeader::extension_live`].
pub type ExtensionResume = unsafe extern "C" fn(*mut u8);
/// `(env, a, c, helper << 32 | arg)`: calls a helper; the result goes to `slow_value[0]`. Afterwards it may do what
/// [`ExtensionResume`] may.
pub type ExtensionStep = unsafe extern "C" fn(*mut u8, u64, u64, u64);
/// A guest's helper: `(env, a, b, c, arg)`.
pub type Helper = unsafe extern "C" fn(*mut u8, u64, u64, u64, u32) -> u64;

/// The code around compiled code, for envs with their header at one offset. Clones share it.
#[derive(Clone, Debug)]
pub struct Thunks {
    entry: HostAddr,
    exit_stub: HostAddr,
    slow: [HostAddr; SLOW_PATHS.len()],
    floats: Option<Floats>,
    /// The routines of the guest's extension; `None` if the guest or the host has none.
    extension: Option<HostAddr>,
    /// `None` where there is no quick tier.
    quick: Option<QuickStubs>,
    header_offset: usize,
    /// Keeps all of this in memory.
    _code: Arc<Permanent>,
}

/// What the quick tier's code needs around it.
#[derive(Clone, Copy, Debug)]
struct QuickStubs {
    /// [`quick::indirect_stub`], [`quick::entry_shim`], [`quick::checked_stub`].
    ways: [HostAddr; 3],
    /// [`quick::slow_stubs`].
    slow: [HostAddr; 5],
}

/// What there is on hosts that have the guest's floating-point environment in a register of their own.
#[derive(Clone, Copy, Debug)]
struct Floats {
    stubs: HostAddr,
    float_call: HostAddr,
    slow_vector: HostAddr,
}

impl Thunks {
    /// Compiles them.
    ///
    /// # Errors
    ///
    /// [`BackendError::Permanent`], or what [`crate::Compiler::compile`] may fail with.
    pub fn new(host: &HostIsa, header_offset: i32) -> Result<Thunks, BackendError> {
        let mut code = PermanentBuilder::default();
        let unit = target::extension(host);
        let extension = unit.map(|unit| code.add(&(unit.routines)(header_offset)));
        let mut maker = Maker { host, header_offset, code: Vec::new() };
        maker.entry_trampoline()?;
        let entry = code.add(&maker.code);
        let exit_offset = maker.exit_stub()?;
        let exit_stub = code.add(&maker.code);
        let mut slow = [entry; SLOW_PATHS.len()];
        for (index, (path, id)) in SLOW_PATHS.iter().zip(&mut slow).enumerate() {
            match index {
                _ if index == Slow::ProbeLoad as usize => maker.probe_thunk(Slow::Load)?,
                _ if index == Slow::ProbeStore as usize => maker.probe_thunk(Slow::Store)?,
                _ => maker.slow_thunk(index, path)?,
            }
            *id = code.add(&maker.code);
        }
        let floats = if host.floats() {
            maker.slow_vector()?;
            Some([code.add(&stubs::code()), code.add(&mxcsr::float_call(header_offset)), code.add(&maker.code)])
        } else {
            None
        };
        let quick = match host.arch {
            Arch::X64 => {
                let ways =
                    [quick::indirect_stub(header_offset), quick::entry_shim(), quick::checked_stub(header_offset)];
                let slow = quick::slow_stubs(header_offset);
                Some((ways.map(|stub| code.add(&stub)), slow.map(|stub| code.add(&stub))))
            }
            _ => None,
        };
        let code = code.finish()?;
        let at = |id| code.address(id);
        Ok(Thunks {
            entry: at(entry),
            exit_stub: HostAddr(at(exit_stub).0 + u64::from(exit_offset)),
            slow: slow.map(at),
            floats: floats.map(|ids| {
                let [stubs, float_call, slow_vector] = ids.map(at);
                Floats { stubs, float_call, slow_vector }
            }),
            extension: extension.map(at),
            quick: quick.map(|(ways, slow)| QuickStubs { ways: ways.map(at), slow: slow.map(at) }),
            header_offset: header_offset as usize,
            _code: Arc::new(code),
        })
    }

    /// `extern "C" fn(env, code) -> exit code`.
    pub(crate) fn entry(&self) -> HostAddr {
        self.entry
    }

    /// What an unlinked link slot holds: stores the slot's number to `exit_slot` and returns [`ExitCode::Link`].
    pub fn exit_stub(&self) -> HostAddr {
        self.exit_stub
    }

    /// What a link slot may hold that leads to a guest PC rather than to a block: it looks in the jump cache for what is there
    /// now. `None` if this host has no such code.
    pub fn checked_stub(&self) -> Option<HostAddr> {
        self.quick.map(|quick| quick.ways[2])
    }

    /// Offset of the header from the env pointer in bytes.
    pub(crate) fn header_offset(&self) -> usize {
        self.header_offset
    }

    /// Whether the guest's floating-point environment is in the host's register while compiled code runs.
    pub(crate) fn floats(&self) -> bool {
        self.floats.is_some()
    }

    /// Fills in the pointers to the slow paths' thunks.
    pub fn install(&self, header: &mut EnvHeader) {
        let [load, store, rmw, cas, trap, probe_load, probe_store, park, resume, step] = self.slow.map(|a| a.0);
        header.slow_load = load;
        header.slow_store = store;
        header.slow_rmw = rmw;
        header.slow_cas = cas;
        header.slow_trap = trap;
        header.probe_load = probe_load;
        header.probe_store = probe_store;
        if let Some(floats) = self.floats {
            header.vector_stubs = floats.stubs.0;
            header.float_call = floats.float_call.0;
            header.slow_vector = floats.slow_vector.0;
        }
        header.extension_park = park;
        header.extension_resume = resume;
        header.extension_step = step;
        header.extension_ops = self.extension.map_or(0, |a| a.0);
        if let Some(QuickStubs { ways, slow }) = self.quick {
            [header.indirect, header.shim, _] = ways.map(|a| a.0);
            header.quick_slow = slow.map(|a| a.0);
        }
    }
}

/// Compiles one thunk after the other into `code`.
struct Maker<'a> {
    host: &'a HostIsa,
    header_offset: i32,
    code: Vec<u8>,
}

impl Maker<'_> {
    fn function(
        &mut self,
        signature: Signature,
        body: impl FnOnce(&mut FunctionBuilder<'_>, &[Value]),
    ) -> Result<(), BackendError> {
        let (mut context, mut builder_context) = (Context::new(), FunctionBuilderContext::new());
        context.func.signature = signature;
        let mut b = FunctionBuilder::new(&mut context.func, &mut builder_context);
        let block = b.create_block();
        b.append_block_params_for_function_params(block);
        b.switch_to_block(block);
        let params = b.block_params(block).to_vec();
        body(&mut b, &params);
        b.seal_all_blocks();
        b.finalize(self.host.isa.frontend_config());
        finish(self.host, &mut context, &mut self.code)
    }

    fn entry_trampoline(&mut self) -> Result<(), BackendError> {
        let mut signature = Signature::new(self.host.c_call_conv());
        signature.params.extend([AbiParam::new(types::I64); 2]);
        signature.returns.push(AbiParam::new(types::I64));
        let unit = self.unit();
        let shim = (self.host.arch == Arch::X64).then_some(self.header_offset + offset_of!(EnvHeader, shim) as i32);
        self.function(signature, |b, params| {
            let callee = b.import_signature(block_signature());
            let [env, entry] = [params[0], params[1]];
            let call = match shim {
                Some(field) => {
                    let shim = b.ins().load(types::I64, MemFlagsData::trusted(), env, field);
                    b.ins().call_indirect(callee, shim, &[env, entry])
                }
                None => {
                    let none = b.ins().iconst(types::I64, 0);
                    b.ins().call_indirect(callee, entry, &[env, none])
                }
            };
            let code = b.inst_results(call)[0];
            if let Some(unit) = unit {
                unit.park(b, params[0]);
            }
            b.ins().return_(&[code]);
        })
    }

    /// The unit of the host that may have the state of the guest's extension.
    fn unit(&self) -> Option<Unit> {
        let Maker { host, header_offset, .. } = *self;
        target::extension(host).map(|extension| Unit { extension, header_offset, c: host.c_call_conv() })
    }

    /// Returns where to enter it.
    fn exit_stub(&mut self) -> Result<u32, BackendError> {
        let offset = self.header_offset + offset_of!(EnvHeader, exit_slot) as i32;
        self.function(block_signature(), |b, params| {
            b.ins().store(MemFlagsData::trusted(), params[1], params[0], offset);
            let code = b.ins().iconst(types::I64, ExitCode::Link as i64);
            b.ins().return_(&[code]);
        })?;
        Ok(if self.host.arch == Arch::X64 { frame::strip(&mut self.code) } else { 0 })
    }

    /// A load or store that looks in the TLB, and calls the slow path `slow` where that does not serve it.
    fn probe_thunk(&mut self, slow: Slow) -> Result<(), BackendError> {
        let header = self.header_offset;
        let field = |offset: usize| header + offset as i32;
        let (path, store) = (&SLOW_PATHS[slow as usize], matches!(slow, Slow::Store));
        self.function(slow_signature(CallConv::PreserveAll, path), |b, params| {
            let flags = MemFlagsData::trusted();
            // At any address; what goes by `slow_value` is a host number.
            let guest = MemFlagsData::new().with_notrap().with_endianness(Endianness::Little);
            let (env, addr, info) = (params[0], params[1], params[params.len() - 1]);
            let size = b.ins().band_imm_s(info, 0xff);
            let entry = tlb_entry(b, flags, env, addr, header);
            let write = b.ins().load(types::I64, flags, entry, probe::tag(true) as i32);
            let tag = if store {
                write
            } else {
                let read = b.ins().load(types::I64, flags, entry, probe::tag(false) as i32);
                let for_write = b.ins().band_imm_s(info, i64::from(MemFlags::FOR_WRITE.bits()) << 8);
                b.ins().select(for_write, write, read)
            };
            let difference = b.ins().bxor(addr, tag);
            let end = b.ins().iadd(difference, size);
            let wide_end = b.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, end, PAGE_SIZE as i64);
            let near = b.ins().icmp_imm_u(IntCC::UnsignedLessThan, difference, PAGE_SIZE as i64);
            let hit = b.ins().band(wide_end, near);
            let (found, watched, miss) = (b.create_block(), b.create_block(), b.create_block());
            b.ins().brif(hit, found, &[], watched, &[]);
            b.switch_to_block(watched);
            beside_code(b, env, [entry, addr, size], header, store, [found, miss]);
            b.switch_to_block(miss);
            let callee = b.import_signature(slow_signature(CallConv::PreserveAll, path));
            let thunk = b.ins().load(types::I64, flags, env, field(path.offset));
            b.ins().call_indirect(callee, thunk, params);
            b.ins().return_(&[]);
            b.switch_to_block(found);
            let addend = b.ins().load(types::I64, flags, entry, probe::ADDEND as i32);
            let host = b.ins().iadd(addr, addend);
            let stash = field(offset_of!(EnvHeader, slow_value));
            for (bytes, ty) in [(8, types::I64), (4, types::I32), (2, types::I16), (1, types::I8), (16, types::I64)] {
                let (this, other) = (b.create_block(), b.create_block());
                let is = b.ins().icmp_imm_u(IntCC::Equal, size, bytes);
                b.ins().brif(is, this, &[], other, &[]);
                b.switch_to_block(this);
                // 128 bits are two halves, the low one first.
                for half in (0..bytes as i32).step_by(8) {
                    if store {
                        let value = match (bytes, ty) {
                            (16, _) => b.ins().load(ty, flags, env, stash + half),
                            (_, types::I64) => params[2],
                            _ => b.ins().ireduce(ty, params[2]),
                        };
                        b.ins().store(guest, value, host, half);
                    } else {
                        let value = b.ins().load(ty, guest, host, half);
                        let value = if ty == types::I64 { value } else { b.ins().uextend(types::I64, value) };
                        b.ins().store(flags, value, env, stash + half);
                    }
                }
                b.ins().return_(&[]);
                b.switch_to_block(other);
            }
            b.ins().return_(&[]);
        })?;
        if self.host.arch == Arch::X64 {
            frame::realign(&mut self.code);
        }
        Ok(())
    }

    fn slow_thunk(&mut self, index: usize, path: &SlowPath) -> Result<(), BackendError> {
        let pointer = self.header_offset + path.rust as i32;
        let rust = slow_signature(self.host.c_call_conv(), path);
        let unit = self.unit();
        self.function(slow_signature(CallConv::PreserveAll, path), |b, params| {
            if let Some(unit) = unit {
                unit.park(b, params[0]);
            }
            if index != Slow::ExtensionPark as usize {
                let callee = b.import_signature(rust);
                let function = b.ins().load(types::I64, MemFlagsData::trusted(), params[0], pointer);
                b.ins().call_indirect(callee, function, params);
            }
            if let Some(unit) = unit
                && [Slow::ExtensionResume as usize, Slow::ExtensionStep as usize].contains(&index)
            {
                unit.restore(b, params[0]);
            }
            b.ins().return_(&[]);
        })?;
        if self.host.arch == Arch::X64 {
            frame::realign(&mut self.code);
        }
        Ok(())
    }

    /// The slow path to [`EnvHeader::vector`], by [`EnvHeader::float_call`].
    fn slow_vector(&mut self) -> Result<(), BackendError> {
        let field = |field: usize| self.header_offset + field as i32;
        let (function, call) = (field(offset_of!(EnvHeader, vector)), field(offset_of!(EnvHeader, float_call)));
        let mut rust = Signature::new(self.host.c_call_conv());
        rust.params.resize(6, AbiParam::new(types::I64));
        self.function(slow_signature(CallConv::PreserveAll, &SLOW_VECTOR), |b, params| {
            let callee = b.import_signature(rust);
            let [env, operation] = [params[0], params[1]];
            let function = b.ins().load(types::I64, MemFlagsData::trusted(), env, function);
            let call = b.ins().load(types::I64, MemFlagsData::trusted(), env, call);
            let zero = b.ins().iconst(types::I64, 0);
            b.ins().call_indirect(callee, call, &[env, operation, zero, zero, zero, function]);
            b.ins().return_(&[]);
        })?;
        frame::realign(&mut self.code);
        Ok(())
    }
}

/// Goes on at `found` where the TLB has the page, only watches keep stores from it, and an access of `size` bytes at `addr` is
/// none that they are for: a load, or a store beside code. At `miss` otherwise.
fn beside_code(
    b: &mut FunctionBuilder<'_>,
    env: Value,
    [entry, addr, size]: [Value; 3],
    header: i32,
    store: bool,
    [found, miss]: [Block; 2],
) {
    let flags = MemFlagsData::trusted();
    let read = b.ins().load(types::I64, flags, entry, probe::tag(false) as i32);
    let meta = b.ins().load(types::I64, flags, entry, probe::META as i32);
    let difference = b.ins().bxor(addr, read);
    let last = b.ins().iadd(addr, size);
    let last = b.ins().iadd_imm_s(last, -1);
    // Both ends are in the page.
    let last_difference = b.ins().bxor(last, read);
    let either = b.ins().bor(difference, last_difference);
    let here = b.ins().icmp_imm_u(IntCC::UnsignedLessThan, either, PAGE_SIZE as i64);
    let writable = b.ins().band_imm_s(meta, META_WRITABLE as i64);
    let writable = b.ins().icmp_imm_u(IntCC::NotEqual, writable, 0);
    let may = b.ins().band(here, writable);
    if !store {
        b.ins().brif(may, found, &[], miss, &[]);
        return;
    }
    let check = b.create_block();
    b.ins().brif(may, check, &[], miss, &[]);
    b.switch_to_block(check);
    let watches = b.ins().load(types::I64, flags, env, header + offset_of!(EnvHeader, watches) as i32);
    let page = b.ins().ushr_imm_u(meta, i64::from(PAGE_SIZE.trailing_zeros()));
    let offset = b.ins().imul_imm_s(page, WATCH_SIZE as i64);
    let watch = b.ins().iadd(watches, offset);
    // In this order: whoever marks code afterwards knows that stores may pass it.
    let mixed = b.ins().iadd_imm_s(watch, WATCH_MIXED as i64);
    let mixed = b.ins().atomic_load(types::I64, flags, mixed);
    let code = b.ins().iadd_imm_s(watch, WATCH_CODE as i64);
    let code = b.ins().atomic_load(types::I64, flags, code);
    let hits = [addr, last].map(|at| {
        let granule = b.ins().ushr_imm_u(at, i64::from(GRANULE_SHIFT));
        // Of 64 granules: the shift takes the page's number off.
        b.ins().ushr(code, granule)
    });
    let hits = b.ins().bor(hits[0], hits[1]);
    let hits = b.ins().band_imm_s(hits, 1);
    let free = b.ins().icmp_imm_u(IntCC::Equal, hits, 0);
    let mixed = b.ins().icmp_imm_u(IntCC::NotEqual, mixed, 0);
    let may = b.ins().band(free, mixed);
    b.ins().brif(may, found, &[], miss, &[]);
}

/// The address of the TLB entry of guest address `addr`, as compiled code finds it.
pub(crate) fn tlb_entry(
    b: &mut FunctionBuilder<'_>,
    flags: MemFlagsData,
    env: Value,
    addr: Value,
    header: i32,
) -> Value {
    let field = |offset: usize| header + offset as i32;
    let mask = b.ins().load(types::I64, flags, env, field(probe::MASK));
    let offset = b.ins().ushr_imm_u(addr, i64::from(probe::SHIFT));
    let offset = b.ins().band(offset, mask);
    let bank = b.ins().load(types::I64, flags, env, field(probe::BANK));
    b.ins().iadd(offset, bank)
}

/// Moves the state of the guest's extension between the host's unit and env.
#[derive(Clone, Copy)]
struct Unit {
    extension: &'static Extension,
    header_offset: i32,
    c: CallConv,
}

impl Unit {
    fn header(self, b: &mut FunctionBuilder<'_>, env: Value, ty: Type, field: usize) -> Value {
        b.ins().load(ty, MemFlagsData::trusted(), env, self.header_offset + field as i32)
    }

    /// Does `body` if the state is in the host's unit.
    fn if_live(self, b: &mut FunctionBuilder<'_>, env: Value, body: impl FnOnce(&mut FunctionBuilder<'_>)) {
        let live = self.header(b, env, types::I64, offset_of!(EnvHeader, extension_live));
        let (then, rest) = (b.create_block(), b.create_block());
        b.set_cold_block(then);
        b.ins().brif(live, then, &[], rest, &[]);
        b.switch_to_block(then);
        body(b);
        b.ins().jump(rest, &[]);
        b.switch_to_block(rest);
    }

    fn routine(self, b: &mut FunctionBuilder<'_>, env: Value, offset: i32) {
        let signature = b.import_signature(routine_signature());
        let first = self.header(b, env, types::I64, offset_of!(EnvHeader, extension_ops));
        let routine = b.ins().iadd_imm_s(first, i64::from(offset));
        b.ins().call_indirect(signature, routine, &[env, env]);
    }

    fn park(self, b: &mut FunctionBuilder<'_>, env: Value) {
        self.if_live(b, env, |b| {
            self.routine(b, env, self.extension.save);
            let path = &SLOW_PATHS[Slow::ExtensionPark as usize];
            let signature = b.import_signature(slow_signature(self.c, path));
            let function = self.header(b, env, types::I64, path.rust);
            b.ins().call_indirect(signature, function, &[env]);
        });
    }

    fn restore(self, b: &mut FunctionBuilder<'_>, env: Value) {
        self.if_live(b, env, |b| self.routine(b, env, self.extension.restore));
    }
}

/// The signature of an extension's routines: env, and an address or a value.
pub(crate) fn routine_signature() -> Signature {
    let mut signature = Signature::new(CallConv::PreserveAll);
    signature.params.extend([AbiParam::new(types::I64); 2]);
    signature
}
