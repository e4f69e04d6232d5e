"""A DC's view of its clients: who they are, where they are, whom they admit (paper, section II)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from attrs import define, field, frozen

from ntmobile.errors import NotRegistered
from ntmobile.machines.effects import Address
from ntmobile.wire import names
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.messages.fields import Endpoint, Location
from ntmobile.wire.messages.realtime import PolicyRequest, RegistrationRequest

#: A location unheard for so many keep-alive intervals has expired.
MISSED_KEEPALIVES: Final = 3
#: A client that is silent on purpose for longer than this, in seconds, counts as off.
LONGEST_KEEPALIVE: Final = 3600
#: Correspondents remembered for each client, newest last, for revocation (R34).
CORRESPONDENTS: Final = 1024
_MINUTE: Final = 60.0
#: The location of a client that never registered.
NOWHERE: Final = Location(0, (), ())
#: The correspondents of a client that has none.
_NOBODY: Final[Mapping[str, None]] = MappingProxyType({})


@frozen
class Policy:
    """Whom a client admits, and from whom it hides its addresses (R13); patterns of FQDNs."""

    allow: tuple[str, ...] = ()
    relay_only: tuple[str, ...] = ()
    generation: int = 0

    def admits(self, fqdn: str) -> bool:
        """Whether that correspondent may ask for this client."""
        return any(names.matches(pattern, fqdn) for pattern in self.allow)

    def hides_from(self, fqdn: str) -> bool:
        """Whether addresses are hidden from that correspondent."""
        return any(names.matches(pattern, fqdn) for pattern in self.relay_only)


@define(init=False)
class Client:
    """One device of this DC's domain; small, since a DC holds very many.

    Its certificate is kept as it came, and taken apart again when it is asked for.

    :ivar der: its certificate. :ivar identity: raw Ed25519 public key, of which every request is
        verified. :ivar not_after: when the certificate ends, unix seconds.
    :ivar index: session index of its signalling session.
    :ivar expires: monotonic time at which session and certificate end.
    :ivar heard: monotonic time of the last authentic datagram; registered while it is recent.
    :ivar order: grows with each registration; a user's name stands for the device with the highest.
    :ivar correspondents: whom it was directed to, the newest last; see :meth:`talks_to`.
    """

    der: bytes = field(repr=False)
    fqdn: str
    identity: bytes = field(repr=False)
    not_after: float
    index: bytes
    expires: float
    policy: Policy
    location: Location
    heard: float = float("-inf")
    lifetime: float = 0.0
    order: int = 0
    registered: bool = False
    correspondents: Mapping[str, None] = _NOBODY

    def __init__(
        self,
        certificate: DeviceCertificate,
        index: bytes,
        expires: float,
        policy: Policy,
        location: Location = NOWHERE,
    ) -> None:
        self.__attrs_init__(
            certificate.der,
            certificate.fqdn,
            certificate.identity,
            certificate.not_after,
            index,
            expires,
            policy,
            location,
        )

    @property
    def certificate(self) -> DeviceCertificate:
        """Its certificate."""
        return _parsed(self.der)

    def online(self, now: float) -> bool:
        """Registered and heard within its lifetime."""
        return self.registered and now < self.heard + self.lifetime

    def located(self, now: float, *, hide: bool = False) -> Location:
        """Its location as told to others.

        :param hide: leave only the families, which the choice of a relay needs (R13).
        """
        here, online = self.location, self.online(now)
        if not hide:
            return Location(here.generation, here.observed, here.local, here.translated, online)
        veiled = tuple(Endpoint(bytes(len(one.address)), 1) for one in here.observed)
        return Location(here.generation, veiled, (), here.translated, online)

    def talks_to(self, peer: str) -> None:
        """Remember a correspondent."""
        known = self.correspondents
        if not isinstance(known, dict):
            known = self.correspondents = {}
        known.pop(peer, None)
        known[peer] = None
        while len(known) > CORRESPONDENTS:
            del known[next(iter(known))]


@lru_cache(maxsize=4096)
def _parsed(der: bytes) -> DeviceCertificate:
    return DeviceCertificate.parse(der)


@frozen
class Registered:
    """What a registration did. ``changed``: the location is another than before, or it woke."""

    observed: Endpoint
    translated: bool
    changed: bool


@define
class ClientTable:
    """All clients of one domain, by name and by session index."""

    domain: str
    _by_name: dict[str, Client] = field(factory=dict, init=False)
    _by_index: dict[bytes, Client] = field(factory=dict, init=False)
    _by_user: dict[str, dict[str, Client]] = field(factory=dict, init=False)
    _ending: dict[int, list[bytes]] = field(factory=dict, init=False)
    _order: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._by_name.values())

    def add(self, client: Client) -> Client | None:
        """A login: the client's newest session replaces an older one, which is returned."""
        former = self._by_name.get(client.fqdn)
        if former is not None:
            self._by_index.pop(former.index, None)
            client.location, client.order = former.location, former.order
            client.policy = former.policy
            client.correspondents = former.correspondents
        self._by_name[client.fqdn] = client
        self._by_index[client.index] = client
        self._by_user.setdefault(names.user_of(client.fqdn), {})[client.fqdn] = client
        self._ending.setdefault(int(client.expires // _MINUTE), []).append(client.index)
        return former

    def remove(self, fqdn: str) -> Client | None:
        """A revocation or an expired session."""
        client = self._by_name.pop(fqdn, None)
        if client is not None:
            self._by_index.pop(client.index, None)
            devices = self._by_user[names.user_of(fqdn)]
            del devices[fqdn]
            if not devices:
                del self._by_user[names.user_of(fqdn)]
        return client

    def expired(self, now: float) -> list[Client]:
        """The clients whose sessions are over, each once; the caller removes them.

        They are kept by the minute in which they end, so that nobody looks through all of them.
        """
        found = []
        for minute in [one for one in self._ending if one <= now // _MINUTE]:
            waiting = []
            for index in self._ending.pop(minute):
                client = self._by_index.get(index)
                if client is not None and client.expires <= now:
                    found.append(client)
                elif client is not None:
                    waiting.append(index)
            if waiting:
                self._ending[minute] = waiting
        return found

    def of_index(self, index: bytes) -> Client:
        """The client of a session. :raises NotRegistered: there is none."""
        try:
            return self._by_index[index]
        except KeyError:
            raise NotRegistered("no client of that session") from None

    def find(self, name: str) -> Client | None:
        """A device by its FQDN, or a user's device that registered last."""
        client = self._by_name.get(name)
        if client is not None:
            return client
        devices = [one for one in self._by_user.get(name, {}).values() if one.order]
        return max(devices, key=lambda one: one.order, default=None)

    def has_user(self, name: str) -> bool:
        """Whether ``USER.DOMAIN`` has devices here (an empty non-terminal of the zone)."""
        return name in self._by_user

    def register(
        self, client: Client, request: RegistrationRequest, remote: Address, now: float
    ) -> Registered:
        """A Registration Request that came from ``remote``: the newest generation wins (R9)."""
        observed = Endpoint.of(remote)
        translated = observed not in request.local
        before, woke = client.location, not client.online(now)
        self.keep_alive(client, request.keepalive)
        client.heard = now
        client.registered = True
        if request.generation < before.generation:
            return Registered(observed, translated, False)
        renewed = request.generation > before.generation
        family = observed.family
        kept = () if renewed else tuple(e for e in before.observed if e.family != family)
        others = () if renewed else tuple(f for f in before.translated if f != family)
        locals_ = () if renewed else tuple(e for e in before.local if e.family != family)
        # The same address once, for a DC holds very many.
        local = (observed if e == observed else e for e in request.local)
        claimed = tuple(e for e in local if e.family == family)
        families = (family,) if translated else ()
        # In one order, so that the same location compares as the same.
        client.location = Location(
            request.generation,
            tuple(sorted((*kept, observed), key=_family)),
            tuple(sorted((*locals_, *claimed), key=_family))[:8],
            tuple(sorted((*others, *families))),
        )
        self._order += 1
        client.order = self._order
        changed = client.location != before or woke
        return Registered(observed, translated, changed)

    def keep_alive(self, client: Client, interval: int) -> None:
        """The client will be heard again within ``interval`` seconds."""
        if interval:
            planned = min(interval, LONGEST_KEEPALIVE)
            client.lifetime = max(15.0, MISSED_KEEPALIVES * float(planned))

    def heard(self, client: Client, remote: Address, now: float) -> bool:
        """An authentic newest datagram: note time and address; ``True`` if the address is new."""
        client.heard = now
        observed = Endpoint.of(remote)
        here = client.location
        known = next((e for e in here.observed if e.family == observed.family), None)
        if known is None or known == observed:
            return False
        kept = tuple(observed if e.family == observed.family else e for e in here.observed)
        translated = set(here.translated) - {observed.family}
        if observed not in here.local:
            translated.add(observed.family)
        client.location = Location(here.generation, kept, here.local, tuple(sorted(translated)))
        return True

    def seen(self, client: Client, remote: Address) -> Endpoint:
        """The address under which a client is seen in the family of ``remote``."""
        observed = Endpoint.of(remote)
        family = observed.family
        return next((e for e in client.location.observed if e.family == family), observed)

    def resume_order(self, order: int) -> None:
        """After a restart: registrations go on counting above this."""
        self._order = max(self._order, order)

    def set_policy(self, client: Client, request: PolicyRequest) -> None:
        """A Policy Request: the newest generation wins."""
        if request.generation >= client.policy.generation:
            client.policy = Policy(request.allow, request.relay_only, request.generation)

    def deregister(self, client: Client) -> None:
        """The client goes off."""
        client.registered = False


def _family(endpoint: Endpoint) -> int:
    return endpoint.family
