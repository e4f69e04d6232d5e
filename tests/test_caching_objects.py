"""Objects at a cache server: announced, uploaded, completed, read, confirmed (figure 4)."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import StorageFailed
from ntmobile.interfaces import Quotas
from ntmobile.machines.exchange.confirmations import sign_confirmation, verify_confirmation
from ntmobile.plugins.caches.storage import WAITING
from ntmobile.protocols.caching.downloads import LOOKED_UP
from ntmobile.wire.http_digests import content_digest
from ntmobile.wire.messages.exchange import (
    MANIFESTS,
    DeliveryStatusResponse,
    EncryptedDataConfirmationRequest,
    EncryptedDataDownloadResponse,
    EncryptedDataExchangeRequest,
    EncryptedDataListRequest,
    EncryptedDataListResponse,
    EncryptedDataUploadResponse,
    SignedManifest,
)
from ntmobile.wire.messages.realtime import Outcome
from tests.caching import ALICE, BOB, CAROL, Answered, Client, World, an_item, read_manifest
from tests.stored_data import Device, Item, fetch


class ObjectCase(SynchronousTestCase):
    """Alice sends an object to Bob and Carol."""

    plain = b"hello"

    def setUp(self) -> None:
        self.world = World()
        self.alice, self.bob, self.carol = map(Device.create, (ALICE, BOB, CAROL))
        self.client = self.world.client(ALICE)
        self.item = an_item(self.alice, plain=self.plain)
        self.path = f"/v1/objects/{read_manifest(self.item).object.hex()}"

    def ask(self, client: Client, method: str, path: str = "", body: bytes = b"") -> Answered:
        """Ask something of the object."""
        return self.world.ask(client, method, self.path + path, body)

    def until(self, life: int) -> Item:
        """The object, with another end."""
        expires = int(self.world.unix_time()) + life
        data = msgspec.msgpack.encode(replace(read_manifest(self.item), expires=expires))
        signer = self.alice.signer
        signature = signer.sign("ntm1 manifest", data)
        return Item(SignedManifest(data, signature, signer.certificate), self.item.parts)

    def confirmation(self, device: Device) -> EncryptedDataConfirmationRequest:
        """A receiver's confirmation."""
        client = self.world.client(device.fqdn)
        return sign_confirmation(device.signer, read_manifest(self.item), client.info)


