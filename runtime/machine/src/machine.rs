//! Machines: put RAM, devices, vCPU and what they boot together and run them.
//!
//! A [`Board`] is what makes a machine a PC or something else; what all of them need of the host is here.

mod access;
mod actions;
mod control;
mod firmware;
mod host_side;
mod info;
mod input;
mod inventory;
mod pc;
mod ram;
mod screen;
mod virt;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mimus_backend::PerfMap;
use mimus_frontend::debug::{DebugCpu, Description};
use mimus_hw::CharSink;
use mimus_hw::registry::IDE_CD;
use mimus_softmmu::{CodeSink, Dma, Dropped, Ram, Vram};
use signal_hook::consts::SIGTERM;
use vm_memory::GuestAddress;

use crate::config::{self, Accel, Backend, CompileMode, Config, ExitStatus, JitConfig, LogItems, MachineKind};
use crate::control::{Closer, Control, Controlled, Kept, Notice, RunState, StopReason};
use crate::monitor::Monitors;
use crate::throttle::Throttle;
use input::{Input, Inputs};
pub(crate) use inventory::board_drivers;
use mimus_engine::cache::Cache;
use mimus_engine::kept;
use mimus_engine::stats::Stats;
use mimus_engine::translator::{Options, Tiers, Translator};
use mimus_engine::vcpu::{Jit, Stop, Vcpu};
use mimus_host::block::{DiskQueue, Halt};
use mimus_host::chardev::{self, Source};
use mimus_host::clock::{Alarm, Clock, Timer};
use mimus_host::config::{Chardev, Disk, OnSigterm};
use mimus_host::display::{Console, Curses, LEAVE, View, VncServer, typing};
use mimus_host::error::open_output;
use mimus_host::sandbox::Settling;
use mimus_host::signals::{self, OnAsked, Signals};
use mimus_host::terminal::{ESCAPE, InputThread, RawTerminal};
use mimus_softmmu::kick::Kicker;
use pc::PcBoard;
use virt::VirtBoard;

/// Sleep between looks at a clock that is not to be trusted for longer, in nanoseconds.
const LONGEST_SLEEP: u64 = 1_000_000_000;

/// What other threads tell the machine.
#[derive(Debug, Default)]
struct Requests {
    /// The user asked to quit.
    quit: AtomicBool,
    /// A signal asked the process to end.
    terminated: AtomicBool,
    /// A signal that presses the power button has come.
    power_button: AtomicBool,
    /// Standard output is gone.
    output_closed: AtomicBool,
    /// A disk cannot go on, and the machine has to stop.
    disks: Arc<Halt>,
}

/// A machine with one vCPU, ready to run.
pub struct Machine(Kind);

/// Which one.
enum Kind {
    Pc(Box<Runner<PcBoard>>),
    Virt(Box<Runner<VirtBoard>>),
}

/// Does the same with each kind of machine.
macro_rules! each {
    ($machine:expr, $runner:ident => $do:expr) => {
        match $machine {
            Kind::Pc($runner) => $do,
            Kind::Virt($runner) => $do,
        }
    };
}

impl Machine {
    /// Builds the machine that `config` describes and loads its kernel.
    ///
    /// # Errors
    ///
    /// Whatever the host refuses (memory, files, threads), and images that cannot be booted, each naming the option.
    pub fn new(config: &Config) -> Result<Machine> {
        Ok(Machine(match config.machine {
            MachineKind::Pc => Kind::Pc(Box::new(Runner::new(&firmware::decide(config)?)?)),
            MachineKind::Virt | MachineKind::Spike => Kind::Virt(Box::new(Runner::new(config)?)),
        }))
    }

    /// Runs until the guest powers off, or whatever else ends a run.
    ///
    /// # Errors
    ///
    /// A bug of mimus, or a kernel that cannot be loaded again after a reset.
    pub fn run(&mut self) -> Result<ExitStatus> {
        each!(&mut self.0, runner => runner.run())
    }

