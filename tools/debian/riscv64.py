"""The disk of `tools/make-disk riscv64`: Python, gcc and apt in it."""

import os
import subprocess

from compare import common
from compare.common import Failed, die, say

from .session import Guest

DISK = os.path.join(common.GUEST, "riscv64", "debian")
FIRMWARE = os.path.join(common.GUEST, "riscv64", "fw_dynamic.bin")
QEMU = ("qemu-system-riscv64", "qemu-system-misc")
# Name, and what precedes the names of its checks.
BOARDS = {"virt": ""}

# A C file of some 900 lines, for the compiler.
C_WORK = """
import random
random.seed(1)
print('#include <stdio.h>')
for f in range(40):
    print(f'unsigned f{f}(unsigned a, unsigned b, unsigned *m) {{')
    print('    for (unsigned i = 0; i < 16; i++) {')
    for _ in range(8):
        x, y, z = (random.randrange(1, 31) for _ in range(3))
        print(f'        a = (a << {x} | a >> {32 - x}) ^ (b * {2 * y + 1}u) + m[(i + {z}) & 15];')
        print(f'        if (a & {1 << z % 8}) b += a / {y + 1}u; else m[i & 15] -= b ^ {x}u;')
    print('    }\\n    return a + b;\\n}')
print('int main(void) { unsigned m[16] = {1}, s = 1;')
for f in range(40):
    print(f'    s = f{f}(s, {f}, m);')
print('    printf("%08x\\\\n", s); }')
"""

# Dictionaries, strings, regular expressions, big integers and sorting.
PYTHON_WORK = """
import hashlib, json, re
words = [hashlib.md5(str(i).encode()).hexdigest() for i in range(40000)]
counts = {}
for word in words:
    for part in re.findall('[a-f]+|[0-9]+', word):
        counts[part] = counts.get(part, 0) + len(part)
table = json.loads(json.dumps(sorted(counts.items(), key=lambda row: (-row[1], row[0]))))
number = 1
for i in range(1, 2000):
    number *= i
total = sum(i * i % 7 for i in range(400000))
print('python', len(table), number.bit_length(), total)
"""

# A package and a repository of it, made with what the system has.
REPOSITORY = """
set -e
mkdir -p /tmp/deb/DEBIAN /tmp/deb/usr/bin /var/local/repository
printf '#!/bin/sh\\necho installed by apt\\n' >/tmp/deb/usr/bin/mimus-hello
chmod 755 /tmp/deb/usr/bin/mimus-hello
printf 'Package: mimus-hello\\nVersion: 1\\nArchitecture: riscv64\\nMaintainer: nobody <nobody@localhost>\\n' >/tmp/control
printf 'Depends: python3\\nDescription: test\\n' >>/tmp/control
cp /tmp/control /tmp/deb/DEBIAN/control
cd /var/local/repository
dpkg-deb --root-owner-group --build /tmp/deb mimus-hello.deb
{ cat /tmp/control
  echo 'Filename: ./mimus-hello.deb'
  echo "Size: $(stat -c %s mimus-hello.deb)"
  echo "SHA256: $(sha256sum mimus-hello.deb | cut -d ' ' -f 1)"
} >Packages
echo 'deb [trusted=yes] file:/var/local/repository ./' >/etc/apt/sources.list.d/local.list
"""

LOCAL = "-o DPkg::Lock::Timeout=300 -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/local.list -o Dir::Etc::sourceparts=-"

