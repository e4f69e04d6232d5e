"""The reactor of one host: what a program that runs there is given as its reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHostnameResolver,
    IReactorFromThreads,
    IReactorInThreads,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.protocol import AbstractDatagramProtocol, ClientFactory, ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.testing.connectors import StreamConnector
from ntmobile.testing.datagrams import Address, family
from ntmobile.testing.streams import StreamPort
from ntmobile.testing.udp import UDPPort

if TYPE_CHECKING:
    from ntmobile.testing.hosts import Host


class ThreadlessPool:
    """Stands in for a thread pool: runs a function in a later turn of the reactor, one at a time.

    ``deferToThreadPool(reactor, reactor.getThreadPool(), f)`` works with it. (``deferToThread``
    does not: it asks the global reactor.)
    """

    def __init__(self, reactor: HostReactor) -> None:
        self._reactor = reactor

    def callInThread(self, func: Callable[..., object], *args: object, **kw: object) -> None:
        """Call the function soon."""
        self._reactor.callLater(0, func, *args, **kw)

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, object], object] | None,
        func: Callable[..., object],
        *args: object,
        **kw: object,
    ) -> None:
        """Call the function soon, then ``onResult(success, result or failure)``."""

        def run() -> None:
            try:
                success, result = True, func(*args, **kw)
            except Exception:
                success, result = False, Failure()
            if onResult is not None:
                onResult(success, result)

        self._reactor.callLater(0, run)


@implementer(
    IReactorTime,
    IReactorUDP,
    IReactorTCP,
    IReactorFromThreads,
    IReactorInThreads,
    IReactorPluggableNameResolver,
)
class HostReactor:
    """A reactor that runs in virtual time, on one host's addresses. It is always running."""

    running = True

    def __init__(self, host: Host) -> None:
        self.host = host
        self.nameResolver: IHostnameResolver = host.internet.names
        self._pool = ThreadlessPool(self)
        self._triggers: list[tuple[str, str, Callable[[], object]]] = []

    def __repr__(self) -> str:
        return f"<HostReactor of {self.host.name}>"

    # IReactorTime

    def seconds(self) -> float:
        """The time of the internet's clock."""
        return self.host.timers.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """Call later, on this host: not while it is suspended, and not at all if it crashes."""
        return self.host.timers.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """This host's pending calls."""
        return self.host.timers.getDelayedCalls()

    # IReactorUDP

    def listenUDP(
        self,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
    ) -> UDPPort:
        """Bind a UDP socket; port 0 takes a free one.

        :raises CannotListenError: the port is taken or the address is none of this host's.
        """
        bound = UDPPort(self.host, port, protocol, interface, maxPacketSize)
        bound.startListening()
        return bound

    # IReactorTCP

    def listenTCP(
        self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = ""
    ) -> StreamPort:
        """Listen for streams. :raises CannotListenError: as :meth:`listenUDP`."""
        bound = StreamPort(self.host, port, factory, interface)
        bound.startListening()
        return bound

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float | None = 30.0,
        bindAddress: Address | None = None,
    ) -> StreamConnector:
        """Connect a stream; ``host`` may be one of :attr:`VirtualInternet.names`."""
        connector = StreamConnector(self.host, (host, port), factory, timeout, bindAddress)
        connector.connect()
        return connector

    # Names

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Use another resolver, for example one that asks a DNS server of this internet."""
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    def resolve(self, name: str, timeout: Sequence[int] = (1, 3, 11, 45)) -> Deferred[str]:
        """The first IPv4 address of a name."""
        try:
            addresses = [one for one in self.host.internet.names.lookup(name) if family(one) == 4]
            return succeed(addresses[0])
        except LookupError:
            return fail(DNSLookupError(f"no address for {name}"))

    # Threads

    def callFromThread(
        self, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        """Call in a later turn."""
        self.callLater(0, callable, *args, **kwargs)

    def callInThread(
        self, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        """Call in a later turn: there are no threads here."""
        self._pool.callInThread(callable, *args, **kwargs)

    def getThreadPool(self) -> ThreadlessPool:
        """See :class:`ThreadlessPool`."""
        return self._pool

    def suggestThreadPoolSize(self, size: int) -> None:
        """Ignored."""

    # Life, as far as services need it.

    def callWhenRunning(
        self, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        """Call now: it is running."""
        callable(*args, **kwargs)

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        callable: Callable[..., object],
        *args: object,
        **kwargs: object,
    ) -> object:
        """Remember what :meth:`fireSystemEvent` calls."""
        trigger = (phase, eventType, lambda: callable(*args, **kwargs))
        self._triggers.append(trigger)
        return trigger

    def removeSystemEventTrigger(self, triggerID: object) -> None:
        """Forget a trigger; an unknown one is a ``ValueError``."""
        self._triggers = [one for one in self._known(triggerID) if one is not triggerID]

    def _known(self, trigger: object) -> list[tuple[str, str, Callable[[], object]]]:
        if not any(one is trigger for one in self._triggers):
            raise ValueError("no such trigger")
        return self._triggers

    def fireSystemEvent(self, eventType: str) -> None:
        """Call what waits for an event such as ``shutdown``, in the order of its phases."""
        for phase in ("before", "during", "after"):
            for trigger in tuple(self._triggers):
                if trigger[:2] == (phase, eventType):
                    trigger[2]()
