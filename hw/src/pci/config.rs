//! The configuration space of a function: the type 0 header, base address registers, the list of capabilities (PCI Local Bus
//! Specification 3.0, chapter 6).

/// Bytes of a configuration space.
pub const CONFIG_SIZE: usize = 256;

/// Offsets of the header's registers (figure 6-1).
pub const COMMAND: u8 = 0x04;
/// See [`COMMAND`].
pub const STATUS: u8 = 0x06;
/// See [`COMMAND`].
pub const HEADER_TYPE: u8 = 0x0e;
/// See [`COMMAND`].
pub const BAR0: u8 = 0x10;
/// See [`COMMAND`].
pub const ROM_ADDRESS: u8 = 0x30;
/// See [`COMMAND`].
pub const CAPABILITIES: u8 = 0x34;
/// See [`COMMAND`].
pub const INTERRUPT_LINE: u8 = 0x3c;
/// See [`COMMAND`].
pub const INTERRUPT_PIN: u8 = 0x3d;

/// Bits of the command register (table 6-1).
pub const COMMAND_IO: u16 = 1 << 0;
/// See [`COMMAND_IO`].
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// See [`COMMAND_IO`].
pub const COMMAND_MASTER: u16 = 1 << 2;
/// See [`COMMAND_IO`].
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// Bits of the status register (table 6-2).
const STATUS_INTERRUPT: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// Number of the base address register that is the expansion ROM's, after the six others.
pub const ROM_BAR: usize = 6;
const BARS: usize = 7;
/// Bit 0 of the expansion ROM's base address register: the ROM is decoded.
const ROM_ENABLE: u32 = 1;
/// Where capabilities begin.
const FIRST_CAPABILITY: usize = 0x40;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface: 24 bits.
    pub class: u32,
    /// Subsystem's vendor and number; both 0 if it has none.
    pub subsystem: (u16, u16),
}

/// The two address spaces that base address registers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// I/O ports.
    Io,
    /// Memory.
    Memory,
}

/// What a base address register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory,
    /// Memory below 4 GiB without side effects of reads.
    Prefetchable,
    /// Memory anywhere, without side effects of reads: takes the next register too.
    Prefetchable64,
    /// The expansion ROM ([`ROM_BAR`] only).
    Rom,
}

impl BarKind {
    /// The read-only low bits (6.2.5.1).
    fn low_bits(self) -> u32 {
        match self {
            BarKind::Io => 1,
            BarKind::Memory | BarKind::Rom => 0,
            BarKind::Prefetchable => 8,
            BarKind::Prefetchable64 => 8 | 4,
        }
    }

    pub(super) fn space(self) -> Space {
        if self == BarKind::Io { Space::Io } else { Space::Memory }
    }
}

/// A declared base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) kind: BarKind,
    pub(super) size: u64,
}

/// What a base address register answers to at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of the register.
    pub bar: usize,
    /// The address space.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Bytes or ports.
    pub size: u64,
}

/// A configuration space. What software may write is a mask by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    bytes: [u8; CONFIG_SIZE],
    initial: [u8; CONFIG_SIZE],
    writable: [u8; CONFIG_SIZE],
    bars: [Option<Bar>; BARS],
    next_capability: usize,
}

fn at(offset: u8) -> usize {
    usize::from(offset)
}

impl Config {
    /// A header without base address registers, interrupt and capabilities.
    pub fn new(identity: Identity) -> Config {
        let mut config = Config {
            bytes: [0; CONFIG_SIZE],
            initial: [0; CONFIG_SIZE],
            writable: [0; CONFIG_SIZE],
            bars: [None; BARS],
            next_capability: FIRST_CAPABILITY,
        };
        config.set_u16(0x00, identity.vendor);
        config.set_u16(0x02, identity.device);
        config.set_u32(0x08, identity.class << 8 | u32::from(identity.revision));
        config.set_u16(0x2c, identity.subsystem.0);
        config.set_u16(0x2e, identity.subsystem.1);
        let command = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE | 1 << 8;
        config.allow(COMMAND, &command.to_le_bytes());
        // Cache line size, interrupt line: kept for software. The latency timer is not: it is for buses with others on them.
        config.allow(0x0c, &[0xff]);
        config.allow(INTERRUPT_LINE, &[0xff]);
        config
    }

    /// Declares base address register `bar`: `size` bytes, a power of two, at least 4 for I/O and 16 for memory (2 KiB for a
    /// ROM). What cannot be one is left out.
    #[must_use]
    pub fn with_bar(mut self, bar: usize, kind: BarKind, size: u64) -> Config {
        let register = if bar == ROM_BAR { at(ROM_ADDRESS) } else { at(BAR0) + 4 * bar };
        let fits = size.is_power_of_two() && (kind == BarKind::Rom) == (bar == ROM_BAR);
        debug_assert!(fits, "a base address register of {size} bytes");
        let mask = (size.wrapping_neg() as u32) | if kind == BarKind::Rom { ROM_ENABLE } else { 0 };
        if let (true, Some(place)) = (fits, self.bars.get_mut(bar)) {
            *place = Some(Bar { kind, size });
            self.set_u32(register as u8, kind.low_bits());
            self.allow(register as u8, &mask.to_le_bytes());
            if kind == BarKind::Prefetchable64 {
                self.allow(register as u8 + 4, &((size.wrapping_neg() >> 32) as u32).to_le_bytes());
            }
        }
        self
    }

