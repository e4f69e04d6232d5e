"""Signed device lists, successions and fingerprints: who a correspondent is (rule R5)."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha512
from hmac import digest as hmac_digest
from typing import Final

import msgspec
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ntmobile.errors import AuthenticationError, CertificateError, MalformedMessage, UnknownName
from ntmobile.machines.login.proofs import verify_signature
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate, TrustStore, key_id
from ntmobile.wire.messages.account import (
    DeviceList,
    IdentityResponse,
    ListedDevice,
    devices_statement,
    succession_statement,
)
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.sealing import expand

_LIST: Final = msgspec.msgpack.Decoder(DeviceList, strict=True)


@frozen
class Devices:
    """A user's devices, verified.

    :ivar user: such as ``alice.dc1.ntm.example``. :ivar version: never goes back.
    :ivar issued: unix seconds of the AS. :ivar listed: by FQDN.
    :ivar certificates: by FQDN; signed by the authority, but perhaps expired.
    """

    user: str
    version: int
    issued: float
    listed: Mapping[str, ListedDevice]
    certificates: Mapping[str, DeviceCertificate]


def verify_devices(response: IdentityResponse, user: str, trust: TrustStore) -> Devices:
    """Verify the answer to an Identity Request about ``user``.

    :raises UnknownName: there is no such user, or not for us.
    :raises AuthenticationError: it is not signed by the authority for that name.
    """
    if response.outcome != Outcome.OK:
        raise UnknownName(f"nobody of the name {user} is known to its coordinator")
    _check_signature(response, user, trust)
    try:
        found = _LIST.decode(response.signed)
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise MalformedMessage(f"a device list that does not decode: {problem}") from None
    listed = {device.fqdn: device for device in found.devices}
    if found.user != user or any(names.user_of(fqdn) != user for fqdn in listed):
        raise AuthenticationError(f"a device list that is not of {user}")
    certificates = {}
    for der in response.certificates:
        certificate = trust.verify_device(der, None)
        device = listed.get(certificate.fqdn)
        if device is None or device.identity != certificate.identity:
            raise CertificateError(f"{certificate.fqdn} is not in the list that names it")
        certificates[certificate.fqdn] = certificate
    return Devices(user, found.version, found.issued / 1000, listed, certificates)


def _check_signature(response: IdentityResponse, user: str, trust: TrustStore) -> None:
    statement = devices_statement(response.signed)
    for authority in trust.authority_for(user).device_cas:
        key = authority.public_key()
        if not isinstance(key, Ed25519PublicKey):
            continue
        raw = key.public_bytes_raw()
        if key_id(raw) == response.issuer and verify_signature(raw, response.signature, statement):
            return
    raise AuthenticationError(f"the device list of {user} is not signed by its authority")


def succeeds(device: ListedDevice, pinned: bytes) -> bool:
    """Whether the pinned identity has handed its name over to the listed one."""
    if not device.succession or device.former != pinned:
        return False
    statement = succession_statement(device.fqdn, device.former, device.identity)
    return verify_signature(pinned, device.succession, statement)


def fingerprint(one: tuple[str, bytes], other: tuple[str, bytes]) -> str:
    """Digits that two people compare: the same on both sides, other ones for other identities.

    :param one: :param other: FQDN and identity key (raw Ed25519), in any order.
    :return: twelve groups of five digits, about 199 bits.
    """
    first, second = sorted((one, other))
    material = msgspec.msgpack.encode((first, second))
    digest = sha512(b"ntm/1 fingerprint\0" + material).digest()
    groups = (int.from_bytes(digest[at : at + 5], "big") % 100_000 for at in range(0, 60, 5))
    return " ".join(f"{group:05d}" for group in groups)


def session_proof(session_key: bytes, exported: bytes) -> bytes:
    """Proves a session on a new TLS connection, given that connection's binding exporter."""
    return hmac_digest(expand(session_key, "ntm1 session proof"), exported, "sha256")
