from __future__ import annotations

from typing import Any, cast

from attrs import evolve, fields
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, NTMobileError
from ntmobile.interfaces import StoredClient
from ntmobile.machines.direction.waiting import WaitingDirections
from ntmobile.servers.domain import EARLY, OVERTAKEN, Domain
from ntmobile.wire.codec import Message
from ntmobile.wire.headers import Header, Kind
from ntmobile.wire.messages.coordination import (
    InformationRequest,
    InformationResponse,
    LinkAcknowledgement,
    RelayRegistrationResponse,
    RevocationNotice,
)
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    Deregistration,
    DirectionResponse,
    KeepAlive,
    KeepAliveResponse,
    Outcome,
    PolicyRequest,
    PolicyResponse,
    RegistrationResponse,
    RouteDirectionRequest,
    RouteDirectionWaiting,
)
from tests.coordinators import DC1, DC2, DESK, LAPTOP, PHONE, START, TABLET
from tests.domains import DC, Device, Side, Transport, World
from tests.realms import MemoryRealm

A, B, C = ("203.0.113.7", 4000), ("203.0.113.8", 4000), ("203.0.113.9", 4000)
ELSEWHERE = ("198.51.100.4", 4444)


class DomainCase(SynchronousTestCase):
    """Phone and tablet at dc1, laptop at dc2, all registered."""

    realm = MemoryRealm(now=START)

    def setUp(self) -> None:
        """Make them."""
        self.world = World(self.realm)
        self.dc1, self.dc2 = self.world.sides[DC1], self.world.sides[DC2]
        self.phone = self.world.device(PHONE, A)
        self.tablet = self.world.device(TABLET, C)
        self.laptop = self.world.device(LAPTOP, B)

    def connect(self, mn: Device, cn: Device) -> Message:
        """A direction from one to the other, which both acknowledge."""
        return mn.answer(mn.request(cn.fqdn))


class ClientRequestTests(DomainCase):
    def test_registration(self) -> None:
        """A registration is answered with what the DC saw, for how long, and its time (R9, R12)."""
        answer = self.phone.register()
        assert isinstance(answer, RegistrationResponse)
        self.assertEqual(answer.observed, Endpoint.of(A))
        self.assertFalse(answer.translated)
        self.assertEqual((answer.lifetime, answer.generation), (60, self.phone.generation))
        self.assertLess(abs(answer.time / 1000 - self.world.at()), 1.0)

    def test_keep_alive(self) -> None:
        """R9: a keep-alive is answered with the address the DC sees."""
        self.phone.address = ELSEWHERE
        answer = self.phone.answer(KeepAlive(self.phone.generation, 100))
        self.assertEqual(answer, KeepAliveResponse(self.phone.generation, Endpoint.of(ELSEWHERE)))
        client = self.dc1.domain.clients.find(PHONE)
        assert client is not None
        self.assertEqual(client.lifetime, 300.0)
        self.assertEqual(client.location.observed, (Endpoint.of(ELSEWHERE),))

    def test_policy(self) -> None:
        """R13: a client's policy is acknowledged and in force."""
        self.assertEqual(self.laptop.answer(PolicyRequest(7, (TABLET,))), PolicyResponse(7))
        answer = self.connect(self.phone, self.laptop)
        assert isinstance(answer, DirectionResponse)
        self.assertEqual(answer.outcome, Outcome.UNKNOWN)

    def test_direction(self) -> None:
        """A direction reaches both ends, over both DCs and the relay."""
        answer = self.connect(self.phone, self.laptop)
        assert isinstance(answer, DirectionResponse)
        self.assertEqual(answer.outcome, Outcome.OK)
        self.assertEqual(self.phone.told[0].direction, answer.direction)
        self.assertEqual(self.laptop.told[0].direction, answer.direction)
        self.assertEqual(self.dc1.relayed[0].direction, answer.direction)
        self.assertEqual(len(self.dc2.domain.waiting), 0)

    def test_unacknowledged(self) -> None:
        """R16: a direction is repeated until it is acknowledged, for as long as its key lives."""
        self.laptop.deaf = True
        self.phone.ask(self.phone.request(LAPTOP))
        self.world.run(20.0)
        self.laptop.deaf = False
        self.world.run(3.0)
        self.assertEqual(len(self.laptop.told), 1)

    def test_fetch(self) -> None:
        """R16: a client that asks hears how many directions wait."""
        answer = self.phone.answer(RouteDirectionRequest(1))
        self.assertEqual(answer, RouteDirectionWaiting(0))

    def test_off(self) -> None:
        """A client that goes is off; who asks for it hears "waking"; it is notified."""
        self.assertEqual(self.laptop.answer(Deregistration(1)), Acknowledgement())
        answer = self.connect(self.phone, self.laptop)
        assert isinstance(answer, DirectionResponse)
        self.assertEqual(answer.outcome, Outcome.WAKING)
        self.assertEqual(self.dc2.notified, [LAPTOP])
        self.laptop.register()
        self.assertGreaterEqual(len(self.laptop.told), 1)

    def test_not_understood(self) -> None:
        """A message that a client does not send to its DC is refused."""
        answer = self.phone.answer(RelayRegistrationResponse(0))
        self.assertEqual(answer, Acknowledgement(Outcome.REFUSED, "not understood"))

    def test_fault(self) -> None:
        """A fault in one client's matter is logged, and the next one is served."""

        def fail(*arguments: object) -> None:
            raise ZeroDivisionError("a fault")

        self.patch(WaitingDirections, "fetched", fail)
        self.phone.ask(RouteDirectionRequest(1))
        self.world.run(0.05)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(self.phone.answer(KeepAlive(1)), KeepAliveResponse)

    def test_answers_leave_where_asked(self) -> None:
        """On several addresses of a DC, what goes back leaves from the one that was asked."""
        second = self.dc1.domain.signalling.port(ipv6=False)
        sent: list[str] = []
        first = cast(Any, self.dc1.port).transport.deliver

        def over(name: str) -> Transport:
            def deliver(datagram: bytes, remote: tuple[str, int]) -> None:
                sent.append(name)
                first(datagram, remote)

            return Transport(deliver, name)

        cast(Any, self.dc1.port).transport = over("first")
        cast(Any, second).transport = over("second")
        self.phone.session.conversation.request(self.phone.request(TABLET), "x", self.world.now)
        (sealed,) = self.phone.session.transmissions()
        second.datagramReceived(sealed.datagram, A)
        # To the tablet the direction goes over the first; to the phone direction and answer.
        self.assertEqual(sorted(sent), ["first", "second", "second"])

    def test_silent_coordinator(self) -> None:
        """Who asks for a device of a domain whose DC is silent hears that, with its name."""
        self.dc1.silent.add(DC2)
        answer = cast(DirectionResponse, self.connect(self.phone, self.laptop))
        self.assertEqual(answer.outcome, Outcome.UNREACHABLE)
        self.assertIn(f"the coordinator of {DC2} cannot be reached", answer.detail)


