//! How the process behaves on the host.

/// What the options about the process itself say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// What SIGTERM does.
    pub sigterm: OnSigterm,
    /// Guest RAM is in core dumps.
    pub dump_guest_ram: bool,
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnSigterm {
    /// It ends the machine, as `quit` does in a monitor.
    #[default]
    End,
    /// The first one presses the power button, and the next ends the machine.
    PowerDown,
}
