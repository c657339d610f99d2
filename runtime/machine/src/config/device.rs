//! What a configuration says of a device that its row of the registry makes.

use mimus_hw::SerialPort;
use mimus_hw::registry::{Host, ISA_SERIAL, Kind, Model, POWER, VGA, Values};

use super::Config;
use mimus_host::config::{Chardev, Plug};

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
    /// Where it is connected, if its characters go anywhere.
    pub chardev: Option<Chardev>,
}

impl Device {
    /// A device of which `option` says nothing.
    pub fn new(model: &'static Model, option: impl Into<String>) -> Device {
        let (option, plug) = (option.into(), Plug::default());
        Device { model, option, plug, values: Values::new(model), chardev: None }
    }

    /// A serial port of `-serial` at this place.
    pub fn serial(SerialPort { iobase, irq }: SerialPort) -> Device {
        Device::new(ISA_SERIAL, "-serial").with("iobase", iobase.into()).with("irq", irq.into())
    }

    /// The same, connected to `chardev`.
    pub fn at(self, chardev: Chardev) -> Device {
        Device { chardev: Some(chardev), ..self }
    }

    /// The same, whose property `name` is this number.
    pub fn with(self, name: &str, number: u64) -> Device {
        Device { values: self.values.with(name, number), ..self }
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
