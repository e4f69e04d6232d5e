"""Figures 3 and 4 of the paper through real servers of two domains: AS, DCs and a cache server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from attrs import evolve
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ntmobile.client.identity import DeviceIdentity
from ntmobile.machines.exchange.chunks import ChunkOpener, ChunkSealer
from ntmobile.machines.exchange.confirmations import sign_confirmation, verify_confirmation
from ntmobile.machines.exchange.manifests import (
    Address,
    Details,
    open_details,
    sign_manifest,
    verify_manifest,
)
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.machines.exchange.prekeys import PreKeyRing, verify_prekey
from ntmobile.machines.exchange.shared_keys import SharedKey, exchange_key, open_key
from ntmobile.machines.exchange.signing import Signer
from ntmobile.protocols.by_protocol import HTTP_PROTOCOL
from ntmobile.protocols.tls import client_context_factory
from ntmobile.servers.cache import CacheService
from ntmobile.servers.cache_configuration import load_cache
from ntmobile.wire.http_signatures import (
    CERTIFICATE_FIELD,
    SERVER_FIELD,
    Ed25519Signer,
    HmacKey,
)
from ntmobile.wire.messages.exchange import (
    CacheEntry,
    CacheListDownloadResponse,
    CacheServerListResponse,
    Delivery,
    DeliveryStatusResponse,
    EncryptedDataDownloadResponse,
    EncryptedDataUploadRequest,
    EncryptedDataUploadResponse,
    EncryptionKeyDownloadResponse,
    EncryptionKeyUploadRequest,
    EncryptionKeyUploadResponse,
    PreKeyRequest,
    PreKeyResponse,
    PreKeyUploadRequest,
    RequestInfo,
    TemporalKeyDownloadResponse,
    TemporalKeyListDownloadResponse,
    TemporalKeyUploadRequest,
    TemporalKeyUploadResponse,
)
from ntmobile.wire.messages.realtime import Outcome
from tests.platforms import (
    DC1,
    DC2,
    HOST,
    Platform,
    PlatformTestCase,
    coordinators,
    free_port,
    make_realm,
    realm_ports,
)
from tests.web_clients import WebClient, coordinator_client

PHONE = f"phone.alice.{DC1}"
CACHE = f"cs1.{DC1}"
TEXT = b"what nobody between the two can read" * 3000


class Device:
    """A device, and the clients with which it asks its DC and the cache server."""

    def __init__(self, platform: Platform, state: Path, port: int) -> None:
        identity = DeviceIdentity.load(state)
        self.fqdn = identity.fqdn
        self.pin = identity.certificate.identity
        self.signer = Signer(self.fqdn, identity.certificate.der, identity.keys.identity)
        self.ring = PreKeyRing(identity.keys.xwing_seed)
        dc, trust = self.fqdn.split(".")[2], identity.trust
        service = platform.services[dc]
        self.home = coordinator_client(service, platform.ports[dc], trust, self.fqdn)
        tls = client_context_factory(None, None, trust, "cs", CACHE, alpn=(HTTP_PROTOCOL,))
        time = service.domain.unix_time
        if trust.is_home(CACHE):
            # The client-CS key is in the answer to the login; the AS has it too.
            tokens = platform.services["as"].store.token_changes(0, time()).tokens
            (token,) = [one for one in tokens if one.fqdn == self.fqdn]
            name, key = token.token.hex(), HmacKey(token.key)
            self.cache = WebClient(self.fqdn, port, tls, key, name, time)
        else:
            certificate, signer = identity.certificate, Ed25519Signer(identity.keys.identity)
            headers = {
                CERTIFICATE_FIELD: base64.b64encode(certificate.der).decode("ascii"),
                SERVER_FIELD: CACHE,
            }
            name = certificate.fingerprint.hex()
            self.cache = WebClient(self.fqdn, port, tls, signer, name, time, headers=headers)


class ExchangeCase(PlatformTestCase):
    """Alice's phone at dc1 sends to Bob's laptop at another DC, which is off.

    :ivar cache_server: of dc1, after :meth:`start`.
    """

    cache_server: CacheService

    async def start(self, other: str = "ntm.example") -> tuple[Platform, Device, Device]:
        """All servers, and both devices, enrolled.

        :param other: the laptop's realm.
        """
        ours, theirs = realm_ports(), realm_ports()
        users = (f"alice@{DC1}", f"bob@{DC2}")
        table = coordinators("ntm.example", ours)
        if other != "ntm.example":
            table += coordinators(other, theirs)
        abroad = table.replace(coordinators("ntm.example", ours), "")
        platform = make_realm(self.place(), "ntm.example", users, abroad, ours)
        port = free_port()
        platform.realm.add_cache("cs1", DC1, [HOST], port)
        file = platform.directory / "caches" / "cs1.toml"
        text = file.read_text(encoding="utf-8")
        static = f'[lookup]\nplugin = "static"\n[lookup.coordinators]\n{table}'
        file.write_text(text.replace('[lookup]\nplugin = "dns"\n', static), encoding="utf-8")
        second = platform
        if other != "ntm.example":
            others = coordinators("ntm.example", ours)
            second = make_realm(self.place(), other, (f"bob@dc2.{other}",), others, theirs)
            platform.realm.trust(other, second.directory / "ca.pem")
            second.realm.trust("ntm.example", platform.directory / "ca.pem")
            await self.run_platform(second)
        self.cache_server = cache = CacheService(load_cache(file), reactor)
        cache.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop(cache)))
        await self.run_platform(platform)
        phone_state = await platform.enroll(f"alice@{DC1}", "phone")
        laptop_state = await second.enroll(f"bob@dc2.{other}", "laptop")
        caches = platform.services["dc1"].stored_data.caches
        await self.eventually(lambda: len(caches) == 1, "the cache server registered")
        phone = Device(platform, phone_state, port)
        laptop = Device(second, laptop_state, port)
        client = second.services["dc2"].domain.clients.find(laptop.fqdn)
        client.policy = evolve(client.policy, allow=("*.alice.dc1.ntm.example",))
        await self.knows(phone)
        await self.knows(laptop)
        return platform, phone, laptop

    async def stop(self, cache: Any) -> None:
        """End the cache server."""
        await cache.stopService()

    async def knows(self, device: Device) -> None:
        """Wait until the cache server takes a device's token: at most a second after its login."""
        for _ in range(100):
            answer = await device.cache.ask("GET", f"/v1/keys/{'00' * 32}")
            if answer.status == 404:
                return
            self.assertIn(answer.status, (401, 503), answer.body)
            await deferLater(reactor, 0.05, lambda: None)
        self.fail("the cache server does not know the device")

    async def send_key(self, phone: Device, laptop: Device) -> SharedKey:
        """Figure 3, MN's half: the temporal key to the DCs, the shared key to the CS."""
        now = reactor.seconds()
        prekey = laptop.ring.rotate(laptop.signer, now)
        request = PreKeyUploadRequest(laptop.home.info, (prekey,))
        self.assertEqual((await laptop.home.ask("POST", "/v1/prekeys", request)).status, 204)
        query = PreKeyRequest(PHONE, (laptop.fqdn,))
        answer = await phone.home.ask("POST", "/v1/prekeys/query", query)
        (found,) = answer.document(PreKeyResponse).keys
        recipient = verify_prekey(found, fqdn=laptop.fqdn, pin=laptop.pin, now=now)
        made = exchange_key(phone.signer, "mail", [recipient], now)
        upload = TemporalKeyUploadRequest(phone.home.info, made.temporal, made.shared.expires)
        answer = await phone.home.ask("POST", "/v1/temporal-keys", upload)
        results = answer.document(TemporalKeyUploadResponse).results
        self.assertEqual(results, (Delivery(laptop.fqdn, Outcome.OK),))
        info = info_for(phone, laptop.fqdn)
        answer = await phone.cache.ask(
            "POST", "/v1/keys", EncryptionKeyUploadRequest(info, made.sealed)
        )
        self.assertEqual(answer.status, 200, answer.body)
        results = answer.document(EncryptionKeyUploadResponse).results
        self.assertEqual(results, (Delivery(laptop.fqdn, Outcome.OK),))
        return made.shared

    async def fetch_key(self, laptop: Device, phone: Device) -> bytes:
        """Figure 3, CN's half."""
        answer = await laptop.home.ask("GET", "/v1/temporal-keys")
        (identifier,) = answer.document(TemporalKeyListDownloadResponse).identifiers
        path = f"/v1/temporal-keys/{identifier.hex()}"
        temporal = (await laptop.home.ask("GET", path)).document(TemporalKeyDownloadResponse)
        self.assertEqual(temporal.sender, PHONE)
        (entry,) = await self.listed(laptop)
        self.assertEqual((entry.cache, entry.kind), (CACHE, "key"))
        answer = await laptop.cache.ask("GET", f"/v1/keys/{entry.identifier.hex()}")
        sealed = answer.document(EncryptionKeyDownloadResponse).key
        key = open_key(
            sealed,
            pin=phone.pin,
            receiver=laptop.fqdn,
            temporal=temporal.key,
            private=laptop.ring.private(sealed.prekey),
            now=reactor.seconds(),
        )
        await laptop.home.ask("DELETE", path)
        await laptop.home.ask("DELETE", f"/v1/caches/{entry.identifier.hex()}")
        self.assertEqual(await self.listed(laptop), ())
        return key

    async def listed(self, device: Device) -> tuple[CacheEntry, ...]:
        """What waits for a device."""
        answer = await device.home.ask("GET", "/v1/caches?application=mail")
        return answer.document(CacheListDownloadResponse).entries

    async def send_data(
        self, phone: Device, laptop: Device, shared: SharedKey
    ) -> tuple[bytes, bytes]:
        """Figure 4, MN's half: the object's identifier and root."""
        header = ObjectHeader.create(len(TEXT))
        sealer = ChunkSealer(shared.key, header, len(TEXT))
        parts = [
            sealer.seal_part(number, TEXT[begin : begin + size])
            for number in range(header.parts)
            for begin, size in [sealer.extent(number)]
        ]
        signed = sign_manifest(
            phone.signer,
            shared.key,
            Address((laptop.fqdn,), "mail", message="a letter"),
            header,
            sealer.root(),
            Details("letter", "text/plain", len(TEXT)),
            shared.expires,
        )
        info = replace(info_for(phone, laptop.fqdn), message="a letter")
        request = EncryptedDataUploadRequest(info, signed)
        answer = await phone.cache.ask("POST", "/v1/objects", request)
        self.assertEqual(answer.status, 200, answer.body)
        base = f"/v1/objects/{header.object.hex()}"
        octets = evolve(phone.cache, headers={"content-type": "application/octet-stream"})
        for number, part in enumerate(parts):
            answer = await octets.ask("PUT", f"{base}/parts/{number}", part)
            self.assertEqual(answer.status, 204, answer.body)
        answer = await phone.cache.ask("POST", f"{base}/complete")
        self.assertEqual(answer.status, 200, answer.body)
        results = answer.document(EncryptedDataUploadResponse).results
        self.assertEqual(results, (Delivery(laptop.fqdn, Outcome.OK),))
        return header.object, sealer.root()

    async def fetch_data(self, laptop: Device, phone: Device, key: bytes) -> bytes:
        """Figure 4, CN's half, confirmation included."""
        (entry,) = await self.listed(laptop)
        self.assertEqual((entry.kind, entry.message, entry.sender), ("data", "a letter", PHONE))
        base = f"/v1/objects/{entry.identifier[:16].hex()}"
        answer = await laptop.cache.ask("GET", base)
        found = answer.document(EncryptedDataDownloadResponse)
        now = reactor.seconds()
        manifest = verify_manifest(found.manifest, pin=phone.pin, now=now, receiver=laptop.fqdn)
        header = ObjectHeader.parse(manifest.header)
        length = open_details(manifest, key).length
        opener, plain = ChunkOpener(key, header, length, manifest.root), b""
        for number in range(header.parts):
            answer = await laptop.cache.ask("GET", f"{base}/parts/{number}")
            plain += opener.open_part(answer.body)
        opener.finish()
        confirmation = sign_confirmation(laptop.signer, manifest, laptop.cache.info)
        answer = await laptop.cache.ask("POST", f"{base}/confirm", confirmation)
        self.assertEqual(answer.status, 200, answer.body)
        await laptop.home.ask("DELETE", f"/v1/caches/{entry.identifier.hex()}")
        return plain


