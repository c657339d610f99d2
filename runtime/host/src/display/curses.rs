//! The screen's text drawn in a terminal, and the terminal's keys typed on the guest's keyboard.
//!
//! Sequences are those of ECMA-48 and xterm, which every terminal of today understands; of what is drawn only what has changed is
//! sent again.

mod typed;

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mimus_hw::vga::{Screen, Text, code_page_437};

use super::{Console, View, Viewer};
use typed::Typist;

/// Entering and leaving the terminal's second screen; colours and cursor as they were.
const ENTER: &str = "\x1b[?1049h\x1b[2J";
/// What restores a terminal that [`Curses`] has drawn on.
pub const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// How often the terminal's size is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// ANSI colours in the order of the VGA's: blue and red are exchanged.
const ANSI: [u8; 8] = [0, 4, 2, 6, 1, 5, 3, 7];

/// A terminal that shows a screen. Dropping it gives the terminal back.
#[derive(Debug)]
pub struct Curses {
    stop: Arc<AtomicBool>,
    wake: Viewer,
    thread: Option<JoinHandle<()>>,
}

impl Curses {
    /// Draws `view` on `terminal`.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(view: &View, terminal: OwnedFd) -> io::Result<Curses> {
        let (stop, viewer, wake) = (Arc::new(AtomicBool::new(false)), view.viewer(), view.viewer());
        let own = stop.clone();
        let thread = std::thread::Builder::new().name("curses".into()).spawn(move || {
            if let Err(error) = draw(&viewer, &terminal, &own) {
                tracing::debug!("the terminal is no longer drawn on: {error}");
            }
        })?;
        Ok(Curses { stop, wake, thread: Some(thread) })
    }
}

impl Drop for Curses {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

fn draw(viewer: &Viewer, terminal: &OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    let mut canvas = Canvas::default();
    write_all(terminal, ENTER.as_bytes())?;
    while !stop.load(Ordering::Acquire) {
        let size = rustix::termios::tcgetwinsize(terminal).map(|size| (size.ws_col.into(), size.ws_row.into()));
        let (columns, rows) = size.ok().filter(|size| *size != (0, 0)).unwrap_or((80, 24));
        let (version, output) = viewer.look(|screen| (screen.version(), canvas.show(screen, columns, rows)));
        write_all(terminal, output.as_bytes())?;
        viewer.wait(version, LOOK);
    }
    write_all(terminal, LEAVE)
}

fn write_all(terminal: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    std::fs::File::from(terminal.as_fd().try_clone_to_owned()?).write_all(bytes)
}

/// A character of the terminal with its attribute.
type Cell = (char, u8);

/// What the terminal shows.
#[derive(Debug, Default)]
pub struct Canvas {
    columns: usize,
    rows: usize,
    cells: Vec<Cell>,
    cursor: Option<(usize, usize)>,
    /// Before the first drawing it is not known what the terminal shows.
    known: bool,
}

impl Canvas {
    /// What makes a terminal of this size show `screen`: of a larger screen the part with the cursor.
    pub fn show(&mut self, screen: &Screen, columns: usize, rows: usize) -> String {
        let text = match screen.text() {
            Some(text) => text.clone(),
            None => notice(screen),
        };
        let (cells, cursor) = part(&text, columns, rows);
        let mut out = String::new();
        if !self.known || (self.columns, self.rows) != (columns, rows) {
            *self = Canvas { columns, rows, cells: vec![(' ', 7); columns * rows], cursor: None, known: true };
            out.push_str("\x1b[0m\x1b[2J\x1b[?25l");
        }
        let mut attribute = None;
        let mut place = None;
        for (index, (new, old)) in cells.iter().zip(&mut self.cells).enumerate() {
            if new == old {
                continue;
            }
            let at = (index % columns, index / columns);
            if place != Some(at) {
                out.push_str(&format!("\x1b[{};{}H", at.1 + 1, at.0 + 1));
            }
            if attribute != Some(new.1) {
                out.push_str(&colours(new.1));
                attribute = Some(new.1);
            }
            out.push(new.0);
            *old = *new;
            // At the edge terminals differ in where the cursor is.
            place = (at.0 + 1 < columns).then_some((at.0 + 1, at.1));
        }
        if !out.is_empty() || cursor != self.cursor {
            match cursor {
                Some((column, row)) => out.push_str(&format!("\x1b[0m\x1b[{};{}H\x1b[?25h", row + 1, column + 1)),
                None => out.push_str("\x1b[0m\x1b[?25l"),
            }
            self.cursor = cursor;
        }
        out
    }
}

/// The part of `text` that a terminal of this size shows, and where the cursor is in it.
fn part(text: &Text, columns: usize, rows: usize) -> (Vec<Cell>, Option<(usize, usize)>) {
    let (column, row) = text.cursor.unwrap_or((0, 0));
    let left = (column + 1).saturating_sub(columns);
    let top = (row + 1).saturating_sub(rows);
    let cell = |x: usize, y: usize| {
        let inside = x < text.columns && y < text.rows;
        let cell = inside.then(|| text.cells.get(y * text.columns + x)).flatten();
        cell.map_or((' ', 7), |(code, attribute)| (code_page_437(*code), *attribute))
    };
    let cells = (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));
    let cells = cells.map(|(x, y)| cell(left + x, top + y)).collect();
    let cursor = text.cursor.filter(|_| columns != 0 && rows != 0).map(|(x, y)| (x - left, y - top));
    (cells, cursor)
}

/// What is shown in place of graphics.
fn notice(screen: &Screen) -> Text {
    let frame = screen.frame();
    let line = format!("{} x {} graphics", frame.width, frame.height);
    let cells = line.bytes().map(|byte| (byte, 7)).collect();
    Text { columns: line.len(), rows: 1, cells, cursor: None }
}

/// The sequence for an attribute of the VGA's text modes. Bright backgrounds, which may mean blinking, are bright here.
fn colours(attribute: u8) -> String {
    let colour = |bits: u8, base: u8| {
        let bright = if bits & 8 != 0 { 60 } else { 0 };
        base + bright + ANSI[usize::from(bits & 7)]
    };
    match attribute {
        // The terminal's own colours for what has none.
        7 => "\x1b[0m".to_owned(),
        _ => format!("\x1b[0;{};{}m", colour(attribute & 0xf, 30), colour(attribute >> 4, 40)),
    }
}

/// A function that types what a terminal sends, and tells how much of it: as much as the guest's keyboard has room for.
pub fn typing(console: Console) -> impl FnMut(&[u8]) -> usize + Send + 'static {
    /// Bytes of the longest that a key with Shift, Ctrl and Alt sends.
    const ROOM: usize = 24;
    let mut typist = Typist;
    move |bytes: &[u8]| {
        let mut taken = 0;
        while taken < bytes.len() && console.keyboard_room() >= ROOM {
            let (used, strokes) = typist.next(bytes.get(taken..).unwrap_or_default());
            for (key, down) in strokes {
                console.key(key, down);
            }
            taken += used;
        }
        taken
    }
}

#[cfg(test)]
mod tests;
