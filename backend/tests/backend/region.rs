//! Regions: several blocks compiled as one do what the blocks do one after another.

use mimus_backend::Part;
use mimus_ir::block::CallInfo;
use mimus_ir::{Block, Builder, Effects, Exit, JumpKind, MemFlags, Op, Type, Value};
use mimus_softmmu::{ExitCode, Verdict};

use crate::random::step;
use crate::toy::{How, PAGE as RAM_PAGE, RAM, Random, Reference, State, Toy, one, reg};

/// Guest PC of the page that every part is in.
const PAGE: u64 = 0x7000;

/// Where part `n` begins.
fn start(n: u64) -> u64 {
    PAGE + 0x100 * n
}

/// A register that counts blocks down, so that the guest comes to an end.
const COUNT: u16 = 14;

/// Part `n` of `parts`, of random ops on whole registers, two of which are now and then accessed in part.
fn part(random: &mut Random, n: u64, parts: u64) -> Block {
    let pc = start(n);
    let mut b = Builder::new(pc);
    b.insn(pc, 4);
    let left = b.load_env(reg(COUNT, Type::I64));
    let over = b.binary_imm(Op::EqI, Type::I64, left, 0);
    b.trap_if(over, 0x77);
    let left = b.binary_imm(Op::SubI, Type::I64, left, 1);
    b.store_env(reg(COUNT, Type::I64), left);
    let count = 1 + random.below(4);
    let register = |random: &mut Random| match random.below(8) {
        0 => reg(12 + random.below(2) as u16, [Type::I8, Type::I32, Type::I64][random.below(3) as usize]),
        1 => reg(15, Type::I64),
        _ => reg(random.below(6) as u16, Type::I64),
    };
    for i in 1..=count {
        b.insn(pc + 4 * i, 4);
        let mut values = vec![b.load_env(register(random)), b.load_env(register(random))];
        for _ in 0..1 + random.below(4) {
            let mut pick = || values[random.below(values.len() as u64) as usize];
            let operands = [pick(), pick(), pick()];
            values.extend(step(&mut b, random, operands));
        }
        if random.below(6) == 0 {
            b.store_env_imm(register(random), random.operand());
        }
        let last = values[values.len() - 1];
        b.store_env(register(random), last);
    }
    let next = pc + 4 * (count + 1);
    let mut target = || if random.below(8) == 0 { PAGE + 0xf00 } else { start(random.below(parts)) };
    let (target, fallthrough) = (target(), target());
    let last = b.load_env(reg(random.below(6) as u16, Type::I64));
    match random.below(10) {
        0 => b.exit(random.next()),
        1 => b.jump_ind(JumpKind::Plain, last),
        2 => {
            let to = b.pc(target);
            b.jump_ind(JumpKind::Return, to);
        }
        3 => b.jump_as(JumpKind::Call, target),
        4 => b.jump(target),
        _ => {
            let low = b.binary_imm(Op::AndI, Type::I64, last, 3);
            b.branch(low, target);
        }
    }
    b.finish(if random.below(4) == 0 { next } else { fallthrough })
}

/// Whether compiled code goes on in the region after a part was left so; guest PCs in the blocks are relative to `base`.
fn stays(blocks: &[Block], from: &Block, exit: Exit, base: u64) -> Option<usize> {
    let is_call = |block: &Block| {
        block.terminator().is_some_and(|i| i.op != Op::Branch && i.op != Op::Exit && i.jump_kind() == JumpKind::Call)
    };
    let pc = match exit {
        Exit::Jump { pc, .. } => pc.wrapping_sub(base),
        Exit::Indirect { pc } if from.terminator()?.jump_kind() == JumpKind::Return => {
            let pc = pc.wrapping_sub(base);
            blocks.iter().any(|block| is_call(block) && block.fallthrough == pc).then_some(pc)?
        }
        _ => return None,
    };
    blocks.iter().position(|block| block.pc == pc)
}

/// Runs a region both ways; how it was left, and how many parts were run.
fn same(toy: &mut Toy, blocks: &[Block], how: How, state: &State) -> (ExitCode, u32) {
    let parts: Vec<Part<'_>> =
        blocks.iter().enumerate().map(|(i, block)| Part { block, link_slot: 2 * i as u32 }).collect();
    let (entry, info) = toy.compile_parts(&parts, how);
    let base = toy.env.header.pc_base;
    let mut reference = Reference { pc_base: base, ..Reference::new(state) };
    let (mut at, mut insns, mut runs) = (0, 0, 0);
    let exit = loop {
        let outcome = reference.run(&blocks[at]);
        insns += u64::from(outcome.insns);
        runs += 1;
        match stays(blocks, &blocks[at], outcome.exit, base) {
            Some(next) => at = next,
            None => break outcome.exit,
        }
    };
    toy.set_state(state);
    toy.env.header.insns = 0;
    let code = toy.enter(entry);
    let header = &toy.env.header;
    match (exit, code) {
        (Exit::Jump { slot, pc }, ExitCode::Link) => {
            assert_eq!(header.exit_slot, 2 * at as u64 + u64::from(slot));
            assert_eq!(info.link_targets[at][usize::from(slot)], Some(pc.wrapping_sub(base)));
        }
        (Exit::Jump { pc, .. } | Exit::Indirect { pc }, ExitCode::Indirect) => assert_eq!(header.exit_value, pc),
        (Exit::Main(reason), ExitCode::Main) => assert_eq!(header.exit_value, reason),
        (Exit::Fault { pc }, ExitCode::Stopped) => {
            assert_eq!((header.exit_value, header.verdict), (pc.wrapping_sub(base), Verdict::Fault as u32));
        }
        other => panic!("{other:x?} in {blocks:#x?}"),
    }
    if how.counted {
        assert_eq!(header.insns, insns);
    }
    assert!(toy.state() == reference.state(), "{blocks:#x?}");
    (code, runs)
}

