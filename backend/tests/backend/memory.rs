//! Loads, stores and atomics: hits, misses, page ends, permissions, verdicts.

use mimus_ir::op::RmwKind;
use mimus_ir::{Block, Builder, Interp, MemFlags, Type, Value};
use mimus_softmmu::{ExitCode, Verdict};

use crate::toy::{How, INTS, PAGE, RAM, Random, Reference, Toy, one, reg, wide};

/// Addresses worth trying for accesses of any size.
fn addresses() -> Vec<u64> {
    let mut all = vec![RAM, RAM + 8, RAM + 3, 0, u64::MAX, u64::MAX - 3, RAM.wrapping_sub(1), 1 << 63];
    for page in 0..=8 {
        let end = RAM + page * PAGE;
        all.extend((1..=17).map(|i| end - i));
        all.extend([end, end + 1, end + 2040]);
    }
    all
}

/// Stores to a watched page behave differently in the two tiers; they have a test of their own.
fn touches_watched(addr: u64) -> bool {
    let watched = RAM + 6 * PAGE;
    addr.wrapping_add(16) > watched && addr < watched + PAGE
}

/// Runs `block`, which accesses at register 0, at every address, twice each: with the TLB as it is and filled.
fn at_every_address(toy: &mut Toy, block: &Block, skip: impl Fn(u64) -> bool) {
    let how = How { counted: true, ..How::default() };
    let (entry, info) = toy.compile(block, how);
    let mut faults = 0;
    for addr in addresses().into_iter().filter(|&a| !skip(a)) {
        for round in 0..2 {
            let mut state = Toy::fresh(addr ^ 0x55);
            state.regs[0] = addr;
            let code = toy.same_again(block, how, &state, entry, &info);
            faults += u32::from(round == 0 && code == ExitCode::Stopped);
        }
    }
    assert!(faults > 10);
}

#[test]
fn loads() {
    let mut toy = Toy::new();
    for ty in INTS {
        for flags in [MemFlags::empty(), MemFlags::RELAXED, MemFlags::FOR_WRITE] {
            for disp in [0, 1, -64, 4096] {
                let block = one(0x1000, |b| {
                    let addr = b.load_env(reg(0, Type::I64));
                    let value = b.load(ty, addr, disp, flags);
                    b.store_env(reg(1, Type::I64), value);
                });
                let for_write = flags == MemFlags::FOR_WRITE;
                at_every_address(&mut toy, &block, |a| for_write && touches_watched(a.wrapping_add(disp as u64)));
            }
        }
    }
    let block = one(0x1000, |b| {
        let addr = b.load_env(reg(0, Type::I64));
        let value = b.load(Type::V128, addr, 0, MemFlags::empty());
        b.store_env(wide(1), value);
    });
    at_every_address(&mut toy, &block, |_| false);
}

#[test]
fn stores() {
    let mut toy = Toy::new();
    for ty in INTS {
        for from in INTS {
            let block = one(0x1000, |b| {
                let addr = b.load_env(reg(0, Type::I64));
                let value = b.load_env(reg(1, from));
                b.store(ty, addr, 4, value, MemFlags::empty());
            });
            at_every_address(&mut toy, &block, |a| touches_watched(a.wrapping_add(4)));
        }
    }
    let block = one(0x1000, |b| {
        let addr = b.load_env(reg(0, Type::I64));
        let value = b.load_env(wide(1));
        b.store(Type::V128, addr, 0, value, MemFlags::empty());
    });
    at_every_address(&mut toy, &block, touches_watched);
}

#[test]
fn addresses_are_truncated_or_extended() {
    let mut toy = Toy::new();
    let block = one(0x1000, |b| {
        let addr = b.load_env(reg(0, Type::I32));
        let value = b.load(Type::I64, addr, -8, MemFlags::empty());
        b.store_env(reg(1, Type::I64), value);
    });
    let mut state = Toy::fresh(3);
    state.regs[0] = 0xffff_ffff_0000_0000 | (RAM + 16);
    assert_eq!(toy.same(&block, How::default(), &state), ExitCode::Main);
    state.regs[0] = 0;
    assert_eq!(toy.same(&block, How::default(), &state), ExitCode::Stopped);
    assert_eq!(toy.machine.pending, (-8i64) as u64);
}

