//! The PC: the devices of `mimus_hw::Pc` and an x86 vCPU as a [`Board`].

mod ide;
mod isa;

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, Rflags, Seg, Segment, State, TableReg};
use mimus_frontend::x86::sys::acceptance::Acceptance;
use mimus_frontend::x86::{Cpu, Features};
use mimus_hw::fabric::TimerQueue;
use mimus_hw::net::Adapter;
use mimus_hw::pci::{DevFn, Function};
use mimus_hw::registry::{HPET, Make, VGA};
use mimus_hw::vga;
use mimus_hw::virtio::{Virtio, VirtioPci};
use mimus_hw::{Interrupts, Pc, PcConfig, PcEvent, Signals};
use mimus_softmmu::Vram;
use vm_memory::{Bytes, GuestAddress};

use super::access::DeviceAccess;
use super::firmware::{self, Left, Rom};
use super::host_side::{self, Started, Unstarted, VirtioAccess};
use super::info;
use super::input::Input;
use super::inventory::{Attachment, Inventory, Pci};
use super::screen::{self, Held};
use super::{Board, DevicePoll, Event, Pace, Parts, StepOutcome};
use crate::boot::{self, BootConfig, BootScreen, BootState, SegmentInit};
use crate::bus::{DeviceHandle, PcBus};
use crate::config::{Config, CpuFeatures, Device};
use crate::memory_map;
use mimus_engine::log;
use mimus_engine::vcpu::Vcpu;
use mimus_host::clock::{Clock, TSC_HZ};
use mimus_host::config::{Disk, Plug};
use mimus_host::devices::{self, KeyboardHandle, SharedPc, VgaHandle};
use mimus_host::display::{Console, DisplayHandle};
use mimus_softmmu::kick::Kicker;

/// Chooses places on the PCI bus.
struct Places {
    /// Those that the configuration gives to somebody.
    given: Vec<DevFn>,
}

impl Places {
    fn new(config: &Config) -> Places {
        Places { given: config.devices.iter().filter_map(|device| device.plug.addr).collect() }
    }

    /// Plugs a function in: where `plug` says, at `usual` if that is free, or as the first free device.
    fn plug(&self, pc: &mut Pc, plug: &Plug, usual: Option<DevFn>, function: Box<dyn Function>) -> Result<DevFn> {
        let free = |devfn: &DevFn| pc.pci_configs().all(|(taken, _)| taken != *devfn);
        let place = match plug.addr {
            Some(addr) => Some(addr).filter(free),
            None => {
                let any = (0..32u8).map(|slot| slot << 3);
                usual.into_iter().chain(any).filter(|devfn| !self.given.contains(devfn)).find(free)
            }
        };
        let place = place.with_context(|| match plug.addr {
            Some(addr) => format!("-device: addr={:02x}: this slot of the PCI bus is in use", addr >> 3),
            None => "no free slot of the PCI bus".to_owned(),
        })?;
        pc.plug(Some(place), function).context("no free slot of the PCI bus")
    }
}

/// The vCPU that there is.
const CPU: usize = 0;

/// The serial port that a break from the terminal goes to.
const FIRST_SERIAL: usize = 0;

/// Where QEMU has the first network adapter; programs know it by the name that follows from that.
const FIRST_ADAPTER: DevFn = 3 << 3;

/// Reaches a function of the PCI bus.
#[derive(Clone)]
struct FunctionHandle {
    devices: DeviceHandle,
    devfn: DevFn,
}

impl DeviceAccess for FunctionHandle {
    fn attend(&self) {
        self.devices.access(|pc, now| pc.attend(now, self.devfn));
    }

    fn adapter<T: Default>(&self, f: impl FnOnce(&mut dyn Adapter) -> T) -> T {
        self.devices.access(|pc, now| pc.adapter(now, self.devfn, f)).unwrap_or_default()
    }
}

impl VirtioAccess for FunctionHandle {
    fn access<T: Default>(&self, f: impl FnOnce(&mut Virtio) -> T) -> T {
        let function = |function: &mut VirtioPci, _| f(function.device_mut());
        self.devices.access(|pc, now| pc.function(now, self.devfn, function)).unwrap_or_default()
    }
}

