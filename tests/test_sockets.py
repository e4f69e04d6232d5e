"""The sockets of a device."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from ntmobile.client.sockets import ClientSockets
from ntmobile.machines.effects import Address


class Nobody:
    """Is not interested in what comes."""

    def run_received(self, data: memoryview, segment: int, source: Address) -> None:
        """Take datagrams."""

    def batch_ended(self) -> None:
        """That was it."""


class OpenTests(TestCase):
    """ClientSockets.open."""

    def setUp(self) -> None:
        self.sockets = ClientSockets(reactor, Nobody())
        self.addCleanup(lambda: self.sockets.close())

    def test_port_in_use(self) -> None:
        """A device whose port another program has is reachable at another, and says so."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("", 0))
            port = other.getsockname()[1]
            with capturedLogs() as logs:
                self.sockets.open(port)
            self.assertNotEqual(self.sockets.ports[4], port)
        warned = [one for one in logs if one["log_level"] is LogLevel.warn]
        self.assertEqual([(one["port"], one["family"]) for one in warned], [(port, 4)])

    def test_any_port(self) -> None:
        """Where no port is asked for, both families have the same if they can, and all is well."""
        with capturedLogs() as logs:
            self.sockets.open()
        self.assertFalse([one for one in logs if one["log_level"] is LogLevel.warn])


class PinTests(TestCase):
    """Datagrams through an interface of one's own choice; tests.lab moves real traffic so."""

    def setUp(self) -> None:
        """Sockets, and a program to send to."""
        self.sockets = ClientSockets(reactor, Nobody())
        self.addCleanup(lambda: self.sockets.close())
        self.sockets.open()
        self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.other.close)
        self.other.bind(("127.0.0.1", 0))
        self.other.settimeout(5)
        self.loopback = socket.if_nametoindex("lo")

    def test_through_an_interface(self) -> None:
        """A datagram may name its interface; one that is not there is counted as not sent."""
        self.sockets.send(b"through lo", self.other.getsockname(), self.loopback)
        self.assertEqual(self.other.recv(100), b"through lo")
        self.sockets.send(b"through nothing", self.other.getsockname(), 2**30)
        self.assertEqual(sum(self.sockets.failures.values()), 1)

    def test_near_hosts(self) -> None:
        """What the default route does not lead to follows the system's routes."""
        self.sockets.pin(4, 2**30, ("192.0.2.1",))
        self.sockets.send(b"near", self.other.getsockname())
        self.assertEqual(self.other.recv(100), b"near")
        self.sockets.pin(4, 2**30, ("127.0.0.1",))  # as if the default route led there
        self.sockets.send(b"by the pin", self.other.getsockname())
        self.assertEqual(sum(self.sockets.failures.values()), 1)
        self.sockets.forget_routes(["127.0.0.0/8"])
        self.sockets.send(b"near again", self.other.getsockname())
        self.sockets.forget_routes([])
        self.sockets.unpin(4)
        self.sockets.send(b"by the routes", self.other.getsockname())
        self.assertEqual([self.other.recv(100) for _ in "12"], [b"near again", b"by the routes"])
