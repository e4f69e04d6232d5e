"""The names that all hosts of the virtual internet know, as if from a hosts file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

from ntmobile.testing.datagrams import canonical, family


@implementer(IHostResolution)
@define
class Resolution:
    """A resolution, done as soon as begun."""

    name: str

    def cancel(self) -> None:
        """Too late."""


@implementer(IHostnameResolver)
class Names:
    """Names and their addresses; numeric addresses stand for themselves."""

    def __init__(self) -> None:
        self._addresses: dict[str, list[str]] = {}

    def set(self, name: str, *addresses: str) -> None:
        """Give a name its addresses; none at all makes it unknown."""
        self._addresses[name.lower().rstrip(".")] = [canonical(one) for one in addresses]

    def lookup(self, name: str) -> list[str]:
        """The addresses of a name, at least one; an unknown name is a ``LookupError``."""
        try:
            return [canonical(name)]
        except ValueError:
            pass
        addresses = self._addresses.get(name.lower().rstrip("."))
        if not addresses:
            raise LookupError(f"no host of the virtual internet is called {name}")
        return list(addresses)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :class:`IHostnameResolver`; everything happens before it returns."""
        resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        semantics: Literal["TCP", "UDP"] = "UDP" if transportSemantics == "UDP" else "TCP"
        try:
            addresses = self.lookup(hostName)
        except LookupError:
            addresses = []
        for address in addresses:
            kind = IPv4Address if family(address) == 4 else IPv6Address
            if addressTypes is None or kind in addressTypes:
                resolutionReceiver.addressResolved(kind(semantics, address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution
