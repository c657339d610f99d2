//! The 16550A serial port.
//!
//! Written here and not taken from vm-superio: its `Serial` has no transmit FIFO or trigger levels, reports no
//! time-out identification and raises its interrupt through an event trigger, while a PC guest sees a line level
//! (16550D data sheet, sections 8.1-8.7 and table II). On a PC of hardware OUT2 gates that line. Here it does not, as on QEMU,
//! which is all that some guests were ever run on: their drivers leave OUT2 alone.
//!
//! Transmission takes no time: a byte written to THR leaves within the same access. It is done in two steps so that the interrupt
//! line is seen low between them, as it is on the wire; an edge-triggered interrupt controller needs that edge.

use crate::fabric::{CharPort, Drives, IrqLine};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const FIFO_DEPTH: usize = 16;

const IER_RX: u8 = 1 << 0;
const IER_THRE: u8 = 1 << 1;
const IER_LSR: u8 = 1 << 2;
const IER_MSR: u8 = 1 << 3;

const IIR_NONE: u8 = 0x01;
const IIR_THRE: u8 = 0x02;
const IIR_RX: u8 = 0x04;
const IIR_LSR: u8 = 0x06;
const IIR_RX_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_RESET_RX: u8 = 1 << 1;
const FCR_RESET_TX: u8 = 1 << 2;

const LCR_DLAB: u8 = 1 << 7;

const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;

const LSR_DR: u8 = 1 << 0;
const LSR_OE: u8 = 1 << 1;
const LSR_BI: u8 = 1 << 4;
const LSR_THRE: u8 = 1 << 5;
const LSR_TEMT: u8 = 1 << 6;

const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;
const MSR_TERI: u8 = 1 << 2;

/// Where a serial port sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UartConfig {
    /// First of the eight I/O ports; 0 on a board that maps the registers into memory.
    pub(crate) base: u16,
    /// Interrupt line: ISA's, or a source of the board's interrupt controller.
    pub(crate) irq: u8,
}

/// A 16550A with instantaneous transmission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Uart {
    config: UartConfig,
    ier: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
    overrun: bool,
    /// High nibble: the modem inputs as last seen; low nibble: their changes since MSR was read.
    msr: u8,
    fifo_enabled: bool,
    trigger: u8,
    rx: VecDeque<u8>,
    /// Which of the bytes in `rx` are breaks, bit by place.
    breaks: u16,
    tx: Option<u8>,
    /// The THRE interrupt has been raised and neither IIR nor THR has taken it back.
    thre_interrupt: bool,
    /// It was raised since the interrupt line was told of it.
    thre_new: bool,
}

/// What a serial port is wired to.
pub(crate) struct UartHandles {
    pub(crate) irq: IrqLine,
    pub(crate) port: CharPort,
}

impl Drives for Uart {
    type Handles = UartHandles;

    fn drive(&mut self, handles: &mut UartHandles) {
        self.drive_irq(&mut handles.irq);
        if self.tx.is_some() {
            if let Some(byte) = self.transmit() {
                handles.port.send(&[byte]);
            }
            self.drive_irq(&mut handles.irq);
        }
    }
}

impl Uart {
    pub(crate) fn new(config: UartConfig) -> Self {
        Uart {
            config,
            ier: 0,
            lcr: 0,
            // What firmware would leave, and QEMU begins with.
            mcr: MCR_OUT2,
            scr: 0,
            // 9600 baud, what firmware leaves behind.
            divisor: 12,
            overrun: false,
            msr: MSR_CTS | MSR_DSR | MSR_DCD,
            fifo_enabled: false,
            trigger: 1,
            rx: VecDeque::new(),
            breaks: 0,
            tx: None,
            thre_interrupt: false,
            thre_new: false,
        }
    }

    pub(crate) fn config(&self) -> UartConfig {
        self.config
    }

    /// Master reset: every register to its reset value (data sheet, table I).
    pub(crate) fn reset(&mut self) {
        *self = Uart::new(self.config);
    }