/// The devices of a PC, and what its firmware would leave behind.
pub(super) struct PcBoard {
    // Before the devices: its threads use them.
    started: Started,
    cd_roms: Vec<ide::CdRom>,
    pc: SharedPc,
    interrupts: Arc<Interrupts>,
    timers: TimerQueue,
    /// What monitors are told of.
    inventory: Inventory,
    /// RAM by first address and size.
    ram: Vec<(u64, u64)>,
    clock: Clock,
    kicker: Arc<Kicker>,
    /// What is in memory if no firmware has run.
    left: Left,
    /// Screen, keyboard and mouse.
    console: Console,
    held: Held,
    /// The firmware, where it is used.
    rom: Option<Rom>,
    /// What firmware boots after a reset.
    boot_order: [u8; 3],
    interrupt_pending: bool,
}

impl PcBoard {
    fn take_interrupt(&mut self, vcpu: &mut Vcpu<Cpu>) {
        let vector = self.interrupts.acknowledge(CPU);
        self.interrupt_pending = self.interrupts.pending(CPU);
        if let Some(vector) = vector {
            vcpu.stats.interrupts += 1;
            let state = &vcpu.cpu.state;
            log::interrupt(vector.into(), state.rip, state.cpl().into());
            vcpu.cpu.deliver_interrupt(vector);
            vcpu.cpu.header.verdict = 0;
        }
    }
}

impl PcBoard {
    /// Where the guest goes on after a sleep, below 1 MiB in real mode, as the FACS has it (ACPI specification 6.5, 5.2.10).
    fn waking_vector(&self, cpu: &Cpu) -> Option<u32> {
        const VECTOR: u64 = 12;
        let facs = self.left.tables.iter().find(|(_, bytes)| bytes.starts_with(b"FACS"))?.0;
        let vector: u32 = cpu.mmu.ram.memory().read_obj(GuestAddress(facs + VECTOR)).ok()?;
        (1..0x10_0000).contains(&vector).then_some(vector)
    }

    /// Tells a display what was written to its memory, if it has asked.
    fn hand_over_display_memory(&self, vcpu: &mut Vcpu<Cpu>) {
        let harvest = self.console.harvest();
        if let Some(vram) = self.console.vram()
            && harvest.is_wanted()
        {
            vcpu.cpu.mmu.record_stores();
            harvest.hand_over(vram);
        }
    }
}

impl Board for PcBoard {
    type Cpu = Cpu;

    fn ram_ranges(config: &Config) -> Vec<(GuestAddress, usize)> {
        firmware::memory_ranges(config)
    }

    fn is_ram(config: &Config, address: GuestAddress) -> bool {
        boot::ram_ranges(config.ram_size).iter().any(|(start, _)| *start == address)
    }

    fn display_memory(config: &Config) -> Result<Option<(u64, Arc<Vram>)>> {
        screen::memory(config)
    }

    fn build(parts: &Parts) -> Result<(PcBoard, Box<Cpu>)> {
        let config = parts.config;
        let board = PcConfig {
            ram_size: config.ram_size,
            cpus: config.smp,
            tsc_hz: TSC_HZ,
            unix_time_at_power_on: config.settings.rtc.seconds(),
        };
        let mut pc = Pc::new(board);
        if firmware::has_hpet(config) {
            pc.plug_hpet();
        }
        let mut inventory = Inventory::of(config);
        if firmware::has_hpet(config) {
            inventory.optional(config, HPET);
        }
        let typed = isa::plug(parts, &mut pc, &mut inventory)?;
        let drives = ide::plug(parts, &mut pc, &mut inventory)?;
        let functions = plug_functions(parts, &mut pc, &mut inventory)?;
        let rom = if firmware::is_used(config) { Some(Rom::load(config)?) } else { None };
        pc.set_fw_cfg(firmware::configure(config, parts.dma(), &inventory.boot_paths())?);
        pc.set_boot_order(config.boot.once.unwrap_or(config.boot.order));
        let (interrupts, timers) = (pc.interrupts().clone(), pc.timers().clone());
        let (alarm, own_alarm, woken) = (parts.alarm.clone(), parts.alarm.clone(), parts.kicker.clone());
        timers.on_earlier(move |deadline| alarm.set(Some(deadline)));
        interrupts.on_earlier(CPU, move |deadline| own_alarm.set(Some(deadline)));
        interrupts.on_wake(CPU, move || woken.kick());
        let pc = Arc::new(Mutex::new(pc));
        let (clock, kicker) = (parts.clock.clone(), parts.kicker.clone());
        let devices = DeviceHandle { pc: pc.clone(), clock: clock.clone(), kicker: kicker.clone() };
        let mut started = Started::default();
        for (devfn, unstarted) in functions {
            started.start(unstarted, FunctionHandle { devices: devices.clone(), devfn })?;
        }
        let cd_roms = drives.start(&devices, &mut started.disks)?;
        started.inputs.extend(typed.into_iter().map(|typed| typed.connect(&devices)));
        let bus = PcBus {
            devices,
            interrupts: interrupts.clone(),
            index: CPU,
            rom: rom.as_ref().map(Rom::size),
            backings: None,
        };
        let features = features(config);
        let cpu = Cpu::new(parts.ram.clone(), parts.cache.clone(), Box::new(bus), features);
        let console = console(parts, &pc);
        let held = Held::default();
        let board = PcBoard {
            started,
            cd_roms,
            pc,
            interrupts,
            timers,
            inventory,
            ram: boot::ram_ranges(config.ram_size).iter().map(|(base, size)| (base.0, *size as u64)).collect(),
            clock,
            kicker,
            left: firmware::left(config)?,
            console,
            held,
            rom,
            boot_order: config.boot.order,
            interrupt_pending: false,
        };
        Ok((board, cpu))
    }

