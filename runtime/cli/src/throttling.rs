//! How much disks may do: `throttling.*` of `-drive`, and `-object throttle-group`.

use super::error::CliError;
use super::keyval::{Item, Key, Kind, Values};
use mimus_host::config::{Limit, Limits};

/// The largest limit that is one.
const MOST: u64 = 1 << 50;
/// The largest number of seconds.
const LONGEST: u64 = 1 << 31;

const fn key(name: &'static str, most: u64, help: &'static str) -> Key {
    Key { name, kind: Kind::Number(0, most), help }
}

/// The keys of limits that begin with this.
macro_rules! keys {
    ($prefix:literal) => {
        &[
            key(concat!($prefix, "bps-total"), MOST, "most bytes a second; 0, the default: no limit"),
            key(concat!($prefix, "bps-read"), MOST, "of reads"),
            key(concat!($prefix, "bps-write"), MOST, "of writes"),
            key(concat!($prefix, "iops-total"), MOST, "most requests a second; 0, the default: no limit"),
            key(concat!($prefix, "iops-read"), MOST, "of reads"),
            key(concat!($prefix, "iops-write"), MOST, "of writes"),
            key(concat!($prefix, "bps-total-max"), MOST, "most bytes a second for a time; so of the others"),
            key(concat!($prefix, "bps-read-max"), MOST, ""),
            key(concat!($prefix, "bps-write-max"), MOST, ""),
            key(concat!($prefix, "iops-total-max"), MOST, ""),
            key(concat!($prefix, "iops-read-max"), MOST, ""),
            key(concat!($prefix, "iops-write-max"), MOST, ""),
            key(concat!($prefix, "bps-total-max-length"), LONGEST, "seconds of that time, default 1; so of the others"),
            key(concat!($prefix, "bps-read-max-length"), LONGEST, ""),
            key(concat!($prefix, "bps-write-max-length"), LONGEST, ""),
            key(concat!($prefix, "iops-total-max-length"), LONGEST, ""),
            key(concat!($prefix, "iops-read-max-length"), LONGEST, ""),
            key(concat!($prefix, "iops-write-max-length"), LONGEST, ""),
            key(concat!($prefix, "iops-size"), MOST, "bytes of a request that counts as one; 0, the default: any"),
        ]
    };
}

/// How the keys of `-drive` begin.
pub(super) const OF_DRIVE: &str = "throttling.";
/// The keys of `-drive`, but for the group.
pub(super) const DRIVE: &[Key] = keys!("throttling.");
/// The key of `-drive` for the group.
pub(super) const GROUP: Key =
    Key { name: "throttling.group", kind: Kind::Text("a name"), help: "the drives that share these limits" };

/// How the keys of an object begin, and began.
const OF_OBJECT: [&str; 2] = ["limits.", "x-"];
/// The keys of `-object throttle-group`.
pub(super) const OBJECT: [&[Key]; 2] = [keys!("limits."), keys!("x-")];

/// What the keys of `-drive` were called before.
const BEFORE: &[(&str, &str)] = &[
    ("bps", "throttling.bps-total"),
    ("bps_rd", "throttling.bps-read"),
    ("bps_wr", "throttling.bps-write"),
    ("bps_max", "throttling.bps-total-max"),
    ("bps_rd_max", "throttling.bps-read-max"),
    ("bps_wr_max", "throttling.bps-write-max"),
    ("iops", "throttling.iops-total"),
    ("iops_rd", "throttling.iops-read"),
    ("iops_wr", "throttling.iops-write"),
    ("iops_max", "throttling.iops-total-max"),
    ("iops_rd_max", "throttling.iops-read-max"),
    ("iops_wr_max", "throttling.iops-write-max"),
    ("iops_size", "throttling.iops-size"),
    ("group", "throttling.group"),
];

/// Gives keys of `-drive` their present names.
pub(super) fn rename(items: &mut [Item]) {
    for name in items.iter_mut().filter_map(|item| item.key.as_mut()) {
        if let Some((_, now)) = BEFORE.iter().find(|(before, _)| before == name) {
            *name = (*now).to_owned();
        }
    }
}

/// The limits of a `-drive`.
pub(super) fn of_drive(option: &str, values: &Values) -> Result<Limits, CliError> {
    let limits = limits(option, values, &[OF_DRIVE])?;
    Ok(Limits { group: values.text(GROUP.name).unwrap_or_default().to_owned(), ..limits })
}

/// The limits of the group `id`, which an object is.
pub(super) fn of_object(option: &str, values: &Values, id: &str) -> Result<Limits, CliError> {
    Ok(Limits { group: id.to_owned(), ..limits(option, values, &OF_OBJECT)? })
}

/// Those of keys that begin with one of `prefixes`.
fn limits(option: &str, values: &Values, prefixes: &[&str]) -> Result<Limits, CliError> {
    let number = |name: &str| prefixes.iter().find_map(|prefix| values.number(&format!("{prefix}{name}")));
    let limit = |what: &str, direction: &str| {
        let of = |suffix: &str| number(&format!("{what}-{direction}{suffix}"));
        let limit = Limit {
            average: of("").unwrap_or(0),
            burst: of("-max").unwrap_or(0),
            seconds: of("-max-length").unwrap_or(1),
        };
        check(&limit).map(|()| limit).map_err(|why| CliError::new(option, format!("{what}-{direction}{why}")))
    };
    let limits = |what: &str| -> Result<[Limit; 3], CliError> {
        let [total, read, write] = ["total", "read", "write"].map(|direction| limit(what, direction));
        let all = [total?, read?, write?];
        let [total, read, write] = all;
        let both = |of: fn(&Limit) -> u64| of(&total) != 0 && (of(&read) != 0 || of(&write) != 0);
        if both(|limit| limit.average) || both(|limit| limit.burst) {
            return Err(CliError::new(option, format!("{what}-total: excludes {what}-read and {what}-write")));
        }
        Ok(all)
    };
    let (bytes, requests) = (limits("bps")?, limits("iops")?);
    let request_bytes = number("iops-size").unwrap_or(0);
    if request_bytes != 0 && requests.iter().all(|limit| limit.average == 0) {
        return Err(CliError::new(option, "iops-size: needs a limit of requests (iops-total, iops-read, iops-write)"));
    }
    Ok(Limits { bytes, requests, request_bytes, group: String::new() })
}

/// What is wrong with a limit, behind its name.
fn check(limit: &Limit) -> Result<(), &'static str> {
    match *limit {
        Limit { seconds: 0, .. } => Err("-max-length: cannot be 0"),
        Limit { seconds: 2.., burst: 0, .. } => Err("-max-length: needs the rate of the burst, whose key ends in -max"),
        Limit { average: 0, burst: 1.., .. } => Err("-max: needs the limit itself, too"),
        Limit { average, burst: burst @ 1.., .. } if burst < average => Err("-max: is lower than the limit itself"),
        Limit { burst, seconds, .. } if burst.checked_mul(seconds).is_none_or(|all| all > MOST) => {
            Err("-max-length: is too long for a burst of this rate")
        }
        _ => Ok(()),
    }
}
