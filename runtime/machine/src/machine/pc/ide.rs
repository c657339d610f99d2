//! The drives on a PC's IDE controller, and the threads that serve them.

use anyhow::{Context, Result, bail, ensure};
use mimus_hw::Pc;
use mimus_hw::ata::{Names, Tray};
use mimus_hw::ide::{IDE_DEVFN, Ide, IdeDevice, IdeFunction, IdePlace};
use mimus_hw::registry::{IDE_CD, Values, drive_place};

use super::super::Parts;
use super::super::access::DeviceAccess;
use super::super::inventory::{Attachment, Drive, Inventory, Medium};
use super::FunctionHandle;
use crate::bus::DeviceHandle;
use crate::config::{Config, Device};
use mimus_host::block::{DiskQueue, DiskThread, Image};
use mimus_host::config::Disk;
use mimus_host::devices::{self, SharedPc};

/// A CD-ROM drive whose medium can be changed.
pub(super) struct CdRom {
    place: IdePlace,
    thread: DiskThread,
}

/// A drive that has its place and not its thread.
struct Unstarted {
    place: IdePlace,
    removable: bool,
    queue: DiskQueue,
    image: Option<Image>,
    disk: Disk,
}

/// Drives that have their places and not their threads.
pub(super) struct Drives(Vec<Unstarted>);

/// The drives of the configuration, by their places.
fn placed(config: &Config) -> Result<Vec<(IdePlace, &Device)>> {
    let mut drives = Vec::new();
    for device in config.drives() {
        let place = drive_place(&device.values);
        drives
            .push((place.with_context(|| format!("{}: bus and unit: the drive has no place", device.option))?, device));
    }
    drives.sort_by_key(|(place, _)| *place);
    Ok(drives)
}

/// The serial number of a drive: the one that it was given, or one that follows from its place.
fn serial(config: &Config, IdePlace { channel, unit }: IdePlace, device: &Device) -> String {
    let maker = if config.firmware.qemu_identity { "QM" } else { "MM" };
    device.serial_number().unwrap_or_else(|| format!("{maker}{:05}", 2 * channel + unit + 1))
}

/// What monitors call a drive: as its image is called, or by a name that follows from its place.
fn name(IdePlace { channel, unit }: IdePlace, device: &Device) -> String {
    let of_image =
        device.disk().map_or_else(|| device.values.text("drive").unwrap_or_default(), |disk| disk.id.clone());
    let kind = if device.model == IDE_CD { "cd" } else { "hd" };
    if of_image.is_empty() { format!("ide{channel}-{kind}{unit}") } else { of_image }
}

/// What a drive is called in front of the guest.
fn names(values: &Values) -> Names {
    let text = |name| values.text(name).unwrap_or_default();
    Names { model: text("model"), revision: text("ver"), world_wide: values.number("wwn").unwrap_or_default() }
}

/// Plugs in the controller with the drives that the configuration names.
pub(super) fn plug(parts: &Parts, pc: &mut Pc, inventory: &mut Inventory) -> Result<Drives> {
    let (mut ide, mut drives) = (Ide::new(parts.dma()), Vec::new());
    let mut sectors = [None; 4];
    if parts.config.firmware.qemu_identity {
        ide = ide.made_by("QEMU");
    }
    for (place, device) in placed(parts.config)? {
        let Device { model, option, plug, values, .. } = device;
        let removable = *model == IDE_CD;
        let serial = serial(parts.config, place, device);
        let disk = device.disk().map(|disk| Disk { serial: serial.clone(), ..disk.clone() });
        let image = disk.as_ref().map(|disk| Image::open(&disk.option, disk)).transpose()?;
        let queue = parts.disk_queue();
        let info = image.as_ref().map(|image| image.info(&serial));
        if let Some(sectors) = sectors.get_mut(2 * place.channel + place.unit) {
            *sectors = info.as_ref().filter(|_| !removable).map(|info| info.sectors);
        }
        let plugged = match (info, removable) {
            (Some(info), false) => IdeDevice::Disk { info, backend: queue.backend() },
            (None, false) => bail!("{option}: a disk needs an image"),
            (info, true) => IdeDevice::CdRom { medium: info.map(|info| (info, queue.backend())), serial },
        };
        ensure!(ide.plug(place, plugged), "{option}: bus and unit: another drive has this place");
        ide.name(place, names(values));
        let medium = disk.as_ref().zip(image.as_ref()).map(|(disk, image)| Medium::new(disk, image));
        let told = Drive { name: name(place, device), removable, medium, counters: queue.counters() };
        inventory.drive(Attachment::Ide(place), model, plug, told);
        drives.push(Unstarted { place, removable, queue, image, disk: disk.unwrap_or_else(|| Disk::new("")) });
    }
    pc.set_disks(sectors);
    pc.plug(Some(IDE_DEVFN), Box::new(IdeFunction::new(ide))).context("no room for the IDE controller")?;
    Ok(Drives(drives))
}

