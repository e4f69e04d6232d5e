"""Authentication tokens in the account database."""

from __future__ import annotations

import sqlite3

from ntmobile.errors import UnknownName
from ntmobile.interfaces import TokenChanges
from ntmobile.plugins.account_tokens import EACH
from ntmobile.plugins.store_accounts_sqlite import CHANGES_LIMIT, MIGRATIONS, SQLiteAccounts
from tests.test_accounts import ALICE, NOW, PHONE, StoreTestCase

TABLET = "tablet.alice.dc1.ntm.example"


def token(number: int) -> bytes:
    """A token."""
    return number.to_bytes(16, "big")


class TokenTests(StoreTestCase):
    """Alice's phone, enrolled, with token 1."""

    def setUp(self) -> None:
        super().setUp()
        self.store.add_user(ALICE, "hash")
        self.phone = self.device()
        self.store.enroll(self.phone, NOW, replace=False)
        self.store.add_token(self.phone, token(1), bytes([1]) * 32)

    def changes(self, since: int = 0, at: float = NOW) -> TokenChanges:
        return self.store.token_changes(since, at)

    def known(self, since: int = 0, at: float = NOW) -> list[tuple[bytes, str]]:
        return [(one.token, one.fqdn) for one in self.changes(since, at).tokens]

    def test_made(self) -> None:
        """R28: a token is told with its key until the certificate of its login expires."""
        (one,) = self.changes().tokens
        self.assertEqual((one.token, one.fqdn, one.key), (token(1), PHONE, bytes([1]) * 32))
        self.assertEqual(one.expires, self.phone.not_after)
        self.assertEqual(self.changes(at=self.phone.not_after).tokens, ())
        self.assertNotIn("01" * 32, repr(one))

    def test_changes(self) -> None:
        """Only what happened after a number is told; nothing, where nothing did."""
        before = self.changes().sequence
        self.assertEqual(before, self.store.last_token_change())
        self.assertEqual(self.changes(before), TokenChanges(before, (), ()))
        self.store.add_token(self.phone, token(2), bytes(32))
        self.assertEqual(self.known(before), [(token(2), PHONE)])
        self.assertEqual(self.known(), [(token(1), PHONE), (token(2), PHONE)])

    def test_removed(self) -> None:
        """R34: with a device its tokens are revoked, all of them, and their keys are forgotten."""
        self.store.add_token(self.phone, token(2), bytes(32))
        before = self.changes().sequence
        self.store.remove(PHONE, NOW)
        found = self.changes(before)
        self.assertEqual((found.tokens, found.revoked), ((), (PHONE,)))
        self.assertEqual(self.known(), [])
        with sqlite3.connect(self.path) as database:
            keys = {row[0] for row in database.execute("SELECT key FROM tokens")}
        self.assertEqual(keys, {b""})

    def test_disabled(self) -> None:
        """R34: with a user the tokens of all its devices are revoked."""
        tablet = self.device(TABLET)
        self.store.enroll(tablet, NOW, replace=False)
        self.store.add_token(tablet, token(2), bytes(32))
        self.store.set_disabled(ALICE, True, NOW)
        self.assertEqual(set(self.changes().revoked), {PHONE, TABLET})
        self.store.set_disabled(ALICE, False, NOW)
        self.assertEqual(self.known(), [])

    def test_replaced(self) -> None:
        """R3: the tokens of a replaced device are revoked, and told before those of the new one."""
        before = self.changes().sequence
        new = self.device()
        self.store.enroll(new, NOW, replace=True)
        self.store.add_token(new, token(2), bytes(32))
        found = self.changes(before)
        self.assertEqual(found.revoked, (PHONE,))
        self.assertEqual([one.token for one in found.tokens], [token(2)])

    def test_renewed(self) -> None:
        """With the next certificate the former token holds on until it expires."""
        renewed = self.renewed(self.phone)
        self.store.renew(renewed)
        self.store.add_token(renewed, token(2), bytes(32))
        self.assertEqual(self.known(), [(token(1), PHONE), (token(2), PHONE)])

    def test_revoked_meanwhile(self) -> None:
        """R34: no token is made for a certificate that does not hold any more."""
        self.store.remove(PHONE, NOW)
        for certificate in (self.phone, self.device()):
            with self.assertRaises(UnknownName):
                self.store.add_token(certificate, token(2), bytes(32))
        self.assertEqual(self.known(), [])

    def test_bounded(self) -> None:
        """However often a device logs in, only its newest tokens are kept."""
        for number in range(2, EACH + 5):
            self.store.add_token(self.phone, token(number), bytes(32))
        expected = [token(number) for number in range(5, EACH + 5)]
        self.assertEqual([one for one, _ in self.known()], expected)

    def test_many(self) -> None:
        """More than fits is told in parts, none of it twice, none left out."""
        with sqlite3.connect(self.path) as database:
            rows = [
                (token(n), f"d{n}.{ALICE}", bytes(32), NOW + 9, n, 0)
                for n in range(2, CHANGES_LIMIT + 50)
            ]
            database.executemany("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", rows)
            database.execute("UPDATE token_progress SET sequence = ?", (CHANGES_LIMIT + 49,))
        first = self.changes()
        self.assertEqual(len(first.tokens), CHANGES_LIMIT)
        self.assertEqual(first.sequence, CHANGES_LIMIT)
        second = self.changes(first.sequence)
        self.assertEqual(len(second.tokens), 49)
        self.assertEqual(second.sequence, self.store.last_token_change())

    def test_migrated(self) -> None:
        """A database of the version before tokens is brought up to date, its devices kept."""
        self.store.close()
        with sqlite3.connect(self.path) as database:
            database.executescript("DROP TABLE tokens; DROP TABLE token_progress;")
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS) - 1}")
        self.store = SQLiteAccounts(self.path)
        self.assertIsNotNone(self.store.device(PHONE))
        self.store.add_token(self.phone, token(7), bytes(32))
        self.assertEqual(self.known(), [(token(7), PHONE)])
