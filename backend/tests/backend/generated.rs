//! Blocks from the generator that all crates share, on its guest: every access goes by a slow path, and what the
//! slow paths and helpers are given is compared, too.

use std::mem::offset_of;
use std::sync::atomic::AtomicU64;

use mimus_backend::{Arena, Compiler, HostAddr, HostIsa, Part, Request, Thunks, enter};
use mimus_ir::block::CallInfo;
use mimus_ir::op::RmwKind;
use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::testing::{ENV_SIZE, ToyGuest, block};
use mimus_ir::{Block, Exit, Guest, Inst, Interp, MemFlags, NONE, Op, Stop, Type, VecInfo, VecKind, verify};
use mimus_softmmu::{EnvHeader, ExitCode, JumpCacheEntry, Tlb, Verdict};

use crate::toy::Random;

/// Numbers of helpers used; the generator's have the effects that the low five bits say.
const HELPERS: u16 = 32;

/// The shared guest, without its changes of code: there the tiers differ by design.
struct Quiet(ToyGuest);

fn quiet<T: Default>(result: Result<T, Stop>) -> Result<T, Stop> {
    result.or_else(|stop| if stop == Stop::CodeChanged { Ok(T::default()) } else { Err(stop) })
}

impl Guest for Quiet {
    fn env(&mut self) -> &mut [u8] {
        self.0.env()
    }
    fn pc_base(&self) -> u64 {
        self.0.pc_base
    }
    fn load(&mut self, addr: u64, ty: Type, flags: MemFlags) -> Result<[u64; 2], Stop> {
        self.0.load(addr, ty, flags)
    }
    fn store(&mut self, addr: u64, ty: Type, value: [u64; 2], flags: MemFlags) -> Result<(), Stop> {
        quiet(self.0.store(addr, ty, value, flags))
    }
    fn rmw(&mut self, kind: RmwKind, addr: u64, ty: Type, operand: u64) -> Result<(u64, bool), Stop> {
        Ok((self.0.rmw(kind, addr, ty, operand)?.0, false))
    }
    fn cas(&mut self, addr: u64, ty: Type, expected: u64, new: u64) -> Result<(u64, bool), Stop> {
        Ok((self.0.cas(addr, ty, expected, new)?.0, false))
    }
    fn call(&mut self, helper: u16, args: [u64; 3], arg: u32) -> Result<u64, Stop> {
        quiet(self.0.call(helper, args, arg))
    }
    fn float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128 {
        self.0.float(info, operands)
    }
    fn trap(&mut self, code: u64) {
        self.0.trap(code);
    }
}

#[repr(C, align(64))]
struct Env {
    bytes: [u8; ENV_SIZE],
    header: EnvHeader,
    guest: *mut Quiet,
}

/// Runs `f` on the guest of compiled code and turns its failure into a verdict.
///
/// # Safety
///
/// `env` is an [`Env`] whose guest is valid, both used by no one else.
unsafe fn serve<T: Default>(env: *mut u8, f: impl FnOnce(&mut Quiet, &mut EnvHeader) -> Result<T, Stop>) -> T {
    // SAFETY: as the caller promises.
    let env = unsafe { &mut *env.cast::<Env>() };
    // SAFETY: as above.
    let guest = unsafe { &mut *env.guest };
    guest.0.env.copy_from_slice(&env.bytes);
    let result = f(guest, &mut env.header);
    env.bytes.copy_from_slice(&guest.0.env);
    result.unwrap_or_else(|_| {
        env.header.verdict = Verdict::Fault as u32;
        T::default()
    })
}

fn ty(size: u64) -> Type {
    Type::ALL[size.trailing_zeros() as usize]
}

unsafe extern "C" fn slow_load(env: *mut u8, addr: u64, info: u64) {
    // SAFETY: called by code entered with a valid env.
    unsafe {
        serve(env, |g, h| {
            h.slow_value = g.load(addr, ty(info & 0xff), MemFlags::from_bits_retain((info >> 8) as u8))?;
            Ok(())
        })
    }
}

