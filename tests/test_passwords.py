"""Password hashes (R2)."""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError
from ntmobile.servers import passwords


class PasswordTests(SynchronousTestCase):
    """R2: Argon2id, the same work whether or not there is such a user."""

    def test_right_and_wrong(self) -> None:
        """The right password is accepted and any other is not."""
        found = passwords.hash_password("correct horse")
        self.assertTrue(found.startswith("$argon2id$v=19$"))
        self.assertNotIn("horse", found)
        self.assertTrue(passwords.verify_password(found, "correct horse"))
        self.assertFalse(passwords.verify_password(found, "correct horsf"))
        self.assertFalse(passwords.verify_password(found, ""))

    def test_salted(self) -> None:
        """Two hashes of one password differ."""
        self.assertNotEqual(
            passwords.hash_password("same one"), passwords.hash_password("same one")
        )

    def test_typed_otherwise(self) -> None:
        """An accent typed as one or as two characters is the same password."""
        found = passwords.hash_password("caf\N{LATIN SMALL LETTER E WITH ACUTE} noir")
        self.assertTrue(passwords.verify_password(found, "cafe\N{COMBINING ACUTE ACCENT} noir"))

    def test_unknown_user(self) -> None:
        """R2: a user that does not exist costs the time of a wrong password, and is refused."""
        found = passwords.hash_password("correct horse")

        def best(password_hash: str | None) -> float:
            times = []
            for _ in range(3):
                start = time.perf_counter()
                self.assertFalse(passwords.verify_password(password_hash, "wrong one"))
                times.append(time.perf_counter() - start)
            return min(times)

        known, unknown = best(found), best(None)
        self.assertLess(max(known, unknown) / min(known, unknown), 1.5)

    def test_other_parameters(self) -> None:
        """A hash with other parameters works."""
        argon = Argon2id(salt=b"salt" * 4, length=32, iterations=1, lanes=1, memory_cost=1024)
        old = argon.derive_phc_encoded(b"correct horse")
        self.assertTrue(passwords.verify_password(old, "correct horse"))

    def test_damaged_hash(self) -> None:
        """A damaged hash accepts nothing, and raises nothing."""
        for damaged in ("", "garbage", "$argon2id$v=19$m=65536,t=2,p=1$x$y"):
            self.assertFalse(passwords.verify_password(damaged, "correct horse"))

    def test_hostile_passwords(self) -> None:
        """What no password can be is refused without an error of another kind."""
        found = passwords.hash_password("correct horse")
        for text in ("\ud800", "x" * 100_000, "correct horse\0"):
            self.assertFalse(passwords.verify_password(found, text))

    def test_acceptable(self) -> None:
        """Empty, short, endless and unwritable passwords are refused when they are set."""
        for text in ("", "        ", "short", "x" * 2000, "\ud800" * 10):
            self.assertRaises(AuthenticationError, passwords.check_password, text)
        self.assertEqual(passwords.check_password("long enough"), "long enough")