    /// What was counted so far.
    pub fn stats(&mut self) -> Stats {
        each!(&mut self.0, runner => runner.stats())
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// What a board is made with.
struct Parts<'a> {
    config: &'a Config,
    ram: Arc<Ram>,
    cache: Arc<Cache>,
    clock: Clock,
    alarm: Alarm,
    kicker: Arc<Kicker>,
    requests: Arc<Requests>,
}

impl Parts<'_> {
    /// Guest RAM for devices.
    fn dma(&self) -> Dma {
        let sink = DmaSink { cache: self.cache.clone(), kicker: self.kicker.clone() };
        Dma::new(self.ram.clone(), Arc::new(sink))
    }

    /// What a disk's jobs go through.
    fn disk_queue(&self) -> DiskQueue {
        DiskQueue::new().stopping(self.requests.disks.clone(), self.kicker.clone())
    }

    /// Where the characters of the device that `option` connects go, and where those for it come from.
    fn open(&self, option: &str, chardev: &Chardev) -> Result<(Box<dyn CharSink>, Option<Source>)> {
        let (requests, kicker) = (self.requests.clone(), self.kicker.clone());
        let ends = matches!(chardev.plain(), Chardev::Stdio { .. }) && !keeps_data(self.config);
        let what = format!("{option}: {chardev}");
        let on_error = move |error: std::io::Error| {
            if ends && error.kind() == std::io::ErrorKind::BrokenPipe {
                requests.output_closed.store(true, Ordering::Release);
                kicker.kick();
            } else {
                tracing::warn!("{what}: output is lost from here on: {error}");
            }
        };
        Ok(chardev::open(option, chardev, Box::new(on_error))?)
    }
}

/// Whether a machine has something to lose when it ends in the middle: a disk, or somebody who looks after it.
fn keeps_data(config: &Config) -> bool {
    let kept = |device: &config::Device| match device.backend {
        Backend::Folder(_) => true,
        Backend::Disk(_) => device.model != IDE_CD,
        _ => false,
    };
    config.devices.iter().any(kept) || !config.qmp.is_empty()
}

/// Drops translations of code that a device has written, and gets the vCPU out of what it is running: it may have them at hand.
struct DmaSink {
    cache: Arc<Cache>,
    kicker: Arc<Kicker>,
}

impl CodeSink for DmaSink {
    fn code_written(&self, gpa: u64, len: u64) -> Dropped {
        let dropped = self.cache.code_written(gpa, len);
        // The cache tells the vCPU which, when it passes its dispatcher.
        self.kicker.kick();
        dropped
    }
}

/// What the guest asks of the machine.
enum Event {
    PowerOff,
    /// To sleep with its state in RAM.
    Suspend,
    /// To be switched off, with its state on a disk.
    SuspendToDisk,
    Reset,
    Exit(u8),
    Panicked,
    CrashLoaded,
    Watchdog,
}

/// What a board's devices have after a look at them.
struct DevicePoll {
    event: Option<Event>,
    /// When to look again, in guest nanoseconds.
    deadline: Option<u64>,
}

/// What is to be done after a step of the vCPU.
enum StepOutcome {
    /// The next step.
    Continue,
    /// Nothing until something happens: the vCPU waits for an interrupt.
    Halt,
    /// The vCPU cannot go on.
    Reset,
}

/// How much of the guest a step executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// A block, and interrupts as they come.
    Free,
    /// One instruction, and interrupts only to wake up.
    One,
}

/// What is particular to a kind of machine: its devices, its vCPU, how it boots.
trait Board: Sized {
    /// The vCPU.
    type Cpu: DebugCpu;

    /// Where RAM is: addresses and sizes in bytes.
    fn ram_ranges(config: &Config) -> Vec<(GuestAddress, usize)>;

    /// Whether what begins there is RAM, rather than a ROM.
    fn is_ram(config: &Config, address: GuestAddress) -> bool;

    /// Display memory that the vCPU accesses directly, and where backings find it.
    fn display_memory(_: &Config) -> Result<Option<(u64, Arc<Vram>)>> {
        Ok(None)
    }

