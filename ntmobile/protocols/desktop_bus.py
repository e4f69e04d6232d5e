"""The session bus of a desktop, by txdbus (D-Bus specification, version 0.43).

txdbus reads addresses loosely and waits for ever where a bus does not answer. So addresses are read
here, what takes too long is given up, and what a bus says wrong ends its connection.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from txdbus.client import DBusClientConnection, DBusClientFactory
from txdbus.error import DBusException, RemoteError

from ntmobile.errors import ConfigurationError, Unreachable
from ntmobile.wire.text import printable

log = Logger()

#: Seconds for connecting, and for each call.
TIMEOUT: Final = 5.0
#: Bytes of a socket's path (unix(7)); Twisted says nothing where one is longer.
LONGEST_PATH: Final = 107
#: Bytes of one message that are taken: nothing that is asked for here is nearly as long.
LONGEST: Final = 1 << 20

BUS: Final = "org.freedesktop.DBus"

_LOST: Final = Failure(ConnectionDone())


class BusConnection(DBusClientConnection):
    """One connection to a bus."""

    _taking = False

    def connectionMade(self) -> None:
        """Begin to authenticate."""
        self.over: Deferred[None] = Deferred()
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Take what the bus says; what is not D-Bus ends the connection."""
        if self._taking:
            # txdbus calls itself for each further message, as deep as there are messages.
            self._buffer += data
            return
        self._taking = True
        try:
            left = len(self._buffer) + len(data)
            super().dataReceived(data)
            while len(self._buffer) < left:  # something of it was whole
                left = len(self._buffer)
                super().dataReceived(b"")
        except Exception as problem:  # txdbus raises whatever it stumbles over
            log.debug("the bus said nonsense: {problem!r}", problem=problem)
            self.transport.abortConnection()
        finally:
            self._taking = False
        if len(self._buffer) > LONGEST:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = _LOST) -> None:
        """Whoever waits for the bus hears it."""
        super().connectionLost(reason)
        if self.busName is None and not self.factory.d.called:
            self.factory.d.errback(reason)
        self.over.callback(None)

    async def call(
        self,
        path: str,
        method: str,
        *,
        interface: str,
        signature: str = "",
        body: Sequence[object] = (),
        destination: str | None = None,
        clock: Any,
    ) -> Any:
        """Call a method; what it returns is the peer's business.

        :param destination: whose; by default the owner of the name that is the interface's.
        :raises RemoteError: the peer refuses. :raises Unreachable: it does not answer.
        """
        answer = self.callRemote(
            path,
            method,
            interface=interface,
            destination=destination or interface,
            signature=signature or None,
            body=list(body) or None,
        )
        answer.addTimeout(TIMEOUT, clock)
        try:
            return await answer
        except RemoteError:
            raise
        except NoAnswer:
            raise Unreachable(f"{interface} does not answer on the session bus") from None
        except (ConnectionClosed, DBusException) as problem:
            raise Unreachable(f"the session bus: {printable(str(problem))}") from None

    async def subscribe(
        self,
        heard: Callable[[list[Any]], object],
        *,
        sender: str,
        interface: str,
        member: str,
        argument: str | None = None,
        clock: Any,
    ) -> None:
        """Have the bodies of a signal told.

        :param argument: its first argument, where only those with it are of interest.
        :raises Unreachable: the bus does not answer.
        """

        def told(message: Any) -> None:
            try:
                heard(list(message.body or ()))
            except (LookupError, TypeError, ValueError):
                log.debug("a signal {member} of other arguments", member=member)

        wanted = None if argument is None else [(0, argument)]
        adding = self.addMatch(
            told, mtype="signal", sender=sender, interface=interface, member=member, arg=wanted
        )
        adding.addTimeout(TIMEOUT, clock)
        try:
            await adding
        except (NoAnswer, ConnectionClosed, DBusException) as problem:
            raise Unreachable(f"the session bus: {printable(str(problem))}") from None


def session_bus_paths(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Where the session bus may be: as the environment says, else where systemd has it.

    :return: paths of sockets, abstract ones beginning with a zero byte; none where nobody says.
    """
    address = environment.get("DBUS_SESSION_BUS_ADDRESS", "")
    if address:
        try:
            return parse_address(address, environment)
        except ConfigurationError as problem:
            log.debug("DBUS_SESSION_BUS_ADDRESS: {problem}", problem=str(problem))
            return ()
    return _runtime(environment)


def _runtime(environment: Mapping[str, str]) -> tuple[str, ...]:
    directory = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return (f"{directory}/bus",)


def parse_address(text: str, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """A D-Bus address, such as ``unix:path=/run/user/1000/bus``, as paths of sockets to be tried.

    Sockets of this machine only: a bus over TCP proves nothing about who listens there.

    :raises ConfigurationError: there is none of these in it.
    """
    found: list[str] = []
    for part in text.split(";"):
        transport, _, rest = part.partition(":")
        keys = dict(pair.partition("=")[::2] for pair in rest.split(",") if "=" in pair)
        if transport != "unix":
            continue
        if keys.get("path"):
            found.append(unquote(keys["path"]))
        elif keys.get("abstract"):
            found.append("\0" + unquote(keys["abstract"]))
        elif keys.get("runtime") == "yes":
            found += _runtime(environment)
    if not found or any("\0" in path[1:] for path in found):
        raise ConfigurationError(
            "expected a D-Bus address of a Unix socket, such as unix:path=/run/user/1000/bus"
        )
    return tuple(found)


async def connect_bus(reactor: Any, paths: Sequence[str]) -> BusConnection:
    """Connect to the first bus that answers.

    :raises Unreachable: none does; the text says why the last one does not.
    """
    problem = "there is no session bus here: DBUS_SESSION_BUS_ADDRESS is not set"
    for path in paths:
        if len(os.fsencode(path)) > LONGEST_PATH:
            problem = f"{printable(path)}: too long for a socket's path"
            continue
        try:
            return await _connect(reactor, path)
        except (ConnectError, ConnectionClosed, DBusException) as reason:
            problem = f"{printable(path)}: {printable(str(reason))}"
        except NoAnswer:
            problem = f"{printable(path)}: no answer within {TIMEOUT:g} s"
    raise Unreachable(problem)


async def _connect(reactor: Any, path: str) -> BusConnection:
    factory = DBusClientFactory()
    factory.noisy = False
    factory.protocol = BusConnection
    endpoint = UNIXClientEndpoint(reactor, path, timeout=TIMEOUT)
    connection: BusConnection = await _soon(endpoint.connect(factory), reactor)
    try:
        await _soon(factory.getConnection(), reactor)
    except BaseException:
        factory.d.addErrback(lambda failure: None)
        connection.transport.abortConnection()
        raise
    return connection


def _soon(answer: Deferred[Any], clock: Any) -> Awaitable[Any]:
    answer.addTimeout(TIMEOUT, clock)
    return answer
