"""What every storage of a cache server does: tests that run against each of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import (
    AlreadyExists,
    MalformedMessage,
    NoSuchItem,
    StorageFailed,
)
from ntmobile.interfaces import (
    ICacheStorage,
    IIncomingPart,
    Quotas,
    Standing,
    StoredKey,
    StoredObject,
    StoredPart,
    Usage,
)

ALICE = "phone.alice.dc1.ntm.example"
TABLET = "tablet.alice.dc1.ntm.example"
BOB = "laptop.bob.dc2.ntm.example"
CAROL = "laptop.carol.dc2.ntm.example"
#: What is asked happens at this time, and nothing expires within the next day.
NOW = 1_790_000_000.0
DAY = 86400.0


def key(identifier: bytes = b"k" * 32, destination: str = BOB, **changed: Any) -> StoredKey:
    """A sealed key of Alice's phone."""
    made = StoredKey(destination, identifier, ALICE, "mail", NOW + DAY, b"sealed" * 10)
    return evolve(made, **changed)


def announced(identifier: bytes = b"o" * 16, **changed: Any) -> StoredObject:
    """An object of Alice's phone, of two parts and a half, for Bob and Carol."""
    made = StoredObject(
        identifier, ALICE, "mail", (CAROL, BOB), 2500, 1000, NOW + DAY, b"manifest" * 10
    )
    return evolve(made, **changed)


