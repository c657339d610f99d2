//! What a PC's guest-physical memory reaches where it may be RAM or not: the ROM and its shadow, VGA's window, display memory.

use mimus_hw::Pc;
use mimus_softmmu::{Backing, Route};

/// A piece of guest-physical memory and what it reaches: first address, size in bytes.
pub(crate) type Piece = (u64, u64, Backing);

/// Where backings find display memory: above all RAM below 4 GiB, and a multiple of any size that it may have. The guest sees it
/// where the adapter's base address register says.
pub(crate) const DISPLAY_HOME: u64 = 0xe000_0000;

/// Where the ROM ends: 4 GiB. The processor's first instruction is 16 bytes below.
pub(crate) const ROM_END: u64 = 1 << 32;
/// The largest ROM, in bytes: the local APIC's page is below.
pub(crate) const ROM_MOST: u64 = 16 << 20;
/// Of the ROM's end so much is visible below 1 MiB, too, as long as that is no RAM.
const ALIAS: u64 = 128 << 10;
const ALIAS_END: u64 = 1 << 20;
/// The VGA's window, and where the memory begins whose attributes the host bridge has.
const VGA_WINDOW: u64 = 0xa_0000;
const PAM_START: u64 = 0xc_0000;

/// What guest-physical memory that may be RAM or not reaches at present; with a ROM of `rom` bytes, if there is one.
pub(crate) fn memory_map(pc: &mut Pc, rom: Option<u64>) -> Vec<Piece> {
    let mut pieces = chipset_map(pc, rom);
    let [before, now] = pc.take_display();
    let display = Backing { read: Route::At(DISPLAY_HOME), write: Route::At(DISPLAY_HOME) };
    pieces.extend(before.filter(|_| before != now).map(|window| (window.base, window.size, Backing::DEVICE)));
    pieces.extend(now.map(|window| (window.base, window.size, display)));
    pieces
}

