//! Tests of the bus: configuration space, windows, interrupt routing, messages, state.

use super::chipset::{HOST_BRIDGE, ISA_BRIDGE, PM};
use super::testing::{Driven, Probe};
use super::*;

fn select(bus: &mut Bus, address: u32) {
    bus.write(0, 4, ENABLE | address);
}

fn config(bus: &mut Bus, devfn: DevFn, offset: u8) -> u32 {
    select(bus, u32::from(devfn) << 8 | u32::from(offset));
    bus.read(4, 4)
}

fn set(bus: &mut Bus, devfn: DevFn, offset: u8, size: u8, value: u32) {
    select(bus, u32::from(devfn) << 8 | u32::from(offset & !3));
    bus.write(4 + (offset & 3), size, value);
}

fn new_bus() -> Bus {
    Driven::bus().0
}

fn with_probe() -> (Bus, DevFn) {
    let mut bus = new_bus();
    let devfn = bus.plug(None, Box::new(Probe::new())).unwrap();
    (bus, devfn)
}

fn probe(bus: &mut Bus, devfn: DevFn) -> &mut Probe {
    let function: &mut dyn Any = bus.functions.get_mut(&devfn).unwrap().function.as_mut();
    function.downcast_mut().unwrap()
}

#[test]
fn the_chipset_is_found_and_nothing_else() {
    let mut bus = new_bus();
    for devfn in 0..=255 {
        let expected = match devfn {
            HOST_BRIDGE => (0x1237_8086, 0x0600_0002),
            ISA_BRIDGE => (0x7000_8086, 0x0601_0000),
            PM => (0x7113_8086, 0x0680_0003),
            _ => (u32::MAX, u32::MAX),
        };
        assert_eq!((config(&mut bus, devfn, 0), config(&mut bus, devfn, 8)), expected, "{devfn:#x}");
    }
    assert_eq!(config(&mut bus, ISA_BRIDGE, 0x0c) >> 16, 0x80, "several functions");
    assert_eq!(config(&mut bus, 0, 0x2c), 0x1100_1af4);
    select(&mut bus, 1 << 16);
    assert_eq!(bus.read(4, 4), u32::MAX, "another bus");
    bus.write(0, 4, 0);
    assert_eq!(bus.read(4, 4), u32::MAX, "not enabled");
}

#[test]
fn the_address_register_takes_double_words_only() {
    let mut bus = new_bus();
    bus.write(0, 4, 0x8000_0004);
    bus.write(0, 1, 0xff);
    bus.write(0, 2, 0xffff);
    assert_eq!((bus.read(0, 4), bus.read(0, 1)), (0x8000_0004, u32::MAX));
}

#[test]
fn low_bits_of_the_address_select_a_byte() {
    let mut bus = new_bus();
    for (address, offset, size, expected) in [
        (0x8000_0002, 4, 2, 0x1237),
        (0x8000_0002, 4, 4, 0x6_1237),
        (0x8000_0003, 4, 1, 0x12),
        (0x8000_0001, 6, 2, 0x612),
        (0x80ff_ffff, 4, 4, u32::MAX),
        (0x8000_00ff, 4, 4, 0xffff_ff00),
    ] {
        bus.write(0, 4, address);
        assert_eq!((bus.read(0, 4), bus.read(offset, size)), (address, expected), "{address:#x}");
    }
    bus.write(0, 4, 0x8000_005a);
    bus.write(4, 1, 0x33);
    assert_eq!(config(&mut bus, 0, 0x58), 0x0033_0010);
}

#[test]
fn parts_of_a_register() {
    let mut bus = new_bus();
    config(&mut bus, 0, 0);
    assert_eq!((bus.read(6, 2), bus.read(5, 1)), (0x1237, 0x80));
    assert_eq!(bus.read(7, 2), 0xff12, "past the data ports");
    config(&mut bus, 0, 0x58);
    bus.write(5, 2, 0x1234);
    assert_eq!(bus.read(4, 4), 0x0012_3410);
    set(&mut bus, 0, 0, 4, 0);
    assert_eq!(config(&mut bus, 0, 0), 0x1237_8086, "identity is read-only");
}

