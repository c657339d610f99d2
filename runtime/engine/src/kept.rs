//! Translations kept between runs: `-accel jit,cache=DIR`.
//!
//! What decides whether a kept translation is used is what it was made of: the guest's bytes, which are compared, the guest PC in the
//! page and the guest's words of a block's key. All else that it depends on (mimus itself, the host's processor, settings) is the
//! *identity* of a file: there is one for each, and a machine uses that of its own.
//!
//! A vCPU that has no block for its guest PC looks here before it translates. What machines make anew, they add when they end.
//! Host code that is kept has its link slots written in when it is taken ([`slots`]).

pub mod file;
pub mod slots;
#[cfg(test)]
mod tests;
pub mod unit;

use std::cmp::Reverse;
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mimus_backend::{CompiledInfo, Part, QuickCompiler, Request};
use mimus_softmmu::Ram;
use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::cache::{Cache, Quick, Stage, Tb, TbKey};
use file::{File, Unfit, prepare_folder};
use slots::SHIFT;
use unit::{Tier, Unit, hash};

/// Where translations are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The folder, which is made if it is not there.
    pub folder: PathBuf,
    /// Bytes of the files in it, at most, whatever machines they are of.
    pub bound: u64,
    /// What tells one build of mimus from another.
    pub build: Vec<u8>,
}

/// What tells this build of mimus from others: a hash of the program that runs.
///
/// # Errors
///
/// When it cannot be read.
pub fn build() -> io::Result<Vec<u8>> {
    let program = std::env::current_exe().and_then(fs::read)?;
    Ok(xxh3_128(&program).to_le_bytes().to_vec())
}

/// Default of [`Options::bound`].
pub const BOUND: u64 = 256 << 20;

/// How long a machine that ends waits for another one that is writing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of a file, as a divisor: what is new must be so much, or the file is left as it is.
const WORTHWHILE: usize = 64;

/// Link slots that code is made with when it is made to be kept: any.
const ANY_SLOT: u32 = 1024;

/// The translations that are kept, of one machine's kind.
#[derive(Debug)]
pub struct Kept {
    options: Options,
    identity: Vec<u8>,
    path: PathBuf,
    ram: Arc<Ram>,
    file: Option<File>,
    /// What the compiler has made, as it will be written.
    made: Mutex<Made>,
    /// What was taken, by [`Unit::source_of`].
    taken: Mutex<Vec<u64>>,
}

/// A translation that is in memory, and what it will be looked for by.
#[derive(Debug)]
pub struct Found {
    hash: u64,
    unit: Unit<'static>,
}

#[derive(Debug, Default)]
struct Made {
    units: Vec<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Kept {
    /// What is kept in a folder of code with this identity, beside the build's.
    pub fn open(options: &Options, ram: Arc<Ram>, identity: &[u8]) -> Kept {
        let identity = [&options.build, identity].concat();
        let path = options.folder.join(format!("{:016x}.{EXTENSION}", xxh3_64(&identity)));
        let file = prepare_folder(&options.folder).map_err(|error| (&options.folder, error));
        let file = file.and_then(|()| File::open(&path, &identity).map_err(|error| (&path, error)));
        let file = file.unwrap_or_else(|(path, error)| {
            ignored(path, &error);
            None
        });
        let (options, made) = (options.clone(), Mutex::default());
        Kept { options, identity, path, ram, file, made, taken: Mutex::default() }
    }

    fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.ram.read_bytes(gpa, out)
    }

