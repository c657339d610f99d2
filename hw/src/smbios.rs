//! The SMBIOS structures that firmware passes on (System Management BIOS Reference Specification 2.8).

/// Bytes of the 32-bit entry point, and of the 64-bit one (5.2.1, 5.2.2).
const ANCHOR_SIZE: usize = 31;
const ANCHOR_SIZE_64: usize = 24;
/// Handles of structures.
const BOARD: u16 = 0x200;
const CHASSIS: u16 = 0x300;
const PROCESSOR: u16 = 0x400;
const MEMORY_ARRAY: u16 = 0x1000;
const MEMORY_DEVICE: u16 = 0x1100;

/// What the structures call the machine.
const PRODUCT: &str = "Standard PC (i440FX + PIIX, 1996)";

/// What the structures say of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosConfig {
    /// RAM in bytes.
    pub ram_size: u64,
    /// Processors; 0 counts as 1.
    pub cpus: u8,
    /// Who made the machine, and its version, where no field says otherwise.
    pub maker: (String, String),
    /// The machine's UUID, its bytes in the order in which it is written.
    pub uuid: [u8; 16],
    /// Fields with values of their own: type of the structure, name of the field as `-smbios` has it, and value.
    pub fields: Vec<(u8, &'static str, String)>,
    /// OEM strings (type 11).
    pub strings: Vec<String>,
    /// Structures in their binary form, with the strings behind each.
    pub more: Vec<u8>,
    /// The entry point is the one of version 3, with a 64-bit address.
    pub wide: bool,
}

impl Default for SmbiosConfig {
    fn default() -> Self {
        SmbiosConfig {
            ram_size: 0,
            cpus: 1,
            maker: ("mimus".into(), "pc".into()),
            uuid: [0; 16],
            fields: Vec::new(),
            strings: Vec::new(),
            more: Vec::new(),
            wide: false,
        }
    }
}

impl SmbiosConfig {
    /// The value given for a field.
    fn field(&self, kind: u8, name: &str) -> Option<&str> {
        let found = |field: &&(u8, &str, String)| field.0 == kind && field.1 == name;
        // The last one counts.
        self.fields.iter().rev().find(found).map(|field| field.2.as_str())
    }

    fn has(&self, kind: u8) -> bool {
        self.fields.iter().any(|field| field.0 == kind)
    }

    /// A field that is a number; `default` if it is not given, or is none.
    fn number(&self, kind: u8, name: &str, default: u16) -> [u8; 2] {
        self.field(kind, name).and_then(|text| text.parse().ok()).unwrap_or(default).to_le_bytes()
    }
}

/// A structure's strings; fields hold their numbers, 0 for none (6.1.3).
struct Strings<'a> {
    config: &'a SmbiosConfig,
    kind: u8,
    list: Vec<String>,
}

impl Strings<'_> {
    fn add(&mut self, text: &str) -> u8 {
        // A NUL would end the string for whoever reads it.
        let text: String = text.chars().filter(|character| *character != '\0').collect();
        if text.is_empty() {
            return 0;
        }
        self.list.push(text);
        self.list.len() as u8
    }

    /// The value of a field, or `default`.
    fn field(&mut self, name: &str, default: &str) -> u8 {
        let text = self.config.field(self.kind, name).unwrap_or(default).to_owned();
        self.add(&text)
    }

    fn maker(&mut self) -> u8 {
        let config = self.config;
        self.field("manufacturer", &config.maker.0)
    }

    fn version(&mut self) -> u8 {
        let config = self.config;
        self.field("version", &config.maker.1)
    }
}

struct Structures<'a> {
    config: &'a SmbiosConfig,
    bytes: Vec<u8>,
    count: u16,
    largest: u16,
}

