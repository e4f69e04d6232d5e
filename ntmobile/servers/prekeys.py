"""Pre-keys at a DC: those of its own devices, and of others on behalf of its devices (R13, R31)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define
from twisted.internet.defer import Deferred

from ntmobile.errors import (
    AuthenticationError,
    MalformedMessage,
    NTMobileError,
    StorageFailed,
    Unreachable,
)
from ntmobile.machines.exchange.desk import BUSY, STRANGER, by_domain, refuse
from ntmobile.machines.exchange.prekeys import verify_prekey
from ntmobile.servers.exchange import Exchange
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.exchange import (
    Delivery,
    DevicePreKey,
    PreKey,
    PreKeyRequest,
    PreKeyResponse,
)
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.roles import speaks_for

#: What is between a request and its answer: pre-keys, and devices without one.
_Found = tuple[list[DevicePreKey], list[Delivery]]


@define(eq=False)
class PreKeys:
    """Publishes and hands out the pre-keys of one domain's devices."""

    exchange: Exchange

    async def publish(self, certificate: DeviceCertificate, keys: Sequence[PreKey]) -> None:
        """Keep pre-keys that a device of ours signed.

        :raises MalformedMessage: one is not its own, not signed by it, or expired.
        """
        now = self.exchange.unix_time()
        for key in keys:
            try:
                found = DevicePreKey(key, certificate.der)
                verify_prekey(found, fqdn=certificate.fqdn, pin=certificate.identity, now=now)
            except NTMobileError as problem:
                raise MalformedMessage(f"pre-key {key.number}: {problem}") from None
        await self.exchange.run(self.exchange.store.keep_prekeys, certificate.fqdn, keys)

    async def collect(self, sender: str, fqdns: Sequence[str]) -> PreKeyResponse:
        """Get the pre-keys of any devices, for one of ours."""
        grouped, wrong = by_domain(fqdns)
        keys: list[DevicePreKey] = []
        failed = list(refuse(wrong, Outcome.REFUSED, "not the name of a device"))
        asked = [
            Deferred.fromCoroutine(self._collect(domain, PreKeyRequest(sender, tuple(some))))
            for domain, some in grouped.items()
        ]
        for one in asked:
            found, without = await one
            keys += found
            failed += without
        return PreKeyResponse(tuple(keys), tuple(failed))

    async def _collect(self, domain: str, request: PreKeyRequest) -> _Found:
        if domain == self.exchange.desk.domain:
            answer = await self.asked(domain, request)
        else:
            told = await self.exchange.ask_abroad(domain, request)
            if isinstance(told, Delivery):
                return [], list(refuse(request.fqdns, told.outcome, told.reason))
            answer = told if isinstance(told, PreKeyResponse) else PreKeyResponse(())
        # It speaks for its own devices, and for those that were asked about (R1).
        keys = {one.key.fqdn: one for one in answer.keys if one.key.fqdn in request.fqdns}
        reasons = {one.destination: one for one in answer.failed}
        failed = [
            reasons.get(fqdn) or Delivery(fqdn, Outcome.UNREACHABLE, f"no word of {domain}")
            for fqdn in request.fqdns
            if fqdn not in keys
        ]
        return list(keys.values()), failed

    async def asked(self, domain: str, request: PreKeyRequest) -> PreKeyResponse:
        """A request of the DC of ``domain``, or of our own, about devices of ours (R13).

        :raises AuthenticationError: it does not speak for that sender (R1).
        """
        if not speaks_for("dc", domain, request.sender):
            raise AuthenticationError(f"dc:{domain} does not speak for {request.sender}")
        try:
            return await self._asked(domain, request)
        except (StorageFailed, Unreachable) as problem:
            return PreKeyResponse((), refuse(request.fqdns, Outcome.BUSY, str(problem)))

    async def _asked(self, domain: str, request: PreKeyRequest) -> PreKeyResponse:
        exchange, fqdns = self.exchange, list(dict.fromkeys(request.fqdns))
        now, at = exchange.clock.seconds(), exchange.unix_time()
        if not exchange.accepts() or not exchange.desk.allows(domain, request.sender, now):
            return PreKeyResponse((), refuse(fqdns, Outcome.BUSY, BUSY))
        admitted = await exchange.admitted(request.sender, fqdns)
        known = await exchange.run(exchange.store.devices, fqdns)
        keys = await exchange.run(exchange.store.prekeys, fqdns, at)
        found, failed = [], []
        for fqdn in fqdns:
            client = exchange.desk.clients.find(fqdn)
            stored = known.get(fqdn)
            if client is not None and client.fqdn == fqdn:
                certificate: bytes | None = client.der
            else:
                certificate = None if stored is None else stored.certificate
            if fqdn in admitted and fqdn in keys and certificate is not None:
                found.append(DevicePreKey(keys[fqdn], certificate))
            else:
                failed.append(Delivery(fqdn, Outcome.UNKNOWN, STRANGER))
        return PreKeyResponse(tuple(found), tuple(failed))