class UploadTests(ObjectCase):
    """What senders ask."""

    def announce(self, item: Item | None = None) -> Answered:
        """Announce the object, or another."""
        announcement = self.world.announcement(self.client, item or self.item)
        return self.world.ask(self.client, "POST", "/v1/objects", announcement)

    def test_upload(self) -> None:
        """An object is announced, comes in parts, and its coordinators are told (figure 4)."""
        found = self.announce().document(EncryptedDataUploadResponse)
        self.assertEqual((found.parts, found.missing, found.results), (1, (0,), ()))
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0", self.item.parts[0]).status, 204)
        answer = self.ask(self.client, "POST", "/complete")
        found = answer.document(EncryptedDataUploadResponse)
        self.assertEqual(found.missing, ())
        self.assertEqual(
            [(each.destination, each.outcome) for each in found.results], [(BOB, 0), (CAROL, 0)]
        )
        asked = dict(self.world.asked)
        request = asked["dc2.ntm.example"]
        self.assertIsInstance(request, EncryptedDataExchangeRequest)
        self.assertEqual(request.info.destinations, (CAROL,))
        self.assertEqual(request.manifest, self.item.signed)

    def test_again(self) -> None:
        """Everything may be repeated, and changes nothing."""
        for _ in range(2):
            answer = self.world.upload(self.client, self.item)
            results = answer.document(EncryptedDataUploadResponse).results
            self.assertEqual([each.outcome for each in results], [0, 0])
        self.assertEqual(len(self.world.asked), 2)

    def test_other_part(self) -> None:
        """A part does not become another one."""
        self.world.upload(self.client, self.item, complete=False)
        other = bytes(len(self.item.parts[0]))
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0", other).status, 409)

    def test_wrong_part(self) -> None:
        """A part of another size, or that the object has not, is refused."""
        self.announce()
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0", b"x").status, 400)
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0").status, 400)
        self.assertEqual(self.ask(self.client, "PUT", "/parts/1", b"x").status, 404)
        self.assertEqual(self.ask(self.client, "PUT", "/parts/00", b"x").status, 404)

    def test_unannounced(self) -> None:
        """What was not announced is not taken."""
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0", b"x").status, 404)

    def test_of_another(self) -> None:
        """Nobody but its sender uploads, completes or withdraws an object, or hears of it."""
        self.world.upload(self.client, self.item, complete=False)
        for other in (self.world.client(BOB), self.world.client("pad.alice.dc1.ntm.example")):
            part = self.item.parts[0]
            self.assertEqual(self.ask(other, "PUT", "/parts/0", part).status, 404)
            self.assertEqual(self.ask(other, "POST", "/complete").status, 404)
            self.assertEqual(self.ask(other, "GET", "/status").status, 404)
            self.assertEqual(self.ask(other, "DELETE").status, 404)

    def test_too_early(self) -> None:
        """An object is not complete before all parts came; the sender is told which did not."""
        self.announce()
        answer = self.ask(self.client, "POST", "/complete")
        self.assertEqual(answer.status, 409)
        self.assertIn("parts are missing: 0", answer.detail)
        self.assertEqual(self.world.asked, [])

    def test_wrong_root(self) -> None:
        """R30: parts that are not what the manifest signed are thrown away, and nobody is told."""
        item = Item(self.item.signed, [bytes(len(self.item.parts[0]))])
        self.world.cache.exchanges.start()
        answer = self.world.upload(self.client, item)
        self.assertEqual(answer.status, 422)
        self.assertEqual(self.ask(self.client, "GET", "/status").status, 404)
        self.assertEqual(self.world.asked, [])
        self.world.cache.exchanges.stop()

    def test_another_domain(self) -> None:
        """R1: a cache server speaks for devices of its own domain, and takes nothing of others."""
        client = self.world.client(CAROL)
        item = an_item(self.carol, [BOB])
        answer = self.world.ask(
            client, "POST", "/v1/objects", self.world.announcement(client, item)
        )
        self.assertEqual(answer.status, 403)
        self.assertIn("dc1.ntm.example", answer.detail)
        self.assertEqual(self.world.upload_key(client, self.carol, [self.bob]).status, 403)
        self.assertEqual(self.world.asked, [])

    def test_forged_manifest(self) -> None:
        """R29: a manifest that its sender did not sign is refused."""
        signed = self.item.signed
        mallory = Device.create("pad.mallory.dc1.ntm.example")
        for wrong, status in (
            (msgspec.structs.replace(signed, signature=bytes(64)), 401),
            (msgspec.structs.replace(signed, certificate=mallory.signer.certificate), 403),
            (an_item(mallory).signed, 403),
            (msgspec.structs.replace(signed, certificate=bytes(64)), 401),
        ):
            announcement = self.world.announcement(self.client, self.item)
            wrong_one = msgspec.structs.replace(announcement, manifest=wrong)
            answer = self.world.ask(self.client, "POST", "/v1/objects", wrong_one)
            self.assertEqual(answer.status, status, answer.body)

    def test_contradictions(self) -> None:
        """A request that says something else than its manifest is malformed."""
        right = self.world.announcement(self.client, self.item)
        for change in (
            {"application": "other"},
            {"service": "other"},
            {"item": "other"},
            {"message": "other"},
            {"destinations": (BOB,)},
            {"fqdn": BOB},
        ):
            info = msgspec.structs.replace(right.info, **change)
            wrong = msgspec.structs.replace(right, info=info)
            status = self.world.ask(self.client, "POST", "/v1/objects", wrong).status
            self.assertEqual(status, 403 if "fqdn" in change else 400)

    def test_destinations(self) -> None:
        """Destinations are devices, each once."""
        for receivers in ([BOB, BOB], ["bob"], ["dc1.ntm.example"], [".."]):
            self.assertEqual(self.announce(an_item(self.alice, receivers)).status, 400, receivers)

    def test_too_large(self) -> None:
        """An object of more than the server takes is refused before any of it comes."""
        self.world.largest = 100
        self.world.restart()
        self.client = self.world.client(ALICE)
        answer = self.announce()
        self.assertEqual(answer.status, 413)
        self.assertIn("100 at most", answer.detail)

    def test_quota(self) -> None:
        """Who has stored too much is told so before any of it comes."""
        self.world = World(quotas=Quotas(user=15_000))
        self.client = self.world.client(ALICE)
        self.assertEqual(self.announce(an_item(self.alice, plain=bytes(10_000))).status, 200)
        answer = self.announce(an_item(self.alice, plain=bytes(10_000)))
        self.assertEqual(answer.status, 507)

    def test_full(self) -> None:
        """A storage that is full says so before any of it comes."""
        self.world = World(capacity=15_000)
        self.client = self.world.client(ALICE)
        self.assertEqual(self.announce(an_item(self.alice, plain=bytes(10_000))).status, 200)
        self.assertEqual(self.announce(an_item(self.alice, plain=bytes(10_000))).status, 507)

    def test_storage_fails(self) -> None:
        """A storage that fails is no lack of room, and clients hear nothing of its files."""
        failing = fail(StorageFailed("/var/lib/secret/records.sqlite: disk I/O error"))
        self.patch(self.world.storage, "add_object", lambda announced, at: failing)
        answer = self.announce()
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "30"))
        self.assertNotIn("secret", answer.detail)

    def test_busy(self) -> None:
        """A storage with too much to do at once says so, not that it is full."""
        self.world.storage._busy = WAITING
        self.assertEqual(self.announce().status, 503)
        self.world.storage._busy = 0
        self.assertEqual(self.announce().status, 200)

    def test_withdrawn(self) -> None:
        """An object that its sender withdraws is gone for everybody."""
        self.world.upload(self.client, self.item)
        self.assertEqual(self.ask(self.client, "DELETE").status, 204)
        self.assertEqual(self.ask(self.client, "DELETE").status, 404)
        self.assertEqual(self.ask(self.world.client(BOB), "GET").status, 404)

    def test_withdrawn_and_wrong(self) -> None:
        """R30: that an object was right once says nothing of what comes under its name later."""
        self.assertEqual(self.world.upload(self.client, self.item).status, 200)
        self.assertEqual(self.ask(self.client, "DELETE").status, 204)
        wrong = Item(self.item.signed, [bytes(len(self.item.parts[0]))])
        self.assertEqual(self.world.upload(self.client, wrong).status, 422)

    def test_restart(self) -> None:
        """An upload goes on after a restart, and the root is judged by what is stored."""
        self.world.upload(self.client, self.item, complete=False)
        self.world.restart()
        self.client = self.world.client(ALICE)
        self.assertEqual(self.announce().document(EncryptedDataUploadResponse).missing, ())
        self.assertEqual(self.ask(self.client, "POST", "/complete").status, 200)


