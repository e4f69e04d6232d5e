"""Parts that are hashed and written while they come: only what is right is kept."""

from __future__ import annotations

from typing import Any

from ntmobile.machines.exchange.objects import ChunkHasher, ObjectHeader
from ntmobile.protocols.caching import incoming
from ntmobile.wire.messages.exchange import EncryptedDataUploadResponse
from tests.caching import read_manifest
from tests.http_bytes import Transport, answers
from tests.test_caching_objects import ObjectCase

PLAIN = bytes(range(256)) * 20000  # two parts


class IncomingTests(ObjectCase):
    """Alice's device uploads long parts."""

    plain = PLAIN

    def setUp(self) -> None:
        super().setUp()
        announcement = self.world.announcement(self.client, self.item)
        self.world.ask(self.client, "POST", "/v1/objects", announcement)
        self.part = self.item.parts[0]
        self.looked = 0
        begin = self.world.storage.begin_part

        def counted(*asked: Any) -> Any:
            self.looked += 1
            return begin(*asked)

        self.patch(self.world.storage, "begin_part", counted)

    def begin(self, data: bytes) -> tuple[Any, Transport]:
        """Send the head of a request for the first part, and the beginning of its body."""
        request, _ = self.world.signed(self.client, "PUT", f"{self.path}/parts/0", self.part)
        return self.world.begin(request, data)

    def status(self, transport: Transport) -> int:
        """What was answered."""
        ((status, _, _),) = answers(transport.value())
        return status

    def missing(self) -> tuple[int, ...]:
        """The parts that are missing."""
        announcement = self.world.announcement(self.client, self.item)
        answer = self.world.ask(self.client, "POST", "/v1/objects", announcement)
        return answer.document(EncryptedDataUploadResponse).missing

    def test_pieces(self) -> None:
        """A part that comes in pieces of any size is kept as it was sent."""
        connection, transport = self.begin(self.part[:100])
        for begin in range(100, len(self.part), 99_991):
            connection.dataReceived(self.part[begin : begin + 99_991])
        self.assertEqual(self.status(transport), 204)
        self.assertEqual(self.missing(), (1,))
        self.assertEqual(self.ask(self.client, "PUT", "/parts/1", self.item.parts[1]).status, 204)
        self.assertEqual(self.ask(self.client, "POST", "/complete").status, 200)
        self.assertEqual(self.ask(self.client, "GET", "/parts/0").body, self.part)

    def test_other_content(self) -> None:
        """R28: what is not its digest's is refused, and nothing of it is kept."""
        connection, transport = self.begin(self.part[:-1])
        connection.dataReceived(b"?")
        self.assertEqual(self.status(transport), 422)
        self.assertEqual((self.missing(), self.world.storage.blobs.blobs), ((0, 1), {}))
        self.assertEqual(self.world.storage._writers, set())

    def test_cut(self) -> None:
        """Of a part whose connection ends nothing is kept; it can come again."""
        for length in (1, incoming.SLAB, len(self.part) - 1):
            connection, _ = self.begin(self.part[:length])
            connection.connectionLost()
            self.assertEqual((self.missing(), self.world.storage.blobs.blobs), ((0, 1), {}))
            self.assertEqual(self.world.storage._writers, set())
        self.assertEqual(self.ask(self.client, "PUT", "/parts/0", self.part).status, 204)

    def test_begun_late(self) -> None:
        """Nothing is begun for who has sent little; so it costs no open file."""
        connection, _ = self.begin(self.part[: incoming.SLAB - 1])
        self.assertEqual(self.looked, 0)
        connection.dataReceived(b"x")
        self.assertEqual(self.looked, 1)
        connection.connectionLost()

    def test_not_the_sender(self) -> None:
        """R28: who did not announce an object writes nothing of it."""
        bob = self.world.client(self.bob.fqdn)
        answer = self.ask(bob, "PUT", "/parts/0", self.part)
        self.assertEqual(answer.status, 404)
        self.assertEqual((self.world.storage._writers, self.missing()), (set(), (0, 1)))

    def test_wrong_number(self) -> None:
        """A part that there is not, or of another length, is refused with the reason."""
        answer = self.ask(self.client, "PUT", "/parts/2", self.part)
        self.assertEqual(answer.status, 404)
        self.assertEqual((self.world.storage._writers, self.missing()), (set(), (0, 1)))
        answer = self.ask(self.client, "PUT", "/parts/1", self.part)
        self.assertEqual(answer.status, 400)
        self.assertEqual((self.world.storage._writers, self.missing()), (set(), (0, 1)))

    def test_removed_meanwhile(self) -> None:
        """A part whose object is withdrawn while it comes is not there afterwards."""
        connection, transport = self.begin(self.part[:-1])
        self.ask(self.client, "DELETE")
        connection.dataReceived(self.part[-1:])
        self.assertEqual(self.status(transport), 404)
        self.assertEqual(self.world.storage.blobs.blobs, {})

    def test_sent_anew(self) -> None:
        """R29: an object that was right, withdrawn, and sent anew with other parts is wrong."""
        for number, part in enumerate(self.item.parts):
            self.ask(self.client, "PUT", f"/parts/{number}", part)
        self.assertEqual(self.ask(self.client, "POST", "/complete").status, 200)
        self.ask(self.client, "DELETE")
        self.missing()
        for number, part in enumerate(self.item.parts):
            self.ask(self.client, "PUT", f"/parts/{number}", part[::-1])
        self.assertEqual(self.ask(self.client, "POST", "/complete").status, 422)

    def test_hashes(self) -> None:
        """R30: the chunk hashes of a part are the same, however it is cut."""
        header = ObjectHeader.parse(read_manifest(self.item).header)
        for number, part in enumerate(self.item.parts):
            for size in (65536, 65552, 1 << 20, 7_000_001):
                hasher = ChunkHasher()
                for begin in range(0, len(part), size):
                    hasher.update(part[begin : begin + size])
                self.assertEqual(hasher.hashes(), header.chunk_hashes(number, part))
