"""The directory of a realm: what is made, what stays, and what a change touches."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import (
    AlreadyExists,
    CertificateError,
    ConfigurationError,
    InvalidName,
    UnknownName,
)
from ntmobile.protocols.tls import (
    MemoryTLS,
    client_context_factory,
    peer_identity,
    server_context_factory,
)
from ntmobile.servers.authority import issue_server
from ntmobile.servers.configuration import load_account_server, load_coordinator, load_relay
from ntmobile.servers.credentials import load_certificate, load_key, load_signer
from ntmobile.servers.realm import Realm
from ntmobile.servers.realm_files import change
from tests.realms import MemoryRealm, shake_hands

DC1 = "dc1.ntm.example"


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "sqlite" not in path.name
    }


class RealmTestCase(SynchronousTestCase):
    """A realm in a temporary directory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.realm = Realm.create(self.directory, "ntm.example", ["127.0.0.1"], 4335)

    def untouched(self, call: Callable[[], object], *errors: type[Exception]) -> str:
        """Check that a call raises and leaves every file as it was; the error's text."""
        before = contents(self.directory)
        error = self.assertRaises(errors[0], call)
        self.assertEqual(contents(self.directory), before)
        self.assertNotIn("\n", str(error))
        return str(error)


class CreationTests(RealmTestCase):
    """A new realm."""

    def test_configuration(self) -> None:
        """The account server's configuration is complete: credentials, trust, accounts."""
        found = load_account_server(self.directory / "as.toml")
        self.assertEqual((found.realm, found.listening.port), ("ntm.example", 4335))
        credentials = found.identity.credentials()
        self.assertEqual(credentials.key.public_key(), credentials.chain[0].public_key())
        self.assertEqual(found.identity.trust().home, "ntm.example")
        signer = load_signer(found.device_ca_certificate, found.device_ca_key)
        self.assertEqual(
            found.identity.trust().authorities["ntm.example"].device_cas, (signer.certificate,)
        )
        accounts = self.realm.accounts()
        self.addCleanup(accounts.close)
        self.assertEqual(accounts.users(), [])

    def test_private(self) -> None:
        """R6: keys, accounts and directories are for their owner only."""
        self.realm.add_coordinator(DC1, ["192.0.2.1"])
        self.realm.add_relay("r1", DC1, ["192.0.2.2"])
        secret = [*self.directory.rglob("*.key"), *self.directory.rglob("*.sqlite")]
        self.assertEqual(len(secret), 6)
        for path in secret:
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)
        for path in [self.directory, *self.directory.rglob("*")]:
            if path.is_dir():
                self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700, path)

    def test_key_that_everybody_may_read(self) -> None:
        """R6: a server refuses such a key, with the remedy."""
        key = self.directory / "as" / "as.key"
        key.chmod(0o644)
        error = self.assertRaises(
            ConfigurationError, self.realm.account_server().identity.credentials
        )
        self.assertIn(f"chmod 600 {key}", str(error))

    def test_again(self) -> None:
        """Making a realm where one is changes nothing."""
        text = self.untouched(
            lambda: Realm.create(self.directory, "ntm.example", ["192.0.2.1"], 1), AlreadyExists
        )
        self.assertIn("is the realm ntm.example already", text)

    def test_something_else(self) -> None:
        """A directory with something else in it is left alone, an empty one is used."""
        other = Path(self.mktemp())
        other.mkdir()
        (other / "letter").write_text("dear alice")
        make = Realm.create
        self.assertRaises(ConfigurationError, make, other, "ntm.example", ["127.0.0.1"], 1)
        self.assertEqual([each.name for each in other.iterdir()], ["letter"])
        (other / "letter").unlink()
        self.assertEqual(make(other, "ntm.example", ["127.0.0.1"], 1).domain, "ntm.example")

    def test_failure_leaves_nothing(self) -> None:
        """A realm that cannot be made leaves nothing behind."""
        parent = Path(self.mktemp())
        parent.mkdir()
        make = Realm.create
        self.assertRaises(InvalidName, make, parent / "r", "NTM", ["127.0.0.1"], 1)
        self.assertRaises(ConfigurationError, make, parent / "r", "ntm.example", ["no address"], 1)
        self.assertEqual(list(parent.iterdir()), [])

    def test_no_realm(self) -> None:
        """Another directory is no realm."""
        error = self.assertRaises(ConfigurationError, Realm, Path(self.mktemp()))
        self.assertIn("ntm realm init makes one", str(error))


