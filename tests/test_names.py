"""Names: what is one, whose it is, and which suffix decides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import InvalidName
from ntmobile.wire import names

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
PHONE = "phone.alice.dc1.ntm.example"


class FormTests(SynchronousTestCase):
    """R1: labels are lower-case LDH, and names are never repaired."""

    def test_device(self) -> None:
        """A device's name is taken apart into device, user and domain."""
        self.assertEqual(names.check_fqdn(PHONE), PHONE)
        self.assertEqual(names.device_of(PHONE), "phone")
        self.assertEqual(names.user_of(PHONE), "alice.dc1.ntm.example")
        self.assertEqual(names.domain_of(PHONE), "dc1.ntm.example")

    def test_refused(self) -> None:
        """R1: whatever is not exactly a name is refused."""
        for text in (
            "",
            ".",
            "phone.alice",
            "alice",
            PHONE + ".",
            "." + PHONE,
            "phone..alice.dc1.ntm.example",
            PHONE.upper(),
            "Phone.alice.dc1.ntm.example",
            "-phone.alice.dc1.ntm.example",
            "phone-.alice.dc1.ntm.example",
            "pho_ne.alice.dc1.ntm.example",
            "phöne.alice.dc1.ntm.example",
            "phone.alice.dc1.ntm.example\n",
            "phone.alice.dc1.ntm.example\0",
            "phone .alice.dc1.ntm.example",
            "٣.alice.dc1.ntm.example",  # a digit, but not of ASCII
            "1.2.3.4",
            "x" * 64 + ".alice.example",
        ):
            self.assertRaises(InvalidName, names.check_fqdn, text)

    def test_limit(self) -> None:
        """A name of the greatest length is accepted, one more character is not."""
        tail = ".alice.dc1.ntm.example"
        longest = "p" * (names.FQDN_LIMIT - len(tail)) + tail
        self.assertEqual(names.check_fqdn(longest), longest)
        self.assertRaises(InvalidName, names.check_fqdn, "p" + longest)

    def test_domain_limit(self) -> None:
        """A domain leaves room for user and device."""
        longest = "d" * (names.DOMAIN_LIMIT - len(".ntm.example")) + ".ntm.example"
        self.assertEqual(names.check_domain(longest), longest)
        self.assertEqual(names.domain_of(f"phone.alice.{longest}"), longest)
        self.assertRaises(InvalidName, names.check_domain, "d" + longest)

    def test_errors_are_one_short_line(self) -> None:
        """Whatever the name, the complaint is one line that fits a terminal."""
        for text in ("x" * 100_000, "\n" * 1000, "a\r\nb.alice.dc1.ntm.example"):
            error = str(self.assertRaises(InvalidName, names.check_fqdn, text))
            self.assertNotIn("\n", error)
            self.assertLess(len(error), 200)

    def test_reserved_users(self) -> None:
        """R1: what servers are called, no user is."""
        for label in ("ns", "dc", "rs", "cs", "as", "_ntm", "www", "device-ca"):
            self.assertRaises(InvalidName, names.check_user, label)
            self.assertRaises(InvalidName, names.check_fqdn, f"phone.{label}.dc1.ntm.example")
        self.assertEqual(names.check_user("alice"), "alice")

    def test_account(self) -> None:
        """An account is user and domain."""
        self.assertEqual(names.split_account("alice@dc1.ntm.example"), ("alice", "dc1.ntm.example"))
        for text in ("alice", "@dc1.ntm.example", "alice@", "a@b@c", "ns@dc1.ntm.example", "a.b@c"):
            self.assertRaises(InvalidName, names.split_account, text)


class BelongingTests(SynchronousTestCase):
    """Whose a name is, by whole labels."""

    def test_device_or_user(self) -> None:
        """Two labels below a domain are a device, one is a user, and the domain decides which."""
        self.assertTrue(names.is_device_of(PHONE, "dc1.ntm.example"))
        self.assertFalse(names.is_device_of(PHONE, "ntm.example"))
        self.assertFalse(names.is_device_of("alice.dc1.ntm.example", "dc1.ntm.example"))
        self.assertTrue(names.is_user_of("alice.dc1.ntm.example", "dc1.ntm.example"))
        self.assertTrue(names.is_device_of("alice.dc1.ntm.example", "ntm.example"))
        self.assertFalse(names.is_user_of("ns.dc1.ntm.example", "dc1.ntm.example"))
        self.assertFalse(names.is_device_of("a.ns.dc1.ntm.example", "dc1.ntm.example"))
        self.assertFalse(names.is_device_of("a.b!.dc1.ntm.example", "dc1.ntm.example"))
        self.assertFalse(names.is_user_of("dc1.ntm.example", "dc1.ntm.example"))

    def test_label_wise(self) -> None:
        """R1: a suffix matches whole labels only, and the longest one wins."""
        suffixes = ["example", "ntm.example", "dc1.ntm.example", "else.example"]
        self.assertEqual(names.suffix_match(PHONE, suffixes), "dc1.ntm.example")
        self.assertEqual(names.suffix_match("ntm.example", suffixes), "ntm.example")
        self.assertEqual(names.suffix_match("evilntm.example", suffixes), "example")
        self.assertIsNone(names.suffix_match("ntm.example.net", suffixes))

    @given(st.lists(LABELS, min_size=1, max_size=6), st.sets(st.integers(0, 5)))
    def test_longest_suffix(self, labels: list[str], cuts: set[int]) -> None:
        """R1: of all tails of a name that are suffixes, the longest is found."""
        tails = {".".join(labels[cut:]) for cut in cuts if cut < len(labels)}
        expected = max(tails, key=len, default=None)
        self.assertEqual(names.suffix_match(".".join(labels), tails), expected)


class PatternTests(SynchronousTestCase):
    """R13: patterns of allow lists."""

    def test_star(self) -> None:
        """A star covers devices at any depth below, never the name itself or another's tail."""
        self.assertTrue(names.matches("*.alice.dc1.ntm.example", PHONE))
        self.assertTrue(names.matches("*.ntm.example", PHONE))
        self.assertTrue(names.matches("*", PHONE))
        self.assertFalse(names.matches("*.bob.dc1.ntm.example", PHONE))
        self.assertFalse(names.matches("*.tm.example", PHONE))
        self.assertFalse(names.matches("*." + PHONE, PHONE))
        self.assertFalse(names.matches("*.alice.dc1.ntm.example", "alice.dc1.ntm.example"))
        self.assertFalse(names.matches("*.alice.dc1.ntm.example", ".alice.dc1.ntm.example"))

    def test_exact(self) -> None:
        """A pattern without a star covers exactly that device."""
        self.assertTrue(names.matches(PHONE, PHONE))
        self.assertFalse(names.matches("alice.dc1.ntm.example", PHONE))
        self.assertFalse(names.matches("", PHONE))

    def test_checked(self) -> None:
        """A pattern that could never match as meant is refused."""
        for pattern in ("*", "*.ntm.example", PHONE):
            self.assertEqual(names.check_pattern(pattern), pattern)
        for pattern in ("", "*.", "a*.ntm.example", "*.*.ntm.example", "**", "*.Ntm.example"):
            self.assertRaises(InvalidName, names.check_pattern, pattern)
