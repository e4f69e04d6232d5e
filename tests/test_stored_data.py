"""What a DC takes of cache servers, and hands out of pre-keys: two domains over real TLS."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from twisted.internet import reactor

from ntmobile.client.identity import DeviceIdentity
from ntmobile.errors import NTMobileError
from ntmobile.machines.exchange.manifests import Address, Details, sign_manifest
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.machines.exchange.prekeys import PreKeyRing, verify_prekey
from ntmobile.machines.exchange.signing import Signer
from ntmobile.protocols.coordination import connect_link
from ntmobile.protocols.link import Link, verify_peer
from ntmobile.protocols.tls import client_context_factory
from ntmobile.servers.authority import issue_server
from ntmobile.servers.credentials import load_signer
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.exchange import (
    CacheEntry,
    CacheListDownloadResponse,
    CacheRegistration,
    CacheServer,
    CacheServerListResponse,
    Delivery,
    EncryptedDataExchangeRequest,
    EncryptedDataExchangeResponse,
    EncryptionKeyExchangeRequest,
    EncryptionKeyExchangeResponse,
    PreKeyRequest,
    PreKeyResponse,
    PreKeyUploadRequest,
    RequestInfo,
    SignedManifest,
    TemporalKey,
    TemporalKeyTransferRequest,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import NotificationRequest, Outcome
from tests.platforms import DC1, DC2, HOST, Platform
from tests.test_coordinator_web import LAPTOP, PHONE, StoredDataCase
from tests.web_clients import WebClient

CACHE = f"cs1.{DC1}"
SERVER = CacheServer(CACHE, (Endpoint.of((HOST, 4332)),))


async def _nobody(message: Message, link: Link) -> Message | None:
    raise NTMobileError("a cache server is asked nothing")


class LinkCase(StoredDataCase):
    """Alice's phone at dc1, Bob's laptop at dc2, and links of servers to their DCs."""

    async def start(self) -> tuple[Platform, WebClient, WebClient]:
        platform, phone, laptop = await super().start()
        states = sorted((platform.directory / "devices").iterdir())
        self.phone, self.laptop = (DeviceIdentity.load(one) for one in states)
        self.platform_ = platform
        return platform, phone, laptop

    async def link(self, dc: str, role: str = "cs", name: str = CACHE) -> Link:
        """A link of a server to a DC."""
        platform, domain = self.platform_, f"{dc}.ntm.example"
        trust = platform.realm.account_server().identity.trust()
        stem = platform.directory / "authority" / "root"
        root = load_signer(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        key = Ed25519PrivateKey.generate()
        certificate = issue_server(root, role, name, key.public_key(), datetime.now(UTC))
        tls = client_context_factory(key, [certificate], trust, "dc", domain)
        address = (HOST, platform.ports[dc])
        link = await connect_link(reactor, address, tls, _nobody, verify_peer(("dc", domain)))
        self.addCleanup(link.close)
        return link

    def signer(self, identity: DeviceIdentity | None = None) -> Signer:
        """What the phone signs with."""
        of = identity or self.phone
        return Signer(of.fqdn, of.certificate.der, of.keys.identity)

    def manifest(self, *destinations: str, **changes: Any) -> SignedManifest:
        """An object of the phone's."""
        header = ObjectHeader.create(100)
        address = Address(destinations or (LAPTOP,), "mail", message="hello")
        expires = changes.get("expires", int(reactor.seconds()) + 3600)
        details = Details("", "", 100)
        return sign_manifest(
            changes.get("signer") or self.signer(),
            bytes(32),
            address,
            header,
            bytes(32),
            details,
            expires,
        )

    def data(self, *destinations: str, **changes: Any) -> EncryptedDataExchangeRequest:
        """What a CS says of an object."""
        destinations = destinations or (LAPTOP,)
        info = RequestInfo("test", PHONE, destinations, "mail", message="hello")
        signed = changes.get("manifest") or self.manifest(*destinations)
        return EncryptedDataExchangeRequest(SERVER, info, signed)

    def key(self, *destinations: str, number: int = 1) -> EncryptionKeyExchangeRequest:
        """What a CS says of a shared key."""
        info = RequestInfo("test", PHONE, destinations or (LAPTOP,), "mail")
        expires = int(reactor.seconds()) + 3600
        identifier = bytes([number]) * 32
        return EncryptionKeyExchangeRequest(
            SERVER, info, identifier, self.phone.certificate.der, expires
        )

    async def told(self, link: Link, request: Message) -> tuple[Delivery, ...]:
        """What a DC says to it."""
        answer = await link.request(request)
        assert isinstance(answer, EncryptedDataExchangeResponse | EncryptionKeyExchangeResponse)
        return answer.results

    async def entries(self, client: WebClient, query: str = "") -> tuple[CacheEntry, ...]:
        """What waits for a device."""
        answer = await client.ask("GET", f"/v1/caches{query}")
        self.assertEqual(answer.status, 200, answer.body)
        return answer.document(CacheListDownloadResponse).entries