    /// The best translation that is kept of what guest memory has now at a key; `bytes` are the first there, [`unit::prefix`] of them.
    pub fn find(&self, key: &TbKey, bytes: &[u8]) -> Option<Unit<'_>> {
        let found = self.file.as_ref()?.find(hash(key, bytes));
        let matching = found.filter_map(|whole| {
            let unit = Unit::decode(whole, key)?;
            let same = unit.is_at(key.gpa, |gpa, out| self.read(gpa, out)) && Unit::whole(whole).is_some();
            same.then(|| (unit, Unit::source_of(whole)))
        });
        let (best, source) = matching.max_by_key(|(unit, _)| (unit.tier, unit.level))?;
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).extend(source);
        Some(best)
    }

    /// What is kept of a block or region, without its code: `parts` are the blocks that it is made of. `None` if it is of a kind that is
    /// not kept, or its bytes are not what was translated any more.
    pub fn unit(&self, tb: &Tb, parts: &[Arc<Tb>]) -> Option<Found> {
        let unit = Unit::of(tb, parts, |gpa, out| self.read(gpa, out))?;
        Some(Found { hash: self.hash_at(tb)?, unit })
    }

    /// Keeps what the compiler has made: `code` with these slots, and `again`, the same with slots whose numbers are larger by
    /// [`SHIFT`].
    pub fn compiled(&self, found: Found, slots: &[u32], code: &[u8], again: (&[u8], &CompiledInfo)) {
        let Found { hash, mut unit } = found;
        unit.tier = unit.tier.max(Tier::Compiled);
        if add_code(&mut unit, slots, code, again) {
            self.add(hash, &unit);
        }
    }

    fn add(&self, hash: u64, unit: &Unit<'_>) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = unit.encode();
        if (made.bytes + bytes.len()) as u64 <= self.options.bound {
            made.bytes += bytes.len();
            made.units.push((hash, bytes));
        }
    }

    /// What a block that is in memory will be looked for by.
    fn hash_at(&self, tb: &Tb) -> Option<u64> {
        let mut bytes = [0; unit::PREFIX];
        let here = unit::prefix(tb.key.gpa);
        self.read(tb.key.gpa, &mut bytes[..here]).then(|| hash(&tb.key, &bytes[..here]))
    }

    /// Adds what was made in this run to the file: what the compiler made, and the blocks that are in the cache, for which `quick`
    /// makes code once more as `request` says. Says what became of it in one line if that is not what was asked for.
    pub fn keep(
        &self,
        cache: &Cache,
        quick: Option<QuickCompiler>,
        request: impl for<'a> Fn(&Tb, &'a [Part<'a>]) -> Request<'a>,
    ) {
        let mut quick = quick;
        for tb in cache.blocks() {
            if tb.kept || tb.blocks > 0 {
                continue;
            }
            let Some(Found { hash, mut unit }) = self.unit(&tb, std::slice::from_ref(&tb)) else { continue };
            if (tb.quick() == Quick::Runs || matches!(tb.stage(), Stage::Queued | Stage::Compiled))
                && let Some(quick) = &mut quick
            {
                add_quick(&mut unit, &tb, quick, &request);
            }
            self.add(hash, &unit);
        }
        if let Err(error) = self.write() {
            ignored(&self.path, &error);
        }
    }

    /// Adds what was made to what the file has now, which another machine may have written since this one began.
    fn write(&self) -> Result<(), Unfit> {
        prepare_folder(&self.options.folder)?;
        let _lock = lock(&self.options.folder)?;
        let now = File::open(&self.path, &self.identity).unwrap_or_default();
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let worthwhile = now.as_ref().map_or(1, |file| file.size() / WORTHWHILE);
        if made.bytes >= worthwhile {
            self.rewrite(now.as_ref(), &made)?;
        } else if now.is_some() {
            fs::File::open(&self.path)?.set_modified(SystemTime::now())?;
        }
        make_room(&self.path, self.options.bound)?;
        Ok(())
    }

    fn rewrite(&self, now: Option<&File>, made: &Made) -> io::Result<()> {
        let taken = std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner));
        let old = now.into_iter().flat_map(File::units).map(|(hash, unit)| (hash, unit, false));
        let new = made.units.iter().map(|(hash, unit)| (*hash, &unit[..], true));
        let all = old.chain(new).zip(0..).map(|((hash, unit, new), number)| Written { hash, unit, new, number });
        let chosen = choose(all.collect(), &taken, self.options.bound);
        let units: Vec<(u64, &[u8])> = chosen.iter().map(|written| (written.hash, written.unit)).collect();
        file::write(&self.path, &self.identity, &units)
    }
}

