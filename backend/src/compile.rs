//! The compiler: one block or region in, one piece of host code out. The compiling thread drives it.

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Signature, TrapCode, types};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use mimus_ir as ir;

use crate::error::BackendError;
use crate::host::{Arch, HostIsa};
use crate::lower::{Lowering, TypedValues};
use crate::target::x64::{frame, listing::listing};

/// Alignment of the arena's slots, and so the largest that code may ask for, in bytes.
pub(crate) const CODE_ALIGN: u32 = 16;

/// Most blocks that are compiled as one.
pub const MAX_PARTS: usize = 64;

/// A block to compile.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The block.
    pub block: &'a ir::Block,
    /// Number of its first link slot of two.
    pub link_slot: u32,
}

/// What to compile, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The block, or the blocks of a region, the first of which is where it is entered.
    pub parts: &'a [Part<'a>],
    /// Whether jumps between the parts, and returns to where one of them called from, stay within the code. The parts must be in
    /// one guest page then: what is between them is not bound to a mapping of another.
    pub region: bool,
    /// Offset of [`mimus_softmmu::EnvHeader`] from the env pointer in bytes.
    pub header_offset: i32,
    /// Added to a guest PC (modulo 2^64) to get its linear address: decides what is the same page.
    pub linear_offset: u64,
    /// Whether to count guest instructions in [`mimus_softmmu::EnvHeader::insns`].
    pub counted: bool,
    /// Whether to chain: without it every exit goes back to the dispatcher, with the guest PC in
    /// [`mimus_softmmu::EnvHeader::exit_value`] and [`mimus_softmmu::ExitCode::Indirect`].
    pub may_link: bool,
    /// Where to write the intermediate forms, if they are wanted.
    pub dump: Option<&'a mut Dump>,
}

/// What a block became on its way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dump {
    /// Cranelift's intermediate form.
    pub clif: String,
    /// Host instructions from the entry on; on hosts other than x86-64 in the code generator's own notation.
    pub asm: String,
}

/// Beside the bytes of a compiled block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompiledInfo {
    /// Where to enter, in bytes from the start of the code.
    pub entry_offset: u32,
    /// Guest PC that each of the two link slots of each part leads to, for the slots the code uses.
    pub link_targets: Vec<[Option<u64>; 2]>,
}

/// Compiles blocks; one for each compiling thread.
pub struct Compiler {
    host: HostIsa,
    context: Context,
    builder: FunctionBuilderContext,
    values: Vec<TypedValues>,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").field("host", &self.host).finish_non_exhaustive()
    }
}

/// The signature of compiled blocks and of the exit stub: `fn(env, link slot) -> exit code`.
pub(crate) fn block_signature() -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params.extend([AbiParam::new(types::I64); 2]);
    signature.returns.push(AbiParam::new(types::I64));
    signature
}

impl Compiler {
    /// A compiler for `host`.
    pub fn new(host: HostIsa) -> Compiler {
        Compiler { host, context: Context::new(), builder: FunctionBuilderContext::new(), values: Vec::new() }
    }

    /// The host compiled for.
    pub fn host(&self) -> &HostIsa {
        &self.host
    }

    /// Compiles a block; `out` is replaced by its code, which works at any address that is a multiple of 16.
    ///
    /// # Errors
    ///
    /// [`BackendError::Malformed`] for a block that breaks the op table's rules; [`BackendError::Codegen`] and
    /// [`BackendError::NotSelfContained`] when the code generator fails us.
    pub fn compile(&mut self, request: Request<'_>, out: &mut Vec<u8>) -> Result<CompiledInfo, BackendError> {
        self.context.clear();
        self.context.func.signature = block_signature();
        let builder = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let lowered = Lowering::new(builder, &self.host, &request, &mut self.values).run();
        let summary = match lowered {
            Ok(summary) => summary,
            Err(error) => {
                // It holds the blocks of the function given up.
                self.builder = FunctionBuilderContext::new();
                return Err(error);
            }
        };
        let dump = request.dump;
        self.context.set_disasm(dump.is_some());
        finish(&self.host, &mut self.context, out)?;
        let entry_offset = if self.host.arch == Arch::X64 && !summary.calls_helpers { frame::strip(out) } else { 0 };
        if let Some(dump) = dump {
            dump.clif = self.context.func.display().to_string();
            dump.asm = match self.host.arch {
                Arch::X64 => listing(out.get(entry_offset as usize..).unwrap_or_default()),
                _ => self.context.compiled_code().and_then(|code| code.vcode.clone()).unwrap_or_default(),
            };
        }
        Ok(CompiledInfo { entry_offset, link_targets: summary.link_targets })
    }
}

/// Generates code for the function built in `context` and checks that it needs nothing around it.
pub(crate) fn finish(host: &HostIsa, context: &mut Context, out: &mut Vec<u8>) -> Result<(), BackendError> {
    let code = context
        .compile(&*host.isa, &mut ControlPlane::default())
        .map_err(|e| BackendError::Codegen(e.inner.to_string()))?;
    let buffer = &code.buffer;
    let relocations = buffer.relocs().len();
    // Accesses that the code generator thinks could trap (RISC-V's narrow atomics) have an entry in its table, too.
    // They do not: the TLB probe went before. Nor do divisions, whose divisors are looked at before.
    const UNREACHABLE: [TrapCode; 3] =
        [TrapCode::HEAP_OUT_OF_BOUNDS, TrapCode::INTEGER_DIVISION_BY_ZERO, TrapCode::INTEGER_OVERFLOW];
    let traps = buffer.traps().iter().filter(|t| !UNREACHABLE.contains(&t.code)).count();
    if relocations != 0 || traps != 0 || buffer.alignment > CODE_ALIGN {
        return Err(BackendError::NotSelfContained { relocations, traps, alignment: buffer.alignment });
    }
    out.clear();
    out.extend_from_slice(code.code_buffer());
    Ok(())
}
