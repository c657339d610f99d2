//! The two cascaded 8259A interrupt controllers (8259A data sheet; edge/level registers from the 82371SB data sheet,
//! section 2.5.6).

use serde::{Deserialize, Serialize};

/// The master's input that carries the slave's output.
const CASCADE: u8 = 2;

/// What the next byte at the data port means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    Ready,
    Icw2,
    Icw3,
    Icw4,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chip {
    /// Edges seen and not yet acknowledged.
    edges: u8,
    lines: u8,
    imr: u8,
    isr: u8,
    /// Inputs that are level-triggered, and which of them may be.
    elcr: u8,
    elcr_mask: u8,
    vector_base: u8,
    /// The input with the highest priority.
    top: u8,
    step: Step,
    needs_icw3: bool,
    needs_icw4: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    special_fully_nested: bool,
    reads_isr: bool,
    poll: bool,
}

impl Chip {
    fn new(elcr_mask: u8) -> Self {
        Chip {
            edges: 0,
            lines: 0,
            imr: 0,
            isr: 0,
            elcr: 0,
            elcr_mask,
            vector_base: 0,
            top: 0,
            step: Step::Ready,
            needs_icw3: false,
            needs_icw4: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_mask: false,
            special_fully_nested: false,
            reads_isr: false,
            poll: false,
        }
    }

    fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << (input & 7);
        if level {
            self.edges |= bit & !self.lines;
            self.lines |= bit;
        } else {
            // A request must stay high until it is acknowledged ("IR must remain high until after the falling edge of
            // the first INTA").
            self.edges &= !bit;
            self.lines &= !bit;
        }
    }

    fn irr(&self) -> u8 {
        (self.edges & !self.elcr) | (self.lines & self.elcr)
    }

    /// The highest-priority input among `bits`.
    fn highest(&self, bits: u8) -> Option<u8> {
        (0..8).map(|rank| self.top.wrapping_add(rank) & 7).find(|input| bits & (1 << input) != 0)
    }

    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.top) & 7
    }

    /// The input that the chip would have serviced now.
    fn request(&self) -> Option<u8> {
        let input = self.highest(self.irr() & !self.imr)?;
        let mut in_service = self.isr;
        if self.special_mask {
            in_service &= !self.imr;
        }
        if self.special_fully_nested {
            in_service &= !(1 << CASCADE);
        }
        match self.highest(in_service) {
            Some(serviced) if self.rank(serviced) <= self.rank(input) => None,
            _ => Some(input),
        }
    }

    /// Moves `input` into service.
    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        self.edges &= !bit;
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.top = (input + 1) & 7;
        }
    }

    fn end_of_interrupt(&mut self, input: u8, rotate: bool) {
        self.isr &= !(1 << input);
        if rotate {
            self.top = (input + 1) & 7;
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            // ICW1. The level bit is ignored: ELCR decides, input by input.
            let elcr = self.elcr;
            *self = Chip { elcr, lines: self.lines, vector_base: self.vector_base, ..Chip::new(self.elcr_mask) };
            self.step = Step::Icw2;
            self.needs_icw3 = value & 2 == 0;
            self.needs_icw4 = value & 1 != 0;
        } else if value & 0x08 != 0 {
            // OCW3
            if value & 0x40 != 0 {
                self.special_mask = value & 0x20 != 0;
            }
            if value & 0x02 != 0 {
                self.reads_isr = value & 0x01 != 0;
            }
            self.poll = value & 0x04 != 0;
        } else {
            self.write_ocw2(value);
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let input = value & 7;
        let rotate = value & 0x80 != 0;
        match value >> 5 {
            0 => self.rotate_on_auto_eoi = false,
            4 => self.rotate_on_auto_eoi = true,
            1 | 5 => {
                // Non-specific: the highest in service. In special mask mode it does not clear a masked bit.
                let candidates = if self.special_mask { self.isr & !self.imr } else { self.isr };
                if let Some(serviced) = self.highest(candidates) {
                    self.end_of_interrupt(serviced, rotate);
                }
            }
            3 | 7 => self.end_of_interrupt(input, rotate),
            6 => self.top = (input + 1) & 7,
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        self.step = match self.step {
            Step::Ready => {
                self.imr = value;
                Step::Ready
            }
            Step::Icw2 => {
                self.vector_base = value & 0xf8;
                match (self.needs_icw3, self.needs_icw4) {
                    (true, _) => Step::Icw3,
                    (false, true) => Step::Icw4,
                    (false, false) => Step::Ready,
                }
            }
            // The cascade wiring is fixed.
            Step::Icw3 if self.needs_icw4 => Step::Icw4,
            Step::Icw3 => Step::Ready,
            Step::Icw4 => {
                self.auto_eoi = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                Step::Ready
            }
        };
    }

    /// Reads either port; `data` tells which. Returns the input acknowledged by a poll, too.
    fn read(&mut self, data: bool) -> (u8, Option<u8>) {
        if std::mem::take(&mut self.poll) {
            return match self.request() {
                Some(input) => {
                    self.acknowledge(input);
                    (0x80 | input, Some(input))
                }
                None => (0, None),
            };
        }
        let value = match (data, self.reads_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        };
        (value, None)
    }
}

/// The interrupt controllers of a PC/AT: inputs 0-7 on the master, 8-15 on the slave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pic {
    master: Chip,
    slave: Chip,
}

