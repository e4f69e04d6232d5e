"""The data port of an RS, on real sockets of the loopback and in the virtual internet."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorTime,
    IReactorUDP,
    ISystemHandle,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.errors import ConfigurationError
from ntmobile.machines.effects import Address
from ntmobile.machines.relay.limits import RelayLimits
from ntmobile.machines.relay.server import RelayServer
from ntmobile.machines.tunnel.leg import LegStatus, RelayLeg
from ntmobile.protocols.datagram_adapter import AdaptedPort
from ntmobile.protocols.datagram_port import DatagramPort
from ntmobile.protocols.datagram_support import PLAIN, DatagramSupport
from ntmobile.protocols.relay_sockets import bind_data_port, family_of, path_limit
from ntmobile.protocols.relaying import Relaying
from ntmobile.testing import Host, NatKind, VirtualInternet
from ntmobile.wire.headers import Kind
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import Relay
from ntmobile.wire.messages.relaying import LegState, RelayTooBig
from ntmobile.wire.relaying import open_relayed
from tests.relay_clients import BOOT, HOME, INDEX, KEYS, SIX, Leg, data, direction


class Client(DatagramProtocol):
    """A socket that keeps what comes."""

    def __init__(self, receive: Callable[[bytes, Address], None] | None = None) -> None:
        self.received: DeferredQueue[bytes] = DeferredQueue()
        self._receive = receive

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Keep it, or hand it on."""
        if self._receive is None:
            self.received.put(datagram)
        else:
            self._receive(datagram, addr)

    def send(self, datagram: bytes, remote: Address) -> None:
        """Send it."""
        assert self.transport is not None
        self.transport.write(datagram, remote)

    def taken(self) -> socket.socket:
        """The socket itself, once more."""
        handle = ISystemHandle(self.transport).getHandle()
        assert isinstance(handle, socket.socket)
        return handle.dup()


