"""What every storage of a cache server does about deliveries, quotas and room."""

from __future__ import annotations

from twisted.internet.defer import DeferredList

from ntmobile.errors import NoSuchItem, QuotaExceeded, StorageFull
from ntmobile.interfaces import Quotas, Standing, StoredDelivery, Usage
from tests.cache_storage_cases import (
    ALICE,
    BOB,
    CAROL,
    DAY,
    NOW,
    TABLET,
    StorageCases,
    announced,
    key,
    part,
)


class DeliveryCases(StorageCases):
    """Who is told, and who has confirmed."""

    async def test_exchanges(self) -> None:
        """Coordinators are to be told of a key at once, and of an object when it is complete."""
        storage = await self.opened()
        self.assertIsNone(await storage.next_exchange())
        await storage.add_keys([key()], NOW - 1)
        await self.filled(storage, announced(), [0, 1])
        waiting = await storage.exchanges(NOW, 10)
        self.assertEqual([(one.kind, one.destination) for one in waiting], [("key", BOB)])
        await self.filled(storage, announced(), [2])
        waiting = await storage.exchanges(NOW, 10)
        self.assertEqual([one.kind for one in waiting], ["key", "data", "data"])
        self.assertEqual({one.destination for one in waiting[1:]}, {BOB, CAROL})
        self.assertEqual(waiting[0].document, key().document)
        self.assertEqual(waiting[1].document, announced().document)
        self.assertEqual(await storage.exchanges(NOW, 1), waiting[:1])
        self.assertEqual(await storage.next_exchange(), NOW - 1)

    async def test_told(self) -> None:
        """What was told waits; what was not is told later, and says why."""
        storage = await self.opened()
        await self.filled(storage, announced())
        await storage.told("data", b"o" * 16, [CAROL], NOW + 1)
        await storage.postpone("data", b"o" * 16, [BOB], "no answer", NOW + 60, NOW + 2)
        self.assertEqual(await storage.exchanges(NOW + 59, 10), [])
        self.assertEqual(await storage.next_exchange(), NOW + 60)
        (again,) = await storage.exchanges(NOW + 60, 10)
        self.assertEqual((again.destination, again.attempts), (BOB, 1))
        self.assertEqual(
            await storage.deliveries(b"o" * 16, NOW),
            [
                StoredDelivery(CAROL, "waiting", "", NOW + 1),
                StoredDelivery(BOB, "not told", "no answer", NOW + 2),
            ],
        )
        await storage.told("data", b"o" * 16, [BOB], NOW + 61)
        self.assertIsNone(await storage.next_exchange())

    async def test_never(self) -> None:
        """What will never be told says why, and is not tried again."""
        storage = await self.opened()
        await self.filled(storage, announced(destinations=(BOB,)))
        await storage.postpone("data", b"o" * 16, [BOB], "no such device ‼", None, NOW)
        self.assertIsNone(await storage.next_exchange())
        (bob,) = await storage.deliveries(b"o" * 16, NOW)
        self.assertEqual(bob, StoredDelivery(BOB, "not told", "no such device ‼", NOW))

    async def test_confirmed(self) -> None:
        """The parts go with the last confirmation; what was confirmed can be asked until then."""
        storage = await self.opened()
        await self.filled(storage, announced())
        first = await storage.confirm(b"o" * 16, BOB, b"\xffsigned", NOW + 1)
        self.assertEqual(first, Standing(True, False))
        again = await storage.confirm(b"o" * 16, BOB, b"another", NOW + 2)
        self.assertEqual(again, Standing(True, False))
        await storage.told("data", b"o" * 16, [BOB], NOW + 3)
        self.assertEqual([one.destination for one in await storage.exchanges(NOW, 9)], [CAROL])
        last = await storage.confirm(b"o" * 16, CAROL, b"carol", NOW + 4)
        self.assertEqual(last, Standing(True, True))
        await self.refused(NoSuchItem, storage.read_part(b"o" * 16, 0, 0, 1, NOW))
        await self.refused(NoSuchItem, storage.put_part(b"o" * 16, 0, *part(0), NOW))
        self.assertEqual(await storage.standing(b"o" * 16, NOW), Standing(True, True))
        self.assertEqual(
            await storage.deliveries(b"o" * 16, NOW),
            [
                StoredDelivery(CAROL, "confirmed", "", NOW + 4, b"carol"),
                StoredDelivery(BOB, "confirmed", "", NOW + 1, b"\xffsigned"),
            ],
        )
        self.assertIsNone(await storage.next_exchange())
        self.assertEqual(await storage.usage(), Usage(len(announced().document), 1))
        self.assertEqual(await storage.confirm(b"o" * 16, CAROL, b"late", NOW), last)

    async def test_confirmed_by_others(self) -> None:
        """Nobody confirms what is not complete or not for him."""
        storage = await self.opened()
        await self.filled(storage, announced(), [0])
        await self.refused(NoSuchItem, storage.confirm(b"o" * 16, BOB, b"early", NOW))
        await self.filled(storage, announced())
        await self.refused(NoSuchItem, storage.confirm(b"o" * 16, ALICE, b"not mine", NOW))
        await self.refused(NoSuchItem, storage.confirm(b"p" * 16, BOB, b"what?", NOW))

    async def test_expires(self) -> None:
        """An object goes at its time, confirmed or not, and an upload that stopped before."""
        storage = await self.opened()
        await self.filled(storage, announced())
        await self.filled(storage, announced(b"p" * 16), [0])
        await storage.add_keys([key(expires=NOW + 9 * DAY)], NOW)
        self.assertEqual(await storage.expire(NOW + 3599, 3600), 0)
        self.assertEqual(await storage.expire(NOW + 3600, 3600), 1)
        self.assertIsNone(await storage.find(b"p" * 16, NOW))
        self.assertIsNone(await storage.find(b"o" * 16, NOW + DAY))
        await self.refused(NoSuchItem, storage.read_part(b"o" * 16, 0, 0, 1, NOW + DAY))
        self.assertEqual((await storage.read_part(b"o" * 16, 0, 0, 1, NOW)), part(0)[0][:1])
        self.assertEqual(await storage.expire(NOW + DAY, 3600), 1)
        self.assertEqual(await storage.usage(), Usage(len(key().document), 1))
        self.assertEqual([one.kind for one in await storage.exchanges(NOW, 9)], ["key"])

    async def test_expired_is_replaced(self) -> None:
        """Of an identifier that has expired a new object may be announced."""
        storage = await self.opened()
        await self.filled(storage, announced(), [0])
        newer = announced(sender=TABLET, expires=NOW + 9 * DAY)
        self.assertEqual((await storage.add_object(newer, NOW + DAY)).missing, (0, 1, 2))
        self.assertEqual(await storage.find(b"o" * 16, NOW + DAY), newer)

    async def test_many_expire(self) -> None:
        """More than fits into one transaction is removed by one call."""
        storage = await self.opened()
        names = [number.to_bytes(32, "big") for number in range(450)]
        await storage.add_keys([key(name) for name in names], NOW)
        self.assertEqual(await storage.expire(NOW + DAY, DAY), 450)
        self.assertEqual(await storage.usage(), Usage(0, 0))


