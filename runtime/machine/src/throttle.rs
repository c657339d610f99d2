//! A cap on the share of a host CPU that a machine takes: `-accel jit,cpu-limit=`.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::config::{Accel, JitConfig};
use mimus_softmmu::kick::Kicker;

/// How often the vCPU looks whether it has had its share.
const TICK: Duration = Duration::from_millis(5);

/// What a machine that slept may make up for.
const CREDIT: Duration = Duration::from_millis(20);

/// Holds a vCPU up when the process has had more than its share.
#[derive(Debug)]
pub(crate) struct Throttle {
    percent: u32,
    /// When it was level, and the CPU time of then.
    level: (Instant, Duration),
    /// Ends the thread by going away.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// CPU time of the process: the vCPU's, the compiler's, everything.
fn cpu_time() -> Duration {
    time_of(ClockId::ProcessCPUTime)
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Throttle {
    /// Starts what has the vCPU look at its share, if it has a limit.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub(crate) fn start(accel: &Accel, kicker: Arc<Kicker>) -> std::io::Result<Option<Throttle>> {
        let Accel::Jit(JitConfig { cpu_limit: Some(percent), .. }) = *accel else { return Ok(None) };
        let (stop, stopped) = sync_channel::<()>(0);
        let tick = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                kicker.kick();
            }
        };
        let thread = std::thread::Builder::new().name("throttle".into()).spawn(tick)?;
        let level = (Instant::now(), cpu_time());
        Ok(Some(Throttle { percent: percent.into(), level, stop: Some(stop), thread: Some(thread) }))
    }

    /// How long to sleep after `used` CPU time in `passed`.
    fn debt(percent: u32, used: Duration, passed: Duration) -> Duration {
        (used * 100 / percent.max(1)).saturating_sub(passed)
    }

    /// Sleeps as long as it takes.
    pub(crate) fn pause(&mut self) {
        let (since, before) = self.level;
        let (passed, used) = (since.elapsed(), cpu_time().saturating_sub(before));
        let debt = Throttle::debt(self.percent, used, passed);
        if !debt.is_zero() {
            std::thread::sleep(debt);
        } else if passed > used * 100 / self.percent.max(1) + CREDIT {
            self.level = (Instant::now(), before + used);
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_cpu_sleeps_three_times_as_long_as_it_runs() {
        let ms = Duration::from_millis;
        assert_eq!(Throttle::debt(25, ms(5), ms(5)), ms(15));
        assert_eq!(Throttle::debt(25, ms(5), ms(30)), ms(0));
        assert_eq!(Throttle::debt(100, ms(7), ms(7)), ms(0));
    }

    #[test]
    fn a_busy_thread_gets_no_more_than_its_share() {
        let accel = Accel::Jit(JitConfig { cpu_limit: Some(20), ..JitConfig::default() });
        let mut throttle = Throttle::start(&accel, Kicker::new()).unwrap().unwrap();
        let (from, busy) = (Instant::now(), || time_of(ClockId::ThreadCPUTime));
        for _ in 0..20 {
            let before = busy();
            while busy() - before < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
            throttle.pause();
        }
        // 100 ms are a fifth of 500. Other tests, in the same process, can only make it longer.
        assert!(from.elapsed() > Duration::from_millis(450), "{:?}", from.elapsed());
        assert!(Throttle::start(&Accel::Interp, Kicker::new()).unwrap().is_none());
    }
}
