//! What compiled code and the runtime share beside a guest's registers.
//!
//! A guest's env begins with its registers, so that the hottest fields are reached by 8-bit displacements;
//! an [`EnvHeader`] follows at an offset the backend is told. Compiled code reaches everything through the env
//! pointer and these fields: it contains no absolute address.

use std::sync::atomic::AtomicU32;

/// Fields of env that compiled code reads and writes whatever the guest is.
///
/// Pointers are held as `u64` and are valid for as long as the vCPU that owns the env exists; the runtime
/// sets them before it enters compiled code.
#[repr(C)]
#[derive(Debug, Default)]
pub struct EnvHeader {
    /// Not 0: leave to the dispatcher at the next back edge or indirect exit. Any thread may set it.
    pub exit_request: AtomicU32,
    /// A [`Verdict`] of the last slow path or helper; not 0: leave the block at the current instruction.
    pub verdict: u32,
    /// First [`crate::TlbEntry`] of the current bank.
    pub tlb: u64,
    /// `(entries - 1) * size_of::<TlbEntry>()`: mask for a byte offset into the bank.
    pub tlb_mask: u64,
    /// Result of a slow load, `[low, high]`; operand of a slow 128-bit store.
    pub slow_value: [u64; 2],
    /// Table of link slots: `u64` each, the host address of an entry point or of the exit stub.
    pub links: u64,
    /// Table of the guest's helpers, `extern "C" fn(env, a, b, c, arg: u32) -> u64`.
    pub helpers: u64,
    /// `PreserveAll fn(env, addr, flags_and_size)`: does a load, result in `slow_value`.
    pub slow_load: u64,
    /// `PreserveAll fn(env, addr, value, flags_and_size)`: does a store; 128-bit values are in `slow_value`.
    pub slow_store: u64,
    /// `PreserveAll fn(env, addr, operand, kind_and_size)`: old value in `slow_value`.
    pub slow_rmw: u64,
    /// `PreserveAll fn(env, addr, expected, new, size)`: old value in `slow_value`.
    pub slow_cas: u64,
    /// `PreserveAll fn(env, code)`: makes a guest trap pending.
    pub slow_trap: u64,
    /// As `slow_load`, for an access whose page was not looked for before: looks in the TLB first.
    pub probe_load: u64,
    /// As `slow_store`, likewise; it also makes stores beside translated code.
    pub probe_store: u64,
    /// The table of watches of the guest's RAM: [`crate::Ram::watches`].
    pub watches: u64,
    /// The first five as plain `extern "C"` functions, which the `PreserveAll` thunks call.
    pub slow_rust: [u64; 5],
    /// First [`JumpCacheEntry`] of the jump cache in use.
    pub jump_cache: u64,
    /// `(entries - 1) * size_of::<JumpCacheEntry>()`.
    pub jump_cache_mask: u64,
    /// Number of the present translation context: mode bits and what decides how addresses are translated. Never 0;
    /// [`NO_CONTEXT`] when no entry may be followed.
    pub jump_context: u64,
    /// On leaving with [`ExitCode::Link`]: the link slot taken.
    pub exit_slot: u64,
    /// On leaving otherwise: the guest PC to go on at, as [`ExitCode`] says, or the reason of [`ExitCode::Main`].
    pub exit_value: u64,
    /// What is added to the guest PCs in the block that runs: its page, if the block is relative to that, or 0. Set by whoever
    /// enters a block of another page: the dispatcher, and indirect jumps.
    pub pc_base: u64,
    /// Counts down the back edges and indirect exits of blocks that are in no region: below 0 they leave to the dispatcher, so
    /// that it sees where the guest often is.
    pub sample: i32,
    /// Unused.
    pub pad: u32,
    /// Guest instructions run by compiled code in counted mode.
    pub insns: u64,
    /// Where in env the guest's floating-point environment is (4 bytes, as the IR has it). Some hosts have it in a register of their
    /// own while compiled code runs, with all exceptions masked. 0: the guest has none.
    pub fp_env_offset: u32,
    /// Not 0: compiled code has done floating-point operations since it was entered, so that the host's register has
    /// flags that the environment in env may lack.
    pub floats: u32,
    /// Scratch for loads and stores of the host's register.
    pub live_fp_env: u32,
    /// First of the code stubs of vector operations that the code generator has no form for.
    pub vector_stubs: u64,
    /// `PreserveAll fn(env, operation)`: as [`EnvHeader::vector`], for an operation on the guest's floating-point environment.
    pub slow_vector: u64,
    /// `extern "C" fn(env, a, b, c, arg, function)`: calls a function that works on that environment.
    pub float_call: u64,
    /// Operands of [`EnvHeader::vector`], `[low, high]` each; its result replaces the first.
    pub vector_args: [[u64; 2]; 3],
    /// `extern "C" fn(env, operation)`: does an operation of the vector table on `vector_args`, for hosts that have no
    /// instruction for it.
    pub vector: u64,
    /// First [`JumpCacheEntry`] of jump cache 0; the others follow, each of `jump_cache_mask` and one more entry. Compiled code
    /// does not read it.
    pub jump_caches: u64,
    /// Not 0 while the state of the guest's extension is in the host's unit, and env's copy of it out of date: then
    /// `extension_ops`. It is so only in compiled code and in helpers that are integer computing alone; all other code finds 0,
    /// and the host's unit as Rust's ABI wants it.
    pub extension_live: u64,
    /// First of the routines that execute one operation of the extension each; 0 where the host has no such unit.
    pub extension_ops: u64,
    /// `PreserveAll fn(env)`: puts the extension's state back into env.
    pub extension_park: u64,
    /// `PreserveAll fn(env)`: lets the host's unit have the extension's state if it can.
    pub extension_resume: u64,
    /// `PreserveAll fn(env, a, c, helper << 32 | arg)`: calls the helper of an operation, result in `slow_value`, then does what
    /// `extension_resume` does.
    pub extension_step: u64,
    /// The same three as plain `extern "C"` functions: the first takes `extension_image` into env, the others may fill it and
    /// set `extension_live`.
    pub extension_rust: [u64; 3],
    /// Table of execution counts of the quick tier's blocks, by half their first link slot's number: `u32` each, counted down;
    /// below 0 the block leaves with [`ExitCode::Hot`].
    pub counts: u64,
    /// Table of the guest PCs that link slots lead to, `u64` each.
    pub link_targets: u64,
    /// Where the quick tier's blocks leave to a guest PC (in RSI) that they have no link slot for.
    pub indirect: u64,
    /// What enters blocks where there is a quick tier, which preserves no registers.
    pub shim: u64,
    /// `slow_load`, `slow_rmw`, `slow_cas`, `probe_load` and `probe_store` as the quick tier calls them.
    pub quick_slow: [u64; 5],
    /// Where a block of the quick tier keeps values that it has no registers for; of no meaning between blocks.
    pub spills: [[u64; 2]; SPILLS],
    /// Pages that a region keeps for as long as it runs.
    pub pages: [KeptPage; KEPT_PAGES],
    /// The extension's state on its way between env and the host's unit, in the host's form.
    pub extension_image: ExtensionImage,
}

