"""One TCP flow through a tunnel, between two hosts, beside peers and the bare cable."""

from __future__ import annotations

from functools import partial

from attrs import define
from twisted.internet.base import ReactorBase

from ntmobile.bench.programs import debian
from ntmobile.bench.results import (
    OWN,
    Bar,
    NothingTransferred,
    Row,
    Say,
    Section,
    Skipped,
    Table,
    in_turn,
    one_line,
)
from ntmobile.bench.stream_peers import Iroh, Tailscale
from ntmobile.bench.tunnel_peers import Nebula, Peer, Raw, WireGuard, gigabits
from ntmobile.lab.internet import Access
from ntmobile.lab.measure import iperf
from ntmobile.lab.network import Host
from ntmobile.lab.node import Lab
from ntmobile.testbed.device import Device
from ntmobile.testbed.platform import Platform
from ntmobile.testbed.standing import StandingLab

SECONDS = 4.0
RAW = "no tunnel"

_NOTE = f"""\
One TCP flow of iperf3, {SECONDS:.0f} s a sample, counted by the receiver, between two hosts
(network namespaces) at one switch, each contender's own. All are started before the first sample
and measured in turn; each has the MTU that it chooses itself. Everything, the two ends included,
shares the machine's cores."""


@define(eq=False)
class Own(Peer):
    """Two agents of ntmobile, programs in their virtual networks."""

    devices: tuple[Device, Device] | None = None

    async def start(self) -> None:
        """They run already; have them make a tunnel."""
        first, second = self._pair
        await first.run(["ping", "-n", "-c3", "-i0.2", "-W5", second.fqdn])
        tunnel = first.tunnel(second)
        if tunnel is None:
            raise NothingTransferred("no tunnel came up")
        self.detail = f"path: {tunnel.get('path', 'unknown')}"

    @property
    def _pair(self) -> tuple[Device, Device]:
        assert self.devices is not None
        return self.devices

    async def measure(self, seconds: float) -> float:
        """One TCP flow of iperf3; the agents must have carried it."""
        first, second = self._pair
        before = second.tunnel(first)
        measured = await iperf(
            first.host,
            second.host,
            second.virtual["ipv6"],
            seconds=seconds,
            client_prefix=first.inside,
            server_prefix=second.inside,
        )
        total = measured.bits_per_second * seconds / 8
        after = second.tunnel(first)
        carried = after["rx_bytes"] - (before["rx_bytes"] if before else 0) if after else 0
        if carried < 0.9 * total:
            raise NothingTransferred(f"of {total:.0f} bytes the tunnel carried {carried}")
        return gigabits({"bytes": total, "seconds": seconds})


async def contenders(standing: StandingLab, say: Say) -> list[Peer]:
    """All but ntmobile, in the order of the table.

    Each has two hosts of its own, all at one switch: else one that looks for ways by itself might
    find the other's tunnel.
    """

    async def hosts(number: int) -> tuple[Host, Host]:
        network = standing.networks["one"]
        first = await standing.internet.client(f"peer{number}-a", network)
        return first, await standing.internet.client(f"peer{number}-b", network)

    return [
        Raw(RAW, await hosts(2), 2, say),
        Nebula("Nebula (Debian)", await hosts(3), 3, say),
        WireGuard("wireguard-go (Debian)", await hosts(4), 4, say),
        Nebula("Nebula (current)", await hosts(5), 5, say, is_current=True),
        WireGuard("wireguard-go (current)", await hosts(6), 6, say, is_current=True),
        Tailscale("Tailscale (user-space mode)", await hosts(7), 7, say),
        Iroh("iroh", await hosts(8), 8, say),
    ]


def bars() -> list[Bar]:
    """The bars of the design (section 9)."""
    least = {
        "Nebula (Debian)": 2.5,
        "wireguard-go (Debian)": 4.0,
        "Nebula (current)": 1.0,
        "wireguard-go (current)": 1.0,
        "Tailscale (user-space mode)": 1.0,
        "iroh": 1.0,
        RAW: 0.5,
    }
    return [Bar(OWN, peer, least=factor) for peer, factor in least.items()]


async def start_all(peers: list[Peer], say: Say) -> dict[str, Row]:
    """Start each; gives the rows of those that cannot be measured."""
    missing: dict[str, Row] = {}
    for peer in peers:
        try:
            await peer.start()
        except Skipped as reason:
            missing[peer.name] = Row(peer.name, skipped=str(reason))
            say(f"{peer.name}: skipped: {reason}")
        except Exception as problem:
            missing[peer.name] = Row(peer.name, failed=f"not started: {one_line(problem)}")
            say(f"{peer.name}: FAILED: {problem}")
            await peer.stop()
    return missing


async def measure(reactor: ReactorBase, repeat: int, say: Say) -> Section:
    """Measure all."""
    debian("iperf3", "iperf3")
    section = Section("tunnel", "Tunnel", _NOTE)
    with Lab.start(reactor) as lab:
        standing = await StandingLab.build(lab, {"one": Access.DUAL}, {"one": "other"})
        platform = await Platform.build(standing)
        devices = platform.devices["one"], platform.devices["other"]
        own = Own(OWN, (devices[0].host, devices[1].host), 1, say, devices=devices)
        peers: list[Peer] = [own, *await contenders(standing, say)]
        rows = await start_all(peers, say)
        measures = {
            peer.name: partial(peer.measure, SECONDS) for peer in peers if peer.name not in rows
        }
        rows |= await in_turn(repeat, measures, "Gbit/s", say)
        for peer in peers:
            rows[peer.name].detail = peer.detail
        table = Table("Tunnel: one TCP flow", "Gbit/s", rows=[rows[peer.name] for peer in peers])
        table.bars = bars()
        section.tables.append(table)
        section.machine = {peer.name: peer.version for peer in peers if peer.version}
    return section
