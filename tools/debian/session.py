"""A running guest on a serial port, the steps that are done in it, and what they took."""

import os
import re
import selectors
import statistics
import subprocess
import time

from compare import common
from compare.common import Failed


class Guest:
    """A running emulator and its serial port."""

    def __init__(self, command, timeout, log):
        self.timeout, self.log, self.text, self.commands = timeout, log, "", 0
        self.start = time.monotonic()
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.child.stdout, selectors.EVENT_READ)

    def expect(self, pattern):
        """Waits until `pattern` is printed; the match and the time. What precedes its end is forgotten."""
        end = time.monotonic() + self.timeout
        while not (found := re.search(pattern, self.text)):
            left = end - time.monotonic()
            if left <= 0 or not self.selector.select(left):
                raise Failed(f"no {pattern!r} after {self.timeout} s{common.tail(self.text.encode())}")
            if not self.read():
                raise Failed(f"it ended before it printed {pattern!r}{common.tail(self.text.encode())}")
        self.text = self.text[found.end() :]
        return found, time.monotonic()

    def read(self):
        """Takes what the guest has printed; nothing when it has ended."""
        chunk = os.read(self.child.stdout.fileno(), 65536)
        self.text += chunk.decode(errors="replace").replace("\r", "")
        self.log.write(chunk)
        return chunk

    def cpu(self):
        """Seconds of CPU time that the emulator has used."""
        with open(f"/proc/{self.child.pid}/stat", encoding="utf-8") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def type(self, text):
        self.child.stdin.write(text.encode())
        self.child.stdin.flush()

    def run(self, command):
        """Runs a command in the guest's shell; what it printed, and what it took: seconds, and those of CPU time."""
        self.commands += 1
        start, cpu = time.monotonic(), self.cpu()
        # What is typed is printed too, but with quotes in it.
        self.type(f"{command}; echo 'e'nd-{self.commands}\n")
        self.expect(f"'e'nd-{self.commands}\n")
        found, end = self.expect(rf"(?s)(.*?)\bend-{self.commands}\n")
        # What is typed before there is a prompt would be printed around it.
        self.expect("# $")
        return found[1].strip(), (end - start, self.cpu() - cpu)

    def put(self, path, text):
        """Makes a file; no line of it is longer than a terminal takes."""
        self.run("stty -echo")
        self.type(f"cat >{path} <<'END-OF-FILE'\n{text}\nEND-OF-FILE\nstty echo; echo there\n")
        self.expect("there\n# $")

    def log_in(self, password=None):
        """To the shell; when the prompt for it came, and the CPU time until then."""
        _, when = self.expect("login: ")
        cpu = self.cpu()
        self.type("root\n")
        if password is not None:
            self.expect("Password: ")
            self.type(f"{password}\n")
        self.expect("# ")
        # Without line editing, which would print what is typed in its own way; and lines as long as they come.
        self.type("TERM=dumb exec sh\n")
        self.expect("# $")
        self.run("stty columns 10000")
        return when, cpu

    def monitor(self, command):
        """Types a command to the monitor that shares the serial port, and goes back to the guest."""
        self.type(f"\x01c{command}\n\x01c")

    def finish(self):
        """Waits for the end of the emulator, whose code it returns."""
        end = time.monotonic() + self.timeout
        # It is read on: a full pipe would stop the guest.
        while self.selector.select(max(0, end - time.monotonic())):
            if not self.read():
                return self.child.wait()
        raise Failed(f"it did not end{common.tail(self.text.encode())}")

    def kill(self):
        self.child.stdin.close()
        self.child.kill()
        self.child.wait()


class Run:
    """One session of one program: which steps failed, and what those took that passed, in seconds and seconds of CPU time."""

    def __init__(self, program, prefix=""):
        self.program, self.prefix, self.took, self.failed, self.reports = program, prefix, {}, [], {}

    def passed(self, name, took=None):
        text = f"ok {self.program} {self.prefix}{name}"
        if took is not None:
            self.took[self.prefix + name] = took
            text += f" {took[0]:.2f} s ({took[1]:.2f} s of CPU time)"
        print(text, flush=True)

    def fail(self, name, why):
        self.failed.append(self.prefix + name)
        print(f"FAIL {self.program} {self.prefix}{name}: {why}", flush=True)

    def step(self, guest, name, command, pattern, timed):
        """A command in the guest whose last line is to match."""
        printed, took = guest.run(command)
        last = printed.splitlines()[-1].strip() if printed else ""
        if re.fullmatch(pattern, last):
            self.passed(name, took if timed else None)
        else:
            self.fail(name, f"expected {pattern!r}, got{common.tail(printed.encode()) or ' nothing'}")

    def attempt(self, guest, name, work):
        """Something on the host that raises `Failed` if it fails."""
        start, cpu = time.monotonic(), guest.cpu()
        try:
            work()
        except Failed as error:
            self.fail(name, error)
        else:
            self.passed(name, (time.monotonic() - start, guest.cpu() - cpu))

    def logged_in(self, guest, password=None):
        when, cpu = guest.log_in(password)
        self.passed("login-prompt", (when - guest.start, cpu))

    def rebooted(self, guest, password=None):
        start, before = time.monotonic(), guest.cpu()
        guest.type("reboot\n")
        when, cpu = guest.log_in(password)
        self.passed("reboot", (when - start, cpu - before))

    def ended(self, guest, name):
        code = guest.finish()
        if code:
            self.fail(name, f"exit code {code}")
        else:
            self.passed(name)


def host(*command):
    """Runs a program of the host's; what it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failed(f"{command[0]}: exit code {done.returncode}{common.tail(done.stdout)}")
    return done.stdout.decode(errors="replace")


def medians(runs, name, which=0):
    """The seconds (or with 1 the CPU seconds) of a step in each program's runs, and their medians."""
    values = {
        program: [run.took[name][which] for run in runs[program] if name in run.took] or [float("nan")]
        for program in common.PROGRAMS
    }
    return values, {program: statistics.median(each) for program, each in values.items()}


def print_table(runs):
    names = list(dict.fromkeys(name for run in runs["mimus"] for name in run.took))
    for which, title in enumerate(("seconds", "CPU seconds")):
        print(f"{title:<28}{'QEMU TCG':>24}{'mimus':>24}{'mimus / QEMU':>14}")
        for name in names:
            values, middle = medians(runs, name, which)
            cells = [f"{middle[p]:.2f} ({min(values[p]):.2f}-{max(values[p]):.2f})" for p in common.PROGRAMS]
            ratio = middle["mimus"] / middle["qemu"] if middle["qemu"] else float("nan")
            print(f"{name:<28}{cells[0]:>24}{cells[1]:>24}{ratio:>14.2f}")
