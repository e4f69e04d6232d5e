"""One port for two protocols: a link, or HTTP, as TLS has negotiated (ALPN; design section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ntmobile.protocols.http_server import HttpApi
from ntmobile.protocols.link import Link
from ntmobile.protocols.redial import abort
from ntmobile.protocols.tls import connection_of, negotiated

#: HTTP/1.1, as ALPN protocol.
HTTP_PROTOCOL: Final = b"http/1.1"


@implementer(IHandshakeListener)
class ByProtocol(Protocol):
    """A connection that is a link unless the client asks for HTTP.

    :param link: what it is at first; it hears in any case that the connection is lost.
    :param web: serves it if it is to be HTTP. :param address: where it comes from.
    :param chosen: called when it is to be HTTP.
    """

    def __init__(
        self, link: Link, web: HttpApi, address: IAddress | None, chosen: Callable[[], object]
    ) -> None:
        self._link = link
        self._web = web
        self._address = address
        self._chosen = chosen
        self._inner: IProtocol = link

    def connectionMade(self) -> None:
        """TCP stands."""
        assert self.transport is not None
        self._link.makeConnection(self.transport)

    def handshakeCompleted(self) -> None:
        """IHandshakeListener: TLS stands, so it is known what is spoken."""
        if negotiated(connection_of(self.transport)) != HTTP_PROTOCOL:
            self._link.handshakeCompleted()
            return
        web = self._web.buildProtocol(self._address)
        if web is None or self.transport is None:
            abort(self._link)
            return
        self._chosen()
        self._inner = web
        web.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """For whom it is."""
        self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over for both."""
        if self._inner is not self._link:
            self._inner.connectionLost(reason)
        self._link.connectionLost(reason)
