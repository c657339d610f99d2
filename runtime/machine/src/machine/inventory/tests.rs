//! Tests of what monitors tell of a machine's devices, disks and networks.

use std::path::Path;

use mimus_hw::pci::{Config, Identity};

use super::*;
use mimus_host::config::{FIRST_MAC, ImageFormat, NetBackend, UserNet};

const CD: IdePlace = IdePlace { channel: 1, unit: 0 };

fn machine(image: &Path) -> Inventory {
    let mut all = Inventory::of(&crate::config::Config::default());
    let disk = Disk { format: Some(ImageFormat::Raw), serial: "s".into(), ..Disk::new(image) };
    let open = Image::open("-drive", &disk).unwrap();
    let drive = |name: String, medium: Option<()>| Drive {
        name,
        removable: medium.is_none(),
        medium: medium.map(|()| Medium::new(&disk, &open)),
        counters: Arc::default(),
    };
    all.drive(Attachment::Ide(CD), registry::IDE_CD, &Plug::default(), drive("ide1-cd0".into(), None));
    let plug = Plug { id: "disk".into(), ..Plug::default() };
    all.drive(Attachment::Pci(4 << 3), registry::VIRTIO_BLK.pci, &plug, drive(all.virtio_name(&disk), Some(())));
    let netdev = Netdev { id: "n".into(), ..Netdev::of(NetBackend::User(UserNet::default())) };
    let adapter = Adapter { mac: FIRST_MAC, netdev: Some(netdev), watcher: None };
    all.adapter(Attachment::Pci(3 << 3), registry::E1000, &Plug::default(), adapter);
    all
}

#[test]
fn monitors_are_told_of_every_device() {
    let path = std::env::temp_dir().join(format!("mimus-inventory-{}", std::process::id()));
    std::fs::write(&path, [0; 2048]).unwrap();
    let all = machine(&path);
    let file = path.display();
    let mut tray = |place| (place == CD).then_some(Tray { open: true, locked: true });
    let identity =
        Identity { vendor: 0x1af4, device: 0x1042, revision: 1, class: 0x01_0000, subsystem: (0x1af4, 0x1100) };
    let pci = [Pci::new(4 << 3, &Config::new(identity))];
    let text = all.info("block", &mut tray, &pci).unwrap();
    let expected = format!(
        "ide1-cd0: [not inserted]\n    Attached to:      /machine/unattached/device[16]\n    \
         Removable device: locked, tray open\n\n\
         virtio0 (#virtio0): {file} (raw)\n    Attached to:      /machine/peripheral/disk/virtio-backend\n    \
         Cache mode:       writeback\n"
    );
    assert_eq!(text, expected);
    let json: serde_json::Value = serde_json::from_str(&all.info("qmp-block", &mut tray, &pci).unwrap()).unwrap();
    assert_eq!(
        (&json[0]["device"], &json[0]["tray_open"], &json[0]["inserted"]),
        (&"ide1-cd0".into(), &true.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&json[1]["inserted"]["image"]["virtual-size"], &json[1]["inserted"]["drv"]),
        (&2048.into(), &"raw".into())
    );
    let text = all.info("network", &mut tray, &pci).unwrap();
    assert_eq!(
        text,
        "e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n \\ n: index=0,type=user,net=10.0.2.0,restrict=off\n"
    );
    assert!(all.usernet_text().starts_with("Hub -1 (n):\n  Protocol[State]"));
    let tree = all.info("qtree", &mut tray, &pci).unwrap();
    // Every device is in the tree, below the bus that it is on.
    assert_eq!(tree.matches("dev: ").count(), all.devices.len(), "{tree}");
    for line in [
        "      dev: virtio-blk-pci, id \"disk\"\n        addr = 04.0\n        class SCSI controller, addr 00:04.0, pci id 1af4:1042 (sub 1af4:1100)\n",
        "          dev: ide-cd, id \"\"\n            unit = 0\n",
        "        drive = \"virtio0\"\n        serial = \"s\"\n",
    ] {
        assert!(tree.contains(line), "{line}{tree}");
    }
    assert!(all.info("blockstats", &mut tray, &pci).unwrap().starts_with("ide1-cd0: rd_bytes=0 rd_operations=0 "));
    assert_eq!(all.info("nonsense", &mut tray, &pci), None);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn an_adapter_is_in_the_network_that_it_is_in() {
    let mut all = Inventory::of(&crate::config::Config::default());
    let unnamed = Netdev::of(NetBackend::User(UserNet::default()));
    for netdev in [None, Some(unnamed)] {
        all.adapter(
            Attachment::On("pci.0"),
            registry::E1000,
            &Plug::default(),
            Adapter { mac: FIRST_MAC, netdev, watcher: None },
        );
    }
    let tree = all.tree_text(&[]);
    assert!(tree.contains("netdev = \"\"\n"), "{tree}");
    // As 'info network' calls it.
    assert!(tree.contains("netdev = \"#net1\"\n"), "{tree}");
    assert!(all.network_text().contains("#net1: index=0,type=user"));
}

#[test]
fn only_drives_for_media_are_changed() {
    let path = std::env::temp_dir().join(format!("mimus-inventory-change-{}", std::process::id()));
    std::fs::write(&path, [0; 2048]).unwrap();
    let mut all = machine(&path);
    assert_eq!(all.removable("ide1-cd0").map(|(place, _)| place), Ok(CD));
    for name in ["virtio0", "disk"] {
        assert_eq!(all.removable(name).unwrap_err(), format!("Device '{name}' is not removable"));
    }
    assert_eq!(all.removable("").unwrap_err(), "Device '' not found");
    std::fs::remove_file(&path).unwrap();
}
