from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.direction import deciding as direction
from ntmobile.machines.direction.deciding import coordinator_domains
from ntmobile.machines.direction.records import DECISIONS, DIRECTION_LIFETIME, FRESHNESS
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    InformationRequest,
    InformationResponse,
    LocationUpdate,
    RouteDirectionTransfer,
    RouteDirectionTransferResponse,
)
from ntmobile.wire.messages.fields import Endpoint, Location
from ntmobile.wire.messages.realtime import DirectionResponse, Outcome, PolicyRequest
from tests.coordinators import (
    DC1,
    DC2,
    DESK,
    LAPTOP,
    PHONE,
    START,
    TABLET,
    Device,
    World,
)
from tests.realms import MemoryRealm

A4, B4, C4 = ("203.0.113.7", 4000), ("203.0.113.8", 4000), ("203.0.113.9", 4000)
NAT_A, HOME_A = ("198.51.100.1", 50_000), ("192.168.1.7", 4000)
NAT_B, HOME_B = ("198.51.100.2", 50_000), ("192.168.1.8", 4000)


class DirectionCase(SynchronousTestCase):
    """Two coordinators of one realm: phone and tablet at dc1, laptop at dc2."""

    realm = MemoryRealm(now=START)

    def setUp(self) -> None:
        """All are global and online."""
        self.world = World()
        self.dc1 = self.world.coordinator(DC1, self.realm)
        self.dc2 = self.world.coordinator(DC2, self.realm)
        self.phone = self.world.device(PHONE, A4)
        self.tablet = self.world.device(TABLET, C4)
        self.laptop = self.world.device(LAPTOP, B4)


