//! The host's own processor as one of the engines that are compared, by the backend's oracle.

use mimus_backend::native::{self, Native, NativeError, Refusal, Width};

use super::{Outcome, Registers, Trap};

/// The host's processor, with the data.
#[derive(Debug)]
pub struct Host(Native);

impl Host {
    /// The host; one at a time.
    ///
    /// # Errors
    ///
    /// Those of [`Native::new`].
    pub fn new() -> Result<Host, NativeError> {
        Native::new().map(Host)
    }

    /// The data.
    pub fn data(&mut self) -> &mut [u8] {
        self.0.data()
    }

    /// Executes one instruction in code of `bits` (32 or 64) bits.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for one that might do harm.
    pub fn step(&mut self, bits: u32, code: &[u8], registers: &Registers) -> Result<Outcome, Refusal> {
        let mut native = native::Registers::new(registers.gpr, registers.rflags, registers.fx);
        let stop = self.0.step(if bits == 64 { Width::Bits64 } else { Width::Bits32 }, code, &mut native)?;
        let trap = stop.trap.map(|t| Trap {
            vector: t.vector,
            error: t.error,
            address: if t.vector == 14 { t.address } else { 0 },
        });
        let registers = Registers { gpr: native.gpr, rflags: native.rflags, fx: native.fx };
        Ok(Outcome { registers, rip: stop.rip, trap })
    }
}
