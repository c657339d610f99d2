//! I/O ports (SDM vol. 1, chapter 19).

use super::super::cpu::{Cpu, Result};
use super::super::mode::Mode;
use super::super::state::{Breakpoint, Condition, Cr4, Dr6};
use super::descriptor::kind;
use super::{done, value};

/// Offset of the I/O map base in a 32-bit TSS, in bytes.
const IO_MAP_BASE: u64 = 0x66;

impl Cpu {
    /// #GP(0) unless the current program may access `size` ports from `port` on: CPL up to IOPL, or clear bits in the I/O
    /// permission bit map (SDM vol. 1, 19.5).
    pub fn check_io(&mut self, port: u16, size: u8) -> Result<()> {
        self.check_io_privilege(port, size)?;
        if self.mode.intersects(Mode::BREAKPOINTS) && self.state.cr4.contains(Cr4::DE) {
            let hits = self.port_breakpoints(port, size);
            self.state.debug_pending |= hits;
        }
        Ok(())
    }

    /// The breakpoints on I/O that an access meets, as DR6 has them; a trap follows (SDM vol. 3B, 17.2.4).
    fn port_breakpoints(&self, port: u16, size: u8) -> Dr6 {
        let (port, size) = (u64::from(port), u64::from(size));
        self.state.breakpoints(|addr, Breakpoint { condition, len }| {
            let first = addr & !(len - 1);
            condition == Condition::Port && first < port + size && port < first + len
        })
    }

    fn check_io_privilege(&mut self, port: u16, size: u8) -> Result<()> {
        let s = &self.state;
        if !s.protected() || !s.vm86() && s.cpl() <= s.iopl() {
            return Ok(());
        }
        let tr = s.tr;
        let limit = u64::from(tr.limit);
        if !tr.present() || tr.kind() & !kind::BUSY != kind::TSS32 || limit < IO_MAP_BASE + 1 {
            return Err(self.gp0());
        }
        let base = self.read_system(self.state.linear(tr.base.wrapping_add(IO_MAP_BASE)), 2)?;
        // Two bytes are read always: the map ends with a byte of ones.
        let offset = base + u64::from(port / 8);
        if offset + 1 > limit {
            return Err(self.gp0());
        }
        let map = self.read_system(self.state.linear(tr.base.wrapping_add(offset)), 2)?;
        let ports = (1u64 << size) - 1;
        if map >> (port % 8) & ports == 0 { Ok(()) } else { Err(self.gp0()) }
    }
}

const fn width(arg: u32) -> u8 {
    match arg {
        1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// IN of `arg` bytes from port `a`.
pub extern "C" fn port_in(cpu: &mut Cpu, a: u64, _: u64, _: u64, arg: u32) -> u64 {
    let (port, size) = (a as u16, width(arg));
    value(cpu.check_io(port, size).map(|()| cpu.bus.port_in(port, size).into()))
}

/// OUT of the low `arg` bytes of `b` to port `a`.
pub extern "C" fn port_out(cpu: &mut Cpu, a: u64, b: u64, _: u64, arg: u32) -> u64 {
    let (port, size) = (a as u16, width(arg));
    done(cpu.check_io(port, size).map(|()| cpu.port_out(port, size, b as u32)))
}
