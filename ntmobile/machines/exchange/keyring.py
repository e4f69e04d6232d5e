"""The shared keys that a device holds: those it made, and those it opened (R29, R31).

A key that was opened is one of its *sender*, for one application: an item by another sender, or of
another application, does not open with it, though it may name it. The owner stores what changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import field, frozen

from ntmobile.errors import AuthenticationError, NoSuchItem
from ntmobile.machines.exchange.shared_keys import Recipient, SharedKey, key_identifier
from ntmobile.wire.messages.exchange import Manifest, SealedKey


@frozen
class OpenedKey:
    """A shared key of somebody else, opened.

    :ivar expires: its signed end; afterwards it is forgotten, and no item of it is taken.
    """

    sender: str
    application: str
    identifier: bytes
    key: bytes = field(repr=False)
    expires: int

    @classmethod
    def of(cls, sealed: SealedKey, key: bytes) -> OpenedKey:
        """What :func:`~.shared_keys.open_key` returned for ``sealed``."""
        return cls(sealed.sender, sealed.application, sealed.identifier, key, sealed.expires)


class KeyRing:
    """Shared keys, own and opened.

    :ivar own: by identifier. :ivar opened: by sender and identifier.
    """

    def __init__(self, own: Iterable[SharedKey] = (), opened: Iterable[OpenedKey] = ()) -> None:
        """:param own: :param opened: from the storage."""
        self.own = {each.identifier: each for each in own}
        self.opened = {(each.sender, each.identifier): each for each in opened}

    def take(
        self, application: str, recipients: Sequence[Recipient], until: float, now: float
    ) -> SharedKey | None:
        """A key for one more item to these devices, already counted; None: make a new one (R31).

        It is to be stored as it is returned before the item is sealed.

        :param until: when that item expires.
        """
        for identifier, each in self.own.items():
            if each.serves(application, recipients, until, now):
                self.own[identifier] = each.used()
                return self.own[identifier]
        return None

    def add(self, shared: SharedKey) -> SharedKey:
        """Take up a new key, and count the item that it was made for."""
        self.own[shared.identifier] = shared.used()
        return self.own[shared.identifier]

    def accept(self, opened: OpenedKey) -> None:
        """Take up a key that was opened."""
        if key_identifier(opened.key) != opened.identifier:
            raise ValueError("a key under the identifier of another")
        self.opened[opened.sender, opened.identifier] = opened

    def key_for(self, manifest: Manifest) -> bytes:
        """The key of a verified manifest.

        :raises NoSuchItem: it is not here (yet): it waits at the CS, or has expired.
        :raises AuthenticationError: it is of another application, or ends before the item.
        """
        found = self.opened.get((manifest.sender, manifest.key))
        if found is None:
            raise NoSuchItem(f"the key for an item from {manifest.sender} has not come yet")
        if found.application != manifest.application or found.expires < manifest.expires:
            raise AuthenticationError(
                f"an item from {manifest.sender} is sealed with a key that was not made for it"
            )
        return found.key

    def forget(self, now: float) -> list[bytes]:
        """Forget keys that have ended, and say which: the owner erases them from its storage."""
        own = [each.identifier for each in self.own.values() if now >= each.expires]
        opened = [each for each, key in self.opened.items() if now >= key.expires]
        for identifier in own:
            del self.own[identifier]
        for each in opened:
            del self.opened[each]
        return [*own, *(identifier for _, identifier in opened)]
