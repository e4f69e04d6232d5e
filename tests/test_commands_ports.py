"""``ntm forward`` and ``ntm socks``, with real agents on loopback."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.client.agent import Agent
from ntmobile.commands.forward import parse_target
from ntmobile.commands.ports import parse_local
from ntmobile.errors import NTMobileError
from tests.agents import LAPTOP, AgentTestCase, Running, ntm, state_of

PATIENCE = 20.0
#: A program inside the virtual network: answers one connection with what it got, in capitals.
UPPER = """
import socket, sys
with socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6) as server:
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(connection.recv(1000).upper())
"""
#: One that connects to a name, sends, and prints the answer.
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as connection:
    connection.sendall(b"hello")
    print(connection.recv(1000).decode())
"""


class PortsTestCase(AgentTestCase):
    """What these tests share."""

    def run_ntm(self, *words: object) -> Running:
        """Start a command; it is ended after the test."""
        running = Running(*words)
        self.addCleanup(running.end)
        return running

    async def serve_inside(self, agent: Agent, port: int) -> None:
        """Run the server in the virtual network of a device."""
        inside = ["exec", "--state", state_of(agent), "--", sys.executable, "-c", UPPER, port]
        await self.run_ntm(*inside).says("^ready$")

    async def ask(self, port: int, data: bytes = b"hello") -> bytes:
        """Connect to a port of this machine, and read what it answers."""

        def run() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(data)
                return connection.recv(1000)

        answer: bytes = await deferToThread(run)
        return answer


class ForwardTests(PortsTestCase):
    """``ntm forward``."""

    async def test_outward(self) -> None:
        """A port of this machine leads to a correspondent, until Ctrl-C, which is no error."""
        _, phone, laptop = await self.pair()
        await self.serve_inside(laptop, 7000)
        forward = self.run_ntm("forward", "--state", state_of(phone), "0", f"{LAPTOP}:7000")
        said = rf"^127\.0\.0\.1:(\d+) leads to {re.escape(LAPTOP)} port 7000; Ctrl-C ends it\.$"
        port = int((await forward.says(said))[1])
        self.assertEqual([b"HELLO"] * 2, [await self.ask(port), await self.ask(port)])
        self.assertEqual((0, ""), await forward.interrupt())

    async def test_inward(self) -> None:
        """A port of the virtual network leads to a port of this machine."""
        _, phone, laptop = await self.pair()
        with socket.create_server(("127.0.0.1", 0)) as server:
            local = server.getsockname()[1]
            words = ["forward", "--state", state_of(laptop), "--listen", "2222", local]
            forward = self.run_ntm(*words)
            await forward.says(
                rf"^port 2222 in the virtual network leads to localhost:{local}; Ctrl-C ends it\.$"
            )

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(connection.recv(1000).upper())

            answering = deferToThread(answer)
            inside = ["exec", "--state", state_of(phone), "--", sys.executable, "-c", ASK]
            ran = await ntm(*inside, LAPTOP, 2222)
            await answering
        self.assertEqual(("HELLO\n", 0), (ran.output, ran.status), ran.errors)
        self.assertEqual((0, ""), await forward.interrupt())

    async def test_nobody_there(self) -> None:
        """A connection that fails is one line, and the command goes on."""
        _, phone, laptop = await self.pair()
        forward = self.run_ntm("forward", "--state", state_of(phone), "0", f"{LAPTOP}:7000")
        port = int((await forward.says(r":(\d+) leads"))[1])
        self.assertEqual(b"", await self.ask(port))
        self.assertEqual(
            f"no connection: {LAPTOP} port 7000: Connection refused\n", await forward.complains()
        )
        await self.serve_inside(laptop, 7000)
        self.assertEqual(b"HELLO", await self.ask(port))

    async def test_port_in_use(self) -> None:
        """A port that is taken is one line, on this machine and in the virtual network."""
        _, phone, _ = await self.pair()
        state = state_of(phone)
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = server.getsockname()[1]
            ran = await ntm("forward", "--state", state, taken, f"{LAPTOP}:7000")
        self.assertEqual(1, ran.status)
        self.assertEqual(
            f"Error: cannot listen on 127.0.0.1 port {taken}: Address already in use; "
            "name another port\n",
            ran.errors,
        )
        await self.serve_inside(phone, 2222)
        ran = await ntm("forward", "--state", state, "--listen", "2222", "22")
        self.assertEqual(1, ran.status)
        self.assertIn("port 2222 of the virtual network: Address already in use", ran.errors)


