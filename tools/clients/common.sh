# Sourced by the scripts beside it: the mimus that they try, as the QEMU of somebody else's program.
# shellcheck shell=bash

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$clients/../.." && pwd)
name=$(basename "$0")
guest=$root/target/guest
mimus=${MIMUS:-$root/target/release/mimus}

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}
# shellcheck source=tools/needs.sh
. "$root/tools/needs.sh"

# What was looked at and found to be so.
checked() { printf '%s: ok: %s\n' "$name" "$*"; }

# python_has MODULE PACKAGE: ends unless Python can import it.
python_has() {
    "${PYTHON:-python3}" -c "import $1" 2>/dev/null ||
        die "missing here: pip install $2 (into an environment of your own: PYTHON=ENVIRONMENT/bin/python $0)"
}

# Sets $work to a folder that is gone in the end, and $qemu to mimus under QEMU's name in it.
begin() {
    [[ -x $mimus ]] || die "no $mimus: cargo build --release, or MIMUS=PROGRAM"
    mimus=$(realpath "$mimus")
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/bin"
    ln -s "$mimus" "$work/bin/qemu-system-x86_64"
    qemu=$work/bin/qemu-system-x86_64
    export PATH=$work/bin:$PATH
}

# Sets $kernel and $initrd to Debian's kernel and a BusyBox with SCRIPT as /script.
linux() {
    kernel=$guest/cloud/vmlinuz
    [[ -s $kernel && -s $guest/busybox ]] || die "missing here: tools/fetch-guest cloud busybox"
    initrd=$work/initrd.gz
    "$root/tools/make-initramfs" "$initrd" ${1:+"$1:/script"} >/dev/null
}