class RoomCases(StorageCases):
    """Quotas, and what there is room for."""

    async def test_user_quota(self) -> None:
        """A user's devices share what the user may store; what is announced counts at once."""
        storage = await self.opened(Quotas(user=4000))
        await storage.add_object(announced(), NOW)
        other = announced(b"p" * 16, sender=TABLET)
        line = await self.refused(QuotaExceeded, storage.add_object(other, NOW))
        self.assertIn("alice.dc1.ntm.example", line)
        self.assertIn(str(4000 - 2500 - len(announced().document)), line)
        await storage.add_object(announced(b"q" * 16, sender=BOB), NOW)
        await self.refused(QuotaExceeded, storage.add_keys([key(document=bytes(2000))], NOW))
        await storage.remove(b"o" * 16)
        await storage.add_object(other, NOW)

    async def test_application_quota(self) -> None:
        """All users together may store so much of one application."""
        storage = await self.opened(Quotas(application=4000))
        await storage.add_object(announced(), NOW)
        await self.refused(QuotaExceeded, storage.add_object(announced(b"p" * 16, sender=BOB), NOW))
        await storage.add_object(announced(b"p" * 16, application="photos"), NOW)
        size = 2500 + len(announced().document)
        self.assertEqual(await storage.usage(application="photos"), Usage(size, 1))
        self.assertEqual(await storage.usage(), Usage(2 * size, 2))

    async def test_items_quota(self) -> None:
        """A user may have so many things; confirmed ones count until they expire."""
        storage = await self.opened(Quotas(items=3))
        await storage.add_keys([key(), key(destination=CAROL)], NOW)
        await storage.add_object(announced(length=0), NOW)
        await self.refused(QuotaExceeded, storage.add_object(announced(b"p" * 16), NOW))
        await self.refused(QuotaExceeded, storage.add_keys([key(b"n" * 32)], NOW))
        await storage.add_keys([key(document=b"again")], NOW)
        await storage.expire(NOW + DAY, DAY)
        await storage.add_object(announced(b"p" * 16, expires=NOW + 2 * DAY), NOW + DAY)

    async def test_full(self) -> None:
        """What will not fit is refused before any of it is sent."""
        storage = await self.opened(capacity=6000)
        size = 2500 + len(announced().document)
        self.assertEqual(await storage.free(), 6000)
        await storage.add_object(announced(), NOW)
        self.assertEqual(await storage.free(), 6000 - size)
        await storage.add_object(announced(b"p" * 16, sender=BOB), NOW)
        line = await self.refused(StorageFull, storage.add_object(announced(b"q" * 16), NOW))
        self.assertIn(f"{6000 - 2 * size} bytes", line)
        await self.refused(StorageFull, storage.add_keys([key(document=bytes(1000))], NOW))
        self.assertTrue(await self.filled(storage, announced()))
        for name in (BOB, CAROL):
            await storage.confirm(b"o" * 16, name, b"", NOW)
        await storage.add_object(announced(b"q" * 16), NOW)

    async def test_announced_at_once(self) -> None:
        """Of many that are announced at once only as many are taken as fit."""
        storage = await self.opened(Quotas(user=8000))
        asked = [storage.add_object(announced(bytes([number]) * 16), NOW) for number in range(8)]
        results = await DeferredList(asked, consumeErrors=True)
        refused = [each.type for good, each in results if not good]
        self.assertEqual(refused, [QuotaExceeded] * 5)
        self.assertEqual((await storage.usage()).items, 3)
