//! A machine with one device under test, in the hands of a guest that obeys no rule.
//!
//! Now and then the machine is saved and a second one is made of what was saved; from then on everything is done to both, and
//! the guest must not be able to tell them apart.

use std::fmt::Debug;
use std::sync::Arc;

use mimus_hw::block::{BlockJob, DmaTarget};
use mimus_hw::fw_cfg::FwCfg;
use mimus_hw::ide::{IDE_DEVFN, Ide, IdeDevice, IdeFunction, IdePlace};
use mimus_hw::net::{Adapter, Batch, Frame, FrameQueue, Offload};
use mimus_hw::pci::{DevFn, Space};
use mimus_hw::registry::{
    self, Bus, Handle, Parts, Transports, VIRTIO_9P, VIRTIO_BLK, VIRTIO_NET, VIRTIO_RNG, VIRTIO_SERIAL, Values,
};
use mimus_hw::vga::{DEVFN, Screen, StdVga, VRAM_SIZE};
use mimus_hw::virtio::{BlockInfo, BlockOp, ConsolePort, Interface, Virtio, VirtioPci};
use mimus_hw::{Htif, Pc, PcConfig, PcState, Virt, VirtConfig, VirtState, virt};
use mimus_softmmu::{DirtyPages, Dma, Ram, Vram};
use rustix::time::{ClockId, clock_gettime};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::host::{NoCode, Shared};
use crate::input::{Input, RAM};

/// Time of the host's processor that one access may take, in seconds. Even what is slow takes a thousandth of that.
const PATIENCE: f64 = 5.0;
/// Times that a machine may say that it has something to do at once, one after another.
const AT_ONCE: u32 = 20_000;
/// Processors of the PC, and harts of the RISC-V board.
const CPUS: usize = 2;
/// Frequency of the PC's time-stamp counter in Hz.
const TSC_HZ: u64 = 1_000_000_000;
/// Where the functions under test are plugged in, but for the VGA and the IDE controller, which have their places.
const PLACE: DevFn = 4 << 3;
/// Sectors of the disks.
const SECTORS: u64 = 4096;

/// What is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug {
    /// Nothing that was not there already.
    Nothing,
    /// What the rows of this target make by themselves.
    Rows(&'static str),
    /// A timer.
    Hpet,
    /// A disk on virtio.
    Block,
    /// A network adapter on virtio.
    Net,
    /// A source of random numbers on virtio.
    Rng,
    /// A console on virtio.
    Console,
    /// Ports of characters on virtio.
    Ports,
    /// A shared folder on virtio.
    Share,
    /// A network adapter with descriptor rings of its own.
    E1000,
    /// A screen.
    Vga,
    /// A disk, an empty and a full CD-ROM drive.
    Ide,
    /// What firmware is told.
    FwCfg,
    /// The words of the host-target interface.
    Htif,
}

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// The PC.
    Pc,
    /// The RISC-V board.
    Virt,
}

impl Board {
    /// Where RAM begins.
    pub fn base(self) -> u64 {
        match self {
            Board::Pc => 0,
            Board::Virt => virt::RAM_BASE,
        }
    }
}

enum Machine {
    Pc(Box<Pc>),
    Virt(Box<Virt>),
}

#[derive(Debug, PartialEq)]
enum State {
    Pc(Box<PcState>),
    Virt(Box<VirtState>),
}

impl Machine {
    fn save(&self) -> State {
        match self {
            Machine::Pc(pc) => State::Pc(Box::new(pc.save())),
            Machine::Virt(virt) => State::Virt(Box::new(virt.save())),
        }
    }

    /// Takes over a state that went through bytes.
    fn restore(&mut self, state: &State) {
        const WELL: &str = "what was saved can be restored";
        match (self, state) {
            (Machine::Pc(pc), State::Pc(state)) => {
                let bytes = postcard::to_stdvec(state).expect("a state is data");
                pc.restore(postcard::from_bytes(&bytes).expect("bytes are a state")).expect(WELL);
            }
            (Machine::Virt(virt), State::Virt(state)) => {
                let bytes = postcard::to_stdvec(state).expect("a state is data");
                virt.restore(postcard::from_bytes(&bytes).expect("bytes are a state")).expect(WELL);
            }
            _ => unreachable!("both are of one board"),
        }
    }
}

