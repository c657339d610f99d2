//! What vCPUs share to run code: the cache of translations and, unless they only interpret, what compiles it.
//!
//! A machine makes one from its configuration; an embedder makes one with [`Options`] and gives it vCPUs.

use std::sync::Arc;

use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_frontend::guest::GuestCpu;
use mimus_softmmu::Ram;
use mimus_softmmu::kick::Kicker;

use crate::cache::{self, Cache};
use crate::compile::{Compiling, CompilingError, Settings};
use crate::kept::{self, Kept};
use crate::vcpu::{Jit, Regions, Vcpu};

/// Of the bound on translations, as a divisor: host code. A boot of Linux has six times as many bytes of micro-ops and
/// metadata, since few of its blocks get hot.
const CODE_SHARE: usize = 4;

/// How guest code is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bound on translated code and its metadata, in bytes.
    pub bytes: usize,
    /// When code gets hot; `None` to interpret only.
    pub tiers: Option<Tiers>,
    /// Where translations are kept between runs, if they are.
    pub kept: Option<kept::Options>,
}

/// When code gets hot, and how it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiers {
    /// Interpreted executions after which the quick tier makes code of a block; 0: never.
    pub quick: u32,
    /// Executions (at least 1) after which a block is compiled.
    pub threshold: u32,
    /// Back edges and indirect jumps to a block after which a region is made around it, roughly; 0: never.
    pub region: u32,
    /// Compiled code counts its instructions.
    pub counted: bool,
    /// Compiled blocks are linked to each other.
    pub chain: bool,
    /// Compiling happens in the vCPU's thread, at the moment the threshold is reached: reproducible.
    pub sync: bool,
    /// Compiled code is written to the log.
    pub dump: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { bytes: 512 << 20, tiers: Some(Tiers::default()), kept: None }
    }
}

impl Default for Tiers {
    fn default() -> Self {
        Tiers { quick: 2, threshold: 2000, region: 32768, counted: false, chain: true, sync: false, dump: false }
    }
}

/// What vCPUs of one guest share to run the code in one RAM.
#[derive(Clone, Debug)]
pub struct Translator {
    /// The translations.
    pub cache: Arc<Cache>,
    /// What compiles them; none if code is only interpreted.
    pub jit: Option<Arc<Jit>>,
}

impl Translator {
    /// One for vCPUs of type `C` with this RAM.
    ///
    /// # Errors
    ///
    /// When the host has no room, or its processor is not one that code can be made for.
    pub fn new<C: GuestCpu>(ram: &Arc<Ram>, options: &Options) -> Result<Translator, CompilingError> {
        Translator::for_guest(ram, options, C::HEADER_OFFSET, C::EXTENSIONS)
    }

    fn for_guest(
        ram: &Arc<Ram>,
        options: &Options,
        header_offset: usize,
        extensions: &'static [&'static str],
    ) -> Result<Translator, CompilingError> {
        let Some(tiers) = options.tiers else {
            return Ok(Translator { cache: Arc::new(Cache::new(ram.clone(), options.bytes, None)), jit: None });
        };
        let bytes = options.bytes.max(cache::MIN_BYTES);
        let arena = Arena::new(bytes / CODE_SHARE)?;
        let host = HostIsa::native()?.for_guest(extensions);
        let thunks = Thunks::new(&host, header_offset as i32)?;
        let Tiers { counted, chain, sync, dump, .. } = tiers;
        // All that code depends on beside what it is made of and who makes it.
        let identity = format!("{} {header_offset} {extensions:?} {tiers:?}", host.identity());
        let kept = options.kept.as_ref().map(|kept| Arc::new(Kept::open(kept, ram.clone(), identity.as_bytes())));
        let compiling = Compiling::start(host, Settings { header_offset, counted, chain, sync, dump }, kept)?;
        let cache = Arc::new(Cache::new(ram.clone(), bytes, Some((arena, thunks.exit_stub().0))));
        if let Some(stub) = thunks.checked_stub() {
            cache.link_straddling_by(stub.0);
        }
        let regions = Regions::after(tiers.region);
        let jit = Jit { thunks, compiling, quick: tiers.quick, threshold: tiers.threshold, regions };
        Ok(Translator { cache, jit: Some(Arc::new(jit)) })
    }

    /// Keeps the translations for later runs, if that is wanted. To be called when no vCPU runs guest code any more.
    pub fn keep(&self) {
        if let Some(jit) = &self.jit {
            jit.compiling.keep(&self.cache);
        }
    }

    /// A vCPU that runs code with it, and whose attention nobody else needs. A machine makes its own by [`Vcpu::new`].
    pub fn vcpu<C: GuestCpu>(&self, cpu: Box<C>) -> Vcpu<C> {
        Vcpu::new(cpu, self.cache.clone(), self.jit.clone(), None, Kicker::new())
    }
}
