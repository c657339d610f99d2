//! The registry of devices, a row a device: what it is called, the bus that it is on, its properties with their types and
//! defaults, how it is made, and what fuzzes it. The command line, what monitors tell and the fuzz targets are read from the rows;
//! nobody else writes down a device's name, property or default.
//!
//! A row knows nothing of the host. What a device needs of it, such as where characters go, comes as a handle in [`Parts`].

mod absent;
mod board;
mod ide;
mod isa;
mod pci;
mod property;
mod virtio;

use std::sync::Arc;

use mimus_softmmu::{Dma, Vram};

use crate::block::{BlockBackend, BlockInfo};
use crate::fabric::CharSink;
use crate::isa::IsaDevice;
use crate::net::NetPeer;
use crate::pc::Pc;
use crate::pci::{DevFn, Function, Space};
use crate::share::ShareBackend;
use crate::virtio::{ConsolePort, Entropy, Virtio, VirtioPci};
pub use absent::ABSENT;
pub use board::{HPET, POWER, SLOTS};
pub use ide::{CD_ROM as IDE_CD, DISK as IDE_HD, drive_place, put_drive};
pub use isa::{DEBUGCON as ISA_DEBUGCON, SERIAL as ISA_SERIAL, TOO_MANY as TOO_MANY_SERIALS};
pub use pci::{ADDR, E1000, VGA};
pub use property::{Default, Host, ID, Kind, Property, Value, Values};
pub use virtio::{
    BLOCK as VIRTIO_BLK, CONSOLE as VIRTCONSOLE, NET as VIRTIO_NET, PORT as VIRTSERIALPORT, RNG as VIRTIO_RNG,
    SERIAL_BUS as VIRTIO_SERIAL, SHARE as VIRTIO_9P, Transports, interface,
};

/// A board, as far as devices differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// The PC.
    Pc,
    /// `virt` for RISC-V.
    Virt,
    /// `spike` for RISC-V.
    Spike,
}

/// A kind of bus, which decides where a device can be plugged in and what QEMU's object model says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// At fixed addresses of a board.
    System,
    /// The ISA bus.
    Isa,
    /// The PCI bus.
    Pci,
    /// A cable of an IDE controller.
    Ide,
    /// A slot of a board with virtio-mmio.
    Slot,
    /// A virtio-serial device.
    Ports,
}

impl Bus {
    /// The type in QEMU's object model that all devices on such a bus are of.
    pub const fn parent(self) -> &'static str {
        match self {
            Bus::System => "sys-bus-device",
            Bus::Isa => "isa-device",
            Bus::Pci => "pci-device",
            Bus::Ide => "ide-device",
            Bus::Slot => "virtio-device",
            Bus::Ports => "virtio-serial-port",
        }
    }

    /// Whether a user can plug a device into such a bus of this board.
    pub const fn is_on(self, board: Board) -> bool {
        match self {
            Bus::System => false,
            Bus::Isa | Bus::Pci | Bus::Ide => matches!(board, Board::Pc),
            Bus::Slot => !matches!(board, Board::Pc),
            Bus::Ports => true,
        }
    }
}

/// What a device has of the host's.
pub enum Handle {
    /// Nothing.
    Nothing,
    /// Where the characters go that it sends.
    Chars(Box<dyn CharSink>),
    /// A disk, and who does its jobs.
    Disk(BlockInfo, Box<dyn BlockBackend>),
    /// A hardware address, and the network that it is plugged into, if any.
    Network([u8; 6], Option<Box<dyn NetPeer>>),
    /// Random numbers.
    Random(Box<dyn Entropy>),
    /// What a folder is mounted by, and who answers for it.
    Folder(String, Box<dyn ShareBackend>),
    /// Consoles and ports.
    Ports(Vec<ConsolePort>),
    /// Display memory, and the BIOS that firmware runs.
    Display(Arc<Vram>, Option<Vec<u8>>),
}

/// What a device is made of.
pub struct Parts<'a> {
    /// The values of its properties.
    pub values: &'a Values,
    /// Guest RAM.
    pub mem: Dma,
    /// What its properties of kind [`Kind::Id`] name.
    pub handle: Handle,
}