#[test]
fn atomics() {
    let mut toy = Toy::new();
    for ty in INTS {
        for &kind in RmwKind::ALL {
            let block = one(0x1000, |b| {
                let addr = b.load_env(reg(0, Type::I64));
                let operand = b.load_env(reg(1, Type::I64));
                let old = b.rmw(kind, ty, addr, operand);
                b.store_env(reg(2, Type::I64), old);
            });
            at_every_address(&mut toy, &block, touches_watched);
        }
        // Compares equal in one half of the cases: what is expected is read first.
        let block = one(0x1000, |b| {
            let addr = b.load_env(reg(0, Type::I64));
            let new = b.load_env(reg(1, Type::I64));
            let right = b.load(ty, addr, 0, MemFlags::empty());
            let first = b.cas(ty, addr, right, new);
            b.store_env(reg(2, Type::I64), first);
            let wrong = b.load_env(reg(3, Type::I64));
            let second = b.cas(ty, addr, wrong, right);
            b.store_env(reg(4, Type::I64), second);
        });
        at_every_address(&mut toy, &block, touches_watched);
    }
}

#[test]
fn a_filled_tlb_is_used() {
    let mut toy = Toy::new();
    let tiers = 1 + u32::from(toy.quick.is_some());
    let block = one(0x1000, |b| {
        let addr = b.load_env(reg(0, Type::I64));
        let value = b.load(Type::I64, addr, 0, MemFlags::empty());
        b.store(Type::I64, addr, 8, value, MemFlags::empty());
        let old = b.rmw(RmwKind::Add, Type::I64, addr, value);
        b.cas(Type::I64, addr, old, value);
        let w = b.load(Type::V128, addr, 1, MemFlags::empty());
        b.store(Type::V128, addr, 33, w, MemFlags::empty());
    });
    let mut state = Toy::fresh(9);
    state.regs[0] = RAM + 64;
    toy.same(&block, How::default(), &state);
    assert_eq!(toy.machine.slow, [1, 0, 0, 0, 0], "the load fills the page for all");
    toy.machine.tlb.flush(false);
    toy.same(&block, How::default(), &state);
    assert_eq!(toy.machine.slow, [2, 0, 0, 0, 0]);
    // A page never in the TLB takes every slow path every time.
    state.regs[0] = RAM + 4 * PAGE + 64;
    toy.machine.slow = [0; 5];
    toy.same(&block, How::default(), &state);
    assert_eq!(toy.machine.slow, [2, 2, 1, 1, 0].map(|n| n * tiers));
    // The last bytes of a page hit, those across its end do not.
    for (offset, misses) in [(PAGE - 8, 0), (PAGE - 7, 1)] {
        let load = one(0x1000, |b| {
            let addr = b.load_env(reg(0, Type::I64));
            let value = b.load(Type::I64, addr, 0, MemFlags::empty());
            b.store_env(reg(1, Type::I64), value);
        });
        state.regs[0] = RAM + offset;
        toy.machine.slow = [0; 5];
        toy.same(&load, How::default(), &state);
        assert_eq!(toy.machine.slow[0], misses * tiers);
    }
    // An atomic that is not aligned takes the slow path though the page is there.
    let rmw = one(0x1000, |b| {
        let addr = b.load_env(reg(0, Type::I64));
        let old = b.rmw(RmwKind::Xor, Type::I32, addr, addr);
        b.store_env(reg(1, Type::I64), old);
    });
    for (offset, misses) in [(0, 0), (2, 1), (4, 0)] {
        state.regs[0] = RAM + 64 + offset;
        toy.machine.slow = [0; 5];
        toy.same(&rmw, How::default(), &state);
        assert_eq!(toy.machine.slow[2], misses * tiers);
    }
}

/// Three instructions, the second of which stores where register 0 says.
fn store_in_the_middle() -> Block {
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 3);
    b.store_env_imm(reg(1, Type::I64), 11);
    b.insn(0x1003, 3);
    let addr = b.load_env(reg(0, Type::I64));
    b.store(Type::I32, addr, 0, addr, MemFlags::empty());
    b.store_env_imm(reg(2, Type::I64), 22);
    b.insn(0x1006, 3);
    b.store_env_imm(reg(3, Type::I64), 33);
    b.exit(5);
    b.finish(0x1009)
}

