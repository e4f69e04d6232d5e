"""How many other realms an AS can tell devices of (R1)."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import ConfigurationError
from ntmobile.machines.login.frames import FrameReader, frame
from ntmobile.servers.realm import Realm
from ntmobile.servers.trusted import check_told, trusted_realms, with_realm
from ntmobile.wire.codec import FRAME_LIMIT
from ntmobile.wire.messages.account import LoginResponse, Trusted
from tests.realms import MemoryRealm


class TrustedRealmsTests(SynchronousTestCase):
    realm, other = MemoryRealm(), MemoryRealm("else.example")

    def test_told(self) -> None:
        """Devices are told of the other realms, and of one that is added or replaced."""
        trust = self.realm.trust(self.other)
        pem = self.other.authority.to_pem()
        self.assertEqual(trusted_realms(trust), (Trusted("else.example", pem),))
        another, again = MemoryRealm("a.example"), MemoryRealm("else.example")
        found = with_realm(trust, "a.example", another.authority)
        self.assertEqual([one.suffix for one in found], ["a.example", "else.example"])
        (found_again,) = with_realm(trust, "else.example", again.authority)
        self.assertEqual(found_again.bundle, again.authority.to_pem())

    def test_limit(self) -> None:
        """As many fit as one message carries, to the byte; no more are let through."""
        bundle = self.realm.authority.to_pem()
        few = tuple(Trusted(f"r{n}.example", bytes(16384)) for n in range(3))

        def filled(size: int) -> tuple[Trusted, ...]:
            return (*few, Trusted("last.example", bytes(size)))

        def fits(size: int) -> bool:
            try:
                check_told(bundle, filled(size))
            except ConfigurationError:
                return False
            return True

        most = next(size for size in range(16384, 0, -1) if fits(size))
        longest = LoginResponse(
            0, 1 << 52, "", bytes(400), bundle, filled(most), bytes(48), 1 << 61
        )
        sent = frame(longest)
        self.assertEqual(len(sent), FRAME_LIMIT + 4)
        self.assertEqual(list(FrameReader().feed(sent)), [longest])

    def test_number(self) -> None:
        """Ordinary realms fill the message between 40 and 64; the error says what to do."""
        bundle, pem = self.realm.authority.to_pem(), self.other.authority.to_pem()

        def many(count: int) -> tuple[Trusted, ...]:
            return tuple(Trusted(f"realm{n}.example", pem) for n in range(count))

        check_told(bundle, many(40))
        with self.assertRaisesRegex(ConfigurationError, r"65 trusted .* \[foreign\] of as.toml"):
            check_told(bundle, many(65))

    def test_refused(self) -> None:
        """A realm that devices could not be told of any more is refused, and nothing changes."""
        directory = Path(self.mktemp())
        realm = Realm.create(directory, "ntm.example", ["192.0.2.1"], 4335)
        bundle = Path(self.mktemp())
        bundle.write_bytes(self.other.authority.to_pem())
        trusted = 0
        with self.assertRaisesRegex(ConfigurationError, "do not fit"):
            for number in range(65):
                realm.trust(f"d{number}.else.example", bundle)
                trusted += 1
        self.assertGreaterEqual(trusted, 40)
        self.assertEqual(len(realm.account_server().identity.foreign), trusted)
        self.assertEqual(len(list((directory / "trust").iterdir())), trusted)
