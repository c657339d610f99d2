//! The time that every case takes, an item.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mimus_benches::cases;

fn all(c: &mut Criterion) {
    for case in cases() {
        let mut group = c.benchmark_group(case.group);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
        let mut prepared = case.prepare();
        group.throughput(Throughput::Elements(prepared.items));
        group.bench_function(case.name, |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                (prepared.run)(rounds);
                start.elapsed()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
