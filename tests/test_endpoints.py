"""The endpoints ``ntm:PORT`` and ``ntm:NAME:PORT``, with real agents on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.agent import Agent
from ntmobile.errors import (
    ConfigurationError,
    InvalidName,
    NotPermittedHere,
    NTMobileError,
    UnknownName,
    Unreachable,
)
from tests.agents import ALICE, LAPTOP, PHONE, AgentTestCase, AnyAgentTestCase, state_of


class Echo(Protocol):
    """Sends back what comes.

    :param open: the connections that are open now.
    """

    def __init__(self, open: set[Echo]) -> None:
        self._open = open

    def connectionMade(self) -> None:
        self._open.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open.discard(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Client(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def write(self, data: bytes) -> None:
        """Send."""
        assert self.transport is not None
        self.transport.write(data)


class EndpointTests(AgentTestCase):
    """TCP over the virtual network in a Twisted program."""

    async def listen(self, agent: Agent, port: int = 5000) -> Any:
        """Serve an echo on a device."""
        endpoint = serverFromString(reactor, f"ntm:{port}:state={state_of(agent)}")
        open: set[Echo] = set()
        listening = await endpoint.listen(Factory.forProtocol(lambda: Echo(open)))
        self.addCleanup(self.eventually, lambda: not open, "no connection is left")
        self.addCleanup(listening.stopListening)
        return listening

    async def connect(self, agent: Agent, name: str, port: int = 5000) -> Client:
        """Connect from a device."""
        endpoint = clientFromString(reactor, f"ntm:{name}:{port}:state={state_of(agent)}")
        client = await connectProtocol(endpoint, Client())
        assert isinstance(client, Client)
        self.addCleanup(self.close, client)
        return client

    async def close(self, client: Client) -> None:
        """End a connection."""
        if client.transport is not None:
            client.transport.loseConnection()
        await client.lost

    async def test_echo(self) -> None:
        """A server and a client talk by name, at their virtual addresses."""
        _, phone, laptop = await self.pair()
        await self.listen(laptop)
        client = await self.connect(phone, LAPTOP)
        client.write(b"hello")
        await self.eventually(lambda: client.received == b"hello", "the echo comes")
        assert client.transport is not None
        peer: Any = client.transport.getPeer()
        self.assertEqual((str(laptop.node.certificate.ipv6), 5000), (peer.host, peer.port))

    async def test_user_name(self) -> None:
        """A user's name stands for the device that registered last."""
        _, phone, laptop = await self.pair()
        await self.listen(laptop)
        client = await self.connect(phone, "bob.dc2.ntm.example")
        client.write(b"bob?")
        await self.eventually(lambda: client.received == b"bob?", "the echo comes")

    async def test_own_name(self) -> None:
        """A device reaches itself."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        await self.listen(phone)
        client = await self.connect(phone, PHONE)
        client.write(b"me")
        await self.eventually(lambda: client.received == b"me", "the echo comes")

    async def test_much(self) -> None:
        """A megabyte goes there and back."""
        _, phone, laptop = await self.pair()
        await self.listen(laptop)
        client = await self.connect(phone, LAPTOP)
        data = bytes(range(256)) * 4096
        client.write(data)
        await self.eventually(lambda: len(client.received) == len(data), "all of it comes")
        self.assertEqual(data, client.received)

    async def test_errors(self) -> None:
        """Each failure is one of ours, whose text says what it is about."""
        _, phone, laptop = await self.pair()
        refused = await self.assertRaises_(Unreachable, self.connect(phone, LAPTOP, 5001))
        self.assertEqual(f"{LAPTOP} port 5001: Connection refused", str(refused))
        nobody = "nobody.bob.dc2.ntm.example"
        unknown = await self.assertRaises_(UnknownName, self.connect(phone, nobody))
        self.assertIn(nobody, str(unknown))
        await self.assertRaises_(NTMobileError, self.connect(phone, "example.org"))
        await self.assertRaises_(InvalidName, self.connect(phone, "-bad-.dc1.ntm.example"))
        await self.listen(laptop)
        used = await self.assertRaises_(ConfigurationError, self.listen(laptop))
        self.assertIn("cannot listen on port 5000 of the virtual network", str(used))

    async def test_cancelled(self) -> None:
        """A connection that nobody wants any more is given up."""
        _, phone, _ = await self.pair()
        endpoint = clientFromString(reactor, f"ntm:{LAPTOP}:5000:state={state_of(phone)}")
        connecting = endpoint.connect(Factory.forProtocol(Client))
        connecting.cancel()
        await self.assertRaises_(CancelledError, connecting)

    async def test_stopped_listening(self) -> None:
        """A port that is listened on no more refuses."""
        _, phone, laptop = await self.pair()
        listening = await self.listen(laptop)
        await listening.stopListening()
        await self.assertRaises_(Unreachable, self.connect(phone, LAPTOP))


class SocketlessTests(AnyAgentTestCase):
    """Devices without a virtual network for sockets."""

    async def test_no_agent(self) -> None:
        """Without an agent, both endpoints say how to start it."""
        state = Path(self.mktemp())
        state.mkdir()
        (state / "node.toml").touch()
        factory = Factory.forProtocol(Client)
        server = serverFromString(reactor, f"ntm:5000:state={state}")
        client = clientFromString(reactor, f"ntm:{PHONE}:5000:state={state}")
        for asked in (server.listen(factory), client.connect(factory)):
            problem = await self.assertRaises_(Unreachable, asked)
            text = f"no agent is running for {state}; start it with: ntm up --state {state}"
            self.assertEqual(text, str(problem))

    async def test_datagram(self) -> None:
        """A device with the ``datagram`` attachment never opens a port of the host instead."""
        platform = await self.platform()
        state = await platform.enroll(ALICE, "phone")
        with (state / "node.toml").open("a") as file:
            file.write('[attachment]\nplugin = "datagram"\n')
        await self.start_agent(state)
        endpoint = serverFromString(reactor, f"ntm:5000:state={state}")
        problem = await self.assertRaises_(
            NotPermittedHere, endpoint.listen(Factory.forProtocol(Client))
        )
        self.assertIn("no virtual network for sockets", str(problem))


class ParserTests(SynchronousTestCase):
    """The strings of the endpoints."""

    def test_wrong_ports(self) -> None:
        """What is no port is said to be none."""
        for port in ("http", "65536", "-1", "", "1.5", "\uff15"):
            problem = self.assertRaises(ValueError, serverFromString, reactor, f"ntm:{port}")
            self.assertIn("is no port; write ntm:5000 or ntm:NAME:5000", str(problem))
            self.assertRaises(ValueError, clientFromString, reactor, f"ntm:{PHONE}:{port}")

    def test_wrong_forms(self) -> None:
        """Parts too few, too many or unknown: one line says what it must be."""
        for wrong in ("ntm:", "ntm:5000:x", "ntm:5000:dir=x"):
            problem = self.assertRaises(ValueError, serverFromString, reactor, wrong)
            self.assertRegex(str(problem), r"\Antm: .*ntm:5000[^\n]*\Z")
        for wrong in ("ntm:5000", "ntm:a:b:5000", "ntm:a.b:5000:dir=x"):
            problem = self.assertRaises(ValueError, clientFromString, reactor, wrong)
            self.assertRegex(str(problem), r"\Antm: .*ntm:NAME:5000[^\n]*\Z")

    def test_both_are_found(self) -> None:
        """Twisted finds the parsers by its plugin system."""
        self.assertEqual("NTMServerEndpoint", type(serverFromString(reactor, "ntm:5")).__name__)
        client = clientFromString(reactor, f"ntm:{PHONE}:5")
        self.assertIn("NTMClientEndpoint", repr(client) + type(client).__name__)