    /// Declares interrupt pin `pin`: 1 is INTA#.
    #[must_use]
    pub fn with_interrupt_pin(mut self, pin: u8) -> Config {
        self.set(INTERRUPT_PIN, &[pin]);
        self
    }

    /// Adds a capability: its number, what follows its two first bytes, and which bits of that software may write (6.7). Its
    /// offset; `None` when there is no room.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u8> {
        let offset = self.next_capability;
        let end = offset + 2 + body.len();
        if end > CONFIG_SIZE {
            return None;
        }
        let offset = offset as u8;
        let previous = self.u8(CAPABILITIES);
        self.set(offset, &[id, previous]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable);
        self.set(CAPABILITIES, &[offset]);
        self.set(STATUS, &[self.u8(STATUS) | STATUS_CAPABILITIES]);
        self.next_capability = end.next_multiple_of(4);
        Some(offset)
    }

    /// Sets bytes as the device has them at power-on. What is beyond the end is left out.
    pub fn set(&mut self, offset: u8, bytes: &[u8]) {
        for (index, byte) in (at(offset)..CONFIG_SIZE).zip(bytes) {
            self.bytes[index] = *byte;
            self.initial[index] = *byte;
        }
    }

    /// [`Config::set`] of two bytes.
    pub fn set_u16(&mut self, offset: u8, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    /// [`Config::set`] of four bytes.
    pub fn set_u32(&mut self, offset: u8, value: u32) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Lets software write these bits from `offset` on.
    pub fn allow(&mut self, offset: u8, writable: &[u8]) {
        for (place, byte) in self.writable.iter_mut().skip(at(offset)).zip(writable) {
            *place = *byte;
        }
    }

    /// The device changes a byte: a status.
    pub fn put(&mut self, offset: u8, value: u8) {
        self.bytes[at(offset)] = value;
    }

    /// A byte.
    pub fn u8(&self, offset: u8) -> u8 {
        self.bytes[at(offset)]
    }

    /// Two bytes, the lower one first.
    pub fn u16(&self, offset: u8) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset.wrapping_add(1))])
    }

    /// Four bytes, the lowest first.
    pub fn u32(&self, offset: u8) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset.wrapping_add(2))) << 16
    }

    /// Whether the function may read and write RAM.
    pub fn is_master(&self) -> bool {
        self.u16(COMMAND) & COMMAND_MASTER != 0
    }

    /// Software writes a byte.
    pub(super) fn write(&mut self, offset: u8, value: u8) {
        let writable = self.writable[at(offset)];
        let byte = &mut self.bytes[at(offset)];
        *byte = *byte & !writable | value & writable;
    }

    /// What software reads of a byte, while the function's interrupt line is at `intx`.
    pub(super) fn read(&self, offset: u8, intx: bool) -> u8 {
        let interrupt = if offset == STATUS && intx { STATUS_INTERRUPT } else { 0 };
        self.u8(offset) | interrupt
    }

    /// Back to power-on values.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }

    /// The size in bytes of base address register `bar` and what it is for, if it is declared.
    pub(super) fn bar(&self, bar: usize) -> Option<Bar> {
        self.bars.get(bar).copied().flatten()
    }

    /// Moves base address register `bar`, as firmware does.
    pub(super) fn place(&mut self, bar: usize, address: u64) {
        let register = BAR0.wrapping_add(4 * bar as u8);
        for (offset, byte) in (register..).zip(address.to_le_bytes()).take(match self.bar(bar) {
            Some(Bar { kind: BarKind::Prefetchable64, .. }) => 8,
            _ => 4,
        }) {
            self.write(offset, byte);
        }
    }

    /// What the base address registers answer to, as the command register has it.
    pub fn windows(&self) -> impl Iterator<Item = Window> + '_ {
        let command = self.u16(COMMAND);
        (0..BARS).filter_map(move |bar| {
            let Bar { kind, size } = self.bar(bar)?;
            let space = kind.space();
            let enabled = match space {
                Space::Io => command & COMMAND_IO,
                Space::Memory => command & COMMAND_MEMORY,
            };
            let register = if bar == ROM_BAR { ROM_ADDRESS } else { BAR0 + 4 * bar as u8 };
            let low = self.u32(register);
            if enabled == 0 || kind == BarKind::Rom && low & ROM_ENABLE == 0 {
                return None;
            }
            let high = if kind == BarKind::Prefetchable64 { self.u32(register + 4) } else { 0 };
            let base = (u64::from(high) << 32 | u64::from(low)) & size.wrapping_neg();
            // Nothing is at 0, and nothing that reaches over the end of its space: that is how software finds sizes.
            let limit = match (space, kind) {
                (Space::Io, _) => 1 << 16,
                (_, BarKind::Prefetchable64) => 1 << 52,
                _ => 1 << 32,
            };
            let last = base.checked_add(size - 1)?;
            (base != 0 && last < limit - 1).then_some(Window { bar, space, base, size })
        })
    }

    /// The bytes, for a saved state.
    pub(super) fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Whether `bytes` are those of such a function.
    pub(super) fn fits(&self, bytes: &[u8]) -> bool {
        let same = |range: std::ops::Range<usize>| bytes.get(range.clone()) == self.bytes.get(range);
        bytes.len() == CONFIG_SIZE && same(0..4) && same(8..12) && same(0x34..0x35)
    }

    /// Takes over what [`Config::fits`].
    pub(super) fn restore(&mut self, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().zip(bytes) {
            *place = *byte;
        }
    }
}
