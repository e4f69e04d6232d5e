# ruff: noqa: N805  (methods of an interface have no self)
"""What a coordinator keeps of its clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


@frozen
class StoredClient:
    """What a coordinator keeps of a client, so that a restart asks nobody for a password.

    :ivar index: session index. :ivar key: session key, 32 bytes: as secret as the file it is in.
    :ivar certificate: device certificate, DER. :ivar expires: of the session, unix seconds.
    :ivar location: encoded location. :ivar policy: encoded policy. :ivar order: of registration.
    :ivar correspondents: encoded names of those it has tunnels with, for revocation.
    """

    fqdn: str
    index: bytes
    key: bytes
    certificate: bytes
    expires: float
    location: bytes
    policy: bytes
    order: int
    correspondents: bytes = b""

    def __repr__(self) -> str:
        return f"StoredClient({self.fqdn!r})"


class ILocationStore(Interface):
    """Durable half of a coordinator's clients; written behind, read at start."""

    def load() -> Iterator[StoredClient]:
        """All clients, in the order of their registrations; read to the end, at start."""

    def assignments() -> dict[str, tuple[bytes, bytes]]:
        """FQDN to virtual IPv6 and IPv4 address, for all devices that ever logged in."""

    def assign(fqdn: str, ipv6: bytes, ipv4: bytes) -> None:
        """Keep the virtual addresses of a device, durable when this returns."""

    def sequence() -> int:
        """The account server's sequence up to which revocations were carried out."""

    def write(changed: list[StoredClient], removed: list[str], sequence: int) -> Deferred[None]:
        """Store a batch, atomically; does not block the reactor.

        :return: fires when it is durable; fails with :class:`~ntmobile.errors.NTMobileError` (such
            as a full disk), and the batch is then given again.
        """

    def close() -> Deferred[None]:
        """Finish what is under way."""


class ILocationStoreProvider(Interface):
    """A plugin that makes an :class:`ILocationStore` from a DC's ``[locations]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``sqlite``")

    def configure(section: Mapping[str, object], directory: str, reactor: object) -> ILocationStore:
        """Make a store; ``directory`` is the coordinator's state directory.

        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """
