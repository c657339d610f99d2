//! A guest with 16 registers, four 128-bit ones and eight pages of memory, which can run a block compiled or
//! interpreted.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

use mimus_backend::arena::Rotation;
use mimus_backend::{Arena, CompiledInfo, Compiler, HostAddr, HostIsa, Part, QuickCompiler, Request, Thunks, enter};
use mimus_ir::block::CallInfo;
use mimus_ir::interp::Outcome;
use mimus_ir::op::RmwKind;
use mimus_ir::{
    Block, Builder, Effects, EnvSlot, Exit, FpEnv, FpFlags, Guest, Interp, MemFlags, Stop, Type, Value, VecInfo,
    VecKind,
};
use mimus_softmmu::header::jump_cache_offset;
use mimus_softmmu::{EnvHeader, ExitCode, JumpCacheEntry, Tlb, Verdict};

/// Guest address of the first page.
pub const RAM: u64 = 0x10000;
pub const PAGE: u64 = 4096;
pub const LINKS: usize = 64;
const JUMP_CACHE: usize = 64;

/// What a page allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    ReadWrite,
    ReadOnly,
    /// Faults.
    None,
    /// Readable and writable, but never in the TLB.
    Slow,
    /// Stores must be made by the interpreter.
    Watched,
}

pub const PAGES: [Page; 8] = [
    Page::ReadWrite,
    Page::ReadWrite,
    Page::ReadOnly,
    Page::None,
    Page::Slow,
    Page::ReadWrite,
    Page::Watched,
    Page::ReadWrite,
];

pub const HEADER: usize = offset_of!(Env, header);

#[repr(C, align(64))]
pub struct Env {
    pub regs: [u64; 16],
    pub wide: [[u64; 2]; 4],
    pub header: EnvHeader,
    /// The guest's floating-point environment.
    pub fp_env: FpEnv,
    machine: *mut Machine,
}

/// Everything of the guest that is not in its env.
pub struct Machine {
    pub ram: Vec<u64>,
    pub tlb: Tlb,
    /// Slow paths taken, by kind.
    pub slow: [u32; 5],
    /// Last trap code or faulting address.
    pub pending: u64,
    pub helper_calls: u32,
    links: Box<[AtomicU64; LINKS]>,
    /// Executions left of quick blocks.
    pub counts: Box<[u32; LINKS / 2]>,
    jump_cache: Box<[JumpCacheEntry; JUMP_CACHE]>,
}

impl Machine {
    fn new() -> Machine {
        let ram = (0..PAGES.len() as u64 * PAGE / 8).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        Machine {
            ram,
            tlb: Tlb::new(1),
            slow: [0; 5],
            pending: 0,
            helper_calls: 0,
            links: Box::new([const { AtomicU64::new(0) }; LINKS]),
            counts: Box::new([1 << 30; LINKS / 2]),
            jump_cache: Box::new([JumpCacheEntry::default(); JUMP_CACHE]),
        }
    }

    fn page(addr: u64) -> Page {
        let index = addr.wrapping_sub(RAM) / PAGE;
        usize::try_from(index).ok().and_then(|i| PAGES.get(i)).copied().unwrap_or(Page::None)
    }

    fn check(&mut self, addr: u64, size: u64, write: bool) -> Result<(), Verdict> {
        for byte in [addr, addr.wrapping_add(size - 1)] {
            match (Machine::page(byte), write) {
                (Page::None, _) | (Page::ReadOnly, true) => {
                    self.pending = byte;
                    return Err(Verdict::Fault);
                }
                (Page::Watched, true) => return Err(Verdict::Interpret),
                _ => {}
            }
        }
        Ok(())
    }

    /// Fills the TLB for a page accessed by a slow path.
    fn fill(&mut self, addr: u64) {
        let page = addr & !(PAGE - 1);
        let (read, write) = match Machine::page(page) {
            Page::ReadWrite => (true, true),
            Page::ReadOnly | Page::Watched => (true, false),
            Page::None | Page::Slow => return,
        };
        let addend = (self.ram.as_ptr() as u64).wrapping_sub(RAM);
        self.tlb.fill(0, page, read, write, addend, 0);
    }

