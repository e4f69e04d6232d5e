"""The DC's HTTP API, over real TLS, and what DCs tell each other of stored data."""

from __future__ import annotations

from attrs import evolve

from ntmobile.errors import StorageFailed
from ntmobile.machines.exchange.shared_keys import temporal_identifier
from ntmobile.wire.http_digests import CONTENT_DIGEST, content_digest
from ntmobile.wire.http_signatures import HmacKey
from ntmobile.wire.messages.exchange import (
    CacheListDownloadResponse,
    CacheServerListResponse,
    Delivery,
    TemporalKey,
    TemporalKeyDownloadResponse,
    TemporalKeyListDownloadResponse,
    TemporalKeyUploadRequest,
    TemporalKeyUploadResponse,
)
from ntmobile.wire.messages.realtime import Outcome
from tests.platforms import DC1, DC2, Platform, PlatformTestCase
from tests.web_clients import WebClient, coordinator_client

PHONE, LAPTOP = f"phone.alice.{DC1}", f"laptop.bob.{DC2}"
KEY = bytes(range(32))


class StoredDataCase(PlatformTestCase):
    """Alice's phone at dc1 and Bob's laptop at dc2, both enrolled; the laptop is off."""

    async def start(self) -> tuple[Platform, WebClient, WebClient]:
        """The platform and both devices' clients."""
        platform = await self.platform()
        await platform.enroll(f"alice@{DC1}", "phone")
        await platform.enroll(f"bob@{DC2}", "laptop")
        await self.eventually(
            lambda: platform.services["dc2"].domain.clients.find(LAPTOP) is not None,
            "the laptop is known",
        )
        return platform, self.client(platform, PHONE), self.client(platform, LAPTOP)

    def client(self, platform: Platform, fqdn: str) -> WebClient:
        """The client of a device."""
        dc = fqdn.split(".")[2]
        trust = platform.services[dc].domain.trust
        return coordinator_client(platform.services[dc], platform.ports[dc], trust, fqdn)

    def upload(self, client: WebClient, *keys: tuple[str, bytes]) -> TemporalKeyUploadRequest:
        """A request that brings temporal keys."""
        made = tuple(TemporalKey(fqdn, key) for fqdn, key in keys)
        return TemporalKeyUploadRequest(client.info, made, int(client.time()) + 3600)

    async def uploaded(self, client: WebClient, *keys: tuple[str, bytes]) -> list[Delivery]:
        """What became of temporal keys."""
        request = self.upload(client, *keys)
        answer = await client.ask("POST", "/v1/temporal-keys", request)
        self.assertEqual(answer.status, 200, answer.body)
        return list(answer.document(TemporalKeyUploadResponse).results)

    async def identifiers(self, client: WebClient) -> tuple[bytes, ...]:
        """The temporal keys that wait for a device."""
        answer = await client.ask("GET", "/v1/temporal-keys")
        self.assertEqual(answer.status, 200, answer.body)
        return answer.document(TemporalKeyListDownloadResponse).identifiers


