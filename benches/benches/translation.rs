//! Each step that a block takes, by itself: time a guest instruction.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mimus_backend::{Compiler, HostIsa, Part, Request};
use mimus_benches::{samples, vcpu};
use mimus_frontend::x86::HEADER_OFFSET;
use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::{Block, Exit, Interp};

/// Runs `bench` on each sample: as guest bytes, and its optimized block.
fn each(
    c: &mut Criterion,
    group: &str,
    mut bench: impl FnMut(&mut criterion::Bencher<'_>, &mimus_benches::Sample, &Block),
) {
    let mode = vcpu().mode;
    let mut group = c.benchmark_group(group);
    for sample in samples() {
        let mut block = sample.lift(mode);
        optimize(&mut block, &mut Scratch::default());
        group.throughput(Throughput::Elements(block.guest_insns.into()));
        group.bench_function(BenchmarkId::from_parameter(sample.name), |b| bench(b, &sample, &block));
    }
}

fn decode_and_lift(c: &mut Criterion) {
    let mode = vcpu().mode;
    each(c, "decode and lift", |b, sample, _| b.iter(|| black_box(sample).lift(mode)));
}

fn passes(c: &mut Criterion) {
    let mode = vcpu().mode;
    let mut scratch = Scratch::default();
    each(c, "passes", |b, sample, _| {
        let lifted = sample.lift(mode);
        b.iter_batched_ref(|| lifted.clone(), |block| optimize(block, &mut scratch), BatchSize::SmallInput);
    });
}

fn lower(c: &mut Criterion) {
    let mut compiler = Compiler::new(HostIsa::native().expect("a host with a code generator"));
    let mut code = Vec::new();
    each(c, "lower", |b, _, block| {
        b.iter(|| {
            let request = Request {
                parts: &[Part { block: black_box(block), link_slot: 0 }],
                region: false,
                header_offset: HEADER_OFFSET as i32,
                linear_offset: 0,
                counted: false,
                may_link: true,
                dump: None,
            };
            compiler.compile(request, &mut code).expect("a block that compiles")
        });
    });
}

fn interpret(c: &mut Criterion) {
    let (mut cpu, mut interp) = (vcpu(), Interp::default());
    each(c, "interpret", |b, sample, block| {
        let outcome = interp.run(block, &mut *cpu);
        let whole = matches!(outcome.exit, Exit::Jump { .. }) && outcome.insns == block.guest_insns;
        assert!(whole, "{}: {outcome:?}", sample.name);
        b.iter(|| interp.run(black_box(block), &mut *cpu));
    });
}

criterion_group!(benches, decode_and_lift, passes, lower, interpret);
criterion_main!(benches);
