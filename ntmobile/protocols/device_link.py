"""A device's link to its DC: TLS in which the DC proves itself and the device shows nothing yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, ITransport

from ntmobile.errors import CertificateError, NTMobileError, Unreachable
from ntmobile.protocols.link import Handler, Link
from ntmobile.protocols.tls import client_context_factory, connection_of, peer_identity
from ntmobile.protocols.verification import WallClock
from ntmobile.wire.certificates import TrustStore
from ntmobile.wire.messages.fields import Address
from ntmobile.wire.text import printable

#: Seconds for connection and TLS with one address.
PATIENCE: Final = 10.0


async def connect_device(
    reactor: Any,
    addresses: Sequence[Address],
    trust: TrustStore,
    domain: str,
    handler: Handler,
    clock: WallClock,
    patience: float = PATIENCE,
) -> tuple[Link, Address]:
    """Connect to the first of a DC's addresses where that DC answers.

    :param addresses: host names or numeric addresses, with port.
    :param clock: for the validity of the DC's certificate; see
        :func:`~ntmobile.protocols.tls.client_context_factory`.
    :return: the link, which stands, and the address.
    :raises Unreachable: nobody answers anywhere.
    :raises CertificateError: somebody answers, but not the DC of ``domain``.
    """
    problems: list[str] = []
    wrong: CertificateError | None = None
    tls = client_context_factory(None, None, trust, "dc", domain, clock=clock)
    for address in addresses:
        try:
            return await _connect(reactor, address, tls, handler, patience), address
        except CertificateError as problem:
            wrong = wrong or CertificateError(f"{shown(address)}: {problem}")
        except Unreachable as problem:
            problems.append(f"{shown(address)}: {problem}")
    if wrong is not None:
        raise wrong
    where = "; ".join(problems) or "no address is known"
    raise Unreachable(f"cannot reach the coordinator of {domain} ({where})")


async def _connect(
    reactor: Any,
    address: Address,
    tls: IOpenSSLClientConnectionCreator,
    handler: Handler,
    patience: float,
) -> Link:
    host, port = address
    endpoint = HostnameEndpoint(reactor, host.encode(), port, timeout=patience)
    link = Link(reactor, handler, _identity)
    link.ready.addTimeout(patience, reactor, _timed_out)
    try:
        await connectProtocol(wrapClientTLS(tls, endpoint), link)
    except Exception as problem:  # endpoints fail in many ways, all of them "not reached"
        link.ready.addErrback(lambda _: None)
        link.ready.cancel()
        raise Unreachable(printable(str(problem)) or type(problem).__name__) from None
    try:
        return await link.ready
    except NTMobileError:
        link.close()
        raise


def shown(address: Address) -> str:
    """An address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _identity(transport: ITransport) -> tuple[str, str] | None:
    return peer_identity(connection_of(transport))


def _timed_out(result: object, timeout: float) -> object:
    raise Unreachable(f"no TLS connection within {timeout:g} s")
