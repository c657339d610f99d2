//! The host that code is made for: its architecture and the features that lowering and the quick tier ask for.

use cranelift_codegen::ir::Endianness;
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable, Flags};

use crate::error::BackendError;

/// Settings of the code generator that do not depend on the host.
///
/// `opt_level` none: at `speed` a block costs twice the compile time. Tail calls need frame pointers
/// (asserted by the code generator); nothing unwinds through compiled code.
const SETTINGS: &[(&str, &str)] = &[
    ("opt_level", "none"),
    ("regalloc_algorithm", "backtracking"),
    ("unwind_info", "false"),
    ("enable_probestack", "false"),
    ("is_pic", "false"),
    ("preserve_frame_pointers", "true"),
    ("machine_code_cfg_info", "false"),
    ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
];

/// A host's instruction set, calling conventions and memory properties.
#[derive(Clone)]
pub struct HostIsa {
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) arch: Arch,
    /// See [`HostIsa::vectors`].
    vectors: bool,
    /// See [`HostIsa::fma`].
    fma: bool,
    /// See [`HostIsa::for_guest`].
    guest_extensions: &'static [&'static str],
}

/// What lowering has to know of a host beside its instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arch {
    X64,
    Aarch64,
    Riscv64,
    S390x,
}

impl Arch {
    fn from_name(name: &str) -> Option<Arch> {
        [("x64", Arch::X64), ("aarch64", Arch::Aarch64), ("riscv64", Arch::Riscv64), ("s390x", Arch::S390x)]
            .into_iter()
            .find_map(|(n, arch)| (n == name).then_some(arch))
    }
}

impl HostIsa {
    /// The machine this runs on, with the extensions it has.
    ///
    /// # Errors
    ///
    /// [`BackendError::Host`] if there is no code generator for it.
    pub fn native() -> Result<HostIsa, BackendError> {
        let builder = cranelift_native::builder().map_err(|e| BackendError::Host(e.to_owned()))?;
        HostIsa::build(builder)
    }

    /// A host by architecture name (`x86_64`, `aarch64`, `riscv64gc`, `s390x`), without optional extensions.
    ///
    /// # Errors
    ///
    /// [`BackendError::Host`] if the code generator was built without it.
    pub fn named(name: &str) -> Result<HostIsa, BackendError> {
        HostIsa::with_features(name, &[])
    }

    /// A host by architecture name with the extensions that the code generator's settings `features` stand for.
    ///
    /// # Errors
    ///
    /// [`BackendError::Host`] if the code generator was built without it, or has no such setting.
    pub fn with_features(name: &str, features: &[&str]) -> Result<HostIsa, BackendError> {
        let mut builder = isa::lookup_by_name(name).map_err(|e| BackendError::Host(e.to_string()))?;
        for feature in features {
            builder.enable(feature).map_err(|e| BackendError::Host(format!("{feature}: {e}")))?;
        }
        HostIsa::build(builder)
    }

    /// The same host, to make code for a guest that has these extensions ([`crate::target`]). Those that the host has, too, are
    /// executed by it; without this all are left to the guest's helpers. Thunks and compiler must be for the same guest.
    #[must_use]
    pub fn for_guest(self, extensions: &'static [&'static str]) -> HostIsa {
        HostIsa { guest_extensions: extensions, ..self }
    }

    /// What tells hosts apart that need other code: architecture, settings of the code generator, features of the processor.
    pub fn identity(&self) -> String {
        let features = self.isa.isa_flags();
        let features: Vec<String> = features.iter().map(ToString::to_string).collect();
        format!("{} {} {features:?}", self.isa.triple(), self.isa.flags())
    }

    /// The extensions of the guest that code is made for.
    pub(crate) fn guest_extensions(&self) -> &'static [&'static str] {
        self.guest_extensions
    }

    fn build(builder: isa::Builder) -> Result<HostIsa, BackendError> {
        let mut flags = settings::builder();
        for (name, value) in SETTINGS {
            flags.set(name, value).map_err(|e| BackendError::Host(format!("{name}={value}: {e}")))?;
        }
        let isa = builder.finish(Flags::new(flags)).map_err(|e| BackendError::Host(e.to_string()))?;
        let arch = Arch::from_name(isa.name()).ok_or_else(|| BackendError::Host(isa.name().to_owned()))?;
        let flags = isa.isa_flags();
        let has = |name| flags.iter().any(|f| f.name == name && f.as_bool() == Some(true));
        let vectors = match arch {
            Arch::X64 => has("has_ssse3") && has("has_sse41"),
            Arch::Aarch64 => true,
            Arch::Riscv64 | Arch::S390x => false,
        };
        let fma = arch == Arch::X64 && has("has_fma");
        Ok(HostIsa { isa, arch, vectors, fma, guest_extensions: &[] })
    }

    /// Whether a host `u64` has its high byte first.
    pub(crate) fn big_endian(&self) -> bool {
        self.isa.endianness() == Endianness::Big
    }

    /// Whether 128-bit values are held as vectors. Elsewhere they are numbers: RISC-V may lack vectors, and on a
    /// big-endian host lanes would not be in the order that env (host) and guest memory (little-endian) agree on.
    pub(crate) fn has_vectors(&self) -> bool {
        matches!(self.arch, Arch::X64 | Arch::Aarch64)
    }

    /// Whether vector operations are inlined: the host holds vectors, and the code generator needs no library for the
    /// common operations, as it would on x86-64 before SSE4.1.
    pub(crate) fn vectors(&self) -> bool {
        self.vectors
    }

    /// Whether floating point is inlined: x86-64, with the guest's environment in MXCSR, and the calling convention that the
    /// stubs around it are written for.
    pub(crate) fn floats(&self) -> bool {
        self.arch == Arch::X64 && self.vectors && self.c_call_conv() == CallConv::SystemV
    }

    /// Whether the host has an instruction that multiplies and adds: the code generator would call a library otherwise.
    pub(crate) fn fma(&self) -> bool {
        self.fma
    }

    /// Whether plain loads and stores are in total store order already, so that a guest's need no fence.
    pub(crate) fn total_store_order(&self) -> bool {
        matches!(self.arch, Arch::X64 | Arch::S390x)
    }

    /// The convention of `extern "C"`.
    pub(crate) fn c_call_conv(&self) -> CallConv {
        self.isa.default_call_conv()
    }

    /// A `u32` argument as the 64-bit register of an `extern "C"` call holds it: the RISC-V ELF psABI, "Integer
    /// Calling Convention", sign-extends 32-bit values whatever their signedness; the others zero-extend or ignore.
    pub(crate) fn c_u32(&self, value: u32) -> i64 {
        if self.arch == Arch::Riscv64 { i64::from(value as i32) } else { i64::from(value) }
    }
}

impl std::fmt::Debug for HostIsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostIsa").field(&self.isa.triple().to_string()).finish()
    }
}
