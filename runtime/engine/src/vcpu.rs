//! The dispatcher of one vCPU: finds or makes the block at the guest PC, interprets or enters it, and does what it was
//! left for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mimus_backend::QuickCompiler;
use mimus_backend::exec::{HostAddr, enter};
use mimus_backend::perf::PerfMap;
use mimus_backend::thunks::Thunks;
use mimus_frontend::common::vcpu::JUMP_CACHES;
use mimus_frontend::guest::{Code, GuestCpu, Patched, Raised, Truncated};
use mimus_ir::interp::Outcome;
use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::{Block, Exit, Interp};
use mimus_softmmu::header::jump_cache_offset;
use mimus_softmmu::{ExitCode, JumpCacheEntry, Member, PAGE_SIZE, Ram, Verdict, Watch, WatchHit, WatchOwner};
use rustix::mm::{Advice, madvise};
use smallvec::{SmallVec, smallvec};

use crate::cache::{
    Cache, Gone, Inserted, Invalidations, Participant, Protect, Quick, Seen, Stage, Tb, TbKey, TbPages,
};
use crate::compile::Compiling;
use crate::kept::unit;
use crate::log;
use crate::near::NearBlocks;
use crate::slow;
use crate::stats::VcpuStats;
use mimus_softmmu::kick::Kicker;

/// Blocks whose first byte is at most this far from the end of what is decoded at once, in bytes.
const FETCH: usize = 512;

/// More bytes than any guest's longest instruction has.
const SPILL: usize = 16;

/// Entries of each jump cache that compiled code probes.
const JUMP_CACHE: usize = 65536;

/// Entries of the instruction TLB.
const FETCH_TLB: usize = 256;

/// The compiling side of a machine.
#[derive(Debug)]
pub struct Jit {
    /// Entry trampoline, exit stub, slow paths.
    pub thunks: Thunks,
    /// The compiler.
    pub compiling: Compiling,
    /// Interpreted executions after which the quick tier makes code of a block; 0: never.
    pub quick: u32,
    /// Executions after which a block is compiled.
    pub threshold: u32,
    /// When regions are made.
    pub regions: Regions,
}

/// When regions are made.
#[derive(Clone, Copy, Debug)]
pub struct Regions {
    /// Back edges and indirect exits from one look at where the guest is to the next.
    interval: i32,
    /// Looks that find the guest on its way to a block, after which a region is made around it.
    samples: u32,
}

/// How often a region is made again, with blocks that have become hot since.
const MAX_LEVEL: u8 = 3;

impl Regions {
    /// Regions around blocks that are gone to some `times` times by back edges and indirect jumps; 0: none.
    pub fn after(times: u32) -> Regions {
        const SAMPLES: u32 = 8;
        if times == 0 {
            return Regions { interval: i32::MAX, samples: u32::MAX };
        }
        let interval = (times / SAMPLES).max(1);
        Regions { interval: interval.try_into().unwrap_or(i32::MAX), samples: times.div_ceil(interval) }
    }
}

/// A bug of mimus that the guest's next instruction ran into.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("internal error: the translation of the code at {0:#x} is malformed")]
pub struct Malformed(pub u64);

#[derive(Clone, Copy, Default)]
struct Fetched {
    page: u64,
    context: u64,
    gpa: u64,
}

