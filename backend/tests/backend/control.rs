//! Exits, links, the jump cache, exit requests, helpers and traps.

use std::sync::atomic::Ordering;

use mimus_backend::HostAddr;
use mimus_ir::block::CallInfo;
use mimus_ir::{Block, Builder, Effects, JumpKind, NONE, Op, Type};
use mimus_softmmu::{ExitCode, Verdict};

use crate::toy::{How, INTS, Toy, call, one, reg};

/// `reg0 -= 1; if reg0 != 0 goto taken else goto fallthrough`, in one page or not.
fn countdown(pc: u64, taken: u64, fallthrough: u64) -> Block {
    let mut b = Builder::new(pc);
    b.insn(pc, 3);
    let value = b.load_env(reg(0, Type::I64));
    let less = b.binary_imm(Op::SubI, Type::I64, value, 1);
    b.store_env(reg(0, Type::I64), less);
    b.insn(pc + 3, 2);
    let cond = b.binary_imm(Op::NeI, Type::I64, less, 0);
    b.branch(cond, taken);
    b.finish(fallthrough)
}

#[test]
fn branches_leave_by_the_right_slot() {
    let mut toy = Toy::new();
    let mut state = Toy::fresh(1);
    // Same page: by links 6 and 7. Another page: through the jump cache, which is empty.
    for (target, code) in [(0x1800, ExitCode::Link), (0x1001, ExitCode::Link), (0x2000, ExitCode::Indirect)] {
        let block = countdown(0x1400, target, 0x1405);
        let how = How { link_slot: 6, counted: true, ..How::default() };
        state.regs[0] = 2;
        assert_eq!(toy.same(&block, how, &state), code);
        state.regs[0] = 1;
        assert_eq!(toy.same(&block, how, &state), ExitCode::Link);
        assert_eq!(toy.env.header.exit_slot, 7);
    }
}

#[test]
fn the_page_is_that_of_the_linear_address() {
    let mut toy = Toy::new();
    let mut state = Toy::fresh(1);
    state.regs[0] = 2;
    let block = countdown(0x1ff0, 0x2010, 0x1ff5);
    assert_eq!(toy.same(&block, How::default(), &state), ExitCode::Indirect);
    let how = How { linear_offset: 0x100, ..How::default() };
    assert_eq!(toy.same(&block, how, &state), ExitCode::Link);
    let how = How { linear_offset: 0x100u64.wrapping_sub(0x2000), ..How::default() };
    assert_eq!(toy.same(&block, how, &state), ExitCode::Link);
}

#[test]
fn without_linking_every_exit_goes_to_the_dispatcher() {
    let mut toy = Toy::new();
    let mut state = Toy::fresh(1);
    state.regs[0] = 2;
    let how = How { may_link: false, ..How::default() };
    let block = countdown(0x1400, 0x1400, 0x1405);
    let (entry, info) = toy.compile(&block, how);
    assert_eq!(info.link_targets, [[None, None]]);
    // Neither links nor the jump cache nor a request matter.
    toy.set_link(0, HostAddr(8));
    toy.set_jump(0x1400, 1, HostAddr(8));
    toy.env.header.exit_request.store(1, Ordering::Relaxed);
    assert_eq!(toy.same_again(&block, how, &state, entry, &info), ExitCode::Indirect);
}

#[test]
fn linked_blocks_chain() {
    let mut toy = Toy::new();
    let how = |link_slot| How { link_slot, counted: true, ..How::default() };
    let (first, _) = toy.compile(&countdown(0x1000, 0x1100, 0x1005), how(0));
    let (second, _) = toy.compile(&countdown(0x1100, 0x1000, 0x1105), how(2));
    toy.env.regs[0] = 1001;
    assert_eq!(toy.enter(first), ExitCode::Link);
    assert_eq!((toy.env.header.exit_slot, toy.env.regs[0]), (0, 1000));
    toy.set_link(0, second);
    toy.set_link(2, first);
    toy.env.header.insns = 0;
    assert_eq!(toy.enter(second), ExitCode::Link);
    assert_eq!((toy.env.header.exit_slot, toy.env.regs[0]), (1, 0));
    assert_eq!(toy.env.header.insns, 2000);
    // Unlinked again, it stops after one.
    toy.env.regs[0] = 100;
    toy.set_link(2, toy.thunks.exit_stub());
    assert_eq!(toy.enter(second), ExitCode::Link);
    assert_eq!((toy.env.header.exit_slot, toy.env.regs[0]), (2, 99));
}