class CacheTests(LinkCase):
    async def test_key_and_data(self) -> None:
        """A CS tells the DC of the other domain what waits; the device lists it, and fetches."""
        _, _, laptop = await self.start()
        link = await self.link("dc2")
        ok = (Delivery(LAPTOP, Outcome.OK),)
        self.assertEqual(await self.told(link, self.key()), ok)
        signed = self.manifest()
        self.assertEqual(await self.told(link, self.data(manifest=signed)), ok)
        key, data = await self.entries(laptop, "?application=mail")
        self.assertEqual((key.kind, key.identifier, key.cache), ("key", b"\1" * 32, CACHE))
        self.assertEqual((data.kind, data.sender, data.message), ("data", PHONE, "hello"))
        self.assertEqual(data.endpoints, SERVER.endpoints)
        self.assertEqual(await self.entries(laptop, "?application=other"), ())
        rest = await self.entries(laptop, f"?after={key.identifier.hex()}&sender={PHONE}")
        self.assertEqual(rest, (data,))
        rest = await self.entries(laptop, f"?after={key.identifier.hex()}&sender={LAPTOP}")
        self.assertEqual(rest, (key, data))
        for sender, left in ((LAPTOP, (key, data)), (PHONE, (data,))):
            path = f"/v1/caches/{key.identifier.hex()}?sender={sender}"
            self.assertEqual((await laptop.ask("DELETE", path)).status, 204)
            self.assertEqual(await self.entries(laptop), left)
        answer = await laptop.ask("DELETE", f"/v1/caches/{key.identifier.hex()}?sender=A/B")
        self.assertEqual(answer.status, 400)
        self.assertEqual(await self.entries(laptop), (data,))

    async def test_notified(self) -> None:
        """R33: a device that is off is notified, once for each thing, with the public message."""
        platform, _, _ = await self.start()
        told: list[NotificationRequest] = []
        exchange = platform.services["dc2"].stored_data.exchange
        exchange.tell = told.append
        link = await self.link("dc2")
        request = self.data()
        await self.told(link, request)
        await self.told(link, request)
        (one,) = told
        self.assertEqual((one.receiver, one.sender, one.message), (LAPTOP, PHONE, "hello"))

    async def test_strangers(self) -> None:
        """R13: who is not admitted hears the same as where there is nobody of that name."""
        platform, _, laptop = await self.start()
        client = platform.services["dc2"].domain.clients.find(LAPTOP)
        client.policy = evolve(client.policy, allow=())
        link = await self.link("dc2")
        denied, unknown = await self.told(link, self.key(LAPTOP, f"nobody.bob.{DC2}"))
        self.assertEqual((denied.outcome, denied.reason), (unknown.outcome, unknown.reason))
        self.assertEqual(denied.outcome, Outcome.UNKNOWN)
        self.assertEqual(await self.entries(laptop), ())

    async def test_forged(self) -> None:
        """R29: what the sender did not sign, or not for that device, is refused."""
        _, _, laptop = await self.start()
        link = await self.link("dc2")
        good = self.manifest()
        for manifest in (
            replace(good, signature=bytes(64)),
            replace(good, manifest=good.manifest[:-1] + b"\0"),
            self.manifest(f"tablet.bob.{DC2}"),
            self.manifest(signer=self.signer(self.laptop)),
            self.manifest(expires=int(reactor.seconds()) - 5),
        ):
            (result,) = await self.told(link, self.data(manifest=manifest))
            self.assertIn(result.outcome, (Outcome.REFUSED, Outcome.UNTRUSTED), result)
            self.assertTrue(result.reason)
        self.assertEqual(await self.entries(laptop), ())

    async def test_another_certificate(self) -> None:
        """R13: the sender's device certificate has to be its own."""
        await self.start()
        link = await self.link("dc2")
        request = replace(self.key(), certificate=self.laptop.certificate.der)
        (result,) = await self.told(link, request)
        self.assertEqual(result.outcome, Outcome.UNTRUSTED)

    async def test_other_servers(self) -> None:
        """R1: a CS speaks for senders of its own domain, under its own name; others do not."""
        _, _, laptop = await self.start()
        for role, name in (("cs", f"cs1.{DC2}"), ("cs", f"cs2.{DC1}"), ("rs", CACHE), ("dc", DC1)):
            request = self.key()
            if role == "cs" and name.endswith(DC2):
                request = replace(request, cache=replace(SERVER, name=name))
            link = await self.link("dc2", role, name)
            await self.refused(link, request)
        self.assertEqual(await self.entries(laptop), ())

    async def refused(self, link: Link, request: Message) -> None:
        """The DC closes the link at that request."""
        await self.assertRaises_(NTMobileError, link.request(request))

    async def test_lease(self) -> None:
        """R34: a DC that has not heard its AS for long takes nothing new."""
        platform, _, _ = await self.start()
        link = await self.link("dc2")
        platform.services["dc2"].domain.lease_until = 0.0
        (result,) = await self.told(link, self.key())
        self.assertEqual(result.outcome, Outcome.BUSY)

    async def test_registered(self) -> None:
        """Clients hear of their DC's own cache servers while those are linked, roomiest first."""
        _, phone, _ = await self.start()
        links = {}
        for name, free in ((CACHE, 5), (f"cs2.{DC1}", 9)):
            links[name] = await self.link("dc1", name=name)
            registration = CacheRegistration(replace(SERVER, name=name), free)
            answer = await links[name].request(registration)
            self.assertIsInstance(answer, LinkAcknowledgement)
        self.assertEqual(await self.names(phone), [f"cs2.{DC1}", CACHE])
        links[f"cs2.{DC1}"].close()
        caches = self.platform_.services["dc1"].stored_data.caches
        await self.eventually(lambda: len(caches) == 1, "it is gone")
        self.assertEqual(await self.names(phone), [CACHE])

    async def names(self, client: WebClient) -> list[str]:
        """The cache servers that a client hears of."""
        answer = await client.ask("GET", "/v1/cache-servers")
        return [one.name for one in answer.document(CacheServerListResponse).caches]

    async def test_of_another_domain(self) -> None:
        """R1: a CS of another domain cannot register."""
        await self.start()
        link = await self.link("dc2")
        await self.refused(link, CacheRegistration(SERVER, 5))


