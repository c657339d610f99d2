"""Programs of Debian packages at fixed work, from a tree that they are run in with chroot, natively and in the guests."""

import glob
import os
import shlex
import subprocess

from .common import ROOT, Failed, die, output, run
from .suite import check_rows, folder, parse, tmpfs

# The tree is in the guest twice while the kernel unpacks it.
MEMORY = 1536
SOURCES = os.path.join(ROOT, "tools", "suite", "real")

# What goes into the tree as it is.
COPIED = ("work.py", "work.pl", "work.js", "work.lua", "work.php", "work.rb", "Work.java", "work.sql", "work.sh", "small.c")

# How much a few rows work on; --quick has one size, since most of these programs' time is not in proportion to it.
TEXT_BYTES = 3 << 20
LESS_TEXT_BYTES = 512 << 10
ZERO_BYTES = 16 << 20
UNITS = 5
RSA_BITS = 4096

# The launcher finds its libraries by /proc, which the tree does not have.
JAVA = ["/usr/bin/env", "LD_LIBRARY_PATH=/usr/lib/jvm/default-java/lib", "/usr/lib/jvm/default-java/bin/java"]
# Without its configuration, since the time zones that it names are not in the tree. The shared memory's lock is a file. What was
# just written, or in 1970 as all files in the guest, would not be compiled if it looked at the time.
PHP_SETTINGS = {
    "display_startup_errors": "0",
    "zend_extension": "opcache.so",
    "opcache.enable_cli": "1",
    "opcache.file_update_protection": "0",
    "opcache.validate_timestamps": "0",
    "opcache.lockfile_path": "/inputs",
    "opcache.memory_consumption": "16",
    "opcache.jit": "tracing",
    "opcache.jit_buffer_size": "16M",
}
PHP = ["/usr/bin/php[0-9].[0-9]", "-n", *(f"-d{key}={value}" for key, value in PHP_SETTINGS.items())]

# Row -> command, in the tree.
ROWS = {
    "gzip": ["/bin/gzip", "-n", "-6", "-c", "/inputs/text"],
    "xz": ["/usr/bin/xz", "-6", "-T1", "-c", "/inputs/less-text"],
    "openssl_aes": ["/usr/bin/openssl", "enc", "-aes-128-cbc", *("-K", "07" * 16, "-iv", "01" * 16, "-in", "/inputs/zeros")],
    "openssl_sha256": ["/usr/bin/openssl", "dgst", "-sha256", "/inputs/zeros"],
    # Tests the primes and computes with them.
    "openssl_rsa": ["/usr/bin/openssl", "rsa", "-check", "-noout", "-in", "/inputs/rsa.pem"],
    "sqlite3": ["/usr/bin/sqlite3", ":memory:", ".read /inputs/work.sql"],
    "python3": ["/usr/bin/python3", "-S", "-B", "/inputs/work.py"],
    "perl": ["/usr/bin/perl", "/inputs/work.pl"],
    # The compiler proper; its path has the version.
    "gcc": ["/usr/lib/gcc/x86_64-linux-gnu/*/cc1", "-fpreprocessed", "-O2", "-quiet", "/inputs/units.c", "-o", "-"],
    "nodejs": ["/usr/bin/node", "/inputs/work.js"],
    "java": [*JAVA, "-Xmx64m", "-cp", "/inputs/classes", "Work"],
    "luajit": ["/usr/bin/luajit", "/inputs/work.lua"],
    "php": [*PHP, "/inputs/work.php"],
    # YJIT fills all of its 256 MiB at the start, unless told otherwise.
    "ruby": ["/usr/bin/ruby", "--yjit", "--yjit-exec-mem-size=32", "--disable-gems", "/inputs/work.rb"],
    "go": ["/inputs/work-go"],
    "shell": ["/bin/dash", "/inputs/work.sh", "shell", "16"],
    "compile": ["/bin/dash", "/inputs/work.sh", "compile", "10"],
}


def text(length):
    """Words and lines, as repetitive as a text is; the same bytes with every version of Python."""
    words = "the mocking bird sings in other voices and never a guest runs on to host again".split()
    state, parts, size = 7, [], 0
    while size < length:
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        number = state >> 33
        word = words[number % len(words)] + ("" if number % 5 else str(number >> 8 & 1023)) + (" " if number % 13 else "\n")
        parts.append(word)
        size += len(word)
    return "".join(parts)[:length].encode()