    /// Makes devices and vCPU.
    fn build(parts: &Parts) -> Result<(Self, Box<Self::Cpu>)>;

    /// Loads what is booted and sets the vCPU to its first state.
    fn load(&mut self, config: &Config, cpu: &mut Self::Cpu) -> Result<()>;

    /// What is typed at its devices; to be called once.
    fn inputs(&mut self) -> Vec<Input>;

    /// Sends the first serial port a break.
    fn send_break(&self) -> impl FnMut() + Send + 'static;

    /// Brings the devices to the present and the vCPU their interrupts. Called whenever `exit_request` was seen.
    fn poll_devices(&mut self, vcpu: &mut Vcpu<Self::Cpu>) -> DevicePoll;

    /// Delivers an interrupt if one is to be taken, or runs a block.
    fn step_vcpu(&mut self, vcpu: &mut Vcpu<Self::Cpu>, pace: Pace) -> Result<StepOutcome>;

    /// When a device wants to be looked at, in guest nanoseconds.
    fn deadline(&self) -> Option<u64>;

    /// The reset line of the devices.
    fn reset(&mut self);

    /// Presses the power button; whether there is one.
    fn press_power_button(&mut self) -> bool {
        false
    }

    /// Whether the sleeping machine is to go on, and when it may be to do so by itself, in guest nanoseconds.
    fn wakes(&mut self) -> (bool, Option<u64>) {
        (false, None)
    }

    /// Wakes the sleeping machine; whether it sleeps.
    fn wake(&mut self) -> bool {
        false
    }

    /// Lets the sleeping machine go on where the guest has left word to; false where it has not.
    fn resume(&mut self, _: &mut Self::Cpu) -> bool {
        false
    }

    /// Raises a non-maskable interrupt; whether the vCPU has one.
    fn raise_nmi(&mut self, _: &mut Vcpu<Self::Cpu>) -> bool {
        false
    }

    /// Reads an I/O port of `size` (1, 2, 4) bytes, where there are ports.
    fn port_read(&mut self, _: &mut Vcpu<Self::Cpu>, _: u16, _: u8) -> Option<u32> {
        None
    }

    /// Writes an I/O port; whether there are ports.
    fn port_write(&mut self, _: &mut Vcpu<Self::Cpu>, _: u16, _: u8, _: u32) -> bool {
        false
    }

    /// What the devices tell about `topic` in a monitor, as lines of text.
    fn info(&mut self, _: &str) -> Option<String> {
        None
    }

    /// What the machine is made of.
    fn inventory(&self) -> &inventory::Inventory;

    /// As `Controlled::change_medium`.
    fn change_medium(&mut self, drive: &str, _: Option<Disk>, _: bool) -> Result<(), String> {
        Err(format!("Device '{drive}' not found"))
    }

    /// Screen, keyboard and mouse, where there are any.
    fn console(&self) -> Option<&Console> {
        None
    }

    /// As `Controlled::send_keys`.
    fn send_keys(&mut self, _: &[String], _: u64) -> Result<(), String> {
        Err("this machine has no keyboard that takes keys from a monitor".to_owned())
    }

    /// As `Controlled::screen`.
    fn screen(&mut self, _: bool) -> Result<Vec<u8>, String> {
        Err("this machine has no screen".to_owned())
    }
}

/// What shows the screen.
#[derive(Default)]
struct Displays {
    // Dropped in this order: what looks at the view goes before it.
    vnc: Option<VncServer>,
    curses: Option<Curses>,
    view: Option<View>,
}

/// A machine of one kind.
struct Runner<B: Board> {
    // The order of fields is the order of being dropped: threads that use the rest go first, and nobody waits for an answer.
    control: Closer,
    monitors: Monitors,
    throttle: Option<Throttle>,
    displays: Displays,
    inputs: Inputs,
    timer: Timer,
    board: B,
    vcpu: Vcpu<B::Cpu>,
    kicker: Arc<Kicker>,
    cache: Arc<Cache>,
    jit: Option<Arc<Jit>>,
    clock: Clock,
    requests: Arc<Requests>,
    description: Arc<Description>,
    state: RunState,
    pace: Pace,
    reset_wanted: bool,
    /// The last reset was a user's.
    reset_by_user: bool,
    config: Config,
    kept: Kept,
    /// What is done when all is set up.
    settling: Option<Settling>,
}

