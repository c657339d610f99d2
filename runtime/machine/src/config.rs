//! What the rest of the runtime is told about a machine: plain typed values, no command-line syntax.

mod actions;
mod device;
mod firmware;
mod loader;
mod memory;
mod needs;
mod riscv;
mod settings;

use std::path::PathBuf;

use crate::offers::Catalogue;
use mimus_frontend::x86::cpuid::Identity;
use mimus_frontend::x86::features::FeatureSet;
use mimus_hw::registry::{Board, E1000, IDE_CD, VGA, Values};

pub use actions::{Actions, PanicAction, WatchdogAction};
pub use device::{Backend, CD_ROM_OPTION, CD_ROM_PLACE, Device};
pub use firmware::{AcpiTable, Firmware, FwCfgFile, FwCfgSource};
pub use loader::{LoadedPiece, PieceContent};
pub use memory::{GuestMemory, RamFile};
use mimus_host::config::{Chardev, FIRST_MAC, MonitorSocket, NetBackend, Netdev, Process, Service};
use mimus_host::display::VncTarget;
pub use riscv::{RiscvConfig, Semihosting};
pub use settings::{LockMemory, RtcBase, Settings, UserObject};

/// Size in bytes of the guest's RAM when nothing else is asked for (QEMU's default for `pc`).
pub const DEFAULT_RAM_SIZE: u64 = 128 << 20;

/// The CPU model used when nothing else is asked for; always the name of a row of `-cpu help`.
pub const DEFAULT_CPU: &str = "max";

/// Everything that determines one run of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The board.
    pub machine: MachineKind,
    /// RAM in bytes: a multiple of 4096, between 1 MiB and 1 TiB.
    pub ram_size: u64,
    /// Where the host has it.
    pub memory: GuestMemory,
    /// Number of vCPUs; only 1 is offered today.
    pub smp: u8,
    /// Name of the CPU model; always a name that `-cpu help` lists.
    pub cpu: String,
    /// What is different about a PC's CPU.
    pub cpu_features: CpuFeatures,
    /// How guest code is executed.
    pub accel: Accel,
    /// Each instruction is translated on its own.
    pub one_insn_per_tb: bool,
    /// What runs before the kernel. By default a PC starts a kernel at once that needs no BIOS ([`Firmware::before_kernel`]).
    pub bios: Bios,
    /// Where firmware's files are looked for first.
    pub data_dirs: Vec<PathBuf>,
    /// What a PC's firmware boots.
    pub boot: Boot,
    /// What a PC's firmware is told beyond that.
    pub firmware: Firmware,
    /// Kernel image (a PC's is a bzImage, multiboot or PVH ELF). Without one a PC runs the built-in demo guest, and another
    /// machine its firmware.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk, or a multiboot kernel's modules; only ever set together with `kernel`.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, empty when none was given; only ever non-empty together with `kernel`.
    pub append: String,
    /// What is put into RAM beside what is booted.
    pub pieces: Vec<LoadedPiece>,
    /// What only RISC-V machines have.
    pub riscv: RiscvConfig,
    /// Devices that the rows of the registry make. Those of a kind get places in this order: on the PCI bus of a PC, in the
    /// virtio-mmio slots of the other boards. The values of drives and serial ports say where they are.
    pub devices: Vec<Device>,
    /// What is said of devices that the board has.
    pub board: Vec<Values>,
    /// Whether there is a high precision event timer; only [`MachineKind::Pc`] has one. `None`: where there is firmware. A
    /// kernel that starts at once gets along without, and does not spend its time on testing it.
    pub hpet: Option<bool>,
    /// Where a VNC server shows the screen.
    pub vnc: Option<VncTarget>,
    /// The terminal shows the screen's text.
    pub curses: bool,
    /// No display, and the terminal belongs to the guest (Ctrl-C included).
    pub nographic: bool,
    /// A guest reset ends the run instead of restarting the machine.
    pub no_reboot: bool,
    /// What is logged.
    pub log: LogItems,
    /// Where log items go; standard error when `None`.
    pub log_file: Option<PathBuf>,
    /// Where counters are written when the run ends; nowhere when `None`.
    pub stats: Option<PathBuf>,
    /// Names compiled code in `/tmp/perf-PID.map` for the profiler `perf`.
    pub perf_map: bool,
    /// Where human monitors are connected. The one that shares the terminal with the guest is not among them.
    pub monitors: Vec<MonitorSocket>,
    /// Where QMP is spoken.
    pub qmp: Vec<MonitorSocket>,
    /// QMP's answers are written to be read by people.
    pub qmp_pretty: bool,
    /// Where a debugger connects.
    pub gdb: Option<MonitorSocket>,
    /// The guest does not start before somebody asks for it.
    pub start_stopped: bool,
    /// The machine's name.
    pub name: Option<String>,
    /// The machine's UUID in its usual form, in lower case.
    pub uuid: Option<String>,
    /// Where the process's number is written; the file goes when the run ends.
    pub pid_file: Option<PathBuf>,
    /// How the process behaves on the host.
    pub process: Process,
    /// How it is run.
    pub settings: Settings,
    /// Whom its monitors ask what there is by name.
    pub catalogue: Catalogue,
    /// What was asked for and has no effect here, a line each, told once when the machine starts.
    pub warnings: Vec<String>,
}