class CoordinatorTests(LinkCase):
    async def test_another_domain(self) -> None:
        """R1: a DC leaves keys, and asks for pre-keys, only in the name of its own devices."""
        _, _, laptop = await self.start()
        keys = (TemporalKey(LAPTOP, bytes(32)),)
        expires = int(reactor.seconds()) + 99
        requests: tuple[Callable[[], Message], ...] = (
            lambda: TemporalKeyTransferRequest(
                PHONE, self.phone.certificate.der, "mail", keys, expires
            ),
            lambda: PreKeyRequest(PHONE, (LAPTOP,)),
        )
        for make in requests:
            link = await self.link("dc2", "dc", "dc3.ntm.example")
            await self.assertRaises_(NTMobileError, link.request(make()))
        self.assertEqual(await self.identifiers(laptop), ())

    async def test_certificate(self) -> None:
        """R13: the sender's certificate is verified before anything is kept."""
        _, _, laptop = await self.start()
        link = await self.link("dc2", "dc", DC1)
        request = TemporalKeyTransferRequest(
            PHONE,
            self.laptop.certificate.der,
            "mail",
            (TemporalKey(LAPTOP, bytes(32)),),
            int(reactor.seconds()) + 99,
        )
        answer: Any = await link.request(request)
        self.assertEqual(answer.results[0].outcome, Outcome.UNTRUSTED)
        self.assertEqual(await self.identifiers(laptop), ())


