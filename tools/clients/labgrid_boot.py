"""Boots the target of the environment in argv[1] with labgrid's QEMUDriver."""

import sys

from labgrid import Environment

LIMIT = 300

target = Environment(sys.argv[1]).get_target("main")
machine = target.get_driver("QEMUDriver")
target.activate(machine)
machine.on()
try:
    machine.expect("BusyBox shell on", timeout=LIMIT)
    machine.expect("# ", timeout=LIMIT)
    machine.sendline("echo $((6 * 7))-is-it")
    machine.expect("42-is-it", timeout=LIMIT)
    assert machine.monitor_command("query-status")["running"]
    machine.monitor_command("system_reset")
    machine.expect("BusyBox shell on", timeout=LIMIT)
finally:
    machine.off()