impl Structures<'_> {
    /// Adds a structure of type `kind`: what follows its header, with strings.
    fn add(&mut self, kind: u8, handle: u16, body: impl FnOnce(&mut Strings) -> Vec<u8>) {
        let start = self.bytes.len();
        let mut strings = Strings { config: self.config, kind, list: Vec::new() };
        let body = body(&mut strings);
        self.bytes.extend([kind, 4 + body.len() as u8]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(body);
        for string in &strings.list {
            self.bytes.extend(string.bytes());
            self.bytes.push(0);
        }
        // Two zeros end a structure, also one without strings (6.1.3).
        self.bytes.extend(if strings.list.is_empty() { &[0, 0][..] } else { &[0] });
        self.count_one(self.bytes.len() - start);
    }

    fn count_one(&mut self, size: usize) {
        self.count = self.count.saturating_add(1);
        self.largest = self.largest.max(u16::try_from(size).unwrap_or(u16::MAX));
    }

    /// Adds structures in their binary form, as far as they are whole.
    fn add_binary(&mut self, mut bytes: &[u8]) {
        while let Some(length) = bytes.get(1).map(|length| usize::from(*length)).filter(|length| *length >= 4) {
            let Some(strings) = bytes.get(length..) else { break };
            let Some(end) = strings.windows(2).position(|pair| pair == [0, 0]) else { break };
            let (structure, rest) = bytes.split_at(length + end + 2);
            self.bytes.extend(structure);
            self.count_one(structure.len());
            bytes = rest;
        }
    }

    /// The firmware (7.1), if somebody says what it is; otherwise it is firmware's own to tell.
    fn bios(&mut self) {
        let config = self.config;
        if !config.has(0) {
            return;
        }
        let release = config.field(0, "release").and_then(|text| text.split_once('.'));
        let release = release.map(|(major, minor)| [major.parse().unwrap_or(0), minor.parse().unwrap_or(0)]);
        // Bit 3 of the second extension byte: UEFI; bit 2: a virtual machine.
        let extension = if config.field(0, "uefi") == Some("on") { 0x1c } else { 0x14 };
        self.add(0, 0, |s| {
            let mut body = vec![s.field("vendor", ""), s.field("version", ""), 0x00, 0xe8, s.field("date", ""), 0];
            // No characteristics but that; no embedded controller.
            body.extend(8u64.to_le_bytes());
            body.extend([0, extension]);
            body.extend(release.unwrap_or([0, 0]));
            body.extend([0xff, 0xff]);
            body
        });
    }

    /// The system (7.2), the board (7.3) if somebody says what it is, and the chassis (7.4).
    fn system(&mut self) {
        let config = self.config;
        self.add(1, 0x100, |s| {
            let product = [s.maker(), s.field("product", PRODUCT), s.version(), s.field("serial", "")];
            // The first three fields of a UUID are little-endian; woken by the power switch.
            let [a, b, c, d, e, f, g, h, rest @ ..] = config.uuid;
            let tail = [6, s.field("sku", ""), s.field("family", "")];
            [&product[..], &[d, c, b, a, f, e, h, g], &rest, &tail].concat()
        });
        if config.has(2) {
            self.add(2, BOARD, |s| {
                let names = [s.maker(), s.field("product", ""), s.version(), s.field("serial", "")];
                // Hosts other boards, in this chassis, a motherboard, which contains nothing that is told.
                let [low, high] = CHASSIS.to_le_bytes();
                let place = [s.field("asset", ""), 1, s.field("location", ""), low, high, 10, 0];
                [&names[..], &place].concat()
            });
        }
        self.add(3, CHASSIS, |s| {
            // Other; states safe, nothing else.
            let names = [s.maker(), 1, s.version(), s.field("serial", ""), s.field("asset", "")];
            [&names[..], &[3, 3, 3, 2], &[0; 4], &[0, 0, 0, 0], &[s.field("sku", "")]].concat()
        });
    }

    /// A processor in its socket (7.5).
    fn processor(&mut self, cpu: u16) {
        let config = self.config;
        self.add(4, PROCESSOR + cpu, |s| {
            let socket = format!("{} {cpu}", config.field(4, "sock_pfx").unwrap_or("CPU"));
            let id = config.field(4, "processor-id").and_then(parse_number).unwrap_or(0).to_le_bytes();
            let head = [s.add(&socket), 3, 1, s.maker()];
            let version = [s.version(), 0];
            // Its clocks in MHz, and none of the bus; enabled; family "other"; nothing of caches known.
            let clocks = [[0, 0], config.number(4, "max-speed", 0), config.number(4, "current-speed", 0)].concat();
            let numbers = [s.field("serial", ""), s.field("asset", ""), s.field("part", "")];
            // One core, one thread of it, no characteristics but "unknown"; the family again.
            let tail = [1, 1, 1, 2, 0, 1, 0];
            [&head[..], &id, &version, &clocks, &[0x41, 1], &[0xff; 6], &numbers, &tail].concat()
        });
    }

    /// The memory array (7.17), its only device (7.18), and where it is (7.20).
    fn memory(&mut self) {
        let (config, ram_size) = (self.config, self.config.ram_size);
        let (word, double) = (u16::to_le_bytes, u32::to_le_bytes);
        // On the board, for the system, no known error correction, its size in KiB.
        let kib = u32::try_from(ram_size >> 10).unwrap_or(u32::MAX).min(0x7fff_ffff);
        self.add(16, MEMORY_ARRAY, |_| [&[1, 3, 6][..], &double(kib), &word(0xfffe), &word(1)].concat());
        // In that array, widths unknown, its size in MiB, a DIMM of RAM.
        let mib = ram_size >> 20;
        let small = if mib < 0x7fff { mib as u16 } else { 0x7fff };
        let large = if mib < 0x7fff { 0 } else { u32::try_from(mib).unwrap_or(u32::MAX).min(0x7fff_ffff) };
        let speed = config.number(17, "speed", 0);
        self.add(17, MEMORY_DEVICE, |s| {
            let place = format!("{} 0", config.field(17, "loc_pfx").unwrap_or("DIMM"));
            let names = [s.add(&place), s.field("bank", "")];
            let makers = [s.maker(), s.field("serial", ""), s.field("asset", ""), s.field("part", ""), 0];
            let head = [word(MEMORY_ARRAY), word(0xfffe), word(0xffff), word(0xffff), word(small)].concat();
            [&head[..], &[9, 0], &names, &[7], &word(2), &speed, &makers, &double(large), &speed, &[0; 6]].concat()
        });
        // First and last KiB of each piece.
        let low = crate::low_ram_size(ram_size);
        for (index, (start, size)) in [(0, low), (1 << 32, ram_size - low)].into_iter().enumerate() {
            if let (1.., Ok(first), Ok(last)) =
                (size, u32::try_from(start >> 10), u32::try_from((start + size).saturating_sub(1) >> 10))
            {
                self.add(19, 0x1300 + index as u16, |_| {
                    [&double(first)[..], &double(last), &word(MEMORY_ARRAY), &[1], &[0; 16]].concat()
                });
            }
        }
    }
}

