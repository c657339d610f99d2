//! Every instruction form through several engines: the interpreter, compiled code, the host's own processor.
//!
//! [`form`] tells which forms there are, [`latitude`] what of them is left to the processor, [`case`] makes instructions with operands of
//! them, [`guest`] runs one on the interpreter or compiled, [`host`] on the host, and [`compare`] tells them apart.

pub mod case;
pub mod compare;
pub mod form;
pub mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod host;
pub mod latitude;
pub mod layout;
pub mod program;
pub mod values;

/// Registers before or after an instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registers {
    /// General registers in encoding order.
    pub gpr: [u64; 16],
    /// RFLAGS: the arithmetic flags and DF.
    pub rflags: u64,
    /// x87, XMM registers and MXCSR, as FXSAVE64 has them.
    pub fx: [u8; 512],
}

impl Registers {
    /// What code of `bits` bits can see of them: compatibility mode has no upper halves.
    pub fn visible(mut self, bits: u32) -> Registers {
        if bits == 32 {
            for (n, value) in self.gpr.iter_mut().enumerate() {
                *value = if n < 8 { *value & 0xffff_ffff } else { 0 };
            }
        }
        self
    }

    /// XMM register `n`.
    pub fn xmm(&self, n: usize) -> u128 {
        u128::from_le_bytes(self.fx[160 + 16 * n..][..16].try_into().expect("16 bytes"))
    }

    /// ST(`n`), 80 bits.
    pub fn st(&self, n: usize) -> u128 {
        u128::from_le_bytes(self.fx[32 + 16 * n..][..16].try_into().expect("16 bytes")) & ((1 << 80) - 1)
    }

    /// The 16 bits at `at` of the FXSAVE image: control word 0, status word 2, tags 4.
    pub fn fx16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.fx[at], self.fx[at + 1]])
    }

    /// MXCSR.
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.fx[24..28].try_into().expect("4 bytes"))
    }
}

/// An exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Vector number.
    pub vector: u8,
    /// Error code; 0 for vectors without one.
    pub error: u32,
    /// For #PF: the address; else 0.
    pub address: u64,
}

/// What became of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Registers afterwards.
    pub registers: Registers,
    /// RIP afterwards: of the next instruction or the faulting one.
    pub rip: u64,
    /// The exception raised.
    pub trap: Option<Trap>,
}
