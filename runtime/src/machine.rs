//! The PC: puts RAM, devices, vCPU and kernel together and runs them.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mimus_backend::{Arena, HostIsa, PerfMap, Thunks};
use mimus_frontend::x86::state::{Seg, Segment, State, TableReg, rflags};
use mimus_frontend::x86::{Cpu, Features, HEADER_OFFSET};
use mimus_hw::{Pc, PcConfig, PcEvent, acpi_tables};
use mimus_softmmu::Ram;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::boot::{self, BootConfig, BootState, SegmentInit};
use crate::bus::{self, PcBus, SharedPc};
use crate::cache::{self, Cache};
use crate::cli;
use crate::clock::{Clock, TSC_HZ, Timer};
use crate::compile::{Compiling, Settings};
use crate::config::{Accel, CompileMode, Config, ExitStatus, JitConfig, LogItems};
use crate::kick::Kicker;
use crate::log;
use crate::stats::Stats;
use crate::terminal::{InputThread, OnSinkError, RawTerminal, open_sink};
use crate::vcpu::{Jit, Regions, Vcpu};

/// Bound on translations when the user gives none, in MiB.
pub const DEFAULT_TB_SIZE_MIB: u32 = 512;

/// Of the bound on translations, as a divisor: host code. A boot of Linux has six times as many bytes of micro-ops and
/// metadata, since few of its blocks get hot.
const CODE_SHARE: usize = 4;

/// Interpreted executions after which the quick tier makes code of a block, unless configured.
pub const DEFAULT_QUICK: u32 = 2;

/// Executions after which a block is compiled when the user gives no number.
pub const DEFAULT_THRESHOLD: u32 = 2000;

/// Back edges and indirect jumps to a block after which a region is made around it when the user gives no number.
pub const DEFAULT_REGION: u32 = 32768;

/// Sleep between looks at a clock that is not to be trusted for longer, in nanoseconds.
const LONGEST_SLEEP: u64 = 1_000_000_000;

/// What other threads tell the machine.
#[derive(Debug, Default)]
struct Requests {
    /// The user asked to quit.
    quit: AtomicBool,
    /// Standard output is gone.
    output_closed: AtomicBool,
}

/// A PC with one vCPU, ready to run.
pub struct Machine {
    // The order of fields is the order of being dropped: threads that use the rest go first.
    input: Option<InputThread>,
    terminal: Option<RawTerminal>,
    timer: Timer,
    vcpu: Vcpu<Cpu>,
    kicker: Arc<Kicker>,
    pc: SharedPc,
    cache: Arc<Cache>,
    jit: Option<Arc<Jit>>,
    clock: Clock,
    requests: Arc<Requests>,
    config: Config,
    acpi: Vec<(u64, Vec<u8>)>,
    interrupt_pending: bool,
}

/// Allocates RAM as the PC lays it out.
fn allocate_ram(size: u64) -> Result<Arc<Ram>> {
    let ranges: Vec<(GuestAddress, usize)> = boot::ram_ranges(size);
    let memory = GuestMemoryMmap::from_ranges(&ranges)
        .with_context(|| format!("-m: cannot allocate {} MiB of guest RAM", size >> 20))?;
    advise_huge_pages(&memory);
    Ok(Arc::new(Ram::new(memory)))
}

/// Asks the host for huge pages behind guest RAM: a guest that touches much memory misses the host's TLB less.
fn advise_huge_pages(memory: &GuestMemoryMmap<()>) {
    use rustix::mm::{Advice, madvise};
    for region in memory.iter() {
        // SAFETY: the range is a mapping that `memory` owns, and the advice changes nothing that it holds.
        let advised = unsafe { madvise(region.as_ptr().cast(), region.size(), Advice::LinuxHugepage) };
        if let Err(error) = advised {
            // A host without huge pages is slower, and that is all.
            tracing::debug!("no huge pages behind guest RAM: {error}");
        }
    }
}