/// Asks the host for huge pages behind a table: indirect jumps look all over it, which small pages cost a miss of the host's TLB each.
fn prefer_huge_pages(table: &mut [JumpCacheEntry]) {
    let bytes = size_of_val(table);
    let start = table.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(PAGE_SIZE as usize).min(bytes);
    let whole = (bytes - skip) & !(PAGE_SIZE as usize - 1);
    // SAFETY: the pages are whole ones of the table, and no advice changes what they hold.
    let advised = unsafe { madvise(start.wrapping_add(skip).cast(), whole, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!("no huge pages behind jump caches: {error}");
    }
}

/// One vCPU with its dispatcher's state.
pub struct Vcpu<C: GuestCpu> {
    /// The guest's registers, memory and devices.
    pub cpu: Box<C>,
    /// Counters.
    pub stats: VcpuStats,
    cache: Arc<Cache>,
    jit: Option<Arc<Jit>>,
    interp: Interp,
    quick: Option<QuickCompiler>,
    scratch: Box<Scratch>,
    near: NearBlocks,
    fetched: Vec<Fetched>,
    helpers: Vec<u64>,
    participant: Arc<Participant>,
    seen: Seen,
    member: Arc<Member>,
    kicker: Arc<Kicker>,
    /// Link slot that compiled code left by, to be linked to the block found next.
    link_from: Option<u64>,
    /// Compiled code left by an indirect jump that its jump cache did not have.
    indirect: bool,
    /// The block found next is where the guest was seen.
    sampled: bool,
    /// The block found next, if its code is the quick tier's, was executed often enough to be compiled.
    hot: bool,
    perf: Option<PerfMap>,
    /// Most instructions in a block.
    block_insns: u32,
    /// Linear addresses that a debugger wants the guest stopped at, in order. No block begins at one of them or goes across it.
    breakpoints: Vec<u64>,
    stop: Option<Stop>,
}

/// Why a debugger's guest stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Before the instruction at a breakpoint.
    Breakpoint,
    /// Behind an instruction that made a watched access.
    Watchpoint(WatchHit),
}

impl<C: GuestCpu> Vcpu<C> {
    /// A vCPU that shares `cache`, interpreting only when there is no `jit`. `kicker` is attached to it for as long as it
    /// lives.
    pub fn new(
        mut cpu: Box<C>,
        cache: Arc<Cache>,
        jit: Option<Arc<Jit>>,
        perf: Option<PerfMap>,
        kicker: Arc<Kicker>,
    ) -> Vcpu<C> {
        let participant = cache.register(kicker.clone());
        // SAFETY: the env, and with it the exit request, is in a box that the vCPU owns; its drop detaches the kicker first.
        unsafe { kicker.attach(&raw const cpu.header().exit_request) };
        // Zeroed memory, which the host gives page by page as it is written.
        let helpers = C::helpers();
        let (header, jump_caches) = cpu.jump_caches();
        *jump_caches = bytemuck::zeroed_slice_box(JUMP_CACHES * JUMP_CACHE);
        prefer_huge_pages(jump_caches);
        header.links = cache.links().address();
        header.link_targets = cache.links().targets_address();
        header.counts = cache.links().counts_address();
        header.helpers = helpers.as_ptr() as u64;
        header.jump_caches = jump_caches.as_mut_ptr() as u64;
        header.jump_cache_mask = ((JUMP_CACHE - 1) * size_of::<JumpCacheEntry>()) as u64;
        slow::install::<C>(header);
        if let Some(jit) = &jit {
            jit.thunks.install(header);
        }
        cpu.update_mode();
        let (member, kick) = (cpu.mmu().member().clone(), kicker.clone());
        member.set_kick(Arc::new(move || kick.kick()));
        let quick = jit.as_ref().filter(|jit| jit.quick > 0).and_then(|jit| jit.compiling.quick());
        Vcpu {
            cpu,
            stats: VcpuStats::default(),
            cache,
            jit,
            interp: Interp::default(),
            quick,
            scratch: Box::default(),
            near: NearBlocks::default(),
            fetched: vec![Fetched::default(); FETCH_TLB],
            helpers,
            participant,
            seen: Seen::default(),
            member,
            kicker,
            link_from: None,
            indirect: false,
            sampled: true,
            hot: false,
            perf,
            block_insns: C::MAX_BLOCK_INSNS,
            breakpoints: Vec::new(),
            stop: None,
        }
    }

