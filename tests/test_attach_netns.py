"""The ``netns`` attachment with real namespaces: traffic, names, restarts, and how it ends."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorSocket
from twisted.internet.task import deferLater
from twisted.names import dns
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import NotRegistered, NTMobileError
from ntmobile.interfaces import IAttachment, VirtualAddresses
from ntmobile.plugins.netns.channel import Channel, end, short_path
from tests.attachments import LEFT, RIGHT, Place, netns_unavailable

_ECHO_SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6)
print("listening", flush=True)
connection, _ = server.accept()
while data := connection.recv(4096):
    connection.sendall(data)
"""

_ECHO_CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 7), timeout=15)
for line in sys.stdin:
    connection.sendall(line.encode())
    print("back", connection.recv(4096).decode(), end="", flush=True)
"""


class NetnsTestCase(TestCase):
    """Makes places that end with the test."""

    timeout = 60

    def setUp(self) -> None:
        reason = netns_unavailable()
        if reason is not None:
            self.skipTest(reason)

    def place(self, addresses: VirtualAddresses) -> Place:
        """A place that is not attached yet."""
        place = Place(self, Path(self.mktemp()).resolve(), addresses)
        self.addCleanup(self._end, place)
        return place

    def _end(self, place: Place) -> None:
        if place.attachment is not None:
            place.attachment.close()
        end(place.state)

    async def pair(self) -> tuple[Place, Place]:
        """Two places whose packets go to each other."""
        left, right = self.place(LEFT), self.place(RIGHT)
        left.peer, right.peer = right, left
        await left.open()
        await right.open()
        return left, right

    async def until(self, condition: Any, what: str) -> None:
        """Wait, for a bounded time, until a condition holds."""
        for _ in range(500):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail(f"in vain awaited: {what}")


class TrafficTests(NetnsTestCase):
    """What applications in two virtual networks can do with each other."""

    async def test_ping(self) -> None:
        """``ping`` works for a program without capabilities, over IPv4 and IPv6."""
        left, _ = await self.pair()
        for address in (RIGHT.ipv4, RIGHT.ipv6):
            done = await left.run("ping", "-n", "-c2", "-i0.1", "-W5", address)
            self.assertEqual(0, done.status, done)
        self.assertGreaterEqual(left.attachment.traffic.from_applications, 4)
        self.assertGreaterEqual(left.attachment.traffic.to_applications, 4)
        self.assertEqual(0, left.attachment.traffic.dropped)

    async def test_tcp(self) -> None:
        """An ordinary HTTP server and client move a megabyte, on a port below 1024."""
        left, right = await self.pair()
        served = Path(self.mktemp()).resolve()
        served.mkdir(mode=0o755)
        content = os.urandom(1 << 20)
        (served / "file").write_bytes(content)
        http = [sys.executable, "-u", "-m", "http.server", "--bind", RIGHT.ipv4, "80"]
        server = right.spawn(*http, cwd=served)
        await server.says("Serving HTTP")
        fetch = (
            "import hashlib, urllib.request as r;"
            f"print(hashlib.sha256(r.urlopen('http://{RIGHT.ipv4}/file', timeout=15).read())"
            ".hexdigest())"
        )
        done = await left.run(sys.executable, "-c", fetch)
        self.assertEqual(hashlib.sha256(content).hexdigest(), done.output.strip(), done)

    async def test_only_the_virtual_network(self) -> None:
        """Inside, no other network is reachable: the answer is immediate."""
        place = self.place(LEFT)
        await place.open()
        code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=15)"
        done = await place.run(sys.executable, "-c", code)
        self.assertIn("Network is unreachable", done.errors)

    async def test_idle_is_silent(self) -> None:
        """The kernel sends nothing of its own accord: no router or group discovery."""
        place = self.place(LEFT)
        await place.open()
        await place.run("true")
        await deferLater(reactor, 1.2)
        self.assertEqual([], place.received)

    async def test_malformed_packet(self) -> None:
        """A packet the kernel refuses is dropped and counted, and the device lives."""
        left, _ = await self.pair()
        left.attachment.send(bytes(40))
        self.assertEqual(1, left.attachment.traffic.dropped)
        done = await left.run("ping", "-n", "-c1", "-W5", RIGHT.ipv4)
        self.assertEqual(0, done.status, done)

    async def test_interface(self) -> None:
        """It provides the interface."""
        place = self.place(LEFT)
        verifyObject(IAttachment, await place.open())


class NameTests(NetnsTestCase):
    """Names inside."""

    async def test_resolver(self) -> None:
        """Programs ask 127.0.0.53, where a socket made inside answers from the agent."""
        place = self.place(LEFT)
        attachment = await place.open()
        made = attachment.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.53", 53))

        class Answers:
            def messageReceived(self, message: Any, protocol: Any, address: Any = None) -> None:
                query = message.queries[0]
                message.answer, message.rCode = 1, dns.OK
                if query.type == dns.AAAA:
                    record = dns.Record_AAAA(RIGHT.ipv6)
                    message.answers = [dns.RRHeader(query.name.name, dns.AAAA, payload=record)]
                protocol.writeMessage(message, address)

        port = IReactorSocket(reactor).adoptDatagramPort(
            made.fileno(), socket.AF_INET, dns.DNSDatagramProtocol(Answers()), 8192
        )
        made.close()
        self.addCleanup(port.stopListening)
        done = await place.run("getent", "ahosts", "phone.alice.dc1.ntm.example")
        self.assertIn(RIGHT.ipv6, done.output, done)

    async def test_files(self) -> None:
        """resolv.conf and nsswitch.conf are ours; the rest of /etc is the system's."""
        place = self.place(LEFT)
        await place.open()
        done = await place.run("cat", "/etc/resolv.conf", "/etc/nsswitch.conf")
        self.assertIn("nameserver 127.0.0.53\n", done.output)
        self.assertIn("hosts: files dns\n", done.output)
        done = await place.run("ls", "-A", "/etc")
        self.assertEqual(set(), set(os.listdir("/etc")) - set(done.output.split()))


