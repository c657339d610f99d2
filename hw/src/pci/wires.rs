//! What PCI functions are wired to: interrupt pins by the chipset's routing, older buses' lines, messages, timers.

use std::sync::{Arc, Mutex, MutexGuard};

use super::chipset::{Chipset, PIRQ_LINES};
use super::{COMMAND, COMMAND_INTX_DISABLE, DevFn, Function, INTERRUPT_PIN, MsiMessage, pirq};
use crate::fabric::{IrqInputs, IrqLine, IrqSink, Timer, lock};

/// ISA interrupt lines.
const ISA_LINES: u8 = 16;

/// Who carries interrupt messages.
pub(crate) trait MsiSink: Send + Sync {
    /// Carries `message` where its address leads.
    fn send(&self, message: MsiMessage);
}

/// What a board has for the functions on its bus.
pub(crate) struct BusWires {
    /// A line to an ISA interrupt.
    pub(crate) isa: Box<dyn Fn(u8) -> IrqLine + Send>,
    pub(crate) messages: Arc<dyn MsiSink>,
    /// The timer of the function at a place.
    pub(crate) timer: Box<dyn Fn(DevFn) -> Timer + Send>,
}

/// One of the chipset's lines and where it is routed to.
#[derive(Default)]
struct Routed {
    irq: Option<u8>,
    line: IrqLine,
}

/// The four lines that functions' pins lead to.
#[derive(Default)]
struct Pirqs(Mutex<[Routed; PIRQ_LINES]>);

impl Pirqs {
    fn lock(&self) -> MutexGuard<'_, [Routed; PIRQ_LINES]> {
        lock(&self.0)
    }
}

impl IrqSink for Pirqs {
    fn set_input(&self, input: u32, level: bool) {
        if let Some(routed) = self.lock().get_mut(input as usize) {
            routed.line.set(level);
        }
    }
}

/// The bus's side of its functions' handles.
pub(super) struct Wires {
    board: BusWires,
    pirqs: Arc<Pirqs>,
    inputs: IrqInputs,
}

impl Wires {
    pub(super) fn new(board: BusWires) -> Wires {
        let pirqs = Arc::new(Pirqs::default());
        let sink: Arc<dyn IrqSink> = pirqs.clone();
        Wires { board, pirqs, inputs: IrqInputs::new(&sink, PIRQ_LINES as u32) }
    }

    /// Leads the four lines where the chipset has them led now; their levels go along.
    pub(super) fn route(&self, chipset: &Chipset) {
        for (pirq, routed) in self.pirqs.lock().iter_mut().enumerate() {
            let irq = chipset.routed(pirq);
            if irq != routed.irq {
                let mut line = irq.map(&self.board.isa).unwrap_or_default();
                line.set(routed.line.level());
                *routed = Routed { irq, line };
            }
        }
    }

    /// Wires a function at `devfn`.
    pub(super) fn plug(&self, devfn: DevFn, function: Box<dyn Function>) -> Slot {
        let pin = function.config().u8(INTERRUPT_PIN).checked_sub(1);
        let mut slot = Slot {
            pin: pin.map(|pin| self.inputs.line(pirq(devfn, pin) as u32)).unwrap_or_default(),
            isa: (0..ISA_LINES).map(&self.board.isa).collect(),
            irqs: 0,
            timer: (self.board.timer)(devfn),
            messages: self.board.messages.clone(),
            function,
        };
        slot.drive();
        slot
    }
}

/// A function in its place, with what it is wired to.
pub(super) struct Slot {
    pub(super) function: Box<dyn Function>,
    pin: IrqLine,
    /// By number.
    isa: Vec<IrqLine>,
    /// Those of them that are high, a bit each.
    irqs: u16,
    timer: Timer,
    messages: Arc<dyn MsiSink>,
}

impl Slot {
    /// Does something with the function, then settles what it drives.
    pub(super) fn with<T>(&mut self, f: impl FnOnce(&mut dyn Function) -> T) -> T {
        let result = f(self.function.as_mut());
        self.drive();
        result
    }

    /// Brings the handles up to date with the function.
    pub(super) fn drive(&mut self) {
        let mut messages = Vec::new();
        self.function.take_msis(&mut messages);
        messages.into_iter().for_each(|message| self.messages.send(message));
        let enabled = self.function.config().u16(COMMAND) & COMMAND_INTX_DISABLE == 0;
        self.pin.set(enabled && self.function.intx());
        // This comes behind each access, and most functions drive none.
        let irqs = self.function.isa_irqs();
        let mut changed = std::mem::replace(&mut self.irqs, irqs) ^ irqs;
        while changed != 0 {
            let irq = changed.trailing_zeros();
            changed &= changed - 1;
            if let Some(line) = self.isa.get_mut(irq as usize) {
                line.set(irqs >> irq & 1 != 0);
            }
        }
        self.timer.set(self.function.next_deadline());
    }
}
