"""Names of devices, users, domains and servers, and how trust compares them (rule R1).

A device is ``DEVICE.USER.DOMAIN``, a user ``USER.DOMAIN``, where DOMAIN is the domain of the one
coordinator that serves them. Everything is lower-case letters, digits and hyphens, without a
trailing dot; nothing is folded or repaired here, so that two different texts never name one thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ntmobile.errors import InvalidName

#: Longest FQDN, in characters. A device certificate is 325 bytes beside the FQDN, and 4 more from
#: the year 2050 on (X.509 then writes four-digit years), so 70 keeps it within the 400 of rule R4.
FQDN_LIMIT: Final = 70
#: Longest domain of a coordinator; leaves 22 characters for ``DEVICE.USER.``.
DOMAIN_LIMIT: Final = 48
#: Longest label (RFC 1035, section 2.3.4).
LABEL_LIMIT: Final = 63
#: First labels under a coordinator's domain that no user may have (rule R1).
RESERVED_LABELS: Final = frozenset(
    {
        *("as", "dc", "rs", "cs", "ca", "ntm", "root", "device-ca", "_ntm", "_tcp", "_udp"),
        *("ns", "ns1", "ns2", "ns3", "www", "mail", "mta-sts", "localhost", "wpad", "autoconfig"),
    }
)

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)


def check_label(text: str) -> str:
    """Return ``text`` if it is one lower-case LDH label, else raise :class:`InvalidName`."""
    if not text:
        raise InvalidName("an empty label; write names as DEVICE.USER.DOMAIN without a final dot")
    if len(text) > LABEL_LIMIT:
        raise InvalidName(f"the label {text[:20]!r}... is longer than {LABEL_LIMIT} characters")
    if not _LABEL.fullmatch(text):
        raise InvalidName(
            f"{text!r} is no label: use a-z, 0-9 and '-', neither first nor last a hyphen"
        )
    return text


def _labels(text: str, limit: int, what: str) -> list[str]:
    """The labels of a name of at most ``limit`` characters whose last one is not a number."""
    if len(text) > limit:
        raise InvalidName(f"the {what} {text[:40]!r}... is longer than {limit} characters")
    labels = [check_label(label) for label in text.split(".")]
    if labels[-1].isdigit():
        raise InvalidName(f"{text!r} is no {what}: it ends in a number, like an address")
    return labels


def check_domain(text: str) -> str:
    """Return ``text`` if it can be the domain of a realm or coordinator.

    :raises InvalidName: not lower-case LDH labels, or longer than :data:`DOMAIN_LIMIT`.
    """
    _labels(text, DOMAIN_LIMIT, "domain")
    return text


def check_server(text: str) -> str:
    """Return ``text`` if it can be the name in a server's certificate: any name that is valid."""
    _labels(text, FQDN_LIMIT, "server name")
    return text


def check_name(text: str) -> str:
    """Return ``text`` if somebody could be called so, device or user: any name that is valid."""
    _labels(text, FQDN_LIMIT, "name")
    return text


def check_user(label: str) -> str:
    """Return ``label`` if a user may be called so: a label that servers do not need (rule R1)."""
    if label in RESERVED_LABELS:
        raise InvalidName(f"{label!r} is reserved for servers; choose another user name")
    return check_label(label)


def check_fqdn(text: str) -> str:
    """Return ``text`` if it is the FQDN of a device, ``DEVICE.USER.DOMAIN``.

    :raises InvalidName: too few labels, not lower-case LDH, a reserved user, or longer than
        :data:`FQDN_LIMIT`.
    """
    labels = _labels(text, FQDN_LIMIT, "name")
    if len(labels) < 3:
        raise InvalidName(f"{text!r} is no device: write DEVICE.USER.DOMAIN")
    check_user(labels[1])
    check_domain(".".join(labels[2:]))
    return text


def domain_of(fqdn: str) -> str:
    """The domain of the coordinator of a device: its name without the two first labels (R14)."""
    return check_fqdn(fqdn).split(".", 2)[2]


def user_of(fqdn: str) -> str:
    """The user of a device, such as ``alice.dc1.ntm.example``."""
    return check_fqdn(fqdn).split(".", 1)[1]


def device_of(fqdn: str) -> str:
    """The device label of a device's FQDN, such as ``phone``."""
    return check_fqdn(fqdn).split(".", 1)[0]


def split_account(text: str) -> tuple[str, str]:
    """Split ``alice@dc1.ntm.example`` into user label and domain.

    :raises InvalidName: no account, or a reserved or malformed user or domain.
    """
    user, at, domain = text.partition("@")
    if not at:
        raise InvalidName(f"{text!r} is no account: write USER@DOMAIN")
    return check_user(user), check_domain(domain)


def is_device_of(name: str, domain: str) -> bool:
    """Whether ``name`` is a device of ``domain``: exactly two labels below it."""
    head = _below(name, domain)
    return len(head) == 2 and head[1] not in RESERVED_LABELS


def is_user_of(name: str, domain: str) -> bool:
    """Whether ``name`` is a user of ``domain``: exactly one label below it, not a reserved one."""
    head = _below(name, domain)
    return len(head) == 1 and head[0] not in RESERVED_LABELS


def _below(name: str, domain: str) -> list[str]:
    """The valid labels of ``name`` in front of ``domain``; none if it is not below it."""
    if not name.endswith("." + domain):
        return []
    head = name[: -len(domain) - 1].split(".")
    return head if all(_LABEL.fullmatch(label) for label in head) else []


def is_within(name: str, suffix: str) -> bool:
    """Whether ``name`` is ``suffix`` or below it, by whole labels."""
    return name == suffix or name.endswith("." + suffix)


def suffix_match(name: str, suffixes: Iterable[str]) -> str | None:
    """The longest of ``suffixes`` that ``name`` is or lies below, by whole labels (rule R1)."""
    matching = [suffix for suffix in suffixes if is_within(name, suffix)]
    return max(matching, key=len, default=None)


def check_pattern(text: str) -> str:
    """Return ``text`` if it is a pattern for :func:`matches`: a name, ``*.NAME`` or ``*``."""
    if text != "*":
        _labels(text.removeprefix("*."), FQDN_LIMIT, "pattern")
    return text


def matches(pattern: str, fqdn: str) -> bool:
    """Whether an allow list's pattern covers a device (rule R13).

    ``*`` covers everyone, ``*.alice.dc1.ntm.example`` all devices below that name, at any depth
    but not the name itself, and a pattern without a star exactly that device.
    """
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return fqdn.endswith(pattern[1:]) and len(fqdn) > len(pattern) - 1
    return fqdn == pattern