/// A machine with its memory and the host's side.
pub struct Side {
    machine: Machine,
    ram: Arc<Ram>,
    host: Shared,
    screen: Screen,
    vram: Option<Arc<Vram>>,
    /// The virtio slot.
    slot: usize,
}

impl Side {
    fn new(board: Board, plug: Plug, host: Shared) -> Side {
        let range = |(start, size)| (GuestAddress(board.base() + start), size as usize);
        let memory = GuestMemoryMmap::from_ranges(&RAM.map(range)).expect("a little memory");
        let ram = Arc::new(Ram::new(memory));
        let mem = Dma::new(ram.clone(), Arc::new(NoCode));
        let info = BlockInfo { sectors: SECTORS, read_only: false, discard: true, serial: "fuzz".into() };
        // It is the same in a slot.
        let made = |of: Transports, handle| {
            of.pci.virtio(Parts { values: &Values::new(of.pci), mem: mem.clone(), handle }).expect("its handle")
        };
        let network = || Handle::Network([2; 6], Some(Box::new(host.clone())));
        let port = |number, name: &str| {
            let sink = Box::new(host.clone());
            ConsolePort { number, name: name.to_owned(), console: number == 0, sink }
        };
        let virtio = match plug {
            Plug::Block => Some(made(VIRTIO_BLK, Handle::Disk(info.clone(), host.disk(0)))),
            Plug::Net => Some(made(VIRTIO_NET, network())),
            Plug::Rng => Some(made(VIRTIO_RNG, Handle::Random(Box::new(host.clone())))),
            Plug::Console => Some(made(VIRTIO_SERIAL, Handle::Ports(vec![port(0, "")]))),
            Plug::Share => Some(made(VIRTIO_9P, Handle::Folder("tag".into(), Box::new(host.clone())))),
            Plug::Ports => Some(made(VIRTIO_SERIAL, Handle::Ports(vec![port(0, ""), port(2, "org.port.2")]))),
            _ => None,
        };
        let (mut vram, mut slot) = (None, 0);
        let machine = match board {
            Board::Pc => {
                let config = PcConfig {
                    ram_size: 64 << 20,
                    cpus: CPUS as u8,
                    tsc_hz: TSC_HZ,
                    unix_time_at_power_on: 1_000_000_000,
                };
                let mut pc = Box::new(Pc::new(config));
                plug_rows(&mut pc, plug, &mem, &host);
                if let Some(device) = virtio {
                    pc.plug(Some(PLACE), Box::new(VirtioPci::new(device, Interface::Transitional)));
                }
                match plug {
                    Plug::E1000 => {
                        let parts = Parts { values: &Values::new(registry::E1000), mem, handle: network() };
                        pc.plug(Some(PLACE), registry::E1000.function(parts).expect("an adapter"));
                    }
                    Plug::Vga => {
                        let memory = Arc::new(Vram::new(VRAM_SIZE as usize).expect("display memory"));
                        pc.plug(Some(DEVFN), Box::new(StdVga::new(memory.clone(), Some(vec![0x55; 3000]))));
                        vram = Some(memory);
                    }
                    Plug::Ide => {
                        pc.plug(Some(IDE_DEVFN), Box::new(IdeFunction::new(ide(mem, info, &host))));
                    }
                    Plug::Hpet => pc.plug_hpet(),
                    Plug::FwCfg => {
                        let mut device = FwCfg::new(mem);
                        device.add_file("opt/short", vec![1; 5]);
                        device.add_file("opt/long", vec![2; 70_000]);
                        pc.set_fw_cfg(device);
                    }
                    _ => {}
                }
                pc.set_up_as_firmware();
                Machine::Pc(pc)
            }
            Board::Virt => {
                let config = VirtConfig {
                    model: virt::VirtModel::Virt,
                    harts: CPUS,
                    unix_time_at_power_on: 1_000_000_000,
                    modern_virtio: true,
                };
                let mut virt = Box::new(Virt::new(&config, Box::new(host.clone()), mem));
                if let Some(device) = virtio {
                    slot = virt.free_slot(&[]).expect("a free slot");
                    virt.plug(slot, device);
                }
                if plug == Plug::Htif {
                    let tohost = virt::RAM_BASE + HTIF;
                    virt.set_htif(Some(Htif { tohost, fromhost: Some(tohost + 64) }));
                }
                Machine::Virt(virt)
            }
        };
        Side { machine, ram, host, screen: Screen::default(), vram, slot }
    }

