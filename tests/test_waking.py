from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.signalling import waking as module
from ntmobile.machines.signalling.waking import (
    ATTEMPTS,
    EACH,
    LIFETIMES,
    PATIENCE,
    Effect,
    Push,
    Tell,
    Waking,
)
from ntmobile.wire.messages.realtime import NotificationRequest, Reason

PHONE, LAPTOP, DESK = "phone.alice.dc1.example", "laptop.bob.dc1.example", "desk.bob.dc1.example"


def item(sender: str = LAPTOP, message: str = "", receiver: str = PHONE) -> NotificationRequest:
    """That an item waits."""
    return NotificationRequest(receiver, Reason.ITEM, message, sender, "chat")


def direction(receiver: str = PHONE) -> NotificationRequest:
    """That a direction waits."""
    return NotificationRequest(receiver, Reason.REALTIME)


class WakingCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Nobody is online."""
        self.online: set[str] = set()
        self.waking = Waking(lambda fqdn, now: fqdn in self.online)

    def push(self, effects: list[Effect]) -> Push:
        """The one effect, a push."""
        (push,) = effects
        assert isinstance(push, Push)
        return push


class WayTests(WakingCase):
    def test_online(self) -> None:
        """Who is online is told directly, and nobody else hears of it."""
        self.online.add(PHONE)
        self.assertEqual(self.waking.wanted(item(), 0.0), [Tell(item())])
        self.assertEqual(self.waking.acknowledged(item(), 0.1), [])
        self.assertEqual(self.waking.handle_timer(100.0), [])
        self.assertEqual(len(self.waking), 0)

    def test_off(self) -> None:
        """Who is off is pushed to, with what is left of the time in which it is of use."""
        push = self.push(self.waking.wanted(direction(), 0.0))
        self.assertEqual((push.request, push.count, push.attempt), (direction(), 1, 1))
        self.assertEqual(push.lifetime, LIFETIMES[Reason.REALTIME])
        self.assertEqual(self.waking.delivered(direction(), 1.0), [])
        self.assertEqual(len(self.waking), 0)

    def test_not_acknowledged(self) -> None:
        """Who counts as online but does not acknowledge is pushed to."""
        self.online.add(PHONE)
        self.waking.wanted(item(), 0.0)
        self.assertEqual(self.push(self.waking.unheard(item(), 3.0)).request, item())

    def test_known_not_to_hear(self) -> None:
        """Who has just not acknowledged something else is not asked again first."""
        self.online.add(PHONE)
        self.push(self.waking.wanted(direction(), 0.0, unheard=True))

    def test_session_ended_meanwhile(self) -> None:
        """Where an acknowledgement cannot come any more, it is pushed all the same."""
        self.online.add(PHONE)
        self.waking.wanted(item(), 0.0)
        self.assertEqual(self.waking.handle_timer(PATIENCE + 1), [])
        self.push(self.waking.handle_timer(2 * PATIENCE))

    def test_came_back(self) -> None:
        """Who comes back is told of items that wait to be said; directions it fetches itself."""
        for _ in range(5):
            self.waking.wanted(direction(), 0.0)
            self.waking.delivered(direction(), 0.0)
        self.assertEqual(self.waking.wanted(direction(), 0.0), [])
        self.assertEqual(self.waking.wanted(item(), 0.0), [])
        self.online.add(PHONE)
        self.assertEqual(self.waking.registered(PHONE, 1.0), [Tell(item())])
        self.waking.acknowledged(item(), 1.0)
        self.assertEqual(len(self.waking), 0)

    def test_came_back_amid_a_push(self) -> None:
        """What is on its way through the service is not said again to who comes back."""
        self.waking.wanted(item(), 0.0)
        self.online.add(PHONE)
        self.assertEqual(self.waking.registered(PHONE, 1.0), [])
        self.assertEqual(self.waking.delivered(item(), 2.0), [])
        self.assertEqual(len(self.waking), 0)

    def test_strange_answers(self) -> None:
        """Answers to what was never asked, or twice, change nothing."""
        self.assertEqual(self.waking.acknowledged(item(), 0.0), [])
        self.assertEqual(self.waking.unheard(item(), 0.0), [])
        self.assertEqual(self.waking.delivered(item(), 0.0), [])
        self.assertFalse(self.waking.failed(item(), None, 0.0))
        self.waking.wanted(item(), 0.0)
        self.assertEqual(self.waking.acknowledged(item(), 0.0), [])
        self.assertEqual(len(self.waking), 1)


class CoalescingTests(WakingCase):
    def test_while_on_its_way(self) -> None:
        """What comes while the same is on its way goes once after it, the newest, with a count."""
        self.waking.wanted(item(message="one"), 0.0)
        for number in range(7):
            self.assertEqual(self.waking.wanted(item(message=f"more {number}"), 0.1), [])
        push = self.push(self.waking.delivered(item(), 1.0))
        self.assertEqual((push.request.message, push.count), ("more 6", 7))
        self.assertEqual(self.waking.delivered(item(), 2.0), [])
        self.assertEqual(len(self.waking), 0)

    def test_at_a_rate(self) -> None:
        """A device is pushed to five times, then every five seconds, whatever comes."""
        times = []
        for second in range(60):
            effects = self.waking.wanted(item(message=str(second)), float(second))
            effects += self.waking.handle_timer(float(second))
            for _ in effects:
                times.append(second)
                self.waking.delivered(item(), float(second))
        self.assertEqual(times[:5], [0, 1, 2, 3, 4])
        self.assertLessEqual(len(times), 5 + 60 / 5)
        self.assertGreaterEqual(len(times), 60 / 5)

    def test_other_devices(self) -> None:
        """One device's flood keeps no other from hearing."""
        for number in range(100):
            self.waking.wanted(item(message=str(number)), 0.0)
            self.waking.delivered(item(), 0.0)
        self.push(self.waking.wanted(item(receiver=DESK), 0.0))

    def test_many_senders(self) -> None:
        """Of very many senders at once it is said that something waits, without names."""
        for number in range(1000):
            self.waking.wanted(item(f"d{number}.eve.dc9.example", "ad"), 0.0)
        self.assertEqual(len(self.waking), EACH + 1)
        mine = self.waking._pending[PHONE].values()
        (merged,) = [one for one in mine if not one.request.sender]
        self.assertEqual((merged.request.message, merged.count), ("", 1000 - EACH))

    def test_in_all(self) -> None:
        """What waits for all devices together is bounded; what is too much is counted."""
        self.patch(module, "CAPACITY", 2)
        for number in range(5):
            self.waking.wanted(item(receiver=f"d{number}.bob.dc1.example"), 0.0)
        self.assertEqual((len(self.waking), self.waking.dropped), (2, 3))
        self.assertEqual(len(self.waking._pending), 2)

    def test_revoked(self) -> None:
        """R34: nothing more is said to a device that is revoked."""
        self.waking.wanted(item(), 0.0)
        self.waking.wanted(direction(), 0.0)
        self.waking.forget(PHONE)
        self.assertEqual(len(self.waking), 0)
        self.assertEqual(self.waking.handle_timer(10_000.0), [])


