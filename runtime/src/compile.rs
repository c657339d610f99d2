//! Compiling hot blocks, on a thread of its own or in place.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use mimus_backend::{BackendError, CompiledInfo, Compiler, Dump, HostIsa, Request};
use mimus_frontend::x86::HEADER_OFFSET;

use crate::cache::{Cache, Finished, Tb};

/// Jobs waiting at most; a block that finds the queue full gets hotter and asks again.
const QUEUE: usize = 4096;

struct Job {
    tb: Arc<Tb>,
    slot: u32,
}

/// What the compiling side and the vCPUs share.
#[derive(Debug, Default)]
struct Shared {
    finished: Mutex<Vec<Finished>>,
    ready: AtomicBool,
    nanoseconds: AtomicU64,
}

/// Settings of compiling.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether compiled code counts guest instructions.
    pub counted: bool,
    /// Whether blocks are chained.
    pub chain: bool,
    /// Compile in the vCPU's thread.
    pub sync: bool,
    /// Log Cranelift IR and host code.
    pub dump: bool,
}

/// Compiles blocks for a machine.
pub struct Compiling {
    shared: Arc<Shared>,
    side: Side,
}

enum Side {
    Background { queue: Option<SyncSender<Job>>, thread: Option<JoinHandle<()>> },
    InPlace(Box<Mutex<Worker>>),
}

struct Worker {
    compiler: Compiler,
    code: Vec<u8>,
    settings: Settings,
    shared: Arc<Shared>,
}

impl Worker {
    fn compile(&mut self, tb: &Tb, slot: u32) -> Option<(Vec<u8>, CompiledInfo)> {
        let start = Instant::now();
        let mut dump = self.settings.dump.then(Dump::default);
        let request = Request {
            block: &tb.block,
            header_offset: HEADER_OFFSET as i32,
            link_slot: slot,
            linear_offset: tb.key.cs_base.into(),
            counted: self.settings.counted,
            may_link: self.settings.chain,
            dump: dump.as_mut(),
        };
        let result = self.compiler.compile(request, &mut self.code);
        let elapsed = start.elapsed().as_nanos() as u64;
        self.shared.nanoseconds.fetch_add(elapsed, Ordering::Relaxed);
        if let Some(dump) = dump {
            tracing::info!(target: "clif", "block {:#x}\n{}", tb.key.pc, dump.clif);
            tracing::info!(target: "out_asm", "block {:#x}\n{}", tb.key.pc, dump.asm);
        }
        match result {
            Ok(info) => Some((self.code.clone(), info)),
            Err(error) => {
                tracing::warn!("block at {:#x} stays interpreted: {error}", tb.key.pc);
                None
            }
        }
    }

    fn run(&mut self, jobs: &Receiver<Job>) {
        while let Ok(Job { tb, slot }) = jobs.recv() {
            // A dead block's slots go back with the result.
            let code = if tb.is_dead() { None } else { self.compile(&tb, slot) };
            let finished = Finished { tb, slot, code };
            self.shared.finished.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finished);
            self.shared.ready.store(true, Ordering::Release);
        }
    }
}

impl Compiling {
    /// Starts compiling for this host.
    ///
    /// # Errors
    ///
    /// When Cranelift does not know the host, or no thread can be made.
    pub fn start(settings: Settings) -> Result<Compiling, CompilingError> {
        let shared = Arc::new(Shared::default());
        let compiler = Compiler::new(HostIsa::native()?);
        let mut worker = Worker { compiler, code: Vec::new(), settings, shared: shared.clone() };
        let side = if settings.sync {
            Side::InPlace(Box::new(Mutex::new(worker)))
        } else {
            let (queue, jobs) = sync_channel(QUEUE);
            let thread = std::thread::Builder::new().name("compile".into()).spawn(move || worker.run(&jobs))?;
            Side::Background { queue: Some(queue), thread: Some(thread) }
        };
        Ok(Compiling { shared, side })
    }

    /// Time spent compiling, in nanoseconds.
    pub fn nanoseconds(&self) -> u64 {
        self.shared.nanoseconds.load(Ordering::Relaxed)
    }

    /// Has a block compiled, now or later.
    pub fn request(&self, cache: &Cache, tb: &Arc<Tb>) {
        let Some(slot) = cache.begin_compile(tb) else { return };
        match &self.side {
            Side::InPlace(worker) => {
                let mut worker = worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let code = worker.compile(tb, slot);
                cache.publish(Finished { tb: tb.clone(), slot, code });
            }
            Side::Background { queue, .. } => {
                let job = Job { tb: tb.clone(), slot };
                let sent = queue.as_ref().map(|q| q.try_send(job));
                if let None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sent {
                    cache.cancel_compile(tb, slot);
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
        std::mem::take(&mut *self.shared.finished.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        if let Side::Background { queue, thread } = &mut self.side {
            drop(queue.take());
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