class SocksTests(PortsTestCase):
    """``ntm socks``."""

    def through(self, proxy: int, name: str, port: int) -> bytes:
        """What a SOCKS5 client gets: the reply, or the server's answer."""
        with socket.create_connection(("127.0.0.1", proxy), timeout=PATIENCE) as connection:
            connection.sendall(b"\x05\x01\x00")
            self.assertEqual(b"\x05\x00", connection.recv(2))
            host = name.encode()
            connection.sendall(b"\x05\x01\x00\x03" + bytes((len(host),)) + host)
            connection.sendall(port.to_bytes(2, "big"))
            reply = connection.recv(10)
            if reply[1]:
                return reply[:2]
            connection.sendall(b"hello")
            return connection.recv(1000)

    async def test_names(self) -> None:
        """Names of the platform lead to their devices, others are refused and told."""
        _, phone, laptop = await self.pair()
        await self.serve_inside(laptop, 7000)
        proxy = self.run_ntm("socks", "--state", state_of(phone), "--port", "0")
        port = int((await proxy.says(r"^SOCKS5 proxy on 127\.0\.0\.1 port (\d+) "))[1])
        answer = await deferToThread(self.through, port, f"{LAPTOP.upper()}.", 7000)
        self.assertEqual(b"HELLO", answer)
        self.assertEqual(b"\x05\x05", await deferToThread(self.through, port, LAPTOP, 7001))
        self.assertIn(f"refused {LAPTOP}:7001: ", await proxy.complains())
        self.assertEqual(b"\x05\x02", await deferToThread(self.through, port, "example.org", 80))
        self.assertIn("refused example.org:80: ", await proxy.complains())
        self.assertEqual((0, ""), await proxy.interrupt())


class WordTests(SynchronousTestCase):
    """The words of the command line."""

    def test_local(self) -> None:
        """A port, with or without a host."""
        self.assertEqual(("127.0.0.1", 80), parse_local("80", "127.0.0.1"))
        self.assertEqual(("0.0.0.0", 80), parse_local("0.0.0.0:80", "127.0.0.1"))
        self.assertEqual(("::1", 80), parse_local("[::1]:80", "127.0.0.1"))
        for wrong in ("", "x", ":80", "::1:80", "host:", "host:65536", "host:-1", "80:host"):
            self.assertRaises(NTMobileError, parse_local, wrong, "127.0.0.1")

    def test_target(self) -> None:
        """A name and a port."""
        self.assertEqual((LAPTOP, 22), parse_target(f"{LAPTOP.upper()}.:22"))
        for wrong in (LAPTOP, f"{LAPTOP}:", f"{LAPTOP}:ssh", ":22", "-x-.y:22", "a b:22"):
            self.assertRaises(NTMobileError, parse_target, wrong)


class NoAgentTests(TestCase):
    """Where no agent runs."""

    async def test_one_line(self) -> None:
        """Both say how to start it, at once, with status 1."""
        state = Path(self.mktemp())
        os.makedirs(state)
        (state / "node.toml").touch()
        asked: list[list[Any]] = [
            ["forward", "--state", state, "8080", f"{LAPTOP}:80"],
            ["forward", "--state", state, "--listen", "8080", "80"],
            ["socks", "--state", state, "--port", "0"],
        ]
        for words in asked:
            ran = await ntm(*words)
            expected = f"Error: no agent is running for {state}; "
            self.assertTrue(ran.errors.startswith(expected), ran.errors)
            self.assertEqual((1, 1), (ran.status, ran.errors.count("\n")))