impl Default for Config {
    /// The machine that no arguments at all describe.
    fn default() -> Self {
        Config {
            machine: MachineKind::Pc,
            ram_size: DEFAULT_RAM_SIZE,
            memory: GuestMemory::default(),
            smp: 1,
            cpu: DEFAULT_CPU.to_owned(),
            cpu_features: CpuFeatures::default(),
            accel: Accel::default(),
            one_insn_per_tb: false,
            bios: Bios::Default,
            data_dirs: Vec::new(),
            boot: Boot::default(),
            firmware: Firmware::default(),
            kernel: None,
            initrd: None,
            append: String::new(),
            pieces: Vec::new(),
            riscv: RiscvConfig::default(),
            devices: vec![
                Device::com1(Chardev::Stdio { mux: false }),
                Device::new(VGA, "-vga"),
                Device::adapter(E1000, "-nic", FIRST_MAC),
                Device::new(IDE_CD, CD_ROM_OPTION).on_cable(CD_ROM_PLACE),
            ],
            board: Vec::new(),
            hpet: None,
            vnc: None,
            curses: false,
            nographic: false,
            no_reboot: false,
            log: LogItems::empty(),
            log_file: None,
            stats: None,
            perf_map: false,
            monitors: Vec::new(),
            qmp: Vec::new(),
            qmp_pretty: false,
            gdb: None,
            start_stopped: false,
            name: None,
            uuid: None,
            pid_file: None,
            process: Process::default(),
            settings: Settings::default(),
            catalogue: Catalogue::default(),
            warnings: Vec::new(),
        }
    }
}

/// What is different about a PC's CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// What CPUID does not tell of.
    pub hidden: FeatureSet,
    /// Linear addresses may have 57 bits.
    pub la57: bool,
    /// What CPUID says that it is.
    pub identity: Identity,
}

impl Config {
    /// Whether the built-in demo guest runs: nothing was said of what to boot.
    pub fn runs_demo(&self) -> bool {
        let files = self.data_dirs.is_empty() && self.pieces.is_empty();
        let nothing = self.kernel.is_none() && self.bios == Bios::Default && files;
        let disks = self.virtio().next().is_some() || !self.drives().all(Device::is_usual_cd_rom);
        let firmware = self.boot != Boot::default() || self.firmware.before_kernel == Some(true);
        self.machine == MachineKind::Pc && nothing && !disks && !firmware
    }
}

