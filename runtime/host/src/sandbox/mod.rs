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

use anyhow::{Context, Result};

use crate::config::{Chardev, Config, NetBackend, Sandbox, Service, VirtioDevice};
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

/// Begins to give up what the machine of `config` does not need; `args` are the arguments that name its files. To be called before
/// there are threads. With `-daemonize` the process goes on as another.
///
/// # Errors
///
/// What the host refuses.
pub fn begin(config: &mut Config, args: &[OsString]) -> Result<Settling> {
    let daemon = if config.process.daemonize { Some(Daemon::start().context("-daemonize")?) } else { None };
    let identity = Identity::look_up(&config.process)?;
    config.process.runner = runner(config, &identity)?;
    let process = &config.process;
    if let Sandbox::Auto | Sandbox::On(_) = process.sandbox {
        let told = process.sandbox != Sandbox::Auto;
        match files::restrict(args, is_monitored(config), keeps_to_itself(config)) {
            Ok(true) => {}
            Ok(false) => missing(told, "this host's kernel has no landlock: any file of this user's can be opened"),
            Err(error) => missing(told, &format!("any file of this user's can be opened: {error}")),
        }
    }
    Ok(Settling { daemon, identity, sandbox: process.sandbox })
}

/// Starts a process for the programs that networks name, if they do.
fn runner(config: &Config, identity: &Identity) -> Result<Option<Runner>> {
    let virtio = config.virtio.iter().filter_map(|device| match device {
        VirtioDevice::Net { netdev, .. } => netdev.as_ref(),
        _ => None,
    });
    let netdevs = config.nics.iter().filter_map(|nic| nic.netdev.as_ref()).chain(virtio);
    let forwards = netdevs.filter_map(|netdev| match &netdev.backend {
        NetBackend::User(user) => Some(&user.guest_forwards),
        NetBackend::Link(_) => None,
    });
    let commands: Vec<_> = forwards
        .flatten()
        .filter_map(|forward| match &forward.to {
            Service::Run(command) => Some(command.clone()),
            Service::Connect(_) => None,
        })
        .collect();
    if commands.is_empty() {
        return Ok(None);
    }
    Ok(Some(Runner::start(commands, config.process.daemonize, || identity.assume()).context("-netdev user: guestfwd")?))
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

/// Whether somebody may name more files while the machine runs.
fn is_monitored(config: &Config) -> bool {
    let mux = |chardev: &Chardev| *chardev.plain() == Chardev::Stdio { mux: true };
    let console = |device: &VirtioDevice| match device {
        VirtioDevice::Console(ports, _) => ports.iter().any(|port| mux(&port.chardev)),
        _ => false,
    };
    let serials = config.isa.serials.iter().map(|serial| &serial.chardev);
    !config.monitors.is_empty()
        || !config.qmp.is_empty()
        || serials.chain([&config.serial]).any(mux)
        || config.virtio.iter().any(console)
}

/// Whether the machine has no network, so that the process has none either, unless an argument names a port.
fn keeps_to_itself(config: &Config) -> bool {
    let net = |device: &VirtioDevice| matches!(device, VirtioDevice::Net { netdev: Some(_), .. });
    let nic = config.nics.iter().any(|nic| nic.netdev.is_some());
    !nic && !config.virtio.iter().any(net) && config.vnc.is_none() && config.gdb.is_none()
}

impl Settling {
    /// Gives up the rest, and tells whoever started a daemon that it runs.
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
