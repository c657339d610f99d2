//! Each step that a block takes, by itself.

use std::hint::black_box;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use mimus_backend::{Arena, Compiler, HostIsa, Part, QuickCompiler, Request};
use mimus_engine::cache::{Cache, Finished, Inserted, Tb, TbKey};
use mimus_frontend::guest::GuestCpu;
use mimus_frontend::x86::{Cpu, HEADER_OFFSET, Mode};
use mimus_ir::Block;
use mimus_ir::passes::{Scratch, optimize};
use mimus_softmmu::kick::Kicker;
use mimus_softmmu::{PAGE_SIZE, Ram};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::guest::{CODE, mode};
use crate::samples::{Sample, lift_at, samples};
use crate::{Case, Prepared};

/// Blocks of the region, one after the other; each can go back to its start.
const REGION: u64 = 8;

/// Bytes of the code that is published: a block of some seven instructions.
const PUBLISHED: usize = 400;

type Prepare = fn(&Sample) -> Prepared;

/// What is done to each sample: group, rounds, what is prepared.
const STEPS: [(&str, u64, Prepare); 5] = [
    ("decode", 500, decode),
    ("lift", 500, lift),
    ("passes", 500, passes),
    ("quick", 500, quick),
    ("lower", 20, lower),
];

pub(crate) fn cases() -> Vec<Case> {
    let each = STEPS.iter().flat_map(|&(group, rounds, prepare)| {
        samples().into_iter().map(move |sample| Case {
            group,
            name: sample.name,
            item: "guest instruction",
            rounds,
            prepare: Box::new(move || prepare(&sample)),
        })
    });
    let case = |group, name, item, rounds, prepare: fn() -> Prepared| Case {
        group,
        name,
        item,
        rounds,
        prepare: Box::new(prepare),
    };
    let others = [
        case("lower", "region", "guest instruction", 5, lower_region),
        case("cache", "arena publish", "block of 400 bytes", 5000, publish),
        case("cache", "link", "link", 2000, link),
    ];
    each.chain(others).collect()
}

fn optimized(mut block: Block) -> Block {
    optimize(&mut block, &mut Scratch::default());
    block
}

fn decode(sample: &Sample) -> Prepared {
    let bytes = sample.bytes.clone();
    let items: u64 = sample.lift(mode()).guest_insns.into();
    let run = move |rounds| {
        let mut insn = Instruction::default();
        for _ in 0..rounds {
            let mut decoder = Decoder::with_ip(64, black_box(&bytes), CODE, DecoderOptions::NONE);
            (0..items).for_each(|_| decoder.decode_out(black_box(&mut insn)));
        }
    };
    Prepared { items, run: Box::new(run) }
}

/// Decodes, too.
fn lift(sample: &Sample) -> Prepared {
    let (sample, mode) = (sample.clone(), mode());
    let items = sample.lift(mode).guest_insns.into();
    let run = move |rounds| (0..rounds).for_each(|_| drop(black_box(black_box(&sample).lift(mode))));
    Prepared { items, run: Box::new(run) }
}

/// Copies the block, too.
fn passes(sample: &Sample) -> Prepared {
    let (lifted, mut scratch) = (sample.lift(mode()), Scratch::default());
    let items = lifted.guest_insns.into();
    let run = move |rounds| {
        for _ in 0..rounds {
            let mut block = black_box(&lifted).clone();
            optimize(&mut block, &mut scratch);
            black_box(block);
        }
    };
    Prepared { items, run: Box::new(run) }
}

fn host() -> HostIsa {
    HostIsa::native().expect("a host with a code generator").for_guest(Cpu::EXTENSIONS)
}

/// Nothing on hosts without a quick tier.
fn quick(sample: &Sample) -> Prepared {
    let (block, mut compiler) = (optimized(sample.lift(mode())), QuickCompiler::new(&host()));
    let items = block.guest_insns.into();
    let run = move |rounds| {
        let parts = [Part { block: &block, link_slot: 64 }];
        for _ in 0..rounds {
            if let Some(compiler) = &mut compiler {
                black_box(compiler.compile(&request(black_box(&parts), false)).expect("a block that it does"));
            }
        }
    };
    Prepared { items, run: Box::new(run) }
}

