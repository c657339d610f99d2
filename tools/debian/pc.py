"""The disk of `tools/make-disk-pc`, by SeaBIOS and GRUB: apt, ssh, fio, and what the kernel finds."""

import difflib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import typing

from compare import common
from compare.common import Failed, die, say

from .session import Guest, host

QEMU = ("qemu-system-x86_64", "qemu-system-x86")
PASSWORD = "mimus"
SUITE = "bookworm"
# What the guest's gateway leads to this host's loopback.
GATEWAY = "10.0.2.2"

# Name, and what precedes the names of its checks.
BOARDS = {"ide": "ide/", "virtio": "virtio/"}


class Hardware(typing.NamedTuple):
    """What a board has, and how its last boot ends."""

    bus: str
    adapter: str
    end: str


HARDWARE = {
    "ide": Hardware("ide", "e1000", "poweroff"),
    "virtio": Hardware("virtio", "virtio-net-pci", "system_powerdown"),
}
SCRATCH_MIB = 192

# Kernel messages that a sound machine does not cause.
COMPLAINTS = (
    r"BUG:|WARNING:|Call Trace|nobody cared|ACPI( BIOS)? (Error|Warning)|Firmware (Bug|Warn)|BIOS bug|exception Emask"
    "|failed command|timed out|I/O error|lockup|rcu.*stall|Machine check|link is slow|frozen|can.t derive routing|unstable"
)

# Name, command, what it prints last (a regular expression), and whether what it takes is compared.
STEPS = (
    ("architecture", "uname -m", "x86_64", False),
    ("booted", "systemctl is-system-running --wait", "running", False),
    ("no-failed-units", "systemctl --failed --no-legend --plain | wc -l", "0", False),
    ("root-disk", "findmnt -n -o SOURCE,FSTYPE /", r"/dev/[sv]d[ab]1\s+ext4", False),
    ("network", "ip -4 -o address show eth0; ip route | grep -c default", "1", False),
)

APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
APT_STEPS = (
    # Otherwise it may hold apt's locks.
    ("apt-alone", "systemctl mask --now apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1; echo $?", "0", False),
    ("apt-update", f"{APT} update >/tmp/log 2>&1 || tail -n 5 /tmp/log; grep -c '^[EW]:' /tmp/log", "0", True),
    ("apt-install", f"{APT} install -y hello >/tmp/log 2>&1 || tail -n 5 /tmp/log; hello", "Hello, world!", True),
    ("apt-remove", f"{APT} purge -y hello >/tmp/log 2>&1 || tail -n 5 /tmp/log; test -e /usr/bin/hello; echo $?", "1", False),
    ("dpkg-audit", "dpkg --audit | wc -l", "0", False),
)

# Each writes its own part of the scratch disk, and reads back what it wrote.
FIO = "fio --filename={disk} --direct=1 --verify=crc32c --verify_fatal=1 --eta=never --output=/tmp/log"
FIO_JOBS = (
    ("fio-sequential-64k", "--ioengine=libaio --iodepth=8 --rw=write --bs=64k --offset=0 --size=64m"),
    ("fio-random-4k", "--ioengine=libaio --iodepth=32 --rw=randwrite --bs=4k --offset=64m --size=32m"),
    ("fio-random-512-to-64k", "--ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=512-64k --offset=96m --size=64m"),
    ("fio-flushes", "--ioengine=psync --fsync=32 --rw=randwrite --bs=4k --offset=160m --size=4m"),
    ("fio-sequential-1m", "--ioengine=libaio --iodepth=4 --rw=write --bs=1m --offset=164m --size=28m"),
)

# What is written down of each guest.
REPORTS = (
    ("dmesg", "dmesg --notime --color=never"),
    ("lspci", "lspci -nn -vv"),
    ("journal-errors", "journalctl -b -p err --no-pager -o cat"),
    ("interrupts", "sed 's/  [0-9]* /  /' /proc/interrupts"),
    ("ports", "cat /proc/ioports"),
    ("memory", "cat /proc/iomem"),
)

# What differs from boot to boot.
MASKS = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*|\b\d+(\.\d+)? ?(MHz|kHz|ns|us|ms|usecs|nsecs|BogoMIPS)\b|lpj=\d+", "#"),
    (r"\b\d+(\.\d+)? ?(seconds|s|MB/s)\b|tsc_\w+: \w+|audit\(\S+|\d+K/\d+K|\d+K\b|\b0x[0-9a-f]{8,}\b", "#"),
)


