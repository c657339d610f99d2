//! The IDE controller of a PIIX3 (Intel 82371SB data sheet). Its drives are those of [`ata`](crate::ata).
//!
//! Two channels in compatibility mode, each with up to two drives, and a bus master for each. What touches a medium is a
//! [`BlockJob`](crate::block::BlockJob) for the host side, one at a time for each drive: a whole command when the bus master moves
//! the data, 64 KiB when the processor does.

mod channel;
mod function;
#[cfg(test)]
mod tests;

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};

use crate::ata::{Disk, Kind, MAKER, Medium, Names, TaskFile, Tray};
use crate::block::{BlockBackend, BlockInfo};
use channel::{Channel, ChannelState};
pub use function::{IDE_DEVFN, IdeFunction};

/// The command block's first port of each channel (82371SB, 3.2.1, compatibility mode); there are eight.
pub const COMMAND_PORTS: [u16; 2] = [0x1f0, 0x170];
/// The port of device control and alternate status of each channel.
pub const CONTROL_PORTS: [u16; 2] = [0x3f6, 0x376];
/// The ISA interrupt line of each channel.
pub const IRQS: [u8; 2] = [14, 15];
/// Bytes of the bus masters' registers, eight for each channel.
pub const BUS_MASTER_SIZE: u16 = 16;

/// What is plugged into a place of a cable.
pub enum IdeDevice {
    /// A disk.
    Disk {
        /// What it is.
        info: BlockInfo,
        /// Who does its jobs.
        backend: Box<dyn BlockBackend>,
    },
    /// A CD-ROM drive.
    CdRom {
        /// The medium, and who does its jobs; `None` for an empty drive.
        medium: Option<Medium>,
        /// What the guest sees as its serial number; 20 characters of it at most.
        serial: String,
    },
}

impl std::fmt::Debug for IdeDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IdeDevice::Disk { info, .. } => f.debug_tuple("Disk").field(info).finish(),
            IdeDevice::CdRom { medium, .. } => f.debug_tuple("CdRom").field(&medium.as_ref().map(|m| &m.0)).finish(),
        }
    }
}

/// Where a drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdePlace {
    /// 0: primary, 1: secondary.
    pub channel: usize,
    /// 0: master, 1: slave.
    pub unit: usize,
}

/// The controller.
pub struct Ide {
    mem: Dma,
    channels: [Channel; 2],
    /// What the drives' names begin with.
    maker: &'static str,
}

/// An [`Ide`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdeState {
    channels: [ChannelState; 2],
}

impl Ide {
    /// A controller without drives. They reach guest RAM by `mem`.
    pub fn new(mem: Dma) -> Ide {
        Ide { mem, channels: [Channel::default(), Channel::default()], maker: MAKER }
    }

    /// The same with drives whose names begin with `maker`.
    pub fn made_by(self, maker: &'static str) -> Ide {
        Ide { maker, ..self }
    }

    /// Plugs `device` in; false if there is no such place, or something is there already.
    pub fn plug(&mut self, place: IdePlace, device: IdeDevice) -> bool {
        let Some(channel) = self.channels.get_mut(place.channel) else { return false };
        let (kind, serial, medium) = match device {
            IdeDevice::Disk { info, backend } => (Kind::Disk, info.serial.clone(), Some((info, backend))),
            IdeDevice::CdRom { medium, serial } => (Kind::CdRom, serial, medium),
        };
        let mut disk = Disk::new(self.mem.clone(), kind, serial, medium);
        disk.maker = self.maker;
        channel.plug(place.unit, TaskFile::new(disk))
    }

    fn disk(&mut self, place: IdePlace) -> Option<&mut Disk> {
        Some(&mut self.channels.get_mut(place.channel)?.drive_mut(place.unit)?.disk)
    }

    /// Calls the drive at `place` so.
    pub fn name(&mut self, place: IdePlace, names: Names) {
        if let Some(disk) = self.disk(place) {
            disk.names = names;
        }
    }

    /// Whether something is plugged in at `place`.
    pub fn has(&self, place: IdePlace) -> bool {
        self.channels.get(place.channel).is_some_and(|channel| channel.has(place.unit))
    }

    fn cd_rom(&mut self, place: IdePlace) -> Option<&mut Disk> {
        self.disk(place).filter(|disk| disk.kind() == Kind::CdRom)
    }

    /// The tray of the CD-ROM drive at `place`, if there is one.
    pub fn tray(&mut self, place: IdePlace) -> Option<Tray> {
        self.cd_rom(place).map(|drive| drive.tray())
    }