/// How guest code is executed.
fn translation(config: &Config) -> Options {
    let defaults = Options::default();
    let Accel::Jit(JitConfig { tb_size_mib, quick, threshold, region, compile, cache, cache_size_mib, .. }) =
        &config.accel
    else {
        return Options { tiers: None, ..defaults };
    };
    let tiers = Tiers::default();
    let tiers = Tiers {
        quick: quick.unwrap_or(tiers.quick),
        threshold: threshold.or(tiers.threshold),
        region: region.unwrap_or(tiers.region),
        // The demo guest ends with a table of what ran where.
        counted: config.stats.is_some() || config.runs_demo(),
        chain: !config.log.intersects(LogItems::EXEC | LogItems::NOCHAIN),
        sync: *compile == CompileMode::Sync,
        dump: config.log.intersects(LogItems::CLIF | LogItems::OUT_ASM),
    };
    // A log of translations has them all, and a block of one instruction is made for it.
    let shown = LogItems::IN_ASM | LogItems::OP | LogItems::OP_OPT | LogItems::CLIF | LogItems::OUT_ASM;
    let kept = cache.as_ref().filter(|_| !config.log.intersects(shown) && !config.one_insn_per_tb).and_then(|folder| {
        let bound = cache_size_mib.map_or(kept::BOUND, |mib| u64::from(mib) << 20);
        let build = kept::build().inspect_err(|error| {
            tracing::warn!("-accel: cache: translations are not kept: mimus cannot read its own program: {error}");
        });
        Some(kept::Options { folder: folder.clone(), bound, build: build.ok()? })
    });
    Options { bytes: tb_size_mib.map_or(defaults.bytes, |mib| mib as usize * (1 << 20)), tiers: Some(tiers), kept }
}

/// A debugger's stop as others are told of it.
fn stop_reason(stop: Stop) -> StopReason {
    match stop {
        Stop::Breakpoint => StopReason::Breakpoint,
        Stop::Watchpoint(hit) => StopReason::Watchpoint(hit),
    }
}

impl<B: Board> Runner<B> {
    fn new(config: &Config) -> Result<Runner<B>> {
        let requests = Arc::new(Requests::default());
        let kicker = Kicker::new();
        let ram = ram::allocate::<B>(config)?;
        let clock = Clock::start();
        let timer = Timer::start(clock.clone(), kicker.clone()).context("cannot start the timer thread")?;
        let Translator { cache, jit } = Translator::new::<B::Cpu>(&ram, &translation(config))?;
        let parts = Parts {
            config,
            ram,
            cache: cache.clone(),
            clock: clock.clone(),
            alarm: timer.alarm(),
            kicker: kicker.clone(),
            requests: requests.clone(),
        };
        let (board, cpu) = B::build(&parts)?;
        let wanted = jit.is_some() && config.perf_map;
        let perf = if wanted { Some(PerfMap::create().context("-perfmap")?) } else { None };
        let mut vcpu = Vcpu::new(cpu, cache.clone(), jit.clone(), perf, kicker.clone());
        if config.one_insn_per_tb {
            vcpu.translate_singly();
        }
        let mut runner = Runner {
            control: Closer(Control::new(kicker.clone())),
            monitors: Monitors::default(),
            throttle: None,
            displays: Displays::default(),
            inputs: Inputs::default(),
            timer,
            board,
            vcpu,
            kicker,
            cache,
            jit,
            clock,
            requests,
            description: Arc::new(B::Cpu::description()),
            state: RunState::Running,
            pace: Pace::Free,
            reset_wanted: false,
            reset_by_user: false,
            config: config.clone(),
            kept: Kept { objects: config.settings.objects.clone(), ..Kept::default() },
            settling: None,
        };
        runner.load()?;
        Ok(runner)
    }

