"""Writing clients to the durable store, behind what is going on."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import StorageFailed
from ntmobile.interfaces import StoredClient
from ntmobile.servers.configuration import load_coordinator
from ntmobile.servers.coordinator import CoordinatorService
from ntmobile.servers.domain import BATCH
from ntmobile.servers.storing import from_store
from tests.coordinators import DC1, START
from tests.domains import World
from tests.platforms import PlatformTestCase, make_realm
from tests.realms import MemoryRealm

PHONE, TABLET = f"phone.alice.{DC1}", f"tablet.alice.{DC1}"


class BatchTests(SynchronousTestCase):
    """A DC with two registered clients."""

    def setUp(self) -> None:
        self.world = World(MemoryRealm(now=START))
        self.domain = self.world.sides[DC1].domain
        self.world.device(PHONE, ("198.51.100.1", 4000))
        self.world.device(TABLET, ("198.51.100.2", 4000))

    def test_parts(self) -> None:
        """What changed is given in parts, each client once; who is removed, at once."""
        self.domain.removed.add(f"gone.alice.{DC1}")
        parts = [self.domain.drain_changes(1) for _ in range(3)]
        self.assertEqual([len(changed) for changed, _ in parts], [1, 1, 0])
        self.assertEqual({changed[0].fqdn for changed, _ in parts[:2]}, {PHONE, TABLET})
        self.assertEqual([len(removed) for _, removed in parts], [1, 0, 0])

    def test_alike(self) -> None:
        """Clients with the same policy share one, since a DC holds very many."""
        first, second = (from_store(one, 1.0) for one in self.domain.drain_changes()[0])
        self.assertIs(first.policy, second.policy)


class WritingTests(PlatformTestCase):
    """A DC's service, with a store that remembers what it was given."""

    def setUp(self) -> None:
        super().setUp()
        platform = make_realm(self.place(), "ntm.example", ())
        file = platform.directory / "dc1.ntm.example" / "dc.toml"
        self.service = CoordinatorService(load_coordinator(file), reactor)
        self.given: list[tuple[int, int, int]] = []
        self.broken = False
        cast(Any, self.service)._store.write = self.write

    def write(
        self, changed: list[StoredClient], removed: list[str], sequence: int
    ) -> Deferred[None]:
        """Remember sizes; or fail."""
        self.given.append((len(self.service.domain.changed), len(removed), sequence))
        return fail(StorageFailed("the disk is full")) if self.broken else succeed(None)

    async def test_all_that_changed(self) -> None:
        """R34: all is written, some at a time; removals first, with the sequence they go up to."""
        domain = self.service.domain
        domain.changed = {f"d{number}.alice.dc1.ntm.example" for number in range(2 * BATCH + 1)}
        domain.removed = {"gone.alice.dc1.ntm.example"}
        await self.service._write()
        sequence = self.service.account_server.sequence
        expected = [(BATCH + 1, 1, sequence), (1, 0, sequence), (0, 0, sequence)]
        self.assertEqual(self.given, expected)
        await self.service._write()
        self.assertEqual(len(self.given), 3)

    async def test_a_full_disk(self) -> None:
        """What could not be written is given again the next time."""
        domain = self.service.domain
        domain.removed = {"gone.alice.dc1.ntm.example"}
        self.broken = True
        await self.service._write()
        self.assertEqual(domain.removed, {"gone.alice.dc1.ntm.example"})
        self.broken = False
        await self.service._write()
        self.assertEqual([removed for _, removed, _ in self.given], [1, 1])
        self.assertEqual(domain.removed, set())