class LoopbackTests(TestCase):
    """Real sockets of the loopback, by the fastest calls there are."""

    support: DatagramSupport | None = None

    def setUp(self) -> None:
        """An RS on one port of 127.0.0.1 and, where there is one, of ::1."""
        self.relaying = Relaying(
            RelayServer(BOOT), IReactorTime(reactor), lambda remote: path_limit(remote)
        )
        self.addCleanup(self.relaying.stop)
        self.places: dict[str, Address] = {}
        for host in ("127.0.0.1", "::1"):
            try:
                bound = bind_data_port((host, 0))
            except ConfigurationError:
                continue
            port = DatagramPort(bound, self.relaying, IReactorFDSet(reactor), self.support)
            self.relaying.attach(port, ipv6=":" in host)
            port.startListening()
            self.places[host] = (host, port.getHost().port)
            self.addCleanup(port.stopListening)
        self.relaying.direct(direction())

    def client(self, host: str) -> Client:
        """A client's socket."""
        client = Client()
        port = IReactorUDP(reactor).listenUDP(0, client, interface=host, maxPacketSize=65535)
        self.addCleanup(port.stopListening)
        return client

    async def bound(self, side: int, host: str) -> Client:
        """A client that has bound its leg."""
        client, leg = self.client(host), Leg(side, (host, 0))
        client.send(leg.request(), self.places[host])
        _, answer = open_relayed(leg.key, await client.received.get().addTimeout(5, reactor))
        client.send(leg.request(getattr(answer, "cookie", b""), fresh=False), self.places[host])
        _, answer = open_relayed(leg.key, await client.received.get().addTimeout(5, reactor))
        self.assertIn(getattr(answer, "state", None), (LegState.BOUND, LegState.JOINED))
        return client

    async def relayed(self, first: str, second: str) -> None:
        """Bind two legs and send both ways."""
        near, far = await self.bound(0, first), await self.bound(1, second)
        _, news = open_relayed(KEYS[0], await near.received.get().addTimeout(5, reactor))
        self.assertEqual(LegState.JOINED, getattr(news, "state", None))
        for size in (20, 100, 1400):
            near.send(data(1, size), self.places[first])
            self.assertEqual(data(1, size), await far.received.get().addTimeout(5, reactor))
            far.send(data(2, size), self.places[second])
            self.assertEqual(data(2, size), await near.received.get().addTimeout(5, reactor))

    async def run_relayed(self, first: str, second: str) -> None:
        """Bind two legs and send a run, at the middle of which is a datagram of no tunnel."""
        near, far = await self.bound(0, first), await self.bound(1, second)
        await near.received.get().addTimeout(5, reactor)
        run = [data(number, 300) for number in range(20)]
        sent = [*run[:10], data(99, 300, b"elsewher"), *run[10:], data(20, 77)]
        sender = DatagramPort(near.taken(), self.relaying, IReactorFDSet(reactor), self.support)
        sender.send_run(b"".join(sent), 300, self.places[first])
        for datagram in (*run, data(20, 77)):
            self.assertEqual(datagram, await far.received.get().addTimeout(5, reactor))
        hint = await near.received.get().addTimeout(5, reactor)
        self.assertEqual((Kind.RELAY_UNKNOWN, 20), (hint[0], len(hint)))
        self.assertEqual(1, self.relaying.server.tally.unknown)
        self.assertEqual(21, self.relaying.server.tally.forwarded)
        sender.stopListening()

    async def test_runs(self) -> None:
        """Runs pass as the same datagrams, and a foreign one inside passes nowhere."""
        await self.run_relayed("127.0.0.1", "127.0.0.1")

    async def test_runs_to_ipv6(self) -> None:
        """The same from IPv4 to IPv6."""
        if "::1" not in self.places:
            raise SkipTest("this machine has no IPv6 loopback")
        await self.run_relayed("127.0.0.1", "::1")

    async def test_ipv4(self) -> None:
        """Two IPv4 clients reach each other."""
        await self.relayed("127.0.0.1", "127.0.0.1")

    async def test_ipv4_meets_ipv6(self) -> None:
        """A client that has only IPv4 reaches one that has only IPv6."""
        if "::1" not in self.places:
            raise SkipTest("this machine has no IPv6 loopback")
        await self.relayed("127.0.0.1", "::1")

    async def test_unknown_tunnel(self) -> None:
        """A client that speaks of no tunnel here is told so."""
        client = self.client("127.0.0.1")
        client.send(data(5, index=b"elsewher"), self.places["127.0.0.1"])
        hint = await client.received.get().addTimeout(5, reactor)
        self.assertEqual((Kind.RELAY_UNKNOWN, 20), (hint[0], len(hint)))


class PlainLoopbackTests(LoopbackTests):
    """The same by the calls that every system has."""

    support = PLAIN


