"""The providers of attachments: found by name, exact about their configuration."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import IAttachmentFactory, IAttachmentProvider
from ntmobile.plugins import find

NAMES = ("netns", "tun", "fd")


class ProviderTests(SynchronousTestCase):
    """What a client's ``[attachment]`` section may say."""

    def provider(self, name: str) -> IAttachmentProvider:
        """Find a provider."""
        provider: IAttachmentProvider = find(IAttachmentProvider, name)
        return provider

    def test_found(self) -> None:
        """Each is found under its name and provides the interfaces."""
        for name in NAMES:
            provider = self.provider(name)
            verifyObject(IAttachmentProvider, provider)
            section = {"descriptor": 0} if name == "fd" else {}
            verifyObject(IAttachmentFactory, provider.configure(section, reactor))

    def test_unknown_key(self) -> None:
        """An unknown key is refused by its name."""
        for name in NAMES:
            with self.assertRaisesRegex(ConfigurationError, r"unknown key attachment\.colour"):
                self.provider(name).configure({"colour": "blue"}, reactor)

    def test_wrong_values(self) -> None:
        """A wrong value is refused with its key."""
        wrong: list[tuple[str, str, list[object]]] = [
            ("netns", "routes", ["fd00::/8", [1], ["fd00::/129"], ["fd00::1/8"], [["fd00::/8"]]]),
            ("tun", "routes", [5, ["no network"]]),
            ("tun", "name", ["", "a" * 16, "a/b", "a b", 5, "ntm0\n"]),
            ("fd", "descriptor", [-1, "3", 3.0, True, None]),
        ]
        for name, key, values in wrong:
            for value in values:
                with self.assertRaisesRegex(ConfigurationError, rf"attachment\.{key}"):
                    self.provider(name).configure({key: value}, reactor)

    def test_missing_descriptor(self) -> None:
        """``fd`` cannot do without a descriptor."""
        with self.assertRaisesRegex(ConfigurationError, r"attachment\.descriptor"):
            self.provider("fd").configure({}, reactor)