    fn byte(&mut self, addr: u64) -> &mut u8 {
        let offset = (addr - RAM) as usize;
        let bytes: &mut [u8] = {
            let len = self.ram.len() * 8;
            // SAFETY: the vector's own memory, as bytes; no compiled code runs while the borrow lives.
            unsafe { std::slice::from_raw_parts_mut(self.ram.as_mut_ptr().cast(), len) }
        };
        &mut bytes[offset]
    }

    fn read(&mut self, addr: u64, size: u64) -> [u64; 2] {
        let mut value = [0u64; 2];
        for i in (0..size).rev() {
            value[(i / 8) as usize] |= u64::from(*self.byte(addr + i)) << (8 * (i % 8));
        }
        value
    }

    fn write(&mut self, addr: u64, size: u64, value: [u64; 2]) {
        for i in 0..size {
            *self.byte(addr + i) = (value[(i / 8) as usize] >> (8 * (i % 8))) as u8;
        }
    }
}

/// What both ways of calling a helper do: helper 0 mixes its arguments, 1 also changes register 15, 2 faults if
/// its first argument is odd, 3 flushes the TLB
/// if it is a multiple of 4, 4 gives the second if the first is 0 and else looks at register 15.
fn helper(machine: &mut Machine, reg15: &mut u64, number: u16, args: [u64; 3], arg: u32) -> Result<u64, Verdict> {
    if number == 4 && args[0] == 0 {
        return Ok(args[1]);
    }
    machine.helper_calls += 1;
    let mixed = args[0].wrapping_mul(3) ^ args[1].rotate_left(7) ^ args[2].rotate_left(23) ^ u64::from(arg) << 16;
    match number {
        1 => *reg15 = mixed,
        2 if args[0] & 1 != 0 => {
            machine.pending = args[0];
            return Err(Verdict::Fault);
        }
        3 if args[0] & 3 == 0 => machine.tlb.flush(false),
        4 => return Ok(mixed ^ *reg15),
        _ => {}
    }
    Ok(mixed)
}

unsafe fn parts<'a>(env: *mut u8) -> (&'a mut Env, &'a mut Machine) {
    // SAFETY: compiled code passes the env it was entered with, a `Toy`'s, and nothing else uses either meanwhile.
    unsafe {
        let env = &mut *env.cast::<Env>();
        let machine = &mut *env.machine;
        (env, machine)
    }
}

fn stack_is_aligned() {
    let local = std::hint::black_box(0u128);
    // Hidden from the optimizer, which takes the alignment for granted.
    let address = std::hint::black_box(&raw const local) as usize;
    assert_eq!(std::hint::black_box(address) % 16, 0, "stack not aligned");
}

unsafe extern "C" fn slow_load(env: *mut u8, addr: u64, info: u64) {
    stack_is_aligned();
    // SAFETY: see `parts`.
    let (env, machine) = unsafe { parts(env) };
    machine.slow[0] += 1;
    let (size, flags) = (info & 0xff, MemFlags::from_bits_retain((info >> 8) as u8));
    match machine.check(addr, size, flags.contains(MemFlags::FOR_WRITE)) {
        Ok(()) => {
            machine.fill(addr);
            env.header.slow_value = machine.read(addr, size);
        }
        Err(verdict) => env.header.verdict = verdict as u32,
    }
}

unsafe extern "C" fn slow_store(env: *mut u8, addr: u64, value: u64, info: u64) {
    stack_is_aligned();
    // SAFETY: see `parts`.
    let (env, machine) = unsafe { parts(env) };
    machine.slow[1] += 1;
    let size = info & 0xff;
    if size < 8 {
        assert_eq!(value >> (8 * size), 0, "zero-extended");
    }
    let value = if size == 16 { env.header.slow_value } else { [value, 0] };
    match machine.check(addr, size, true) {
        Ok(()) => {
            machine.fill(addr);
            machine.write(addr, size, value);
        }
        Err(verdict) => env.header.verdict = verdict as u32,
    }
}

unsafe extern "C" fn slow_rmw(env: *mut u8, addr: u64, operand: u64, info: u64) {
    // SAFETY: see `parts`.
    let (env, machine) = unsafe { parts(env) };
    machine.slow[2] += 1;
    let (kind, size) = (RmwKind::from_code(info as u8 as u16).unwrap(), info >> 8);
    match machine.check(addr, size, true) {
        Ok(()) => {
            machine.fill(addr);
            env.header.slow_value = machine.read(addr, size);
            let old = env.header.slow_value[0];
            machine.write(addr, size, [kind.apply(old, operand), 0]);
        }
        Err(verdict) => env.header.verdict = verdict as u32,
    }
}

