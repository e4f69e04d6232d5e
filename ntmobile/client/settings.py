"""``node.toml``: what a device's owner may set (design, section 7)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from attrs import frozen

from ntmobile.client.account import Account
from ntmobile.client.node import DEVICE_MTU, NodeSettings
from ntmobile.client.state import SETTINGS
from ntmobile.errors import ConfigurationError, NotRegistered
from ntmobile.plugins.section import Section
from ntmobile.wire import names

_LINUX = sys.platform == "linux"
#: Patterns that one Policy Request carries.
ALLOW: Final = 8
RELAY_ONLY: Final = 4


@frozen
class DeviceSettings:
    """A device's file.

    :ivar account: whose device it is, and where its DC is. :ivar node: what its node may do.
    :ivar attachment: :ivar watch: :ivar notify: plugins and their sections.
    """

    account: Account
    node: NodeSettings
    attachment: tuple[str, Section]
    watch: tuple[str, Section]
    notify: tuple[str, Section]


def load_settings(state: Path) -> DeviceSettings:
    """Read the settings of a state directory.

    :raises NotRegistered: no device is enrolled there.
    :raises ConfigurationError: a key is unknown, missing or wrong; the text names it.
    """
    file = state / SETTINGS
    if not file.exists():
        raise NotRegistered(f"{state}: no device is enrolled here; see ntm enroll")
    top = Section.read(file)
    keepalive = top.section("keepalive")
    shortest = keepalive.seconds("shortest", 15.0, low=1, high=3600)
    longest = keepalive.seconds("longest", max(120.0, shortest), low=shortest, high=3600)
    expected = 'a list of patterns such as ["*.alice.dc1.ntm.example"]'
    allow = top.texts("allow", (), check=names.check_pattern, expected=expected)
    relay_only = top.texts("relay_only", (), check=names.check_pattern, expected=expected)
    for key, patterns, limit in (("allow", allow, ALLOW), ("relay_only", relay_only, RELAY_ONLY)):
        if len(patterns) > limit:  # one datagram has to carry them (R10)
            raise ConfigurationError(f"{file}: {key}: at most {limit} patterns")
    settings = DeviceSettings(
        Account.read(top),
        NodeSettings(
            allow=allow if "allow" in top else None,
            relay_only=relay_only,
            keepalive=(shortest, longest),
            idle=top.seconds("idle", 300.0, low=10, high=86400),
            port=top.integer("port", 0, low=0, high=65535),
            mtu=top.integer("mtu", DEVICE_MTU, low=1280, high=8936),
        ),
        top.plugin("attachment", "netns" if _LINUX else "datagram"),
        top.plugin("watch", "netlink" if _LINUX else "poll"),
        top.plugin("notify", "none"),
    )
    keepalive.finish()
    top.finish()
    return settings
