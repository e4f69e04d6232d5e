"""What programs see of a handover: one TCP stream and a 10 ms UDP probe over a tunnel."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from ntmobile.lab.measure import GapReport, StreamReport, TcpStream, UdpProbe, start_udp_echo
from ntmobile.lab.process import eventually, pause
from ntmobile.testbed.device import Device

#: Seconds in which both ends must be on a path that works.
PATIENCE = 15.0
#: Seconds that the probe goes on after a move is over.
AFTERWARDS = 0.5


@frozen
class Move:
    """One move: its name, and its beginning and end in Unix time."""

    name: str
    began: float
    ended: float


@define(eq=False)
class Conversation:
    """Programs of two devices that talk while devices move."""

    one: Device
    other: Device
    probe: UdpProbe
    stream: TcpStream

    @classmethod
    async def start(cls, one: Device, other: Device) -> Conversation:
        """Begin; ``one`` asks for the tunnel, by name."""
        await start_udp_echo(other.host, prefix=other.inside)
        probe = await UdpProbe.start(one.host, other.fqdn, prefix=one.inside)
        stream = await TcpStream.start(
            one.host,
            other.host,
            other.fqdn,
            rate=500_000,
            sender_prefix=one.inside,
            receiver_prefix=other.inside,
        )
        return cls(one, other, probe, stream)

    def handovers(self) -> int:
        """How often both ends together have changed their path."""
        tunnels = (self.one.tunnel(self.other), self.other.tunnel(self.one))
        return sum(tunnel["handovers"] for tunnel in tunnels if tunnel is not None)

    async def goes_on(self, timeout: float = 30.0) -> None:
        """Wait until both ends have received more than they have now."""

        def received() -> list[int]:
            tunnels = (self.one.tunnel(self.other), self.other.tunnel(self.one))
            return [0 if tunnel is None else tunnel["rx_bytes"] for tunnel in tunnels]

        before = received()

        async def more() -> bool:
            return all(new > old + 5000 for new, old in zip(received(), before, strict=True))

        clock: IReactorTime = self.one.host.lab.reactor
        await eventually(clock, more, timeout=timeout, what="traffic both ways")

    async def end(self) -> tuple[GapReport, StreamReport]:
        """End both programs in order."""
        return await self.probe.report(), await self.stream.report(timeout=30)


@define(eq=False)
class Journey:
    """Conversations, the moves made under them, and the gaps of each move."""

    clock: IReactorTime
    conversations: list[Conversation]
    moves: list[Move] = field(factory=list)

    async def move(self, name: str, *works: Callable[[], Awaitable[object]]) -> None:
        """Move, and wait until every conversation goes on over another path."""
        before = [each.handovers() for each in self.conversations]
        began = time.time()
        for work in works:
            await work()
        self.moves.append(Move(name, began, time.time()))

        async def went_on() -> bool:
            after = [each.handovers() for each in self.conversations]
            return all(new > old for new, old in zip(after, before, strict=True))

        await eventually(self.clock, went_on, timeout=PATIENCE, what=f"a handover after {name}")
        await pause(self.clock, AFTERWARDS)

    async def end(self) -> dict[str, tuple[float, float]]:
        """End the conversations; every stream must have gone on.

        :return: for each move the longest gap, and its part after the move was over, both in
            milliseconds; 0 where there was none of 20 ms.
        """
        found = {move.name: (0.0, 0.0) for move in self.moves}
        for conversation in self.conversations:
            probe, stream = await conversation.end()
            if not stream.intact:
                names = f"{conversation.one.fqdn} to {conversation.other.fqdn}"
                raise AssertionError(f"the TCP stream of {names} broke: {stream}")
            for gap in probe.gaps:
                begin, end = gap["at"], gap["at"] + gap["ms"] / 1000
                moves = [move for move in self.moves if move.began < end]
                if not moves or moves[-1].ended + PATIENCE < begin:
                    continue
                longest, usable = found[moves[-1].name]
                after = (end - max(begin, moves[-1].ended)) * 1000
                found[moves[-1].name] = max(longest, gap["ms"]), max(usable, after)
        return found
