from __future__ import annotations

from twisted.internet import reactor
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import ConfigurationError, InvalidName, UnknownName
from ntmobile.interfaces import (
    Coordinator,
    ICoordinatorLookup,
    ICoordinatorLookupProvider,
)
from ntmobile.plugins import find
from ntmobile.plugins.lookup_dns import dnsLookup
from ntmobile.plugins.lookup_options import parse_address
from ntmobile.plugins.lookup_static import StaticLookup, staticLookup


class FindTests(SynchronousTestCase):
    def test_by_name(self) -> None:
        """Plugins are found by their name."""
        for plugin in (staticLookup, dnsLookup):
            found = find(ICoordinatorLookupProvider, plugin.name)
            self.assertIs(type(found), type(plugin))

    def test_unknown_name(self) -> None:
        """An unknown name is a configuration error that lists the known ones in order."""
        error = self.assertRaises(ConfigurationError, find, ICoordinatorLookupProvider, "dnss")
        self.assertIn("unknown plugin 'dnss'", str(error))
        self.assertIn("known: dns, static", str(error))

    def test_interfaces(self) -> None:
        """The providers and what they make provide what they claim."""
        for plugin in (staticLookup, dnsLookup):
            verifyObject(IPlugin, plugin)
            verifyObject(ICoordinatorLookupProvider, plugin)
            verifyObject(ICoordinatorLookup, plugin.configure({}, reactor))


class StaticLookupTests(SynchronousTestCase):
    def configure(self, **section: object) -> StaticLookup:
        return staticLookup.configure(section, reactor)

    def test_found(self) -> None:
        """A domain in the table gives its addresses in the order written; 4330 is the default."""
        servers = ["[2001:db8::1]:4441", "192.0.2.1", "2001:0db8::2"]
        lookup = self.configure(coordinators={"dc1.ntm.example": servers})
        self.assertEqual(
            self.successResultOf(lookup.find("dc1.ntm.example")),
            Coordinator(
                "dc1.ntm.example",
                (("2001:db8::1", 4441), ("192.0.2.1", 4330), ("2001:db8::2", 4330)),
                udp_port=4441,
                tcp_port=4441,
            ),
        )

    def test_unknown(self) -> None:
        """A domain that is not in the table is unknown; the text says where to add it."""
        failure = self.failureResultOf(self.configure().find("dc2.ntm.example"), UnknownName)
        self.assertIn("dc2.ntm.example", str(failure.value))
        self.assertIn("[lookup.coordinators]", str(failure.value))

    def test_invalid(self) -> None:
        """What is no domain is not looked for."""
        self.failureResultOf(self.configure().find("Dc2..example"), InvalidName)

    def test_unknown_key(self) -> None:
        """A key that the plugin does not know is named exactly."""
        error = self.assertRaises(ConfigurationError, self.configure, coordinater={})
        self.assertIn("lookup.coordinater;", str(error))

    def test_wrong_values(self) -> None:
        """A wrong domain, list or address is named with its key."""
        for coordinators, named in (
            ("dc1", "lookup.coordinators"),
            ({"DC1.example": ["192.0.2.1"]}, 'lookup.coordinators."DC1.example"'),
            ({"dc1.example": []}, 'lookup.coordinators."dc1.example"'),
            ({"dc1.example": "192.0.2.1"}, 'lookup.coordinators."dc1.example"'),
            ({"dc1.example": ["host.example:4330"]}, "'host.example:4330'"),
            ({"dc1.example": [4330]}, "4330"),
        ):
            error = self.assertRaises(ConfigurationError, self.configure, coordinators=coordinators)
            self.assertIn(named, str(error))


class ParseAddressTests(SynchronousTestCase):
    def test_good(self) -> None:
        """IPv4 and IPv6 with and without a port."""
        for text, expected in (
            ("192.0.2.1", ("192.0.2.1", 53)),
            ("192.0.2.1:5353", ("192.0.2.1", 5353)),
            ("2001:db8::1", ("2001:db8::1", 53)),
            ("[2001:db8::1]", ("2001:db8::1", 53)),
            ("[2001:DB8::1]:99", ("2001:db8::1", 99)),
            ("fe80::1%eth0", ("fe80::1%eth0", 53)),
        ):
            self.assertEqual(parse_address("key", text, 53), expected)

    def test_bad(self) -> None:
        """All else is refused with the key and an example."""
        for text in (
            "",
            "x",
            "1.2.3",
            "1.2.3.4:",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "1.2.3.4:+5",
            "[1.2.3.4]:5",
            "[::1",
            "[::1]5",
            "[::1]:x",
            "::1:99999",
            None,
            5,
        ):
            error = self.assertRaises(ConfigurationError, parse_address, "key", text, 53)
            self.assertIn("key: ", str(error))
            self.assertIn("[2001:db8::1]:53", str(error))
