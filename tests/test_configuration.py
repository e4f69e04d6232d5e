"""Configuration files: what is read, and what each mistake says."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import ConfigurationError
from ntmobile.plugins.section import Section
from ntmobile.servers.configuration import load_account_server, load_coordinator, load_relay

_T = TypeVar("_T")

AS = """
realm = "ntm.example"
addresses = ["127.0.0.1"]
certificate = "as/as.pem"
key = "as/as.key"
trust = "ca.pem"
[device_ca]
certificate = "as/device-ca.pem"
key = "as/device-ca.key"
"""

DC = """
domain = "dc1.ntm.example"
realm = "ntm.example"
addresses = ["203.0.113.1", "2001:db8::1"]
certificate = "dc.pem"
key = "dc.key"
trust = "ca.pem"
[account_server]
addresses = ["198.51.100.1"]
"""

RS = """
name = "r1.dc1.ntm.example"
realm = "ntm.example"
addresses = ["203.0.113.2"]
certificate = "rs.pem"
key = "rs.key"
trust = "ca.pem"
[coordinator]
domain = "dc1.ntm.example"
addresses = ["203.0.113.1"]
"""


class FileTestCase(SynchronousTestCase):
    """Files in a temporary directory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = self.directory / "server.toml"

    def load(self, loader: Callable[[Path], _T], text: str) -> _T:
        """What a loader makes of a text."""
        self.file.write_text(text, encoding="utf-8")
        return loader(self.file)

    def refuse(self, loader: Callable[[Path], object], text: str) -> str:
        """What a loader says of a text that is wrong; always one line that names the file."""
        error = str(self.assertRaises(ConfigurationError, self.load, loader, text))
        self.assertTrue(error.startswith(f"{self.file}: "), error)
        self.assertNotIn("\n", error)
        return error.removeprefix(f"{self.file}: ")


class AccountServerTests(FileTestCase):
    """``as.toml``."""

    def test_defaults(self) -> None:
        """The least that must be said, and what holds then (R3, R34)."""
        found = self.load(load_account_server, AS)
        self.assertEqual(found.listening.port, 4335)
        self.assertEqual(found.listening.listen, ("127.0.0.1",))
        self.assertEqual((found.device_certificate_lifetime, found.lease), (86400.0, 600.0))
        self.assertEqual((found.identity.role, found.identity.name), ("as", "ntm.example"))
        self.assertEqual(found.store[0], "sqlite")

    def test_relative_paths(self) -> None:
        """Paths start from the file's directory; absolute ones stay."""
        found = self.load(load_account_server, AS.replace('"ca.pem"', '"/etc/ntm/ca.pem"'))
        self.assertEqual(found.identity.key, self.directory / "as" / "as.key")
        self.assertEqual(found.identity.bundle, Path("/etc/ntm/ca.pem"))

    def test_store_section(self) -> None:
        """The store's section goes to the plugin without being judged here."""
        found = self.load(load_account_server, AS + '[store]\nplugin = "sqlite"\nwhat = 1\n')
        self.assertEqual(dict(found.store[1]), {"what": 1})

    def test_foreign(self) -> None:
        """Foreign realms are suffixes with their bundles, and never within the own realm (R1)."""
        found = self.load(load_account_server, AS + '[foreign]\n"else.example" = "e.pem"\n')
        self.assertEqual(found.identity.foreign, {"else.example": self.directory / "e.pem"})
        text = self.refuse(load_account_server, AS + '[foreign]\n"a.ntm.example" = "e.pem"\n')
        self.assertIn("foreign.a.ntm.example: not foreign", text)
        text = self.refuse(load_account_server, AS + '[foreign]\nelse.example = "e.pem"\n')
        self.assertIn("foreign.else: write the suffix in quotes", text)
        text = self.refuse(load_account_server, AS + '[foreign]\n"Else" = "e.pem"\n')
        self.assertIn("foreign.Else: 'Else' is no label", text)


