//! Where the beam is: input status register 1 by guest time.

use super::regs::Regs;

/// Input status 1: not in the displayed area; in vertical retrace.
const BLANK: u8 = 1 << 0;
const VERTICAL_RETRACE: u8 = 1 << 3;

/// Dot clocks in kHz, by bits 2 and 3 of the miscellaneous output register; external ones are not there.
const CLOCKS_KHZ: [u64; 4] = [25_175, 28_322, 25_175, 28_322];

/// A frame of the mode that is set: lengths in dots and lines.
pub(super) struct Frame {
    /// Dots in a line, and of these displayed.
    pub dots: u64,
    pub displayed_dots: u64,
    /// Lines, of these displayed, and the line at which vertical retrace starts, with its length.
    pub lines: u64,
    pub displayed_lines: u64,
    pub retrace: u64,
    pub retrace_lines: u64,
    pub khz: u64,
}

/// Vertical display end: lines displayed, less one.
pub(super) fn vertical_display_end(regs: &Regs) -> u16 {
    let overflow = u16::from(regs.crtc[7]);
    u16::from(regs.crtc[0x12]) | (overflow & 0x02) << 7 | (overflow & 0x40) << 3
}

impl Frame {
    pub fn of(regs: &Regs) -> Frame {
        let crtc = |index: usize| u64::from(regs.crtc[index & 0x1f]);
        let overflow = crtc(7);
        let width = match (regs.seq[1] & 1, regs.seq[1] & 8) {
            (0, 0) => 9,
            (_, 0) => 8,
            (0, _) => 18,
            _ => 16,
        };
        let lines = (crtc(6) | (overflow & 0x01) << 8 | (overflow & 0x20) << 4) + 2;
        let retrace = crtc(0x10) | (overflow & 0x04) << 6 | (overflow & 0x80) << 2;
        // Four bits of the line at which retrace ends are kept.
        let length = (crtc(0x11).wrapping_sub(retrace) & 0xf).max(1);
        Frame {
            dots: (crtc(0) + 5) * width,
            displayed_dots: (crtc(1) + 1) * width,
            lines,
            displayed_lines: u64::from(vertical_display_end(regs)) + 1,
            retrace,
            retrace_lines: length,
            khz: CLOCKS_KHZ[usize::from(regs.misc >> 2 & 3)],
        }
    }
}

/// Input status register 1 at `now`.
pub(super) fn status(regs: &Regs, now: u64) -> u8 {
    let frame = Frame::of(regs);
    let total = frame.dots * frame.lines;
    // A nanosecond has khz / 10^6 dots.
    let dot = (u128::from(now) * u128::from(frame.khz) / 1_000_000 % u128::from(total)) as u64;
    let (line, column) = (dot / frame.dots, dot % frame.dots);
    let mut status = 0;
    if line >= frame.displayed_lines || column >= frame.displayed_dots {
        status |= BLANK;
    }
    // A retrace that is never reached would hold up who waits for it.
    let start = frame.retrace.min(frame.lines - 1);
    if (start..start + frame.retrace_lines).contains(&line) {
        status |= BLANK | VERTICAL_RETRACE;
    }
    status
}