class ExchangeTests(ExchangeCase):
    """Both figures, and who is kept out."""

    async def test_through(self) -> None:
        """Keys and data reach a device that was off, which confirms; the sender can verify that."""
        _, phone, laptop = await self.start()
        await self.exchange(phone, laptop)

    async def test_other_realm(self) -> None:
        """R1, R28: so they do where the receiver is of another realm, and has no token here."""
        _, phone, laptop = await self.start("other.test")
        await self.exchange(phone, laptop)

    async def exchange(self, phone: Device, laptop: Device) -> None:
        """Both figures."""
        servers = await phone.home.ask("GET", "/v1/cache-servers")
        (server,) = servers.document(CacheServerListResponse).caches
        self.assertEqual(server.name, CACHE)
        shared = await self.send_key(phone, laptop)
        key = await self.fetch_key(laptop, phone)
        self.assertEqual(key, shared.key)
        object_, root = await self.send_data(phone, laptop, shared)
        self.assertEqual(await self.fetch_data(laptop, phone, key), TEXT)
        answer = await phone.cache.ask("GET", f"/v1/objects/{object_.hex()}/status")
        (status,) = answer.document(DeliveryStatusResponse).statuses
        self.assertEqual(status.state, "confirmed")
        assert status.confirmation is not None
        verify_confirmation(
            status.confirmation,
            object=object_,
            root=root,
            sender=PHONE,
            receiver=laptop.fqdn,
            pin=laptop.pin,
        )

    async def test_revoked(self) -> None:
        """R34: within a second a device that is removed can ask neither its DC nor the CS."""
        platform, phone, _ = await self.start()
        store = platform.realm.accounts()
        store.remove(PHONE, reactor.seconds())
        store.close()
        domain = platform.services["dc1"].domain
        await self.eventually(lambda: domain.clients.find(PHONE) is None, "the DC knows", 1.0)
        push = platform.services["as"].tokens
        await self.eventually(
            lambda: (
                push.conversations[0].known == platform.services["as"].store.last_token_change()
            ),
            "the cache server knows",
            1.0,
        )
        for client, target in ((phone.home, "/v1/caches"), (phone.cache, f"/v1/keys/{'00' * 32}")):
            self.assertEqual((await client.ask("GET", target)).status, 401)


def info_for(device: Device, *destinations: str) -> RequestInfo:
    """What a request says, for these destinations."""
    return replace(device.cache.info, destinations=destinations)
