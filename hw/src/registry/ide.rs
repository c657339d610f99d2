//! Rows of the registry: drives on the IDE controller. The controller is the board's; the values of a drive say where it is on it.

use super::property::{BOOT_INDEX, ID, Value, Values, accepted, number, properties, text, without, word};
use super::virtio::IMAGE;
use super::{Bus, Model, Property};
use crate::ide::IdePlace;

/// The controller's cables, by channel.
const CABLES: [&str; 2] = ["ide.0", "ide.1"];
/// Places on each.
const UNITS: usize = 2;

/// Texts that a drive tells of itself, and how many characters IDENTIFY DEVICE has for each (ACS-2, words 27 to 46, 23 to 26).
const TEXTS: [(&str, usize); 2] = [("model", 40), ("ver", 8)];

const DRIVE: &[Property] = &[
    word("bus", &CABLES, "the cable, default the first with a free place"),
    number("unit", 0, UNITS as u64 - 1, "the place on it, default the first free one"),
    ID,
    BOOT_INDEX,
    text("model", "up to 40 characters", "its name"),
    text("ver", "up to 8 characters", "its firmware's revision"),
    number("wwn", 0, u64::MAX, "its world wide name"),
    without("bios-chs-trans", "a disk's geometry is that of its size"),
    accepted("rotation_rate"),
    accepted("win2k-install-hack"),
];

/// What both kinds have in common.
const ANY: Model = Model {
    properties: properties!(IMAGE, DRIVE),
    check: texts_fit,
    place: place_drive,
    fuzz: &["ide"],
    ..Model::on(Bus::Ide, "")
};

/// A disk.
pub const DISK: &Model =
    // The other name is that of before disks and CD-ROM drives were told apart.
    &Model { name: "ide-hd", aliases: &["ide-drive"], help: "an IDE disk", ..ANY };

/// A CD-ROM drive.
pub const CD_ROM: &Model = &Model { name: "ide-cd", help: "an IDE CD-ROM drive", ..ANY };

pub(super) const ROWS: &[&Model] = &[DISK, CD_ROM];

fn texts_fit(values: &Values) -> Result<(), String> {
    let too_long = |(name, most): &(&str, usize)| values.text(name).is_some_and(|text| text.len() > *most);
    match TEXTS.iter().find(|text| too_long(text)) {
        Some((name, most)) => Err(format!("{name}: longer than {most} characters")),
        None => Ok(()),
    }
}

/// Where a drive's values say that it is; `None` if that is left to the board.
pub fn drive_place(values: &Values) -> Option<IdePlace> {
    let cable = values.word("bus")?;
    let channel = CABLES.iter().position(|known| *known == cable)?;
    Some(IdePlace { channel, unit: usize::try_from(values.number("unit")?).ok()? })
}

/// Has a drive's values say that it is on this cable and at this unit of it, as far as they are given. A cable that there is not
/// changes nothing.
pub fn put_drive(values: &mut Values, channel: Option<usize>, unit: Option<usize>) {
    if let Some(cable) = channel.and_then(|channel| CABLES.get(channel)) {
        values.set("bus", Value::Word(cable));
    }
    if let Some(unit) = unit {
        values.set("unit", Value::Number(unit as u64));
    }
}

/// Gives a drive the first free place of those that it may have.
fn place_drive(values: &mut Values, others: &[&Values]) -> Result<(), String> {
    let (cable, unit) = (values.word("bus"), values.number("unit"));
    let may_be = |place: &IdePlace| {
        cable.is_none_or(|cable| CABLES.get(place.channel) == Some(&cable))
            && unit.is_none_or(|unit| unit == place.unit as u64)
    };
    let taken: Vec<IdePlace> = others.iter().filter_map(|other| drive_place(other)).collect();
    let all = (0..CABLES.len()).flat_map(|channel| (0..UNITS).map(move |unit| IdePlace { channel, unit }));
    match (all.filter(may_be).find(|place| !taken.contains(place)), drive_place(values)) {
        (Some(IdePlace { channel, unit }), _) => {
            put_drive(values, Some(channel), Some(unit));
            Ok(())
        }
        (None, Some(IdePlace { channel, unit })) => {
            Err(format!("there is a drive at bus={channel},unit={unit} already"))
        }
        (None, None) => Err("no place is left on the IDE controller, which has four".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_gets_the_first_free_place_that_it_may_have() {
        let mut placed: Vec<Values> = Vec::new();
        let mut place = |model, channel, unit| -> Result<Option<(usize, usize)>, String> {
            let mut values = Values::new(model);
            put_drive(&mut values, channel, unit);
            place_drive(&mut values, &placed.iter().collect::<Vec<_>>())?;
            let place = drive_place(&values).map(|place| (place.channel, place.unit));
            placed.push(values);
            Ok(place)
        };
        assert_eq!(place(CD_ROM, Some(1), None), Ok(Some((1, 0))));
        assert_eq!(place(DISK, Some(1), Some(0)), Err("there is a drive at bus=1,unit=0 already".to_owned()));
        assert_eq!(place(DISK, None, Some(1)), Ok(Some((0, 1))));
        assert_eq!(place(DISK, None, None), Ok(Some((0, 0))));
        assert_eq!(place(CD_ROM, None, None), Ok(Some((1, 1))));
        let full = "no place is left on the IDE controller, which has four";
        assert_eq!(place(DISK, Some(0), None), Err(full.to_owned()));
        assert_eq!(place(DISK, None, None), Err(full.to_owned()));
    }
}
