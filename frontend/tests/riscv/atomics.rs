//! The A extension.

use mimus_frontend::riscv::isa::Code::{self, *};

use crate::hart::{BASE, DATA, Hart, Numbers, r, s};

/// What is in memory after an AMO.
fn stored(code: Code, old: u64, operand: u64) -> u64 {
    let (so, sn) = (old as i64, operand as i64);
    match code {
        AmoswapW | AmoswapD => operand,
        AmoaddW | AmoaddD => old.wrapping_add(operand),
        AmoxorW | AmoxorD => old ^ operand,
        AmoandW | AmoandD => old & operand,
        AmoorW | AmoorD => old | operand,
        AmominW | AmominD => so.min(sn) as u64,
        AmomaxW | AmomaxD => so.max(sn) as u64,
        AmominuW => u64::from((old as u32).min(operand as u32)),
        AmomaxuW => u64::from((old as u32).max(operand as u32)),
        AmominuD => old.min(operand),
        _ => old.max(operand),
    }
}

const WORDS: [Code; 9] = [AmoswapW, AmoaddW, AmoxorW, AmoandW, AmoorW, AmominW, AmomaxW, AmominuW, AmomaxuW];
const DOUBLES: [Code; 9] = [AmoswapD, AmoaddD, AmoxorD, AmoandD, AmoorD, AmominD, AmomaxD, AmominuD, AmomaxuD];

fn hart(addr: u64) -> Hart {
    let mut hart = Hart::optimizing();
    hart.cpu.state.x[10] = addr;
    hart
}

#[test]
fn amos_give_the_old_value_and_store_the_new_one() {
    let mut numbers = Numbers(0x1357_9bdf_0246_8ace);
    let mut hart = hart(DATA + 8);
    let ram = hart.cpu.mmu.ram.clone();
    for code in WORDS.into_iter().chain(DOUBLES) {
        for _ in 0..100 {
            let (old, operand) = (numbers.operand(), numbers.operand());
            let word = WORDS.contains(&code);
            ram.write_u64(DATA + 8, old).unwrap();
            (hart.cpu.state.x[11], hart.cpu.state.pc) = (operand, BASE);
            // The destination may be the operand's register.
            hart.run(&[r(code, 11, 10, 11)]);
            let seen = if word { old as i32 as u64 } else { old };
            assert_eq!(hart.cpu.state.x[11], seen, "{code:?}");
            let cut = |x: u64| if word { x as i32 as u64 } else { x };
            let new = stored(code, cut(old), cut(operand));
            let expected = if word { old >> 32 << 32 | new & 0xffff_ffff } else { new };
            assert_eq!(ram.read_u64(DATA + 8), Some(expected), "{code:?} of {old:#x} and {operand:#x}");
        }
    }
}

#[test]
fn misaligned_atomics_fault_with_their_address_and_do_nothing() {
    for (code, at, cause) in
        [(AmoaddW, 2, 6), (AmoaddD, 4, 6), (ScW, 1, 6), (ScD, 4, 6), (LrW, 2, 4), (LrD, 4, 4), (AmomaxuD, 1, 6)]
    {
        let mut hart = hart(DATA + at);
        assert_eq!(hart.trap(r(code, 12, 10, 11)), (cause, DATA + at), "{code:?}");
    }
}

#[test]
fn a_conditional_store_needs_a_reservation_and_spends_it() {
    let mut hart = hart(DATA);
    let ram = hart.cpu.mmu.ram.clone();
    ram.write_u64(DATA, 0xffff_ffff_8000_0001).unwrap();
    hart.cpu.state.x[11] = 7;
    let (load, store) = (r(LrW, 12, 10, 0), r(ScW, 13, 10, 11));
    hart.run(&[load, store, store]);
    assert_eq!(hart.cpu.state.x[12], 0xffff_ffff_8000_0001);
    assert_eq!(ram.read_u64(DATA), Some(0xffff_ffff_0000_0007));
    assert_eq!(
        (hart.cpu.state.x[13], hart.cpu.state.pc),
        (1, BASE + 12),
        "the second one fails, and execution goes on"
    );
    // A store in between that leaves another value.
    hart.run(&[load, s(Sb, 11, 10, 3), store]);
    assert_eq!(hart.cpu.state.x[13], 1);
    assert_eq!(ram.read_u32(DATA), Some(0x0700_0007));
    // A reservation for another address, which the failed store ends.
    hart.cpu.state.x[14] = DATA + 8;
    hart.run(&[load, r(ScW, 13, 14, 11), store]);
    assert_eq!(hart.cpu.state.x[13], 1);
    assert_eq!(ram.read_u32(DATA), Some(0x0700_0007));
    hart.run(&[r(LrD, 12, 10, 0), r(ScD, 13, 10, 11)]);
    assert_eq!((hart.cpu.state.x[13], ram.read_u64(DATA)), (0, Some(7)));
}
