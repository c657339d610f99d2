//! What a configuration says of the process: its rights on the host, and what signals do.

use std::fmt;
use std::path::PathBuf;

use crate::sandbox::{Groups, Runner};

/// What the options about the process itself say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// What SIGTERM does.
    pub sigterm: OnSigterm,
    /// Guest RAM is in core dumps.
    pub dump_guest_ram: bool,
    /// What the process gives up.
    pub sandbox: Sandbox,
    /// Who it becomes once the machine is set up.
    pub run_as: Option<RunAs>,
    /// What it takes for the root of the file system then.
    pub root: Option<PathBuf>,
    /// Once the machine is set up, the process goes on in the background.
    pub daemonize: bool,
    /// Who runs the programs that networks name, once the process has begun to give up rights.
    pub runner: Option<Runner>,
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnSigterm {
    /// SIGTERM ends the machine, as `quit` does in a monitor.
    #[default]
    End,
    /// The first one presses the power button, and the next ends the machine.
    PowerDown,
}

/// What the process gives up of its user's rights on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// What it can, quietly.
    #[default]
    Auto,
    /// Files that no argument names cannot be opened, nor these system calls made; what the host cannot take away is a warning.
    On(Groups),
    /// Nothing.
    Off,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAs {
    /// By name, with all of its groups.
    Name(String),
    /// By the numbers of a user and a group.
    Ids(u32, u32),
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunAs::Name(name) => f.write_str(name),
            RunAs::Ids(uid, gid) => write!(f, "{uid}:{gid}"),
        }
    }
}