unsafe extern "C" fn slow_store(env: *mut u8, addr: u64, value: u64, info: u64) {
    // SAFETY: as above.
    unsafe {
        serve(env, |g, h| {
            let ty = ty(info & 0xff);
            let value = if ty == Type::V128 { h.slow_value } else { [value, 0] };
            g.store(addr, ty, value, MemFlags::from_bits_retain((info >> 8) as u8))
        })
    }
}

unsafe extern "C" fn slow_rmw(env: *mut u8, addr: u64, operand: u64, info: u64) {
    // SAFETY: as above.
    unsafe {
        serve(env, |g, h| {
            let kind = RmwKind::from_code(info as u8 as u16).ok_or(Stop::Fault)?;
            h.slow_value[0] = g.rmw(kind, addr, ty(info >> 8), operand)?.0;
            Ok(())
        })
    }
}

unsafe extern "C" fn slow_cas(env: *mut u8, addr: u64, expected: u64, new: u64, size: u64) {
    // SAFETY: as above.
    unsafe {
        serve(env, |g, h| {
            h.slow_value[0] = g.cas(addr, ty(size), expected, new)?.0;
            Ok(())
        })
    }
}

/// What [`EnvHeader::vector`] points to: operations that the host has no instruction for.
///
/// # Safety
///
/// `env` has its header `header` bytes from its start, used by no one else.
pub unsafe fn vector(env: *mut u8, header: usize, operation: u64) {
    // SAFETY: as the caller promises.
    let header = unsafe { &mut *env.add(header).cast::<EnvHeader>() };
    let [a, b, c] = header.vector_args.map(|[low, high]| u128::from(low) | u128::from(high) << 64);
    let info = VecInfo::decode(operation).unwrap();
    let value = info.kind.row().eval.unwrap()(a, b, c, info.imm);
    header.vector_args[0] = [value as u64, (value >> 64) as u64];
}

unsafe extern "C" fn vector_here(env: *mut u8, operation: u64) {
    // SAFETY: called by code entered with an `Env`.
    unsafe { vector(env, offset_of!(Env, header), operation) }
}

unsafe extern "C" fn slow_trap(env: *mut u8, code: u64) {
    // SAFETY: as above.
    unsafe {
        serve(env, |g, _| {
            g.trap(code);
            Err::<(), _>(Stop::Fault)
        })
    }
}

unsafe extern "C" fn helper<const N: u16>(env: *mut u8, a: u64, b: u64, c: u64, arg: u32) -> u64 {
    // SAFETY: as above.
    unsafe { serve(env, |g, _| g.call(N, [a, b, c], arg)) }
}

macro_rules! helpers {
    ($($n:literal)*) => { [$(helper::<$n> as *const () as u64),*] };
}

