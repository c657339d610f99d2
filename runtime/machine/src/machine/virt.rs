//! The RISC-V boards `virt` and `spike`: the devices of `mimus_hw::Virt` and a hart as a [`Board`].

mod semihost;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use mimus_frontend::riscv::isa::{CACHE_BLOCK, EXTENSIONS};
use mimus_frontend::riscv::{Bus, Cpu, Features, Lines, TIME_HZ};
use mimus_hw::fabric::TimerQueue;
use mimus_hw::net::Adapter;
use mimus_hw::registry::{Bus as DeviceBus, SLOTS};
use mimus_hw::virt::{CLINT, VirtModel};
use mimus_hw::virtio::{Entropy, Virtio};
use mimus_hw::{SharedClint, Virt, VirtConfig, VirtEvent};
use mimus_softmmu::{Backing, MmioBus, PAGE_SIZE};
use vm_memory::GuestAddress;

use super::access::DeviceAccess;
use super::host_side::{self, HostEntropy, Started, VirtioAccess};
use super::input::Input;
use super::inventory::{Attachment, Inventory};
use super::{Board, DevicePoll, Event, Pace, Parts, StepOutcome};
use crate::boot::{self, RiscvBoot, TreeConfig};
use crate::config::{self, Config, MachineKind};
use mimus_engine::log;
use mimus_engine::vcpu::Vcpu;
use mimus_host::clock::{Alarm, Clock};
use mimus_softmmu::kick::Kicker;

/// The page tables that harts walk have up to five levels.
const MMU_TYPE: &str = "riscv,sv57";

/// Nanoseconds of a tick of mtime.
const TICK: u64 = 1_000_000_000 / TIME_HZ;

/// The hart that there is.
const HART: usize = 0;

/// The devices, shared with the threads that bring input, and what must follow when one of them has changed.
struct Devices {
    virt: Mutex<Virt>,
    clock: Clock,
    alarm: Alarm,
    kicker: Arc<Kicker>,
    /// The harts' timers and software interrupts: these accesses do not lock the devices.
    clint: Arc<SharedClint>,
    timers: TimerQueue,
    /// The hart's own timer, in ticks of mtime; `u64::MAX` for never.
    stimecmp: AtomicU64,
}

impl Devices {
    fn lock(&self) -> MutexGuard<'_, Virt> {
        // A device that panicked is a bug that was reported; its state is still consistent enough to go on.
        self.virt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the devices at the present time. Interrupts and deadlines go their own ways; what the guest asks of the
    /// machine is passed on here.
    fn access<T>(&self, f: impl FnOnce(&mut Virt, u64) -> T) -> T {
        let now = self.clock.now();
        let mut virt = self.lock();
        let result = f(&mut virt, now);
        let wanted = virt.has_event();
        drop(virt);
        if wanted {
            self.kicker.kick();
        }
        result
    }

    fn time(&self) -> u64 {
        self.clint.time(self.clock.now())
    }

    /// When the hart's own timer expires, in guest nanoseconds, if that is yet to come.
    fn timer_deadline(&self) -> Option<u64> {
        let stimecmp = self.stimecmp.load(Ordering::Acquire);
        let ticks = stimecmp.checked_sub(self.time()).filter(|&ticks| ticks != 0 && stimecmp != u64::MAX)?;
        // At the tick's beginning.
        let now = self.clock.now();
        Some((now - now % TICK).saturating_add(ticks.saturating_mul(TICK)))
    }

    fn deadline(&self) -> Option<u64> {
        let deadlines = [self.timers.next_deadline(), self.clint.next_deadline(HART), self.timer_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The offset in the CLINT's registers, if that is where they are.
    fn clint_offset(gpa: u64) -> Option<u64> {
        gpa.checked_sub(CLINT.base).filter(|offset| *offset < CLINT.size)
    }
}

/// The hart's way to the devices.
struct VirtBus(Arc<Devices>, VirtModel);

impl MmioBus for VirtBus {
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64 {
        match Devices::clint_offset(gpa) {
            Some(offset) => self.0.clint.read(self.0.clock.now(), offset, size),
            None => self.0.access(|virt, now| virt.mmio_read(now, gpa, size)),
        }
    }

    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64) {
        match Devices::clint_offset(gpa) {
            Some(offset) => self.0.clint.write(self.0.clock.now(), offset, size, value),
            None => self.0.access(|virt, now| virt.mmio_write(now, gpa, size, value)),
        }
    }

    fn ends_block(&self, gpa: u64) -> bool {
        Virt::ends_run(self.1, gpa)
    }
}

impl Bus for VirtBus {
    fn time(&mut self) -> u64 {
        self.0.time()
    }

