//! Compiling hot blocks and regions, on a thread of its own or in place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mimus_backend::{BackendError, CompiledInfo, Compiler, Dump, HostIsa, Part, QuickCompiler, Request};

use crate::cache::{Cache, Finished, Job, LinkSlots, Tb};
use crate::kept::{Found, Kept, slots::SHIFT};

/// Blocks waiting at most; one that finds the queue full gets hotter and asks again.
const BLOCKS: usize = 4096;

/// Blocks waiting from which on the compiler is behind.
const BACKLOG: usize = 16;

/// By how much the compiling thread is nicer than the vCPU's: where they share a processor it gets a tenth of it. What it makes is for
/// later, and until then there is quick code.
const NICE: i32 = 10;

/// Regions waiting at most.
const REGIONS: usize = 64;

/// Jobs for the compiling thread: blocks before regions, since a block that waits is interpreted meanwhile.
#[derive(Debug, Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
    /// Blocks among them.
    blocks: AtomicUsize,
}

#[derive(Debug, Default)]
struct Jobs {
    blocks: VecDeque<Job>,
    regions: VecDeque<Job>,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked here is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Adds a job, which comes back when there are too many.
    fn push(&self, job: Job) -> Result<(), Job> {
        let mut jobs = lock(&self.jobs);
        let (queue, most) = if job.region { (&mut jobs.regions, REGIONS) } else { (&mut jobs.blocks, BLOCKS) };
        if queue.len() == most {
            return Err(job);
        }
        queue.push_back(job);
        self.blocks.store(jobs.blocks.len(), Ordering::Relaxed);
        self.more.notify_one();
        Ok(())
    }

    /// See [`Compiling::is_behind`].
    fn is_behind(&self) -> bool {
        self.blocks.load(Ordering::Relaxed) >= BACKLOG
    }

    /// The next job; `None` when there will be no more.
    fn pop(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            if jobs.closed {
                return None;
            }
            let next = jobs.blocks.pop_front();
            self.blocks.store(jobs.blocks.len(), Ordering::Relaxed);
            if let Some(job) = next.or_else(|| jobs.regions.pop_front()) {
                return Some(job);
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether no job waits.
    fn is_empty(&self) -> bool {
        let jobs = lock(&self.jobs);
        jobs.blocks.is_empty() && jobs.regions.is_empty() && !jobs.closed
    }

    fn close(&self) {
        lock(&self.jobs).closed = true;
        self.more.notify_one();
    }
}

/// What the compiling side and the vCPUs share.
#[derive(Debug, Default)]
struct Shared {
    queue: Queue,
    finished: Mutex<Vec<Finished>>,
    ready: AtomicBool,
    nanoseconds: AtomicU64,
    /// What is still to be compiled once more so that it can be kept.
    to_keep: AtomicUsize,
}

/// Settings of compiling.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Where the guest's env has its header ([`mimus_frontend::guest::GuestCpu::HEADER_OFFSET`]).
    pub header_offset: usize,
    /// Whether compiled code counts guest instructions.
    pub counted: bool,
    /// Whether blocks are chained.
    pub chain: bool,
    /// Compile in the vCPU's thread.
    pub sync: bool,
    /// Log Cranelift IR and host code.
    pub dump: bool,
}

impl Settings {
    /// What to compile, by these settings.
    fn request<'a>(&self, tb: &Tb, parts: &'a [Part<'a>], region: bool) -> Request<'a> {
        Request {
            parts,
            region,
            header_offset: self.header_offset as i32,
            linear_offset: tb.linear_offset(),
            counted: self.counted,
            may_link: self.chain,
            dump: None,
        }
    }
}

/// Compiles blocks for a machine.
pub struct Compiling {
    shared: Arc<Shared>,
    side: Side,
    host: HostIsa,
    settings: Settings,
    kept: Option<Arc<Kept>>,
}

enum Side {
    Background { thread: Option<JoinHandle<()>> },
    InPlace(Box<Mutex<Worker>>),
}

/// What was compiled and is to be kept: it is compiled once more for that, when nothing else waits.
struct ToKeep {
    job: (Arc<Tb>, Vec<Arc<Tb>>, bool),
    slots: LinkSlots,
    code: Vec<u8>,
    unit: Found,
}

/// How long the compiling thread may still work for what is to be kept when the machine has ended.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Of what is to be kept, at most: what is more is not.
const TO_KEEP: usize = 4096;

struct Worker {
    compiler: Compiler,
    code: Vec<u8>,
    settings: Settings,
    shared: Arc<Shared>,
    kept: Option<Arc<Kept>>,
    /// The newest last.
    to_keep: Vec<ToKeep>,
}

impl Worker {
    fn compile(&mut self, job: &Job) -> Option<(Vec<u8>, CompiledInfo)> {
        let start = Instant::now();
        let mut dump = self.settings.dump.then(Dump::default);
        let slots = job.slots.iter().copied();
        let parts: Vec<Part<'_>> =
            job.parts.iter().zip(slots).map(|(tb, link_slot)| Part { block: &tb.block, link_slot }).collect();
        let request = Request { dump: dump.as_mut(), ..self.settings.request(&job.tb, &parts, job.region) };
        let result = self.compiler.compile(request, &mut self.code);
        let elapsed = start.elapsed().as_nanos() as u64;
        self.shared.nanoseconds.fetch_add(elapsed, Ordering::Relaxed);
        let (what, pc) = (if job.region { "region" } else { "block" }, job.tb.gva());
        if let Some(dump) = dump {
            tracing::info!(target: "clif", "{what} {pc:#x}\n{}", dump.clif);
            tracing::info!(target: "out_asm", "{what} {pc:#x}\n{}", dump.asm);
        }
        match result {
            Ok(info) => Some((self.code.clone(), info)),
            Err(error) => {
                tracing::warn!("{what} at {pc:#x} is not compiled: {error}");
                None
            }
        }
    }

