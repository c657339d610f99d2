//! Tests of the screen in a terminal: what is drawn, and which keys are typed.

use std::sync::Arc;

use mimus_hw::vga::{VRAM_SIZE, Vga};
use mimus_softmmu::{DirtyPages, Vram};

use super::*;

/// A terminal: what it understands is what is sent to it here.
struct Terminal {
    columns: usize,
    cells: Vec<(char, String)>,
    cursor: (usize, usize),
    colours: String,
    cursor_shown: bool,
}

impl Terminal {
    fn new(columns: usize, rows: usize) -> Terminal {
        let cells = vec![(' ', "0".to_owned()); columns * rows];
        Terminal { columns, cells, cursor: (0, 0), colours: "0".into(), cursor_shown: true }
    }

    fn receive(&mut self, text: &str) {
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '\x1b' {
                self.cells[self.cursor.1 * self.columns + self.cursor.0] = (character, self.colours.clone());
                self.cursor.0 += 1;
                continue;
            }
            assert_eq!(characters.next(), Some('['));
            let sequence: String = characters.by_ref().take_while_inclusive();
            let (parameters, last) = sequence.split_at(sequence.len() - 1);
            match (last, parameters) {
                ("m", colours) => self.colours = colours.to_owned(),
                ("J", "2") => self.cells.fill((' ', "0".to_owned())),
                ("H", place) => {
                    let (row, column) = place.split_once(';').expect("row and column");
                    let number = |text: &str| text.parse::<usize>().expect("a number") - 1;
                    self.cursor = (number(column), number(row));
                }
                ("h", "?25") => self.cursor_shown = true,
                ("l", "?25") => self.cursor_shown = false,
                other => panic!("{other:?}"),
            }
        }
    }

    fn row(&self, y: usize) -> String {
        self.cells[y * self.columns..(y + 1) * self.columns].iter().map(|(character, _)| *character).collect()
    }
}

/// Characters up to the one that ends a sequence.
trait TakeSequence {
    fn take_while_inclusive(self) -> String;
}

impl<I: Iterator<Item = char>> TakeSequence for I {
    fn take_while_inclusive(self) -> String {
        let mut text = String::new();
        for character in self {
            text.push(character);
            if ('@'..='~').contains(&character) {
                break;
            }
        }
        text
    }
}

struct Machine {
    vga: Vga,
    screen: Screen,
}

impl Machine {
    fn new() -> Machine {
        let mut vga = Vga::new(Arc::new(Vram::new(VRAM_SIZE as usize).expect("16 MiB")));
        vga.set_text_mode();
        Machine { vga, screen: Screen::default() }
    }

    fn print(&mut self, column: usize, row: usize, text: &[u8], attribute: u8) {
        for (at, byte) in (row * 80 + column..).zip(text) {
            self.vga.write_window(0x1_8000 + 2 * at as u64, 2, u64::from(attribute) << 8 | u64::from(*byte));
        }
    }

    fn cursor(&mut self, place: u16) {
        for (index, byte) in [(0x0e, (place >> 8) as u8), (0x0f, place as u8)] {
            self.vga.write_port(0x3d4, index);
            self.vga.write_port(0x3d5, byte);
        }
    }

    fn screen(&mut self) -> &Screen {
        let mut dirty = DirtyPages::default();
        self.vga.vram().take_dirty(&mut dirty);
        self.screen.update(self.vga.regs(), self.vga.vram(), &dirty, 0);
        &self.screen
    }
}

#[test]
fn text_with_colours_and_only_what_changes() {
    let mut machine = Machine::new();
    machine.print(0, 0, b"GRUB", 0x07);
    machine.print(2, 3, b"\xc9\xcd\xbb", 0x1e);
    machine.cursor(80 + 5);
    let (mut canvas, mut terminal) = (Canvas::default(), Terminal::new(80, 25));
    terminal.receive(&canvas.show(machine.screen(), 80, 25));
    assert_eq!((terminal.row(0).trim_end(), terminal.row(3).trim_end()), ("GRUB", "  ╔═╗"));
    assert_eq!(terminal.cells[3 * 80 + 2].1, "0;93;44");
    assert_eq!((terminal.cursor, terminal.cursor_shown), ((5, 1), true));
    assert_eq!(canvas.show(machine.screen(), 80, 25), "", "nothing new");
    machine.print(1, 0, b"N", 0x70);
    let change = canvas.show(machine.screen(), 80, 25);
    assert_eq!(change, "\x1b[1;2H\x1b[0;30;47mN\x1b[0m\x1b[2;6H\x1b[?25h");
    terminal.receive(&change);
    assert_eq!(terminal.row(0).trim_end(), "GNUB");
}

#[test]
fn a_small_terminal_shows_the_part_with_the_cursor() {
    let mut machine = Machine::new();
    machine.print(0, 24, b"login: ", 0x07);
    machine.print(70, 0, b"edge", 0x07);
    machine.cursor(24 * 80 + 7);
    let mut terminal = Terminal::new(20, 3);
    let mut canvas = Canvas::default();
    terminal.receive(&canvas.show(machine.screen(), 20, 3));
    assert_eq!((terminal.row(2).trim_end(), terminal.cursor), ("login:", (7, 2)));
    // The terminal grows.
    let mut terminal = Terminal::new(100, 30);
    terminal.receive(&canvas.show(machine.screen(), 100, 30));
    assert_eq!((terminal.row(24).trim_end(), terminal.row(0).trim()), ("login:", "edge"));
    for (columns, rows) in [(1, 1), (0, 0), (1, 0), (0, 1)] {
        canvas.show(machine.screen(), columns, rows);
    }
}

#[test]
fn graphics_are_told_of() {
    let mut machine = Machine::new();
    assert!(machine.vga.set_linear_mode(1024, 768));
    let mut terminal = Terminal::new(80, 25);
    terminal.receive(&Canvas::default().show(machine.screen(), 80, 25));
    assert_eq!((terminal.row(0).trim_end(), terminal.cursor_shown), ("1024 x 768 graphics", false));
}