/// Makes the compiling side and the cache.
fn translation(config: &Config, ram: &Arc<Ram>) -> Result<(Arc<Cache>, Option<Arc<Jit>>)> {
    let Accel::Jit(JitConfig { tb_size_mib, quick, threshold, region, compile }) = &config.accel else {
        let bytes = DEFAULT_TB_SIZE_MIB as usize * (1 << 20);
        return Ok((Arc::new(Cache::new(ram.clone(), bytes, None)), None));
    };
    let bytes = tb_size_mib.unwrap_or(DEFAULT_TB_SIZE_MIB) as usize * (1 << 20);
    let bytes = bytes.max(cache::MIN_BYTES);
    let host = HostIsa::native()?;
    let mut arena = Arena::new((bytes / CODE_SHARE).max(cache::MIN_BYTES / 2))?;
    let thunks = Thunks::new(&host, &mut arena, HEADER_OFFSET as i32)?;
    let dump = config.log.intersects(LogItems::CLIF | LogItems::OUT_ASM);
    let settings = Settings {
        header_offset: HEADER_OFFSET,
        // The demo guest ends with a table of what ran where.
        counted: config.stats.is_some() || config.kernel.is_none(),
        chain: !config.log.contains(LogItems::EXEC),
        sync: *compile == CompileMode::Sync,
        dump,
    };
    let compiling = Compiling::start(settings)?;
    let cache = Arc::new(Cache::new(ram.clone(), bytes, Some((arena, thunks.exit_stub().0))));
    if let Some(stub) = thunks.checked_stub() {
        cache.link_straddling_by(stub.0);
    }
    let quick = quick.unwrap_or(DEFAULT_QUICK);
    let threshold = threshold.unwrap_or(DEFAULT_THRESHOLD);
    let regions = Regions::after(region.unwrap_or(DEFAULT_REGION));
    Ok((cache, Some(Arc::new(Jit { thunks, compiling, quick, threshold, regions }))))
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Machine {
    /// Builds the machine that `config` describes and loads its kernel.
    ///
    /// # Errors
    ///
    /// Whatever the host refuses (memory, files, threads), and images that cannot be booted, each naming the option.
    pub fn new(config: &Config) -> Result<Machine> {
        let requests = Arc::new(Requests::default());
        let kicker = Kicker::new();
        let ram = allocate_ram(config.ram_size)?;
        let clock = Clock::start();
        let timer = Timer::start(clock, kicker.clone()).context("cannot start the timer thread")?;
        let on_error = |requests: &Arc<Requests>, kicker: &Arc<Kicker>| -> OnSinkError {
            let (requests, kicker) = (requests.clone(), kicker.clone());
            Box::new(move |_| {
                requests.output_closed.store(true, Ordering::Release);
                kicker.kick();
            })
        };
        let serial = open_sink("-serial", &config.serial, on_error(&requests, &kicker))?;
        let debugcon = match &config.debugcon {
            Some(debugcon) => open_sink("-debugcon", &debugcon.chardev, on_error(&requests, &kicker))?,
            None => Box::new(crate::terminal::NullSink),
        };
        let board = PcConfig {
            ram_size: config.ram_size,
            cpus: config.smp,
            tsc_hz: TSC_HZ,
            unix_time_at_power_on: unix_time(),
            debug_exit: config.debug_exit.map(|d| (d.iobase, d.iosize)),
            debugcon: config.debugcon.as_ref().map(|d| d.iobase),
        };
        let pc = Arc::new(std::sync::Mutex::new(Pc::new(board, serial, debugcon)));
        let (cache, jit) = translation(config, &ram)?;
        let bus = PcBus { pc: pc.clone(), clock, alarm: timer.alarm(), kicker: kicker.clone(), index: 0 };
        let features = Features { tsc_hz: TSC_HZ, ..Features::default() };
        let cpu = Cpu::new(ram, cache.clone(), Box::new(bus), features);
        let wanted = jit.is_some() && config.perf_map;
        let perf = if wanted { Some(PerfMap::create().context("-perfmap")?) } else { None };
        let vcpu = Vcpu::new(cpu, cache.clone(), jit.clone(), perf, kicker.clone());
        let acpi = acpi_tables::build(config.smp).into_iter().map(|blob| (blob.address, blob.bytes)).collect();
        let mut machine = Machine {
            input: None,
            terminal: None,
            timer,
            vcpu,
            kicker,
            pc,
            cache,
            jit,
            clock,
            requests,
            config: config.clone(),
            acpi,
            interrupt_pending: false,
        };
        machine.load()?;
        Ok(machine)
    }

    /// Loads the kernel and sets the vCPU to its first state.
    fn load(&mut self) -> Result<()> {
        let cpu = &mut self.vcpu.cpu;
        cpu.reset();
        if let Some(kernel) = &self.config.kernel {
            let boot = BootConfig {
                kernel,
                initrd: self.config.initrd.as_deref(),
                cmdline: &self.config.append,
                ram_size: self.config.ram_size,
                acpi: &self.acpi,
                rsdp: acpi_tables::RSDP_ADDRESS,
            };
            let state = boot::load(cpu.mmu.ram.memory(), &boot)?;
            apply(&mut cpu.state, &state);
        } else {
            let demo = crate::demo::image()?;
            cpu.mmu.ram.memory().write_slice(&demo.bytes, GuestAddress(demo.load_address)).context("the demo guest")?;
            let cs = &mut cpu.state.seg[Seg::Cs as usize];
            cs.selector = demo.entry_segment;
            cs.base = u64::from(demo.entry_segment) * 16;
            cpu.state.rip = u64::from(demo.entry_offset);
        }
        cpu.update_mode();
        cpu.flush_tlb(false);
        self.cache.clear();
        Ok(())
    }

    /// Connects standard input to the serial port, if the configuration says so.
    fn connect_input(&mut self) -> Result<()> {
        let crate::config::Chardev::Stdio { mux } = self.config.serial else { return Ok(()) };
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            self.terminal = RawTerminal::enter(&stdin, mux).context("cannot set up the terminal")?;
        }
        let (pc, clock, kicker) = (self.pc.clone(), self.clock, self.kicker.clone());
        let deliver = move |bytes: &[u8]| {
            let accepted = bus::lock(&pc).serial_receive(clock.now(), bytes);
            if accepted != 0 {
                kicker.kick();
            }
            accepted
        };
        let (requests, kicker) = (self.requests.clone(), self.kicker.clone());
        let quit = move || {
            requests.quit.store(true, Ordering::Release);
            kicker.kick();
        };
        let fd = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).context("standard input")?;
        self.input = Some(InputThread::spawn(fd, mux, deliver, quit).context("standard input")?);
        Ok(())
    }

    /// Runs until the guest powers off, or whatever else ends a run.
    ///
    /// # Errors
    ///
    /// A bug of mimus, or a kernel that cannot be loaded again after a reset.
    pub fn run(&mut self) -> Result<ExitStatus> {
        self.connect_input()?;
        let result = self.run_loop();
        // The threads that use the terminal end before it is restored.
        self.input = None;
        self.terminal = None;
        result
    }

    fn run_loop(&mut self) -> Result<ExitStatus> {
        self.vcpu.cpu.header.exit_request.store(1, Ordering::Release);
        loop {
            if self.vcpu.cpu.header.exit_request.load(Ordering::Acquire) != 0
                && let Some(status) = self.service()?
            {
                return Ok(status);
            }
            if self.vcpu.cpu.triple_fault {
                tracing::warn!("triple fault at {:#x}: the machine resets", self.vcpu.cpu.state.rip);
                if let Some(status) = self.reset()? {
                    return Ok(status);
                }
            }
            if self.interrupt_pending && self.vcpu.cpu.state.flags & rflags::IF != 0 {
                if self.vcpu.cpu.state.shadow != 0 {
                    self.vcpu.step_one()?;
                    continue;
                }
                self.take_interrupt();
            }
            self.vcpu.cpu.state.shadow = 0;
            if self.vcpu.cpu.state.halted != 0 {
                self.sleep();
                continue;
            }
            self.vcpu.cpu.interrupt_waits = self.interrupt_pending;
            self.vcpu.step()?;
        }
    }

    /// Looks at devices and requests.
    fn service(&mut self) -> Result<Option<ExitStatus>> {
        // Read, too: what the kick was about is seen after it.
        self.vcpu.cpu.header.exit_request.swap(0, Ordering::AcqRel);
        self.kicker.clear();
        let now = self.clock.now();
        let mut pc = bus::lock(&self.pc);
        pc.advance(now);
        self.interrupt_pending = pc.interrupt_pending(0);
        let nmi = pc.take_nmi(0);
        let event = pc.take_event();
        let deadline = pc.next_deadline();
        drop(pc);
        self.timer.alarm().set(deadline);
        if nmi && self.vcpu.cpu.state.nmi_blocked == 0 {
            self.vcpu.cpu.deliver_nmi();
        }
        if self.requests.quit.load(Ordering::Acquire) {
            return Ok(Some(ExitStatus::Quit));
        }
        if self.requests.output_closed.load(Ordering::Acquire) {
            return Ok(Some(ExitStatus::OutputClosed));
        }
        match event {
            None => Ok(None),
            Some(PcEvent::PowerOff) => Ok(Some(ExitStatus::PowerOff)),
            Some(PcEvent::DebugExit(code)) => Ok(Some(ExitStatus::DebugExit(code))),
            Some(PcEvent::Reset) => self.reset(),
        }
    }

    /// Restarts the machine, unless the user wants it to end then.
    fn reset(&mut self) -> Result<Option<ExitStatus>> {
        if self.config.no_reboot {
            return Ok(Some(ExitStatus::Reset));
        }
        bus::lock(&self.pc).reset(self.clock.now());
        self.interrupt_pending = false;
        self.load()?;
        Ok(None)
    }

    fn take_interrupt(&mut self) {
        let mut pc = bus::lock(&self.pc);
        let vector = pc.acknowledge_interrupt(0);
        self.interrupt_pending = pc.interrupt_pending(0);
        drop(pc);
        if let Some(vector) = vector {
            self.vcpu.stats.interrupts += 1;
            log::interrupt(&self.vcpu.cpu, vector);
            self.vcpu.cpu.deliver_interrupt(vector);
            self.vcpu.cpu.header.verdict = 0;
        }
    }

    /// Sleeps in HLT until something may have happened.
    fn sleep(&mut self) {
        self.vcpu.stats.halts += 1;
        self.vcpu.rest();
        let wait = bus::lock(&self.pc).next_deadline().map(|d| d.saturating_sub(self.clock.now()).min(LONGEST_SLEEP));
        self.kicker.sleep(wait.map(Duration::from_nanos));
        self.vcpu.wake();
        self.vcpu.cpu.header.exit_request.store(1, Ordering::Release);
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        Stats {
            vcpu: self.vcpu.stats,
            compiled_insns: self.vcpu.cpu.header.insns,
            cache: self.cache.stats(),
            mmu: self.vcpu.cpu.mmu.stats,
            compile_ns: self.jit.as_ref().map_or(0, |jit| jit.compiling.nanoseconds()),
            guest_ns: self.clock.now(),
        }
    }
}

