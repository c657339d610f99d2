//! CPUID, the features it tells of, and encodings that raise #UD.

use mimus_frontend::x86::Features;
use mimus_frontend::x86::cpuid::{Identity, SIGNATURE};
use mimus_frontend::x86::helpers::Helper;
use mimus_frontend::x86::state::reg;

use super::fixture::Machine;

fn query(m: &mut Machine, leaf: u64, subleaf: u64) -> [u64; 4] {
    m.cpu.state.gpr[reg::RAX] = leaf | 0xdead << 32;
    m.cpu.state.gpr[reg::RCX] = subleaf | 0xdead << 32;
    m.call(Helper::Cpuid, [0; 3], 0).unwrap();
    [reg::RAX, reg::RBX, reg::RCX, reg::RDX].map(|r| m.cpu.state.gpr[r])
}

fn text(words: &[u64]) -> String {
    words.iter().flat_map(|w| w.to_le_bytes()[..4].to_vec()).map(char::from).collect()
}

#[test]
fn names() {
    let mut m = Machine::new();
    let [last, b, c, d] = query(&mut m, 0, 0);
    assert_eq!((last, text(&[b, d, c]).as_str()), (0x16, "GenuineIntel"));
    let brand: String = (2..5).map(|i| text(&query(&mut m, 0x8000_0000 + i, 0))).collect();
    assert_eq!(brand.trim_end_matches('\0'), "mimus virtual CPU");
    let [last, b, c, d] = query(&mut m, 0x4000_0000, 0);
    assert_eq!((last, text(&[b, c, d]).as_str()), (0x4000_0000, "mimusmimus  "));
    assert_eq!(query(&mut m, 1, 0)[0], u64::from(SIGNATURE));
    assert_eq!(Machine::new().cpu.state.gpr[reg::RDX], u64::from(SIGNATURE));
}

#[test]
fn features_are_those_of_x86_64_v2() {
    let mut m = Machine::long(0);
    let [_, _, c, d] = query(&mut m, 1, 0);
    for bit in [0, 9, 13, 19, 20, 23] {
        assert_ne!(c & 1 << bit, 0, "leaf 1 ECX {bit}");
    }
    for bit in [3, 12, 21, 26, 27, 28, 29, 30] {
        assert_eq!(c & 1 << bit, 0, "not offered: leaf 1 ECX {bit}");
    }
    for bit in [0, 8, 15, 23, 24, 25, 26] {
        assert_ne!(d & 1 << bit, 0, "leaf 1 EDX {bit}");
    }
    let [last, b, c, d] = query(&mut m, 7, 0);
    assert_eq!(
        (last, b, c, d),
        (2, 1 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 13 | 1 << 20, 1 << 2, 1 << 26 | 1 << 29)
    );
    assert_eq!((query(&mut m, 7, 1), query(&mut m, 7, 2)), ([0; 4], [0, 0, 0, 1 << 4]));
    let [_, _, c, d] = query(&mut m, 0x8000_0001, 0);
    assert_eq!((c, d), (1, 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29));
    assert_eq!(query(&mut Machine::protected(0), 0x8000_0001, 0)[3] & 1 << 11, 0, "SYSCALL is 64-bit only");
    assert_eq!(query(&mut m, 0x8000_0007, 0)[3], 1 << 8);
}

#[test]
fn apic_bit_mirrors_the_global_enable() {
    let mut m = Machine::new();
    assert_eq!(query(&mut m, 1, 0)[3] & 1 << 9, 0);
    m.bus.lock().unwrap().apic_base = 0xfee0_0900;
    assert_eq!(query(&mut m, 1, 0)[3] & 1 << 9, 1 << 9);
}

#[test]
fn address_widths_follow_la57() {
    assert_eq!(query(&mut Machine::new(), 0x8000_0008, 0)[0], 48 << 8 | 40);
    let mut m = Machine::with(Features { la57: true, ..Features::default() });
    assert_eq!(query(&mut m, 0x8000_0008, 0)[0], 57 << 8 | 40);
    assert_ne!(query(&mut m, 7, 0)[2] & 1 << 16, 0);
}

