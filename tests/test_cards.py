from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.interfaces import Announcement
from ntmobile.plugins.cards import BODY, PENDING, SENDERS, STALE, TITLE, Board, Card, plain
from ntmobile.wire.messages.realtime import Reason

LAPTOP, DESK = "laptop.bob.dc2.ntm.example", "desk.bob.dc2.ntm.example"

#: Hypothesis' texts, with what hides and turns text more often.
TEXTS = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\u202e\u2066\u200b\u200d\u00ad\ufeff\u0301\u0489\x00\x1b\n\u2028<&>\U000e0041"
        ),
    )
)


def item(sender: str = LAPTOP, message: str = "", *, verified: bool = True) -> Announcement:
    """That an item has come."""
    return Announcement(Reason.ITEM, sender, message, verified=verified)


class PlainTests(SynchronousTestCase):
    def test_words(self) -> None:
        """Words in any script stay what they are, in one line."""
        for text in ("lunch?", "Grüße", "昼ご飯", "Ελληνικά", "naïve cafe\u0301", "🎉 1 < 2 & 3"):
            self.assertEqual(plain(text, 100), text)
        self.assertEqual(plain("  two\r\n\tlines\u2028more\u3000  ", 100), "two lines more")

    def test_hidden(self) -> None:
        """What hides, turns or controls is left out."""
        for (
            char
        ) in "\x00\x07\x1b\x7f\x9b\u200b\u200f\u202e\u2066\ufeff\u00ad\U000e0041\ue000\ud800":
            self.assertEqual(plain(f"a{char}b", 100), "ab")

    def test_towers(self) -> None:
        """Marks do not tower into other lines."""
        self.assertEqual(plain("a" + "\u0301" * 300 + "b", 100), "a\u0301\u0301b")

    def test_bounds(self) -> None:
        """What is too long ends with an ellipsis, also where most of it was left out."""
        self.assertEqual(plain("x" * 11, 10), "x" * 9 + "…")
        self.assertEqual(plain("x" * 10, 10), "x" * 10)
        self.assertEqual(plain("\u200b" * 1000 + "evil", 10), "…")

    @given(TEXTS, st.integers(1, 40))
    def test_any(self, text: str, limit: int) -> None:
        """Whatever comes, it is one line within bounds that can be encoded."""
        found = plain(text, limit)
        self.assertLessEqual(len(found), limit)
        found.encode("utf-8")
        self.assertEqual([char for char in found if unicodedata.category(char)[0] == "C"], [])
        self.assertEqual(found.splitlines(), [found] if found else [])
        self.assertEqual(plain(found, limit), found)


class CardTests(SynchronousTestCase):
    def setUp(self) -> None:
        """An empty board."""
        self.board = Board()

    def card(self, now: float = 0.0) -> Card:
        """The next card."""
        card = self.board.take(now)
        assert card is not None
        return card

    def test_empty(self) -> None:
        """Nothing is shown where nothing came, and nobody waits for it."""
        self.assertIs(self.board.take(0.0), None)
        self.assertIs(self.board.wait(0.0), None)

    def test_item(self) -> None:
        """A verified item, with and without a message (R33: empty by default)."""
        self.board.add(item(message="lunch?"), 0.0)
        self.assertEqual(self.card(), Card(LAPTOP, f"From {LAPTOP}", "lunch?"))
        self.board.add(item(DESK), 0.0)
        self.assertEqual(self.card(), Card(DESK, f"From {DESK}", "An item"))

    def test_unverified(self) -> None:
        """R29: what nobody signed is not told as a fact."""
        self.board.add(item(message="lunch?", verified=False), 0.0)
        self.assertEqual(self.card().title, f"Said to be from {LAPTOP}")
        self.board.add(item("", verified=False), 0.0)
        self.assertEqual(self.card().title, "Something waits for this device")

    def test_verified_after_all(self) -> None:
        """R29: an item that is announced and then verified is one, and the verified word stays."""
        self.board.add(item("", verified=False), 0.0)
        self.board.add(item(message="told", verified=False), 0.0)
        self.board.add(item(message="signed"), 0.0)
        self.board.add(item(message="told again", verified=False), 0.0)
        card = self.card()
        self.assertEqual(card.title, f"From {LAPTOP}")
        self.assertEqual(card.body, "2 items; the last one: signed")
        self.assertIs(self.board.take(100.0), None)

    def test_call(self) -> None:
        """A direction that waits is a call, whoever it is from."""
        self.board.add(Announcement(Reason.REALTIME), 0.0)
        self.assertEqual(self.card().title, "Somebody wants to reach this device")

    def test_hostile_names(self) -> None:
        """A sender's name is text of a stranger too."""
        self.board.add(item("evil\u202e\n" + "x" * 5000), 0.0)
        card = self.card()
        self.assertTrue(card.title.startswith("From evil xxx"))
        self.assertLessEqual(len(card.title), TITLE)

    def test_no_messages(self) -> None:
        """Where messages are not wanted there are none, however many come."""
        board = Board(messages=False)
        for _ in range(3):
            board.add(item(message="secret"), 0.0)
        card = board.take(0.0)
        assert card is not None
        self.assertEqual(card.body, "3 items")

    @given(st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), max_size=30))
    def test_any(self, announced: list[tuple[str, str, bool]]) -> None:
        """Whatever is announced, cards and their number are bounded."""
        board, cards = Board(), []
        for now, (sender, message, verified) in enumerate(announced):
            board.add(item(sender, message, verified=verified), float(now))
            card = board.take(float(now))
            if card is not None:
                cards.append(card)
        for card in cards:
            self.assertLessEqual(len(card.title), TITLE)
            self.assertLessEqual(len(card.body), BODY)
        self.assertLessEqual(len(board._slots), SENDERS)