#[test]
fn link_slots_far_out_are_reached() {
    let mut toy = Toy::new();
    let block = countdown(0x1000, 0x1100, 0x1005);
    for link_slot in [0x0fff_ffff, 0x1000_0000, u32::MAX - 1] {
        let (entry, _) = toy.compile(&block, How { link_slot, ..How::default() });
        let table = toy.env.header.links;
        toy.env.header.links = table.wrapping_sub(8 * u64::from(link_slot));
        toy.env.regs[0] = 5;
        assert_eq!(toy.enter(entry), ExitCode::Link);
        assert_eq!(toy.env.header.exit_slot, u64::from(link_slot));
        toy.env.header.links = table;
    }
}

#[test]
fn an_exit_request_stops_back_edges() {
    let mut toy = Toy::new();
    let (entry, _) = toy.compile(&countdown(0x1000, 0x1000, 0x1005), How { counted: true, ..How::default() });
    toy.set_link(0, entry);
    toy.env.regs[0] = 1_000_000;
    toy.env.header.exit_request.store(1, Ordering::Relaxed);
    assert_eq!(toy.enter(entry), ExitCode::Requested);
    assert_eq!((toy.env.header.exit_value, toy.env.regs[0], toy.env.header.insns), (0x1000, 999_999, 2));
    // From another thread, while it runs.
    toy.env.header.exit_request.store(0, Ordering::Relaxed);
    toy.env.regs[0] = u64::MAX;
    let request = &raw const toy.env.header.exit_request;
    let request = request as usize;
    let asker = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        // SAFETY: the env outlives the thread, which is joined below; compiled code reads this field atomically.
        let request = unsafe { &*(request as *const std::sync::atomic::AtomicU32) };
        request.store(1, Ordering::Release);
    });
    assert_eq!(toy.enter(entry), ExitCode::Requested);
    asker.join().unwrap();
    assert_eq!(toy.env.header.insns, 2 + 2 * (u64::MAX - toy.env.regs[0]));
}

#[test]
fn a_jump_to_itself_can_be_stopped() {
    let mut toy = Toy::new();
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 1);
    b.insn(0x1001, 2);
    b.jump(0x1001);
    let block = b.finish(0x1003);
    let (entry, _) = toy.compile(&block, How::default());
    toy.set_link(0, entry);
    toy.env.header.exit_request.store(1, Ordering::Relaxed);
    assert_eq!(toy.enter(entry), ExitCode::Requested);
    assert_eq!(toy.env.header.exit_value, 0x1001);
    // A jump ahead within the page does not look.
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 2);
    b.jump(0x1002);
    let ahead = b.finish(0x1002);
    let (entry, _) = toy.compile(&ahead, How { link_slot: 2, ..How::default() });
    assert_eq!(toy.enter(entry), ExitCode::Link);
}

fn indirect(ty: Type) -> Block {
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 2);
    let target = b.load_env(reg(1, ty));
    b.jump_ind(JumpKind::Plain, target);
    b.finish(0x1002)
}

#[test]
fn the_jump_cache_is_probed() {
    let mut toy = Toy::new();
    let state = Toy::fresh(77);
    for ty in INTS {
        toy.same(&indirect(ty), How::default(), &state);
    }
    let (leaf, _) = toy.compile(&one(0x7654_3210, |_| {}), How::default());
    let computed = toy.compile(&indirect(Type::I64), How::default()).0;
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 5);
    b.jump(0x7654_3210);
    let constant = toy.compile(&b.finish(0x1005), How::default()).0;
    for entry in [computed, constant] {
        toy.env.regs[1] = 0x7654_3210;
        toy.env.header.jump_context = 3;
        toy.set_jump(0x7654_3210, 3, leaf);
        assert_eq!(toy.enter(entry), ExitCode::Main);
        // Another context, another PC of the same row, an empty row.
        toy.env.header.jump_context = 4;
        assert_eq!(toy.enter(entry), ExitCode::Indirect);
        assert_eq!(toy.env.header.exit_value, 0x7654_3210);
        toy.set_jump(0x7654_3210, 0, leaf);
        assert_eq!(toy.enter(entry), ExitCode::Indirect);
        toy.set_jump(0x7654_3210, 4, leaf);
        assert_eq!(toy.enter(entry), ExitCode::Main);
        toy.env.header.exit_request.store(9, Ordering::Relaxed);
        assert_eq!(toy.enter(entry), ExitCode::Requested);
        assert_eq!(toy.env.header.exit_value, 0x7654_3210);
        toy.env.header.exit_request.store(0, Ordering::Relaxed);
    }
    let offset = mimus_softmmu::header::jump_cache_offset(0x7654_3210, toy.env.header.jump_cache_mask);
    let twin = (0x7654_3211..)
        .find(|&pc| mimus_softmmu::header::jump_cache_offset(pc, toy.env.header.jump_cache_mask) == offset);
    toy.env.regs[1] = twin.unwrap();
    assert_eq!(toy.enter(computed), ExitCode::Indirect);
    assert_eq!(Some(toy.env.header.exit_value), twin);
}

