//! Where log items and warnings go.
//!
//! A log item is an event whose `tracing` target is the item's name (`tracing::debug!(target: "in_asm", "...")`), at
//! any level; it is recorded when `-d` asks for it. Warnings and errors of every target are always recorded, but no more of a kind
//! than a [`Limiter`] lets through: a guest or a client may cause as many as it likes.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use mimus_machine::config::{Config, LOG_ITEMS, LogItems};

/// A subscriber that records `items`: to `file`, which then also gets what goes to standard error, or else to standard
/// error. Each event is one write, so that nothing is lost when the process is killed.
pub fn subscriber(items: LogItems, messages: Messages, file: Option<File>) -> Box<dyn Subscriber + Send + Sync> {
    match file {
        None => build(items, messages, io::stderr),
        Some(file) => build(items, messages, io::stderr.with_max_level(Level::WARN).and(Arc::new(LogFile::new(file)))),
    }
}

/// What messages of this program begin with.
#[derive(Debug, Clone, Default)]
pub struct Messages {
    /// The time.
    pub time: bool,
    /// A name.
    pub name: Option<String>,
}

impl Messages {
    /// What is wanted of a machine's.
    pub fn of(config: &Config) -> Messages {
        let settings = &config.settings;
        Messages { time: settings.message_time, name: config.name.clone().filter(|_| settings.message_name) }
    }

    fn begin(&self, writer: &mut Writer<'_>) -> fmt::Result {
        if self.time {
            SystemTime.format_time(writer)?;
            writer.write_char(' ')?;
        }
        match &self.name {
            Some(name) => write!(writer, "{name} "),
            None => Ok(()),
        }
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
fn build<W>(items: LogItems, messages: Messages, writer: W) -> Box<dyn Subscriber + Send + Sync>
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
        .event_format(Lines { messages, limiter: Limiter::default() });
    Box::new(output.finish().with(filter))
}

/// What targets of devices begin with, which tell of what they make nothing of.
const DEVICES: &str = "mimus_hw::";

fn wanted(items: LogItems, metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN
        || items.contains(LogItems::GUEST_ERRORS) && metadata.target().starts_with(DEVICES)
        || LOG_ITEMS.iter().any(|(item, name, _)| *name == metadata.target() && items.contains(*item))
}

/// The target of messages that are told once, and are never left out.
pub const ONCE: &str = "once";

/// Messages of a kind that are let through at once, and how soon there may be one more.
const BURST: u32 = 8;
const PERIOD: Duration = Duration::from_secs(1);

/// Lets a few messages of each kind through, and then one a second, which says how many were left out before it. A kind is a place
/// in the source, so there are not many.
#[derive(Default)]
struct Limiter(Mutex<FxHashMap<Identifier, Kind>>);

/// What a limiter knows of messages of one kind.
struct Kind {
    /// How many may come at once.
    left: u32,
    /// Since when one more is being waited for.
    since: Instant,
    dropped: u64,
}

impl Limiter {
    /// Whether a message of this kind is let through at `now`: if so, how many were left out since the last one.
    fn admit(&self, kind: Identifier, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(kind).or_insert(Kind { left: BURST, since: now, dropped: 0 });
        let more = now.saturating_duration_since(kind.since).as_nanos() / PERIOD.as_nanos();
        if more != 0 {
            kind.left = kind.left.saturating_add(u32::try_from(more).unwrap_or(BURST)).min(BURST);
            kind.since = now;
        }
        if kind.left == 0 {
            kind.dropped += 1;
            return None;
        }
        kind.left -= 1;
        Some(std::mem::take(&mut kind.dropped))
    }
}

/// Log items as they are, for people and scripts that compare them; anything else as a message of this program.
struct Lines {
    messages: Messages,
    limiter: Limiter,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let prefix = match *event.metadata().level() {
            Level::ERROR => "mimus: error: ",
            Level::WARN => "mimus: warning: ",
            _ => "",
        };
        let (message, once) = (!prefix.is_empty(), event.metadata().target() == ONCE);
        let limited = message && !once;
        let left_out = if limited { self.limiter.admit(event.metadata().callsite(), Instant::now()) } else { Some(0) };
        // Nothing is written of an event without text.
        let Some(left_out) = left_out else { return Ok(()) };
        if message {
            self.messages.begin(&mut writer)?;
        }
        writer.write_str(prefix)?;
        context.format_fields(writer.by_ref(), event)?;
        if left_out != 0 {
            write!(writer, " ({left_out} more like this were left out)")?;
        }
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
        logged_as(items, Messages::default())
    }

    fn logged_as(items: LogItems, messages: Messages) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(build(items, messages, move || writer.clone()), || {
            tracing::debug!(target: "op", "movl");
            tracing::trace!(target: "op_opt", "addl");
            tracing::info!(target: "in_asm", "nop");
            tracing::debug!("chatter of this crate");
            tracing::debug!(target: "mimus_hw::e1000", "write ignored");
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
        assert_eq!(logged(LogItems::GUEST_ERRORS), format!("write ignored\n{always}"));
        assert_eq!(logged(LogItems::OP_OPT | LogItems::IN_ASM), format!("addl\nnop\n{always}"));
    }

    #[test]
    fn what_a_guest_repeats_is_counted_instead() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(build(LogItems::INT, Messages::default(), move || writer.clone()), || {
            for number in 0..1000 {
                tracing::warn!("reset {number}");
                tracing::info!(target: "int", "asked for");
            }
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert!((8..100).contains(&text.matches("reset").count()), "{text}");
        assert_eq!(text.matches("asked for").count(), 1000);
    }

    #[test]
    fn one_more_is_let_through_each_second() {
        let (limiter, begin) = (Limiter::default(), Instant::now());
        let callsite = || {
            tracing::callsite! { name: "test", kind: tracing::metadata::Kind::EVENT, fields: }
        };
        let id = tracing::callsite::Callsite::metadata(callsite()).callsite();
        let at = |millis| limiter.admit(id.clone(), begin + Duration::from_millis(millis));
        assert!((0..BURST).all(|_| at(0) == Some(0)));
        assert_eq!((at(1), at(999), at(1000), at(1001)), (None, None, Some(2), None));
        assert_eq!(at(60_000), Some(1));
        assert!((1..BURST).all(|_| at(60_000) == Some(0)));
        assert_eq!(at(60_000), None);
    }

    #[test]
    fn messages_begin_as_wanted_and_log_items_do_not() {
        let text = logged_as(LogItems::OP, Messages { time: true, name: Some("vm1".into()) });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "movl");
        let (time, rest) = lines[1].split_once(' ').unwrap();
        assert_eq!(rest, "vm1 mimus: warning: port 0x92");
        assert!(time.len() == "2026-11-30T03:40:00.123456Z".len() && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn a_log_file_gets_items_and_warnings() {
        let path = std::env::temp_dir().join(format!("mimus-log-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        tracing::subscriber::with_default(subscriber(LogItems::OP, Messages::default(), Some(file)), || {
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
            tracing::subscriber::with_default(subscriber(items, Messages::default(), None), || {
                (tracing::enabled!(target: "in_asm", Level::TRACE), tracing::enabled!(target: "exec", Level::TRACE))
            })
        };
        assert_eq!(enabled(LogItems::empty()), (false, false));
        assert_eq!(enabled(LogItems::IN_ASM), (true, false));
        assert_eq!(enabled(LogItems::EXEC), (false, true));
    }
}
