//! What QEMU has and mimus has not, by the name that users know it under, with what to do instead.

/// Something that is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Its name.
    pub name: &'static str,
    /// What to do instead, as an order.
    pub instead: &'static str,
}

impl Subject {
    /// Why `what` is refused.
    pub fn lacking(&self, what: &str) -> String {
        format!("{what} needs {}, which is not supported yet: {}", self.name, self.instead)
    }
}

const fn subject(name: &'static str, instead: &'static str) -> Subject {
    Subject { name, instead }
}

pub(super) const Q35: Subject = subject("q35", "use -machine pc");
pub(super) const MICROVM: Subject = subject("microvm", "use -machine pc");
pub(super) const MMIO: Subject = subject("microvm", "use the device whose name ends in -pci");
pub(super) const ISAPC: Subject = subject("isapc", "use -machine pc");
pub(super) const XEN: Subject = subject("Xen", "use -machine pc");
pub(super) const BOARDS: Subject = subject("this board", "use -machine virt");
pub(super) const PFLASH: Subject = subject("pflash", "use -bios FILE with the whole firmware");
pub(super) const USB: Subject = subject("USB", "leave it out, a PC has a keyboard and a mouse without");
pub(super) const VIRTIOFS: Subject = subject("virtiofs", "use -virtfs local");
pub(super) const VIRTIO_SCSI: Subject = subject("virtio-scsi", "use if=virtio or virtio-blk-pci");
pub(super) const SCSI: Subject = subject("SCSI", "use if=virtio or ide-hd");
pub(super) const AHCI: Subject = subject("AHCI", "use if=virtio or ide-hd");
pub(super) const NVME: Subject = subject("NVMe", "use if=virtio or ide-hd");
pub(super) const BLOCK_TEST: Subject = subject("a driver for tests of QEMU itself", "leave the node out");
pub(super) const VVFAT: Subject = subject("vvfat", "make an image of the folder (`mformat`, `mcopy`)");
pub(super) const REMOTE: Subject =
    subject("a disk that is reached by a network", "attach it to the host, and name its device");
pub(super) const PREALLOCATE: Subject = subject("preallocate", "leave the node out");
pub(super) const QUORUM: Subject = subject("several disks behind one", "use a RAID of the host's, or of the guest's");
pub(super) const LUKS: Subject = subject("LUKS", "let the guest or the host encrypt the disk");
pub(super) const IMAGE_FORMATS: Subject = subject("this format", "`qemu-img convert -O qcow2` makes another");
pub(super) const SD: Subject = subject("SD cards", "use if=virtio");
pub(super) const FLOPPY: Subject = subject("floppy", "use -hda or -cdrom");
pub(super) const VIRTIO_INPUT: Subject =
    subject("virtio-input", "leave it out, a PC has a keyboard and a mouse without");
pub(super) const VIRTIO_BALLOON: Subject = subject("virtio-balloon", "leave it out");
pub(super) const VIRTIO_GPU: Subject = subject("virtio-gpu", "use -vga std");
pub(super) const VSOCK: Subject = subject("vsock", "use a network or a virtconsole");
pub(super) const VHOST: Subject = subject("vhost", "use the virtio device without it");
pub(super) const SOUND: Subject = subject("sound", "leave it out, or use -audiodev none");
pub(super) const CIRRUS: Subject = subject("cirrus", "use -vga std");
pub(super) const VMWARE_VGA: Subject = subject("vmware-svga", "use -vga std");
pub(super) const QXL: Subject = subject("QXL", "use -vga std");
pub(super) const SPICE: Subject = subject("SPICE", "use -vnc");
pub(super) const RAMFB: Subject = subject("ramfb", "use -vga std");
pub(super) const NE2K: Subject = subject("ne2k", "use e1000 or virtio-net-pci");
pub(super) const RTL8139: Subject = subject("rtl8139", "use e1000 or virtio-net-pci");
pub(super) const PCNET: Subject = subject("pcnet", "use e1000 or virtio-net-pci");
pub(super) const VMXNET3: Subject = subject("vmxnet3", "use e1000 or virtio-net-pci");
pub(super) const E1000E: Subject = subject("e1000e", "use e1000 or virtio-net-pci");
pub(super) const I8255X: Subject = subject("i8255x", "use e1000 or virtio-net-pci");
pub(super) const IGB: Subject = subject("igb", "use e1000 or virtio-net-pci");
pub(super) const PARALLEL: Subject = subject("a parallel port", "leave it out");
pub(super) const SMB: Subject =
    subject("a server of SMB", "have one of the host's listen, which the guest reaches at 10.0.2.2");
pub(super) const TAP: Subject = subject("tap", "use -netdev user, stream or socket");
pub(super) const PCIE: Subject = subject("PCI bridges", "leave it out, and put devices on pci.0");
pub(super) const PCI: Subject = subject("PCI on this machine", "use the device whose name ends in -device");
pub(super) const TPM: Subject = subject("TPM", "leave it out");
pub(super) const IOMMU: Subject = subject("an IOMMU", "leave it out");
pub(super) const VFIO: Subject = subject("VFIO", "leave it out");
pub(super) const HOTPLUG: Subject = subject("memory hotplug", "give all memory by -m");
pub(super) const MIGRATION: Subject = subject("migration", "start the guest anew");
pub(super) const REPLAY: Subject = subject("record and replay", "leave it out");
pub(super) const PLUGINS: Subject = subject("plugins", "leave it out");
pub(super) const TLS: Subject = subject("TLS", "reach it by an encrypted tunnel, such as ssh's");
pub(super) const CONFIDENTIAL: Subject = subject("memory encryption", "leave it out");
