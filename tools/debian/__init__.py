"""Debian disks: booting them, working in them, and what is to come out of that."""
