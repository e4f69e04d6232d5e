"""Authentication tokens at a cache server (R28, R34)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.exchange.tokens import TokenTable
from ntmobile.wire.messages.exchange import Token, TokenUpdate

PHONE, LAPTOP = "phone.alice.dc1.ntm.example", "laptop.bob.dc1.ntm.example"


def token(number: int, fqdn: str = PHONE, expires: int = 1000) -> Token:
    """A token."""
    return Token(bytes([number]) * 16, fqdn, bytes([number]) * 32, expires)


class TokenTests(SynchronousTestCase):
    """What a CS knows of tokens."""

    def setUp(self) -> None:
        self.table = TokenTable()

    def known(self, number: int, at: float = 0) -> str | None:
        """Whose token it is."""
        found = self.table.find(bytes([number]) * 16, at)
        return None if found is None else found.fqdn

    def test_told(self) -> None:
        """A token that the AS told is known with its key, until it expires."""
        self.assertTrue(self.table.apply(TokenUpdate(1, 0, (token(1),)), 0))
        found = self.table.find(bytes([1]) * 16, 999)
        assert found is not None
        self.assertEqual((found.fqdn, found.key), (PHONE, bytes([1]) * 32))
        self.assertIsNone(self.known(1, 1000))
        self.assertIsNone(self.known(2))

    def test_revoked(self) -> None:
        """R34: a device that is revoked has no token any more, at once; others keep theirs."""
        self.table.apply(TokenUpdate(1, 0, (token(1), token(2), token(3, LAPTOP))), 0)
        self.table.apply(TokenUpdate(2, 1, (), (PHONE,)), 0)
        self.assertEqual([self.known(n) for n in (1, 2, 3)], [None, None, LAPTOP])

    def test_revoked_and_new(self) -> None:
        """A token in the update that revokes its device is of after that."""
        self.table.apply(TokenUpdate(1, 0, (token(1),)), 0)
        self.table.apply(TokenUpdate(3, 1, (token(2),), (PHONE,)), 0)
        self.assertEqual([self.known(n) for n in (1, 2)], [None, PHONE])

    def test_gap(self) -> None:
        """R34: what does not join what is known is not taken, nor is its lease."""
        self.table.apply(TokenUpdate(1, 0, (), (), 10), 0)
        self.assertFalse(self.table.apply(TokenUpdate(5, 3, (token(1),)), 5))
        self.assertEqual((self.table.sequence, self.known(1)), (1, None))
        self.assertFalse(self.table.accepts(10))

    def test_old(self) -> None:
        """An update that comes again brings no token back that was revoked since (R34)."""
        old = TokenUpdate(2, 1, (token(1),))
        self.table.apply(TokenUpdate(1, 0), 0)
        self.table.apply(old, 0)
        self.table.apply(TokenUpdate(3, 2, (), (PHONE,)), 0)
        self.assertFalse(self.table.apply(old, 0))
        self.assertEqual((self.table.sequence, self.known(1)), (3, None))

    def test_everything(self) -> None:
        """An update from the beginning replaces all that was known, be its number lower."""
        self.table.apply(TokenUpdate(7, 0, (token(1),)), 0)
        self.table.apply(TokenUpdate(2, 0, (token(2),)), 0)
        self.assertEqual((self.table.sequence, len(self.table), self.known(1)), (2, 1, None))

    def test_lease(self) -> None:
        """R34: ten minutes after the last word of the AS no new work is done, until the next."""
        self.assertFalse(self.table.accepts(0))
        self.table.apply(TokenUpdate(1, 0), 100)
        self.assertTrue(self.table.accepts(699))
        self.assertFalse(self.table.accepts(700))
        self.assertTrue(self.table.apply(TokenUpdate(1, 1), 800))
        self.assertTrue(self.table.accepts(801))

    def test_parts(self) -> None:
        """R34: nobody is refused for a token still to be told, nor served by half of them."""
        self.table.apply(TokenUpdate(1, 0, (token(1),)), 0)
        self.assertTrue(self.table.apply(TokenUpdate(5, 0, (token(5),), lease=0), 10))
        self.assertFalse(self.table.accepts(10))
        self.assertFalse(self.table.heard)
        self.table.apply(TokenUpdate(6, 5, (token(6),), lease=0), 10)
        self.assertFalse(self.table.accepts(10))
        self.table.apply(TokenUpdate(7, 6, (token(7),)), 10)
        self.assertTrue(self.table.accepts(10))
        self.table.apply(TokenUpdate(9, 7, (), lease=0), 100)
        self.assertTrue(self.table.accepts(609))
        self.assertFalse(self.table.accepts(610))
        self.assertTrue(self.table.heard)

    def test_expired(self) -> None:
        """Expired tokens are forgotten."""
        self.table.apply(TokenUpdate(1, 0, (token(1), token(2, expires=2000))), 0)
        self.table.expire(1500)
        self.assertEqual((len(self.table), self.known(2)), (1, PHONE))
        self.table.apply(TokenUpdate(2, 1, (), (PHONE,)), 0)
        self.assertEqual(len(self.table), 0)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=12))
    def test_any_order(self, orders: list[tuple[int, int, bool]]) -> None:
        """R34: whatever is repeated or lost, a token that was revoked is only ever known again by
        an update from the beginning, or by one that is newer."""
        revoked_at = 0
        for since, sequence, revokes in orders:
            taken = since == 0 or since <= self.table.sequence < sequence
            update = TokenUpdate(
                sequence, since, () if revokes else (token(1),), (PHONE,) if revokes else ()
            )
            self.table.apply(update, 0)
            if taken:
                self.assertEqual(self.table.sequence, sequence)
                revoked_at = sequence if revokes else 0
            self.assertEqual(self.known(1) is None, bool(revoked_at) or len(self.table) == 0)