class RestartTests(NetnsTestCase):
    """The virtual network outlives the agent."""

    async def test_connection_survives(self) -> None:
        """A TCP connection and its programs go on when an agent leaves and another comes."""
        left, right = await self.pair()
        server = right.spawn(sys.executable, "-c", _ECHO_SERVER, RIGHT.ipv6)
        await server.says("listening")
        client = left.spawn(sys.executable, "-c", _ECHO_CLIENT, RIGHT.ipv6)
        client.write(b"one\n")
        await client.says("back one")

        left.attachment.close()
        client.write(b"two\n")
        await left.open()

        await client.says("back two")
        self.assertEqual([], left.losses)

    async def test_addresses_change(self) -> None:
        """An agent that comes with other addresses replaces them; unchanged ones stay."""
        place = self.place(LEFT)
        await place.open()
        place.attachment.close()
        place.addresses = VirtualAddresses(ipv6=LEFT.ipv6, ipv4="198.18.0.99")
        await place.open()
        shown = (await place.run("ip", "-o", "addr", "show", "dev", "ntm0")).output
        self.assertIn("198.18.0.99/32", shown)
        self.assertIn(f"{LEFT.ipv6}/64", shown)
        self.assertNotIn(LEFT.ipv4, shown)

    async def test_routes_change(self) -> None:
        """Routes are added and removed under a running attachment, and survive an address."""
        place = self.place(LEFT)
        attachment = await place.open()
        attachment.add_route("203.0.113.0/24")
        attachment.readdress(VirtualAddresses(ipv6=LEFT.ipv6, ipv4="198.18.0.99"))
        shown = (await place.run("ip", "route")).output
        self.assertIn("203.0.113.0/24 dev ntm0", shown)
        self.assertIn("198.18.0.0/15 dev ntm0", shown)
        attachment.remove_route("203.0.113.0/24")
        attachment.remove_route("203.0.113.0/24")
        self.assertNotIn("203.0.113.0/24", (await place.run("ip", "route")).output)

    async def test_one_agent(self) -> None:
        """A second agent is refused while the first is there, and harms nothing."""
        left, _ = await self.pair()
        other = Place(self, left.state, LEFT)
        with self.assertRaisesRegex(NTMobileError, "another agent"):
            await other.open()
        done = await left.run("ping", "-n", "-c1", "-W5", RIGHT.ipv4)
        self.assertEqual(0, done.status, done)

    async def test_deep_state_directory(self) -> None:
        """The state directory may be deeper than a socket address is long."""
        place = self.place(LEFT)
        place.state = place.state / ("d" * 100) / ("e" * 100)
        await place.open()
        self.assertEqual(0, (await place.run("true")).status)


class EndTests(NetnsTestCase):
    """How a virtual network ends."""

    def keeper(self, place: Place) -> int:
        """The process kept in the namespace, as the socket tells it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            with short_path(place.state / "netns.sock") as path:
                connection.connect(path)
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("=iII", peer)[0])

    async def test_shutdown(self) -> None:
        """``shutdown`` ends it, and a new one can be made at once."""
        place = self.place(LEFT)
        attachment = await place.open()
        attachment.shutdown()
        self.assertRaises(NotRegistered, Channel.connect, place.state)
        self.assertEqual([], place.losses)
        await place.open()
        self.assertEqual(0, (await place.run("true")).status)

    async def test_end_without_agent(self) -> None:
        """``end`` ends it when no agent is there, and says whether there was one."""
        place = self.place(LEFT)
        (await place.open()).close()
        self.assertTrue(end(place.state))
        self.assertFalse(end(place.state))

    async def test_process_dies(self) -> None:
        """When the process in the namespace is killed, the agent is told once, and can go on."""
        place = self.place(LEFT)
        await place.open()
        os.kill(self.keeper(place), signal.SIGKILL)
        await self.until(lambda: place.losses, "the loss")
        [loss] = place.losses
        self.assertIn("ntm up", str(loss))
        place.attachment.send(b"")
        with self.assertRaises(NTMobileError):
            place.attachment.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.assertEqual(1, len(place.losses))
        await place.open()
        self.assertEqual(0, (await place.run("true")).status)

    async def test_nothing_leaks(self) -> None:
        """Opening and ending leaves no descriptor open."""
        place = self.place(LEFT)
        await place.open()
        place.attachment.shutdown()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            await place.open()
            place.attachment.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
            place.attachment.shutdown()
        self.assertEqual(before, len(os.listdir("/proc/self/fd")))

    async def test_foreign_socket_is_no_network(self) -> None:
        """Where no virtual network runs, entering says how to start one."""
        place = self.place(LEFT)
        place.state.mkdir()
        done = await place.run("true")
        self.assertEqual(1, done.status)
        self.assertIn("ntm up", done.errors)