#[test]
fn reset_control_fires_on_the_rise_of_bit_2() {
    let mut bus = new_bus();
    assert!(!bus.write(1, 1, 0x02) && bus.write(1, 1, 0x06) && !bus.write(1, 1, 0x06));
    assert_eq!(bus.read(1, 1), 6);
}

#[test]
fn base_address_registers_show_their_size() {
    let (mut bus, devfn) = with_probe();
    assert_eq!(devfn, 2 << 3, "device 1 is the chipset's");
    for (bar, expected) in [(0, 0xffff_ffe1), (1, 0xffff_f000), (2, 0x0000_000c), (3, 0xffff_fffe), (4, 0)] {
        let offset = BAR0 + 4 * bar;
        set(&mut bus, devfn, offset, 4, u32::MAX);
        assert_eq!(config(&mut bus, devfn, offset), expected, "register {bar}");
    }
    set(&mut bus, devfn, ROM_ADDRESS, 4, u32::MAX);
    assert_eq!(config(&mut bus, devfn, ROM_ADDRESS), 0xffff_0001);
}

#[test]
fn windows_move_with_their_registers() {
    let (mut bus, devfn) = with_probe();
    set(&mut bus, devfn, BAR0, 4, 0xc020);
    set(&mut bus, devfn, BAR0 + 4, 4, 0xfebf_1000);
    assert_eq!(bus.access_read(0, Space::Io, 0xc021, 1), None, "not enabled");
    set(&mut bus, devfn, COMMAND, 2, 7);
    assert!(bus.access_write(0, Space::Io, 0xc023, 2, 0x1234));
    assert_eq!((probe(&mut bus, devfn).last, probe(&mut bus, devfn).value), ((0, 3, 2), 0x1234));
    assert!(bus.access_write(0, Space::Memory, 0xfebf_1008, 4, 0x55));
    assert_eq!(probe(&mut bus, devfn).last, (1, 8, 4));
    assert!(!bus.access_write(0, Space::Memory, 0xfebf_2000, 4, 0));
    assert!(!bus.access_write(0, Space::Memory, 0xc020, 4, 0), "another space");
    set(&mut bus, devfn, BAR0 + 12, 4, 4);
    assert_eq!(bus.access_read(0, Space::Memory, 0x4_0000_0010, 8), Some(0x1234));
    assert_eq!(probe(&mut bus, devfn).last, (2, 16, 8));
    set(&mut bus, devfn, BAR0, 4, 0xd000);
    assert_eq!(bus.access_read(0, Space::Io, 0xc020, 1), None, "it has moved");
    set(&mut bus, devfn, BAR0, 4, 0xffff_ffff);
    assert_eq!(bus.access_read(0, Space::Io, 0xfff0, 1), None, "it is being sized");
    // The fixed ports are there always.
    assert!(bus.access_write(0, Space::Io, 0x1f7, 1, 0xec));
    assert_eq!(probe(&mut bus, devfn).last, (100, 7, 1));
    bus.reset(false);
    assert_eq!(bus.access_read(0, Space::Memory, 0xfebf_1000, 4), None);
    assert_eq!(config(&mut bus, devfn, BAR0), 1);
}

