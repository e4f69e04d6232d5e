"""The relay server as a service and as a process (``twistd -n ntm-relay``)."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

import ntmobile
from ntmobile.errors import ConfigurationError
from ntmobile.servers import relay_tap
from ntmobile.servers.configuration import load_relay
from ntmobile.servers.relay import RelayService
from ntmobile.wire.messages.coordination import (
    LinkAcknowledgement,
    RelayEnd,
    RelayRegistration,
    RelayResponse,
)
from ntmobile.wire.messages.realtime import Outcome
from ntmobile.wire.messages.relaying import LegState, RelayTunnelResponse
from ntmobile.wire.relaying import open_relayed
from tests.realms import MemoryRealm
from tests.relay_clients import INDEX, KEYS, Leg, data, direction
from tests.relay_servers import DOMAIN, RELAY, FakeCoordinator, write_relay

reactor: Any = installed


def free_port() -> int:
    """A UDP port that is free just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def pause(seconds: float) -> None:
    """Let the reactor run."""
    waiting: Deferred[None] = Deferred()
    reactor.callLater(seconds, waiting.callback, None)
    await waiting


class Client:
    """A client's socket, polled so that the reactor goes on."""

    def __init__(self, side: int, rs: int) -> None:
        self.leg = Leg(side, ("127.0.0.1", 0))
        self.rs = ("127.0.0.1", rs)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)

    async def receive(self) -> bytes:
        """The next datagram, within five seconds."""
        for _ in range(500):
            try:
                return self.socket.recv(2048)
            except BlockingIOError:
                await pause(0.01)
        raise AssertionError("no datagram came")

    async def ask(self, datagram: bytes) -> RelayTunnelResponse:
        """Send a request; its response."""
        self.socket.sendto(datagram, self.rs)
        _, answer = open_relayed(self.leg.key, await self.receive())
        assert isinstance(answer, RelayTunnelResponse)
        return answer

    async def bind(self) -> RelayTunnelResponse:
        """Bind the leg."""
        answer = await self.ask(self.leg.request())
        return await self.ask(self.leg.request(answer.cookie, fresh=False))


class RelayCase(TestCase):
    """An RS's files, a coordinator, and what both need to be cleaned up."""

    def setUp(self) -> None:
        """A realm and a coordinator that listens."""
        self.realm = MemoryRealm()
        self.coordinator = FakeCoordinator(self.realm)
        self.coordinator.listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.coordinator.vanish()))
        self.port = free_port()

    def file(self, **kw: Any) -> Path:
        """The RS's TOML."""
        return write_relay(Path(self.mktemp()), self.realm, self.coordinator.port, self.port, **kw)

    def clients(self) -> tuple[Client, Client]:
        """Both sides."""
        pair = Client(0, self.port), Client(1, self.port)
        for client in pair:
            self.addCleanup(client.socket.close)
        return pair

    async def passes(self, near: Client, far: Client) -> None:
        """Send both ways."""
        near.socket.sendto(data(1), near.rs)
        self.assertEqual(data(1), await far.receive())
        far.socket.sendto(data(2), far.rs)
        self.assertEqual(data(2), await near.receive())


class ServiceTests(RelayCase):
    """The service in this process."""

    def start(self, **kw: Any) -> RelayService:
        """Start an RS; it is stopped after the test."""
        service = RelayService(load_relay(self.file(**kw)), reactor)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def directed(self) -> tuple[Client, Client]:
        """Two clients whose tunnel the coordinator has directed and that are joined."""
        _, link = await self.coordinator.registered()
        answer = await link.request(direction())
        assert isinstance(answer, RelayResponse)
        self.assertEqual(Outcome.OK, answer.outcome)
        near, far = self.clients()
        await near.bind()
        self.assertEqual(LegState.JOINED, (await far.bind()).state)
        await near.receive()  # the news
        return near, far

    async def test_registers(self) -> None:
        """It tells its DC name, boot identifier, endpoints and capacity."""
        service = self.start(more="[limits]\ntunnels = 77")
        registration, _ = await self.coordinator.registered()
        self.assertEqual((RELAY, 77), (registration.name, registration.capacity))
        self.assertEqual(service.relaying.server.boot, registration.boot)
        self.assertEqual(
            [("127.0.0.1", self.port)], [each.pair() for each in registration.endpoints]
        )

    async def test_relays_and_reports(self) -> None:
        """It relays what its DC directs, reports it, and ends it when it is told so."""
        self.start()
        near, far = await self.directed()
        await self.passes(near, far)
        for _ in range(5):
            report = await self.coordinator.reports.get().addTimeout(5, reactor)
            if any(count.datagrams == 2 for count in report.counts):
                break
        else:
            self.fail("the two datagrams were never reported")
        self.assertEqual(1, report.tunnels)

    async def test_ends(self) -> None:
        """R34: a Relay End is acknowledged, and nothing passes any more."""
        service = self.start()
        _, link = await self.coordinator.registered()
        await link.request(direction())
        self.assertIsInstance(await link.request(RelayEnd(INDEX)), LinkAcknowledgement)
        self.assertEqual(0, len(service.relaying.server))

    async def test_coordinator_away(self) -> None:
        """Live tunnels outlive their DC's outage, and the RS registers again, under one boot."""
        service = self.start()
        near, far = await self.directed()
        await self.coordinator.vanish()
        await self.passes(near, far)
        self.coordinator.listen()
        registration, _ = await self.coordinator.registered()
        self.assertEqual(service.relaying.server.boot, registration.boot)
        await self.passes(near, far)

    async def test_restart(self) -> None:
        """R26: an RS that restarted has another boot identifier, and takes directions again."""
        file = self.file()
        first = RelayService(load_relay(file), reactor)
        first.startService()
        before, _ = await self.coordinator.registered()
        await first.stopService()
        second = RelayService(load_relay(file), reactor)
        second.startService()
        self.addCleanup(second.stopService)
        after, link = await self.coordinator.registered()
        self.assertNotEqual(before.boot, after.boot)
        await link.request(direction())
        answer = await self.clients()[0].bind()
        self.assertEqual((LegState.BOUND, after.boot), (answer.state, answer.boot))

    async def test_undirected(self) -> None:
        """R25: what no DC directed is not relayed: the asker gets a hint, and no more."""
        self.start()
        await self.coordinator.registered()
        near, _ = self.clients()
        near.socket.sendto(near.leg.request(), near.rs)
        self.assertEqual(0x33, (await near.receive())[0])

    async def test_another_dc(self) -> None:
        """R1: a server that is not the DC of the configured domain is not obeyed."""
        await self.coordinator.vanish()
        impostors = [("dc", "dc2.ntm.example"), ("rs", f"rs2.{DOMAIN}"), ("as", "ntm.example")]
        for role, name in impostors:
            self.coordinator = FakeCoordinator(self.realm, role, name)
            self.coordinator.listen()
            service = RelayService(load_relay(self.file()), reactor)
            service.startService()
            await self.coordinator.refused.get().addTimeout(5, reactor)
            self.assertEqual(0, len(self.coordinator.registrations.pending))
            await service.stopService()
            await self.coordinator.vanish()

    async def test_not_taken(self) -> None:
        """An RS that its DC does not take tries again, with back-off."""
        self.coordinator.outcome = Outcome.REFUSED
        self.start()
        await self.coordinator.registered()
        await pause(0.05)  # the refusal is on its way
        self.coordinator.outcome = Outcome.OK
        await self.coordinator.registered()
        await self.coordinator.reports.get().addTimeout(5, reactor)

    async def test_unexpected_request(self) -> None:
        """What a DC has no business asking an RS closes the link, and it registers anew."""
        self.start()
        registration, link = await self.coordinator.registered()
        link.request(registration).addErrback(lambda _: None)
        again, _ = await self.coordinator.registered()
        self.assertIsInstance(again, RelayRegistration)


