//! Tests of the oracle: what it gives and takes back, which instructions it lets run, and that faults are caught.

use super::*;

fn regs(pairs: &[(usize, u64)]) -> Registers {
    let mut registers = Registers::new([0; 16], 2, [0; 512]);
    registers.fx[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    for &(n, value) in pairs {
        registers.gpr[n] = value;
    }
    registers
}

/// One test, since a process can have one oracle at a time.
#[test]
fn steps_and_faults() {
    let mut native = Native::new().expect("an oracle");
    assert!(matches!(Native::new(), Err(NativeError::AddressInUse)));

    // add rax, rbx; every other register stays.
    let mut r = regs(&[(0, u64::MAX), (3, 1), (4, 0xdead), (12, 7)]);
    let stop = native.step(Width::Bits64, &[0x48, 0x01, 0xd8], &mut r).expect("allowed");
    assert_eq!(stop, Stop { rip: CODE + 3, trap: None });
    assert_eq!((r.gpr[0], r.gpr[3], r.gpr[4], r.gpr[12]), (0, 1, 0xdead, 7));
    assert_eq!(r.rflags & 0x8d5, 0x55, "CF, PF, AF, ZF");

    // div ecx by 0.
    let mut r = regs(&[(0, 5)]);
    let stop = native.step(Width::Bits64, &[0xf7, 0xf1], &mut r).expect("allowed");
    assert_eq!(stop, Stop { rip: CODE, trap: Some(Trap { vector: 0, error: 0, address: 0 }) });
    assert_eq!(r.gpr[0], 5);

    // mov [rax], rcx: into the data, over its end, into the read-only page, to no canonical address.
    let store = [0x48, 0x89, 0x08];
    let mut r = regs(&[(0, WRITABLE), (1, 0x1122_3344_5566_7788)]);
    assert_eq!(native.step(Width::Bits64, &store, &mut r).expect("allowed").trap, None);
    assert_eq!(native.data()[PAGE as usize], 0x88);
    let faults = [(DATA_END - 4, 14, 6, DATA_END), (DATA + 8, 14, 7, DATA + 8), (1 << 60, 13, 0, 0)];
    for (address, vector, error, fault) in faults {
        let mut r = regs(&[(0, address)]);
        let trap = native.step(Width::Bits64, &store, &mut r).expect("allowed").trap.expect("faults");
        assert_eq!((trap.vector, trap.error), (vector, error), "{address:#x}");
        assert!(vector != 14 || trap.address == fault, "{trap:x?}");
    }

    // XMM registers and MXCSR; an unmasked division by zero.
    let mut r = regs(&[]);
    r.fx[160..164].copy_from_slice(&1f32.to_le_bytes());
    let divss = [0xf3, 0x0f, 0x5e, 0xc1];
    assert_eq!(native.step(Width::Bits64, &divss, &mut r).expect("allowed").trap, None);
    assert_eq!(f32::from_le_bytes(r.fx[160..164].try_into().unwrap()), f32::INFINITY);
    assert_eq!(r.fx[24], 0x84);
    r.fx[24..28].copy_from_slice(&0x1d80u32.to_le_bytes());
    r.fx[160..164].copy_from_slice(&1f32.to_le_bytes());
    assert_eq!(native.step(Width::Bits64, &divss, &mut r).expect("allowed").trap.expect("faults").vector, 19);

    // jz +16, taken and not; a breakpoint; ud2.
    let mut r = regs(&[]);
    r.rflags = 0x42;
    assert_eq!(native.step(Width::Bits64, &[0x74, 16], &mut r).expect("allowed"), Stop { rip: CODE + 18, trap: None });
    r.rflags = 2;
    assert_eq!(native.step(Width::Bits64, &[0x74, 16], &mut r).expect("allowed"), Stop { rip: CODE + 2, trap: None });
    assert_eq!(native.step(Width::Bits64, &[0xcc], &mut r).expect("allowed").trap.expect("traps").vector, 3);
    assert_eq!(native.step(Width::Bits64, &[0x0f, 0x0b], &mut r).expect("allowed").trap.expect("traps").vector, 6);

    // gs:[rax].
    let mut r = regs(&[(0, WRITABLE - GS_BASE)]);
    assert_eq!(native.step(Width::Bits64, &[0x65, 0x48, 0x8b, 0x08], &mut r).expect("allowed").trap, None);
    assert_eq!(r.gpr[1], 0x1122_3344_5566_7788);

    // In compatibility mode: inc ecx; aas; pusha; a fault; jz +16; bound.
    let mut r = regs(&[(1, 5)]);
    assert_eq!(native.step(Width::Bits32, &[0x41], &mut r).expect("allowed"), Stop { rip: CODE + 1, trap: None });
    assert_eq!(r.gpr[1], 6);
    let mut r = regs(&[(0, 0x10f)]);
    assert_eq!(native.step(Width::Bits32, &[0x3f], &mut r).expect("allowed").trap, None);
    assert_eq!(r.gpr[0], 0x9);
    let mut r = regs(&[(0, 0x77), (4, WRITABLE + 64)]);
    assert_eq!(native.step(Width::Bits32, &[0x60], &mut r).expect("allowed").trap, None);
    assert_eq!((r.gpr[4], native.data()[PAGE as usize + 60]), (WRITABLE + 32, 0x77));
    let mut r = regs(&[(0, DATA_END)]);
    let stop = native.step(Width::Bits32, &[0x89, 0x08], &mut r).expect("allowed");
    assert_eq!(stop, Stop { rip: CODE, trap: Some(Trap { vector: 14, error: 6, address: DATA_END }) });
    r.rflags = 0x42;
    let stop = native.step(Width::Bits32, &[0x74, 16], &mut r).expect("allowed");
    assert_eq!(stop, Stop { rip: CODE + 18, trap: None });

    // What cannot be contained: syscall, mov fs, jump out, another address, fs:, two instructions.
    for code in [&[0x0f, 0x05][..], &[0x8e, 0xe0], &[0xeb, 0xf0], &[0xff, 0xe0], &[0x64, 0x8b, 0x08], &[0x90, 0x90]] {
        assert!(native.step(Width::Bits64, code, &mut regs(&[(0, WRITABLE)])).is_err(), "{code:x?}");
    }
    assert_eq!(
        native.step(Width::Bits64, &store, &mut regs(&[(0, 0x7000_0000_0000)])),
        Err(Refusal::Memory(0x7000_0000_0000))
    );

    drop(native);
    Native::new().expect("the addresses are free again");
}
