"""Who this device is in its tunnels, and the pair that a handshake is between (R19)."""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address

from attrs import field, frozen

from ntmobile.machines.tunnel.handshake import Parties
from ntmobile.wire.certificates import DeviceCertificate


@frozen
class LocalIdentity:
    """Who this side is in its tunnels.

    :ivar certificate: own device certificate, DER. :ivar private_key: raw X25519 key to it.
    :ivar ipv6: :ivar ipv4: own virtual addresses, as certified.
    :ivar not_after: when the certificate expires, unix seconds, where that is known.
    """

    fqdn: str
    certificate: bytes = field(repr=False)
    private_key: bytes = field(repr=False)
    ipv6: IPv6Address
    ipv4: IPv4Address
    not_after: float | None = None

    @classmethod
    def of(cls, certificate: DeviceCertificate, private_key: bytes) -> LocalIdentity:
        """From a parsed certificate and its X25519 private key."""
        return cls(
            certificate.fqdn,
            certificate.der,
            private_key,
            certificate.ipv6,
            certificate.ipv4,
            certificate.not_after,
        )

    def until(self, peer: DeviceCertificate, unix_time: float) -> float:
        """Seconds from ``unix_time`` until the first of the two certificates expires (R20)."""
        own = peer.not_after if self.not_after is None else self.not_after
        return min(own, peer.not_after) - unix_time

    def with_peer(self, peer: DeviceCertificate, *, initiator: bool) -> Parties:
        """The two ends of a handshake with ``peer`` in which this side is the initiator, or not."""
        own = Parties(
            (self.fqdn, peer.fqdn),
            (sha256(self.certificate).digest(), peer.fingerprint),
            self.private_key,
            peer.x25519,
        )
        return own if initiator else own.swapped()