class CoordinatorTests(RealmTestCase):
    """Coordinators of the realm."""

    def test_configuration(self) -> None:
        """A coordinator's configuration is complete and knows its account server."""
        outcome = self.realm.add_coordinator(DC1, ["192.0.2.1", "2001:db8::1"], 5000, 5353)
        self.assertTrue(outcome.made)
        found = load_coordinator(outcome.file)
        self.assertEqual((found.domain, found.listening.port, found.dns_port), (DC1, 5000, 5353))
        self.assertEqual(found.listening.addresses, ("192.0.2.1", "2001:db8::1"))
        self.assertEqual(found.account_server.addresses, ("127.0.0.1",))
        self.assertTrue(found.state.is_dir())
        found.identity.credentials()
        found.identity.trust()

    def test_servers_meet(self) -> None:
        """R1: coordinator and account server verify each other by what the files say."""
        file = self.realm.add_coordinator(DC1, ["192.0.2.1"]).file
        dc, account = load_coordinator(file).identity, self.realm.account_server().identity
        mine, theirs = dc.credentials(), account.credentials()
        client = MemoryTLS(
            client_context_factory(mine.key, mine.chain, dc.trust(), "as", "ntm.example")
        )
        server = MemoryTLS(
            server_context_factory(theirs.key, theirs.chain, account.trust(), peer_roles={"dc"})
        )
        shake_hands(client, server)
        self.assertEqual(peer_identity(server.connection), ("dc", DC1))

    def test_moved(self) -> None:
        """The directory works anywhere, as a whole."""
        self.realm.add_coordinator(DC1, ["192.0.2.1"])
        away = Path(self.mktemp()) / "elsewhere"
        shutil.move(self.directory / DC1, away)
        shutil.rmtree(self.directory)
        found = load_coordinator(away / "dc.toml")
        found.identity.credentials()
        found.identity.trust()
        self.assertTrue(found.state.is_dir())

    def test_again(self) -> None:
        """Adding it again just so changes nothing."""
        self.realm.add_coordinator(DC1, ["192.0.2.1"], 5000)
        before = contents(self.directory)
        for port in (5000, None):
            outcome = self.realm.add_coordinator(DC1, ["192.0.2.1"], port)
            self.assertEqual((outcome.made, outcome.changed), (False, ()))
        self.assertEqual(contents(self.directory), before)

    def test_changed(self) -> None:
        """Another address or port changes these values alone; comments and keys stay."""
        file = self.realm.add_coordinator(DC1, ["192.0.2.1"]).file
        text = (
            file.read_text()
            .replace("[lookup]", "# mine\n[lookup]")
            .replace("port = 4330", "port = 4330  # the usual one")
        )
        file.write_text(text)
        key = (file.parent / "dc.key").read_bytes()
        outcome = self.realm.add_coordinator(DC1, ["192.0.2.7", "2001:db8::7"], 5000)
        self.assertEqual(outcome.changed, ("addresses", "port"))
        expected = text.replace('["192.0.2.1"]', '["192.0.2.7", "2001:db8::7"]')
        self.assertEqual(file.read_text(), expected.replace("port = 4330 ", "port = 5000 "))
        self.assertEqual((file.parent / "dc.key").read_bytes(), key)
        entry = Realm(self.directory).registry.coordinators[DC1]
        self.assertEqual((entry.addresses, entry.port), (("192.0.2.7", "2001:db8::7"), 5000))

    def test_account_server_moved(self) -> None:
        """A new address of the account server reaches the coordinator when it is added again."""
        file = self.realm.add_coordinator(DC1, ["192.0.2.1"]).file
        change(self.directory / "as.toml", {("", "addresses"): ["192.0.2.99"]})
        outcome = self.realm.add_coordinator(DC1, ["192.0.2.1"])
        self.assertEqual(outcome.changed, ("account_server.addresses",))
        self.assertEqual(load_coordinator(file).account_server.addresses, ("192.0.2.99",))

    def test_moved_away(self) -> None:
        """A coordinator that was moved away does not silently get a second key."""
        self.realm.add_coordinator(DC1, ["192.0.2.1"])
        shutil.rmtree(self.directory / DC1)
        text = self.untouched(
            lambda: self.realm.add_coordinator(DC1, ["192.0.2.1"]), ConfigurationError
        )
        self.assertIn("put it back, or remove dc1.ntm.example from", text)

    def test_interrupted(self) -> None:
        """One that was made, but not yet registered, is taken in when it is added again."""
        registry = (self.directory / "realm.toml").read_bytes()
        self.realm.add_coordinator(DC1, ["192.0.2.1"])
        key = (self.directory / DC1 / "dc.key").read_bytes()
        (self.directory / "realm.toml").write_bytes(registry)
        self.assertFalse(Realm(self.directory).add_coordinator(DC1, ["192.0.2.1"]).made)
        self.assertIn(DC1, Realm(self.directory).registry.coordinators)
        self.assertEqual((self.directory / DC1 / "dc.key").read_bytes(), key)

    def test_other_realm(self) -> None:
        """A domain outside the realm, or none, is refused."""
        add = self.realm.add_coordinator
        self.untouched(lambda: add("dc1.else.example", ["192.0.2.1"]), ConfigurationError)
        self.untouched(lambda: add("evil-ntm.example", ["192.0.2.1"]), ConfigurationError)
        self.untouched(lambda: add("Dc1.ntm.example", ["192.0.2.1"]), InvalidName)
        self.untouched(lambda: add("../as", ["192.0.2.1"]), InvalidName)

    def test_no_root_key(self) -> None:
        """Without the root key nothing is added, and nothing half made."""
        (self.directory / "authority" / "root.key").unlink()
        text = self.untouched(
            lambda: self.realm.add_coordinator(DC1, ["192.0.2.1"]), ConfigurationError
        )
        self.assertIn("root.key: cannot be read: No such file", text)
        self.assertFalse((self.directory / DC1).exists())
        self.assertEqual([each for each in self.directory.iterdir() if each.name[0] == "."], [])

    def test_name_of_a_user(self) -> None:
        """R1: what belongs to a user is no server's."""
        self.realm.add_coordinator("ntm.example", ["192.0.2.1"])
        accounts = self.realm.accounts()
        self.addCleanup(accounts.close)
        accounts.add_user("alice.ntm.example", "hash")
        for domain in ("alice.ntm.example", "dc.alice.ntm.example"):
            self.untouched(
                partial(self.realm.add_coordinator, domain, ["192.0.2.1"]),
                AlreadyExists,
            )


