"""The route decision: how two clients shall talk (design section 5; paper, section III).

One pure function of what the DCs know of both locations. "N" means behind a NAT: in that family the
address that the DC sees is none of the client's own.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from ntmobile.machines.direction.addresses import nameable, observed_of, private_of
from ntmobile.wire.messages.fields import Endpoint, Location


class Reach(Enum):
    """What one family promises for a pair of clients, best first."""

    GLOBAL = "both global"
    ONE_SIDED = "one behind NAT"
    SAME_NAT = "both behind the same NAT"
    APART = "behind different NATs"
    NONE = "no common family"


@frozen
class Route:
    """A decision.

    :ivar mn_initiates: MN sends the Tunnel Request; else CN does.
    :ivar to_cn: candidates that MN gets: addresses of CN. :ivar to_mn: those that CN gets.
    :ivar relay_first: direct is hopeless, the relay is used at once.
    :ivar relay_families: families that the RS must have: one of the first, one of the second.
    :ivar reason: for people (``ntm why``).
    """

    mn_initiates: bool
    to_cn: tuple[Endpoint, ...]
    to_mn: tuple[Endpoint, ...]
    relay_first: bool
    relay_families: tuple[frozenset[int], frozenset[int]]
    reason: str

    @property
    def direct(self) -> bool:
        """Whether a direct path is worth trying."""
        return bool(self.to_cn or self.to_mn)


def families_of(location: Location) -> frozenset[int]:
    """The families in which the DC sees the client; one that never registered may come in any."""
    return frozenset(endpoint.family for endpoint in location.observed) or frozenset({4, 6})


def reach(mn: Location, cn: Location, family: int) -> Reach:
    """What a family promises for the two."""
    ours, theirs = observed_of(mn, family), observed_of(cn, family)
    if ours is None or theirs is None:
        return Reach.NONE
    behind = (family in mn.translated) + (family in cn.translated)
    if behind == 0:
        return Reach.GLOBAL
    if behind == 1:
        return Reach.ONE_SIDED
    return Reach.SAME_NAT if ours.address == theirs.address else Reach.APART


def _candidates(location: Location, reaches: dict[int, Reach]) -> tuple[Endpoint, ...]:
    """Addresses of ``location`` that its correspondent can try, IPv6 first."""
    found: list[Endpoint] = []
    for family in (6, 4):
        kind = reaches[family]
        seen = observed_of(location, family)
        open_here = kind is Reach.GLOBAL or kind is Reach.ONE_SIDED
        if seen is not None and open_here and family not in location.translated:
            found.append(seen)
        elif kind is Reach.SAME_NAT:
            found += private_of(location, family)
    return nameable(found)


def decide(mn: Location, cn: Location, *, hide: bool = False) -> Route:
    """Decide how MN and CN build their tunnel.

    :param hide: one of them hides its addresses from the other (R13): relay only.
    """
    reaches = {family: reach(mn, cn, family) for family in (4, 6)}
    needed = (families_of(mn), families_of(cn))
    if hide:
        return Route(True, (), (), True, needed, "addresses are hidden: relay only")
    to_cn, to_mn = _candidates(cn, reaches), _candidates(mn, reaches)
    best = next(kind for kind in Reach if kind in reaches.values())
    if not to_cn and not to_mn:
        return Route(True, (), (), True, needed, f"{best.value}: relay")
    # The side behind a NAT opens the way; only then does the other know where to answer.
    one_sided = [family for family in (4, 6) if reaches[family] is Reach.ONE_SIDED]
    mn_initiates = bool(to_cn)
    if one_sided and not any(family in mn.translated for family in one_sided):
        mn_initiates = False
    return Route(mn_initiates, to_cn, to_mn, False, needed, f"{best.value}: direct")