class DirectingTests(DirectionCase):
    def test_both_ends_are_directed(self) -> None:
        """R15: each end hears of the other, with one identifier, one key and one initiator."""
        self.assertIs(self.world.outcome(PHONE, LAPTOP), Outcome.OK)
        (to_phone,), (to_laptop,) = self.phone.told, self.laptop.told
        self.assertEqual(to_phone.direction, to_laptop.direction)
        self.assertEqual(to_phone.temporal_key, to_laptop.temporal_key)
        self.assertEqual((to_phone.peer, to_laptop.peer), (LAPTOP, PHONE))
        self.assertEqual({to_phone.requester, to_laptop.requester}, {PHONE})
        self.assertEqual(to_phone.certificate, self.laptop.certificate.der)
        self.assertEqual(to_laptop.certificate, self.phone.certificate.der)
        self.assertTrue(to_phone.initiator)
        self.assertFalse(to_laptop.initiator)
        self.assertEqual(to_phone.candidates, (Endpoint.of(B4),))
        self.assertEqual(to_laptop.candidates, (Endpoint.of(A4),))

    def test_answer_names_the_direction(self) -> None:
        """The Direction Response says which of the directions that come is meant."""
        token = self.world.direct(PHONE, LAPTOP)
        self.assertEqual(self.world.responses[token].direction, self.phone.told[0].direction)

    def test_relay_keys(self) -> None:
        """R25: the relay and each end have that end's key, and no end has the other's."""
        self.world.direct(PHONE, LAPTOP)
        ((relay, order),) = self.world.relayed
        self.assertEqual(relay, f"rs1.{DC1}")
        to_phone, to_laptop = self.phone.told[0].relay, self.laptop.told[0].relay
        assert to_phone is not None and to_laptop is not None
        self.assertEqual((to_phone.key, to_laptop.key), order.keys)
        self.assertNotEqual(*order.keys)
        self.assertEqual((to_phone.side, to_laptop.side), (0, 1))
        self.assertEqual(order.direction, self.phone.told[0].direction)

    def test_initiator_is_behind_the_nat(self) -> None:
        """R15: the side behind a NAT initiates, whoever asked."""
        self.world.register(LAPTOP, NAT_B, HOME_B)
        self.world.direct(PHONE, LAPTOP)
        self.assertFalse(self.phone.told[-1].initiator)
        self.assertTrue(self.laptop.told[-1].initiator)

    def test_within_one_domain(self) -> None:
        """Both at one DC: the same, without another DC."""
        self.assertIs(self.world.outcome(PHONE, TABLET), Outcome.OK)
        self.assertEqual(self.world.asked, [])
        self.assertEqual(self.phone.told[0].temporal_key, self.tablet.told[0].temporal_key)

    def test_different_nats(self) -> None:
        """Behind different NATs the relay is used at once, and no address is told."""
        self.world.register(PHONE, NAT_A, HOME_A)
        self.world.register(LAPTOP, NAT_B, HOME_B)
        self.world.direct(PHONE, LAPTOP)
        for message in (self.phone.told[-1], self.laptop.told[-1]):
            self.assertTrue(message.relay_first)
            self.assertEqual(message.candidates, ())

    def test_correspondents_are_remembered(self) -> None:
        """R34: both DCs remember who talks to whom, for revocation."""
        self.world.direct(PHONE, LAPTOP)
        self.assertIn(LAPTOP, self.world.client(PHONE).correspondents)
        self.assertIn(PHONE, self.world.client(LAPTOP).correspondents)

    def test_fresh_every_time(self) -> None:
        """R18: each direction has an identifier, a temporal key and relay keys of its own."""
        for _ in range(5):
            self.world.direct(PHONE, LAPTOP)
        self.assertEqual(len({one.direction for one in self.phone.told}), 5)
        self.assertEqual(len({one.temporal_key for one in self.phone.told}), 5)
        self.assertEqual(len({one.relay.key for one in self.phone.told if one.relay}), 5)

    def test_crossed(self) -> None:
        """R15: each side's request makes a direction of its own; each says who asked."""
        self.world.direct(PHONE, LAPTOP)
        self.world.direct(LAPTOP, PHONE)
        self.assertEqual([one.requester for one in self.phone.told], [PHONE, LAPTOP])
        self.assertEqual([one.requester for one in self.laptop.told], [PHONE, LAPTOP])

    def test_hidden_by_either(self) -> None:
        """R13: relay_only of either side hides both sides' addresses from the other."""
        for mine, theirs in ((PHONE, LAPTOP), (LAPTOP, PHONE)):
            dc = self.dc1 if mine == PHONE else self.dc2
            dc.clients.set_policy(self.world.client(mine), PolicyRequest(1, ("*",), (theirs,)))
            self.world.direct(PHONE, LAPTOP)
            for device in (self.phone, self.laptop):
                self.assertEqual(device.told[-1].candidates, ())
                self.assertTrue(device.told[-1].relay_first)
            dc.clients.set_policy(self.world.client(mine), PolicyRequest(2, ("*",)))

    def test_hidden_from_the_coordinator(self) -> None:
        """R13: addresses that are hidden from MN are not told to its DC either."""
        policy = PolicyRequest(1, ("*",), (PHONE,))
        self.dc2.clients.set_policy(self.world.client(LAPTOP), policy)
        answer = self.world.ask(DC1, DC2, self.world.information(PHONE, LAPTOP))
        assert isinstance(answer, InformationResponse) and answer.location is not None
        self.assertTrue(answer.hide)
        self.assertEqual(answer.location.observed, (Endpoint(bytes(4), 1),))