def part(number: int, size: int = 1000) -> tuple[bytes, bytes]:
    """The data of a part, and its digest."""
    data = (bytes([number + 1]) * 97 + b"\0'\\\xff%s")[:100] * (size // 100 + 1)
    return data[:size], hashlib.sha256(data[:size]).digest()


def _sized(data: tuple[bytes, bytes]) -> tuple[int, bytes]:
    """Size and digest of a part."""
    return len(data[0]), data[1]


class StorageCases(TestCase, ABC):
    """What the tests use. Who inherits them makes the storage."""

    timeout = 60

    @abstractmethod
    def make(self, quotas: Quotas, capacity: int) -> Any:
        """A storage that is not opened yet; each time on the same records."""

    async def opened(self, quotas: Quotas | None = None, capacity: int = 1 << 20) -> Any:
        """A storage that is open until the test ends."""
        made = self.make(quotas or Quotas(), capacity)
        await made.open()
        self.addCleanup(made.close)
        return made

    async def refused(self, kind: type[Exception], asked: Deferred[Any]) -> str:
        """See that what was asked fails; gives the line."""
        try:
            found = await asked
        except kind as problem:
            assert "\n" not in str(problem)
            return str(problem)
        raise AssertionError(f"not refused: {found}")

    async def filled(self, storage: Any, each: StoredObject, numbers: Any = None) -> bool:
        """Announce an object and send its parts; tells whether it is complete."""
        await storage.add_object(each, NOW)
        complete = False
        for number in range(each.parts) if numbers is None else numbers:
            data, digest = part(number, each.size_of(number))
            complete = await storage.put_part(each.identifier, number, data, digest, NOW)
        return complete


class KeyCases(StorageCases):
    """Sealed keys."""

    async def test_interface(self) -> None:
        """It is what the interface says."""
        verifyObject(ICacheStorage, await self.opened())

    async def test_key(self) -> None:
        """A key is there for its destination, and for nobody else."""
        storage = await self.opened()
        await storage.add_keys([key(), key(destination=CAROL, document=b"other")], NOW)
        self.assertEqual(await storage.key(b"k" * 32, BOB, NOW), key())
        self.assertIsNone(await storage.key(b"k" * 32, ALICE, NOW))
        self.assertIsNone(await storage.key(b"K" * 32, BOB, NOW))

    async def test_key_expires(self) -> None:
        """After its time a key is not given, and then it is removed."""
        storage = await self.opened()
        await storage.add_keys([key()], NOW)
        self.assertIsNone(await storage.key(b"k" * 32, BOB, NOW + DAY))
        self.assertEqual(await storage.exchanges(NOW + DAY, 10), [])
        self.assertEqual(await storage.expire(NOW + DAY, 10 * DAY), 1)
        self.assertEqual(await storage.usage(), Usage(0, 0))
        self.assertIsNone(await storage.next_exchange())

    async def test_key_of_another_sender(self) -> None:
        """Nobody can put a key in the place of another's; nor then anything beside it."""
        storage = await self.opened()
        await storage.add_keys([key()], NOW)
        other = [key(b"n" * 32, sender=TABLET), key(sender=TABLET, document=b"mine")]
        await self.refused(AlreadyExists, storage.add_keys(other, NOW))
        self.assertEqual(await storage.key(b"k" * 32, BOB, NOW), key())
        self.assertIsNone(await storage.key(b"n" * 32, BOB, NOW))

    async def test_key_again(self) -> None:
        """The same key again changes nothing; another document takes its place and is told."""
        storage = await self.opened()
        await storage.add_keys([key()], NOW)
        await storage.told("key", b"k" * 32, [BOB], NOW)
        await storage.add_keys([key()], NOW)
        self.assertEqual(await storage.exchanges(NOW, 10), [])
        await storage.add_keys([key(document=b"newer")], NOW)
        self.assertEqual([one.document for one in await storage.exchanges(NOW, 10)], [b"newer"])
        self.assertEqual(await storage.usage(), Usage(5, 1))

    async def test_strange_names(self) -> None:
        """Identifiers are bytes, whatever bytes these are, and names are compared exactly."""
        storage = await self.opened()
        for number, identifier in enumerate((b"\0" * 32, b"../" * 10 + b"..", b"\xff\n'\"%\\" * 5)):
            document = b"%s \0\xff'\\" + bytes([number])
            one = key(identifier, application="../etc", document=document)
            await storage.add_keys([one], NOW)
            self.assertEqual(await storage.key(identifier, BOB, NOW), one)
        self.assertIsNone(await storage.key(b"\0" * 31, BOB, NOW))
        self.assertIsNone(await storage.key(b"\0" * 32, BOB.upper(), NOW))


class ObjectCases(StorageCases):
    """Objects and their parts."""

    async def test_object(self) -> None:
        """An object is announced, its parts come in any order, and are read in pieces."""
        storage = await self.opened()
        each = announced()
        standing = await storage.add_object(each, NOW)
        self.assertEqual(standing, Standing(False, False, (0, 1, 2)))
        for number, complete in ((2, False), (0, False), (1, True)):
            data, digest = part(number, each.size_of(number))
            found = await storage.put_part(each.identifier, number, data, digest, NOW)
            self.assertEqual(found, complete)
        self.assertEqual(await storage.find(each.identifier, NOW), each)
        self.assertEqual(await storage.standing(each.identifier, NOW), Standing(True, False))
        data, digest = part(2, 500)
        self.assertEqual(await storage.part(each.identifier, 2, NOW), StoredPart(500, digest))
        for start, length in ((0, 500), (0, 9999), (499, 1), (100, 200), (500, 1), (600, 1)):
            read = await storage.read_part(each.identifier, 2, start, length, NOW)
            self.assertEqual(read, data[start : start + length])

    async def test_large_part(self) -> None:
        """A part of the usual size: 64 chunks of 64 KiB with their tags (R30)."""
        storage = await self.opened(capacity=1 << 30)
        size = 64 * (65536 + 16)
        each = announced(length=size + 1, part_size=size)
        self.assertTrue(await self.filled(storage, each))
        data, _ = part(0, size)
        for start, length in ((0, size), (262143, 2), (size - 10, 100), (300_000, 1_000_000)):
            read = await storage.read_part(each.identifier, 0, start, length, NOW)
            self.assertEqual(read, data[start : start + length])

    async def begun(self, storage: Any, number: int = 0) -> Any:
        """A part of the announced object that comes in two pieces; both are here."""
        each = announced()
        await storage.add_object(each, NOW)
        data, digest = part(number)
        coming = await storage.begin_part(each.identifier, number, len(data), digest, NOW)
        verifyObject(IIncomingPart, coming)
        await coming.write(data[:300])
        await coming.write(data[300:])
        return coming

    async def test_part_in_pieces(self) -> None:
        """A part that comes in pieces is there when it is kept, and not before."""
        storage = await self.opened()
        coming = await self.begun(storage)
        self.assertIsNone(await storage.part(b"o" * 16, 0, NOW))
        self.assertFalse(await coming.keep(NOW))
        await coming.drop()
        self.assertEqual(await storage.read_part(b"o" * 16, 0, 0, 1000, NOW), part(0)[0])
        again = await self.begun(storage)
        self.assertFalse(await again.keep(NOW))
        await self.filled(storage, announced(), [1])
        data, digest = part(2, 500)
        last = await storage.begin_part(b"o" * 16, 2, 500, digest, NOW)
        await last.write(data)
        self.assertTrue(await last.keep(NOW))

    async def test_part_dropped(self) -> None:
        """Of a part that is dropped nothing is left; it can come again."""
        storage = await self.opened()
        coming = await self.begun(storage)
        await coming.drop()
        await coming.drop()
        self.assertIsNone(await storage.part(b"o" * 16, 0, NOW))
        coming = await self.begun(storage)
        self.assertFalse(await coming.keep(NOW))

    async def test_object_removed_meanwhile(self) -> None:
        """A part whose object goes while it comes is not kept."""
        storage = await self.opened()
        coming = await self.begun(storage)
        await storage.remove(b"o" * 16)
        await self.refused(NoSuchItem, coming.keep(NOW))
        await self.refused(NoSuchItem, storage.begin_part(b"o" * 16, 0, *_sized(part(0)), NOW))

    async def test_wrong_begin(self) -> None:
        """A part that would be refused is refused before it comes."""
        storage = await self.opened()
        await self.filled(storage, announced(), [0])
        for kind, number, size, digest in (
            (AlreadyExists, 0, 1000, part(1)[1]),
            (MalformedMessage, 1, 999, part(1)[1]),
            (MalformedMessage, 3, 1000, part(1)[1]),
        ):
            asked = storage.begin_part(b"o" * 16, number, size, digest, NOW)
            await self.refused(kind, asked)

    async def test_resumed(self) -> None:
        """R30: what came stays; the same part again is fine, and one with other data refused."""
        storage = await self.opened()
        each = announced()
        await self.filled(storage, each, [1])
        standing = await storage.add_object(each, NOW)
        self.assertEqual(standing, Standing(False, False, (0, 2)))
        self.assertEqual((await storage.standing(each.identifier, NOW, 1)).missing, (0,))
        data, digest = part(1)
        self.assertFalse(await storage.put_part(each.identifier, 1, data, digest, NOW))
        other = part(0)
        await self.refused(AlreadyExists, storage.put_part(each.identifier, 1, *other, NOW))
        self.assertEqual(await storage.read_part(each.identifier, 1, 0, 1000, NOW), data)

    async def test_parts_at_once(self) -> None:
        """R30: of two parts of one number that come at once one stays, whole, and is told."""
        storage = await self.opened()
        each = announced(destinations=(BOB,), length=1000)
        await storage.add_object(each, NOW)
        rivals = [part(0), part(1), part(0), part(2)]
        results = await DeferredList(
            [storage.put_part(each.identifier, 0, *rival, NOW) for rival in rivals],
            consumeErrors=True,
        )
        stored = await storage.part(each.identifier, 0, NOW)
        self.assertEqual(
            [good for good, _ in results], [digest == stored.digest for _, digest in rivals]
        )
        read = await storage.read_part(each.identifier, 0, 0, 1000, NOW)
        self.assertEqual(hashlib.sha256(read).digest(), stored.digest)
        self.assertEqual(len(await storage.exchanges(NOW, 10)), 1)

    async def test_wrong_part(self) -> None:
        """A number that there is not, or a size that it has not, is refused."""
        storage = await self.opened()
        each = announced()
        await storage.add_object(each, NOW)
        for number, size in ((3, 1000), (-1, 1000), (0, 999), (0, 1001), (2, 1000), (0, 0)):
            data, digest = part(0, size)
            asked = storage.put_part(each.identifier, number, data, digest, NOW)
            await self.refused(MalformedMessage, asked)
        twice = announced(b"t" * 16, destinations=(BOB, BOB))
        await self.refused(MalformedMessage, storage.add_object(twice, NOW))

    async def test_missing(self) -> None:
        """What is not there is said to be so."""
        storage = await self.opened()
        each = announced()
        nothing = each.identifier
        self.assertIsNone(await storage.find(nothing, NOW))
        self.assertIsNone(await storage.part(nothing, 0, NOW))
        self.assertFalse(await storage.remove(nothing))
        await self.refused(NoSuchItem, storage.standing(nothing, NOW))
        await self.refused(NoSuchItem, storage.deliveries(nothing, NOW))
        await self.refused(NoSuchItem, storage.put_part(nothing, 0, *part(0), NOW))
        await self.refused(NoSuchItem, storage.read_part(nothing, 0, 0, 1, NOW))
        await storage.add_object(each, NOW)
        await self.refused(NoSuchItem, storage.read_part(nothing, 0, 0, 1, NOW))

    async def test_another_object(self) -> None:
        """An identifier that is taken stays with its object."""
        storage = await self.opened()
        await storage.add_object(announced(), NOW)
        for change in ({"document": b"x"}, {"sender": TABLET}, {"length": 1}):
            asked = storage.add_object(announced(**change), NOW)
            await self.refused(AlreadyExists, asked)
        self.assertEqual(await storage.find(b"o" * 16, NOW), announced())

    async def test_empty(self) -> None:
        """An object without parts is complete when it is announced."""
        storage = await self.opened()
        standing = await storage.add_object(announced(length=0), NOW)
        self.assertEqual(standing, Standing(True, False))
        self.assertEqual(len(await storage.exchanges(NOW, 10)), 2)

    async def test_removed(self) -> None:
        """A withdrawn object is gone with all that belongs to it, and may come again."""
        storage = await self.opened()
        await self.filled(storage, announced())
        self.assertTrue(await storage.remove(b"o" * 16))
        self.assertEqual(await storage.usage(), Usage(0, 0))
        self.assertEqual(await storage.exchanges(NOW, 10), [])
        await self.refused(NoSuchItem, storage.read_part(b"o" * 16, 0, 0, 1, NOW))
        self.assertEqual((await storage.add_object(announced(), NOW)).missing, (0, 1, 2))
        self.assertTrue(await self.filled(storage, announced()))


class DurableCases(StorageCases):
    """What outlives the storage that is open."""

    async def test_kept(self) -> None:
        """What was there when it was closed is there when it is opened again."""
        storage = await self.opened()
        await storage.add_keys([key()], NOW)
        await self.filled(storage, announced(), [2])
        await storage.close()
        await self.refused(StorageFailed, storage.usage())
        storage = await self.opened()
        self.assertEqual(await storage.key(b"k" * 32, BOB, NOW), key())
        self.assertEqual((await storage.standing(b"o" * 16, NOW)).missing, (0, 1))
        self.assertEqual(await storage.read_part(b"o" * 16, 2, 0, 9, NOW), part(2)[0][:9])
        size = len(key().document) + 2500 + len(announced().document)
        self.assertEqual(await storage.usage(user="alice.dc1.ntm.example"), Usage(size, 2))
