from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Address, Transmit
from ntmobile.machines.signalling.requests import Asked
from ntmobile.machines.signalling.session import ClientSession, hello
from ntmobile.machines.signalling.table import (
    ClientAnswered,
    ClientAsked,
    ClientHeard,
    SessionTable,
)
from ntmobile.wire.codec import DATAGRAM_LIMIT
from ntmobile.wire.headers import HEADER_SIZE, Flag, Header, Kind
from ntmobile.wire.messages.realtime import Acknowledgement, KeepAlive, RevocationOrder
from tests.signalling import CLIENT4, CLIENT6, DC4, DC6, INDEX, KEY, Joined

STRANGER = ("198.51.100.66", 6)


def ready() -> Joined:
    """A client whose keys are agreed, on IPv4, and has been heard."""
    joined = Joined()
    joined.start()
    joined.client.conversation.request(KeepAlive(1), "up", joined.now)
    joined.run(1.0)
    joined.client.conversation.events()
    return joined


def transmitted(table: SessionTable) -> list[Transmit]:
    """What it sends; what else it wants is left out."""
    return [effect for effect in table.effects() if isinstance(effect, Transmit)]


class CheapRejectionTests(SynchronousTestCase):
    """R8: length, type, index and rate come before any cryptography and before any answer."""

    def setUp(self) -> None:
        """A table with one session that was never started."""
        self.table = SessionTable(Random(0).randbytes)
        self.table.add(INDEX, KEY)

    def give(self, datagram: bytes, remote: Address = STRANGER, now: float = 0.0) -> list[Transmit]:
        """Give it a datagram."""
        self.table.datagram_received(datagram, remote, now)
        return transmitted(self.table)

    def test_lengths(self) -> None:
        """R8, R10: too short and too long datagrams get no answer."""
        long = Header(Kind.SIGNAL_SEALED, 0, bytes(8), 0).pack() + bytes(DATAGRAM_LIMIT)
        for datagram in (b"", b"\x23", bytes(HEADER_SIZE - 1), long):
            self.assertEqual(self.give(datagram), [])
        self.assertEqual(self.table.dropped, 4)

    def test_port_zero(self) -> None:
        """R8: what claims to come from port 0 is dropped, even where a client sealed it."""
        joined = ready()
        joined.client.conversation.request(KeepAlive(2), "forged", joined.now)
        (sent,) = joined.client.transmissions()
        joined.table.effects()
        joined.table.datagram_received(sent.datagram, ("203.0.113.9", 0), joined.now)
        self.assertEqual(joined.table.effects(), [])

    def test_other_kinds(self) -> None:
        """R8: what no client sends to a DC gets no answer."""
        for kind in set(Kind) - {Kind.SIGNAL_SEALED}:
            self.assertEqual(self.give(Header(kind, 0, bytes(8), 0).pack() + bytes(40)), [])

    def test_unknown_index(self) -> None:
        """R8: a hint goes back, bare: 20 bytes, never more than what came."""
        for datagram in (
            Header(Kind.SIGNAL_SEALED, 0, b"nobody!!", 9).pack(),
            hello(b"nobody!!", bytes(32), bytes(16)),
        ):
            (answer,) = self.give(datagram)
            self.assertEqual(answer.remote, STRANGER)
            self.assertLessEqual(len(answer.datagram), len(datagram))
            header = Header.parse(answer.datagram)
            self.assertEqual((header.kind, header.index), (Kind.SIGNAL_UNKNOWN, b"nobody!!"))
            self.assertEqual(len(answer.datagram), HEADER_SIZE)

    def test_hints_are_rationed(self) -> None:
        """R8: however much comes under an address, it is sent a few bytes a second."""
        datagram = Header(Kind.SIGNAL_SEALED, 0, b"nobody!!", 9).pack()
        count = sum(len(self.give(datagram, now=step / 100)) for step in range(1000))
        self.assertLessEqual(count, 4 + 20)
        other_port = [self.give(datagram, (STRANGER[0], port), 10.0) for port in range(1000, 1100)]
        self.assertLessEqual(sum(map(len, other_port)), 4)

    def test_known_index_wrong_mac(self) -> None:
        """R8: a hello that is not authentic gets no answer."""
        self.assertEqual(self.give(hello(INDEX, bytes(32), bytes(16))), [])
        self.assertEqual(self.table.dropped, 1)

    def test_hellos_are_rationed(self) -> None:
        """R8: the cryptography that one index can cost is bounded."""
        drawn = []

        def random(size: int) -> bytes:
            drawn.append(size)
            return bytes(size)

        self.table = SessionTable(random)
        self.table.add(INDEX, KEY)
        for step in range(1000):
            self.give(hello(INDEX, KEY, step.to_bytes(16, "big")), now=step / 100)
        self.assertLessEqual(len(drawn), 6 + 20)

    def test_hellos_of_others(self) -> None:
        """R8: who knows an index and forges hellos of it from elsewhere keeps no client away."""
        for step in range(1000):
            self.give(hello(INDEX, bytes(32), step.to_bytes(16, "big")), now=step / 100)
            stranger = (f"2001:db8::{step:x}", 6)
            self.give(hello(INDEX, bytes(32), step.to_bytes(16, "big")), stranger, step / 100)
        self.assertEqual(len(self.give(hello(INDEX, KEY, bytes(16)), CLIENT4, 10.0)), 1)

    def test_hellos_from_everywhere(self) -> None:
        """R8: from however many networks they come, the cryptography of one index is bounded."""
        drawn: list[int] = []

        def draw(size: int) -> bytes:
            drawn.append(size)
            return bytes(size)

        self.table = SessionTable(draw)
        self.table.add(INDEX, KEY)
        for step in range(1000):
            remote = (f"198.51.{step // 250}.{step % 250}", 6)
            self.give(hello(INDEX, KEY, step.to_bytes(16, "big")), remote, 0.0)
        self.assertLessEqual(len(drawn), 100)

    def test_garbage_under_a_known_index(self) -> None:
        """R8: once there are keys, what they do not open gets no answer at all, not even a hint."""
        joined = ready()
        for body in (b"", bytes(16), bytes(100)):
            header = Header(Kind.SIGNAL_SEALED, 0, INDEX, 5).pack()
            joined.table.datagram_received(header + body, STRANGER, joined.now)
            self.assertEqual(joined.table.effects(), [])

    @given(st.binary(max_size=1300), st.sampled_from(list(Kind)), st.booleans(), st.booleans())
    @settings(deadline=None)
    def test_any_datagram(self, body: bytes, kind: Kind, known: bool, bare: bool) -> None:
        """R8, R11: whatever comes raises nothing and is answered with less than itself."""
        joined = ready()
        index = INDEX if known else b"nobody!!"
        datagram = body if bare else Header(kind, 0, index, len(body)).pack() + body
        joined.table.datagram_received(datagram, STRANGER, joined.now)
        for effect in joined.table.effects():
            assert isinstance(effect, Transmit)
            self.assertLessEqual(len(effect.datagram), len(datagram))

    @given(st.integers(0, 1 << 16), st.integers(0, 7))
    @settings(deadline=None)
    def test_mutated_datagrams(self, place: int, bit: int) -> None:
        """R11: what a client really sent, with a bit changed, is dropped without an answer."""
        joined = ready()
        flown = [one.datagram for one in joined.flown if one.upward]
        heard = len(joined.heard)
        for original in flown:
            datagram = bytearray(original)
            datagram[place % len(datagram)] ^= 1 << bit
            joined.table.datagram_received(bytes(datagram), STRANGER, joined.now)
            for effect in joined.table.effects():
                assert isinstance(effect, Transmit)
                self.assertEqual(Header.parse(effect.datagram).kind, Kind.SIGNAL_UNKNOWN)
        self.assertEqual(len(joined.heard), heard)