class DownloadTests(ObjectCase):
    """What receivers ask."""

    def test_download(self) -> None:
        """A receiver gets the manifest and the parts, and can open them."""
        self.world.upload(self.client, self.item)
        client = self.world.client(BOB)
        found = self.ask(client, "GET").document(EncryptedDataDownloadResponse)
        self.assertEqual((found.manifest, found.parts), (self.item.signed, 1))
        answer = self.ask(client, "GET", "/parts/0")
        self.assertEqual(answer.headers["repr-digest"], content_digest(self.item.parts[0]))
        received = Item(found.manifest, [answer.body])
        self.assertEqual(fetch(self.bob, self.alice, bytes(range(32)), received), self.plain)

    def test_incomplete(self) -> None:
        """Nothing is visible to receivers before all of it is there; the sender sees it."""
        announcement = self.world.announcement(self.client, self.item)
        self.world.ask(self.client, "POST", "/v1/objects", announcement)
        self.assertEqual(self.ask(self.world.client(BOB), "GET").status, 404)
        self.assertEqual(self.ask(self.client, "GET").status, 200)
        self.assertEqual(self.ask(self.client, "GET", "/parts/0").status, 404)

    def test_several(self) -> None:
        """R28: of the manifests that a receiver asks for, those come that wait for it."""
        other = an_item(self.alice, [CAROL])
        for item in (self.item, other):
            self.world.upload(self.client, item)
        own, theirs = (read_manifest(item).object for item in (self.item, other))
        client = self.world.client(BOB)
        asked = EncryptedDataListRequest(client.info, (own, theirs, bytes(16), own))
        answer = self.world.ask(client, "POST", "/v1/objects/query", asked)
        found = answer.document(EncryptedDataListResponse)
        self.assertEqual(
            [(one.object, one.manifest, one.parts) for one in found.objects],
            [(own, self.item.signed, 1)],
        )
        forged = msgspec.structs.replace(asked, info=self.client.info)
        answer = self.world.ask(client, "POST", "/v1/objects/query", forged)
        self.assertGreaterEqual(answer.status, 400)

    def test_long_lists(self) -> None:
        """Who asks for many manifests at once has asked as much as it takes to look them up."""
        client = self.world.client(BOB)
        objects = tuple(bytes([number]) * 16 for number in range(MANIFESTS))
        asked = EncryptedDataListRequest(client.info, objects)
        answered = 0
        while self.world.ask(client, "POST", "/v1/objects/query", asked).status == 200:
            answered += 1
        self.assertLess(answered, 2000 * LOOKED_UP / MANIFESTS)
        self.assertGreater(answered, 157)  # the number for ten thousand items

    def test_others(self) -> None:
        """R28: who is neither sender nor destination learns nothing, not even that it is there."""
        self.world.upload(self.client, self.item)
        stranger, _ = self.world.stranger()
        mallory = self.world.client("pad.mallory.dc1.ntm.example")
        for client in (stranger, mallory):
            for path in ("", "/parts/0"):
                answer = self.ask(client, "GET", path)
                absent = self.world.ask(client, "GET", f"/v1/objects/{'00' * 16}{path}")
                self.assertEqual((answer.status, answer.detail), (404, absent.detail))

    def test_stranger(self) -> None:
        """R28: a receiver of another realm gets what is addressed to it, and confirms it."""
        stranger, signer = self.world.stranger()
        self.item = an_item(self.alice, [stranger.fqdn])
        self.path = f"/v1/objects/{read_manifest(self.item).object.hex()}"
        self.world.upload(self.client, self.item)
        self.assertEqual(self.ask(stranger, "GET", "/parts/0").body, self.item.parts[0])
        confirmation = sign_confirmation(signer, read_manifest(self.item), stranger.info)
        answer = self.world.ask(stranger, "POST", f"{self.path}/confirm", confirmation)
        self.assertEqual(answer.status, 200)

    def test_ranges(self) -> None:
        """A range is given as asked, so that a download goes on where it was cut."""
        self.world.upload(self.client, self.item)
        client, part = self.world.client(BOB), self.item.parts[0]
        size = len(part)
        for asked, status, body in (
            ("bytes=0-0", 206, part[:1]),
            ("bytes=5-9", 206, part[5:10]),
            ("bytes=100-", 206, part[100:]),
            ("bytes=-3", 206, part[-3:]),
            ("bytes=10-99999", 206, part[10:]),
            (f"bytes=0-{size - 1}", 200, part),
            ("bytes=-99999", 200, part),
            ("bytes=9-5", 200, part),
            ("bytes=1-2,4-5", 200, part),
            ("bytes=-", 200, part),
            ("lines=1-2", 200, part),
        ):
            answer = self.world.ask(client, "GET", f"{self.path}/parts/0", range=asked)
            self.assertEqual((answer.status, answer.body), (status, body), asked)
        answer = self.world.ask(client, "GET", f"{self.path}/parts/0", range="bytes=5-9")
        self.assertEqual(answer.headers["content-range"], f"bytes 5-9/{size}")
        for asked in (f"bytes={size}-", "bytes=-0"):
            answer = self.world.ask(client, "GET", f"{self.path}/parts/0", range=asked)
            self.assertEqual(answer.status, 416, asked)
            self.assertEqual(answer.headers["content-range"], f"bytes */{size}")

    def test_confirmed(self) -> None:
        """R32: confirmations are kept for the sender, who verifies them; then the parts go."""
        self.world.upload(self.client, self.item)
        for device in (self.bob, self.carol):
            client = self.world.client(device.fqdn)
            confirmation = self.confirmation(device)
            answer = self.world.ask(client, "POST", f"{self.path}/confirm", confirmation)
            self.assertEqual(answer.status, 200)
        found = self.ask(self.client, "GET", "/status").document(DeliveryStatusResponse)
        self.assertEqual([each.state for each in found.statuses], ["confirmed", "confirmed"])
        manifest = read_manifest(self.item)
        for device, status in zip((self.bob, self.carol), found.statuses, strict=True):
            assert status.confirmation is not None
            verify_confirmation(
                status.confirmation,
                object=manifest.object,
                root=manifest.root,
                sender=ALICE,
                receiver=device.fqdn,
                pin=device.pin,
            )
        self.assertEqual(self.ask(self.world.client(BOB), "GET", "/parts/0").status, 404)
        answer = self.ask(self.client, "POST", "/complete")
        self.assertEqual(answer.status, 200)

    def test_confirmed_again(self) -> None:
        """A confirmation may be repeated."""
        self.world.upload(self.client, self.item)
        client = self.world.client(BOB)
        for _ in range(2):
            confirmation = self.confirmation(self.bob)
            answer = self.world.ask(client, "POST", f"{self.path}/confirm", confirmation)
            self.assertEqual(answer.status, 200)

    def test_forged_confirmation(self) -> None:
        """R32: only the receiver's own signature over this very object confirms it."""
        self.world.upload(self.client, self.item)
        client, right = self.world.client(BOB), self.confirmation(self.bob)
        other = an_item(self.alice)
        changes = (
            msgspec.structs.replace(right, signature=bytes(64)),
            msgspec.structs.replace(right, root=bytes(32)),
            msgspec.structs.replace(right, object=bytes(16)),
            msgspec.structs.replace(right, certificate=self.carol.signer.certificate),
            self.confirmation(self.carol),
            sign_confirmation(self.bob.signer, read_manifest(other), right.info),
        )
        for wrong in changes:
            answer = self.world.ask(client, "POST", f"{self.path}/confirm", wrong)
            self.assertIn(answer.status, (400, 401, 403), answer.body)
        found = self.ask(self.client, "GET", "/status").document(DeliveryStatusResponse)
        self.assertEqual({each.state for each in found.statuses}, {"waiting"})

    def test_confirmed_by_sender(self) -> None:
        """A sender that is no destination has nothing to confirm."""
        self.world.upload(self.client, self.item)
        confirmation = self.confirmation(self.alice)
        answer = self.world.ask(self.client, "POST", f"{self.path}/confirm", confirmation)
        self.assertEqual(answer.status, 404)

    def test_status(self) -> None:
        """The sender is told how far it has come, and why not further."""
        self.world.says = {"dc2.ntm.example": Outcome.UNKNOWN}
        self.world.upload(self.client, self.item)
        found = self.ask(self.client, "GET", "/status").document(DeliveryStatusResponse)
        self.assertEqual(
            [(each.destination, each.state) for each in found.statuses],
            [(BOB, "waiting"), (CAROL, "not told")],
        )

    def test_expired(self) -> None:
        """After its end nobody finds an object."""
        self.world.upload(self.client, self.item)
        self.world.clock.advance(86401)
        for fqdn in (ALICE, BOB):
            self.assertEqual(self.ask(self.world.client(fqdn), "GET").status, 404)

    def test_announced_late(self) -> None:
        """What is over already is not taken."""
        item = self.until(-1)
        announcement = self.world.announcement(self.client, item)
        answer = self.world.ask(self.client, "POST", "/v1/objects", announcement)
        self.assertEqual(answer.status, 410)
