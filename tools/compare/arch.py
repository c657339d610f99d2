"""The guests' architectures: what runs them, what they boot, and what is promised of mimus (ratios of its time to QEMU's)."""

import os
from dataclasses import dataclass, field

from .common import GUEST
from .table import Promises


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot, and what goes with it."""

    arch: str
    # Below target/guest.
    busybox: str
    # The command that has it all fetched, and the path of the kernel in its output.
    fetch: tuple
    path: str


KERNELS = {
    "cloud": Kernel("x86_64", "busybox", ("tools/fetch-guest", "cloud", "busybox"), "cloud/vmlinuz"),
    "generic": Kernel("x86_64", "busybox", ("tools/fetch-guest", "generic", "busybox"), "generic/vmlinuz"),
    "i386": Kernel("x86_64", "busybox-i386", ("tools/fetch-guest", "i386", "busybox-i386"), "i386/vmlinuz"),
    "riscv64": Kernel("riscv64", "riscv64/busybox", ("tools/fetch-guest-riscv64",), "riscv64/vmlinuz"),
}


@dataclass(frozen=True)
class Boot:
    """A boot that is measured."""

    kernel: str
    # All threads share one CPU.
    one_cpu: bool = False
    # mimus has translations that boots before it have kept.
    kept: bool = False


@dataclass(frozen=True)
class Arch:
    """An architecture of guests."""

    qemu: str
    # QEMU's -cpu, so that its guest sees the CPU that mimus shows, as far as TCG has it; what remains is printed.
    qemu_cpu: str
    # Options of QEMU alone, of mimus alone, and of both.
    qemu_options: tuple
    mimus_options: tuple
    options: tuple
    # Row -> Boot.
    boots: dict
    # Kernel that the suite runs under, and that memory is measured with.
    kernel: str
    # Whether there is a tree of Debian's programs, and whether disks and networks are measured.
    real: bool
    devices: bool
    promises: Promises
    # The same for runs in which all threads share one CPU.
    one_cpu: Promises
    # Kinds of the suite that have another name there, or that it does not have.
    kinds: dict = field(default_factory=dict)

    def promises_of(self, one_cpu):
        return self.one_cpu if one_cpu else self.promises

    def rows(self, rows):
        """Those of the native suite's rows, (name, kind), that the architecture has."""
        return [(name, kind) for name, native in rows if (kind := self.kinds.get(native, native))]


ARCHS = {
    "x86_64": Arch(
        qemu="qemu-system-x86_64",
        # See frontend/src/x86/cpuid.rs: which features Linux and its programs use follows from it. QEMU 7.2 has no
        # IA32_ARCH_CAPABILITIES, by which mimus tells Linux that it needs no mitigations: both guests have them off. It has
        # no VME, PCID, INVPCID, TSC_ADJUST, TSC-deadline timer and invariant TSC either.
        qemu_cpu="qemu64,vendor=GenuineIntel,family=6,model=26,stepping=5,model-id=mimus virtual CPU,l3-cache=off"
        ",+ssse3,+sse4.1,+sse4.2,+popcnt,+pdpe1gb,+rdtscp,+fsgsbase,+smep,+erms,+smap,+umip,+arat,-svm,-3dnow,-3dnowext",
        qemu_options=(),
        mimus_options=(),
        options=("-net", "none", "-vga", "none"),
        boots={
            "boot_cloud": Boot("cloud"),
            "boot_cloud_one_cpu": Boot("cloud", one_cpu=True),
            "boot_cloud_kept": Boot("cloud", kept=True),
            "boot_generic": Boot("generic"),
        },
        kernel="cloud",
        real=True,
        devices=True,
        promises=Promises(
            rows={
                "boot_cloud": (0.4, 0.3),
                "boot_cloud_one_cpu": (0.6, 0.5),
                "boot_cloud_kept": (0.3, 0.2),
                "boot_generic": (0.42, 0.3),
                "shell": (0.15, 0.1),
                "compile": (0.4, 0.3),
            },
            each={
                "integer": (0.75, 0.75),
                "calls": (0.75, 0.75),
                "system": (0.6, 0.6),
                "real": (0.65, 0.5),
                "devices": (1.0, 0.7),
            },
            mean={
                "integer": (0.48, 0.35),
                "calls": (0.33, 0.25),
                "sse": (0.069, 0.05),
                "x87": (0.09, 0.06),
                "memory": (0.029, 0.025),
                "chase": (0.65, 0.4),
                "system": (0.28, 0.2),
                "code": (0.08, 0.05),
                "real": (0.38, 0.28),
            },
            memory=(90, 60),
            costs={("real programs", "work_cpu"): (0.6, 0.4)},
        ),
        one_cpu=Promises(
            rows={"boot_cloud": (0.6, 0.5)},
            each={"real": (0.9, 0.6)},
            mean={"real": (0.5, 0.35)},
            memory=None,
            costs={},
        ),
    ),
    "riscv64": Arch(
        qemu="qemu-system-riscv64",
        # See frontend/src/riscv/isa.rs. QEMU 7.2 has no Zicond, and its board does not tell the size of a cache block, without
        # which Linux leaves Zicbom and Zicboz alone.
        qemu_cpu="rv64,h=false,zbc=false,svinval=true",
        qemu_options=("-M", "virt"),
        mimus_options=("-arch", "riscv64"),
        options=("-bios", os.path.join(GUEST, "riscv64", "fw_dynamic.bin")),
        boots={"boot_riscv64": Boot("riscv64"), "boot_riscv64_one_cpu": Boot("riscv64", one_cpu=True)},
        kernel="riscv64",
        real=False,
        devices=False,
        promises=Promises(
            rows={"boot_riscv64": (0.45, 0.45), "boot_riscv64_one_cpu": (0.75, 0.75)},
            each={},
            mean={"integer": (0.48, 0.48), "float": (0.15, 0.15), "calls": (0.22, 0.22), "system": (0.2, 0.2)},
            memory=None,
            costs={},
        ),
        one_cpu=Promises(rows={"boot_riscv64": (0.75, 0.75)}, each={}, mean={}, memory=None, costs={}),
        # long double is software there.
        kinds={"sse": "float", "x87": None},
    ),
}
