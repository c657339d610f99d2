"""Disks and network adapters: fixed work by fio on blocks of a scratch image, and TCP connections to a peer on the host."""

import glob
import lzma
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
from dataclasses import dataclass

from .common import GUEST, Failed, die, output, tail
from .suite import ROW, folder, run_guest, tmpfs

MEMORY = 1024
# With what they need, but for what is built in (Debian's generic kernel).
MODULES = ("ata_piix", "sd_mod", "virtio_pci", "virtio_blk", "virtio_net", "e1000")

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Disk:
    """What fio does to a part of a disk: every block of it once, and that so many times."""

    interface: str
    rw: str
    block: int
    blocks: int
    depth: int
    loops: int = 1

    def region(self, divisor):
        return max(self.blocks // divisor, 1) * self.block


@dataclass(frozen=True)
class Net:
    """What goes by a TCP connection: blocks of 64 KiB from or to the guest, or requests and answers of 64 bytes."""

    adapter: str
    what: str
    count: int


def disk_rows(name, sequential, random, single):
    return {
        f"{name}_read": Disk(name, "read", MIB, sequential, 4, loops=4),
        f"{name}_write": Disk(name, "write", MIB, sequential, 4),
        f"{name}_random_read": Disk(name, "randread", 4 * KIB, random, 16),
        f"{name}_random_write": Disk(name, "randwrite", 4 * KIB, random, 16),
        # One at a time: how long a request takes.
        f"{name}_latency": Disk(name, "randread", 4 * KIB, single, 1),
    }


def net_rows(name, send, receive, ping):
    return {
        f"{name}_send": Net(name, "send", send),
        f"{name}_receive": Net(name, "receive", receive),
        f"{name}_ping_pong": Net(name, "ping", ping),
    }


ROWS = {
    **disk_rows("ide", 256, 8192, 4096),
    **disk_rows("virtio_blk", 512, 16384, 8192),
    **net_rows("e1000", 512, 1024, 4000),
    **net_rows("virtio_net", 1024, 2048, 4000),
}

# Interface -> -drive's if=, name of the disk in the guest.
DRIVES = {"ide": ("ide", "sda"), "virtio_blk": ("virtio", "vda")}
# Adapter -> -device, driver in the guest.
ADAPTERS = {"e1000": ("e1000", "e1000"), "virtio_net": ("virtio-net-pci", "virtio_net")}

# fio's terse lines of version 3, and where KiB and milliseconds of reads and of writes are in them.
TERSE = re.compile(r"^3;fio-[^;]*;.*$", re.MULTILINE)
READ, WRITE = (5, 8), (46, 49)


def pattern(offset, block, length):
    """What fio's verify_pattern=%o puts into the blocks of a part of a disk: each word is the offset of its block."""
    return (struct.pack("<Q", at) * (block // 8) for at in range(offset, offset + length, block))


class Images:
    """A scratch image for each interface, with a part for each row."""

    def __init__(self, scratch, rows, divisor):
        self.parts, self.paths, self.divisor = {}, {}, divisor
        for interface in DRIVES:
            self.paths[interface] = os.path.join(scratch, f"{interface}.raw")
            at = 0
            with open(self.paths[interface], "wb") as file:
                for name, row in rows.items():
                    if isinstance(row, Disk) and row.interface == interface:
                        length = row.region(divisor)
                        self.parts[name] = (at, length)
                        if "read" in row.rw:
                            file.seek(at)
                            file.writelines(pattern(at, row.block, length))
                        at += length
                # There is a disk even if no row is for it. The host has memory for all of it before the guest begins.
                file.truncate(max(at, MIB))
                os.posix_fallocate(file.fileno(), 0, max(at, MIB))

    def check(self, rows):
        """Whether what was to be written is there."""
        for name, (at, length) in self.parts.items():
            row = rows[name]
            if "write" in row.rw:
                with open(self.paths[row.interface], "rb") as file:
                    file.seek(at)
                    if any(file.read(row.block) != block for block in pattern(at, row.block, length)):
                        raise Failed(f"{name}: the image does not have what was written")

    def jobs(self, rows):
        """fio's job file: the rows, and after each that reads one that looks at what is read of its blocks."""
        lines = ["[global]", "ioengine=libaio", "direct=1", "thread=1", "gtod_reduce=1", "clocksource=clock_gettime"]
        lines += ["stonewall", "randrepeat=1"]
        verify = ("verify=pattern", "verify_pattern=%o")
        for name, (at, length) in self.parts.items():
            row = rows[name]
            job = [f"filename=/dev/{DRIVES[row.interface][1]}", f"rw={row.rw}", f"bs={row.block}", f"iodepth={row.depth}"]
            job += [f"offset={at}", f"size={length}"]
            if "write" in row.rw:
                lines += [f"[{name}]", *job, *verify, "do_verify=0"]
            else:
                lines += [f"[{name}]", *job, f"loops={row.loops}", f"[check-{name}]", *job, *verify]
        return "\n".join(lines) + "\n"


class Peer:
    """The other end of the guest's connections, and what came over them."""

    WORDS = 8192
    REQUEST = 64

    def __init__(self):
        words, word = [], 1
        for _ in range(self.WORDS):
            words.append(word)
            word = (word * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        self.rest = struct.pack(f"<{self.WORDS - 1}Q", *words[1:])
        self.block = 8 * self.WORDS
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        # What came whole and right, and how many of it.
        self.seen = []
        self.stream = self.blocks(0)
        threading.Thread(target=self.serve, daemon=True).start()

    def blocks(self, count):
        return b"".join(struct.pack("<Q", number) + self.rest for number in range(count))

    def prepare(self, blocks):
        """Has as many blocks to send and to compare with before a guest begins."""
        self.seen.clear()
        if len(self.stream) < blocks * self.block:
            self.stream = self.blocks(blocks)

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            with connection:
                try:
                    what, count = struct.unpack("<QQ", self.receive(connection, 16))
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    (self.take, self.give, self.answer)[what](connection, count)
                except (OSError, EOFError, IndexError, struct.error):
                    continue

    @staticmethod
    def receive(connection, length):
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = connection.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return data

    def take(self, connection, count):
        length = count * self.block
        if length > len(self.stream):
            return
        data = self.receive(connection, length)
        connection.sendall(b"!")
        # It must be the end, too.
        if memoryview(self.stream)[:length] == data and not connection.recv(1):
            self.seen.append(("send", count))

    def give(self, connection, count):
        connection.sendall(memoryview(self.stream)[: count * self.block])
        if not connection.recv(1):
            self.seen.append(("receive", count))

    def answer(self, connection, count):
        for _ in range(count):
            connection.sendall(self.receive(connection, self.REQUEST))
        if not connection.recv(1):
            self.seen.append(("ping", count))


def dependencies(tree, names):
    """The files of modules and of what they need, in the order to load them in."""
    files = {}
    for path in glob.glob(os.path.join(tree, "lib/modules/*/kernel/**/*.ko*"), recursive=True):
        files[os.path.basename(path).split(".")[0].replace("-", "_")] = path
    order = []

    def visit(name):
        # What has no file is built in.
        path = files.get(name.replace("-", "_"))
        if path is None or any(path == file for file, _ in order):
            return
        with lzma.open(path) if path.endswith(".xz") else open(path, "rb") as file:
            data = file.read()
        needs = re.search(rb"\0depends=([^\0]*)\0", data)
        for need in needs[1].decode().split(",") if needs and needs[1] else ():
            visit(need)
        order.append((path, data))

    for name in names:
        visit(name)
    return order


# An adapter is up while its rows are measured only: both are in the same network.
BEGIN = """\
set -e
for module in $(cat /modules/order); do
    insmod /modules/$module
done
mdev -s
mkdir -p /fio/dev /fio/proc /fio/sys /fio/tmp
mount -o bind /dev /fio/dev
mount -t proc proc /fio/proc
mount -t sysfs sys /fio/sys

up() {
    for path in /sys/class/net/*; do
        if [ -e "$path/device/driver" ] && [ "$(basename "$(readlink "$path/device/driver")")" = "$1" ]; then
            interface=${path##*/}
        fi
    done
    ip link set "$interface" up
    ip address add 10.0.2.15/24 dev "$interface"
    while [ "$(cat "/sys/class/net/$interface/carrier")" != 1 ]; do
        sleep 0.1
    done
    ping -c 1 -w 10 10.0.2.2 >/dev/null
}

down() {
    ip address flush dev "$interface"
    ip link set "$interface" down
}

port=
for word in $(cat /proc/cmdline); do
    case $word in
    devices.port=*) port=${word#*=} ;;
    esac
done

echo "mark begins $(cut -d ' ' -f 1 /proc/uptime)"
"""
END = """echo "mark ends $(cut -d ' ' -f 1 /proc/uptime)"\n"""


class Devices:
    """The rows, and an initramfs that measures them."""

    def __init__(self, names, divisor):
        self.rows = {name: row for name, row in ROWS.items() if name in names}
        self.divisor = divisor
        self.peer = Peer()
        try:
            self.kernel = output("tools/fetch-guest", "-m", "generic", "busybox").splitlines()[0]
            self.fio = output("tools/fetch-guest", "fio").strip()
        except subprocess.CalledProcessError:
            die("there is nothing to measure the devices with (see above; --kind leaves them out)")
        with tempfile.TemporaryDirectory() as scratch:
            self.image = self.make_image(scratch)

    def count(self, row):
        return max(row.count // self.divisor, 1)

    def script(self):
        lines = [BEGIN]
        if any(isinstance(row, Disk) for row in self.rows.values()):
            lines.append("chroot /fio /usr/bin/fio --output-format=terse --terse-version=3 /jobs\n")
        for adapter, (_, driver) in ADAPTERS.items():
            rows = {name: row for name, row in self.rows.items() if isinstance(row, Net) and row.adapter == adapter}
            if rows:
                lines.append(f"up {driver}\n")
                for name, row in rows.items():
                    lines.append(f'/suite-stream {name} 10.0.2.2 "$port" {row.what} {self.count(row)}\n')
                lines.append("down\n")
        return "".join([*lines, END])

    def make_image(self, scratch):
        modules = dependencies(os.path.join(GUEST, "generic"), MODULES)
        files = [f"{self.fio}:/fio", f"{folder('suite-stream')}:/suite-stream"]

        def add(name, data, path):
            with open(os.path.join(scratch, name), "wb") as file:
                file.write(data)
            files.append(f"{os.path.join(scratch, name)}:{path}")

        names = [os.path.basename(path).split(".")[0] + ".ko" for path, _ in modules]
        for name, (_, data) in zip(names, modules):
            add(name, data, f"/modules/{name}")
        add("order", "\n".join(names).encode(), "/modules/order")
        add("run", self.script().encode(), "/devices-run")
        add("jobs", Images(scratch, self.rows, self.divisor).jobs(self.rows).encode(), "/fio/jobs")
        image = folder("devices.cpio")
        try:
            output("tools/make-initramfs", image, "--store", *files)
        except subprocess.CalledProcessError:
            die("there is no guest for the devices (see above)")
        return image

    def options(self, images):
        """The devices, for both programs."""
        options = ["-vga", "none"]
        for interface, (name, _) in DRIVES.items():
            options += ["-drive", f"file={images.paths[interface]},if={name},format=raw,cache=writeback"]
        for adapter, (device, _) in ADAPTERS.items():
            options += ["-netdev", f"user,id={adapter}", "-device", f"{device},netdev={adapter}"]
        return options

    def parse(self, text):
        """What the guest printed: row -> (bytes, seconds)."""
        found = {name: (moved, float(seconds)) for name, _, moved, seconds in ROW.findall(text)}
        for line in TERSE.findall(text):
            fields = line.split(";")
            name = fields[2]
            if fields[4] != "0":
                raise Failed(f"{name}: fio's error {fields[4]}{tail(text.encode())}")
            if name in self.rows:
                kib, milliseconds = (int(fields[at]) for at in (WRITE if "write" in self.rows[name].rw else READ))
                found[name] = (f"{kib * KIB:016x}", milliseconds / 1000)
        return {name: found[name] for name in self.rows if name in found}

    def check(self, found, images):
        """Whether everything that was to be moved was, and whether it came at the other end."""
        for name, row in self.rows.items():
            if isinstance(row, Disk):
                expected = images.parts[name][1] * row.loops
            else:
                expected = self.count(row) * (2 * Peer.REQUEST if row.what == "ping" else self.peer.block)
                if (row.what, self.count(row)) not in self.peer.seen:
                    raise Failed(f"{name}: not everything came right")
                self.peer.seen.remove((row.what, self.count(row)))
            if int(found[name][0], 16) != expected:
                raise Failed(f"{name}: {int(found[name][0], 16)} bytes of {expected}")
        images.check(self.rows)

    def run(self, emulators, who, timeout, progress):
        """Boots a guest that runs the rows: row -> (bytes, seconds), and what the whole boot took."""
        self.peer.prepare(max((self.count(row) for row in self.rows.values() if isinstance(row, Net)), default=0))
        with tmpfs() as scratch:
            images = Images(scratch, self.rows, self.divisor)
            append = f"mimus.script=devices-run devices.port={self.peer.port}"
            devices = self.options(images)
            command = emulators.command(who, self.kernel, self.image, MEMORY, append, options=devices)
            found, measured = run_guest(command, self.rows, timeout, progress, self.parse)
            self.check(found, images)
        return found, measured
