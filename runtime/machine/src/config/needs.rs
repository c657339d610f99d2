//! What a machine needs of the process that runs it, which decides what the sandbox leaves to it.

use mimus_host::sandbox::Needs;

use super::{Accel, Chardev, Config, Device, JitConfig, NetBackend, Netdev, Service};

impl Config {
    /// What this machine needs of the process.
    pub fn needs(&self) -> Needs {
        Needs {
            programs: self.programs(),
            is_monitored: self.is_monitored(),
            keeps_to_itself: self.netdevs().next().is_none() && self.vnc.is_none() && self.gdb.is_none(),
            folders: match &self.accel {
                Accel::Jit(JitConfig { cache: Some(folder), .. }) => vec![folder.clone()],
                _ => Vec::new(),
            },
        }
    }

    /// What its network adapters are plugged into.
    fn netdevs(&self) -> impl Iterator<Item = &Netdev> {
        self.devices.iter().filter_map(Device::netdev)
    }

    /// Programs that its networks name, each with its arguments.
    fn programs(&self) -> Vec<Vec<String>> {
        let forwards = self.netdevs().filter_map(|netdev| match &netdev.backend {
            NetBackend::User(user) => Some(&user.guest_forwards),
            NetBackend::Link(_) => None,
        });
        forwards
            .flatten()
            .filter_map(|forward| match &forward.to {
                Service::Run(command) => Some(command.clone()),
                Service::Connect(_) => None,
            })
            .collect()
    }

    /// Whether somebody may name more files while it runs.
    fn is_monitored(&self) -> bool {
        let mux = |chardev: &Chardev| *chardev.plain() == Chardev::Stdio { mux: true };
        let devices = self.devices.iter().chain(self.ports()).filter_map(Device::chardev);
        !self.monitors.is_empty() || !self.qmp.is_empty() || devices.chain(self.console()).any(mux)
    }
}