/// A board that can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineKind {
    /// QEMU's `pc`: a PC with ISA devices, a local APIC, an I/O APIC and a PCI host bridge.
    Pc,
    /// QEMU's `virt` for RISC-V: CLINT, PLIC, a 16550A, a Goldfish clock and eight slots for virtio devices.
    Virt,
    /// QEMU's `spike` for RISC-V: CLINT and the host-target interface, which is its console.
    Spike,
}

impl MachineKind {
    /// The board, as the registry of devices knows it.
    pub const fn board(self) -> Board {
        match self {
            MachineKind::Pc => Board::Pc,
            MachineKind::Virt => Board::Virt,
            MachineKind::Spike => Board::Spike,
        }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            MachineKind::Pc => "pc",
            MachineKind::Virt => "virt",
            MachineKind::Spike => "spike",
        }
    }
}

/// The firmware of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bios {
    /// The one that the machine comes with, from where it is installed.
    Default,
    /// None: the kernel starts at once.
    None,
    /// This file.
    File(PathBuf),
}

/// What a PC's firmware boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// First choice first: 1 a floppy disk, 2 a hard disk, 3 a CD-ROM, 4 the network, 0 nothing.
    pub order: [u8; 3],
    /// The same until the machine is reset for the first time.
    pub once: Option<[u8; 3]>,
    /// Nothing is booted but devices with a [`boot_index`](mimus_host::config::Plug::boot_index).
    pub strict: bool,
    /// Milliseconds after which the machine is reset if there is nothing to boot.
    pub reboot_timeout: Option<u32>,
    /// The firmware offers its menu.
    pub menu: bool,
    /// How long, in milliseconds.
    pub splash_time: u32,
    /// A picture that it shows meanwhile, JPEG or BMP.
    pub splash: Option<PathBuf>,
}

impl Default for Boot {
    /// QEMU's `cad`.
    fn default() -> Self {
        Boot {
            order: [2, 1, 3],
            once: None,
            strict: false,
            reboot_timeout: None,
            menu: false,
            splash_time: 2_500,
            splash: None,
        }
    }
}

/// How guest code is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accel {
    /// Interpret only.
    Interp,
    /// Interpret what is cold, compile what is hot.
    Jit(JitConfig),
}

impl Default for Accel {
    fn default() -> Self {
        Accel::Jit(JitConfig::default())
    }
}

/// Settings of the compiling tiers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JitConfig {
    /// Bound in MiB (1 to 4096) on translated code and its metadata; `None`: the translator's own default.
    pub tb_size_mib: Option<u32>,
    /// Interpreted executions of a block after which the quick tier makes code of it; 0: never; `None`: the translator's own
    /// default.
    pub quick: Option<u32>,
    /// Executions (at least 1) after which a block is compiled; `None`: the translator's own default.
    pub threshold: Option<u32>,
    /// Back edges and indirect jumps to a block after which a region is made around it, roughly; 0: never; `None`: the
    /// translator's own default.
    pub region: Option<u32>,
    /// Where compiling happens.
    pub compile: CompileMode,
    /// Share of one host CPU that the process may take, in percent (1 to 100).
    pub cpu_limit: Option<u8>,
    /// Folder with translations that are kept between runs.
    pub cache: Option<PathBuf>,
    /// Bound in MiB on what is kept there; `None`: the translator's own default.
    pub cache_size_mib: Option<u32>,
}

/// Where compiling happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompileMode {
    /// On a background thread; a vCPU never waits for it.
    #[default]
    Background,
    /// In the vCPU's thread, at the moment the threshold is reached: reproducible.
    Sync,
}