    /// Asks the guest to eject the medium of a CD-ROM drive.
    pub fn want_medium(&mut self, place: IdePlace) {
        if let Some(drive) = self.cd_rom(place) {
            drive.want_medium();
        }
    }

    /// Puts another medium into the CD-ROM drive at `place`, or takes it out; whether there is such a drive. Jobs that the
    /// former one's backend has must still come to their end.
    pub fn set_medium(&mut self, place: IdePlace, medium: Option<Medium>) -> bool {
        self.cd_rom(place).map(|drive| drive.set_medium(medium)).is_some()
    }

    /// Reads `size` (1, 2 or 4) bytes at register `offset` of a channel's command block.
    pub fn command_read(&mut self, channel: usize, offset: u16, size: u8) -> u32 {
        match self.channels.get_mut(channel) {
            None => u32::MAX,
            Some(channel) if offset == 0 => channel.data_read(size, &self.mem),
            Some(channel) => {
                let bytes: Vec<u8> =
                    (offset..).take(size.into()).map(|offset| channel.read(offset, &self.mem)).collect();
                bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
            }
        }
    }

    /// Writes the low `size` (1, 2 or 4) bytes of `value` at register `offset` of a channel's command block.
    pub fn command_write(&mut self, channel: usize, offset: u16, size: u8, value: u32) {
        let Some(channel) = self.channels.get_mut(channel) else { return };
        if offset == 0 {
            channel.data_write(size, value, &self.mem);
            return;
        }
        for (offset, byte) in (offset..).zip(value.to_le_bytes()).take(size.into()) {
            channel.write(offset, byte, &self.mem);
        }
    }

    /// The alternate status.
    pub fn control_read(&self, channel: usize) -> u8 {
        self.channels.get(channel).map_or(0xff, Channel::alternate_status)
    }

    /// Writes the device control register.
    pub fn control_write(&mut self, channel: usize, value: u8) {
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.write_control(value, &self.mem);
        }
    }

    /// Reads `size` bytes at `offset` of the bus masters' registers.
    pub fn bus_master_read(&self, offset: u16, size: u8) -> u32 {
        let byte = |offset: u16| {
            let channel = self.channels.get(usize::from(offset / 8));
            channel.map_or(0xff, |channel| channel.bus_master_read(offset % 8))
        };
        (0..u16::from(size.clamp(1, 4)))
            .rev()
            .fold(0, |value, at| value << 8 | u32::from(byte(offset.wrapping_add(at))))
    }

    /// Writes the low `size` bytes of `value` at `offset` of the bus masters' registers.
    pub fn bus_master_write(&mut self, offset: u16, size: u8, value: u32) {
        for (offset, byte) in (offset..).zip(value.to_le_bytes()).take(size.into()) {
            if let Some(channel) = self.channels.get_mut(usize::from(offset / 8)) {
                channel.bus_master_write(offset % 8, byte, &self.mem);
            }
        }
    }

    /// The level of a channel's interrupt line.
    pub fn irq(&self, channel: usize) -> bool {
        self.channels.get(channel).is_some_and(Channel::irq)
    }

    /// Whether the bus masters may use the bus; until then they wait. At power-on they may.
    pub fn enable_bus_master(&mut self, enabled: bool) {
        for channel in &mut self.channels {
            channel.enable_bus_master(enabled, &self.mem);
        }
    }

    /// Goes on with what the drives' host sides have done.
    pub fn attend(&mut self) {
        self.channels.iter_mut().for_each(|channel| channel.attend(&self.mem));
    }

    /// As at power-on.
    pub fn reset(&mut self) {
        self.channels.iter_mut().for_each(Channel::reset);
    }

    pub(crate) fn save(&self) -> IdeState {
        IdeState { channels: self.channels.each_ref().map(Channel::save) }
    }

    /// Whether `state` is one of a controller with these drives.
    pub(crate) fn fits(&self, state: &IdeState) -> bool {
        self.channels.iter().zip(&state.channels).all(|(channel, state)| channel.fits(state, &self.mem))
    }

    /// Replaces the state by one that fits. Unfinished jobs are given to their backends again.
    pub(crate) fn restore(&mut self, state: IdeState) {
        for (channel, state) in self.channels.iter_mut().zip(state.channels) {
            channel.restore(state);
        }
    }
}

impl std::fmt::Debug for Ide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ide").field("state", &self.save()).finish_non_exhaustive()
    }
}