fn segment(init: &SegmentInit) -> Segment {
    Segment { base: init.base, limit: init.limit, selector: init.selector, access: init.access }
}

/// Sets the registers that the boot protocol names.
fn apply(state: &mut State, boot: &BootState) {
    state.gpr = boot.gpr;
    state.rip = boot.rip;
    state.set_rflags(boot.rflags);
    state.cr0 = boot.cr0;
    state.cr3 = boot.cr3;
    state.cr4 = boot.cr4;
    state.efer = boot.efer;
    let s = &boot.segments;
    for (seg, init) in
        [(Seg::Es, &s.es), (Seg::Cs, &s.cs), (Seg::Ss, &s.ss), (Seg::Ds, &s.ds), (Seg::Fs, &s.fs), (Seg::Gs, &s.gs)]
    {
        state.seg[seg as usize] = segment(init);
    }
    state.tr = segment(&s.tr);
    state.gdtr = TableReg { base: boot.gdt.base, limit: boot.gdt.limit.into() };
    state.idtr = TableReg { base: boot.idt.base, limit: boot.idt.limit.into() };
    // As firmware leaves them: MTRRs and fixed ranges enabled, write-back by default (SDM vol. 3A, 11.11.2.1). Without it Linux
    // takes page attributes for unusable.
    state.mtrr_def_type = 0xc06;
}

/// Runs the machine that `config` describes to its end, and writes `-stats`.
///
/// # Errors
///
/// As for [`Machine::new`] and [`Machine::run`]; and a `-stats` file that cannot be written.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let stats_file: Option<(PathBuf, std::fs::File)> = match &config.stats {
        Some(path) => Some((path.clone(), cli::open_output("-stats", path)?)),
        None => None,
    };
    let mut machine = Machine::new(config)?;
    let status = machine.run()?;
    if config.kernel.is_none() {
        // Nobody is told when standard output is gone: the guest's own output found out.
        let _ = write!(std::io::stdout(), "\n{}", machine.stats().to_table());
    }
    if let Some((path, file)) = stats_file {
        let write = serde_json::to_writer_pretty(file, &machine.stats().to_json());
        write.with_context(|| format!("-stats: cannot write {}", path.display()))?;
    }
    Ok(status)
}
