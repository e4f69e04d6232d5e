"""The ``fd`` attachment, on a TUN device that a process of the test's makes in a namespace."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from ntmobile.errors import ConfigurationError, NotPermittedHere
from ntmobile.interfaces import IAttachment, VirtualAddresses
from ntmobile.plugins.attach_fd import FdAttachmentFactory
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer
from tests.attachments import LEFT, RIGHT, echo_reply, spawn
from tests.test_attach_netns import NetnsTestCase

_MAKE = """
import os, socket, subprocess, sys
from ntmobile.plugins import linux
from ntmobile.plugins.netns import namespaces
from ntmobile.plugins.tun_interface import TunInterface
path, ipv6, ipv4, *peers = sys.argv[1:]
there = socket.socket(socket.AF_UNIX)
there.connect(path)
namespaces.isolate()
open("/proc/sys/net/ipv4/ping_group_range", "w").write(f"{os.getgid()} {os.getgid()}")
tun = linux.open_tun("given0")
routes = ["fd00::/8", "198.18.0.0/15"]
TunInterface("given0").configure([f"{ipv6}/64", f"{ipv4}/32"], routes, 1280)
socket.send_fds(there, [b"x"], [tun])
os.close(tun)
for peer in peers:
    status = subprocess.call(["ping", "-n", "-c2", "-i0.1", "-W5", peer], stdout=2)
    print(peer, status, flush=True)
"""


class FdTests(NetnsTestCase):
    """Attaching to a given descriptor."""

    def given(self) -> tuple[int, Deferred[str]]:
        """Make a device elsewhere; give its descriptor and what pings to the peers came to."""
        # Short, since the program connects to this name as it is: sun_path holds 108 bytes.
        directory = Path(tempfile.mkdtemp(prefix="ntm-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        path = directory / "fd"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(10)
            addresses = [LEFT.ipv6, LEFT.ipv4, RIGHT.ipv6, RIGHT.ipv4]
            program = spawn([sys.executable, "-c", _MAKE, str(path), *addresses])
            connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            _, [descriptor], _, _ = socket.recv_fds(connection, 1, 1)
        self.addCleanup(os.close, descriptor)
        return descriptor, program.wait().addCallback(lambda done: done.output + done.errors)

    async def test_ping(self) -> None:
        """Packets go both ways; the caller's descriptor stays open after closing."""
        descriptor, pinged = self.given()
        factory = FdAttachmentFactory(reactor, descriptor)

        def answer(packet: Buffer, offload: Offload | None) -> None:
            reply = echo_reply(bytes(packet))
            if reply is not None:
                attachment.send(reply)

        attachment = await factory.open(LEFT, Path(), answer, self.fail)
        verifyObject(IAttachment, attachment)
        said = await pinged
        self.assertIn(f"{RIGHT.ipv6} 0", said)
        self.assertIn(f"{RIGHT.ipv4} 0", said)
        self.assertEqual(4, attachment.traffic.to_applications)
        attachment.close()
        attachment.close()
        os.fstat(descriptor)

    async def test_addresses_are_the_callers(self) -> None:
        """Other addresses need another device; the same ones are no change."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        os.close(write)
        descriptor = os.open("/dev/null", os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        # An epoll reactor takes no /dev/null, and nothing is to be read here.
        self.patch(reactor, "addReader", lambda reader: None)
        attachment = await FdAttachmentFactory(reactor, descriptor).open(
            LEFT, Path(), lambda packet, offload: None, self.fail
        )
        self.addCleanup(attachment.close)
        attachment.readdress(LEFT)
        with self.assertRaisesRegex(NotPermittedHere, "new device"):
            attachment.readdress(VirtualAddresses(ipv6=LEFT.ipv6, ipv4="198.18.0.99"))

    async def test_no_device(self) -> None:
        """What is closed or no device is refused."""
        read, write = os.pipe()
        self.addCleanup(os.close, write)
        for expected in ("is no TUN device", "Bad file descriptor"):
            with self.assertRaisesRegex(ConfigurationError, f"descriptor {read}.*{expected}"):
                await FdAttachmentFactory(reactor, read).open(LEFT, Path(), print, print)
            if "TUN" in expected:
                os.close(read)