/// How a device is made.
#[derive(Clone, Copy)]
pub enum Make {
    /// The device is part of boards, or made by their own code.
    Board,
    /// A device for the ISA bus.
    IsaDevice(fn(&Values) -> Box<dyn IsaDevice>),
    /// Plugged into the PC by this. The number of its serial port, if its input is to be brought by [`Pc::serial_receive`].
    Isa(fn(&mut Pc, Parts<'_>) -> Option<usize>),
    /// A function for the PCI bus; `None` if its handle is none for it.
    Function(fn(Parts<'_>) -> Option<Box<dyn Function>>),
    /// A virtio device, which is a function of the PCI bus or in a slot; `None` if its handle is none for it.
    Virtio(fn(Parts<'_>) -> Option<Virtio>),
}

/// Registers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The address space.
    pub space: Space,
    /// The first one's address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes from one register to the next.
    pub step: u64,
}

/// I/O ports.
const fn ports(base: u64, size: u64) -> Window {
    Window { space: Space::Io, base, size, step: 1 }
}

/// All I/O ports from the first to the last.
const fn range((first, last): (u16, u16)) -> Window {
    ports(first as u64, (last - first) as u64 + 1)
}

/// Registers in memory.
const fn memory(base: u64, size: u64, step: u64) -> Window {
    Window { space: Space::Memory, base, size, step }
}

/// Where a device is on its board, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Nothing is to be said.
    Nowhere,
    /// In memory: the first address, and bytes.
    Memory(u64, u64),
    /// At I/O ports from this one on.
    Ports(u16),
    /// At these ISA interrupt lines.
    Irqs(&'static [u8]),
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::Nowhere => Ok(()),
            Location::Memory(base, size) => write!(f, "mmio {base:016x}/{size:016x}"),
            Location::Ports(first) => write!(f, "iobase = {first} ({first:#x})"),
            Location::Irqs([line]) => write!(f, "isa irq {line}"),
            Location::Irqs(lines) => {
                let lines: Vec<String> = lines.iter().map(u8::to_string).collect();
                write!(f, "isa irqs {}", lines.join(","))
            }
        }
    }
}

/// Where a board has a device from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The board.
    pub board: Board,
    /// The name of the bus.
    pub bus: &'static str,
    /// The device's place, if the bus is PCI.
    pub devfn: Option<DevFn>,
    /// The device's addresses or interrupt lines.
    pub location: Location,
    /// The device is there only if the configuration says so.
    pub optional: bool,
}

/// A device.
pub struct Model {
    /// QEMU's name of it.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// What it is plugged into.
    pub bus: Bus,
    /// A line about it; empty for what no user plugs in.
    pub help: &'static str,
    /// What can be said of it.
    pub properties: &'static [Property],
    /// Buses that it makes, and their types.
    pub buses: &'static [(&'static str, &'static str)],
    /// Where boards have it.
    pub fixed: &'static [Fixed],
    /// Why there can be one only; `None` if there can be more.
    pub only_one: Option<&'static str>,
    /// What is wrong with these values together, beyond what their types say.
    pub check: fn(&Values) -> Result<(), String>,
    /// Chooses what was left to the board; `others` are on the same kind of bus, and their values are as they are at last.
    pub place: fn(&mut Values, others: &[&Values]) -> Result<(), String>,
    /// What the ACPI tables say of it, as AML for the system bus; empty if nothing.
    pub acpi: fn(&Values) -> Vec<u8>,
    /// How it is made.
    pub make: Make,
    /// Where its registers are that have a fixed place, as far as there is something to be found.
    pub windows: &'static [Window],
    /// The fuzz targets that play a malicious guest in front of it.
    pub fuzz: &'static [&'static str],
}

impl Model {
    /// A device with nothing but a name and a bus, from which rows are made.
    const fn on(bus: Bus, name: &'static str) -> Model {
        Model {
            name,
            aliases: &[],
            bus,
            help: "",
            properties: &[],
            buses: &[],
            fixed: &[],
            only_one: None,
            check: |_| Ok(()),
            place: |_, _| Ok(()),
            acpi: |_| Vec::new(),
            make: Make::Board,
            windows: &[],
            fuzz: &[],
        }
    }

    /// Whether a device is meant that is called so: by its name or another name of it, or by a type in QEMU's object model that it
    /// is of, or has a part of.
    pub fn is_a(&self, class: &str) -> bool {
        let virtio = matches!(self.make, Make::Virtio(_)) && self.bus == Bus::Pci;
        let part = || Some((self.name.strip_suffix("-pci")?, class.strip_suffix("-device")?));
        self.name == class
            || self.aliases.contains(&class)
            || self.bus.parent() == class
            || virtio && (["virtio-pci", "virtio-device"].contains(&class) || part().is_some_and(|(own, of)| own == of))
    }

    /// The property of this name.
    pub fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// What of the host's it refers to, if it is more than a thread.
    pub fn host(&self) -> Option<&'static Property> {
        self.properties.iter().find(|property| matches!(property.kind, Kind::Id(host) if host != Host::Thread))
    }

    /// Whether it is a network adapter.
    pub fn is_adapter(&self) -> bool {
        self.host().is_some_and(|property| property.kind == Kind::Id(Host::Netdev))
    }

