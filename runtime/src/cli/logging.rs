//! Where log items and warnings go.
//!
//! A log item is an event whose `tracing` target is the item's name (`tracing::debug!(target: "in_asm", "...")`), at
//! any level; it is recorded when `-d` asks for it. Warnings and errors of every target are always recorded.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LOG_ITEMS, LogItems};

/// A subscriber that records `items`: to `file`, which then also gets what goes to standard error, or else to standard
/// error. Each event is one write, so that nothing is lost when the process is killed.
pub fn subscriber(items: LogItems, file: Option<File>) -> Box<dyn Subscriber + Send + Sync> {
    match file {
        None => build(items, io::stderr),
        Some(file) => build(items, io::stderr.with_max_level(Level::WARN).and(Arc::new(LogFile::new(file)))),
    }
}

/// The file of `-D`. The first failure to write to it is told on standard error.
struct LogFile {
    file: File,
    failed: AtomicBool,
}

impl LogFile {
    fn new(file: File) -> Self {
        LogFile { file, failed: AtomicBool::new(false) }
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = (&self.file).write(bytes);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "mimus: -D: the log is incomplete: {error}");
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.file).flush()
    }
}

/// The subscriber over any writer.
fn build<W>(items: LogItems, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let most = if items.is_empty() { LevelFilter::WARN } else { LevelFilter::TRACE };
    let filter = filter_fn(move |metadata| wanted(items, metadata)).with_max_level_hint(most);
    let output = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        // It would report to standard error by a macro that panics when that is closed.
        .log_internal_errors(false)
        .with_writer(writer)
        .event_format(Lines);
    Box::new(output.finish().with(filter))
}

fn wanted(items: LogItems, metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN
        || LOG_ITEMS.iter().any(|(item, name, _)| *name == metadata.target() && items.contains(*item))
}

/// Log items as they are, for people and scripts that compare them; anything else as a message of this program.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("mimus: error: ")?,
            Level::WARN => writer.write_str("mimus: warning: ")?,
            _ => {}
        }
        context.format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(items: LogItems) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(build(items, move || writer.clone()), || {
            tracing::debug!(target: "op", "movl");
            tracing::trace!(target: "op_opt", "addl");
            tracing::info!(target: "in_asm", "nop");
            tracing::debug!("chatter of this crate");
            tracing::warn!(target: "unimp", "port {:#x}", 0x92);
            tracing::error!("disk full");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_and_warnings() {
        let always = "mimus: warning: port 0x92\nmimus: error: disk full\n";
        assert_eq!(logged(LogItems::empty()), always);
        assert_eq!(logged(LogItems::OP), format!("movl\n{always}"));
        assert_eq!(logged(LogItems::OP_OPT | LogItems::IN_ASM), format!("addl\nnop\n{always}"));
    }

    #[test]
    fn a_log_file_gets_items_and_warnings() {
        let path = std::env::temp_dir().join(format!("mimus-log-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        tracing::subscriber::with_default(subscriber(LogItems::OP, Some(file)), || {
            tracing::debug!(target: "op", "movl");
            tracing::debug!(target: "int", "#PF");
            tracing::warn!(target: "unimp", "wbinvd");
        });
        let text = std::fs::read_to_string(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.unwrap(), "movl\nmimus: warning: wbinvd\n");
    }

    #[test]
    fn a_full_log_file_is_noticed_and_survived() {
        let full = LogFile::new(File::options().write(true).open("/dev/full").unwrap());
        assert!((&full).write(b"x").is_err());
        assert!(full.failed.load(Ordering::Relaxed));
        assert!((&full).write(b"y").is_err());
    }

    #[test]
    fn unwanted_items_are_known_to_be_unwanted() {
        let enabled = |items| {
            tracing::subscriber::with_default(subscriber(items, None), || {
                (tracing::enabled!(target: "in_asm", Level::TRACE), tracing::enabled!(target: "exec", Level::TRACE))
            })
        };
        assert_eq!(enabled(LogItems::empty()), (false, false));
        assert_eq!(enabled(LogItems::IN_ASM), (true, false));
        assert_eq!(enabled(LogItems::EXEC), (false, true));
    }
}