    fn load(&mut self, config: &Config, cpu: &mut Cpu) -> Result<()> {
        cpu.reset();
        let mut pc = devices::lock(&self.pc);
        let mut screen = BootScreen::None;
        if self.rom.is_none() {
            pc.set_up_as_firmware();
            screen = screen::set_up(&mut pc, &config.append);
        }
        let map = memory_map::memory_map(&mut pc, self.rom.as_ref().map(Rom::size));
        drop(pc);
        cpu.set_backings(&map);
        if let Some(rom) = &self.rom {
            rom.install(cpu.mmu.ram.memory())?;
        } else if let Some(kernel) = &config.kernel {
            let memory = cpu.mmu.ram.memory();
            for (address, bytes) in &self.left.data {
                memory.write_slice(bytes, GuestAddress(*address)).context("-m: no room for the BIOS' data")?;
            }
            let kernel = firmware::kernel_config(config, kernel);
            let boot = BootConfig { acpi: &self.left.tables, rsdp: self.left.rsdp, screen, ..kernel };
            let state = boot::load(memory, &boot)?;
            apply(&mut cpu.state, &state);
        } else {
            let demo = crate::demo::image()?;
            cpu.mmu.ram.memory().write_slice(&demo.bytes, GuestAddress(demo.load_address)).context("the demo guest")?;
            let cs = &mut cpu.state.seg[Seg::Cs as usize];
            cs.selector = demo.entry_segment;
            cs.base = u64::from(demo.entry_segment) * 16;
            cpu.state.rip = u64::from(demo.entry_offset);
        }
        if let Some(start) = boot::load_pieces(cpu.mmu.ram.memory(), config.ram_size, &config.pieces)? {
            cpu.state.rip = start;
        }
        cpu.update_mode();
        cpu.flush_tlb(false);
        Ok(())
    }

