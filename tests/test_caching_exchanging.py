"""Telling coordinators what waits (paper, V-B): again and again, but not for ever."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import CertificateError, StorageFailed, StorageFull, UnknownName, Unreachable
from ntmobile.protocols.caching.exchanging import (
    AFTER_FAILURE,
    AT_ONCE,
    FIRST,
    MOST,
    PATIENCE,
)
from ntmobile.protocols.caching.turns import EACH
from ntmobile.wire.codec import Message
from ntmobile.wire.documents import ANSWER_LIMIT, read_document
from ntmobile.wire.messages.coordination import LinkAcknowledgement
from ntmobile.wire.messages.exchange import (
    Delivery,
    DeliveryStatusResponse,
    EncryptedDataExchangeResponse,
    EncryptedDataUploadResponse,
)
from ntmobile.wire.messages.realtime import Outcome
from tests.caching import ALICE, BOB, CAROL, World, an_item, read_manifest
from tests.http_bytes import answers
from tests.stored_data import Device, Item

DC1, DC2 = "dc1.ntm.example", "dc2.ntm.example"


class ExchangeTests(SynchronousTestCase):
    """Alice sends to Bob of dc1 and Carol of dc2."""

    def setUp(self) -> None:
        self.world = World()
        self.alice = Device.create(ALICE)
        self.client = self.world.client(ALICE)
        self.item = an_item(self.alice)
        self.path = f"/v1/objects/{read_manifest(self.item).object.hex()}"
        self.addCleanup(lambda: self.world.end())

    def upload(self) -> list[tuple[str, Outcome]]:
        """Upload the item, all at once; what is said for each destination."""
        found = self.world.upload(self.client, self.item).document(EncryptedDataUploadResponse)
        return [(each.destination, Outcome(each.outcome)) for each in found.results]

    def states(self) -> dict[str, str]:
        """What the sender is told of each destination."""
        if not self.world.cache.tokens.accepts(self.world.clock.seconds()):
            self.client = self.world.client(ALICE)
        found = self.world.ask(self.client, "GET", f"{self.path}/status")
        statuses = found.document(DeliveryStatusResponse).statuses
        return {each.destination: each.state for each in statuses}

    def domains(self) -> list[str]:
        """Which coordinators were asked since this was asked last."""
        found = [domain for domain, _ in self.world.asked]
        self.world.asked.clear()
        return sorted(found)

    def test_without_complete(self) -> None:
        """Coordinators are told as soon as the last part is there, should the sender be gone."""
        self.world.cache.exchanges.start()
        self.world.upload(self.client, self.item, complete=False)
        self.assertEqual(self.domains(), [DC1, DC2])
        self.assertEqual(self.states(), {BOB: "waiting", CAROL: "waiting"})

    def test_after_restart(self) -> None:
        """What was not told before a crash is told after it."""
        self.world.upload(self.client, self.item, complete=False)
        self.assertEqual(self.domains(), [])
        self.assertEqual(self.states(), {BOB: "not told", CAROL: "not told"})
        self.world.restart()
        self.world.cache.exchanges.start()
        self.assertEqual(self.domains(), [DC1, DC2])
        self.client = self.world.client(ALICE)
        self.assertEqual(self.states(), {BOB: "waiting", CAROL: "waiting"})

    def test_repeated(self) -> None:
        """Who cannot be reached is told later, ever more seldom; the others not again."""
        self.world.says[DC2] = Unreachable("no answer")
        self.world.cache.exchanges.start()
        self.world.upload(self.client, self.item, complete=False)
        self.assertEqual(self.domains(), [DC1, DC2])
        self.assertEqual(self.states(), {BOB: "waiting", CAROL: "not told"})
        for attempt in range(1, 5):
            self.world.clock.advance(FIRST * 2 ** (attempt - 1) + 2)
            self.assertEqual(self.domains(), [DC2], attempt)
        self.world.clock.advance(FIRST * 8)
        self.assertEqual(self.domains(), [])
        del self.world.says[DC2]
        self.world.clock.advance(MOST + 2)
        self.assertEqual(self.domains(), [DC2])
        self.assertEqual(self.states(), {BOB: "waiting", CAROL: "waiting"})

    def test_asked_for_again(self) -> None:
        """A sender who completes again has those told at once who were not."""
        self.world.says[DC2] = Unreachable("no answer")
        self.upload()
        del self.world.says[DC2]
        self.domains()
        self.assertEqual(self.upload(), [(BOB, Outcome.OK), (CAROL, Outcome.OK)])
        self.assertEqual(self.domains(), [DC2])

    def test_for_good(self) -> None:
        """What a coordinator refuses, or nobody can answer, is not repeated by itself."""
        for said, outcome in (
            (Outcome.UNKNOWN, Outcome.UNKNOWN),
            (Outcome.REFUSED, Outcome.REFUSED),
            (UnknownName("no such domain"), Outcome.UNKNOWN),
            (CertificateError("another server answered"), Outcome.UNTRUSTED),
        ):
            self.world.says[DC2] = said
            self.world.cache.exchanges.start()
            self.item = an_item(self.alice)
            self.path = f"/v1/objects/{read_manifest(self.item).object.hex()}"
            self.assertEqual(self.upload()[1], (CAROL, outcome))
            self.domains()
            self.world.clock.advance(500)
            self.assertEqual(self.domains(), [], said)
            self.world.cache.exchanges.stop()
            self.client = self.world.client(ALICE)

    def test_no_realm(self) -> None:
        """R1, R14: a domain of no trusted realm is not even sought."""
        nobody = "phone.eve.dc.nowhere.example"
        self.item = an_item(self.alice, [nobody])
        self.assertEqual(self.upload(), [(nobody, Outcome.UNTRUSTED)])
        self.assertEqual(self.domains(), [])

    def test_nonsense(self) -> None:
        """A coordinator that answers something else, or of others, counts as not reached."""
        done: list[Message] = [LinkAcknowledgement(), EncryptedDataExchangeResponse(())]
        for answer in done:
            waiting: Deferred[Message] = Deferred()
            waiting.callback(answer)
            self.world.says[DC2] = waiting
            self.assertEqual(self.upload()[1], (CAROL, Outcome.UNREACHABLE))

    def test_patience(self) -> None:
        """A sender does not wait long for a slow coordinator, which is told all the same."""
        answer: Deferred[Message] = Deferred()
        self.world.says[DC2] = answer
        self.world.upload(self.client, self.item, complete=False)
        connection, transport = self.world.begin(
            self.world.signed(self.client, "POST", f"{self.path}/complete")[0]
        )
        self.world.clock.advance(PATIENCE - 1)
        self.assertEqual(transport.value(), b"")
        self.world.clock.advance(1)
        self.assertIn(b"200 OK", transport.value())
        self.assertIn(b"not answered yet", transport.value())
        answer.errback(Unreachable("no answer"))
        self.assertEqual(self.states()[CAROL], "not told")
        connection.connectionLost()

    def test_told_meanwhile(self) -> None:
        """A sender that completes while coordinators are being told does not have it done twice."""
        answer: Deferred[Message] = Deferred()
        self.world.says[DC2] = answer
        self.world.cache.exchanges.start()
        self.world.upload(self.client, self.item, complete=False)
        request, body = self.world.signed(self.client, "POST", f"{self.path}/complete")
        connection, transport = self.world.begin(request, body)
        self.assertEqual(transport.value(), b"")
        delivery = Delivery(CAROL, Outcome.OK, "")
        answer.callback(EncryptedDataExchangeResponse((delivery,)))
        self.assertEqual(self.domains(), [DC1, DC2])
        ((status, _, said),) = answers(transport.value())
        found = read_document(EncryptedDataUploadResponse, said, ANSWER_LIMIT)
        outcomes = {each.destination: each.outcome for each in found.results}
        self.assertEqual((status, outcomes), (200, {BOB: Outcome.OK, CAROL: Outcome.OK}))
        connection.connectionLost()

    def test_at_once(self) -> None:
        """A coordinator is not asked twice at the same time for the same item."""
        answer: Deferred[Message] = Deferred()
        self.world.says[DC2] = answer
        self.world.cache.exchanges.start()
        self.world.upload(self.client, self.item, complete=False)
        self.world.clock.advance(3)
        self.assertEqual(self.domains(), [DC1, DC2])
        answer.errback(Unreachable("no answer"))

    def test_wrong_root(self) -> None:
        """R30: of data that is not what was signed nobody is told, though all of it is there."""
        self.item = Item(self.item.signed, [bytes(len(self.item.parts[0]))])
        self.world.cache.exchanges.start()
        self.world.upload(self.client, self.item, complete=False)
        self.assertEqual(self.domains(), [])
        self.assertEqual(set(self.states().values()), {"not told"})

    def test_storage_fails(self) -> None:
        """A storage that fails is asked again."""
        failing: Deferred[object] = Deferred()
        failing.errback(StorageFailed("locked"))
        right = self.world.storage.exchanges
        self.world.upload(self.client, self.item, complete=False)
        self.patch(self.world.storage, "exchanges", lambda at, limit: failing)
        self.world.cache.exchanges.start()
        self.patch(self.world.storage, "exchanges", right)
        self.world.clock.advance(AFTER_FAILURE)
        self.assertEqual(self.domains(), [DC1, DC2])

    def test_lost_part(self) -> None:
        """A part that was lost is not looked for in circles, and the sender is told of it."""
        reads: list[float] = []

        def lost(*args: object) -> Deferred[bytes]:
            reads.append(self.world.clock.seconds())
            return fail(StorageFailed("/var/lib/ntm/parts/0: No such file"))

        self.world.upload(self.client, self.item, complete=False)
        self.world.restart()  # it knows no hashes any more
        self.patch(self.world.storage, "read_part", lost)
        self.world.cache.exchanges.start()
        for _ in range(60):
            self.world.clock.advance(1)
        self.assertLess(len(reads), 6)
        self.client = self.world.client(ALICE)
        found = self.world.ask(self.client, "GET", f"{self.path}/status")
        statuses = found.document(DeliveryStatusResponse).statuses
        self.assertEqual([each.state for each in statuses], ["not told"] * 2)
        self.assertIn("tried again", statuses[0].reason)
        self.assertNotIn("/var", statuses[0].reason)
        self.assertEqual(self.domains(), [])

    def test_not_noted(self) -> None:
        """Where a full disk takes no note of what was told, nobody is told again every second."""
        self.patch(
            self.world.storage, "told", lambda *args: fail(StorageFull("disk full; nothing done"))
        )
        self.world.cache.exchanges.start()
        self.world.upload(self.client, self.item, complete=False)
        for _ in range(59):
            self.world.clock.advance(1)
        self.assertEqual(self.domains(), [DC1, DC2])
        self.world.clock.advance(5)
        self.assertEqual(self.domains(), [DC1, DC2])

    def test_silent_domain(self) -> None:
        """However much waits for a coordinator that says nothing, others are told at once."""
        self.world.says[DC2] = Deferred()
        self.world.cache.exchanges.start()
        for _ in range(AT_ONCE + EACH):
            self.world.upload(self.client, an_item(self.alice, [CAROL]), complete=False)
        self.assertIn(DC2, self.domains())
        self.item = an_item(self.alice, [BOB])
        self.assertEqual(self.upload(), [(BOB, Outcome.OK)])

    def test_stopped(self) -> None:
        """After its end a server tells nobody, and leaves no call behind."""
        self.world.cache.exchanges.start()
        self.world.cache.exchanges.stop()
        self.world.upload(self.client, self.item, complete=False)
        self.assertEqual(self.domains(), [])
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