    /// Notes that what was just compiled is to be kept.
    fn note(&mut self, job: &Job, code: Option<&(Vec<u8>, CompiledInfo)>) {
        let Some(kept) = self.kept.as_ref().filter(|_| self.to_keep.len() < TO_KEEP) else { return };
        // While all of its blocks live: a region takes the place of the first.
        if let (Some((code, _)), Some(unit)) = (code, kept.unit(&job.tb, &job.parts)) {
            let (code, slots) = (code.clone(), job.slots.clone());
            self.to_keep.push(ToKeep { job: (job.tb.clone(), job.parts.clone(), job.region), slots, code, unit });
            self.shared.to_keep.store(self.to_keep.len(), Ordering::Release);
        }
    }

    /// Compiles something again, which shows where it names its link slots, and keeps it. Whether there was something.
    fn keep_one(&mut self) -> bool {
        let (Some(kept), Some(done)) = (self.kept.clone(), self.to_keep.pop()) else { return false };
        let ToKeep { job: (tb, parts, region), slots, code, unit } = done;
        let shifted = slots.iter().map(|slot| slot + SHIFT);
        let request: Vec<Part<'_>> =
            parts.iter().zip(shifted).map(|(tb, link_slot)| Part { block: &tb.block, link_slot }).collect();
        if let Ok(info) = self.compiler.compile(self.settings.request(&tb, &request, region), &mut self.code) {
            kept.compiled(unit, &slots, &code, (&self.code, &info));
        }
        self.shared.to_keep.store(self.to_keep.len(), Ordering::Release);
        true
    }

    fn run(&mut self) {
        // Of this thread alone: Linux has a nice value for each. Where it is refused, the processor is shared fairly.
        let _ = rustix::process::nice(NICE);
        while let Some(job) = self.shared.queue.pop() {
            // A dead block's slots go back with the result.
            let dead = job.parts.iter().any(|tb| tb.is_dead());
            let code = if dead { None } else { self.compile(&job) };
            self.note(&job, code.as_ref());
            lock(&self.shared.finished).push(Finished { job, code });
            self.shared.ready.store(true, Ordering::Release);
            while self.shared.queue.is_empty() && self.keep_one() {}
        }
    }
}

impl Compiling {
    /// Starts compiling for `host`; what is compiled is added to what is `kept`.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(host: HostIsa, settings: Settings, kept: Option<Arc<Kept>>) -> Result<Compiling, CompilingError> {
        let shared = Arc::new(Shared::default());
        let (compiler, shares) = (Compiler::new(host.clone()), shared.clone());
        let mut worker =
            Worker { compiler, code: Vec::new(), settings, shared: shares, kept: kept.clone(), to_keep: Vec::new() };
        let side = if settings.sync {
            Side::InPlace(Box::new(Mutex::new(worker)))
        } else {
            let thread = std::thread::Builder::new().name("compile".into()).spawn(move || worker.run())?;
            Side::Background { thread: Some(thread) }
        };
        Ok(Compiling { shared, side, host, settings, kept })
    }