unsafe extern "C" fn slow_cas(env: *mut u8, addr: u64, expected: u64, new: u64, size: u64) {
    // SAFETY: see `parts`.
    let (env, machine) = unsafe { parts(env) };
    machine.slow[3] += 1;
    match machine.check(addr, size, true) {
        Ok(()) => {
            machine.fill(addr);
            env.header.slow_value = machine.read(addr, size);
            if env.header.slow_value[0] == expected {
                machine.write(addr, size, [new, 0]);
            }
        }
        Err(verdict) => env.header.verdict = verdict as u32,
    }
}

unsafe extern "C" fn slow_trap(env: *mut u8, code: u64) {
    stack_is_aligned();
    // SAFETY: see `parts`.
    let (env, machine) = unsafe { parts(env) };
    machine.slow[4] += 1;
    machine.pending = code;
    env.header.verdict = Verdict::Fault as u32;
}

/// The only floating point that comes here from an x86-64 host is an unordered signalling comparison.
unsafe extern "C" fn vector(env: *mut u8, operation: u64) {
    stack_is_aligned();
    let kind = VecInfo::decode(operation).unwrap().kind;
    if kind.row().eval.is_some() {
        // SAFETY: see `parts`.
        return unsafe { crate::generated::vector(env, HEADER, operation) };
    }
    assert!(matches!(kind, VecKind::OrderF32 | VecKind::OrderF64), "{kind:?}");
    // SAFETY: as above.
    let (env, _) = unsafe { parts(env) };
    env.fp_env = env.fp_env.raise(FpFlags::INVALID);
}

macro_rules! helpers {
    ($($name:ident $number:literal)*) => {
        $(unsafe extern "C" fn $name(env: *mut u8, a: u64, b: u64, c: u64, arg: u32) -> u64 {
            stack_is_aligned();
            // SAFETY: see `parts`.
            let (env, machine) = unsafe { parts(env) };
            match helper(machine, &mut env.regs[15], $number, [a, b, c], arg) {
                Ok(value) => value,
                Err(verdict) => {
                    env.header.verdict = verdict as u32;
                    0xdead_beef_dead_beef
                }
            }
        })*
        fn helper_table() -> Vec<u64> {
            vec![$($name as *const () as u64),*]
        }
    };
}

helpers! { helper0 0 helper1 1 helper2 2 helper3 3 helper4 4 }

/// Registers, memory and what is pending: all that a block can change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub regs: [u64; 16],
    pub wide: [[u64; 2]; 4],
    pub pending: u64,
    pub ram: Vec<u64>,
}

/// The interpreter's side.
pub struct Reference {
    pub bytes: Vec<u8>,
    pub machine: Machine,
    pub pc_base: u64,
}

impl Reference {
    pub fn new(state: &State) -> Reference {
        let mut bytes = Vec::new();
        bytes.extend(state.regs.iter().flat_map(|r| r.to_ne_bytes()));
        bytes.extend(state.wide.iter().flat_map(|w| (u128::from(w[0]) | u128::from(w[1]) << 64).to_ne_bytes()));
        let mut machine = Machine::new();
        machine.ram.clone_from(&state.ram);
        Reference { bytes, machine, pc_base: 0 }
    }

    pub fn run(&mut self, block: &Block) -> Outcome {
        Interp::default().run(block, self)
    }

    pub fn state(&self) -> State {
        let word = |i: usize| u64::from_ne_bytes(self.bytes[i..i + 8].try_into().unwrap());
        let wide = |i: usize| {
            let v = u128::from_ne_bytes(self.bytes[i..i + 16].try_into().unwrap());
            [v as u64, (v >> 64) as u64]
        };
        State {
            regs: std::array::from_fn(|i| word(8 * i)),
            wide: std::array::from_fn(|i| wide(128 + 16 * i)),
            pending: self.machine.pending,
            ram: self.machine.ram.clone(),
        }
    }
}

fn stop(verdict: Verdict) -> Stop {
    if verdict == Verdict::Interpret { Stop::CodeChanged } else { Stop::Fault }
}

