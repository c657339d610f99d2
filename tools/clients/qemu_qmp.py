"""A session of qemu.qmp's with the emulator in argv[1], by a socket at argv[2]."""

import asyncio
import subprocess
import sys

from qemu.qmp import ConnectError, EventListener, QMPClient
from qemu.qmp.qmp_client import ExecuteError

LIMIT = 60


async def talk(path):
    client = QMPClient("mimus")
    events = []

    def heard(event):
        events.append(event["event"])
        return True

    listener = EventListener(names=["RESUME", "STOP", "RESET", "SHUTDOWN"], event_filter=heard)
    client.register_listener(listener)
    await client.connect(path)
    assert (await client.execute("query-status"))["status"] == "prelaunch"
    assert (await client.execute("query-version"))["qemu"]["major"] >= 7
    for command in ["cont", "stop", "system_reset", "cont"]:
        await client.execute(command)
    for wanted in ["RESUME", "STOP"]:
        assert (await listener.get())["event"] == wanted
    try:
        await client.execute("device-list-properties", {"typename": "nonsense"})
        raise AssertionError("a device that is not there was found")
    except ExecuteError as error:
        assert error.error_class == "DeviceNotFound", error
    text = await client.execute("human-monitor-command", {"command-line": "info status"})
    assert "running" in text, text
    await client.execute("quit")
    while (await listener.get())["event"] != "SHUTDOWN":
        pass
    assert "RESET" in events, events
    try:
        await client.disconnect()
    except EOFError:
        # The emulator has ended first.
        pass


async def main(emulator, path):
    server = f"unix:{path},server=on,wait=off"
    arguments = ["-S", "-display", "none", "-nodefaults", "-serial", "none", "-qmp", server]
    with subprocess.Popen([emulator, *arguments], stdin=subprocess.DEVNULL) as process:
        try:
            for _ in range(LIMIT * 10):
                if process.poll() is not None:
                    raise AssertionError(f"the emulator ended with {process.returncode}")
                try:
                    await asyncio.wait_for(talk(path), LIMIT)
                    break
                except ConnectError:
                    await asyncio.sleep(0.1)
            assert process.wait(LIMIT) == 0, process.returncode
        finally:
            process.kill()


asyncio.run(main(*sys.argv[1:]))