impl Drives {
    /// Starts the threads: those of disks go to `disks`.
    pub(super) fn start(self, devices: &DeviceHandle, disks: &mut Vec<DiskThread>) -> Result<Vec<CdRom>> {
        let mut cd_roms = Vec::new();
        for Unstarted { place, removable, queue, image, disk } in self.0 {
            let access = FunctionHandle { devices: devices.clone(), devfn: IDE_DEVFN };
            let thread = queue.start(image, &disk, move || access.attend()).context("cannot start a disk's thread")?;
            if removable {
                cd_roms.push(CdRom { place, thread });
            } else {
                disks.push(thread);
            }
        }
        Ok(cd_roms)
    }
}

fn controller<T>(pc: &mut Pc, now: u64, f: impl FnOnce(&mut Ide) -> T) -> Option<T> {
    pc.function(now, IDE_DEVFN, |function: &mut IdeFunction, _| f(&mut function.ide))
}

/// The tray of a CD-ROM drive.
pub(super) fn tray(pc: &mut Pc, now: u64, place: IdePlace) -> Option<Tray> {
    controller(pc, now, |ide| ide.tray(place)).flatten()
}

/// Puts `disk` into the CD-ROM drive that monitors call `name`, or takes out what is in it. A guest that has locked it is asked
/// to let go first, unless `force` is set.
pub(super) fn change(
    pc: &SharedPc,
    now: u64,
    inventory: &mut Inventory,
    cd_roms: &[CdRom],
    (name, disk, force): (&str, Option<Disk>, bool),
) -> Result<(), String> {
    let (place, medium) = inventory.removable(name)?;
    let cd_rom = cd_roms.iter().find(|cd_rom| cd_rom.place == place).ok_or("the drive is gone")?;
    let image = disk.as_ref().map(|disk| Image::open("change", disk)).transpose().map_err(|error| error.to_string())?;
    let mut pc = devices::lock(pc);
    let locked = tray(&mut pc, now, place).is_some_and(|tray| tray.locked && !tray.open);
    if locked && !force && medium.is_some() {
        controller(&mut pc, now, |ide| ide.want_medium(place));
        return Err(format!(
            "Device '{name}' is locked and force was not specified, wait for tray to open and try again"
        ));
    }
    *medium = disk.as_ref().zip(image.as_ref()).map(|(disk, image)| Medium::new(disk, image));
    let info = disk.zip(image.as_ref()).map(|(disk, image)| image.info(&disk.serial));
    let backend = cd_rom.thread.change(image);
    controller(&mut pc, now, |ide| ide.set_medium(place, info.map(|info| (info, backend))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backend;
    use mimus_hw::registry::IDE_HD;

    const PLACES: [IdePlace; 2] = [IdePlace { channel: 0, unit: 1 }, IdePlace { channel: 1, unit: 0 }];

    fn disk(disk: Disk) -> Device {
        Device::new(IDE_HD, "-hda").behind(Backend::Disk(Box::new(disk)))
    }

    #[test]
    fn serial_numbers_and_names_follow_from_places_unless_they_are_given() {
        let (mut config, cd_rom) = (Config::default(), Device::new(IDE_CD, "-cdrom"));
        let of = |config: &Config, device: &Device| PLACES.map(|place| serial(config, place, device));
        assert_eq!(of(&config, &cd_rom), ["MM00002", "MM00003"]);
        config.firmware.qemu_identity = true;
        assert_eq!(of(&config, &disk(Disk::new("a"))), ["QM00002", "QM00003"]);
        // Also one that looks like those that follow.
        let own = Disk { serial: "MM00003".into(), ..Disk::new("a") };
        assert_eq!(of(&config, &disk(own)), ["MM00003"; 2]);
        assert_eq!(of(&config, &cd_rom.clone().with_text("serial", "s")), ["s"; 2]);
        assert_eq!(PLACES.map(|place| name(place, &cd_rom)), ["ide0-cd1", "ide1-cd0"]);
        assert_eq!(PLACES.map(|place| name(place, &disk(Disk::new("a")))), ["ide0-hd1", "ide1-hd0"]);
        assert_eq!(name(PLACES[0], &disk(Disk { id: "d".into(), ..Disk::new("a") })), "d");
        assert_eq!(name(PLACES[0], &cd_rom.with_text("drive", "x")), "x");
    }

    #[test]
    fn what_its_values_call_a_drive_reaches_the_guest() {
        let device = Device::new(IDE_CD, "-cdrom");
        assert_eq!(names(&device.values), Names::default());
        let device = device.with_text("model", "m").with_text("ver", "7").with("wwn", 5);
        let expected = Names { model: "m".into(), revision: "7".into(), world_wide: 5 };
        assert_eq!(names(&device.values), expected);
    }

    #[test]
    fn drives_are_in_the_order_of_their_places() {
        let devices = PLACES.iter().rev().map(|place| disk(Disk::new("a")).on_cable(*place)).collect();
        let mut config = Config { devices, ..Config::default() };
        let places = |config: &Config| -> Result<Vec<IdePlace>> {
            Ok(placed(config)?.iter().map(|(place, _)| *place).collect())
        };
        assert_eq!(places(&config).unwrap(), PLACES.to_vec());
        config.devices.push(disk(Disk::new("b")));
        assert_eq!(places(&config).unwrap_err().to_string(), "-hda: bus and unit: the drive has no place");
    }
}
