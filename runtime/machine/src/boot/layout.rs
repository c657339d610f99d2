//! Where things are in the guest's physical address space at boot.

use std::fmt;

pub(super) use mimus_hw::low_ram_size;
use vm_memory::GuestAddress;

/// Start of the RAM above the PCI hole: 4 GiB.
pub const HIGH_RAM: u64 = 0x1_0000_0000;
/// End of the conventional memory: the last KiB below 640 KiB is where a PC's
/// extended BIOS data area starts.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// Start of the extended memory: 1 MiB.
pub const EXTENDED_RAM: u64 = 0x10_0000;

const PAGE: u64 = 0x1000;

/// The RAM regions, address and size in bytes, of a machine with `ram_size`
/// bytes of RAM: what [`low_ram_size`] says from address 0, the rest from 4 GiB.
pub fn ram_ranges(ram_size: u64) -> Vec<(GuestAddress, usize)> {
    let low = low_ram_size(ram_size);
    [(0, low), (HIGH_RAM, ram_size - low)]
        .into_iter()
        .filter(|&(_, size)| size > 0)
        // A size that the host cannot express is more than it can allocate.
        .map(|(start, size)| (GuestAddress(start), usize::try_from(size).unwrap_or(usize::MAX)))
        .collect()
}

/// What a range of the memory map is (ACPI 6.5, table 15.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum E820Kind {
    /// Usable RAM.
    Ram,
    /// Not for the operating system.
    Reserved,
    /// RAM with ACPI tables, usable once they have been read.
    Acpi,
}

impl E820Kind {
    /// The type's number in the map.
    pub const fn number(self) -> u32 {
        match self {
            E820Kind::Ram => 1,
            E820Kind::Reserved => 2,
            E820Kind::Acpi => 3,
        }
    }
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First physical address.
    pub addr: u64,
    /// Size in bytes, never 0.
    pub size: u64,
    /// What it is.
    pub kind: E820Kind,
}

impl E820Entry {
    fn end(&self) -> u64 {
        self.addr + self.size
    }
}

/// The memory map of a machine with `ram_size` bytes of RAM, in ascending order.
pub fn e820(ram_size: u64) -> Vec<E820Entry> {
    let low = low_ram_size(ram_size);
    let high = HIGH_RAM + (ram_size - low);
    [
        (0, low.min(CONVENTIONAL_END), E820Kind::Ram),
        (CONVENTIONAL_END, low.min(EXTENDED_RAM), E820Kind::Reserved),
        (EXTENDED_RAM, low, E820Kind::Ram),
        (HIGH_RAM, high, E820Kind::Ram),
    ]
    .into_iter()
    .filter(|&(start, end, _)| start < end)
    .map(|(addr, end, kind)| E820Entry { addr, size: end - addr, kind })
    .collect()
}

/// [`e820`] with the pages of each range in `acpi` (address and size in bytes)
/// that lie in usable RAM marked as ACPI tables.
pub(super) fn e820_with_acpi(ram_size: u64, acpi: &[(u64, u64)]) -> Vec<E820Entry> {
    let mut map = e820(ram_size);
    for &(start, size) in acpi.iter().filter(|&&(_, size)| size > 0) {
        let start = start & !(PAGE - 1);
        let end = start.saturating_add(size).saturating_add(PAGE - 1) & !(PAGE - 1);
        map = map
            .into_iter()
            .flat_map(|entry| {
                let (from, to) = (start.clamp(entry.addr, entry.end()), end.clamp(entry.addr, entry.end()));
                let inside = if entry.kind == E820Kind::Ram { E820Kind::Acpi } else { entry.kind };
                [(entry.addr, from, entry.kind), (from, to, inside), (to, entry.end(), entry.kind)]
            })
            .filter(|&(from, to, _)| from < to)
            .map(|(addr, to, kind)| E820Entry { addr, size: to - addr, kind })
            .collect();
    }
    map.dedup_by(|next, previous| {
        let joins = previous.end() == next.addr && previous.kind == next.kind;
        if joins {
            previous.size += next.size;
        }
        joins
    });
    map
}

/// Why a range cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not RAM that may be used; the end of that RAM.
    Outside(u64),
    /// Something else, named here, is there.
    Taken(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Outside(end) => write!(f, "does not fit into the RAM below {end:#x}"),
            Refusal::Taken(what) => write!(f, "overlaps {what}"),
        }
    }
}

struct Claim {
    start: u64,
    end: u64,
    what: &'static str,
}

/// What is taken of a range of RAM while an image is loaded.
pub(super) struct Space {
    ram_start: u64,
    ram_end: u64,
    claims: Vec<Claim>,
}

impl Space {
    /// A PC's RAM below the PCI hole.
    pub(super) fn new(ram_size: u64) -> Self {
        Space::within(0, low_ram_size(ram_size))
    }

    /// RAM from `start` to `end`.
    pub(super) fn within(start: u64, end: u64) -> Self {
        Space { ram_start: start, ram_end: end, claims: Vec::new() }
    }

    /// End of the RAM.
    pub(super) fn ram_end(&self) -> u64 {
        self.ram_end
    }

    /// Where the RAM begins and ends.
    pub(super) fn ram(&self) -> (u64, u64) {
        (self.ram_start, self.ram_end)
    }

    /// Keeps a range out of further use whatever is there already.
    pub(super) fn reserve(&mut self, start: u64, end: u64, what: &'static str) {
        self.claims.push(Claim { start, end, what });
    }

