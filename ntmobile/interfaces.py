# ruff: noqa: N805  (methods of an interface have no self)
"""The seams: what plugins provide and what the services ask of them.

Kept few and small. Each has more than one implementation, so that it is a real seam.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from ntmobile.errors import NTMobileError
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.realtime import NotificationRequest
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer

# --- Coordinator lookup -------------------------------------------------------------------------


@frozen
class Coordinator:
    """Where a domain's coordinator may be reached: hints only (rule R14).

    Who answers there must prove by its certificate to be the coordinator of ``domain``.

    :ivar domain: the domain asked for.
    :ivar servers: numeric host and TCP port, IPv4 and IPv6, in order of preference; at least one.
    :ivar udp_port: the port for signalling at the first of them.
    :ivar tcp_port: the port for login and for other servers at the first of them.
    """

    domain: str
    servers: tuple[tuple[str, int], ...]
    udp_port: int
    tcp_port: int


class ICoordinatorLookup(Interface):
    """Finds the coordinator of a domain, which is a correspondent's name less two labels."""

    def find(domain: str) -> Deferred[Coordinator]:
        """Find the coordinator of ``domain``; may be called as often as wished.

        The cost of one call is bounded in time and work whatever the sources answer.

        :param domain: such as ``dc1.ntm.example``.
        :return: fires with a :class:`Coordinator`, or fails with
            :class:`~ntmobile.errors.UnknownName` (there is none),
            :class:`~ntmobile.errors.Unreachable` (it cannot be told now) or
            :class:`~ntmobile.errors.InvalidName`. Cancelling one caller's Deferred does not
            disturb the others'.
        """


class ICoordinatorLookupProvider(Interface):
    """A plugin that makes an :class:`ICoordinatorLookup` from a server's ``[lookup]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``dns``")

    def configure(section: Mapping[str, object], reactor: object) -> ICoordinatorLookup:
        """Make a lookup.

        :param section: the section without its ``plugin`` key.
        :param reactor: provides what the plugin needs of a reactor (time, UDP, TCP).
        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """


# --- Location storage ---------------------------------------------------------------------------


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


# --- Notification -------------------------------------------------------------------------------


class INotifier(Interface):
    """Wakes a client that is off (paper, V-A: transmission of notification)."""

    def notify(
        request: NotificationRequest,
    ) -> Deferred[None]:
        """Tell the client's device that something waits. Best effort; the client may never hear."""


class INotifierProvider(Interface):
    """A plugin that makes an :class:`INotifier` from a DC's ``[notify]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says")

    def configure(section: Mapping[str, object], reactor: object) -> INotifier:
        """Make a notifier.

        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """


# --- Accounts -----------------------------------------------------------------------------------


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


# --- Attachment: how applications use virtual addresses (design section 6) ----------------------


@frozen
class VirtualAddresses:
    """What applications of one client see of the virtual network.

    :ivar ipv6: the client's virtual IPv6 address.
    :ivar ipv4: the client's virtual IPv4 address.
    :ivar ipv6_prefix: length of its coordinator's prefix.
    :ivar ipv4_pool: the pool of its coordinator, reached through the device.
    :ivar mtu: the longest inner packet, in bytes.
    """

    ipv6: str
    ipv4: str
    ipv6_prefix: int = 64
    ipv4_pool: str = "198.18.0.0/15"
    mtu: int = 1280


@define
class AttachmentTraffic:
    """What an attachment has carried, in packets.

    :ivar to_applications: handed to applications.
    :ivar from_applications: taken from applications.
    :ivar dropped: refused by a full queue or the kernel, or not treated for an error of ours.
    """

    to_applications: int = 0
    from_applications: int = 0
    dropped: int = 0


class IAttachment(Interface):
    """A virtual network that applications use, while it is open.

    Packets are whole inner IPv4 or IPv6 packets. Every method is called in the reactor's thread and
    none blocks for longer than a millisecond or so. Those that ask something of the system raise
    :class:`~ntmobile.errors.NTMobileError` where it refuses.
    """

    traffic: AttachmentTraffic = Attribute("what it has carried")

    offload: bool = Attribute(
        "whether it cuts packets and completes checksums by itself, as an ``Offload`` says"
    )

    def send(packet: Buffer, offload: Offload | None = None) -> None:
        """Give one packet to the applications; what the system does not take is counted.

        :param offload: what is left to be done with it; only where :attr:`offload` is true.
        """

    def send_parts(parts: Sequence[Buffer], offload: Offload | None) -> None:
        """Give one packet that lies in several buffers, the first with all its headers."""

    def socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a non-blocking socket inside the virtual network.

        It may be bound, connected and given to the reactor from outside.

        :param family: ``AF_INET`` or ``AF_INET6``.
        :param kind: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
        :raises NotPermittedHere: this attachment has no sockets of the kernel's.
        """

    def readdress(addresses: VirtualAddresses) -> None:
        """Replace the client's addresses; connections on those that stay go on."""

    def add_route(network: str) -> None:
        """Have the traffic of one more network (``198.18.0.0/15``) come through here."""

    def remove_route(network: str) -> None:
        """Have a network's traffic come through here no more; unknown ones are no error."""

    def close() -> None:
        """Stop carrying; may be repeated. What outlives the agent (``netns``) stays."""

    def shutdown() -> None:
        """Close, and end the virtual network itself: ``ntm down``."""