#[test]
fn random_regions_do_what_their_blocks_do() {
    let mut toy = Toy::new();
    let mut random = Random(0x5eed_0001);
    let (mut codes, mut most, mut total) = ([0; 6], 0, 0);
    for i in 0..600u64 {
        let parts = 1 + random.below(7);
        let blocks: Vec<Block> = (0..parts).map(|n| part(&mut random, n, parts)).collect();
        let how = How { counted: i % 2 == 0, region: true, ..How::default() };
        toy.env.header.pc_base = [0, 0x7fff_1234_5000][(i % 2) as usize];
        for seed in 0..3 {
            let mut state = Toy::fresh(3 * i + seed + 1);
            state.regs[usize::from(COUNT)] = random.below(40);
            let (code, runs) = same(&mut toy, &blocks, how, &state);
            codes[code as usize] += 1;
            most = most.max(runs);
            total += runs;
        }
    }
    let [link, indirect, main, stopped, requested, hot] = codes;
    assert!(link > 100 && indirect > 100 && main > 50 && stopped > 300 && requested + hot == 0, "{codes:?}");
    assert!(most > 35 && total > 5000, "loops are run: {most} at once, {total} in all");
}

/// A loop that counts register 0 down.
fn countdown() -> Block {
    let pc = start(0);
    let mut b = Builder::new(pc);
    b.insn(pc, 4);
    let left = b.load_env(reg(0, Type::I64));
    let left = b.binary_imm(Op::SubI, Type::I64, left, 1);
    b.store_env(reg(0, Type::I64), left);
    b.branch(left, pc);
    b.finish(pc + 4)
}

#[test]
fn a_loop_within_a_region_heeds_a_request() {
    let mut toy = Toy::new();
    let block = countdown();
    let how = How { region: true, ..How::default() };
    let (entry, _) = toy.compile_parts(&[Part { block: &block, link_slot: 0 }], how);
    let mut state = Toy::fresh(1);
    state.regs[0] = 100;
    toy.set_state(&state);
    toy.env.header.exit_request = 1.into();
    assert_eq!(toy.enter(entry), ExitCode::Requested);
    assert_eq!((toy.env.header.exit_value, toy.env.regs[0]), (start(0), 99));
    toy.env.header.exit_request = 0.into();
    assert_eq!(toy.enter(entry), ExitCode::Link);
    assert_eq!(toy.env.regs[0], 0);
}

#[test]
fn blocks_by_themselves_are_sampled_and_regions_are_not() {
    let mut toy = Toy::new();
    let block = countdown();
    let mut state = Toy::fresh(1);
    state.regs[0] = 100;
    for (region, sample, code) in
        [(false, 0, ExitCode::Requested), (false, 1, ExitCode::Link), (true, 0, ExitCode::Link)]
    {
        let how = How { region, ..How::default() };
        let (entry, _) = toy.compile_parts(&[Part { block: &block, link_slot: 0 }], how);
        toy.set_link(0, entry);
        toy.set_state(&state);
        // The first of 100 rounds, or one that is not reached.
        let sample = if sample == 0 { 0 } else { 1000 };
        toy.env.header.sample = sample;
        assert_eq!(toy.enter(entry), code, "region: {region}, {sample} to go");
        let rounds = if sample == 0 { 1 } else { 99 };
        assert_eq!(toy.env.header.sample, if region { sample } else { sample - rounds });
    }
}

#[test]
fn what_a_helper_writes_is_seen_in_the_next_part() {
    let mut toy = Toy::new();
    let how = How { region: true, ..How::default() };
    let first = {
        let mut b = Builder::new(start(0));
        b.insn(start(0), 4);
        let held = b.load_env(reg(15, Type::I64));
        b.store_env(reg(1, Type::I64), held);
        let info = CallInfo { helper: 1, effects: Effects::WRITE_ENV, arg: 9 };
        b.call(Type::I64, info, [held, held, held]);
        b.jump(start(1));
        b.finish(start(0) + 4)
    };
    let second = one(start(1), |b| {
        let now = b.load_env(reg(15, Type::I64));
        b.store_env(reg(2, Type::I64), now);
    });
    let (code, runs) = same(&mut toy, &[first, second], how, &Toy::fresh(5));
    assert_eq!((code, runs), (ExitCode::Main, 2));
    assert_eq!(toy.env.regs[2], toy.env.regs[15]);
    assert_ne!(toy.env.regs[2], toy.env.regs[1]);
}