def write_inputs(tree):
    """Puts what the programs work on into the tree."""
    inputs = os.path.join(tree, "inputs")
    os.makedirs(inputs, exist_ok=True)
    source = text(TEXT_BYTES)
    with open(os.path.join(SOURCES, "unit.c"), encoding="ascii") as file:
        unit = file.read()
    files = {
        "text": source,
        "less-text": source[:LESS_TEXT_BYTES],
        "zeros": bytes(ZERO_BYTES),
        "units.c": "".join(unit.replace("NUMBER", str(number)) for number in range(UNITS)).encode(),
    }
    for name in COPIED:
        with open(os.path.join(SOURCES, name), "rb") as file:
            files[name] = file.read()
    for name, data in files.items():
        with open(os.path.join(inputs, name), "wb") as file:
            file.write(data)


def in_tree(command, tree):
    """The command with the one file of the tree that its pattern stands for."""
    found = glob.glob(tree + command[0])
    if len(found) != 1:
        die(f"no single {command[0]} in {tree}: remove that folder, so that it is fetched again")
    return [found[0][len(tree) :], *command[1:]]


class Real:
    """The tree of programs, and an initramfs with it."""

    def __init__(self, suite, names):
        self.suite = suite
        self.names = names
        try:
            self.tree = output("tools/fetch-guest", "programs").strip()
        except subprocess.CalledProcessError:
            die("there are no Debian packages to measure (see above; --no-real leaves them out)")
        write_inputs(self.tree)
        self.make_key()
        if "java" in names:
            self.compile_java()
        if "go" in names:
            self.compile_go()
        self.commands = {name: in_tree(ROWS[name], self.tree) for name in names}
        self.image = self.make_image()

    def make_key(self):
        """An RSA key, once; any will do."""
        path = os.path.join(self.tree, "inputs", "rsa.pem")
        if os.path.exists(path):
            return
        command = ["/usr/bin/openssl", "genrsa", "-out", "/inputs/rsa.pem", str(RSA_BITS)]
        self.run_one("key", command, 600)

    def compile_java(self):
        """Classes out of the source, by the compiler that is a module of the tree's JRE."""
        command = [*JAVA, "-m", "jdk.compiler/com.sun.tools.javac.Main", "-d", "/inputs/classes", "/inputs/Work.java"]
        try:
            self.run_one("javac", command, 600)
        except Failed as error:
            die(f"Work.java does not compile: {error}")

    def compile_go(self):
        """A static program in the tree, by Debian's compiler, which stays outside."""
        root = os.path.join(output("tools/fetch-guest", "golang").strip(), "usr", "lib", "go")
        settings = {"HOME": "/nonexistent", "GOROOT": root, "GOCACHE": folder("go-cache"), "CGO_ENABLED": "0"}
        program = os.path.join(self.tree, "inputs", "work-go")
        command = [os.path.join(root, "bin", "go"), "build", "-buildvcs=false", "-o", program, "work.go"]
        try:
            subprocess.run(command, check=True, cwd=SOURCES, env=settings)
        except subprocess.CalledProcessError:
            die("work.go does not compile (see above)")

    def make_image(self):
        script = folder("real-run")
        # The first program to ask for random numbers would have Linux gather them, for 256 ticks of its clock.
        lines = ["head -c 1 /dev/random >/dev/null"]
        lines += ['echo "mark begins $(cut -d " " -f 1 /proc/uptime)"']
        lines += [f"/suite/suite -t /tmp -r /programs -x {name} {shlex.join(self.commands[name])}" for name in self.names]
        lines += ['echo "mark ends $(cut -d " " -f 1 /proc/uptime)"']
        with open(script, "w", encoding="ascii") as file:
            file.write("set -e\n" + "\n".join(lines) + "\n")
        image = folder("real.cpio")
        try:
            files = (f"{self.tree}:/programs", f"{self.suite}:/suite/suite", f"{script}:/real-run")
            output("tools/make-initramfs", image, "--store", *files)
        except subprocess.CalledProcessError:
            die("there is no guest for the Debian packages (see above)")
        return image

    def run_one(self, name, command, timeout, one_cpu=False):
        with tmpfs() as scratch:
            command = [self.suite, "-t", scratch, "-r", self.tree, "-x", name, *command]
            return run(command, timeout, one_cpu=one_cpu)

    def run_native(self, timeout, one_cpu):
        """Runs each natively: row -> (checksum, seconds), and what all took."""
        found, total = {}, {"power_off": 0, "cpu": 0, "rss": 0}
        for name, command in self.commands.items():
            measured, text = self.run_one(name, command, timeout, one_cpu)
            found.update(parse(text))
            for key, value in measured.items():
                total[key] = max(total[key], value) if key == "rss" else total[key] + value
        check_rows(found, self.names, "")
        return found, total
