"""Revocations that other domains' DCs hear later, and relays that forget the revoked (R34)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.revocation import notices
from ntmobile.machines.revocation.notices import FIRST, MOST, ForeignNotices
from ntmobile.servers.notices import NOTICED
from ntmobile.wire.messages.coordination import InformationRequest, RevocationNotice
from tests.coordinators import DC1, DC2, LAPTOP, PHONE, START, TABLET
from tests.domains import Side, World
from tests.realms import MemoryRealm

DC3 = "dc3.ntm.example"


def notice(number: int, peers: int = 1) -> RevocationNotice:
    """A notice for some correspondents."""
    names = tuple(f"d{each}.bob.{DC2}" for each in range(peers))
    return RevocationNotice(f"d{number}.alice.{DC1}", names)


class ForeignNoticesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing to tell."""
        self.notices = ForeignNotices()

    def told(self, now: float) -> dict[str, list[RevocationNotice]]:
        """All that is told at a time, and heard."""
        found: dict[str, list[RevocationNotice]] = {}
        for domain in self.notices.due(now):
            while (one := self.notices.next(domain)) is not None:
                found.setdefault(domain, []).append(one)
                self.notices.heard(domain, one)
        return found

    def miss(self, now: float) -> list[float]:
        """All that is due is missed: how long it waits then."""
        waits = []
        for domain in self.notices.due(now):
            one = self.notices.next(domain)
            assert one is not None
            waits.append(self.notices.missed(domain, one, now))
        return waits

    def test_once(self) -> None:
        """What was heard is not told again."""
        for number in (1, 2):
            self.notices.add(DC2, notice(number), 100.0)
        self.assertEqual(self.told(0.0), {DC2: [notice(1), notice(2)]})
        self.assertEqual((self.told(1.0), len(self.notices)), ({}, 0))

    def test_back_off(self) -> None:
        """A DC out of reach is told again, less and less often."""
        self.notices.add(DC2, notice(1), 1e6)
        now, waits = 0.0, []
        for _ in range(12):
            (wait,) = self.miss(now)
            self.assertEqual(self.miss(now + wait - 0.1), [])
            waits.append(wait)
            now += wait
        self.assertEqual(waits[:4], [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST])
        self.assertEqual(waits[-1], MOST)
        self.assertEqual(self.told(now), {DC2: [notice(1)]})

    def test_present(self) -> None:
        """A DC that is heard of is told at once."""
        self.notices.add(DC2, notice(1), 1e6)
        for now in (0.0, 1000.0, 2000.0):
            self.miss(now)
        self.notices.present(DC2)
        self.notices.present(DC3)
        self.assertEqual(self.told(2000.1), {DC2: [notice(1)]})

    def test_one_at_a_time(self) -> None:
        """While a DC is being told, it is not told twice; what comes meanwhile follows."""
        self.notices.add(DC2, notice(1), 100.0)
        self.assertEqual(self.notices.due(0.0), [DC2])
        self.notices.add(DC2, notice(2), 100.0)
        self.notices.present(DC2)
        self.assertEqual(self.notices.due(1.0), [])
        self.assertEqual(self.notices.next(DC2), notice(1))
        self.notices.heard(DC2, notice(1))
        self.assertEqual(self.notices.next(DC2), notice(2))

    def test_turns(self) -> None:
        """One that a DC does not take does not keep the others from it."""
        for number in (1, 2):
            self.notices.add(DC2, notice(number), 100.0)
        self.miss(0.0)
        self.assertEqual(self.told(FIRST), {DC2: [notice(2), notice(1)]})

    def test_over(self) -> None:
        """It is kept no longer than what was revoked would have lived."""
        self.notices.add(DC2, notice(1), 100.0)
        self.miss(0.0)
        self.assertEqual((self.told(100.0), len(self.notices)), ({}, 0))

    def test_over_while_told(self) -> None:
        """Nor is it missed where it ends while it is being told."""
        self.notices.add(DC2, notice(1), 100.0)
        self.notices.due(0.0)
        self.assertEqual(self.notices.due(100.0), [])
        self.notices.missed(DC2, notice(1), 100.0)
        self.assertEqual((self.miss(1000.0), len(self.notices)), ([], 0))

    def test_bounded(self) -> None:
        """Memory is bounded; the domain that holds most forgets its oldest."""
        self.patch(notices, "CAPACITY", 1000)
        self.notices.add(DC3, notice(0, 100), 100.0)
        for number in range(1, 100):
            self.notices.add(DC2, notice(number, 100), 100.0)
        self.assertEqual(len(self.notices), 10)
        told = self.told(0.0)
        self.assertEqual(told[DC3], [notice(0, 100)])
        self.assertEqual(told[DC2][-1], notice(99, 100))

    @given(st.lists(st.tuples(st.sampled_from("atmhp"), st.integers(0, 3)), max_size=60))
    def test_any_order(self, steps: list[tuple[str, int]]) -> None:
        """Whatever happens in whatever order, all is told in the end, and nothing is left over."""
        self.notices, now, added = ForeignNotices(), 0.0, set()
        heard: set[RevocationNotice] = set()
        for what, number in steps:
            now += number
            if what == "a":
                self.notices.add(DC2, notice(number), 1e9)
                added.add(notice(number))
            elif what == "t":
                heard.update(self.told(now).get(DC2, ()))
            elif what == "m":
                self.miss(now)
            elif what == "p":
                self.notices.present(DC2)
        heard.update(self.told(now + MOST).get(DC2, ()))
        self.assertEqual(heard, added)
        self.assertEqual((len(self.notices), self.notices._names), (0, 0))


