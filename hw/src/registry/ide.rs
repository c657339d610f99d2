//! Rows of the registry: drives on the IDE controller.

use super::property::{BOOT_INDEX, ID, accepted, number, properties, text, without, word};
use super::virtio::IMAGE;
use super::{Bus, Model, Property};

const DRIVE: &[Property] = &[
    word("bus", &["ide.0", "ide.1"], "the cable, default the first with a free place"),
    number("unit", 0, 1, "the place on it, default the first free one"),
    ID,
    BOOT_INDEX,
    text("model", "up to 40 characters", "its name"),
    text("ver", "up to 8 characters", "its firmware's revision"),
    number("wwn", 0, u64::MAX, "its world wide name"),
    without("bios-chs-trans", "a disk's geometry is that of its size"),
    accepted("rotation_rate"),
    accepted("win2k-install-hack"),
];
const PROPERTIES: &[Property] = properties!(IMAGE, DRIVE);

/// A disk.
pub const DISK: &Model =
    // The other name is that of before disks and CD-ROM drives were told apart.
    &Model {
        aliases: &["ide-drive"],
        help: "an IDE disk",
        properties: PROPERTIES,
        fuzz: &["ide"],
        ..Model::on(Bus::Ide, "ide-hd")
    };

/// A CD-ROM drive.
pub const CD_ROM: &Model =
    &Model { help: "an IDE CD-ROM drive", properties: PROPERTIES, fuzz: &["ide"], ..Model::on(Bus::Ide, "ide-cd") };

pub(super) const ROWS: &[&Model] = &[DISK, CD_ROM];
