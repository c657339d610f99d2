//! Packets: the commands of a CD-ROM drive (MMC-3; SPC-3 for those that all have).

use serde::{Deserialize, Serialize};

use super::Tray;
use super::disk::{CHUNK, Disk, Move, Step};
use super::identify::REVISION;
use super::regs::ABRT;

/// Bytes of a packet.
pub(super) const PACKET: usize = 12;

/// Bytes of a block of the medium.
const BLOCK: u64 = 2048;
/// Blocks of a CD of 80 minutes; what is longer is a DVD.
const MAX_CD_BLOCKS: u64 = 80 * 60 * 75;
/// Profiles (MMC-3, 5.3.1).
const PROFILE_CD: u16 = 0x0008;
const PROFILE_DVD: u16 = 0x0010;

/// Sense key, additional sense code and its qualifier (MMC-3, annex F).
pub(super) type Sense = (u8, u8, u8);

const NO_SENSE: Sense = (0, 0, 0);
const NO_MEDIUM: Sense = (2, 0x3a, 0);
pub(super) const MEDIUM_ERROR: Sense = (3, 0x11, 0);
pub(super) const HARDWARE_ERROR: Sense = (4, 0x44, 0);
const INVALID_COMMAND: Sense = (5, 0x20, 0);
const OUT_OF_RANGE: Sense = (5, 0x21, 0);
const INVALID_FIELD: Sense = (5, 0x24, 0);
const PREVENTED: Sense = (5, 0x53, 2);
const MEDIUM_CHANGED: Sense = (6, 0x28, 0);

/// What a CD-ROM drive remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PacketState {
    sense: Sense,
    /// The medium is in the drive.
    loaded: bool,
    /// The medium may not be taken out.
    prevented: bool,
    /// What GET EVENT STATUS NOTIFICATION is to tell: 0, nothing; 1, the medium is wanted back; 2, a medium has come; 3, it has
    /// gone.
    event: u8,
    /// The next command is to hear of another medium.
    attention: bool,
}

impl PacketState {
    pub(super) fn new(loaded: bool) -> PacketState {
        PacketState { sense: NO_SENSE, loaded, prevented: false, event: 0, attention: false }
    }
}

/// A packet's code, whether it needs a medium, and what it does.
type Command = (u8, bool, fn(&mut Disk, &[u8; PACKET]) -> Step);

const COMMANDS: &[Command] = &[
    (0x00, true, |_, _| Step::Done),
    (0x03, false, |drive, packet| drive.request_sense(packet)),
    (0x12, false, |drive, packet| drive.inquiry(packet)),
    (0x1a, false, |drive, packet| drive.mode_sense(packet, false)),
    (0x1b, false, |drive, packet| drive.start_stop(packet)),
    (0x1e, false, |drive, packet| drive.prevent(packet)),
    (0x25, true, |drive, _| drive.read_capacity()),
    (0x28, true, |drive, packet| drive.read(packet, be16(packet, 7).into())),
    (0x2b, true, |drive, packet| drive.seek(packet)),
    (0x43, true, |drive, packet| drive.read_toc(packet)),
    (0x46, false, |drive, packet| drive.get_configuration(packet)),
    (0x4a, false, |drive, packet| drive.get_event_status(packet)),
    (0x51, true, |drive, packet| drive.read_disc_information(packet)),
    (0x5a, false, |drive, packet| drive.mode_sense(packet, true)),
    (0xa8, true, |drive, packet| drive.read(packet, be32(packet, 6))),
    (0xbd, false, |drive, packet| drive.mechanism_status(packet)),
    (0xbe, true, |drive, packet| drive.read_cd(packet)),
];