    /// Whether a restored state keeps to the FIFO's bound.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.rx.len() <= FIFO_DEPTH && u32::from(self.breaks) >> self.rx.len() == 0
    }

    /// Bytes that can be received now without an overrun. None in loopback mode, where SIN is disconnected.
    pub(crate) fn room(&self) -> usize {
        if self.mcr & MCR_LOOP != 0 { 0 } else { self.depth().saturating_sub(self.rx.len()) }
    }

    /// Receives as many of `bytes` as fit and returns how many that were.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.rx.extend(bytes.iter().take(count));
        count
    }

    /// Receives a break: a byte of zeros that LSR tells from others (8.6.3, bit 4), lost where there is no room.
    pub(crate) fn receive_break(&mut self) {
        if self.room() != 0 {
            self.breaks |= 1 << self.rx.len();
            self.rx.push_back(0);
        }
    }

    fn clear_rx(&mut self) {
        self.rx.clear();
        self.breaks = 0;
    }

    /// Sends the byte that waits in THR, if any, and raises the THRE interrupt. Returns the byte unless the loop
    /// carried it back to the receiver.
    fn transmit(&mut self) -> Option<u8> {
        let byte = self.tx.take()?;
        self.raise_thre();
        if self.mcr & MCR_LOOP == 0 {
            return Some(byte);
        }
        self.loop_back(byte);
        None
    }

    /// The level of the interrupt line.
    fn irq(&self) -> bool {
        self.interrupt() != IIR_NONE
    }

    /// Drives the interrupt line. The interrupt of the empty THR, and nothing else, asks once: a driver that never reads IIR takes it
    /// back only by sending more.
    fn drive_irq(&mut self, line: &mut IrqLine) {
        if self.interrupt() == IIR_THRE {
            line.request_once(std::mem::take(&mut self.thre_new));
        } else {
            line.set(self.irq());
        }
    }

    fn raise_thre(&mut self) {
        (self.thre_interrupt, self.thre_new) = (true, true);
    }

    pub(crate) fn read(&mut self, offset: u8) -> u8 {
        let dlab = self.lcr & LCR_DLAB != 0;
        match offset & 7 {
            0 if dlab => self.divisor.to_le_bytes()[0],
            0 => {
                self.breaks >>= 1;
                self.rx.pop_front().unwrap_or(0)
            }
            1 if dlab => self.divisor.to_le_bytes()[1],
            1 => self.ier,
            2 => self.read_iir(),
            3 => self.lcr,
            4 => self.mcr,
            5 => self.read_lsr(),
            6 => {
                let msr = self.msr;
                self.msr &= 0xf0;
                msr
            }
            _ => self.scr,
        }
    }

    pub(crate) fn write(&mut self, offset: u8, value: u8) {
        let dlab = self.lcr & LCR_DLAB != 0;
        let [low, high] = self.divisor.to_le_bytes();
        match offset & 7 {
            0 if dlab => self.divisor = u16::from_le_bytes([value, high]),
            0 => {
                self.thre_interrupt = false;
                self.tx = Some(value);
            }
            1 if dlab => self.divisor = u16::from_le_bytes([low, value]),
            1 => self.write_ier(value),
            2 => self.write_fcr(value),
            3 => self.lcr = value,
            4 => {
                self.mcr = value & 0x1f;
                self.update_modem_inputs();
            }
            7 => self.scr = value,
            // LSR and MSR: writing them is for factory tests (8.6.3).
            _ => {}
        }
    }

    fn depth(&self) -> usize {
        if self.fifo_enabled { FIFO_DEPTH } else { 1 }
    }

    fn loop_back(&mut self, byte: u8) {
        if self.rx.len() >= self.depth() {
            self.overrun = true;
            // Without FIFOs the new character destroys the old one; with them the new one is lost (8.6.3, bit 1).
            if self.fifo_enabled {
                return;
            }
            self.clear_rx();
        }
        self.rx.push_back(byte);
    }

    /// The interrupt identification by priority (table IV), without the FIFO bits.
    fn interrupt(&self) -> u8 {
        if self.ier & IER_LSR != 0 && (self.overrun || self.breaks & 1 != 0) {
            IIR_LSR
        } else if self.ier & IER_RX != 0 && !self.rx.is_empty() {
            // The host delivers in bursts, so a FIFO below its trigger level has already seen its time-out.
            if !self.fifo_enabled || self.rx.len() >= usize::from(self.trigger) { IIR_RX } else { IIR_RX_TIMEOUT }
        } else if self.ier & IER_THRE != 0 && self.thre_interrupt {
            IIR_THRE
        } else if self.ier & IER_MSR != 0 && self.msr & 0x0f != 0 {
            0
        } else {
            IIR_NONE
        }
    }

    fn read_iir(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == IIR_THRE {
            self.thre_interrupt = false;
        }
        interrupt | if self.fifo_enabled { IIR_FIFOS } else { 0 }
    }

    fn read_lsr(&mut self) -> u8 {
        let mut lsr = 0;
        if !self.rx.is_empty() {
            lsr |= LSR_DR;
        }
        if std::mem::take(&mut self.overrun) {
            lsr |= LSR_OE;
        }
        // Told once, when the break is the next byte to be read.
        if self.breaks & 1 != 0 {
            self.breaks &= !1;
            lsr |= LSR_BI;
        }
        if self.tx.is_none() {
            lsr |= LSR_THRE | LSR_TEMT;
        }
        lsr
    }

    fn write_ier(&mut self, value: u8) {
        let value = value & 0x0f;
        if value & !self.ier & IER_THRE != 0 && self.tx.is_none() {
            self.raise_thre();
        }
        self.ier = value;
    }

    fn write_fcr(&mut self, value: u8) {
        let enable = value & FCR_ENABLE != 0;
        if enable != self.fifo_enabled || value & FCR_RESET_RX != 0 {
            self.clear_rx();
        }
        if enable != self.fifo_enabled || value & FCR_RESET_TX != 0 {
            self.tx = None;
            // It is empty, which is told again, as on QEMU.
            self.thre_interrupt = self.ier & IER_THRE != 0;
        }
        self.fifo_enabled = enable;
        self.trigger = [1, 4, 8, 14][usize::from(value >> 6)];
    }

    fn update_modem_inputs(&mut self) {
        let inputs = if self.mcr & MCR_LOOP != 0 {
            // The loop connects the modem outputs to the inputs (8.6.4).
            [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)]
                .iter()
                .filter(|(output, _)| self.mcr & output != 0)
                .fold(0, |inputs, (_, input)| inputs | input)
        } else {
            MSR_CTS | MSR_DSR | MSR_DCD
        };
        let old = self.msr & 0xf0;
        // RI reports its trailing edge only (8.6.7, bit 2).
        let mut changes = ((old ^ inputs) >> 4) & !MSR_TERI;
        if old & !inputs & MSR_RI != 0 {
            changes |= MSR_TERI;
        }
        self.msr = inputs | (self.msr & 0x0f) | changes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const IER: u8 = 1;
    const IIR: u8 = 2;
    const FCR: u8 = 2;
    const LCR: u8 = 3;
    const MCR: u8 = 4;
    const LSR: u8 = 5;
    const MSR: u8 = 6;
    const SCR: u8 = 7;

    fn uart() -> Uart {
        Uart::new(UartConfig { base: 0x3f8, irq: 4 })
    }

    #[test]
    fn transmit_delivers_and_reports_empty() {
        let mut u = uart();
        assert_eq!(u.read(LSR), LSR_THRE | LSR_TEMT);
        u.write(DATA, b'x');
        assert_eq!(u.read(LSR) & LSR_THRE, 0);
        assert_eq!(u.transmit(), Some(b'x'));
        assert_eq!(u.transmit(), None);
        assert_eq!(u.read(LSR), LSR_THRE | LSR_TEMT);
    }

    #[test]
    fn thre_interrupt_comes_on_enable_and_goes_on_iir_read() {
        let mut u = uart();
        u.write(MCR, MCR_OUT2);
        assert!(!u.irq());
        u.write(IER, IER_THRE);
        assert!(u.irq());
        assert_eq!(u.read(IIR), IIR_THRE);
        assert!(!u.irq());
        assert_eq!(u.read(IIR), IIR_NONE);
        // Enabling what is enabled raises nothing.
        u.write(IER, IER_THRE);
        assert!(!u.irq());
        u.write(DATA, 1);
        assert!(!u.irq());
        u.transmit();
        assert!(u.irq());
        // Writing THR takes the interrupt back as well.
        u.write(DATA, 2);
        assert!(!u.irq());
    }

    #[test]
    fn reading_iir_for_a_higher_source_keeps_thre() {
        let mut u = uart();
        u.write(IER, IER_THRE | IER_RX);
        u.receive(b"a");
        assert_eq!(u.read(IIR), IIR_RX);
        assert_eq!(u.read(DATA), b'a');
        assert_eq!(u.read(IIR), IIR_THRE);
    }

    #[test]
    fn receive_fifo_has_trigger_level_and_timeout() {
        let mut u = uart();
        u.write(IER, IER_RX);
        assert_eq!(u.room(), 1);
        u.write(FCR, 0x81);
        assert_eq!(u.room(), 16);
        assert_eq!(u.receive(b"1234567"), 7);
        assert_eq!(u.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
        assert_eq!(u.receive(b"89abcdefghij"), 9);
        assert_eq!(u.room(), 0);
        assert_eq!(u.read(IIR), IIR_FIFOS | IIR_RX);
        let got: Vec<u8> = (0..16).map(|_| u.read(DATA)).collect();
        assert_eq!(got, b"123456789abcdefg");
        assert_eq!(u.read(LSR) & LSR_DR, 0);
        assert_eq!(u.read(IIR), IIR_FIFOS | IIR_NONE);
    }

    #[test]
    fn a_break_is_told_when_it_is_next() {
        let mut u = uart();
        u.write(FCR, FCR_ENABLE);
        u.write(IER, IER_LSR | IER_RX);
        u.receive(b"a");
        u.receive_break();
        u.receive(b"b");
        assert_eq!((u.read(LSR) & LSR_BI, u.read(IIR)), (0, IIR_FIFOS | IIR_RX));
        assert_eq!((u.read(DATA), u.read(IIR)), (b'a', IIR_FIFOS | IIR_LSR));
        assert_eq!((u.read(LSR) & (LSR_BI | LSR_DR), u.read(LSR) & LSR_BI), (LSR_BI | LSR_DR, 0));
        assert_eq!([u.read(DATA), u.read(DATA)], [0, b'b']);
        (0..40).for_each(|_| u.receive_break());
        assert!(u.is_well_formed());
        assert_eq!((0..40).filter(|_| u.read(LSR) & LSR_BI != 0 && u.read(DATA) == 0).count(), FIFO_DEPTH);
        u.receive_break();
        u.write(FCR, FCR_ENABLE | FCR_RESET_RX);
        assert_eq!((u.read(LSR) & LSR_BI, u.read(IIR)), (0, IIR_FIFOS | IIR_NONE));
    }

    #[test]
    fn fcr_resets_and_disabling_empties() {
        let mut u = uart();
        u.write(FCR, FCR_ENABLE);
        u.receive(b"abc");
        u.write(FCR, FCR_ENABLE | FCR_RESET_RX);
        assert_eq!(u.read(LSR) & LSR_DR, 0);
        u.receive(b"abc");
        u.write(FCR, 0);
        assert_eq!(u.read(LSR) & LSR_DR, 0);
        assert_eq!(u.read(IIR) & IIR_FIFOS, 0);
    }

    #[test]
    fn dlab_reaches_the_divisor() {
        let mut u = uart();
        u.write(LCR, LCR_DLAB | 3);
        u.write(DATA, 0x34);
        u.write(IER, 0x12);
        assert_eq!((u.read(DATA), u.read(IER)), (0x34, 0x12));
        u.write(LCR, 3);
        assert_eq!((u.read(IER), u.read(LCR)), (0, 3));
        assert_eq!(u.transmit(), None);
    }

    #[test]
    fn loopback_connects_modem_lines_and_data() {
        let mut u = uart();
        u.write(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
        assert_eq!(u.read(MSR) & 0xf0, MSR_DCD | MSR_CTS);
        assert_eq!(u.room(), 0);
        u.write(IER, IER_RX);
        u.write(DATA, 0x5a);
        assert_eq!(u.transmit(), None);
        assert!(u.irq());
        assert_eq!(u.read(DATA), 0x5a);
        u.write(DATA, 1);
        u.transmit();
        u.write(DATA, 2);
        u.transmit();
        assert_eq!(u.read(LSR) & (LSR_OE | LSR_DR), LSR_OE | LSR_DR);
        assert_eq!(u.read(LSR) & LSR_OE, 0, "reading LSR clears the error");
        assert_eq!(u.read(DATA), 2, "without FIFOs the newer character wins");
    }

    #[test]
    fn modem_changes_interrupt_until_msr_is_read() {
        let mut u = uart();
        u.write(IER, IER_MSR);
        u.write(MCR, MCR_LOOP | MCR_OUT1);
        assert_eq!(u.read(IIR), 0);
        // CTS, DSR and DCD went away; RI rose, which is no event.
        assert_eq!(u.read(MSR), MSR_RI | 0x0b);
        assert_eq!(u.read(IIR), IIR_NONE);
        u.write(MCR, MCR_LOOP);
        assert_eq!(u.read(MSR), MSR_TERI);
    }

    /// As on QEMU, also where OUT2 is set at reset.
    #[test]
    fn out2_gates_nothing() {
        let mut u = uart();
        assert_eq!(u.read(MCR), MCR_OUT2);
        for mcr in [MCR_OUT2, 0, MCR_LOOP] {
            u.write(MCR, 0);
            u.write(IER, IER_RX);
            u.receive(b"a");
            u.write(MCR, mcr);
            assert!(u.irq(), "{mcr:#x}");
            u.read(DATA);
            assert!(!u.irq(), "{mcr:#x}");
        }
    }

    #[test]
    fn probes_for_later_models_fail() {
        let mut u = uart();
        u.write(IER, 0xff);
        assert_eq!(u.read(IER), 0x0f);
        u.write(SCR, 0xae);
        assert_eq!(u.read(SCR), 0xae);
        u.write(FCR, FCR_ENABLE | 0x20);
        assert_eq!(u.read(IIR) & 0x20, 0, "not a 16750");
        u.write(LCR, 0xbf);
        assert_ne!(u.read(2), 0, "not a 16650");
    }

    #[test]
    fn state_round_trips() {
        let mut u = uart();
        u.write(FCR, 0x41);
        u.write(IER, 0x0f);
        u.receive(b"hello");
        u.write(DATA, b'z');
        let bytes = postcard::to_stdvec(&u).unwrap();
        let mut back: Uart = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, u);
        assert_eq!(back.transmit(), Some(b'z'));
        assert_eq!(back.read(DATA), b'h');
    }
}
