"""The incoming links of a server: over TLS, and within limits of number and time.

Whoever connects costs memory before anything is known of him, and a device that logs in shows no
certificate at all. So one network has a share of the connections only, TLS must stand soon, and who
stays nobody in particular has to say what he wants and go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from ntmobile.machines.login.sources import source_network
from ntmobile.protocols.bulk_tls import TLSFactory
from ntmobile.protocols.by_protocol import ByProtocol
from ntmobile.protocols.http_server import HttpApi
from ntmobile.protocols.link import Link
from ntmobile.protocols.redial import abort
from ntmobile.protocols.tls import ServerTLS

#: Connections at once, of all and of one network (an IPv4 address, an IPv6 /64).
CONNECTIONS: Final = 2048
CONNECTIONS_EACH: Final = 256
#: Seconds in which TLS must stand.
HANDSHAKE: Final = 15.0
#: Seconds after that in which a peer without a certificate may stay; a login takes one, at most 60.
VISIT: Final = 90.0

log = Logger()


class _Accepting(Factory[Any]):
    """Makes the protocols of connections that are accepted.

    Twisted types its factories as if each made one; ``IProtocolFactory`` has None refuse.
    """

    noisy = False

    def __init__(self, accept: Callable[[IAddress | None], Protocol | None]) -> None:
        self._accept = accept

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A protocol, or None."""
        return self._accept(addr)


@define(eq=False)
class IncomingLinks:
    """The links that were opened to a server, those in their handshake included.

    :ivar make: makes the link of one connection.
    """

    clock: IReactorTime
    make: Callable[[], Link]
    most: int = CONNECTIONS
    each: int = CONNECTIONS_EACH
    _open: dict[Link, str] = field(factory=dict, init=False)
    _of_network: Counter[str] = field(factory=Counter, init=False)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Link]:
        return iter(tuple(self._open))

    def factory(self, tls: ServerTLS, web: HttpApi | None = None) -> Factory[Any]:
        """What to listen with.

        :param web: serves connections whose ALPN protocol is HTTP, with limits of its own.
        """
        return TLSFactory(tls, False, _Accepting(lambda addr: self._accept(addr, web)))

    def close(self) -> None:
        """Close all."""
        for link in self:
            link.close()

    def _accept(self, addr: IAddress | None, web: HttpApi | None) -> Protocol | None:
        network = source_network(str(getattr(addr, "host", "")).partition("%")[0])
        if len(self._open) >= self.most or self._of_network[network] >= self.each:
            log.warn(
                "refused a connection from {network}: {count} are open, {each} from there",
                network=network,
                count=len(self._open),
                each=self._of_network[network],
            )
            return None
        link = self.make()
        self._open[link] = network
        self._of_network[network] += 1
        limit = self.clock.callLater(HANDSHAKE, abort, link)
        link.ready.addBoth(lambda _: _settled(link, limit))
        link.closed.addCallback(lambda _: self._gone(link, limit))
        return link if web is None else ByProtocol(link, web, addr, limit.cancel)

    def _gone(self, link: Link, limit: IDelayedCall) -> None:
        if limit.active():
            limit.cancel()
        network = self._open.pop(link)
        self._of_network[network] -= 1
        if not self._of_network[network]:
            del self._of_network[network]


def _settled(link: Link, limit: IDelayedCall) -> None:
    """TLS stands, or never will: who has a certificate may stay."""
    if not limit.active():
        return
    if link.alive and link.peer is None:
        limit.reset(VISIT)
    else:
        limit.cancel()
