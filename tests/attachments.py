"""Virtual networks for tests: joined pairs, programs inside, and answers to pings."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ntmobile.errors import NTMobileError
from ntmobile.interfaces import IAttachment, VirtualAddresses
from ntmobile.plugins.attach_netns import NetnsProvider
from ntmobile.wire.offload import Offload
from ntmobile.wire.packet import Buffer

ROOT = Path(__file__).resolve().parent.parent

#: Seconds any one program of a test may take.
PATIENCE = 20.0

LEFT = VirtualAddresses(ipv6="fd00:aa::1", ipv4="198.18.0.17")
RIGHT = VirtualAddresses(ipv6="fd00:bb::1", ipv4="198.18.0.18")

_ENTER = """
import sys
from pathlib import Path
from ntmobile.plugins.netns.enter import CommandNotRun, enter
try:
    enter(Path(sys.argv[1]), sys.argv[2:])
except CommandNotRun as problem:
    sys.stderr.write(f"{problem}\\n")
    sys.exit(problem.status)
"""


@functools.cache
def netns_unavailable() -> str | None:
    """Say why no virtual network can be made on this system, or None; found by trying."""
    with tempfile.TemporaryDirectory(prefix="ntm-probe-") as state:
        done = subprocess.run(
            [sys.executable, "-m", "ntmobile.plugins.netns.helper", state],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode == 0:
            from ntmobile.plugins.netns.channel import end

            end(Path(state))
            return None
        said = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        return f"this system does not permit a network namespace with a TUN device: {said[-1]}"


def environment() -> dict[str, str]:
    """Give an environment in which Python finds the package and the tests, and tools are found."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PATH": search, "PYTHONPATH": os.pathsep.join(paths)}


@frozen
class Completed:
    """How a program ended: its exit status, negative for the signal that ended it."""

    status: int
    output: str
    errors: str


class Program(ProcessProtocol):
    """A running program, with what it has written so far."""

    def __init__(self) -> None:
        self.ended: Deferred[Completed] = Deferred()
        self.output = b""
        self.errors = b""
        self._awaited: list[tuple[bytes, Deferred[None]]] = []

    def outReceived(self, data: bytes) -> None:
        self.output += data
        for text, fired in [pair for pair in self._awaited if pair[0] in self.output]:
            self._awaited.remove((text, fired))
            fired.callback(None)

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        status = 0
        if reason.check(ProcessTerminated):
            ended: Any = reason.value
            status = -ended.signal if ended.signal else ended.exitCode
        done = Completed(status, self.output.decode(), self.errors.decode())
        for text, fired in self._awaited:
            fired.errback(AssertionError(f"ended without saying {text!r}: {done}"))
        self.ended.callback(done)

    def says(self, text: str) -> Deferred[None]:
        """Fire when the program has written this to its standard output."""
        fired: Deferred[None] = Deferred()
        self._awaited.append((text.encode(), fired))
        self.outReceived(b"")
        return fired.addTimeout(PATIENCE, reactor)

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.transport is not None
        self.transport.writeToChild(0, data)

    def signal(self, name: str) -> None:
        """Send it a signal, by name without SIG."""
        assert self.transport is not None
        self.transport.signalProcess(name)

    def wait(self, patience: float = PATIENCE) -> Deferred[Completed]:
        """Fire with how it ended."""
        return self.ended.addTimeout(patience, reactor)


def spawn(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Program:
    """Start a program with pipes for its standard streams."""
    program = Program()
    IReactorProcess(reactor).spawnProcess(
        program,
        argv[0],
        list(argv),
        env={**environment(), **(env or {})},
        path=None if cwd is None else str(cwd),
    )
    return program


@define(eq=False)
class Place:
    """One virtual network, as its agent has it."""

    test: TestCase
    state: Path
    addresses: VirtualAddresses
    peer: Place | None = None
    attachment: Any = None
    received: list[bytes] = field(factory=list)
    losses: list[NTMobileError] = field(factory=list)

    async def open(self) -> IAttachment:
        """Attach, as an agent that starts does."""
        factory = NetnsProvider().configure({}, reactor)
        self.attachment = await factory.open(
            self.addresses, self.state, self._receive, self.losses.append
        )
        attachment: IAttachment = self.attachment
        return attachment

    def _receive(self, packet: Buffer, offload: Offload | None) -> None:
        if self.peer is None:
            self.received.append(bytes(packet))
        else:
            self.peer.attachment.send(packet, offload)

    def spawn(self, *argv: str, cwd: Path | None = None, **env: str) -> Program:
        """Start a program inside, as ``ntm exec`` does."""
        enter = [sys.executable, "-c", _ENTER, str(self.state), *argv]
        program = spawn(enter, cwd=cwd, env=env)
        self.test.addCleanup(_end, program)
        return program

    def run(self, *argv: str, cwd: Path | None = None, **env: str) -> Deferred[Completed]:
        """Run a program inside to its end."""
        return self.spawn(*argv, cwd=cwd, **env).wait()


def _end(program: Program) -> Deferred[Any] | None:
    if program.ended.called:
        return None
    program.signal("KILL")
    return program.wait()


def echo_reply(packet: bytes) -> bytes | None:
    """Answer an ICMP or ICMPv6 echo request, or give None for any other packet."""
    if packet[0] >> 4 == 4 and packet[9] == 1 and packet[20] == 8:
        body = b"\0" + packet[21:22] + b"\0\0" + packet[24:]
        body = body[:2] + _checksum(body) + body[4:]
        return packet[:12] + packet[16:20] + packet[12:16] + body
    if packet[0] >> 4 == 6 and packet[6] == 58 and packet[40] == 128:
        source, destination = packet[8:24], packet[24:40]
        body = b"\x81" + packet[41:42] + b"\0\0" + packet[44:]
        pseudo = destination + source + len(body).to_bytes(4, "big") + b"\0\0\0\x3a"
        body = body[:2] + _checksum(pseudo + body) + body[4:]
        return packet[:8] + destination + source + body
    return None


def _checksum(data: bytes) -> bytes:
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
