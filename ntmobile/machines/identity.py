"""Who this device is in its tunnels, and the pair that a handshake is between (R19)."""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address

from attrs import field, frozen

from ntmobile.machines.handshake import Parties
from ntmobile.wire.certificates import DeviceCertificate


@frozen
class LocalIdentity:
    """Who this side is in its tunnels.

    :ivar certificate: own device certificate, DER. :ivar private_key: raw X25519 key to it.
    :ivar ipv6: :ivar ipv4: own virtual addresses, as certified.
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

    def with_peer(self, peer: DeviceCertificate, *, initiator: bool) -> Parties:
        """The two ends of a handshake with ``peer`` in which this side is the initiator, or not."""
        own = Parties(
            (self.fqdn, peer.fqdn),
            (sha256(self.certificate).digest(), peer.fingerprint),
            self.private_key,
            peer.x25519,
        )
        return own if initiator else own.swapped()
