//! What the process is allowed on the host, and how it runs there: `-sandbox`, `-runas`, `-daemonize`.
//!
//! A guest that gets out of its machine is in this process. So the process gives up what it does not need: first, while it has a single
//! thread, files that nobody named ([`files`]); then, when the machine is set up, the file system's root and its user's rights
//! ([`identity`]), and the system calls that no machine makes ([`calls`]).

mod calls;
mod daemon;
mod files;
mod identity;
mod runner;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::config::{Process, Sandbox};
use daemon::Daemon;
use identity::Identity;

pub use calls::Groups;
pub use runner::Runner;

/// What is left to do once the machine is set up.
#[derive(Debug, Default)]
pub struct Settling {
    daemon: Option<Daemon>,
    identity: Identity,
    sandbox: Sandbox,
}

/// What a machine needs of the process, as far as it matters for what is given up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Programs that networks start, each with its arguments.
    pub programs: Vec<Vec<String>>,
    /// There is a monitor, by which more files may be named while the machine runs.
    pub is_monitored: bool,
    /// The machine has no network, so that the process needs none either, unless an argument names a port.
    pub keeps_to_itself: bool,
    /// Folders that files are made in, changed and removed from; those that are not there are made.
    pub folders: Vec<PathBuf>,
}

/// Begins to give up what a machine with these `needs` does not need; `args` are the arguments that name its files. To be called
/// before there are threads. With `-daemonize` the process goes on as another.
///
/// # Errors
///
/// What the host refuses.
pub fn begin(process: &mut Process, needs: Needs, args: &[OsString]) -> Result<Settling> {
    let daemon = if process.daemonize { Some(Daemon::start().context("-daemonize")?) } else { None };
    let identity = Identity::look_up(process)?;
    if !needs.programs.is_empty() {
        let runner = Runner::start(needs.programs.clone(), process.daemonize, || identity.assume());
        process.runner = Some(runner.context("-netdev user: guestfwd")?);
    }
    if let Sandbox::Auto | Sandbox::On(_) = process.sandbox {
        let told = process.sandbox != Sandbox::Auto;
        match files::restrict(args, &needs) {
            Ok(true) => {}
            Ok(false) => missing(told, "this host's kernel has no landlock: any file of this user's can be opened"),
            Err(error) => missing(told, &format!("any file of this user's can be opened: {error}")),
        }
    }
    Ok(Settling { daemon, identity, sandbox: process.sandbox })
}

fn missing(told: bool, what: &str) {
    if told {
        tracing::warn!("-sandbox: {what}");
    } else {
        tracing::info!(target: "unimp", "-sandbox: {what}");
    }
}

/// Whether the process has all rights on the host, and not just those in a container of its own.
fn is_everybody() -> bool {
    let all = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    rustix::process::geteuid().is_root() && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(all)
}

impl Settling {
    /// Gives up the rest, and lets the process that started a daemon end.
    ///
    /// # Errors
    ///
    /// What the host refuses.
    pub fn settle(self) -> Result<()> {
        let is_everybody = is_everybody();
        self.identity.assume()?;
        if !self.identity.has_user() && is_everybody {
            tracing::warn!("running as root: -runas USER gives that up once the machine is set up");
        }
        let groups = match self.sandbox {
            Sandbox::Off => None,
            Sandbox::Auto => Some((false, calls::Groups::default())),
            Sandbox::On(groups) => Some((true, groups)),
        };
        if let Some((told, groups)) = groups
            && let Err(error) = calls::forbid(groups)
        {
            missing(told, &format!("any system call can be made: {error}"));
        }
        self.daemon.map_or(Ok(()), |daemon| daemon.ready().context("-daemonize"))
    }
}

#[cfg(test)]
mod tests;