    fn load(&mut self) -> Result<()> {
        self.board.load(&self.config, &mut self.vcpu.cpu)?;
        // RAM was written behind the watches.
        self.cache.clear();
        Ok(())
    }

    /// Starts what shows the screen.
    fn show_displays(&mut self) -> Result<()> {
        let Some(console) = self.board.console() else { return Ok(()) };
        if self.config.vnc.is_none() && !self.config.curses {
            return Ok(());
        }
        let view = View::start(console.clone()).context("cannot start the display's thread")?;
        if let Some(target) = &self.config.vnc {
            let server = VncServer::start(target, &view);
            self.displays.vnc = Some(server.with_context(|| format!("-vnc: cannot listen at {target}"))?);
        }
        if self.config.curses {
            let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
            if !stdin.is_terminal() || !stdout.is_terminal() {
                bail!("-display: curses needs a terminal");
            }
            self.inputs.terminal = RawTerminal::enter_screen(&stdin, LEAVE).context("cannot set up the terminal")?;
            let terminal = rustix::io::fcntl_dupfd_cloexec(&stdout, 3).context("standard output")?;
            self.displays.curses = Some(Curses::start(&view, terminal).context("-display: curses")?);
            let typing = typing(console.clone());
            let (requests, kicker) = (self.requests.clone(), self.kicker.clone());
            let quit = move || {
                requests.quit.store(true, Ordering::Release);
                kicker.kick();
            };
            let fd = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).context("standard input")?;
            let escapes = Some(self.config.settings.escape_key.unwrap_or(ESCAPE));
            let input = InputThread::spawn(fd, None, escapes, typing, self.board.send_break(), quit);
            self.inputs.stdin = Some(input.context("standard input")?);
        }
        self.displays.view = Some(view);
        Ok(())
    }

    fn run(&mut self) -> Result<ExitStatus> {
        self.connect_inputs()?;
        self.throttle = Throttle::start(&self.config.accel, self.kicker.clone()).context("-accel: cpu-limit")?;
        if self.config.start_stopped {
            self.state = RunState::Prelaunch;
            self.clock.run(false);
        }
        self.monitors = Monitors::start(&self.config, &self.control)?;
        self.show_displays()?;
        if let Some(settling) = self.settling.take() {
            settling.settle()?;
            // Before, while clients are waited for, there is nothing to be lost.
            Signals::of_process().context("cannot start the signals' thread")?.run_machine(self.on_asked());
        }
        let result = self.run_loop();
        if let Some(jit) = &self.jit {
            jit.compiling.keep(&self.cache);
        }
        if let Ok(status) = &result {
            let (guest, reason) = self.cause(*status);
            self.control.tell(Notice::Shutdown { guest, reason });
        }
        self.control.close();
        self.monitors = Monitors::default();
        self.displays = Displays::default();
        self.inputs = Inputs::default();
        result
    }

    /// What signals do to the running machine.
    fn on_asked(&self) -> OnAsked {
        let (requests, kicker) = (self.requests.clone(), self.kicker.clone());
        let mut press = self.config.process.sigterm == OnSigterm::PowerDown;
        Box::new(move |asked| {
            if asked.signal == SIGTERM && std::mem::take(&mut press) {
                requests.power_button.store(true, Ordering::Release);
            } else if !requests.terminated.swap(true, Ordering::AcqRel) {
                // Without a standard error there is nobody to tell.
                let _ = writeln!(std::io::stderr(), "mimus: {asked}");
            }
            kicker.kick();
        })
    }

    fn run_loop(&mut self) -> Result<ExitStatus> {
        self.vcpu.cpu.header().exit_request.store(1, Ordering::Release);
        loop {
            if self.vcpu.cpu.header().exit_request.load(Ordering::Acquire) != 0 {
                if let Some(status) = self.service()? {
                    return Ok(status);
                }
                if self.state != RunState::Running {
                    // Suspended or shut down just now: nothing is executed behind the access that did it.
                    continue;
                }
            }
            match self.board.step_vcpu(&mut self.vcpu, self.pace)? {
                StepOutcome::Continue if self.pace == Pace::One => {
                    self.pace = Pace::Free;
                    let reason = self.vcpu.take_stop().map_or(StopReason::Step, stop_reason);
                    self.pause(RunState::Debug, reason);
                }
                StepOutcome::Continue => {}
                StepOutcome::Halt => self.sleep(),
                StepOutcome::Reset => {
                    if let Some(status) = self.reset(true)? {
                        return Ok(status);
                    }
                }
            }
        }
    }

    /// Looks at devices and requests.
    fn service(&mut self) -> Result<Option<ExitStatus>> {
        // Read, too: what the kick was about is seen after it.
        self.vcpu.cpu.header().exit_request.swap(0, Ordering::AcqRel);
        if let Some(throttle) = &mut self.throttle {
            throttle.pause();
        }
        self.kicker.clear();
        if let Some(stop) = self.vcpu.take_stop() {
            self.pause(RunState::Debug, stop_reason(stop));
        }
        if let Some(status) = self.handle_requests()? {
            return Ok(Some(status));
        }
        if self.pace == Pace::One && !self.vcpu.cpu.is_halted() {
            // No interrupt comes before the one instruction.
            return Ok(None);
        }
        let DevicePoll { event, deadline } = self.board.poll_devices(&mut self.vcpu);
        self.timer.alarm().set(deadline);
        match event {
            None => Ok(None),
            Some(Event::PowerOff) => Ok(self.end(ExitStatus::PowerOff)),
            Some(Event::Suspend) => {
                self.suspend();
                Ok(None)
            }
            Some(Event::SuspendToDisk) => {
                self.control.tell(Notice::SuspendToDisk);
                Ok(self.end(ExitStatus::PowerOff))
            }
            Some(Event::Exit(code)) => Ok(Some(ExitStatus::DebugExit(code))),
            Some(Event::Reset) => self.reset(true),
            Some(Event::Panicked) => Ok(self.guest_panicked()),
            Some(Event::CrashLoaded) => {
                self.control.tell(Notice::GuestCrashLoaded);
                Ok(None)
            }
            Some(Event::Watchdog) => self.watchdog_expired(),
        }
    }

    /// Does what others have asked for, and does not come back while the guest is stopped.
    fn handle_requests(&mut self) -> Result<Option<ExitStatus>> {
        loop {
            // A reset comes before what was asked for after it.
            while !self.reset_wanted
                && let Some(command) = self.control.take()
            {
                command(self);
            }
            if self.requests.quit.load(Ordering::Acquire) {
                return Ok(Some(ExitStatus::Quit));
            }
            if self.requests.terminated.load(Ordering::Acquire) {
                return Ok(Some(ExitStatus::Terminated));
            }
            if self.requests.power_button.swap(false, Ordering::AcqRel) && !Controlled::press_power_button(self) {
                return Ok(Some(ExitStatus::Terminated));
            }
            if self.requests.output_closed.load(Ordering::Acquire) {
                return Ok(Some(ExitStatus::OutputClosed));
            }
            while let Some(fault) = self.requests.disks.take_fault() {
                self.control.tell(Notice::Disk(fault));
            }
            if self.requests.disks.take() {
                self.stop(RunState::IoError);
            }
            if std::mem::take(&mut self.reset_wanted) {
                match self.reset(false)? {
                    Some(status) => return Ok(Some(status)),
                    None => continue,
                }
            }
            let wait = if self.state == RunState::Suspended { self.sleep_on()? } else { None };
            if self.state == RunState::Running {
                return Ok(None);
            }
            self.vcpu.go_offline();
            self.kicker.sleep(wait);
            self.kicker.clear();
            self.vcpu.wake();
        }
    }

    /// Restarts the machine, unless the user wants it to end then.
    fn reset(&mut self, guest: bool) -> Result<Option<ExitStatus>> {
        self.reset_by_user = !guest;
        if self.config.log.contains(LogItems::CPU_RESET) {
            tracing::info!(target: "cpu_reset", "CPU Reset (CPU 0)\n{}", self.vcpu.cpu.registers_text().trim_end());
        }
        if self.config.no_reboot {
            return Ok(self.end(ExitStatus::Reset));
        }
        self.board.reset();
        self.load()?;
        self.control.tell(Notice::Reset { guest });
        if self.state == RunState::Suspended {
            self.state = RunState::Running;
        }
        if self.state != RunState::Running {
            self.state = RunState::Prelaunch;
        }
        Ok(None)
    }

    /// Ends the run, or only the guest if the user wants that.
    fn end(&mut self, status: ExitStatus) -> Option<ExitStatus> {
        if !self.config.settings.no_shutdown {
            return Some(status);
        }
        let (guest, reason) = self.cause(status);
        self.control.tell(Notice::Shutdown { guest, reason });
        self.pause(RunState::Shutdown, StopReason::User);
        None
    }

    /// Whether the guest wanted its end, and QMP's word for why.
    fn cause(&self, status: ExitStatus) -> (bool, &'static str) {
        let by_user = self.reset_by_user && status == ExitStatus::Reset;
        if by_user { (false, "host-qmp-system-reset") } else { status.cause() }
    }

    /// Sleeps until something may have happened.
    fn sleep(&mut self) {
        self.vcpu.stats.halts += 1;
        self.vcpu.go_offline();
        let wait = self.board.deadline().map(|d| d.saturating_sub(self.clock.now()).min(LONGEST_SLEEP));
        self.kicker.sleep(wait.map(Duration::from_nanos));
        self.vcpu.wake();
        self.vcpu.cpu.header().exit_request.store(1, Ordering::Release);
    }

    fn stats(&mut self) -> Stats {
        Stats {
            vcpu: self.vcpu.stats,
            compiled_insns: self.vcpu.cpu.header().insns,
            cache: self.cache.stats(),
            mmu: self.vcpu.cpu.mmu().stats,
            compile_ns: self.jit.as_ref().map_or(0, |jit| jit.compiling.nanoseconds()),
            guest_ns: self.clock.now(),
        }
    }
}

