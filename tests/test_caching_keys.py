"""Shared keys at a cache server (figure 3; R28, R29)."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.interfaces import Quotas
from ntmobile.machines.exchange.shared_keys import Recipient, exchange_key
from ntmobile.wire.messages.exchange import (
    EncryptionKeyDownloadResponse,
    EncryptionKeyExchangeRequest,
    EncryptionKeyUploadRequest,
    EncryptionKeyUploadResponse,
)
from ntmobile.wire.messages.realtime import Outcome
from tests.caching import ALICE, BOB, CAROL, SERVER, World
from tests.stored_data import APPLICATION, NOW, Device, share


class KeyTests(SynchronousTestCase):
    """Alice shares a key with Bob and Carol."""

    def setUp(self) -> None:
        self.world = World()
        self.alice, self.bob, self.carol = map(Device.create, (ALICE, BOB, CAROL))
        self.client = self.world.client(ALICE)
        self.sealed = share(self.alice, [self.bob, self.carol]).sealed
        info = msgspec.structs.replace(
            self.client.info, destinations=(BOB, CAROL), application=APPLICATION, message="hi"
        )
        self.request = EncryptionKeyUploadRequest(info, self.sealed)
        self.path = f"/v1/keys/{self.sealed[0].identifier.hex()}"

    def upload(self, request: EncryptionKeyUploadRequest) -> tuple[int, str]:
        """Status, and what is said for each destination or of the problem."""
        answer = self.world.ask(self.client, "POST", "/v1/keys", request)
        if answer.status != 200:
            return answer.status, answer.detail
        results = answer.document(EncryptionKeyUploadResponse).results
        return 200, " ".join(f"{Outcome(each.outcome).name}" for each in results)

    def test_shared(self) -> None:
        """Each destination gets what was sealed for it, after its coordinator was told."""
        self.assertEqual(self.upload(self.request), (200, "OK OK"))
        for fqdn, sealed in zip((BOB, CAROL), self.sealed, strict=True):
            answer = self.world.ask(self.world.client(fqdn), "GET", self.path)
            self.assertEqual(answer.document(EncryptionKeyDownloadResponse).key, sealed)

    def test_exchange_requests(self) -> None:
        """The coordinator of each destination is told of it, with what was said (figure 3)."""
        self.upload(self.request)
        asked = dict(self.world.asked)
        self.assertEqual(set(asked), {"dc1.ntm.example", "dc2.ntm.example"})
        request = asked["dc2.ntm.example"]
        self.assertIsInstance(request, EncryptionKeyExchangeRequest)
        self.assertEqual(request.cache, SERVER)
        self.assertEqual(request.info.destinations, (CAROL,))
        self.assertEqual((request.info.fqdn, request.info.message), (ALICE, "hi"))
        self.assertEqual(request.identifier, self.sealed[0].identifier)
        self.assertEqual(request.certificate, self.alice.signer.certificate)

    def test_others(self) -> None:
        """R28: nobody else gets a key, whoever asks; the sender neither."""
        self.upload(self.request)
        stranger, _ = self.world.stranger()
        for client in (self.client, self.world.client("pad.mallory.dc1.ntm.example"), stranger):
            answer = self.world.ask(client, "GET", self.path)
            self.assertEqual(answer.status, 404)

    def test_stranger(self) -> None:
        """R28: a receiver of another realm gets what is for it."""
        stranger, _ = self.world.stranger()
        # Sealed for another key, which a server cannot see.
        there = Recipient(stranger.fqdn, self.bob.as_recipient().prekey)
        [sealed] = exchange_key(self.alice.signer, APPLICATION, [there], NOW).sealed
        self.path = f"/v1/keys/{sealed.identifier.hex()}"
        info = msgspec.structs.replace(self.request.info, destinations=(stranger.fqdn,))
        status, _ = self.upload(EncryptionKeyUploadRequest(info, (sealed,)))
        self.assertEqual(status, 200)
        answer = self.world.ask(stranger, "GET", self.path)
        self.assertEqual(answer.document(EncryptionKeyDownloadResponse).key, sealed)

    def test_forged(self) -> None:
        """R29: what the sender has not signed is not kept."""
        first, second = self.sealed
        mallory = Device.create("pad.mallory.dc1.ntm.example")
        other = share(mallory, [self.bob, self.carol]).sealed
        changes = [
            (msgspec.structs.replace(first, signature=bytes(64)), second),
            (msgspec.structs.replace(first, prekey=9), second),
            (msgspec.structs.replace(first, expires=first.expires - 1), second),
            (msgspec.structs.replace(first, sender=mallory.fqdn), second),
            (msgspec.structs.replace(first, certificate=mallory.signer.certificate), second),
            (msgspec.structs.replace(first, certificate=bytes(100)), second),
            (first, other[1]),
            other,
        ]
        for keys in changes:
            status, text = self.upload(msgspec.structs.replace(self.request, keys=keys))
            self.assertIn(status, (400, 401, 403), text)
        self.assertEqual(self.world.asked, [])

    def test_contradictions(self) -> None:
        """A request that says something else than its keys is malformed."""
        info, keys = self.request.info, self.sealed
        for wrong in (
            msgspec.structs.replace(self.request, info=self.client.info),
            EncryptionKeyUploadRequest(msgspec.structs.replace(info, application="x"), keys),
            EncryptionKeyUploadRequest(msgspec.structs.replace(info, destinations=(BOB,)), keys),
            EncryptionKeyUploadRequest(info, (keys[0], keys[0])),
            EncryptionKeyUploadRequest(info, (keys[0], share(self.alice, [self.carol]).sealed[0])),
        ):
            self.assertEqual(self.upload(wrong)[0], 400, wrong)
        other = EncryptionKeyUploadRequest(msgspec.structs.replace(info, fqdn=BOB), keys)
        self.assertEqual(self.upload(other)[0], 403)

    def test_expired(self) -> None:
        """A key whose time is over is not kept, nor one that asks for too long."""
        late = share(self.alice, [self.bob, self.carol], NOW - 31 * 86400).sealed
        self.assertEqual(self.upload(msgspec.structs.replace(self.request, keys=late))[0], 410)

    def test_gone(self) -> None:
        """After its end a key is not given any more."""
        self.upload(self.request)
        self.world.clock.advance(30 * 86400 + 1)
        client = self.world.client(BOB)
        self.assertEqual(self.world.ask(client, "GET", self.path).status, 404)

    def test_again(self) -> None:
        """Uploading again what is there changes nothing."""
        self.upload(self.request)
        self.assertEqual(self.upload(self.request), (200, "OK OK"))

    def test_quota(self) -> None:
        """A user with too many items is told so, and nothing is kept."""
        self.world = World(quotas=Quotas(items=1))
        self.client = self.world.client(ALICE)
        status, text = self.upload(self.request)
        self.assertEqual(status, 507, text)
        self.assertEqual(self.world.asked, [])

    def test_outcomes(self) -> None:
        """The sender is told what each coordinator said."""
        self.world.says = {"dc2.ntm.example": Outcome.UNKNOWN}
        self.assertEqual(self.upload(self.request), (200, "OK UNKNOWN"))