    /// Does something with the network adapter.
    fn adapter<T>(&mut self, now: u64, f: impl FnOnce(&mut dyn Adapter) -> T) -> Option<T> {
        match &mut self.machine {
            Machine::Pc(pc) => pc.adapter(now, PLACE, f),
            Machine::Virt(virt) => virt.virtio(self.slot, |adapter| f(adapter)),
        }
    }

    fn virtio<T>(&mut self, now: u64, f: impl FnOnce(&mut Virtio) -> T) -> Option<T> {
        match &mut self.machine {
            Machine::Pc(pc) => pc.function(now, PLACE, |function: &mut VirtioPci, _| f(function.device_mut())),
            Machine::Virt(virt) => virt.virtio(self.slot, f),
        }
    }

    /// Does one of the disks' jobs; what was to be written. The order of a disk's jobs is the same on both sides.
    fn job(&mut self, now: u64, nth: usize, well: bool, fill: u8) -> Option<(BlockOp, Vec<u8>)> {
        let host = self.host.clone();
        let key = host.lock().jobs.keys().copied().nth(nth)?;
        let job = host.lock().jobs.remove(&key)?;
        let BlockJob { op, buffer, .. } = &job;
        let mut taken = Vec::new();
        if let BlockOp::Read { len, .. } | BlockOp::Write { len, .. } = *op {
            let write = matches!(op, BlockOp::Write { .. });
            let mut at = 0;
            while at < len {
                let mut piece = vec![fill; (len - at).min(100_000) as usize];
                let wanted = if write {
                    buffer.take(at, &mut piece)
                } else {
                    straight(buffer.target(at, piece.len()));
                    buffer.fill(at, &piece)
                };
                if !wanted {
                    break;
                }
                at += piece.len() as u64;
                taken.extend(piece);
            }
        }
        job.finish(well);
        match &mut self.machine {
            Machine::Pc(pc) => {
                pc.attend(now, IDE_DEVFN);
                pc.attend(now, PLACE);
            }
            Machine::Virt(virt) => virt.attend(self.slot),
        }
        Some((*op, taken))
    }

    /// Answers one of the messages of a shared folder's driver; what it was, and what there was room for.
    fn message(&mut self, now: u64, nth: usize, answer: &[u8]) -> Option<(Vec<u8>, u64)> {
        let host = self.host.clone();
        let token = host.lock().messages.iter().nth(nth).copied()?;
        host.lock().messages.remove(&token);
        let request = self.virtio(now, |device| device.share_request(token)).flatten();
        self.virtio(now, |device| device.share_answer(token, answer));
        request.map(|request| (request.message, request.room))
    }

    fn next_deadline(&self) -> Option<u64> {
        match &self.machine {
            Machine::Pc(pc) => {
                let own = (0..CPUS).map(|cpu| pc.interrupts().next_deadline(cpu));
                own.chain([pc.next_deadline()]).flatten().min()
            }
            Machine::Virt(virt) => {
                let own = (0..CPUS).map(|hart| virt.clint().next_deadline(hart));
                own.chain([virt.next_deadline()]).flatten().min()
            }
        }
    }

    fn memory(&self) -> Vec<Vec<u8>> {
        let piece = |&(start, size): &(u64, u64)| {
            let mut bytes = vec![0; size as usize];
            let base = if matches!(self.machine, Machine::Pc(_)) { Board::Pc } else { Board::Virt }.base();
            self.ram.memory().read_slice(&mut bytes, GuestAddress(base + start)).expect("it is RAM");
            bytes
        };
        RAM.iter().map(piece).collect()
    }
}

/// Where the host-target interface's words are, relative to RAM.
pub const HTIF: u64 = 0x1000;

/// Targets whose devices every PC here has, since guests look for them.
const ALWAYS: [&str; 2] = ["uart", "debug-ports"];

