//! What a configuration says of how a machine is run: its end, its clock, its messages.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{PanicAction, WatchdogAction};

/// What its end and its clock mean, and what happens to its memory and messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// A guest that powers its machine off stops it instead of ending the run.
    pub no_shutdown: bool,
    /// What happens when the guest has panicked.
    pub panic: PanicAction,
    /// What happens when the guest's watchdog has expired.
    pub watchdog: WatchdogAction,
    /// There is no machine but only something to ask, for programs that want to know what there is.
    pub no_machine: bool,
    /// What the real-time clock shows at the start.
    pub rtc: RtcBase,
    /// What is kept in the host's memory.
    pub lock_memory: LockMemory,
    /// Messages begin with the time.
    pub message_time: bool,
    /// Messages begin with the machine's name.
    pub message_name: bool,
    /// The key that escapes begin with at a terminal, instead of Ctrl-A.
    pub escape_key: Option<u8>,
    /// What the host calls the process.
    pub process_name: Option<String>,
    /// What `-object` has made.
    pub objects: Vec<UserObject>,
}

/// What devices and options refer to by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserObject {
    /// How they do.
    pub id: String,
    /// What it is, as `-object` calls it.
    pub kind: &'static str,
}

/// What the real-time clock shows at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RtcBase {
    /// The host's time in UTC.
    #[default]
    Utc,
    /// The host's local time.
    LocalTime,
    /// This, in seconds since 1970.
    Date(u64),
}

impl RtcBase {
    /// The time that the clock shows now, in seconds since 1970.
    pub fn seconds(self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match self {
            RtcBase::Utc => now,
            RtcBase::LocalTime => now.saturating_add_signed(offset(now)),
            RtcBase::Date(seconds) => seconds,
        }
    }
}

/// By how many seconds the host's local time is later than UTC at `seconds` since 1970.
fn offset(seconds: u64) -> i64 {
    let Ok(seconds) = libc::time_t::try_from(seconds) else { return 0 };
    // SAFETY: all bits zero are a value of this type, which has only numbers and a pointer.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live until the call returns, which keeps neither.
    let found = unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    if found.is_null() { 0 } else { local.tm_gmtoff }
}

/// What of the process is kept in the host's memory, never swapped out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockMemory {
    /// Nothing.
    #[default]
    None,
    /// All of it, from the start.
    All,
    /// What has been used.
    Used,
}
