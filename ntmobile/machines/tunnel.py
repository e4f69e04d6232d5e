"""The tunnel of one pair of devices: a session over a set of paths (R15 to R26; design, section 5).

Sans I/O: events go in with ``now`` (monotonic seconds), effects are drained, timers are asked for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from attrs import field, frozen

from ntmobile.machines import constants
from ntmobile.machines.effects import Address
from ntmobile.machines.paths import Path
from ntmobile.machines.tunnel_effects import Effect
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.realtime import RouteDirection


@frozen
class LocalIdentity:
    """Who this side is in its tunnels.

    :ivar certificate: own device certificate, DER. :ivar private_key: raw X25519 key to it.
    """

    fqdn: str
    certificate: bytes = field(repr=False)
    private_key: bytes = field(repr=False)
    ipv6: IPv6Address
    ipv4: IPv4Address

    @classmethod
    def of(cls, certificate: DeviceCertificate, private_key: bytes) -> LocalIdentity:
        """From a parsed certificate and its X25519 private key."""
        return cls(
            certificate.fqdn, certificate.der, private_key, certificate.ipv6, certificate.ipv4
        )


class Tunnel:
    """One tunnel; the caller has verified and pinned whom it is with.

    :param local: this side. :param peer: FQDN of the correspondent.
    :param addresses: own local addresses; empty where they are not known (all families are tried).
    :param idle: seconds without inner packets that end it. :param keepalive: seconds, 15 to 25.
    :ivar established: there is a session to send under.
    :ivar active: the path that carries the traffic, or None.
    :ivar paths: all paths, best first. :ivar identifiers: the indices this tunnel answers to.
    :ivar handovers: changes of path since it was established.
    :ivar received_bytes: :ivar sent_bytes: inner bytes.
    :ivar drops: datagrams and packets dropped, by reason.
    :ivar last_used: when an inner packet last went either way (R17: repaired in this order).
    """

    def __init__(
        self,
        *,
        local: LocalIdentity,
        peer: str,
        now: float,
        addresses: Sequence[Address] = (),
        random: Callable[[int], bytes] = os.urandom,
        idle: float = constants.IDLE,
        keepalive: float = constants.KEEPALIVE,
    ) -> None:
        self.local = local
        self.peer = peer
        self.established = False
        self.active: Path | None = None
        self.identifiers: frozenset[bytes] = frozenset()
        self.handovers = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.drops: Counter[str] = Counter()
        self.last_used = now

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip on the active path, smoothed."""
        return self.active.rtt if self.active is not None else None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths known, the active one first."""
        raise NotImplementedError

    def direct(
        self,
        direction: RouteDirection,
        certificate: DeviceCertificate,
        now: float,
        unix_time: float | None = None,
    ) -> None:
        """A direction for this pair, new or updated, its certificate verified and pinned.

        :param unix_time: the time of certificates, if known (R12): when is a fresh one due?
        """
        raise NotImplementedError

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """Any datagram whose index is one of :attr:`identifiers`. Never raises: drops are counted.

        Kinds TUNNEL_* and RELAY_RESPONSE, RELAY_TOO_BIG, RELAY_UNKNOWN.
        """
        raise NotImplementedError

    def send(self, packet: bytes, now: float) -> None:
        """An inner packet for the correspondent; queued until there is a session and a path."""
        raise NotImplementedError

    def ping(self, sequence: int, now: float) -> None:
        """Ask the other agent for an answer; ends in a ``RoundTrip``, or in nothing."""
        raise NotImplementedError

    def network_changed(self, addresses: Sequence[Address], now: float) -> None:
        """Own addresses are these now: probe, rebind, offer and ask, all in this instant."""
        raise NotImplementedError

    def renew(self, local: LocalIdentity) -> None:
        """A fresh own certificate, for handshakes from now on."""
        raise NotImplementedError

    def end(self, reason: str, now: float) -> None:
        """Tell the correspondent and stop."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        raise NotImplementedError

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` is to be called; cheap, ask after every event."""
        raise NotImplementedError

    def effects(self) -> list[Effect]:
        """Drain what is to be done, in order."""
        raise NotImplementedError


def unknown_hint(datagram: bytes) -> bytes | None:
    """The hint for a tunnel datagram of an index that no tunnel here has (R15).

    Answer TUNNEL_DATA with it, at most once a second an index; never larger than the datagram.
    """
    raise NotImplementedError
