"""Kernels' own traffic through cutting and joining, as a capture behind it judges it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import SkipTest

from ntmobile.lab.measure import TcpStream
from ntmobile.lab.network import Host, Router
from ntmobile.lab.node import Lab
from ntmobile.lab.process import Process, pause
from ntmobile.lab.supervision import SEARCH_PATH
from tests.lab.case import LabTestCase

_CARRIER = str(Path(__file__).with_name("carrier.py"))

#: Has the sender's side of a cable complete checksums, since the cable's end is to see them.
_COMPLETE = """
import array, fcntl, socket, struct, sys
value = array.array("I", [0x17, 0])  # ETHTOOL_STXCSUM
request = struct.pack("16sP", sys.argv[1].encode(), value.buffer_info()[0])
fcntl.ioctl(socket.socket(), 0x8946, request.ljust(40, b"\\0"))  # SIOCETHTOOL
"""

#: Sends datagrams of a given size, many by one call (UDP_SEGMENT), the last of each call short.
_SEND = """
import socket, sys, time
address, size = sys.argv[1], 1200
sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.IPPROTO_UDP, 103, size)
sender.connect((address, 7002))
for number in range(20):
    sender.send(bytes([number]) * (size * 30 + 7))
    time.sleep(0.01)
"""

#: Takes them: so many of each size, each of one byte's value throughout.
_RECEIVE = """
import collections, json, socket
receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
receiver.bind(("::", 7002))
print("ready", flush=True)
receiver.settimeout(5)
sizes = collections.Counter()
while sizes[7] < 20:
    data = receiver.recv(65536)
    assert data == data[:1] * len(data)
    sizes[len(data)] += 1