class TemporalKeyTests(StoredDataCase):
    async def test_through(self) -> None:
        """R31: a key goes over both DCs to a device that is off; it is there until confirmed."""
        _, phone, laptop = await self.start()
        results = await self.uploaded(phone, (LAPTOP, KEY))
        self.assertEqual(results, [Delivery(LAPTOP, Outcome.OK)])
        (identifier,) = await self.identifiers(laptop)
        self.assertEqual(identifier, temporal_identifier(KEY))
        path = f"/v1/temporal-keys/{identifier.hex()}"
        for _ in range(2):
            answer = await laptop.ask("GET", path)
            found = answer.document(TemporalKeyDownloadResponse)
            self.assertEqual(found, TemporalKeyDownloadResponse(PHONE, KEY))
        for _ in range(2):
            self.assertEqual((await laptop.ask("DELETE", path)).status, 204)
        answer = await laptop.ask("GET", path)
        self.assertEqual((answer.status, answer.problem["type"]), (404, "urn:ntmobile:unknown"))

    async def test_restart(self) -> None:
        """R31: what waits outlives a restart of the DC; so does the session."""
        platform, phone, laptop = await self.start()
        await self.uploaded(phone, (LAPTOP, KEY))
        await platform.stop("dc2")
        platform.start("dc2")
        self.assertEqual(await self.identifiers(laptop), (temporal_identifier(KEY),))

    async def test_strangers(self) -> None:
        """R13: who is not admitted hears the same as where there is nobody of that name."""
        platform, phone, laptop = await self.start()
        service = platform.services["dc2"]
        client = service.domain.clients.find(LAPTOP)
        client.policy = evolve(client.policy, allow=("nobody.at.all.example",))
        nobody = f"nobody.bob.{DC2}"
        denied, unknown = await self.uploaded(phone, (LAPTOP, KEY), (nobody, KEY))
        self.assertEqual(denied.outcome, Outcome.UNKNOWN)
        self.assertEqual((denied.outcome, denied.reason), (unknown.outcome, unknown.reason))
        self.assertEqual(await self.identifiers(laptop), ())

    async def test_session_over(self) -> None:
        """R13: a device that is off for so long that its session ended is still known."""
        platform, phone, _ = await self.start()
        service = platform.services["dc2"]
        await service._write()
        service.domain._forget(service.domain.clients.find(LAPTOP))
        await service._write()
        results = await self.uploaded(phone, (LAPTOP, KEY))
        self.assertEqual(results, [Delivery(LAPTOP, Outcome.OK)])

    async def test_clock_ahead(self) -> None:
        """R12: a DC's clock that is ahead when it starts has nothing erased as expired."""
        platform, phone, laptop = await self.start()
        await self.uploaded(phone, (LAPTOP, KEY))
        service = platform.services["dc2"]
        exchange, right = service.stored_data.exchange, service.domain.unix_time
        until, service.domain.lease_until = service.domain.lease_until, 0.0
        exchange.unix_time = lambda: right() + 90 * 86400
        service.stored_data._next_expiry = 0.0
        service.stored_data.tick()
        await exchange.run(lambda: None)  # after what was asked before
        exchange.unix_time, service.domain.lease_until = right, until
        self.assertEqual(await self.identifiers(laptop), (temporal_identifier(KEY),))

    async def test_removed(self) -> None:
        """R34: for a device that was removed nothing waits, and nothing can be left any more."""
        platform, phone, _ = await self.start()
        await self.uploaded(phone, (LAPTOP, KEY))
        service = platform.services["dc2"]

        await service._write()
        self.assertIn(LAPTOP, service.stored_data.store.devices([LAPTOP]))

        def failing(*args: object) -> None:
            raise StorageFailed("disk full")

        patched = self.patch(service.stored_data.store, "note", failing)
        store = platform.realm.accounts()
        store.remove(LAPTOP, phone.time())
        store.close()
        await self.eventually(
            lambda: service.domain.clients.find(LAPTOP) is None, "it is revoked", 2.0
        )
        # At once, and also where that cannot be written for now.
        (result,) = await self.uploaded(phone, (LAPTOP, bytes(32)))
        self.assertEqual(result.outcome, Outcome.UNKNOWN)
        patched.restore()
        await service._write()
        (later,) = await self.uploaded(phone, (LAPTOP, bytes(32)))
        self.assertEqual(later.outcome, Outcome.UNKNOWN)
        self.assertEqual(service.stored_data.store.devices([LAPTOP]), {})

    async def test_elsewhere(self) -> None:
        """A domain that is not trusted, does not answer, or a name that is none: each is told."""
        platform, phone, _ = await self.start()
        await platform.stop("dc2")
        results = await self.uploaded(
            phone,
            ("x.y.elsewhere.example", KEY),
            (LAPTOP, KEY),
            ("nobody", KEY),
        )
        found = {one.destination: one.outcome for one in results}
        self.assertEqual(found["x.y.elsewhere.example"], Outcome.UNTRUSTED)
        self.assertEqual(found[LAPTOP], Outcome.UNREACHABLE)
        self.assertEqual(found["nobody"], Outcome.REFUSED)
        self.assertTrue(all(one.reason for one in results))

    async def test_bounds(self) -> None:
        """R31: what has expired already is refused."""
        _, phone, _ = await self.start()
        request = TemporalKeyUploadRequest(phone.info, (TemporalKey(LAPTOP, KEY),), 5)
        answer = await phone.ask("POST", "/v1/temporal-keys", request)
        (result,) = answer.document(TemporalKeyUploadResponse).results
        self.assertEqual(result.outcome, Outcome.REFUSED)


