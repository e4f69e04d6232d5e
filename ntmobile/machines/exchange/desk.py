"""DC_CN and stored data: who may leave something for whom (rules R1, R13, R31).

What a sender may leave is decided here, before anything is kept. Whoever is not admitted hears the
same as where there is nobody of that name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from attrs import define, field

from ntmobile.errors import AuthenticationError, CertificateError, InvalidName
from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.signalling.clients import ClientTable, Policy
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate, TrustStore
from ntmobile.wire.messages.exchange import Delivery
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.roles import speaks_for

#: Longest time for which something waits, in seconds (R31).
LIFETIME: Final = 30 * 86400.0
#: Temporal keys that wait for one device: of one sender, and in all.
KEYS_EACH: Final = 1024
KEYS_ALL: Final = 8192
#: Cache entries that wait for one device: of one sender, and in all.
ENTRIES_EACH: Final = 16384
ENTRIES_ALL: Final = 65536

STRANGER: Final = "nobody of that name, or not for you"
FULL: Final = "too much of this sender waits there already; try again when it was fetched"
BUSY: Final = "the coordinator takes nothing new now; try again in a minute"


@define
class ExchangeDesk:
    """Judges what comes for the devices of one domain.

    :ivar servers: requests of one server. :ivar senders: things of one sender.
    :ivar refused: how often somebody was refused.
    """

    domain: str
    clients: ClientTable
    trust: TrustStore
    servers: RateLimiter = field(factory=lambda: RateLimiter(rate=500, burst=2000, capacity=10_000))
    senders: RateLimiter = field(factory=lambda: RateLimiter(rate=100, burst=1000, capacity=50_000))
    refused: int = field(default=0, init=False)

    def check_sender(
        self, role: str, server: str, sender: str, certificate: bytes, at: float
    ) -> DeviceCertificate:
        """The sender, for whom a server speaks and whose device certificate it shows (R1, R13).

        :param at: unix seconds; the certificate must be valid then, or, where a CS tells of
            something that it stored meanwhile, have been when it was stored.
        :raises CertificateError: the certificate is not one of a trusted realm, or not the
            sender's, or not valid now.
        :raises AuthenticationError: the server does not speak for that sender at all.
        """
        check_speaks(role, server, sender)
        shown = DeviceCertificate.parse(certificate)
        if role == "cs" and shown.not_after > at - LIFETIME:
            # What it has to tell of may have waited for us longer than certificates last.
            at = min(at, shown.not_after)
        self.trust.verify_device(shown, at)
        if shown.fqdn != sender:
            raise CertificateError(f"the certificate of {shown.fqdn}, not of {sender}")
        return shown

    def allows(self, server: str, sender: str, now: float) -> bool:
        """Whether a server, and a sender for whom it speaks, have not asked too much of late.

        The sender's share comes first, so that what is too much of one is nothing to the others.
        """
        return self.senders.allow(sender, now) and self.servers.allow(server, now)

    def admits(self, sender: str, fqdn: str, stored: Sequence[str] | None) -> bool:
        """Whether a device of this domain takes something of a sender (R13).

        :param stored: whom it admits, as the durable store says, for it may be off for long; None
            where that does not know it.
        """
        client = self.clients.find(fqdn)
        if client is not None and client.fqdn == fqdn:
            admitted = client.policy.admits(sender)
        else:
            admitted = stored is not None and Policy(tuple(stored)).admits(sender)
        self.refused += not admitted
        return admitted

    def keeps_until(self, expires: float, at: float) -> float | None:
        """Until when something is kept; None if it has expired already."""
        return min(float(expires), at + LIFETIME) if expires > at else None

    def expire(self, now: float) -> None:
        """Forget who is no longer rationed; to be called every few seconds."""
        self.servers.expire(now)
        self.senders.expire(now)


def check_speaks(role: str, server: str, sender: str) -> None:
    """See that a server speaks for a sender (R1).

    :raises AuthenticationError: it does not.
    """
    if not speaks_for(role, server, sender):
        raise AuthenticationError(f"{role}:{server} does not speak for {sender}")


def deliver(
    fqdns: Sequence[str], admitted: Collection[str], full: Collection[str]
) -> tuple[Delivery, ...]:
    """What is told of each destination.

    :param admitted: who takes it. :param full: those of them where there is no room for it.
    """
    found = []
    for fqdn in fqdns:
        if fqdn not in admitted:
            found.append(Delivery(fqdn, Outcome.UNKNOWN, STRANGER))
        elif fqdn in full:
            found.append(Delivery(fqdn, Outcome.BUSY, FULL))
        else:
            found.append(Delivery(fqdn, Outcome.OK))
    return tuple(found)


def refuse(fqdns: Sequence[str], outcome: int, reason: str) -> tuple[Delivery, ...]:
    """The same word about all destinations."""
    return tuple(Delivery(fqdn, outcome, reason[:200]) for fqdn in fqdns)


def by_domain(fqdns: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Destinations by the domain whose DC is asked, and those that are no names of devices."""
    grouped: dict[str, list[str]] = {}
    wrong = []
    for fqdn in dict.fromkeys(fqdns):
        try:
            grouped.setdefault(names.domain_of(names.check_fqdn(fqdn)), []).append(fqdn)
        except InvalidName:
            wrong.append(fqdn)
    return grouped, wrong