/// Plugs in what rows of the registry make by themselves: those of the target, and those that are always there.
fn plug_rows(pc: &mut Pc, plug: Plug, mem: &Dma, host: &Shared) {
    let is_wanted = |name: &&'static str| ALWAYS.contains(name) || plug == Plug::Rows(name);
    for model in registry::offered(registry::Board::Pc).filter(|model| model.fuzz.iter().any(is_wanted)) {
        let mut values = Values::new(model);
        (model.place)(&mut values, &[]).expect("there is room");
        let parts = Parts { values: &values, mem: mem.clone(), handle: Handle::Chars(Box::new(host.clone())) };
        match model.bus {
            Bus::Isa => drop(model.plug_isa(pc, parts)),
            _ => drop(model.function(parts).map(|function| pc.plug(Some(PLACE), function))),
        }
    }
}

/// The drives: a disk, and CD-ROM drives with and without a medium.
fn ide(mem: Dma, info: BlockInfo, host: &Shared) -> Ide {
    let mut ide = Ide::new(mem);
    ide.plug(place(0), IdeDevice::Disk { info: info.clone(), backend: host.disk(0) });
    let medium = BlockInfo { read_only: true, discard: false, ..info };
    ide.plug(place(1), IdeDevice::CdRom { medium: Some((medium, host.disk(1))), serial: "cd".into() });
    ide.plug(place(2), IdeDevice::CdRom { medium: None, serial: "empty".into() });
    ide
}

/// Where drive `number` is.
fn place(number: u8) -> IdePlace {
    IdePlace { channel: usize::from(number & 1), unit: usize::from(number >> 1) }
}

/// The host processor's time of this thread in seconds: somebody else's work, and a stopped process, do not count.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The machine, or two that are to be the same.
pub struct Bench {
    /// Which.
    pub board: Board,
    /// What is plugged in.
    pub plug: Plug,
    now: u64,
    sides: Vec<Side>,
    /// Where the virtio device's queues are with their drivers: the available ring's index of each.
    pub available: [u16; 4],
}

impl Bench {
    /// A machine that has just been switched on.
    pub fn new(board: Board, plug: Plug) -> Bench {
        let side = Side::new(board, plug, Shared::default());
        Bench { board, plug, now: 0, sides: vec![side], available: [0; 4] }
    }

    /// Does the same to each side; what comes of it must be the same, and in time.
    pub fn each<T: PartialEq + Debug>(&mut self, mut f: impl FnMut(&mut Side, u64) -> T) -> T {
        let (now, begin) = (self.now, processor_time());
        let mut sides = self.sides.iter_mut();
        let first = sides.next().map(|side| f(side, now)).expect("there is a machine");
        for side in sides {
            let second = f(side, now);
            if first != second {
                let texts = [&first, &second].map(|value| format!("{value:x?}").chars().take(400).collect::<String>());
                panic!("the machine that was saved gives {}, the restored one {}", texts[0], texts[1]);
            }
        }
        let took = processor_time() - begin;
        assert!(took < PATIENCE, "an access took {took} s");
        first
    }

    /// Reads an I/O port.
    pub fn port_read(&mut self, port: u16, size: u8) -> u32 {
        self.each(|side, now| match &mut side.machine {
            Machine::Pc(pc) => pc.port_read(now, port, size.min(4)),
            Machine::Virt(_) => 0,
        })
    }