fn request<'a>(parts: &'a [Part<'a>], region: bool) -> Request<'a> {
    Request {
        parts,
        region,
        header_offset: HEADER_OFFSET as i32,
        linear_offset: 0,
        counted: false,
        may_link: true,
        dump: None,
    }
}

fn lower_parts(blocks: Vec<Block>, region: bool) -> Prepared {
    let (mut compiler, mut code) = (Compiler::new(host()), Vec::new());
    let items = blocks.iter().map(|block| u64::from(block.guest_insns)).sum();
    let run = move |rounds| {
        for _ in 0..rounds {
            let parts: Vec<Part<'_>> =
                blocks.iter().zip((0..).step_by(2)).map(|(block, link_slot)| Part { block, link_slot }).collect();
            let info = compiler.compile(request(black_box(&parts), region), &mut code).expect("code that compiles");
            black_box(info);
        }
    };
    Prepared { items, run: Box::new(run) }
}

fn lower(sample: &Sample) -> Prepared {
    lower_parts(vec![optimized(sample.lift(mode()))], false)
}

fn lower_region() -> Prepared {
    let mode: Mode = mode();
    let sample = samples().into_iter().find(|sample| sample.name == "memory").expect("a sample of that name");
    let next = |i: u64| CODE + i * sample.bytes.len() as u64;
    let blocks = (0..REGION).map(|i| optimized(lift_at(&sample.bytes, next(i), mode))).collect();
    lower_parts(blocks, true)
}

fn publish() -> Prepared {
    const ARENA: usize = 64 << 20;
    const GENERATIONS: u32 = 3;
    let new = || Arena::with_generations(ARENA, GENERATIONS).expect("memory for code");
    let (mut arena, code) = (new(), [0x90; PUBLISHED]);
    let run = move |rounds| {
        for _ in 0..rounds {
            let slot = arena.alloc(code.len()).or_else(|| {
                arena = new();
                arena.alloc(code.len())
            });
            black_box(arena.publish(slot.expect("an empty generation"), black_box(&code)));
        }
    };
    Prepared { items: 1, run: Box::new(run) }
}

/// A block that jumps to itself is linked to itself.
fn link() -> Prepared {
    let sample = samples().into_iter().next().expect("a sample");
    let mode = mode();
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("guest RAM");
    let ram = Arc::new(Ram::new(ram));
    // Nothing of it is executed, so that any address will do for the exit stub.
    let arena = Arena::new(8 << 20).expect("memory for code");
    let cache = Cache::new(ram, 32 << 20, Some((arena, 1)));
    let participant = cache.register(Kicker::new());
    let key = TbKey { gpa: CODE, pc: CODE, words: [mode.bits(), 0] };
    let granules = Ram::granules(CODE, sample.bytes.len() as u64);
    let pages = [(CODE & !(PAGE_SIZE - 1), granules)].into_iter().collect();
    let tb = Tb::new(key, optimized(sample.lift(mode)), pages);
    let Inserted::Live(tb) = cache.insert(&participant, tb, || true, |_| {}) else {
        panic!("one vCPU waits for no other")
    };
    let job = cache.begin_compile(&tb).expect("a free link slot");
    let slot = job.slots[0];
    let mut code = Vec::new();
    let parts = [Part { block: &tb.block, link_slot: slot }];
    let info = Compiler::new(host()).compile(request(&parts, false), &mut code).expect("code that compiles");
    let target = info.link_targets[0].iter().position(|target| *target == Some(CODE)).expect("a jump to itself");
    cache.publish(Finished { job, code: Some((code, info)) }).expect("room for code");
    let slot = u64::from(slot) + target as u64;
    let before = cache.stats().links;
    cache.link(slot, &tb);
    assert_eq!(cache.stats().links, before + 1, "the slot can be linked");
    let run = move |rounds| (0..rounds).for_each(|_| cache.link(black_box(slot), &tb));
    Prepared { items: 1, run: Box::new(run) }
}
