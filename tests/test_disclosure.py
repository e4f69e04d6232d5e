from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import ntmobile.machines.direction.disclosure as module
from ntmobile.machines.direction.deciding import check_request
from ntmobile.machines.direction.records import FRESHNESS
from ntmobile.wire.codec import encode
from ntmobile.wire.messages.coordination import InformationRequest, InformationResponse
from ntmobile.wire.messages.realtime import Outcome, PolicyRequest
from tests.coordinators import DC1, DC2, DESK, LAPTOP, PHONE, START, TABLET, World
from tests.realms import MemoryRealm

A4, B4, C4 = ("203.0.113.7", 4000), ("203.0.113.8", 4000), ("203.0.113.9", 4000)
UNKNOWN = encode(InformationResponse(Outcome.UNKNOWN))


class DisclosureTests(SynchronousTestCase):
    realm = MemoryRealm(now=START)

    def setUp(self) -> None:
        """The phone's DC asks the laptop's."""
        self.world = World()
        self.dc1 = self.world.coordinator(DC1, self.realm)
        self.dc2 = self.world.coordinator(DC2, self.realm)
        self.world.device(PHONE, A4)
        self.world.device(TABLET, C4)
        self.world.device(LAPTOP, B4)

    def ask(self, request: InformationRequest, domain: str = DC1) -> InformationResponse:
        """Ask dc2."""
        return self.dc2.disclosure.asked(domain, request, self.world.now, self.world.at)

    def allow(self, fqdn: str, *patterns: str) -> None:
        """A device sets its allow list."""
        client = self.world.client(fqdn)
        policy = PolicyRequest(client.policy.generation + 1, patterns)
        self.dc2.clients.set_policy(client, policy)

    def assert_unknown(self, request: InformationRequest, domain: str = DC1) -> None:
        """The answer is, to the byte, what everybody hears of nobody."""
        self.assertEqual(encode(self.ask(request, domain)), UNKNOWN)

    def test_admitted(self) -> None:
        """R13: whoever is on CN's list hears its certificate and location."""
        answer = self.ask(self.world.information(PHONE, LAPTOP))
        self.assertEqual((answer.outcome, answer.cn), (Outcome.OK, LAPTOP))
        self.assertEqual(answer.certificate, self.world.devices[LAPTOP].certificate.der)
        self.assertEqual(answer.location, self.world.client(LAPTOP).located(self.world.now))
        self.assertFalse(answer.hide)

    def test_denied_is_unknown(self) -> None:
        """R13: a stranger cannot tell "denied" from "unknown": the same bytes."""
        self.allow(LAPTOP, TABLET)
        self.assert_unknown(self.world.information(PHONE, LAPTOP))
        self.assert_unknown(self.world.information(PHONE, f"nobody.bob.{DC2}"))
        self.assert_unknown(self.world.information(PHONE, f"nobody.{DC2}"))
        self.assert_unknown(self.world.information(PHONE, "..."))
        self.allow(LAPTOP)
        self.assert_unknown(self.world.information(TABLET, LAPTOP))
        self.assertEqual(self.dc2.disclosure.refused, 5)

    def test_denied_is_unknown_to_the_requester(self) -> None:
        """R13: nor can MN tell it from what its own DC says in the end."""
        self.allow(LAPTOP, TABLET)
        heard = set()
        for cn in (LAPTOP, DESK):
            token = self.world.direct(PHONE, cn)
            response = self.world.responses[token]
            heard.add((response.outcome, response.detail.replace(cn, "CN")))
        self.assertEqual(len(heard), 1)
        self.assertEqual(self.dc2.notified, [])

    def test_denied_user(self) -> None:
        """R13: the same for a user's name whose device denies."""
        self.allow(LAPTOP, TABLET)
        self.assert_unknown(self.world.information(PHONE, f"bob.{DC2}"))
        self.allow(LAPTOP, PHONE)
        answer = self.ask(self.world.information(PHONE, f"bob.{DC2}"))
        self.assertEqual(answer.cn, LAPTOP)

    def test_verified_for_those_who_are_not_here_too(self) -> None:
        """R13: a request for nobody costs the same checks as one for somebody: no time tells."""
        verified = []

        def counting(*arguments: Any) -> bool:
            verified.append(arguments)
            return check_request(*arguments)

        self.patch(module, "check_request", counting)
        self.assert_unknown(self.world.information(PHONE, f"nobody.bob.{DC2}"))
        self.allow(LAPTOP, TABLET)
        self.assert_unknown(self.world.information(PHONE, LAPTOP))
        self.assertEqual(len(verified), 2)

    def test_forged_signature(self) -> None:
        """R13: DC_MN cannot ask for what MN did not: every signed field counts."""
        for change in (
            {"signature": bytes(64)},
            {"cn": f"desk.bob.{DC2}"},
            {"nonce": b"n" * 16},
            {"issued": int(self.world.at * 1000) + 1},
        ):
            self.assert_unknown(self.world.information(PHONE, LAPTOP, **change))
        self.assertFalse(self.dc2.disclosure.admitted(PHONE, LAPTOP, self.world.now))

    def test_of_another_device(self) -> None:
        """R1: name and certificate must be the same device's."""
        tablet = self.world.devices[TABLET].certificate.der
        self.assert_unknown(self.world.information(PHONE, LAPTOP, mn=TABLET))
        self.assert_unknown(self.world.information(PHONE, LAPTOP, certificate=tablet))
        self.assert_unknown(self.world.information(PHONE, LAPTOP, certificate=bytes(64)))

    def test_coordinator_of_another_domain(self) -> None:
        """R1: a DC asks for devices of its own domain only, true as the request may be."""
        self.assert_unknown(self.world.information(PHONE, LAPTOP), "dc3.ntm.example")
        self.assert_unknown(self.world.information(PHONE, LAPTOP), "ntm.example")

    def test_untrusted_realm(self) -> None:
        """R1: a device of a realm that is not trusted."""
        other = MemoryRealm("other.example", now=START)
        self.world.coordinator("dc.other.example", other)
        self.world.device("tv.eve.dc.other.example", A4)
        request = self.world.information("tv.eve.dc.other.example", LAPTOP)
        self.assert_unknown(request, "dc.other.example")

    def test_expired_certificates(self) -> None:
        """R12: neither an expired MN nor an expired CN is told of."""
        request = self.world.information(PHONE, LAPTOP)
        self.world.now = 86400.0 * 2
        issued = int(self.world.at * 1000)
        self.assert_unknown(self.world.information(PHONE, LAPTOP, issued=issued))
        self.assert_unknown(request)
        fresh = self.dc2.disclosure.disclose(PHONE, LAPTOP, self.world.now, self.world.at)
        self.assertEqual(encode(fresh), UNKNOWN)

    def test_replayed(self) -> None:
        """R13: a request is told once; a second telling, by whatever DC, hears nothing."""
        request = self.world.information(PHONE, LAPTOP)
        self.assertEqual(self.ask(request).outcome, Outcome.OK)
        self.assert_unknown(request)
        self.world.now += FRESHNESS - 1.0
        self.assert_unknown(request)

    def test_stale(self) -> None:
        """R13: a request that is older than what is remembered is refused for its age."""
        request = self.world.information(PHONE, LAPTOP)
        self.world.now = FRESHNESS + 1.0
        self.assert_unknown(request)
        self.assertEqual(self.ask(self.world.information(PHONE, LAPTOP)).outcome, Outcome.OK)

    def test_memory_is_bounded(self) -> None:
        """A DC that asks without end is answered BUSY; it takes nothing from the others."""
        self.patch(module, "SEEN", 3)
        for _ in range(3):
            self.ask(self.world.information(PHONE, LAPTOP))
        self.assertEqual(self.ask(self.world.information(PHONE, LAPTOP)).outcome, Outcome.BUSY)
        self.world.coordinator("dc3.ntm.example", self.realm)
        self.world.device("pad.carol.dc3.ntm.example", A4)
        request = self.world.information("pad.carol.dc3.ntm.example", LAPTOP)
        self.assertEqual(self.ask(request, "dc3.ntm.example").outcome, Outcome.OK)
        self.world.now = 2 * FRESHNESS + 1.0
        self.assertEqual(self.ask(self.world.information(PHONE, LAPTOP)).outcome, Outcome.OK)

    def test_domains_are_bounded(self) -> None:
        """The DCs whose requests are remembered are bounded; idle ones make room."""
        self.patch(module, "DOMAINS", 1)
        self.ask(self.world.information(PHONE, LAPTOP))
        self.world.coordinator("dc3.ntm.example", self.realm)
        self.world.device("pad.carol.dc3.ntm.example", A4)
        request = self.world.information("pad.carol.dc3.ntm.example", LAPTOP)
        self.assertEqual(self.ask(request, "dc3.ntm.example").outcome, Outcome.BUSY)
        self.world.now = 2 * FRESHNESS + 1.0
        request = self.world.information("pad.carol.dc3.ntm.example", LAPTOP)
        self.assertEqual(self.ask(request, "dc3.ntm.example").outcome, Outcome.OK)

    def test_rate(self) -> None:
        """R8: a DC that floods is cut short before any signature is checked."""
        self.patch(module, "check_request", lambda *arguments: False)
        request = self.world.information(PHONE, LAPTOP)
        answers = [self.ask(request).outcome for _ in range(2500)]
        self.assertEqual(answers.count(Outcome.BUSY), 500)
        self.assertEqual(answers.count(Outcome.UNKNOWN), 2000)

    def test_admission_ends(self) -> None:
        """A pair that was disclosed may be directed for a minute, in that order only."""
        self.ask(self.world.information(PHONE, LAPTOP))
        disclosure = self.dc2.disclosure
        self.assertTrue(disclosure.admitted(PHONE, LAPTOP, 59.9))
        self.assertFalse(disclosure.admitted(PHONE, LAPTOP, 60.0))
        self.assertFalse(disclosure.admitted(LAPTOP, PHONE, 0.0))
        self.assertFalse(disclosure.admitted(TABLET, LAPTOP, 0.0))

    def test_not_itself(self) -> None:
        """A user's name that stands for the asking device leads to nobody."""
        request = self.world.information(LAPTOP, f"bob.{DC2}")
        self.assert_unknown(request, DC2)