class RelayTests(RealmTestCase):
    """Relays of the realm."""

    def setUp(self) -> None:
        super().setUp()
        self.realm.add_coordinator(DC1, ["192.0.2.1"], 5000)

    def test_configuration(self) -> None:
        """A relay's configuration is complete and knows its coordinator."""
        outcome = self.realm.add_relay("r1", DC1, ["192.0.2.2"])
        found = load_relay(outcome.file)
        self.assertEqual(found.name, "r1.dc1.ntm.example")
        self.assertEqual(
            (found.coordinator.addresses, found.coordinator.port), (("192.0.2.1",), 5000)
        )
        found.identity.credentials()
        found.identity.trust()

    def test_again_and_changed(self) -> None:
        """Adding it again changes what differs and nothing else, never its key."""
        file = self.realm.add_relay("r1", DC1, ["192.0.2.2"]).file
        key = (file.parent / "r1" / "rs.key").read_bytes()
        self.assertEqual(self.realm.add_relay("r1", DC1, ["192.0.2.2"]).changed, ())
        self.assertEqual(
            self.realm.add_relay("r1", DC1, ["192.0.2.3"], 9).changed, ("addresses", "port")
        )
        self.assertEqual(load_relay(file).listening.port, 9)
        self.assertEqual((file.parent / "r1" / "rs.key").read_bytes(), key)

    def test_coordinator_changed(self) -> None:
        """A coordinator's new port reaches its relays."""
        file = self.realm.add_relay("r1", DC1, ["192.0.2.2"]).file
        self.realm.add_coordinator(DC1, ["192.0.2.1"], 5001)
        self.assertEqual(load_relay(file).coordinator.port, 5001)

    def test_coordinator_moved_away(self) -> None:
        """A relay can be added after its coordinator was moved away."""
        shutil.rmtree(self.directory / DC1)
        file = self.realm.add_relay("r1", DC1, ["192.0.2.2"]).file
        self.assertEqual(load_relay(file).coordinator.port, 5000)

    def test_moved(self) -> None:
        """Its file and directory work anywhere, together."""
        self.realm.add_relay("r1", DC1, ["192.0.2.2"])
        away = Path(self.mktemp())
        shutil.move(self.directory / "relays", away)
        shutil.rmtree(self.directory)
        found = load_relay(away / "r1.toml")
        found.identity.credentials()
        found.identity.trust()

    def test_refused(self) -> None:
        """A relay of no coordinator, with a name of another, or of no form, is refused."""
        add = self.realm.add_relay
        self.untouched(lambda: add("r1", "dc9.ntm.example", ["192.0.2.2"]), UnknownName)
        self.untouched(lambda: add("../r1", DC1, ["192.0.2.2"]), InvalidName)
        self.untouched(lambda: add("ns", DC1, ["192.0.2.2"]), InvalidName)
        self.realm.add_coordinator("dc2.ntm.example", ["192.0.2.3"])
        add("r1", DC1, ["192.0.2.2"])
        self.untouched(lambda: add("r1", "dc2.ntm.example", ["192.0.2.2"]), AlreadyExists)


