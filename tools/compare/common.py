"""Programs to compare, guests to run them with, and the machine that all of it runs on."""

import argparse
import json
import os
import platform
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GUEST = os.path.join(ROOT, "target", "guest")
PROGRAMS = ("qemu", "mimus")


class Failed(Exception):
    """A run that did not do what it should."""


def say(text):
    print(f"{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr, flush=True)


def die(text):
    say(f"error: {text}")
    sys.exit(1)


def needs(*pairs):
    """Ends with all packages that are missing, in one line; each pair is a program and the package that has it."""
    missing = [package for program, package in pairs if shutil.which(program) is None]
    if missing:
        die(f"missing here: apt-get install {' '.join(dict.fromkeys(missing))}")


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def add_arguments(parser):
    """The options that every comparison has."""
    parser.add_argument("-n", "--runs", type=positive, default=5, metavar="RUNS", help="runs of each program (5)")
    parser.add_argument("--json", metavar="FILE", help="write every run and the machine's description to FILE")
    parser.add_argument("--mimus", metavar="PROGRAM", help="the mimus to run (default: built here with --release)")
    parser.add_argument("--qemu", metavar="PROGRAM", help="the QEMU to run (default: the architecture's)")
    parser.add_argument(
        "--qemu-cpu",
        metavar="MODEL",
        help="QEMU's -cpu (default: what mimus shows its guests, as far as TCG has it; QEMU's own is qemu64 or rv64)",
    )


def open_output(option, path):
    """Opens a file for writing: now rather than after minutes of measuring."""
    try:
        return open(path, "w", encoding="utf-8") if path else None
    except OSError as error:
        die(f"{option}: {error}")


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def find_qemu(program, option="--qemu"):
    path = shutil.which(program)
    if path is None:
        packages = "tools/fetch-guest qemu, as root; for RISC-V, apt-get install qemu-system-misc"
        die(f"no {program} to compare with: install it ({packages}) or name one with {option}")
    return path


def find_mimus(program):
    if program is not None:
        path = shutil.which(program)
        return path or die(f"{program} is not a program")
    if shutil.which("cargo") is None:
        die("cargo is missing, so mimus cannot be built; name a built one with --mimus")
    say("building mimus")
    try:
        subprocess.run(["cargo", "build", "--release", "--bin", "mimus"], check=True, cwd=ROOT)
        target = json.loads(output("cargo", "metadata", "--format-version", "1", "--no-deps"))["target_directory"]
    except subprocess.CalledProcessError:
        die("mimus does not build")
    return os.path.join(target, "release", "mimus")


class Emulators:
    """The programs, QEMU first and mimus last, and how each runs a guest. With `newer` there is a second QEMU between them."""

    def __init__(self, options, arch, newer=None):
        self.arch = arch
        self.qemu_cpu = options.qemu_cpu or arch.qemu_cpu
        self.paths = {"qemu": find_qemu(options.qemu or arch.qemu)}
        if newer:
            self.paths["newer"] = find_qemu(newer, "--newer-qemu")
        self.versions = {who: output(path, "--version").splitlines()[0] for who, path in self.paths.items()}
        self.paths["mimus"] = find_mimus(options.mimus)
        self.versions["mimus"] = output(self.paths["mimus"], "-version").strip()
        # Another program may be of another commit.
        self.versions["commit"] = None if options.mimus else commit()

    def command(self, program, kernel, initrd, memory, append, extra=(), options=None):
        """The command line; the options (None: the architecture's) are the same for both but for -accel, -cpu and `extra`."""
        if program != "mimus":
            own = ["-accel", "tcg", "-cpu", self.qemu_cpu, *self.arch.qemu_options]
        else:
            own = self.arch.mimus_options
        return [
            *(self.paths[program], *own, *extra, "-m", str(memory)),
            *("-display", "none", "-serial", "stdio", *(options or self.arch.options), "-no-reboot"),
            *("-kernel", kernel, "-initrd", initrd, "-append", f"console=ttyS0 mitigations=off {append}".rstrip()),
        ]

    def describe(self):
        mimus = f"{self.versions['mimus']} ({self.versions['commit'] or self.paths['mimus']})"
        qemus = [self.versions[who] for who in self.paths if who != "mimus"]
        return f"{'; '.join(qemus)}, -accel tcg -cpu {self.qemu_cpu}\n{mimus}"


def alternate(number, programs):
    """The order of a run: each goes first in turn."""
    by = number % len(programs)
    return [*programs[by:], *programs[:by]]


def run(command, timeout, on_line=None, one_cpu=False):
    """Runs a program to its end: what it took (seconds, MiB) and what it printed.

    `on_line(line, seconds, pid)` is called for each line as it comes, with the time since the start. With `one_cpu` all its
    threads share one CPU.
    """
    text = bytearray()
    seen = 0
    pin = (lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})) if one_cpu else None
    start = time.monotonic()
    # stderr goes to a file: a full pipe that nobody reads would stop the guest.
    with tempfile.TemporaryFile() as errors, selectors.DefaultSelector() as selector:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
        child = subprocess.Popen(command, preexec_fn=pin, **streams)
        selector.register(child.stdout, selectors.EVENT_READ)
        try:
            while True:
                left = start + timeout - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise Failed(f"not over after {timeout} s{tail(text)}")
                chunk = os.read(child.stdout.fileno(), 65536)
                if not chunk:
                    break
                text += chunk
                now = time.monotonic() - start
                while on_line and (end := text.find(b"\n", seen)) >= 0:
                    on_line(text[seen:end].decode(errors="replace").strip(), now, child.pid)
                    seen = end + 1
        except BaseException:
            child.kill()
            child.wait()
            raise
        child.stdout.close()
        # wait4 rather than wait: this child's own CPU time and memory.
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        complaint = errors.read()
    if child.returncode != 0:
        raise Failed(f"exit code {child.returncode}{tail(complaint or text)}")
    measured = {
        "power_off": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss / 1024,
    }
    return measured, text.decode(errors="replace").replace("\r", "")