class EarlyTests(DomainCase):
    def test_waits_for_the_registration(self) -> None:
        """A Direction Request that overtook the registration it belongs to waits for it."""
        generation = self.phone.generation + 1
        tag = self.phone.ask(self.phone.request(LAPTOP, generation))
        self.world.run(0.5)
        self.assertNotIn(tag, self.phone.answers)
        self.phone.register(ELSEWHERE)
        self.world.run(0.2)
        self.assertIn(tag, self.phone.answers)
        self.assertEqual(self.laptop.told[0].candidates, (Endpoint.of(ELSEWHERE),))

    def test_no_registration(self) -> None:
        """If the registration does not come, the request is forgotten, and not served late."""
        tag = self.phone.ask(self.phone.request(LAPTOP, self.phone.generation + 1))
        self.world.run(OVERTAKEN + 2.0)
        self.assertEqual(self.dc1.domain._early, {})
        self.phone.register()
        self.assertNotIn(tag, self.phone.answers)
        self.assertEqual(self.laptop.told, [])

    def test_bounded(self) -> None:
        """What waits for one client's registration is bounded."""
        for _ in range(EARLY + 20):
            self.phone.ask(self.phone.request(LAPTOP, self.phone.generation + 1))
        self.world.run(0.1)
        self.assertEqual(len(self.dc1.domain._early[PHONE]), EARLY)


class LeaseTests(DomainCase):
    def test_no_new_work(self) -> None:
        """R34: a DC that has not heard its AS for a lease refuses new directions of its clients."""
        self.dc1.domain.lease_until = self.world.now - 1.0
        answer = self.connect(self.phone, self.tablet)
        assert isinstance(answer, DirectionResponse)
        self.assertEqual(answer.outcome, Outcome.BUSY)
        self.assertIn("account server", answer.detail)
        self.assertEqual(self.tablet.told, [])

    def test_no_new_work_for_others(self) -> None:
        """R34, R13: and tells other DCs of nobody, the same words for those who are not here."""
        self.dc2.domain.lease_until = self.world.now - 1.0
        for name in (LAPTOP, f"nobody.bob.{DC2}"):
            made = self.phone.request(name)
            answer = self.dc2.domain.coordinator_asked(
                DC1,
                InformationRequest(
                    PHONE, self.phone.certificate.der, name, made.nonce, made.issued, made.signature
                ),
            )
            self.assertEqual(answer, InformationResponse(Outcome.BUSY))

    def test_live_sessions_go_on(self) -> None:
        """R34: registrations and keep-alives go on without the AS."""
        self.dc1.domain.lease_until = self.world.now - 1.0
        self.assertIsInstance(self.phone.register(), RegistrationResponse)
        self.assertIsInstance(self.phone.answer(KeepAlive(1)), KeepAliveResponse)