    /// Has the guest stop before the instructions at these linear addresses and no others.
    pub fn set_breakpoints(&mut self, addresses: &[u64]) {
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let old = std::mem::replace(&mut self.breakpoints, sorted);
        if old.is_empty() != self.breakpoints.is_empty() {
            // Breakpoints are at addresses: what is relative to a page would have them at all that the page has.
            self.cache.clear();
        }
        let new: Vec<u64> = self.breakpoints.iter().copied().filter(|addr| old.binary_search(addr).is_err()).collect();
        self.cache.drop_at(&new);
        self.moved();
    }

    /// Has the guest stop behind instructions that access these ranges, and no others.
    pub fn set_watchpoints(&mut self, list: Vec<Watch>) {
        self.cpu.mmu().set_watches(WatchOwner::Debugger, list);
    }

    /// To be called after the program counter was set from outside.
    pub fn moved(&mut self) {
        self.link_from = None;
        self.indirect = false;
        self.hot = false;
        self.sampled = false;
    }

    /// Why the guest is to stop, since the last call. `exit_request` is set when there is a reason.
    pub fn take_stop(&mut self) -> Option<Stop> {
        self.stop.take()
    }

    fn request_stop(&mut self, stop: Stop) {
        self.stop = Some(stop);
        self.cpu.header().exit_request.store(1, Ordering::Release);
    }

    /// Whether the guest is at a breakpoint, where it then stops.
    fn breaks_here(&mut self) -> bool {
        let here = !self.breakpoints.is_empty() && self.breakpoints.binary_search(&self.cpu.linear_pc()).is_ok();
        if here {
            self.request_stop(Stop::Breakpoint);
        }
        here
    }

    /// What guest PCs of blocks at the program counter are relative to.
    #[inline]
    fn pc_base(&self) -> u64 {
        if self.cpu.page_relative() && self.breakpoints.is_empty() { self.cpu.pc() & !(PAGE_SIZE - 1) } else { 0 }
    }

    /// Bytes from the linear address `linear` on that a block may begin instructions in: to the next breakpoint.
    fn unbroken(&self, linear: u64) -> usize {
        let next = self.breakpoints.partition_point(|&addr| addr <= linear);
        let distance = self.breakpoints.get(next).map_or(u64::MAX, |addr| addr - linear);
        usize::try_from(distance).unwrap_or(usize::MAX)
    }

    /// Looks whether a watched access was made.
    #[inline]
    fn look_at_watches(&mut self) {
        if self.cpu.mmu().watches.has_hits()
            && let Some(&hit) = self.cpu.mmu().watches.take_hits(WatchOwner::Debugger).first()
        {
            self.request_stop(Stop::Watchpoint(hit));
        }
    }

    /// Says that the vCPU is about to sleep.
    pub fn go_offline(&self) {
        self.member.leave();
        self.cache.go_offline(&self.participant);
    }

    /// Says that the vCPU may touch guest memory or run code again; to be called after [`Vcpu::go_offline`].
    pub fn wake(&mut self) {
        self.cache.go_online(&self.participant);
        self.quiescent_point();
    }

    /// Lets others have their exclusive sections, tells the cache that no compiled code is running, and hears its invalidations.
    #[inline]
    fn quiescent_point(&mut self) {
        self.member.attend();
        if let Some(invalidations) = self.cache.quiescent_point(&self.participant, &mut self.seen) {
            self.apply(&invalidations);
        }
    }

    #[cold]
    fn apply(&mut self, invalidations: &Invalidations) {
        match &invalidations.gone {
            Gone::All => self.cpu.forget_code(),
            Gone::Pcs(pcs) => pcs.iter().for_each(|&pc| self.cpu.forget_block(pc)),
        }
        if invalidations.swept {
            self.near.sweep();
        }
        let tlb = &mut self.cpu.mmu().tlb;
        match &invalidations.protect {
            Protect::All => tlb.protect_all(),
            Protect::Pages(pages) => pages.iter().for_each(|page| tlb.protect_page(*page)),
        }
    }

    /// Runs the block at the guest PC: from the dispatcher's point of view, one step.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for a bug of the frontend or backend.
    pub fn step(&mut self) -> Result<(), Malformed> {
        self.quiescent_point();
        if let Some(jit) = &self.jit
            && jit.compiling.has_finished()
        {
            self.publish_finished();
        }
        if self.cpu.single_steps() {
            return self.step_one();
        }
        self.look_at_watches();
        let context = self.cpu.context();
        let pc = self.cpu.pc();
        if let Some(tb) = self.near.take(pc, context) {
            let result = self.run(&tb, context);
            self.near.put_back(pc, context, tb);
            return result;
        }
        if self.breaks_here() {
            return Ok(());
        }
        let Ok(tb) = self.find(context) else {
            self.deliver();
            return Ok(());
        };
        let tb = match tb {
            Found::Block(tb) => tb,
            Found::Uncached(block) => return self.interpret_many(&block),
        };
        self.run(&tb, context)
    }

    /// Runs a block, as compiled code if there is any.
    #[inline]
    fn run(&mut self, tb: &Arc<Tb>, context: u64) -> Result<(), Malformed> {
        tb.touch();
        let pc = self.cpu.pc();
        let pc_base = pc.wrapping_sub(tb.key.pc);
        self.cpu.header().pc_base = pc_base;
        if tb.entry() == 0 {
            self.warm(tb);
        } else if std::mem::take(&mut self.hot) {
            self.promote(tb);
        }
        // Read once: another vCPU may take it away at any time, if not what it leads to.
        let entry = tb.entry();
        if entry == 0 {
            self.link_from = None;
            return self.interpret_many(&tb.block);
        }
        if std::mem::take(&mut self.sampled) {
            self.sample(tb);
        }
        if let Some(slot) = self.link_from.take() {
            self.cache.link(slot, tb);
            // Where the link looks for it.
            self.indirect |= tb.straddles();
        }
        if std::mem::take(&mut self.indirect) && tb.lead(pc, entry) {
            let (header, jump_caches) = self.cpu.jump_caches();
            let at = jump_cache_offset(pc, header.jump_cache_mask) + (header.jump_cache - header.jump_caches);
            if let Some(cell) = jump_caches.get_mut(at as usize / size_of::<JumpCacheEntry>()) {
                *cell = JumpCacheEntry { pc, context, entry, pc_base };
            }
        }
        self.run_compiled(entry)
    }

    /// Counts an execution of a block without code, and has it made when the block is warm.
    #[inline]
    fn warm(&mut self, tb: &Arc<Tb>) {
        let Some(jit) = &self.jit else { return };
        let heat = tb.heat.fetch_add(1, Ordering::Relaxed) + 1;
        if heat >= jit.threshold && tb.stage() == Stage::Cold {
            jit.compiling.request(&self.cache, tb);
        } else if let Some(quick) = &mut self.quick
            && heat >= jit.quick
            && tb.quick() == Quick::None
            && tb.stage() != Stage::Queued
        {
            let left = jit.threshold.saturating_sub(heat);
            let code = jit.compiling.compile_quick(&self.cache, quick, tb, left);
            self.name_code("quick", tb.gva(), code);
        }
    }

    /// A block that the quick tier made code of was executed often.
    #[cold]
    fn promote(&mut self, tb: &Arc<Tb>) {
        let Some(jit) = &self.jit else { return };
        if tb.quick() == Quick::Runs {
            self.cache.quick_is_hot(tb);
            if tb.stage() == Stage::Cold && !jit.compiling.is_behind() {
                jit.compiling.request(&self.cache, tb);
            }
        }
    }

    /// The guest was seen on its way to a block.
    #[cold]
    fn sample(&mut self, tb: &Arc<Tb>) {
        let Some(jit) = &self.jit else { return };
        self.cpu.header().sample = jit.regions.interval;
        let wanted = jit.regions.samples.saturating_mul(1 << (2 * tb.level.min(MAX_LEVEL)));
        if tb.level < MAX_LEVEL && tb.sample(wanted) {
            jit.compiling.request_region(&self.cache, tb);
        }
    }

    #[cold]
    fn publish_finished(&mut self) {
        let Some(jit) = self.jit.clone() else { return };
        for finished in jit.compiling.take_finished() {
            let (kind, pc) = (if finished.job.region { "region" } else { "guest" }, finished.job.tb.gva());
            let code = self.cache.publish(finished);
            self.name_code(kind, pc, code);
        }
    }

    /// Tells the profiler of new code.
    fn name_code(&mut self, kind: &str, pc: u64, code: Option<(u64, usize)>) {
        if let (Some((start, len)), Some(perf)) = (code, &mut self.perf)
            && let Err(error) = perf.append(HostAddr(start), len, &format!("{kind}_{pc:x}"))
        {
            tracing::warn!("perf map: {error}");
            self.perf = None;
        }
    }

    /// Interprets a block that may have more than one instruction.
    #[inline]
    fn interpret_many(&mut self, block: &Block) -> Result<(), Malformed> {
        self.cpu.mmu().watches.refuse = true;
        let result = self.interpret(block);
        self.cpu.mmu().watches.refuse = false;
        match result? {
            Exit::Fault { .. } => self.stopped(),
            _ => Ok(()),
        }
    }

    /// Interprets a block. What is to be done about a fault is left to the caller.
    #[inline]
    fn interpret(&mut self, block: &Block) -> Result<Exit, Malformed> {
        log::exec(&*self.cpu, "interpreted");
        let Outcome { exit, insns } = self.interp.run(block, &mut *self.cpu);
        self.stats.interpreted_insns += u64::from(insns);
        self.stats.interpreted_blocks += 1;
        match exit {
            Exit::Jump { pc, .. } | Exit::Indirect { pc } | Exit::CodeChanged { pc } | Exit::Fault { pc } => {
                self.cpu.set_pc(pc);
            }
            Exit::Main(_) => {}
            Exit::Malformed => return Err(Malformed(self.cpu.pc())),
        }
        Ok(exit)
    }

    fn run_compiled(&mut self, entry: u64) -> Result<(), Malformed> {
        let Some(jit) = &self.jit else { return Ok(()) };
        log::exec(&*self.cpu, "compiled");
        self.cpu.set_in_compiled_code(true);
        self.cpu.mmu().watches.refuse = true;
        let env: *mut C = &raw mut *self.cpu;
        // SAFETY: `entry` is a live block's entry, read since this vCPU last passed its dispatcher, so that its memory is not
        // reused before the next pass; `env` is this vCPU's own, with its header filled in by `new` and `update_mode`; the
        // tables that the header points to live as long as `self`, the link table as long as the cache it shares.
        let code = unsafe { enter(&jit.thunks, env.cast(), HostAddr(entry)) };
        self.cpu.set_in_compiled_code(false);
        self.cpu.mmu().watches.refuse = false;
        self.stats.exits[code as usize] += 1;
        let (value, base) = (self.cpu.header().exit_value, self.cpu.pc_base());
        match code {
            ExitCode::Link => {
                let slot = self.cpu.header().exit_slot;
                if let Some(target) = self.cache.links().target(slot) {
                    self.cpu.set_pc(base.wrapping_add(target));
                    self.link_from = Some(slot);
                }
            }
            ExitCode::Indirect => {
                self.cpu.set_pc(value);
                self.indirect = true;
            }
            ExitCode::Requested => {
                self.cpu.set_pc(base.wrapping_add(value));
                self.sampled = self.cpu.header().sample < 0;
            }
            ExitCode::Hot => {
                self.cpu.set_pc(base.wrapping_add(value));
                self.hot = true;
                // It may have come by a jump cache that does not know of newer code.
                self.indirect = true;
            }
            ExitCode::Main => {}
            ExitCode::Stopped => {
                self.cpu.set_pc(base.wrapping_add(value));
                return self.stopped();
            }
        }
        Ok(())
    }