print(json.dumps(sizes), flush=True)
"""


@define
class Crossing:
    """Two networks whose routers are joined by TUN devices, and a carrier between these."""

    lab: Lab
    routers: tuple[Router, Router]
    hosts: tuple[Host, Host]
    carrier: Process

    @classmethod
    async def build(cls, lab: Lab, size: int, bad: float) -> Crossing:
        """Make both networks, and carry between them packets of at most ``size`` bytes."""
        path = str(lab.directory / "lent")
        routers, hosts = [], []
        for number in (1, 2):
            router = await lab.add(Router, f"router{number}")
            segment = await router.segment(
                "lan",
                ipv4=IPv4Network(f"10.{number}.0.0/24"),
                ipv6=IPv6Network(f"fd10:{number}::/64"),
            )
            host = await lab.add(Host, f"host{number}")
            attachment = await host.plug(segment)
            await router.run([sys.executable, "-c", _COMPLETE, attachment.port], privileged=True)
            other = 3 - number
            await router.ip(
                # Up before anything is carried: a device that is down refuses packets.
                "tuntap add dev ntm0 mode tun vnet_hdr",
                "link set ntm0 up mtu 1416",
                f"route add 10.{other}.0.0/24 dev ntm0",
                f"route add fd10:{other}::/64 dev ntm0",
            )
            routers.append(router)
            hosts.append(host)
        argv = [sys.executable, _CARRIER, "carry", path, str(size), str(bad)]
        carrier = await routers[0].spawn(argv, name="carrier", privileged=True)
        await carrier.wait_for("^ready$")
        await routers[1].run([sys.executable, _CARRIER, "lend", path], privileged=True)
        await carrier.wait_for("^carrying$")
        return cls(lab, (routers[0], routers[1]), (hosts[0], hosts[1]), carrier)

    async def report(self) -> dict[str, Any]:
        """End the carrier, and hear what it did."""
        await self.carrier.stop()
        report: dict[str, Any] = json.loads(self.carrier.output().splitlines()[-1])
        return report


@define
class Capture:
    """What arrives at a host, as tcpdump words it."""

    process: Process

    @classmethod
    async def start(cls, host: Host) -> Capture:
        """Begin."""
        argv = ["tcpdump", "-i", "eth0", "-Q", "in", "-n", "-vv", "-l", "--immediate-mode"]
        process = await host.spawn([*argv, "tcp or udp"], privileged=True)
        await process.wait_for("listening on")
        return cls(process)

    async def end(self) -> tuple[Counts, str]:
        """End; how many checksums it found right, and every line that tells of a wrong one."""
        await pause(IReactorTime(reactor), 0.2)
        await self.process.stop()
        text = self.process.output()
        # Lines that begin with a time have the IP header; of IPv4, the rest is on the next line.
        packets = re.split(r"^(?=\d\d:\d\d:\d\d\.)", text, flags=re.MULTILINE)
        right = Counts(
            tcp4=sum("(correct)" in packet for packet in packets if " IP (" in packet),
            tcp6=sum("(correct)" in packet for packet in packets if " IP6 (" in packet),
            udp4=sum("udp sum ok" in packet for packet in packets if " IP (" in packet),
            udp6=sum("udp sum ok" in packet for packet in packets if " IP6 (" in packet),
        )
        wrong = [packet for packet in packets if re.search(r"incorrect|\bbad\b|invalid", packet)]
        return right, "".join(wrong[:5])


@define
class Counts:
    """Packets whose checksum is right, by protocol and IP version."""

    tcp4: int
    tcp6: int
    udp4: int
    udp6: int


class ChecksumTests(LabTestCase):
    """Real kernels at both ends, and checksums completed only behind the device."""

    def setUp(self) -> None:
        super().setUp()
        if shutil.which("tcpdump", path=SEARCH_PATH) is None:
            raise SkipTest("tcpdump is not installed")

    async def stream(self, crossing: Crossing, version: int, seconds: float) -> None:
        """One TCP stream each way, which arrive to the bit."""
        one, other = crossing.hosts
        for sender, receiver in ((one, other), (other, one)):
            address = receiver.ipv4 if version == 4 else receiver.ipv6
            stream = await TcpStream.start(sender, receiver, address, rate=2e7)
            await pause(IReactorTime(reactor), seconds)
            report = await stream.report(timeout=60)
            self.assertTrue(report.intact, report)
            self.assertGreater(report.received, 500_000)

    async def datagrams(self, crossing: Crossing, version: int) -> None:
        """Datagrams sent many at a time, which arrive as they are."""
        one, other = crossing.hosts
        receiving = await other.spawn([sys.executable, "-c", _RECEIVE], name="udp-receive")
        await receiving.wait_for("^ready$")
        address = other.ipv4 if version == 4 else other.ipv6
        await one.run([sys.executable, "-c", _SEND, address])
        self.assertEqual(await receiving.exited(), 0, receiving.tail())
        sizes = json.loads(receiving.output().splitlines()[-1])
        self.assertEqual(sizes, {"1200": 600, "7": 20})

    async def test_every_checksum(self) -> None:
        """tcpdump finds every checksum right: TCP and UDP, IPv4 and IPv6, both ways."""
        crossing = await Crossing.build(self.new_lab(), 1316, 0)
        captures = [await Capture.start(host) for host in crossing.hosts]
        for version in (4, 6):
            await self.stream(crossing, version, 0.3)
            await self.datagrams(crossing, version)
        for number, capture in enumerate(captures):
            right, wrong = await capture.end()
            self.assertEqual(wrong, "")
            self.assertGreater(min(right.tcp4, right.tcp6), 400)
            if number == 1:
                self.assertEqual((right.udp4, right.udp6), (620, 620))
        report = await crossing.report()
        self.assertEqual(report["refused"], 0)
        kinds = {"TCP4", "TCP6"}
        for way in (0, 1):
            self.assertLessEqual(kinds, set(report["cut"][way]))
            self.assertLessEqual(kinds, set(report["joined"][way]))
        if report["datagrams"]:
            self.assertIn("UDP", report["cut"][0])
        self.assertIn("UDP", report["joined"][0])

    async def test_bad_luck(self) -> None:
        """Streams stay intact, and checksums right, where packets are lost, doubled and late."""
        crossing = await Crossing.build(self.new_lab(), 1316, 0.01)
        captures = [await Capture.start(host) for host in crossing.hosts]
        for version in (4, 6):
            await self.stream(crossing, version, 0.5)
        for capture in captures:
            _, wrong = await capture.end()
            self.assertEqual(wrong, "")
        self.assertEqual((await crossing.report())["refused"], 0)
