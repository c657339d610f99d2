//! The drives on a PC's IDE controller, and the threads that serve them.

use anyhow::{Context, Result};
use mimus_hw::Pc;
use mimus_hw::ata::Tray;
use mimus_hw::ide::{IDE_DEVFN, Ide, IdeDevice, IdeFunction, IdePlace};
use mimus_hw::registry::{IDE_CD, IDE_HD};

use super::super::Parts;
use super::super::access::DeviceAccess;
use super::super::inventory::{Attachment, Drive, Inventory, Medium};
use super::FunctionHandle;
use crate::bus::DeviceHandle;
use crate::config::IdeDrive;
use mimus_host::block::{DiskQueue, DiskThread, Image};
use mimus_host::config::{Disk, Plug};
use mimus_host::devices::{self, SharedPc};

/// Where QEMU has a CD-ROM drive unless it is told otherwise, and its serial number there.
const CD_ROM: (IdePlace, &str) = (IdePlace { channel: 1, unit: 0 }, "MM00003");

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

/// A drive of the configuration, taken apart.
struct Wanted<'a> {
    removable: bool,
    medium: Option<&'a Disk>,
    serial: &'a str,
    id: &'a str,
    plug: Plug,
}

fn wanted(drive: &IdeDrive) -> Wanted<'_> {
    match drive {
        IdeDrive::Disk { disk, plug } => {
            Wanted { removable: false, medium: Some(disk), serial: &disk.serial, id: &disk.id, plug: plug.clone() }
        }
        IdeDrive::CdRom { medium, serial, id, plug } => {
            Wanted { removable: true, medium: medium.as_ref(), serial, id, plug: plug.clone() }
        }
    }
}

/// Plugs in the controller with the drives that the configuration names, and an empty CD-ROM drive where QEMU has one.
pub(super) fn plug(parts: &Parts, pc: &mut Pc, inventory: &mut Inventory) -> Result<Drives> {
    let (mut ide, mut drives) = (Ide::new(parts.dma()), Vec::new());
    let mut sectors = [None; 4];
    if parts.config.firmware.qemu_identity {
        ide = ide.made_by("QEMU");
    }
    for (channel, units) in parts.config.ide.iter().enumerate() {
        for (unit, drive) in units.iter().enumerate() {
            let place = IdePlace { channel, unit };
            let usual = place == CD_ROM.0 && parts.config.default_cd_rom;
            let empty = Wanted { removable: true, medium: None, serial: CD_ROM.1, id: "", plug: Plug::default() };
            let Some(Wanted { removable, medium, serial, id, plug }) =
                drive.as_ref().map(wanted).or(usual.then_some(empty))
            else {
                continue;
            };
            let image = medium.map(|disk| Image::open(&disk.option, disk)).transpose()?;
            let queue = parts.disk_queue();
            let info = image.as_ref().map(|image| image.info(serial));
            if let Some(sectors) = sectors.get_mut(2 * channel + unit) {
                *sectors = info.as_ref().filter(|_| !removable).map(|info| info.sectors);
            }
            let device = match (info, removable) {
                (Some(info), false) => IdeDevice::Disk { info, backend: queue.backend() },
                (info, _) => {
                    IdeDevice::CdRom { medium: info.map(|info| (info, queue.backend())), serial: serial.to_owned() }
                }
            };
            ide.plug(place, device);
            ide.name(place, plug.names.clone());
            let (kind, model) = if removable { ("cd", IDE_CD) } else { ("hd", IDE_HD) };
            let name = if id.is_empty() { format!("ide{channel}-{kind}{unit}") } else { id.to_owned() };
            let medium = medium.zip(image.as_ref()).map(|(disk, image)| Medium::new(disk, image));
            let disk = drive.as_ref().and_then(|drive| wanted(drive).medium.cloned()).unwrap_or_else(|| Disk::new(""));
            inventory.drive(
                Attachment::Ide(place),
                model,
                &plug,
                Drive { name, removable, medium, counters: queue.counters() },
            );
            drives.push(Unstarted { place, removable, queue, image, disk });
        }
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
