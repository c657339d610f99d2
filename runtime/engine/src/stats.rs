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
    pub exits: [u64; 6],
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
    /// As a table to be read: what was interpreted, compiled and chained.
    pub fn to_table(&self) -> String {
        let insns = self.vcpu.interpreted_insns + self.compiled_insns;
        let percent = |n: u64| if insns == 0 { 0.0 } else { 100.0 * n as f64 / insns as f64 };
        let [link, indirect, main, stopped, requested, hot] = self.vcpu.exits;
        let rows = [
            ("guest instructions", insns, String::new()),
            ("  interpreted", self.vcpu.interpreted_insns, format!("{:.2} %", percent(self.vcpu.interpreted_insns))),
            ("  run as host code", self.compiled_insns, format!("{:.2} %", percent(self.compiled_insns))),
            ("blocks kept by earlier runs", self.cache.kept, String::new()),
            ("blocks translated", self.cache.translated, format!("{} instructions", self.cache.translated_insns)),
            ("blocks made code of quickly", self.cache.quick, String::new()),
            ("blocks compiled", self.cache.compiled, format!("{} KiB of host code", self.cache.code_bytes >> 10)),
            ("  of them regions of blocks", self.cache.regions, String::new()),
            ("links between them", self.cache.links, String::new()),
            ("returns to the dispatcher", link + indirect + main + stopped + requested + hot, String::new()),
            ("blocks dropped as rewritten", self.cache.invalidations, String::new()),
            ("interrupts taken", self.vcpu.interrupts, format!("{} halts", self.vcpu.halts)),
            ("page walks", self.mmu.refills, format!("{} TLB flushes", self.mmu.flushes + self.mmu.page_flushes)),
        ];
        let mut out = String::from("what mimus did:\n");
        for (name, count, note) in rows {
            out.push_str(format!("  {name:<28}{count:>12}  {note}").trim_end());
            out.push('\n');
        }
        let seconds = |ns: u64| ns as f64 / 1e9;
        out.push_str(&format!(
            "  {:<28}{:>10.2} s  {:.2} s of compiling beside it\n",
            "time",
            seconds(self.guest_ns),
            seconds(self.compile_ns)
        ));
        out
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let [link, indirect, main, stopped, requested, hot] = self.vcpu.exits;
        json!({
            "instructions": { "interpreted": self.vcpu.interpreted_insns, "compiled": self.compiled_insns },
            "blocks": {
                "interpreted": self.vcpu.interpreted_blocks,
                "translated": self.cache.translated,
                "kept": self.cache.kept,
                "translated_instructions": self.cache.translated_insns,
                "compiled": self.cache.compiled,
                "regions": self.cache.regions,
                "quick": self.cache.quick,
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
                "hot": hot,
                "interpret_once": self.vcpu.interpreted_once,
            },
            "tlb": {
                "interpreter_hits": self.mmu.hits,
                "misses": self.mmu.refills,
                "flushes": self.mmu.flushes,
                "page_flushes": self.mmu.page_flushes,
                "switches": self.mmu.switches,
                "mmio": self.mmu.mmio,
            },
            "cache": {
                "code_bytes": self.cache.code_bytes,
                "peak_metadata_bytes": self.cache.peak_metadata_bytes,
                "evictions": self.cache.evictions,
                "survivals": self.cache.survivals,
                "invalidations": self.cache.invalidations,
            },
            "interrupts": self.vcpu.interrupts,
            "halts": self.vcpu.halts,
            "guest_ns": self.guest_ns,
        })
    }
}
