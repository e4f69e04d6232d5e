"""Cables with delay and loss: a node of its own between the two ends, with a forwarding program."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from attrs import asdict, define, field, frozen, validators

from ntmobile.lab.node import Node, ip_step
from ntmobile.lab.process import Process
from ntmobile.lab.supervision import TOOLS

_SHARE = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class Impairment:
    """What a cable does to frames, each way. Times are seconds, shares 0 to 1, rates bit/s."""

    delay: float = field(default=0.0, validator=validators.ge(0.0))
    #: Up to so much more delay, drawn for each frame; frames may overtake each other.
    jitter: float = field(default=0.0, validator=validators.ge(0.0))
    loss: float = field(default=0.0, validator=_SHARE)
    duplicate: float = field(default=0.0, validator=_SHARE)
    #: The share of frames that come late by ``reorder_by``.
    reorder: float = field(default=0.0, validator=_SHARE)
    reorder_by: float = 0.01
    #: 0: as fast as it goes.
    rate: float = 0.0
    #: Frames under way, each way; more are dropped.
    queue: int = 4000
    #: Of the randomness: the same frames meet the same fate.
    seed: int = 1


@define(eq=False)
class _Middle(Node):
    """A node that is no neighbour of anybody: it only passes frames on."""

    def settings(self) -> list[tuple[str, str]]:
        quiet = ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
        return [*super().settings(), quiet]


@define(eq=False)
class Link:
    """The middle of an impaired cable."""

    middle: Node
    process: Process
    _settings: Path
    _readings: int = 1

    @classmethod
    async def join(
        cls, near: Node, interface: str, far: Node, port: str, impairment: Impairment
    ) -> Link:
        """Make ``interface`` in one node and ``port`` in another, and forward between them.

        The ends cut large segments themselves (``gso_max_segs 1``), so that what is lost or
        delayed is a packet, as on a real line.
        """
        lab = near.lab
        middle = await lab.add(_Middle, f"cable-{port}")
        await lab.configure(
            ip_step(
                middle,
                f"link add near type veth peer name {interface} netns {{netns:{near.name}}}",
                f"link add far type veth peer name {port} netns {{netns:{far.name}}}",
                "link set near up",
                "link set far up",
            ),
            ip_step(near, f"link set {interface} gso_max_segs 1"),
            ip_step(far, f"link set {port} gso_max_segs 1"),
        )
        settings = middle.directory / "impairment.json"
        settings.write_text(json.dumps(asdict(impairment)))
        argv = [sys.executable, str(TOOLS / "forward.py"), str(settings), "near", "far"]
        process = await middle.spawn(argv, name="forward", privileged=True, standing=True)
        await process.wait_for("^settings 1$")
        return cls(middle, process, settings)

    async def set(self, impairment: Impairment) -> None:
        """Change the impairment; frames under way keep theirs."""
        self._settings.write_text(json.dumps(asdict(impairment)))
        self._readings += 1
        await self.process.signal(signal.SIGHUP)
        await self.process.wait_for(f"^settings {self._readings}$")

    async def remove(self) -> None:
        """Take the middle down, after the cable."""
        await self.middle.lab.remove(self.middle)
