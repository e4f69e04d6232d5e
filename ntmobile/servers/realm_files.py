"""The TOML files that ``ntm realm`` writes, and careful changes to them afterwards.

Operators edit these files, so a change touches only the values that it must, keeps comments and
order, and is verified by reading the result.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ntmobile.errors import ConfigurationError
from ntmobile.plugins.files import write_file

Value = str | int | Sequence[str]
#: Table (empty for the file's top) and key.
Place = tuple[str, str]

_HEADER: Final = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")

ACCOUNT_SERVER: Final = """\
# The account server of {realm}. Paths are relative to this file.
realm = {realm}
# Where coordinators reach it, and, if that is not the same, where it listens:
addresses = {addresses}
#listen = ["0.0.0.0", "::"]
port = {port}
certificate = "as/as.pem"
key = "as/as.key"
trust = "ca.pem"
# Seconds: how long a device's certificate lasts; how long servers work on without this one.
device_certificate_lifetime = 86400
lease = 600

# What signs the certificates of devices.
[device_ca]
certificate = "as/device-ca.pem"
key = "as/device-ca.key"

[store]
plugin = "sqlite"
path = "as/accounts.sqlite"

# Other realms that are trusted: domain suffix = their ca.pem (ntm realm trust).
[foreign]
"""

COORDINATOR: Final = """\
# The direction coordinator of {domain}. Paths are relative to this file.
domain = {domain}
realm = {realm}
# Where devices and servers reach it, and, if that is not the same, where it listens:
addresses = {addresses}
#listen = ["0.0.0.0", "::"]
port = {port}
dns_port = {dns_port}
certificate = "dc.pem"
key = "dc.key"
trust = "ca.pem"
state = "state"
# Who may reach a device that does not say so itself:
allow = ["*.{realm_bare}"]

[account_server]
addresses = {as_addresses}
port = {as_port}

# How the coordinators of other domains are found: "dns", or "static" with a table.
[lookup]
plugin = "dns"

[notify]
plugin = "none"

[locations]
plugin = "sqlite"

# The virtual IPv4 addresses of this domain's devices.
[virtual]
pool = "198.18.0.0/15"

# Networks that may ask for virtual addresses by DNS.
[dns]
networks = []

# Shortest and longest interval of the devices' keep-alives, in seconds.
[keepalive]
shortest = 15
longest = 120

# Other realms that are trusted: domain suffix = their ca.pem (ntm realm trust).
[foreign]
"""

#: What relay and cache servers have in common: who they are, and their coordinator.
_ATTACHED: Final = """\
name = {name}
realm = {realm}
# Where devices reach it, and, if that is not the same, where it listens:
addresses = {addresses}
#listen = ["0.0.0.0", "::"]
port = {port}
certificate = {certificate}
key = {key}
trust = {trust}
"""
_COORDINATOR: Final = """
[coordinator]
domain = {domain}
addresses = {dc_addresses}
port = {dc_port}
"""

RELAY: Final = f"""\
# The relay server {{name}}. Paths are relative to this file.
{_ATTACHED}{_COORDINATOR}
# Bytes a second of one tunnel; seconds until an idle tunnel is forgotten; tunnels at once.
[limits]
rate = 125000000
idle = 180
tunnels = 10000
"""

CACHE: Final = f"""\
# The cache server {{name}}. Paths are relative to this file.
{_ATTACHED}state = {{state}}
{_COORDINATOR}
# Where keys and objects are kept.
[storage]
plugin = "files"

# Bytes of one user, bytes of one application, and things of one user; 0 is without limit.
[quotas]
user = 10000000000
application = 0
items = 100000

# Bytes of one object; connections at once; requests of one device in a second; seconds after which
# an upload that does not go on is removed.
[limits]
object = 68719476736
connections = 2000
requests = 250
idle = 86400

# How the coordinators of destinations are found: "dns", or "static" with a table.
[lookup]
plugin = "dns"

# Other realms that are trusted: domain suffix = their ca.pem (ntm realm trust).
[foreign]
"""


def literal(value: Value) -> str:
    """A value in TOML."""
    if isinstance(value, (str, int)):
        return json.dumps(value, ensure_ascii=False)
    return "[" + ", ".join(json.dumps(each) for each in value) + "]"


def fill(template: str, **values: Value) -> str:
    """A template with its values in TOML; in comments, and as ``..._bare``, texts go unquoted."""
    lines = []
    for line in template.splitlines(keepends=True):
        shown = {
            key: value if line.startswith("#") else literal(value) for key, value in values.items()
        }
        bare = {f"{key}_bare": value for key, value in values.items()}
        lines.append(line.format(**shown, **bare))
    return "".join(lines)


def change(file: Path, changes: Mapping[Place, Value]) -> list[str]:
    """Set values in a file, leaving everything else in it as it is.

    :return: the full names of the keys that had another value; none means the file is untouched.
    :raises ConfigurationError: the file is written so that it cannot be changed by itself; the
        text says what to write by hand.
    """
    try:
        text = file.read_text(encoding="utf-8")
        before = tomllib.loads(text)
    except OSError as problem:
        raise ConfigurationError(f"{file}: cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise ConfigurationError(f"{file}: not TOML: {problem}") from None
    changed = []
    for (table, key), value in changes.items():
        wanted = value if isinstance(value, (str, int)) else list(value)
        if _get(before, table, key) == wanted:
            continue
        name = f"{table}.{key}" if table else key
        text = _set(text, table, key, literal(value))
        if not _is_only_change(before, text, table, key, wanted):
            raise ConfigurationError(
                f"{file}: cannot be changed by itself; write {name} = {literal(value)} there"
            )
        before = tomllib.loads(text)
        changed.append(name)
    if changed:
        write_file(file, text.encode("utf-8"), file.stat().st_mode & 0o777)
    return changed


def _get(document: dict[str, Any], table: str, key: str) -> object:
    holder = document.get(table, {}) if table else document
    return holder.get(key) if isinstance(holder, dict) else None


def _is_only_change(before: dict[str, Any], text: str, table: str, key: str, value: object) -> bool:
    """Whether ``text`` says what ``before`` said, but for this one value."""
    try:
        after = tomllib.loads(text)
    except ValueError:
        return False
    expected = {
        each: dict(held) if isinstance(held, dict) else held for each, held in before.items()
    }
    (expected.setdefault(table, {}) if table else expected)[key] = value
    return after == expected


def _set(text: str, table: str, key: str, value: str) -> str:
    """Replace, or add, one line; what comes of it must be checked."""
    written = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
    pattern = re.compile(rf"(\s*{re.escape(written)}\s*=\s*)(.*?)(\s*#.*)?")
    lines = text.splitlines()
    here, end = "", None if table else 0
    for number, line in enumerate(lines):
        header = _HEADER.fullmatch(line)
        if header:
            here = header[1].strip()
        elif here != table:
            continue
        elif found := pattern.fullmatch(line):
            lines[number] = f"{found[1]}{value}{found[3] or ''}"
            return "\n".join(lines) + "\n"
        if here == table and line.strip() and not line.lstrip().startswith("#"):
            end = number + 1
    if end is None:
        return "\n".join([*lines, "", f"[{table}]", f"{written} = {value}"]) + "\n"
    return "\n".join([*lines[:end], f"{written} = {value}", *lines[end:]]) + "\n"
