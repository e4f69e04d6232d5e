"""The handshake of one direction: Noise KKpsk0 under the temporal key (R15, R18, R19).

``TUNNEL_REQUEST`` is a header (index = direction, counter 0) and Noise message 1 with a
:class:`~ntmobile.wire.messages.tunnel.TunnelRequest`; ``TUNNEL_RESPONSE`` the same with message 2
and a :class:`~ntmobile.wire.messages.tunnel.TunnelResponse`. Retransmissions are the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from attrs import field, frozen

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.machines.effects import Address
from ntmobile.machines.tunnel.constants import INNER_MTU, REQUEST_SIZE, VERSION
from ntmobile.machines.tunnel.noise import KKPSK0, Handshake, Secrets
from ntmobile.wire.codec import decode_as, encode
from ntmobile.wire.headers import HEADER_SIZE, Header, Kind
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.tunnel import TunnelRequest, TunnelResponse

#: Noise message 1 or 2 in a datagram: ephemeral key, payload, tag.
_PAYLOAD_LIMIT: Final = 256


@frozen
class Parties:
    """The two ends of a handshake, as one of them knows them.

    :ivar names: FQDNs of initiator and responder. :ivar hashes: SHA-256 of their certificates.
    :ivar private_key: own X25519 key. :ivar remote_key: the other's public one.
    """

    names: tuple[str, str]
    hashes: tuple[bytes, bytes]
    private_key: bytes = field(repr=False)
    remote_key: bytes = field(repr=False)

    def swapped(self) -> Parties:
        """The same two in each other's roles."""
        (first, second), (one, two) = self.names, self.hashes
        return Parties((second, first), (two, one), self.private_key, self.remote_key)

    def prologue(self, purpose: str, identifier: bytes) -> bytes:
        """What both must agree on (R19): version, purpose, identifier, names, certificates."""
        parts = [purpose.encode(), identifier]
        parts += [name.encode() for name in self.names]
        parts += self.hashes
        return b"ntm tunnel" + bytes((VERSION,)) + b"".join(bytes((len(p),)) + p for p in parts)

    def handshake(
        self,
        purpose: str,
        identifier: bytes,
        psk: bytes,
        random: Callable[[int], bytes],
        *,
        initiator: bool,
    ) -> Handshake:
        """One side of a handshake between the two."""
        return Handshake(
            KKPSK0,
            initiator=initiator,
            prologue=self.prologue(purpose, identifier),
            static=self.private_key,
            remote_static=self.remote_key,
            psks=(psk,),
            random=random,
        )


class Initiation:
    """The initiator's half: one message 1 for all paths, and what its answer means.

    :ivar request: the datagram to be sent, and sent again.
    """

    __slots__ = ("_handshake", "request")

    def __init__(
        self, direction: bytes, parties: Parties, psk: bytes, random: Callable[[int], bytes]
    ) -> None:
        self._handshake = parties.handshake("tunnel", direction, psk, random, initiator=True)
        bare = HEADER_SIZE + 48 + len(encode(TunnelRequest(VERSION, INNER_MTU)))
        payload = TunnelRequest(VERSION, INNER_MTU, bytes(max(0, REQUEST_SIZE - bare)))
        header = Header(Kind.TUNNEL_REQUEST, 0, direction, 0)
        self.request = header.pack() + self._handshake.write(encode(payload, _PAYLOAD_LIMIT))

    def answered(self, datagram: bytes) -> tuple[Secrets, TunnelResponse]:
        """The keys that a TUNNEL_RESPONSE gives. It may be tried again if this fails.

        :raises AuthenticationError: it does not answer this request.
        :raises MalformedMessage: authentic, but of another version.
        """
        handshake = self._handshake.fork()
        response = decode_as(TunnelResponse, handshake.read(datagram[HEADER_SIZE:]), _PAYLOAD_LIMIT)
        _check_version(response.version)
        return handshake.secrets(), response


class Reception:
    """The responder's half: message 1 is accepted once, its answer repeated, never recomputed."""

    __slots__ = ("_digest", "_response")

    def __init__(self) -> None:
        self._digest = b""
        self._response = b""

    def repeated(self, datagram: bytes) -> bytes | None:
        """The answer that was given to this very request before."""
        return self._response if self._digest == sha256(datagram).digest() else None

    @property
    def spent(self) -> bool:
        """A message 1 was accepted: no other ever will be (R19)."""
        return bool(self._response)

    def requested(
        self,
        datagram: bytes,
        observed: Address | None,
        direction: bytes,
        parties: Parties,
        psk: bytes,
        random: Callable[[int], bytes],
    ) -> Secrets:
        """Accept message 1; :meth:`repeated` then gives its answer, and the keys are returned.

        :param observed: where it came from, for the initiator's information.
        :raises AuthenticationError: it is not the initiator's, or another was accepted before.
        :raises MalformedMessage: authentic, but of another version.
        """
        if self.spent:
            raise AuthenticationError("a second Tunnel Request of one direction")
        if len(datagram) < REQUEST_SIZE:
            raise MalformedMessage("a Tunnel Request that is smaller than its answer")
        handshake = parties.handshake("tunnel", direction, psk, random, initiator=False)
        request = decode_as(TunnelRequest, handshake.read(datagram[HEADER_SIZE:]), _PAYLOAD_LIMIT)
        _check_version(request.version)
        endpoint = None if observed is None else Endpoint.of(observed)
        payload = encode(TunnelResponse(VERSION, INNER_MTU, endpoint), _PAYLOAD_LIMIT)
        header = Header(Kind.TUNNEL_RESPONSE, 0, direction, 0)
        self._response = header.pack() + handshake.write(payload)
        self._digest = sha256(datagram).digest()
        return handshake.secrets()


def _check_version(version: int) -> None:
    """Refuse the version of a peer that we do not speak."""
    if version != VERSION:
        raise MalformedMessage(f"the correspondent's tunnel speaks version {version}")
