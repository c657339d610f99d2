//! What the machine does when the guest's kernel has panicked or its watchdog has expired, as `-action` says (QEMU documentation,
//! "Standard options"). The run loop calls this when a board's devices tell of it.

use anyhow::Result;

use super::{Board, Runner};
use crate::config::{ExitStatus, PanicAction, WatchdogAction};
use crate::control::{Controlled, Notice, RunState, StopReason};

impl<B: Board> Runner<B> {
    /// The guest has panicked; how the run ends, if it does.
    pub(super) fn guest_panicked(&mut self) -> Option<ExitStatus> {
        let settings = &self.config.settings;
        let action = match settings.panic {
            PanicAction::Shutdown if settings.no_shutdown => PanicAction::Pause,
            action => action,
        };
        match action {
            PanicAction::None => {
                self.control.tell(Notice::GuestPanicked { action: "run" });
                None
            }
            PanicAction::Pause => {
                self.control.tell(Notice::GuestPanicked { action: "pause" });
                self.pause(RunState::GuestPanicked, StopReason::User);
                None
            }
            PanicAction::Shutdown | PanicAction::ExitFailure => {
                self.control.tell(Notice::GuestPanicked { action: "poweroff" });
                self.end(ExitStatus::Panicked { fails: action == PanicAction::ExitFailure })
            }
        }
    }

    /// The watchdog has expired; how the run ends, if it does.
    pub(super) fn watchdog_expired(&mut self) -> Result<Option<ExitStatus>> {
        let action = self.config.settings.watchdog;
        self.control.tell(Notice::Watchdog(action));
        match action {
            WatchdogAction::Reset => return self.reset(true),
            WatchdogAction::Shutdown => {
                Controlled::press_power_button(self);
            }
            WatchdogAction::PowerOff => return Ok(Some(ExitStatus::PowerOff)),
            WatchdogAction::Pause => self.pause(RunState::Watchdog, StopReason::User),
            WatchdogAction::Debug => tracing::warn!("watchdog: timer fired"),
            WatchdogAction::None => {}
            WatchdogAction::InjectNmi => {
                Controlled::raise_nmi(self);
            }
        }
        Ok(None)
    }
}