class PreKeyTests(LinkCase):
    def ring(self, identity: DeviceIdentity) -> PreKeyRing:
        """The pre-keys of a device."""
        return PreKeyRing(identity.keys.xwing_seed)

    async def publish(self, client: WebClient, *keys: Any) -> int:
        """Publish some; the status."""
        request = PreKeyUploadRequest(client.info, keys)
        return (await client.ask("POST", "/v1/prekeys", request)).status

    async def query(self, client: WebClient, *fqdns: str) -> PreKeyResponse:
        """Ask for some."""
        request = PreKeyRequest(client.fqdn, fqdns)
        answer = await client.ask("POST", "/v1/prekeys/query", request)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.document(PreKeyResponse)

    async def test_through(self) -> None:
        """R31: a device publishes pre-keys; one of another domain gets the newest."""
        _, phone, laptop = await self.start()
        ring, signer, now = self.ring(self.laptop), self.signer(self.laptop), reactor.seconds()
        identity = ring.identity_prekey(signer, int(now) + 99)
        newest = ring.rotate(signer, now, os.urandom)
        self.assertEqual(await self.publish(laptop, identity, newest), 204)
        found = await self.query(phone, LAPTOP, f"nobody.bob.{DC2}", "x.y.dc9.ntm.example")
        (key,) = found.keys
        self.assertEqual(key.key, newest)
        pin = self.laptop.certificate.identity
        verify_prekey(key, fqdn=LAPTOP, pin=pin, now=now)
        outcomes = {one.destination: one.outcome for one in found.failed}
        self.assertEqual(outcomes[f"nobody.bob.{DC2}"], Outcome.UNKNOWN)
        self.assertEqual(outcomes["x.y.dc9.ntm.example"], Outcome.UNKNOWN)

    async def test_strangers(self) -> None:
        """R13: pre-keys go only to those whom the device admits; others cannot tell it is there."""
        platform, phone, laptop = await self.start()
        signer = self.signer(self.laptop)
        key = self.ring(self.laptop).identity_prekey(signer, int(reactor.seconds()) + 99)
        await self.publish(laptop, key)
        client = platform.services["dc2"].domain.clients.find(LAPTOP)
        client.policy = evolve(client.policy, allow=())
        denied, unknown = (await self.query(phone, LAPTOP, f"nobody.bob.{DC2}")).failed
        self.assertEqual((denied.outcome, denied.reason), (unknown.outcome, unknown.reason))

    async def test_refused(self) -> None:
        """R31: what the device did not sign, or what is another's, is not published."""
        _, phone, laptop = await self.start()
        expires = int(reactor.seconds()) + 99
        ring = self.ring(self.laptop)
        good = ring.identity_prekey(self.signer(self.laptop), expires)
        for key in (
            replace(good, signature=bytes(64)),
            replace(good, number=4),
            replace(good, expires=expires + 1),
            ring.identity_prekey(self.signer(self.laptop), expires - 200),
            self.ring(self.phone).identity_prekey(self.signer(self.laptop), expires),
        ):
            self.assertEqual(await self.publish(laptop, key), 400)
        self.assertEqual(await self.publish(phone, good), 400)
        self.assertEqual((await self.query(phone, LAPTOP)).keys, ())


class DocumentTests(LinkCase):
    async def test_openapi(self) -> None:
        """Everybody may read what can be asked, as OpenAPI."""
        _, phone, _ = await self.start()
        answer = await evolve(phone, signer=None).ask("GET", "/v1/openapi.json")
        self.assertEqual(answer.status, 200)
        self.assertIn("/v1/temporal-keys/{identifier}", answer.problem["paths"])
