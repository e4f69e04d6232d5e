"""Real session buses of their own, with python-dbusmock's notification service on them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from ntmobile.errors import NTMobileError
from ntmobile.plugins.notify_dbus import NAME, PATH
from ntmobile.protocols.desktop_bus import BUS, BusConnection, connect_bus

#: Debian's: its modules for D-Bus are built for this interpreter, and for no other.
PYTHON = "/usr/bin/python3"
MOCK = "org.freedesktop.DBus.Mock"

#: No directories of services: nothing of this machine's desktop is started on it.
CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@cache
def missing() -> str:
    """What keeps these tests from being run here; empty if nothing does."""
    if shutil.which("dbus-daemon") is None:
        return "needs dbus-daemon (Debian: dbus)"
    asked = subprocess.run(
        [PYTHON, "-c", "import dbusmock, gi"], capture_output=True, check=False, timeout=60
    )
    return "needs dbusmock for /usr/bin/python3 (python3-dbusmock)" if asked.returncode else ""


@frozen
class Shown:
    """A notification as the desktop got it."""

    replaces: int
    title: str
    body: str


class Bus:
    """A bus in a temporary directory, which can be ended and started again."""

    def __init__(self) -> None:
        # A socket's path has at most 107 bytes, and trial's directories have long names.
        self.directory = Path(tempfile.mkdtemp(prefix="ntm-bus-"))
        self.socket = self.directory / "bus"
        self.address = f"unix:path={self.socket}"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._desktop: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon; it listens when this returns."""
        configuration = self.directory / "bus.conf"
        configuration.write_text(CONFIGURATION.format(socket=self.socket), "utf-8")
        command = ["dbus-daemon", "--nofork", "--print-address", f"--config-file={configuration}"]
        self._daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline().startswith(b"unix:")

    def start_desktop(self, capabilities: str = "body body-markup") -> None:
        """Start the notification service; it takes a moment until it has its name."""
        template = ["-t", "notification_daemon", "-p", f'{{"capabilities": "{capabilities}"}}']
        self._desktop = subprocess.Popen(
            [PYTHON, "-m", "dbusmock", "--session", *template],
            env={"DBUS_SESSION_BUS_ADDRESS": self.address, "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end_desktop(self) -> None:
        """End the notification service."""
        _end(self._desktop)
        self._desktop = None

    def end(self) -> None:
        """End the bus, without a word to who is connected."""
        _end(self._daemon)
        self._daemon = None
        self.end_desktop()

    def remove(self) -> None:
        """End it for good."""
        self.end()
        shutil.rmtree(self.directory)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


class BusTestCase(TestCase):
    """Tests on such a bus; skipped with the reason where there is none."""

    timeout = 60

    def setUp(self) -> None:
        """A bus that is not started."""
        super().setUp()
        if missing():
            raise SkipTest(missing())
        self.bus = Bus()
        self.addCleanup(self.bus.remove)
        self.connection: BusConnection | None = None
        self.addCleanup(self.disconnect)

    async def eventually(
        self, condition: Callable[[], bool], what: str, timeout: float = 20.0
    ) -> None:
        """Wait until something is so, and no longer than ``timeout`` seconds."""
        deadline = reactor.seconds() + timeout
        while not condition():
            if reactor.seconds() > deadline:
                self.fail(f"not within {timeout:g} s: {what}")
            await deferLater(reactor, 0.02, lambda: None)

    async def start(self, capabilities: str = "body body-markup") -> None:
        """Start bus and desktop, and wait for them."""
        self.bus.start()
        await self.start_desktop(capabilities)

    async def start_desktop(self, capabilities: str = "body body-markup") -> None:
        """Start the desktop on a bus that runs, and wait for it."""
        self.bus.start_desktop(capabilities)
        for _ in range(500):
            if await self.ask("NameHasOwner", NAME, interface=BUS, path="/", signature="s"):
                return
            await deferLater(reactor, 0.02, lambda: None)
        self.fail("the desktop did not start within 10 s")

    async def ask(
        self,
        method: str,
        *body: object,
        interface: str = MOCK,
        path: str = PATH,
        signature: str = "",
    ) -> Any:
        """Call a method as another program on this bus."""
        if self.connection is None or self.connection.over.called:
            self.connection = await connect_bus(reactor, [str(self.bus.socket)])
        destination = BUS if interface == BUS else NAME
        return await self.connection.call(
            path,
            method,
            interface=interface,
            signature=signature,
            body=body,
            destination=destination,
            clock=reactor,
        )

    async def disconnect(self) -> None:
        """Close the connection of :meth:`ask`."""
        if self.connection is not None and not self.connection.over.called:
            self.connection.transport.abortConnection()
            await self.connection.over

    async def shown(self) -> list[Shown]:
        """What the desktop was asked to show until now."""
        calls = await self.ask("GetMethodCalls", "Notify", signature="s")
        return [Shown(call[1], call[3], call[4]) for _, call in calls]

    async def shows(self, count: int) -> list[Shown]:
        """Wait until it was asked to show so many."""
        deadline = reactor.seconds() + 20.0
        while reactor.seconds() < deadline:
            try:
                found = await self.shown()
            except NTMobileError:  # it is only starting
                found = []
            if len(found) >= count:
                return found
            await deferLater(reactor, 0.02, lambda: None)
        raise self.failureException(f"{count} were not shown within 20 s")
