//! What compiled code and the arena look like from outside.

use std::time::Instant;

use mimus_backend::arena::Rotation;
use mimus_backend::{Arena, BackendError, Dump, HostAddr, PerfMap};
use mimus_ir::{Block, Builder, MemFlags, Op, Type};

use crate::random;
use crate::toy::{How, PAGE, Random, Toy, alone, one, reg};

#[test]
fn code_holds_no_address_of_what_it_uses() {
    let mut toy = Toy::new();
    let mut random = Random(99);
    let near = |a: u64| (a & !0xff_ffff)..(a | 0xff_ffff) + 1;
    let forbidden = [
        near(&raw const *toy.env as u64),
        near(toy.env.header.tlb),
        near(toy.env.header.links),
        near(toy.env.header.slow_load),
        near(toy.env.header.slow_rust[0]),
        near(toy.machine.ram.as_ptr() as u64),
    ];
    let mut scanned = 0;
    for _ in 0..200 {
        let block = random::block(&mut random);
        toy.compile(&block, How::default());
        for window in toy.code.windows(8) {
            let value = u64::from_le_bytes(window.try_into().unwrap());
            assert!(!forbidden.iter().any(|r| r.contains(&value)), "{value:#x}");
            scanned += 1;
        }
    }
    assert!(scanned > 10_000);
}

#[test]
fn code_depends_on_the_block_alone_and_can_be_moved() {
    let (mut one, mut two) = (Toy::new(), Toy::new());
    let mut random = Random(5);
    for _ in 0..20 {
        let block = random::block(&mut random);
        let info = one.compile(&block, How::default()).1;
        two.compile(&block, How::default());
        assert_eq!(one.code, two.code);
        // A copy at another address does the same.
        let slot = one.arena.alloc(one.code.len()).unwrap();
        let copy = HostAddr(one.arena.publish(slot, &one.code).0 + u64::from(info.entry_offset));
        one.same_again(&block, How::default(), &Toy::fresh(8), copy, &info);
    }
}

#[test]
fn a_dump_shows_both_forms() {
    let mut toy = Toy::new();
    let block = one(0x1000, |b| {
        let a = b.load_env(reg(0, Type::I64));
        let v = b.load(Type::I32, a, 0, MemFlags::empty());
        b.store_env(reg(1, Type::I64), v);
    });
    let mut dump = Dump::default();
    let parts = alone(&block);
    let mut request = Toy::request(&parts, How::default());
    request.dump = Some(&mut dump);
    toy.compiler.compile(request, &mut toy.code).unwrap();
    assert!(dump.clif.contains("load.i32"), "{}", dump.clif);
    assert!(dump.asm.lines().count() > 10, "{}", dump.asm);
    #[cfg(target_arch = "x86_64")]
    assert!(dump.asm.starts_with("     0  "), "{}", dump.asm);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn frames_are_stripped_where_nothing_needs_them() {
    let mut toy = Toy::new();
    let mut entry_offset = |block: &Block| toy.compile(block, How::default()).1.entry_offset;
    let simple = one(0x1000, |b| {
        let a = b.load_env(reg(0, Type::I64));
        let v = b.load(Type::I32, a, 0, MemFlags::empty());
        b.store_env(reg(1, Type::I64), v);
    });
    assert_eq!(entry_offset(&simple), 4);
    let calls = one(0x1000, |b| {
        crate::toy::call(b, Type::I64, 0, true, [mimus_ir::NONE; 3], 1);
    });
    assert_eq!(entry_offset(&calls), 0);
    // More values live at once than registers: they go to the stack.
    let spills = one(0x1000, |b| {
        let values: Vec<_> = (0..16).map(|i| b.load_env(reg(i, Type::I64))).collect();
        let odd: Vec<_> = values.iter().map(|&v| b.binary_imm(Op::MulI, Type::I64, v, 3)).collect();
        for (i, (&v, &w)) in values.iter().zip(odd.iter().rev()).enumerate() {
            let x = b.binary(Op::Xor, Type::I64, v, w);
            b.store_env(reg(i as u16, Type::I64), x);
        }
    });
    assert_eq!(entry_offset(&spills), 0);
}

/// Guest constants that look like a prologue or an epilogue must not be touched.
#[test]
fn constants_that_look_like_code_are_left_alone() {
    let mut toy = Toy::new();
    for value in [0x5dec_8948_5dec_8948u64, 0xe589_4855_5dec_8948, 0xc35d_ec89_48c3_5dec] {
        let block = one(value, |b| {
            let k = b.iconst(Type::I64, value);
            b.store_env(reg(0, Type::I64), k);
            let sum = b.binary_imm(Op::AddI, Type::I32, k, value as u32 as u64);
            b.store_env(reg(1, Type::I64), sum);
            b.store_env_imm(reg(2, Type::I32), value);
        });
        toy.same(&block, How::default(), &Toy::fresh(1));
        assert_eq!(toy.env.regs[0], value);
    }
}

#[test]
fn the_arena_is_bounded_and_rotates() {
    let mut arena = Arena::with_generations(1 << 20, 4).unwrap();
    assert!(arena.size() <= 1 << 20);
    assert_eq!(arena.generations(), 4);
    assert!(arena.alloc(arena.max_len() + 1).is_none());
    assert!(arena.alloc(usize::MAX).is_none());
    let fill = |arena: &mut Arena| {
        let generation = arena.current();
        while let Some(slot) = arena.alloc(10_000) {
            assert_eq!(slot.generation(), generation);
            arena.publish(slot, &[0xcc; 10_000]);
        }
        generation
    };
    let first = fill(&mut arena);
    assert_eq!(arena.rotate(), Rotation::Ready);
    let second = fill(&mut arena);
    assert_eq!(arena.rotate(), Rotation::Ready);
    fill(&mut arena);
    assert_eq!(arena.rotate(), Rotation::Evict(first));
    fill(&mut arena);
    assert_eq!(arena.rotate(), Rotation::Blocked);
    let used = arena.used();
    // SAFETY: nothing in this arena is ever executed.
    unsafe { arena.free(second) };
    assert_eq!(arena.used(), used, "only what is being evicted is freed");
    // SAFETY: as above.
    unsafe { arena.free(first) };
    assert!(arena.used() < used);
    assert_eq!(arena.rotate(), Rotation::Evict(second));
    assert_ne!(arena.current(), first, "the same part in another life");
    assert_eq!(arena.current().index(), first.index());
    assert!(matches!(Arena::new(1000), Err(BackendError::ArenaTooSmall(1000))));
}

#[test]
#[should_panic(expected = "in an allocation of")]
fn code_longer_than_its_slot_is_refused() {
    let mut arena = Arena::new(1 << 20).unwrap();
    let slot = arena.alloc(16).unwrap();
    arena.publish(slot, &[0; 17]);
}

#[test]
fn code_is_never_writable_where_it_is_executable() {
    let mut arena = Arena::new(1 << 20).unwrap();
    let slot = arena.alloc(16).unwrap();
    let address = arena.publish(slot, &[0xc3; 16]).0;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours: Vec<_> = maps.lines().filter(|l| l.contains("mimus-code")).collect();
    let executable = ours.iter().find(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|a| u64::from_str_radix(a, 16).unwrap());
        (start..end).contains(&address)
    });
    assert!(executable.unwrap().contains("r-xs"), "{ours:?}");
    assert!(ours.iter().all(|l| l.contains("r-xs") || l.contains("rw-s")), "{ours:?}");
}

