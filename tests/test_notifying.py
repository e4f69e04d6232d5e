from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed

from ntmobile.errors import Unreachable
from ntmobile.interfaces import NotificationOutcome, NotificationResult
from ntmobile.machines.direction.records import Notify
from ntmobile.machines.signalling.waking import LIFETIMES
from ntmobile.servers.notifying import NOTIFIER_TIMEOUT
from ntmobile.wire.messages.realtime import (
    Deregistration,
    DirectionResponse,
    NotificationRequest,
    Outcome,
    Reason,
    RouteDirectionRequest,
    RouteDirectionWaiting,
)
from tests.coordinators import LAPTOP, PHONE
from tests.test_domain import DomainCase

ITEM = NotificationRequest(LAPTOP, Reason.ITEM, "lunch?", PHONE, "chat")


class NotifyingCase(DomainCase):
    def tell(self) -> None:
        """An item waits for the laptop."""
        self.dc2.domain.perform([Notify(ITEM)])

    def sleep(self) -> None:
        """The laptop goes off, and says so."""
        self.laptop.answer(Deregistration(self.laptop.generation))
        self.laptop.deaf = True


class ItemTests(NotifyingCase):
    def test_online(self) -> None:
        """Who is online is told by its DC, under the seal, and no push service hears of it."""
        self.tell()
        self.world.run(5.0)
        self.assertEqual(self.laptop.notified, [ITEM])
        self.assertEqual(self.dc2.notified, [])
        self.assertEqual(len(self.dc2.domain.notifying.machine), 0)

    def test_off(self) -> None:
        """Who is off is told through the notifier, once."""
        self.sleep()
        self.tell()
        self.world.run(5.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])

    def test_dozing(self) -> None:
        """Who counts as online but hears nothing is told through the notifier after 3 seconds."""
        self.laptop.deaf = True
        self.tell()
        self.world.run(2.5)
        self.assertEqual(self.dc2.notified, [])
        self.world.run(1.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.world.run(30.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])

    def test_unknown(self) -> None:
        """A device that is gone meanwhile is nobody's business."""
        self.dc2.domain.revoke(LAPTOP)
        self.world.run(0.5)
        before = list(self.laptop.notified)
        self.tell()
        self.world.run(1.0)
        self.assertEqual(self.laptop.notified, before)

    def test_never_said_hello(self) -> None:
        """A device that is online by the store, but has no keys yet, is pushed to."""
        stored = tuple(self.dc2.domain.drain_changes()[0])
        self.laptop.deaf = True
        self.dc2.start(stored)
        self.tell()
        self.world.run(0.1)
        self.assertEqual(self.dc2.notified, [LAPTOP])


class DirectionTests(NotifyingCase):
    def ask(self) -> object:
        """The phone asks for the laptop."""
        answer = self.connect(self.phone, self.laptop)
        assert isinstance(answer, DirectionResponse)
        return answer.outcome

    def test_asleep(self) -> None:
        """R16: one push for many directions on its way; the device comes and fetches them all."""
        slow: Deferred[NotificationResult] = Deferred()
        self.dc2.pushes.append(slow)
        self.sleep()
        self.assertEqual(self.ask(), Outcome.WAKING)
        self.assertEqual(self.ask(), Outcome.WAKING)
        self.assertEqual(self.ask(), Outcome.WAKING)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.laptop.deaf = False
        self.laptop.register()
        answer = self.laptop.answer(RouteDirectionRequest(self.laptop.generation))
        assert isinstance(answer, RouteDirectionWaiting)
        self.world.run(1.0)
        ours = {one.direction for one in self.phone.told}
        self.assertEqual({one.direction for one in self.laptop.told}, ours)
        self.assertEqual(len(self.dc2.domain.waiting), 0)
        self.assertEqual(len(self.dc2.domain.notifying.machine), 0)
        slow.callback(NotificationResult())
        self.world.run(70.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])

    def test_fetched_after_a_lost_push(self) -> None:
        """R16: where the push is lost, the device fetches what waits when it comes by itself."""
        self.dc2.pushes.append(Deferred())
        self.sleep()
        self.ask()
        self.world.run(20.0)
        self.laptop.deaf = False
        self.laptop.register()
        self.world.run(1.0)
        self.assertEqual(len({one.direction for one in self.laptop.told}), 1)
        self.assertLessEqual(self.laptop.told[0].lifetime, 40)

    def test_dozing(self) -> None:
        """Who counts as online but does not acknowledge a direction is woken, once for each."""
        self.laptop.deaf = True
        self.assertEqual(self.ask(), Outcome.OK)
        self.world.run(2.0)
        self.assertEqual(self.dc2.notified, [])
        self.world.run(3.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.world.run(20.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.laptop.deaf = False
        self.laptop.register()
        self.world.run(1.0)
        self.assertEqual(len({one.direction for one in self.laptop.told}), 1)

    def test_awake(self) -> None:
        """Who acknowledges is not notified, neither directly nor otherwise."""
        self.assertEqual(self.ask(), Outcome.OK)
        self.world.run(10.0)
        self.assertEqual((self.dc2.notified, self.laptop.notified), ([], []))


class OutcomeTests(NotifyingCase):
    def setUp(self) -> None:
        """The laptop is off."""
        super().setUp()
        self.sleep()

    def test_later(self) -> None:
        """A service that cannot now is asked again, not before it said."""
        self.dc2.pushes.append(succeed(NotificationResult(NotificationOutcome.LATER, 10.0)))
        self.tell()
        self.world.run(9.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.world.run(2.5)
        self.assertEqual(self.dc2.notified, [LAPTOP] * 2)
        self.world.run(60.0)
        self.assertEqual(self.dc2.notified, [LAPTOP] * 2)

    def test_out_of_reach(self) -> None:
        """A service that is not reached is asked again."""
        self.dc2.pushes.append(fail(Unreachable("no answer of push.example")))
        self.tell()
        self.world.run(4.0)
        self.assertEqual(self.dc2.notified, [LAPTOP] * 2)

    def test_silent(self) -> None:
        """A service that never answers is given up, and asked again."""
        self.dc2.pushes.append(Deferred())
        self.tell()
        self.world.run(NOTIFIER_TIMEOUT + 4.0)
        self.assertEqual(self.dc2.notified, [LAPTOP] * 2)

    def test_refused(self) -> None:
        """What a service never will take, or for a registration that is gone, ends."""
        for outcome in (NotificationOutcome.REFUSED, NotificationOutcome.GONE):
            self.dc2.notified.clear()
            self.dc2.pushes.append(succeed(NotificationResult(outcome)))
            self.tell()
            self.world.run(30.0)
            self.assertEqual(self.dc2.notified, [LAPTOP])

    def test_faulty_plugin(self) -> None:
        """A fault of a plugin is logged, once, and keeps nobody from anything."""
        self.dc2.pushes.append(fail(ZeroDivisionError("a fault")))
        self.tell()
        self.world.run(30.0)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_revoked(self) -> None:
        """R34: of a device that is revoked meanwhile the service hears no more."""
        self.dc2.pushes.append(fail(Unreachable("no answer of push.example")))
        self.tell()
        self.dc2.domain.revoke(LAPTOP)
        self.world.run(LIFETIMES[Reason.REALTIME])
        self.assertEqual(self.dc2.notified, [LAPTOP])