    fn inputs(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.started.inputs)
    }

    fn send_break(&self) -> impl FnMut() + Send + 'static {
        let (pc, clock, kicker) = (self.pc.clone(), self.clock.clone(), self.kicker.clone());
        move || {
            devices::lock(&pc).serial_break(FIRST_SERIAL, clock.now());
            kicker.kick();
        }
    }

    fn poll_devices(&mut self, vcpu: &mut Vcpu<Cpu>) -> DevicePoll {
        let now = self.clock.now();
        let mut pc = devices::lock(&self.pc);
        self.held.look(&mut pc, now);
        pc.advance(now);
        let event = pc.take_event();
        drop(pc);
        self.interrupts.advance(CPU, now);
        let signals = self.interrupts.take_signals(CPU);
        self.interrupt_pending = self.interrupts.pending(CPU);
        let deadline = self.deadline();
        self.hand_over_display_memory(vcpu);
        signal(vcpu, signals);
        let event = event.map(|event| match event {
            PcEvent::PowerOff => Event::PowerOff,
            PcEvent::Suspend => Event::Suspend,
            PcEvent::SuspendToDisk => Event::SuspendToDisk,
            PcEvent::DebugExit(code) => Event::Exit(code),
            PcEvent::Reset => Event::Reset,
            PcEvent::Panicked => Event::Panicked,
            PcEvent::CrashLoaded => Event::CrashLoaded,
            PcEvent::Watchdog => Event::Watchdog,
        });
        // Firmware, at the reset vector, would ask for a reset: nobody has told it of another way to go on.
        let event = if signals.init && self.rom.is_none() { event.or(Some(Event::Reset)) } else { event };
        DevicePoll { event, deadline }
    }

    fn step_vcpu(&mut self, vcpu: &mut Vcpu<Cpu>, pace: Pace) -> Result<StepOutcome> {
        if vcpu.cpu.triple_fault {
            tracing::warn!("triple fault at {:#x}: the machine resets", vcpu.cpu.state.rip);
            return Ok(StepOutcome::Reset);
        }
        if pace == Pace::One && !vcpu.cpu.waits() {
            vcpu.execute_one()?;
            return Ok(StepOutcome::Continue);
        }
        match vcpu.cpu.accepts(self.interrupt_pending) {
            Acceptance::Nothing => {}
            Acceptance::AfterNext => {
                vcpu.step_one()?;
                return Ok(StepOutcome::Continue);
            }
            Acceptance::Nmi => {
                vcpu.cpu.deliver_nmi();
                vcpu.cpu.header.verdict = 0;
            }
            Acceptance::Interrupt => self.take_interrupt(vcpu),
        }
        if !vcpu.cpu.resume(self.interrupt_pending) {
            return Ok(StepOutcome::Halt);
        }
        match pace {
            Pace::Free => vcpu.step()?,
            Pace::One => vcpu.execute_one()?,
        }
        Ok(StepOutcome::Continue)
    }

    fn deadline(&self) -> Option<u64> {
        let devices = [self.timers.next_deadline(), self.interrupts.next_deadline(CPU)].into_iter().flatten().min();
        self.held.deadline(devices)
    }

    fn reset(&mut self) {
        let mut pc = devices::lock(&self.pc);
        pc.reset(self.clock.now());
        pc.set_boot_order(self.boot_order);
        drop(pc);
        self.interrupt_pending = false;
    }

    fn console(&self) -> Option<&Console> {
        Some(&self.console)
    }

    fn send_keys(&mut self, keys: &[String], hold: u64) -> Result<(), String> {
        let result = self.held.press(&mut devices::lock(&self.pc), self.clock.now(), keys, hold);
        self.kicker.kick();
        result
    }

    fn screen(&mut self, ppm: bool) -> Result<Vec<u8>, String> {
        screen::image(&self.console, ppm)
    }

    fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    fn info(&mut self, topic: &str) -> Option<String> {
        if topic == "usernet" {
            // The network's thread answers, and may wait for the devices itself.
            return Some(self.inventory.usernet_text());
        }
        let mut pc = devices::lock(&self.pc);
        let id = |devfn| self.inventory.pci_id(devfn);
        match topic {
            "pci" => return Some(info::pci_text(pc.pci_configs(), id)),
            "qmp-pci" => return Some(info::pci_json(pc.pci_configs(), id).to_string()),
            "pic" => return Some(pc.pic_text()),
            "roms" => return Some(self.rom.as_ref().map(Rom::text).unwrap_or_default()),
            "mtree" => {
                let pieces = memory_map::chipset_map(&pc, self.rom.as_ref().map(Rom::size));
                return Some(info::address_text(&pc, &self.ram, &pieces, |devfn| self.inventory.pci_name(devfn)));
            }
            _ => {}
        }
        let functions: Vec<Pci> = pc.pci_configs().map(|(devfn, config)| Pci::new(devfn, config)).collect();
        let now = self.clock.now();
        self.inventory.info(topic, &mut |place| ide::tray(&mut pc, now, place), &functions)
    }

    fn change_medium(&mut self, drive: &str, disk: Option<Disk>, force: bool) -> Result<(), String> {
        let result = ide::change(&self.pc, self.clock.now(), &mut self.inventory, &self.cd_roms, (drive, disk, force));
        self.kicker.kick();
        result
    }

    fn press_power_button(&mut self) -> bool {
        devices::lock(&self.pc).press_power_button(self.clock.now());
        self.kicker.kick();
        true
    }

    fn wakes(&mut self) -> (bool, Option<u64>) {
        let mut pc = devices::lock(&self.pc);
        pc.advance(self.clock.now());
        (pc.wakes(), pc.wake_deadline())
    }

    fn wake(&mut self) -> bool {
        devices::lock(&self.pc).wake(self.clock.now())
    }

    fn resume(&mut self, cpu: &mut Cpu) -> bool {
        // With firmware it is firmware that finds the way back.
        let vector = if self.rom.is_some() { Some(0) } else { self.waking_vector(cpu) };
        let Some(vector) = vector else { return false };
        cpu.reset();
        let mut pc = devices::lock(&self.pc);
        pc.resume(self.clock.now());
        if self.rom.is_none() {
            pc.set_up_as_firmware();
            let cs = &mut cpu.state.seg[Seg::Cs as usize];
            cs.selector = (vector >> 4) as u16;
            cs.base = u64::from(vector & !0xf);
            cpu.state.rip = u64::from(vector & 0xf);
        }
        let map = memory_map::memory_map(&mut pc, self.rom.as_ref().map(Rom::size));
        drop(pc);
        cpu.set_backings(&map);
        self.interrupt_pending = false;
        cpu.update_mode();
        cpu.flush_tlb(false);
        true
    }

    fn raise_nmi(&mut self, _: &mut Vcpu<Cpu>) -> bool {
        self.interrupts.raise_nmi();
        true
    }

    fn port_read(&mut self, vcpu: &mut Vcpu<Cpu>, port: u16, size: u8) -> Option<u32> {
        Some(vcpu.cpu.bus.port_in(port, size))
    }

    fn port_write(&mut self, vcpu: &mut Vcpu<Cpu>, port: u16, size: u8, value: u32) -> bool {
        vcpu.cpu.port_out(port, size, value);
        true
    }
}