#[test]
fn a_store_to_watched_code_stops_before_the_instruction() {
    let mut toy = Toy::new();
    let block = store_in_the_middle();
    let how = How { counted: true, ..How::default() };
    let (entry, _) = toy.compile(&block, how);
    let mut state = Toy::fresh(4);
    state.regs[0] = RAM + 6 * PAGE + 12;
    toy.set_state(&state);
    assert_eq!(toy.enter(entry), ExitCode::Stopped);
    assert_eq!(toy.env.header.verdict, Verdict::Interpret as u32);
    assert_eq!(toy.env.header.exit_value, 0x1003);
    assert_eq!(toy.env.header.insns, 1);
    assert_eq!(toy.env.regs[1], 11);
    assert_eq!(toy.env.regs[2], state.regs[2]);
    assert_eq!(toy.machine.ram, state.ram, "no store was made");
    // The interpreter makes it, and leaves behind it.
    let mut reference = Reference::new(&state);
    let outcome = Interp::default().run(&block, &mut reference);
    assert_eq!(outcome.exit, mimus_ir::Exit::CodeChanged { pc: 0x1006 });
}

#[test]
fn a_fault_counts_what_was_completed() {
    let mut toy = Toy::new();
    let block = store_in_the_middle();
    let how = How { counted: true, ..How::default() };
    let mut state = Toy::fresh(4);
    for (addr, insns, code) in
        [(RAM, 3, ExitCode::Main), (RAM + 3 * PAGE, 1, ExitCode::Stopped), (RAM + 2 * PAGE, 1, ExitCode::Stopped)]
    {
        state.regs[0] = addr;
        assert_eq!(toy.same(&block, how, &state), code);
        assert_eq!(toy.env.header.insns, insns);
    }
}

#[test]
fn the_instruction_that_faults_is_known_wherever_it_is() {
    let mut toy = Toy::new();
    let mut state = Toy::fresh(5);
    state.regs[0] = 0;
    type Access = fn(&mut Builder, Value);
    let accesses: [Access; 4] = [
        |b, addr| _ = b.load(Type::I32, addr, 0, MemFlags::empty()),
        |b, addr| b.store(Type::I64, addr, 0, addr, MemFlags::empty()),
        |b, addr| _ = b.rmw(RmwKind::Add, Type::I16, addr, addr),
        |b, addr| _ = b.cas(Type::I8, addr, addr, addr),
    ];
    // Around where the quick tier has another way to tell of it.
    let pcs = [0, 1, 0xfff, 0x7ffd, 0x7ffe, 0x7fff, 0x8000, 0xffff, 0x1_0000, 1 << 31, u64::MAX << 31, u64::MAX << 47];
    for pc in pcs {
        for access in accesses {
            let block = one(pc, |b| {
                let addr = b.load_env(reg(0, Type::I64));
                access(b, addr);
            });
            assert_eq!(toy.same(&block, How::default(), &state), ExitCode::Stopped, "{block}");
        }
    }
    let tiers = if toy.quick.is_some() { [pcs.len() as u32 * 4, 0] } else { [0; 2] };
    assert_eq!(toy.quick_blocks, tiers);
}

#[test]
fn values_live_across_slow_paths_survive() {
    // More values than there are registers are live across a miss and an access that hits.
    let mut toy = Toy::new();
    let block = one(0x1000, |b| {
        let base = b.load_env(reg(0, Type::I64));
        let values: Vec<_> = (1..15).map(|i| b.load_env(reg(i, Type::I64))).collect();
        let w = b.load_env(wide(0));
        let v = b.load_env(wide(1));
        let loaded = b.load(Type::I64, base, 0, MemFlags::empty());
        let other = b.load(Type::I64, base, PAGE as i32, MemFlags::empty());
        b.store_env(wide(1), w);
        b.store_env(wide(0), v);
        for (i, &value) in values.iter().enumerate() {
            let mixed = b.binary(mimus_ir::Op::Add, Type::I64, value, if i % 2 == 0 { loaded } else { other });
            b.store_env(reg(1 + i as u16, Type::I64), mixed);
        }
    });
    let mut random = Random(7);
    for _ in 0..20 {
        let mut state = Toy::fresh(random.next());
        state.regs[0] = RAM + random.below(PAGE);
        toy.same(&block, How::default(), &state);
        toy.machine.tlb.flush(false);
    }
}

