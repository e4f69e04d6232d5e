"""Measurements between hosts: gaps, streams, throughput, NAT kinds; their reports as values.

``prefix`` is what runs the measuring program, such as ``["ntm", "exec", "--"]``: so the same
measurement goes over a lab's addresses or over virtual ones.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from attrs import define, field, frozen

from ntmobile.lab.network import Host
from ntmobile.lab.node import Node
from ntmobile.lab.process import Process
from ntmobile.lab.supervision import TOOLS, LabError


def tool(name: str, *arguments: object) -> list[str]:
    """Give the command line of one of our tools."""
    return [sys.executable, str(TOOLS / f"{name}.py"), *map(str, arguments)]


def _report(process: Process) -> dict[str, Any]:
    """Parse the report at the end of a tool's output."""
    lines = process.output().splitlines()
    try:
        report: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise LabError(f"no report\n{process.tail()}") from None
    return report


async def start_udp_echo(node: Node, port: int = 7000, prefix: Sequence[str] = ()) -> Process:
    """Start a UDP echo; returns when it listens."""
    process = await node.spawn([*prefix, *tool("udp_echo", port)], name="udp-echo")
    await process.wait_for("^ready$")
    return process


@frozen
class GapReport:
    """What a UDP probe saw; times are milliseconds (``gaps``: begin in Unix time, length)."""

    sent: int
    received: int
    lost: int
    duplicates: int
    reordered: int
    refused: dict[str, int]
    longest_gap_ms: float | None
    gaps: list[dict[str, float]]
    rtt_ms: float | None


@define(eq=False)
class UdpProbe:
    """A 10 ms UDP probe that runs until its report is asked for."""

    process: Process

    @classmethod
    async def start(
        cls,
        node: Node,
        address: str,
        port: int = 7000,
        *,
        interval: float = 0.01,
        size: int = 64,
        prefix: Sequence[str] = (),
        timeout: float = 10.0,
    ) -> UdpProbe:
        """Start probing an echo; returns when the first answer has come."""
        argv = tool("udp_probe", address, port, "--interval", interval, "--size", size)
        process = await node.spawn([*prefix, *argv], name="udp-probe")
        await process.wait_for("^answered$", timeout)
        return cls(process)

    async def report(self) -> GapReport:
        """End the probe."""
        await self.process.signal(signal.SIGTERM)
        await self.process.exited()
        return GapReport(**_report(self.process))


@frozen
class PingReport:
    """What ``ping`` saw: the round trips in milliseconds, in order of arrival."""

    sent: int
    rtts_ms: list[float]

    @property
    def received(self) -> int:
        """The number of answers."""
        return len(self.rtts_ms)


async def ping(
    node: Node,
    address: str,
    *,
    count: int = 1,
    interval: float = 0.2,
    timeout: float = 2.0,
    size: int = 56,
    options: Sequence[str] = (),
    prefix: Sequence[str] = (),
) -> PingReport:
    """Ping ``count`` times; the last is awaited for ``timeout`` seconds. No answer is no error."""
    argv = ["ping", "-n", f"-c{count}", f"-i{interval}", f"-W{timeout}", f"-s{size}", *options]
    patience = count * interval + timeout + 10
    done = await node.run([*prefix, *argv, address], timeout=patience, check=False)
    return PingReport(count, [float(ms) for ms in re.findall(r"time=([\d.]+) ms", done.stdout)])


@frozen
class StreamReport:
    """What the two ends of a TCP stream saw."""

    sent: int
    received: int
    #: Every byte arrived as sent, over one connection that ended in order.
    intact: bool
    longest_stall_ms: float
    errors: list[str] = field(factory=list)