/// Ends of the files' names.
const EXTENSION: &str = "translations";

/// Removes the files beside this one that were not used for longest, so that all together have at most `bound` bytes.
fn make_room(path: &Path, bound: u64) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let files = files.filter(|file| file.extension().is_some_and(|end| end == EXTENSION));
    let mut files: Vec<(PathBuf, fs::Metadata)> =
        files.filter_map(|file| Some((file.clone(), file.metadata().ok()?))).collect();
    files.sort_by_key(|(file, meta)| (file != path, Reverse(meta.modified().ok())));
    let mut bytes = 0;
    for (file, meta) in files {
        bytes += meta.len();
        if bytes > bound && file != path {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// A unit as bytes.
#[derive(Clone, Copy)]
struct Written<'a> {
    hash: u64,
    unit: &'a [u8],
    /// Of this run.
    new: bool,
    /// Of all.
    number: u32,
}

/// Of each unit the best, and of those what fits `bound`: what this run has taken, in that order, so that the next one reads the file
/// from its beginning on; then what it has made; then the rest.
fn choose<'a>(mut all: Vec<Written<'a>>, taken: &[u64], bound: u64) -> Vec<Written<'a>> {
    let mut known = FxHashSet::default();
    all.sort_by_key(|written| Reverse(Unit::tier_of(written.unit)));
    all.retain(|written| known.insert((written.hash, Unit::source_of(written.unit))));
    let order: FxHashMap<u64, usize> = taken.iter().enumerate().rev().map(|(at, source)| (*source, at)).collect();
    let place = |written: &Written<'_>| Unit::source_of(written.unit).and_then(|source| order.get(&source).copied());
    all.sort_by_cached_key(|written| (place(written).unwrap_or(usize::MAX), Reverse(written.new), written.number));
    let mut bytes = 0;
    all.retain(|written| {
        let len = written.unit.len() as u64;
        let fits = bytes + len <= bound;
        bytes += if fits { len } else { 0 };
        fits
    });
    all
}

/// Waits for other machines that write to the folder.
fn lock(folder: &Path) -> io::Result<fs::File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"))?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => std::thread::sleep(PATIENCE / 100),
            result => return result.map(|()| file).map_err(io::Error::from),
        }
    }
}

fn ignored(path: &Path, error: &Unfit) {
    tracing::warn!("-accel: cache: {} is not used: {error}", path.display());
}

/// Gives a translation that was made twice its code.
fn add_code(unit: &mut Unit<'_>, slots: &[u32], code: &[u8], (again, info): (&[u8], &CompiledInfo)) -> bool {
    let Some(names) = slots::find(code, again, slots) else { return false };
    for (part, targets) in unit.parts.iter_mut().zip(&info.link_targets) {
        part.targets = *targets;
    }
    unit.names = names;
    unit.code = code.to_vec().into();
    unit.entry_offset = info.entry_offset;
    true
}

fn add_quick(
    unit: &mut Unit<'_>,
    tb: &Tb,
    quick: &mut QuickCompiler,
    request: &impl for<'a> Fn(&Tb, &'a [Part<'a>]) -> Request<'a>,
) {
    let mut make = |link_slot| {
        let parts = [Part { block: &tb.block, link_slot }];
        let info = quick.compile(&request(tb, &parts))?;
        Some((quick.code().to_vec(), info))
    };
    if let (Some((code, _)), Some((again, info))) = (make(ANY_SLOT), make(ANY_SLOT + SHIFT))
        && add_code(unit, &[ANY_SLOT], &code, (&again, &info))
    {
        unit.tier = Tier::Quick;
    }
}