class AddressTests(SynchronousTestCase):
    def test_newest_datagram_moves_the_client(self) -> None:
        """R9: an authentic newest datagram from elsewhere is where the client is from then on."""
        joined = ready()
        moved = ("198.51.100.9", 999)
        joined.client_at = (moved, CLIENT6)
        joined.client.conversation.request(KeepAlive(2), "up", joined.now)
        joined.run(0.1)
        self.assertEqual(joined.heard[-1], moved)
        joined.table.request(INDEX, RevocationOrder("a.b.example"), None, joined.now)
        self.assertEqual({one.remote for one in transmitted(joined.table)}, {moved})

    def test_late_datagram_moves_nothing(self) -> None:
        """R9: a datagram that was overtaken is read, but moves the client nowhere."""
        joined = ready()
        joined.client.conversation.request(KeepAlive(2), "late", joined.now)
        (late,) = joined.client.transmissions()
        joined.client.conversation.request(KeepAlive(3), "up", joined.now)
        joined.run(0.05)
        heard = len(joined.heard)
        joined.table.datagram_received(late.datagram, STRANGER, joined.now)
        effects = joined.table.effects()
        self.assertEqual([type(one) for one in effects], [ClientAsked])
        self.assertEqual(len(joined.heard), heard)
        asked = effects[0]
        assert isinstance(asked, ClientAsked)
        joined.table.answer(INDEX, asked.asked, Acknowledgement())
        self.assertEqual([one.remote for one in transmitted(joined.table)], [CLIENT4])

    def test_copied_datagram_moves_nothing(self) -> None:
        """R9: a copy of a datagram that arrived is dropped."""
        joined = ready()
        upward = [one.datagram for one in joined.flown if one.upward]
        joined.table.datagram_received(upward[-1], STRANGER, joined.now)
        self.assertEqual(joined.table.effects(), [])

    def test_families_side_by_side(self) -> None:
        """R9: the newest address of each family is kept; answers go back where asked from."""
        joined = Joined(remotes=(DC4, DC6))
        joined.start()
        for remote in (DC6, DC4):
            joined.client.conversation.request(KeepAlive(2), remote, joined.now, remote=remote)
            joined.run(0.05)
        self.assertEqual(joined.heard[-2:], [CLIENT6, CLIENT4])
        downward = [one.target for one in joined.flown if not one.upward][-2:]
        self.assertEqual(downward, [CLIENT6, CLIENT4])

    def test_both_families_after_two_attempts(self) -> None:
        """What a client does not answer is tried under all its addresses from the third time on."""
        joined = Joined(remotes=(DC4, DC6))
        joined.start()
        for remote in (DC6, DC4):
            joined.client.conversation.request(KeepAlive(2), remote, joined.now, remote=remote)
            joined.run(0.05)
        before = len(joined.flown)
        joined.lost = lambda flight: not flight.upward
        joined.table.request(INDEX, RevocationOrder("a.b.example"), None, joined.now)
        joined.run(0.75)
        targets = [one.target for one in joined.flown[before:] if not one.upward]
        self.assertEqual(targets[:2], [CLIENT4, CLIENT4])
        self.assertEqual(set(targets[2:]), {CLIENT4, CLIENT6})


