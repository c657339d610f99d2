//! What a configuration says of a device that its row of the registry makes.

use mimus_hw::ide::IdePlace;
use mimus_hw::registry::{Bus, Host, IDE_CD, ISA_SERIAL, Kind, Make, Model, POWER, VGA, Values, put_drive};
use mimus_hw::{COM_PORTS, SerialPort};

use super::{Config, MachineKind};
use mimus_host::config::{Chardev, Disk, NetBackend, Netdev, Plug, SharedFolder, UserNet};

/// What of the host's is behind a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Nothing that has to be named.
    Nothing,
    /// Where its characters go, and come from.
    Chardev(Chardev),
    /// A disk, or what is in a CD-ROM drive; an empty one has nothing behind it.
    Disk(Box<Disk>),
    /// A network; an adapter may be plugged into nothing.
    Network(Option<Box<Netdev>>),
    /// A folder that is shared with the guest.
    Folder(SharedFolder),
    /// The devices on the bus that it makes, a console's controller.
    Ports(Vec<Device>),
}

/// Where a PC has a CD-ROM drive of itself.
pub const CD_ROM_PLACE: IdePlace = IdePlace { channel: 1, unit: 0 };

/// The option that this drive is of, which in other cases names a medium.
pub const CD_ROM_OPTION: &str = "-cdrom";

/// A device that is made as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The row.
    pub model: &'static Model,
    /// The option that it is of, as typed.
    pub option: String,
    /// What it is called and where it is.
    pub plug: Plug,
    /// The values of its properties.
    pub values: Values,
    /// What is behind it.
    pub backend: Backend,
}

impl Device {
    /// A device of which `option` says nothing.
    pub fn new(model: &'static Model, option: impl Into<String>) -> Device {
        let (option, plug) = (option.into(), Plug::default());
        Device { model, option, plug, values: Values::new(model), backend: Backend::Nothing }
    }

    /// A network adapter with this address, in a network of its own behind the host's sockets.
    pub fn adapter(model: &'static Model, option: &str, mac: [u8; 6]) -> Device {
        let netdev = Netdev::of(NetBackend::User(UserNet::default()));
        Device::new(model, option).called(mac).behind(Backend::Network(Some(Box::new(netdev))))
    }

    /// The same with this hardware address.
    pub fn called(self, mac: [u8; 6]) -> Device {
        self.with_text("mac", mac.map(|byte| format!("{byte:02x}")).join(":"))
    }

    /// A serial port of `-serial` at this place.
    pub fn serial(SerialPort { iobase, irq }: SerialPort) -> Device {
        Device::new(ISA_SERIAL, "-serial").with("iobase", iobase.into()).with("irq", irq.into())
    }

    /// A PC's first serial port, connected to `chardev`.
    pub fn com1(chardev: Chardev) -> Device {
        Device::serial(COM_PORTS[0]).at(chardev)
    }

    /// The same, connected to `chardev`.
    pub fn at(self, chardev: Chardev) -> Device {
        self.behind(Backend::Chardev(chardev))
    }

    /// The same at this place of the IDE controller.
    pub fn on_cable(mut self, IdePlace { channel, unit }: IdePlace) -> Device {
        put_drive(&mut self.values, Some(channel), Some(unit));
        self
    }

    /// The same with this behind it.
    pub fn behind(self, backend: Backend) -> Device {
        Device { backend, ..self }
    }

    /// The same, whose property `name` is this number.
    pub fn with(self, name: &str, number: u64) -> Device {
        Device { values: self.values.with(name, number), ..self }
    }

    /// The same, whose property `name` is this text.
    pub fn with_text(self, name: &str, text: impl Into<String>) -> Device {
        Device { values: self.values.with_text(name, text), ..self }
    }

    /// Where it is connected, if its characters go anywhere.
    pub fn chardev(&self) -> Option<&Chardev> {
        if let Backend::Chardev(chardev) = &self.backend { Some(chardev) } else { None }
    }

    /// Its disk.
    pub fn disk(&self) -> Option<&Disk> {
        if let Backend::Disk(disk) = &self.backend { Some(disk) } else { None }
    }

    /// The serial number that was given to its disk, or to it; a CD-ROM drive has one without a disk.
    pub fn serial_number(&self) -> Option<String> {
        let of_disk = self.disk().map(|disk| disk.serial.clone()).filter(|serial| !serial.is_empty());
        of_disk.or_else(|| self.values.text("serial")).filter(|serial| !serial.is_empty())
    }

    /// Whether it is the empty CD-ROM drive that a PC has of itself.
    pub fn is_usual_cd_rom(&self) -> bool {
        self.model == IDE_CD && self.option == CD_ROM_OPTION && self.backend == Backend::Nothing
    }

    /// What it is plugged into.
    pub fn netdev(&self) -> Option<&Netdev> {
        if let Backend::Network(Some(netdev)) = &self.backend { Some(netdev) } else { None }
    }

    /// The devices on the bus that it makes.
    pub fn ports(&self) -> &[Device] {
        if let Backend::Ports(ports) = &self.backend { ports } else { &[] }
    }

    /// Whether it takes characters, too.
    pub fn reads(&self) -> bool {
        self.model.properties.iter().any(|property| property.kind == Kind::Id(Host::Chardev))
    }
}

impl Config {
    /// The devices of this row, in their order.
    pub fn devices_of(&self, model: &Model) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(move |device| device.model == model)
    }

    /// The network adapters.
    pub fn adapters(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.model.is_adapter())
    }

    /// The ports of all consoles' controllers.
    pub fn ports(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().flat_map(Device::ports)
    }

    /// The virtio devices, network adapters left out.
    pub fn virtio(&self) -> impl Iterator<Item = &Device> {
        let is_one = |device: &&Device| matches!(device.model.make, Make::Virtio(_)) && !device.model.is_adapter();
        self.devices.iter().filter(is_one)
    }

    /// Where the serial port or console is connected that a board other than the PC has of itself.
    pub fn console(&self) -> Option<&Chardev> {
        (self.machine != MachineKind::Pc).then_some(&self.riscv.console)
    }

    /// What is on the IDE controller.
    pub fn drives(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.model.bus == Bus::Ide)
    }

    /// The display adapter, if there is one.
    pub fn display(&self) -> Option<&Device> {
        self.devices_of(VGA).next()
    }

    /// The values of a device that the board has.
    pub fn board_values(&self, model: &'static Model) -> Values {
        self.board.iter().find(|values| values.model() == model).cloned().unwrap_or(Values::new(model))
    }

    /// Whether a guest may sleep with its state in RAM (S3), and with its state on a disk (S4).
    pub fn sleeps(&self) -> [bool; 2] {
        let values = self.board_values(POWER);
        ["disable_s3", "disable_s4"].map(|property| !values.is_on(property))
    }
}
