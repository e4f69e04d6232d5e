"""Cache servers of a realm: their files, and what the account server is told of them."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from ntmobile.errors import AlreadyExists, ConfigurationError, InvalidName, UnknownName
from ntmobile.servers.cache_configuration import load_cache
from ntmobile.servers.configuration import load_account_server
from tests.realms import MemoryRealm
from tests.test_commands_realm import CommandTestCase
from tests.test_realm import DC1, RealmTestCase

NAME = "cs1.dc1.ntm.example"


class CacheTests(RealmTestCase):
    """``caches/NAME.toml`` and its directory."""

    def setUp(self) -> None:
        super().setUp()
        self.realm.add_coordinator(DC1, ["192.0.2.1"], 5000)

    def test_configuration(self) -> None:
        """A cache server's configuration is complete and knows its coordinator."""
        outcome = self.realm.add_cache("cs1", DC1, ["192.0.2.2", "192.0.2.3"])
        found = load_cache(outcome.file)
        self.assertEqual((found.name, found.listening.port), (NAME, 4332))
        self.assertEqual(
            (found.coordinator.addresses, found.coordinator.port), (("192.0.2.1",), 5000)
        )
        self.assertEqual(found.state, outcome.path / "state")
        found.identity.credentials()
        found.identity.trust()

    def test_told(self) -> None:
        """The account server is told where it is, and again when that changes."""
        self.realm.add_cache("cs1", DC1, ["192.0.2.2", "2001:db8::2"])
        [place] = load_account_server(self.directory / "as.toml").caches
        self.assertEqual(
            (place.name, place.endpoints), (NAME, (("192.0.2.2", 4332), ("2001:db8::2", 4332)))
        )
        self.realm.add_cache("cs1", DC1, ["192.0.2.4"], 9)
        [place] = load_account_server(self.directory / "as.toml").caches
        self.assertEqual(place.endpoints, (("192.0.2.4", 9),))

    def test_again_and_changed(self) -> None:
        """Adding it again changes what differs and nothing else, never its key."""
        file = self.realm.add_cache("cs1", DC1, ["192.0.2.2"]).file
        key = (file.parent / "cs1" / "cs.key").read_bytes()
        file.write_text(file.read_text().replace("items = 100000", "items = 7  # few"))
        self.assertEqual(self.realm.add_cache("cs1", DC1, ["192.0.2.2"]).changed, ())
        changed = self.realm.add_cache("cs1", DC1, ["192.0.2.3"], 9).changed
        self.assertEqual(changed, ("addresses", "port"))
        self.assertEqual(load_cache(file).quotas.items, 7)
        self.assertEqual((file.parent / "cs1" / "cs.key").read_bytes(), key)

    def test_coordinator_changed(self) -> None:
        """A coordinator's new port reaches its cache servers."""
        file = self.realm.add_cache("cs1", DC1, ["192.0.2.2"]).file
        self.realm.add_coordinator(DC1, ["192.0.2.1"], 5001)
        self.assertEqual(load_cache(file).coordinator.port, 5001)

    def test_trust(self) -> None:
        """R1: foreign realms that are trusted before or after are trusted by it, wherever it is."""
        before, after = MemoryRealm("before.example"), MemoryRealm("after.example")
        bundle = Path(self.mktemp())
        bundle.write_bytes(before.authority.to_pem())
        self.realm.trust("before.example", bundle)
        file = self.realm.add_cache("cs1", DC1, ["192.0.2.2"]).file
        bundle.write_bytes(after.authority.to_pem())
        self.assertIn(file, self.realm.trust("after.example", bundle))
        away = Path(self.mktemp())
        shutil.move(self.directory / "caches", away)
        shutil.rmtree(self.directory)
        trust = load_cache(away / "cs1.toml").identity.trust()
        self.assertTrue(trust.trusts("a.b.dc.before.example"))
        self.assertTrue(trust.trusts("a.b.dc.after.example"))

    def test_refused(self) -> None:
        """A cache server of no coordinator, with a name of another, or of no form, is refused."""
        add = self.realm.add_cache
        self.untouched(lambda: add("cs1", "dc9.ntm.example", ["192.0.2.2"]), UnknownName)
        self.untouched(lambda: add("../cs1", DC1, ["192.0.2.2"]), InvalidName)
        self.realm.add_coordinator("dc2.ntm.example", ["192.0.2.3"])
        add("cs1", DC1, ["192.0.2.2"])
        self.untouched(lambda: add("cs1", "dc2.ntm.example", ["192.0.2.2"]), AlreadyExists)
        self.assertRaises(AlreadyExists, self.realm.registry.check_new_user, NAME)

    def test_mistakes(self) -> None:
        """What is wrong in its file is one exact line."""
        file = self.realm.add_cache("cs1", DC1, ["192.0.2.2"]).file
        text = file.read_text()
        for old, new, said in (
            ("user = 10000000000", "user = -1", "quotas.user: expected a whole number"),
            ("idle = 86400", "idle = 1", "limits.idle: expected seconds"),
            (f'name = "{NAME}"', 'name = "cs1.dc2.ntm.example"', "not directly within"),
            ("[quotas]", "[quota]", "did you mean 'quotas'"),
        ):
            file.write_text(text.replace(old, new))
            with self.assertRaisesRegex(ConfigurationError, said):
                load_cache(file)


class CommandTests(CommandTestCase):
    """``ntm realm add-cache``."""

    def test_added(self) -> None:
        """It says what it made and what to type next; ``show`` has it."""
        self.make()
        words = ["realm", "add-cache", self.realm, "cs1", "--dc", DC1, "--address", "127.0.0.1"]
        text = self.ok(*words)
        self.assertIn("twistd -n ntm-cache --config DIR/caches/cs1.toml", text)
        self.assertIn("Restart the account server", text)
        self.assertIn("nothing was changed", self.ok(*words))
        self.assertIn("changed: port.", self.ok(*words, "--port", "9"))
        rows = [line.split() for line in self.ok("realm", "show", self.realm).splitlines()]
        self.assertIn(["cs", NAME, "127.0.0.1", "9"], rows)
        bundle = self.directory / "else.pem"
        bundle.write_bytes(MemoryRealm("else.example").authority.to_pem())
        shutil.move(self.directory / "caches", self.mktemp())
        text = self.ok("realm", "trust", self.realm, "else.example", str(bundle))
        self.assertIn("Not here, so not told: cs1.", text)
        self.assertIn('"else.example" = "cs1/trust/else.example.pem"', text)
        registry = tomllib.loads((self.directory / "realm.toml").read_text())
        self.assertEqual(registry["caches"]["cs1"]["port"], 9)