    /// Takes `size` bytes at `start`.
    pub(super) fn claim(&mut self, start: u64, size: u64, what: &'static str) -> Result<(), Refusal> {
        let fits = |&end: &u64| start >= self.ram_start && end <= self.ram_end;
        let end = start.checked_add(size).filter(fits).ok_or(Refusal::Outside(self.ram_end))?;
        if let Some(other) = self.claims.iter().find(|other| start < other.end && other.start < end) {
            return Err(Refusal::Taken(other.what));
        }
        self.reserve(start, end, what);
        Ok(())
    }

    /// Takes `size` bytes at the lowest free page at or above `floor` that ends
    /// at or below `limit`.
    pub(super) fn claim_lowest(&mut self, size: u64, floor: u64, limit: u64, what: &'static str) -> Option<u64> {
        let limit = limit.min(self.ram_end);
        let mut start = floor.checked_next_multiple_of(PAGE)?;
        loop {
            let end = start.checked_add(size).filter(|&end| end <= limit)?;
            match self.claims.iter().find(|other| start < other.end && other.start < end) {
                Some(other) => start = other.end.checked_next_multiple_of(PAGE)?,
                None => {
                    self.reserve(start, end, what);
                    return Some(start);
                }
            }
        }
    }

    /// Takes `size` bytes at the highest free page at or above `floor` that
    /// ends at or below `limit`.
    pub(super) fn claim_highest(&mut self, size: u64, floor: u64, limit: u64, what: &'static str) -> Option<u64> {
        let mut end = limit.min(self.ram_end);
        loop {
            let start = end.checked_sub(size).map(|start| start & !(PAGE - 1)).filter(|&start| start >= floor)?;
            match self.claims.iter().find(|other| start < other.end && other.start < start + size) {
                Some(other) => end = other.start,
                None => {
                    self.reserve(start, start + size, what);
                    return Some(start);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_splits_at_the_pci_hole() {
        let low = |size| vec![(GuestAddress(0), size as usize)];
        assert_eq!(ram_ranges(0), vec![]);
        assert_eq!(ram_ranges(MIB), low(MIB));
        assert_eq!(ram_ranges(3 * GIB + 500 * MIB), low(3 * GIB + 500 * MIB));
        let both = vec![(GuestAddress(0), (3 * GIB) as usize), (GuestAddress(4 * GIB), (2 * GIB) as usize)];
        assert_eq!(ram_ranges(5 * GIB), both);
    }

    #[test]
    fn map_covers_the_ram_and_nothing_else() {
        for size in [MIB, MIB + PAGE, 512 * MIB, 3 * GIB, 3 * GIB + PAGE, 3 * GIB + 512 * MIB, 8 * GIB] {
            let map = e820(size);
            let total: u64 = map.iter().map(|entry| entry.size).sum();
            assert_eq!(total, size, "RAM of {size:#x}");
            assert!(map.windows(2).all(|pair| pair[0].end() <= pair[1].addr), "RAM of {size:#x}");
            for entry in &map {
                let range = ram_ranges(size).into_iter().any(|(start, length)| {
                    start.0 <= entry.addr && entry.end() <= start.0 + u64::try_from(length).unwrap()
                });
                assert!(range, "{entry:x?} is not in the RAM of {size:#x}");
            }
        }
        assert_eq!(
            e820(512 * MIB),
            [
                E820Entry { addr: 0, size: 0x9_fc00, kind: E820Kind::Ram },
                E820Entry { addr: 0x9_fc00, size: 0x6_0400, kind: E820Kind::Reserved },
                E820Entry { addr: MIB, size: 511 * MIB, kind: E820Kind::Ram },
            ]
        );
    }

    #[test]
    fn acpi_tables_are_cut_out_of_usable_ram_only() {
        assert_eq!(e820_with_acpi(4 * MIB, &[(0xe_0000, 0x2000)]), e820(4 * MIB));
        assert_eq!(
            e820_with_acpi(4 * MIB, &[(0x3f_e010, 0x10), (0x3f_f000, 0x800)])[2..],
            [
                E820Entry { addr: MIB, size: 0x2f_e000, kind: E820Kind::Ram },
                E820Entry { addr: 0x3f_e000, size: 0x2000, kind: E820Kind::Acpi },
            ]
        );
    }

    #[test]
    fn placement_avoids_what_is_taken() {
        let mut space = Space::new(4 * MIB);
        space.claim(MIB, MIB, "the kernel").unwrap();
        assert_eq!(space.claim(2 * MIB - 1, 1, "it"), Err(Refusal::Taken("the kernel")));
        assert_eq!(space.claim(4 * MIB, 1, "it"), Err(Refusal::Outside(4 * MIB)));
        assert_eq!(space.claim(u64::MAX, 2, "it"), Err(Refusal::Outside(4 * MIB)));
        assert_eq!(space.claim_lowest(PAGE, MIB, u64::MAX, "a"), Some(2 * MIB));
        assert_eq!(space.claim_lowest(2 * MIB, 0, u64::MAX, "b"), None);
        assert_eq!(space.claim_highest(1, 0, u64::MAX, "c"), Some(4 * MIB - PAGE));
        assert_eq!(space.claim_highest(PAGE + 1, 0, u64::MAX, "d"), Some(4 * MIB - 3 * PAGE));
        assert_eq!(space.claim_highest(2 * MIB, MIB, u64::MAX, "e"), None);
        assert_eq!(space.claim_highest(MIB, 0, u64::MAX, "f"), Some(3 * MIB - 3 * PAGE));
        assert_eq!(space.claim_highest(u64::MAX, 0, u64::MAX, "g"), None);
        let mut space = Space::within(MIB, 2 * MIB);
        assert_eq!(space.claim(MIB - 1, 2, "it"), Err(Refusal::Outside(2 * MIB)));
        assert_eq!(space.claim(MIB, MIB, "it"), Ok(()));
    }
}