class TrustTests(RealmTestCase):
    """R1: other realms, each for its suffix."""

    def setUp(self) -> None:
        super().setUp()
        self.dc = self.realm.add_coordinator(DC1, ["192.0.2.1"]).file
        self.other = MemoryRealm("else.example")
        self.bundle = Path(self.mktemp())
        self.bundle.write_bytes(self.other.authority.to_pem())

    def test_told(self) -> None:
        """Account server and coordinators trust it for its suffix, later ones too."""
        told = self.realm.trust("else.example", self.bundle)
        self.assertEqual(told, [self.directory / "as.toml", self.dc])
        later = self.realm.add_coordinator("dc2.ntm.example", ["192.0.2.2"]).file
        device = self.other.device("phone.bob.dc.else.example")[2]
        for identity in (
            self.realm.account_server().identity,
            load_coordinator(self.dc).identity,
            load_coordinator(later).identity,
        ):
            identity.trust().verify_device(device, self.other.now)
            forgery = self.other.device("phone.alice.dc1.ntm.example")[2]
            self.assertRaises(
                CertificateError, identity.trust().verify_device, forgery, self.other.now
            )

    def test_again(self) -> None:
        """Trusting it again changes nothing; another in its place must be asked for."""
        self.realm.trust("else.example", self.bundle)
        before = contents(self.directory)
        self.realm.trust("else.example", self.bundle)
        self.assertEqual(contents(self.directory), before)
        self.bundle.write_bytes(MemoryRealm("else.example").authority.to_pem())
        self.untouched(lambda: self.realm.trust("else.example", self.bundle), AlreadyExists)
        self.realm.trust("else.example", self.bundle, replace=True)
        self.assertNotEqual(contents(self.directory), before)

    def test_own_names(self) -> None:
        """R1: nobody else is trusted for names of this realm."""
        for suffix in ("ntm.example", "dc2.ntm.example"):
            self.untouched(
                partial(self.realm.trust, suffix, self.bundle),
                ConfigurationError,
            )

    def test_no_bundle(self) -> None:
        """What is no realm's bundle is refused."""
        self.untouched(lambda: self.realm.trust("else.example", self.dc), ConfigurationError)
        missing = Path(self.mktemp())
        self.untouched(lambda: self.realm.trust("else.example", missing), ConfigurationError)