class RequestTests(SynchronousTestCase):
    def test_unanswered(self) -> None:
        """A request of the DC that a client does not answer ends with None."""
        joined = ready()
        joined.lost = lambda flight: True
        joined.table.request(INDEX, RevocationOrder("a.b.example"), "tag", joined.now, 3.0)
        joined.run(5.0)
        self.assertEqual(joined.answered, [ClientAnswered(INDEX, "tag", None)])
        self.assertIsNone(joined.table.next_timer())

    def test_no_session(self) -> None:
        """A request to a client that has no session, or no keys yet, ends at once."""
        table = SessionTable(Random(0).randbytes)
        table.add(INDEX, KEY)
        for index in (INDEX, b"nobody!!"):
            table.request(index, RevocationOrder("a.b.example"), "tag", 0.0)
            self.assertEqual(table.effects(), [ClientAnswered(index, "tag", None)])

    def test_withdrawn(self) -> None:
        """A request that is withdrawn is not repeated, and ends in nothing."""
        joined = ready()
        joined.lost = lambda flight: not flight.upward
        joined.table.request(INDEX, RevocationOrder("a.b.example"), "tag", joined.now)
        joined.run(0.05)
        before = len(joined.flown)
        joined.table.withdraw(INDEX, "tag")
        joined.table.withdraw(b"nobody!!", "tag")
        joined.run(20.0)
        self.assertEqual(joined.answered, [])
        self.assertEqual(len(joined.flown), before)

    def test_removed(self) -> None:
        """R34: a session that was removed opens nothing more, and repeats nothing."""
        joined = ready()
        joined.lost = lambda flight: True
        joined.table.request(INDEX, RevocationOrder("a.b.example"), "tag", joined.now)
        joined.run(0.05)
        joined.table.remove(INDEX)
        before = len(joined.flown)
        joined.run(20.0)
        self.assertEqual(len(joined.flown), before)
        joined.client.conversation.request(KeepAlive(2), "up", joined.now)
        (sealed,) = joined.client.transmissions()
        joined.table.datagram_received(sealed.datagram, CLIENT4, joined.now)
        (hint,) = transmitted(joined.table)
        self.assertEqual(Header.parse(hint.datagram).kind, Kind.SIGNAL_UNKNOWN)

    def test_answer_to_the_removed(self) -> None:
        """An answer that comes too late, for a session that is gone, goes nowhere."""
        table = SessionTable(Random(0).randbytes)
        table.answer(INDEX, Asked(1, KeepAlive(1), CLIENT4), Acknowledgement())
        self.assertEqual(table.effects(), [])

    def test_nudge(self) -> None:
        """A DC that restarted hints to where a client was, once, so that it says hello again."""
        joined = ready()
        joined.restart_coordinator()
        joined.table.nudge(INDEX, (CLIENT4,), joined.now)
        joined.run(1.0)
        self.assertTrue(joined.client.open)
        joined.client.conversation.request(KeepAlive(2), "up", joined.now)
        joined.run(0.05)
        flown = len(joined.flown)
        joined.table.nudge(INDEX, (CLIENT4,), joined.now)  # it has keys: nothing to hint at
        joined.table.nudge(b"nobody!!", (CLIENT4,), joined.now)
        joined.run(0.05)
        self.assertEqual(len(joined.flown), flown)