    /// Whether nothing is to be known to make it but its properties: it has nothing of the host's but a character device.
    pub fn is_plain(&self) -> bool {
        let chars = |property: &Property| matches!(property.kind, Kind::Id(Host::Chardev | Host::Output));
        matches!(self.make, Make::IsaDevice(_) | Make::Isa(_) | Make::Function(_)) && self.host().is_none_or(chars)
    }

    /// Plugs one into the PC's ISA bus, if it is a device for that. The number of its serial port, if its input is to be brought by
    /// [`Pc::serial_receive`].
    pub fn plug_isa(&self, pc: &mut Pc, parts: Parts<'_>) -> Option<usize> {
        match self.make {
            Make::IsaDevice(make) => pc.plug_isa(self.name, make(parts.values)),
            Make::Isa(plug) => return plug(pc, parts),
            Make::Function(_) | Make::Virtio(_) | Make::Board => {}
        }
        None
    }

    /// Makes a function of the PCI bus. `None` if it is none, or its handle is none for it.
    pub fn function(&self, parts: Parts<'_>) -> Option<Box<dyn Function>> {
        let interface = interface(parts.values);
        match self.make {
            Make::Function(make) => make(parts),
            Make::Virtio(make) => Some(Box::new(VirtioPci::new(make(parts)?, interface))),
            Make::IsaDevice(_) | Make::Isa(_) | Make::Board => None,
        }
    }

    /// Makes a virtio device; `None` if it is none, or its handle is none for it.
    pub fn virtio(&self, parts: Parts<'_>) -> Option<Virtio> {
        if let Make::Virtio(make) = self.make { make(parts) } else { None }
    }

    /// Whether a user plugs it into this board by name.
    pub const fn is_offered(&self, board: Board) -> bool {
        !self.help.is_empty() && self.bus.is_on(board)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Model").field(&self.name).finish()
    }
}

/// Names tell devices apart.
impl PartialEq for Model {
    fn eq(&self, other: &Model) -> bool {
        self.name == other.name
    }
}

impl Eq for Model {}

/// All rows, by bus.
pub const MODELS: &[&[&Model]] =
    &[board::ROWS, isa::ROWS, pci::ROWS, ide::ROWS, virtio::PCI_ROWS, virtio::SLOT_ROWS, virtio::PORT_ROWS];

/// Every device.
pub fn models() -> impl Iterator<Item = &'static Model> {
    MODELS.iter().copied().flatten().copied()
}

/// The device of this name, which is QEMU's first one for it.
pub fn model(name: &str) -> Option<&'static Model> {
    models().find(|model| model.name == name)
}

/// The devices that a user can plug into this board.
pub fn offered(board: Board) -> impl Iterator<Item = &'static Model> {
    models().filter(move |model| model.is_offered(board))
}

/// The devices that this board has from the beginning, and where; the order is that in which monitors list them.
pub fn fixed(board: Board) -> impl Iterator<Item = (&'static Model, &'static Fixed)> {
    models()
        .flat_map(|model| model.fixed.iter().map(move |fixed| (model, fixed)))
        .filter(move |(_, fixed)| fixed.board == board)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        for board in [Board::Pc, Board::Virt, Board::Spike] {
            let mut names: Vec<&str> =
                offered(board).flat_map(|model| model.aliases.iter().copied().chain([model.name])).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        }
        let mut names: Vec<&str> = models().map(|model| model.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(models().all(|model| super::model(model.name) == Some(model)));
    }

    #[test]
    fn a_default_is_a_value_of_its_property() {
        for model in models() {
            let mut names: Vec<&str> = model.properties.iter().map(|property| property.name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{model:?}: {names:?}");
            for Property { name, kind, default, .. } in model.properties {
                let fits = match (kind, default) {
                    (_, None) => true,
                    (Kind::Number(low, high) | Kind::Address(low, high), Some(Default::Number(number))) => {
                        (low..=high).contains(&number)
                    }
                    (Kind::Word(words), Some(Default::Word(word))) => words.contains(word),
                    _ => false,
                };
                assert!(fits, "{model:?}: {name}");
            }
            assert!((model.check)(&Values::new(model)).is_ok(), "{model:?}: its defaults");
        }
    }

    #[test]
    fn what_a_user_plugs_in_can_be_described_and_is_fuzzed() {
        for model in models().filter(|model| !model.help.is_empty()) {
            assert!(!model.fuzz.is_empty(), "{model:?}: nothing fuzzes it");
            assert!(model.property("id").is_some(), "{model:?}: it cannot be named");
        }
        assert!(models().all(|model| !model.help.is_empty() || !model.fixed.is_empty()), "nobody has it");
    }
}