class NameTests(DirectionCase):
    def test_domains(self) -> None:
        """R14: a name's DC is its name without two labels, or without one where it is a user's."""
        self.assertEqual(coordinator_domains(LAPTOP, DC1), [DC2, f"bob.{DC2}"])
        self.assertEqual(coordinator_domains(f"bob.{DC2}", DC1), ["ntm.example", DC2])
        self.assertEqual(coordinator_domains(f"alice.{DC1}", DC1), [DC1])
        self.assertEqual(coordinator_domains(TABLET, DC1), [DC1])
        for wrong in ("", "alice", "..", "a..b", "-a.b.c.d", DC1 + "."):
            self.assertEqual(coordinator_domains(wrong, DC1), [], wrong)

    def test_user_of_our_own(self) -> None:
        """A user's name stands for the device that registered last."""
        self.world.register(PHONE, A4)
        self.world.direct(LAPTOP, f"alice.{DC1}")
        self.assertEqual(self.laptop.told[-1].peer, PHONE)
        self.world.register(TABLET, C4)
        self.world.direct(PHONE, f"alice.{DC1}")
        self.assertEqual(self.phone.told[-1].peer, TABLET)

    def test_user_of_another_domain(self) -> None:
        """The same abroad: it is no device of ntm.example, so the other DC is asked."""
        self.world.device(DESK, C4)
        self.assertIs(self.world.outcome(PHONE, f"bob.{DC2}"), Outcome.OK)
        self.assertEqual(self.phone.told[-1].peer, DESK)
        self.assertEqual([domain for _, domain, _ in self.world.asked][:2], ["ntm.example", DC2])

    def test_unknown_device_of_our_own(self) -> None:
        """Of our own domain we know ourselves that nobody is called so: no other DC is asked."""
        self.assertIs(self.world.outcome(PHONE, f"nobody.alice.{DC1}"), Outcome.UNKNOWN)
        self.assertEqual(self.world.asked, [])

    def test_unknown_abroad(self) -> None:
        """What the DC of that very domain says is told, not that a second guess failed."""
        for name in (f"nobody.bob.{DC2}", f"nobody.{DC2}"):
            token = self.world.direct(PHONE, name)
            response = self.world.responses[token]
            self.assertEqual(response.outcome, Outcome.UNKNOWN)
            self.assertEqual(response.detail, f"nobody is called {name}, or not for you to reach")

    def test_not_a_name(self) -> None:
        """What is no device's or user's name, or one's own, is refused."""
        for name in ("alice", "..", PHONE, "a..b.c"):
            self.assertIs(self.world.outcome(PHONE, name), Outcome.REFUSED, name)

    def test_own_user_name(self) -> None:
        """A user's name that stands for the asking device itself leads to nobody."""
        self.world.register(PHONE, A4)
        self.assertIs(self.world.outcome(PHONE, f"alice.{DC1}"), Outcome.UNKNOWN)

    def test_untrusted_realm(self) -> None:
        """R1: nobody is looked up, let alone connected to, in a realm that is not trusted."""
        self.assertIs(self.world.outcome(PHONE, "tv.eve.dc.evil.example"), Outcome.UNTRUSTED)
        self.assertEqual(self.world.asked, [])
        self.assertEqual(len(self.dc1.direction), 0)