/// Gives back at most `room` of these bytes.
fn reply(mut bytes: Vec<u8>, room: u64) -> Step {
    bytes.truncate(room.min(CHUNK) as usize);
    if bytes.is_empty() { Step::Done } else { Step::Answer(bytes) }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    let get = |index| bytes.get(index).copied().unwrap_or(0);
    u16::from_be_bytes([get(at), get(at + 1)])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

/// A block's address as a table of contents has it: a number, or minute, second and frame (MMC-3, table 6).
fn address(block: u64, msf: bool) -> [u8; 4] {
    if !msf {
        return (block as u32).to_be_bytes();
    }
    // The first two seconds are before block 0.
    let frame = block + 150;
    [0, (frame / 75 / 60).min(255) as u8, (frame / 75 % 60) as u8, (frame % 75) as u8]
}

impl Disk {
    /// Executes the command of a packet.
    pub(super) fn packet(&mut self, packet: &[u8; PACKET]) -> Step {
        let [code, ..] = *packet;
        let found = COMMANDS.iter().find(|(known, ..)| *known == code);
        let Some((_, medium, run)) = found else {
            tracing::debug!(code, "cd-rom: a command that this drive does not have");
            return self.check(INVALID_COMMAND);
        };
        const REQUEST_SENSE: u8 = 0x03;
        if code != REQUEST_SENSE {
            self.state.packet.sense = NO_SENSE;
        }
        // Those that are executed whatever has happened (SPC-3, 4.5.7; MMC-3, 4.1.2).
        const UNAFFECTED: [u8; 4] = [REQUEST_SENSE, 0x12, 0x46, 0x4a];
        if !UNAFFECTED.contains(&code) && std::mem::take(&mut self.state.packet.attention) {
            return self.check(MEDIUM_CHANGED);
        }
        if *medium && !self.state.packet.loaded {
            return self.check(NO_MEDIUM);
        }
        run(self, packet)
    }

    /// The packet's command has failed.
    fn check(&mut self, sense: Sense) -> Step {
        Step::Failed(self.sense(sense))
    }

    /// Remembers why a packet's command has failed; what the error register says then.
    pub(super) fn sense(&mut self, sense: Sense) -> u8 {
        self.state.packet.sense = sense;
        sense.0 << 4 | if sense.0 == INVALID_COMMAND.0 { ABRT } else { 0 }
    }

    /// Blocks of the medium.
    fn blocks(&self) -> u64 {
        self.bytes() / BLOCK
    }

    fn read(&mut self, packet: &[u8; PACKET], count: u32) -> Step {
        let (first, count) = (u64::from(be32(packet, 2)), u64::from(count));
        if count == 0 {
            return Step::Done;
        }
        if first + count > self.blocks() {
            return self.check(OUT_OF_RANGE);
        }
        // How the bytes cross is told by the registers, not by the packet.
        Step::Move(Move { write: false, dma: false, offset: first * BLOCK, len: count * BLOCK, block: 0 })
    }

    /// READ CD, of which only user data can be had (MMC-3, 6.19).
    fn read_cd(&mut self, packet: &[u8; PACKET]) -> Step {
        const USER_DATA: u8 = 0x10;
        match packet[9] & 0xf8 {
            0 => Step::Done,
            USER_DATA => self.read(packet, be32(packet, 5) & 0x00ff_ffff),
            _ => self.check(INVALID_FIELD),
        }
    }

    fn seek(&mut self, packet: &[u8; PACKET]) -> Step {
        if u64::from(be32(packet, 2)) < self.blocks() { Step::Done } else { self.check(OUT_OF_RANGE) }
    }

    fn read_capacity(&mut self) -> Step {
        let last = self.blocks().saturating_sub(1) as u32;
        reply([last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat(), 8)
    }

    fn request_sense(&mut self, packet: &[u8; PACKET]) -> Step {
        let (key, code, qualifier) = std::mem::replace(&mut self.state.packet.sense, NO_SENSE);
        let mut bytes = vec![0; 18];
        // Fixed format (SPC-3, 4.5.3): current error, ten more bytes.
        for (at, byte) in [(0, 0x70), (2, key), (7, 10), (12, code), (13, qualifier)] {
            if let Some(to) = bytes.get_mut(at) {
                *to = byte;
            }
        }
        reply(bytes, packet[4].into())
    }

    fn inquiry(&mut self, packet: &[u8; PACKET]) -> Step {
        // No pages of vital product data.
        if packet[1] & 1 != 0 {
            return self.check(INVALID_FIELD);
        }
        // A CD-ROM, removable, ATAPI's response format.
        let mut bytes = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
        let (maker, name) = (self.maker, format!("{} DVD-ROM", self.maker));
        bytes.extend(format!("{maker:<8.8}{name:<16.16}{REVISION:<4.4}").bytes());
        reply(bytes, be16(packet, 3).into())
    }

    fn start_stop(&mut self, packet: &[u8; PACKET]) -> Step {
        let (eject, start) = (packet[4] & 2 != 0, packet[4] & 1 != 0);
        if eject {
            if self.state.packet.prevented && !start {
                return self.check(PREVENTED);
            }
            let before = self.state.packet.loaded;
            self.state.packet.loaded = start && self.info().is_some();
            if before != self.state.packet.loaded {
                self.state.packet.event = if before { 3 } else { 2 };
            }
        }
        Step::Done
    }

    /// The medium that the host has put in is in the drive, or that it has taken away is gone.
    pub(super) fn medium_changed(&mut self) {
        let loaded = self.info().is_some();
        let packet = &mut self.state.packet;
        if packet.loaded || loaded {
            packet.event = if loaded { 2 } else { 3 };
        }
        packet.loaded = loaded;
        packet.attention = loaded;
    }

    /// Asks the guest to give the medium back.
    pub(crate) fn want_medium(&mut self) {
        self.state.packet.event = 1;
    }

    /// The tray.
    pub(crate) fn tray(&self) -> Tray {
        let packet = &self.state.packet;
        Tray { open: !packet.loaded && self.info().is_some(), locked: packet.prevented }
    }

    fn prevent(&mut self, packet: &[u8; PACKET]) -> Step {
        self.state.packet.prevented = packet[4] & 1 != 0;
        Step::Done
    }

    fn read_toc(&mut self, packet: &[u8; PACKET]) -> Step {
        const LEAD_OUT: u8 = 0xaa;
        // A data track that may be copied.
        const CONTROL: u8 = 0x14;
        let (msf, track) = (packet[1] & 2 != 0, packet[6]);
        // Before it was a field of its own, the format was in the last byte's upper bits.
        let format = if packet[2] & 0x0f != 0 { packet[2] & 0x0f } else { packet[9] >> 6 };
        let entry = |number: u8, block: u64| {
            let mut entry = vec![0, CONTROL, number, 0];
            entry.extend(address(block, msf));
            entry
        };
        let entries = match format {
            0 if track > 1 && track != LEAD_OUT => return self.check(INVALID_FIELD),
            0 if track == LEAD_OUT => entry(LEAD_OUT, self.blocks()),
            0 => [entry(1, 0), entry(LEAD_OUT, self.blocks())].concat(),
            // The first track of the last session.
            1 => entry(1, 0),
            _ => return self.check(INVALID_FIELD),
        };
        let mut bytes = ((entries.len() + 2) as u16).to_be_bytes().to_vec();
        // First and last track, or session.
        bytes.extend([1, 1]);
        bytes.extend(entries);
        reply(bytes, be16(packet, 7).into())
    }

    fn profile(&self) -> u16 {
        match (self.state.packet.loaded, self.blocks()) {
            (false, _) => 0,
            (true, blocks) if blocks > MAX_CD_BLOCKS => PROFILE_DVD,
            (true, _) => PROFILE_CD,
        }
    }

    fn get_configuration(&mut self, packet: &[u8; PACKET]) -> Step {
        let profile = self.profile();
        let profile_entry = |number: u16| {
            let [high, low] = number.to_be_bytes();
            [high, low, u8::from(number == profile), 0]
        };
        let profiles = [profile_entry(PROFILE_DVD), profile_entry(PROFILE_CD)].concat();
        // Number, version and whether it is persistent and current, data (MMC-3, 5.3).
        let features: [(u16, u8, &[u8]); 3] = [
            (0, 0x03, &profiles),
            // Core: the physical interface is ATAPI.
            (1, 0x0b, &[0, 0, 0, 2, 1, 0, 0, 0]),
            // Removable medium: a tray that can be ejected and locked.
            (3, 0x03, &[0x29, 0, 0, 0]),
        ];
        let (kind, start) = (packet[1] & 3, be16(packet, 2));
        let wanted = |number: u16| match kind {
            2 => number == start,
            _ => number >= start,
        };
        let mut bytes = vec![0; 6];
        bytes.extend(profile.to_be_bytes());
        for (number, flags, data) in features.into_iter().filter(|(number, ..)| wanted(*number)) {
            bytes.extend(number.to_be_bytes());
            bytes.extend([flags, data.len() as u8]);
            bytes.extend(data);
        }
        let length = (bytes.len() - 4) as u32;
        bytes.iter_mut().zip(length.to_be_bytes()).for_each(|(to, from)| *to = from);
        reply(bytes, be16(packet, 7).into())
    }

    fn get_event_status(&mut self, packet: &[u8; PACKET]) -> Step {
        const MEDIA: u8 = 4;
        if packet[1] & 1 == 0 {
            // Asynchronous notification is not there.
            return self.check(INVALID_FIELD);
        }
        let bytes = if packet[4] & 1 << MEDIA != 0 {
            let event = std::mem::replace(&mut self.state.packet.event, 0);
            let status = if self.state.packet.loaded { 2 } else { 0 };
            vec![0, 6, MEDIA, 1 << MEDIA, event, status, 0, 0]
        } else {
            // No event of the classes that were asked for.
            vec![0, 2, 0x80, 1 << MEDIA]
        };
        reply(bytes, be16(packet, 7).into())
    }

    fn read_disc_information(&mut self, packet: &[u8; PACKET]) -> Step {
        let mut bytes = vec![0; 34];
        // 32 more bytes; complete, last session complete; one track, one session, its first and last track; unrestricted use.
        bytes.iter_mut().zip([0, 32, 0x0e, 1, 1, 1, 1, 0x20]).for_each(|(to, from)| *to = from);
        reply(bytes, be16(packet, 7).into())
    }

    fn mechanism_status(&mut self, packet: &[u8; PACKET]) -> Step {
        reply(vec![0, 0, 0, 0, 0, 1, 0, 0], be16(packet, 8).into())
    }

    fn mode_sense(&mut self, packet: &[u8; PACKET], long: bool) -> Step {
        const ALL: u8 = 0x3f;
        // Error recovery (MMC-3, 5.5.2): nothing but the defaults.
        const RECOVERY: &[u8] = &[0x01, 6, 0, 0, 0, 0, 0, 0];
        // Capabilities (5.5.10): reads CD-R, CD-RW, DVD-ROM; mode 2, multisession; tray, lock, eject; speeds in kB/s; 512 KiB.
        const CAPABILITIES: &[u8] =
            &[0x2a, 18, 0x0b, 0, 0x70, 0, 0x29, 0, 0x02, 0xc2, 0, 2, 0x02, 0, 0x02, 0xc2, 0, 0, 0, 0];
        let (page, control) = (packet[2] & 0x3f, packet[2] >> 6);
        // Saved values do not exist.
        if control == 3 {
            return self.check((5, 0x39, 0));
        }
        let mut capabilities = CAPABILITIES.to_vec();
        if let Some(byte) = capabilities.get_mut(6)
            && self.state.packet.prevented
        {
            *byte |= 2;
        }
        let pages: Vec<u8> = match page {
            0x01 => RECOVERY.to_vec(),
            0x2a => capabilities,
            ALL => [RECOVERY.to_vec(), capabilities].concat(),
            _ => return self.check(INVALID_FIELD),
        };
        let header = if long { 8 } else { 4 };
        let mut bytes = vec![0; header];
        bytes.extend(pages);
        let length = bytes.len() as u16;
        if long {
            bytes.iter_mut().zip((length - 2).to_be_bytes()).for_each(|(to, from)| *to = from);
        } else if let Some(first) = bytes.first_mut() {
            *first = (length - 1) as u8;
        }
        let room = if long { be16(packet, 7).into() } else { packet[4].into() };
        reply(bytes, room)
    }
}
