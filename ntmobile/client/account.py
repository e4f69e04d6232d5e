"""Whose device this is and where its coordinator is: the first lines of ``node.toml``."""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from attrs import frozen

from ntmobile.errors import ConfigurationError, InvalidName
from ntmobile.plugins.files import read_file, write_file
from ntmobile.plugins.section import Section
from ntmobile.protocols.device_link import shown
from ntmobile.wire import names
from ntmobile.wire.messages.fields import Address

#: A coordinator's port where none is given (design section 7).
DC_PORT: Final = 4330
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?", re.ASCII)
_TEMPLATE: Final = """\
# This device. Written by ntm enroll; account and device stay as they were enrolled.
account = "{account}"
device = "{device}"
# Where the coordinator is, "HOST:PORT"; without it DNS is asked.
{dc}

# Who may reach this device, where it is not all devices of the realm:
#allow = ["*.{user}.{domain}"]
# From whom this device's addresses are hidden, so that a relay stands between:
#relay_only = ["*"]
"""
_LINE: Final = re.compile(r"^#?[ \t]*(account|device|dc)[ \t]*=.*$", re.MULTILINE)


@frozen
class Account:
    """The account and label of a device.

    :ivar user: label. :ivar domain: of the coordinator. :ivar device: label.
    :ivar dc: host and port of the coordinator; None: DNS is asked.
    """

    user: str
    domain: str
    device: str
    dc: Address | None = None

    @property
    def fqdn(self) -> str:
        """The device's name."""
        return f"{self.device}.{self.user}.{self.domain}"

    @classmethod
    def parse(cls, account: str, device: str, dc: Address | None = None) -> Account:
        """From ``alice@dc1.ntm.example`` and ``phone``; :class:`InvalidName` if it is none."""
        user, domain = names.split_account(account)
        found = cls(user, domain, names.check_label(device), dc)
        names.check_fqdn(found.fqdn)
        return found

    @classmethod
    def read(cls, section: Section) -> Account:
        """Take ``account``, ``device`` and ``dc`` from ``node.toml``; the rest is the caller's."""
        account = section.text("account", expected='an account such as "alice@dc1.ntm.example"')
        device = section.text("device", expected="the label of this device")
        dc = section.text("dc", "", expected='an address such as "dc1.ntm.example:4330"')
        try:
            return cls.parse(account, device, parse_coordinator(dc) if dc else None)
        except InvalidName as problem:
            raise section.problem("account", str(problem)) from None
        except ConfigurationError as problem:
            raise section.problem("dc", str(problem)) from None

    def _lines(self) -> dict[str, str]:
        dc = '#dc = "203.0.113.1:4330"' if self.dc is None else f'dc = "{shown(self.dc)}"'
        account = f'account = "{self.user}@{self.domain}"'
        return {"account": account, "device": f'device = "{self.device}"', "dc": dc}

    def to_toml(self) -> bytes:
        """A new ``node.toml``."""
        text = _TEMPLATE.format(
            account=f"{self.user}@{self.domain}",
            device=self.device,
            dc=self._lines()["dc"],
            user=self.user,
            domain=self.domain,
        )
        return text.encode()

    def write(self, file: Path) -> None:
        """Write ``node.toml``, or put this account into one that exists; other settings stay.

        :raises ConfigurationError: the file cannot be changed by itself.
        :raises OSError: it cannot be written.
        """
        if not file.exists():
            write_file(file, self.to_toml())
            return
        if Account.read(Section.read(file)) == self:
            return
        wanted = self._lines()
        text = read_file(file, 1 << 20).decode("utf-8")
        # Each key once, at its first place; what another line says of it goes.
        text = _LINE.sub(lambda found: wanted.pop(found.group(1), ""), text)
        text = "".join(f"{line}\n" for line in wanted.values()) + text
        try:
            changed = Account.read(Section(file, "", tomllib.loads(text)))
        except (ValueError, ConfigurationError):
            changed = None
        if changed != self:
            raise ConfigurationError(
                f"{file}: cannot be changed by itself; remove it, or set account, device and dc"
            )
        write_file(file, text.encode())


def parse_coordinator(text: str) -> Address:
    """Host and port from ``HOST``, ``HOST:PORT``, ``[V6]:PORT`` or a bare IPv6 address.

    :raises ConfigurationError: it is none of these.
    """
    problem = ConfigurationError(
        f"{text!r} is no address of a coordinator; write HOST:PORT, such as "
        "203.0.113.1:4330, [2001:db8::1]:4330 or dc1.ntm.example"
    )
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or not _is_ipv6(host):
            raise problem
        port = port[1:] if port else ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            raise problem
    if not _is_ipv6(host) and not _HOST.fullmatch(host):
        raise problem
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise problem
    return host, int(port) if port else DC_PORT


def _is_ipv6(host: str) -> bool:
    try:
        return isinstance(ip_address(host), IPv6Address)
    except ValueError:
        return False
