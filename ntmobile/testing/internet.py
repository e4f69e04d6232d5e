"""The virtual internet: networks, hosts and the clock they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ntmobile.testing.clock import CALLS_AN_INSTANT, ExactClock
from ntmobile.testing.datagrams import Capture, Datagram, Event, Segment, Signal
from ntmobile.testing.gateways import Firewall, Gateway, Router
from ntmobile.testing.hosts import Host
from ntmobile.testing.links import Link
from ntmobile.testing.names import Names
from ntmobile.testing.nat import NatBox, NatKind, NatPolicy
from ntmobile.testing.networks import Network
from ntmobile.testing.reactor import HostReactor

_T = TypeVar("_T")

#: Captures kept; older ones are forgotten.
CAPTURES: Final = 20_000

#: Addresses at the start of the backbone's prefixes that only those get who ask for them.
RESERVED: Final = 99

#: A party of a partition.
Party = Host | Network


class VirtualInternet:
    """A whole internet in memory. The same seed and the same calls give the same course of events.

    :param seed: of all randomness: links, ports, :meth:`Host.entropy`.
    :ivar clock: virtual time in seconds, from 0.
    :ivar backbone: the public network; every address that is not behind a gateway is on it.
    :ivar captured: what happened to datagrams lately, oldest first.
    :ivar names: names that all hosts know.
    """

    def __init__(
        self, seed: int = 0, ipv4: str = "203.0.113.0/24", ipv6: str = "2001:db8::/64"
    ) -> None:
        self.seed = seed
        self.clock = ExactClock()
        self.names = Names()
        self.captured: deque[Capture] = deque(maxlen=CAPTURES)
        self.hosts: dict[str, Host] = {}
        self.networks: dict[str, Network] = {}
        self._partitions: list[tuple[Party, Party]] = []
        self.backbone = Network(self, "backbone", [ipv4, ipv6], first=RESERVED)
        self.networks["backbone"] = self.backbone

    def randomness(self, name: str) -> Random:
        """A source of randomness of its own for each name, so that one does not disturb another."""
        return Random(f"{self.seed} {name}")

    # Building.

    def host(self, name: str, *addresses: str, link: Link | None = None) -> Host:
        """A new host: on the backbone where addresses are given, else attached to nothing."""
        if name in self.hosts:
            raise ValueError(f"there is a host {name} already")
        host = self.hosts[name] = Host(self, name)
        host.reactor = HostReactor(host)
        if addresses:
            host.attach(self.backbone, *addresses, link=link)
        return host

    def network(
        self,
        name: str,
        *prefixes: str,
        behind: Network | None = None,
        nat: NatKind | NatPolicy | None = None,
        nat_address: str | None = None,
        firewall: bool = False,
        isolated: bool = False,
        link: Link | None = None,
        uplink: Link | None = None,
    ) -> Network:
        """A new network and its gateways.

        :param prefixes: at most one a family, such as ``192.168.1.0/24`` and ``2001:db8:1::/64``.
        :param behind: the network its gateways lead to, by default the backbone.
        :param nat: puts its IPv4 behind a NAT of this kind, with outside address ``nat_address``.
        :param firewall: puts what is not behind a NAT behind a stateful firewall.
        :param isolated: its hosts do not reach each other.
        :param link: between its hosts and itself.
        :param uplink: between its gateways and ``behind``.
        """
        if name in self.networks:
            raise ValueError(f"there is a network {name} already")
        outside = behind if behind is not None else self.backbone
        network = self.networks[name] = Network(self, name, prefixes, link, isolated)
        routed = set(network.prefixes)
        if nat is not None:
            policy = nat if isinstance(nat, NatPolicy) else NatPolicy(nat)
            NatBox(network, outside, policy, nat_address, uplink and uplink.copy())
            routed.discard(4)
        if routed:
            kind: type[Gateway] = Firewall if firewall else Router
            kind(network, outside, routed, uplink and uplink.copy())
        return network

    # Time.

    def advance(self, seconds: float) -> None:
        """Let time pass; everything that is due happens at its exact time."""
        self._run(lambda: False, seconds)

    def run_until(self, predicate: Callable[[], bool], limit: float = 60.0) -> float:
        """Let time pass until the predicate holds; returns the seconds that took.

        It is asked after each event. Where it does not hold within ``limit`` seconds, an
        ``AssertionError`` ends the test.
        """
        start = self.clock.seconds()
        if not self._run(predicate, limit):
            raise AssertionError(f"it did not happen within {limit} virtual seconds")
        return self.clock.seconds() - start

    def result(
        self, of: Deferred[_T] | Coroutine[Deferred[Any], Any, _T], limit: float = 60.0
    ) -> _T:
        """Let time pass until a deferred or coroutine is done; return its result or raise."""
        deferred = of if isinstance(of, Deferred) else Deferred.fromCoroutine(of)
        outcome: list[_T | Failure] = []
        deferred.addBoth(outcome.append)
        self.run_until(lambda: bool(outcome), limit)
        result = outcome[0]
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def _run(self, predicate: Callable[[], bool], limit: float) -> bool:
        end = self.clock.seconds() + limit
        instant, calls = self.clock.seconds(), 0
        while not predicate():
            if not self.clock.step(end):
                self.clock.rightNow = end
                return predicate()
            if self.clock.seconds() > instant:
                instant, calls = self.clock.seconds(), 0
            calls += 1
            if calls > CALLS_AN_INSTANT:
                raise AssertionError(f"time stands still: {calls} events at {instant}")
        return True

    # Troubles.

    def partition(self, a: Party, b: Party) -> None:
        """Let nothing pass between two parties; a network means all hosts in it and behind it."""
        self._partitions.append((a, b))

    def heal(self, a: Party | None = None, b: Party | None = None) -> None:
        """End the partition of two parties, or all partitions."""
        self._partitions = [
            pair for pair in self._partitions if a is not None and set(pair) != {a, b}
        ]

    def parted(self, sender: Host | None, receiver: Host) -> bool:
        """Whether a partition lies between two hosts."""
        return sender is not None and any(
            (self._is_of(sender, a) and self._is_of(receiver, b))
            or (self._is_of(sender, b) and self._is_of(receiver, a))
            for a, b in self._partitions
        )

    def _is_of(self, host: Host, party: Party) -> bool:
        if isinstance(party, Host):
            return host is party
        return any(party.contains(one.network) for one in host.interfaces)

    def blackout(self, party: Party, seconds: float) -> None:
        """Cut a host's links, or a network's gateways, for some time."""
        ends = party.interfaces if isinstance(party, Host) else party.gateways.values()
        for end in ends:
            end.link.darken(self.clock.seconds() + seconds)

    # What the parts of the internet tell.

    def record(self, event: Event, place: str, datagram: Datagram, reason: str = "") -> None:
        """Remember what became of a datagram."""
        self.captured.append(Capture(self.clock.seconds(), event, place, datagram, reason))

    def dropped(self, datagram: Datagram, place: str, reason: str) -> None:
        """Remember that a datagram ended, and why."""
        self.record(Event.DROPPED, place, datagram, reason)

    def captures(
        self, event: Event | None = None, place: str | None = None, protocol: str | None = "udp"
    ) -> Iterator[Capture]:
        """The captures of an event, a place (a name) and a protocol; ``None`` means any."""
        for capture in self.captured:
            if (
                event in (None, capture.event)
                and place in (None, capture.place)
                and protocol in (None, capture.datagram.protocol)
            ):
                yield capture

    def refuse(self, host: Host, datagram: Datagram) -> None:
        """Answer a datagram to a port that nobody listens on, as a kernel does."""
        self.dropped(datagram, host.name, "port closed")
        segment = datagram.segment
        if datagram.refusal or (segment is not None and segment.signal is Signal.RESET):
            return
        answer = None if segment is None else Segment(Signal.RESET, 0, segment.number)
        source, destination = datagram.destination, datagram.source
        try:
            host.send(Datagram(source, destination, b"", answer, segment is None, origin=host))
        except OSError:
            # A forged source that this host has no way to: nobody to tell.
            return
