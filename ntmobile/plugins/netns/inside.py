"""What the process in the namespace can do there: its set-up, and one method for each request."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ntmobile.plugins import linux
from ntmobile.plugins.netns import namespaces
from ntmobile.plugins.netns.channel import Message
from ntmobile.plugins.netns.etc import NameServices
from ntmobile.plugins.netns.permission import explain
from ntmobile.plugins.rtnetlink import RouteSocket
from ntmobile.plugins.tun_interface import TunInterface

#: The interface programs see inside.
INTERFACE: Final = "ntm0"

_LOOPBACK: Final = 1  # its index in every network namespace

#: An answer and the descriptors that go with it, which the sender closes.
Answer = tuple[Message, tuple[int, ...]]


class Refused(Exception):
    """The system forbids the virtual network; the text is the line for the user."""


class VirtualNetwork:
    """The namespaces of this process: a TUN device, its interface, and name services.

    :param tun: the descriptor of the device, kept so that the device stays while no agent is there.
    """

    def __init__(self, tun: int, interface: TunInterface, names: NameServices) -> None:
        self._tun = tun
        self._interface = interface
        self._names = names
        self.operations: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "attach": self.attach,
            "configure": self.configure,
            "socket": self.socket,
            "enter": self.enter,
        }

    @classmethod
    def make(cls, state: Path) -> VirtualNetwork:
        """Move this process into new namespaces and set them up.

        :param state: a directory in which a temporary one may be made.
        :raises Refused: the system forbids something of it.
        """
        step = "a user and network namespace"
        names = NameServices()
        try:
            namespaces.isolate()
            step = "a TUN device in a network namespace"
            tun = linux.open_tun(INTERFACE)
            step = "the loopback interface of a network namespace"
            with RouteSocket() as kernel:
                kernel.set_up(_LOOPBACK)
            step = "an /etc of its own in a mount namespace"
            stage = Path(tempfile.mkdtemp(prefix=".etc-", dir=state))
            try:
                names.build(stage)
            finally:
                # Never a whole tree: were it mounted still, that would be all of the real /etc.
                stage.rmdir()
        except OSError as problem:
            raise Refused(explain(problem, step)) from problem
        _permit_ordinary_programs()
        return cls(tun, TunInterface(INTERFACE), names)

    def attach(self, request: Message) -> Answer:
        """Give a copy of the TUN device, to an agent that knows what is before each packet."""
        if request.get("offload") is not True:
            return {"error": "the virtual network is newer than its agent; run ntm down first"}, ()
        return {}, (os.dup(self._tun),)

    def configure(self, request: Message) -> Answer:
        """Set addresses, routes and MTU."""
        self._interface.configure(request["addresses"], request["routes"], request["mtu"])
        return {}, ()

    def socket(self, request: Message) -> Answer:
        """Make a socket in here."""
        made = socket.socket(request["family"], request["type"], request["protocol"])
        return {}, (made.detach(),)

    def enter(self, request: Message) -> Answer:
        """Give the namespaces themselves, to be joined."""
        self._names.refresh()
        return {}, namespaces.open_own()


def _permit_ordinary_programs() -> None:
    """Let programs without capabilities send pings and listen on any port of this network."""
    group = os.getegid()
    for name, value in (
        ("ping_group_range", f"{group} {group}"),
        ("ip_unprivileged_port_start", "0"),
    ):
        # A container's read-only /proc/sys costs just these.
        with (
            contextlib.suppress(OSError),
            open(f"/proc/sys/net/ipv4/{name}", "w", encoding="ascii") as file,
        ):
            file.write(value)
