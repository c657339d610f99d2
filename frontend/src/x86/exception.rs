//! Exceptions (SDM vol. 3A, chapter 6).

use serde::{Deserialize, Serialize};

use super::state::Dr6;

/// Vectors of the exceptions.
#[allow(missing_docs)]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const XM: u8 = 19;
}

/// An exception not yet delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exception {
    /// Vector number.
    pub vector: u8,
    /// Error code, for the vectors that push one.
    pub error: Option<u32>,
    /// For #PF: the address for CR2. For #DB: its causes ([`Dr6`]). For #GP: not 0 if an address was not canonical, which may
    /// turn out to be #SS.
    pub address: u64,
}

impl Exception {
    /// An exception without error code.
    pub const fn plain(vector: u8) -> Exception {
        Exception { vector, error: None, address: 0 }
    }

    /// An exception with error code.
    pub const fn with_code(vector: u8, code: u32) -> Exception {
        Exception { vector, error: Some(code), address: 0 }
    }

    /// #GP.
    pub const fn gp(code: u32) -> Exception {
        Exception::with_code(vector::GP, code)
    }

    /// #GP(0) for an address that is not canonical.
    pub const fn non_canonical() -> Exception {
        Exception { vector: vector::GP, error: Some(0), address: 1 }
    }

    /// #DB.
    pub const fn debug(causes: Dr6) -> Exception {
        Exception { vector: vector::DB, error: None, address: causes.bits() }
    }

    /// #UD.
    pub const fn ud() -> Exception {
        Exception::plain(vector::UD)
    }

    /// #PF at linear address `addr`.
    pub const fn page_fault(addr: u64, code: u32) -> Exception {
        Exception { vector: vector::PF, error: Some(code), address: addr }
    }

    /// As held in a trap op: vector in bits 0..8, bit 8 whether there is an error code, the code in bits 32..64.
    pub const fn trap_code(self) -> u64 {
        match self.error {
            Some(code) => self.vector as u64 | 0x100 | (code as u64) << 32,
            None => self.vector as u64,
        }
    }

    /// From a trap op.
    pub const fn from_trap_code(code: u64) -> Exception {
        let error = if code & 0x100 != 0 { Some((code >> 32) as u32) } else { None };
        Exception { vector: code as u8, error, address: 0 }
    }
}

/// A trap code that is no exception: the instruction is started again, as after a lost compare-and-swap.
pub const RETRY: u64 = 1 << 9;