/// The same without display memory.
pub(crate) fn chipset_map(pc: &Pc, rom: Option<u64>) -> Vec<Piece> {
    let mut pieces = vec![(VGA_WINDOW, PAM_START - VGA_WINDOW, Backing::DEVICE)];
    for pam in pc.pam() {
        let from_end = ALIAS_END - pam.base;
        let visible = rom.is_some_and(|rom| from_end <= rom.min(ALIAS));
        let read = match pam.read {
            true => Route::Own,
            false if visible => Route::At(ROM_END - from_end),
            false => Route::Device,
        };
        let write = if pam.write { Route::Own } else { Route::Device };
        pieces.push((pam.base, pam.size, Backing { read, write }));
    }
    if let Some(rom) = rom {
        pieces.push((ROM_END - ROM_MOST, ROM_MOST - rom, Backing::DEVICE));
        pieces.push((ROM_END - rom, rom, Backing::ROM));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mimus_hw::PcConfig;
    use mimus_hw::vga::{DEVFN, StdVga, VRAM_SIZE};
    use mimus_softmmu::Vram;

    use super::*;

    fn pc() -> Pc {
        let config = PcConfig { ram_size: 64 << 20, tsc_hz: 1_000_000_000, ..PcConfig::default() };
        Pc::new(config)
    }

    fn at(pieces: &[Piece], gpa: u64) -> Backing {
        let found = pieces.iter().find(|(base, size, _)| (*base..base + size).contains(&gpa));
        found.map_or(Backing::RAM, |piece| piece.2)
    }

    #[test]
    fn the_rom_is_at_both_places_until_it_is_shadowed() {
        let mut pc = pc();
        let map = memory_map(&mut pc, Some(256 << 10));
        assert_eq!(at(&map, 0xf_fff0), Backing { read: Route::At(0xffff_0000), write: Route::Device });
        assert_eq!(at(&map, 0xe_0000), Backing { read: Route::At(0xfffe_0000), write: Route::Device });
        assert_eq!(at(&map, 0xc_0000), Backing::DEVICE);
        assert_eq!([0xa_0000, 0xb_ffff, 0xff00_0000].map(|gpa| at(&map, gpa)), [Backing::DEVICE; 3]);
        assert_eq!([0xfffc_0000, 0xffff_fff0].map(|gpa| at(&map, gpa)), [Backing::ROM; 2]);
        assert_eq!(at(&map, 0x9_f000), Backing::RAM);
        assert_eq!(at(&memory_map(&mut pc, Some(64 << 10)), 0xe_0000), Backing::DEVICE, "a smaller ROM");
        pc.port_write(0, 0xcf8, 4, 0x8000_0058);
        pc.port_write(0, 0xcfd, 1, 0x10);
        assert_eq!(at(&memory_map(&mut pc, Some(256 << 10)), 0xf_fff0), Backing::ROM, "RAM that cannot be written");
        pc.port_write(0, 0xcfd, 1, 0x30);
        assert_eq!(at(&memory_map(&mut pc, None), 0xf_fff0), Backing::RAM);
    }

    #[test]
    fn display_memory_is_where_its_base_address_register_says_if_nothing_else_is_there() {
        let mut pc = pc();
        let vram = Arc::new(Vram::new(VRAM_SIZE as usize).expect("16 MiB"));
        pc.plug(Some(DEVFN), Box::new(StdVga::new(vram, None))).expect("its place");
        let write = |pc: &mut Pc, register: u32, value: u32| {
            pc.port_write(0, 0xcf8, 4, 0x8000_0000 | u32::from(DEVFN) << 8 | register);
            pc.port_write(0, 0xcfc, 4, value);
        };
        let display = Backing { read: Route::At(DISPLAY_HOME), write: Route::At(DISPLAY_HOME) };
        // The pieces: where the window was, and where it is.
        let mut look = |steps: &[(u32, u32)], expected: &[(u64, Backing)]| {
            steps.iter().for_each(|&(register, value)| write(&mut pc, register, value));
            let changed = pc.take_map_changed();
            let map = memory_map(&mut pc, None);
            let found: Vec<_> = map.iter().filter(|(_, size, _)| *size == VRAM_SIZE).map(|p| (p.0, p.2)).collect();
            assert_eq!(found, expected, "{steps:x?}");
            assert!(!pc.take_map_changed());
            changed
        };
        let gone = |base| [(base, Backing::DEVICE)];
        look(&[], &[]);
        assert!(look(&[(0x10, 0xfd00_0000), (0x04, 2)], &[(0xfd00_0000, display)]));
        assert!(!look(&[(0x3c, 9)], &[(0xfd00_0000, display)]));
        assert!(look(&[(0x10, 0x8000_0000)], &[(0xfd00_0000, Backing::DEVICE), (0x8000_0000, display)]));
        assert!(look(&[(0x10, 0x0300_0000)], &gone(0x8000_0000)), "where RAM is");
        assert!(look(&[(0x10, 0x0400_0000)], &[(0x0400_0000, display)]));
        assert!(look(&[(0x10, 0xfe00_0000)], &gone(0x0400_0000)), "where the APICs are");
        assert!(!look(&[(0x10, 0xff00_0000)], &[]), "where the ROM is");
        assert!(look(&[(0x10, 0xe000_0000)], &[(0xe000_0000, display)]));
        assert!(look(&[(0x18, 0xe0ff_f000)], &gone(0xe000_0000)), "over the adapter's own registers");
        assert!(look(&[(0x18, 0xe100_0000)], &[(0xe000_0000, display)]));
        assert!(look(&[(0x04, 0)], &gone(0xe000_0000)), "switched off");
        assert!(look(&[(0x04, 2)], &[(0xe000_0000, display)]));
        assert!(pc.interrupts().set_apic_base(0, 0xe012_3000 | 0x900) && pc.take_map_changed());
        pc.reset(0);
        assert!(pc.take_map_changed());
        assert_eq!(pc.take_display().map(|window| window.map(|window| window.base)), [Some(0xe000_0000), None]);
    }
}
