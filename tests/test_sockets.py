"""The sockets of a device."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from ntmobile.client.sockets import ClientSockets


class OpenTests(TestCase):
    """ClientSockets.open."""

    def setUp(self) -> None:
        self.sockets = ClientSockets(reactor, lambda datagram, remote: None)
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
