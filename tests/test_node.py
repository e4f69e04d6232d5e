"""Nodes, coordinators, relay and account server together, over real sockets in one process."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.node import Node
from ntmobile.client.pins import PinStore
from ntmobile.errors import (
    AuthenticationError,
    InvalidName,
    NTMobileError,
    UnknownName,
    Unreachable,
    UntrustedIdentity,
)
from ntmobile.machines.signalling.clients import Policy
from tests.platforms import Platform, PlatformTestCase, coordinators, make_realm, realm_ports

PHONE = "phone.alice.dc1.ntm.example"
LAPTOP = "laptop.bob.dc2.ntm.example"


class Inbox:
    """Datagrams as they arrive."""

    def __init__(self) -> None:
        self.arrived: list[tuple[bytes, str, int]] = []

    def receive(self, payload: bytes, source: str, port: int) -> None:
        """One datagram."""
        self.arrived.append((payload, source, port))


class TunnelTests(PlatformTestCase):
    """From names to a tunnel that carries datagrams between virtual addresses."""

    async def pair(self, **settings: str) -> tuple[Any, Node, Node]:
        """A platform with a phone of alice and a laptop of bob, who has these settings."""
        platform = await self.platform()
        phone = await platform.node("alice@dc1.ntm.example", "phone")
        laptop = await platform.node("bob@dc2.ntm.example", "laptop", **settings)
        return platform, phone, laptop

    async def test_datagrams(self) -> None:
        """UDP goes both ways between virtual addresses, in IPv6 and in IPv4."""
        _, phone, laptop = await self.pair()
        there, here = Inbox(), Inbox()
        laptop.listen_datagram(5000, there.receive)
        socket = phone.listen_datagram(6000, here.receive)
        shown = await phone.resolve(LAPTOP)
        for address in (str(shown.ipv6), str(shown.ipv4)):
            there.arrived.clear()
            socket.send(b"hello", address, 5000)
            await self.eventually(lambda: bool(there.arrived), f"arrives at {address}")
            payload, source, port = there.arrived[0]
            self.assertEqual((payload, port), (b"hello", 6000))
            own = phone.certificate.ipv6 if ":" in address else phone.certificate.ipv4
            self.assertEqual(source, str(own))

    async def test_direct(self) -> None:
        """Two devices of one machine talk directly, and say so."""
        _, phone, _ = await self.pair()
        tunnel = await phone.connect(LAPTOP)
        self.assertIsNotNone(tunnel.active)
        assert tunnel.active is not None
        self.assertEqual(tunnel.active.kind, "direct")
        self.assertLess(await phone.ping(LAPTOP), 1.0)

    async def test_both_ask(self) -> None:
        """R15: crossed directions end in one tunnel on each side."""
        _, phone, laptop = await self.pair()
        one = Deferred.fromCoroutine(phone.connect(LAPTOP))
        other = Deferred.fromCoroutine(laptop.connect(PHONE))
        await one
        await other
        self.assertEqual([t.peer for t in phone.correspondence.tunnels], [LAPTOP])
        self.assertEqual([t.peer for t in laptop.correspondence.tunnels], [PHONE])
        self.assertLess(await laptop.ping(PHONE), 1.0)

    async def test_user_name(self) -> None:
        """A user's name stands for the device that registered last, in another domain too."""
        platform, phone, _ = await self.pair()
        await platform.node("bob@dc2.ntm.example", "tablet")
        tunnel = await phone.connect("bob.dc2.ntm.example")
        self.assertEqual(tunnel.peer, "tablet.bob.dc2.ntm.example")

    async def test_relay_only(self) -> None:
        """R13: who hides its addresses is reached through the relay, and its address not named."""
        _, phone, laptop = await self.pair(relay_only='["*.alice.dc1.ntm.example"]')
        await self.eventually(lambda: laptop.registering.registered, "registered")
        tunnel = await phone.connect(LAPTOP)
        assert tunnel.active is not None
        self.assertEqual(tunnel.active.kind, "relay")
        hidden = set(laptop.traffic.sockets.ports.values())
        self.assertFalse(hidden & {path.remote[1] for path in tunnel.paths})

    async def test_unknown(self) -> None:
        """An unknown device and one that does not admit us are the same to us (R13)."""
        _, phone, _ = await self.pair(allow='["*.carol.dc1.ntm.example"]')
        denied = await self.assertRaises_(UnknownName, phone.connect(LAPTOP))
        absent = "absent.bob.dc2.ntm.example"
        unknown = await self.assertRaises_(UnknownName, phone.connect(absent))
        self.assertEqual(str(denied).replace(LAPTOP, "X"), str(unknown).replace(absent, "X"))

    async def test_refused(self) -> None:
        """R13: whom the device alone refuses hears it at once, in the words of its DC."""
        _, phone, laptop = await self.pair()
        laptop.directing.policy = Policy(())
        before = reactor.seconds()
        denied = await self.assertRaises_(UnknownName, phone.connect(LAPTOP))
        self.assertLess(reactor.seconds() - before, 5.0)
        self.assertEqual(str(denied), f"nobody is called {LAPTOP}, or not for you to reach")
        self.assertEqual(phone.correspondence.tunnels, ())

    async def test_wrong_names(self) -> None:
        """Names that cannot be a correspondent's are refused with one line."""
        _, phone, _ = await self.pair()
        for name in (PHONE, "", "192.0.2.1", "La Ptop.bob", "a\udcff.bob", f"{'x.' * 50}bob"):
            await self.assertRaises_(InvalidName, phone.connect(name))
        for name in ("x.y.dc9.ntm.example", "laptop.bob.elsewhere.test"):
            problem = await self.assertRaises_(
                (UnknownName, Unreachable, AuthenticationError),
                phone.connect(name),
            )
            self.assertNotIn("\n", str(problem))
            self.assertIn(name, str(problem))


