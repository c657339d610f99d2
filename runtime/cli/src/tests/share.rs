//! Command lines about shared folders.

use super::*;
use mimus_host::config::{OtherDevices, SecurityModel, SharedFolder};

fn folder(id: &str, option: &str) -> SharedFolder {
    SharedFolder {
        id: id.into(),
        path: ".".into(),
        model: SecurityModel::None,
        read_only: false,
        writes_through: false,
        file_mode: 0o600,
        directory_mode: 0o700,
        devices: OtherDevices::Warn,
        option: option.into(),
    }
}

/// Folders, what they are mounted by, and their devices.
fn shares(line: &str) -> Vec<(SharedFolder, String, Plug)> {
    let shares = config_of(line).devices.into_iter().filter_map(|device| match device.backend {
        Backend::Folder(folder) => Some((folder, device.values.text("mount_tag").unwrap_or_default(), device.plug)),
        _ => None,
    });
    shares.collect()
}

#[test]
fn shared_folders() {
    let share = |folder, tag: &str| (folder, tag.to_owned(), Plug::default());
    let virtfs = folder("tag", "-virtfs local");
    assert_eq!(shares("-virtfs local,path=.,security_model=none,mount_tag=tag"), [share(virtfs, "tag")]);
    let all = SharedFolder {
        path: "a,b".into(),
        model: SecurityModel::MappedXattr,
        read_only: true,
        writes_through: true,
        file_mode: 0o644,
        directory_mode: 0o755,
        devices: OtherDevices::Remap,
        ..folder("x", "-virtfs local")
    };
    let line = "-virtfs local,id=x,path=a,,b,mount_tag=t,security_model=mapped,readonly,writeout=immediate,fmode=0644,\
                dmode=755,multidevs=remap";
    assert_eq!(shares(line), [share(all, "t")]);
    // The device may come first, and takes its place in the order of devices.
    let own = folder("src", "-fsdev local");
    let device = "-device virtio-9p-pci,id=fs0,fsdev=src,mount_tag=src,addr=9";
    let plug = Plug { id: "fs0".into(), addr: Some(9 << 3), ..Plug::default() };
    assert_eq!(
        shares(&format!("{device} -fsdev local,path=.,id=src,security_model=none")),
        [(own.clone(), "src".to_owned(), plug)]
    );
    let line =
        "-arch riscv64 -fsdev local,path=.,id=src,security_model=none -device virtio-9p-device,fsdev=src,mount_tag=a";
    assert_eq!(shares(line), [share(own, "a")]);
    assert!(printed("-virtfs local,help").contains("mount_tag"));
    assert!(printed("-fsdev help").contains("local"));
}

#[test]
fn shared_folders_that_are_none() {
    let long = format!("-virtfs local,path=.,security_model=none,mount_tag={}", "t".repeat(33));
    let longer = format!("-virtfs local: mount_tag: '{}' is longer than 32 bytes", "t".repeat(33));
    refused(&[
        ("-virtfs local,path=.,mount_tag=a", "-virtfs local: needs security_model=none, passthrough or mapped-xattr"),
        ("-virtfs local,mount_tag=a,security_model=none", "-virtfs local: needs path=FOLDER"),
        ("-virtfs local,path=.,security_model=none", "-virtfs local: needs mount_tag=TAG"),
        (&long, &longer),
        ("-fsdev local,path=.,security_model=none", "-fsdev local: needs id=ID"),
        (
            "-fsdev local,id=a,path=.,security_model=mapped-file",
            "-fsdev local: security_model: mapped-file is not supported: use mapped-xattr",
        ),
        (
            "-fsdev local,id=a,path=.,security_model=none,fmode=0644",
            "-fsdev local: fmode: is for security_model=mapped-xattr, others take the guest's permissions",
        ),
        (
            "-fsdev local,id=a,path=.,security_model=mapped-xattr,dmode=9",
            "-fsdev local: dmode: '9' are not permissions, as 0644 is",
        ),
        ("-fsdev synth,id=a", "-fsdev: 'synth': files for QEMU's own tests: use local"),
        ("-virtfs proxy,id=a", "-virtfs: 'proxy': a helper of QEMU's that is no more: use local"),
        ("-device virtio-9p-pci,mount_tag=t", "-device virtio-9p-pci: needs fsdev=ID"),
        ("-device virtio-9p-pci,fsdev=q,mount_tag=t", "-device virtio-9p-pci: fsdev: there is no -fsdev with id=q"),
        (
            "-virtfs local,path=.,security_model=none,mount_tag=a -fsdev local,id=a,path=.,security_model=none",
            "-virtfs local: the id 'a' is given twice",
        ),
    ]);
}
