"""Cold boots of Debian's kernels to the first line of an init script."""

import os
import subprocess

from .common import GUEST, ROOT, Failed, die, output, tail

# Guest -> the BusyBox that goes with its kernel.
GUESTS = {"cloud": "busybox", "generic": "busybox", "i386": "busybox-i386"}

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
    busybox = GUESTS[guest]
    image = os.path.join(GUEST, f"compare-{busybox}.gz")
    entries = [os.path.join(ROOT, "tools", "suite", "facts") + ":/facts"]
    for name, text in (("timed", TIMED), ("idle", IDLE)):
        path = os.path.join(scratch, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        entries.append(f"{path}:/{name}")
    try:
        output("tools/fetch-guest", guest, busybox)
        output("tools/make-initramfs", image, "--busybox", os.path.join(GUEST, busybox), *entries)
    except subprocess.CalledProcessError:
        die("there is no guest to boot (see above)")
    return os.path.join(GUEST, guest, "vmlinuz"), image


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