#[test]
fn a_cpu_may_be_called_otherwise() {
    let identity = Identity { vendor: *b"AuthenticAMD", brand: Identity::brand("A name"), ..Identity::default() };
    let identity = identity.with_family(25).with_model(0x61).with_stepping(2);
    let mut m = Machine::with(Features { identity, ..Features::default() });
    let [_, b, c, d] = query(&mut m, 0, 0);
    assert_eq!(text(&[b, d, c]), "AuthenticAMD");
    assert_eq!((query(&mut m, 1, 0)[0], query(&mut m, 0x8000_0001, 0)[0]), (0x00a6_0f12, 0x00a6_0f12));
    assert_eq!(text(&query(&mut m, 0x8000_0002, 0)).trim_end_matches('\0'), "A name");
    assert_eq!(Identity::default().with_family(6).with_model(0x1a).with_stepping(5), Identity::default());
}

#[test]
fn frequencies_or_nothing() {
    let at = |tsc_hz| query(&mut Machine::with(Features { tsc_hz, ..Features::default() }), 0x15, 0);
    assert_eq!(at(1_000_000_000), [1, 1, 1_000_000_000, 0]);
    assert_eq!(at(2_500_000_000), [2, 5, 1_000_000_000, 0]);
    assert_eq!(at(2_893_127_411), [0; 4], "a ratio guests cannot compute with");
    assert_eq!(at(0), [0; 4]);
    let mut m = Machine::with(Features { tsc_hz: 2_893_127_411, ..Features::default() });
    assert_eq!(query(&mut m, 0x16, 0), [0; 4], "and no rounded frequency either");
}

#[test]
fn topology_and_caches() {
    let mut m = Machine::new();
    assert_eq!(query(&mut m, 0xb, 0), [0, 1, 0x100, 0]);
    assert_eq!(query(&mut m, 0xb, 1), [0, 1, 0x201, 0]);
    assert_eq!(query(&mut m, 0xb, 2), [0, 0, 2, 0]);
    let [a, b, sets, _] = query(&mut m, 4, 2);
    assert_eq!(a & 0xff, 3 | 2 << 5);
    assert_eq!(((b >> 22) + 1) * ((b & 0xfff) + 1) * (sets + 1), 1024 * 1024);
    assert_eq!(query(&mut m, 4, 3), [0; 4]);
}

#[test]
fn leaves_beyond_the_last_tell_the_last() {
    let mut m = Machine::new();
    let last = query(&mut m, 0x16, 0);
    for leaf in [0x17, 0x7fff_ffff, 0x4000_0001, 0x8000_0009, 0xffff_ffff] {
        assert_eq!(query(&mut m, leaf, 0), last, "{leaf:#x}");
    }
}