class IAttachmentFactory(Interface):
    """Opens a configured attachment, once in the life of an agent."""

    def open(
        addresses: VirtualAddresses,
        state: Path,
        receive: Callable[[Buffer, Offload | None], object],
        lost: Callable[[NTMobileError], None],
    ) -> Deferred[IAttachment]:
        """Make the virtual network, or go on with the one that an earlier agent left.

        :param state: the agent's state directory, of mode 0700; made if it is not there.
        :param receive: called with each packet that an application sent, valid only during the
            call, and what is left to be done with it.
        :param lost: called once if the virtual network ends by itself, with a line for the user;
            the attachment is then closed.
        :return: fires when applications may use it, or fails with
            :class:`~ntmobile.errors.NotPermittedHere`, whose text names the cause and the
            alternative, or another :class:`~ntmobile.errors.NTMobileError`.
        """


class IAttachmentProvider(Interface):
    """A plugin that makes an :class:`IAttachmentFactory` from a client's ``[attachment]``."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``netns``")

    def configure(section: Mapping[str, object], reactor: object) -> IAttachmentFactory:
        """Prepare an attachment.

        :param section: the section without its ``plugin`` key.
        :param reactor: provides what the plugin needs of a reactor (descriptors, processes, time).
        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """


# --- Network watching ---------------------------------------------------------------------------


@frozen
class Way:
    """A default route of one family, and the interface that it leads through.

    :ivar family: 4 or 6. :ivar index: the interface's index, as IP_PKTINFO takes it (ip(7)).
    :ivar interface: its name. :ivar addresses: its usable numeric addresses of the family.
    """

    family: int
    index: int
    interface: str
    addresses: tuple[str, ...]


@frozen
class LocalNetworks:
    """What a client is attached to at a moment.

    :ivar addresses: its usable numeric addresses, IPv4 and IPv6: no loopback, link-local,
        tentative, deprecated or multicast ones, and none of the virtual network's own devices.
    :ivar networks: the networks it is in, such as ``192.168.1.0/24`` or ``2001:db8::/64``.
    :ivar routes: families (4, 6) that have a default route.
    :ivar gateways: numeric addresses of the default gateways (R17: never candidates).
    :ivar ways: default routes, in each family the one that the system prefers first; empty where
        the system does not tell.
    """

    addresses: tuple[str, ...]
    networks: tuple[str, ...] = ()
    routes: frozenset[int] = frozenset()
    gateways: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()


class INetworkWatcher(Interface):
    """Notices changes of the client's own addresses and routes."""

    def start(changed: Callable[[LocalNetworks], None]) -> LocalNetworks:
        """Begin to watch.

        :param changed: called in the reactor's thread soon after a change that makes a difference,
            bursts of changes joined.
        :return: what there is now.
        """

    def stop() -> None:
        """Watch no more."""


class INetworkWatcherProvider(Interface):
    """A plugin that makes an :class:`INetworkWatcher` from a client's ``[watch]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``netlink``")

    def configure(section: Mapping[str, object], reactor: object) -> INetworkWatcher:
        """Make a watcher.

        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        :raises NotPermittedHere: this system has not what it needs.
        """