#[test]
fn pins_are_routed() {
    let (mut bus, driven) = Driven::bus();
    let devfn = bus.plug(None, Box::new(Probe::new())).unwrap();
    bus.with(devfn, |probe: &mut Probe| probe.pin = true).unwrap();
    assert_eq!(driven.irqs(), 0, "not routed at power-on");
    // Pin A of device 2 is the second line.
    set(&mut bus, ISA_BRIDGE, 0x61, 1, 11);
    assert_eq!(driven.irqs(), 1 << 11);
    assert_eq!(config(&mut bus, devfn, COMMAND) >> 16 & 8, 8, "interrupt status");
    set(&mut bus, devfn, COMMAND, 2, COMMAND_INTX_DISABLE.into());
    assert_eq!(driven.irqs(), 0);
    set(&mut bus, devfn, COMMAND, 2, 0);
    set(&mut bus, ISA_BRIDGE, 0x61, 1, 0x8b);
    assert_eq!(driven.irqs(), 0);
    // A second pin on the line, which goes along when it is led elsewhere.
    let other = bus.plug(Some(6 << 3), Box::new(Probe::new())).unwrap();
    bus.with(other, |probe: &mut Probe| probe.pin = true).unwrap();
    set(&mut bus, ISA_BRIDGE, 0x61, 1, 10);
    set(&mut bus, devfn, COMMAND, 2, COMMAND_INTX_DISABLE.into());
    assert_eq!(driven.irqs(), 1 << 10);
    set(&mut bus, ISA_BRIDGE, 0x61, 1, 5);
    assert_eq!(driven.irqs(), 1 << 5);
    bus.reset(false);
    assert_eq!(driven.irqs(), 0);
    bus.access_write(0, Space::Io, 0x1f0, 1, 14);
    assert_eq!(driven.irqs(), 1 << 14);
    assert_eq!([(1, 0), (2, 0), (3, 3), (6, 1)].map(|(device, pin)| pirq(device << 3, pin)), [0, 1, 1, 2]);
}

#[test]
fn messages_wait_for_their_vector_and_its_function() {
    let (mut bus, driven) = Driven::bus();
    let devfn = bus.plug(None, Box::new(Probe::new())).unwrap();
    let capability = probe(&mut bus, devfn).config.u8(CAPABILITIES);
    assert_eq!(config(&mut bus, devfn, capability) & 0x07ff_00ff, 0x0002_0011, "MSI-X with three vectors");
    set(&mut bus, devfn, BAR0 + 4, 4, 0xfebf_1000);
    set(&mut bus, devfn, COMMAND, 2, 7);
    for (offset, value) in [(16, 0xfee0_1004u64), (24, 0x41)] {
        bus.access_write(0, Space::Memory, 0xfebf_1000 + offset, 4, value);
    }
    let signal = |bus: &mut Bus, vector| {
        bus.with(devfn, |probe: &mut Probe| probe.msix.signal(&probe.config, vector)).unwrap();
    };
    signal(&mut bus, 1);
    set(&mut bus, devfn, capability + 3, 1, 0xc0);
    assert_eq!(driven.take_messages(), [], "it was signalled before MSI-X was enabled");
    signal(&mut bus, 1);
    signal(&mut bus, 3);
    assert_eq!(
        (driven.take_messages().len(), probe(&mut bus, devfn).msix.read_pending(0, 8)),
        (0, 2),
        "the function is masked"
    );
    set(&mut bus, devfn, capability + 3, 1, 0x80);
    assert_eq!(driven.take_messages(), [], "the vector is");
    bus.access_write(0, Space::Memory, 0xfebf_101c, 4, 0);
    assert_eq!(bus.access_read(0, Space::Memory, 0xfebf_1018, 8), Some(0x41));
    let mut out = driven.take_messages();
    assert_eq!(out, [MsiMessage { address: 0xfee0_1004, data: 0x41 }]);
    let message = out.remove(0).decode().unwrap();
    assert_eq!((message.vector, message.destination), (0x41, crate::lapic::Destination::Logical(1)));
    assert_eq!(MsiMessage { address: 0xfed0_0000, data: 0 }.decode(), None);
    assert_eq!(driven.take_messages(), [], "once");
}

#[test]
fn msi_sends_what_its_registers_say() {
    let (mut bus, devfn) = with_probe();
    let msi = probe(&mut bus, devfn).msi;
    let mut at = probe(&mut bus, devfn).config.u8(CAPABILITIES);
    while config(&mut bus, devfn, at) & 0xff != 5 {
        at = probe(&mut bus, devfn).config.u8(at + 1);
    }
    for (offset, value) in [(at + 4, 0xfee0_0000), (at + 8, 0), (at + 12, 0x61), (at, 1 << 16)] {
        set(&mut bus, devfn, offset, 4, value);
    }
    assert_eq!(msi.message(&probe(&mut bus, devfn).config), None, "not a bus master");
    set(&mut bus, devfn, COMMAND, 2, 4);
    let expected = MsiMessage { address: 0xfee0_0000, data: 0x61 };
    assert_eq!(msi.message(&probe(&mut bus, devfn).config), Some(expected));
}