class RequestTests(DirectionCase):
    def test_forged_signature(self) -> None:
        """R13: a request that MN did not sign, or not for this CN, asks nobody anything."""
        made, another = self.world.request(PHONE, LAPTOP), self.world.request(PHONE, TABLET)
        for forged in (
            {"signature": bytes(64)},
            {"signature": another.signature, "nonce": another.nonce},
            {"signature": self.world.request(TABLET, LAPTOP).signature},
            {"signature": made.signature, "nonce": bytes(16)},
            {"signature": made.signature, "nonce": made.nonce, "issued": made.issued + 1},
        ):
            request = msgspec.structs.replace(made, **forged)
            self.assertIs(self.world.outcome(PHONE, LAPTOP, request), Outcome.REFUSED)
        self.assertEqual(self.world.asked, [])

    def test_stale(self) -> None:
        """R12, R13: a request that is too old, or of the future, is refused."""
        for distance in (-FRESHNESS - 1, FRESHNESS + 1):
            issued = int((self.world.at + distance) * 1000)
            request = self.world.request(PHONE, LAPTOP, issued=issued)
            self.assertIs(self.world.outcome(PHONE, LAPTOP, request), Outcome.REFUSED)

    def test_too_many(self) -> None:
        """A client that asks without end is told to wait; others are not disturbed."""
        outcomes = [self.world.outcome(PHONE, TABLET) for _ in range(150)]
        self.assertEqual(outcomes.count(Outcome.BUSY), 50)
        self.assertIs(self.world.outcome(TABLET, PHONE), Outcome.OK)
        self.world.tick(2.0)
        self.assertIs(self.world.outcome(PHONE, TABLET), Outcome.OK)

    def test_bounded_table(self) -> None:
        """What cannot be remembered is answered BUSY."""
        self.patch(direction, "CAPACITY", 3)
        for _ in range(3):
            self.assertIs(self.world.outcome(PHONE, TABLET), Outcome.OK)
        self.assertIs(self.world.outcome(TABLET, PHONE), Outcome.BUSY)
        self.world.tick(DIRECTION_LIFETIME + 1)
        self.world.register(PHONE, A4)
        self.assertIs(self.world.outcome(TABLET, PHONE), Outcome.OK)

    def test_temporal_keys_are_forgotten(self) -> None:
        """R18: after 60 s no DC knows the temporal key any more, and relayed news makes no more."""
        self.world.acknowledges = False
        self.world.direct(PHONE, LAPTOP)
        identifier = self.phone.told[0].direction
        self.world.tick(DIRECTION_LIFETIME - 1)
        self.assertEqual((len(self.dc1.direction), len(self.dc2.waiting)), (1, 1))
        self.world.tick(1.0)
        self.assertEqual((len(self.dc1.direction), len(self.dc2.waiting)), (0, 0))
        update = LocationUpdate(
            identifier, LAPTOP, self.world.client(LAPTOP).located(self.world.now)
        )
        self.dc1.hears(DC2, update)
        self.assertEqual(len(self.phone.told), 1)

    def test_lifetime_is_what_is_left(self) -> None:
        """R18: a direction that is decided again late says how long its key still lives."""
        self.world.direct(PHONE, LAPTOP)
        self.world.tick(40.0)
        location = Location(9, (Endpoint.of(C4),), (Endpoint.of(C4),))
        self.dc1.hears(DC2, LocationUpdate(self.phone.told[0].direction, LAPTOP, location))
        self.assertEqual([one.lifetime for one in self.phone.told], [60, 20])

    def test_log_out_meanwhile(self) -> None:
        """MN that logged out while others were asked gets nothing, and nothing is left."""

        def meanwhile(message: Message) -> None:
            self.dc1.clients.remove(PHONE)

        self.world.forge[DC2] = meanwhile
        request, client = self.world.request(PHONE, LAPTOP), self.world.client(PHONE)
        self.dc1.perform(
            self.dc1.direction.asked(client, request, "token", self.world.now, self.world.at)
        )
        self.assertEqual(self.world.responses["token"].outcome, Outcome.REFUSED)
        self.assertEqual(len(self.dc1.direction), 0)

    def test_revoked_meanwhile(self) -> None:
        """R34: of a device that is revoked nothing is decided any more."""
        self.world.acknowledges = False
        self.world.direct(PHONE, LAPTOP)
        self.dc1.perform(self.dc1.direction.revoked(PHONE))
        self.dc2.waiting.revoked(PHONE)
        self.assertEqual((len(self.dc1.direction), len(self.dc2.waiting)), (0, 0))


class RelayTests(DirectionCase):
    def test_busy_relay(self) -> None:
        """R26: a relay that is busy or silent is passed over; the next one takes over."""
        self.dc1.relays.answers = {"rs1": Outcome.BUSY, "rs2": None, "rs3": Outcome.OK}
        self.assertIs(self.world.outcome(PHONE, LAPTOP), Outcome.OK)
        relay = self.phone.told[0].relay
        assert relay is not None
        self.assertEqual(relay.name, "rs3")
        self.assertEqual(len(self.phone.told), 1)

    def test_avoided_relay(self) -> None:
        """R26: a relay that failed the client is not given again."""
        self.dc1.relays.answers = {"rs1": Outcome.OK, "rs2": Outcome.OK}
        self.world.direct(PHONE, LAPTOP, self.world.request(PHONE, LAPTOP, avoid=("rs1",)))
        relay = self.phone.told[0].relay
        assert relay is not None
        self.assertEqual(relay.name, "rs2")

    def test_no_relay_but_direct(self) -> None:
        """Where direct may work, no relay is no reason to refuse."""
        self.dc1.relays.answers = {}
        self.assertIs(self.world.outcome(PHONE, LAPTOP), Outcome.OK)
        self.assertIsNone(self.phone.told[0].relay)

    def test_no_relay_and_not_direct(self) -> None:
        """Where only a relay would do and none is there, MN hears so."""
        self.world.register(PHONE, NAT_A, HOME_A)
        self.world.register(LAPTOP, NAT_B, HOME_B)
        for names in ((), ("rs1",)):
            self.dc1.relays.answers = dict.fromkeys(names, Outcome.BUSY)
            token = self.world.direct(PHONE, LAPTOP)
            response = self.world.responses[token]
            self.assertEqual(response.outcome, Outcome.NO_RELAY)
            self.assertIn("behind different NATs", response.detail)
        self.assertEqual(self.laptop.told, [])

    def test_dual_stack_relay(self) -> None:
        """IPv4-only and IPv6-only talk through a relay that has both."""
        self.world.register(LAPTOP, ("2001:db8::8", 4000))
        self.world.direct(PHONE, LAPTOP)
        relay = self.phone.told[-1].relay
        assert relay is not None
        self.assertEqual({one.family for one in relay.endpoints}, {4, 6})
        self.dc1.relays.families = frozenset({4})
        self.assertIs(self.world.outcome(PHONE, LAPTOP), Outcome.NO_RELAY)