class RenewalTests(RealmTestCase):
    """Certificates near their end are renewed, keys stay."""

    def test_renewed(self) -> None:
        """Only what is near its end is renewed, for the key that it has."""
        self.realm.add_coordinator(DC1, ["192.0.2.1"])
        self.assertEqual(self.realm.renew(), [])
        stem = self.directory / DC1 / "dc"
        root = load_signer(
            self.directory / "authority/root.pem", self.directory / "authority/root.key"
        )
        key = load_key(stem.with_suffix(".key")).public_key()
        old = issue_server(
            root, "dc", DC1, key, datetime.now(UTC) - timedelta(days=80), timedelta(days=100)
        )
        stem.with_suffix(".pem").write_bytes(old.public_bytes(Encoding.PEM))
        self.assertEqual(self.realm.renew(), ["the certificate of dc:dc1.ntm.example"])
        new = load_certificate(stem.with_suffix(".pem"))
        self.assertGreater(new.not_valid_after_utc, old.not_valid_after_utc)
        self.assertEqual(new.public_key(), key)
        load_coordinator(stem.parent / "dc.toml").identity.credentials()


class UserNameTests(RealmTestCase):
    """Which user a name on the command line means."""

    def test_one_domain(self) -> None:
        """Where the realm has one coordinator, its domain goes without saying."""

        def name(text: str) -> str:
            return Realm(self.directory).registry.user_name(text)

        self.assertRaises(UnknownName, name, "alice")
        self.realm.add_coordinator(DC1, ["192.0.2.1"])
        for text in ("alice", "alice@dc1.ntm.example", "alice.dc1.ntm.example"):
            self.assertEqual(name(text), "alice.dc1.ntm.example")
        self.realm.add_coordinator("dc2.ntm.example", ["192.0.2.2"])
        error = self.assertRaises(UnknownName, name, "alice")
        self.assertIn("Write alice@DOMAIN; here: dc1.ntm.example, dc2.ntm.example", str(error))

    def test_refused(self) -> None:
        """Other domains, reserved names and what is no name are refused."""
        self.realm.add_coordinator(DC1, ["192.0.2.1"])
        name = self.realm.registry.user_name
        for text in ("alice@dc9.ntm.example", "alice.dc9.ntm.example"):
            self.assertRaises(UnknownName, name, text)
        for text in ("", "Alice", "ns", "ns@dc1.ntm.example", "a b"):
            self.assertRaises(InvalidName, name, text)

    def test_servers(self) -> None:
        """R1: a user is not called what a server is."""
        self.realm.add_coordinator("ntm.example", ["192.0.2.1"])
        self.realm.add_coordinator(DC1, ["192.0.2.2"])
        self.realm.add_relay("r1", DC1, ["192.0.2.3"])
        check = self.realm.registry.check_new_user
        check("alice.dc1.ntm.example")
        for name in ("dc1.ntm.example", "r1.dc1.ntm.example"):
            self.assertRaises(AlreadyExists, check, name)


class ChangeTests(SynchronousTestCase):
    """Careful changes of files that operators edit."""

    def check(self, before: str, after: str, value: str | int = 2) -> None:
        """Change ``t.k`` in a text."""
        path = Path(self.mktemp())
        path.write_text(before)
        self.assertEqual(change(path, {("t", "k"): value}), ["t.k"])
        self.assertEqual(path.read_text(), after)

    def test_replaced(self) -> None:
        """A value is replaced where it stands, in its own table."""
        self.check("k = 1\n[s]\nk = 1\n[t]\nk = 1 # one\n", "k = 1\n[s]\nk = 1\n[t]\nk = 2 # one\n")

    def test_added(self) -> None:
        """A key that is missing is added to its table, a table that is missing at the end."""
        self.check("[t]\na = 1\n\n# next\n[u]\n", "[t]\na = 1\nk = 2\n\n# next\n[u]\n")
        self.check("a = 1\n", "a = 1\n\n[t]\nk = 2\n")

    def test_written_otherwise(self) -> None:
        """What is written in a way that cannot be changed line by line is left, with advice."""
        for text in ("t = {k = 1}\n", "[t]\nk = '''\n1'''\n", "t.k = 1\n"):
            path = Path(self.mktemp())
            path.write_text(text)
            error = self.assertRaises(ConfigurationError, change, path, {("t", "k"): 2})
            self.assertIn("write t.k = 2 there", str(error))
            self.assertEqual(path.read_text(), text)
