//! What the machine does when something happens to its guest: the values of `-action`, which QMP's `set-action` changes while it
//! runs.

/// An enumeration whose variants have words in QEMU's command line and in QMP.
macro_rules! words {
    ($(#[$of:meta])* $name:ident { $($(#[$variant_of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_of])* $variant,)*
        }

        impl $name {
            /// QEMU's words for all of them.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The one that `word` is for.
            pub fn named(word: &str) -> Option<$name> {
                match word {
                    $($word => Some($name::$variant),)*
                    _ => None,
                }
            }

            /// QEMU's word for it.
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }
    };
}

words! {
    /// What happens when the guest tells that it has panicked.
    PanicAction {
        /// The guest stops.
        Pause = "pause",
        /// The run ends; if a guest that powers off only stops, this one does so too.
        #[default]
        Shutdown = "shutdown",
        /// The run ends with an exit code that is not 0.
        ExitFailure = "exit-failure",
        /// It is told, and the guest goes on.
        None = "none",
    }
}

words! {
    /// What happens when the guest's watchdog has expired.
    WatchdogAction {
        /// The machine is reset.
        #[default]
        Reset = "reset",
        /// The power button is pressed.
        Shutdown = "shutdown",
        /// The run ends.
        PowerOff = "poweroff",
        /// The guest stops.
        Pause = "pause",
        /// The log says so.
        Debug = "debug",
        /// It is told, and the guest goes on.
        None = "none",
        /// The vCPU gets a non-maskable interrupt.
        InjectNmi = "inject-nmi",
    }
}

/// What is to be done from now on; `None` for what stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Actions {
    /// Whether a reset by the guest resets the machine, rather than ends the run.
    pub reboots: Option<bool>,
    /// Whether a guest that powers off ends the run, rather than stops.
    pub ends: Option<bool>,
    /// When the guest has panicked.
    pub panic: Option<PanicAction>,
    /// When the watchdog has expired.
    pub watchdog: Option<WatchdogAction>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_actions_are_for_each_other() {
        assert!(PanicAction::WORDS.iter().all(|word| PanicAction::named(word).map(PanicAction::word) == Some(word)));
        let back = |word: &str| WatchdogAction::named(word).map(WatchdogAction::word);
        assert!(WatchdogAction::WORDS.iter().all(|word| back(word) == Some(word)));
        assert_eq!((back("explode"), PanicAction::default().word()), (None, "shutdown"));
    }
}