class ForeignCase(DirectionCase):
    """A third DC, of another realm that dc1 trusts and that trusts dc1's."""

    other = MemoryRealm("other.example", now=START)
    TV = "tv.eve.dc.other.example"

    def setUp(self) -> None:
        """Add it, and a device of its."""
        super().setUp()
        self.world = World()
        self.dc1 = self.world.coordinator(DC1, self.realm, self.other)
        self.dc2 = self.world.coordinator(DC2, self.realm)
        self.dc3 = self.world.coordinator("dc.other.example", self.other, self.realm)
        self.phone = self.world.device(PHONE, A4)
        self.laptop = self.world.device(LAPTOP, B4)
        self.tv: Device = self.world.device(self.TV, C4)


class ForeignTests(ForeignCase):
    def test_trusted(self) -> None:
        """R1: between realms that trust each other directions go both ways."""
        self.assertIs(self.world.outcome(PHONE, self.TV), Outcome.OK)
        self.assertIs(self.world.outcome(self.TV, PHONE), Outcome.OK)
        self.assertEqual({one.peer for one in self.phone.told}, {self.TV})

    def test_user_of_a_trusted_realm(self) -> None:
        """A user's name of another realm, whose parent domain nobody trusts."""
        self.assertIs(self.world.outcome(PHONE, "eve.dc.other.example"), Outcome.OK)
        self.assertEqual(self.phone.told[0].peer, self.TV)

    def test_one_sided_trust(self) -> None:
        """R1: dc2 does not trust the other realm: neither its request nor its DC's counts."""
        self.assertIs(self.world.outcome(self.TV, LAPTOP), Outcome.UNKNOWN)
        self.assertIs(self.world.outcome(LAPTOP, self.TV), Outcome.UNTRUSTED)
        self.assertEqual(self.laptop.told, [])

    def test_coordinator_speaks_for_another_domain(self) -> None:
        """R1: a DC that answers with a device of another domain, even with its true certificate."""
        location = Location(1, (Endpoint.of(("198.51.100.66", 6)),), ())
        stolen = self.laptop.certificate.der

        def forge(message: Message) -> Message | None:
            if isinstance(message, InformationRequest):
                return InformationResponse(Outcome.OK, LAPTOP, stolen, location)
            return None

        self.world.forge["ntm.example"] = forge
        token = self.world.direct(PHONE, f"laptop.bob.{DC2}")
        self.assertEqual(self.world.responses[token].outcome, Outcome.OK)
        self.phone.told.clear()
        # bob.dc2.ntm.example may be a device of ntm.example, whose DC claims a device of dc2.
        self.assertIsNot(self.world.outcome(PHONE, f"bob.{DC2}"), Outcome.UNTRUSTED)
        self.assertNotIn(
            Endpoint.of(("198.51.100.66", 6)),
            [one for message in self.phone.told for one in message.candidates],
        )

    def test_forged_certificates(self) -> None:
        """R1: certificates of another realm, another device, another time, or none."""
        location = Location(1, (Endpoint.of(C4),), ())
        imposter = MemoryRealm("other.example", now=START).device(self.TV)[2]
        other = self.other.device("radio.eve.dc.other.example")[2]
        self.other.now -= 3 * 86400.0
        expired = self.other.device(self.TV)[2]
        self.other.now += 3 * 86400.0
        for der in (imposter.der, other.der, self.phone.certificate.der, expired.der, bytes(64)):
            answer = InformationResponse(Outcome.OK, self.TV, der, location)
            self.world.forge["dc.other.example"] = self.answering(answer)
            self.assertIs(self.world.outcome(PHONE, self.TV), Outcome.UNTRUSTED)
        self.assertEqual(self.phone.told, [])

    def answering(self, answer: Message) -> Callable[[Message], Message]:
        """A DC that always answers the same."""
        return lambda message: answer

    def test_nonsense(self) -> None:
        """R11: a DC that answers with other messages, or numbers nobody knows, breaks nothing."""
        self.world.forge["dc.other.example"] = self.answering(DirectionResponse(0))
        self.assertIs(self.world.outcome(PHONE, self.TV), Outcome.UNREACHABLE)
        known = self.dc3.hears(DC1, self.world.information(PHONE, self.TV))
        assert isinstance(known, InformationResponse)
        for answer, expected in (
            (DirectionResponse(0), Outcome.UNREACHABLE),
            (RouteDirectionTransferResponse(200), Outcome.UNKNOWN),
            (RouteDirectionTransferResponse(Outcome.UNKNOWN), Outcome.UNKNOWN),
            (RouteDirectionTransferResponse(Outcome.BUSY), Outcome.BUSY),
        ):

            def forge(message: Message, answer: Message = answer) -> Message:
                return answer if isinstance(message, RouteDirectionTransfer) else known

            self.world.forge["dc.other.example"] = forge
            self.assertIs(self.world.outcome(PHONE, self.TV), expected)
        for outcome, expected in (
            (Outcome.BUSY, Outcome.BUSY),
            (77, Outcome.UNKNOWN),
            (Outcome.OK, Outcome.UNKNOWN),  # without a location
        ):
            self.world.forge["dc.other.example"] = self.answering(InformationResponse(outcome))
            self.assertIs(self.world.outcome(PHONE, self.TV), expected)

    def test_unreachable(self) -> None:
        """A DC that does not answer is told as such."""
        self.world.forge["dc.other.example"] = lambda message: Outcome.UNREACHABLE
        self.assertIs(self.world.outcome(PHONE, self.TV), Outcome.UNREACHABLE)