/// A number, decimal or hexadecimal with `0x`.
fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The entry point, whose address and checksums are still to be filled in, and the structures of a machine.
pub(crate) fn build(config: &SmbiosConfig) -> (Vec<u8>, Vec<u8>) {
    let mut s = Structures { config, bytes: Vec::new(), count: 0, largest: 0 };
    s.bios();
    s.system();
    (0..u16::from(config.cpus.max(1))).for_each(|cpu| s.processor(cpu));
    if !config.strings.is_empty() {
        s.add(11, 0xe00, |s| {
            // A byte counts them.
            config.strings.iter().take(255).for_each(|text| {
                s.add(text);
            });
            vec![s.list.len() as u8]
        });
    }
    s.memory();
    s.add_binary(&config.more);
    // Boot status: no errors (7.33); and the end (7.45).
    s.add(32, 0x2000, |_| vec![0; 7]);
    s.add(127, 0x7f00, |_| Vec::new());
    (if config.wide { anchor_64(&s) } else { anchor(&s) }, s.bytes)
}

/// The 32-bit entry point: length, version 2.8, the largest structure, revision 0.
fn anchor(s: &Structures) -> Vec<u8> {
    let mut anchor = b"_SM_\0".to_vec();
    anchor.extend([ANCHOR_SIZE as u8, 2, 8]);
    anchor.extend(s.largest.to_le_bytes());
    anchor.extend([0; 6]);
    anchor.extend(b"_DMI_\0");
    anchor.extend(u16::try_from(s.bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
    anchor.extend([0; 4]);
    anchor.extend(s.count.to_le_bytes());
    anchor.push(0x28);
    anchor
}

/// The 64-bit entry point of version 3.0, revision 1.
fn anchor_64(s: &Structures) -> Vec<u8> {
    let mut anchor = b"_SM3_\0".to_vec();
    anchor.extend([ANCHOR_SIZE_64 as u8, 3, 0, 0, 1, 0]);
    anchor.extend((s.bytes.len() as u32).to_le_bytes());
    anchor.extend([0; 8]);
    anchor
}

/// Entry point and structures as firmware leaves them at `address`, below 4 GiB and a multiple of 16.
pub fn placed(config: &SmbiosConfig, address: u32) -> Vec<u8> {
    let (mut anchor, structures) = build(config);
    let at = address + (anchor.len() as u32).next_multiple_of(16);
    let mut put = |offset: usize, bytes: &[u8]| {
        anchor.iter_mut().skip(offset).zip(bytes).for_each(|(place, byte)| *place = *byte);
    };
    if config.wide {
        put(16, &at.to_le_bytes());
    } else {
        put(24, &at.to_le_bytes());
    }
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    // The sum of the second part of the 32-bit entry point is part of that of all of it.
    let sums: &[(usize, usize)] = if config.wide { &[(5, 0)] } else { &[(21, 16), (4, 0)] };
    for &(place, from) in sums {
        let value = anchor.get(from..).map_or(0, sum);
        if let Some(byte) = anchor.get_mut(place) {
            *byte = value;
        }
    }
    anchor.resize((at - address) as usize, 0);
    anchor.extend(structures);
    anchor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_follow_each_other_to_the_end() {
        for ram_size in [64 << 20, 5 << 30, 1 << 40] {
            let (anchor, bytes) = build(&SmbiosConfig { ram_size, cpus: 2, ..SmbiosConfig::default() });
            assert_eq!(anchor.len(), ANCHOR_SIZE);
            assert_eq!(usize::from(u16::from_le_bytes([anchor[22], anchor[23]])), bytes.len());
            let (mut at, mut kinds) = (0, Vec::new());
            while at < bytes.len() {
                kinds.push(bytes[at]);
                at += usize::from(bytes[at + 1]);
                at += bytes[at..].windows(2).position(|pair| pair == [0, 0]).unwrap() + 2;
            }
            assert_eq!(at, bytes.len());
            assert_eq!(usize::from(u16::from_le_bytes([anchor[28], anchor[29]])), kinds.len());
            assert_eq!((kinds[0], kinds.last()), (1, Some(&127)));
        }
    }

    #[test]
    fn lengths_are_those_of_version_2_8() {
        let (_, bytes) = build(&SmbiosConfig { ram_size: 1 << 30, ..SmbiosConfig::default() });
        let (mut at, mut lengths) = (0, Vec::new());
        while at < bytes.len() {
            lengths.push((bytes[at], bytes[at + 1]));
            at += usize::from(bytes[at + 1]);
            at += bytes[at..].windows(2).position(|pair| pair == [0, 0]).unwrap() + 2;
        }
        let expected = [(1, 0x1b), (3, 0x16), (4, 0x2a), (16, 0x0f), (17, 0x28), (19, 0x1f), (32, 0x0b), (127, 4)];
        assert_eq!(lengths, expected);
    }

    /// The structure of type `kind`: its formatted part, and its strings.
    fn structure(bytes: &[u8], kind: u8) -> (Vec<u8>, Vec<String>) {
        let mut at = 0;
        loop {
            let length = usize::from(bytes[at + 1]);
            let end = at + length + bytes[at + length..].windows(2).position(|pair| pair == [0, 0]).unwrap();
            if bytes[at] == kind {
                let strings = bytes[at + length..end].split(|byte| *byte == 0);
                let strings = strings.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
                return (bytes[at..at + length].to_vec(), strings);
            }
            at = end + 2;
        }
    }

    #[test]
    fn fields_that_are_given_are_told() {
        let field = |kind, name, value: &str| (kind, name, value.to_owned());
        let config = SmbiosConfig {
            ram_size: 1 << 30,
            uuid: *b"\x77\x04\x6f\x18\xe1\x07\x48\xe7\x93\x9c\x57\xeb\xa1\x63\xc4\x78",
            fields: vec![
                field(0, "vendor", "maker of firmware"),
                field(0, "release", "3.14"),
                field(1, "manufacturer", "OpenStack Foundation"),
                field(1, "serial", "one"),
                field(1, "serial", "ds=nocloud"),
                field(2, "product", "a board"),
                field(4, "sock_pfx", "socket"),
                field(4, "processor-id", "0x0102030405060708"),
                field(4, "max-speed", "2500"),
                field(17, "speed", "3200"),
            ],
            strings: vec!["first".into(), "second".into()],
            more: [&[200, 5, 1, 2, 9][..], b"own\0\0", &[201, 3]].concat(),
            ..SmbiosConfig::default()
        };
        let (_, bytes) = build(&config);
        let (bios, strings) = structure(&bytes, 0);
        assert_eq!((bios.len(), &bios[20..22], &*strings[0]), (24, &[3, 14][..], "maker of firmware"));
        let (system, strings) = structure(&bytes, 1);
        assert_eq!(strings, ["OpenStack Foundation", PRODUCT, "pc", "ds=nocloud"]);
        assert_eq!(system[8..18], [0x18, 0x6f, 0x04, 0x77, 0x07, 0xe1, 0xe7, 0x48, 0x93, 0x9c]);
        assert_eq!(structure(&bytes, 2).1, ["mimus", "a board", "pc"]);
        let (processor, strings) = structure(&bytes, 4);
        assert_eq!((&processor[8..10], &processor[20..22], &*strings[0]), (&[8, 7][..], &[0xc4, 9][..], "socket 0"));
        assert_eq!(structure(&bytes, 11), (vec![11, 5, 0, 0x0e, 2], vec!["first".into(), "second".into()]));
        let (memory, _) = structure(&bytes, 17);
        assert_eq!((memory.len(), &memory[21..23], &memory[32..34]), (0x28, &[0x80, 0x0c][..], &[0x80, 0x0c][..]));
        assert_eq!(structure(&bytes, 200).1, ["own"]);
    }

    #[test]
    fn without_firmware_both_entry_points_lead_to_the_structures() {
        for (wide, size, pointer) in [(false, ANCHOR_SIZE, 24), (true, ANCHOR_SIZE_64, 16)] {
            let config = SmbiosConfig { ram_size: 64 << 20, wide, ..SmbiosConfig::default() };
            let area = placed(&config, 0xf_5000);
            let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!((sum(&area[..size]), sum(&area[if wide { 0 } else { 16 }..size])), (0, 0));
            let at = u32::from_le_bytes(area[pointer..pointer + 4].try_into().unwrap());
            assert_eq!((at, &area[at as usize - 0xf_5000..][..2]), (0xf_5020, &[1, 0x1b][..]));
        }
    }
}
