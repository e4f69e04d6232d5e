"""Asking for the devices of a user, over TLS with the own coordinator (rule R5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ntmobile.errors import AuthenticationError, MalformedMessage, Unreachable
from ntmobile.machines.login.identities import Devices, session_proof, verify_devices
from ntmobile.protocols.device_link import connect_device
from ntmobile.protocols.link import Link
from ntmobile.protocols.tls import connection_of, exporter
from ntmobile.wire import names
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.account import (
    BINDING_LABEL,
    IdentityRequest,
    IdentityResponse,
    SessionProof,
)
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.fields import Address
from ntmobile.wire.messages.realtime import Outcome

#: Seconds for an answer, which may come from another realm.
PATIENCE: Final = 15.0


async def ask_devices(
    reactor: Any,
    addresses: Sequence[Address],
    domain: str,
    trust: TrustStore,
    session: tuple[bytes, bytes],
    user: str,
    at: float | None,
) -> Devices:
    """The verified devices of a user.

    :param addresses: of the own DC, whose domain is ``domain``.
    :param session: index and session key of the own session.
    :param user: such as ``bob.dc2.ntm.example``.
    :param at: unix seconds by the AS's clock.
    :raises UnknownName: there is no such user, or not for us.
    :raises Unreachable: a server on the way does not answer.
    :raises AuthenticationError: the list is not that authority's, or the session is no more.
    """
    names.check_server(user)
    link, _ = await connect_device(reactor, addresses, trust, domain, _unasked, lambda: at)
    try:
        index, key = session
        exported = exporter(connection_of(link.transport), BINDING_LABEL)
        proven = await link.request(SessionProof(index, session_proof(key, exported)), PATIENCE)
        if not isinstance(proven, LinkAcknowledgement) or proven.outcome:
            raise AuthenticationError("the coordinator does not know this session; log in again")
        answer = await link.request(IdentityRequest(user), PATIENCE)
    finally:
        link.close()
    if not isinstance(answer, IdentityResponse):
        raise MalformedMessage("not the answer to an Identity Request")
    if answer.outcome in (Outcome.UNREACHABLE, Outcome.BUSY):
        raise Unreachable(f"the devices of {user} cannot be asked for now; try again")
    return verify_devices(answer, user, trust)


async def _unasked(message: Message, link: Link) -> Message | None:
    raise AuthenticationError("a coordinator asks nothing here")