#[test]
fn helpers_get_their_arguments() {
    let mut toy = Toy::new();
    for ty in INTS {
        for number in [0, 1] {
            for arg in [0, 1, 0x8000_0000, u32::MAX] {
                let block = one(0x1000, |b| {
                    let a = b.load_env(reg(0, Type::I64));
                    let c = b.load_env(reg(2, Type::I16));
                    let result = call(b, ty, number, false, [a, NONE, c], arg);
                    b.store_env(reg(3, Type::I64), result);
                    let k = b.iconst(Type::I64, 0x1234_5678_9abc_def0);
                    let result = call(b, ty, number, false, [NONE, k, result], arg);
                    b.store_env(reg(4, Type::I64), result);
                });
                toy.same(&block, How::default(), &Toy::fresh(u64::from(arg) + 5));
            }
        }
    }
}

#[test]
fn a_helper_that_faults_stops_its_instruction() {
    let mut toy = Toy::new();
    let mut b = Builder::new(0x1000);
    for i in 0..3u16 {
        b.insn(0x1000 + 4 * u64::from(i), 4);
        let a = b.load_env(reg(i, Type::I64));
        let result = call(&mut b, Type::I64, 2, true, [a, a, a], 9);
        b.store_env(reg(8 + i, Type::I64), result);
    }
    b.exit(1);
    let block = b.finish(0x100c);
    let how = How { counted: true, ..How::default() };
    for odd in 0..4 {
        let mut state = Toy::fresh(6);
        state.regs[..3].copy_from_slice(&[2, 4, 6]);
        if odd < 3 {
            state.regs[odd] += 1;
        }
        let code = toy.same(&block, how, &state);
        assert_eq!(code, if odd < 3 { ExitCode::Stopped } else { ExitCode::Main });
    }
    // A helper that is not said to fault is not checked.
    toy.env.header.verdict = 0;
    let block = one(0x1000, |b| {
        let info = CallInfo { helper: 2, effects: Effects::empty(), arg: 0 };
        let a = b.load_env(reg(0, Type::I64));
        b.call(Type::I64, info, [a, a, a]);
    });
    let (entry, _) = toy.compile(&block, How::default());
    toy.env.regs[0] = 1;
    assert_eq!(toy.enter(entry), ExitCode::Main);
    assert_eq!(toy.env.header.verdict, Verdict::Fault as u32);
}

#[test]
fn traps_stop_their_instruction() {
    let mut toy = Toy::new();
    for ty in INTS {
        let mut b = Builder::new(0x1000);
        for i in 0..3u16 {
            b.insn(0x1000 + 4 * u64::from(i), 4);
            let cond = b.load_env(reg(i, ty));
            b.trap_if(cond, 0xabcd_0000_0000 + u64::from(i));
            b.store_env_imm(reg(8 + i, Type::I64), 1);
        }
        b.exit(1);
        let block = b.finish(0x100c);
        // Only the low byte of a condition counts.
        for regs in [[0, 0, 0], [0, 1, 1], [0, 0x100, 0x80], [1, 0, 0]] {
            let mut state = Toy::fresh(6);
            state.regs[..3].copy_from_slice(&regs);
            toy.same(&block, How { counted: true, ..How::default() }, &state);
        }
    }
}

#[test]
fn exits_carry_their_reason() {
    let mut toy = Toy::new();
    for reason in [0, 1, u64::MAX] {
        let mut b = Builder::new(0);
        b.exit(reason);
        let block = b.finish(0);
        assert_eq!(toy.same(&block, How { counted: true, ..How::default() }, &Toy::fresh(1)), ExitCode::Main);
    }
}