class RevocationTests(DomainCase):
    def setUp(self) -> None:
        """Phone talks to laptop and tablet."""
        super().setUp()
        self.connect(self.phone, self.laptop)
        self.connect(self.tablet, self.phone)

    def test_within_a_second(self) -> None:
        """R34: session and tunnels of a revoked device end within a second, abroad too."""
        self.dc1.domain.revoke(PHONE)
        self.world.run(0.2)
        self.assertEqual(self.tablet.ordered, [PHONE])
        self.assertEqual(self.laptop.ordered, [PHONE])
        self.assertEqual(self.phone.ordered, [PHONE])
        self.phone.ask(KeepAlive(1), "late")
        self.world.run(0.5)
        self.assertNotIn("late", self.phone.answers)
        self.assertIsNone(self.dc1.domain.clients.find(PHONE))
        self.assertEqual(self.dc1.domain.drain_changes()[1], [PHONE])

    def test_sleeping_correspondent(self) -> None:
        """R34: a correspondent that was off is told when it registers again."""
        self.tablet.deaf = True
        self.dc1.domain.revoke(PHONE)
        self.world.run(100.0)
        self.tablet.deaf = False
        self.assertEqual(self.tablet.ordered, [])
        self.tablet.register()
        self.assertEqual(self.tablet.ordered, [PHONE])
        self.world.run(1.0)
        self.tablet.register()
        self.assertEqual(self.tablet.ordered, [PHONE])

    def test_after_a_restart(self) -> None:
        """R34: what was revoked while the DC was down ends when it is up, tunnels included."""
        changed, _ = self.dc1.domain.drain_changes()
        self.dc1.start(tuple(changed))
        self.dc1.domain.revoke(PHONE)
        self.world.run(0.2)
        self.assertEqual(self.laptop.ordered, [PHONE])
        self.assertEqual(self.tablet.ordered, [])
        self.tablet.session.start(self.world.now)
        self.tablet.flush()
        self.world.run(0.1)
        self.tablet.register()
        self.assertEqual(self.tablet.ordered, [PHONE])

    def test_of_a_former_certificate(self) -> None:
        """R3, R34: a replaced certificate ends the tunnels it made, not the new device."""
        serial = self.phone.certificate.serial
        fresh = self.realm.device(PHONE)
        self.world.log_in(fresh[0], fresh[2], ELSEWHERE)
        self.dc1.domain.revoke(PHONE, serial.to_bytes(20, "big"))
        self.world.run(0.2)
        self.assertEqual(self.laptop.ordered, [PHONE])
        self.assertEqual(self.tablet.ordered, [PHONE])
        again = self.world.devices[PHONE]
        self.assertIsInstance(again.answer(KeepAlive(1)), KeepAliveResponse)
        self.assertEqual(again.ordered, [])

    def test_by_serial(self) -> None:
        """R34: a revocation by serial of the present certificate ends the device."""
        serial = self.phone.certificate.serial
        self.dc1.domain.revoke(PHONE, serial.to_bytes(20, "big").lstrip(b"\0"))
        self.assertIsNone(self.dc1.domain.clients.find(PHONE))

    def test_unknown(self) -> None:
        """A revocation of nobody, or of a user's name, does nothing."""
        for name in (f"nobody.alice.{DC1}", f"alice.{DC1}", LAPTOP):
            self.dc1.domain.revoke(name)
        self.assertIsNotNone(self.dc1.domain.clients.find(PHONE))

    def test_directions_under_way(self) -> None:
        """R34: a direction of a revoked device that waits for a sleeper never reaches it."""
        self.laptop.deaf = True
        self.world.run(70.0)
        self.phone.register()
        self.phone.answer(self.phone.request(LAPTOP))
        self.assertEqual(len(self.dc2.domain.waiting), 1)
        self.dc1.domain.revoke(PHONE)
        self.world.run(0.1)
        self.assertEqual(len(self.dc2.domain.waiting), 0)
        self.laptop.deaf = False
        told = len(self.laptop.told)
        self.laptop.register()
        self.assertEqual(len(self.laptop.told), told)

    def test_many_abroad(self) -> None:
        """R34: more correspondents than one notice carries are told in several."""
        client = self.dc1.domain.clients.find(PHONE)
        assert client is not None
        notices = []

        async def asked(side: Side, domain: str, message: Message) -> Message:
            notices.append(message)
            return LinkAcknowledgement()

        self.patch(Side, "ask_coordinator", asked)
        for number in range(600):
            client.talks_to(f"d{number}.bob.{DC2}")
        self.dc1.domain.revoke(PHONE)
        self.assertEqual(len(notices), 3)

    def test_unreachable_abroad(self) -> None:
        """A DC that cannot be told is logged; nothing else is held up."""
        self.dc1.unreachable.add(DC2)
        self.dc1.domain.revoke(PHONE)
        self.world.run(0.2)
        self.assertEqual(self.tablet.ordered, [PHONE])

    def test_notice_of_another_domain(self) -> None:
        """R1: a DC revokes devices of its own domain only."""
        notice = RevocationNotice(TABLET, (LAPTOP,))
        with self.assertRaises(AuthenticationError):
            self.dc2.domain.coordinator_asked("dc3.ntm.example", notice)
        with self.assertRaises(NTMobileError):
            self.dc2.domain.coordinator_asked(DC1, RevocationNotice("dc1", (LAPTOP,)))
        self.world.run(0.1)
        self.assertEqual(self.laptop.ordered, [])

    def test_notice(self) -> None:
        """R34: a notice reaches the correspondents that are ours."""
        self.connect(self.phone, self.laptop)
        notice = RevocationNotice(PHONE, (LAPTOP, DESK, TABLET, f"bob.{DC2}"))
        self.assertEqual(self.dc2.domain.coordinator_asked(DC1, notice), LinkAcknowledgement())
        self.world.run(0.1)
        self.assertEqual(self.laptop.ordered, [PHONE])
        self.assertEqual(self.tablet.ordered, [])

    def test_notice_of_strangers(self) -> None:
        """R34: a DC that makes up revocations costs nobody an order, nor displaces a real one."""
        self.connect(self.phone, self.laptop)
        self.laptop.deaf = True
        self.dc2.domain.coordinator_asked(DC1, RevocationNotice(PHONE, (LAPTOP,)))
        for number in range(300):
            notice = RevocationNotice(f"no{number}.alice.{DC1}", (LAPTOP, DESK))
            self.dc2.domain.coordinator_asked(DC1, notice)
        self.assertEqual(len(self.dc2.domain.orders), 1)
        self.laptop.deaf = False
        self.laptop.register()
        self.world.run(0.2)
        self.assertEqual(set(self.laptop.ordered), {PHONE})

    def test_other_requests(self) -> None:
        """What a coordinator does not ask ends its link."""
        with self.assertRaises(AuthenticationError):
            self.dc2.domain.coordinator_asked(DC1, KeepAlive(1))


