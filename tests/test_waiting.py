from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

import ntmobile.machines.direction.waiting as module
from ntmobile.machines.direction.records import Notify, TellClient, TellCoordinator
from ntmobile.machines.direction.waiting import FROM_ONE
from ntmobile.wire.codec import encode
from ntmobile.wire.messages.coordination import (
    RouteDirectionRefusal,
    RouteDirectionTransfer,
    RouteDirectionTransferResponse,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Outcome, PolicyRequest, RouteDirection
from tests.coordinators import DC1, DC2, LAPTOP, PHONE, START, TABLET, World
from tests.realms import MemoryRealm

A4, B4, C4 = ("203.0.113.7", 4000), ("203.0.113.8", 4000), ("203.0.113.9", 4000)


class WaitingCase(SynchronousTestCase):
    realm = MemoryRealm(now=START)

    def setUp(self) -> None:
        """The laptop, at dc2, is asleep; phone and tablet are at dc1."""
        self.world = World()
        self.dc1 = self.world.coordinator(DC1, self.realm)
        self.dc2 = self.world.coordinator(DC2, self.realm)
        self.phone = self.world.device(PHONE, A4)
        self.tablet = self.world.device(TABLET, C4)
        self.laptop = self.world.device(LAPTOP, B4)
        self.world.sleep(LAPTOP)

    def direction(
        self, number: int = 1, *, peer: str = PHONE, generation: int = 1
    ) -> RouteDirection:
        """A Route Direction from a device of dc1 for the laptop."""
        return RouteDirection(
            direction=number.to_bytes(8, "big"),
            generation=generation,
            peer=peer,
            certificate=self.world.devices[peer].certificate.der,
            requester=peer,
            initiator=False,
            candidates=(),
            temporal_key=bytes(32),
            lifetime=60,
        )

    def admit(self, *peers: str) -> None:
        """Dc2 has told of the laptop to these."""
        for peer in peers:
            self.dc2.disclosure.disclose(peer, LAPTOP, self.world.now, self.world.at)

    def transfer(self, message: RouteDirection, domain: str = DC1, cn: str = LAPTOP) -> Outcome:
        """It reaches dc2; what dc2 answers."""
        answer = self.dc2.hears(domain, RouteDirectionTransfer(cn, message))
        assert isinstance(answer, RouteDirectionTransferResponse)
        return Outcome(answer.outcome)

    def fetched(self) -> list[RouteDirection]:
        """What the laptop gets when it asks for what waits."""
        _, effects = self.dc2.waiting.fetched(self.world.client(LAPTOP), self.world.now)
        told = [effect.message for effect in effects if isinstance(effect, TellClient)]
        return [one for one in told if isinstance(one, RouteDirection)]


class SleepingTests(WaitingCase):
    def test_waking(self) -> None:
        """R16: MN hears "waking", CN is notified once, and gets the direction when it comes."""
        self.assertIs(self.world.outcome(PHONE, LAPTOP), Outcome.WAKING)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.assertEqual(self.laptop.told, [])
        self.world.tick(20.0)
        self.world.wake(LAPTOP, B4)
        self.assertGreaterEqual(len(self.laptop.told), 1)
        self.assertEqual(self.laptop.told[0].direction, self.phone.told[0].direction)
        self.assertEqual(len(self.dc2.waiting), 0)

    def test_woke_elsewhere(self) -> None:
        """R16: a CN that wakes elsewhere is directed to where it is, and so is MN."""
        self.world.direct(PHONE, LAPTOP)
        self.world.wake(LAPTOP, ("198.51.100.2", 50_000), ("192.168.1.8", 4000))
        newest_mn, newest_cn = self.phone.told[-1], self.laptop.told[-1]
        self.assertEqual(newest_mn.generation, newest_cn.generation)
        self.assertGreater(newest_mn.generation, 1)
        self.assertTrue(newest_cn.initiator)
        self.assertEqual(newest_mn.candidates, ())

    def test_never_registered(self) -> None:
        """A CN that was never seen is woken and directed all the same."""
        self.world.client(LAPTOP).location = self.world.client(LAPTOP).located(0.0, hide=True)
        client = self.world.client(LAPTOP)
        client.location = msgspec.structs.replace(client.location, observed=(), local=())
        self.assertIs(self.world.outcome(PHONE, LAPTOP), Outcome.WAKING)
        self.world.wake(LAPTOP, B4)
        self.assertEqual(self.phone.told[-1].candidates, (Endpoint.of(B4),))

    def test_moving_at_a_rate(self) -> None:
        """R8: a client that seems to be everywhere draws what waits for it nowhere in a flood."""
        self.world.direct(PHONE, LAPTOP)
        client, sent = self.world.client(LAPTOP), 0
        for port in range(1, 1001):
            self.dc2.clients.heard(client, ("203.0.113.66", port), self.world.now)
            sent += len(self.dc2.waiting.registered(client, self.world.now))
        self.assertGreater(sent, 2)
        self.assertLess(sent, 30)

    def test_lost_push(self) -> None:
        """R16: CN fetches what waits when it asks, also when the push was lost."""
        self.world.direct(PHONE, LAPTOP)
        self.world.direct(TABLET, LAPTOP)
        found = self.fetched()
        self.assertEqual(len(found), 2)
        self.assertEqual({one.peer for one in found}, {PHONE, TABLET})

    def test_hidden_location(self) -> None:
        """R13: a CN that hides from MN is not told of when it wakes either."""
        policy = PolicyRequest(1, ("*",), (PHONE,))
        self.dc2.clients.set_policy(self.world.client(LAPTOP), policy)
        self.world.direct(PHONE, LAPTOP)
        self.world.wake(LAPTOP, C4)
        updates = [one for _, _, one in self.world.asked]
        self.assertNotIn(C4[0].encode(), b"".join(encode(one) for one in updates))
        self.assertTrue(all(one.candidates == () for one in self.phone.told))

    def test_too_late(self) -> None:
        """R16, R18: after 60 s nothing waits any more, and nothing is sent."""
        self.world.direct(PHONE, LAPTOP)
        self.world.tick(60.0)
        self.assertEqual(len(self.dc2.waiting), 0)
        self.world.wake(LAPTOP, B4)
        self.assertEqual(self.laptop.told, [])

    def test_lifetime_is_what_is_left(self) -> None:
        """R18: who fetches late hears how long the temporal key still lives."""
        self.admit(PHONE)
        self.transfer(self.direction())
        self.world.tick(45.0)
        self.world.wake(LAPTOP, B4)
        self.assertEqual([one.lifetime for one in self.laptop.told][:1], [15])

    def test_no_longer_than_its_key(self) -> None:
        """R18: a direction that comes with less than a minute left waits only so long."""
        self.admit(PHONE)
        self.transfer(msgspec.structs.replace(self.direction(), lifetime=10))
        self.world.tick(10.0)
        self.assertEqual(len(self.dc2.waiting), 0)

    def test_notified_at_a_rate(self) -> None:
        """A sleeper is not woken more often than every five seconds, after a few."""
        for _ in range(20):
            self.world.direct(PHONE, LAPTOP)
        self.assertEqual(self.dc2.notified, [LAPTOP] * 5)


class AcknowledgementTests(WaitingCase):
    def setUp(self) -> None:
        """The laptop is awake but acknowledges nothing by itself."""
        super().setUp()
        self.world.wake(LAPTOP, B4)
        self.world.acknowledges = False
        self.admit(PHONE, TABLET)

    def test_sent_again(self) -> None:
        """R16: what was not acknowledged is sent again when CN registers elsewhere."""
        self.assertIs(self.transfer(self.direction()), Outcome.OK)
        self.world.register(LAPTOP, C4)
        self.assertEqual([one.direction for one in self.laptop.told], [b"\0" * 7 + b"\1"] * 2)

    def test_acknowledged(self) -> None:
        """R16: what was acknowledged is not."""
        self.transfer(self.direction())
        self.dc2.waiting.acknowledged(LAPTOP, b"\0" * 7 + b"\1", 1, Outcome.OK)
        self.world.register(LAPTOP, C4)
        self.assertEqual(len(self.laptop.told), 1)
        self.assertEqual(len(self.dc2.waiting), 0)

    def test_refused(self) -> None:
        """R13: where CN itself refuses, the DC that made the direction is told, and it ends."""
        self.transfer(self.direction(generation=2))
        word = LAPTOP, self.direction().direction
        self.assertEqual(self.dc2.waiting.acknowledged(*word, 1, Outcome.REFUSED), [])
        effects = self.dc2.waiting.acknowledged(*word, 2, Outcome.REFUSED)
        refusal = RouteDirectionRefusal(self.direction().direction, LAPTOP)
        self.assertEqual(effects, [TellCoordinator(DC1, refusal)])
        self.assertEqual(len(self.dc2.waiting), 0)

    def test_former_generation(self) -> None:
        """R9, R16: an acknowledgement of a former generation leaves the newer one waiting."""
        self.transfer(self.direction(generation=2))
        self.dc2.waiting.acknowledged(LAPTOP, b"\0" * 7 + b"\1", 1, Outcome.OK)
        self.assertEqual(len(self.dc2.waiting), 1)
        self.dc2.waiting.acknowledged(LAPTOP, b"\0" * 7 + b"\1", 2, Outcome.OK)
        self.assertEqual(len(self.dc2.waiting), 0)

    def test_overtaken(self) -> None:
        """R9: an older generation that was overtaken does not undo the newer one."""
        self.transfer(self.direction(generation=2))
        self.assertIs(self.transfer(self.direction(generation=1)), Outcome.OK)
        self.assertEqual([one.generation for one in self.fetched()], [2])

    def test_unknown_acknowledgements(self) -> None:
        """Acknowledgements of nothing are ignored."""
        self.dc2.waiting.acknowledged(LAPTOP, bytes(8), 1, Outcome.OK)
        self.dc2.waiting.acknowledged("nobody.bob.example", bytes(8), 1, Outcome.OK)
        self.assertEqual(len(self.dc2.waiting), 0)

    def test_revoked(self) -> None:
        """R34: what waits for a revoked device, or from it, is forgotten; the rest stays."""
        self.transfer(self.direction(1))
        self.transfer(self.direction(2, peer=TABLET))
        self.dc2.waiting.revoked(PHONE)
        self.assertEqual(len(self.dc2.waiting), 1)
        self.dc2.waiting.revoked(LAPTOP)
        self.assertEqual(len(self.dc2.waiting), 0)


class AdmissionTests(WaitingCase):
    def assert_refused(self, message: RouteDirection, domain: str = DC1, cn: str = LAPTOP) -> None:
        """The same answer as for nobody, and nobody is woken."""
        self.assertIs(self.transfer(message, domain, cn), Outcome.UNKNOWN)
        self.assertEqual(self.dc2.notified, [])
        self.assertEqual(len(self.dc2.waiting), 0)

    def test_without_admission(self) -> None:
        """R13: a direction for a pair that was not disclosed wakes nobody."""
        self.assert_refused(self.direction())

    def test_after_the_admission(self) -> None:
        """R13: nor does one that comes a minute later."""
        self.admit(PHONE)
        self.world.tick(60.0)
        self.assert_refused(self.direction())

    def test_another_pair(self) -> None:
        """R13: nor one for somebody else than the one admitted."""
        self.admit(PHONE)
        self.assert_refused(self.direction(peer=TABLET))
        self.assert_refused(self.direction(), cn=f"desk.bob.{DC2}")
        self.assert_refused(self.direction(), cn=f"bob.{DC2}")

    def test_another_domain(self) -> None:
        """R1: nor one that another DC makes for a device that is not its own."""
        self.admit(PHONE)
        self.assert_refused(self.direction(), "dc3.ntm.example")
        self.assert_refused(self.direction(), DC2)

    def test_requester_is_not_the_peer(self) -> None:
        """R15: the requester of a direction at DC_CN is the peer; anything else is refused."""
        self.admit(PHONE, TABLET)
        self.assert_refused(msgspec.structs.replace(self.direction(), requester=TABLET))
        self.assert_refused(msgspec.structs.replace(self.direction(), requester="..."))
        self.assert_refused(msgspec.structs.replace(self.direction(), requester="dc1"))


class BoundTests(WaitingCase):
    def setUp(self) -> None:
        """All are admitted."""
        super().setUp()
        self.admit(PHONE, TABLET)

    def test_of_one_requester(self) -> None:
        """Of one requester's directions the newest few wait."""
        for number in range(1, 20):
            self.transfer(self.direction(number))
        self.assertEqual(len(self.dc2.waiting), FROM_ONE)
        kept = [one.direction[-1] for one in self.fetched()]
        self.assertEqual(kept, list(range(20 - FROM_ONE, 20)))

    def test_for_one_client(self) -> None:
        """More than a client could want are answered BUSY."""
        self.patch(module, "FOR_ONE", 2)
        self.assertIs(self.transfer(self.direction(1)), Outcome.WAKING)
        self.assertIs(self.transfer(self.direction(2, peer=TABLET)), Outcome.WAKING)
        self.assertIs(self.transfer(self.direction(3, peer=TABLET)), Outcome.BUSY)
        self.assertIs(self.transfer(self.direction(2, peer=TABLET, generation=2)), Outcome.WAKING)

    def test_of_all(self) -> None:
        """And so are more than the DC can keep."""
        self.patch(module, "CAPACITY", 1)
        self.transfer(self.direction(1))
        self.assertIs(self.transfer(self.direction(2)), Outcome.BUSY)
        self.world.tick(61.0)
        self.admit(PHONE)
        self.assertIs(self.transfer(self.direction(3)), Outcome.WAKING)

    def test_taken_over(self) -> None:
        """A direction's identifier that is another requester's already is not taken over."""
        self.transfer(self.direction(1))
        self.transfer(self.direction(1, peer=TABLET))
        self.assertEqual([one.peer for one in self.fetched()], [PHONE])
        self.transfer(self.direction(1, peer=TABLET, generation=9))
        self.assertEqual([one.peer for one in self.fetched()], [PHONE])

    def test_notification_names_only_the_receiver(self) -> None:
        """R33: a notification says nothing but that something waits."""
        answer, effects = self.dc2.waiting.transferred(
            DC1, RouteDirectionTransfer(LAPTOP, self.direction()), 0.0
        )
        (effect,) = effects
        assert isinstance(effect, Notify)
        self.assertEqual((effect.request.receiver, effect.request.message), (LAPTOP, ""))
        self.assertEqual(answer.outcome, Outcome.WAKING)