    /// Writes an I/O port.
    pub fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.each(|side, now| {
            if let Machine::Pc(pc) = &mut side.machine {
                pc.port_write(now, port, size.min(4), value);
            }
        });
    }

    /// Reads a device's memory.
    pub fn read(&mut self, gpa: u64, size: u8) -> u64 {
        self.each(|side, now| match &mut side.machine {
            Machine::Pc(pc) => pc.mmio_read(now, 0, gpa, size),
            Machine::Virt(virt) => virt.mmio_read(now, gpa, size),
        })
    }

    /// Writes a device's memory.
    pub fn write(&mut self, gpa: u64, size: u8, value: u64) {
        self.each(|side, now| match &mut side.machine {
            Machine::Pc(pc) => pc.mmio_write(now, 0, gpa, size, value),
            Machine::Virt(virt) => virt.mmio_write(now, gpa, size, value),
        });
    }

    /// Writes RAM, or where there is none.
    pub fn put(&mut self, gpa: u64, bytes: &[u8]) {
        self.each(|side, _| side.ram.memory().write_slice(bytes, GuestAddress(gpa)).is_ok());
    }

    /// Goes on to `now` plus `ns`.
    pub fn advance(&mut self, ns: u64) {
        self.now = self.now.saturating_add(ns).min(1 << 61);
        self.each(|side, now| match &mut side.machine {
            Machine::Pc(pc) => {
                pc.advance(now);
                (0..CPUS).for_each(|cpu| pc.interrupts().advance(cpu, now));
            }
            Machine::Virt(virt) => {
                virt.advance(now);
                (0..CPUS).for_each(|hart| virt.clint().advance(hart, now));
            }
        });
    }

    /// Goes on to the next deadline, some times. A machine that has something to do at once again and again hangs.
    pub fn run(&mut self, times: u8) {
        let mut at_once = 0;
        let mut left = times;
        while left != 0 {
            let Some(deadline) = self.each(|side, _| side.next_deadline()) else { return };
            if deadline > self.now {
                left -= 1;
                at_once = 0;
            }
            at_once += 1;
            assert!(at_once < AT_ONCE, "the machine is never done");
            self.advance(deadline.saturating_sub(self.now));
        }
    }

    /// The reset line.
    pub fn reset(&mut self) {
        self.each(|side, now| match &mut side.machine {
            Machine::Pc(pc) => pc.reset(now),
            Machine::Virt(virt) => virt.reset(now),
        });
        if self.board == Board::Pc {
            self.each(|side, _| match &mut side.machine {
                Machine::Pc(pc) => pc.set_up_as_firmware(),
                Machine::Virt(_) => {}
            });
        }
    }

    /// Ends the comparison with a second machine, or begins one.
    pub fn twin(&mut self) {
        if self.sides.len() > 1 {
            self.compare();
            // The other goes on, so that what was restored is restored again.
            self.sides.remove(0);
            return;
        }
        let Some(first) = self.sides.first() else { return };
        let mut second = Side::new(self.board, self.plug, first.host.copy());
        for (bytes, (start, _)) in first.memory().iter().zip(RAM) {
            let at = GuestAddress(self.board.base() + start);
            second.ram.memory().write_slice(bytes, at).expect("it is RAM");
        }
        let state = first.machine.save();
        second.machine.restore(&state);
        keep_known(&first.host, &second.host);
        second.slot = first.slot;
        self.sides.push(second);
        self.compare();
    }

    /// Whether both machines are in the same state.
    fn compare(&mut self) {
        if self.sides.len() < 2 {
            return;
        }
        let states: Vec<State> = self.sides.iter().map(|side| side.machine.save()).collect();
        let jobs = matches!(self.plug, Plug::Block | Plug::Ide | Plug::Share);
        let states: Vec<State> =
            if jobs { states.iter().map(|state| self.renumbered(state)).collect() } else { states };
        let same = states.windows(2).all(|pair| pair[0] == pair[1]);
        assert!(same, "different states: {}", states.windows(2).map(difference).collect::<String>());
        let hosts: Vec<(u64, u64)> = self.sides.iter().map(|side| side.host.lock().sent).collect();
        assert!(hosts.windows(2).all(|pair| pair[0] == pair[1]), "different output: {hosts:x?}");
        let memories: Vec<Vec<Vec<u8>>> = self.sides.iter().map(Side::memory).collect();
        assert!(memories.windows(2).all(|pair| pair[0] == pair[1]), "different memory");
    }

    /// A state whose jobs have numbers from 1 on, as those of a machine that was restored have.
    fn renumbered(&self, state: &State) -> State {
        let mut side = Side::new(self.board, self.plug, Shared::default());
        side.machine.restore(state);
        side.machine.save()
    }

    /// What is left to check at the end.
    pub fn finish(&mut self) {
        self.run(3);
        self.compare();
    }

    /// Where the functions under test answer at present.
    pub fn pci_windows(&mut self) -> Vec<(bool, u64, u64)> {
        self.each(|side, _| match &side.machine {
            Machine::Pc(pc) => {
                let ours = pc.pci_configs().filter(|(place, _)| [PLACE, DEVFN, IDE_DEVFN].contains(place));
                ours.flat_map(|(_, config)| config.windows().map(|w| (w.space == Space::Io, w.base, w.size))).collect()
            }
            Machine::Virt(_) => Vec::new(),
        })
    }

    /// Where the function under test has base address register `bar`; none while it does not answer there.
    pub fn bar(&mut self, bar: usize) -> Option<u64> {
        self.each(|side, _| match &side.machine {
            Machine::Pc(pc) => {
                let (_, config) = pc.pci_configs().find(|(place, _)| *place == PLACE)?;
                config.windows().find(|window| window.bar == bar).map(|window| window.base)
            }
            Machine::Virt(_) => None,
        })
    }

    /// Address of the virtio device's slot.
    pub fn slot(&mut self) -> u64 {
        self.each(|side, _| virt::VIRTIO.base + virt::VIRTIO.size * side.slot as u64)
    }

    /// Accesses the configuration space of the function under test: writes, if there is a `value`.
    pub fn config(&mut self, register: u8, size: u8, value: Option<u32>) {
        let place = match self.plug {
            Plug::Vga => DEVFN,
            Plug::Ide => IDE_DEVFN,
            _ => PLACE,
        };
        self.port_write(0xcf8, 4, 1 << 31 | u32::from(place) << 8 | u32::from(register & 0xfc));
        let port = 0xcfc + u16::from(register & 3);
        match value {
            Some(value) => self.port_write(port, size, value),
            None => {
                self.port_read(port, size);
            }
        }
    }

    /// Something from outside the guest, or a vCPU's look at its interrupts.
    pub fn outside(&mut self, input: &mut Input) {
        let what = input.u8();
        match what % 10 {
            0 => {
                let bytes = input.bytes(20);
                self.each(|side, now| match &mut side.machine {
                    Machine::Pc(pc) => (pc.serial_room(0), pc.serial_receive(0, now, &bytes)),
                    Machine::Virt(virt) => (virt.serial_room(), virt.serial_receive(now, &bytes)),
                });
            }
            1 => self.keyboard(input),
            2 => self.look(),
            3 | 4 => self.processor(input),
            5 | 6 => {
                let (nth, well, fill) = (input.below(4) as usize, !input.one_in(8), input.u8());
                self.each(|side, now| side.job(now, nth, well, fill));
                let answer = vec![fill; if well { 11 } else { usize::from(fill) * 100 }];
                self.each(|side, now| side.message(now, nth, &answer));
            }
            7 => self.transmit(),
            8 => self.receive(input),
            _ => {
                let bytes = input.bytes(300);
                if self.plug == Plug::Console {
                    let port = u32::from(what / 10 % 3);
                    self.each(|side, now| side.virtio(now, |device| device.console_receive(port, &bytes)));
                }
            }
        }
    }

    fn keyboard(&mut self, input: &mut Input) {
        let (x, y, wheel, buttons) = (input.value() as i32, input.value() as i32, input.u8() as i8, input.u8());
        let name = input.pick(&["a", "esc", "pause", "print", "kp_0", "shift", "caps_lock"]);
        self.each(|side, now| {
            if let Machine::Pc(pc) = &mut side.machine {
                if let Some(key) = mimus_hw::keys::Key::named(name) {
                    pc.key(now, key, buttons & 0x80 != 0);
                }
                pc.mouse(now, mimus_hw::MouseEvent { dx: x, dy: y, dz: wheel.into(), buttons: buttons & 0x1f });
            }
        });
    }

    /// What a vCPU asks for.
    fn look(&mut self) {
        self.each(|side, now| match &mut side.machine {
            Machine::Pc(pc) => {
                let vector = pc.interrupts().pending(0).then(|| pc.interrupts().acknowledge(0));
                let taken = pc.interrupts().take_signals(1);
                format!("{vector:?} {taken:?} {:?} {}", pc.take_event(), pc.pic_text())
            }
            Machine::Virt(virt) => {
                format!("{:x} {:x} {:?}", virt.interrupts(now, 0), virt.interrupts(now, 1), virt.take_event())
            }
        });
        // Drawing what the registers say must work, whatever it is.
        self.each(|side, now| {
            let (Machine::Pc(pc), Some(vram)) = (&mut side.machine, &side.vram) else { return };
            let regs = pc.function(now, DEVFN, |vga: &mut StdVga, _| vga.vga().regs().clone());
            if let Some(regs) = regs {
                let mut dirty = DirtyPages::default();
                vram.take_dirty(&mut dirty);
                side.screen.update(&regs, vram, &dirty, now);
                let frame = side.screen.frame();
                assert!(frame.width <= 1 << 12 && frame.height <= 1 << 13, "a picture of {frame:?}");
            }
        });
    }

    /// What a processor does to its local APIC other than by memory.
    fn processor(&mut self, input: &mut Input) {
        let (what, cpu, value) = (input.u8(), input.below(3) as usize, input.value());
        let (tsc, deadline) = (input.u32(), input.value());
        self.each(|side, now| {
            let Machine::Pc(pc) = &mut side.machine else { return 0 };
            let locals = pc.interrupts();
            match what % 5 {
                0 => locals.set_tpr(cpu, value as u8),
                // Where it moves to: nowhere, mostly, where nothing else is.
                1 => return u64::from(locals.set_apic_base(cpu, if value & 4 == 0 { 0xfee0_0900 } else { value })),
                2 => locals.set_tsc_deadline(cpu, now, tsc.into(), TSC_HZ, deadline),
                3 => pc.press_power_button(now),
                _ => return locals.tsc_deadline(cpu) ^ u64::from(locals.tpr(cpu)) ^ locals.apic_base(cpu),
            }
            0
        });
    }

    /// The network's thread takes what the guest has sent.
    fn transmit(&mut self) {
        if !matches!(self.plug, Plug::Net | Plug::E1000) {
            return;
        }
        self.each(|side, now| {
            let mut batch = Batch::default();
            let more = side.adapter(now, |adapter| adapter.transmit(&mut batch));
            let frames: Vec<(Vec<u8>, Offload)> =
                batch.iter().map(|(bytes, offload)| (bytes.to_vec(), offload)).collect();
            assert!(frames.iter().all(|(bytes, _)| bytes.len() <= mimus_hw::net::MAX_SEGMENTED), "a long frame");
            (more, frames)
        });
    }

    /// The network's thread has frames for the guest.
    fn receive(&mut self, input: &mut Input) {
        if !matches!(self.plug, Plug::Net | Plug::E1000) {
            return;
        }
        let (count, len) = (input.below(5), input.u16() as usize);
        let bytes = vec![input.u8(); len];
        let offload = Offload { checksum: None, segment: 0, headers: 0 };
        self.each(|side, now| {
            let mut queue = FrameQueue::default();
            (0..count).for_each(|_| queue.push(Frame { bytes: bytes.clone(), offload }));
            (side.adapter(now, |adapter| adapter.receive(&mut queue)), queue.len())
        });
    }
}

