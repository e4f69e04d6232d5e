"""How long the first datagram to a correspondent waits for its answer: the set-up of a tunnel."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define
from twisted.internet.base import ReactorBase

from ntmobile.bench.results import Bar, Row, Say, Section, Table, one_line
from ntmobile.lab.forwarder import Impairment
from ntmobile.lab.internet import Access
from ntmobile.lab.node import Lab
from ntmobile.lab.process import eventually, together
from ntmobile.testbed.device import Device
from ntmobile.testbed.platform import Platform
from ntmobile.testbed.standing import StandingLab
from ntmobile.testbed.traffic import ping

#: The bars: milliseconds without added latency, and round trips with it.
NEAR, FAR = 25.0, 4.0
#: Of the far line: seconds of its round trips, and the share of frames that it loses each way.
ROUND_TRIP, LOSS = 0.05, 0.01
#: Samples for each one asked for: they are short.
MORE = 2

_CLIENTS: Mapping[str, Access] = {
    "global4": Access.GLOBAL4,
    "dual": Access.DUAL,
    "home": Access.HOME,
    "symmetric": Access.SYMMETRIC,
}

_NEAR_PAIRS = {
    ("global4", "dual"): "both global, direct",
    ("home", "dual"): "from behind a NAT, direct",
    ("dual", "home"): "to behind a NAT",
    ("home", "symmetric"): "both behind NATs, through a relay",
}
_FAR_PAIRS = {
    ("global4", "dual"): "both global, direct",
    ("global4", "home"): "to behind a NAT",
}

_NOTE = """\
The first ping after no tunnel, to an address that is known: from its first datagram to its
answer, both directions and handshake between them, as `ping` in the virtual network reports it.
Each sample ends the tunnel first, at both ends."""


@define
class SetUps:
    """Sets tunnels up, one after another."""

    platform: Platform
    say: Say

    async def end(self, one: Device, other: Device) -> None:
        """End the tunnel of two devices, and wait until neither has one."""
        one.ask("end", name=other.fqdn)

        async def ended() -> bool:
            return one.tunnel(other) is None and other.tunnel(one) is None

        what = f"no tunnel of {one.fqdn} and {other.fqdn}"
        await eventually(self.platform.clock, ended, timeout=5, what=what)

    async def sample(self, one: Device, other: Device, lossy: bool) -> list[float]:
        """Set one tunnel up; milliseconds, or nothing if the line lost the ping itself."""
        await self.end(one, other)
        return await ping(one, other.virtual["ipv6"], timeout=3, lossy=lossy)

    async def row(self, pair: tuple[str, str], title: str, repeat: int, *, far: bool) -> Row:
        """Measure a pair; in round trips if it is far."""
        one, other = (self.platform.devices[name] for name in pair)
        row = Row(title)
        try:
            await ping(one, other.fqdn, timeout=5)
            for _ in range(2 * repeat):
                for found in await self.sample(one, other, far):
                    row.samples.append(found / (1000 * ROUND_TRIP) if far else found)
                if len(row.samples) == repeat:
                    break
            else:
                row.failed = f"only {len(row.samples)} of {2 * repeat} pings were answered"
        except Exception as problem:
            row.failed = one_line(problem)
            self.say(f"{title}: FAILED: {problem}")
        if row.median is not None:
            self.say(f"{title}: {row.median:.1f} {'round trips' if far else 'ms'}")
        return row


async def measure(reactor: ReactorBase, repeat: int, say: Say) -> Section:
    """Measure near pairs, then some with a far line."""
    section = Section("setup", "Set-up of a tunnel", _NOTE)
    with Lab.start(reactor) as lab:
        standing = await StandingLab.build(lab, _CLIENTS, {})
        platform = await Platform.build(standing)
        setups = SetUps(platform, say)
        near = Table("Set-up, without added latency", "ms", more=False)
        for pair, title in _NEAR_PAIRS.items():
            near.rows.append(await setups.row(pair, title, MORE * repeat, far=False))
        near.bars = [Bar(row.name, most=NEAR) for row in near.rows]
        host = standing.clients["global4"]
        await host.attachment.unplug()
        line = Impairment(delay=ROUND_TRIP / 2, loss=LOSS)
        await host.plug(standing.networks["global4"], impairment=line)
        await together(*(device.ready() for device in platform.devices.values()))
        far = Table(
            f"Set-up, with {1000 * ROUND_TRIP:.0f} ms a round trip and {LOSS:.0%} loss each way",
            "round trips",
            more=False,
        )
        for pair, title in _FAR_PAIRS.items():
            far.rows.append(await setups.row(pair, title, MORE * repeat, far=True))
        far.bars = [Bar(row.name, most=FAR) for row in far.rows]
        section.tables = [near, far]
    return section