# Name, command, what it prints last (a regular expression), and whether what it takes is compared.
STEPS = (
    ("architecture", "uname -m", "riscv64", False),
    ("booted", "systemctl is-system-running --wait", "running", False),
    ("no-failed-units", "systemctl --failed --no-legend --plain | wc -l", "0", False),
    ("disk", "findmnt -n -o SOURCE,FSTYPE /", r"/dev/vda\s+ext4", False),
    ("python-start", "python3 -c 'import sys; print(sys.version_info[0])'", "3", True),
    ("python-work", "python3 /tmp/work.py", "python 57645 19043 800001", True),
    ("gcc-source", "python3 /tmp/source.py >/tmp/work.c; wc -l </tmp/work.c", r"\d{3}", False),
    ("gcc", "gcc -O2 -o /tmp/work /tmp/work.c; echo $?", "0", True),
    ("gcc-runs", "/tmp/work", "d651e9da", True),
    ("apt", "apt-get --version | head -n 1", r"apt \S+ \(riscv64\)", False),
    ("apt-repository", "sh /tmp/repository >/dev/null; echo $?", "0", False),
    ("apt-update", f"apt-get {LOCAL} update >/tmp/log 2>&1; echo $?", "0", True),
    ("apt-install", f"apt-get {LOCAL} install -y mimus-hello >/tmp/log 2>&1; mimus-hello", "installed by apt", True),
    ("apt-remove", f"apt-get {LOCAL} remove -y mimus-hello >/tmp/log 2>&1 || tail -n 3 /tmp/log; test -e /usr/bin/mimus-hello; echo $?", "1", False),
    ("dpkg-audit", "dpkg --audit | wc -l", "0", False),
)

# The same with a network that leads to a Debian archive.
NETWORK_STEPS = (
    ("network", "for i in $(seq 60); do ip route | grep -q default && break; sleep 1; done; ip route | wc -l", "[1-9]", False),
    ("apt-update-net", "apt-get update >/tmp/log 2>&1; echo $?", "0", True),
    ("apt-install-net", "apt-get install -y hello >/tmp/log 2>&1; hello", "Hello, world!", True),
)


def prepare(options):
    for file in ("root.img", "vmlinuz", "initrd.img"):
        if not os.path.exists(os.path.join(DISK, file)):
            die(f"no {os.path.join(DISK, file)}: make it with tools/make-disk riscv64")
    options.scratch = DISK


def command(program, options, disk):
    board = ["-M", "virt", "-accel", "tcg"] if program == "qemu" else ["-arch", "riscv64"]
    network = ["-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net"] if options.network else []
    return [
        *(options.programs[program], *board, "-m", str(options.memory), "-display", "none", "-serial", "stdio"),
        *("-bios", FIRMWARE, "-kernel", os.path.join(DISK, "vmlinuz"), "-initrd", os.path.join(DISK, "initrd.img")),
        *("-append", "root=/dev/vda rw console=ttyS0 quiet systemd.default_device_timeout_sec=900"),
        *("-drive", f"file={disk},format=raw,if=none,id=root", "-device", "virtio-blk-device,drive=root"),
        *("-object", "rng-random,filename=/dev/urandom,id=rng") * (program == "qemu"),
        *("-device", "virtio-rng-device" + ",rng=rng" * (program == "qemu")),
        *network,
        *(options.extra if program == "mimus" else ()),
    ]


def session(run, _board, options, scratch, log):
    """Boots a copy of the disk and works in it."""
    disk = os.path.join(scratch, "root.img")
    subprocess.run(["cp", "--sparse=always", os.path.join(DISK, "root.img"), disk], check=True)
    line = command(run.program, options, disk)
    guest = Guest(line, options.timeout, log)
    try:
        work(run, options, guest)
    except (Failed, BrokenPipeError) as error:
        run.fail("session", error)
        say(f"the command was: {' '.join(line)}")
    finally:
        guest.kill()


def work(run, options, guest):
    run.logged_in(guest)
    if not options.boot:
        for path, text in (("/tmp/work.py", PYTHON_WORK), ("/tmp/source.py", C_WORK), ("/tmp/repository", REPOSITORY)):
            guest.put(path, text)
        for step in STEPS + (NETWORK_STEPS if options.network else ()):
            run.step(guest, *step)
        printed, _ = guest.run("dmesg --level=emerg,alert,crit,err,warn --notime")
        for line in printed.splitlines():
            print(f"   {run.program} kernel: {line}")
        run.rebooted(guest)
    guest.type("poweroff\n")
    run.ended(guest, "power-off")