/// The beginning of what is different in two states.
fn difference(states: &[State]) -> String {
    const AROUND: usize = 200;
    let texts: Vec<Vec<char>> = states.iter().map(|state| format!("{state:x?}").chars().collect()).collect();
    let [first, second] = &texts[..] else { return String::new() };
    let at = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let part = |text: &[char]| text.iter().skip(at.saturating_sub(AROUND)).take(2 * AROUND).collect::<String>();
    format!("{}\n{}", part(first), part(second))
}

/// Forgets what `first` has of jobs that its devices have not, and numbers the others as `second` does: a disk's last are those
/// that count, for it forgets all at once.
fn keep_known(first: &Shared, second: &Shared) {
    let (mut first, second) = (first.lock(), second.lock());
    for disk in 0..4 {
        let ours: Vec<(u64, BlockOp)> =
            first.jobs.range((disk, 0)..=(disk, u64::MAX)).map(|(key, job)| (key.1, job.op)).collect();
        let theirs: Vec<BlockOp> = second.jobs.range((disk, 0)..=(disk, u64::MAX)).map(|(_, job)| job.op).collect();
        let forgotten = ours.len().checked_sub(theirs.len()).expect("no job is made by restoring");
        let (gone, known) = ours.split_at(forgotten);
        assert!(known.iter().map(|(_, op)| op).eq(&theirs), "restored jobs {theirs:?}, the disk had {known:?}");
        for (token, _) in gone {
            first.jobs.remove(&(disk, *token));
        }
    }
}

/// Writes to where a disk's data may go straight to.
fn straight(target: Option<DmaTarget<'_>>) {
    for slice in target.as_ref().and_then(DmaTarget::slices).into_iter().flatten() {
        slice.copy_from(&vec![0x5au8; slice.len()]);
    }
}