fn run(block: &Block, seed: u64, compiler: &mut Compiler, arena: &mut Arena, thunks: &Thunks) -> ExitCode {
    let mut reference = Quiet(ToyGuest::new(seed));
    let outcome = Interp::default().run(block, &mut reference);

    let mut guest = Quiet(ToyGuest::new(seed));
    let helpers: [u64; HELPERS as usize] =
        helpers!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    let mut tlb = Tlb::new(1);
    let bank = tlb.select(0);
    let links = [const { AtomicU64::new(0) }; 2];
    links.iter().for_each(|l| l.store(thunks.exit_stub().0, std::sync::atomic::Ordering::Release));
    let jump_cache = [JumpCacheEntry::default()];
    let mut header = EnvHeader {
        sample: i32::MAX,
        tlb: bank.0,
        tlb_mask: bank.1,
        links: links.as_ptr() as u64,
        helpers: helpers.as_ptr() as u64,
        slow_rust: [
            slow_load as *const () as u64,
            slow_store as *const () as u64,
            slow_rmw as *const () as u64,
            slow_cas as *const () as u64,
            slow_trap as *const () as u64,
        ],
        vector: vector_here as *const () as u64,
        jump_cache: jump_cache.as_ptr() as u64,
        jump_context: 1,
        pc_base: guest.0.pc_base,
        ..EnvHeader::default()
    };
    let base = header.pc_base;
    thunks.install(&mut header);
    let bytes = guest.0.env.as_slice().try_into().unwrap();
    let mut env = Env { bytes, header, guest: &raw mut guest };

    let mut code = Vec::new();
    let request = Request {
        parts: &[Part { block, link_slot: 0 }],
        region: false,
        header_offset: offset_of!(Env, header) as i32,
        linear_offset: 0,
        counted: true,
        may_link: true,
        dump: None,
    };
    let info = compiler.compile(request, &mut code).unwrap();
    let slot = arena.alloc(code.len()).unwrap_or_else(|| {
        arena.rotate();
        arena.alloc(code.len()).unwrap()
    });
    let entry = HostAddr(arena.publish(slot, &code).0 + u64::from(info.entry_offset));
    // SAFETY: the header's pointers are to this function's locals; generated blocks stay within `bytes`; the arena
    // outlives the call.
    let left = unsafe { enter(thunks, (&raw mut env).cast(), entry) };

    let header = &env.header;
    match (outcome.exit, left) {
        (Exit::Jump { slot, pc }, ExitCode::Link) => {
            let target = info.link_targets[0][usize::from(slot)].map(|target| base.wrapping_add(target));
            assert_eq!((header.exit_slot, target), (u64::from(slot), Some(pc)));
        }
        (Exit::Jump { pc, .. } | Exit::Indirect { pc } | Exit::Main(pc), ExitCode::Indirect | ExitCode::Main) => {
            assert_eq!(header.exit_value, pc);
            assert_eq!(left == ExitCode::Main, matches!(outcome.exit, Exit::Main(_)));
        }
        (Exit::Fault { pc }, ExitCode::Stopped) => assert_eq!(base.wrapping_add(header.exit_value), pc),
        other => panic!("{other:x?} in {block}"),
    }
    assert_eq!(header.insns, u64::from(outcome.insns), "{block}");
    let env_bytes = env.bytes;
    assert_eq!(guest.0.log, reference.0.log, "{block}");
    assert_eq!(guest.0.mem, reference.0.mem, "{block}");
    assert_eq!(env_bytes.as_slice(), reference.0.env.as_slice(), "{block}");
    left
}

/// Replaces floating point, which compiled code does by the host's rules and the shared guest by none.
fn without_floats(block: &mut Block) {
    for inst in block.insts.iter_mut().filter(|i| matches!(i.op, Op::Float | Op::FloatTest)) {
        let op = if inst.ty == Type::V128 { Op::Vec } else { Op::Const };
        let imm = if op == Op::Vec { VecInfo { kind: VecKind::Ones, imm: 0 }.encode() } else { 0 };
        *inst = Inst { op, ty: inst.ty, a: NONE, b: NONE, c: NONE, imm };
    }
}

#[test]
fn generated_blocks_agree_with_the_interpreter() {
    let host = HostIsa::native().unwrap();
    let mut random = Random(0xfeed);
    let mut scratch = Scratch::default();
    let mut lefts = [0; 5];
    for chunk in 0..12u64 {
        // A fresh arena now and then, instead of evicting.
        let mut arena = Arena::new(16 << 20).unwrap();
        let thunks = Thunks::new(&host, offset_of!(Env, header) as i32).unwrap();
        let mut compiler = Compiler::new(host.clone());
        for _ in 0..100 {
            let len = random.below(900);
            let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            let mut block = block(&bytes);
            for inst in block.insts.iter_mut().filter(|i| i.op == Op::Call) {
                let info = CallInfo::decode(inst.imm);
                inst.imm = CallInfo { helper: info.helper % HELPERS, ..info }.encode();
            }
            without_floats(&mut block);
            verify(&block, ENV_SIZE).unwrap();
            for seed in 0..2 {
                lefts[run(&block, chunk + seed, &mut compiler, &mut arena, &thunks) as usize] += 1;
            }
            optimize(&mut block, &mut scratch);
            run(&block, chunk, &mut compiler, &mut arena, &thunks);
        }
    }
    let [link, indirect, main, stopped, requested] = lefts;
    assert!(link > 100 && indirect > 100 && main > 10 && stopped > 100 && requested == 0, "{lefts:?}");
}