impl Guest for Reference {
    fn env(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn pc_base(&self) -> u64 {
        self.pc_base
    }

    fn load(&mut self, addr: u64, ty: Type, flags: MemFlags) -> Result<[u64; 2], Stop> {
        let size = u64::from(ty.bytes());
        self.machine.check(addr, size, flags.contains(MemFlags::FOR_WRITE)).map_err(stop)?;
        Ok(self.machine.read(addr, size))
    }

    fn store(&mut self, addr: u64, ty: Type, value: [u64; 2], _: MemFlags) -> Result<(), Stop> {
        let size = u64::from(ty.bytes());
        self.machine.check(addr, size, true).map_err(stop)?;
        self.machine.write(addr, size, value);
        Ok(())
    }

    fn rmw(&mut self, kind: RmwKind, addr: u64, ty: Type, operand: u64) -> Result<(u64, bool), Stop> {
        let size = u64::from(ty.bytes());
        self.machine.check(addr, size, true).map_err(stop)?;
        let old = self.machine.read(addr, size)[0];
        self.machine.write(addr, size, [kind.apply(old, operand), 0]);
        Ok((old, false))
    }

    fn cas(&mut self, addr: u64, ty: Type, expected: u64, new: u64) -> Result<(u64, bool), Stop> {
        let size = u64::from(ty.bytes());
        self.machine.check(addr, size, true).map_err(stop)?;
        let old = self.machine.read(addr, size)[0];
        if old == expected & ty.mask() {
            self.machine.write(addr, size, [new, 0]);
        }
        Ok((old, false))
    }

    fn call(&mut self, number: u16, args: [u64; 3], arg: u32) -> Result<u64, Stop> {
        let mut reg15 = self.state().regs[15];
        let result = helper(&mut self.machine, &mut reg15, number, args, arg);
        self.bytes[120..128].copy_from_slice(&reg15.to_ne_bytes());
        result.map_err(stop)
    }

    fn float(&mut self, _: VecInfo, _: [u128; 3]) -> u128 {
        unreachable!("no test compares floating point with this guest")
    }

    fn trap(&mut self, code: u64) {
        self.machine.pending = code;
    }
}

/// How to compile a block for the toy.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub counted: bool,
    pub may_link: bool,
    pub linear_offset: u64,
    pub link_slot: u32,
    pub region: bool,
}

/// A block with the first two link slots.
pub fn alone(block: &Block) -> [Part<'_>; 1] {
    [Part { block, link_slot: 0 }]
}

impl Default for How {
    fn default() -> How {
        How { counted: false, may_link: true, linear_offset: 0, link_slot: 0, region: false }
    }
}

/// A compiler, an arena and an env.
pub struct Toy {
    pub compiler: Compiler,
    pub quick: Option<QuickCompiler>,
    /// Blocks that the quick tier compiled, and those that it refused.
    pub quick_blocks: [u32; 2],
    pub arena: Arena,
    pub thunks: Thunks,
    pub env: Box<Env>,
    pub machine: Box<Machine>,
    pub code: Vec<u8>,
    _helpers: Vec<u64>,
}

impl Toy {
    pub fn new() -> Toy {
        let host = HostIsa::native().unwrap();
        let arena = Arena::new(8 << 20).unwrap();
        let thunks = Thunks::new(&host, HEADER as i32).unwrap();
        let mut machine = Box::new(Machine::new());
        for link in machine.links.iter() {
            link.store(thunks.exit_stub().0, Ordering::Release);
        }
        let helpers = helper_table();
        let bank = machine.tlb.select(0);
        let mut header = EnvHeader {
            sample: i32::MAX,
            tlb: bank.0,
            tlb_mask: bank.1,
            links: machine.links.as_ptr() as u64,
            helpers: helpers.as_ptr() as u64,
            counts: machine.counts.as_ptr() as u64,
            slow_rust: [
                slow_load as *const () as u64,
                slow_store as *const () as u64,
                slow_rmw as *const () as u64,
                slow_cas as *const () as u64,
                slow_trap as *const () as u64,
            ],
            vector: vector as *const () as u64,
            jump_cache: machine.jump_cache.as_ptr() as u64,
            jump_cache_mask: ((JUMP_CACHE - 1) * size_of::<JumpCacheEntry>()) as u64,
            jump_context: 1,
            fp_env_offset: offset_of!(Env, fp_env) as u32,
            ..EnvHeader::default()
        };
        thunks.install(&mut header);
        let env = Box::new(Env {
            regs: [0; 16],
            wide: [[0; 2]; 4],
            header,
            fp_env: FpEnv::RESET,
            machine: &raw mut *machine,
        });
        let quick = QuickCompiler::new(&host);
        let compiler = Compiler::new(host);
        Toy { compiler, quick, quick_blocks: [0; 2], arena, thunks, env, machine, code: Vec::new(), _helpers: helpers }
    }