/// Several accesses off one base, which share a probe: `count` of them, of random kinds and widths, within 128 bytes or not.
fn several(random: &mut Random, count: u64) -> Block {
    one(0x1000, |b| {
        let base = b.load_env(reg(0, Type::I64));
        for n in 0..count {
            let reach = if random.below(4) == 0 { 400 } else { 100 };
            let disp = random.below(reach) as i32 - 50;
            let ty = INTS[random.below(4) as usize];
            b.insn(0x1004 + 4 * n, 4);
            match random.below(8) {
                0..=2 => {
                    let flags = [MemFlags::empty(), MemFlags::FOR_WRITE][random.below(2) as usize];
                    let value = b.load(ty, base, disp, flags);
                    b.store_env(reg(2 + n as u16 % 8, Type::I64), value);
                }
                3..=5 => {
                    let value = b.load_env(reg(1, Type::I64));
                    b.store(ty, base, disp, value, MemFlags::empty());
                }
                6 => {
                    let value = b.load(Type::V128, base, disp, MemFlags::empty());
                    b.store(Type::V128, base, disp / 2, value, MemFlags::empty());
                }
                _ => {
                    crate::toy::call(b, Type::I64, 0, true, [base; 3], 1);
                }
            }
        }
    })
}

#[test]
fn accesses_off_one_base() {
    let mut toy = Toy::new();
    let mut random = Random(0x0ff_0ba5e);
    for i in 0..40 {
        let block = several(&mut random, 2 + i % 6);
        at_every_address(&mut toy, &block, |a| {
            touches_watched(a) || (-550..550).any(|d| touches_watched(a.wrapping_add_signed(d)))
        });
    }
}

/// Several accesses at constant addresses around `at`.
fn fixed(random: &mut Random, at: u64) -> Block {
    one(0x1000, |b| {
        for n in 0..6 {
            let ty = INTS[random.below(4) as usize];
            let addr = b.iconst(Type::I64, at.wrapping_add(random.below(300)).wrapping_sub(150));
            b.insn(0x1004 + 4 * n, 4);
            if random.below(2) == 0 {
                let value = b.load(ty, addr, random.below(20) as i32 - 10, MemFlags::empty());
                b.store_env(reg(2 + n as u16, Type::I64), value);
            } else {
                let value = b.load_env(reg(1, Type::I64));
                b.store(ty, addr, 0, value, MemFlags::empty());
            }
        }
    })
}

#[test]
fn accesses_at_constant_addresses() {
    let mut toy = Toy::new();
    let mut random = Random(0xc0_5747);
    let page = |n: u64| RAM + n * PAGE;
    let places = [page(0) + 200, page(1), page(2), page(3), page(4), page(5) + 2000, 0, 1 << 31, 1 << 63, !0 - 200];
    for i in 0..200 {
        let block = fixed(&mut random, places[i % places.len()]);
        let state = Toy::fresh(i as u64);
        toy.same(&block, How::default(), &state);
        toy.same(&block, How::default(), &state);
        toy.machine.tlb.flush(false);
    }
}

#[test]
fn one_probe_serves_accesses_off_one_base_until_the_tlb_may_be_flushed() {
    for (helper, constant, probes) in [(false, false, 1), (true, false, 2), (false, true, 1), (true, true, 2)] {
        let mut toy = Toy::new();
        let block = one(0x1000, |b| {
            let (base, near) = match constant {
                false => (b.load_env(reg(0, Type::I64)), None),
                true => (b.iconst(Type::I64, RAM + 64), Some(b.iconst(Type::I64, RAM + 32))),
            };
            let value = b.load(Type::I64, near.unwrap_or(base), 8, MemFlags::empty());
            if helper {
                crate::toy::call(b, Type::I64, 0, false, [value; 3], 1);
            }
            let other = b.load(Type::I64, base, 64, MemFlags::empty());
            b.store_env(reg(1, Type::I64), other);
        });
        let mut dump = mimus_backend::Dump::default();
        let parts = crate::toy::alone(&block);
        let mut request = Toy::request(&parts, How::default());
        request.dump = Some(&mut dump);
        toy.compiler.compile(request, &mut toy.code).unwrap();
        // The compare of a probe is the only one with such a constant.
        let compares = dump.clif.lines().filter(|line| line.contains("icmp ult")).count();
        assert_eq!(compares, probes, "{}", dump.clif);
    }
}