class RateTests(SynchronousTestCase):
    def setUp(self) -> None:
        """An empty board."""
        self.board = Board()

    def test_at_a_rate(self) -> None:
        """Five at once, then one in two seconds; nothing is lost of the newest of each sender."""
        for number in range(7):
            self.board.add(item(f"d{number}.bob.dc2.example"), 0.0)
        cards = []
        for half in range(20):
            while (card := self.board.take(half / 2)) is not None:
                cards.append((half / 2, card.slot))
        self.assertEqual([when for when, _ in cards], [0.0] * 5 + [2.0, 4.0])
        self.assertEqual(len({slot for _, slot in cards}), 7)

    def test_wait(self) -> None:
        """It says when the next one may be shown."""
        for number in range(6):
            self.board.add(item(f"d{number}.bob.dc2.example"), 0.0)
        while self.board.take(0.0) is not None:
            pass
        wait = self.board.wait(0.0)
        assert wait is not None
        self.assertIsNot(self.board.take(wait), None)

    def test_crowd(self) -> None:
        """More senders at once than cards: the rest share one, which says how many."""
        for number in range(PENDING + 90):
            self.board.add(item(f"d{number}.eve.dc9.example", "ad"), 0.0)
        self.board.add(item(f"d{PENDING}.eve.dc9.example", "ad"), 0.0)
        cards = []
        for second in range(60):
            card = self.board.take(float(second))
            if card is not None:
                cards.append(card)
        self.assertEqual(len(cards), PENDING + 1)
        self.assertEqual(cards[-1].body, "91 items of 90 devices")
        self.assertNotIn("ad", cards[-1].body)

    def test_put_back(self) -> None:
        """What could not be shown is shown later, in its newest form, unless it is stale."""
        self.board.add(item(message="one"), 0.0)
        card = self.board.take(0.0)
        assert card is not None
        self.board.put_back(card)
        self.board.add(item(message="two"), 1.0)
        later = self.board.take(10.0)
        assert later is not None
        self.assertEqual(later.body, "2 items; the last one: two")
        self.board.put_back(later)
        self.assertIs(self.board.take(1.0 + STALE), None)
        self.assertIs(self.board.wait(1.0 + STALE), None)

    def test_closed(self) -> None:
        """After its owner closed it, counting begins again; not where more waits to be shown."""
        self.board.add(item(message="one"), 0.0)
        self.board.take(0.0)
        self.board.closed(LAPTOP)
        self.board.add(item(message="two"), 1.0)
        self.board.closed(LAPTOP)
        card = self.board.take(1.0)
        assert card is not None
        self.assertEqual(card.body, "two")
        self.board.closed("nobody")
