"""The addresses that programs know correspondents by, kept for the agent's next start.

Programs in the virtual network outlive their agent. The next one must know at once who is meant by
the addresses in their packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec
from twisted.logger import Logger

from ntmobile.errors import InvalidName
from ntmobile.machines.device.shown import Shown
from ntmobile.plugins.files import write_file
from ntmobile.wire import names

log = Logger()

#: A line of the file: name, certified IPv6 and IPv4 address, shown IPv4 address.
_Row = tuple[str, IPv6Address, IPv4Address, IPv4Address]


def _decode(kind: type, value: object) -> object:
    if kind in (IPv4Address, IPv6Address) and isinstance(value, str):
        return kind(value)
    raise ValueError("not an address")


_DECODER = msgspec.json.Decoder(list[_Row], dec_hook=_decode)


def load_known(file: Path) -> list[Shown]:
    """What an earlier agent kept; nothing where there is none, or it is damaged."""
    try:
        rows = _DECODER.decode(file.read_bytes())
        return [
            Shown(names.check_fqdn(fqdn), ipv6, certified, ipv4)
            for fqdn, ipv6, certified, ipv4 in rows
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, InvalidName) as problem:
        log.warn("{file} is not used: {problem}", file=str(file), problem=str(problem))
        return []


def save_known(file: Path, known: Iterable[Shown]) -> None:
    """Keep them. A disk that is full costs no more than this memory."""
    rows = [(one.fqdn, str(one.ipv6), str(one.certified), str(one.ipv4)) for one in known]
    try:
        write_file(file, msgspec.json.encode(rows))
    except OSError as problem:
        log.error("{file} cannot be written: {problem}", file=str(file), problem=problem.strerror)