    pub fn set_link(&self, slot: u32, entry: HostAddr) {
        self.machine.links[slot as usize].store(entry.0, Ordering::Release);
    }

    pub fn link_address(&self, slot: usize) -> usize {
        &raw const self.machine.links[slot] as usize
    }

    pub fn set_jump(&mut self, pc: u64, context: u64, entry: HostAddr) {
        let offset = jump_cache_offset(pc, self.env.header.jump_cache_mask) as usize;
        let index = offset / size_of::<JumpCacheEntry>();
        self.machine.jump_cache[index] = JumpCacheEntry { pc, context, entry: entry.0, pc_base: 0 };
    }

    pub fn request<'a>(parts: &'a [Part<'a>], how: How) -> Request<'a> {
        Request {
            parts,
            region: how.region,
            header_offset: HEADER as i32,
            linear_offset: how.linear_offset,
            counted: how.counted,
            may_link: how.may_link,
            dump: None,
        }
    }

    pub fn compile(&mut self, block: &Block, how: How) -> (HostAddr, CompiledInfo) {
        self.compile_parts(&[Part { block, link_slot: how.link_slot }], how)
    }

    pub fn compile_parts(&mut self, parts: &[Part<'_>], how: How) -> (HostAddr, CompiledInfo) {
        let info = self.compiler.compile(Toy::request(parts, how), &mut self.code).unwrap();
        (self.publish(info.entry_offset), info)
    }

    /// Compiles a block by the quick tier, if it does it.
    pub fn compile_quick(&mut self, block: &Block, how: How) -> Option<(HostAddr, CompiledInfo)> {
        let parts = [Part { block, link_slot: how.link_slot }];
        let info = self.quick.as_mut()?.compile(&Toy::request(&parts, how));
        self.quick_blocks[usize::from(info.is_none())] += 1;
        self.code.clear();
        self.code.extend_from_slice(self.quick.as_ref()?.code());
        let info = info?;
        Some((self.publish(info.entry_offset), info))
    }

    /// Publishes `code`; where it is to be entered.
    fn publish(&mut self, entry_offset: u32) -> HostAddr {
        let slot = self.arena.alloc(self.code.len()).unwrap_or_else(|| {
            if let Rotation::Evict(generation) = self.arena.rotate() {
                // SAFETY: a toy runs code on this thread only, which is here; tests that keep links or cached jumps
                // compile a few blocks, not the megabytes that come round again.
                unsafe { self.arena.free(generation) };
            }
            self.arena.alloc(self.code.len()).unwrap()
        });
        let start = self.arena.publish(slot, &self.code);
        HostAddr(start.0 + u64::from(entry_offset))
    }

    /// Runs with a clean header.
    pub fn enter(&mut self, entry: HostAddr) -> ExitCode {
        self.env.header.verdict = 0;
        self.env.header.exit_slot = 0x5555;
        self.env.header.exit_value = 0x5555;
        self.env.machine = &raw mut *self.machine;
        // SAFETY: the arena, the tables and the env are this toy's; every pointer in the header was set in `new` to
        // memory that lives in its boxes; blocks address the env only within `regs` and `wide`.
        unsafe { enter(&self.thunks, (&raw mut *self.env).cast(), entry) }
    }

    pub fn set_state(&mut self, state: &State) {
        self.env.regs = state.regs;
        self.env.wide = state.wide;
        self.machine.pending = state.pending;
        self.machine.ram.copy_from_slice(&state.ram);
    }

    pub fn state(&self) -> State {
        State { regs: self.env.regs, wide: self.env.wide, pending: self.machine.pending, ram: self.machine.ram.clone() }
    }

    /// A state with registers made from `seed`.
    pub fn fresh(seed: u64) -> State {
        let mut random = Random(seed);
        State {
            regs: std::array::from_fn(|_| random.operand()),
            wide: std::array::from_fn(|_| [random.next(), random.next()]),
            pending: 0,
            ram: Machine::new().ram,
        }
    }

    /// Runs a block every way from `state` and asserts that nothing differs; returns how compiled code left.
    pub fn same(&mut self, block: &Block, how: How, state: &State) -> ExitCode {
        if let Some((entry, info)) = self.compile_quick(block, how) {
            self.same_again(block, how, state, entry, &info);
        }
        let (entry, info) = self.compile(block, how);
        self.same_again(block, how, state, entry, &info)
    }

    /// As [`Toy::same`], for a block compiled before.
    pub fn same_again(
        &mut self,
        block: &Block,
        how: How,
        state: &State,
        entry: HostAddr,
        info: &CompiledInfo,
    ) -> ExitCode {
        let mut reference = Reference::new(state);
        reference.machine.pending = state.pending;
        reference.pc_base = self.env.header.pc_base;
        let outcome = reference.run(block);
        self.set_state(state);
        self.env.header.insns = 0;
        let code = self.enter(entry);
        let header = &self.env.header;
        let value = header.exit_value;
        let known = |pc: u64| pc.wrapping_sub(header.pc_base);
        match (outcome.exit, code) {
            (Exit::Jump { slot, pc }, ExitCode::Link) => {
                assert_eq!(header.exit_slot, u64::from(how.link_slot) + u64::from(slot));
                assert_eq!(info.link_targets[0][usize::from(slot)], Some(known(pc)));
            }
            (Exit::Jump { pc, .. } | Exit::Indirect { pc }, ExitCode::Indirect) => assert_eq!(value, pc),
            (Exit::Main(reason), ExitCode::Main) => assert_eq!(value, reason),
            (Exit::Fault { pc }, ExitCode::Stopped) => {
                assert_eq!(value, known(pc));
                assert_eq!(header.verdict, Verdict::Fault as u32);
            }
            other => panic!("{other:x?} in {block:#x?}"),
        }
        if how.counted {
            assert_eq!(header.insns, u64::from(outcome.insns));
        }
        let (ours, theirs) = (self.state(), reference.state());
        if ours != theirs {
            let ram = ours.ram.iter().zip(&theirs.ram).position(|(a, b)| a != b);
            panic!(
                "{block:x?}\nbefore {:x?}\ncompiled {:x?} {:x?} {:x}\ninterpreted {:x?} {:x?} {:x}\nmemory at {ram:x?}",
                state.regs, ours.regs, ours.wide, ours.pending, theirs.regs, theirs.wide, theirs.pending
            );
        }
        assert_eq!(self.machine.helper_calls, reference.machine.helper_calls);
        self.machine.helper_calls = 0;
        code
    }
}

pub fn reg(n: u16, ty: Type) -> EnvSlot {
    EnvSlot { offset: 8 * n, ty }
}

pub fn wide(n: u16) -> EnvSlot {
    EnvSlot { offset: 128 + 16 * n, ty: Type::V128 }
}

/// A block at `pc` of one instruction that leaves by `Exit`.
pub fn one(pc: u64, body: impl FnOnce(&mut Builder)) -> Block {
    let mut b = Builder::new(pc);
    b.insn(pc, 4);
    body(&mut b);
    b.exit(7);
    b.finish(pc + 4)
}

pub fn call(b: &mut Builder, ty: Type, helper: u16, faults: bool, args: [Value; 3], arg: u32) -> Value {
    let effects = if faults { Effects::FAULT.union(Effects::WRITE_ENV) } else { Effects::WRITE_ENV };
    b.call(ty, CallInfo { helper, effects, arg }, args)
}

/// A call of helper 4, which need not be made where the first argument is 0.
pub fn conditional_call(b: &mut Builder, ty: Type, args: [Value; 3], arg: u32) -> Value {
    let effects = Effects::READ_ENV.union(Effects::LEAF).union(Effects::CONDITIONAL);
    b.call(ty, CallInfo { helper: 4, effects, arg }, args)
}

/// xorshift64*, with a taste for edges.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 8) % n
    }

    pub fn operand(&mut self) -> u64 {
        match self.below(4) {
            0 => EDGES[self.below(EDGES.len() as u64) as usize],
            1 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }
}

pub const EDGES: [u64; 18] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ff80,
    u64::MAX,
];

pub const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
