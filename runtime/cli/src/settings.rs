//! How a machine is run: what its end and its clock mean, what happens to its memory and messages.

use super::keyval::{self, Key, Kind, Values};
use super::{CliError, Given, Refused, Stop, chardev, subjects, utf8};
use mimus_machine::config::{Config, LockMemory, RamFile, RtcBase};

const ON_OFF: Kind = Kind::Word(&["on", "off"]);

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, help: "" }
}

const MESSAGE: &[Key] = &[key("timestamp", ON_OFF), key("guest-name", ON_OFF)];

const OVERCOMMIT: &[Key] = &[
    key("mem-lock", Kind::Word(&["on", "off", "on-fault"])),
    // A guest that waits does so on its vCPU's thread, which sleeps soon enough.
    key("cpu-pm", Kind::Accepted),
];

const RTC: &[Key] = &[
    key("base", Kind::Text("utc, localtime, or a date as in 2006-06-17T16:01:21")),
    // The clock is the guest's own, and interrupts that come late are never lost.
    key("clock", Kind::Among(&["host", "rt", "vm"])),
    key("driftfix", Kind::Among(&["none", "slew"])),
];

const NAME: &[Key] = &[
    key("guest", Kind::Text("a name")),
    key("process", Kind::Text("a name")),
    // Threads always have names.
    key("debug-threads", Kind::Accepted),
];

/// Reads all of it.
pub(super) fn parse(given: &Given, refused: &mut Refused, config: &mut Config) -> Result<(), Stop> {
    refused.note(message(given, config))?;
    refused.note(overcommit(given, config))?;
    refused.note(rtc(given, config))?;
    refused.note(name(given, config))?;
    refused.note(host_memory(given, config))?;
    refused.note(others(given, config))?;
    Ok(())
}

/// What a list option that may be repeated says; nothing where it is not given.
fn values(given: &Given, name: &str, implied: &'static str, keys: &[Key]) -> Result<Values, CliError> {
    match given.merged(name)? {
        Some(texts) => keyval::parse_all(&format!("-{name}"), texts, implied, keys),
        None => Ok(Values::default()),
    }
}

fn message(given: &Given, config: &mut Config) -> Result<(), CliError> {
    let values = values(given, "msg", "timestamp", MESSAGE)?;
    config.settings.message_time = values.word("timestamp") == Some("on");
    config.settings.message_name = values.word("guest-name") == Some("on");
    Ok(())
}

fn overcommit(given: &Given, config: &mut Config) -> Result<(), CliError> {
    config.settings.lock_memory = match values(given, "overcommit", "mem-lock", OVERCOMMIT)?.word("mem-lock") {
        Some("on") => LockMemory::All,
        Some("on-fault") => LockMemory::Used,
        _ => LockMemory::None,
    };
    Ok(())
}

fn rtc(given: &Given, config: &mut Config) -> Result<(), CliError> {
    let values = values(given, "rtc", "base", RTC)?;
    config.settings.rtc = match values.text("base") {
        None | Some("utc") => RtcBase::Utc,
        Some("localtime") => RtcBase::LocalTime,
        Some(text) => RtcBase::Date(date(text).ok_or_else(|| {
            let form = "utc, localtime, or a date after 1970 as in 2006-06-17T16:01:21 or 2006-06-17";
            CliError::new("-rtc", format!("base: '{text}' is not {form}"))
        })?),
    };
    Ok(())
}

/// A date, and perhaps a time, in seconds since 1970.
fn date(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let parts: Option<Vec<i64>> = text.split(separator).map(|part| keyval::number(part)?.try_into().ok()).collect();
        parts?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Months count from March, so that the leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).ok()
}

fn name(given: &Given, config: &mut Config) -> Result<(), CliError> {
    let values = values(given, "name", "guest", NAME)?;
    config.name = values.text("guest").map(str::to_owned);
    config.settings.process_name = values.text("process").map(str::to_owned);
    Ok(())
}

/// Where the host has the guest's RAM.
fn host_memory(given: &Given, config: &mut Config) -> Result<(), CliError> {
    if let Some(path) = given.path("mem-path")? {
        config.memory.file = Some(RamFile { option: "-mem-path".to_owned(), path, shared: false });
    }
    config.memory.allocated |= given.flag("mem-prealloc");
    Ok(())
}

/// Single values.
fn others(given: &Given, config: &mut Config) -> Result<(), CliError> {
    let number = |name: &str| -> Result<Option<u64>, CliError> {
        let parse = |text: &str| {
            keyval::number(text).ok_or_else(|| CliError::new(format!("-{name}"), format!("'{text}' is not a number")))
        };
        given.text(name)?.map(parse).transpose()
    };
    if number("seed")?.is_some() {
        config.warnings.push("-seed: random numbers are the host's".to_owned());
    }
    config.settings.escape_key = chardev::escape_key(given)?;
    for value in given.all("audiodev").chain(given.all("audio")) {
        let text = utf8("audiodev", value)?;
        let items = keyval::split("-audiodev", text)?;
        let named = items.iter().find(|item| item.key.as_deref() == Some("driver")).or(items.first());
        let driver = named.map_or("", |item| &item.value);
        if driver != "none" {
            return Err(CliError::new("-audiodev", subjects::SOUND.lacking(&format!("'{driver}'"))));
        }
    }
    if let Some(text) = given.text("icount")? {
        if text.split(',').any(|item| item.starts_with("rr=")) {
            return Err(CliError::new("-icount: rr", subjects::REPLAY.lacking("it")));
        }
        config.warnings.push("-icount: the guest's time is the host's".to_owned());
    }
    if given.one("trace").is_some() {
        config.warnings.push("-trace: there are no trace events; see -d help".to_owned());
    }
    if given.one("dfilter").is_some() {
        config.warnings.push("-dfilter: log items are of all addresses".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds() {
        let rows = [
            ("1970-01-01", Some(0)),
            ("2006-06-17T16:01:21", Some(1_150_560_081)),
            ("2006-06-17", Some(1_150_502_400)),
            ("2000-02-29T23:59:59", Some(951_868_799)),
            ("2000-03-01", Some(951_868_800)),
            ("9999-12-31", Some(253_402_214_400)),
            ("1969-12-31", None),
            ("2006-13-17", None),
            ("2006-06-17T24:00:00", None),
            ("2006-06", None),
            ("now", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(date(text), expected, "{text}");
        }
    }
}