    /// A fault is pending, or the instruction is to be started again, perhaps by itself.
    fn stopped(&mut self) -> Result<(), Malformed> {
        let verdict = std::mem::take(&mut self.cpu.header().verdict);
        if verdict == Verdict::Fault as u32 {
            self.deliver();
        } else if verdict == Verdict::Interpret as u32 {
            self.stats.interpreted_once += 1;
            return self.execute_one();
        }
        Ok(())
    }

    /// Delivers the pending exception of the instruction at the guest PC.
    fn deliver(&mut self) {
        self.cpu.header().verdict = 0;
        log::exception(&*self.cpu);
        self.cpu.deliver();
        // Delivery may itself have raised and resolved faults.
        self.cpu.header().verdict = 0;
    }

    /// Interprets exactly one instruction, with what single-stepping and breakpoints add to it: none, where a debugger has a
    /// breakpoint.
    ///
    /// # Errors
    ///
    /// As for [`Vcpu::step`].
    pub fn step_one(&mut self) -> Result<(), Malformed> {
        if self.breaks_here() { Ok(()) } else { self.execute_one() }
    }

    /// The same, whether or not a debugger has a breakpoint there.
    ///
    /// # Errors
    ///
    /// As for [`Vcpu::step`].
    pub fn execute_one(&mut self) -> Result<(), Malformed> {
        self.moved();
        if self.cpu.before_step().is_err() {
            self.deliver();
            return Ok(());
        }
        let block = match self.translate(1) {
            Ok(translated) => translated.block,
            Err(_) => {
                self.deliver();
                return Ok(());
            }
        };
        let exit = self.interpret(&block)?;
        self.look_at_watches();
        if matches!(exit, Exit::Fault { .. }) {
            return self.stopped();
        }
        self.cpu.after_step();
        Ok(())
    }

    /// Guest-physical address of the instruction byte at linear address `addr`.
    fn fetch_address(&mut self, addr: u64, context: u64) -> Result<u64, Raised> {
        let page = addr & !(PAGE_SIZE - 1);
        let index = (addr >> 12 ^ context.wrapping_mul(0x1f)) as usize & (FETCH_TLB - 1);
        let cached = self.fetched[index];
        if cached.page == page && cached.context == context {
            return Ok(cached.gpa | addr & (PAGE_SIZE - 1));
        }
        let gpa = self.cpu.translate_fetch(addr)?;
        self.fetched[index] = Fetched { page, context, gpa: gpa & !(PAGE_SIZE - 1) };
        Ok(gpa)
    }

    /// The block at the guest PC, which the dispatcher's own cache does not have.
    fn find(&mut self, context: u64) -> Result<Found, Raised> {
        let pc = self.cpu.pc();
        let linear = self.cpu.linear_pc();
        self.cpu.check_pc()?;
        let gpa = self.fetch_address(linear, context)?;
        let key = TbKey { gpa, pc: pc.wrapping_sub(self.pc_base()), words: self.cpu.tb_words() };
        if let Some(tb) = self.cache.lookup(&key)
            && self.second_page_matches(&tb, linear, context)?
        {
            self.near.note(pc, context, tb.clone());
            return Ok(Found::Block(tb));
        }
        self.insert(key, linear, context)
    }

    /// Whether the second page of a straddling block is still the one that it was translated from.
    fn second_page_matches(&mut self, tb: &Tb, linear: u64, context: u64) -> Result<bool, Raised> {
        match tb.pages.get(1) {
            None => Ok(true),
            Some(&(page, _)) => {
                let next = (linear & !(PAGE_SIZE - 1)).wrapping_add(PAGE_SIZE);
                Ok(self.fetch_address(next, context)? == page)
            }
        }
    }

