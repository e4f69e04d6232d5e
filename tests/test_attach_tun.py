"""The ``tun`` attachment, in a process that has CAP_NET_ADMIN over a network of its own."""

from __future__ import annotations

import sys

from tests.attachments import LEFT, RIGHT, Completed, spawn
from tests.test_attach_netns import NetnsTestCase

#: Opens the attachment, answers pings, and runs the commands given, each in a shell.
_HOST = """
import os, subprocess, sys
from pathlib import Path
from ntmobile.plugins import linux
from ntmobile.plugins.netns import namespaces
namespaces.isolate()
try:
    open("/proc/sys/net/ipv4/ping_group_range", "w").write(f"{os.getgid()} {os.getgid()}")
    from ntmobile.plugins.rtnetlink import RouteSocket
    with RouteSocket() as kernel:
        kernel.set_up(1)
except OSError:
    pass
if "--powerless" in sys.argv:
    linux.drop_capabilities()
taken = linux.open_tun("ntm0") if "--taken" in sys.argv else None

from twisted.internet import threads
from twisted.internet.task import react
from ntmobile.errors import NTMobileError
from ntmobile.interfaces import IAttachment
from ntmobile.plugins.attach_tun import TunProvider
from tests.attachments import LEFT, echo_reply
from zope.interface.verify import verifyObject

async def main(reactor):
    section = {"name": "given0"} if "--name" in sys.argv else {}
    factory = TunProvider().configure(section, reactor)
    answer = lambda packet, offload: attachment.send(echo_reply(bytes(packet)) or b"")
    try:
        attachment = await factory.open(LEFT, Path(), answer, print)
    except NTMobileError as problem:
        print(type(problem).__name__, problem)
        return
    verifyObject(IAttachment, attachment)
    for command in [argument for argument in sys.argv[1:] if not argument.startswith("--")]:
        shell = ["sh", "-c", command]
        await threads.deferToThread(subprocess.call, shell)
    attachment.close()
    print("left:", subprocess.check_output(["ip", "-o", "link"], text=True).count("ntm0"))

react(main)
"""


class TunTests(NetnsTestCase):
    """A TUN device on the host."""

    async def on_host(self, *arguments: str) -> Completed:
        """Run the program above."""
        return await spawn([sys.executable, "-c", _HOST, *arguments]).wait()

    async def test_ping(self) -> None:
        """Packets go both ways over IPv4 and IPv6, and the device goes when it is closed."""
        pings = [
            f"ping -n -c2 -i0.1 -W5 {peer} >&2; echo {peer} $?" for peer in (RIGHT.ipv4, RIGHT.ipv6)
        ]
        done = await self.on_host(*pings)
        self.assertIn(f"{RIGHT.ipv4} 0", done.output, done)
        self.assertIn(f"{RIGHT.ipv6} 0", done.output, done)
        self.assertIn("left: 0", done.output, done)

    async def test_interface(self) -> None:
        """The interface has the name, addresses, MTU and routes that it should."""
        show = "ip addr show dev given0; ip route; ip -6 route"
        shown = (await self.on_host("--name", show)).output
        for text in (
            "mtu 1280",
            f"inet {LEFT.ipv4}/32",
            f"inet6 {LEFT.ipv6}/64",
            "198.18.0.0/15 dev given0",
            "fd00::/8 dev given0",
        ):
            self.assertIn(text, shown)

    async def test_without_the_right(self) -> None:
        """Without CAP_NET_ADMIN it says so, and what to do instead."""
        done = await self.on_host("--powerless")
        self.assertIn("NotPermittedHere", done.output, done)
        self.assertIn("CAP_NET_ADMIN", done.output)
        self.assertIn('attachment.plugin = "netns"', done.output)

    async def test_taken(self) -> None:
        """A name that another program uses is refused with the key to change."""
        done = await self.on_host("--taken")
        self.assertIn("ConfigurationError", done.output, done)
        self.assertIn("attachment.name", done.output)
