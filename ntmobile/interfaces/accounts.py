# ruff: noqa: N805  (methods of an interface have no self)
"""Users, devices and revocations of a realm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen
from zope.interface import Attribute, Interface

from ntmobile.wire.certificates import DeviceCertificate


@frozen
class User:
    """A user of the realm.

    :ivar name: such as ``alice.dc1.ntm.example``.
    :ivar password_hash: Argon2id in PHC form (rule R2).
    :ivar disabled: whether logging in is refused.
    :ivar version: version of the user's device list; only ever grows (rule R5).
    """

    name: str
    password_hash: str = field(repr=False)
    disabled: bool
    version: int


@frozen
class Device:
    """A device that was enrolled.

    :ivar fqdn: its name. :ivar user: its user's name. :ivar certificate: its latest certificate.
    :ivar enrolled_at: unix seconds. :ivar removed: whether it was removed; it cannot log in then.
    :ivar former: the identity (raw Ed25519 key) that it had before, if that one signed the present
        one. :ivar succession: that signature (rule R5).
    """

    fqdn: str
    user: str
    certificate: DeviceCertificate
    enrolled_at: float
    removed: bool
    former: bytes = field(default=b"", repr=False)
    succession: bytes = field(default=b"", repr=False)


@frozen
class Revocation:
    """A device certificate that no longer holds although it has not expired (R34).

    :ivar serial: its serial number. :ivar fqdn: the device. :ivar identity: its Ed25519 key, raw.
    :ivar expires: unix seconds after which it may be forgotten.
    """

    serial: int
    fqdn: str
    identity: bytes = field(repr=False)
    expires: float


@frozen
class Change:
    """Something that servers must hear of, numbered without gaps in one order.

    :ivar sequence: its number, from 1. :ivar kind: ``user`` (added, enabled, disabled, password)
        or ``devices`` (enrolled, replaced, removed).
    :ivar user: whose. :ivar revoked: certificates that ceased to hold by it.
    """

    sequence: int
    kind: str
    user: str
    revoked: tuple[Revocation, ...]


@frozen
class AccountToken:
    """What cache servers know a device by, since one of its logins (paper, V-A; R28).

    :ivar token: its name, 16 bytes. :ivar key: the client-CS key, 32 bytes.
    :ivar expires: unix seconds, with the certificate of that login.
    """

    token: bytes
    fqdn: str
    key: bytes = field(repr=False)
    expires: float


@frozen
class TokenChanges:
    """What happened to tokens, up to a number.

    :ivar sequence: that number. :ivar tokens: made, and not revoked since.
    :ivar revoked: devices whose tokens hold no more, but for later ones.
    """

    sequence: int
    tokens: tuple[AccountToken, ...]
    revoked: tuple[str, ...]


class IAccountStore(Interface):
    """Users, devices and revocations of a realm: durable, atomic, open to other processes too.

    Methods block for a disk write and may be called from any one thread at a time. Each fails with
    :class:`~ntmobile.errors.StorageFailed`, having done nothing, when the storage does. ``at`` is
    unix seconds throughout.
    """

    def add_user(name: str, password_hash: str) -> None:
        """Add a user; :class:`~ntmobile.errors.AlreadyExists` if there is one of that name."""

    def set_password(name: str, password_hash: str) -> None:
        """Change the password; :class:`~ntmobile.errors.UnknownName` if there is no such user."""

    def set_disabled(name: str, disabled: bool, at: float) -> tuple[Revocation, ...]:
        """Disable or enable a user; disabling revokes the certificates of all its devices."""

    def user(name: str) -> User | None:
        """Give a user, or None."""

    def users() -> list[User]:
        """List all users, by name."""

    def enroll(
        certificate: DeviceCertificate, at: float, *, replace: bool, succession: bytes = b""
    ) -> tuple[Revocation, ...]:
        """Record a device that logged in with a password for the first time (rule R3).

        A device of that name is only replaced if asked to, and its certificates are revoked.

        :param succession: signature of the replaced device's identity over the new one, verified
            by the caller (rule R5).
        :raises AlreadyExists: there is a device of that name with another identity.
        :raises UnknownName: there is no such user.
        :raises AccessDenied: the user is disabled.
        """

    def renew(certificate: DeviceCertificate) -> None:
        """Record a new certificate of a device for the identity that it has.

        :raises UnknownName: it was removed, replaced, or never enrolled.
        :raises AccessDenied: the user is disabled.
        """

    def remove(fqdn: str, at: float) -> tuple[Revocation, ...]:
        """Remove a device and revoke its certificates; UnknownName if there is none."""

    def device(fqdn: str) -> Device | None:
        """Give a device that is not removed, or None."""

    def devices(user: str) -> list[Device]:
        """List a user's devices, removed ones included, by name."""

    def revocations(at: float) -> list[Revocation]:
        """List what is revoked and has not expired, for a server that just connected (R34)."""

    def changes_since(sequence: int) -> list[Change]:
        """List changes after a number, oldest first, at most 1000; cheap when there are none."""

    def last_change() -> int:
        """Give the number of the latest change, 0 if there was none."""

    def add_token(certificate: DeviceCertificate, token: bytes, key: bytes) -> None:
        """Keep the token of a login, until its certificate expires or is revoked.

        :raises UnknownName: the certificate is not recorded, or revoked already.
        """

    def token_changes(sequence: int, at: float) -> TokenChanges:
        """Give what happened to tokens after a number; at most 1000 things at once."""

    def last_token_change() -> int:
        """Give the number of the latest change of tokens, 0 if there was none."""

    def close() -> None:
        """Release the storage."""


class IAccountStoreProvider(Interface):
    """A plugin that opens an :class:`IAccountStore` from the account server's ``[store]``."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``sqlite``")

    def open(section: Mapping[str, object], directory: Path, *, make: bool) -> IAccountStore:
        """Open the storage.

        :param section: the section without its ``plugin`` key.
        :param directory: where relative paths in it start.
        :param make: whether to make it where there is none, which ``ntm realm init`` does; a
            server must not take an empty one for its own because a path is misspelt.
        :raises ConfigurationError: an unknown key, a wrong value, or what cannot be opened.
        """