class FailureTests(PlatformTestCase):
    """Servers that go, come back, or change their mind."""

    async def test_revocation(self) -> None:
        """R34: a removed device loses its tunnels at once, in another domain too."""
        platform = await self.platform()
        phone = await platform.node("alice@dc1.ntm.example", "phone")
        laptop = await platform.node("bob@dc2.ntm.example", "laptop")
        await laptop.connect(PHONE)
        store = platform.realm.accounts()
        self.addCleanup(store.close)
        store.remove(PHONE, platform.services["as"].unix_time())
        await self.eventually(lambda: not laptop.correspondence.tunnels, "the tunnel ends", 3.0)
        await self.assertRaises_(UnknownName, laptop.connect(PHONE))
        await self.eventually(lambda: not phone.registering.registered, "it is told", 3.0)
        await self.eventually(lambda: "remove" in phone.registering.problem, "why", 5.0)

    async def test_revocation_at_the_relay(self) -> None:
        """R34: no relay serves a removed device any more, whatever the device itself does."""
        platform = await self.platform()
        settings = {"relay_only": '["*"]'}
        phone = await platform.node("alice@dc1.ntm.example", "phone", **settings)
        laptop = await platform.node("bob@dc2.ntm.example", "laptop")
        await phone.connect(LAPTOP)
        relayed = platform.services["rs1"].relaying.server
        self.assertEqual(len(relayed), 1)
        for node in (phone, laptop):
            self.patch(node, "end", lambda *reason: None)  # neither obeys
        store = platform.realm.accounts()
        self.addCleanup(store.close)
        store.remove(PHONE, platform.services["as"].unix_time())
        await self.eventually(lambda: not len(relayed), "it forgets the tunnel", 3.0)

    async def test_coordinator_restarts(self) -> None:
        """A restarted DC recovers its clients without a login; live tunnels never notice."""
        platform = await self.platform()
        phone = await platform.node("alice@dc1.ntm.example", "phone")
        await platform.node("bob@dc2.ntm.example", "laptop")
        tunnel = await phone.connect(LAPTOP)
        session = phone.registering.registration
        await platform.stop("dc1")
        self.assertLess(await phone.ping(LAPTOP), 1.0)
        platform.start("dc1")
        phone.registering.network_changed()
        await self.eventually(
            lambda: any(c.registered for c in platform.services["dc1"].domain.clients),
            "registered again",
        )
        self.assertIs(phone.registering.registration, session)
        self.assertIs(phone.correspondence.find(LAPTOP), tunnel)

    async def test_asleep(self) -> None:
        """R16: a direction waits for a device that is off, and reaches it when it comes."""
        platform = await self.platform()
        phone = await platform.node("alice@dc1.ntm.example", "phone")
        state = await platform.enroll("bob@dc2.ntm.example", "laptop")
        waiting = Deferred.fromCoroutine(phone.connect(LAPTOP))
        await self.eventually(lambda: "waking" in phone.directing.history.get(LAPTOP, ""), "waking")
        await platform.open(state)
        tunnel = await waiting
        self.assertTrue(tunnel.established)


class IdentityTests(PlatformTestCase):
    """Pinned correspondents that come with another identity (R5)."""

    async def replaced(self, *, signed: bool) -> tuple[Node, Platform]:
        """Bob, who pinned alice's phone before it was enrolled anew; the phone is up again."""
        platform = await self.platform()
        state = await platform.enroll("alice@dc1.ntm.example", "phone")
        phone = await platform.open(state)
        laptop = await platform.node("bob@dc2.ntm.example", "laptop")
        await laptop.ping(PHONE)
        former = DeviceIdentity.load(state) if signed else None
        platform.nodes.remove(phone)
        await phone.stop()
        await self.eventually(lambda: not laptop.correspondence.tunnels, "the tunnel ends")
        await platform.open(await platform.enroll("alice@dc1.ntm.example", "phone", former))
        return laptop, platform

    async def test_succession(self) -> None:
        """R5: an identity that the pinned one has signed is accepted silently."""
        laptop, _ = await self.replaced(signed=True)
        self.assertTrue((await laptop.connect(PHONE)).established)

    async def test_stranger(self) -> None:
        """R5: any other is an error until it is trusted by hand."""
        laptop, _ = await self.replaced(signed=False)
        problem = await self.assertRaises_(UntrustedIdentity, laptop.connect(PHONE))
        self.assertIn(f"ntm trust {PHONE}", str(problem))
        pins = laptop.directing.pins
        assert isinstance(pins, PinStore)
        pins.trust(PHONE)
        self.assertTrue((await laptop.connect(PHONE)).established)


class RealmTests(PlatformTestCase):
    """Correspondents in two realms (R1)."""

    async def realms(self, *, trusting: bool) -> tuple[Node, Node]:
        """A phone in one realm and a laptop in another; both admit anybody."""
        ours, theirs = realm_ports(), realm_ports()
        one = make_realm(
            self.place(),
            "ntm.example",
            ("alice@dc1.ntm.example",),
            coordinators("other.test", theirs),
            ours,
        )
        other = make_realm(
            self.place(),
            "other.test",
            ("bob@dc2.other.test",),
            coordinators("ntm.example", ours),
            theirs,
        )
        if trusting:
            one.realm.trust("other.test", other.directory / "ca.pem")
            other.realm.trust("ntm.example", one.directory / "ca.pem")
        await self.run_platform(one)
        await self.run_platform(other)
        phone = await one.node("alice@dc1.ntm.example", "phone", allow='["*"]')
        return phone, await other.node("bob@dc2.other.test", "laptop", allow='["*"]')

    async def test_trusted(self) -> None:
        """Where each realm trusts the other's authority, their devices talk."""
        phone, laptop = await self.realms(trusting=True)
        tunnel = await phone.connect("laptop.bob.dc2.other.test")
        self.assertTrue(tunnel.established)
        self.assertLess(await laptop.ping("phone.alice.dc1.ntm.example"), 1.0)

    async def test_not_trusted(self) -> None:
        """Where no authority is configured for a domain, the name is refused with one line."""
        phone, _ = await self.realms(trusting=False)
        problem = await self.assertRaises_(
            NTMobileError, phone.connect("laptop.bob.dc2.other.test")
        )
        self.assertIn("trust", str(problem))
        self.assertNotIn("\n", str(problem))