    fn nanoseconds(&mut self) -> u64 {
        self.0.clock.now()
    }

    fn set_timer(&mut self, deadline: u64) {
        self.0.stimecmp.store(deadline, Ordering::Release);
        self.0.alarm.set(self.0.timer_deadline());
    }

    fn exists(&mut self, gpa: u64, size: u8) -> bool {
        Virt::exists(self.1, gpa, size)
    }
}

/// The way to a virtio device.
#[derive(Clone)]
struct VirtioMmioHandle {
    devices: Arc<Devices>,
    slot: usize,
}

impl DeviceAccess for VirtioMmioHandle {
    fn attend(&self) {
        self.devices.access(|virt, _| virt.attend(self.slot));
    }

    fn adapter<T: Default>(&self, f: impl FnOnce(&mut dyn Adapter) -> T) -> T {
        self.access(|device| f(device))
    }
}

impl VirtioAccess for VirtioMmioHandle {
    fn access<T: Default>(&self, f: impl FnOnce(&mut Virtio) -> T) -> T {
        self.devices.access(|virt, _| virt.virtio(self.slot, f)).unwrap_or_default()
    }
}

/// Which board a configuration is of.
fn model(config: &Config) -> VirtModel {
    if config.machine == MachineKind::Spike { VirtModel::Spike } else { VirtModel::Virt }
}

/// The devices of the board and the host's side of them.
pub(super) struct VirtBoard {
    // Before the devices: its threads use them.
    started: Started,
    devices: Arc<Devices>,
    inventory: Inventory,
}

impl Board for VirtBoard {
    type Cpu = Cpu;

    fn ram_ranges(config: &Config) -> Vec<(GuestAddress, usize)> {
        boot::riscv_ram_ranges(config.ram_size)
    }

    fn is_ram(_: &Config, address: GuestAddress) -> bool {
        address.0 != boot::ROM.0
    }

    fn build(parts: &Parts) -> Result<(VirtBoard, Box<Cpu>)> {
        let config = parts.config;
        let mem = parts.dma();
        let (serial, typed) = parts.open("-serial", &config.riscv.console)?;
        let board = VirtConfig {
            model: model(config),
            harts: config.smp.into(),
            unix_time_at_power_on: config.settings.rtc.seconds(),
            modern_virtio: !config.board_values(SLOTS).is_on("force-legacy"),
        };
        let mut virt = Virt::new(&board, serial, mem);
        let (mut unstarted, mut inventory) = (Vec::new(), Inventory::of(config));
        let kept: Vec<usize> = config.devices.iter().filter_map(|device| device.plug.slot).map(usize::from).collect();
        // There is no other bus.
        for device in config.devices.iter().filter(|device| device.model.bus == DeviceBus::Slot) {
            let (parts, host) = host_side::parts(parts, device)?;
            let made = device.model.virtio(parts).with_context(|| host_side::mismatch(device.model))?;
            let slot = match device.plug.slot.map(usize::from) {
                Some(slot) => slot,
                None => virt.free_slot(&kept).context("-device: no free slot for a virtio device")?,
            };
            ensure!(virt.plug(slot, made), "-device: bus=virtio-mmio-bus.{slot} is given twice");
            host_side::tell(&mut inventory, Attachment::Slot(slot), device, &host);
            unstarted.push((slot, host));
        }
        let (lines, timers) = (Lines::default(), virt.timers().clone());
        let (alarm, own_alarm) = (parts.alarm.clone(), parts.alarm.clone());
        timers.on_earlier(move |deadline| alarm.set(Some(deadline)));
        virt.clint().on_earlier(HART, move |deadline| own_alarm.set(Some(deadline)));
        let (driven, kicker) = (lines.clone(), parts.kicker.clone());
        virt.lines().on_change(HART, move |number, level| {
            driven.set(number, level);
            if level {
                kicker.kick();
            }
        });
        let devices = Arc::new(Devices {
            clint: virt.clint().clone(),
            timers,
            virt: Mutex::new(virt),
            clock: parts.clock.clone(),
            alarm: parts.alarm.clone(),
            kicker: parts.kicker.clone(),
            stimecmp: AtomicU64::new(u64::MAX),
        });
        let mut started = Started::default();
        for (slot, host) in unstarted {
            started.start(host, VirtioMmioHandle { devices: devices.clone(), slot })?;
        }
        let serial = devices.clone();
        let deliver = move |bytes: &[u8]| serial.access(|virt, now| virt.serial_receive(now, bytes));
        started.inputs.push(Input { chardev: config.riscv.console.clone(), source: typed, deliver: Box::new(deliver) });
        let features = Features { hart: HART as u64, reset_pc: boot::ROM.0 };
        let bus = Box::new(VirtBus(devices.clone(), model(config)));
        let (rom, size) = boot::ROM;
        for page in (rom..rom + size).step_by(PAGE_SIZE as usize) {
            // Neither harts nor devices write it; loading does, which goes past this.
            parts.ram.set_backing(page, Backing::ROM);
        }
        let mut cpu = Cpu::new(parts.ram.clone(), parts.cache.clone(), bus, features);
        cpu.lines = lines;
        if let Some(wanted) = &config.riscv.semihosting {
            let (calls, input) = semihost::open(parts, wanted, &devices)?;
            cpu.semihosting = Some(calls);
            started.inputs.extend(input);
        }
        Ok((VirtBoard { started, devices, inventory }, cpu))
    }

