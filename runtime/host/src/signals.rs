//! The signals that end or stop the process.
//!
//! A process has one way of meeting a signal, so there is one [`Signals`], made when it is first asked for. While a machine runs,
//! SIGHUP, SIGINT and SIGTERM ask it to end in order; otherwise, and SIGQUIT always, they end the process at once. Either way the
//! terminal is restored.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGXFSZ};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::emulate_default_handler;

/// A terminal whose mode was changed.
pub trait Restore: Send + Sync {
    /// Restores the mode for good.
    fn restore(&self);
    /// Stops the process with the terminal as its shell expects it.
    fn suspend(&self);
}

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The signal.
    pub signal: i32,
    /// The process that sent it, if one did.
    pub pid: Option<i32>,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "terminating on signal {}", self.signal)?;
        self.pid.map_or(Ok(()), |pid| write!(f, " from pid {pid}"))
    }
}

/// What a machine does when it is asked to end; called on the signals' thread.
pub type OnAsked = Box<dyn FnMut(Asked) + Send>;

/// What is done about signals.
pub struct Signals {
    terminals: Mutex<Vec<Weak<dyn Restore>>>,
    on_asked: Mutex<Option<OnAsked>>,
}

static SIGNALS: OnceLock<Signals> = OnceLock::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signals {
    /// The process's. The first call takes over SIGHUP, SIGINT, SIGQUIT, SIGTERM and SIGTSTP, apart from those that were ignored when
    /// the process started (as by nohup), for the rest of the process's life.
    ///
    /// # Errors
    ///
    /// When the host gives no thread.
    pub fn of_process() -> io::Result<&'static Signals> {
        if let Some(signals) = SIGNALS.get() {
            return Ok(signals);
        }
        let signals = SIGNALS.get_or_init(|| Signals { terminals: Mutex::default(), on_asked: Mutex::default() });
        signals.start()?;
        Ok(signals)
    }

    fn start(&'static self) -> io::Result<()> {
        let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_signals(&status));
        let wanted = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP];
        let taken = wanted.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = SignalsInfo::<WithOrigin>::new(taken)?;
        // Unregistered signals would be ignored instead of ending the process, so the thread goes on for ever.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for origin in signals.forever() {
                self.handle(Asked { signal: origin.signal, pid: origin.process.map(|process| process.pid) });
            }
        })?;
        Ok(())
    }

    fn handle(&self, asked: Asked) {
        if asked.signal == SIGTSTP {
            return self.each_terminal(|terminal| terminal.suspend());
        }
        if asked.signal != SIGQUIT
            && let Some(on_asked) = &mut *lock(&self.on_asked)
        {
            return on_asked(asked);
        }
        self.each_terminal(|terminal| terminal.restore());
        // Does not return for a signal that ends the process.
        let _ = emulate_default_handler(asked.signal);
    }

    fn each_terminal(&self, what: impl Fn(&dyn Restore)) {
        let terminals = lock(&self.terminals).clone();
        terminals.iter().filter_map(Weak::upgrade).for_each(|terminal| what(&*terminal));
    }

    /// Has `terminal` restored by the signals that end the process, and by those that stop it for as long as it is stopped.
    pub fn restore(&self, terminal: &Arc<impl Restore + 'static>) {
        let mut terminals = lock(&self.terminals);
        terminals.retain(|terminal| terminal.strong_count() != 0);
        let terminal: Weak<dyn Restore> = Arc::downgrade(&(terminal.clone() as Arc<dyn Restore>));
        terminals.push(terminal);
    }

    /// A machine runs, and from now on ends in order when it is asked to, which `on_asked` is for.
    pub fn run_machine(&self, on_asked: OnAsked) {
        *lock(&self.on_asked) = Some(on_asked);
    }
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

/// Lets a write that would make a file too large fail, instead of ending the process.
///
/// # Errors
///
/// What the host refuses.
pub fn survive_file_limits() -> io::Result<()> {
    // Nobody looks at the flag: what fails is told by what has failed.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// The mask of ignored signals (bit n - 1 for signal n) in the text of `/proc/self/status`; 0 when it does not tell.
pub fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_proc() {
        assert_eq!(ignored_signals("Name:\tmimus\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001003\n"), 0x1003);
        assert_eq!(ignored_signals("SigIgn:\tnonsense\n"), 0);
        assert_eq!(ignored_signals(""), 0);
    }
}