class ManyTests(SynchronousTestCase):
    def test_timers_of_many(self) -> None:
        """Requests to many clients are each repeated in time and end in time."""
        random = Random(5)
        table = SessionTable(random.randbytes)
        for number in range(50):
            index = number.to_bytes(8, "big")
            table.add(index, KEY)
            client = ClientSession(index, KEY, (DC4,), random.randbytes)
            client.start(0.0)
            for _ in range(2):
                for said in client.transmissions():
                    table.datagram_received(said.datagram, CLIENT4, 0.0)
                for answer in transmitted(table):
                    client.datagram_received(answer.datagram, DC4, 0.0)
                client.conversation.request(KeepAlive(1), None, 0.0)
            table.request(index, RevocationOrder("a.b.example"), number, number / 100, 2.0)
            table.effects()
        ended: dict[object, float] = {}
        now = 0.0
        while (due := table.next_timer()) is not None:
            self.assertGreaterEqual(due, now)
            now = due
            table.handle_timer(now)
            for effect in table.effects():
                if isinstance(effect, ClientAnswered):
                    ended[effect.tag] = now
        self.assertEqual(len(ended), 50)
        for tag, at in ended.items():
            assert isinstance(tag, int)
            self.assertAlmostEqual(at, tag / 100 + 2.0)

    def test_heard_tells_of_the_session(self) -> None:
        """Each event names the session it belongs to."""
        joined = ready()
        self.assertEqual({one.index for one in joined.asked}, {INDEX})
        joined.client.conversation.request(KeepAlive(2), "up", joined.now)
        (sealed,) = joined.client.transmissions()
        joined.table.datagram_received(sealed.datagram, CLIENT4, joined.now)
        self.assertEqual(joined.table.effects()[0], ClientHeard(INDEX, CLIENT4))

    def test_direction_flag(self) -> None:
        """What claims to come from a DC is dropped before anything is looked up."""
        joined = ready()
        datagram = Header(Kind.SIGNAL_SEALED, Flag.FROM_COORDINATOR, b"nobody!!", 0).pack()
        joined.table.datagram_received(datagram, STRANGER, joined.now)
        self.assertEqual(joined.table.effects(), [])
