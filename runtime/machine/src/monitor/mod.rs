//! Monitors and debuggers: the human monitor, QMP, and gdb's protocol, on sockets or the terminal.
//!
//! Each place is a thread ([`server`]) that reads and writes; what it is asked to do the vCPU's thread does
//! ([`crate::control`]).

mod chardevs;
mod commands;
mod expression;
mod gdb;
mod hmp;
mod memory;
mod qmp;
mod server;

use std::io::IsTerminal;
use std::sync::Arc;

use crate::config::Config;
use crate::control::Control;
use gdb::Gdb;
use hmp::{Hmp, TerminalConsole};
use mimus_host::config::MonitorSocket;
use mimus_host::error::HostError;
use mimus_host::terminal::{Console, RawTerminal};
use qmp::Qmp;
use server::{Open, Server};

/// The places where monitors and debuggers connect. When it is dropped the control channel must be closed already.
#[derive(Debug, Default)]
pub struct Monitors {
    servers: Vec<Server>,
    // After the server that uses it.
    terminal: Option<RawTerminal>,
}

impl Monitors {
    /// Starts all that the configuration names.
    ///
    /// # Errors
    ///
    /// What the host refuses, by the option's name.
    pub fn start(config: &Config, control: &Arc<Control>) -> Result<Monitors, HostError> {
        let mut monitors = Monitors::default();
        let fail = |option: &str, error: std::io::Error| HostError::new(option, format!("the terminal: {error}"));
        for endpoint in &config.monitors {
            let stdin = std::io::stdin();
            if *endpoint == MonitorSocket::Stdio && stdin.is_terminal() {
                monitors.terminal = RawTerminal::enter(&stdin, false).map_err(|error| fail("-monitor", error))?;
            }
            let channel = control.clone();
            let open: Open = Box::new(move |out| Box::new(Hmp::new(channel.clone(), out)));
            monitors.servers.push(Server::start("-monitor", endpoint, control, open)?);
        }
        for endpoint in &config.qmp {
            let (channel, pretty) = (control.clone(), config.qmp_pretty);
            let open: Open = Box::new(move |out| Box::new(Qmp::new(channel.clone(), pretty, out)));
            monitors.servers.push(Server::start("-qmp", endpoint, control, open)?);
        }
        if let Some(endpoint) = &config.gdb {
            let channel = control.clone();
            let open: Open = Box::new(move |_| Box::new(Gdb::new(channel.clone())));
            monitors.servers.push(Server::start("-gdb", endpoint, control, open)?);
        }
        Ok(monitors)
    }
}

/// The human monitor behind Ctrl-A c.
pub(crate) fn console(control: Arc<Control>) -> Box<dyn Console> {
    Box::new(TerminalConsole::new(control))
}