def prepare(options):
    options.disk = options.disk or os.path.join(common.GUEST, "disk", "debian-amd64.qcow2")
    if not os.path.exists(options.disk):
        die(f"no {options.disk}: make it with tools/make-disk-pc")
    common.needs(("qemu-img", "qemu-utils"), ("ssh", "openssh-client"))
    options.scratch = None
    if options.reports:
        os.makedirs(options.reports, exist_ok=True)


def apt_files():
    """Where this host's apt gets packages from and by what proxy, as files for the guest."""
    if shutil.which("apt-get") is None:
        raise Failed("this host has no apt whose mirror could be used")
    targets = host("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    found = re.search(rf"(?m)^{SUITE} main (\S+)", targets)
    if not found:
        raise Failed(f"this host's apt has no {SUITE} main")
    settings = re.findall(r"(?m)^Acquire::(?:https?::|Check-).*$", host("apt-config", "dump"))
    files = {
        "/etc/apt/sources.list": f"deb {found[1]} {SUITE} main",
        "/etc/apt/apt.conf.d/90host": "\n".join(settings),
    }
    return {path: re.sub(r"//(127\.0\.0\.1|localhost)\b", f"//{GATEWAY}", text) for path, text in files.items()}


class Disks:
    """An overlay of the image, and an empty scratch disk."""

    def __init__(self, image, folder):
        self.root = os.path.join(folder, "root.qcow2")
        # Names from inside an image do not lead out of its own folder.
        self.backing = f"backing.driver=qcow2,backing.file.filename={os.path.abspath(image)}"
        self.scratch = os.path.join(folder, "scratch.qcow2")
        self.raw = os.path.join(folder, "scratch.raw")
        host("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", os.path.abspath(image), self.root)
        host("qemu-img", "create", "-q", "-f", "qcow2", self.scratch, f"{SCRATCH_MIB}M")

    def check(self, run, guests_sum):
        """What is in the images when nothing has them open."""
        for name, image in (("root-image", self.root), ("scratch-image", self.scratch)):
            done = subprocess.run(["qemu-img", "check", "-q", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode:
                run.fail(name, f"qemu-img check: exit code {done.returncode}{common.tail(done.stdout)}")
            else:
                run.passed(name)
        if guests_sum is not None:
            host("qemu-img", "convert", "-O", "raw", self.scratch, self.raw)
            with open(self.raw, "rb") as file:
                hosts_sum = hashlib.file_digest(file, "sha256").hexdigest()
            if guests_sum == hosts_sum:
                run.passed("scratch-content")
            else:
                run.fail("scratch-content", f"the guest has read {guests_sum}, on the host there is {hosts_sum}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ssh:
    """The guest by its forwarded port."""

    def __init__(self, folder, port):
        self.folder, self.port, self.key = folder, port, os.path.join(folder, "key")
        host("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "check-debian", "-f", self.key)
        quiet = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR", "ConnectTimeout=60")
        self.options = ["-F", "/dev/null", "-i", self.key, *(word for each in quiet for word in ("-o", each))]

    def public_key(self):
        with open(f"{self.key}.pub", encoding="utf-8") as file:
            return file.read().strip()

    def run(self, command):
        return host("ssh", *self.options, "-p", str(self.port), "root@127.0.0.1", command).strip()

    def scp(self, source, target):
        host("scp", "-q", *self.options, "-P", str(self.port), source, target)

    def command(self):
        if (said := self.run("hostname; exit 0")) != "mimus":
            raise Failed(f"hostname printed {said!r}")

    def copies(self):
        """Some MB into the guest and back, with their checksum there."""
        there, back = os.path.join(self.folder, "there"), os.path.join(self.folder, "back")
        content = os.urandom(8 << 20)
        with open(there, "wb") as file:
            file.write(content)
        self.scp(there, "root@127.0.0.1:/root/there")
        if (said := self.run("sha256sum </root/there").split()[0]) != hashlib.sha256(content).hexdigest():
            raise Failed(f"in the guest its checksum is {said}")
        self.scp("root@127.0.0.1:/root/there", back)
        with open(back, "rb") as file:
            if file.read() != content:
                raise Failed("what came back is not what was sent")


def command(program, board, options, disks, port):
    bus, adapter = HARDWARE[board].bus, HARDWARE[board].adapter
    return [
        *(options.programs[program], *("-accel", "tcg") * (program == "qemu"), "-m", str(options.memory), "-nographic"),
        *("-drive", f"file={disks.root},format=qcow2,if={bus},{disks.backing}"),
        *("-drive", f"file={disks.scratch},format=qcow2,if={bus}"),
        *("-nic", f"user,model={adapter},hostfwd=tcp:127.0.0.1:{port}-:22"),
        *(options.extra if program == "mimus" else ()),
    ]


def session(run, board, options, folder, log):
    """Boots a copy of the disk and works in it."""
    disks, port = Disks(options.disk, folder), free_port()
    line = command(run.program, board, options, disks, port)
    guest = Guest(line, options.timeout, log)
    guests_sum = None
    try:
        run.logged_in(guest, PASSWORD)
        if not options.boot:
            # What the kernel says would come between what commands print.
            guest.run("dmesg -n 1")
            guests_sum = work(run, guest, Ssh(folder, port))
            keep(run, board, options, guest)
            run.rebooted(guest, PASSWORD)
        end(run, HARDWARE[board].end, guest)
    except (Failed, BrokenPipeError) as error:
        run.fail("session", error)
        say(f"the command was: {' '.join(line)}")
    finally:
        guest.kill()
    disks.check(run, guests_sum)


def scratch_disk(guest):
    """The guest's name of the scratch disk. Linux names IDE disks in the order in which it happens to be done with them."""
    printed, _ = guest.run(f"lsblk -bdnpo NAME,SIZE | grep -w {SCRATCH_MIB << 20}")
    found = re.search(r"(?m)^(/dev/\w+)\s", printed)
    if not found:
        raise Failed(f"the guest has no disk of {SCRATCH_MIB} MiB")
    return found[1]


def work(run, guest, ssh):
    """All that is tried in a running guest; the checksum of its scratch disk."""
    for step in STEPS:
        run.step(guest, *step)
    guest.run(f"mkdir -p -m 700 /root/.ssh; echo '{ssh.public_key()}' >/root/.ssh/authorized_keys")
    run.attempt(guest, "ssh", ssh.command)
    run.attempt(guest, "scp", ssh.copies)
    try:
        for path, text in apt_files().items():
            guest.put(path, text)
        for step in APT_STEPS:
            run.step(guest, *step)
    except Failed as error:
        run.fail("apt", error)
    disk = scratch_disk(guest)
    fio = FIO.format(disk=disk)
    for name, job in FIO_JOBS:
        run.step(guest, name, f"{fio} --name=job {job} || tail -n 5 /tmp/log; grep -o 'err= *[0-9]*' /tmp/log", "err= *0", True)
    run.step(guest, "no-complaints", f"dmesg | grep -E '{COMPLAINTS}'; dmesg | grep -c -E '{COMPLAINTS}'", "0", False)
    printed, _ = guest.run(f"sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum {disk}")
    found = re.search(r"\b[0-9a-f]{64}\b", printed)
    return found[0] if found else "nothing"


def end(run, way, guest):
    if way == "system_powerdown":
        # The button is heard when logind is there; a login says that it is.
        guest.monitor(way)
    else:
        guest.type(f"{way}\n")
    run.ended(guest, way)


def keep(run, board, options, guest):
    """Writes what the guest says about its machine to the folder for it."""
    if not options.reports:
        return
    for name, command_line in REPORTS:
        printed, _ = guest.run(command_line)
        with open(os.path.join(options.reports, f"{board}-{name}.{run.program}"), "w", encoding="utf-8") as file:
            file.write(printed + "\n")


def masked(text):
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text)
    return text.splitlines(keepends=True)


def compare_reports(options):
    """Writes how the reports of the two programs differ beside them."""
    for board in BOARDS:
        for name, _ in REPORTS:
            paths = [os.path.join(options.reports, f"{board}-{name}.{program}") for program in common.PROGRAMS]
            if not all(os.path.exists(path) for path in paths):
                continue
            texts = []
            for path in paths:
                with open(path, encoding="utf-8") as file:
                    texts.append(masked(file.read()))
            lines = list(difflib.unified_diff(*texts, *common.PROGRAMS, n=0))
            with open(os.path.join(options.reports, f"{board}-{name}.diff"), "w", encoding="utf-8") as file:
                file.writelines(lines)
            changed = sum(line[0] in "+-" for line in lines[2:])
            print(f"   {board}/{name}: {changed} lines differ (of {len(texts[0])} and {len(texts[1])})")
