"""Cold boots of Debian's kernels to the first line of an init script."""

import json
import os
import re
import socket
import subprocess

from .arch import KERNELS
from .common import GUEST, ROOT, Failed, die, output, run, tail

# The script runs under tools/init/init. It powers off by itself, since init would first sleep a second so that the last
# characters leave the serial port.
MARKER = "compare: first line"
TIMED = f"""\
echo "{MARKER}"
poweroff -f
"""
# A while to look at the emulator's memory in.
IDLE = f"""\
echo "{MARKER}"
sleep 2
poweroff -f
"""


def prepare(guest, scratch):
    """Returns the paths of the kernel and of an initramfs with the scripts `timed`, `idle` and `facts`."""
    kernel = KERNELS[guest]
    image = os.path.join(GUEST, f"compare-{kernel.busybox.replace('/', '-')}.gz")
    entries = [os.path.join(ROOT, "tools", "suite", "facts") + ":/facts"]
    for name, text in (("timed", TIMED), ("idle", IDLE)):
        path = os.path.join(scratch, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        entries.append(f"{path}:/{name}")
    try:
        output(*kernel.fetch)
        output("tools/make-initramfs", image, "--busybox", os.path.join(GUEST, kernel.busybox), *entries)
    except subprocess.CalledProcessError:
        die("there is no guest to boot (see above)")
    return os.path.join(GUEST, kernel.path), image


class FirstLine:
    """Waits for the script's first line among the lines of a guest."""

    def __init__(self, on_marker=None):
        self.seconds = None
        self.on_marker = on_marker

    def __call__(self, line, seconds, pid):
        if self.seconds is None and MARKER in line:
            self.seconds = seconds
            if self.on_marker:
                self.on_marker(pid)

    def check(self, text):
        if self.seconds is None:
            raise Failed(f"the guest did not get to its script{tail(text.encode())}")
        return self.seconds


def boot(command, timeout, one_cpu=False):
    """Boots to the first line and on to power-off: what it took."""
    first_line = FirstLine()
    measured, text = run(command, timeout, first_line, one_cpu)
    measured["first_line"] = first_line.check(text)
    return measured


def status(pid, key):
    """A figure in kB of /proc/PID/status, in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key + ":")) * 1024


def guest_ram(pid, memory):
    """Resident bytes of the guest's RAM: of the mappings that are adjacent and together as large as it, or a little larger."""
    areas = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for line in file:
            if address := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line):
                start, end = int(address[1], 16), int(address[2], 16)
                if areas and areas[-1]["end"] == start and areas[-1]["mode"] == address[3]:
                    areas[-1]["end"] = end
                else:
                    areas.append({"start": start, "end": end, "mode": address[3], "rss": 0})
            elif line.startswith("Rss:"):
                areas[-1]["rss"] += int(line.split()[1]) * 1024
    fits = [area for area in areas if memory << 20 <= area["end"] - area["start"] < (memory << 20) + (64 << 20)]
    if len(fits) != 1:
        raise Failed(f"{len(fits)} mappings of the process can be the guest's RAM")
    return fits[0]["rss"]


def ask_monitor(path, question):
    """What QEMU's monitor answers."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(5)
        monitor.connect(path)
        answer = b""
        for command in (None, question):
            if command:
                monitor.sendall(command.encode() + b"\n")
                answer = b""
            while not answer.endswith(b"(qemu) "):
                answer += monitor.recv(65536) or b"(qemu) "
    return answer.decode(errors="replace")


def footprint(emulators, program, kernel, image, scratch, memory, timeout):
    """What an emulator holds once its guest is at the first line, in bytes: the peak beyond the guest's RAM, and code."""
    found = {}
    monitor, stats = os.path.join(scratch, "monitor"), os.path.join(scratch, "stats.json")
    extra = ["-monitor", f"unix:{monitor},server,nowait"] if program != "mimus" else []

    def look(pid):
        found["over_ram"] = status(pid, "VmHWM") - guest_ram(pid, memory)
        if program != "mimus":
            size = re.search(r"gen code size\s+(\d+)", ask_monitor(monitor, "info jit"))
            found["code"] = int(size[1]) if size else None

    first_line = FirstLine(look)
    command = emulators.command(program, kernel, image, memory, "mimus.script=idle", extra)
    _, text = run(command, timeout, first_line)
    first_line.check(text)
    if program == "mimus":
        # A run of its own: counting takes time. It also makes code larger, so the figure is an upper bound.
        run(emulators.command(program, kernel, image, memory, "mimus.script=timed", ["-stats", stats]), timeout)
        with open(stats, encoding="utf-8") as file:
            cache = json.load(file)["cache"]
        found["code"] = cache["code_bytes"] + cache["peak_metadata_bytes"]
    return found
