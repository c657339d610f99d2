//! A bus without devices, for vCPUs that have RAM and nothing else: tests, benchmarks, embedders.

use mimus_softmmu::{CodeSink, Dropped, MmioBus};

/// No devices, for a vCPU without a machine around it: reads give 0, writes and what becomes of code are ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDevices;

impl MmioBus for NoDevices {
    fn mmio_read(&mut self, _: u64, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: u64, _: u8, _: u64) {}
}

impl CodeSink for NoDevices {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::UNKNOWN
    }
}
