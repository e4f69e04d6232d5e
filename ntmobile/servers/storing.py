"""A client as the durable store keeps it, and back (interfaces, ``StoredClient``)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from ntmobile.errors import MalformedMessage
from ntmobile.interfaces import KnownDevice, StoredClient
from ntmobile.machines.signalling.clients import NOWHERE, Client, Policy
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.fields import Location

_LOCATION: Final = msgspec.msgpack.Decoder(Location)
_POLICY: Final = msgspec.msgpack.Decoder(tuple[tuple[str, ...], tuple[str, ...], int])
_NAMES: Final = msgspec.msgpack.Decoder(tuple[str, ...])


def to_store(client: Client, key: bytes, expires: float) -> StoredClient:
    """What is kept of a client.

    :param key: its session key. :param expires: of its session, unix seconds.
    """
    policy = client.policy
    return StoredClient(
        client.fqdn,
        client.index,
        key,
        client.der,
        expires,
        msgspec.msgpack.encode(client.location),
        msgspec.msgpack.encode((policy.allow, policy.relay_only, policy.generation)),
        client.order,
        msgspec.msgpack.encode(tuple(client.correspondents)),
    )


def from_store(stored: StoredClient, expires: float) -> Client:
    """A client as it was when it was stored; it is off until it registers.

    :param expires: of its session, monotonic.
    :raises NTMobileError: it cannot be read.
    """
    certificate = DeviceCertificate.parse(stored.certificate)
    try:
        location = _LOCATION.decode(stored.location) if stored.location else NOWHERE
        policy = _policy(stored.policy)
        peers = _NAMES.decode(stored.correspondents) if stored.correspondents else ()
    except msgspec.MsgspecError as problem:
        raise MalformedMessage(f"it was stored by another version: {problem}") from None
    client = Client(certificate, stored.index, expires, policy, location)
    client.order = stored.order
    for peer in peers:
        client.talks_to(peer)
    return client


def known_device(client: Client) -> KnownDevice:
    """What is kept of a client while it is off for long."""
    return KnownDevice(client.fqdn, client.der, client.identity, client.policy.allow)


@lru_cache(maxsize=1024)  # most clients have the same one
def _policy(stored: bytes) -> Policy:
    return Policy(*_POLICY.decode(stored))
