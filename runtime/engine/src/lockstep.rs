//! One compiled block at a time on a vCPU, so that compiled code can be compared with the interpreter step by step.

use std::marker::PhantomData;

use mimus_backend::exec::enter;
use mimus_backend::{
    Arena, BackendError, CompiledInfo, Compiler, HostAddr, HostIsa, Part, QuickCompiler, Request, Thunks,
};
use mimus_frontend::guest::GuestCpu;
use mimus_ir::Block;
use mimus_softmmu::{ExitCode, JumpCacheEntry};

use crate::slow;

/// Bytes of the arena; it is thrown away when it is full.
const ARENA: usize = 4 << 20;

/// Compiles blocks of one guest and runs them, without chaining.
#[derive(Debug)]
pub struct BlockRunner<C> {
    compiler: Compiler,
    quick: Option<QuickCompiler>,
    /// Executions left of a quick block.
    count: Box<u32>,
    code: Vec<u8>,
    memory: Memory,
    helpers: Vec<u64>,
    /// What a probe of the jump cache finds: nothing.
    jump_cache: Box<JumpCacheEntry>,
    /// Counts the arenas, so that what lay in an earlier one is known to be gone.
    epoch: u64,
    guest: PhantomData<fn(C)>,
}

#[derive(Debug)]
struct Memory {
    arena: Arena,
    thunks: Thunks,
    /// The one pair of link slots, never linked.
    links: Box<[u64; 2]>,
}

/// A block that [`BlockRunner::compile`] has made.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    entry: HostAddr,
    epoch: u64,
}

/// How a block was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// To the guest PC given.
    To(u64),
    /// To the dispatcher; the guest PC is in env.
    Main,
    /// In the instruction at the guest PC given, with a fault pending or another verdict.
    Stopped(u64),
}

impl Memory {
    fn new(host: &HostIsa, header_offset: usize) -> Result<Memory, BackendError> {
        let arena = Arena::new(ARENA)?;
        let thunks = Thunks::new(host, header_offset as i32)?;
        let links = Box::new([thunks.exit_stub().0; 2]);
        Ok(Memory { arena, thunks, links })
    }
}

/// To compile a block by itself.
fn request<'a, C: GuestCpu>(parts: &'a [Part<'a>]) -> Request<'a> {
    Request {
        parts,
        region: false,
        header_offset: C::HEADER_OFFSET as i32,
        linear_offset: 0,
        counted: false,
        may_link: false,
        dump: None,
    }
}

impl<C: GuestCpu> BlockRunner<C> {
    /// For this host.
    ///
    /// # Errors
    ///
    /// When Cranelift does not know the host, or there is no memory for code.
    pub fn new() -> Result<BlockRunner<C>, BackendError> {
        let compiler = Compiler::new(HostIsa::native()?.for_guest(C::EXTENSIONS));
        let memory = Memory::new(compiler.host(), C::HEADER_OFFSET)?;
        let helpers = C::helpers();
        let quick = QuickCompiler::new(compiler.host());
        let (code, jump_cache, count) = (Vec::new(), Box::default(), Box::default());
        Ok(BlockRunner { compiler, quick, code, memory, helpers, jump_cache, count, epoch: 0, guest: PhantomData })
    }

    /// Compiles a block, which must be for a vCPU of type `C`. Earlier ones may be lost by it.
    ///
    /// # Errors
    ///
    /// What the backend finds wrong with it.
    pub fn compile(&mut self, block: &Block) -> Result<Compiled, BackendError> {
        let info = self.compiler.compile(request::<C>(&[Part { block, link_slot: 0 }]), &mut self.code)?;
        self.publish(&info)
    }

    /// As [`BlockRunner::compile`], by the quick tier; `None` if it does not do the block, or there is none for this host.
    pub fn compile_quick(&mut self, block: &Block) -> Option<Compiled> {
        let quick = self.quick.as_mut()?;
        let info = quick.compile(&request::<C>(&[Part { block, link_slot: 0 }]))?;
        self.code.clear();
        self.code.extend_from_slice(quick.code());
        self.publish(&info).ok()
    }

    /// Publishes `code`.
    fn publish(&mut self, info: &CompiledInfo) -> Result<Compiled, BackendError> {
        let slot = match self.memory.arena.alloc(self.code.len()) {
            Some(slot) => slot,
            None => {
                self.memory = Memory::new(self.compiler.host(), C::HEADER_OFFSET)?;
                self.epoch += 1;
                self.memory.arena.alloc(self.code.len()).ok_or(BackendError::ArenaTooSmall(ARENA))?
            }
        };
        let start = self.memory.arena.publish(slot, &self.code);
        Ok(Compiled { entry: HostAddr(start.0 + u64::from(info.entry_offset)), epoch: self.epoch })
    }

    /// Runs a block on `cpu`; `None` if it has been lost by a later [`BlockRunner::compile`].
    pub fn run(&mut self, compiled: Compiled, cpu: &mut C) -> Option<Left> {
        if compiled.epoch != self.epoch {
            return None;
        }
        let header = cpu.header();
        *self.count = u32::MAX >> 1;
        header.counts = (&raw mut *self.count) as u64;
        header.links = self.memory.links.as_ptr() as u64;
        header.helpers = self.helpers.as_ptr() as u64;
        header.jump_caches = (&raw mut *self.jump_cache) as u64;
        header.jump_cache_mask = 0;
        slow::install::<C>(header);
        self.memory.thunks.install(header);
        cpu.update_mode();
        cpu.set_in_compiled_code(true);
        let env: *mut C = cpu;
        // SAFETY: the block lies in the present arena, by its epoch, and was compiled for this header offset and this guest's env;
        // `env` is borrowed mutably; all that its header points to was just set and lives as long as `self`.
        let code = unsafe { enter(&self.memory.thunks, env.cast(), compiled.entry) };
        cpu.set_in_compiled_code(false);
        let value = cpu.header().exit_value;
        Some(match code {
            ExitCode::Main => Left::Main,
            ExitCode::Stopped => Left::Stopped(cpu.pc_base().wrapping_add(value)),
            ExitCode::Indirect | ExitCode::Link => Left::To(value),
            ExitCode::Requested | ExitCode::Hot => Left::To(cpu.pc_base().wrapping_add(value)),
        })
    }
}
