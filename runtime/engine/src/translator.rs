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

/// Executions after which a block that has code of the quick tier is compiled: earlier costs processor time and gains nothing
/// (docs/performance.md, "The quick tier").
pub const QUICK_THRESHOLD: u32 = 8192;

/// The same where the compiling thread shares the only processor with the guest.
pub const BUSY_THRESHOLD: u32 = 32768;

/// Executions after which an interpreted block is compiled.
pub const INTERPRETED_THRESHOLD: u32 = 2000;

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
    /// Executions (at least 1) after which a block is compiled; `None`: [`QUICK_THRESHOLD`] where there is a quick tier,
    /// [`BUSY_THRESHOLD`] if it is on one processor, and [`INTERPRETED_THRESHOLD`] where blocks are interpreted until then.
    pub threshold: Option<u32>,
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
        Tiers { quick: 2, threshold: None, region: 32768, counted: false, chain: true, sync: false, dump: false }
    }
}

/// Executions after which a block is compiled, with the `quick` tier or without, on so many processors.
const fn default_threshold(quick: bool, processors: usize) -> u32 {
    match (quick, processors) {
        (false, _) => INTERPRETED_THRESHOLD,
        (true, ..=1) => BUSY_THRESHOLD,
        (true, _) => QUICK_THRESHOLD,
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
        let threshold = tiers.threshold.unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            default_threshold(tiers.quick != 0 && compiling.quick().is_some(), processors)
        });
        let jit = Jit { thunks, compiling, quick: tiers.quick, threshold, regions };
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

#[cfg(test)]
mod tests {
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    #[test]
    fn blocks_that_are_interpreted_until_then_are_compiled_earlier() {
        let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()));
        let threshold = |tiers| {
            let options = Options { tiers: Some(tiers), bytes: cache::MIN_BYTES, kept: None };
            Translator::for_guest(&ram, &options, 0, &[]).unwrap().jit.unwrap().threshold
        };
        let processors = std::thread::available_parallelism().unwrap().into();
        assert_eq!(threshold(Tiers::default()), default_threshold(cfg!(target_arch = "x86_64"), processors));
        assert!(default_threshold(true, 1) > default_threshold(true, 2));
        assert_eq!(threshold(Tiers { quick: 0, ..Tiers::default() }), INTERPRETED_THRESHOLD);
        assert_eq!(threshold(Tiers { threshold: Some(7), ..Tiers::default() }), 7);
    }
}
