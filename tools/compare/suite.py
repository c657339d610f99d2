"""The suite's programs (tools/suite): natively, and in guests that run all of them in one boot."""

import os
import re
import subprocess
import tempfile

from .arch import KERNELS
from .common import GUEST, ROOT, Failed, die, facts, output, run, tail

# How far the guest's clock may be from the host's: a share of the time, and seconds for two lines over a serial port.
CLOCK_SHARE = 0.03
CLOCK_SECONDS = 0.3

ROW = re.compile(r"^row (\S+) (\S+) ([0-9a-f]{16}) (\d+\.\d+)$", re.MULTILINE)
MARK = re.compile(r"^mark (begins|ends) (\d+\.\d+)$")


def build(arch):
    """Returns the paths of the suite and of its initramfs."""
    try:
        return output("tools/make-suite", arch).split()
    except subprocess.CalledProcessError:
        die("the suite cannot be built (see above)")


def list_rows(program):
    """The (name, kind) of each row."""
    return [tuple(line.split()) for line in output(program, "-l").splitlines()]


def parse(text):
    """What the suite printed: row -> (checksum, seconds)."""
    return {name: (checksum, float(seconds)) for name, _, checksum, seconds in ROW.findall(text)}


def check_rows(found, names, text):
    missing = [name for name in names if name not in found]
    if missing:
        raise Failed(f"no result of {', '.join(missing)}{tail(text.encode())}")


def tmpfs():
    """A new folder on tmpfs, which is what /tmp is in the guests."""
    return tempfile.TemporaryDirectory(prefix="mimus-suite-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def run_native(program, names, divisor, timeout, one_cpu=False):
    """Runs rows natively: row -> (checksum, seconds), and what it took."""
    with tmpfs() as scratch:
        measured, text = run([program, "-t", scratch, "-q", str(divisor), *names], timeout, one_cpu=one_cpu)
    found = parse(text)
    check_rows(found, names, text)
    return found, measured


def cpu_seconds(pid):
    """What a process that still runs has used of the host's CPUs, all its threads together, those that have ended too."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        # After the program's name, which may have anything in it.
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clock:
    """Compares the guest's clock with the host's between two marks, sees the CPU time there, and tells how far a run is."""

    def __init__(self, progress):
        self.marks = {}
        self.progress = progress

    def __call__(self, line, seconds, pid):
        mark = MARK.match(line)
        if mark:
            self.marks[mark[1]] = (float(mark[2]), seconds, cpu_seconds(pid))
        elif line.startswith("row "):
            self.progress(line.split()[1])

    def check(self, text):
        """Seconds between the marks: by the guest's clock, by the host's, of CPU time; fails when the clocks are too far apart."""
        if len(self.marks) != 2:
            raise Failed(f"the guest did not get through its programs{tail(text.encode())}")
        guest, host, cpu = (end - begin for begin, end in zip(self.marks["begins"], self.marks["ends"]))
        if abs(guest - host) > CLOCK_SHARE * host + CLOCK_SECONDS:
            raise Failed(f"the guest's clock is wrong: {guest:.2f} s by its own, {host:.2f} s by the host's")
        return {"guest_clock": guest, "host_clock": host, "work_cpu": cpu}


def run_guest(command, names, timeout, progress, parser=parse, one_cpu=False):
    """Boots a guest that runs rows: row -> (checksum, seconds), and what the whole boot took."""
    clock = Clock(progress)
    measured, text = run(command, timeout, clock, one_cpu)
    found = parser(text)
    check_rows(found, names, text)
    return found, {**measured, **clock.check(text)}


def guest_facts(emulators, kernel, image):
    """What CPU the guests see."""
    found = {}
    for program in emulators.paths:
        command = emulators.command(program, kernel, image, 512, "mimus.script=facts")
        try:
            found[program] = facts(run(command, 300)[1])
        except Failed as error:
            die(f"{program}: {error}")
    return found


def kernel(name):
    """The path of a kernel, fetched when it is not there."""
    try:
        output(*KERNELS[name].fetch)
    except subprocess.CalledProcessError:
        die(f"there is no {name} kernel to boot (see above)")
    return os.path.join(GUEST, KERNELS[name].path)


def folder(*parts):
    """A path under target/suite."""
    return os.path.join(ROOT, "target", "suite", *parts)
