//! The list of character devices, for `info chardev` and `query-chardev`.

use crate::config::{Config, Device};
use mimus_host::config::Chardev;
use mimus_hw::COM_PORTS;

/// Every character device that is in use: what it is called, and where it leads.
pub(super) fn all(config: &Config) -> Vec<(String, String)> {
    let row = |usual: String, chardev: &Chardev| {
        let label = if let Chardev::Named { id, .. } = chardev { id.clone() } else { usual };
        (*chardev != Chardev::None).then(|| (label, chardev.to_string()))
    };
    let devices = |reads| config.devices.iter().filter(move |device| device.reads() == reads);
    let serials = devices(true).filter_map(|port| row(format!("serial{}", com(port)), port.chardev()?));
    let console = config.console().and_then(|chardev| row("serial0".to_owned(), chardev));
    let serials = console.into_iter().chain(serials);
    let debugcons = devices(false).filter_map(|device| row("debugcon".to_owned(), device.chardev()?));
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

/// The number of a serial port, from 0 on, which follows from its place.
fn com(port: &Device) -> usize {
    let iobase = port.values.number("iobase");
    COM_PORTS.iter().position(|com| iobase == Some(com.iobase.into())).unwrap_or(COM_PORTS.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Backend, MachineKind};
    use mimus_host::config::{MonitorSocket, PtyName};
    use mimus_hw::registry::{VIRTIO_SERIAL, VIRTSERIALPORT};

    #[test]
    fn each_is_called_by_its_id_and_leads_where_it_was_opened() {
        let (name, id) = (PtyName::default(), "char0".to_owned());
        let serial = Chardev::Named { id, chardev: Chardev::Pty(name.clone()).into() };
        let port = Device::new(VIRTSERIALPORT, "").with("nr", 1).at(Chardev::Null);
        let controller = Device::new(VIRTIO_SERIAL.pci, "").behind(Backend::Ports(vec![port]));
        let second = Device::serial(COM_PORTS[1]).at(Chardev::Null);
        let devices = vec![Device::com1(serial), second, controller];
        let config = Config { devices, qmp: vec![MonitorSocket::Stdio], ..Config::default() };
        let found = |pty: &str| {
            let rows = [("char0", pty), ("serial1", "null"), ("virtcon1", "null"), ("compat_qmp0", "stdio")];
            rows.map(|(label, place)| (label.to_owned(), place.to_owned())).to_vec()
        };
        assert_eq!(all(&config), found("pty"));
        name.set("/dev/pts/7");
        assert_eq!(all(&config), found("pty:/dev/pts/7"));
        assert!(all(&Config { devices: Vec::new(), ..Config::default() }).is_empty());
        let riscv = Config { machine: MachineKind::Virt, devices: Vec::new(), ..Config::default() };
        assert_eq!(all(&riscv), [("serial0".to_owned(), "stdio".to_owned())]);
    }
}