    /// The block, or region, at a key, if an earlier run has kept it.
    fn take_kept(&mut self, key: TbKey, gva: u64) -> Option<Arc<Tb>> {
        let kept = self.jit.as_ref()?.compiling.kept()?.clone();
        let ram = self.cpu.mmu().ram.clone();
        // Where bytes are written again and again, they are read as the code runs.
        let plain = self.breakpoints.is_empty() && self.block_insns == C::MAX_BLOCK_INSNS && ram.keeps_code(key.gpa);
        if !plain || !self.cache.patched(key.gpa).is_empty() {
            return None;
        }
        let mut bytes = [0; unit::PREFIX];
        let here = unit::prefix(key.gpa);
        let mut unit =
            if ram.read_bytes(key.gpa, &mut bytes[..here]) { kept.find(&key, &bytes[..here])? } else { return None };
        let page = key.gpa & !(PAGE_SIZE - 1);
        let parts = unit.parts.iter().map(|part| (page | unit.offset(part, key.gpa), part.bytes.len() as u32));
        let parts: SmallVec<[(u64, u32); 1]> = parts.collect();
        let granules = parts.iter().fold(0, |all, &(gpa, len)| all | Ram::granules(gpa, len.into()));
        let block = std::mem::take(&mut unit.block);
        let tb = Tb::new(key, block, smallvec![(page, granules)]).at(gva).kept(unit.level, parts);
        let unchanged = || unit.is_at(key.gpa, |gpa, out| ram.read_bytes(gpa, out));
        let tlb = &mut self.cpu.mmu().tlb;
        let Inserted::Live(tb) = self.cache.insert(&self.participant, tb, unchanged, |page| tlb.protect_page(page))
        else {
            return None;
        };
        let threshold = self.jit.as_ref()?.threshold;
        let code = self.cache.publish_kept(&tb, &unit, threshold);
        self.name_code("kept", gva, code);
        Some(tb)
    }

    fn insert(&mut self, key: TbKey, gva: u64, context: u64) -> Result<Found, Raised> {
        if let Some(tb) = self.take_kept(key, gva) {
            self.near.note(self.cpu.pc(), context, tb.clone());
            return Ok(Found::Block(tb));
        }
        // Twice at most: another vCPU may write the bytes while they are translated.
        for _ in 0..2 {
            let Translated { block, pages, bytes, read } = self.translate(self.block_insns)?;
            let ram = self.cpu.mmu().ram.clone();
            if !pages.iter().all(|&(page, _)| ram.keeps_code(page)) {
                return Ok(Found::Uncached(Box::new(block)));
            }
            let mut tb_pages = SmallVec::new();
            let in_page = (PAGE_SIZE - (key.gpa & (PAGE_SIZE - 1))) as usize;
            let len = block.guest_bytes as usize;
            tb_pages.push((key.gpa & !(PAGE_SIZE - 1), Ram::granules(key.gpa, len.min(in_page) as u64)));
            if len > in_page
                && let Some(&(second, _)) = pages.get(1)
            {
                tb_pages.push((second, Ram::granules(second, (len - in_page) as u64)));
            }
            let unchanged = || {
                let mut now = [0; FETCH + SPILL];
                let first = len.min(in_page);
                let mut same = ram.read_bytes(key.gpa, &mut now[..first]);
                if let Some(&(second, _)) = pages.get(1).filter(|_| len > in_page) {
                    same &= ram.read_bytes(second, &mut now[first..len]);
                }
                same && now.get(..len) == bytes.get(..len)
            };
            let tlb = &mut self.cpu.mmu().tlb;
            let protect = |page| tlb.protect_page(page);
            let tb = Tb::new(key, block, tb_pages).at(gva).reading(&read);
            match self.cache.insert(&self.participant, tb, unchanged, protect) {
                Inserted::Live(tb) => {
                    self.near.note(self.cpu.pc(), context, tb.clone());
                    return Ok(Found::Block(tb));
                }
                Inserted::Changed => {}
                Inserted::Later => break,
            }
        }
        let Translated { block, .. } = self.translate(1)?;
        Ok(Found::Uncached(Box::new(block)))
    }