/// Entries of [`EnvHeader::spills`].
pub const SPILLS: usize = 32;

/// Entries of [`EnvHeader::pages`].
pub const KEPT_PAGES: usize = 12;

/// A page of the TLB as compiled code keeps it: an access whose `addr ^ tag` is below `limit` is to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptPage {
    /// Page address.
    pub tag: u64,
    /// 4097 minus the size in bytes of the accesses that it is for; 0 if there is no page.
    pub limit: u64,
    /// Host address minus guest virtual address.
    pub addend: u64,
}

/// An [`EnvHeader::jump_context`] that no entry has.
pub const NO_CONTEXT: u64 = u64::MAX;

impl EnvHeader {
    /// Makes jump cache `number` the one in use.
    pub fn use_jump_cache(&mut self, number: usize) {
        let bytes = self.jump_cache_mask.wrapping_add(size_of::<JumpCacheEntry>() as u64);
        self.jump_cache = self.jump_caches.wrapping_add(bytes.wrapping_mul(number as u64));
    }
}

/// Bytes of [`EnvHeader::extension_image`].
pub const EXTENSION_IMAGE: usize = 128;

/// What [`EnvHeader::extension_image`] holds.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct ExtensionImage(pub [u8; EXTENSION_IMAGE]);

impl Default for ExtensionImage {
    fn default() -> Self {
        ExtensionImage([0; EXTENSION_IMAGE])
    }
}

/// Why a slow path or helper did not finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Verdict {
    /// It finished.
    Done = 0,
    /// A guest fault is pending in the guest's state.
    Fault = 1,
    /// The access must be made by the interpreter: it changes translated code.
    Interpret = 2,
    /// The helper did part of its work and wants the instruction to be started again (an interrupt is due).
    Again = 3,
}

/// What compiled code returns to the dispatcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ExitCode {
    /// By the unlinked slot `exit_slot`, in the page of the block.
    Link = 0,
    /// To guest PC `exit_value`, which the jump cache does not have.
    Indirect = 1,
    /// By an explicit exit with reason `exit_value`; the guest PC is in env.
    Main = 2,
    /// A verdict is not 0; the instruction at guest PC `pc_base + exit_value` has had no side effect.
    Stopped = 3,
    /// `exit_request` was seen on the way to guest PC `pc_base + exit_value`, or [`EnvHeader::sample`] below 0.
    Requested = 4,
    /// A block of the quick tier, at guest PC `pc_base + exit_value`, was executed as often as it may be; it has not been this time.
    Hot = 5,
}

impl ExitCode {
    /// From the number that compiled code returned.
    pub fn from_code(code: u64) -> Option<ExitCode> {
        use ExitCode::*;
        [Link, Indirect, Main, Stopped, Requested, Hot].get(usize::try_from(code).ok()?).copied()
    }
}

/// Maps a guest PC to an entry point within a translation context. Owned by one vCPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
pub struct JumpCacheEntry {
    /// Guest PC.
    pub pc: u64,
    /// [`EnvHeader::jump_context`] it was made in; 0 in an empty entry.
    pub context: u64,
    /// Host address of the entry point.
    pub entry: u64,
    /// The block's [`EnvHeader::pc_base`].
    pub pc_base: u64,
}

const _: () = assert!(size_of::<JumpCacheEntry>() == 32);

/// Byte offset of a guest PC's entry in the jump cache, as compiled code computes it too.
pub const fn jump_cache_offset(pc: u64, mask: u64) -> u64 {
    ((pc ^ (pc >> 10)) << 5) & mask
}