class RevokingTests(SynchronousTestCase):
    """Phone and tablet at dc1, laptop at dc2; the phone talks to both."""

    realm = MemoryRealm(now=START)

    def setUp(self) -> None:
        """Make them."""
        self.world = World(self.realm)
        self.dc1, self.dc2 = self.world.sides[DC1], self.world.sides[DC2]
        self.phone = self.world.device(PHONE, ("203.0.113.7", 4000))
        self.tablet = self.world.device(TABLET, ("203.0.113.9", 4000))
        self.laptop = self.world.device(LAPTOP, ("203.0.113.8", 4000))
        for peer in (LAPTOP, TABLET):
            self.phone.answer(self.phone.request(peer))

    def relayed(self, side: Side) -> list[set[str]]:
        """The pairs that a DC's relay relays."""
        return [set(pair) for pair in side.relaying.values()]

    def test_out_of_reach(self) -> None:
        """R34: a DC that is out of reach hears of a revocation when it is back."""
        self.dc1.silent.add(DC2)
        self.dc1.domain.revoke(PHONE)
        self.world.run(60.0)
        self.assertEqual((self.laptop.ordered, self.tablet.ordered), ([], [PHONE]))
        self.dc1.silent.clear()
        self.world.run(70.0)
        self.assertEqual(self.laptop.ordered, [PHONE])
        self.assertEqual(len(self.dc1.domain.abroad.notices), 0)

    def test_back(self) -> None:
        """R34: and within a second or so where it says anything itself."""
        self.dc1.silent.add(DC2)
        self.dc1.domain.revoke(PHONE)
        self.world.run(60.0)
        self.dc1.silent.clear()
        question = self.laptop.request(TABLET)
        asked = (LAPTOP, self.laptop.certificate.der, TABLET, question.nonce, question.issued)
        request = InformationRequest(*asked, question.signature)
        self.dc1.domain.coordinator_asked(DC2, request)
        self.world.run(1.2)
        self.assertEqual(self.laptop.ordered, [PHONE])

    def test_too_late(self) -> None:
        """R34: it is not told any more when the certificate would have ended by itself."""
        self.dc1.silent.add(DC2)
        self.dc1.domain.revoke(PHONE)
        self.world.clock.advance(self.phone.certificate.not_after - self.world.at())
        self.dc1.domain.tick()
        self.assertEqual(len(self.dc1.domain.abroad.notices), 0)

    def test_many(self) -> None:
        """What does not fit one notice makes several, which are all repeated."""
        client = self.dc1.domain.clients.find(PHONE)
        assert client is not None
        for number in range(2 * NOTICED):
            client.talks_to(f"d{number}.bob.{DC2}")
        self.dc1.silent.add(DC2)
        self.dc1.domain.revoke(PHONE)
        self.assertEqual(len(self.dc1.domain.abroad.notices), 3)
        self.dc1.silent.clear()
        self.world.run(4.0)
        self.assertEqual(len(self.dc1.domain.abroad.notices), 0)

    def test_relays(self) -> None:
        """R34: the relays of its DC forget the tunnels of a revoked device, and no others."""
        self.tablet.answer(self.tablet.request(LAPTOP))
        self.assertEqual(len(self.relayed(self.dc1)), 3)
        self.dc1.domain.revoke(PHONE)
        self.assertEqual(self.relayed(self.dc1), [{TABLET, LAPTOP}])

    def test_relays_abroad(self) -> None:
        """R34: so do those of its correspondents' DCs."""
        self.laptop.answer(self.laptop.request(PHONE))
        self.assertEqual(self.relayed(self.dc2), [{LAPTOP, PHONE}])
        self.dc1.domain.revoke(PHONE)
        self.assertEqual(self.relayed(self.dc2), [])
