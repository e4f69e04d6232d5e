"""Joining two byte streams: what one side sends the other gets, with back-pressure and half-closes.

For ``ntm forward`` and ``ntm socks``. One side is there first and is held until the other one is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Spliced(Protocol):
    """One side of a joined pair.

    :ivar other: the other side, once it is there.
    """

    other: Spliced | None = None
    _ended = False
    _gone = False

    def join(self, other: Spliced) -> None:
        """Join with a side that is connected; this one is too. Both are read from now on."""
        self.other, other.other = other, self
        for one in (self, other):
            if one._gone:
                one._leave()
                return
        for one, its in ((self, other), (other, self)):
            producer = cast(IPushProducer, its.transport)
            cast(Any, one.transport).registerProducer(producer, True)
            producer.resumeProducing()
        if self._ended:
            other._end()

    def hold(self) -> None:
        """Read no more until it is joined."""
        cast(IPushProducer, self.transport).pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        """To the other side."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        """This side will send no more: tell the other, which may."""
        self._ended = True
        if self.other is not None:
            self.other._end()

    def writeConnectionLost(self) -> None:
        """What we close ourselves."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """This side is gone: so is the other, after what is on its way to it."""
        self._gone = True
        if self.other is not None:
            self._leave()

    def _end(self) -> None:
        if ITCPTransport.providedBy(self.transport) and not self._gone:
            cast(Any, self.transport).loseWriteConnection()

    def _leave(self) -> None:
        other, self.other = self.other, None
        if other is not None:
            other.other = None
            if other.transport is not None and not other._gone:
                cast(Any, other.transport).unregisterProducer()
                other.transport.loseConnection()


class SplicedFactory(Factory[Spliced]):
    """Makes the far side of a pair."""

    noisy = False

    def buildProtocol(self, addr: object) -> Spliced:
        """One side, not joined yet."""
        return Spliced()


class Forwarded(Spliced):
    """The near side of a forwarded connection: held until the far side is reached.

    :param connect: reaches it. :param failed: is told why it was not.
    """

    def __init__(
        self, connect: Callable[[], Deferred[Spliced]], failed: Callable[[str], None]
    ) -> None:
        self._connect = connect
        self._failed = failed
        self._connecting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Reach the far side."""
        self.hold()
        self._connecting = self._connect().addCallbacks(self.join, self._unreached)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone, perhaps before the far side was there."""
        if self._connecting is not None:
            self._connecting.cancel()
        super().connectionLost(reason)

    def _unreached(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._failed(failure.getErrorMessage())
        if self.transport is not None:
            self.transport.loseConnection()


class ForwardingFactory(Factory[Forwarded]):
    """Makes the near sides; see :class:`Forwarded`."""

    noisy = False

    def __init__(
        self, connect: Callable[[], Deferred[Spliced]], failed: Callable[[str], None]
    ) -> None:
        self._connect = connect
        self._failed = failed

    def buildProtocol(self, addr: object) -> Forwarded:
        """One connection."""
        return Forwarded(self._connect, self._failed)
