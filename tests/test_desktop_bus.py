from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorUNIX
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from txdbus.message import SignalMessage

from ntmobile.errors import ConfigurationError, Unreachable
from ntmobile.protocols import desktop_bus
from ntmobile.protocols.desktop_bus import (
    BUS,
    BusConnection,
    connect_bus,
    parse_address,
    session_bus_paths,
)
from tests.buses import BusTestCase


class AddressTests(SynchronousTestCase):
    def test_paths(self) -> None:
        """Sockets of this machine, in order, with what is escaped in them."""
        runtime = {"XDG_RUNTIME_DIR": "/run/user/7"}
        for text, paths in (
            ("unix:path=/run/user/1000/bus", ("/run/user/1000/bus",)),
            ("unix:path=/tmp/a%20b%3d,guid=00ff", ("/tmp/a b=",)),
            ("unix:abstract=/tmp/dbus-x,guid=1", ("\0/tmp/dbus-x",)),
            ("tcp:host=h,port=1;unix:path=/a;unix:path=/b", ("/a", "/b")),
            ("unix:runtime=yes", ("/run/user/7/bus",)),
        ):
            self.assertEqual(parse_address(text, runtime), paths)

    def test_others(self) -> None:
        """What is no such address is a clear error."""
        for text in ("", "/run/bus", "tcp:host=example.com,port=1", "unix:", "unix:path=", "a;b;c"):
            with self.assertRaisesRegex(ConfigurationError, "unix:path="):
                parse_address(text)
        with self.assertRaises(ConfigurationError):
            parse_address("unix:path=/a%00b")

    def test_environment(self) -> None:
        """The session bus is where the environment says, or where systemd has it."""
        self.assertEqual(session_bus_paths({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/a"}), ("/a",))
        self.assertEqual(session_bus_paths({"DBUS_SESSION_BUS_ADDRESS": "autolaunch:"}), ())
        self.assertEqual(
            session_bus_paths({"XDG_RUNTIME_DIR": "/run/user/7"}), ("/run/user/7/bus",)
        )
        self.assertEqual(session_bus_paths({}), (f"/run/user/{os.getuid()}/bus",))


class Speaker(Protocol):
    """Something else than a bus: says one thing, and perhaps closes."""

    def __init__(self, word: bytes, close: bool) -> None:
        self._word = word
        self._close = close

    def connectionMade(self) -> None:
        """Say it."""
        assert self.transport is not None
        self.transport.write(self._word)
        if self._close:
            self.transport.loseConnection()


class StrangerTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        """Short patience."""
        self.patch(desktop_bus, "TIMEOUT", 0.3)

    async def refused(self, word: bytes, *, close: bool = False) -> str:
        """Connect to somebody who says that; the problem."""
        path = Path(self.mktemp()).name
        factory: Factory[Any] = Factory()
        build: Callable[[Any], Speaker] = lambda _: Speaker(word, close)  # noqa: E731
        with mock.patch.object(factory, "buildProtocol", build):
            port = IReactorUNIX(reactor).listenUNIX(path, factory)
            try:
                await connect_bus(reactor, [path])
            except Unreachable as problem:
                return str(problem)
            finally:
                await maybeDeferred(port.stopListening)
        raise self.failureException("it was taken for a bus")

    async def test_nobody(self) -> None:
        """Where nobody listens, or no path could be, one line says so."""
        for path in ("/nonexistent/bus", "/" + "x" * 200, "\0ntmobile-nobody-listens"):
            with self.assertRaises(Unreachable):
                await connect_bus(reactor, [path])
        with self.assertRaisesRegex(Unreachable, "DBUS_SESSION_BUS_ADDRESS is not set"):
            await connect_bus(reactor, [])

    async def test_silent(self) -> None:
        """A bus that says nothing is given up."""
        self.assertIn("no answer", await self.refused(b""))

    async def test_closes(self) -> None:
        """A bus that closes is no bus."""
        await self.refused(b"", close=True)

    async def test_nonsense(self) -> None:
        """Neither is what speaks something else, however it does."""
        authenticated = b"OK 00112233445566778899aabbccddeeff\r\n"
        for word in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\xff\xfe\r\n",
            b"OK zz\r\n",
            b"x" * 100_000,
            b"REJECTED\r\n" * 10,
            authenticated + b"AGREE_UNIX_FD\r\n" + b"\xff" * 64,
            authenticated
            + b"AGREE_UNIX_FD\r\n"
            + b"l\1\0\1"
            + b"\xff\xff\xff\x07" * 3
            + b"x" * 2**21,
            authenticated + b"ERROR\r\n",
        ):
            await self.refused(word)


class BusTests(BusTestCase):
    async def connect(self) -> BusConnection:
        """A connection to a bus that runs."""
        self.bus.start()
        connection = await connect_bus(reactor, ["/nonexistent/bus", str(self.bus.socket)])

        def close() -> Deferred[None]:
            connection.transport.abortConnection()
            return connection.over

        self.addCleanup(close)
        return connection

    async def test_connects(self) -> None:
        """The first of several that answers is taken."""
        connection = await self.connect()
        self.assertTrue(connection.busName)

    async def test_no_answer(self) -> None:
        """Who does not answer is given up, and a late answer is nobody's any more."""
        connection = await self.connect()
        self.patch(desktop_bus, "TIMEOUT", 0.2)
        other = await connect_bus(reactor, [str(self.bus.socket)])
        self.patch(other, "methodCallReceived", lambda call: None)
        with self.assertRaisesRegex(Unreachable, "does not answer"):
            await connection.call(
                "/", "Wait", interface="a.b", destination=other.busName, clock=reactor
            )
        other.transport.abortConnection()
        await other.over

    async def test_lost_meanwhile(self) -> None:
        """Who waits when the bus ends hears it at once."""
        connection = await self.connect()
        other = await connect_bus(reactor, [str(self.bus.socket)])
        self.patch(other, "methodCallReceived", lambda call: self.bus.end())
        with self.assertRaises(Unreachable):
            await connection.call(
                "/", "Wait", interface="a.b", destination=other.busName, clock=reactor
            )
        await other.over

    async def test_flood(self) -> None:
        """Any number of messages in one reception is taken, one after the other."""
        connection = await self.connect()
        heard: list[list[str]] = []
        interface = "org.example.Flood"
        await connection.subscribe(
            heard.append, sender=BUS, interface=interface, member="Drop", clock=reactor
        )
        drop = SignalMessage("/", "Drop", interface, signature="s", body=["x"]).rawMessage
        await deferLater(reactor, 0, lambda: None)  # this goes on amid a reception
        connection.dataReceived(drop * 5000 + drop[:30])
        self.assertEqual(heard, [["x"]] * 5000)
        connection.dataReceived(drop[30:])
        self.assertEqual(len(heard), 5001)

    async def test_signals(self) -> None:
        """Signals of interest are told, and odd ones do no harm."""
        connection, heard = await self.connect(), []

        def hear(body: list[Any]) -> None:
            heard.append(body[0])

        for sender in (BUS, "org.example.Other"):
            await connection.subscribe(
                hear,
                sender=sender,
                interface=BUS,
                member="NameOwnerChanged",
                argument="org.example.Mine",
                clock=reactor,
            )
        await connection.requestBusName("org.example.Other")
        await connection.requestBusName("org.example.Mine")
        await self.eventually(lambda: bool(heard), "it is told")
        self.assertEqual(set(heard), {"org.example.Mine"})