def tail(text, lines=12):
    last = bytes(text).decode(errors="replace").replace("\r", "").splitlines()[-lines:]
    return "".join(f"\n    {line}" for line in last) if last else ""


def facts(text):
    """What the guest said about its CPU (tools/suite/facts)."""
    found = {"vulnerabilities": {}}
    for line in re.findall(r"^fact (.*)$", text, re.MULTILINE):
        key, _, value = line.partition(" ")
        if key == "vulnerability":
            name, _, state = value.partition(": ")
            found["vulnerabilities"][name] = state
        else:
            found[key] = value
    if "flags" not in found:
        raise Failed(f"the guest did not describe its CPU{tail(text.encode())}")
    return found


def host():
    """Describes the machine that this runs on."""
    cpuinfo = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                cpuinfo.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    virtual = "hypervisor" in cpuinfo.get("flags", "").split()
    machine = {
        "kind": "virtual machine" if virtual else "bare metal or unknown",
        "cpu": cpuinfo.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }
    if machine["load"] > 0.5:
        say(f"warning: the machine is busy (load {machine['load']:.1f}); figures will be worse and vary")
    return machine


def describe_host(machine):
    cores = f"{machine['cores']} cores, {machine['cpu']}"
    return f"Host: {machine['kind']}, {cores}; load {machine['load']:.1f} at the start"


def commit():
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    return done.stdout.decode().strip() or None


def wrap(title, words):
    text = f"  {title}: "
    line, lines = text, []
    for word in words:
        if len(line) + len(word) > 110 and line.strip():
            lines.append(line.rstrip())
            line = "    "
        line += word + " "
    return "\n".join(lines + [line.rstrip()])


def print_guests(guests):
    """What differs between the CPUs that the two guests saw."""
    qemu, mimus = guests["qemu"], guests["mimus"]
    sets = [set(guest["flags"].split()) for guest in (qemu, mimus)]
    print("What differs between the guests' CPUs:")
    different = False
    for title, words in (("flags under QEMU only", sets[0] - sets[1]), ("flags under mimus only", sets[1] - sets[0])):
        if words:
            different = True
            print(wrap(title, sorted(words)))
    for key in ("model", "caches", "clocksource"):
        if qemu.get(key) != mimus.get(key):
            different = True
            print(f"  {key}: QEMU {qemu.get(key)}; mimus {mimus.get(key)}")
    for name in sorted(set(qemu["vulnerabilities"]) | set(mimus["vulnerabilities"])):
        states = [guest["vulnerabilities"].get(name, "not reported") for guest in (qemu, mimus)]
        if states[0] != states[1]:
            different = True
            print(f"  {name}: QEMU {states[0]}; mimus {states[1]}")
    if not different:
        print("  nothing that the guest reports")