class SignatureTests(StoredDataCase):
    async def test_refused(self) -> None:
        """R28: requests that are not signed as they should be are refused, and do nothing."""
        _, phone, laptop = await self.start()
        request = self.upload(phone, (LAPTOP, KEY))
        wrong = {
            "unsigned": evolve(phone, signer=None),
            "other key": evolve(phone, signer=HmacKey(bytes(32))),
            "other session": evolve(phone, keyid=laptop.keyid),
            "unknown session": evolve(phone, keyid="00" * 8),
            "no session": evolve(phone, keyid="x"),
            "too old": evolve(phone, time=lambda: laptop.time() - 400),
            "too new": evolve(phone, time=lambda: laptop.time() + 400),
            "other body": evolve(phone, headers={CONTENT_DIGEST: content_digest(b"other")}),
        }
        for name, client in wrong.items():
            answer = await client.ask("POST", "/v1/temporal-keys", request)
            self.assertIn(answer.status, (401, 422), name)
            self.assertEqual(answer.problem["status"], answer.status)
        self.assertEqual(await self.identifiers(laptop), ())

    async def test_replayed(self) -> None:
        """R28: a request that was made before is refused."""
        _, phone, _ = await self.start()
        same = evolve(phone, random=bytes)
        self.assertEqual((await same.ask("GET", "/v1/temporal-keys")).status, 200)
        self.assertEqual((await same.ask("GET", "/v1/temporal-keys")).status, 401)

    async def test_another_sender(self) -> None:
        """R1: a device cannot leave anything in another one's name."""
        _, phone, laptop = await self.start()
        request = self.upload(laptop, (PHONE, KEY))
        answer = await phone.ask("POST", "/v1/temporal-keys", request)
        self.assertEqual((answer.status, answer.problem["type"]), (403, "urn:ntmobile:denied"))

    async def test_lease(self) -> None:
        """R34: a DC that has not heard its AS for long takes nothing new, but still gives."""
        platform, phone, laptop = await self.start()
        await self.uploaded(phone, (LAPTOP, KEY))
        for dc in ("dc1", "dc2"):
            platform.services[dc].domain.lease_until = 0.0
        request = self.upload(phone, (LAPTOP, bytes(32)))
        answer = await phone.ask("POST", "/v1/temporal-keys", request)
        self.assertEqual(answer.status, 503)
        self.assertEqual(await self.identifiers(laptop), (temporal_identifier(KEY),))

    async def test_garbage(self) -> None:
        """Bodies, paths and queries that are not understood are told as problems (RFC 9457)."""
        _, phone, _ = await self.start()
        for method, target, body, status in (
            ("POST", "/v1/temporal-keys", b"{", 400),
            ("POST", "/v1/temporal-keys", b"[]" * 200_000, 413),
            ("PUT", "/v1/temporal-keys", b"", 405),
            ("GET", "/v1/temporal-keys/../caches", b"", 404),
            ("GET", "/v1/temporal-keys/%2e%2e", b"", 404),
            ("GET", "/v1/temporal-keys/" + "A" * 64, b"", 404),
            ("GET", "/v1/caches?after=zz", b"", 400),
            ("GET", "/", b"", 404),
        ):
            answer = await phone.ask(method, target, body or None)
            self.assertEqual(answer.status, status, target)
            self.assertEqual(set(answer.problem), {"type", "title", "status", "detail"})


class ListTests(StoredDataCase):
    async def test_empty(self) -> None:
        """Where nothing waits, lists are empty."""
        _, _, laptop = await self.start()
        caches = await laptop.ask("GET", "/v1/caches?application=mail")
        self.assertEqual(caches.document(CacheListDownloadResponse).entries, ())
        servers = await laptop.ask("GET", "/v1/cache-servers")
        self.assertEqual(servers.document(CacheServerListResponse).caches, ())