    /// Translates each instruction on its own from now on.
    pub fn translate_singly(&mut self) {
        self.block_insns = 1;
    }

    /// Translates at most `max_insns` instructions at the guest PC, ready to be interpreted.
    fn translate(&mut self, max_insns: u32) -> Result<Translated, Raised> {
        self.cpu.header().pc_base = self.pc_base();
        let context = self.cpu.context();
        let linear = self.cpu.linear_pc();
        let gpa = self.fetch_address(linear, context)?;
        let want = if max_insns == 1 { C::MAX_INSN_LEN } else { FETCH };
        let here = ((PAGE_SIZE - (gpa & (PAGE_SIZE - 1))) as usize).min(want);
        let mut bytes = [0; FETCH + SPILL];
        self.read_code(gpa, &mut bytes[..here]);
        // Only the first instruction goes beyond it.
        let in_page = here.min(self.unbroken(linear));
        let mut pages: TbPages = smallvec![(gpa & !(PAGE_SIZE - 1), 0)];
        // What is kept need not be translated again for each write to it.
        let often = if max_insns == 1 { SmallVec::new() } else { self.cache.patched(gpa) };
        let (patched, mut read) = (Patched { gpa, writes: &often }, Vec::new());
        let lifted =
            match self.cpu.lift_patched(&Code { bytes: &bytes[..here], in_page, max_insns }, &patched, &mut read) {
                Ok(block) => Ok(block),
                Err(Truncated) => {
                    let second = self.fetch_address((linear & !(PAGE_SIZE - 1)).wrapping_add(PAGE_SIZE), context)?;
                    let end = here + C::MAX_INSN_LEN;
                    self.read_code(second, &mut bytes[here..end]);
                    pages.push((second, 0));
                    self.cpu.lift(&Code { bytes: &bytes[..end], in_page, max_insns })
                }
            };
        let mut block = match lifted {
            Ok(block) => block,
            // A longest instruction's bytes more are always enough.
            Err(Truncated) => return Err(self.cpu.raise_too_long()),
        };
        log::lifted(&*self.cpu, &block, &bytes);
        optimize(&mut block, &mut self.scratch);
        log::optimized::<C>(&block);
        #[cfg(debug_assertions)]
        if let Err(error) = mimus_ir::verify::verify(&block, C::STATE_BYTES) {
            tracing::warn!("block at {:#x}: {error}\n{block}", block.pc);
        }
        Ok(Translated { block, pages, bytes, read })
    }

    /// Reads code bytes, from a device if need be.
    fn read_code(&mut self, gpa: u64, out: &mut [u8]) {
        if self.cpu.mmu().ram.read_bytes(gpa, out) {
            return;
        }
        for (byte, at) in out.iter_mut().zip(gpa..).take(C::MAX_INSN_LEN) {
            *byte = self.cpu.read_code(at);
        }
    }
}

impl<C: GuestCpu> Drop for Vcpu<C> {
    fn drop(&mut self) {
        self.kicker.detach();
        self.cache.unregister(&self.participant);
    }
}

impl<C: GuestCpu> std::fmt::Debug for Vcpu<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("stats", &self.stats).field("helpers", &self.helpers.len()).finish_non_exhaustive()
    }
}

enum Found {
    Block(Arc<Tb>),
    /// Code that is not in RAM: run once, forgotten.
    Uncached(Box<Block>),
}

struct Translated {
    block: Block,
    /// Pages read from; granules are not filled in.
    pages: TbPages,
    bytes: [u8; FETCH + SPILL],
    /// Offsets and lengths of those that the block reads as it runs.
    read: Vec<(u32, u32)>,
}
