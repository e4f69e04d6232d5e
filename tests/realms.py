"""Realms in memory, for tests that need certificates: an authority, its servers, its devices."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ntmobile.protocols.tls import MemoryTLS
from ntmobile.servers.authority import (
    SERVER_LIFETIME,
    Signer,
    issue_device,
    issue_device_ca,
    issue_root,
    issue_server,
)
from ntmobile.wire import names, virtual
from ntmobile.wire.certificates import Authority, DeviceCertificate, TrustStore

Credential = tuple[Ed25519PrivateKey, list[x509.Certificate]]


class MemoryRealm:
    """A realm whose keys live in memory only.

    :ivar authority: its authority under its own domain. :ivar root: :ivar device_ca: its signers.
    """

    def __init__(self, domain: str = "ntm.example", now: float | None = None) -> None:
        self.domain = domain
        self.now = time.time() if now is None else now
        moment = datetime.fromtimestamp(self.now, UTC)
        self.root = issue_root(domain, moment)
        self.device_ca = issue_device_ca(self.root, domain, moment)
        self.authority = Authority.from_pem(
            domain,
            Authority(
                domain, domain, self.root.certificate, (self.device_ca.certificate,)
            ).to_pem(),
        )

    def trust(self, *foreign: MemoryRealm) -> TrustStore:
        """This realm's trust, and that in other realms."""
        return TrustStore.of(self.authority, *(each.authority for each in foreign))

    def server(
        self,
        role: str,
        name: str,
        lifetime: timedelta = SERVER_LIFETIME,
        signer: Signer | None = None,
    ) -> Credential:
        """The key and chain of a server."""
        key = Ed25519PrivateKey.generate()
        moment = datetime.fromtimestamp(self.now, UTC)
        certificate = issue_server(
            signer or self.root, role, name, key.public_key(), moment, lifetime
        )
        return key, [certificate]

    def device(
        self, fqdn: str, lifetime: float = 86400.0
    ) -> tuple[Ed25519PrivateKey, X25519PrivateKey, DeviceCertificate]:
        """The keys and certificate of a device."""
        identity, static = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        certificate = issue_device(
            self.device_ca,
            fqdn=fqdn,
            identity=identity.public_key().public_bytes_raw(),
            x25519=static.public_key().public_bytes_raw(),
            xwing_hash=sha256(b"X-Wing key of " + fqdn.encode("ascii")).digest(),
            ipv6=virtual.address_of(names.domain_of(fqdn), fqdn),
            ipv4=virtual.pick_ipv4(virtual.POOL, fqdn, ()),
            now=self.now,
            lifetime=lifetime,
        )
        return identity, static, certificate

    def certify(self, old: DeviceCertificate, lifetime: float = 86400.0) -> DeviceCertificate:
        """The next certificate of a device, for the keys and addresses that it has."""
        return issue_device(
            self.device_ca,
            fqdn=old.fqdn,
            identity=old.identity,
            x25519=old.x25519,
            xwing_hash=old.xwing_hash,
            ipv6=old.ipv6,
            ipv4=old.ipv4,
            now=self.now,
            lifetime=lifetime,
        )


def shake_hands(client: MemoryTLS, server: MemoryTLS) -> None:
    """Carry records between two sessions until both are quiet; what either raises is raised."""
    to_server = client.start()
    to_client = b""
    for _ in range(10):
        if to_server:
            to_client += server.feed(to_server)[1]
        to_server = b""
        if to_client:
            to_server = client.feed(to_client)[1]
        to_client = b""
        if not to_server:
            return