class CoordinatorTests(FileTestCase):
    """``dc.toml``."""

    def test_defaults(self) -> None:
        """The least that must be said, and what holds then."""
        found = self.load(load_coordinator, DC)
        self.assertEqual((found.listening.port, found.dns_port), (4330, 53))
        self.assertEqual(found.account_server.port, 4335)
        self.assertEqual(found.account_server.name, "ntm.example")
        self.assertEqual(found.pool, IPv4Network("198.18.0.0/15"))
        self.assertEqual(found.allow, ("*.ntm.example",))
        self.assertEqual(found.state, self.directory / "state")
        self.assertEqual(
            (found.lookup[0], found.notify[0], found.locations[0]), ("dns", "none", "sqlite")
        )

    def test_everything(self) -> None:
        """All that can be said is read."""
        head, tail = DC.split("[account_server]")
        found = self.load(
            load_coordinator,
            head
            + """
listen = ["0.0.0.0", "::"]
port = 14330
dns_port = 5353
state = "/var/lib/ntm"
allow = ["*.bob.dc2.ntm.example"]
[account_server]
"""
            + tail
            + """
port = 14335
[virtual]
pool = "10.99.0.0/16"
[dns]
networks = ["10.0.0.0/8", "fd00::/8"]
[keepalive]
shortest = 5
longest = 30.5
[lookup]
plugin = "static"
[lookup.coordinators]
"dc2.ntm.example" = "203.0.113.9:4330"
""",
        )
        self.assertEqual(found.listening.listen, ("0.0.0.0", "::"))
        self.assertEqual(found.dns_networks, (ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
        self.assertEqual(found.keepalive, (5.0, 30.5))
        self.assertEqual(found.account_server.port, 14335)
        self.assertEqual(found.lookup[0], "static")
        self.assertIn("coordinators", found.lookup[1])

    def test_domain_of_another_realm(self) -> None:
        """A domain outside the realm is refused."""
        text = self.refuse(load_coordinator, DC.replace("dc1.ntm", "dc1.else"))
        self.assertIn("domain: dc1.else.example is not within the realm ntm.example", text)


class RelayTests(FileTestCase):
    """``relays/NAME.toml``."""

    def test_defaults(self) -> None:
        """The least that must be said, and what holds then."""
        found = self.load(load_relay, RS)
        self.assertEqual((found.listening.port, found.coordinator.port), (4331, 4330))
        self.assertEqual(found.coordinator.name, "dc1.ntm.example")
        self.assertGreater(found.tunnels, 0)

    def test_name_of_another_domain(self) -> None:
        """R1: a relay is named directly within its coordinator's domain."""
        text = self.refuse(load_relay, RS.replace("r1.dc1", "r1.dc2"))
        self.assertIn("name: r1.dc2.ntm.example is not directly within dc1.ntm.example", text)


class MistakeTests(FileTestCase):
    """Each mistake names the file, the key, and what is expected there."""

    def test_unknown_key(self) -> None:
        """An unknown key is an error with the likely spelling."""
        text = self.refuse(load_coordinator, DC.replace("addresses", "adresses", 1))
        self.assertIn("addresses: missing", text)
        text = self.refuse(load_coordinator, "dns_prot = 5353\n" + DC)
        self.assertEqual(text, "dns_prot: unknown key; did you mean 'dns_port'?")

    def test_unknown_key_in_a_section(self) -> None:
        """A key of a section is named with it, and all that could be said is listed."""
        text = self.refuse(load_coordinator, DC + "[virtual]\nxyzzy = 1\n")
        self.assertEqual(text, "virtual.xyzzy: unknown key; known here: pool")

    def test_unknown_section(self) -> None:
        """So is a section that nobody reads."""
        self.assertIn("surprise: unknown key", self.refuse(load_relay, RS + "[surprise]\n"))

    def test_missing_key(self) -> None:
        """A missing key says what is expected."""
        text = self.refuse(load_account_server, AS.replace('realm = "ntm.example"', ""))
        self.assertEqual(text, "realm: missing; expected the realm's domain")

    def test_missing_section(self) -> None:
        """So does a missing section."""
        text = self.refuse(load_account_server, AS.split("[device_ca]")[0])
        self.assertEqual(text, "device_ca: missing; expected a section [device_ca]")

    def test_wrong_types(self) -> None:
        """A value of a wrong type or range says what is expected and what was found."""
        cases = {
            'port = "4330"': "port: expected a whole number from 1 to 65535, found '4330'",
            "port = true": "port: expected a whole number from 1 to 65535, found True",
            "port = 65536": "port: expected a whole number from 1 to 65535, found 65536",
            "dns_port = 5.3": "dns_port: expected a whole number from 1 to 65535, found 5.3",
            "state = 5": "state: expected a path, found 5",
            'state = ""': "state: expected a path, found ''",
            "allow = [5]": "allow: expected a list of patterns such as",
            "listen = []": "listen: expected a list of addresses such as",
            'listen = ["dc1"]': "listen: expected a list of addresses such as",
            "virtual = 5": "virtual: expected a section [virtual], found 5",
            'virtual.pool = "10.0.0.0/30"': "virtual.pool: expected an IPv4 network of at least",
            'virtual.pool = "10.0.0.1/16"': "virtual.pool: expected an IPv4 network of at least",
            'dns.networks = ["10.0.0.1/8"]': "dns.networks: expected a list of networks such as",
            "keepalive.shortest = nan": "keepalive.shortest: expected seconds from 1 to 3600",
            "keepalive.longest = 1": "keepalive.longest: expected seconds from 15 to 3600",
            "lookup.plugin = 5": "lookup.plugin: expected the name of a plugin, found 5",
            'allow = ["*.Ntm.example"]': "allow: 'Ntm' is no label",
        }
        for line, expected in cases.items():
            text = self.refuse(load_coordinator, f"{line}\n{DC}")
            self.assertTrue(text.startswith(expected), f"{line}: {text}")

    def test_long_value(self) -> None:
        """A long wrong value is cut, so that the line stays one."""
        text = self.refuse(load_coordinator, f"port = '{'x' * 10000}'\n{DC}")
        self.assertLess(len(text), 200)

    def test_no_file(self) -> None:
        """A missing file, or a directory, says so."""
        missing = self.directory / "none.toml"
        error = self.assertRaises(ConfigurationError, Section.read, missing)
        self.assertEqual(str(error), f"{missing}: cannot be read: No such file or directory")
        error = self.assertRaises(ConfigurationError, Section.read, self.directory)
        self.assertIn("cannot be read: Is a directory", str(error))

    def test_no_toml(self) -> None:
        """A file that is no TOML says where."""
        self.assertIn("not TOML: ", self.refuse(load_relay, "port = \n"))
        self.assertIn("line 3", self.refuse(load_relay, "\n\nport 5\n"))
        self.assertIn("not TOML: ", self.refuse(load_relay, f"port = {'9' * 5000}\n"))
        self.refuse(load_relay, RS + '"two\\nlines" = 1\n')

    def test_no_text(self) -> None:
        """A file that is no text is one error, and so is one that is nested beyond reason."""
        self.file.write_bytes(b"\xff\xfe")
        error = self.assertRaises(ConfigurationError, load_relay, self.file)
        self.assertIn("not UTF-8", str(error))
        self.refuse(load_relay, "a = " + "[" * 100_000)
