# ruff: noqa: N805  (methods of an interface have no self)
"""What a cache server keeps: sealed keys, objects in parts, and what of them is still to be told.

A storage does not interpret what it keeps: the documents (the sealed key, the signed manifest) are
bytes to it, and so are the parts, which are ciphertext anyhow. What it has to know is beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

#: What waits: a sealed key, or an object.
WaitingKind = Literal["key", "data"]
#: How far an object has come at a destination: its coordinator is still to be told, was told, or
#: the receiver has confirmed.
DeliveryState = Literal["not told", "waiting", "confirmed"]


@frozen
class Quotas:
    """How much may be stored; 0 means that there is no such limit.

    What is announced counts from then on, until it is removed or all its destinations confirmed.

    :ivar user: bytes of one user's devices together. :ivar application: bytes of one application,
        of all its users. :ivar items: keys and objects of one user's devices together.
    """

    user: int = 0
    application: int = 0
    items: int = 0


@frozen
class Usage:
    """What is stored for somebody. :ivar size: bytes. :ivar items: keys and objects."""

    size: int
    items: int


@frozen
class StoredKey:
    """A shared key, sealed for one destination.

    :ivar destination: FQDN; with ``identifier`` it names the entry.
    :ivar identifier: of the shared key, 32 bytes. :ivar sender: FQDN; its user is who pays.
    :ivar expires: unix seconds. :ivar document: what the server makes of it again.
    """

    destination: str
    identifier: bytes
    sender: str
    application: str
    expires: float
    document: bytes = field(repr=False)


@frozen
class StoredObject:
    """An object: all of it but its parts.

    :ivar identifier: 16 bytes. :ivar sender: FQDN; its user is who pays.
    :ivar destinations: FQDNs, at least one. :ivar length: bytes of all parts together.
    :ivar part_size: of each part but the last, which has the rest.
    :ivar expires: unix seconds. :ivar document: what the server makes of it again.
    """

    identifier: bytes
    sender: str
    application: str
    destinations: tuple[str, ...]
    length: int
    part_size: int
    expires: float
    document: bytes = field(repr=False)

    @property
    def parts(self) -> int:
        """Of how many parts it consists."""
        return -(-self.length // self.part_size)

    def size_of(self, number: int) -> int:
        """The bytes of a part; 0 where there is no such one."""
        return max(0, min(self.part_size, self.length - number * self.part_size))


@frozen
class Standing:
    """How an object stands.

    :ivar complete: all parts came. :ivar released: all destinations have confirmed: the parts are
        gone, the object and its deliveries can be asked for until it expires.
    :ivar missing: the lowest numbers of parts that did not come, as many as were asked for.
    """

    complete: bool
    released: bool
    missing: tuple[int, ...] = ()


@frozen
class StoredPart:
    """A part that came. :ivar size: in bytes. :ivar digest: its SHA-256."""

    size: int
    digest: bytes


@frozen
class StoredDelivery:
    """How far an object has come at one destination.

    :ivar reason: a line, why its coordinator is not told yet or never will be.
    :ivar at: unix seconds of the last change. :ivar confirmation: the receiver's, as it came.
    """

    destination: str
    state: DeliveryState
    reason: str = ""
    at: float = 0
    confirmation: bytes = field(default=b"", repr=False)


@frozen
class Exchange:
    """An exchange request still to be sent to a destination's coordinator (paper, V-B).

    :ivar identifier: of the key or the object. :ivar attempts: that failed until now.
    :ivar document: of the key or the object.
    """

    kind: WaitingKind
    identifier: bytes
    destination: str
    attempts: int
    document: bytes = field(repr=False)


class IIncomingPart(Interface):
    """A part that comes piece by piece; nobody sees anything of it before it is kept.

    One call at a time. Each Deferred fails as those of :class:`ICacheStorage` do.
    """

    def write(*pieces: bytes) -> Deferred[None]:
        """Add pieces."""

    def keep(at: float) -> Deferred[bool]:
        """Keep it, after all of it was written and verified; see :meth:`ICacheStorage.put_part`."""

    def drop() -> Deferred[None]:
        """Throw away what was written, unless it was kept."""


class ICacheStorage(Interface):
    """Keys and objects of a cache server: durable when a Deferred fires, atomic, and bounded.

    No method blocks the reactor. Each Deferred fails with
    :class:`~ntmobile.errors.StorageFailed`, nothing having been done, when the storage does; and
    its subclass :class:`~ntmobile.errors.StorageFull` where there is no room. Everything may be
    repeated: who asked and did not hear, asks again. ``at`` is unix seconds throughout; what has
    expired by then is as if it were not there, and is removed by :meth:`expire`.

    A storage need not be one thing: parts are blobs that are written once under a name of their
    own and never changed, so that they can be in another place than the rest, which is small
    records that change in transactions.
    """

    def open() -> Deferred[None]:
        """Make it ready, before anything else.

        It is made where there is none, and cleared of what a crash left: parts that nothing refers
        to, and accounts that are not the sum of what is kept. Where it fails it may be asked again.
        """

    def close() -> Deferred[None]:
        """Finish what is under way; what is asked afterwards fails."""

    # -- Keys

    def add_keys(keys: Sequence[StoredKey], at: float) -> Deferred[None]:
        """Keep sealed keys, all or none, each with its exchange request to be sent.

        One that is there already with the same document is left as it is, with another one it is
        replaced and its destination told again.

        :raises AlreadyExists: another sender has a key of that identifier for that destination.
        :raises QuotaExceeded: the sender's user or the application has too much already.
        """

    def key(identifier: bytes, destination: str, at: float) -> Deferred[StoredKey | None]:
        """Give the key of that identifier for a destination."""

    # -- Objects

    def add_object(announced: StoredObject, at: float) -> Deferred[Standing]:
        """Announce an object: its room is taken now, so that its parts will fit.

        Announcing the same one again changes nothing. One without parts is complete at once.

        :raises AlreadyExists: there is another one of that identifier.
        :raises QuotaExceeded: with it the sender's user or the application had too much.
        :raises StorageFull: there is no room for it, beside what was announced before.
        """

    def find(identifier: bytes, at: float) -> Deferred[StoredObject | None]:
        """Give an object."""

    def standing(identifier: bytes, at: float, limit: int = 1000) -> Deferred[Standing]:
        """Tell how an object stands.

        :param limit: of :attr:`Standing.missing`. :raises NoSuchItem: there is none.
        """

    def look_up(
        identifier: bytes, at: float, limit: int = 1000
    ) -> Deferred[tuple[StoredObject, Standing] | None]:
        """Give an object and how it stands, both at one time; see :meth:`standing`."""

    def put_part(
        identifier: bytes, number: int, data: bytes, digest: bytes, at: float
    ) -> Deferred[bool]:
        """Keep a part; with the last one the object is complete, and its exchanges are to be sent.

        :param digest: SHA-256 of the data, which the caller has verified.
        :return: whether the object is complete.
        :raises NoSuchItem: there is no such object, or its parts are gone already.
        :raises AlreadyExists: that part came with other data.
        :raises MalformedMessage: there is no such number, or its size is another.
        """

    def begin_part(
        identifier: bytes, number: int, size: int, digest: bytes, at: float
    ) -> Deferred[IIncomingPart]:
        """Begin a part of so many bytes that comes piece by piece; raises as :meth:`put_part`.

        :param digest: SHA-256 that it is to have; the caller verifies that before it is kept.
        """

    def part(identifier: bytes, number: int, at: float) -> Deferred[StoredPart | None]:
        """Give what is known of a part, None if it did not come (or there is no such object)."""

    def read_part(
        identifier: bytes, number: int, start: int, length: int, at: float
    ) -> Deferred[bytes]:
        """Read of a part ``length`` bytes from ``start`` on, or up to its end.

        :raises NoSuchItem: it is not there.
        """

    def remove(identifier: bytes) -> Deferred[bool]:
        """Remove an object and all that belongs to it; tells whether there was one."""

    # -- Deliveries

    def deliveries(identifier: bytes, at: float) -> Deferred[list[StoredDelivery]]:
        """Tell how far an object has come, in the order of its destinations.

        :raises NoSuchItem: there is none.
        """

    def confirm(
        identifier: bytes, destination: str, confirmation: bytes, at: float
    ) -> Deferred[Standing]:
        """Keep a receiver's confirmation; the first stands. With the last one the parts go.

        :raises NoSuchItem: there is no such object, it is not complete, or not for that one.
        """

    def exchanges(at: float, limit: int) -> Deferred[list[Exchange]]:
        """List exchange requests that are to be sent by now, those that are due longest first."""

    def next_exchange() -> Deferred[float | None]:
        """Tell when the next exchange request is due, unix seconds; None if there is none."""

    def told(
        kind: WaitingKind, identifier: bytes, destinations: Sequence[str], at: float
    ) -> Deferred[None]:
        """Coordinators know of it now: their exchange requests are done."""

    def postpone(
        kind: WaitingKind,
        identifier: bytes,
        destinations: Sequence[str],
        reason: str,
        until: float | None,
        at: float,
    ) -> Deferred[None]:
        """An exchange request failed: keep why, and send it again at ``until``; None: never."""

    # -- Room

    def expire(at: float, idle: float) -> Deferred[int]:
        """Remove what has expired, and objects of which no part came for ``idle`` seconds.

        :return: how many keys and objects.
        """

    def usage(*, user: str | None = None, application: str | None = None) -> Deferred[Usage]:
        """Tell what is stored: of a user, of an application, of both, or all in all."""

    def free() -> Deferred[int]:
        """Tell how many bytes may still be announced."""


class ICacheStorageProvider(Interface):
    """A plugin that makes an :class:`ICacheStorage` from a cache server's ``[storage]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``files``")

    def configure(
        section: Mapping[str, object], directory: str, quotas: Quotas, reactor: object
    ) -> ICacheStorage:
        """Make a storage, which is not opened yet.

        :param section: the section without its ``plugin`` key.
        :param directory: the cache server's state directory.
        :param reactor: where Deferreds fire (IReactorFromThreads).
        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """
