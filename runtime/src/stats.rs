//! What a run did, as `-stats` writes it.

use mimus_softmmu::MmuStats;
use serde_json::{Value, json};

use crate::cache::CacheStats;

/// Counters of one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuStats {
    /// Guest instructions interpreted.
    pub interpreted_insns: u64,
    /// Blocks interpreted.
    pub interpreted_blocks: u64,
    /// Single instructions interpreted because compiled code could not finish them.
    pub interpreted_once: u64,
    /// Returns of compiled code, by [`mimus_softmmu::ExitCode`].
    pub exits: [u64; 5],
    /// Hardware interrupts taken.
    pub interrupts: u64,
    /// Times the vCPU slept in HLT.
    pub halts: u64,
}

/// Everything counted in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// The vCPU.
    pub vcpu: VcpuStats,
    /// Guest instructions run by compiled code; 0 unless counted.
    pub compiled_insns: u64,
    /// The cache.
    pub cache: CacheStats,
    /// The MMU.
    pub mmu: MmuStats,
    /// Time spent compiling, in nanoseconds.
    pub compile_ns: u64,
    /// Guest time of the run, in nanoseconds.
    pub guest_ns: u64,
}

impl Stats {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let [link, indirect, main, stopped, requested] = self.vcpu.exits;
        json!({
            "instructions": { "interpreted": self.vcpu.interpreted_insns, "compiled": self.compiled_insns },
            "blocks": {
                "interpreted": self.vcpu.interpreted_blocks,
                "translated": self.cache.translated,
                "translated_instructions": self.cache.translated_insns,
                "compiled": self.cache.compiled,
                "dropped": self.cache.dropped,
            },
            "compile_ns": self.compile_ns,
            "links": self.cache.links,
            "exits": {
                "link": link,
                "indirect": indirect,
                "main": main,
                "stopped": stopped,
                "requested": requested,
                "interpret_once": self.vcpu.interpreted_once,
            },
            "tlb": {
                "interpreter_hits": self.mmu.hits,
                "misses": self.mmu.refills,
                "flushes": self.mmu.flushes,
                "page_flushes": self.mmu.page_flushes,
                "mmio": self.mmu.mmio,
            },
            "cache": {
                "code_bytes": self.cache.code_bytes,
                "peak_metadata_bytes": self.cache.peak_metadata_bytes,
                "evictions": self.cache.evictions,
                "invalidations": self.cache.invalidations,
            },
            "interrupts": self.vcpu.interrupts,
            "halts": self.vcpu.halts,
            "guest_ns": self.guest_ns,
        })
    }
}