impl Pic {
    pub(crate) fn new() -> Self {
        // Timer, keyboard, cascade, RTC and FPU can not be level-triggered.
        Pic { master: Chip::new(0xf8), slave: Chip::new(0xde) }
    }

    /// Both chips as lines of text, as QEMU's monitor has them.
    pub(crate) fn text(&self) -> String {
        let chip = |(number, chip): (u8, &Chip)| {
            let Chip { edges, lines, imr, isr, elcr, vector_base, top, special_fully_nested, .. } = chip;
            let requests = edges | lines & elcr;
            format!(
                "pic{number}: irr={requests:02x} imr={imr:02x} isr={isr:02x} hprio={top} irq_base={vector_base:02x} \
                 elcr={elcr:02x} fnm={}\n",
                u8::from(*special_fully_nested)
            )
        };
        [(1, &self.slave), (0, &self.master)].into_iter().map(chip).collect()
    }

    /// Drives ISA interrupt line `irq` (0-15).
    pub(crate) fn set_irq(&mut self, irq: u8, level: bool) {
        if irq & 8 != 0 {
            self.slave.set_line(irq, level);
            self.update_cascade();
        } else if irq != CASCADE {
            self.master.set_line(irq, level);
        }
    }

    /// The level of INTR.
    pub(crate) fn output(&self) -> bool {
        self.master.request().is_some()
    }