/// A loop in two parts that loads from where register 0 points, stores to where register 1 does, and steps both. `between` is
/// done after that, with what is left to do in register 14.
fn walk(step: u64, between: impl FnOnce(&mut Builder, Value)) -> [Block; 2] {
    let i64 = Type::I64;
    let first = {
        let pc = start(0);
        let mut b = Builder::new(pc);
        b.insn(pc, 4);
        let from = b.load_env(reg(0, i64));
        let value = b.load(i64, from, 3, MemFlags::empty());
        b.store_env(reg(2, i64), value);
        b.insn(pc + 4, 4);
        let sum = b.load_env(reg(3, i64));
        let sum = b.binary(Op::Add, i64, sum, value);
        b.store_env(reg(3, i64), sum);
        b.jump(start(1));
        b.finish(pc + 8)
    };
    let second = {
        let pc = start(1);
        let mut b = Builder::new(pc);
        b.insn(pc, 4);
        // Dead unless the store stops.
        let sum = b.load_env(reg(3, i64));
        let twice = b.binary(Op::Add, i64, sum, sum);
        b.store_env(reg(2, i64), twice);
        b.insn(pc + 4, 4);
        let to = b.load_env(reg(1, i64));
        b.store(Type::I32, to, 0, sum, MemFlags::empty());
        b.insn(pc + 8, 4);
        let from = b.load_env(reg(0, i64));
        let from = b.binary_imm(Op::AddI, i64, from, step);
        b.store_env(reg(0, i64), from);
        let to = b.binary_imm(Op::AddI, i64, to, step);
        b.store_env(reg(1, i64), to);
        b.insn(pc + 12, 4);
        let left = b.load_env(reg(COUNT, i64));
        between(&mut b, left);
        let left = b.binary_imm(Op::SubI, i64, left, 1);
        b.store_env(reg(COUNT, i64), left);
        b.store_env(reg(2, i64), left);
        let more = b.binary_imm(Op::NeI, i64, left, 0);
        b.branch(more, start(0));
        b.finish(pc + 16)
    };
    [first, second]
}

#[test]
fn a_loop_keeps_its_pages_until_it_leaves_them() {
    let mut toy = Toy::new();
    let page = |n: u64| RAM + n * RAM_PAGE;
    // Where it reads, where it writes, how far and how often; whether something stops it.
    let cases = [
        (page(0), page(1), 8, 500, false),
        (page(1) + 1, page(0) + 7, 24, 400, true),
        (page(0) + 2, page(5), 512, 7, false),
        (page(2) - 64, page(0), 8, 1000, true),
        (page(0), page(2) - 640, 16, 1000, true),
        // Both are the same page, and the one that is never in the TLB.
        (page(0) + 8, page(0), 8, 400, false),
        (page(4), page(4) + 64, 8, 100, false),
        // Where a number that stands for no page might point to.
        (0, page(0), 8, 3, true),
        (1 << 63, page(0), 8, 3, true),
    ];
    for (case, (from, to, step, count, stops)) in cases.into_iter().enumerate() {
        for counted in [false, true] {
            let how = How { counted, region: true, ..How::default() };
            let blocks = walk(step, |_, _| {});
            let mut state = Toy::fresh(case as u64);
            (state.regs[0], state.regs[1], state.regs[usize::from(COUNT)]) = (from, to, count);
            toy.machine.tlb.flush(false);
            toy.machine.slow = [0; 5];
            let (code, _) = same(&mut toy, &blocks, how, &state);
            assert_eq!(code == ExitCode::Stopped, stops, "case {case}");
            let slow: u32 = toy.machine.slow.iter().sum();
            assert!(slow <= 10 || from == page(4), "case {case}: {slow} slow paths");
        }
    }
}

#[test]
fn a_loop_forgets_its_pages_when_the_tlb_is_flushed() {
    let mut toy = Toy::new();
    let flush = |b: &mut Builder, value| {
        let info = CallInfo { helper: 3, effects: Effects::MEMORY, arg: 0 };
        b.call(Type::I64, info, [value, value, value]);
    };
    let blocks = walk(8, flush);
    let mut state = Toy::fresh(1);
    (state.regs[0], state.regs[1], state.regs[usize::from(COUNT)]) = (RAM, RAM + RAM_PAGE, 50);
    toy.machine.slow = [0; 5];
    let (code, _) = same(&mut toy, &blocks, How { region: true, ..How::default() }, &state);
    assert_eq!(code, ExitCode::Link);
    // At first, and after each of twelve flushes.
    assert_eq!(toy.machine.slow[..2], [13, 13]);
}