class OptionsTests(SynchronousTestCase):
    """What is wrong is one line."""

    def problem(self, *arguments: str) -> str:
        """The line with which ``makeService`` ends the program."""
        options = relay_tap.Options()
        options.parseOptions(list(arguments))
        return str(self.assertRaises(SystemExit, relay_tap.makeService, options, Clock()).code)

    def test_no_file(self) -> None:
        """A file that is not there."""
        line = self.problem("--config", "/nowhere/rs1.toml")
        self.assertTrue(line.startswith("ntm-relay: /nowhere/rs1.toml: "), line)
        self.assertNotIn("\n", line)

    def test_wrong_key(self) -> None:
        """A key that nobody asked for is named."""
        file = write_relay(Path(self.mktemp()), MemoryRealm(), 4330, 4331, more="prot = 1")
        self.assertIn("prot", self.problem("--config", str(file)))

    def test_wrong_role(self) -> None:
        """R1: a certificate of another role is refused before anything is opened."""
        file = write_relay(Path(self.mktemp()), MemoryRealm(), 4330, 4331, role="cs")
        self.assertIn(f"cs:{RELAY}", self.problem("--config", str(file)))

    def test_two_of_a_family(self) -> None:
        """A relay server has one address a family."""
        file = write_relay(
            Path(self.mktemp()),
            MemoryRealm(),
            4330,
            4331,
            change=lambda text: text.replace(
                'addresses = ["127.0.0.1"]\nport = 4331',
                'addresses = ["127.0.0.1", "127.0.0.2"]\nport = 4331',
            ),
        )
        configuration = load_relay(file)
        self.assertRaises(ConfigurationError, RelayService, configuration, Clock())


class Process(ProcessProtocol):
    """A twistd whose output is kept.

    :ivar ended: fires with the exit status; negative for a signal, as twistd ends by the same one.
    """

    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()

    def terminate(self) -> None:
        """SIGTERM."""
        transport: Any = self.transport
        transport.signalProcess("TERM")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep what it prints."""
        self.output += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """It has ended."""
        value = reason.value
        assert isinstance(value, ProcessDone | ProcessTerminated)
        self.ended.callback(-value.signal if value.signal else value.exitCode or 0)


class ProcessTests(RelayCase):
    """The real process."""

    def spawn(self, file: Path) -> Process:
        """Run ``twistd -n ntm-relay``; it is killed after the test, if it still runs."""
        process = Process()
        home = str(Path(ntmobile.__file__).resolve().parent.parent)
        directory = self.mktemp()
        Path(directory).mkdir()
        run = "from twisted.scripts.twistd import run; run()"
        arguments = [
            sys.executable,
            "-c",
            run,
            *("-n", "--pidfile=", "ntm-relay", "--config", str(file.resolve())),
        ]
        running = reactor.spawnProcess(
            process, sys.executable, arguments, {"PYTHONPATH": home}, directory
        )

        async def reap() -> None:
            if not process.ended.called:
                running.signalProcess("KILL")
                await process.ended

        self.addCleanup(lambda: Deferred.fromCoroutine(reap()))
        return process

    async def test_relays(self) -> None:
        """R25, R26: it registers, relays, ends at SIGTERM, and comes back with another boot."""
        file = self.file()
        process = self.spawn(file)
        before, link = await self.coordinator.registered()
        await link.request(direction())
        near, far = self.clients()
        await near.bind()
        await far.bind()
        await near.receive()
        await self.passes(near, far)
        process.terminate()
        self.assertEqual(
            -signal.SIGTERM, await process.ended.addTimeout(10, reactor), process.output
        )
        self.assertNotIn("Traceback", process.output)
        self.assertIn("relay server rs1.dc1.ntm.example on UDP port", process.output)
        for key in KEYS:
            self.assertNotIn(repr(key)[2:-1], process.output)
        self.spawn(file)
        after, link = await self.coordinator.registered()
        self.assertNotEqual(before.boot, after.boot)
        await link.request(direction())
        answer = await near.bind()
        self.assertEqual((LegState.BOUND, after.boot), (answer.state, answer.boot))

    async def test_port_in_use(self) -> None:
        """A port in use is one clear line, and a status that is not zero."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", self.port))
            process = self.spawn(self.file())
            status = await process.ended.addTimeout(15, reactor)
        self.assertEqual(1, status)
        self.assertEqual(1, len(process.output.strip().splitlines()), process.output)
        self.assertIn(f"cannot use UDP port {self.port} of 127.0.0.1", process.output)