class LocationUpdateTests(ForeignCase):
    def update(
        self, location: Location, *, of: str = "", by: str = "dc.other.example", der: bytes = b""
    ) -> None:
        """A Location Update reaches dc1."""
        identifier = self.phone.told[0].direction
        self.dc1.hears(by, LocationUpdate(identifier, of or self.TV, location, der))

    def test_moved(self) -> None:
        """R16: CN registered elsewhere while its direction was fresh: it is decided again."""
        self.world.direct(PHONE, self.TV)
        self.world.acknowledges = False
        self.world.direct(PHONE, self.TV)
        self.world.register(self.TV, B4)
        self.assertEqual(self.phone.told[-1].candidates, (Endpoint.of(B4),))
        self.assertEqual(self.phone.told[-1].generation, 2)
        self.assertEqual(self.phone.told[-1].direction, self.phone.told[-2].direction)

    def test_forged(self) -> None:
        """R1, R9: of another DC, of another device, or an older place: nothing is decided again."""
        self.world.direct(PHONE, self.TV)
        elsewhere = Location(9, (Endpoint.of(B4),), ())
        self.update(elsewhere, by=DC2)
        self.update(elsewhere, of=LAPTOP, by=DC2)
        self.update(elsewhere, of=LAPTOP)
        self.update(Location(0, (Endpoint.of(B4),), ()))
        self.update(elsewhere, der=self.phone.certificate.der)
        self.update(elsewhere, der=bytes(100))
        self.assertEqual(len(self.phone.told), 1)

    def test_renewed_certificate(self) -> None:
        """A CN that woke with a renewed certificate is named with that one."""
        self.world.direct(PHONE, self.TV)
        renewed = self.other.certify(self.tv.certificate)
        self.update(Location(9, (Endpoint.of(B4),), ()), der=renewed.der)
        self.assertEqual(self.phone.told[-1].certificate, renewed.der)

    def test_no_news(self) -> None:
        """The same place again is no news."""
        self.world.direct(PHONE, self.TV)
        for _ in range(3):
            self.update(self.world.client(self.TV).located(self.world.now))
        self.assertEqual(len(self.phone.told), 1)

    def test_without_end(self) -> None:
        """A DC that reports a new place without end moves its own correspondents so often only."""
        self.world.direct(PHONE, self.TV)
        for number in range(100):
            self.update(Location(9 + number, (Endpoint.of(B4),), ()))
        self.assertEqual(len(self.phone.told), DECISIONS)