/// A file with the process's number, for as long as it runs.
struct PidFile<'a>(&'a Path);

impl PidFile<'_> {
    fn create(path: &Path) -> Result<PidFile<'_>> {
        let mut file = open_output("-pidfile", path)?;
        writeln!(file, "{}", std::process::id()).with_context(|| format!("-pidfile: {}", path.display()))?;
        Ok(PidFile(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        // It may have been taken away by somebody else.
        let _ = std::fs::remove_file(self.0);
    }
}

/// Runs the machine that `config` describes to its end, and writes `-stats`. What the process does not need any more is given up by
/// `settling` when the machine is set up.
///
/// # Errors
///
/// As for [`Machine::new`] and [`Machine::run`]; and a `-stats` file that cannot be written.
pub fn run(config: &Config, settling: Settling) -> Result<ExitStatus> {
    signals::survive_file_limits().context("SIGXFSZ")?;
    let stats_file: Option<(PathBuf, std::fs::File)> = match &config.stats {
        Some(path) => Some((path.clone(), open_output("-stats", path)?)),
        None => None,
    };
    let pid_file = config.pid_file.as_deref().map(PidFile::create).transpose()?;
    let mut machine = Machine::new(config)?;
    if let Some(path) = &config.riscv.dump_dtb {
        let _ = writeln!(std::io::stderr(), "mimus: device tree written to {}", path.display());
        return Ok(ExitStatus::PowerOff);
    }
    each!(&mut machine.0, runner => runner.settling = Some(settling));
    let status = machine.run()?;
    drop(pid_file);
    if config.runs_demo() {
        // Nobody is told when standard output is gone: the guest's own output found out.
        let _ = write!(std::io::stdout(), "\n{}", machine.stats().to_table());
    }
    if let Some((path, file)) = stats_file {
        let write = serde_json::to_writer_pretty(file, &machine.stats().to_json());
        write.with_context(|| format!("-stats: cannot write {}", path.display()))?;
    }
    Ok(status)
}
