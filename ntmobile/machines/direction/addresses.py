"""Which of a client's addresses its DC names to a correspondent (rule R17).

Public addresses only if the DC itself observed them; private ones only of the ranges that sites
use; so that a direction can never be made into a list of targets. What a client makes of them is in
:mod:`ntmobile.machines.tunnel.candidates`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ntmobile.machines.tunnel.candidates import is_private
from ntmobile.machines.tunnel.constants import CANDIDATES
from ntmobile.wire.messages.fields import Endpoint, Location


def observed_of(location: Location, family: int) -> Endpoint | None:
    """The address of this family under which the DC sees the client."""
    return next((one for one in location.observed if one.family == family), None)


def private_of(location: Location, family: int) -> list[Endpoint]:
    """The private addresses of this family that the client claims."""
    return [one for one in location.local if one.family == family and is_private(str(one.ip))]


def nameable(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The first four, each once; never multicast, unspecified or broadcast."""
    usable = (one for one in endpoints if not (one.ip.is_multicast or one.ip.is_unspecified))
    kept = dict.fromkeys(one for one in usable if one.address != b"\xff\xff\xff\xff")
    return tuple(kept)[:CANDIDATES]
