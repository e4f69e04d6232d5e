"""Objects of several parts at a cache server: resumed, judged, read by many."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ntmobile.machines.exchange.objects import SEALED_PART
from ntmobile.protocols.caching.downloads import PIECE
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.exchange import EncryptedDataUploadResponse
from tests.caching import ALICE, BOB, an_item, read_manifest
from tests.test_caching_objects import ObjectCase


class PartTests(ObjectCase):
    """An object of several parts."""

    plain = bytes(SEALED_PART + 100_000)

    def test_resumed(self) -> None:
        """Only what is missing is sent again; a part is read in pieces."""
        announcement = self.world.announcement(self.client, self.item)
        self.ask(self.client, "PUT", "/parts/0", self.item.parts[0])
        self.world.ask(self.client, "POST", "/v1/objects", announcement)
        self.ask(self.client, "PUT", "/parts/1", self.item.parts[1])
        answer = self.world.ask(self.client, "POST", "/v1/objects", announcement)
        self.assertEqual(answer.document(EncryptedDataUploadResponse).missing, (0,))
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0", self.item.parts[0]).status, 204)
        self.assertEqual(self.ask(self.client, "POST", "/complete").status, 200)
        client = self.world.client(BOB)
        parts = [self.ask(client, "GET", f"/parts/{number}").body for number in (0, 1)]
        self.assertEqual(parts, self.item.parts)

    def test_many_slow_readers(self) -> None:
        """However many read slowly, together they have little in memory."""
        self.world.upload(self.client, self.item)
        bob = self.world.client(BOB)
        taken: list[int] = []
        read = self.world.storage.read_part

        def noted(identifier: bytes, number: int, start: int, length: int, at: float) -> object:
            taken.append(length)
            connections[-1].pauseProducing()
            return read(identifier, number, start, length, at)

        self.patch(self.world.storage, "read_part", noted)
        connections: list[Any] = []
        build = self.world.api.buildProtocol

        def built(address: object) -> object:
            connections.append(build(address))
            return connections[-1]

        self.patch(self.world.api, "buildProtocol", built)
        for _ in range(250):
            self.world.begin(self.world.signed(bob, "GET", f"{self.path}/parts/0")[0])
        self.assertEqual(len(taken), 2 * 250)  # what goes out, and what comes next
        self.assertLess(sum(taken), 16 << 20)
        for each in connections:
            each.connectionLost()
        connections.clear()
        taken.clear()
        self.world.begin(self.world.signed(bob, "GET", f"{self.path}/parts/0")[0])
        self.assertEqual(taken, [PIECE, PIECE])

    def test_resumed_next_day(self) -> None:
        """R3: an upload goes on although the certificate that announced it has ended since."""
        self.item = self.until(3 * 86400)
        announcement = self.world.announcement(self.client, self.item)
        self.world.ask(self.client, "POST", "/v1/objects", announcement)
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0", self.item.parts[0]).status, 204)
        ended = DeviceCertificate.parse(self.alice.signer.certificate).not_after + 1
        self.world.clock.advance(ended - self.world.unix_time())
        self.assertLess(self.world.unix_time(), read_manifest(self.item).expires)
        self.client = self.world.client(ALICE)
        answer = self.world.ask(self.client, "POST", "/v1/objects", announcement)
        self.assertEqual(answer.document(EncryptedDataUploadResponse).missing, (1,))
        self.assertEqual(self.ask(self.client, "PUT", "/parts/1", self.item.parts[1]).status, 204)
        self.assertEqual(self.ask(self.client, "POST", "/complete").status, 200)
        # Nothing else is announced with it.
        other = an_item(self.alice, plain=b"x")
        answer = self.world.ask(
            self.client, "POST", "/v1/objects", self.world.announcement(self.client, other)
        )
        self.assertEqual(answer.status, 401)

    def test_judged_once(self) -> None:
        """Who completes again while a long object is judged waits for that, and for no other."""
        self.world.upload(self.client, self.item, complete=False)
        self.world.restart()  # it knows no hashes any more
        client = self.world.client(ALICE)
        read, waiting = self.world.storage.read_part, Deferred[None]()
        reads: list[int] = []

        async def slow(identifier: bytes, number: int, *rest: Any) -> bytes:
            reads.append(number)
            await waiting
            return await read(identifier, number, *rest)

        self.patch(self.world.storage, "read_part", slow)
        path = f"{self.path}/complete"
        asked = [self.world.begin(self.world.signed(client, "POST", path)[0]) for _ in range(3)]
        self.assertEqual(reads, [0])
        waiting.callback(None)
        self.assertEqual(reads, [0, 1])
        for connection, transport in asked:
            self.assertIn(b"200 OK", transport.value())
            connection.connectionLost()

    def test_slow_reader(self) -> None:
        """A client that reads nothing of its answer is cut off, and held no part in memory."""
        self.world.upload(self.client, self.item)
        request, _ = self.world.signed(self.world.client(BOB), "GET", f"{self.path}/parts/0")
        reads: list[int] = []
        read = self.world.storage.read_part

        def noted(identifier: bytes, number: int, start: int, length: int, at: float) -> object:
            reads.append(length)
            if len(reads) == 2:
                connection.pauseProducing()
            return read(identifier, number, start, length, at)

        self.patch(self.world.storage, "read_part", noted)
        connection = self.world.api.buildProtocol(None)
        self.patch(self.world.api, "buildProtocol", lambda _: connection)
        _, transport = self.world.begin(request)
        self.assertEqual(len(reads), 2)
        self.world.clock.advance(59)
        self.assertFalse(transport.aborted)
        self.world.clock.advance(1)
        self.assertTrue(transport.aborted)
        connection.connectionLost()
        self.assertLess(max(reads), SEALED_PART // 8)