bitflags::bitflags! {
    /// What `-d` can log. The `tracing` target of an item is the item's name in [`LOG_ITEMS`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct LogItems: u32 {
        /// Guest instructions of each block when it is first translated.
        const IN_ASM = 1 << 0;
        /// Micro-ops as lifted.
        const OP = 1 << 1;
        /// Micro-ops after the passes.
        const OP_OPT = 1 << 2;
        /// Cranelift IR of each compiled block.
        const CLIF = 1 << 3;
        /// Host code of each compiled block.
        const OUT_ASM = 1 << 4;
        /// Interrupts and exceptions.
        const INT = 1 << 5;
        /// Each entry into a block.
        const EXEC = 1 << 6;
        /// Page walks, TLB refills and flushes.
        const MMU = 1 << 7;
        /// What the guest uses and mimus does not implement.
        const UNIMP = 1 << 8;
        /// The vCPU's registers before each reset.
        const CPU_RESET = 1 << 9;
        /// What the guest does to devices that has no meaning.
        const GUEST_ERRORS = 1 << 10;
        /// No chaining of compiled blocks.
        const NOCHAIN = 1 << 11;
        /// Each file that is opened for a disk.
        const BLOCK = 1 << 12;
    }
}

/// One log item: its flag, its name on the command line and as a `tracing` target, and a line of help.
pub type LogItem = (LogItems, &'static str, &'static str);

/// Every log item, in the order `-d help` lists them.
pub const LOG_ITEMS: &[LogItem] = &[
    (LogItems::IN_ASM, "in_asm", "guest instructions of each block, when it is translated"),
    (LogItems::OP, "op", "micro-ops of each block as lifted"),
    (LogItems::OP_OPT, "op_opt", "micro-ops of each block after optimization"),
    (LogItems::CLIF, "clif", "Cranelift IR of each compiled block"),
    (LogItems::OUT_ASM, "out_asm", "host code of each block and region, quick and compiled"),
    (LogItems::INT, "int", "interrupts and exceptions"),
    (LogItems::EXEC, "exec", "each block that is entered (slow: no chaining)"),
    (LogItems::MMU, "mmu", "page walks, TLB refills and flushes"),
    (LogItems::UNIMP, "unimp", "what the guest uses and mimus does not implement"),
    (LogItems::CPU_RESET, "cpu_reset", "the registers before each reset"),
    (LogItems::GUEST_ERRORS, "guest_errors", "what the guest does to devices that has no meaning"),
    (LogItems::NOCHAIN, "nochain", "nothing, but blocks are not chained, so that exec has each"),
    (LogItems::BLOCK, "block", "each file that is opened for a disk"),
];

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The guest powered the machine off.
    PowerOff,
    /// The guest reset the machine and `-no-reboot` was given.
    Reset,
    /// The guest's kernel has panicked.
    Panicked {
        /// The process's exit code is to say so.
        fails: bool,
    },
    /// The user quit with Ctrl-A x or in a monitor.
    Quit,
    /// The guest wrote to `isa-debug-exit`; holds the process exit code, `(value << 1) | 1`.
    DebugExit(u8),
    /// A signal asked for it.
    Terminated,
    /// Whoever read our standard output is gone.
    OutputClosed,
}

impl ExitStatus {
    /// Whether the guest wanted it, and QMP's word for why.
    pub fn cause(self) -> (bool, &'static str) {
        match self {
            ExitStatus::PowerOff | ExitStatus::DebugExit(_) => (true, "guest-shutdown"),
            ExitStatus::Reset => (true, "guest-reset"),
            ExitStatus::Panicked { .. } => (true, "guest-panic"),
            ExitStatus::Quit => (false, "host-qmp-quit"),
            ExitStatus::Terminated => (false, "host-signal"),
            ExitStatus::OutputClosed => (false, "host-error"),
        }
    }

    /// The process's exit code. 141 is what a shell reports for a program that ended by SIGPIPE.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::PowerOff | ExitStatus::Reset | ExitStatus::Quit | ExitStatus::Terminated => 0,
            ExitStatus::Panicked { fails } => fails.into(),
            ExitStatus::DebugExit(code) => code,
            ExitStatus::OutputClosed => 141,
        }
    }
}