    /// Runs an interrupt acknowledge cycle and returns the vector; input 7's vector when the request is gone.
    pub(crate) fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.request() else {
            return self.master.vector_base | 7;
        };
        self.master.acknowledge(input);
        if input != CASCADE {
            return self.master.vector_base | input;
        }
        let slave_input = self.slave.request();
        if let Some(slave_input) = slave_input {
            self.slave.acknowledge(slave_input);
        }
        self.pulse_cascade();
        self.slave.vector_base | slave_input.unwrap_or(7)
    }

    /// Reads port 0x20, 0x21, 0xa0, 0xa1, 0x4d0 or 0x4d1.
    pub(crate) fn read(&mut self, port: u16) -> u8 {
        let data = port & 1 != 0;
        match port {
            0x20 | 0x21 => {
                let (value, polled) = self.master.read(data);
                if polled == Some(CASCADE) {
                    self.pulse_cascade();
                }
                value
            }
            0xa0 | 0xa1 => {
                let (value, polled) = self.slave.read(data);
                if polled.is_some() {
                    self.pulse_cascade();
                }
                value
            }
            0x4d0 => self.master.elcr,
            0x4d1 => self.slave.elcr,
            _ => 0xff,
        }
    }

    /// Writes one of the ports of [`Pic::read`].
    pub(crate) fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 => self.master.write_command(value),
            0x21 => self.master.write_data(value),
            0xa0 => self.slave.write_command(value),
            0xa1 => self.slave.write_data(value),
            0x4d0 => self.master.elcr = value & self.master.elcr_mask,
            0x4d1 => self.slave.elcr = value & self.slave.elcr_mask,
            _ => {}
        }
        if port == 0x20 && value & 0x10 != 0 {
            // ICW1 forgot the edge of a slave that still requests; its output is what the master sees next.
            self.pulse_cascade();
        }
        self.update_cascade();
    }

    fn update_cascade(&mut self) {
        let level = self.slave.request().is_some();
        self.master.set_line(CASCADE, level);
    }

    /// The slave drops its output for an acknowledge and raises it again for the next request, an edge to the master.
    fn pulse_cascade(&mut self) {
        self.master.set_line(CASCADE, false);
        self.update_cascade();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both chips as an operating system sets them up: vectors 0x30 and 0x38, everything unmasked.
    fn pic(icw4: u8) -> Pic {
        let mut pic = Pic::new();
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 0x04),
            (0x21, icw4),
            (0xa0, 0x11),
            (0xa1, 0x38),
            (0xa1, 0x02),
            (0xa1, icw4),
            (0x21, 0),
            (0xa1, 0),
        ] {
            pic.write(port, value);
        }
        pic
    }

    fn isr(pic: &mut Pic, port: u16) -> u8 {
        pic.write(port, 0x0b);
        pic.read(port)
    }

    #[test]
    fn fixed_priority_and_nesting() {
        let mut p = pic(1);
        p.set_irq(4, true);
        p.set_irq(1, true);
        assert_eq!(p.acknowledge(), 0x31);
        assert!(!p.output(), "a lower request waits");
        p.set_irq(0, true);
        assert_eq!(p.acknowledge(), 0x30);
        assert_eq!(isr(&mut p, 0x20), 0b11);
        p.write(0x20, 0x20);
        assert_eq!(isr(&mut p, 0x20), 0b10);
        p.write(0x20, 0x61);
        assert_eq!(p.acknowledge(), 0x34);
    }

    #[test]
    fn edge_needs_a_new_rise() {
        let mut p = pic(1);
        p.set_irq(3, true);
        assert_eq!(p.acknowledge(), 0x33);
        p.write(0x20, 0x20);
        assert!(!p.output());
        p.set_irq(3, true);
        assert!(!p.output());
        p.set_irq(3, false);
        p.set_irq(3, true);
        assert!(p.output());
    }

    #[test]
    fn level_input_repeats_while_high() {
        let mut p = pic(1);
        p.write(0x4d1, 0xff);
        assert_eq!(p.read(0x4d1), 0xde);
        p.set_irq(9, true);
        for _ in 0..3 {
            assert_eq!(p.acknowledge(), 0x39);
            p.write(0xa0, 0x20);
            p.write(0x20, 0x20);
        }
        p.set_irq(9, false);
        assert!(!p.output());
    }

    #[test]
    fn slave_goes_through_the_cascade() {
        let mut p = pic(1);
        p.set_irq(8, true);
        p.set_irq(12, true);
        assert_eq!(p.acknowledge(), 0x38);
        assert_eq!((isr(&mut p, 0x20), isr(&mut p, 0xa0)), (1 << 2, 1));
        assert!(!p.output());
        p.write(0xa0, 0x20);
        assert!(!p.output(), "the cascade input is in service");
        p.write(0x20, 0x20);
        assert_eq!(p.acknowledge(), 0x3c);
    }

    #[test]
    fn special_fully_nested_lets_the_slave_nest() {
        let mut p = pic(0x11);
        p.set_irq(12, true);
        assert_eq!(p.acknowledge(), 0x3c);
        p.set_irq(8, true);
        assert_eq!(p.acknowledge(), 0x38);
    }

    #[test]
    fn vanished_requests_are_spurious() {
        let mut p = pic(1);
        p.set_irq(5, true);
        p.set_irq(5, false);
        assert!(!p.output());
        assert_eq!(p.acknowledge(), 0x37);
        assert_eq!(isr(&mut p, 0x20), 0, "a spurious vector is not in service");
        // A slave request that is masked between the master's latch and the acknowledge.
        p.set_irq(10, true);
        p.slave.imr = 0xff;
        assert_eq!(p.acknowledge(), 0x3f);
        assert_eq!((isr(&mut p, 0x20), isr(&mut p, 0xa0)), (1 << 2, 0));
    }

    #[test]
    fn automatic_eoi_and_rotation() {
        let mut p = pic(3);
        p.write(0x20, 0x80);
        p.set_irq(0, true);
        p.set_irq(1, true);
        assert_eq!(p.acknowledge(), 0x30);
        assert_eq!(isr(&mut p, 0x20), 0);
        p.set_irq(0, false);
        p.set_irq(0, true);
        assert_eq!(p.acknowledge(), 0x31, "0 is now the lowest");
        assert_eq!(p.acknowledge(), 0x30);
    }

    #[test]
    fn slave_with_automatic_eoi_keeps_requesting() {
        let mut p = pic(3);
        p.set_irq(8, true);
        p.set_irq(9, true);
        assert_eq!(p.acknowledge(), 0x38);
        assert_eq!(p.acknowledge(), 0x39);
        assert!(!p.output());
    }

    #[test]
    fn rotation_commands() {
        let mut p = pic(1);
        p.write(0x20, 0xc3);
        p.set_irq(3, true);
        p.set_irq(4, true);
        assert_eq!(p.acknowledge(), 0x34, "3 is the lowest, so 4 the highest");
        p.write(0x20, 0xa0);
        p.set_irq(4, false);
        p.set_irq(4, true);
        p.set_irq(5, true);
        assert_eq!(p.acknowledge(), 0x35);
        p.write(0x20, 0xe5);
        p.set_irq(6, true);
        assert_eq!(p.acknowledge(), 0x36);
    }

    #[test]
    fn special_mask_enables_lower_levels() {
        let mut p = pic(1);
        p.set_irq(1, true);
        p.acknowledge();
        p.set_irq(6, true);
        assert!(!p.output());
        p.write(0x21, 1 << 1);
        p.write(0x20, 0x68);
        assert_eq!(p.acknowledge(), 0x36);
        p.write(0x20, 0x48);
        assert_eq!(p.read(0x21), 2);
    }

    #[test]
    fn poll_acknowledges() {
        let mut p = pic(1);
        p.write(0x20, 0x0c);
        assert_eq!(p.read(0x20), 0);
        p.set_irq(6, true);
        p.write(0x20, 0x0c);
        assert_eq!(p.read(0x20), 0x86);
        assert_eq!(isr(&mut p, 0x20), 1 << 6);
        p.set_irq(15, true);
        p.write(0xa0, 0x0c);
        assert_eq!(p.read(0xa0), 0x87);
        assert!(!p.output());
    }

    #[test]
    fn masked_request_waits_and_initialisation_clears() {
        let mut p = pic(1);
        p.write(0x21, 0xff);
        p.set_irq(3, true);
        assert!(!p.output());
        p.write(0x20, 0x0a);
        assert_eq!(p.read(0x20), 1 << 3);
        p.write(0x21, 0);
        assert!(p.output());
        p.write(0x20, 0x13);
        p.write(0x21, 0x40);
        p.write(0x21, 0x01);
        assert!(!p.output(), "ICW1 resets the edge detectors");
        assert_eq!(p.read(0x21), 0);
        p.set_irq(7, true);
        assert_eq!(p.acknowledge(), 0x47);
    }

    #[test]
    fn state_round_trips() {
        let mut p = pic(1);
        p.set_irq(9, true);
        p.acknowledge();
        p.set_irq(1, true);
        p.write(0x20, 0x11);
        let mut back: Pic = postcard::from_bytes(&postcard::to_stdvec(&p).unwrap()).unwrap();
        assert_eq!(back, p);
        for chip in [&mut back, &mut p] {
            chip.write(0x21, 0x50);
            chip.write(0x21, 0x04);
            chip.write(0x21, 0x01);
        }
        assert_eq!(back, p);
    }
}
