//! The list of character devices, for `info chardev` and `query-chardev`.

use crate::config::{Config, Device};
use mimus_host::config::Chardev;

/// Every character device that is in use: what it is called, and where it leads.
pub(super) fn all(config: &Config) -> Vec<(String, String)> {
    let row = |usual: String, chardev: &Chardev| {
        let label = if let Chardev::Named { id, .. } = chardev { id.clone() } else { usual };
        (*chardev != Chardev::None).then(|| (label, chardev.to_string()))
    };
    let devices = |reads| {
        let devices = config.devices.iter().filter(move |device| device.reads() == reads);
        devices.filter_map(Device::chardev)
    };
    let serials = [&config.serial].into_iter().chain(devices(true));
    let serials = serials.enumerate().filter_map(|(index, chardev)| row(format!("serial{index}"), chardev));
    let debugcons = devices(false).filter_map(|chardev| row("debugcon".to_owned(), chardev));
    let number = |port: &Device| port.values.number("nr").unwrap_or(0);
    let ports = config.ports().filter_map(|port| row(format!("virtcon{}", number(port)), port.chardev()?));
    let semihosting = config.riscv.semihosting.as_ref().and_then(|calls| calls.chardev.as_ref());
    let semihosting = semihosting.and_then(|chardev| row("semihosting".to_owned(), chardev));
    let monitors = [("monitor", &config.monitors[..]), ("qmp", &config.qmp), ("gdb", config.gdb.as_slice())];
    let monitors = monitors.into_iter().flat_map(|(kind, places)| {
        let row = move |(index, place): (usize, _)| (format!("compat_{kind}{index}"), format!("{place}"));
        places.iter().enumerate().map(row)
    });
    serials.chain(debugcons).chain(ports).chain(semihosting).chain(monitors).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backend;
    use mimus_host::config::{MonitorSocket, PtyName};
    use mimus_hw::registry::{VIRTIO_SERIAL, VIRTSERIALPORT};

    #[test]
    fn each_is_called_by_its_id_and_leads_where_it_was_opened() {
        let (name, id) = (PtyName::default(), "char0".to_owned());
        let serial = Chardev::Named { id, chardev: Chardev::Pty(name.clone()).into() };
        let port = Device::new(VIRTSERIALPORT, "").with("nr", 1).at(Chardev::Null);
        let controller = Device::new(VIRTIO_SERIAL.pci, "").behind(Backend::Ports(vec![port]));
        let config = Config { serial, devices: vec![controller], qmp: vec![MonitorSocket::Stdio], ..Config::default() };
        let found = |pty: &str| {
            let rows = [("char0", pty), ("virtcon1", "null"), ("compat_qmp0", "stdio")];
            rows.map(|(label, place)| (label.to_owned(), place.to_owned())).to_vec()
        };
        assert_eq!(all(&config), found("pty"));
        name.set("/dev/pts/7");
        assert_eq!(all(&config), found("pty:/dev/pts/7"));
        assert!(all(&Config { serial: Chardev::None, ..Config::default() }).is_empty());
    }
}
