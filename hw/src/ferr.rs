//! How a PC tells of x87 exceptions where CR0.NE is 0: FERR# sets off interrupt 13, and a write to port 0xf0 ends it and has
//! IGNNE# tell the processor to go on until FERR# is released (SDM vol. 1, D.2.1.2; 82371SB data sheet, coprocessor error).

use crate::fabric::{Drives, IrqLine};
use serde::{Deserialize, Serialize};

/// The interrupt line.
pub(crate) const FERR_IRQ: u8 = 13;
/// The port that ends the interrupt, whatever is written to it.
pub(crate) const FERR_PORT: u16 = 0xf0;

/// The latch between FERR#, IGNNE# and the interrupt line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FerrLatch {
    ferr: bool,
    ignne: bool,
    irq: bool,
}

impl Drives for FerrLatch {
    type Handles = IrqLine;

    fn drive(&mut self, line: &mut IrqLine) {
        line.set(self.irq);
    }
}

impl FerrLatch {
    /// Drives FERR#; whether IGNNE# is driven.
    pub(crate) fn set_ferr(&mut self, asserted: bool) -> bool {
        self.irq |= asserted && !self.ferr;
        self.ferr = asserted;
        self.ignne &= asserted;
        self.ignne
    }

    /// A write to [`FERR_PORT`].
    pub(crate) fn write(&mut self) {
        self.irq = false;
        self.ignne = self.ferr;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_interrupts_once_and_is_ignored_from_the_write_to_its_end() {
        let mut latch = FerrLatch::default();
        assert!(!latch.set_ferr(true) && latch.irq);
        assert!(!latch.set_ferr(true), "told again");
        latch.write();
        assert_eq!((latch.irq, latch.set_ferr(true), latch.irq), (false, true, false));
        assert!(!latch.set_ferr(false));
        assert!(!latch.set_ferr(true) && latch.irq, "the next one");
        latch.set_ferr(false);
        assert!(latch.irq, "only the write ends the interrupt");
        latch.write();
        assert!(!latch.irq && !latch.set_ferr(true), "without an error nothing is ignored");
    }
}