class RetryTests(WakingCase):
    def test_pauses_grow(self) -> None:
        """A service that is out of order is asked again after longer and longer pauses."""
        self.waking.wanted(item(), 0.0)
        now, times = 0.0, [0.0]
        self.assertTrue(self.waking.failed(item(), None, now))
        while now < 200.0:
            now += 1.0
            for _ in self.waking.handle_timer(now):
                times.append(now)
                self.waking.failed(item(), None, now)
        pauses = [later - former for former, later in pairwise(times)]
        self.assertEqual(pauses[:4], [2.0, 4.0, 8.0, 16.0])

    def test_after(self) -> None:
        """A service that says when it will be back is not asked before."""
        self.waking.wanted(item(), 0.0)
        self.assertTrue(self.waking.failed(item(), 120.0, 0.0))
        self.assertEqual(self.waking.handle_timer(119.0), [])
        self.assertEqual(self.push(self.waking.handle_timer(120.0)).attempt, 2)

    def test_given_up(self) -> None:
        """After some attempts, or when it is of no use any more, it is given up."""
        self.waking.wanted(direction(), 0.0)
        self.assertFalse(self.waking.failed(direction(), 60.0, 0.0))
        self.assertEqual(len(self.waking), 0)
        now = 0.0
        attempts = len(self.waking.wanted(item(), now))
        while len(self.waking):
            self.waking.failed(item(), None, now)
            now += 301.0
            attempts += len(self.waking.handle_timer(now))
        self.assertLessEqual(attempts, ATTEMPTS)
        self.assertGreater(attempts, 5)

    def test_expires(self) -> None:
        """What nobody answered is forgotten in the end."""
        self.waking.wanted(direction(), 0.0)
        self.assertEqual(self.waking.handle_timer(60.0), [])
        self.assertEqual(len(self.waking), 0)


class AnyOrderTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 120))
    def test_bounds(self, seed: int, steps: int) -> None:
        """In whatever order things happen, counts are right, and it all ends in nothing."""
        random, now = Random(seed), 0.0
        online: set[str] = set()
        waking = Waking(lambda fqdn, _: fqdn in online)
        requests = [item(), item(DESK), direction(), item(receiver=DESK), direction(DESK)]
        for _ in range(steps):
            now += random.choice((0.0, 0.5, 7.0))
            request = random.choice(requests)
            match random.randrange(8):
                case 0:
                    waking.wanted(request, now, unheard=random.random() < 0.3)
                case 1:
                    waking.acknowledged(request, now)
                case 2:
                    waking.unheard(request, now)
                case 3:
                    waking.delivered(request, now)
                case 4:
                    waking.failed(request, random.choice((None, 9.0)), now)
                case 5:
                    online ^= {request.receiver}
                    waking.registered(request.receiver, now)
                case 6:
                    waking.forget(request.receiver)
                case 7:
                    waking.handle_timer(now)
            self.assertEqual(len(waking), sum(map(len, waking._pending.values())))
            self.assertTrue(all(waking._pending.values()))
        waking.handle_timer(now + 3601.0)
        self.assertEqual(len(waking), 0)
        self.assertEqual(waking._pending, {})