/// Encodings whose features CPUID does not show mean what they meant before there were these features.
#[test]
fn encodings_of_features_that_are_not_shown() {
    let prefixes: [&[u8]; 4] = [&[], &[0x66], &[0xf2], &[0xf3]];
    for mut m in [Machine::protected(3), Machine::long(3)] {
        // The hint NOPs: CET's RDSSP and ENDBR, MPX, CLDEMOTE, PREFETCHIT, PREFETCHWT1 among them.
        for opcode in [0x0d].into_iter().chain(0x18..=0x1f) {
            for (prefix, modrm) in prefixes.into_iter().flat_map(|prefix| (0..=255).map(move |modrm| (prefix, modrm))) {
                let before = m.cpu.state;
                let insn = [prefix, &[0x0f, opcode, modrm, 0x25, 0, 0, 0, 0x40]].concat();
                assert_eq!(m.run(&insn), None, "{insn:x?}");
                assert!(m.cpu.state == before, "{insn:x?}");
            }
        }
        // TZCNT and LZCNT are BSF and BSR, which leave the destination alone when there is no bit.
        for (opcode, value, result) in [(0xbc, 0x50, 4), (0xbd, 0x50, 6), (0xbc, 0, 0x77), (0xbd, 0, 0x77)] {
            (m.cpu.state.gpr[reg::RCX], m.cpu.state.gpr[reg::RAX]) = (value, 0x77);
            assert_eq!(m.run(&[0xf3, 0x0f, opcode, 0xc1]), None);
            assert_eq!(m.cpu.state.gpr[reg::RAX], result, "{opcode:x} of {value:#x}");
        }
        // XACQUIRE and XRELEASE, BND, NOTRACK.
        m.cpu.state.gpr[reg::RCX] = 0x6000;
        for insn in
            [&[0xf2, 0xf0, 0x87, 0x01][..], &[0xf3, 0xf0, 0x01, 0x01], &[0xf3, 0x89, 0x01], &[0xf3, 0xc6, 0x01, 0]]
        {
            assert_eq!(m.run(insn), None, "{insn:x?}");
        }
        for insn in
            [&[0xf2, 0xeb, 0][..], &[0xf2, 0x74, 0], &[0xf2, 0xe8, 0, 0, 0, 0], &[0x3e, 0xff, 0xe1], &[0xf3, 0x90]]
        {
            assert_eq!(m.run(insn), None, "{insn:x?}");
        }
        // What had no meaning has none: XBEGIN, RDPID, INCSSP, TPAUSE, CLWB, RDRAND.
        for insn in [
            &[0xc7, 0xf8, 0, 0, 0, 0][..],
            &[0xf3, 0x0f, 0xc7, 0xf8],
            &[0xf3, 0x0f, 0xae, 0xe8],
            &[0x66, 0x0f, 0xae, 0xf0],
            &[0x66, 0x0f, 0xae, 0x31],
            &[0x0f, 0xc7, 0xf0],
        ] {
            assert_eq!(m.run(insn), Some((6, None)), "{insn:x?}");
        }
    }
    assert_eq!(Machine::protected(3).run(&[0xf3, 0x0f, 0x09]), Some((13, Some(0))), "WBNOINVD is WBINVD");
    assert_eq!(Machine::protected(0).run(&[0xf3, 0x0f, 0x09]), None);
}

#[test]
fn movbe_moves_with_the_bytes_in_the_opposite_order() {
    let mut m = Machine::long(3);
    m.cpu.state.gpr[reg::RAX] = 0x0102_0304_0506_0708;
    m.cpu.state.gpr[reg::RBX] = u64::MAX;
    m.cpu.state.gpr[reg::RDX] = u64::MAX;
    m.cpu.state.gpr[reg::RCX] = 0x6000;
    for insn in [&[0x48, 0x0f, 0x38, 0xf1, 0x01][..], &[0x0f, 0x38, 0xf0, 0x11], &[0x66, 0x0f, 0x38, 0xf0, 0x19]] {
        assert_eq!(m.run(insn), None, "{insn:x?}");
    }
    assert_eq!(m.cpu.state.gpr[reg::RDX], 0x0102_0304);
    assert_eq!(m.cpu.state.gpr[reg::RBX], 0xffff_ffff_ffff_0102);
    assert_eq!(m.run(&[0x48, 0x8b, 0x01]), None);
    assert_eq!(m.cpu.state.gpr[reg::RAX], 0x0807_0605_0403_0201);
}

#[test]
fn salc_is_all_carry() {
    use mimus_frontend::x86::state::Rflags;
    for (flags, al) in [(Rflags::CF | Rflags::ZF, 0xff), (Rflags::OF, 0)] {
        let mut m = Machine::protected(3);
        m.cpu.state.gpr[reg::RAX] = 0x1234;
        m.cpu.state.set_arith_flags(flags);
        assert_eq!(m.run(&[0xd6]), None);
        assert_eq!((m.cpu.state.gpr[reg::RAX], m.cpu.state.arith_flags()), (0x1200 | al, flags));
    }
    assert_eq!(Machine::long(3).run(&[0xd6]), Some((6, None)));
}