    fn load(&mut self, config: &Config, cpu: &mut Cpu) -> Result<()> {
        let default;
        let bios = match &config.bios {
            config::Bios::None => boot::Bios::None,
            config::Bios::File(path) => boot::Bios::File(path),
            config::Bios::Default => {
                default = boot::default_bios()?;
                boot::Bios::File(&default)
            }
        };
        let mut rng_seed = [0; 32];
        HostEntropy.fill(&mut rng_seed);
        let tree = TreeConfig {
            model: model(config),
            own_htif: false,
            ram_size: config.ram_size,
            harts: config.smp.into(),
            extensions: EXTENSIONS,
            cache_block: CACHE_BLOCK as u32,
            mmu: MMU_TYPE,
            bootargs: &config.append,
            initrd: None,
            rng_seed,
        };
        let (kernel, initrd) = (config.kernel.as_deref(), config.initrd.as_deref());
        let (dtb, dump) = (config.riscv.dtb.as_deref(), config.riscv.dump_dtb.as_deref());
        let boot = RiscvBoot { bios, kernel, pieces: &config.pieces, initrd, tree, dtb, dump };
        let start = boot::load_riscv(cpu.mmu.ram.memory(), &boot)?;
        self.devices.lock().set_htif(start.htif);
        cpu.features.reset_pc = start.pc;
        cpu.reset();
        Ok(())
    }

    fn inputs(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.started.inputs)
    }

    fn send_break(&self) -> impl FnMut() + Send + 'static {
        let devices = self.devices.clone();
        move || devices.access(|virt, now| virt.serial_break(now))
    }

    fn poll_devices(&mut self, vcpu: &mut Vcpu<Cpu>) -> DevicePoll {
        let now = self.devices.clock.now();
        let mut virt = self.devices.lock();
        virt.advance(now);
        let event = virt.take_event();
        drop(virt);
        self.devices.clint.advance(HART, now);
        let deadline = self.devices.deadline();
        let (pc, level) = (vcpu.cpu.state.pc, vcpu.cpu.state.privilege);
        if let Some(number) = vcpu.cpu.take_interrupt() {
            vcpu.stats.interrupts += 1;
            log::interrupt(number, pc, level);
        }
        let event = event.map(|event| match event {
            VirtEvent::PowerOff => Event::PowerOff,
            VirtEvent::Exit(code) => Event::Exit(code),
            VirtEvent::Reset => Event::Reset,
        });
        DevicePoll { event, deadline }
    }

    fn step_vcpu(&mut self, vcpu: &mut Vcpu<Cpu>, pace: Pace) -> Result<StepOutcome> {
        if vcpu.cpu.state.halted != 0 && !vcpu.cpu.wakes() {
            return Ok(StepOutcome::Halt);
        }
        match pace {
            Pace::Free => vcpu.step()?,
            Pace::One => vcpu.execute_one()?,
        }
        Ok(StepOutcome::Continue)
    }

    fn deadline(&self) -> Option<u64> {
        self.devices.deadline()
    }

    fn reset(&mut self) {
        self.devices.access(|virt, now| virt.reset(now));
    }

    fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    fn info(&mut self, topic: &str) -> Option<String> {
        self.inventory.info(topic, &mut |_| None, &[])
    }
}