    /// What earlier runs have kept.
    #[inline]
    pub fn kept(&self) -> Option<&Arc<Kept>> {
        self.kept.as_ref()
    }

    /// Keeps what this run has translated, if that is wanted. To be called when no guest code runs any more.
    pub fn keep(&self, cache: &Cache) {
        if let Some(kept) = &self.kept {
            let begin = Instant::now();
            while self.shared.to_keep.load(Ordering::Acquire) > 0 && begin.elapsed() < LAST_WORK {
                std::thread::sleep(LAST_WORK / 200);
            }
            kept.keep(cache, self.quick(), |tb, parts| self.settings.request(tb, parts, false));
        }
    }

    /// A compiler of the quick tier, if there is one for this host.
    pub fn quick(&self) -> Option<QuickCompiler> {
        QuickCompiler::new(&self.host)
    }

    /// Has the quick tier make code of a block, to be left after `count` executions. Where it went, in host memory.
    pub fn compile_quick(
        &self,
        cache: &Cache,
        compiler: &mut QuickCompiler,
        tb: &Arc<Tb>,
        count: u32,
    ) -> Option<(u64, usize)> {
        let link_slot = cache.begin_quick(tb)?;
        let parts = [Part { block: &tb.block, link_slot }];
        let info = compiler.compile(&self.settings.request(tb, &parts, false));
        if self.settings.dump && info.is_some() {
            tracing::info!(target: "out_asm", "quick {:#x}\n{}", tb.gva(), compiler.listing());
        }
        cache.publish_quick(tb, link_slot, info.map(|info| (compiler.code(), info)), count)
    }

    /// Time spent compiling, in nanoseconds.
    pub fn nanoseconds(&self) -> u64 {
        self.shared.nanoseconds.load(Ordering::Relaxed)
    }

    /// Whether so many blocks wait for the compiler that another one had better run on as quick code and get hotter: those that do
    /// not were not worth compiling.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.shared.queue.is_behind()
    }

    /// Has a block compiled, now or later.
    pub fn request(&self, cache: &Cache, tb: &Arc<Tb>) {
        if let Some(job) = cache.begin_compile(tb) {
            self.submit(cache, job);
        }
    }

    /// Has the region around a compiled block compiled, now or later.
    pub fn request_region(&self, cache: &Cache, head: &Arc<Tb>) {
        if let Some(job) = cache.begin_region(head) {
            self.submit(cache, job);
        }
    }

    fn submit(&self, cache: &Cache, job: Job) {
        match &self.side {
            Side::InPlace(worker) => {
                let mut worker = lock(worker);
                let code = worker.compile(&job);
                worker.note(&job, code.as_ref());
                worker.keep_one();
                drop(worker);
                cache.publish(Finished { job, code });
            }
            Side::Background { .. } => {
                if let Err(job) = self.shared.queue.push(job) {
                    cache.cancel(job);
                }
            }
        }
    }

    /// Whether something was finished since the last [`Compiling::take_finished`].
    #[inline]
    pub fn has_finished(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// What was finished.
    pub fn take_finished(&self) -> Vec<Finished> {
        self.shared.ready.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&self.shared.finished))
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        if let Side::Background { thread } = &mut self.side {
            self.shared.queue.close();
            if let Some(thread) = thread.take() {
                // A panic of the compiler was printed by its own thread.
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Compiling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiling").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// Why compiling cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CompilingError {
    /// The code generator.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// No thread.
    #[error("cannot start the compiling thread")]
    Thread(#[from] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::{cache, insert};

    #[test]
    fn a_queue_of_blocks_is_behind_when_many_wait() {
        let cache = cache(64 << 20);
        let vcpu = crate::cache::tests::Vcpu::new(&cache);
        let queue = Queue::default();
        let mut push = |n: usize| {
            let tb = insert(&cache, &vcpu, 0x1000 + 16 * n as u64);
            queue.push(cache.begin_compile(&tb).unwrap()).unwrap();
        };
        (1..BACKLOG).for_each(&mut push);
        assert!(!queue.is_behind());
        push(BACKLOG);
        assert!(queue.is_behind());
        let first = queue.pop().unwrap();
        assert!(!queue.is_behind() && first.tb.key.gpa == 0x1010, "the first to come is compiled first");
    }
}
