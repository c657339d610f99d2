//! Runs whole x86 and RISC-V machines, or a few bytes of their code, by dynamic binary translation.
//!
//! This crate is the command `mimus`, and what an embedder uses of the crates below it: [`Machine`] is a board with all that
//! QEMU's command line can say of it, [`Translator`] and [`Vcpu`] run code without a machine. For what is not here, depend on
//! `mimus-engine`, `mimus-host` or `mimus-machine`.
//!
//! # Boot a kernel
//!
//! The kernel of this example writes `ok` to the first serial port and powers off.
//!
//! ```
//! use mimus::config::{Config, Device};
//! use mimus::host::Chardev;
//! use mimus::{ExitStatus, Machine};
//!
//! // Multiboot: magic, flags (addresses follow), checksum; the header's address, where to load, to the file's end, no more, entry.
//! let header: [u32; 8] = [0x1bad_b002, 1 << 16, !(0x1bad_b002 + (1 << 16)) + 1, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
//! let code = [
//!     0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
//!     0xb0, b'o', 0xee, // mov al, 'o'; out dx, al
//!     0xb0, b'k', 0xee, // mov al, 'k'; out dx, al
//!     0x66, 0xba, 0x04, 0x06, // mov dx, 0x604 (PM1a control)
//!     0x66, 0xb8, 0x00, 0x20, // mov ax, 0x2000 (soft off)
//!     0x66, 0xef, 0xf4, // out dx, ax; hlt
//! ];
//! let folder = std::env::temp_dir();
//! let kernel = folder.join(format!("mimus-doc-kernel-{}", std::process::id()));
//! let output = folder.join(format!("mimus-doc-output-{}", std::process::id()));
//! let image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).chain(code).collect();
//! std::fs::write(&kernel, image)?;
//!
//! let config = Config {
//!     ram_size: 16 << 20,
//!     kernel: Some(kernel.clone()),
//!     devices: vec![Device::com1(Chardev::File(output.clone()))],
//!     ..Config::default()
//! };
//! let mut machine = Machine::new(&config)?;
//! assert_eq!(machine.run()?, ExitStatus::PowerOff);
//! assert_eq!(std::fs::read(&output)?, b"ok");
//! println!("{}", machine.stats().to_table());
//! # std::fs::remove_file(kernel)?;
//! # std::fs::remove_file(output)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A `Config` can also come from a command line as QEMU has it:
//!
//! ```
//! use mimus::{Invocation, parse};
//!
//! let Invocation::Run(config) = parse(["-arch", "riscv64", "-m", "64"].map(Into::into))? else { panic!("a machine") };
//! assert_eq!(config.ram_size, 64 << 20);
//! # Ok::<(), mimus::CliError>(())
//! ```
//!
//! # Run a few bytes of code, and look at the registers
//!
//! ```
//! use std::sync::Arc;
//!
//! use mimus::x86::state::{Seg, reg};
//! use mimus::x86::{Cpu, Features, NoDevices};
//! use mimus::{GuestAddress, GuestMemoryMmap, Options, Ram, Translator};
//!
//! let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?));
//! // mov cx, 1000; again: add ax, cx; loop again; hlt
//! assert!(ram.write_bytes(0x1000, &[0xb9, 0xe8, 0x03, 0x01, 0xc8, 0xe2, 0xfc, 0xf4]));
//!
//! let translator = Translator::new::<Cpu>(&ram, &Options::default())?;
//! // As after a reset, so in real mode, but at 0:0x1000.
//! let mut cpu = Cpu::new(ram, translator.cache.clone(), Box::new(NoDevices), Features::default());
//! cpu.state.seg[Seg::Cs as usize].base = 0;
//! cpu.state.rip = 0x1000;
//! let mut vcpu = translator.vcpu(cpu);
//! while vcpu.cpu.state.halted == 0 {
//!     vcpu.step()?;
//! }
//! assert_eq!(vcpu.cpu.state.gpr[reg::RAX] & 0xffff, 500_500 & 0xffff);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Count blocks
//!
//! The same loop, compiled after ten turns, in place and not on another thread, so that the counts are the same each time.
//!
//! ```
//! # use std::sync::Arc;
//! # use mimus::x86::state::Seg;
//! # use mimus::x86::{Cpu, Features, NoDevices};
//! # use mimus::{GuestAddress, GuestMemoryMmap, Ram};
//! use mimus::{Options, Tiers, Translator};
//!
//! # let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?));
//! # assert!(ram.write_bytes(0x1000, &[0xb9, 0xe8, 0x03, 0x01, 0xc8, 0xe2, 0xfc, 0xf4]));
//! let tiers = Tiers { quick: 0, threshold: Some(10), sync: true, counted: true, ..Tiers::default() };
//! let translator = Translator::new::<Cpu>(&ram, &Options { tiers: Some(tiers), ..Options::default() })?;
//! # let mut cpu = Cpu::new(ram, translator.cache.clone(), Box::new(NoDevices), Features::default());
//! # cpu.state.seg[Seg::Cs as usize].base = 0;
//! # cpu.state.rip = 0x1000;
//! # let mut vcpu = translator.vcpu(cpu);
//! # while vcpu.cpu.state.halted == 0 {
//! #     vcpu.step()?;
//! # }
//! // What comes before the first turn's end, the loop, and what is behind it.
//! let blocks = translator.cache.stats();
//! assert_eq!((blocks.translated, blocks.compiled), (3, 1));
//! println!("{} blocks were interpreted, {:?}", vcpu.stats.interpreted_blocks, blocks);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub use mimus_cli::{CliError, Invocation, parse};
pub use mimus_engine::cache::CacheStats;
pub use mimus_engine::stats::{Stats, VcpuStats};
pub use mimus_engine::translator::{Options, Tiers, Translator};
pub use mimus_engine::vcpu::Vcpu;
pub use mimus_frontend::{riscv, x86};
pub use mimus_host::config as host;
pub use mimus_machine::config;
pub use mimus_machine::config::{Config, ExitStatus};
pub use mimus_machine::machine::Machine;
pub use mimus_softmmu::Ram;
pub use vm_memory::{GuestAddress, GuestMemoryMmap};