class SocketTests(SynchronousTestCase):
    """The sockets of the data port."""

    def test_port_in_use(self) -> None:
        """A port in use is one clear error."""
        taken = bind_data_port(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        problem = self.assertRaises(ConfigurationError, bind_data_port, ("127.0.0.1", port))
        self.assertIn(f"UDP port {port} of 127.0.0.1", str(problem))

    def test_both_wildcards(self) -> None:
        """IPv4 and IPv6 wildcards share a port number."""
        four = bind_data_port(("0.0.0.0", 0))
        self.addCleanup(four.close)
        try:
            six = bind_data_port(("::", four.getsockname()[1]))
        except ConfigurationError as problem:
            if "in use" in str(problem):
                raise
            raise SkipTest("this machine has no IPv6") from None
        self.addCleanup(six.close)

    def test_path_limit(self) -> None:
        """What fits a path is what the system knows of it, without IP and UDP headers."""
        self.assertLessEqual(path_limit(("127.0.0.1", 9)), 65535 - 28)
        self.assertGreater(path_limit(("127.0.0.1", 9)), 1200)
        self.assertEqual(0, path_limit(("not an address", 9)))

    def test_never_fragments(self) -> None:
        """R27: the sockets have the system refuse what does not fit."""
        for host, level, option in (("127.0.0.1", socket.IPPROTO_IP, 10), ("::1", 41, 23)):
            try:
                bound = bind_data_port((host, 0))
            except ConfigurationError:
                continue
            self.addCleanup(bound.close)
            self.assertEqual(2, bound.getsockopt(level, option))
            self.assertEqual(family_of(host), bound.family)


class NarrowTransport:
    """A transport that refuses datagrams over its limit, as a path with a small MTU does."""

    def __init__(self, limit: int, refusal: Exception) -> None:
        self.limit = limit
        self.refusal = refusal
        self.sent: list[tuple[bytes, Address]] = []

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Take or refuse a datagram."""
        if len(packet) > self.limit:
            raise self.refusal
        assert addr is not None
        self.sent.append((packet, addr))


REFUSALS = [
    MessageLengthError("message too long"),
    OSError(errno.EMSGSIZE, "Message too long"),
]


class TooBigTests(SynchronousTestCase):
    """R27: what does not fit is not fragmented but signalled."""

    def joined(self, refusal: Exception) -> tuple[AdaptedPort, NarrowTransport, NarrowTransport]:
        """An RS with an IPv4 leg and, over a path that takes 1232 bytes, an IPv6 leg."""
        relaying = Relaying(RelayServer(BOOT), Clock(), lambda remote: 1232)
        wide, narrow = NarrowTransport(65507, refusal), NarrowTransport(1232, refusal)
        ports = relaying.port(ipv6=False), relaying.port(ipv6=True)
        for port, transport in zip(ports, (wide, narrow), strict=True):
            port.makeConnection(cast(IUDPTransport, transport))
        relaying.direct(direction())
        self.addCleanup(relaying.stop)
        for leg in (Leg(0, HOME), Leg(1, SIX)):
            leg.bind(relaying.server)
        return ports[0], wide, narrow

    def test_signal(self) -> None:
        """R27: the sender hears the size and the limit; the other leg gets nothing."""
        for refusal in REFUSALS:
            port, wide, narrow = self.joined(refusal)
            port.datagramReceived(data(3, 1300), HOME)
            self.assertEqual([], narrow.sent)
            ((signal, remote),) = wide.sent
            self.assertEqual(HOME, remote)
            self.assertEqual(RelayTooBig(1300, 1232), open_relayed(KEYS[0], signal)[1])

    def test_what_fits_passes(self) -> None:
        """What fits passes, before and after."""
        port, _, narrow = self.joined(REFUSALS[0])
        for size in (1232, 1300, 1200):
            port.datagramReceived(data(3, size), HOME)
        self.assertEqual([1232, 1200], [len(datagram) for datagram, _ in narrow.sent])

    def test_other_errors(self) -> None:
        """A system that does not take a datagram, or a missing socket, stops nothing."""
        port, wide, narrow = self.joined(OSError(errno.ENETUNREACH, "Network is unreachable"))
        port.datagramReceived(data(3, 1300), HOME)
        narrow.limit = 0
        port.datagramReceived(data(3, 100), HOME)
        self.assertEqual(([], []), (wide.sent, narrow.sent))


class NarrowPathTests(SynchronousTestCase):
    """R27, with the system's own refusal, in a network namespace with an MTU of 1300."""

    def narrow(self, host: str) -> list[int]:
        """What :mod:`tests.relay_narrow` prints in such a namespace."""
        inside = 'ip link set lo mtu 1300 up && exec "$0" -m tests.relay_narrow "$1"'
        command = ["unshare", "-Urn", "sh", "-c", inside, sys.executable, host]
        try:
            subprocess.run([*command[:2], "ip", "link"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            raise SkipTest("this system allows no network namespaces to this user") from None
        here = str(Path(__file__).resolve().parent.parent)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, cwd=here, check=False
        )
        self.assertEqual("", done.stderr)
        found: list[int] = json.loads(done.stdout)
        return found

    def test_ipv4(self) -> None:
        """R27: what fits passes, of the rest the sender hears the limit of the IPv4 path."""
        self.assertEqual([1200, 1400, 1300 - 28], self.narrow("127.0.0.1"))

    def test_ipv6(self) -> None:
        """R27: and of the IPv6 path."""
        self.assertEqual([1200, 1400, 1300 - 48], self.narrow("::1"))


class Phone:
    """A client in the virtual internet: the client's own leg machine, on a socket."""

    def __init__(self, host: Host, side: int, rs: Address) -> None:
        self.host = host
        self.rs = rs
        relay = Relay("rs1.dc1.ntm.example", (Endpoint.of(rs),), KEYS[side], side)
        self.leg = RelayLeg(INDEX, relay, host.entropy)
        self.received: list[bytes] = []
        self.phone = Client(self._received)
        host.reactor.listenUDP(0, self.phone)
        self._step()

    def _received(self, datagram: bytes, addr: Address) -> None:
        now = self.host.reactor.seconds()
        if datagram[0] == Kind.RELAY_UNKNOWN:
            self.leg.hinted(now)
        elif datagram[0] >= Kind.RELAY_REQUEST:
            self.leg.datagram_received(datagram, addr, now)
        else:
            self.received.append(datagram)
        self._flush()

    def _step(self) -> None:
        self.leg.handle_timer(self.host.reactor.seconds())
        self._flush()
        self.host.reactor.callLater(0.05, self._step)

    def _flush(self) -> None:
        for effect in self.leg.transmissions():
            self.phone.send(effect.datagram, effect.remote)

    def bind(self) -> None:
        """Bind from wherever the host is."""
        self.leg.bind(self.host.reactor.seconds())
        self._flush()


class VirtualInternetTests(SynchronousTestCase):
    """The client's leg and the RS, behind NATs, over links that lose."""

    def setUp(self) -> None:
        """Two homes and an RS."""
        self.internet = VirtualInternet(seed=7)
        self.host = self.internet.host("rs", "203.0.113.1")
        self.rs = ("203.0.113.1", 4331)
        self.server = RelayServer(BOOT, RelayLimits(), self.host.entropy)
        self.relaying = Relaying(self.server, self.host.reactor)
        self.host.reactor.listenUDP(4331, self.relaying.port(ipv6=False))
        self.relaying.direct(direction())
        kinds = NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED_CONE
        self.phones = []
        for side, kind in enumerate(kinds):
            home = self.internet.network(f"home{side}", f"192.168.{side}.0/24", nat=kind)
            host = home.host(f"phone{side}")
            host.link.delay = 0.01
            self.phones.append(Phone(host, side, self.rs))

    def joined(self) -> bool:
        """Both clients know that datagrams pass."""
        return all(phone.leg.status is LegStatus.JOINED for phone in self.phones)

    def passes(self, datagram: bytes) -> bool:
        """Whether the second gets what the first sends, within a second."""
        near, far = self.phones
        near.phone.send(datagram, self.rs)
        self.internet.advance(1.0)
        return datagram in far.received

    def test_behind_nats(self) -> None:
        """Two clients behind NATs that nobody can traverse meet at the RS, in two round trips."""
        for phone in self.phones:
            phone.bind()
        took = self.internet.run_until(self.joined, limit=5.0)
        self.assertLess(took, 0.1)
        self.assertTrue(self.passes(data(1)))

    def test_loss(self) -> None:
        """With a third of all datagrams lost they still meet."""
        for phone in self.phones:
            phone.host.link.loss = 0.33
            phone.bind()
        self.internet.run_until(self.joined, limit=30.0)

    def test_move(self) -> None:
        """A client that moves binds again, and the other notices nothing."""
        near, far = self.phones
        for phone in self.phones:
            phone.bind()
        self.internet.run_until(self.joined, limit=5.0)
        cafe = self.internet.network("cafe", "10.9.0.0/24", nat=NatKind.SYMMETRIC)
        near.host.move(cafe)
        near.bind()
        self.internet.run_until(self.joined, limit=5.0)
        self.assertTrue(self.passes(data(2)))
        far.phone.send(data(3), self.rs)
        self.internet.advance(1.0)
        self.assertIn(data(3), near.received)

    def test_kept_for_hours(self) -> None:
        """Keep-alives of both clients hold tunnel and NAT bindings without any traffic."""
        for phone in self.phones:
            phone.bind()
        self.internet.run_until(self.joined, limit=5.0)
        self.internet.advance(3600.0)
        self.assertTrue(self.passes(data(4)))

    def test_gone_clients_are_forgotten(self) -> None:
        """When one client is gone its tunnel is over after the idle time."""
        for phone in self.phones:
            phone.bind()
        self.internet.run_until(self.joined, limit=5.0)
        self.phones[0].host.suspend()
        self.internet.advance(302.0)
        self.assertEqual(0, len(self.server))