/// What displays reach of the devices.
fn console(parts: &Parts, pc: &SharedPc) -> Console {
    let handle = |vram: &Arc<Vram>| DisplayHandle {
        adapter: Arc::new(VgaHandle { pc: pc.clone(), devfn: vga::DEVFN }),
        vram: vram.clone(),
    };
    let display = parts.ram.display().map(handle);
    Console::new(Arc::new(KeyboardHandle(pc.clone())), display, parts.clock.clone(), parts.kicker.clone())
}

/// The devices of the PCI bus in the order in which they get places: the display adapter, which firmware knows by its place,
/// what has nothing of the host's, network adapters, and the others.
fn functions(config: &Config) -> Vec<&Device> {
    let is_function = |device: &&Device| matches!(device.model.make, Make::Function(_) | Make::Virtio(_));
    let mut functions: Vec<&Device> = config.devices.iter().filter(is_function).collect();
    functions.sort_by_key(|device| match device.model {
        model if model == VGA => 0,
        model if model.is_adapter() => 2,
        model if matches!(model.make, Make::Virtio(_)) => 3,
        _ => 1,
    });
    functions
}

/// Plugs in what is on the PCI bus: the place of each, and its host's side, which is to be started.
fn plug_functions(parts: &Parts, pc: &mut Pc, inventory: &mut Inventory) -> Result<Vec<(DevFn, Unstarted)>> {
    let places = Places::new(parts.config);
    let mut plugged = Vec::new();
    for device in functions(parts.config) {
        let (parts, unstarted) = host_side::parts(parts, device)?;
        let function = device.model.function(parts).with_context(|| host_side::mismatch(device.model))?;
        let addr = device.plug.addr.or((device.model == VGA).then_some(vga::DEVFN));
        let usual = device.model.is_adapter().then_some(FIRST_ADAPTER);
        let place = places.plug(pc, &Plug { addr, ..device.plug.clone() }, usual, function)?;
        host_side::tell(inventory, Attachment::Pci(place), device, &unstarted);
        plugged.push((place, unstarted));
    }
    Ok(plugged)
}

/// Hands the vCPU what its mailbox had, beside interrupts.
fn signal(vcpu: &mut Vcpu<Cpu>, signals: Signals) {
    if signals.init {
        vcpu.cpu.init();
        vcpu.moved();
    }
    if signals.nmi {
        vcpu.cpu.raise_nmi();
    }
    if signals.start_up.is_some_and(|vector| vcpu.cpu.start_up(vector)) {
        vcpu.moved();
    }
}

/// What the CPU tells of itself.
fn features(config: &Config) -> Features {
    let CpuFeatures { la57, hidden, identity } = config.cpu_features;
    let features = Features { tsc_hz: TSC_HZ, la57, hidden, identity, ..Features::default() };
    match config.firmware.qemu_identity {
        // What QEMU's translator calls itself.
        true => Features { hypervisor: *b"TCGTCGTCGTCG", ..features },
        false => features,
    }
}

fn segment(init: &SegmentInit) -> Segment {
    Segment { base: init.base, limit: init.limit, selector: init.selector, access: init.access }
}

/// Sets the registers that the boot protocol names.
fn apply(state: &mut State, boot: &BootState) {
    state.gpr = boot.gpr;
    state.rip = boot.rip;
    state.set_rflags(Rflags::from_bits_retain(boot.rflags));
    state.cr0 = Cr0::from_bits_retain(boot.cr0);
    state.cr3 = Cr3::from_bits_retain(boot.cr3);
    state.cr4 = Cr4::from_bits_retain(boot.cr4);
    state.efer = Efer::from_bits_retain(boot.efer);
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