#[test]
fn without_firmware_everything_is_placed_apart() {
    let mut bus = new_bus();
    for _ in 0..3 {
        bus.plug(None, Box::new(Probe::new())).unwrap();
    }
    assert_eq!(bus.set_up_as_firmware(), 1 << 10 | 1 << 11);
    let mut windows: Vec<_> =
        bus.functions.values().flat_map(|f| f.function.config().windows().collect::<Vec<_>>()).collect();
    windows.sort_by_key(|window| window.base);
    assert_eq!(windows.len(), 6, "8 GiB have no room below 4 GiB");
    assert!(windows.windows(2).all(|pair| pair[0].base + pair[0].size <= pair[1].base));
    assert_eq!(config(&mut bus, 2 << 3, INTERRUPT_LINE) & 0xff, 10);
    assert_eq!(config(&mut bus, 3 << 3, INTERRUPT_LINE) & 0xff, 11);
    assert_eq!(bus.chipset().pm_base(), Some(0x600));
    assert!(bus.chipset().pam().all(|pam| pam.read && pam.write));
}

#[test]
fn shadow_memory() {
    let mut bus = new_bus();
    assert!(bus.chipset().pam().all(|pam| !pam.read && !pam.write));
    set(&mut bus, HOST_BRIDGE, 0x59, 1, 0x10);
    set(&mut bus, HOST_BRIDGE, 0x5f, 1, 0x20);
    let chosen: Vec<_> = bus.chipset().pam().filter(|pam| pam.read || pam.write).collect();
    let upper = Pam { base: 0xe_c000, size: 0x4000, read: false, write: true };
    assert_eq!(chosen, [upper, Pam { base: 0xf_0000, size: 0x1_0000, read: true, write: false }]);
    let mut all: Vec<_> = bus.chipset().pam().map(|pam| (pam.base, pam.size)).collect();
    all.sort_unstable();
    assert_eq!(all.first().map(|area| area.0), Some(0xc_0000));
    assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0));
}

#[test]
fn state_round_trips_into_the_same_functions_only() {
    let (mut bus, devfn) = with_probe();
    set(&mut bus, devfn, BAR0, 4, 0xc020);
    set(&mut bus, devfn, COMMAND, 2, 7);
    set(&mut bus, 0, 0x59, 1, 0x77);
    let data: BusData = postcard::from_bytes(&postcard::to_stdvec(&bus.save()).unwrap()).unwrap();
    assert!(!new_bus().fits(&data), "the function is missing");
    let (mut other, _) = with_probe();
    assert!(other.fits(&data));
    other.restore(data.clone());
    assert_eq!(other.save(), data);
    assert_eq!(other.access_read(0, Space::Io, 0xc020, 1), Some(0));
    let mut bad = data;
    bad.functions[0].config.truncate(9);
    assert!(!other.fits(&bad));
}

#[test]
fn any_access_is_survived() {
    let (mut bus, devfn) = with_probe();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..100_000 {
        let [a, b, c, d, ..] = random().to_le_bytes();
        let size = 1 << (c & 3);
        match d % 4 {
            0 => select(&mut bus, u32::from(if a & 1 != 0 { devfn } else { a & 0x0f }) << 8 | u32::from(b)),
            1 => {
                bus.write(a & 7, size.min(4), random() as u32);
            }
            2 => {
                bus.read(a & 7, size.min(4));
            }
            _ => {
                let space = if a & 1 != 0 { Space::Io } else { Space::Memory };
                bus.access_write(0, space, random() >> (a & 63), size, random());
                bus.access_read(0, space, random() >> (a & 63), size);
            }
        }
    }
}