@define(eq=False)
class TcpStream:
    """A checked TCP stream from one host to another, until its report is asked for."""

    sender: Process
    receiver: Process

    @classmethod
    async def start(
        cls,
        sender: Node,
        receiver: Node,
        address: str,
        port: int = 7001,
        *,
        rate: float = 1e6,
        sender_prefix: Sequence[str] = (),
        receiver_prefix: Sequence[str] = (),
        timeout: float = 10.0,
    ) -> TcpStream:
        """Start sending ``rate`` bytes/s to ``address``, where ``receiver`` is; connected then."""
        argv = [*receiver_prefix, *tool("tcp_stream", "receive", port)]
        receiving = await receiver.spawn(argv, name="tcp-receive")
        await receiving.wait_for("^ready$", timeout)
        argv = [*sender_prefix, *tool("tcp_stream", "send", address, port, "--rate", rate)]
        sending = await sender.spawn(argv, name="tcp-send")
        await receiving.wait_for("^connected$", timeout)
        return cls(sending, receiving)

    async def report(self, timeout: float = 15.0) -> StreamReport:
        """End the stream in order; gives both ends' reports."""
        await self.sender.signal(signal.SIGTERM)
        await self.sender.exited(timeout)
        await self.receiver.exited(timeout)
        sent, received = _report(self.sender), _report(self.receiver)
        return StreamReport(
            sent["bytes"],
            received["bytes"],
            sent["intact"] and received["intact"],
            received["longest_stall_ms"],
            [str(end["error"]) for end in (sent, received) if end["error"]],
        )


@frozen
class Throughput:
    """What iperf3 measured at the receiver."""

    bits_per_second: float
    #: TCP segments sent again (0 for UDP).
    retransmits: int
    #: UDP datagrams lost, a share (0 for TCP).
    lost: float


async def iperf(
    client: Node,
    server: Node,
    address: str,
    *,
    seconds: float = 1.0,
    udp_rate: str | None = None,
    reverse: bool = False,
    port: int = 5201,
    client_prefix: Sequence[str] = (),
    server_prefix: Sequence[str] = (),
) -> Throughput:
    """Run iperf3 to ``address``, where ``server`` is: TCP, or UDP at a rate such as ``"10M"``."""
    listen = [*server_prefix, "iperf3", "--server", "--one-off", "--forceflush", "-p", str(port)]
    serving = await server.spawn(listen, name="iperf3-server")
    await serving.wait_for("Server listening")
    argv = ["iperf3", "--json", "-c", address, "-p", str(port), "-t", f"{seconds:.0f}"]
    argv += ["--udp", "-b", udp_rate] if udp_rate else []
    argv += ["--reverse"] if reverse else []
    done = await client.run([*client_prefix, *argv], timeout=seconds + 20, check=False)
    report = done.json()
    if done.status != 0 or "error" in report:
        raise LabError(f"iperf3: {report.get('error')}\n{serving.tail()}")
    await serving.exited()
    end = report["end"]
    if udp_rate:
        total = end["sum"]
        return Throughput(total["bits_per_second"], 0, total["lost_percent"] / 100)
    sent = end["sum_sent"]
    return Throughput(end["sum_received"]["bits_per_second"], sent.get("retransmits", 0), 0.0)


@frozen
class NatReport:
    """How a host looks from outside (RFC 4787 words; see ``tools/nat_probe.py``)."""

    reachable: bool
    local: list[Any] = field(factory=list)
    mapped: list[Any] = field(factory=list)
    translated: bool = False
    mapping: str = ""
    filtering: str = ""


async def nat_kind(node: Node, first: Host, second: Host, *, ipv6: bool = False) -> NatReport:
    """Probe how ``node`` is translated and filtered on its way to two servers."""
    addresses = [server.ipv6 if ipv6 else server.ipv4 for server in (first, second)]
    port = 3478
    reflectors = []
    for server, address in zip((first, second), addresses, strict=True):
        reflectors.append(await server.spawn(tool("reflector", address, port), name="reflector"))
    try:
        for reflector in reflectors:
            await reflector.wait_for("^ready$")
        done = await node.run(tool("nat_probe", *addresses, port))
        return NatReport(**done.json())
    finally:
        for reflector in reflectors:
            await reflector.kill()