class StoreTests(DomainCase):
    def stored(self) -> dict[str, StoredClient]:
        """What is to be stored."""
        return {one.fqdn: one for one in self.dc1.domain.drain_changes()[0]}

    def test_changes_once(self) -> None:
        """What changed is given to the store once."""
        self.assertEqual(set(self.stored()), {PHONE, TABLET})
        self.assertEqual(self.stored(), {})
        self.phone.answer(KeepAlive(1))
        self.assertEqual(self.stored(), {})
        self.phone.register(ELSEWHERE)
        self.assertEqual(set(self.stored()), {PHONE})

    def test_restart(self) -> None:
        """R7: a DC that restarts knows its clients; they say hello and go on, without a login."""
        self.phone.answer(PolicyRequest(3, (LAPTOP,), (TABLET,)))
        self.connect(self.phone, self.laptop)
        before = self.dc1.domain.clients.find(PHONE)
        assert before is not None
        self.dc1.start(tuple(self.stored().values()))
        after = self.dc1.domain.clients.find(PHONE)
        assert after is not None
        for name in ("location", "policy", "order", "index", "certificate", "correspondents"):
            self.assertEqual(getattr(after, name), getattr(before, name), name)
        self.assertFalse(after.online(self.world.now))
        self.assertAlmostEqual(after.expires, before.expires, places=3)
        tag = self.phone.ask(KeepAlive(self.phone.generation, 20))
        self.world.run(0.5)
        self.assertIn(tag, self.phone.answers)

    def test_order_after_a_restart(self) -> None:
        """A user's name stands for the device that registered last, before the restart or after."""
        self.tablet.register()
        self.dc1.start(tuple(self.stored().values()))
        found = self.dc1.domain.clients.find(f"alice.{DC1}")
        assert found is not None
        self.assertEqual(found.fqdn, TABLET)

    def test_nudged_after_a_restart(self) -> None:
        """R7: a client that is asked for before it noticed the restart is hinted at, and comes."""
        self.dc1.start(tuple(self.stored().values()))
        answer = self.connect(self.laptop, self.phone)
        assert isinstance(answer, DirectionResponse)
        self.assertEqual(answer.outcome, Outcome.WAKING)
        self.world.run(0.1)
        self.assertTrue(self.phone.session.open)
        self.phone.register()
        self.assertGreaterEqual(len(self.phone.told), 1)

    def test_expired_meanwhile(self) -> None:
        """A session that ended while the DC was down is not restored, and leaves the store."""
        stored = self.stored()
        self.world.clock.advance(90_000.0)
        self.dc1.start(tuple(stored.values()))
        self.assertEqual(len(self.dc1.domain.clients), 0)
        self.assertEqual(set(self.dc1.domain.drain_changes()[1]), {PHONE, TABLET})

    def test_unreadable(self) -> None:
        """What another version stored, or a damaged disk, costs that client a login and no more."""
        stored = self.stored()
        good = stored[PHONE]
        self.dc1.start(
            (
                evolve(stored[TABLET], location=b"\xff"),
                evolve(stored[TABLET], policy=b"\x90"),
                evolve(stored[TABLET], certificate=b"nonsense"),
                evolve(stored[TABLET], correspondents=b"\x01"),
                good,
            )
        )
        self.assertEqual([one.fqdn for one in self.dc1.domain.clients], [PHONE])
        self.assertEqual(self.dc1.domain.drain_changes()[1], [TABLET])

    def test_secrets_are_not_shown(self) -> None:
        """R6: no key is in what a log would show."""
        key = self.dc1.domain.keys[PHONE]
        table = self.dc1.domain.signalling.table
        shown = (self.stored()[PHONE], self.dc1.domain.clients, table, self.phone.session)
        for each in shown:
            self.assertFalse(key.hex() in repr(each) or repr(key)[2:-1] in repr(each))
        self.assertFalse(fields(Domain).keys.repr)

    def test_end_of_a_session(self) -> None:
        """A session ends with its certificate: the client is told that it is unknown."""
        self.world.clock.advance(86_400.0)
        self.dc1.domain.tick()
        self.assertEqual(len(self.dc1.domain.clients), 0)
        port = self.dc1.port
        sent: list[bytes] = []
        cast(Any, port).transport = Transport(lambda datagram, remote: sent.append(datagram))
        self.phone.session.conversation.request(KeepAlive(1), None, self.world.now)
        port.datagramReceived(self.phone.session.transmissions()[0].datagram, A)
        self.assertEqual(Header.parse(sent[0]).kind, Kind.SIGNAL_UNKNOWN)

    def test_second_login(self) -> None:
        """A login replaces the session: the former one is unknown from then on."""
        former = self.phone.session
        again = self.world.log_in(self.phone.identity, self.phone.certificate, A)
        self.assertIsInstance(again.answer(KeepAlive(1)), KeepAliveResponse)
        former.conversation.request(KeepAlive(1), None, self.world.now)
        sealed = former.transmissions()[0].datagram
        dropped = self.dc1.domain.signalling.table.dropped
        self.dc1.port.datagramReceived(sealed, A)
        self.assertEqual(self.dc1.domain.signalling.table.dropped, dropped)
        self.assertEqual(len(self.dc1.domain.signalling.table), 2)


class WireTests(DomainCase):
    def test_port(self) -> None:
        """R8: datagrams of strangers reach nobody and raise nothing."""
        for datagram in (b"", bytes(1500), b"\x23" * 40, b"\x20" * 68):
            self.dc1.port.datagramReceived(datagram, ("198.51.100.66", 6))
        self.assertEqual(self.dc1.domain.signalling.table.dropped, 4)
        self.assertEqual(DC, ("203.0.113.1", 4330))

    def test_stop(self) -> None:
        """A DC that stops leaves no timer behind."""
        self.laptop.deaf = True
        self.phone.ask(self.phone.request(LAPTOP))
        self.world.run(0.5)
        for side in (self.dc1, self.dc2):
            side.domain.signalling.stop()
        self.world.clock.advance(0.02)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