#[test]
fn the_perf_map_lists_code() {
    let directory = std::env::temp_dir().join(format!("mimus-perf-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut map = PerfMap::create_in(&directory).unwrap();
    map.append(HostAddr(0x1000), 0x20, "block 0xfff0").unwrap();
    map.append(HostAddr(0x2000), 5, "two\nlines").unwrap();
    let text = std::fs::read_to_string(map.path()).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(text, "1000 20 block 0xfff0\n2000 5 two lines\n");
}

/// Not a test of speed but the way to measure it:
/// `cargo test --release -p mimus-backend compile_time -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn compile_time() {
    for (name, insns) in [("6 ops", 1), ("12 ops", 2), ("30 ops", 5), ("60 ops", 10)] {
        let block = typical(insns);
        let mut toy = Toy::new();
        for _ in 0..50 {
            toy.compiler.compile(Toy::request(&alone(&block), How::default()), &mut toy.code).unwrap();
        }
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..200 {
                toy.compiler.compile(Toy::request(&alone(&block), How::default()), &mut toy.code).unwrap();
            }
            best = best.min(start.elapsed().as_secs_f64() / 200.0);
        }
        println!(
            "{name}: {} ops, {insns} guest instructions and a branch: {:.1} us, {} bytes, {:.0} a guest instruction",
            block.insts.len(),
            best * 1e6,
            toy.code.len(),
            toy.code.len() as f64 / (insns + 1) as f64
        );
    }
    // The largest blocks there can be.
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 4);
    let a = b.load_env(reg(0, Type::I64));
    while b.len() + 3 < mimus_ir::MAX_INSTS {
        let v = b.load(Type::I64, a, b.len() as i32, MemFlags::empty());
        b.store_env(reg(1, Type::I64), v);
    }
    b.exit(0);
    let block = b.finish(0x1004);
    let mut toy = Toy::new();
    let start = Instant::now();
    toy.compile(&block, How::default());
    println!("{} ops, half of them loads: {:?}, {} bytes", block.insts.len(), start.elapsed(), toy.code.len());
    // A block that jumps to itself.
    let mut toy = Toy::new();
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 4);
    let value = b.load_env(reg(0, Type::I64));
    let less = b.binary_imm(Op::SubI, Type::I64, value, 1);
    b.store_env(reg(0, Type::I64), less);
    let cond = b.binary_imm(Op::NeI, Type::I64, less, 0);
    b.branch(cond, 0x1000);
    let (entry, _) = toy.compile(&b.finish(0x1004), How::default());
    toy.set_link(0, entry);
    toy.env.regs[0] = 100_000_000;
    let start = Instant::now();
    toy.enter(entry);
    println!("self-loop: {:.2} ns a transition", start.elapsed().as_secs_f64() * 1e9 / 1e8);
}

/// `insns` instructions, of which three in seven access memory, and a branch.
fn typical(insns: usize) -> Block {
    let mut b = Builder::new(0x1000);
    let mut last = 0;
    for i in 0..insns {
        b.insn(0x1000 + 4 * i as u64, 4);
        let n = i as u16;
        let a = b.load_env(reg(n % 14, Type::I64));
        let c = b.load_env(reg((n + 3) % 14, Type::I64));
        last = match i % 7 {
            1 | 4 => b.load(Type::I64, a, 8 * i as i32, MemFlags::empty()),
            6 => {
                b.store(Type::I64, a, 16, c, MemFlags::empty());
                c
            }
            _ => b.binary(Op::Add, Type::I64, a, c),
        };
        b.store_env(reg(n % 14, Type::I64), last);
    }
    b.insn(0x1000 + 4 * insns as u64, 2);
    let cond = b.binary_imm(Op::NeI, Type::I64, last, 0);
    b.branch(cond, 0x1800);
    let end = 0x1000 + 4 * insns as u64 + 2;
    assert!(end < 0x1000 + PAGE);
    b.finish(end)
}
