"""Addresses of correspondents that outlive the agent."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.known import load_known, save_known
from ntmobile.machines.device.shown import Shown, ShownAddresses

OWN6, OWN4 = IPv6Address("fd00::1"), IPv4Address("198.18.0.1")
BOB = Shown(
    "phone.bob.dc2.ntm.example",
    IPv6Address("fd00::b0b"),
    IPv4Address("198.18.0.1"),
    IPv4Address("198.18.7.7"),
)


class KnownTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        self.file = directory / "known.json"

    def test_round_trip(self) -> None:
        """What was kept is there again, in a private file."""
        save_known(self.file, [BOB])
        self.assertEqual(load_known(self.file), [BOB])
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)

    def test_none(self) -> None:
        """No file is no correspondents."""
        self.assertEqual(load_known(self.file), [])

    def test_damaged(self) -> None:
        """A damaged file is not used, and hinders nothing."""
        row = '["phone.bob.dc2.ntm.example", "fd00::b0b", "198.18.0.1", %s]'
        for text in ("", "{}", "[1]", f"[{row % 5}]", f"[{row % chr(34)}", '[["x","y","z","u"]]'):
            self.file.write_text(text)
            self.assertEqual(load_known(self.file), [], text)

    def test_unwritable(self) -> None:
        """Where it cannot be written the agent goes on."""
        save_known(self.file.parent / "nonesuch" / "known.json", [BOB])


class RestoreTests(SynchronousTestCase):
    """The table that it is read into."""

    def test_same_address(self) -> None:
        """R24: a correspondent is shown under the address that programs know already."""
        shown = ShownAddresses(OWN6, OWN4)
        shown.restore([BOB])
        self.assertEqual(shown.of(BOB.fqdn), BOB)
        self.assertEqual(shown.at(BOB.ipv4.packed), BOB)
        self.assertEqual(shown.remembered, (BOB,))

    def test_in_the_way(self) -> None:
        """It is not where that address is our own now, or of a network that we are in."""
        for own4, network in ((BOB.ipv4, "192.0.2.0/24"), (OWN4, "198.18.7.0/24")):
            shown = ShownAddresses(OWN6, own4, (IPv4Network(network),))
            shown.restore([BOB])
            self.assertIsNone(shown.of(BOB.fqdn))
